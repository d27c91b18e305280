"""Kill -9 of the ingest: the next run goes on, ends where one that was never interrupted ends, and nothing is left."""

import pytest

from children import KILLED
from server_faults.places import NAMES, ServerPlace
from torture.shown import shown


def test_a_run_killed_at_any_step_leaves_nothing_on_the_server_and_is_made_good(new, paths, ward):
    expected, place = new("undisturbed"), new("place")
    for path in paths[:2]:  # the first is loaded as it comes, the second compared with it
        steps = []
        expected.ingest(path, on_step=steps.append)
        before = place.fingerprint()
        for k, step in enumerate(steps, 1):
            assert ward.run(place, paths=[path], step=k) == KILLED, step
            assert place.left_on_server() == [], step
            assert place.fingerprint() == before, step
        assert {"copy", "lock", "look", "books", "commit"} <= set(steps)
        place.stored(path)
        assert place.leftovers() == []
    assert {"compare", "write"} <= set(steps)
    assert place.state(NAMES) == expected.state(NAMES)


@pytest.fixture(scope="module")
def whole(cluster, tmp_path_factory, paths):
    """What a run shows that nothing interrupted."""
    place = ServerPlace(tmp_path_factory.mktemp("whole"), {}, cluster.fresh())
    place.stored(*paths)
    return shown(place)


@pytest.mark.kill("ingest", "server")
def test_a_run_killed_at_a_random_moment_ends_as_if_it_had_not_been(cluster, new, paths, ward, whole, torture):
    for attempt in torture:
        place = new(attempt.number)
        ward.start(place, paths=paths)
        if attempt.hit(ward.follow(attempt.moment)):
            attempt.none(place.left_on_server(), "of the session that was killed")
            outcomes = place.ingest(*paths)
            assert [o.error for o in outcomes] == [None] * len(paths)
        attempt.same(whole, shown(place))
        attempt.none(place.leftovers(), "files, sessions or rows")
        cluster.drop(place.address)

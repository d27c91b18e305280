"""Kill -9 at a random moment: the next run goes on, and ends where one that was never interrupted ends."""

import shutil

import pytest

from children import KILLED
from lakes import Place
from torture.shown import shown


@pytest.fixture(scope="module")
def whole(tmp_path_factory, paths):
    """What a run shows that nothing interrupted."""
    place = Place(tmp_path_factory.mktemp("whole"))
    place.stored(*paths)
    return shown(place)


def goes_on(place, paths):
    outcomes = place.ingest(*paths)
    assert [o.error for o in outcomes] == [None] * len(paths)
    assert {o.status for o in outcomes} <= {"stored", "skipped"}


@pytest.mark.kill("ingest", "lake")
def test_a_run_killed_at_a_random_moment_ends_as_if_it_had_not_been(tmp_path, nursery, paths, whole, torture):
    for attempt in torture:
        place = Place(tmp_path / str(attempt.number))
        nursery.start(place.folder, paths)
        if attempt.hit(nursery.follow(attempt.moment)):
            goes_on(place, paths)
        attempt.same(whole, shown(place))
        attempt.none(place.leftovers(), "files")
        shutil.rmtree(place.folder)


def test_a_run_killed_again_and_again_gets_there(tmp_path, nursery, paths, undisturbed):
    place = Place(tmp_path / "place")
    for k in range(8):
        assert nursery.run(place.folder, paths, after=0.1 + 0.05 * k) in (0, KILLED)
    goes_on(place, paths)
    assert place.state() == undisturbed
    assert place.leftovers() == []

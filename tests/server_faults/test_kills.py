"""Kill -9 of the ingest: the next run goes on, ends where one that was never interrupted ends, and nothing is left."""

import random
import time

from server_faults.places import NAMES
from server_faults.wards import KILLED

RANDOM_KILLS = 4


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


def test_a_run_killed_at_random_moments_ends_as_if_it_had_not_been(new, paths, ward, undisturbed):
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    killed, tries, seconds = 0, 0, 1.0
    while killed < RANDOM_KILLS:
        tries += 1
        place = new(tries)
        after, began = moments.random() * seconds, time.perf_counter()
        code = ward.run(place, paths=paths, after=after)
        assert code in (0, KILLED), (seed, tries, after)
        if code == KILLED:
            killed += 1
            assert place.left_on_server() == []
            outcomes = place.ingest(*paths)
            assert [o.error for o in outcomes] == [None] * len(paths)
            assert place.state() == undisturbed
            assert place.leftovers() == []
        else:  # it was done before: how long a run takes is learned on the way
            seconds = min(seconds, time.perf_counter() - began)
        assert tries < 3 * RANDOM_KILLS

"""Kill -9 of the ingest: the next run goes on, ends where one that was never interrupted ends, and nothing is left."""

import random
import time

import pytest

from lakes import NAMES
from server_faults.wards import KILLED, Ward

RANDOM_KILLS = 8


@pytest.fixture(scope="module")
def ward():
    ward = Ward()
    yield ward
    ward.close()


def same_after_another_run(place, paths, expected, names=NAMES):
    assert place.left_on_server() == []
    outcomes = place.ingest(*paths)
    assert [o.error for o in outcomes] == [None] * len(paths)
    assert {o.status for o in outcomes} <= {"stored", "skipped"}
    assert place.state(names) == expected
    assert place.leftovers() == []


def test_a_run_killed_at_any_step_leaves_nothing_on_the_server_and_is_made_good(new, paths, ward):
    paths, names, steps = paths[:2], ("trades",), []
    place = new("undisturbed")
    place.ingest(*paths, on_step=steps.append)
    assert {"copy", "lock", "compare", "write", "books", "commit"} <= set(steps)
    expected = place.state(names)
    for k in range(1, len(steps) + 1):
        place = new(k)
        assert ward.run(place, paths=paths, step=k) == KILLED, steps[k - 1]
        same_after_another_run(place, paths, expected, names)


def test_a_run_killed_at_random_moments_ends_as_if_it_had_not_been(new, paths, ward):
    place = new("undisturbed")
    place.stored(*paths)
    expected = place.state()
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
            same_after_another_run(place, paths, expected)
        else:  # it was done before: how long a run takes is learned on the way
            seconds = min(seconds, time.perf_counter() - began)
        assert tries < 3 * RANDOM_KILLS

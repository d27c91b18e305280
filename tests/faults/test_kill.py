"""Kill -9 at a random moment: the next run goes on, and ends where one that was never interrupted ends."""

import random
import signal
import time

from lakes import Place

KILLED = -signal.SIGKILL
RANDOM_KILLS = 50


def same_after_another_run(place, paths, expected):
    outcomes = place.ingest(*paths)
    assert [o.error for o in outcomes] == [None] * len(paths)
    assert {o.status for o in outcomes} <= {"stored", "skipped"}
    assert place.state() == expected
    assert place.leftovers() == []


def test_a_run_killed_at_fifty_random_moments_ends_as_if_it_had_not_been(tmp_path, nursery, paths, undisturbed):
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    killed, tries, seconds = 0, 0, 2.0
    while killed < RANDOM_KILLS:
        tries += 1
        place = Place(tmp_path / str(tries))
        after = moments.random() * seconds
        began = time.perf_counter()
        code = nursery.run(place.folder, paths, after=after)
        assert code in (0, KILLED), (seed, tries, after)
        if code == KILLED:
            killed += 1
            same_after_another_run(place, paths, undisturbed)
        else:  # it was done before: others are as busy as they are, so how long a run takes is learned on the way
            seconds = min(seconds, time.perf_counter() - began)
        assert tries < 3 * RANDOM_KILLS


def test_a_run_killed_again_and_again_gets_there(tmp_path, nursery, paths, undisturbed):
    place = Place(tmp_path / "place")
    for k in range(8):
        assert nursery.run(place.folder, paths, after=0.1 + 0.05 * k) in (0, KILLED)
    same_after_another_run(place, paths, undisturbed)

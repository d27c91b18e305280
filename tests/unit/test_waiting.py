import signal
import time

import pytest

from hdi.stores.waiting import interruptible


def test_what_is_asked_comes_one_by_one():
    assert list(interruptible(lambda: iter([1, 2]), lambda: None)) == [1, 2]


def test_what_begins_only_when_it_was_told_to_end_is_told_again():
    """As a driver does that forgets what it was told before its statement began."""
    stops = []

    def ask():
        while not stops:
            time.sleep(0.01)
        forgotten, patience = len(stops), time.monotonic() + 60
        while len(stops) == forgotten and time.monotonic() < patience:
            time.sleep(0.01)
        return iter(())

    # As Python takes Ctrl-C, and it comes while the answer is waited for.
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(interruptible(ask, lambda: stops.append(1)))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(stops) == 2

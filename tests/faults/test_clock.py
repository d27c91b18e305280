"""A clock that is wrong, or jumps at each step of a commit: rows, books and what was known are as by a right one."""

import contextlib

import pytest

from faults.clocks import HOUR, YEAR
from faults.marks import on_both
from hdi.testing.material import State
from hdi.then import Then

#: By how many seconds it is off, from the start on and from each step of a commit on.
JUMPS = [5 * YEAR, -HOUR, -2 * HOUR, -3 * YEAR, 0, HOUR, YEAR]


@pytest.fixture(scope="package")
def three(paths):
    """Files of trades, of which the second replaces rows of the first."""
    return [*paths[:2], paths[4]]


def known(place):
    """The state as it was known at each commit, the oldest first."""
    with contextlib.closing(place.open(write=False)) as store:
        times = store.ledger()["committed_at"].unique(maintain_order=True).to_list()
        assert times == sorted(times)
        return [repr(State.of(Then(store, at))).replace(str(place.folder), "") for at in times]


@pytest.fixture
def right(new, three):
    """A place that was filled by a right clock."""
    place = new("right", refetch=True)
    place.stored(*three)
    return place


@on_both("clock", "jumps at each step of a commit")
def test_rows_books_and_what_was_known_at_each_commit_are_as_by_a_right_clock(new, right, clockwork, three):
    place = new("place")
    for path in three:
        assert clockwork.run(place, [path], jumps=JUMPS, zone="Pacific/Kiritimati", options={"refetch": True}) == 0
    assert place.state() == right.state()
    assert place.leftovers() == []
    assert known(place) == known(right)

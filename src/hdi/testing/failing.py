"""Faults: whatever breaks a commit, at whatever step, changes nothing; and then it can be done again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from hdi.stores import Store
from hdi.testing.base import Suite
from hdi.testing.material import ALWAYS, START, Load, State, opened, rejects, trades

_AT = [START + k * 1_000_000 for k in range(40)]
_CASES = ("first", "overlap", "equal", "fragment", "failed")


def _case(name: str) -> tuple[list[Load], Callable[[Store], object]]:
    """What is there before, and what is then committed."""
    base = Load(trades(_AT), rejected=rejects([START + 7]))
    if name == "first":
        return [], base.commit
    if name == "equal":
        return [base], base.with_run("run-2").commit
    if name == "failed":
        return [base], Load(trades([]), rejected=rejects([START + 9])).failing
    if name == "fragment":
        first, second = (Load(trades(_AT[:n]), symbol="", window=ALWAYS, digest=f"f{n}") for n in (20, 40))
        return [first], second.commit
    rows, bad = trades(_AT[:30], 1, range(30, 60)), rejects([START + 9])
    return [base], Load(rows, symbol="ESH4", stype="raw_symbol", rejected=bad, run="run-2").commit


class Broken(BaseException):
    """What the suite breaks a commit with: nothing expects it."""


class Failing(Suite):
    """A store names the steps of a commit to ``on_step``, and may be broken at each."""

    @pytest.mark.parametrize("case", _CASES)
    def test_an_exception_at_any_step_of_a_commit_changes_nothing(
        self, fresh_url: Callable[[], str], case: str
    ) -> None:
        before, act = _case(case)
        steps, expected = _recorded(fresh_url(), before, act)
        assert steps
        seen: Counter[str] = Counter()
        for step in steps:
            seen[step] += 1
            url = fresh_url()
            first = opened(url)
            for load in before:
                load.commit(first)
            was = State.of(first), self.footprint(url)
            first.close()
            store = opened(url, _breaker(step, seen[step]))
            with pytest.raises(Broken):
                act(store)
            assert (State.of(store), self.footprint(url)) == was, step
            assert State.of(opened(url)) == was[0], step
            act(store)
            assert State.of(store) == State.of(opened(url)) == expected, step

    def test_an_exception_while_rows_are_staged_changes_nothing(self, store: Store, url: str) -> None:
        Load(trades(_AT)).commit(store)
        was = State.of(store), self.footprint(url)

        def broken() -> None:
            raise Broken

        with pytest.raises(Broken):
            Load(trades(_AT, 1, 9)).commit(store, before_finish=broken)
        assert (State.of(store), self.footprint(url)) == was


def _recorded(url: str, before: list[Load], act: Callable[[Store], object]) -> tuple[list[str], State]:
    """The steps of the commit when nothing breaks, and the state after it."""
    steps: list[str] = []
    for load in before:
        load.commit(opened(url))
    act(opened(url, steps.append))
    return steps, State.of(opened(url))


def _breaker(step: str, occurrence: int) -> Callable[[str], None]:
    """Breaks the commit once, at that occurrence of that step."""
    left = [occurrence]

    def on_step(name: str) -> None:
        if name == step:
            left[0] -= 1
            if left[0] == 0:
                raise Broken(step)

    return on_step

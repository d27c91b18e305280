"""Upkeep, for stores that can be tended: it changes no answer, whoever holds the store meanwhile."""

from __future__ import annotations

import pytest

from hdi.stores import Store
from hdi.stores.upkeep import Care, Maintained
from hdi.testing.base import Suite
from hdi.testing.material import START, Load, State, opened, rejects, trades

#: Nothing is kept for who reads the past state of a file: nobody does.
_ALL = Care(keep_hours=0)


def _tended(store: Store, care: Care) -> list[str]:
    """What upkeep says that it did."""
    if not isinstance(store, Maintained):
        pytest.skip("this kind of store is not tended by hdi")
    return [f"{tended.step} {tended.what}: {tended.done}" for tended in store.maintain(care)]


class Tended(Suite):
    """What :class:`hdi.stores.upkeep.Maintained` promises."""

    def test_upkeep_changes_no_answer_of_any_handle(self, store: Store, url: str) -> None:
        other = opened(url)
        for k in range(4):
            rows = trades([START + k, START + 100], k % 2 + 1, 10 + k)
            Load(rows, rejected=rejects([START + 7]), symbol=f"S{k}", run=f"run-{k}").commit(store)
        before = State.of(store)
        assert State.of(other) == before
        assert all(_tended(store, _ALL))
        assert State.of(store) == before
        assert State.of(other) == before
        other.close()

    def test_a_commit_after_upkeep_replaces_what_it_should(self, store: Store) -> None:
        for k in range(3):
            Load(trades([START + k, START + 50], 1, 10 + k), symbol=f"S{k}", run=f"run-{k}").commit(store)
        _tended(store, _ALL)
        receipt = Load(trades([START + 2, START + 50], 1, 12), symbol="S9", run="run-9").commit(store)
        assert (receipt.unchanged, receipt.superseded) == (2, 0)
        receipt = Load(trades([START + 2, START + 50], 1, 99), symbol="S10", run="run-10").commit(store)
        assert (receipt.unchanged, receipt.superseded) == (0, 2)

    def test_a_dry_run_of_upkeep_changes_nothing(self, store: Store, url: str) -> None:
        for k in range(3):
            Load(trades([START + k], k + 1), symbol=f"S{k}", run=f"run-{k}").commit(store)
        before = State.of(store), self.footprint(url)
        _tended(store, Care(dry_run=True, keep_hours=0))
        assert (State.of(store), self.footprint(url)) == before

    def test_upkeep_of_an_empty_store_does_nothing(self, store: Store) -> None:
        before = State.of(store)
        _tended(store, _ALL)
        assert State.of(store) == before

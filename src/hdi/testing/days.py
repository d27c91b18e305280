"""What the vendor says of days, and units that its batch jobs prepare."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from hdi.model import DAY_NS, Window
from hdi.stores import Store
from hdi.testing.base import Suite
from hdi.testing.material import START, Load, State, heard, opened, prices, rejects, trades

_NEXT = Window(START + DAY_NS, START + 2 * DAY_NS)
#: Two days, one of them changed two days later.
_FIRST = heard((0, "available", None, START + 5), (1, "degraded", 3, START + 5))


class Days(Suite):
    """Conditions are kept whenever they change, in the commit that learned them; ordered units claim nothing."""

    def test_conditions_are_kept_as_they_were_heard(self, store: Store, url: str) -> None:
        Load(trades([START + 1]), heard=_FIRST).commit(store)
        for each in (store, opened(url)):
            assert each.conditions().equals(_FIRST)

    def test_conditions_that_are_known_add_nothing_and_changed_ones_are_added(self, store: Store) -> None:
        Load(trades([START + 1]), heard=_FIRST).commit(store)
        same = _FIRST.with_columns(seen_at=pl.lit(START + 9))
        Load(trades([_NEXT.start]), window=_NEXT, heard=same).commit(store)
        assert store.conditions().equals(_FIRST)
        changed = heard(
            (0, "available", 1, START + 20), (1, "available", 3, START + 20), (2, "missing", None, START + 20)
        )
        both = pl.concat([changed, heard((0, "degraded", None, START + 20), dataset="XNAS.ITCH")])
        Load(trades([START + 1]), heard=both, run="run-2").commit(store)
        assert store.conditions().equals(pl.concat([_FIRST, both]))
        back = heard((1, "degraded", 3, START + 30))
        Load(trades([START + 1]), heard=back, run="run-3").commit(store)
        assert store.conditions().equals(pl.concat([_FIRST, both, back]))

    def test_conditions_that_were_heard_before_others_are_kept_once_and_are_not_the_latest(self, store: Store) -> None:
        late = heard((0, "available", 7, START + 50))
        Load(trades([START + 1]), heard=late).commit(store)
        early = heard((0, "degraded", 2, START + 10))
        for run in ("run-2", "run-3"):
            Load(trades([START + 1]), heard=early, run=run).commit(store)
        Load(trades([START + 1]), heard=heard((0, "available", 7, START + 9)), run="run-4").commit(store)
        assert store.conditions().equals(pl.concat([early, late]))

    @pytest.mark.parametrize("how", ["empty", "failing", "ordered"])
    def test_commits_without_rows_keep_conditions(self, store: Store, url: str, how: str) -> None:
        load = Load(trades([]), heard=_FIRST)
        if how == "empty":
            load.commit(store)
        elif how == "failing":
            load.failing(store)
        else:
            load.ordered(store)
        assert opened(url).conditions().equals(_FIRST)
        store.settle()
        assert opened(url).conditions().equals(_FIRST)

    def test_conditions_of_a_commit_that_fails_are_not_kept(self, store: Store) -> None:
        load = Load(trades([START + 1]), heard=_FIRST)
        [number] = store.reserve([load.unit.id])
        with store.replace(load.work(number)) as writer:
            load.stage(writer, number)
        assert store.conditions().is_empty()

    def test_conditions_that_two_handles_learn_at_once_are_not_lost(self, store: Store, url: str) -> None:
        other, day = opened(url), heard((4, "pending", None, START + 6))
        mine = Load(trades([START + 1]), heard=pl.concat([_FIRST, day]))
        theirs = Load(
            trades([_NEXT.start]), window=_NEXT, heard=pl.concat([_FIRST, heard((5, "missing", 5, START + 7))])
        )
        mine.commit(store, lambda: theirs.commit(other))
        assert store.conditions().unique().sort("day")["day"].to_list() == [START + k * DAY_NS for k in (0, 1, 4, 5)]

    def test_many_conditions_are_kept(self, store: Store, url: str) -> None:
        years = heard(*((k, "available", k % 7 or None, START + 1) for k in range(4_000)))
        Load(trades([START + 1]), heard=years).commit(store)
        assert opened(url).conditions().sort("day").equals(years)

    def test_an_ordered_unit_is_in_the_ledger_and_changes_nothing_else(self, store: Store) -> None:
        load = Load(trades([START + 1]), rejected=rejects([START + 2]), job="nightly", prepared="GLBX-1")
        load.failing(store)
        before = State.of(store)
        load.ordered(store)
        after = State.of(store)
        assert replace(after, ledger=before.ledger) == before
        row = store.ledger().row(-1, named=True)
        assert (row["status"], row["job"], row["batch"]) == ("ordered", "nightly", "GLBX-1")
        assert (row["fetched"], row["stored"], row["dollars"]) == (0, 0, None)
        assert store.quarantine()["failed"].to_list() == [True]

    def test_an_ordered_unit_leaves_the_rejects_that_stand(self, store: Store) -> None:
        load = Load(trades([START + 1]), rejected=rejects([START + 2]))
        load.commit(store)
        before = State.of(store)
        load.with_run("again").ordered(store)
        assert replace(State.of(store), ledger=before.ledger) == before
        store.settle()
        assert State.of(store).quarantine == before.quarantine

    def test_an_ordered_unit_is_committed_when_its_bytes_have_come(self, store: Store) -> None:
        load = Load(trades([START + 1, START + 2]))
        load.ordered(store)
        assert load.commit(store).stored == 2
        assert (prices(store), store.ledger()["status"].to_list()) == ([100, 101], ["ordered", "complete"])
        assert store.ledger()["unit"].n_unique() == 2

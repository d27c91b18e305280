"""Rejects that are purged: what goes, what stays, and what is kept of that. For stores that can."""

from __future__ import annotations

import time
from dataclasses import replace

import polars as pl
import pytest

from hdi.frames import NO_RECORD, PURGED
from hdi.stores import Purging, Store
from hdi.testing.base import Suite
from hdi.testing.material import START, Load, content, opened, rejects, trades
from hdi.then import Then

_NS = 1_000_000_000


class Purges(Suite):
    """A purge takes records away and no answer."""

    @pytest.fixture
    def purging(self, store: Store) -> Purging:
        """The store, if it can purge."""
        if not isinstance(store, Purging):
            pytest.skip("this store cannot purge")
        return store

    def test_rejects_that_were_replaced_are_forgotten_and_counted(
        self, store: Store, purging: Purging, url: str
    ) -> None:
        load = Load(trades([START + k * _NS for k in range(3)]), rejected=rejects([START + 5, None, START + 6]))
        first = load.commit(store)
        then = Then(store, time.time_ns())
        second = replace(load, rejected=rejects([START + 7])).commit(store)
        rows = content(store)
        assert purging.purge([], [second.number], "replaced").is_empty()
        done = purging.purge([], [first.number, second.number], "replaced")
        for each in (store, opened(url)):
            assert isinstance(each, Purging)
            assert each.purged().equals(done)
            assert each.rejected()["unit"].to_list() == [second.number]
            assert content(each).equals(rows)
        assert done.schema == PURGED
        assert done.select("unit", "stood", "rows", "reason").rows() == [(first.number, False, 3, "replaced")]
        assert store.ledger()["quarantined"].to_list() == [3, 1]
        assert "kept no longer" in Then(store, then.ns).notes[0]
        assert purging.purge([], [first.number], "replaced").is_empty()

    def test_of_a_reject_that_stands_the_place_stays(self, store: Store, purging: Purging, url: str) -> None:
        load = Load(trades([START]), rejected=rejects([START + 5, START + 6]))
        later = Load(trades([START], 2), symbol="ESM4", rejected=rejects([START + 8], 2))
        old, other = load.commit(store), later.commit(store)
        before = store.quarantine()
        done = purging.purge([old.number], [old.number], "older than 90 days")
        assert done.select("unit", "stood", "rows").rows() == [(old.number, True, 2)]
        assert len(done["digest"][0]) == 64
        for each in (store, opened(url)):
            kept = each.quarantine()
            left = ["record", "error_message"]
            assert kept.drop(left).sort("unit", "row").equals(before.drop(left).sort("unit", "row"))
            emptied = pl.col("unit") == old.number
            assert set(kept.filter(emptied)["record"]) == {NO_RECORD}
            assert kept.filter(emptied)["error_message"].null_count() == 2
            assert kept.filter(~emptied)["record"].to_list() == before.filter(~emptied)["record"].to_list()
        assert purging.purge([old.number], [old.number, other.number], "older than 90 days").is_empty()
        store.settle()
        assert opened(url).quarantine().filter(pl.col("record") == NO_RECORD).height == 2

    def test_what_was_purged_is_told_apart_by_its_digest(self, store: Store, purging: Purging) -> None:
        one = Load(trades([START]), rejected=rejects([START + 5])).commit(store)
        two = Load(trades([START], 2), symbol="ESM4", rejected=rejects([START + 6], 2)).commit(store)
        done = purging.purge([one.number, two.number], [], "all of it")
        assert done["unit"].to_list() == [one.number, two.number]
        assert done["purged_at"].n_unique() == 1
        store.settle()
        assert store.quarantine().height == 2

    def test_an_emptied_reject_is_replaced_and_forgotten_as_any_other(
        self, store: Store, purging: Purging, url: str
    ) -> None:
        load = Load(trades([START]), rejected=rejects([START + 5]))
        first = load.commit(store)
        purging.purge([first.number], [], "old")
        replace(load, rejected=rejects([])).commit(store)
        assert opened(url).quarantine().is_empty()
        assert opened(url).rejected()["record"].to_list() == [NO_RECORD]
        purging.purge([], [first.number], "replaced")
        assert opened(url).rejected().is_empty()
        assert [row[4] for row in opened(url).purged().rows()] == [True, False]  # type: ignore[attr-defined]

    def test_what_another_store_says_of_its_purges_is_kept_once(self, store: Store, purging: Purging, url: str) -> None:
        one = Load(trades([START]), rejected=rejects([START + 5])).commit(store)
        purging.purge([one.number], [], "old")
        own = purging.purged()
        other = own.with_columns(digest=pl.lit("ab" * 32), purged_at=pl.col("purged_at") - 1)
        purging.keep_purged(pl.concat([own, other]))
        purging.keep_purged(other)
        assert opened(url).purged().equals(pl.concat([other, own]))  # type: ignore[attr-defined]
        assert opened(url).quarantine().height == 1
        store.settle()
        assert opened(url).rejected().height == 1


__all__ = ["Purges"]

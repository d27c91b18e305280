"""The ledger of discrepancies: what a reconciliation saw, kept as it was said, and changed whole or not at all."""

from __future__ import annotations

import threading

import polars as pl
import pytest

from hdi.frames import DISCREPANCIES
from hdi.model import MAX_NS, iso_ns
from hdi.stores import Store
from hdi.testing.base import Suite
from hdi.testing.material import DATASET, START, Load, opened, trades
from hdi.then import Then


def _told(number: int, **given: object) -> pl.DataFrame:
    """One open discrepancy, with every kind of value that it may have."""
    row: dict[str, object] = {
        "number": number, "check": "bars", "severity": "ERROR", "dataset": DATASET, "schema": "ohlcv-1d",
        "against": "ohlcv-1m", "publisher_id": 1, "instrument_id": 118, "symbol": "ESH4", "start": START + number,
        "end": MAX_NS - 999, "field": "high_price", "expected": "-1.000000001", "found": 'é, "2"\n', "evidence": "",
        "rows": 1, "state": "open", "run": "run-1", "first_seen": START + 1, "last_run": "run-1",
        "last_seen": START + 1, "resolved_run": None, "resolved_at": None,
    }  # fmt: skip
    return pl.DataFrame([row | given], schema=DISCREPANCIES)


class Noted(Suite):
    """What contradicts something else is kept, until it is said to be gone."""

    def test_discrepancies_are_kept_as_they_were_said(self, store: Store, url: str) -> None:
        assert store.discrepancies().equals(pl.DataFrame(schema=DISCREPANCIES))
        nobody = _told(2, publisher_id=None, symbol=None, expected=None, found=None, evidence=None)
        told = pl.concat([_told(1), nobody])
        assert store.amend(lambda known: pl.concat([known, told])).equals(told)
        for each in (store, opened(url)):
            assert each.discrepancies().equals(told)
            assert each.discrepancies().schema == DISCREPANCIES
            each.close()

    def test_a_change_sees_what_is_there_and_leaves_the_rest_as_it_is(self, store: Store, url: str) -> None:
        store.amend(lambda known: pl.concat([known, *map(_told, (1, 2, 3))]))
        gone = {"state": "resolved", "resolved_run": "run-2", "resolved_at": START + 9}

        def change(known: pl.DataFrame) -> pl.DataFrame:
            assert known["number"].to_list() == [1, 2, 3]
            return pl.concat([known.filter(pl.col("number") != 2), _told(2, **gone), _told(4)]).sort("number")

        store.amend(change)
        assert opened(url).discrepancies().equals(pl.concat([_told(1), _told(2, **gone), _told(3), _told(4)]))

    def test_a_change_that_fails_leaves_all_as_it_was_and_one_that_changes_nothing_writes_nothing(
        self, store: Store, url: str
    ) -> None:
        store.amend(lambda known: pl.concat([known, _told(1)]))
        before = self.footprint(url)

        def broken(known: pl.DataFrame) -> pl.DataFrame:
            raise ZeroDivisionError(known.height)

        with pytest.raises(ZeroDivisionError):
            store.amend(broken)
        store.amend(lambda known: known)
        assert store.discrepancies().equals(_told(1))
        assert self.footprint(url) == before

    def test_two_that_change_at_once_lose_nothing(self, url: str) -> None:
        def add(_: int) -> None:
            handle = opened(url)
            for _ in range(4):
                handle.amend(lambda known: pl.concat([known, _told(known.height + 1)]))
            handle.close()

        threads = [threading.Thread(target=add, args=(k,)) for k in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert opened(url).discrepancies()["number"].to_list() == list(range(1, 9))

    def test_they_can_be_asked_in_sql_and_as_of_an_instant(self, store: Store) -> None:
        Load(trades([START + 1])).commit(store)
        at = int(store.ledger()["committed_at"].max()) + 10  # type: ignore[arg-type]  # Polars' maxima
        known = {"first_seen": at, "last_seen": at + 20, "last_run": "run-2"}
        gone = {"state": "resolved", "resolved_run": "run-2", "resolved_at": at + 20}
        told = [_told(1, **known), _told(2, **{**known, "last_seen": at, "last_run": "run-1"}, **gone),
                _told(3, first_seen=at + 20, last_seen=at + 20)]  # fmt: skip
        store.amend(lambda _: pl.concat(told))
        statement = (
            "SELECT number, check_name, start_time, start_time_ns, state, last_run, resolved_run FROM discrepancies "
            "ORDER BY number"
        )
        words = ("number", "state", "last_run", "resolved_run")
        for then in (None, at, at - 1):
            held = store if then is None else Then.at(store, iso_ns(then))
            found = held.discrepancies()
            asked = held.sql(statement).polars()
            assert asked.select(words).rows() == found.select(words).rows()
            assert asked["check_name"].to_list() == ["bars"] * found.height
            assert asked["start_time_ns"].to_list() == [n % 1000 for n in found["start"]]
        assert Then.at(store, iso_ns(at)).discrepancies().select(words).rows() == [
            (1, "open", "run-1", None), (2, "open", "run-1", None),
        ]  # fmt: skip

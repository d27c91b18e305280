"""As it was known: what a store says of an instant is what it said then, whatever was committed since."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from hdi.errors import RequestError
from hdi.frames import MAPPINGS
from hdi.model import DAY_NS, NS, Query, Window, iso_ns
from hdi.query import run
from hdi.stores import Store
from hdi.testing.base import Suite
from hdi.testing.material import (
    ALWAYS,
    DATASET,
    DAY,
    START,
    Load,
    content,
    definitions,
    frames,
    heard,
    prices,
    refusal,
    rejects,
    schemas,
    trades,
)
from hdi.then import Then

_AT = [START + k * NS for k in range(4)]


def _now(store: Store) -> str:
    """The time of the last commit."""
    return iso_ns(int(store.ledger()["committed_at"].max()))  # type: ignore[arg-type]  # Polars' maxima


def _trades(values: list[int]) -> Load:
    return Load(trades(_AT, prices=values))


class _Busy:
    """A store to which somebody commits right after its ledger was read for the nth time."""

    def __init__(self, store: Store, nth: int, load: Load) -> None:
        self._store, self._left, self._load = store, nth, load

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def ledger(self) -> pl.DataFrame:
        found = self._store.ledger()
        self._left -= 1
        if self._left == 0:
            self._load.commit(self._store)
        return found


class Known(Suite):
    """Every read as of an instant; nothing is written there."""

    def test_replaced_rows_stand_before_the_commit_that_replaced_them(self, store: Store) -> None:
        times = []
        for values in ([1, 2, 3, 4], [1, 9, 3, 4], [1, 9, 3, 4], [1, 2, 8, 4]):
            _trades(values).commit(store)
            times.append(_now(store))
        told = [prices(Then.at(store, when)) for when in times]
        assert told == [[1, 2, 3, 4], [1, 9, 3, 4], [1, 9, 3, 4], [1, 2, 8, 4]]
        assert [Then.at(store, when).replaced(schemas().find("trades")[0]).height for when in times] == [0, 1, 1, 3]

    def test_what_is_committed_before_or_while_it_is_read_changes_no_answer(self, store: Store) -> None:
        _trades([1, 2, 3, 4]).commit(store)
        schema, _ = schemas().find("trades")
        first = Then.at(store, _now(store))
        for nth in range(1, 5):
            busy = _Busy(store, nth, _trades([1, 9 + nth, 3, 4]))
            then = Then(busy, first.ns)
            assert (nth, prices(then)) == (nth, [1, 2, 3, 4])
            assert prices(then) == prices(first) == [1, 2, 3, 4]
            busy = _Busy(store, nth, Load(trades([*_AT, START + 9 * NS])))
            counts = Then(busy, first.ns).content(schema, "trades", ALWAYS, None, NS)
            assert counts["rows"].sum() == len(_AT)
        assert (first.coverage()["unit"].n_unique(), first.ledger().height) == (1, 1)

    def test_an_emptied_window_was_full(self, store: Store) -> None:
        _trades([1, 2, 3, 4]).commit(store)
        full = _now(store)
        Load(trades([]), window=DAY).commit(store)
        assert (prices(store), prices(Then.at(store, full))) == ([], [1, 2, 3, 4])

    def test_a_fragment_that_came_otherwise_stands_as_it_was(self, store: Store) -> None:
        load = replace(_trades([1, 2, 3, 4]), digest="f1", symbol="")
        load.commit(store)
        first = _now(store)
        replace(load, rows=trades(_AT[:2], prices=[7, 2])).commit(store)
        assert (prices(store), prices(Then.at(store, first))) == ([7, 2], [1, 2, 3, 4])

    def test_what_failed_or_was_only_ordered_changes_no_row_and_is_in_the_books_of_its_time(self, store: Store) -> None:
        _trades([1, 2, 3, 4]).commit(store)
        first = _now(store)
        _trades([5, 6, 7, 8]).failing(store)
        failed = _now(store)
        _trades([5, 6, 7, 8]).ordered(store)
        _trades([5, 6, 7, 8]).commit(store)
        assert [prices(Then.at(store, when)) for when in (first, failed)] == [[1, 2, 3, 4]] * 2
        assert [Then.at(store, when).ledger()["status"].to_list() for when in (first, failed)] == [
            ["complete"], ["complete", "failed"],
        ]  # fmt: skip

    def test_a_commit_that_was_made_while_the_clock_was_set_back_comes_after_those_before_it(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _trades([1, 2, 3, 4]).commit(store)
        first = _now(store)
        with monkeypatch.context() as clock:
            clock.setattr(time, "time_ns", lambda: START)
            _trades([1, 9, 3, 4]).commit(store)
        assert store.ledger()["committed_at"].is_sorted()
        assert (prices(Then.at(store, first)), prices(Then.at(store, _now(store)))) == ([1, 2, 3, 4], [1, 9, 3, 4])

    def test_a_commit_is_made_no_earlier_than_its_bytes_were_bought_whatever_the_clock_says(self, store: Store) -> None:
        at = time.time_ns() + DAY_NS
        assert replace(_trades([1, 2, 3, 4]), since=at).commit(store).committed_at == at
        assert store.ledger()["committed_at"].to_list() == [at]
        assert _trades([1, 9, 3, 4]).commit(store).committed_at == at + 1

    def test_a_name_that_was_learned_later_was_not_known(self, store: Store) -> None:
        nameless = Load(trades(_AT).with_columns(symbol=pl.lit(None, pl.String)), symbol="118", stype="instrument_id")
        nameless.commit(store)
        first = _now(store)
        other = Load(trades([], 1), window=Window(DAY.end, DAY.end + NS))
        [number] = store.reserve([other.unit.id])
        named = pl.DataFrame([(DATASET, "raw_symbol", "ESH4", 1, START, DAY.end)], schema=MAPPINGS, orient="row")
        work = replace(other.work(number), mappings=named)
        with store.replace(work) as writer:
            writer.finish(work, [other.receipt(number, work)])
        columns = ("symbol",)
        asked = Query("trades", ("ALL_SYMBOLS",), ALWAYS, columns=columns)
        found = [
            pl.concat(run(at, schemas(), asked).frames())["symbol"].unique().to_list()
            for at in (Then.at(store, first), store, Then.at(store, _now(store)))
        ]
        assert found == [[None], ["ESH4"], ["ESH4"]]

    def test_rejects_that_were_replaced_stood_in_quarantine(self, store: Store) -> None:
        replace(_trades([1, 2, 3, 4]), rejected=rejects([START + 5, START + 6])).commit(store)
        first = Then.at(store, _now(store))
        stood = store.quarantine()
        _trades([1, 2, 3, 4]).commit(store)
        assert store.quarantine().is_empty()
        assert first.quarantine().sort("row").equals(stood.sort("row"))
        assert first.notes == []

    def test_what_the_vendor_said_is_what_was_heard_by_then(self, store: Store) -> None:
        said = heard((0, "degraded", None, START), (0, "available", 1, START + 9))
        replace(_trades([1, 2, 3, 4]), heard=said).commit(store)
        assert Then(store, START + 8).conditions()["condition"].to_list() == ["degraded"]

    def test_instruments_are_what_their_definitions_said_then(self, store: Store) -> None:
        said = [{"at": START + k * NS, "min_price_increment": step} for k, step in enumerate(("0.25", "0.5"))]
        Load(definitions(said), schema="definition").commit(store)
        first = _now(store)
        was = pl.concat(store.instruments()).sort("known_from")
        Load(definitions(said[:1]), schema="definition").commit(store)
        assert (was.height, pl.concat(store.instruments()).height) == (2, 1)
        assert pl.concat(Then.at(store, first).instruments()).sort("known_from").equals(was)

    def test_rows_of_then_come_in_order_by_columns_window_and_instrument(self, store: Store) -> None:
        rows = trades(sorted(_AT * 3), [1, 2, 3] * 4, range(12))
        Load(rows).commit(store)
        first = _now(store)
        Load(rows.with_columns(pl.when(pl.col("instrument_id") == 2).then(-1).otherwise("price").alias("price").cast(
            rows["price"].dtype))).commit(store)  # fmt: skip
        one = pl.DataFrame(
            [(DATASET, 2, START, DAY.end)], schema=["dataset", "instrument_id", "start", "end"], orient="row"
        )  # fmt: skip
        part = Window(_AT[1], _AT[3])
        then = Then.at(store, first)
        assert content(then).equals(rows)
        found = pl.concat(frames(then, window=part, instruments=one, columns=["price"]))
        assert (found.columns, [int(p) for p in found["price"]]) == (["price"], [4, 7])

    def test_a_time_that_has_not_come_or_was_before_the_store_is_refused(self, store: Store) -> None:
        _trades([1, 2, 3, 4]).commit(store)
        texts = [
            str(refusal(Then.at, store, when)) for when in ("2262-01-01", "2000-01-01", "yesterday", _today())
        ]  # fmt: skip
        for text, why in zip(
            texts, ("has not ended", "nothing was stored yet", "is not a date", "has not"), strict=True
        ):
            assert why in text

    def test_nothing_is_written_into_the_past(self, store: Store) -> None:
        _trades([1, 2, 3, 4]).commit(store)
        then = Then.at(store, _now(store))
        assert isinstance(then, Store)
        with pytest.raises(RequestError, match="can only be read"):
            _trades([5, 6, 7, 8]).commit(then)


def _today() -> str:
    return iso_ns(time.time_ns())[:10]


__all__ = ["Known"]

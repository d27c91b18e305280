"""Exactly once: what is committed again, or by overlapping units, is there once and in its order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import polars as pl

from hdi.model import DAY_NS, NS, Window
from hdi.stores import Store
from hdi.testing.base import Suite
from hdi.testing.material import START, Load, Rectangle, content, digest, opened, prices, schemas, trades

_DAYS = 4
_ROLL = 2
#: ESH4, ESM4 and a spread, as instrument ids.
_FRONT, _BACK, _SPREAD = 101, 102, 103


def _day(day: int) -> Window:
    return Window(START + day * DAY_NS, START + (day + 1) * DAY_NS)


def _rows(day: int, instruments: list[int], base: int = 0) -> pl.DataFrame:
    """Three trades of each instrument on one day, by time; the price tells instrument, day and place."""
    parts = [
        trades(
            [_day(day).start + (k * 7 + i) * NS + 123 for k in range(3)],
            i,
            [base + i * 100 + day * 10 + k for k in range(3)],
        )
        for i in instruments
    ]
    return pl.concat(parts).sort("ts_recv", maintain_order=True)


def parent(day: int, base: int = 0) -> Load:
    """ES.FUT of one day: all three instruments."""
    return Load(_rows(day, [_FRONT, _BACK, _SPREAD], base), window=_day(day))


def continuous(day: int, base: int = 0) -> Load:
    """ES.c.0 of one day: the instrument that it stands for on that day, and no other."""
    own = _FRONT if day < _ROLL else _BACK
    scope: list[Rectangle] = [(own, _day(day).start, _day(day).end)]
    return Load(_rows(day, [own], base), scope, symbol="ES.c.0", stype="continuous", window=_day(day))


class Once(Suite):
    """Replacing twice is replacing once, and nothing outside of a scope is touched."""

    def test_what_is_committed_is_what_is_read(self, store: Store) -> None:
        rows = trades([START + 3, START + 4, START + 4_000, START + 5 * NS], [2, 1, 1, 2], [-5, 0, 7, 999_999_999])
        receipt = Load(rows).commit(store)
        assert content(store).equals(rows)
        assert (receipt.fetched, receipt.stored, receipt.unchanged, receipt.superseded) == (4, 4, 0, 0)

    def test_replacing_twice_is_replacing_once(self, store: Store, url: str) -> None:
        load = Load(trades([START + k * 1_111 for k in range(500)], [1 + k % 3 for k in range(500)]), batch=77)
        first = load.commit(store)
        before = digest(store), self.footprint(url)
        again = load.with_run("run-2").commit(store)
        assert (digest(store), self.footprint(url)) == before
        assert digest(opened(url)) == before[0]
        assert (first.unchanged, again.unchanged, again.stored, again.superseded) == (0, 500, 500, 0)
        assert not store.replaced(schemas().find("trades")[0]).height

    def test_a_parent_then_a_continuous_symbol_leaves_the_content_as_it_was(self, store: Store) -> None:
        for day in range(_DAYS):
            parent(day).commit(store)
        before = digest(store)
        receipts = [continuous(day).commit(store) for day in range(_DAYS)]
        assert digest(store) == before
        assert [(r.stored, r.unchanged, r.superseded) for r in receipts] == [(3, 3, 0)] * _DAYS

    def test_the_order_in_which_overlapping_units_come_does_not_matter(
        self, store: Store, fresh_url: Callable[[], str]
    ) -> None:
        other = opened(fresh_url())
        for day in range(_DAYS):
            parent(day).commit(store)
            continuous(day).commit(store)
        for day in reversed(range(_DAYS)):
            continuous(day).commit(other)
        for day in range(_DAYS):
            parent(day).commit(other)
        assert content(store).height == _DAYS * 9
        assert digest(store) == digest(other)
        other.close()

    def test_a_continuous_symbol_owns_one_instrument_before_its_roll_and_another_after(self, store: Store) -> None:
        for day in range(_DAYS):
            parent(day).commit(store)
        before = content(store)
        for day in range(_DAYS):
            assert continuous(day, base=100_000).commit(store).superseded == 3
        after = content(store)
        late = pl.col("ts_recv").to_physical() >= _day(_ROLL).start
        own = pl.col("instrument_id") == pl.when(late).then(_BACK).otherwise(_FRONT)
        assert after.filter(~own).equals(before.filter(~own))
        assert (after.filter(own)["price"] - before.filter(own)["price"]).unique().to_list() == [100_000]

    def test_equal_trades_of_one_instant_all_stay_in_their_order(self, store: Store) -> None:
        at = [START + 5] * 6 + [START + 5 * NS] * 2
        load = Load(trades(at, 1, [5, 5, 4, 5, 6, 5, 9, 9]))
        load.commit(store)
        assert prices(store) == [5, 5, 4, 5, 6, 5, 9, 9]
        assert load.commit(store).unchanged == 8
        assert prices(store) == [5, 5, 4, 5, 6, 5, 9, 9]
        turned = Load(trades(at, 1, [5, 5, 5, 4, 6, 5, 9, 9]))
        assert (turned.commit(store).unchanged, prices(store)) == (2, [5, 5, 5, 4, 6, 5, 9, 9])

    def test_superseded_rows_are_kept_with_the_runs_that_wrote_and_replaced_them(self, store: Store) -> None:
        at = [START + k * 1_111 for k in range(1_000)]
        Load(trades(at)).commit(store)
        changed = [100 + k if k not in (7, 500, 999) else -k for k in range(1_000)]
        receipt = Load(trades(at, 1, changed), run="run-2").commit(store)
        assert (receipt.stored, receipt.unchanged, receipt.superseded) == (1_000, 997, 3)
        assert prices(store) == changed
        old = store.replaced(schemas().find("trades")[0])
        assert sorted(int(p) for p in old["price"]) == [107, 600, 1_099]
        assert set(old.select("_written_run", "_replaced_run", "_replaced_unit").rows()) == {
            ("run-1", "run-2", receipt.number)
        }

    def test_the_run_that_wrote_a_row_is_known_after_an_equal_replacement(self, store: Store) -> None:
        for run in ("run-1", "run-2"):
            Load(trades([START + 1, START + 2]), run=run).commit(store)
        Load(trades([START + 1, START + 2], 1, [100, 7]), run="run-3").commit(store)
        old = store.replaced(schemas().find("trades")[0])
        assert old.select("_written_run", "_replaced_run").rows() == [("run-1", "run-3")]

    def test_rows_that_are_no_longer_there_go_to_history(self, store: Store) -> None:
        Load(trades([START + 1, START + 2, START + 3])).commit(store)
        receipt = Load(trades([START + 2], 1, [101])).commit(store)
        assert (prices(store), receipt.unchanged, receipt.superseded) == ([101], 1, 2)
        assert Load(trades([]), [(1, START, START + DAY_NS)]).commit(store).superseded == 1
        assert content(store).height == 0
        assert store.replaced(schemas().find("trades")[0]).height == 3

    def test_a_scope_holds_its_start_and_not_its_end_to_the_nanosecond(self, store: Store) -> None:
        at = [START + 10_000 + k for k in (-1, 0, 1, 998, 999, 1_000)]
        Load(trades(at, 1, [0, 1, 2, 3, 4, 5])).commit(store)
        inside = [(1, START + 10_000, START + 10_999)]
        part = Load(trades(at[1:4], 1, [11, 12, 13]), inside, symbol="ESH4", stype="raw_symbol")
        assert part.commit(store).superseded == 3
        assert prices(store) == [0, 11, 12, 13, 4, 5]

    def test_a_scope_holds_the_rows_of_every_publisher(self, store: Store) -> None:
        Load(trades([START + 1, START + 1, START + 2], 1, [1, 2, 3], [1, 2, 2])).commit(store)
        Load(trades([START + 1, START + 2], 1, [1, 4], [1, 1]), symbol="ESH4", stype="raw_symbol").commit(store)
        assert content(store).select("publisher_id", "price").rows() == [(1, 1), (1, 4)]

    def test_another_schema_name_of_the_same_instruments_is_not_touched(self, store: Store) -> None:
        day, hour = (Load(bars(name), schema=name) for name in ("ohlcv-1d", "ohlcv-1h"))
        day.commit(store)
        before = digest(store, "ohlcv-1d")
        hour.commit(store)
        replace(hour, rows=bars("ohlcv-1h").clear(), scope=hour.rectangles()).commit(store)
        assert (digest(store, "ohlcv-1d"), content(store, "ohlcv-1h").height) == (before, 0)

    def test_a_symbol_learned_later_is_no_change_of_a_row(self, store: Store) -> None:
        Load(trades([START + 1, START + 2], symbol=None)).commit(store)
        assert Load(trades([START + 1, START + 2])).commit(store).unchanged == 2
        assert Load(trades([START + 1, START + 2], symbol=None)).commit(store).unchanged == 2

    def test_another_symbol_is_a_change_of_a_row(self, store: Store) -> None:
        Load(trades([START + 1, START + 2])).commit(store)
        assert Load(trades([START + 1, START + 2], symbol="ESM4")).commit(store).superseded == 2
        assert content(store)["symbol"].to_list() == ["ESM4", "ESM4"]

    def test_a_load_larger_than_a_batch_keeps_its_order_over_days(self, store: Store) -> None:
        window = Window(START, START + 3 * DAY_NS)
        n = 6_000
        at = [START + k * (3 * DAY_NS // n) for k in range(n)]
        load = Load(trades(at, [1 + k % 5 for k in range(n)]), window=window, batch=97)
        load.commit(store)
        assert content(store).equals(load.rows)


def bars(name: str) -> pl.DataFrame:
    """Three bars of instrument 1, of a schema name of bars."""
    schema, found = schemas().find(name)
    rows = trades([START, START + 3600 * NS, START + 7200 * NS]).with_columns(
        ts_event="ts_recv", volume="size", trade_count=None, vwap=None,
        **{f"{p}_price": pl.col("price") for p in ("open", "high", "low", "close")},
        **{column: pl.lit(value) for column, value in found.constants.items()},
    )  # fmt: skip
    return rows.select(pl.col(c).cast(t) for c, t in schema.dtypes.items())

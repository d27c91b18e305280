"""Reading: windows, rectangles, columns and order, to the nanosecond."""

from __future__ import annotations

from contextlib import closing
from itertools import pairwise
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from hdi.frames import CONTENT
from hdi.model import DAY_NS, Window
from hdi.schema import Schemas
from hdi.stores import Store, Working, open_store
from hdi.testing.base import Suite
from hdi.testing.material import (
    ALWAYS,
    DATASET,
    START,
    Load,
    content,
    counts,
    extremes,
    frames,
    opened,
    schemas,
    trades,
)
from hdi.testing.once import bars

_NEXT = Window(START + DAY_NS, START + 2 * DAY_NS)


def _held(*rows: tuple[str, int, int, int]) -> pl.DataFrame:
    dtypes = {"dataset": pl.String, "instrument_id": pl.Int64, "start": pl.Int64, "end": pl.Int64}
    return pl.DataFrame(list(rows), schema=dtypes, orient="row")


class Reading(Suite):
    """Readers get what they ask for, in the order of the schema."""

    def test_a_store_without_rows_reads_as_nothing(self, store: Store) -> None:
        assert list(frames(store)) == []
        Load(trades([])).commit(store)
        assert list(frames(store)) == []

    def test_a_window_is_half_open_to_the_nanosecond(self, store: Store) -> None:
        at = [START + 5_000 + k for k in (-1, 0, 1, 999, 1_000)]
        Load(trades(at, 1, [0, 1, 2, 3, 4])).commit(store)
        for low, high, expected in (
            (0, 1_000, [1, 2, 3]),
            (-1, 1, [0, 1]),
            (1, 2, [2]),
            (2, 999, []),
            (999, 5_000, [3, 4]),
        ):
            found = content(store, window=Window(START + 5_000 + low, START + 5_000 + high))
            assert [int(p) for p in found["price"]] == expected

    def test_rectangles_limit_each_instrument_to_its_own_time(self, store: Store) -> None:
        at = [START + k * 10 for k in range(6) for _ in range(2)]
        Load(trades(at, [1, 2] * 6, list(range(12)))).commit(store)
        held = _held(
            (DATASET, 1, START + 10, START + 30), (DATASET, 2, START + 50, START + 99), (DATASET, 3, 0, START + 99)
        )
        assert [int(p) for p in content(store, instruments=held)["price"]] == [2, 4, 11]
        assert content(store, instruments=_held(("XNAS.ITCH", 1, 0, START + 99))).height == 0
        assert content(store, instruments=_held()).height == 0
        assert content(store, dataset=DATASET).height == 12
        assert content(store, dataset="XNAS.ITCH").height == 0

    def test_what_is_worked_on_while_it_is_read_is_what_is_read_each_instrument_in_order(self, store: Store) -> None:
        if not isinstance(store, Working):
            pytest.skip("this store does not work on rows while it reads them")
        schema, name = schemas().find("trades")
        index, columns = schema.index_time, ["publisher_id", "instrument_id", schema.index_time, "price"]
        # Ties in the nanosecond, in the microsecond, and with rows of a second commit.
        at = [START + k // 3 * 700 for k in range(300)]
        Load(trades(at, [1 + k % 2 for k in range(300)], list(range(300)))).commit(store)
        Load(trades([t + DAY_NS for t in at], 2, list(range(300))), window=_NEXT).commit(store)
        window = Window(START + 1_400, START + DAY_NS + 50_000)
        arguments = (schema, name.name, window, None, columns)
        read = pl.concat(store.read(*arguments))
        worked = list(store.read_each(*arguments, None, lambda rows: rows))
        ends = [(part[index].min(), part[index].max()) for part in worked]
        assert all(before[1] <= after[0] for before, after in pairwise(ends))  # type: ignore[operator]
        for one in (1, 2):
            mine = pl.col("instrument_id") == one
            assert pl.concat(worked).filter(mine).equals(read.filter(mine))

    def test_a_short_window_of_one_instrument_has_its_part_of_all_rows(self, store: Store) -> None:
        # A few rows, more than any store takes for few, and rows of one instant.
        at = [START + k // 2 * 100_001 for k in range(3_000)]
        Load(trades(at, [1, 2, 1] * 1_000, symbol=None)).commit(store)
        whole = content(store)
        middle = START + 70_000_007
        for low, high in ((START, START + 900_000), (middle, middle + 1), (START + 1, at[-1]), (START, at[-1] + 1)):
            for held in (_held((DATASET, 1, 0, middle)), _held((DATASET, 1, START, START + DAY_NS))):
                end = min(high, held["end"][0])
                when = pl.col("ts_recv").to_physical()
                mine = whole.filter(pl.col("instrument_id") == 1, when >= low, when < end)
                assert_frame_equal(content(store, window=Window(low, high), instruments=held), mine)

    @pytest.mark.parametrize("name", ["trades", "ohlcv-1d", "definition"])
    def test_a_single_row_is_read_with_its_least_and_greatest_values_and_nulls(self, store: Store, name: str) -> None:
        Load(extremes(name), schema=name).commit(store)
        whole = content(store, name)
        index = schemas().find(name)[0].index_time
        for at in whole[index].to_physical():
            window, held = Window(at, at + 1), _held((DATASET, 1, START, START + DAY_NS))
            found = content(store, name, window=window, instruments=held)
            assert_frame_equal(found, whole.filter(pl.col(index).to_physical() == at))

    @pytest.mark.parametrize("columns", [["price"], ["size", "price", "dataset"], ["symbol", "ts_recv"]])
    def test_columns_come_as_they_are_asked_for(self, store: Store, columns: list[str]) -> None:
        load = Load(trades([START + 3, START + 4_002, START + 4_003]))
        load.commit(store)
        assert content(store).select(columns).equals(pl.concat(frames(store, columns=columns)))
        assert list(next(frames(store, columns=columns)).schema) == columns

    def test_types_and_order_are_those_of_the_schema(self, store: Store) -> None:
        dtypes = schemas().find("trades")[0].dtypes
        at = [START + 7, START + 7, START + 7, START + 9]
        Load(trades(at, [2, 1, 2, 1], [1, 2, 3, 4], [2, 2, 1, 1])).commit(store)
        [frame] = frames(store)
        assert dict(frame.schema) == dtypes
        assert [int(p) for p in frame["price"]] == [3, 2, 1, 4]

    def test_rows_of_several_commits_come_in_one_order(self, store: Store) -> None:
        window = Window(START, START + 2 * DAY_NS)
        for instrument in (3, 1, 2):
            at = [START + k * DAY_NS // 50 + instrument for k in range(100)]
            Load(trades(at, instrument), symbol=f"X{instrument}", stype="raw_symbol", window=window).commit(store)
        found = content(store)
        assert found.height == 300
        assert found.equals(found.sort("ts_recv", "dataset", "publisher_id", "instrument_id", maintain_order=True))
        assert content(store, window=_NEXT).height == 150

    def test_a_reader_sees_what_was_committed_before_it_began(self, store: Store, url: str) -> None:
        Load(trades([START + 1])).commit(store)
        reader = opened(url)
        assert content(reader).height == 1
        Load(trades([_NEXT.start + 1]), window=_NEXT).commit(store)
        assert content(reader).height == 2
        assert reader.ledger().height == 2
        assert content(reader, window=ALWAYS).height == 2

    def test_content_counts_what_is_read(self, store: Store) -> None:
        two = Window(START, START + 2 * DAY_NS)
        at = [*sorted(START + k * DAY_NS // 20 + k * 333 for k in range(40)), two.end - 1]
        near = [START, START + 9, START + 10, START + 999, START + 1_000, START + 2_000, START + 2_499, START + 2_500]
        times = [*near, *near, *at]
        who = [*[1] * 8, *[2] * 8, *[1 + k % 3 for k in range(41)]]
        order = sorted(range(len(times)), key=times.__getitem__)
        rows = trades([times[k] for k in order], [who[k] for k in order], publishers=[1 + k % 2 for k in order])
        Load(rows, window=two).commit(store)
        Load(trades([START + 5_000], 4), window=two, symbol="X", stype="raw_symbol", digest="f0").commit(store)
        inside = Window(START + 999, two.end - 1)
        overlapping = _held(
            (DATASET, 1, START + 10, START + 2_500), (DATASET, 1, START + 2_000, START + DAY_NS + 1),
            (DATASET, 2, START + 1_000, START + 1_001), (DATASET, 9, 0, ALWAYS.end), ("XNAS.ITCH", 1, 0, ALWAYS.end),
            (DATASET, 3, START + 7, START + 7),
        )  # fmt: skip
        whole = _held((DATASET, 1, 0, ALWAYS.end), (DATASET, 3, 0, ALWAYS.end))
        cases: list[tuple[int, dict[str, Any]]] = [
            (58, {}), (50, {"window": inside}), (58, {"dataset": DATASET}), (0, {"dataset": "XNAS.ITCH"}),
            (0, {"instruments": _held()}), (12, {"window": inside, "instruments": overlapping}),
            (31, {"window": inside, "instruments": whole}),
        ]  # fmt: skip
        for total, where in cases:
            columns = ["dataset", "instrument_id", "ts_recv"]
            read = content(store, **where).select(columns)
            assert read.height == total
            for every in (1, 7, 1_000, DAY_NS // 24, DAY_NS):
                assert counts(store, "trades", every, **where).equals(_grouped(read, every))

    def test_content_of_one_name_leaves_out_the_others_of_its_table(self, store: Store) -> None:
        assert counts(store, "ohlcv-1d", DAY_NS).schema == CONTENT
        for name, rows in (("ohlcv-1d", 2), ("ohlcv-1h", 3)):
            Load(bars(name).head(rows), schema=name).commit(store)
        assert [counts(store, name, DAY_NS)["rows"].sum() for name in ("ohlcv-1d", "ohlcv-1h")] == [2, 3]

    def test_rows_of_every_schema_come_back_as_they_were_written(self, store: Store) -> None:
        for name in schemas().stored_names:
            Load(extremes(name), schema=name).commit(store)
        for name in schemas().stored_names:
            assert_frame_equal(content(store, name), extremes(name))

    def test_a_store_from_before_a_kind_was_known_has_no_rows_of_it_and_takes_them(self, url: str) -> None:
        with closing(open_store(url, Schemas(s for s in schemas() if s.kind != "mbo"), write=True)) as older:
            Load(trades([START])).commit(older)
        with closing(open_store(url, schemas())) as reader:
            assert content(reader, "mbo").height == 0
            assert counts(reader, "mbo", DAY_NS).height == 0
            assert reader.replaced(schemas().find("mbo")[0]).height == 0
            with closing(opened(url)) as store:
                Load(extremes("mbo"), schema="mbo").commit(store)
            assert content(reader, "mbo").height == 3
            assert content(reader).height == 1


def _grouped(rows: pl.DataFrame, every: int) -> pl.DataFrame:
    """The counts of rows that were read, by plain arithmetic."""
    found: dict[tuple[str, int, int], list[int]] = {}
    for dataset, instrument, ns in rows.with_columns(pl.col("ts_recv").to_physical()).iter_rows():
        found.setdefault((dataset, instrument, ns - ns % every), []).append(ns)
    counted = [(*key, len(times), min(times), max(times)) for key, times in sorted(found.items())]
    return pl.DataFrame(counted, schema=CONTENT, orient="row")

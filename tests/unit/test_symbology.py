"""Notations of symbols, and intervals of instruments."""

import time

import numpy as np
import polars as pl
import pytest

from hdi.symbology import Intervals, disjoint, infer_stype, merge

INTERVAL = {"instrument_id": pl.Int64, "start": pl.Int64, "end": pl.Int64}


def frame(*rows):
    return pl.DataFrame(rows, schema=INTERVAL, orient="row")


def find(intervals, *pairs):
    ids, at = (np.array(column, dtype=np.int64) for column in zip(*pairs, strict=True))
    return Intervals(intervals).find(ids, at).tolist()


@pytest.mark.parametrize(
    ("symbol", "stype"),
    [
        ("ES.c.0", "continuous"), ("ES.C.0", "continuous"), ("6E.n.1", "continuous"), ("cl.v.12", "continuous"),
        ("ES.FUT", "parent"), ("es.opt", "parent"), ("EUR/USD.SPOT", "parent"), ("BRN.FUT", "parent"),
        ("5482", "instrument_id"), ("0", "instrument_id"),
        ("ESH4", "raw_symbol"), ("ESH4-ESM4", "raw_symbol"), ("ES.x.0", "raw_symbol"), ("ES.c.", "raw_symbol"),
        ("ES.c.one", "raw_symbol"), (".c.0", "raw_symbol"), ("ES.FUTURE", "raw_symbol"), ("BRK.B", "raw_symbol"),
        (".FUT", "raw_symbol"), ("UD:1V: VT 2887532", "raw_symbol"), ("AAPL  250221C00250000", "raw_symbol"),
        ("BRN FMJ0024!", "raw_symbol"), ("5482 ", "raw_symbol"), ("-5", "raw_symbol"), ("5.0", "raw_symbol"),
        ("²", "raw_symbol"), ("٣", "raw_symbol"), ("ES.c.٣", "raw_symbol"), ("", "raw_symbol"),
    ],
)  # fmt: skip
def test_a_notation_has_one_type(symbol, stype):
    assert infer_stype(symbol) == stype


class TestFind:
    def test_an_interval_holds_its_start_and_not_its_end(self):
        assert find(frame((7, 10, 20)), (7, 9), (7, 10), (7, 19), (7, 20), (6, 15), (8, 15)) == [-1, 0, 0, -1, -1, -1]

    def test_the_row_of_the_frame_is_named_whatever_its_order(self):
        intervals = frame((7, 30, 40), (5, 0, 100), (7, 10, 20))
        assert find(intervals, (7, 35), (7, 15), (5, 15), (7, 25)) == [0, 2, 1, -1]

    def test_of_overlapping_intervals_the_later_row_wins(self):
        assert find(frame((7, 0, 100), (7, 40, 60)), (7, 39), (7, 40), (7, 59), (7, 60)) == [0, 1, 1, 0]
        assert find(frame((7, 40, 60), (7, 0, 100)), (7, 39), (7, 40), (7, 59), (7, 60)) == [1, 1, 1, 1]
        assert find(frame((7, 0, 9), (7, 0, 9), (7, 0, 9)), (7, 4)) == [2]

    def test_empty_and_reversed_intervals_hold_nothing(self):
        assert find(frame((7, 5, 5), (7, 9, 3), (8, 0, 9), (8, 4, 4)), (7, 5), (7, 4), (8, 4)) == [-1, -1, 2]

    def test_nothing_is_found_among_none_and_none_among_nothing(self):
        assert find(frame(), (7, 5)) == [-1]
        nothing = np.array([], dtype=np.int64)
        assert Intervals(frame((7, 0, 9))).find(nothing, nothing).tolist() == []

    def test_the_ends_of_the_number_range(self):
        most = 2**63 - 1
        assert find(frame((2**32 - 1, 0, most)), (2**32 - 1, most - 1), (2**32 - 1, most), (2**32 - 1, -1)) == [
            0,
            -1,
            -1,
        ]

    def test_a_hundred_thousand_tangled_intervals_take_no_second(self):
        rng = np.random.default_rng(0)
        start = rng.integers(0, 10**6, 100_000)
        tangled = pl.DataFrame({"instrument_id": rng.integers(0, 3, 100_000), "start": start, "end": start + 5_000})
        began = time.process_time()
        Intervals(tangled)
        assert time.process_time() - began < 10  # seconds; a join of all with all would take minutes and memory


def test_disjoint_intervals_stay_as_they_are_and_tangled_ones_are_cut():
    cut = disjoint(frame((7, 0, 10), (7, 10, 20), (8, 0, 50), (8, 10, 20), (8, 60, 70)))
    assert cut.rows() == [(7, 0, 10, 0), (7, 10, 20, 1), (8, 0, 10, 2), (8, 10, 20, 3), (8, 20, 50, 2), (8, 60, 70, 4)]


def test_a_union_joins_what_touches_or_overlaps_and_nothing_else():
    union = merge(frame((7, 30, 40), (7, 0, 10), (7, 10, 20), (7, 12, 15), (8, 20, 30), (7, 41, 42)))
    assert union.rows() == [(7, 0, 20), (7, 30, 40), (7, 41, 42), (8, 20, 30)]
    assert merge(frame()).rows() == []

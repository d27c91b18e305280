"""The plan of a file: its units, who owns which row, what it covers, what is still missing."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dbnfiles import ns, window
from hdi.errors import RequestError
from hdi.frames import COVERAGE
from hdi.model import DAY_NS, MAX_NS, Header, Unit
from hdi.plan import MOST_UNITS, learned, plan_file, uncovered, unmapped
from hdi.schema_files import load_schemas

SCHEMAS = load_schemas()


def header(symbols=("A",), span=("2024-01-02", "2024-01-04"), days=None, schema="trades", **rest):
    """A complete file's metadata; ``days`` holds (key, start, end, value)."""
    mappings = tuple((key, ns(a), ns(b), str(value)) for key, a, b, value in days or ())
    start, end = (ns(span[0]), ns(span[1])) if span else (None, None)
    values = {
        "path": Path("file.dbn.zst"), "version": 3, "dataset": "GLBX.MDP3", "schema": schema, "stype_in": "raw_symbol",
        "stype_out": "instrument_id", "symbols": tuple(symbols), "start": start, "end": end, "limit": None,
    }  # fmt: skip
    return Header(**(values | rest), mappings=mappings)


def plan(*args, digest="", **rest):
    described = header(*args, **rest)
    return plan_file(described, SCHEMAS.find(described.schema)[1], "databento", digest)


def route(planned, *pairs):
    """(symbol of the unit, its day, raw symbol, unmapped) of each (instrument, instant)."""
    ids, at = (np.array(column, dtype=np.int64) for column in zip(*pairs, strict=True))
    units, symbols, missing = planned.router.route(ids, at)
    return [
        (planned.units[u].symbol, planned.units[u].window.start, s, m)
        for u, s, m in zip(units.tolist(), symbols.to_list(), missing.tolist(), strict=True)
    ]


def claims(planned, **rest):
    """What committing all units would claim, by (symbol, instrument, start, end)."""
    frame = planned.coverage(list(range(1, len(planned.units) + 1)), **rest)
    assert dict(frame.schema) == COVERAGE
    return frame


FIRST, SECOND, END = ns("2024-01-02"), ns("2024-01-03"), ns("2024-01-04")


class TestUnits:
    def test_one_symbol_is_one_unit_in_each_cell(self):
        assert [(u.symbol, u.window) for u in plan().units] == [
            ("A", window(FIRST, SECOND)), ("A", window(SECOND, END)),
        ]  # fmt: skip

    def test_several_symbols_have_a_unit_each_and_one_for_what_is_not_mapped(self):
        units = plan(("B", "A", "B")).units
        assert [(u.symbol, u.window.start) for u in units] == [
            ("A", FIRST), ("B", FIRST), ("", FIRST), ("A", SECOND), ("B", SECOND), ("", SECOND),
        ]  # fmt: skip

    def test_the_grid_is_that_of_the_schema(self):
        for schema, count in {"trades": 62, "ohlcv-1m": 3, "statistics": 3, "definition": 3, "ohlcv-1d": 2}.items():
            assert len(plan(span=("2023-12-15", "2024-02-15"), schema=schema).units) == count

    def test_a_fragment_is_one_unit_named_by_its_bytes(self):
        planned = plan(("B", "A"), limit=5, digest="ab")
        assert planned.fragment == "it was asked for with a limit of 5 records"
        (unit,) = planned.units
        assert (unit.symbol, unit.digest, unit.window) == ("A,B", "ab", window(FIRST, END))
        assert claims(planned).is_empty()

    def test_a_fragment_without_a_window_may_hold_any_time(self):
        assert plan((), None, digest="ab").units[0].window == window(0, MAX_NS)

    def test_too_many_units_are_refused(self):
        symbols = [f"S{i}" for i in range(1_000)]
        with pytest.raises(RequestError, match="too many units"):
            plan(symbols, ("2023-01-01", "2023-08-01"))
        assert len(plan(symbols, ("2023-01-01", "2023-04-01")).units) < MOST_UNITS

    def test_a_plan_knows_its_whole_window(self):
        assert plan().window == window(FIRST, END)


class TestRouting:
    DAYS = (("A", FIRST, SECOND, 5), ("B", SECOND, END, 5), ("B", FIRST, SECOND, 6))

    def test_each_row_goes_to_the_owner_of_its_instrument_at_its_time(self):
        planned = plan(("A", "B"), days=self.DAYS)
        assert route(planned, (5, FIRST), (5, SECOND - 1), (5, SECOND), (6, FIRST), (6, SECOND), (7, FIRST)) == [
            ("A", FIRST, "A", False), ("A", FIRST, "A", False), ("B", SECOND, "B", False), ("B", FIRST, "B", False),
            ("", SECOND, None, True), ("", FIRST, None, True),
        ]  # fmt: skip

    def test_rows_outside_the_window_go_to_the_nearest_cell(self):
        planned = plan(("A", "B"), days=self.DAYS)
        found = route(planned, (5, 0), (5, MAX_NS), (5, -5))
        assert [(symbol, start) for symbol, start, _, _ in found] == [("", FIRST), ("", SECOND), ("", FIRST)]

    def test_what_is_not_mapped_belongs_to_the_only_symbol(self):
        assert route(plan(days=self.DAYS), (9, FIRST)) == [("A", FIRST, None, True)]
        assert route(plan(), (9, FIRST), (9, SECOND)) == [("A", FIRST, None, True), ("A", SECOND, None, True)]

    def test_a_mapping_to_a_symbol_that_was_not_asked_for_names_the_row_and_owns_it_for_nobody(self):
        planned = plan(("A", "B"), days=[("C", FIRST, END, 5)])
        assert route(planned, (5, FIRST)) == [("", FIRST, "C", False)]


class TestCoverage:
    def test_it_is_each_request_and_each_instrument_cut_to_the_units(self):
        planned = plan(("A", "B"), days=[("A", "2024-01-01", "2024-02-01", 5), ("B", SECOND, END, 6)])
        assert claims(planned).select("unit", "symbol", "instrument_id", "start", "end").rows() == [
            (1, "A", None, FIRST, SECOND), (1, "A", 5, FIRST, SECOND), (2, "B", None, FIRST, SECOND),
            (4, "A", None, SECOND, END), (4, "A", 5, SECOND, END), (5, "B", None, SECOND, END),
            (5, "B", 6, SECOND, END),
        ]  # fmt: skip

    def test_units_that_failed_claim_nothing(self):
        planned = plan(("A", "B"), days=[("A", FIRST, END, 5), ("B", FIRST, END, 6)])
        kept = claims(planned, keep=[False, True, True, True, False, False])
        assert kept.select("unit", "symbol").unique().sort("unit").rows() == [(2, "B"), (4, "A")]

    def test_parents_are_claimed_one_by_one(self):
        planned = plan(("B.FUT", "A.FUT"), days=[("AH4", FIRST, END, 5)], stype_in="parent")
        assert [u.symbol for u in planned.units] == ["A.FUT,B.FUT"] * 2
        whole = claims(planned).filter(pl.col("instrument_id").is_null())
        assert sorted(whole["symbol"].unique()) == ["A.FUT", "B.FUT"]

    def test_instruments_that_arrived_unmapped_claim_their_day_cut_to_their_unit(self):
        unit = Unit("databento", "D.X", "trades", "", "raw_symbol", window(FIRST + 5, SECOND + 9))
        days = pl.DataFrame(
            {"unit": [3, 3, 3], "instrument_id": [7, 7, 8], "day": [FIRST, SECOND, FIRST]},
            schema_overrides={"unit": pl.Int32},
        )
        found = (
            unmapped("D.X", "trades", days, {3: unit})
            .select("instrument_id", "start", "end")
            .sort("instrument_id", "start")
        )
        assert found.rows() == [(7, FIRST + 5, SECOND), (7, SECOND, SECOND + 9), (8, FIRST + 5, SECOND)]


class TestUncovered:
    def test_everything_at_first_and_nothing_afterwards(self):
        planned = plan(("A", "B"))
        assert uncovered(planned, pl.DataFrame(schema=COVERAGE)) == list(planned.units)
        assert uncovered(planned, claims(planned)) == []

    def test_only_what_is_missing(self):
        wider = plan(("A", "B", "C"), ("2024-01-02", "2024-01-05"))
        left = uncovered(wider, claims(plan(("A", "B"))))
        assert [(u.symbol, u.window.start) for u in left] == [
            ("C", FIRST), ("", FIRST), ("C", SECOND), ("", SECOND), ("A", END), ("B", END), ("C", END), ("", END),
        ]  # fmt: skip

    def test_pieces_that_touch_cover_together(self):
        noon = FIRST + DAY_NS // 2
        pieces = [claims(plan(span=(a, b))) for a, b in ((FIRST, noon), (noon, SECOND))]
        assert uncovered(plan(span=(FIRST, SECOND)), pl.concat(pieces)) == []
        assert len(uncovered(plan(span=(FIRST, SECOND)), pieces[0])) == 1

    @pytest.mark.parametrize("other", [{"dataset": "XNAS.ITCH"}, {"schema": "tbbo"}, {"stype_in": "instrument_id"}])
    def test_another_dataset_schema_or_type_of_symbol_covers_nothing(self, other):
        assert len(uncovered(plan(), claims(plan(**other)))) == 2

    def test_all_symbols_cover_each_also_together_with_its_own(self):
        every = claims(plan(("ALL_SYMBOLS",), span=(FIRST, SECOND)))
        assert [u.window.start for u in uncovered(plan(("A", "B")), every)] == [SECOND] * 3
        noon = FIRST + DAY_NS // 2
        both = pl.concat([claims(plan(("ALL_SYMBOLS",), span=(FIRST, noon))), claims(plan(span=(noon, SECOND)))])
        assert uncovered(plan(span=(FIRST, SECOND)), both) == []
        assert len(uncovered(plan(("ALL_SYMBOLS",)), claims(plan(("A", "B"))))) == 2

    def test_one_of_two_parents_is_not_both(self):
        one = claims(plan(("A.FUT",), stype_in="parent"))
        assert len(uncovered(plan(("A.FUT", "B.FUT"), stype_in="parent"), one)) == 2
        both = claims(plan(("A.FUT", "B.FUT"), stype_in="parent"))
        assert uncovered(plan(("A.FUT",), stype_in="parent"), both) == []

    def test_rows_of_an_instrument_are_no_request(self):
        own = claims(plan(days=[("A", FIRST, END, 5)])).drop_nulls("instrument_id")
        assert len(uncovered(plan(), own)) == 2

    def test_a_fragment_is_never_covered(self):
        assert len(uncovered(plan(limit=3, digest="ab"), claims(plan()))) == 1


def test_days_on_which_an_instrument_named_itself_are_joined_where_they_touch():
    days = [FIRST, SECOND, END, FIRST, ns("2024-01-06"), FIRST]
    pairs = pl.DataFrame({"instrument_id": [5, 5, 6, 5, 5, 7], "day": days, "symbol": ["A", "A", "A", "A", "A", "B"]})
    assert learned("D.X", pairs).rows() == [
        ("D.X", "raw_symbol", "A", 5, FIRST, END), ("D.X", "raw_symbol", "A", 5, ns("2024-01-06"), ns("2024-01-07")),
        ("D.X", "raw_symbol", "A", 6, END, END + DAY_NS), ("D.X", "raw_symbol", "B", 7, FIRST, SECOND),
    ]  # fmt: skip


def test_what_a_file_knows_of_symbols_is_taken_over():
    days = [("ESH4", FIRST, END, 5)]
    raw = ("GLBX.MDP3", "raw_symbol", "ESH4", 5, FIRST, END)
    assert plan(("ESH4",), days=days).mappings.rows() == [raw]
    parent = plan(("ES.FUT",), days=days, stype_in="parent").mappings.rows()
    assert parent == [raw, ("GLBX.MDP3", "parent", "ES.FUT", 5, FIRST, END)]
    assert plan(("ES.FUT", "NQ.FUT"), days=days, stype_in="parent").mappings.rows() == [raw]
    roll = plan(("ES.c.0",), days=[("ES.c.0", FIRST, END, 5)], stype_in="continuous").mappings.rows()
    assert roll == [("GLBX.MDP3", "continuous", "ES.c.0", 5, FIRST, END)]
    ids = plan(("5",), days=[("5", FIRST, END, "ESH4")], stype_in="instrument_id", stype_out="raw_symbol").mappings
    assert ids.rows() == [raw]

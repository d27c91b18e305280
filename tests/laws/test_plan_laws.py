"""Laws of windows, units, intervals and coverage, against slow oracles in plain Python."""

import datetime as dt
import itertools
from pathlib import Path

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from hdi.frames import COVERAGE
from hdi.model import DAY_NS, MAX_NS, Header, Unit, Window, cell_end, cell_start, ns_date
from hdi.plan import plan_file, uncovered
from hdi.schema_files import load_schemas
from hdi.symbology import Intervals, disjoint, merge

SCHEMAS = load_schemas()
GRIDS = ("day", "month", "year")
instants = st.integers(0, MAX_NS - 1)
#: Few and small, so that intervals meet.
small = st.integers(0, 30)
intervals = st.lists(st.tuples(st.integers(1, 3), small, small), max_size=14)


@st.composite
def windows(draw):
    """Windows of up to three years, on and off midnight, at the end of time too."""
    start = draw(st.one_of(instants, st.integers(0, 106_000).map(lambda d: d * DAY_NS)))
    length = draw(
        st.one_of(st.integers(1, 1_000), st.integers(1, 1_100).map(lambda d: d * DAY_NS), st.integers(1, 10**16))
    )
    return Window(start, min(start + length, MAX_NS))


@given(windows(), st.sampled_from(GRIDS))
def test_cells_tile_the_window_exactly(window, grid):
    cells = list(window.cells(grid))
    assert cells[0].start == window.start
    assert cells[-1].end == window.end
    assert all(a.end == b.start for a, b in itertools.pairwise(cells))
    for cell in cells:
        assert cell.start < cell.end
        assert cell_start(cell.start, grid) == cell_start(cell.end - 1, grid)
        assert cell.end == window.end or cell.end == cell_end(cell.start, grid)
    inner = [c for c in cells if c.start != window.start and c.end != window.end]
    assert all((c.start, c.end) == (cell_start(c.start, grid), cell_end(c.start, grid)) for c in inner)


@given(instants, st.sampled_from(GRIDS))
def test_an_instant_lies_in_its_cell_which_is_what_the_calendar_says(ns, grid):
    start, end = cell_start(ns, grid), cell_end(ns, grid)
    assert start <= ns < end
    day = dt.datetime.fromtimestamp(ns // 10**9, tz=dt.UTC).date()
    assert ns_date(ns) == day
    first = {"day": day, "month": day.replace(day=1), "year": day.replace(month=1, day=1)}[grid]
    assert ns_date(start) == first
    assert end == MAX_NS or (ns_date(end) > day and ns_date(end - 1) >= day)


words = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=6)
units = st.builds(
    Unit, origin=words, dataset=words, schema=words, symbol=words, stype=words, digest=words,
    window=st.builds(Window, start=small, end=small),
)  # fmt: skip


@given(units, units)
def test_units_share_an_id_only_when_they_are_the_same(one, other):
    assert (one.id == other.id) == (one == other)
    assert len(one.id) == 16
    assert int(one.id, 16) >= 0


def frame(rows):
    return pl.DataFrame(rows, schema={"instrument_id": pl.Int64, "start": pl.Int64, "end": pl.Int64}, orient="row")


def slow_find(rows, instrument, at):
    held = [i for i, (who, start, end) in enumerate(rows) if who == instrument and start <= at < end]
    return max(held, default=-1)


EVERYWHERE = [(who, at) for who in range(5) for at in range(-1, 33)]


@given(intervals)
def test_find_agrees_with_looking_at_every_interval(rows):
    ids, at = (np.array(column, dtype=np.int64) for column in zip(*EVERYWHERE, strict=True))
    found = Intervals(frame(rows)).find(ids, at).tolist()
    assert found == [slow_find(rows, who, when) for who, when in EVERYWHERE]


@given(intervals)
def test_disjoint_pieces_do_not_overlap_and_hold_what_the_intervals_hold(rows):
    pieces = disjoint(frame(rows)).rows()
    assert pieces == sorted(pieces)
    assert all(a[0] != b[0] or a[2] <= b[1] for a, b in itertools.pairwise(pieces))
    for who, at in EVERYWHERE:
        held = [row for w, start, end, row in pieces if w == who and start <= at < end]
        assert held == [r for r in [slow_find(rows, who, at)] if r >= 0]


@given(st.lists(st.tuples(st.integers(1, 3), small, st.integers(1, 9)), max_size=14))
def test_merge_is_the_union_in_the_fewest_intervals(rows):
    rows = [(who, start, start + length) for who, start, length in rows]
    union = merge(frame(rows)).rows()
    for who, at in [(w, t) for w in range(5) for t in range(-1, 42)]:
        assert any(w == who and a <= at < b for w, a, b in union) == (slow_find(rows, who, at) >= 0)
    assert all(a[0] < b[0] or a[2] < b[1] for a, b in itertools.pairwise(union))


SYMBOLS = ("A", "B", "C")
HOUR = DAY_NS // 24


def planned(symbols, start, end, days=()):
    header = Header(
        path=Path("f.dbn"), version=3, dataset="D.X", schema="trades", stype_in="raw_symbol", stype_out="instrument_id",
        symbols=tuple(symbols), start=start, end=end, limit=None, mappings=tuple(days),
    )  # fmt: skip
    return plan_file(header, SCHEMAS.find("trades")[1], "databento", "")


@st.composite
def plans(draw):
    """Plans of a few symbols over a few days, with mappings by the day."""
    symbols = draw(st.lists(st.sampled_from(SYMBOLS), min_size=1, max_size=3, unique=True))
    start = draw(st.integers(0, 60))
    end = draw(st.integers(start + 1, start + 80))
    days = [
        (draw(st.sampled_from(symbols)), first * DAY_NS, (first + length) * DAY_NS, str(draw(st.integers(1, 4))))
        for first, length in draw(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4)), max_size=6))
    ]
    return planned(symbols, start * HOUR, end * HOUR, sorted(days))


@given(plans())
def test_the_units_of_each_symbol_tile_the_window(plan):
    for symbol in plan.asked:
        own = [u.window for u in plan.units if u.symbol == symbol]
        assert own == list(Window(own[0].start, own[-1].end).cells("day"))
        assert (own[0].start, own[-1].end) == (plan.window.start, plan.window.end)
    assert len({u.id for u in plan.units}) == len(plan.units)


@given(plans())
def test_a_row_goes_to_the_unit_that_claims_its_instrument_then_and_to_no_other(plan):
    hours = range(plan.window.start // HOUR, plan.window.end // HOUR)
    pairs = [(who, hour * HOUR) for who in range(6) for hour in hours]
    ids, at = (np.array(column, dtype=np.int64) for column in zip(*pairs, strict=True))
    found, symbols, missing = plan.router.route(ids, at)
    claims = plan.coverage(list(range(len(plan.units)))).drop_nulls("instrument_id").rows(named=True)
    for (who, when), unit, symbol, lost in zip(pairs, found.tolist(), symbols.to_list(), missing.tolist(), strict=True):
        own = plan.units[unit]
        assert own.window.start <= when < own.window.end
        claiming = {c["unit"] for c in claims if c["instrument_id"] == who and c["start"] <= when < c["end"]}
        if lost:
            assert (claiming, symbol) == (set(), None)
        else:
            assert unit in claiming
            assert symbol == own.symbol
    assert all(
        plan.units[c["unit"]].window.start <= c["start"] < c["end"] <= plan.units[c["unit"]].window.end for c in claims
    )


claimed = st.lists(
    st.tuples(st.sampled_from([*SYMBOLS, "ALL_SYMBOLS"]), st.integers(0, 130), st.integers(1, 60)), max_size=6
)


@settings(deadline=None)
@given(plans(), claimed)
def test_what_is_left_is_the_request_less_the_coverage(plan, stretches):
    rows = [(1, "D.X", "trades", s, "raw_symbol", None, a * HOUR, (a + n) * HOUR) for s, a, n in stretches]
    coverage = pl.DataFrame(rows, schema=COVERAGE, orient="row")
    left = uncovered(plan, coverage)

    def covered(symbol, hour):
        return any(s in (symbol, "ALL_SYMBOLS") and a <= hour < a + n for s, a, n in stretches)

    for unit in plan.units:
        symbols = [unit.symbol] if unit.symbol else [a for a in plan.asked if a]
        hours = range(unit.window.start // HOUR, unit.window.end // HOUR)
        assert (unit in left) == (not all(covered(s, h) for s in symbols for h in hours))


@settings(deadline=None)
@given(plans())
def test_what_was_committed_is_not_asked_for_again(plan):
    coverage = plan.coverage(list(range(len(plan.units))))
    assert uncovered(plan, coverage) == []
    assert uncovered(plan, coverage.filter(pl.col("instrument_id").is_not_null())) == list(plan.units)

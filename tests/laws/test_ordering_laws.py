"""Laws of orders: nothing is ordered that is held, nothing wanted is left out, no record is ordered twice."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdi.buying.ordering import Held, Request, needed, parse_request
from hdi.frames import COVERAGE, RESOLVED
from hdi.model import DAY_NS, Window
from hdi.schema_files import load_schemas

DATASET, SCHEMA = "GLBX.MDP3", "ohlcv-1d"
SCHEMAS = load_schemas()
_, NAME = SCHEMAS.find(SCHEMA)
DAYS = 40


def spans(most: int = DAYS):
    return st.tuples(st.integers(0, most - 1), st.integers(1, most)).map(lambda p: (p[0], min(p[0] + p[1], most)))


#: What each symbol stands for: by symbol, disjoint stretches (instrument, first day, last day).
@st.composite
def symbologies(draw):
    rows = []
    for stype, names in (
        ("parent", ["A.FUT", "B.FUT"]),
        ("continuous", ["A.c.0", "A.v.0", "B.c.0"]),
        ("raw_symbol", ["A1", "A2"]),
    ):
        for symbol in names:
            for instrument in draw(st.lists(st.integers(1, 5), unique=True, max_size=4)):
                start, end = draw(spans())
                if stype == "continuous" and any(s < end and start < e for a, _, s, e, _ in rows if a == symbol):
                    continue
                rows.append((symbol, instrument, start, end, stype))
    return rows


@st.composite
def holdings(draw):
    """Earlier coverage, as instruments and as whole symbols."""
    rows = []
    for _ in range(draw(st.integers(0, 4))):
        start, end = draw(spans())
        rows.append((None, draw(st.integers(1, 5)), start, end))
    for _ in range(draw(st.integers(0, 2))):
        start, end = draw(spans())
        rows.append((draw(st.sampled_from([("parent", "A.FUT"), ("continuous", "A.c.0")])), None, start, end))
    return rows


def coverage(rows, symbology):
    """The frame: a symbol that is held brings its instruments with it."""
    made = []
    for named, instrument, start, end in rows:
        stype, symbol = named or ("raw_symbol", "Z9")
        made.append((1, DATASET, SCHEMA, symbol, stype, instrument, start * DAY_NS, end * DAY_NS))
        if named:
            for asked, i, s, e, kind in symbology:
                if (kind, asked) == named and max(s, start) < min(e, end):
                    made.append((1, DATASET, SCHEMA, symbol, stype, i, max(s, start) * DAY_NS, min(e, end) * DAY_NS))
    return pl.DataFrame(made, schema=COVERAGE, orient="row")


def cells(frame, window):
    """(instrument, day) of rectangles within a window of days."""
    return {
        (i, day)
        for i, s, e in frame.select("instrument_id", "start", "end").iter_rows()
        for day in range(s // DAY_NS, e // DAY_NS)
        if window[0] <= day < window[1]
    }


@given(symbologies(), holdings(), spans(), st.data())
def test_orders_and_holdings_make_up_the_request_without_overlap(symbology, earlier, span, data):
    by_type = {}
    for stype, names in (
        ("parent", ["A.FUT", "B.FUT"]),
        ("continuous", ["A.c.0", "A.v.0", "B.c.0"]),
        ("raw_symbol", ["A1", "A2"]),
    ):
        if chosen := data.draw(st.lists(st.sampled_from(names), unique=True)):
            by_type[stype] = tuple(chosen)
    held = coverage(earlier, symbology)
    resolved = pl.DataFrame(
        [(a, i, s * DAY_NS, e * DAY_NS, k) for a, i, s, e, k in symbology],
        schema={**RESOLVED, "stype": pl.String()},
        orient="row",
    )
    wanted = (
        resolved.filter(
            pl.any_horizontal(*((pl.col("stype") == k) & pl.col("asked").is_in(v) for k, v in by_type.items()))
        )
        if by_type
        else resolved.clear()
    )
    request = Request(DATASET, NAME, by_type, Window(span[0] * DAY_NS, span[1] * DAY_NS))
    need = needed(request, wanted, Held(held, DATASET, SCHEMA))

    had = cells(held.drop_nulls("instrument_id"), span)
    ordered = [cells(p.rectangles, span) for p in need.purchases]
    assert all(
        cells(p.rectangles, (0, DAYS)) == cells(p.rectangles, (p.window.start // DAY_NS, p.window.end // DAY_NS))
        for p in need.purchases
    )
    for i, one in enumerate(ordered):
        assert not one & had
        assert not any(one & other for other in ordered[:i])
    everything = cells(wanted, span)
    assert everything <= had.union(*ordered)
    assert set().union(*ordered) <= everything
    # Each symbol is accounted for, day by day: held itself, ordered, or claimed.
    for stype, symbols in by_type.items():
        for symbol in symbols:
            lacking = {
                d
                for w in Held(held, DATASET, SCHEMA).lacks(stype, symbol, request.window)
                for d in range(w.start // DAY_NS, w.end // DAY_NS)
            }
            bought = [
                d
                for p in need.purchases
                if p.stype == stype and symbol in p.symbols
                for d in range(p.window.start // DAY_NS, p.window.end // DAY_NS)
            ]
            claimed = [
                d
                for c in need.claims
                if (c.stype, c.symbol) == (stype, symbol)
                for d in range(c.window.start // DAY_NS, c.window.end // DAY_NS)
            ]
            assert sorted(bought + claimed) == sorted(lacking)


@pytest.mark.parametrize(("symbols", "stype", "groups"), [
    (["ES.FUT,NQ.FUT"], None, {"parent": ("ES.FUT", "NQ.FUT")}),
    (["es.C.0", "ESH4, 123"], None, {"continuous": ("ES.c.0",), "raw_symbol": ("ESH4",), "instrument_id": ("123",)}),
    (["ESH4"], "native", {"raw_symbol": ("ESH4",)}),
    (["esh4,ESH4"], None, {"raw_symbol": ("ESH4",)}),
    (["all_symbols"], None, {"raw_symbol": ("ALL_SYMBOLS",)}),
])  # fmt: skip
def test_symbols_are_sorted_by_their_notation(symbols, stype, groups):
    window = Window.parse("2024-01-01", "2024-01-02")
    request = parse_request(SCHEMAS, dataset=DATASET, schema="ohlcv", symbols=symbols, window=window, stype=stype)
    assert request.symbols == groups
    assert request.name.name == "ohlcv-1d"


@pytest.mark.parametrize(("symbol", "stype", "meant"), [
    ("ES", "continuous", "ES.c.0"), ("ES", "parent", "ES.FUT"), ("ES.FUT", "continuous", "--stype-in parent"),
    ("ES.c.0", "raw_symbol", "--stype-in continuous"), ("ESH4", "instrument_id", "--stype-in raw_symbol"),
])  # fmt: skip
def test_a_notation_that_does_not_fit_is_refused_with_what_would(symbol, stype, meant):
    from hdi.errors import RequestError

    window = Window.parse("2024-01-01", "2024-01-02")
    with pytest.raises(RequestError) as refused:
        parse_request(SCHEMAS, dataset=DATASET, schema="trades", symbols=[symbol], window=window, stype=stype)
    assert meant in refused.value.hint


def test_bars_that_are_made_on_reading_are_asked_for_as_those_they_are_made_from():
    window = Window.parse("2024-01-01", "2024-01-02")
    request = parse_request(SCHEMAS, dataset=DATASET, schema="ohlcv-15m", symbols=["ES.c.0"], window=window)
    assert request.name.name == "ohlcv-1m"

"""The same questions to a lake and to a database that hold the same bytes: the same rows, notes and refusals."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from hdi.errors import RequestError, UnknownSymbol
from hdi.model import DAY_NS, NS, iso_ns
from hdi.query import run
from hdi.testing.material import schemas
from same import desk
from same.twins import Ask, twins

#: There are rows; how many is for the stores to agree on.
SOME = object()
NAMES = tuple(schemas().names)
GLBX, XNAS = "GLBX.MDP3", desk.XNAS
TICKS = {"start": "2024-01-02", "end": "2024-01-04"}
ONE = {"start": "2024-01-03", "end": "2024-01-03"}


@pytest.fixture(scope="module")
def pair(address, tmp_path_factory):
    """The pair that holds what :mod:`desk` says."""
    with twins(tmp_path_factory.mktemp("pair"), address) as made:
        desk.fill(made, made.folder / "files")
        yield made


def asks(*cases):
    """Parametrize over (name, what is expected, schema, the rest of the question)."""
    return pytest.mark.parametrize(
        ("ask", "expected"), [pytest.param(Ask(schema, **rest), n, id=name) for name, n, schema, rest in cases]
    )


def judge(pair, ask, expected):
    """The answer of both stores, which is a refusal of a type, or so many rows."""
    found = pair.alike(ask)
    if isinstance(expected, type):
        assert found.refused[0] is expected
    elif expected is SOME:
        assert found.rows.height > 0
    else:
        assert (found.refused, found.rows.height) == ((), expected)
    return found


SYMBOLS = {"everything": "ALL_SYMBOLS", "raw": "ESH4", "id": str(desk.H4), "parent": "ES.FUT", "front": "ES.c.0"}


@asks(*[
    (f"{schema}-{kind}", SOME, schema, {"symbols": symbol, **ONE})
    for schema, (kind, symbol) in itertools.product(NAMES, SYMBOLS.items())
])  # fmt: skip
def test_every_schema_is_found_by_every_type_of_symbol(pair, ask, expected):
    judge(pair, ask, expected)


@asks(*[(schema, SOME, schema, {}) for schema in NAMES])
def test_everything_that_was_ever_stored_of_a_schema_is_the_same(pair, ask, expected):
    judge(pair, ask, expected)


def edges():
    """Windows around rows that lie within two microseconds, with how many of them they hold."""
    bounds = (-1, 0, 1, 2, 999, 1_000, 1_001, 1_999, 2_000, 2_001)
    spans = [*itertools.pairwise(bounds), (0, 1_000), (1, 1_999), (999, 2_001), (-5, 9_999)]
    for first, last in spans:
        window = {"start": iso_ns(desk.EDGE + first), "end": iso_ns(desk.EDGE + last)}
        yield f"{first}..{last}", sum(first <= t < last for t in desk.BESIDE), "trades", {"symbols": "NGG4", **window}


@asks(*edges())
def test_windows_are_the_same_to_the_nanosecond(pair, ask, expected):
    judge(pair, ask, expected)


def instant(day, ns=0):
    return iso_ns(desk.ns(day) + ns)


@asks(
    ("midnight", 2, "ohlcv-1s", {"start": instant("2024-01-03", -NS), "end": instant("2024-01-03", NS)}),
    ("just-before", 1, "ohlcv-1s", {"start": instant("2024-01-03", -NS), "end": instant("2024-01-03")}),
    ("just-after", 1, "ohlcv-1s", {"start": instant("2024-01-03"), "end": instant("2024-01-03", 1)}),
    ("one-late", 0, "ohlcv-1s", {"start": instant("2024-01-03", 1), "end": instant("2024-01-03", NS)}),
    ("first-day", 60, "ohlcv-1s", {"start": "2024-01-02", "end": "2024-01-02"}),
    ("second-day", 60, "ohlcv-1s", {"start": "2024-01-03", "end": "2024-01-03"}),
    ("both-days", 120, "ohlcv-1s", {"start": "2024-01-02", "end": "2024-01-03"}),
    ("offset", 60, "ohlcv-1s", {"start": "2024-01-03T01:00:00+01:00", "end": "2024-01-04"}),
    ("hours-over-midnight", 4, "ohlcv-1h", {"start": "2024-01-02T23:00:00Z", "end": "2024-01-03T01:00:00Z"}),
    ("ticks-over-midnight", SOME, "trades", {"start": "2024-01-02T20:00:00Z", "end": "2024-01-03T04:00:00Z"}),
    ("quotes-over-midnight", SOME, "tbbo", {"start": "2024-01-02T20:00:00Z", "end": "2024-01-03T04:00:00Z"}),
    ("moved-over-midnight", 8, "trades", {"symbols": "NGG4", "start": "2024-01-10", "end": "2024-01-11"}),
    ("moved-before", 4, "trades", {"symbols": "NGG4", "start": "2024-01-10", "end": "2024-01-10"}),
    ("moved-after", 4, "trades", {"symbols": "NGG4", "start": "2024-01-11", "end": "2024-01-11"}),
    ("moved-by-its-id", 4, "trades", {"symbols": str(desk.NG2), "start": "2024-01-10", "end": "2024-01-11"}),
    ("month-bounds", SOME, "ohlcv-1d", {"start": "2024-01-31", "end": "2024-02-01"}),
    ("year-bounds", SOME, "ohlcv-1d", {"start": "2023-12-31", "end": "2024-01-02"}),
    ("before-everything", 0, "trades", {"symbols": "ESH4", "start": "2000-01-01", "end": "2001-12-31"}),
    ("after-everything", 0, "trades", {"symbols": "ESH4", "start": "2031-01-01", "end": "2031-01-02"}),
    ("first-instant", 0, "ohlcv-1d", {"start": "1970-01-01", "end": "1970-01-01T00:00:00.000000001Z"}),
    ("last-day", 0, "ohlcv-1d", {"start": "2262-04-09", "end": "2262-04-10"}),
    ("weekend", 0, "ohlcv-1d", {"symbols": "CL.c.0", "start": "2024-01-06", "end": "2024-01-07"}),
    ("backwards", RequestError, "ohlcv-1d", {"start": "2024-01-06", "end": "2024-01-02"}),
    ("no-time-at-all", RequestError, "trades", {"start": instant("2024-01-03"), "end": instant("2024-01-03")}),
)  # fmt: skip
def test_windows_across_midnight_and_beside_everything_are_the_same(pair, ask, expected):
    judge(pair, ask, expected)


def rolls():
    """Fronts by calendar, open interest and volume, over their rolls, one day before and after them, one by one."""
    for symbol, roll, days in (
        ("ES.n.0", "2024-03-11", 58), ("ES.v.0", "2024-03-14", 58), ("ES.c.0", "2024-03-16", None),
        ("CL.c.0", "2024-01-23", None),
    ):  # fmt: skip
        around = {"start": iso_ns(desk.ns(roll) - 3 * DAY_NS), "end": iso_ns(desk.ns(roll) + 4 * DAY_NS)}
        yield f"{symbol}-around", 7 if days else SOME, "ohlcv-1d", {"symbols": symbol, **around}
        yield f"{symbol}-always", SOME, "ohlcv-1d", {"symbols": symbol}
        yield f"{symbol}-ids", SOME, "ohlcv-1d", {"symbols": symbol, "columns": ("instrument_id", "symbol"), **around}
    together = "ES.n.0,ES.v.0,ES.c.0"
    yield "together", SOME, "ohlcv-1d", {"symbols": together, "start": "2024-03-08", "end": "2024-03-20"}
    yield "lower-case", 58, "ohlcv-1d", {"symbols": "es.N.0", "start": "2024-02-01", "end": "2024-03-29"}


@asks(*rolls())
def test_rolls_are_the_same(pair, ask, expected):
    judge(pair, ask, expected)


@pytest.mark.parametrize("symbol", ["ES.n.0", "ES.v.0"])
def test_a_front_changes_its_instrument_on_the_same_day(pair, symbol):
    rows = pair.alike(Ask("ohlcv-1d", symbol, "2024-02-01", "2024-03-29")).rows
    late = {"ES.n.0": 19, "ES.v.0": 16}[symbol]
    assert Counter(rows["instrument_id"]) == {desk.H4: 58 - late, desk.M4: late}


@asks(*[
    (f"{schema}-{limit}", RequestError if limit < 1 else min(limit, n), schema, {**rest, "limit": limit})
    for schema, n, rest in (
        ("ohlcv-1s", 120, {}), ("trades", 14, {"symbols": "NGG4"}), ("tbbo", 4, {"dataset": XNAS}),
    )
    for limit in (0, 1, n - 1, n, n + 1, 10**9)
])  # fmt: skip
def test_limits_are_the_same(pair, ask, expected):
    found = judge(pair, ask, expected)
    if expected is not RequestError:
        whole = run(pair.lake, schemas(), replace(ask, limit=None).query()).collect()
        assert found.said["limited"] == (whole.height > ask.limit)
        assert found.rows.equals(whole.head(ask.limit))


def columns():
    """One column of each type, the index time left out and alone, everything backwards, and what there is not."""
    for schema in ("ohlcv-1h", "trades", "tbbo", "statistics", "definition"):
        kind, _ = schemas().find(schema)
        for dtype in dict.fromkeys(kind.dtypes.values()):
            some = tuple(c for c, t in kind.dtypes.items() if t == dtype)
            yield f"{schema}-{dtype.base_type()}", SOME, schema, {"columns": some, **ONE}
        without = tuple(c for c in kind.dtypes if c not in (kind.index_time, "symbol"))
        yield f"{schema}-without-time-and-symbol", SOME, schema, {"columns": without, "symbols": "ESH4", **ONE}
        yield f"{schema}-time-alone", SOME, schema, {"columns": (kind.index_time,), **ONE}
        yield f"{schema}-backwards", SOME, schema, {"columns": tuple(reversed(kind.dtypes)), **ONE}
    yield "twice", SOME, "trades", {"columns": ("size", "price", "size"), **ONE}
    yield "symbol-alone", SOME, "trades", {"columns": ("symbol",), "symbols": "NGG4"}
    yield "unknown", RequestError, "trades", {"columns": ("price", "prise")}
    yield "hidden", RequestError, "trades", {"columns": ("_unit",)}
    yield "remainder", RequestError, "trades", {"columns": ("ts_recv_ns",)}


@asks(*columns())
def test_columns_are_the_same(pair, ask, expected):
    found = judge(pair, ask, expected)
    if expected is SOME:
        assert found.rows.columns == list(dict.fromkeys(ask.columns))


@asks(
    ("both", SOME, "trades", {"symbols": "ESH4", **ONE}),
    ("first", SOME, "trades", {"symbols": "ESH4", "dataset": GLBX, **ONE}),
    ("second", 6, "trades", {"symbols": "ESH4", "dataset": XNAS}),
    ("id-of-both", SOME, "trades", {"symbols": str(desk.H4), **ONE}),
    ("id-in-second", 6, "trades", {"symbols": str(desk.H4), "dataset": XNAS}),
    ("all-of-second", 12, "trades", {"dataset": XNAS}),
    ("publishers", 20, "ohlcv-1m", {"dataset": XNAS}),
    ("made-of-second", SOME, "ohlcv-5m", {"dataset": XNAS}),
    ("none-of-this-schema", 0, "definition", {"dataset": XNAS}),
    ("symbol-elsewhere", UnknownSymbol, "trades", {"symbols": "SPY", "dataset": GLBX}),
    ("unknown", RequestError, "trades", {"dataset": "XNAS.ITC"}),
    ("lower-case", RequestError, "trades", {"dataset": "xnas.itch"}),
    ("empty", RequestError, "trades", {"dataset": ""}),
    ("quoted", RequestError, "trades", {"dataset": "X' OR ''='"}),
    ("nul", RequestError, "trades", {"dataset": "XNAS\0"}),
)  # fmt: skip
def test_datasets_are_the_same(pair, ask, expected):
    judge(pair, ask, expected)


@asks(
    ("lower", SOME, "trades", {"symbols": "esh4", **ONE}),
    ("mixed", SOME, "trades", {"symbols": "eS.fUt", **ONE}),
    ("several", SOME, "tbbo", {"symbols": ("ESH4", " clg4,ESH4 ", str(desk.H4)), **ONE}),
    ("spread", SOME, "trades", {"symbols": "ESH4-ESM4", **ONE}),
    ("unnamed-front", 30, "ohlcv-1m", {"symbols": "NG.c.0"}),
    ("named-later", 30, "ohlcv-1m", {"symbols": "NGG4"}),
    ("fragment-by-id", 20, "trades", {"symbols": str(desk.LOOSE)}),
    ("fragment-among-others", 6, "tbbo", {"symbols": "CLG4", "start": "2024-01-05", "end": "2024-01-05"}),
    ("parents-together", SOME, "trades", {"symbols": "CL.FUT", "start": "2024-01-15", "end": "2024-01-15"}),
    ("all-in-lower-case", SOME, "statistics", {"symbols": "all_symbols"}),
    ("all-among-others", SOME, "statistics", {"symbols": ("ESH4", "ALL_SYMBOLS")}),
    ("nothing-asked", SOME, "statistics", {"symbols": ()}),
    ("blank", SOME, "statistics", {"symbols": " , "}),
    ("unknown", UnknownSymbol, "trades", {"symbols": "ESZ9"}),
    ("unknown-among-known", SOME, "trades", {"symbols": ("ESH4", "ESZ9", "GC.c.0")}),
    ("several-unknown", UnknownSymbol, "trades", {"symbols": ("ESZ9", "GC.c.0")}),
    ("bare-root", SOME, "ohlcv-1d", {"symbols": "ES"}),
    ("unknown-rank", UnknownSymbol, "ohlcv-1d", {"symbols": "ES.c.7"}),
    ("unknown-id", UnknownSymbol, "trades", {"symbols": "424242"}),
    ("huge-id", UnknownSymbol, "trades", {"symbols": "9223372036854775807"}),
    ("zero-led-id", SOME, "trades", {"symbols": f"0{desk.H4}", **ONE}),
    ("quote", UnknownSymbol, "trades", {"symbols": "ES'H4"}),
    ("backslash", UnknownSymbol, "trades", {"symbols": "ES\\H4"}),
    ("percent", UnknownSymbol, "trades", {"symbols": "ES%"}),
    ("nul", UnknownSymbol, "trades", {"symbols": "ES\0H4"}),
    ("not-ascii", UnknownSymbol, "trades", {"symbols": "ÉSH4"}),
    ("other-digits", UnknownSymbol, "trades", {"symbols": "٩١٠١"}),
    ("unknown-schema", RequestError, "trade-ticks", {}),
    ("alias", SOME, "ohlcv-daily", {"symbols": "ES.c.0"}),
    ("schema-in-capitals", SOME, " TRADES ", {"symbols": "NGG4"}),
)  # fmt: skip
def test_symbols_are_the_same(pair, ask, expected):
    judge(pair, ask, expected)


@asks(
    ("confirmed-empty", 0, "trades", {"symbols": "ESH4", "start": "2024-01-06", "end": "2024-01-06"}),
    ("never-ingested", 0, "trades", {"symbols": "ESH4", "start": "2024-01-08", "end": "2024-01-08"}),
    ("never-of-this-schema", 0, "ohlcv-1s", {"symbols": "CLG4", **ONE}),
    ("failed", 0, "trades", {"symbols": "HOG4", "start": "2024-01-17", "end": "2024-01-17"}),
    ("between-fragments", 0, "trades", {"symbols": str(desk.LOOSE), "start": "2024-01-06", "end": "2024-01-06"}),
    ("spoiled-and-good", SOME, "trades", {"symbols": "ESH4", **TICKS}),
    ("spoiled-of-a-front", SOME, "ohlcv-1d", {"symbols": "CL.c.0", "start": "2024-01-01", "end": "2024-03-31"}),
    ("spoiled-statistics", SOME, "statistics", TICKS),
    ("spoiled-definitions", SOME, "definition", {"symbols": "CL.FUT", **TICKS}),
    ("superseded", 6, "trades", {"symbols": "HOG4", "start": "2024-01-16", "end": "2024-01-17"}),
    ("half-known", SOME, "tbbo", {"symbols": ("ESH4", "CLG4"), "start": "2024-01-04", "end": "2024-01-20"}),
    ("nothing-of-all", 0, "ohlcv-1s", {"start": "2024-02-01", "end": "2024-02-02"}),
)  # fmt: skip
def test_why_rows_are_missing_is_told_the_same(pair, ask, expected):
    assert judge(pair, ask, expected).said["why"]


@pytest.mark.parametrize("symbols", ["ALL_SYMBOLS", "ESH4", "CL.c.0", "ES.FUT,NGG4", "HOG4", str(desk.LOOSE)])
def test_gaps_and_explanations_are_the_same_whether_rows_are_found_or_not(pair, symbols):
    for name in ("trades", "ohlcv-1m", "ohlcv-5m", "definition"):
        results = [run(store, schemas(), Ask(name, symbols).query()) for store in pair.stores]
        for told in ("gaps", "explain"):
            mine, theirs = (getattr(result, told)() for result in results)
            assert theirs == mine


@asks(*[
    (f"{schema}-{name}", n, schema, rest)
    for schema, width in (("ohlcv-5m", 5), ("ohlcv-15m", 15))
    for name, n, rest in (
        ("ragged", SOME, {"symbols": "CLG4", "start": "2024-01-02T10:03:00Z", "end": "2024-01-02T18:07:00.000000001Z"}),
        ("one-bar", 0, {"symbols": "ESH4", "start": "2024-01-02T10:01:00Z", "end": "2024-01-02T10:04:00Z"}),
        ("unnamed", 30 // width, {"symbols": "NG.c.0"}),
        ("of-fragments", 0, {"symbols": str(desk.LOOSE)}),
        ("limited", 7, {"symbols": "ESH4", "limit": 7}),
        ("few-columns", SOME, {"symbols": "ESH4", "columns": ("close_price", "granularity", "vwap"), **ONE}),
        ("over-midnight", SOME, {"start": "2024-01-02T21:30:00Z", "end": "2024-01-03T02:00:00Z"}),
    )
])  # fmt: skip
def test_bars_that_are_made_are_the_same(pair, ask, expected):
    judge(pair, ask, expected)


def test_a_query_read_twice_is_the_same_twice(pair):
    ask = Ask("trades", ("ESH4", "CLG4"), "2024-01-03", "2024-01-03")
    assert pair.alike(ask).rows.equals(pair.alike(ask).rows)


def test_windows_cut_anywhere_hold_as_many_rows_as_are_inside(pair):
    """Windows cut at random between the instants of all trades, counted from what a whole read gives."""
    at = np.sort(pair.alike(Ask("trades", columns=("ts_recv",))).rows["ts_recv"].to_physical().to_numpy())
    rng = np.random.default_rng(3)
    for _ in range(12):
        first, last = np.sort(rng.choice(at, 2, replace=False) + rng.integers(-1, 2, 2))
        found = pair.alike(Ask("trades", start=iso_ns(first), end=iso_ns(last + 1), columns=("ts_recv", "symbol")))
        assert found.rows.height == ((at >= first) & (at <= last)).sum()


def test_everything_is_the_same_after_so_many_loads(pair):
    _, found, letters = pair.same()
    assert letters
    assert found["trades_data_history"].height == 2
    assert found["quarantine"]["failed"].any()

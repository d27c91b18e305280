"""Bars against a slow model in plain Python, however trades are cut into frames; and what no bar can be made of."""

import datetime as dt
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdi.calendars import Calendars
from hdi.errors import RequestError, StoreError
from hdi.folding import Folder, Utc, vwap
from hdi.frames import LEDGER, REJECTS
from hdi.lookup import RECTANGLES, Asked, Names
from hdi.model import DAY_NS, NS, Window, date_ns
from hdi.schema_files import load_schemas
from hdi.series.bars_asked import Every
from hdi.series.bars_certain import Certain, known, quarantined
from hdi.series.bars_filling import Filling
from hdi.series.bars_sessions import Sessions
from hdi.series.bars_sources import named, possible, share

SPAN, DAY = 40, 20
MINUTE = 60 * NS
COLUMNS = {"dataset": pl.String, "publisher_id": pl.Int32, "instrument_id": pl.Int64, "at": pl.Int64,
           "price": pl.Int64, "volume": pl.Int64}  # fmt: skip
#: (at, dataset, publisher, instrument, price, size): ties, several publishers and negative prices among them.
TRADES = st.lists(
    st.tuples(
        st.integers(0, SPAN), st.sampled_from("DE"), st.integers(1, 2), st.integers(7, 8), st.integers(-5, 5),
        st.sampled_from((1, 2, 3, 2**31)),
    ),
    max_size=50,
)  # fmt: skip
CUTS = st.lists(st.integers(1, 12), min_size=1, max_size=6)


@pytest.fixture(scope="module", autouse=True)
def each_frame_alone():
    """Small frames are not gathered, so that cuts are cuts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hdi.folding._TOGETHER", 1)
        yield


def frame(rows):
    return pl.DataFrame([(d, p, i, at, price, size) for at, d, p, i, price, size in rows], schema=COLUMNS, orient="row")


def frames(rows, cuts, *, mixed):
    """The trades by time, cut; ``mixed`` puts those of an instrument together within each frame, as slabs do."""
    at, k = 0, 0
    while at < len(rows):
        part = frame(rows[at : at + cuts[k % len(cuts)]])
        yield part.sort("instrument_id", maintain_order=True) if mixed else part
        at, k = at + part.height, k + 1


def rounded(value):
    """A fraction as the nearest whole number, a half to the even one."""
    return int((Decimal(value.numerator) / Decimal(value.denominator)).quantize(Decimal(1), ROUND_HALF_EVEN))


def bar(trades, start, end, number, *, done):
    prices, sizes = [t[4] for t in trades], [t[5] for t in trades]
    weighted = rounded(Fraction(sum(p * s for p, s in zip(prices, sizes, strict=True)), sum(sizes)))
    _, d, p, i, *_ = trades[0]
    return (d, p, i, start, end, number, trades[0][0], trades[-1][0], prices[0], max(prices), min(prices), prices[-1],
            sum(sizes), len(trades), weighted, done)  # fmt: skip


def by_stretch(rows, width):
    found = {}
    for row in rows:
        found.setdefault((row[0] // width * width, *row[1:4]), []).append(row)
    return found


def of_time(rows, width):
    stretches = by_stretch(rows, width)
    return [bar(stretches[key], key[0], key[0] + width, 0, done=False) for key in sorted(stretches)]


def of_activity(rows, measure, size):
    amounts = {"trades": lambda _: 1, "volume": lambda t: t[5], "dollars": lambda t: abs(t[4]) * t[5]}
    bars = []
    for (start, *_), trades in by_stretch(rows, DAY).items():
        held, part, number = 0, [], 0
        for trade in trades:
            part.append(trade)
            held += amounts[measure](trade)
            if held >= size:
                bars.append(bar(part, start, start + DAY, number, done=True))
                held, part, number = 0, [], number + 1
        if part:
            bars.append(bar(part, start, start + DAY, number, done=False))
    return sorted(bars, key=lambda b: (b[7] if b[-1] else b[4], *b[:3], b[5]))


OUT = ("dataset", "publisher_id", "instrument_id", "start", "end", "number", "first", "last", "open", "high", "low",
       "close", "volume", "trades", "vwap", "done")  # fmt: skip


def made(folder, parts):
    return [row for f in folder.bars(parts) for row in f.with_columns(vwap().alias("vwap")).select(OUT).rows()]


@settings(max_examples=80, deadline=None)
@given(TRADES, CUTS, st.sampled_from((1, 3, 10, 100)), st.booleans())
def test_bars_of_time_are_those_of_the_model_however_trades_are_cut_and_mixed(rows, cuts, width, mixed):
    rows = sorted(rows, key=lambda r: r[0])
    assert made(Folder(Utc(width)), frames(rows, cuts, mixed=mixed)) == of_time(rows, width)


@settings(max_examples=100, deadline=None)
@given(TRADES, CUTS, st.sampled_from(("trades", "volume", "dollars")), st.sampled_from((1, 2, 5, 2**32)), st.booleans())
def test_bars_of_activity_are_those_of_the_model_however_trades_are_cut_and_mixed(rows, cuts, measure, size, mixed):
    rows = sorted(rows, key=lambda r: r[0])
    found = made(Folder(Utc(DAY), measure, size), frames(rows, cuts, mixed=mixed))
    assert found == of_activity(rows, measure, size)


@pytest.mark.parametrize("price", [10**18 - 1, 1 - 10**18])
def test_the_largest_prices_and_volumes_are_added_up_without_a_rounding(price):
    rows = [(0, "D", 1, 7, price, 2**62), (1, "D", 1, 7, price, 2**61), (2, "D", 1, 7, -price, 1)]
    [found] = made(Folder(Utc(10)), [frame(rows)])
    assert found == of_time(rows, 10)[0]
    [split] = made(Folder(Utc(10)), [frame(rows[:1]), frame(rows[1:])])
    assert split == found


def test_a_volume_that_no_column_holds_is_an_error():
    rows = [(0, "D", 1, 7, 1, 2**62), (1, "D", 1, 7, 1, 2**62)]
    for parts in ([frame(rows)], [frame(rows[:1]), frame(rows[1:])]):
        with pytest.raises(StoreError, match="more than a BIGINT holds"):
            made(Folder(Utc(10)), parts)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [([(1, 1), (2, 1)], 2), ([(2, 1), (3, 1)], 2), ([(-1, 1), (-2, 1)], -2), ([(-3, 3), (-4, 1)], -3)],
)
def test_an_average_on_a_half_goes_to_the_even_neighbour(rows, expected):
    trades = [(k, "D", 1, 7, price, size) for k, (price, size) in enumerate(rows)]
    [found] = made(Folder(Utc(10)), [frame(trades)])
    assert found[OUT.index("vwap")] == expected


def test_the_trades_of_finer_bars_are_counted_only_where_each_says_how_many():
    prices = dict.fromkeys(("open", "high", "low", "close"), pl.lit(5, pl.Int64))
    rows = frame([(at, "D", 1, i, 5, 2) for at in (0, 1) for i in (7, 8)]).drop("price")
    rows = rows.with_columns(**prices, trades=pl.Series([1, 1, 2, None], dtype=pl.Int64))
    [found] = Folder(Utc(10)).bars([rows])
    assert found.select("trades", "notional").rows() == [(3, None), (None, None)]


def test_a_week_begins_on_monday_and_seven_days_on_the_day_of_1970():
    sunday = 3 * DAY_NS  # 1970-01-04
    rows = frame([(sunday, "D", 1, 7, 1, 1), (sunday + DAY_NS, "D", 1, 7, 1, 1)])
    for text, starts in (("1w", [-3, 4]), ("7d", [0])):
        every = Every.parse(text, "time", "utc")
        found = pl.concat(Folder(Utc(every.width, every.origin)).bars([rows]))
        assert (found["start"] // DAY_NS).to_list() == starts


@pytest.mark.parametrize(
    ("every", "kind", "align", "said"),
    [
        ("5x", "time", "utc", "'5x' is not the width"), ("0m", "time", "utc", "no width"),
        ("\u0661m", "time", "utc", "not the width"),
        ("-5m", "time", "utc", "'-5m' is not the width"), ("9999999w", "time", "utc", "longer than all time"),
        ("1m", "tick", "utc", "'1m' is not the size of a tick bar"), ("0", "volume", "utc", "'0' is not the size"),
        ("1.5", "tick", "utc", "'1.5' is not the size"), ("NaN", "dollar", "utc", "'NaN' is not the size"),
        ("1m", "range", "utc", "'range' is not a kind of bars"), ("1m", "time", "local", "aligned to 'local'"),
        ("36h", "time", "session", "neither part of a session nor whole sessions"),
    ],
)  # fmt: skip
def test_a_width_or_size_that_is_none_is_refused(every, kind, align, said):
    with pytest.raises(RequestError, match=said) as told:
        Every.parse(every, kind, align)
    assert told.value.hint


def test_a_bar_is_called_by_its_plain_width_or_size():
    asked = (("05m", "time"), ("1e3", "tick"), ("1_000", "volume"), ("30000.50", "dollar"))
    assert [Every.parse(every, kind, "utc").text for every, kind in asked] == [
        "5m", "tick:1000", "volume:1000", "dollar:30000.5",
    ]  # fmt: skip


def test_bars_are_made_of_the_coarsest_that_divide_them():
    schemas = load_schemas()
    of = {
        text: [s.name.name for s in possible(schemas, Every.parse(text, "time", "utc"))]
        for text in ("1d", "90s", "1ms")
    }
    assert of == {
        "1d": ["ohlcv-1d", "ohlcv-1h", "ohlcv-1m", "ohlcv-1s", "trades"],
        "90s": ["ohlcv-1s", "trades"],
        "1ms": ["trades"],
    }
    assert [s.same for s in possible(schemas, Every.parse("1h", "time", "utc"))] == [True, False, False, False]
    assert possible(schemas, Every.parse("1d", "time", "session"))[0].name.name == "ohlcv-1h"


@pytest.mark.parametrize(
    ("every", "kind", "source", "said"),
    [
        ("1m", "time", "ohlcv-1h", "coarser"),
        ("1h", "time", "ohlcv-5m", "not stored but made of ohlcv-1m"),
        ("100", "volume", "ohlcv-1s", "does not say when each trade was"),
        ("90s", "time", "ohlcv-1m", "cannot be made"),
    ],
)
def test_a_source_that_does_not_give_the_bars_is_refused_with_those_that_do(every, kind, source, said):
    with pytest.raises(RequestError, match=said) as told:
        named(load_schemas(), Every.parse(every, kind, "utc"), source)
    assert told.value.hint.startswith("Possible: ")
    assert told.value.hint.count("trades") == 1


def rectangles(*rows):
    return pl.DataFrame(rows, schema=RECTANGLES, orient="row")


def stretch(*rows):
    names = {"dataset": pl.String, "instrument_id": pl.Int64, "since": pl.Int64, "until": pl.Int64}
    return pl.DataFrame(rows, schema=names, orient="row")


def test_a_bar_is_certain_where_its_whole_stretch_is_held():
    certain = Certain(rectangles(("D", 1, 0, 10), ("D", 1, 10, 20), ("E", None, 0, 5)), rectangles(("D", 1, 7, 8)))
    asked = stretch(("D", 1, 5, 15), ("D", 1, 15, 21), ("D", 2, 5, 15), ("E", 9, 0, 5), ("D", 1, 8, 9))
    assert certain.missing(asked).tolist() == [False, True, True, False, False]
    assert certain.spoiled(asked).tolist() == [True, False, False, False, False]


def test_the_last_bar_before_a_roll_is_certain_though_the_contract_is_not_held_after_it():
    coverage = pl.DataFrame(schema={"dataset": pl.String, "instrument_id": pl.Int64, "symbol": pl.String,
                                    "start": pl.Int64, "end": pl.Int64})  # fmt: skip
    asked = [Asked("ES.c.0", rectangles(("D", 1, 0, 10), ("D", 2, 10, 20)))]
    whole = known(rectangles(("D", 1, 0, 10), ("D", 2, 10, 20)), asked, coverage)
    bars = stretch(("D", 1, 5, 15), ("D", 2, 5, 15), ("D", 1, 15, 25))
    assert Certain(whole, rectangles()).missing(bars).tolist() == [False, False, True]
    # Of the second contract a piece lacks: neither of the bars around the roll is certain.
    holed = known(rectangles(("D", 1, 0, 10), ("D", 2, 12, 20)), asked, coverage)
    assert Certain(holed, rectangles()).missing(bars).tolist() == [True, True, True]


def test_a_row_without_a_time_may_belong_anywhere_in_its_unit():
    same = {"schema": "trades", "dataset": "D", "instrument_id": 1, "failed": False, "unit": 5}
    rows = [
        {**same, "index_time": at, "rules": rules}
        for at, rules in ((3, ["X"]), (None, ["NO_INDEX_TIME"]), (99, ["OUTSIDE_WINDOW"]))
    ]  # fmt: skip
    rejects = pl.DataFrame(rows, schema={c: REJECTS[c] for c in rows[0]}).select(
        pl.lit(None, t).alias(c) if c not in rows[0] else pl.col(c) for c, t in REJECTS.items()
    )
    ledger = pl.DataFrame({"unit": [5], "start": [0], "end": [50]}).select(
        pl.lit(None, t).alias(c) if c not in ("unit", "start", "end") else pl.col(c).cast(t) for c, t in LEDGER.items()
    )
    found = quarantined(rejects, ledger, "trades", Window(0, 100))
    assert sorted(found.rows()) == [("D", 1, 0, 50), ("D", 1, 3, 4)]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)).filter(lambda p: p[0] < p[1]), max_size=5))
def test_the_share_that_is_held_counts_each_instant_once(held):
    wanted = rectangles(("D", 1, 5, 25), ("D", 2, 0, 10))
    found = share(wanted, rectangles(*(("D", 1, a, b) for a, b in held)))
    instants = {t for a, b in held for t in range(max(a, 5), min(b, 25))}
    assert found == len(instants)
    assert share(wanted, rectangles(("D", None, 8, 12))) == 4 + 2
    assert np.all([share(wanted, rectangles()) == 0])


def test_behind_a_bucket_that_is_not_known_nothing_is_filled():
    """Nobody knows the last close there: a quarantined trade, or one that was not ingested, may have been the last."""
    noon = date_ns(dt.date(2024, 3, 12)) + 12 * 3_600 * NS
    bars = pl.DataFrame({
        "dataset": "GLBX.MDP3", "instrument_id": 1, "symbol": "ESH4", "publisher_id": 1, "volume": 3,
        "ts_event": pl.Series([noon, noon + 5 * MINUTE]).cast(pl.Datetime("ns", "UTC")), "trade_count": 1,
        **{f"{c}_price": pl.Series([1, 2]).cast(pl.Decimal(18, 9)) for c in ("open", "high", "low", "close")},
        "vwap": None, "data_source": "derived:trades:x",
    }).cast({"instrument_id": pl.Int64, "publisher_id": pl.Int32, "volume": pl.Int64,
             "trade_count": pl.Int64, "vwap": pl.Decimal(18, 9)})  # fmt: skip
    held = rectangles(("GLBX.MDP3", 1, 0, noon + 7 * MINUTE))
    bad = rectangles(("GLBX.MDP3", 1, noon + 2 * MINUTE, noon + 2 * MINUTE + 1))
    filling = Filling(Every.parse("1m", "time", "utc"), Calendars.load(None), Names({}), Certain(held, bad), None,
                      Window(noon, noon + 9 * MINUTE))  # fmt: skip
    filled = pl.concat(filling.bars([bars[:1], bars[1:]]))
    minutes = (filled["ts_event"].to_physical() - noon) // MINUTE
    assert dict(zip(minutes, filled["close_price"], strict=True)) == {0: 1, 1: 1, 5: 2, 6: 2}


def test_only_trades_of_the_window_are_counted_as_outside_of_the_sessions():
    friday = date_ns(dt.date(2024, 3, 15))
    every = Every.parse("1h", "time", "session")
    sessions = Sessions(Calendars.load(None), Names({}), Window(friday, friday + DAY_NS), every)
    rows = frame(
        [(friday + d * DAY_NS + h * 3_600 * NS, "GLBX.MDP3", 1, 7, 1, 1) for d in (-1, 0, 1) for h in (12, 23)]
    )
    placed = sessions.placed(rows)
    assert placed.height == 3  # two of Thursday, of which one is Friday's session; Saturday has none
    assert sessions.outside == 1


def test_bars_of_sessions_read_no_further_than_to_the_close_of_the_last():
    friday, monday = (date_ns(dt.date(2024, 3, day)) for day in (15, 18))
    hour = 3_600 * NS
    every = Every.parse("1d", "time", "session")
    sessions = Sessions(
        Calendars.load(None), Names({}), Window(friday, friday + DAY_NS), every, [("GLBX.MDP3", "ESH4")]
    )
    # Friday's session opens at 22:00 the evening before, and the one that follows on Sunday; neither day is another's.
    assert sessions.reach(friday, friday + DAY_NS) == (friday - 2 * hour, friday + DAY_NS)
    assert sessions.reach(friday, monday) == (friday - 2 * hour, monday + 21 * hour)

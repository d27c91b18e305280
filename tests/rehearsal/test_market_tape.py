"""The tape agrees with itself: every level adds up to the one above, whatever is asked for alone."""

import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from hdi.errors import RequestError
from hdi.model import NS, date_ns
from hdi.rehearsal.contracts import instruments
from hdi.rehearsal.market import Market
from hdi.rehearsal.products import PRODUCTS
from rehearsal.market_oracle import (
    DAY,
    FRONTS,
    GLBX,
    SCHEMAS,
    UNDEF,
    WIDTHS,
    XNAS,
    as_bars,
    ask,
    at,
    bars,
    day,
    frame,
    gather,
    select,
)

TODAY = day("2026-11-01")
#: Seed, scale, dataset, symbols and their type, days: both ends of daylight saving, rolls, holidays, years apart.
TAPES = {
    "fronts": (0, 1.0, GLBX, FRONTS, "continuous", "2023-12-18", "2023-12-29"),
    "a roll": (7, 0.2, GLBX, ("ES.FUT", "NQ.FUT"), "parent", "2024-03-07", "2024-03-18"),
    "expiries": (3, 0.3, GLBX, ("CL.FUT", "HO.FUT", "GC.FUT"), "parent", "2012-10-24", "2012-11-07"),
    "thin": (11, 0.004, GLBX, ("NG.FUT", "RB.FUT"), "parent", "2018-02-20", "2018-03-16"),
    "shares": (5, 1.0, XNAS, ("SPY",), "raw_symbol", "2025-10-30", "2025-11-06"),
    "busy": (2, 20.0, GLBX, ("ES.v.0", "GC.n.1"), "continuous", "2021-07-01", "2021-07-03"),
    "below zero": (1, 1.0, GLBX, ("CLK0", "CLK0-CLM0"), "raw_symbol", "2020-04-17", "2020-04-22"),
}


@functools.cache
def market(seed=0, scale=1.0):
    return Market(seed, scale=scale, today=TODAY)


@functools.cache
def records(tape, schema):
    seed, scale, dataset, symbols, stype, start, end = TAPES[tape]
    return ask(market(seed, scale), schema, symbols, start, end, stype, dataset=dataset)


@pytest.mark.parametrize("by", ["ts_event", "ts_recv"])
@pytest.mark.parametrize("schema", WIDTHS)
@pytest.mark.parametrize("tape", TAPES)
def test_bars_are_what_the_trades_add_up_to(tape, schema, by):
    made = as_bars(records(tape, schema))
    assert made.height > 0
    assert_frame_equal(made, bars(records(tape, "trades"), WIDTHS[schema], by))


@pytest.mark.parametrize("seed", range(12))
def test_any_seed_scale_product_and_day_adds_up(seed):
    rng = np.random.default_rng(seed)
    first = day("2010-06-06") + int(rng.integers(0, 5_900)) * DAY
    start, end = str(first), str(first + int(rng.integers(1, 6)) * DAY)
    restated = [first] if seed % 2 else []
    made = Market(
        int(rng.integers(0, 2**62)), scale=float(10 ** rng.uniform(-2.7, 0.5)), restated=restated, today=TODAY
    )
    parent = f"{rng.choice([p.root for p in PRODUCTS if p.months])}.FUT"
    trades = ask(made, "trades", [parent], start, end, "parent")
    for schema, width in WIDTHS.items():
        assert_frame_equal(as_bars(ask(made, schema, [parent], start, end, "parent")), bars(trades, width, "ts_recv"))


@pytest.mark.parametrize("tape", TAPES)
def test_quotes_repeat_the_trades_and_show_the_book_around_them(tape):
    trades, quotes = records(tape, "trades"), records(tape, "tbbo")
    for name in trades.dtype.names[2:]:
        assert np.array_equal(trades[name], quotes[name]), name
    bid, ask_ = quotes["bid_px_00"], quotes["ask_px_00"]
    both = (bid != UNDEF) & (ask_ != UNDEF)
    normal = both & (bid < ask_)
    assert normal.mean() > 0.99
    at_bid, at_ask = quotes["price"] == bid, quotes["price"] == ask_
    assert (at_bid | at_ask)[normal].all()
    assert (quotes["bid_sz_00"][bid == UNDEF] == 0).all()
    assert (quotes["ask_ct_00"][ask_ == UNDEF] == 0).all()


def test_a_few_books_are_crossed_and_a_few_have_an_empty_side():
    quotes = records("fronts", "tbbo")
    bid, ask_ = quotes["bid_px_00"], quotes["ask_px_00"]
    crossed = (bid > ask_) & (bid != UNDEF)
    assert 0 < crossed.sum() < len(quotes) / 500
    assert 0 < (bid == UNDEF).sum() < len(quotes) / 500
    assert 0 < (ask_ == UNDEF).sum() < len(quotes) / 500


@pytest.mark.parametrize("schema", SCHEMAS)
def test_records_stand_in_the_order_of_their_index_time(schema):
    made = records("expiries", schema)
    time = made["ts_event" if schema.startswith("ohlcv") else "ts_recv"].astype(np.int64)
    assert (np.diff(time) >= 0).all()
    assert set(made["length"]) == {made.dtype.itemsize // 4}
    assert (made["publisher_id"] == 1).all()


@pytest.mark.parametrize("tape", TAPES)
def test_trades_are_whole_ticks_in_sequence(tape):
    dataset, trades = TAPES[tape][2], frame(records(tape, "trades"))
    ids = trades["instrument_id"].unique()
    # The product is the same whoever had the id.
    tick = pl.DataFrame({"instrument_id": ids, "tick": [instruments(dataset).by_id[i][0].product.tick for i in ids]})
    ticks = trades.join(tick, on="instrument_id", maintain_order="left")["tick"]
    assert (trades["price"] % ticks == 0).all()
    assert (trades["size"] > 0).all()
    assert set(trades["side"]) <= {"A", "B", "N"}
    assert set(trades["action"]) == {"T"}
    days = trades.with_columns(day=pl.col("ts_recv") // (86_400 * NS))
    steps = days.select(pl.col("sequence", "ts_event", "ts_recv").diff().over("instrument_id", "day"))
    assert steps.select((pl.all().drop_nulls() >= 0).all()).row(0) == (True, True, True)
    assert (trades["ts_recv"] // NS == trades["ts_event"] // NS).all()
    assert (trades["ts_recv"] > trades["ts_event"]).all()


def test_bursts_share_time_and_sequence_and_some_trades_are_equal_in_all():
    trades = frame(records("fronts", "trades"))
    burst = trades.group_by("instrument_id", "ts_event", "sequence").len()
    assert (burst["len"] > 1).mean() > 0.02
    assert burst["len"].max() > 2
    assert trades.height - trades.unique().height > trades.height / 1_000
    # Sequence and time change together.
    assert burst.select("instrument_id", "ts_event").n_unique() == burst.height


@pytest.mark.parametrize("tape", ["a roll", "expiries", "thin", "below zero"])
def test_statistics_sum_up_the_session_that_ends_on_their_day(tape):
    dataset, start = TAPES[tape][2], TAPES[tape][5]
    made = frame(records(tape, "statistics"))
    trading = instruments(dataset).sessions
    opens = {
        int(d) * 86_400 * NS: (int(a), int(b))
        for d, a, b in zip(trading.date, trading.opens, trading.closes, strict=True)
    }
    trades = frame(records(tape, "trades"))
    checked = 0
    first = date_ns(day(start))
    for (instrument, reference), each in made.group_by("instrument_id", "ts_ref"):
        begin, close = opens[reference]
        if begin < first:
            continue
        session = trades.filter(pl.col("instrument_id") == instrument, pl.col("ts_event").is_between(begin, close - 1))
        price = dict(each.select("stat_type", "price").iter_rows())
        quantity = dict(each.select("stat_type", "quantity").iter_rows())
        assert (each["ts_recv"] > close).all()
        assert (each["ts_recv"] // (86_400 * NS) == reference // (86_400 * NS)).all()
        assert quantity[6] == session["size"].sum()
        assert quantity[9] >= 0
        assert dict(each.select("stat_type", "stat_flags").iter_rows())[3] == 1
        assert set(price) == ({1, 3, 4, 5, 6, 9} if session.height else {3, 6, 9})
        if session.height:
            assert price[3] == session["price"][-1]
            assert (price[1], price[4], price[5]) == (
                session["price"][0],
                session["price"].min(),
                session["price"].max(),
            )
            checked += 1
    assert checked > 0


def test_crude_oil_settles_below_zero_on_20_april_2020():
    made = frame(ask(market(), "statistics", ["CLK0"], "2020-04-20", "2020-04-21", "raw_symbol"))
    assert dict(made.select("stat_type", "price").iter_rows())[3] == -37_630_000_000
    assert as_bars(ask(market(), "ohlcv-1d", ["CLM0"], "2020-04-20", "2020-04-21", "raw_symbol"))["low"].item() > 0


def test_prices_of_spreads_are_near_the_difference_of_their_legs():
    close = as_bars(ask(market(), "ohlcv-1d", ["ESH4", "ESM4", "ESH4-ESM4"], "2024-03-06", "2024-03-08", "raw_symbol"))
    book = instruments(GLBX)
    ids = [next(i.id for i in book.by_symbol[s] if i.delivery[0] == 2024) for s in ("ESH4", "ESM4", "ESH4-ESM4")]
    for _, bars_ in close.group_by("ts_event"):
        near, far, spread = (bars_.filter(pl.col("instrument_id") == i)["close"].item() for i in ids)
        assert spread == near - far
        assert spread < 0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("schema", SCHEMAS)
def test_counts_are_those_of_the_records_in_any_window(schema, seed):
    rng = np.random.default_rng(seed)
    made = Market(seed, scale=0.3, hostile=40 * (seed % 2), today=TODAY)
    book = instruments(GLBX)
    for _ in range(6):
        start = int(rng.integers(at("2010-06-07"), at("2026-10-01")))
        end = start + int(rng.integers(1, 4 * 86_400) * NS) + int(rng.integers(0, NS))
        live = [i for i in book.all if i.first * 86_400 * NS < end and (i.last + 1) * 86_400 * NS > start]
        selection = []
        for instrument in rng.choice(len(live), 12, replace=False):
            a, b = sorted(int(t) for t in rng.integers(start - NS, end + NS, 2))
            selection.append((live[instrument].id, a, b) if rng.random() < 0.6 else (live[instrument].id, start, end))
        # What is selected twice comes once.
        selection += [selection[0], (selection[1][0], selection[1][1] - 3_600 * NS, selection[1][2])]
        for low, high in ((start, end), (start, start + NS // 3), (start - 5 * NS, end - 86_400 * NS)):
            found = gather(made, schema, selection, low, high)
            assert made.count(GLBX, schema, selection, low, high) == len(found)
            time = found["ts_event" if schema.startswith("ohlcv") else "ts_recv"] if len(found) else found["ts_event"]
            assert ((time >= low) & (time < high)).all()


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_window_alone_is_the_same_as_cut_from_a_longer_one(schema):
    made = Market(4, scale=0.5, hostile=30, today=TODAY)
    selection = select(made, ["ES.FUT", "CL.FUT"], "2024-03-11", "2024-03-20", "parent")
    whole = gather(made, schema, selection, at("2024-03-11"), at("2024-03-20"))
    time = whole["ts_event" if schema.startswith("ohlcv") else "ts_recv"]
    middle = int(time[len(time) // 2])
    instruments_ = {int(i) for i in np.unique(whole["instrument_id"])[::2]}
    for low, high in (
        (at("2024-03-12"), at("2024-03-13")), (at("2024-03-14T13:30:07"), at("2024-03-15T13:29:59")),
        (middle, middle + 1), (middle - 40 * NS, middle + 333_333_333),
    ):  # fmt: skip
        cut = whole[(time >= low) & (time < high)]
        assert gather(made, schema, selection, low, high).tobytes() == cut.tobytes()
        fewer = [rectangle for rectangle in selection if rectangle[0] in instruments_]
        assert (
            gather(made, schema, fewer, low, high).tobytes()
            == cut[np.isin(cut["instrument_id"], list(instruments_))].tobytes()
        )
    assert len(whole) > 0


def test_batches_are_bounded():
    made = market(2, 20.0)
    selection = select(made, ["ES.FUT"], "2024-03-14", "2024-03-15", "parent")
    sizes = [len(batch) for batch in made.records(GLBX, "trades", selection, at("2024-03-14"), at("2024-03-15"))]
    assert sum(sizes) > 250_000
    assert max(sizes) < 200_000
    assert len(sizes) < 24


def test_another_process_makes_the_same_bytes():
    code = (
        "import hashlib; from hdi.rehearsal.market import Market; from rehearsal.market_oracle import *\n"
        "m, d = Market(9, scale=0.1, hostile=20, today=day('2026-11-01')), hashlib.sha256()\n"
        "asked = ['CL.FUT', 'GC.FUT'], '2019-06-10', '2019-06-14', 'parent'\n"
        "for schema in m.schemas(GLBX): d.update(ask(m, schema, *asked).tobytes())\n"
        "print(d.hexdigest())"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True,
            env={"PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONHASHSEED": str(n)},
        ).stdout for n in range(2)
    }  # fmt: skip
    assert len(runs) == 1


def test_another_seed_gives_other_data():
    first, second = (ask(market(seed), "ohlcv-1d", FRONTS, "2023-01-01", "2024-01-01") for seed in (0, 1))
    assert not np.array_equal(first["close"], second["close"])


def test_scale_multiplies_activity():
    counts = [
        market(0, scale).count(
            GLBX, "trades", select(market(), ["ES.c.0"], "2024-02-05", "2024-02-10"), 0, at("2024-03-01")
        )
        for scale in (0.1, 1.0, 10.0)
    ]
    assert counts[1] == pytest.approx(10 * counts[0], rel=0.01)
    assert counts[2] == pytest.approx(10 * counts[1], rel=0.01)


@pytest.mark.parametrize(
    ("symbol", "expected"), [("ES.v.0", 20_000), ("CL.v.0", 12_000), ("NG.v.0", 8_000), ("HO.v.0", 4_000)]
)
def test_the_front_contract_trades_about_so_many_times_a_day(symbol, expected):
    selection = select(market(), [symbol], "2024-01-01", "2024-12-31")
    trades = market().count(GLBX, "trades", selection, 0, at("2024-12-31"))
    sessions = ((instruments(GLBX).sessions.date >= 19_723) & (instruments(GLBX).sessions.date < 20_088)).sum()
    assert trades / sessions == pytest.approx(expected, rel=0.15)


def test_every_product_has_data_from_the_first_day_to_the_last():
    for product in PRODUCTS:
        begins = market().begins(product.dataset)
        for start in (str(begins), "2026-10-26"):
            end = str(day(start) + (day("2026-11-01") - day("2026-10-26")))
            symbol, stype = (f"{product.root}.FUT", "parent") if product.months else (product.root, "raw_symbol")
            schema = "ohlcv-1d" if "ohlcv-1d" in market().schemas(product.dataset) else "trades"
            made = ask(market(), schema, [symbol], start, end, stype, dataset=product.dataset)
            assert len(np.unique(made["ts_event"] // (86_400 * NS))) >= 4, (product.root, start)


def test_a_day_beyond_the_calendars_is_refused():
    with pytest.raises(RequestError, match="the synthetic market ends on"):
        Market(today=day("2040-01-01"))


def test_nothing_is_made_beyond_today():
    made = Market(0, today=day("2024-01-10"))
    selection = select(made, ["ES.FUT"], "2024-01-01", "2024-02-01", "parent")
    assert int(gather(made, "trades", selection, 0, at("2024-02-01"))["ts_recv"].max()) < at("2024-01-10")
    assert made.condition(GLBX, day("2024-01-10")) is None
    assert made.condition(GLBX, day("2024-01-09")) == "available"

"""What a venue says of its sessions: when it is traded, what its auctions lack, and how a session ended."""

import functools

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from hdi.model import DAY_NS, NS
from hdi.rehearsal.contracts import instruments
from hdi.rehearsal.market import Market
from rehearsal.market_oracle import DAY, GLBX, XNAS, ask, at, day, frame, gather, select

TODAY = day("2026-11-01")
PRE_OPEN, TRADING, HALT, CLOSE = 1, 7, 8, 12
TAPES = {
    "a roll": (GLBX, ("ES.FUT", "NG.FUT"), "parent", "2024-03-13", "2024-03-20"),
    "new year": (GLBX, ("CL.FUT",), "parent", "2023-12-21", "2024-01-04"),
    "summer time": (GLBX, ("GC.FUT",), "parent", "2024-10-30", "2024-11-07"),
    "shares": (XNAS, ("SPY",), "raw_symbol", "2024-06-28", "2024-07-08"),
}


@functools.cache
def market(**what):
    return Market(0, scale=0.05, today=TODAY, **what)


def records(tape, schema):
    dataset, symbols, stype, start, end = TAPES[tape]
    return ask(market(), schema, symbols, start, end, stype, dataset=dataset)


def traded_at(changes, when):
    """Whether an instrument is traded at an instant, by what was said of it until then."""
    last = changes[np.searchsorted(changes["ts_event"], when, side="right") - 1]
    return last["is_trading"] == b"Y"


@pytest.mark.parametrize("tape", TAPES)
def test_everything_is_traded_while_its_status_says_so(tape):
    status, trades = records(tape, "status"), records(tape, "trades")
    assert (np.diff(status["ts_recv"].astype(np.int64)) >= 0).all()
    assert (status["ts_recv"] > status["ts_event"]).all()
    for one in np.unique(trades["instrument_id"]):
        said = np.sort(status[status["instrument_id"] == one], order="ts_event")
        assert all(traded_at(said, int(t)) for t in trades["ts_event"][trades["instrument_id"] == one])


@pytest.mark.parametrize("tape", TAPES)
def test_sessions_open_and_close_where_the_calendar_has_them(tape):
    dataset, _, _, start, end = TAPES[tape]
    trading = instruments(dataset).sessions
    status = records(tape, "status")
    low, high = at(start), at(end)
    opens = {int(t) for t in trading.opens if low <= t < high}
    ends = {i.expires for i in instruments(dataset).all} | {int(t) for t in trading.closes}
    live = status[status["ts_recv"] % DAY_NS > 0]
    begun = np.isin(live["action"], (TRADING, HALT))
    assert {int(t) for t in live["ts_event"][begun]} == opens
    assert {int(t) for t in live["ts_event"][live["action"] == PRE_OPEN]} <= {t - 900 * NS for t in opens} | {
        int(t) - 900 * NS for t in trading.opens
    }
    assert {int(t) for t in live["ts_event"][live["action"] == CLOSE]} <= ends
    midnight = status[status["ts_recv"] % DAY_NS == 0]
    assert (len(midnight) > 0) == (dataset == GLBX)


def test_the_last_close_of_a_contract_says_that_it_expired():
    said = ask(market(), "status", ["ESH4"], "2024-03-14", "2024-03-18", "raw_symbol")
    assert int(said["ts_event"][-1]) == at("2024-03-15T13:30")
    assert [int(x) for x in said["reason"][said["action"] == CLOSE]] == [1, 5]


def test_what_is_not_traded_on_a_day_is_halted_on_it():
    halted = market(untraded=frozenset({("ESM4", day("2024-03-13"))}))
    said = frame(ask(halted, "status", ["ESM4"], "2024-03-12", "2024-03-15", "raw_symbol"))
    days = said.with_columns(day=pl.col("ts_recv") // DAY_NS - at("2024-03-12") // DAY_NS)
    assert days.filter(pl.col("action") == HALT)["day"].unique().to_list() == [1]
    assert days.filter(pl.col("action") == TRADING)["day"].unique().sort().to_list() == [0, 2]


@pytest.mark.parametrize("tape", TAPES)
def test_the_bar_of_a_session_is_what_its_trades_add_up_to(tape):
    dataset, symbols, stype, start, end = TAPES[tape]
    earlier = str(day(start) - 4 * DAY)
    trades = frame(ask(market(), "trades", symbols, earlier, end, stype, dataset=dataset))
    trading = instruments(dataset).sessions
    session = np.searchsorted(trading.opens, trades["ts_event"].to_numpy(), side="right") - 1
    expected = (
        trades.with_columns(ts_event=pl.Series(trading.date[session] * DAY_NS))
        .filter(pl.col("ts_event").is_between(at(start), at(end) - 1))
        .group_by("ts_event", "instrument_id", maintain_order=True)
        .agg(
            open=pl.col("price").first(), high=pl.col("price").max(), low=pl.col("price").min(),
            close=pl.col("price").last(), volume=pl.col("size").sum(),
        )
    )  # fmt: skip
    selection = select(market(), symbols, start, end, stype, dataset)
    made = frame(gather(market(), "ohlcv-eod", selection, at(start), at(end), dataset)).select(expected.columns)
    assert_frame_equal(made.sort(made.columns[:2]), expected.sort(made.columns[:2]))


def test_imbalances_come_before_the_auctions_of_each_session_and_near_their_prices():
    made = records("shares", "imbalance")
    bars = records("shares", "ohlcv-1d")
    trading = instruments(XNAS).sessions
    for number, kind, length in ((trading.opens, b"O", 120), (trading.closes, b"C", 600)):
        some = made[made["auction_type"] == kind]
        at_ = number[np.searchsorted(number, some["ts_event"].astype(np.int64))]
        assert ((at_ - some["ts_event"].astype(np.int64)) <= length * NS).all()
        assert set(some["ts_event"] // DAY_NS) == set(bars["ts_event"] // DAY_NS)
        price = dict(zip(bars["ts_event"], bars["open" if kind == b"O" else "close"], strict=True))
        auction = np.asarray([price[t // DAY_NS * DAY_NS] for t in some["ts_event"]])
        assert (np.abs(some["ref_price"] - auction) <= 12 * 10_000_000).all()
    lacking = made["total_imbalance_qty"] > 0
    assert (made["side"][lacking] != b"N").all()
    assert (made["side"][~lacking] == b"N").all()
    assert 0 < lacking.mean() < 1


def test_prices_change_with_a_restated_day_and_sessions_do_not():
    restated = Market(0, scale=0.05, restated=[day("2024-02-07")], today=TODAY)
    asked = ["ES.FUT", "CL.FUT"], "2024-02-06", "2024-02-09", "parent"
    before, after = (ask(m, "status", *asked) for m in (market(), restated))
    assert before.tobytes() == after.tobytes()
    before, after = (ask(m, "ohlcv-eod", *asked) for m in (market(), restated))
    changed = before["ts_event"][before["close"] != after["close"]]
    assert set(changed) == {at("2024-02-07")}
    assert np.array_equal(before["volume"], after["volume"])

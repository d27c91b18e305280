"""When the synthetic market trades: Globex and New York hours, half days, holidays, both ends of daylight saving."""

import functools

import numpy as np
import pytest

from hdi.model import DAY_NS, NS, ns_date
from hdi.rehearsal.market import Market
from rehearsal.market_oracle import DAY, GLBX, XNAS, ask, at, day

HOUR = 3_600 * NS
MARKET = Market(0, scale=3.0, today=day("2026-11-01"))


@functools.cache
def trades(start, end, symbol="ES.v.0", stype="continuous", dataset=GLBX):
    """Receipt times."""
    return np.sort(ask(MARKET, "trades", [symbol], start, end, stype, dataset=dataset)["ts_recv"].astype(np.int64))


def between(times, start, end):
    return int(((times >= at(start)) & (times < at(end))).sum())


def test_globex_trades_from_sunday_to_friday_evening_with_a_break_each_day():
    times = trades("2024-01-07", "2024-01-14")
    assert times[0] >= at("2024-01-07T23:00")
    assert between(times, "2024-01-07T23:00", "2024-01-08T00:00") > 0
    for n in range(8, 12):
        assert between(times, f"2024-01-{n:02}T22:00", f"2024-01-{n:02}T23:00") == 0
        assert between(times, f"2024-01-{n:02}T21:00", f"2024-01-{n:02}T22:00") > 0
        assert between(times, f"2024-01-{n:02}T23:00", f"2024-01-{n + 1:02}T00:00") > 0
    assert times[-1] < at("2024-01-12T22:00")
    assert MARKET.condition(GLBX, day("2024-01-13")) is None


@pytest.mark.parametrize(
    ("sunday", "opens"),
    [("2024-03-03", "23:00"), ("2024-03-10", "22:00"), ("2024-10-27", "22:00"), ("2024-11-03", "23:00")],
)
def test_the_week_opens_at_17_in_chicago_in_winter_and_summer(sunday, opens):
    times = trades(sunday, str(day(sunday) + DAY))
    assert at(f"{sunday}T{opens}") <= times[0] < at(f"{sunday}T{opens}") + HOUR // 4


def test_sundays_are_thin():
    bars = ask(MARKET, "ohlcv-1d", ["ES.v.0"], "2024-01-07", "2024-01-09")
    assert bars["volume"][0] < bars["volume"][1] / 30


@pytest.mark.parametrize(
    ("half", "closes"), [("2023-11-24", "18:00"), ("2024-07-04", "17:00"), ("2024-01-15", "18:00")]
)
def test_half_days_end_at_noon_in_chicago(half, closes):
    times = trades(half, str(day(half) + DAY))
    before = times[times < at(f"{half}T22:00")]
    assert before[-1] < at(f"{half}T{closes}")
    assert before[-1] > at(f"{half}T{closes}") - HOUR // 4
    published = ask(MARKET, "statistics", ["ES.v.0"], half, str(day(half) + DAY))
    assert at(f"{half}T{closes}") < int(published["ts_recv"].min()) < at(f"{half}T{closes}") + HOUR


@pytest.mark.parametrize("schema", MARKET.schemas(GLBX))
@pytest.mark.parametrize("holiday", ["2024-03-29", "2024-01-06"])
def test_full_holidays_and_saturdays_have_no_records(schema, holiday):
    assert len(ask(MARKET, schema, ["ES.FUT", "CL.FUT"], holiday, str(day(holiday) + DAY), "parent")) == 0
    assert MARKET.condition(GLBX, day(holiday)) is None


def test_the_evening_of_a_holiday_belongs_to_the_next_session():
    times = trades("2023-12-25", "2023-12-26")
    assert times[0] >= at("2023-12-25T23:00")
    assert len(ask(MARKET, "statistics", ["ES.v.0"], "2023-12-25", "2023-12-26")) == 0
    assert MARKET.condition(GLBX, day("2023-12-25")) == "available"


@pytest.mark.parametrize(("when", "opens", "closes"), [
    ("2024-01-03", "14:30", "21:00"), ("2024-07-02", "13:30", "20:00"), ("2024-07-03", "13:30", "17:00"),
])  # fmt: skip
def test_shares_trade_in_new_york_hours(when, opens, closes):
    times = trades(when, str(day(when) + DAY), "SPY", "raw_symbol", XNAS)
    assert at(f"{when}T{opens}") <= times[0] < at(f"{when}T{opens}") + HOUR // 12
    assert at(f"{when}T{closes}") - HOUR // 12 < times[-1] < at(f"{when}T{closes}")


@pytest.mark.parametrize("when", ["2024-01-01", "2024-03-29", "2024-01-07", "2024-01-15"])
def test_shares_rest_on_holidays_and_weekends(when):
    assert MARKET.condition(XNAS, day(when)) is None
    assert len(trades(when, str(day(when) + DAY), "SPY", "raw_symbol", XNAS)) == 0


@pytest.mark.parametrize(("symbol", "last"), [
    ("ESH4", "2024-03-15T13:30"), ("ESZ4", "2024-12-20T14:30"), ("CLK4", "2024-04-22T18:30"),
    ("NGF4", "2023-12-27T19:30"),
])  # fmt: skip
def test_a_contract_trades_until_its_expiry(symbol, last):
    when = ns_date(at(last))
    times = np.concatenate([trades(str(when - 7 * DAY), str(when + 3 * DAY), symbol, "raw_symbol")])
    assert times[-1] < at(last)
    assert times[-1] // DAY_NS == at(last) // DAY_NS
    definition = ask(MARKET, "definition", [symbol], str(when), str(when + DAY), "raw_symbol")
    assert int(definition["expiration"][0]) == at(last)


def test_datasets_begin_where_the_vendors_do():
    assert MARKET.begins(GLBX) == day("2010-06-06")
    assert MARKET.begins(XNAS) == day("2018-05-01")
    assert MARKET.begins("DBEQ.BASIC") == day("2023-03-28")
    assert MARKET.condition(GLBX, day("2010-06-06")) == "available"
    assert MARKET.condition(GLBX, day("2010-06-04")) is None
    assert "statistics" not in MARKET.schemas(XNAS)

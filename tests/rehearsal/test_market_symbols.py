"""Symbology of the synthetic market: by date, without a look ahead, with ids and symbols that come again."""

import datetime as dt
import itertools

import numpy as np
import polars as pl
import pytest

from hdi.errors import RequestError
from hdi.model import DAY_NS, date_ns
from hdi.rehearsal.contracts import instruments
from hdi.rehearsal.market import Market
from rehearsal.market_oracle import DAY, GLBX, XNAS, ask, at, day, frame

TODAY = day("2026-11-01")
MARKET = Market(0, today=TODAY)
BOOK = instruments(GLBX)
EPOCH = day("1970-01-01")


def resolve(symbol, start, end, stype="continuous", out="instrument_id", dataset=GLBX):
    return MARKET.resolve(dataset, [symbol], stype, out, day(start), day(end))


def contract(identifier, when):
    """The raw symbol of an id on a day."""
    found = MARKET.resolve(GLBX, [str(identifier)], "instrument_id", "raw_symbol", when, when + DAY)
    return found.result[str(identifier)][0][2]


def chain(symbol, start, end):
    """(first day, raw symbol) of each contract that a continuous symbol stands for."""
    return [(d0, contract(s, d0)) for d0, _, s in resolve(symbol, start, end).result[symbol]]


def test_the_quarterly_calendar_series_rolls_the_day_after_each_third_friday():
    assert chain("ES.c.0", "2024-01-01", "2025-01-01") == [
        (day("2024-01-01"), "ESH4"), (day("2024-03-16"), "ESM4"), (day("2024-06-22"), "ESU4"),
        (day("2024-09-21"), "ESZ4"), (day("2024-12-21"), "ESH5"),
    ]  # fmt: skip


def test_crude_oil_expires_three_trading_days_before_the_25th():
    assert chain("CL.c.0", "2020-03-01", "2020-07-01") == [
        (day("2020-03-01"), "CLJ0"), (day("2020-03-21"), "CLK0"), (day("2020-04-22"), "CLM0"),
        (day("2020-05-20"), "CLN0"), (day("2020-06-23"), "CLQ0"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("root", "rolls"), [("CL", 12), ("NG", 12), ("HO", 12), ("RB", 12), ("ES", 4), ("NQ", 4), ("GC", 6)]
)
def test_each_product_rolls_as_often_as_it_has_deliveries(root, rolls):
    for rule in "cn":
        assert len(resolve(f"{root}.{rule}.0", "2022-01-01", "2023-01-01").result[f"{root}.{rule}.0"]) == rolls + 1


@pytest.mark.parametrize("symbol", ["CL.c.0", "ES.n.1", "NG.v.2", "GC.c.4"])
def test_intervals_cover_all_days_one_after_the_other(symbol):
    found = resolve(symbol, "2010-06-06", "2026-11-01")
    intervals = found.result[symbol]
    assert (intervals[0][0], intervals[-1][1]) == (day("2010-06-06"), TODAY)
    for (_, end, before), (start, _, after) in itertools.pairwise(intervals):
        assert end == start
        assert before != after
    assert found.partial == found.not_found == []
    assert [(i, a, b) for i, a, b in found.asked[symbol]] == [(int(s), a, b) for a, b, s in intervals]


@pytest.mark.parametrize(("symbol", "stat"), [("ES.n.0", 9), ("CL.n.1", 9), ("NG.n.0", 9)])
def test_the_open_interest_series_holds_what_led_on_the_trading_date_before(symbol, stat):
    root, _, rank = symbol.split(".")
    statistics = frame(ask(MARKET, "statistics", [f"{root}.FUT"], "2023-02-01", "2023-06-01", "parent"))
    known = statistics.filter(pl.col("stat_type") == stat).select("ts_ref", "instrument_id", value="quantity")
    check_leaders(symbol, int(rank), known)


@pytest.mark.parametrize("symbol", ["ES.v.0", "CL.v.1", "GC.v.0"])
def test_the_volume_series_holds_what_led_on_the_trading_date_before(symbol):
    root, _, rank = symbol.split(".")
    bars = frame(ask(MARKET, "ohlcv-1d", [f"{root}.FUT"], "2023-02-01", "2023-06-01", "parent"))
    check_leaders(symbol, int(rank), bars.select("instrument_id", ts_ref="ts_event", value="volume"))


def check_leaders(symbol, rank, known):
    dates = {int(d) * DAY_NS for d in BOOK.sessions.date}
    checked = 0
    for n in range(5, 118):
        when = day("2023-02-01") + n * DAY
        before = max(d for d in dates if d < date_ns(when))
        if before < at("2023-02-01"):
            continue
        rows = known.filter(pl.col("ts_ref") == before)
        # Contracts only, and only those that have not expired on the day itself.
        alive = [i for i in rows["instrument_id"] if outright(i, when)]
        values = rows.filter(pl.col("instrument_id").is_in(alive)).sort("value", descending=True)
        leader = int(resolve(symbol, str(when), str(when + DAY)).result[symbol][0][2])
        assert leader == values["instrument_id"][rank], when
        checked += 1
    assert checked > 100


def outright(identifier, when):
    number = (when - EPOCH).days
    return any(i.first <= number <= i.last and not i.legs for i in BOOK.by_id[identifier])


def test_the_parent_has_contracts_and_spreads_by_raw_symbol():
    found = resolve("ES.FUT", "2024-03-11", "2024-03-18", "parent")
    assert found.result["ESH4"] == [(day("2024-03-11"), day("2024-03-16"), found.result["ESH4"][0][2])]
    assert "ESH4-ESM4" in found.result
    assert found.partial == found.not_found == []
    assert {i for i, _, _ in found.asked["ES.FUT"]} == {int(s) for each in found.result.values() for _, _, s in each}
    assert len(found.result) == 5 + 4 + 1 + 1  # five of each at a time, and one more of each after the expiry


@pytest.mark.parametrize(
    ("symbol", "stype"),
    [("ES.OPT", "parent"), ("XX.FUT", "parent"), ("ESH4", "parent"), ("ESX4", "raw_symbol"), ("ES.c.0", "raw_symbol"),
     ("ES.c.99", "continuous"), ("ES.x.0", "continuous"), ("SPY.c.0", "continuous"), ("1", "instrument_id"),
     ("ES", "instrument_id")],
)  # fmt: skip
def test_what_there_is_not_is_not_found(symbol, stype):
    found = resolve(
        symbol, "2024-01-01", "2024-02-01", stype, "raw_symbol" if stype == "instrument_id" else "instrument_id"
    )
    assert found.not_found == [symbol]
    assert found.result == found.asked == {}
    assert found.partial == []


def test_a_contract_is_resolved_from_its_listing_to_its_last_day_and_is_partial_beyond():
    found = resolve("CLK0", "2020-04-01", "2020-05-01", "raw_symbol")
    assert [(a, b) for a, b, _ in found.result["CLK0"]] == [(day("2020-04-01"), day("2020-04-22"))]
    assert found.partial == ["CLK0"]


def test_a_raw_symbol_comes_back_after_a_decade_as_another_instrument():
    intervals = resolve("ESH4", "2010-06-06", "2026-11-01", "raw_symbol").result["ESH4"]
    assert [b for _, b, _ in intervals] == [day("2014-03-22"), day("2024-03-16")]
    assert intervals[0][2] != intervals[1][2]


def test_ids_are_given_again_to_other_instruments_but_never_to_two_at_a_time():
    today = (TODAY - EPOCH).days
    owners = [[i for i in each if i.first <= today] for each in BOOK.by_id.values()]
    again = [each for each in owners if len(each) > 1]
    assert len(again) > 50
    for each in again:
        assert len({i.symbol for i in each}) > 1
        assert len({i.product.root for i in each}) == 1
        lives = sorted((i.first, i.last) for i in each)
        assert all(b[0] > a[1] + 365 for a, b in itertools.pairwise(lives))
    kinds = {tuple(bool(i.legs) for i in sorted(each, key=lambda i: i.first)[:2]) for each in again}
    assert {(False, False), (True, False), (True, True)} <= kinds


def test_an_id_resolves_to_its_symbol_by_date():
    each = next(e for e in BOOK.by_id.values() if len(e) > 1 and all(i.last < (TODAY - EPOCH).days for i in e))
    found = resolve(str(each[0].id), "2010-06-06", "2026-11-01", "instrument_id", "raw_symbol")
    first, second = sorted(each, key=lambda i: i.first)[:2]
    assert [s for _, _, s in found.result[str(each[0].id)]][:2] == [first.symbol, second.symbol]
    assert found.partial == [str(each[0].id)]


@pytest.mark.parametrize(
    ("dataset", "start"), [(GLBX, "2010-06-06"), (GLBX, "2019-12-24"), (GLBX, "2026-10-30"), (XNAS, "2023-05-05")]
)
def test_definitions_say_what_symbology_says(dataset, start):
    end = str(day(start) + 2 * DAY)
    made = frame(ask(MARKET, "definition", ["ALL_SYMBOLS"], start, end, "raw_symbol", dataset=dataset))
    found = resolve("ALL_SYMBOLS", start, end, "raw_symbol", dataset=dataset)
    assert len(found.result) > (0 if dataset == XNAS else 80)
    for when in (day(start), day(start) + DAY):
        defined = made.filter(pl.col("ts_recv") == date_ns(when))
        if MARKET.condition(dataset, when) is None:
            assert defined.is_empty()
            continue
        named = {(s, int(i)) for s, each in found.result.items() for a, b, i in each if a <= when < b}
        assert set(defined.select("raw_symbol", "instrument_id").iter_rows()) == named
    legs = made.filter(pl.col("instrument_class") == "S")
    for symbol, index, leg in legs.select("raw_symbol", "leg_index", "leg_raw_symbol").iter_rows():
        assert symbol.split("-")[index] == leg
    contracts = made.filter(pl.col("instrument_class") == "F")
    assert (contracts["expiration"] > contracts["ts_recv"]).all()
    assert (made["activation"] <= made["ts_recv"]).all()
    assert (made["ts_recv"] - made["ts_event"]).is_between(3_600 * 10**9, 24 * 3_600 * 10**9).all()


def test_spreads_have_one_record_for_each_leg():
    made = frame(ask(MARKET, "definition", ["ESH4-ESM4"], "2024-03-04", "2024-03-05", "raw_symbol"))
    assert made.select("leg_count", "leg_index", "leg_raw_symbol", "leg_side").rows() == [
        (2, 0, "ESH4", "B"),
        (2, 1, "ESM4", "A"),
    ]


def test_unlike_types_of_symbols_are_refused():
    with pytest.raises(RequestError, match="does not resolve to raw_symbol"):
        resolve("ESH4", "2024-01-01", "2024-01-02", "raw_symbol", "raw_symbol")


def test_symbols_keep_the_spelling_in_which_they_were_asked():
    found = resolve("es.C.0", "2024-01-01", "2024-01-02")
    assert list(found.result) == list(found.asked) == ["es.C.0"]


def test_a_days_answer_does_not_depend_on_the_days_around_it():
    whole = resolve("CL.v.0", "2019-01-01", "2020-01-01").result["CL.v.0"]
    for n in np.random.default_rng(0).integers(0, 365, 20):
        when = day("2019-01-01") + int(n) * DAY
        alone = resolve("CL.v.0", str(when), str(when + DAY)).result["CL.v.0"][0][2]
        assert alone == next(s for a, b, s in whole if a <= when < b)
    assert isinstance(whole[0][0], dt.date)

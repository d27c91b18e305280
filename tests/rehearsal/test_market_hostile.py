"""Bad rows on purpose are exactly those that our rules reject; a restated day differs on that day only."""

import functools

import numpy as np
import polars as pl
import pytest

from hdi.refine import Refinery, load_mapping
from hdi.rehearsal.market import Market
from hdi.schema_files import load_schemas
from hdi.sources.records import columns, to_frame
from rehearsal.market_oracle import (
    FRONTS,
    GLBX,
    SCHEMAS,
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
)  # fmt: skip

TODAY = day("2026-11-01")
CLEAN = Market(0, today=TODAY)
MAPPING = load_mapping("databento")


@functools.cache
def hostile(number):
    return Market(0, hostile=number, today=TODAY)


def verdict(records, schema, dataset=GLBX):
    """What refining says of records as they come."""
    schema_, named = load_schemas([], []).find(schema)
    raw = to_frame(records, schema, MAPPING.undefined.get(schema_.kind, [])).with_columns(
        pl.lit(dataset).alias("dataset"), pl.lit("ESH4").alias("symbol"), pl.lit("synthetic").alias("data_source"),
        _unit=pl.lit(1, dtype=pl.Int32), _row=pl.int_range(pl.len(), dtype=pl.Int32),
        _window_start=pl.lit(0), _window_end=pl.lit(2**62),
    )  # fmt: skip
    return Refinery(schema_, named, MAPPING, columns(schema), dataset).refine(raw)


@pytest.mark.parametrize("dataset", [GLBX, XNAS])
@pytest.mark.parametrize("schema", SCHEMAS)
def test_exactly_the_planted_rows_are_rejected(schema, dataset):
    if schema not in CLEAN.schemas(dataset):
        assert (schema, dataset) == ("statistics", XNAS)
        return
    market = hostile(200)
    symbols, stype = (FRONTS, "continuous") if dataset == GLBX else (("SPY",), "raw_symbol")
    start, end = "2024-02-05", "2024-02-08"
    selection = select(market, symbols, start, end, stype, dataset)
    records = gather(market, schema, selection, at(start), at(end), dataset)
    planted = market.planted(dataset, schema, selection, at(start), at(end))
    judged = verdict(records, schema, dataset)
    assert judged.rejected.height == planted > 0
    # Without them, it is the market that is not hostile.
    good = np.delete(records, judged.rejected["row"].to_numpy())
    clean = gather(CLEAN, schema, selection, at(start), at(end), dataset)
    assert good.tobytes() == clean.tobytes()
    assert len(records) == market.count(dataset, schema, selection, at(start), at(end)) == len(clean) + planted


REST = [
    *((GLBX, s) for s in ("mbo", "mbp-1", "mbp-10", "bbo-1s", "bbo-1m", "ohlcv-eod", "status")), (XNAS, "mbo"),
    (XNAS, "imbalance"), *(("DBEQ.BASIC", s) for s in ("tcbbo", "cmbp-1", "cbbo-1s", "cbbo-1m")),
]  # fmt: skip


@pytest.mark.parametrize(("dataset", "schema"), REST)
def test_exactly_the_planted_rows_of_books_and_quotes_are_rejected_and_none_unless_asked_for(dataset, schema):
    start, end, number = "2024-02-05", "2024-02-08", {"ohlcv-eod": 120, "imbalance": 100}.get(schema, 400)
    market, clean = (Market(0, scale=0.1, hostile=n, today=TODAY) for n in (number, 0))
    symbols, stype = (("ES.c.0",), "continuous") if dataset == GLBX else (("SPY",), "raw_symbol")
    records, good = (ask(m, schema, symbols, start, end, stype, dataset=dataset) for m in (market, clean))
    selection = select(market, symbols, start, end, stype, dataset)
    planted = market.planted(dataset, schema, selection, at(start), at(end))
    judged = verdict(records, schema, dataset)
    assert judged.rejected.height == planted
    assert planted > 0 or schema == "status"
    assert np.delete(records, judged.rejected["row"].to_numpy()).tobytes() == good.tobytes()
    assert verdict(good, schema, dataset).rejected.is_empty()


@pytest.mark.parametrize("schema", SCHEMAS)
def test_nothing_is_rejected_unless_asked_for(schema):
    records = ask(CLEAN, schema, ["CL.FUT", "ES.FUT", "GC.FUT"], "2020-04-19", "2020-04-23", "parent")
    judged = verdict(records, schema)
    assert judged.rejected.is_empty()
    assert judged.accepted.height == len(records)


def test_about_so_many_rows_are_bad_for_each_instrument_and_day_over_all_schemas():
    market = hostile(20)
    start, end = "2024-01-01", "2024-04-01"
    selection = select(market, ["CL.v.0"], start, end)
    bad = sum(market.planted(GLBX, s, selection, at(start), at(end)) for s in market.schemas(GLBX))
    days = CLEAN.count(GLBX, "ohlcv-1d", selection, at(start), at(end))
    assert bad / days == pytest.approx(20, rel=0.2)


def test_thin_days_have_no_bad_trades():
    market = hostile(50)
    selection = select(market, ["CL.c.11"], "2024-01-01", "2024-04-01")
    assert 0 < market.count(GLBX, "trades", selection, 0, at("2024-04-01")) < 64 * 80
    assert market.planted(GLBX, "trades", selection, 0, at("2024-04-01")) == 0


@pytest.mark.parametrize("number", [0, 25])
@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_restated_day_has_other_prices_and_the_days_around_it_do_not(schema, number):
    restated = Market(0, hostile=number, restated=[day("2024-02-07")], today=TODAY)
    symbols, start, end = ["ES.FUT", "CL.FUT"], "2024-02-05", "2024-02-10"
    before, after = (ask(m, schema, symbols, start, end, "parent") for m in (hostile(number), restated))
    name = "ts_event" if schema.startswith("ohlcv") else "ts_recv"
    time = before[name]
    assert np.array_equal(time, after[name])
    inside = (time >= at("2024-02-07")) & (time < at("2024-02-08"))
    assert before[~inside].tobytes() == after[~inside].tobytes()
    changed = before[inside] != after[inside]
    if schema == "definition":
        assert not changed.any()
        return
    assert changed.mean() > 0.3
    for column in ("size", "volume", "sequence", "quantity", "stat_type"):
        if column in before.dtype.names:
            assert np.array_equal(before[column], after[column])


def test_the_bars_of_a_restated_day_are_what_its_trades_add_up_to():
    restated = Market(0, restated=[day("2024-02-07")], today=TODAY)
    trades = ask(restated, "trades", ["ES.FUT"], "2024-02-06", "2024-02-09", "parent")
    for schema, width in WIDTHS.items():
        made = as_bars(ask(restated, schema, ["ES.FUT"], "2024-02-06", "2024-02-09", "parent"))
        assert made.equals(bars(trades, width, "ts_event"))
    settled = frame(ask(restated, "statistics", ["ES.v.0"], "2024-02-07", "2024-02-08")).filter(
        pl.col("stat_type") == 3
    )
    session = frame(trades).filter(
        pl.col("instrument_id") == settled["instrument_id"][0],
        pl.col("ts_event").is_between(at("2024-02-06T23:00"), at("2024-02-07T22:00") - 1),
    )
    assert settled["price"].item() == session["price"][-1]

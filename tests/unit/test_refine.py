"""Refining: what becomes of the vendor's rows."""

import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from hdi.errors import DataError
from hdi.refine import COUNTS, REJECTED
from hdi.schema import PLACE
from hdi.schema_files import load_schemas
from hdi.sources.dbn import Reader
from hdi.sources.records import columns
from refining import (
    END,
    GOOD,
    MAPPING,
    PX,
    START,
    UNDEF_PRICE,
    UNDEF_SIZE,
    UNDEF_TIME,
    broken,
    packaged,
    raw,
    refine,
    refinery,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def real_files():
    """Readers of the vendor's own files, where they are at hand."""
    folder = Path(os.environ.get("HDI_REAL_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"no real data at {folder}")
        pytest.skip(f"no real data at {folder}; HDI_REAL_DATA names another place")

    def readers():
        known = load_schemas().names
        for path in sorted(folder.rglob("*.dbn*")):
            if ".frag" not in path.name and ".live." not in path.name:
                with Reader(path) as reader:
                    if reader.header.schema in known:
                        yield reader

    return readers()


# What is accepted


@pytest.mark.parametrize("name", GOOD)
def test_good_rows_are_accepted_with_exactly_the_declared_columns(name):
    schema, _ = load_schemas().find(name)
    verdict = refine(name, {}, {})
    assert dict(verdict.accepted.schema) == schema.dtypes | PLACE
    assert verdict.accepted["_row"].to_list() == [0, 1]
    assert dict(verdict.rejected.schema) == REJECTED
    assert dict(verdict.counts.schema) == COUNTS
    assert verdict.rejected.is_empty()
    assert verdict.counts.is_empty()


@pytest.mark.parametrize("name", GOOD)
def test_a_batch_without_rows_is_a_verdict_without_rows(name):
    schema, _ = load_schemas().find(name)
    verdict = refine(name)
    assert dict(verdict.accepted.schema) == schema.dtypes | PLACE
    assert verdict.accepted.height + verdict.rejected.height + verdict.counts.height == 0


def test_a_bar_takes_the_vendors_values_and_what_its_name_implies():
    row = refine("ohlcv-1d", {"open": 10_250_000_001}).accepted.row(0, named=True)
    assert row == {
        "dataset": "GLBX.MDP3", "instrument_id": 17, "symbol": "ESH4", "publisher_id": 1,
        "ts_event": datetime(2024, 1, 2, tzinfo=UTC), "granularity": "1d", "open_price": Decimal("10.250000001"),
        "high_price": Decimal(12), "low_price": Decimal(9), "close_price": Decimal(11), "volume": 100,
        "trade_count": None, "vwap": None, "data_source": "databento", "_unit": 1, "_row": 0,
    }  # fmt: skip


def test_undefined_values_are_null():
    quote = {"bid_px_00": UNDEF_PRICE, "bid_sz_00": UNDEF_SIZE, "ts_event": UNDEF_TIME}
    row = refine("tbbo", quote).accepted.row(0, named=True)
    assert (row["bid_px_00"], row["bid_sz_00"], row["ts_event"], row["is_crossed"]) == (None, None, None, False)
    row = refine("statistics", {"price": UNDEF_PRICE, "ts_ref": UNDEF_TIME}).accepted.row(0, named=True)
    assert (row["price"], row["quantity"], row["ts_ref"]) == (None, None, None)
    row = refine("definition", {"tick_rule": 255, "contract_multiplier": 2**31 - 1}).accepted.row(0, named=True)
    assert (row["tick_rule"], row["contract_multiplier"]) == (None, None)


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_definition_lacks_the_newer_columns(version):
    verdict = refine("definition", {}, version=version)
    assert verdict.accepted["leg_count"].to_list() == [None]
    assert verdict.accepted["trading_reference_date"].to_list() == [0]
    assert verdict.counts.is_empty()


def test_a_definition_without_a_mapping_takes_its_own_symbol():
    assert refine("definition", {}, symbol=None).accepted["symbol"].to_list() == ["ESH4"]
    assert refine("trades", {}, symbol=None).accepted["symbol"].to_list() == [None]


@pytest.mark.parametrize(
    ("code", "name"), [(3, "settlement_price"), (9, "open_interest"), (10_002, "venue_specific_price_1")]
)
def test_a_statistic_is_named(code, name):
    assert refine("statistics", {"stat_type": code}).accepted["stat_name"].to_list() == [name]


# What is quarantined, and why


@pytest.mark.parametrize(
    ("name", "change", "rules", "error_type"),
    [
        ("trades", {"price": 10**18}, ["price_out_of_range"], "TransformationError"),
        ("trades", {"price": -(10**18)}, ["price_out_of_range"], "TransformationError"),
        ("trades", {"ts_event": 2**63}, ["TIMESTAMP_OUT_OF_RANGE"], "TransformationError"),
        ("trades", {"ts_recv": 2**64 - 2}, ["TIMESTAMP_OUT_OF_RANGE"], "TransformationError"),
        ("ohlcv-1d", {"volume": 2**63}, ["VALUE_OUT_OF_RANGE"], "TransformationError"),
        ("definition", {"raw_instrument_id": 2**64 - 2}, ["VALUE_OUT_OF_RANGE"], "TransformationError"),
        ("trades", {"price": UNDEF_PRICE}, ["MISSING_PRICE"], "SchemaValidation"),
        ("trades", {"size": UNDEF_SIZE}, ["MISSING_SIZE"], "SchemaValidation"),
        ("trades", {"side": b"\0"}, ["MISSING_SIDE"], "SchemaValidation"),
        ("trades", {"ts_recv": UNDEF_TIME}, ["NO_INDEX_TIME"], "SchemaValidation"),
        ("ohlcv-1d", {"ts_event": UNDEF_TIME}, ["NO_INDEX_TIME"], "SchemaValidation"),
        ("trades", {"ts_recv": END}, ["OUTSIDE_WINDOW"], "SchemaValidation"),
        ("ohlcv-1d", {"ts_event": START - 1}, ["OUTSIDE_WINDOW"], "SchemaValidation"),
        ("trades", {"side": b"S"}, ["INVALID_SIDE"], "BusinessLogicValidation"),
        ("trades", {"action": b"t"}, ["INVALID_ACTION"], "BusinessLogicValidation"),
        ("trades", {"size": 0}, ["NON_POSITIVE_SIZE"], "BusinessLogicValidation"),
        (
            "ohlcv-1d", {"high": 8 * PX}, ["HIGH_LESS_THAN_LOW", "HIGH_LESS_THAN_OPEN", "HIGH_LESS_THAN_CLOSE"],
            "BusinessLogicValidation",
        ),
        ("ohlcv-1d", {"low": 10 * PX + 1}, ["LOW_GREATER_THAN_OPEN"], "BusinessLogicValidation"),
        ("ohlcv-1d", {"low": 12 * PX}, ["LOW_GREATER_THAN_OPEN", "LOW_GREATER_THAN_CLOSE"], "BusinessLogicValidation"),
        ("statistics", {"update_action": 3}, ["INVALID_UPDATE_ACTION"], "BusinessLogicValidation"),
        ("definition", {"raw_symbol": b""}, ["EMPTY_RAW_SYMBOL"], "BusinessLogicValidation"),
    ],
)  # fmt: skip
def test_a_bad_row_is_quarantined_with_its_reasons_and_its_neighbours_are_kept(name, change, rules, error_type):
    verdict = refine(name, {}, change, {})
    assert verdict.accepted["_row"].to_list() == [0, 2]
    assert verdict.rejected.select("unit", "row", "error_type").rows() == [(1, 1, error_type)]
    assert verdict.rejected["rules"].to_list() == [rules]
    errors = {rule: rows for (rule, severity), rows in broken(verdict).items() if severity == "ERROR"}
    assert errors == dict.fromkeys(rules, 1)
    assert len(verdict.rejected["error_message"][0].split("; ")) == len(rules)


def test_the_ends_of_what_fits_are_accepted():
    assert refine("trades", {"price": 10**18 - 1}, {"price": 1 - 10**18}).accepted["price"].to_list() == [
        Decimal("999999999.999999999"), Decimal("-999999999.999999999"),
    ]  # fmt: skip
    assert refine("ohlcv-1d", {"volume": 2**63 - 1}).accepted["volume"].to_list() == [2**63 - 1]
    assert refine("trades", {"ts_event": 0}).accepted["ts_event"].cast(pl.Int64).to_list() == [0]
    assert refine("trades", {"ts_recv": START}, {"ts_recv": END - 1}).rejected.is_empty()


def test_the_most_basic_reason_comes_first():
    change = {"price": 10**18, "ts_recv": END, "side": b"X", "size": UNDEF_SIZE}
    (row,) = refine("trades", change).rejected.rows(named=True)
    assert row["rules"] == ["price_out_of_range", "MISSING_SIZE", "OUTSIDE_WINDOW", "INVALID_SIDE"]
    assert row["error_type"] == "TransformationError"
    assert row["error_message"] == (
        "price does not fit DECIMAL(18,9); size is missing; "
        "ts_recv lies outside the window that was asked for; The side is none of A (ask), B (bid) and N (none)"
    )


def test_one_rule_that_two_columns_break_is_counted_and_named_once():
    verdict = refine("ohlcv-1d", {"open": 10**18, "high": 2 * 10**18}, {"low": -(10**18)})
    assert verdict.rejected["rules"].to_list() == [["price_out_of_range"], ["price_out_of_range"]]
    assert broken(verdict)["price_out_of_range", "ERROR"] == 2
    assert "open_price does not fit" in verdict.rejected["error_message"][0]
    assert "high_price does not fit" in verdict.rejected["error_message"][0]


def test_a_rejected_row_keeps_the_vendors_record_exactly():
    change = {"price": -(10**18) - 1, "side": b"\0", "size": UNDEF_SIZE, "ts_event": 2**64 - 2, "sequence": 2**32 - 1}
    (row,) = refine("trades", change).rejected.rows(named=True)
    record = json.loads(row["record"])
    assert record == {
        "publisher_id": 1, "instrument_id": 17, "ts_event": "2554-07-21T23:34:33.709551614Z",
        "price": "-1000000000.000000001", "size": None, "action": "T", "side": None, "flags": 130, "depth": 0,
        "ts_recv": "2024-01-02T00:00:00.000000005Z", "ts_in_delta": -3, "sequence": 2**32 - 1,
    }  # fmt: skip
    assert list(record) == list(columns("trades"))
    assert (row["dataset"], row["schema"], row["symbol"], row["instrument_id"]) == ("GLBX.MDP3", "trades", "ESH4", 17)
    assert (row["ts_event"], row["index_time"]) == (None, START + 5)


def test_text_in_a_record_is_json_whatever_it_holds():
    change = {"raw_symbol": b'a"b\\c\n\x01\xe9', "ts_recv": END, "raw_instrument_id": 2**63 + 1}
    (row,) = refine("definition", change, symbol=None).rejected.rows(named=True)
    record = json.loads(row["record"])
    assert (record["raw_symbol"], record["raw_instrument_id"]) == ('a"b\\c\n\x01é', 2**63 + 1)
    assert row["symbol"] == 'a"b\\c\n\x01é'


# What is flagged and kept


@pytest.mark.parametrize(
    ("name", "change", "rule", "severity"),
    [
        ("trades", {"price": 0}, "NON_POSITIVE_PRICE", "WARNING"),
        ("trades", {"price": -37_630_000_000}, "NON_POSITIVE_PRICE", "WARNING"),
        ("trades", {"ts_recv": START, "ts_event": START + 1}, "RECEIVED_BEFORE_EVENT", "WARNING"),
        ("trades", {"action": b"C"}, "ACTION_NOT_TRADE", "WARNING"),
        ("ohlcv-1d", {"low": -PX}, "NON_POSITIVE_PRICE", "WARNING"),
        ("ohlcv-1d", {"volume": 0}, "ZERO_VOLUME", "WARNING"),
        ("tbbo", {"bid_px_00": 4701 * PX}, "CROSSED_QUOTE", "INFO"),
        ("tbbo", {"bid_px_00": 4700 * PX}, "LOCKED_QUOTE", "INFO"),
        ("statistics", {"stat_type": 77}, "UNKNOWN_STAT_TYPE", "WARNING"),
        ("statistics", {"price": UNDEF_PRICE}, "EMPTY_STATISTIC", "WARNING"),
        ("statistics", {"stat_type": 9, "quantity": -1}, "NEGATIVE_QUANTITY", "WARNING"),
        ("definition", {"instrument_class": b"?"}, "UNKNOWN_INSTRUMENT_CLASS", "WARNING"),
        ("definition", {"security_update_action": b"?"}, "UNKNOWN_SECURITY_UPDATE_ACTION", "WARNING"),
        ("definition", {"expiration": UNDEF_TIME}, "EXPIRATION_MISSING", "WARNING"),
        ("definition", {"activation": END + 1}, "EXPIRATION_BEFORE_ACTIVATION", "WARNING"),
        ("definition", {"instrument_class": b"C", "strike_price": UNDEF_PRICE}, "STRIKE_MISSING", "WARNING"),
        ("definition", {"instrument_class": b"P", "strike_price": -PX}, "NON_POSITIVE_STRIKE", "WARNING"),
        ("definition", {"min_price_increment": 0}, "NON_POSITIVE_TICK", "WARNING"),
        ("definition", {"unit_of_measure_qty": 0}, "NON_POSITIVE_UNIT_QUANTITY", "WARNING"),
        ("definition", {"high_limit_price": PX - 1}, "HIGH_LIMIT_LESS_THAN_LOW_LIMIT", "WARNING"),
        ("definition", {"maturity_month": 13}, "INVALID_MATURITY_MONTH", "WARNING"),
        ("definition", {"leg_count": 2, "leg_index": 2}, "LEG_INDEX_BEYOND_COUNT", "WARNING"),
    ],
)
def test_an_odd_row_is_counted_and_kept(name, change, rule, severity):
    verdict = refine(name, {}, change)
    assert verdict.accepted.height == 2
    assert broken(verdict) == {(rule, severity): 1}


def test_a_crossed_quote_is_marked_and_a_quote_of_one_side_is_not():
    crossed, locked, alone = {"bid_px_00": 4701 * PX}, {"bid_px_00": 4700 * PX}, {"ask_px_00": UNDEF_PRICE}
    verdict = refine("tbbo", crossed, locked, alone)
    assert verdict.accepted["is_crossed"].to_list() == [True, False, False]


def test_counts_are_kept_by_unit_and_a_row_counts_for_every_rule_it_breaks():
    frame = raw("trades", {"price": -PX}, {"price": -PX, "side": b"X"}, {"side": b"X"}, {})
    frame = frame.with_columns(_unit=pl.Series([4, 5, 5, 6], dtype=pl.Int32))
    verdict = refinery("trades").refine(frame)
    assert sorted(verdict.counts.rows()) == [
        (4, "NON_POSITIVE_PRICE", "WARNING", 1),
        (5, "INVALID_SIDE", "ERROR", 2),
        (5, "NON_POSITIVE_PRICE", "WARNING", 1),
    ]
    assert verdict.rejected.select("unit", "row").rows() == [(5, 1), (5, 2)]


def test_each_row_is_held_against_the_window_of_its_own_unit():
    frame = raw("trades", {}, {}).with_columns(_window_end=pl.Series([START + 5, START + 6]))
    assert refinery("trades").refine(frame).rejected["row"].to_list() == [0]


# The last gate


def test_rows_that_do_not_meet_the_declared_contract_stop_the_run():
    bound = refinery("trades")
    fields = tuple(replace(f, type="integer") if f.name == "size" else f for f in bound.schema.fields)
    bound.schema = replace(bound.schema, fields=fields)
    with pytest.raises(DataError, match="do not meet their contract"):
        bound.refine(raw("trades", {}))


def test_the_gate_looks_again_when_nulls_appear(monkeypatch):
    bound = refinery("trades")
    bound.refine(raw("trades", {}))
    fields = tuple(replace(f, null=False) for f in bound.schema.fields)
    monkeypatch.setattr(bound, "schema", replace(bound.schema, fields=fields))
    bound.refine(raw("trades", {}))
    with pytest.raises(DataError, match="symbol"):
        bound.refine(raw("trades", {}, symbol=None))


def test_the_real_files_at_hand_break_no_rule_that_quarantines(real_files):
    """Every record that the vendor's own test data holds is stored."""
    seen = 0
    for reader in real_files:
        name = reader.header.schema
        schema, _ = packaged().find(name)
        bound = refinery(name, dataset=reader.header.dataset)
        for frame in reader.frames(131_072, MAPPING.undefined, schema.kind):
            placed = frame.with_columns(
                pl.lit(reader.header.dataset).alias("dataset"), pl.lit(None, pl.String).alias("symbol"),
                pl.lit("databento").alias("data_source"), pl.lit(1, pl.Int32).alias("_unit"),
                pl.int_range(pl.len(), dtype=pl.Int32).alias("_row"),
                pl.lit(0).alias("_window_start"), pl.lit(2**63 - 1).alias("_window_end"),
            )  # fmt: skip
            verdict = bound.refine(placed)
            assert verdict.rejected.is_empty(), (reader.path, verdict.rejected["rules"].to_list())
            seen += verdict.accepted.height
    assert seen > 400

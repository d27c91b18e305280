"""Refining: what becomes of the vendor's rows, and how wrong mappings and rules are refused."""

import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from structlog.testing import capture_logs

from hdi.errors import ConfigError, DataError
from hdi.expressions import compile_sql, pattern
from hdi.refine import COUNTS, REJECTED, Refinery, load_mapping, rule_checks
from hdi.schema import PLACE, load_schemas
from hdi.sources.dbn import Reader
from hdi.sources.records import columns, layout, to_frame

START = 1_704_153_600_000_000_000  # 2024-01-02
END = START + 86_400_000_000_000
UNDEF_PRICE, UNDEF_TIME, UNDEF_SIZE = 2**63 - 1, 2**64 - 1, 2**32 - 1
PX = 10**9
#: A row of each kind in which nothing is wrong, as the vendor's record has it.
GOOD = {
    "trades": {
        "publisher_id": 1, "instrument_id": 17, "ts_event": START, "ts_recv": START + 5, "price": 4700 * PX, "size": 2,
        "action": b"T", "side": b"B", "sequence": 9, "ts_in_delta": -3, "flags": 130,
    },
    "ohlcv-1d": {
        "publisher_id": 1, "instrument_id": 17, "ts_event": START, "open": 10 * PX, "high": 12 * PX, "low": 9 * PX,
        "close": 11 * PX, "volume": 100,
    },
    "statistics": {
        "publisher_id": 1, "instrument_id": 17, "ts_event": START, "ts_recv": START + 5, "ts_ref": START,
        "price": 5 * PX, "quantity": 2**63 - 1, "stat_type": 3, "update_action": 1,
    },
    "definition": {
        "publisher_id": 1, "instrument_id": 17, "ts_event": START, "ts_recv": START + 5, "raw_symbol": b"ESH4",
        "instrument_class": b"F", "security_update_action": b"A", "expiration": END, "activation": START,
        "min_price_increment": PX // 4, "unit_of_measure_qty": 50 * PX, "maturity_month": 3, "high_limit_price": 2 * PX,
        "low_limit_price": PX,
    },
}  # fmt: skip
GOOD["tbbo"] = GOOD["trades"] | {
    "bid_px_00": 4699 * PX, "ask_px_00": 4700 * PX, "bid_sz_00": 3, "ask_sz_00": 4, "bid_ct_00": 1, "ask_ct_00": 2,
}  # fmt: skip
ROOT = Path(__file__).resolve().parents[2]
KINDS = ["definition", "ohlcv", "statistics", "tbbo", "trades"]
MAPPING = load_mapping("databento")


def raw(name, *changes, symbol="ESH4", unit=1, version=3, **others):
    """Good rows of a schema, each with its changes, as the decoder gives them to refining."""
    kind = name.split("-")[0]
    records = np.zeros(len(changes), layout(name, version))
    for i, change in enumerate(changes):
        for key, value in (GOOD[name] | change).items():
            records[i][key] = value
    frame = to_frame(records, name, version, MAPPING.undefined.get(kind, []))
    context = {"dataset": "GLBX.MDP3", "symbol": symbol, "data_source": "databento"} | others
    return frame.with_columns(
        *(pl.lit(value, dtype=pl.String).alias(key) for key, value in context.items()),
        _unit=pl.lit(unit, dtype=pl.Int32),
        _row=pl.int_range(pl.len(), dtype=pl.Int32),
        _window_start=pl.lit(START),
        _window_end=pl.lit(END),
    )


def refinery(name, rules=(), extra=(), mapping=MAPPING, vendor=None, dataset="GLBX.MDP3"):
    schema, named = load_schemas(extra, rules).find(name)
    return Refinery(schema, named, mapping, vendor or columns(name), dataset)


def refine(name, *changes, rules=(), **context):
    return refinery(name, rules, dataset=context.get("dataset", "GLBX.MDP3")).refine(raw(name, *changes, **context))


def broken(verdict):
    """Each broken rule with its severity and how many rows broke it."""
    return {(rule, severity): rows for rule, severity, rows in verdict.counts.drop("_unit").rows()}


@pytest.fixture
def write(tmp_path):
    def write(text, name="given.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


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


# The user's rules


def test_a_user_rule_may_quarantine(write):
    rules = [
        write("trades: {TOO_BIG: {check: size <= 100, severity: ERROR, message: Too big., type: SchemaValidation}}")
    ]
    (row,) = refine("trades", {"size": 101}, {"size": 100}, rules=rules).rejected.rows(named=True)
    assert (row["rules"], row["error_message"], row["error_type"]) == (["TOO_BIG"], "Too big", "SchemaValidation")


def test_a_changed_severity_decides_what_is_stored(write):
    rules = [write("trades:\n  NON_POSITIVE_PRICE: {severity: ERROR}\n  INVALID_SIDE: {severity: INFO}\n")]
    verdict = refine("trades", {"price": 0}, {"side": b"X"}, rules=rules)
    assert verdict.accepted["side"].to_list() == ["X"]
    assert broken(verdict) == {("NON_POSITIVE_PRICE", "ERROR"): 1, ("INVALID_SIDE", "INFO"): 1}


@pytest.mark.parametrize(
    ("dataset", "severity"), [("XNAS.ITCH", "ERROR"), ("GLBX.MDP3", "WARNING"), ("XNAS.BASIC", "ERROR")]
)
def test_a_severity_may_hold_for_some_datasets_only(write, dataset, severity):
    rules = [write("trades: {NON_POSITIVE_PRICE: {severity: ERROR, datasets: [XNAS.*]}}")]
    assert broken(refine("trades", {"price": 0}, rules=rules, dataset=dataset)) == {("NON_POSITIVE_PRICE", severity): 1}


@pytest.mark.parametrize(
    ("symbol", "severity"),
    [
        ("ESH4", "ERROR"),
        ("NQM4", "ERROR"),
        ("ESH4-ESM4", "WARNING"),
        ("CLH4", "WARNING"),
        (None, "WARNING"),
        ("esH4", "WARNING"),
    ],
)
def test_a_severity_may_hold_for_some_symbols_only(write, symbol, severity):
    rules = [write("trades: {NON_POSITIVE_PRICE: {severity: ERROR, symbols: ['ES??', 'N[OQ]??']}}")]
    verdict = refine("trades", {"price": 0}, rules=rules, symbol=symbol)
    assert broken(verdict) == {("NON_POSITIVE_PRICE", severity): 1}
    assert verdict.rejected.height == (severity == "ERROR")


def test_a_narrow_rule_may_be_milder_than_the_wide_one(write):
    rules = [write("trades: {INVALID_SIDE: {severity: INFO, symbols: [ES*]}}")]
    frame = raw("trades", {"side": b"X"}, {"side": b"X"}).with_columns(symbol=pl.Series(["ESH4", "CLH4"]))
    verdict = refinery("trades", rules).refine(frame)
    assert broken(verdict) == {("INVALID_SIDE", "INFO"): 1, ("INVALID_SIDE", "ERROR"): 1}
    assert verdict.rejected["symbol"].to_list() == ["CLH4"]


def test_the_last_of_several_narrow_rules_decides(write):
    first = write("trades: {BIG: {check: size < 5, severity: INFO, message: Big.}}", "a.yaml")
    second = write("trades: {BIG: {check: size < 50, severity: ERROR, message: Big here., symbols: [ES*]}}", "b.yaml")
    frame = raw("trades", {"size": 9}, {"size": 99}, {"size": 9}).with_columns(
        symbol=pl.Series(["ESH4", "ESH4", "CLH4"])
    )
    verdict = refinery("trades", [first, second]).refine(frame)
    assert broken(verdict) == {("BIG", "ERROR"): 1, ("BIG", "INFO"): 1}
    assert verdict.rejected["error_message"].to_list() == ["Big here"]


def test_null_neither_holds_nor_fails_a_rule(write):
    rules = [write("tbbo: {WIDE: {check: ask_px_00 - bid_px_00 < 1, severity: ERROR, message: Wide.}}")]
    verdict = refine("tbbo", {"bid_px_00": UNDEF_PRICE}, {"bid_px_00": 4000 * PX}, rules=rules)
    assert verdict.rejected["row"].to_list() == [1]


def test_a_rule_that_never_holds_rejects_every_row(write):
    rules = [write("trades: {NEVER: {check: 'FALSE', severity: ERROR, message: Never.}}")]
    assert refine("trades", {}, {}, rules=rules).rejected["row"].to_list() == [0, 1]


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ("price > AVG(price)", "Agg Mean does not work row by row"),
        ("size >= COUNT(*)", "Len does not work row by row"),
        ("price > MAX(price)", "Agg Max does not work row by row"),
        ("SUM(size) OVER (PARTITION BY side) > 0", "does not work row by row"),
        ("LAG(price) OVER (ORDER BY sequence) < price", "does not work row by row"),
        ("ROW_NUMBER() OVER () < 10", "does not work row by row"),
        ("FIRST(price) > 1", "does not work row by row"),
        ("CASE WHEN TRUE THEN STDDEV(price) > 1 END", "does not work row by row"),
        ("COALESCE(MEDIAN(price), 1) > 1", "does not work row by row"),
        ("CAST(COUNT(DISTINCT side) AS BIGINT) > 1", "does not work row by row"),
        ("NOT (QUANTILE_CONT(size, 0.5) > 1)", "does not work row by row"),
        ("CORR(size, sequence) > 0", "does not work row by row"),
        ("ARRAY_AGG(side) IS NOT NULL", "does not work row by row"),
        ("UNNEST(side) = 'A'", "does not work row by row"),
        ("COLUMNS('p.*') > 0", "does not work row by row"),
        ("price > (SELECT 1)", "a subquery does not work row by row"),
        ("EXISTS (SELECT 1)", "a subquery does not work row by row"),
        ("price IN (SELECT price FROM trades)", "not a SQL expression"),
        ("*", "not a SQL expression"),
        ("price >", "not a SQL expression"),
        ("price > 0; DROP TABLE trades", "not a SQL expression"),
        ("price > 0, size > 0", "not a SQL expression"),
        ("SELECT price > 0", "not a SQL expression"),
        ("__import__('os').system('true')", "not a SQL expression"),
        ("bogus(price) > 0", "unsupported function 'bogus'"),
        ("prise > 0", "unknown column 'prise'"),
        ("_row > 0", "unknown column '_row'"),
        ("price", "not true or false"),
        ("size + 1", "not true or false"),
        ("NULL", "not true or false"),
        ("symbol > 5", "cannot be evaluated"),
        ("ts_event < NOW()", "NOW gives another answer each time"),
        ("ts_event < CURRENT_DATE", "CURRENT_DATE gives another answer each time"),
    ],
)  # fmt: skip
def test_a_rule_that_sees_more_than_the_row_or_is_no_rule_is_refused_before_any_row(write, check, words):
    path = write(f"trades:\n  MINE:\n    severity: ERROR\n    message: Mine.\n    check: {json.dumps(check)}\n")
    with pytest.raises(ConfigError) as caught:
        refinery("trades", [path])
    assert caught.value.message.startswith(f"{path}:5:5: trades.MINE.check: ")
    assert words in caught.value.message


@pytest.mark.parametrize(
    "check",
    [
        "symbol <> 'NOW()' AND symbol <> 'current_date'",
        "ABS(price - 4700) < 10 AND ROUND(price, 2) = price",
        "price BETWEEN 0 AND 100000 AND side IN ('A', 'B')",
        "symbol LIKE 'ES%' OR symbol ~ '^NQ'",
        "CASE WHEN side = 'N' THEN size >= 0 ELSE size > 0 END",
        "DATE_PART('hour', ts_recv) < 24",
        "COALESCE(LENGTH(symbol), 4) = 4 AND UPPER(symbol) = symbol",
        "price % 0.25 = 0 AND size // 2 >= 0",
        "GREATEST(size, 1) = size AND LEAST(size, 1) = 1",
        "NULLIF(size, 0) IS NOT NULL AND price IS DISTINCT FROM 0",
        "ts_event >= DATE '2020-01-01' AND ts_recv >= TIMESTAMP WITH TIME ZONE '2020-01-01 10:00:00'",
        "TRY_CAST(symbol AS BIGINT) IS NULL",
        "STARTS_WITH(symbol, 'ES') AND symbol || 'x' = CONCAT(symbol, 'x')",
    ],
)
def test_sql_over_one_row_is_taken(write, check):
    rules = [write(f"trades: {{MINE: {{check: {json.dumps(check)}, severity: ERROR, message: Mine.}}}}")]
    verdict = refine("trades", {}, {}, rules=rules)
    assert verdict.accepted.height == 2, verdict.rejected["rules"]


def test_a_misspelt_column_is_answered_with_the_closest(write):
    path = write("trades: {MINE: {check: prise > 0, severity: INFO, message: Mine.}}")
    with pytest.raises(ConfigError) as caught:
        refinery("trades", [path])
    assert caught.value.hint == "Did you mean price?"


def test_rules_of_every_dataset_are_checked_even_where_they_do_not_apply(write):
    path = write("trades: {MINE: {check: prise > 0, severity: INFO, message: Mine., datasets: [OTHER.SET]}}")
    with pytest.raises(ConfigError, match="unknown column 'prise'"):
        refinery("trades", [path])


def test_a_rule_that_fails_on_the_data_names_its_file_and_position(write):
    path = write("trades: {MINE: {check: CAST(symbol AS BIGINT) > 0, severity: INFO, message: Mine.}}")
    with pytest.raises(ConfigError) as caught:
        refine("trades", {}, rules=[path])
    assert caught.value.message.startswith(f"{path}:1:17: trades.MINE.check: fails on the vendor's rows")
    assert "TRY_CAST" in caught.value.hint


def test_all_packaged_rules_compile():
    assert {s.kind: len(rule_checks(s)) == len(s.rules) for s in load_schemas()} == dict.fromkeys(
        ("definition", "ohlcv", "statistics", "tbbo", "trades"), True
    )


def test_shell_patterns_match_as_in_a_shell():
    texts = pl.Series(["ESH4", "ESH4-ESM4", "NQH4", "E.S", "E]S", "ES\nX", "E^S", "E-S"])

    def matched(*patterns):
        return texts.filter(texts.str.contains(pattern(patterns))).to_list()

    assert matched("ES??") == ["ESH4", "ES\nX"]
    assert matched("ES*") == ["ESH4", "ESH4-ESM4", "ES\nX"]
    assert matched("[!E]*", "ESH4") == ["ESH4", "NQH4"]
    assert matched("E.S") == ["E.S"]
    assert matched("E[]]S", "E[^]S") == ["E]S", "E^S"]
    assert matched("E[.-]S") == ["E.S", "E-S"]
    assert matched("E[") == []


# The mapping


def mapping(write, text):
    return load_mapping("databento", [write(text, "databento.yaml")])


def test_a_user_mapping_overrides_and_adds_single_columns(write):
    given = mapping(
        write, "mappings: {ohlcv: {vwap: 'CAST((high + low) / 2 AS DECIMAL(18, 9))', symbol: UPPER(symbol)}}"
    )
    with pytest.raises(ConfigError, match="type change"):
        refinery("ohlcv-1d", mapping=mapping(write, "mappings: {ohlcv: {vwap: CAST(high AS DOUBLE)}}"))
    row = refinery("ohlcv-1d", mapping=given).refine(raw("ohlcv-1d", {}, symbol="esh4")).accepted.row(0, named=True)
    assert (row["vwap"], row["symbol"], row["open_price"]) == (Decimal("10.5"), "ESH4", Decimal(10))


def test_only_the_file_of_the_vendor_is_laid_over(write):
    other = write("mappings: {trades: {bogus: '1'}}", "another.yaml")
    assert load_mapping("databento", [other]) == MAPPING
    assert load_mapping("another", [other]).expressions["trades"]["bogus"].sql == "1"


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("mappings: {trades: {prise: price}}", "1:21: mappings.trades.prise", "trades has no column 'prise'"),
        ("mappings: {trades: {price: prize}}", "1:21: mappings.trades.price", "unknown column 'prize'"),
        ("mappings: {trades: {price: 'price +'}}", "1:21: mappings.trades.price", "not a SQL expression"),
        ("mappings: {trades: {price: MAX(price)}}", "1:21: mappings.trades.price", "does not work row by row"),
        ("mappings: {trades: {price: size}}", "1:21: mappings.trades.price", "type change: the vendor's UInt32"),
        ("mappings: {trades: {price: 1.5e0 * size}}", "1:21: mappings.trades.price", "type change"),
        ("mappings: {trades: {size: action}}", "1:21: mappings.trades.size", "does not become BIGINT"),
        ("mappings: {trades: {ts_event: ts_in_delta}}", "1:21: mappings.trades.ts_event", "does not become TIMESTAMP"),
        ("mappings: {trades: {side: depth}}", "1:21: mappings.trades.side", "does not become TEXT"),
        ("mappings: {trades: {side: ''}}", "1:21: mappings.trades.side", "must be a SQL expression"),
        ("mappings: {trades: {side: [a]}}", "1:21: mappings.trades.side", "must be a SQL expression"),
        ("mappings: {trades: side}", "1:12: mappings.trades", "must map columns to SQL expressions"),
        ("mappings: [trades]", "1:1: mappings", "must map kinds of data"),
        ("undefined: {trades: size}", "1:13: undefined.trades", "must be a list of the vendor's columns"),
        ("mapping: {}", "1:1: mapping", "unknown key 'mapping'"),
        ("- mappings", "1:1", "must be a mapping"),
    ],
)
def test_a_wrong_mapping_is_refused_with_file_position_and_key(write, text, place, words):
    path = write(text, "databento.yaml")
    with pytest.raises(ConfigError) as caught:
        refinery("trades", mapping=load_mapping("databento", [path]))
    assert caught.value.message.startswith(f"{path}:{place}: ")
    assert words in caught.value.message


def test_a_mapping_of_an_unknown_kind_is_refused(write):
    path = write("mappings: {trade: {price: price}}", "databento.yaml")
    with pytest.raises(ConfigError, match=r"1:12: mappings.trade: unknown kind 'trade'") as caught:
        load_mapping("databento", [path], kinds=KINDS)
    assert "trades" in caught.value.hint


def test_a_vendor_without_a_mapping_is_refused():
    with pytest.raises(ConfigError, match="'nobody'"):
        load_mapping("nobody")


def test_a_column_that_the_vendor_lacks_is_refused_with_the_key_that_would_make_it():
    vendor = {name: dtype for name, dtype in columns("trades").items() if name != "size"}
    with pytest.raises(ConfigError, match=r"databento\.yaml:\d+:\d+: mappings\.trades\.size: the vendor has no column"):
        refinery("trades", vendor=vendor | {"siz": pl.UInt32()})


def test_the_shipped_mapping_names_only_kinds_and_columns_that_exist():
    kinds = {s.kind: next(iter(s.names)) for s in load_schemas()}
    shipped = load_mapping("databento", kinds=kinds)
    for kind, names in shipped.undefined.items():
        vendor = columns(kinds[kind])
        assert all(vendor[name].is_integer() for name in names)
    numeric = {n for n, t in columns("definition").items() if t.is_integer()} - {"instrument_id", "publisher_id"}
    assert set(shipped.undefined["definition"]) == numeric


def test_naive_times_become_utc_with_one_warning():
    vendor = columns("trades") | {"ts_event": pl.Datetime("us")}
    with capture_logs() as logs:
        bound = refinery("trades", vendor=vendor)
        frame = raw("trades", {}, {}).with_columns(ts_event=pl.lit(datetime(2024, 1, 2, 3)))  # noqa: DTZ001
        verdict = bound.refine(frame)
        bound.refine(frame)
    assert [(entry["log_level"], entry["column"]) for entry in logs] == [("warning", "ts_event")]
    assert logs[0]["mapping"].endswith("mappings.trades.ts_event")
    assert verdict.accepted["ts_event"].to_list() == [datetime(2024, 1, 2, 3, tzinfo=UTC)] * 2


def test_times_of_another_zone_and_unit_become_utc_nanoseconds():
    zone = pl.Datetime("ms", "America/Chicago")
    local = pl.Series([0, -1, 10**13], dtype=pl.Int64).cast(pl.Datetime("ms", "UTC")).cast(zone)
    frame = raw("trades", {}, {}, {}).with_columns(ts_event=local)
    verdict = refinery("trades", vendor=columns("trades") | {"ts_event": zone}).refine(frame)
    assert verdict.accepted["ts_event"].cast(pl.Int64).to_list() == [0]
    assert verdict.rejected["rules"].to_list() == [["TIMESTAMP_OUT_OF_RANGE"]] * 2


def test_wider_integers_and_finer_prices_are_checked_not_cut():
    vendor = columns("trades") | {"ts_in_delta": pl.Int64(), "price": pl.Decimal(20, 2)}
    frame = raw("trades", {}, {}, {}).with_columns(
        ts_in_delta=pl.Series([2**31 - 1, 2**31, -(2**31) - 1]), price=pl.Series(["1.25"] * 3).cast(pl.Decimal(20, 2))
    )
    verdict = refinery("trades", vendor=vendor).refine(frame)
    assert verdict.accepted.select("ts_in_delta", "price").rows() == [(2**31 - 1, Decimal("1.25"))]
    assert verdict.rejected["rules"].to_list() == [["VALUE_OUT_OF_RANGE"]] * 2
    with pytest.raises(ConfigError, match="type change"):
        refinery("trades", vendor=columns("trades") | {"price": pl.Decimal(18, 10)})


def test_a_mapping_that_fails_on_the_data_names_its_file_and_position(write):
    given = mapping(write, "mappings: {trades: {sequence: CAST(symbol AS BIGINT)}}")
    with pytest.raises(ConfigError, match=r"databento\.yaml:1:21: mappings\.trades\.sequence: fails on") as caught:
        refinery("trades", mapping=given).refine(raw("trades", {}))
    assert "TRY_CAST" in caught.value.hint


def test_a_value_of_the_name_that_is_no_value_of_the_column_is_refused(write):
    path = write(
        "kind: own\ntitle: Own\ndoc: Own.\ntable: own\nindex_time: ts_event\n"
        "names: {own: {grid: day, set: {depth: x}}}\n"
        "fields: {depth: {type: smallint, doc: Depth.}}\ndisplay: [depth]\n"
    )
    with pytest.raises(ConfigError, match=r"names\.own\.set\.depth: 'x' is no SMALLINT"):
        refinery("own", extra=[path], vendor=columns("ohlcv-1d"))


def test_a_kind_of_ones_own_takes_one_file(write):
    path = write(
        "kind: halts\ntitle: Halts\ndoc: Halts.\ntable: halts\nindex_time: ts_recv\n"
        "names: {halts: {grid: month, set: {venue: '7'}}}\n"
        "fields:\n  ts_recv: {type: timestamp, doc: When.}\n  venue: {type: smallint, doc: Where.}\n"
        "  reason: {type: integer, doc: Why.}\ndisplay: [reason]\n"
        "rules: {NO_REASON: {check: reason > 0, severity: ERROR, message: None given.}}\n"
    )
    vendor = columns("status")
    frame = raw("trades", {}, {}).select(
        "publisher_id", "instrument_id", "ts_event", "ts_recv", pl.lit(3, pl.UInt16).alias("action"),
        pl.Series("reason", [5, 0], dtype=pl.UInt16), "dataset", "symbol", "data_source", "^_.*$",
    )  # fmt: skip
    vendor = {name: dtype for name, dtype in vendor.items() if name in frame.columns}
    verdict = refinery("halts", extra=[path], vendor=vendor).refine(frame)
    assert verdict.accepted.select("venue", "reason").rows() == [(7, 5)]
    assert verdict.rejected["rules"].to_list() == [["NO_REASON"]]


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
    monkeypatch.setattr(bound, "_contract", replace(bound.schema, fields=fields).contract())
    bound.refine(raw("trades", {}))
    with pytest.raises(DataError, match="symbol"):
        bound.refine(raw("trades", {}, symbol=None))


def test_compile_says_what_type_an_expression_gives():
    known = {"a": pl.Int64(), "b": pl.Decimal(18, 9)}
    assert compile_sql("a > 1", known, "here")[1] == pl.Boolean
    assert compile_sql("b", known, "here")[1] == pl.Decimal(18, 9)


def test_the_real_files_at_hand_break_no_rule_that_quarantines(real_files):
    """Every record that the vendor's own test data holds is stored."""
    seen = 0
    for reader in real_files:
        name = reader.header.schema
        schema, _ = load_schemas().find(name)
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

"""Rules: what the user's own do, and how one that is wrong is refused before any row."""

import json

import polars as pl
import pytest

from hdi.errors import ConfigError
from hdi.expressions import compile_sql, pattern
from hdi.refine import rule_checks
from hdi.schema_files import load_schemas
from refining import PX, UNDEF_PRICE, broken, raw, refine, refinery


@pytest.fixture
def write(tmp_path):
    def write(text, name="given.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


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
        ("LENGTH(REPLACE(REPLACE(symbol, '', 'xxxxxxxxxx'), '', 'xxxxxxxxxx')) > 1", "it makes texts longer"),
        ("CASE WHEN size > 1 THEN REPLACE(symbol, side, 'x') END = 'x'", "it makes texts longer"),
        ("REGEXP_REPLACE(symbol, '.*', '$0$0') = 'x'", "it makes texts longer"),
        ("LPAD(symbol, 2000000000, 'x') = 'x'", "it makes texts longer"),
        ("RPAD(symbol, size, 'x') = 'x'", "it makes texts longer"),
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
    for schema in load_schemas():
        assert schema.rules
        assert [c.name for c in rule_checks(schema)] == [r.name for r in schema.rules]


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


def test_compile_says_what_type_an_expression_gives():
    known = {"a": pl.Int64(), "b": pl.Decimal(18, 9)}
    assert compile_sql("a > 1", known, "here")[1] == pl.Boolean
    assert compile_sql("b", known, "here")[1] == pl.Decimal(18, 9)

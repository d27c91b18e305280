"""Schemas: what the kinds declare, what derives from a declaration, and how a wrong one is refused."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import databento_dbn as dbn
import pandera.errors
import polars as pl
import pytest

from hdi.errors import ConfigError, RequestError
from hdi.model import NS
from hdi.schema import SQL
from hdi.schema_files import load_schemas

KINDS = [
    "bbo", "cbbo", "cmbp-1", "definition", "imbalance", "mbo", "mbp-1", "mbp-10", "ohlcv", "statistics", "status",
    "tbbo", "tcbbo", "trades",
]  # fmt: skip
COMMON = {
    "dataset": "text", "instrument_id": "bigint", "symbol": "text?", "publisher_id": "integer",
    "ts_event": "timestamp?",
}  # fmt: skip
TRADE = {
    "ts_recv": "timestamp", "price": "price", "size": "bigint", "side": "text", "action": "text", "depth": "smallint",
    "flags": "smallint", "sequence": "bigint", "ts_in_delta": "integer",
}  # fmt: skip
LEVEL = {
    "bid_px_{}": "price?", "ask_px_{}": "price?", "bid_sz_{}": "bigint?", "ask_sz_{}": "bigint?",
    "bid_ct_{}": "bigint?", "ask_ct_{}": "bigint?",
}  # fmt: skip


def levels(count):
    """The columns of so many levels of a book."""
    return {name.format(f"{k:02d}"): kind for k in range(count) for name, kind in LEVEL.items()}


BOOK = TRADE | {"price": "price?", "size": "bigint?"}
BEST = {n: t for n, t in levels(1).items() if "_ct_" not in n} | {"bid_pb_00": "integer?", "ask_pb_00": "integer?"}
CROSSED = {"is_crossed": "boolean"}
INTERVAL = {
    "granularity": "text", "ts_recv": "timestamp", "price": "price?", "size": "bigint?", "side": "text?",
    "flags": "smallint",
}  # fmt: skip
DECLARED = {
    "mbo": COMMON | {
        "ts_recv": "timestamp", "order_id": "bigint", "price": "price?", "size": "bigint?", "side": "text",
        "action": "text", "flags": "smallint", "channel_id": "smallint?", "sequence": "bigint",
        "ts_in_delta": "integer",
    },
    "mbp-1": COMMON | BOOK | levels(1) | CROSSED,
    "mbp-10": COMMON | BOOK | levels(10) | CROSSED,
    "bbo": COMMON | INTERVAL | {"sequence": "bigint"} | levels(1) | CROSSED,
    "cbbo": COMMON | INTERVAL | BEST | CROSSED,
    "cmbp-1": COMMON | {n: t for n, t in BOOK.items() if n not in ("depth", "sequence")} | BEST | CROSSED,
    "tcbbo": COMMON | {n: t for n, t in TRADE.items() if n not in ("depth", "sequence")} | BEST | CROSSED,
    "status": COMMON | {
        "ts_recv": "timestamp", "action": "integer", "action_name": "text?", "reason": "integer",
        "reason_name": "text?", "trading_event": "integer", "trading_event_name": "text?", "is_trading": "text?",
        "is_quoting": "text?", "is_short_sell_restricted": "text?",
    },
    "imbalance": COMMON | {
        "ts_recv": "timestamp", "ref_price": "price?", "auction_time": "timestamp?", "cont_book_clr_price": "price?",
        "auct_interest_clr_price": "price?", "ssr_filling_price": "price?", "ind_match_price": "price?",
        "upper_collar": "price?", "lower_collar": "price?", "paired_qty": "bigint?", "total_imbalance_qty": "bigint?",
        "market_imbalance_qty": "bigint?", "unpaired_qty": "bigint?", "auction_type": "text?", "side": "text?",
        "auction_status": "smallint", "freeze_status": "smallint", "num_extensions": "smallint",
        "unpaired_side": "text?", "significant_imbalance": "text?",
    },
    "ohlcv": COMMON | {
        "ts_event": "timestamp", "granularity": "text", "open_price": "price", "high_price": "price",
        "low_price": "price", "close_price": "price", "volume": "bigint", "trade_count": "bigint?", "vwap": "price?",
    },
    "trades": COMMON | TRADE,
    "tbbo": COMMON | TRADE | {
        "bid_px_00": "price?", "ask_px_00": "price?", "bid_sz_00": "bigint?", "ask_sz_00": "bigint?",
        "bid_ct_00": "bigint?", "ask_ct_00": "bigint?", "is_crossed": "boolean",
    },
    "statistics": COMMON | {
        "ts_recv": "timestamp", "stat_type": "integer", "stat_name": "text?", "price": "price?", "quantity": "bigint?",
        "ts_ref": "timestamp?", "sequence": "bigint", "channel_id": "integer", "update_action": "smallint",
        "stat_flags": "smallint",
    },
}  # fmt: skip
#: A kind of data that this package does not have.
OWN = """\
kind: notice
title: Notices
doc: Halts and resumptions.
table: notice_data
index_time: ts_recv
names:
  notice: {grid: month}
aliases: {halts: notice}
fields:
  ts_recv: {type: timestamp, doc: When it was received.}
  reason: {type: integer, null: true, doc: Why.}
display: [ts_recv, symbol, reason]
rules:
  NEGATIVE_REASON: {check: reason >= 0, severity: ERROR, message: The reason is negative.}
"""


@pytest.fixture(scope="module")
def schemas():
    return load_schemas()


@pytest.fixture
def write(tmp_path):
    def write(text, name="given.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def kind(schemas, name):
    return next(s for s in schemas if s.kind == name)


def refused(call):
    with pytest.raises(ConfigError) as caught:
        call()
    return str(caught.value)


# What is declared


@pytest.mark.parametrize("name", DECLARED)
def test_a_kind_has_the_columns_types_and_nulls_of_its_table(schemas, name):
    fields = {f.name: f.type + "?" * f.null for f in kind(schemas, name).fields}
    assert fields == DECLARED[name] | {"data_source": "text"}
    assert list(fields) == [*DECLARED[name], "data_source"]


def test_definitions_hold_the_union_of_the_vendors_versions_in_types_that_hold_its_own(schemas):
    widths = {
        "u1": "smallint", "u2": "integer", "u4": "bigint", "u8": "bigint",
        "i1": "smallint", "i2": "smallint", "i4": "integer",
    }  # fmt: skip
    expected = {}
    for version in (dbn.v1, dbn.v2, dbn):
        record = version.InstrumentDefMsg
        for name, code in record._dtypes:
            if name in ("length", "rtype") or name.startswith(("_reserved", "_dummy")):
                continue
            price, time = name in record._price_fields, name in record._timestamp_fields
            text = "text" if code.startswith("S") else widths.get(code, "")
            expected[name] = "price" if price else "timestamp" if time else text
    expected |= {"instrument_id": "bigint", "publisher_id": "integer"}
    own = {f.name: f.type for f in kind(schemas, "definition").fields}
    assert own == expected | {"dataset": "text", "symbol": "text", "data_source": "text"}
    required = {f.name for f in kind(schemas, "definition").fields if not f.null}
    assert required == {"dataset", "instrument_id", "publisher_id", "ts_recv", "raw_symbol", "data_source"}


@pytest.mark.parametrize("name", KINDS)
def test_every_column_and_rule_says_what_it_means_in_a_sentence(schemas, name):
    schema = kind(schemas, name)
    for text in (schema.doc, *(f.doc for f in schema.fields), *(r.message for r in schema.rules)):
        assert re.fullmatch(r"[A-Z0-9].{10,}\.", text, re.DOTALL), text
    docs = [f.doc for f in schema.fields]
    assert len(set(docs)) == len(docs)
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]+", r.name) for r in schema.rules)
    assert 6 <= len(schema.display) <= 10
    assert set(schema.display) <= set(schema.dtypes)
    assert schema.display[0] == schema.index_time


def test_rules_carry_the_names_and_severities_that_operations_rely_on(schemas):
    severities = {(s.kind, r.name): r.severity for s in schemas for r in s.rules}
    for name in (
        "HIGH_LESS_THAN_LOW", "HIGH_LESS_THAN_OPEN", "HIGH_LESS_THAN_CLOSE",
        "LOW_GREATER_THAN_OPEN", "LOW_GREATER_THAN_CLOSE",
    ):  # fmt: skip
        assert severities["ohlcv", name] == "ERROR"
    for each in ("trades", "tbbo", "tcbbo"):
        assert severities[each, "INVALID_SIDE"] == severities[each, "NON_POSITIVE_SIZE"] == "ERROR"
    # A book whose events are not all there is wrong.
    for each in ("mbo", "mbp-1", "mbp-10", "cmbp-1"):
        assert severities[each, "NON_POSITIVE_SIZE"] == severities[each, "PRICE_MISSING"] == "WARNING"
    assert {s for (_, rule), s in severities.items() if rule == "NON_POSITIVE_PRICE"} == {"WARNING"}
    quotes = {s.kind for s in schemas if "bid_px_00" in s.dtypes}
    assert {severities[k, rule] for k in quotes for rule in ("CROSSED_QUOTE", "LOCKED_QUOTE")} == {"INFO"}


def test_bars_are_filed_by_ts_event_and_all_else_by_ts_recv(schemas):
    assert {s.kind: s.index_time for s in schemas} == dict.fromkeys(KINDS, "ts_recv") | {"ohlcv": "ts_event"}
    assert kind(schemas, "trades").order == (
        "ts_recv", "dataset", "publisher_id", "instrument_id", "_unit", "_row",
    )  # fmt: skip
    assert kind(schemas, "ohlcv").partition == ("dataset", "granularity")


def test_names_have_their_grids_widths_and_origins(schemas):
    found = {name: schemas.find(name)[1] for name in schemas.names}
    assert {n: s.grid for n, s in found.items()} == {
        "trades": "day", "tbbo": "day", "statistics": "month", "definition": "month", "ohlcv-1s": "month",
        "ohlcv-1m": "month", "ohlcv-5m": "month", "ohlcv-15m": "month", "ohlcv-1h": "year", "ohlcv-1d": "year",
        "ohlcv-eod": "year", "mbo": "day", "mbp-1": "day", "mbp-10": "day", "bbo-1s": "day", "bbo-1m": "day",
        "cmbp-1": "day", "cbbo-1s": "day", "cbbo-1m": "day", "tcbbo": "day", "status": "month", "imbalance": "month",
    }  # fmt: skip
    widths = {"1s": 1, "1m": 60, "5m": 300, "15m": 900, "1h": 3600, "1d": 86_400}
    assert {n: s.width for n, s in found.items() if s.width} == {f"ohlcv-{w}": s * NS for w, s in widths.items()}
    assert {n: s.made_from for n, s in found.items() if s.made_from} == {
        "ohlcv-5m": "ohlcv-1m", "ohlcv-15m": "ohlcv-1m",
    }  # fmt: skip
    assert {n: s.constants["granularity"] for n, s in found.items() if s.constants} == {
        f"{kind}-{w}": w
        for kind, all_ in (("ohlcv", (*widths, "eod")), ("bbo", ("1s", "1m")), ("cbbo", ("1s", "1m"))) for w in all_
    }  # fmt: skip
    # What comes by the day is whole when the day is; a bar when it is over; all else at once.
    days = {"definition", "statistics", "ohlcv-1d", "ohlcv-eod"}
    assert {n for n, s in found.items() if s.settled == 86_400 * NS} == days
    assert all(s.settled == (s.width or 1) for n, s in found.items() if n not in days)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ohlcv", "ohlcv-1d"), ("ohlcv-daily", "ohlcv-1d"), ("ohlcv-d", "ohlcv-1d"), ("ohlcv-h", "ohlcv-1h"),
        ("ohlcv-m", "ohlcv-1m"), ("ohlcv-s", "ohlcv-1s"), ("definitions", "definition"), ("stats", "statistics"),
        ("trd", "trades"), ("quotes", "tbbo"), ("top-of-book", "tbbo"), (" TRADES ", "trades"),
        ("l1", "mbp-1"), ("l2", "mbp-10"), ("l3", "mbo"),
    ],
)  # fmt: skip
def test_an_alias_finds_its_schema(schemas, text, name):
    assert schemas.find(text)[1].name == name


def test_an_unknown_schema_names_the_closest(schemas):
    with pytest.raises(RequestError, match=r"(?s)'bbo'.*Did you mean bbo-1m, bbo-1s"):
        schemas.find("bbo")
    with pytest.raises(RequestError, match=r"(?s)'tbb'.*Did you mean tbbo"):
        schemas.find("tbb")
    with pytest.raises(RequestError, match=r"(?s)'zzz'.*Known: bbo-1m, bbo-1s, cbbo-1m"):
        schemas.find("zzz")


# What derives


def sample(schema, rows=2):
    """Values of every type at their ends, the second row null where it may be."""
    values = {
        "text": "x", "boolean": True, "smallint": -(2**15), "integer": 2**31 - 1, "bigint": -(2**63),
        "price": Decimal("-999999999.999999999"),
    }  # fmt: skip
    columns = {}
    for f in schema.fields:
        first = 1_700_000_000_123_456_789 if f.type == "timestamp" else values[f.type]
        series = pl.Series(f.name, [first, None if f.null else first][:rows], strict=False)
        columns[f.name] = series.cast(pl.Int64).cast(f.dtype) if f.type == "timestamp" else series.cast(f.dtype)
    place = {"_unit": pl.Series([7] * rows, dtype=pl.Int32), "_row": pl.Series(range(rows), dtype=pl.Int32)}
    return pl.DataFrame(columns | place)


@pytest.mark.parametrize("name", KINDS)
def test_what_is_stored_comes_back_to_the_nanosecond(schemas, name):
    schema = kind(schemas, name)
    public = sample(schema)
    stored = schema.to_stored(public)
    assert dict(stored.schema) == schema.stored
    assert stored[f"{schema.index_time}_ns"].to_list() == [789, 789]
    assert stored[schema.index_time].to_list()[0] == datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=UTC)
    assert stored.select(schema.to_public()).equals(public.drop("_unit", "_row"), null_equal=True)


def test_the_ends_of_time_survive_storage(schemas):
    schema = kind(schemas, "trades")
    ends = pl.Series([0, 1, 999, 1000, 2**63 - 1], dtype=pl.Int64)
    public = (
        sample(schema, 1)
        .select(pl.all().repeat_by(5).explode())
        .with_columns(ts_recv=ends.cast(schema.dtypes["ts_recv"]))
    )
    back = schema.to_stored(public).select(schema.to_public())
    assert back["ts_recv"].to_physical().to_list() == ends.to_list()


@pytest.mark.parametrize("name", KINDS)
def test_the_contract_takes_a_frame_as_declared(schemas, name):
    schema = kind(schemas, name)
    schema.contract().validate(sample(schema))
    schema.contract().validate(sample(schema).head(0))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda f: f.with_columns(price=pl.lit(None, pl.Decimal(18, 9))),
        lambda f: f.with_columns(pl.col("price").cast(pl.Float64)),
        lambda f: f.with_columns(pl.col("ts_recv").dt.replace_time_zone(None)),
        lambda f: f.with_columns(extra=1),
        lambda f: f.drop("size"),
        lambda f: f.select(sorted(f.columns)),
    ],
    ids=["null", "float", "naive", "extra", "missing", "order"],
)
def test_the_contract_refuses_anything_else(schemas, spoil):
    schema = kind(schemas, "trades")
    with pytest.raises(pandera.errors.SchemaError):
        schema.contract().validate(spoil(sample(schema)))


def test_a_new_kind_takes_one_file(write):
    found = load_schemas(extra=[write(OWN)])
    schema, name = found.find("halts")
    assert (schema.kind, name.grid, len(list(found))) == ("notice", "month", len(KINDS) + 1)
    assert [f.name for f in schema.fields] == [*COMMON, "ts_recv", "reason", "data_source"]
    assert schema.table == "notice_data"
    assert all(f.type in SQL for f in schema.fields)


# What is refused


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("kind: notice\n", "", "1:1", "the key 'kind' is missing"),
        ("title: Notices", "titel: Notices", "2:1: titel", "Did you mean title"),
        ("type: timestamp", "type: float", "10:13: fields.ts_recv.type", "unknown type 'float'; one of text"),
        ("type: timestamp", "type: [price]", "10:13: fields.ts_recv.type", "unknown type"),
        ("null: true", "null: maybe", "11:27: fields.reason.null", "must be true or false"),
        ("null: true", "nul: true", "11:27: fields.reason.nul", "unknown key 'nul'"),
        ("  reason:", "  Reason:", "11:3: fields.Reason", "lower-case"),
        ("  reason:", "  reason_ns:", "11:3: fields.reason_ns", "not *_ns"),
        ("  reason:", "  symbol:", "11:3: fields.symbol", "common column already"),
        ("index_time: ts_recv", "index_time: reason", "5:1: index_time", "timestamp column that is never null"),
        ("grid: month", "grid: week", "7:12: names.notice.grid", "one of day, month, year"),
        ("grid: month", "grid: month, width: 5x", "7:25: names.notice.width", "a number and one of s, m, h, d"),
        ("grid: month", "grid: month, settled: 0d", "7:25: names.notice.settled", "a number and one of s, m, h, d"),
        ("grid: month", "grid: month, expected: week", "7:25: names.notice.expected", "one of hour, day, close, never"),
        ("fields:", "volume: ts_recv\nfields:", "9:1: volume", "a column of whole numbers"),
        ("grid: month", "grid: month, set: {colour: red}", "7:31: names.notice.set.colour", "unknown column 'colour'"),
        ("grid: month", "grid: month, set: red", "7:25: names.notice.set", "must be a mapping"),
        ("grid: month", "grid: month, made_from: [a]", "7:25: names.notice.made_from", "unknown schema name"),
        ("halts: notice", "halts: noticees", "8:11: aliases.halts", "Did you mean notice"),
        ("symbol, reason", "symbol, raeson", "12:28: display.2", "Did you mean reason"),
        ("[ts_recv, symbol, reason]", "ts_recv", "12:1: display", "must be a list"),
        ("severity: ERROR", "severity: FATAL", "14:41: rules.NEGATIVE_REASON.severity", "one of ERROR, WARNING, INFO"),
        ("severity: ERROR", "severity: ERROR, type: X", "14:58: rules.NEGATIVE_REASON.type", "one of BusinessLogic"),
        (", severity: ERROR", "", "14:3: rules.NEGATIVE_REASON", "'severity' is missing"),
        ("{grid: month}", "[month]", "7:3: names.notice", "must be a mapping with grid"),
        ("names:\n  notice: {grid: month}", "names: notice", "6:1: names", "must be a mapping"),
        ("fields:", "rules: {}\nfields:", "14:1: rules", "the key is given twice"),
        ("kind: notice", "kind: {", "", "not valid YAML"),
        ("kind: notice", "[kind]: notice", "1:1", "a key must be plain text"),
    ],
)
def test_a_wrong_declaration_is_refused_with_file_position_and_key(write, old, new, place, words):
    assert OWN.count(old) >= 1
    path = write(OWN.replace(old, new, 1))
    message = refused(lambda: load_schemas(extra=[path]))
    assert message.startswith(f"{path}:{place}")
    assert words in message


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("kind: notice", "kind: trades", "trades is declared already"),
        ("table: notice_data", "table: trades_data", "trades_data is declared already"),
        ("  notice: {grid", "  tbbo: {grid", "the schema name tbbo is taken"),
    ],
)
def test_two_declarations_of_one_thing_are_refused(write, old, new, words):
    path = write(OWN.replace(old, new).replace("halts: notice", "halts: tbbo" if "tbbo" in new else "halts: notice"))
    message = refused(lambda: load_schemas(extra=[path]))
    assert message.startswith(str(path))
    assert words in message


# The user's rules


def named(schemas, name, rule):
    return [r for r in kind(schemas, name).rules if r.name == rule]


def test_a_user_file_changes_a_severity_and_nothing_else(write):
    before = load_schemas()
    after = load_schemas(rules=[write("ohlcv: {NON_POSITIVE_PRICE: {severity: ERROR}}")])
    (old,), (new,) = named(before, "ohlcv", "NON_POSITIVE_PRICE"), named(after, "ohlcv", "NON_POSITIVE_PRICE")
    assert new == replace(old, severity="ERROR")
    assert [r.name for r in kind(after, "ohlcv").rules] == [r.name for r in kind(before, "ohlcv").rules]
    assert kind(after, "trades") == kind(before, "trades")


def test_a_scoped_rule_stands_over_the_packaged_one(write):
    path = write("trades: {NON_POSITIVE_PRICE: {severity: ERROR, datasets: [XNAS.ITCH], symbols: ['CL*']}}")
    wide, narrow = named(load_schemas(rules=[path]), "trades", "NON_POSITIVE_PRICE")
    assert (wide.severity, wide.datasets, wide.symbols) == ("WARNING", (), ())
    assert (narrow.severity, narrow.datasets, narrow.symbols) == ("ERROR", ("XNAS.ITCH",), ("CL*",))
    assert narrow.check == wide.check


def test_a_user_file_adds_and_replaces_rules_and_the_later_file_wins(write):
    first = write("trades: {BIG: {check: size < 10, severity: INFO, message: Big.}}", "a.yaml")
    second = write("trades: {BIG: {check: size < 20, severity: WARNING, message: Bigger.}}", "b.yaml")
    (rule,) = named(load_schemas(rules=[first, second]), "trades", "BIG")
    assert (rule.check, rule.severity, rule.message) == ("size < 20", "WARNING", "Bigger.")
    assert rule.where == f"{second}:1:16: trades.BIG.check"


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("trade: {}", "1:1: trade", "Did you mean trades"),
        ("trades: [X]", "1:1: trades", "must map rule names to rules"),
        ("trades: {NEW: {severity: ERROR}}", "1:10: trades.NEW", "the key 'check' is missing"),
        ("trades: {INVALID_SIDE: {severity: BAD}}", "1:25: trades.INVALID_SIDE.severity", "one of ERROR"),
        ("trades: {INVALID_SIDE: {sevrity: INFO}}", "1:25: trades.INVALID_SIDE.sevrity", "Did you mean severity"),
        ("trades: {INVALID_SIDE: INFO}", "1:10: trades.INVALID_SIDE", "must be a mapping with severity"),
        (
            "trades: {INVALID_SIDE: {severity: INFO, symbols: ES}}",
            "1:41: trades.INVALID_SIDE.symbols",
            "must be a list",
        ),
        ("- trades", "1:1", "must map kinds of data to rules"),
        ("trades: {A: {check: x, severity: INFO}, A: {}}", "1:41: trades.A", "given twice"),
    ],
)
def test_a_wrong_rule_file_is_refused_with_file_position_and_key(write, text, place, words):
    path = write(text)
    message = refused(lambda: load_schemas(rules=[path]))
    assert message.startswith(f"{path}:{place}")
    assert words in message


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    assert str(tmp_path / "none.yaml") in refused(lambda: load_schemas(rules=[tmp_path / "none.yaml"]))


def test_the_shipped_example_of_rules_is_valid_as_it_is_and_without_its_marks(write):
    shipped = Path(__file__).parents[2] / "configs" / "rules" / "example.yaml"
    assert [s.rules for s in load_schemas(rules=[shipped])] == [s.rules for s in load_schemas()]
    text = shipped.read_text(encoding="utf-8")
    start = text.index("# ohlcv:")
    changed = load_schemas(rules=[write(re.sub(r"(?m)^# ?", "", text[start:]))])
    assert named(changed, "trades", "NOT_A_WHOLE_TICK")[0].symbols == ("ES??",)

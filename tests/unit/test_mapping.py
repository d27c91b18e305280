"""Mappings: how the vendor's columns become ours, and how a wrong mapping is refused."""

from datetime import UTC, datetime
from decimal import Decimal

import polars as pl
import pytest
from structlog.testing import capture_logs

from hdi.errors import ConfigError
from hdi.refine import load_mapping
from hdi.schema_files import load_schemas
from hdi.sources.records import columns
from refining import MAPPING, raw, refinery


@pytest.fixture
def write(tmp_path):
    def write(text, name="given.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


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
        load_mapping("databento", [path], kinds=[s.kind for s in load_schemas()])
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

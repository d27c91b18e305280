"""Rows that cannot be stored as they are: each is kept with its rule and its exact record, none is lost."""

import json
from decimal import Decimal

import databento_dbn as dbn
import numpy as np
import polars as pl
import pytest

from dbnfiles import PX, fragment, ns, records, write
from files import oracle
from hdi.sources.records import layout

UNDEF_PRICE, UNDEF_TIME = 2**63 - 1, 2**64 - 1
SCHEMAS = [
    "trades", "tbbo", "statistics", "definition", "ohlcv-1d", "mbo", "mbp-10", "bbo-1s", "cmbp-1", "status",
    "imbalance",
]  # fmt: skip
DAY = ns("2024-01-02")


def rejected(lab):
    """row in the file -> rules"""
    frame = lab.store.quarantine().sort("row")
    return dict(zip(frame["row"], frame["rules"].to_list(), strict=True))


def record(lab, row):
    return json.loads(lab.store.quarantine().filter(pl.col("row") == row)["record"].item())


@pytest.mark.parametrize(
    ("schema", "column", "value", "rule"),
    [
        ("trades", "price", 10**18, "price_out_of_range"),
        ("trades", "price", -(10**18), "price_out_of_range"),
        ("trades", "price", 2**63 - 2, "price_out_of_range"),
        ("trades", "price", -(2**63), "price_out_of_range"),
        ("trades", "price", UNDEF_PRICE, "MISSING_PRICE"),
        ("trades", "size", 2**32 - 1, "MISSING_SIZE"),
        ("trades", "size", 0, "NON_POSITIVE_SIZE"),
        ("trades", "side", b"X", "INVALID_SIDE"),
        ("trades", "side", b"", "MISSING_SIDE"),
        ("trades", "side", b"\xe9", "INVALID_SIDE"),
        ("trades", "action", b"?", "INVALID_ACTION"),
        ("trades", "ts_recv", UNDEF_TIME, "NO_INDEX_TIME"),
        ("trades", "ts_recv", 2**63, "TIMESTAMP_OUT_OF_RANGE"),
        ("trades", "ts_recv", 2**64 - 2, "TIMESTAMP_OUT_OF_RANGE"),
        ("trades", "ts_event", 2**63 + 5, "TIMESTAMP_OUT_OF_RANGE"),
        ("trades", "ts_recv", DAY - 1, "OUTSIDE_WINDOW"),
        ("trades", "ts_recv", DAY + 86_400 * 10**9, "OUTSIDE_WINDOW"),
        ("trades", "ts_recv", 0, "OUTSIDE_WINDOW"),
        ("tbbo", "bid_px_00", 10**18, "price_out_of_range"),
        ("ohlcv-1d", "volume", 2**63, "VALUE_OUT_OF_RANGE"),
        ("ohlcv-1d", "volume", 2**64 - 1, "VALUE_OUT_OF_RANGE"),
        ("ohlcv-1d", "open", UNDEF_PRICE, "MISSING_OPEN_PRICE"),
        ("ohlcv-1d", "ts_event", UNDEF_TIME, "NO_INDEX_TIME"),
        ("ohlcv-1d", "ts_event", 2**63, "TIMESTAMP_OUT_OF_RANGE"),
        ("mbo", "order_id", 2**63, "VALUE_OUT_OF_RANGE"),
        ("mbo", "action", b"X", "INVALID_ACTION"),
        ("mbp-10", "ask_px_09", 10**18, "price_out_of_range"),
        ("bbo-1m", "side", b"X", "INVALID_SIDE"),
        ("tcbbo", "price", UNDEF_PRICE, "MISSING_PRICE"),
        ("imbalance", "auction_time", 2**63, "TIMESTAMP_OUT_OF_RANGE"),
        ("statistics", "price", 10**18, "price_out_of_range"),
        ("statistics", "update_action", 7, "INVALID_UPDATE_ACTION"),
        ("statistics", "ts_ref", 2**63, "TIMESTAMP_OUT_OF_RANGE"),
        ("definition", "strike_price", -(10**18), "price_out_of_range"),
        ("definition", "raw_instrument_id", 2**63, "VALUE_OUT_OF_RANGE"),
        ("definition", "expiration", 2**64 - 2, "TIMESTAMP_OUT_OF_RANGE"),
        ("definition", "raw_symbol", b"", "EMPTY_RAW_SYMBOL"),
        ("definition", "raw_symbol", b"\0ES", "EMPTY_RAW_SYMBOL"),
    ],
)
def test_a_value_that_cannot_be_kept_is_quarantined_by_its_rule(lab, tmp_path, schema, column, value, rule):
    rows = records(schema, 5, ts_event=DAY + np.arange(5), ts_recv=DAY + np.arange(5))
    rows[column][2] = value
    (outcome,) = lab.good(write(tmp_path / "f.dbn.zst", schema, rows))
    assert list(rejected(lab)) == [2]
    assert rule in rejected(lab)[2]
    assert [(r.fetched, r.stored, r.quarantined) for r in outcome.receipts] == [(5, 4, 1)]
    assert lab.rows(schema).height == 4
    # The record is the vendor's row: its own columns, each value exact.
    found, meaning = record(lab, 2), _meanings(schema)
    assert found.keys() == _vendor_columns(schema)
    for name in found.keys() & set(rows.dtype.names):
        assert found[name] == _shown(rows[name][2], rows.dtype[name], meaning.get(name)), name


def _meanings(schema):
    times = dict.fromkeys(("ts_event", "ts_recv"), "time")
    return oracle.KINDS[oracle.kind(schema)] | times


def _vendor_columns(schema):
    names = {n for v in (1, 2, 3) for n in layout(schema, v).names}
    return {n for n in names if not n.startswith(("_", "reserved")) and n not in ("length", "rtype")}


def _shown(raw, dtype, meaning):
    """A value in a record's JSON: prices and times as text, what is undefined as null."""
    value = oracle.value(raw, dtype, meaning)
    if isinstance(value, Decimal):
        return f"{value:.9f}"
    if meaning == "time" and value is not None:
        seconds, rest = divmod(value, 10**9)
        return f"{np.datetime64(seconds, 's')}.{rest:09d}Z"
    return value


@pytest.mark.parametrize("price", [10**18 - 1, -(10**18) + 1, 1, -1, 0, -40_320_000_000])
def test_prices_of_eighteen_digits_are_exact(lab, tmp_path, price):
    lab.good(fragment(tmp_path / "f.dbn.zst", "trades", records("trades", 1, price=price)))
    assert lab.rows("trades")["price"].to_list() == [Decimal(price).scaleb(-9)]
    assert rejected(lab) == {}


def test_times_are_exact_to_the_last_nanosecond_that_there_is(lab, tmp_path):
    at = [0, 1, 999, 1_000, 1_000_000_001, DAY + 123_456_789, 2**63 - 2]
    lab.good(fragment(tmp_path / "f.dbn.zst", "trades", records("trades", len(at), ts_event=at, ts_recv=at)))
    assert lab.rows("trades")["ts_event"].to_physical().to_list() == at
    assert lab.rows("trades")["ts_recv"].to_physical().to_list() == at


def test_an_event_time_that_is_not_given_is_null(lab, tmp_path):
    rows = records("trades", 2)
    rows["ts_event"][0] = UNDEF_TIME
    lab.good(write(tmp_path / "f.dbn.zst", "trades", rows))
    assert lab.rows("trades")["ts_event"].is_null().to_list() == [True, False]


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("schema", SCHEMAS)
def test_what_the_vendors_own_constructor_leaves_undefined_is_null(lab, tmp_path, schema, version):
    """The vendor fills what nobody gives with its nulls: the maximum of the type, wherever that is one."""
    rows = records(schema, 1, version)
    undefined = []
    for name in rows.dtype.names:
        kind = rows.dtype[name].kind
        if kind not in "iu" or name in ("length", "rtype", "publisher_id", "instrument_id", "ts_recv"):
            continue
        default = _default(schema).get(name)
        if default is not None and default == np.iinfo(_default_type(schema, name)).max:
            rows[name] = np.iinfo(rows.dtype[name]).max
            undefined.append(name)
    lab.good(fragment(tmp_path / "f.dbn", schema, rows, version=version), min_rejects=10**9)
    frame = lab.rows(schema)
    if frame.height:
        renamed = [{"open": "open_price"}.get(n, n) for n in undefined]
        assert [n for n in renamed if n in frame.columns and frame[n].null_count() == 0] == []
    else:  # a required value was undefined
        assert all(r.startswith("MISSING_") for r in rejected(lab)[0])
    if schema == "definition":
        assert len(undefined) > 20


def _default_type(schema, name):
    return layout(schema, 3)[name]


def _default(schema):
    if schema == "definition":
        message = dbn.InstrumentDefMsg(
            1, 1, 0, 0, 1, 1, raw_symbol="A", asset="A", security_type="FUT", group="", exchange="", cfi="",
            currency="",
            unit_of_measure="", underlying="", settl_currency="", strike_price_currency="",
            instrument_class=dbn.InstrumentClass.FUTURE, security_update_action=dbn.SecurityUpdateAction.ADD,
        )  # fmt: skip
        values = np.frombuffer(bytes(message), layout(schema, 3))[0]
        return {n: int(values[n]) for n in values.dtype.names if values.dtype[n].kind in "iu"}
    if schema == "statistics":
        return {"price": UNDEF_PRICE, "quantity": dbn.UNDEF_STAT_QUANTITY, "ts_ref": UNDEF_TIME}
    if schema == "tbbo":
        return {"bid_px_00": UNDEF_PRICE, "ask_px_00": UNDEF_PRICE}
    made = _constructed(schema)
    if made is None:
        return {}
    values = np.frombuffer(bytes(made), layout(schema, 3))[0]
    return {n: int(values[n]) for n in values.dtype.names if values.dtype[n].kind in "iu"}


def _constructed(schema):
    """A record of which all that may be undefined is."""
    event = {"price": UNDEF_PRICE, "size": dbn.UNDEF_ORDER_SIZE, "side": dbn.Side.NONE, "ts_recv": 1}
    where, add = {"publisher_id": 1, "instrument_id": 1, "ts_event": UNDEF_TIME}, {"action": dbn.Action.ADD}
    if schema == "mbo":
        return dbn.MBOMsg(**where, **event, **add, order_id=0)
    if schema == "mbp-10":
        return dbn.MBP10Msg(**where, **event, **add, depth=0)
    if schema == "bbo-1s":
        return dbn.BBOMsg(dbn.RType.BBO_1S, **where, **event)
    if schema == "cmbp-1":
        return dbn.CMBP1Msg(dbn.RType.CMBP_1, **where, **event, **add)
    if schema == "imbalance":
        prices = dict.fromkeys(("ref_price", "cont_book_clr_price", "auct_interest_clr_price"), UNDEF_PRICE)
        amounts = dict.fromkeys(("paired_qty", "total_imbalance_qty"), dbn.UNDEF_ORDER_SIZE)
        texts = {"auction_type": "O", "side": dbn.Side.NONE, "significant_imbalance": "~"}
        return dbn.ImbalanceMsg(**where, ts_recv=1, auction_time=UNDEF_TIME, **prices, **amounts, **texts)
    return None


@pytest.mark.parametrize("version", [1, 2])
def test_the_undefined_quantity_of_older_versions_is_null_and_their_largest_value_is_not(lab, tmp_path, version):
    rows = records("statistics", 3, version, quantity=[2**31 - 1, 2**31 - 2, -(2**31)])
    lab.good(fragment(tmp_path / "f.dbn", "statistics", rows, version=version))
    assert lab.rows("statistics")["quantity"].to_list() == [None, 2**31 - 2, -(2**31)]


def test_version_three_holds_quantities_that_were_the_older_null(lab, tmp_path):
    rows = records("statistics", 2, quantity=[2**31 - 1, 2**63 - 1])
    lab.good(fragment(tmp_path / "f.dbn", "statistics", rows))
    assert lab.rows("statistics")["quantity"].to_list() == [2**31 - 1, None]


def test_zero_prices_and_empty_sides_of_a_book_are_values(lab, tmp_path):
    rows = records("tbbo", 2, bid_px_00=[0, UNDEF_PRICE], ask_px_00=[-PX, 0], bid_sz_00=[0, 2**32 - 1])
    lab.good(fragment(tmp_path / "f.dbn", "tbbo", rows))
    frame = lab.rows("tbbo")
    assert frame["bid_px_00"].to_list() == [Decimal(0), None]
    assert frame["bid_sz_00"].to_list() == [0, None]
    assert frame["is_crossed"].to_list() == [True, False]


def test_text_ends_at_its_first_nul_and_keeps_every_byte(lab, tmp_path):
    texts = [b"ESH4", b"ES\0junk", b"caf\xc3\xa9", b"caf\xe9", b"\xff\xfe", b" padded ", b'a\tb"c\\d\n\x01', b"x" * 71]
    rows = records("definition", len(texts), raw_symbol=texts, asset=b"")
    lab.good(fragment(tmp_path / "f.dbn", "definition", rows))
    assert lab.rows("definition")["raw_symbol"].to_list() == [
        "ESH4", "ES", "café", "café", "ÿþ", " padded ", 'a\tb"c\\d\n\x01', "x" * 71,
    ]  # fmt: skip
    assert set(lab.rows("definition")["asset"]) == {""}


def test_strange_text_in_a_rejected_row_is_valid_json(lab, tmp_path):
    texts = [b'a"b\\c\n\x01\x7f', b"\xff\xfe", b"caf\xc3\xa9"]
    rows = records("definition", 3, raw_symbol=b"", asset=[t[:11] for t in texts], group=texts)
    lab.good(fragment(tmp_path / "f.dbn", "definition", rows))
    assert [record(lab, k)["group"] for k in range(3)] == ['a"b\\c\n\x01\x7f', "ÿþ", "café"]
    assert [e["record"]["asset"] for e in lab.entries()] == ['a"b\\c\n\x01\x7f', "ÿþ", "café"]


def test_letters_that_the_vendor_does_not_have_yet_are_kept_and_counted(lab, tmp_path):
    rows = records("definition", 2, instrument_class=[b"Z", b"\xfc"], match_algorithm=[b"", b"9"])
    (outcome,) = lab.good(fragment(tmp_path / "f.dbn", "definition", rows))
    assert lab.rows("definition")["instrument_class"].to_list() == ["Z", "ü"]
    assert lab.rows("definition")["match_algorithm"].to_list() == [None, "9"]
    assert outcome.receipts[0].rules["UNKNOWN_INSTRUMENT_CLASS"] == 2


def test_statistics_that_the_vendor_does_not_have_yet_keep_their_code(lab, tmp_path):
    (outcome,) = lab.good(fragment(tmp_path / "f.dbn", "statistics", records("statistics", 2, stat_type=[3, 40_000])))
    assert lab.rows("statistics").select("stat_type", "stat_name").rows() == [(3, "settlement_price"), (40_000, None)]
    assert outcome.receipts[0].rules == {"UNKNOWN_STAT_TYPE": 1}


def test_the_largest_values_of_every_integer_are_kept(lab, tmp_path):
    rows = records("trades", 1, flags=255, depth=255, sequence=2**32 - 1, ts_in_delta=-(2**31), size=2**32 - 2,
                   publisher_id=2**16 - 1, instrument_id=2**32 - 1)  # fmt: skip
    lab.good(fragment(tmp_path / "f.dbn", "trades", rows))
    (row,) = lab.rows("trades").to_dicts()
    names = ("flags", "depth", "sequence", "ts_in_delta", "size", "publisher_id", "instrument_id")
    assert {n: row[n] for n in names} == {
        "flags": 255, "depth": 255, "sequence": 2**32 - 1, "ts_in_delta": -(2**31), "size": 2**32 - 2,
        "publisher_id": 2**16 - 1, "instrument_id": 2**32 - 1,
    }  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_row_of_noise_is_stored_or_quarantined(lab, tmp_path, schema):
    rng = np.random.default_rng(11)
    rows = records(schema, 400)
    clean = rows.copy()
    names = [n for n in rows.dtype.names if n not in ("length", "rtype")]
    for k in range(400):
        for name in rng.choice(names, rng.integers(1, 4), replace=False):
            size = rows.dtype[name].itemsize
            rows[name][k : k + 1] = np.frombuffer(rng.bytes(size), rows.dtype[name])
    path = write(tmp_path / "f.dbn.zst", schema, rows, symbols=("A", "B"),
                 mappings={"A": [("2024-01-01", "2024-02-01", 1)]})  # fmt: skip
    (outcome,) = lab.good(path, max_reject_percent=100, batch_size=64)
    assert sum(r.fetched for r in outcome.receipts) == 400
    for receipt in outcome.receipts:
        rejects = lab.store.quarantine().filter(pl.col("unit") == receipt.number)
        assert (receipt.stored + receipt.quarantined, rejects.height) == (receipt.fetched, receipt.quarantined)
    assert lab.rows(schema).height + lab.store.quarantine().height == 400
    assert lab.store.quarantine()["row"].is_unique().all()
    assert len(lab.entries()) == lab.store.quarantine().height > 0
    assert lab.rows(schema).height > 0
    for row, text in lab.store.quarantine().select("row", "record").iter_rows():
        found = json.loads(text)
        for name in ("sequence", "volume", "stat_type", "raw_instrument_id", "instrument_id", "flags"):
            if name in rows.dtype.names:
                assert found[name] == int(rows[name][row]) or name == "raw_instrument_id"
    assert (clean["length"] == rows["length"]).all()


def test_rows_are_counted_per_unit_and_rule(lab, tmp_path):
    rows = records("trades", 6, instrument_id=[1, 2, 1, 2, 1, 2], size=[0, 0, 0, 1, 1, 1],
                   price=[PX, PX, PX, 0, -PX, PX], side=[b"X", b"A", b"B", b"A", b"B", b"N"])  # fmt: skip
    days = {"A": [("2024-01-02", "2024-01-03", 1)], "B": [("2024-01-02", "2024-01-03", 2)]}
    (outcome,) = lab.good(
        write(tmp_path / "f.dbn.zst", "trades", rows, symbols=("A", "B"), mappings=days), batch_size=2
    )
    assert {r.unit.symbol: dict(r.rules) for r in outcome.receipts} == {
        "A": {"INVALID_SIDE": 1, "NON_POSITIVE_SIZE": 2, "NON_POSITIVE_PRICE": 1},
        "B": {"NON_POSITIVE_SIZE": 1, "NON_POSITIVE_PRICE": 1},
    }
    assert rejected(lab) == {
        0: ["INVALID_SIDE", "NON_POSITIVE_SIZE"],
        1: ["NON_POSITIVE_SIZE"],
        2: ["NON_POSITIVE_SIZE"],
    }

"""``hdi why``: each stored number is followed back to the vendor's record, or it is said why there is none."""

import hashlib
import json
import struct
import time
from decimal import Decimal
from pathlib import Path

import pytest
from backports import zstd

from api.desk import Ask, Desk, served, trusting
from hdi.cli.app import run
from hdi.errors import RequestError, UnknownSymbol

MARKET = {"until": "2024-07-01", "scale": 0.01, "limits": 0.0}
DAILY = Ask("ES.c.0", "2024-03-13", "2024-03-20")
MINUTES = Ask("ES.c.0", "2024-03-14", "2024-03-14", "ohlcv-1m")
HOUR = 3_600 * 10**9
TRADES = Ask("ES.c.0", "2024-03-14", "2024-03-14", "trades")


@pytest.fixture(scope="module")
def vendor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trust")
    with served(folder, **MARKET) as made:
        made.variables = trusting(made, folder)
        yield made


@pytest.fixture(scope="module")
def shared(vendor, tmp_path_factory):
    """A desk with daily bars, minutes and trades; nothing is written to it any more."""
    with pytest.MonkeyPatch.context() as env:
        for name, value in vendor.variables.items():
            env.setenv(name, value)
        desk = Desk(tmp_path_factory.mktemp("why") / "desk", vendor)
        for ask in (DAILY, MINUTES, TRADES):
            desk.stored(ask)
    return desk


@pytest.fixture(autouse=True)
def trusted(vendor, monkeypatch):
    for name, value in vendor.variables.items():
        monkeypatch.setenv(name, value)


def why(desk, *asked, **options):
    with desk.open() as data:
        return data.why(*asked, **options).to_dict()


def plain(path):
    with zstd.open(path) as file:
        return file.read()


def test_a_row_is_followed_to_its_record_its_order_and_its_cost(shared):
    [told] = why(shared, "ES.c.0", "2024-03-15")["rows"]
    raw, order = told["raw"], told["order"]
    data = plain(raw["file"])
    record = data[raw["offset"] : raw["offset"] + raw["record_bytes"]]
    # The vendor's layout of a bar: header of 16 bytes, four prices, a volume.
    length, _, publisher, instrument, ts, *prices, volume = struct.unpack("<BBHIQqqqqQ", record)
    assert (length * 4, publisher, instrument) == (len(record), 1, int(told["row"]["instrument_id"]))
    assert ts == 1_710_460_800 * 10**9
    columns = ("open_price", "high_price", "low_price", "close_price")
    assert [Decimal(p).scaleb(-9) for p in prices] == [Decimal(told["row"][c]) for c in columns]
    assert volume == int(told["row"]["volume"])
    assert (raw["kept"], raw["digest_equal"], raw["row_equal"], raw["differs"]) == (True, True, True, {})
    assert raw["sha256"] == hashlib.sha256(Path(raw["file"]).read_bytes()).hexdigest()
    slip = next(s for s in shared.slips() if s["raw"][0] == raw["sha256"])
    assert (order["records"], order["dollars"]) == (slip["records"], slip["dollars"])
    share = Decimal(slip["dollars"]) / slip["records"]
    assert abs(Decimal(told["cost"]["row_dollars"]) - share) <= Decimal("1e-12")
    assert all(rule["holds"] for rule in told["rules"])
    assert {"HIGH_LESS_THAN_LOW", "MISSING_VOLUME"} <= {rule["rule"] for rule in told["rules"]}
    assert (told["roll"]["symbol"], told["symbol"]["symbol"]) == ("ES.c.0", "ESH4")
    assert told["run"]["request"]["symbols"] == ["ES.c.0"]
    assert told["conditions"][0]["condition"] == "available"
    assert (told["made_of"], told["revisions"]) == (None, [])
    assert told["mapping"]["open_price"]["from"]


def test_the_contract_after_the_roll_is_another_one_by_a_mapping_that_is_named(shared):
    before, after = (why(shared, "ES.c.0", day)["rows"][0] for day in ("2024-03-15", "2024-03-18"))
    assert (before["symbol"]["symbol"], after["symbol"]["symbol"]) == ("ESH4", "ESM4")
    assert before["roll"]["end"] <= after["roll"]["start"]
    assert why(shared, after["row"]["instrument_id"], "2024-03-18")["rows"][0]["row"] == after["row"]
    assert why(shared, "ESM4", "2024-03-18")["rows"][0]["roll"] is None


def test_a_contract_that_a_roll_rule_names_is_explained_by_that_rule(vendor, tmp_path):
    desk = Desk(tmp_path / "desk", vendor)
    for ask in (Ask("ES.FUT", "2024-03-13", "2024-03-18"), Ask("ES.FUT", "2024-03-13", "2024-03-13", "definition")):
        desk.stored(ask)
    with desk.open() as data:
        [row] = data.query("ES.c.0", "2024-03-15", "2024-03-15", roll="calendar").polars().rows(named=True)
    [told] = why(desk, "ES.c.0", "2024-03-15", roll="calendar")["rows"]
    assert told["row"]["symbol"] == row["symbol"]
    assert (told["roll"]["roll_rule"], told["roll"]["instrument_id"]) == ("calendar", row["instrument_id"])
    closed = why(desk, "ES.c.0", "2024-03-16", roll="calendar")
    assert (closed["rows"], bool(closed["reasons"])) == ([], True)
    with pytest.raises(RequestError, match="the letter 'c' says another rule"):
        why(desk, "ES.c.0", "2024-03-15", roll="volume")


def test_one_trade_is_named_by_its_time_and_many_are_refused(shared):
    [first, *_] = shared.rows("trades", "ES.c.0")
    at = f"{time.strftime('%H:%M:%S', time.gmtime(first['ts_recv'] // 10**9))}.{first['ts_recv'] % 10**9:09}"
    with pytest.raises(RequestError, match="Say which"):
        why(shared, "ES.c.0", "2024-03-14", schema="trades")
    found = why(shared, "ES.c.0", "2024-03-14", schema="trades", at=at)["rows"]
    assert found[0]["raw"]["row_equal"]
    assert Decimal(found[0]["row"]["price"]) == first["price"]
    assert why(shared, "ES.c.0", f"2024-03-14T{at}Z", schema="trades")["rows"] == found
    # A bar is that of the interval which holds the time.
    [minute] = why(shared, "ES.c.0", "2024-03-14", schema="ohlcv-1m", at=at)["rows"]
    assert minute["row"]["ts_event"][11:16] == at[:5]
    for wrong in ("25:00", "noon", "2024-03-15T10:00:00Z"):
        with pytest.raises(RequestError):
            why(shared, "ES.c.0", "2024-03-14", schema="trades", at=wrong)


def test_without_a_row_it_is_said_why(shared):
    closed = why(shared, "ES.c.0", "2024-03-16")  # a Saturday
    assert closed["rows"] == []
    assert closed["reasons"] or closed["gaps"]
    never = why(shared, "ES.c.0", "2024-05-15")
    assert any("never ingested" in line for line in never["reasons"])
    between = why(shared, "ES.c.0", "2024-03-14", schema="trades", at="12:00:00.000000001")
    assert any("the last row before" in line for line in between["reasons"])
    assert any("the first row after" in line for line in between["reasons"])
    with pytest.raises(UnknownSymbol):
        why(shared, "ZZZ9", "2024-03-14")


def test_a_bar_that_is_made_tells_its_source_rows(shared):
    [five] = why(shared, "ES.c.0", "2024-03-14", schema="ohlcv-5m", at="14:00")["rows"]
    source = shared.rows("ohlcv-1m", "ES.c.0", "2024-03-14T14:00:00Z", "2024-03-14T14:05:00Z")
    assert (five["made_of"]["schema"], five["made_of"]["rows"]) == ("ohlcv-1m", len(source))
    assert "raw" not in five


def test_a_derived_bar_tells_its_source_rows_and_a_file_that_is_gone_is_said_to_be(vendor, tmp_path):
    desk = Desk(tmp_path / "desk", vendor)
    desk.stored(MINUTES)
    desk.stored(Ask("ES.c.0", "2024-03-14", "2024-03-14", "ohlcv-1h"), derive=True)
    bar = max(desk.rows("ohlcv-1h", "ES.c.0"), key=lambda row: row["volume"])
    start, end = (f"2024-03-14T{bar['ts_event'] // HOUR % 24 + k:02}:00:00Z" for k in (0, 1))
    [hour] = why(desk, "ES.c.0", start, schema="ohlcv-1h")["rows"]
    minutes = desk.rows("ohlcv-1m", "ES.c.0", start, end)
    assert hour["row"]["data_source"].startswith("derived:ohlcv-1m")
    assert (hour["made_of"]["rows"], int(hour["row"]["volume"])) == (len(minutes), sum(m["volume"] for m in minutes))
    assert hour["raw"] is None
    for file in desk.bytes_kept().values():
        file.unlink()
    at = time.strftime("%H:%M", time.gmtime(minutes[0]["ts_event"] // 10**9))
    [minute] = why(desk, "ES.c.0", "2024-03-14", schema="ohlcv-1m", at=at)["rows"]
    assert (minute["raw"]["kept"], minute["raw"]["row_equal"]) == (False, None)
    assert "not kept" in minute["raw"]["note"]


def test_a_restated_row_tells_what_it_was_and_as_of_then_it_still_is(vendor, tmp_path):
    desk = Desk(tmp_path / "desk", vendor)
    week = Ask("ES.c.0", "2024-04-08", "2024-04-12")
    desk.stored(week)
    before = time.time_ns()
    [old] = why(desk, "ES.c.0", "2024-04-10")["rows"]
    vendor.fault("restated:day=2024-04-10,rows=9")
    try:
        desk.ingest(week, refetch=True)
    finally:
        vendor.clear()
    [new] = why(desk, "ES.c.0", "2024-04-10")["rows"]
    assert new["row"] != old["row"]
    [revision] = new["revisions"]
    for change in revision["changes"]:
        values = (old["row"][change["column"]], new["row"][change["column"]])
        assert [Decimal(v) for v in values] == [Decimal(change["before"]), Decimal(change["after"])]
    at = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(before // 10**9))}.{before % 10**9:09}Z"
    [then] = why(desk, "ES.c.0", "2024-04-10", as_of=at)["rows"]
    assert (then["row"], then["raw"]["row_equal"]) == (old["row"], True)


def test_a_row_in_quarantine_is_told_with_its_rules_and_its_record(tmp_path):
    with served(tmp_path, **MARKET, hostile=20) as rough:
        desk = Desk(tmp_path / "desk", rough, {"ingest.max_reject_percent": 100})
        desk.stored(Ask("ES.c.0", "2024-02-01", "2024-04-30"))
    with desk.open() as data:
        rejects = data.store().quarantine().drop_nulls(["index_time", "symbol"]).rows(named=True)
    for reject in rejects[:3]:
        day = time.strftime("%Y-%m-%d", time.gmtime(reject["index_time"] // 10**9))
        told = why(desk, reject["symbol"], day)["quarantine"]
        assert (reject["rules"], reject["row"]) in [(one["rules"], one["record"]) for one in told]
    assert rejects


def test_the_command_tells_it_in_words_and_as_json(shared, capsys, monkeypatch):
    monkeypatch.setenv("HDI_DATA_DIR", str(shared.data_dir))
    lake = ["--store", shared.place.url]
    assert run([*lake, "why", "ES.c.0", "2024-03-15"]) == 0
    text = capsys.readouterr().out
    assert ": equal to the row" in text
    assert "restated    never" in text
    assert run(["--json", *lake, "why", "ES.c.0", "2024-03-15"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["raw"]["row_equal"]
    assert run([*lake, "why", "ES.c.0", "2024-05-15"]) == 0
    assert "never ingested" in capsys.readouterr().out
    assert run([*lake, "why", "ES.c.0", "no day"]) == 2

"""The bytes that were paid for: where they lie, what lies beside them, and what they save later."""

import hashlib
import json
import re
from decimal import Decimal

import pytest

import dbnfiles
from api.desk import Ask
from api.truth import alike
from hdi.errors import CorruptFile, OriginMismatch, TooManyRejects

START, END = "2024-03-04", "2024-03-22"
FRONT, PARENT = Ask("ES.c.0", START, END), Ask("ES.FUT", START, END)
GET_RANGE = "timeseries.get_range"


def modes(path):
    return {oct(p.stat().st_mode & 0o777) for p in path}


@pytest.mark.parametrize("schema", ["ohlcv-1d", "trades"])
def test_bytes_lie_by_origin_dataset_schema_and_day_for_their_owner_alone(desk, vendor, schema):
    desk.settings["ingest.download_records"] = 1
    desk.stored(Ask("ES.c.0,CL.FUT", "2024-03-14", "2024-03-15", schema))
    kept = desk.bytes_kept()
    assert len(kept) == vendor.books.calls[GET_RANGE] >= 2
    for name, path in kept.items():
        found = re.fullmatch(
            rf"synthetic/GLBX\.MDP3/{schema}/2024-03-1[45]/[0-9a-f]{{16}}-([0-9a-f]{{12}})\.dbn\.zst", name
        )
        assert found, name
        assert hashlib.sha256(path.read_bytes()).hexdigest().startswith(found[1])
        assert path.with_name(f"{path.name}.json").exists()
    raw = desk.data_dir / "raw"
    assert modes(desk.raw().values()) == {"0o600"}
    assert modes([raw, *(p for p in raw.rglob("*") if p.is_dir())]) == {"0o700"}
    digests = {hashlib.sha256(p.read_bytes()).hexdigest() for p in kept.values()}
    assert set(desk.store().ledger()["raw_digest"]) == digests


def test_the_dollars_of_the_receipts_are_those_of_the_vendors_books(desk, vendor):
    desk.settings["ingest.download_records"] = 1
    for ask in (FRONT, PARENT, Ask("CL.c.0,NG.FUT", START, END), Ask("ES.c.0", "2024-03-14", "2024-03-15", "trades")):
        desk.stored(ask)
    ledger = desk.store().ledger()
    assert ledger["dollars"].null_count() == 0
    assert abs(sum(ledger["dollars"]) - vendor.books.dollars) < Decimal("1e-9") * ledger.height
    assert abs(sum(Decimal(s["dollars"]) for s in desk.slips()) - vendor.books.dollars) < Decimal("1e-9") * 10


@pytest.mark.fault("vendor", "degraded and pending days", "lake")
def test_degraded_and_pending_days_are_stored_and_marked_in_the_ledger(desk, vendor, truth):
    vendor.fault("degraded", day="2024-03-13")
    vendor.fault("pending", day="2024-03-14")
    desk.stored(Ask("ES.c.0", "2024-03-11", "2024-03-15"))
    alike(desk.rows(), truth.rows(Ask("ES.c.0", "2024-03-11", "2024-03-15")))
    (text,) = desk.store().ledger()["conditions"]
    assert json.loads(text) == [
        {"day": "2024-03-13", "condition": "degraded", "last_modified": "2024-03-14"},
        {"day": "2024-03-14", "condition": "pending", "last_modified": "2024-03-15"},
    ]


HISTORIES = {
    "one": [FRONT],
    "parent, then continuous": [PARENT, FRONT],
    "continuous, then parent": [FRONT, PARENT],
    "in pieces": [Ask("ES.c.0", START, "2024-03-08"), Ask("ES.c.0", "2024-03-14", END), FRONT],
    "all types": [Ask("ESH4,ESM4,CL.c.0,ES.FUT", START, END)],
    "everything": [Ask("ALL_SYMBOLS", "2024-03-14", "2024-03-15")],
}


@pytest.mark.parametrize("asks", HISTORIES.values(), ids=HISTORIES)
def test_a_fresh_lake_on_the_same_data_folder_is_refined_from_what_was_paid(desk, vendor, asks):
    for ask in asks:
        desk.stored(ask)
    before = vendor.books.entries
    fresh = desk.beside("fresh", shared=True)
    assert fresh.offer(asks[-1]).quote.dollars == 0
    outcomes = [o for ask in asks for o in fresh.ingest(ask)]
    assert {(o.status, o.error, o.dollars) for o in outcomes} == {("stored", None, 0)}
    assert vendor.books.entries == before
    assert fresh.rows() == desk.rows()
    assert fresh.ingest(asks[-1]) == []


def test_a_fresh_lake_pays_only_for_what_no_lake_on_its_data_folder_has_had(desk, vendor, truth):
    desk.stored(FRONT)
    fresh = desk.beside("fresh", shared=True)
    fresh.stored(PARENT)
    assert vendor.books.billed_bytes == truth.size(PARENT)
    alike(fresh.rows(), truth.rows(PARENT))
    third = desk.beside("third", shared=True)
    third.stored(Ask("ESH4", START, "2024-03-14"))
    assert vendor.books.billed_bytes == truth.size(PARENT)
    known = {(r["instrument_id"], r["ts_event"]) for r in truth.rows(Ask("ESH4", START, "2024-03-14"))}
    assert known <= {(r["instrument_id"], r["ts_event"]) for r in third.rows()}


def test_what_all_symbols_brought_is_not_bought_again_by_a_fresh_lake(desk, vendor, truth):
    day = {"start": "2024-03-14", "end": "2024-03-14"}
    desk.stored(Ask("ALL_SYMBOLS", **day))
    paid = vendor.books.billed_bytes
    fresh = desk.beside("fresh", shared=True)
    fresh.stored(Ask("ES.FUT", **day))
    assert vendor.books.billed_bytes == paid
    alike(fresh.rows(symbols="ES.FUT"), truth.rows(Ask("ES.FUT", **day)))


def test_a_fresh_lake_has_the_newest_bytes_of_a_day_that_was_restated(desk, vendor):
    desk.stored(PARENT)
    vendor.fault("restated", day="2024-03-13")
    before = desk.rows()
    desk.stored(Ask("ES.c.0", "2024-03-11", "2024-03-15"), refetch=True)
    assert desk.rows() != before
    billed = vendor.books.billed_bytes
    fresh = desk.beside("fresh", shared=True)
    fresh.stored(PARENT)
    assert vendor.books.billed_bytes == billed
    assert fresh.rows() == desk.rows()


def test_bytes_that_were_removed_are_bought_again_by_a_fresh_lake_alone(desk, vendor, truth):
    desk.stored(FRONT)
    for path in desk.bytes_kept().values():
        path.unlink()
    assert desk.ingest(FRONT) == []
    assert vendor.books.billed_bytes == truth.size(FRONT)
    fresh = desk.beside("fresh", shared=True)
    fresh.stored(FRONT)
    assert vendor.books.billed_bytes == 2 * truth.size(FRONT)
    alike(fresh.rows(), truth.rows(FRONT))


def test_bytes_whose_slip_was_removed_are_kept_and_bought_again(desk, vendor, truth):
    desk.stored(FRONT)
    before = {name: path.read_bytes() for name, path in desk.bytes_kept().items()}
    for name, path in desk.raw().items():
        if name.endswith(".json"):
            path.unlink()
    fresh = desk.beside("fresh", shared=True)
    fresh.stored(FRONT)
    assert vendor.books.billed_bytes == 2 * truth.size(FRONT)
    assert before.items() <= {name: path.read_bytes() for name, path in desk.bytes_kept().items()}.items()


@pytest.mark.fault("disk", "the slip of bought bytes is torn", "lake")
def test_a_slip_that_cannot_be_read_stops_before_anything_is_billed(desk, vendor):
    desk.stored(FRONT)
    paid = vendor.books.entries
    for name, path in desk.raw().items():
        if name.endswith(".json"):
            path.write_text("{")
    with pytest.raises(CorruptFile) as caught:
        desk.beside("fresh", shared=True).ingest(FRONT)
    assert caught.value.hint
    assert vendor.books.entries == paid


@pytest.mark.fault("disk", "bought bytes are damaged before they are refined", "lake")
def test_kept_bytes_that_were_damaged_are_not_stored(desk, vendor, truth):
    desk.stored(FRONT)
    paid = vendor.books.entries
    (path,) = desk.bytes_kept().values()
    whole = path.read_bytes()
    path.write_bytes(whole[:-20] + bytes(20))
    fresh = desk.beside("fresh", shared=True)
    (error,) = fresh.errors(FRONT)
    assert isinstance(error, CorruptFile)
    assert str(path) in error.message
    assert fresh.rows() == []
    assert vendor.books.entries == paid
    path.write_bytes(whole)
    fresh.stored(FRONT)
    assert vendor.books.entries == paid
    alike(fresh.rows(), truth.rows(FRONT))


@pytest.mark.parametrize("market", [{"hostile": 40, "scale": 0.2}], indirect=True)
def test_a_unit_with_too_many_rejects_is_refined_again_without_being_bought_again(desk, vendor):
    ask = Ask("ES.c.0,CL.c.0", "2024-03-14", "2024-03-14", "trades")
    desk.settings |= {"ingest.max_reject_percent": 0.0, "ingest.min_rejects": 1}
    errors = desk.errors(ask)
    assert {type(e) for e in errors} == {TooManyRejects}
    assert errors[0].exit_code == 4
    assert desk.rows("trades") == []
    [entry] = vendor.books.entries
    for _ in range(2):
        assert {type(e) for e in desk.errors(ask)} == {TooManyRejects}
    assert len(vendor.books.entries) == 1
    ledger = desk.store().ledger()
    assert abs(sum(ledger["dollars"].drop_nulls()) - entry.dollars) < Decimal("1e-8")
    del desk.settings["ingest.max_reject_percent"], desk.settings["ingest.min_rejects"]
    receipts = desk.stored(ask)
    assert len(vendor.books.entries) == 1
    assert sum(r.quarantined for r in receipts) == entry.planted > 2
    assert len(desk.rows("trades")) == entry.records - entry.planted
    assert desk.ingest(ask) == []


def test_synthetic_data_never_enters_a_store_of_real_data(desk, vendor, tmp_path):
    rows = dbnfiles.records("ohlcv-1d", 3)
    with desk.open() as data:
        (outcome,) = data.ingest_files([dbnfiles.write(tmp_path / "real.dbn.zst", "ohlcv-1d", rows)])
    assert outcome.status == "stored"
    before = desk.rows()
    for options in ({}, {"refetch": True}, {"dry_run": True}):
        with pytest.raises(OriginMismatch) as caught:
            desk.ingest(FRONT, **options)
        assert caught.value.exit_code == 2
    assert vendor.books.entries == ()
    assert desk.rows() == before


def test_real_files_never_enter_a_store_of_synthetic_data(desk, tmp_path):
    desk.stored(FRONT)
    path = dbnfiles.write(tmp_path / "real.dbn.zst", "ohlcv-1d", dbnfiles.records("ohlcv-1d", 3))
    with desk.open() as data:
        (outcome,) = data.ingest_files([path])
    assert isinstance(outcome.error, OriginMismatch)


def test_the_bytes_of_the_api_are_a_file_that_the_file_source_takes(desk, truth):
    desk.stored(PARENT)
    other = desk.beside("files")
    with other.open() as data:
        (outcome,) = data.ingest_files(list(desk.bytes_kept().values()), origin="synthetic")
    assert outcome.status == "stored", outcome.error
    alike(other.rows(), truth.rows(PARENT))

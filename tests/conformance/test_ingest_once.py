"""Exactly once, from DBN files to the lake: the vendor's bytes through the whole pipeline."""

import datetime as dt
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import polars as pl
import pytest

import dbnfiles
from dbnfiles import PX
from hdi import quarantine
from hdi.errors import FragmentRefused, OriginMismatch, TooManyRejects
from hdi.model import DAY_NS, NS
from lakes import Place, lines
from tape import make_tape

DAYS = ("2024-03-12", "2024-03-13", "2024-03-14", "2024-03-15", "2024-03-16")
FIRST, END = dbnfiles.ns(DAYS[0]), dbnfiles.ns(DAYS[-1])
FRONT, BACK, SPREAD = 101, 102, 103
ROLL = DAYS[2]


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path / "place")


@pytest.fixture
def other(tmp_path):
    return Place(tmp_path / "other")


def tape(schema="trades", step=None):
    """Four days of three instruments, several records an hour, some of them equal in all but their place."""
    width = step or (DAY_NS if schema == "ohlcv-1d" else 20 * 60 * NS)
    at = np.arange(FIRST, END, width)
    parts = []
    for instrument in (FRONT, BACK, SPREAD):
        rows = dbnfiles.records(schema, len(at), instrument_id=instrument, ts_event=at)
        if schema in ("trades", "tbbo"):
            rows["price"] += instrument * 1_000 * PX
            rows = np.repeat(rows, 1 + (np.arange(len(rows)) % 9 == 0))
        parts.append(rows)
    rows = np.concatenate(parts)
    index = "ts_recv" if "ts_recv" in rows.dtype.names else "ts_event"
    return rows[np.argsort(rows[index], kind="stable")]


def parent(folder, rows, schema="trades"):
    """ES.FUT over the four days."""
    mappings = {s: [(DAYS[0], DAYS[-1], i)] for s, i in (("ESH4", FRONT), ("ESM4", BACK), ("ESH4-ESM4", SPREAD))}
    return dbnfiles.write(
        folder / "parent.dbn.zst", schema, rows, symbols=("ES.FUT",), stype_in="parent", window=(DAYS[0], DAYS[-1]),
        mappings=mappings,
    )  # fmt: skip


def continuous(folder, rows, schema="trades"):
    """ES.c.0 over the four days, which rolls in the middle."""
    at = rows["ts_recv" if "ts_recv" in rows.dtype.names else "ts_event"]
    own = rows["instrument_id"] == np.where(at < dbnfiles.ns(ROLL), FRONT, BACK)
    return dbnfiles.write(
        folder / "continuous.dbn.zst", schema, rows[own], symbols=("ES.c.0",), stype_in="continuous",
        window=(DAYS[0], DAYS[-1]), mappings={"ES.c.0": [(DAYS[0], ROLL, FRONT), (ROLL, DAYS[-1], BACK)]},
    )  # fmt: skip


@pytest.mark.parametrize("schema", ["trades", "tbbo", "ohlcv-1h", "ohlcv-1d", "statistics"])
def test_a_parent_and_a_continuous_symbol_in_either_order_end_in_the_same_content(tmp_path, place, other, schema):
    rows = tape(schema)
    whole, part = parent(tmp_path, rows, schema), continuous(tmp_path, rows, schema)
    place.stored(whole)
    before, files = place.digest(schema), place.data_files()
    receipts = place.stored(part)
    assert sum(r.fetched for r in receipts) == sum(r.unchanged for r in receipts) > 0
    assert place.digest(schema) == before
    assert place.data_files() == files
    other.stored(part)
    assert other.content(schema).height < place.content(schema).height
    other.stored(whole)
    assert other.digest(schema) == before


def test_a_continuous_symbol_across_its_roll_owns_one_contract_before_and_another_after(tmp_path, place):
    rows = tape()
    place.stored(parent(tmp_path, rows))
    before = place.content()
    rows["price"] += 7 * PX
    place.stored(continuous(tmp_path, rows))
    after = place.content()
    late = pl.col("ts_recv") >= pl.lit(dt.datetime.fromisoformat(ROLL).replace(tzinfo=dt.UTC))
    own = pl.col("instrument_id") == pl.when(late).then(BACK).otherwise(FRONT)
    assert after.filter(~own).equals(before.filter(~own))
    assert (after.filter(own)["price"] - before.filter(own)["price"]).unique().to_list() == [7]


def test_the_same_file_twice_is_stored_once(tmp_path, place):
    path = parent(tmp_path, tape())
    place.stored(path)
    before, files = place.state(), place.data_files()
    assert [o.status for o in place.ingest(path)] == ["skipped"]
    assert (place.state(), place.data_files()) == (before, files)


def test_an_equal_refetch_writes_nothing(tmp_path, place):
    path = parent(tmp_path, tape())
    place.stored(path)
    before, files = place.digest(), place.data_files()
    receipts = place.stored(path, refetch=True)
    assert (place.digest(), place.data_files()) == (before, files)
    assert all(r.unchanged == r.stored == r.fetched and not r.superseded for r in receipts)


def test_a_refetch_with_three_altered_rows_moves_exactly_their_groups_to_history(tmp_path, place):
    rows = tape()
    place.stored(parent(tmp_path, rows))
    files, [first] = place.data_files(), {c["run"] for c in place.commits()}
    altered = rows.copy()
    alone = np.flatnonzero(np.diff(altered["ts_recv"]) > 0)[[20, 100, 250]]
    altered["size"][alone] += 1
    [*_] = receipts = place.stored(parent(tmp_path / "later", altered), refetch=True)
    groups = {(int(rows["instrument_id"][k]), int(rows["ts_recv"][k])) for k in alone}
    same = [k for k in range(len(rows)) if (int(rows["instrument_id"][k]), int(rows["ts_recv"][k])) in groups]
    assert sum(r.superseded for r in receipts) == len(same)
    assert sum(r.unchanged for r in receipts) == len(rows) - len(same)
    store = place.open()
    old = store.replaced(next(s for s in place_schemas() if s.kind == "trades"))
    assert sorted(old["size"].to_list()) == sorted(rows["size"][same].tolist())
    assert set(old["_written_run"]) == {first}
    assert set(old["_replaced_run"]) == {receipts[0].run} != {first}
    assert np.array_equal(np.sort(place.content()["size"].to_numpy()), np.sort(altered["size"]))
    touched = {k // DAY_NS for _, k in groups}
    # Only the files of the days that changed were written again.
    assert len(set(place.data_files()) - set(files)) <= 2 * len(touched) + len(touched)


def place_schemas():
    from hdi.testing.material import schemas

    return schemas()


def test_several_trades_of_one_instant_stay_in_the_vendors_order(tmp_path, place):
    at = np.repeat(dbnfiles.ns("2024-01-02") + np.arange(40) * NS, 5)
    rows = dbnfiles.records("trades", 200, ts_event=at, sequence=np.repeat(np.arange(40), 5))
    rows["price"] = (np.arange(200) * 7 % 3) * PX
    path = dbnfiles.write(tmp_path / "a.dbn.zst", "trades", rows)
    place.stored(path)
    expected = [int(p) // PX for p in rows["price"]]
    assert place.prices() == expected
    place.stored(path, refetch=True)
    assert place.prices() == expected


@pytest.mark.parametrize("make", [
    lambda path, rows: dbnfiles.fragment(path, "trades", rows),
    lambda path, rows: dbnfiles.write(path, "trades", rows, limit=100),
    lambda path, rows: dbnfiles.write(path, "trades", rows, symbols=()),
], ids=["nothing", "limit", "symbols"])  # fmt: skip
def test_a_fragment_claims_nothing_is_stored_once_and_gives_way(tmp_path, place, make):
    rows = dbnfiles.records("trades", 300)
    part = make(tmp_path / "fragment.dbn.zst", rows[:100])
    [outcome] = place.ingest(part)
    assert (outcome.status, outcome.receipts[0].status, outcome.receipts[0].stored) == ("stored", "fragment", 100)
    assert outcome.note
    assert not place.open().coverage().height
    assert [o.status for o in place.ingest(part)] == ["skipped"]
    overlapping = make(tmp_path / "second.dbn.zst", rows[50:150])
    assert place.stored(overlapping)[0].unchanged == 50
    assert place.content().height == 150
    whole = dbnfiles.write(tmp_path / "whole.dbn.zst", "trades", rows)
    assert place.stored(whole)[0].unchanged == 150
    assert place.content().height == 300
    before = place.state()
    [outcome] = place.ingest(make(tmp_path / "third.dbn.zst", rows[:3]))
    assert (outcome.status, type(outcome.error)) == ("failed", FragmentRefused)
    assert place.state()[:2] == before[:2]


def spoiled(bad, n=1_000):
    """Rows of two contracts, of which ``bad`` of the second have a side that nobody knows."""
    rows = dbnfiles.records(
        "trades", n, instrument_id=1 + np.arange(n) % 2, ts_event=dbnfiles.ns("2024-01-02") + np.arange(n) * NS
    )
    rows["side"][np.flatnonzero(rows["instrument_id"] == 2)[:bad]] = b"X"
    return rows


def two_contracts(path, rows):
    mappings = {"ESH4": [("2024-01-02", "2024-01-03", 1)], "ESM4": [("2024-01-02", "2024-01-03", 2)]}
    return dbnfiles.write(path, "trades", rows, symbols=("ESH4", "ESM4"), mappings=mappings)


def test_a_unit_with_too_many_rejects_fails_alone_and_in_one_commit_with_the_others(tmp_path, place):
    place.stored(two_contracts(tmp_path / "good.dbn.zst", spoiled(0)))
    changed = spoiled(300)
    changed["price"] += PX
    [outcome] = place.ingest(two_contracts(tmp_path / "bad.dbn.zst", changed), refetch=True)
    assert (outcome.status, type(outcome.error)) == ("failed", TooManyRejects)
    assert {r.unit.symbol: (r.status, r.fetched, r.stored, r.quarantined) for r in outcome.receipts} == {
        "ESM4": ("failed", 500, 0, 300), "ESH4": ("complete", 500, 500, 0),
    }  # fmt: skip
    assert len(place.commits()) == 2
    prices = place.content().group_by("instrument_id").agg(pl.col("price").cast(pl.Int64).max()).sort("instrument_id")
    assert prices["price"].to_list() == [4_797, 4_796]
    assert {e["failed"] for e in lines(place)} == {True}
    assert len(lines(place)) == 300
    place.stored(two_contracts(tmp_path / "bad.dbn.zst", changed), max_reject_percent=90, refetch=True)
    assert {e["failed"] for e in lines(place)} == {False}
    assert place.content().height == 700


def test_a_file_in_which_all_units_fail_stores_nothing(tmp_path, place):
    rows = spoiled(300)
    rows["side"] = b"X"
    place.ingest(two_contracts(tmp_path / "bad.dbn.zst", rows))
    assert place.content().height == 0
    assert not place.open().coverage().height
    assert place.open().ledger()["status"].to_list() == ["failed", "failed"]


@pytest.mark.parametrize(("first", "second"), [("synthetic", "databento"), ("databento", "synthetic")])
def test_synthetic_and_real_rows_never_share_a_store(tmp_path, place, first, second):
    path = parent(tmp_path, tape())
    place.stored(path, origin=first)
    before, files = place.state(), place.data_files()
    [outcome] = place.ingest(path, origin=second)
    assert (outcome.status, type(outcome.error), outcome.error.exit_code) == ("failed", OriginMismatch, 2)
    assert (place.state()[:2], place.data_files()) == (before[:2], files)


def test_every_row_of_every_kind_is_stored_or_quarantined(tmp_path, place):
    """The law of conservation, by the file's own count and by readers that are not ours."""
    made = make_tape(tmp_path / "tape")
    for path in made.paths:
        receipts = place.stored(path, origin="synthetic", max_reject_percent=50)
        assert sum(r.fetched for r in receipts) == made.rows[path]
        assert sum(r.stored + r.quarantined for r in receipts) == made.rows[path]
        table = place_schemas().find(receipts[0].unit.schema)[0].table
        numbers = [r.number for r in receipts]
        assert place.delta(table).filter(pl.col("_unit").is_in(numbers)).height == sum(r.stored for r in receipts)
        assert sum(r.quarantined for r in receipts) == len(made.planted[path])
    planted = sum(len(p) for p in made.planted.values())
    assert place.open().quarantine().height == len(lines(place)) + len(lines(place, "transformation_errors")) == planted
    assert place.leftovers() == []


def ingested(folder, paths):
    """In another process: the statuses of one ingest."""
    return [o.status for o in Place(folder).ingest(*paths)]


@pytest.fixture(scope="module")
def pool():
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.mark.parametrize("turn", range(3))
def test_two_processes_with_the_same_files_store_them_once(tmp_path, place, other, pool, turn):
    rows = tape()
    rows["side"][::50] = b"X"
    paths = [parent(tmp_path, rows), continuous(tmp_path, rows)]
    other.stored(*paths, max_reject_percent=50)
    tasks = [pool.submit(ingested, place.folder, paths[:: 1 - 2 * (k * turn % 2)]) for k in range(2)]
    statuses = [s for t in tasks for s in t.result(60)]
    assert set(statuses) <= {"stored", "skipped"}
    assert place.digest() == other.digest()
    assert place.open().ledger()["unit_id"].is_unique().all()
    assert sorted(place.open().quarantine()["index_time"]) == sorted(other.open().quarantine()["index_time"])
    assert len(lines(place)) == len(lines(other)) > 0
    assert place.raw() == other.raw()
    assert place.leftovers() == []


def test_only_one_process_at_a_time_writes_dead_letters(tmp_path, place):
    """What is exported is read under the lock: an older answer never lies over a newer one."""
    path = two_contracts(tmp_path / "a.dbn.zst", spoiled(5))
    with ThreadPoolExecutor(1) as threads:
        with quarantine.held(place.folder / "dlq"):
            task = threads.submit(place.stored, path)
            with pytest.raises(TimeoutError):
                task.result(0.4)
            assert lines(place) == []
        task.result(30)
    assert len(lines(place)) == 5

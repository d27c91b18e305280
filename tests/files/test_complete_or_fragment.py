"""What a file may claim: a complete one its whole request, a fragment nothing, the parts of a job their days."""

import datetime as dt
import hashlib
import itertools
import json

import numpy as np
import polars as pl
import pytest

from dbnfiles import MINUTE, fragment, ns, records, window, write
from files import real
from files.lab import Lab, by_status
from hdi.errors import FragmentRefused
from hdi.model import DAY_NS, Window, iso_ns
from hdi.sources.split import parts

JOB = ("2024-01-01", "2024-01-08")


def claims(lab):
    """(symbol, instrument or None, first instant, last instant) of every claim."""
    rows = lab.store.coverage().sort("start", "symbol", "instrument_id", nulls_last=False)
    return [(r["symbol"], r["instrument_id"], iso_ns(r["start"]), iso_ns(r["end"])) for r in rows.to_dicts()]


def part(folder, day, schema="trades", n=4, **rest):
    """The file of one day of a job that was split by day; it says of itself what the whole job asked for."""
    name = f"glbx-mdp3-{day.replace('-', '')}.{schema}.dbn.zst"
    rows = records(schema, n, ts_event=ns(day) + np.arange(n) * MINUTE)
    return write(folder / name, schema, rows, **({"window": JOB} | rest))


def manifest(folder, **changes):
    """Name every data file of a folder, as the vendor does."""
    files = [{"filename": n, "size": 1, "hash": "sha256:1"} for n in ("metadata.json", "symbology.json")]
    for data in sorted(folder.glob("*.dbn.zst")):
        digest = hashlib.sha256(data.read_bytes()).hexdigest()
        files.append({"filename": data.name, "size": data.stat().st_size, "hash": f"sha256:{digest}"} | changes)
    (folder / "manifest.json").write_text(json.dumps({"job_id": "GLBX-20240109-ABC", "files": files}))


@pytest.fixture
def job(tmp_path):
    """Three parts of a job of seven days; on the other days there was no trade."""
    folder = tmp_path / "job"
    paths = [part(folder, day) for day in ("2024-01-02", "2024-01-03", "2024-01-05")]
    manifest(folder)
    return paths


class TestComplete:
    def test_it_claims_its_request_and_each_instrument_in_it(self, lab, tmp_path):
        rows = records(
            "trades", 4, ts_event=ns("2024-01-02") + np.arange(4) * 12 * 3600 * 10**9, instrument_id=[5, 6, 5, 6]
        )
        days = [("2024-01-02", "2024-01-04")]
        path = write(tmp_path / "f.dbn.zst", "trades", rows, symbols=("A", "B"), window=("2024-01-02", "2024-01-04"),
                     mappings={"A": [(*days[0], 5)], "B": [(*days[0], 6)]})  # fmt: skip
        (outcome,) = lab.good(path)
        assert [(r.unit.symbol, r.status, r.fetched) for r in outcome.receipts] == [
            ("A", "complete", 1), ("B", "complete", 1), ("A", "complete", 1), ("B", "complete", 1),
        ]  # fmt: skip
        first, second, end = "2024-01-02T00:00:00Z", "2024-01-03T00:00:00Z", "2024-01-04T00:00:00Z"
        assert claims(lab) == [
            ("A", None, first, second), ("A", 5, first, second), ("B", None, first, second), ("B", 6, first, second),
            ("A", None, second, end), ("A", 5, second, end), ("B", None, second, end), ("B", 6, second, end),
        ]  # fmt: skip

    def test_a_symbol_that_did_not_trade_is_confirmed_empty(self, lab, tmp_path):
        path = write(tmp_path / "f.dbn.zst", "trades", records("trades", 2, instrument_id=5), symbols=("A", "B"),
                     mappings={"A": [("2024-01-02", "2024-01-03", 5)]})  # fmt: skip
        (outcome,) = lab.good(path)
        assert [(r.unit.symbol, r.fetched, r.stored) for r in outcome.receipts] == [("A", 2, 2), ("B", 0, 0)]
        assert ("B", None, "2024-01-02T00:00:00Z", "2024-01-03T00:00:00Z") in claims(lab)

    def test_a_file_without_records_is_confirmed_empty(self, lab, tmp_path):
        (outcome,) = lab.good(write(tmp_path / "f.dbn.zst", "tbbo", records("tbbo", 0)))
        assert [(r.fetched, r.status) for r in outcome.receipts] == [(0, "complete")]
        assert len(claims(lab)) == 1

    def test_a_window_inside_a_day_claims_no_more_than_it(self, lab, tmp_path):
        inside = (ns("2024-01-02") + 60 * MINUTE, ns("2024-01-02") + 90 * MINUTE)
        rows = records("trades", 3, ts_event=inside[0] + np.arange(3) * MINUTE)
        lab.good(write(tmp_path / "f.dbn.zst", "trades", rows, window=inside))
        assert {c[2:] for c in claims(lab)} == {("2024-01-02T01:00:00Z", "2024-01-02T01:30:00Z")}

    def test_the_same_file_again_is_skipped_and_says_why(self, lab, tmp_path):
        path = write(tmp_path / "f.dbn.zst", "trades", records("trades", 4))
        lab.good(path)
        (again,) = lab.ingest(path)
        assert (again.status, again.note) == ("skipped", "the same file is stored already")
        other = write(tmp_path / "g.dbn.zst", "trades", records("trades", 3))
        (refused,) = lab.ingest(other)
        assert refused.status == "skipped"
        assert "from another file; --refetch reads this one and replaces" in refused.note
        lab.good(other, refetch=True)
        assert lab.rows("trades").height == 3

    def test_a_dry_run_says_what_is_left_and_does_nothing(self, lab, tmp_path):
        rows = records("trades", 4)
        first = write(tmp_path / "f.dbn.zst", "trades", rows)
        both = write(tmp_path / "g.dbn.zst", "trades", rows, window=("2024-01-02", "2024-01-04"))
        piece = fragment(tmp_path / "h.dbn.zst", "trades", rows)
        (planned,) = lab.ingest(first, dry_run=True)
        assert (planned.status, planned.units) == ("planned", 1)
        assert planned.note == "1 of 1 units to store, 2024-01-02T00:00:00Z to 2024-01-03T00:00:00Z"
        assert lab.is_untouched()
        lab.good(first)
        notes = [o.note for o in lab.ingest(first, both, piece, dry_run=True)]
        assert notes[0].startswith("all of it is stored already")
        assert notes[1].startswith("1 of 2 units to store")
        assert notes[2] == "1 of 1 units to store; a fragment: its metadata names no symbols"


class TestFragment:
    @pytest.mark.parametrize(
        ("rest", "why"),
        [
            ({"symbols": ()}, "its metadata names no symbols"),
            ({"window": None}, "its metadata has no start and end"),
            ({"window": ("2024-01-02", "2024-01-02")}, "its metadata has no start and end"),
            ({"window": ("2024-01-02", 2**63)}, "its metadata has no start and end"),
            ({"limit": 100}, "it was asked for with a limit of 100 records"),
        ],
    )
    def test_it_claims_nothing_and_says_why(self, lab, tmp_path, rest, why):
        (outcome,) = lab.good(write(tmp_path / "f.dbn.zst", "trades", records("trades", 4), **rest))
        assert outcome.note == why
        assert [(r.status, r.fetched, r.stored) for r in outcome.receipts] == [("fragment", 4, 4)]
        assert claims(lab) == []
        assert lab.rows("trades").height == 4

    def test_the_same_bytes_again_are_skipped_whatever_they_are_called(self, lab, tmp_path):
        path = fragment(tmp_path / "f.dbn.zst", "trades", records("trades", 4))
        lab.good(path)
        (tmp_path / "g.dbn.zst").write_bytes(path.read_bytes())
        assert [(o.status, o.note) for o in lab.ingest(path, tmp_path / "g.dbn.zst")] == [
            ("skipped", "the same bytes are stored already")
        ] * 2

    def test_it_gives_way_to_a_complete_file_and_is_refused_after_it(self, lab, tmp_path):
        rows = records("trades", 6)
        piece = fragment(tmp_path / "f.dbn.zst", "trades", rows[:3])
        other = fragment(tmp_path / "g.dbn.zst", "trades", rows[3:4])
        whole = write(tmp_path / "h.dbn.zst", "trades", rows)
        lab.good(piece, whole)
        assert lab.rows("trades").height == 6
        error = lab.error(other)
        assert isinstance(error, FragmentRefused)
        assert error.exit_code == 2
        assert (
            "the file is a fragment, and a complete unit (ESH4) holds instrument 1 at 2024-01-02T00:03" in error.message
        )
        assert lab.rows("trades").height == 6

    def test_a_real_limited_file_is_one(self, lab):
        (outcome,) = lab.good(real.file("databento/GLBX.MDP3/test_data.trades.dbn.zst"))
        assert outcome.note == "it was asked for with a limit of 4 records"
        assert claims(lab) == []

    def test_a_real_whole_file_is_none(self, lab):
        name = "nautilus_trader/historical_bars_catalog/futures_ohlcv-1m_2024-07-01T23-40_2024-07-02T00-10.dbn.zst"
        (outcome,) = lab.good(real.file(name))
        assert {r.status for r in outcome.receipts} == {"complete"}
        assert {(c[0], *c[2:]) for c in claims(lab)} == {
            (symbol, "2024-07-01T23:40:00Z", "2024-07-02T00:10:00Z") for symbol in ("ESU4", "NQU4")
        }


class TestSplitJob:
    def test_all_parts_in_one_call_are_complete_and_tile_the_window_of_the_job(self, lab, job):
        outcomes = lab.good(*job)
        assert {r.status for o in outcomes for r in o.receipts} == {"complete"}
        assert [o.window for o in outcomes] == [
            window("2024-01-01", "2024-01-03"), window("2024-01-03", "2024-01-05"), window("2024-01-05", "2024-01-08"),
        ]  # fmt: skip
        whole = lab.store.coverage().filter(pl.col("instrument_id").is_null()).sort("start")
        assert whole["start"].to_list() == [ns("2024-01-01") + k * DAY_NS for k in range(7)]
        assert whole["end"].to_list() == [ns("2024-01-01") + (k + 1) * DAY_NS for k in range(7)]
        assert lab.rows("trades").height == 12

    def test_in_whatever_order_and_spelling_they_are_named(self, lab, job, monkeypatch):
        monkeypatch.chdir(job[0].parent)
        (job[0].parent / "sub").mkdir()
        spelt = [job[2], job[0].name, f"sub/../{job[1].name}"]
        lab.good(*spelt)
        assert set(lab.store.ledger()["status"]) == {"complete"}

    def test_in_whatever_order_the_answer_is_the_same(self, lab, job, tmp_path):
        lab.good(*job)
        other = Lab(tmp_path / "other")
        other.good(*reversed(job))
        assert lab.rows("trades").equals(other.rows("trades"))
        assert claims(lab) == claims(other)

    def test_again_they_are_skipped(self, lab, job):
        lab.good(*job)
        assert {o.status for o in lab.ingest(*job)} == {"skipped"}

    def test_a_part_alone_is_a_fragment(self, lab, job):
        (outcome,) = lab.good(job[1])
        assert outcome.note == (
            "a part of a split job, of which 2 of 3 parts were not given (glbx-mdp3-20240102.trades.dbn.zst)"
        )
        assert claims(lab) == []

    def test_a_part_that_was_stored_alone_gives_way_to_the_job(self, lab, job):
        lab.good(job[1])
        lab.good(*job)
        assert lab.rows("trades").height == 12
        assert len(claims(lab)) > 6

    def test_a_damaged_part_costs_only_its_own_days(self, lab, job):
        job[1].write_bytes(job[1].read_bytes()[:-8])
        outcomes = lab.ingest(*job)
        assert [o.status for o in outcomes] == ["stored", "failed", "stored"]
        whole = lab.store.coverage().filter(pl.col("instrument_id").is_null())
        assert ns("2024-01-03") not in whole["start"].to_list()
        assert ns("2024-01-02") in whole["start"].to_list()

    @pytest.mark.parametrize("changes", [{"size": 3}, {"hash": "sha256:" + "0" * 64}, {"hash": "F" * 64}])
    def test_bytes_that_the_manifest_does_not_name_are_refused(self, lab, job, changes):
        manifest(job[0].parent, **changes)
        outcomes = lab.ingest(*job)
        assert {o.error.exit_code for o in outcomes} == {4}
        assert "is not what manifest.json says" in outcomes[0].error.message
        assert lab.is_untouched()

    @pytest.mark.parametrize(
        "changes", [{"hash": "md5:0"}, {"hash": None}, {"hash": 3}, {"size": "many"}, {"size": None}]
    )
    def test_what_the_manifest_does_not_say_in_known_words_is_not_compared(self, lab, job, changes):
        manifest(job[0].parent, **changes)
        lab.good(*job)

    def test_a_row_of_another_day_than_the_parts_own_is_quarantined(self, lab, job):
        rows = records("trades", 2, ts_event=[ns("2024-01-03"), ns("2024-01-06")])
        write(job[1], "trades", rows, window=JOB)
        manifest(job[1].parent)
        lab.good(*job)
        assert lab.store.quarantine()["rules"].to_list() == [["OUTSIDE_WINDOW"]]

    def test_a_limit_is_a_limit_in_a_job_too(self, lab, job):
        limited = part(job[0].parent, "2024-01-03", limit=9)
        manifest(limited.parent)
        outcomes = lab.good(job[0], limited, job[2])
        assert [o.note for o in outcomes] == ["", "it was asked for with a limit of 9 records", ""]

    def test_parts_of_one_day_each_for_its_symbol_are_fragments(self, lab, tmp_path):
        folder = tmp_path / "job"
        paths = [
            write(folder / f"glbx-mdp3-20240102.trades.{symbol}.dbn.zst", "trades",
                  records("trades", 2, instrument_id=k), symbols=("ESH4", "NQH4"))
            for k, symbol in enumerate(("ESH4", "NQH4"))
        ]  # fmt: skip
        manifest(folder)
        notes = {o.note for o in lab.good(*paths)}
        assert notes == {"a part of a job that was not split by time: what it answers for is not known"}

    def test_a_job_of_one_file_is_complete(self, lab, tmp_path):
        path = write(tmp_path / "job" / "glbx-mdp3-20240102.trades.dbn.zst", "trades", records("trades", 2))
        manifest(path.parent)
        (outcome,) = lab.good(path)
        assert outcome.receipts[0].status == "complete"

    def test_a_file_beside_a_job_is_none_of_its_parts(self, lab, job):
        rows = records("trades", 3, ts_event=ns("2024-02-01"))
        other = write(job[0].parent / "mine.dbn.zst", "trades", rows, window=("2024-02-01", "2024-02-02"))
        assert [p for _, p in parts([other])] == [None]
        assert lab.good(other)[0].receipts[0].status == "complete"

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", "null", "3", '"x"', '{"files": 3}', '{"files": [3]}', '{"files": [{}]}',
                 '{"files": [{"filename": 3}]}', '{"files": {"a": 1}}', "[" * 100_000, "\x00"]
    )  # fmt: skip
    def test_a_manifest_that_is_none_joins_nothing(self, lab, job, text):
        (job[0].parent / "manifest.json").write_text(text)
        assert all(o.note.startswith("its name says") for o in lab.good(*job))

    def test_without_a_manifest_a_name_that_says_less_than_the_metadata_makes_a_fragment(self, lab, job):
        (job[0].parent / "manifest.json").unlink()
        outcomes = lab.good(*job)
        assert outcomes[0].note == (
            "its name says that it holds 2024-01-02 to 2024-01-02 of a job for "
            "2024-01-01T00:00:00Z to 2024-01-08T00:00:00Z: a part of a split job"
        )
        assert claims(lab) == []

    @pytest.mark.parametrize(
        ("name", "complete"),
        [
            ("glbx-mdp3-20240101-20240107.trades.dbn.zst", True),
            ("glbx-mdp3-20231231-20240131.trades.dbn.zst", True),
            ("glbx-mdp3-20240101-20240106.trades.dbn.zst", False),
            ("glbx-mdp3-20240102-20240107.trades.dbn.zst", False),
            ("glbx-mdp3-20240101.trades.dbn.zst", False),
            ("glbx-mdp3-20241301.trades.dbn.zst", True),  # no date
            ("trades 2024-01-02.dbn.zst", True),
            ("20240102.dbn.zst", True),
            ("my trades.dbn.zst", True),
        ],
    )
    def test_only_a_name_as_the_vendor_writes_it_counts(self, lab, tmp_path, name, complete):
        rows = records("trades", 3)
        (outcome,) = lab.good(write(tmp_path / name, "trades", rows, window=JOB))
        assert ({r.status for r in outcome.receipts} == {"complete"}) == complete

    def test_fifty_parts_of_one_job_in_one_call(self, lab, tmp_path):
        folder, first = tmp_path / "job", dt.date(2024, 1, 1)
        whole = (first, first + dt.timedelta(days=50))
        days = [(first + dt.timedelta(days=k)).isoformat() for k in range(50)]
        paths = [part(folder, day, n=20, window=whole) for day in days]
        manifest(folder)
        outcomes = lab.good(*paths)
        assert [o.receipts[0].unit.window for o in outcomes] == list(window(*whole).cells("day"))
        assert lab.rows("trades").height == 1_000
        assert lab.rows("trades")["ts_recv"].is_sorted()
        assert set(by_status(lab.ingest(*paths)).values()) == {"skipped"}


def test_parts_by_week_and_month_answer_for_their_stretch(lab, tmp_path):
    folder = tmp_path / "job"
    job = ("2024-01-01", "2024-03-10")
    paths = [part(folder, day, "ohlcv-1m", window=job) for day in ("2024-01-01", "2024-02-01", "2024-03-01")]
    manifest(folder)
    assert [o.window for o in lab.good(*paths)] == [
        window("2024-01-01", "2024-02-01"), window("2024-02-01", "2024-03-01"), window("2024-03-01", "2024-03-10"),
    ]  # fmt: skip


def test_a_row_that_says_no_time_or_a_wrong_one_claims_no_instrument(lab, tmp_path):
    kept = write(tmp_path / "kept.dbn.zst", "trades", records("trades", 3, instrument_id=9), symbols=("NQH4",))
    lab.good(kept)
    rows = records("trades", 3, instrument_id=[1, 9, 9])
    rows["ts_recv"][1:] = [2**64 - 1, ns("2024-01-05")]
    days = {"ESH4": [("2024-01-02", "2024-01-03", 1)]}
    lab.good(write(tmp_path / "other.dbn.zst", "trades", rows, symbols=("ESH4", "CLH4"), mappings=days))
    assert lab.store.quarantine()["rules"].to_list() == [["NO_INDEX_TIME"], ["OUTSIDE_WINDOW"]]
    assert lab.rows("trades")["instrument_id"].value_counts().sort("instrument_id").rows() == [(1, 1), (9, 3)]


def test_unmapped_instruments_claim_their_own_days_only(lab, tmp_path):
    at = [ns("2024-01-02"), ns("2024-01-03") + 5, ns("2024-01-03") + 9]
    rows = records("trades", 3, instrument_id=[7, 8, 8], ts_event=at)
    path = write(tmp_path / "f.dbn.zst", "trades", rows, symbols=("A", "B"), window=("2024-01-02", "2024-01-05"),
                 mappings={})  # fmt: skip
    lab.good(path)
    assert lab.rows("trades")["symbol"].null_count() == 3
    own = [c for c in claims(lab) if c[1] is not None]
    assert own == [
        ("", 7, "2024-01-02T00:00:00Z", "2024-01-03T00:00:00Z"),
        ("", 8, "2024-01-03T00:00:00Z", "2024-01-04T00:00:00Z"),
    ]


def test_a_window_is_tiled_by_its_units(lab, tmp_path):
    odd = Window(ns("2023-11-20") + 5, ns("2024-02-03") + 7)
    path = write(tmp_path / "f.dbn.zst", "statistics", records("statistics", 3), window=(odd.start, odd.end))
    (outcome,) = lab.good(path)
    windows = [r.unit.window for r in outcome.receipts]
    assert windows[0].start == odd.start
    assert windows[-1].end == odd.end
    assert all(a.end == b.start for a, b in itertools.pairwise(windows))

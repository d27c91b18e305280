"""The dead-letter folder as people and their tools find it, and units that fail as a whole."""

import json
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dbnfiles import fragment, ns, records, write
from files.lab import Lab
from hdi.errors import TooManyRejects
from hdi.model import ns_date

TWO_DAYS = ("2024-01-02", "2024-01-04")


def jq(script, folder):
    """What a command line of the guide prints in a working folder."""
    if shutil.which("jq") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("jq is not installed")
        pytest.skip("jq is not installed")
    done = subprocess.run(["bash", "-ec", script], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def trades(n, bad, day="2024-01-02", **columns):
    """Trades of which some have no size."""
    rows = records("trades", n, ts_event=ns(day) + np.arange(n), **columns)
    rows["size"][list(bad)] = 0
    return rows


@pytest.fixture
def mixed(lab, tmp_path):
    """A lab in which three trades and a price were rejected, and the file."""
    rows = trades(9, [1, 4])
    rows["side"][4] = b"?"
    rows["price"][6] = 2**62
    path = write(tmp_path / "mixed.dbn.zst", "trades", rows)
    lab.good(path)
    return lab, path


def names(lab):
    return [str(p.relative_to(lab.root / "dlq")) for p in lab.dlq()]


def index(lab):
    """What the export remembers of its files."""
    (path,) = (lab.root / "dlq").glob(".index*.json")
    return path


class TestFiles:
    def test_they_are_named_by_kind_day_schema_and_unit(self, mixed):
        lab, _ = mixed
        (row,) = lab.store.ledger().to_dicts()
        stem = f"{ns_date(row['committed_at']):%Y%m%d}_trades_{row['unit_id']}"
        assert names(lab) == [
            f"transformation_errors/{stem}_transformation_errors.json",
            f"validation_failures/{stem}_validation_failures.json",
        ]
        assert {stat.S_IMODE(p.stat().st_mode) for p in lab.dlq()} == {0o600}

    def test_each_line_is_an_object_with_an_array_of_entries(self, mixed):
        lab, _ = mixed
        (row,) = lab.store.ledger().to_dicts()
        lines = [json.loads(line) for line in lab.dlq()[1].read_text().splitlines()]
        assert [list(line) for line in lines] == [["validation_failures"]]
        first, second = lines[0]["validation_failures"]
        assert {k: v for k, v in second.items() if k != "record"} == {
            "schema": "trades", "symbol": "ESH4", "instrument_id": 1, "ts_event": "2024-01-02T00:00:00.000000004Z",
            "error_type": "BusinessLogicValidation",
            "error_message": "The side is none of A (ask), B (bid) and N (none); The size is zero or negative",
            "rules": ["INVALID_SIDE", "NON_POSITIVE_SIZE"], "unit": row["unit_id"], "run": row["run"],
            "raw_file": row["raw_file"], "row": 4, "failed": False,
        }  # fmt: skip
        assert second["record"]["price"] == "4704.000000000"
        assert second["record"]["side"] == "?"
        assert first["row"] == 1

    def test_the_raw_file_of_an_entry_is_the_kept_one(self, mixed):
        lab, path = mixed
        for entry in lab.entries():
            assert Path(entry["raw_file"]).read_bytes() == path.read_bytes()
        assert set(lab.store.quarantine()["raw_file"]) == {str(lab.raw()[0])}

    def test_without_a_copy_the_raw_file_is_the_users(self, lab, tmp_path):
        path = write(tmp_path / "f.dbn.zst", "trades", trades(5, [2]))
        lab.good(path, keep=False)
        assert [e["raw_file"] for e in lab.entries()] == [str(path)]

    def test_no_file_where_nothing_was_rejected(self, lab, tmp_path):
        lab.good(write(tmp_path / "f.dbn.zst", "trades", records("trades", 5)))
        assert names(lab) == []

    def test_no_line_holds_more_than_a_thousand_entries(self, lab, tmp_path):
        path = write(tmp_path / "f.dbn.zst", "trades", trades(2_500, range(2_500)))
        lab.good(path, max_reject_percent=100)
        lines = lab.dlq()[0].read_text().splitlines()
        assert [len(json.loads(line)["validation_failures"]) for line in lines] == [1_000, 1_000, 500]
        assert [e["row"] for e in lab.entries()] == list(range(2_500))

    def test_a_time_after_2262_is_open_in_the_entry_and_exact_in_the_record(self, lab, tmp_path):
        rows = records("trades", 2)
        rows["ts_event"] = [2**63 + 5, 2**64 - 2]
        lab.good(fragment(tmp_path / "f.dbn.zst", "trades", rows))
        assert [e["ts_event"] for e in lab.entries()] == [None, None]
        assert [e["record"]["ts_event"] for e in lab.entries()] == [
            "2262-04-11T23:47:16.854775813Z", "2554-07-21T23:34:33.709551614Z",
        ]  # fmt: skip


class TestCommandLinesOfTheGuide:
    def test_what_was_rejected_and_why(self, mixed):
        lab, _ = mixed
        script = (
            "cat dlq/validation_failures/*.json | "
            "jq '.validation_failures[] | {schema, symbol, error_type, error_message}'"
        )
        decoder, text, found = json.JSONDecoder(), jq(script, lab.root).strip(), []
        while text:
            entry, end = decoder.raw_decode(text)
            found.append(entry)
            text = text[end:].lstrip()
        assert found == [
            {k: e[k] for k in ("schema", "symbol", "error_type", "error_message")}
            for e in lab.entries() if e["error_type"] != "TransformationError"
        ]  # fmt: skip
        assert len(found) == 2

    def test_how_many_of_each_type(self, lab, tmp_path):
        rows = trades(9, [1, 4])
        rows["ts_recv"][7] = 2**64 - 1
        lab.good(write(tmp_path / "a.dbn.zst", "trades", rows))
        lab.good(
            write(tmp_path / "b.dbn.zst", "trades", trades(3, [0], "2024-02-01"), window=("2024-02-01", "2024-02-02"))
        )
        script = "cat dlq/validation_failures/*.json | jq -r '.validation_failures[] | .error_type' | sort | uniq -c"
        counts = [line.split() for line in jq(script, lab.root).splitlines()]
        assert counts == [["3", "BusinessLogicValidation"], ["1", "SchemaValidation"]]

    def test_strange_text_does_not_confuse_it(self, lab, tmp_path):
        texts = [b'a"b\\c', b"\xff\xfe\x01\n", b"\xe2\x80\xa8", b"\xc2\x85", b"}],"]
        rows = records("definition", len(texts), raw_symbol=b"", group=texts)
        lab.good(fragment(tmp_path / "f.dbn.zst", "definition", rows))
        script = "cat dlq/validation_failures/*.json | jq -c '[.validation_failures[] | .record.group]'"
        assert json.loads(jq(script, lab.root)) == ['a"b\\c', "ÿþ\x01\n", "\u2028", "\x85", "}],"]


class TestReplacedWithTheUnit:
    def test_a_mended_file_takes_the_rejects_and_their_files_away(self, mixed, tmp_path):
        lab, _ = mixed
        assert len(names(lab)) == 2
        lab.good(write(tmp_path / "mended.dbn.zst", "trades", records("trades", 9)), refetch=True)
        assert names(lab) == []
        assert lab.store.quarantine().height == 0
        assert lab.rows("trades").height == 9

    def test_a_better_file_leaves_what_is_still_wrong_under_the_same_name(self, mixed, tmp_path):
        lab, _ = mixed
        before = names(lab)
        lab.good(write(tmp_path / "better.dbn.zst", "trades", trades(9, [3])), refetch=True)
        assert names(lab) == before[1:]
        assert [e["row"] for e in lab.entries()] == [3]
        assert {e["run"] for e in lab.entries()} == {lab.store.ledger()["run"][-1]}

    def test_the_day_in_the_name_is_that_of_the_first_run(self, mixed, tmp_path):
        lab, _ = mixed
        ledger = lab.store.ledger().with_columns(pl.col("committed_at") - 3 * 86_400 * 10**9)
        lab.good(write(tmp_path / "better.dbn.zst", "trades", trades(9, [3])), refetch=True)
        from hdi.quarantine import export

        export(lab.root / "dlq", lab.store.quarantine(), pl.concat([ledger, lab.store.ledger()]))
        assert names(lab)[0].split("/")[1].startswith(f"{ns_date(ledger['committed_at'][0]):%Y%m%d}_")

    def test_other_units_keep_theirs(self, mixed, tmp_path):
        lab, _ = mixed
        other = write(
            tmp_path / "o.dbn.zst", "trades", trades(5, [0], "2024-01-03"), window=("2024-01-03", "2024-01-04")
        )
        lab.good(other)
        lab.good(write(tmp_path / "mended.dbn.zst", "trades", records("trades", 9)), refetch=True)
        assert [(e["row"], e["ts_event"][:10]) for e in lab.entries()] == [(0, "2024-01-03")]


class TestRepairedAtStart:
    """Any ingest mends the folder first; a file that is skipped is enough."""

    @pytest.fixture
    def held(self, mixed):
        lab, path = mixed
        before = {p: p.read_bytes() for p in lab.dlq()}
        yield lab
        assert {o.status for o in lab.ingest(path)} == {"skipped"}
        assert {p: p.read_bytes() for p in lab.dlq()} == before

    def test_a_deleted_file(self, held):
        held.dlq()[0].unlink()

    def test_an_edited_file(self, held):
        held.dlq()[0].write_text("[]")

    def test_a_file_edited_to_the_same_length(self, held):
        path = held.dlq()[1]
        path.write_bytes(path.read_bytes().replace(b"trades", b"TRADES"))

    def test_a_deleted_folder(self, held):
        shutil.rmtree(held.root / "dlq")

    @pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"validation_failures/x.json": ["a", 1, 2]}', "null"])
    def test_a_damaged_index(self, held, text):
        index(held).write_text(text)
        held.dlq()[0].unlink()

    def test_a_file_of_a_unit_that_has_no_rejects_any_more(self, held):
        path = held.dlq()[1]
        stale = path.with_name(re.sub("[0-9a-f]{16}", "0" * 16, path.name))
        stale.write_text('{"validation_failures":[]}\n')
        index(held).unlink()

    def test_a_dry_run_changes_nothing(self, mixed):
        lab, path = mixed
        lab.dlq()[0].unlink()
        lab.ingest(path, dry_run=True)
        assert len(names(lab)) == 1


def test_files_of_other_people_in_the_folder_are_left_alone(mixed):
    lab, path = mixed
    for name in (
        "notes.txt",
        "mine.json",
        "20240101_validation_failures.json",
        "20240101_trades_nounit_validation_failures.json",
    ):
        (lab.root / "dlq" / "validation_failures" / name).write_text("mine")
    lab.ingest(path)
    assert len(names(lab)) == 2 + 3
    assert (lab.root / "dlq" / "validation_failures" / "notes.txt").exists()


def test_nothing_is_written_while_nothing_changes(mixed):
    lab, path = mixed
    before = {p: p.stat().st_mtime_ns for p in (lab.root / "dlq").rglob("*")}
    lab.ingest(path)
    assert {p: p.stat().st_mtime_ns for p in (lab.root / "dlq").rglob("*")} == before


class TestUnitsThatFail:
    def two(self, tmp_path, bad, n=1_000, name="f", **columns):
        """A file of two days; the first has ``bad`` rows without a size."""
        rows = np.concatenate([trades(n, range(bad), "2024-01-02", **columns), trades(n, [], "2024-01-03")])
        return write(tmp_path / f"{name}.dbn.zst", "trades", rows, window=TWO_DAYS)

    def test_only_over_both_limits(self, tmp_path):
        cases = [(100, 100, "stored"), (101, 101, "failed"), (101, 10_100, "stored"), (102, 10_100, "failed")]
        for k, (bad, n, status) in enumerate(cases):
            lab = Lab(tmp_path / str(k))
            path = write(tmp_path / f"{k}.dbn.zst", "trades", trades(n, range(bad)))
            assert lab.ingest(path)[0].status == status, (bad, n)

    def test_the_limits_are_options(self, lab, tmp_path):
        path = write(tmp_path / "f.dbn.zst", "trades", trades(10, [1, 2]))
        assert lab.ingest(path, min_rejects=1)[0].status == "failed"
        assert lab.ingest(path, min_rejects=1, max_reject_percent=19.9)[0].status == "failed"
        assert lab.ingest(path, min_rejects=1, max_reject_percent=20)[0].status == "stored"

    def test_the_other_units_of_the_file_are_stored(self, lab, tmp_path):
        (outcome,) = lab.ingest(self.two(tmp_path, 200))
        assert isinstance(outcome.error, TooManyRejects)
        assert outcome.error.exit_code == 4
        assert outcome.error.message.endswith(
            "200 of 1000 rows of ESH4 (2024-01-02T00:00:00Z to 2024-01-03T00:00:00Z) were rejected: "
            "NON_POSITIVE_SIZE 200"
        )
        assert "--max-rejects" in outcome.error.hint
        receipts = {
            r.unit.window.start: (r.status, r.fetched, r.stored, r.quarantined, r.exit_code) for r in outcome.receipts
        }
        assert receipts == {
            ns("2024-01-02"): ("failed", 1_000, 0, 200, 4),
            ns("2024-01-03"): ("complete", 1_000, 1_000, 0, 0),
        }
        assert set(lab.store.ledger()["status"]) == {"failed", "complete"}
        assert lab.rows("trades")["ts_recv"].dt.date().unique().len() == 1
        assert lab.store.coverage()["start"].unique().to_list() == [ns("2024-01-03")]

    def test_what_was_stored_before_stays_with_its_rejects(self, lab, tmp_path):
        lab.good(write(tmp_path / "first.dbn.zst", "trades", trades(50, [7])))
        before = lab.rows("trades"), lab.store.coverage()
        bad = write(tmp_path / "bad.dbn.zst", "trades", trades(500, range(200)))
        assert lab.error(bad, refetch=True).exit_code == 4
        assert lab.rows("trades").equals(before[0])
        assert lab.store.coverage().equals(before[1])
        kept = lab.store.quarantine().group_by("failed").len().sort("failed")
        assert kept.rows() == [(False, 1), (True, 200)]

    def test_counts_and_the_first_thousand_rows_of_each_rule_are_kept(self, lab, tmp_path):
        rows = trades(5_000, range(3_000))
        rows["side"][2_000:3_400] = b"?"
        rows["size"][3_400:3_410] = 2**32 - 1
        (outcome,) = lab.ingest(write(tmp_path / "f.dbn.zst", "trades", rows), batch_size=256)
        (receipt,) = outcome.receipts
        assert receipt.quarantined == 3_410
        assert receipt.rules == {"NON_POSITIVE_SIZE": 3_000, "INVALID_SIDE": 1_400, "MISSING_SIZE": 10}
        kept = lab.store.quarantine()
        by_rule = {k: v["row"].sort().to_list() for (k,), v in kept.group_by(pl.col("rules").list.first())}
        assert by_rule == {
            "NON_POSITIVE_SIZE": list(range(1_000)), "INVALID_SIDE": list(range(2_000, 3_000)),
            "MISSING_SIZE": list(range(3_400, 3_410)),
        }  # fmt: skip
        assert kept["failed"].all()
        assert all(e["failed"] for e in lab.entries())
        assert set(kept["raw_file"]) == {str(lab.raw()[0])}
        assert lab.tables() == {}

    def test_it_is_tried_again_with_the_next_run_and_a_mended_file_clears_it(self, lab, tmp_path):
        path = self.two(tmp_path, 200)
        assert lab.ingest(path)[0].status == "failed"
        assert lab.ingest(path)[0].status == "failed"
        assert lab.store.quarantine().height == 200
        assert lab.rows("trades").height == 1_000
        lab.good(self.two(tmp_path, 0, name="mended"))
        assert lab.store.quarantine().height == 0
        assert names(lab) == []
        assert lab.rows("trades").height == 2_000

    def test_a_higher_limit_lets_it_in(self, lab, tmp_path):
        path = self.two(tmp_path, 200)
        lab.ingest(path)
        lab.good(path, max_reject_percent=50)
        assert lab.rows("trades").height == 1_800
        assert lab.store.quarantine()["failed"].to_list() == [False] * 200

    def test_every_unit_of_several_symbols_may_fail(self, lab, tmp_path):
        rows = trades(600, range(600), instrument_id=1 + np.arange(600) % 2)
        days = {"A": [("2024-01-02", "2024-01-03", 1)], "B": [("2024-01-02", "2024-01-03", 2)]}
        path = write(tmp_path / "f.dbn.zst", "trades", rows, symbols=("A", "B"), mappings=days)
        (outcome,) = lab.ingest(path)
        assert outcome.error.exit_code == 4
        assert [(r.unit.symbol, r.status, r.quarantined) for r in outcome.receipts] == [
            ("A", "failed", 300),
            ("B", "failed", 300),
        ]
        assert lab.tables() == {}
        assert lab.store.coverage().height == 0

    def test_a_fragment_may_fail_too(self, lab, tmp_path):
        (outcome,) = lab.ingest(fragment(tmp_path / "f.dbn.zst", "trades", trades(300, range(200))))
        assert outcome.error.exit_code == 4
        assert lab.tables() == {}

    def test_what_arrived_unmapped_fails_by_itself(self, lab, tmp_path):
        rows = np.concatenate([trades(300, range(200), instrument_id=9), trades(300, [], instrument_id=1)])
        rows = np.sort(rows, order="ts_recv")
        path = write(tmp_path / "f.dbn.zst", "trades", rows, symbols=("A", "B"),
                     mappings={"A": [("2024-01-02", "2024-01-03", 1)]})  # fmt: skip
        (outcome,) = lab.ingest(path)
        assert "of unmapped (" in outcome.error.message
        assert lab.rows("trades")["instrument_id"].unique().to_list() == [1]
        assert 9 not in lab.store.coverage()["instrument_id"].to_list()

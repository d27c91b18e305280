"""The journal of a run: read while it is written, after a kill, and with whatever a dead process left of a line."""

import json
import os
import time
from decimal import Decimal

import pytest

from hdi.errors import CorruptFile, RequestError, StoreError
from hdi.journal import Journal, began, break_off, entries, find, started
from hdi.model import Outcome, Window

RUN = "20240115T103000-abc123"
STORE = {"url": "lake:/x", "identity": "lake:1:2"}
WORDS = {"api": "dbn", "files": ["/a/b.dbn"], "resumes": []}
OUTCOME = Outcome("/a/b.dbn", "stored", "GLBX.MDP3", "trades", ("ESH4",), Window(0, 10**9), units=1)
FAILED = Outcome("/a/c.dbn", "failed", error=CorruptFile("bits are gone", "Get it again."))


def journal(folder, run=RUN):
    return Journal(folder, run, WORDS, STORE)


def path(folder, run=RUN):
    return folder / "runs" / f"{run}.jsonl"


def only(folder):
    (entry,) = entries(folder)
    return entry


def test_a_journal_says_who_asked_for_what_from_its_first_line_on(tmp_path):
    kept = journal(tmp_path)
    entry = only(tmp_path)
    assert (entry.run, entry.status, entry.pid, entry.store, entry.request) == (
        RUN, "running", os.getpid(), STORE, WORDS,
    )  # fmt: skip
    kept.offer(3, 1_000, Decimal("1.5"))
    kept.add(OUTCOME)
    kept.add(FAILED)
    kept.end("failed")
    entry = only(tmp_path)
    assert entry.status == "failed"
    assert entry.offer["dollars"] == "1.5"
    assert [o["status"] for o in entry.outcomes] == ["stored", "failed"]
    (error,) = entry.errors
    assert error["error"] == {
        "type": "CorruptFile", "message": "bits are gone", "hint": "Get it again.", "exit_code": 4,
    }  # fmt: skip
    assert entry.started <= entry.ended


@pytest.mark.fault("clock", "jumps while a run keeps its journal", "-")
@pytest.mark.parametrize("years", [-3, 3])
def test_a_clock_that_jumps_makes_a_run_neither_longer_nor_shorter(tmp_path, monkeypatch, years):
    kept = journal(tmp_path)
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + years * 31_557_600 * 10**9)
    kept.add(OUTCOME)
    kept.end("done")
    entry = only(tmp_path)
    assert 0 <= entry.ended - entry.started < 60 * 10**9


def test_a_journal_without_a_last_line_that_nobody_holds_is_of_a_run_that_died(tmp_path):
    kept = journal(tmp_path)
    kept.add(OUTCOME)
    os.close(kept._fd)  # as the end of a process does
    assert only(tmp_path).status == "died"
    assert len(only(tmp_path).outcomes) == 1


@pytest.mark.parametrize("rest", [b'{"event": "out', b"\0" * 40, b"\0" * 40 + b"\n", b'"event"\n', b"17\n"])
def test_a_half_written_last_line_is_left_out(tmp_path, rest):
    kept = journal(tmp_path)
    kept.add(OUTCOME)
    with path(tmp_path).open("ab") as file:
        file.write(rest)
    assert len(only(tmp_path).outcomes) == 1
    kept.end("interrupted")


def test_a_journal_without_a_first_line_is_of_no_run(tmp_path):
    journal(tmp_path).end("interrupted")
    whole = path(tmp_path).read_bytes()
    for size in range(len(whole.splitlines(keepends=True)[0])):
        path(tmp_path).write_bytes(whole[:size])
        assert list(entries(tmp_path)) == []
    assert list(entries(tmp_path / "nothing")) == []


def test_a_run_that_found_nothing_to_do_leaves_no_journal(tmp_path):
    kept = journal(tmp_path)
    kept.add(Outcome("/a/b.dbn", "skipped"))
    kept.end("done")
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_run_that_finds_nothing_left_of_one_that_died_keeps_its_journal(tmp_path):
    os.close(journal(tmp_path)._fd)
    for run, before, kept in (("20240115T110000-000001", RUN, True), ("20240115T110000-000002", "x-1", False)):
        Journal(tmp_path, run, WORDS | {"resumes": [before]}, STORE).end("done")
        assert path(tmp_path, run).exists() is kept
    again = "20240115T110000-000003"
    Journal(tmp_path, again, WORDS | {"resumes": [RUN, "20240115T110000-000001"]}, STORE).end("done")
    assert not path(tmp_path, again).exists()


def test_a_process_that_is_broken_off_keeps_that_its_runs_were_interrupted(tmp_path):
    going, done = journal(tmp_path), journal(tmp_path, "20240115T110000-000001")
    done.end("failed")
    break_off()
    assert [e.status for e in entries(tmp_path)] == ["interrupted", "failed"]
    going.end("done")  # its thread may go on for a moment
    assert [e.status for e in entries(tmp_path)] == ["interrupted", "failed"]
    os.close(going._fd)


BROKEN = {
    "format": ({"format": 2}, {}, "format 2"),
    "run": ({"run": None}, {}, "no 'run'"),
    "at": ({"at": "yesterday"}, {}, "yesterday"),
    "store": ({"store": {"url": "lake:/x"}}, {}, "no 'identity'"),
    "request": ({"request": {"api": "dbn"}}, {}, "no 'symbols'"),
    "another": ({"run": "20240115T103000-ffffff"}, {}, "journal of 20240115T103000-ffffff"),
    "budget": ({"request": WORDS | {"budget": "much"}}, {}, "cannot be read"),
    "outcome": ({}, {"units": "many"}, "cannot be read"),
    "dollars": ({}, {"dollars": "NaN"}, "cannot be read"),
    "symbols": ({}, {"symbols": None, "path": ""}, "cannot be read"),
    "error": ({}, {"error": "no"}, "cannot be read"),
    "event": ({}, {"event": []}, "cannot be read"),
}


@pytest.mark.parametrize(("start", "outcome", "why"), BROKEN.values(), ids=BROKEN)
def test_a_journal_that_cannot_be_read_is_told_of_and_hides_no_other(tmp_path, start, outcome, why):
    other = "20240115T110000-000001"
    for run in (RUN, other):
        kept = journal(tmp_path, run)
        kept.add(OUTCOME)
        kept.end("failed")
    lines = [json.loads(line) for line in path(tmp_path).read_text().splitlines()]
    changed = [lines[0] | start, lines[1] | outcome, lines[2]]
    text = [json.dumps({k: v for k, v in line.items() if (k, v) != ("run", None)}) for line in changed]
    path(tmp_path).write_text("\n".join([*text, ""]))
    told = []
    assert [entry.run for entry in entries(tmp_path, told.append)] == [other]
    (message,) = told
    assert message.startswith(f"{path(tmp_path)} cannot be read: ")
    assert why in message


def test_what_is_no_file_is_told_of(tmp_path):
    journal(tmp_path).end("failed")
    path(tmp_path, "folder").mkdir()
    path(tmp_path, "link").symlink_to("nowhere")
    path(tmp_path, "text").write_text("hello\n")
    told = []
    assert [entry.run for entry in entries(tmp_path, told.append)] == [RUN]
    assert [text.split(" cannot be read: ")[1] for text in told] == [
        "it is not a file", "No such file or directory", "it does not begin as the journal of a run does",
    ]  # fmt: skip
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "runs").write_text("")
    assert list(entries(tmp_path / "other", told.append)) == []
    assert told[-1].endswith("runs cannot be read: Not a directory")


def test_a_journal_that_cannot_be_kept_is_a_store_that_refuses(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(StoreError, match="journal"):
        journal(tmp_path)


def test_a_run_is_found_by_the_beginning_of_its_name():
    names = ["20240115T103000-abc123", "20240115T103000-abd456", "20240116T090000-000000"]
    assert find(names, names[0]) == names[0]
    assert find(names, "20240116") == names[2]
    with pytest.raises(RequestError, match="begins 2 runs"):
        find(names, "20240115")
    with pytest.raises(RequestError) as wrong:
        find(names, "20240116T100000-000000")
    assert f"Did you mean {names[2]}?" in wrong.value.hint
    with pytest.raises(RequestError):
        find(names, "")
    with pytest.raises(RequestError, match="none is known"):
        find([], "2024")


def test_the_name_of_a_run_says_when_it_began():
    assert began(RUN) == 1_705_314_600 * 10**9


def test_the_journal_of_a_run_says_when_it_began_to_the_nanosecond(tmp_path):
    assert started(tmp_path, RUN) == began(RUN)
    journal(tmp_path).end("failed")
    assert started(tmp_path, RUN) == only(tmp_path).started > began(RUN)

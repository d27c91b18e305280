"""The journal of a run: read while it is written, after a kill, and with whatever a dead process left of a line."""

import json
import os
from decimal import Decimal

import pytest

from hdi.errors import CorruptFile, RequestError, StoreError
from hdi.journal import Journal, began, entries, find
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


def test_a_journal_of_a_newer_version_is_told_and_not_guessed_at(tmp_path):
    journal(tmp_path).end("interrupted")
    first, *rest = path(tmp_path).read_text().splitlines()
    path(tmp_path).write_text("\n".join([json.dumps(json.loads(first) | {"format": 2}), *rest, ""]))
    with pytest.raises(StoreError, match="format 2"):
        list(entries(tmp_path))


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

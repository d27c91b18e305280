"""What ``hdi status`` says of the last ingestion and of the logs: that of this store, and what was measured."""

import datetime as dt
import os
from types import SimpleNamespace

import pytest

from hdi import journal, settings
from hdi.errors import UnitFailed
from hdi.health import measure
from hdi.journal import Journal
from hdi.model import Outcome
from hdi.testing import Load, opened, trades
from hdi.testing.material import START, schemas


@pytest.fixture
def folder(tmp_path):
    """The settings of a working folder."""
    return settings.load(env={}, cwd=tmp_path)


@pytest.fixture
def lake(tmp_path):
    """A lake in which a run stored a row."""
    store = opened(f"lake:{tmp_path}/lake")
    Load(trades([START]), run="20240101T000000-aaaaaa").commit(store)
    return store


def begun(folder, store, run=None):
    """The journal of a run of now."""
    run = run or f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}-bbbbbb"
    words = {"api": "dbn", "files": ["a.dbn"], "resumes": []}
    return Journal(folder.data_dir, run, words, {"url": store.url, "identity": store.identity()})


def last(folder, store):
    return measure(folder, schemas(), lambda: store).last_ingestion


def test_a_run_that_failed_before_any_unit_is_the_last_ingestion_of_its_store_and_of_no_other(folder, lake, tmp_path):
    other = opened(f"lake:{tmp_path}/other")
    run = begun(folder, other)
    run.add(Outcome("a.dbn", "failed", error=UnitFailed("no")))
    run.end("failed")
    assert (last(folder, lake)["result"], last(folder, lake)["rows_stored"]) == ("success", 1)
    found = last(folder, other)
    assert (found["result"], found["failed_files"], found["units"]) == ("failed", 1, 0)


def test_a_run_that_died_is_not_taken_for_a_success(folder, lake):
    run = begun(folder, lake)
    assert last(folder, lake)["result"] == "running"
    journal._OPEN.discard(run)
    os.close(run._fd)
    assert last(folder, lake)["result"] == "died"
    again = begun(folder, lake, "29990101T000000-cccccc")
    again.add(Outcome("a.dbn", "stored"))
    again.end("done")
    assert last(folder, lake)["result"] == "success"


def test_a_full_disk_is_told_where_it_is_that_of_the_store_and_once_where_it_is_the_same(folder, lake, monkeypatch):
    free = {"lake": 1, "": 1 << 40}
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free["lake" * ("lake" in str(path))]))
    (told,) = measure(folder, schemas(), lambda: lake).problems
    assert told == f"only 1 bytes are free where the store lies: {lake.root}"
    free[""] = 2
    (told,) = measure(folder, schemas(), lambda: lake).problems
    assert told.startswith("only 2 bytes are free at ")


def test_logs_are_counted_without_their_locks_and_their_second_name(folder, lake):
    folder.log.dir.mkdir()
    for name in ("app.log", "app.log.1", ".app.log.lock", "results.json"):
        (folder.log.dir / name).write_text("1234")
    (folder.log.dir / "hist_data_ingestor.log").symlink_to("app.log")
    logs = measure(folder, schemas(), lambda: lake).logs
    assert (logs["files"], logs["bytes"]) == (2, 8)


def test_logs_that_cannot_be_looked_at_are_not_measured(folder, lake):
    folder.log.dir.write_text("a file")
    logs = measure(folder, schemas(), lambda: lake).logs
    assert (logs["files"], logs["bytes"]) == (None, None)

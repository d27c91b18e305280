"""Logs: one JSON object a line, in bounded files, whoever writes, and never a secret."""

import io
import json
import os
import stat
import subprocess
import sys
import threading
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import structlog

from hdi import logs, settings


@pytest.fixture(autouse=True)
def unconfigured():
    yield
    structlog.reset_defaults()


@pytest.fixture
def configure(tmp_path):
    def configure(*, env=None, **log):
        flags = {f"log.{key}": value for key, value in log.items()}
        logs.configure(settings.load(env=env or {}, flags=flags, cwd=tmp_path))
        return tmp_path / "logs"

    return configure


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def refuse(constant):
    raise AssertionError(constant)


def test_a_line_has_the_five_keys_and_everything_given_is_context(configure):
    folder = configure()
    before = datetime.now(UTC)
    log = structlog.get_logger().bind(component="PipelineOrchestrator")
    log.info("Pipeline completed", records_processed=3, level="a word", message="another")
    (line,) = lines(folder / "app.log")
    assert list(line) == ["timestamp", "level", "component", "message", "context"]
    assert line["timestamp"].endswith("Z")
    assert before <= datetime.fromisoformat(line["timestamp"]) <= datetime.now(UTC)
    assert line["level"] == "INFO"
    assert line["component"] == "PipelineOrchestrator"
    assert line["message"] == "Pipeline completed"
    assert line["context"] == {"records_processed": 3, "level": "a word", "message": "another"}


def test_a_logger_taken_before_configuring_writes_to_the_files_afterwards(configure):
    ours, theirs = logs.get_logger("Store"), structlog.get_logger(component="QueryBuilder")
    folder = configure()
    ours.info("one")
    theirs.info("two")
    assert [(line["component"], line["message"]) for line in lines(folder / "app.log")] == [
        ("Store", "one"),
        ("QueryBuilder", "two"),
    ]


def test_before_configuring_only_warnings_show_and_only_on_stderr(capsys):
    log = logs.get_logger("Store")
    log.info("quiet")
    log.warning("loud", symbol="ES.c.0")
    out, err = capsys.readouterr()
    assert out == ""
    assert [json.loads(line)["message"] for line in err.splitlines()] == ["loud"]


def test_components_have_files_of_their_own_beside_the_common_one(configure):
    folder = configure()
    for component in ("PipelineOrchestrator", "QueryBuilder", "DatabentoAdapter", "Store"):
        logs.get_logger(component).info("hello")
    assert len(lines(folder / "app.log")) == 4
    assert lines(folder / "hist_data_ingestor.log") == lines(folder / "app.log")
    for name in ("pipeline_orchestrator", "query_builder", "databento_adapter"):
        assert len(lines(folder / f"{name}.log")) == 1


def test_nothing_is_made_before_the_first_line_and_all_files_with_it(configure):
    folder = configure()
    logs.get_logger("Store").debug("below the level")
    assert not folder.exists()
    logs.get_logger("Store").info("hello")
    assert {path.name for path in folder.glob("*.log")} == {
        "app.log",
        "hist_data_ingestor.log",
        "pipeline_orchestrator.log",
        "query_builder.log",
        "databento_adapter.log",
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_the_level_of_the_settings_decides(configure, capsys):
    folder = configure(level="ERROR")
    log = logs.get_logger("Store")
    log.warning("no")
    log.error("yes")
    assert [line["level"] for line in lines(folder / "app.log")] == ["ERROR"]
    assert capsys.readouterr() == ("", "")


def test_at_debug_the_log_is_also_on_stderr(configure, capsys):
    folder = configure(level="DEBUG")
    logs.get_logger("Store").debug("detail")
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err) == lines(folder / "app.log")[0]


def test_an_exception_is_one_line_with_its_traceback(configure):
    folder = configure()
    try:
        {}["missing"]
    except KeyError:
        logs.get_logger("Store").exception("failed")
    (line,) = lines(folder / "app.log")
    assert line["level"] == "ERROR"
    assert "KeyError: 'missing'" in line["context"]["exception"]


def test_every_value_becomes_strict_json(configure):
    folder = configure()
    logs.get_logger("Store").info(
        "values\nin two lines",
        price=Decimal("0.000000001"),
        day=date(2024, 1, 2),
        took=timedelta(milliseconds=1500),
        nan=float("nan"),
        path=Path("a/b"),
        odd="x\udc80",
        many=({1}, [None, True]),
    )
    text = (folder / "app.log").read_text(encoding="utf-8")
    assert text.count("\n") == 1
    assert json.loads(text, parse_constant=refuse)["context"] == {
        "price": "1E-9",
        "day": "2024-01-02",
        "took": 1.5,
        "nan": "nan",
        "path": "a/b",
        "odd": "x\udc80",
        "many": [[1], [None, True]],
    }


# Secrets


def test_secrets_are_masked_wherever_they_stand(configure):
    secret = "hunter2-very-secret"
    folder = configure(env={"TIMESCALEDB_PASSWORD": secret, "DATABENTO_API_KEY": "k1"})
    log = logs.get_logger("Store")
    log.info(f"connecting with {secret}", note=f"<{secret}>", nested={"list": [secret, {"deep": f"x{secret}"}]})
    log.info("by key", password="p1", api_key="p2", Authorization="p3", ts_token="p4", options={"passwd": "p5"})
    log.info("by form", url="postgresql://me:p6@host:5432/db?sslmode=require", dsn="host=h password='p7 p7' user=me")
    log.info(
        "by form", header="Authorization: Bearer p8", key="db-" + "A1b2C" * 5 + "p9p9", query="a=1&api_key=p10&b=2"
    )
    log.info("alone", given="k1", inside="mark1")
    try:
        raise ValueError(secret)
    except ValueError:
        log.exception("in a traceback")
    text = (folder / "app.log").read_text(encoding="utf-8")
    assert secret not in text
    for n in range(1, 11):
        assert f"p{n}" not in text, n
    assert '"given": "***", "inside": "mark1"' in text
    assert "postgresql://me:***@host:5432/db?sslmode=require" in text
    assert "password=*** user=me" in text
    assert "a=1&api_key=***&b=2" in text


def test_what_only_looks_like_a_secret_is_kept(configure):
    folder = configure()
    context = {"symbol": "ES.c.0", "sort_key": "ts_event", "address": "host:8080/a@b", "tokens_used": 5, "secret": None}
    logs.get_logger("Store").info("nothing to hide at http://localhost:8080/path@home", **context)
    (line,) = lines(folder / "app.log")
    assert line["message"] == "nothing to hide at http://localhost:8080/path@home"
    assert line["context"] == context


# Files


def test_rotation_bounds_the_files_and_loses_none_of_the_newest_lines(configure):
    folder = configure(max_bytes=2048, backups=3)
    log = logs.get_logger("QueryBuilder")
    for n in range(200):
        log.info("Query executed", n=n)
    for name in ("app.log", "query_builder.log"):
        files = [folder / f"{name}.{k}" for k in (3, 2, 1)] + [folder / name]
        assert not (folder / f"{name}.4").exists()
        assert all(path.stat().st_size <= 2048 for path in files)
        numbers = [line["context"]["n"] for path in files for line in lines(path)]
        assert numbers == list(range(numbers[0], 200))
    assert (folder / "hist_data_ingestor.log").readlink() == Path("app.log")
    assert lines(folder / "hist_data_ingestor.log")[-1]["context"]["n"] == 199


def test_a_line_longer_than_a_file_is_kept_whole(configure):
    folder = configure(max_bytes=1024)
    log = logs.get_logger("Store")
    log.info("long", text="x" * 5000)
    log.info("short")
    assert [line["message"] for line in lines(folder / "app.log.1") + lines(folder / "app.log")] == ["long", "short"]


WRITER = """
import sys
from pathlib import Path
from hdi import logs, settings
who, count, max_bytes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
flags = {"log.max_bytes": max_bytes, "log.backups": 100}
logs.configure(settings.load(env={}, flags=flags, cwd=Path.cwd()))
log = logs.get_logger("PipelineOrchestrator")
sys.stdin.readline()
for n in range(count):
    log.info("line", who=who, n=n, filler="x" * (n % 300))
"""


def test_processes_that_log_and_rotate_at_once_lose_and_tear_no_line(tmp_path):
    count = 1000
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(who), str(count), "32768"], cwd=tmp_path, stdin=subprocess.PIPE
        )
        for who in range(4)
    ]
    for writer in writers:
        writer.stdin.write(b"go\n")
        writer.stdin.close()
    assert [writer.wait(60) for writer in writers] == [0] * 4
    for name in ("app.log", "pipeline_orchestrator.log"):
        files = list((tmp_path / "logs").glob(f"{name}*"))
        assert len(files) > 20
        seen = [(line["context"]["who"], line["context"]["n"]) for path in files for line in lines(path)]
        assert sorted(seen) == sorted((str(who), n) for who in range(4) for n in range(count))


def test_threads_that_log_at_once_lose_and_tear_no_line(configure):
    folder = configure(max_bytes=16384, backups=100)
    log = logs.get_logger("Store")

    def write(who):
        for n in range(500):
            log.info("line", who=who, n=n)

    threads = [threading.Thread(target=write, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = [(line["context"]["who"], line["context"]["n"]) for path in folder.glob("app.log*") for line in lines(path)]
    assert sorted(seen) == sorted((who, n) for who in range(4) for n in range(500))


def test_a_file_that_somebody_moved_away_is_made_again(configure):
    folder = configure()
    log = logs.get_logger("Store")
    log.info("one")
    (folder / "app.log").rename(folder / "kept.log")
    log.info("two")
    assert [line["message"] for line in lines(folder / "kept.log")] == ["one"]
    assert [line["message"] for line in lines(folder / "app.log")] == ["two"]


def test_a_wrong_alias_is_put_right_and_an_older_log_of_that_name_is_left_alone(configure, tmp_path):
    (tmp_path / "logs").mkdir()
    alias = tmp_path / "logs" / "hist_data_ingestor.log"
    alias.symlink_to("elsewhere")
    configure()
    logs.get_logger("Store").info("one")
    assert alias.readlink() == Path("app.log")
    alias.unlink()
    alias.write_text("older\n")
    configure()
    logs.get_logger("Store").info("two")
    assert alias.read_text() == "older\n"


def test_a_folder_that_cannot_be_written_costs_one_warning(configure, tmp_path, capsys):
    (tmp_path / "logs").write_text("a file stands where the folder should be")
    configure()
    log = logs.get_logger("QueryBuilder")
    log.info("one")
    log.info("two")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"hdi: warning: no log is kept: {tmp_path}/logs: ")


@pytest.mark.skipif(os.geteuid() != 0 and not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_costs_one_warning(configure, tmp_path, capsys):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "app.log").symlink_to("/dev/full")
    configure()
    logs.get_logger("Store").info("one")
    logs.get_logger("Store").info("two")
    assert capsys.readouterr().err.count("no log is kept") == 1


def test_a_closed_stderr_stops_nothing(configure, monkeypatch):
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    folder = configure(level="DEBUG")
    logs.get_logger("Store").info("one")
    assert len(lines(folder / "app.log")) == 1

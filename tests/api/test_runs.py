"""``hdi runs`` and ``--resume``: what became of every ingest, of those that were killed as well."""

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from decimal import Decimal

import pytest

from api.cradles import KILLED, Cradle
from api.desk import Ask, Desk, served
from api.truth import alike
from dbnfiles import records, write
from hdi import RequestError
from hdi.cli import run as hdi
from hdi.journal import Journal
from hdi.model import NS, iso_ns

MARKET = {"until": "2024-07-01", "scale": 0.01, "limits": 0.0}
#: Two downloads.
ASK = Ask("ES.c.0", "2024-03-13", "2024-03-14", "trades")
#: One, of two bars.
BARS = Ask("ES.c.0", "2024-03-13", "2024-03-14")
COMMIT = "hdi.buying.buying.commit_units"


@pytest.fixture(scope="module")
def cradle():
    with contextlib.closing(Cradle()) as made:
        yield made


@pytest.fixture(scope="module")
def vendor(tmp_path_factory):
    with served(tmp_path_factory.mktemp("trust"), **MARKET) as made:
        yield made


@pytest.fixture
def desk(tmp_path, vendor, monkeypatch):
    vendor.clear()
    for name, value in vendor.environment().items():
        if name != "REQUESTS_CA_BUNDLE":
            monkeypatch.setenv(name, value)
    return Desk(tmp_path / "desk", vendor, {"ingest.download_records": 1, "ingest.workers": 1})


@pytest.fixture
def cli(desk, monkeypatch, capfd):
    """``hdi`` on the desk's folders: code, stdout, stderr."""
    desk.folder.mkdir()
    monkeypatch.chdir(desk.folder)
    monkeypatch.setenv("HDI_STORE", str(desk.folder / "lake"))

    def call(*arguments):
        capfd.readouterr()
        code = hdi([str(a) for a in arguments])
        return code, *capfd.readouterr()

    return call


def runs(desk):
    with desk.open() as data:
        return data.runs()


def resume(desk, name=None):
    """The outcomes of repeating a run, by default the last."""
    with desk.open() as data:
        words = data.resumable(name or data.runs()[-1].run)
        del words["origin"]
        buying = data.buying(**words)
        return list(buying.run(buying.offer())[1])


def order(ask):
    """The words that ingest it."""
    return ["ingest", "--api", "databento", "--dataset", ask.dataset, "--schema", ask.schema, "--symbols", ask.symbols,
            "--start-date", ask.start, "--end-date", ask.end]  # fmt: skip


def billed(desk):
    """How often each order was answered."""
    return Counter((e.start, e.end) for e in desk.vendor.books.entries if e.finished)


def test_a_run_that_ended_well_is_done_with_its_counts_and_its_price(desk):
    desk.vendor.books.reset()
    receipts = desk.stored(ASK)
    (record,) = runs(desk)
    assert (record.status, record.units, record.failed, record.rejects) == ("done", 2, 0, 0)
    assert record.rows == sum(r.stored for r in receipts) > 0
    assert record.dollars == sum(r.dollars for r in receipts) > 0
    assert record.rate == pytest.approx(record.rows / record.seconds)
    assert record.entry.offer["records"] == record.rows
    assert record.what == "GLBX.MDP3 trades ES.c.0 2024-03-13 to 2024-03-14"
    (path,) = (desk.data_dir / "runs").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_an_ingest_that_finds_nothing_to_do_leaves_no_run(desk):
    desk.stored(ASK)
    assert desk.ingest(ASK) == []
    assert len(runs(desk)) == 1
    assert len(list((desk.data_dir / "runs").iterdir())) == 1


def test_a_run_that_was_killed_shows_as_died_and_is_gone_on_with(cradle, desk):
    desk.vendor.books.reset()
    assert cradle.run(desk, ASK, at=COMMIT) == KILLED
    (died,) = runs(desk)
    assert (died.status, died.units, died.rows) == ("died", 0, 0)
    assert died.entry.request["symbols"] == ["ES.c.0"]
    resume(desk)
    assert max(billed(desk).values()) == 1
    before, after = runs(desk)
    assert (before.status, before.resumed_by, after.status, after.units) == ("resumed", after.run, "done", 2)
    assert after.entry.request["resumes"] == [died.run]


def test_a_run_that_ended_well_is_repeated_for_nothing(desk):
    desk.stored(ASK)
    desk.vendor.books.reset()
    assert resume(desk) == []
    assert not desk.vendor.books.entries
    assert len(runs(desk)) == 1


def test_a_refetch_that_was_killed_pays_only_for_what_it_had_not_fetched(cradle, desk):
    desk.stored(ASK)
    # Killed when the first bytes had arrived, then when all was committed again.
    for place in ("hdi.buying.paid.check", "hdi.buying.buying.export_rejects"):
        desk.vendor.books.reset()
        assert cradle.run(desk, ASK, at=place, refetch=True) == KILLED
        resume(desk)
        resume(desk)
        assert list(billed(desk).values()) == [1, 1]
    desk.vendor.books.reset()
    desk.stored(ASK, refetch=True)
    assert len(billed(desk)) == 2  # a new one pays again


def test_a_run_lives_until_its_generator_ends_and_is_interrupted_when_that_is_closed(desk):
    with desk.open() as data:
        buying = desk.buying(data, ASK)
        outcomes = buying.run(buying.offer())[1]
        assert next(outcomes).status == "stored"
        (record,) = runs(desk)
        assert (record.status, record.units, record.ended) == ("running", 1, None)
        with pytest.raises(RequestError, match="is still running"):
            resume(desk, record.run)
        outcomes.close()
    (record,) = runs(desk)
    assert (record.status, record.units) == ("interrupted", 1)
    resume(desk)
    assert [(r.status, r.units) for r in runs(desk)] == [("resumed", 1), ("done", 1)]


def test_a_failed_run_shows_its_errors_in_full_and_is_gone_on_with(desk):
    desk.vendor.fault("422", method="timeseries.get_range", times=1)
    (error,) = desk.errors(ASK)
    (record,) = runs(desk)
    assert (record.status, record.failed, record.units) == ("failed", 1, 1)
    with desk.open() as data:
        detail = data.run(record.run[:-2])  # the beginning is enough
    assert [e["message"] for e in detail.errors] == [error.message]
    assert detail.errors[0]["hint"] == error.hint
    assert set(detail.receipts["status"]) == {"failed", "complete"}
    assert [o.status for o in resume(desk)] == ["stored"]


def test_runs_of_another_data_folder_are_known_by_their_receipts(desk):
    receipts = desk.stored(ASK)
    (here,) = runs(desk)
    desk.shared = desk.folder.parent / "elsewhere"
    (record,) = runs(desk)
    assert (record.run, record.status, record.units) == (here.run, "elsewhere", 2)
    assert (record.rows, record.dollars) == (here.rows, sum(r.dollars for r in receipts))
    with pytest.raises(RequestError, match="ran elsewhere"):
        resume(desk)


def test_a_store_made_anew_has_nothing_of_the_runs_of_the_one_before(desk, cli):
    desk.stored(BARS)
    shutil.rmtree(desk.folder / "lake")
    (before,) = runs(desk)
    assert (before.status, before.units, before.rows) == ("earlier", 0, 0)
    assert [r.status for r in resume(desk)] == ["stored"]
    old, new = runs(desk)
    assert (old.status, old.rows, new.status) == ("earlier", 0, "done")
    assert new.rows > 0
    assert "of a store that was at this address before" in cli("runs", old.run)[1]


def test_a_run_that_died_with_nothing_left_to_do_is_resumed_and_fails_no_more(cradle, desk, cli):
    assert cradle.run(desk, BARS, at="hdi.buying.buying.export_rejects") == KILLED
    (died,) = runs(desk)
    code, out, _ = cli("runs", died.run)
    assert f"last heard of at {iso_ns(died.heard // NS * NS)}, process" in out
    assert " s, process" not in out
    assert cli("ingest", "--resume", died.run)[0] == 0
    code, out, err = cli("runs", "--failed")
    assert (code, died.run in out, "no run that failed" in err) == (0, False, True)
    code, out, err = cli("runs", died.run)
    assert f"{died.run}: resumed" in out
    assert "went on with it" in out
    assert "--resume" not in err


def test_a_run_is_resumed_with_its_budget_and_its_waiting_and_an_option_wins(desk, cli):
    desk.vendor.fault("422", method="timeseries.get_range", times=1)
    desk.errors(BARS, budget=Decimal("0.5"), wait=False)
    words = runs(desk)[-1].entry.request
    assert (words["budget"], words["wait"]) == ("0.5", False)
    with desk.open() as data:
        name = data.runs()[-1].run
        again = data.resumable(name)
        del again["origin"]
        terms = data.buying(**again).terms
        assert (terms.budget, terms.wait) == (Decimal("0.5"), False)
    path = desk.data_dir / "runs" / f"{name}.jsonl"
    path.write_text(path.read_text().replace('"budget": "0.5"', '"budget": "0.000001"'))
    desk.vendor.books.reset()
    code, _, err = cli("ingest", "--resume", name)
    assert (code, "the budget is" in err) == (2, True)
    assert not desk.vendor.books.entries
    assert cli("ingest", "--resume", name, "--budget", "1")[0] == 0


def test_a_journal_that_cannot_be_read_hides_no_run_and_no_resuming(desk, cli):
    desk.stored(BARS)
    (record,) = runs(desk)
    bad = desk.data_dir / "runs" / "20240101T000000-000000.jsonl"
    bad.mkdir()
    for words in (("runs",), ("runs", record.run), ("ingest", "--resume", record.run)):
        code, _, err = cli(*words)
        assert code == 0
        assert err.count(f"{bad} cannot be read: it is not a file") == 1
    assert record.run in cli("runs")[1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_an_ingest_as_ctrl_c_does(desk, cli, monkeypatch, number, code):
    add = Journal.add

    def told(self, outcome):
        add(self, outcome)
        signal.raise_signal(number)

    monkeypatch.setattr(Journal, "add", told)
    found, _, err = cli(*order(BARS))
    assert (found, "interrupted after 1 unit" in err) == (code, True)
    monkeypatch.undo()
    (record,) = runs(desk)
    assert (record.status, record.units) == ("interrupted", 1)


def test_a_signal_ends_the_reading_of_files_as_ctrl_c_does(desk, cli, monkeypatch, tmp_path):
    monkeypatch.setattr(Journal, "add", lambda *_: signal.raise_signal(signal.SIGTERM))
    code, _, err = cli("ingest", "--api", "dbn", tmp_path / "none.dbn", "--origin", "synthetic")
    assert (code, "interrupted; what is stored is kept" in err) == (143, True)
    monkeypatch.undo()
    assert [r.status for r in runs(desk)] == ["interrupted"]


@pytest.mark.usefixtures("cli")
def test_two_interrupts_end_an_ingest_whose_vendor_is_stuck_at_once(desk):
    desk.vendor.fault("timeout:method=timeseries.get_range,seconds=30")
    desk.vendor.books.reset()
    command = [sys.executable, "-m", "hdi", *order(BARS)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
    try:
        end = time.monotonic() + 60
        while not desk.vendor.books.calls["timeseries.get_range"] and time.monotonic() < end:
            time.sleep(0.02)
        told = time.monotonic()
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)  # two at once would be one
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=60)[1]
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert time.monotonic() - told < 9  # before the time is up that one signal leaves
    assert "broken off" in err
    assert [r.status for r in runs(desk)] == ["interrupted"]


def test_a_run_of_another_store_or_vendor_is_not_repeated_here(desk):
    desk.stored(ASK)
    (record,) = runs(desk)
    other = desk.beside("other", shared=True)
    assert runs(other) == []
    desk.settings["databento.gateway"] = "https://hist.databento.com"
    with pytest.raises(RequestError, match="asked for synthetic data"):
        resume(desk, record.run)


def test_a_process_killed_while_it_makes_bars_is_followed_by_one_that_makes_them(cradle, desk):
    desk.stored(ASK)
    bought, ask = desk.beside("bought"), Ask("ES.c.0", ASK.start, ASK.end, "ohlcv-1m")
    bought.stored(ask)
    desk.vendor.books.reset()
    # Inside the commit, and between that and the claim of what was asked for.
    for at, step in (("", 2), ("hdi.buying.deriving.export_rejects", 0)):
        assert cradle.run(desk, ask, at=at, step=step, derive=True) == KILLED
    assert [r.status for r in runs(desk)] == ["done", "died", "died"]
    resume(desk)
    assert not desk.vendor.books.entries
    found, expected = desk.rows("ohlcv-1m"), bought.rows("ohlcv-1m")
    for row in (*found, *expected):
        del row["data_source"]
    alike(found, expected)
    assert desk.leftovers() == []


def test_files_that_a_run_named_are_read_again_and_their_errors_are_kept(desk, tmp_path, cli):
    good = write(tmp_path / "good.dbn.zst", "trades", records("trades", 3), window=("2024-01-02", "2024-01-03"),
                 symbols=("ESH4",), mappings={"ESH4": [("2024-01-02", "2024-01-03", 1)]})  # fmt: skip
    late = tmp_path / "late.dbn.zst"
    code, _, _ = cli("ingest", "--api", "dbn", good, late, "--origin", "synthetic", "--max-rejects", "7")
    assert code == 2
    (record,) = runs(desk)
    assert (record.status, record.units, record.failed) == ("failed", 1, 1)
    with desk.open() as data:
        (error,) = data.run(record.run).errors
        words = data.resumable(record.run)
    assert str(late) in error["what"]
    assert words["max_reject_percent"] == 7
    late.write_bytes(good.read_bytes())
    code, out, err = cli("ingest", "--resume", record.run)
    assert code == 0, err
    assert "going on with it" in err
    assert out.count("skipped") == 2
    assert cli("ingest", "--resume", record.run)[0] == 0


def test_the_command_lists_runs_and_shows_one(desk, cli):
    assert cli("runs")[0] == 0
    desk.stored(ASK)
    desk.stored(Ask("CL.c.0", "2024-03-13", "2024-03-13", "ohlcv-1d"))
    first, second = runs(desk)
    code, out, err = cli("runs", "--last", "1")
    assert code == 0
    assert second.run in out
    assert first.run not in out
    assert "the last 1 of 2 runs" in err
    assert "no run that failed" in cli("runs", "--failed")[2]
    code, out, _ = cli("--json", "runs")
    assert [r["run"] for r in json.loads(out)] == [first.run, second.run]
    code, out, _ = cli("--json", "runs", first.run)
    shown = json.loads(out)
    assert shown["request"]["schema"] == "trades"
    assert sum(r["stored"] for r in shown["receipts"]) == first.rows
    assert Decimal(shown["dollars"]) == first.dollars
    code, out, _ = cli("runs", first.run)
    assert code == 0
    assert all(text in out for text in ("complete", "2024-03-13T00:00:00Z", ".dbn.zst", "rows/s"))
    code, _, err = cli("runs", f"{first.run[:12]}-nothing")
    assert code == 2
    assert f"Did you mean {first.run}" in err
    code, _, err = cli("runs", "2")
    assert code == 2
    assert "begins 2 runs" in err


@pytest.mark.parametrize("beside", [("--schema", "tbbo"), ("--refetch",), ("--derive",), ("a.dbn",), ("--api", "dbn")])
def test_nothing_that_says_what_to_ingest_stands_beside_a_run_to_resume(cli, beside):
    code, out, err = cli("ingest", "--resume", "20240101T000000-abcdef", *beside)
    assert (code, out) == (2, "")
    assert "beside --resume" in err


def test_a_run_that_is_not_known_and_a_missing_source_are_refused(cli):
    code, _, err = cli("ingest", "--resume", "20240101T000000-abcdef")
    assert code == 2
    assert "there is no run '20240101T000000-abcdef'" in err
    code, _, err = cli("ingest", "--schema", "trades")
    assert code == 2
    assert "--api" in err

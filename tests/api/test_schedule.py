"""hdi schedule: as a process that is started, refused, and told to stop; and as text for systemd and cron."""

import datetime as dt
import getpass
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

from api.desk import Ask
from api.planned import DAILY, UTC, Office, World
from api.truth import alike
from hdi.cli import run
from hdi.cli.stopping import told_to_stop
from hdi.keeping.scheduling import State

MARCH = {"until": "2024-03-09"}
PATIENCE = 60
pytestmark = pytest.mark.parametrize("market", [MARCH], indirect=True)


@pytest.fixture
def office(tmp_path, vendor):
    return Office(tmp_path / "office", vendor).plan(daily=DAILY | {"cron": "15 6 * * *"})


@pytest.fixture
def start(office):
    """Starts ``hdi schedule`` as a process of its own; what is left of it is killed."""
    started = []

    def call(*words, **variables):
        command = [sys.executable, "-m", "hdi", *office.command("--json", "schedule", *words)]
        env = os.environ | office.variables() | {"PYTHONPATH": os.pathsep.join(sys.path)} | variables
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        started.append(process)
        return process

    yield call
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def hdi(office, capfd, monkeypatch):
    def call(*words, office=office):
        for name, value in office.variables().items():
            monkeypatch.setenv(name, value)
        code = run(office.command(*words))
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return call


def events(process, last):
    """The events of a process up to one of that kind."""
    found = []
    while not found or found[-1]["event"] != last:
        line = process.stdout.readline()
        assert line, process.communicate(timeout=PATIENCE)[1]
        found.append(json.loads(line))
    return found


def test_a_process_catches_up_at_once_is_alone_and_ends_well_on_sigterm(office, truth, start, hdi):
    first = start()
    told = events(first, "waiting")
    assert [each["event"] for each in told] == ["start", "end", "waiting"]
    assert (told[1]["status"], told[1]["stored"], told[1]["through"]) == ("synced", 11, "2024-03-09T00:00:00Z")
    alike(office.rows(), truth.rows(Ask("ES.c.0", DAILY["start_date"], "2024-03-08")))
    code, out, err = hdi("schedule")
    assert (code, out) == (2, "")
    assert f"another hdi schedule works on {office.data_dir}: process {first.pid} on " in err
    first.send_signal(signal.SIGTERM)
    out, err = first.communicate(timeout=PATIENCE)
    assert (first.returncode, json.loads(out)["event"], err) == (0, "stopped", "")
    state = json.loads((office.data_dir / "schedule.json").read_text())["jobs"]["daily"]
    assert state["through"] == "2024-03-09T00:00:00Z"
    code, out, _ = hdi("schedule", "--once")
    assert (code, out) == (0, "")


@pytest.mark.parametrize(("number", "fault", "words", "code"), [
    (signal.SIGTERM, "slow:rate=20", ["--once"], 143), (signal.SIGINT, "timeout:method=timeseries.get_range", [], 0),
])  # fmt: skip
def test_a_process_that_downloads_breaks_it_off_when_told_twice_and_the_next_goes_on(  # noqa: PLR0917
    office, truth, start, hdi, number, fault, words, code
):
    vendor = office.vendor
    vendor.fault(fault)
    process = start(*words)
    assert events(process, "start")
    end = time.monotonic() + PATIENCE
    while not vendor.books.calls["timeseries.get_range"] and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(number)
    time.sleep(0.3)  # two at once would be one
    process.send_signal(number)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert not (office.data_dir / "schedule.json").exists()
    vendor.clear()
    assert hdi("schedule", "--once")[0] == 0
    alike(office.rows(), truth.rows(Ask("ES.c.0", DAILY["start_date"], "2024-03-08")))
    assert office.leftovers() == []


@pytest.mark.parametrize(("success", "code"), [(True, 0), (False, 143)])
def test_to_be_told_to_end_is_success_for_what_goes_on_until_then_alone(market, success, code):  # noqa: ARG001
    with told_to_stop(success=success) as end:
        os.kill(os.getpid(), signal.SIGTERM)
        assert end.wait(PATIENCE)
    assert (end.told(), end.code) == (True, code)


def test_once_says_why_it_failed_and_gives_its_exit_code(vendor, hdi):
    vendor.fault("402")
    code, out, err = hdi("schedule", "--once")
    assert code == 3
    assert [line.split()[1] for line in out.splitlines()] == ["start", "failed", "paused"]
    assert "account_insufficient_funds" in err
    vendor.clear()
    assert hdi("schedule", "--once")[0] == 0


def test_what_costs_more_than_needs_a_yes_is_bought_only_with_force(office, vendor, hdi):
    (office.configs / "system_config.yaml").write_text("ingest: {confirm_above_usd: 0}\n")
    code, _, err = hdi("schedule", "--once")
    assert (code, "needs a yes\nGive --force" in err) == (2, True)
    assert vendor.books.entries == ()
    assert hdi("schedule", "--once", "--budget", "0.0001", "--force")[0] == 2
    assert vendor.books.entries == ()
    assert hdi("schedule", "--once", "--force")[0] == 0
    assert len(vendor.books.entries) == 1


def test_what_replaces_a_batch_job_that_failed_is_bought_by_nobody_but_a_person(office, vendor, hdi):
    (office.configs / "system_config.yaml").write_text("ingest: {batch_above_bytes: 0}\n")
    vendor.fault("failed-job")
    assert hdi("schedule", "--once")[0] == 1
    [entry] = vendor.books.entries
    vendor.clear()
    for words in (("schedule", "--once", "--force"), ("sync",)):
        code, _, err = hdi(*words)
        assert (code, entry.job in err, "needs a yes" in err) == (2, True, True)
    assert vendor.books.entries == (entry,)
    assert hdi("sync", "--force")[0] == 0
    assert len(vendor.books.entries) == 2


def test_a_refusal_of_the_account_lets_the_next_try_ask_again(office, vendor):
    vendor.fault("402")
    start = dt.datetime(2024, 3, 9, 12, tzinfo=UTC)
    world = World(office, start, start + dt.timedelta(hours=4))
    wait, asked = world.wait, []

    def mended(seconds):
        asked.append(sum(vendor.books.calls.values()))
        if len(world.what("paused")) == 2:
            vendor.clear()
        wait(seconds)

    world.wait = mended
    world.live()
    assert [event.what for event in world.events if event.what != "waiting"] == [
        "start", "failed", "paused", "start", "failed", "paused", "start", "end", "stopped",
    ]  # fmt: skip
    assert asked[0] == 1  # one call, and none after it before the next try
    assert State(office.data_dir).path.exists()


def test_jobs_on_the_schedule_need_a_cron_line(office, hdi):
    office.plan(daily=DAILY | {"sync": True})
    code, _, err = hdi("schedule", "--once")
    assert (code, "Write cron: '15 6 * * 2-6' below a job" in err) == (2, True)
    code, _, err = hdi("schedule", "daily")
    assert (code, "daily: without a cron line it is not known when" in err) == (2, True)
    assert hdi("schedule", "--systemd", "--cron")[0] == 2


# For systemd and cron


@pytest.fixture
def odd(tmp_path, vendor, monkeypatch):
    """An office in folders whose names have all that has to be escaped."""
    folder = tmp_path / 'a desk 100% $HOME "q" \\x [1]'
    monkeypatch.setenv("HDI_STORE", str(folder / "lake"))
    office = Office(folder, vendor).plan(daily=DAILY | {"cron": "15 6 * * *"}, other=DAILY | {
        "cron": "0 18 * * 1-5", "timezone": "America/Chicago",
    })  # fmt: skip
    monkeypatch.chdir(folder)
    return office


def unit(text):
    """(key, value) of a unit, in order."""
    lines = [line for line in text.splitlines() if line and not line.startswith(("#", "["))]
    return [tuple(line.split("=", 1)) for line in lines]


def words(value):
    """The words of a command or a list in a unit, as systemd takes them apart (systemd.syntax, systemd.service)."""
    return [word.replace("%%", "%") for word in shlex.split(value)]


def test_a_systemd_unit_is_complete_and_its_paths_are_absolute_and_escaped(odd, hdi, tmp_path, monkeypatch):
    program = shutil.which("hdi", path=os.path.dirname(sys.executable))  # noqa: PTH120
    monkeypatch.setattr(sys, "argv", [program])
    monkeypatch.setenv("DATABENTO_API_KEY", "db-" + "x" * 29)
    code, out, err = hdi("schedule", "--systemd", "--check-revisions", "daily", office=odd)
    assert code == 0
    found = unit(out)
    keys = dict(found)
    command = [word.replace("$$", "$") for word in words(keys["ExecStart"])]
    assert command == [
        program, "--store", f"lake:{odd.folder / 'lake'}", "--config-dir", str(odd.configs), "schedule",
        "--check-revisions", "daily",
    ]  # fmt: skip
    assert keys["WorkingDirectory"] == str(odd.folder).replace("%", "%%")
    assert keys["EnvironmentFile"] == f"-{odd.folder}/.env".replace("[", "[[]").replace("%", "%%")
    environment = [word for key, value in found if key == "Environment" for word in words(value)]
    assert f"HDI_DATA_DIR={odd.data_dir}" in environment
    assert f"DATABENTO_GATEWAY={odd.vendor.gateway}" in environment
    assert "x" * 29 not in out
    assert f"DATABENTO_API_KEY is a secret and is not written here: it must stand in {odd.folder}/.env" in err
    assert [words(value) for key, value in found if key == "ReadWritePaths"] == [[str(odd.folder)]]
    assert (keys["Restart"], keys["User"], keys["Type"]) == ("on-failure", getpass.getuser(), "exec")
    path = tmp_path / "hdi.service"
    path.write_text(out)
    if shutil.which("systemd-analyze"):
        done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_crontab_lines_run_in_a_shell_as_they_are_meant(odd, hdi, monkeypatch, tmp_path):
    shown = tmp_path / "hdi"
    shown.write_text('#!/bin/sh\npwd\necho "$HDI_DATA_DIR"\nprintf "%s\\n" "$@"\n')
    shown.chmod(0o700)
    monkeypatch.setattr(sys, "argv", [str(shown)])
    code, out, _ = hdi("schedule", "--cron", office=odd)
    assert code == 0
    _, utc, daily, chicago, other = out.splitlines()
    assert (utc, chicago) == ("CRON_TZ=UTC", "CRON_TZ=America/Chicago")
    assert daily.startswith("15 6 * * * cd ")
    assert other.startswith("0 18 * * 1-5 cd ")
    # cron takes \% for % and a bare % for the end of the line.
    text = other.removeprefix("0 18 * * 1-5 ")
    assert "%" not in text.replace("\\%", "")
    done = subprocess.run(["sh", "-c", text.replace("\\%", "%")], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.splitlines() == [
        str(odd.folder), str(odd.data_dir), "--store", f"lake:{odd.folder / 'lake'}", "--config-dir", str(odd.configs),
        "sync", "other",
    ]  # fmt: skip


def test_a_cron_line_that_crontabs_do_not_know_is_refused_with_its_place(odd, hdi):
    odd.plan(daily=DAILY | {"cron": "0 6 L * *"})
    code, out, err = hdi("schedule", "--cron", office=odd)
    assert (code, out) == (2, "")
    assert "databento_config.yaml:2:3: jobs.daily: '0 6 L * *' says what no crontab knows" in err
    assert hdi("schedule", "--systemd", office=odd)[0] == 0

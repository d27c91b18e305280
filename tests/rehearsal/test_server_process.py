"""The rehearsal vendor as a process of its own, and as the command ``hdi rehearse``."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import databento
import pytest
import typer
from typer.testing import CliRunner

from hdi.cli import rehearse as command
from hdi.cli.session import Session
from hdi.errors import RequestError
from hdi.rehearsal import Rehearsal, spawn

UNTIL = "2024-06-30"
PROGRAM = """
import sys, typer
from hdi.cli import rehearse
from hdi.cli.session import Session
app = typer.Typer()
app.callback()(lambda: None)
rehearse.register(app)
app(sys.argv[2:], obj=Session(json=sys.argv[1] == "json"), standalone_mode=False)
"""


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


class TestSpawned:
    def test_it_answers_bills_fails_and_leaves_nothing(self, connect, week, monkeypatch, tmp_path):
        file = tmp_path / "books.jsonl"
        with spawn(until=UNTIL, books=file, limits=0) as vendor:
            for name, value in vendor.environment().items():
                monkeypatch.setenv(name, value)
            client = connect(vendor)
            rows = client.timeseries.get_range(**week).to_ndarray()
            assert vendor.books.billed_bytes == rows.nbytes
            assert vendor.books.calls == {"timeseries.get_range": 1}
            vendor.fault("503", times=1, method="get_range")
            with pytest.raises(databento.BentoServerError):
                client.timeseries.get_range(**week)
            vendor.fault("cut:times=1", after=100)
            with pytest.raises(databento.BentoError):
                client.timeseries.get_range(**week)
            assert [entry.finished for entry in vendor.books.entries] == [True, False]
            with pytest.raises(RequestError, match="Known faults"):
                vendor.fault("418")
            vendor.fault("503")
            vendor.clear()
            assert client.metadata.list_datasets()
            lines = [json.loads(line) for line in file.read_text().splitlines()]
            assert [line["size"] for line in lines] == [entry.size for entry in vendor.books.entries]
            assert all(line["synthetic"] for line in lines)
            vendor.books.reset()
            assert (vendor.books.entries, vendor.books.dollars) == ((), 0)
            pid, folder = vendor.pid, vendor.ca_file.parent
        assert gone(pid)
        assert not folder.exists()

    def test_it_serves_the_same_as_one_in_this_process(self, connect, week, monkeypatch, vendor):
        here = connect(vendor).timeseries.get_range(**week | {"schema": "trades", "end": "2024-01-09"}).to_ndarray()
        with spawn(until=UNTIL) as there:
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(there.ca_file))
            found = connect(there).timeseries.get_range(**week | {"schema": "trades", "end": "2024-01-09"})
            assert found.to_ndarray().tobytes() == here.tobytes()

    def test_it_ends_with_the_process_that_started_it(self, tmp_path):
        script = f"""
            import os, signal
            from hdi.rehearsal import spawn
            with spawn(until={UNTIL!r}) as vendor:
                open({str(tmp_path / "told")!r}, "w").write(f"{{vendor.pid}} {{vendor.ca_file}}")
                os.kill(os.getpid(), signal.SIGKILL)
        """
        subprocess.run(
            [sys.executable, "-c", "import textwrap; exec(textwrap.dedent('''" + script + "'''))"], check=False
        )
        pid, name = (tmp_path / "told").read_text().split()
        file = Path(name)
        deadline = time.monotonic() + 20
        while not (gone(int(pid)) and not file.exists()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert gone(int(pid))
        assert not file.exists()

    def test_one_that_cannot_start_is_said(self, vendor):
        from hdi.errors import UnitFailed

        port = int(vendor.gateway.rsplit(":", 1)[1])
        with pytest.raises(UnitFailed, match="did not start"), spawn(port, until=UNTIL):
            pass
        with pytest.raises(RequestError, match="not a date"):
            spawn(until="soon")


class TestCommand:
    @pytest.fixture
    def run(self):
        """Starts the command and gives it with the lines of its stdout, read up to what is told of the gateway."""
        started = []

        def call(form, *arguments):
            command = [sys.executable, "-c", PROGRAM, form, "rehearse", "--until", UNTIL, "--no-limits", *arguments]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            started.append(process)
            lines = [process.stdout.readline() for _ in range(1 if form == "json" else 3)]
            return process, lines

        yield call
        for process in started:
            process.kill()
            process.communicate()

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_it_prints_what_to_export_serves_and_ends_cleanly(self, run, week, monkeypatch, tmp_path, number):
        process, lines = run("text", "--folder", str(tmp_path / "ca dir"), "--fault", "503:times=1", "--seed", "3")
        shown = subprocess.run(
            ["bash", "-c", "".join(lines) + "env -0"], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True,
            check=True,
        ).stdout  # fmt: skip
        told = dict(line.split("=", 1) for line in shown.split("\0") if "=" in line)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", told["REQUESTS_CA_BUNDLE"])
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        client = databento.Historical(told["DATABENTO_API_KEY"], told["DATABENTO_GATEWAY"])
        with pytest.raises(databento.BentoServerError):
            client.timeseries.get_range(**week)
        assert len(client.timeseries.get_range(**week).to_ndarray()) == 5
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out) == (0, "")
        assert "SYNTHETIC data: the rehearsal vendor serves at https://127.0.0.1:" in err
        assert "stopped; 1 streams" in err

    def test_it_prints_one_document_for_machines(self, run, monkeypatch, tmp_path):
        file = tmp_path / "books.jsonl"
        process, lines = run("json", "--hostile", "2", "--scale", "0.5", "--books", str(file))
        told = json.loads(lines[0])
        assert told["synthetic"] is True
        assert told["environment"]["DATABENTO_GATEWAY"] == told["gateway"]
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", told["ca_file"])
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        client = databento.Historical(told["key"], told["gateway"])
        client.timeseries.get_range("GLBX.MDP3", "2024-01-08", symbols="ESH4", schema="ohlcv-1d")
        assert json.loads(file.read_text())["symbols"] == ["ESH4"]
        process.terminate()
        assert process.wait(20) == 0

    @pytest.mark.parametrize("wrong", [["--until", "soon"], ["--fault", "418"], ["--scale", "0"]])
    def test_an_option_that_is_wrong_is_a_request_error(self, wrong):
        app = typer.Typer()
        app.callback()(lambda: None)
        command.register(app)
        ran = CliRunner().invoke(app, ["rehearse", *wrong], obj=Session())
        assert isinstance(ran.exception, RequestError)


@pytest.mark.usefixtures("rehearsal_vendor")
def test_starting_is_quick_after_the_first():
    began = time.monotonic()
    with Rehearsal(until=UNTIL):
        pass
    assert time.monotonic() - began < 0.3

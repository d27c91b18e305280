"""The program as a process: pipes, terminals, signals, and what starting it costs in imports."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from hdi.testing import Load, opened, trades
from hdi.testing.material import START

ROOT = Path(__file__).parents[2]
QUOTES = ("query", "-s", "ESH4,CLG4", "--start-date", "2024-01-02", "--end-date", "2024-01-04", "--schema", "tbbo")
DAILY = ("query", "-s", "ES.c.0", "--start-date", "2024-01-01", "--end-date", "2024-01-31")


@pytest.fixture
def hdi(demo_home):
    return [sys.executable, "-m", "hdi", "--store", f"lake:{demo_home / 'lake'}"]


@pytest.fixture
def terminal(hdi):
    """Runs a command with stdin and stdout on a terminal, typing ``answer``."""

    def call(*arguments, answer="", env=()):
        ours, theirs = pty.openpty()
        env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200", **dict(env)}
        with subprocess.Popen(
            [*hdi, *arguments], stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env=env, text=True
        ) as process:  # fmt: skip
            os.close(theirs)
            if answer:
                os.write(ours, f"{answer}\n".encode())
            out = b""
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                if select.select([ours], [], [], 0.05)[0]:
                    try:
                        out += os.read(ours, 65536)
                    except OSError:
                        break
                elif process.poll() is not None:
                    break
            err = process.stderr.read()
        os.close(ours)
        return process.returncode, out.decode(), err

    return call


@pytest.fixture(params=["", "1"], ids=["buffered", "unbuffered"])
def buffering(request, monkeypatch):
    """Python buffers standard output, or not, as in most containers: then a write may take a part of what is given."""
    monkeypatch.setenv("PYTHONUNBUFFERED", request.param)


@pytest.mark.usefixtures("buffering")
def test_head_ends_it_cleanly(hdi):
    command = " ".join([*hdi, *QUOTES, "--output-format", "csv", "|", "head", "-2"])
    ran = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert ran.returncode == 0
    assert ran.stdout.count("\n") == 2
    assert ran.stderr == ""


@pytest.mark.usefixtures("buffering")
def test_signals_while_it_writes_lose_no_byte():
    writes = (
        "import signal\nfrom hdi.cli.output import to_stdout\n"
        "signal.signal(signal.SIGALRM, lambda *_: None)\nsignal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)\n"
        "with to_stdout() as file:\n    file.write(b'0123456789' * 300_000)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0)\n"
    )
    with subprocess.Popen([sys.executable, "-c", writes], stdout=subprocess.PIPE) as process:
        read = b""
        while part := os.read(process.stdout.fileno(), 1 << 14):
            read += part
            time.sleep(0.001)  # it waits for who reads, and meanwhile signals come
    assert process.returncode == 0
    assert read == b"0123456789" * 300_000


def test_a_full_disk_behind_stdout_is_one_line_and_exit_1(hdi):
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run(
            [*hdi, *QUOTES, "--output-format", "csv"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert ran.returncode == 1
    assert ran.stderr.startswith(b"error: standard output: cannot be written: No space left")
    assert b"Traceback" not in ran.stderr


def test_an_interrupt_is_exit_130(hdi):
    with subprocess.Popen(
        [*hdi, *QUOTES, "--output-format", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:  # fmt: skip
        process.stdout.read(1)  # it writes more than a pipe holds, and waits
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Traceback" not in err


def test_an_interrupt_while_the_commands_are_imported_is_exit_130_without_a_traceback():
    interrupted = (
        "import signal, sys\n"
        "class Hook:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'hdi.cli.app': signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Hook())\n"
        "from hdi.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", interrupted], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_python_main_py_is_the_same_program(hdi):
    ran = subprocess.run(
        [sys.executable, ROOT / "main.py", *hdi[3:], *DAILY], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0
    assert "21 rows in" in ran.stderr


def test_a_terminal_gets_a_table_with_colours_unless_they_are_off(terminal):
    code, out, err = terminal(*DAILY)
    assert code == 0
    assert "\x1b[1m" in out
    assert "2024-01-31T00:00:00Z" in out
    assert "21 rows in" in err
    assert "\x1b[3" not in terminal(*DAILY, env={"NO_COLOR": "1"}.items())[1]


def test_a_long_table_of_ticks_is_asked_about_on_a_terminal_only(terminal, hdi):
    code, out, err = terminal(*QUOTES, answer="n")
    assert (code, "2024-01-02T" in out) == (130, False)
    assert "A table of tbbo of 3 days and 2 symbols may be long. Print it?" in err
    code, out, _ = terminal(*QUOTES[:-1], "ohlcv-1m", "--limit", "3")
    assert (code, "2024-01-02T" in out) == (0, True)
    code, out, err = terminal(*QUOTES[:5], *QUOTES[5:6], "2024-01-02", *QUOTES[7:], "--force", "--limit", "2000")
    assert (code, "Print it?" in err) == (0, False)
    ran = subprocess.run([*hdi, *QUOTES], capture_output=True, text=True, check=False)
    assert ran.returncode == 0
    assert ran.stdout.count("\n") == 2 + 19500
    assert ran.stderr.startswith("warning: a table of tbbo of 3 days and 2 symbols may be long")


def test_binary_formats_are_kept_off_a_terminal(terminal):
    code, out, err = terminal(*DAILY, "--output-format", "parquet")
    assert (code, out) == (2, "")
    assert "--output-file" in err


def imported(*command):
    ran = subprocess.run([sys.executable, "-X", "importtime", *command], capture_output=True, text=True, check=True)
    names = {m[1] for m in re.finditer(r"^import time:.*\|\s*(\S+)$", ran.stderr, re.MULTILINE)}
    return names | {name.split(".")[0] for name in names}


def test_importing_the_package_and_asking_for_help_load_nothing_heavy():
    heavy = {
        "polars",
        "numpy",
        "pyarrow",
        "pydantic",
        "structlog",
        "deltalake",
        "databento_dbn",
        "databento",
        "pandera",
        "rich",
    }
    assert not imported("-c", "import hdi; hdi.__all__; dir(hdi)") & (heavy | {"typer"})
    assert not imported("-m", "hdi", "--help") & heavy
    assert not imported("-m", "hdi", "query", "--help") & (heavy - {"pydantic"})


def test_a_query_loads_neither_the_vendors_library_nor_what_only_ingesting_needs(hdi):
    loaded = imported(*hdi[1:], *DAILY)
    assert "polars" in loaded
    assert not loaded & {
        "databento",
        "databento_dbn",
        "pandera",
        "duckdb",
        "pyarrow",
        "pandas",
        "rich.console",
        "pygments",
        "hdi.cli.ingest",
    }
    assert not {name for name in loaded if name.startswith(("hdi.calendars", "hdi.buying", "hdi.gaps", "hdi.then"))}


def test_a_query_of_a_few_rows_loads_no_numpy(tmp_path):
    with closing(opened(f"lake:{tmp_path}/lake")) as store:
        Load(trades([START, START + 1])).commit(store)
    loaded = imported("-m", "hdi", "--store", f"{tmp_path}/lake", "query", "-s", "1", "--schema", "trades", "--force")
    assert "deltalake" in loaded
    assert "numpy" not in loaded


def test_every_public_name_can_be_imported():
    code = "import hdi, json; print(json.dumps([type(getattr(hdi, n)).__name__ for n in hdi.__all__]))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(json.loads(ran.stdout)) >= 20

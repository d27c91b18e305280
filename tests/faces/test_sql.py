"""``hdi sql``: statements from the command line, from files and pipes, and the shell on a real terminal."""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import polars as pl
import pytest

from hdi.cli.sqlshell import _meant, completions, history_path

COUNT = "SELECT granularity, count(*) AS n FROM ohlcv_data GROUP BY 1 ORDER BY 1"


@pytest.fixture
def sql(cli, demo_home):
    """Runs ``hdi sql`` on the demo's lake."""

    def call(*arguments, before=()):
        return cli("--store", f"lake:{demo_home / 'lake'}", *before, "sql", *arguments)

    return call


def test_a_statement_is_answered_in_each_format(sql, tmp_path):
    table = sql(COUNT)
    assert table.code == 0
    assert table.out.split()[:2] == ["granularity", "n"]
    rows = json.loads(sql(COUNT, before=["--json"]).out)
    assert json.loads(sql(COUNT, "--output-format", "json").out) == rows
    lines = sql(COUNT, "--output-format", "csv").out.splitlines()
    assert lines == ["granularity,n", *(f"{r['granularity']},{r['n']}" for r in rows)]
    for ending, read in (("parquet", pl.read_parquet), ("arrow", pl.read_ipc)):
        ran = sql(COUNT, "--output-file", tmp_path / f"x.{ending}")
        assert ran.code == 0
        assert read(tmp_path / f"x.{ending}").rows(named=True) == rows


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_times_have_as_many_digits_as_they_were_kept_with(sql, form):
    at = "2024-03-11 00:00:02.211238+00"
    kinds = f"SELECT TIMESTAMPTZ '{at}' AS micro, make_timestamp_ns(1710115202211238001) AS nano"
    out = sql(kinds, "--output-format", form).out
    assert "2024-03-11T00:00:02.211238Z" in out
    assert "2024-03-11T00:00:02.211238001" in out


def test_a_limit_cuts_rows_off_and_says_so(sql):
    ran = sql("SELECT symbol FROM ohlcv_data", "--limit", "2", "--output-format", "csv")
    assert len(ran.out.splitlines()) == 3
    assert "--limit 2 cut them off" in ran.err


def test_what_is_wrong_is_shown_with_its_place(sql):
    ran = sql("SELECT clse_price\nFROM ohlcv_data")
    assert (ran.code, ran.out) == (2, "")
    assert "error: unknown column 'clse_price'\nline 1: SELECT clse_price\n               ^\n" in ran.err
    assert "Did you mean close_price" in ran.err
    assert sql("DROP TABLE coverage").code == 2
    assert sql("SELECT 1", "--file", "x.sql").code == 2
    assert sql("--file", "no.sql").code == 2
    assert sql("SELECT 1", "--as-of", "2001-01-01").code == 2


def test_statements_come_from_a_file_one_after_the_other(sql, tmp_path):
    path = tmp_path / "x.sql"
    path.write_text("-- first;\nSELECT ';' AS a;\nSELECT 2 AS b")
    ran = sql("--file", path, "--output-format", "csv")
    assert ran.out.splitlines() == ["a", ";", "b", "2"]
    refused = sql("--file", path, "--output-file", tmp_path / "x.csv")
    assert refused.code == 2
    assert not (tmp_path / "x.csv").exists()


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_statements_come_from_a_pipe(demo_home, arguments):
    command = [sys.executable, "-m", "hdi", "--store", f"lake:{demo_home / 'lake'}", "sql", *arguments]
    ran = subprocess.run(
        [*command, "--output-format", "csv"], input="SELECT 1 AS a; SELECT 2 AS b;\n", capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert ran.stdout.splitlines() == ["a", "1", "b", "2"]


def test_as_of_an_instant_it_says_what_was_there_then(sql):
    began = json.loads(sql("SELECT max(committed_at) AS at FROM ingest_units", before=["--json"]).out)[0]["at"]
    then = json.loads(sql("SELECT count(*) AS n FROM ingest_units", "--as-of", began, before=["--json"]).out)
    now = json.loads(sql("SELECT count(*) AS n FROM ingest_units", before=["--json"]).out)
    assert 0 < then[0]["n"] < now[0]["n"]


def test_help_loads_neither_the_engine_nor_the_shell():
    code = (
        "import sys; from hdi.cli import run; run(['sql', '--help']); run(['--help']);"
        "print([m for m in ('duckdb', 'prompt_toolkit', 'polars', 'psycopg') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"


def test_ctrl_c_ends_a_statement_with_130(demo_home, tmp_path):
    command = [sys.executable, "-m", "hdi", "--store", f"lake:{demo_home / 'lake'}", "sql"]
    with subprocess.Popen([*command, "SELECT sum(hash(a.range)) FROM range(10000000000000) a"],
                          stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "TMPDIR": str(tmp_path)}) as process:  # fmt: skip
        while not list(tmp_path.glob("hdi-sql-*")):
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        try:
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, err.splitlines()[-1]) == (130, "interrupted")
    assert not list(tmp_path.glob("hdi-sql-*"))


# --- the shell --------------------------------------------------------------------------------


class Terminal:
    """A shell on a terminal of its own: what is typed goes in, and what is shown comes out."""

    def __init__(self, command, env):
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
        # Ctrl-C comes from the terminal that controls the process.
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *command], stdin=theirs, stdout=theirs, stderr=theirs,
            env={**os.environ, "TERM": "xterm-256color", **env},
        )  # fmt: skip
        os.close(theirs)
        self._seen = b""

    def until(self, word):
        """What is shown up to a word."""
        deadline = time.monotonic() + 120
        while word.encode() not in self._seen:
            assert time.monotonic() < deadline, self._seen[-500:]
            if not select.select([self._ours], [], [], 0.1)[0]:
                continue
            try:
                came = os.read(self._ours, 65536)
            except OSError:  # it has gone
                break
            if b"\x1b[6n" in came:  # where is the cursor?
                os.write(self._ours, b"\x1b[1;1R")
            self._seen += came
        shown, _, self._seen = self._seen.partition(word.encode())
        return shown.decode(errors="replace")

    def type(self, text):
        os.write(self._ours, text.encode())

    def cooked(self):
        """True once the prompt has given the terminal back: before, Ctrl-C is a key like any other."""
        return bool(termios.tcgetattr(self._ours)[3] & termios.ISIG)

    def close(self):
        os.close(self._ours)
        self.process.kill()
        self.process.wait()


@pytest.fixture
def shell(demo_home, tmp_path):
    """A shell on the demo's lake."""
    command = [sys.executable, "-m", "hdi", "--store", f"lake:{demo_home / 'lake'}", "sql"]
    (tmp_path / "spill").mkdir()
    made = Terminal(command, {
        "XDG_STATE_HOME": str(tmp_path / "state"), "PAGER": "sh -c 'sleep 0.2; cat'", "TMPDIR": str(tmp_path / "spill"),
    })  # fmt: skip
    yield made
    made.close()


def test_the_shell_answers_completes_survives_errors_and_remembers(shell, tmp_path):
    shell.until("hdi>")
    shell.type("SELECT count(*) AS answer\r")
    shell.until("...>")
    shell.type("FROM trades_data;\r")
    assert "------" in shell.until("1 row in "), "the pager is over before anything else is said"
    shell.type("SELECT clse_price FROM ohlcv_data;\r")
    shell.until("Did you mean close_price")
    shell.type(".schema trades_data\r")
    shell.until("DECIMAL(18,9)")
    shell.until("hdi>")
    shell.type("SELECT dataset FROM cover\t")
    shell.until("age")  # what was typed is not drawn again
    shell.type(" LIMIT 1;\r")
    shell.until("1 row in ")
    shell.until("hdi>")
    before = set((tmp_path / "spill").iterdir())
    shell.type("SELECT sum(hash(a.range)) FROM range(10000000000000) a;\r")
    while not (set((tmp_path / "spill").iterdir()) - before and shell.cooked()):
        assert shell.process.poll() is None
        time.sleep(0.05)
    shell.type("\x03")
    shell.until("interrupted")
    shell.type(".tables\r")
    shell.until("trades_data_by_symbol")
    shell.type(".quit\r")
    assert shell.process.wait(20) == 0
    path = tmp_path / "state" / "hdi" / "sql_history"
    assert path.stat().st_mode & 0o777 == 0o600
    assert "FROM trades_data;" in path.read_text()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("exit", [".quit"]), ("QUIT;", [".quit"]), ("help", [".help"]), ("\\d", [".tables"]),
        ("\\d trades_data", [".schema", "trades_data"]), (".schema trades_data", [".schema", "trades_data"]),
        ("SELECT 1;", []), ("help me", []), ("", []),
    ],
)  # fmt: skip
def test_the_shell_takes_the_words_of_other_shells(line, words):
    assert _meant(line) == words


class Known:
    """Names that a test can say by heart."""

    tables = {"trades_data": [("price", "x")], "tbbo_data": [("bid_px", "x")]}  # noqa: RUF012
    columns = ["bid_px", "price"]  # noqa: RUF012
    symbols = ["CL.c.0", "ESH4", "ESM4"]  # noqa: RUF012


@pytest.mark.parametrize(("before", "expected"), [
    ("SELECT * FROM tr", ["trades_data"]), ("select pri", ["price"]), ("SEL", ["SELECT"]), ("sel", ["select"]),
    ("... WHERE asked_symbol = 'ES", ["ESH4", "ESM4"]), ("... WHERE asked_symbol='cl", ["CL.c.0"]),
    ("... WHERE side = 'E", []), (".sch", [".schema"]), (".schema tb", ["tbbo_data"]), ("", []),
])  # fmt: skip
def test_completion_knows_tables_columns_keywords_and_symbols(before, expected):
    assert [word for word, _ in completions(before, Known())] == expected


def test_the_history_lies_in_the_users_folder_for_state(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert history_path() == tmp_path / "hdi" / "sql_history"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert history_path() == tmp_path / ".local" / "state" / "hdi" / "sql_history"

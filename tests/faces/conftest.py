"""The command line in this process, and DBN files with a few rows that a test can say by heart."""

import datetime as dt
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

import dbnfiles
import hdi
from dbnfiles import PX
from hdi.cli import run
from tape import make_tape

BARS = ("open", "high", "low", "close")


def ns(text):
    """Nanoseconds of an ISO time, UTC; a date is its midnight."""
    return int(dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp()) * 10**9


def write_dbn(path, schema, rows, symbols, window, mappings=None, *, stype="raw_symbol", **more):
    """A DBN file of bars: dicts with ``at``, ``id``, ``ohlc``, ``volume`` and ``publisher``."""
    columns = {
        "ts_event": [ns(row["at"]) for row in rows],
        "instrument_id": [row["id"] for row in rows],
        "publisher_id": [row.get("publisher", 1) for row in rows],
        "volume": [row.get("volume", 1) for row in rows],
        **{name: [round(row["ohlc"][i] * PX) for row in rows] for i, name in enumerate(BARS)},
    }
    records = dbnfiles.records(schema, len(rows), **columns)
    return dbnfiles.write(
        path, schema, records, symbols=symbols, stype_in=stype, window=(ns(window[0]), ns(window[1])),
        mappings=mappings or {}, **more,
    )  # fmt: skip


@dataclass
class Ran:
    code: int
    out: str
    err: str
    raw: bytes


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """Every test in a folder of its own, without variables of the one who runs it."""
    for name in list(os.environ):
        if name.startswith(("HDI_", "TIMESCALEDB_", "DATABENTO_")) and name != "HDI_REAL_DATA":
            monkeypatch.delenv(name)
    for name in ("LOG_LEVEL", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def cli(capfdbinary):
    """Runs one command line in this process."""

    def call(*arguments):
        capfdbinary.readouterr()
        code = run([str(a) for a in arguments])
        out, err = capfdbinary.readouterr()
        return Ran(code, out.decode(errors="replace"), err.decode(), out)

    return call


@pytest.fixture
def store(tmp_path):
    """An empty lake's URL."""
    return f"lake:{tmp_path / 'lake'}"


@pytest.fixture
def data(store):
    """The facade on an empty lake."""
    with hdi.HistoricalData.open(store) as facade:
        yield facade


@pytest.fixture
def put(data, tmp_path):
    """Ingests rows as one DBN file, which must be stored."""
    count = iter(range(1000))

    def call(schema, rows, symbols, window, mappings=None, **more):
        path = write_dbn(tmp_path / "files" / f"{next(count)}.dbn.zst", schema, rows, symbols, window, mappings, **more)
        (outcome,) = data.ingest_files([path])
        assert outcome.status == "stored", outcome.error
        return outcome

    return call


@pytest.fixture(scope="session")
def demo_home(tmp_path_factory):
    """The demo's files, ingested: ``files/`` and ``lake/``. Nobody writes there."""
    home = tmp_path_factory.mktemp("demo")
    tape = make_tape(home / "files")
    before = Path.cwd()
    os.chdir(home)
    try:
        with hdi.HistoricalData.open(f"lake:{home / 'lake'}", data_dir=home) as facade:
            outcomes = list(facade.ingest_files(tape.paths, origin="synthetic"))
    finally:
        os.chdir(before)
    assert [o.status for o in outcomes] == ["stored"] * len(tape.paths)
    return home


@pytest.fixture
def ask(cli, demo_home):
    """Runs ``hdi query`` on the demo's lake."""

    def call(*arguments, before=()):
        return cli("--store", f"lake:{demo_home / 'lake'}", *before, "query", *arguments)

    return call


@pytest.fixture
def own_demo(demo_home, tmp_path):
    """A copy of the demo's lake that a test may change."""
    return Path(shutil.copytree(demo_home / "lake", tmp_path / "copy"))


@pytest.fixture
def put_file(tmp_path):
    """Writes a file of one instrument's daily bars in 2023."""

    def call(bars):
        first = dt.date(2023, 1, 1)
        rows = [{"at": str(first + dt.timedelta(days=i)), "id": 1, "ohlc": ohlc} for i, ohlc in enumerate(bars)]
        year = ("2023-01-01", "2024-01-01")
        return write_dbn(tmp_path / "bars.dbn.zst", "ohlcv-1d", rows, ["X"], year, {"X": [(*year, 1)]})

    return call

"""The command line in this process, and DBN files with a few rows that a test can say by heart."""

import datetime as dt
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import databento_dbn as dbn
import numpy as np
import pytest
import zstandard

import hdi
from hdi import demo
from hdi.cli import run

NS = 10**9
RTYPES = {"ohlcv-1m": 33, "ohlcv-1h": 34, "ohlcv-1d": 35, "trades": 0}


def ns(text):
    """Nanoseconds of an ISO time, UTC; a date is its midnight."""
    moment = dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)
    return int(moment.timestamp()) * NS


@dataclass
class Mapping:
    raw_symbol: str
    intervals: list


@dataclass
class Interval:
    start_date: dt.date
    end_date: dt.date
    symbol: str


def price(value):
    return round(value * NS)


def records(schema, rows):
    """Records from dicts: ``at`` (index time), ``id``, ``publisher``, and what else the schema has."""
    message = dbn.TradeMsg if schema == "trades" else dbn.OHLCVMsg
    out = np.zeros(len(rows), np.dtype(message._dtypes))
    out["length"] = out.itemsize // 4
    out["rtype"] = RTYPES[schema]
    for i, row in enumerate(rows):
        out["instrument_id"][i] = row["id"]
        out["publisher_id"][i] = row.get("publisher", 1)
        out["ts_event"][i] = ns(row["at"])
        if schema == "trades":
            out["ts_recv"][i] = ns(row["at"]) + row.get("ns", 0)
            out["price"][i], out["size"][i] = price(row["price"]), row.get("size", 1)
            out["side"][i], out["action"][i] = row.get("side", b"A"), b"T"
            continue
        for name, value in zip(("open", "high", "low", "close"), row["ohlc"], strict=True):
            out[name][i] = price(value)
        out["volume"][i] = row.get("volume", 1)
    return out


def write_dbn(  # noqa: PLR0917
    path, schema, rows, symbols, window, mappings=None, stype="raw_symbol", dataset="GLBX.MDP3", limit=None
):
    """A DBN file; ``mappings`` give per requested symbol (first day, day after the last, instrument)."""
    start, end = window
    metadata = dbn.Metadata(
        dataset=dataset, start=ns(start), end=ns(end), limit=limit, stype_in=dbn.SType.from_str(stype),
        stype_out=dbn.SType.from_str("instrument_id"), schema=dbn.Schema.from_str(schema), symbols=list(symbols),
        partial=[], not_found=[], ts_out=False, version=3,
        mappings=[
            Mapping(symbol, [Interval(dt.date.fromisoformat(a), dt.date.fromisoformat(b), str(i)) for a, b, i in spans])
            for symbol, spans in (mappings or {}).items()
        ],
    )  # fmt: skip
    data = metadata.encode() + records(schema, rows).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zstandard.ZstdCompressor(write_checksum=True).compress(data))
    return path


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
    tape = demo.make_tape(home / "files")
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

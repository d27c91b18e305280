"""Memory is bounded, whatever a file holds: measured from outside, as the peak of a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dbnfiles import ns, records, write

GIB = 1 << 20  # in the kilobytes of getrusage

INGEST = """
import sys
from pathlib import Path
from files.lab import Lab, peak
lab = Lab(Path(sys.argv[1]))
(outcome,) = lab.good(sys.argv[2], max_reject_percent=100)
counts = [sum(getattr(r, n) for r in outcome.receipts) for n in ("fetched", "stored", "quarantined")]
print(*counts, lab.tables(), peak(), sep="|")
"""


def ingest(folder, path):
    """(fetched, stored, quarantined, rows by table, peak kilobytes) of a file in a process of its own."""
    tests = str(Path(__file__).resolve().parents[1])
    env = os.environ | {"PYTHONPATH": os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-c", INGEST, folder, path], capture_output=True, text=True, env=env, check=False
    )
    assert done.returncode == 0, done.stderr
    *counts, tables, peak = done.stdout.splitlines()[-1].split("|")
    return (*map(int, counts), tables, int(peak))


def three_million_trades():
    n = 3_000_000
    at = np.arange(n)
    return records(
        "trades", n, instrument_id=1 + at % 50, ts_event=ns("2024-01-02") + at * 25_000_000, price=at * 1_000
    )


def wide_definitions():
    n = 150_000
    at = np.arange(n)
    names = np.char.add(b"OPT", (at % 20_000).astype("S6"))
    return records("definition", n, instrument_id=at % 20_000, raw_symbol=names, ts_recv=ns("2024-01-02") + at * 10**8)


def trades_without_a_size():
    n = 600_000
    return records("trades", n, size=np.arange(n) % 2, ts_event=ns("2024-01-02") + np.arange(n) * 10**6)


@pytest.mark.fault("memory", "files of millions of records, in less than 1 GiB", "lake")
@pytest.mark.parametrize(
    ("schema", "make", "stored", "table"),
    [
        ("trades", three_million_trades, 3_000_000, "trades_data"),
        ("definition", wide_definitions, 150_000, "definitions_data"),
        ("trades", trades_without_a_size, 300_000, "trades_data"),
    ],
)
def test_a_large_file_takes_less_than_a_gibibyte(schema, make, stored, table, tmp_path):
    rows = make()
    path = write(tmp_path / "large.dbn.zst", schema, rows)
    n = len(rows)
    del rows
    fetched, kept, quarantined, tables, peak = ingest(tmp_path, path)
    assert (fetched, kept, quarantined) == (n, stored, n - stored)
    assert tables == str({table: stored})
    assert peak < GIB

"""Real files: what was ingested here is known there, and nothing of it is read or stored again."""

import numpy as np
import pytest

import dbnfiles
from dbnfiles import PX
from hdi.model import NS
from lakes import Place
from migrate.stock import everything, move

NAMES = ("trades", "tbbo", "ohlcv-1d")
DAYS = ("2024-01-02", "2024-01-04")
N = 2_000


@pytest.fixture
def paths(tmp_path):
    """Days of a parent, one of its instruments with other prices, quotes, bars, and an undated fragment."""
    at = dbnfiles.ns(DAYS[0]) + np.arange(N) * 86 * NS
    rows = dbnfiles.records("trades", N, instrument_id=1 + np.arange(N) % 3, ts_event=at)
    rows["side"][::400] = b"X"
    own = rows[rows["instrument_id"] == 1]
    own["price"][::7] += PX
    bars = dbnfiles.records("ohlcv-1d", 2, ts_event=[dbnfiles.ns(d) for d in ("2024-01-02", "2024-01-03")])
    late = dbnfiles.records("trades", 200, ts_event=dbnfiles.ns("2024-01-08") + np.arange(200) * 1000 * NS)
    front = {"symbols": ("ES.c.0",), "stype_in": "continuous", "window": DAYS, "mappings": {"ES.c.0": [(*DAYS, 1)]}}
    names = {f"ES{k}": [(*DAYS, k)] for k in (1, 2, 3)}
    parent = {"symbols": ("ES.FUT",), "stype_in": "parent", "window": DAYS, "mappings": names}
    quotes = dbnfiles.records("tbbo", N, instrument_id=1, ts_event=at)
    return [
        dbnfiles.write(tmp_path / "parent.dbn.zst", "trades", rows, **parent),
        dbnfiles.write(tmp_path / "front.dbn.zst", "trades", own, **front),
        dbnfiles.write(tmp_path / "quotes.dbn.zst", "tbbo", quotes, **front),
        dbnfiles.write(tmp_path / "bars.dbn.zst", "ohlcv-1d", bars, **front),
        dbnfiles.fragment(tmp_path / "late.dbn.zst", "trades", late),
    ]


def test_files_that_were_ingested_before_a_migration_are_known_after_it(fresh, paths, tmp_path):
    here = Place(tmp_path / "here")
    there = Place(tmp_path / "there", address=fresh("timescaledb"))
    here.stored(*paths)
    moved = move(here.url, there.url)
    assert {m.schema: m.rows for m in moved} == {name: here.content(name).height for name in NAMES}
    assert everything(there.url, NAMES) == everything(here.url, NAMES)

    assert [o.status for o in there.ingest(*paths)] == ["skipped"] * len(paths)
    receipts = there.stored(*paths[2:4], refetch=True)
    assert sum(r.stored for r in receipts) == N + 2
    assert [(r.unchanged, r.superseded) for r in receipts] == [(r.stored, 0) for r in receipts]
    assert move(there.url, here.url)
    assert everything(there.url, NAMES) == everything(here.url, NAMES)

"""What lies in the data folder and beside a lake, as a broken disk or a stranger may leave it."""

import contextlib
import datetime as dt
import json
import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import polars as pl

from hdi import HistoricalData, journal, quarantine, reconciled
from hdi.alerting import sending
from hdi.backups import Manifest, _digest_of
from hdi.buying import batches, paid
from hdi.errors import CorruptFile
from hdi.frames import NAMED, RESOLVED
from hdi.keeping import scheduling
from hdi.locking import files as locks
from hdi.model import DAY_NS, Condition, Order, Window, date_ns
from hdi.sources import split
from hdi.stores.lake import about
from hdi.stores.lake.files import guard
from hdi.stores.lake.numbers import Numbers
from hdi.verifying import results

DAY = Window(date_ns(dt.date(2024, 1, 2)), date_ns(dt.date(2024, 1, 3)))
RUN = "20240601T000000-abcdef"
_AT = "2024-06-01T00:00:00Z"


class Kind(NamedTuple):
    """A kind of file: where it lies below a folder, what it begins as, and who reads it."""

    path: str
    seed: bytes
    read: Callable[[Path], object]


def slip() -> paid.Slip:
    """What was ordered: a day of one contract."""
    order = Order("GLBX.MDP3", "trades", "raw_symbol", ("ESH4",), DAY)
    resolved = pl.DataFrame([("ESH4", 7, DAY.start, DAY.end)], schema=RESOLVED, orient="row")
    names = pl.DataFrame([(7, DAY.start, DAY.end, "ESH4")], schema=NAMED, orient="row")
    said = (Condition(dt.date(2024, 1, 2), "available", dt.date(2024, 1, 3)),)
    return paid.Slip("synthetic", order, ("ESH4",), (DAY,), 4, Decimal("0.5"), resolved, names, said, 4,
                     bought_at=DAY.end + DAY_NS, raw=paid.RawFile("", "0" * 64, 9))  # fmt: skip


def _manifest(path: Path) -> None:
    """A manifest whose digest is right, whatever else is in it: who changes one can compute that."""
    with contextlib.suppress(ValueError, RecursionError, AttributeError):
        told = json.loads(path.read_bytes())
        told.pop("sha256", None)
        path.write_text(json.dumps(told | {"sha256": _digest_of(told)}))
    manifest = Manifest.read(path.parent)
    with contextlib.suppress(CorruptFile):  # the files that it names are not there
        manifest.check()


def _note(at: int | None) -> bytes:
    """The note of a batch job, as it stands after it was submitted."""
    told = {"format": 1, "split": "day", "known": ["A-1"], "account": "a" * 16, "slip": json.loads(slip().to_json())}
    became = "" if at is None else json.dumps({"job": "GLBX-2", "received": at}) + "\n"
    return f"{json.dumps(told)}\n{became}".encode()


def _jsonl(*lines: object) -> bytes:
    return "".join(f"{json.dumps(line)}\n" for line in lines).encode()


def kinds(db: HistoricalData, folder: Path) -> list[Kind]:
    """All of them; the seeds of some are made of a store."""
    db.lock(folder / "rows.lock")
    made = db.back_up(folder / "backups").manifest.folder / "hdi-backup.json"
    name = f"{paid.Unit('synthetic', 'GLBX.MDP3', 'trades', 'ESH4', 'raw_symbol', DAY).id}-{'0' * 12}.dbn.zst.json"
    start = {"event": "start", "at": _AT, "format": 1, "run": RUN, "pid": 1, "host": "h",
             "store": {"url": "lake:x", "identity": "i"},
             "request": {"api": "databento", "dataset": "GLBX.MDP3", "schema": "trades", "symbols": ["ESH4"],
                         "start": "2024-01-02", "end": "2024-01-02", "resumes": []}}  # fmt: skip
    outcome = {"event": "outcome", "at": _AT, "status": "stored", "path": "x", "dataset": "GLBX.MDP3",
               "schema": "trades", "symbols": ["ESH4"], "window": [_AT, _AT], "units": 1, "fetched": 1, "stored": 1,
               "quarantined": 0, "superseded": 0, "dollars": "0.5", "seconds": 1.0, "note": "",
               "error": None}  # fmt: skip
    judged = {"format": 1, "run": RUN, "at": _AT, "store": "i", "window_ns": [DAY.start, DAY.end], "symbols": ["ESH4"],
              "judged": [{"dataset": "GLBX.MDP3", "schema": "trades", "checks": {"ticks": 4}}]}  # fmt: skip
    part = {"filename": "glbx-mdp3-20240102.trades.dbn.zst", "size": 9, "hash": "sha256:" + "0" * 64}
    later = part | {"filename": "glbx-mdp3-20240103.trades.dbn.zst"}
    done = {"key": "a" * 16, "slot": "2024-06-01T00:00:00+00:00", "through": _AT}
    told = {"executive_summary": {"passed": True}, "individual_test_results": {}, "execution_metadata": {}}
    raw, beside = "raw/synthetic/GLBX.MDP3/trades/2024-01-02", ("a.dbn.zst", part["filename"], later["filename"])
    return [
        Kind("rows.lock", (folder / "rows.lock").read_bytes(), locks.read),
        Kind("backup/hdi-backup.json", made.read_bytes(), _manifest),
        Kind(f"{raw}/{name}", slip().to_json().encode(), lambda p: list(paid.receipts(p.parents[5], "synthetic"))),
        Kind("raw/.part/a.order", slip().to_json().encode() + b"\n", lambda p: paid.recover(p.parents[2])),
        Kind("raw/.part/a.batch", _note(DAY.end), lambda p: list(batches.notes(p.parents[2]))),
        Kind("raw/.part/b.batch", _note(None), lambda p: batches.lost(p.parents[2], "synthetic")),
        Kind(f"runs/{RUN}.jsonl", _jsonl(start, {"event": "offer", "at": _AT, "units": 1, "records": 1, "dollars": "1"},
             outcome, {"event": "end", "at": _AT, "status": "done", "error": ""}), _journal),
        Kind("alerts.json", json.dumps({"format": 1, "told": {"failure\nx": {"at": 1, "held": 0}}}).encode(), _alerts),
        Kind(scheduling._STATE, json.dumps({"format": 1, "jobs": {"mine": done}}).encode(),
             lambda p: scheduling.State(p.parent)),
        Kind("reconciled.jsonl", _jsonl(judged), lambda p: reconciled.known(p.parent, "i")),
        Kind("job/manifest.json", json.dumps({"files": [part, later]}).encode(),
             lambda p: list(split.parts(p.with_name(n) for n in beside))),
        Kind("logs/mvp_verification_results_20240601.json", json.dumps(told).encode(),
             lambda p: results.last(p.parent)),
        Kind("dlq/.index-x.json", json.dumps({"validation_failures/x.json": ["a", 1, 2]}).encode(),
             quarantine._read_index),
        Kind("lake/hdi.json", about.text("synthetic", ["trades_data"]).encode(), lambda p: about.check(p.parent, ())),
        Kind("lake/units.jsonl", _jsonl({"unit": 1, "id": "a"}, {"unit": 2, "id": "b"}), _numbers),
    ]  # fmt: skip


def _journal(path: Path) -> None:
    for entry in journal.entries(path.parents[1], on_bad=lambda _: None):
        _ = entry.what, entry.errors, entry.dollars, [entry.total(name) for name in journal.COUNTS]


def _alerts(path: Path) -> None:
    with sending._held(path.parent):
        pass


def _numbers(path: Path) -> None:
    with guard(path.parent):
        Numbers(path).all()


def read(kind: Kind, folder: Path, data: bytes) -> None:
    """Have one read that holds these bytes."""
    shutil.rmtree(folder, ignore_errors=True)
    path = folder / kind.path
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    kind.read(path)

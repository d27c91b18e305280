"""Health, measured: the store, the disk, the logs, the quarantine, the ledger and the query log; never invented."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from hdi import quarantine
from hdi.errors import HdiError, masked
from hdi.frames import NO_RECORD
from hdi.journal import Entry, entries
from hdi.logs import COMPONENTS
from hdi.model import MAX_NS, Window, iso_ns
from hdi.schema import Schemas

if TYPE_CHECKING:
    from hdi.settings import Settings
    from hdi.stores import Store

#: Below this many free bytes nothing can be expected to work.
LITTLE = 64 << 20


@dataclass
class Status:
    """What was found; None is what was not measured. Times are seconds, ``last_ingestion`` has RFC 3339 text."""

    problems: list[str] = field(default_factory=list)
    store: dict[str, Any] = field(default_factory=dict)
    api: dict[str, Any] | None = None
    storage: dict[str, Any] = field(default_factory=dict)
    logs: dict[str, Any] = field(default_factory=dict)
    quarantine: dict[str, Any] = field(default_factory=dict)
    average_query_seconds: float | None = None
    queries: int = 0
    last_ingestion: dict[str, Any] | None = None
    accepted_percent: float | None = None
    details: dict[str, Any] | None = None

    @property
    def healthy(self) -> bool:
        """True when nothing is wrong."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``hdi --json status`` gives them."""
        return {"status": "healthy" if self.healthy else "unhealthy", **asdict(self)}


def measure(
    settings: Settings,
    schemas: Schemas,
    opened: Callable[[], Store],
    *,
    deep: bool = False,
    api: Callable[[], dict[str, Any]] | None = None,
    more: Callable[[Store], dict[str, Any]] | None = None,
) -> Status:
    """Look at everything. ``opened`` opens the store; ``deep`` also reads a row of each kind from it.

    ``api`` really asks the vendor; without it nothing is said of the vendor. ``more`` measures the details.
    """
    status = Status(store={"url": masked(settings.store_url)})
    name = settings.store
    try:
        store = opened()
        name = store.url
        status.store |= store.health()
        ledger = store.ledger()
        _ledger(status, ledger)
        status.last_ingestion = _last(ledger, _run(settings.data_dir, ledger, store.identity()))
        _quarantine(status, store.quarantine())
        if deep:
            status.store["read_seconds"] = dict(_reads(store, schemas))
        if more is not None:
            status.details = more(store)
    except HdiError as exc:
        status.problems.append(exc.message)
        status.store |= {"error": exc.message, "hint": exc.hint}
    status.store["state"] = "error" if status.problems else "connected"
    status.quarantine["path"] = str(settings.dlq_dir)
    status.quarantine["exported"] = os.path.exists(quarantine.index_of(settings.dlq_dir, name))  # noqa: PTH110  (as below)
    if api is not None:
        _api(status, api)
    _storage(status, settings.data_dir)
    _logs(status, settings.log.dir)
    return status


def _api(status: Status, ask: Callable[[], dict[str, Any]]) -> None:
    try:
        status.api = {"valid": True, **ask()}
    except HdiError as exc:
        status.api = {"valid": False, "error": exc.message, "hint": exc.hint}
        status.problems.append(exc.message)


def _ledger(status: Status, ledger: pl.DataFrame) -> None:
    status.store["units"] = ledger["unit_id"].n_unique()
    if ledger.is_empty():
        return
    standing = ledger.filter(pl.col("status") != "ordered").unique("unit_id", keep="last", maintain_order=True)
    fetched, rejected = int(standing["fetched"].sum()), int(standing["quarantined"].sum())
    status.accepted_percent = 100 * (fetched - rejected) / fetched if fetched else None


def _run(data_dir: Path, ledger: pl.DataFrame, identity: str) -> Entry | None:
    """The newest run of this store that has a journal here."""
    runs = set(ledger["run"])
    newest = entries(data_dir, newest_first=True)
    return next((each for each in newest if each.run in runs or each.store["identity"] == identity), None)


def _last(ledger: pl.DataFrame, entry: Entry | None) -> dict[str, Any] | None:
    """The last ingestion: by its receipts, and by its journal where it did not end well, which may leave no receipt."""
    committed = ledger.sort("committed_at", maintain_order=True).tail(1)
    run, at, result = "", 0, ""
    if committed.height:
        run, at = committed["run"][0], int(committed["committed_at"][0])
    if entry is not None and entry.status != "done" and (entry.run == run or entry.ended >= at):
        run, at, result = entry.run, max(entry.ended, at if entry.run == run else 0), entry.status
    if not run:
        return None
    mine = ledger.filter(pl.col("run") == run)
    failed = int((mine["status"] == "failed").sum())
    booked = "failed" if failed else "ordered" if (mine["status"] == "ordered").all() else "success"
    return {
        "time": iso_ns(at), "result": result or booked, "run": run, "units": mine.height, "failed_units": failed,
        "failed_files": len(entry.errors) if entry is not None and result else 0,
        "rows_stored": int(mine["stored"].sum()),
    }  # fmt: skip


def _quarantine(status: Status, rejects: pl.DataFrame) -> None:
    everything = rejects.height
    rejects = rejects.filter(pl.col("record").ne_missing(NO_RECORD))
    rules = rejects["rules"].explode().drop_nulls().value_counts(sort=True)
    status.quarantine |= {
        "purged": everything - rejects.height,
        "rows": rejects.filter(~pl.col("failed")).height,
        "rows_of_failed_units": rejects.filter("failed").height,
        "rules": dict(rules.iter_rows()),
    }


def _reads(store: Store, schemas: Schemas) -> Iterator[tuple[str, float]]:
    """Seconds until the first rows of each kind, of those that have any."""
    for schema in schemas:
        began = time.perf_counter()
        for name in schema.names.values():
            if name.made_from is None:
                frames = store.read(schema, name.name, Window(0, MAX_NS), None, [schema.index_time])
                if next(iter(frames), None) is not None:
                    yield schema.kind, round(time.perf_counter() - began, 6)
                    break


def _storage(status: Status, data_dir: Path) -> None:
    place = existing(data_dir)
    free = shutil.disk_usage(place).free
    status.storage = {"path": str(data_dir), "free_bytes": free}
    if free < LITTLE:
        status.problems.append(f"only {free} bytes are free at {place}")
        return
    beside = status.store.get("free_bytes")  # None: not known of a server
    if beside is not None and beside < LITTLE:
        status.problems.append(f"only {beside} bytes are free where the store lies: {status.store['location']}")


def existing(path: Path) -> Path:
    """The folder, or the nearest one above it that is there, as far as this user can see."""
    return next(place for place in (path, *path.absolute().parents) if os.path.exists(place))  # noqa: PTH110  (says no, where pathlib raises)


def _logs(status: Status, folder: Path) -> None:
    sizes: list[int] | None = []
    try:
        with os.scandir(folder) as found:
            logs = [e for e in found if ".log" in e.name and not e.name.startswith(".")]
            sizes = [e.stat().st_size for e in logs if e.is_file(follow_symlinks=False)]
    except FileNotFoundError:  # nothing was logged yet
        pass
    except OSError:
        sizes = None
    known = {"files": None, "bytes": None} if sizes is None else {"files": len(sizes), "bytes": sum(sizes)}
    status.logs = {"path": str(folder), **known}
    times = list(_query_times(folder / COMPONENTS["QueryBuilder"]))
    status.queries = len(times)
    status.average_query_seconds = sum(times) / len(times) if times else None


def _query_times(path: Path) -> Iterator[float]:
    with contextlib.suppress(OSError), path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            # A line that is being written, or that somebody edited, is not a measurement.
            with contextlib.suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                if entry["message"] == "Query executed":
                    yield float(entry["context"]["execution_time"])


__all__ = ["LITTLE", "Status", "existing", "measure"]

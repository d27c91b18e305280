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
        _ledger(status, store.ledger())
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
    status.quarantine["exported"] = quarantine.index_of(settings.dlq_dir, name).exists()
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
    last = ledger.sort("committed_at", maintain_order=True).row(-1, named=True)
    run = ledger.filter(pl.col("run") == last["run"])
    failed = run.filter(pl.col("status") == "failed").height
    status.last_ingestion = {
        "time": iso_ns(last["committed_at"]),
        "result": "failed" if failed else "ordered" if (run["status"] == "ordered").all() else "success",
        "run": last["run"],
        "units": run.height,
        "failed_units": failed,
        "rows_stored": int(run["stored"].sum()),
    }
    standing = ledger.filter(pl.col("status") != "ordered").unique("unit_id", keep="last", maintain_order=True)
    fetched, rejected = int(standing["fetched"].sum()), int(standing["quarantined"].sum())
    status.accepted_percent = 100 * (fetched - rejected) / fetched if fetched else None


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
    place = next(path for path in (data_dir, *data_dir.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    status.storage = {"path": str(data_dir), "free_bytes": free}
    if free < LITTLE:
        status.problems.append(f"only {free} bytes are free at {place}")


def _logs(status: Status, folder: Path) -> None:
    sizes = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        sizes = [e.stat().st_size for e in entries if ".log" in e.name and e.is_file(follow_symlinks=False)]
    status.logs = {"path": str(folder), "files": len(sizes), "bytes": sum(sizes)}
    times = list(_query_times(folder / COMPONENTS["QueryBuilder"]))
    status.queries = len(times)
    _last_run(status, folder / COMPONENTS["PipelineOrchestrator"])
    status.average_query_seconds = sum(times) / len(times) if times else None


def _query_times(path: Path) -> Iterator[float]:
    for context in _entries(path, "Query executed"):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            yield float(context["execution_time"])


def _last_run(status: Status, path: Path) -> None:
    """What the log says of the last run: files that failed before any unit leave no receipt in the ledger."""
    last: dict[str, Any] | None = None
    for context in _entries(path, "Pipeline completed"):
        last = context
    if last is None or not last.get("errors_encountered") or not last.get("end_time"):
        return
    known = status.last_ingestion or {"time": "", "units": 0, "failed_units": 0, "rows_stored": 0}
    if known["time"] <= last["end_time"]:
        files = {"time": last["end_time"], "result": "failed", "failed_files": last["errors_encountered"]}
        status.last_ingestion = {**known, **files, "run": last.get("run", "")}


def _entries(path: Path, message: str) -> Iterator[dict[str, Any]]:
    """The contexts of the log's lines with that message."""
    with contextlib.suppress(OSError), path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            # A line that is being written, or that somebody edited, is not a measurement.
            with contextlib.suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                if entry["message"] == message:
                    yield dict(entry["context"])


__all__ = ["Status", "measure"]

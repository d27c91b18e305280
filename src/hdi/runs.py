"""Runs: what journals say of them, joined with the receipts that they left in a store.

A run of another machine leaves its receipts alone: it is ``elsewhere``, and nothing says whether it has ended.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import polars as pl

from hdi.errors import RequestError
from hdi.frames import BROUGHT
from hdi.journal import UNDONE, Entry, RunStatus, about, find
from hdi.model import NS, iso_ns, some


@dataclass(frozen=True)
class RunRecord:
    """One run. ``rows`` are stored, ``rejects`` quarantined, ``units`` committed: by the ledger, and only by that.

    ``seconds`` counts from its first line to its last. Of a run that died or ran elsewhere nobody knows when it ended:
    ``ended``, ``seconds`` and the rate are None, ``heard`` is the last that is known of it. ``ended`` is None while it
    runs. ``resumed_by`` is the last run that went on with it.
    """

    run: str
    status: RunStatus
    what: str
    started: int
    ended: int | None
    seconds: float | None
    units: int
    failed: int
    rows: int
    rejects: int
    dollars: Decimal
    entry: Entry | None
    heard: int | None = None
    resumed_by: str | None = None

    @property
    def rate(self) -> float | None:
        """Rows a second, from the first line to the last."""
        return self.rows / self.seconds if self.seconds and self.rows else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``hdi --json runs`` gives them."""
        entry = self.entry
        return {
            "run": self.run, "status": self.status, "what": self.what, "started": iso_ns(self.started),
            "ended": None if self.ended is None else iso_ns(self.ended),
            "last_heard": None if self.heard is None else iso_ns(self.heard), "resumed_by": self.resumed_by,
            "seconds": None if self.seconds is None else round(self.seconds, 3),
            "units": self.units, "failed": self.failed, "rows": self.rows, "rejects": self.rejects,
            "dollars": str(self.dollars), "rows_per_second": None if self.rate is None else round(self.rate, 1),
            "host": entry.host if entry else None, "pid": entry.pid if entry else None,
            "request": dict(entry.request) if entry else None,
        }  # fmt: skip


@dataclass(frozen=True)
class RunDetail:
    """One run with its receipts (:data:`hdi.frames.LEDGER`) and the lines of its journal about files and orders."""

    record: RunRecord
    receipts: pl.DataFrame

    @property
    def errors(self) -> list[dict[str, Any]]:
        """Every error in full, each with what it is about; the journal says more of one than a receipt does."""
        entry = self.record.entry
        if entry is None:
            failed = self.receipts.filter(pl.col("error") != "").unique("error", maintain_order=True)
            return [
                {"what": f"{schema} {symbol}", "message": error, "hint": "", "exit_code": code}
                for schema, symbol, error, code in failed.select("schema", "symbol", "error", "exit_code").iter_rows()
            ]
        found = [{"what": about(o), **o["error"]} for o in entry.errors]
        if entry.error:
            found.append({"what": "the run", "message": entry.error, "hint": "", "exit_code": None})
        return found


def records(journals: Iterable[Entry], ledger: pl.DataFrame, identity: str, url: str) -> list[RunRecord]:
    """The runs of a store, oldest first: those that its data folder keeps journals of, and those of its ledger.

    ``ledger`` is read after the journals. A store has another ``identity`` than one that was at its ``url`` before.
    """
    sums = _sums(ledger)
    known = sorted(
        (e for e in journals if e.run in sums or e.store["identity"] == identity or e.store["url"] == url),
        key=lambda e: e.started,
    )
    later = {run: entry.run for entry in known for run in entry.request["resumes"]}
    found = [
        _record(entry, sums.pop(entry.run, None), later.get(entry.run), here=entry.store["identity"] == identity)
        for entry in known
    ]
    found += [_elsewhere(run, row) for run, row in sums.items()]
    return sorted(found, key=lambda r: (r.started, r.run))


def _sums(ledger: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """What the receipts of each run add up to."""
    done = pl.col("status").is_in(BROUGHT)
    rows = ledger.group_by("run", maintain_order=True).agg(
        first=pl.col("committed_at").min(), last=pl.col("committed_at").max(),
        units=done.sum(), failed=(pl.col("status") == "failed").sum(), ordered=(pl.col("status") == "ordered").sum(),
        rows=pl.col("stored").filter(done).sum(), rejects=pl.col("quarantined").filter(done).sum(),
        dollars=pl.col("dollars").sum(),
        datasets=pl.col("dataset").unique(maintain_order=True), schemas=pl.col("schema").unique(maintain_order=True),
        symbols=pl.col("symbol").unique(maintain_order=True),
    )  # fmt: skip
    return {row["run"]: row for row in rows.iter_rows(named=True)}


def _record(entry: Entry, row: Mapping[str, Any] | None, by: str | None, *, here: bool) -> RunRecord:
    counts = row or {"units": 0, "rows": 0, "rejects": 0, "dollars": entry.dollars, "failed": 0, "ordered": 0}
    status = entry.status
    # A path that was removed and made again may have the identity of before.
    if row is None and status != "running" and (not here or entry.total("units")):
        status = "earlier"
    elif by is not None and status in UNDONE:
        status = "resumed"
    elif status == "done" and (_only_ordered(counts) or _awaits(entry, counts)):
        status = "ordered"
    died = entry.status == "died"
    ended = max(time.time_ns(), entry.ended) if entry.status == "running" else entry.ended
    return RunRecord(
        entry.run, status, entry.what, entry.started, None if died or entry.status == "running" else ended,
        None if died else (ended - entry.started) / NS, counts["units"], max(counts["failed"], len(entry.errors)),
        counts["rows"], counts["rejects"], counts["dollars"] or Decimal(0), entry, entry.ended if died else None, by,
    )  # fmt: skip


def _awaits(entry: Entry, counts: Mapping[str, Any]) -> bool:
    """True where a run found batch jobs that are not done yet, and brought nothing."""
    return not counts["units"] and any(o["status"] == "ordered" for o in entry.outcomes)


def _only_ordered(counts: Mapping[str, Any]) -> bool:
    """True where a batch job was ordered, and nothing has come yet."""
    return bool(counts["ordered"]) and not counts["units"]


def _elsewhere(run: str, row: Mapping[str, Any]) -> RunRecord:
    status: RunStatus = "failed" if row["failed"] else "ordered" if _only_ordered(row) else "elsewhere"
    what = " ".join(("/".join(row["datasets"]), "/".join(row["schemas"]), some([s for s in row["symbols"] if s], ",")))
    return RunRecord(
        run, status, what, row["first"], None, None, row["units"], row["failed"], row["rows"], row["rejects"],
        row["dollars"] or Decimal(0), None, row["last"],
    )  # fmt: skip


def detail(found: Sequence[RunRecord], text: str, ledger: pl.DataFrame) -> RunDetail:
    """The run that a name or the beginning of one means. RequestError, with the closest, for none or several."""
    by_name = {record.run: record for record in found}
    record = by_name[find(list(by_name), text)]
    return RunDetail(record, ledger.filter(pl.col("run") == record.run))


def words(record: RunRecord) -> dict[str, Any]:
    """The words that repeat a run. RequestError for one that lives, and for one that has no journal here."""
    entry = record.entry
    if entry is None:
        raise RequestError(
            f"{record.run} ran elsewhere: its journal is not in this data folder",
            "Resume it there, or give its command again: what is stored is not bought twice.",
        )
    if entry.status == "running":
        raise RequestError(
            f"{record.run} is still running (process {entry.pid} on {entry.host})", "Wait for it, or end it first."
        )
    return {**entry.request, "resumes": [*entry.request["resumes"], record.run]}


__all__ = ["RunDetail", "RunRecord", "detail", "records", "words"]

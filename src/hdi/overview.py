"""What ``hdi status --comprehensive`` adds: what is held and how far it is behind, money, runs, files, the schedule.

All of it is measured; a part that could not be has an ``error`` that says why.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import polars as pl

from hdi import raw
from hdi.buying.spending import spending, total
from hdi.errors import HdiError, masked
from hdi.frames import BROUGHT
from hdi.journal import entries
from hdi.keeping.scheduling import State, key_of
from hdi.model import DAY_NS, Window, cell_start, iso_ns, ns_date
from hdi.runs import records

if TYPE_CHECKING:
    from hdi.calendars import Calendars
    from hdi.jobs import Job
    from hdi.settings import Settings
    from hdi.stores import Store

#: Failures are counted over so many days.
DAYS = 30
_SPAN = DAYS * DAY_NS
_NAMED = 5


def overview(
    settings: Settings,
    store: Store,
    calendars: Callable[[], Calendars],
    jobs: Callable[[], Iterable[Job]],
    now: int | None = None,
) -> dict[str, Any]:
    """The parts by name: ``schemas``, ``spending``, ``runs``, ``raw``, ``schedule``, ``failures``."""
    at = time.time_ns() if now is None else now
    ledger = store.ledger()
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "schemas": lambda: held(ledger, store.coverage(), calendars(), at),
        "spending": lambda: _spending(settings, ledger, at),
        "runs": lambda: _runs(settings, store, ledger),
        "raw": lambda: _raw(settings),
        "schedule": lambda: _schedule(settings, jobs()),
        "failures": lambda: failures(ledger, at),
    }
    return {name: _measured(part) for name, part in parts.items()}


def _measured(part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return part()
    except HdiError as exc:
        return {"error": exc.message, "hint": exc.hint}
    except OSError as exc:  # a reader of the store need not be able to look into the data folder
        return {"error": f"{exc.filename or 'a file'}: {exc.strerror or exc}", "hint": ""}


def held(ledger: pl.DataFrame, coverage: pl.DataFrame, calendars: Calendars, now: int) -> dict[str, Any]:
    """By dataset and schema: units, rows, symbols, from when until when, and the sessions that have ended since.

    Units that were asked for in several ways share rows: each is counted when it came, and taken off when it went.
    """
    brought = ledger.filter(pl.col("status").is_in(BROUGHT))
    came = pl.col("stored") - pl.col("unchanged").fill_null(0) - pl.col("superseded").fill_null(0)
    rows = brought.group_by("dataset", "schema").agg(rows=came.sum())
    last = brought.unique("unit_id", keep="last", maintain_order=True)
    units = last.group_by("dataset", "schema").agg(units=pl.len(), fragments=(pl.col("status") == "fragment").sum())
    spans = coverage.group_by("dataset", "schema").agg(
        first=pl.col("start").min(), through=pl.col("end").max(), symbols=pl.col("symbol").n_unique(),
    )  # fmt: skip
    both = units.join(rows, on=["dataset", "schema"]).join(spans, on=["dataset", "schema"], how="full", coalesce=True)
    lines = both.sort("dataset", "schema").iter_rows(named=True)
    return {f"{row['dataset']} {row['schema']}": _line(row, calendars, now) for row in lines}


def _line(row: dict[str, Any], calendars: Calendars, now: int) -> dict[str, Any]:
    first, through = row["first"], row["through"]
    return {
        "units": row["units"] or 0, "rows": row["rows"] or 0, "symbols": row["symbols"] or 0,
        "fragments": row["fragments"] or 0,
        "first": None if first is None else iso_ns(first), "through": None if through is None else iso_ns(through),
        "sessions_behind": None if through is None else behind(row["dataset"], through, calendars, now),
    }  # fmt: skip


def behind(dataset: str, through: int, calendars: Calendars, now: int) -> int | None:
    """Sessions that have ended and reach past what is held; None where no calendar is known."""
    if not calendars.knows(dataset):
        return None
    if through >= now:
        return 0
    sessions = calendars.sessions(dataset, Window(through, now))
    return int(sessions.filter(pl.col("close") <= now, pl.col("close") > through)["session"].n_unique())


def failures(ledger: pl.DataFrame, now: int) -> dict[str, Any]:
    """Of the units that were worked on in the last :data:`DAYS` days, those whose last attempt failed."""
    recent = ledger.filter(pl.col("committed_at") >= now - _SPAN, pl.col("status") != "ordered")
    last = recent.unique("unit_id", keep="last", maintain_order=True)
    failed = int((last["status"] == "failed").sum())
    return {
        "days": DAYS, "attempts": recent.height, "failed_attempts": int((recent["status"] == "failed").sum()),
        "units": last.height, "failed_units": failed,
        "failed_percent": 100 * failed / last.height if last.height else None,
    }  # fmt: skip


def _spending(settings: Settings, ledger: pl.DataFrame, now: int) -> dict[str, Any]:
    origin = ledger["origin"][0] if ledger.height else ""
    month, day = cell_start(now, "month"), cell_start(now, "day")
    rows = spending(ledger, settings.data_dir, origin, month)
    limits = settings.ingest.max_usd_per_month, settings.ingest.max_usd_per_day
    return {
        "origin": origin or None, "month": f"{ns_date(month):%Y-%m}", "month_usd": f"{total(rows):f}",
        "month_limit_usd": None if limits[0] is None else f"{limits[0]:f}",
        "day": f"{ns_date(day)}", "day_usd": f"{total(rows.filter(pl.col('at') >= day)):f}",
        "day_limit_usd": None if limits[1] is None else f"{limits[1]:f}",
    }  # fmt: skip


def _runs(settings: Settings, store: Store, ledger: pl.DataFrame) -> dict[str, Any]:
    unread: list[str] = []
    journals = list(entries(settings.data_dir, unread.append))
    found = records(journals, ledger, store.identity(), masked(store.url))
    counts: dict[str, int] = {}
    for record in found:
        counts[record.status] = counts.get(record.status, 0) + 1
    died = [record.run for record in found if record.status == "died"]
    return {"by_status": counts, "died": died[-_NAMED:], "died_count": len(died), "unreadable": unread}


def _raw(settings: Settings) -> dict[str, Any]:
    kept = raw.kept(settings.data_dir)
    return {"path": str(settings.data_dir / "raw"), "files": kept.files, "bytes": kept.size}


def _schedule(settings: Settings, jobs: Iterable[Job]) -> dict[str, Any]:
    """By job with a cron line: the last slot that was served well, and where its data ended."""
    state, identity = State(settings.data_dir), masked(settings.store_url)
    found: dict[str, Any] = {}
    for job in jobs:
        if job.cron is None:
            continue
        done = state.done(job.name, key_of(job, identity))
        found[job.name] = {
            "cron": f"{job.cron} {job.timezone or 'UTC'}", "last_slot": done.slot.isoformat() if done else None,
            "through": iso_ns(done.through) if done and done.through else None,
        }  # fmt: skip
    return {"readable": not state.damaged, "jobs": found}


__all__ = ["DAYS", "behind", "failures", "held", "overview"]

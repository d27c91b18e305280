"""What no run tells of: jobs that are behind, budgets that are nearly spent, runs that died."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import TYPE_CHECKING

import polars as pl

from hdi.alerting import Alert
from hdi.buying.spending import Limits, spending, total
from hdi.lagging import Standing, stale
from hdi.model import Grid, cell_start, dollars_text, ns_date

if TYPE_CHECKING:
    from hdi.runs import RunRecord
    from hdi.settings import Settings


def near(settings: Settings, ledger: pl.DataFrame, now: int) -> Iterator[Alert]:
    """The limits of spending that are nearly reached, or reached."""
    ingest = settings.ingest
    origin = str(ledger["origin"][0]) if ledger.height else ""
    if not Limits(ingest.max_usd_per_day, ingest.max_usd_per_month):
        return
    rows = spending(ledger, settings.data_dir, origin, cell_start(now, "month"))
    limits: tuple[tuple[Grid, Decimal | None], ...] = (
        ("day", ingest.max_usd_per_day), ("month", ingest.max_usd_per_month),
    )  # fmt: skip
    for span, limit in limits:
        start = cell_start(now, span)
        spent = total(rows.filter(pl.col("at") >= start))
        if limit and spent and spent * 100 >= limit * Decimal(str(settings.alerts.near_percent)):
            when = f"{ns_date(start)}" if span == "day" else f"{ns_date(start):%Y-%m}"
            yield Alert(
                "budget", f"{span} {when}",
                f"{dollars_text(spent)} of {dollars_text(limit)} are spent in the UTC {span} {when}",
                f"hdi spend shows on what; ingest.max_usd_per_{span} is the limit.",
                {"spent_usd": f"{spent:f}", "limit_usd": f"{limit:f}"},
            )  # fmt: skip


def behind(found: Iterable[Standing]) -> Iterator[Alert]:
    """The jobs that are stale: ``found`` is how they stood ``alerts.stale_hours`` ago."""
    for job in stale(found):
        yield Alert(
            "stale", f"job {job.name}", f"the job {job.name} is behind: {job.said}",
            f"hdi sync {job.name} brings it up to date; hdi runs --failed shows what went wrong.",
            {"job": job.name, "sessions": job.sessions},
        )  # fmt: skip


def died(records: Iterable[RunRecord]) -> Iterator[Alert]:
    """Runs that died, and that nobody went on with: they could not tell of it themselves."""
    for record in records:
        if record.status == "died":
            yield Alert(
                "failure", f"run {record.run}", f"the run {record.run} died: {record.what}",
                f"hdi ingest --resume {record.run} goes on with it.", {"run": record.run, "rows": record.rows},
            )  # fmt: skip


__all__ = ["behind", "died", "near"]

"""What no run tells of: jobs that are behind, budgets that are nearly spent, runs that died."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

import polars as pl
import structlog

from hdi.alerting import Alert
from hdi.buying.spending import Limits, spending, total
from hdi.errors import HdiError
from hdi.lagging import Standing, stale, standing
from hdi.model import NS, Grid, cell_start, dollars_text, ns_date

if TYPE_CHECKING:
    from hdi.alerting.sending import Sender
    from hdi.calendars import Calendars
    from hdi.jobs import Job
    from hdi.runs import RunRecord
    from hdi.schema import Schemas
    from hdi.settings import Settings
    from hdi.stores import Store

_HOUR = 3_600 * NS
log = structlog.get_logger(component="Alerts")


def after(
    sender: Sender, alerts: Iterable[Alert], settings: Settings, ledger: Callable[[], pl.DataFrame]
) -> None:  # fmt: skip
    """Send what a command has to tell, and of the budgets that are nearly spent since."""
    found = list(alerts)
    try:
        if _limits(settings):
            found += near(settings, ledger(), time.time_ns())
    except HdiError as error:  # the store is gone, which the command has said
        log.warning("what was spent is not known", error=error.message)
    sender.send(found)


def found(  # noqa: PLR0913, PLR0917  (all that can be looked at)
    settings: Settings, store: Store, runs: Iterable[RunRecord], calendars: Callable[[], Calendars],
    jobs: Iterable[Job], schemas: Schemas, symbols_of: Callable[[Sequence[str]], Sequence[str]], now: int,
) -> list[Alert]:  # fmt: skip
    """What no run tells of, as things stand."""
    ledger = store.ledger()
    then = now - round(settings.alerts.stale_hours * _HOUR)
    stands = standing(jobs, ledger, store.coverage(), calendars(), schemas, symbols_of, then)
    return [*near(settings, ledger, now), *behind(stands), *died(runs)]


def near(settings: Settings, ledger: pl.DataFrame, now: int) -> Iterator[Alert]:
    """The limits of spending that are nearly reached, or reached."""
    ingest = settings.ingest
    origin = str(ledger["origin"][0]) if ledger.height else ""
    if not _limits(settings):
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


def _limits(settings: Settings) -> Limits:
    return Limits(settings.ingest.max_usd_per_day, settings.ingest.max_usd_per_month)


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


__all__ = ["after", "behind", "died", "found", "near"]

"""How far the jobs that are kept up to date are behind the sessions that have ended; nothing is asked of a vendor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from hdi.frames import BROUGHT
from hdi.model import iso_ns
from hdi.overview import behind

if TYPE_CHECKING:
    from hdi.calendars import Calendars
    from hdi.jobs import Job
    from hdi.schema import Schemas


@dataclass(frozen=True)
class Standing:
    """How one job stands. Times are nanoseconds UTC, None where there is none.

    ``through`` is up to when all of its symbols are held; ``sessions`` have ended since, None where no calendar tells.
    ``succeeded`` is when a run of it last committed something.
    """

    name: str
    through: int | None
    sessions: int | None
    succeeded: int | None

    @property
    def said(self) -> str:
        """How far it is behind, in a sentence."""
        if self.through is None:
            return "nothing of it is held"
        return f"held up to {iso_ns(self.through)}; sessions that have ended since: {self.sessions}"


def standing(  # noqa: PLR0913, PLR0917  (jobs, books, and what their words mean)
    jobs: Iterable[Job],
    ledger: pl.DataFrame,
    coverage: pl.DataFrame,
    calendars: Calendars,
    schemas: Schemas,
    symbols_of: Callable[[Sequence[str]], Sequence[str]],
    now: int,
) -> list[Standing]:
    """The jobs with a cron line or ``sync``, as they stood at ``now``."""
    found = []
    for job in jobs:
        if job.synced:
            name = schemas.find(job.schema)[1]
            mine = coverage.filter(
                pl.col("dataset") == job.dataset, pl.col("schema") == (name.made_from or name.name)
            )  # fmt: skip
            found.append(_standing(job, ledger, mine, calendars, symbols_of(job.symbols), now))
    return found


def _standing(
    job: Job, ledger: pl.DataFrame, coverage: pl.DataFrame, calendars: Calendars, symbols: Sequence[str], now: int
) -> Standing:
    mine = coverage.filter(pl.col("symbol").is_in(list(symbols)))
    ends = mine.group_by("symbol").agg(pl.col("end").max())["end"]
    through = None if ends.len() < len(set(symbols)) else _whole(ends.min())
    done = ledger.filter(pl.col("job") == job.name, pl.col("status").is_in(BROUGHT))["committed_at"].max()
    sessions = None if through is None else behind(job.dataset, through, calendars, now)
    return Standing(job.name, through, sessions, _whole(done))


def stale(found: Iterable[Standing]) -> list[Standing]:
    """Those that lack a session that had ended, or everything."""
    return [each for each in found if each.through is None or each.sessions]


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None


__all__ = ["Standing", "stale", "standing"]

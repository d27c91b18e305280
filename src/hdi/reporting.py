"""What is known of the quality of stored data, job by job: every figure from the store and its ledger.

A figure that nothing was measured for is None, and reads "not measured".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from hdi.calendars import Calendars
from hdi.covered import measure
from hdi.covered.lines import Line
from hdi.errors import UnknownSymbol
from hdi.frames import BROUGHT, CONTENT
from hdi.gaps import Wanted, find
from hdi.jobs import Job, find_job
from hdi.lookup import RECTANGLES, among, union
from hdi.model import DAY_NS, Window, iso_ns, ns_date
from hdi.reconciled import Judged, known
from hdi.resolved import looked_up, member
from hdi.schema import Schemas
from hdi.stores import Store

_AVAILABLE = "available"
_DAYS = {"day": pl.Int64(), "rows": pl.Int64()}


@dataclass(frozen=True)
class Subject:
    """What a section is about: a job, or a kind of data of which more is stored. Without ``symbols`` all of it."""

    name: str
    dataset: str
    schema: str
    symbols: tuple[str, ...]
    start: int | None
    end: int | None
    job: bool = True


@dataclass(frozen=True)
class Looked:
    """The reconciliation on record that judged most of a subject: how many rows by each check.

    ``window`` and ``symbols`` are what it was asked for, None and () where that is all of the subject.
    ``newer``: rows came after it.
    """

    run: str
    at: str
    window: tuple[str, str] | None
    symbols: tuple[str, ...]
    judged: Mapping[str, int]
    newer: bool


@dataclass(frozen=True)
class Section:
    """One job in numbers; ``months`` (month, days, held), ``rows`` and ``rejects`` (day, rows) are for plots.

    ``discrepancies`` are those in the store's ledger; whether anybody looked for them says ``reconciled``.
    """

    subject: Subject
    start: str | None
    end: str | None
    days: int
    held: int
    degraded: tuple[str, ...] | None
    gaps: Mapping[str, int]
    stored: int
    rejected: Mapping[str, int]
    discrepancies: tuple[dict[str, Any], ...]
    reconciled: Looked | None
    restated: int
    restatements: int
    last_run: str | None
    last_result: str | None
    last_at: str | None
    failed_units: int
    dollars: Decimal | None
    notes: tuple[str, ...] = ()
    months: tuple[tuple[str, int, int], ...] = field(default=(), repr=False)
    rows: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_DAYS), repr=False)
    rejects: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_DAYS), repr=False)

    @property
    def share(self) -> float | None:
        """Percentage of the days of trading that are held; None where there are none."""
        return round(100 * self.held / self.days, 2) if self.days else None

    def plain(self) -> dict[str, Any]:
        """The same as values that JSON has."""
        told = {k: v for k, v in asdict(self).items() if k not in ("subject", "rows", "rejects", "months", "dollars")}
        about = {"job": self.subject.name if self.subject.job else None, "dataset": self.subject.dataset,
                 "schema": self.subject.schema, "symbols": list(self.subject.symbols)}  # fmt: skip
        return about | told | {
            "coverage_percent": self.share, "dollars": None if self.dollars is None else str(self.dollars),
            "months": [{"month": m, "days": days, "held": held} for m, days, held in self.months],
            "rows_by_day": _by_day(self.rows), "rejects_by_day": _by_day(self.rejects),
        }  # fmt: skip


def _summed(dollars: pl.Series) -> Decimal | None:
    return Decimal(str(dollars.sum())) if dollars.len() else None


def _by_day(rows: pl.DataFrame) -> dict[str, int]:
    return {str(ns_date(day)): n for day, n in rows.iter_rows()}


def subjects(jobs: Mapping[str, Job], names: Sequence[str], ledger: pl.DataFrame, schemas: Schemas) -> list[Subject]:
    """The jobs of these names; without, all of them, and each kind of which more is stored than they asked for.

    Raises RequestError for an unknown job.
    """
    chosen = [find_job(jobs, name) for name in names] if names else list(jobs.values())
    found = []
    for job in chosen:
        window = Window.parse(job.start_date, job.end_date or job.start_date)
        _, name = schemas.find(job.schema)
        everything = any(s.upper() == "ALL_SYMBOLS" for s in job.symbols)
        found.append(Subject(
            job.name, job.dataset, name.made_from or name.name, () if everything else job.symbols, window.start,
            window.end if job.end_date and not job.synced else None,
        ))  # fmt: skip
    if names:
        return found
    beside = ledger.filter(pl.col("status").is_in(BROUGHT) & ~pl.any_horizontal(pl.lit(value=False), *map(_of, found)))
    kinds = beside.select("dataset", "schema").unique().sort("dataset", "schema")
    return found + [
        Subject(f"{dataset} {schema}", dataset, schema, (), None, None, job=False)
        for dataset, schema in kinds.iter_rows() if schema in schemas.names
    ]  # fmt: skip


def _of(job: Subject) -> pl.Expr:
    """True for units of the ledger that the job asked for."""
    inside = (pl.col("dataset") == job.dataset) & (pl.col("schema") == job.schema)
    if job.symbols:
        inside &= pl.col("symbol").is_in(job.symbols)
    if job.start is not None:
        inside &= pl.col("start") >= job.start
    return inside if job.end is None else inside & (pl.col("end") <= job.end)


class Reporter:
    """Makes sections about one store, as it stands at ``now``."""

    def __init__(self, store: Store, schemas: Schemas, calendars: Calendars, now: int, data_dir: Path) -> None:
        self._store = store
        self._schemas = schemas
        self._calendars = calendars
        self._now = now
        self._data_dir = data_dir
        self._ledger = store.ledger()

    @cached_property
    def _quarantine(self) -> pl.DataFrame:
        return self._store.quarantine().filter(~pl.col("failed"))

    @cached_property
    def _noted(self) -> pl.DataFrame:
        return self._store.discrepancies()

    @cached_property
    def _said(self) -> pl.DataFrame:
        return self._store.conditions()

    @cached_property
    def _judged(self) -> list[Judged]:
        return known(self._data_dir, self._store.identity())

    def sections(self, about: Iterable[Subject]) -> list[Section]:
        """One for each subject."""
        return [self._section(subject) for subject in about]

    def _section(self, subject: Subject) -> Section:
        mine = self._mine(subject)
        window = self._window(subject, mine)
        notes: list[str] = []
        rectangles = self._rectangles(subject, notes)
        lines = self._lines(subject, window)
        gaps: dict[str, int] = {}
        if lines:
            looked = Wanted((subject.schema,), subject.symbols, subject.dataset, window.start, window.end)
            report = find(self._store, self._schemas, self._calendars, looked, self._now, self._data_dir)
            for cause, _, count, _ in report.summary.iter_rows():
                gaps[cause] = gaps.get(cause, 0) + count
            notes += report.doubts
        rows = self._rows(subject, window, rectangles)
        rejects, rules = self._rejects(subject, window, rectangles)
        last = mine.tail(1).rows(named=True)
        brought = mine.filter(pl.col("status").is_in(BROUGHT))
        months: dict[str, list[int]] = {}
        for line in lines:
            for month in line.months:
                total = months.setdefault(f"{month.month:%Y-%m}", [0, 0])
                total[0] += month.days
                total[1] += month.held
        return Section(
            subject=subject, start=iso_ns(window.start) if mine.height or subject.job else None,
            end=iso_ns(window.end) if mine.height or subject.job else None,
            days=sum(line.total("days") for line in lines), held=sum(line.total("held") for line in lines),
            degraded=self._degraded(subject, window), gaps=gaps, stored=int(rows["rows"].sum()), rejected=rules,
            discrepancies=self._discrepancies(subject, window, rectangles),
            reconciled=self._looked(subject, window, int(brought["committed_at"].max() or 0)),  # type: ignore[arg-type]
            restated=int(brought["superseded"].sum()), restatements=brought.filter(pl.col("superseded") > 0).height,
            last_run=last[0]["run"] if last else None, last_result=last[0]["status"] if last else None,
            last_at=iso_ns(last[0]["committed_at"]) if last else None,
            failed_units=mine.unique("unit_id", keep="last").filter(pl.col("status") == "failed").height,
            dollars=_summed(mine["dollars"].drop_nulls()), notes=tuple(notes),
            months=tuple((month, days, held) for month, (days, held) in sorted(months.items())), rows=rows,
            rejects=rejects,
        )  # fmt: skip

    def _mine(self, subject: Subject) -> pl.DataFrame:
        """The receipts of the subject: those that it was asked for by, or by its symbols in its window."""
        here = self._ledger.filter(pl.col("dataset") == subject.dataset, pl.col("schema") == subject.schema)
        met = pl.any_horizontal(*(among(s) for s in subject.symbols)) if subject.symbols else pl.lit(value=True)
        if subject.start is not None:
            met &= pl.col("end") > subject.start
        if subject.end is not None:
            met &= pl.col("start") < subject.end
        return here.filter(pl.col("job").eq_missing(subject.name) | met)

    def _window(self, subject: Subject, mine: pl.DataFrame) -> Window:
        """From the first to the last thing that was asked for, never beyond now."""
        low = subject.start if subject.start is not None else int(mine["start"].min() or 0)  # type: ignore[arg-type]
        high = subject.end if subject.end is not None else int(mine["end"].max() or low + DAY_NS)  # type: ignore[arg-type]
        end = max(min(high, self._now // DAY_NS * DAY_NS + DAY_NS), low + 1)
        return Window(low, end)

    def _rectangles(self, subject: Subject, notes: list[str]) -> pl.DataFrame | None:
        """What the symbols stood for; None is everything."""
        if not subject.symbols:
            return None
        try:
            lookup = looked_up(self._store, self._schemas, None)
            found, left_out = lookup.partly(subject.symbols)
        except UnknownSymbol as exc:
            notes.append(exc.message)
            return pl.DataFrame(schema=RECTANGLES)
        notes += left_out
        return union([member(self._store, self._schemas, one) for one in found])

    def _lines(self, subject: Subject, window: Window) -> Sequence[Line]:
        mine = (pl.col("dataset") == subject.dataset) & (pl.col("schema") == subject.schema)
        if self._ledger.filter(mine).is_empty():
            return ()
        try:
            return measure(
                self._store, self._schemas, self._calendars, subject.symbols, schema=subject.schema,
                dataset=subject.dataset, start=window.start, end=window.end, now=self._now,
            ).lines  # fmt: skip
        except UnknownSymbol:
            return ()

    def _rows(self, subject: Subject, window: Window, rectangles: pl.DataFrame | None) -> pl.DataFrame:
        schema, name = self._schemas.find(subject.schema)
        found = pl.DataFrame(schema=CONTENT)
        if rectangles is None or rectangles.height:
            found = self._store.content(schema, name.name, window, rectangles, DAY_NS, subject.dataset)
        return found.group_by(day="at").agg(pl.col("rows").sum()).sort("day").cast(_DAYS)  # type: ignore[arg-type]

    def _rejects(
        self, subject: Subject, window: Window, rectangles: pl.DataFrame | None
    ) -> tuple[pl.DataFrame, dict[str, int]]:
        """(rejected rows by day, how many broke each rule)."""
        at = pl.col("index_time")
        rows = self._quarantine.filter(
            pl.col("dataset") == subject.dataset, pl.col("schema") == subject.schema,
            at.is_null() | ((at >= window.start) & (at < window.end)),
        )  # fmt: skip
        if rectangles is not None:
            ours = rectangles["instrument_id"].unique().implode()
            rows = rows.filter(pl.col("instrument_id").is_in(ours))
        rules = rows.explode("rules", empty_as_null=True, keep_nulls=True).group_by("rules").len().sort(
            "len", "rules", descending=[True, False]
        )  # fmt: skip
        days = rows.drop_nulls("index_time").group_by(day=at // DAY_NS * DAY_NS).agg(rows=pl.len()).sort("day")
        return days.cast(_DAYS), dict(rules.iter_rows())  # type: ignore[arg-type]

    def _discrepancies(
        self, subject: Subject, window: Window, rectangles: pl.DataFrame | None
    ) -> tuple[dict[str, Any], ...]:
        rows = self._noted.filter(
            pl.col("dataset") == subject.dataset, pl.col("schema") == subject.schema,
            pl.col("start") >= window.start, pl.col("start") < window.end,
        )  # fmt: skip
        if rectangles is not None:
            rows = rows.filter(pl.col("instrument_id").is_in(rectangles["instrument_id"].unique().implode()))
        by = rows.group_by("check", "severity", "state").agg(count=pl.len()).sort("severity", "check", "state")
        return tuple(by.rows(named=True))

    def _looked(self, subject: Subject, window: Window, stored_at: int) -> Looked | None:
        """The reconciliation on record that judged most of the subject, of equal ones the last; None without any."""

        def whole(done: Judged) -> bool:
            return done.window.start <= window.start and done.window.end >= window.end

        def every(done: Judged) -> bool:
            return not done.symbols or (bool(subject.symbols) and set(subject.symbols) <= set(done.symbols))

        kind = subject.dataset, subject.schema
        mine = [j for j in self._judged if j.about(*kind, subject.symbols, window)]
        if not mine:
            return None
        best = max(mine, key=lambda done: (whole(done) and every(done), len(done.of(*kind)), done.at))
        told = None if whole(best) else (iso_ns(best.window.start), iso_ns(best.window.end))
        symbols = () if every(best) else best.symbols
        return Looked(best.run, iso_ns(best.at), told, symbols, best.of(*kind), newer=stored_at > best.at)

    def _degraded(self, subject: Subject, window: Window) -> tuple[str, ...] | None:
        """Days of the dataset that the vendor last called something else than available; None: it was never asked."""
        said = self._said.filter(
            pl.col("dataset") == subject.dataset, pl.col("day") >= window.start // DAY_NS * DAY_NS,
            pl.col("day") < window.end,
        ).unique("day", keep="last", maintain_order=True)  # fmt: skip
        if said.is_empty():
            return None
        bad = said.filter(pl.col("condition") != _AVAILABLE).sort("day")
        return tuple(f"{ns_date(day)} {what}" for day, what in bad.select("day", "condition").iter_rows())


__all__ = ["Looked", "Reporter", "Section", "Subject", "subjects"]

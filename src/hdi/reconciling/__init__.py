"""Stored rows against each other: bars against what they add up, ticks against their neighbours, and what was found.

Nothing is changed in the data. What is found is kept in the store's ledger of discrepancies (:mod:`.findings`); what
cannot be judged is counted, with the reason.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from uuid import uuid4

import polars as pl
import structlog

from hdi.lookup import Lookup, Names, union
from hdi.model import Window
from hdi.reconciled import Judged, keep
from hdi.reconciling.checks import ERROR, chosen
from hdi.reconciling.findings import OPEN, settled
from hdi.reconciling.held import Asked, Books, whole_days
from hdi.reconciling.passes import Done, Pass, Reading
from hdi.resolved import looked_up, member
from hdi.schema import Schemas
from hdi.settings.groups import Reconcile
from hdi.stores import Store

#: What was looked at: one row for each check, schema and what it was compared with. ``rows`` were judged.
JUDGED = {
    "check": pl.String(), "dataset": pl.String(), "schema": pl.String(), "against": pl.String(), "rows": pl.Int64(),
}  # fmt: skip
#: What was not, with the reason.
UNJUDGED = {**JUDGED, "reason": pl.String()}
log = structlog.get_logger(component="Reconciliation")


@dataclass(frozen=True)
class Wanted:
    """What is to be reconciled; empty is everything."""

    window: Window
    symbols: tuple[str, ...] = ()
    schemas: tuple[str, ...] = ()
    dataset: str | None = None
    checks: tuple[str, ...] = ()


@dataclass
class Reconciled:
    """What became of it. ``open`` are the discrepancies that stand in what was asked for; ``resolved`` are gone now."""

    run: str
    judged: pl.DataFrame
    unjudged: pl.DataFrame
    open: pl.DataFrame = field(repr=False)
    new: int = 0
    resolved: int = 0
    rows: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def errors(self) -> int:
        """How many open discrepancies are contradictions."""
        return self.open.filter(pl.col("severity") == ERROR).height


class Reconciliation:
    """A run over what a store holds: :meth:`steps` does it, :meth:`result` says what became of it."""

    def __init__(
        self, store: Store, schemas: Schemas, wanted: Wanted, settings: Reconcile, data_dir: Path | None = None
    ) -> None:
        """With a ``data_dir`` it is kept on record there that the run was done, and what it judged.

        Raises RequestError for an unknown check, schema or dataset, UnknownSymbol where no symbol is stored.
        """
        self._store = store
        self._data_dir = data_dir
        self._schemas = schemas
        self._wanted = wanted
        self._settings = settings
        self._run = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid4().hex[:6]}"
        self._checks = chosen(wanted.checks)
        self._only = tuple(schemas.find(name)[1].name for name in wanted.schemas)
        self._books = Books.of(store)
        self._lookup = looked_up(store, schemas, wanted.dataset)
        self.notes: list[str] = []
        self._asked = self._rectangles()
        self._done: list[Done] = []
        self._before = store.discrepancies()
        self._began = time.monotonic()

    def _rectangles(self) -> pl.DataFrame | None:
        """The instruments of the symbols, by whole days; None is all."""
        if not self._wanted.symbols:
            return None
        found, self.notes = self._lookup.partly(self._wanted.symbols)
        asked = [member(self._store, self._schemas, one) for one in found]
        return whole_days(union(asked, self._wanted.window))

    @cached_property
    def datasets(self) -> list[str]:
        """The datasets that are looked at."""
        stored = self._books.ledger["dataset"].unique().sort().to_list()
        return [d for d in stored if self._wanted.dataset in (None, d)]

    def steps(self) -> Iterator[str]:
        """Do it, one reading after the other; each is named before it is done, and kept when it is."""
        for dataset in self.datasets:
            rectangles = self._asked
            if rectangles is not None:
                rectangles = rectangles.filter(pl.col("dataset") == dataset)
                if rectangles.is_empty():
                    continue
            reading = Reading(
                self._store, self._schemas, self._books, self._checks, self._settings, dataset,
                Asked(self._wanted.window, rectangles),
                self._before.filter(pl.col("dataset") == dataset, pl.col("state") == OPEN),
            )  # fmt: skip
            for name in reading.stored():
                one = Pass(reading, name, self._only)
                yield f"{dataset} {name}"
                done = one.done()
                self._done.append(done)
                self._keep(done)
        if self._data_dir is not None and self._done:
            keep(self._data_dir, self._record())

    def _record(self) -> Judged:
        rows: dict[tuple[str, str], dict[str, int]] = {}
        for done in self._done:
            for (check, schema, _), count in done.counts.items():
                mine = rows.setdefault((done.dataset, schema), {})
                mine[check] = mine.get(check, 0) + count.judged
        wanted = self._wanted
        return Judged(self._run, time.time_ns(), self._store.identity(), wanted.window, wanted.symbols, rows)

    def _keep(self, done: Done) -> None:
        """Bring the ledger to what was found."""
        found = done.found.with_columns(dataset=pl.lit(done.dataset), symbol=pl.lit(None, pl.String))
        found = self._names.fill(found, "start")
        known = self._store.discrepancies()
        mine = (pl.col("dataset") == done.dataset) & (pl.col("state") == OPEN)
        if found.is_empty() and known.filter(mine).is_empty():
            return
        at = time.time_ns()
        self._store.amend(lambda now: settled(now, found, done.dataset, done.scopes.items(), self._run, at))
        for check, schema, rows in found.group_by("check", "schema").len().iter_rows():
            log.warning("Discrepancies", check=check, dataset=done.dataset, schema=schema, found=rows)

    @cached_property
    def _names(self) -> Names:
        return Lookup(self._books.mappings, self._books.coverage, self._books.ledger).names(None)

    def result(self) -> Reconciled:
        """What became of what was done so far."""
        judged, unjudged = [], []
        scoped = pl.lit(value=False)
        for done in self._done:
            for (check, schema, against), count in done.counts.items():
                judged.append((check, done.dataset, schema, against, count.judged))
                unjudged += [
                    (check, done.dataset, schema, against, rows, why) for why, rows in count.unjudged.items() if rows
                ]
                scoped |= (
                    (pl.col("check") == check) & (pl.col("dataset") == done.dataset) & (pl.col("schema") == schema)
                    & (pl.col("against") == against)
                )  # fmt: skip
        looked = pl.DataFrame(judged, schema=JUDGED, orient="row")
        left = pl.DataFrame(unjudged, schema=UNJUDGED, orient="row")
        now = self._store.discrepancies()
        window = self._wanted.window
        standing = now.filter(
            pl.col("state") == OPEN, scoped, pl.col("end") > window.start, pl.col("start") < window.end
        )
        if self._asked is not None:
            standing = standing.join(self._asked.select("dataset", "instrument_id").unique(),
                                     on=["dataset", "instrument_id"], how="semi")  # fmt: skip
        first = int(self._before["number"].max() or 0)  # type: ignore[arg-type]  # Polars' maxima
        gone = now.filter(pl.col("resolved_run") == self._run)
        return Reconciled(
            self._run, looked.sort("dataset", "schema", "check", "against"),
            left.sort("dataset", "schema", "check", "against", "reason"), standing.sort("number"),
            new=now.filter(pl.col("number") > first, pl.col("run") == self._run).height, resolved=gone.height,
            rows=sum(done.rows for done in self._done), seconds=time.monotonic() - self._began, notes=self.notes,
        )  # fmt: skip


__all__ = ["JUDGED", "UNJUDGED", "Reconciled", "Reconciliation", "Wanted"]

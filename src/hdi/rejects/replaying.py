"""Replay: what was rejected, or stored, is refined again from its kept bytes under the rules and mapping of today.

Rows whose verdict is another one move, from quarantine into their table or the other way about, each file in one commit
of its own like any other; where no row moves nothing is committed. Nothing is bought. What later commits have taken
over is left alone, so that older bytes never bring back what was replaced.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import polars as pl

from hdi.attempt import Options, Task, settled
from hdi.errors import HdiError, RequestError, StoreError, TooManyRejects, UnitFailed
from hdi.frames import REJECTS
from hdi.judging import Judge
from hdi.model import MAX_NS, Header, Outcome, Receipt, Unit, Window, ns_date, some
from hdi.pipeline import Run, check_refining, claim_keys, export_rejects
from hdi.plan import Plan
from hdi.refine import Refinery
from hdi.rejects.again import Again, Matching, Moves, lenient, numbered
from hdi.rejects.kept import Kept, kept, owned, standing
from hdi.schema import closest
from hdi.sources.records import columns
from hdi.symbology import Intervals

if TYPE_CHECKING:
    from hdi.mapping import VendorMapping
    from hdi.schema import Schema, SchemaName, Schemas
    from hdi.stores import Store

_EVER = Window(0, MAX_NS)


@dataclass(frozen=True)
class Asked:
    """What is to be replayed: only rows that broke or break one rule, only one unit (its number, or how its id begins),
    only one schema; None is all.
    """  # noqa: D205

    rule: str | None = None
    unit: str | None = None
    schema: str | None = None


@dataclass(frozen=True)
class Step:
    """One file of which rows would move; ``over`` are units that stay as they are, as too many of theirs would."""

    found: Kept
    moves: Moves
    indexes: frozenset[int] = field(repr=False)
    over: tuple[str, ...] = ()

    @property
    def units(self) -> list[str]:
        """Its units by what was asked for, and when."""
        return [] if self.found.plan is None else [_told(self.found.plan.units[i]) for i in sorted(self.indexes)]


@dataclass(frozen=True)
class Planned:
    """What a replay would do: ``steps`` move rows, ``same`` files have none that would; ``left_out`` says why not."""

    steps: tuple[Step, ...]
    same: int
    left_out: tuple[tuple[Kept, str], ...]

    @property
    def rows_out(self) -> int:
        """Rows that leave quarantine."""
        return sum(step.moves.rows_out for step in self.steps)

    @property
    def rows_into(self) -> int:
        """Rows that leave their table."""
        return sum(step.moves.rows_into for step in self.steps)

    @property
    def refused(self) -> list[Step]:
        """Files of which units stay as they are."""
        return [step for step in self.steps if step.over]


class Replay:
    """One replay: :meth:`plan`, then :meth:`run`."""

    def __init__(self, store: Store, schemas: Schemas, mapping: VendorMapping, options: Options, asked: Asked) -> None:
        self._store, self._schemas, self._mapping = store, schemas, mapping
        self._options = replace(options, keep=False, refetch=False)
        self._asked = asked

    def plan(self) -> Planned:
        """Which rows would move, by reading the files; nothing is kept.

        Raises RequestError for a rule, a unit or a schema that there is not.
        """
        check_refining(self._schemas, self._mapping)
        ledger, coverage = self._store.ledger(), self._store.coverage()
        units = self._candidates(ledger, coverage)
        steps, same, left_out = [], 0, []
        for found in kept(units, self._schemas, self._options.data_dir):
            if found.why:
                left_out.append((found, found.why))
                continue
            step = self._step(found, ledger, coverage)
            if isinstance(step, str):
                left_out.append((found, step))
            elif step.moves or step.over:
                steps.append(step)
            else:
                same += 1
        return Planned(tuple(steps), same, tuple(left_out))

    def run(self, planned: Planned) -> Generator[Outcome]:
        """Do it; an outcome for each file. What was committed meanwhile by somebody else fails its file alone."""
        steps = [step for step in planned.steps if step.moves]
        if not steps:
            # What a replay that died after its last commit has left undone.
            export_rejects(self._store, self._options.dlq_dir)
            self._store.settle()
            return
        with Run(self._store, self._options) as run:
            for step in steps:
                outcome = self._outcome(step, run.id)
                run.add(outcome)
                yield outcome
            export_rejects(self._store, self._options.dlq_dir)

    # --- which units -----------------------------------------------------------------------------

    def _candidates(self, ledger: pl.DataFrame, coverage: pl.DataFrame) -> pl.DataFrame:
        """The receipts of units of which a row may have another verdict now."""
        asked = self._asked
        units = standing(ledger)
        if asked.schema is not None:
            units = units.filter(pl.col("schema") == self._schemas.find(asked.schema)[1].name)
        if asked.unit is not None:
            return self._of_unit(units, asked.unit)
        rejects = self._store.quarantine().filter(~pl.col("failed"))
        if asked.rule is not None:
            self._know(asked.rule, rejects)
            rejects = rejects.filter(pl.col("rules").list.contains(asked.rule))
        ids = set(rejects["unit_id"]) | self._breaking(units, ledger, coverage)
        return units.filter(pl.col("unit_id").is_in(list(ids)))

    def _of_unit(self, units: pl.DataFrame, wanted: str) -> pl.DataFrame:
        number = int(wanted) if wanted.isascii() and wanted.isdigit() and len(wanted) <= 9 else -1  # noqa: PLR2004
        found = units.filter((pl.col("unit") == number) | (pl.col("unit_id") == wanted))
        if found.is_empty():
            found = units.filter(pl.col("unit_id").str.starts_with(wanted)) if wanted else found
        if found.height != 1:
            many = "several units begin" if found.height else "no unit is stored whose number is, or whose id begins"
            raise RequestError(
                f"{many} with {wanted!r}", "`hdi quarantine list` has the units of rejects, `hdi runs RUN` all others."
            )
        return found

    def _know(self, rule: str, rejects: pl.DataFrame) -> None:
        names = {r.name for s in self._schemas for r in s.rules} | set(rejects["rules"].explode().drop_nulls())
        if rule not in names:
            raise RequestError(f"no rule is called {rule!r}", closest(rule, sorted(names)))

    def _breaking(self, units: pl.DataFrame, ledger: pl.DataFrame, coverage: pl.DataFrame) -> set[str]:
        """Units that answer for stored rows which today's rules reject."""
        found: set[str] = set()
        for dataset, name in units.select("dataset", "schema").unique(maintain_order=True).iter_rows():
            schema, _ = self._schemas.find(name)
            judge = Judge(schema, dataset, only=self._asked.rule, severity="ERROR")
            if not judge.checks:
                continue
            owners = _Owners(dataset, name, ledger, coverage)
            place = ["instrument_id", schema.index_time, "_unit"]
            wanted = list(dict.fromkeys([*judge.columns, *place]))
            with closing(self._store.read(schema, name, _EVER, None, wanted, dataset, ordered=False)) as frames:  # type: ignore[type-var]
                for frame in frames:
                    found |= owners.of(judge.bad(frame), schema.index_time)
        return found & set(units["unit_id"])

    # --- one file --------------------------------------------------------------------------------

    def _step(self, found: Kept, ledger: pl.DataFrame, coverage: pl.DataFrame) -> Step | str:
        """What of a file would move, or why it cannot be told."""
        plan, header = _planned(found)
        indexes, over = _wanted(plan, found, ledger), set[int]()
        numbers = list(range(1, len(plan.units) + 1))
        moves = Moves()
        while indexes:
            old = self._old(plan, indexes, numbers)
            attempt = self._attempt(found, plan, header, indexes, numbers, "", old, ledger, coverage)
            try:
                moves = attempt.look(old)
            except HdiError as error:
                return error.message
            # Units of which no row moves stay as they are; those that share an instrument stand or fall together.
            indexes &= plan.together(moves.units)
            out = plan.together(moves.over & indexes) & indexes
            if not out:
                break
            over, indexes, moves = over | out, indexes - out, Moves()
        return Step(found, moves, frozenset(indexes), tuple(_told(plan.units[i]) for i in sorted(over)))

    def _outcome(self, step: Step, run: str) -> Outcome:
        """Move the rows of one file."""
        found, began = step.found, time.monotonic()
        plan, header = _planned(found)
        receipts: list[Receipt] = []
        error: HdiError | None = None
        try:
            with self._store.claim(claim_keys(plan.units[0].dataset, found.name, plan.window)):
                receipts, error = self._moved(step, plan, header, run)
        except StoreError:
            raise
        except HdiError as exc:
            error = exc
        moves = step.moves
        return Outcome(
            path=str(found.path), status="failed" if error else "stored", dataset=plan.units[0].dataset,
            schema=found.name.name, symbols=tuple(dict.fromkeys(u.symbol for u in plan.units if u.symbol)),
            window=plan.window, receipts=tuple(receipts), units=len(receipts), error=error,
            note="" if error else f"{moves.rows_out} out of quarantine, {moves.rows_into} into it",
            seconds=time.monotonic() - began,
        )  # fmt: skip

    def _moved(
        self, step: Step, plan: Plan, header: Header, run: str
    ) -> tuple[list[Receipt], TooManyRejects | None]:  # fmt: skip
        ledger, coverage = self._store.ledger(), self._store.coverage()
        now = standing(ledger).filter(pl.col("unit_id").is_in(step.found.units["unit_id"].implode()))
        if set(now["unit"]) != set(step.found.units["unit"]):
            raise UnitFailed(
                f"{step.found.path}: its units were committed again meanwhile", "Run the same command again."
            )
        numbers = self._store.reserve([u.id for u in plan.units])
        old = self._old(plan, step.indexes, numbers)
        attempt = self._attempt(step.found, plan, header, set(step.indexes), numbers, run, old, ledger, coverage)
        return settled(attempt.task, attempt.run)

    def _old(self, plan: Plan, indexes: set[int] | frozenset[int], numbers: Sequence[int]) -> pl.DataFrame:
        """The rejects of the units that stand, by the numbers of an attempt."""
        mine = sorted(indexes)
        ids = [plan.units[i].id for i in mine]
        return numbered(self._store.quarantine(), ids, [numbers[i] for i in mine]).select(*REJECTS)

    def _attempt(  # noqa: PLR0913, PLR0917  (what an attempt is made of)
        self, found: Kept, plan: Plan, header: Header, indexes: set[int], numbers: list[int], run: str,
        old: pl.DataFrame, ledger: pl.DataFrame, coverage: pl.DataFrame,
    ) -> Again:  # fmt: skip
        if found.path is None:
            raise UnitFailed(found.why)
        first = found.units.row(0, named=True)
        conditions, seen_at = found.conditions
        options = replace(self._options, origin=first["origin"], job=first["job"])
        task = Task(
            self._store, self._mapping, found.path, options, run, header, conditions=conditions, seen_at=seen_at,
            digest=found.digest, batch=first["batch"] or "",
        )  # fmt: skip
        refinery = self._matching(found.schema, found.name, first["dataset"], old)
        attempt = Again(task, found.schema, plan, refinery, numbers, indexes)  # type: ignore[arg-type]
        return attempt.limited(owned(found, coverage, ledger))

    def _matching(self, schema: Schema, name: SchemaName, dataset: str, old: pl.DataFrame) -> Matching:
        vendor = columns(name.name)
        strict = Refinery(schema, name, self._mapping, vendor, dataset)
        if self._asked.rule is None:
            return Matching(strict, None, None, old)
        mild = Refinery(lenient(schema), name, self._mapping, vendor, dataset)
        return Matching(strict, mild, self._asked.rule, old)


class _Owners:
    """Which unit answers for a stored row: the last that claimed its place, or the fragment that brought it."""

    def __init__(self, dataset: str, name: str, ledger: pl.DataFrame, coverage: pl.DataFrame) -> None:
        here = (pl.col("dataset") == dataset) & (pl.col("schema") == name)
        ids = ledger.filter(here).select("unit", "unit_id", "committed_at")
        spans = coverage.filter(here).drop_nulls("instrument_id").join(ids, on="unit")
        spans = spans.sort("committed_at", maintain_order=True)
        self._ids = spans["unit_id"]
        self._held = Intervals(spans)
        self._brought = dict(ids.select("unit", "unit_id").iter_rows())

    def of(self, rows: pl.DataFrame, index: str) -> set[str]:
        """The ids of the units of rows."""
        if rows.is_empty():
            return set()
        at = self._held.find(rows["instrument_id"].cast(pl.Int64).to_numpy(), rows[index].to_physical().to_numpy())
        owned = set(self._ids.gather(at[at >= 0])) if (at >= 0).any() else set()
        loose = rows["_unit"].filter(pl.Series(at < 0)).unique()
        return owned | {self._brought[unit] for unit in loose if unit in self._brought}


def _told(unit: Unit) -> str:
    """A unit by what was asked for, and when."""
    window = unit.window
    return f"{unit.symbol or 'unmapped'} {ns_date(window.start)} to {ns_date(window.end - 1)}"


def _planned(found: Kept) -> tuple[Plan, Header]:
    if found.plan is None or found.header is None:  # only files with a plan become steps
        raise UnitFailed(found.why or f"{found.file}: has no plan")
    return found.plan, found.header


def _wanted(plan: Plan, found: Kept, ledger: pl.DataFrame) -> set[int]:
    """The places in the plan of the units, and of those that share an instrument with one, as far as these are of the
    same commit.
    """  # noqa: D205
    mine = set(found.units["unit_id"])
    places = [i for i, unit in enumerate(plan.units) if unit.id in mine]
    same = standing(ledger).filter(
        pl.col("committed_at") == found.committed_at, pl.col("raw_digest") == found.digest
    )["unit_id"]  # fmt: skip
    together = set(same)
    return {i for i in plan.together(places) if plan.units[i].id in together}


def outcomes_of(planned: Planned) -> Iterator[tuple[str, str]]:
    """Why files are not replayed: (file, reason), those over the limit among them."""
    for found, why in planned.left_out:
        yield found.file or "rows made here", why
    for step in planned.refused:
        yield str(step.found.path), f"too many rows of {some(step.over)} would be rejected"


__all__ = ["Asked", "Planned", "Replay", "Step", "outcomes_of"]

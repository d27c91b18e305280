"""One kept file refined again: a look at which rows would move, and the attempt that moves them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from hdi.attempt import Attempt, Tally
from hdi.frames import COVERAGE, NO_RECORD, REJECTS
from hdi.late import Array
from hdi.model import RawFile, Window
from hdi.refine import REJECTED, Refinery, Verdict
from hdi.sources.dbn import Reader
from hdi.stores import Work
from hdi.symbology import Intervals

if TYPE_CHECKING:
    from hdi.schema import Schema


@dataclass
class Moves:
    """How many rows change sides, by the rule that they broke before, or break now.

    ``units`` are the places in the plan of their units, ``over`` of those that would have more rejects than a unit may.
    """

    out: dict[str, int] = field(default_factory=dict)
    into: dict[str, int] = field(default_factory=dict)
    rows_out: int = 0
    rows_into: int = 0
    fetched: int = 0
    units: frozenset[int] = frozenset()
    over: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.rows_out or self.rows_into)


class Again(Attempt):
    """An attempt at units as far as they are still theirs: what later commits took over stays as it is."""

    def limited(self, owned: pl.DataFrame) -> Again:
        """The same, at these stretches of instruments (instrument_id, start, end) alone.

        A fragment may also have rows of instruments that are not among them.
        """
        self.owned = owned
        return self

    @cached_property
    def _held(self) -> Intervals:
        return Intervals(self.owned)

    def look(self, old: pl.DataFrame) -> Moves:
        """Which rows would move; ``old`` (unit, row, rules) are the rejects that stand. Nothing is kept."""
        self.without = self.stored_before
        self.tally = Tally(np.zeros(len(self.plan.units), dtype=np.int64))
        seen = _Seen(old)
        with Reader(self.task.path) as reader:
            self._read(reader, seen)
        seen.moves.over, seen.moves.units = self._places(self._over()), self._places(seen.units)
        seen.moves.fetched = int(self.tally.fetched.sum())
        return seen.moves

    def _places(self, numbers: set[int]) -> frozenset[int]:
        return frozenset(i for i, n in enumerate(self.numbers.tolist()) if n in numbers)

    def _mine(self, units: Array, instruments: Array, instants: Array, times: pl.Series) -> Array | None:
        # A row without a time, or outside its own window, is no part of what another unit answers for.
        mine: Array = (instants < self.starts[units]) | (instants >= self.ends[units]) | times.is_null().to_numpy()
        mine |= self._held.find(instruments, instants) >= 0
        if self.plan.fragment:
            mine |= ~np.isin(instruments, self.owned["instrument_id"].unique().to_numpy())
        return None if mine.all() else mine

    def _work(self, coverage: pl.DataFrame, rawfile: RawFile | None) -> Work:
        return super()._work(self._left(coverage), rawfile)

    def _left(self, coverage: pl.DataFrame) -> pl.DataFrame:
        """Coverage as far as it is of the units still."""
        spans: dict[int, list[Window]] = {}
        for instrument, start, end in self.owned.select("instrument_id", "start", "end").iter_rows():
            spans.setdefault(instrument, []).append(Window(start, end))
        rows = [
            row | {"start": part.start, "end": part.end}
            for row in coverage.drop_nulls("instrument_id").iter_rows(named=True)
            for span in spans.get(row["instrument_id"], ())
            if (part := span.cut(Window(row["start"], row["end"]))) is not None
        ]
        whole = coverage.filter(pl.col("instrument_id").is_null())
        return pl.concat([whole, pl.DataFrame(rows, schema=COVERAGE, orient="row")]).sort("unit", maintain_order=True)


class _Seen:
    """A writer that keeps nothing but how many rows change sides."""

    def __init__(self, old: pl.DataFrame) -> None:
        self._old = old
        self.moves = Moves()
        self.units: set[int] = set()

    def write(self, rows: pl.DataFrame) -> None:
        """Accepted rows: those that were rejected before move into the table."""
        if not self._old.height:
            return
        found = rows.select(unit="_unit", row="_row").join(self._old, on=["unit", "row"])
        self.moves.rows_out += found.height
        self._count(self.moves.out, found)

    def reject(self, rows: pl.DataFrame) -> None:
        """Rejected rows: those that were not before move into quarantine."""
        found = rows.join(self._old, on=["unit", "row"], how="anti")
        self.moves.rows_into += found.height
        self._count(self.moves.into, found)

    def _count(self, counts: dict[str, int], rows: pl.DataFrame) -> None:
        self.units.update(rows["unit"].unique())
        for rule, n in rows["rules"].explode().drop_nulls().value_counts().iter_rows():
            counts[rule] = counts.get(rule, 0) + n


class Matching:
    """A refinery under which only rows that broke, or break, one rule change sides; other rows stay where they are.

    Of ``old`` (:data:`REJECTS`, by the numbers of the attempt) what was purged stays without its record.
    """

    def __init__(self, refinery: Refinery, lenient: Refinery | None, rule: str | None, old: pl.DataFrame) -> None:
        self._refinery = refinery
        self._lenient = lenient
        self._rule = rule
        self._old = old
        self._purged = old.filter(pl.col("record") == NO_RECORD).select("unit", "row")

    def refine(self, raw: pl.DataFrame) -> Verdict:
        """The verdict on one batch, as :meth:`hdi.refine.Refinery.refine` gives it."""
        verdict = self._refinery.refine(raw)
        if self._rule is not None:
            verdict = self._limited(raw, verdict, self._rule)
        if self._purged.height and verdict.rejected.height:
            verdict = replace(verdict, rejected=self._emptied(verdict.rejected))
        return verdict

    def _limited(self, raw: pl.DataFrame, verdict: Verdict, rule: str) -> Verdict:
        broke, breaks = self._old.filter(pl.col("rules").list.contains(rule)), pl.col("rules").list.contains(rule)
        others = self._old.join(broke, on=["unit", "row"], how="anti")
        accepted, rejected = verdict.accepted, verdict.rejected
        at = {"left_on": ["_unit", "_row"], "right_on": ["unit", "row"]}
        same = ["unit", "row"]
        stay = others.join(accepted, left_on=same, right_on=["_unit", "_row"], how="semi")
        if stay.height:
            accepted = accepted.join(stay.select(same), how="anti", **at, maintain_order="left")  # type: ignore[arg-type]
        again = others.join(rejected.filter(~breaks), on=same, how="semi")
        rejected = rejected.join(again.select(same), on=same, how="anti", maintain_order="left")
        # What only another rule rejects today, and what is stored, is stored.
        new = rejected.filter(~breaks, pl.col("error_type") == "BusinessLogicValidation")
        new = new.join(self._old, on=same, how="anti").select(same)
        if new.height and self._lenient is not None:
            rejected = rejected.join(new, on=same, how="anti", maintain_order="left")
            rows = raw.join(new, how="semi", **at, maintain_order="left")  # type: ignore[arg-type]
            accepted = pl.concat([accepted, self._lenient.refine(rows).accepted]).sort("_row")
        back = pl.concat([stay, again]).select(pl.col(c).cast(t) for c, t in REJECTED.items())
        return replace(verdict, accepted=accepted, rejected=pl.concat([rejected, back]))

    def _emptied(self, rejected: pl.DataFrame) -> pl.DataFrame:
        known = rejected.join(self._purged.with_columns(_gone=True), on=["unit", "row"], how="left",
                              maintain_order="left")  # fmt: skip
        gone = pl.col("_gone").fill_null(value=False)
        return known.with_columns(
            record=pl.when(gone).then(pl.lit(NO_RECORD)).otherwise("record"),
            error_message=pl.when(~gone).then("error_message"),
        ).drop("_gone")


def numbered(rejects: pl.DataFrame, ids: Sequence[str], numbers: Sequence[int]) -> pl.DataFrame:
    """Rejects (:data:`REJECTS`) with the number that an attempt has for their unit; others are left out."""
    by_id = dict(zip(ids, numbers, strict=True))
    own = rejects.filter(pl.col("unit_id").is_in(list(by_id)), ~pl.col("failed"))
    now = pl.col("unit_id").replace_strict(by_id, default=None, return_dtype=pl.Int32)
    return own.with_columns(unit=now).select(pl.col(c).cast(t) for c, t in REJECTS.items())


def lenient(schema: Schema) -> Schema:
    """The same kind of data with no rule that rejects a row."""
    return replace(schema, rules=tuple(replace(rule, severity="WARNING") for rule in schema.rules))


__all__ = ["Again", "Matching", "Moves", "lenient", "numbered"]

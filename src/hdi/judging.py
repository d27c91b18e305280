"""Stored rows by the rules of today: which of them break what, and how many, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from hdi.errors import DataError
from hdi.refine import broken, stored_checks

if TYPE_CHECKING:
    from hdi.query import Result
    from hdi.refine import Check
    from hdi.schema import Schema, Severity

#: Examples that are kept of each rule.
EXAMPLES = 5
#: What an example says of its row.
SHOWN = ("dataset", "symbol", "instrument_id")
_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))


class Judge:
    """What rows of one kind and dataset have to hold; of one rule (``only``) or one severity alone if given."""

    def __init__(
        self, schema: Schema, dataset: str, *, only: str | None = None, severity: Severity | None = None
    ) -> None:  # fmt: skip
        self.checks: list[Check] = [
            check for check in stored_checks(schema, dataset)
            if only in (None, check.name) and severity in (None, check.severity)
        ]  # fmt: skip
        names = {name for check in self.checks for name in check.broken.meta.root_names()}
        #: The columns that it looks at, in the order of the table.
        self.columns = [name for name in schema.dtypes if name in names]

    def bad(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows that break something."""
        masks = [mask for _, mask in broken(rows, self.checks)]
        return rows.filter(pl.any_horizontal(masks)) if masks else rows.clear()


@dataclass
class Broken:
    """One rule that stored rows break: how many, and some of them (dataset, symbol, instrument, time, values)."""

    rule: str
    severity: Severity
    message: str
    rows: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Judged:
    """What stored rows are by the rules of today: ``rows`` were looked at of ``of``; ``rules`` are those broken.

    ``held`` are the names of all rules that were asked; ``errors`` rows break one that would reject them today.
    """

    schema: str
    rows: int
    of: int
    rules: tuple[Broken, ...]
    held: tuple[str, ...]
    seed: int | None
    errors: int = 0


def judge(result: Result, sample: int | None = None, seed: int = 0, tell: Callable[[int], object] = lambda _: None) -> (
    Judged
):  # fmt: skip
    """The verdict on what a query finds; of so many of its rows (``sample``) where that is given.

    The sample is the rows whose hash with the seed is lowest: each row has the same chance, and the same rows come
    again from any store. ``tell`` is told how many rows were read. Raises DataError for rows of other types than
    declared.
    """
    schema = result.schema
    judges: dict[str, Judge] = {}
    found: dict[tuple[str, str], Broken] = {}
    judged = total = errors = 0
    rows = result.narrowed(list(schema.dtypes))
    with closing(_bounded(rows, sample, seed)) as frames:
        for frame, read in frames:
            total += read
            tell(total)
            if frame.schema != schema.dtypes:
                raise DataError(f"{schema.kind}: stored rows are not of the declared types: {dict(frame.schema)}")
            judged += frame.height
            for part in frame.partition_by("dataset", maintain_order=True) if frame.height else ():
                dataset = str(part["dataset"][0])
                own = judges.setdefault(dataset, Judge(schema, dataset))
                errors += _add(found, own, part, schema.index_time)
    held = tuple(dict.fromkeys(check.name for own in judges.values() for check in own.checks))
    order = {"ERROR": 0, "WARNING": 1, "INFO": 2}
    rules = sorted(found.values(), key=lambda each: (order[each.severity], -each.rows, each.rule))
    return Judged(result.name.name, judged, total, tuple(rules), held, None if sample is None else seed, errors)


def _add(found: dict[tuple[str, str], Broken], own: Judge, rows: pl.DataFrame, index: str) -> int:
    """Count what rows break, and keep examples; how many of them break a rule that would reject them."""
    rejecting = pl.repeat(value=False, n=rows.height, eager=True)
    for check, mask in broken(rows, own.checks):
        if check.severity == "ERROR":
            rejecting |= mask
        each = found.setdefault((check.name, check.severity), Broken(check.name, check.severity, check.message))
        each.rows += int(mask.sum())
        if (room := EXAMPLES - len(each.examples)) > 0:
            looked = [c for c in dict.fromkeys(check.broken.meta.root_names()) if c not in (*SHOWN, index)]
            shown = rows.filter(mask).head(room).select(*SHOWN, index, *looked)
            shown = shown.with_columns(pl.selectors.datetime().dt.strftime("%Y-%m-%dT%H:%M:%S%.9fZ"))
            each.examples += shown.rows(named=True)
    return int(rejecting.sum())


def _bounded(result: Result, sample: int | None, seed: int) -> Generator[tuple[pl.DataFrame, int]]:
    """All rows as they come, or the sample at the end, with how many rows were read for it."""
    if sample is None:
        for frame in result.frames():
            yield frame, frame.height
        return
    chosen: pl.DataFrame | None = None
    read = 0
    for frame in result.frames():
        read += frame.height
        drawn = frame.with_columns(
            _draw=draws(frame, result.schema.index_time, seed), _at=pl.int_range(read - frame.height, read)
        )
        if chosen is not None and chosen.height >= sample:
            # What is above the highest that is kept can never be chosen.
            drawn = drawn.filter(pl.col("_draw") <= chosen["_draw"].max())
        chosen = (drawn if chosen is None else pl.concat([chosen, drawn])).bottom_k(sample, by=["_draw", "_at"])
    if chosen is not None:
        yield chosen.sort("_at").drop("_draw", "_at"), read


def draws(rows: pl.DataFrame, index: str, seed: int) -> pl.Series:
    """A number for each row that only its whole numbers, its instant and the seed decide."""
    numbers = [index, *(c for c, t in rows.schema.items() if t.is_integer())]
    with np.errstate(over="ignore"):
        mixed = np.full(rows.height, np.uint64(seed % 2**64) * _MIX[0] + _MIX[2], dtype=np.uint64)
        for name in numbers:
            part = rows[name].to_physical().cast(pl.Int64).fill_null(-1).to_numpy().view(np.uint64)
            mixed = _mixed(mixed ^ part)
    return pl.Series("_draw", mixed)


def _mixed(values: Any) -> Any:
    """Every bit of the outcome depends on every bit that comes in."""
    values = values + _MIX[0]
    values = (values ^ (values >> _SHIFTS[0])) * _MIX[1]
    values = (values ^ (values >> _SHIFTS[1])) * _MIX[2]
    return values ^ (values >> _SHIFTS[2])


__all__ = ["EXAMPLES", "Broken", "Judge", "Judged", "draws", "judge"]

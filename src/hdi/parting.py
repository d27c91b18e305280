"""What a store's books say of one dataset and schema, and how that is cut into pieces which share no unit."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise

import numpy as np
import polars as pl

from hdi.frames import MAPPINGS
from hdi.model import MAX_NS, Window, cell_end, cell_start
from hdi.schema import Schema, SchemaName
from hdi.stores import Store

#: What tells two rows of a book apart; of the others it takes all columns.
_KEYS = {
    "ledger": ("unit", "unit_id", "run", "committed_at"),
    "history": ("_unit", "_row", "_replaced_unit", "_replaced_at"),
}


@dataclass(frozen=True)
class Cut:
    """Pieces in the order of time: together they are all of time, and ``spans`` are the cells that units lie in."""

    spans: tuple[Window, ...]
    units: pl.DataFrame

    @classmethod
    def of(cls, ledger: pl.DataFrame, name: SchemaName, extents: Callable[[pl.DataFrame], pl.DataFrame]) -> Cut:
        """Cut what the receipts of a ledger brought.

        The rows of a unit lie in its window, and mostly that lies in a cell. Where it does not (a file without
        dates), ``extents`` (unit, first, last) says of these receipts where their rows lie, if there are any.
        """
        ends = [cell_end(start, name.grid) for start in ledger["start"]]
        cells = ledger.select("unit", "start", "end", "stored").with_columns(cell=pl.Series(ends, dtype=pl.Int64))
        wide = cells.filter(pl.col("end") > pl.col("cell"), pl.col("stored") > 0)
        places = {unit: (start, start) for unit, start in ledger.select("unit", "start").iter_rows()}
        if wide.height:
            places |= {unit: (first, last) for unit, first, last in extents(wide).iter_rows()}
        held = {u: (cell_start(a, name.grid), cell_end(b, name.grid)) for u, (a, b) in places.items()}
        spans: list[list[int]] = []
        for start, end in sorted(set(held.values())):
            if spans and start < spans[-1][1]:
                spans[-1][1] = max(spans[-1][1], end)
            else:
                spans.append([start, end])
        starts = [start for start, _ in spans]
        owners = [(unit, bisect_right(starts, start) - 1) for unit, (start, _) in held.items()]
        units = pl.DataFrame(owners, schema={"unit": pl.Int32, "piece": pl.Int64}, orient="row")
        return cls(tuple(Window(a, b) for a, b in spans), units)

    @cached_property
    def windows(self) -> list[Window]:
        """The pieces: each up to the next one, so that no row is between two."""
        starts = [0, *(span.start for span in self.spans[1:]), MAX_NS]
        return [Window(a, b) for a, b in pairwise(starts)]

    def units_of(self, piece: int) -> list[int]:
        """The units of a piece."""
        return self.units.filter(pl.col("piece") == piece)["unit"].to_list()

    def part(self, frame: pl.DataFrame, instants: pl.Series, *, by_unit: bool = True) -> list[pl.DataFrame]:
        """The rows of each piece: by their unit where that has a receipt, else by an instant."""
        starts = np.array([window.start for window in self.windows[1:]], dtype=np.int64)
        at = np.searchsorted(starts, instants.fill_null(0).to_numpy(), side="right")
        placed = frame.with_columns(_piece=pl.Series(at, dtype=pl.Int64))
        if by_unit:
            known = placed.join(self.units, on="unit", how="left", maintain_order="left")
            placed = known.with_columns(_piece=pl.coalesce("piece", "_piece")).drop("piece")
        parts = placed.partition_by("_piece", as_dict=True, include_key=False, maintain_order=True)
        return [parts.get((k,), frame.clear()) for k in range(len(self.spans))]


@dataclass(frozen=True)
class Books:
    """What a store says of one dataset and schema; ``mappings`` and ``conditions`` are the dataset's."""

    index: str
    ledger: pl.DataFrame
    coverage: pl.DataFrame
    quarantine: pl.DataFrame
    history: pl.DataFrame
    mappings: pl.DataFrame
    conditions: pl.DataFrame

    @classmethod
    def of(cls, store: Store, dataset: str, schema: Schema, name: SchemaName) -> Books:
        """Read them, the ledger first: what is committed while the others are read shows in the ledger later."""
        mine = (pl.col("dataset") == dataset, pl.col("schema") == name.name)
        implied = {"dataset": dataset, **name.constants}
        ledger = store.ledger().filter(mine)
        return cls(
            index=schema.index_time,
            ledger=ledger,
            coverage=store.coverage().filter(mine),
            quarantine=store.quarantine().filter(mine),
            history=store.replaced(schema).filter(pl.col(c) == v for c, v in implied.items()),
            mappings=store.learned().filter(pl.col("dataset") == dataset),
            conditions=store.conditions().filter(pl.col("dataset") == dataset),
        )

    def parts(self, cut: Cut) -> list[Books]:
        """The books of each piece, without what is the dataset's."""
        past = self.history
        instants = past[self.index].to_physical() * 1000 + past[f"{self.index}_ns"].cast(pl.Int64)
        frames = (
            cut.part(self.ledger, self.ledger["start"]),
            cut.part(self.coverage, self.coverage["start"]),
            cut.part(self.quarantine, self.quarantine["index_time"]),
            cut.part(past, instants, by_unit=False),
        )
        whole = (self.mappings.clear(), self.conditions.clear())
        return [Books(self.index, *four, *whole) for four in zip(*frames, strict=True)]

    def unlike(self, other: Books) -> bool:
        """True when anything but what is the dataset's differs."""
        return any(
            not _same(getattr(self, f.name), getattr(other, f.name))
            for f in fields(self) if f.name not in ("index", "mappings", "conditions")
        )  # fmt: skip

    def differences(self, other: Books, cut: Cut, *, whole: bool) -> list[str]:
        """What the books of another store say otherwise, and from when on; ``whole`` with what is the dataset's."""
        found = []
        if whole and lacking_mappings(self.mappings, other.mappings).height:
            found.append("the symbology differs")
        if whole and not _same(self.conditions, other.conditions):
            found.append("what the vendor said of days differs")
        if self.unlike(other):
            pairs = zip(cut.spans, self.parts(cut), other.parts(cut), strict=True)
            found += [f"the books from {span} differ" for span, mine, theirs in pairs if mine.unlike(theirs)]
        return found


def lacking(theirs: pl.DataFrame, ours: pl.DataFrame, book: str) -> pl.DataFrame:
    """The rows of the first frame that the second lacks, in their order; of equal ones each counts."""
    key = list(_KEYS.get(book, theirs.columns))
    nth = pl.int_range(pl.len()).over(key).alias("_nth")
    return (
        theirs.with_columns(nth)
        .join(ours.with_columns(nth), on=[*key, "_nth"], how="anti", nulls_equal=True, maintain_order="left")
        .drop("_nth")
    )


def lacking_mappings(theirs: pl.DataFrame, ours: pl.DataFrame) -> pl.DataFrame:
    """The mappings to be learned so that both know the same: of two that contradict, the later counts."""
    known = ours.height
    said, held = theirs.select(*MAPPINGS), ours.select(*MAPPINGS)
    if said.head(known).equals(held):
        return theirs.slice(known)
    if held.tail(said.height).equals(said):
        return theirs.clear()
    return theirs  # learned in another order: all of them once more


def _same(one: pl.DataFrame, other: pl.DataFrame) -> bool:
    """True for frames with the same rows, in whatever order."""
    if one.height != other.height:
        return False
    return one.equals(other) or _ordered(one).equals(_ordered(other))


def _ordered(frame: pl.DataFrame) -> pl.DataFrame:
    lists: Sequence[str] = [c for c, kind in frame.schema.items() if isinstance(kind, pl.List)]
    plain = frame.with_columns(pl.col(c).list.join("\n") for c in lists)
    return plain.sort(pl.all(), maintain_order=True)


__all__ = ["Books", "Cut", "lacking", "lacking_mappings"]

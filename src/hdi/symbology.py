"""Symbols and instruments by date: which symbol type a notation is, and which rows are whose.

An instrument_id means something only within a dataset and a day, so every lookup here takes an instant.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

import polars as pl

from hdi.late import Array, np
from hdi.model import Stype

ALL_SYMBOLS = "ALL_SYMBOLS"
#: Instruments whose ids span less than this are looked up in a table instead of by search.
_DENSE = 1 << 20
_CONTINUOUS = re.compile(r"[A-Za-z0-9]+\.[cnvCNV]\.[0-9]+")
#: A contract by its root, its month and one or two digits of its year.
CONTRACT = re.compile(r"([A-Z0-9]{1,4}?)[FGHJKMNQUVXZ]\d{1,2}")
_PARENT = re.compile(r"\S+\.(FUT|OPT|SPOT)", re.IGNORECASE)


def infer_stype(symbol: str) -> Stype:
    """The symbol type that a notation stands for.

    ``ROOT.c.N``, ``.n.`` and ``.v.`` are continuous; ``ROOT.FUT``, ``.OPT`` and ``.SPOT`` parent;
    digits only instrument_id; everything else raw_symbol.
    """
    if _CONTINUOUS.fullmatch(symbol):
        return "continuous"
    if _PARENT.fullmatch(symbol):
        return "parent"
    return "instrument_id" if symbol.isascii() and symbol.isdigit() else "raw_symbol"


def root_of(symbol: str) -> str:
    """The root of a symbol: what stands before the first dot, or before the month and year of a contract."""
    head = symbol.upper().partition(".")[0]
    return match[1] if (match := CONTRACT.fullmatch(head)) else head


class Intervals:
    """Disjoint intervals per instrument, looked up for whole columns at once.

    Made from a frame with instrument_id, start, end (nanoseconds, half-open). Where two rows claim the
    same instant of an instrument the later row of the frame wins.
    """

    def __init__(self, frame: pl.DataFrame) -> None:
        flat = disjoint(frame.select("instrument_id", "start", "end"))
        self._ids = np.unique(flat["instrument_id"].to_numpy())
        self._starts = flat["start"].to_numpy()
        self._ends = flat["end"].to_numpy()
        self._source = flat["row"].to_numpy()
        codes = np.searchsorted(self._ids, flat["instrument_id"].to_numpy())
        # One sorted key per interval (instrument, rank of its start) makes a lookup two binary searches.
        self._ranks = np.unique(self._starts)
        self._span = len(self._ranks) + 1
        self._keys = codes * self._span + np.searchsorted(self._ranks, self._starts)
        self._single = len(self._ids) == len(self._starts)
        self._dense = self._table() if self._single else None

    def _table(self) -> Array | None:
        """Where each id stands among the ids, by id, when they lie close enough for that."""
        if not len(self._ids) or self._ids[-1] - self._ids[0] >= _DENSE:
            return None
        table = np.full(self._ids[-1] - self._ids[0] + 1, -1, dtype=np.int32)
        table[self._ids - self._ids[0]] = np.arange(len(self._ids))
        return table

    def find(self, instruments: Array, instants: Array) -> Array:
        """For each row the number of the frame's row that holds it, or -1. Both inputs are int64."""
        if not len(self._ids) or not len(instruments):
            return np.full(len(instruments), -1, dtype=np.int64)
        at, known = self._place(instruments, instants)
        if instants.min() < self._starts.max() or instants.max() >= self._ends.min():
            known = known & (instants >= self._starts[at]) & (instants < self._ends[at])
        found: Array = self._source[at]
        if not known.all():
            found = np.where(known, found, -1)
        return found

    def _place(self, instruments: Array, instants: Array) -> tuple[Array, Array]:
        """The last interval of each row's instrument that starts by its instant, and whether there is one."""
        if self._dense is not None:
            shifted = instruments - self._ids[0]
            # As unsigned numbers the negative ones are beyond the table too.
            inside = shifted.view(np.uint64) < len(self._dense)
            at = self._dense[shifted if inside.all() else np.where(inside, shifted, 0)]
            return np.maximum(at, 0), inside & (at >= 0)
        codes = np.searchsorted(self._ids, instruments)
        codes[codes == len(self._ids)] = 0
        known = self._ids[codes] == instruments
        if self._single:
            return codes, known
        ranks = np.searchsorted(self._ranks, instants, side="right") - 1
        at = np.maximum(np.searchsorted(self._keys, codes * self._span + ranks, side="right") - 1, 0)
        return at, known & (self._keys[at] // self._span == codes)


def disjoint(frame: pl.DataFrame) -> pl.DataFrame:
    """The intervals cut where they overlap, sorted by instrument and start, with ``row`` of the source.

    Of overlapping intervals the later row of the frame wins; empty ones are left out.
    """
    rows = (
        frame.select("instrument_id", "start", "end", row=pl.int_range(pl.len(), dtype=pl.Int64))
        .filter(pl.col("start") < pl.col("end"))
    )  # fmt: skip
    if rows.height <= 1:
        return rows
    rows = (
        rows.unique(["instrument_id", "start", "end"], keep="last")
        .sort("instrument_id", "start", "row")
        .select("instrument_id", "start", "end", "row")
    )
    same = pl.col("instrument_id") == pl.col("instrument_id").shift(1)
    overlapping = rows.filter(same & (pl.col("start") < pl.col("end").shift(1)))["instrument_id"].unique()
    if not len(overlapping):
        return rows
    tangled = rows["instrument_id"].is_in(overlapping.implode())
    pieces = [
        (*key, start, end, row)
        for key, part in rows.filter(tangled).group_by("instrument_id", maintain_order=True)
        for start, end, row in _cut(part.select("start", "end", "row").rows())
    ]
    cut = pl.DataFrame(pieces, schema=rows.schema, orient="row")
    return pl.concat([rows.filter(~tangled), cut]).sort("instrument_id", "start")


def _cut(intervals: Sequence[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
    """Intervals (start, end, row), sorted by start, as pieces that do not overlap: the highest row of each instant."""
    bounds = sorted({at for start, end, _ in intervals for at in (start, end)})
    active: list[tuple[int, int]] = []
    following = 0
    last: tuple[int, int, int] | None = None
    for at, until in pairwise(bounds):
        while following < len(intervals) and intervals[following][0] == at:
            _, end, row = intervals[following]
            heapq.heappush(active, (-row, end))
            following += 1
        while active and active[0][1] <= at:
            heapq.heappop(active)
        row = -active[0][0] if active else -1
        if last is not None and last[1] == at and last[2] == row:
            last = (last[0], until, row)
            continue
        if last is not None:
            yield last
        last = (at, until, row) if active else None
    if last is not None:
        yield last


def merge(frame: pl.DataFrame) -> pl.DataFrame:
    """The union of intervals (instrument_id, start, end): touching and overlapping ones joined."""
    if frame.height <= 1:  # most symbols have one; what follows takes as long for it as for thousands
        return frame.select("instrument_id", "start", "end")
    return (
        frame.select("instrument_id", "start", "end")
        .sort("instrument_id", "start", "end")
        .with_columns(reach=pl.col("end").cum_max().shift(1).over("instrument_id"))
        .with_columns(
            run=(pl.col("reach").is_null() | (pl.col("start") > pl.col("reach"))).cum_sum().over("instrument_id")
        )
        .group_by("instrument_id", "run")
        .agg(pl.col("start").min(), pl.col("end").max())
        .drop("run")
        .sort("instrument_id", "start")
    )

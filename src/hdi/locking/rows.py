"""Which very rows differ between two sides of one leaf: in passes of bounded size, by the rows' marks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import polars as pl

#: Rows of one side that a pass holds.
_PASS_ROWS = 1 << 19
_SPREAD, _SHIFT = np.uint64(0x9E3779B97F4A7C15), np.uint64(32)
MARK = ["time", "high", "low"]


class Rows(Protocol):
    """The rows of one leaf on one side."""

    def marked(self) -> Iterator[pl.DataFrame]:
        """Frames with ``time``, ``high`` and ``low`` of each row, and of a store all of its columns beside them."""


def unlike(first: Rows, second: Rows, rows: int) -> Iterator[dict[str, Any]]:
    """The rows that one side has and the other has not, those of one instant side by side.

    Each is ``time`` (nanoseconds) with ``before`` and ``after``: values as text by column, None where that side has no
    such row, and of marks alone an empty one. ``rows`` is about how many a side has.
    """
    passes = -(-rows // _PASS_ROWS) or 1
    for k in range(passes):
        here, there = _marks(first, passes, k), _marks(second, passes, k)
        only = here.join(there, on=[*MARK, "n"], how="anti"), there.join(here, on=[*MARK, "n"], how="anti")
        if only[0].height or only[1].height:
            yield from _paired(_values(first, only[0]), _values(second, only[1]))


def _marks(side: Rows, passes: int, k: int) -> pl.DataFrame:
    """The marks of one pass; ``n`` counts equal ones."""
    kinds = {"time": pl.Int64(), "high": pl.UInt64(), "low": pl.UInt64()}
    parts = [_of(frame.select(MARK), passes, k) for frame in side.marked()]
    every = pl.concat([pl.DataFrame(schema=kinds), *parts])
    return every.with_columns(n=pl.int_range(pl.len()).over(MARK))


def _of(frame: pl.DataFrame, passes: int, k: int) -> pl.DataFrame:
    """The rows of a pass: those of one instant come in the same."""
    if passes == 1:
        return frame
    spread = frame["time"].to_numpy().view(np.uint64) * _SPREAD >> _SHIFT
    return frame.filter(pl.Series(spread % np.uint64(passes) == k))


def _values(side: Rows, wanted: pl.DataFrame) -> pl.DataFrame:
    """The rows with these marks, with their values, by time."""
    found = []
    if wanted.height:
        for frame in side.marked():
            near = frame.join(wanted.select(MARK).unique(), on=MARK, how="semi", maintain_order="left")
            found.append(near)
    if not found:
        return wanted.drop("n")
    # Of equal rows as many as the other side lacks.
    every = pl.concat(found).with_columns(n=pl.int_range(pl.len()).over(MARK))
    return every.join(wanted, on=[*MARK, "n"], how="semi", maintain_order="left").drop("n").sort(
        "time", maintain_order=True
    )  # fmt: skip


def _paired(before: pl.DataFrame, after: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Rows of one instant side by side, in the order that they have."""
    place = pl.int_range(pl.len()).over("time").alias("place")
    one, two = (frame.with_columns(place, at=pl.int_range(pl.len())) for frame in (before, after))
    pairs = one.select("time", "place", "at").join(
        two.select("time", "place", "at"), on=["time", "place"], how="full", coalesce=True, suffix="_after"
    ).sort("time", "place")  # fmt: skip
    texts = [_texts(before), _texts(after)]
    for time, _, left, right in pairs.iter_rows():
        yield {"time": time, "before": _row(texts[0], left), "after": _row(texts[1], right)}


def _texts(frame: pl.DataFrame) -> pl.DataFrame:
    times = pl.selectors.datetime().dt.strftime("%Y-%m-%dT%H:%M:%S%.9fZ")
    return frame.drop(MARK).with_columns(times).with_columns(pl.all().cast(pl.String))


def _row(frame: pl.DataFrame, at: int | None) -> dict[str, str | None] | None:
    return None if at is None else frame.row(at, named=True) if frame.width else {}


def changes(
    before: Mapping[str, str | None], after: Mapping[str, str | None]
) -> dict[str, tuple[str | None, str | None]]:
    """The columns that differ, with both values; empty where one side has no values."""
    both = [name for name in before if name in after]
    return {name: (before[name], after[name]) for name in both if before[name] != after[name]}


__all__ = ["MARK", "Rows", "changes", "unlike"]

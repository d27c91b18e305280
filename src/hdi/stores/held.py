"""Which rows a reader asked for: a window, and rectangles of instruments, cut to the nanosecond for every store.

And how many they are, for stores that count on this side.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

import polars as pl

from hdi.frames import CONTENT
from hdi.symbology import Intervals

if TYPE_CHECKING:
    from hdi.model import Window

#: Rectangles of one dataset; a few as they are (instrument, start, end), which may overlap.
Rectangles = Intervals | list[tuple[int, int, int]]
#: So few rectangles are compared one by one: to sort them takes longer than the rows of a short answer.
_FEW = 8


class Held:
    """The rows of a window, and of ``instruments`` (dataset, instrument_id, start, end); None is every instrument.

    ``ids`` are the instruments by dataset, sorted, for what looks by them alone. ``by_time`` is True where the
    instrument alone does not decide.
    """

    def __init__(self, window: Window, instruments: pl.DataFrame | None) -> None:
        self._window = window
        self.ids: dict[str, pl.Series] | None = None
        self._held: dict[str, Rectangles] = {}
        if instruments is not None:
            parts = _by_dataset(instruments)
            self.ids = {d: _ids(f["instrument_id"]) for d, f in parts.items()}
            self._held = {d: held for d, f in parts.items() if (held := _lookup(f, window)) is not None}

    @property
    def one(self) -> dict[str, str | int]:
        """Dataset and instrument where there is but one, else nothing."""
        if self.ids is None or len(self.ids) != 1:
            return {}
        dataset, ids = next(iter(self.ids.items()))
        return {"dataset": dataset, "instrument_id": ids[0]} if len(ids) == 1 else {}

    @property
    def empty(self) -> bool:
        """True where no instrument is wanted."""
        return self.ids is not None and not self.ids

    @property
    def by_time(self) -> bool:
        """True where a rectangle does not span the window."""
        return bool(self._held)

    def inside(self, rows: pl.DataFrame, index: str) -> pl.DataFrame:
        """The rows inside the window and the rectangles, by their index time."""
        times = rows[index].cast(pl.Int64)
        if rows.height and not self._held:  # as of most large answers: nothing is laid out anew to be looked at
            first, last = int(times.min()), int(times.max())  # type: ignore[arg-type]
            if first >= self._window.start and last < self._window.end:
                return rows
        keep = (times >= self._window.start) & (times < self._window.end)
        for dataset, held in self._held.items():
            found = _holds(held, rows["instrument_id"], times)
            if len(self.ids or ()) > 1:  # else all rows are of the one dataset that is wanted
                found |= rows["dataset"] != dataset
            keep &= found
        return rows if keep.all() else rows.filter(keep)


def _lookup(frame: pl.DataFrame, window: Window) -> Rectangles | None:
    """What rows are looked up in; None where every rectangle spans the window, so that the instrument decides."""
    if frame.height > _FEW:
        return None if _whole(frame, window) else Intervals(frame)
    rectangles = list(zip(*(frame[c].to_list() for c in ("instrument_id", "start", "end")), strict=True))
    return None if all(start <= window.start and end >= window.end for _, start, end in rectangles) else rectangles


def _holds(held: Rectangles, instruments: pl.Series, times: pl.Series) -> pl.Series:
    """True for the rows that lie in a rectangle."""
    if isinstance(held, Intervals):
        return pl.Series(held.find(instruments.to_numpy(), times.to_numpy()) >= 0)
    each = ((instruments == who) & (times >= start) & (times < end) for who, start, end in held)
    return reduce(or_, each)


def _by_dataset(instruments: pl.DataFrame) -> dict[str, pl.DataFrame]:
    if instruments.height == 1:  # one symbol: what is for thousands takes longer than its rows
        return {str(instruments["dataset"][0]): instruments}
    return {str(d): f for (d,), f in instruments.partition_by("dataset", as_dict=True).items()}


def _ids(instruments: pl.Series) -> pl.Series:
    return instruments if len(instruments) == 1 else instruments.unique().sort()


def _whole(frame: pl.DataFrame, window: Window) -> bool:
    """True when every rectangle spans the window, so that the instrument alone decides."""
    return bool(((frame["start"] <= window.start) & (frame["end"] >= window.end)).all())


def within(index: str, window: Window | None, dataset: str | None) -> pl.Expr:
    """True for stored rows of a window, to the nanosecond, and of a dataset; None is every one."""
    kept = pl.lit(value=True) if dataset is None else pl.col("dataset") == dataset
    if window is not None:
        ns = pl.col(index).to_physical() * 1000 + pl.col(f"{index}_ns").cast(pl.Int64)
        kept &= (ns >= window.start) & (ns < window.end)
    return kept


def counted(rows: pl.DataFrame, index: str, every: int) -> pl.DataFrame:
    """How many rows there are (:data:`hdi.frames.CONTENT`), in no order."""
    ns = pl.col(index).to_physical()
    return (
        rows.lazy()
        .group_by("dataset", "instrument_id", at=ns // every * every)
        .agg(rows=pl.len(), first=ns.min(), last=ns.max())
        .select(pl.col(c).cast(t) for c, t in CONTENT.items())
        .collect(engine="streaming")
    )


def summed(counts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Several counts as one; of none, an empty one."""
    both = pl.concat([pl.DataFrame(schema=CONTENT), *counts])
    if sum(frame.height > 0 for frame in counts) < 2:  # noqa: PLR2004  (nothing to add up)
        return both
    added = both.group_by("dataset", "instrument_id", "at").agg(
        pl.col("rows").sum(), pl.col("first").min(), pl.col("last").max()
    )
    return added.select(*CONTENT)


__all__ = ["Held", "counted", "summed", "within"]

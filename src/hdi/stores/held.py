"""Which rows a reader asked for: a window, and rectangles of instruments, cut to the nanosecond for every store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from hdi.symbology import Intervals

if TYPE_CHECKING:
    from hdi.model import Window


class Held:
    """The rows of a window, and of ``instruments`` (dataset, instrument_id, start, end); None is every instrument.

    ``ids`` are the instruments by dataset, sorted, for what looks by them alone. ``by_time`` is True where the
    instrument alone does not decide.
    """

    def __init__(self, window: Window, instruments: pl.DataFrame | None) -> None:
        self._window = window
        self.ids: dict[str, pl.Series] | None = None
        self._held: dict[str, Intervals] = {}
        if instruments is not None:
            parts = instruments.partition_by("dataset", as_dict=True)
            self.ids = {str(d): f["instrument_id"].unique().sort() for (d,), f in parts.items()}
            self._held = {str(d): Intervals(f) for (d,), f in parts.items() if not _whole(f, window)}

    @property
    def by_time(self) -> bool:
        """True where a rectangle does not span the window."""
        return bool(self._held)

    def inside(self, rows: pl.DataFrame, index: str) -> pl.DataFrame:
        """The rows inside the window and the rectangles, by their index time."""
        instants = rows[index].to_physical().to_numpy()
        keep = (instants >= self._window.start) & (instants < self._window.end)
        for dataset, held in self._held.items():
            mine = (rows["dataset"] == dataset).to_numpy()
            found = held.find(rows["instrument_id"].to_numpy(), instants) >= 0
            keep = np.where(mine, keep & found, keep)
        return rows if keep.all() else rows.filter(pl.Series(keep))


def _whole(frame: pl.DataFrame, window: Window) -> bool:
    """True when every rectangle spans the window, so that the instrument alone decides."""
    return bool(((frame["start"] <= window.start) & (frame["end"] >= window.end)).all())


__all__ = ["Held"]

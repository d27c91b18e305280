"""Leaves while their rows come, in pieces of any size: of each are held a SHA-256 and the rows of one instant."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from hdi.fingerprint import Encoding
from hdi.locking.marks import marks
from hdi.locking.tree import Leaf, Share

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Bytes = NDArray[np.uint8]
#: Rows that become bytes at once.
_EACH = 1 << 17
_SMALL = 1 << 16
Key = tuple[int, int, int]
#: Takes instruments, publishers, index times and marks of rows.
Sink = Callable[[pl.DataFrame], None]


class _Growing:
    """One leaf so far. The rows of the last instant wait for others of it."""

    __slots__ = ("_digest", "_waiting", "disordered", "last", "rows", "symbol")

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._waiting: Bytes | None = None
        self.rows = 0
        self.last = -1
        self.symbol = ""
        self.disordered = False

    def add(self, rows: Bytes, times: Ints) -> None:
        """Rows by time, and those of one instant by their marks."""
        self.rows += len(rows)
        first, last = int(times[0]), int(times[-1])
        self.disordered |= first < self.last
        if self._waiting is not None:
            if first == self.last:
                more = int(times.searchsorted(first, side="right"))
                both = np.concatenate([self._waiting, rows[:more]])
                self._waiting = both[np.argsort(marks(both, 1)[:, 0], kind="stable")]
                rows, times = rows[more:], times[more:]
                if not len(rows):
                    return
            self._digest.update(self._waiting.data)
        start = int(times.searchsorted(last, side="left"))
        self._digest.update(rows[:start].data)
        self._waiting, self.last = rows[start:].copy(), last

    def leaf(self, instrument: int, publisher: int) -> Leaf:
        """The leaf, after its last row."""
        if self._waiting is not None:
            self._digest.update(self._waiting.data)
            self._waiting = None
        return Leaf(instrument, publisher, self.rows, self._digest.digest(), self.symbol, self.disordered)


class Leaves:
    """The leaves of one table, as its rows come as a store gives them that need not put them in order."""

    def __init__(self, share: Share, encoding: Encoding, index: str, sink: Sink | None = None) -> None:
        self._share = share
        self._encoding = encoding
        self._index = index
        self._sink = sink
        self._open: dict[Key, _Growing] = {}

    def add(self, frame: pl.DataFrame) -> None:
        """Rows none of which is earlier than one before."""
        for part in frame.iter_slices(_EACH):
            self._add(part)

    def done(self, before: int | None = None) -> Iterator[tuple[int, list[Leaf]]]:
        """The periods, with their leaves, that end by an instant, or all; they get no more rows."""
        starts = sorted({period for period, _, _ in self._open})
        for start in starts:
            if before is not None and self._share.cell(start).end > before:
                return
            mine = [key for key in self._open if key[0] == start]
            yield start, [self._open.pop(key).leaf(*key[1:]) for key in mine]

    def _add(self, frame: pl.DataFrame) -> None:
        rows = self._encoding.rows(frame)
        times = frame[self._index].to_physical().to_numpy()
        instruments = frame["instrument_id"].to_numpy()
        publishers = frame["publisher_id"].to_numpy().astype(np.int64)
        periods = self._periods(times)
        if self._sink is not None:
            self._sink(_marked(instruments, publishers, times, marks(rows)))
        keys = [periods, instruments, publishers]
        cuts = _cuts(keys)
        order: Ints | None = None
        if len({tuple(int(k[at]) for k in keys) for at in cuts}) < len(cuts):
            order = _grouped(keys)
        if order is not None:
            keys, times, rows = [k[order] for k in keys], times[order], rows[order]
            cuts = _cuts(keys)
        rows, times, order = _in_time(rows, times, cuts, order)
        ends = [*cuts[1:], len(rows)]
        symbols = frame["symbol"]
        for start, end in zip(cuts, ends, strict=True):
            key = (int(keys[0][start]), int(keys[1][start]), int(keys[2][start]))
            growing = self._open.get(key)
            if growing is None:
                growing = self._open[key] = _Growing()
                growing.symbol = symbols[start if order is None else int(order[start])] or ""
            growing.add(rows[start:end], times[start:end])

    def _periods(self, times: Ints) -> Ints:
        """The start of the period of each instant."""
        low, high = self._share.cell(int(times.min())), int(times.max())
        if high < low.end:
            return np.full(len(times), low.start, np.int64)
        unit = "D" if self._share.period == "day" else "M"
        return times.view("M8[ns]").astype(f"M8[{unit}]").astype("M8[ns]").view(np.int64)


def _cuts(keys: list[Ints]) -> list[int]:
    """Where a row has another key than the one before; the first row is one of them."""
    other = np.zeros(len(keys[0]), bool)
    other[0] = True
    for key in keys:
        other[1:] |= key[1:] != key[:-1]
    found: list[int] = np.flatnonzero(other).tolist()
    return found


def _grouped(keys: list[Ints]) -> Ints:
    """The order in which rows of one key are together, and in the order that they had."""
    code, most = np.zeros(len(keys[0]), np.int64), 1
    for key in keys:
        different = np.sort(pl.Series(key).unique().to_numpy())
        if len(different) > 1:
            code = code * len(different) + np.searchsorted(different, key)
            most *= len(different)
    # Sixteen bits are sorted by counting.
    return np.argsort(code.astype(np.uint16) if most <= _SMALL else code, kind="stable")


def _in_time(rows: Bytes, times: Ints, cuts: list[int], order: Ints | None) -> tuple[Bytes, Ints, Ints | None]:
    """The same with the rows of each key by time, and those of one instant by their marks."""
    inner = np.ones(len(times), bool)
    inner[cuts] = False
    step = np.zeros(len(times), np.int64)
    step[1:] = times[1:] - times[:-1]
    if (inner & (step < 0)).any():
        group = np.cumsum(~inner)
        again = np.lexsort((times, group))
        rows, times = rows[again], times[again]
        order = again if order is None else order[again]
        step[1:] = times[1:] - times[:-1]
    same = inner & (step == 0)
    if same.any():
        tied = same.copy()
        tied[:-1] |= same[1:]
        at = np.flatnonzero(tied)
        group = np.cumsum(~same)[at]
        rows = rows if rows.flags.owndata and rows.flags.writeable else rows.copy()
        rows[at] = rows[at[np.lexsort((marks(rows[at], 1)[:, 0], group))]]
    return rows, times, order


def _marked(instruments: Ints, publishers: Ints, times: Ints, found: NDArray[np.uint64]) -> pl.DataFrame:
    return pl.DataFrame({
        "instrument_id": instruments, "publisher_id": publishers, "time": times, "high": found[:, 0],
        "low": found[:, 1],
    })  # fmt: skip


__all__ = ["Leaves", "Sink"]

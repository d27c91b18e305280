"""Bars out of what streams by: trades or finer bars, exact, by dataset, publisher and instrument; pure.

Prices are whole numbers of 1e-9 here (``DECIMAL(18, 9)`` as it is stored), so below 2**60; what a bar holds is added up
as ``Int64`` (volume) and ``Int128`` (price times size). A volume that ``BIGINT`` holds is below 2**63, so the sum of
price times size is below 2**123: no sum that fits its column overflows, and one that does not is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import polars as pl

from hdi.errors import StoreError
from hdi.late import Array, np

KEY = ("dataset", "publisher_id", "instrument_id")
#: A bar on its way: from ``start`` to before ``end`` is where it may take its trades from, ``number`` tells the bars
#: of one such stretch apart, ``first`` and ``last`` are the times of its first and last trade (or finer bar).
#: ``notional`` is the sum of price times size in 1e-9, null where it is not known; ``done`` is True where nothing can
#: be added. Columns beside these are those of the first row.
BAR: dict[str, pl.DataType] = {
    "dataset": pl.String(),
    "publisher_id": pl.Int32(),
    "instrument_id": pl.Int64(),
    "start": pl.Int64(),
    "end": pl.Int64(),
    "number": pl.Int64(),
    "first": pl.Int64(),
    "last": pl.Int64(),
    "open": pl.Int64(),
    "high": pl.Int64(),
    "low": pl.Int64(),
    "close": pl.Int64(),
    "volume": pl.Int64(),
    "trades": pl.Int64(),
    "notional": pl.Int128(),
    "done": pl.Boolean(),
}
#: The prices of a bar by what they are, and the stored columns of bars that hold them.
PRICES = {"open": "open_price", "high": "high_price", "low": "low_price", "close": "close_price"}
_ROWS = ("dataset", "publisher_id", "instrument_id", "at", *PRICES, "price", "volume", "trades", "start", "end")
_MOST = 2**63
#: Small frames are folded together until they have so many rows.
_TOGETHER = 16_384
#: Rows that lie in runs shorter than this are put in order first.
_LONG = 4


class Clock(Protocol):
    """Says from when until when the bar may last that holds an instant; none is longer than ``longest``."""

    @property
    def longest(self) -> int:
        """Nanoseconds."""

    def reach(self, start: int, end: int) -> tuple[int, int]:
        """From the start of the first to the end of the last stretch that the time from start to end touches."""

    def placed(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows with ``start`` and ``end``; those that belong to no stretch are left out."""


@dataclass(frozen=True)
class Utc:
    """Stretches of ``width`` nanoseconds, counted from 1970, or from ``origin`` after it."""

    width: int
    origin: int = 0

    @property
    def longest(self) -> int:
        """See :class:`Clock`."""
        return self.width

    def reach(self, start: int, end: int) -> tuple[int, int]:
        """See :class:`Clock`."""
        low, high = start - self.origin, end - self.origin
        return low // self.width * self.width + self.origin, -(-high // self.width) * self.width + self.origin

    def placed(self, rows: pl.DataFrame) -> pl.DataFrame:
        """See :class:`Clock`."""
        at = pl.col("at") - self.origin if self.origin else pl.col("at")
        start = at // self.width * self.width
        start = start + self.origin if self.origin else start
        return rows.with_columns(start=start).with_columns(end=pl.col("start") + self.width)


@dataclass(frozen=True)
class Part:
    """The bars of one frame alone, None where no row of it is of any, and the time of its last row."""

    bars: pl.DataFrame | None
    reached: int


class Folder:
    """Makes bars of rows that come by in the order of time.

    Rows have dataset, publisher_id, instrument_id, ``at``, ``volume``, and either ``price`` (they are trades) or open,
    high, low, close and ``trades``. No row of a frame is earlier than one of a frame before, and those of one publisher
    and instrument are in their order: however the rest is mixed, and cut into frames, the bars are the same.
    ``measure`` and ``size`` make bars of activity: each is full with the row that brings the sum of the measure to the
    size, and the next begins with the row after it. ``single`` says that all rows are of one dataset.
    """

    def __init__(self, clock: Clock, measure: str | None = None, size: int = 0, *, single: bool = False) -> None:
        self._key = KEY[1:] if single else KEY
        self._clock = clock
        self._measure = measure
        self._size = size
        self._open: pl.DataFrame | None = None
        self._filled: dict[tuple[Any, ...], tuple[int, int, int]] = {}

    def bars(self, frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        """The bars (:data:`BAR`), in the order of their start; those of activity in the order in which they close."""
        yield from self.together(map(self.part, _gathered(frames)))

    def part(self, frame: pl.DataFrame) -> Part:
        """The bars of a frame, for :meth:`together`. By time, several may be made at once, in any order."""
        if frame.is_empty():
            return Part(None, 0)
        # In one piece: whatever looks at a whole column would put its pieces together again.
        rows = self._clock.placed(frame.rechunk())
        return Part(self._made(rows) if rows.height else None, int(frame["at"].max()))  # type: ignore[arg-type]

    def together(self, parts: Iterable[Part]) -> Iterator[pl.DataFrame]:
        """The bars of all parts, which come in the order of their frames: see :meth:`bars`."""
        for part in parts:
            bars = [b for b in (self._open, part.bars) if b is not None]
            if bars:
                yield from self._closed(_merged(bars), part.reached)
        if self._open is not None and self._open.height:
            yield self._sorted(self._open)
            self._open = None

    def _made(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The bars of one frame, as if nothing had come before but what is open."""
        key = [*self._key, "start"]
        if self._measure is not None:
            rows = _arranged(rows, self._key)
            return self._counted(rows, _runs(rows, key))
        runs = _runs(rows, key)
        if len(runs) * _LONG > rows.height and len(runs) > 1:
            rows = _arranged(rows, self._key)
            runs = _runs(rows, key)
        return reduced(rows, runs).with_columns(number=pl.lit(0, pl.Int64), done=pl.lit(value=False))

    def _counted(self, rows: pl.DataFrame, runs: Array) -> pl.DataFrame:
        """Bars of activity: each run of one instrument and stretch is cut where the measure is reached."""
        ends = np.append(runs[1:], rows.height)
        keys = rows[runs].select(*KEY, "start").rows()
        before = [self._filled.get(key[:-1], (0, 0, 0)) for key in keys]
        numbers, held = ([b[i] if b[0] == key[-1] else 0 for key, b in zip(keys, before, strict=True)] for i in (1, 2))
        begin, full, left = _cuts(_amounts(rows, self._measure or ""), runs, ends, held, self._size)
        bars = reduced(rows, begin)
        run = np.searchsorted(runs, begin, side="right") - 1
        number = np.array(numbers, dtype=np.int64)[run] + np.arange(len(begin)) - np.searchsorted(begin, runs)[run]
        last = np.append(np.searchsorted(begin, runs)[1:], len(begin)) - 1
        for key, at, rest in zip(keys, last, left, strict=True):
            self._filled[key[:-1]] = (key[-1], int(number[at]) + bool(full[at]), 0 if full[at] else rest)
        return bars.with_columns(number=pl.Series(number), done=pl.Series(full))

    def _closed(self, bars: pl.DataFrame, reached: int) -> Iterator[pl.DataFrame]:
        """The bars to which nothing can be added, and before which none can come."""
        open_since = reached - self._clock.longest
        gone = pl.col("start") <= open_since if self._measure is None else _closing() < reached
        closed = bars.filter(gone)
        self._open = bars.filter(~gone)
        if closed.height:
            yield self._sorted(closed)

    def _sorted(self, bars: pl.DataFrame) -> pl.DataFrame:
        if self._measure is None:
            return bars.sort("start", *KEY)
        return bars.sort(_closing(), *KEY, "number")


def _gathered(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The frames with rows, small ones as one: folding costs as much for ten rows as for ten thousand."""
    held: list[pl.DataFrame] = []
    rows = 0
    for frame in frames:
        if frame.is_empty():
            continue
        held.append(frame)
        rows += frame.height
        if rows >= _TOGETHER:
            yield pl.concat(held) if len(held) > 1 else frame
            held, rows = [], 0
    if held:
        yield pl.concat(held)


def _closing() -> pl.Expr:
    """When a bar of activity is over: with its last trade where it is full, else with its stretch."""
    return pl.when("done").then("last").otherwise("end")


def reduced(rows: pl.DataFrame, begin: Array) -> pl.DataFrame:
    """Rows that lie bar by bar, in order, as bars; ``begin`` are the numbers of the rows with which bars begin."""
    if "price" in rows.columns:
        opens = highs = lows = closes = rows["price"].to_numpy()
    else:
        opens, highs, lows, closes = (rows[c].to_numpy() for c in PRICES)
    last = np.append(begin[1:], rows.height) - 1
    low, high = np.minimum.reduceat(lows, begin), np.maximum.reduceat(highs, begin)
    volume = np.add.reduceat(_small(rows["volume"]), begin)
    firsts = [c for c in rows.columns if c not in _ROWS]
    heads = rows.select(*KEY, "start", "end", *firsts)[begin]
    if "price" in rows.columns:
        trades = pl.Series(last - begin + 1, dtype=pl.Int64)
        notional = _notional(opens, rows["volume"].to_numpy(), begin, (low, high, volume))
    else:
        trades = _counts(rows["trades"], begin)
        notional = pl.Series([None], dtype=pl.Int128).new_from_index(0, len(begin))
    at = rows["at"].to_numpy()
    return heads.with_columns(
        first=pl.Series(at[begin]), last=pl.Series(at[last]), open=pl.Series(opens[begin]),
        high=pl.Series(high), low=pl.Series(low), close=pl.Series(closes[last]), volume=pl.Series(volume),
        trades=trades, notional=notional,
    )  # fmt: skip


def _small(volume: pl.Series) -> Array:
    """The volumes, where they add up to what ``BIGINT`` holds."""
    if int(volume.max()) * len(volume) >= _MOST and int(volume.cast(pl.Int128).sum()) >= _MOST:  # type: ignore[arg-type]
        raise StoreError("the volume of these rows together is more than a BIGINT holds", "Ask for a shorter window.")
    return volume.to_numpy()


def _notional(price: Array, sizes: Array, begin: Array, bars: tuple[Array, Array, Array]) -> pl.Series:
    """The sum of price times size of each bar, of which low, high and volume are known.

    That of what is above the low is taken in 64 bits where they hold it: what wraps around on the way to such a sum
    is back in it at the end.
    """
    low, high, volume = bars
    # No run adds up to more than the widest range times the largest volume.
    if int((high - low).max()) * int(volume.max()) < _MOST:
        above = np.add.reduceat(price * sizes, begin) - low * volume
        return pl.select(
            pl.Series(low).cast(pl.Int128) * pl.Series(volume).cast(pl.Int128) + pl.Series(above).cast(pl.Int128)
        ).to_series()
    run = np.repeat(np.arange(len(begin)), np.diff(begin, append=len(price)))
    whole = pl.DataFrame({"run": run, "price": price, "size": sizes}).group_by("run", maintain_order=True)
    return whole.agg((pl.col("price").cast(pl.Int128) * pl.col("size").cast(pl.Int128)).sum())["price"]


def _counts(trades: pl.Series, begin: Array) -> pl.Series:
    """How many trades; null where one of the finer bars does not say."""
    total = pl.Series(np.add.reduceat(trades.fill_null(0).to_numpy(), begin), dtype=pl.Int64)
    if not trades.null_count():
        return total
    unknown = pl.Series(np.logical_or.reduceat(trades.is_null().to_numpy(), begin))
    return pl.select(pl.when(~unknown).then(total)).to_series()


def _amounts(rows: pl.DataFrame, measure: str) -> pl.Series:
    """What each trade adds to the measure."""
    if measure == "trades":
        return pl.Series([1], dtype=pl.Int64).new_from_index(0, rows.height)
    if measure == "volume":
        return rows["volume"]
    return rows.select(pl.col("price").abs().cast(pl.Int128) * pl.col("volume").cast(pl.Int128)).to_series()


def _cuts(
    amounts: pl.Series, runs: Array, ends: Array, held: Sequence[int], size: int
) -> tuple[Array, Array, list[int]]:
    """Where bars begin, which are full, and what the last of each run holds, ``held`` having been held before it."""
    n = len(amounts)
    amounts = amounts.cast(pl.Int128)
    before = pl.Series(held, dtype=pl.Int128)
    # What is held counts with the first row of its run.
    amounts = amounts.scatter(pl.Series(runs), amounts.gather(pl.Series(runs)) + before)
    sums = amounts.cum_sum()
    until = sums - amounts  # what lies before each row
    if int(sums[-1]) + size < _MOST:
        sums, until = sums.cast(pl.Int64), until.cast(pl.Int64)
    full_at = np.asarray(
        sums.search_sorted(until + pl.Series([size], dtype=until.dtype), side="left").to_numpy(), dtype=np.int64
    )
    stop = np.repeat(ends, ends - runs)
    begin = _reached(runs, np.where(full_at + 1 < stop, full_at + 1, n), n)
    full = full_at[begin] < stop[begin]
    last = begin[np.append(np.searchsorted(begin, runs)[1:], len(begin)) - 1]
    left = sums.gather(pl.Series(ends - 1)) - until.gather(pl.Series(last))
    return begin, full, [int(v) for v in left.to_list()]


def _reached(runs: Array, following: Array, n: int) -> Array:
    """The rows with which bars begin: the first of each run, and each that follows a full bar, however many leaps on.

    Leaps are doubled each time, so that a million bars take twenty rounds.
    """
    begins = np.zeros(n + 1, dtype=np.bool_)
    begins[runs] = True
    leap = np.append(following, n)
    while (new := leap[np.flatnonzero(begins[:n])]).min() < n:
        begins[new] = True
        leap = leap[leap]
    return np.flatnonzero(begins[:n])


def _arranged(rows: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """The rows by dataset, publisher and instrument, each in the order in which they came."""
    keys = [c for c in key if c != "dataset" or not (rows[c] == rows[c][0]).all()]
    several = [c for c in keys if rows[c].min() != rows[c].max()]
    if not several or (len(several) == 1 and rows[several[0]].is_sorted()):
        return rows
    return rows.sort(several, maintain_order=True)


def _runs(rows: pl.DataFrame, columns: Sequence[str]) -> Array:
    """The numbers of the rows that differ from the one before in any of the columns."""
    edge = np.zeros(rows.height, dtype=np.bool_)
    edge[:1] = True
    for column in columns:
        values = rows[column]
        if column == "dataset":
            if (values == values[0]).all():
                continue
            edge |= values.ne(values.shift(1)).fill_null(value=True).to_numpy()
            continue
        numbers = values.to_numpy()
        edge[1:] |= numbers[1:] != numbers[:-1]
    return np.flatnonzero(edge)


def _merged(parts: list[pl.DataFrame]) -> pl.DataFrame:
    """Bars that were open, and those of the next frame; of two that are the same bar, one."""
    order = [*BAR, *(c for c in parts[0].columns if c not in BAR)]
    both = pl.concat([part.select(order) for part in parts])
    same = (*KEY, "start", "number")
    firsts = [c for c in order if c not in BAR]
    known = pl.col("trades").null_count() == 0
    joined = both.group_by(same, maintain_order=True).agg(
        pl.col("end", "first", "open", *firsts).first(),
        pl.col("last", "close", "done").last(),
        pl.col("high").max(),
        pl.col("low").min(),
        pl.col("volume").cast(pl.Int128).sum(),
        pl.when(known).then(pl.col("trades").sum()),
        pl.when(pl.col("notional").null_count() == 0).then(pl.col("notional").sum()),
    )
    if joined.height and int(joined["volume"].max()) >= _MOST:  # type: ignore[arg-type]
        raise StoreError("the volume of a bar is more than a BIGINT holds", "Ask for narrower bars.")
    return joined.select(pl.col(c).cast(BAR[c]) if c in BAR else pl.col(c) for c in order)


def price(mantissa: str) -> pl.Expr:
    """A whole number of 1e-9 as the price that it is."""
    return (pl.col(mantissa).cast(pl.Decimal(38, 9)) / 10**9).cast(pl.Decimal(18, 9))


def vwap() -> pl.Expr:
    """The sum of price times size over that of the sizes, rounded half-even to 1e-9; null without a volume."""
    volume = pl.when(pl.col("volume") > 0).then(pl.col("volume")).cast(pl.Int128)
    whole = pl.col("notional") // volume
    rest = 2 * (pl.col("notional") - whole * volume)
    up = (rest > volume) | ((rest == volume) & (whole % 2 != 0))
    return (whole + up.cast(pl.Int128)).cast(pl.Int64)


def legs(columns: Mapping[str, str]) -> list[pl.Expr]:
    """Expressions for the rows of a :class:`Folder`; ``columns`` are stored columns by what they are there."""
    return [pl.col(stored).to_physical().cast(pl.Int64).alias(name) for name, stored in columns.items()]


__all__ = ["BAR", "KEY", "PRICES", "Clock", "Folder", "Part", "Utc", "legs", "price", "reduced", "vwap"]

"""Rows as no more marks than can be seen, and nothing that did not happen: pure, exact, in bounded memory.

Bars become wider bars that keep every high and low; points keep, of each stretch of time, the first, the last, the
highest and the lowest. Stretches nest, so that thinning again gives what thinning once would have given.
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from hdi.model import NS

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
#: Nanoseconds, each a multiple of the one before.
WIDTHS = (
    *(10**power for power in range(3, 9)),
    *(
        seconds * NS
        for seconds in (
            1, 5, 15, 30, _MINUTE, 5 * _MINUTE, 15 * _MINUTE, 30 * _MINUTE, _HOUR, 4 * _HOUR, 12 * _HOUR, _DAY,
            7 * _DAY, 28 * _DAY, 84 * _DAY, 336 * _DAY,
        )
    ),
)  # fmt: skip
#: 1970-01-01 was a Thursday: weeks begin on Mondays.
_MONDAY = 4 * _DAY * NS
#: Rows that are held before they are thinned.
_HELD = 200_000
#: Points that a stretch keeps of a series.
_FEW = 4
_UNITS = ((_DAY, "day"), (_HOUR, "hour"), (_MINUTE, "minute"), (1, "second"))

#: A candle: when it starts, of which contract, and of how many bars it was made. ``filled`` ones hold no trade.
CANDLES: dict[str, pl.DataType] = {
    "at": pl.Int64(), "symbol": pl.String(), "open": pl.Decimal(18, 9), "high": pl.Decimal(18, 9),
    "low": pl.Decimal(18, 9), "close": pl.Decimal(18, 9), "volume": pl.Int64(), "filled": pl.Boolean(),
    "bars": pl.Int64(),
}  # fmt: skip
#: A point of a series: null breaks its line. ``size`` is what was traded, where it is a trade.
POINTS: dict[str, pl.DataType] = {
    "at": pl.Int64(), "symbol": pl.String(), "series": pl.String(), "value": pl.Decimal(38, 9), "size": pl.Int64(),
}  # fmt: skip


def width_text(width: int) -> str:
    """``15 minutes``; what is below a second in its own unit."""
    for seconds, unit in _UNITS:
        number, rest = divmod(width, seconds * NS)
        if number and not rest:
            return f"{number} {unit}" + ("s" if number > 1 else "")
    return f"{width / 1e6:g} ms"


def bucket(width: int) -> pl.Expr:
    """The start of the stretch that holds ``at``."""
    if width <= _DAY * NS:
        return pl.col("at") // width * width
    return (pl.col("at") - _MONDAY) // width * width + _MONDAY


def _wide_enough(frame: pl.DataFrame, width: int, room: int, by: list[str]) -> int:
    """The narrowest width, this one or a wider one, in which there are no more stretches than room."""
    wider = width
    for wider in (w for w in WIDTHS if w >= width):
        last: int = frame.select(pl.struct(bucket(wider), *by).rle_id().max()).item()
        if last < room:
            break
    return wider


class Candles:
    """The bars of one panel as at most ``room`` candles, and a few for each contract; fed in the order of time."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._frame = pl.DataFrame(schema=CANDLES)
        self.width = 0

    def add(self, bars: pl.DataFrame) -> None:
        """Take more bars, of the columns of :data:`CANDLES`."""
        if self.width:
            bars = merged(bars, self.width)
        self._frame = pl.concat([self._frame, bars])
        if self._frame.height > max(_HELD, 2 * self._room):
            self._thin()

    def _thin(self) -> None:
        if self.width:
            self._frame = merged(self._frame, self.width)
        if self._frame.height <= self._room:
            return
        width = _wide_enough(self._frame, self.width or WIDTHS[0], self._room, ["symbol"])
        self.width = width
        self._frame = merged(self._frame, width)

    def made(self) -> pl.DataFrame:
        """The candles."""
        self._thin()
        return self._frame


def merged(bars: pl.DataFrame, width: int) -> pl.DataFrame:
    """Candles of a width, none of two contracts: filled bars count only where there is no other."""
    real = ~pl.col("filled")

    def of(name: str, pick: Callable[[pl.Expr], pl.Expr]) -> pl.Expr:
        column = pl.col(name)
        return pl.when(real.any()).then(pick(column.filter(real))).otherwise(pick(column)).alias(name)

    return (
        bars.with_columns(start=bucket(width), run=pl.col("symbol").rle_id())
        .group_by("start", "run", maintain_order=True)
        .agg(
            pl.col("symbol").first(),
            of("open", pl.Expr.first),
            of("high", pl.Expr.max),
            of("low", pl.Expr.min),
            of("close", pl.Expr.last),
            pl.col("volume").sum(),
            pl.col("filled").all(),
            pl.col("bars").sum(),
        )
        .select(pl.col("start").alias("at"), pl.exclude("start", "run"))
        .cast(CANDLES)  # type: ignore[arg-type]  # a mapping of columns to types
    )


class Points:
    """The points of one panel, of each series at most four for each of ``room`` stretches; fed in the order of time."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._frame = pl.DataFrame(schema=POINTS)
        self.width = 0
        self.taken = 0

    def add(self, points: pl.DataFrame) -> None:
        """Take more points, of the columns of :data:`POINTS`."""
        self.taken += points.height
        self._frame = pl.concat([self._frame, points])
        if self._frame.height > _HELD:
            self._thin()

    def _thin(self) -> None:
        if self._frame.height <= _FEW * self._room:
            return
        width = _wide_enough(self._frame, self.width or WIDTHS[0], self._room, [])
        kept = extremes(self._frame, width)
        if kept.height < self._frame.height:
            self.width, self._frame = width, kept

    def made(self) -> pl.DataFrame:
        """The points, in the order of time."""
        self._thin()
        return self._frame


def extremes(points: pl.DataFrame, width: int) -> pl.DataFrame:
    """Of each series, contract and stretch of time the first, the last, the highest and the lowest point."""
    at, value = pl.col("index"), pl.col("value")
    kept = (
        points.with_row_index()
        .group_by("series", "symbol", bucket(width).alias("start"))
        .agg(at.first().alias("0"), at.last().alias("1"), at.get(value.arg_min()).alias("2"),
             at.get(value.arg_max()).alias("3"))
        .select(pl.concat_list("0", "1", "2", "3").explode())
        .to_series()
    )  # fmt: skip
    return points[kept.drop_nulls().unique().sort()]


def changes(frame: pl.DataFrame) -> list[tuple[int, int, str, str]]:
    """Where the contract changes: ``(row, at, before, after)`` of each first row of another one."""
    before = pl.col("symbol").shift()
    found = (
        frame.select("at", "symbol", before=before)
        .with_row_index()
        .filter(pl.col("before").is_not_null(), pl.col("symbol") != pl.col("before"))
    )
    return [(row["index"], row["at"], row["before"], row["symbol"]) for row in found.iter_rows(named=True)]


def pauses(times: pl.Series, least: int) -> list[tuple[int, int]]:
    """Stretches of at least so many nanoseconds without a row: ``(from, to)``, and a twentieth of all time at least."""
    ats = times.unique().sort()
    if ats.len() < 2:  # noqa: PLR2004  (between two there can be a pause)
        return []
    gaps = ats.diff().slice(1)
    least = max(least, int(ats[-1] - ats[0]) // 20)
    return [
        (start, start + gap)
        for start, gap in zip(ats.head(-1).filter(gaps >= least), gaps.filter(gaps >= least), strict=True)
    ]


__all__ = ["CANDLES", "POINTS", "WIDTHS", "Candles", "Points", "changes", "extremes", "merged", "pauses", "width_text"]

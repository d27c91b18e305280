"""Buckets in which nothing was traded, as bars that repeat the last close.

Such a bar stands only inside a session of the product's calendar, and after a trade: of the same session where bars are
shorter than a day, else of the window. Between that trade and its end all trades are stored, and none was quarantined,
so that the close is known. Its volume is 0, its ``data_source`` ``filled``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from hdi.folding import KEY, PRICES
from hdi.model import DAY_NS
from hdi.resample import FILLED
from hdi.series.bars_sessions import Sessions, Table
from hdi.stores.held import Held

if TYPE_CHECKING:
    from hdi.calendars import Calendars
    from hdi.lookup import Names
    from hdi.model import Window
    from hdi.series.bars_asked import Every
    from hdi.series.bars_certain import Certain

#: So many bars are made at once.
_MOST = 1 << 18


class Filling:
    """Puts the bars of empty buckets between the others; ``rectangles`` say which instruments when, None: all."""

    def __init__(
        self, every: Every, calendars: Calendars, names: Names, certain: Certain, rectangles: pl.DataFrame | None,
        window: Window,
    ) -> None:  # fmt: skip
        self._every = every
        self._certain = certain
        self._window = window
        self._held = Held(window, rectangles)
        self._sessions = Sessions(calendars, names, window, every)
        self._step = every.width
        self._last: pl.DataFrame | None = None

    def bars(self, frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        """The bars with those of the empty buckets among them, in the order of their start."""
        held: list[pl.DataFrame] = []
        for frame in frames:
            # Buckets that start with the last bar may still get one from the next frame.
            reached = int(frame["ts_event"].to_physical()[-1])
            held.append(frame)
            whole = pl.concat(held)
            ready = whole.filter(pl.col("ts_event").to_physical() < reached)
            held = [whole.filter(pl.col("ts_event").to_physical() >= reached)]
            yield from self._between(ready, reached)
        if held or self._last is not None:
            rest = pl.concat(held) if held else self._last.clear()  # type: ignore[union-attr]
            yield from self._between(rest, self._window.end)

    def _between(self, bars: pl.DataFrame, until: int) -> Iterator[pl.DataFrame]:
        """Bars that start before ``until``, all of them, and the empty buckets up to there."""
        known = bars if self._last is None else pl.concat([self._last, bars], how="diagonal_relaxed")
        if known.is_empty():
            return
        new = pl.Series([False] * (known.height - bars.height) + [True] * bars.height)
        known = known.with_columns(_new=new).sort(*KEY, "ts_event", maintain_order=True)
        at = known["ts_event"].to_physical().to_numpy()
        same = np.append(_same(known), False)
        following = np.where(same, np.append(at[1:], 0), until)
        row, start = self._buckets(known, at, np.minimum(following, self._window.end))
        filled = self._sure(known[pl.Series(row, dtype=pl.UInt32)].with_columns(_row=pl.Series(row)), start)
        self._last = self._kept(known, filled)
        both = pl.concat([known.filter("_new").select(bars.columns), filled.select(bars.columns)])
        yield from both.sort("ts_event", *KEY).iter_slices(_MOST) if both.height else ()

    def _kept(self, known: pl.DataFrame, filled: pl.DataFrame) -> pl.DataFrame:
        """The last of each instrument: what is filled next repeats it."""
        both = pl.concat([known.drop("_new"), filled.select(known.drop("_new").columns)])
        return both.sort(*KEY, "ts_event", maintain_order=True).unique([*KEY], keep="last", maintain_order=True)

    def _buckets(self, known: pl.DataFrame, at: Any, following: Any) -> tuple[Any, Any]:
        """The empty buckets after each bar, as (row, start)."""
        rows: list[Any] = [np.zeros(0, dtype=np.int64)]
        starts: list[Any] = [np.zeros(0, dtype=np.int64)]
        for (dataset, symbol), part in known.select("dataset", "symbol").with_row_index("row").group_by(
            "dataset", "symbol"
        ):  # fmt: skip
            mine = part["row"].sort().to_numpy()
            table = self._sessions.table(str(dataset), "" if symbol is None else str(symbol))
            each = self._long if self._step >= DAY_NS else self._short
            row, start = each(table, at[mine], following[mine])
            rows.append(mine[row])
            starts.append(start)
        return np.concatenate(rows), np.concatenate(starts)

    def _short(self, table: Table, at: Any, following: Any) -> tuple[Any, Any]:
        """Every bucket up to the close of the session in which the bar is."""
        if not len(table.opens):
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        session = np.minimum(np.searchsorted(table.closes, at, side="right"), len(table.closes) - 1)
        inside = (table.opens[session] < at + self._step) & (at < table.closes[session])
        stop = np.where(inside, np.minimum(following, table.closes[session]), at)
        count = np.maximum(-(-(stop - at) // self._step) - 1, 0)
        row = np.repeat(np.arange(len(at)), count)
        nth = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count) + 1
        return row, at[row] + nth * self._step

    def _long(self, table: Table, at: Any, following: Any) -> tuple[Any, Any]:
        """Every bucket that a session touches, up to the next bar."""
        if self._every.align == "session":
            known = np.unique(table.starts)
        else:
            origin = self._every.origin
            first, last = ((t - origin) // self._step for t in (table.opens, table.closes - 1))
            known = np.unique(np.concatenate([first, last])) * self._step + origin
        low, high = np.searchsorted(known, at, side="right"), np.searchsorted(known, following, side="left")
        count = np.maximum(high - low, 0)
        row = np.repeat(np.arange(len(at)), count)
        nth = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        return row, known[low[row] + nth] if len(row) else row

    def _sure(self, before: pl.DataFrame, start: Any) -> pl.DataFrame:
        """The bars of these buckets, up to the first after each bar of which not everything is known."""
        close = pl.col("close_price")
        bars = before.with_columns(
            *(close.alias(c) for c in PRICES.values()),
            ts_event=pl.Series(start, dtype=pl.Int64).cast(before["ts_event"].dtype),
            volume=pl.lit(0, pl.Int64), trade_count=pl.lit(0, pl.Int64), vwap=pl.lit(None, pl.Decimal(18, 9)),
            data_source=pl.lit(FILLED),
        )  # fmt: skip
        if bars.is_empty():
            return bars.drop("_row")
        begins = bars["ts_event"].to_physical()
        until = begins + self._step if self._every.align == "utc" else self._until(bars, begins)
        stretch = bars.select("dataset", "instrument_id", since=begins, until=until)
        known = np.zeros(bars.height, dtype=np.bool_)
        known[self._held.inside(bars.with_row_index("_at"), "ts_event")["_at"].to_numpy()] = True
        known &= ~(self._certain.missing(stretch) | self._certain.spoiled(stretch))
        # Behind a bucket that is not known nobody knows the last close.
        unknown = (~pl.col("_known")).cast(pl.UInt8).cum_max().over("_row")
        return bars.with_columns(_known=pl.Series(known)).filter(unknown == 0).drop("_known", "_row")

    def _until(self, bars: pl.DataFrame, begins: pl.Series) -> pl.Series:
        """Where buckets of sessions end."""
        placed = self._sessions.placed(bars.select(*KEY, at=begins))
        return placed["end"]


def _same(known: pl.DataFrame) -> Any:
    """True for each row but the last that is followed by one of the same publisher and instrument."""
    same = pl.all_horizontal(pl.col(c) == pl.col(c).shift(-1) for c in KEY)
    return known.select(same.fill_null(value=False)).to_series().to_numpy()[:-1]


__all__ = ["Filling"]

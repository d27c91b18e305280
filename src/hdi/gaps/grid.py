"""What should be there: the sessions of a calendar as stretches of time, and which of them instruments lack.

Pure: frames in, frames out. Times are nanoseconds UTC, intervals half-open.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from hdi.late import Array
from hdi.model import DAY_NS, NS, Window
from hdi.schema import SchemaName

HOUR_NS = 3_600 * NS
#: A stretch in which something should be: ``ord`` counts them in time, ``at`` is its start on the clock, ``low`` and
#: ``high`` bound the part of it in which the market is open.
STRETCHES: dict[str, pl.DataType] = {
    "ord": pl.Int64(), "at": pl.Int64(), "low": pl.Int64(), "high": pl.Int64(),
}  # fmt: skip
#: Rows of expected stretches that are looked at together.
MOST = 500_000

#: ``any``: rows may come at any time of the session; ``start``: one at the start of the stretch; ``close``: when the
#: session is over; ``never``: when something happens, so that none are missed.
Rhythm = Literal["any", "start", "close", "never"]


@dataclass(frozen=True, slots=True)
class Grain:
    """How a schema is looked at: by stretches of ``every`` nanoseconds, with rows at some time of them."""

    every: int
    rhythm: Rhythm

    @property
    def daily(self) -> bool:
        """True for stretches of days."""
        return self.every == DAY_NS


def grain(name: SchemaName) -> Grain:
    """Days for what comes by the day or as things happen, hours for all that is finer."""
    if name.expected == "hour":
        return Grain(HOUR_NS, "start" if name.width == HOUR_NS else "any")
    return Grain(DAY_NS, "start" if name.expected == "day" else name.expected)


def whole_time(window: Window) -> pl.DataFrame:
    """The one session of a market whose calendar is not known: always open."""
    return pl.DataFrame({"open": [window.start], "close": [window.end]}, schema={"open": pl.Int64, "close": pl.Int64})


def stretches(sessions: pl.DataFrame, grain: Grain, window: Window) -> pl.DataFrame:
    """The stretches (:data:`STRETCHES`) in which sessions (open, close) are, as far as they touch the window."""
    if grain.rhythm == "close":
        at = (pl.col("close") - 1) // DAY_NS * DAY_NS
        found = sessions.select(at=at).unique().with_columns(low="at", high=pl.col("at") + DAY_NS)
    else:
        found = _cut(sessions.filter(pl.col("close") > window.start, pl.col("open") < window.end), grain.every)
        if grain.daily:
            found = found.with_columns(low="at", high=pl.col("at") + DAY_NS)
    found = found.filter(pl.col("high") > window.start, pl.col("low") < window.end).sort("at")
    return found.with_row_index("ord").select(pl.col(c).cast(t) for c, t in STRETCHES.items())


def _cut(sessions: pl.DataFrame, every: int) -> pl.DataFrame:
    opens, closes = sessions["open"].to_numpy(), sessions["close"].to_numpy()
    first = opens // every
    count = -(-closes // every) - first
    of = np.repeat(np.arange(len(first)), count)
    at = (first[of] + np.arange(len(of)) - np.repeat(np.cumsum(count) - count, count)) * every
    frame = pl.DataFrame({"at": at, "low": np.maximum(opens[of], at), "high": np.minimum(closes[of], at + every)})
    return frame.group_by("at").agg(pl.col("low").min(), pl.col("high").max())


def expected(rectangles: pl.DataFrame, found: pl.DataFrame, grain: Grain) -> Iterator[pl.DataFrame]:
    """The stretches that rectangles (instrument_id, start, end) have, in frames of about :data:`MOST` rows.

    Columns: those of :data:`STRETCHES`, ``low`` and ``high`` cut to the rectangle, ``instrument_id``, and whether it
    is the ``first`` or the ``last`` one of its rectangle.
    """
    start, end = rectangles["start"].to_numpy(), rectangles["end"].to_numpy()
    at, low, high = (found[c].to_numpy() for c in ("at", "low", "high"))
    if grain.rhythm == "any":
        first, last = np.searchsorted(high, start, side="right"), np.searchsorted(low, end, side="left")
    else:
        upto = end if grain.rhythm == "start" else end - grain.every + 1
        first, last = np.searchsorted(at, start, side="left"), np.searchsorted(at, upto, side="left")
    count = np.maximum(last - first, 0)
    total = np.cumsum(count)
    here = 0
    while here < len(count):
        before = int(total[here - 1]) if here else 0
        stop = max(here + 1, int(np.searchsorted(total, before + MOST, side="right")))
        yield _expanded(rectangles[here:stop], found, first[here:stop], count[here:stop])
        here = stop


def _expanded(rectangles: pl.DataFrame, found: pl.DataFrame, first: Array, count: Array) -> pl.DataFrame:
    of = np.repeat(np.arange(len(count)), count)
    nth = np.arange(len(of)) - np.repeat(np.cumsum(count) - count, count)
    own = rectangles[of].select("instrument_id", "start", "end").with_columns(
        first=pl.Series(nth == 0, dtype=pl.Boolean), last=pl.Series(nth == count[of] - 1, dtype=pl.Boolean)
    )  # fmt: skip
    both: pl.DataFrame = pl.concat([found[first[of] + nth], own], how="horizontal")
    return both.with_columns(
        low=pl.max_horizontal("low", "start"), high=pl.min_horizontal("high", "end")
    ).drop("start", "end")  # fmt: skip


def lacking(wanted: pl.DataFrame, content: pl.DataFrame) -> pl.DataFrame:
    """The expected stretches for which the content (instrument_id, at) has no row."""
    return wanted.join(content, on=["instrument_id", "at"], how="anti")


def runs(frame: pl.DataFrame, *same: str) -> pl.DataFrame:
    """The frame sorted by instrument and time, with ``run``: a number for neighbours that agree in ``same``."""
    frame = frame.sort("instrument_id", "ord")
    keys = ["instrument_id", *same]
    changed = pl.any_horizontal(pl.col(k).ne_missing(pl.col(k).shift(1)) for k in keys)
    apart = (pl.col("ord") - pl.col("ord").shift(1)).ne_missing(1)
    return frame.with_columns(run=(changed | apart).fill_null(value=True).cum_sum())


__all__ = [
    "HOUR_NS", "MOST", "STRETCHES", "Grain", "expected", "grain", "lacking", "runs", "stretches", "whole_time",
]  # fmt: skip

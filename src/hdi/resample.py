"""Wider bars out of finer ones, as they stream by: exact, by dataset, instrument and publisher, in UTC buckets.

A bucket that the finer bars do not fill for certain is left out: one with a minute that no complete unit
covers, or with a quarantined one. It is counted, so that a reader can say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import polars as pl

from hdi.folding import PRICES, Folder, Utc, legs, price
from hdi.late import np
from hdi.model import MAX_NS, Window
from hdi.symbology import ALL_SYMBOLS, Intervals, merge

#: What a bar is made of; the rest of a finer bar does not matter.
NEEDED = (
    "dataset", "instrument_id", "symbol", "publisher_id", "ts_event", *PRICES.values(), "volume", "data_source",
)  # fmt: skip
#: A bar that was made and stored says in ``data_source`` what from: ``derived:<schema>:<origin>``.
DERIVED = "derived:"
#: And one of a bucket in which nothing was traded: it repeats the last close.
FILLED = "filled"
_BUCKET = {"dataset": pl.String(), "instrument_id": pl.Int64(), "ts_event": pl.Int64()}


def aligned(window: Window, width: int) -> Window | None:
    """The buckets that start in the window, whole; None where none does."""
    start, end = (-(-at // width) * width for at in (window.start, window.end))
    return Window(start, end) if start < end else None


@dataclass(frozen=True)
class Certain:
    """For which stretches of time the finer bars are all there.

    ``covered`` has dataset, instrument_id (null: every instrument), start, end. ``spoiled`` has dataset,
    instrument_id and ``ts_event``, the start of each bucket with a quarantined bar.
    """

    covered: pl.DataFrame = field(repr=False)
    spoiled: pl.DataFrame = field(repr=False)
    width: int

    def missing(self, bars: pl.DataFrame) -> pl.Series:
        """True for each bar whose bucket is not covered from start to end."""
        starts = bars["ts_event"].to_physical().to_numpy()
        ids = bars["instrument_id"].to_numpy()
        inside = pl.Series([False]).new_from_index(0, bars.height)
        for (dataset, every), part in self.covered.with_columns(
            pl.col("instrument_id").fill_null(0), every=pl.col("instrument_id").is_null()
        ).group_by("dataset", "every"):
            intervals = Intervals(merge(part))
            looked = np.zeros_like(ids) if every else ids
            at = intervals.find(looked, starts)
            held = (at >= 0) & (at == intervals.find(looked, starts + self.width - 1))
            inside |= pl.Series(held) & (bars["dataset"] == dataset)
        return ~inside


class Resampler:
    """Makes the bars, once, of frames in the order of reads; knows what it has left out so far."""

    def __init__(self, certain: Certain, columns: Mapping[str, pl.DataType], constants: Mapping[str, str]) -> None:
        self._certain = certain
        self._columns = columns
        self._constants = constants
        self.missing = 0
        self._reached = -1

    def bars(self, frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        """The bars of all frames, in the order of reads; the last open bucket is carried from frame to frame."""
        for bars in Folder(Utc(self._certain.width)).bars(map(self._passed, frames)):
            self._reached = max(self._reached, int(bars["last"].max()))  # type: ignore[arg-type]
            yield self._made(bars)
        self._reached = MAX_NS

    @property
    def spoiled(self) -> int:
        """How many buckets with a quarantined bar were passed."""
        return self._certain.spoiled.filter(pl.col("ts_event") <= self._reached).height

    def notes(self, name: str) -> list[str]:
        """How many bars were left out, and why."""
        reasons = (
            (self.spoiled, "with a quarantined minute"),
            (self.missing, "with a minute that was never ingested whole"),
        )
        return [f"left out: {n} {name} {'bar' if n == 1 else 'bars'} {why}" for n, why in reasons if n]

    @staticmethod
    def _passed(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.select(
            "dataset", "publisher_id", "instrument_id", *legs({"at": "ts_event", **PRICES, "volume": "volume"}),
            "symbol", "data_source", trades=pl.lit(None, pl.Int64),
        )  # fmt: skip

    def _made(self, found: pl.DataFrame) -> pl.DataFrame:
        time = self._columns["ts_event"]
        bars = found.with_columns(
            pl.col("start").cast(time).alias("ts_event"), *(price(m).alias(c) for m, c in PRICES.items())
        )
        spoiled = self._certain.spoiled.with_columns(pl.col("ts_event").cast(time))
        bars = bars.join(spoiled, on=list(_BUCKET), how="anti", maintain_order="left")
        missing = self._certain.missing(bars)
        self.missing += int(missing.sum())
        given = {**self._constants, **dict.fromkeys(set(self._columns) - set(bars.columns) - set(self._constants))}
        return bars.filter(~missing).with_columns(
            pl.lit(value, dtype=self._columns[name]).alias(name) for name, value in given.items()
        ).select(pl.col(name).cast(dtype) for name, dtype in self._columns.items())  # fmt: skip


def folded(frames: Iterable[pl.DataFrame], width: int) -> Iterator[pl.DataFrame]:
    """Bars of ``width`` nanoseconds out of what streams by in the order of time, in that order; memory is a frame's.

    Frames have ``at`` (nanoseconds), publisher_id, instrument_id, open, high, low, close and volume: of a trade its
    price, four times, and its size. So have the bars, ``at`` being their start.
    """
    prices = {name: name for name in PRICES}
    passed = (
        frame.select(
            "publisher_id", "instrument_id", *legs({"at": "at", **prices, "volume": "volume"}),
            dataset=pl.lit(""), trades=pl.lit(None, pl.Int64),
        )
        for frame in frames
    )  # fmt: skip
    for bars in Folder(Utc(width)).bars(passed):
        yield bars.select(
            "publisher_id", "instrument_id", pl.col("start").alias("at"), *(price(n).alias(n) for n in PRICES), "volume"
        )


def covered(coverage: pl.DataFrame, mappings: pl.DataFrame, schema: str) -> pl.DataFrame:
    """Where all bars of the finer schema are: each instrument's own coverage, and that of whole requests.

    A whole request covers the instruments that its symbol stood for; one for all symbols, every instrument.
    """
    rows = coverage.filter(pl.col("schema") == schema)
    columns = ("dataset", "instrument_id", "start", "end")
    whole = rows.filter(pl.col("instrument_id").is_null())
    stood = whole.select("dataset", "symbol", pl.col("start").alias("from"), pl.col("end").alias("to")).join(
        mappings, on=["dataset", "symbol"]
    )
    named = stood.with_columns(pl.max_horizontal("start", "from"), pl.min_horizontal("end", "to").alias("end"))
    everything = whole.filter(pl.col("symbol") == ALL_SYMBOLS)
    return pl.concat(
        [
            rows.drop_nulls("instrument_id").select(columns),
            named.filter(pl.col("start") < pl.col("end")).select(columns),
            everything.select(columns),
        ]
    )


def spoiled(rejects: pl.DataFrame, schema: str, window: Window, width: int) -> pl.DataFrame:
    """The buckets of the window that hold a quarantined bar, each once.

    A bar outside the window of its unit says nothing about the bucket that it claims, and the sample
    kept of a failed unit nothing about the rows that stand.
    """
    at = pl.col("index_time")
    return rejects.filter(
        pl.col("schema") == schema, ~pl.col("failed"), at >= window.start, at < window.end,
        ~pl.col("rules").list.contains("OUTSIDE_WINDOW"),
    ).select("dataset", "instrument_id", (at // width * width).alias("ts_event")).unique().cast(_BUCKET)  # type: ignore[arg-type]  # fmt: skip


__all__ = ["DERIVED", "NEEDED", "Certain", "Resampler", "aligned", "covered", "folded", "spoiled"]

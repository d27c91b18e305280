"""Checks of rows by their own neighbours: copies, order, and what stands still. Fed in the order of time.

Frames have publisher_id, instrument_id and ``at`` (index time), prices as whole numbers of 1e-9 and times as
nanoseconds, all of one dataset and schema.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import polars as pl

from hdi.folding import PRICES
from hdi.model import DAY_NS, Window
from hdi.reconciling.bars import Count
from hdi.reconciling.findings import Collector, bars_text, finding, price_text

WHO = ("publisher_id", "instrument_id")
_PLACES = {"publisher_id": pl.Int32(), "instrument_id": pl.Int64(), "start": pl.Int64()}
_HOUR_NS = 3_600 * 10**9
#: Bits of ``flags``: a row of a snapshot, and one whose time of receipt is unreliable.
_SNAPSHOT, _BAD_TS_RECV = 32, 8
_FIRST = "it is the first row of its instrument that was read"
_CUT = "its hour or day is not whole in what was asked for"
#: Groups are added up again when they have grown to so many.
_MANY = 200_000


class Finder(Protocol):
    """A check that looks at rows as they pass."""

    check: str
    count: Count

    @property
    def columns(self) -> tuple[str, ...]:
        """The stored columns that it needs."""

    def feed(self, rows: pl.DataFrame) -> None:
        """Look at rows; none is earlier than one before."""

    def done(self) -> None:
        """Nothing follows."""

    def doubtful(self, places: pl.DataFrame) -> pl.Series:
        """True for each of the places (publisher_id, instrument_id, start) whose row was read and not judged."""


class _Base:
    check = ""
    columns: tuple[str, ...] = ()

    def __init__(self, schema: str, collector: Collector, standing: pl.DataFrame | None = None) -> None:
        """``standing`` are the open discrepancies; of their places it is known later whether they were judged."""
        self.schema = schema
        self.collector = collector
        self.count = Count()
        none = pl.DataFrame(schema=_PLACES)
        self._standing = none if standing is None else standing.filter(
            pl.col("check") == self.check, pl.col("schema") == schema
        ).select(*_PLACES).unique()  # fmt: skip
        self._doubts = none

    def doubtful(self, places: pl.DataFrame) -> pl.Series:
        """See :class:`Finder`."""
        told = self._doubts.unique().with_columns(doubt=pl.lit(value=True))
        mine = places.select(*_PLACES)
        found = mine.join(told, on=list(_PLACES), how="left", nulls_equal=True, maintain_order="left")
        return found["doubt"].fill_null(value=False)

    def doubt(self, rows: pl.DataFrame) -> None:
        """Rows (with ``at``) that cannot be judged for want of their neighbours."""
        if self._standing.height and rows.height:
            places = rows.select(*WHO, start="at")
            near = self._standing.join(places, on=list(_PLACES), how="semi", nulls_equal=True)
            self._doubts = pl.concat([self._doubts, near])

    def found(self, rows: pl.DataFrame, **told: pl.Expr | str) -> None:
        """Keep rows with start and end as findings."""
        if rows.height:
            self.collector.add(finding(rows, self.check, self.schema, "", **told))

    def done(self) -> None:
        """Nothing follows."""


class _Grouped(_Base, ABC):
    """Adds up groups of a stretch of time; those of a stretch that is over are looked at."""

    stretch = _HOUR_NS

    def __init__(self, schema: str, collector: Collector, window: Window) -> None:
        """``window`` is read: a stretch that it cuts cannot be judged."""
        super().__init__(schema, collector)
        self._groups: pl.DataFrame | None = None
        self._low = -(-window.start // self.stretch) * self.stretch
        self._high = window.end // self.stretch * self.stretch

    def feed(self, rows: pl.DataFrame) -> None:
        """See :class:`Finder`."""
        whole = rows.filter(pl.col("at") >= self._low, pl.col("at") < self._high)
        self.count.judged += whole.height
        self.count.unjudged[_CUT] += rows.height - whole.height
        if whole.is_empty():
            return
        rows = whole
        start = pl.col("at") // self.stretch * self.stretch
        groups = self.grouped(rows.with_columns(start=start))
        reached = int(rows["at"].max()) // self.stretch * self.stretch  # type: ignore[arg-type]  # Polars' maxima
        if self._groups is not None:
            groups = pl.concat([self._groups, groups])
        if self._groups is None or groups.height > _MANY or int(groups["start"].min()) < reached:  # type: ignore[arg-type]
            groups = self.added(groups)
            over = groups.filter(pl.col("start") < reached)
            self.look(over.with_columns(end=pl.col("start") + self.stretch))
            groups = groups.filter(pl.col("start") >= reached)
        self._groups = groups

    def done(self) -> None:
        """See :class:`Finder`."""
        if self._groups is not None:
            self.look(self.added(self._groups).with_columns(end=pl.col("start") + self.stretch))
            self._groups = None

    @abstractmethod
    def grouped(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The groups of some rows, which have ``start``."""

    @abstractmethod
    def added(self, groups: pl.DataFrame) -> pl.DataFrame:
        """Groups of several frames as one of each."""

    @abstractmethod
    def look(self, groups: pl.DataFrame) -> None:
        """Groups to which nothing is added."""


class Copies(_Grouped):
    """Ticks that are equal in all that tells them apart, by hour.

    Fills of one order may be equal, so some copies prove nothing: only where they are many, and so large a share of the
    hour that it looks as if it had come twice, or where two units brought the same row.
    """

    check = "duplicate_ticks"

    def __init__(
        self, schema: str, collector: Collector, window: Window, same: tuple[str, ...], percent: float, least: int
    ) -> None:  # fmt: skip
        super().__init__(schema, collector, window)
        self._same = (*WHO, "at", *same)
        self.columns = (*same, "_unit")
        self._percent = percent
        self._least = least
        self._held: pl.DataFrame | None = None

    def feed(self, rows: pl.DataFrame) -> None:
        """Rows of the last instant wait for those that may follow them."""
        if self._held is not None:
            rows = pl.concat([self._held, rows.select(self._held.columns)])
        last = pl.col("at") == pl.col("at").max()
        self._held = rows.filter(last)
        whole = rows.filter(~last)
        if whole.height:
            super().feed(whole)

    def done(self) -> None:
        """See :class:`Finder`."""
        if self._held is not None and self._held.height:
            super().feed(self._held)
        super().done()

    def grouped(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows, copies, and copies by other units, by hour."""
        # Only rows of one instant can be equal: few, and the others are not compared in all their columns.
        near = rows.filter(pl.col("at").is_duplicated())
        same = near.group_by(*self._same, "start").agg(
            n=pl.len().cast(pl.Int64), units=pl.col("_unit").n_unique().cast(pl.Int64)
        ).filter(pl.col("n") > 1)  # fmt: skip
        copies = same.group_by(*WHO, "start").agg(copies=(pl.col("n") - 1).sum(), twice=(pl.col("units") - 1).sum())
        every = rows.group_by(*WHO, "start").agg(rows=pl.len().cast(pl.Int64))
        return every.join(copies, on=[*WHO, "start"], how="left").with_columns(pl.col("copies", "twice").fill_null(0))

    def added(self, groups: pl.DataFrame) -> pl.DataFrame:
        """See :class:`_Grouped`."""
        return groups.group_by(*WHO, "start").agg(pl.col("rows", "copies", "twice").sum())

    def look(self, groups: pl.DataFrame) -> None:
        """See :class:`_Grouped`."""
        share = pl.col("copies") * 100 >= pl.col("rows") * self._percent
        bad = groups.filter(((pl.col("copies") >= self._least) & share) | (pl.col("twice") > 0))
        twice = pl.when(pl.col("twice") > 0).then(pl.format("{} of them by several units", "twice"))
        told = bad.with_columns(
            expected=pl.format("{} rows, all different", pl.col("rows") - pl.col("copies")),
            found=pl.format("{} rows, {} of them copies", "rows", "copies"), evidence=twice.otherwise(pl.lit("")),
            rows=pl.lit(1),
        )  # fmt: skip
        self.found(
            told, field="copies", expected=pl.col("expected"), found=pl.col("found"), evidence=pl.col("evidence")
        )


class Twice(_Base):
    """Bars of the same interval, publisher and instrument."""

    check = "duplicate_bars"

    def __init__(self, schema: str, collector: Collector, width: int) -> None:
        super().__init__(schema, collector)
        self._width = width
        self._held: pl.DataFrame | None = None

    def feed(self, rows: pl.DataFrame) -> None:
        """See :class:`Finder`."""
        self.count.judged += rows.height
        mine = rows.select(*WHO, start="at")
        mine = mine if self._held is None else pl.concat([self._held, mine])
        last = pl.col("start") == pl.col("start").max()
        self._held = mine.filter(last)
        self._look(mine.filter(~last))

    def done(self) -> None:
        """See :class:`Finder`."""
        if self._held is not None:
            self._look(self._held)

    def _look(self, rows: pl.DataFrame) -> None:
        many = rows.group_by(*WHO, "start").len("n").filter(pl.col("n") > 1)
        many = many.with_columns(end=pl.col("start") + max(self._width, 1))
        self.found(many, field="bar", expected="1 bar", found=pl.format("{} bars", "n"))


class Order(_Base):
    """Rows that their venue numbered and timed before the one of the instrument that precedes them.

    A number alone that is smaller is a new count, which venues begin each week and after a failure.
    """

    check = "out_of_order"

    def __init__(
        self, schema: str, collector: Collector, standing: pl.DataFrame | None = None, *, flags: bool
    ) -> None:  # fmt: skip
        super().__init__(schema, collector, standing)
        self.columns = ("ts_event", "sequence", *(("flags",) if flags else ()))
        self._flags = flags
        self._last: pl.DataFrame | None = None

    def feed(self, rows: pl.DataFrame) -> None:
        """See :class:`Finder`."""
        mine = rows.select(*WHO, "at", *self.columns, new=pl.lit(value=True)).drop_nulls("ts_event")
        if self._flags:
            mine = mine.filter((pl.col("flags") & (_SNAPSHOT | _BAD_TS_RECV)) == 0)
        both = mine if self._last is None else pl.concat([self._last, mine])
        before = {c: pl.col(c).shift(1).over(WHO) for c in ("sequence", "ts_event")}
        both = both.with_columns(before=before["sequence"], event=before["ts_event"])
        first = both.filter("new", pl.col("event").is_null())
        self.doubt(first)
        self.count.judged += mine.height - first.height
        self.count.unjudged[_FIRST] += first.height
        late = both.filter("new", pl.col("sequence") < pl.col("before"), pl.col("ts_event") < pl.col("event"))
        self._last = both.group_by(WHO, maintain_order=True).last().select(mine.columns).with_columns(
            new=pl.lit(value=False)
        )  # fmt: skip
        self.found(
            late.with_columns(start="at", end=pl.col("at") + 1), field="sequence",
            expected=pl.format("above {}", "before"), found=pl.col("sequence").cast(pl.String),
            evidence=pl.format("{} ns older than the event of the row before", pl.col("event") - pl.col("ts_event")),
        )  # fmt: skip


class StaleBars(_Base):
    """Runs of equal bars that have a range and a volume. Bars of one price repeat by themselves where little trades."""

    check = "stale_bars"
    columns = (*PRICES, "volume")

    def __init__(self, schema: str, collector: Collector, width: int, least: int) -> None:
        super().__init__(schema, collector)
        self._width = max(width, 1)
        self._least = least
        self._runs: pl.DataFrame | None = None

    def feed(self, rows: pl.DataFrame) -> None:
        """See :class:`Finder`."""
        self.count.judged += rows.height
        mine = rows.select(
            *WHO, *self.columns, start="at", end=pl.col("at") + self._width, n=pl.lit(1, pl.Int64)
        )  # fmt: skip
        both = mine if self._runs is None else pl.concat([self._runs, mine])
        new = pl.any_horizontal(pl.col(c).ne_missing(pl.col(c).shift(1)) for c in self.columns).over(WHO)
        runs = both.with_columns(run=new.cast(pl.Int64).cum_sum().over(WHO)).group_by(
            *WHO, "run", maintain_order=True
        ).agg(pl.col(self.columns).first(), pl.col("start").min(), pl.col("end").max(), pl.col("n").sum())  # fmt: skip
        last = pl.col("run") == pl.col("run").max().over(WHO)
        self._look(runs.filter(~last))
        self._runs = runs.filter(last).select(mine.columns)

    def done(self) -> None:
        """See :class:`Finder`."""
        if self._runs is not None:
            self._look(self._runs)
            self._runs = None

    def _look(self, runs: pl.DataFrame) -> None:
        bad = runs.filter(pl.col("n") >= self._least, pl.col("high") > pl.col("low"), pl.col("volume") > 0)
        bar = bars_text([(n, n) for n in PRICES], "volume")
        self.found(
            bad, field="bar", expected=f"less than {self._least} equal bars in a row",
            found=pl.format("{} equal bars", "n"), evidence=bar,
        )  # fmt: skip


class StaleQuotes(_Grouped):
    """UTC days of many trades through which the best bid and offer never changed, neither in price nor in size."""

    check = "stale_quotes"
    stretch = DAY_NS
    columns = ("bid_px_00", "ask_px_00", "bid_sz_00", "ask_sz_00")

    def __init__(self, schema: str, collector: Collector, window: Window, least: int) -> None:
        super().__init__(schema, collector, window)
        self._least = least

    def grouped(self, rows: pl.DataFrame) -> pl.DataFrame:
        """See :class:`_Grouped`."""
        return rows.group_by(*WHO, "start").agg(
            pl.len().cast(pl.Int64).alias("n"),
            *(pl.col(c).min().alias(f"{c}_low") for c in self.columns),
            *(pl.col(c).max().alias(f"{c}_high") for c in self.columns),
            nulls=pl.sum_horizontal(pl.col(c).null_count() for c in self.columns).cast(pl.Int64),
        )

    def added(self, groups: pl.DataFrame) -> pl.DataFrame:
        """See :class:`_Grouped`."""
        return groups.group_by(*WHO, "start").agg(
            pl.col("n").sum(), *(pl.col(f"{c}_low").min() for c in self.columns),
            *(pl.col(f"{c}_high").max() for c in self.columns), pl.col("nulls").sum(),
        )  # fmt: skip

    def look(self, groups: pl.DataFrame) -> None:
        """See :class:`_Grouped`."""
        still = [pl.col(f"{c}_low") == pl.col(f"{c}_high") for c in self.columns]
        bad = groups.filter(pl.col("n") >= self._least, pl.col("nulls") == 0, *still)
        quote = pl.concat_str(
            pl.lit("bid "), price_text("bid_px_00_low"), pl.lit(" x "), pl.col("bid_sz_00_low").cast(pl.String),
            pl.lit(", ask "), price_text("ask_px_00_low"), pl.lit(" x "), pl.col("ask_sz_00_low").cast(pl.String),
        )  # fmt: skip
        self.found(
            bad, field="quote", expected="a quote that changes",
            found=pl.format("{} rows with one quote", "n"), evidence=quote,
        )  # fmt: skip


__all__ = ["WHO", "Copies", "Finder", "Order", "StaleBars", "StaleQuotes", "Twice"]

"""Checks of prices: on the tick grid of the definition in force, and far away from their neighbours."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl

from hdi.folding import PRICES
from hdi.model import DAY_NS, Window, cell_start
from hdi.model import Grid as Cell
from hdi.reconciling.findings import Collector, finding, price_text
from hdi.reconciling.rows import WHO, _Base
from hdi.stores import Store
from hdi.symbology import Intervals

#: Classes of instruments whose trades are bound to the grid: futures and their spreads. Options trade at cabinet
#: prices, shares between the ticks.
_BOUND = ("F", "S")
_SPAN = {"instrument_id": pl.Int64(), "start": pl.Int64(), "end": pl.Int64(), "tick": pl.Int64()}
_UNKNOWN = "no definition with a tick that binds is in force"
#: A scale needs so many moves.
_LEAST = 30
_UNUSUAL = "less than {} moves of its instrument were read of its {}, or none but zero"
_ALONE = "no bar before it or after it was read"


class Ticks:
    """Minimum price increments by instrument and time."""

    def __init__(self, known: pl.DataFrame) -> None:
        self._ticks = known["tick"].to_numpy()
        self._intervals = Intervals(known)

    @classmethod
    def of(cls, store: Store, dataset: str, window: Window, rectangles: pl.DataFrame | None) -> Ticks:
        """Those of the definitions of a dataset that bind: of futures and spreads, without a table of ticks."""
        wanted = {"instrument_class", "min_price_increment", "tick_rule"}
        parts = [pl.DataFrame(schema=_SPAN)]
        for frame in store.instruments(dataset, window, rectangles):
            if not wanted <= set(frame.columns):
                continue
            bound = frame.filter(
                pl.col("instrument_class").is_in(_BOUND), pl.col("tick_rule").is_null(),
                pl.col("min_price_increment") > 0,
            )  # fmt: skip
            parts.append(bound.select(
                "instrument_id", pl.col("known_from").to_physical().cast(pl.Int64).alias("start"),
                pl.col("known_until").to_physical().cast(pl.Int64).alias("end"),
                pl.col("min_price_increment").to_physical().cast(pl.Int64).alias("tick"),
            ))  # fmt: skip
        return cls(pl.concat(parts).sort("start"))

    def at(self, rows: pl.DataFrame, width: int) -> pl.Series:
        """The tick that is in force through each row (instrument_id, at), null where none is, or several are."""
        ids, at = rows["instrument_id"].to_numpy(), rows["at"].to_numpy()
        found = self._intervals.find(ids, at)
        if not len(self._ticks):
            return pl.Series([None], dtype=pl.Int64).new_from_index(0, rows.height)
        ticks = np.where(found >= 0, self._ticks[found], 0)
        if width > 1:
            # The last definition holds until just after its message: one that is still in force later need not be.
            until = self._intervals.find(ids, at + width - 1)
            ticks = np.where((until < 0) | (self._ticks[until] == ticks), ticks, 0)
        each = pl.Series(ticks)
        return pl.select(pl.when(each > 0).then(each)).to_series()


class Grid(_Base):
    """Prices that are no multiple of the tick in force."""

    check = "tick_size"

    def __init__(
        self, schema: str, collector: Collector, ticks: Ticks, prices: dict[str, str], width: int
    ) -> None:  # fmt: skip
        """``prices`` are the columns of rows by the stored ones."""
        super().__init__(schema, collector)
        self.columns = tuple(prices.values())
        self._ticks = ticks
        self._prices = prices
        self._width = max(width, 1)

    def feed(self, rows: pl.DataFrame) -> None:
        """See :class:`hdi.reconciling.rows.Finder`."""
        known = rows.with_columns(tick=self._ticks.at(rows, self._width))
        judged = known.drop_nulls("tick")
        self.count.judged += judged.height
        self.count.unjudged[_UNKNOWN] += rows.height - judged.height
        for stored, column in self._prices.items():
            off = judged.filter(pl.col(column) % pl.col("tick") != 0)
            if off.height:
                off = off.with_columns(start="at", end=pl.col("at") + self._width)
                self.collector.add(finding(
                    off, self.check, self.schema, "definition", field=stored,
                    expected=pl.concat_str(pl.lit("a multiple of "), price_text("tick")), found=price_text(column),
                ))  # fmt: skip


class Spikes(_Base):
    """Bars that leave the range of both neighbours by many times the usual move, and come back.

    The usual move is the median absolute deviation of the changes of the close from their median, or if that is more,
    the median of those that are not zero, of the instrument in its cell (a UTC day of minutes, a month of hours, a
    year of days). Only differences count, so prices may be negative.
    """

    check = "price_spike"
    columns = (*PRICES, "volume")

    def __init__(
        self, schema: str, collector: Collector, width: int, most: int, standing: pl.DataFrame | None = None
    ) -> None:  # fmt: skip
        super().__init__(schema, collector, standing)
        self._width = max(width, 1)
        self._most = most
        hour = 3_600 * 10**9
        self._grid: Cell = "day" if width < hour else "month" if width < DAY_NS else "year"
        self._cell: list[pl.DataFrame] = []
        self._begun = -1
        self._ready: pl.DataFrame | None = None
        self._before: pl.DataFrame | None = None

    def feed(self, rows: pl.DataFrame) -> None:
        """See :class:`hdi.reconciling.rows.Finder`."""
        mine = rows.select(*WHO, "at", *PRICES)
        low, high = int(mine["at"].min()), int(mine["at"].max())  # type: ignore[arg-type]  # Polars' extrema
        if cell_start(low, self._grid) == cell_start(high, self._grid):
            self._take(cell_start(low, self._grid), mine)
            return
        days = {d: cell_start(d, self._grid) for d in (mine["at"] // DAY_NS * DAY_NS).unique()}
        cells = (mine["at"] // DAY_NS * DAY_NS).replace_strict(days, return_dtype=pl.Int64)
        for (cell,), part in sorted(mine.with_columns(cell=cells).group_by("cell", maintain_order=True)):
            self._take(int(cell), part.drop("cell"))

    def done(self) -> None:
        """See :class:`hdi.reconciling.rows.Finder`."""
        self._close()
        self._look(None)

    def _take(self, cell: int, rows: pl.DataFrame) -> None:
        if cell != self._begun:
            self._close()
            self._begun = cell
        self._cell.append(rows)

    def _close(self) -> None:
        """The cell is whole: the one before it can be looked at, for its last bars have those that follow them."""
        if not self._cell:
            return
        whole = pl.concat(self._cell)
        self._cell = []
        self._look(whole.group_by(WHO, maintain_order=True).first().select(whole.columns))
        self._ready = whole

    def _look(self, following: pl.DataFrame | None) -> None:
        """Look at the cell that is ready, between the last bars before it and the first ones after it."""
        whole = self._ready
        if whole is None:
            return
        move = (pl.col("close") - pl.col("close").shift(1)).over(WHO)
        moves = whole.with_columns(move=move).drop_nulls("move")
        middle = pl.col("move").median()
        scales = moves.group_by(WHO).agg(
            mad=(pl.col("move") - middle).abs().median(), n=pl.len(),
            usual=pl.col("move").abs().filter(pl.col("move") != 0).median(),
        )  # fmt: skip
        scales = scales.filter(pl.col("n") >= _LEAST).select(
            *WHO, scale=pl.max_horizontal("mad", "usual").cast(pl.Int64)
        )
        parts = [whole.with_columns(mine=pl.lit(value=True))]
        if self._before is not None:
            parts.insert(0, self._before.with_columns(mine=pl.lit(value=False)))
        if following is not None:
            parts.append(following.with_columns(mine=pl.lit(value=False)))
        every = pl.concat(parts)
        beside = {
            f"{c}_{k}": pl.col(c).shift(n).over(WHO) for c in ("high", "low") for k, n in (("last", 1), ("next", -1))
        }
        both = every.with_columns(**beside).filter("mine").join(
            scales, on=WHO, how="left", maintain_order="left", nulls_equal=True
        )  # fmt: skip
        usual = pl.col("scale").fill_null(0) > 0
        scaled = both.filter(usual)
        between = scaled.drop_nulls(list(beside))
        self.count.judged += between.height
        self.count.unjudged[_UNUSUAL.format(_LEAST, self._grid)] += both.height - scaled.height
        self.count.unjudged[_ALONE] += scaled.height - between.height
        self.doubt(both.filter(~usual | pl.any_horizontal(pl.col(c).is_null() for c in beside)))
        up = pl.col("high") - pl.max_horizontal("high_last", "high_next")
        down = pl.min_horizontal("low_last", "low_next") - pl.col("low")
        known = between.with_columns(up=up, down=down)
        for field, far, edge in (
            ("high_price", "up", pl.max_horizontal("high_last", "high_next")),
            ("low_price", "down", pl.min_horizontal("low_last", "low_next")),
        ):
            bad = known.filter(pl.col(far) > pl.col("scale") * self._most).with_columns(
                edge=edge, start="at", end=pl.col("at") + self._width
            )
            way = "at most" if far == "up" else "at least"
            self.found(
                bad, field=field, expected=pl.concat_str(pl.lit(f"about {way} "), price_text("edge")),
                found=price_text("high" if far == "up" else "low"),
                evidence=pl.concat_str(
                    price_text(far), pl.lit(" beyond both neighbours; a usual move is "), price_text("scale")
                ),
            )  # fmt: skip
        last = whole.group_by(WHO, maintain_order=True).last().select(whole.columns)
        kept = [last] if self._before is None else [self._before.join(last, on=WHO, how="anti"), last]
        self._before = pl.concat(frame.select(whole.columns) for frame in kept)
        self._ready = None


def prices_of(columns: Iterable[str]) -> dict[str, str]:
    """The columns whose prices are trades, by the stored ones, as rows have them."""
    bars = {stored: name for name, stored in PRICES.items()}
    there = set(columns)
    if set(bars) <= there:
        return bars
    return {"price": "price"} if "price" in there else {}


__all__ = ["Grid", "Spikes", "Ticks", "prices_of"]

"""Which bars are certain: made of a stretch that is stored whole, without a quarantined row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl

from hdi.late import Array
from hdi.lookup import RECTANGLES, Asked, among
from hdi.model import Window, subtract
from hdi.symbology import Intervals, merge


@dataclass(frozen=True)
class Certain:
    """``held`` is stored whole, ``bad`` has a quarantined row (both :data:`hdi.lookup.RECTANGLES`; null: every one)."""

    held: pl.DataFrame = field(repr=False)
    bad: pl.DataFrame = field(repr=False)

    def missing(self, bars: pl.DataFrame) -> Array:
        """True for each stretch (dataset, instrument_id, since, until) that is not stored whole."""
        inside = np.zeros(bars.height, dtype=np.bool_)
        ids, starts, ends = (bars[c].to_numpy() for c in ("instrument_id", "since", "until"))
        for dataset, every, intervals in self._held:
            looked = np.zeros_like(ids) if every else ids
            at = intervals.find(looked, starts)
            held = (at >= 0) & (at == intervals.find(looked, ends - 1))
            inside |= held & (bars["dataset"] == dataset).to_numpy()
        return ~inside

    @cached_property
    def _held(self) -> list[tuple[str, bool, Intervals]]:
        """By dataset, of each instrument and (True) of every one."""
        rows = self.held.with_columns(
            pl.col("instrument_id").fill_null(0), every=pl.col("instrument_id").is_null()
        )  # fmt: skip
        return [(str(d), bool(every), Intervals(merge(part))) for (d, every), part in rows.group_by("dataset", "every")]

    def spoiled(self, bars: pl.DataFrame) -> Array:
        """True for each stretch that holds a quarantined row."""
        out = np.zeros(bars.height, dtype=np.bool_)
        if self.bad.is_empty():
            return out
        rows = bars.with_row_index("row")
        for on, bad in (
            (["dataset", "instrument_id"], self.bad.drop_nulls("instrument_id")),
            (["dataset"], self.bad.filter(pl.col("instrument_id").is_null()).drop("instrument_id")),
        ):
            met = rows.join(bad, on=on).filter(pl.col("start") < pl.col("until"), pl.col("end") > pl.col("since"))
            out[met["row"].to_numpy()] = True
        return out


def quarantined(rejects: pl.DataFrame, ledger: pl.DataFrame, source: str, window: Window) -> pl.DataFrame:
    """Where rows of a schema were quarantined.

    A row without a time may belong anywhere in the window of its unit. One whose time is outside of that window says
    nothing of the bucket that it claims, and the sample that is kept of a failed unit nothing of the rows that stand.
    """
    outside = pl.col("rules").list.contains("OUTSIDE_WINDOW") & pl.col("index_time").is_not_null()
    rows = rejects.filter(pl.col("schema") == source, ~pl.col("failed"), ~outside)
    lost = pl.col("index_time").is_null()
    units = ledger.select("unit", pl.col("start").alias("from"), pl.col("end").alias("to")).unique("unit", keep="last")
    spread = rows.filter(lost).join(units, on="unit", how="left")
    at = pl.col("index_time")
    return pl.concat([
        rows.filter(~lost).select("dataset", "instrument_id", start=at, end=at + 1),
        spread.select("dataset", "instrument_id", start="from", end="to"),
    ]).filter(pl.col("start") < window.end, pl.col("end") > window.start).unique()  # fmt: skip


def known(held: pl.DataFrame, asked: Sequence[Asked] | None, coverage: pl.DataFrame) -> pl.DataFrame:
    """What is held, and what is known not to be there: while a symbol stood for another contract, or for none.

    Of a symbol that was asked for whole, or all of whose contracts are held while it stood for them, nothing lacks. So
    the last bar of a contract before a roll is certain though the contract itself is not stored after the roll.
    """
    if asked is None:
        return held
    more = []
    for symbol in asked:
        for (dataset,), rectangles in symbol.rectangles.group_by("dataset"):
            mine = held.filter(pl.col("dataset") == dataset)
            every = mine.filter(pl.col("instrument_id").is_null()).select("start", "end").rows()
            own: dict[int, list[tuple[int, int]]] = {}
            for instrument, start, end in mine.drop_nulls("instrument_id").select(
                "instrument_id", "start", "end"
            ).join(rectangles, on="instrument_id", how="semi").iter_rows():  # fmt: skip
                own.setdefault(instrument, []).append((start, end))
            asked_for = coverage.filter(
                pl.col("dataset") == dataset, pl.col("instrument_id").is_null(), among(symbol.symbol)
            ).select("start", "end").rows()  # fmt: skip
            lacks = {
                (i, s, e): subtract(Window(s, e), [*own.get(i, ()), *every])
                for i, s, e in rectangles.select("instrument_id", "start", "end").iter_rows()
            }
            whole = [*asked_for, *every]
            for (_, start, end), lacking in lacks.items():
                whole += [(w.start, w.end) for w in subtract(Window(start, end), [(w.start, w.end) for w in lacking])]
            for (instrument, _, _), lacking in lacks.items():
                out = [(w.start, w.end) for w in lacking]
                more += [
                    (dataset, instrument, w.start, w.end) for s, e in set(whole) for w in subtract(Window(s, e), out)
                ]
    extra = pl.DataFrame(more, schema=RECTANGLES, orient="row")
    return pl.concat([held.select(*RECTANGLES), extra])


__all__ = ["Certain", "known", "quarantined"]

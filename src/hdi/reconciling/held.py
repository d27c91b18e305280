"""What can be judged: stretches that are stored whole, without a quarantined row, inside of what was asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from hdi.late import Array
from hdi.lookup import RECTANGLES
from hdi.model import DAY_NS, MAX_NS, Window
from hdi.resample import covered
from hdi.series.bars_certain import Certain, quarantined
from hdi.stores import Store

_NOT_A_TRADE = "ACTION_NOT_TRADE"


@dataclass(frozen=True)
class Books:
    """The books of a store, as one reconciliation sees them."""

    ledger: pl.DataFrame = field(repr=False)
    coverage: pl.DataFrame = field(repr=False)
    mappings: pl.DataFrame = field(repr=False)
    rejects: pl.DataFrame = field(repr=False)

    @classmethod
    def of(cls, store: Store) -> Books:
        """As they stand."""
        return cls(store.ledger(), store.coverage(), store.mappings(), store.quarantine())

    def certain(self, dataset: str, name: str) -> Certain:
        """Where rows of a schema are all there, and where one of them is in quarantine."""
        here = pl.col("dataset") == dataset
        mine = here & (pl.col("schema") == name)
        coverage, ledger = self.coverage.filter(mine), self.ledger.filter(mine)
        held = covered(coverage, self.mappings.filter(here), name)
        bad = quarantined(self.rejects.filter(mine), ledger, name, Window(0, MAX_NS))
        # Records that are no trades belong to no bar, and are stored: of what they came with no bar is certain.
        odd = ledger.filter(pl.col("rules").str.contains(_NOT_A_TRADE, literal=True))["unit"].implode()
        strange = coverage.filter(pl.col("unit").is_in(odd)).select(*RECTANGLES) if name == "trades" else bad.clear()
        return Certain(held.select(*RECTANGLES), pl.concat([bad.select(*RECTANGLES), strange]))


@dataclass(frozen=True)
class Asked:
    """What is to be judged: a window, and rectangles of instruments (None: all), cut to whole days."""

    window: Window
    rectangles: pl.DataFrame | None = field(repr=False)

    def inside(self, rows: pl.DataFrame) -> Array:
        """True for each stretch (dataset, instrument_id, since, until) that lies in it."""
        within = ((rows["since"] >= self.window.start) & (rows["until"] <= self.window.end)).to_numpy()
        if self.rectangles is None or rows.is_empty():
            return np.asarray(within)
        return np.asarray(within & ~Certain(self.rectangles, self.rectangles.clear()).missing(rows))


def whole_days(rectangles: pl.DataFrame) -> pl.DataFrame:
    """The whole UTC days in rectangles."""
    start, end = -(-pl.col("start") // DAY_NS) * DAY_NS, pl.col("end") // DAY_NS * DAY_NS
    return rectangles.with_columns(start=start, end=end).filter(pl.col("start") < pl.col("end"))


def spans(rows: pl.DataFrame, dataset: str) -> pl.DataFrame:
    """Rows with start and end as :class:`hdi.series.bars_certain.Certain` takes them."""
    return rows.select("instrument_id", dataset=pl.lit(dataset), since="start", until="end")


__all__ = ["Asked", "Books", "spans", "whole_days"]

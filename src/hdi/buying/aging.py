"""How old is what is stored: what was known of its days when it was bought, and what the vendor made of them since."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import polars as pl

from hdi.attempt import heard
from hdi.buying.paid import Slip, purchased, slips
from hdi.buying.restating import BOUGHT, TOLD, judged, made_here, odd, standing
from hdi.model import DAY_NS, date_ns


def bought(ledger: pl.DataFrame, coverage: pl.DataFrame) -> pl.DataFrame:
    """The complete units of which coverage knows an instrument, dated by commits (``restating.BOUGHT``)."""
    known = coverage.drop_nulls("instrument_id").select("unit").unique()
    units = ledger.filter(pl.col("status") == "complete").join(known, on="unit", how="semi", maintain_order="left")
    return units.with_columns(bought_at="committed_at").select(pl.col(c).cast(t) for c, t in BOUGHT.items())


def told(ledger: pl.DataFrame) -> pl.DataFrame:
    """What the receipts of units say of days (:data:`hdi.buying.restating.TOLD`)."""
    rows = [
        (unit, date_ns(dt.date.fromisoformat(day["day"])), day["condition"], _midnight(day["last_modified"]))
        for unit, text in ledger.select("unit", "conditions").drop_nulls().iter_rows()
        for day in json.loads(text)
    ]
    return pl.DataFrame(rows, schema=TOLD, orient="row")


def marked(coverage: pl.DataFrame, ledger: pl.DataFrame) -> pl.DataFrame:
    """Instruments and days (instrument_id, day) of one dataset and schema that were not available when bought.

    Of each the newest unit counts: what was bought again is no longer what it was.
    """
    units = bought(ledger, coverage)
    odd = told(ledger.join(units, on="unit", how="semi")).filter(pl.col("was") != "available").select("unit", "day")
    found = [
        pieces.join(odd, on=["unit", "day"], how="semi").select("instrument_id", "day")
        for pieces in standing(coverage, units, odd.select("day").unique().sort("day"))
    ]
    return pl.concat([pl.DataFrame(schema={"instrument_id": pl.Int64(), "day": pl.Int64()}), *found]).unique()


class Book:
    """Units of one dataset and schema, and what was known of their days when they were bought.

    ``coverage`` is theirs, ``said`` all that was heard of the dataset, ``now`` what its vendor says at last. Bars that
    were made are as old as what of ``finer`` (:func:`sources_of`) they were made of.
    """

    def __init__(  # noqa: PLR0913, PLR0917  (the books of a store, and where bytes are noted)
        self, coverage: pl.DataFrame, ledger: pl.DataFrame, said: pl.DataFrame, data_dir: Path, units: pl.DataFrame,
        now: pl.DataFrame, finer: pl.DataFrame | None = None,
    ) -> None:  # fmt: skip
        self._finer = finer
        self._coverage = coverage
        self._ledger = ledger.join(units.select("unit"), on="unit", how="semi")
        self._said = said
        self._bought = units
        self._told = told(self._ledger)
        self._odd = odd(said, self._told, now, units)
        #: The purchases of units that were looked at.
        self.purchases: dict[int, Slip] = {}
        first = self._ledger.row(0, named=True)
        self._slips = partial(slips, data_dir, first["origin"], first["dataset"], first["schema"])

    def pieces(self) -> Iterator[pl.DataFrame]:
        """Pieces (:func:`standing`) on the days of which not all that is known is what is said now, as judged."""
        for pieces in standing(self._coverage, self._bought, self._odd):
            verdicts = self._verdicts(pieces.select("unit", "day").unique(maintain_order=True))
            yield pieces.join(verdicts, on=["unit", "day"])

    def _verdicts(self, days: pl.DataFrame) -> pl.DataFrame:
        """:func:`judged` of units and days; only slips of bytes that are in question are read."""
        units = self._ledger.join(days, on="unit", how="semi").drop_nulls("raw_digest")
        known = self._slips(set(units["raw_digest"]))
        brought = purchased(units, known).drop_nulls("at").unique("unit", keep="last").select("unit", "at", "bought_at")
        self.purchases |= {unit: known[at] for unit, at in brought.select("unit", "at").iter_rows()}
        own = brought.select("unit", own="bought_at")
        dated = self._bought.join(own, on="unit", how="left").select("unit", bought_at=pl.coalesce("own", "bought_at"))
        asked = self._aged(days.join(dated, on="unit")).join(self._odd, on="day")
        return judged(asked, self._said, pl.concat([_of_slips(known, brought.join(days, on="unit")), self._told]))

    def _aged(self, days: pl.DataFrame) -> pl.DataFrame:
        """Units and days with when they were bought; of bars that were made, when what they are made of was."""
        made = self._ledger.filter(made_here(), pl.col("fetched") > 0)
        if self._finer is None or made.is_empty():
            return days
        own = days.join(made.select("unit", instrument_id=pl.col("symbol").cast(pl.Int64)), on="unit")
        within = (pl.col("start") < pl.col("day") + DAY_NS) & (pl.col("end") > pl.col("day"))
        older = own.join(self._finer, on="instrument_id").filter(within, pl.col("source_at") <= pl.col("bought_at"))
        ages = older.group_by("unit", "day").agg(pl.col("source_at").max())
        joined = days.join(ages, on=["unit", "day"], how="left", maintain_order="left")
        return joined.with_columns(bought_at=pl.coalesce("source_at", "bought_at")).drop("source_at")


def sources_of(coverage: pl.DataFrame, ledger: pl.DataFrame, dataset: str, names: Sequence[str]) -> pl.DataFrame:
    """What was bought of some schemas, and when: instrument_id, start, end, source_at."""
    brought = ledger.filter(pl.col("dataset") == dataset, pl.col("schema").is_in(list(names)), ~made_here())
    units = bought(brought, coverage).select("unit", source_at="bought_at")
    spans = coverage.drop_nulls("instrument_id").join(units, on="unit")
    return spans.select("instrument_id", "start", "end", "source_at")


def _of_slips(known: Sequence[Slip], brought: pl.DataFrame) -> pl.DataFrame:
    """What the vendor said of days when the bytes of units were ordered (:data:`hdi.buying.restating.TOLD`)."""
    frames = [pl.DataFrame(schema=TOLD)]
    for (at,), days in brought.group_by("at"):
        said = heard("", known[int(str(at))].conditions, 0)
        was = said.select("day", was="condition", was_modified="last_modified")
        frames.append(days.join(was, on="day").select(*TOLD))
    return pl.concat(frames)


def _midnight(day: str | None) -> int | None:
    return date_ns(dt.date.fromisoformat(day)) if day else None


__all__ = ["Book", "bought", "marked", "sources_of", "told"]

"""Symbols and instruments by date: which symbol type a notation is, and which rows are whose.

An instrument_id means something only within a dataset and a day, so every lookup here takes an instant.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from hdi.model import Stype

Array = np.ndarray[Any, np.dtype[Any]]

ALL_SYMBOLS = "ALL_SYMBOLS"
_CONTINUOUS = re.compile(r"[A-Za-z0-9]+\.[cnvCNV]\.\d+")
_PARENT = re.compile(r"\S+\.(FUT|OPT|SPOT)", re.IGNORECASE)


def infer_stype(symbol: str) -> Stype:
    """The symbol type that a notation stands for.

    ``ROOT.c.N``, ``.n.`` and ``.v.`` are continuous; ``ROOT.FUT``, ``.OPT`` and ``.SPOT`` parent;
    digits only instrument_id; everything else raw_symbol.
    """
    if _CONTINUOUS.fullmatch(symbol):
        return "continuous"
    if _PARENT.fullmatch(symbol):
        return "parent"
    return "instrument_id" if symbol.isdigit() else "raw_symbol"


def canonical(symbol: str) -> str:
    """The symbol as it is stored: roots upper case, the roll rule of a continuous symbol lower case."""
    symbol = symbol.strip()
    if _CONTINUOUS.fullmatch(symbol):
        root, rule, rank = symbol.split(".")
        return f"{root.upper()}.{rule.lower()}.{int(rank)}"
    return symbol.upper()


class Intervals:
    """Disjoint intervals per instrument, looked up for whole columns at once.

    Made from a frame with instrument_id, start, end (nanoseconds, half-open). Where two rows claim the
    same instant of an instrument the later row of the frame wins.
    """

    def __init__(self, frame: pl.DataFrame) -> None:
        flat = disjoint(frame.select("instrument_id", "start", "end"))
        self._ids = np.unique(flat["instrument_id"].to_numpy())
        self._starts = flat["start"].to_numpy()
        self._ends = flat["end"].to_numpy()
        self._source = flat["row"].to_numpy()
        codes = np.searchsorted(self._ids, flat["instrument_id"].to_numpy())
        # One sorted key per interval (instrument, rank of its start) makes a lookup two binary searches.
        self._ranks = np.unique(self._starts)
        self._span = len(self._ranks) + 1
        self._keys = codes * self._span + np.searchsorted(self._ranks, self._starts)
        self._single = len(self._ids) == len(self._starts)

    def find(self, instruments: Array, instants: Array) -> Array:
        """For each row the number of the frame's row that holds it, or -1. Both inputs are int64."""
        if not len(self._ids) or not len(instruments):
            return np.full(len(instruments), -1, dtype=np.int64)
        codes = np.searchsorted(self._ids, instruments)
        codes[codes == len(self._ids)] = 0
        known = self._ids[codes] == instruments
        if self._single:
            at = codes
        else:
            ranks = np.searchsorted(self._ranks, instants, side="right") - 1
            at = np.searchsorted(self._keys, codes * self._span + ranks, side="right") - 1
            np.maximum(at, 0, out=at)
            known &= self._keys[at] // self._span == codes
        known &= (instants >= self._starts[at]) & (instants < self._ends[at])
        found: Array = np.where(known, self._source[at], -1)
        return found


def disjoint(frame: pl.DataFrame) -> pl.DataFrame:
    """The intervals cut where they overlap, sorted by instrument and start, with ``row`` of the source."""
    rows = frame.with_row_index("row").with_columns(pl.col("row").cast(pl.Int64)).sort("instrument_id", "start")
    overlapping = rows.select(
        (pl.col("start") < pl.col("end").shift(1).over("instrument_id")).any()
    ).item()
    if not overlapping:
        return rows
    cuts = (
        pl.concat([rows.select("instrument_id", at=c) for c in ("start", "end")])
        .unique()
        .sort("instrument_id", "at")
        .with_columns(until=pl.col("at").shift(-1).over("instrument_id"))
        .drop_nulls("until")
    )
    return (
        cuts.join(rows, on="instrument_id")
        .filter((pl.col("start") <= pl.col("at")) & (pl.col("until") <= pl.col("end")))
        .group_by("instrument_id", "at", "until")
        .agg(pl.col("row").max())
        .select("instrument_id", pl.col("at").alias("start"), pl.col("until").alias("end"), "row")
        .sort("instrument_id", "start")
    )


def merge(frame: pl.DataFrame) -> pl.DataFrame:
    """The union of intervals (instrument_id, start, end): touching and overlapping ones joined."""
    return (
        frame.select("instrument_id", "start", "end")
        .sort("instrument_id", "start", "end")
        .with_columns(reach=pl.col("end").cum_max().shift(1).over("instrument_id"))
        .with_columns(
            run=(pl.col("reach").is_null() | (pl.col("start") > pl.col("reach"))).cum_sum().over("instrument_id")
        )
        .group_by("instrument_id", "run")
        .agg(pl.col("start").min(), pl.col("end").max())
        .drop("run")
        .sort("instrument_id", "start")
    )

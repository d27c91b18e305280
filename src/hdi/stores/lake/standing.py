"""What symbols stand for, as intervals that neither overlap nor contradict: what the views of SQL join.

The rule is that of :mod:`hdi.lookup`, for all symbols at once.
"""

from __future__ import annotations

from collections.abc import Collection

import polars as pl

from hdi.frames import MAPPINGS
from hdi.model import Window, subtract
from hdi.symbology import ALL_SYMBOLS, disjoint, merge

_KEY = ("dataset", "symbol", "instrument_id")
_SPAN = ("start", "end")
#: Of two mappings that name the same instrument (for a continuous symbol: two instruments), the later row counts.
_BY = {"raw_symbol": ("instrument_id",), "continuous": ("symbol",)}


def raw_names(mappings: pl.DataFrame) -> pl.DataFrame:
    """The raw symbol of each instrument at each time (:data:`MAPPINGS`), as the later rows have it."""
    return _latest(mappings, "raw_symbol")


def standing(
    mappings: pl.DataFrame, coverage: pl.DataFrame, symbols: Collection[str] | None = None
) -> pl.DataFrame:  # fmt: skip
    """What each symbol stands for (:data:`MAPPINGS`). A symbol of several types is one symbol: its rows come once.

    With ``symbols`` it is what these stand for, found without looking at what has nothing to do with them.
    """
    if symbols is not None:
        mine = pl.col("symbol").is_in(list(symbols))
        coverage = coverage.filter(mine)
        # Another name of the same instrument that came later ends one of these.
        ids = mappings.filter(mine)["instrument_id"].unique().implode()
        mappings = mappings.filter(mine | (pl.col("stype") == "raw_symbol") & pl.col("instrument_id").is_in(ids))
        return standing(mappings, coverage).filter(mine)
    parts = [_latest(mappings, stype) for stype in _BY]
    parts += [mappings.filter(~pl.col("stype").is_in(list(_BY))), _claims(mappings, coverage)]
    every = pl.concat(p.select(*MAPPINGS) for p in parts).filter(pl.col("start") < pl.col("end"))
    if every.is_empty():
        return every
    codes = _coded(every, _KEY)
    joined = merge(codes.select(pl.col("code").alias("instrument_id"), *_SPAN)).rename({"instrument_id": "code"})
    told = codes.group_by("code").agg(pl.col(*_KEY).first(), pl.col("stype").max())
    return joined.join(told, on="code").select(pl.col(c).cast(t) for c, t in MAPPINGS.items()).sort(*_KEY, "start")


def without(spans: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """The spans without the stretch (first, until) of the same dataset, symbol and instrument, where there is one."""
    both = spans.join(known, on=_KEY, how="left")
    left = both.with_columns(end=pl.min_horizontal("end", "first"))
    right = both.drop_nulls("first").with_columns(start=pl.max_horizontal("start", "until"))
    return pl.concat([left, right]).filter(pl.col("start") < pl.col("end")).select(spans.columns)


def _coded(rows: pl.DataFrame, by: tuple[str, ...]) -> pl.DataFrame:
    """The rows with a number for each key."""
    return rows.with_columns(code=pl.struct(by).rank("dense").cast(pl.Int64))


def _latest(mappings: pl.DataFrame, stype: str) -> pl.DataFrame:
    """The mappings of a type, cut where a later one of the same key has another value."""
    rows = mappings.filter(pl.col("stype") == stype).select(*MAPPINGS)
    if rows.is_empty():
        return rows
    codes = _coded(rows, ("dataset", *_BY[stype]))
    flat = disjoint(codes.select(pl.col("code").alias("instrument_id"), *_SPAN))
    kept = rows.select(pl.exclude(_SPAN))[flat["row"].to_list()]
    return pl.concat([kept, flat.select(*_SPAN)], how="horizontal").select(*MAPPINGS)


def _claims(mappings: pl.DataFrame, coverage: pl.DataFrame) -> pl.DataFrame:
    """What came when a symbol was asked for, at the times for which no mapping says what it stood for."""
    mine = pl.col("instrument_id").is_not_null() & (pl.col("stype") != "instrument_id")
    claims = coverage.filter(mine, ~pl.col("symbol").is_in(["", ALL_SYMBOLS])).select(*MAPPINGS).unique()
    known = mappings.select("dataset", "symbol").unique()
    loose = claims.join(known, on=["dataset", "symbol"], how="anti")
    tied = claims.join(known, on=["dataset", "symbol"], how="semi")
    if tied.is_empty():
        return loose
    held = mappings.join(tied.select("dataset", "symbol").unique(), on=["dataset", "symbol"], how="semi")
    pieces = [loose]
    parts = held.partition_by("dataset", "symbol", as_dict=True)
    # One symbol at a time: those that were asked for, of which there are few.
    for key, part in tied.partition_by("dataset", "symbol", as_dict=True).items():
        code = merge(parts[key].select(pl.lit(0, pl.Int64).alias("instrument_id"), *_SPAN)).select(*_SPAN).rows()
        left = [
            (*row[:4], window.start, window.end)
            for row in part.rows()
            for window in subtract(Window(row[4], row[5]), code)
        ]
        pieces.append(pl.DataFrame(left, schema=MAPPINGS, orient="row"))
    return pl.concat(pieces)


__all__ = ["raw_names", "standing", "without"]

"""What an instrument is, and from when until when: definitions without their repeats, in the same way in every store.

A definition comes again each day. Those of one dataset, publisher and instrument that follow one another with the same
content are one row: from the index time of the first until that of the next one that differs. Where the next one is of
another raw symbol (the id was given anew), and after the last one, it holds as long as something says so: until just
after its last message, or until the end of the symbology that named the instrument so then, whichever is later.
"""

from __future__ import annotations

import polars as pl

from hdi.frames import MAPPINGS
from hdi.schema import Schema
from hdi.symbology import disjoint

#: The schema name whose rows say what an instrument is.
DEFINITION = "definition"
#: What tells instruments apart within a dataset.
KEY = ("publisher_id", "instrument_id")
#: A definition comes once for each leg: its leg columns are content, and no columns of the instrument.
LEG = "leg_"
#: What a definition says of itself or of its message, and not of the instrument.
_PASSING = {"symbol", "ts_event", "data_source", "security_update_action"}
_TIME = pl.Datetime("ns", "UTC")


def content(schema: Schema) -> list[str]:
    """The public columns by which two definitions of an instrument differ."""
    return [c for c in schema.dtypes if c not in {*_PASSING, "dataset", schema.index_time, *KEY}]


def shown(schema: Schema) -> list[str]:
    """The public columns that an instrument has: what a table display shows first, the rest as the table has it."""
    own = [c for c in (*content(schema), "security_update_action") if not c.startswith(LEG) and c in schema.dtypes]
    first = [c for c in schema.display if c in own]
    rest = [c for c in schema.dtypes if c in own and c not in first]
    return [c for c in (*first, *rest) if c != "raw_symbol"]


def columns(schema: Schema) -> dict[str, pl.DataType]:
    """Columns and types of :meth:`hdi.stores.Store.instruments`. ``definitions`` counts messages, not legs."""
    kinds = schema.dtypes
    head = {"dataset": kinds["dataset"], **{c: kinds[c] for c in KEY}, "raw_symbol": kinds["raw_symbol"]}
    times = {"known_from": _TIME, "known_until": _TIME, "definitions": pl.Int64()}
    return {**head, **times, **{c: kinds[c] for c in shown(schema)}}


def known_by(learned: pl.DataFrame, as_of: int | None) -> pl.DataFrame:
    """The mappings (:data:`hdi.frames.MAPPINGS`) that were known at an instant; None is now.

    Of :data:`hdi.frames.LEARNED` in their order; what does not say when it was learned counts as known.
    """
    if as_of is not None:
        learned = learned.filter((pl.col("learned") <= as_of).fill_null(value=True))
    return learned.select(*MAPPINGS)


def named(mappings: pl.DataFrame, dataset: str) -> pl.DataFrame:
    """When an instrument had which raw symbol: instrument_id, raw_symbol, start, end, by start.

    Of two mappings that contradict each other the later row counts; intervals that touch are one.
    """
    mine = mappings.filter(pl.col("dataset") == dataset, pl.col("stype") == "raw_symbol")
    flat = disjoint(mine)
    who = ["instrument_id", "raw_symbol"]
    apart = (pl.col("start") != pl.col("end").shift(1)).fill_null(value=True)
    return (
        flat.with_columns(raw_symbol=mine["symbol"].gather(flat["row"]))
        .sort(*who, "start")
        .with_columns(run=apart.cum_sum().over(who))
        .group_by(*who, "run")
        .agg(pl.col("start").min(), pl.col("end").max())
        .drop("run")
        .sort("start")
    )

"""What tests of the synthetic market share: asking it, and adding its trades up the slow way."""

import datetime as dt

import numpy as np
import polars as pl

from hdi.model import NS, date_ns
from hdi.rehearsal.layouts import LAYOUTS

GLBX, XNAS = "GLBX.MDP3", "XNAS.ITCH"
#: Those of futures that are small, or are cut from few instruments; books are beside them.
SCHEMAS = "definition", "ohlcv-1s", "ohlcv-1m", "ohlcv-1h", "ohlcv-1d", "tbbo", "trades", "statistics"
WIDTHS = {"ohlcv-1s": NS, "ohlcv-1m": 60 * NS, "ohlcv-1h": 3_600 * NS, "ohlcv-1d": 86_400 * NS}
FRONTS = ("CL.c.0", "ES.c.0", "NG.c.0", "HO.c.0", "RB.c.0")
UNDEF = 2**63 - 1
DAY = dt.timedelta(days=1)


def day(text):
    return dt.date.fromisoformat(text)


def at(text):
    """An instant in nanoseconds."""
    stamp = dt.datetime.fromisoformat(text)
    return round(stamp.replace(tzinfo=stamp.tzinfo or dt.UTC).timestamp()) * NS


def select(market, symbols, start, end, stype="continuous", dataset=GLBX):
    """The rectangles that some symbols stand for on the days [start, end)."""
    found = market.resolve(dataset, list(symbols), stype, "instrument_id", day(start), day(end))
    return [(i, date_ns(a), date_ns(b)) for each in found.asked.values() for i, a, b in each]


def gather(market, schema, selection, start, end, dataset=GLBX):
    """All records of a window, as one array."""
    batches = list(market.records(dataset, schema, selection, start, end))
    return np.concatenate(batches) if batches else np.zeros(0, LAYOUTS[schema][0])


def ask(market, schema, symbols, start, end, stype="continuous", *, dataset=GLBX):
    """All records of some symbols on the days [start, end)."""
    selection = select(market, symbols, start, end, stype, dataset)
    return gather(market, schema, selection, date_ns(day(start)), date_ns(day(end)), dataset)


def frame(records):
    """The records as a frame, times and sizes as signed numbers."""
    columns = {}
    for name in records.dtype.names:
        values = np.ascontiguousarray(records[name])
        if values.dtype.kind == "S":
            columns[name] = pl.Series(values.astype(str).tolist(), dtype=pl.String)
        else:
            columns[name] = pl.Series(values.astype(np.int64))
    return pl.DataFrame(columns)


def bars(trades, width, by):
    """The bars that trades add up to, by instrument and start."""
    return (
        frame(trades)
        .with_columns(start=pl.col(by) // width * width)
        .group_by("start", "instrument_id", maintain_order=True)
        .agg(
            open=pl.col("price").first(), high=pl.col("price").max(), low=pl.col("price").min(),
            close=pl.col("price").last(), volume=pl.col("size").sum(),
        )
        .rename({"start": "ts_event"})
        .sort("ts_event", "instrument_id")
    )  # fmt: skip


def as_bars(records):
    names = "ts_event", "instrument_id", "open", "high", "low", "close", "volume"
    return frame(records).select(names).sort("ts_event", "instrument_id")

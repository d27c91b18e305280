"""Which bars can be made of finer ones or of trades, and which of them are certain. Pure."""

from __future__ import annotations

import polars as pl

from hdi.buying.ordering import Held, Request, cut
from hdi.model import DAY_NS, Window, subtract
from hdi.resample import spoiled
from hdi.schema import Schemas
from hdi.symbology import merge

TRADES = "trades"
SPAN = {"instrument_id": pl.Int64(), "start": pl.Int64(), "end": pl.Int64()}
#: Each hole in a stretch is an order of its own: of a day with more holes than this, all is bought.
_HOLES = 4


def finer(schemas: Schemas, name: str) -> tuple[str, ...]:
    """What bars of a name can be made from, the coarsest first; none for what is no bar."""
    kind, bars = schemas.find(name)
    widths = {
        n.name: n.width for n in kind.names.values()
        if n.made_from is None and 0 < n.width < bars.width and bars.width % n.width == 0
    }  # fmt: skip
    trades = [TRADES] if bars.width and TRADES in schemas.stored_names else []
    return (*sorted(widths, key=lambda n: -widths[n]), *trades)


def lacking(request: Request, resolved: pl.DataFrame, held: Held) -> pl.DataFrame:
    """What nothing brought of the instruments that a request stands for (instrument_id, start, end)."""
    rows = [
        (instrument, left.start, left.end)
        for stype, symbols in request.symbols.items()
        for symbol in symbols
        for window in held.lacks(stype, symbol, request.window)
        for instrument, start, end in cut(
            resolved.filter(pl.col("stype") == stype, pl.col("asked") == symbol), window
        ).select(*SPAN).iter_rows()
        for left in held.instrument_lacks(instrument, Window(start, end))
    ]  # fmt: skip
    return merge(pl.DataFrame(rows, schema=SPAN, orient="row"))


def split(wanted: pl.DataFrame, good: pl.DataFrame, width: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """``(what can be made, what is left)`` of wanted stretches; ``good`` are runs of whole intervals.

    A stretch holds the bars that start in it, so the last of them may reach past its end.
    """
    runs: dict[int, list[tuple[int, int]]] = {}
    for instrument, start, end in good.iter_rows():
        runs.setdefault(instrument, []).append((start, end))
    made, rest = [], []
    for instrument, start, end in wanted.iter_rows():
        first = -(-start // width) * width
        mine = [
            (start if low <= first else low, min(end, high))
            for low, high in runs.get(instrument, ())
            if max(low, first) < min(end, high)
        ]
        made += [(instrument, *span) for span in mine]
        rest += [(instrument, left.start, left.end) for left in subtract(Window(start, end), mine)]
    return pl.DataFrame(made, schema=SPAN, orient="row"), pl.DataFrame(rest, schema=SPAN, orient="row")


def buckets(rejects: pl.DataFrame, source: str, width: int) -> pl.DataFrame:
    """The intervals that hold a quarantined record of a source."""
    everywhere = Window(0, 2**63 - 1)
    return spoiled(rejects, source, everywhere, width).select(
        "instrument_id", start="ts_event", end=pl.col("ts_event") + width
    )


def timeless(rejects: pl.DataFrame, ledger: pl.DataFrame, ids: pl.DataFrame) -> pl.DataFrame:
    """The windows of units that have a quarantined record without a time, or one outside of them.

    One that names no instrument spoils all of ``ids``.
    """
    unsaid = pl.col("index_time").is_null() | pl.col("rules").list.contains("OUTSIDE_WINDOW")
    rows = rejects.filter(~pl.col("failed"), unsaid).select("unit", "instrument_id").unique()
    spans = rows.join(ledger.select("unit", "start", "end").unique("unit", keep="last"), on="unit")
    anybody = spans.filter(pl.col("instrument_id").is_null()).drop("instrument_id").join(ids, how="cross")
    return pl.concat([spans.drop_nulls("instrument_id").select(*SPAN), anybody.select(*SPAN)])


def holed(whole: pl.DataFrame, bad: pl.DataFrame, width: int) -> pl.DataFrame:
    """The runs of whole intervals without those that a bad stretch touches; many of them in a day take the day."""
    if bad.is_empty():
        return whole
    per = max(width, DAY_NS)
    grown = bad.with_columns(start=pl.col("start") // width * width, end=-(-pl.col("end") // width) * width).unique()
    day = pl.col("start") // per * per
    many = pl.len().over("instrument_id", day) > _HOLES
    grown = grown.with_columns(
        start=pl.when(many).then(day).otherwise("start"),
        end=pl.when(many).then(pl.max_horizontal("end", day + per)).otherwise("end"),
    )
    holes: dict[int, list[tuple[int, int]]] = {}
    for instrument, start, end in merge(grown).iter_rows():
        holes.setdefault(instrument, []).append((start, end))
    rows = [
        (instrument, left.start, left.end)
        for instrument, start, end in whole.iter_rows()
        for left in subtract(Window(start, end), holes.get(instrument, ()))
    ]
    return pl.DataFrame(rows, schema=SPAN, orient="row")


__all__ = ["SPAN", "TRADES", "buckets", "finer", "holed", "lacking", "split", "timeless"]

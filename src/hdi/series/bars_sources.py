"""What bars are made of: the coarsest stored bars that give them exactly for the whole window, or trades."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from hdi.errors import RequestError
from hdi.frames import BROUGHT
from hdi.lookup import RECTANGLES
from hdi.model import DAY_NS, Window
from hdi.resample import covered
from hdi.schema import SchemaName, Schemas
from hdi.series.bars_asked import Every
from hdi.symbology import merge

TRADES = "trades"
BARS = "ohlcv-1m"


@dataclass(frozen=True)
class Source:
    """A stored schema that bars can be made of; ``same`` where its rows are the bars themselves."""

    name: SchemaName
    same: bool = False


def possible(schemas: Schemas, every: Every) -> list[Source]:
    """What bars can be made of, the one that takes the least reading first."""
    kind, _ = schemas.find(BARS)
    _, trades = schemas.find(TRADES)
    found = []
    if every.kind == "time":
        fits = [
            n for n in kind.names.values()
            if n.made_from is None and n.width and every.width % n.width == 0 and every.origin % n.width == 0
            and not (every.align == "session" and n.width >= DAY_NS)
        ]  # fmt: skip
        found = [
            Source(n, same=n.width == every.width and every.align == "utc")
            for n in sorted(fits, key=lambda n: -n.width)
        ]
    return [*found, Source(trades)]


def named(schemas: Schemas, every: Every, text: str) -> Source:
    """The source that somebody names. RequestError where such bars cannot be made of it, with what they can."""
    _, name = schemas.find(text)
    choice = possible(schemas, every)
    for source in choice:
        if source.name.name == name.name:
            return source
    known = ", ".join(s.name.name for s in choice)
    why = f"{every.text} bars cannot be made of {name.name}"
    if name.made_from:
        why += f", which is not stored but made of {name.made_from}"
    elif every.kind != "time":
        why += ", which does not say when each trade was"
    elif name.width > every.width:
        why += ", which is coarser"
    raise RequestError(why, f"Possible: {known}.")


def claims(coverage: pl.DataFrame, mappings: pl.DataFrame, source: str, dataset: str | None) -> pl.DataFrame:
    """What is stored whole of a schema: dataset, instrument_id (null: every instrument), start, end."""
    held = covered(coverage, mappings, source)
    return held if dataset is None else held.filter(pl.col("dataset") == dataset)


def share(wanted: pl.DataFrame, held: pl.DataFrame) -> int:
    """How many nanoseconds of the wanted rectangles are held."""
    each = wanted.select("dataset", "instrument_id").unique()
    every = held.filter(pl.col("instrument_id").is_null()).drop("instrument_id").join(each, on="dataset")
    both = pl.concat([held.drop_nulls("instrument_id").select(*RECTANGLES), every.select(*RECTANGLES)])
    both = both.join(each, on=["dataset", "instrument_id"], how="semi")
    if both.is_empty():
        return 0
    parts = [merge(p).with_columns(dataset=pl.lit(d)) for (d,), p in both.group_by("dataset")]
    met = wanted.join(pl.concat(parts), on=["dataset", "instrument_id"], suffix="_held")
    low, high = pl.max_horizontal("start", "start_held"), pl.min_horizontal("end", "end_held")
    return int(met.select((high - low).clip(lower_bound=0).cast(pl.Int128).sum()).item() or 0)


def size(wanted: pl.DataFrame) -> int:
    """How many nanoseconds the rectangles have together."""
    return int(wanted.select((pl.col("end") - pl.col("start")).cast(pl.Int128).sum()).item() or 0)


def best(
    choice: Sequence[Source], wanted: pl.DataFrame, held: Sequence[pl.DataFrame], ledger: pl.DataFrame
) -> tuple[Source, bool]:
    """The first source that holds all that is wanted, and True; or the one that holds the most of it.

    Where nothing is known to be whole: the first of which anything was stored.
    """
    total = size(wanted)
    shares = [share(wanted, each) for each in held]
    for source, part in zip(choice, shares, strict=True):
        if part and part == total:
            return source, True
    if any(shares):
        return choice[shares.index(max(shares))], False
    stored = set(ledger.filter(pl.col("status").is_in(BROUGHT), pl.col("stored") > 0)["schema"].unique())
    return next((s for s in choice if s.name.name in stored), choice[-1]), False


def span(ledger: pl.DataFrame, choice: Sequence[Source], dataset: str | None) -> Window | None:
    """From the first to the last thing stored of any of the sources."""
    names = [s.name.name for s in choice]
    here = pl.col("schema").is_in(names) & pl.col("status").is_in(BROUGHT)
    rows = ledger.filter(here, pl.lit(dataset is None) | (pl.col("dataset") == (dataset or "")))
    if rows.is_empty():
        return None
    return Window(int(rows["start"].min()), int(rows["end"].max()))  # type: ignore[arg-type]


__all__ = ["TRADES", "Source", "best", "claims", "named", "possible", "share", "size", "span"]

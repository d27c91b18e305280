"""Days that were not whole when they were bought, by the vendor's own word, and are whole now: they are bought again.

A vendor calls a day pending while it still works on it, and degraded where it lost some of it. What was bought then is
held, and lacks rows: of what a job keeps up to date it is looked for again, for nothing, until it is there.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import groupby
from typing import TYPE_CHECKING

import polars as pl

from hdi.attempt import heard
from hdi.buying.aging import bought, told
from hdi.buying.ordering import Request
from hdi.buying.restating import made_here, standing, together
from hdi.keeping.revising import Changed, Due
from hdi.model import DAY_NS, Condition, Window, ns_date
from hdi.schema import Schemas
from hdi.sources import Source
from hdi.stores import Store
from hdi.symbology import ALL_SYMBOLS

if TYPE_CHECKING:
    from hdi.buying.buying import Buying

#: What is still worked on, and what is not whole; the vendor's word goes up from the first to the last.
PENDING, DEGRADED = "pending", "degraded"
_UP = (PENDING, DEGRADED, "available")
_MARKS = {"instrument_id": pl.Int64(), "day": pl.Int64(), "was": pl.String()}
#: What a symbol of a request lacks: stretches of days, and what the vendor said of the day and says now.
_LACKS = {
    "stype": pl.String(), "symbol": pl.String(), "start": pl.Int64(), "end": pl.Int64(), "day": pl.Int64(),
    "was": pl.String(), "condition": pl.String(),
}  # fmt: skip


def not_whole(store: Store, request: Request) -> tuple[Condition, ...]:
    """The days of what is held of a request that were pending or degraded when they were bought, in their order."""
    rows = _symbols(_marks(store, request), store.mappings(), request).select("day", "was").unique().sort("day", "was")
    return tuple(Condition(ns_date(day), was, None) for day, was in rows.iter_rows())


def pending(days: Iterable[Condition]) -> dt.date | None:
    """The first day that is pending."""
    return min((each.day for each in days if each.condition == PENDING), default=None)


def settle(
    store: Store, schemas: Schemas, source: Source, requests: Sequence[Request], order: Callable[..., Buying],
    budget: Decimal | None = None,
) -> Due:  # fmt: skip
    """Ask the vendor about the days of requests that were not whole: those that are better now are to be bought again.

    ``order`` makes a request that is bought though it is held. Nothing is billed. Raises as the source does.
    """
    mappings = store.mappings()
    changed: list[Changed] = []
    said = [heard("", (), 0)]
    for dataset, some in groupby(sorted(requests, key=lambda r: r.dataset), key=lambda r: r.dataset):
        found = [(request, _symbols(_marks(store, request), mappings, request)) for request in some]
        days = pl.concat([rows["day"] for _, rows in found]).unique().sort()
        if days.is_empty():
            continue
        asked = time.time_ns()
        window = Window(int(days[0]), int(days[-1]) + DAY_NS)
        now = heard(dataset, tuple(source.conditions(dataset, window)), asked)
        said.append(now)
        changed += _better(dataset, found, now)
    datasets = frozenset(request.dataset for request in requests)
    return Due(tuple(changed), (), (), pl.concat(said), store, schemas, order, budget, datasets)


def _marks(store: Store, request: Request) -> pl.DataFrame:
    """Instruments and days of a request's kind of data that were not whole when bought (:data:`_MARKS`).

    Of each the newest unit counts. Bars that were made here are made again of what is bought again.
    """
    ledger = store.ledger().filter(
        pl.col("dataset") == request.dataset, pl.col("schema") == request.name.name, pl.col("status") == "complete"
    )
    words = pl.col("conditions").str.contains_any([PENDING, DEGRADED])
    odd = told(ledger.filter(words, ~(made_here() & (pl.col("fetched") > 0)))).filter(
        pl.col("was").is_in([PENDING, DEGRADED]), pl.col("day") < request.window.end,
        pl.col("day") + DAY_NS > request.window.start,
    )  # fmt: skip
    if odd.is_empty():
        return pl.DataFrame(schema=_MARKS)
    here = (pl.col("dataset") == request.dataset) & (pl.col("schema") == request.name.name)
    coverage = store.coverage().filter(here)
    pieces = standing(coverage, bought(ledger, coverage), odd.select("day").unique().sort("day"))
    found = [part.join(odd, on=["unit", "day"]).select(*_MARKS) for part in pieces]
    return pl.concat([pl.DataFrame(schema=_MARKS), *found]).unique()


def _symbols(marks: pl.DataFrame, mappings: pl.DataFrame, request: Request) -> pl.DataFrame:
    """The symbols of a request whose instruments are marked, with the day: stype, symbol, and :data:`_MARKS`."""
    frames = [pl.DataFrame(schema={"stype": pl.String(), "symbol": pl.String(), **_MARKS})]
    for stype, symbols in request.symbols.items():
        if marks.is_empty():
            break
        if symbols == (ALL_SYMBOLS,):
            named = marks.with_columns(stype=pl.lit(stype), symbol=pl.lit(ALL_SYMBOLS))
        elif stype == "instrument_id":
            named = marks.with_columns(stype=pl.lit(stype), symbol=pl.col("instrument_id").cast(pl.String))
            named = named.filter(pl.col("symbol").is_in(symbols))
        else:
            own = mappings.filter(
                pl.col("dataset") == request.dataset, pl.col("stype") == stype, pl.col("symbol").is_in(symbols)
            ).drop("dataset")
            named = marks.join(own, on="instrument_id").filter(
                pl.col("start") < pl.col("day") + DAY_NS, pl.col("end") > pl.col("day")
            )
        frames.append(named.select(frames[0].columns).unique())
    return pl.concat(frames)


def _better(
    dataset: str, found: Sequence[tuple[Request, pl.DataFrame]], now: pl.DataFrame
) -> Iterator[Changed]:  # fmt: skip
    """What is to be bought again; an instrument's day that several jobs have is bought for the first of them."""
    taken = pl.DataFrame(schema={"schema": pl.String(), "instrument_id": pl.Int64(), "day": pl.Int64()})
    for request, rows in found:
        schema = request.name.name
        rank = {name: pl.col(name).replace_strict(list(_UP), range(3), default=-1) for name in ("condition", "was")}
        mine = rows.with_columns(schema=pl.lit(schema)).join(taken, on=["schema", "instrument_id", "day"], how="anti")
        mine = mine.join(now.select("day", "condition"), on="day").filter(rank["condition"] > rank["was"])
        taken = pl.concat([taken, mine.select(taken.columns)])
        spans = mine.with_columns(
            start=pl.max_horizontal("day", pl.lit(request.window.start)),
            end=pl.min_horizontal(pl.col("day") + DAY_NS, pl.lit(request.window.end)),
        ).select(*_LACKS)
        yield from _stretches(dataset, schema, spans.unique().sort("stype", "symbol", "start"))


def _stretches(dataset: str, schema: str, lacks: pl.DataFrame) -> Iterator[Changed]:
    """Symbols that lack the same days together."""
    for (stype,), mine in lacks.group_by("stype", maintain_order=True):
        names = list(mine["symbol"].unique().sort())
        spans = mine.select("symbol", "start", "end").unique().sort("symbol", "start")
        codes = [(names.index(symbol), start, end) for symbol, start, end in spans.iter_rows()]
        for window, active in together(codes):
            days = mine.filter(pl.col("start") < window.end, pl.col("end") > window.start)
            why = days.select("day", "was", "condition").unique().sort("day", "was")
            yield Changed(
                dataset, schema, str(stype), tuple(names[code] for code in sorted(active)), window,
                tuple(f"{ns_date(d)} is {c}, was {w} when it was bought" for d, w, c in why.iter_rows()),
            )  # fmt: skip


__all__ = ["DEGRADED", "PENDING", "not_whole", "pending", "settle"]

"""Days that the vendor changed after they were bought: found by what it says of them, and bought again, no more.

A vendor says of each day when it last changed its data. What was in force when something was bought is the latest word
that was kept before; where the vendor's word of today is newer, the day is due, for everything that is held of it.
The newest commit counts: what was bought again is not due any more, and what could not be bought stays due.
"""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from hdi.errors import RequestError
from hdi.frames import CONDITIONS, COVERAGE, REJECTS
from hdi.model import DAY_NS, MAX_NS, Condition, Outcome, Quote, Unit, Window, date_ns, dollars_text, iso_ns, ns_date
from hdi.paid import Slip, slips
from hdi.restating import BOUGHT, FOUND, TOLD, WANTED, judged, odd, standing, together, wanted
from hdi.schema import Schemas
from hdi.sources import Source
from hdi.stores import Store, Work
from hdi.symbology import ALL_SYMBOLS, merge

if TYPE_CHECKING:
    from hdi.buying import Buying
    from hdi.offer import Offer

_SAID = {c: CONDITIONS[c] for c in ("dataset", "day", "condition", "last_modified")}
#: Days of a stretch that are told of.
_SHOWN = 5


@dataclass(frozen=True)
class Changed:
    """Symbols and a stretch of whole or partial days that the vendor changed since they were bought.

    ``why`` are sentences about its days, the first few.
    """

    dataset: str
    schema: str
    stype: str
    symbols: tuple[str, ...]
    window: Window
    why: tuple[str, ...] = ()

    @property
    def days(self) -> int:
        """How many UTC days it touches."""
        return self.window.days


@dataclass(frozen=True)
class Unmeasured:
    """Days of which nothing says what the vendor said when they were bought: a later change will be seen."""

    dataset: str
    schema: str
    days: int
    first: dt.date
    last: dt.date


@dataclass(frozen=True)
class DueOffer:
    """What it costs to buy again what has changed; ``offers`` belong to ``orders``; ``refused`` cannot be ordered."""

    orders: tuple[Buying, ...]
    offers: tuple[Offer, ...]
    refused: tuple[Outcome, ...] = ()

    @property
    def quote(self) -> Quote:
        """Records, bytes and dollars of all of it."""
        return sum((o.quote for o in self.offers), Quote(0, 0, Decimal(0)))

    @property
    def units(self) -> int:
        """How many units would be committed."""
        return sum(o.units for o in self.offers)

    def __bool__(self) -> bool:
        return bool(self.units or self.refused)


@dataclass(frozen=True)
class Due:
    """What a poll has found. ``waiting`` has changed too, but the vendor calls it pending or missing: not for sale yet.

    ``heard`` is all that the vendor said (:data:`hdi.frames.CONDITIONS`).
    """

    changed: tuple[Changed, ...]
    waiting: tuple[Changed, ...]
    unmeasured: tuple[Unmeasured, ...]
    heard: pl.DataFrame = field(repr=False)
    _store: Store = field(repr=False)
    _schemas: Schemas = field(repr=False)
    _order: Callable[..., Buying] = field(repr=False)
    _budget: Decimal | None = None

    def offer(self, job: str | None = None) -> DueOffer:
        """The price of buying again what has changed; nothing is billed. Raises as :meth:`hdi.buying.Buying.offer`.

        What the vendor knows no more is refused alone: the rest can be bought.
        """
        orders, offers, refused = [], [], []
        for c in self.changed:
            try:
                order = self._order(
                    dataset=c.dataset, schema=c.schema, symbols=c.symbols, stype=c.stype,
                    start=iso_ns(c.window.start), end=iso_ns(c.window.end), job=job,
                )  # fmt: skip
                offers.append(order.offer())
                orders.append(order)
            except RequestError as error:
                refused.append(Outcome("", "failed", c.dataset, c.schema, c.symbols, c.window, error=error))
        return DueOffer(tuple(orders), tuple(offers), tuple(refused))

    def buy(self, offer: DueOffer) -> Iterator[Outcome]:
        """Buy it; an outcome for each download. What fails stays due.

        Raises RequestError, before anything is billed, for what is over the budget.
        """
        if self._budget is not None and offer.quote.dollars > self._budget:
            raise RequestError(
                f"the changed days cost {dollars_text(offer.quote.dollars)}, and the budget is "
                f"{dollars_text(self._budget)}",
                "Ask for less, or raise --budget. Nothing was bought.",
            )
        self.remember()
        for order, each in zip(offer.orders, offer.offers, strict=True):
            yield from order.run(each)[1]
        yield from offer.refused

    def remember(self) -> None:
        """Keep what the vendor said, as far as it is news: from now on the days are known."""
        for (dataset,), heard in self.heard.group_by("dataset"):
            news = _news(heard, self._store.conditions())
            held = self._store.ledger().filter(pl.col("dataset") == dataset, pl.col("status") == "complete")
            if news.is_empty() or held.is_empty():
                continue
            row = held.row(-1, named=True)
            schema, name = self._schemas.find(row["schema"])
            unit = Unit(
                row["origin"], row["dataset"], row["schema"], row["symbol"], row["stype"],
                Window(row["start"], row["end"]),
            )  # fmt: skip
            work = Work(
                f"poll-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}", row["dataset"], schema, name,
                {row["unit"]: unit}, pl.DataFrame(schema=COVERAGE), self._store.mappings().clear(), conditions=news,
            )  # fmt: skip
            self._store.record(work, [], pl.DataFrame(schema=REJECTS))


def _news(heard: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    latest = known.sort("seen_at", maintain_order=True).unique(["dataset", "day"], keep="last")
    return heard.join(latest, on=list(_SAID), how="anti", nulls_equal=True)


def due(  # noqa: PLR0913, PLR0917  (what is held, who is asked, and how is bought)
    store: Store, schemas: Schemas, source: Source, data_dir: Path, only: Collection[tuple[str, str]],
    order: Callable[..., Buying], budget: Decimal | None = None,
) -> Due:  # fmt: skip
    """Ask the vendor what it says of the days that are held, and find those that it changed since they were bought.

    ``only`` are pairs of a dataset and the name of a stored schema; none is everything. ``order`` makes a request
    that is bought though it is held. Nothing is billed. Raises as the source does.
    """
    held = _held(store, source.origin, only)
    heard = [_heard(source, str(dataset), part) for (dataset,), part in held.group_by("dataset", maintain_order=True)]
    now = pl.concat([pl.DataFrame(schema=CONDITIONS), *heard])
    changed: list[Changed] = []
    waiting: list[Changed] = []
    unmeasured: list[Unmeasured] = []
    for (dataset, schema), bought in held.group_by("dataset", "schema", maintain_order=True):
        book = _Book(store, data_dir, str(dataset), str(schema), bought, now.filter(pl.col("dataset") == dataset))
        again, blank, found = book.judged()
        where = str(dataset), str(schema)
        changed += _stretches(*where, again.filter(pl.col("verdict") == "due"), found)
        waiting += _stretches(*where, again.filter(pl.col("verdict") == "waiting"), found)
        unmeasured += _unmeasured(*where, blank)
    return Due(tuple(changed), tuple(waiting), tuple(unmeasured), now, store, schemas, order, budget)


def _held(store: Store, origin: str, only: Collection[tuple[str, str]]) -> pl.DataFrame:
    """The units (:data:`BOUGHT`) whose commits brought something that coverage knows; dated by their commits."""
    units = store.ledger().filter(pl.col("status") == "complete", pl.col("origin") == origin)
    known = store.coverage().drop_nulls("instrument_id").select("unit").unique()
    held = units.join(known, on="unit", how="semi").with_columns(bought_at="committed_at")
    if only:
        pairs = pl.DataFrame([tuple(p) for p in only], schema={"dataset": pl.String, "schema": pl.String}, orient="row")
        held = held.join(pairs, on=["dataset", "schema"], how="semi", maintain_order="left")
    return held.select(pl.col(c).cast(t) for c, t in BOUGHT.items())


def _heard(source: Source, dataset: str, held: pl.DataFrame) -> pl.DataFrame:
    """What the vendor says of the days of what is held."""
    available = source.available(dataset).values()
    first = max(min(w.start for w in available), int(held["start"].min())) if available else 0  # type: ignore[arg-type]
    last = min(max(w.end for w in available), int(held["end"].max())) if available else 0  # type: ignore[arg-type]
    if first >= last:
        return pl.DataFrame(schema=CONDITIONS)
    asked = time.time_ns()
    said = source.conditions(dataset, Window(first, min(last, MAX_NS - DAY_NS)))
    return _frame(dataset, said, asked)


def _frame(dataset: str, said: Iterable[Condition], seen_at: int) -> pl.DataFrame:
    rows = [
        (dataset, date_ns(c.day), c.condition, date_ns(c.last_modified) if c.last_modified else None, seen_at)
        for c in said
    ]
    return pl.DataFrame(rows, schema=CONDITIONS, orient="row")


class _Book:
    """What is held of one dataset and schema, and what was known of its days when it was bought."""

    def __init__(
        self, store: Store, data_dir: Path, dataset: str, schema: str, bought: pl.DataFrame, now: pl.DataFrame
    ) -> None:
        here = pl.col("dataset") == dataset
        self._coverage = store.coverage().filter(here, pl.col("schema") == schema)
        self._ledger = store.ledger().join(bought.select("unit"), on="unit", how="semi")
        self._said = store.conditions().filter(here)
        self._bought = bought
        self._told = _of_ledger(self._ledger)
        self._odd = odd(self._said, self._told, now)
        self._slips = partial(slips, data_dir, self._ledger["origin"][0], dataset, schema)

    def judged(self) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
        """(what would be asked for again (:data:`WANTED`), days that are unmeasured, all that was found of others)."""
        frames, blank = [pl.DataFrame(schema=WANTED)], [pl.DataFrame(schema={"day": pl.Int64()})]
        found = [pl.DataFrame(schema=FOUND)]
        for pieces in standing(self._coverage, self._bought, self._odd):
            verdicts = self._verdicts(pieces.select("unit", "day").unique(maintain_order=True))
            both = pieces.join(verdicts, on=["unit", "day"])
            blank.append(both.filter(pl.col("verdict") == "unmeasured").select("day").unique())
            changed = both.filter(pl.col("verdict").is_in(["due", "waiting"]))
            frames.append(wanted(changed, self._bought))
            found.append(changed.select(*FOUND).unique("day", keep="first", maintain_order=True))
        return pl.concat(frames), pl.concat(blank).unique().sort("day"), pl.concat(found).sort("day")

    def _verdicts(self, days: pl.DataFrame) -> pl.DataFrame:
        """:func:`judged` of units and days; only slips of bytes that are in question are read."""
        units = self._ledger.join(days, on="unit", how="semi").drop_nulls("raw_digest")
        known = {slip.raw.digest: slip for slip in self._slips(set(units["raw_digest"])) if slip.raw}
        brought = units.filter(pl.col("raw_digest").is_in(list(known))).select("unit", "raw_digest")
        dates = {unit: known[digest].bought_at for unit, digest in brought.iter_rows()}
        own = pl.col("unit").replace_strict(dates, default=None, return_dtype=pl.Int64)
        dated = self._bought.select("unit", bought_at=pl.coalesce(own, "bought_at"))
        asked = days.join(dated, on="unit").join(self._odd, on="day")
        return judged(asked, self._said, pl.concat([_of_slips(known, brought.join(days, on="unit")), self._told]))


def _of_slips(known: Mapping[str, Slip], brought: pl.DataFrame) -> pl.DataFrame:
    """What the vendor said of days when the bytes of units were ordered (:data:`TOLD`)."""
    frames = [pl.DataFrame(schema=TOLD)]
    for (digest,), days in brought.group_by("raw_digest"):
        told = _frame("", known[str(digest)].conditions, 0).select("day", was="condition", was_modified="last_modified")
        frames.append(days.join(told, on="day").select(*TOLD))
    return pl.concat(frames)


def _of_ledger(ledger: pl.DataFrame) -> pl.DataFrame:
    """What the receipts of units say of days that were not available (:data:`TOLD`)."""
    rows = [
        (unit, date_ns(dt.date.fromisoformat(day["day"])), day["condition"], _midnight(day["last_modified"]))
        for unit, text in ledger.select("unit", "conditions").drop_nulls().iter_rows()
        for day in json.loads(text)
    ]
    return pl.DataFrame(rows, schema=TOLD, orient="row")


def _midnight(day: str | None) -> int | None:
    return date_ns(dt.date.fromisoformat(day)) if day else None


def _stretches(dataset: str, schema: str, wanted: pl.DataFrame, found: pl.DataFrame) -> Iterator[Changed]:
    """Symbols that lack the same stretch together; stretches that touch are one."""
    for (stype, everything), mine in wanted.group_by(
        "stype", pl.col("symbol") == ALL_SYMBOLS, maintain_order=True
    ):  # fmt: skip
        del everything
        names = mine["symbol"].unique().sort()
        codes = pl.DataFrame(
            {"symbol": names, "instrument_id": range(len(names))}, schema_overrides={"instrument_id": pl.Int64}
        )
        joined = merge(mine.join(codes, on="symbol"))
        for window, active in together(list(joined.iter_rows())):
            symbols = tuple(names[code] for code in sorted(active))
            yield Changed(dataset, schema, str(stype), symbols, window, _why(found, window))


def _why(found: pl.DataFrame, window: Window) -> tuple[str, ...]:
    """What became of the first few days of a window."""
    days = found.filter(pl.col("day") < window.end, pl.col("day") + DAY_NS > window.start).unique("day").sort("day")
    days = days.head(_SHOWN)
    return tuple(_sentence(**row) for row in days.drop("unit", "verdict").iter_rows(named=True))


def _sentence(day: int, was: str | None, was_modified: int | None, condition: str, last_modified: int | None) -> str:
    told = [f"{ns_date(day)} is {condition}"]
    if was is not None and was != condition:
        told.append(f"was {was} when it was bought")
    if last_modified is not None and last_modified != was_modified:
        before = f", {ns_date(was_modified)} when it was bought" if was_modified is not None else ""
        told.append(f"last changed {ns_date(last_modified)}{before}")
    return ", ".join(told)


def _unmeasured(dataset: str, schema: str, days: pl.DataFrame) -> Iterator[Unmeasured]:
    if days.height:
        first, last = ns_date(days["day"][0]), ns_date(days["day"][-1])
        yield Unmeasured(dataset, schema, days.height, first, last)


__all__ = ["Changed", "Due", "DueOffer", "Unmeasured", "due"]

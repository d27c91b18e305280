"""Days that the vendor changed after they were bought: found by what it says of them, and bought again, no more.

A vendor says of each day when it last changed its data. What was in force when something was bought is the latest word
that was kept before; where the vendor's word of today is newer, the day is due, for everything that is held of it.
The newest commit counts: what was bought again is not due any more, and what could not be bought stays due.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from hdi.attempt import heard
from hdi.buying.aging import Book, bought, sources_of
from hdi.buying.bars import finer
from hdi.buying.paid import Slip, counted
from hdi.buying.restating import FOUND, WANTED, made_here, outdated, together, wanted
from hdi.errors import RequestError
from hdi.frames import CONDITIONS, COVERAGE, REJECTS
from hdi.model import DAY_NS, MAX_NS, Outcome, Quote, Unit, Window, dollars_text, iso_ns, ns_date, subtract
from hdi.schema import Schemas
from hdi.sources import Source
from hdi.stores import Store, Work
from hdi.symbology import ALL_SYMBOLS, merge

if TYPE_CHECKING:
    from hdi.buying.buying import Buying
    from hdi.buying.downloads import Progress
    from hdi.buying.offer import Offer

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
class Unsettled:
    """Days that the vendor last changed on the day on which they were bought: before or after, it does not say.

    ``counted``: of all of them it counts as many records now as arrived.
    """

    dataset: str
    schema: str
    symbols: tuple[str, ...]
    days: int
    first: dt.date
    last: dt.date
    counted: bool


@dataclass(frozen=True)
class Fragments:
    """Rows from files that do not say what they are all of: whether the vendor changed them is not measured."""

    dataset: str
    schema: str
    rows: int


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
    _datasets: frozenset[str] = frozenset()
    unsettled: tuple[Unsettled, ...] = ()
    fragments: tuple[Fragments, ...] = ()
    _counted: Callable[[], None] = field(default=lambda: None, repr=False)

    def offer(self, job: str | None = None) -> DueOffer:
        """The price of buying again what has changed; nothing is billed. Raises as ``Buying.offer``.

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

    def buy(self, offer: DueOffer, began: Callable[[Progress], None] = lambda _: None) -> Iterator[Outcome]:
        """Buy it; an outcome for each download. What fails stays due. ``began`` is given the progress of each order.

        Raises RequestError, before anything is billed, for what is over the budget or over what may be spent.
        """
        if self._budget is not None and offer.quote.dollars > self._budget:
            raise RequestError(
                f"the changed days cost {dollars_text(offer.quote.dollars)}, and the budget is "
                f"{dollars_text(self._budget)}",
                "Ask for less, or raise --budget. Nothing was bought.",
            )
        if offer.orders:
            offer.orders[0].refuse_over_limits(offer.quote.dollars)
        self.remember()
        for order, each in zip(offer.orders, offer.offers, strict=True):
            progress, outcomes = order.run(each)
            began(progress)
            yield from outcomes
        yield from offer.refused

    def outdated(self) -> tuple[Changed, ...]:
        """Bars that were made (``--derive``) of rows that were changed by a later commit, as the store is now.

        Making them again costs nothing; those that :meth:`buy` brings are not among them.
        """
        coverage, ledger = self._store.coverage(), self._store.ledger()
        made = ledger.filter(made_here()).select("dataset", "schema").unique().sort("dataset", "schema")
        found: list[Changed] = []
        for dataset, schema in made.iter_rows():
            if schema not in self._schemas.stored_names or (self._datasets and dataset not in self._datasets):
                continue
            _, name = self._schemas.find(schema)
            if not name.width:
                continue
            spans = outdated(coverage, ledger, dataset, name.name, finer(self._schemas, schema), name.width)
            left = [
                (instrument, part.start, part.end)
                for instrument, start, end in spans.iter_rows()
                for part in subtract(Window(start, end), self._bought(dataset, schema, str(instrument)))
            ]
            found += [
                Changed(dataset, schema, "instrument_id", tuple(map(str, sorted(ids))), window)
                for window, ids in together(left)
            ]
        return tuple(found)

    def _bought(self, dataset: str, schema: str, symbol: str) -> list[tuple[int, int]]:
        """The stretches of an instrument that are bought again as such."""
        return [
            (c.window.start, c.window.end)
            for c in self.changed
            if (c.dataset, c.schema, c.stype) == (dataset, schema, "instrument_id") and symbol in c.symbols
        ]

    def remember(self) -> None:
        """Keep what the vendor said, as far as it is news: from now on the days are known."""
        self._counted()
        for (dataset,), said in self.heard.group_by("dataset"):
            news = _news(said, self._store.conditions())
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


def _news(said: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    latest = known.sort("seen_at", maintain_order=True).unique(["dataset", "day"], keep="last")
    return said.join(latest, on=list(_SAID), how="anti", nulls_equal=True)


def due(  # noqa: PLR0913, PLR0917  (what is held, who is asked, and how is bought)
    store: Store, schemas: Schemas, source: Source, data_dir: Path, only: Collection[tuple[str, str]],
    order: Callable[..., Buying], budget: Decimal | None = None,
) -> Due:  # fmt: skip
    """Ask the vendor what it says of the days that are held, and find those that it changed since they were bought.

    ``only`` are pairs of a dataset and the name of a stored schema; none is everything. ``order`` makes a request
    that is bought though it is held. Nothing is billed. Raises as the source does.
    """
    held = _held(store, source.origin, only)
    words = [_heard(source, str(dataset), part) for (dataset,), part in held.group_by("dataset", maintain_order=True)]
    now = pl.concat([pl.DataFrame(schema=CONDITIONS), *words])
    changed: list[Changed] = []
    waiting: list[Changed] = []
    unmeasured: list[Unmeasured] = []
    unsettled: list[Unsettled] = []
    recount = _Recount(source, data_dir)
    coverage, ledger, said = store.coverage(), store.ledger(), store.conditions()
    for (dataset, schema), units in held.group_by("dataset", "schema", maintain_order=True):
        here = pl.col("dataset") == dataset
        book = Book(
            coverage.filter(here, pl.col("schema") == schema), ledger, said.filter(here), data_dir, units,
            now.filter(here), sources_of(coverage, ledger, str(dataset), finer(schemas, str(schema))),
        )  # fmt: skip
        again, blank, found = _judged(book, units, recount)
        where = str(dataset), str(schema)
        changed += _stretches(*where, again.filter(pl.col("verdict") == "due"), found)
        waiting += _stretches(*where, again.filter(pl.col("verdict") == "waiting"), found)
        unmeasured += _unmeasured(*where, blank)
        unsettled += _unsettled(*where, again)
    return Due(
        tuple(changed), tuple(waiting), tuple(unmeasured), now, store, schemas, order, budget,
        frozenset(dataset for dataset, _ in only), tuple(unsettled), _fragments(ledger, source.origin, only),
        recount.remember,
    )  # fmt: skip


def _held(store: Store, origin: str, only: Collection[tuple[str, str]]) -> pl.DataFrame:
    """The units (:data:`hdi.buying.restating.BOUGHT`) of an origin, of these datasets and schemas or of all."""
    return _only(bought(store.ledger().filter(pl.col("origin") == origin), store.coverage()), only)


def _only(rows: pl.DataFrame, pairs: Collection[tuple[str, str]]) -> pl.DataFrame:
    """The rows of these datasets and schemas; without any all."""
    if not pairs:
        return rows
    wanted = pl.DataFrame([tuple(p) for p in pairs], schema={"dataset": pl.String, "schema": pl.String}, orient="row")
    return rows.join(wanted, on=["dataset", "schema"], how="semi", maintain_order="left")


def _fragments(ledger: pl.DataFrame, origin: str, only: Collection[tuple[str, str]]) -> tuple[Fragments, ...]:
    """What of the store no coverage knows."""
    mine = _only(ledger.filter(pl.col("status") == "fragment", pl.col("origin") == origin), only)
    sums = mine.group_by("dataset", "schema", maintain_order=True).agg(
        pl.col("stored").sum() - pl.col("unchanged").sum()
    )
    return tuple(Fragments(*row) for row in sums.filter(pl.col("stored") > 0).iter_rows())


def _heard(source: Source, dataset: str, held: pl.DataFrame) -> pl.DataFrame:
    """What the vendor says of the days of what is held."""
    available = source.available(dataset).values()
    first = max(min(w.start for w in available), int(held["start"].min())) if available else 0  # type: ignore[arg-type]
    last = min(max(w.end for w in available), int(held["end"].max())) if available else 0  # type: ignore[arg-type]
    if first >= last:
        return pl.DataFrame(schema=CONDITIONS)
    asked = time.time_ns()
    return heard(dataset, tuple(source.conditions(dataset, Window(first, min(last, MAX_NS - DAY_NS)))), asked)


class _Recount:
    """Asks the vendor, for nothing, whether it still counts what arrived of orders that are unsettled."""

    def __init__(self, source: Source, data_dir: Path) -> None:
        self._source = source
        self._data_dir = data_dir
        self._same: dict[str, bool | None] = {}
        #: Orders that need not be counted again, with when they were counted.
        self._news: list[tuple[Slip, int]] = []

    def judged(self, pieces: pl.DataFrame, purchases: Mapping[int, Slip]) -> pl.DataFrame:
        """Pieces with their verdicts: due where rows were added or removed; ``counted`` where none were."""
        open_ = pl.col("verdict") == "unsettled"
        changed = {
            u: purchases.get(u) for u in pieces.filter(pl.col("verdict").is_in(["due", "waiting"]))["unit"].unique()
        }
        others = {slip.name for slip in changed.values() if slip}
        last = pieces.filter(open_).group_by("unit").agg(pl.col("last_modified").max())
        same = {
            unit: self._asked(slip, at) for unit, at in last.iter_rows()
            if (slip := purchases.get(unit)) is not None and slip.name not in others
        }  # fmt: skip
        known = pl.col("unit").replace_strict(same, default=None, return_dtype=pl.Boolean)
        return pieces.with_columns(
            verdict=pl.when(open_ & ~known).then(pl.lit("due")).otherwise("verdict"),
            counted=(open_ & known).fill_null(value=False),
        )

    def _asked(self, slip: Slip, last_modified: int) -> bool | None:
        """Whether the vendor counts for an order what arrived; None where it does not know the order any more."""
        if slip.counted_at >= last_modified + DAY_NS:  # its last change was over when it was asked
            return True
        if slip.name not in self._same:
            now = time.time_ns()
            try:
                self._same[slip.name] = self._source.count(slip.order) == slip.arrived
            except RequestError:
                self._same[slip.name] = None
            if self._same[slip.name]:
                self._news.append((slip, now))
        return self._same[slip.name]

    def remember(self) -> None:
        """Keep what was counted."""
        for slip, at in self._news:
            counted(self._data_dir, slip, at)


def _judged(book: Book, units: pl.DataFrame, recount: _Recount) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """(what would be asked for again (:data:`WANTED`), days that are unmeasured, all that was found of others)."""
    frames, blank = [], [pl.DataFrame(schema={"day": pl.Int64()})]
    found = [pl.DataFrame(schema=FOUND)]
    for each in book.pieces():
        pieces = recount.judged(each, book.purchases)
        blank.append(pieces.filter(pl.col("verdict") == "unmeasured").select("day").unique())
        changed = pieces.filter(pl.col("verdict").is_in(["due", "waiting"]))
        frames += [wanted(changed, units).with_columns(counted=pl.lit(value=False))]
        for same in (True, False):
            open_ = pieces.filter(pl.col("verdict") == "unsettled", pl.col("counted") == same)
            frames.append(wanted(open_, units).with_columns(counted=pl.lit(same)))
        found.append(changed.select(*FOUND).unique("day", keep="first", maintain_order=True))
    empty = pl.DataFrame(schema={**WANTED, "counted": pl.Boolean()})
    return pl.concat([empty, *frames]), pl.concat(blank).unique().sort("day"), pl.concat(found).sort("day")


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
    if len(told) == 1:
        told.append("has another number of records now than when it was bought, on the day of its last change")
    return ", ".join(told)


def _unmeasured(dataset: str, schema: str, days: pl.DataFrame) -> Iterator[Unmeasured]:
    if days.height:
        first, last = ns_date(days["day"][0]), ns_date(days["day"][-1])
        yield Unmeasured(dataset, schema, days.height, first, last)


def _unsettled(dataset: str, schema: str, again: pl.DataFrame) -> Iterator[Unsettled]:
    mine = again.filter(pl.col("verdict") == "unsettled")
    if mine.height:
        day = pl.col("start") // DAY_NS
        days = mine.select(day.unique().sort()).to_series().to_list()
        first, last = ns_date(days[0] * DAY_NS), ns_date(days[-1] * DAY_NS)
        symbols = tuple(mine["symbol"].unique().sort())
        yield Unsettled(dataset, schema, symbols, len(days), first, last, bool(mine["counted"].all()))


__all__ = ["Changed", "Due", "DueOffer", "Fragments", "Unmeasured", "Unsettled", "due"]

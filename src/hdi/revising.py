"""Days that the vendor changed after they were bought: found by what it says of them, and bought again, no more.

A vendor says of each day when it last changed its data. What was in force when something was bought is the latest word
that was kept before; where the vendor's word of today is newer, the day is due, for everything that is held of it.
The newest commit counts: what was bought again is not due any more, and what could not be bought stays due.
"""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
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
from hdi.schema import Schemas
from hdi.sources import Source
from hdi.stores import Store, Work
from hdi.symbology import ALL_SYMBOLS, disjoint, merge

if TYPE_CHECKING:
    from hdi.buying import Buying
    from hdi.offer import Offer

#: Whether there is data, by the vendor's word: a day that goes up has more than before.
_RANK = {"missing": 0, "pending": 0, "degraded": 1, "available": 2}
_SAID = {c: CONDITIONS[c] for c in ("dataset", "day", "condition", "last_modified")}
#: What was said of a day when a unit was bought.
TOLD: dict[str, pl.DataType] = {
    "unit": pl.Int32(), "day": pl.Int64(), "was": pl.String(), "was_modified": pl.Int64(),
}  # fmt: skip
#: Units and when their bytes were bought, in the order of their commits.
BOUGHT: dict[str, pl.DataType] = {
    "unit": pl.Int32(), "dataset": pl.String(), "schema": pl.String(), "symbol": pl.String(), "stype": pl.String(),
    "start": pl.Int64(), "end": pl.Int64(), "bought_at": pl.Int64(),
}  # fmt: skip
#: What would have to be asked for again, and the verdict on its day.
_WANTED: dict[str, pl.DataType] = {
    "verdict": pl.String(), "stype": pl.String(), "symbol": pl.String(), "start": pl.Int64(), "end": pl.Int64(),
}  # fmt: skip
#: Days of a stretch that are told of.
_SHOWN = 5
#: Pieces (instrument and day) that are looked at together.
_MOST_PIECES = 2_000_000


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
    """What it costs to buy again what has changed; ``offers`` belong to ``orders``."""

    orders: tuple[Buying, ...]
    offers: tuple[Offer, ...]

    @property
    def quote(self) -> Quote:
        """Records, bytes and dollars of all of it."""
        return sum((o.quote for o in self.offers), Quote(0, 0, Decimal(0)))

    @property
    def units(self) -> int:
        """How many units would be committed."""
        return sum(o.units for o in self.offers)

    def __bool__(self) -> bool:
        return bool(self.units)


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
        """The price of buying again what has changed; nothing is billed. Raises as :meth:`hdi.buying.Buying.offer`."""
        orders = tuple(
            self._order(
                dataset=c.dataset, schema=c.schema, symbols=c.symbols, stype=c.stype, start=iso_ns(c.window.start),
                end=iso_ns(c.window.end), job=job,
            ) for c in self.changed
        )  # fmt: skip
        return DueOffer(orders, tuple(order.offer() for order in orders))

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
    said = store.conditions()
    changed: list[Changed] = []
    waiting: list[Changed] = []
    unmeasured: list[Unmeasured] = []
    for (dataset, schema), bought in held.group_by("dataset", "schema", maintain_order=True):
        ledger = store.ledger().join(bought.select("unit"), on="unit", how="semi")
        where = str(dataset), str(schema)
        found = _judged(where, bought, ledger, said, now, partial(slips, data_dir, source.origin, *where))
        if found.is_empty():
            continue
        coverage = store.coverage().filter(pl.col("dataset") == dataset, pl.col("schema") == schema)
        wanted, blank = _wanted(bought, found, coverage)
        changed += _stretches(*where, wanted.filter(pl.col("verdict") == "due"), found)
        waiting += _stretches(*where, wanted.filter(pl.col("verdict") == "waiting"), found)
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


def _judged(
    where: tuple[str, str], bought: pl.DataFrame, ledger: pl.DataFrame, said: pl.DataFrame, now: pl.DataFrame,
    kept: Callable[[], Sequence[Slip]],
) -> pl.DataFrame:  # fmt: skip
    """:func:`judged` of one dataset and schema; slips are read only where there is a question."""
    said, now = (f.filter(pl.col("dataset") == where[0]) for f in (said, now))
    told = _of_ledger(ledger)
    if odd(said, told, now).is_empty():
        return judged(bought.clear(), said, told, now)
    known = {slip.raw.digest: slip for slip in kept() if slip.raw}
    brought = ledger.filter(pl.col("raw_digest").is_in(list(known))).select("unit", "raw_digest", "start", "end")
    dates = {unit: known[digest].bought_at for unit, digest in brought.select("unit", "raw_digest").iter_rows()}
    dated = bought.with_columns(
        bought_at=pl.coalesce(pl.col("unit").replace_strict(dates, default=None, return_dtype=pl.Int64), "bought_at")
    )
    return judged(dated, said, pl.concat([_of_slips(known, brought), told]), now)


def _of_slips(known: Mapping[str, Slip], brought: pl.DataFrame) -> pl.DataFrame:
    """What the vendor said when the bytes of units were ordered (:data:`TOLD`)."""
    frames = [pl.DataFrame(schema=TOLD)]
    for (digest,), units in brought.group_by("raw_digest"):
        days = _frame("", known[str(digest)].conditions, 0).select("day", was="condition", was_modified="last_modified")
        frames.append(units.join(days, how="cross").filter(_touches).select(pl.col(c).cast(t) for c, t in TOLD.items()))
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


def odd(said: pl.DataFrame, told: pl.DataFrame, now: pl.DataFrame) -> pl.DataFrame:
    """The days of a dataset (day, condition, last_modified) of which not all that is known is what is said ``now``."""
    today = now.select("day", "condition", "last_modified")
    known = pl.concat([
        said.select("day", was="condition", was_modified="last_modified"), told.select("day", "was", "was_modified"),
    ]).join(today, on="day")  # fmt: skip
    differs = pl.col("was").ne_missing(pl.col("condition"))
    differs |= pl.col("was_modified").ne_missing(pl.col("last_modified"))
    heard = today.join(said, on="day", how="semi")
    return pl.concat([
        today.join(heard, on="day", how="anti"), heard.join(known.filter(differs), on="day", how="semi"),
    ]).sort("day")  # fmt: skip


def judged(bought: pl.DataFrame, said: pl.DataFrame, told: pl.DataFrame, now: pl.DataFrame) -> pl.DataFrame:
    """Days that units of one dataset hold, as far as there is a question, each with a ``verdict``.

    ``bought`` is :data:`BOUGHT`; ``said`` and ``now`` are :data:`hdi.frames.CONDITIONS`; ``told`` (:data:`TOLD`) is
    what is known of a unit itself, the surest first. Columns: unit, day, verdict (``due``, ``waiting``, ``fresh``,
    ``unmeasured``), was, was_modified, condition, last_modified. Days without a row are fresh.
    """
    until = odd(said, told, now).with_columns(until=pl.col("day") + DAY_NS)
    days = bought.select("unit", "start", "end", "bought_at").join_where(
        until, pl.col("start") < pl.col("until"), pl.col("end") > pl.col("day")
    )
    heard = said.select("day", "seen_at", heard="condition", heard_modified="last_modified").sort("seen_at")
    first = heard.unique("day", keep="first").select("day", first="heard", first_modified="heard_modified")
    both = (
        days.join(told.unique(["unit", "day"], keep="first", maintain_order=True), on=["unit", "day"], how="left")
        .sort("bought_at")
        .join_asof(heard, left_on="bought_at", right_on="seen_at", by="day", check_sortedness=False)
        .join(first, on="day", how="left")
    )
    # Nothing that was kept before: what was heard first, later, is what is known.
    modified = (
        pl.when(pl.col("was").is_not_null()).then("was_modified")
        .when(pl.col("heard").is_not_null()).then("heard_modified")
        .otherwise("first_modified")
    )  # fmt: skip
    early = pl.coalesce("was", "heard").is_null() & (pl.col("last_modified") > pl.col("bought_at"))
    known = both.with_columns(
        was=pl.coalesce("was", "heard", "first"), was_modified=modified, early=early.fill_null(value=False)
    )
    newer = pl.col("last_modified").is_not_null() & pl.col("was_modified").is_null()
    newer |= (pl.col("last_modified") > pl.col("was_modified")).fill_null(value=False)
    better = _rank("condition") > _rank("was")
    verdict = (
        pl.when(~pl.col("early") & pl.col("was").is_null()).then(pl.lit("unmeasured"))
        .when(~(pl.col("early") | newer | better)).then(pl.lit("fresh"))
        .when(_rank("condition") == 0).then(pl.lit("waiting"))
        .otherwise(pl.lit("due"))
    )  # fmt: skip
    return known.select("unit", "day", verdict.alias("verdict"), "was", "was_modified", "condition", "last_modified")


def _rank(column: str) -> pl.Expr:
    return pl.col(column).replace_strict(_RANK, default=1, return_dtype=pl.Int8)


_touches = (pl.col("start") < pl.col("day") + DAY_NS) & (pl.col("end") > pl.col("day"))


def _wanted(bought: pl.DataFrame, found: pl.DataFrame, coverage: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(what would be asked for again (:data:`_WANTED`), the days of what is unmeasured)."""
    frames, blank = [pl.DataFrame(schema=_WANTED)], [pl.DataFrame(schema={"day": pl.Int64()})]
    for pieces in standing(coverage, bought, found):
        blank.append(pieces.filter(pl.col("verdict") == "unmeasured").select("day").unique())
        mine = pieces.filter(pl.col("verdict").is_in(["due", "waiting"])).join(
            bought.select("unit", "symbol", "stype", low="start", high="end"), on="unit"
        )
        whole = pl.col("whole") & (pl.col("symbol") != "")
        as_asked = mine.filter(whole).select(
            "verdict", "stype", pl.col("symbol").str.split(","), pl.max_horizontal("low", "day").alias("start"),
            pl.min_horizontal("high", pl.col("day") + DAY_NS).alias("end"),
        ).unique()  # fmt: skip
        by_id = mine.filter(~whole).select(
            "verdict", pl.lit("instrument_id").alias("stype"), pl.col("instrument_id").cast(pl.String).alias("symbol"),
            "start", "end",
        )  # fmt: skip
        frames += [as_asked.explode("symbol").filter(pl.col("symbol") != ""), by_id]
    wanted = pl.concat([f.select(pl.col(c).cast(t) for c, t in _WANTED.items()) for f in frames])
    return wanted, pl.concat(blank).unique().sort("day")


def standing(coverage: pl.DataFrame, bought: pl.DataFrame, found: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Pieces of instruments on the days of ``found``, of the newest unit that holds each, with the verdict on it.

    Columns: unit, instrument_id, start, end, day, verdict, and ``whole``: all that the unit holds of that day stands.
    """
    order = bought.select("unit").with_row_index("order")
    rectangles = coverage.drop_nulls("instrument_id").select("unit", "instrument_id", "start", "end").join(
        order, on="unit"
    )  # fmt: skip
    sizes = rectangles.group_by("unit").len("pieces")
    per_day = found.join(sizes, on="unit").group_by("day").agg(pl.col("pieces").sum()).sort("day")
    for _, days in per_day.group_by(pl.col("pieces").cum_sum() // _MOST_PIECES, maintain_order=True):
        here = (
            rectangles.join(found.join(days, on="day", how="semi").select("unit", "day", "verdict"), on="unit")
            .filter(_touches)
            .with_columns(start=pl.max_horizontal("start", "day"), end=pl.min_horizontal("end", pl.col("day") + DAY_NS))
            .sort("order", maintain_order=True)
        )
        cut = disjoint(here)
        stands = here[cut["row"]].with_columns(start=cut["start"], end=cut["end"])
        held = here.group_by("unit", "day").agg(held=(pl.col("end") - pl.col("start")).sum())
        left = stands.group_by("unit", "day").agg(left=(pl.col("end") - pl.col("start")).sum())
        both = held.join(left, on=["unit", "day"]).select("unit", "day", whole=pl.col("held") == pl.col("left"))
        yield stands.join(both, on=["unit", "day"]).drop("order")


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


def together(spans: Sequence[tuple[int, int, int]]) -> Iterator[tuple[Window, frozenset[int]]]:
    """From (key, start, end), those of a key apart from each other: windows, and the keys that have each of them."""
    steps: dict[int, list[tuple[int, bool]]] = {}
    for key, start, end in spans:
        steps.setdefault(start, []).append((key, True))
        steps.setdefault(end, []).append((key, False))
    active: frozenset[int] = frozenset()
    began = 0
    for at in sorted(steps):
        now = (active - {k for k, starts in steps[at] if not starts}) | {k for k, starts in steps[at] if starts}
        if now != active:
            if active:
                yield Window(began, at), active
            active, began = now, at


def _why(found: pl.DataFrame, window: Window) -> tuple[str, ...]:
    """What became of the first few days of a window."""
    days = found.filter(
        pl.col("verdict").is_in(["due", "waiting"]), pl.col("day") < window.end, pl.col("day") + DAY_NS > window.start
    ).unique("day").sort("day").head(_SHOWN)  # fmt: skip
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


__all__ = ["BOUGHT", "TOLD", "Changed", "Due", "DueOffer", "Unmeasured", "due", "judged", "odd", "standing", "together"]

"""What a plan shows beside its price: days, what is stored, what is left out and why, and other ways to the same.

A day of a symbol is told of once: it is stored, or left out for one reason, or something is to be done for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from hdi.buying.bars import lacking
from hdi.buying.estimate import Estimate, estimate
from hdi.buying.offer import Offer, closed_days
from hdi.buying.ordering import Held, Purchase, cut
from hdi.errors import NothingResolved
from hdi.frames import BROUGHT
from hdi.model import DAY_NS, Condition, Order, Window, date_ns, ns_date, subtract
from hdi.schema import Schema
from hdi.symbology import root_of

if TYPE_CHECKING:
    from hdi.buying.deriving import Deriver
    from hdi.calendars import Calendars
    from hdi.stores import Store


#: A smaller download need not be fetched twice: its bytes are kept under ``raw/``.
_WORTH_A_JOB = 100_000_000
_Spans = list[tuple[int, int]]


@dataclass(frozen=True)
class Skipped:
    """What of a request is not fetched, and why. ``days`` are UTC days; ``units`` 0 where no whole unit is left out."""

    why: str
    symbols: tuple[str, ...]
    days: int
    units: int = 0


@dataclass(frozen=True)
class Way:
    """Another way to the same answer: what to do, and what it saves or gives, in words."""

    way: str
    gives: str


@dataclass(frozen=True)
class Outlook:
    """What an offer means.

    ``days`` are the UTC days to be fetched, on which something is listed and a session is held; ``shut_days`` lie
    between them without a session, in units that are longer than a day. ``after_all`` are closed days on which the
    vendor counts records, with how many. ``held_days`` are stored whole: ``empty_days`` of them are confirmed to have
    nothing, ``named_days`` are stored under other names alone. ``odd`` are the days that the vendor does not call
    available, ``batches`` how many orders become batch jobs, ``refused`` why it cannot be bought as things stand.
    """

    offer: Offer
    days: int
    shut_days: int
    after_all: Mapping[int, int]
    held_days: int
    empty_days: int
    named_days: int
    skipped: tuple[Skipped, ...]
    odd: tuple[Condition, ...]
    estimate: Estimate
    cheaper: tuple[Way, ...]
    others: tuple[Way, ...] = ()
    batches: int = 0
    refused: str = ""


def outlook(  # noqa: PLR0913  (what is offered, and where to look)
    offer: Offer, store: Store, schema: Schema, *, held: Held, calendars: Calendars | None, deriver: Deriver | None,
    batches: frozenset[int], count: Callable[[Order], int], seconds: Mapping[str, float], refused: str = "",
) -> Outlook:  # fmt: skip
    """What an offer means; ``held`` is what counts as stored, ``batches`` are the purchases that become batch jobs.

    ``count`` is asked, of closed days on which the vendor says that it has data, how many records there are;
    ``seconds`` are what runs took that bought something, by their names.
    """
    ledger = store.ledger()
    fetched = [_fetched(offer, at, calendars, count) for at in range(len(offer.purchases))]
    days = {day for each in fetched for day in each.days}
    shut = {day for each in fetched for day in each.shut} - days if offer.request.name.grid != "day" else set()
    after: Counter[int] = Counter()
    for each in fetched:
        after.update(each.after)
    stored = _stored(offer, held)
    empty, named = _bare(offer, store.coverage(), ledger, store.mappings(), stored)
    conditions = offer.known.conditions if offer.known else ()
    return Outlook(
        offer, len(days), len(shut), dict(sorted(after.items())), len(stored), empty, named,
        tuple(_skipped(offer, held, fetched, calendars)),
        tuple(c for c in conditions if c.condition != "available"),
        estimate(offer.quote.records, ledger, store.health(), schema, offer.request.name.name, seconds),
        tuple(_cheaper(offer, held, deriver)), tuple(_others(offer, batches)), len(batches), refused,
    )  # fmt: skip


@dataclass(frozen=True)
class _Fetched:
    """The UTC days of a purchase, by number: to be fetched, without a session, and of these those with records."""

    purchase: Purchase
    days: frozenset[int]
    shut: frozenset[int]
    after: Mapping[int, int]


def _fetched(offer: Offer, at: int, calendars: Calendars | None, count: Callable[[Order], int]) -> _Fetched:
    purchase, request = offer.purchases[at], offer.request
    if request.everything or offer.known is None:
        return _Fetched(purchase, frozenset(_days([purchase.window])), frozenset(), {})
    live = _days(_spanned(purchase.window, _rows(purchase.rectangles)))
    closed = offer.closed[at] if request.name.grid == "day" else closed_days(calendars, request, purchase, offer.known)
    shut = _days(closed) & live
    after = {}
    if request.name.grid == "day" and offer.quotes[at].records:
        said = {date_ns(c.day) // DAY_NS for c in offer.known.conditions if c.condition != "missing"}
        for day in sorted(shut & said):
            window = Window(day * DAY_NS, (day + 1) * DAY_NS).cut(purchase.window)
            if n := _counted(purchase.order(request.dataset, request.name.name, window), count):
                after[day] = n
    return _Fetched(purchase, frozenset(live - (shut - set(after))), frozenset(shut), after)


def _counted(order: Order | None, count: Callable[[Order], int]) -> int:
    if order is None:
        return 0
    try:
        return count(order)
    except NothingResolved:
        return 0


def _rows(rectangles: pl.DataFrame) -> _Spans:
    return list(rectangles.select("start", "end").iter_rows())


def _spanned(window: Window, spans: _Spans) -> list[Window]:
    """What of the window the spans hold, each once."""
    return subtract(window, [(gap.start, gap.end) for gap in subtract(window, spans)])


def _days(windows: Iterable[Window]) -> set[int]:
    """The UTC days that stretches touch, by number."""
    return {day for w in windows for day in range(w.start // DAY_NS, -(-w.end // DAY_NS))}


def _stored(offer: Offer, held: Held) -> set[int]:
    """The days on which nothing of the request is lacking."""
    request = offer.request
    gaps = {w for stype, group in request.symbols.items() for s in group for w in held.lacks(stype, s, request.window)}
    return _days([request.window]) - _days(gaps)


def _bare(
    offer: Offer, coverage: pl.DataFrame, ledger: pl.DataFrame, mappings: pl.DataFrame, stored: set[int]
) -> tuple[int, int]:
    """How many of the stored days have nothing for any symbol, and how many have it under other names alone."""
    request = offer.request
    if not stored:
        return 0, 0
    units = ledger.filter(pl.col("status").is_in(BROUGHT)).select("unit", "fetched").unique("unit", keep="last")
    here = cut(
        coverage.filter(pl.col("dataset") == request.dataset, pl.col("schema") == request.name.name), request.window
    ).join(units, on="unit")
    full = here.filter(pl.col("fetched") > 0)
    named = mappings.filter(pl.col("dataset") == request.dataset)
    empty, elsewhere = set(stored), set(stored)
    for stype, symbols in request.symbols.items():
        for symbol in symbols:
            mine = (pl.col("stype") == stype) & (pl.col("symbol") == symbol)
            own = full.filter(mine, pl.col("instrument_id").is_null())
            none = stored - _days(Window(s, e) for s, e in _rows(own))
            ids = named.filter(mine).select("instrument_id", a="start", b="end")
            both = full.join(ids, on="instrument_id").select(
                start=pl.max_horizontal("start", "a"), end=pl.min_horizontal("end", "b")
            )  # fmt: skip
            others = none & _days(Window(s, e) for s, e in _rows(both.filter(pl.col("start") < pl.col("end"))))
            empty &= none - others
            elsewhere &= none
            if not elsewhere:
                return 0, 0
    return len(empty), len(elsewhere - empty)


def _skipped(offer: Offer, held: Held, fetched: Iterable[_Fetched], calendars: Calendars | None) -> Iterator[Skipped]:
    """What is not fetched: symbols that share a reason together."""
    together: dict[tuple[str, int], list[Skipped]] = {}
    for one in (*_closed(offer, fetched, calendars), *_absent(offer, held)):
        together.setdefault((one.why, one.days), []).append(one)
    for (why, days), group in together.items():
        symbols = dict.fromkeys(s for one in group for s in one.symbols)
        yield Skipped(why, tuple(symbols), days, sum(one.units for one in group))


def _closed(offer: Offer, fetched: Iterable[_Fetched], calendars: Calendars | None) -> Iterator[Skipped]:
    """Days without a session that are not asked for, by the reason that the calendar gives."""
    if calendars is None or offer.request.name.grid != "day":
        return
    found: dict[str, Counter[str]] = {}
    whys: dict[tuple[str, int], str] = {}
    for each in fetched:
        left = sorted(each.shut - each.days)
        if not left:
            continue
        for (asked,), own in each.purchase.rectangles.group_by("asked", maintain_order=True):
            symbol = _called(offer, each.purchase, str(asked))
            live = _days(_spanned(each.purchase.window, _rows(own)))
            for day in left:
                if day in live:
                    key = root_of(symbol), day
                    if key not in whys:
                        whys[key] = calendars.why(offer.request.dataset, ns_date(day * DAY_NS), symbol) or "closed"
                    found.setdefault(symbol, Counter())[whys[key]] += 1
    for symbol, counts in found.items():
        told = ", ".join(f"{why} {days}" for why, days in counts.most_common())
        yield Skipped(f"closed by the calendar ({told})", (symbol,), counts.total(), counts.total())


def _called(offer: Offer, purchase: Purchase, symbol: str) -> str:
    """The symbol, or of an instrument's number its raw symbol."""
    if purchase.stype != "instrument_id" or offer.known is None:
        return symbol
    names = offer.known.names.filter(pl.col("instrument_id") == int(symbol))["symbol"]
    return str(names[-1]) if names.len() else symbol


def _absent(offer: Offer, held: Held) -> Iterator[Skipped]:
    """Stretches that are not stored, in which a symbol stands for nothing."""
    if offer.known is None or offer.request.everything:
        return
    window = offer.request.window
    for stype, symbols in offer.request.symbols.items():
        mine = offer.known.resolved.filter(pl.col("stype") == stype)
        by_symbol = {str(asked): _rows(own) for (asked,), own in mine.group_by("asked")}
        for symbol in symbols:
            spans, days = by_symbol.get(symbol, []), Counter[str]()
            for lacks in held.lacks(stype, symbol, window):
                for left in subtract(lacks, spans):
                    days[_why_absent(left, spans, stype)] += _whole(left, window)
            for why, number in days.items():
                if number:
                    yield Skipped(why, (symbol,), number)


def _why_absent(left: Window, spans: _Spans, stype: str) -> str:
    if not spans:
        return "stands for nothing in the whole window"
    first, last = min(s for s, _ in spans), max(e for _, e in spans)
    if left.end <= first:
        return f"not listed before {ns_date(first)}"
    if left.start >= last:
        return f"{'expired: ' if stype == 'raw_symbol' else ''}stands for nothing from {ns_date(last)} on"
    return "stands for nothing there"


def _whole(left: Window, window: Window) -> int:
    """How many days of the window lie in a part of it and in no other."""
    first = left.start // DAY_NS if left.start == window.start else -(-left.start // DAY_NS)
    end = -(-left.end // DAY_NS) if left.end == window.end else left.end // DAY_NS
    return max(end - first, 0)


def _cheaper(offer: Offer, held: Held, deriver: Deriver | None) -> Iterator[Way]:
    if not offer.quote.size or offer.known is None or deriver is None or offer.derived or not deriver.sources:
        return
    rest = lacking(offer.request, offer.known.resolved, held)
    made = deriver.derivable(offer.request, offer.known.resolved, held, offer.known.conditions)
    for derived in made:
        share, whole = _share(derived.stretches, rest)
        left = "" if whole else "; the rest is bought" if len(made) == 1 else "; what no other line makes is bought"
        yield Way("--derive", f"{share} from stored {derived.source}, for nothing{left}")


def _others(offer: Offer, batches: frozenset[int]) -> Iterator[Way]:
    if len(batches) < len(offer.purchases) and offer.quote.size >= _WORTH_A_JOB:
        yield Way(
            "ingest.batch_above_bytes",
            "a lower one orders it as a batch job, for the same price; its files can be fetched again for 30 days",
        )  # fmt: skip


def _share(made: pl.DataFrame, rest: pl.DataFrame) -> tuple[str, bool]:
    """How much of what is lacking can be made (both instrument_id, start, end), by days of instruments; if all."""
    days, names = _by_day(rest), rest["instrument_id"].n_unique()
    both = days.join(_by_day(made), on=["instrument_id", "day"], suffix="_made")
    whole = both.filter(pl.col("length") == pl.col("length_made")).height
    of = f"{days.height} {'day' if days.height == 1 else 'days'}" + (f" of {names} instruments" if names > 1 else "")
    part = f", and part of {both.height - whole} more," if both.height > whole else ""
    return f"{whole} of {of}{part} can be made", whole == days.height


def _by_day(spans: pl.DataFrame) -> pl.DataFrame:
    """How long stretches are on each UTC day that they touch, by instrument."""
    day = pl.int_ranges(pl.col("start") // DAY_NS, -(-pl.col("end") // DAY_NS)).alias("day")
    low = pl.max_horizontal("start", pl.col("day") * DAY_NS)
    high = pl.min_horizontal("end", (pl.col("day") + 1) * DAY_NS)
    each = spans.with_columns(day).explode("day")
    return each.group_by("instrument_id", "day").agg((high - low).sum().alias("length"))


__all__ = ["Outlook", "Skipped", "Way", "outlook"]

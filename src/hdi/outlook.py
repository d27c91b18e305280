"""What a plan shows beside its price: days, what is stored, what is left out and why, and cheaper ways to the same.

Pure but for the sizes that the store is asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from hdi.bars import lacking
from hdi.estimate import Estimate, estimate
from hdi.model import DAY_NS, Condition, Window, ns_date, subtract
from hdi.offer import Offer
from hdi.ordering import Held
from hdi.schema import Schema
from hdi.symbology import ALL_SYMBOLS

if TYPE_CHECKING:
    from hdi.calendars import Calendars
    from hdi.deriving import Deriver
    from hdi.stores import Store


#: A smaller download need not be fetched twice: its bytes are kept under ``raw/``.
_WORTH_A_JOB = 100_000_000


@dataclass(frozen=True)
class Skipped:
    """What of a request is not fetched, and why. ``days`` are UTC days; ``units`` 0 where no whole unit is left out."""

    why: str
    symbols: tuple[str, ...]
    days: int
    units: int = 0


@dataclass(frozen=True)
class Cheaper:
    """Another way to the same answer: what to do, and what it saves or gives, in words."""

    way: str
    gives: str


@dataclass(frozen=True)
class Outlook:
    """What an offer means. ``days`` are the UTC days to be fetched, ``held_days`` those that are stored whole.

    ``odd`` are the days that the vendor does not call available, ``batches`` how many orders become batch jobs,
    ``refused`` why it cannot be bought as things stand.
    """

    offer: Offer
    days: int
    held_days: int
    held_units: int
    skipped: tuple[Skipped, ...]
    odd: tuple[Condition, ...]
    estimate: Estimate
    cheaper: tuple[Cheaper, ...]
    batches: int = 0
    refused: str = ""


def outlook(  # noqa: PLR0913  (what is offered, and where to look)
    offer: Offer, store: Store, schema: Schema, *, calendars: Calendars | None, deriver: Deriver | None,
    batches: frozenset[int], refused: str = "",
) -> Outlook:  # fmt: skip
    """What an offer means; ``batches`` are the purchases that become batch jobs. Nothing is asked of the vendor."""
    window, quote = offer.request.window, offer.quote
    ledger = store.ledger()
    todo = _days([*_windows(offer), *(w for days in offer.closed for w in days)])
    shut = _days(w for days in offer.closed for w in days) - _days(_open(offer))
    conditions = offer.known.conditions if offer.known else ()
    return Outlook(
        offer, len(_days(p.window for p in offer.purchases) - shut), window.days - len(todo),
        max(offer.total - offer.units, 0), tuple(_skipped(offer, ledger, calendars)),
        tuple(c for c in conditions if c.condition != "available"),
        estimate(quote.records, ledger, store.health(), schema, offer.request.name.name),
        tuple(_cheaper(offer, store, deriver, batches)), len(batches), refused,
    )  # fmt: skip


def _windows(offer: Offer) -> Iterator[Window]:
    """The stretches in which something is to be done."""
    yield from (p.window for p in offer.purchases)
    yield from (c.window for c in offer.claims)
    yield from (cell for rest in offer.paid for _, cell in rest.parts)
    yield from (cell for job in offer.coming for _, cell in job.parts)
    for derived in offer.derived:
        yield from (Window(s, e) for s, e in derived.stretches.select("start", "end").iter_rows())


def _open(offer: Offer) -> Iterator[Window]:
    """The stretches of the purchases without their closed days."""
    for purchase, closed in zip(offer.purchases, offer.closed or ((),) * len(offer.purchases), strict=True):
        yield from subtract(purchase.window, [(day.start, day.end) for day in closed])


def _days(windows: Iterable[Window]) -> set[int]:
    """The UTC days that stretches touch, by number."""
    return {day for w in windows for day in range(w.start // DAY_NS, -(-w.end // DAY_NS))}


def _skipped(offer: Offer, ledger: pl.DataFrame, calendars: Calendars | None) -> Iterator[Skipped]:
    """What is not fetched: symbols that share a reason together."""
    together: dict[tuple[str, int], list[Skipped]] = {}
    for one in (*_closed(offer, calendars), *_absent(offer)):
        together.setdefault((one.why, one.days), []).append(one)
    for (why, days), group in together.items():
        symbols = dict.fromkeys(s for one in group for s in one.symbols)
        yield Skipped(why, tuple(symbols), days, sum(one.units for one in group))
    yield from _empty(offer, ledger)


def _closed(offer: Offer, calendars: Calendars | None) -> Iterator[Skipped]:
    """Days without a session, by the reason that the calendar gives."""
    request = offer.request
    if calendars is None or request.everything or not calendars.knows(request.dataset):
        return
    known: dict[tuple[Window, ...], Counter[str]] = {}
    for stype, symbols in request.symbols.items():
        if stype == "instrument_id":
            continue
        for symbol in symbols:
            runs = tuple(calendars.closed(request.dataset, request.window, (symbol,)))
            if runs not in known:  # many symbols have the same calendar
                days = (ns_date(day.start) for run in runs for day in run.cells("day"))
                known[runs] = Counter(calendars.why(request.dataset, day, symbol) for day in days)
            whys = known[runs]
            shut = sum(
                len(days)
                for p, days in zip(offer.purchases, offer.closed, strict=False)
                if p.stype == stype and symbol in p.symbols
            )
            if whys:
                told = ", ".join(f"{why or 'closed'} {days}" for why, days in whys.most_common())
                yield Skipped(f"closed by the calendar ({told})", (symbol,), whys.total(), shut)


def _absent(offer: Offer) -> Iterator[Skipped]:
    """Stretches in which a symbol stands for nothing."""
    if offer.known is None:
        return
    window = offer.request.window
    for stype, symbols in offer.request.symbols.items():
        mine = offer.known.resolved.filter(pl.col("stype") == stype)
        for symbol in symbols:
            spans = list(mine.filter(pl.col("asked") == symbol).select("start", "end").iter_rows())
            if symbol == ALL_SYMBOLS:
                continue
            if not spans:
                yield Skipped("stands for nothing in the whole window", (symbol,), window.days)
                continue
            first, last = min(s for s, _ in spans), max(e for _, e in spans)
            for left in subtract(window, spans):
                why = "stands for nothing there"
                if left.end <= first:
                    why = f"not listed before {ns_date(first)}"
                elif left.start >= last:
                    why = f"expired: stands for nothing from {ns_date(last)} on"
                yield Skipped(why, (symbol,), left.days)


def _empty(offer: Offer, ledger: pl.DataFrame) -> Iterator[Skipped]:
    """Units of which it was confirmed that the vendor has nothing."""
    request = offer.request
    asked = [(stype, symbol) for stype, symbols in request.symbols.items() for symbol in symbols]
    mine = ledger.filter(
        pl.col("dataset") == request.dataset, pl.col("schema") == request.name.name, pl.col("status") == "complete",
        pl.col("start") < request.window.end, pl.col("end") > request.window.start,
    )  # fmt: skip
    wanted = pl.DataFrame(asked, schema={"stype": pl.String, "symbol": pl.String}, orient="row")
    mine = mine.join(wanted, on=["stype", "symbol"], how="semi")
    standing = mine.unique("unit_id", keep="last", maintain_order=True)
    bare = standing.filter(pl.col("fetched") == 0)
    if bare.is_empty():
        return
    cut = [Window(s, e).cut(request.window) for s, e in bare.select("start", "end").iter_rows()]
    symbols = tuple(dict.fromkeys(bare["symbol"].to_list()))
    yield Skipped("confirmed empty, or stored under other names", symbols, len(_days(w for w in cut if w)), bare.height)


def _cheaper(offer: Offer, store: Store, deriver: Deriver | None, batches: frozenset[int]) -> Iterator[Cheaper]:
    if not offer.quote.size or offer.known is None:
        return
    if deriver is not None and not offer.derived and deriver.sources:
        held = Held(store.coverage(), offer.request.dataset, offer.request.name.name)
        rest = lacking(offer.request, offer.known.resolved, held)
        for derived in deriver.derivable(offer.request, offer.known.resolved, held, offer.known.conditions):
            yield Cheaper("--derive", f"{_share(derived.stretches, rest)} from stored {derived.source}, for nothing")
    if len(batches) < len(offer.purchases) and offer.quote.size >= _WORTH_A_JOB:
        yield Cheaper(
            "ingest.batch_above_bytes",
            "a lower one orders it as a batch job, for the same price; its files can be fetched again for 30 days",
        )  # fmt: skip


def _share(made: pl.DataFrame, rest: pl.DataFrame) -> str:
    """How much of what is lacking can be made (both instrument_id, start, end), by days of instruments."""
    days, names = _by_day(rest), rest["instrument_id"].n_unique()
    both = days.join(_by_day(made), on=["instrument_id", "day"], suffix="_made")
    whole = both.filter(pl.col("length") == pl.col("length_made")).height
    of = f"{days.height} {'day' if days.height == 1 else 'days'}" + (f" of {names} instruments" if names > 1 else "")
    part = f", and part of {both.height - whole} more," if both.height > whole else ""
    return f"{whole} of {of}{part} can be made"


def _by_day(spans: pl.DataFrame) -> pl.DataFrame:
    """How long stretches are on each UTC day that they touch, by instrument."""
    day = pl.int_ranges(pl.col("start") // DAY_NS, -(-pl.col("end") // DAY_NS)).alias("day")
    low = pl.max_horizontal("start", pl.col("day") * DAY_NS)
    high = pl.min_horizontal("end", (pl.col("day") + 1) * DAY_NS)
    each = spans.with_columns(day).explode("day")
    return each.group_by("instrument_id", "day").agg((high - low).sum().alias("length"))


__all__ = ["Cheaper", "Outlook", "Skipped", "outlook"]

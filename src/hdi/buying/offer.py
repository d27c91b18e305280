"""Offers: what of a request is missing, what was paid for already, and what the rest costs. Nothing here is billed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from hdi.buying.batches import Coming, Ended, coming
from hdi.buying.meant import meant
from hdi.buying.ordering import Again, Claim, Held, Need, Purchase, Request, Split, cut, needed
from hdi.buying.paid import Slip, described, purchased, slips
from hdi.buying.reuse import Rest, done, rests
from hdi.errors import EndUnavailable, NothingResolved, RequestError, UnitFailed, UnknownSymbol
from hdi.frames import NAMED, RESOLVED
from hdi.journal import started
from hdi.model import DAY_NS, Condition, Order, Quote, Window, date_ns, iso_ns, some, subtract
from hdi.plan import plan_file
from hdi.schema import closest
from hdi.sources import Source
from hdi.sources.dbn import Reader
from hdi.stores import Store
from hdi.symbology import ALL_SYMBOLS, merge

if TYPE_CHECKING:
    from hdi.buying.deriving import Derived, Deriver
    from hdi.calendars import Calendars

NOTHING = Quote(0, 0, Decimal(0))
#: Symbols that stand for nothing in the window are looked for around it: markets close for a week at most.
_AROUND = 10 * DAY_NS
_CLAMPS = 3
#: So many instruments at most are asked for by their ids where the rest of a dataset is held.
_MOST_IDS = 40_000
#: So many orders at most are priced to know what of a symbol is bought again.
_MOST_PRICED = 50
_BLIND = f"{ALL_SYMBOLS} is ordered whole: what is stored of it under other names is bought again"
_SPAN = {name: pl.col(name) for name in ("instrument_id", "start", "end")}


@dataclass(frozen=True)
class Known:
    """What the vendor says of a request: ``resolved`` has ``stype`` beside :data:`hdi.frames.RESOLVED`.

    ``seen_at`` is when it was asked for the conditions, in nanoseconds. ``blind``: all symbols are wanted, some of
    them are held, and which ones is not known.
    """

    resolved: pl.DataFrame = field(repr=False)
    names: pl.DataFrame = field(repr=False)
    conditions: tuple[Condition, ...] = ()
    seen_at: int = 0
    blind: bool = False


@dataclass(frozen=True)
class Offer:
    """What has to be done for a request. ``quotes`` are in the order of the purchases; ``paid`` needs only refining.

    ``closed`` are, for each purchase, the days on which its market is closed: they are not asked for. ``again`` is
    what the purchases bring once more, ``derived`` is made from what is stored. ``notes`` say how the window was cut.
    ``coming`` are the batch jobs that bring some of its units, ``ended`` those that do not any more; ``stored`` counts
    the units that nothing is to be done for. ``newest`` is when something of its window was last bought before, 0 for
    never: what is bought now is newer, whatever the clock says.
    """

    request: Request
    purchases: tuple[Purchase, ...] = ()
    quotes: tuple[Quote, ...] = ()
    claims: tuple[Claim, ...] = ()
    paid: tuple[Rest, ...] = ()
    notes: tuple[str, ...] = ()
    known: Known | None = field(default=None, repr=False)
    origin: str = ""
    closed: tuple[tuple[Window, ...], ...] = ()
    again: tuple[Again, ...] = ()
    derived: tuple[Derived, ...] = ()
    coming: tuple[Coming, ...] = ()
    ended: tuple[Ended, ...] = ()
    stored: int = 0
    newest: int = 0

    @property
    def replaced(self) -> tuple[str, ...]:
        """What became of the batch jobs of which something is ordered again: that is for a person to decide."""
        return tuple(e.sentence for e in self.ended if any(e.within(p) for p in self.purchases))

    @property
    def quote(self) -> Quote:
        """Records, bytes and dollars of all purchases."""
        return sum(self.quotes, NOTHING)

    @property
    def units(self) -> int:
        """How many units would be committed."""
        there = sum(r.units for r in self.paid) + sum(job.units for job in self.coming)
        return self.bought_units + there + self.claimed_units + self.derived_units

    @property
    def derived_units(self) -> int:
        """How many units are made from what is stored."""
        return sum(d.units for d in self.derived)

    @property
    def bought_units(self) -> int:
        """How many units have to be ordered, those of closed days among them."""
        return sum(len(p.symbols) * self._cells(p.window) for p in self.purchases)

    @property
    def claimed_units(self) -> int:
        """How many units need no order: they stand for nothing, or for what is ordered or held as something else."""
        return sum(self._cells(c.window) for c in self.claims)

    @property
    def total(self) -> int:
        """How many units the whole request has: those that are stored, and those that would be committed."""
        return self.stored + self.units

    def _cells(self, window: Window) -> int:
        return len(list(window.cells(self.request.name.grid)))


class Shopper:
    """Looks at what the store and the data folder hold of a request, and asks the vendor about the rest."""

    def __init__(  # noqa: PLR0913  (what is asked, of whom, and how)
        self,
        store: Store,
        source: Source,
        data_dir: Path,
        request: Request,
        *,
        refetch: bool = False,
        min_split: Decimal = Decimal(0),
        calendars: Calendars | None = None,
        deriver: Deriver | None = None,
        resumes: Sequence[str] = (),
        names: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        """``min_split``: less than that may go to what is held, to save orders. Without calendars all days are open."""
        self._store = store
        self._source = source
        self._data_dir = data_dir
        self._asked = request
        self._refetch = refetch
        self._deriver = deriver
        self._resumes = resumes
        self._names = names
        # What is made for nothing is not bought again for the sake of a cheaper split.
        self._min_split = Decimal(0) if deriver else min_split
        self._calendars = calendars
        self._limit = request.window  # what the vendor has, once it was asked
        self._quoted: dict[Purchase, Quote] = {}
        self._coming: tuple[Coming, ...] = ()
        self._over: tuple[Ended, ...] = ()
        self._newest = 0
        self._after: tuple[Offer, ...] = ()

    def offer(self, before: Offer | None = None, after: Sequence[Offer] = ()) -> Offer:
        """What is missing and what it costs; ``before`` is an earlier offer whose answers still hold.

        What the orders of ``after`` bring is counted as held, also when it is looked at again.

        Raises RequestError for a window or a symbol that the vendor does not know, VendorRefused and UnitFailed as
        the source does.
        """
        if before is not None:
            return self._again(before)
        self._after = tuple(after)
        self._quoted.clear()
        if not self._lacking(self._asked) and not self._rests(self._asked, set()):
            return Offer(self._asked, origin=self._source.origin, stored=self._stored(self._asked))
        request, notes = self._clamped(self._asked)
        if request != self._asked and not self._lacking(request) and not self._rests(request, set()):
            return Offer(request, notes=tuple(notes), origin=self._source.origin, stored=self._stored(request))
        for _ in range(_CLAMPS):
            try:
                known = self._know(request)
                return self._made(request, known, *self._need(request, known), notes)
            except EndUnavailable as error:
                request = self._ended(request, error, notes)
        raise RequestError(f"the vendor's available end moves before {request.window}", "Give an earlier --end-date.")

    def _again(self, before: Offer) -> Offer:
        """The offer with a fresh look at what is held; the vendor is asked again only about what changed."""
        if before.known is None:
            return before
        self._quoted |= zip(before.purchases, before.quotes, strict=True)
        return self._made(before.request, before.known, *self._need(before.request, before.known), before.notes)

    def _made(
        self, request: Request, known: Known, need: Need, paid: tuple[Rest, ...], derived: tuple[Derived, ...],
        notes: Sequence[str],
    ) -> Offer:  # fmt: skip
        """The offer of what is needed, with the price of each order."""
        gone = [ended.sentence for ended in self._over if any(ended.within(p) for p in need.purchases)]
        notes = [*notes, *(each for each in gone if each not in notes)]
        if known.blind and need.purchases and _BLIND not in notes:
            notes = [*notes, _BLIND]
        if self._deriver is not None and need.purchases:
            notes += [note for note in self._deriver.why_bought(request, derived) if note not in notes]
        return Offer(
            request, need.purchases, tuple(self._quote(request, p, known.conditions) for p in need.purchases),
            need.claims, paid, tuple(notes), known, self._source.origin,
            tuple(self._closed(request, p, known) for p in need.purchases), need.again, derived, self._coming,
            self._over, self._stored(request), self._newest,
        )  # fmt: skip

    def _closed(self, request: Request, purchase: Purchase, known: Known) -> tuple[Window, ...]:
        """The days of a purchase on which no session of its symbols is held, of what is kept day by day."""
        return closed_days(self._calendars, request, purchase, known) if request.name.grid == "day" else ()

    def _stored(self, request: Request) -> int:
        """How many units of the request are held, by the stretches of its symbols."""
        held, stretches = self.held(request), Counter[Window]()
        for stype, group in request.symbols.items():
            for symbol in group:
                gaps = [(w.start, w.end) for w in held.lacks(stype, symbol, request.window)]
                stretches.update(subtract(request.window, gaps))
        return sum(number * len(list(w.cells(request.name.grid))) for w, number in stretches.items())

    def held(self, request: Request) -> Held:
        """What of the store counts as held for the request."""
        coverage = self._store.coverage()
        if self._refetch:
            coverage = coverage.filter(pl.col("unit").is_in(self._fetched_again(request).implode()))
        elif self._deriver is not None:
            coverage = self._deriver.standing(coverage)
        return Held(coverage, request.dataset, request.name.name)

    def _fetched_again(self, request: Request) -> pl.Series:
        """The units that this very request has fetched again: in runs that it goes on with."""
        ledger = self._store.ledger().filter(pl.col("status") == "complete")
        if not self._resumes:
            return ledger["unit"].clear()
        since = started(self._data_dir, self._resumes[0])
        # What arrived in such a run may have been committed by another one.
        known = slips(self._data_dir, self._source.origin, request.dataset, request.name.name)
        books = purchased(ledger, [s for s in known if s.bought_at >= since and s.arrived == s.records])
        return books.filter(pl.col("run").is_in(self._resumes) | pl.col("at").is_not_null())["unit"]

    def _lacking(self, request: Request) -> bool:
        held = self.held(request)
        return any(held.lacks(stype, s, request.window) for stype, group in request.symbols.items() for s in group)

    def _quote(self, request: Request, purchase: Purchase, conditions: Sequence[Condition]) -> Quote:
        if purchase not in self._quoted:
            order = purchase.order(request.dataset, request.name.name)
            self._quoted[purchase] = quoted(self._source, order, conditions) if order else NOTHING
        return self._quoted[purchase]

    def _split(self, request: Request, known: Known) -> Split:
        """Says what a whole costs more than its rest alone, as long as the request's sum of that is little."""
        left = self._min_split

        def price(purchases: Sequence[Purchase]) -> Decimal:
            return sum((self._quote(request, p, known.conditions).dollars for p in purchases), Decimal(0))

        def more(whole: Purchase, rest: Sequence[Purchase], had: Sequence[Purchase]) -> Decimal | None:
            nonlocal left
            if not left:
                return None
            if min(len(rest), len(had)) > _MOST_PRICED:
                dollars = price([whole])  # at most
            elif len(had) <= len(rest):
                dollars = price(had)
            else:
                dollars = max(price([whole]) - price(rest), Decimal(0))
            if dollars >= left:
                return None
            left -= dollars
            return dollars

        return more

    def _need(self, request: Request, known: Known) -> tuple[Need, tuple[Rest, ...], tuple[Derived, ...]]:
        held = self.held(request)
        left = self._rests(request, set(known.resolved["instrument_id"]))
        for rest in left:
            stype = rest.slip.order.stype
            for symbol, cell in rest.parts:
                for window in held.lacks(stype, symbol, cell):
                    held.add_symbol(stype, symbol, window)
                own = cut(rest.scope.filter(pl.col("asked") == symbol), cell)
                for instrument, start, end in own.select("instrument_id", "start", "end").iter_rows():
                    for window in held.instrument_lacks(instrument, Window(start, end)):
                        held.add(instrument, window)
        self._hold_coming(request, known, held)
        self._hold_planned(request, known, held)
        derived: tuple[Derived, ...] = ()
        if self._deriver is not None:
            derived = self._deriver.derivable(request, known.resolved, held, known.conditions)
        need = needed(request, known.resolved, held, self._split(request, known))
        return need, tuple(left), derived

    def _hold_planned(self, request: Request, known: Known, held: Held) -> None:
        """Count what other offers bring before as held."""
        for offer in self._after:
            if (offer.request.dataset, offer.request.name) != (request.dataset, request.name):
                continue
            for purchase in offer.purchases:
                own = known.resolved if purchase.symbols == (ALL_SYMBOLS,) else purchase.rectangles
                for instrument, start, end in cut(own, purchase.window).select(**_SPAN).iter_rows():
                    held.add(instrument, Window(start, end))

    def _hold_coming(self, request: Request, known: Known, held: Held) -> None:
        """Count what batch jobs are to bring as held; what was taken of them already is paid for like a stream."""
        wanted = known.resolved.select("instrument_id", "start", "end")
        jobs, ended = coming(
            self._source, self._data_dir, self._store.ledger(), request, set(wanted["instrument_id"]),
            refetch=self._refetch,
        )  # fmt: skip
        self._coming, self._over = tuple(jobs), tuple(ended)
        for job in self._coming:
            order = job.slip.order
            for symbol, cell in job.stretches:
                everything = symbol == ALL_SYMBOLS
                if not everything or request.everything:
                    for window in held.lacks(order.stype, symbol, cell):
                        held.add_symbol(order.stype, symbol, window)
                own = wanted if everything else job.slip.resolved.filter(pl.col("asked") == symbol)
                for instrument, start, end in cut(own, cell).select("instrument_id", "start", "end").iter_rows():
                    for window in held.instrument_lacks(instrument, Window(start, end)):
                        held.add(instrument, window)

    def _rests(self, request: Request, instruments: set[int]) -> list[Rest]:
        """What was bought for the request's symbols or instruments, and is not in the store."""
        known = slips(self._data_dir, self._source.origin, request.dataset, request.name.name)
        known = [slip for slip in known if slip.order.window.cut(request.window) is not None]
        self._newest = max((slip.bought_at for slip in known), default=0)
        if not known:
            return []
        ledger, coverage = self._store.ledger(), self._store.coverage()
        found = []
        for slip in known:
            if done(slip, ledger):
                continue
            if self._refetch and slip.arrived != slip.records:  # to order it again is what was asked for
                continue
            scope = self._scope(slip)
            wanted = set(slip.asked) & set(request.symbols.get(slip.order.stype, ()))
            if wanted or instruments & set(scope["instrument_id"]):
                found.append((slip, scope))
        here = (pl.col("dataset") == request.dataset) & (pl.col("schema") == request.name.name)
        return rests(found, coverage.filter(here), ledger) if found else []

    def _scope(self, slip: Slip) -> pl.DataFrame:
        """The instruments that a slip's bytes are about, by date; of all symbols the bytes themselves say it."""
        if slip.asked != (ALL_SYMBOLS,) or slip.raw is None:
            return slip.resolved
        with Reader(Path(slip.raw.path)) as reader:
            header = described(slip, reader.header)
        return plan_file(header, self._asked.name, slip.origin, "").intervals

    def _clamped(self, request: Request) -> tuple[Request, list[str]]:
        """The request within what the vendor has. RequestError when nothing of it is."""
        available = self._source.available(request.dataset)
        name, window = request.name.name, request.window
        if name not in available:
            raise RequestError(f"{request.dataset} has no {name}", closest(name, available))
        limit = self._limit = available[name]
        end = floor_end(limit.end, request)
        if window.start >= end:
            raise RequestError(
                f"{window} has not happened yet for {request.dataset} {name}: data is available up to {iso_ns(end)}",
                "Give an earlier --start-date.",
            )
        if window.end <= limit.start:
            raise RequestError(
                f"{window} lies before {request.dataset} {name} begins, which is at {iso_ns(limit.start)}",
                "Give a later window.",
            )
        notes = []
        if window.start < limit.start:
            notes.append(f"{request.dataset} {name} begins at {iso_ns(limit.start)}: the window starts there")
        if window.end > end:
            notes.append(
                f"{request.dataset} {name} is available up to {iso_ns(end)}: the rest of the window stays open"
            )
        return replace(request, window=Window(max(window.start, limit.start), min(window.end, end))), notes

    def _ended(self, request: Request, error: EndUnavailable, notes: list[str]) -> Request:
        """The request up to the end that the vendor's refusal names."""
        end = floor_end(error.available_end, request)
        if not request.window.start < end < request.window.end:
            raise error
        self._limit = Window(min(self._limit.start, request.window.start), error.available_end)
        notes.append(f"{request.dataset} {request.name.name} is available up to {iso_ns(end)}: the rest stays open")
        return replace(request, window=Window(request.window.start, end))

    def _know(self, request: Request) -> Known:
        """The symbology of the whole request. UnknownSymbol for symbols that stand for nothing, here or around."""
        frames = [pl.DataFrame(schema={**RESOLVED, "stype": pl.String()})]
        named = pl.DataFrame(schema=NAMED)
        if request.everything:
            named = self._everything(request)
            frames.append(
                named.select(asked=pl.lit(ALL_SYMBOLS), stype=pl.lit("raw_symbol"), **_SPAN).select(frames[0].columns)
            )
        else:
            for stype, symbols in request.symbols.items():
                frames.append(self._resolved(request, stype, symbols).with_columns(stype=pl.lit(stype)))
            resolved = pl.concat(frames)
            ids = sorted(set(resolved["instrument_id"]))
            if ids:
                named = self._source.raw_symbols(request.dataset, ids, request.window).select(*NAMED)
        seen_at = time.time_ns()
        conditions = tuple(self._source.conditions(request.dataset, request.window))
        blind = request.everything and named.is_empty() and self.held(request).any(request.window)
        return Known(pl.concat(frames), cut(named, request.window), conditions, seen_at, blind)

    def _everything(self, request: Request) -> pl.DataFrame:
        """Every instrument by date, where some of it is held and the rest can be asked for by ids; else none."""
        held = self.held(request)
        if not held.any(request.window):
            return pl.DataFrame(schema=NAMED)
        named = cut(self._source.everything(request.dataset, request.window).select(*NAMED), request.window)
        lacking = {
            i for i, s, e in merge(named).iter_rows() if held.instrument_lacks(i, Window(s, e))
        }  # fmt: skip
        return named if len(lacking) <= _MOST_IDS else named.clear()

    def _symbols(self, request: Request) -> tuple[set[str], set[str]]:
        """The symbols that are stored of a dataset, and those that the user wrote down."""
        here = self._store.mappings().filter(pl.col("dataset") == request.dataset)
        return set(here["symbol"]), set(self._names())

    def _resolved(self, request: Request, stype: str, symbols: Sequence[str]) -> pl.DataFrame:
        found = self._resolve(request, stype, symbols, request.window)
        missing = [s for s in symbols if s not in set(found["asked"])]
        if missing:
            window, limit = request.window, self._limit
            around = Window(max(window.start - _AROUND, limit.start), min(window.end + _AROUND, limit.end))
            there = set(self._resolve(request, stype, missing, around)["asked"])
            if unknown := [s for s in missing if s not in there]:
                raise UnknownSymbol(
                    f"{request.dataset} has no {', '.join(unknown)} ({stype}) in {request.window}",
                    meant(self._source, request, stype, unknown[0], self._symbols(request)),
                )
        return cut(found, request.window)

    def _resolve(self, request: Request, stype: str, symbols: Sequence[str], window: Window) -> pl.DataFrame:
        if stype != "instrument_id":
            return self._source.resolve(request.dataset, symbols, stype, window).select(*RESOLVED)
        named = self._source.raw_symbols(request.dataset, [int(s) for s in symbols], window)
        return named.with_columns(asked=pl.col("instrument_id").cast(pl.String)).select(*RESOLVED)


def closed_days(
    calendars: Calendars | None, request: Request, purchase: Purchase, known: Known
) -> tuple[Window, ...]:  # fmt: skip
    """The days of a purchase on which no session of its symbols is held; none where that is not known."""
    if calendars is None or request.everything or not calendars.knows(request.dataset):
        return ()
    symbols: Iterable[str] = purchase.symbols
    if purchase.stype == "instrument_id":
        ids = set(map(int, purchase.symbols))
        named = known.names.filter(pl.col("instrument_id").is_in(ids))
        if ids - set(named["instrument_id"]):
            return ()
        symbols = named["symbol"].unique().sort()
    runs = calendars.closed(request.dataset, purchase.window, tuple(symbols))
    return tuple(day for run in runs for day in run.cells("day"))


def quoted(source: Source, order: Order, conditions: Sequence[Condition]) -> Quote:
    """What an order brings and costs. Nothing is believed only where all that the vendor says agrees.

    Raises UnitFailed when records, bytes and dollars contradict each other, or when the vendor resolves no symbol on
    days of which it says that it has data.
    """
    try:
        quote = source.quote(order)
    except NothingResolved:
        open_days = [
            c.day for c in conditions
            if c.condition != "missing" and Window(date_ns(c.day), date_ns(c.day) + DAY_NS).cut(order.window)
        ]  # fmt: skip
        if open_days:
            raise UnitFailed(
                f"the vendor names instruments for {some(order.symbols)}, and resolves none of them in "
                f"{order.window}, where it has data",
                "It contradicts itself; nothing was ordered. Run the same command again later.",
            ) from None
        return NOTHING  # a window without a session
    if not quote.records and (quote.size or quote.dollars):
        raise UnitFailed(
            f"the vendor counts no record for {some(order.symbols)} in {order.window}, and bills "
            f"{quote.size} bytes for it",
            "It contradicts itself; nothing was ordered. Run the same command again later.",
        )
    return quote


def unasked(replaced: Sequence[str]) -> RequestError:
    """The refusal to order again what a batch job was paid for, where nobody is there to say yes."""
    return RequestError(
        f"{'; '.join(replaced)}, and that needs a yes",
        "The job was paid for. hdi sync or hdi ingest orders it again: on a terminal they ask, or with --force. "
        "Nothing was bought.",
    )


def floor_end(end: int, request: Request) -> int:
    """An available end, floored to whole bars; to whole days for what is published by day."""
    step = request.name.settled
    return end // step * step


__all__ = ["NOTHING", "Known", "Offer", "Shopper", "closed_days", "floor_end", "quoted", "unasked"]

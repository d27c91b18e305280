"""Offers: what of a request is missing, what was paid for already, and what the rest costs. Nothing here is billed."""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from hdi.batches import Coming, coming
from hdi.errors import EndUnavailable, NothingResolved, RequestError, UnitFailed, UnknownSymbol
from hdi.journal import started
from hdi.model import DAY_NS, Condition, Order, Quote, Window, date_ns, iso_ns, some
from hdi.ordering import NAMED, RESOLVED, Again, Claim, Held, Need, Purchase, Request, cut, needed
from hdi.paid import Slip, described, purchased, slips
from hdi.plan import plan_file
from hdi.reuse import Rest, done, rests
from hdi.schema import closest
from hdi.sources import Source
from hdi.sources.dbn import Reader
from hdi.stores import Store
from hdi.symbology import ALL_SYMBOLS, CONTRACT, merge, root_of

if TYPE_CHECKING:
    from hdi.calendars import Calendars
    from hdi.deriving import Derived, Deriver

NOTHING = Quote(0, 0, Decimal(0))
#: Symbols that stand for nothing in the window are looked for around it: markets close for a week at most.
_AROUND = 10 * DAY_NS
#: Published once a day: what is there of a day is whole only when the day is over.
_DAILY = ("definition", "statistics")
_CLAMPS = 3
#: So many instruments at most are asked for by their ids where the rest of a dataset is held.
_MOST_IDS = 40_000
_BLIND = f"{ALL_SYMBOLS} is ordered whole: what is stored of it under other names is bought again"
_SPAN = {name: pl.col(name) for name in ("instrument_id", "start", "end")}


@dataclass(frozen=True)
class Known:
    """What the vendor says of a request: ``resolved`` has ``stype`` beside :data:`hdi.ordering.RESOLVED`.

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
    ``total`` counts the units of the whole request, ``coming`` are the batch jobs that bring some of them.
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
    def closed_units(self) -> int:
        """How many of them lie on closed days."""
        return sum(len(p.symbols) * len(days) for p, days in zip(self.purchases, self.closed, strict=False))

    @property
    def claimed_units(self) -> int:
        """How many units need no order: they stand for nothing, or for what is ordered or held as something else."""
        return sum(self._cells(c.window) for c in self.claims)

    @property
    def total(self) -> int:
        """How many units the whole request has."""
        return self._cells(self.request.window) * sum(map(len, self.request.symbols.values()))

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
    ) -> None:
        """``min_split``: asking for a rest by ids must save so many dollars. Without calendars no day is closed."""
        self._store = store
        self._source = source
        self._data_dir = data_dir
        self._asked = request
        self._refetch = refetch
        self._deriver = deriver
        self._resumes = resumes
        # What is made for nothing is not bought again for the sake of a cheaper split.
        self._min_split = Decimal(0) if deriver else min_split
        self._calendars = calendars
        self._limit = request.window  # what the vendor has, once it was asked
        self._quoted: dict[Purchase, Quote] = {}
        self._coming: tuple[Coming, ...] = ()
        self._gone: tuple[str, ...] = ()

    def offer(self, before: Offer | None = None) -> Offer:
        """What is missing and what it costs; ``before`` is an earlier offer whose answers still hold.

        Raises RequestError for a window or a symbol that the vendor does not know, VendorRefused and UnitFailed as
        the source does.
        """
        if before is not None:
            return self._again(before)
        self._quoted.clear()
        if not self._lacking(self._asked) and not self._rests(self._asked, set()):
            return Offer(self._asked, origin=self._source.origin)
        request, notes = self._clamped(self._asked)
        if request != self._asked and not self._lacking(request) and not self._rests(request, set()):
            return Offer(request, notes=tuple(notes), origin=self._source.origin)
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
        notes = [*notes, *(gone for gone in self._gone if gone not in notes)]
        if known.blind and need.purchases and _BLIND not in notes:
            notes = [*notes, _BLIND]
        if self._deriver is not None and need.purchases:
            notes += [note for note in self._deriver.why_bought(request, derived) if note not in notes]
        return Offer(
            request, need.purchases, tuple(self._quote(request, p, known.conditions) for p in need.purchases),
            need.claims, paid, tuple(notes), known, self._source.origin,
            tuple(self._closed(request, p, known) for p in need.purchases), need.again, derived, self._coming,
        )  # fmt: skip

    def _closed(self, request: Request, purchase: Purchase, known: Known) -> tuple[Window, ...]:
        """The days of a purchase on which no session of its symbols is held, of what is kept day by day."""
        calendars = self._calendars
        if (
            calendars is None
            or request.name.grid != "day"
            or request.everything
            or not calendars.knows(request.dataset)
        ):
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

    def _held(self, request: Request) -> Held:
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
        held = self._held(request)
        return any(held.lacks(stype, s, request.window) for stype, group in request.symbols.items() for s in group)

    def _quote(self, request: Request, purchase: Purchase, conditions: Sequence[Condition]) -> Quote:
        if purchase not in self._quoted:
            order = purchase.order(request.dataset, request.name.name)
            self._quoted[purchase] = quoted(self._source, order, conditions) if order else NOTHING
        return self._quoted[purchase]

    def _split(self, request: Request, known: Known, whole: Purchase, rest: Sequence[Purchase]) -> Decimal | None:
        """What the whole costs more than the rest alone, where that is too little to split it."""
        if not self._min_split:
            return None
        more = self._quote(request, whole, known.conditions).dollars
        if more >= self._min_split:
            more -= sum(self._quote(request, p, known.conditions).dollars for p in rest)
        return max(more, Decimal(0)) if more < self._min_split else None

    def _need(self, request: Request, known: Known) -> tuple[Need, tuple[Rest, ...], tuple[Derived, ...]]:
        held = self._held(request)
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
        derived: tuple[Derived, ...] = ()
        if self._deriver is not None:
            derived = self._deriver.derivable(request, known.resolved, held, known.conditions)
        need = needed(request, known.resolved, held, lambda *parts: self._split(request, known, *parts))
        return need, tuple(left), derived

    def _hold_coming(self, request: Request, known: Known, held: Held) -> None:
        """Count what batch jobs are to bring as held; what was taken of them already is paid for like a stream."""
        wanted = known.resolved.select("instrument_id", "start", "end")
        jobs, gone = coming(
            self._source, self._data_dir, self._store.ledger(), request, set(wanted["instrument_id"]),
            refetch=self._refetch,
        )  # fmt: skip
        self._coming, self._gone = tuple(jobs), tuple(gone)
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
        blind = request.everything and named.is_empty() and self._held(request).any(request.window)
        return Known(pl.concat(frames), cut(named, request.window), conditions, seen_at, blind)

    def _everything(self, request: Request) -> pl.DataFrame:
        """Every instrument by date, where some of it is held and the rest can be asked for by ids; else none."""
        held = self._held(request)
        if not held.any(request.window):
            return pl.DataFrame(schema=NAMED)
        named = cut(self._source.everything(request.dataset, request.window).select(*NAMED), request.window)
        lacking = {
            i for i, s, e in merge(named).iter_rows() if held.instrument_lacks(i, Window(s, e))
        }  # fmt: skip
        return named if len(lacking) <= _MOST_IDS else named.clear()

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
                    self._meant(request, stype, unknown[0]),
                )
        return cut(found, request.window)

    def _resolve(self, request: Request, stype: str, symbols: Sequence[str], window: Window) -> pl.DataFrame:
        if stype != "instrument_id":
            return self._source.resolve(request.dataset, symbols, stype, window).select(*RESOLVED)
        named = self._source.raw_symbols(request.dataset, [int(s) for s in symbols], window)
        return named.with_columns(asked=pl.col("instrument_id").cast(pl.String)).select(*RESOLVED)

    def _meant(self, request: Request, stype: str, symbol: str) -> str:
        """What an unknown symbol may have meant: stored symbols, and the contracts of its root."""
        known = set(self._store.mappings().filter(pl.col("dataset") == request.dataset)["symbol"])
        if stype == "raw_symbol" and (match := CONTRACT.fullmatch(symbol)):
            children = self._source.resolve(request.dataset, [f"{match[1]}.FUT"], "parent", request.window)
            ids = sorted(set(children["instrument_id"]))
            if ids:
                known |= set(self._source.raw_symbols(request.dataset, ids, request.window)["symbol"])
        roots = {root_of(s) for s in known}
        if stype == "parent":
            known |= {f"{root}.{symbol.rpartition('.')[2]}" for root in roots}
        elif stype == "continuous":
            known |= {f"{root}.{symbol.split('.')[1]}.0" for root in roots}
        close = difflib.get_close_matches(symbol, sorted(known - {symbol}), n=4, cutoff=0.6)
        meant = f"Did you mean {', '.join(close)}? " if close else ""
        return f"{meant}The vendor's symbology knows none of it on these days or around. Nothing was bought."


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


def floor_end(end: int, request: Request) -> int:
    """An available end, floored to whole bars; to whole days for what is published by day."""
    width = request.name.width or (DAY_NS if request.name.name in _DAILY else 1)
    return end // width * width


__all__ = ["NOTHING", "Known", "Offer", "Shopper", "floor_end", "quoted"]

"""Offers: what of a request is missing, what was paid for already, and what the rest costs. Nothing here is billed."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path

import polars as pl

from hdi.errors import EndUnavailable, NothingResolved, RequestError, UnitFailed, UnknownSymbol
from hdi.model import DAY_NS, Condition, Order, Quote, Window, date_ns, iso_ns, some
from hdi.ordering import NAMED, RESOLVED, Claim, Held, Need, Purchase, Request, cut, needed
from hdi.paid import Slip, described, slips
from hdi.plan import plan_file
from hdi.reuse import Rest, done, rests
from hdi.schema import closest
from hdi.sources import Source
from hdi.sources.dbn import Reader
from hdi.stores import Store
from hdi.symbology import ALL_SYMBOLS, CONTRACT

NOTHING = Quote(0, 0, Decimal(0))
#: Symbols that stand for nothing in the window are looked for around it: markets close for a week at most.
_AROUND = 10 * DAY_NS
#: Published once a day: what is there of a day is whole only when the day is over.
_DAILY = ("definition", "statistics")
_CLAMPS = 3


@dataclass(frozen=True)
class Known:
    """What the vendor says of a request: ``resolved`` has ``stype`` beside :data:`hdi.ordering.RESOLVED`."""

    resolved: pl.DataFrame = field(repr=False)
    names: pl.DataFrame = field(repr=False)
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True)
class Offer:
    """What has to be done for a request. ``quotes`` are in the order of the purchases; ``paid`` needs only refining.

    ``notes`` say how the window was cut. ``total`` counts the units of the whole request.
    """

    request: Request
    purchases: tuple[Purchase, ...] = ()
    quotes: tuple[Quote, ...] = ()
    claims: tuple[Claim, ...] = ()
    paid: tuple[Rest, ...] = ()
    notes: tuple[str, ...] = ()
    known: Known | None = field(default=None, repr=False)
    origin: str = ""

    @property
    def quote(self) -> Quote:
        """Records, bytes and dollars of all purchases."""
        return sum(self.quotes, NOTHING)

    @property
    def units(self) -> int:
        """How many units would be committed."""
        return self.bought_units + sum(r.units for r in self.paid) + self.claimed_units

    @property
    def bought_units(self) -> int:
        """How many units have to be ordered."""
        return sum(len(p.symbols) * self._cells(p.window) for p in self.purchases)

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

    def __init__(
        self, store: Store, source: Source, data_dir: Path, request: Request, *, refetch: bool = False
    ) -> None:
        self._store = store
        self._source = source
        self._data_dir = data_dir
        self._asked = request
        self._refetch = refetch
        self._limit = request.window  # what the vendor has, once it was asked

    def offer(self, before: Offer | None = None) -> Offer:
        """What is missing and what it costs; ``before`` is an earlier offer whose answers still hold.

        Raises RequestError for a window or a symbol that the vendor does not know, VendorRefused and UnitFailed as
        the source does.
        """
        if before is not None:
            return self._again(before)
        if not self._lacking(self._asked) and not self._rests(self._asked, set()):
            return Offer(self._asked, origin=self._source.origin)
        request, notes = self._clamped(self._asked)
        if not self._lacking(request) and not self._rests(request, set()):
            return Offer(request, notes=tuple(notes), origin=self._source.origin)
        for _ in range(_CLAMPS):
            try:
                known = self._know(request)
                need, paid = self._need(request, known)
                quotes = tuple(self._quote(request, p, known.conditions) for p in need.purchases)
            except EndUnavailable as error:
                request = self._ended(request, error, notes)
                continue
            return Offer(request, need.purchases, quotes, need.claims, paid, tuple(notes), known, self._source.origin)
        raise RequestError(f"the vendor's available end moves before {request.window}", "Give an earlier --end-date.")

    def _again(self, before: Offer) -> Offer:
        """The offer with a fresh look at what is held; the vendor is asked again only about what changed."""
        if before.known is None:
            return before
        need, paid = self._need(before.request, before.known)
        known, days = dict(zip(before.purchases, before.quotes, strict=True)), before.known.conditions
        quotes = tuple(known[p] if p in known else self._quote(before.request, p, days) for p in need.purchases)
        return replace(before, purchases=need.purchases, quotes=quotes, claims=need.claims, paid=paid)

    def _held(self, request: Request) -> Held:
        coverage = self._store.coverage()
        return Held(coverage.clear() if self._refetch else coverage, request.dataset, request.name.name)

    def _lacking(self, request: Request) -> bool:
        held = self._held(request)
        return any(held.lacks(stype, s, request.window) for stype, group in request.symbols.items() for s in group)

    def _quote(self, request: Request, purchase: Purchase, conditions: Sequence[Condition]) -> Quote:
        order = purchase.order(request.dataset, request.name.name)
        return quoted(self._source, order, conditions) if order else NOTHING

    def _need(self, request: Request, known: Known) -> tuple[Need, tuple[Rest, ...]]:
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
        return needed(request, known.resolved, held), tuple(left)

    def _rests(self, request: Request, instruments: set[int]) -> list[Rest]:
        """What was bought for the request's symbols or instruments, and is not in the store."""
        ledger, coverage = self._store.ledger(), self._store.coverage()
        found = []
        for slip in slips(self._data_dir, self._source.origin, request.dataset, request.name.name):
            if slip.order.window.cut(request.window) is None or done(slip, ledger):
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
        if not request.everything:
            for stype, symbols in request.symbols.items():
                frames.append(self._resolved(request, stype, symbols).with_columns(stype=pl.lit(stype)))
            resolved = pl.concat(frames)
            ids = sorted(set(resolved["instrument_id"]))
            if ids:
                named = self._source.raw_symbols(request.dataset, ids, request.window).select(*NAMED)
        conditions = tuple(self._source.conditions(request.dataset, request.window))
        return Known(pl.concat(frames), cut(named, request.window), conditions)

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

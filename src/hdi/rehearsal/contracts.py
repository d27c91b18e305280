"""Which instruments there are: contracts and calendar spreads, their symbols, ids and lives, by dataset."""

from __future__ import annotations

import calendar
import datetime as dt
import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from hdi.model import DAY_NS, date_ns
from hdi.rehearsal.draws import I64, U64, keyed, text_key
from hdi.rehearsal.products import DATASETS, MONTHS, PRODUCTS, Product
from hdi.rehearsal.sessions import LAST, MINUTE_NS, Sessions, sessions

_Key = TypeVar("_Key")
_FRIDAY = 4
#: An id rests for two years before another instrument of the product may get it, and then one in three takes it.
_REST_DAYS = 730
_REUSE = 3
_FIRST_ID = 10_000
_STEP = 7


@dataclass(frozen=True, slots=True)
class Instrument:
    """One contract or calendar spread. ``first`` and ``last`` are its days (since 1970, both inclusive).

    ``number`` is its place in its dataset; ``legs`` are the numbers of a spread's contracts, near one first.
    ``expires`` is nanoseconds UTC, a far day for what does not expire; ``delivery`` is year and month.
    """

    number: int
    product: Product
    symbol: str
    id: int
    first: int
    last: int
    expires: int
    delivery: tuple[int, int]
    legs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Instruments:
    """All instruments of a dataset, and the columns of them that the tape is computed from.

    Columns by instrument: ``product`` (place in PRODUCTS), ``ids``, ``first``, ``last``, ``expires``, ``near`` and
    ``far`` (the legs; both the instrument itself for an outright), ``month`` (0 is January), ``key``.
    ``outrights`` and ``spreads`` are numbers by root, in the order of expiry.
    """

    dataset: str
    sessions: Sessions
    begins: dt.date
    publisher: int
    all: tuple[Instrument, ...]
    outrights: Mapping[str, I64]
    spreads: Mapping[str, I64]
    by_symbol: Mapping[str, tuple[Instrument, ...]]
    by_id: Mapping[int, tuple[Instrument, ...]]
    product: I64
    ids: I64
    first: I64
    last: I64
    expires: I64
    near: I64
    far: I64
    month: I64
    key: U64


@functools.cache
def instruments(dataset: str) -> Instruments:
    """The instruments of a dataset from its first day to far ahead; no random seed changes them."""
    publisher, name, begins = DATASETS[dataset]
    trading = sessions(name)
    found: list[Instrument] = []
    for place, product in enumerate(PRODUCTS):
        if product.dataset == dataset:
            found += _numbered(list(_listed(product, trading, begins)), len(found), (place + 1) * _FIRST_ID)
    roots = [p.root for p in PRODUCTS if p.dataset == dataset]

    def numbers(root: str, *, spreads: bool) -> I64:
        return np.asarray([i.number for i in found if i.product.root == root and bool(i.legs) == spreads], np.int64)

    return Instruments(
        dataset, trading, begins, publisher, tuple(found),
        outrights={root: numbers(root, spreads=False) for root in roots},
        spreads={root: numbers(root, spreads=True) for root in roots},
        by_symbol=_grouped(found, lambda i: i.symbol),
        by_id=_grouped(found, lambda i: i.id),
        product=np.asarray([PRODUCTS.index(i.product) for i in found]),
        ids=np.asarray([i.id for i in found]),
        first=np.asarray([i.first for i in found]),
        last=np.asarray([i.last for i in found]),
        expires=np.asarray([i.expires for i in found]),
        near=np.asarray([i.legs[0] if i.legs else i.number for i in found]),
        far=np.asarray([i.legs[1] if i.legs else i.number for i in found]),
        month=np.asarray([i.delivery[1] - 1 for i in found]),
        key=keyed(np.asarray([text_key(f"{dataset} {i.symbol} {i.delivery}") for i in found]), 0),
    )  # fmt: skip


def _grouped(found: Iterable[Instrument], of: Callable[[Instrument], _Key]) -> dict[_Key, tuple[Instrument, ...]]:
    out: dict[_Key, tuple[Instrument, ...]] = {}
    for instrument in sorted(found, key=lambda i: i.first):
        out[of(instrument)] = (*out.get(of(instrument), ()), instrument)
    return out


def _listed(product: Product, trading: Sessions, begins: dt.date) -> Iterator[Instrument]:
    """Outrights in the order of expiry, then spreads of neighbours; numbers and legs count within the product."""
    start, end = date_ns(begins) // DAY_NS, date_ns(LAST) // DAY_NS
    if product.expiry == "never":
        yield Instrument(0, product, product.root, 0, start, end - 1, end * DAY_NS, (LAST.year, 1))
        return
    # The exchange trades for half a day on holidays that are no business days: those of New York are.
    business = sessions("XNYS").date
    expiries = [
        (year, month, expiry)
        for year in range(begins.year, LAST.year)
        for month in (MONTHS.index(letter) + 1 for letter in product.months)
        # What was delivered before the dataset began expired before, and the calendars do not reach back for ever.
        if (year, month) >= (begins.year, begins.month)
        if (expiry := _expiry(product, business, year, month)) >= start
    ]
    outrights = []
    for number, (year, month, last) in enumerate(expiries):
        # As one contract expires, the next one is listed.
        first = start if number < product.listed else expiries[number - product.listed][2] + 1
        at = np.searchsorted(trading.date, last)
        expires = min(int(trading.opens[at]) + product.expires_after * MINUTE_NS, int(trading.closes[at]))
        symbol = f"{product.root}{MONTHS[month - 1]}{year % 10}"
        outrights.append(Instrument(number, product, symbol, 0, first, last, expires, (year, month)))
    yield from outrights
    for near, far in itertools.pairwise(outrights):
        yield Instrument(
            len(outrights) + near.number, product, f"{near.symbol}-{far.symbol}", 0, max(near.first, far.first),
            near.last, near.expires, near.delivery, (near.number, far.number),
        )  # fmt: skip


def _expiry(product: Product, business_days: I64, year: int, month: int) -> int:
    """The last trading date (days since 1970) of the contract for delivery in a month."""

    def day(year: int, month: int, number: int) -> int:
        return date_ns(dt.date(year, month, number)) // DAY_NS

    def business(at: int, back: int = 0) -> int:
        # The last business day on or before a day, or so many before that one.
        return int(business_days[np.searchsorted(business_days, at, side="right") - 1 - back])

    before = (year, month - 1) if month > 1 else (year - 1, 12)
    if product.expiry == "third friday":
        return business(day(year, month, 15 + (_FRIDAY - calendar.weekday(year, month, 15)) % 7))
    if product.expiry == "before the 25th":
        return business(day(*before, 25), 3)
    if product.expiry == "third last of delivery":
        return business(day(year, month, calendar.monthrange(year, month)[1]), 2)
    last = day(year, month, 1) - 1
    return business(last, 2 if product.expiry == "third last" else 0)


def _numbered(listed: list[Instrument], offset: int, lowest: int) -> Iterator[Instrument]:
    """The instruments of one product with their ids, some of which another one had years before."""
    # Last day, id and symbol of those that had an id.
    free: deque[tuple[int, int, str]] = deque()
    taken: list[tuple[int, int, str]] = []
    ids: dict[int, int] = {}
    newest = lowest
    for instrument in sorted(listed, key=lambda i: (i.first, i.number)):
        free.extend(sorted(t for t in taken if t[0] + _REST_DAYS < instrument.first))
        taken = [t for t in taken if t[0] + _REST_DAYS >= instrument.first]
        chance = int(keyed(text_key(instrument.symbol), instrument.first + newest)[0])
        # A symbol comes back with another id.
        if free and chance % _REUSE == 0 and free[0][2] != instrument.symbol:
            ids[instrument.number] = free.popleft()[1]
        else:
            newest += 1 + chance % _STEP
            ids[instrument.number] = newest
        taken.append((instrument.last, ids[instrument.number], instrument.symbol))
    for i in listed:
        legs = tuple(offset + leg for leg in i.legs)
        yield Instrument(
            offset + i.number, i.product, i.symbol, ids[i.number], i.first, i.last, i.expires, i.delivery, legs
        )

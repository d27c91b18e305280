"""The top of the tape: what each instrument did on each UTC day, computed for any (instrument, day) alone."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from hdi.model import DAY_NS, date_ns
from hdi.rehearsal.contracts import Instruments
from hdi.rehearsal.draws import F64, I64, U64, bell, keyed, text_key, unit
from hdi.rehearsal.products import FIRST_YEAR, NS, PRODUCTS, Product
from hdi.rehearsal.sessions import FIRST, HOUR_NS, LAST, ZERO

_DAYS = (LAST - FIRST).days
_YEAR = 365.25
#: Activity and open interest of an outright by how many deliveries it has left before the activity moves on.
_ACTIVITY = (-0.5, 0.002), (-0.12, 0.06), (0.0, 0.5), (0.1, 1.0), (0.9, 1.0), (1.0, 0.5), (1.12, 0.12), (2.0, 0.06), \
    (3.0, 0.03), (5.0, 0.008), (8.0, 0.002), (12.0, 0.0008)  # fmt: skip
_INTEREST = (-0.5, 0.02), (-0.2, 0.2), (-0.03, 0.6), (0.1, 0.9), (0.8, 0.85), (0.97, 0.6), (1.1, 0.45), (2.0, 0.25), \
    (4.0, 0.1), (12.0, 0.02)  # fmt: skip
#: A calendar spread trades when positions are rolled, little before.
_SPREAD = (-0.5, 0.001), (-0.1, 0.03), (0.1, 0.04), (0.5, 0.01), (2.0, 0.004), (12.0, 0.0004)
#: On 20 April 2020 the expiring crude oil contract settled below zero; what trades that evening is left out, so that
#: the settlement is the last price of the day.
_NEGATIVE = "CLK0"
_NEGATIVE_DAY = date_ns(dt.date(2020, 4, 20)) // DAY_NS
_NEGATIVE_PRICE = -37.63
_NEGATIVE_END = date_ns(dt.date(2020, 4, 20)) + 21 * HOUR_NS
#: The fewest trades with which a bar may have any open, high, low and close.
FREE = 4
_COUNT, _VOLUME, _JITTER, _SHAPE, _ONE_SIDE, _OPEN_INTEREST = range(1, 7)
#: Contract terms by place in PRODUCTS; the tick as a price.
_TERMS: Mapping[str, F64] = {
    "trades": np.asarray([float(p.trades) for p in PRODUCTS]),
    "lot": np.asarray([p.lot for p in PRODUCTS]),
    "tick": np.asarray([p.tick / NS for p in PRODUCTS]),
    "volatility": np.asarray([p.volatility for p in PRODUCTS]),
    "interest": np.asarray([float(p.interest) for p in PRODUCTS]),
    "roll": np.asarray([float(p.roll) for p in PRODUCTS]),
    "spacing": np.asarray([p.spacing for p in PRODUCTS]),
    "months": np.asarray([float(len(p.months)) for p in PRODUCTS]),
}
_SEASON: F64 = np.asarray([p.season for p in PRODUCTS])


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """Bars without a time: number of trades, volume, and prices in ticks. All columns have one length.

    Any bar of them can be made of ``trades`` prices: one trade has one price, two are open and close, and with three
    only one of high and low lies beside those.
    """

    trades: I64
    volume: I64
    open: I64
    high: I64
    low: I64
    close: I64


class Days:
    """The days of all instruments of a dataset for one seed and scale.

    On ``untraded`` days nothing is traded of a raw symbol, or ("") of anything.
    """

    def __init__(
        self, instruments: Instruments, seed: int, scale: float, untraded: Collection[tuple[str, dt.date]] = ()
    ) -> None:
        self._instruments = instruments
        self._untraded = _places(instruments, untraded)
        self._seed = int(keyed(seed % 2**64, text_key(instruments.dataset))[0])
        self._scale = scale
        weight = instruments.sessions.of_days(ZERO + np.arange(_DAYS))
        flat = np.zeros(_DAYS), np.zeros(_DAYS)
        walks = [_walk(p, self._seed, weight) if p.dataset == instruments.dataset else flat for p in PRODUCTS]
        self._level: F64 = np.stack([level for level, _ in walks])
        self._slope: F64 = np.stack([slope for _, slope in walks])
        self._full = float(instruments.sessions.full)
        event = [
            i.number for i in instruments.by_symbol.get(_NEGATIVE, ()) if i.delivery[0] == dt.date(2020, 5, 1).year
        ]
        self._event = event[0] if event else -1

    def key(self, which: I64, day: I64) -> U64:
        """The key of all draws for each instrument and day."""
        return keyed(keyed(self._instruments.key[which], day) ^ np.uint64(self._seed), 0)

    def end(self, which: I64, day: I64) -> I64:
        """When trading in each instrument is over that UTC day at the latest: midnight, or its expiry (ns)."""
        out = np.minimum((day + 1) * DAY_NS, self._instruments.expires[which])
        if self._event >= 0:
            out = np.where((which == self._event) & (day == _NEGATIVE_DAY), _NEGATIVE_END, out)
        return out

    def activity(self, which: I64, day: I64) -> tuple[I64, I64]:
        """Trades and volume of each instrument and day; 0 where it is not listed, or nothing is traded."""
        book, trading = self._instruments, self._instruments.sessions
        product, key = book.product[which], self.key(which, day)
        listed = (day >= book.first[which]) & (day <= book.last[which])
        weight = trading.before(np.maximum(self.end(which, day), day * DAY_NS)) - trading.before(day * DAY_NS)
        outright = book.near[which] == book.far[which]
        left = self._left(book.near[which], day)
        share = np.where(outright, _read(_ACTIVITY, left), _read(_SPREAD, left))
        share = np.where(_TERMS["months"][product] > 0, share, 1.0)
        crowd = 0.75 + 0.5 * unit(keyed(text_key("crowd") ^ self._seed, product * _DAYS + day))
        draw = keyed(key, _COUNT)
        expected = _TERMS["trades"][product] * self._scale * share * crowd * (weight / self._full)
        trades = np.floor(expected * (0.92 + 0.16 * unit(draw, 0, 24)) + unit(draw, 24, 24)).astype(np.int64)
        trades = np.where(listed & (weight > 0), trades, 0)
        if self._event >= 0:
            trades = np.where((which == self._event) & (day == _NEGATIVE_DAY), np.maximum(trades, FREE), trades)
        if len(self._untraded):
            trades = np.where(np.isin(_place(which, day), self._untraded), 0, trades)
        draw = keyed(key, _VOLUME)
        more = trades * (_TERMS["lot"][product] - 1.0) * (0.8 + 0.4 * unit(draw, 0, 24)) + unit(draw, 24, 24)
        return trades, trades + np.floor(more).astype(np.int64)

    def facts(self, which: I64, day: I64) -> Facts:
        """The bar of each instrument and UTC day; 0 trades where there is none."""
        trades, volume = self.activity(which, day)
        book, draw = self._instruments, keyed(self.key(which, day), _SHAPE)
        close = self.fair(which, day)
        opening = self.fair(which, day - 1) + (unit(draw, 0, 8) * 5.0).astype(np.int64) - 2
        opening = np.where(trades == 1, close, opening)
        weight = np.minimum(1.0, book.sessions.of_days(day) / self._full)
        product = book.product[which]
        level = self._level[product, day - ZERO] / _TERMS["tick"][product]
        reach = level * _TERMS["volatility"][product] * np.sqrt(weight) * 0.7
        reach = np.where(book.near[which] == book.far[which], reach, np.minimum(reach, 4.0))
        up, down = (np.rint(reach * unit(draw, low, 24)).astype(np.int64) for low in (8, 32))
        up_only = (draw >> np.uint64(63)).astype(np.bool_)
        free = trades >= FREE
        high = np.maximum(opening, close) + np.where(free | ((trades == FREE - 1) & up_only), up, 0)
        low = np.minimum(opening, close) - np.where(free | ((trades == FREE - 1) & ~up_only), down, 0)
        return Facts(trades, volume, opening, high, low, close)

    def fair(self, which: I64, day: I64) -> I64:
        """The price in ticks at which each instrument ends the UTC day, whether it traded or not."""
        book = self._instruments
        near = self._outright(book.near[which], day)
        spread = near - self._outright(book.far[which], day)
        return np.where(book.near[which] == book.far[which], near, spread)

    def interest(self, which: I64, day: I64) -> I64:
        """The open interest of each instrument at the end of the day; 0 where it is not listed."""
        book = self._instruments
        listed = (day >= book.first[which]) & (day <= book.last[which])
        share = _read(_INTEREST, self._left(book.near[which], day))
        share = np.where(book.near[which] == book.far[which], share, 0.0)
        noise = 0.97 + 0.06 * unit(keyed(self.key(which, day), _OPEN_INTEREST))
        out = np.floor(_TERMS["interest"][book.product[which]] * share * noise).astype(np.int64)
        return np.where(listed, out, 0)

    def _left(self, which: I64, day: I64) -> F64:
        """How many deliveries are left until activity moves on from each outright."""
        product = self._instruments.product[which]
        left: F64 = (self._instruments.last[which] - day - _TERMS["roll"][product]) / _TERMS["spacing"][product]
        return left

    def _outright(self, which: I64, day: I64) -> I64:
        book = self._instruments
        product, at = book.product[which], np.clip(day - ZERO, 0, _DAYS - 1)
        years = np.where(_TERMS["months"][product] > 0, np.maximum(book.last[which] - day, 0) / _YEAR, 0.0)
        price = (
            self._level[product, at] * (1.0 + self._slope[product, at] * years) * _SEASON[product, book.month[which]]
        )
        jitter = (unit(keyed(self.key(which, day), _JITTER)) * 3.0).astype(np.int64) - 1
        out = np.rint(price / _TERMS["tick"][product]).astype(np.int64) + jitter
        if self._event >= 0:
            negative = round(_NEGATIVE_PRICE / _TERMS["tick"][book.product[self._event]])
            out[(which == self._event) & (day == _NEGATIVE_DAY)] = negative
        return out


def _place(which: I64, day: I64) -> I64:
    """One number for each instrument and day."""
    return which * (2 * _DAYS) + (day - ZERO)


def _places(book: Instruments, untraded: Collection[tuple[str, dt.date]]) -> I64:
    found = []
    for symbol, date in untraded:
        day = date_ns(date) // DAY_NS
        some = book.by_symbol.get(symbol.upper(), ()) if symbol else book.all
        found += [(i.number, day) for i in some if i.first <= day <= i.last]
    return _place(*np.asarray(found, np.int64).reshape(-1, 2).T)


def _walk(product: Product, seed: int, weight: I64) -> tuple[F64, F64]:
    """Price level and relative slope of the curve by day: a walk on trading days that touches the table of levels."""
    knots = {date_ns(dt.date(FIRST_YEAR + i, 1, 1)) // DAY_NS: level for i, level in enumerate(product.yearly)}
    knots |= {date_ns(day) // DAY_NS: level for day, level in product.turns}
    at = np.asarray(sorted(knots)) - ZERO
    values = np.asarray([knots[day] for day in sorted(knots)])
    key = seed ^ text_key(product.root)
    step = np.sqrt(np.minimum(1.0, weight / max(1, int(weight.max()))))
    days = np.arange(_DAYS)

    def wander(salt: int) -> F64:
        walk: F64 = np.cumsum(bell(keyed(key ^ text_key(f"walk {salt}"), days)) * step)
        walk -= np.interp(days, at, walk[at])
        return walk

    level = np.interp(days, at, values) * np.maximum(0.4, 1.0 + product.volatility * wander(1))
    # Nothing moves while nothing is traded.
    traded = np.maximum.accumulate(np.where(weight > 0, days, 0))
    return level[traded], product.carry + 0.004 * wander(2)[traded] * (product.expiry != "never")


def _read(table: tuple[tuple[float, float], ...], at: F64) -> F64:
    """A table of (x, y), read at some x by straight lines."""
    x, y = zip(*table, strict=True)
    out: F64 = np.interp(at, x, y)
    return out

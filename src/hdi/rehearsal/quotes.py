"""The best bid and ask around each trade, and the hours by which the rest of a book is shaped.

On each side of a book there is one order at the best price. Before each trade both are moved to where the trade will
find them, and one more order comes beside or behind them; after it the order that was hit is smaller by the trade,
and the one more is gone. In most hours nine orders stand behind them, beyond all that is traded in the hour. In the
others there are none, and in a busy one of those a side is empty for one trade.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hdi.rehearsal.draws import F64, I64, U64, Bool, bits, keyed, unit
from hdi.rehearsal.levels import Cells
from hdi.rehearsal.products import VENUES
from hdi.rehearsal.ticks import Ticks

#: How many orders stand behind the best one of a side, and how many ticks beyond what is traded the first of them.
DEPTH, GAP = 9, 8
#: So many bids of one tick's place: the order that comes beside the best one does so before each fourth trade.
FOURTH = 4
_BOOK, _SHAPE, _TIMING, _BEHIND = 21, 22, 23, 24
#: One in 256 is the unit: in how many hours nothing stands behind the best prices.
_SHALLOW = 32
#: Hours with fewer trades have no empty side.
_BUSY = 64
#: One in 4,096 is the unit: how many books are crossed. One in 256: how many spreads are of two ticks.
_CROSSED, _WIDE = 2, 26
#: A quote changes within the last part of the time since the trade before, and right after a trade.
_PART = 0.4
_AFTER_NS = 50_000


@dataclass(frozen=True, slots=True, eq=False)
class Shapes:
    """Hours: whether there are orders behind the best, and the place in the day of the trade that finds a side empty.

    The place is -1 where there is none.
    """

    deep: Bool
    empty: I64


def shapes(hours: Cells) -> Shapes:
    """What the books of some hours are like; the same for each hour, whatever is asked for with it."""
    draw = keyed(hours.key, _SHAPE)
    deep = bits(draw, 0, 8) >= _SHALLOW
    inside = hours.first + (unit(draw, 8, 24) * hours.trades).astype(np.int64)
    return Shapes(deep, np.where(~deep & (hours.trades >= _BUSY), inside, -1))


@dataclass(frozen=True, slots=True, eq=False)
class Quotes:
    """The book at each trade, as columns; prices in ticks.

    ``bid`` and ``ask`` are where the best orders are, ``bid_size`` and ``ask_size`` what they hold before the trade.
    ``hits_bid`` says which one the trade takes from. ``more_bid``, ``more_behind`` and ``more_size`` are the side, the
    ticks behind the best and the size of the one order more. ``emptied`` says where the side that is not hit has no
    order. ``bid_venue`` and ``ask_venue`` are the publishers of the best prices of a consolidated book.
    """

    bid: I64
    ask: I64
    bid_size: I64
    ask_size: I64
    hits_bid: Bool
    more_bid: Bool
    more_behind: I64
    more_size: I64
    emptied: Bool
    bid_venue: I64
    ask_venue: I64


def quotes(trades: Ticks, shape: Shapes, hour: I64) -> Quotes:
    """The book at each trade; ``hour`` is the place of its hour among those of ``shape``."""
    draw = keyed(trades.draw, _BOOK)
    hits_bid = trades.side == b"A"
    spread = 1 + (bits(draw, 0, 8) < _WIDE)
    bid = np.where(hits_bid, trades.price, trades.price - spread)
    ask = bid + spread
    crossed = bits(draw, 52, 12) < _CROSSED
    ask = np.where(crossed & hits_bid, bid - 1, ask)
    bid = np.where(crossed & ~hits_bid, ask + 1, bid)
    emptied = shape.empty[hour] == trades.place
    beside = trades.place % FOURTH == FOURTH - 1
    here, other = trades.venue, np.asarray(VENUES)[bits(draw, 40, 2)]
    return Quotes(
        bid, ask,
        bid_size=1 + bits(draw, 8, 7) + np.where(hits_bid, trades.size, 0),
        ask_size=1 + bits(draw, 15, 7) + np.where(hits_bid, 0, trades.size),
        hits_bid=hits_bid,
        more_bid=np.where(emptied, hits_bid, bits(draw, 22, 1) > 0),
        more_behind=np.where(beside, 0, 1 + bits(draw, 23, 10) % 3),
        more_size=1 + bits(draw, 33, 5),
        emptied=emptied,
        bid_venue=np.where(hits_bid, here, other), ask_venue=np.where(hits_bid, other, here),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """When the book changes before each trade and after it, in nanoseconds: within the second of the trade."""

    before: I64
    after: I64


def moments(trades: Ticks, start: I64) -> Moments:
    """When books change around trades; ``start`` is that of the second of each. All trades of a second are there."""
    event, leader = trades.ts_event, trades.leader
    first = leader == np.arange(len(leader))
    draw = keyed(trades.draw[leader], _TIMING)
    # Bursts of one second follow each other; the first of them follows the start of the second.
    previous = np.concatenate((event[:1], event[:-1]))
    fresh = np.concatenate(([True], (start[1:] != start[:-1]) | (trades.row[1:] != trades.row[:-1])))[: len(event)]
    gap = np.where(first, event - np.where(fresh, start, previous), 0)
    before = event - _some(gap, unit(draw, 0, 24))
    last = np.append(leader[1:] != leader[:-1], [True])[: len(event)]
    following = np.append(gap[1:], [0])[: len(event)]
    ends = np.append(fresh[1:], [True])[: len(event)]
    room = np.where(ends, 2 * _AFTER_NS, following) * last
    after = event + np.minimum(_some(room, unit(draw, 24, 24)), _AFTER_NS)
    return Moments(before, after)


def _some(gap: I64, share: F64) -> I64:
    out: I64 = (gap * (_PART * share)).astype(np.int64)
    return out


def behind(key: U64, side: int, number: I64) -> I64:
    """The size of an order behind the best, by the key of its hour, its side and its number from the best."""
    return 1 + bits(keyed(keyed(key, _BEHIND + side), number), 0, 7)

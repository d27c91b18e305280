"""From each level of the tape to the next finer one: how bars are split so that the parts sum exactly to the whole.

Counts are drawn first and apart from prices, so that records can be counted without making them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hdi.rehearsal.daily import FREE, Facts
from hdi.rehearsal.draws import F64, I64, U64, Bool, below, bits, keyed, unit

_COUNTS, _PINS, _SHARES = range(11, 14)
#: One in 256 is the unit: how many trades come alone, and not right after the one before.
_ALONE = 150
#: How far prices inside a bar stray from the straight line, and how far bars reach beyond their open and close: so
#: many times what a random walk would, given how many parts there are.
_STRAY, _REACH = 1.2, 0.8


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Stretches of time with trades in them, as columns of one length.

    ``row`` is the instrument and day it belongs to, ``start`` nanoseconds UTC, ``trades`` how many it holds,
    ``first`` how many trades of that day come before them, ``key`` of all its draws. ``parent`` is its place among
    the cells it was split from, ``at`` how many trades of that one come before its own.
    """

    row: I64
    start: I64
    trades: I64
    first: I64
    key: U64
    parent: I64
    at: I64

    def take(self, which: I64 | Bool) -> Cells:
        """Some of the cells."""
        return Cells(
            self.row[which], self.start[which], self.trades[which], self.first[which], self.key[which],
            self.parent[which], self.at[which],
        )  # fmt: skip

    @property
    def size(self) -> int:
        """How many cells there are."""
        return len(self.row)


def take(facts: Facts, which: I64 | Bool) -> Facts:
    """The facts of some cells."""
    return Facts(
        facts.trades[which], facts.volume[which], facts.open[which], facts.high[which], facts.low[which],
        facts.close[which],
    )  # fmt: skip


def by_weight(cells: Cells, share: F64, starts: I64) -> Cells:
    """Cells split at fixed times. ``share`` (cells, parts + 1) is what of the trades comes before each, from 0 to 1.

    ``starts`` (cells, parts) are the times in nanoseconds. Parts without trades are left out.
    """
    parts = starts.shape[1]
    edges = below(keyed(cells.key, _COUNTS)[:, None], cells.trades[:, None], share)
    trades = np.diff(edges, axis=1).ravel()
    found = np.flatnonzero(trades)
    parent, slot = found // parts, found % parts
    at = edges[:, :-1].ravel()[found]
    return _children(cells, parent, slot, starts.ravel()[found], trades[found], at)


def by_time(cells: Cells, opens: I64, slots: I64, step: int) -> Cells:
    """Cells split into ``slots`` parts of ``step`` nanoseconds from ``opens`` on; those without trades are left out."""
    dense = cells.trades > slots
    if not dense.any():
        return _sparse(cells, opens, slots, step)
    many, few = np.flatnonzero(dense), np.flatnonzero(~dense)
    parts = (
        _dense(cells.take(many), opens[many], slots[many], step),
        _sparse(cells.take(few), opens[few], slots[few], step),
    )
    parent = np.concatenate((many[parts[0].parent], few[parts[1].parent]))
    order = np.argsort(parent, kind="stable")

    def merged(name: str) -> I64:
        out: I64 = np.concatenate([getattr(p, name) for p in parts])[order]
        return out

    key = np.concatenate([p.key for p in parts])[order]
    return Cells(merged("row"), merged("start"), merged("trades"), merged("first"), key, parent[order], merged("at"))


def _dense(cells: Cells, opens: I64, slots: I64, step: int) -> Cells:
    """Many trades: each part gets a random share of them."""
    slot = np.arange(int(slots.max()))
    weight = (64 + bits(keyed(cells.key[:, None], slot), 0, 8)) * (slot < slots[:, None])
    total = np.cumsum(weight, axis=1)
    share = np.concatenate((np.zeros((cells.size, 1)), total / total[:, -1:]), axis=1)
    return by_weight(cells, share, opens[:, None] + slot * step)


def _sparse(cells: Cells, opens: I64, slots: I64, step: int) -> Cells:
    """Few trades: each finds its part, or follows the one before it."""
    parent, index, ends = expanded(cells.trades)
    draw = keyed(keyed(cells.key, _COUNTS)[parent], index)
    alone = bits(draw, 0, 8) < _ALONE
    alone[ends - cells.trades] = True
    leader = np.flatnonzero(alone)
    parent, index = parent[leader], index[leader]
    slot = ((index + unit(draw[leader], 8, 24)) * (slots / cells.trades)[parent]).astype(np.int64)
    fresh = np.ones(len(leader), np.bool_)
    fresh[1:] = (slot[1:] != slot[:-1]) | (parent[1:] != parent[:-1])
    begin, parent, slot, at = leader[fresh], parent[fresh], slot[fresh], index[fresh]
    trades = np.diff(begin, append=len(draw))
    return _children(cells, parent, slot, opens[parent] + slot * step, trades, at)


def _children(cells: Cells, parent: I64, slot: I64, start: I64, trades: I64, at: I64) -> Cells:
    return Cells(cells.row[parent], start, trades, cells.first[parent] + at, keyed(cells.key[parent], slot), parent, at)


def expanded(trades: I64) -> tuple[I64, I64, I64]:
    """For each trade its cell and its place in it; and for each cell where its trades end."""
    ends = np.cumsum(trades)
    parent = np.repeat(np.arange(len(trades)), trades)
    return parent, np.arange(len(parent)) - (ends - trades)[parent], ends


class Path:
    """How prices go through bars: from open by way of high and low to close, straying a little.

    The trades at which high and low are reached are drawn for each bar. A price depends on the bar, the trade's place
    in it and the draw given for it alone. ``parts`` is into how many bars each is split at most: the more they are,
    the less each strays.
    """

    def __init__(self, facts: Facts, key: U64, parts: int) -> None:
        trades = facts.trades
        last, inner = trades - 1, np.maximum(trades - 2, 1)
        draw = keyed(key, _PINS)
        up = 1 + (unit(draw, 0, 24) * inner).astype(np.int64)
        down = 1 + (unit(draw, 24, 24) * inner).astype(np.int64)
        # Both are reached inside, so there are two places at least: the next one is another one.
        down = np.where(down == up, 1 + up % inner, down)
        self.up = np.where(facts.high == facts.open, 0, np.where(facts.high == facts.close, last, up))
        self.down = np.where(facts.low == facts.open, 0, np.where(facts.low == facts.close, last, down))
        rising = self.down < self.up
        one, two = np.where(rising, self.down, self.up), np.where(rising, self.up, self.down)
        self._at = np.stack((np.zeros_like(last), one, two, last), axis=1).astype(np.float64)
        knots = (
            facts.open,
            np.where(rising, facts.low, facts.high),
            np.where(rising, facts.high, facts.low),
            facts.close,
        )
        self._price = np.stack(knots, axis=1).astype(np.float64)
        self._one, self._two = one, two
        #: What a part of a random walk moves.
        self.step = (facts.high - facts.low) / np.sqrt(np.minimum(trades, parts))
        self._stray = self.step * _STRAY
        self._high, self._low = facts.high, facts.low

    def price(self, bar: I64, place: I64, fraction: F64) -> I64:
        """The price in ticks of the trade at a place in its bar, with a fraction in [0, 1) for where it strays to."""
        knot = (place > self._one[bar]).astype(np.int64) + (place > self._two[bar])
        knot += bar * 4
        at, price = self._at.ravel(), self._price.ravel()
        begin, start = at[knot], price[knot]
        knot += 1
        way = (place - begin) / np.maximum(at[knot] - begin, 1.0)
        out = start + (price[knot] - start) * way
        # At the knots themselves nothing strays.
        out += self._stray[bar] * (fraction - 0.5) * (way * (1.0 - way) * 4.0)
        found: I64 = np.rint(out).astype(np.int64)
        return np.minimum(np.maximum(found, self._low[bar], out=found), self._high[bar], out=found)


def priced(parents: Cells, whole: Facts, cells: Cells, parts: int) -> Facts:
    """The facts of all cells that ``parents`` with the facts ``whole`` were split into, at most ``parts`` for each."""
    parent, place, trades = cells.parent, cells.at, cells.trades
    path = Path(whole, parents.key, parts)
    fraction = unit(cells.key, 0, 12)
    opening = path.price(parent, place, fraction)
    close = opening.copy()
    several = np.flatnonzero(trades > 1)
    # The bar ends where the next one starts.
    following = np.minimum(several + 1, cells.size - 1)
    close[several] = path.price(parent[several], (place + trades - 1)[several], fraction[following])
    high, low = np.maximum(opening, close), np.minimum(opening, close)
    _reach(path, whole, cells, high, low)
    volume = trades + shares(parents, whole, cells, trades * (32 + bits(cells.key, 12, 8)))
    return Facts(trades, volume, opening, high, low, close)


def _reach(path: Path, whole: Facts, cells: Cells, high: I64, low: I64) -> None:
    """Let the bars that may do so reach beyond open and close; exactly those that hold them touch high and low."""
    wide = np.flatnonzero(cells.trades >= FREE - 1)
    parent, first, trades, key = cells.parent[wide], cells.at[wide], cells.trades[wide], cells.key[wide]
    last = first + trades - 1
    up, down = path.up[parent], path.down[parent]
    has_high, has_low = (up > first) & (up < last), (down > first) & (down < last)
    free, coin = trades >= FREE, (key >> np.uint64(63)).astype(np.bool_)
    ceiling, floor = whole.high[parent], whole.low[parent]
    reach = path.step[parent] * _REACH
    more = np.where(free | (coin & ~has_low), np.rint(reach * unit(key, 20, 12)), 0).astype(np.int64)
    less = np.where(free | (~coin & ~has_high), np.rint(reach * unit(key, 32, 12)), 0).astype(np.int64)
    high[wide] = np.where(has_high, ceiling, np.minimum(high[wide] + more, ceiling))
    low[wide] = np.where(has_low, floor, np.maximum(low[wide] - less, floor))


def shares(parents: Cells, whole: Facts, cells: Cells, weight: I64) -> I64:
    """What each cell gets, by weight, of the volume that its parent has beyond one for each trade."""
    total = np.cumsum(weight)
    # Every parent has trades, so it has cells: these are theirs in turn.
    starts = np.flatnonzero(cells.at == 0)
    before = total[starts] - weight[starts]
    ends = np.append(starts, cells.size)[1:] - 1
    parent = cells.parent
    part = (total - before[parent]) / (total[ends] - before)[parent]
    more = (whole.volume - whole.trades)[parent]
    reached = np.floor(more * part + unit(keyed(parents.key, _SHARES))[parent]).astype(np.int64)
    out: I64 = np.diff(reached, prepend=0)
    out[starts] = reached[starts]
    return out

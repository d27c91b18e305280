"""The bottom of the tape: the trades in each second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hdi.rehearsal.daily import Facts
from hdi.rehearsal.draws import I64, U64, bits, keyed, unit
from hdi.rehearsal.layouts import LAST, Records
from hdi.rehearsal.levels import Cells, Path, expanded, shares
from hdi.rehearsal.products import VENUES

#: One in 256 is the unit: how many trades are no part of the burst before them.
_ALONE = 190
#: The last event of a second, and what a message takes to the vendor, end before the second does.
_LAST_EVENT_NS = 998_000_000
_LATENCY_NS, _LATENCY_RANGE_NS = 40_000, 900_000
#: Sequence numbers start again on Sunday. The epoch was a Thursday.
_WEEK_DAYS, _THURSDAY, _DAY_SEQUENCES = 7, 4, 500_000_000
#: A second is split into as many parts as it has trades.
_MOST = 2**31
_SIDES = np.frombuffer(b"A" * 125 + b"B" * 125 + b"N" * 6, "S1")
_VENUE = 25


@dataclass(frozen=True, slots=True, eq=False)
class Ticks:
    """Trades as columns of one length, those of one row (instrument and day) in their order; prices in ticks."""

    row: I64
    place: I64
    ts_event: I64
    ts_recv: I64
    leader: I64
    draw: U64
    price: I64
    size: I64

    @property
    def side(self) -> np.ndarray[Any, np.dtype[Any]]:
        """Who began each trade: one side for all of a burst."""
        out: np.ndarray[Any, np.dtype[Any]] = _SIDES[bits(self.draw[self.leader], 32, 8)]
        return out

    @property
    def venue(self) -> I64:
        """The publisher of each trade, where there are several: one for all of a burst."""
        return np.asarray(VENUES)[bits(keyed(self.draw[self.leader], _VENUE), 0, 2)]


@dataclass(frozen=True, slots=True, eq=False)
class Times:
    """When the trades of some seconds happen: for each its second and place in it, times, first of its burst, draw."""

    second: I64
    index: I64
    ts_event: I64
    ts_recv: I64
    leader: I64
    draw: U64


def times(seconds: Cells) -> Times:
    """The times of all trades of the seconds. A burst shares its times; both fall into the same second."""
    second, index, ends = expanded(seconds.trades)
    draw = keyed(seconds.key[second], index)
    alone = bits(draw, 0, 8) < _ALONE
    alone[ends - seconds.trades] = True
    leader = np.maximum.accumulate(np.where(alone, np.arange(len(second)), 0))
    spacing = (_LAST_EVENT_NS / seconds.trades)[second]
    inside = ((index + unit(draw, 8, 24)) * spacing).astype(np.int64)
    event = (seconds.start[second] + inside)[leader]
    # All messages of a second take the same time, so that they arrive in their order.
    latency = _LATENCY_NS + (unit(seconds.key, 40, 24) * _LATENCY_RANGE_NS).astype(np.int64)
    return Times(second, index, event, event + latency[second], leader, draw)


def ticks(seconds: Cells, facts: Facts) -> Ticks:
    """The trades of seconds with the given facts."""
    at = times(seconds)
    price = facts.open[at.second]
    ends = np.cumsum(seconds.trades)
    price[ends - 1] = facts.close
    moving = np.flatnonzero((seconds.trades[at.second] > 2) & (at.index > 0))  # noqa: PLR2004
    if len(moving):
        path = Path(facts, seconds.key, _MOST)
        price[moving] = path.price(at.second[moving], at.index[moving], unit(at.draw[moving], 48, 12))
    weight = bits(at.draw, 40, 8)
    cells = Cells(at.second, at.ts_event, np.ones_like(price), at.index, at.draw, at.second, at.index)
    size = 1 + shares(seconds, facts, cells, 1 + weight * weight)
    row = seconds.row[at.second]
    return Ticks(row, seconds.first[at.second] + at.index, at.ts_event, at.ts_recv, at.leader, at.draw, price, size)


def fill(out: Records, trades: Ticks, order: I64, tick: I64, day: I64) -> None:
    """Write the trades, in the given order, into blank records; ``tick`` (1e-9) and ``day`` are by row.

    Only what the records have: those at the end of an interval tell of a trade, and are none.
    """
    row, leader = trades.row[order], trades.leader[order]
    first = trades.draw[leader]
    out["ts_event"] = trades.ts_event[order]
    out["price"] = trades.price[order] * tick[row]
    out["size"] = trades.size[order]
    out["side"] = trades.side[order]
    # The event ends with the last of a burst, or with the book updates that follow it.
    ends = np.append(trades.leader[1:] != trades.leader[:-1], [True])[order] & (bits(first, 24, 1) > 0)
    out["flags"] = ends * np.uint8(LAST)
    out["ts_recv"] = trades.ts_recv[order]
    names = out.dtype.names or ()
    if "action" in names:
        out["action"] = b"T"
        out["ts_in_delta"] = 9_000 + bits(first, 10, 14)
    if "sequence" not in names:
        return
    # The first of a burst stands as far before each of it in the day as here.
    place = trades.place[order] - (order - leader)
    out["sequence"] = 1 + (day[row] + _THURSDAY) % _WEEK_DAYS * _DAY_SEQUENCES + place % _DAY_SEQUENCES

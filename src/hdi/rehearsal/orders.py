"""What happens in a book around each trade, step by step, and the orders by which it does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hdi.model import DAY_NS
from hdi.rehearsal.draws import I64, Bool
from hdi.rehearsal.layouts import LAST
from hdi.rehearsal.levels import Cells
from hdi.rehearsal.quotes import DEPTH, FOURTH, Shapes, shapes
from hdi.rehearsal.sessions import HOUR_NS

#: The steps around a trade, in their order. With the first trade of an hour what stood behind the best prices goes,
#: farthest first, and what stands there in this hour comes, nearest first; a day that begins with an empty book
#: begins with a clear. The best orders move, the ask first where the bid goes up: they do not cross on their way.
CLEAR = 0
GO_BID, GO_ASK = 1, 1 + DEPTH
MOVE_FIRST, MOVE_SECOND = 1 + 2 * DEPTH, 2 + 2 * DEPTH
COME_BID, COME_ASK = 3 + 2 * DEPTH, 3 + 3 * DEPTH
#: One order more comes; the side that is not hit goes, where it is emptied; the trade, and the fill of what it hit;
#: what is left of that; the one more goes; where a side was emptied, both are made of new orders.
MORE, EMPTY, TRADE, FILL, LEFT, LESS, GONE, NEW_BID, NEW_ASK = range(3 + 4 * DEPTH, 12 + 4 * DEPTH)
STEPS = NEW_ASK + 1
#: The last step of each event.
_ENDS = CLEAR, MOVE_FIRST - 1, MOVE_SECOND, MORE - 1, MORE, EMPTY, LEFT, LESS, NEW_ASK


def _table(default: bytes, *parts: tuple[bytes, range]) -> np.ndarray[tuple[int], np.dtype[np.bytes_]]:
    out = np.full(STEPS, default, "S1")
    for letter, steps in parts:
        out[steps.start : steps.stop] = letter
    return out


#: The vendor's action and side of each step; those of a trade and a fill depend on it.
ACTIONS = _table(
    b"A", (b"R", range(1)), (b"C", range(GO_BID, MOVE_FIRST)), (b"M", range(MOVE_FIRST, COME_BID)),
    (b"C", range(EMPTY, TRADE)), (b"T", range(TRADE, FILL)), (b"F", range(FILL, LEFT)), (b"M", range(LEFT, LESS)),
    (b"C", range(LESS, NEW_BID)),
)  # fmt: skip
FLAGS = np.zeros(STEPS, np.uint8)
FLAGS[list(_ENDS)] = LAST
#: Steps on a whole side: which of its orders is meant, from the best of those behind.
NUMBERS = np.zeros(STEPS, np.int64)
for _number in range(DEPTH):
    NUMBERS[[GO_BID + _number, GO_ASK + _number]] = DEPTH - 1 - _number
    NUMBERS[[COME_BID + _number, COME_ASK + _number]] = _number
#: The steps that each trade has, by schema: a book by price knows no fills, and its best prices no orders behind.
_ALWAYS = {
    "mbo": (MOVE_FIRST, MOVE_SECOND, MORE, TRADE, FILL, LEFT, LESS),
    "mbp-10": (MOVE_FIRST, MOVE_SECOND, MORE, TRADE, LEFT, LESS),
    "mbp-1": (MOVE_FIRST, MOVE_SECOND, TRADE, LEFT),
    "cmbp-1": (MOVE_FIRST, MOVE_SECOND, TRADE, LEFT),
}
BOOKS = tuple(_ALWAYS)
_FOURTH = MORE, LESS
_EMPTIED = EMPTY, GONE, NEW_BID, NEW_ASK
_GOING, _COMING = tuple(range(GO_BID, MOVE_FIRST)), tuple(range(COME_BID, MORE))
#: An order number is made of day, instrument and a code: the best orders, those behind them, and those beside a trade.
_DAY_BITS, _CODE_BITS = 14, 32
_BEHIND, _BESIDE = 64, 4_096
_DAY_HOURS = 24


@dataclass(frozen=True, slots=True, eq=False)
class Hours:
    """The hours with trades of whole days, and what is needed of them to know the book.

    ``before`` is the hour before of the same row, or -1. ``opens`` says which are the first of their day, ``stood``
    whether orders stand behind the best ones when an hour begins. ``version`` tells the best orders of an hour from
    those that were there before a side was emptied.
    """

    cells: Cells
    shape: Shapes
    before: I64
    stood: Bool
    version: I64

    @property
    def opens(self) -> Bool:
        """The first hour of each day."""
        out: Bool = self.before < 0
        return out


def hours_of(cells: Cells, *, standing: bool) -> Hours:
    """All hours of whole rows; ``standing``: orders stand behind the best ones when a day begins."""
    shape = shapes(cells)
    same = np.concatenate(([False], cells.row[1:] == cells.row[:-1]))[: cells.size]
    before = np.where(same, np.arange(cells.size) - 1, -1)
    stood = np.where(same, shape.deep[before], standing) if cells.size else np.zeros(0, np.bool_)
    hour = 1 + cells.start // HOUR_NS % _DAY_HOURS
    emptied = np.maximum.accumulate((cells.row << 8) + np.where(shape.empty >= 0, hour, 0)) if cells.size else hour
    earlier = np.where(same, emptied[before] - (cells.row << 8), 0) if cells.size else hour
    return Hours(cells, shape, before, stood, np.maximum(earlier, 0))


class Steps:
    """The steps of one schema around trades."""

    def __init__(self, schema: str, *, clears: bool) -> None:
        self._always = _ALWAYS[schema]
        self._fourth = _FOURTH if len(self._always) == len(_ALWAYS["mbp-1"]) else ()
        self._behind = not self._fourth
        self._clears = clears

    def count(self, hours: Hours, hour: I64, first: I64, trades: I64) -> I64:
        """How many records stretches of trades have, each within one hour: so many from a place in the day on."""
        out = len(self._always) * trades
        if self._fourth:
            out += len(self._fourth) * ((first + trades) // FOURTH - first // FOURTH)
        empty = hours.shape.empty[hour]
        out += len(_EMPTIED) * ((empty >= first) & (empty < first + trades))
        begins = (first == hours.cells.first[hour]) & (trades > 0)
        if self._behind:
            out += begins * len(_GOING) * (hours.stood[hour].astype(np.int64) + hours.shape.deep[hour])
        if self._clears:
            out += begins & hours.opens[hour]
        return out

    def around(self, hours: Hours, hour: I64, place: I64) -> tuple[I64, I64]:
        """``(trade, step)`` of each record, in order, for trades at places in the days of their hours."""
        number = np.arange(len(place))
        begins = number[place == hours.cells.first[hour]]
        at = hour[begins]
        parts = [(number, self._always), (number[hours.shape.empty[hour] == place], _EMPTIED)]
        if self._fourth:
            parts.append((number[place % FOURTH == FOURTH - 1], self._fourth))
        if self._behind:
            parts += [(begins[hours.stood[at]], _GOING), (begins[hours.shape.deep[at]], _COMING)]
        if self._clears:
            parts.append((begins[hours.opens[at]], (CLEAR,)))
        code = np.sort(np.concatenate([(some[:, None] * STEPS + np.asarray(steps)).ravel() for some, steps in parts]))
        return code // STEPS, code % STEPS


def base(which: I64, day: I64) -> I64:
    """Where the order numbers of each instrument and day begin."""
    return ((day << _DAY_BITS) + which) << _CODE_BITS


def best_order(side: I64 | int, version: I64 | int) -> I64:
    """The code of the best order of a side (0 is the bid)."""
    return np.asarray(side + 2 * np.asarray(version), np.int64)


def order_behind(hour: I64 | int, side: I64 | int, number: I64 | int) -> I64:
    """The code of an order behind the best: of an hour of the day (-1: from the day before), side and number."""
    return np.asarray(_BEHIND + ((np.asarray(hour) + 1) * 2 + side) * DEPTH + number, np.int64)


def order_beside(place: I64) -> I64:
    """The code of the order that comes before a trade and goes after it."""
    return _BESIDE + place


def hour_of_day(hours: Cells) -> I64:
    """The hour of the day of each."""
    return hours.start % DAY_NS // HOUR_NS

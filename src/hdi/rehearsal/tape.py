"""From what is selected to cells and their facts, level by level, in pieces of bounded size."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hdi.model import DAY_NS, NS, date_ns
from hdi.rehearsal.contracts import Instruments
from hdi.rehearsal.daily import Days, Facts
from hdi.rehearsal.draws import I64, U64, Bool, keyed, text_key, unit
from hdi.rehearsal.hostile import Hostility
from hdi.rehearsal.levels import Cells, by_time, by_weight, priced, take
from hdi.rehearsal.sessions import HOUR_NS, MINUTE_NS, ZERO
from hdi.rehearsal.ticks import times

#: A rectangle: an instrument id and its time [start, end) in nanoseconds.
Rectangle = tuple[int, int, int]
#: How many rows (instrument and day) are looked at together, and about how many records are made of them.
_ROWS, _RECORDS = 4_096, 1 << 17
_HOURS = np.arange(25)
_DAY_HOURS = 24
#: Into how many parts an hour and a minute are split.
SPLIT = 60
#: A restated day differs by 1 to this many ticks, up or down.
_RESTATED = 8


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Instruments on UTC days, by day and instrument: the part ``[low, high)`` (ns) of each is wanted."""

    which: I64
    day: I64
    low: I64
    high: I64

    def take(self, chosen: I64 | Bool | slice) -> Rows:
        """Some of the rows."""
        return Rows(self.which[chosen], self.day[chosen], self.low[chosen], self.high[chosen])

    @property
    def whole(self) -> Bool:
        """Which rows are wanted from midnight to midnight."""
        return (self.low <= self.day * DAY_NS) & (self.high >= (self.day + 1) * DAY_NS)

    def starting(self, start: I64, row: I64) -> Bool:
        """Which of some instants lie in the wanted part of their rows."""
        return (start >= self.low[row]) & (start < self.high[row])

    def touching(self, start: I64, width: int, row: I64) -> Bool:
        """Which of some stretches of a width touch the wanted part of their rows."""
        return (start + width > self.low[row]) & (start < self.high[row])


def selected(book: Instruments, selection: Sequence[Rectangle], start: int, end: int) -> Rows:
    """The rows that rectangles select inside a window; what several of them select comes once."""
    spans: dict[int, list[tuple[int, int]]] = {}
    for identifier, first, last in selection:
        for i in book.by_id.get(identifier, ()):
            low = max(first, start, i.first * DAY_NS, date_ns(book.begins))
            high = min(last, end, (i.last + 1) * DAY_NS)
            if low < high:
                spans.setdefault(i.number, []).append((low, high))
    flat = [(number, low, high) for number, each in spans.items() for low, high in _joined(each)]
    which, begin, stop = np.asarray(flat, np.int64).reshape(-1, 3).T
    from_day = begin // DAY_NS
    count = -(-stop // DAY_NS) - from_day
    span = np.repeat(np.arange(len(which)), count)
    day = from_day[span] + np.arange(len(span)) - np.repeat(np.cumsum(count) - count, count)
    rows = Rows(which[span], day, np.maximum(begin[span], day * DAY_NS), np.minimum(stop[span], (day + 1) * DAY_NS))
    return rows.take(np.lexsort((rows.low, rows.which, rows.day)))


def _joined(spans: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    at: tuple[int, int] | None = None
    for low, high in sorted(spans):
        if at is None:
            at = low, high
        elif low <= at[1]:
            at = at[0], max(at[1], high)
        else:
            yield at
            at = low, high
    if at is not None:
        yield at


def blocks(rows: Rows, size: int = _ROWS) -> Iterator[Rows]:
    """The rows in blocks of whole days, as many of them as make about ``size`` rows."""
    bounds = np.append(np.flatnonzero(np.diff(rows.day, prepend=-1)), len(rows.day))
    here = 0
    while here < len(bounds) - 1:
        # The last day that still fits, but at least one.
        after = max(here + 1, int(np.searchsorted(bounds, bounds[here] + size, side="right")) - 1)
        yield rows.take(slice(int(bounds[here]), int(bounds[after])))
        here = after


class Tape:
    """What happened to the instruments of one dataset, at every level of detail."""

    def __init__(self, book: Instruments, days: Days, restated: Collection[dt.date]) -> None:
        self._book = book
        self._days = days
        self._restated = np.asarray(sorted(date_ns(day) // DAY_NS for day in restated), np.int64)
        self.tick = np.asarray([i.product.tick for i in book.all], np.int64)

    def daily(self, rows: Rows) -> Facts:
        """The facts of each row; 0 trades where there are none."""
        facts = self._days.facts(rows.which, rows.day)
        changed = np.flatnonzero(np.isin(rows.day, self._restated) & (facts.trades > 0))
        if not len(changed):
            return facts
        # Only what belongs to the session of that day was changed, so the day is the sum of its hours.
        hours, parts = self.hours(rows.take(changed))
        starts = np.flatnonzero(np.diff(hours.row, prepend=-1))
        ends = np.append(starts[1:], hours.size) - 1
        for name, values in (
            ("open", parts.open[starts]), ("close", parts.close[ends]),
            ("high", np.maximum.reduceat(parts.high, starts)), ("low", np.minimum.reduceat(parts.low, starts)),
        ):  # fmt: skip
            getattr(facts, name)[changed] = values
        return facts

    def activity(self, rows: Rows) -> I64:
        """The trades of the whole day of each row."""
        return self._days.activity(rows.which, rows.day)[0]

    def keys(self, rows: Rows) -> U64:
        """The keys of all draws for each row."""
        return self._days.key(rows.which, rows.day)

    def roots(self, rows: Rows, trades: I64) -> Cells:
        """The rows as cells, those without trades left out."""
        row = np.flatnonzero(trades)
        zero = np.zeros_like(row)
        key = self._days.key(rows.which[row], rows.day[row])
        return Cells(row, rows.day[row] * DAY_NS, trades[row], zero, key, zero, zero)

    def hours(self, rows: Rows) -> tuple[Cells, Facts]:
        """The hours with trades of whole rows, by row and time."""
        facts = self._days.facts(rows.which, rows.day)
        days = self.roots(rows, facts.trades)
        cells = self.hour_cells(rows, days)
        parts = priced(days, take(facts, days.row), cells, _DAY_HOURS)
        day = rows.day[cells.row]
        changed = np.flatnonzero(np.isin(day, self._restated))
        if len(changed):
            session = self._book.sessions.session[cells.start[changed] // HOUR_NS - ZERO * _DAY_HOURS]
            changed = changed[self._book.sessions.date[session] == day[changed]]
            shift = self._shift(rows, cells.row[changed])
            for prices in (parts.open, parts.high, parts.low, parts.close):
                prices[changed] += shift
        return cells, parts

    def _shift(self, rows: Rows, row: I64) -> I64:
        draw = keyed(self._days.key(rows.which[row], rows.day[row]), text_key("restated"))
        size = 1 + (unit(draw, 0, 24) * _RESTATED).astype(np.int64)
        return np.where(draw >> np.uint64(63), size, -size)

    def hour_cells(self, rows: Rows, days: Cells) -> Cells:
        """The hours of days, without prices."""
        before = self._book.sessions.before
        starts = days.start[:, None] + _HOURS * HOUR_NS
        end = self._days.end(rows.which[days.row], rows.day[days.row])
        weight = before(np.minimum(starts, end[:, None]))
        weight -= weight[:, :1]
        return by_weight(days, weight / weight[:, -1:], starts[:, :-1])

    def minute_cells(self, rows: Rows, hours: Cells) -> Cells:
        """The minutes of hours, without prices."""
        sessions = self._book.sessions
        hour = hours.start // HOUR_NS - ZERO * _DAY_HOURS
        end = self._days.end(rows.which[hours.row], rows.day[hours.row]) - hours.start
        last = np.minimum(sessions.high[hour], end // MINUTE_NS)
        first = sessions.low[hour]
        return by_time(hours, hours.start + first * MINUTE_NS, last - first, MINUTE_NS)

    def second_cells(self, rows: Rows, minutes: Cells) -> Cells:
        """The seconds of minutes, without prices."""
        del rows  # Seconds are never cut.
        return by_time(minutes, minutes.start, np.full(minutes.size, SPLIT), NS)

    def pieces(self, rows: Rows, most: int) -> Iterator[tuple[Rows, Cells, Facts]]:
        """The hours that touch the wanted parts, in pieces of some hours of all rows with about 131,072 records.

        There are at most as many records as trades, and ``most`` in an hour.
        """
        for block in blocks(rows):
            cells, facts = self.hours(block)
            wanted = block.touching(cells.start, HOUR_NS, cells.row)
            if not wanted.all():
                cells, facts = cells.take(wanted), take(facts, wanted)
            for chosen in in_time(cells, np.minimum(cells.trades, most), _RECORDS):
                yield block, cells.take(chosen), take(facts, chosen)

    def trades(self, rows: Rows) -> tuple[I64, I64]:
        """``(trades of the whole day, trades in the wanted part)`` of each row, by receipt; prices are not made."""
        trades = self.activity(rows)
        wanted = trades.copy()
        cut = np.flatnonzero(~rows.whole & (trades > 0))
        if len(cut):
            part = rows.take(cut)
            wanted[cut] = self.trades_within(part, self.roots(part, trades[cut]))
        return trades, wanted

    def trades_within(self, rows: Rows, days: Cells) -> I64:
        """How many trades of days lie in the wanted part of their rows: only what an edge cuts is split further."""
        found = np.zeros(len(rows.day), np.int64)
        cells = self.hour_cells(rows, days)
        for width, split in (
            (HOUR_NS, self.minute_cells), (MINUTE_NS, self.second_cells), (NS, None),
        ):  # fmt: skip
            start, row = cells.start, cells.row
            inside = (start >= rows.low[row]) & (start + width <= rows.high[row])
            np.add.at(found, row[inside], cells.trades[inside])
            cells = cells.take(~inside & rows.touching(start, width, row))
            if split:
                cells = split(rows, cells)
        at = times(cells)
        row = cells.row[at.second]
        np.add.at(found, row[rows.starting(at.ts_recv, row)], 1)
        return found


def in_time(cells: Cells, records: I64, most: int) -> Iterator[I64]:
    """Cells of one width in pieces by time, of about ``most`` records each; all cells of one time come together."""
    order = np.argsort(cells.start, kind="stable")
    start, filled = cells.start[order], np.cumsum(records[order])
    at = 0
    while at < cells.size:
        done = int(filled[at - 1]) if at else 0
        stop = int(np.searchsorted(filled, done + most, side="right"))
        # At least those of this time, and none in part.
        here = int(np.searchsorted(start, start[at], side="right"))
        if stop < cells.size:
            stop = int(np.searchsorted(start, start[stop], side="left"))
        stop = max(stop, here)
        yield np.sort(order[at:stop])
        at = stop


def places_of(cells: Cells, row: I64, place: I64) -> tuple[I64, Bool]:
    """For places in the days of rows (trades, from 0) the cell that holds each, and whether there is one."""
    if not cells.size:
        return np.zeros_like(row), np.zeros(len(row), np.bool_)
    # Cells stand in the order of row and place.
    key = (cells.row << 40) + cells.first
    at = np.maximum(np.searchsorted(key, (row << 40) + place, side="right") - 1, 0)
    inside = (cells.row[at] == row) & (place < cells.first[at] + cells.trades[at]) & (place >= cells.first[at])
    return at, inside


def bad_trades(tape: Tape, hostility: Hostility, rows: Rows, cells: Cells) -> tuple[I64, U64]:
    """Which trades of the cells have a bad copy, and its draw."""
    total = tape.activity(rows)
    row, place, draw = hostility.places(tape.keys(rows), total, total)
    at, inside = places_of(cells, row, place)
    starts = np.cumsum(cells.trades) - cells.trades
    at, place, draw = at[inside], place[inside], draw[inside]
    return starts[at] + place - cells.first[at], draw

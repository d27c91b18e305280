"""Books as the vendor's records: every order (mbo), ten prices of each side (mbp-10), or the best (mbp-1, cmbp-1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import databento_dbn as dbn
import numpy as np

from hdi.model import DAY_NS, NS
from hdi.rehearsal import orders
from hdi.rehearsal.contracts import Instruments
from hdi.rehearsal.daily import Days, Facts
from hdi.rehearsal.draws import I64, Bool, bits, keyed
from hdi.rehearsal.hostile import Hostility, moved
from hdi.rehearsal.layouts import LAST, Records, blank
from hdi.rehearsal.levels import Cells, priced, take
from hdi.rehearsal.orders import Hours, Steps, hours_of
from hdi.rehearsal.pages import Page, written
from hdi.rehearsal.products import GLOBEX
from hdi.rehearsal.quotes import DEPTH, GAP, Quotes, moments, quotes
from hdi.rehearsal.sessions import HOUR_NS, MINUTE_NS
from hdi.rehearsal.sides import Sides, settled
from hdi.rehearsal.standing import Standing, sizes_of, stands
from hdi.rehearsal.tape import SPLIT, Rows, Tape, bad_trades, blocks, in_time, places_of
from hdi.rehearsal.ticks import Ticks, ticks, times

#: About how many trades are made into records at a time.
_TRADES = 1 << 14
_OPENING, _EARLIER = 41, 42
_SNAPSHOT = 40
#: How long before what follows it a book is cleared: less than any message takes.
_CLEAR_NS = 1_000
_EARLIER_NS = 4 * HOUR_NS


class Depth:
    """One schema of the book."""

    def __init__(self, schema: str, book: Instruments, tape: Tape, days: Days, hostile: int) -> None:
        self._schema = schema
        self._book = book
        self._tape = tape
        self._days = days
        # The venue of futures publishes its book at midnight UTC; elsewhere a day begins with an empty one.
        self._standing = book.dataset == GLOBEX
        self._snapshot = self._standing and schema == "mbo"
        self._steps = Steps(schema, clears=not self._standing)
        self._hostility = Hostility(schema, hostile)

    def count(self, rows: Rows) -> tuple[int, int]:
        """See Feed."""
        found = planted = 0
        for block in blocks(rows):
            total = self._tape.activity(block)
            row, place, _ = self._hostility.places(self._tape.keys(block), total, total)
            bad, good = self._counted(block, total, row, place)
            found, planted = found + good + bad, planted + bad
            if self._snapshot:
                found += int(self._shown(block, total).sum()) * (1 + 2 * (1 + DEPTH))
        return found, planted

    def _counted(self, rows: Rows, total: I64, bad_row: I64, bad_place: I64) -> tuple[int, int]:
        """The bad records and the good ones of the wanted part: only what an edge cuts is split to its trades."""
        hours = hours_of(self._tape.hour_cells(rows, self._tape.roots(rows, total)), standing=self._standing)
        cells, hour = hours.cells, np.arange(hours.cells.size)
        bad = good = 0
        for width, split in (
            (HOUR_NS, self._tape.minute_cells), (MINUTE_NS, self._tape.second_cells), (NS, None),
        ):  # fmt: skip
            start, row = cells.start, cells.row
            inside = (start >= rows.low[row]) & (start + width <= rows.high[row])
            whole = cells.take(inside)
            good += int(self._steps.count(hours, hour[inside], whole.first, whole.trades).sum())
            bad += int(places_of(whole, bad_row, bad_place)[1].sum())
            cut = ~inside & rows.touching(start, width, row)
            cells, hour = cells.take(cut), hour[cut]
            if split:
                parts = split(rows, cells)
                cells, hour = parts, hour[parts.parent]
        at = times(cells)
        row, place = cells.row[at.second], cells.first[at.second] + at.index
        zero = np.zeros_like(place)
        made = Ticks(row, place, at.ts_event, at.ts_recv, at.leader, at.draw, zero, zero)
        trade, step = self._steps.around(hours, hour[at.second], place)
        received = _received(made, cells.start[at.second], trade, step)
        good += int(rows.starting(received, row[trade]).sum())
        cell, known = places_of(cells, bad_row, bad_place)
        starts = np.cumsum(cells.trades) - cells.trades
        which = (starts[cell] + bad_place - cells.first[cell])[known] if cells.size else zero[:0]
        return bad + int(rows.starting(at.ts_recv[which], row[which]).sum()), good

    def records(self, rows: Rows) -> Iterator[Records]:
        """See Feed."""
        # One day at a time, so that its snapshot comes first.
        for block in blocks(rows, 1):
            total = self._tape.activity(block)
            opening, level = self._opening(block)
            if self._snapshot:
                shown = np.flatnonzero(self._shown(block, total))
                if len(shown):
                    yield self._published(block.take(shown), opening.take(shown), level[shown])
            cells, facts = self._tape.hours(block)
            hours = hours_of(cells, standing=self._standing)
            standing = stands(hours, facts, level, self._tape.keys(block))
            for chosen in self._wanted(block, hours):
                for hour, seconds, parts in self._seconds(block, cells, facts, chosen):
                    made = self._made(block, hours, standing, hour, seconds, ticks(seconds, parts), opening)
                    if len(made):
                        yield made

    def _wanted(self, rows: Rows, hours: Hours) -> Iterator[I64]:
        """Hours that touch the wanted parts, and before them those that say how the book stood, in pieces by time."""
        wanted = rows.touching(hours.cells.start, HOUR_NS, hours.cells.row)
        earlier = hours.before[wanted]
        wanted[earlier[earlier >= 0]] = True
        which = np.flatnonzero(wanted)
        some = hours.cells.take(which)
        for chosen in in_time(some, some.trades, 8 * _TRADES):
            yield which[chosen]

    def _seconds(self, rows: Rows, cells: Cells, facts: Facts, chosen: I64) -> Iterator[tuple[I64, Cells, Facts]]:
        """The seconds of some hours with their facts and the hour of each, in pieces by time."""
        hours, whole = cells.take(chosen), take(facts, chosen)
        minutes = self._tape.minute_cells(rows, hours)
        parts = priced(hours, whole, minutes, SPLIT)
        needed = minutes.start < rows.high[minutes.row]
        hour, minutes, parts = chosen[minutes.parent][needed], minutes.take(needed), take(parts, needed)
        for piece in in_time(minutes, minutes.trades, _TRADES):
            some, of_some = minutes.take(piece), take(parts, piece)
            seconds = self._tape.second_cells(rows, some)
            yield hour[piece][seconds.parent], seconds, priced(some, of_some, seconds, SPLIT)

    def _made(  # noqa: PLR0913, PLR0917  (what a book is known by)
        self, rows: Rows, hours: Hours, standing: tuple[Standing, Standing], second_hour: I64, seconds: Cells,
        trades: Ticks, carried: Sides,
    ) -> Records:  # fmt: skip
        hour = np.repeat(second_hour, seconds.trades)
        book = quotes(trades, hours.shape, hour)
        before = _before(trades, book, carried)
        trade, step = self._steps.around(hours, hour, trades.place)
        bad, draw = bad_trades(self._tape, self._hostility, rows, seconds)
        trade, step = np.append(trade, bad), np.append(step, np.full(len(bad), orders.TRADE))
        start = np.repeat(seconds.start, seconds.trades)
        received = _received(trades, start, trade, step)
        wanted = rows.starting(received, trades.row[trade])
        draw = draw[wanted[len(wanted) - len(bad) :]]
        trade, step, received = trade[wanted], step[wanted], received[wanted]
        order = np.argsort(received, kind="stable")
        page = Page(rows, hours, standing, hour, trades, book, before, trade[order], step[order])
        out = written(page, self._schema, self._book, self._tape)
        out["ts_recv"] = received[order]
        out["ts_event"] = received[order] - (trades.ts_recv - trades.ts_event)[page.trade]
        self._hostility.spoil(out, moved(order, len(order) - len(draw)), draw)
        return out

    def _opening(self, rows: Rows) -> tuple[Sides, I64]:
        """The best prices that each row's day begins with, and what the day before ended at."""
        level = self._days.fair(rows.which, rows.day - 1)
        if not self._standing:
            return Sides.nothing(len(level)), level
        draw, one = keyed(self._tape.keys(rows), _OPENING), np.ones_like(level)
        size = 1 + bits(draw, 0, 7), 1 + bits(draw, 7, 7)
        return Sides(level - 1, size[0], one, one, level + 1, size[1], one.copy(), one), level

    def _shown(self, rows: Rows, total: I64) -> Bool:
        """The rows whose book at midnight is wanted: those that are traded on the day."""
        out: Bool = (rows.low <= rows.day * DAY_NS) & (total > 0)
        return out

    def _published(self, rows: Rows, opening: Sides, level: I64) -> Records:
        """The books at midnight: a clear, and every order of each side from the best on."""
        size, per = len(rows.day), 1 + 2 * (1 + DEPTH)
        out = blank("mbo", size * per, self._book.publisher)
        row = np.repeat(np.arange(size), per)
        at = np.arange(size * per) % per - 1
        number, side = at % (1 + DEPTH) - 1, at // (1 + DEPTH)
        keys = self._tape.keys(rows)
        best, sizes = number < 0, sizes_of(keys)
        way = np.where(side == 0, -1, 1)
        price = np.where(side == 0, opening.bid[row], opening.ask[row])
        price = np.where(best, price, level[row] + way * (GAP + number))
        held = np.where(side == 0, opening.bid_size[row], opening.ask_size[row])
        held = np.where(best, held, sizes[row, np.clip(side, 0, 1), np.maximum(number, 0)])
        code = np.where(best, orders.best_order(side, 0), orders.order_behind(-1, side, number))
        clear = at < 0
        midnight = (rows.day * DAY_NS)[row]
        out["instrument_id"] = self._book.ids[rows.which][row]
        out["ts_recv"] = midnight
        earlier = bits(keyed(keys, _EARLIER), 0, 40)[row] % _EARLIER_NS
        out["ts_event"] = midnight - 1 - earlier
        out["price"] = np.where(clear, dbn.UNDEF_PRICE, price * self._tape.tick[rows.which][row])
        out["size"] = np.where(clear, 0, held)
        out["order_id"] = np.where(clear, 0, orders.base(rows.which, rows.day)[row] + code)
        out["action"] = np.where(clear, b"R", b"A")
        out["side"] = np.where(clear, b"N", np.where(side == 0, b"B", b"A"))
        out["flags"] = np.where(at == per - 2, _SNAPSHOT + LAST, _SNAPSHOT)
        return out


def _received(trades: Ticks, start: I64, trade: I64, step: I64) -> I64:
    """When each step is received: before its trade, with it or after."""
    change = moments(trades, start)
    latency = trades.ts_recv - trades.ts_event
    at = np.where(step <= orders.EMPTY, change.before[trade], trades.ts_event[trade])
    at -= np.where(step == orders.CLEAR, _CLEAR_NS, 0)
    out: I64 = np.where(step > orders.FILL, change.after[trade], at) + latency[trade]
    return out


def _before(trades: Ticks, book: Quotes, carried: Sides) -> Sides:
    """The best prices before anything is done for each trade; ``carried`` is what rows had, and is brought up to date.

    Trades come by row, and those of a row in their order.
    """
    after = settled(book, trades.size)
    row = trades.row
    fresh = np.flatnonzero(np.concatenate(([True], row[1:] != row[:-1]))[: len(row)])
    previous = np.maximum(np.arange(len(row)) - 1, 0)
    out = after.take(previous)
    ends = np.append(fresh[1:], len(row))[: len(fresh)] - 1
    for field in fields(Sides):
        held, now = getattr(carried, field.name), getattr(after, field.name)
        getattr(out, field.name)[fresh] = held[row[fresh]]
        held[row[fresh]] = now[ends]
    return out

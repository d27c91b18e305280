"""The records of a book: for each step around a trade what it is, and how the book stands after it."""

from __future__ import annotations

from dataclasses import dataclass

import databento_dbn as dbn
import numpy as np

from hdi.rehearsal import orders
from hdi.rehearsal.contracts import Instruments
from hdi.rehearsal.draws import I64, Bool
from hdi.rehearsal.layouts import Records, blank
from hdi.rehearsal.orders import (
    CLEAR,
    COME_ASK,
    COME_BID,
    EMPTY,
    FILL,
    GO_ASK,
    GONE,
    LEFT,
    LESS,
    MORE,
    MOVE_FIRST,
    MOVE_SECOND,
    NEW_ASK,
    NEW_BID,
    TRADE,
    Hours,
)
from hdi.rehearsal.products import CONSOLIDATED
from hdi.rehearsal.quotes import DEPTH, GAP, Quotes
from hdi.rehearsal.sides import Sides, fill_sides
from hdi.rehearsal.standing import Standing
from hdi.rehearsal.tape import Rows, Tape
from hdi.rehearsal.ticks import Ticks, fill

_LEVELS = 10


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """Steps to be written: the ``trade`` (its place among ``trades``) and the number of each.

    ``standing`` is what stands behind the best prices in each hour, and what stood there when it began; ``hour`` and
    ``before`` are by trade: its hour, and the best prices before anything is done for it.
    """

    rows: Rows
    hours: Hours
    standing: tuple[Standing, Standing]
    hour: I64
    trades: Ticks
    book: Quotes
    before: Sides
    trade: I64
    step: I64


def written(page: Page, schema: str, book: Instruments, tape: Tape) -> Records:
    """The records of a schema, but for their times."""
    trade, rows = page.trade, page.rows
    out = blank(schema, len(trade), book.publisher)
    row = page.trades.row[trade]
    which = rows.which[row]
    tick = tape.tick[which]
    out["instrument_id"] = book.ids[which]
    fill(out, page.trades, trade, tape.tick[rows.which], rows.day)
    line = _Line(page)
    _fill_step(out, page, line, tick)
    if schema == "mbo":
        traded = (page.step == TRADE) | (page.step == CLEAR)
        out["order_id"] = np.where(traded, 0, orders.base(rows.which, rows.day)[row] + line.order(page))
        return out
    sides = line.sides(page)
    fill_sides(out, sides, tick)
    if book.dataset == CONSOLIDATED:
        # One venue for all that happens around a trade, so that its order is kept where rows are read by publisher.
        out["publisher_id"] = np.where(page.step == CLEAR, book.publisher, page.trades.venue[trade])
    if "bid_px_01" in (out.dtype.names or ()):
        line.fill_levels(out, page, tick)
    return out


def _fill_step(out: Records, page: Page, line: _Line, tick: I64) -> None:
    """Write what a step is where it is no trade: a bad copy is one."""
    step, trade = page.step, page.trade
    other = np.flatnonzero(step != TRADE)
    done, of = step[other], trade[other]
    action = orders.ACTIONS[done]
    # Where a day begins with an empty book there is nothing to move.
    first = (page.before.bid_count[of] == 0) & ((done == MOVE_FIRST) | (done == MOVE_SECOND))
    out["action"][other] = np.where(first, b"A", action)
    clear = done == CLEAR
    out["side"][other] = np.where(clear, b"N", np.where(line.bids[other], b"B", b"A"))
    out["flags"][other] = orders.FLAGS[done]
    price, size = line.price_and_size(page)
    out["price"][other] = np.where(clear, dbn.UNDEF_PRICE, price[other] * tick[other])
    out["size"][other] = np.where(clear, 0, size[other])
    if "depth" in (out.dtype.names or ()):
        out["depth"][other] = line.depth(page)[other]


class _Line:
    """What is known of each step: its side, and what stands behind the best prices after it."""

    def __init__(self, page: Page) -> None:
        step, book, trade = page.step, page.book, page.trade
        hits_bid, more_bid = book.hits_bid[trade], book.more_bid[trade]
        #: Whether the bid goes up with each step's trade.
        self._rises: Bool = (page.before.bid_count > 0)[trade] & (book.bid > page.before.bid)[trade]
        moves = step == np.where(self._rises, MOVE_SECOND, MOVE_FIRST)
        bids = (step < GO_ASK) | moves | ((step >= COME_BID) & (step < COME_ASK)) | (step == NEW_BID)
        hit = (step == FILL) | (step == LEFT) | (step == GONE)
        bids = np.where(hit, hits_bid, np.where((step == MORE) | (step == LESS), more_bid, bids))
        #: Whether each step is about the bids.
        self.bids: Bool = np.where(step == EMPTY, ~hits_bid, bids)
        self._hour = page.hour[trade]
        # What stood when the hour began is what goes, and what is seen until it is gone.
        self._old: Bool = step < MOVE_FIRST
        begins = page.trades.place[trade] == page.hours.cells.first[self._hour]
        stood = page.hours.stood[self._hour] * DEPTH
        deep = page.hours.shape.deep[self._hour] * DEPTH
        going, coming = step < COME_BID, step < MORE
        bid = np.where(going, np.clip(DEPTH - step, 0, stood), np.clip(step - COME_BID + 1, 0, deep))
        ask = np.where(going, np.clip(2 * DEPTH - step, 0, stood), np.clip(step - COME_ASK + 1, 0, deep))
        self._stands = tuple(np.where(begins & coming, each, deep) for each in (bid, ask))
        self._more: Bool = (step >= MORE) & (step < LESS)
        self._low = self._of(page, "low")
        self._high = self._of(page, "high")

    def _of(self, page: Page, name: str) -> I64:
        now, began = (getattr(each, name)[self._hour] for each in page.standing)
        out: I64 = np.where(self._old, began, now)
        return out

    def _size_behind(self, page: Page, side: I64 | int, number: I64) -> I64:
        now, began = (each.sizes[self._hour, side, number] for each in page.standing)
        out: I64 = np.where(self._old, began, now)
        return out

    def _behind(self, page: Page) -> Bool:
        """The steps on orders behind the best ones."""
        step = page.step
        return ((step > CLEAR) & (step < MOVE_FIRST)) | ((step >= COME_BID) & (step < MORE))

    def price_and_size(self, page: Page) -> tuple[I64, I64]:
        """Price in ticks and size of each step."""
        step, trade, book = page.step, page.trade, page.book
        bids, traded = self.bids, page.trades.size[trade]
        best = np.where(bids, book.bid[trade], book.ask[trade])
        held = np.where(bids, book.bid_size[trade], book.ask_size[trade])
        hit = book.hits_bid[trade] == bids
        held -= np.where((step >= LEFT) & hit, traded, 0)
        one_more = (step == MORE) | (step == LESS)
        away = np.where(bids, -1, 1)
        price = best + np.where(one_more, away * book.more_behind[trade], 0)
        size = np.where(one_more, book.more_size[trade], held)
        number = orders.NUMBERS[step]
        far = np.where(bids, self._low, self._high) + away * (GAP + number)
        behind = self._behind(page)
        price = np.where(behind, far, price)
        size = np.where(behind, self._size_behind(page, (~bids).astype(np.int64), number), size)
        return price, np.where(step == FILL, traded, size)

    def depth(self, page: Page) -> I64:
        """The level of the book that each step is about."""
        one_more = (page.step == MORE) | (page.step == LESS)
        out = np.where(one_more & (page.book.more_behind[page.trade] > 0), 1, 0)
        return np.where(self._behind(page), 1 + orders.NUMBERS[page.step], out)

    def order(self, page: Page) -> I64:
        """The code of the order of each step."""
        step, side = page.step, (~self.bids).astype(np.int64)
        cells, version = page.hours.cells, page.hours.version[self._hour]
        own, began = (each.hour[self._hour] for each in page.standing)
        place = page.trades.place[page.trade]
        empty = page.hours.shape.empty[self._hour]
        renewed = (empty >= 0) & ((place > empty) | ((place == empty) & (step >= NEW_BID)))
        best = orders.best_order(side, np.where(renewed, 1 + orders.hour_of_day(cells)[self._hour], version))
        far = orders.order_behind(np.where(self._old, began, own), side, orders.NUMBERS[step])
        one_more = (step == MORE) | (step == LESS)
        return np.where(one_more, orders.order_beside(place), np.where(self._behind(page), far, best))

    def sides(self, page: Page) -> Sides:
        """The best bid and ask after each step."""
        step, trade, book = page.step, page.trade, page.book
        hits_bid, emptied = book.hits_bid[trade], book.emptied[trade]
        before = page.before.take(trade)
        traded = np.where(step >= LEFT, page.trades.size[trade], 0)
        beside = self._more & (book.more_behind[trade] == 0)
        out = []
        for bids, price, size, venue, renews, old in (
            (True, book.bid, book.bid_size, book.bid_venue, NEW_BID,
             (before.bid, before.bid_size, before.bid_count, before.bid_venue)),
            (False, book.ask, book.ask_size, book.ask_venue, NEW_ASK,
             (before.ask, before.ask_size, before.ask_count, before.ask_venue)),
        ):  # fmt: skip
            hit = hits_bid == bids
            gone = emptied & (step >= np.where(hit, GONE, EMPTY)) & (step < renews)
            more = beside & (book.more_bid[trade] == bids)
            held = size[trade] - np.where(hit, traded, 0) + np.where(more, book.more_size[trade], 0)
            new = price[trade], np.where(gone, 0, held), np.where(gone, 0, 1 + more), venue[trade]
            moves = np.where(self._rises == bids, MOVE_SECOND, MOVE_FIRST)
            out += [np.where(step >= moves, now, then) for now, then in zip(new, old, strict=True)]
        return Sides(*out)

    def fill_levels(self, out: Records, page: Page, tick: I64) -> None:
        """Write the levels from the second to the tenth."""
        trade, book = page.trade, page.book
        further = self._more & (book.more_behind[trade] > 0)
        for side, name in enumerate(("bid", "ask")):
            bids = side == 0
            away = -1 if bids else 1
            base, best = (self._low, book.bid) if bids else (self._high, book.ask)
            more = further & (book.more_bid[trade] == bids)
            for level in range(1, _LEVELS):
                number = level - 1 - more
                there = number < self._stands[side]
                price = base + away * (GAP + number)
                size = self._size_behind(page, side, np.maximum(number, 0))
                if level == 1:
                    there |= more
                    price = np.where(more, best[trade] + away * book.more_behind[trade], price)
                    size = np.where(more, book.more_size[trade], size)
                tail = f"{level:02d}"
                out[f"{name}_px_{tail}"] = np.where(there, price * tick, dbn.UNDEF_PRICE)
                out[f"{name}_sz_{tail}"] = np.where(there, size, 0)
                out[f"{name}_ct_{tail}"] = there

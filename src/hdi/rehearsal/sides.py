"""The best bid and ask of records: what they hold, and how the vendor writes them."""

from __future__ import annotations

from dataclasses import dataclass, fields

import databento_dbn as dbn
import numpy as np

from hdi.rehearsal.draws import I64, Bool
from hdi.rehearsal.layouts import Records
from hdi.rehearsal.quotes import Quotes


@dataclass(frozen=True, slots=True, eq=False)
class Sides:
    """Best bids and asks as columns of one length: price in ticks, size, orders (0: no such side), venue."""

    bid: I64
    bid_size: I64
    bid_count: I64
    bid_venue: I64
    ask: I64
    ask_size: I64
    ask_count: I64
    ask_venue: I64

    def take(self, which: I64 | Bool) -> Sides:
        """Some of them."""
        return Sides(*(getattr(self, field.name)[which] for field in fields(self)))

    @staticmethod
    def nothing(size: int) -> Sides:
        """As many empty books."""
        return Sides(*(np.zeros(size, np.int64) for _ in range(8)))


def best(book: Quotes) -> Sides:
    """The best bid and ask just before each trade."""
    beside = book.more_behind == 0
    sides = []
    for price, size, venue, more, gone in (
        (book.bid, book.bid_size, book.bid_venue, beside & book.more_bid, book.emptied & ~book.hits_bid),
        (book.ask, book.ask_size, book.ask_venue, beside & ~book.more_bid, book.emptied & book.hits_bid),
    ):
        sides += [price, np.where(gone, 0, size + book.more_size * more), np.where(gone, 0, 1 + more), venue]
    return Sides(*sides)


def settled(book: Quotes, size: I64) -> Sides:
    """The best bid and ask when all changes after each trade of a size are done."""
    one = np.ones_like(size)
    return Sides(
        book.bid, book.bid_size - np.where(book.hits_bid, size, 0), one, book.bid_venue,
        book.ask, book.ask_size - np.where(book.hits_bid, 0, size), one, book.ask_venue,
    )  # fmt: skip


def fill_sides(out: Records, sides: Sides, tick: I64) -> None:
    """Write best bids and asks into records; ``tick`` (1e-9) is by record."""
    counted = "bid_ct_00" in (out.dtype.names or ())
    for side, price, size, count, venue in (
        ("bid", sides.bid, sides.bid_size, sides.bid_count, sides.bid_venue),
        ("ask", sides.ask, sides.ask_size, sides.ask_count, sides.ask_venue),
    ):
        there = count > 0
        out[f"{side}_px_00"] = np.where(there, price * tick, dbn.UNDEF_PRICE)
        out[f"{side}_sz_00"] = size
        if counted:
            out[f"{side}_ct_00"] = count
        else:
            out[f"{side}_pb_00"] = np.where(there, venue, 0)

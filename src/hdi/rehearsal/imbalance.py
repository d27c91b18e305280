"""What the exchange says before its auctions: how much is paired, and how much is not, at which prices."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hdi.model import NS
from hdi.rehearsal.contracts import Instruments
from hdi.rehearsal.draws import F64, I64, U64, bits, keyed, unit
from hdi.rehearsal.hostile import Hostility, moved
from hdi.rehearsal.layouts import Records, blank
from hdi.rehearsal.tape import Rows, Tape, blocks

#: Seconds before an auction from which on it is told, and how often: before the open, before the close.
_AUCTIONS = (b"O", 120, 1), (b"C", 600, 5)
_SALT = 61
_LATENCY_NS = 10_000
#: How far from the auction's price the first one is, in ticks, and how many shares are paired at the end.
_REACH, _PAIRED = 24, 400_000
_LAST_PART_NS = 900_000_000


class Imbalance:
    """Order imbalances before the opening and the closing auction of each trading date."""

    def __init__(self, book: Instruments, tape: Tape, hostile: int) -> None:
        self._book = book
        self._tape = tape
        self._hostility = Hostility("imbalance", hostile)

    def count(self, rows: Rows) -> tuple[int, int]:
        """See Feed."""
        found = planted = 0
        for _, good, bad, _ in self._told(rows):
            found, planted = found + len(good) + len(bad), planted + len(bad)
        return found, planted

    def records(self, rows: Rows) -> Iterator[Records]:
        """See Feed."""
        for block, good, bad, draw in self._told(rows):
            source = np.concatenate((good, bad))
            event = self._event(block, source)
            order = np.argsort(event, kind="stable")
            out = self._made(block, source[order])
            out["ts_event"], out["ts_recv"] = event[order], event[order] + _LATENCY_NS
            self._hostility.spoil(out, moved(order, len(good)), draw)
            if len(out):
                yield out

    @property
    def _per_day(self) -> int:
        return sum(length // step for _, length, step in _AUCTIONS)

    def _told(self, rows: Rows) -> Iterator[tuple[Rows, I64, I64, U64]]:
        """Rows; then each wanted record as a number (row and place in its day); those with bad copies; their draws."""
        rows = rows.take(self._book.sessions.ending(rows.day)[1])
        for block in blocks(rows):
            trades = self._tape.activity(block)
            per = np.where(trades > 0, self._per_day, 0)
            row = np.repeat(np.arange(len(per)), per)
            good = row * self._per_day + np.arange(len(row)) - np.repeat(np.cumsum(per) - per, per)
            bad_row, place, draw = self._hostility.places(self._tape.keys(block), trades, per)
            bad = bad_row * self._per_day + place
            here, there = (
                block.starting(self._event(block, each) + _LATENCY_NS, each // self._per_day) for each in (good, bad)
            )
            yield block, good[here], bad[there], draw[there]

    def _auction(self, rows: Rows, number: I64) -> tuple[I64, I64, I64, F64]:
        """The auction of each record (0 or 1), when it is, the seconds to it, and the part of the telling done."""
        row, place = number // self._per_day, number % self._per_day
        session = self._book.sessions.ending(rows.day)[0][row]
        opening = _AUCTIONS[0][1] // _AUCTIONS[0][2]
        closing = (place >= opening).astype(np.int64)
        step = np.asarray([each[2] for each in _AUCTIONS])[closing]
        length = np.asarray([each[1] for each in _AUCTIONS])[closing]
        done = (place - closing * opening) * step
        at = np.where(closing, self._book.sessions.closes[session], self._book.sessions.opens[session])
        return closing, at, length - done, done / length

    def _event(self, rows: Rows, number: I64) -> I64:
        _, at, left, _ = self._auction(rows, number)
        draw = self._draw(rows, number)
        out: I64 = at - left * NS + (unit(draw, 0, 24) * _LAST_PART_NS).astype(np.int64)
        return out

    def _draw(self, rows: Rows, number: I64) -> U64:
        key = keyed(self._tape.keys(rows), _SALT)[number // self._per_day]
        return keyed(key, number % self._per_day)

    def _made(self, rows: Rows, number: I64) -> Records:
        row = number // self._per_day
        closing, _, _, done = self._auction(rows, number)
        draw = self._draw(rows, number)
        facts = self._tape.daily(rows)
        price = np.where(closing, facts.close[row], facts.open[row])
        way = (unit(draw, 24, 12) - 0.5) * _REACH * (1.0 - done)
        tick = self._tape.tick[rows.which][row]
        out = blank("imbalance", len(row), self._book.publisher)
        out["instrument_id"] = self._book.ids[rows.which][row]
        near = price + np.rint(way).astype(np.int64)
        out["ref_price"] = near * tick
        out["cont_book_clr_price"] = (near + bits(draw, 36, 1)) * tick
        out["auct_interest_clr_price"] = (near - bits(draw, 37, 1)) * tick
        paired = (_PAIRED * (0.2 + 0.8 * done) * (0.9 + 0.2 * unit(draw, 38, 8))).astype(np.int64)
        lacking = bits(draw, 46, 14) * (bits(draw, 60, 2) > 0)
        out["paired_qty"], out["total_imbalance_qty"] = paired, lacking
        side = np.where(draw >> np.uint64(63), b"A", b"B")
        out["side"] = np.where(lacking > 0, side, b"N")
        out["auction_type"] = np.asarray([each[0] for each in _AUCTIONS])[closing]
        out["unpaired_side"], out["significant_imbalance"] = b"N", b"L"
        return out

"""One bar for each trading date: what was traded in the session that ends on it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hdi.model import DAY_NS
from hdi.rehearsal.contracts import Instruments
from hdi.rehearsal.daily import Days, Facts
from hdi.rehearsal.draws import I64, U64
from hdi.rehearsal.hostile import Hostility, moved
from hdi.rehearsal.layouts import Records, blank
from hdi.rehearsal.statistics import Statistics
from hdi.rehearsal.tape import Rows, Tape, blocks


class EndOfDay:
    """Bars of sessions, at midnight UTC of their dates."""

    def __init__(self, book: Instruments, tape: Tape, days: Days, hostile: int) -> None:
        self._book = book
        self._tape = tape
        self._statistics = Statistics(book, tape, days, hostile)
        self._hostility = Hostility("ohlcv-eod", hostile)

    def count(self, rows: Rows) -> tuple[int, int]:
        """See Feed."""
        found = planted = 0
        for _, _, row, draw in self._bars(rows):
            found, planted = found + len(row), planted + len(draw)
        return found, planted

    def records(self, rows: Rows) -> Iterator[Records]:
        """See Feed."""
        for block, facts, row, draw in self._bars(rows):
            order = np.argsort(block.day[row], kind="stable")
            here = row[order]
            out = blank("ohlcv-eod", len(here), self._book.publisher)
            tick = self._tape.tick[block.which][here]
            out["instrument_id"] = self._book.ids[block.which][here]
            out["ts_event"] = block.day[here] * DAY_NS
            for name in ("open", "high", "low", "close"):
                out[name] = getattr(facts, name)[here] * tick
            out["volume"] = facts.volume[here]
            self._hostility.spoil(out, moved(order, len(row) - len(draw)), draw)
            if len(out):
                yield out

    def _bars(self, rows: Rows) -> Iterator[tuple[Rows, Facts, I64, U64]]:
        """Rows and what their sessions traded; the row of each bar, bad copies last; the draws of those."""
        wanted = (rows.low <= rows.day * DAY_NS) & self._book.sessions.ending(rows.day)[1]
        for block in blocks(rows.take(wanted)):
            facts = self._statistics.session(block)
            there = np.flatnonzero(facts.trades > 0)
            one = np.minimum(facts.trades, 1)
            bad, _, draw = self._hostility.places(self._tape.keys(block), facts.trades, one)
            row, first = np.unique(bad, return_index=True)
            yield block, facts, np.append(there, row), draw[first]

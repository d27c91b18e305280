"""The best bid and ask and the last trade at the end of each second or minute in which the book changed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hdi.model import DAY_NS, NS
from hdi.rehearsal.feeds import Bars
from hdi.rehearsal.hostile import moved
from hdi.rehearsal.layouts import LAST, Records, blank
from hdi.rehearsal.levels import expanded, priced, take
from hdi.rehearsal.quotes import quotes, shapes
from hdi.rehearsal.sessions import MINUTE_NS
from hdi.rehearsal.sides import fill_sides, settled
from hdi.rehearsal.tape import SPLIT, Rows
from hdi.rehearsal.ticks import fill, ticks

#: An hour may have any number of trades.
_ALL = 2**62


class Intervals(Bars):
    """Quotes at the ends of intervals. Books change around trades only, so there is one where there is a bar."""

    def count(self, rows: Rows) -> tuple[int, int]:
        """See Feed."""
        return super().count(_earlier(rows, self._width))

    def records(self, rows: Rows) -> Iterator[Records]:
        """See Feed."""
        for block, hours, whole in self._tape.pieces(_earlier(rows, self._width), _ALL):
            minutes = self._tape.minute_cells(block, hours)
            facts = priced(hours, whole, minutes, SPLIT)
            wanted = block.touching(minutes.start, MINUTE_NS, minutes.row)
            hour, minutes, facts = minutes.parent[wanted], minutes.take(wanted), take(facts, wanted)
            seconds = self._tape.second_cells(block, minutes)
            trades = ticks(seconds, priced(minutes, facts, seconds, SPLIT))
            book = quotes(trades, shapes(hours), np.repeat(hour[seconds.parent], seconds.trades))
            cells = seconds if self._width == NS else minutes
            last = expanded(cells.trades)[2] - 1
            here = block.starting(cells.start, cells.row)
            cells, last = cells.take(here), last[here]
            bad, draw = self._bad(block, cells)
            source = np.concatenate((np.arange(cells.size), bad))
            order = np.argsort(cells.start[source], kind="stable")
            source = source[order]
            row, last = cells.row[source], last[source]
            out = blank(self._schema, len(source), self._book.publisher)
            out["instrument_id"] = self._book.ids[block.which][row]
            fill(out, trades, last, self._tape.tick[block.which], block.day)
            fill_sides(out, settled(book, trades.size).take(last), self._tape.tick[block.which][row])
            out["flags"] = LAST
            out["ts_recv"] = cells.start[source] + self._width
            self._hostility.spoil(out, moved(order, cells.size), draw)
            if len(out):
                yield out


def _earlier(rows: Rows, width: int) -> Rows:
    """The rows of the intervals of a width that end in the wanted parts of some rows."""
    low, high, midnight = rows.low - width, rows.high - width, rows.day * DAY_NS
    parts = (
        Rows(rows.which, rows.day - 1, low, np.minimum(high, midnight)),
        Rows(rows.which, rows.day, np.maximum(low, midnight), high),
    )
    both = Rows(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("which", "day", "low", "high")))
    both = both.take(both.low < both.high)
    return both.take(np.lexsort((both.low, both.which, both.day)))

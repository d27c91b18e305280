"""Statistics of each trading date: what the exchange publishes when a session is over."""

from __future__ import annotations

from collections.abc import Iterator

import databento_dbn as dbn
import numpy as np

from hdi.model import DAY_NS, NS
from hdi.rehearsal.contracts import Instruments
from hdi.rehearsal.daily import Days, Facts
from hdi.rehearsal.draws import I64, U64, Bool, bits, keyed
from hdi.rehearsal.hostile import Hostility, moved
from hdi.rehearsal.layouts import Records, blank
from hdi.rehearsal.products import PRODUCTS
from hdi.rehearsal.sessions import HOUR_NS, MINUTE_NS, ZERO
from hdi.rehearsal.tape import Rows, Tape, blocks

#: In the order in which they are published: code, column of the session's facts, and whether a price.
_PUBLISHED = (
    (1, "open", True), (4, "low", True), (5, "high", True), (3, "close", True), (6, "volume", False),
    (9, "interest", False),
)  # fmt: skip
_SETTLEMENT = 3
#: What is published of a contract that was not traded.
_ALWAYS = np.asarray([code in (_SETTLEMENT, 6, 9) for code, _, _ in _PUBLISHED])
_FINAL = 1
_NEW = 1
#: After the close, then one kind each second; the vendor has it a little later.
_AFTER_NS = 15 * MINUTE_NS
_LATENCY_NS = 150_123
_TIMES = 31
_DAY_HOURS = 24


class Statistics:
    """Open, low, high, settlement, cleared volume and open interest of each listed contract and trading date."""

    def __init__(self, book: Instruments, tape: Tape, days: Days, hostile: int) -> None:
        self._book = book
        self._tape = tape
        self._days = days
        self._hostility = Hostility("statistics", hostile)

    def count(self, rows: Rows) -> tuple[int, int]:
        """See Feed."""
        found = planted = 0
        for block, facts in self._blocks(rows):
            row, kind, good, _ = self._published(block, facts)
            del kind
            found, planted = found + len(row), planted + len(row) - good
        return found, planted

    def records(self, rows: Rows) -> Iterator[Records]:
        """See Feed."""
        for block, facts in self._blocks(rows):
            row, kind, good, draw = self._published(block, facts)
            received = self._received(block)[row, kind]
            order = np.argsort(received, kind="stable")
            out = self._made(block, facts, row[order], kind[order])
            out["ts_recv"] = received[order]
            out["ts_event"] = received[order] - _LATENCY_NS
            self._hostility.spoil(out, moved(order, good), draw)
            if len(out):
                yield out

    def _blocks(self, rows: Rows) -> Iterator[tuple[Rows, Facts]]:
        rows = rows.take(self._book.sessions.ending(rows.day)[1])
        for block in blocks(rows):
            yield block, self.session(block)

    def session(self, rows: Rows) -> Facts:
        """What was traded in the session of each row's date, which starts on the UTC day before."""
        size = len(rows.day)
        which = np.repeat(rows.which, 2)
        day = np.repeat(rows.day, 2)
        day[::2] -= 1
        hours, parts = self._tape.hours(Rows(which, day, day * DAY_NS, (day + 1) * DAY_NS))
        owner = hours.row // 2
        session = self._book.sessions.session[hours.start // HOUR_NS - ZERO * _DAY_HOURS]
        kept = np.flatnonzero(session == self._book.sessions.ending(rows.day)[0][owner])
        owner = owner[kept]
        starts = np.flatnonzero(np.diff(owner, prepend=-1))
        ends = np.append(starts[1:], len(owner)) - 1
        row = owner[starts]
        close = self._days.fair(rows.which, rows.day)
        trades, volume, opening, high, low = np.zeros((5, size), np.int64)
        out = Facts(trades, volume, opening, high, low, close)
        if len(row):
            out.trades[row] = np.add.reduceat(parts.trades[kept], starts)
            out.volume[row] = np.add.reduceat(parts.volume[kept], starts)
            out.open[row], out.close[row] = parts.open[kept[starts]], parts.close[kept[ends]]
            out.high[row] = np.maximum.reduceat(parts.high[kept], starts)
            out.low[row] = np.minimum.reduceat(parts.low[kept], starts)
        return out

    def _received(self, rows: Rows) -> I64:
        """When each kind of each row is received (rows, kinds)."""
        closes = self._book.sessions.closes[self._book.sessions.ending(rows.day)[0]]
        return (closes + _AFTER_NS + _LATENCY_NS)[:, None] + np.arange(len(_PUBLISHED)) * NS

    def _published(self, rows: Rows, facts: Facts) -> tuple[I64, I64, int, U64]:
        """Row and kind of each wanted record, bad copies after the good ones; how many are good; draws of the bad."""
        there: Bool = _ALWAYS | (facts.trades > 0)[:, None]
        wanted = rows.starting(self._received(rows).T, np.arange(len(rows.day))).T
        row, kind = np.nonzero(there & wanted)
        total = there.sum(axis=1)
        bad, place, draw = self._hostility.places(self._tape.keys(rows), facts.trades, total)
        # The place counts what is published of the row.
        which = np.argmax(np.cumsum(there[bad], axis=1) > place[:, None], axis=1)
        inside = wanted[bad, which]
        return np.append(row, bad[inside]), np.append(kind, which[inside]), len(row), draw[inside]

    def _made(self, rows: Rows, facts: Facts, row: I64, kind: I64) -> Records:
        out = blank("statistics", len(row), self._book.publisher)
        which = rows.which
        tick = self._tape.tick[which]
        interest = self._days.interest(which, rows.day)
        out["instrument_id"] = self._book.ids[which][row]
        out["ts_ref"] = (rows.day * DAY_NS)[row]
        out["price"], out["quantity"] = dbn.UNDEF_PRICE, dbn.UNDEF_STAT_QUANTITY
        for number, (code, name, is_price) in enumerate(_PUBLISHED):
            here = np.flatnonzero(kind == number)
            values = interest if name == "interest" else getattr(facts, name)
            out["price" if is_price else "quantity"][here] = (values * tick if is_price else values)[row[here]]
            out["stat_type"][here] = code
            out["stat_flags"][here] = _FINAL if code == _SETTLEMENT else 0
        out["update_action"] = _NEW
        out["sequence"] = 1 + which[row] * len(_PUBLISHED) + kind
        out["ts_in_delta"] = 9_000 + bits(keyed(self._tape.keys(rows), _TIMES), 0, 14)[row]
        channels = np.asarray([p.channel for p in PRODUCTS])
        out["channel_id"] = channels[self._book.product[which]][row]
        return out

"""When each instrument may be traded: the sessions of its calendar, its last day, and days on which it is halted."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hdi.model import DAY_NS
from hdi.rehearsal.contracts import Instruments
from hdi.rehearsal.draws import I64, bits, keyed
from hdi.rehearsal.layouts import Records, blank
from hdi.rehearsal.products import GLOBEX
from hdi.rehearsal.sessions import MINUTE_NS
from hdi.rehearsal.tape import Rows, Tape, blocks

#: The vendor's codes: action, reason, whether it is traded, whether it is quoted.
_KINDS = (
    (1, 1, b"N", b"Y"), (7, 1, b"Y", b"Y"), (8, 10, b"N", b"N"), (12, 1, b"N", b"N"), (12, 5, b"N", b"N"),
)  # fmt: skip
_PRE_OPEN, _TRADING, _HALT, _CLOSE, _EXPIRED = range(5)
_BEFORE_NS = 15 * MINUTE_NS
_LATENCY_NS, _LATENCY_BITS = 5_000_000, 25
_NOT_KNOWN = b"~"
_SALT = 51


class Status:
    """Pre-open, trading, halts and closes; at midnight UTC what holds then, where a session goes through it."""

    def __init__(self, book: Instruments, tape: Tape) -> None:
        self._book = book
        self._tape = tape

    def count(self, rows: Rows) -> tuple[int, int]:
        """See Feed."""
        return sum(len(row) for _, row, *_ in self._changes(rows)), 0

    def records(self, rows: Rows) -> Iterator[Records]:
        """See Feed."""
        for block, row, kind, event, received in self._changes(rows):
            order = np.lexsort((row, received))
            out = blank("status", len(order), self._book.publisher)
            out["instrument_id"] = self._book.ids[block.which][row[order]]
            out["ts_event"], out["ts_recv"] = event[order], received[order]
            names = "action", "reason", "is_trading", "is_quoting"
            for name, values in zip(names, zip(*_KINDS, strict=True), strict=True):
                out[name] = np.asarray(values)[kind[order]]
            out["is_short_sell_restricted"] = _NOT_KNOWN
            if len(out):
                yield out

    def _changes(self, rows: Rows) -> Iterator[tuple[Rows, I64, I64, I64, I64]]:
        """Rows; then the row, kind, event time and receipt of each change in the wanted parts."""
        for block in blocks(rows):
            row, kind, event, received = (np.concatenate(each) for each in zip(*self._of(block), strict=True))
            wanted = block.starting(received, row)
            yield block, row[wanted], kind[wanted], event[wanted], received[wanted]

    def _of(self, rows: Rows) -> Iterator[tuple[I64, I64, I64, I64]]:
        """All changes of the rows' days, kind by kind."""
        sessions, midnight = self._book.sessions, rows.day * DAY_NS
        latency = _LATENCY_NS + bits(keyed(self._tape.keys(rows), _SALT), 0, _LATENCY_BITS)
        traded = self._tape.activity(rows) > 0
        row = np.arange(len(midnight))
        # A session that touches a day ends on it, or is the one after.
        first = np.searchsorted(sessions.closes, midnight, side="right")
        for session in (first, first + 1):
            session = np.minimum(session, len(sessions.opens) - 1)  # noqa: PLW2901
            opens, closes = sessions.opens[session], sessions.closes[session]
            expires = self._book.expires[rows.which]
            listed = opens < expires
            last = np.minimum(closes, expires)
            begins = np.where(traded, _TRADING, _HALT)
            ends = np.where(expires < closes, _EXPIRED, _CLOSE)
            for at, kind in ((opens - _BEFORE_NS, np.full(len(row), _PRE_OPEN)), (opens, begins), (last, ends)):
                here = listed & (at >= midnight) & (at < midnight + DAY_NS)
                yield row[here], kind[here], at[here], (at + latency)[here]
            if self._book.dataset == GLOBEX:
                through = listed & (opens < midnight) & (last > midnight)
                yield row[through], begins[through], opens[through], midnight[through]

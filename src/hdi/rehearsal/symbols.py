"""Symbology of the synthetic market: which instruments a symbol stands for, by UTC day."""

from __future__ import annotations

import datetime as dt
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from hdi.errors import RequestError
from hdi.model import DAY_NS, date_ns
from hdi.rehearsal.contracts import Instrument, Instruments
from hdi.rehearsal.daily import Days
from hdi.rehearsal.draws import I64

ALL_SYMBOLS = "ALL_SYMBOLS"
_CONTINUOUS = re.compile(r"([A-Z0-9]+)\.([CNV])\.(\d{1,3})", re.IGNORECASE)
_EPOCH = dt.date(1970, 1, 1)
#: Days since 1970, end exclusive, and the instrument.
_Run = tuple[int, int, Instrument]
_Interval = tuple[dt.date, dt.date, str]


@dataclass(frozen=True)
class Resolution:
    """What symbols stand for. Dates are UTC, ends exclusive.

    ``result``: by key the intervals, sorted, touching equal ones joined. The key is the symbol as it was asked for,
    but for a parent (and ALL_SYMBOLS) the raw symbol of each child. ``partial`` were resolved on some of the days
    only, ``not_found`` on none. ``asked``: by asked symbol (instrument id, first day, end): what a data request for
    it selects.
    """

    result: dict[str, list[_Interval]] = field(default_factory=dict)
    partial: list[str] = field(default_factory=list)
    not_found: list[str] = field(default_factory=list)
    asked: dict[str, list[tuple[int, dt.date, dt.date]]] = field(default_factory=dict)


class Symbology:
    """Resolves symbols of one dataset. Continuous ones follow the calendar, open interest or volume of ``days``."""

    def __init__(self, instruments: Instruments, days: Days) -> None:
        self._instruments = instruments
        self._days = days
        self._rankings: dict[str, Callable[[I64, I64], I64]] = {
            "n": days.interest,
            "v": lambda which, day: days.activity(which, day)[1],
        }

    def resolve(
        self, symbols: Sequence[str], stype_in: str, stype_out: str, start: dt.date, end: dt.date
    ) -> Resolution:
        """The symbols over ``[start, end)``. Raises RequestError for types that do not go together."""
        find = {
            "raw_symbol": self._raw, "instrument_id": self._id, "continuous": self._continuous, "parent": self._parent,
        }.get(stype_in)  # fmt: skip
        if find is None or stype_out not in (
            ("raw_symbol", "instrument_id") if find == self._id else ("instrument_id",)
        ):
            raise RequestError(f"{stype_in} does not resolve to {stype_out}", "Resolve to instrument_id.")
        first, last = _number(start), _number(end)
        out = Resolution()
        for symbol in dict.fromkeys(symbols):
            runs = [(max(a, first), min(b, last), i) for a, b, i in find(symbol, first, last) if a < last and b > first]
            by_child = stype_in == "parent" or symbol == ALL_SYMBOLS
            _add(out, symbol, sorted(runs, key=_order), by_child=by_child, raw=stype_out == "raw_symbol")
            covered = _covered(runs)
            if not covered:
                out.not_found.append(symbol)
            elif covered < last - first:
                out.partial.append(symbol)
        return out

    def _raw(self, symbol: str, first: int, last: int) -> Iterator[_Run]:
        del first, last
        everything = self._instruments.all if symbol == ALL_SYMBOLS else None
        return _lives(self._instruments.by_symbol.get(symbol.upper(), ()) if everything is None else everything)

    def _id(self, symbol: str, first: int, last: int) -> Iterator[_Run]:
        del first, last
        return _lives(self._instruments.by_id.get(int(symbol), ()) if symbol.isdecimal() else ())

    def _parent(self, symbol: str, first: int, last: int) -> Iterator[_Run]:
        del first, last
        root, _, kind = symbol.upper().partition(".")
        book = self._instruments
        # Shares have no parent: only contracts with a delivery do.
        if kind != "FUT" or root not in book.outrights or not len(book.spreads[root]):
            return iter(())
        return _lives(book.all[n] for n in np.concatenate((book.outrights[root], book.spreads[root])))

    def _continuous(self, symbol: str, first: int, last: int) -> Iterator[_Run]:
        match = _CONTINUOUS.fullmatch(symbol)
        book = self._instruments
        root = match[1].upper() if match else ""
        if not match or root not in book.outrights or not len(book.spreads[root]):
            return
        # A symbol stands for nothing before the dataset begins.
        low = max(first, _number(book.begins))
        if low >= last:
            return
        served = self._served(root, match[2].lower(), int(match[3]), np.arange(low, last))
        edges = np.flatnonzero(np.diff(served, prepend=-2))
        for at, stop in zip(edges, [*edges[1:], len(served)], strict=True):
            if served[at] >= 0:
                yield low + int(at), low + int(stop), book.all[served[at]]

    def _served(self, root: str, rule: str, rank: int, day: I64) -> I64:
        """The number of the instrument that a continuous symbol stands for on each day; -1 for none."""
        book = self._instruments
        chain = book.outrights[root]
        listed = book.all[int(chain[0])].product.listed
        if rank >= listed:
            return np.full(len(day), -1)
        # Unexpired contracts in the order of expiry, and whether each is listed.
        at = np.searchsorted(book.last[chain], day)[:, None] + np.arange(listed)
        exists = at < len(chain)
        candidates = chain[np.minimum(at, len(chain) - 1)]
        exists &= book.first[candidates] <= day[:, None]
        if rule == "c":
            return np.where(exists[:, rank], candidates[:, rank], -1)
        # By what was known the evening before: the last trading date before the day.
        known = np.repeat(book.sessions.previous(day), listed)
        measure = self._rankings[rule](candidates.ravel(), known).reshape(candidates.shape)
        order = np.argsort(-np.where(exists, measure, -1), axis=1, kind="stable")[:, rank, None]
        chosen = np.take_along_axis(candidates, order, axis=1)[:, 0]
        return np.where(np.take_along_axis(exists, order, axis=1)[:, 0], chosen, -1)


def _lives(found: Sequence[Instrument] | Iterator[Instrument]) -> Iterator[_Run]:
    return ((i.first, i.last + 1, i) for i in found)


def _order(run: _Run) -> tuple[int, int]:
    return run[0], run[2].number


def _add(out: Resolution, symbol: str, runs: Sequence[_Run], *, by_child: bool, raw: bool) -> None:
    for first, last, instrument in runs:
        text = instrument.symbol if raw else str(instrument.id)
        intervals = out.result.setdefault(instrument.symbol if by_child else symbol, [])
        start, end = _date(first), _date(last)
        if intervals and intervals[-1][1] == start and intervals[-1][2] == text:
            start = intervals.pop()[0]
        if (start, end, text) not in intervals[-1:]:
            intervals.append((start, end, text))
        out.asked.setdefault(symbol, []).append((instrument.id, _date(first), end))


def _covered(runs: Sequence[_Run]) -> int:
    """How many days at least one run holds."""
    total, at = 0, -1
    for first, last, _ in sorted(runs, key=_order):
        total += max(0, last - max(first, at))
        at = max(at, last)
    return total


@functools.lru_cache(maxsize=1 << 16)
def _date(number: int) -> dt.date:
    return _EPOCH + dt.timedelta(days=number)


def _number(day: dt.date) -> int:
    return date_ns(day) // DAY_NS

"""Which contract a continuous symbol stands for on each UTC day, by what was known when the day began.

Pure: it works on frames. Nothing that became known after midnight of a day decides about that day or one before it.
"""

from __future__ import annotations

import bisect
import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import polars as pl

from hdi.model import DAY_NS, Window, date_ns
from hdi.rolls.rules import Rule

#: What was said of contracts. ``delivery`` counts months since year 0; ``known`` is when it was said, ``expires`` null
#: where nobody said.
CONTRACTS: dict[str, pl.DataType] = {
    "instrument_id": pl.Int64(),
    "contract": pl.String(),
    "delivery": pl.Int64(),
    "expires": pl.Int64(),
    "known": pl.Int64(),
}
#: What contracts are compared by: ``day`` is the midnight of the trading date that ``value`` is of, null where a value
#: was taken back.
MEASURES: dict[str, pl.DataType] = {
    "instrument_id": pl.Int64(),
    "contract": pl.String(),
    "delivery": pl.Int64(),
    "day": pl.Int64(),
    "value": pl.Int64(),
    "known": pl.Int64(),
}
#: Which contract on which days; ``end`` is exclusive.
STRETCHES: dict[str, pl.DataType] = {
    "instrument_id": pl.Int64(),
    "contract": pl.String(),
    "start": pl.Int64(),
    "end": pl.Int64(),
}
#: What was published so many days ago says nothing of today.
_STALE = 10
#: A contract by its delivery and its symbol.
Key = tuple[int, str]


@dataclass(frozen=True)
class Known:
    """What a rule decides by. ``complete`` are the stretches of time in which nothing of ``measures`` is missing.

    ``sessions`` are the midnights of the trading dates, sorted; None where every day may be one. ``doubtful`` are the
    trading dates of which a row was rejected, each with when that became known.
    """

    contracts: pl.DataFrame
    measures: pl.DataFrame
    complete: Sequence[tuple[int, int]] = ()
    sessions: Sequence[int] | None = None
    doubtful: Mapping[int, int] = field(default_factory=dict)


class Why(Enum):
    """Why a day has no contract."""

    LACKING = "data is lacking"
    DOUBTFUL = "a row was rejected"
    FEW = "there are fewer contracts than the rank"


@dataclass
class Decided:
    """The stretches (:data:`STRETCHES`), and the days without a contract by why they have none."""

    stretches: pl.DataFrame
    without: dict[Why, list[int]] = field(default_factory=dict)

    @property
    def lacking(self) -> list[int]:
        """The days without a contract for want of data."""
        return self.without.get(Why.LACKING, [])


def decided(rule: Rule, rank: int, known: Known, window: Window) -> Decided:
    """The contract of each UTC day that the window touches."""
    first, last = window.start // DAY_NS * DAY_NS, -(-window.end // DAY_NS) * DAY_NS
    days = range(first, last, DAY_NS)
    found = _by_calendar(rule, rank, known, days) if rule.by == "calendar" else _by_measure(rule, rank, known, days)
    rows: list[tuple[int, str, int, int]] = []
    without: dict[Why, list[int]] = {}
    for day, chosen in zip(days, found, strict=True):
        if isinstance(chosen, Why):
            without.setdefault(chosen, []).append(day)
            continue
        instrument, contract = chosen
        if rows and rows[-1][:2] == chosen and rows[-1][3] == day:
            rows[-1] = (*rows[-1][:3], day + DAY_NS)
        else:
            rows.append((instrument, contract, day, day + DAY_NS))
    return Decided(pl.DataFrame(rows, schema=STRETCHES, orient="row"), without)


class _Book:
    """What is known of contracts as days go by: forward only."""

    def __init__(self, contracts: pl.DataFrame) -> None:
        self._rows = contracts.sort("known", "instrument_id", maintain_order=True).rows()
        self._next = 0
        #: By contract: instrument and expiry.
        self.terms: dict[Key, tuple[int, int | None]] = {}

    def until(self, day: int) -> None:
        """Take in what was said until the day began, the instant of midnight included."""
        while self._next < len(self._rows) and self._rows[self._next][4] <= day:
            instrument, contract, delivery, expires, _ = self._rows[self._next]
            self.terms[delivery, contract] = (instrument, expires)
            self._next += 1

    def expired(self, key: Key, day: int) -> bool:
        """True where the contract is known to have expired on a day before."""
        expires = self.terms.get(key, (0, None))[1]
        return expires is not None and expires // DAY_NS * DAY_NS < day


#: An instrument and its contract, or why there is none.
_Choice = tuple[int, str] | Why


def _by_calendar(rule: Rule, rank: int, known: Known, days: Sequence[int]) -> list[_Choice]:
    book = _Book(known.contracts)
    found: list[_Choice] = []
    leaves: dict[tuple[Key, int | None], int] = {}
    for day in days:
        book.until(day)
        live = []
        for key, (instrument, expires) in book.terms.items():
            if (key, expires) not in leaves:
                leaves[key, expires] = _leaves(rule, key, expires, known.sessions)
            if day < leaves[key, expires] and not book.expired(key, day):
                live.append((leaves[key, expires], key, instrument))
        if len(live) <= rank:
            # Where every contract that was ever announced is over, what came after is not known.
            found.append(Why.FEW if live else Why.LACKING)
        else:
            _, (_, contract), instrument = sorted(live)[rank]
            found.append((instrument, contract))
    return found


def _leaves(rule: Rule, key: Key, expires: int | None, sessions: Sequence[int] | None) -> int:
    """The first day on which the contract is no longer the one."""
    if rule.before == "delivery-month":
        event = _month(key[0]) - DAY_NS
    elif expires is None:
        return 0
    else:
        event = expires // DAY_NS * DAY_NS
    # Sessions are known for some years ahead; a contract that leaves later is not the one before that.
    counted = rule.count == "sessions" and rule.days > 0 and sessions and event <= sessions[-1]
    if sessions is None or not counted:
        return event + DAY_NS - rule.days * DAY_NS
    # The event's own session counts as the first, or the last one before it.
    at = bisect.bisect_right(sessions, event) - rule.days
    return sessions[at] if at >= 0 else 0


def _month(number: int) -> int:
    """Midnight of the first day of a month that is counted since year 0."""
    return date_ns(dt.date(number // 12, number % 12 + 1, 1))


def _by_measure(rule: Rule, rank: int, known: Known, days: Sequence[int]) -> list[_Choice]:
    book, board = _Book(known.contracts), _Board(known)
    found: list[_Choice] = []
    front: Key | None = None
    # A contract that was left behind stays so, whatever is asked for: the story begins where the data does.
    began = min(board.first, days[0]) if len(days) else 0
    for day in range(began, days[-1] + DAY_NS if len(days) else 0, DAY_NS):
        book.until(day)
        values = board.at(day, rule.lag)
        live = [
            (-value, key, instrument)
            for key, (value, instrument) in ({} if isinstance(values, Why) else values).items()
            if not book.expired(key, day) and (rule.back or front is None or key >= front)
        ]
        live.sort()
        if live:
            front = live[0][1]
        if day < days[0]:
            continue
        if isinstance(values, Why):
            found.append(values)
        elif len(live) <= rank:
            found.append(Why.FEW)
        else:
            _, key, instrument = live[rank]
            found.append((book.terms.get(key, (instrument, None))[0], key[1]))
    return found


class _Board:
    """What contracts are compared by, as it became known: forward only."""

    def __init__(self, known: Known) -> None:
        self._rows = known.measures.sort("known", maintain_order=True).rows()
        self._next = 0
        self._values: dict[int, dict[Key, tuple[int, int]]] = {}
        self._sessions = known.sessions
        self._complete = known.complete
        self._doubtful = known.doubtful
        self.first: int = int(known.measures["day"].min()) if known.measures.height else 1 << 62  # type: ignore[arg-type]
        if known.measures.height:
            self.first = self.first // DAY_NS * DAY_NS

    def at(self, day: int, lag: int) -> dict[Key, tuple[int, int]] | Why:
        """By contract the value and the instrument, of the newest trading date with any, or why there are none."""
        while self._next < len(self._rows) and self._rows[self._next][5] <= day:
            instrument, contract, delivery, of, value, _ = self._rows[self._next]
            self._next += 1
            if self._traded(of):
                values = self._values.setdefault(of, {})
                values.pop((delivery, contract), None)
                if value is not None:
                    values[delivery, contract] = (value, instrument)
        newest = self._newest(day, lag)
        for of in range(newest, newest - _STALE * DAY_NS, -DAY_NS):
            if self._traded(of) and self._doubtful.get(of, day + 1) <= day:
                return Why.DOUBTFUL
            if self._values.get(of):
                return self._values[of] if self._whole(of, min(day, newest + DAY_NS)) else Why.LACKING
        return Why.LACKING

    def _newest(self, day: int, lag: int) -> int:
        """The trading date ``lag`` before the day."""
        if self._sessions is None:
            return day - lag * DAY_NS
        at = bisect.bisect_left(self._sessions, day) - lag
        return self._sessions[at] if at >= 0 else -DAY_NS

    def _traded(self, day: int) -> bool:
        if self._sessions is None:
            return True
        at = bisect.bisect_left(self._sessions, day)
        return at < len(self._sessions) and self._sessions[at] == day

    def _whole(self, start: int, end: int) -> bool:
        """True where nothing of the time is missing."""
        return any(a <= start and end <= b for a, b in self._complete)


__all__ = ["CONTRACTS", "MEASURES", "STRETCHES", "Decided", "Known", "Why", "decided"]

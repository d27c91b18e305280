"""When is traded: hours of the exchange calendars, by UTC hour, with the weight that each has in a day."""

from __future__ import annotations

import datetime as dt
import functools
import warnings
from dataclasses import dataclass

import numpy as np

from hdi.model import DAY_NS, NS, date_ns
from hdi.rehearsal.draws import I64, Bool

#: The calendars reach from the first day to the last one, exclusive.
FIRST, LAST = dt.date(2010, 1, 1), dt.date(2036, 1, 1)
ZERO = date_ns(FIRST) // DAY_NS
MINUTE_NS = 60 * NS
HOUR_NS = 60 * MINUTE_NS
_HOURS, _MINUTES = 24, 60
#: Globex has a break of an hour before the next session opens.
_GLOBEX_MINUTES = 23 * 60
#: Weight of a minute by hours since the open: Globex opens at 17:00 in Chicago, New York at 09:30.
_GLOBEX = (6, 4, 4, 5, 5, 4, 4, 4, 6, 12, 11, 10, 13, 22, 40, 90, 85, 62, 55, 60, 72, 88, 24)
_NEW_YORK = (95, 60, 45, 42, 48, 70, 120)


@dataclass(frozen=True, slots=True, eq=False)
class Sessions:
    """The sessions of one calendar, and each UTC hour since ``FIRST``.

    Sessions: ``date`` (days since 1970), ``opens`` and ``closes`` (ns). Hours: ``low`` and ``high``, the minutes of
    the hour between which is traded (equal where it is not); ``session``, the number of its session or -1;
    ``weight`` of each of its minutes; ``total``, the weights of all minutes before it (one longer than the hours).
    """

    date: I64
    opens: I64
    closes: I64
    low: I64
    high: I64
    session: I64
    weight: I64
    total: I64

    def before(self, at: I64) -> I64:
        """The weight of all minutes before each instant (ns, at whole minutes)."""
        minute = at // MINUTE_NS - ZERO * _HOURS * _MINUTES
        hour = minute // _MINUTES
        inside = np.clip(minute % _MINUTES, self.low[hour], self.high[hour]) - self.low[hour]
        out: I64 = self.total[hour] + self.weight[hour] * inside
        return out

    def of_days(self, days: I64) -> I64:
        """The weight of all minutes of each UTC day; 0 where no session touches it."""
        hour = (days - ZERO) * _HOURS
        out: I64 = self.total[hour + _HOURS] - self.total[hour]
        return out

    def ending(self, days: I64) -> tuple[I64, Bool]:
        """The number of the session of each trading date, and which days are one."""
        at = np.minimum(np.searchsorted(self.date, days), len(self.date) - 1)
        return at, self.date[at] == days

    def previous(self, days: I64) -> I64:
        """The last trading date before each day."""
        out: I64 = self.date[np.maximum(np.searchsorted(self.date, days) - 1, 0)]
        return out

    @property
    def full(self) -> int:
        """The weight of a whole session."""
        return int(np.max(self.before(self.closes) - self.before(self.opens)))


@functools.cache
def sessions(calendar: str) -> Sessions:
    """The sessions of a calendar by its name in exchange_calendars, CMES or XNYS."""
    # The library takes a third of a second to import.
    import exchange_calendars

    with warnings.catch_warnings():
        # exchange_calendars itself uses what pandas has deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        last = LAST - dt.timedelta(days=1)
        schedule = exchange_calendars.get_calendar(calendar, start=str(FIRST), end=str(last)).schedule
    opens, closes = (
        schedule[name].dt.tz_localize(None).to_numpy("M8[ns]").astype(np.int64) for name in ("open", "close")
    )
    date = schedule.index.to_numpy().astype("datetime64[D]").astype(np.int64)
    profile = np.asarray(_NEW_YORK)
    if calendar == "CMES":
        closes = np.minimum(closes, opens + _GLOBEX_MINUTES * MINUTE_NS)
        profile = np.asarray(_GLOBEX)
    return _by_hour(date, opens, closes, profile)


def _by_hour(date: I64, opens: I64, closes: I64, profile: I64) -> Sessions:
    hours = (LAST - FIRST).days * _HOURS
    first, last = opens // HOUR_NS, -(-closes // HOUR_NS)
    count = last - first
    session = np.repeat(np.arange(len(date)), count)
    since = np.arange(len(session)) - np.repeat(np.cumsum(count) - count, count)
    start = (first[session] + since) * HOUR_NS
    at = start // HOUR_NS - ZERO * _HOURS
    inside = (at >= 0) & (at < hours)
    at, start, session, since = at[inside], start[inside], session[inside], since[inside]
    low, high, owner, weight = (np.zeros(hours, np.int64) for _ in range(4))
    low[at] = np.maximum(opens[session] - start, 0) // MINUTE_NS
    high[at] = np.minimum(closes[session] - start, HOUR_NS) // MINUTE_NS
    owner[:] = -1
    owner[at] = session
    weight[at] = profile[since]
    total = np.concatenate(([0], np.cumsum(weight * (high - low))))
    return Sessions(date, opens, closes, low, high, owner, weight, total)

"""Cron lines: when something is to be done, by five fields and a time zone."""

from __future__ import annotations

import datetime as dt
import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import dropwhile, takewhile
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

UTC = "UTC"
_FIELDS = (
    "minute (0-59)", "hour (0-23)", "day of the month (1-31)", "month (1-12)", "day of the week (0-7, 0 and 7 Sunday)",
)  # fmt: skip
FORM = f"A cron line has five fields: {', '.join(_FIELDS)}; '15 6 * * 2-6' is 06:15 from Tuesday to Saturday."
#: What crontabs do not know: the last day of a month (L), the n-th weekday (FRI#2), a step without a range (5/15).
_OWN = re.compile(r"#|(?:^|[ ,])(?:L|LW|\d+L|\w+/)")
_SECOND = dt.timedelta(seconds=1)
#: Longer than any clock repeats or leaves out.
_REPEATED = dt.timedelta(hours=2)


@dataclass(frozen=True)
class Cron:
    """A cron line in a time zone. Made by :meth:`parse`; slots are instants in UTC."""

    line: str
    timezone: str = UTC

    @classmethod
    def parse(cls, line: str, timezone: str = UTC) -> Cron:
        """The line, checked. Raises ValueError for one that is none, or that never comes."""
        line = " ".join(line.split())
        if len(line.split()) != len(_FIELDS):
            raise ValueError(f"{line!r} is not a cron line. {FORM}")
        cron = cls(line, timezone)
        try:
            next(cron._slots(dt.datetime(2024, 1, 1, tzinfo=dt.UTC)))
        except CronSimError as exc:
            raise ValueError(f"{line!r} is not a cron line: {str(exc).lower()}. {FORM}") from exc
        except StopIteration as exc:
            raise ValueError(f"{line!r}: that day never comes. {FORM}") from exc
        return cron

    def after(self, at: dt.datetime) -> dt.datetime:
        """The first slot after the instant."""
        # In the hour that a clock repeats the first of the two is the slot: it may lie before.
        return next(dropwhile(lambda slot: slot <= at, self._slots(at)))

    def last(self, at: dt.datetime) -> dt.datetime:
        """The latest slot at or before the instant."""
        back = self._slots(at.replace(microsecond=0) + _SECOND, reverse=True)
        if self.timezone == UTC:
            return next(dropwhile(lambda slot: slot > at, back))
        # Counted back, some are missed where the zone changes its offset; counted forward from there, none is.
        for before in dropwhile(lambda slot: slot > at, back):
            if found := list(takewhile(lambda slot: slot <= at, self._slots(before - _REPEATED))):
                return found[-1]
        raise StopIteration

    @property
    def portable(self) -> bool:
        """Whether every crontab knows what the line says."""
        return _OWN.search(self.line.upper()) is None

    def _slots(self, at: dt.datetime, *, reverse: bool = False) -> Iterator[dt.datetime]:
        return (slot.astimezone(dt.UTC) for slot in CronSim(self.line, at.astimezone(zone(self.timezone)), reverse))

    def __str__(self) -> str:
        return f"{self.line} {self.timezone}"


def zone(name: str) -> dt.tzinfo:
    """The time zone of an IANA name. Raises ValueError for one that there is not."""
    if name == UTC:
        return dt.UTC
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError) as exc:  # a folder, a path, or no such name
        raise ValueError(_unknown(name)) from exc


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, sorted(available_timezones()), 3, 0.6)
    meant = f" Did you mean {', '.join(close)}?" if close else ""
    return f"unknown time zone {name!r}.{meant} IANA names are meant, such as America/Chicago or UTC"


__all__ = ["FORM", "UTC", "Cron", "zone"]

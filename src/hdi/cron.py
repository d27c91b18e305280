"""Cron lines: when something is to be done, by five fields and a time zone."""

from __future__ import annotations

import datetime as dt
import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

UTC = "UTC"
_FIELDS = (
    "minute (0-59)", "hour (0-23)", "day of the month (1-31)", "month (1-12)", "day of the week (0-7, 0 and 7 Sunday)",
)  # fmt: skip
FORM = f"A cron line has five fields: {', '.join(_FIELDS)}; '15 6 * * 2-6' is 06:15 from Tuesday to Saturday."
#: What crontabs do not know: the last day of a month (L), the n-th weekday (FRI#2), a step without a range (5/15).
_OWN = re.compile(r"#|(?:^|[ ,])(?:L|LW|\d+L|\w+/)")
_MINUTE = dt.timedelta(minutes=1)
#: More than any clock is put forward or back.
_SHIFT = dt.timedelta(hours=3)


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
            next(cron._shown(dt.datetime(2024, 1, 1, tzinfo=dt.UTC)))
        except CronSimError as exc:
            raise ValueError(f"{line!r} is not a cron line: {str(exc).lower()}. {FORM}") from exc
        except StopIteration as exc:
            raise ValueError(f"{line!r}: that day never comes. {FORM}") from exc
        return cron

    def after(self, at: dt.datetime) -> dt.datetime:
        """The first slot after the instant."""
        return self._nearest(at, lambda slot: slot > at, reverse=False)

    def last(self, at: dt.datetime) -> dt.datetime:
        """The latest slot at or before the instant."""
        return self._nearest(at, lambda slot: slot <= at, reverse=True)

    @property
    def portable(self) -> bool:
        """Whether every crontab knows what the line says."""
        return _OWN.search(self.line.upper()) is None

    def _nearest(self, at: dt.datetime, wanted: Callable[[dt.datetime], bool], *, reverse: bool) -> dt.datetime:
        """The slot that is nearest to the instant of those that are wanted.

        Clocks that are put forward or back show times in another order than they come: a little more is looked at.
        """
        here = zone(self.timezone)
        ahead = _SHIFT if reverse else -_SHIFT
        found: list[dt.datetime] = []
        for shown in self._shown(_wall(at, here) + ahead, reverse=reverse):
            if found and (_wall(found[0], here) - shown if reverse else shown - _wall(found[0], here)) > _SHIFT:
                break
            found = sorted([*found, *filter(wanted, self._instants(shown, here))], reverse=reverse)[:1]
        return found[0]

    def _shown(self, wall: dt.datetime, *, reverse: bool = False) -> CronSim:
        """What a clock shows at the slots after (or before) some time, as UTC."""
        return CronSim(self.line, wall, reverse)

    def _instants(self, shown: dt.datetime, here: dt.tzinfo) -> list[dt.datetime]:
        """When a clock of the zone shows that: once, as a rule.

        Of a time that it shows twice the first counts, and one that it leaves out is made up for when it goes on; what
        comes every hour or every few minutes goes by the time that passes.
        """
        first, second = (shown.replace(tzinfo=here, fold=fold).astimezone(dt.UTC) for fold in (0, 1))
        steady = any(field.startswith("*") for field in self.line.split()[:2])
        if first > second:  # left out
            while not steady and first > second:
                shown += _MINUTE
                first, second = (shown.replace(tzinfo=here, fold=fold).astimezone(dt.UTC) for fold in (0, 1))
            return [] if steady else [first]
        return [first, second] if steady and second > first else [first]

    def __str__(self) -> str:
        return f"{self.line} {self.timezone}"


def _wall(at: dt.datetime, here: dt.tzinfo) -> dt.datetime:
    """What a clock of the zone shows at an instant, as UTC."""
    return at.astimezone(here).replace(tzinfo=dt.UTC, microsecond=0, fold=0)


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

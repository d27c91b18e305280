"""The YAML tables of calendars: which calendar, hours and exceptional days each dataset and product has."""

from __future__ import annotations

import datetime as dt
import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from hdi.document import Document, load
from hdi.errors import ConfigError

#: The packaged table; and the user's own, in the config folder.
PACKAGED = Path(__file__).with_name("calendars.yaml")
NAME = "calendars.yaml"
TOP = "datasets"
_HOURS = ("opens", "closes", "early_closes")
_DAYS: dict[Kind, tuple[str, ...]] = {
    "open": ("opens", "closes", "reason"),
    "closed": (),
    "early": ("closes", "reason"),
}
_DATASET = ("calendar", "hours", *_DAYS, "products")
_PRODUCT = ("roots", "calendar", "since", "hours", *_DAYS)
_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")

Kind = Literal["open", "closed", "early"]
Keys = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Hours:
    """Local times of the exchange; None is what the library has."""

    opens: dt.time | None = None
    closes: dt.time | None = None
    early_closes: dt.time | None = None

    def over(self, other: Hours) -> Hours:
        """These, and where there are none the other ones."""
        return Hours(self.opens or other.opens, self.closes or other.closes, self.early_closes or other.early_closes)


@dataclass(frozen=True, slots=True)
class Day:
    """A trading date that the library has otherwise. ``where`` it stands in a user's table; "" in the packaged one."""

    date: dt.date
    kind: Kind
    reason: str
    opens: dt.time | None = None
    closes: dt.time | None = None
    where: str = field(default="", repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Layer:
    """What a table says of a dataset, or of the products of it whose root fits one of ``roots``.

    With a ``calendar`` it starts anew, from the trading date ``since`` where that is given; without, it adds to what
    was said before. ``where`` its hours stand in a user's table; "" in the packaged one.
    """

    roots: tuple[str, ...] = ()
    calendar: str = ""
    since: dt.date | None = None
    hours: Hours = Hours()
    days: tuple[Day, ...] = ()
    where: str = field(default="", repr=False, compare=False)

    def fits(self, root: str) -> bool:
        """True for a dataset, and for a product of that root."""
        return not self.roots or any(fnmatchcase(root, pattern) for pattern in self.roots)


@dataclass(frozen=True, slots=True)
class Rules:
    """What is in force for one product: the layers that fit it, as one. From ``since`` on, ``then`` is."""

    calendar: str
    hours: Hours = Hours()
    days: tuple[Day, ...] = ()
    since: dt.date | None = None
    then: Rules | None = None

    def under(self, layer: Layer) -> Rules:
        """These rules with one more layer upon them."""
        if layer.calendar:
            fresh = Rules(layer.calendar, layer.hours, layer.days)
            return fresh if layer.since is None else replace(self, since=layer.since, then=fresh)
        days = {day.date: day for day in (*self.days, *layer.days)}
        then = self.then.under(layer) if self.then else None
        return replace(self, hours=layer.hours.over(self.hours), days=tuple(days.values()), then=then)


def rules_of(layers: Iterable[Layer]) -> Rules | None:
    """The layers as one; None where none of them names a calendar."""
    found: Rules | None = None
    for layer in layers:
        if found is not None:
            found = found.under(layer)
        elif layer.calendar and layer.since is None:
            found = Rules(layer.calendar, layer.hours, layer.days)
    return found


def tables(config_dir: Path | None) -> dict[str, tuple[Layer, ...]]:
    """The layers of each dataset, those of the user last.

    Raises ConfigError with file, line, column and key: all that is wrong in a file at once.
    """
    found = _read(load(PACKAGED), {})
    path = config_dir / NAME if config_dir is not None else None
    # A link to nothing is there, and cannot be read.
    if path is None or not os.path.lexists(path):
        return found
    own = _read(load(path), found)
    return {name: (*found.get(name, ()), *own.get(name, ())) for name in dict.fromkeys((*found, *own))}


def _read(doc: Document, below: Mapping[str, tuple[Layer, ...]]) -> dict[str, tuple[Layer, ...]]:
    """``below`` is what another table said before: it need not be said again."""
    reader = _Reader(doc, {layer.calendar for layers in below.values() for layer in layers})
    found = {name: tuple(reader.dataset(name, body, below)) for name, body in reader.top()}
    if reader.problems:
        hints = dict.fromkeys(problem.hint for problem in reader.problems if problem.hint)
        raise ConfigError("\n".join(problem.message for problem in reader.problems), "\n".join(hints))
    return found


class _Reader:
    """Takes one table apart, and keeps what is wrong with it."""

    def __init__(self, doc: Document, known: set[str]) -> None:
        self.doc = doc
        self.problems: list[ConfigError] = []
        self._known = known
        self._packaged = doc.path == PACKAGED

    def top(self) -> Iterator[tuple[str, Any]]:
        body = self._mapping(self.doc.data, (TOP,), ())
        yield from self._mapping(body.get(TOP), None, (TOP,)).items()

    def dataset(self, name: str, body: Any, below: Mapping[str, tuple[Layer, ...]]) -> Iterator[Layer]:
        at: Keys = (TOP, name)
        entry = self._mapping(body, _DATASET, at)
        layer = self._layer(entry, at)
        if "calendar" not in entry and name not in below:
            self._wrong("the key calendar is missing: no other table has this dataset", *at)
        yield layer
        for product, given in self._mapping(entry.get("products"), None, (*at, "products")).items():
            yield self._product(given, (*at, "products", product))

    def _product(self, body: Any, at: Keys) -> Layer:
        entry = self._mapping(body, _PRODUCT, at)
        roots = entry.get("roots")
        if not isinstance(roots, list) or not roots or not all(isinstance(r, str) and r.strip() for r in roots):
            self._wrong(f"{roots!r}: a list of roots is needed, such as [ES, NQ] or ['SPX*']", *at, "roots")
            roots = ["*"]
        since = None
        if "since" in entry:
            since = self._date(entry["since"], (*at, "since"))
            if "calendar" not in entry:
                self._wrong("since says from when on a calendar is in force: the key calendar is missing", *at, "since")
        layer = self._layer(entry, at)
        return replace(layer, roots=tuple(r.strip().upper() for r in roots), since=since)

    def _layer(self, entry: Mapping[str, Any], at: Keys) -> Layer:
        clocks = self._mapping(entry.get("hours"), _HOURS, (*at, "hours"))
        hours = Hours(**{key: self._clock(value, (*at, "hours", key)) for key, value in clocks.items()})
        days: dict[dt.date, Day] = {}
        for kind in _DAYS:
            for text, body in self._mapping(entry.get(kind), None, (*at, kind)).items():
                day = self._day(kind, text, body, (*at, kind, text))
                if day is not None and day.date in days:
                    self._wrong(f"the day stands under {days[day.date].kind} too", *at, kind, text)
                if day is not None:
                    days[day.date] = day
        calendar = self._calendar(entry["calendar"], (*at, "calendar")) if "calendar" in entry else ""
        return Layer((), calendar, None, hours, tuple(days.values()), self._where(*at, "hours"))

    def _calendar(self, value: Any, at: Keys) -> str:
        """A name that the library has. It takes a third of a second to import; the packaged names are its own."""
        if not isinstance(value, str) or not value.strip():
            what = "the key is empty" if value is None or value == "" else f"{value!r} is none"
            self._wrong(f"{what}: the name of a calendar is needed, such as CMES", *at)
            return ""
        if self._packaged or value in self._known:
            return value
        import exchange_calendars

        names = exchange_calendars.get_calendar_names()
        if value not in names:
            self._wrong(f"no calendar {value!r}", *at, hint=_meant(value, names))
        return value

    def _day(self, kind: Kind, text: str, body: Any, at: Keys) -> Day | None:
        date = self._date(text, at)
        entry = {"reason": body} if kind == "closed" else self._mapping(body, _DAYS[kind], at)
        reason = entry.get("reason")
        if not isinstance(reason, str) or not reason.strip():
            self._wrong(f"{reason!r}: a reason is needed, in words", *at)
        opens, closes = (self._clock(entry[key], (*at, key)) if key in entry else None for key in ("opens", "closes"))
        if kind == "early" and "closes" not in entry:
            self._wrong("the key closes is missing", *at)
        return None if date is None else Day(date, kind, str(reason).strip(), opens, closes, self._where(*at))

    def _date(self, text: Any, at: Keys) -> dt.date | None:
        try:
            if isinstance(text, str) and _DATE.fullmatch(text):
                return dt.date.fromisoformat(text)
        except ValueError:
            pass  # told below, as any other text that is no date
        self._wrong(f"{text!r} is not a date: write YYYY-MM-DD", *at)
        return None

    def _clock(self, value: Any, at: Keys) -> dt.time | None:
        if isinstance(value, str) and (match := _CLOCK.fullmatch(value)):
            return dt.time(int(match[1]), int(match[2]))
        self._wrong(f"{value!r} is not a time of day: write HH:MM, such as 09:30", *at)
        return None

    def _mapping(self, value: Any, known: tuple[str, ...] | None, at: Keys) -> dict[str, Any]:
        """The value, with an error for each key that is not known; {} for None."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            self._wrong(f"{value!r}: keys are needed here" + (f": {', '.join(known)}" if known else ""), *at)
            return {}
        for key in value if known is not None else ():
            if key not in (known or ()):
                self._wrong(f"unknown key {key}", *at, key, hint=_meant(key, known or ()))
        return {key: body for key, body in value.items() if known is None or key in known}

    def _where(self, *at: str | int) -> str:
        return "" if self._packaged else self.doc.where(*at)

    def _wrong(self, message: str, *at: str | int, hint: str = "") -> None:
        self.problems.append(self.doc.error(message, *at, hint=hint))


def _meant(name: str, known: Iterable[str]) -> str:
    """The closest of the known names, and all of them."""
    names = {k.casefold(): k for k in known}
    close = [names[k] for k in difflib.get_close_matches(name.casefold(), list(names), n=3, cutoff=0.5)]
    return (f"Did you mean {', '.join(close)}? " if close else "") + f"Known: {', '.join(names.values())}."


__all__ = ["NAME", "PACKAGED", "Day", "Hours", "Kind", "Layer", "Rules", "rules_of", "tables"]

"""Roll rules as data: the packaged ones, and those of ``roll_rules.yaml`` in the config folder.

A rule is by one of four things, and has the parameters of that thing alone:

``vendor``         none
``calendar``       ``before`` (expiration, delivery-month), ``days``, ``count`` (calendar-days, sessions)
``volume``         ``lag`` in sessions, ``back`` (false: never again to a contract that expires earlier)
``open-interest``  the same
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from hdi.document import Document, load
from hdi.errors import ConfigError, RequestError

By = Literal["vendor", "calendar", "volume", "open-interest"]
Before = Literal["expiration", "delivery-month"]
Count = Literal["calendar-days", "sessions"]
#: The letter of the continuous symbols that a rule decides; the vendor's mapping knows all of them.
LETTERS: dict[str, str] = {"calendar": "c", "volume": "v", "open-interest": "n"}
VENDOR = "vendor"
FILE = "roll_rules.yaml"
PACKAGED = Path(__file__).with_name(FILE)
_TOP = "rules"
_KEYS: dict[str, tuple[str, ...]] = {
    "vendor": (), "calendar": ("before", "days", "count"), "volume": ("lag", "back"), "open-interest": ("lag", "back"),
}  # fmt: skip
_NAME = re.compile(r"[a-z][a-z0-9-]*")
_MOST_DAYS, _MOST_LAG = 400, 60


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    The event of a calendar rule is the day of the expiration, or the last day before the delivery month. With ``days``
    0 the next contract takes over on the day after it, with 1 on the event's own day, counted back in calendar days or
    in sessions. By volume and open interest the contract of a day is decided by the ``lag``-th trading date before it.
    """

    name: str
    by: By
    before: Before = "expiration"
    days: int = 0
    count: Count = "calendar-days"
    lag: int = 1
    back: bool = False

    @property
    def letter(self) -> str:
        """The letter of its continuous symbols; "" where it knows those of every letter."""
        return LETTERS.get(self.by, "")

    @property
    def says(self) -> str:
        """The rule in words."""
        if self.by == VENDOR:
            return "the vendor's mapping"
        if self.by == "calendar":
            return f"by calendar, {self.days} {self.count} before {self.before}"
        return f"by {self.by} of the {self.lag}. session before{', and back again' if self.back else ''}"


def load_rules(config_dir: Path | None) -> dict[str, Rule]:
    """The rules by name. Raises ConfigError with file, line, column and key: all that is wrong in a file at once."""
    found = _read(load(PACKAGED))
    path = config_dir / FILE if config_dir is not None else None
    # A link to nothing is there, and cannot be read.
    if path is None or not os.path.lexists(path):
        return found
    return found | _read(load(path))


def rule_of(rules: Mapping[str, Rule], name: str | None) -> Rule:
    """The rule of a name, None being the vendor's mapping; RequestError with the closest names for any other text."""
    if name is None:
        return rules[VENDOR]
    known = {key.casefold(): key for key in rules}
    text = name.strip().casefold().replace("_", "-").replace(" ", "-")
    if text in known:
        return rules[known[text]]
    close = difflib.get_close_matches(text, known, n=3, cutoff=0.5)
    meant = f"Did you mean {', '.join(known[c] for c in close)}? " if close else ""
    raise RequestError(
        f"unknown roll rule {name!r}",
        f"{meant}Known: {', '.join(rules)}. Your own stand in {FILE} of the config folder.",
    )


def _read(doc: Document) -> dict[str, Rule]:
    reader = _Reader(doc)
    found = {name: reader.rule(name, body) for name, body in reader.top().items()}
    if reader.problems:
        raise ConfigError("\n".join(p.message for p in reader.problems), "\n".join(_hints(reader.problems)))
    return found


def _hints(problems: list[ConfigError]) -> list[str]:
    return list(dict.fromkeys(p.hint for p in problems if p.hint))


class _Reader:
    """Takes one file apart, and keeps what is wrong with it."""

    def __init__(self, doc: Document) -> None:
        self.doc = doc
        self.problems: list[ConfigError] = []

    def top(self) -> dict[str, Any]:
        data = self._mapping(self.doc.data)
        for key in data:
            if key != _TOP:
                self._wrong(f"unknown key {key!r}", key, hint=f"The one key is {_TOP}.")
        return self._mapping(data.get(_TOP), _TOP)

    def rule(self, name: str, body: Any) -> Rule:
        at = (_TOP, name)
        if not _NAME.fullmatch(name):
            self._wrong(f"{name!r}: a rule's name is made of small letters, digits and -", *at)
        entry = self._mapping(body, *at)
        by = self._word(entry, "by", None, get_args(By), at)
        if name == VENDOR and by not in ("", VENDOR):
            self._wrong(f"{VENDOR} is the mapping as it was stored, and nothing else", *at, "by")
        known = ("by", *_KEYS.get(by, ()))
        for key in entry:
            if by and key not in known:
                close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
                meant = f" Did you mean {close[0]}?" if close else ""
                self._wrong(f"a rule by {by} has no {key!r}.{meant}", *at, key, hint=f"By {by}: {', '.join(known)}.")
        return Rule(
            name, by or VENDOR,  # type: ignore[arg-type]  # one of them, or refused
            self._word(entry, "before", "expiration", get_args(Before), at),  # type: ignore[arg-type]
            self._number(entry, "days", 0, (0, _MOST_DAYS), at),
            self._word(entry, "count", "calendar-days", get_args(Count), at),  # type: ignore[arg-type]
            self._number(entry, "lag", 1, (1, _MOST_LAG), at),
            self._truth(entry, "back", at),
        )  # fmt: skip

    def _mapping(self, value: Any, *at: str) -> dict[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            self._wrong("keys with values are needed here", *at)
            return {}
        return value

    def _word(self, entry: Mapping[str, Any], key: str, otherwise: str | None, words: tuple[str, ...],
              at: tuple[str, ...]) -> str:  # fmt: skip
        if key not in entry and otherwise is not None:
            return otherwise
        value = entry.get(key)
        if value in words:
            return str(value)
        what = f"the key {key} is missing" if value is None else f"{value!r} is none of them"
        self._wrong(f"{what}: {', '.join(words)}", *at, key)
        return otherwise or ""

    def _number(self, entry: Mapping[str, Any], key: str, otherwise: int, span: tuple[int, int],
                at: tuple[str, ...]) -> int:  # fmt: skip
        value = entry.get(key, otherwise)
        if isinstance(value, int) and not isinstance(value, bool) and span[0] <= value <= span[1]:
            return value
        self._wrong(f"{value!r}: a whole number from {span[0]} to {span[1]} is needed", *at, key)
        return otherwise

    def _truth(self, entry: Mapping[str, Any], key: str, at: tuple[str, ...]) -> bool:
        value = entry.get(key, False)
        if not isinstance(value, bool):
            self._wrong(f"{value!r}: true or false is needed", *at, key)
        return value is True

    def _wrong(self, message: str, *at: str, hint: str = "") -> None:
        self.problems.append(self.doc.error(message, *at, hint=hint))


__all__ = ["FILE", "LETTERS", "VENDOR", "Rule", "load_rules", "rule_of"]

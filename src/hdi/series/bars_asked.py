"""What bars somebody asks for: their kind, and their width or size."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Literal, get_args

from hdi.errors import RequestError
from hdi.model import DAY_NS, MAX_NS, UNITS

Kind = Literal["time", "tick", "volume", "dollar"]
Align = Literal["utc", "session"]
KINDS: tuple[str, ...] = get_args(Kind)
ALIGNS: tuple[str, ...] = get_args(Align)
_WIDTH = re.compile(r"([0-9]+) ?(ms|s|m|h|d|w)")
_WIDTHS = "A width is a whole number and one of ms, s, m, h, d, w: 30s, 5m, 4h, 1d."
#: Weeks begin on Monday; 1970-01-01 was a Thursday.
_MONDAY = 4 * DAY_NS
_NANO = Decimal(10) ** 9
#: What bars of activity count, by kind.
MEASURES = {"tick": "trades", "volume": "volume", "dollar": "dollars"}
_COUNTED = {"tick": "trades", "volume": "contracts or shares", "dollar": "dollars of price times size"}


@dataclass(frozen=True)
class Every:
    """``width`` nanoseconds, from ``origin`` on, of bars by time; ``size`` trades, contracts or 1e-9 dollars of others.

    A bar of whole sessions holds those whose trading dates lie in the same ``days`` days, counted from ``origin`` too;
    0 for bars within a session.
    """

    kind: Kind
    align: Align
    text: str
    width: int = 0
    origin: int = 0
    days: int = 0
    size: int = 0

    @classmethod
    def parse(cls, every: str | int | Decimal, kind: str, align: str) -> Every:
        """Raises RequestError for what is no kind, no alignment, no width or no size."""
        if kind not in KINDS:
            raise RequestError(f"{kind!r} is not a kind of bars", f"Known: {', '.join(KINDS)}.")
        if align not in ALIGNS:
            raise RequestError(f"bars cannot be aligned to {align!r}", f"Known: {', '.join(ALIGNS)}.")
        if kind == "time":
            return _by_time(str(every), align)  # type: ignore[arg-type]
        size = _size(every, kind)
        number = Decimal(size).scaleb(-9 if kind == "dollar" else 0).normalize()
        return cls(kind, align, f"{kind}:{number:f}", size=size)  # type: ignore[arg-type]


def _by_time(text: str, align: Align) -> Every:
    match = _WIDTH.fullmatch(text.strip())
    if match is None:
        raise RequestError(f"{text!r} is not the width of a bar", _WIDTHS)
    number, unit = int(match[1]), match[2]
    width = number * UNITS[unit]
    if not number:
        raise RequestError("a bar of no width", _WIDTHS)
    if width >= MAX_NS // 4:
        raise RequestError(f"a bar of {text} is longer than all time that can be asked for", _WIDTHS)
    days = 0
    if align == "session" and width >= DAY_NS:
        if width % DAY_NS:
            raise RequestError(
                f"a bar of {text} is neither part of a session nor whole sessions",
                "With align=session give less than a day, or whole days (1d is a session).",
            )
        days = width // DAY_NS
    return Every("time", align, f"{number}{unit}", width, _MONDAY if unit == "w" else 0, days)


def _size(every: str | int | Decimal, kind: str) -> int:
    """How much fills a bar. Dollars in 1e-9, so that they are counted as prices are."""
    hint = f"A {kind} bar closes after a number of {_COUNTED[kind]}: give every=1000, for example."
    try:
        number = Decimal(str(every).strip().replace("_", ""))
    except InvalidOperation:
        raise RequestError(f"{every!r} is not the size of a {kind} bar", hint) from None
    scaled = number * (_NANO if kind == "dollar" else 1)
    if not number.is_finite() or number <= 0 or scaled != int(scaled) or scaled >= Decimal(2) ** 63:
        raise RequestError(f"{every!r} is not the size of a {kind} bar", hint)
    return int(scaled)


__all__ = ["ALIGNS", "KINDS", "MEASURES", "Every"]

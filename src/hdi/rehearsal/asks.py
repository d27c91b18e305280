"""Fields of a call, as the vendor's client sends them, to what is asked for; a field that is wrong is a Refusal."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hdi.model import DAY_NS, MAX_NS, NS, cell_end, date_ns, ns_date
from hdi.rehearsal.refusals import bad_symbology, invalid

ALL_SYMBOLS = "ALL_SYMBOLS"
#: What each type of symbol resolves to; the first is what the vendor's client asks for unless told otherwise.
STYPES: dict[str, tuple[str, ...]] = {
    "raw_symbol": ("instrument_id",),
    "instrument_id": ("raw_symbol", "instrument_id"),
    "continuous": ("instrument_id",),
    "parent": ("instrument_id",),
}
_MAX_SYMBOLS = 2_000
_MAX_ID = 2**32
_YEAR_DIGITS = 4
_TIME = re.compile(
    r"(?P<year>\d{4})(?:-(?P<month>\d\d)(?:-(?P<day>\d\d)(?:[T ](?P<hour>\d\d)"
    r"(?::(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.(?P<fraction>\d{1,9}))?)?)?"
    r"(?:Z|(?P<sign>[+-])(?P<hours>\d\d):?(?P<minutes>\d\d))?)?)?)?"
)
_MINUTE_NS = 60 * NS
_HOUR_NS = 60 * _MINUTE_NS


def field(fields: Mapping[str, str], name: str) -> str:
    """A field that has to be there."""
    value = fields.get(name, "").strip()
    if not value:
        raise invalid(f"Field `{name}` is required.")
    return value


def moments(text: str, name: str) -> tuple[int, int]:
    """``(instant, forward-filled end)`` in nanoseconds: of a date the day, of an hour the hour, of nanoseconds one.

    Takes a year, a month, a date, or ISO 8601 down to nanoseconds with or without an offset (UTC without), and
    nanoseconds since 1970 as digits.
    """
    text = text.strip()
    if text.isdigit() and len(text) > _YEAR_DIGITS:
        return _bounded(int(text), int(text) + 1, name)
    match = _TIME.fullmatch(text.upper())
    if not match:
        raise invalid(f"`{name}` {text!r} is not a date, an ISO 8601 time, or nanoseconds since 1970.")
    try:
        return _bounded(*_filled(match.groupdict()), name)
    except ValueError as exc:
        raise invalid(f"`{name}` {text!r} is not a time: {exc}.") from exc


def _filled(parts: Mapping[str, str | None]) -> tuple[int, int]:
    number = {name: int(value) for name, value in parts.items() if value is not None and value.isdigit()}
    start = date_ns(dt.date(number["year"], number.get("month", 1), number.get("day", 1)))
    if "day" not in number:
        return start, cell_end(start, "month" if "month" in number else "year")
    if "hour" not in number:
        return start, start + DAY_NS
    clock = dt.time(number["hour"], number.get("minute", 0), number.get("second", 0))
    start += clock.hour * _HOUR_NS + clock.minute * _MINUTE_NS + clock.second * NS
    start += int((parts["fraction"] or "").ljust(9, "0"))
    if parts["sign"]:
        shift = number["hours"] * _HOUR_NS + number["minutes"] * _MINUTE_NS
        start += shift if parts["sign"] == "-" else -shift
    steps = (("fraction", 1), ("second", NS), ("minute", _MINUTE_NS), ("hour", _HOUR_NS))
    return start, start + next(step for name, step in steps if name in number)


def _bounded(start: int, end: int, name: str) -> tuple[int, int]:
    if not 0 <= start < MAX_NS - DAY_NS:
        raise invalid(f"`{name}` is outside 1970-01-01 to 2262-04-10.")
    return start, end


def day(text: str, name: str) -> dt.date:
    """The UTC day of a date or an instant."""
    return ns_date(moments(text, name)[0])


@dataclass(frozen=True, slots=True)
class Symbols:
    """Symbols and what they are to be resolved from and to, checked for form."""

    names: tuple[str, ...]
    stype_in: str
    stype_out: str

    @classmethod
    def parse(cls, fields: Mapping[str, str]) -> Symbols:
        """From ``symbols`` (by commas), ``stype_in`` and ``stype_out``."""
        stype_in = fields.get("stype_in") or "raw_symbol"
        stype_out = fields.get("stype_out") or "instrument_id"
        if stype_in not in STYPES or stype_out not in STYPES[stype_in]:
            message = f"Unable to process symbology with parameters: `stype_in={stype_in}`, `stype_out={stype_out}`."
            raise bad_symbology(message)
        names = tuple(dict.fromkeys(s.strip() for s in field(fields, "symbols").split(",") if s.strip()))
        if not names:
            raise invalid("Field `symbols` is required.")
        if len(names) > _MAX_SYMBOLS:
            raise bad_symbology(f"Too many symbols: {len(names)}, at most {_MAX_SYMBOLS:,} a request.")
        if ALL_SYMBOLS in names and (len(names) > 1 or stype_in != "raw_symbol"):
            raise bad_symbology(f"{ALL_SYMBOLS} stands alone, with `stype_in=raw_symbol`.")
        _check_ids(names, stype_in)
        return cls(names, stype_in, stype_out)


def _check_ids(names: Sequence[str], stype_in: str) -> None:
    if stype_in == "instrument_id":
        bad = [name for name in names if not (name.isascii() and name.isdigit() and int(name) < _MAX_ID)]
        if bad:
            raise bad_symbology(f"Unable to process symbology: {bad[0]!r} is not an instrument id.")


def limit(fields: Mapping[str, str]) -> int | None:
    """The most records that are wanted, or None for all."""
    text = fields.get("limit", "").strip()
    if not text:
        return None
    if not text.isdigit():
        raise invalid(f"`limit` {text!r} is not a number of records.")
    return int(text) or None


def window(fields: Mapping[str, str]) -> tuple[int, int, bool]:
    """``(start, end, filled)`` of a data request; ``filled`` when ``end`` was left out."""
    start, filled = moments(field(fields, "start"), "start")
    if fields.get("end", "").strip():
        return start, moments(fields["end"], "end")[0], False
    return start, filled, True


def touched(fields: Mapping[str, str]) -> tuple[dt.date, dt.date] | None:
    """First and last UTC day that a call is about, by whichever fields it has; None when it names none."""
    if fields.get("start"):
        start, end, _ = window(fields)
        return ns_date(start), ns_date(max(end - 1, start))
    if fields.get("start_date"):
        first = day(fields["start_date"], "start_date")
        last = day(fields["end_date"], "end_date") if fields.get("end_date") else first
        return first, last
    return None

"""The nouns that are plain values: windows, units, receipts, requests to read.

Times are nanoseconds since 1970-01-01T00:00:00Z, as ``int``; windows are half-open.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Literal, get_args

from hdi.errors import HdiError, RequestError

NS = 1_000_000_000
DAY_NS = 86_400 * NS
#: The units that widths are written in, in nanoseconds.
UNITS = {
    "ns": 1, "us": 1_000, "ms": 1_000_000, "s": NS, "m": 60 * NS, "h": 3_600 * NS, "d": DAY_NS, "w": 7 * DAY_NS,
}  # fmt: skip
#: The last nanosecond that a signed 64-bit count can name falls in 2262; windows end before.
MAX_NS = 2**63 - 1

Grid = Literal["day", "month", "year"]
Stype = Literal["raw_symbol", "instrument_id", "continuous", "parent"]
Status = Literal["complete", "fragment", "failed", "ordered"]
#: The symbol types that can be asked for, and the word that some still use for the first.
STYPES: tuple[str, ...] = get_args(Stype)
NATIVE = "native"

#: The origin of data that a rehearsal made: it says so in every place where it shows.
SYNTHETIC = "synthetic"
_EPOCH = dt.date(1970, 1, 1)
#: A vendor takes so many symbols in one request.
MOST_SYMBOLS = 2_000
#: Amounts of dollars are kept to this.
MONEY = Decimal("1e-9")
_LEAST = Decimal("0.0001")
_SHOWN = 5
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_INSTANT = re.compile(r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?(Z|z|[+-]\d{2}:?\d{2})?")


def date_ns(day: dt.date) -> int:
    """Midnight UTC of ``day`` in nanoseconds."""
    return (day - _EPOCH).days * DAY_NS


def ns_date(ns: int) -> dt.date:
    """The UTC day that holds the instant."""
    return _EPOCH + dt.timedelta(days=ns // DAY_NS)


def iso_ns(ns: int) -> str:
    """RFC 3339 text with all nine digits, or without a fraction where there is none."""
    seconds, rest = divmod(ns, NS)
    stamp = dt.datetime.fromtimestamp(seconds, tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{stamp}.{rest:09d}Z" if rest else f"{stamp}Z"


def dollars_text(amount: Decimal) -> str:
    """US dollars: to the cent, and below one dollar to a hundredth of a cent; what is less than that says so."""
    if amount and abs(amount) < _LEAST:
        return f"<${_LEAST}"
    places = Decimal("0.01") if abs(amount) >= 1 or not amount else _LEAST
    return f"${amount.quantize(places):,}"


def some(names: Sequence[str], separator: str = ", ") -> str:
    """The first few names, and how many more there are."""
    more = len(names) - _SHOWN
    return separator.join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def parse_instant(text: str) -> tuple[int, bool]:
    """``(nanoseconds, was a date)`` of a date or an RFC 3339 instant.

    An instant without an offset is UTC. Raises RequestError for anything else, and for times that
    nanoseconds since 1970 cannot hold.
    """
    text = text.strip()
    try:
        if _DATE.fullmatch(text):
            return _bounded(date_ns(dt.date.fromisoformat(text)), text), True
        if match := _INSTANT.fullmatch(text):
            day, hour, minute, second, fraction, offset = match.groups()
            clock = dt.time(int(hour), int(minute), int(second or 0))
            ns = date_ns(dt.date.fromisoformat(day)) + NS * (clock.hour * 3600 + clock.minute * 60 + clock.second)
            ns += int((fraction or "").ljust(9, "0"))
            if offset and offset not in "Zz":
                sign = -1 if offset[0] == "-" else 1
                shift = dt.time(int(offset[1:3]), int(offset[-2:]))
                ns -= sign * NS * (shift.hour * 3600 + shift.minute * 60)
            return _bounded(ns, text), False
    except ValueError as exc:
        raise RequestError(f"{text!r} is not a date: {exc}", _DATE_HINT) from exc
    raise RequestError(f"{text!r} is not a date or a time", _DATE_HINT)


_DATE_HINT = "Write YYYY-MM-DD, or an RFC 3339 instant such as 2024-01-15T14:30:00Z."


def _bounded(ns: int, text: str) -> int:
    if not 0 <= ns < MAX_NS - DAY_NS:
        raise RequestError(f"{text!r} is outside 1970-01-01 to 2262-04-10", _DATE_HINT)
    return ns


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A half-open stretch of time, ``start <= t < end``, in nanoseconds UTC."""

    start: int
    end: int

    @classmethod
    def parse(cls, start: str, end: str) -> Window:
        """The window between two texts: the only place where dates become instants.

        A date as ``end`` means through that UTC day; an instant as ``end`` is exclusive.
        """
        first, _ = parse_instant(start)
        last, is_date = parse_instant(end)
        stop = last + DAY_NS if is_date else last
        if first >= stop:
            raise RequestError(
                f"the start date {start} is not before the end date {end}",
                "Exchange the two, or give the same day twice for one whole day.",
            )
        return cls(first, stop)

    def __str__(self) -> str:
        return f"{iso_ns(self.start)} to {iso_ns(self.end)}"

    @property
    def days(self) -> int:
        """How many UTC days the window touches."""
        return (self.end - 1) // DAY_NS - self.start // DAY_NS + 1

    def cut(self, other: Window) -> Window | None:
        """What both windows hold, or None."""
        start, end = max(self.start, other.start), min(self.end, other.end)
        return Window(start, end) if start < end else None

    def cells(self, grid: Grid) -> Iterator[Window]:
        """The window cut at every boundary of the grid; the pieces tile it exactly."""
        at = self.start
        while at < self.end:
            stop = min(cell_end(at, grid), self.end)
            yield Window(at, stop)
            at = stop


def subtract(window: Window, held: Iterable[tuple[int, int]]) -> list[Window]:
    """What of the window no interval holds."""
    left, at = [], window.start
    for start, end in sorted(held):
        if start >= window.end:
            break
        if start > at:
            left.append(Window(at, start))
        at = max(at, end)
    return [*left, Window(at, window.end)] if at < window.end else left


def joined(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The union of intervals, sorted; those that touch are one, and empty ones are left out."""
    out: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        elif start < end:
            out.append((start, end))
    return out


def cell_start(ns: int, grid: Grid) -> int:
    """The start of the grid cell that holds the instant."""
    day = ns_date(ns)
    if grid == "month":
        day = day.replace(day=1)
    elif grid == "year":
        day = day.replace(month=1, day=1)
    return date_ns(day)


def cell_end(ns: int, grid: Grid) -> int:
    """The end of the grid cell that holds the instant."""
    day = ns_date(ns)
    if grid == "day":
        day += dt.timedelta(days=1)
    elif grid == "month":
        day = dt.date(day.year + day.month // 12, day.month % 12 + 1, 1)
    else:
        day = dt.date(day.year + 1, 1, 1)
    return min(date_ns(day), MAX_NS)


@dataclass(frozen=True, slots=True)
class Header:
    """What a DBN file says of itself. ``mappings`` holds (key, start, end, symbol), sorted; times in nanoseconds.

    ``not_found`` are symbols that the vendor could not resolve, ``partial`` those that it could on some days only.
    ``part_of`` says of which job the file is an unjoined part; ``joined`` that its window is its part's own.
    """

    path: Path
    version: int
    dataset: str
    schema: str
    stype_in: str
    stype_out: str
    symbols: tuple[str, ...]
    start: int | None
    end: int | None
    limit: int | None
    mappings: tuple[tuple[str, int, int, str], ...] = field(repr=False)
    not_found: tuple[str, ...] = ()
    partial: tuple[str, ...] = ()
    part_of: str = ""
    joined: bool = False

    @property
    def window(self) -> Window | None:
        """The window that was asked for, where the file gives both ends."""
        if self.start is None or self.end is None or not self.start < self.end:
            return None
        return Window(self.start, self.end)

    @property
    def incomplete(self) -> str:
        """Why the file cannot claim to be everything it was asked for; "" when it can."""
        if self.part_of:
            return self.part_of
        if not self.symbols:
            return "its metadata names no symbols"
        if self.window is None:
            return "its metadata has no start and end"
        if self.limit is not None:
            return f"it was asked for with a limit of {self.limit} records"
        return ""


@dataclass(frozen=True, slots=True)
class Unit:
    """What is committed whole: one requested symbol (or file fragment) in one grid cell.

    ``symbol`` is the symbol as it was asked for; "" for instruments that arrived without a mapping
    in a file of several symbols. ``digest`` is set for fragments only: their identity is their bytes.
    """

    origin: str
    dataset: str
    schema: str
    symbol: str
    stype: str
    window: Window
    digest: str = ""

    @property
    def id(self) -> str:
        """Sixteen hexadecimal digits that name the same work in every run."""
        key = (self.origin, self.dataset, self.schema, self.symbol, self.stype)
        text = "\x1f".join((*key, str(self.window.start), str(self.window.end), self.digest))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def complete(self) -> bool:
        """False for a fragment, which claims no coverage."""
        return not self.digest


@dataclass(frozen=True, slots=True)
class Order:
    """What one billed call asks a vendor for; a quote takes exactly the same parameters."""

    dataset: str
    schema: str
    stype: str
    symbols: tuple[str, ...]
    window: Window


@dataclass(frozen=True, slots=True)
class Quote:
    """What an order brings and costs: records, bytes as they are billed (uncompressed), US dollars."""

    records: int
    size: int
    dollars: Decimal

    def __add__(self, other: Quote) -> Quote:
        return Quote(self.records + other.records, self.size + other.size, self.dollars + other.dollars)


@dataclass(frozen=True, slots=True)
class Condition:
    """What the vendor says of its data of one UTC day, and when that was last changed."""

    day: dt.date
    condition: str
    last_modified: dt.date | None


@dataclass(frozen=True, slots=True)
class RawFile:
    """The vendor's bytes as they were kept: path, SHA-256 and size."""

    path: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one unit in one run. ``fetched == stored + quarantined`` unless it failed, or was only ordered.

    ``stored`` is read back from the store; ``unchanged`` of them were there already, equal.
    ``superseded`` counts rows that this unit moved to history. ``rules`` counts every broken rule by
    name, whatever its severity. ``dollars`` is what its bytes cost, in the receipt of the first run that put them
    into this store; ``conditions`` names the days that the vendor did not call available. ``committed_at`` is
    nanoseconds UTC. ``job`` is the predefined job that asked for it, ``batch`` the vendor's name of a batch job.
    """

    unit: Unit
    number: int
    run: str
    status: Status
    fetched: int
    stored: int
    quarantined: int
    unchanged: int = 0
    superseded: int = 0
    rules: Mapping[str, int] = field(default_factory=dict)
    raw: RawFile | None = None
    seconds: float = 0.0
    dollars: Decimal | None = None
    conditions: tuple[Condition, ...] = ()
    committed_at: int = 0
    error: str = ""
    exit_code: int = 0
    job: str | None = None
    batch: str | None = None


FindingState = Literal["pass", "warn", "fail", "not measured"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: how it stands, what was found, and how it is mended."""

    name: str
    state: FindingState
    said: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Query:
    """What somebody wants to read: one schema, some symbols, a window.

    ``symbols`` empty means every instrument; ``columns`` empty means all; ``limit`` None means no end. ``where`` keeps
    the rows of which each named column has one of the values beside it.
    """

    schema: str
    symbols: tuple[str, ...]
    window: Window
    dataset: str | None = None
    columns: tuple[str, ...] = ()
    limit: int | None = None
    where: tuple[tuple[str, tuple[str | int, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file, or of one order, that somebody asked to ingest.

    ``path`` is the file; "" for an order without bytes. ``stored``: its units were committed. ``skipped``: all of it
    was stored before (``note`` says by what). ``planned``: a dry run. ``ordered``: as a
    batch job, which its vendor prepares. ``failed``: ``error`` says why; nothing of it
    was stored, except the units in ``receipts`` that are not ``failed`` themselves. ``dollars`` is what was paid
    for it in this run, None for a file; ``size`` its bytes as they lie under ``raw/``.
    """

    path: str
    status: Literal["stored", "skipped", "planned", "failed", "ordered"]
    dataset: str = ""
    schema: str = ""
    symbols: tuple[str, ...] = ()
    window: Window | None = None
    receipts: tuple[Receipt, ...] = ()
    units: int = 0
    seconds: float = 0.0
    note: str = ""
    error: HdiError | None = None
    dollars: Decimal | None = None
    size: int = 0

"""What the rehearsal vendor does wrong on request: one fault is a kind, what it applies to, and how often.

Written as ``kind:key=value,key=value``, for example ``503``, ``429:retry_after=1,times=2``,
``cut:after=100000,times=1``, ``422:schema=trades``, ``degraded:day=2024-01-03``.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hdi.errors import RequestError
from hdi.rehearsal.asks import touched
from hdi.rehearsal.refusals import ACCOUNT, OUTSIDE, Refusal

GET_RANGE = "timeseries.get_range"
GET_RECORD_COUNT = "metadata.get_record_count"
SUBMIT = "batch.submit_job"
DOWNLOAD = "batch.download"
#: Every call that is rehearsed.
METHODS = (
    "metadata.list_publishers", "metadata.list_datasets", "metadata.list_schemas", "metadata.list_fields",
    "metadata.list_unit_prices", "metadata.get_dataset_condition", "metadata.get_dataset_range",
    GET_RECORD_COUNT, "metadata.get_billable_size", "metadata.get_cost", "symbology.resolve", GET_RANGE,
    SUBMIT, "batch.get_job_details", "batch.list_jobs", "batch.list_files", DOWNLOAD,
)  # fmt: skip
CASES: dict[int, tuple[str, ...]] = {
    **{status: tuple(cases) for status, cases in ACCOUNT.items()},
    422: ("dataset_unavailable_range", "symbology_invalid_request", "schema_not_supported",
          "data_time_range_start_on_or_after_end", *(case for case in OUTSIDE if case.startswith("data_"))),
}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """One way to fail. ``stage`` says when it is looked for; ``method`` is set where only one can have it.

    ``narrow``: what one of a day can be about alone, ``schema`` or ``symbol``.
    """

    sentence: str
    stage: str
    method: str = ""
    options: Mapping[str, Callable[[str], Any]] = field(default_factory=dict)
    needs_day: bool = False
    narrow: tuple[str, ...] = ()


def _natural(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise ValueError(text)
    return number


def _hours(text: str) -> tuple[int, int]:
    first, last = map(_natural, text.split("-"))
    if not first < last <= 24:  # noqa: PLR2004
        raise ValueError(text)
    return first, last


_HOURS = {"hours": _hours}
_ROWS = {"rows": _natural, "drop": _natural, "add": _natural}
_NARROW = ("schema", "symbol")
_WAIT = {"retry_after": _natural, "date": _natural}
KINDS: dict[str, Kind] = {
    "401": Kind("the key is not accepted", "answer", options={"case": str}),
    "402": Kind("no money left", "answer", options={"case": str}),
    "403": Kind("locked, or no licence", "answer", options={"case": str}),
    "422": Kind("refused for its window, symbols or schema, by case", "answer", options={"case": str}),
    "429": Kind("too many requests, with Retry-After (seconds; date=1: as an HTTP date)", "answer", options=_WAIT),
    "500": Kind("internal error", "answer"),
    "503": Kind("unavailable, with Retry-After if given", "answer", options=_WAIT),
    "504": Kind("gateway timeout, with a page of HTML as gateways send", "answer"),
    "timeout": Kind("accepts and never answers (seconds=N: hangs up after)", "answer", options={"seconds": _seconds}),
    "reset": Kind("resets the connection before any byte", "answer"),
    "cut": Kind("the connection ends after so many bytes of the body", "body", GET_RANGE, {"after": _natural}),
    "short": Kind("the body ends early, the HTTP answer is whole", "body", GET_RANGE, {"after": _natural}),
    "boundary": Kind("the same after so many records, with a whole zstd frame", "body", GET_RANGE,
                     {"records": _natural}),
    "corrupt": Kind("one byte of the zstd body is flipped", "body", GET_RANGE, {"after": _natural}),
    "empty": Kind("a header and no records, though the count says there are", "body", GET_RANGE),
    "slow": Kind("so many bytes of the body a second", "pace", GET_RANGE, {"rate": _natural}),
    "wrong-count": Kind("the count of records is off", "count", GET_RECORD_COUNT, {"by": int}),
    "lost-answer": Kind("the job is taken and billed, and the connection ends before the answer", "submit", SUBMIT),
    "stuck-job": Kind("the job is never done, as long as this is in force", "job", SUBMIT),
    "expired-job": Kind("the job's files are gone", "job", SUBMIT),
    "failed-job": Kind("the job's preparation fails", "job", SUBMIT),
    "bad-file": Kind("a file of a job has one byte turned: its SHA-256 is another", "file", DOWNLOAD),
    "cut-file": Kind("the connection ends after so many bytes of a job's file", "file", DOWNLOAD,
                     {"after": _natural}),
    "no-range": Kind("a job's file comes whole, whatever part was asked for", "file", DOWNLOAD),
    "restated": Kind("the day's data has changed: all prices, or so many rows of each schema, rows= altered, drop= "
                     "gone, add= new", "day", "", _ROWS, needs_day=True, narrow=_NARROW),
    "degraded": Kind("the day's condition; hours=14-16: these are lost", "day", "", _HOURS, needs_day=True,
                     narrow=_NARROW),
    "pending": Kind("the day's condition; hours=14-24: these are not there", "day", "", _HOURS, needs_day=True,
                    narrow=_NARROW),
    "missing": Kind("the day's condition, and all of the day is lost", "day", needs_day=True),
    "lost": Kind("the day (hours=14-16: part of it) is lost, and its condition available", "day", "", _HOURS,
                 needs_day=True, narrow=_NARROW),
    "untraded": Kind("nothing is traded that day, or nothing of symbol=, a raw one", "day", needs_day=True,
                     narrow=("symbol",)),
}  # fmt: skip
_MATCHERS = ("method", "schema", "symbol", "day", "times")


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the vendor's API: the method, and its fields as they were sent."""

    method: str
    fields: Mapping[str, str]
    key: str = ""

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols that are asked for."""
        return tuple(s.strip() for s in self.fields.get("symbols", "").split(","))

    def on(self, day: dt.date) -> bool:
        """Whether the UTC day is among those that the call is about."""
        try:
            days = touched(self.fields)
        except Refusal:
            return False  # its answer will say what is wrong with the window
        return days is not None and days[0] <= day <= days[1]


@dataclass
class Fault:
    """A fault in force. ``left`` counts down to 0; None means always. ``taken`` says how often it happened."""

    kind: str
    method: str = ""
    schema: str = ""
    symbol: str = ""
    day: dt.date | None = None
    times: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    taken: int = 0

    @property
    def left(self) -> int | None:
        """How often it will still happen."""
        return None if self.times is None else self.times - self.taken

    @property
    def stage(self) -> str:
        """When it is looked for."""
        return KINDS[self.kind].stage

    def fits(self, call: Call) -> bool:
        """Whether it applies to this call."""
        return (
            self.left != 0
            and self.method in ("", call.method)
            and self.schema in ("", call.fields.get("schema", ""))
            and (not self.symbol or self.symbol in call.symbols)
            and (self.day is None or call.on(self.day))
        )

    def __str__(self) -> str:
        given = {name: getattr(self, name) for name in _MATCHERS} | self.options
        shown = {name: "-".join(map(str, v)) if isinstance(v, tuple) else v for name, v in given.items()}
        text = ",".join(f"{name}={value}" for name, value in shown.items() if value not in ("", None))
        return f"{self.kind}:{text}" if text else self.kind


def parse(spec: str, **more: Any) -> Fault:
    """The fault that a text describes; ``more`` adds to its parts, or replaces them.

    Raises RequestError for a kind, key or value that is not known, naming those that are.
    """
    kind, _, rest = spec.strip().partition(":")
    if kind not in KINDS:
        known = "\n".join(f"  {name:<12} {each.sentence}" for name, each in KINDS.items())
        raise RequestError(f"unknown fault {kind!r}", f"Known faults:\n{known}")
    given: dict[str, str] = {}
    for part in filter(None, rest.split(",")):
        name, equals, value = part.partition("=")
        if not equals or not value.strip():
            raise RequestError(f"fault {spec!r}: {part!r} is not KEY=VALUE", _keys(kind))
        given[name.strip()] = value.strip()
    given |= {name: str(value) for name, value in more.items()}
    known_keys = takes(kind)
    for name in given:
        if name not in known_keys:
            raise RequestError(f"fault {spec!r}: {kind} takes no {name!r}", _keys(kind))
    return _built(kind, given, spec)


def takes(kind: str) -> tuple[str, ...]:
    """The keys that a kind of fault takes: its options, and what says when it is meant."""
    rule = KINDS[kind]
    if not rule.needs_day:
        return (*rule.options, *_MATCHERS)
    return ("day", *rule.options, *rule.narrow)


def _keys(kind: str) -> str:
    if KINDS[kind].needs_day:
        more = "".join(f", {name}=" for name in takes(kind)[1:])
        return f"{kind} takes day=YYYY-MM-DD{more}."
    return f"{kind} takes {', '.join(f'{name}=' for name in takes(kind))}."


def _built(kind: str, given: Mapping[str, str], spec: str) -> Fault:
    rule = KINDS[kind]
    options = {name: _value(spec, name, given[name], read) for name, read in rule.options.items() if name in given}
    if "case" in options and options["case"] not in CASES[int(kind)]:
        raise RequestError(f"fault {spec!r}: unknown case", f"Cases of {kind}: {', '.join(CASES[int(kind)])}.")
    if rule.needs_day and "day" not in given:
        raise RequestError(f"fault {spec!r}: no day", _keys(kind))
    if rule.options is _ROWS and not any(options.values()) and {"schema", "symbol", *_ROWS} & set(given):
        raise RequestError(f"fault {spec!r}: no number of rows", "Give rows=, drop= or add= with at least 1.")
    return Fault(
        kind,
        method=_method(given.get("method", ""), rule, spec),
        schema=given.get("schema", ""),
        symbol=given.get("symbol", ""),
        day=_value(spec, "day", given["day"], dt.date.fromisoformat) if "day" in given else None,
        times=_value(spec, "times", given["times"], _natural) if "times" in given else None,
        options=options,
    )


def _method(given: str, rule: Kind, spec: str) -> str:
    full = next((name for name in METHODS if given and given in (name, name.partition(".")[2])), "")
    possible = (rule.method,) if rule.method else METHODS
    if given and full not in possible:
        raise RequestError(f"fault {spec!r}: method {given!r} cannot have it", f"Methods: {', '.join(possible)}.")
    return full or rule.method


def _value(spec: str, name: str, text: str, read: Callable[[str], Any]) -> Any:
    try:
        return read(text)
    except ValueError as exc:
        raise RequestError(f"fault {spec!r}: {name}={text} is not understood", _keys(spec.partition(":")[0])) from exc


class Faults:
    """The faults in force, in the order in which they were given. Threads may share them."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._lock = threading.Lock()
        self._faults = list(faults)

    def add(self, fault: Fault) -> None:
        """Put a fault in force, behind those that are."""
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        """Behave from now on."""
        with self._lock:
            self._faults.clear()

    def take(self, stage: str, call: Call) -> Fault | None:
        """The first fault of a stage that applies to the call, counted as one time; None when all is well."""
        with self._lock:
            for fault in self._faults:
                if fault.stage == stage and fault.fits(call):
                    fault.taken += 1
                    return fault
        return None

    def days(self, kind: str) -> frozenset[dt.date]:
        """The days that have a fault of that kind."""
        with self._lock:
            return frozenset(fault.day for fault in self._faults if fault.kind == kind and fault.day is not None)

    def of_days(self, *kinds: str) -> list[Fault]:
        """The faults of some kinds, each of which is of a day."""
        with self._lock:
            return [fault for fault in self._faults if fault.kind in kinds and fault.day is not None]

    def document(self) -> list[dict[str, Any]]:
        """What is in force, as JSON takes it."""
        with self._lock:
            return [{"fault": str(fault), "left": fault.left, "taken": fault.taken} for fault in self._faults]

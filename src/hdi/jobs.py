"""Jobs: requests with a name, predefined in ``api_specific/databento_config.yaml`` under the key ``jobs``."""

from __future__ import annotations

import datetime as dt
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from hdi.cron import UTC, Cron, zone
from hdi.document import Document, load
from hdi.errors import ConfigError, RequestError
from hdi.model import NATIVE, STYPES, Window, parse_instant
from hdi.settings import API_FILE, JOBS, api_file

_REQUIRED = ("dataset", "schema", "symbols", "start_date", "end_date")
_OPTIONAL = ("stype_in", "description", "all_symbols", "sync", "cron", "timezone")
#: What a job may leave out that ``hdi sync`` keeps up to date.
_OPEN = "end_date"
#: hdi.symbology has it too, and loads more than a list of jobs needs.
_EVERYTHING = "ALL_SYMBOLS"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
WHERE = f"Jobs stand under the key {JOBS} of {API_FILE} in the config folder (--config-dir, or ./configs)."


def _date(value: object) -> str:
    """Checked, but kept as it was written: :meth:`Window.parse` alone turns dates into instants."""
    text = value.isoformat() if isinstance(value, dt.date) else str(value)
    try:
        parse_instant(text)
    except RequestError as exc:
        raise ValueError(f"{exc.message}. {exc.hint}") from exc
    return text.strip()


def _name(value: str) -> str:
    if not value.strip():
        raise ValueError(f"{value!r}: a name is needed")
    return value.strip()


def _symbols(value: object) -> tuple[str, ...]:
    """A list, or a text with commas; a number is an instrument id. None of them twice."""
    items = value if isinstance(value, list | tuple) else [value]
    wrong = [item for item in items if isinstance(item, bool) or not isinstance(item, str | int)]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is not a symbol; one that looks like something else stands in quotes")
    parts = (part.strip() for item in items for part in str(item).split(","))
    found = tuple(dict.fromkeys(part for part in parts if part))
    if not found:
        raise ValueError(f"{value!r}: a symbol is needed, such as ES.c.0 or ES.FUT, or ALL_SYMBOLS")
    return found


def _stype(value: str | None) -> str | None:
    if value is not None and value not in (*STYPES, NATIVE):
        raise ValueError(f"unknown symbol type {value!r}. {_meant(value, (*STYPES, NATIVE))}")
    return value


def _end(value: object) -> str:
    return "" if value is None or value == "" else _date(value)


def _flag(value: object) -> object:
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"{value!r}: true or false is needed")
    return value


def _cron(value: str | None) -> str | None:
    return None if value is None else Cron.parse(value).line


def _zone(value: str | None) -> str | None:
    if value is not None:
        zone(value)
    return value


def _description(value: object) -> object:
    return "" if value is None else value


Name = Annotated[str, AfterValidator(_name)]
When = Annotated[str, BeforeValidator(_date)]


# A dataclass: a field named ``schema`` would hide a method of pydantic's models.
@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Job:
    """A request with a name. Dates are as they were written: a date as ``end_date`` means through that UTC day.

    ``stype_in`` None leaves the symbol types to the notation. ``sync`` and ``cron`` (in the zone ``timezone``, None:
    UTC) are for keeping it up to date: then ``end_date`` does not count, and may be "". ``where`` is the file and
    position it was read from. Whether the schema exists is not checked here. Raises pydantic's ValidationError.
    """

    name: Name
    dataset: Name
    schema: Name
    symbols: Annotated[tuple[str, ...], BeforeValidator(_symbols)]
    stype_in: Annotated[str | None, AfterValidator(_stype)] = None
    start_date: When
    end_date: Annotated[str, BeforeValidator(_end)] = ""
    description: Annotated[str, BeforeValidator(_description)] = ""
    all_symbols: Annotated[bool | None, BeforeValidator(_flag)] = None
    sync: Annotated[bool | None, BeforeValidator(_flag)] = None
    cron: Annotated[str | None, AfterValidator(_cron)] = None
    timezone: Annotated[str | None, AfterValidator(_zone)] = None
    where: str = field(default="", repr=False, compare=False)

    @model_validator(mode="after")
    def _in_order(self) -> Job:
        if not self.end_date and not self.sync and self.cron is None:
            raise ValueError("an end date is needed; only a job with sync: true or a cron line may leave it out")
        try:
            Window.parse(self.start_date, self.end_date or self.start_date)
        except RequestError as exc:
            raise ValueError(f"{exc.message}. {exc.hint}") from exc
        return self

    @property
    def window(self) -> Window:
        """The window between the two dates. RequestError for a job without an end."""
        if not self.end_date:
            raise RequestError(f"the job {self.name} has no end_date", f"hdi sync {self.name} takes all there is.")
        return Window.parse(self.start_date, self.end_date)

    @property
    def synced(self) -> bool:
        """Whether ``hdi sync`` without names takes the job."""
        return self.cron is not None if self.sync is None else self.sync

    @property
    def slots(self) -> Cron | None:
        """When ``hdi schedule`` runs the job; None: never."""
        return None if self.cron is None else Cron.parse(self.cron, self.timezone or UTC)


def load_jobs(config_dir: Path | None) -> dict[str, Job]:
    """The jobs of the config folder by name, in the order of their file; none without folder, file or key.

    Raises ConfigError with file, line, column and key: all bad values at once.
    """
    path = api_file(config_dir) if config_dir is not None else None
    if path is None:
        return {}
    doc = load(path)
    bodies = doc.data.get(JOBS) if isinstance(doc.data, dict) else None
    if bodies is None:
        return {}
    if not isinstance(bodies, dict):
        raise doc.error(f"{bodies!r}: a job is a name with keys below it", JOBS)
    jobs: dict[str, Job] = {}
    problems: list[ConfigError] = []
    for name, body in bodies.items():
        found = list(_misfits(doc, name, body))
        try:
            if not found:
                jobs[name] = Job(name=name, where=doc.where(JOBS, name), **body)
        except ValidationError as exc:
            found = list(_told(doc, name, body, exc))
        problems += found
    if problems:
        hints = dict.fromkeys(problem.hint for problem in problems if problem.hint)
        raise ConfigError("\n".join(problem.message for problem in problems), "\n".join(hints))
    return jobs


def find_job(jobs: Mapping[str, Job], name: str) -> Job:
    """The job of that name. Raises RequestError with the closest names and all of them."""
    if name in jobs:
        return jobs[name]
    if not jobs:
        raise RequestError(f"unknown job {name!r}: no job is defined", WHERE)
    raise RequestError(f"unknown job {name!r}", _meant(name, jobs))


def _misfits(doc: Document, name: str, body: Any) -> Iterator[ConfigError]:
    """What is wrong with the name and the keys of a job, before its values are looked at."""
    at, known = (JOBS, name), (*_REQUIRED, *_OPTIONAL)
    if not _NAME.fullmatch(name):
        yield doc.error(
            f"{name!r}: a job's name is made of letters, digits, _ . and -, and starts with none of . -", *at
        )
    if not isinstance(body, dict):
        yield doc.error(f"{body!r}: keys are needed here: {', '.join(known)}", *at)
        return
    for key in body:
        if key not in known:
            yield doc.error(f"unknown key {key}", *at, key, hint=_meant(key, known))
    if _everything(body.get("symbols")) and body.get("all_symbols") is not True:
        yield doc.error(
            f"{_EVERYTHING} orders everything that the dataset has: a job that means it says all_symbols: true",
            *at, "symbols",
        )  # fmt: skip
    kept = body.get("sync") is True or body.get("cron") is not None
    for key in _REQUIRED:
        if key not in body and not (kept and key == _OPEN):
            yield doc.error(f"the key {key} is missing", *at)
    if body.get("timezone") is not None and body.get("cron") is None:
        yield doc.error("a time zone is for a cron line, and there is none", *at, "timezone")


def _everything(symbols: object) -> bool:
    items = symbols if isinstance(symbols, list | tuple) else [symbols]
    return any(part.strip().upper() == _EVERYTHING for item in items for part in str(item).split(","))


def _told(doc: Document, name: str, body: Mapping[str, Any], exc: ValidationError) -> Iterator[ConfigError]:
    """Each bad value at its place; of two dates that do not fit, at the second."""
    for problem in exc.errors(include_url=False):
        key = str(problem["loc"][0]) if problem["loc"] else _OPEN
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] != "value_error":
            message = f"{body[key]!r}: {message.removeprefix('Input ')}"
        yield doc.error(message, JOBS, name, key)


def _meant(name: str, known: Iterable[str]) -> str:
    """The closest of the known names, and all of them."""
    names = list(known)
    close = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.6)
    return (f"Did you mean {', '.join(close)}? " if close else "") + f"Known: {', '.join(names)}."


__all__ = ["WHERE", "Job", "find_job", "load_jobs"]

"""SQL statements of readers, the same for every store: what is refused, where an error is, and answers with any type.

Numbers without a scale of their own (sums, quotients, integers of 128 bits) travel as text, and what they are is
decided by the first rows: see :class:`Numbers`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import polars as pl

from hdi.answer import Answer
from hdi.errors import RequestError
from hdi.schema import closest

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

ONLY_READING = "only reading is possible"
_READ_HINT = (
    "Write one SELECT (WITH, VALUES and EXPLAIN too). Rows come in by hdi ingest; out into files by --output-file."
)
#: Functions that write, read files, hold locks, or read what the statement does not name, in one dialect or the other.
REFUSED = frozenset({
    "nextval", "setval", "currval", "lastval", "set_config", "getenv", "write_log", "dblink", "lo_import", "lo_export",
    "pg_read_file", "pg_read_binary_file", "pg_ls_dir", "pg_terminate_backend", "pg_advisory_lock", "read_csv",
    "read_csv_auto", "read_text", "read_blob", "read_parquet", "parquet_scan", "read_json", "glob", "query",
    "query_table", "sniff_csv", "query_to_xml", "query_to_xml_and_xmlschema", "cursor_to_xml", "table_to_xml",
    "table_to_xmlschema", "table_to_xml_and_xmlschema", "schema_to_xml", "schema_to_xmlschema",
    "schema_to_xml_and_xmlschema", "database_to_xml", "database_to_xmlschema", "database_to_xml_and_xmlschema",
})  # fmt: skip
#: The first and the last day, since 1970, and microsecond that Python, Polars and ISO 8601 all can write: 1 to 9999.
_DAYS = (-719_162, 2_932_896)
_MICROS = (_DAYS[0] * 86_400_000_000, (_DAYS[1] + 1) * 86_400_000_000 - 1)
#: What stores say of a time that Arrow has no value for.
NO_CLOCK = "24:00 is no time of a day: cast it to text"
_DIGITS = 38
#: Decimal places of quotients: sixteen digits and more.
_PLACES = 9
_QUOTIENT = 20
_AS_TEXT = "Cast it: round(x, 9), x::numeric(38, 9), or x::text."


def only_reading(what: str) -> RequestError:
    """The refusal of a statement, or of a part of one, that does more than read."""
    return RequestError(f"{ONLY_READING}: {what}", _READ_HINT)


def refused_function(name: str) -> RequestError:
    """The refusal of a function."""
    return only_reading(f"the function {name} does more, or reads elsewhere")


def pointed(message: str, statement: str, offset: int | None, hint: str = "") -> RequestError:
    """What is wrong with a statement, with the line and a caret below the character at ``offset``."""
    if offset is None or not 0 <= offset <= len(statement):
        return RequestError(message, hint)
    start = statement.rfind("\n", 0, offset) + 1
    line = statement[start:].partition("\n")[0].rstrip()
    number = statement.count("\n", 0, offset) + 1
    head = f"line {number}: "
    shown, at = _window(line, offset - start)
    before = "".join(c if c == "\t" else " " for c in shown[:at])
    return RequestError(f"{message}\n{head}{shown}\n{' ' * len(head)}{before}^", hint)


def _window(line: str, at: int, width: int = 100) -> tuple[str, int]:
    """A long line is shown around the place that is meant."""
    if len(line) <= width:
        return line, at
    first = max(0, min(at - width // 2, len(line) - width))
    return line[first : first + width], at - first


def chars(statement: str, byte: int) -> int:
    """The character that a byte of the statement, as UTF-8, belongs to."""
    return len(statement.encode()[:byte].decode(errors="ignore"))


def unknown(kind: str, name: str, known: Iterable[str], statement: str, offset: int | None) -> RequestError:
    """A table or column that is not there, with the closest that are."""
    return pointed(f"unknown {kind} {name!r}", statement, offset, closest(name, sorted(set(known))))


def unique(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Column names, each once, and what is to be said of those that came twice: a frame has no two of one name."""
    found: list[str] = []
    taken = set(names)
    notes = []
    for name in names:
        told, k = name, 1
        while told in found or (k > 1 and told in taken):
            k += 1
            told = f"{name}_{k}"
        if told != name:
            notes.append(f"a further column {name} is called {told}")
        found.append(told)
    return found, notes


class Numbers:
    """What numbers are that travel as text: decimals if the first rows are, with as many places as they need.

    Sums of integers have none, other sums have nine; quotients have twenty, as far as the numbers leave room. Text
    stays text: not-a-number, infinity, and what needs more than 38 digits.
    """

    def __init__(self, first: pl.Series) -> None:
        self.name = first.name
        self.dtype: pl.DataType = self._fitting(first.drop_nulls())

    def _fitting(self, texts: pl.Series) -> pl.DataType:
        if texts.is_empty():
            return pl.Decimal(_DIGITS, _PLACES)
        if not texts.str.contains(r"^-?\d+(\.\d+)?$").all():
            return pl.String()
        whole, places = _size(texts)
        room = _DIGITS - whole
        trimmed = _size(texts.str.replace(r"(\.\d*?)0+$", "$1"))[1]
        wanted = 0 if not places else _PLACES if places <= _PLACES else min(max(_QUOTIENT, trimmed), room)
        if trimmed > wanted or wanted > room:
            return pl.String()
        return pl.Decimal(_DIGITS, wanted)

    def told(self, texts: pl.Series) -> pl.Series:
        """The values of further rows. Raises RequestError for one that is no such decimal."""
        if self.dtype == pl.String():
            return texts
        scale = self.dtype.scale  # type: ignore[attr-defined]  # it is a Decimal
        cut = texts.str.replace(r"(\.\d*?)0+$", "$1").str.strip_chars_end(".")
        plain = cut.drop_nulls().str.contains(r"^-?\d+(\.\d+)?$").all()
        whole, places = _size(cut.drop_nulls()) if plain else (0, 0)
        if not plain or places > scale or whole > _DIGITS - scale:
            raise RequestError(
                f"the column {self.name} has a number that does not fit the decimals of its first rows "
                f"({_DIGITS} digits, {scale} places)", _AS_TEXT,
            )  # fmt: skip
        return cut.cast(self.dtype)


def _size(texts: pl.Series) -> tuple[int, int]:
    """The most digits before and after the point."""
    parts = texts.str.strip_chars_start("-").str.split(".")
    whole = parts.list.get(0).str.strip_chars_start("0").str.len_chars().max()
    places = parts.list.get(1, null_on_oob=True).str.len_chars().max()
    return int(whole or 0), int(places or 0)  # type: ignore[arg-type]  # Polars' maxima


class Told(Answer):
    """The answer to a statement. It is asked when rows are wanted, and again when they are wanted again.

    ``ask`` gives frames with ``columns``, of which those in ``numbers`` are numbers as text; ``guard`` wraps whatever
    may fail in it.
    """

    def __init__(
        self,
        columns: Mapping[str, pl.DataType],
        numbers: Sequence[str],
        ask: Callable[[], Iterator[pl.DataFrame]],
        guard: Callable[[], AbstractContextManager[None]],
        notes: Sequence[str] = (),
    ) -> None:
        self.notes = list(notes)
        self._ask = ask
        self._guard = guard
        self._begun: Iterator[pl.DataFrame] | None = None
        self.columns = dict(columns)
        self._numbers: list[Numbers] = []
        if numbers:
            with guard():
                asked = ask()
                first = next(asked, None)
            rows = pl.DataFrame(schema=self.columns) if first is None else first
            self._numbers = [Numbers(rows[n]) for n in numbers]
            self.columns |= {n.name: n.dtype for n in self._numbers}
            self._begun = _again(first, asked)

    def frames(self) -> Iterator[pl.DataFrame]:
        """See :meth:`Answer.frames`."""
        asked, self._begun = self._begun, None
        with self._guard():
            for frame in asked if asked is not None else self._ask():
                if frame.height:
                    yield self._exact(frame)

    def _exact(self, frame: pl.DataFrame) -> pl.DataFrame:
        for name, dtype in self.columns.items():
            if _beyond(frame[name], dtype):
                raise RequestError(
                    f"the column {name} has a time that no calendar date can be given for (years 1 to 9999)",
                    "Cast it: x::text.",
                )
        return frame.with_columns(n.told(frame[n.name]) for n in self._numbers)

    def __repr__(self) -> str:
        return f"<the answer to a statement: {', '.join(self.columns)}>"


def _beyond(times: pl.Series, dtype: pl.DataType) -> bool:
    """Whether a day or a time cannot be told by all that answers go to."""
    if isinstance(dtype, pl.Datetime):
        low, high = _MICROS if dtype.time_unit == "us" else (-(2**63), 2**63 - 1)
    elif dtype == pl.Date:
        low, high = _DAYS
    else:
        return False
    found = times.to_physical()
    return bool(((found > high) | (found < low)).any())


def _again(first: pl.DataFrame | None, rest: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    if first is not None:
        yield first
    yield from rest


#: Zero ends a text for a server; the others are halves of a character.
_NO_TEXT = re.compile(r"[\0\ud800-\udfff]")
_SPACE = re.compile(r"(?:\s|--[^\n]*|/\*.*?\*/)*", re.DOTALL)


def trimmed(statement: str) -> str:
    """The statement without what ends it. Raises RequestError where there is none."""
    if (odd := _NO_TEXT.search(statement)) is not None:
        raise RequestError(f"{odd.group()!r} is no character of a statement", "Write it in the characters of UTF-8.")
    text = statement.rstrip()
    while text.endswith(";"):
        text = text[:-1].rstrip()
    blank = _SPACE.match(text)
    if blank is not None and blank.end() == len(text):
        raise RequestError("there is no statement", 'Write one: hdi sql "SELECT count(*) FROM trades_data".')
    return text


__all__ = [
    "NO_CLOCK", "ONLY_READING", "REFUSED", "Numbers", "Told", "chars", "only_reading", "pointed",
    "refused_function", "trimmed", "unique", "unknown",
]  # fmt: skip

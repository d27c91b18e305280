"""SQL over a lake: DuckDB in memory, over the live files of the newest snapshot. It reads, and nothing else.

A statement is parsed by DuckDB and looked through before it runs: one SELECT, over the names that are here, without
functions that reach outside. What it asks of the index time is found by planning it over empty tables, so that only
files of that time are opened. DuckDB itself may open no other file, and loads no extension.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import polars as pl

from hdi.errors import HdiError, StoreError
from hdi.stores.lake.compare import Stored, live_files
from hdi.stores.lake.entries import latest, opened
from hdi.stores.lake.spill import spill_folder
from hdi.stores.lake.sql_checks import Reference, check
from hdi.stores.lake.sql_names import MAPPED, STANDING, Names
from hdi.stores.statements import NO_CLOCK, Told, chars, pointed, trimmed, unique, unknown
from hdi.stores.tokens import explained
from hdi.stores.waiting import interruptible

if TYPE_CHECKING:
    from hdi.schema import Schema
    from hdi.stores.lake import Lake

_CONFIG: dict[str, Any] = {
    "autoinstall_known_extensions": False, "autoload_known_extensions": False, "allow_community_extensions": False,
    "allow_persistent_secrets": False, "python_enable_replacements": False,
    "arrow_large_buffer_size": True,
}  # fmt: skip
#: Before a statement, on lines of its own: what an error's position counts from.
_DESCRIBE, _PLAN, _RUN = "DESCRIBE\n", "EXPLAIN (FORMAT json)\n", "SELECT {} FROM (\n"
_BATCH_ROWS = 65_536
#: What DuckDB calls the types that travel as they are.
_PLAIN: dict[str, pl.DataType] = {
    "BOOLEAN": pl.Boolean(), "TINYINT": pl.Int8(), "SMALLINT": pl.Int16(), "INTEGER": pl.Int32(), "BIGINT": pl.Int64(),
    "UTINYINT": pl.UInt8(), "USMALLINT": pl.UInt16(), "UINTEGER": pl.UInt32(), "UBIGINT": pl.UInt64(),
    "FLOAT": pl.Float32(), "DOUBLE": pl.Float64(), "VARCHAR": pl.String(), "DATE": pl.Date(),
    "TIMESTAMP": pl.Datetime("us"), "TIMESTAMP_NS": pl.Datetime("ns"), "TIMESTAMP_S": pl.Datetime("us"),
    "TIMESTAMP_MS": pl.Datetime("us"), "TIMESTAMP WITH TIME ZONE": pl.Datetime("us", "UTC"),
}  # fmt: skip
#: And those that an expression is for.
_WRITTEN: dict[str, tuple[pl.DataType, str, bool]] = {
    "BLOB": (pl.String(), "'\\x' || lower(hex({}))", False),
    "TIME": (pl.Time(), f"CASE WHEN {{0}} = TIME '24:00' THEN error('{NO_CLOCK}') ELSE {{0}} END", False),
}
_IN_LISTS = ("BOOLEAN", "SMALLINT", "INTEGER", "BIGINT", "DOUBLE", "VARCHAR")
_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")
_LIST = re.compile(r"(\w+)\[\d*\]")
_TIME = r"'(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?)\+00'::TIMESTAMP WITH TIME ZONE"
_LITERAL = r"'(?:[^']|'')*'"
_ONE = rf"\(symbol = {_LITERAL}\)"
#: A filter that names every symbol which passes it.
_NAMED = re.compile(
    rf"(?:optional: )?(?:{_ONE}|\({_ONE}(?: OR {_ONE})+\)|\(symbol IN \({_LITERAL}(?:, {_LITERAL})*\)\))"
)
_MANY = 1 << 62
#: Digits and places of a stored price, and the most digits.
_STORED, _PLACES, _WIDEST = 18, 9, 38


@dataclass(frozen=True)
class Wanted:
    """What the scans of a table ask for, at least: microseconds from and up to which, and instruments."""

    low: int = -_MANY
    high: int = _MANY
    first: int = -_MANY
    last: int = _MANY

    def __or__(self, other: Wanted) -> Wanted:
        return Wanted(
            min(self.low, other.low), max(self.high, other.high), min(self.first, other.first),
            max(self.last, other.last),
        )  # fmt: skip

    def meets(self, file: Stored) -> bool:
        """Whether a file may hold such a row."""
        return not (
            file.last < self.low or file.first > self.high or file.high < self.first or file.low > self.last
        )  # fmt: skip


class Statement:
    """One statement on one lake, as it is or as it was known at an instant."""

    def __init__(self, lake: Lake, text: str, as_of: int | None) -> None:
        self._lake = lake
        self._explain, self._text = explained(trimmed(text))
        self._names = Names(lake, as_of)
        self._config = _CONFIG | {
            "threads": pl.thread_pool_size(), "temp_directory": spill_folder(self), "memory_limit": _memory(),
        }  # fmt: skip
        #: By table: the version that was looked at last, and its files.
        self._snapshots: dict[str, tuple[int, list[Stored]]] = {}
        #: The files of the snapshot that the statement reads, by table: what it does not ask for is left out.
        self.files: dict[str, list[Stored]] = {}

    def answer(self) -> Told:
        """The answer, of which nothing is read yet. Raises RequestError for what is no statement that reads."""
        with self._guard(), self._connected() as connection:
            self._check(connection)
            self._prepare(connection)
            if self._explain:
                return self._plan(connection)
            described = self._errors(connection, _DESCRIBE)
        names, notes = unique([row[0] for row in described])
        kinds = [row[1] for row in described]
        sent = [_carried(kind) for kind in kinds]
        columns = {name: dtype for name, (dtype, _, _) in zip(names, sent, strict=True)}
        numbers = [name for name, (_, _, number) in zip(names, sent, strict=True) if number]
        self._select = ", ".join(how.format(f"c{k}") + f' AS "c{k}"' for k, (_, how, _) in enumerate(sent))
        self._aliases = ", ".join(f"c{k}" for k in range(len(sent)))
        return Told(columns, numbers, partial(self._frames, columns), self._guard, notes)

    # --- before it runs -----------------------------------------------------------------------

    def _check(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Look through what DuckDB makes of the text; what it refers to is kept."""
        self.references: list[Reference] = check(connection, self._text, self._names.all)
        self._tables = self._names.needed(self.references)

    def _prepare(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Make what the statement refers to: small tables, and views over the files that it asks for."""
        connection.execute("BEGIN")  # now() is one instant, here and when it runs
        mapped = [t for t in self._tables if t in MAPPED]
        self._names.make_books(connection, [t for t in self._tables if t not in MAPPED])
        schemas = [s for s in self._names.schemas if s.table in self._tables]
        live = {s.table: self._live(s) for s in schemas}
        paths = [str(self._lake.root / t / f.path) for t, files in live.items() for f in files]
        connection.execute("SET allowed_paths = ?", [paths])
        connection.execute("SET enable_external_access = false")  # to plan a statement is to open what it names
        wanted, symbols = self._wanted(connection, schemas, mapped)
        self._names.make_mapped(connection, mapped, symbols)
        self.files = {t: [f for f in files if wanted[t].meets(f)] for t, files in live.items()}
        for schema in schemas:
            connection.execute(self._names.view(schema, self.files[schema.table]))
        self._names.make_views(connection, self._tables)
        connection.execute("SET lock_configuration = true")

    def _live(self, schema: Schema) -> list[Stored]:
        version = latest(self._lake.root, schema.table)
        if version < 0:
            return []
        held = self._snapshots.get(schema.table)
        if held is None or held[0] != version:
            table = opened(self._lake.root, schema.table)
            held = self._snapshots[schema.table] = (table.version(), live_files(table, schema.index_time))
        return held[1]

    def _wanted(
        self, connection: duckdb.DuckDBPyConnection, schemas: Sequence[Schema], mapped: Sequence[str]
    ) -> tuple[dict[str, Wanted], set[str] | None]:
        """What it asks of each table, and which symbols (None: all), as DuckDB plans it over empty tables."""
        if not schemas:
            return {}, None
        connection.execute("SET disabled_optimizers = 'statistics_propagation'")  # that they are empty proves nothing
        for schema in schemas:
            connection.execute(self._names.stub(schema))
        self._names.make_mapped(connection, mapped, set())
        self._names.make_views(connection, self._tables)
        (plan,) = [row[1] for row in self._errors(connection, _PLAN)]
        scans = list(_scans(json.loads(plan)))
        found = {s.table: _asked([x for t, x in scans if t == s.table], s.index_time) for s in schemas}
        self._names.drop(connection, self._tables)
        connection.execute("RESET disabled_optimizers")
        # Daily bars are named without a mapping that was asked for.
        symbols = None if self._names.daily in self._tables else _symbols([x for t, x in scans if t == STANDING])
        return found, symbols

    # --- running it ---------------------------------------------------------------------------

    def _frames(self, columns: Mapping[str, pl.DataType]) -> Iterator[pl.DataFrame]:
        with self._connected() as connection:
            self._prepare(connection)
            head = _RUN.format(self._select)
            text = f"{head}{self._text}\n) q ({self._aliases})"
            try:
                asked = lambda: iter(connection.sql(text).to_arrow_reader(_BATCH_ROWS))  # noqa: E731  (asked elsewhere)
                for batch in interruptible(asked, connection.interrupt):
                    frame: Any = pl.DataFrame(batch)
                    yield frame.select(
                        pl.col(old).cast(dtype).alias(new) for old, (new, dtype) in zip(
                            frame.columns, columns.items(), strict=True)
                    )  # fmt: skip
            except (duckdb.Error, OSError) as exc:  # an Arrow reader tells what DuckDB says as an OSError
                raise self._told(exc, head) from exc

    def _plan(self, connection: duckdb.DuckDBPyConnection) -> Told:
        rows = self._errors(connection, f"{self._explain}\n")
        frame = pl.DataFrame({"plan": ["\n".join(row[-1] for row in rows)]}).with_columns(
            pl.col("plan").str.split("\n")
        ).explode("plan")  # fmt: skip
        return Told(dict(frame.schema), (), lambda: iter((frame,)), self._guard)

    def _errors(self, connection: duckdb.DuckDBPyConnection, head: str) -> list[Any]:
        try:
            return connection.execute(head + self._text).fetchall()
        except duckdb.Error as exc:
            raise self._told(exc, head) from exc

    @contextlib.contextmanager
    def _connected(self) -> Iterator[duckdb.DuckDBPyConnection]:
        connection = duckdb.connect(":memory:", config=self._config)
        try:
            connection.execute("SET TimeZone = 'UTC'; SET errors_as_json = true")
            # In a notebook that can draw none there is none, and it cannot be told so.
            if connection.execute("SELECT current_setting('enable_progress_bar')").fetchone() == (True,):
                connection.execute("SET enable_progress_bar = false")
            yield connection
        finally:
            connection.close()

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        from hdi.stores.lake.files import guard

        with guard(self._lake.root):
            yield

    def _told(self, exc: Exception, head: str) -> HdiError:
        """What DuckDB refuses: the statement is wrong, or, of files and memory, the store."""
        said = _said(exc)
        message = said["exception_message"]
        kind = str(said.get("exception_type", ""))
        if kind == "INTERRUPT" or isinstance(exc, duckdb.InterruptException):
            raise KeyboardInterrupt from exc
        if kind in ("IO", "Out of Memory", "FATAL", "INTERNAL"):
            return StoreError(f"the lake {self._lake.root} refused: {message}", "Ask for less at a time.")
        offset = int(said["position"]) - len(head.encode()) if "position" in said else None
        at = None if offset is None or offset < 0 else chars(self._text, offset)
        name, subtype = str(said.get("name", "")), said.get("error_subtype")
        if subtype == "COLUMN_NOT_FOUND":
            known = self._names.columns(self._tables) | set(str(said.get("candidates", "")).split(","))
            return unknown("column", name, known - {""}, self._text, at)
        return pointed(message, self._text, at)


def _carried(kind: str) -> tuple[pl.DataType, str, bool]:
    """How a type travels: what it becomes, the expression that it is sent as, and whether it is a number as text."""
    if kind in _PLAIN:
        return _PLAIN[kind], "{}", False
    if kind == "HUGEINT":
        return pl.String(), "CAST({} AS VARCHAR)", True
    if found := _DECIMAL.fullmatch(kind):
        return _decimal(int(found[1]), int(found[2])), "{}", False
    if (found := _LIST.fullmatch(kind)) and found[1] in _IN_LISTS:
        return pl.List(_PLAIN[found[1]]), f"CAST({{}} AS {found[1]}[])", False
    return _WRITTEN.get(kind, (pl.String(), "CAST({} AS VARCHAR)", False))


def _decimal(digits: int, places: int) -> pl.Decimal:
    """A decimal that was computed is as wide as those of a server, with as many places where there is room."""
    if digits > _STORED and 0 < places <= _PLACES and digits - places <= _WIDEST - _PLACES:
        return pl.Decimal(_WIDEST, _PLACES)
    return pl.Decimal(_WIDEST if digits > _STORED else digits, places)


def _said(exc: Exception) -> dict[str, Any]:
    """What DuckDB says, by its parts."""
    text = str(exc)
    try:
        return dict(json.loads(text[text.index("{") :]))
    except ValueError:
        return {"exception_message": text.partition("\n\nLINE ")[0].partition(": ")[2] or text}


def _scans(plan: Any) -> Iterator[tuple[str, list[str]]]:
    """The tables that a plan scans, each with the filters of the scan."""
    for node in plan if isinstance(plan, list) else [plan]:
        about = node.get("extra_info", {})
        if "Table" in about:
            filters = about.get("Filters", [])
            yield about["Table"].rpartition(".")[2], [filters] if isinstance(filters, str) else list(filters)
        yield from _scans(node.get("children", []))


def _asked(scans: list[list[str]], index: str) -> Wanted:
    """What several scans of a table ask for. A table without a scan is asked for whole: nothing is known."""
    found = [_bounds(filters, index) for filters in scans]
    if not found:
        return Wanted()
    whole = found[0]
    for other in found[1:]:
        whole |= other
    return whole


def _bounds(filters: Iterable[str], index: str) -> Wanted:
    low, high = _range(filters, index, _TIME, _micro)
    first, last = _range(filters, "instrument_id", r"(-?\d+)", int)
    return Wanted(low, high, first, last)


def _range(filters: Iterable[str], column: str, value: str, number: Callable[[str], int]) -> tuple[int, int]:
    """The bounds that filters set to a column: only those that are nothing but comparisons, joined by AND, count."""
    low, high = -_MANY, _MANY
    term = rf"(?:optional: )?\({re.escape(column)} (>=|>|<=|<|=) {value}\)"
    whole = re.compile(rf"\(?{term}(?: AND {term})*\)?")
    for text in filters:
        if whole.fullmatch(text) is None:
            continue
        for sign, told in re.findall(term, text):
            at = number(told)
            low = max(low, at) if sign in (">=", ">", "=") else low
            high = min(high, at) if sign in ("<=", "<", "=") else high
    return low, high


def _symbols(scans: list[list[str]]) -> set[str] | None:
    """The symbols that all scans of the mappings together name; None where one of them may want any."""
    found: set[str] = set()
    for filters in scans:
        named = next((text for text in filters if _NAMED.fullmatch(text)), None)
        if named is None:
            return None
        found.update(text[1:-1].replace("''", "'") for text in re.findall(_LITERAL, named))
    return found if scans else None


def _micro(told: str) -> int:
    return int(pl.Series([told]).str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us").to_physical()[0])


def _memory() -> str:
    """Half of what is free now: what does not fit goes into files beside it."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        free = int(re.findall(r"MemAvailable:\s+(\d+)", text)[0]) * 1024
    except (OSError, IndexError):
        free = 4 << 30
    return f"{max(free // 2, 256 << 20)}B"


def answer(lake: Lake, text: str, as_of: int | None = None) -> Told:
    """See :meth:`hdi.stores.Store.sql`."""
    return Statement(lake, text, as_of).answer()


__all__ = ["Statement", "answer"]

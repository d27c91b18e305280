"""SQL at the server: its own dialect, in a transaction that only reads, with the rights of one who only reads.

A statement is looked through here (one query, no function that writes or reads files), and stands in a subquery, where
nothing but a query can stand. As of an instant, it stands below a WITH that puts the rows of then in the place of each
table and view.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import polars as pl
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import DiagnosticField, ExecStatus

from hdi.errors import HdiError, RequestError, StoreError
from hdi.stores.statements import (
    NO_CLOCK,
    REFUSED,
    Told,
    only_reading,
    pointed,
    refused_function,
    trimmed,
    unique,
    unknown,
)
from hdi.stores.timescaledb.connect import HINTS, guard, state_of
from hdi.stores.timescaledb.reading_then import names, then
from hdi.stores.tokens import Words, explained, looked_through
from hdi.stores.waiting import interruptible

if TYPE_CHECKING:
    from hdi.schema import Schemas
    from hdi.stores.timescaledb.connect import Database

#: Functions that the server calls volatile, and that change and read nothing but what may be read.
_HARMLESS = frozenset({
    "random", "random_normal", "clock_timestamp", "timeofday", "gen_random_uuid", "uuidv4", "uuidv7", "pg_sleep",
    "pg_sleep_for", "pg_sleep_until", "pg_database_size", "pg_table_size", "pg_indexes_size", "pg_relation_size",
    "pg_total_relation_size", "pg_tablespace_size", "hypertable_size", "hypertable_detailed_size",
    "hypertable_index_size", "chunks_detailed_size", "hypertable_compression_stats", "chunk_compression_stats",
    "hypertable_columnstore_stats", "chunk_columnstore_stats", "approximate_row_count", "hypertable_approximate_size",
    "hypertable_approximate_detailed_size", "show_chunks", "pg_column_size",
})  # fmt: skip
#: A role that may read every table, and nothing else: what a superuser becomes for a statement.
_READER = "pg_read_all_data"
_NUMERIC, _DIGITS = 1700, 38
_CLOCK = f"CASE WHEN {{0}} = time '24:00' THEN ('{NO_CLOCK} ' || {{0}}::text)::time ELSE {{0}} END"
#: What the server's types become, by their number; all others travel as text.
_PLAIN: Mapping[int, tuple[pl.DataType, str]] = {
    16: (pl.Boolean(), "{}"), 21: (pl.Int16(), "{}"), 23: (pl.Int32(), "{}"), 20: (pl.Int64(), "{}"),
    26: (pl.Int64(), "{}::bigint"), 700: (pl.Float32(), "{}"), 701: (pl.Float64(), "{}"), 25: (pl.String(), "{}"),
    1043: (pl.String(), "{}"), 1082: (pl.Date(), "{}"), 1083: (pl.Time(), _CLOCK), 1114: (pl.Datetime("us"), "{}"),
    1184: (pl.Datetime("us", "UTC"), "{}"),
}  # fmt: skip
#: What lists are of, and the type that they are sent as.
_LISTS: Mapping[int, tuple[pl.DataType, str]] = {
    1009: (pl.String(), "text[]"), 1015: (pl.String(), "text[]"), 1003: (pl.String(), "text[]"),
    1000: (pl.Boolean(), "bool[]"), 1005: (pl.Int16(), "int2[]"), 1007: (pl.Int32(), "int4[]"),
    1016: (pl.Int64(), "int8[]"), 1022: (pl.Float64(), "float8[]"),
}  # fmt: skip
#: A list counts from one, and one of several dimensions is none: the server says so, with what this says.
_LIST = (
    "CASE WHEN array_ndims({{0}}) > 1 THEN ({{0}}::text || ' has several dimensions: cast it to text')::{0} "
    "ELSE ({{0}}::{0})[:] END"
)
#: Classes of refusals that are the statement's own, and not the server's.
_MINE = ("0A", "20", "21", "22", "26", "2F", "34", "42", "P0", "XX000")
#: What fails while rows come in the driver tells without its code.
_UNSAID = "22000"
_READ_ONLY, _NO_RIGHT, _NO_TABLE, _NO_COLUMN = "25006", "42501", "42P01", "42703"
_TYPED = "SELECT proname, bool_or(provolatile = 'v') FROM pg_proc WHERE proname = ANY(%s) GROUP BY proname"
_SESSION = (
    "SELECT current_setting('is_superuser') = 'on', current_setting('search_path'), "
    "EXISTS (SELECT FROM pg_roles WHERE rolname = %s)"
)
_COLUMNS = (
    "SELECT attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE attnum > 0 AND NOT attisdropped "
    "AND relname = ANY(%s) AND relnamespace = ANY(current_schemas(false)::regnamespace[])"
)
#: Relations that are neither the server's own nor inside of TimescaleDB; chunks are rows as they are now.
_ELSEWHERE = (
    "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE relname = ANY(%s) "
    "AND relkind IN ('r', 'v', 'p', 'm', 'f') AND nspname NOT IN ('pg_catalog', 'information_schema', "
    "'timescaledb_information') ORDER BY 1 LIMIT 1"
)
_TABLES = (
    "SELECT relname FROM pg_class WHERE relnamespace = ANY(current_schemas(false)::regnamespace[]) "
    "AND relkind IN ('r', 'v', 'p', 'm', 'f')"
)


class Statement:
    """One statement on one database."""

    def __init__(self, database: Database, schemas: Schemas, text: str, as_of: int | None) -> None:
        self._database = database
        self._explain, self._text = explained(trimmed(text))
        self._words: Words = looked_through(self._text)
        self._as_of = as_of
        self._schemas = schemas
        self._with = then(schemas, self._words.names, as_of) if as_of is not None else sql.Composed([])
        self._conninfo = ""

    def answer(self) -> Told:
        """The answer, of which nothing is read yet. Raises RequestError for what is no statement that reads."""
        with self._guard(), self._database.session() as connection:
            self._session(connection)
            self._functions(connection)
            if self._as_of is not None:
                self._hidden(connection)
            if self._explain:
                return self._plan(connection)
            described = self._described(connection)
        names, notes = unique([name for name, _, _ in described])
        sent = [_carried(kind, modifier) for _, kind, modifier in described]
        columns = {name: dtype for name, (dtype, _, _) in zip(names, sent, strict=True)}
        numbers = [name for name, (_, _, number) in zip(names, sent, strict=True) if number]
        shown = ", ".join(f"{how.format(f'c{k}')} AS c{k}" for k, (_, how, _) in enumerate(sent))
        query = self._within(connection, shown, " q (" + ", ".join(f"c{k}" for k in range(len(sent))) + ")")
        return Told(columns, numbers, partial(self._frames, query, columns), self._guard, notes)

    # --- before it runs -----------------------------------------------------------------------

    def _session(self, connection: psycopg.Connection) -> None:
        """Make the transaction one that reads, of one who may only read; what rows are read with is the same."""
        connection.execute("SET TRANSACTION READ ONLY")
        connection.execute("SET LOCAL standard_conforming_strings = on")  # texts end where they do for tokens
        found = connection.execute(_SESSION, (_READER,)).fetchone()
        superuser, path, there = found if found is not None else (False, "public", False)
        settings = {
            "default_transaction_read_only": "on", "timezone": "UTC", "datestyle": "ISO", "search_path": path,
            "bytea_output": "hex", "intervalstyle": "postgres", "extra_float_digits": "1",
            "standard_conforming_strings": "on",
        }  # fmt: skip
        if superuser and there:
            settings["role"] = _READER
            connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(_READER)))
        given = conninfo_to_dict(self._database.conninfo).get("options") or ""
        told = " ".join(f"-c {name}={_escaped(value)}" for name, value in settings.items())
        self._conninfo = make_conninfo(self._database.conninfo, options=f"{given} {told}".strip())

    def _functions(self, connection: psycopg.Connection) -> None:
        """Refuse functions that write, hold locks, or read what is no table."""
        named = self._words.functions
        for name in named:
            if name in REFUSED:
                raise refused_function(name)
        for name, volatile in connection.execute(_TYPED, (list(named),)).fetchall():
            if volatile and name not in _HARMLESS:
                raise refused_function(name)

    def _hidden(self, connection: psycopg.Connection) -> None:
        """Refuse, as of an instant, what would be read as it is now: other tables and views, and those by schema."""
        mine = names(self._schemas)
        for name, place in self._words.scoped.items():
            if name in mine:
                raise pointed(
                    f"as of an instant, {name} is named without its schema", self._text, place, "Leave the schema out."
                )
        asked = [n for n in (*self._words.tables, *self._words.scoped) if n not in mine]
        for (name,) in connection.execute(_ELSEWHERE, (asked,)).fetchall():
            at = self._words.tables.get(name, self._words.scoped.get(name))
            raise pointed(
                f"what {name} held at that instant is not known", self._text, at,
                "Ask the tables that it is made of.",
            )  # fmt: skip

    def _described(self, connection: psycopg.Connection) -> list[tuple[str, int, int]]:
        """Name, type and modifier of each column, as the server understands the statement."""
        head = self._within(connection, "*", " q").partition(self._text)[0]
        query = self._within(connection, "*", " q")
        result = connection.pgconn.prepare(b"", query.encode())
        if result.status == ExecStatus.COMMAND_OK:
            result = connection.pgconn.describe_prepared(b"")
        if result.status != ExecStatus.COMMAND_OK:
            raise self._wrong(connection, result, len(head))
        columns = [
            ((result.fname(k) or b"").decode(), result.ftype(k), result.fmod(k)) for k in range(result.nfields)
        ]  # fmt: skip
        if not columns:
            raise RequestError("the statement gives no columns", "Name some after SELECT.")
        return columns

    def _wrong(self, connection: psycopg.Connection, result: psycopg.pq.abc.PGresult, before: int) -> HdiError:
        """The server's refusal of the text, with its place in it."""

        def field(name: DiagnosticField) -> str:
            return (result.error_field(name) or b"").decode(errors="replace")

        said, state = field(DiagnosticField.MESSAGE_PRIMARY), field(DiagnosticField.SQLSTATE)
        place = field(DiagnosticField.STATEMENT_POSITION)
        at = int(place) - 1 - before if place else None
        at = at if at is None or 0 <= at <= len(self._text) else None
        connection.rollback() if not connection.info.transaction_status else None
        if state in (_NO_TABLE, _NO_COLUMN):
            name = re.search(r'"([^"]+)"|column ([^"\s]+) does', said)
            missing = (name[1] or name[2]) if name else ""
            if missing:
                kind = "table" if state == _NO_TABLE else "column"
                return unknown(kind, missing.rpartition(".")[2], self._known(kind), self._text, at)
        if state == _NO_RIGHT and "function" not in said:
            return self._forbidden(said)
        return _mine(said, state, self._text, at, field(DiagnosticField.MESSAGE_HINT))

    def _known(self, kind: str) -> list[str]:
        """The tables that can be named, or the columns of those that are named."""
        with self._database.session() as connection:
            if kind == "table":
                rows = connection.execute(_TABLES).fetchall()
            else:
                rows = connection.execute(_COLUMNS, (list(self._words.names),)).fetchall()
        return [name for (name,) in rows]

    # --- running it ---------------------------------------------------------------------------

    def _within(self, connection: psycopg.Connection, shown: str, after: str) -> str:
        """The statement in a subquery, where only a query can stand."""
        before = self._with.as_string(connection)
        return f"{before}SELECT {shown} FROM (\n{self._text}\n){after}"  # noqa: S608  (the user's own statement)

    def _plan(self, connection: psycopg.Connection) -> Told:
        inner = self._within(connection, "*", " q") if self._with.as_string(connection) else self._text
        self._described(connection)
        try:
            # Prepared, as the description was: several statements cannot be.
            cursor = connection.execute(f"{self._explain}\n{inner}".encode(), prepare=True)
        except psycopg.Error as exc:
            raise self._failed(str(exc.diag.message_primary), exc.sqlstate or "", exc) from exc
        lines = [line for (row,) in cursor.fetchall() for line in _lines(row)]
        frame = pl.DataFrame({"plan": lines}, schema={"plan": pl.String()})
        return Told(dict(frame.schema), (), lambda: iter((frame,)), self._guard)

    def _frames(self, query: str, columns: Mapping[str, pl.DataType]) -> Iterator[pl.DataFrame]:
        from hdi.stores.timescaledb.arrow import Reader, ReadError

        try:
            with contextlib.closing(Reader(self._conninfo)) as reader:
                for batch in interruptible(partial(reader.ask, query), reader.cancel):
                    frame: pl.DataFrame = pl.DataFrame(batch)
                    yield frame.select(
                        pl.col(old).cast(dtype).alias(new)
                        for old, (new, dtype) in zip(frame.columns, columns.items(), strict=True)
                    )
        except ReadError as exc:
            state = exc.state or state_of(str(exc)) or (_UNSAID if "ERROR:" in str(exc) else "")
            said = re.sub(r"^.*?ERROR:\s*|\s*SQLSTATE.*$", "", str(exc), flags=re.DOTALL).strip().partition("\n")[0]
            raise self._failed(said, state, exc) from exc

    def _failed(self, said: str, state: str, exc: Exception) -> Exception:
        """What a statement that ran was refused for; where it is not the statement's own fault, what came."""
        if state == _NO_RIGHT and "function" not in said:
            return self._forbidden(said)
        return _mine(said, state, self._text, None) if state.startswith((*_MINE, _READ_ONLY)) else exc

    def _forbidden(self, said: str) -> StoreError:
        return StoreError(f"the database {self._database.location} refused: {said}", HINTS[_NO_RIGHT])

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        with guard(self._database):
            yield


def _mine(said: str, state: str, text: str, at: int | None, hint: str = "") -> RequestError:
    """What is wrong with the statement."""
    writing = (
        state == _READ_ONLY
        or "read-only transaction" in said
        or "data-modifying" in said
        or "is not allowed here" in said
    )
    if writing or (state == _NO_RIGHT and "function" in said):
        return only_reading(said)
    return pointed(said, text, at, hint)


def _carried(kind: int, modifier: int) -> tuple[pl.DataType, str, bool]:
    """How a type travels: what it becomes, the expression that it is sent as, and whether it is a number as text."""
    if kind in _PLAIN:
        dtype, how = _PLAIN[kind]
        return dtype, how, False
    if kind in _LISTS:
        of, sent = _LISTS[kind]
        return pl.List(of), _LIST.format(sent), False
    if kind == _NUMERIC:
        # The modifier holds precision and scale, four more than nothing.
        precision, scale = ((modifier - 4) >> 16) & 0xFFFF, (modifier - 4) & 0x7FF
        if modifier >= 0 and precision <= _DIGITS and scale <= precision:
            return pl.Decimal(precision, scale), "{}::text", False
        return pl.String(), "{}::text", True
    return pl.String(), "{}::text", False


def _lines(row: object) -> Sequence[str]:
    import json

    return row.splitlines() if isinstance(row, str) else json.dumps(row, indent=2).splitlines()


def _escaped(value: str) -> str:
    """A value among the options of a connection."""
    return re.sub(r"([\\\s])", r"\\\1", value)


def answer(database: Database, schemas: Schemas, text: str, as_of: int | None = None) -> Told:
    """See :meth:`hdi.stores.Store.sql`."""
    return Statement(database, schemas, text, as_of).answer()


__all__ = ["Statement", "answer"]

"""A database saved: by pg_dump as a whole, or some tables by COPY; either way as one snapshot has it.

The snapshot is held open by the session that counts and digests the rows, so that what is told of them is what was
saved, whatever is committed meanwhile.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg import sql

from hdi.errors import StoreError
from hdi.schema import Schemas
from hdi.stores.timescaledb import adopt, layout
from hdi.stores.timescaledb.books import COVERED, GONE, LESS, REJECTED, SAID, SYMBOLS, UNITS
from hdi.stores.timescaledb.editions import edition
from hdi.stores.timescaledb.programs import end_left, program, run
from hdi.stores.upkeep import Copies, known_tables

if sys.version_info >= (3, 14):
    from compression import zstd  # type: ignore[import-not-found, unused-ignore]
else:
    from backports import zstd

if TYPE_CHECKING:
    from hdi.stores.timescaledb import TimescaleDB

DUMP, ENDING = "dump", ".copy.zst"
#: Books in which the order of rows says something.
_ORDERED = (SYMBOLS.name, SAID.name)
_SUM = sql.SQL(
    "SELECT count(*), coalesce(sum(('x' || left(d, 16))::bit(64)::bigint::numeric), 0), "
    "coalesce(sum(('x' || right(d, 16))::bit(64)::bigint::numeric), 0) "
    "FROM (SELECT md5(ROW({columns})::text) AS d FROM {table}) AS digests"
)
_CHUNKS = (
    "SELECT hypertable_name, chunk_schema, chunk_name, is_compressed FROM timescaledb_information.chunks "
    "WHERE hypertable_schema = current_schema() ORDER BY 1, range_start"
)


def save(store: TimescaleDB, copies: Copies, tables: Sequence[str]) -> Mapping[str, Any]:
    """See :meth:`hdi.stores.upkeep.Saved.save`."""
    connection = store.database.connect()
    try:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        connection.execute("SET LOCAL statement_timeout = 0")
        there = layout.columns_of(connection)
        chosen = known_tables(tables, [s.table for s in store.schemas if s.table in there])
        about = _about(connection, store)
        # What another run, which was cut short, has left of other rows, or has still at work there.
        end_left(connection, _name(copies))
        for left in copies.folder.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        if chosen:
            copied = _copy_tables(connection, copies, store, chosen, there)
            names = [n for table in chosen for n in (table, f"{table}_history") if n in there]
            return {**about, "copied": copied, "tables": contents(connection, names, there)}
        (snapshot,) = _one(connection, "SELECT pg_export_snapshot()")
        _dump(store, copies, about["server_version_num"], snapshot)
        names = [n for n in (*layout.tables(store.schemas), "hdi_units", "hdi_meta") if n in there]
        return {**about, "tables": contents(connection, names, there)}
    finally:
        connection.close()


def _about(connection: psycopg.Connection, store: TimescaleDB) -> dict[str, Any]:
    """What a restore has to know of the server and the layout."""
    number, extension, schema = _one(
        connection,
        "SELECT current_setting('server_version_num')::int, "
        "(SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'), current_schema()",
    )
    chunks: dict[str, list[list[Any]]] = {}
    for table, *chunk in connection.execute(_CHUNKS).fetchall():
        chunks.setdefault(table, []).append(chunk)
    origin = connection.execute("SELECT value FROM hdi_meta WHERE key = 'origin'").fetchone()
    return {
        "type": "timescaledb", "identity": adopt.identity(connection), "layout": layout.version(connection),
        "server_version_num": number, "timescaledb": extension, "edition": edition(connection), "schema": schema,
        "origin": origin[0] if origin else None, "location": store.database.location, "chunks": chunks,
    }  # fmt: skip


def _one(connection: psycopg.Connection, query: LiteralString | sql.Composed) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = connection.execute(query).fetchone()
    if row is None:
        raise StoreError("the server answered with no row where there is always one")
    return row


def contents(
    connection: psycopg.Connection, tables: Sequence[str], there: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, Any]]:
    """How many rows tables have, and a digest that does not ask in which order they lie.

    It is the SHA-256 of the count and of two sums over the halves of the MD5 of each row as text, its columns by name;
    ``seq`` counts as the place that a row has by it, where that says something.
    """
    found = {}
    for table in tables:
        names = [sql.Identifier(c) for c in sorted(there[table]) if c != "seq"]
        place = [sql.SQL("row_number() OVER (ORDER BY seq)")] if table in _ORDERED else []
        query = _SUM.format(columns=sql.SQL(", ").join([*names, *place]), table=sql.Identifier(table))
        rows, *sums = _one(connection, query)
        found[table] = {"rows": rows, "digest": hashlib.sha256(f"{rows}:{sums[0]}:{sums[1]}".encode()).hexdigest()}
    return found


def _dump(store: TimescaleDB, copies: Copies, version: int, snapshot: str) -> None:
    """The whole database as that snapshot has it."""
    path = program("pg_dump", version // 10_000, store.options.programs)
    store.step("dump")
    target = copies.folder / DUMP
    run(
        path,
        ["--format=directory", f"--file={target}", f"--snapshot={snapshot}", "--no-password", "--encoding=UTF8"],
        store.database.conninfo,
        name=_name(copies),
    )
    for file in sorted(target.iterdir()):
        copies.took(f"{DUMP}/{file.name}")


def _name(copies: Copies) -> str:
    """The name under which the server knows the pg_dump that writes to a folder."""
    return f"hdi backup {hashlib.sha256(bytes(copies.folder.absolute())).hexdigest()[:16]}"


def wanted(schemas: Schemas, table: str) -> dict[str, sql.Composable]:
    """The books of a table, each with the condition that says which of its rows are."""
    names = next([*s.names] for s in schemas if s.table == table)
    mine = sql.SQL("schema = ANY({})").format(sql.Literal(names))
    everything = sql.SQL("TRUE")
    return {
        UNITS.name: sql.SQL("table_name = {}").format(sql.Literal(table)), COVERED.name: mine, REJECTED.name: mine,
        GONE.name: mine, LESS.name: mine, SYMBOLS.name: everything, SAID.name: everything, "hdi_units": everything,
    }  # fmt: skip


def _copy_tables(
    connection: psycopg.Connection, copies: Copies, store: TimescaleDB, tables: Sequence[str],
    there: Mapping[str, Mapping[str, str]],
) -> dict[str, list[str]]:  # fmt: skip
    """Tables, their superseded rows and all books, by COPY; the columns of each."""
    books = wanted(store.schemas, tables[0])
    names = [n for table in tables for n in (table, f"{table}_history")] + [*books]
    copied = {name: list(there[name]) for name in names if name in there}
    (copies.folder / "tables").mkdir(mode=0o700)
    for name, columns in copied.items():
        store.step("dump")
        query = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT (FORMAT binary)").format(
            sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(name)
        )
        _to_file(connection, copies, query, name)
    return copied


def _to_file(connection: psycopg.Connection, copies: Copies, query: sql.Composed, name: str) -> None:
    path = copies.folder / "tables" / f"{name}{ENDING}"
    with zstd.open(path, "wb", level=3) as file, connection.cursor().copy(query) as copy:
        for data in copy:
            file.write(data)
    copies.took(f"tables/{name}{ENDING}")


__all__ = ["DUMP", "ENDING", "contents", "save", "wanted"]

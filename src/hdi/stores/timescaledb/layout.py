"""Tables from declarations: made and grown at connect, versioned, forward only. Nothing is ever dropped.

Rows lie in one hypertable a kind, books beside them. Every statement here runs in one transaction
under a lock, so that of two processes that start at once one makes and the other finds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache

import polars as pl
import psycopg
import structlog
from psycopg import sql

from hdi.errors import StoreError
from hdi.schema import Schema, Schemas
from hdi.stores.timescaledb import views
from hdi.stores.timescaledb.books import BOOKS, MICRO, TYPES, Book, names_of
from hdi.stores.timescaledb.connect import SETUP

log = structlog.get_logger(component="Store")
#: The version of the layout that this program makes and reads. A view whose text changes needs a new one.
LAYOUT = 4
#: The oldest layout that is read as it is: columns and books that it lacks are null, and empty.
READS = 1
#: Rows of a kind that comes by the day fill a chunk a day; others a month, so that years of bars stay few chunks.
_CHUNK_DAYS = {"day": 1, "month": 30, "year": 30}
_ROLES = "Use the role that ingests: docs/database-roles.md says which rights it needs."
#: Wide columns first: the server pads a column to its own width.
_WIDTHS = ("TIMESTAMPTZ", "BIGINT", "DOUBLE", "INTEGER", "SMALLINT", "BOOLEAN", "NUMERIC", "TEXT")
_META = sql.SQL("CREATE TABLE IF NOT EXISTS hdi_meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
_NUMBERS = sql.SQL("CREATE TABLE IF NOT EXISTS hdi_units (unit INTEGER PRIMARY KEY, unit_id TEXT NOT NULL)")
_UNITS_BY_COMMIT = sql.SQL(
    "CREATE INDEX IF NOT EXISTS ingest_units_by_commit ON ingest_units (dataset, schema, committed_at)"
)
_NUMBERS_BY_ID = sql.SQL("CREATE INDEX IF NOT EXISTS hdi_units_unit_id ON hdi_units (unit_id)")

Declared = Mapping[str, tuple[str, bool]]


def declared(schema: Schema) -> dict[str, tuple[str, bool]]:
    """Stored columns of a kind in the order in which they lie: SQL type, and whether they must not be null."""
    required = {f.name for f in schema.fields if not f.null}
    timed = {f"{f.name}_ns" for f in schema.fields if f.type == "timestamp" and not f.null}
    columns = {
        name: (TYPES[dtype], name in required or name in timed or name.startswith("_"))
        for name, dtype in schema.stored.items()
    }
    return dict(sorted(columns.items(), key=lambda column: _width(column[1][0])))


def history(schema: Schema) -> dict[str, tuple[str, bool]]:
    """Columns of the superseded rows of a kind."""
    columns: dict[str, pl.DataType] = {}
    for name, dtype in schema.history.items():
        columns |= {name: MICRO, f"{name}_ns": pl.Int16()} if name == "_replaced_at" else {name: dtype}
    return {name: (TYPES[dtype], False) for name, dtype in columns.items()}


@cache
def _width(kind: str) -> int:
    return next(k for k, word in enumerate(_WIDTHS) if kind.startswith(word))


def version(connection: psycopg.Connection) -> int | None:
    """The version of the layout, None where the database holds none. StoreError for one that is too new."""
    if not holds(connection, "hdi_meta"):
        return None
    found = connection.execute("SELECT value FROM hdi_meta WHERE key = 'layout'").fetchone()
    if found is None:
        return None
    made = int(found[0])
    if made > LAYOUT:
        raise StoreError(
            f"the database has layout {made}; this version of hdi knows {LAYOUT}", "Use the newer hdi that made it."
        )
    return made


def holds(connection: psycopg.Connection, table: str) -> bool:
    """True when the store's schema, the first of the search path, has a table of that name."""
    found = connection.execute("SELECT to_regclass(quote_ident(current_schema()) || '.' || quote_ident(%s))", (table,))
    return found.fetchone() != (None,)


def hold(connection: psycopg.Connection, *key: str) -> None:
    """Wait for, and hold until the transaction ends, what the store's schema calls by that key."""
    connection.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || ':hdi:' || %s, 0))", (":".join(key),)
    )


def columns_of(connection: psycopg.Connection) -> dict[str, dict[str, str]]:
    """The columns of every table of the store's schema, with their SQL types."""
    rows = connection.execute(
        "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_class c "
        "JOIN pg_attribute a ON a.attrelid = c.oid WHERE c.relnamespace = current_schema()::regnamespace "
        "AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped"
    ).fetchall()
    found: dict[str, dict[str, str]] = {}
    for table, column, kind in rows:
        found.setdefault(table, {})[column] = kind
    return found


def columns_there(connection: psycopg.Connection, book: Book) -> sql.Composed | None:
    """The columns of a book in a database of an older layout, for a select; None where the book is not there."""
    there = columns_of(connection).get(book.name)
    if there is None:
        return None
    lacking = {n: sql.SQL("NULL::{} AS {}").format(_sql(book.declared[n][0]), sql.Identifier(n))
               for n in book.stored if n not in there}  # fmt: skip
    return book.select(lacking)


def _tables_of(schemas: Iterable[Schema]) -> Iterator[str]:
    """The names of :func:`tables`."""
    yield from (book.name for book in BOOKS)
    for schema in schemas:
        yield from (schema.table, f"{schema.table}_history")


def tables(schemas: Iterable[Schema]) -> dict[str, Declared]:
    """Every table that belongs to the layout, with its columns."""
    found: dict[str, Declared] = {book.name: book.declared for book in BOOKS}
    for schema in schemas:
        found |= {schema.table: declared(schema), f"{schema.table}_history": history(schema)}
    return found


def current(connection: psycopg.Connection, schemas: Schemas) -> bool:
    """True when nothing is to be made or grown. StoreError where a column's type is not the declared one."""
    if version(connection) != LAYOUT:
        return False
    there = columns_of(connection)
    return not any(_missing(table, columns, there) for table, columns in tables(schemas).items())


def check_rights(connection: psycopg.Connection, schemas: Schemas) -> None:
    """StoreError where this session may not write: before anything is bought for it, and not at the first row."""
    row = connection.execute("SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on'")
    if row.fetchone() == (True,):
        raise StoreError("the database may only be read: by this role, or by anybody (a replica)", _ROLES)
    lacking = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relname = ANY(%s) "
        "AND NOT (has_table_privilege(oid, 'INSERT') AND has_table_privilege(oid, 'DELETE')) ORDER BY relname LIMIT 1",
        ([*_tables_of(schemas), "hdi_meta", "hdi_units"],),
    ).fetchone()
    if lacking is not None:
        raise StoreError(f"the role {connection.info.user} may not write to the table {lacking[0]}", _ROLES)
    if connection.execute("SELECT has_database_privilege(current_database(), 'TEMPORARY')").fetchone() != (True,):
        raise StoreError(f"the role {connection.info.user} may not make temporary tables", _ROLES)


def _missing(table: str, columns: Declared, there: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The columns of a table that are not there."""
    if table not in there:
        return list(columns)
    for name, (kind, _) in columns.items():
        if name in there[table] and there[table][name] != _told(kind):
            raise StoreError(
                f"the column {name} of {table} is stored as {there[table][name]}, and is declared as {_told(kind)}",
                "Give the column another name, or a new kind another table.",
            )
    return [name for name in columns if name not in there[table]]


def _told(kind: str) -> str:
    """A declared type as the catalog tells it."""
    words = {"TIMESTAMPTZ": "timestamp with time zone", 'TEXT COLLATE "C"': "text"}
    return words.get(kind, kind).lower()


def make(connection: psycopg.Connection, schemas: Schemas) -> None:
    """Bring the database to the layout of this version, in the transaction that is open.

    Raises StoreError for a layout that is too new, a type that differs, or a server without TimescaleDB.
    """
    connection.execute("SET LOCAL lock_timeout = '60s'")
    connection.execute("SET LOCAL client_min_messages = 'warning'")
    hold(connection, "layout")
    # Who waits to change a table holds back everybody who comes later, readers too.
    connection.execute("SET LOCAL lock_timeout = '3s'")
    if current(connection, schemas):
        return
    made = version(connection)
    _encoding(connection)
    _extension(connection)
    for step in range((made or 0) + 1, LAYOUT + 1):
        for change in STEPS[step]:
            connection.execute(change)
    there = columns_of(connection)
    for book in BOOKS:
        _table(connection, book.name, book.declared, there, book.indexes, seq=True)
        _comment(connection, book.name, book.doc)
    connection.execute(_UNITS_BY_COMMIT)
    for schema in schemas:
        _table(connection, schema.table, declared(schema), there, hypertable=schema)
        past = f"{schema.table}_history"
        _table(connection, past, history(schema), there, ((schema.index_time,),), seq=True)
        _comment(connection, schema.table, schema.title)
        _comment(connection, past, f"{schema.title}: superseded rows")
    _make_views(connection, schemas)
    connection.execute(
        "INSERT INTO hdi_meta VALUES ('layout', %s) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (str(LAYOUT),),
    )


def _make_views(connection: psycopg.Connection, schemas: Schemas) -> None:
    """Make every view, or let it grow. One that somebody else's kinds have made wider stays as it is."""
    for name, view in views.views(schemas, views.columns_of(connection)):
        try:
            with connection.transaction():
                connection.execute(sql.Composed([view]))
        except psycopg.errors.InvalidTableDefinition:
            log.info("a view has columns that are not declared here, and stays", view=name)


#: What brings a layout to each version; tables and columns that are declared are made beside it, whatever the version.
STEPS: dict[int, tuple[sql.SQL, ...]] = {1: (_META, _NUMBERS, _NUMBERS_BY_ID), 2: (), 3: (), 4: ()}


def _encoding(connection: psycopg.Connection) -> None:
    held = connection.info.parameter_status("server_encoding")
    if held != "UTF8":
        raise StoreError(
            f"the database keeps text as {held}, which cannot hold every symbol",
            "Make one that holds them all: createdb --encoding UTF8 --template template0 NAME.",
        )


def _extension(connection: psycopg.Connection) -> None:
    if connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'timescaledb'").fetchone():
        return
    if not connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'timescaledb'").fetchone():
        raise StoreError(
            "the server has no TimescaleDB: its extension is not installed",
            "Use a server with TimescaleDB (`make timescaledb`, docker compose), or a lake: --store lake:PATH.",
        )
    # In the schema that all share, if it is there: another store of the database may lie in a schema of its own.
    shared = connection.execute("SELECT to_regnamespace('public') IS NOT NULL").fetchone() == (True,)
    connection.execute(f"CREATE EXTENSION IF NOT EXISTS timescaledb{' SCHEMA public' if shared else ''}")
    connection.execute(SETUP)


def _table(  # noqa: PLR0913  (what a table is made of)
    connection: psycopg.Connection, name: str, columns: Declared, there: Mapping[str, Mapping[str, str]],
    indexes: tuple[tuple[str, ...], ...] = (), *, seq: bool = False, hypertable: Schema | None = None,
) -> None:  # fmt: skip
    """Make a table, or add the columns that it lacks (they are null in the rows that are there)."""
    missing = _missing(name, columns, there)
    if name in there:
        for column in missing:
            grow = sql.SQL("ALTER TABLE {} ADD COLUMN {} {}")
            connection.execute(grow.format(sql.Identifier(name), sql.Identifier(column), _sql(columns[column][0])))
        return
    lines: list[sql.Composable] = [
        sql.SQL("{} {}{}").format(sql.Identifier(n), _sql(kind), sql.SQL(" NOT NULL" if required else ""))
        for n, (kind, required) in columns.items()
    ]
    if seq:
        lines.append(sql.SQL("seq BIGINT GENERATED ALWAYS AS IDENTITY"))
    connection.execute(sql.SQL("CREATE TABLE {} ({})").format(sql.Identifier(name), sql.SQL(", ").join(lines)))
    if hypertable is not None:
        indexes = _hypertable(connection, hypertable)
    for index in indexes:
        connection.execute(sql.SQL("CREATE INDEX ON {} ({})").format(sql.Identifier(name), names_of(index)))


def _hypertable(connection: psycopg.Connection, schema: Schema) -> tuple[tuple[str, ...], ...]:
    """Cut the table by its index time; returns the indexes that it gets.

    The default index, by time descending, costs a quarter of the loading rate against an ascending one. Ticks get no
    other; of kinds that come by the month, one instrument's rows are a small part of a chunk and are found by it.
    """
    grid = min((n.grid for n in schema.names.values()), key=list(_CHUNK_DAYS).index)
    connection.execute(
        "SELECT create_hypertable(%s::regclass, by_range(%s, %s * INTERVAL '1 day'), create_default_indexes => false)",
        (schema.table, schema.index_time, _CHUNK_DAYS[grid]),
    )
    implied = tuple(c for c in schema.partition if c != "dataset")
    by_instrument = (*implied, "instrument_id", schema.index_time)
    return ((schema.index_time,),) if grid == "day" else ((schema.index_time,), by_instrument)


def _comment(connection: psycopg.Connection, table: str, text: str) -> None:
    connection.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(sql.Identifier(table), sql.Literal(text)))


def _sql(kind: str) -> sql.SQL:
    return sql.SQL(kind)  # one of TYPES, never a value

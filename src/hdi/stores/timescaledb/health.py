"""What ``hdi status`` says of a database: versions, edition, sizes, chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from hdi.stores.timescaledb import layout
from hdi.stores.timescaledb.editions import compression, edition

if TYPE_CHECKING:
    from hdi.schema import Schemas
    from hdi.stores.timescaledb.connect import Database

#: Rows are counted exactly, as long as it takes no longer than this.
_COUNT_MS = 5000


def found(database: Database, schemas: Schemas, *, exists: bool) -> dict[str, Any]:
    """The health of a store."""
    with database.session() as connection:
        row = connection.execute(
            "SELECT current_setting('server_version'), pg_database_size(current_database()), "
            "(SELECT extversion FROM pg_extension WHERE extname = 'timescaledb')"
        ).fetchone()
        server, size, extension = row if row is not None else (None, None, None)
        kind, packed = edition(connection), compression(connection)
        origin = made = None
        tables: dict[str, dict[str, Any]] = {}
        if exists:
            made = layout.version(connection)
            row = connection.execute("SELECT value FROM hdi_meta WHERE key = 'origin'").fetchone()
            origin = row[0] if row else None
            there = layout.columns_of(connection)
            tables = {s.table: _table(connection, s.table) for s in schemas if s.table in there}
    for name, table in tables.items():
        table["rows"] = _rows(database, name)
    return {
        "type": "timescaledb", "version": extension or "absent", "server_version": server.split()[0], "edition": kind,
        "compression": packed,
        "exists": exists, "location": database.location, "origin": origin, "layout": made,
        "tables": {n: t for n, t in tables.items() if t["rows"] != 0}, "database_bytes": size, "free_bytes": None,
    }  # fmt: skip


def _table(connection: psycopg.Connection, table: str) -> dict[str, Any]:
    row = connection.execute(
        "SELECT count(*), count(*) FILTER (WHERE is_compressed), hypertable_size(%(table)s::text::regclass) "
        "FROM timescaledb_information.chunks "
        "WHERE hypertable_schema = current_schema() AND hypertable_name = %(table)s::text",
        {"table": table},
    ).fetchone()
    chunks, compressed, size = row if row is not None else (0, 0, 0)
    return {"rows": None, "chunks": chunks, "bytes": size, "compressed_chunks": compressed}


def _rows(database: Database, table: str) -> int | None:
    """The rows of a table; None (not measured) when counting them takes too long."""
    try:
        with database.session() as connection:
            connection.execute(sql.SQL("SET LOCAL statement_timeout = {}").format(sql.Literal(_COUNT_MS)))
            row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
            return row[0] if row else None
    except psycopg.errors.QueryCanceled:
        return None

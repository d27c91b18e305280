"""A piece of another store in one transaction: its rows instead of those in its cells, and its books as they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import polars as pl
import psycopg
from psycopg import sql

from hdi.errors import StoreError
from hdi.stores.receipts import lacking_numbers
from hdi.stores.timescaledb.books import COVERED, MICRO, REJECTED, SAID, SYMBOLS, UNITS, instant
from hdi.stores.timescaledb.chunks import Chunks, delete
from hdi.stores.timescaledb.commit import lock, lock_mappings, settle_origin
from hdi.stores.timescaledb.compare import constants
from hdi.stores.timescaledb.copying import Copy, copy_frame
from hdi.stores.timescaledb.layout import declared

if TYPE_CHECKING:
    from hdi.stores import Piece
    from hdi.stores.timescaledb import TimescaleDB


def adopt(store: TimescaleDB, piece: Piece, rows: Iterable[pl.DataFrame] | None) -> None:
    """See :meth:`hdi.stores.Store.adopt`."""
    store.step("begin")
    connection = store.database.connect()
    try:
        store.step("lock")
        lock(connection, piece.work)
        store.step("look")
        _check_held(connection, store, piece)
        settle_origin(connection, store, piece.origin)
        if rows is not None:
            _replace_rows(connection, store, piece, rows)
        store.step("rejects")
        connection.execute("DELETE FROM quarantine WHERE unit = ANY(%s)", (list(piece.units),))
        copy_frame(connection, REJECTED.name, REJECTED.to_stored(piece.quarantine))
        store.step("books")
        _keep_books(connection, piece)
        store.step("commit")
        connection.commit()
    finally:
        connection.close()  # the server forgets what was not committed


def _check_held(connection: psycopg.Connection, store: TimescaleDB, piece: Piece) -> None:
    row = connection.execute(
        "SELECT count(*) FROM ingest_units WHERE dataset = %s AND schema = %s", (piece.dataset, piece.name.name)
    ).fetchone()
    piece.check(row[0] if row else 0, store.url)


def _replace_rows(
    connection: psycopg.Connection, store: TimescaleDB, piece: Piece, rows: Iterable[pl.DataFrame]
) -> None:
    """Delete what lies in the cells of the piece, load its rows, and count them in the table."""
    schema = piece.schema
    index = sql.Identifier(schema.index_time)
    cells = {"table": sql.Identifier(schema.table), "index": index, "constants": constants(piece.work)}
    first, end = instant(piece.window.start), instant(piece.window.end + 999)
    bounds: dict[str, Any] = {"first": first, "end": end}
    store.step("delete")
    delete(connection, schema, (first, end), _DELETE, cells, bounds)
    store.step("copy")
    chunks, copy = Chunks(store, schema), Copy(connection, schema.table, list(declared(schema)))
    came = 0
    try:
        for frame in rows:
            stored = schema.to_stored(frame)
            micro = stored[schema.index_time].to_physical()
            chunks.hold(stored, int(micro.min()), int(micro.max()))  # type: ignore[arg-type]  # Polars' minima
            copy.write(stored)
            came += stored.height
        copy.end()
    except BaseException:
        copy.discard()
        raise
    store.step("count")
    row = connection.execute(_COUNT.format(**cells), bounds).fetchone()
    if row != (came,):
        raise StoreError(
            f"{came} rows came, and the table holds {row[0] if row else 0} in their cells", "Nothing was committed."
        )


def _keep_books(connection: psycopg.Connection, piece: Piece) -> None:
    copy_frame(connection, UNITS.name, UNITS.to_stored(piece.ledger))
    copy_frame(connection, COVERED.name, COVERED.to_stored(piece.coverage))
    if piece.mappings.height:
        lock_mappings(connection, piece.dataset)
        copy_frame(connection, SYMBOLS.name, SYMBOLS.to_stored(piece.mappings))
    copy_frame(connection, SAID.name, SAID.to_stored(piece.conditions))
    at = pl.col("_replaced_at")
    past = piece.history.with_columns((at // 1000).cast(MICRO), (at % 1000).cast(pl.Int16).alias("_replaced_at_ns"))
    copy_frame(connection, f"{piece.schema.table}_history", past)


def identity(connection: psycopg.Connection) -> str:
    """The cluster, the database and the schema: what a host name, an alias or a tunnel does not change."""
    row = connection.execute(
        "SELECT (SELECT system_identifier FROM pg_control_system()), oid, current_schema() FROM pg_database "
        "WHERE datname = current_database()"
    ).fetchone()
    return f"timescaledb:{row}"


def numbers(connection: psycopg.Connection) -> pl.DataFrame:
    """The numbers that were given (unit, unit_id)."""
    rows = connection.execute("SELECT unit, unit_id FROM hdi_units ORDER BY unit").fetchall()
    return pl.DataFrame(rows, schema={"unit": pl.Int32, "unit_id": pl.String}, orient="row")


def keep_numbers(connection: psycopg.Connection, wanted: pl.DataFrame, url: str) -> None:
    """Add the numbers that are not known; the lock that gives numbers must be held."""
    copy_frame(connection, "hdi_units", lacking_numbers(numbers(connection), wanted, url).select("unit", "unit_id"))


_DELETE = sql.SQL("DELETE FROM {table} t WHERE t.{index} >= %(first)s AND t.{index} < %(end)s AND {constants}")
_COUNT = sql.SQL("SELECT count(*) FROM {table} t WHERE t.{index} >= %(first)s AND t.{index} < %(end)s AND {constants}")

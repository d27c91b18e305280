"""Upkeep of a database: what the server's own workers do in their time, done now and told."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from hdi.errors import StoreError
from hdi.stores.timescaledb import layout
from hdi.stores.timescaledb.editions import COMMUNITY, compression_of, edition
from hdi.stores.upkeep import Care, Tended

if TYPE_CHECKING:
    from hdi.stores.timescaledb import TimescaleDB

STEPS = {
    "compress": "chunks older than timescaledb.compress_after_days made columnar (with timescaledb.compress; community "
    "edition)",
    "vacuum": "space of superseded rows given back, and statistics for the planner (VACUUM ANALYZE)",
    "reindex": "indexes made anew beside the old ones (REINDEX CONCURRENTLY); only when it is asked for",
}
_LOCK = "SELECT pg_try_advisory_lock(hashtextextended(current_schema() || ':hdi:upkeep', 0))"
_SIZES = (
    "SELECT pg_total_relation_size(r), pg_indexes_size(r), pg_relation_size(r) FROM (SELECT %(table)s::text::regclass "
    "AS r) AS one UNION ALL SELECT pg_total_relation_size(r), pg_indexes_size(r), pg_relation_size(r) FROM (SELECT "
    "format('%%I.%%I', chunk_schema, chunk_name)::regclass AS r FROM timescaledb_information.chunks "
    "WHERE hypertable_schema = current_schema() AND hypertable_name = %(table)s::text) AS chunks"
)
_CHUNKS = (
    "SELECT chunk_schema, chunk_name, is_compressed, range_end FROM timescaledb_information.chunks "
    "WHERE hypertable_schema = current_schema() AND hypertable_name = %s ORDER BY range_start"
)
#: What a REINDEX CONCURRENTLY that was killed leaves: indexes that nobody uses and every write keeps up to date.
_LEFT = (
    "SELECT n.nspname, c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
    "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE NOT i.indisvalid AND c.relname ~ '_cc(new|old)[0-9]*$' "
    "AND i.indrelid = %s::text::regclass"
)


def maintain(store: TimescaleDB, care: Care) -> Iterator[Tended]:
    """See :meth:`hdi.stores.upkeep.Maintained.maintain`."""
    with store.database.session() as connection:
        there = layout.columns_of(connection) if layout.version(connection) is not None else {}
    tables = [table for table in (*layout.tables(store.schemas), "hdi_units") if table in there]
    if not tables:
        return
    connection = store.database.connect(autocommit=True)
    try:
        if connection.execute(_LOCK).fetchone() != (True,):
            raise StoreError(
                f"{store.url} is being maintained by another process", "Run the same command again when it has ended."
            )
        connection.execute("SET statement_timeout = 0")
        connection.execute("SET lock_timeout = 0")
        if care.wants("compress"):
            yield from _compress(store, connection, care, tables)
        # What has no page of rows needs nothing.
        tables = [table for table in tables if _sizes(connection, table)[2]]
        if care.wants("vacuum"):
            for table in tables:
                yield _vacuum(store, connection, care, table)
        if care.wants("reindex", asked=True):
            for table in tables:
                yield _reindex(store, connection, care, table)
    finally:
        connection.close()  # the server forgets the lock


def _sizes(connection: psycopg.Connection, table: str) -> tuple[int, int, int]:
    """Bytes of a table with its chunks, of their indexes, and of their rows."""
    rows = connection.execute(_SIZES, {"table": table}).fetchall()
    whole, indexes, heap = (sum(row[k] for row in rows) for k in range(3))
    return whole, indexes, heap


def _vacuum(store: TimescaleDB, connection: psycopg.Connection, care: Care, table: str) -> Tended:
    """A table with all its chunks. Where the role does not own it the server only warns: that is said."""
    began, (before, *_) = time.monotonic(), _sizes(connection, table)
    if care.dry_run:
        return Tended("vacuum", table, "would be vacuumed and analyzed", bytes_before=before)
    store.step("vacuum")
    warned: list[str] = []

    def warn(notice: psycopg.errors.Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING":
            warned.append(notice.message_primary or "")

    connection.add_notice_handler(warn)
    try:
        connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(sql.Identifier(table)))
    finally:
        connection.remove_notice_handler(warn)
    after, *_ = _sizes(connection, table)
    done = f"not all of it: {warned[0]}" if warned else "vacuumed and analyzed"
    return Tended(
        "vacuum", table, done, bytes_before=before, bytes_after=after, seconds=time.monotonic() - began
    )  # fmt: skip


def _reindex(store: TimescaleDB, connection: psycopg.Connection, care: Care, table: str) -> Tended:
    """The indexes of a table, chunk by chunk: readers and writers go on meanwhile."""
    began, (_, before, _) = time.monotonic(), _sizes(connection, table)
    chunks = [sql.Identifier(schema, name) for schema, name, *_ in connection.execute(_CHUNKS, (table,)).fetchall()]
    parts = chunks or [sql.Identifier(table)]
    if care.dry_run:
        return Tended("reindex", table, f"would reindex {len(parts)} tables and chunks", bytes_before=before)
    for part in parts:
        store.step("reindex")
        for schema, index in connection.execute(_LEFT, (part.as_string(connection),)).fetchall():
            connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(schema, index)))
        connection.execute(sql.SQL("REINDEX TABLE CONCURRENTLY {}").format(part))
    _, after, _ = _sizes(connection, table)
    done = f"reindexed {len(parts)} tables and chunks"
    return Tended(
        "reindex", table, done, bytes_before=before, bytes_after=after, seconds=time.monotonic() - began
    )  # fmt: skip


def _compress(
    store: TimescaleDB, connection: psycopg.Connection, care: Care, tables: list[str]
) -> Iterator[Tended]:  # fmt: skip
    """Old chunks made columnar. Rows and answers stay; a commit that replaces rows of one opens it again."""
    asked = "compress" in care.steps
    if edition(connection) != COMMUNITY:
        if asked or care.compress_after_days is not None:
            yield Tended("compress", "chunks", "nothing: this edition of TimescaleDB (Apache) has no compression")
        return
    if care.compress_after_days is None:
        if asked:
            yield Tended("compress", "chunks", "nothing: timescaledb.compress is false")
        return
    before = dt.datetime.now(dt.UTC) - dt.timedelta(days=care.compress_after_days)
    for schema in store.schemas:
        if schema.table not in tables:
            continue
        began, (size, *_) = time.monotonic(), _sizes(connection, schema.table)
        old = [
            (chunk_schema, name)
            for chunk_schema, name, compressed, end in connection.execute(_CHUNKS, (schema.table,)).fetchall()
            if not compressed and end < before
        ]
        if not old:
            continue
        if care.dry_run:
            yield Tended("compress", schema.table, f"would compress {len(old)} chunks", bytes_before=size)
            continue
        connection.execute(compression_of(schema, care.compress_after_days)[0])
        for chunk_schema, name in old:
            store.step("compress")
            chunk = sql.Identifier(chunk_schema, name).as_string(connection)
            connection.execute("SELECT compress_chunk(%s::text::regclass, if_not_compressed => true)", (chunk,))
        after, *_ = _sizes(connection, schema.table)
        yield Tended(
            "compress", schema.table, f"compressed {len(old)} chunks", bytes_before=size, bytes_after=after,
            seconds=time.monotonic() - began,
        )  # fmt: skip


__all__ = ["STEPS", "maintain"]

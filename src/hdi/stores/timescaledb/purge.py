"""Rejects that are purged, in one transaction with what is kept of that."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from hdi.stores.receipts import purged, to_purge
from hdi.stores.timescaledb.books import LESS, REJECTED, names_of
from hdi.stores.timescaledb.commit import lock_scope
from hdi.stores.timescaledb.copying import copy_frame

if TYPE_CHECKING:
    import polars as pl

    from hdi.stores.timescaledb import TimescaleDB

_PAIRS = "SELECT DISTINCT dataset, schema FROM ingest_units WHERE unit = ANY(%s) ORDER BY dataset, schema"
#: Rows get new numbers: those who keep a book see by these that it has changed.
_EMPTY = sql.SQL(
    "WITH gone AS (DELETE FROM quarantine WHERE unit = ANY(%s) AND record::text <> 'null' RETURNING *) "
    "INSERT INTO quarantine ({columns}) SELECT {emptied} FROM gone ORDER BY seq"
)


def purge(
    store: TimescaleDB, connection: psycopg.Connection, stand: Sequence[int], replaced: Sequence[int], reason: str
) -> pl.DataFrame:
    """See :meth:`hdi.stores.Purging.purge`, in the transaction that is open."""
    store.step("lock")
    units = sorted({*stand, *replaced})
    for dataset, name in connection.execute(_PAIRS, (units,)).fetchall():
        lock_scope(connection, dataset, name)
    store.step("look")
    going = to_purge(store.rejected(), stand, replaced)
    kept = purged(going, reason, time.time_ns())
    if going.is_empty():
        return kept
    store.step("rejects")
    connection.execute("DELETE FROM quarantine_history WHERE unit = ANY(%s)", (list(replaced),))
    instead = {"record": sql.SQL("'null'::json"), "error_message": sql.SQL("NULL")}
    columns = sql.SQL(", ").join(instead.get(name, sql.Identifier(name)) for name in REJECTED.stored)
    connection.execute(_EMPTY.format(columns=names_of(REJECTED.stored), emptied=columns), (list(stand),))
    store.step("books")
    copy_frame(connection, LESS.name, LESS.to_stored(kept))
    return kept


def keep(store: TimescaleDB, connection: psycopg.Connection, told: pl.DataFrame) -> None:
    """See :meth:`hdi.stores.Purging.keep_purged`, in the transaction that is open."""
    for dataset, name in told.select("dataset", "schema").unique().sort("dataset", "schema").iter_rows():
        lock_scope(connection, dataset, name)
    copy_frame(connection, LESS.name, LESS.to_stored(told.join(store.purged(), on=told.columns, how="anti")))


__all__ = ["keep", "purge"]

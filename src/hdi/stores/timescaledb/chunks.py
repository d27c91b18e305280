"""Chunks: made ahead of the rows that need them, and deleted from one by one.

Whoever makes a chunk holds back every other maker until it commits, so that is done by short transactions of their own.
A DELETE on the hypertable locks every chunk that there is, whatever its condition says; one on a chunk locks that.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import psycopg
from psycopg import sql

from hdi.errors import DataError
from hdi.stores.timescaledb.books import MICRO
from hdi.stores.timescaledb.copying import copy_frame

if TYPE_CHECKING:
    from hdi.schema import Schema
    from hdi.stores.timescaledb import TimescaleDB

#: Chunks that one commit may make: random times of a damaged file would make one for each row.
MOST_CHUNKS = 10_000
_AT_ONCE = 32
#: Marks rows that are there for their chunk alone, and only inside the transaction that makes it.
_MARK = -1
_MARKED = sql.SQL("DELETE FROM {table} t WHERE t._unit = %(mark)s AND t.{index} = ANY(%(instants)s)")


def delete(
    connection: psycopg.Connection, schema: Schema, span: tuple[dt.datetime, dt.datetime], statement: sql.SQL,
    parts: Mapping[str, sql.Composable], known: Mapping[str, Any],
) -> None:  # fmt: skip
    """Run a DELETE, whose ``{table}`` is filled in, on each chunk that rows between two instants (both in) lie in."""
    chunks = connection.execute(
        "SELECT chunk_schema, chunk_name, is_compressed FROM timescaledb_information.chunks "
        "WHERE hypertable_schema = current_schema() AND hypertable_name = %s AND range_start <= %s AND range_end > %s",
        (schema.table, span[1], span[0]),
    ).fetchall()
    tables = [sql.Identifier(chunk_schema, name) for chunk_schema, name, _ in chunks]
    if any(compressed for *_, compressed in chunks):
        tables = [sql.Identifier(schema.table)]  # only by way of it are they decompressed
    for table in tables:
        connection.execute(statement.format(**{**parts, "table": table}), known)


class Chunks:
    """Sees to it that every row has its chunk before it is loaded."""

    def __init__(self, store: TimescaleDB, schema: Schema) -> None:
        self._store = store
        self._schema = schema
        self._known: pl.DataFrame | None = None
        self._made = 0

    def hold(self, stored: pl.DataFrame, first: int, last: int) -> None:
        """Make the chunks that rows between two microseconds lack. DataError when they are too many."""
        if self._known is None:
            self._known = self._ranges()
        inside = self._known.filter(pl.col("start") <= first, pl.col("end") > last)
        if inside.height:
            return
        instants = stored[self._schema.index_time].to_physical().to_numpy()
        lacking = self._lacking(instants)
        while len(lacking):
            self._make(stored, lacking)
            self._known = self._ranges()
            lacking = self._lacking(instants)

    def _ranges(self) -> pl.DataFrame:
        with self._store.database.session() as connection:
            rows = connection.execute(
                "SELECT range_start, range_end FROM timescaledb_information.chunks "
                "WHERE hypertable_schema = current_schema() AND hypertable_name = %s",
                (self._schema.table,),
            ).fetchall()
        kinds = {"start": MICRO, "end": MICRO}
        return pl.DataFrame(rows, schema=kinds, orient="row").select(pl.all().to_physical()).sort("start")

    def _lacking(self, instants: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Rows without a chunk."""
        known = self._known
        if known is None or not known.height:
            return np.arange(len(instants))
        at = np.searchsorted(known["start"].to_numpy(), instants, side="right") - 1
        held = (at >= 0) & (instants < known["end"].to_numpy()[np.maximum(at, 0)])
        return np.flatnonzero(~held)

    def _make(self, stored: pl.DataFrame, lacking: np.ndarray[Any, Any]) -> None:
        """Make the chunks of some rows: a row that is inserted and deleted by one transaction leaves its chunk."""
        index = self._schema.index_time
        days = (stored[index].to_physical().to_numpy()[lacking] // 86_400_000_000).astype(np.int64)
        _, first = np.unique(days, return_index=True)
        rows = stored[lacking[first][:: max(1, len(first) // _AT_ONCE)][:_AT_ONCE]]
        self._made += rows.height
        if self._made > MOST_CHUNKS:
            raise DataError(
                f"its rows lie in more than {MOST_CHUNKS} chunks of {self._schema.table}",
                "A file of so many is damaged, or has to be cut by time. Nothing of it was stored.",
            )
        instants = rows[index].to_list()
        known = {"mark": _MARK, "instants": instants}
        with self._store.database.session() as connection:
            copy_frame(connection, self._schema.table, rows.with_columns(_unit=pl.lit(_MARK, pl.Int32)))
            for instant in sorted(set(instants)):
                delete(connection, self._schema, (instant, instant), _MARKED, {"index": sql.Identifier(index)}, known)

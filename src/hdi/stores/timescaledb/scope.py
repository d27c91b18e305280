"""Which stored rows a commit may replace, as a temporary table, and whether there can be any."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import polars as pl
import psycopg
from psycopg import sql

from hdi.frames import BROUGHT
from hdi.stores.timescaledb.books import COVERED, instant
from hdi.stores.timescaledb.copying import copy_frame
from hdi.symbology import disjoint

if TYPE_CHECKING:
    from hdi.stores import Work

SCOPE = "hdi_scope"
#: A unit of the same dataset and schema, whatever its window is, and one whose window meets another.
_ANY = sql.SQL(
    "SELECT EXISTS (SELECT FROM ingest_units WHERE dataset = %(dataset)s AND schema = %(schema)s AND stored > 0 "
    "AND status = ANY(%(brought)s) AND unit <> ALL(%(mine)s))"
)
_MEETING = sql.SQL(
    "SELECT EXISTS (SELECT FROM ingest_units WHERE dataset = %(dataset)s AND schema = %(schema)s AND stored > 0 "
    "AND status = ANY(%(status)s) AND unit <> ALL(%(mine)s) AND start_time <= %(last)s AND end_time >= %(first)s)"
)
_CLAIMED = sql.SQL(
    "SELECT EXISTS (SELECT FROM coverage c JOIN hdi_scope s ON c.instrument_id = s.instrument_id "
    "AND (c.start_time, c.start_time_ns) < (s.end_time, s.end_time_ns) "
    "AND (s.start_time, s.start_time_ns) < (c.end_time, c.end_time_ns) "
    "WHERE c.dataset = %(dataset)s AND c.schema = %(schema)s AND c.unit <> ALL(%(mine)s))"
)


def stage_scope(connection: psycopg.Connection, work: Work) -> None:
    """The scope of the work as the temporary table ``hdi_scope``; of rectangles that overlap the later unit owns."""
    connection.execute(
        "CREATE TEMP TABLE IF NOT EXISTS hdi_scope (unit INTEGER, instrument_id BIGINT, start_time TIMESTAMPTZ, "
        "start_time_ns SMALLINT, end_time TIMESTAMPTZ, end_time_ns SMALLINT) ON COMMIT DROP"
    )
    connection.execute("TRUNCATE hdi_scope")
    scope = work.scope
    flat = disjoint(scope)
    owned = flat.with_columns(unit=scope["unit"].gather(flat["row"]))
    rows = COVERED.to_stored(
        owned.with_columns(pl.lit(None, pl.String).alias(c) for c in ("dataset", "schema", "symbol", "stype"))
    )
    copy_frame(
        connection,
        SCOPE,
        rows.select("unit", "instrument_id", "start_time", "start_time_ns", "end_time", "end_time_ns"),
    )
    connection.execute("ANALYZE hdi_scope")


def overlapped(connection: psycopg.Connection, work: Work, mine: Collection[int]) -> bool:
    """True when rows that the work may replace, or must be compared with, can be stored by now.

    By the books: whatever a complete unit stored lies in what it covers, what a fragment stored in its window.
    ``mine`` are units that do not count. Needs the staged scope.
    """
    units = list(work.units.values())
    known = {
        "dataset": work.dataset, "schema": work.name.name, "mine": list(mine), "status": ["fragment"],
        "brought": [*BROUGHT],
        "first": instant(min(u.window.start for u in units)), "last": instant(max(u.window.end for u in units)),
    }  # fmt: skip
    if work.fragment:
        return _true(connection, _ANY, known)
    if not work.scope.height:
        # Instruments that arrive unmapped are known when they have arrived.
        return _true(connection, _MEETING, {**known, "status": [*BROUGHT]})
    return _true(connection, _CLAIMED, known) or _true(connection, _MEETING, known)


def _true(connection: psycopg.Connection, query: sql.SQL, known: dict[str, object]) -> bool:
    return connection.execute(query, known).fetchone() == (True,)

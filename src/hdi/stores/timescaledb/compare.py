"""What a commit changes, found out by the server: groups of rows that are equal to the new ones stay as they are.

Equality is judged by groups of rows that share index time, publisher and instrument, in their order, as in the lake.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from hdi.model import MAX_NS
from hdi.stores.timescaledb.books import instant, names_of
from hdi.stores.timescaledb.chunks import delete
from hdi.stores.timescaledb.layout import declared, history
from hdi.stores.timescaledb.load import FRESH, stage

if TYPE_CHECKING:
    from hdi.stores import Work
    from hdi.stores.timescaledb import TimescaleDB
    from hdi.stores.timescaledb.load import TimescaleWriter

#: The rows of an attempt that are compared.
FRESH_TABLE = sql.Identifier(FRESH)


@dataclass
class Change:
    """What became of rows, by unit number."""

    unchanged: dict[int, int] = field(default_factory=dict)
    superseded: dict[int, int] = field(default_factory=dict)
    doubtful: int = 0


def gather(connection: psycopg.Connection, writer: TimescaleWriter, work: Work) -> None:
    """See that the rows of the attempt lie in the temporary table, wherever they were sent."""
    if writer.direct:
        # Somebody committed in between, or instruments came that nobody foresaw.
        known = mine_of(writer, work)
        stage(connection, work.schema.table)
        rows, columns = rows_of(writer, work), columns_of(work)
        connection.execute(INSERT_ALL.format(table=FRESH_TABLE, columns=columns, fresh=rows), known)
        index, _ = index_of(work)
        parts = {"index": index, "constants": constants(work)}
        delete(connection, work.schema, (known["first"], known["last"]), _TAKE_BACK, parts, known)
        writer.direct = False
    elif not writer.rows:
        stage(connection, work.schema.table)


def compared(connection: psycopg.Connection, store: TimescaleDB, writer: TimescaleWriter, work: Work) -> Change:
    """Compare with what is stored, group by group; keep what is equal, and replace the rest."""
    ids = [unit.id for unit in work.units.values()]
    index, rest = index_of(work)
    known: dict[str, Any] = {
        "dataset": work.dataset, "ids": ids, "number": next(iter(work.units)), "run": work.run,
        "now": time.time_ns() // 1000, "now_ns": time.time_ns() % 1000, **_near(connection, writer, work),
    }  # fmt: skip
    key = (work.schema.index_time, f"{work.schema.index_time}_ns", "publisher_id", "instrument_id")
    parts = {
        "table": table_of(work), "columns": columns_of(work), "fresh": FRESH_TABLE, "index": index, "rest": rest,
        "history": sql.Identifier(f"{work.schema.table}_history"), "constants": constants(work),
        "key": names_of(key),
        "same_key": sql.SQL(" AND ").join(sql.SQL("f.{c} = c.{c}").format(c=sql.Identifier(c)) for c in key),
        "equal": _equal(work),
    }  # fmt: skip
    connection.execute((_OLD_OF_FRAGMENT if work.fragment else _OLD_IN_SCOPE).format(**parts), known)
    if connection.execute("SELECT EXISTS (SELECT FROM hdi_old)").fetchone() == (False,):
        store.step("write")
        connection.execute(INSERT_ALL.format(**parts))
        return Change()
    for table in (sql.Identifier("hdi_old"), FRESH_TABLE):
        connection.execute(sql.SQL("ANALYZE {}").format(table))
    connection.execute(_CHANGED.format(**parts))
    connection.execute(sql.SQL("ANALYZE hdi_changed"))
    connection.execute(_GONE.format(**parts))
    connection.execute(sql.SQL("ANALYZE hdi_gone"))
    store.step("write")
    connection.execute(_KEEP_HISTORY.format(**parts, past=names_of(list(history(work.schema)))), known)
    gone = _extent(connection, index)
    if gone is not None:
        delete(connection, work.schema, gone, _DELETE_OLD, parts, dict(zip(("first", "last"), gone, strict=True)))
    connection.execute(_INSERT_CHANGED.format(**parts))
    change = Change(
        unchanged=dict(connection.execute(_UNCHANGED.format(**parts)).fetchall()),
        superseded=dict(connection.execute(_SUPERSEDED).fetchall()),
    )
    if work.fragment:
        row = connection.execute(_DOUBTFUL.format(**parts)).fetchone()
        change.doubtful = row[0] if row else 0
    return change


def _near(connection: psycopg.Connection, writer: TimescaleWriter, work: Work) -> dict[str, dt.datetime]:
    """The stretch of time in which the rows lie that the work is compared with: others' chunks are not looked at."""
    if not work.fragment and not work.scope.height:
        return {"first": instant(0), "last": instant(0)}
    if not work.fragment:
        return {"first": instant(work.scope["start"].min()), "last": instant(work.scope["end"].max())}
    before = connection.execute(
        "SELECT EXISTS (SELECT FROM ingest_units WHERE unit_id = ANY(%s) AND stored > 0)",
        ([unit.id for unit in work.units.values()],),
    ).fetchone()
    if before == (True,) or not writer.rows:
        # Other rules may leave other rows of the same bytes: those stored before are looked for everywhere.
        return {"first": instant(0), "last": instant(MAX_NS)}
    return {"first": instant(writer.first * 1000), "last": instant(writer.last * 1000)}


def _extent(connection: psycopg.Connection, index: sql.Identifier) -> tuple[dt.datetime, dt.datetime] | None:
    """The first and last instant of the rows that go; None when none does."""
    row = connection.execute(sql.SQL("SELECT min({i}), max({i}) FROM hdi_gone").format(i=index)).fetchone()
    return (row[0], row[1]) if row is not None and row[0] is not None else None


def table_of(work: Work) -> sql.Identifier:
    """The table that the work is about."""
    return sql.Identifier(work.schema.table)


def index_of(work: Work) -> tuple[sql.Identifier, sql.Identifier]:
    """Its index time: microseconds, and what is left of them."""
    return sql.Identifier(work.schema.index_time), sql.Identifier(f"{work.schema.index_time}_ns")


def columns_of(work: Work) -> sql.Composed:
    """Its columns."""
    return names_of(list(declared(work.schema)))


def constants(work: Work) -> sql.Composed:
    """The column values that the schema's name implies, of the table ``t``."""
    constants: Mapping[str, str] = {"dataset": work.dataset, **work.name.constants}
    return sql.SQL(" AND ").join(
        sql.SQL("t.{} = {}").format(sql.Identifier(c), sql.Literal(v)) for c, v in constants.items()
    )


def rows_of(writer: TimescaleWriter, work: Work) -> sql.Composed:
    """The rows of the attempt where they lie, as something to select from."""
    if not writer.direct:
        return sql.Composed([FRESH_TABLE])
    index, _ = index_of(work)
    return sql.SQL(
        "(SELECT t.* FROM {} t WHERE {} AND t._unit = ANY(%(mine)s::integer[]) AND t.{} BETWEEN %(first)s AND %(last)s)"
    ).format(table_of(work), constants(work), index)


def mine_of(writer: TimescaleWriter, work: Work) -> dict[str, Any]:
    """The units of the attempt, and the time that its rows span."""
    return {
        "mine": list(work.units), "first": instant(writer.first * 1000), "last": instant(writer.last * 1000),
    }  # fmt: skip


def _equal(work: Work) -> sql.Composed:
    """Whether a stored row ``o`` and a new one ``n`` say the same; a name that was not known is no change."""
    content = [c for c in declared(work.schema) if c not in ("_unit", "_row", "symbol")]
    same = [sql.SQL("o.{c} IS NOT DISTINCT FROM n.{c}").format(c=sql.Identifier(c)) for c in content]
    return sql.SQL(" AND ").join([*same, sql.SQL("(o.symbol = n.symbol) IS NOT FALSE")])


INSERT_ALL = sql.SQL("INSERT INTO {table} ({columns}) SELECT {columns} FROM {fresh} f")
_TAKE_BACK = sql.SQL(
    "DELETE FROM {table} t WHERE {constants} AND t._unit = ANY(%(mine)s::integer[]) "
    "AND t.{index} BETWEEN %(first)s AND %(last)s"
)
#: What a complete unit replaces: the rows in its scope, of every publisher and whatever brought them.
_OLD_IN_SCOPE = sql.SQL(
    "CREATE TEMP TABLE hdi_old ON COMMIT DROP AS SELECT t.*, s.unit AS _owner FROM {table} t JOIN hdi_scope s "
    "ON t.instrument_id = s.instrument_id AND (t.{index}, t.{rest}) >= (s.start_time, s.start_time_ns) "
    "AND (t.{index}, t.{rest}) < (s.end_time, s.end_time_ns) WHERE {constants} "
    "AND t.{index} BETWEEN %(first)s AND %(last)s"
)
#: What a fragment is compared with: what the same bytes stored before, and whatever shares a group with its rows.
_OLD_OF_FRAGMENT = sql.SQL(
    "CREATE TEMP TABLE hdi_old ON COMMIT DROP AS SELECT t.*, CASE WHEN t._unit IN "
    "(SELECT unit FROM ingest_units WHERE unit_id = ANY(%(ids)s)) THEN %(number)s::integer END AS _owner "
    "FROM {table} t WHERE {constants} AND t.{index} BETWEEN %(first)s AND %(last)s "
    "AND (t._unit IN (SELECT unit FROM ingest_units WHERE unit_id = ANY(%(ids)s)) "
    "OR ({key}) IN (SELECT {key} FROM {fresh}))"
)
#: Groups in which some stored row and the new one of its place are not equal, or one of them lacks: few, as a rule.
_CHANGED = sql.SQL(
    "CREATE TEMP TABLE hdi_changed ON COMMIT DROP AS SELECT DISTINCT {key} "
    "FROM (SELECT *, row_number() OVER (PARTITION BY {key} ORDER BY _unit, _row) AS _nth FROM hdi_old) o FULL JOIN "
    "(SELECT *, row_number() OVER (PARTITION BY {key} ORDER BY _unit, _row) AS _nth FROM {fresh}) n "
    "USING ({key}, _nth) WHERE (o._unit IS NOT NULL AND n._unit IS NOT NULL AND {equal}) IS NOT TRUE"
)
_GONE = sql.SQL(
    "CREATE TEMP TABLE hdi_gone ON COMMIT DROP AS SELECT o.* FROM hdi_old o JOIN hdi_changed c USING ({key}) "
    "WHERE o._owner IS NOT NULL"
)
_KEEP_HISTORY = sql.SQL(
    "INSERT INTO {history} ({past}) SELECT {past} FROM (SELECT g.*, u.run AS _written_run, %(run)s AS _replaced_run, "
    "g._owner AS _replaced_unit, TIMESTAMPTZ 'epoch' + %(now)s * INTERVAL '1 microsecond' AS _replaced_at, "
    "%(now_ns)s::smallint AS _replaced_at_ns FROM hdi_gone g LEFT JOIN "
    "(SELECT DISTINCT ON (unit) unit, run FROM ingest_units ORDER BY unit, seq DESC) u ON u.unit = g._unit) h "
    "ORDER BY {key}, _unit, _row"
)
_DELETE_OLD = sql.SQL(
    "DELETE FROM {table} t USING hdi_gone g WHERE t._unit = g._unit AND t._row = g._row AND t.{index} = g.{index} "
    "AND t.{index} BETWEEN %(first)s AND %(last)s"
)
_INSERT_CHANGED = sql.SQL(
    "INSERT INTO {table} ({columns}) SELECT {columns} FROM {fresh} WHERE ({key}) IN (SELECT {key} FROM hdi_changed)"
)
_UNCHANGED = sql.SQL(
    "SELECT f._unit, count(*) FROM {fresh} f WHERE NOT EXISTS (SELECT FROM hdi_changed c WHERE {same_key}) "
    "GROUP BY f._unit"
)
_SUPERSEDED = sql.SQL("SELECT _owner, count(*) FROM hdi_gone GROUP BY _owner")
_DOUBTFUL = sql.SQL(
    "SELECT count(*) FROM hdi_old o JOIN hdi_changed c USING ({key}) WHERE o._owner IS NULL "
    "AND ({key}) IN (SELECT {key} FROM {fresh})"
)

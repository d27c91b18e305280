"""The commit of one attempt: lock, look, compare, write, keep the books, count, all in one transaction."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import polars as pl
import psycopg
import structlog
from psycopg import sql

from hdi.errors import FragmentRefused, OriginMismatch
from hdi.model import MAX_NS, Receipt, iso_ns
from hdi.stores.receipts import committed_elsewhere, judged, ledger_frame, ledger_row, new_mappings
from hdi.stores.timescaledb.books import COVERED, MICRO, REJECTED, SYMBOLS, UNITS
from hdi.stores.timescaledb.chunks import delete
from hdi.stores.timescaledb.copying import copy_frame
from hdi.stores.timescaledb.editions import without_limit
from hdi.stores.timescaledb.layout import declared, history, version
from hdi.stores.timescaledb.load import FRESH, stage
from hdi.stores.timescaledb.scope import overlapped, stage_scope

if TYPE_CHECKING:
    from hdi.stores import Work
    from hdi.stores.timescaledb import TimescaleDB
    from hdi.stores.timescaledb.load import TimescaleWriter

#: Memory of one sort or hash of the server while rows are compared: a million of them fit.
_WORK_MEM = "128MB"
log = structlog.get_logger(component="Store")


@dataclass
class Change:
    """What became of rows, by unit number."""

    unchanged: dict[int, int] = field(default_factory=dict)
    superseded: dict[int, int] = field(default_factory=dict)
    doubtful: int = 0


def commit(store: TimescaleDB, writer: TimescaleWriter, work: Work, receipts: Sequence[Receipt]) -> list[Receipt]:
    """Commit an attempt, and return the receipts as the store has them."""
    connection = writer.connection
    store.step("lock")
    lock(connection, work)
    store.step("look")
    if (landed := _landed_before(store, connection, work, receipts)) is not None:
        return landed
    _refuse_known(connection, work)
    settle_origin(connection, store, work.origin)
    mine = list(work.units)
    stage_scope(connection, work)
    change = Change()
    if work.fragment:
        _refuse_covered(connection, writer, work)
    if overlapped(connection, work, mine):
        store.step("compare")
        _gather(connection, writer, work)
        change = _compared(connection, store, writer, work)
    elif writer.rows and not writer.direct:
        store.step("write")
        connection.execute(_INSERT_ALL.format(table=_table(work), columns=_columns(work), fresh=_FRESH))
    store.step("rejects")
    _replace_rejects(connection, work, receipts)
    rejected = _keep_rejects(connection, writer, receipts)
    added = _stored(connection, writer, work)
    store.step("books")
    done = [
        judged(r, added.get(r.number, 0), change.unchanged.get(r.number, 0), change.superseded.get(r.number, 0),
               rejected.get(r.number, 0)) for r in receipts
    ]  # fmt: skip
    _keep_books(connection, work, done)
    store.step("commit")
    _end(store, connection, work, done)
    if change.doubtful:
        log.warning("fragment beside other rows of the same instrument and time", rows=change.doubtful)
    return done


def record(store: TimescaleDB, writer: TimescaleWriter, work: Work, receipts: Sequence[Receipt]) -> None:
    """A commit of receipts without rows: units that failed, with a sample of their rejects."""
    connection = writer.connection
    store.step("lock")
    lock(connection, work)
    if _landed_before(store, connection, work, receipts) is not None:
        return
    settle_origin(connection, store, work.origin)
    stage_scope(connection, work)
    store.step("rejects")
    _replace_rejects(connection, work, receipts)
    _keep_rejects(connection, writer, receipts)
    done = [judged(r, 0, 0, 0, 0) for r in receipts]
    store.step("books")
    copy_frame(connection, UNITS.name, UNITS.to_stored(ledger_frame([ledger_row(r, work.schema.table) for r in done])))
    store.step("commit")
    _end(store, connection, work, done)


def lock(connection: psycopg.Connection, work: Work) -> None:
    """Hold back every other commit of the dataset and schema until this transaction ends."""
    without_limit(connection)
    # A chunk that was just filled has no statistics: the planner takes it for nearly empty, and would loop.
    connection.execute(
        "SELECT set_config('enable_nestloop', 'off', true), set_config('work_mem', %s, true)", (_WORK_MEM,)
    )
    _lock(connection, "scope", work.dataset, work.name.name)


def lock_mappings(connection: psycopg.Connection, dataset: str) -> None:
    """Hold back whoever teaches symbols of the dataset until this transaction ends: their order counts."""
    _lock(connection, "mappings", dataset)


def _lock(connection: psycopg.Connection, *key: str) -> None:
    connection.execute("SET LOCAL lock_timeout = 0")  # whoever holds it is at work: that is waited for
    connection.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || ':hdi:' || %s, 0))", (":".join(key),)
    )
    connection.execute("SET LOCAL lock_timeout TO DEFAULT")


def settle_origin(connection: psycopg.Connection, store: TimescaleDB, origin: str) -> None:
    """Keep the origin of the first commit; of two first commits the second waits for the first.

    Raises StoreError where the layout has become too new since the store was opened.
    """
    version(connection)
    found = connection.execute("SELECT value FROM hdi_meta WHERE key = 'origin'").fetchone()
    if found is None:
        connection.execute("INSERT INTO hdi_meta VALUES ('origin', %s) ON CONFLICT (key) DO NOTHING", (origin,))
        found = connection.execute("SELECT value FROM hdi_meta WHERE key = 'origin'").fetchone()
    if found is not None and found[0] != origin:
        raise OriginMismatch(
            f"{store.url} holds {found[0]} data; this is {origin}",
            "Rows of two origins never share a store: name another one.",
        )


def _landed_before(
    store: TimescaleDB, connection: psycopg.Connection, work: Work, receipts: Sequence[Receipt]
) -> list[Receipt] | None:
    """The receipts of a commit through this handle that has landed after all, though its answer was lost."""
    numbers = {r.number: r for r in receipts}
    if not numbers or not numbers.keys() <= store.unsettled:
        return None
    rows = connection.execute(
        "SELECT unit, stored, unchanged, superseded, (extract(epoch FROM committed_at) * 1000000)::bigint * 1000 "
        "+ committed_at_ns FROM ingest_units WHERE unit = ANY(%s) AND run = %s",
        (list(numbers), work.run),
    ).fetchall()
    if len(rows) < len(numbers):
        return None
    log.warning("the commit had landed before its answer was lost; it stands", run=work.run)
    names = ("stored", "unchanged", "superseded", "committed_at")
    kept = {unit: dict(zip(names, found, strict=True)) for unit, *found in rows}
    return [replace(r, **kept[n]) for n, r in numbers.items()]


def _refuse_known(connection: psycopg.Connection, work: Work) -> None:
    ids = [unit.id for unit in work.units.values()]
    used: dict[str, int] = dict(
        connection.execute(
            "SELECT unit_id, max(unit) FROM ingest_units WHERE unit_id = ANY(%s) GROUP BY unit_id", (ids,)
        ).fetchall()
    )
    for number, unit in work.units.items():
        if used.get(unit.id, -1) >= number:
            raise committed_elsewhere(number, unit)


def _refuse_covered(connection: psycopg.Connection, writer: TimescaleWriter, work: Work) -> None:
    """A fragment may not add rows where a complete unit has answered already."""
    if not writer.rows:
        return
    index, rest = _index(work)
    held = connection.execute(
        _COVERED.format(rows=_rows(writer, work), index=index, rest=rest),
        {"dataset": work.dataset, "schema": work.name.name, **_mine(writer, work)},
    ).fetchone()
    if held is not None:
        symbol, instrument, at, ns = held
        instant = pl.Series([at]).cast(pl.Datetime("us", "UTC")).to_physical()[0] * 1000 + ns
        raise FragmentRefused(
            f"the file is a fragment, and a complete unit ({symbol}) holds instrument {instrument} at "
            f"{iso_ns(instant)} already",
            "Nothing of it was stored; what is stored there is complete.",
        )


def _gather(connection: psycopg.Connection, writer: TimescaleWriter, work: Work) -> None:
    """See that the rows of the attempt lie in the temporary table, wherever they were sent."""
    if writer.direct:
        # Somebody committed in between, or instruments came that nobody foresaw.
        known = _mine(writer, work)
        stage(connection, work.schema.table)
        rows, columns = _rows(writer, work), _columns(work)
        connection.execute(_INSERT_ALL.format(table=_FRESH, columns=columns, fresh=rows), known)
        index, _ = _index(work)
        parts = {"index": index, "constants": constants(work)}
        delete(connection, work.schema, (known["first"], known["last"]), _TAKE_BACK, parts, known)
        writer.direct = False
    elif not writer.rows:
        stage(connection, work.schema.table)


def _compared(connection: psycopg.Connection, store: TimescaleDB, writer: TimescaleWriter, work: Work) -> Change:
    """Compare with what is stored, group by group; keep what is equal, and replace the rest."""
    ids = [unit.id for unit in work.units.values()]
    index, rest = _index(work)
    known: dict[str, Any] = {
        "dataset": work.dataset, "ids": ids, "number": next(iter(work.units)), "run": work.run,
        "now": time.time_ns() // 1000, "now_ns": time.time_ns() % 1000, **_near(connection, writer, work),
    }  # fmt: skip
    key = (work.schema.index_time, f"{work.schema.index_time}_ns", "publisher_id", "instrument_id")
    parts = {
        "table": _table(work), "columns": _columns(work), "fresh": _FRESH, "index": index, "rest": rest,
        "history": sql.Identifier(f"{work.schema.table}_history"), "constants": constants(work),
        "key": _list(key),
        "same_key": sql.SQL(" AND ").join(sql.SQL("f.{c} = c.{c}").format(c=sql.Identifier(c)) for c in key),
        "equal": _equal(work),
    }  # fmt: skip
    connection.execute((_OLD_OF_FRAGMENT if work.fragment else _OLD_IN_SCOPE).format(**parts), known)
    if connection.execute("SELECT EXISTS (SELECT FROM hdi_old)").fetchone() == (False,):
        store.step("write")
        connection.execute(_INSERT_ALL.format(**parts))
        return Change()
    for table in (sql.Identifier("hdi_old"), _FRESH):
        connection.execute(sql.SQL("ANALYZE {}").format(table))
    connection.execute(_CHANGED.format(**parts))
    connection.execute(sql.SQL("ANALYZE hdi_changed"))
    connection.execute(_GONE.format(**parts))
    connection.execute(sql.SQL("ANALYZE hdi_gone"))
    store.step("write")
    connection.execute(_KEEP_HISTORY.format(**parts, past=_list(list(history(work.schema)))), known)
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
        return {"first": _time(0), "last": _time(0)}
    if not work.fragment:
        return {"first": _time(work.scope["start"].min()), "last": _time(work.scope["end"].max())}
    before = connection.execute(
        "SELECT EXISTS (SELECT FROM ingest_units WHERE unit_id = ANY(%s) AND stored > 0)",
        ([unit.id for unit in work.units.values()],),
    ).fetchone()
    if before == (True,) or not writer.rows:
        # Other rules may leave other rows of the same bytes: those stored before are looked for everywhere.
        return {"first": _time(0), "last": _time(MAX_NS)}
    return {"first": _time(writer.first * 1000), "last": _time(writer.last * 1000)}


def _extent(connection: psycopg.Connection, index: sql.Identifier) -> tuple[dt.datetime, dt.datetime] | None:
    """The first and last instant of the rows that go; None when none does."""
    row = connection.execute(sql.SQL("SELECT min({i}), max({i}) FROM hdi_gone").format(i=index)).fetchone()
    return (row[0], row[1]) if row is not None and row[0] is not None else None


def _time(ns: Any) -> dt.datetime:
    """The microsecond that an instant lies in."""
    found: dt.datetime = pl.Series([int(ns) // 1000]).cast(MICRO)[0]
    return found


def _stored(connection: psycopg.Connection, writer: TimescaleWriter, work: Work) -> dict[int, int]:
    """Rows by unit number, counted in the table."""
    if not writer.rows:
        return {}
    index, _ = _index(work)
    connection.execute("SET LOCAL enable_sort = off")  # for the same reason: it would sort to count
    counted = connection.execute(
        _COUNT.format(table=_table(work), index=index, constants=constants(work)), _mine(writer, work)
    )
    return dict(counted.fetchall())


def _replace_rejects(connection: psycopg.Connection, work: Work, receipts: Sequence[Receipt]) -> None:
    """Remove the rejects that the commit replaces: those of its units, and those inside its scope.

    A row outside its own unit's window is no part of the scope of another unit.
    """
    ids: dict[bool, list[str]] = {True: [], False: []}
    for receipt in receipts:
        ids[receipt.status == "failed"].append(receipt.unit.id)
    connection.execute(
        "DELETE FROM quarantine WHERE unit_id = ANY(%s) OR (unit_id = ANY(%s) AND failed)", (ids[False], ids[True])
    )
    connection.execute(
        "DELETE FROM quarantine q USING hdi_scope s WHERE q.dataset = %s AND q.schema = %s "
        "AND q.instrument_id = s.instrument_id AND (q.index_time, q.index_time_ns) >= (s.start_time, s.start_time_ns) "
        "AND (q.index_time, q.index_time_ns) < (s.end_time, s.end_time_ns) AND 'OUTSIDE_WINDOW' <> ALL(q.rules)",
        (work.dataset, work.name.name),
    )


def _keep_rejects(
    connection: psycopg.Connection, writer: TimescaleWriter, receipts: Sequence[Receipt]
) -> dict[int, int]:
    """Write the rejects with the raw file of their unit's receipt, and count them in the table, by unit."""
    numbers = [r.number for r in receipts]
    files = {r.number: r.raw.path if r.raw else None for r in receipts}
    raw = pl.coalesce("raw_file", pl.col("unit").replace_strict(files, default=None, return_dtype=pl.String))
    for frame in writer.rejects():
        copy_frame(connection, REJECTED.name, REJECTED.to_stored(frame.with_columns(raw_file=raw)))
    return dict(
        connection.execute(
            "SELECT unit, count(*) FROM quarantine WHERE unit = ANY(%s) GROUP BY unit", (numbers,)
        ).fetchall()
    )


def _keep_books(connection: psycopg.Connection, work: Work, receipts: Sequence[Receipt]) -> None:
    rows = [ledger_row(r, work.schema.table) for r in receipts]
    copy_frame(connection, UNITS.name, UNITS.to_stored(ledger_frame(rows)))
    copy_frame(connection, COVERED.name, COVERED.to_stored(work.coverage))
    if work.mappings.height:
        lock_mappings(connection, work.dataset)
        copy_frame(connection, SYMBOLS.name, SYMBOLS.to_stored(new_mappings(work.mappings, _known(connection, work))))


def _known(connection: psycopg.Connection, work: Work) -> pl.DataFrame:
    """The mappings of the symbols, instruments and time of the work, in the order in which they were learned."""
    told = connection.execute(
        sql.SQL(
            "SELECT {} FROM symbol_mappings WHERE dataset = %s AND (symbol = ANY(%s) OR instrument_id = ANY(%s)) "
            "AND start_time <= %s AND end_time >= %s ORDER BY seq"
        ).format(SYMBOLS.columns),
        (
            work.dataset,
            work.mappings["symbol"].unique().to_list(),
            work.mappings["instrument_id"].unique().to_list(),
            _time(work.mappings["end"].max()),
            _time(work.mappings["start"].min()),
        ),
    ).fetchall()
    return SYMBOLS.to_frame(pl.DataFrame(told, schema=SYMBOLS.stored, orient="row"))


def _end(store: TimescaleDB, connection: psycopg.Connection, work: Work, receipts: Sequence[Receipt]) -> None:
    """Commit. Where the connection breaks before the server's answer, the books say what became of it."""
    try:
        connection.commit()
    except psycopg.OperationalError:
        numbers = {r.number for r in receipts}
        store.unsettled |= numbers  # for the next attempt, where the books cannot be read now
        landed = _landed(store, work, receipts)
        store.unsettled -= numbers
        if not landed:
            raise
        log.warning("the connection broke while the server committed; the commit stands", run=work.run)


def _landed(store: TimescaleDB, work: Work, receipts: Sequence[Receipt]) -> bool:
    with store.database.connect() as connection:
        lock(connection, work)  # the broken one holds it until the server has decided
        row = connection.execute(
            "SELECT count(*) FROM ingest_units WHERE unit = ANY(%s) AND run = %s",
            ([r.number for r in receipts], work.run),
        ).fetchone()
        return row == (len(receipts),)


_FRESH = sql.Identifier(FRESH)


def _table(work: Work) -> sql.Identifier:
    return sql.Identifier(work.schema.table)


def _index(work: Work) -> tuple[sql.Identifier, sql.Identifier]:
    return sql.Identifier(work.schema.index_time), sql.Identifier(f"{work.schema.index_time}_ns")


def _list(names: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))


def _columns(work: Work) -> sql.Composed:
    return _list(list(declared(work.schema)))


def constants(work: Work) -> sql.Composed:
    """The column values that the schema's name implies, of the table ``t``."""
    constants: Mapping[str, str] = {"dataset": work.dataset, **work.name.constants}
    return sql.SQL(" AND ").join(
        sql.SQL("t.{} = {}").format(sql.Identifier(c), sql.Literal(v)) for c, v in constants.items()
    )


def _rows(writer: TimescaleWriter, work: Work) -> sql.Composed:
    """The rows of the attempt where they lie, as something to select from."""
    if not writer.direct:
        return sql.Composed([_FRESH])
    index, _ = _index(work)
    return sql.SQL(
        "(SELECT t.* FROM {} t WHERE {} AND t._unit = ANY(%(mine)s::integer[]) AND t.{} BETWEEN %(first)s AND %(last)s)"
    ).format(_table(work), constants(work), index)


def _mine(writer: TimescaleWriter, work: Work) -> dict[str, Any]:
    """The units of the attempt, and the time that its rows span."""
    first, last = pl.Series([writer.first, writer.last]).cast(pl.Datetime("us", "UTC"))
    return {"mine": list(work.units), "first": first, "last": last}


def _equal(work: Work) -> sql.Composed:
    """Whether a stored row ``o`` and a new one ``n`` say the same; a name that was not known is no change."""
    content = [c for c in declared(work.schema) if c not in ("_unit", "_row", "symbol")]
    same = [sql.SQL("o.{c} IS NOT DISTINCT FROM n.{c}").format(c=sql.Identifier(c)) for c in content]
    return sql.SQL(" AND ").join([*same, sql.SQL("(o.symbol = n.symbol) IS NOT FALSE")])


_INSERT_ALL = sql.SQL("INSERT INTO {table} ({columns}) SELECT {columns} FROM {fresh} f")
_TAKE_BACK = sql.SQL(
    "DELETE FROM {table} t WHERE {constants} AND t._unit = ANY(%(mine)s::integer[]) "
    "AND t.{index} BETWEEN %(first)s AND %(last)s"
)
_COUNT = sql.SQL(
    "SELECT t._unit, count(*) FROM {table} t WHERE {constants} AND t._unit = ANY(%(mine)s::integer[]) "
    "AND t.{index} BETWEEN %(first)s AND %(last)s GROUP BY t._unit"
)
_COVERED = sql.SQL(
    "SELECT c.symbol, f.instrument_id, f.{index}, f.{rest} FROM {rows} f JOIN coverage c "
    "ON c.instrument_id = f.instrument_id AND (f.{index}, f.{rest}) >= (c.start_time, c.start_time_ns) "
    "AND (f.{index}, f.{rest}) < (c.end_time, c.end_time_ns) "
    "WHERE c.dataset = %(dataset)s AND c.schema = %(schema)s "
    "ORDER BY f.{index}, f.{rest}, f.instrument_id, c.seq DESC LIMIT 1"
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

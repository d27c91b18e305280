"""The commit of one attempt: lock, look, compare, write, keep the books, count, all in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl
import psycopg
import structlog
from psycopg import sql

from hdi.errors import FragmentRefused, OriginMismatch
from hdi.frames import BROUGHT
from hdi.model import Receipt, iso_ns
from hdi.stores.receipts import (
    committed_elsewhere,
    judged,
    ledger_frame,
    ledger_row,
    moment,
    new_conditions,
    new_mappings,
)
from hdi.stores.timescaledb.books import COVERED, MICRO, REJECTED, SAID, SYMBOLS, UNITS, instant, names_of, whole_ns
from hdi.stores.timescaledb.compare import (
    FRESH_TABLE,
    INSERT_ALL,
    Change,
    columns_of,
    compared,
    constants,
    gather,
    index_of,
    mine_of,
    rows_of,
    table_of,
)
from hdi.stores.timescaledb.copying import copy_frame
from hdi.stores.timescaledb.editions import without_limit
from hdi.stores.timescaledb.layout import hold, version
from hdi.stores.timescaledb.scope import overlapped, stage_scope

if TYPE_CHECKING:
    from hdi.stores import Work
    from hdi.stores.timescaledb import TimescaleDB
    from hdi.stores.timescaledb.load import TimescaleWriter

#: Memory of one sort or hash of the server while rows are compared: a million of them fit.
_WORK_MEM = "128MB"
log = structlog.get_logger(component="Store")


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
        gather(connection, writer, work)
        change = compared(connection, store, writer, work)
    elif writer.rows and not writer.direct:
        store.step("write")
        connection.execute(INSERT_ALL.format(table=table_of(work), columns=columns_of(work), fresh=FRESH_TABLE))
    store.step("rejects")
    _replace_rejects(connection, work, receipts)
    rejected = _keep_rejects(connection, writer, receipts)
    added = _stored(connection, writer, work)
    store.step("books")
    at = _moment(connection, work)
    done = [
        judged(r, added.get(r.number, 0), change.unchanged.get(r.number, 0), change.superseded.get(r.number, 0),
               rejected.get(r.number, 0), at) for r in receipts
    ]  # fmt: skip
    _keep_books(connection, work, done)
    store.step("commit")
    _end(store, connection, work, done)
    if change.doubtful:
        log.warning("fragment beside other rows of the same instrument and time", rows=change.doubtful)
    return done


def record(store: TimescaleDB, writer: TimescaleWriter, work: Work, receipts: Sequence[Receipt]) -> None:
    """A commit of receipts without rows: units that failed, with a sample of their rejects, or were only ordered."""
    connection = writer.connection
    work = replace(work, coverage=work.coverage.clear())  # they claim nothing
    store.step("lock")
    lock(connection, work)
    if _landed_before(store, connection, work, receipts) is not None:
        return
    settle_origin(connection, store, work.origin)
    stage_scope(connection, work)
    store.step("rejects")
    _replace_rejects(connection, work, receipts)
    _keep_rejects(connection, writer, receipts)
    at = _moment(connection, work)
    done = [judged(r, 0, 0, 0, 0, at) for r in receipts]
    store.step("books")
    copy_frame(connection, UNITS.name, UNITS.to_stored(ledger_frame([ledger_row(r, work.schema.table) for r in done])))
    _keep_conditions(connection, work)
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


def lock_scope(connection: psycopg.Connection, dataset: str, name: str) -> None:
    """Hold back every commit of a dataset and schema, and nothing else, until this transaction ends."""
    _lock(connection, "scope", dataset, name)


def lock_mappings(connection: psycopg.Connection, dataset: str) -> None:
    """Hold back whoever teaches symbols of the dataset until this transaction ends: their order counts."""
    _lock(connection, "mappings", dataset)


def _lock(connection: psycopg.Connection, *key: str) -> None:
    connection.execute("SET LOCAL lock_timeout = 0")  # whoever holds it is at work: that is waited for
    hold(connection, *key)
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
    index, rest = index_of(work)
    held = connection.execute(
        _COVERED.format(rows=rows_of(writer, work), index=index, rest=rest),
        {"dataset": work.dataset, "schema": work.name.name, **mine_of(writer, work)},
    ).fetchone()
    if held is not None:
        symbol, instrument, at, ns = held
        micro = pl.Series([at]).cast(MICRO).to_physical()[0]
        raise FragmentRefused(
            f"the file is a fragment, and a complete unit ({symbol}) holds instrument {instrument} at "
            f"{iso_ns(micro * 1000 + ns)} already",
            "Nothing of it was stored; what is stored there is complete.",
        )


def _moment(connection: psycopg.Connection, work: Work) -> int:
    """When this commit is made. The lock of the work is held, so that those before it are seen."""
    row = connection.execute(
        sql.SQL("SELECT {} FROM ingest_units WHERE dataset = %s AND schema = %s "
                "ORDER BY committed_at DESC, committed_at_ns DESC LIMIT 1").format(whole_ns("committed_at")),
        (work.dataset, work.name.name),
    ).fetchone()  # fmt: skip
    return moment(row[0] if row else None, work.since)


def _stored(connection: psycopg.Connection, writer: TimescaleWriter, work: Work) -> dict[int, int]:
    """Rows by unit number, counted in the table."""
    if not writer.rows:
        return {}
    index, _ = index_of(work)
    connection.execute("SET LOCAL enable_sort = off")  # for the same reason: it would sort to count
    counted = connection.execute(
        _COUNT.format(table=table_of(work), index=index, constants=constants(work)), mine_of(writer, work)
    )
    return dict(counted.fetchall())


def _replace_rejects(connection: psycopg.Connection, work: Work, receipts: Sequence[Receipt]) -> None:
    """Remove the rejects that the commit replaces: those of its units, and those inside its scope.

    A row outside its own unit's window is no part of the scope of another unit.
    """
    brought = [r.unit.id for r in receipts if r.status in BROUGHT]
    failed = [r.unit.id for r in receipts if r.status == "failed"]
    by = receipts[0].number if receipts else None
    _move_rejects(
        connection, sql.SQL("q.unit_id = ANY(%(brought)s) OR (q.unit_id = ANY(%(failed)s) AND q.failed)"),
        {"by": by, "brought": brought, "failed": failed},
    )  # fmt: skip
    _move_rejects(connection, _IN_SCOPE, {"by": by, "dataset": work.dataset, "schema": work.name.name})


def _move_rejects(connection: psycopg.Connection, which: sql.Composable, known: dict[str, Any]) -> None:
    """Move rejects to their history, with a number of the commit that replaces them."""
    columns = names_of(REJECTED.stored)
    connection.execute(
        sql.SQL(
            "WITH gone AS (DELETE FROM quarantine q WHERE {which} RETURNING q.*) "
            "INSERT INTO quarantine_history ({columns}, replaced_unit) SELECT {columns}, %(by)s FROM gone ORDER BY seq"
        ).format(which=which, columns=columns),
        known,
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
        news = new_mappings(work.mappings, _known(connection, work))
        at = max((r.committed_at for r in receipts), default=None)
        copy_frame(connection, SYMBOLS.name, SYMBOLS.to_stored(news.with_columns(learned=pl.lit(at, pl.Int64))))
    _keep_conditions(connection, work)


def _keep_conditions(connection: psycopg.Connection, work: Work) -> None:
    """Keep what is news. Nobody is held back for it: what two learn at once may be kept twice."""
    if not work.conditions.height:
        return
    days = SAID.to_stored(work.conditions)["day"]
    told = connection.execute(
        sql.SQL("SELECT {} FROM day_conditions WHERE dataset = ANY(%s) AND day BETWEEN %s AND %s ORDER BY seq").format(
            SAID.columns
        ),
        (work.conditions["dataset"].unique().to_list(), days.min(), days.max()),
    ).fetchall()
    known = SAID.to_frame(pl.DataFrame(told, schema=SAID.stored, orient="row"))
    copy_frame(connection, SAID.name, SAID.to_stored(new_conditions(work.conditions, known)))


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
            instant(work.mappings["end"].max()),
            instant(work.mappings["start"].min()),
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


_IN_SCOPE = sql.SQL(
    "q.dataset = %(dataset)s AND q.schema = %(schema)s AND 'OUTSIDE_WINDOW' <> ALL(q.rules) AND EXISTS (SELECT FROM "
    "hdi_scope s WHERE q.instrument_id = s.instrument_id AND (q.index_time, q.index_time_ns) >= "
    "(s.start_time, s.start_time_ns) AND (q.index_time, q.index_time_ns) < (s.end_time, s.end_time_ns))"
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

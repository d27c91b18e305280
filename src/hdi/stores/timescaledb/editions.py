"""What an edition of TimescaleDB has: the Apache one neither compression nor policies, the community one both."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import psycopg
import structlog
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hdi.schema import Schema

APACHE, COMMUNITY = "apache", "community"
#: What the server calls its licence.
_EDITIONS = {"apache": APACHE, "timescale": COMMUNITY}
log = structlog.get_logger(component="Store")


def edition(connection: psycopg.Connection) -> str | None:
    """``apache`` or ``community``, as the server says; None where it has no TimescaleDB."""
    row = connection.execute("SELECT current_setting('timescaledb.license', true)").fetchone()
    return _EDITIONS.get(row[0], row[0]) if row and row[0] else None


def compression(connection: psycopg.Connection) -> str:
    """``absent`` from the edition, ``on`` where a policy or a compressed chunk is there, else ``off``."""
    if edition(connection) != COMMUNITY:
        return "absent"
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM timescaledb_information.jobs WHERE proc_name LIKE 'policy_compression%' "
        "AND hypertable_schema = current_schema()) OR EXISTS (SELECT FROM timescaledb_information.chunks "
        "WHERE is_compressed AND hypertable_schema = current_schema())"
    ).fetchone()
    return "on" if row == (True,) else "off"


def compress(connection: psycopg.Connection, schemas: Iterable[Schema], after_days: int) -> None:
    """Have chunks that are older than that compressed, where the edition can; say so where it cannot."""
    if edition(connection) != COMMUNITY:
        log.warning("compression is asked for by timescaledb.compress, and this edition of TimescaleDB has none")
        return
    set_up: dict[str, dt.timedelta] = dict(
        connection.execute(
            "SELECT hypertable_name, (config ->> 'compress_after')::interval FROM timescaledb_information.jobs "
            "WHERE proc_name LIKE 'policy_compression%' AND hypertable_schema = current_schema()"
        ).fetchall()
    )
    for schema in schemas:
        if schema.table in set_up:
            # It takes the table's owner, and a policy that people have changed is theirs.
            if set_up[schema.table] != dt.timedelta(days=after_days):
                log.warning(
                    "the compression policy differs and stays", table=schema.table, after=str(set_up[schema.table])
                )
            continue
        for statement in compression_of(schema, after_days):
            connection.execute(statement)


def compression_of(schema: Schema, after_days: int) -> list[sql.Composed]:
    """The statements that set up the compression of one table; done again they change nothing.

    The names are those that versions before and after "columnstore" know.
    """
    by = ", ".join((*schema.partition, "instrument_id"))
    order = f"{schema.index_time}, {schema.index_time}_ns"
    table = sql.Identifier(schema.table)
    return [
        sql.SQL(
            "ALTER TABLE {} SET (timescaledb.compress, timescaledb.compress_segmentby = {}, "
            "timescaledb.compress_orderby = {})"
        ).format(table, sql.Literal(by), sql.Literal(order)),
        sql.SQL(
            "SELECT add_compression_policy({}, compress_after => {} * INTERVAL '1 day', if_not_exists => true)"
        ).format(sql.Literal(schema.table), sql.Literal(after_days)),
    ]


def without_limit(connection: psycopg.Connection) -> None:
    """Let this transaction replace rows of compressed chunks, however many; editions without them lack the setting."""
    connection.execute(
        "SELECT set_config(name, '0', true) FROM pg_settings "
        "WHERE name = 'timescaledb.max_tuples_decompressed_per_dml_transaction'"
    )

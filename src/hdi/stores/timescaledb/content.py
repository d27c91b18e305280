"""How many rows there are of what: counted by the server, in one statement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
from psycopg import sql

from hdi.stores.held import Held
from hdi.stores.timescaledb.books import instant, times_of, whole_ns
from hdi.stores.timescaledb.read import among
from hdi.symbology import merge

if TYPE_CHECKING:
    from hdi.model import Window
    from hdi.schema import Schema


def query(
    schema: Schema, name: str, window: Window, instruments: pl.DataFrame | None, every: int, dataset: str | None
) -> sql.Composed:  # fmt: skip
    """The statement for :data:`hdi.frames.CONTENT`, in no order."""
    held = Held(window, instruments)
    where = [among(schema, schema.names[name].constants, window, held, dataset), edges(schema, window)]
    joined = within(schema, instruments) if instruments is not None and held.by_time else sql.SQL("")
    return _COUNT.format(
        ns=whole_ns(schema.index_time, of="t"), every=sql.Literal(every), table=sql.Identifier(schema.table),
        within=joined, where=sql.SQL(" AND ").join(where),
    )  # fmt: skip


def edges(schema: Schema, window: Window) -> sql.Composed:
    """The window to the nanosecond."""
    return sql.SQL("({i}, {r}) >= ({a}, {b}) AND ({i}, {r}) < ({c}, {d})").format(
        i=sql.Identifier(schema.index_time), r=sql.Identifier(f"{schema.index_time}_ns"),
        a=sql.Literal(instant(window.start)), b=sql.Literal(window.start % 1000),
        c=sql.Literal(instant(window.end)), d=sql.Literal(window.end % 1000),
    )  # fmt: skip


def within(schema: Schema, instruments: pl.DataFrame) -> sql.Composed:
    """A join with the rectangles; those that touch are one, so that a row meets one."""
    parts = [
        merge(part).with_columns(dataset=pl.lit(name)) for (name,), part in instruments.group_by("dataset")
    ]  # fmt: skip
    columns = pl.concat(part.select(*_LISTS) for part in parts)
    lists = (sql.SQL("{}::" + kind).format(sql.Literal(columns[c].to_list())) for c, kind in _LISTS.items())
    return _WITHIN.format(
        lists=sql.SQL(", ").join(lists), times=sql.SQL(", ").join([*times_of(sql.SQL("a"), "a").values(),
                                                                  *times_of(sql.SQL("b"), "b").values()]),
        index=sql.Identifier(schema.index_time), rest=sql.Identifier(f"{schema.index_time}_ns"),
    )  # fmt: skip


_LISTS = {"dataset": "text[]", "instrument_id": "bigint[]", "start": "bigint[]", "end": "bigint[]"}
_COUNT = sql.SQL(
    "SELECT t.dataset, t.instrument_id, {ns} / {every} * {every} AS at, count(*) AS rows, min({ns}) AS first, "
    "max({ns}) AS last FROM (SELECT * FROM {table} WHERE {where}) t {within} GROUP BY 1, 2, 3"
)
_WITHIN = sql.SQL(
    "JOIN (SELECT d, i, {times} FROM unnest({lists}) AS given (d, i, a, b) OFFSET 0) AS w (d, i, a, a_ns, b, b_ns) "
    "ON w.d = t.dataset AND w.i = t.instrument_id "
    "AND (t.{index}, t.{rest}) >= (w.a, w.a_ns) AND (t.{index}, t.{rest}) < (w.b, w.b_ns)"
)

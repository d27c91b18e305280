"""Definitions of a database as instruments with validity intervals: one statement, for the view and for the store.

The rule is that of :mod:`hdi.stores.instruments`. Only hashes are sorted; the content of a run is fetched for its first
message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import polars as pl
from psycopg import sql

from hdi.stores.instruments import columns, content, named, shown
from hdi.stores.timescaledb.books import names_of, whole_ns
from hdi.symbology import merge

if TYPE_CHECKING:
    from hdi.model import Window
    from hdi.schema import Schema
    from hdi.stores.timescaledb.connect import Database


def runs(
    schema: Schema, names: sql.Composable, where: sql.Composable | None = None, source: sql.Composable | None = None
) -> sql.Composed:  # fmt: skip
    """The runs of equal definitions as a query: known_from and known_until in nanoseconds, and what is shown.

    ``names`` is a query for the raw symbols of instruments (dataset, symbol, instrument_id, spans: nanoseconds);
    ``where`` limits the rows that are looked at, by their instrument; ``source`` is a query for other rows than those
    of the table (:func:`table_at`).
    """
    index = schema.index_time
    return _RUNS.format(
        table=source or sql.Identifier(schema.table), ns=whole_ns("at"), where=where or sql.SQL("true"),
        index=sql.Identifier(index), rest=sql.Identifier(f"{index}_ns"), names=names,
        content=names_of(_stored(schema, content(schema))),
        shown=sql.SQL("").join(sql.SQL(", d.{}").format(sql.Identifier(c)) for c in _stored(schema, shown(schema))),
    )  # fmt: skip


def table_at(schema: Schema, later: Sequence[int]) -> sql.Composed:
    """The rows of a table as they were before some units came."""
    columns = names_of(c for c in schema.stored)
    return sql.SQL(
        "(SELECT {c} FROM {t} WHERE _unit <> ALL({u}::integer[]) UNION ALL SELECT {c} FROM {h} "
        "WHERE _replaced_unit = ANY({u}::integer[]) AND _unit <> ALL({u}::integer[]))"
    ).format(
        c=columns, t=sql.Identifier(schema.table), h=sql.Identifier(f"{schema.table}_history"),
        u=sql.Literal(list(later)),
    )  # fmt: skip


def names_at(mappings: pl.DataFrame) -> sql.Composed:
    """A query for the raw symbols of instruments, as :func:`runs` takes it, of these mappings."""
    kinds = {"dataset": "text[]", "raw_symbol": "text[]", "instrument_id": "bigint[]", "start": "bigint[]",
             "end": "bigint[]"}  # fmt: skip
    parts = [named(mappings, d).with_columns(dataset=pl.lit(d)) for d in mappings["dataset"].unique().sort()]
    columns = {c: [v for part in parts for v in part[c]] for c in kinds}
    lists = (sql.SQL("{}::" + kind).format(sql.Literal(columns[c])) for c, kind in kinds.items())
    return sql.SQL(
        "SELECT d AS dataset, s AS symbol, i AS instrument_id, range_agg(int8range(a, b)) AS spans "
        "FROM unnest({}) AS known (d, s, i, a, b) GROUP BY d, s, i"
    ).format(sql.SQL(", ").join(lists))


def _stored(schema: Schema, public: Sequence[str]) -> list[str]:
    return [n for c in public for n in (c, f"{c}_ns") if n in schema.stored]


def frames(
    database: Database,
    query: Callable[[sql.Composable], sql.Composable],
    schema: Schema,
    dataset: str | None,
    window: Window,
    instruments: pl.DataFrame | None,
) -> Iterator[pl.DataFrame]:
    """See :meth:`hdi.stores.Store.instruments`; ``query`` makes :func:`runs` of a condition."""
    if instruments is not None and instruments.is_empty():
        return
    stored = _stored(schema, shown(schema))
    head = ("dataset", "publisher_id", "instrument_id", "raw_symbol", "definitions")
    wanted = columns(schema)
    asked = sql.SQL("SELECT {}, known_from, known_until FROM ({}) r WHERE {}").format(
        names_of((*head, *stored)), query(_of(dataset, instruments)), _known(window, instruments)
    )
    times = [pl.col(c).cast(pl.Int64).cast(wanted[c]).alias(c) for c in ("known_from", "known_until")]
    public = [e for e in schema.to_public() if e.meta.output_name() in wanted and e.meta.output_name() not in head]
    for batch in database.batches(asked):
        found = pl.DataFrame(batch)
        plain = found.with_columns(pl.col(c).cast(schema.stored[c]) for c in stored)
        told = plain.select(*(pl.col(c).cast(wanted[c]) for c in head), *times, *public)
        if told.height:
            yield told.select(*wanted)


def _of(dataset: str | None, instruments: pl.DataFrame | None) -> sql.Composed:
    """The definitions of these instruments, at whatever time: what comes before and after decides."""
    parts: list[sql.Composable] = [sql.SQL("true")]
    if dataset is not None:
        parts.append(sql.SQL("dataset = {}").format(sql.Literal(dataset)))
    if instruments is not None:
        each = instruments.select("dataset", "instrument_id").unique().sort("dataset", "instrument_id")
        lists = [sql.Literal(each[c].to_list()) for c in each.columns]
        parts.append(
            sql.SQL("(dataset, instrument_id) IN (SELECT * FROM unnest({}::text[], {}::bigint[]))").format(*lists)
        )
    return sql.SQL(" AND ").join(parts)


def _known(window: Window, instruments: pl.DataFrame | None) -> sql.Composed:
    """The runs that are known in the window, and in the rectangles of their instrument."""
    inside = sql.SQL("known_until > {} AND known_from < {}").format(
        sql.Literal(window.start), sql.Literal(window.end)
    )  # fmt: skip
    if instruments is None:
        return inside
    parts = [
        merge(part).with_columns(dataset=pl.lit(str(name))) for (name,), part in instruments.group_by("dataset")
    ]  # fmt: skip
    held = pl.concat(part.select(*_LISTS) for part in parts).with_columns(
        pl.col("start").clip(lower_bound=window.start), pl.col("end").clip(upper_bound=window.end)
    )  # fmt: skip
    held = held.filter(pl.col("start") < pl.col("end"))
    lists = (sql.SQL("{}::" + kind).format(sql.Literal(held[c].to_list())) for c, kind in _LISTS.items())
    met = sql.SQL(
        "EXISTS (SELECT FROM unnest({}) w (d, i, a, b) WHERE w.d = r.dataset AND w.i = r.instrument_id "
        "AND r.known_until > w.a AND r.known_from < w.b)"
    )
    return sql.SQL("{} AND {}").format(inside, met.format(sql.SQL(", ").join(lists)))


_LISTS = {"dataset": "text[]", "instrument_id": "bigint[]", "start": "bigint[]", "end": "bigint[]"}
# A message has a row for each leg; the same row twice says no more than once. What a run ends with, and how many
# messages it has, stands where the next one begins.
_RUNS = sql.SQL(
    """SELECT d.dataset, d.publisher_id, d.instrument_id, d.raw_symbol, f.definitions, f.ns AS known_from,
        CASE WHEN f.next_symbol = d.raw_symbol THEN f.next_ns
            ELSE least(f.next_ns, greatest(f.last + 1, (
                SELECT max(upper(span)) FROM unnest(n.spans) span WHERE lower(span) <= f.last
            ))) END AS known_until{shown}
    FROM (
        SELECT dataset, publisher_id, instrument_id, raw_symbol, at, at_ns, ns, place,
            lead(ns) OVER w AS next_ns, lead(raw_symbol) OVER w AS next_symbol,
            coalesce(lead(ended) OVER w, final) AS last, coalesce(lead(nth) OVER w, total + 1) - nth AS definitions
        FROM (
            SELECT *, lag(ns) OVER v AS ended, row_number() OVER v AS nth, lag(hash) OVER v AS before,
                max(ns) OVER p AS final, count(*) OVER p AS total
            FROM (
                SELECT dataset, publisher_id, instrument_id, at, at_ns, {ns} AS ns, min(raw_symbol) AS raw_symbol,
                    bit_xor(DISTINCT hash) AS hash, min(place) AS place
                FROM (
                    SELECT dataset, publisher_id, instrument_id, raw_symbol, {index} AS at, {rest} AS at_ns,
                        (_unit::bigint << 32) + _row AS place, hash_record_extended(ROW({content}), 0) AS hash
                    FROM {table} t WHERE {where}
                ) h GROUP BY dataset, publisher_id, instrument_id, at, at_ns
            ) m
            WINDOW p AS (PARTITION BY dataset, publisher_id, instrument_id),
                v AS (PARTITION BY dataset, publisher_id, instrument_id ORDER BY at, at_ns)
        ) b WHERE nth = 1 OR hash <> before
        WINDOW w AS (PARTITION BY dataset, publisher_id, instrument_id ORDER BY at, at_ns)
    ) f
    JOIN {table} d ON d.dataset = f.dataset AND d.instrument_id = f.instrument_id
        AND d.publisher_id = f.publisher_id AND d.{index} = f.at AND d.{rest} = f.at_ns
        AND (d._unit::bigint << 32) + d._row = f.place
    LEFT JOIN ({names}) n
        ON n.dataset = d.dataset AND n.instrument_id = d.instrument_id AND n.symbol = d.raw_symbol"""
)

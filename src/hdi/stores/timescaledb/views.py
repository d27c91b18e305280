"""Views for people with SQL: rows by any symbol and date, daily bars, instruments, runs.

All derive from the schemas and the books; none holds data. They check the rights of who asks (security_invoker), so a
view never shows more than the tables do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import psycopg
from psycopg import sql

from hdi.schema import PLACE, Schema, Schemas
from hdi.stores.instruments import DEFINITION, shown
from hdi.stores.timescaledb.books import TYPES, names_of, times_of, whole_ns
from hdi.stores.timescaledb.instruments import runs
from hdi.symbology import ALL_SYMBOLS

#: Bars of this name are the compatibility view.
DAILY = "ohlcv-1d"
#: Of two mappings that name the same instrument (for a continuous symbol: two instruments), the later counts.
_CONTRADICTS = {"raw_symbol": ("instrument_id", "symbol"), "continuous": ("symbol", "instrument_id")}
#: The columns of a view that is there already, by its name: those stay in front, as PostgreSQL wants it.
There = Mapping[str, Sequence[str]]
Columns = dict[str, sql.Composable]


def views(schemas: Schemas, there: There | None = None) -> list[tuple[str, sql.Composable]]:
    """(name, CREATE OR REPLACE VIEW statement) of every view, each after those that it reads.

    ``there`` are the columns of the views as they are (:func:`columns_of`): new ones come after them, so that a view
    grows where it stands, with the rights and the views that others have on it.
    """
    head = sql.SQL("CREATE OR REPLACE VIEW {} WITH (security_invoker = true) AS {}")
    return [(name, head.format(sql.Identifier(name), body)) for name, body in bodies(schemas, there)]


def bodies(schemas: Schemas, there: There | None = None) -> list[tuple[str, sql.Composable]]:
    """(name, query) of every view, each after those that it reads."""
    there = there or {}
    named = [("standing_mappings", _standing()), *_of_tables(schemas, there), ("ingest_runs", _RUNS)]
    definition = _holding(schemas, DEFINITION)
    if definition is not None:
        named.append(("instruments", _instruments(definition, there.get("instruments", ()))))
    return named


def columns_of(connection: psycopg.Connection) -> dict[str, list[str]]:
    """The columns of every view of the store's schema, in their order."""
    rows = connection.execute(
        "SELECT c.relname, array_agg(a.attname::text ORDER BY a.attnum) FROM pg_class c "
        "JOIN pg_attribute a ON a.attrelid = c.oid WHERE c.relnamespace = current_schema()::regnamespace "
        "AND c.relkind = 'v' AND a.attnum > 0 GROUP BY c.relname"
    ).fetchall()
    return dict(rows)


def _of_tables(schemas: Schemas, there: There) -> Iterator[tuple[str, sql.Composable]]:
    daily = _holding(schemas, DAILY)
    if daily is not None:
        name = f"daily_{daily.table}"
        yield name, _constant(daily, DAILY, there.get(name, ()))
    for schema in schemas:
        name = f"{schema.table}_by_symbol"
        yield name, _by_symbol(schema, there.get(name, ()))


def _holding(schemas: Schemas, name: str) -> Schema | None:
    return next((s for s in schemas if name in s.names), None)


def _columns(schema: Schema) -> Columns:
    """The public columns of a table that is called ``t``; a null symbol is the one that the mappings know by now."""
    shown: Columns = {c: sql.Identifier("t", c) for c in schema.stored if c not in PLACE}
    return shown | {"symbol": _name(schema)}


def _list(columns: Columns, first: Sequence[str] = ()) -> sql.Composed:
    """The columns for a select, those named ``first`` before the others."""
    order = [*(c for c in first if c in columns), *(c for c in columns if c not in first)]
    return sql.SQL(", ").join(sql.SQL("{} AS {}").format(columns[c], sql.Identifier(c)) for c in order)


def _name(schema: Schema) -> sql.Composed:
    return sql.SQL(
        """COALESCE(t.symbol, (
            SELECT n.symbol FROM symbol_mappings n
            WHERE n.dataset = t.dataset AND n.stype = 'raw_symbol' AND n.instrument_id = t.instrument_id AND {}
            ORDER BY n.seq DESC LIMIT 1))"""
    ).format(_within(schema, "n"))


def _within(schema: Schema, mapping: str) -> sql.Composable:
    """The index time of ``t`` lies in the interval of the mapping, to the nanosecond."""
    return sql.SQL("(t.{time}, t.{rest}) >= ({m}.start_time, {m}.start_time_ns) "
                   "AND (t.{time}, t.{rest}) < ({m}.end_time, {m}.end_time_ns)").format(
        time=sql.Identifier(schema.index_time), rest=sql.Identifier(f"{schema.index_time}_ns"),
        m=sql.Identifier(mapping),
    )  # fmt: skip


def _constant(schema: Schema, name: str, there: Sequence[str]) -> sql.Composable:
    implied = schema.names[name].constants.items()
    where = sql.SQL(" AND ").join(sql.SQL("t.{} = {}").format(sql.Identifier(c), sql.Literal(v)) for c, v in implied)
    return sql.SQL("SELECT {} FROM {} t WHERE {}").format(
        _list(_columns(schema), there), sql.Identifier(schema.table), where
    )


def _by_symbol(schema: Schema, there: Sequence[str]) -> sql.Composable:
    asked: Columns = {"asked_symbol": sql.Identifier("m", "symbol"), "asked_stype": sql.Identifier("m", "stype")}
    return sql.SQL(
        """SELECT {columns}
        FROM {table} t JOIN standing_mappings m
        ON m.dataset = t.dataset AND m.instrument_id = t.instrument_id AND {within}"""
    ).format(
        columns=_list(asked | _columns(schema), there), table=sql.Identifier(schema.table), within=_within(schema, "m")
    )


def _standing() -> sql.Composable:
    """What each symbol stands for, by intervals that neither overlap nor contradict; see :mod:`hdi.lookup`.

    A symbol of several types is one symbol: its rows come once. Times with their nanoseconds are counted as one BIGINT
    in between, as ranges of which PostgreSQL makes unions and differences.
    """
    parts = [_latest(stype, *columns) for stype, columns in _CONTRADICTS.items()]
    parts += [_others(), _claims()]
    # Grouping by the ranges changes no row, and neither does the array: the planner does all this before it joins, and
    # expects few ranges. Otherwise it sorts the rows that it joins, or takes the ranges apart for each of them.
    return sql.SQL(
        """SELECT s.dataset, s.stype, s.symbol, s.instrument_id, {times}
        FROM (
            SELECT dataset, max(stype) AS stype, symbol, instrument_id,
                unnest(ARRAY(SELECT unnest(range_agg(spans)))) AS span
            FROM ({parts}) p GROUP BY dataset, symbol, instrument_id
        ) s GROUP BY s.dataset, s.stype, s.symbol, s.instrument_id, s.span"""
    ).format(
        times=_list(times_of(sql.SQL("lower(s.span)"), "start_time") | times_of(sql.SQL("upper(s.span)"), "end_time")),
        parts=sql.SQL(" UNION ALL ").join(parts),
    )  # fmt: skip


def _span(of: str) -> sql.Composable:
    """The interval of a row of the books; empty where it ends before it starts."""
    start, end = whole_ns("start_time", of=of), whole_ns("end_time", of=of)
    return sql.SQL("int8range({start}, greatest({start}, {end}))").format(start=start, end=end)


def _latest(stype: str, key: str, value: str) -> sql.Composable:
    """The mappings of a type, each without the times for which a later one of the same key has another value.

    Those that nothing contradicts, nearly all, are joined and no more.
    """
    return sql.SQL(
        """SELECT m.dataset, m.stype, m.symbol, m.instrument_id, CASE
            WHEN NOT EXISTS (
                SELECT FROM symbol_mappings o
                WHERE o.dataset = m.dataset AND o.stype = {stype} AND o.{key} = m.{key} AND o.{value} <> m.{value}
                AND {other} && m.spans
            ) THEN m.spans
            ELSE (
                SELECT range_agg(int8multirange({own}) - COALESCE((
                    SELECT range_agg({other}) FROM symbol_mappings o
                    WHERE o.dataset = m.dataset AND o.stype = {stype} AND o.{key} = m.{key} AND o.{value} <> m.{value}
                    AND o.seq > w.seq AND o.start_time <= w.end_time AND o.end_time >= w.start_time
                ), int8multirange()))
                FROM symbol_mappings w
                WHERE w.dataset = m.dataset AND w.stype = {stype} AND w.symbol = m.symbol
                AND w.instrument_id = m.instrument_id
            ) END AS spans
        FROM (
            SELECT w.dataset, w.stype, w.symbol, w.instrument_id, range_agg({own}) AS spans
            FROM symbol_mappings w WHERE w.stype = {stype}
            GROUP BY w.dataset, w.stype, w.symbol, w.instrument_id
        ) m"""
    ).format(
        stype=sql.Literal(stype), key=sql.Identifier(key), value=sql.Identifier(value), own=_span("w"),
        other=_span("o"),
    )  # fmt: skip


def _others() -> sql.Composable:
    """The mappings of types of which one symbol stands for many instruments at once: none contradicts another."""
    return sql.SQL(
        """SELECT w.dataset, w.stype, w.symbol, w.instrument_id, int8multirange({}) AS spans
        FROM symbol_mappings w WHERE w.stype NOT IN ({})"""
    ).format(_span("w"), sql.SQL(", ").join(map(sql.Literal, _CONTRADICTS)))


def _claims() -> sql.Composable:
    """What came when the symbol was asked for, at the times for which no mapping says what it stood for."""
    return sql.SQL(
        """SELECT c.dataset, c.stype, c.symbol, c.instrument_id, c.spans - COALESCE(k.spans, int8multirange())
        FROM (
            SELECT w.dataset, max(w.stype) AS stype, w.symbol, w.instrument_id, range_agg({own}) AS spans
            FROM coverage w
            WHERE w.instrument_id IS NOT NULL AND w.stype <> 'instrument_id' AND w.symbol NOT IN ('', {all})
            GROUP BY w.dataset, w.symbol, w.instrument_id
        ) c LEFT JOIN (
            SELECT o.dataset, o.symbol, range_agg({other}) AS spans FROM symbol_mappings o GROUP BY o.dataset, o.symbol
        ) k ON k.dataset = c.dataset AND k.symbol = c.symbol"""
    ).format(own=_span("w"), other=_span("o"), all=sql.Literal(ALL_SYMBOLS))


def raw_names() -> sql.Composable:
    """When an instrument had which raw symbol, as a query: dataset, symbol, instrument_id, spans."""
    return _latest("raw_symbol", *_CONTRADICTS["raw_symbol"])


def _instruments(schema: Schema, there: Sequence[str]) -> sql.Composable:
    """One row for each run of equal definitions, and for each stretch of a name that none of them speaks of."""
    key = ("dataset", "instrument_id", "raw_symbol")
    kept = [n for c in shown(schema) for n in (c, f"{c}_ns") if n in schema.stored]
    columns: Columns = {c: sql.Identifier("k", c) for c in key}
    columns |= times_of(sql.SQL("k.known_from"), "known_from") | times_of(sql.SQL("k.known_until"), "known_until")
    columns |= {c: sql.Identifier("k", c) for c in (*kept, "publisher_id", "definitions")}
    unknown = sql.SQL(", ").join(
        sql.SQL("NULL::{} AS {}").format(sql.SQL(TYPES[schema.stored[c]]), sql.Identifier(c)) for c in kept
    )
    return sql.SQL(
        """SELECT {told}
        FROM (
            SELECT {all} FROM ({runs}) r
            UNION ALL
            SELECT m.dataset, m.instrument_id, m.symbol, lower(span), upper(span), {unknown}, NULL, 0
            FROM (
                SELECT s.dataset, s.instrument_id, s.symbol, range_agg({span}) AS spans
                FROM standing_mappings s WHERE s.stype = 'raw_symbol' GROUP BY s.dataset, s.instrument_id, s.symbol
            ) m
            LEFT JOIN (
                SELECT dataset, instrument_id, raw_symbol, min({ns}) AS first, max({ns}) AS last
                FROM {table} GROUP BY dataset, instrument_id, raw_symbol
            ) d ON d.dataset = m.dataset AND d.instrument_id = m.instrument_id AND d.raw_symbol = m.symbol
            LEFT JOIN ({names}) n
                ON n.dataset = m.dataset AND n.instrument_id = m.instrument_id AND n.symbol = m.symbol,
            unnest(CASE WHEN d.first IS NULL THEN m.spans
                ELSE m.spans - int8multirange(int8range(d.first, greatest(d.last + 1, (
                    SELECT max(upper(told)) FROM unnest(n.spans) told WHERE lower(told) <= d.last
                )))) END) span
        ) k"""
    ).format(
        told=_list(columns, there),
        all=names_of((*key, "known_from", "known_until", *kept, "publisher_id", "definitions")),
        runs=runs(schema, raw_names()), names=raw_names(), span=_span("s"), ns=whole_ns(schema.index_time),
        unknown=unknown, table=sql.Identifier(schema.table),
    )  # fmt: skip


#: A unit that was tried again in its run counts each time, as the ledger has a receipt for each.
_RUNS = sql.SQL(
    """SELECT run,
        min(committed_at - seconds * interval '1 second') AS started,
        max(committed_at) AS finished,
        min(origin) AS origin,
        array_agg(DISTINCT dataset ORDER BY dataset) AS datasets,
        array_agg(DISTINCT schema ORDER BY schema) AS schemas,
        count(*) AS units,
        count(*) FILTER (WHERE status = 'failed') AS failed_units,
        sum(fetched)::bigint AS fetched,
        sum(stored)::bigint AS stored,
        sum(quarantined)::bigint AS quarantined,
        sum(unchanged)::bigint AS unchanged,
        sum(superseded)::bigint AS superseded,
        sum(dollars) AS dollars,
        CASE WHEN bool_or(status = 'failed') THEN 'failed' WHEN bool_and(status = 'ordered') THEN 'ordered'
            ELSE 'success' END AS result,
        count(*) FILTER (WHERE status = 'ordered') AS ordered_units
    FROM ingest_units GROUP BY run"""
)

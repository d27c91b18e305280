"""Reading: rows in order, as frames of bounded size; the server sorts and streams, Arrow carries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import polars as pl
from psycopg import sql

from hdi.schema import PLACE
from hdi.stores.held import Held
from hdi.stores.timescaledb.books import instant, names_of

if TYPE_CHECKING:
    from hdi.model import Window
    from hdi.schema import Schema
    from hdi.stores.timescaledb.connect import Database


#: Instruments that are named in the query itself: so many leave rows in the order of the index.
_FEW = 64


class Scan:
    """One read of one table, in one statement, so of one state of the store.

    ``past`` reads, instead of the rows that stand, those that the first units superseded, and that the
    second had not brought.
    """

    def __init__(  # noqa: PLR0913, PLR0917  (what Store.read is given)
        self, database: Database, schema: Schema, name: str, window: Window, instruments: pl.DataFrame | None,
        columns: Sequence[str], dataset: str | None, *, past: tuple[Sequence[int], Sequence[int]] | None = None,
    ) -> None:  # fmt: skip
        self._past = past
        self._database = database
        self._schema = schema
        self._window = window
        self._columns = list(columns)
        self._dataset = dataset
        self._constants = dict(schema.names[name].constants)
        self._held = Held(window, instruments)
        wanted = {*columns, schema.index_time}
        if self._held.by_time:
            wanted |= {"dataset", "instrument_id"}
        public = [f for f in schema.fields if f.name in wanted]
        self._stored = [n for f in public for n in ((f.name, f"{f.name}_ns") if f.type == "timestamp" else (f.name,))]
        names = {f.name for f in public}
        self._public = [e for e in schema.to_public() if e.meta.output_name() in names]
        places = [c for c in PLACE if c in columns]
        self._stored += places
        self._public += [pl.col(c) for c in places]

    def frames(self) -> Iterator[pl.DataFrame]:
        """The rows in order."""
        if self._held.empty:
            return
        kinds = self._schema.stored
        for batch in self._database.batches(self._query()):
            found = pl.DataFrame(batch)
            public = found.select(pl.col(c).cast(kinds[c]) for c in self._stored).select(self._public)
            rows = self._held.inside(public, self._schema.index_time)
            if rows.height:
                yield rows.select(self._columns)

    @property
    def stored(self) -> tuple[str, ...]:
        """The columns that are sent."""
        return tuple(self._stored)

    def chunks(self) -> tuple[int, int]:
        """How many chunks the server's plan of the query names, and of how many of the table."""
        with self._database.session() as connection:
            found = connection.execute(
                "SELECT chunk_name FROM timescaledb_information.chunks WHERE hypertable_name = %s",
                (self._schema.table,),
            )
            known = {name for (name,) in found.fetchall()}
            if self._held.empty:
                return 0, len(known)
            plan = connection.execute(sql.SQL("EXPLAIN (FORMAT JSON) {}").format(self._query())).fetchone()
        return len(known & set(_relations(plan[0] if plan else []))), len(known)

    def _query(self) -> sql.Composed:
        where = among(self._schema, self._constants, self._window, self._held, self._dataset)
        order = [c for n in self._schema.order for c in ((n, f"{n}_ns") if n == self._schema.index_time else (n,))]
        table = self._schema.table
        if self._past is not None:
            table = f"{table}_history"
            where += sql.SQL(" AND _replaced_unit = ANY({}::integer[]) AND _unit <> ALL({}::integer[])").format(
                *(sql.Literal(list(units)) for units in self._past)
            )
        return sql.SQL("SELECT {} FROM {} WHERE {} ORDER BY {}").format(
            names_of(self._stored), sql.Identifier(table), where, names_of(order)
        )


def _relations(plan: object) -> Iterator[str]:
    """The tables that a plan reads, however deep."""
    parts = plan if isinstance(plan, list) else list(plan.values()) if isinstance(plan, dict) else []
    if isinstance(plan, dict) and "Relation Name" in plan:
        yield str(plan["Relation Name"])
    for part in parts:
        yield from _relations(part)


def among(
    schema: Schema, constants: Mapping[str, str], window: Window, held: Held, dataset: str | None
) -> sql.Composed:
    """The rows of a window, to the microsecond, and of the instruments that are wanted in it."""
    index = sql.Identifier(schema.index_time)
    first, last = instant(window.start), instant(window.end + 999)
    where = [sql.SQL("{i} >= {} AND {i} < {}").format(sql.Literal(first), sql.Literal(last), i=index)]
    fixed = {**constants} | ({"dataset": dataset} if dataset is not None else {})
    where += [sql.SQL("{} = {}").format(sql.Identifier(c), sql.Literal(v)) for c, v in fixed.items()]
    if held.ids is not None:
        where.append(_among(held.ids))
    return sql.SQL(" AND ").join(where)


def _among(ids: Mapping[str, pl.Series]) -> sql.Composed:
    """The rows of these instruments; a long list is a query of its own, for constants come into each chunk's plan."""
    few = sum(map(len, ids.values())) <= _FEW
    pairs = [(sql.Literal(d), sql.Literal(i.to_list())) for d, i in ids.items()]
    if few:
        each = (sql.SQL("(dataset = {} AND instrument_id = ANY({}::bigint[]))").format(*pair) for pair in pairs)
        return sql.SQL("({})").format(sql.SQL(" OR ").join(each))
    values = sql.SQL(", ").join(sql.SQL("({}, {}::bigint[])").format(*pair) for pair in pairs)
    return sql.SQL("(dataset, instrument_id) IN (SELECT d, unnest(i) FROM (VALUES {}) AS wanted (d, i))").format(values)

"""Reading: rows in order, as frames of bounded size; the server sorts and streams, Arrow carries."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

import polars as pl
import psycopg
from psycopg import sql

from hdi.model import DAY_NS
from hdi.schema import PLACE
from hdi.stores.ahead import ahead
from hdi.stores.held import Held
from hdi.stores.timescaledb import briefly
from hdi.stores.timescaledb.books import instant, names_of
from hdi.stores.timescaledb.prices import received, sent

if TYPE_CHECKING:
    from psycopg.abc import AdaptContext

    from hdi.model import Window
    from hdi.schema import Schema, SchemaName
    from hdi.stores.timescaledb.connect import Database


#: Instruments that are named in the query itself: so many leave rows in the order of the index.
_FEW = 64
#: One instrument, which the server plans sooner as such than as one of a list. It looks at a row in this order, and
#: numbers are compared sooner than text.
_ONE = sql.SQL("instrument_id = {} AND dataset = {}")
#: Values of an answer that comes by the connection that is there: for so few Arrow takes longer to set up than rows do.
_SMALL = 8_192
#: An answer may be one of those where one instrument's rows of so long are wanted, by how its kind comes. Bars have a
#: width, which says how many they are at most.
_BRIEF = {"day": DAY_NS // 24 // 30, "month": 8 * DAY_NS, "year": 31 * DAY_NS}


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
        needed = ("dataset", "instrument_id") if self._held.by_time else ()
        index = schema.index_time
        self._few_order = tuple(c for n in schema.order for c in ((n, f"{n}_ns") if n == index else (n,)))
        self._order = self._few_order
        self._shape = schema.shape((*columns, schema.index_time, *needed))
        self._prices = tuple(f.name for f in schema.fields if f.type == "price" and f.name in self._shape.names)
        kinds = {**schema.dtypes, **PLACE}
        self._few_columns = {c: kinds[c] for c in self._shape.names}
        # What the condition says of every row is not sent.
        known = {**self._constants, **self._held.one}
        self._known = {c: v for c, v in known.items() if c in self._few_columns}
        self._few = _SMALL // len(self._shape.stored) if self._brief(schema.names[name]) else 0

    def frames(self) -> Iterator[pl.DataFrame]:
        """The rows in order; they are made while the server sends more."""
        if self._held.empty:
            return
        few = self._at_once()
        for rows in ahead(self._made, self._sent()) if few is None else (few,):
            if rows.height:
                yield rows

    def _at_once(self) -> pl.DataFrame | None:
        """All rows, where they may be few and are."""
        if not self._few:
            return None
        # One more than are taken: a longer answer is known by it, and asked for as one.
        try:
            rows = self._database.found(self._query(at_most=self._few + 1))
        except psycopg.ProgrammingError as error:
            if error.sqlstate in briefly.LACKS:
                return None
            raise
        if len(rows) > self._few:
            return None
        return self._inside(briefly.frame(rows, self._few_columns, self._known))

    def _sent(self) -> Generator[pl.DataFrame]:
        """The rows as they are sent, in batches."""
        for batch in self._database.batches(self._query()):
            yield received(batch, self._prices)

    def _brief(self, name: SchemaName) -> bool:
        """True where so few rows are to be expected that they are asked for as such."""
        if self._held.ids is None:
            return False
        span = (self._window.end - self._window.start) * sum(map(len, self._held.ids.values()))
        return span <= (name.width * _SMALL // len(self._shape.stored) if name.width else _BRIEF[name.grid])

    def _made(self, batch: pl.DataFrame) -> pl.DataFrame:
        """The rows of a batch that are wanted."""
        # A few rows are made sooner by one thread than others are woken.
        select = batch.select_seq if batch.height <= _SMALL else batch.select
        return self._inside(select(self._shape.sent))

    def _inside(self, rows: pl.DataFrame) -> pl.DataFrame:
        found = self._held.inside(rows, self._schema.index_time)
        return found if found.columns == self._columns else found[self._columns]

    @property
    def stored(self) -> tuple[str, ...]:
        """The columns that are sent."""
        return self._shape.stored

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

    def _query(self, at_most: int | None = None) -> sql.Composed:
        where = among(self._schema, self._constants, self._window, self._held, self._dataset)
        table = self._schema.table
        if self._past is not None:
            table = f"{table}_history"
            where += sql.SQL(" AND _replaced_unit = ANY({}::integer[]) AND _unit <> ALL({}::integer[])").format(
                *(sql.Literal(list(units)) for units in self._past)
            )
        if at_most is None:
            first, last = _around(table, self._shape.stored, self._order, self._prices)
        else:
            asked = tuple((c, kind) for c, kind in self._few_columns.items() if c not in self._known)
            first, last = _around_few(table, asked, self._few_order)
        limit = sql.Composed([]) if at_most is None else sql.SQL(" LIMIT {}").format(sql.Literal(at_most))
        return sql.Composed([first, where, last, limit])


class _Written(sql.Composable):
    """A part of a statement that was composed before."""

    def as_bytes(self, context: AdaptContext | None = None) -> bytes:
        del context
        written: bytes = self._obj
        return written


@cache
def _around(
    table: str, columns: tuple[str, ...], order: tuple[str, ...], prices: tuple[str, ...]
) -> tuple[_Written, _Written]:
    """What stands around the condition of a read: to write it anew takes as long as to bring a few rows."""
    return _written(table, sent(columns, prices), order)


@cache
def _around_few(
    table: str, columns: tuple[tuple[str, pl.DataType], ...], order: tuple[str, ...]
) -> tuple[_Written, _Written]:
    """The same of a short answer."""
    return _written(table, briefly.listed(dict(columns)), order)


def _written(table: str, columns: sql.Composed, order: tuple[str, ...]) -> tuple[_Written, _Written]:
    first = sql.SQL("SELECT {} FROM {} WHERE ").format(columns, sql.Identifier(table))
    last = sql.SQL(" ORDER BY {}").format(names_of(order))
    return _Written(first.as_bytes()), _Written(last.as_bytes())


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
    if held.ids is not None:
        where.append(_among(held.ids))
    fixed = {**constants} | ({"dataset": dataset} if dataset is not None else {})
    where += [sql.SQL("{} = {}").format(sql.Identifier(c), sql.Literal(v)) for c, v in fixed.items()]
    return sql.SQL(" AND ").join(where)


def _among(ids: Mapping[str, pl.Series]) -> sql.Composed:
    """The rows of these instruments; a long list is a query of its own, for constants come into each chunk's plan."""
    if len(ids) == 1 and len(series := next(iter(ids.values()))) == 1:
        dataset = next(iter(ids))
        return _ONE.format(sql.Literal(series[0]), sql.Literal(dataset))
    few = sum(map(len, ids.values())) <= _FEW
    pairs = [(sql.Literal(d), sql.Literal(i.to_list())) for d, i in ids.items()]
    if few:
        each = (sql.SQL("(dataset = {} AND instrument_id = ANY({}::bigint[]))").format(*pair) for pair in pairs)
        return sql.SQL("({})").format(sql.SQL(" OR ").join(each))
    values = sql.SQL(", ").join(sql.SQL("({}, {}::bigint[])").format(*pair) for pair in pairs)
    return sql.SQL("(dataset, instrument_id) IN (SELECT d, unnest(i) FROM (VALUES {}) AS wanted (d, i))").format(values)

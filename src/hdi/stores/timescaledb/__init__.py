"""TimescaleDB: hypertables on a server, loaded by binary COPY; a commit is one transaction.

<table>              a hypertable for each kind, cut by its index time
<table>_history      superseded rows
ingest_units coverage symbol_mappings quarantine day_conditions discrepancies       the books
hdi_meta hdi_units   version of the layout, origin; numbers of units
views                see views.py
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import polars as pl
from psycopg import sql
from psycopg.sql import Composable

from hdi.answer import Answer
from hdi.errors import StoreError
from hdi.folding import Utc
from hdi.frames import CONTENT
from hdi.model import MAX_NS, Finding, Receipt, Window
from hdi.schema import Schema, Schemas
from hdi.stores import Books, Piece, ServerOptions, Touched, Work, check_origin
from hdi.stores.held import within
from hdi.stores.instruments import DEFINITION, known_by
from hdi.stores.shaped import Shaped
from hdi.stores.timescaledb import adopt, content, folded, health, layout, noted
from hdi.stores.timescaledb import purge as forget
from hdi.stores.timescaledb.books import (
    COVERED,
    FOUND,
    GONE,
    LESS,
    MICRO,
    REJECTED,
    SAID,
    SYMBOLS,
    UNITS,
    Book,
    instant,
    names_of,
)
from hdi.stores.timescaledb.commit import record
from hdi.stores.timescaledb.connect import Database, guard, guarded
from hdi.stores.timescaledb.editions import compress
from hdi.stores.timescaledb.inspect import inspected
from hdi.stores.timescaledb.instruments import frames, names_at, runs, table_at
from hdi.stores.timescaledb.kept import KeptBooks, collect
from hdi.stores.timescaledb.load import TimescaleWriter
from hdi.stores.timescaledb.loosely import Loosely
from hdi.stores.timescaledb.read import Scan
from hdi.stores.timescaledb.upkeep import Upkeep
from hdi.stores.timescaledb.views import raw_names

Out = TypeVar("Out")


def open(  # noqa: A001  (the name that every store module gives its entry)
    url: str, schemas: Schemas, *, write: bool = False, on_step: Callable[[str], None] | None = None,
    options: ServerOptions | None = None,
) -> TimescaleDB:  # fmt: skip
    """Open the store in the database at a ``postgresql://`` URL; one that holds none yet is an empty store.

    For writing, tables are made, or brought to the layout of this version.
    """
    return TimescaleDB(url, schemas, write=write, on_step=on_step, options=options)


class TimescaleDB(Upkeep):
    """A :class:`hdi.stores.Store` in a database."""

    def __init__(
        self, url: str, schemas: Schemas, *, write: bool = False, on_step: Callable[[str], None] | None = None,
        options: ServerOptions | None = None,
    ) -> None:  # fmt: skip
        self.options = options or ServerOptions()
        self.database = Database(url, self.options.connect_seconds)
        self.url = self.database.url
        self._schemas = schemas
        self._on_step = on_step
        self._kept = KeptBooks(self.database)
        self._shaped = Shaped()
        self._tables: set[str] = set()
        #: Whether the database holds a store of this layout, or one of an older layout, which may be brought forward.
        self._there = self._old = False
        #: Numbers of units of which nobody knows whether their commit has landed.
        self.unsettled: set[int] = set()
        # A handle that nobody closes gives back its connections when it goes.
        weakref.finalize(self, self.database.close)
        with guard(self.database):
            if write:
                self._make()
            else:
                self._exists()

    @property
    def schemas(self) -> Schemas:
        """The kinds of rows that the database may hold."""
        return self._schemas

    def step(self, name: str) -> None:
        """Tell whoever listens which step of a commit comes next."""
        if self._on_step is not None:
            self._on_step(name)

    # --- the Store protocol -------------------------------------------------------------------

    def reserve(self, unit_ids: Sequence[str]) -> list[int]:
        """See :meth:`hdi.stores.Store.reserve`; numbers are kept in ``hdi_units``."""
        wanted = list(dict.fromkeys(unit_ids))
        with guard(self.database), self.database.session() as connection:
            layout.hold(connection, "units")
            known = dict(
                connection.execute(
                    "SELECT unit_id, max(unit) FROM hdi_units n WHERE unit_id = ANY(%s) "
                    "AND NOT EXISTS (SELECT FROM ingest_units u WHERE u.unit = n.unit) GROUP BY unit_id",
                    (wanted,),
                ).fetchall()
            )
            new = [unit_id for unit_id in wanted if unit_id not in known]
            if new:
                known |= connection.execute(_NUMBER, {"ids": new}).fetchall()
        return [known[unit_id] for unit_id in unit_ids]

    @contextlib.contextmanager
    def claim(self, keys: Sequence[str]) -> Iterator[None]:
        """See :meth:`hdi.stores.Store.claim`; locks of a session, taken in one order."""
        with contextlib.ExitStack() as stack:
            with guard(self.database):
                connection = self.database.connect(autocommit=True)
                stack.callback(connection.close)
                connection.execute("SET lock_timeout = 0")  # whoever holds it is at work: that is waited for
                connection.execute(_CLAIM, (sorted(set(keys)),))
            yield

    @contextlib.contextmanager
    def replace(self, work: Work) -> Iterator[TimescaleWriter]:
        """See :meth:`hdi.stores.Store.replace`."""
        self.step("begin")
        check_origin(self, work.origin)
        writer = TimescaleWriter(self, work)
        try:
            yield writer
        finally:
            writer.discard()

    def record(self, work: Work, receipts: Sequence[Receipt], rejects: pl.DataFrame) -> None:
        """See :meth:`hdi.stores.Store.record`."""
        writer = TimescaleWriter(self, work)
        try:
            with guard(self.database):
                writer.reject(rejects)
                record(self, writer, work, receipts)
        finally:
            writer.discard()

    def ledger(self) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.ledger`."""
        return self._shaped.of("ledger", self._book(UNITS), _in_order)

    def coverage(self) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.coverage`."""
        return self._book(COVERED)

    def mappings(self) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.mappings`."""
        return self._shaped.of("mappings", self._book(SYMBOLS), _bare)

    def learned(self) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.learned`."""
        return self._book(SYMBOLS)

    def quarantine(self) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.quarantine`."""
        return self._book(REJECTED)

    def rejected(self) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.rejected`."""
        stands, gone = self._book(REJECTED), self._book(GONE)
        while not (now := self._book(REJECTED)).equals(stands):  # some were replaced between the two
            stands, gone = now, self._book(GONE)
        return pl.concat([stands.with_columns(replaced_unit=pl.lit(None, pl.Int32)), gone])

    def purge(self, stand: Sequence[int], replaced: Sequence[int], reason: str) -> pl.DataFrame:
        """See :meth:`hdi.stores.Purging.purge`; one transaction."""
        with guard(self.database), self.database.session() as connection:
            return forget.purge(self, connection, stand, replaced, reason)

    def purged(self) -> pl.DataFrame:
        """See :meth:`hdi.stores.Purging.purged`."""
        return self._book(LESS).sort("purged_at", maintain_order=True)

    def keep_purged(self, told: pl.DataFrame) -> None:
        """See :meth:`hdi.stores.Purging.keep_purged`; one transaction."""
        with guard(self.database), self.database.session() as connection:
            forget.keep(self, connection, told)

    def books(self) -> Books:
        """See :meth:`hdi.stores.Together.books`."""
        units, covered, symbols = self._stand(UNITS, COVERED, SYMBOLS)
        ledger, mappings = self._shaped.of("ledger", units, _in_order), self._shaped.of("mappings", symbols, _bare)
        return Books(ledger, covered, mappings)

    def conditions(self) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.conditions`."""
        return self._book(SAID).sort("seen_at", maintain_order=True)

    def discrepancies(self) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.discrepancies`."""
        return self._book(FOUND).sort("number")

    def amend(self, change: Callable[[pl.DataFrame], pl.DataFrame]) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.amend`; one transaction, which writes the rows that differ."""
        with guard(self.database), self.database.session() as connection:
            return noted.amend(connection, change)

    def replaced(self, schema: Schema, window: Window | None = None, dataset: str | None = None) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.replaced`."""
        with guard(self.database):
            if not self._has(f"{schema.table}_history"):
                return pl.DataFrame(schema=schema.history)
            wanted: list[sql.Composable] = [sql.SQL("TRUE")]
            if dataset is not None:
                wanted.append(sql.SQL("dataset = {}").format(sql.Literal(dataset)))
            if window is not None:
                ends = sql.Literal(instant(window.start)), sql.Literal(instant(window.end + 999))
                wanted.append(sql.SQL("{i} >= {} AND {i} < {}").format(*ends, i=sql.Identifier(schema.index_time)))
            query = sql.SQL("SELECT {}, _replaced_at_ns FROM {} WHERE {} ORDER BY seq").format(
                names_of(schema.history), sql.Identifier(f"{schema.table}_history"), sql.SQL(" AND ").join(wanted)
            )
            at = pl.col("_replaced_at").to_physical() * 1000 + pl.col("_replaced_at_ns").cast(pl.Int64)
            kinds = {c: t for c, t in schema.history.items() if c != "_replaced_at"}
            found = collect(self.database, query, kinds | {"_replaced_at": MICRO, "_replaced_at_ns": pl.Int16()})
        found = found.with_columns(_replaced_at=at).select(pl.col(c).cast(t) for c, t in schema.history.items())
        return found if window is None else found.filter(within(schema.index_time, window, dataset))

    def read(  # noqa: PLR0913  (as the protocol has it)
        self, schema: Schema, name: str, window: Window, instruments: pl.DataFrame | None,
        columns: Sequence[str], dataset: str | None = None, *, ordered: bool = True,
    ) -> Iterator[pl.DataFrame]:  # fmt: skip
        """See :meth:`hdi.stores.Store.read`; the server's index gives the rows in their order, which costs nothing."""
        del ordered
        with guard(self.database):
            if self._has(schema.table):
                yield from Scan(self.database, schema, name, window, instruments, columns, dataset).frames()

    def read_each(  # noqa: PLR0913, PLR0917  (as the protocol has it)
        self, schema: Schema, name: str, window: Window, instruments: pl.DataFrame | None,
        columns: Sequence[str], dataset: str | None, each: Callable[[pl.DataFrame], Out],
    ) -> Iterator[Out]:  # fmt: skip
        """See :meth:`hdi.stores.Working.read_each`."""
        with guard(self.database):
            if self._has(schema.table):
                yield from Loosely(self.database, schema, name, window, instruments, columns, dataset).each(each)

    def folded(
        self, schema: Schema, name: str, window: Window, instruments: pl.DataFrame | None, dataset: str | None,
        clock: Utc,
    ) -> Iterator[pl.DataFrame] | None:  # fmt: skip
        """See :meth:`hdi.stores.folding.Folding.folded`."""
        with guard(self.database):
            if not self._has(schema.table):
                return None
            made = folded.bars(self.database, schema, name, window, instruments, dataset, clock)
        return None if made is None else guarded(self.database, made)

    def touches(
        self, schema: Schema, name: str, window: Window, instruments: pl.DataFrame | None,
        columns: Sequence[str], dataset: str | None = None,
    ) -> Touched:  # fmt: skip
        """See :meth:`hdi.stores.Touching.touches`: the chunks that the server's own plan names."""
        with guard(self.database):
            scan = Scan(self.database, schema, name, window, instruments, columns, dataset)
            return Touched("chunk", *(scan.chunks() if self._has(schema.table) else (0, 0)), scan.stored)

    def superseded(  # noqa: PLR0913  (as the protocol has it)
        self, schema: Schema, name: str, window: Window, instruments: pl.DataFrame | None,
        columns: Sequence[str], dataset: str | None = None, *, by: Sequence[int], apart: Sequence[int] = (),
    ) -> Iterator[pl.DataFrame]:  # fmt: skip
        """See :meth:`hdi.stores.Store.superseded`."""
        with guard(self.database):
            if self._has(f"{schema.table}_history"):
                past = (by, apart)
                scan = Scan(self.database, schema, name, window, instruments, columns, dataset, past=past)
                yield from scan.frames()

    def content(
        self, schema: Schema, name: str, window: Window, instruments: pl.DataFrame | None,
        every: int, dataset: str | None = None,
    ) -> pl.DataFrame:  # fmt: skip
        """See :meth:`hdi.stores.Store.content`."""
        with guard(self.database):
            nothing = instruments is not None and instruments.is_empty()
            if nothing or not self._has(schema.table):
                return pl.DataFrame(schema=CONTENT)
            query = content.query(schema, name, window, instruments, every, dataset)
            return collect(self.database, query, CONTENT).sort("dataset", "instrument_id", "at")

    def instruments(
        self, dataset: str | None = None, window: Window | None = None, instruments: pl.DataFrame | None = None,
        *, as_of: int | None = None,
    ) -> Iterator[pl.DataFrame]:  # fmt: skip
        """See :meth:`hdi.stores.Store.instruments`."""
        schema = next((s for s in self._schemas if DEFINITION in s.names), None)
        with guard(self.database):
            if schema is not None and self._has(schema.table):
                names, source = raw_names(), None
                if as_of is not None:
                    later = self.ledger().filter(pl.col("committed_at") > as_of)["unit"].to_list()
                    names, source = names_at(known_by(self.learned(), as_of)), table_at(schema, later)
                query = partial(runs, schema, names, source=source)
                whole = window or Window(0, MAX_NS)
                yield from frames(self.database, query, schema, dataset, whole, instruments)

    def sql(self, statement: str, as_of: int | None = None) -> Answer:
        """See :meth:`hdi.stores.Store.sql`; the server's own."""
        from hdi.stores.timescaledb.statement import answer

        with guard(self.database):
            self._exists()
        return answer(self.database, self._schemas, statement, as_of)

    def identity(self) -> str:
        """See :meth:`hdi.stores.Store.identity`."""
        with guard(self.database), self.database.session() as connection:
            return adopt.identity(connection)

    def numbers(self) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.numbers`."""
        with guard(self.database):
            if not self._exists():
                return pl.DataFrame(schema={"unit": pl.Int32(), "unit_id": pl.String()})
            with self.database.session() as connection:
                return adopt.numbers(connection)

    def keep_numbers(self, numbers: pl.DataFrame) -> None:
        """See :meth:`hdi.stores.Store.keep_numbers`."""
        with guard(self.database), self.database.session() as connection:
            layout.hold(connection, "units")
            adopt.keep_numbers(connection, numbers, self.url)

    def adopt(self, piece: Piece, rows: Iterable[pl.DataFrame] | None) -> None:
        """See :meth:`hdi.stores.Store.adopt`."""
        with guard(self.database):
            adopt.adopt(self, piece, rows)

    def settle(self) -> None:
        """Nothing is derived, and the server forgets what dead attempts sent."""

    def health(self) -> dict[str, Any]:
        """See :meth:`hdi.stores.Store.health`."""
        with guard(self.database):
            return health.found(self.database, self._schemas, exists=self._exists())

    def inspect(self) -> list[Finding]:
        """See :meth:`hdi.stores.Inspected.inspect`."""
        with guard(self.database):
            return inspected(self.database)

    def close(self) -> None:
        """Close the connections."""
        self.database.close()

    # --- inside -------------------------------------------------------------------------------

    def _make(self) -> None:
        with self.database.session() as connection:
            if not layout.current(connection, self._schemas):
                layout.make(connection, self._schemas)
            layout.check_rights(connection, self._schemas)
            if self.options.compress:
                compress(connection, self._schemas, self.options.compress_after_days)
        self._there = True

    def _exists(self) -> bool:
        """True when the database holds a store. StoreError for one of a layout that is too old to be read."""
        if not self._there:
            with self.database.session() as connection:
                made = layout.version(connection)
            if made is not None and made < layout.READS:
                raise StoreError(
                    f"the database has layout {made}; this version of hdi reads {layout.READS} to {layout.LAYOUT}",
                    "Any command that writes brings it there: run `hdi ingest ...` with the role that ingests.",
                )
            self._old = made is not None and made < layout.LAYOUT
            self._there = made == layout.LAYOUT
        return self._there or self._old

    def _has(self, table: str) -> bool:
        """True when a table is there. None is ever dropped: one that was there is not looked for again."""
        if table not in self._tables and self._exists():
            with self.database.session() as connection:
                if layout.holds(connection, table):
                    self._tables.add(table)
        return table in self._tables

    def _book(self, book: Book) -> pl.DataFrame:
        return self._stand(book)[0]

    def _stand(self, *books: Book) -> list[pl.DataFrame]:
        """Books as they stand, each read again only when it has changed: rows of another ``seq`` came, or some went."""
        with guard(self.database):
            if not self._exists():
                return [pl.DataFrame(schema=book.frame) for book in books]
            columns: dict[str, Composable | None] = {book.name: book.columns for book in books}
            if not self._there:
                with self.database.session() as connection:
                    columns = {book.name: layout.columns_there(connection, book) for book in books}
            return self._kept.of(books, columns)


def _in_order(units: pl.DataFrame) -> pl.DataFrame:
    """The ledger in the order of its commits."""
    return units.sort("committed_at", "unit", maintain_order=True)


def _bare(symbols: pl.DataFrame) -> pl.DataFrame:
    """The mappings, without when they were learned."""
    return symbols.drop("learned")


_NUMBER = (
    "INSERT INTO hdi_units SELECT (SELECT GREATEST(COALESCE(max(unit), 0), "
    "(SELECT COALESCE(max(unit), 0) FROM ingest_units)) FROM hdi_units) + ordinality, id "
    "FROM unnest(%(ids)s::text[]) WITH ORDINALITY AS wanted (id, ordinality) RETURNING unit_id, unit"
)
_CLAIM = (
    "SELECT pg_advisory_lock(key) FROM (SELECT DISTINCT hashtextextended(current_schema() || ':hdi:claim:' || k, 0) "
    "AS key FROM unnest(%s::text[]) k ORDER BY key) keys"
)

__all__ = ["TimescaleDB", "open"]

"""One attempt at a commit: rows go to the server while they are refined, by binary COPY in one open transaction.

Where nothing can be stored yet in what is loaded, they go straight into the hypertable; else into a temporary
table, to be compared there. Nobody else sees them, and nobody waits for them, before :mod:`commit`: chunks are
made ahead in transactions of their own, because who makes one holds back every other maker until it commits.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pgpq
import polars as pl
import psycopg
from psycopg import sql

from hdi.errors import DataError
from hdi.frames import REJECTS
from hdi.model import Receipt
from hdi.stores.timescaledb.books import MICRO
from hdi.stores.timescaledb.connect import guard
from hdi.stores.timescaledb.layout import declared

if TYPE_CHECKING:
    from hdi.schema import Schema
    from hdi.stores import Work
    from hdi.stores.timescaledb import TimescaleDB

FRESH = "hdi_fresh"
#: Rows that are encoded at once: the rate is flat from 10,000 on, and so is memory.
_SEND_ROWS = 32_768
_AHEAD = 2
#: Chunks that one commit may make: random times of a damaged file would make one for each row.
MOST_CHUNKS = 10_000
_CHUNKS_AT_ONCE = 32
_REJECT_ROWS = 100_000


# psycopg writes to stderr that a COPY given up could not be ended where the server is gone: that is told already.
logging.getLogger("psycopg").addFilter(lambda record: "error ignored terminating" not in record.getMessage())


class Discarded(Exception):
    """Ends a COPY that is given up."""


class Copy:
    """A binary COPY into some columns of a table."""

    def __init__(self, connection: psycopg.Connection, table: str, columns: Sequence[str]) -> None:
        self._columns = list(columns)
        self._encoder: pgpq.ArrowToPostgresBinaryEncoder | None = None
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(
            sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, self._columns))
        )
        self._context = connection.cursor().copy(statement)
        self._copy: psycopg.Copy | None = None

    def write(self, frame: pl.DataFrame) -> None:
        """Send rows."""
        if self._copy is None:
            self._copy = self._context.__enter__()
        for piece in encoded(self, frame.select(self._columns)):
            self._copy.write(piece)

    def encoder(self, schema: Any) -> tuple[pgpq.ArrowToPostgresBinaryEncoder, bytes]:
        """The encoder, and what has to go before its first batch."""
        if self._encoder is not None:
            return self._encoder, b""
        self._encoder = pgpq.ArrowToPostgresBinaryEncoder(schema)
        return self._encoder, self._encoder.write_header()

    def end(self) -> None:
        """Tell the server that this was all."""
        if self._copy is not None and self._encoder is not None:
            self._copy.write(self._encoder.finish())
            self._copy = None
            self._context.__exit__(None, None, None)

    def discard(self) -> None:
        """Give up: the server forgets what was sent."""
        if self._copy is not None:
            self._copy = None
            with contextlib.suppress(psycopg.Error):  # the connection is closed next, whatever it says
                self._context.__exit__(Discarded, Discarded("given up"), None)


def encoded(copy: Copy, frame: pl.DataFrame) -> Iterator[bytes]:
    """The rows as PostgreSQL's binary format."""
    for part in frame.iter_slices(_SEND_ROWS):
        for batch in part.to_arrow(compat_level=pl.CompatLevel.newest()).to_batches():
            encoder, header = copy.encoder(batch.schema)
            if header:
                yield header
            yield encoder.write_batch(batch)


def copy_frame(connection: psycopg.Connection, table: str, frame: pl.DataFrame) -> None:
    """Load a whole frame."""
    if frame.height:
        copy = Copy(connection, table, frame.columns)
        copy.write(frame)
        copy.end()


class TimescaleWriter:
    """Stages rows and rejects; :meth:`finish` hands them to the commit."""

    def __init__(self, store: TimescaleDB, work: Work) -> None:
        self._store = store
        self._work = work
        self._columns = list(declared(work.schema))
        self._index = work.schema.index_time
        self._connection: psycopg.Connection | None = None
        self._copy: Copy | None = None
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hdi-copy")
        self._pending: deque[Future[None]] = deque()
        self._rejected: list[pl.DataFrame] = []
        self._spilled: list[IO[bytes]] = []
        self._chunks = Chunks(store, work.schema)
        #: True when rows went straight into the hypertable.
        self.direct = False
        #: The first and last microsecond of the rows that were written, and how many there are.
        self.first, self.last, self.rows = 2**63 - 1, -(2**63), 0

    @property
    def connection(self) -> psycopg.Connection:
        """The connection of the attempt, with a transaction open."""
        if self._connection is None:
            self._connection = self._store.database.connect()
        return self._connection

    def write(self, rows: pl.DataFrame) -> None:
        """Send accepted rows; they are encoded and sent by a thread while the next are refined."""
        if not rows.height:
            return
        with guard(self._store.database):
            if self._copy is None:
                self._begin()
            while len(self._pending) >= _AHEAD:
                self._pending.popleft().result()
            self._pending.append(self._pool.submit(self._send, rows))

    def reject(self, rows: pl.DataFrame) -> None:
        """Keep rejected rows until the end of the COPY: a connection can do one at a time."""
        if not rows.height:
            return
        self._rejected.append(rows.select(pl.col(c).cast(t) for c, t in REJECTS.items()))
        if sum(r.height for r in self._rejected) >= _REJECT_ROWS:
            file = tempfile.TemporaryFile()  # noqa: SIM115  (it lives as long as the attempt)
            pl.concat(self._rejected).write_ipc(file)
            self._spilled.append(file)
            self._rejected = []

    def rejects(self) -> Iterator[pl.DataFrame]:
        """The rejected rows, as frames of bounded size."""
        for file in self._spilled:
            file.seek(0)
            yield pl.read_ipc(file)
        yield from self._rejected

    def finish(self, work: Work, receipts: Sequence[Receipt]) -> list[Receipt]:
        """Commit what was sent; see :meth:`hdi.stores.Writer.finish`."""
        from hdi.stores.timescaledb.commit import commit

        with guard(self._store.database):
            self._store.step("flush")
            while self._pending:
                self._pending.popleft().result()
            if self._copy is not None:
                self._copy.end()
            return commit(self._store, self, work, receipts)

    def discard(self) -> None:
        """Give up the attempt, or clear up after it."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._copy is not None:
            self._copy.discard()
        if self._connection is not None:
            self._connection.close()
        for file in self._spilled:
            file.close()

    def _begin(self) -> None:
        from hdi.stores.timescaledb.scope import overlapped, stage_scope

        stage_scope(self.connection, self._work)
        self.direct = not overlapped(self.connection, self._work, ())
        self._store.step("copy")
        table = self._work.schema.table
        if not self.direct:
            stage(self.connection, table)
            table = FRESH
        self._copy = Copy(self.connection, table, self._columns)

    def _send(self, rows: pl.DataFrame) -> None:
        stored = self._work.schema.to_stored(rows)
        micro = stored[self._index].to_physical()
        first, last = int(micro.min()), int(micro.max())  # type: ignore[arg-type]
        self.first, self.last = min(self.first, first), max(self.last, last)
        self._chunks.hold(stored, first, last)
        if self._copy is not None:
            self._copy.write(stored)
        self.rows += stored.height


def stage(connection: psycopg.Connection, table: str) -> None:
    """A temporary table with the columns of another, for rows that are to be compared."""
    # TimescaleDB would make chunks for a table that inherits; LIKE takes columns alone.
    connection.execute(
        sql.SQL("CREATE TEMP TABLE {} (LIKE {}) ON COMMIT DROP").format(sql.Identifier(FRESH), sql.Identifier(table))
    )


class Chunks:
    """Sees to it that every row has its chunk before it is loaded."""

    def __init__(self, store: TimescaleDB, schema: Schema) -> None:
        self._store = store
        self._schema = schema
        self._known: pl.DataFrame | None = None
        self._made = 0

    def hold(self, stored: pl.DataFrame, first: int, last: int) -> None:
        """Make the chunks that rows between two microseconds lack. DataError when they are too many."""
        if self._known is None:
            self._known = self._ranges()
        inside = self._known.filter(pl.col("start") <= first, pl.col("end") > last)
        if inside.height:
            return
        instants = stored[self._schema.index_time].to_physical().to_numpy()
        lacking = self._lacking(instants)
        while len(lacking):
            self._make(stored, lacking)
            self._known = self._ranges()
            lacking = self._lacking(instants)

    def _ranges(self) -> pl.DataFrame:
        with self._store.database.session() as connection:
            rows = connection.execute(
                "SELECT range_start, range_end FROM timescaledb_information.chunks "
                "WHERE hypertable_schema = current_schema() AND hypertable_name = %s",
                (self._schema.table,),
            ).fetchall()
        kinds = {"start": MICRO, "end": MICRO}
        return pl.DataFrame(rows, schema=kinds, orient="row").select(pl.all().to_physical()).sort("start")

    def _lacking(self, instants: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Rows without a chunk."""
        known = self._known
        if known is None or not known.height:
            return np.arange(len(instants))
        at = np.searchsorted(known["start"].to_numpy(), instants, side="right") - 1
        held = (at >= 0) & (instants < known["end"].to_numpy()[np.maximum(at, 0)])
        return np.flatnonzero(~held)

    def _make(self, stored: pl.DataFrame, lacking: np.ndarray[Any, Any]) -> None:
        """Make the chunks of some rows: a row that is inserted and deleted by one transaction leaves its chunk."""
        days = (stored[self._schema.index_time].to_physical().to_numpy()[lacking] // 86_400_000_000).astype(np.int64)
        _, first = np.unique(days, return_index=True)
        rows = stored[lacking[first][:: max(1, len(first) // _CHUNKS_AT_ONCE)][:_CHUNKS_AT_ONCE]]
        self._made += rows.height
        if self._made > MOST_CHUNKS:
            raise DataError(
                f"its rows lie in more than {MOST_CHUNKS} chunks of {self._schema.table}",
                "A file of so many is damaged, or has to be cut by time. Nothing of it was stored.",
            )
        table, mark = sql.Identifier(self._schema.table), -1
        rows = rows.with_columns(_unit=pl.lit(mark, pl.Int32))
        with self._store.database.session() as connection:
            copy_frame(connection, self._schema.table, rows)
            connection.execute(
                sql.SQL("DELETE FROM {} WHERE _unit = %s AND {index} = ANY(%s)").format(
                    table, index=sql.Identifier(self._schema.index_time)
                ),
                (mark, rows[self._schema.index_time].to_list()),
            )

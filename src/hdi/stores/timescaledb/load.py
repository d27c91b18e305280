"""One attempt at a commit: rows go to the server while they are refined, by binary COPY in one open transaction.

Where nothing can be stored yet in what is loaded, they go straight into the hypertable; else into a temporary
table, to be compared there. Nobody else sees them, and nobody waits for them, before :mod:`commit`.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, TYPE_CHECKING

import polars as pl
import psycopg
from psycopg import sql

from hdi.frames import REJECTS
from hdi.model import Receipt
from hdi.stores.timescaledb.chunks import Chunks
from hdi.stores.timescaledb.connect import guard
from hdi.stores.timescaledb.copying import Copy
from hdi.stores.timescaledb.layout import declared

if TYPE_CHECKING:
    from hdi.stores import Work
    from hdi.stores.timescaledb import TimescaleDB

FRESH = "hdi_fresh"
_AHEAD = 2
_REJECT_ROWS = 100_000


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
            self._connection = self._store.database.lent()
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
            self._store.database.give_back(self._connection)
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

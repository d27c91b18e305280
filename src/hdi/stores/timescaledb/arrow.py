"""Answers as Arrow, by ADBC's driver without its DB-API layer: the imports of that (pandas) take half a second."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator, Iterator
from functools import lru_cache
from typing import Any

import adbc_driver_manager
import adbc_driver_postgresql
import pyarrow as pa

_BATCH_BYTES = 8 << 20
#: So many databases are known at a time.
_DATABASES = 4
_STATE = re.compile(r"SQLSTATE: (\w{5})")


class ReadError(Exception):
    """The server, or the way to it, failed while an answer was asked for or came in. ``state`` is its SQLSTATE."""

    def __init__(self, said: str, state: str | None) -> None:
        found = _STATE.search(said)
        self.state = state or (found[1] if found else None)
        super().__init__(said)


class Reader:
    """A connection that answers one query after another.

    ``plain``: of types that every server has, as those of hdi's tables are. What the driver has learned of them is kept
    for other readers: to learn it takes a tenth of a second, a connection alone a tenth of that.
    """

    def __init__(self, conninfo: str, *, plain: bool = False) -> None:
        with _refusals():
            self._database = _known(conninfo) if plain else adbc_driver_postgresql.connect(conninfo)
            self._own = [] if plain else [self._database]
            try:
                self._connection = adbc_driver_manager.AdbcConnection(self._database)
            except BaseException:
                for each in self._own:
                    each.close()
                raise
        self._statement: adbc_driver_manager.AdbcStatement | None = None

    def ask(self, text: str) -> Generator[pa.RecordBatch]:
        """Ask now; the batches are read while they are looked at. Raises ReadError."""
        with _refusals():
            self._statement = statement = adbc_driver_manager.AdbcStatement(self._connection)
            hint = adbc_driver_postgresql.StatementOptions.BATCH_SIZE_HINT_BYTES.value
            statement.set_options(**{hint: str(_BATCH_BYTES)})
            statement.set_sql_query(text)
            stream, _ = statement.execute_query()
            return self._batches(pa.RecordBatchReader.from_stream(stream))

    def cancel(self) -> None:
        """End what is asked, from another thread."""
        if self._statement is not None:
            with contextlib.suppress(adbc_driver_manager.Error):
                self._statement.cancel()

    def _batches(self, answer: pa.RecordBatchReader) -> Generator[pa.RecordBatch]:
        with answer:
            while True:
                with _refusals():
                    try:
                        batch = answer.read_next_batch()
                    except StopIteration:
                        break
                yield _plain(batch)
        self._end()

    def _end(self) -> None:
        if self._statement is not None:
            self._statement.close()
            self._statement = None

    def close(self) -> None:
        """Close the connection, whatever state it is in."""
        with contextlib.suppress(adbc_driver_manager.Error):
            self._end()
        for each in (self._connection, *self._own):
            with contextlib.suppress(adbc_driver_manager.Error):
                each.close()


@lru_cache(maxsize=_DATABASES)
def _known(conninfo: str) -> adbc_driver_manager.AdbcDatabase:
    """What the driver knows of a database; it holds no connection."""
    made: adbc_driver_manager.AdbcDatabase = adbc_driver_postgresql.connect(conninfo)
    return made


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except adbc_driver_manager.Error as exc:
        raise ReadError(str(exc), exc.sqlstate) from exc
    except (pa.ArrowException, OSError) as exc:
        raise ReadError(str(exc), None) from exc


def _plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with the storage of Arrow's extension types (NUMERIC and JSON are text in it)."""
    columns: list[Any] = [c.storage if isinstance(c.type, pa.BaseExtensionType) else c for c in batch.columns]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)

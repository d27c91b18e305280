"""Answers as Arrow, by ADBC's driver without its DB-API layer: the imports of that (pandas) take half a second."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator, Iterator
from typing import Any

import adbc_driver_manager
import adbc_driver_postgresql
import pyarrow as pa

_BATCH_BYTES = 8 << 20
_STATE = re.compile(r"SQLSTATE: (\w{5})")


class ReadError(Exception):
    """The server, or the way to it, failed while an answer was asked for or came in. ``state`` is its SQLSTATE."""

    def __init__(self, said: str, state: str | None) -> None:
        found = _STATE.search(said)
        self.state = state or (found[1] if found else None)
        super().__init__(said)


class Reader:
    """A connection that answers one query after another."""

    def __init__(self, conninfo: str) -> None:
        with _refusals():
            self._database = adbc_driver_postgresql.connect(conninfo)
            try:
                self._connection = adbc_driver_manager.AdbcConnection(self._database)
            except BaseException:
                self._database.close()
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
        for each in (self._connection, self._database):
            with contextlib.suppress(adbc_driver_manager.Error):
                each.close()


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

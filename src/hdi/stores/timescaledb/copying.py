"""Binary COPY of Polars frames: encoded as PostgreSQL's own format, without a Python object for a value."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import pgpq
import polars as pl
import psycopg
from psycopg import sql

from hdi.stores.timescaledb.books import names_of

#: Rows that are encoded at once: the rate is flat from 10,000 on, and so is memory.
_SEND_ROWS = 32_768

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
            sql.Identifier(table), names_of(self._columns)
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

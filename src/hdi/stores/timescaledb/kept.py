"""Books of a database as they were read last, each read again only when it has changed."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import polars as pl
import psycopg
from psycopg import sql
from psycopg.sql import Composable

from hdi.stores.timescaledb.books import Book
from hdi.stores.timescaledb.connect import Database

_SEEN = sql.SQL(
    "SELECT pg_current_snapshot()::text, pg_is_in_recovery(), s.* FROM ({}) s "
    "WHERE pg_current_snapshot()::text IS DISTINCT FROM %(mark)s"
)
#: Rows of a book that are read one by one; more are read as Arrow.
_FEW = 5_000


class KeptBooks:
    """The books of one handle: one has changed when rows of another ``seq`` came, or some went."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._books: dict[str, tuple[object, pl.DataFrame]] = {}
        #: By connection and statement: what the server had committed when books were counted, and how many they were.
        self._counted: weakref.WeakKeyDictionary[psycopg.Connection, dict[str, tuple[str, dict[str, list[Any]]]]]
        self._counted = weakref.WeakKeyDictionary()
        self._threads = threading.Lock()

    def of(self, books: Sequence[Book], columns: Mapping[str, Composable | None]) -> list[pl.DataFrame]:
        """Books as they stand; ``columns`` are those to be read of each, by its name, None where it is not there."""
        states = self._states([name for name, there in columns.items() if there is not None])
        return [self._kept(book, columns[book.name], states.get(book.name)) for book in books]

    def _states(self, names: Sequence[str]) -> dict[str, list[Any]]:
        """What changes whenever a book does, of all of them by one statement: how many rows, and of which ``seq``.

        They are counted only if anything at all was committed at the server since this connection counted them.
        """
        if not names:
            return {}
        query = _state_of(tuple(names))

        def ask(connection: psycopg.Connection) -> dict[str, list[Any]]:
            with self._threads:
                known = self._counted.setdefault(connection, {})
                mark, states = known.get(query, ("", {}))
            found = connection.execute(query, {"mark": mark}).fetchall()
            if not found:
                return states
            now, replica = found[0][:2]
            states = {name: state for _, _, name, *state in found}
            with self._threads:
                # What a replica says of itself leaves out what is on its way.
                known.pop(query, None) if replica else known.update({query: (now, states)})
            return states

        return self.database.asked(ask)

    def _kept(self, book: Book, columns: Composable | None, state: Sequence[Any] | None) -> pl.DataFrame:
        """A book of a state; None is one that is not there."""
        if columns is None or state is None:
            return pl.DataFrame(schema=book.frame)
        with self._threads:
            kept = self._books.get(book.name)
        if kept is not None and kept[0] == state:
            return kept[1]
        query = sql.SQL("SELECT {} FROM {} ORDER BY seq").format(columns, sql.Identifier(book.name))
        frame = book.to_frame(
            self.database.rows(query, book.stored) if state[0] <= _FEW else collect(self.database, query, book.stored)
        )
        with self._threads:
            self._books[book.name] = (state, frame)
        return frame


def collect(database: Database, query: Composable, kinds: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """What a statement gives, as a frame of these types."""
    found = (pl.DataFrame(batch) for batch in database.batches(query))
    frames = [frame.select(pl.col(c).cast(t) for c, t in kinds.items()) for frame in found]
    return pl.concat([pl.DataFrame(schema=kinds), *frames])


@cache
def _state_of(names: tuple[str, ...]) -> str:
    """The statement for the states of books, with what it sees; no row where it sees just what ``mark`` says."""
    state = sql.SQL("SELECT {}, count(*), max(seq), sum(seq) FROM {}")
    states = sql.SQL(" UNION ALL ").join(state.format(sql.Literal(n), sql.Identifier(n)) for n in names)
    return _SEEN.format(states).as_string()


__all__ = ["KeptBooks", "collect"]

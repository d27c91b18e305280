"""Statements for a server: fragments of its dialect that may be read as text by one and as code by the other."""

import os
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from fuzz.commands import Bytes
from hdi.errors import HdiError
from hdi.schema import Schemas
from hdi.stores import open_store
from hdi.stores.timescaledb import layout

#: The variable that names a server for tests; a database of this name is made there.
NAMED = "HDI_TEST_TIMESCALEDB"
BASE = "hdi_fuzz"
#: What a statement calls that got through: it changes nothing, and says that it was called.
CANARY = "it was called"
_MAKE = (
    "CREATE EXTENSION IF NOT EXISTS timescaledb; CREATE TABLE IF NOT EXISTS watched AS SELECT 1 AS a; "
    "CREATE OR REPLACE FUNCTION canary() RETURNS int VOLATILE LANGUAGE plpgsql AS "
    f"$$BEGIN RAISE EXCEPTION '{CANARY}'; END$$"
)
_STATE = (
    "SELECT count(*), sum(hashtext(relname || relkind::text || relnatts)) FROM pg_class WHERE relkind IN ('r', 'v')"
)
FRAGMENTS = (
    "SELECT 1", "SELECT ", "FROM watched", "a", ", canary()", "canary()", " || ", "'", "''", "\\'", "E'", "e'a'\n'",
    "U&'", "N'", '"', 'U&"', "$$", "$x$", "$é$", "\U0001f600$x$", "\u00a0", "\u2028", "\x0b", "--", "-- ", "\n", "\r",
    "/*", "*/", "/* /* */", "--*/", ";", "; ", "COMMIT", "RESET ROLE", "DROP TABLE watched", "DELETE FROM watched",
    "CREATE TABLE x(a int)", "COPY (SELECT 1) TO PROGRAM 'true'", "EXPLAIN ", "explain (costs ", "ANALYZE ", "off)",
    "(", ")", ") q", "WITH d AS (", "VALUES (1)", "TABLE watched", " UNION ", "INTO y ", "FOR UPDATE", " ", "AS x",
    "1", "1e", "0x", "$1", "::text", "[1]", "{}", ".", '"canary"()', "public.canary()", "pg_read_file('/etc/hosts')",
)  # fmt: skip


def there() -> bool:
    """Whether a server is named."""
    return bool(os.environ.get(NAMED))


def statement(data: Bytes) -> str:
    """Fragments, one after another; some bytes as they are between them."""
    return "".join(_fragment(data) for _ in range(1 + data.number(12)))


def _fragment(data: Bytes) -> str:
    return FRAGMENTS[data.number(len(FRAGMENTS))] if data.number(12) else data.text().replace("\0", " ")


class Called(Exception):
    """A statement did more than read."""


def database(url: str) -> str:
    """The URL of a database for fuzzing on a server, made if need be."""
    with psycopg.connect(url, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (BASE,)).fetchone() is None:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(BASE)))
    return urlsplit(url)._replace(path=f"/{BASE}").geturl()


class Guarded:
    """A database whose tables, and a function that nobody may call, are watched."""

    def __init__(self, url: str, schemas: Schemas) -> None:
        with psycopg.connect(url) as connection:
            connection.execute(_MAKE)
            layout.make(connection, schemas)
        self._watch = psycopg.connect(url, autocommit=True)
        self._before = self._state()
        self._store = open_store(url, schemas, write=False)

    def _state(self) -> object:
        return self._watch.execute(_STATE).fetchone(), self._watch.execute("SELECT * FROM watched").fetchall()

    def ask(self, text: str) -> None:
        """Have a statement answered. Called where it calls what only reading never calls."""
        try:
            self._store.sql(text).collect()
        except HdiError as error:
            # The text may hold the words; what the server says of the function begins with them.
            if error.message.startswith(CANARY):
                raise Called(text) from error
            raise

    def check(self, text: str) -> None:
        """Called where a statement has changed something."""
        if self._state() != self._before:
            raise Called(text)

    def close(self) -> None:
        """Give back what it holds."""
        self._store.close()
        self._watch.close()

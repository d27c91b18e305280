"""Connections to one database, and every refusal of the server or its drivers as a StoreError.

psycopg does what is transactional; ADBC brings answers as Arrow, without a Python object for each value.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl
import psycopg
import stamina
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus

from hdi.errors import HdiError, RequestError, StoreError, StoreLost

if TYPE_CHECKING:
    import pyarrow as pa

    from hdi.stores.timescaledb.arrow import Reader

#: What a connection is told unless its URL says otherwise: a host that vanished is noticed within a minute and a half.
_DEFAULTS = {
    "application_name": "hdi", "keepalives_idle": "30", "keepalives_interval": "15",
    "keepalives_count": "4", "tcp_user_timeout": "90000",
}  # fmt: skip
#: Claims and attempts wait for as long as their work takes, whatever the role's defaults are. A commit that has waited
#: for its lock must see what came meanwhile. The server gives back the locks of a client that vanished.
_SESSION = (
    "-c idle_session_timeout=0 -c idle_in_transaction_session_timeout=0 "
    r"-c default_transaction_isolation=read\ committed "
    "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=15 -c tcp_keepalives_count=4 -c tcp_user_timeout=90000"
)
#: What variables such as PGTZ would override; and where the functions of TimescaleDB are, whatever the search path is.
SETUP = (
    "SELECT set_config('timezone', 'UTC', false), set_config('datestyle', 'ISO', false), (SELECT set_config("
    "'search_path', current_setting('search_path') || ', ' || quote_ident(nspname), false) FROM pg_extension e "
    "JOIN pg_namespace n ON n.oid = e.extnamespace WHERE extname = 'timescaledb')"
)
#: How long a server that answered before is waited for: as long as a restart takes.
_PATIENCE = 20.0
#: A kept connection has the server prepare what it was asked so often: what psycopg does by itself.
_PREPARED = 5
#: Idle connections that are kept: for SQL, and for Arrow.
_KEPT, _READERS = 8, 4
_DENIED = (
    "Check TIMESCALEDB_USER, TIMESCALEDB_PASSWORD, TIMESCALEDB_DBNAME and sslmode, or the URL, or ~/.pgpass; a new "
    "database is made with createdb."
)
HINTS = {
    "28P01": _DENIED,
    "53300": "All connections of the server (max_connections), the database or the role are taken: end some, or run "
    "the same command again later.",
    "53100": "Free some space on the server's disk and run the same command again: what was committed stays.",
    "42703": "A kind of data has gained a column since: `hdi ingest ...`, with the role that ingests, adds it.",
    "42501": "The role lacks a right: docs/database-roles.md lists what ingesting and reading need.",
    "25006": "The server is a replica, or the role is read-only: docs/database-roles.md says which role ingests.",
    "40P01": "Another session was in the way; run the same command again.",
    "55P03": "Another session holds a lock; run the same command again.",
    "57014": "The statement was cancelled, or took longer than the role's statement_timeout allows.",
}
_GONE = ("57P", "08")
#: What carries no code: refused connections, and answers that broke off.
_SAID = {
    "No space left on device": "53100", "too many clients": "53300", "too many connections": "53300",
    "connection slots": "53300", "no password supplied": "28P01", "terminating connection": "57P01",
    "statement timeout": "57014", "user request": "57014", "lock timeout": "55P03",
}  # fmt: skip
_RESTARTING = ("starting up", "shutting down", "recovery mode", "not yet accepting")
_SSL = "Check sslmode and sslrootcert (TIMESCALEDB_SSLMODE, TIMESCALEDB_SSLROOTCERT, or in the URL), and the server's."
_UNREACHABLE = (
    "Is it running? (`make timescaledb` or `docker compose up -d timescaledb` starts one.) Check TIMESCALEDB_HOST, "
    "TIMESCALEDB_PORT or the URL, then run the same command again: what was committed stays."
)


Out = TypeVar("Out")


class Database:
    """One database. Thread-safe; connections are made when they are needed."""

    def __init__(self, url: str, connect_seconds: int) -> None:
        try:
            given = conninfo_to_dict(url)
        except psycopg.ProgrammingError:  # what it says may hold the password
            raise RequestError(
                "the store's URL is not one that PostgreSQL knows",
                "Write postgresql://user@host:5432/dbname?sslmode=require.",
            ) from None
        known: dict[str, Any] = {**_DEFAULTS, "connect_timeout": connect_seconds, **given}
        options = given.get("options") or os.environ.get("PGOPTIONS", "")
        self.conninfo = make_conninfo(
            "", **known | {"client_encoding": "UTF8", "options": f"{options} {_SESSION}".strip()}
        )
        host, port = known.get("host") or "localhost", known.get("port") or 5432
        self.location = f"{host}:{port}/{known.get('dbname') or known.get('user') or ''}"
        user = f"{known['user']}@" if known.get("user") else ""
        #: The address without its password and parameters.
        self.url = f"postgresql://{user}{self.location}"
        self._seconds = connect_seconds
        self._answered = False
        self._threads = threading.Lock()
        self._idle: list[psycopg.Connection] = []
        self._readers: list[Reader] = []

    def connect(self, *, autocommit: bool = False) -> psycopg.Connection:
        """A new connection, for who holds it long. A server that answered before may be on its way back."""
        patience = _PATIENCE if self._answered else None
        for attempt in stamina.retry_context(on=_unreachable, attempts=None if patience else 1, timeout=patience):
            with attempt:
                connection = psycopg.connect(self.conninfo, autocommit=True)
        connection.execute(SETUP)
        connection.autocommit = autocommit
        self._answered = True
        return connection

    @contextlib.contextmanager
    def session(self) -> Iterator[psycopg.Connection]:
        """A connection that is kept for others: commits at the end, rolls back when it is left by an exception."""
        connection = self._kept() or self.connect(autocommit=True)
        try:
            with connection.transaction():
                yield connection
        finally:
            self._keep(connection)

    def lent(self) -> psycopg.Connection:
        """A connection for one long transaction, which is begun; to be given back."""
        connection = self._kept() or self.connect(autocommit=True)
        # Each transaction is planned by what there is when it runs.
        connection.autocommit, connection.prepare_threshold = False, None
        return connection

    def give_back(self, connection: psycopg.Connection) -> None:
        """Keep a lent connection for others, unless its transaction did not end well."""
        if connection.info.transaction_status == TransactionStatus.IDLE:
            connection.autocommit, connection.prepare_threshold = True, _PREPARED
        self._keep(connection)

    def found(self, query: sql.Composed) -> list[tuple[Any, ...]]:
        """The answer to one statement that changes nothing, in one round trip; made for numbers and text."""
        return self.asked(lambda connection: connection.execute(query, binary=True).fetchall())

    def asked(self, ask: Callable[[psycopg.Connection], Out]) -> Out:
        """What ``ask`` gives of a kept connection, by statements that change nothing and need no transaction.

        One that broke meanwhile is noticed by that: it is asked again on another.
        """
        while True:
            with self._threads:
                kept = self._idle.pop() if self._idle else None
            connection = kept or self.connect(autocommit=True)
            try:
                return ask(connection)
            except psycopg.OperationalError:
                if kept is None or not kept.closed:
                    raise
            finally:
                self._keep(connection)

    def _keep(self, connection: psycopg.Connection) -> None:
        """Keep a connection for others, or close it: one that is not at rest, or one too many."""
        with self._threads:
            keep = connection.info.transaction_status == TransactionStatus.IDLE and len(self._idle) < _KEPT
            if keep:
                self._idle.append(connection)
        if not keep:
            connection.close()

    def _kept(self) -> psycopg.Connection | None:
        """A connection that is there and answers; those that broke meanwhile are dropped, however many.

        psycopg's own pool waits longer and longer for each of them, though the server is there again.
        """
        while True:
            with self._threads:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            try:
                connection.execute("")
            except psycopg.OperationalError:
                connection.close()
            else:
                return connection

    def batches(self, query: sql.Composable) -> Iterator[pa.RecordBatch]:
        """The answer to a query as Arrow batches of bounded size; NUMERIC and JSON are text."""
        reader, answer = self._ask(query.as_string())
        whole = False
        try:
            with contextlib.closing(answer):
                yield from answer
            whole = True
        finally:
            # A connection whose answer was not read to its end has a COPY under way: it is not used again.
            with self._threads:
                keep = whole and len(self._readers) < _READERS
                if keep:
                    self._readers.append(reader)
            if not keep:
                reader.close()

    def rows(self, query: sql.Composed, kinds: Mapping[str, pl.DataType]) -> pl.DataFrame:
        """The answer to a query that has few rows; connecting for Arrow takes longer than they do."""
        with self.session() as connection:
            return pl.DataFrame(connection.execute(query).fetchall(), schema=kinds, orient="row")

    def _ask(self, text: str) -> tuple[Reader, Generator[pa.RecordBatch]]:
        from hdi.stores.timescaledb.arrow import Reader, ReadError

        with self._threads:
            kept = self._readers.pop() if self._readers else None
        if kept is not None:
            try:
                return kept, kept.ask(text)
            except ReadError as exc:
                kept.close()
                if exc.state and not exc.state.startswith(_GONE):
                    raise
                # The server was started anew since: a new connection decides.
        if kept is not None or not self._answered:
            self.connect().close()  # psycopg says why not, and waits for a server that is on its way back
        reader = Reader(self.conninfo, plain=True)
        try:
            return reader, reader.ask(text)
        except BaseException:
            reader.close()
            raise

    def close(self) -> None:
        """Close what is open."""
        with self._threads:
            idle, self._idle = self._idle, []
            readers, self._readers = self._readers, []
        for connection in idle:
            connection.close()
        for reader in readers:
            reader.close()


def _unreachable(exc: Exception) -> bool:
    """True for a server that may come back by itself, not for one that said no; such errors carry no code."""
    if not isinstance(exc, psycopg.OperationalError):
        return False
    said = str(exc)
    if (code := state_of(said)) is not None:
        return code.startswith(_GONE)
    return "FATAL" not in said or any(word in said for word in _RESTARTING)


def state_of(said: str) -> str | None:
    """The code of a refusal that came without one."""
    return next((code for words, code in _SAID.items() if words in said), None)


@contextlib.contextmanager
def guard(database: Database) -> Iterator[None]:
    """Turn what psycopg, its pool and ADBC raise into a StoreError that names the database."""
    try:
        yield
    except HdiError:
        raise
    except psycopg.Error as exc:
        if isinstance(exc, psycopg.ProgrammingError) and exc.sqlstate is None:
            raise  # said by the driver, not by the server: a fault of ours
        raise _refusal(database, exc, exc.sqlstate) from exc
    except Exception as exc:
        from hdi.stores.timescaledb.arrow import ReadError

        if isinstance(exc, ReadError):
            raise _refusal(database, exc, exc.state) from exc
        raise


def guarded(database: Database, items: Iterator[Out]) -> Iterator[Out]:
    """The same items; what goes wrong while they come is raised as by :func:`guard`."""
    with guard(database):
        yield from items


def _refusal(database: Database, exc: Exception, state: str | None) -> StoreError:
    where = f"the database {database.location}"
    said = " ".join(str(exc).split())
    state = state or state_of(said)
    lost = StoreLost(f"{where} is gone or cannot be reached: {said}", _UNREACHABLE)
    if state == "53100":
        return StoreError(f"no space left for {where}: {said}", HINTS[state])
    if state:
        hint = HINTS.get(state, "A unit at hand was not stored.")
        return lost if state.startswith(_GONE) else StoreError(f"{where} refused: {said}", hint)
    if "not support SSL" in said or "certificate" in said:
        return StoreError(f"{where} refused: {said}", _SSL)
    if "FATAL" in said and not any(word in said for word in _RESTARTING):
        return StoreError(f"{where} refused: {said}", _DENIED)
    if isinstance(exc, psycopg.OperationalError) or "[libpq]" in said:
        return lost
    return StoreError(f"{where} refused: {said}", "A unit at hand was not stored.")

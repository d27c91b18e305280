"""The TimescaleDB of a run, and databases on it that are made for a round and dropped after it.

``HDI_TEST_TIMESCALEDB=postgresql://...`` names a server (its user creates databases and the extension); without it a
private one is made with the programs of ``scripts/timescaledb.py``, and its data are deleted at the end.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psycopg
from benchmarks.measure import ROOT
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Over those of scripts/timescaledb_server.py: no checkpoint has to come in the middle of a round.
SETTINGS = {"shared_buffers": "1GB", "max_wal_size": "8GB"}
SHOWN = (
    "shared_buffers", "work_mem", "max_wal_size", "checkpoint_timeout", "wal_compression", "full_page_writes", "fsync",
    "synchronous_commit", "jit",
)  # fmt: skip
NAMED = "HDI_TEST_TIMESCALEDB"
_TIMESCALEDB = "SELECT default_version FROM pg_available_extensions WHERE name = 'timescaledb'"


class Missing(Exception):
    """No server can be had; says why."""


@contextlib.contextmanager
def databases() -> Iterator[Databases]:
    """A server for this run. Raises Missing."""
    with contextlib.ExitStack() as stack:
        named = os.environ.get(NAMED)
        dsn = named or stack.enter_context(_private())
        made = Databases(dsn, f"named by {NAMED}" if named else "a private server on this machine")
        stack.callback(made.close)
        yield made


@contextlib.contextmanager
def _private() -> Iterator[str]:
    """The DSN of a server of this run's own; killed at the end, when nothing of it matters any more."""
    sys.path.append(str(ROOT / "scripts"))
    from timescaledb_server import MAJOR, Server, Unavailable, usual_home  # type: ignore[import-not-found]

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    with contextlib.ExitStack() as stack:
        try:
            usual = usual_home(say)
            server = Server(usual / "benchmark", programs=usual / f"pg{MAJOR}", say=say)
            with server.locked():
                owner = stack.enter_context((server.home / "owner").open("a"))
            try:
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Missing("another run of the benchmarks has its server") from None
            server.kill()  # of a run that was killed
            server.wipe()
            stack.callback(shutil.rmtree, server.home, ignore_errors=True)
            stack.callback(server.kill)
            dsn = server.start(**SETTINGS)
        except Unavailable as error:
            raise Missing(str(error)) from None
        yield dsn


class Databases:
    """Makes and drops databases on one server. ``about`` says which server it is, and its settings."""

    def __init__(self, dsn: str, where: str) -> None:
        self._dsn, self._count = dsn, 0
        self._kept: list[str] = []
        try:
            self._admin = psycopg.connect(dsn, autocommit=True, connect_timeout=10)
        except psycopg.Error as error:
            raise Missing(f"the server {where} cannot be reached: {' '.join(str(error).split())}") from None
        version = self._ask(_TIMESCALEDB)
        if version is None:
            self._admin.close()
            raise Missing(f"the server {where} has no TimescaleDB")
        self._superuser = self._ask("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        settings = {name: self._ask("SELECT current_setting(%s)", name) for name in SHOWN}
        self.about: dict[str, Any] = {
            "server": where, "timescaledb": version, "postgresql": str(self._ask("SHOW server_version")).split()[0],
            "settings": settings,
        }  # fmt: skip

    @contextlib.contextmanager
    def fresh(self) -> Iterator[str]:
        """The URL of an empty database with the extension; dropped at the end.

        What earlier rounds left for the server to write is written before, where its user may ask for that.
        """
        url = self._make()
        try:
            if self._superuser:
                self._admin.execute("CHECKPOINT")
            yield url
        finally:
            self._drop(url)

    def kept(self) -> str:
        """The URL of an empty database that stays until the end of the run."""
        url = self._make()
        self._kept.append(url)
        return url

    def bytes_of(self, url: str) -> int:
        """What the database takes on the server's disk."""
        return int(self._ask("SELECT pg_database_size(%s)", urlsplit(url).path[1:]))

    def close(self) -> None:
        """Drop what was kept."""
        for url in self._kept:
            self._drop(url)
        self._admin.close()

    def _make(self) -> str:
        self._count += 1
        name = f"hdi_benchmark_{os.getpid()}_{self._count}"
        self._admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        url = urlsplit(self._dsn)._replace(path=f"/{name}").geturl()
        with psycopg.connect(url, autocommit=True) as database:
            database.execute("SET client_min_messages = error")
            database.execute("CREATE EXTENSION timescaledb")
        return url

    def _drop(self, url: str) -> None:
        name = sql.Identifier(urlsplit(url).path[1:])
        self._admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))

    def _ask(self, query: str, *parameters: str) -> Any:
        row = self._admin.execute(query, parameters).fetchone()
        return None if row is None else row[0]

"""pg_dump and pg_restore: found in the version that the server needs, and run without a password in their arguments."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

from hdi.errors import RequestError, StoreError

_VERSION = re.compile(r"\) (\d+)")
_SYSTEM = Path("/usr/lib/postgresql")
_SAID = 2_000
_END = (
    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
    "WHERE datname = current_database() AND application_name = %s"
)
#: What would undo what these programs set for themselves, and what is none of their business: keys among it.
_UNDO, _OURS = ("PGOPTIONS",), ("HDI_", "DATABENTO_", "TIMESCALEDB_")


def program(name: str, major: int, folder: Path | None) -> Path:
    """A program of PostgreSQL of that version or newer: older ones refuse. RequestError where there is none."""
    found: dict[Path, int] = {}
    for path in _candidates(name, folder):
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)  # noqa: S603  (no shell)
        if (version := _VERSION.search(said.stdout)) is not None:
            found[path] = int(version[1])
    good = {path: version for path, version in found.items() if version >= major}
    if not good:
        seen = ", ".join(f"{path} is of {version}" for path, version in found.items()) or "none was found"
        raise RequestError(
            f"{name} of PostgreSQL {major} or newer is needed for this server: {seen}",
            f"Install postgresql-client-{major}, or name its folder with TIMESCALEDB_PROGRAMS (timescaledb.programs).",
        )
    return min(good, key=lambda path: good[path])


def _candidates(name: str, folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        if (folder / name).is_file():
            yield folder / name
        return
    if (known := shutil.which(name)) is not None:
        yield Path(known)
    yield from sorted(_SYSTEM.glob(f"*/bin/{name}"))


def environment(conninfo: str) -> dict[str, str]:
    """The variables that tell libpq what a connection string says, the password among them."""
    given = conninfo_to_dict(conninfo)
    known = {o.keyword.decode(): o.envvar.decode() for o in Conninfo.get_defaults() if o.envvar}
    told = {known[key]: str(value) for key, value in given.items() if key in known and value is not None}
    told = {key: value for key, value in told.items() if key not in (*_UNDO, "PGCLIENTENCODING")}
    return {key: value for key, value in os.environ.items() if key not in _UNDO and not key.startswith(_OURS)} | told


def run(path: Path, arguments: Sequence[str], conninfo: str, *, name: str = "") -> str:
    """What a program prints. StoreError, with what it said, when it fails.

    ``name``: under which the server knows it.
    """
    env = environment(conninfo) | ({"PGAPPNAME": name} if name else {})
    done = subprocess.run(  # noqa: S603  (no shell)
        [path, *arguments], env=env, capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode:
        raise failed(path, done.stderr)
    return done.stdout


def end_left(connection: psycopg.Connection, name: str) -> None:
    """End what outlived a process that was killed: the sessions that a program of that name has in this database."""
    connection.execute(_END, (name,))


def failed(path: Path, said: str) -> StoreError:
    """The error for a program that ended badly."""
    return StoreError(f"{path.name} failed: {' '.join(said.split())[-_SAID:]}", "Nothing was kept of it.")


def database_of(conninfo: str) -> str:
    """The name of the database."""
    given = conninfo_to_dict(conninfo)
    return str(given.get("dbname") or given.get("user") or "")


__all__ = ["database_of", "end_left", "environment", "failed", "program", "run"]

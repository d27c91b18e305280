"""What ``hdi doctor`` says of a database: the extension, the layout, the server's settings, TLS."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from hdi.model import Finding
from hdi.stores.timescaledb import layout
from hdi.stores.timescaledb.connect import Database
from hdi.stores.timescaledb.editions import edition

#: A query locks every chunk that it may touch.
_LOCKS = 256


def inspected(database: Database) -> list[Finding]:
    """The findings of a database that can be reached."""
    with database.session() as connection:
        found = [_extension(connection), _layout(connection), *_settings(connection), *_encrypted(connection)]
    return [*found, _timezone(database)]


def _extension(connection: psycopg.Connection) -> Finding:
    row = connection.execute(
        "SELECT current_setting('server_version'), "
        "(SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'), "
        "(SELECT default_version FROM pg_available_extensions WHERE name = 'timescaledb')"
    ).fetchone()
    server, version, available = row if row is not None else ("", None, None)
    if version is not None:
        kind = (edition(connection) or "unknown").capitalize()
        said = f"TimescaleDB {version}, {kind} edition, on PostgreSQL {server.split()[0]}"
        if available in (None, version):
            return Finding("extension", "pass", said)
        return Finding(
            "extension", "warn", f"{said}; the server has {available} installed",
            "Run ALTER EXTENSION timescaledb UPDATE as the first command of a session (psql -X).",
        )  # fmt: skip
    if available is None:
        return Finding(
            "extension", "fail", f"PostgreSQL {server.split()[0]} has no TimescaleDB",
            "Install it, and set shared_preload_libraries = 'timescaledb'; docs/timescaledb-server.md says how.",
        )  # fmt: skip
    return Finding(
        "extension", "warn", f"TimescaleDB {available} is installed, and not yet in this database",
        "The first command that writes makes it where the role may: CREATE EXTENSION timescaledb.",
    )  # fmt: skip


def _layout(connection: psycopg.Connection) -> Finding:
    """Opening it has refused a layout that is too new."""
    made = layout.version(connection)
    if made is None:
        return Finding("store layout", "pass", "no tables yet")
    if made == layout.LAYOUT:
        return Finding("store layout", "pass", f"version {made}, the one that this version of hdi makes")
    return Finding(
        "store layout", "warn", f"version {made}; this version of hdi makes {layout.LAYOUT}",
        "The next command that writes brings it forward, such as hdi ingest.",
    )  # fmt: skip


def _settings(connection: psycopg.Connection) -> Iterator[Finding]:
    row = connection.execute("SELECT current_setting('max_locks_per_transaction')::int").fetchone()
    locks = row[0] if row is not None else 0
    name = "max_locks_per_transaction"
    if locks >= _LOCKS:
        yield Finding(name, "pass", str(locks))
    else:
        yield Finding(
            name, "warn", f"{locks}: too few for a query over many chunks",
            f"ALTER SYSTEM SET max_locks_per_transaction = {_LOCKS}, then restart the server.",
        )  # fmt: skip


def _encrypted(connection: psycopg.Connection) -> Iterator[Finding]:
    row = connection.execute(
        "SELECT ssl, version, inet_server_addr() IS NULL OR inet_server_addr() <<= '127.0.0.0/8' "
        "OR inet_server_addr() = '::1' FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    ).fetchone()
    if row is None:
        yield Finding("server TLS", "not measured", "the server does not say whether the connection is encrypted")
    elif row[0]:
        yield Finding("server TLS", "pass", f"the connection is encrypted ({row[1]})")
    elif row[2]:
        yield Finding("server TLS", "pass", "the connection is not encrypted, and does not leave this machine")
    else:
        yield Finding(
            "server TLS", "warn", "the connection is not encrypted",
            "Set TIMESCALEDB_SSLMODE=verify-full (docs/database-roles.md).",
        )  # fmt: skip


def _timezone(database: Database) -> Finding:
    """That of a session that asks for nothing: of psql, not of ours, which is always UTC."""
    given = {k: v for k, v in conninfo_to_dict(database.conninfo).items() if k != "options"}
    with psycopg.connect(make_conninfo("", **given), autocommit=True) as connection:
        row = connection.execute("SELECT current_setting('TimeZone'), current_database()").fetchone()
    zone, name = row if row is not None else ("", "")
    if zone in ("UTC", "Etc/UTC", "GMT", "Etc/GMT", "Etc/UCT", "UCT", "Zulu", "Etc/Zulu"):
        return Finding("time zone", "pass", f"sessions of the database begin in {zone}")
    return Finding(
        "time zone", "warn", f"sessions of the database begin in {zone}: dates in SQL are days there, not UTC days",
        f"ALTER DATABASE {name} SET timezone = 'UTC'",
    )  # fmt: skip


__all__ = ["inspected"]

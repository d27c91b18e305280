"""A database brought back: a dump by pg_restore into a database without a store, or tables into one that lacks them."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from hdi.errors import CorruptFile, RequestError, StoreError
from hdi.stores import check_origin
from hdi.stores.timescaledb import layout
from hdi.stores.timescaledb.books import SAID, SYMBOLS, names_of
from hdi.stores.timescaledb.commit import settle_origin
from hdi.stores.timescaledb.programs import database_of, end_left, environment, failed, program, run
from hdi.stores.timescaledb.saving import DUMP, ENDING, contents, wanted
from hdi.stores.upkeep import known_tables, unequal

if sys.version_info >= (3, 14):
    from compression import zstd  # type: ignore[import-not-found, unused-ignore]
else:
    from backports import zstd

if TYPE_CHECKING:
    from hdi.stores.timescaledb import TimescaleDB

_CHUNK = 1 << 20
_HEAD = re.compile(rb"COPY (\S+) \((.*)\) FROM stdin;")
_MADE = (
    "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE c.relkind IN ('r', 'p', 'v') AND n.nspname = current_schema() AND c.relname = ANY(%s) LIMIT 1"
)
#: What TimescaleDB writes down between the beginning of a restore and its end.
_RESTORING = (
    "SELECT FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase "
    "WHERE d.datname = current_database() AND 'timescaledb.restoring=on' = ANY(s.setconfig)"
)
_LOCK = "SELECT pg_try_advisory_lock(hashtextextended(current_schema() || ':hdi:restore', 0))"
#: The name under which the server knows our pg_restore, which outlives a process that is killed.
_AT_WORK = "hdi restore"
_VERSION = "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'"


def refuse(store: TimescaleDB, about: Mapping[str, Any], tables: Sequence[str]) -> None:
    """See :meth:`hdi.stores.upkeep.Saved.refuse_restore`."""
    if about["type"] != "timescaledb":
        raise RequestError(
            f"the backup is of a {about['type']}, and {store.url} is a database",
            "Restore it to a store of its own kind; `hdi migrate` copies that into this one.",
        )
    saved = about.get("copied")
    rows = [s.table for s in store.schemas if s.table in about["tables"]]
    chosen = known_tables(tables, rows) or (rows if saved is not None else [])
    with store.database.session() as connection:
        (major,) = connection.execute("SELECT current_setting('server_version_num')::int / 10000").fetchone() or (0,)
        there = layout.columns_of(connection)
        for table in chosen:
            if table in there and _has_rows(connection, table):
                raise RequestError(
                    f"{store.url} has rows in {table} already", "A table is restored where it is empty, or gone."
                )
        if not chosen:
            _refuse_full(store, connection, about)
    if saved is None:
        program("pg_restore", max(int(major), about["server_version_num"] // 10_000), store.options.programs)
        packed = [t for t in chosen if any(compressed for *_, compressed in about["chunks"].get(t, ()))]
        if packed:
            raise RequestError(
                f"{packed[0]} has compressed chunks, which come back only with the whole database",
                "Restore the backup without --tables to a new database, and look at the table there.",
            )


def _has_rows(connection: psycopg.Connection, table: str) -> bool:
    query = sql.SQL("SELECT EXISTS (SELECT FROM {})").format(sql.Identifier(table))
    return connection.execute(query).fetchone() == (True,)


def _refuse_full(store: TimescaleDB, connection: psycopg.Connection, about: Mapping[str, Any]) -> None:
    """RequestError for a database that holds tables of a store, or whose TimescaleDB is another one."""
    made = _made(store, connection)
    if made is not None and connection.execute(_RESTORING).fetchone() is None:
        raise RequestError(
            f"the database {store.database.location} is not empty: it has {made}",
            "Restore into a new one: createdb NAME, and hdi --store postgresql://.../NAME restore ...",
        )
    (schema,) = connection.execute("SELECT current_schema()").fetchone() or (None,)
    if schema != about["schema"]:
        raise RequestError(
            f"the backup is of the schema {about['schema']}, and this session works in {schema}",
            "Give the same search path in the URL (options=-csearch_path%3D...).",
        )
    there = connection.execute(_VERSION).fetchone()
    known = connection.execute(
        "SELECT 1 FROM pg_available_extension_versions WHERE name = 'timescaledb' AND version = %s",
        (about["timescaledb"],),
    ).fetchone()
    if (there is not None and there[0] != about["timescaledb"]) or (there is None and known is None):
        raise RequestError(
            f"the backup is of TimescaleDB {about['timescaledb']}, and this server has "
            f"{there[0] if there else 'another version'}: a dump comes back only into the same version",
            "Restore it with that version and update then (ALTER EXTENSION timescaledb UPDATE), or `hdi migrate` from "
            "a server that has it.",
        )


def _made(store: TimescaleDB, connection: psycopg.Connection) -> str | None:
    """A table of a store that the database has."""
    row = connection.execute(_MADE, ([*layout.tables(store.schemas), "hdi_meta", "hdi_units"],)).fetchone()
    return row[0] if row else None


def restore(
    store: TimescaleDB, folder: Path, about: Mapping[str, Any], tables: Sequence[str]
) -> Mapping[str, Any]:  # fmt: skip
    """See :meth:`hdi.stores.upkeep.Saved.restore`."""
    if not tables and about.get("copied") is None:
        return _full(store, folder, about)
    chosen = sorted(set(tables)) or [s.table for s in store.schemas if s.table in about["tables"]]
    with store.database.session() as connection:
        if not layout.current(connection, store.schemas):
            layout.make(connection, store.schemas)
    found: dict[str, Any] = {}
    for table in chosen:
        found |= _table(store, folder, about, table)
    return found


def _full(store: TimescaleDB, folder: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """The whole database, in one transaction, and what it holds then."""
    path = program("pg_restore", about["server_version_num"] // 10_000, store.options.programs)
    with _alone(store) as connection:
        if connection.execute(_VERSION).fetchone() is None:
            create = sql.SQL("CREATE EXTENSION timescaledb SCHEMA public VERSION {}")
            connection.execute(create.format(sql.Literal(about["timescaledb"])))
        store.database.close()  # its sessions do not know of the extension, or of what comes now
        store.step("restore")
        try:
            # One that died may have got so far that only its end is missing.
            if _made(store, connection) is None:
                _load_dump(store, path, folder)
        finally:
            _ask(store, "SELECT public.timescaledb_post_restore()")
        store.database.close()  # a session that was open keeps the state of restoring
        _ask(store, "ANALYZE")
    with store.database.session() as session:
        there = layout.columns_of(session)
        return contents(session, [name for name in about["tables"] if name in there], there)


@contextlib.contextmanager
def _alone(store: TimescaleDB) -> Iterator[psycopg.Connection]:
    """A session, while no other process restores to the database; what one that died has left at work is ended."""
    connection = store.database.connect(autocommit=True)
    try:
        if connection.execute(_LOCK).fetchone() != (True,):
            raise StoreError(
                f"another process restores to {store.database.location}", "Run the same command when it has ended."
            )
        end_left(connection, _AT_WORK)
        yield connection
    finally:
        connection.close()


def _load_dump(store: TimescaleDB, path: Path, folder: Path) -> None:
    _ask(store, "SELECT public.timescaledb_pre_restore()")
    conninfo = store.database.conninfo
    run(
        path,
        [f"--dbname={database_of(conninfo)}", "--single-transaction", "--exit-on-error", "--no-owner",
         "--no-privileges", "--no-password", str(folder / DUMP)],
        conninfo, name=_AT_WORK,
    )  # fmt: skip


def _ask(store: TimescaleDB, statement: str) -> None:
    connection = store.database.connect(autocommit=True)
    try:
        connection.execute("SET statement_timeout = 0")
        connection.execute(statement)
    finally:
        connection.close()


def _table(store: TimescaleDB, folder: Path, about: Mapping[str, Any], table: str) -> dict[str, Any]:
    """One table with its superseded rows, and what the books say of it, in one transaction."""
    if about["origin"] is not None:
        check_origin(store, about["origin"])
    connection = store.database.connect()
    try:
        store.step("lock")
        connection.execute("SET LOCAL statement_timeout = 0")
        # Every commit writes to the ledger: none comes between.
        connection.execute("SET LOCAL lock_timeout = 0")
        connection.execute("LOCK TABLE ingest_units IN SHARE ROW EXCLUSIVE MODE")
        if _has_rows(connection, table):
            raise RequestError(f"{store.url} has got rows in {table} meanwhile", "Nothing of it was changed.")
        settle_origin(connection, store, about["origin"])
        saved, past = about.get("copied") or about["tables"], f"{table}_history"
        books = {book: rows for book, rows in wanted(store.schemas, table).items() if book in saved}
        connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(past)))
        names = {table: table, past: past} | {book: f"restored_{book}" for book in books}
        for book, temporary in names.items():
            if book in books:
                make = sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT * FROM {} WITH NO DATA")
                connection.execute(make.format(sql.Identifier(temporary), sql.Identifier(book)))
        store.step("rows")
        _load(store, connection, folder, about, names)
        store.step("books")
        _keep_books(store, connection, books)
        there = layout.columns_of(connection)
        found = contents(connection, [table, past], there)
        said = {name: about["tables"][name] for name in (table, past) if name in about["tables"]}
        if (error := unequal(store.url, said, found)) is not None:
            raise error
        store.step("commit")
        connection.commit()
    finally:
        connection.close()  # the server forgets what was not committed
    return found


def _keep_books(store: TimescaleDB, connection: psycopg.Connection, books: Mapping[str, sql.Composable]) -> None:
    """The books of the table are those of the backup; of what all tables share, what is lacking comes."""
    there = layout.columns_of(connection)
    strange = connection.execute(
        "SELECT b.unit FROM restored_ingest_units b JOIN hdi_units u ON u.unit = b.unit WHERE u.unit_id <> b.unit_id "
        "LIMIT 1"
    ).fetchone()
    if strange is not None:
        raise RequestError(
            f"{store.url} has given number {strange[0]} to a unit of its own",
            "A table comes back into the store that it was saved from, or into an empty one.",
        )
    for book, condition in books.items():
        columns = [c for c in there[book] if c != "seq"]
        names, temporary = names_of(columns), sql.Identifier(f"restored_{book}")
        if book == "hdi_units":
            query = sql.SQL("INSERT INTO {book} ({names}) SELECT {names} FROM {temporary} ON CONFLICT DO NOTHING")
        elif book in (SYMBOLS.name, SAID.name):
            query = sql.SQL(
                "INSERT INTO {book} ({names}) SELECT {names} FROM {temporary} b WHERE NOT EXISTS (SELECT FROM {book} t "
                "WHERE ROW({theirs}) IS NOT DISTINCT FROM ROW({ours})) ORDER BY seq"
            )
        else:
            delete = sql.SQL("DELETE FROM {} WHERE {}").format(sql.Identifier(book), condition)
            connection.execute(delete)
            query = sql.SQL(
                "INSERT INTO {book} ({names}) SELECT {names} FROM {temporary} WHERE {condition} ORDER BY seq"
            )
        connection.execute(
            query.format(
                book=sql.Identifier(book), names=names, temporary=temporary, condition=condition,
                theirs=sql.SQL(", ").join(sql.Identifier("t", c) for c in columns),
                ours=sql.SQL(", ").join(sql.Identifier("b", c) for c in columns),
            )
        )  # fmt: skip


def _load(
    store: TimescaleDB, connection: psycopg.Connection, folder: Path, about: Mapping[str, Any],
    names: Mapping[str, str],
) -> None:  # fmt: skip
    """Load tables of a backup into others: from files of COPY, or out of a dump."""
    if (copied := about.get("copied")) is None:
        _from_dump(store, connection, folder, about, names)
        return
    for name, target in names.items():
        if name not in copied:
            continue
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(
            sql.Identifier(target), names_of(copied[name])
        )
        with (
            zstd.open(folder / "tables" / f"{name}{ENDING}", "rb") as file,
            connection.cursor().copy(statement) as copy,
        ):
            while data := file.read(_CHUNK):
                copy.write(data)


def _from_dump(
    store: TimescaleDB, connection: psycopg.Connection, folder: Path, about: Mapping[str, Any],
    names: Mapping[str, str],
) -> None:  # fmt: skip
    """Load tables out of a dump: pg_restore writes them as text, which goes on to the server as it comes."""
    path = program("pg_restore", about["server_version_num"] // 10_000, store.options.programs)
    targets = {f"{about['schema']}.{name}": target for name, target in names.items()}
    for name, target in names.items():
        targets |= {f"{schema}.{chunk}": target for schema, chunk, _ in about["chunks"].get(name, ())}
    wished = {tuple(known.split(".")) for known in targets}
    entries = []
    for line in run(path, ["--list", str(folder / DUMP)], store.database.conninfo).splitlines():
        words = line.split()
        if words[3:5] == ["TABLE", "DATA"] and tuple(words[5:7]) in wished:
            entries.append(line)
    with tempfile.TemporaryDirectory() as temporary:
        listed = Path(temporary) / "list"
        listed.write_text("\n".join(entries) + "\n", encoding="utf-8")
        with subprocess.Popen(  # noqa: S603  (no shell)
            [path, "--data-only", f"--use-list={listed}", "--file=-", str(folder / DUMP)],
            env=environment(store.database.conninfo), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            if process.stdout is None or process.stderr is None:
                raise StoreError("pg_restore has no output")
            loaded = _pass_on(connection, process.stdout, targets)
            said = process.stderr.read().decode(errors="replace")
        if process.returncode:
            raise failed(path, said)
    if loaded != len(entries):
        raise CorruptFile(f"the dump gave {loaded} of {len(entries)} tables", "Use another backup.")


def _pass_on(connection: psycopg.Connection, lines: Iterator[bytes], targets: Mapping[str, str]) -> int:
    """Give the rows of each COPY of a script to the server; how many there were."""
    loaded = 0
    for line in lines:
        if (head := _HEAD.match(line)) is None:
            continue
        table = head[1].decode().replace('"', "")
        columns = [c.strip().strip('"') for c in head[2].decode().split(",")]
        statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(targets[table]), names_of(columns))
        with connection.cursor().copy(statement) as copy:
            held: list[bytes] = []
            size = 0
            for row in lines:
                if row == b"\\.\n":
                    break
                held.append(row)
                size += len(row)
                if size >= _CHUNK:
                    copy.write(b"".join(held))
                    held, size = [], 0
            copy.write(b"".join(held))
        loaded += 1
    return loaded


__all__ = ["refuse", "restore"]

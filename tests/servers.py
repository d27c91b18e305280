"""TimescaleDB for tests: one server for all workers, fresh databases on it, and private servers that may be killed."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))
from timescaledb_server import BY_TESTS, PORT, PORTS, Server, Unavailable, is_free, make_folder, usual_home

__all__ = ["NAME", "Databases", "Server", "Unavailable", "make_layout", "named", "private", "shared"]

PREFIX = "hdi_test_"
BASE = "timescaledb"
#: Databases of tests live for seconds, and need not outlast the machine. (Servers that are killed write as usual.)
QUICK = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
NAME = "the server of scripts/timescaledb.py"


@contextlib.contextmanager
def shared():
    """The DSN of this clone's own server. Whoever is last stops it, unless a person started it."""
    server = Server(usual_home(_hush), say=_hush)
    make_folder(server.home)
    with (server.home / "users").open("a") as users:
        with server.locked():
            fcntl.flock(users, fcntl.LOCK_SH)
            idle = server.pid is None
            dsn = server.start(**(QUICK if idle else {}))
            if idle:
                (server.home / BY_TESTS).touch()
        try:
            yield dsn
        finally:
            with server.locked(), contextlib.suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if (server.home / BY_TESTS).exists():
                    server.stop()
                    (server.home / BY_TESTS).unlink()


@contextlib.contextmanager
def named(dsn):
    """The DSN of a server that somebody else runs."""
    if urlsplit(dsn).scheme not in ("postgresql", "postgres"):
        raise Unavailable("HDI_TEST_TIMESCALEDB is not a URL of the form postgresql://user@host:port/dbname")
    yield dsn


@contextlib.contextmanager
def private():
    """A callable that makes a server whose data are nobody else's; at the end they are killed and their data gone.

    It is not started yet: ``start(fsync="off")`` and so on. Programs are shared with this clone's server.
    """
    usual = usual_home(_hush)
    folder = usual / "private"
    Server(usual, say=_hush).install()
    with contextlib.ExitStack() as stack:

        def make():
            _bury(folder)
            home = folder / uuid.uuid4().hex[:8]
            port = stack.enter_context(_reserved(range(PORT + PORTS, PORT + 5 * PORTS)))
            server = Server(home, port, programs=usual / "pg17", say=_hush)
            with server.locked():
                owner = stack.enter_context((home / "owner").open("a"))
                fcntl.flock(owner, fcntl.LOCK_EX)
            stack.callback(_remove, server)
            return server

        yield make


@contextlib.contextmanager
def _reserved(ports):
    """A port that no other test takes, even while the server that listens there is down."""
    folder = Path(tempfile.gettempdir()) / f"hdi-test-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for port in ports:
        with (folder / str(port)).open("a") as claim:
            try:
                fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if is_free(port):
                yield port
                return
    raise Unavailable(f"each port from {ports.start} to {ports.stop - 1} of 127.0.0.1 is taken")


def _remove(server):
    server.kill()
    shutil.rmtree(server.home)


def _bury(folder):
    """Kill and remove what test runs left that were killed."""
    for home in folder.glob("*/owner"):
        with contextlib.suppress(BlockingIOError, FileNotFoundError), home.open("a") as owner:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(Server(home.parent))


def _hush(_):
    """Nothing: what matters is said at the end of the run."""


class Databases:
    """Databases of one test run, copied from templates of which there is one for all its workers."""

    def __init__(self, dsn, run, worker="main", *, ours=False):
        self.dsn, self._worker = dsn, worker
        self._mine = f"{PREFIX}{run}_"
        self._count = 0
        self._ready = set()
        self._drops = ThreadPoolExecutor(1, thread_name_prefix="drop-databases")
        self._dropped = []
        try:
            self._admin = psycopg.connect(dsn, autocommit=True, connect_timeout=10)
        except psycopg.Error as error:
            raise Unavailable(f"the server cannot be reached: {' '.join(str(error).split())}") from None
        with contextlib.ExitStack() as stack:
            stack.callback(self._admin.close)
            self.version = self._versions()
            self._ask("SELECT pg_advisory_lock_shared(%s)", _key(self._mine))
            if ours:
                self._sweep()
            stack.pop_all()

    def fresh(self, template=BASE, prepare=None):
        """The URL of a database that nobody has used: a copy of a template.

        The template is ``timescaledb`` (the extension, and nothing else) or one that ``prepare(url)`` makes of that;
        it is called once in a run.
        """
        self._count += 1
        name = f"{self._mine}{self._worker}_{self._count}"
        # To write each page of the template into the log takes twice as long as to copy its files.
        self._do("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy", name, self._template(template, prepare))
        return self.url(name)

    @staticmethod
    def programs():
        """The folder of the programs that the server of this clone came with."""
        return Server(usual_home(_hush), say=_hush)._bin

    def url(self, name):
        """The URL of a database of this server."""
        return urlsplit(self.dsn)._replace(path=f"/{name}").geturl()

    def drop(self, url):
        """The database is gone, whoever is connected to it."""
        self._do("DROP DATABASE IF EXISTS {} WITH (FORCE)", urlsplit(url).path[1:])

    def _drop_beside(self, url):
        name = sql.Identifier(urlsplit(url).path[1:])
        with psycopg.connect(self.dsn, autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))

    @contextlib.contextmanager
    def kept(self):
        """A callable like :meth:`fresh`, whose databases are dropped at the end."""
        made = []

        def fresh(template=BASE, prepare=None):
            made.append(self.fresh(template, prepare))
            return made[-1]

        try:
            yield fresh
        finally:
            # The server waits for its disk: that needs not be waited for here.
            self._dropped += [self._drops.submit(self._drop_beside, url) for url in made]

    def close(self):
        """The last worker of a run leaves nothing of it behind."""
        self._drops.shutdown(wait=True)
        for each in self._dropped:
            each.result()
        self._ask("SELECT pg_advisory_unlock_shared(%s)", _key(self._mine))
        self._drop_all(self._mine)
        self._admin.close()

    def _versions(self):
        ((postgresql, default),) = self._ask(
            "SELECT current_setting('server_version'), (SELECT default_version FROM pg_available_extensions "
            "WHERE name = 'timescaledb')"
        )
        if default is None:
            raise Unavailable(f"the server (PostgreSQL {postgresql}) has no TimescaleDB")
        return f"TimescaleDB {default}, PostgreSQL {postgresql.split()[0]}"

    def _template(self, name, prepare):
        full = f"{self._mine}t_{name}"
        if name not in self._ready:
            self._ask("SELECT pg_advisory_lock(%s)", _key(full))
            try:
                if not self._ask("SELECT 1 FROM pg_database WHERE datname = %s AND NOT datallowconn", full):
                    self._make(full, name, prepare)
            finally:
                self._ask("SELECT pg_advisory_unlock(%s)", _key(full))
            self._ready.add(name)
        return full

    def _make(self, full, name, prepare):
        """The template, closed to everybody: whoever is connected to it (the extension's workers, too) stops copies."""
        self._do("DROP DATABASE IF EXISTS {} WITH (FORCE)", full)
        if name == BASE:
            self._do("CREATE DATABASE {} TEMPLATE template0", full)
            with psycopg.connect(self.url(full), autocommit=True) as database:
                database.execute("SET client_min_messages = error")
                database.execute("CREATE EXTENSION timescaledb")
        elif prepare is None:
            raise LookupError(f"nobody has said how the template {name!r} is made")
        else:
            self._do("CREATE DATABASE {} TEMPLATE {}", full, self._template(BASE, None))
            prepare(self.url(full))
        self._do("ALTER DATABASE {} ALLOW_CONNECTIONS false", full)
        self._ask("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", full)

    def _sweep(self):
        """Drop what runs left that were killed: nobody holds their lock."""
        names = [
            name for (name,) in self._ask("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", PREFIX)
        ]
        for run in {name.split("_")[2] for name in names}:
            self._drop_all(f"{PREFIX}{run}_")

    def _drop_all(self, prefix):
        """Drop the databases of a run, unless one of its workers still needs them."""
        if self._ask("SELECT pg_try_advisory_lock(%s)", _key(prefix)) == [(True,)]:
            for (name,) in self._ask("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", prefix):
                self._do("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)
            self._ask("SELECT pg_advisory_unlock(%s)", _key(prefix))

    def _do(self, command, *names):
        self._admin.execute(sql.SQL(command).format(*map(sql.Identifier, names)))

    def _ask(self, query, *parameters):
        return self._admin.execute(query, parameters).fetchall()


def make_layout(url):
    """Make the tables of an empty store: a template for databases that have them."""
    from hdi.testing import opened

    opened(url).close()


def _key(text):
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], signed=True)

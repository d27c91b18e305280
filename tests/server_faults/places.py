"""Driving real ingestion into a database on a server, and everything that came of it or was left behind there."""

import re
import time
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from hdi.testing.material import State
from lakes import NAMES as EVERYTHING
from lakes import Place

PATIENCE = 30.0
#: What most of the tests store, and in how small batches where they break a COPY.
NAMES, BATCH = ("trades",), 500
#: What is under way in a database, but for the session that asks and the server's own workers.
SESSIONS = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
    "AND backend_type = 'client backend'"
)
LOCKS = (
    "SELECT l.locktype, l.mode FROM pg_locks l JOIN pg_database d ON d.oid = l.database "
    "WHERE d.datname = current_database() AND l.pid <> pg_backend_pid()"
)
TEMPORARY = "SELECT relname FROM pg_class WHERE relpersistence = 't'"
HYPERTABLES = (
    "SELECT hypertable_name FROM timescaledb_information.hypertables WHERE hypertable_schema = current_schema()"
)
ORPHANS = "SELECT count(*) FROM {} WHERE _unit NOT IN (SELECT unit FROM ingest_units)"
#: Numbers of units are reserved, and given to the next attempt.
TABLES = (
    "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' "
    "AND relname NOT IN ('hdi_units', 'hdi_meta')"
)
HASH = "SELECT count(*), sum(hashtextextended(t::text, 0)) FROM {} t"
CUT = "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid IN ({})"
ALIVE = "SELECT FROM pg_stat_activity WHERE pid = ANY(%s)"


class ServerPlace(Place):
    """One database with its data and dead-letter folders."""

    @contextmanager
    def handle(self, **options):
        """An open store, closed at the end."""
        with closing(self.open(**options)) as store:
            yield store

    def admin(self):
        """A session of somebody else's."""
        return psycopg.connect(self.address, autocommit=True)

    def cut(self, sessions=SESSIONS):
        """End sessions from the server's side; how many there were."""
        with self.admin() as connection:
            ended = [pid for pid, _ in connection.execute(CUT.format(sessions)).fetchall()]
            until(lambda: not connection.execute(ALIVE, (ended,)).fetchall(), "the end of the sessions")
        return len(ended)

    def state(self, names=EVERYTHING):
        """Everything there is, without run names, times, the folder and the address."""
        with self.handle() as store:
            everything = [State.of(store, names), self.dlq(), self.raw()]
            said = store.url
        return [repr(part).replace(str(self.folder), "").replace(said, "") for part in everything]

    def fingerprint(self):
        """Rows and a hash of each table, whatever a commit could change."""
        with self.admin() as connection:
            tables = [name for (name,) in connection.execute(TABLES).fetchall()]
            return {name: connection.execute(sql.SQL(HASH).format(sql.Identifier(name))).fetchone() for name in tables}

    def leftovers(self):
        """What no work that has ended leaves, in the folders and on the server."""
        files = (p for p in self.folder.rglob("*") if p.is_file())
        found = [str(p) for p in files if re.search(r"\.part$|/\.[^/]+\.json\.", str(p))]
        return found + self.left_on_server()

    def left_on_server(self):
        """Sessions, locks, temporary tables and rows of no commit, when the server had a moment to clear up."""
        end = time.monotonic() + PATIENCE
        while (found := self._left_now()) and time.monotonic() < end:
            time.sleep(0.02)
        return found

    def _left_now(self):
        with self.admin() as connection:
            found = [row for query in (SESSIONS, LOCKS, TEMPORARY) for row in connection.execute(query).fetchall()]
            for (table,) in connection.execute(HYPERTABLES).fetchall():
                query = sql.SQL(ORPHANS).format(sql.Identifier(table))
                found += [(table, rows) for (rows,) in connection.execute(query).fetchall() if rows]
        return found


def beside(url, **parts):
    """The URL with another user, password, host, port or database."""
    found = urlsplit(url)
    user, password = parts.get("user", found.username), parts.get("password")
    login = f"{user}:{password}@" if password else f"{user}@"
    place = f"{parts.get('host', found.hostname)}:{parts.get('port', found.port)}"
    return f"postgresql://{login}{place}/{parts.get('dbname', found.path[1:])}"


def until(true, what="what is waited for"):
    """What ``true`` gives as soon as it gives something."""
    end = time.monotonic() + PATIENCE
    while not (found := true()):
        assert time.monotonic() < end, f"{what} does not happen"
        time.sleep(0.002)
    return found


def once(step, act, *, nth=1):
    """A listener that does something at that occurrence of a step."""
    left = [nth]

    def on_step(name):
        if name == step:
            left[0] -= 1
            if not left[0]:
                act()

    return on_step

"""A private server with databases on it, which a test may kill, stop and fill up."""

import threading
import time
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from hdi.testing.material import opened
from server_faults.places import until

#: Its processes are killed, never the machine: what it wrote is there. Few connections, so that they can be used up.
SETTINGS = {"fsync": "off", "full_page_writes": "off", "max_connections": "40", "shared_buffers": "32MB"}
LAYOUT = "layout"


class Cluster:
    """A server, from its start on; databases are copies of one that has the tables of this version."""

    def __init__(self, server):
        self.server = server
        self._made = 0
        self.start()
        self.do("CREATE DATABASE {}", LAYOUT)
        opened(self.server.dsn(LAYOUT)).close()
        self.do("ALTER DATABASE {} ALLOW_CONNECTIONS false", LAYOUT)
        until(lambda: not self.ask("SELECT FROM pg_stat_activity WHERE datname = %s", LAYOUT))

    def start(self, **settings):
        """It runs."""
        self.server.start(**(SETTINGS | settings))

    def crash(self):
        """Every process of it is gone at once."""
        self.server.kill()

    def crash_and_return(self):
        """It was killed, and runs again."""
        self.crash()
        self.start()

    def restart(self):
        """It was stopped in good order, and runs again."""
        self.server.stop()
        self.start()

    def return_later(self, seconds):
        """It comes back by itself; the thread that sees to it."""
        thread = threading.Thread(target=lambda: (time.sleep(seconds), self.start()))
        thread.start()
        return thread

    def fresh(self, template=LAYOUT, rest=""):
        """The URL of a database that nobody has used."""
        self._made += 1
        name = f"db{self._made}"
        self.do("CREATE DATABASE {} TEMPLATE {} " + rest, name, template)
        return self.server.dsn(name)

    def drop(self, url):
        """A database is gone, whoever uses it."""
        self.do("DROP DATABASE {} WITH (FORCE)", urlsplit(url).path[1:])

    def do(self, command, *parts):
        """Run a command of the superuser; parts of it are names, or paths."""
        told = [sql.Identifier(p) if isinstance(p, str) else sql.Literal(str(p)) for p in parts]
        with psycopg.connect(self.server.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL(command).format(*told))

    def ask(self, query, *parameters):
        """What the superuser is answered."""
        with psycopg.connect(self.server.dsn(), autocommit=True) as connection:
            return connection.execute(query, parameters).fetchall()

"""What a server refuses, or that it is gone, is one clear error: exit 5, what to do, no traceback, no password."""

import contextlib
import os
import shutil
import socket

import psycopg
import pytest

import servers
from hdi.cli import run
from hdi.testing import Load, opened, trades
from hdi.testing.material import START
from server_faults.clusters import SETTINGS
from server_faults.places import ServerPlace, beside

SECRET = "s3cret-w0rd"
QUERY = ("query", "-s", "ESH4", "--schema", "trades", "--start-date", "2024-01-02", "--end-date", "2024-01-02")


@pytest.fixture
def refused(capfd):
    """What a command line says that ends with a code; it is one error, and shows neither a traceback nor a password."""

    def call(url, *arguments, code=5):
        capfd.readouterr()
        assert run(["--store", url, *map(str, arguments)]) == code
        out, err = capfd.readouterr()
        assert out == ""
        assert "error: " in err
        assert "Traceback" not in err
        assert SECRET not in err
        return err

    return call


@pytest.fixture
def commands(paths):
    """One that writes and one that reads."""
    return ("ingest", "--api", "dbn", paths[0]), QUERY


@pytest.fixture
def role(cluster):
    """Makes a role that may log in, and no more; its URL of a database."""

    def make(url, name, rest="", password=SECRET):
        cluster.do(f"CREATE ROLE {{}} LOGIN PASSWORD '{password}' {rest}", name)
        made.append((name, url.rpartition("/")[2]))
        return beside(url, user=name, password=password)

    made = []
    yield make
    for name, database in made:
        with psycopg.connect(cluster.server.dsn(database), autocommit=True) as connection:
            connection.execute(f"DROP OWNED BY {name}")
        cluster.do("DROP ROLE {}", name)


@pytest.fixture
def guarded(cluster):
    """Logins of the role ``guarded`` need its password."""
    rules = cluster.server.data / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f"host all guarded 127.0.0.1/32 scram-sha-256\n{before}")
    cluster.ask("SELECT pg_reload_conf()")
    yield
    rules.write_text(before)
    cluster.ask("SELECT pg_reload_conf()")


def test_a_port_that_nobody_listens_on(refused, commands):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"postgresql://postgres:{SECRET}@127.0.0.1:{taken.getsockname()[1]}/hdi"
        for command in commands:
            said = refused(url, *command)
            assert "is gone or cannot be reached" in said
            assert "Is it running?" in said


def test_a_host_that_nobody_knows(refused, commands):
    said = refused(f"postgresql://postgres:{SECRET}@nowhere.invalid/hdi", *commands[0])
    assert "nowhere.invalid" in said
    assert "Check TIMESCALEDB_HOST" in said


@pytest.mark.usefixtures("guarded")
def test_a_wrong_password(refused, commands, cluster, role):
    url = cluster.fresh()
    right = role(url, "guarded", password="the-right-one")
    for command in commands:
        said = refused(beside(right, password=SECRET), *command)
        assert "password authentication failed" in said
        assert "Check TIMESCALEDB_USER, TIMESCALEDB_PASSWORD" in said


@pytest.mark.usefixtures("guarded")
def test_a_password_that_is_missing(refused, commands, cluster, role):
    url = cluster.fresh()
    role(url, "guarded")
    said = refused(beside(url, user="guarded"), *commands[0])
    assert "TIMESCALEDB_PASSWORD" in said


def test_a_database_that_does_not_exist(refused, commands, cluster):
    for command in commands:
        said = refused(cluster.server.dsn("no_such_database"), *command)
        assert 'database "no_such_database" does not exist' in said
        assert "createdb" in said


def test_a_role_without_rights(refused, commands, cluster, role):
    url = cluster.fresh()
    Load(trades([START])).commit(opened(url))
    bare = cluster.fresh("template0")
    stranger, second = role(url, "stranger"), role(bare, "second")
    for address in (stranger, second):
        said = refused(address, *commands[0])
        assert "permission denied" in said
        assert "docs/database-roles.md" in said
    said = refused(stranger, *commands[1])
    assert "permission denied" in said
    assert "docs/database-roles.md" in said


def test_a_server_on_which_all_connections_are_taken(refused, commands, cluster, role):
    url = role(cluster.fresh(), "guest")
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                stack.enter_context(contextlib.closing(psycopg.connect(url)))
        for command in commands:
            said = refused(url, *command)
            assert "connection" in said
            assert "max_connections" in said
            assert "Check TIMESCALEDB_USER" not in said


def test_a_role_whose_connections_are_counted(refused, commands, cluster, role):
    url = role(cluster.fresh(), "lonely", "CONNECTION LIMIT 0")
    said = refused(url, *commands[0])
    assert "too many connections" in said
    assert "Check TIMESCALEDB_USER" not in said


def test_a_server_without_the_extension(refused, commands, cluster):
    programs = cluster.server.programs
    if not programs.is_dir() or cluster.server._bin.is_relative_to("/usr"):
        pytest.skip("the server is the system's own, which tests leave alone")
    bare = cluster.server.home / "programs"
    shutil.copytree(programs, bare, copy_function=os.link, symlinks=True)
    [control] = bare.glob("usr/share/postgresql/*/extension/timescaledb.control")
    control.unlink()
    with servers.private() as make:
        server = make()
        server.programs = bare
        server.start(**SETTINGS)
        said = refused(server.dsn(), *commands[0])
        assert "the server has no TimescaleDB" in said
        assert "--store lake:PATH" in said


def test_a_statement_that_takes_longer_than_the_role_may(refused, commands, cluster, role, tmp_path):
    url = cluster.fresh()
    limited = role(url, "limited", "SUPERUSER")
    cluster.do("ALTER ROLE {} SET statement_timeout = 200", "limited")
    with psycopg.connect(url) as connection:
        connection.execute("LOCK TABLE ingest_units")
        for command in commands:
            said = refused(limited, *command)
            assert "statement timeout" in said
            assert "statement_timeout" in said.splitlines()[-1]
    assert ServerPlace(tmp_path, {}, address=url).left_on_server() == []


def test_a_lock_that_is_not_given_in_time(refused, commands, cluster, role):
    url = cluster.fresh()
    hasty = role(url, "hasty", "SUPERUSER")
    cluster.do("ALTER ROLE {} SET lock_timeout = 50", "hasty")
    with psycopg.connect(url) as connection:
        connection.execute("LOCK TABLE ingest_units")
        for command in commands:
            said = refused(hasty, *command)
            assert "lock timeout" in said
            assert "run the same command again" in said


@pytest.mark.parametrize("url", [
    f"postgresql://postgres:{SECRET}@/x@127.0.0.1/hdi", f"postgresql://postgres:{SECRET}@127.0.0.1:99999/hdi",
    f"postgresql://postgres:{SECRET}@127.0.0.1/hdi?sslmode=never", f"postgresql://postgres:{SECRET}@127.0.0.1/hdi?no_such=1",
])  # fmt: skip
def test_a_wrong_url_is_the_users_error(refused, commands, url):
    refused(url, *commands[0], code=2)

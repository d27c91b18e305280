"""The roles of docs/database-roles.md do their work on a real server, and no more than that."""

import contextlib
import re
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict

from hdi.errors import StoreError
from hdi.model import DAY_NS, Query, Window
from hdi.query import run
from hdi.schema_files import load_schemas
from hdi.stores import open_store
from hdi.testing.material import ALWAYS, START, Load, content, schemas, trades

PAGE = (Path(__file__).parents[2] / "docs" / "database-roles.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sql\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
NAMES = ("hdi_ingest", "hdi_read", "hdi_daily")
PASSWORDS = dict(zip(NAMES, ("one-password", "another-password", "a-third-password"), strict=True))
TABLES = [s.table for s in load_schemas()]


@pytest.fixture
def roles(fresh_database, fresh_roles):
    """The page's SQL, run by the server's superuser: the URLs of its roles by the names that the page gives them."""
    return with_roles(fresh_database(), fresh_roles)


@pytest.fixture
def loaded(roles):
    """The same, when the role that ingests has loaded three trades."""
    with store(roles["hdi_ingest"], write=True) as ingesting:
        load().commit(ingesting)
    return roles


def with_roles(url, fresh_roles):
    named = {name: fresh_roles(url, name) for name in NAMES}
    text = "\n".join(BLOCKS).replace("hist_data", sql.Identifier(urlsplit(url).path[1:]).as_string())
    for name, own in named.items():
        text = re.sub(rf"\b{name}\b", own, text)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(text)
    return {name: as_role(url, own, PASSWORDS[name]) for name, own in named.items()} | {"": url}


def as_role(url, role, password):
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{role}:{password}@{host}").geturl()


@contextlib.contextmanager
def store(url, *, write=False):
    with contextlib.closing(open_store(url, schemas(), write=write)) as found:
        yield found


def load(start=START, **rest):
    times = [start, start + 1, start + 2]
    return Load(trades(times), window=Window(start, start + DAY_NS), **rest)


def refused(url, *statements):
    """The codes with which the server refuses the statements, even to a session that is not read-only by itself."""
    codes = set()
    for statement in statements:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            with pytest.raises(errors.Error) as caught:
                connection.execute(statement)
            codes.add(caught.value.sqlstate)
    return codes


def test_the_page_makes_its_roles_and_no_superuser(roles):
    for name in NAMES:
        url = roles[name]
        role = conninfo_to_dict(url)["user"]
        with psycopg.connect(url) as connection:
            row = connection.execute(
                "SELECT rolsuper, rolcreatedb, rolcreaterole, rolbypassrls, rolreplication FROM pg_roles "
                "WHERE rolname = %s",
                (role,),
            ).fetchone()
        assert row == (False,) * 5


def test_the_role_that_ingests_makes_tables_loads_replaces_and_reads(roles):
    with store(roles["hdi_ingest"], write=True) as ingesting:
        load().commit(ingesting)
        changed = Load(trades([START, START + 1, START + 2], prices=7), run="run-2")
        assert changed.commit(ingesting).superseded == 3
        load(START + DAY_NS).commit(ingesting)
        assert content(ingesting).height == 6
        trades_schema, _ = schemas().find("trades")
        assert ingesting.replaced(trades_schema).height == 3
    with psycopg.connect(roles["hdi_ingest"]) as connection:
        owners = connection.execute(
            "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public' OR tablename LIKE '%%_chunk'"
        ).fetchall()
    assert owners == [(conninfo_to_dict(roles["hdi_ingest"])["user"],)]


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_role_that_reads_queries_through_the_store_and_by_sql(fresh_database, fresh_roles, when):
    url = fresh_database()
    if when == "after":  # the roles come to tables that somebody else has made
        with store(url, write=True) as first:
            load().commit(first)
    urls = with_roles(url, fresh_roles)
    if when == "before":
        with store(urls["hdi_ingest"], write=True) as first:
            load().commit(first)
    with store(urls["hdi_read"]) as reading:
        assert run(reading, schemas(), Query("trades", ("ES.FUT",), ALWAYS)).collect().height == 3
        assert reading.health()["tables"]["trades_data"]["rows"] == 3
        assert (reading.ledger().height, reading.quarantine().height) == (1, 0)
    with psycopg.connect(urls["hdi_read"]) as connection:
        views = connection.execute("SELECT viewname FROM pg_views WHERE schemaname = 'public'").fetchall()
        for (view,) in views:
            connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(view)))
    assert len(views) >= 9


def test_the_role_that_reads_cannot_write(loaded):
    with pytest.raises(StoreError, match="may only be read") as told, store(loaded["hdi_read"], write=True):
        pass
    assert "database-roles" in told.value.hint
    with pytest.raises(StoreError, match="refused"), store(loaded["hdi_read"], write=False) as reading:
        load(START + DAY_NS).commit(reading)
    denied = refused(
        loaded["hdi_read"],
        *(f"DELETE FROM {table}" for table in TABLES), *(f"INSERT INTO {table} DEFAULT VALUES" for table in TABLES),
        "UPDATE hdi_meta SET value = '0'", "DELETE FROM ingest_units", "TRUNCATE coverage",
        "INSERT INTO symbol_mappings (dataset) VALUES ('X')", "DELETE FROM quarantine", "CREATE TABLE mine ()",
        "CREATE TEMP TABLE mine ()", "DROP VIEW ingest_runs", "ALTER TABLE trades_data ADD COLUMN mine TEXT",
    )  # fmt: skip
    assert denied == {errors.InsufficientPrivilege.sqlstate}
    with psycopg.connect(loaded["hdi_read"]) as connection, pytest.raises(errors.ReadOnlySqlTransaction):
        connection.execute("CREATE TABLE mine ()")
    with store(loaded["hdi_ingest"]) as ingesting:
        assert content(ingesting).height == 3


def test_the_daily_role_adds_and_replaces_rows_and_changes_no_table(loaded):
    with store(loaded["hdi_daily"], write=True) as daily:
        load(START + 40 * DAY_NS).commit(daily)  # in a chunk that is not there yet
        assert Load(trades([START, START + 1, START + 2], prices=7), run="run-2").commit(daily).superseded == 3
        assert content(daily).height == 6
    denied = refused(
        loaded["hdi_daily"], "CREATE TABLE mine ()", "DROP TABLE trades_data", "TRUNCATE trades_data",
        "ALTER TABLE trades_data ADD COLUMN mine TEXT", "DROP VIEW ingest_runs",
        "SELECT drop_chunks('trades_data', now())",
    )  # fmt: skip
    assert denied == {errors.InsufficientPrivilege.sqlstate}


def test_the_daily_role_is_told_what_it_lacks_where_there_is_no_table_yet(roles):
    with pytest.raises(StoreError, match="permission denied") as caught, store(roles["hdi_daily"], write=True):
        pass
    assert "docs/database-roles.md" in caught.value.hint


def test_nobody_else_may_connect(roles, fresh_roles):
    stranger = fresh_roles(roles[""], "stranger")
    with psycopg.connect(roles[""], autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'a'").format(sql.Identifier(stranger)))
    with pytest.raises(errors.OperationalError, match="permission denied for database"):
        psycopg.connect(as_role(roles[""], stranger, "a"))


def test_a_role_that_may_create_in_the_database_makes_the_extension(fresh_database, fresh_roles):
    url = fresh_database()
    role = fresh_roles(url, "owner")
    owner, name = sql.Identifier(role), sql.Identifier(urlsplit(url).path[1:])
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP EXTENSION timescaledb")
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'a'").format(owner))
        connection.execute(sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(name, owner))
        connection.execute(sql.SQL("GRANT CREATE ON SCHEMA public TO {}").format(owner))
    with store(as_role(url, role, "a"), write=True) as made:
        assert load().commit(made).stored == 3

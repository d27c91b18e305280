"""``hdi status`` of a server: what its health looks like on the screen and in JSON, and a server that is gone."""

import json
import socket

import pytest

from hdi import settings
from hdi.cli.status import _lines
from hdi.health import measure
from hdi.schema_files import load_schemas
from hdi.stores import open_store

TABLES = {
    "ohlcv_data": {"rows": 1234, "chunks": 3, "bytes": 5 << 20, "compressed_chunks": 2},
    "trades_data": {"rows": 1, "chunks": 1, "bytes": 2048, "compressed_chunks": 0},
}
HEALTH = {
    "type": "timescaledb",
    "version": "2.19.3",
    "server_version": "17.11",
    "edition": "apache",
    "compression": "absent",
    "exists": True,
    "location": "db:5432/hist_data",
    "origin": "databento",
    "layout": 1,
    "tables": TABLES,
    "database_bytes": 3 << 30,
    "free_bytes": None,
}
PRODUCT = "TimescaleDB 2.19.3, PostgreSQL 17.11, Apache edition, which has no compression and no policies"
EMPTY = {"exists": False, "origin": None, "layout": None, "tables": {}}
PASSWORD = "p%40ss%3Aw"


@pytest.fixture
def found(tmp_path):
    """A measured status, with a server's answer in the place of the lake's."""

    def call(**changed):
        given = settings.load(env={"TIMESCALEDB_HOST": "db", "TIMESCALEDB_PASSWORD": "p@ss:w"}, cwd=tmp_path)
        lake = open_store(f"lake:{tmp_path / 'lake'}", load_schemas())
        status = measure(given, load_schemas(), lambda: lake)
        status.store |= HEALTH | changed
        return status

    return call


def shown(status, **asked):
    return _lines(status, **({"comprehensive": False, "check_db": False, "check_api": False} | asked))


def test_the_database_line_names_versions_edition_place_and_rows(found):
    lines = shown(found())
    assert lines[:2] == [
        "System Status: Healthy",
        f"Database: Connected ({PRODUCT}, db:5432/hist_data, 1235 rows in 2 tables)",
    ]
    assert not any("chunk" in line for line in lines)


@pytest.mark.parametrize(("compression", "said"), [("on", "compression on"), ("off", "compression off")])
def test_the_community_edition_says_whether_it_compresses(found, compression, said):
    line = shown(found(edition="community", compression=compression))[1]
    assert f"PostgreSQL 17.11, Community edition, {said}, db:5432/hist_data" in line


def test_synthetic_data_is_called_so(found):
    assert shown(found(origin="synthetic"))[1].endswith("1235 rows in 2 tables, SYNTHETIC data)")


@pytest.mark.parametrize("asked", ["comprehensive", "check_db"])
def test_sizes_and_chunks_show_when_the_store_is_looked_at(found, asked):
    lines = shown(found(), **{asked: True})
    assert lines[2:6] == [
        "  layout of the tables: version 1",
        "  whole database: 3.0 GB",
        "  ohlcv_data: 1234 rows, 3 chunks (2 compressed), 5.0 MB",
        "  trades_data: 1 row, 1 chunk, 2.0 KB",
    ]


def test_a_database_without_tables_is_no_error(found):
    status = found(**EMPTY)
    assert shown(status)[1].endswith("db:5432/hist_data, no tables yet)")
    assert shown(status, check_db=True)[2:4] == ["  layout of the tables: none yet", "  whole database: 3.0 GB"]


def test_a_database_without_the_extension_is_called_so(found):
    line = shown(found(**EMPTY, version="absent", edition=None))[1]
    assert line == "Database: Connected (PostgreSQL 17.11 without TimescaleDB, db:5432/hist_data, no tables yet)"


def test_a_table_that_takes_too_long_to_count_is_not_made_up(found):
    status = found(tables=TABLES | {"tbbo_data": {"rows": None, "chunks": 9, "bytes": 2048, "compressed_chunks": 0}})
    assert shown(status)[1].endswith("at least 1235 rows in 3 tables)")
    assert "  tbbo_data: rows not counted, 9 chunks, 2.0 KB" in shown(status, check_db=True)


def test_free_space_shows_where_the_server_tells_it(found):
    assert "  free on the server: 1.0 GB" in shown(found(free_bytes=1 << 30), check_db=True)


def test_json_carries_it_all_and_no_password(found):
    document = found().to_dict()
    assert {name: document["store"][name] for name in HEALTH} == HEALTH
    assert document["store"]["url"] == "postgresql://:***@db:5432/hist_data"
    assert "p@ss" not in json.dumps(document)


@pytest.fixture
def nobody():
    """A port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.parametrize("given", ["url", "variables"])
def test_a_server_that_is_gone_is_unhealthy_with_a_hint_and_without_the_password(cli, monkeypatch, nobody, given):
    if given == "url":
        monkeypatch.setenv("HDI_STORE", f"postgresql://me:{PASSWORD}@127.0.0.1:{nobody}/db")
    else:
        for name, value in {
            "HOST": "127.0.0.1",
            "PORT": nobody,
            "USER": "me",
            "PASSWORD": "p@ss:w",
            "DBNAME": "db",
        }.items():
            monkeypatch.setenv(f"TIMESCALEDB_{name}", str(value))
    ran = cli("status")
    place = f"postgresql://me:***@127.0.0.1:{nobody}/db"
    assert ran.code == 1
    error, hint = ran.err.splitlines()
    why = error.removeprefix("error: ")
    assert ran.out.startswith(f"System Status: Unhealthy: {why}\nDatabase: Not connected ({place})\n")
    assert error.startswith(f"error: the database 127.0.0.1:{nobody}/db ")
    assert "TIMESCALEDB_HOST" in hint
    asked = cli("--json", "status")
    found = json.loads(asked.out)
    assert (asked.code, found["status"], found["store"]["url"]) == (1, "unhealthy", place)
    assert found["store"]["hint"] == hint
    shown = ran.out + ran.err + asked.out + asked.err
    assert "p@ss" not in shown
    assert PASSWORD not in shown


def test_a_password_that_is_typed_on_the_command_line_is_warned_of_once(cli):
    ran = cli("--store", f"postgresql://me:{PASSWORD}@db/hist", "version")
    assert ran.code == 0
    assert ran.err.startswith("hint: the password in --store can be seen in the list of processes")
    assert ran.err.count("hint") == 1
    assert PASSWORD not in ran.err + ran.out
    for url in ("postgresql://me@db/hist", "lake:somewhere"):
        assert cli("--store", url, "version").err == ""


def test_a_password_from_the_environment_is_not_warned_of(cli, monkeypatch):
    monkeypatch.setenv("HDI_STORE", f"postgresql://me:{PASSWORD}@db/hist")
    assert cli("version").err == ""


def test_a_bad_address_is_exit_2_and_is_not_shown(cli):
    ran = cli("--store", "postgresql://me:se@cret@db/hist", "status")
    assert ran.code == 2
    assert "error: --store: postgresql:***: the form is postgresql://" in ran.err
    assert "cret" not in ran.err + ran.out

"""``hdi status`` on a real server: what it measures, what it leaves alone, and what nobody gets to see."""

import json
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from hdi import HistoricalData

PASSWORD = "p@ss:w/rd"
ENCODED = "p%40ss%3Aw%2Frd"


def with_password(url):
    """The URL with a password, which a server that trusts this machine does not look at."""
    parts = urlsplit(url)
    if parts.password is not None:
        pytest.skip("the server of this run asks for a password of its own")
    return parts._replace(netloc=f"{parts.username}:{ENCODED}@{parts.netloc.partition('@')[2]}").geturl()


def relations(url):
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT oid, relname FROM pg_class ORDER BY oid").fetchall()


@pytest.mark.parametrize(
    "command", [("status",), ("status", "--check-db"), ("status", "--comprehensive"), ("--json", "status")]
)
def test_status_makes_nothing_in_an_empty_database(cli, fresh_database, command):
    url = fresh_database()
    before = relations(url)
    ran = cli("--store", url, *command)
    assert (ran.code, ran.err) == (0, "")
    assert "no tables yet" in ran.out or json.loads(ran.out)["store"]["exists"] is False
    assert relations(url) == before


def test_what_is_stored_is_counted_by_table_and_chunk(cli, fresh_database, demo_home):
    url = fresh_database()
    files = [next((demo_home / "files").glob(f"*.{kind}.*")) for kind in ("statistics", "definition")]
    assert cli("--store", url, "ingest", "--api", "dbn", "--origin", "synthetic", *files).code == 0
    with psycopg.connect(url) as connection:
        extension, server, licence = connection.execute(
            "SELECT extversion, split_part(current_setting('server_version'), ' ', 1), "
            "current_setting('timescaledb.license') FROM pg_extension WHERE extname = 'timescaledb'"
        ).fetchone()
        chunks = dict(
            connection.execute(
                "SELECT hypertable_name, count(*) FROM timescaledb_information.chunks GROUP BY hypertable_name"
            ).fetchall()
        )
    edition = {"apache": "Apache", "timescale": "Community"}[licence]
    lines = cli("--store", url, "status", "--check-db").out.splitlines()
    place = f"{urlsplit(url).hostname}:{urlsplit(url).port}{urlsplit(url).path}"
    assert lines[1].startswith(
        f"Database: Connected (TimescaleDB {extension}, PostgreSQL {server}, {edition} edition, "
    )
    assert lines[1].endswith(f", {place}, 78 rows in 2 tables, SYNTHETIC data)")
    for table, rows in (("statistics_data", 54), ("definitions_data", 24)):
        number = chunks[table]
        shown = f"  {table}: {rows} rows, {number} chunk{'' if number == 1 else 's'}, "
        assert [line.startswith(shown) for line in lines].count(True) == 1
    assert any(line.startswith("  read from statistics: ") for line in lines)
    found = json.loads(cli("--store", url, "--json", "status").out)
    store = found["store"]
    assert (found["status"], store["version"], store["server_version"]) == ("healthy", extension, server)
    assert {name: (t["rows"], t["chunks"]) for name, t in store["tables"].items()} == {
        "statistics_data": (54, chunks["statistics_data"]), "definitions_data": (24, chunks["definitions_data"]),
    }  # fmt: skip
    assert store["origin"] == "synthetic"
    assert found["quarantine"]["exported"] is True
    assert found["last_ingestion"]["result"] == "success"


def test_a_database_that_does_not_exist_is_told_without_the_password(cli, fresh_database, monkeypatch):
    monkeypatch.setenv("HDI_STORE", f"{with_password(fresh_database())}_not")
    ran = cli("--log-level", "DEBUG", "status")
    assert ran.code == 1
    assert "Database: Not connected (postgresql://" in ran.out
    assert "does not exist" in ran.err
    logged = "".join(path.read_text() for path in Path("logs").glob("*.log"))
    for secret in (PASSWORD, ENCODED, "w/rd", "w%2Frd"):
        assert secret not in ran.out + ran.err + logged


def test_the_password_is_in_no_process_title_no_session_and_no_log(fresh_database, monkeypatch):
    url = fresh_database()
    monkeypatch.setenv("HDI_STORE", with_password(url))
    monkeypatch.setenv("LOG_LEVEL", "DEBUG")
    with HistoricalData.open() as data:
        store = data.store(write=True)
        assert store.ledger().is_empty()
        with psycopg.connect(url) as connection:
            sessions = connection.execute("SELECT application_name, query FROM pg_stat_activity").fetchall()
        shown = [repr(data.settings), store.url, json.dumps(data.status().to_dict()), repr(sessions)]
        for title in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                shown.append(title.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:  # it ended meanwhile
                continue
    shown += [path.read_text() for path in Path("logs").glob("*.log")]
    assert any("hdi" in name for name, _ in sessions)
    assert [text for text in shown if PASSWORD in text or ENCODED in text] == []

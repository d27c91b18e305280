"""As it was known, when others have tidied the store: engines that compact a lake, and the server's own commands."""

import time

import polars as pl
import psycopg
from deltalake import DeltaTable
from psycopg import sql

from hdi import HistoricalData
from hdi.model import NS
from hdi.stores import open_store
from hdi.stores.timescaledb.books import UNITS, names_of
from hdi.testing import Load, opened, rejects, trades
from hdi.testing.material import START, schemas
from hdi.then import Then
from laws.known import known, now, shown
from servers import make_layout


def history(store):
    """Days with a few commits each; (the time of each, what the store showed right after)."""
    seen = []
    for k in range(4):
        rows = trades(
            [START + i * NS + 1_001 for i in range(30)], 1, [100 + (k if i % 7 == 0 else i) for i in range(30)]
        )
        Load(rows, rejected=rejects([START + k]), run=f"run-{k}").commit(store)
        store.settle()
        seen.append((now(store), shown(store)))
    return seen


def test_compaction_sorting_and_vacuum_by_another_engine_change_no_answer_of_a_lake(tmp_path):
    lake = opened(str(tmp_path / "lake"))
    seen = history(lake)
    for table in sorted(log.parent for log in (tmp_path / "lake").glob("*/_delta_log")):
        delta = DeltaTable(str(table))
        delta.optimize.compact()
        delta.optimize.z_order([delta.schema().fields[0 if table.name != "trades_data" else 1].name])
        delta.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    for store in (lake, opened(str(tmp_path / "lake"))):
        known(store, seen)
        assert shown(store) == seen[-1][1]
    Load(trades([START + NS]), run="later").commit(lake)
    lake.settle()
    known(opened(str(tmp_path / "lake")), seen)


def test_vacuum_full_and_cluster_change_no_answer_of_a_database(fresh_database):
    url = fresh_database(template="layout", prepare=make_layout)
    store = opened(url)
    seen = history(store)
    with psycopg.connect(url, autocommit=True) as connection:
        for table in ("trades_data_history", "symbol_mappings", "ingest_units", "quarantine", "quarantine_history"):
            connection.execute(f"VACUUM FULL {table}")
        chunks = connection.execute("SELECT show_chunks('trades_data')::text").fetchall()
        for (chunk,) in chunks:
            index = connection.execute(
                "SELECT relname FROM pg_class WHERE oid IN "
                "(SELECT indexrelid FROM pg_index WHERE indrelid = %s::regclass)",
                (chunk,),
            ).fetchone()[0]
            connection.execute(f"CLUSTER {chunk} USING {index}")
            connection.execute(f"VACUUM FULL {chunk}")
    assert chunks
    known(opened(url), seen)


def test_a_database_of_the_second_layout_knows_its_rows_of_then_and_says_what_rejects_it_lost(fresh_database):
    url = fresh_database(template="layout", prepare=make_layout)
    store = opened(url)
    seen = history(store)
    with psycopg.connect(url) as connection:
        connection.execute("ALTER TABLE symbol_mappings DROP COLUMN learned, DROP COLUMN learned_ns")
        connection.execute("DROP TABLE quarantine_history")
        connection.execute("DROP INDEX ingest_units_by_commit")
        connection.execute("UPDATE hdi_meta SET value = '2' WHERE key = 'layout'")
    reader = open_store(url, schemas())
    for when, then in seen:
        found = shown(Then.at(reader, when))
        assert [found[k] for k in ("rows", "coverage", "mappings")] == [
            then[k] for k in ("rows", "coverage", "mappings")
        ]
    [note] = Then.at(reader, seen[0][0]).notes
    assert note.startswith("1 rejected rows of 1 units are kept no longer")
    assert Then.at(reader, seen[-1][0]).notes == []
    with HistoricalData.open(url) as data:
        for (when, _), told in ((seen[0], [note]), (seen[-1], [])):
            made = data.bars("ALL_SYMBOLS", every="1h", as_of=when)
            made.polars()
            assert [line for line in made.notes if "kept no longer" in line] == told
    assert reader.health()["layout"] == 2
    assert shown(opened(url)) == seen[-1][1]
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT to_regclass('ingest_units_by_commit')").fetchone() != (None,)


def test_a_clock_that_was_set_back_turns_no_order_of_commits_whatever_came_between(fresh_database, monkeypatch):
    url = fresh_database(template="layout", prepare=make_layout)
    store = opened(url)
    Load(trades([START])).commit(store)
    columns = names_of(UNITS.stored)
    changed = sql.SQL(", ").join(
        sql.SQL({"unit": "unit + n", "schema": "'ohlcv-1d'"}.get(c, "{}")).format(sql.Identifier(c))
        for c in UNITS.stored
    )  # fmt: skip
    with psycopg.connect(url) as connection:
        connection.execute(
            sql.SQL("INSERT INTO ingest_units ({}) SELECT {} FROM ingest_units, generate_series(1000, 1999) n").format(
                columns, changed
            )
        )
    monkeypatch.setattr(time, "time_ns", lambda: START)
    Load(trades([START], prices=[7])).commit(store)
    own = store.ledger().filter(pl.col("schema") == "trades").sort("unit")["committed_at"]
    assert own[0] < own[1]

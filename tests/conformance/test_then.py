"""As it was known, when others have tidied the store: engines that compact a lake, and the server's own commands."""

import psycopg
from deltalake import DeltaTable

from hdi.model import NS
from hdi.stores import open_store
from hdi.stores.timescaledb.layout import LAYOUT
from hdi.testing import Load, opened, rejects, trades
from hdi.testing.material import START, schemas
from hdi.then import Then
from laws.known import known, now, shown
from servers import make_layout


def history(store):
    """Days with a few commits each; (the time of each, what the store showed right after)."""
    seen = []
    for k in range(6):
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
    known(store, seen)
    known(opened(url), seen)


def test_a_database_of_the_second_layout_knows_its_rows_of_then_and_says_what_rejects_it_lost(fresh_database):
    url = fresh_database(template="layout", prepare=make_layout)
    store = opened(url)
    seen = history(store)
    with psycopg.connect(url) as connection:
        connection.execute("ALTER TABLE symbol_mappings DROP COLUMN learned, DROP COLUMN learned_ns")
        connection.execute("DROP TABLE quarantine_history")
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
    assert reader.health()["layout"] == LAYOUT - 1

"""Handles and databases of different ages: what is newer is refused, new columns are added, a changed type is told."""

from dataclasses import replace

import polars as pl
import psycopg
import pytest

from hdi.errors import StoreError
from hdi.frames import LEDGER
from hdi.schema import Field, Schemas
from hdi.schema_files import load_schemas
from hdi.stores import open_store
from hdi.stores.timescaledb.layout import LAYOUT
from hdi.testing import Load, opened, trades
from hdi.testing.material import START, content, heard, schemas

NEWER = "UPDATE hdi_meta SET value = (value::int + 1)::text WHERE key = 'layout'"
LOAD = Load(trades([START + k for k in range(5)]))
#: What a database of the first layout lacks, and how its view of runs was.
FIRST = """
    DROP VIEW ingest_runs, instruments;
    ALTER TABLE ingest_units DROP COLUMN job, DROP COLUMN batch;
    DROP TABLE day_conditions, quarantine_history, discrepancies;
    ALTER TABLE symbol_mappings DROP COLUMN learned, DROP COLUMN learned_ns;
    CREATE VIEW ingest_runs WITH (security_invoker = true) AS SELECT run, min(committed_at) AS started,
        max(committed_at) AS finished, min(origin) AS origin, array_agg(DISTINCT dataset ORDER BY dataset) AS datasets,
        array_agg(DISTINCT schema ORDER BY schema) AS schemas, count(*) AS units,
        count(*) FILTER (WHERE status = 'failed') AS failed_units, sum(fetched)::bigint AS fetched,
        sum(stored)::bigint AS stored, sum(quarantined)::bigint AS quarantined, sum(unchanged)::bigint AS unchanged,
        sum(superseded)::bigint AS superseded, sum(dollars) AS dollars,
        CASE WHEN bool_or(status = 'failed') THEN 'failed' ELSE 'success' END AS result
    FROM ingest_units GROUP BY run;
    CREATE VIEW instruments WITH (security_invoker = true) AS SELECT DISTINCT ON (dataset, instrument_id, raw_symbol)
        dataset, instrument_id, raw_symbol, ts_recv AS known_from, ts_recv_ns AS known_from_ns, ts_recv AS known_until,
        ts_recv_ns AS known_until_ns, instrument_class, asset, security_update_action FROM definitions_data
    ORDER BY dataset, instrument_id, raw_symbol, ts_recv DESC;
    UPDATE hdi_meta SET value = '1' WHERE key = 'layout';
"""
#: A kind of somebody's own.
NOTICE = """
kind: notice
title: Notices
doc: What somebody was told.
table: notice_data
index_time: ts_recv
names:
  notice: {{grid: month}}
fields:
  ts_recv:
    type: timestamp
    doc: When the message was received.
  action:
    type: integer
    doc: What happened.
{more}
display: [ts_recv, symbol, action]
"""
NOTE = """
  note:
    type: {kind}
    null: true
    doc: What somebody noted.
"""


@pytest.fixture
def url(cluster):
    return cluster.fresh()


@pytest.fixture
def own(tmp_path):
    """The kinds of data with one of somebody's own, which may have a column more."""

    def call(more=""):
        path = tmp_path / "notice.yaml"
        path.write_text(NOTICE.format(more=more))
        return load_schemas([path])

    return call


def next_schemas():
    """The kinds as a later version may have them: trades with one more column."""
    note = Field("note", "bigint", null=True, doc="What somebody noted.")
    return Schemas(replace(s, fields=(*s.fields, note)) if s.kind == "trades" else s for s in schemas())


def test_a_handle_does_not_commit_to_a_layout_that_has_become_newer_meanwhile(url):
    store = opened(url)
    LOAD.commit(store)
    with psycopg.connect(url) as connection:
        connection.execute(NEWER)
    with pytest.raises(StoreError, match="newer hdi") as refused:
        LOAD.with_run("again").commit(store)
    assert refused.value.exit_code == 5


def test_a_handle_that_is_older_than_a_column_goes_on_beside_one_that_knows_it(url):
    old = opened(url)
    LOAD.commit(old)
    new = open_store(url, next_schemas(), write=True)
    schema, _ = next_schemas().find("trades")
    later = replace(LOAD, rows=trades([START + k for k in range(5)], prices=7), run="later")
    assert later.commit(old).superseded == 5
    assert content(old)["price"].unique().to_list() == [7]
    [rows] = new.read(schema, "trades", LOAD.window, None, ["price", "note"])
    assert rows["note"].to_list() == [None] * 5
    assert new.replaced(schema)["price"].to_list() == [100, 101, 102, 103, 104]
    assert new.replaced(schema)["note"].dtype == pl.Int64
    for store in (old, new):
        store.close()


def test_a_database_of_the_first_layout_is_read_as_it_is_and_grows_when_somebody_writes(url):
    LOAD.commit(opened(url))
    with psycopg.connect(url) as connection:
        connection.execute(FIRST)
    reader = open_store(url, schemas())
    assert reader.health()["layout"] == 1
    was = reader.ledger()
    assert was.select("stored", "job", "batch").rows() == [(5, None, None)]
    assert was.schema == LEDGER
    assert reader.conditions().equals(heard())
    assert (content(reader).height, list(reader.instruments())) == (5, [])
    writer = opened(url)
    later = replace(LOAD, run="later", job="nightly", prepared="GLBX-1", heard=heard((0, "available", None, 5)))
    later.commit(writer)
    for store in (reader, writer, open_store(url, schemas())):
        assert store.health()["layout"] == LAYOUT
        assert store.ledger()["batch"].to_list() == [None, "GLBX-1"]
        assert store.ledger().head(1).equals(was)
        assert store.conditions().height == 1
        store.close()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT ordered_units, result FROM ingest_runs").fetchall() == [(0, "success")] * 2
        assert connection.execute("SELECT definitions, publisher_id FROM instruments").fetchall() == []


def test_a_column_that_is_added_to_a_kind_of_ones_own_is_added_to_its_tables(url, own):
    open_store(url, own(), write=True).close()
    schema, name = own(NOTE.format(kind="bigint")).find("notice")
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO notice_data (dataset, instrument_id, publisher_id, data_source, ts_event, ts_event_ns, "
            "ts_recv, ts_recv_ns, action, _unit, _row) VALUES ('X', 1, 1, 'x', now(), 0, now(), 0, 7, 1, 0)"
        )
    store = open_store(url, own(NOTE.format(kind="bigint")), write=True)
    found = pl.concat(store.read(schema, name.name, replace(LOAD.window, end=2**62), None, ["action", "note"]))
    assert found.rows() == [(7, None)]
    store.close()


def test_a_column_of_ones_own_whose_type_is_another_is_told(url, own):
    open_store(url, own(NOTE.format(kind="bigint")), write=True).close()
    with pytest.raises(StoreError, match="note of notice_data is stored as bigint, and is declared as text") as refused:
        open_store(url, own(NOTE.format(kind="text")), write=True)
    assert refused.value.exit_code == 5
    assert "another name" in refused.value.hint

"""TimescaleDB passes the suite that every store has to pass, and keeps what only a database promises."""

import contextlib
import datetime as dt
import time
from dataclasses import replace

import polars as pl
import psycopg
import pytest
import structlog
from psycopg import sql

from hdi.errors import StoreError
from hdi.model import DAY_NS, Window
from hdi.schema import Field, Schemas
from hdi.stores import ServerOptions, open_store
from hdi.stores.timescaledb import layout
from hdi.stores.timescaledb.editions import APACHE, COMMUNITY, compression, compression_of, edition
from hdi.stores.timescaledb.layout import columns_of
from hdi.testing import Load, StoreSuite, content, opened, prices, rejects, trades
from hdi.testing.material import ALWAYS, START, schemas
from servers import make_layout


@pytest.fixture
def fresh_url(fresh_database):
    return lambda: fresh_database(template="layout", prepare=make_layout)


@pytest.fixture
def layout_url(fresh_url):
    return fresh_url()


@pytest.fixture
def capture():
    with structlog.testing.capture_logs() as entries:
        yield entries


class TestTimescaleDB(StoreSuite):
    @pytest.fixture
    def fresh_url(self, fresh_database):
        return lambda: fresh_database(template="layout", prepare=make_layout)

    def footprint(self, url):
        """Rows of every data table, whatever the store makes of them, and sessions that are left in a transaction."""
        with psycopg.connect(url, autocommit=True) as connection:
            count = sql.SQL("SELECT count(*) FROM {}")
            rows = {s.table: connection.execute(count.format(sql.Identifier(s.table))).fetchone() for s in schemas()}
            sessions = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
            )
            deadline = time.monotonic() + 5
            # A session that was closed is seen for another moment.
            while (left := connection.execute(sessions).fetchone()) != (0,) and time.monotonic() < deadline:
                time.sleep(0.01)
        return rows, left


class TestEditions:
    def test_the_apache_edition_is_told_by_the_server(self, fresh_database):
        with psycopg.connect(fresh_database(), autocommit=True) as connection:
            assert edition(connection) == APACHE
            assert compression(connection) == "absent"

    def test_the_community_edition_is_told_by_the_server(self, fresh_database):
        url = fresh_database()
        with psycopg.connect(url, autocommit=True) as connection:
            # What such a server answers; this one has the library of the other edition, and would not load it.
            connection.execute("CREATE SCHEMA told")
            connection.execute(
                "CREATE FUNCTION told.current_setting(text, boolean) RETURNS text LANGUAGE sql AS $$ SELECT "
                "CASE $1 WHEN 'timescaledb.license' THEN 'timescale' ELSE pg_catalog.current_setting($1, $2) END $$"
            )
            connection.execute("SET search_path = told, pg_catalog, public")
            assert edition(connection) == COMMUNITY
            assert compression(connection) == "off"

    def test_what_sets_up_compression_is_understood_and_refused_by_the_apache_edition_alone(self, layout_url):
        with psycopg.connect(layout_url, autocommit=True) as connection:
            for statement in (s for schema in schemas() for s in compression_of(schema, 30)):
                with pytest.raises(psycopg.errors.FeatureNotSupported, match="apache"):
                    connection.execute(statement)

    def test_compression_that_the_edition_lacks_is_said_and_the_store_opens(self, fresh_database, capture):
        store = open_store(fresh_database(), schemas(), write=True, options=ServerOptions(compress=True))
        assert store.health()["compression"] == "absent"
        assert [e["event"] for e in capture if "compression" in e["event"]] != []


class TestLayout:
    def test_tables_are_hypertables_on_their_index_time_with_few_ascending_indexes(self, layout_url):
        with psycopg.connect(layout_url, autocommit=True) as connection:
            found = {
                row[0]: row[1:]
                for row in connection.execute(
                    "SELECT hypertable_name, column_name, time_interval FROM timescaledb_information.dimensions"
                )
            }
            indexes = connection.execute(
                "SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename LIKE '%_data'"
            ).fetchall()
        sparse = {"ohlcv_data", "statistics_data", "definitions_data", "status_data", "imbalance_data"}
        assert found == {
            s.table: (s.index_time, dt.timedelta(days=30 if s.table in sparse else 1)) for s in schemas()
        }  # fmt: skip
        assert len([i for t, i in indexes if t == "trades_data"]) == 1
        assert all("DESC" not in i for _, i in indexes)
        assert len(indexes) == len(found) + len(sparse)

    def test_columns_are_those_of_the_schema_and_prices_are_exact(self, layout_url):
        kinds = {
            pl.Decimal(18, 9): "numeric(18,9)", pl.Int64(): "bigint", pl.Int32(): "integer", pl.Int16(): "smallint",
            pl.Boolean(): "boolean", pl.String(): "text", pl.Datetime("us", "UTC"): "timestamp with time zone",
        }  # fmt: skip
        with psycopg.connect(layout_url, autocommit=True) as connection:
            there = columns_of(connection)
        for schema in schemas():
            assert there[schema.table] == {c: kinds[t] for c, t in schema.stored.items()}
            assert set(there[f"{schema.table}_history"]) > set(schema.stored)

    def test_the_views_are_there(self, layout_url):
        with psycopg.connect(layout_url, autocommit=True) as connection:
            rows = connection.execute("SELECT viewname FROM pg_views WHERE schemaname = 'public'").fetchall()
        wanted = {"daily_ohlcv_data", "instruments", "ingest_runs", *(f"{s.table}_by_symbol" for s in schemas())}
        assert wanted <= {r[0] for r in rows}

    def test_an_empty_database_reads_as_an_empty_store_and_nothing_is_made_in_it(self, fresh_database):
        url = fresh_database()
        store = open_store(url, schemas())
        assert (content(store).height, store.ledger().height, store.health()["exists"]) == (0, 0, False)
        with psycopg.connect(url, autocommit=True) as connection:
            assert columns_of(connection) == {}
        Load(trades([START])).commit(opened(url))
        assert content(store).height == 1

    def test_a_newer_layout_is_refused(self, fresh_url):
        url = fresh_url()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("UPDATE hdi_meta SET value = '99' WHERE key = 'layout'")
        for write in (True, False):
            with pytest.raises(StoreError, match="layout 99"):
                open_store(url, schemas(), write=write)

    def test_an_older_layout_is_brought_forward_by_who_writes_and_told_to_who_reads(self, fresh_url, monkeypatch):
        url = fresh_url()
        Load(trades([START])).commit(opened(url))
        now = layout.LAYOUT
        steps = {**layout.STEPS, now + 1: (sql.SQL("CREATE TABLE hdi_later (told TEXT)"),)}
        monkeypatch.setattr(layout, "STEPS", steps)
        monkeypatch.setattr(layout, "LAYOUT", now + 1)
        monkeypatch.setattr(layout, "READS", now + 1)
        with pytest.raises(StoreError, match=f"layout {now}") as refused:
            open_store(url, schemas())
        assert "hdi ingest" in refused.value.hint
        assert content(opened(url)).height == 1
        with psycopg.connect(url, autocommit=True) as connection:
            assert connection.execute("SELECT value FROM hdi_meta WHERE key = 'layout'").fetchone() == (str(now + 1),)
            assert "hdi_later" in columns_of(connection)

    def test_a_column_that_a_kind_gains_is_added_and_is_null_in_old_rows(self, fresh_url):
        url = fresh_url()
        Load(trades([START])).commit(opened(url))
        grown = [grow(s) if s.kind == "trades" else s for s in schemas()]
        store = open_store(url, Schemas(grown), write=True)
        schema, name = Schemas(grown).find("trades")
        [frame] = store.read(schema, name.name, ALWAYS, None, ["price", "venue_note"])
        assert frame["venue_note"].to_list() == [None]
        assert opened(url).ledger().height == 1

    def test_a_column_of_another_type_is_refused(self, fresh_url):
        url = fresh_url()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ALTER TABLE trades_data_history ALTER COLUMN size TYPE NUMERIC(18,9)")
        with pytest.raises(StoreError, match="size of trades_data_history is stored as numeric"):
            opened(url)


def grow(schema):
    """The kind with one more column."""
    note = Field("venue_note", "text", null=True, doc="What the venue says.")
    return replace(schema, fields=(*schema.fields[:-1], note, schema.fields[-1]))


class TestReach:
    """What a commit or a read touches does not grow with what else is stored."""

    def test_a_replacement_locks_the_chunks_that_it_is_about(self, fresh_url):
        url, days = fresh_url(), 40
        store = opened(url)
        window = Window(START, START + days * DAY_NS)
        Load(trades([START + k * DAY_NS for k in range(days)]), window=window).commit(store)
        seen = []

        def on_step(step):
            if step == "books":
                with psycopg.connect(url) as connection:
                    row = connection.execute(
                        "SELECT count(DISTINCT relation) FROM pg_locks JOIN pg_class c ON c.oid = relation "
                        "WHERE relname LIKE '%\\_hyper\\_%\\_chunk'"
                    ).fetchone()
                    seen.append(row[0])

        load = Load(trades([START + 5], 1, 7), [(1, START, START + DAY_NS)], symbol="ESH4", stype="raw_symbol")
        assert load.commit(opened(url, on_step)).superseded == 1
        assert seen
        assert 0 < max(seen) <= 2

    @pytest.mark.parametrize("instruments", [3, 300])
    def test_a_read_of_many_instruments_gives_those_and_their_order(self, layout_url, instruments):
        store = opened(layout_url)
        at = [START + k * 1_000 for k in range(900)]
        load = Load(trades(at, [1 + k % 900 for k in range(900)]))
        load.commit(store)
        wanted = range(1, 2 * instruments, 2)
        held = pl.DataFrame({"dataset": "GLBX.MDP3", "instrument_id": wanted, "start": 0, "end": ALWAYS.end})
        found = content(store, instruments=held.with_columns(pl.col("start", "end").cast(pl.Int64)))
        assert found.equals(load.rows.filter(pl.col("instrument_id").is_in(list(wanted))))

    def test_a_reader_that_looked_at_every_step_of_a_commit_sees_it_when_it_has_landed(self, layout_url):
        seen = []
        with contextlib.closing(open_store(layout_url, schemas())) as reader:

            def look(step):
                seen.append((step, reader.ledger().height))

            with contextlib.closing(opened(layout_url, on_step=look)) as store:
                for n in (1, 2):
                    seen.clear()
                    window = Window(START + n * DAY_NS, START + (n + 1) * DAY_NS)
                    Load(trades([window.start]), window=window).commit(store)
                    assert ("commit", n - 1) in seen
                    assert reader.ledger().height == n

    def test_two_stores_in_two_schemas_of_one_database_are_apart(self, fresh_database):
        url = fresh_database()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE SCHEMA one")
            connection.execute("CREATE SCHEMA other")
        one, other = (opened(f"{url}?options=-csearch_path%3D{name}") for name in ("one", "other"))
        for store, price in ((one, 1), (other, 2)):
            Load(trades([START], 1, price)).commit(store)
        assert (prices(one), prices(other)) == ([1], [2])

    @pytest.mark.parametrize(("name", "value"), [("PGTZ", "EST5EDT"), ("PGDATESTYLE", "SQL, DMY")])
    def test_variables_of_libpq_change_no_answer(self, layout_url, monkeypatch, name, value):
        monkeypatch.setenv(name, value)
        load = Load(trades([START + 1, START + DAY_NS - 1]), rejected=rejects([START + 2]))
        load.commit(opened(layout_url))
        assert content(opened(layout_url)).equals(load.rows)
        assert opened(layout_url).ledger()["start"].to_list() == [START]


class TestConnections:
    def test_commits_of_a_handle_go_over_one_connection_and_a_failed_one_leaves_none_open(self, layout_url):
        with contextlib.closing(opened(layout_url)) as store, psycopg.connect(layout_url, autocommit=True) as asking:

            def sessions():
                query = "SELECT pid, state FROM pg_stat_activity WHERE datname = current_database() AND pid <> %s"
                return dict(asking.execute(query, (asking.info.backend_pid,)).fetchall())

            Load(trades([START])).commit(store)
            before = sessions()
            for k in range(1, 4):
                day = Window(START + k * DAY_NS, START + (k + 1) * DAY_NS)
                Load(trades([day.start]), window=day).commit(store)
            assert sessions() == before
            assert set(before.values()) == {"idle"}
            load = Load(trades([START], 1, 9))
            with store.replace(load.work(*store.reserve([load.unit.id]))) as writer:
                load.stage(writer, 1)
            deadline = time.monotonic() + 5
            # A session that was closed is seen for another moment.
            while set(sessions().values()) != {"idle"} and time.monotonic() < deadline:
                time.sleep(0.01)
            assert set(sessions().values()) == {"idle"}

"""The same statements to a lake and to a database that hold the same bytes: the same columns, types and rows."""

import contextlib
import csv
import gc
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import duckdb
import polars as pl
import psycopg
import pytest
from polars.testing import assert_frame_equal
from psycopg.conninfo import conninfo_to_dict

from hdi.cli.output import write
from hdi.cli.printable import Printable
from hdi.errors import RequestError, StoreError
from hdi.model import MAX_NS, Window
from hdi.stores import open_store
from hdi.stores.lake.spill import spill_folder
from hdi.stores.lake.sql import Statement
from hdi.stores.lake.sql_names import Names
from hdi.testing.material import schemas
from hdi.then import Then
from same import desk
from same.twins import twins

TABLES = sorted(s.table for s in schemas())
#: Those that :mod:`desk` stores rows of.
FILLED = ("ohlcv_data", "tbbo_data", "trades_data")
#: What differs from run to run, in any table.
PASSING = {"seconds", "committed_at", "committed_at_ns", "_replaced_at", "_replaced_at_ns", "run", "_written_run",
           "_replaced_run", "raw_file", "error", "seq", "learned", "learned_ns", "started", "finished", "seen_at",
           "seen_at_ns"}  # fmt: skip


@pytest.fixture(scope="module")
def pair(address, tmp_path_factory):
    """The pair that holds what :mod:`desk` says."""
    with twins(tmp_path_factory.mktemp("sql"), address) as made:
        desk.fill(made, made.folder / "files")
        yield made


def both(pair, statement, as_of=None):
    """The answers of the two, which must be equal: columns, types, notes and rows in their order."""
    mine, theirs = (store.sql(statement, as_of) for store in pair.stores)
    assert theirs.notes == mine.notes
    left, right = mine.collect(), theirs.collect()
    assert dict(right.schema) == dict(left.schema) == mine.columns == theirs.columns
    assert_frame_equal(right, left, check_exact=True)
    return left


def whole(pair, table, as_of=None):
    """A whole table of both, sorted, without what passes."""
    frames = []
    for store in pair.stores:
        frame = store.sql(f'SELECT * FROM "{table}"', as_of).collect()
        kept = sorted(c for c in frame.columns if c not in PASSING)
        frames.append(frame.select(kept).sort(pl.all().exclude(pl.List), maintain_order=True))
    mine, theirs = frames
    assert_frame_equal(theirs, mine, check_exact=True)
    return mine


VIEWS = ["daily_ohlcv_data", "standing_mappings", "instruments", "ingest_runs", "ingest_units", "coverage",
         "symbol_mappings", "quarantine", "day_conditions", "discrepancies"]  # fmt: skip


@pytest.mark.parametrize("table", [
    *FILLED, "mbp_10_data", *(f"{t}_by_symbol" for t in FILLED), *(f"{t}_history" for t in FILLED), *VIEWS,
])  # fmt: skip
def test_each_table_and_view_has_the_same_rows(pair, table):
    rows = whole(pair, table)
    if table in {"trades_data", "ohlcv_data_by_symbol", "trades_data_history", "standing_mappings", "instruments",
                 "ingest_runs", "coverage", "symbol_mappings", "daily_ohlcv_data"}:  # fmt: skip
        assert rows.height


STATEMENTS = {
    "sums": "SELECT symbol, count(*) AS n, sum(size) AS size, sum(price) AS price FROM trades_data "
            "GROUP BY symbol ORDER BY symbol NULLS LAST",
    "window": "SELECT ts_event, symbol, close_price FROM ohlcv_data WHERE granularity = '1m' AND "
              "ts_event >= '2024-01-03' AND ts_event < '2024-01-03 01:00' "
              "ORDER BY ts_event, instrument_id, dataset, publisher_id, _unit, _row",
    "symbol": "SELECT ts_recv, ts_recv_ns, symbol, asked_symbol, price FROM trades_data_by_symbol "
              "WHERE asked_symbol = 'NGG4' ORDER BY ts_recv, ts_recv_ns, price",
    "with": "WITH a AS (SELECT dataset, size FROM trades_data) SELECT dataset, max(size) AS m FROM a GROUP BY 1 "
            "ORDER BY 1",
    "literals": "SELECT 1 AS i, 9223372036854775807 AS big, CAST(1.5 AS DECIMAL(10, 3)) AS d, 'é' AS t, TRUE AS b, "
                "DATE '2024-01-02' AS day, TIMESTAMP '2024-01-02 03:04:05.678901' AS bare, "
                "TIMESTAMPTZ '2024-01-02 03:04:05+00' AS ts, CAST(2.5 AS DOUBLE PRECISION) AS f, NULL AS nothing, "
                "INTERVAL '1 day 2 hours' AS iv, CAST('{\"a\": 1}' AS JSON) AS j, "
                "CAST('8c5b0f9c-0b5e-4b5a-9d8e-000000000001' AS UUID) AS u, ARRAY['a', NULL] AS words, "
                "ARRAY[1, 2] AS numbers, TIME '10:00:00.5' AS tod",
    "twice": "SELECT 1 AS a, 2 AS a, 3 AS a_2",
    "values": "SELECT * FROM (VALUES (1, 'x'), (2, NULL)) t(a, b) ORDER BY 1",
    "none": "SELECT * FROM daily_ohlcv_data WHERE FALSE",
    "union": "SELECT symbol FROM tbbo_data UNION SELECT symbol FROM trades_data ORDER BY 1 NULLS FIRST",
    "rules": "SELECT schema, rule, count(*) AS rows FROM quarantine CROSS JOIN LATERAL unnest(rules) AS t(rule) "
             "GROUP BY schema, rule ORDER BY 1, 2",
    "json": "SELECT unit, record->>'side' AS side FROM quarantine ORDER BY unit, row",
    "on": "SELECT DISTINCT ON (unit_id) unit_id, status FROM ingest_units ORDER BY unit_id, seq DESC",
    "comments": '-- one\nSELECT /* two */ 1 AS "a b"\n-- three\n;',
    "exists": "SELECT count(*) AS n FROM trades_data t WHERE EXISTS (SELECT 1 FROM definitions_data d WHERE "
              "d.dataset = t.dataset AND d.instrument_id = t.instrument_id)",
    "window function": "SELECT ts_event, close_price - lag(close_price) OVER (PARTITION BY instrument_id ORDER BY "
                       "ts_event) AS change FROM daily_ohlcv_data ORDER BY 1, 2 NULLS LAST LIMIT 50",
}  # fmt: skip


@pytest.mark.parametrize("name", STATEMENTS)
def test_both_answer_the_same(pair, name):
    both(pair, STATEMENTS[name])


# --- as it was known --------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, 1])
def test_rows_as_of_an_instant_are_those_that_the_store_held_then(pair, k):
    store = pair.stores[k]
    instants = store.ledger()["committed_at"].unique().sort()
    changed = store.ledger().filter(pl.col("superseded") > 0)["committed_at"].max()
    schema, _ = schemas().find("trades")
    seen = []
    for ns in (instants[0], instants[len(instants) // 2], changed - 1, changed, instants[-1]):
        then = Then(store, ns)
        columns = ["dataset", "instrument_id", "sequence", "price", "_unit", "_row"]
        frames = list(then.read(schema, "trades", Window(0, MAX_NS), None, columns))
        wanted = pl.concat([pl.DataFrame(schema={c: schema.stored[c] for c in columns}), *frames]).sort(pl.all())
        found = store.sql(f"SELECT {', '.join(columns)} FROM trades_data", ns).collect().sort(pl.all())
        assert_frame_equal(found, wanted, check_exact=True)
        one = store.sql("SELECT count(*) AS n FROM ingest_units", ns).collect()
        assert one["n"].to_list() == [then.ledger().height]
        for book, frame in (("coverage", then.coverage()), ("symbol_mappings", then.mappings()),
                            ("quarantine", then.quarantine())):  # fmt: skip
            assert store.sql(f"SELECT count(*) AS n FROM {book}", ns).collect()["n"].to_list() == [frame.height], book
        seen.append(found.height)
    assert seen[0] < seen[-1]
    assert then_price(store, changed - 1) == [3]
    assert then_price(store, changed) == [33]


def then_price(store, ns):
    """The price that a restatement changed, by the view of symbols."""
    found = store.sql("SELECT price FROM trades_data_by_symbol WHERE asked_symbol = 'HOG4' AND sequence = 2", ns)
    return [int(p) for p in found.collect()["price"]]


def test_as_of_an_instant_nothing_is_read_as_it_is_now(pair):
    """Neither by the schema's name nor by a view of somebody else."""
    instant = pair.server.ledger()["committed_at"].min()
    with psycopg.connect(pair.address, autocommit=True) as connection:
        connection.execute("CREATE VIEW mine AS SELECT * FROM coverage")
        try:
            for text in ("SELECT * FROM public.coverage", 'SELECT 1 FROM ONLY "public" . "coverage"',
                         "SELECT * FROM mine", "SELECT * FROM trades_data, mine", "SELECT * FROM public.mine",
                         "SELECT count(*) FROM trades_data t JOIN (mine m CROSS JOIN coverage) ON true"):  # fmt: skip
                assert pair.server.sql(text).columns
                with pytest.raises(RequestError, match=r"as of an instant|at that instant"):
                    pair.server.sql(text, instant)
        finally:
            connection.execute("DROP VIEW mine")
    assert pair.server.sql("SELECT count(*) AS n FROM quarantine_history", instant).collect()["n"].to_list() == [0]


# --- only reading -----------------------------------------------------------------------------

HOSTILE = [
    "INSERT INTO trades_data SELECT * FROM trades_data", "UPDATE trades_data SET price = 1", "DELETE FROM coverage",
    "TRUNCATE trades_data", "CREATE TABLE x AS SELECT 1", "CREATE TEMP TABLE x (a int)", "CREATE VIEW v AS SELECT 1",
    "DROP TABLE trades_data", "ALTER TABLE trades_data ADD COLUMN x int", "COPY trades_data TO '/tmp/hdi-x.csv'",
    "COPY trades_data FROM '/etc/passwd'", "COPY (SELECT 1) TO PROGRAM 'touch /tmp/hdi-x'", "ATTACH 'x.db' AS x",
    "DETACH x", "INSTALL httpfs", "LOAD httpfs", "LOAD 'x'", "PRAGMA database_list", "SET threads = 1", "RESET ALL",
    "SET ROLE postgres", "EXPORT DATABASE '/tmp/hdi-x'", "IMPORT DATABASE '/tmp/hdi-x'", "CALL pragma_version()",
    "VACUUM", "ANALYZE", "CHECKPOINT", "SELECT 1; DROP TABLE coverage", "SELECT 1; SELECT 2", "BEGIN", "COMMIT",
    "DO $$ BEGIN DELETE FROM coverage; END $$", "LOCK TABLE coverage", "LISTEN x", "PREPARE a AS DELETE FROM coverage",
    "WITH d AS (DELETE FROM coverage RETURNING *) SELECT * FROM d",
    "WITH d AS (INSERT INTO coverage SELECT * FROM coverage RETURNING *) SELECT * FROM d",
    "WITH d AS (UPDATE coverage SET unit = 1 RETURNING *) SELECT * FROM d",
    "EXPLAIN ANALYZE DELETE FROM coverage", "EXPLAIN (ANALYZE) INSERT INTO coverage SELECT * FROM coverage",
    "EXPLAIN ANALYZE WITH d AS (DELETE FROM coverage RETURNING *) SELECT * FROM d",
    "SELECT 1) q; DROP TABLE coverage; --", "SELECT 1 AS a) q; DELETE FROM coverage; SELECT * FROM (SELECT 1",
    "SELECT nextval('ingest_units_seq_seq')", "SELECT setval('ingest_units_seq_seq', 1)",
    "SELECT set_config('transaction_read_only', 'off', false)", "SELECT set_config('role', 'none', false)",
    "SELECT pg_advisory_lock(1)", "SELECT pg_read_file('/etc/passwd')", "SELECT pg_catalog.pg_read_file('/etc/passwd')",
    'SELECT "pg_read_file"(\'/etc/passwd\')', "SELECT pg_read_binary_file('/etc/passwd')",
    "SELECT * FROM pg_ls_dir('/')",
    "SELECT lo_import('/etc/passwd')", "SELECT lo_export(1, '/tmp/hdi-x')",
    "SELECT pg_terminate_backend(1)", "SELECT * FROM dblink('dbname=postgres', 'DROP TABLE coverage') AS t(a int)",
    "SELECT * FROM read_csv('/etc/passwd')", "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/etc/passwd')", "SELECT * FROM glob('/*')",
    "SELECT * FROM read_parquet('/tmp/x.parquet')",
    "SELECT * FROM query('DROP TABLE coverage')", "SELECT getenv('HOME')",
]  # fmt: skip
#: What only one of the two has a word for; the other does not know it, or takes it for a table.
OF_SERVER = [
    # Where a server takes for code what looks like a text, a comment or an option of EXPLAIN.
    "SELECT 1 --\r, pg_read_file('/etc/passwd')", "SELECT 1 AS \U0001f600$x$, lo_creat(1) AS b, $x$ -- $x$",
    "SELECT 1 AS \u00a0$x$, lo_creat(1) AS b, $x$ -- $x$",
    "/* /* */ explain SELECT 1 --*/ DROP TABLE coverage", "/* /* */ explain SELECT 1 --*/ COMMIT; DROP TABLE coverage",
    "/* /* */ explain SELECT 1 --*/ RESET ROLE; COPY (SELECT 1) TO PROGRAM 'touch /tmp/hdi-x'",
    "explain (costs /*) SELECT 1 --*/ off) SELECT 1; COMMIT; DROP TABLE coverage",
    "SELECT lo_creat/**/(1)", "SELECT pg_notify('a', 'b')", "SELECT pg_cancel_backend(1)", "SELECT lo_unlink(1)",
    "SELECT pg_switch_wal()", "SELECT pg_logical_emit_message(false, 'a', 'b')", "SELECT pg_export_snapshot()",
    "SELECT * INTO x FROM coverage", "SELECT * FROM coverage FOR UPDATE", "SELECT * FROM coverage FOR NO KEY UPDATE",
    "SELECT pg_notify('a', 'b')", "SELECT query_to_xml('DELETE FROM coverage', true, true, '')",
    "SELECT table_to_xml('coverage', true, true, '')",
    "SELECT lo_create(0)", "SELECT pg_reload_conf()", "SELECT pg_stat_reset()",
    "SELECT drop_chunks('trades_data', now())",
    "SELECT pg_try_advisory_lock(1)", "SELECT pg_stat_file('/etc/passwd')", "SELECT pg_ls_waldir()",
    "SELECT pg_rotate_logfile()", "SELECT ts_stat('SELECT 1')", "SELECT txid_current() FROM pg_sleep(0), lo_creat(1)",
    "SELECT add_job('x', '1h')", "SELECT U&\"pg_\\0072ead_file\"('/etc/passwd')",
]  # fmt: skip
OF_LAKE = [
    "/* /* */ explain SELECT 1 --*/ COPY (SELECT 1) TO '/tmp/hdi-x'",
    "/* /* */ explain SELECT 1 --*/ CREATE TABLE x AS SELECT 1", "EXPLAIN COPY (SELECT 1) TO '/tmp/hdi-x'",
    "SELECT * FROM duckdb_secrets()", "SELECT * FROM duckdb_settings()", "SELECT * FROM parquet_metadata('/x')",
    "SELECT * FROM sniff_csv('/etc/passwd')", "SELECT * FROM query_table('coverage')", "FROM checkpoint()",
    "SELECT * FROM arrow_scan(1, 2, 3)", "SELECT * FROM read_json('/x')",
    "SELECT * FROM json_execute_serialized_sql('')",
    "PIVOT coverage ON dataset", "SELECT * FROM pragma_version()",
]  # fmt: skip


def state(pair):
    """All that the stores hold: bytes of files, and what a database has."""
    files = {
        str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((pair.folder / "lake").rglob("*"))
        if p.is_file()
    }  # fmt: skip
    with psycopg.connect(pair.address) as connection:
        relations = connection.execute("SELECT relname, relnatts FROM pg_class ORDER BY oid").fetchall()
        counts = [
            connection.execute(f'SELECT count(*), max(seq), sum(seq) FROM "{t}"').fetchone()
            for t in ("coverage", "ingest_units", "symbol_mappings", "quarantine")
        ]
        rows = [connection.execute(f'SELECT count(*), sum(_row) FROM "{t}"').fetchone() for t in TABLES]
        loose = connection.execute("SELECT count(*) FROM pg_largeobject_metadata").fetchone()
        sequences = connection.execute(
            "SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = 'public' ORDER BY 1"
        ).fetchall()
    return files, relations, counts, rows, loose, sequences, Path("/tmp/hdi-x").exists()


@pytest.mark.parametrize("k", [0, 1])
def test_nothing_but_reading_is_possible(pair, k):
    before = state(pair)
    told = {}
    for statement in [*HOSTILE, *(OF_LAKE, OF_SERVER)[k]]:
        try:
            frame = pair.stores[k].sql(statement).collect()
        except RequestError as error:
            told[statement] = error.message
        else:
            pytest.fail(f"{statement} gives {frame}")
    unclear = {s: m for s, m in told.items() if not m.startswith("only reading is possible")}
    assert not unclear
    assert state(pair) == before


@pytest.mark.parametrize("k", [0, 1])
def test_a_statement_cannot_close_what_it_stands_in(pair, k):
    with pytest.raises(RequestError, match="line 1"):
        pair.stores[k].sql("SELECT 1) q(c0) UNION SELECT * FROM (SELECT 2").collect()


def test_a_view_that_does_more_than_read_is_refused_as_writing(pair):
    with psycopg.connect(pair.address, autocommit=True) as connection:
        connection.execute("CREATE VIEW mine AS SELECT pg_read_file('/etc/passwd') AS x")
        try:
            for text in ("SELECT * FROM mine", "EXPLAIN ANALYZE SELECT * FROM mine"):
                with pytest.raises(RequestError, match="only reading is possible: permission denied for function"):
                    pair.server.sql(text).collect()
        finally:
            connection.execute("DROP VIEW mine")


@pytest.mark.parametrize("statement", ["SELECT * FROM 'data.csv'", "SELECT * FROM '/etc/passwd'", 'FROM "x.parquet"'])
def test_a_file_is_no_table_of_a_lake(pair, tmp_path, statement):
    (tmp_path / "data.csv").write_text("a\n1\n")
    with pytest.raises(RequestError, match=r"unknown table"):
        pair.lake.sql(statement)


def test_a_text_that_a_server_reads_on_with_is_refused(pair):
    with pytest.raises(RequestError, match="two texts stand one after another"):
        pair.server.sql("SELECT E'a'\n'\\' x ' , lo_creat(1) , ' y ' -- '")


@pytest.mark.parametrize("text", ["SELECT 'a\0b'", "SELECT '\udcff'"])
@pytest.mark.parametrize("k", [0, 1])
def test_what_is_no_character_is_no_part_of_a_statement(pair, k, text):
    with pytest.raises(RequestError, match="is no character of a statement"):
        pair.stores[k].sql(text)


@pytest.mark.parametrize("column", ["hello", "nothing"])
def test_no_file_is_opened_to_plan_a_statement(pair, tmp_path, column):
    """A name is a table of the statement's own where it is in force, and a file elsewhere."""
    path = tmp_path / "secret.csv"
    path.write_text("hello,planted\n1,2\n")
    own = f'(WITH "{path}" AS (SELECT 1 AS x) SELECT max(x) FROM "{path}")'
    with pytest.raises((RequestError, StoreError)) as caught:
        pair.lake.sql(f'SELECT {own}, b.{column} FROM trades_data, "{path}" b').collect()
    assert "disabled by configuration" in caught.value.message
    assert "planted" not in str(caught.value)


def test_the_engine_itself_opens_nothing_else(pair, tmp_path):
    """What gets past the look at the statement still finds no file, no extension and no setting."""

    statement = Statement(pair.lake, "SELECT count(*) FROM trades_data", None)
    (tmp_path / "x.csv").write_text("a\n1\n")
    with statement._connected() as connection:
        statement._check(connection)
        statement._prepare(connection)
        connection.execute("COMMIT")
        for text in (f"SELECT * FROM '{tmp_path}/x.csv'", f"COPY (SELECT 1) TO '{tmp_path}/y.csv'", "INSTALL httpfs",
                     "LOAD httpfs", f"ATTACH '{tmp_path}/z.db'", "SET enable_external_access = true",
                     "SET allowed_paths = ['/']", "SELECT * FROM 'https://127.0.0.1:9/x.parquet'"):  # fmt: skip
            with pytest.raises(duckdb.Error):
                connection.execute(text).fetchall()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.csv"]


@pytest.mark.parametrize("k", [0, 1])
def test_a_plan_can_be_asked_for(pair, k):
    store = pair.stores[k]
    for words in ("EXPLAIN", "explain analyze"):
        found = store.sql(f"{words} SELECT count(*) FROM trades_data_by_symbol WHERE asked_symbol = 'ESH4'").collect()
        assert found.height > 1
        assert found.columns == ["plan"]


# --- what is read -----------------------------------------------------------------------------


def opened(lake, statement, as_of=None):
    """The files that the plan of a statement may open, and all of the tables that it names."""
    asked = Statement(lake, statement, as_of)
    asked.answer()
    return asked.files


@pytest.mark.parametrize("where", [
    "ts_recv >= '2024-01-09' AND ts_recv < '2024-01-10'", "ts_recv BETWEEN '2024-01-09' AND '2024-01-09 23:59:59'",
    "ts_recv >= TIMESTAMPTZ '2024-01-09 01:00:00+01' AND ts_recv < DATE '2024-01-10'",
    "date_trunc('day', ts_recv) = '2024-01-09'", "ts_recv = '2024-01-09 01:00:00'",
])  # fmt: skip
@pytest.mark.parametrize("table", ["trades_data", "trades_data_by_symbol"])
def test_a_window_opens_only_its_files(pair, table, where):
    files = opened(pair.lake, f"SELECT count(*) FROM {table} WHERE {where}")["trades_data"]
    assert {f.partition["_date"] for f in files} == {"2024-01-09"}


ASKED = {
    "asked_symbol = 'NGG4'": {"NGG4"}, "asked_symbol IN ('NGG4', 'it''s')": {"NGG4", "it's"},
    "asked_symbol = 'NGG4' OR asked_symbol = 'HOG4'": {"NGG4", "HOG4"},
    "asked_symbol = 'x'') OR (symbol = ''y'": {"x') OR (symbol = 'y"}, "asked_symbol LIKE 'NG%'": None,
    "asked_symbol <> 'NGG4'": None, "asked_symbol = 'NGG4' OR price > 0": None,
    "asked_symbol IN (SELECT symbol FROM standing_mappings WHERE symbol = 'NGG4')": None,
}  # fmt: skip


@pytest.mark.parametrize("where", ASKED)
def test_only_the_symbols_that_are_named_are_looked_up(pair, where, monkeypatch):
    asked = []
    make = Names.make_mapped
    monkeypatch.setattr(Names, "make_mapped", lambda *a: asked.append(a[3]) or make(*a))
    found = both(pair, f"SELECT asked_symbol, ts_recv, ts_recv_ns, price, symbol FROM trades_data_by_symbol "
                       f"WHERE {where} ORDER BY asked_symbol, ts_recv, ts_recv_ns, price, symbol")  # fmt: skip
    assert asked[-1] == ASKED[where]
    assert found.height or "x'" in where


def test_scans_of_one_table_open_the_files_of_all_of_them(pair):
    day = "SELECT price FROM trades_data WHERE ts_recv >= '{}' AND ts_recv < '{}'"
    files = opened(pair.lake, f"{day.format('2024-01-09', '2024-01-10')} UNION ALL "
                              f"{day.format('2024-01-16', '2024-01-17')}")["trades_data"]  # fmt: skip
    assert {"2024-01-09", "2024-01-16"} <= {f.partition["_date"] for f in files}
    assert not any(f.partition["_date"] < "2024-01-09" for f in files)


@pytest.mark.parametrize("where", [
    "ts_recv >= '2024-01-09' OR price > 0", "NOT ts_recv < '2024-01-09' OR symbol = '(ts_recv > ''2024-01-09'')'",
    "symbol = '((ts_recv >= ''2024-01-09 00:00:00+00''::TIMESTAMP WITH TIME ZONE))'",
    "ts_event >= '2024-01-09'",
])  # fmt: skip
def test_what_bounds_no_index_time_opens_all(pair, where):
    files = opened(pair.lake, f"SELECT count(*) FROM trades_data WHERE {where}")["trades_data"]
    assert len({f.partition["_date"] for f in files}) > 5


def test_an_instrument_opens_only_files_that_may_hold_it(pair):
    files = opened(pair.lake, f"SELECT * FROM trades_data WHERE instrument_id = {desk.LATE}")["trades_data"]
    assert files
    assert all(f.low <= desk.LATE <= f.high for f in files)


def test_only_the_columns_that_are_wanted_are_scanned(pair):
    text = "EXPLAIN (FORMAT json) SELECT sum(size) FROM trades_data WHERE dataset = 'GLBX.MDP3'"
    plan = "\n".join(pair.lake.sql(text).collect()["plan"])
    assert "size" in plan
    assert "ts_in_delta" not in plan


# --- errors, and values -----------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, 1])
@pytest.mark.parametrize(("statement", "line", "meant"), [
    ("SELECT clse_price FROM ohlcv_data",
     "unknown column 'clse_price'\nline 1: SELECT clse_price FROM ohlcv_data\n               ^", "close_price"),
    ("SELECT *\nFROM trade_data", "line 2: FROM trade_data\n             ^", "trades_data"),
    ("SELECT 'é', x.foo\nFROM trades_data x", "line 1: SELECT 'é', x.foo\n                    ^", ""),
    ("SELEC 1", "", ""),
    ("SELECT (1", "", ""),
    ("SELECT no_such(1)", "line 1: SELECT no_such(1)\n               ^", ""),
])  # fmt: skip
def test_an_error_shows_where_it_is_and_what_was_meant(pair, k, statement, line, meant):
    with pytest.raises(RequestError) as caught:
        pair.stores[k].sql(statement).collect()
    assert line in caught.value.message
    assert meant in caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("k", [0, 1])
def test_what_fails_while_it_runs_is_the_statements_own_fault(pair, k):
    with pytest.raises(RequestError):
        pair.stores[k].sql("SELECT CAST(side AS INTEGER) AS x FROM trades_data").collect()


@pytest.mark.parametrize("k", [0, 1])
def test_an_answer_can_be_read_again_and_in_parts(pair, k):
    answer = pair.stores[k].sql("SELECT sum(size) AS n, symbol FROM trades_data GROUP BY symbol")
    assert answer.collect().sort("symbol").equals(answer.collect().sort("symbol"))
    assert answer.narrowed(["symbol"]).collect().columns == ["symbol"]
    assert answer.limited_to(2).collect().height == 2
    assert answer.lazy().filter(pl.col("symbol") == "ESH4").collect().height == 1
    assert answer.arrow().num_rows == answer.collect().height


@pytest.mark.parametrize("k", [0, 1])
def test_a_statement_without_text_is_refused(pair, k):
    for text in ("", " ;", "-- nothing\n", "/* nothing */"):
        with pytest.raises(RequestError, match="no statement"):
            pair.stores[k].sql(text)


TYPES = {
    "wide": ("CAST('123456789012345678901234567890.12345678' AS DECIMAL(38, 8))",
             "123456789012345678901234567890.12345678"),
    "small": ("CAST(-0.05 AS DECIMAL(5, 2))", "-0.05"),
    "huge": ("CAST('99999999999999999999999999999999999999' AS {huge})", "9" * 38),
    "beyond": ("CAST('170141183460469231731687303715884105727' AS {huge})", str(2**127 - 1)),
    "interval": ("INTERVAL '1 month 2 days 03:04:05.000006'", None),
    "json": ("CAST('{\"b\": [1.10, null]}' AS JSON)", '{"b": [1.10, null]}'),
    "uuid": ("CAST('8c5b0f9c-0b5e-4b5a-9d8e-000000000001' AS UUID)", "8c5b0f9c-0b5e-4b5a-9d8e-000000000001"),
    "bytes": ("CAST('ab' AS {bytes})", "\\x6162"), "null": ("NULL", None),
    "text": ("'a,\"b\"' || chr(10) || 'c'", 'a,"b"\nc'), "float": ("CAST(0.1 AS DOUBLE PRECISION)", 0.1),
    "third": ("CAST(1 AS DECIMAL(38, 20)) / 3", None), "list": ("ARRAY['a,', NULL, '\"']", None),
    "nested": ("{nested}", None), "day": ("DATE '0001-01-01'", "0001-01-01"),
    "time": ("TIME '23:59:59.999999'", "23:59:59.999999"),
    "bare": ("TIMESTAMP '2024-03-10 02:30:00'", "2024-03-10T02:30:00.000000000"),
    "max": ("9223372036854775807", 2**63 - 1),
}  # fmt: skip
WORDS = ({"huge": "HUGEINT", "bytes": "BLOB", "nested": "{'a': [1.50], 'b': NULL}"},
         {"huge": "NUMERIC", "bytes": "BYTEA", "nested": "ROW(1.50, ARRAY[ARRAY[1, 2]])"})  # fmt: skip


@pytest.mark.parametrize("k", [0, 1])
@pytest.mark.parametrize("form", ["table", "csv", "json", "parquet", "arrow"])
def test_values_of_any_type_are_written_exactly(pair, k, form):
    """As one row of all types, and as no row at all."""

    words = WORDS[k]
    said = {name: text if name != "nested" else words["nested"] for name, (text, _) in TYPES.items()}
    what = ", ".join(f'{text} AS "{name}"' for name, text in said.items())
    what = what.replace("{huge}", words["huge"]).replace("{bytes}", words["bytes"])
    for where in ("", " WHERE FALSE"):
        answer = pair.stores[k].sql(f"SELECT {what}{where}")
        answer = Printable(answer, lists=form != "json") if form in ("table", "csv", "json") else answer
        file = io.BytesIO()
        write(form, answer.frames(), answer.columns, file)
        text = file.getvalue()
        if form == "csv":
            rows = list(csv.DictReader(io.StringIO(text.decode(), newline="")))
        elif form == "json":
            rows = json.loads(text)
        elif form in ("parquet", "arrow"):
            read = pl.read_parquet if form == "parquet" else pl.read_ipc
            rows = read(io.BytesIO(text)).rows(named=True)
        else:
            assert (text.decode().count("170141183460469231731687303715884105727") == 1) == (where == "")
            continue
        assert len(rows) == (0 if where else 1)
        for row in rows:
            for name, (_, value) in TYPES.items():
                if value is not None and form in ("csv", "json"):
                    assert str(row[name]) == str(value), name
            assert row["null"] in (None, "")
            assert str(row["wide"]) == TYPES["wide"][1]
            assert str(row["third"]).startswith("0.3333333333")


@pytest.mark.parametrize("k", [0, 1])
def test_a_time_that_is_no_date_is_refused_and_can_be_cast(pair, k):
    with pytest.raises(RequestError, match="no calendar date"):
        pair.stores[k].sql("SELECT TIMESTAMPTZ 'infinity' AS t").collect()
    assert pair.stores[k].sql("SELECT CAST(TIMESTAMPTZ 'infinity' AS TEXT) AS t").collect()["t"].to_list() == [
        "infinity"
    ]


@pytest.mark.parametrize("k", [0, 1])
@pytest.mark.parametrize(("value", "said"), [
    ("DATE 'infinity'", "no calendar date"), ("DATE '10000-01-01'", "no calendar date"),
    ("TIMESTAMP '10000-01-01'", "no calendar date"), ("TIME '24:00:00'", "24:00 is no time of a day"),
])  # fmt: skip
def test_what_no_calendar_or_clock_has_is_refused(pair, k, value, said):
    with pytest.raises(RequestError, match=said):
        pair.stores[k].sql(f"SELECT {value} AS t").collect()


def test_the_last_and_the_first_day_of_a_calendar_are_told(pair):
    found = both(pair, "SELECT DATE '9999-12-31' AS d, TIMESTAMP '9999-12-31 23:59:59.999999' AS t, "
                       "TIMESTAMP '0001-01-01' AS f, TIME '23:59:59.999999' AS c")  # fmt: skip
    assert [v.year for v in found.row(0)[:3]] == [9999, 9999, 1]


def test_lists_of_a_server_count_from_one_and_have_one_dimension(pair):
    text = "SELECT CAST('[2:3]={1,NULL}' AS integer[]) AS a, CAST('{}' AS text[]) AS b, CAST(NULL AS bigint[]) AS c"
    assert pair.server.sql(text).collect().rows() == [([1, None], [], None)]
    with pytest.raises(RequestError, match="several dimensions: cast it to text"):
        pair.server.sql("SELECT ARRAY[[1, 2], [3, 4]] AS a").collect()
    assert pair.server.sql("SELECT ARRAY[[1, 2]]::text AS a").collect()["a"].to_list() == ["{{1,2}}"]


def test_json_can_be_taken_apart_on_a_lake(pair):
    found = pair.lake.sql("SELECT e.key FROM quarantine q, json_each(q.record) e WHERE e.key = 'side'").collect()
    assert found["key"].unique().to_list() == ["side"]


class Owner:
    """Somebody who needs a folder."""


KILLED = """
import os, signal
from hdi.stores.lake.spill import spill_folder
class Owner: pass
owner = Owner()
print(spill_folder(owner), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_spilled_is_removed_by_the_next_statement(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", KILLED], env=env, capture_output=True, text=True, check=False)
    left, mine = Path(ran.stdout.strip()), Owner()
    alive = Path(spill_folder(mine))
    assert left.is_dir()  # it is so new that its owner may just be making it
    for folder in (left, alive):
        os.utime(folder, (0, 0))
    spill_folder(mine)
    assert alive.is_dir()
    assert not left.exists()
    del mine
    gc.collect()
    assert not list(tmp_path.iterdir())


# --- a server that is stopped, and a statement that is ----------------------------------------


def ending(pair, how):
    """What ``hdi sql`` says of a statement that would sleep for a minute, when its backend gets ``how``."""
    command = [sys.executable, "-m", "hdi", "--store", pair.address, "sql", "SELECT pg_sleep(60), 'hdi-test'"]
    asleep = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'COPY%hdi-test%' AND wait_event = 'PgSleep'"
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
        psycopg.connect(pair.address, autocommit=True) as connection,
    ):
        while not (found := connection.execute(asleep).fetchone()):
            assert process.poll() is None, process.stderr.read()
        how(process, connection, found[0])
        _, err = process.communicate(timeout=20)
        assert connection.execute(asleep).fetchone() is None
    return process.returncode, err


def test_ctrl_c_ends_a_statement_at_the_server(pair):
    code, err = ending(pair, lambda process, *_: process.send_signal(signal.SIGINT))
    assert (code, err.splitlines()[-1]) == (130, "interrupted")


def test_a_server_that_ends_a_statement_is_an_error_of_the_store(pair):
    code, err = ending(pair, lambda _, connection, pid: connection.execute("SELECT pg_terminate_backend(%s)", (pid,)))
    assert code == 5
    assert "is gone or cannot be reached" in err


def test_who_may_read_one_table_only_reads_that_one(pair):
    """The rights are those of the role that asks, as of an instant too; what it may not read is not told as writing."""
    role = f"hdi_test_sql_{os.getpid()}"
    with psycopg.connect(pair.address, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN")
        try:
            connection.execute(f"GRANT SELECT ON trades_data, ingest_units, hdi_meta TO {role}")
            connection.execute(f"ALTER ROLE {role} SET default_transaction_read_only = on")
            url = conninfo_to_dict(pair.address)
            address = f"postgresql://{role}@{url['host']}:{url['port']}/{url['dbname']}"
            with contextlib.closing(open_store(address, schemas())) as store:
                wanted = pair.server.sql("SELECT sum(size) AS n FROM trades_data").collect()
                assert store.sql("SELECT sum(size) AS n FROM trades_data").collect().equals(wanted)
                with pytest.raises(StoreError, match="permission denied for table coverage"):
                    store.sql("SELECT * FROM coverage").collect()
        finally:
            connection.execute(f"DROP OWNED BY {role}")
            connection.execute(f"DROP ROLE {role}")

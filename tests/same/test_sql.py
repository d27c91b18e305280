"""The same statements to a lake and to a database that hold the same bytes: the same columns, types and rows."""

import hashlib
import os
from pathlib import Path

import polars as pl
import psycopg
import pytest
from polars.testing import assert_frame_equal

from hdi.errors import RequestError
from hdi.model import iso_ns
from hdi.testing.material import schemas
from hdi.then import Then
from same import desk
from same.twins import ALL, twins
from hdi.stores.lake.sql import Statement

TABLES = sorted(s.table for s in schemas())
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
         "symbol_mappings", "quarantine", "day_conditions"]  # fmt: skip


@pytest.mark.parametrize("table", [
    *TABLES, *(f"{t}_by_symbol" for t in TABLES), *(f"{t}_history" for t in TABLES), *VIEWS,
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
    "values": "VALUES (1, 'x'), (2, NULL) ORDER BY 1",
    "none": "SELECT * FROM daily_ohlcv_data WHERE FALSE",
    "union": "SELECT symbol FROM tbbo_data UNION SELECT symbol FROM trades_data ORDER BY 1 NULLS FIRST",
    "rules": "SELECT schema, rule, count(*) AS rows FROM quarantine CROSS JOIN LATERAL unnest(rules) AS t(rule) "
             "GROUP BY schema, rule ORDER BY 1, 2",
    "json": "SELECT unit, record->>'side' AS side FROM quarantine ORDER BY unit, row",
    "on": "SELECT DISTINCT ON (unit_id) unit_id, status FROM ingest_units ORDER BY unit_id, seq DESC",
    "comments": "-- one\nSELECT /* two /* */ 1 AS \"a b\"\n-- three\n;",
    "exists": "SELECT count(*) AS n FROM trades_data t WHERE EXISTS (SELECT 1 FROM definitions_data d WHERE "
              "d.dataset = t.dataset AND d.instrument_id = t.instrument_id)",
    "window function": "SELECT ts_event, close_price - lag(close_price) OVER (PARTITION BY instrument_id ORDER BY "
                       "ts_event) AS change FROM daily_ohlcv_data_by_day ORDER BY 1, 2 NULLS LAST".replace("_by_day", "")
                       + " LIMIT 50",
}  # fmt: skip


@pytest.mark.parametrize("name", STATEMENTS)
def test_both_answer_the_same(pair, name):
    both(pair, STATEMENTS[name])

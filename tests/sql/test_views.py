"""The views say what the queries of hdi say: the same rows, by the same symbols, at the same instants."""

import contextlib
import random
from decimal import Decimal

import polars as pl
import psycopg
import pytest
from psycopg import sql

from dbnfiles import ns as nanoseconds
from hdi.frames import COVERAGE, LEDGER, MAPPINGS
from hdi.lookup import Lookup
from hdi.model import DAY_NS, MAX_NS, Query, Window
from hdi.query import run
from hdi.schema_files import load_schemas
from hdi.stores import open_store
from hdi.stores.lake.standing import standing as on_a_lake
from hdi.stores.timescaledb.books import COVERED, SYMBOLS
from hdi.stores.timescaledb.views import columns_of, views
from hdi.testing.material import DATASET, DAY, START, Load, rejects, schemas, trades
from servers import make_layout
from sql.desk import DAYS, asking

MICRO = "(extract(epoch FROM {}) * 1000000)::bigint"


@pytest.fixture
def empty(fresh_database):
    """The URL of a store without rows."""
    return fresh_database(template="layout", prepare=make_layout)


@pytest.fixture
def store(empty):
    with contextlib.closing(open_store(empty, load_schemas(), write=True)) as opened:
        yield opened


def put(connection, book, frame):
    """Add rows to a book, in their order."""
    lacking = {c: t for c, t in book.frame.items() if c not in frame.columns}
    stored = book.to_stored(frame.with_columns(pl.lit(None, t).alias(c) for c, t in lacking.items()))
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        sql.Identifier(book.name), book.columns, sql.SQL(", ").join([sql.Placeholder()] * stored.width)
    )
    with connection.cursor() as cursor:
        cursor.executemany(statement, stored.rows())


def mapping(*rows, dataset=DATASET):
    return pl.DataFrame([(dataset, *row) for row in rows], schema=MAPPINGS, orient="row")


def ns(name):
    return f"{MICRO.format(name)} * 1000 + {name}_ns"


def standing(connection):
    """Every (symbol, dataset, instrument, start, end) of the view, as often as it has it."""
    query = f"SELECT symbol, dataset, instrument_id, {ns('start_time')}, {ns('end_time')} FROM standing_mappings"
    return sorted(connection.execute(query).fetchall())


# --- symbology --------------------------------------------------------------------------------


def tangle(seed):
    """Mappings and coverage that repeat, overlap and contradict each other, of days and of nanoseconds."""
    rng = random.Random(seed)
    symbols = {"raw_symbol": ["A", "B", "C"], "continuous": ["ES.c.0", "CL.c.0"], "parent": ["ES.FUT", "A"]}
    stypes = {"118": "instrument_id", "ES.FUT": "parent", "ES.c.0": "continuous"}

    def span(least):
        start = START + rng.randrange(12) * rng.choice([1, 500, DAY_NS])
        return start, start + rng.randrange(least, 5) * rng.choice([1, 700, DAY_NS])

    learned, claimed = [], []
    for _ in range(rng.choice([5, 40])):
        stype = rng.choice(list(symbols))
        learned.append((rng.choice("XY"), stype, rng.choice(symbols[stype]), rng.randrange(1, 4), *span(0)))
    for _ in range(rng.choice([0, 15])):
        symbol = rng.choice(["A", "D", "ES.FUT", "ES.c.0", "", "ALL_SYMBOLS", "118"])
        instrument = rng.choice([1, 2, 3, None])
        claimed.append((1, rng.choice("XY"), "trades", symbol, stypes.get(symbol, "raw_symbol"), instrument, *span(1)))
    return (
        pl.DataFrame(learned, schema=MAPPINGS, orient="row"), pl.DataFrame(claimed, schema=COVERAGE, orient="row")
    )  # fmt: skip


@contextlib.contextmanager
def alone(url):
    """A transaction without symbology, that leaves nothing."""
    with asking(url) as connection, connection.transaction(force_rollback=True):
        connection.execute("DELETE FROM symbol_mappings")
        connection.execute("DELETE FROM coverage")
        yield connection


def test_symbols_stand_for_what_a_query_resolves_them_to(url):
    for seed in range(40):
        mappings, coverage = tangle(seed)
        lookup = Lookup(mappings, coverage, pl.DataFrame(schema=LEDGER))
        wanted = [(a.symbol, *row) for a in lookup.find(lookup.symbols) for row in a.rectangles.iter_rows()]
        with alone(url) as connection:
            put(connection, SYMBOLS, mappings)
            put(connection, COVERED, coverage)
            assert standing(connection) == sorted(wanted), seed


def test_on_a_lake_a_symbol_stands_for_the_same_whoever_else_is_looked_up():
    for seed in range(40):
        mappings, coverage = tangle(seed)
        every = on_a_lake(mappings, coverage)
        for symbols in ({"A"}, {"ES.c.0", "ES.FUT"}, {"B", "D"}, set()):
            assert on_a_lake(mappings, coverage, symbols).equals(every.filter(pl.col("symbol").is_in(symbols))), seed


def test_a_mapping_that_ends_with_time_itself_is_exact(url):
    with alone(url) as connection:
        put(connection, SYMBOLS, mapping(("raw_symbol", "ESH4", 1, 1, MAX_NS)))
        assert standing(connection) == [("ESH4", DATASET, 1, 1, MAX_NS)]


# --- rows by symbol ---------------------------------------------------------------------------


def by_symbol(connection, schema, symbol, columns, end):
    """Rows of the view before an instant, as public columns with whole timestamps."""
    whole = {f.name for f in schema.fields if f.type == "timestamp"}
    shown = [sql.SQL(ns(c)) if c in whole else sql.Identifier(c) for c in columns]
    query = sql.SQL("SELECT {} FROM {} WHERE asked_symbol = %s AND {} < %s").format(
        sql.SQL(", ").join(shown), sql.Identifier(f"{schema.table}_by_symbol"), sql.SQL(ns(schema.index_time))
    )
    return connection.execute(query, (symbol, end)).fetchall()


@pytest.mark.parametrize("name", ["ohlcv-1d", "trades", "tbbo", "definition", "statistics"])
def test_rows_by_symbol_are_those_of_a_query(url, name):
    loaded = load_schemas()
    schema, _ = loaded.find(name)
    times = [f.name for f in schema.fields if f.type == "timestamp"]
    with contextlib.closing(open_store(url, loaded)) as opened, asking(url) as connection:
        for symbol in ("ES.c.0", "ES.FUT", "ESH4", "ESM4", "NQM4", "ESZ6"):
            # On that day ES.FUT came in one file with NQ.FUT: the page says how such are told apart.
            window = Window(0, nanoseconds(DAYS[3]) if symbol == "ES.FUT" else MAX_NS)
            found = run(opened, loaded, Query(name, (symbol,), window)).collect()
            wanted = found.with_columns(pl.col(t).to_physical() for t in times).rows()
            rows = by_symbol(connection, schema, symbol, found.columns, window.end)
            assert sorted(rows, key=repr) == sorted(wanted, key=repr), symbol


def test_the_parents_of_one_file_are_found_together(url):
    with asking(url) as connection:
        rows = connection.execute(
            "SELECT symbol, count(*) FROM trades_data_by_symbol WHERE asked_symbol = 'ES.FUT,NQ.FUT' "
            "GROUP BY symbol ORDER BY symbol"
        ).fetchall()
    assert rows == [("ESM4", 3), ("NQM4", 6)]


def test_a_row_comes_once_whatever_was_learned_twice(store, empty):
    Load(trades([START, START + 1]), symbol="ES.FUT").commit(store)
    Load(trades([START + DAY_NS]), symbol="ES.FUT", window=Window(START, START + 2 * DAY_NS)).commit(store)
    with asking(empty) as connection:
        put(connection, SYMBOLS, mapping(*[("parent", "ES.FUT", 1, START, START + k * DAY_NS) for k in (1, 3, 2)]))
        rows = connection.execute(
            "SELECT asked_stype, count(*) FROM trades_data_by_symbol WHERE asked_symbol = 'ES.FUT' GROUP BY 1"
        ).fetchall()
    assert rows == [("parent", store.ledger()["stored"].sum() - store.ledger()["superseded"].sum())]


def test_of_mappings_that_contradict_each_other_the_later_counts(store, empty):
    day = DAY.end
    rows = trades([START, START + 10, START + 20], instruments=[1, 2, 1], symbol=None)
    Load(rows, symbol="118", stype="instrument_id").commit(store)
    with asking(empty) as connection:
        connection.execute("DELETE FROM symbol_mappings")
        learned = [
            ("continuous", "ES.c.0", 1, START, day), ("raw_symbol", "ESH4", 1, START, day),
            ("continuous", "ES.c.0", 2, START + 10, day), ("raw_symbol", "ESM4", 1, START + 20, day),
        ]  # fmt: skip
        put(connection, SYMBOLS, mapping(*learned))
        asked = {
            symbol: connection.execute(
                f"SELECT {ns('ts_recv')} - %s, instrument_id, symbol FROM trades_data_by_symbol "
                "WHERE asked_symbol = %s ORDER BY 1",
                (START, symbol),
            ).fetchall()
            for symbol in ("ES.c.0", "ESH4", "ESM4")
        }
    assert asked == {
        "ES.c.0": [(0, 1, "ESH4"), (10, 2, None)], "ESH4": [(0, 1, "ESH4")], "ESM4": [(20, 1, "ESM4")],
    }  # fmt: skip


def test_a_mapping_ends_to_the_nanosecond(store, empty):
    Load(trades([START + 1_998, START + 1_999, START + 2_000]), symbol="118", stype="instrument_id").commit(store)
    with asking(empty) as connection:
        connection.execute("DELETE FROM symbol_mappings")
        put(connection, SYMBOLS, mapping(("continuous", "ES.c.0", 1, START + 1_999, START + 2_000)))
        rows = connection.execute("SELECT price FROM trades_data_by_symbol WHERE asked_symbol = 'ES.c.0'").fetchall()
    assert rows == [(Decimal(101),)]


def test_names_that_were_learned_after_the_rows_are_filled(store, empty):
    Load(trades([START], symbol=None), symbol="118", stype="instrument_id").commit(store)
    with asking(empty) as connection:
        connection.execute("DELETE FROM symbol_mappings")
        put(connection, SYMBOLS, mapping(("parent", "ES.FUT", 1, START, DAY.end)))
        ask = "SELECT symbol FROM trades_data_by_symbol WHERE asked_symbol = 'ES.FUT'"
        assert connection.execute(ask).fetchall() == [(None,)]
        put(connection, SYMBOLS, mapping(("raw_symbol", "ESH4", 1, START, DAY.end)))
        assert connection.execute(ask).fetchall() == [("ESH4",)]


def test_a_window_by_symbol_reads_no_other_chunk(store, empty):
    days = [START + k * DAY_NS for k in range(6)]
    Load(trades(days), window=Window(START, START + 6 * DAY_NS)).commit(store)
    with asking(empty) as connection:
        plan = connection.execute(
            "EXPLAIN (FORMAT json) SELECT * FROM trades_data_by_symbol WHERE asked_symbol = 'ES.FUT' "
            "AND ts_recv >= '2024-01-04' AND ts_recv < '2024-01-05'"
        ).fetchone()
        (chunks,) = connection.execute("SELECT count(*) FROM timescaledb_information.chunks").fetchone()
    read = {r["Relation Name"] for r in nodes(plan[0][0]["Plan"]) if "_chunk" in r.get("Relation Name", "")}
    assert (len(read), chunks) == (1, 6)


def nodes(plan):
    """A node of a plan, and all below it."""
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


# --- the others -------------------------------------------------------------------------------


def test_daily_bars_are_the_daily_ones_with_all_public_columns(url):
    schema, _ = load_schemas().find("ohlcv-1d")
    public = [c for c in schema.stored if not c.startswith("_")]
    with asking(url) as connection:
        cursor = connection.execute("SELECT * FROM daily_ohlcv_data")
        assert [d.name for d in cursor.description] == public
        assert len(cursor.fetchall()) == 2 * len(DAYS) + 3
        with connection.transaction(force_rollback=True):
            connection.execute("UPDATE ohlcv_data SET granularity = '1h' WHERE symbol = 'ESZ6'")
            (rest,) = connection.execute("SELECT count(*) FROM daily_ohlcv_data").fetchone()
    assert rest == 2 * len(DAYS)


def test_instruments_are_known_by_their_definitions_and_else_by_their_names(url):
    """Together the rows of a name are the times of its mappings; what a definition says begins with the definition."""
    with asking(url) as connection:
        known = connection.execute(
            f"SELECT raw_symbol, instrument_id, {ns('known_from')}, {ns('known_until')}, asset, definitions, "
            "publisher_id FROM instruments ORDER BY 1, 2, 3"
        ).fetchall()
    with contextlib.closing(open_store(url, load_schemas())) as opened:
        names = opened.mappings().filter(pl.col("stype") == "raw_symbol").group_by("symbol", "instrument_id")
        wanted = names.agg(pl.col("start").min(), pl.col("end").max()).rows()
        told = pl.concat(opened.instruments())
    joined = {}
    for symbol, instrument, start, end, *_ in known:
        first, last = joined.get((symbol, instrument), (start, start))
        assert last == start
        joined[symbol, instrument] = (first, end)
    assert sorted((*who, *when) for who, when in joined.items()) == sorted(wanted)
    assert [row[0:1] + row[4:6] for row in known if row[4]] == [("ESM4", "ES", 1), ("NQM4", "NQ", 1)]
    assert all(row[5:] == (0, None) for row in known if not row[4])
    times = pl.col("known_from", "known_until").to_physical()
    same = told.select("raw_symbol", "instrument_id", times, "asset", "definitions", "publisher_id").sort("raw_symbol")
    assert same.rows() == [row for row in known if row[4]]


def test_an_instrument_that_only_a_definition_names_is_known_at_its_instant(url):
    with alone(url) as connection:
        rows = connection.execute(
            f"SELECT raw_symbol, {ns('known_until')} - ({ns('known_from')}) FROM instruments ORDER BY 1"
        ).fetchall()
    assert rows == [("ESM4", 1), ("NQM4", 1)]


def test_runs_add_up_the_ledger(store, empty):
    Load(trades([START]), rejected=rejects([START + 5, START + 6])).commit(store)
    Load(trades([START, START + DAY_NS]), window=Window(START, START + 2 * DAY_NS)).commit(store)
    Load(trades([]), rejected=rejects([START] * 3), symbol="NQ.FUT", run="run-2").failing(store)
    Load(trades([]), symbol="CL.FUT", run="run-3", prepared="GLBX-1").ordered(store)
    ledger = store.ledger()
    sums = ("fetched", "stored", "quarantined", "unchanged", "superseded", "dollars")
    with asking(empty) as connection:
        rows = connection.execute(
            f"SELECT run, origin, units, failed_units, result, {', '.join(sums)}, "
            f"{MICRO.format('started')}, {MICRO.format('finished')} FROM ingest_runs ORDER BY run"
        ).fetchall()
    wanted = []
    for run_, failed, result in (("run-1", 0, "success"), ("run-2", 1, "failed"), ("run-3", 0, "ordered")):
        part = ledger.filter(pl.col("run") == run_)
        began = min(at // 1_000 - int(s * 1_000_000) for at, s in part.select("committed_at", "seconds").iter_rows())
        wanted.append((run_, "synthetic", part.height, failed, result, *(part[c].sum() for c in sums[:-1]),
                       part["dollars"].sum() if part["dollars"].drop_nulls().len() else None,
                       began, part["committed_at"].max() // 1_000))  # fmt: skip
    assert rows == wanted


def test_a_view_shows_no_more_than_its_reader_may_read(url, fresh_roles):
    role = fresh_roles(url, "read")
    with asking(url) as connection:
        connection.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(role)))
        connection.execute(sql.SQL("GRANT SELECT ON ingest_runs, daily_ohlcv_data TO {}").format(sql.Identifier(role)))
        connection.execute(sql.SQL("GRANT SELECT ON ohlcv_data, symbol_mappings TO {}").format(sql.Identifier(role)))
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
        assert connection.execute("SELECT count(*) FROM daily_ohlcv_data").fetchone() == (2 * len(DAYS) + 3,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="ingest_units"):
            connection.execute("SELECT * FROM ingest_runs")


def test_each_view_is_there_and_can_be_made_again(url):
    made = [name for name, _ in views(schemas())]
    tables = [s.table for s in schemas()]
    assert sorted(made) == sorted([
        "standing_mappings", "daily_ohlcv_data", "instruments", "ingest_runs", *(f"{t}_by_symbol" for t in tables),
    ])  # fmt: skip
    with asking(url) as connection, connection.transaction(force_rollback=True):
        there = {name for (name,) in connection.execute("SELECT viewname FROM pg_views WHERE schemaname = 'public'")}
        for name in reversed(made):
            connection.execute(sql.SQL("DROP VIEW {}").format(sql.Identifier(name)))
        for _, statement in views(schemas()) * 2:
            connection.execute(statement)
    assert there == set(made)


STATUS = """
kind: notice
title: Status
doc: What the venue says.
table: notice_data
index_time: ts_recv
names: {notice: {grid: month}}
display: [ts_recv, state]
fields:
  ts_recv: {type: timestamp, doc: When.}
  state: {type: text, null: true, doc: What.}
"""


def with_kind(path, text):
    path.write_text(text)
    return load_schemas(extra=[path])


def test_a_kind_of_data_that_is_added_gets_its_view(url, tmp_path):
    found = dict(views(with_kind(tmp_path / "notice.yaml", STATUS)))
    assert set(found) - {name for name, _ in views(schemas())} == {"notice_data_by_symbol"}
    with asking(url) as connection, connection.transaction(force_rollback=True):
        connection.execute("CREATE TABLE notice_data AS SELECT *, 'open' AS state FROM trades_data")
        connection.execute(found["notice_data_by_symbol"])
        cursor = connection.execute("SELECT * FROM notice_data_by_symbol WHERE asked_symbol = 'ES.c.0'")
        assert [d.name for d in cursor.description] == [
            "asked_symbol", "asked_stype", "dataset", "instrument_id", "symbol", "publisher_id", "ts_event",
            "ts_event_ns", "ts_recv", "ts_recv_ns", "state", "data_source",
        ]  # fmt: skip
        assert len(cursor.fetchall()) == 13


def test_a_view_grows_where_it_stands_with_the_views_on_it(url, tmp_path):
    more = STATUS.replace("  state:", "  reason: {type: text, null: true, doc: Why.}\n  state:")
    with asking(url) as connection, connection.transaction(force_rollback=True):
        connection.execute("CREATE TABLE notice_data AS SELECT *, 'open' AS state FROM trades_data")
        for _, statement in views(with_kind(tmp_path / "notice.yaml", STATUS)):
            connection.execute(statement)
        connection.execute("CREATE VIEW mine AS SELECT state FROM notice_data_by_symbol")
        connection.execute("ALTER TABLE notice_data ADD COLUMN reason TEXT")
        there = columns_of(connection)
        for _, statement in views(with_kind(tmp_path / "notice.yaml", more), there):
            connection.execute(statement)
        grown = columns_of(connection)
        assert grown.pop("notice_data_by_symbol") == [*there.pop("notice_data_by_symbol"), "reason"]
        assert grown == there
        assert connection.execute("SELECT count(*) FROM mine").fetchone() > (0,)

"""Every query of docs/sql.md runs on a real server, and those of the older operations guide are among them."""

import datetime as dt
import re
from decimal import Decimal
from pathlib import Path

import pytest
from psycopg import errors

from hdi.testing.material import schemas
from sql.desk import DAYS, H4, M4, ROLL, back

PAGE = (Path(__file__).parents[2] / "docs" / "sql.md").read_text(encoding="utf-8")
ORIGINALS = {p.stem: p.read_text(encoding="utf-8") for p in sorted((Path(__file__).parent / "originals").glob("*.sql"))}
#: Originals that name what no server of today has, and what it says of them.
REFUSED = {
    "hypertable-health": errors.UndefinedColumn, "ingestion-activity": errors.UndefinedColumn,
    "hypertable-overview": errors.UndefinedColumn, "chunk-sizes": errors.UndefinedColumn,
    "compression-savings": errors.UndefinedTable, "index-usage": errors.UndefinedColumn,
    "index-selectivity": errors.UndefinedColumn, "unused-indexes": errors.UndefinedColumn,
    "database-size": errors.InvalidCatalogName,
}  # fmt: skip
#: Originals that run, and answer something else than they are asked.
MISLEADING = {"trade-validation", "table-sizes"}
#: Originals that need an extension of the server.
STATISTICS = {"query-statistics", "slow-queries"}


def sections():
    """The SQL of each section that has some, by its heading."""
    found = {}
    for part in re.split(r"^#+ ", PAGE, flags=re.MULTILINE):
        heading, _, body = part.partition("\n")
        blocks = re.findall(r"^```sql\n(.*?)^```", body, re.MULTILINE | re.DOTALL)
        if blocks:
            (found[heading],) = blocks
    return found


SECTIONS = sections()
BY_SLUG = {heading.lower().replace(" ", "-"): heading for heading in SECTIONS}


def statements(text):
    return [s for s in re.split(r";\s*(?:\n|$)", text) if s.strip()]


def run(session, text):
    """The rows of the last statement, as dictionaries; each statement is a transaction of its own, as at psql."""
    for statement in statements(text):
        cursor = session.execute(statement)
    return cursor.fetchall() if cursor.description else None


def answer(session, heading):
    return run(session, SECTIONS[heading])


@pytest.fixture
def statistics(session):
    """The extension that counts statements, where the server has it loaded."""
    try:
        session.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        session.execute("SELECT FROM pg_stat_statements LIMIT 1")
    except (errors.ObjectNotInPrerequisiteState, errors.FeatureNotSupported, errors.UndefinedFile) as error:
        pytest.skip(f"the server counts no statements: {error}")


@pytest.mark.parametrize("heading", [h for s, h in BY_SLUG.items() if s not in STATISTICS])
def test_each_query_of_the_guide_runs(session, heading):
    answer(session, heading)


@pytest.mark.usefixtures("statistics")
@pytest.mark.parametrize("slug", sorted(STATISTICS))
def test_each_query_on_statements_runs_where_the_server_counts_them(session, slug):
    answer(session, BY_SLUG[slug])
    with pytest.raises(errors.UndefinedColumn):
        run(session, ORIGINALS[slug])


def test_the_guide_says_what_its_queries_on_statements_need():
    assert "CREATE EXTENSION pg_stat_statements" in PAGE
    assert "shared_preload_libraries" in PAGE


def plain(text):
    return " ".join(text.replace(";", " ").split())


@pytest.mark.parametrize("slug", ORIGINALS)
def test_each_original_stands_in_the_guide_unchanged_or_with_the_reason_for_its_correction(slug):
    heading = BY_SLUG[slug]
    section = PAGE.split(f"## {heading}\n")[1].split("\n#")[0]
    changed = slug in REFUSED or slug in MISLEADING or slug in STATISTICS
    assert ("*Corrected*" in section) == changed
    assert (plain(ORIGINALS[slug]) != plain(SECTIONS[heading])) == changed


@pytest.mark.parametrize("slug", [s for s in ORIGINALS if s not in REFUSED and s not in STATISTICS])
def test_each_original_that_was_not_refused_runs(session, slug):
    run(session, ORIGINALS[slug])


@pytest.mark.parametrize(("slug", "error"), REFUSED.items())
def test_each_original_that_was_corrected_names_what_no_server_has(session, slug, error):
    with pytest.raises(error):
        run(session, ORIGINALS[slug])


def test_the_original_check_of_trades_takes_every_seller_for_invalid(session):
    (row,) = run(session, ORIGINALS["trade-validation"])
    assert row == ("ESZ6", 4, 1, 0, 4)


# --- known answers ----------------------------------------------------------------------------


def test_symbol_consistency_finds_the_symbol_whose_id_changed(session):
    assert answer(session, "Symbol consistency") == [("ESZ6", 1, 2, 0)]


def test_symbol_consistency_at_any_size_gives_the_same_answer(session):
    assert answer(session, "Symbol consistency at any size") == answer(session, "Symbol consistency")


def test_date_ranges_are_the_first_and_last_event_of_each_table(session):
    bars, trades = answer(session, "Date ranges")
    last = dt.datetime.fromisoformat(back(0) + "T00:00:00Z")
    assert bars == ("ohlcv_data", dt.datetime(2024, 3, 11, tzinfo=dt.UTC), last, 2 * len(DAYS) + 3)
    assert trades == ("trades_data", dt.datetime(2024, 3, 13, 0, 10, tzinfo=dt.UTC), last - dt.timedelta(days=1), 33)


def test_bar_compliance_names_the_first_rule_that_a_stored_bar_breaks(session):
    (row,) = answer(session, "Bar compliance")
    assert row[0] == "ESZ6"
    assert row[1].date().isoformat() == back(2)
    assert row[2:] == (Decimal(4_706), Decimal(4_700), Decimal(4_705), Decimal(4_700), "HIGH_LESS_THAN_LOW")


@pytest.mark.parametrize(("prices", "status"), [
    ((10, 9, 10, 10), "HIGH_LESS_THAN_LOW"), ((10, 9, 8, 9), "HIGH_LESS_THAN_OPEN"),
    ((9, 9, 8, 10), "HIGH_LESS_THAN_CLOSE"), ((7, 9, 8, 9), "LOW_GREATER_THAN_OPEN"),
    ((9, 9, 8, 7), "LOW_GREATER_THAN_CLOSE"),
])  # fmt: skip
def test_bar_compliance_names_each_rule_of_a_bar_that_somebody_wrote_by_hand(session, prices, status):
    with session.transaction(force_rollback=True):
        session.execute("UPDATE ohlcv_data SET (open_price, high_price, low_price, close_price) = (%s, %s, %s, %s) "
                        "WHERE symbol = 'ESZ6' AND ts_event >= CURRENT_DATE - 1 AND ts_event < CURRENT_DATE",
                        prices)  # fmt: skip
        assert [row[6] for row in answer(session, "Bar compliance")] == [status, "HIGH_LESS_THAN_LOW"]


def test_trade_validation_counts_the_trade_at_a_price_of_zero(session):
    assert answer(session, "Trade validation") == [("ESZ6", 4, 1, 0, 0)]


def test_missing_days_are_all_but_those_with_bars(session):
    (today,) = session.execute("SELECT CURRENT_DATE").fetchone()
    first = dt.date(2024, 1, 1)
    held = {dt.date.fromisoformat(d) for d in (*DAYS, back(0), back(1), back(2))}
    days = (first + dt.timedelta(days=n) for n in range((today - first).days + 1))
    assert answer(session, "Missing days") == [(d, 0) for d in days if d not in held]


def test_record_counts_are_those_of_today(session):
    (today,) = session.execute("SELECT CURRENT_DATE").fetchone()
    bars = [d for d in (0, 1, 2) if back(d) >= today.isoformat()]
    assert answer(session, "Record counts") == [("ohlcv_data", len(bars)), ("trades_data", 0)]


def test_vacuum_analyze_makes_the_planner_know_the_rows_of_every_chunk(session):
    answer(session, "Vacuum")
    chunks = answer(session, "Chunk sizes")
    assert {c[0]: sum(k[5] for k in chunks if k[0] == c[0]) for c in chunks} == {
        "ohlcv_data": 19, "trades_data": 33, "tbbo_data": 5, "definitions_data": 2,
    }  # fmt: skip


def test_sizes_of_hypertables_are_those_of_their_chunks(session):
    sizes = {row[0]: row[1] for row in answer(session, "Hypertable health")}
    chunks = dict(
        session.execute(
            "SELECT hypertable_name, sum(pg_total_relation_size(format('%I.%I', chunk_schema, chunk_name)::regclass)) "
            "FROM timescaledb_information.chunks GROUP BY 1"
        ).fetchall()
    )
    assert set(sizes) == {schema.table for schema in schemas()}
    assert all(sizes[table] >= size > 0 for table, size in chunks.items())
    shown = {row[1]: row[2] for row in answer(session, "Table sizes")}
    (pretty,) = session.execute("SELECT pg_size_pretty(%s::bigint)", (sizes["trades_data"],)).fetchone()
    assert shown["trades_data"] == pretty
    overview = {row[0]: row[1:4] for row in answer(session, "Hypertable overview")}
    assert overview["trades_data"] == (pretty, 1, 4)
    assert answer(session, "Database size")[0][2] == pretty


def test_index_usage_counts_reads_of_the_chunks(session):
    session.execute("SET enable_seqscan = off")
    for _ in range(3):  # eleven trades, in a part of their chunk
        session.execute(
            "SELECT count(*) FROM trades_data WHERE ts_recv >= '2024-03-13' AND ts_recv < '2024-03-13 02:00'"
        )
    session.execute("SELECT pg_stat_force_next_flush()")
    session.execute("SELECT 1")
    for heading, column in (("Index usage", 3), ("Index selectivity", 2)):
        read = {row[:2]: row[column] for row in answer(session, heading)}
        assert read["trades_data", "btree (ts_recv)"] >= 33
    assert ("trades_data", "btree (ts_recv)") not in answer(session, "Unused indexes")


def test_ingestion_activity_counts_the_rows_that_went_into_chunks(session):
    before = {row[0]: row[1] for row in answer(session, "Ingestion activity")}
    with session.transaction(force_rollback=True):
        session.execute("INSERT INTO trades_data SELECT * FROM trades_data")
    session.execute("SELECT pg_stat_force_next_flush()")
    session.execute("SELECT 1")
    after = {row[0]: row[1] for row in answer(session, "Ingestion activity")}
    assert after["trades_data"] - before["trades_data"] == 33


def test_nothing_is_compressed_where_nobody_asked_for_it(session):
    assert answer(session, "Compression savings") == []


def test_nanoseconds_are_whole_and_rows_come_in_the_order_of_the_store(session):
    rows = answer(session, "Exact nanoseconds")
    first = 1_710_288_600_000_001_234
    assert [row[1] for row in rows] == [first + k * 600 * 10**9 for k in range(20)]
    assert rows[0][0] == "2024-03-13T00:10:00.000001234Z"
    assert rows[0][2] == Decimal(4_701)


def test_bars_from_trades_begin_and_end_with_the_first_and_last_trade(session):
    rows = [row[1:] for row in answer(session, "Bars from trades")][:2]
    assert rows == [
        (H4, Decimal(4_702), Decimal(4_705), Decimal(4_702), Decimal(4_705), 8),
        (M4, Decimal(4_701), Decimal(4_704), Decimal(4_701), Decimal(4_704), 7),
    ]


def test_the_front_contract_changes_on_the_day_of_the_roll(session):
    rows = answer(session, "Front contract by day")
    assert [(row[0].date().isoformat(), row[2], row[3]) for row in rows] == [
        (d, "ESH4", H4) if d < ROLL else (d, "ESM4", M4) for d in DAYS
    ]
    stands = answer(session, "What a symbol stands for")
    assert [(row[1], row[2], row[4].date().isoformat()) for row in stands] == [
        ("continuous", H4, ROLL), ("continuous", M4, "2024-03-21"),
    ]  # fmt: skip


def test_a_parent_is_its_contracts(session):
    assert [row[:2] for row in answer(session, "Volume of a parent by contract")] == [("ESH4", 13), ("ESM4", 7)]
    assert answer(session, "One parent of a file of several") == [(3,)]


def test_instruments_show_the_last_definition(session):
    (row,) = answer(session, "Futures and their expirations")
    assert row[:2] == ("ESM4", M4)
    assert row[7:] == (dt.datetime(2024, 6, 21, tzinfo=dt.UTC), Decimal("0.25"))


def test_the_books_tell_what_became_of_each_run(session):
    runs = answer(session, "Last runs")
    assert [(r[5], r[6], r[7], r[8], r[9], r[11]) for r in runs] == [
        (1, 1, 150, 0, 150, "failed"), (1, 0, 3, 3, 0, "success"), (2, 0, 16, 16, 0, "success"),
        (11, 0, 65, 64, 1, "success"),
    ]  # fmt: skip
    assert all(started <= finished for _, started, finished, *_ in runs)
    assert [row[:3] for row in answer(session, "Failed units")] == [("GLBX.MDP3", "trades", "CLJ4")]
    assert [row[3] for row in answer(session, "Empty receipts")] == ["ESH4"]
    asked = {row[1:4] for row in answer(session, "What was asked for")}
    assert {("ohlcv-1d", "ES.c.0", "continuous"), ("trades", "ES.FUT", "parent")} <= asked
    assert not any(symbol == "CLJ4" for _, symbol, _ in asked)


def test_the_quarantine_tells_rules_and_records(session):
    assert answer(session, "Rejected rows by rule") == [("trades", "INVALID_SIDE", 1, ["ESH4"])]
    rows = answer(session, "A rejected record")
    assert {row[4] for row in rows} == {"X"}
    assert rows[0][5]["price"] == "4700.000000000"


def test_a_restated_bar_shows_what_it_was(session):
    (row,) = answer(session, "Superseded rows")
    assert (row[0].date().isoformat(), row[1], row[2]) == (DAYS[0], "ESM4", Decimal(4_710))
    assert row[4] != row[5]


def test_a_plan_leaves_out_the_chunks_outside_the_window(session):
    plan = "\n".join(line for (line,) in answer(session, "Query plan"))
    assert "_chunk" not in plan
    assert "excluded" in plan

"""What may not be moved is refused before anything is written, and what is not equal is never called so."""

import contextlib
import threading

import polars as pl
import psycopg
import pytest
from psycopg import sql

from hdi.errors import HdiError, OriginMismatch, RequestError, StoreError
from hdi.migrating import Migration
from hdi.pipeline import claim_keys
from hdi.testing import Load, opened, trades
from hdi.testing.material import DAY, heard, schemas
from hdi.testing.once import bars
from migrate.stock import AT, LATER, UNDATED, day, everything, move, stocked

SMALL = (
    Load(trades(AT), prepared="GLBX-1", heard=heard((1, "degraded", None, 5))),
    Load(bars("ohlcv-1d"), schema="ohlcv-1d"),
)


@pytest.fixture
def one(stock):
    return stock("lake", SMALL)


def test_a_store_is_not_moved_into_itself(fresh, one, kind, tmp_path):
    root = one.removeprefix("lake:")
    (tmp_path / "alias").symlink_to(root)
    names = (one, f"lake:{tmp_path}/alias")
    if kind == "timescaledb":
        url = stocked(fresh(kind), SMALL[1:])
        names = (url, url.replace("127.0.0.1", "localhost"))
    with pytest.raises(RequestError, match="are the same store"):
        move(*names)


def test_a_source_without_anything_is_refused(fresh):
    with pytest.raises(RequestError, match="does not exist, or holds nothing"):
        move(fresh("timescaledb"), fresh("lake"))


def test_a_destination_with_units_of_its_own_is_refused_and_named(fresh, one):
    other = stocked(fresh("timescaledb"), [Load(trades([day(8).start], 5), window=day(8), run="run-x")])
    before = everything(other)
    with pytest.raises(
        RequestError, match=r"holds 1 units of its own.* number 1, ES.FUT GLBX.MDP3 trades from 2024-01-10"
    ):
        move(one, other)
    assert everything(other) == before


def test_a_destination_that_gained_a_unit_after_it_was_copied_is_refused(fresh, one):
    other = fresh("lake")
    move(one, other)
    stocked(other, LATER[2:3])
    with pytest.raises(RequestError, match="holds 1 units of its own"):
        move(one, other)


def test_a_destination_that_gave_a_number_to_another_unit_is_refused(fresh, one, kind):
    other = fresh(kind)
    with contextlib.closing(opened(other)) as store:
        store.reserve(["a unit of another order"])
    with pytest.raises(RequestError, match="has given number 1 to a unit of its own"):
        move(one, other)


def test_data_of_two_origins_does_not_mix(fresh, one):
    other = stocked(fresh("lake"), [Load(trades(AT).with_columns(data_source=pl.lit("databento")), origin="databento")])
    with pytest.raises(OriginMismatch, match="holds databento data; this is synthetic"):
        move(one, other)


def test_a_source_that_changes_while_a_piece_is_read_leaves_that_piece_out(fresh, one, kind):
    other = fresh(kind)
    source = opened(one)
    read = source.read

    def reading(schema, name, *rest):
        yield from read(schema, name, *rest)
        if name == "trades":
            Load(trades(AT[:3]), symbol="ESH4", stype="raw_symbol", run="run-2").commit(opened(one))

    source.read = reading
    with (
        Migration(source, opened(other), schemas()) as migration,
        pytest.raises(HdiError, match=r"has changed in GLBX\.MDP3 trades while it was read") as caught,
    ):
        list(migration.run())
    assert caught.value.exit_code == 1
    with contextlib.closing(opened(other)) as store:
        assert store.ledger()["schema"].to_list() == ["ohlcv-1d"]
    move(one, other)
    assert everything(other) == everything(one)


def test_a_source_that_grows_elsewhere_is_told_at_the_end(fresh, one):
    other = fresh("lake")
    grown = []

    def on_step(name):
        if name == "commit" and not grown:
            grown.append(Load(bars("ohlcv-1h"), schema="ohlcv-1h").commit(opened(one)))

    with pytest.raises(HdiError, match="it has 3 receipts now, and had 2"):
        move(one, other, on_step=on_step)
    move(one, other)
    assert everything(other) == everything(one)


def test_an_ingest_into_a_cell_that_is_being_copied_waits(fresh, one, kind):
    other, entered, waited = fresh(kind), threading.Event(), []

    def ingest():
        with (
            contextlib.closing(opened(other)) as store,
            store.claim(claim_keys("GLBX.MDP3", schemas().find("trades")[1], DAY)),
        ):
            entered.set()

    threads = [threading.Thread(target=ingest)]

    def on_step(name):
        if name == "commit" and steps.count("begin") == 2:
            threads[0].start()
            waited.append(not entered.wait(0.3))
        steps.append(name)

    steps = []
    move(one, other, on_step=on_step)
    threads[0].join()
    assert waited == [True]
    assert entered.is_set()


def test_a_fragment_that_is_committed_to_the_destination_meanwhile_is_seen(fresh, one, kind):
    """Files without dates claim their bytes alone, so nothing holds them back."""
    other = fresh(kind)
    steps = []

    def on_step(name):
        steps.append(name)
        if name == "lock" and steps.count("lock") == 2:
            Load(trades([day(4).start]), digest="f9", window=day(4), symbol="", run="run-y").commit(opened(other))

    with pytest.raises(StoreError, match=r"another process has committed GLBX\.MDP3 trades meanwhile"):
        move(one, other, on_step=on_step)
    with pytest.raises(RequestError, match="holds 1 units of its own"):
        move(one, other)


class TestProof:
    @pytest.fixture
    def copied(self, fresh):
        """A lake and a database with the same."""
        urls = stocked(fresh("lake"), (*SMALL, UNDATED)), fresh("timescaledb")
        move(*urls)
        return urls

    def test_a_row_that_differs_is_found_and_its_piece_named(self, copied):
        one, other = copied
        for change, where in ROWS.items():
            with changed(other, "trades_data", change):
                found = {m.schema: m.differences for m in move(one, other, "verify")}
            assert found["ohlcv-1d"] == ()
            assert len(found["trades"]) == 1, change
            assert found["trades"][0].startswith(f"GLBX.MDP3 trades: the rows from {where}T00:00:00Z to "), change
        with (
            changed(other, "trades_data", change),
            pytest.raises(StoreError, match=rf"in GLBX.MDP3 trades: the rows from {where}T00:00:00Z to .* dif") as told,
        ):
            move(one, other)
        assert told.value.exit_code == 5
        assert not [m for m in move(one, other) if m.copied_pieces]

    def test_books_that_differ_are_found(self, copied):
        one, other = copied
        for change, table in BOOKS.items():
            with changed(other, table, change):
                found = {m.schema: m.differences for m in move(one, other, "verify")}
            assert len(found["trades"]) == 1, change
        before = everything(other)
        assert [m.copied_pieces for m in move(one, other, "plan")] == [0, 0]
        assert everything(other) == before


@contextlib.contextmanager
def changed(url, table, change):
    """The database with a change of one table, which is as it was after the block."""
    kept, table = sql.Identifier("kept"), sql.Identifier(table)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE TABLE {} AS TABLE {}").format(kept, table))
        columns = sql.SQL(", ").join(
            sql.Identifier(name)
            for (name,) in connection.execute(
                "SELECT column_name FROM information_schema.columns WHERE table_name = 'kept' AND column_name <> 'seq'"
            )
        )
        connection.execute(change)
        try:
            yield
        finally:
            connection.execute(sql.SQL("DELETE FROM {}").format(table))
            back = sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {}")
            connection.execute(back.format(table, columns, columns, kept))
            connection.execute("DROP TABLE kept")


ROWS = {
    "UPDATE trades_data SET ts_event_ns = (ts_event_ns + 1) % 1000 WHERE _row = 7": "2024-01-02",
    "UPDATE trades_data SET _row = 27 - _row WHERE ts_recv < '2024-01-03'": "2024-01-02",
    "UPDATE trades_data SET symbol = NULL WHERE ts_recv >= '2024-01-07'": "2024-01-07",
    "DELETE FROM trades_data WHERE _row = 3": "2024-01-02",
    "INSERT INTO trades_data SELECT * FROM trades_data WHERE _row = 19": "2024-01-02",
    "UPDATE trades_data SET price = price + 0.000000001 WHERE _row = 7": "2024-01-02",
}
BOOKS = {
    "DELETE FROM coverage WHERE instrument_id IS NULL AND schema = 'trades'": "coverage",
    "UPDATE ingest_units SET dollars = 7 WHERE schema = 'trades' AND status = 'complete'": "ingest_units",
    "UPDATE symbol_mappings SET symbol = 'ESX'": "symbol_mappings",
    "DELETE FROM day_conditions WHERE condition = 'degraded'": "day_conditions",
    "UPDATE ingest_units SET batch = NULL WHERE schema = 'trades'": "ingest_units",
    "UPDATE quarantine SET record = '{}' WHERE row = 3": "quarantine",
}

"""Replay and purge in a database: what a lake does, row for row."""

import contextlib

import polars as pl
import pytest

import dbnfiles
from hdi.rejects.purging import Purge, retention
from hdi.testing import opened
from migrate.stock import move
from rejects.desk import PARENT, Desk, database, ruled, trades

CHANGED = ruled(INVALID_SIDE="WARNING", NON_POSITIVE_PRICE=("ERROR", "price > 1"))


@pytest.fixture
def both(tmp_path, fresh_database):
    path = dbnfiles.write(tmp_path / "parent.dbn.zst", "trades", trades(1_500), **PARENT)
    lake = Desk(tmp_path / "lake", max_reject_percent=5.0)
    server = database(fresh_database(), tmp_path / "server", max_reject_percent=5.0)
    for desk in (lake, server):
        desk.good(path)
    yield lake, server
    server.store.close()


def test_a_database_replays_and_purges_as_a_lake_does(both):
    lake, server = both
    said = []
    for desk in both:
        out, into = desk.moves(CHANGED)
        assert out > 0 < into
        assert desk.adds_up()
        assert desk.moves(CHANGED) == (0, 0)
        purge = Purge.of(desk.store, None, desk.options.dlq_dir)
        done = purge.run().drop("purged_at")
        assert purge.rows_replaced == done["rows"].sum() > 0
        said.append((out, into, done.rows(), desk.digest(), desk.rejected()))
        assert not Purge.of(desk.store, None, desk.options.dlq_dir)
        assert retention(desk.store, None, desk.options.dlq_dir) is None
        assert retention(desk.store, 1, desk.options.dlq_dir) is None
    assert said[0] == said[1]
    assert lake.store.ledger()["quarantined"].equals(server.store.ledger()["quarantined"])


def test_retention_purges_what_is_older_and_nothing_else(tmp_path, monkeypatch):
    desk = Desk(tmp_path, max_reject_percent=5.0)
    desk.good(dbnfiles.write(tmp_path / "parent.dbn.zst", "trades", trades(600), **PARENT))
    assert retention(desk.store, 30, desk.options.dlq_dir) is None
    monkeypatch.setattr("hdi.rejects.purging.time.time_ns", lambda: 2**62)
    was = desk.store.quarantine()
    done = retention(desk.store, 30, desk.options.dlq_dir)
    assert done["rows"].sum() == was.height
    assert done["reason"].unique().to_list() == ["older than 30 days"]
    assert set(desk.store.quarantine()["record"]) == {"null"}
    assert desk.entries() == []
    assert desk.adds_up()
    assert desk.store.purged().select(pl.col("rows").sum()).item() == was.height


def test_what_was_purged_is_said_by_a_store_that_it_was_moved_to(tmp_path, fresh_database):
    desk = Desk(tmp_path, max_reject_percent=5.0)
    desk.good(dbnfiles.write(tmp_path / "parent.dbn.zst", "trades", trades(600), **PARENT))
    place, back = fresh_database(), f"lake:{tmp_path / 'back'}"
    move(desk.store.url, place)
    desk.store.purge(desk.store.quarantine()["unit"].unique().to_list(), [], "old")
    [told] = move(desk.store.url, place, "verify")
    assert any("purged" in what for what in told.differences)
    move(desk.store.url, place)
    move(place, back)
    for url in (place, back):
        with contextlib.closing(opened(url)) as store:
            assert store.purged().equals(desk.store.purged())
            assert set(store.quarantine()["record"]) == {"null"}
        assert [m.differences for m in move(desk.store.url, url, "verify")] == [()]

"""Several processes at once on one database: nothing is doubled, nothing is paid twice, readers see whole commits."""

import itertools
from dataclasses import asdict, replace

import pytest

from api.desk import Ask
from api.truth import alike
from hdi import HistoricalData
from hdi.stores.timescaledb.layout import LAYOUT
from hdi.testing import Load, rejects, trades
from hdi.testing.material import START, schemas
from hdi.testing.once import bars
from lakes import lines
from server_faults.counter import Counter
from server_faults.places import ServerPlace, until
from server_faults.wards import gate

ROUNDS = 10


def test_three_processes_that_start_first_at_once_make_the_tables_once(cluster, tmp_path, wards):
    for turn in range(ROUNDS):
        place = ServerPlace(tmp_path, {}, cluster.fresh("template0"))
        with gate(tmp_path, len(wards)) as held:
            for ward in wards:
                ward.start(place, "begin", gate=held)
        assert [ward.end() for ward in wards] == [0] * len(wards), turn
        with place.admin() as connection:
            [[version]] = connection.execute("SELECT value FROM hdi_meta WHERE key = 'layout'").fetchall()
            tables = connection.execute("SELECT count(*) FROM timescaledb_information.hypertables").fetchall()
        assert (version, tables) == (str(LAYOUT), [(len(list(schemas())),)])
        assert place.left_on_server() == []


@pytest.mark.parametrize("turn", range(2))
def test_two_processes_with_overlapping_files_store_each_row_once(new, paths, wards, turn):
    place = new("place")
    first, second = paths[:4], paths[:4][::-1] if turn else paths[:4]
    with gate(place.folder.parent, 2) as held:
        for ward, mine in zip(wards[:2], (first, second), strict=True):
            ward.start(place, paths=mine, gate=held)
    assert [ward.end() for ward in wards[:2]] == [0, 0]
    alone = new("alone")
    alone.stored(*paths[:4])
    for name in ("trades", "tbbo", "ohlcv-1d"):
        assert place.digest(name) == alone.digest(name)
    with place.handle() as store:
        assert store.ledger()["unit_id"].is_unique().all()
        assert store.quarantine().height == len(lines(place))
    assert place.raw() == alone.raw()
    assert place.leftovers() == []


def asked(data):
    """The trades that a query finds."""
    return data.query("ALL_SYMBOLS", "2024-01-02", "2024-01-03", schema="trades").collect()


def test_a_query_beside_an_ingest_sees_whole_files(new, paths, wards):
    alone, place, whole = new("alone"), new("place"), []
    for path in (paths[2], *paths[:2]):
        alone.stored(path)
        with HistoricalData.open(alone.url) as data:
            whole.append(asked(data))
    assert [rows.height for rows in whole] == [0, 3_990, 3_990]
    assert not whole[1].equals(whole[2])
    place.options["batch_size"] = 200
    place.stored(paths[2])
    wards[0].start(place, paths=paths[:2])
    seen = []
    with HistoricalData.open(place.url) as data:

        def done():
            rows = asked(data)
            seen.append(next((k for k, state in enumerate(whole) if state.equals(rows)), -1))
            return seen[-1] == 2

        until(done, "the last commit")
    assert wards[0].end() == 0
    assert set(seen) <= {0, 1, 2}
    assert seen == sorted(seen)


def test_rejects_that_go_and_come_in_one_commit_are_seen_beside_another_that_ended_first(new):
    """Numbers of rows are given in one order, and commits end in another."""
    place = new("place")
    load = Load(trades([START]), rejected=rejects([START + 1], rule="FIRST"))
    other = Load(bars("ohlcv-1d"), schema="ohlcv-1d", rejected=rejects([START + 3], rule="OTHER"))
    with place.handle() as reader:

        def rules():
            return sorted(reader.quarantine()["rules"].explode())

        def on_step(step):
            if step == "books":
                with place.handle() as another:
                    other.commit(another)
                assert rules() == ["FIRST", "OTHER"]

        load.commit(reader)
        with place.handle(on_step=on_step) as store:
            replace(load, rejected=rejects([START + 2], rule="SECOND"), run="again").commit(store)
        assert rules() == ["OTHER", "SECOND"]


ASKS = (
    Ask("ES.FUT", "2024-03-14", "2024-03-15", "trades"),
    Ask("ES.c.0,CL.c.0", "2024-03-14", "2024-03-15", "trades"),
)


@pytest.mark.parametrize("shared", [True, False], ids=["one data folder", "two data folders"])
def test_what_two_processes_want_to_buy_at_once_is_billed_once(cluster, tmp_path, wards, vendor, truth, shared):
    url = cluster.fresh()
    folders = [tmp_path / "one", tmp_path / ("one" if shared else "other")]
    desks = [Counter(folder, vendor, address=url) for folder in folders]
    for ward, desk, ask in zip(wards, desks, ASKS, strict=False):
        more = {"key": vendor.key, "gateway": vendor.gateway, "ask": asdict(ask), "environment": vendor.environment()}
        ward.start(desk.place, "buy", **more)
    assert [ward.end() for ward in wards[:2]] == [0, 0]
    assert vendor.books.billed_bytes == truth.size(*ASKS)
    alike(desks[0].rows("trades"), truth.union(*ASKS))
    for desk, ask in itertools.product(desks, ASKS):
        assert desk.ingest(ask) == []
    assert desks[0].place.leftovers() == []

"""Several processes at once on one database: nothing is doubled, nothing is paid twice, readers see whole commits."""

import itertools

import pytest

from api.conftest import MARKET, market, trusted, truth, vendor  # noqa: F401  (fixtures)
from api.desk import Ask
from api.truth import alike
from dataclasses import asdict
from hdi import HistoricalData
from hdi.testing.vendor import rehearse  # noqa: F401  (a fixture)
from server_faults.counter import Counter
from server_faults.places import ServerPlace, until
from server_faults.wards import gate
from lakes import lines

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
            tables = connection.execute(
                "SELECT count(*) FROM timescaledb_information.hypertables"
            ).fetchall()
        assert (version, tables) == ("1", [(5,)])
        assert place.left_on_server() == []


@pytest.mark.parametrize("turn", range(2))
def test_two_processes_with_overlapping_files_store_each_row_once(new, paths, wards, undisturbed, turn):
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


ASKS = (
    Ask("ES.FUT", "2024-03-14", "2024-03-15", "trades"),
    Ask("ES.c.0,CL.c.0", "2024-03-14", "2024-03-15", "trades"),
)


@pytest.mark.parametrize("shared", [True, False], ids=["one data folder", "two data folders"])
def test_what_two_processes_want_to_buy_at_once_is_billed_once(cluster, tmp_path, wards, vendor, truth, shared):
    url = cluster.fresh()
    folders = [tmp_path / "one", tmp_path / ("one" if shared else "other")]
    desks = [Counter(folder, vendor, address=url) for folder in folders]
    environment = {n: v for n, v in vendor.environment().items()}
    for ward, desk, ask in zip(wards, desks, ASKS, strict=False):
        more = {"key": vendor.key, "gateway": vendor.gateway, "ask": asdict(ask), "environment": environment}
        ward.start(desk.place, "buy", **more)
    assert [ward.end() for ward in wards[:2]] == [0, 0]
    assert vendor.books.billed_bytes == truth.size(*ASKS)
    alike(desks[0].rows("trades"), truth.union(*ASKS))
    for desk, ask in itertools.product(desks, ASKS):
        assert desk.ingest(ask) == []
    assert desks[0].place.leftovers() == []

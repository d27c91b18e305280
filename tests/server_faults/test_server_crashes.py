"""The server dies or is restarted while something is under way: nothing is lost, nothing is doubled, and hdi goes on."""

import pytest

from hdi import HistoricalData
from hdi.errors import StoreLost
from hdi.stores.timescaledb import connect
from hdi.stores.timescaledb.load import TimescaleWriter

NAMES = ("trades",)
BATCH = 500


@pytest.fixture
def impatient(monkeypatch):
    """A server that is gone is given up at once, and not after as long as a restart takes."""
    monkeypatch.setattr(connect, "_PATIENCE", 0.4)


@pytest.fixture
def in_copy(monkeypatch):
    """Does something once, when some of the rows of a COPY have been sent and others have not."""

    def call(act):
        send, sent = TimescaleWriter._send, []

        def counted(writer, rows):
            sent.append(rows.height)
            if len(sent) == 3:
                act()
            send(writer, rows)

        monkeypatch.setattr(TimescaleWriter, "_send", counted)

    return call


def once(step, act, *, nth=1):
    """A listener that does something at that occurrence of a step."""
    left = [nth]

    def on_step(name):
        if name == step:
            left[0] -= 1
            if not left[0]:
                act()

    return on_step


@pytest.fixture(scope="module")
def pair(paths):
    """Files of which the second is compared with the first."""
    return paths[:2]


@pytest.fixture(scope="module")
def expected(cluster, tmp_path_factory, pair):
    from server_faults.places import ServerPlace

    place = ServerPlace(tmp_path_factory.mktemp("expected"), {}, cluster.fresh())
    place.stored(*pair)
    return place.state(NAMES)


def test_a_server_killed_in_mid_copy_that_comes_back_costs_one_more_reading(new, cluster, pair, expected, in_copy):
    place = new("place", batch_size=BATCH)
    in_copy(cluster.crash_and_return)
    place.stored(*pair)
    assert place.state(NAMES) == expected
    assert place.leftovers() == []


@pytest.mark.parametrize("step", ["lock", "compare", "books", "commit"])
def test_a_server_killed_in_mid_commit_that_comes_back_costs_one_more_reading(new, cluster, pair, expected, step):
    place = new("place")
    place.stored(pair[0])
    assert [o.status for o in place.ingest(pair[1], on_step=once(step, cluster.crash_and_return))] == ["stored"]
    assert place.state(NAMES) == expected
    assert place.leftovers() == []


def test_a_server_that_takes_a_while_to_come_back_is_waited_for(new, cluster, pair, expected):
    place, coming = new("place"), []

    def crash():
        cluster.crash()
        coming.append(cluster.return_later(1.0))

    assert [o.status for o in place.ingest(*pair, on_step=once("commit", crash))] == ["stored", "stored"]
    coming[0].join()
    assert place.state(NAMES) == expected


@pytest.mark.usefixtures("impatient")
def test_a_server_that_stays_away_ends_the_run_and_what_was_committed_stays(new, cluster, pair, expected, in_copy):
    place = new("place", batch_size=BATCH)
    place.stored(pair[0])
    before = place.state(NAMES)
    in_copy(cluster.crash)
    with pytest.raises(StoreLost, match="run the same command again") as refused:
        place.ingest(pair[1])
    assert refused.value.exit_code == 5
    cluster.start()
    assert place.left_on_server() == []
    assert place.state(NAMES)[:2] == before[:2]
    place.stored(pair[1])
    assert place.state(NAMES) == expected


def test_a_restart_between_two_files_of_one_run_is_not_noticed(new, cluster, paths, undisturbed):
    place = new("place")
    [*_] = outcomes = place.ingest(*paths, on_step=once("begin", cluster.restart, nth=2))
    assert [o.status for o in outcomes] == ["stored"] * len(paths)
    assert place.state() == undisturbed


def test_a_handle_that_is_open_while_the_server_is_restarted_reads_on(new, cluster, pair):
    place = new("place")
    place.stored(*pair)
    with HistoricalData.open(place.url) as data:

        def rows():
            return data.query("ES.FUT", "2024-01-02", "2024-01-03", schema="trades").collect()

        before = rows()
        assert before.height == 3_990
        for back in (cluster.restart, cluster.crash_and_return, cluster.restart):
            back()
            assert rows().equals(before)
            assert data.store().health()["exists"]

"""The server dies or is restarted while something is under way: nothing is lost or doubled, and hdi goes on."""

import pytest

from hdi import HistoricalData
from hdi.errors import StoreLost
from server_faults.places import BATCH, NAMES, once


def test_a_server_killed_in_mid_copy_that_comes_back_costs_one_more_reading(new, cluster, pair, expected, in_copy):
    place = new("place", batch_size=BATCH)
    in_copy(cluster.crash_and_return)
    place.stored(*pair)
    assert place.state(NAMES) == expected
    assert place.leftovers() == []


@pytest.mark.parametrize("step", ["compare", "commit"])
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


@pytest.mark.fault("network", "the server stays away", "server")
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

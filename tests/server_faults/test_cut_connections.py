"""Connections break while the server lives: exactly once all the same, and what hdi says of it is true."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import structlog

from hdi.errors import StoreLost
from hdi.stores.timescaledb import arrow, connect
from hdi.testing import Load, content, prices, trades
from hdi.testing.material import START, frames
from server_faults.places import BATCH, NAMES, SESSIONS, beside, once, until
from server_faults.proxies import Proxy

CLAIMS = f"{SESSIONS} AND query LIKE '%pg_advisory_lock(%'"
IDLE = f"{SESSIONS} AND state = 'idle'"


@pytest.fixture
def proxied(new, cluster):
    """A place that is reached through a proxy, and the proxy."""
    place, proxy = new("proxied"), Proxy(cluster.server.port)
    place.address = beside(place.address, port=proxy.port)
    yield place, proxy
    proxy.close()


@pytest.mark.fault("network", "connections to the server end while rows are sent", "server")
def test_sessions_ended_in_mid_copy_cost_one_more_reading(new, pair, expected, in_copy):
    place = new("place", batch_size=BATCH)
    in_copy(place.cut)
    place.stored(*pair)
    assert place.state(NAMES) == expected
    assert place.leftovers() == []


@pytest.mark.fault("network", "connections to the server end at a step of a commit", "server")
@pytest.mark.parametrize("step", ["look", "write", "books", "commit"])
def test_sessions_ended_in_mid_finish_cost_one_more_reading(new, pair, expected, step):
    place = new("place")
    place.stored(pair[0])
    with structlog.testing.capture_logs() as entries:
        assert [o.status for o in place.ingest(pair[1], on_step=once(step, place.cut))] == ["stored"]
    assert [e["log_level"] for e in entries if "once more" in e["event"]] == ["warning"]
    assert place.state(NAMES) == expected
    assert place.leftovers() == []


def test_sessions_ended_again_and_again_end_the_run_and_it_can_be_run_again(new, pair, expected):
    place = new("place")
    place.stored(pair[0])
    before = place.state(NAMES)
    with pytest.raises(StoreLost, match="run the same command again") as refused:
        place.ingest(pair[1], on_step=lambda step: place.cut() if step == "commit" else None)
    assert refused.value.exit_code == 5
    assert place.state(NAMES)[:2] == before[:2]
    assert place.left_on_server() == []
    place.stored(pair[1])
    assert place.state(NAMES) == expected


@pytest.mark.parametrize("step", ["begin", "commit"])
def test_the_session_of_a_claim_that_ends_changes_nothing_for_the_run(new, pair, expected, step):
    place, cut = new("place"), []
    place.stored(*pair[:1])
    place.stored(pair[1], on_step=once(step, lambda: cut.append(place.cut(CLAIMS))))
    assert cut == [1]
    assert place.state(NAMES) == expected
    assert place.leftovers() == []


def test_idle_sessions_that_end_are_replaced(new):
    place = new("place")
    load = Load(trades([START + k for k in range(5)]))
    with place.handle() as store:
        load.commit(store)
        assert prices(store) == [100, 101, 102, 103, 104]
        assert place.cut(IDLE) >= 1
        assert store.ledger().height == 1
        assert prices(store) == [100, 101, 102, 103, 104]
        assert place.cut(IDLE) >= 1
        assert store.reserve(["x"]) == [2]
        assert place.cut(IDLE) >= 1
        assert load.commit(store).unchanged == 5


def test_many_idle_sessions_that_end_at_once_are_replaced_as_one_is(new):
    place, waiting = new("place"), f"SELECT pid FROM ({SESSIONS} AND wait_event_type = 'Lock') w"
    many = 7
    with place.handle() as store, ThreadPoolExecutor(many) as threads:
        with place.admin() as admin, admin.transaction():
            admin.execute("LOCK TABLE hdi_units")
            units = [threads.submit(store.reserve, [f"{k}"]) for k in range(many)]
            with place.admin() as another:
                until(lambda: len(another.execute(waiting).fetchall()) == many, "their work at once")
        assert sorted(number for unit in units for number in unit.result()) == list(range(1, many + 1))
        assert place.cut(IDLE) >= many
        assert store.reserve(["another"]) == [many + 1]
        assert store.ledger().is_empty()


@pytest.mark.fault("network", "a connection to the server ends while rows are read", "server")
def test_a_read_whose_session_ends_says_so_and_gives_no_part_for_the_whole(new, monkeypatch):
    monkeypatch.setattr(arrow, "_BATCH_BYTES", 1 << 12)
    place = new("place")
    n = 100_000  # more than connections hold on their way
    with place.handle() as store:
        Load(trades([START + k for k in range(n)], prices=1), batch=50_000).commit(store)
        rows = frames(store)
        assert next(rows).height < n // 10
        place.cut()
        with pytest.raises(StoreLost, match="run the same command again"):
            list(rows)
        assert content(store).height == n


@pytest.mark.fault("network", "the request of a commit is lost", "server")
def test_a_commit_whose_request_is_lost_is_done_by_one_more_reading(proxied, pair, expected):
    place, proxy = proxied
    place.stored(pair[0])
    place.stored(pair[1], on_step=once("commit", lambda: setattr(proxy, "lose", "request")))
    assert proxy.lost.is_set()
    assert place.state(NAMES) == expected
    assert place.leftovers() == []


@pytest.mark.fault("network", "the answer to a commit is lost", "server")
def test_a_commit_whose_answer_is_lost_is_found_in_the_books_and_done_once(proxied, pair, expected):
    place, proxy = proxied
    place.stored(pair[0])
    with structlog.testing.capture_logs() as entries:
        receipts = place.stored(pair[1], on_step=once("commit", lambda: setattr(proxy, "lose", "answer")))
    assert proxy.lost.is_set()
    said = [e["event"] for e in entries if e["log_level"] == "warning"]
    assert said.count("the connection broke while the server committed; the commit stands") == 1
    with place.handle() as store:
        kept = store.ledger().filter(unit=receipts[0].number)
    assert kept.select("run", "fetched", "stored", "unchanged").rows() == [
        (receipts[0].run, receipts[0].fetched, receipts[0].stored, receipts[0].unchanged)
    ]
    assert place.state(NAMES) == expected
    assert [o.status for o in place.ingest(pair[1])] == ["skipped"]


@pytest.mark.fault("network", "the answer to a commit is lost, and the server is away", "server")
@pytest.mark.usefixtures("impatient")
def test_a_commit_whose_answer_is_lost_and_that_cannot_be_looked_up_is_left_to_the_next_run(proxied, pair, expected):
    place, proxy = proxied
    place.stored(pair[0])

    def part(name):
        if name == "commit":
            proxy.lose, proxy.closed = "answer", True

    with pytest.raises(StoreLost, match="run the same command again"):
        place.ingest(pair[1], on_step=part)
    assert proxy.lost.is_set()
    proxy.closed = False
    assert [o.status for o in place.ingest(pair[1])] == ["skipped"]
    assert place.state(NAMES) == expected
    assert place.leftovers() == []


def test_a_commit_whose_answer_is_lost_and_that_is_looked_up_late_counts_as_done(proxied, pair, expected, monkeypatch):
    place, proxy = proxied
    place.stored(pair[0])
    patience = connect._PATIENCE

    def part(name):
        if name == "commit" and not proxy.lost.is_set():
            proxy.lose, proxy.closed = "answer", True
            monkeypatch.setattr(connect, "_PATIENCE", 0.2)
        elif name == "begin" and proxy.lost.is_set():
            proxy.closed = False
            monkeypatch.setattr(connect, "_PATIENCE", patience)

    assert [o.status for o in place.ingest(pair[1], on_step=part)] == ["stored"]
    assert place.state(NAMES) == expected


@pytest.mark.fault("network", "all connections to the server are cut", "server")
@pytest.mark.parametrize("step", ["copy", "commit"])
def test_a_network_that_breaks_at_a_step_costs_one_more_reading(proxied, pair, expected, step):
    place, proxy = proxied
    place.stored(*pair, on_step=once(step, proxy.cut, nth=2))
    assert place.state(NAMES) == expected
    assert place.leftovers() == []

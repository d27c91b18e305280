"""A network towards the server that is slow, or swallows all: given up in time, and the next run makes it good."""

import time

import pytest

from hdi.errors import StoreLost
from hdi.stores.timescaledb import arrow
from hdi.testing import Load, content, trades
from hdi.testing.material import START, frames
from server_faults.places import BATCH, NAMES, beside, once
from server_faults.proxies import Proxy

#: A host that vanished is noticed within seconds, and not within a minute and a half.
SOON = "connect_timeout=2&tcp_user_timeout=1000&keepalives_idle=1&keepalives_interval=1&keepalives_count=1"
#: Much longer than that, much less than for ever.
PATIENCE = 30


@pytest.fixture
def proxied(new, cluster):
    """A place that is reached through a proxy, and the proxy."""
    place, proxy = new("proxied", batch_size=BATCH), Proxy(cluster.server.port)
    place.address = f"{beside(place.address, port=proxy.port)}?{SOON}"
    yield place, proxy
    proxy.close()


def given_up(work):
    """The work ends because the server is gone, and in time."""
    began = time.monotonic()
    with pytest.raises(StoreLost, match="gone or cannot be reached") as lost:
        work()
    assert lost.value.exit_code == 5
    assert "run the same command again" in lost.value.hint
    assert time.monotonic() - began < PATIENCE


@pytest.mark.fault("network", "slow towards the server", "server")
def test_a_slow_network_stores_the_same(proxied, pair, expected):
    place, proxy = proxied
    proxy.rate = 1_000_000
    place.stored(*pair)
    assert place.state(NAMES) == expected


@pytest.mark.usefixtures("impatient")
@pytest.mark.fault("network", "the server is a black hole when it is connected to", "server")
def test_a_server_that_never_answers_is_given_up_in_time(proxied, pair, expected):
    place, proxy = proxied
    proxy.swallow()
    given_up(lambda: place.ingest(*pair))
    proxy.heal()
    place.stored(*pair)
    assert place.state(NAMES) == expected


@pytest.mark.usefixtures("impatient")
@pytest.mark.fault("network", "the server becomes a black hole at a step of a commit", "server")
@pytest.mark.parametrize("step", ["copy", "commit"])
def test_a_server_that_vanishes_in_the_middle_is_given_up_in_time_and_the_next_run_makes_it_good(
    proxied, pair, expected, step
):
    place, proxy = proxied
    place.stored(pair[0])
    given_up(lambda: place.ingest(pair[1], on_step=once(step, proxy.swallow)))
    proxy.heal()
    [outcome] = place.ingest(pair[1])
    assert outcome.status in ("stored", "skipped")
    assert place.state(NAMES) == expected
    assert place.leftovers() == []


@pytest.mark.fault("network", "the server becomes a black hole while rows are read", "server")
def test_a_read_that_is_swallowed_is_given_up_in_time_and_gives_no_part_for_the_whole(proxied, monkeypatch):
    monkeypatch.setattr(arrow, "_BATCH_BYTES", 1 << 12)
    place, proxy = proxied
    n = 100_000  # more than connections hold on their way
    with place.handle() as store:
        Load(trades([START + k for k in range(n)], prices=1), batch=50_000).commit(store)
        rows = frames(store)
        assert next(rows).height < n // 10
        proxy.swallow()
        given_up(lambda: list(rows))
        proxy.heal()
        assert content(store).height == n

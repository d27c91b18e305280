"""A network towards the vendor that is slow, or swallows all: it is given up in time, and no order is made twice."""

import sys
from types import SimpleNamespace

import pytest

from api.conftest import MARKET
from api.desk import Ask, Desk
from api.truth import alike
from faults.conftest import new  # noqa: F401  (a fixture)
from faults.marks import on_both
from hdi.errors import VendorUnavailable
from hdi.sources.databento import Databento
from server_faults.proxies import Proxy

DAY = Ask("ES.c.0", "2024-03-14", "2024-03-14", "trades")
GET_RANGE = "timeseries.get_range"


@pytest.fixture
def market():
    """So many trades that a day of them is some pieces of a stream."""
    return MARKET | {"scale": 1.0}


@pytest.fixture
def proxy(vendor):
    if sys.platform != "linux":
        pytest.skip("sockets that swallow what comes are made on Linux")
    made = Proxy(int(vendor.gateway.rpartition(":")[2]))
    yield made
    made.close()


@pytest.fixture
def desk(new, vendor, proxy, monkeypatch):  # noqa: F811
    """A desk that reaches the vendor through a proxy, and waits half a second for it at the most."""
    monkeypatch.setitem(Databento.__init__.__kwdefaults__, "timeout", 0.5)
    place, near = new("desk"), f"https://127.0.0.1:{proxy.port}"
    return Desk(
        place.folder, SimpleNamespace(key=vendor.key, gateway=near), {"databento.tries": 2}, address=place.address
    )


def stored_once(desk, vendor, truth, orders):
    alike(desk.rows("trades"), truth.rows(DAY))
    assert list((desk.data_dir / "raw" / ".part").iterdir()) == []
    assert vendor.books.calls[GET_RANGE] == orders
    assert desk.ingest(DAY) == []
    assert vendor.books.calls[GET_RANGE] == orders


@pytest.mark.parametrize("new", ["lake"], indirect=True)
@pytest.mark.fault("network", "slow towards the vendor", "lake")
def test_a_slow_network_brings_the_same(desk, vendor, truth, proxy):
    proxy.rate = 200_000
    desk.stored(DAY)
    stored_once(desk, vendor, truth, 1)
    assert vendor.books.billed_bytes == truth.size(DAY)


@on_both("network", "the vendor becomes a black hole in the middle of a stream")
def test_a_stream_that_is_swallowed_is_given_up_in_time_and_ordered_again_by_the_next_run(desk, vendor, truth, proxy):
    with desk.open() as data:
        buying = desk.buying(data, DAY)
        offer = buying.offer()
        proxy.swallow_after = proxy.came + 20_000
        [failed] = buying.run(offer)[1]
    assert isinstance(failed.error, VendorUnavailable)
    assert "in time" in failed.error.message
    assert failed.error.exit_code == 1
    assert failed.error.hint
    assert desk.rows("trades") == []
    assert [p for p in desk.raw() if p.endswith(".zst")] == []
    proxy.heal()
    desk.stored(DAY)
    stored_once(desk, vendor, truth, 2)


@pytest.mark.parametrize("new", ["lake"], indirect=True)
@pytest.mark.fault("network", "the vendor becomes a black hole after an order has arrived", "lake")
def test_an_order_that_had_arrived_is_not_made_again_after_a_black_hole(desk, vendor, truth, proxy):
    desk.stored(DAY)
    fresh = desk.beside("fresh", shared=True)
    proxy.swallow()
    with pytest.raises(VendorUnavailable, match="in time"):
        fresh.ingest(DAY)
    proxy.heal()
    fresh.stored(DAY)
    stored_once(fresh, vendor, truth, 1)

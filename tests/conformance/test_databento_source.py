"""The Databento source, through the vendor's client over HTTPS to a rehearsal vendor, passes the suite for sources."""

import pytest

from hdi.model import Order, Window
from hdi.rehearsal import Rehearsal
from hdi.sources import open_source
from hdi.testing import SourceSuite


@pytest.fixture(scope="module")
def vendor():
    with Rehearsal(until="2024-07-01", limits=0) as serving:
        yield serving


class TestDatabento(SourceSuite):
    @pytest.fixture
    def source(self, vendor, monkeypatch):
        for name, value in vendor.environment().items():
            monkeypatch.setenv(name, value)
        return open_source("databento", key=vendor.key, gateway=vendor.gateway, tries=2, backoff_seconds=0.01)

    @pytest.fixture(params=["ohlcv-1h", "trades", "statistics"])
    def order(self, request):
        return Order("GLBX.MDP3", request.param, "continuous", ("ES.c.0",), Window.parse("2024-03-12", "2024-03-18"))

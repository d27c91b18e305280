"""The vendor's own client, unmodified, pointed at a rehearsal vendor."""

import databento
import pytest

from hdi.testing.vendor import rehearsal_vendor, rehearse

__all__ = ["rehearsal_vendor", "rehearse"]

#: A week of daily bars of the front contract.
WEEK = {
    "dataset": "GLBX.MDP3", "schema": "ohlcv-1d", "symbols": "ES.c.0", "stype_in": "continuous",
    "start": "2024-01-08", "end": "2024-01-13",
}  # fmt: skip


@pytest.fixture
def vendor(rehearsal_vendor):
    return rehearsal_vendor


@pytest.fixture
def connect():
    """A client of a vendor."""

    def call(vendor, key=None):
        return databento.Historical(key or vendor.key, vendor.gateway)

    return call


@pytest.fixture
def client(vendor, connect):
    return connect(vendor)


@pytest.fixture
def week():
    return dict(WEEK)


@pytest.fixture
def refused(client):
    """The error of a call that is refused: any method, by default a stream."""

    def call(method="timeseries.get_range", **fields):
        family, _, name = method.partition(".")
        with pytest.raises(databento.BentoHttpError) as caught:
            getattr(getattr(client, family), name)(**fields)
        return caught.value

    return call

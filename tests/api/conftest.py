"""A rehearsal vendor that is tested, another one that tells the truth, and lakes to buy into."""

import os
import warnings

import pytest
import structlog

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import databento  # noqa: F401  (its import sets warning filters)

from api.desk import Desk, trusting
from api.truth import Truth
from hdi.testing.vendor import rehearse  # noqa: F401  (a fixture)

#: So few trades that a day is quick, and many enough that some share an instant.
MARKET = {"until": "2024-07-01", "scale": 0.02}


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """Every test in a folder of its own, without the settings, keys and proxies of the one who runs it."""
    for name in list(os.environ):
        if name.startswith(("HDI_", "TIMESCALEDB_", "DATABENTO_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    yield
    structlog.reset_defaults()


@pytest.fixture
def market(request):
    """The options of the market: those of all tests, and what one asks for beside them."""
    return MARKET | getattr(request, "param", {})


@pytest.fixture
def trusted(tmp_path, monkeypatch):
    """Makes clients trust a vendor and nobody else."""

    def call(vendor):
        for name, value in trusting(vendor, tmp_path).items():
            monkeypatch.setenv(name, value)
        return vendor

    return call


@pytest.fixture
def vendor(rehearse, market, trusted):  # noqa: F811  (the fixture that is imported)
    """The vendor whose books are judged."""
    return trusted(rehearse(**market))


@pytest.fixture
def truth(rehearse, market, vendor, trusted):  # noqa: F811
    """The same market at another address."""
    other = rehearse(**market)
    trusted(vendor)  # both certificates are of one authority
    return Truth(other)


@pytest.fixture
def desk(tmp_path, vendor):
    return Desk(tmp_path / "desk", vendor)

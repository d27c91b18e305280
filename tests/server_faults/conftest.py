import os

import pytest
import structlog

import servers
from faults.conftest import paths  # noqa: F401  (a fixture)
from hdi.testing.material import opened
from server_faults.places import ServerPlace

CI = os.environ.get("CI") == "true"


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """Every test in a folder of its own, without the settings of the one who runs it."""
    for name in list(os.environ):
        if name.startswith(("HDI_", "TIMESCALEDB_", "DATABENTO_", "PG")) and name != "HDI_TEST_TIMESCALEDB":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    yield
    structlog.reset_defaults()


@pytest.fixture
def fresh(fresh_database):
    """At each call the URL of a database with the tables of this version, and nothing in them."""
    return lambda: fresh_database(template="layout", prepare=lambda url: opened(url).close())


@pytest.fixture
def new(fresh, tmp_path):
    """Makes places: ``new("name")`` has a folder and a database of its own."""

    def make(name, options=None):
        return ServerPlace(tmp_path / str(name), options or {}, fresh())

    return make

"""Pairs of a lake and a database, and the database of a module."""

import os

import pytest
import structlog

pytest.register_assert_rewrite("same.twins")

from same.twins import twins, wipe  # noqa: E402  (its assertions are rewritten when it is imported)
from servers import make_layout  # noqa: E402


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """Every test in a folder of its own, without the settings, keys and proxies of the one who runs it."""
    for name in list(os.environ):
        own = name.startswith(("HDI_", "TIMESCALEDB_", "DATABENTO_")) and name != "HDI_REAL_DATA"
        if own or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="module")
def address(databases):
    """The URL of a database with an empty store, for one module."""
    with databases.kept() as fresh:
        yield fresh(template="layout", prepare=make_layout)


@pytest.fixture
def pair(address, tmp_path):
    """A pair of empty stores."""
    wipe(address)
    with twins(tmp_path, address) as made:
        yield made

"""Stores of every kind with everything in them, and what makes two of them the same."""

import itertools
import os

import pytest
import structlog

from migrate.stock import KINDS, make_layout


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """Every test in a folder of its own, without the settings of the one who runs it."""
    for name in list(os.environ):
        if name.startswith(("HDI_", "TIMESCALEDB_", "DATABENTO_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    yield
    structlog.reset_defaults()


@pytest.fixture
def fresh(tmp_path, request):
    """``fresh(kind)`` gives, at every call, the URL of an empty store."""
    count = itertools.count()

    def make(kind):
        if kind == "lake":
            return f"lake:{tmp_path}/store-{next(count)}"
        return request.getfixturevalue("fresh_database")(template="layout", prepare=make_layout)

    return make


@pytest.fixture(params=KINDS)
def kind(request):
    """Each kind of store."""
    return request.param

"""Stores of every kind with everything in them, and what makes two of them the same."""

import itertools
import os
import shutil

import pytest
import structlog

from migrate.stock import FIRST, KINDS, stocked
from servers import make_layout


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


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Lakes that are only copied, by their loads."""
    lakes = {}

    def make(loads):
        if id(loads) not in lakes:
            # The loads are kept with it, so that no others get their id.
            lakes[id(loads)] = loads, stocked(f"lake:{tmp_path_factory.mktemp('made')}", loads)
        return lakes[id(loads)][1]

    return make


@pytest.fixture
def stock(fresh, made):
    """``stock(kind, loads)``: the URL of a store with these loads."""

    def make(kind="lake", loads=FIRST):
        url = fresh(kind)
        if kind == "lake":
            shutil.copytree(made(loads).removeprefix("lake:"), url.removeprefix("lake:"))
            return url
        return stocked(url, loads)

    return make


@pytest.fixture(params=KINDS)
def kind(request):
    """Each kind of store."""
    return request.param

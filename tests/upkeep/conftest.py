"""Stores of both kinds with everything in them, each test in a folder of its own."""

import itertools
import os
import shutil

import pytest
import structlog

from migrate.stock import KINDS, stocked
from upkeep.keepers import Keepers


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """Without the settings of the one who runs it."""
    for name in list(os.environ):
        if name.startswith(("HDI_", "TIMESCALEDB_", "DATABENTO_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    yield
    structlog.reset_defaults()


@pytest.fixture
def programs(databases, monkeypatch):
    """The folder of pg_dump and pg_restore that the server of the tests came with, where the settings find it."""
    folder = databases.programs()
    monkeypatch.setenv("TIMESCALEDB_PROGRAMS", str(folder))
    return folder


@pytest.fixture(scope="package")
def lake(tmp_path_factory):
    """A lake that is only copied."""
    return stocked(f"lake:{tmp_path_factory.mktemp('stock')}/lake").removeprefix("lake:")


@pytest.fixture
def stock(tmp_path, lake, request):
    """``stock(kind)``: the URL of a store of its own with every load in it."""
    count = itertools.count()

    def make(kind="lake"):
        if kind == "lake":
            return f"lake:{shutil.copytree(lake, tmp_path / f'store-{next(count)}')}"
        return request.getfixturevalue("fresh_database")(template="stocked", prepare=stocked)

    return make


@pytest.fixture
def empty(tmp_path, request):
    """``empty(kind)``: the URL of a place where there is no store yet."""
    count = itertools.count()

    def make(kind="lake"):
        if kind == "lake":
            return f"lake:{tmp_path}/empty-{next(count)}"
        return request.getfixturevalue("fresh_database")()

    return make


@pytest.fixture(params=KINDS)
def kind(request):
    """Each kind of store."""
    return request.param


@pytest.fixture(scope="package")
def keepers():
    keepers = Keepers()
    yield keepers
    keepers.close()

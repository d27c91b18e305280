import os

import pytest
import structlog

import servers
from faults.conftest import paths  # noqa: F401  (a fixture)
from server_faults.clusters import Cluster
from server_faults.places import ServerPlace
from server_faults.wards import Ward

CI = os.environ.get("CI") == "true"


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """Every test in a folder of its own, without the settings of the one who runs it."""
    for name in list(os.environ):
        if name.startswith(("HDI_", "TIMESCALEDB_", "DATABENTO_", "PG")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="package")
def cluster():
    """A server of these tests' own, which they may kill."""
    try:
        with servers.private() as make:
            yield Cluster(make())
    except servers.Unavailable as error:
        (pytest.fail if CI else pytest.skip)(f"TimescaleDB cannot be had: {error}")


@pytest.fixture
def new(cluster, tmp_path):
    """Makes places: ``new("name")`` has a folder and a database of its own."""
    return lambda name, **options: ServerPlace(tmp_path / str(name), options, cluster.fresh())


@pytest.fixture(scope="package")
def undisturbed(cluster, tmp_path_factory, paths):  # noqa: F811  (the fixture that is imported)
    """The state after a run that nothing interrupted."""
    place = ServerPlace(tmp_path_factory.mktemp("undisturbed"), {}, cluster.fresh())
    place.stored(*paths)
    assert place.leftovers() == []
    return place.state()


@pytest.fixture(scope="package")
def wards():
    """Parents of children that work and may be killed, each of one at a time."""
    made = [Ward() for _ in range(3)]
    yield made
    for ward in made:
        ward.close()


@pytest.fixture(scope="package")
def ward(wards):
    return wards[0]

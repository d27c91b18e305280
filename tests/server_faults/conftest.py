import os
import warnings

import pytest
import structlog

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import databento  # noqa: F401  (its import sets warning filters)

import servers
from api.conftest import market, trusted, truth, vendor  # noqa: F401  (fixtures)
from faults.conftest import paths  # noqa: F401  (a fixture)
from hdi.stores.timescaledb import connect
from hdi.stores.timescaledb.load import TimescaleWriter
from hdi.testing.vendor import rehearse  # noqa: F401  (a fixture)
from server_faults.clusters import Cluster
from server_faults.places import NAMES, ServerPlace
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
def ward():
    """The parent of children that work and may be killed, one at a time."""
    ward = Ward()
    yield ward
    ward.close()


@pytest.fixture(scope="package")
def wards(ward):
    """Parents of three at a time."""
    others = Ward(), Ward()
    yield [ward, *others]
    for other in others:
        other.close()


@pytest.fixture(scope="package")
def pair(paths):  # noqa: F811
    """Files of which the second is compared with the first."""
    return paths[:2]


@pytest.fixture(scope="package")
def expected(cluster, tmp_path_factory, pair):
    """The state of their rows after a run that nothing interrupted."""
    place = ServerPlace(tmp_path_factory.mktemp("expected"), {}, cluster.fresh())
    place.stored(*pair)
    return place.state(NAMES)


@pytest.fixture
def impatient(monkeypatch):
    """A server that is gone is given up at once, and not after as long as a restart takes."""
    monkeypatch.setattr(connect, "_PATIENCE", 0.4)


@pytest.fixture
def in_copy(monkeypatch):
    """Does something once, when some of the rows of a COPY have been sent and others have not."""

    def call(act):
        send, sent = TimescaleWriter._send, []

        def counted(writer, rows):
            sent.append(rows.height)
            if len(sent) == 3:
                act()
            send(writer, rows)

        monkeypatch.setattr(TimescaleWriter, "_send", counted)

    return call

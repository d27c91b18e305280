"""The real client against servers on loopback: the rehearsal vendor, and a wire that says what a test wrote down."""

import pytest
import structlog

from hdi.sources.databento import Databento
from hdi.testing.vendor import rehearse  # noqa: F401 - a fixture
from sources.wire import Wire, authority

KEY = "db-ThisIsNoKeyOfAnyRealAccount01"


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Every test without the proxies and keys of the one who runs it; what it sets in the environment goes away."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "example.org")
    yield
    structlog.reset_defaults()


@pytest.fixture
def trusted(tmp_path, monkeypatch):
    """Trusts the wire's certificate."""
    path = tmp_path / "wire-ca.pem"
    authority().cert_pem.write_to_path(path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))
    return path


@pytest.fixture
def wire(trusted):
    with Wire() as server:
        server.ca_file = trusted
        yield server


@pytest.fixture
def waits():
    """What ``on_wait`` was told: (reason, seconds)."""
    return []


@pytest.fixture
def open_source(waits):
    """A source on a gateway, with waits of hundredths of a second."""

    def call(gateway, **more):
        settings = {"key": KEY, "backoff_seconds": 0.01, "timeout": 5.0} | more
        return Databento(gateway=gateway, on_wait=lambda why, seconds: waits.append((why, seconds)), **settings)

    return call


@pytest.fixture
def source(wire, open_source):
    """A source on the wire."""
    return open_source(wire.gateway)


@pytest.fixture
def vendor(request, rehearse):  # noqa: F811 - the fixture that is imported
    """The rehearsal vendor: the synthetic market to 2024-06-30, without limits unless a test asks for them."""
    return rehearse(**getattr(request, "param", {}))


@pytest.fixture
def shop(vendor, open_source):
    """A source on the rehearsal vendor."""
    return open_source(vendor.gateway, key=vendor.key)

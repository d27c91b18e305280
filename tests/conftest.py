"""TimescaleDB for every test that asks: a real server, fresh databases, and servers to kill.

``HDI_TEST_TIMESCALEDB=postgresql://...`` names a server (its user creates databases and the extension); without it,
this clone's own is got from Debian and started by the first test that asks (``scripts/timescaledb.py``), and stopped
at the end. Where it cannot be had, tests that ask are skipped, and say why; with ``CI=true`` they fail.
"""

import contextlib
import gc
import os
import uuid
from pathlib import Path

import hypothesis
import pytest

pytest_plugins = ["torture.plugin"]

MEMORY = "/dev/shm"


# To import and collect makes many objects and no garbage: looking for some takes a quarter of the time (and later, of
# each full collection, almost all).
gc.disable()


def pytest_collection_finish():
    """What was collected stays to the end, and is looked through no more."""
    gc.collect()
    gc.freeze()
    gc.enable()


def spare_memory():
    """Bytes that a file system in memory may take; 0 where there is none that is writable."""
    if not os.access(MEMORY, os.W_OK | os.X_OK):
        return 0
    about, lines = os.statvfs(MEMORY), Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    return min(about.f_bavail * about.f_frsize, available)


# How long an example takes says nothing on a machine that others use too.
hypothesis.settings.register_profile("hdi", deadline=None)
hypothesis.settings.load_profile("hdi")

# Stores wait for the disk at each commit, and what a test writes need not outlast it.
if "PYTEST_DEBUG_TEMPROOT" not in os.environ and spare_memory() > 8 * 2**30:
    os.environ["PYTEST_DEBUG_TEMPROOT"] = MEMORY

# Read now: tests put variables of the one who runs them away.
NAMED = os.environ.get("HDI_TEST_TIMESCALEDB")
CI = os.environ.get("CI") == "true"
RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID", uuid.uuid4().hex)[:8]
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
TOLD = pytest.StashKey[set[str]]()


@contextlib.contextmanager
def available(config, *, needed):
    """Skips, or where it is needed fails, the test whose server cannot be had."""
    from servers import Unavailable

    try:
        yield
    except Unavailable as error:
        text = f"TimescaleDB cannot be had: {error}"
        tell(config, text)
        (pytest.fail if needed else pytest.skip)(text)


def tell(config, text):
    """Have a line printed at the end of the run, by whichever process has the terminal."""
    told = config.stash.setdefault(TOLD, set())
    told.add(text)
    if hasattr(config, "workeroutput"):
        config.workeroutput["timescaledb"] = sorted(told)


@pytest.fixture(scope="session")
def databases(pytestconfig):
    """Makes and drops databases on the server of this run: ``with databases.kept() as fresh: fresh()``."""
    import servers
    from torture.plugin import SERVER

    with contextlib.ExitStack() as stack:
        with available(pytestconfig, needed=CI or NAMED):
            dsn = stack.enter_context(servers.named(NAMED) if NAMED else servers.shared())
            made = servers.Databases(dsn, RUN, WORKER, ours=not NAMED)
        stack.callback(made.close)
        pytestconfig.stash[SERVER] = made.version
        tell(pytestconfig, f"Tested with {made.version}: {'HDI_TEST_TIMESCALEDB' if NAMED else servers.NAME}")
        yield made


@pytest.fixture(scope="session")
def timescaledb(databases):
    """The DSN of a server with TimescaleDB, whose user creates databases. It is shared: nobody restarts it."""
    return databases.dsn


@pytest.fixture
def fresh_database(databases):
    """At each call the URL of a fresh database with the extension; dropped after the test.

    ``fresh_database(template="layout", prepare=make_layout)``: of a template that ``make_layout(url)`` makes, once.
    """
    with databases.kept() as fresh:
        yield fresh


@pytest.fixture
def private_server(pytestconfig):
    """At each call a server of this test's own (``scripts/timescaledb_server.py``): to start, stop and kill."""
    import servers

    with contextlib.ExitStack() as stack:
        with available(pytestconfig, needed=CI):
            make = stack.enter_context(servers.private())
        yield make


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    for text in (getattr(node, "workeroutput", None) or {}).get("timescaledb", []):
        tell(node.config, text)


def pytest_terminal_summary(terminalreporter, config):
    for text in sorted(config.stash.get(TOLD, ())):
        terminalreporter.write_line(text)

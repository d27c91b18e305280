"""Options, marks and bookkeeping of kills and faults; see :mod:`torture.frame` and `make torture`."""

import datetime as dt
import random
from pathlib import Path

import pytest

from torture import page
from torture.frame import PART, Torture, share

#: The version of the server, from the fixture that makes databases.
SERVER = pytest.StashKey[str]()


def pytest_addoption(parser):
    group = parser.getgroup("torture")
    group.addoption("--kills", type=int, help="so many random kills in all; each kind of work has its share")
    group.addoption("--kill-seed", type=int, help="the moments of another run, whose seed a failure names")
    group.addoption("--torture-page", type=Path, help="the folder of torture.json and torture.md, to be written")
    group.addoption("--torture-part", action="store_true", help="only some tests run: what it says of others stays")
    group.addoption("--torture-anyway", action="store_true", help="write them though more kills were made before")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    if config.option.kill_seed is None:
        config.option.kill_seed = random.randrange(2**32)
    if config.option.torture_page is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Book(config.option))


def pytest_generate_tests(metafunc):
    total, mark = metafunc.config.option.kills, metafunc.definition.get_closest_marker("kill")
    if mark is None or total is None:
        return
    kills = share(*mark.args, total)
    parts = [(k, min(PART, kills - k * PART)) for k in range(-(-kills // PART))]
    metafunc.parametrize("torture", parts, ids=[f"part-{k}" for k, _ in parts], indirect=True)


@pytest.fixture
def torture(request):
    """The rounds of this test: how many kills, at which moments."""
    kind = request.node.get_closest_marker("kill").args
    part, kills = getattr(request, "param", (0, share(*kind, None)))
    made = Torture(*kind, kills, request.config.option.kill_seed, part)
    request.node.user_properties.append(("torture", made.told))
    return made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    if (mark := item.get_closest_marker("fault")) is not None:
        report.user_properties.append(("fault", [*map(str, mark.args)]))
    if SERVER in item.config.stash:
        report.user_properties.append(("server", item.config.stash[SERVER]))
    return report


class Book:
    """What becomes of kills and faults, in the process that has the terminal; at the end it becomes the page."""

    def __init__(self, option):
        self._option, self._server, self._said = option, None, ""
        self._when = {"date": dt.datetime.now(dt.UTC).date().isoformat(), "seed": option.kill_seed}
        self._kills, self._faults = [], []

    def pytest_runtest_logreport(self, report):
        told = dict(report.user_properties)
        self._server = told.get("server", self._server)
        if report.when == "call" and "torture" in told:
            self._kills.append(told["torture"] | {"seconds": report.duration})
        if "fault" in told and (report.when == "call" or report.skipped):
            reason = report.longrepr[2] if report.skipped else ""
            self._faults.append([*told["fault"], report.outcome, reason])

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus):
        if exitstatus:
            self._said = "torture: no page is written, for not every test has passed"
            return
        found = page.gathered(self._when, self._kills, self._faults)
        option = self._option
        how = {"anyway": option.torture_anyway, "part": option.torture_part}
        self._said = f"torture: {page.publish(option.torture_page, page.about(self._server), found, **how)}"

    def pytest_terminal_summary(self, terminalreporter):
        terminalreporter.write_line(self._said)

"""Commands in this process, in a folder of the test's own and without the settings of the one who runs it."""

import os
from typing import NamedTuple

import pytest
import structlog

from hdi.cli import run


class Ran(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    for name in list(os.environ):
        own = name.startswith(("HDI_", "TIMESCALEDB_", "DATABENTO_", "PG")) and not name.startswith("HDI_TEST_")
        if own or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    yield
    structlog.reset_defaults()


@pytest.fixture
def call(capfdbinary):
    """Runs one command line."""

    def called(*arguments):
        capfdbinary.readouterr()
        code = run([str(a) for a in arguments])
        out, err = capfdbinary.readouterr()
        return Ran(code, out.decode(errors="replace"), err.decode(errors="replace"))

    return called

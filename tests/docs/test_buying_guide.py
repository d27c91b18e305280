"""docs/buying-data.md: its commands, in their order, print what stands below them."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from docs.guides import Reader, Step, alike, steps
from hdi.rehearsal import spawn

PAGE = Path(__file__).parents[2] / "docs" / "buying-data.md"
STEPS = steps(PAGE.read_text(encoding="utf-8"))


class Done(NamedTuple):
    """A step of the page, how it ended here, and what it printed."""

    step: Step
    code: int
    printed: str


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Done], dict[str, str]]:
    """The whole page as somebody typed it, and the folders of this machine by those of the page."""
    if shutil.which("curl") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("curl is missing, and the guide uses it")
        pytest.skip("the guide uses curl")
    folder = tmp_path_factory.mktemp("guide") / "market"
    folder.mkdir()
    with spawn(until="2024-03-16") as vendor, Reader(folder, vendor.environment()) as reader:
        vendor.fault("degraded:day=2024-03-12,hours=14-16")
        done = [Done(step, *reader.follow(step)) for step in STEPS]
        return done, {
            str(folder): "/home/me/market",
            str(vendor.ca_file.parent): "/home/me/rehearsal",
            str(Path(sys.executable).with_name("hdi")): "/home/me/hdi/.venv/bin/hdi",
        }


def test_the_vendor_of_the_guide_is_that_of_its_test() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert "hdi rehearse --until 2024-03-16 --fault degraded:day=2024-03-12,hours=14-16" in text


def test_each_command_of_the_guide_prints_what_stands_below_it(told: tuple[list[Done], dict[str, str]]) -> None:
    done, folders = told
    assert sum(each.step.command.startswith("hdi ") for each in done) > 25
    for step, _, printed in done:
        assert alike(printed, folders) == alike(step.shown, folders), step.command


def test_the_commands_of_the_guide_fail_where_it_shows_an_error(told: tuple[list[Done], dict[str, str]]) -> None:
    for step, code, printed in told[0]:
        assert (code != 0) == ("\nerror: " in f"\n{step.shown}"), f"{step.command}\n{printed}"

"""docs/buying-data.md: its commands, in their order, print what stands below them."""

from __future__ import annotations

import os
import shutil
from typing import NamedTuple

import pytest

from docs.guides import FAULT, PAGE, UNTIL, Step, alike, reading, steps

TEXT = PAGE.read_text(encoding="utf-8")


class Done(NamedTuple):
    """A step of the page, how it ended here, and what it printed."""

    step: Step
    code: int
    printed: str


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[Done]:
    """The whole page, as somebody typed it."""
    if shutil.which("curl") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("curl is missing, and the guide uses it")
        pytest.skip("the guide uses curl")
    with reading(tmp_path_factory.mktemp("guide")) as reader:
        return [Done(step, *reader.follow(step)) for step in steps(TEXT)]


def test_the_vendor_of_the_guide_is_that_of_its_test() -> None:
    assert f"\nhdi rehearse --until {UNTIL} --fault {FAULT}\n" in TEXT


def test_each_command_of_the_guide_prints_what_stands_below_it(told: list[Done]) -> None:
    assert sum(each.step.command.startswith("hdi ") for each in told) > 20
    for step, _, printed in told:
        assert alike(printed) == alike(step.shown), step.command


def test_the_commands_of_the_guide_fail_where_it_shows_an_error(told: list[Done]) -> None:
    for step, code, printed in told:
        assert (code != 0) == ("\nerror: " in f"\n{step.shown}"), f"{step.command}\n{printed}"

"""``--as-of`` of symbols, coverage and gaps, on the demo's lake: what was known when its first commits were made."""

import json

import pytest

from hdi.model import iso_ns
from hdi.testing import opened


@pytest.fixture
def times(demo_home):
    """When the first commit of the lake was made, and the last."""
    at = opened(str(demo_home / "lake")).ledger()["committed_at"]
    return iso_ns(at[0]), iso_ns(at[-1])


@pytest.fixture
def ask(cli, demo_home):
    """Runs a command on the demo's lake; code, and its JSON document or documents."""

    def call(*arguments):
        ran = cli("--store", f"lake:{demo_home / 'lake'}", "--json", *arguments)
        return ran, [json.loads(line) for line in ran.out.splitlines()] if ran.code == 0 else None

    return call


@pytest.mark.parametrize("command", ["symbols", "coverage", "gaps", "revisions"])
def test_what_was_known_at_the_last_commit_is_what_is_known(ask, times, command):
    assert ask(command, "--as-of", times[1])[1] == ask(command)[1]


def test_symbols_and_coverage_are_those_of_the_first_commit(ask, times):
    first = {row["symbol"] for row in ask("symbols", "--as-of", times[0])[1][0]}
    assert first < {row["symbol"] for row in ask("symbols")[1][0]}
    then, now = (ask("coverage", *more)[1][0]["lines"] for more in (("--as-of", times[0]), ()))
    assert 0 < len(then) < len(now)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("symbols", "--as-of", "soon"), "is not a date or a time"),
        (("coverage", "--as-of", "2262-01-01"), "has not ended"),
        (("gaps", "--as-of", "1999-12-31T00:00:00Z"), "nothing was stored yet"),
        (("gaps", "--as-of", "2024-01-01", "--fill"), "is not bought now"),
    ],
)
def test_a_time_that_cannot_be_asked_for_is_told(ask, arguments, said):
    ran, _ = ask(*arguments)
    assert (ran.code, said in ran.err) == (2, True)

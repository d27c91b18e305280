"""Hostile bytes, settings, rules, statements and command lines end in an answer or in an error with words.

The same targets that ``make fuzz`` runs for as long as one lets it, on a bounded number of changed seeds. What fuzzing
found stands below, and stays.
"""

import importlib.util
import os
import random
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
try:
    from fuzz import commands, seeds, targets
finally:
    sys.path.remove(str(ROOT))

EXAMPLES = {"dbn": 60, "yaml": 120, "rule": 300, "statement": 40, "arguments": 25}
SEEDS = {name: make() for name, make in seeds.SEEDS.items()}
#: What one example may need above what was needed before, at most.
MEMORY = 1 << 30
FEW = settings(
    derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=False
)


@pytest.fixture(scope="module", autouse=True)
def scratch():
    yield
    targets.remove()
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def quiet(capfd):
    """The vendor's decoder says something of its own about bad headers."""
    yield
    capfd.readouterr()


@st.composite
def changed(draw, name):
    """A seed with a few changes: bits, bytes, a piece lost, doubled, or of another seed; or no seed at all."""
    data = bytearray(draw(st.sampled_from(SEEDS[name])))
    pick = random.Random(draw(st.integers(0, 2**32)))
    for _ in range(pick.randrange(4)):
        at = pick.randrange(len(data) + 1)
        end = min(at + pick.choice((1, 2, 4, 8, 64)), len(data))
        what = pick.randrange(5)
        if what == 0 and data:
            data[min(at, len(data) - 1)] ^= 1 << pick.randrange(8)
        elif what == 1:
            data[at:end] = pick.randbytes(end - at)
        elif what == 2:
            del data[at:end]
        elif what == 3:
            data[at:at] = data[at:end] * pick.choice((1, 2, 50))
        else:
            other = pick.choice(SEEDS[name])
            data[at:end] = other[pick.randrange(len(other) + 1) :][:64]
    return bytes(data)


@pytest.mark.parametrize("name", sorted(targets.TARGETS))
def test_changed_input_never_ends_in_a_crash(name):
    target, before = targets.TARGETS[name], []

    @settings(FEW, max_examples=EXAMPLES[name])
    @given(st.one_of(changed(name), changed(name), changed(name), st.binary(max_size=200)))
    def holds(data):
        target(data)
        before.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10)

    for data in SEEDS[name][:: 3 if name == "arguments" else 1]:
        target(data)
    holds()
    assert before[-1] - before[0] < MEMORY


@pytest.mark.parametrize("name", sorted(targets.TARGETS))
def test_without_a_byte_there_is_nothing_to_stumble_over(name):
    targets.TARGETS[name](b"")


@pytest.mark.parametrize("line", [["--store", "\udcd0", "init"], ["--store", "\0\3", "init"]])
def test_what_fuzzing_found_is_mended(line):
    targets.command(["init"])  # the second one finds a .env
    code, told, said = targets.command(line)
    assert (code, told) == (2, "")
    assert "it has characters that no line of .env can hold" in said


@pytest.mark.parametrize(
    "line",
    [
        ["symbols", "\udc80'--"],
        ["query", "--symbols", "\udcff", "--schema", "trades"],
        ["query", "--symbols", "ESH4", "--schema", "\udcff"],
    ],
)
def test_an_argument_that_is_no_text_is_named(line):
    code, told, said = targets.command(line)
    assert (code, told) == (2, "")
    assert "\\udc" in said


def test_command_lines_are_made_for_every_command_that_ends():
    pick = random.Random(7)
    lines = [commands.words(commands.Bytes(pick.randbytes(40))) for _ in range(1_500)]
    reached = {names for names, _ in commands.paths() for line in lines if all(n in line for n in names)}
    assert {names for names, _ in commands.paths() if names[0] not in commands.LASTING} <= reached


def test_a_command_that_ends_as_none_may_is_a_defect(monkeypatch):
    monkeypatch.setattr(targets, "run", lambda _: 99)
    with pytest.raises(targets.Defect, match="exit code 99"):
        targets.command(["status"])


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this machine")
def test_the_fuzzer_itself_runs_and_says_how_much():
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", "--runs", "40", "--only", "rule"], cwd=ROOT, capture_output=True, text=True,
        env=os.environ, check=False, timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[0] == "rule"
    assert int(done.stdout.split()[1]) >= 40
    assert "nothing found" in done.stdout

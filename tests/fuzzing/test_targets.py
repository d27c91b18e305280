"""Hostile bytes, settings, rules, statements and command lines end in an answer or in an error with words.

The same targets that ``make fuzz`` runs for as long as one lets it, on a bounded number of changed seeds. What fuzzing
found stands below, and stays.
"""

import importlib.util
import os
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servers import make_layout

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
try:
    from fuzz import commands, seeds, servers, targets
finally:
    sys.path.remove(str(ROOT))

EXAMPLES = {
    "decode": 150, "dbn": 25, "yaml": 100, "rule": 200, "statement": 40, "disk": 200, "server": 120, "arguments": 25
}  # fmt: skip
#: Of so many seeds one is taken as it is.
EVERY = {"arguments": 3, "decode": 2}
#: Seconds after which an example hangs; it takes thousandths.
HANGS = 120
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
def alarm():
    """What hangs ends with a traceback of where."""

    def hangs(*_):
        raise TimeoutError(f"an example has taken more than {HANGS} s")

    before = signal.signal(signal.SIGALRM, hangs)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def quiet(capfd):
    """The vendor's decoder says something of its own about bad headers."""
    yield
    capfd.readouterr()


@st.composite
def changed(draw, made):
    """A seed with a few changes: bits, bytes, a piece lost, doubled, or of another seed; or no seed at all."""
    data = bytearray(draw(st.sampled_from(made)))
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
            other = pick.choice(made)
            data[at:end] = other[pick.randrange(len(other) + 1) :][:64]
    return bytes(data)


@pytest.fixture
def target(request, monkeypatch):
    """A target by its name; that of a server gets a database of its own."""
    if request.param == "server":
        databases = request.getfixturevalue("databases")
        with databases.kept() as fresh:
            guarded = servers.Guarded(fresh(template="layout", prepare=make_layout), targets.schemas())
            monkeypatch.setattr(targets, "served", lambda: guarded)
            yield targets.server
            guarded.close()
        return
    yield targets.TARGETS[request.param]


@pytest.mark.parametrize(("target", "name"), [(name, name) for name in EXAMPLES], indirect=["target"])
def test_changed_input_never_ends_in_a_crash(target, name):
    made, taken = seeds.SEEDS[name](), []
    most = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10]

    def tried(data):
        signal.alarm(HANGS)
        taken.append(target(data))
        most.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10)

    @settings(FEW, max_examples=EXAMPLES[name])
    @given(st.one_of(changed(made), changed(made), changed(made), st.binary(max_size=200)))
    def holds(data):
        tried(data)

    tried(made[0])
    for data in [b"", *made[1 :: EVERY.get(name, 1)]]:
        tried(data)
    seeded = len(taken)
    assert any(taken), "nothing of the seeds gets past the first refusal"
    holds()
    assert {True, False} <= {*taken}
    assert len(taken) - seeded > EXAMPLES[name] // 2
    assert most[-1] - most[0] < MEMORY


def test_every_target_is_tried():
    assert {*EXAMPLES} == {*seeds.SEEDS} == {*targets.TARGETS, "server"}


#: What goes on until it is stopped, and what it is given.
LASTING = (
    ("rehearse", "--port", "0", "--folder", "../x"), ("demo", "--nothing"), ("schedule", "no such job"),
    ("metrics", "--host", "\udcff", "--port", "0"), ("verify", "--test", "\udcff"), ("doctor",),
)  # fmt: skip


@pytest.mark.parametrize("line", LASTING, ids=" ".join)
def test_a_command_that_goes_on_ends_when_it_is_told_to(line):
    signal.alarm(HANGS)
    targets.command([*line])
    assert {name for name, *_ in LASTING} == commands.LASTING


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


def test_command_lines_are_made_for_every_command():
    pick = random.Random(7)
    lines = [commands.words(commands.Bytes(pick.randbytes(40))) for _ in range(1_500)]
    reached = {names for names, _ in commands.paths() for line in lines if all(n in line for n in names)}
    assert {names for names, _ in commands.paths()} <= reached


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

"""A migration that ends at any step, however hard, is gone on with by the same call, and ends as if it never had."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hdi.testing import Load, opened, rejects, trades
from hdi.testing.once import bars
from migrate.movers import Movers
from migrate.stock import AT, day, everything, move, stocked

TESTS = Path(__file__).resolve().parents[1]
#: Two pieces of trades with rejects and superseded rows, and one of bars.
LOADS = (
    Load(trades(AT), rejected=rejects([AT[0]] * 500)),
    Load(trades(AT[:3], 1, 7), rejected=rejects([AT[1]]), run="run-2"),
    Load(trades([day(1).start]), window=day(1)),
    Load(bars("ohlcv-1h"), schema="ohlcv-1h"),
)


class Killed(BaseException):
    """Nobody catches it."""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A lake that is only read, with everything that it shows."""
    url = stocked(f"lake:{tmp_path_factory.mktemp('source')}", LOADS)
    return url, everything(url)


def steps_of(source, destination):
    steps = []
    move(source, destination, on_step=steps.append)
    return steps


def test_a_lake_whose_migration_is_killed_at_any_step_goes_on(fresh, source, tmp_path):
    url, shown = source
    steps = steps_of(url, fresh("lake"))
    assert {"begin", "flush", "lock", "look", "pack", "intent", "move", "commit"} == set(steps)
    assert len(steps) == 3 * 8
    # Each step of the second of three commits, the first one of its table, as kill -9 leaves them.
    killed = [tmp_path / f"killed-{k}" for k in range(8)]
    root = Path(fresh("lake").removeprefix("lake:"))
    left = iter([None] * 8 + killed)

    def on_step(_):
        if (at := next(left, None)) is not None:
            shutil.copytree(root, at)

    move(url, str(root), on_step=on_step)
    for step, folder in zip(steps[8:], killed, strict=False):
        moved = move(url, str(folder))
        assert sum(m.copied_pieces for m in moved) == 2, step
        assert everything(str(folder)) == shown, step
        assert not list((folder / "_hdi" / "staging").iterdir())
        named = "".join(p.read_text() for p in folder.glob("*/_delta_log/*.json"))
        files = (*folder.glob("*_data/data*/**/*.parquet"), *(folder / "_hdi/sidecars").iterdir())
        assert all(p.name in named for p in files), step


def test_a_database_whose_migration_breaks_at_any_step_goes_on(fresh, source):
    url, shown = source
    steps = steps_of(url, fresh("timescaledb"))
    assert {"begin", "lock", "look", "delete", "copy", "count", "rejects", "books", "commit"} == set(steps)
    other = fresh("timescaledb")
    done = 0
    # Again and again, one step further each time; pieces that were committed before stay.
    for k in range(9):
        left = [k]

        def on_step(step, left=left):
            if left[0] == 0:
                raise Killed(step)
            left[0] -= 1

        with pytest.raises(Killed, match=steps[k]):
            move(url, other, on_step=on_step)
        with contextlib.closing(opened(other)) as store:
            assert store.ledger().height == done
            done = store.ledger().height
    assert sum(m.copied_pieces for m in move(url, other)) == 3
    assert everything(other) == shown


@pytest.mark.parametrize(("kind", "step"), [("lake", "commit"), ("timescaledb", "count")])
def test_a_migration_killed_in_its_second_piece_goes_on(fresh, source, kind, step):
    url, shown = source
    other = fresh(kind)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS.parent / "src"), str(TESTS)])}
    child = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps([url, other, step])], env=env, check=False, capture_output=True
    )
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    with contextlib.closing(opened(other)) as store:
        assert store.ledger()["schema"].unique().to_list() == ["ohlcv-1h"]
    moved = move(url, other)
    assert [m.copied_pieces for m in moved] == [0, 2]
    assert everything(other) == shown


CHILD = """
import json, os, signal, sys
from migrate.stock import move

source, destination, step = json.loads(sys.argv[1])
seen = []

def on_step(name):
    seen.append(name)
    if seen.count(step) == 2 and name == step:
        os.kill(os.getpid(), signal.SIGKILL)

move(source, destination, on_step=on_step)
"""


@pytest.fixture(scope="module")
def movers():
    movers = Movers()
    yield movers
    movers.close()


@pytest.mark.kill("migrate to", "lake")
def test_a_migration_to_a_lake_killed_at_a_random_moment_goes_on(fresh, stock, movers, torture):
    torn(torture, movers, stock("timescaledb"), lambda: fresh("lake"))


@pytest.mark.kill("migrate to", "server")
def test_a_migration_to_a_server_killed_at_a_random_moment_goes_on(fresh, stock, movers, torture):
    torn(torture, movers, stock("lake"), lambda: fresh("timescaledb"))


def torn(torture, movers, url, new):
    """Kill migrations; the same again ends with a store that shows what the other one shows."""
    shown = everything(url)
    for attempt in torture:
        other = new()
        movers.start(url, other)
        if attempt.hit(movers.follow(attempt.moment)):
            move(url, other)
        attempt.same(shown, everything(other))
        assert [m.copied_pieces for m in move(url, other)] == [0] * 3, attempt.said
        attempt.none(staged(other), "staged files, and files that no commit names")
    attempt.same(shown, everything(url), "the source:")


def staged(url):
    """What of a lake is not named by a commit."""
    if not url.startswith("lake:"):
        return []
    root = Path(url.removeprefix("lake:"))
    named = "".join(p.read_text() for p in root.glob("*/_delta_log/*.json"))
    files = (*root.glob("*_data/data*/**/*.parquet"), *(root / "_hdi/sidecars").iterdir())
    return [*(root / "_hdi" / "staging").iterdir(), *(p for p in files if p.name not in named)]

"""Kill -9 at every step and at random moments of upkeep, of a backup and of a restore: no live row is touched.

``HDI_TEST_KILLS`` says how many random moments there are, of each.
"""

import contextlib
import os
import random
import shutil
import signal
from pathlib import Path

import pytest
from deltalake import DeltaTable

from hdi.backups import Manifest, finished
from hdi.testing import Load, opened, trades
from migrate.stock import AT, day, everything
from upkeep.keepers import do
from upkeep.test_maintain import many

KILLED = -signal.SIGKILL
KILLS = int(os.environ.get("HDI_TEST_KILLS", "5"))


@pytest.fixture(scope="module")
def busy(lake, tmp_path_factory):
    """A lake with small files, superseded rows, and files that no table names any more."""
    root = shutil.copytree(lake, tmp_path_factory.mktemp("busy") / "lake")
    with contextlib.closing(opened(f"lake:{root}")) as store:
        many(store)
        for k in range(3):
            Load(trades(AT[:5], 1, 50 + k), symbol="ESH4", stype="raw_symbol", window=day(0), run=f"again-{k}").commit(
                store
            )
    return root


@pytest.fixture
def url(busy, tmp_path):
    return f"lake:{shutil.copytree(busy, tmp_path / 'lake')}"


def leftovers(url):
    """Staged files, and files that no table and no commit names."""
    root = Path(url.removeprefix("lake:"))
    found = list((root / "_hdi" / "staging").iterdir())
    for log in root.glob("*/_delta_log"):
        live = {Path(uri).name for uri in DeltaTable(str(log.parent)).file_uris()}
        found += [p for p in log.parent.rglob("*.parquet") if "_delta_log" not in p.parts and p.name not in live]
        found += log.glob("*#*")
    named = "".join(p.read_text() for p in root.glob("*/_delta_log/*.json"))
    return found + [p for p in (root / "_hdi" / "sidecars").iterdir() if p.name not in named]


def steps_of(url, act, folder=""):
    steps = []
    do(url, act, folder, steps.append)
    return steps


def test_upkeep_killed_at_any_step_leaves_every_answer_and_the_next_one_finishes(busy, tmp_path, url, keepers):
    before = everything(url)
    steps = steps_of(url, "maintain")
    assert {"sweep", "compact", "look", "intent", "move", "commit", "vacuum"} <= set(steps)
    assert everything(url) == before
    # Each step where it is taken first, and the last of all: others are the same for another table.
    for k in sorted({steps.index(name) + 1 for name in steps} | {len(steps)}):
        mine = f"lake:{shutil.copytree(busy, tmp_path / str(k))}"
        assert keepers.run(mine, "maintain", step=k) == KILLED
        assert everything(mine, ("trades",))["trades"] == before["trades"], steps[k - 1]
        do(mine, "maintain")
        assert everything(mine) == before, steps[k - 1]
        assert leftovers(mine) == [], steps[k - 1]


def test_upkeep_killed_at_random_moments_again_and_again_changes_no_answer(url, keepers):
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    for k in range(KILLS):
        with contextlib.closing(opened(url)) as store:
            # Rows that come and are replaced: so that there is always something to do.
            Load(trades([day(30).start + k], 60 + k), window=day(30), symbol=f"K{k}", run=f"k{k}").commit(store)
            before = everything(url)
        assert keepers.run(url, "maintain", after=moments.random() * 0.6) in (0, KILLED), seed
        assert everything(url) == before, seed
    do(url, "maintain")
    assert everything(url) == before, seed
    assert leftovers(url) == [], seed


def test_upkeep_of_a_server_killed_changes_no_answer(stock, keepers):
    url = stock("timescaledb")
    before = everything(url)
    assert keepers.run(url, "maintain", step=3) == KILLED
    assert everything(url) == before
    do(url, "maintain")
    assert everything(url) == before


def test_a_backup_killed_has_no_name_and_the_next_one_goes_on_with_its_files(tmp_path, url, keepers):
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    folder = tmp_path / "backups"
    steps = len(steps_of(url, "backup", tmp_path / "other"))
    done = 0
    for _ in range(KILLS):
        code = keepers.run(url, "backup", folder, step=moments.randrange(1, steps + 1))
        assert code in (0, KILLED), seed
        done += code == 0
        assert len(finished(folder)) == done, seed
    made = do(url, "backup", folder)
    assert made.linked, seed
    made.manifest.check()
    assert [p for p in folder.iterdir() if p.name == ".unfinished"] == []
    do(f"lake:{tmp_path / 'back'}", "restore", folder)
    assert everything(f"lake:{tmp_path / 'back'}") == everything(url)


def test_a_restore_killed_leaves_no_store_or_a_whole_one(tmp_path, url, keepers):
    do(url, "backup", tmp_path / "backups")
    size = Manifest.read(tmp_path / "backups").size
    assert size
    for k in range(KILLS):
        back = f"lake:{tmp_path / f'back-{k}'}"
        code = keepers.run(back, "restore", tmp_path / "backups", **({"step": 1} if not k else {"after": 0.15 * k}))
        if not Path(back.removeprefix("lake:")).exists():
            assert code == KILLED
            do(back, "restore", tmp_path / "backups")
        if k in (0, KILLS - 1):
            assert everything(back) == everything(url)
        assert list(tmp_path.glob(".back-*")) == []

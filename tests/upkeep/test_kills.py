"""Kill -9 at every step and at random moments of upkeep, of a backup and of a restore: no live row is touched."""

import contextlib
import shutil
from pathlib import Path

import pytest
from deltalake import DeltaTable

from children import KILLED
from hdi.backups import Manifest, finished
from hdi.testing import Load, opened, trades
from hdi.testing.material import refusal
from migrate.stock import AT, day, everything
from upkeep.keepers import do
from upkeep.test_maintain import many


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


@pytest.mark.kill("maintain", "lake")
def test_upkeep_killed_at_a_random_moment_changes_no_answer(url, keepers, torture):
    tended(torture, keepers, url)


@pytest.mark.kill("maintain", "server")
def test_upkeep_of_a_server_killed_at_a_random_moment_changes_no_answer(stock, keepers, torture):
    tended(torture, keepers, stock("timescaledb"))


def tended(torture, keepers, url):
    """Kill upkeep of one store again and again; after each it is tended once more."""
    for attempt in torture:
        k = attempt.number
        with contextlib.closing(opened(url)) as store:
            # Rows that come and are replaced: so that there is always something to do.
            Load(trades([day(30).start + k], 60 + k), window=day(30), symbol=f"K{k}", run=f"k{k}").commit(store)
        before = everything(url)
        keepers.start(url, "maintain")
        if attempt.hit(keepers.follow(attempt.moment)):
            attempt.same(before, everything(url), "before it is tended again:")
            do(url, "maintain")
        attempt.same(before, everything(url))
        attempt.none(leftovers(url) if url.startswith("lake:") else [], "files")


def test_upkeep_of_a_server_killed_changes_no_answer(stock, keepers):
    url = stock("timescaledb")
    before = everything(url)
    assert keepers.run(url, "maintain", step=3) == KILLED
    assert everything(url) == before
    do(url, "maintain")
    assert everything(url) == before


@pytest.mark.kill("backup", "lake")
def test_a_backup_killed_has_no_name_and_the_next_one_goes_on(tmp_path, url, empty, keepers, torture):
    saved(torture, keepers, url, tmp_path, empty)


@pytest.mark.kill("backup", "server")
@pytest.mark.usefixtures("programs")
def test_a_backup_of_a_server_killed_has_no_name_and_the_next_one_is_whole(tmp_path, stock, empty, keepers, torture):
    saved(torture, keepers, stock("timescaledb"), tmp_path, empty)


def saved(torture, keepers, url, tmp_path, empty):
    """Kill backups; only a whole one has a name, and what the next one brings back is the store."""
    before, kind = everything(url), "lake" if url.startswith("lake:") else "timescaledb"
    for attempt in torture:
        folder, back = tmp_path / f"backups-{attempt.number}", empty(kind)
        keepers.start(url, "backup", folder)
        if attempt.hit(keepers.follow(attempt.moment)):
            for each in finished(folder):
                Manifest.read(each).check()
            do(url, "backup", folder).manifest.check()
        attempt.none(list(folder.glob(".unfinished")), "an unfinished backup")
        do(back, "restore", folder)
        attempt.same(before, everything(back))
        shutil.rmtree(folder)
    attempt.same(before, everything(url), "the store that was saved:")


@pytest.mark.kill("restore", "lake")
def test_a_restore_killed_leaves_no_store_or_a_whole_one(tmp_path, url, empty, keepers, torture):
    restored(torture, keepers, url, tmp_path / "backups", lambda: empty("lake"))


@pytest.mark.kill("restore", "server")
@pytest.mark.usefixtures("programs")
def test_a_restore_to_a_server_killed_leaves_no_store_or_a_whole_one(tmp_path, stock, empty, keepers, torture):
    restored(torture, keepers, stock("timescaledb"), tmp_path / "backups", lambda: empty("timescaledb"))


def restored(torture, keepers, url, folder, new):
    """Kill restores; the same again brings the store back, unless it is there already, whole."""
    before = everything(url)
    do(url, "backup", folder)
    for attempt in torture:
        back = new()
        keepers.start(back, "restore", folder)
        if attempt.hit(keepers.follow(attempt.moment)):
            refused = refusal(do, back, "restore", folder)
            assert refused is None or "not empty" in str(refused), (refused, attempt.said)
        attempt.same(before, everything(back))
        if not back.startswith("lake:"):  # it takes rows again
            with contextlib.closing(opened(back)) as store:
                Load(trades([day(30).start], 60), window=day(30), symbol="K", run="k").commit(store)
        path = Path(back.removeprefix("lake:"))
        attempt.none(list(path.parent.glob(f".{path.name}*")) if back.startswith("lake:") else [], "staged files")

"""Replays that are killed: at every step, or so many times at random moments."""

import contextlib
import random
import re
import shutil
import signal
from pathlib import Path

import polars as pl

import dbnfiles
from children import Children, killing, serve
from hdi.pipeline import Options
from hdi.rejects.replaying import Asked, Replay
from hdi.testing.material import content
from lakes import MAPPING, Place
from rejects.desk import FRONT, PARENT, ruled, trades

KILLED = -signal.SIGKILL
#: Some rows leave quarantine, some go into it.
CHANGED = ruled(INVALID_SIDE="WARNING", NON_POSITIVE_PRICE=("ERROR", "price > 1"))


class Replays(Children):
    """Forks children that replay."""

    def __init__(self):
        super().__init__(Path(__file__))

    def run(self, folder, act="replay", *, step=0, after=None):
        """How a child ended: its exit code, or minus the signal. It is killed ``after`` so many seconds."""
        return self.watch(self.fork({"folder": str(folder), "act": act, "step": step}), after)


def options(folder):
    return Options(data_dir=folder / "data", dlq_dir=folder / "dlq", max_reject_percent=5.0)


def replayed(folder, on_step=None):
    """Replay all of a place under the changed rules; how many files failed."""
    place = Place(folder)
    with contextlib.closing(place.open(on_step=on_step)) as store:
        work = Replay(store, CHANGED, MAPPING, options(folder), Asked())
        return sum(outcome.status == "failed" for outcome in work.run(work.plan()))


def purged(folder, on_step=None):
    """Purge every reject of a place, those that stand and those that were replaced."""
    with contextlib.closing(Place(folder).open(on_step=on_step)) as store:
        stands = pl.col("replaced_unit").is_null()
        stand, gone = (store.rejected().filter(keep)["unit"].unique().to_list() for keep in (stands, ~stands))
        store.purge(stand, gone, "asked")
    return 0


def kept(folder):
    """All that a store says of rows and rejects, and how many side files it has."""
    with contextlib.closing(Place(folder).open(write=False)) as store:
        rejects = [sorted(map(repr, frame.rows())) for frame in (store.quarantine(), store.rejected())]
        said = store.purged().drop("purged_at").rows()
        return [store.ledger().rows(), content(store).rows(), *rejects, said], len(
            list((folder / "lake" / "_hdi" / "sidecars").iterdir())
        )


def moves(folder):
    """What a replay would still move."""
    with contextlib.closing(Place(folder).open()) as store:
        planned = Replay(store, CHANGED, MAPPING, options(folder), Asked()).plan()
        return planned.rows_out, planned.rows_into


def stocked(folder):
    """A place with three files of which rows will move: a parent, quotes, and a later continuous symbol over it."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = trades(1_200)
    own = rows[rows["instrument_id"] == 1].copy()
    own["price"] += dbnfiles.PX
    late = trades(400, 1, "2024-02-05")
    place = Place(folder / "place", {"max_reject_percent": 5.0})
    place.stored(
        dbnfiles.write(folder / "parent.dbn.zst", "trades", rows, **PARENT),
        dbnfiles.write(folder / "front.dbn.zst", "trades", own, **FRONT),
        dbnfiles.fragment(folder / "late.dbn.zst", "trades", late),
    )
    return place


def copied(stock, folder):
    """A copy of a place that can be broken."""
    shutil.copytree(stock.folder, folder)
    return Place(folder)


def state(place):
    """Everything there is, without what differs between runs: names of raw files lie in the first place."""
    return [re.sub(r"/[^\s'\"]*/(?=data/raw/)", "", part) for part in place.state(("trades",))]


def killed_at_random(children, stock, folder, expected, kills, *, seconds=0.6):
    """Kill so many replays at random moments; each ends, run again, as one that was not. Returns how many tries."""
    seed = random.randrange(2**32)
    moments, killed, tries = random.Random(seed), 0, 0
    while killed < kills:
        tries += 1
        assert tries < 4 * kills + 20, seed
        place = copied(stock, folder / str(tries))
        code = children.run(place.folder, after=0.02 + moments.random() * seconds)
        assert code in (0, KILLED), (seed, tries)
        if code == KILLED:
            killed += 1
            assert replayed(place.folder) == 0, (seed, tries)
            assert state(place) == expected, (seed, tries)
            assert place.leftovers() == [], (seed, tries)
            assert moves(place.folder) == (0, 0), (seed, tries)
        shutil.rmtree(place.folder)
    return tries


def work(job):
    """Replay or purge."""
    act = {"replay": replayed, "purge": purged}[job["act"]]
    return act(Path(job["folder"]), killing(job["step"]))


if __name__ == "__main__":
    import pandera.polars  # noqa: F401  (the slowest of the imports, else made by each child)

    serve(work)

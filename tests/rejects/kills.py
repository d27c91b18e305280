"""Replays and purges that are killed: at every step, or at random moments."""

import contextlib
import shutil
from pathlib import Path

import polars as pl

import dbnfiles
from children import Children, killing, serve
from hdi.pipeline import Options
from hdi.rejects.purging import Purge
from hdi.rejects.replaying import Asked, Replay
from hdi.testing.material import content
from lakes import MAPPING, Place
from rejects.desk import FRONT, PARENT, ruled, trades
from server_faults.places import ServerPlace
from torture.shown import shown

PARTS = ("ledger", "trades", "rejects", "rejects of all times", "purged")
#: Some rows leave quarantine, some go into it.
CHANGED = ruled(INVALID_SIDE="WARNING", NON_POSITIVE_PRICE=("ERROR", "price > 1"))


class Replays(Children):
    """Forks children that replay."""

    def __init__(self):
        super().__init__(Path(__file__))

    def start(self, place, act="replay", *, step=0):
        """The pid of a child that replays or purges."""
        return self.fork({"folder": str(place.folder), "address": place.address, "act": act, "step": step})

    def run(self, place, act="replay", *, step=0):
        """How a child ended: its exit code, or minus the signal."""
        return self.watch(self.start(place, act, step=step))


def options(folder):
    return Options(data_dir=folder / "data", dlq_dir=folder / "dlq", max_reject_percent=5.0)


def replayed(place, on_step=None):
    """Replay all of a place under the changed rules; how many files failed."""
    with contextlib.closing(place.open(on_step=on_step)) as store:
        work = Replay(store, CHANGED, MAPPING, options(place.folder), Asked())
        return sum(outcome.status == "failed" for outcome in work.run(work.plan()))


def purged(place, on_step=None):
    """Purge every reject of a place, those that stand and those that were replaced."""
    with contextlib.closing(place.open(on_step=on_step)) as store:
        stands = pl.col("replaced_unit").is_null()
        stand, gone = (store.rejected().filter(keep)["unit"].unique().to_list() for keep in (stands, ~stands))
        Purge(store, place.folder / "dlq", tuple(gone), tuple(stand), 0, 0, "asked").run()
    return 0


def kept(place):
    """All that a store says of rows and rejects, and how many side files it has."""
    with contextlib.closing(place.open(write=False)) as store:
        rejects = [sorted(map(repr, frame.rows())) for frame in (store.quarantine(), store.rejected())]
        said = store.purged().drop("purged_at").rows()
        shown = dict(zip(PARTS, (store.ledger().rows(), content(store).rows(), *rejects, said), strict=True))
    sidecars = place.root / "_hdi" / "sidecars"
    shown["exported rejects"] = place.dlq()
    return shown | {"side files": [()] * (len(list(sidecars.iterdir())) if sidecars.exists() else 0)}


def moves(place):
    """What a replay would still move."""
    with contextlib.closing(place.open()) as store:
        planned = Replay(store, CHANGED, MAPPING, options(place.folder), Asked()).plan()
        return planned.rows_out, planned.rows_into


def stocked(folder):
    """A lake with them."""
    return loaded(folder, Place(folder / "place", {"max_reject_percent": 5.0}))


def loaded(folder, place):
    """A place with three files of which rows will move: a parent, quotes, and a later continuous symbol over it."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = trades(1_200)
    own = rows[rows["instrument_id"] == 1].copy()
    own["price"] += dbnfiles.PX
    late = trades(400, 1, "2024-02-05")
    place.stored(
        dbnfiles.write(folder / "parent.dbn.zst", "trades", rows, **PARENT),
        dbnfiles.write(folder / "front.dbn.zst", "trades", own, **FRONT),
        dbnfiles.fragment(folder / "late.dbn.zst", "trades", late),
    )
    return place


def copied(stock, folder, address=""):
    """A copy of a place that can be broken; ``address`` is that of the copy of its database."""
    shutil.copytree(stock.folder, folder)
    return ServerPlace(folder, address=address) if address else Place(folder)


def state(place):
    """Everything there is, without what differs between runs: names of raw files lie in the first place."""
    tables = shown(place, ("trades",))
    return {name: table if isinstance(table, dict) else _placeless(table) for name, table in tables.items()}


def _placeless(table):
    return table.with_columns(pl.col(pl.String).str.replace_all(r"/[^\s'\"]*/(?:data/raw/)", "data/raw/"))


def work(job):
    """Replay or purge."""
    act = {"replay": replayed, "purge": purged}[job["act"]]
    kind = ServerPlace if job["address"] else Place
    return act(kind(Path(job["folder"]), address=job["address"]), killing(job["step"]))


if __name__ == "__main__":
    import pandera.polars  # noqa: F401  (the slowest of the imports, else made by each child)

    import hdi.stores.lake
    import hdi.stores.timescaledb  # noqa: F401

    serve(work)

"""A lake with rejects, rules that change, and replays: what the tests of this folder share."""

from contextlib import closing
from dataclasses import replace

import numpy as np
import polars as pl

import dbnfiles
from dbnfiles import PX
from files.lab import Lab, mapping, schemas
from hdi.frames import BROUGHT
from hdi.model import NS
from hdi.pipeline import Options
from hdi.rejects.replaying import Asked, Replay
from hdi.schema import Schemas
from hdi.stores import open_store
from hdi.testing.material import content

DAYS = ("2024-01-02", "2024-01-04")
FRONT = {"symbols": ("ES.c.0",), "stype_in": "continuous", "window": DAYS, "mappings": {"ES.c.0": [(*DAYS, 1)]}}
PARENT = {
    "symbols": ("ES.FUT",), "stype_in": "parent", "window": DAYS,
    "mappings": {f"ES{k}": [(*DAYS, k)] for k in (1, 2, 3)},
}  # fmt: skip
TIME = "%Y-%m-%dT%H:%M:%S%.9f"


def ruled(**changes):
    """The packaged kinds of data with other rules of trades: another severity, or (severity, check)."""

    def changed(rule):
        told = changes.get(rule.name)
        if told is None:
            return rule
        severity, check = (told, rule.check) if isinstance(told, str) else told
        return replace(rule, severity=severity, check=check)

    return Schemas(replace(s, rules=tuple(map(changed, s.rules))) if s.kind == "trades" else s for s in schemas())


def trades(n=4_000, instruments=3, start=DAYS[0]):
    """Trades of a few instruments over two days; every 400th has a side that there is none of, two have no size."""
    at = dbnfiles.ns(start) + np.arange(n) * 43 * NS
    rows = dbnfiles.records("trades", n, instrument_id=1 + np.arange(n) % instruments, ts_event=at)
    rows["side"][7::400] = b"X"
    rows["size"][[5, 15]] = 0
    rows["sequence"] = np.arange(n)
    rows["price"] = (np.arange(n) % 50 + 1) * PX
    return rows


class Desk(Lab):
    """A lab that replays."""

    def replay(self, kinds=None, *, run=True, **asked):
        """What a replay plans, and its outcomes."""
        work = Replay(self.store, kinds or schemas(), mapping(), self.options, Asked(**asked))
        planned = work.plan()
        if not run:
            return planned, []
        with closing(work.run(planned)) as outcomes:
            return planned, list(outcomes)

    def moves(self, kinds=None, **asked):
        """How many rows went out of quarantine and into it; every file must go well."""
        planned, outcomes = self.replay(kinds, **asked)
        assert [o.error for o in outcomes] == [None] * len(outcomes)
        return planned.rows_out, planned.rows_into

    def digest(self, name="trades"):
        """The rows, as text that does not see who brought them."""
        return content(self.store, name).write_csv(datetime_format=TIME)

    def rejected(self):
        """Rejects that stand: place in the file, and the rules that were broken."""
        rows = self.store.quarantine().select("unit_id", "row", pl.col("rules").list.join(",")).sort("unit_id", "row")
        return rows.rows()

    def adds_up(self):
        """For every unit that counts, fetched is what the store holds of it now and what is in quarantine."""
        ledger = self.store.ledger().filter(pl.col("status").is_in(BROUGHT))
        assert (ledger["fetched"] == ledger["stored"] + ledger["quarantined"]).all()
        now = ledger.unique("unit_id", keep="last")
        held = dict(self.store.quarantine().group_by("unit").len().iter_rows())
        for unit, quarantined in now.select("unit", "quarantined").iter_rows():
            assert held.get(unit, 0) == quarantined
        assert self.rows("trades").height == now.filter(pl.col("schema") == "trades")["stored"].sum()
        return True


def database(url, root, **options):
    """The same in a database."""
    desk = Desk.__new__(Desk)
    desk.root = root
    desk.options = Options(**({"data_dir": root / "data", "dlq_dir": root / "dlq"} | options))
    desk.store = open_store(url, schemas(), write=True)
    return desk


__all__ = ["DAYS", "FRONT", "PARENT", "Desk", "database", "ruled", "trades"]

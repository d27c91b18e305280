"""What a store showed right after each commit, and what it says later that it was known then."""

import polars as pl
from hypothesis import strategies as st

from hdi.errors import FragmentRefused
from hdi.model import MAX_NS, Window, iso_ns
from hdi.testing.material import ALWAYS, START, schemas
from hdi.then import Then
from laws.commits import loads

HOW = st.sampled_from(["commit", "commit", "commit", "failing", "ordered"])
PART = Window(START + 1_001, START + 90_000_000_000_000)


def histories(most=5):
    """Loads with what becomes of each: most are committed, some fail as a whole or are only ordered."""
    return st.lists(st.tuples(loads(), HOW), min_size=2, max_size=most)


def kept(store, histories, between=lambda: None):
    """Commit one after another; (the ledger's time of each that was taken, what the store showed then)."""
    seen = []
    for load, how in histories:
        try:
            getattr(load, how)(store)
        except FragmentRefused:
            continue
        between()
        seen.append((now(store), shown(store)))
    return seen


def now(store):
    """The time of the last commit."""
    return iso_ns(store.ledger()["committed_at"].max())


def known(store, seen):
    """Hold what the store says of each of those times against what it showed then."""
    for when, then in seen:
        found = shown(Then.at(store, when))
        for what, rows in then.items():
            assert found[what] == rows, (when, what)


def shown(store):
    """All that a reader is shown: rows in order, of everything, of a part and of an instrument; counts; the books."""
    schema, name = schemas().find("trades")
    columns = [*schema.dtypes, "_unit", "_row"]
    one = pl.DataFrame(
        [("GLBX.MDP3", 1, 0, MAX_NS)], schema=["dataset", "instrument_id", "start", "end"], orient="row"
    )  # fmt: skip

    def rows(window, instruments=None, wanted=columns, **how):
        frames = store.read(schema, name.name, window, instruments, wanted, **how)
        return [row for frame in frames for row in frame.rows()]

    books = {
        n: sorted(plain(getattr(store, n)()), key=repr)
        for n in ("ledger", "coverage", "mappings", "quarantine", "conditions")
    }
    return books | {
        "rows": rows(ALWAYS), "part": rows(PART), "one": rows(ALWAYS, one, ["price"]),
        "unordered": sorted(rows(ALWAYS, ordered=False), key=repr),
        "content": store.content(schema, name.name, ALWAYS, None, 3_600_000_000_000).rows(),
        "history": sorted(plain(store.replaced(schema)), key=repr),
    }  # fmt: skip


def plain(frame):
    lists = [c for c, t in frame.schema.items() if t == pl.List(pl.String)]
    return frame.with_columns(pl.col(c).list.join(",") for c in lists).rows()

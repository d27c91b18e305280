"""Random commits of trades, and what a store then shows as plain values: laws hold them against the model."""

from collections import Counter

import polars as pl
from hypothesis import strategies as st

from hdi.errors import FragmentRefused
from hdi.model import DAY_NS, Window
from hdi.testing import Load, content, rejects, trades
from hdi.testing.material import ALWAYS, START, schemas

#: Few instants, two of them in one microsecond, over two days: collisions are what is tested.
INSTANTS = [START + t for t in (0, 1_000, 1_001, 3_600_000_000_000, DAY_NS - 1, DAY_NS, DAY_NS + 7)]
BOUNDS = [START, START + 1_001, START + 3_600_000_000_001, START + DAY_NS, START + 2 * DAY_NS]
INSTRUMENTS = (1, 2, 3)


@st.composite
def rows(draw, allowed):
    """Trades in the order of time, several of an instant, few prices."""
    picked = sorted(draw(st.lists(st.sampled_from(allowed), max_size=8)))
    n = len(picked)
    prices = draw(st.lists(st.integers(1, 2), min_size=n, max_size=n))
    publishers = draw(st.lists(st.integers(1, 2), min_size=n, max_size=n))
    return trades([t for t, _ in picked], [i for _, i in picked], prices, publishers)


@st.composite
def loads(draw):
    everywhere = [(t, i) for t in INSTANTS for i in INSTRUMENTS]
    bad = draw(st.lists(st.sampled_from([*everywhere, (None, 1)]), max_size=3))
    rule = draw(st.sampled_from(["NO_GOOD", "NO_GOOD", "OUTSIDE_WINDOW"]))
    rejected = rejects([t for t, _ in bad], [i for _, i in bad], rule)
    if draw(st.integers(0, 3)) == 0:
        digest = draw(st.sampled_from(["f1", "f2"]))
        return Load(draw(rows(everywhere)), symbol="", window=ALWAYS, digest=digest, rejected=rejected)
    first, last = sorted(draw(st.lists(st.sampled_from(BOUNDS), min_size=2, max_size=2, unique=True)))
    cut = draw(st.sampled_from([b for b in BOUNDS if first < b <= last]))
    scope = [(i, *span) for i in draw(st.sets(st.sampled_from(INSTRUMENTS))) for span in draw(st.sampled_from([
        [(first, last)], [(first, cut)], [(first, cut), (cut, last)] if cut < last else [(first, last)],
    ]))]  # fmt: skip
    allowed = [(t, i) for t, i in everywhere if any(i == j and a <= t < b for j, a, b in scope)]
    symbol = draw(st.sampled_from(["A", "B"]))
    filled = draw(rows(allowed)) if allowed else trades([])
    return Load(filled, scope, symbol=symbol, window=Window(first, last), rejected=rejected, batch=3)


def committed(load, store, model):
    """Commit a load to a store and to the model, which must take or refuse it alike, and hold the same then."""
    try:
        receipt = load.commit(store)
        taken = True
        assert receipt.stored == load.rows.height
    except FragmentRefused:
        taken = False
    assert taken == model.commit(load)
    assert seen(store) == model.content()
    assert left(store) == Counter(model.rejects)
    assert history(store) == Counter(model.history)


def seen(store):
    frame = content(store)
    keys = zip(frame["ts_recv"].to_physical(), frame["publisher_id"], frame["instrument_id"], strict=True)
    return [(key, int(price)) for key, price in zip(keys, frame["price"], strict=True)]


def left(store):
    frame = store.quarantine().with_columns(strayed=pl.col("rules").list.contains("OUTSIDE_WINDOW"))
    return Counter(frame.select("unit_id", "instrument_id", "index_time", "strayed").rows())


def history(store):
    frame = store.replaced(schemas().find("trades")[0]).with_columns(
        at=pl.col("ts_recv").to_physical() * 1000 + pl.col("ts_recv_ns")
    )
    keys = zip(frame["at"], frame["publisher_id"], frame["instrument_id"], strict=True)
    return Counter((key, int(price)) for key, price in zip(keys, frame["price"], strict=True))

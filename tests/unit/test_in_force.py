"""Which quote was in force before a trade, beside a slow oracle, however the streams are cut into frames."""

import itertools
from collections import defaultdict

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdi.lookup import RECTANGLES
from hdi.model import Window
from hdi.series import in_force
from hdi.series.in_force import AT, QUOTE_AT, Known, Merge, Terms

KEY = ("dataset", "instrument_id", "publisher_id")
_KEYS = {"dataset": pl.String(), "instrument_id": pl.Int64(), "publisher_id": pl.Int32()}
_ALIKE = {AT: pl.Int64(), **_KEYS, "sequence": pl.Int64()}
TRADED = _ALIKE | {"size": pl.Int64()}
QUOTED = _ALIKE | {"action": pl.String(), "bid": pl.Int64()}
#: Few instants, instruments and sequences: most things happen at once.
PLACES = st.tuples(
    st.integers(0, 12), st.sampled_from("XY"), st.integers(1, 2), st.integers(1, 2), st.integers(1, 2)
)  # fmt: skip
CUTS = st.lists(st.integers(0, 40), max_size=4)


def oracle(trades, quotes, terms):
    """For each trade the bid and the time of its quote, by looking at every quote."""
    found, seen = [], defaultdict(int)
    for trade in trades:
        alike = [q for q in quotes if all(q[c] == trade[c] for c in terms.key)]
        own = [q for q in alike if q["action"] == "T" and all(q[c] == trade[c] for c in (AT, *terms.own))]
        nth = seen[tuple(trade[c] for c in (AT, *terms.key, *terms.own))]
        seen[tuple(trade[c] for c in (AT, *terms.key, *terms.own))] += 1
        before = [q for q in alike if trade[AT] - terms.reach <= q[AT] < trade[AT]]
        one = own[nth] if terms.own and nth < len(own) else max(before, key=lambda q: q[AT], default=None)
        if one is not None and one not in own[nth : nth + 1]:
            one = [q for q in before if q[AT] == one[AT]][-1]  # of those that came at once the last
        found.append((None, None) if one is None else (one["bid"], one[AT]))
    return found


def cut(frame, places):
    """The frame in several."""
    edges = sorted({0, frame.height, *(p for p in places if p < frame.height)})
    return [frame[a:b] for a, b in itertools.pairwise(edges)]


def mixed(frame):
    """Rows of one key in their order, those of several in another: as reads without an order may have them."""
    return frame.sort("instrument_id", "dataset", maintain_order=True)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Frames are joined as they come, not when half a million rows are there."""
    monkeypatch.setattr(in_force, "_AT_ONCE", 1)


@st.composite
def cases(draw):
    """Trades, quotes, the places at which both are cut into frames, terms, where the window starts, and of whom."""
    traded = draw(st.lists(PLACES, max_size=12))
    quoted = draw(st.lists(st.tuples(PLACES, st.sampled_from("TA")), max_size=20))
    own = draw(st.sampled_from([(), ("sequence",)]))
    key = draw(st.sampled_from([KEY, KEY[:2]]))
    terms = Terms(key, own, ("bid",), draw(st.integers(1, 6)))
    return traded, quoted, draw(CUTS), draw(CUTS), terms, draw(st.integers(0, 8)), draw(st.booleans())


@settings(max_examples=120, deadline=None)
@given(cases())
def test_each_trade_has_the_quote_that_a_look_at_every_quote_finds(case):
    traded, quoted, cuts, other_cuts, terms, start, everything = case
    columns = ("_at", *KEY, "sequence")
    trades = [dict(zip(columns, place, strict=True), size=n) for n, place in enumerate(sorted(traded, key=_order))]
    quotes = [
        dict(zip(columns, place, strict=True), action=action, bid=n)
        for n, (place, action) in enumerate(sorted(quoted, key=lambda q: _order(q[0])))
    ]
    # Instrument 1 is away for a while; trades are only those of the window and of the stretches.
    window = Window(start, 13)
    spans = [("X", 1, 0, 3), ("X", 1, 7, 13), ("X", 2, 0, 13), ("Y", 1, 2, 13), ("Y", 2, 0, 5)]
    inside = lambda t: any((t[KEY[0]], t[KEY[1]]) == (d, i) and a <= t[AT] < b for d, i, a, b in spans)  # noqa: E731
    held = pl.DataFrame(
        [(d, i, max(a, start), b) for d, i, a, b in spans if b > start], schema=RECTANGLES, orient="row"
    )
    held = held.filter(pl.col("start") < pl.col("end"))
    trades = [t for t in trades if t[AT] >= start and (everything or inside(t))]
    whole = pl.DataFrame(quotes, schema=QUOTED)

    def read(window, held):
        rows = whole.filter(pl.col(AT) >= window.start, pl.col(AT) < window.end)
        if held is not None:
            rows = rows.with_row_index("n").join(held, on=["dataset", "instrument_id"]).filter(
                pl.col(AT) >= pl.col("start"), pl.col(AT) < pl.col("end")
            ).sort("n").select(*QUOTED)  # fmt: skip
        return (mixed(frame).select(AT, *terms.read) for frame in cut(rows, cuts) if frame.height)

    streams = iter(f for f in cut(pl.DataFrame(trades, schema=TRADED), other_cuts) if f.height)
    merge = Merge(terms, window, None if everything else held)
    frames = list(merge.frames(streams, TRADED, read, {c: QUOTED[c] for c in terms.read}))
    found = [row for frame in frames for row in frame.select("size", "bid", QUOTE_AT).iter_rows()]
    assert [size for size, _, _ in found] == [t["size"] for t in trades]
    assert [(bid, at) for _, bid, at in found] == oracle(trades, quotes, terms)


def _order(place):
    """As stores order rows: time, dataset, publisher, instrument."""
    at, dataset, instrument, publisher, _ = place
    return at, dataset, publisher, instrument


def test_a_quote_that_is_as_old_as_the_tolerance_counts_and_an_older_one_does_not():
    terms = Terms(KEY, (), ("bid",), 10)
    quotes = pl.DataFrame([(0, "X", 1, 1, 1, "A", 7)], schema=QUOTED, orient="row")
    trades = pl.DataFrame([(at, "X", 1, 1, 1, 1) for at in (0, 1, 10, 11)], schema=TRADED, orient="row")
    read = lambda *_: iter([quotes.select(AT, *terms.read)])  # noqa: E731
    merge = Merge(terms, Window(0, 100), None)
    frames = merge.frames(iter([trades]), TRADED, read, {c: QUOTED[c] for c in terms.read})
    assert pl.concat(frames)["bid"].to_list() == [None, 7, 7, None]


HELD = [("X", 1, 0, 10), ("X", 1, 10, 20), ("X", 1, 30, 40), ("X", 2, 0, 15), ("X", None, 40, 50)]
BAD = [("X", 1, 5), ("Y", None, 7)]


@pytest.mark.parametrize(
    ("dataset", "instrument", "quote", "trade", "kept"),
    [
        ("X", 1, 6, 19, True),  # over a seam
        ("X", 1, 19, 20, True),  # the trade is no quote: its own instant need not be stored
        ("X", 1, 19, 21, False),  # nothing is stored of 20
        ("X", 1, 19, 31, False),  # what was between them was never ingested
        ("X", 1, 35, 45, True),  # its own, then that of every instrument
        ("X", 3, 41, 49, True),
        ("X", 3, 1, 2, False),
        ("X", 1, 5, 5, True),  # of the trade's own message
        ("X", 1, 4, 5, True),
        ("X", 1, 5, 6, False),  # one of the same moment is in quarantine
        ("X", 1, 3, 9, False),
        ("X", 2, 3, 9, True),
        ("Y", 1, 3, 3, True),
        ("Y", 1, 3, 9, False),  # nothing of that dataset is stored
    ],
)
def test_a_quote_counts_only_where_all_since_is_known(dataset, instrument, quote, trade, kept):
    held = pl.DataFrame(HELD, schema=RECTANGLES, orient="row")
    bad = pl.DataFrame(
        BAD, schema={"dataset": pl.String, "instrument_id": pl.Int64, "ts_event": pl.Int64}, orient="row"
    )
    found = pl.DataFrame({
        "dataset": [dataset, "X", "X"], "instrument_id": [instrument, 1, 1], AT: [trade, 9, 50],
        QUOTE_AT: [quote, 8, None], "bid": [7, 8, None],
    })  # fmt: skip
    told = Known(held, bad).kept(found, ["bid"])
    assert told.drop("bid", QUOTE_AT).equals(found.drop("bid", QUOTE_AT))
    assert told["bid"].to_list() == [7 if kept else None, 8, None]
    assert told[QUOTE_AT].to_list() == [quote if kept else None, 8, None]


def test_a_quarantined_quote_that_names_no_instrument_may_be_of_any():
    held = pl.DataFrame([("X", 1, 0, 10)], schema=RECTANGLES, orient="row")
    bad = pl.DataFrame({"dataset": ["X"], "instrument_id": [None], "ts_event": [5]},
                       schema_overrides={"instrument_id": pl.Int64})  # fmt: skip
    found = pl.DataFrame({"dataset": "X", "instrument_id": 1, AT: [5, 6, 9], QUOTE_AT: [4, 4, 6], "bid": [1, 2, 3]})
    assert Known(held, bad).kept(found, ["bid"])["bid"].to_list() == [1, None, 3]

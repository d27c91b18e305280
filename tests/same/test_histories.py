"""After the same history both stores say the same of it: rows, books, superseded rows, dead letters, refusals."""

import numpy as np
import pytest

from dbnfiles import MINUTE, PX, fragment, ns, records, write
from hdi.errors import FragmentRefused, NotDbn, OriginMismatch, TooManyRejects, TruncatedFile
from hdi.model import DAY_NS, NS
from same.twins import Ask

DAYS = ("2024-01-02", "2024-01-05")
BOTH = {"ESH4": [(*DAYS, 1)], "ESM4": [(*DAYS, 2)]}
START = ns(DAYS[0])


def trades(n=30, **columns):
    """Trades of two instruments over three days."""
    at = np.arange(n)
    values = {"instrument_id": 1 + at % 2, "ts_event": START + at * (3 * DAY_NS // n), "price": (100 + at) * PX}
    return records("trades", n, **values | columns)


def whole(path, rows, **more):
    return write(path, "trades", rows, **{"symbols": ("ESH4", "ESM4"), "window": DAYS, "mappings": BOTH} | more)


def steps(f):
    """(what happens, files, options) one after another."""
    good = trades()
    yield "a fragment", [fragment(f / "loose.dbn.zst", "trades", good[3:9])], {}
    yield "another that overlaps it", [fragment(f / "loose2.dbn.zst", "trades", good[6:12])], {}
    bad = good.copy()
    bad["side"][4], bad["price"][7], bad["ts_recv"][9], bad["ts_recv"][11] = (
        b"?",
        2**63 - 1,
        2**64 - 1,
        ns("2024-02-01"),
    )
    yield "the whole, with bad rows", [whole(f / "bad.dbn.zst", bad)], {}
    yield "the same again", [whole(f / "bad.dbn.zst", bad)], {}
    yield "a fragment that is refused", [fragment(f / "late.dbn.zst", "trades", good[5:8])], {}
    changed = good.copy()
    changed["price"][20:] += PX
    yield "other prices", [whole(f / "changed.dbn.zst", changed)], {"refetch": True}
    # Repeated rows differ in nothing but their order.
    repeated = np.repeat(changed[::3], 2)
    yield "fewer rows, each twice", [whole(f / "repeated.dbn.zst", repeated)], {"refetch": True}
    yield "the same rows, refetched", [whole(f / "repeated.dbn.zst", repeated)], {"refetch": True}
    yield "nothing at all", [whole(f / "nothing.dbn.zst", good[:0])], {"refetch": True}
    parent = {"symbols": ("ES.FUT",), "stype_in": "parent"}
    yield "the parent", [whole(f / "parent.dbn.zst", good, **parent)], {}
    worse = good.copy()
    worse["size"][::2] = 0
    yield "too many bad rows", [whole(f / "worse.dbn.zst", worse)], {"refetch": True, "min_rejects": 1}
    one = bad.copy()
    one["side"][1::2] = b"?"
    # A file of both symbols in which those of one are bad.
    yield "bad rows of one symbol", [whole(f / "one.dbn.zst", one)], {"refetch": True, "min_rejects": 5}
    yield "good again", [whole(f / "good.dbn.zst", good)], {"refetch": True}
    minutes = records("ohlcv-1m", 60, instrument_id=7, ts_event=START + np.arange(60) * MINUTE)
    window = {"window": (DAYS[0], "2024-01-03")}
    unnamed = {"symbols": ("CL.c.0",), "stype_in": "continuous", "mappings": {}, **window}
    yield "bars that nothing names", [write(f / "unnamed.dbn.zst", "ohlcv-1m", minutes, **unnamed)], {}
    empty = minutes[:0]
    for name, until in (("CLG4", "2024-01-04"), ("CLH4", "2024-01-03"), ("CLG4", "2024-01-03")):
        named = {name: [(DAYS[0], until, 7)]}
        path = write(f / f"{name}{until}.dbn.zst", "ohlcv-1h", records("ohlcv-1h", 0), symbols=(name,),
                     window=(DAYS[0], until), mappings=named)  # fmt: skip
        yield f"{name} is what they are called, until {until}", [path], {"refetch": True}
    path = write(f / "quiet.dbn.zst", "ohlcv-1m", empty, symbols=("CLG4",), window=(DAYS[1], "2024-01-06"), mappings={})
    yield "a day without a bar", [path], {}
    definition = records("definition", 2, instrument_id=[1, 2], raw_symbol=[b"ESH4", b"ESM4"],
                         min_price_increment=[PX, 10**18])  # fmt: skip
    path = write(f / "definition.dbn.zst", "definition", definition, symbols=("ES.FUT",), stype_in="parent",
                 mappings={"ESH4": [(DAYS[0], "2024-01-03", 1)]}, **window)  # fmt: skip
    yield "definitions, one of which nothing maps", [path], {}
    yield "a plan", [whole(f / "changed.dbn.zst", changed)], {"refetch": True, "dry_run": True}


def test_each_step_of_a_history_leaves_both_stores_the_same(pair, tmp_path):
    seen = set()
    for what, paths, options in steps(tmp_path / "files"):
        try:
            seen |= {o.status for o in pair.ingest(*paths, **options)}
            pair.same(("trades", "ohlcv-1m", "definition"))
            if what.endswith(("rows", "until 2024-01-03")):
                pair.alike(Ask("trades", "ESH4,ES.FUT"))
                pair.alike(Ask("ohlcv-5m", "CLG4,CLH4"))
        except AssertionError as difference:
            difference.add_note(f"after {what}")
            raise
    assert seen == {"stored", "skipped", "failed", "planned"}
    books = pair.same_books()
    assert books["trades_data_history"].height > 30
    assert {"fragment", "complete", "failed"} == set(books["ledger"]["status"])


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1)])
def test_a_fragment_is_refused_in_the_same_words(pair, tmp_path, order):
    """Several of its rows are held already, of several instruments and at the same times."""
    held = {f"ES{k}": [(*DAYS, k)] for k in (1, 2, 3)}
    at = START + np.repeat(np.arange(4), 3) * NS
    rows = records("trades", 12, instrument_id=order * 4, ts_event=at, ts_recv=at)
    pair.stored(whole(tmp_path / "whole.dbn.zst", rows, symbols=tuple(held), mappings=held))
    rows["instrument_id"][:3], rows["ts_recv"][:3] = 9, START - 1
    (outcome,) = pair.ingest(fragment(tmp_path / "fragment.dbn.zst", "trades", rows))
    assert isinstance(outcome.error, FragmentRefused)
    pair.same()


def test_files_that_are_refused_are_refused_in_the_same_words(pair, tmp_path):
    rows = trades()
    pair.stored(whole(tmp_path / "whole.dbn.zst", rows))
    cut = tmp_path / "cut.dbn.zst"
    cut.write_bytes(whole(tmp_path / "other.dbn.zst", trades(31)).read_bytes()[:-40])
    text = tmp_path / "text.dbn"
    text.write_text("no such thing")
    span = ("2024-01-08", "2024-01-11")
    late = {"window": span, "mappings": {s: [(*span, k)] for k, s in ((1, "ESH4"), (2, "ESM4"))}}
    many = trades(ts_event=ns(span[0]) + np.arange(30), side=b"?")
    over = whole(tmp_path / "over.dbn.zst", many, **late)
    outcomes = pair.ingest(cut, text, over, refetch=True, min_rejects=10)
    assert [type(o.error) for o in outcomes] == [TruncatedFile, NotDbn, TooManyRejects]
    (other,) = pair.ingest(whole(tmp_path / "real.dbn.zst", trades(side=b"A")), origin="databento", refetch=True)
    assert isinstance(other.error, OriginMismatch)
    pair.same()


def test_many_small_files_of_a_symbol_leave_the_same_books(pair, tmp_path):
    """Days in another order than that of time, each with two rejects."""
    files = []
    for day in (3, 1, 2, 5, 4):
        span = (START + day * DAY_NS, START + (day + 1) * DAY_NS)
        at = span[0] + np.arange(12) * (DAY_NS // 11)
        rows = records("trades", 12, instrument_id=5, ts_event=at, ts_recv=at, size=np.maximum(np.arange(12) - 1, 0))
        files.append(write(tmp_path / f"{day}.dbn.zst", "trades", rows, symbols=("NGG4",), window=span,
                           mappings={"NGG4": [(*span, 5)]}))  # fmt: skip
    pair.stored(*files)
    _, books, letters = pair.same()
    assert books["quarantine"].height == 10
    assert len(letters) == 5
    assert pair.alike(Ask("trades", "NGG4")).rows.height == 50

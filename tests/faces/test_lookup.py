"""Symbols to rectangles, and bars out of frames, on frames alone."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdi import UnknownSymbol
from hdi.frames import COVERAGE, LEDGER, MAPPINGS
from hdi.lookup import Lookup, split, subtract, union
from hdi.model import Window
from hdi.resample import Certain, Resampler, aligned
from hdi.schema_files import load_schemas

WIDTH = 5
NO_COVERAGE, NO_LEDGER = pl.DataFrame(schema=COVERAGE), pl.DataFrame(schema=LEDGER)


def lookup(*mappings):
    rows = [("D", stype, symbol, instrument, start, end) for stype, symbol, instrument, start, end in mappings]
    return Lookup(pl.DataFrame(rows, schema=MAPPINGS, orient="row"), NO_COVERAGE, NO_LEDGER)


def spans(known, symbol):
    (asked,) = known.find([symbol])
    return asked.rectangles.select("instrument_id", "start", "end").rows()


def test_the_latest_mapping_of_an_instrument_wins_on_the_days_it_names():
    known = lookup(("raw_symbol", "OLD", 1, 0, 10), ("raw_symbol", "NEW", 1, 4, 6))
    assert spans(known, "OLD") == [(1, 0, 4), (1, 6, 10)]
    assert spans(known, "NEW") == [(1, 4, 6)]


def test_a_lookup_that_is_kept_finds_symbols_once_and_asks_for_the_rows_of_an_instrument_every_time():
    kept = lookup(("raw_symbol", "ES", 1, 0, 10))
    assert not kept.seeing(lambda _: ()).knows("77")
    first, later = kept.seeing(lambda _: ()), kept.seeing(lambda _: ["D"])
    assert not first.knows("77")
    assert later.knows("77")
    assert first.find(["ES"])[0] is later.find(["ES"])[0]
    assert not first.knows("77")


def test_a_continuous_symbol_is_one_instrument_at_a_time_and_the_latest_word_counts():
    known = lookup(
        ("continuous", "ES.c.0", 1, 0, 10), ("continuous", "ES.c.0", 2, 10, 20), ("continuous", "ES.c.0", 2, 8, 10)
    )
    assert spans(known, "ES.c.0") == [(1, 0, 8), (2, 8, 20)]


def test_a_parent_is_many_instruments_at_once():
    known = lookup(("parent", "ES.FUT", 1, 0, 10), ("parent", "ES.FUT", 2, 0, 10))
    assert spans(known, "ES.FUT") == [(1, 0, 10), (2, 0, 10)]


def test_a_symbol_is_found_in_any_case_but_the_exact_one_goes_before():
    known = lookup(
        ("raw_symbol", "BRN  FMZ0023!", 1, 0, 10), ("raw_symbol", "bac", 2, 0, 10), ("raw_symbol", "BAC", 3, 0, 10)
    )
    assert spans(known, "brn  fmz0023!") == [(1, 0, 10)]
    assert spans(known, "bac") == [(2, 0, 10)]
    with pytest.raises(UnknownSymbol):
        known.find(["BRN"])


def test_names_go_by_date_and_by_dataset():
    frame = pl.DataFrame(
        {"dataset": list("DDDE"), "instrument_id": [1] * 4, "ts": [3, 5, 99, 5], "symbol": ["KEPT", None, None, None]},
        schema_overrides={"ts": pl.Datetime("ns", "UTC")},
    )  # fmt: skip
    known = lookup(("raw_symbol", "OLD", 1, 0, 10), ("raw_symbol", "NEW", 1, 4, 6))
    assert known.names(None).fill(frame, "ts")["symbol"].to_list() == ["KEPT", "NEW", None, None]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(1, 3)), max_size=8))
def test_the_union_of_rectangles_has_each_instant_once(intervals):
    known = lookup(*(("parent", "P", i, min(a, b), max(a, b)) for a, b, i in intervals if a != b))
    if known.empty:
        return
    window = Window(10, 40)
    merged = union([*known.find(["P"]), *known.find(["P"])], window).rows()
    held = [(i, t) for _, i, start, end in merged for t in range(start, end)]
    wanted = {(i, t) for a, b, i in intervals for t in range(max(10, min(a, b)), min(40, max(a, b)))}
    assert len(held) == len(set(held))
    assert set(held) == wanted


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)).filter(lambda p: p[0] < p[1]), max_size=6))
def test_what_is_left_of_a_window_and_what_is_held_tile_it(held):
    left = {t for w in subtract(Window(5, 25), held) for t in range(w.start, w.end)}
    assert left == set(range(5, 25)) - {t for a, b in held for t in range(a, b)}


def test_symbols_are_split_at_commas_only():
    assert split(["A, B", "B", " SPY   240119C00450000 ,"]) == ("A", "B", "SPY   240119C00450000")


def test_buckets_that_start_in_a_window_are_taken_whole():
    assert aligned(Window(10, 20), WIDTH) == Window(10, 20)
    assert aligned(Window(11, 21), WIDTH) == Window(15, 25)
    assert aligned(Window(11, 14), WIDTH) is None


MINUTES = st.lists(
    st.tuples(*(st.integers(a, b) for a, b in ((0, 30), (1, 2), (1, 2), (-5, 5), (0, 4), (0, 9)))),
    unique_by=lambda m: m[:3], max_size=40,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(MINUTES, st.lists(st.integers(1, 12), min_size=1, max_size=5))
def test_bars_do_not_depend_on_how_the_rows_are_cut_into_frames(minutes, sizes):
    schema = load_schemas().find("ohlcv-5m")[0]
    rows = pl.DataFrame(
        [
            ("D", i, None, p, t, open_, open_ + spread, open_ - spread, open_, volume, "x")
            for t, i, p, open_, spread, volume in sorted(minutes, key=lambda m: (m[0], m[2], m[1]))
        ],
        schema={c: schema.dtypes[c] for c in (
            "dataset", "instrument_id", "symbol", "publisher_id", "ts_event", "open_price", "high_price", "low_price",
            "close_price", "volume", "data_source",
        )},
        orient="row",
    )  # fmt: skip
    covered = pl.DataFrame({"dataset": ["D"], "instrument_id": [None], "start": [0], "end": [1000]}).cast(
        {"instrument_id": pl.Int64}
    )
    spoiled = pl.DataFrame(schema={"dataset": pl.String, "instrument_id": pl.Int64, "ts_event": pl.Int64})
    frames, at = [], 0
    while at < rows.height:
        frames.append(rows[at : at + sizes[len(frames) % len(sizes)]])
        at += frames[-1].height
    certain = Certain(covered, spoiled, WIDTH)
    nothing = pl.DataFrame(schema=schema.dtypes)
    made = [pl.concat([nothing, *Resampler(certain, schema.dtypes, {}).bars(cut)]) for cut in ([rows], frames)]
    assert made[0].equals(made[1])
    assert made[0]["volume"].sum() == rows["volume"].sum()
    groups = {(t // WIDTH, i, p) for t, i, p, *_ in minutes}
    assert made[0].height == len(groups)
    for bar in made[0].iter_rows(named=True):
        assert bar["low_price"] <= min(bar["open_price"], bar["close_price"])
        assert bar["high_price"] >= max(bar["open_price"], bar["close_price"])

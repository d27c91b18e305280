"""Every order, ten prices, the best price, quotes by interval, trades: one book, seen in different detail."""

import functools
import itertools

import numpy as np
import pytest

from hdi.model import DAY_NS, NS
from hdi.rehearsal.contracts import instruments
from hdi.rehearsal.market import Market
from rehearsal.book_oracle import SNAPSHOT, replayed, shown
from rehearsal.market_oracle import GLBX, UNDEF, XNAS, ask, at, day, gather, select

TODAY = day("2026-11-01")
DBEQ = "DBEQ.BASIC"
#: Seed, scale, dataset, symbols and their type, days: quiet and busy, a roll, an expiry, below zero, shares.
TAPES = {
    "front": (0, 0.06, GLBX, ("ES.c.0",), "continuous", "2024-03-13", "2024-03-15"),
    "a roll": (7, 0.004, GLBX, ("ES.FUT", "NG.FUT"), "parent", "2024-03-13", "2024-03-16"),
    "an expiry": (3, 0.01, GLBX, ("CL.FUT",), "parent", "2012-10-19", "2012-10-24"),
    "thin": (11, 0.004, GLBX, ("RB.FUT",), "parent", "2018-02-25", "2018-03-02"),
    "below zero": (1, 0.04, GLBX, ("CLK0", "CLK0-CLM0"), "raw_symbol", "2020-04-20", "2020-04-22"),
    "shares": (5, 0.03, XNAS, ("SPY",), "raw_symbol", "2025-10-30", "2025-11-04"),
}
BOOKS = ("mbo", "mbp-1", "mbp-10", "bbo-1s", "bbo-1m")
EVENT = ("ts_recv", "ts_event", "instrument_id", "action", "side", "price", "size", "flags", "sequence", "ts_in_delta")


@functools.cache
def market(seed=0, scale=1.0, hostile=0):
    return Market(seed, scale=scale, hostile=hostile, today=TODAY)


@functools.cache
def records(tape, schema):
    seed, scale, dataset, symbols, stype, start, end = TAPES[tape]
    return ask(market(seed, scale), schema, symbols, start, end, stype, dataset=dataset)


@functools.cache
def steps(tape):
    """Every order's records, replayed: those after the snapshots of the days."""
    return [s for s in replayed(records(tape, "mbo"), 10) if not s[0]["flags"] & SNAPSHOT]


def same(ours, theirs, names=EVENT):
    return all(ours[name].tobytes() == theirs[name].tobytes() for name in names)


@pytest.mark.parametrize("tape", TAPES)
def test_ten_prices_are_what_replaying_every_order_gives(tape):
    made = records(tape, "mbp-10")
    expected = [s for s in steps(tape) if s[0]["action"] != b"F"]
    assert len(made) == len(expected) > 100
    for ours, (order, level, sides) in zip(made, expected, strict=True):
        assert same(ours, order)
        assert (int(ours["depth"]), shown(ours, 10)) == (level, sides)


@pytest.mark.parametrize("tape", TAPES)
def test_the_best_price_is_that_of_the_ten_where_an_event_is_about_it(tape):
    best, ten = records(tape, "mbp-1"), records(tape, "mbp-10")
    ten = ten[ten["depth"] == 0]
    assert len(best) == len(ten) > 100
    for name in best.dtype.names:
        if name not in ("length", "rtype"):
            assert best[name].tobytes() == ten[name].tobytes(), name


@pytest.mark.parametrize("tape", TAPES)
@pytest.mark.parametrize("schema", ["mbo", "mbp-1", "mbp-10"])
def test_the_trades_in_a_book_are_those_of_the_trades_schema(tape, schema):
    made, trades = records(tape, schema), records(tape, "trades")
    made = made[made["action"] == b"T"]
    assert len(made) == len(trades) > 10
    assert all(made[name].tobytes() == trades[name].tobytes() for name in EVENT)


@pytest.mark.parametrize("tape", TAPES)
def test_the_best_prices_at_a_trade_are_the_quote_that_comes_with_it(tape):
    made, quotes = records(tape, "mbp-1"), records(tape, "tbbo")
    assert made[made["action"] == b"T"].tobytes() == quotes.tobytes()


def test_the_quote_stands_before_the_trade():
    made = records("front", "mbp-1")
    traded = np.flatnonzero(made["action"] == b"T")
    before, trades = made[traded - 1], made[traded]
    for name in ("bid_px_00", "ask_px_00", "bid_sz_00", "ask_sz_00", "bid_ct_00", "ask_ct_00"):
        assert np.array_equal(before[name], trades[name])
    assert (before["ts_recv"] < trades["ts_recv"]).mean() > 0.7


@pytest.mark.parametrize("tape", TAPES)
def test_times_go_up_and_events_end(tape):
    for schema in ("mbo", "mbp-1", "mbp-10"):
        made = records(tape, schema)
        assert (np.diff(made["ts_recv"].astype(np.int64)) >= 0).all()
        live = made[(made["flags"] & SNAPSHOT) == 0]
        assert (live["ts_recv"] > live["ts_event"]).all()
        for one in np.unique(live["instrument_id"]):
            assert live["flags"][live["instrument_id"] == one][-1] & 128


def test_order_numbers_belong_to_one_instrument_and_fit_a_signed_number():
    made = records("a roll", "mbo")
    added = made[made["action"] == b"A"]
    pairs = {(int(r["instrument_id"]), int(r["order_id"])) for r in added}
    assert len(pairs) == len({number for _, number in pairs}) == len(added)
    assert int(added["order_id"].max()) < 2**63
    for dataset in (GLBX, XNAS):
        assert len(instruments(dataset).all) < 2**14


@pytest.mark.parametrize("tape", ["front", "a roll"])
def test_a_day_of_futures_begins_with_the_book_at_midnight(tape):
    made = records(tape, "mbo")
    shown_ = made[(made["flags"] & SNAPSHOT) > 0]
    days = {int(t) // DAY_NS for t in made["ts_recv"]}
    assert {int(t) for t in shown_["ts_recv"]} == {d * DAY_NS for d in days}
    assert (shown_["ts_event"] < shown_["ts_recv"]).all()
    pairs = {(int(r["instrument_id"]), int(r["ts_recv"])) for r in shown_}
    assert len(shown_) == len(pairs) * 21
    traded = records(tape, "trades")
    assert pairs == {(int(r["instrument_id"]), int(r["ts_recv"]) // DAY_NS * DAY_NS) for r in traded}
    clears = made[made["action"] == b"R"]
    assert len(clears) == len(pairs)
    assert set(clears["flags"]) == {40}
    assert set(records(tape, "mbp-1")["flags"]) <= {0, 128}


def test_a_day_of_shares_begins_with_an_empty_book():
    for schema in ("mbo", "mbp-1", "mbp-10"):
        made = records("shares", schema)
        days = made["ts_recv"] // DAY_NS
        first = np.flatnonzero(np.diff(days, prepend=0))
        assert np.array_equal(np.flatnonzero(made["action"] == b"R"), first)
        assert len(first) == 3


def test_books_are_deep_or_not_and_a_few_sides_are_empty_or_crossed():
    made = records("front", "mbp-10")
    filled = (made["ask_px_09"] != UNDEF).mean()
    assert 0.5 < filled < 1
    both = (made["bid_px_00"] != UNDEF) & (made["ask_px_00"] != UNDEF)
    assert (made["bid_px_00"] < made["ask_px_00"])[both].mean() > 0.995
    busy = ask(market(2, 3.0), "mbp-1", ["ES.v.0"], "2024-02-05", "2024-02-07")
    bid, ask_ = busy["bid_px_00"], busy["ask_px_00"]
    assert 0 < (bid == UNDEF).sum() < len(busy) / 500
    assert 0 < (ask_ == UNDEF).sum() < len(busy) / 500
    assert ((bid > ask_) & (bid != UNDEF) & (busy["action"] == b"T")).sum() > 0
    counts = {chr(a[0]) for a in np.unique(records("front", "mbo")["action"])}
    assert counts == {"A", "C", "F", "M", "R", "T"}


@pytest.mark.parametrize("tape", TAPES)
@pytest.mark.parametrize(("schema", "width"), [("bbo-1s", NS), ("bbo-1m", 60 * NS)])
def test_a_quote_by_interval_is_the_last_state_of_the_book_in_it(tape, schema, width):
    seed, scale, dataset, symbols, stype, start, end = TAPES[tape]
    # An interval that ends at midnight belongs to the day that begins.
    selection = select(market(seed, scale), symbols, start, end, stype, dataset)
    low, high = at(start) + width, at(end)
    made = gather(market(seed, scale), schema, selection, low, high, dataset)
    expected = {}
    for record in records(tape, "mbp-1"):
        ends = (int(record["ts_recv"]) // width + 1) * width
        key = ends, int(record["instrument_id"])
        _, traded = expected.get(key, (None, None))
        expected[key] = record, record if record["action"] == b"T" else traded
    expected = {key: value for key, value in expected.items() if low <= key[0] < high}
    assert (np.diff(made["ts_recv"].astype(np.int64)) >= 0).all()
    assert sorted((int(r["ts_recv"]), int(r["instrument_id"])) for r in made) == sorted(expected)
    for ours in made:
        last, traded = expected[int(ours["ts_recv"]), int(ours["instrument_id"])]
        assert shown(ours, 1) == shown(last, 1)
        assert same(ours, traded, ("ts_event", "price", "size", "side", "sequence"))


@pytest.mark.parametrize(("schema", "of"), [("cbbo-1s", NS), ("cbbo-1m", 60 * NS)])
def test_a_consolidated_quote_by_interval_is_the_last_state_of_the_consolidated_book(schema, of):
    made, book = (ask(market(), s, ["SPY"], "2024-02-05", "2024-02-07", "raw_symbol", dataset=DBEQ)
                  for s in (schema, "cmbp-1"))  # fmt: skip
    ends = book["ts_recv"] // of * of + of
    last = np.append(np.flatnonzero(np.diff(ends)), len(ends) - 1)
    assert np.array_equal(made["ts_recv"], ends[last])
    for name in ("bid_px_00", "ask_px_00", "bid_sz_00", "ask_sz_00", "bid_pb_00", "ask_pb_00"):
        assert np.array_equal(made[name], book[name][last]), name
    assert set(made["publisher_id"]) == {59}
    trades = book[book["action"] == b"T"]
    before = np.searchsorted(trades["ts_recv"], made["ts_recv"]) - 1
    for name in ("ts_event", "price", "size", "side"):
        assert np.array_equal(made[name], trades[name][before]), name


def test_a_consolidated_book_names_its_publishers_and_holds_the_trades_with_their_quotes():
    book, trades, quotes = (ask(market(), s, ["SPY"], "2024-02-05", "2024-02-06", "raw_symbol", dataset=DBEQ)
                            for s in ("cmbp-1", "trades", "tcbbo"))  # fmt: skip
    made = book[book["action"] == b"T"]
    assert len(made) == len(trades) == len(quotes) > 1_000
    for name in quotes.dtype.names:
        assert name == "rtype" or np.array_equal(made[name], quotes[name]), name
        assert name not in EVENT or name == "sequence" or np.array_equal(made[name], trades[name]), name
    assert np.array_equal(trades["publisher_id"], quotes["publisher_id"])
    assert set(trades["publisher_id"]) == {39, 40, 41, 42}
    assert set(book["publisher_id"]) == {39, 40, 41, 42, 59}
    # Who trades is who had the best price.
    hit = np.where(quotes["side"] == b"A", quotes["bid_pb_00"], quotes["ask_pb_00"])
    assert np.array_equal(hit, quotes["publisher_id"])
    assert set(book["bid_pb_00"]) <= {0, 39, 40, 41, 42}
    assert ((book["bid_pb_00"] == 0) == (book["bid_px_00"] == UNDEF)).all()


WINDOWED = [
    (GLBX, s) for s in (*BOOKS, "status", "ohlcv-eod")
] + [(XNAS, s) for s in (*BOOKS, "imbalance", "status", "ohlcv-eod")] + [
    (DBEQ, s) for s in ("trades", "tcbbo", "cmbp-1", "cbbo-1s", "cbbo-1m")
]  # fmt: skip


@pytest.mark.parametrize(("dataset", "schema"), WINDOWED)
def test_any_window_alone_is_the_same_as_cut_from_a_longer_one_and_counted_without_making_it(dataset, schema):
    made = market(4, 0.1, 30)
    symbols, stype = (["ES.FUT", "CL.FUT"], "parent") if dataset == GLBX else (["SPY"], "raw_symbol")
    start, end = "2024-03-13", "2024-03-16"
    selection = select(made, symbols, start, end, stype, dataset)
    whole = gather(made, schema, selection, at(start), at(end), dataset)
    assert made.count(dataset, schema, selection, at(start), at(end)) == len(whole) > 0
    index = "ts_event" if schema.startswith("ohlcv") else "ts_recv"
    time = whole[index].astype(np.int64)
    assert (np.diff(time) >= 0).all()
    rng = np.random.default_rng(len(schema))
    ids = np.unique(whole["instrument_id"])[::2]
    fewer = [r for r in selection if r[0] in set(ids.tolist())]
    edges = [at(start), at(end), *(int(t) + k for t in rng.choice(time, 6) for k in (0, 1))]
    edges += [int(t) for t in rng.integers(at(start), at(end), 4)] + [at("2024-03-14"), at("2024-03-14T14:30:00")]
    for low, high in itertools.pairwise(sorted(edges)):
        cut = whole[(time >= low) & (time < high)]
        found = gather(made, schema, selection, low, high, dataset)
        assert found.tobytes() == cut.tobytes()
        assert made.count(dataset, schema, selection, low, high) == len(cut)
        some = gather(made, schema, fewer, low, high, dataset)
        assert some.tobytes() == cut[np.isin(cut["instrument_id"], ids)].tobytes()
    assert made.planted(dataset, schema, selection, at(start), at(end)) == len(whole) - len(
        gather(market(4, 0.1), schema, selection, at(start), at(end), dataset)
    )


@pytest.mark.parametrize("schema", ["mbo", "mbp-10"])
def test_batches_of_a_book_are_bounded(schema):
    made = market(2, 60.0)
    selection = select(made, ["ES.v.0"], "2024-03-14", "2024-03-15")
    start, end = at("2024-03-14T14:00"), at("2024-03-14T15:00")
    sizes = [len(batch) for batch in made.records(GLBX, schema, selection, start, end)]
    assert sum(sizes) == made.count(GLBX, schema, selection, start, end) > 200_000
    assert max(sizes) < 160_000


@pytest.mark.parametrize("schema", BOOKS)
def test_a_restated_day_has_other_prices_in_its_book_at_the_same_times(schema):
    restated = Market(0, scale=0.05, restated=[day("2024-02-07")], today=TODAY)
    asked = ["ES.FUT", "CL.FUT"], "2024-02-06", "2024-02-09", "parent"
    before, after = (ask(m, schema, *asked) for m in (market(0, 0.05), restated))
    for name in ("ts_recv", "ts_event", "sequence"):
        assert np.array_equal(before[name], after[name])
    # Where the session begins and ends, a price that went up may go down: then the bid moves before the ask.
    assert (before["size"] != after["size"]).mean() < 0.002
    differs = before["price"] != after["price"]
    changed = before["ts_recv"][differs]
    # What goes when its hour is over, and intervals that end with the day, are still of that day.
    assert at("2024-02-07") <= changed.min() < changed.max() < at("2024-02-08T01:00")
    assert differs.mean() > 0.1

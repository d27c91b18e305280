"""What each check takes for an error and what it does not, on frames; and how findings become a ledger."""

import polars as pl
import pytest

from hdi.errors import RequestError
from hdi.frames import DISCREPANCIES
from hdi.model import DAY_NS, MAX_NS, Window
from hdi.reconciled import Judged, keep, known
from hdi.reconciling.bars import chains
from hdi.reconciling.checks import CHECKS, chosen
from hdi.reconciling.findings import FINDING, MANY, Collector, finding, price_text, settled, together
from hdi.reconciling.prices import Grid, Spikes, Ticks
from hdi.reconciling.rows import Copies, Order, StaleBars, StaleQuotes, Twice
from hdi.reconciling.settlements import Settlements

PX = 10**9
MINUTE = 60 * PX
START = 19_724 * DAY_NS
ALWAYS = Window(0, MAX_NS)
SAME = ("ts_event", "sequence", "price", "size")


def told(finder, *frames):
    """(instrument, start, end, field, expected, found) of all that a finder finds in frames."""
    for frame in frames:
        finder.feed(frame)
    finder.done()
    found = finder.collector.found()
    return found.select("instrument_id", "start", "end", "field", "expected", "found").rows()


def cut(frame, rows=7):
    return list(frame.iter_slices(rows))


def ticks(n, at=None, **columns):
    at = [START + k * PX for k in range(n)] if at is None else at
    plain = {"ts_event": [t - 5 for t in at], "sequence": list(range(n)), "price": [100 * PX] * n, "size": [1] * n,
             "instrument_id": [1] * n, "flags": [0] * n, "_unit": [1] * n}  # fmt: skip
    return pl.DataFrame({"at": at, **plain, **columns}).with_columns(pl.lit(1, pl.Int32).alias("publisher_id"))


def bars(closes, instrument=1, step=MINUTE, volume=10):
    n = len(closes)
    return pl.DataFrame({
        "instrument_id": [instrument] * n, "at": [START + k * step for k in range(n)],
        "open": closes, "high": [c + PX for c in closes], "low": [c - PX for c in closes], "close": closes,
        "volume": [volume] * n,
    }).with_columns(pl.lit(1, pl.Int32).alias("publisher_id"))  # fmt: skip


def test_prices_are_told_exactly_and_without_trailing_zeros():
    frame = pl.DataFrame({"p": [4770250000000, -1, 0, -37_630_000_000, PX, 10**18 + 1]})
    assert frame.select(price_text("p")).to_series().to_list() == [
        "4770.25", "-0.000000001", "0", "-37.63", "1", "1000000000.000000001",
    ]  # fmt: skip


def test_fills_of_one_order_that_are_equal_are_no_copies_and_an_hour_that_came_twice_is():
    def copies():
        return Copies("trades", Collector(), ALWAYS, SAME, 40.0, 20)

    burst = ticks(100, sequence=[k // 4 for k in range(100)], at=[START + k // 4 * PX for k in range(100)],
                  size=[k % 3 for k in range(100)])  # fmt: skip
    assert told(copies(), *cut(burst)) == []
    clean = ticks(100)
    twice = pl.concat([clean, clean.head(90)]).sort("at", maintain_order=True)
    hour = (START, START + 60 * MINUTE)
    for size in (1, 7, 1_000):
        assert told(copies(), *cut(twice, size)) == [
            (1, *hour, "copies", "100 rows, all different", "190 rows, 90 of them copies")
        ]  # fmt: skip
    few = pl.concat([clean, clean.head(5)]).sort("at", maintain_order=True)
    assert told(copies(), few) == []
    by_two = pl.concat([clean, clean.head(1).with_columns(_unit=pl.lit(2, pl.Int64))]).sort("at", maintain_order=True)
    assert [row[5] for row in told(copies(), by_two)] == ["101 rows, 1 of them copies"]


def test_a_row_is_late_only_when_its_number_and_its_time_are_older_than_those_of_the_row_before():
    def order():
        return Order("trades", Collector(), flags=True)

    clean = ticks(20)
    assert told(order(), *cut(clean)) == []
    again = ticks(20, sequence=[*range(1_000, 1_010), *range(10)])  # a new week counts anew
    assert told(order(), *cut(again)) == []
    clocks = clean.with_columns(ts_event=pl.when(pl.col("sequence") == 5).then(START).otherwise("ts_event"))
    assert told(order(), *cut(clocks)) == []
    late = ticks(20, sequence=[0, 1, 2, 3, 4, 9, 5, 6, *range(10, 22)],
                 ts_event=[START + s for s in (0, 1, 2, 3, 4, 9, 5, 6, *range(10, 22))])  # fmt: skip
    for size in (1, 6, 7, 100):
        assert told(order(), *cut(late, size)) == [(1, START + 6 * PX, START + 6 * PX + 1, "sequence", "above 9", "5")]
    snapshot = late.with_columns(flags=pl.when(pl.col("sequence") == 5).then(40).otherwise("flags"))
    assert [row[1] for row in told(order(), *cut(snapshot))] == [START + 7 * PX]
    other = late.with_columns(instrument_id=pl.when(pl.col("sequence") == 5).then(2).otherwise("instrument_id"))
    assert [row[0] for row in told(order(), *cut(other))] == [1]


def test_equal_bars_in_a_row_are_stale_when_they_have_a_range():
    def stale():
        return StaleBars("ohlcv-1m", Collector(), MINUTE, 10)

    run = bars([*range(20), *[50 * PX] * 10, *range(20)])
    for size in (1, 7, 25, 100):
        assert told(stale(), *cut(run, size)) == [
            (1, START + 20 * MINUTE, START + 30 * MINUTE, "bar", "less than 10 equal bars in a row", "10 equal bars")
        ]  # fmt: skip
    assert told(stale(), *cut(bars([*range(20), *[50 * PX] * 9, *range(20)]))) == []
    flat = bars([50 * PX] * 40).with_columns(high=pl.col("close"), low=pl.col("close"))
    assert told(stale(), flat) == []
    two = pl.concat([bars([5 * PX] * 9), bars([5 * PX] * 9, 2)]).sort("at")
    assert told(stale(), *cut(two)) == []


def test_a_quote_that_never_changes_through_a_day_of_trades_is_stale():
    def quoted(sizes):
        n = len(sizes)
        return ticks(n).with_columns(
            bid_px_00=pl.lit(99 * PX), ask_px_00=pl.lit(101 * PX), bid_sz_00=pl.Series(sizes), ask_sz_00=pl.lit(4),
        )  # fmt: skip

    found = told(StaleQuotes("tbbo", Collector(), ALWAYS, 100), *cut(quoted([7] * 100)))
    assert found == [(1, START, START + DAY_NS, "quote", "a quote that changes", "100 rows with one quote")]
    assert told(StaleQuotes("tbbo", Collector(), ALWAYS, 100), *cut(quoted([7] * 99 + [8]))) == []
    assert told(StaleQuotes("tbbo", Collector(), ALWAYS, 100), *cut(quoted([7] * 99))) == []


def test_two_bars_of_one_interval_are_told_however_they_come():
    frame = bars(list(range(5)))
    twice = pl.concat([frame, frame.slice(3, 1)]).sort("at")
    for size in (1, 4, 100):
        assert told(Twice("ohlcv-1m", Collector(), MINUTE), *cut(twice, size)) == [
            (1, START + 3 * MINUTE, START + 4 * MINUTE, "bar", "1 bar", "2 bars")
        ]  # fmt: skip


def test_a_spike_leaves_both_neighbours_far_and_a_move_that_stays_is_none():
    def spikes(step=MINUTE):
        return Spikes("ohlcv-1m", Collector(), step, 50)

    walk = [(k * 7919 % 5 - 2) * PX // 4 for k in range(100)]  # around zero: prices may be negative
    assert told(spikes(), *cut(bars(walk))) == []
    assert told(spikes(), *cut(bars([c + (k > 50) * 500 * PX for k, c in enumerate(walk)]))) == []
    high = bars(walk).with_columns(high=pl.when(pl.col("at") == START + 60 * MINUTE).then(900 * PX).otherwise("high"))
    for size in (1, 7, 100):
        (one,) = told(spikes(), *cut(high, size))
        assert (one[1], one[3], one[5]) == (START + 60 * MINUTE, "high_price", "900")
    low = [c - (k == 70) * 900 * PX for k, c in enumerate(walk)]
    (one,) = told(spikes(), *cut(bars(low)))
    assert (one[1], one[3]) == (START + 70 * MINUTE, "low_price")
    # The last bar of a day has the first one of the next as its neighbour.
    days = bars([c + (k == 47) * 900 * PX for k, c in enumerate(walk)], step=30 * MINUTE)
    assert [row[1] for row in told(spikes(30 * MINUTE), *cut(days))] == [START + 47 * 30 * MINUTE]


def standing(check, *places):
    """Open discrepancies of a check at these instants, of instrument 1."""
    return pl.DataFrame({"start": places}).select(
        "start", publisher_id=pl.lit(1, pl.Int32), instrument_id=pl.lit(1, pl.Int64), check=pl.lit(check),
        schema=pl.lit("ohlcv-1m"),
    )  # fmt: skip


def test_a_bar_without_neighbours_or_without_a_usual_move_is_counted_as_not_judged_and_stays_open():
    walk = [(k * 7919 % 5 - 2) * PX // 4 for k in range(40)]
    few = bars(walk[:20], instrument=2)
    last = START + 39 * MINUTE
    places = standing("price_spike", START, START + 5 * MINUTE, last, START + 5_000 * MINUTE)
    finder = Spikes("ohlcv-1m", Collector(), MINUTE, 50, places)
    assert told(finder, *cut(pl.concat([bars(walk), few]).sort("at"))) == []
    assert finder.count.judged == 38
    assert sorted(finder.count.unjudged.values()) == [2, 20]
    # The first and the last bar were read and not judged; one between them was, and one that is gone is none.
    assert finder.doubtful(places.sort("start")).to_list() == [True, False, True, False]
    order = Order("ohlcv-1m", Collector(), standing("out_of_order", START, START + PX), flags=True)
    told(order, *cut(ticks(20)))
    assert order.doubtful(standing("out_of_order", START, START + PX).sort("start")).to_list() == [True, False]
    assert (order.count.judged, sum(order.count.unjudged.values())) == (19, 1)


def test_an_hour_or_a_day_that_the_window_cuts_is_not_judged():
    clean = ticks(100)
    twice = pl.concat([clean, clean]).sort("at", maintain_order=True)
    for window in (Window(START + PX, MAX_NS), Window(0, START + 100 * PX)):
        copies = Copies("trades", Collector(), window, SAME, 40.0, 20)
        assert told(copies, *cut(twice)) == []
        assert (copies.count.judged, sum(copies.count.unjudged.values())) == (0, 200)
    assert told(Copies("trades", Collector(), Window(START, START + 60 * MINUTE), SAME, 40.0, 20), *cut(twice))


def test_prices_are_judged_by_the_tick_in_force_and_by_none_where_it_changes():
    known = pl.DataFrame({"instrument_id": [1, 1], "start": [START, START + DAY_NS],
                          "end": [START + DAY_NS, START + 2 * DAY_NS], "tick": [PX // 4, PX // 100]})  # fmt: skip
    at = [START, START + 1, START + DAY_NS, START + DAY_NS + 1, START + 2 * DAY_NS]
    prices = [-PX // 4, PX // 100, PX // 100, PX // 1000, 1]
    grid = Grid("trades", Collector(), Ticks(known), {"price": "price"}, 0)
    assert told(grid, ticks(5, at, price=prices)) == [
        (1, START + 1, START + 2, "price", "a multiple of 0.25", "0.01"),
        (1, START + DAY_NS + 1, START + DAY_NS + 2, "price", "a multiple of 0.01", "0.001"),
    ]
    assert (grid.count.judged, sum(grid.count.unjudged.values())) == (4, 1)
    wide = Grid("ohlcv-1d", Collector(), Ticks(known), {"price": "price"}, DAY_NS)
    assert [row[1] for row in told(wide, ticks(2, [START, START + DAY_NS - MINUTE], price=[1, 1]))] == [START]


def statistics(*rows):
    """(kind, price, flags, action) of one trading date, in order."""
    return pl.DataFrame({
        "instrument_id": [1] * len(rows), "at": [START + DAY_NS + k for k in range(len(rows))],
        "stat_type": [r[0] for r in rows], "price": [None if r[1] is None else r[1] * PX for r in rows],
        "stat_flags": [r[2] for r in rows], "update_action": [r[3] for r in rows], "ts_ref": [START] * len(rows),
    }, schema_overrides={"price": pl.Int64}).with_columns(pl.lit(1, pl.Int32).alias("publisher_id"))  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "checks"),
    [
        ([(3, 100, 1, 1), (3, 100, 1, 1)], []),
        ([(3, 100, 1, 1), (3, 101, 3, 1)], []),  # rounded to the tick, and not
        ([(3, 100, 1, 1), (3, None, 1, 2), (3, 107, 1, 1)], []),  # deleted, and published again
        ([(3, 100, 1, 1), (3, 107, 1, 1)], ["settlement_final"]),
        ([(4, 99, 0, 1), (5, 101, 0, 1), (3, 100, 0, 1), (3, 104, 1, 1)], []),
        ([(4, 99, 0, 1), (5, 101, 0, 1), (3, 100, 0, 1), (3, 107, 1, 1)], ["settlement_preliminary"]),
        ([(4, 99, 0, 1), (5, 101, 0, 1), (3, 100, 0, 1), (3, 107, 1, 1), (3, 101, 3, 1)], []),
        ([(3, 107, 0, 1), (3, 100, 1, 1)], []),  # no range to compare with
        ([(3, 120, 1, 1)], ["settlement_bar"]),
        ([(3, 107, 1, 1)], []),
    ],
)
def test_settlements_differ_only_from_what_means_the_same(rows, checks):
    own = Collector()
    names = frozenset(n for n in CHECKS if n.startswith("settlement"))
    judge = Settlements(own, names, ranges=3, volume=1_000)
    day = bars([100 * PX], volume=5_000)
    quiet = bars([100 * PX], volume=10)
    judge.look(statistics(*rows), day if "settlement_bar" in checks or len(rows) == 1 else quiet)
    assert own.found()["check"].to_list() == checks


def found(*places):
    rows = pl.DataFrame({"start": places}, schema={"start": pl.Int64}).with_columns(instrument_id=pl.lit(1))
    placed = rows.with_columns(end=pl.col("start") + 1, publisher_id=pl.lit(1))
    return finding(placed, "tick_size", "trades", field="price", expected="1", found="2")


def test_many_findings_of_a_day_are_told_as_one_that_says_how_many():
    few = together(found(*range(START, START + MANY)))
    assert few.height == MANY
    many = together(pl.concat([found(*range(START, START + MANY + 5)), found(START + DAY_NS)]))
    assert many.select("start", "end", "field", "found", "rows").rows() == [
        (START + DAY_NS, START + DAY_NS + 1, "price", "2", 1),
        (START, START + DAY_NS, "rows", f"{MANY + 5} that differ", MANY + 5),
    ]
    own = Collector()
    for k in range(3):
        own.add(found(*range(START + k * 40_000, START + (k + 1) * 40_000)))
    assert own.found().select("rows", "found").rows() == [(120_000, "120000 that differ")]


def test_the_ledger_says_nothing_twice_and_resolves_only_what_was_judged():
    def run(known, places, judged, name):
        new = found(*places).with_columns(symbol=pl.lit("ESH4"))
        scope = {("tick_size", "trades", ""): lambda rows: rows["start"].is_in(list(judged))}
        return settled(known, new, "GLBX.MDP3", scope.items(), name, int(name))

    first = run(pl.DataFrame(schema=DISCREPANCIES), [1, 2, 3], [1, 2, 3], "10")
    assert first.select("number", "start", "state", "run").rows() == [
        (1, 1, "open", "10"), (2, 2, "open", "10"), (3, 3, "open", "10"),
    ]  # fmt: skip
    again = run(first, [1, 2, 3], [1, 2, 3], "11")
    assert again.height == 3
    assert (set(again["run"]), set(again["last_run"]), set(again["first_seen"])) == ({"10"}, {"11"}, {10})
    part = run(again, [1], [1, 2], "12")
    assert part.select("start", "state", "resolved_run").rows() == [
        (1, "open", None), (2, "resolved", "12"), (3, "open", None),
    ]  # fmt: skip
    back = run(part, [1, 2], [1, 2, 3], "13")
    assert back.select("number", "start", "state", "resolved_run").rows() == [
        (1, 1, "open", None), (2, 2, "resolved", "12"), (3, 3, "resolved", "13"), (4, 2, "open", None),
    ]  # fmt: skip
    assert back.schema == DISCREPANCIES


def test_what_a_window_has_of_a_longer_run_is_that_run_and_a_run_that_was_judged_whole_gives_way():
    def run(known, stretch, name, *, judged):
        rows = pl.DataFrame({"start": [stretch[0]], "end": [stretch[1]], "instrument_id": [1], "publisher_id": [1]})
        new = finding(rows, "stale_bars", "ohlcv-1m", field="bar", expected="less than 10 equal bars in a row",
                      found=f"{stretch[1] - stretch[0]} equal bars", evidence="the bar")  # fmt: skip
        scope = {("stale_bars", "ohlcv-1m", ""): lambda rows: pl.Series([judged] * rows.height)}
        return settled(known, new.with_columns(symbol=pl.lit("ESH4")), "GLBX.MDP3", scope.items(), name, int(name))

    long = run(pl.DataFrame(schema=DISCREPANCIES), (10, 40), "10", judged=True)
    part = run(long, (20, 40), "11", judged=False)
    assert part.select("start", "end", "state", "last_run").rows() == [(10, 40, "open", "11")]
    shorter = run(part, (20, 40), "12", judged=True)
    assert shorter.select("start", "state").rows() == [(10, "resolved"), (20, "open")]


def test_a_reconciliation_is_on_record_for_its_store_even_after_a_line_that_was_torn(tmp_path):
    def done(run, identity="lake:1", symbols=()):
        rows = {("GLBX.MDP3", "ohlcv-1d"): {"bars": 7, "tick_size": 0}}
        return Judged(run, START + 1, identity, Window(START, START + DAY_NS), symbols, rows)

    assert known(tmp_path, "lake:1") == []
    keep(tmp_path, done("a"))
    with (tmp_path / "reconciled.jsonl").open("ab") as file:
        file.write(b'{"format": 1, "run": "torn')
    keep(tmp_path, done("b", symbols=("ES.c.0",)))
    keep(tmp_path, done("c", "lake:2"))
    first, second = known(tmp_path, "lake:1")
    assert (first, second) == (done("a"), done("b", symbols=("ES.c.0",)))
    assert first.of("GLBX.MDP3", "ohlcv-1d") == {"bars": 7}
    near, far = Window(START + 5, START + 6), Window(START + DAY_NS, START + DAY_NS + 1)
    assert first.about("GLBX.MDP3", "ohlcv-1d", ("CL.c.0",), near)
    assert not first.about("GLBX.MDP3", "ohlcv-1d", (), far)
    assert not first.about("GLBX.MDP3", "trades", (), near)
    assert not second.about("GLBX.MDP3", "ohlcv-1d", ("CL.c.0",), near)


def test_widths_are_folded_in_as_few_readings_as_there_can_be():
    assert chains([60, 1, 3600]) == [[1, 60, 3600]]
    assert chains([2, 3, 6, 4]) == [[2, 4], [3, 6]]


def test_an_unknown_check_is_refused_with_the_closest_names():
    assert set(chosen([])) == set(CHECKS)
    assert set(chosen(["tick-size, price_spike"])) == {"tick_size", "price_spike"}
    with pytest.raises(RequestError) as error:
        chosen(["tik_size"])
    assert "tick_size" in error.value.hint


def test_a_finding_has_the_columns_of_all_findings():
    assert found(1).schema == FINDING

"""What should be there, and how what is found of a stretch becomes a cause: pure functions on frames."""

import datetime as dt

import polars as pl
import pytest

from hdi.frames import CONDITIONS, COVERAGE, LEDGER
from hdi.gaps.asking import Target, targets, unasked
from hdi.gaps.causes import GAPS, judged, told
from hdi.gaps.grid import DAY_NS, HOUR_NS, STRETCHES, Grain, expected, grain, lacking, runs, stretches, whole_time
from hdi.gaps.said import conditions
from hdi.lookup import RECTANGLES
from hdi.model import MAX_NS, Window, date_ns
from hdi.testing.material import schemas

DAY = date_ns(dt.date(2024, 1, 9))
HOURS, ANY, DAYS, CLOSES = (
    Grain(HOUR_NS, "start"),
    Grain(HOUR_NS, "any"),
    Grain(DAY_NS, "start"),
    Grain(DAY_NS, "close"),
)
#: From 23:00 the day before to 18:15, and from 23:00 on.
SESSIONS = pl.DataFrame(
    {"open": [DAY - HOUR_NS, DAY + 23 * HOUR_NS], "close": [DAY + 18 * HOUR_NS + HOUR_NS // 4, DAY + 46 * HOUR_NS]}
)
EVER = Window(0, MAX_NS)


def hours(frame, column="at"):
    return [(value - DAY) / HOUR_NS for value in frame[column]]


def test_hours_are_those_of_sessions_cut_at_their_ends():
    found = stretches(SESSIONS, ANY, Window(DAY, DAY + DAY_NS))
    assert hours(found) == [*range(19), 23]
    assert hours(found, "high")[18] == 18.25
    assert found["ord"].to_list() == list(range(20))


def test_days_are_those_that_a_session_touches_and_statistics_come_when_one_closes():
    assert hours(stretches(SESSIONS, DAYS, EVER)) == [-24, 0, 24]
    assert hours(stretches(SESSIONS, CLOSES, EVER)) == [0, 24]


@pytest.mark.parametrize(
    ("given", "start", "end", "at"),
    [
        (ANY, 0.5, 3, [0, 1, 2]),
        (HOURS, 0.5, 3, [1, 2]),
        (HOURS, 0, 2.5, [0, 1, 2]),
        (ANY, 18.5, 23, []),
        (ANY, 18, 23.5, [18, 23]),
        (DAYS, 0, 24, [0]),
        (DAYS, 1, 24, []),
        (CLOSES, 0, 24, [0]),
        (CLOSES, 0, 23, []),
    ],
)
def test_a_rectangle_has_the_stretches_whose_rows_would_lie_in_it(given, start, end, at):
    rectangle = pl.DataFrame(
        {"instrument_id": [7], "start": [DAY + int(start * HOUR_NS)], "end": [DAY + int(end * HOUR_NS)]}
    )
    (frame,) = expected(rectangle, stretches(SESSIONS, given, EVER), given)
    assert hours(frame) == at
    assert frame["first"].to_list() == [i == 0 for i in range(len(at))]
    assert frame["last"].to_list() == [i == len(at) - 1 for i in range(len(at))]


def test_many_rectangles_come_in_bounded_frames(monkeypatch):
    monkeypatch.setattr("hdi.gaps.grid.MOST", 50)
    rectangles = pl.DataFrame(
        {"instrument_id": range(30), "start": [DAY] * 30, "end": [DAY + DAY_NS] * 30}, schema_overrides=dict.fromkeys(
            ("instrument_id", "start", "end"), pl.Int64
        )
    )  # fmt: skip
    frames = list(expected(rectangles, stretches(SESSIONS, ANY, EVER), ANY))
    assert len(frames) == 15
    assert pl.concat(frames).group_by("instrument_id").len()["len"].to_list() == [20] * 30


def test_a_market_without_a_calendar_is_always_expected_to_be_open():
    assert hours(stretches(whole_time(Window(DAY, DAY + 3 * HOUR_NS)), ANY, EVER)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("schema", "daily"), [("ohlcv-1s", False), ("ohlcv-1m", False), ("ohlcv-1h", False), ("trades", False),
                          ("tbbo", False), ("mbo", False), ("bbo-1m", False), ("ohlcv-1d", True), ("statistics", True),
                          ("definition", True), ("ohlcv-eod", True), ("status", True), ("imbalance", True)],
)  # fmt: skip
def test_days_are_looked_at_for_what_comes_by_the_day(schema, daily):
    assert grain(schemas().find(schema)[1]).daily is daily


def test_rows_are_looked_for_when_their_schema_has_some():
    rhythms = {n: grain(schemas().find(n)[1]).rhythm for n in schemas().stored_names}
    assert {n for n, r in rhythms.items() if r == "never"} == {"status", "imbalance"}
    assert {n for n, r in rhythms.items() if r == "close"} == {"statistics", "ohlcv-eod"}
    assert {n for n, r in rhythms.items() if r == "start"} == {"ohlcv-1h", "ohlcv-1d", "definition"}


def test_neighbours_that_agree_are_one_run():
    frame = pl.DataFrame({"instrument_id": [1, 1, 1, 1, 2], "ord": [4, 1, 2, 5, 6], "cause": ["b", "a", "a", "c", "c"]})
    assert runs(frame, "cause")["run"].to_list() == [1, 1, 2, 3, 4]
    assert runs(frame)["run"].to_list() == [1, 1, 2, 2, 3]
    content = pl.DataFrame({"instrument_id": [1], "at": [3]})
    wanted = pl.DataFrame({"instrument_id": [1, 2], "at": [3, 3]})
    assert lacking(wanted, content).rows() == [(2, 3)]


PLAIN = {
    "instrument_id": 7, "symbol": "ESH4", "at": DAY, "low": DAY, "high": DAY + HOUR_NS, "day": DAY, "first": False,
    "last": False, "life_start": DAY - DAY_NS, "life_end": DAY + DAY_NS, "unit": 1, "u_symbol": "ESH4", "fetched": 100,
    "condition": "available", "modified": DAY, "condition_now": "available", "modified_now": DAY, "rejected": 0,
    "rules": "", "gone": None, "kept": 0, "unread": None, "activation": None, "expiration": None, "ending": False,
    "beginning": False, "agree": "", "where": "", "elsewhere": 0, "proven": False, "short": False, "lacks": False,
    "day_volume": None, "day_held": None, "cleared": None, "cleared_held": None, "touched": None, "alone": False,
    "expected": 1000, "lacking": 1, "summed": False, "counted": True, "made": False, "u_start": DAY - DAY_NS,
    "u_end": DAY + DAY_NS,
}  # fmt: skip
TYPES = {
    name: pl.Boolean
    if isinstance(value, bool)
    else pl.String
    if isinstance(value, str) or name == "unread"
    else pl.Int64
    for name, value in PLAIN.items()
}


def empties(*changes):
    rows = [PLAIN | {"ord": 2 * number} | change for number, change in enumerate(changes)]
    return pl.DataFrame(rows, schema=TYPES | {"ord": pl.Int64})


def verdict(**change):
    (row,) = judged(empties(change)).iter_rows(named=True)
    return row["cause"], row["certainty"], row["fill"]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({}, ("unknown", "", "")),
        ({"rejected": 3, "condition": "degraded"}, ("quarantined", "certain", "")),
        ({"expiration": DAY - 1}, ("expired", "certain", "")),
        ({"expiration": DAY + 1}, ("unknown", "", "")),
        # Some venues stamp an expiry at the midnight before the last day of trading.
        ({"expiration": DAY}, ("unknown", "", "")),
        ({"expiration": DAY - DAY_NS}, ("expired", "certain", "")),
        ({"activation": DAY + HOUR_NS}, ("not listed", "certain", "")),
        ({"activation": DAY + HOUR_NS - 1}, ("unknown", "", "")),
        ({"gone": 5, "kept": 5}, ("our failure", "certain", "refine")),
        ({"gone": 5, "unread": "gone too"}, ("our failure", "likely", "again")),
        ({"gone": 5}, ("unknown", "", "")),
        ({"gone": -5, "unread": "gone too"}, ("unknown", "", "")),
        ({"proven": True}, ("no trade", "certain", "")),
        ({"proven": True, "lacks": True}, ("no trade", "likely", "")),
        ({"proven": True, "elsewhere": 1}, ("unknown", "", "")),
        ({"proven": True, "condition": None, "condition_now": None}, ("no trade", "likely", "")),
        ({"proven": True, "condition": "degraded", "condition_now": "degraded"}, ("no trade", "likely", "")),
        ({"proven": True, "condition": "missing", "condition_now": "missing"}, ("missing", "likely", "changed")),
        ({"condition": "missing", "condition_now": "missing", "alone": True}, ("missing", "certain", "changed")),
        ({"condition": "missing", "alone": True}, ("missing", "certain", "again")),
        ({"condition": "degraded", "condition_now": "degraded"}, ("degraded", "likely", "changed")),
        ({"condition": "degraded", "condition_now": "degraded", "modified_now": DAY + 1},
         ("degraded", "likely", "again")),
        ({"condition": "degraded", "elsewhere": 2}, ("degraded", "certain", "again")),
        ({"condition": "pending", "condition_now": "pending"}, ("pending", "likely", "changed")),
        ({"ending": True}, ("expired", "likely", "")),
        ({"beginning": True}, ("not listed", "likely", "")),
        ({"agree": "ohlcv-1h"}, ("no trade", "likely", "")),
        ({"agree": "ohlcv-1h", "short": True}, ("unknown", "", "")),
        ({"agree": "ohlcv-1h", "elsewhere": 4}, ("unknown", "", "")),
        ({"fetched": 0}, ("no trade", "likely", "")),
        # An order that was cut to the gap, and bars that were made here, count nothing of their own.
        ({"fetched": 0, "counted": False}, ("unknown", "", "")),
        ({"agree": "ohlcv-1m", "made": True}, ("unknown", "", "")),
        ({"agree": "ohlcv-1m, trades", "made": True}, ("no trade", "likely", "")),
        # The vendor makes its daily bar of the same trades that may be lost.
        ({"summed": True}, ("no trade", "likely", "")),
        ({"summed": True, "condition": "degraded", "condition_now": "degraded"}, ("degraded", "likely", "changed")),
        ({"rejected": 1, "gone": 54, "kept": 55}, ("our failure", "certain", "refine")),
        ({"rejected": 3, "gone": 5, "kept": 3}, ("quarantined", "certain", "")),
        ({"rejected": 3, "gone": 5, "unread": "gone too"}, ("our failure", "likely", "again")),
        ({"rejected": 3, "unread": "gone too"}, ("quarantined", "likely", "")),
        ({"gone": 5, "unread": "gone too", "condition": "degraded", "elsewhere": 2},
         ("our failure", "likely", "again")),
        ({"gone": 5, "unread": "gone too", "condition": "missing", "condition_now": "missing", "alone": True},
         ("our failure", "likely", "again")),
        ({"unread": "gone too", "condition": "degraded", "elsewhere": 2}, ("degraded", "likely", "again")),
    ],
)  # fmt: skip
def test_a_cause_is_certain_only_where_a_fact_proves_it(change, cause):
    assert verdict(**change) == cause


def test_gaps_as_long_as_many_others_of_the_instrument_are_likely_no_trade():
    often = [{"lacking": 40}] * 4
    assert set(judged(empties(*often))["cause"]) == {"no trade"}
    assert set(judged(empties(*often))["certainty"]) == {"likely"}
    assert set(judged(empties(*[{"lacking": 4}] * 4))["cause"]) == {"unknown"}
    assert set(judged(empties(*often[:3]))["cause"]) == {"unknown"}
    lost = judged(empties(*often, {"lacking": 40, "elsewhere": 1})).sort("ord")["cause"].to_list()
    assert lost == ["no trade"] * 4 + ["unknown"]


def test_neighbours_of_one_cause_are_one_gap_with_their_numbers_added_up():
    rows = [{"ord": n, "rejected": 2, "rules": "BAD", "low": DAY + n * HOUR_NS, "high": DAY + (n + 1) * HOUR_NS}
            for n in range(3)]  # fmt: skip
    gaps = told(judged(empties(*rows)), "GLBX.MDP3", "ohlcv-1h")
    assert dict(gaps.schema) == GAPS
    (gap,) = gaps.iter_rows(named=True)
    assert (gap["start"], gap["end"], gap["stretches"]) == (DAY, DAY + 3 * HOUR_NS, 3)
    assert gap["evidence"] == ["6 rows of it are in quarantine (BAD), and none is stored"]


def covered(*rows):
    return pl.DataFrame(
        [{"unit": 1, "dataset": "D", "schema": schema, "symbol": symbol, "stype": "raw_symbol", "instrument_id": number,
          "start": start, "end": end} for schema, symbol, number, start, end in rows], schema=COVERAGE,
    )  # fmt: skip


def rectangles(*rows):
    return pl.DataFrame([("D", *row) for row in rows], schema=RECTANGLES, orient="row")


def ledger(*rows):
    return pl.DataFrame(
        [{"unit": n, "unit_id": str(n), "symbol": "A", "status": status, "start": start, "end": end, "error": "why",
          "exit_code": 3, "batch": "JOB-1", "committed_at": DAY} for n, (status, start, end) in enumerate(rows)],
        schema=LEDGER,
    )  # fmt: skip


def causes(symbol="A", own=(), cover=(), books=()):
    lacks = unasked(
        Target("D", "S", "raw_symbol", symbol, Window(0, 100)), rectangles(*own), covered(*cover), ledger(*books)
    )
    return [(lack.cause, lack.window.start, lack.window.end) for lack in lacks]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, [("never requested", 0, 100)]),
        ({"cover": [("S", "A", None, 0, 40)], "own": [(7, 0, 40)]}, [("never requested", 40, 100)]),
        ({"cover": [("S", "A", None, 0, 100)], "own": [(7, 20, 60)]}, [("not listed", 0, 20), ("expired", 60, 100)]),
        # Held as something else: all of its instruments are.
        ({"cover": [("S", "B", 7, 0, 100)], "own": [(7, 0, 100)]}, []),
        ({"cover": [("S", "B", 7, 30, 100)], "own": [(7, 0, 100)]}, [("never requested", 0, 30)]),
        # Another schema says when it stands for something.
        ({"cover": [("T", "A", None, 0, 100)], "own": [(7, 20, 60)]},
         [("never requested", 20, 60), ("not listed", 0, 20), ("expired", 60, 100)]),
        # What all symbols brought is held, and says not what stood for nothing.
        ({"cover": [("S", "ALL_SYMBOLS", None, 0, 100)], "own": [(7, 20, 60)]}, []),
        ({"books": [("failed", 10, 20), ("ordered", 20, 30)]},
         [("our failure", 10, 20), ("ordered", 20, 30), ("never requested", 0, 10), ("never requested", 30, 100)]),
    ],
)  # fmt: skip
def test_what_nothing_is_held_of_is_told_apart(given, found):
    assert sorted(causes(**given)) == sorted(found)


def test_that_a_batch_job_was_ordered_is_known_and_whether_it_is_prepared_is_not():
    target = Target("D", "S", "raw_symbol", "A", Window(0, 100))
    [lack] = unasked(target, rectangles(), covered(), ledger(("ordered", 0, 100)))
    assert (lack.cause, lack.certainty, lack.fill) == ("ordered", "likely", "")
    assert lack.evidence.startswith("ordered as batch job JOB-1 on ")


def test_a_contract_is_not_listed_where_its_parent_was_asked_for_without_it():
    found = causes("ESH4", [(7, 20, 60)], [("S", "ES.FUT", None, 0, 100), ("S", "ES.FUT", 7, 20, 60)])
    assert found == [("not listed", 0, 20), ("expired", 60, 100)]


def looked(window, *, whole, ids=()):
    """What is looked at of a symbol asked for from 20 to 60, and of an id asked for from 30 to 50."""
    books = ledger(("complete", 20, 60), ("complete", 30, 50)).with_columns(
        dataset=pl.lit("D"),
        schema=pl.lit("S"),
        symbol=pl.Series(["A", "7"]),
        stype=pl.Series(["raw_symbol", "instrument_id"]),
    )
    lives = pl.DataFrame(ids, schema={"dataset": pl.String, "symbol": pl.String, "start": pl.Int64, "end": pl.Int64},
                         orient="row")  # fmt: skip
    found = targets(covered(), books, None, schemas=(), dataset=None, window=window, until=90, whole=whole, lives=lives)
    return {each.symbol: (each.window.start, each.window.end) for each in found}


def test_a_window_with_an_open_side_only_limits_what_was_asked_for():
    assert looked(None, whole=False) == {"A": (20, 60), "7": (30, 50)}
    assert looked(Window(0, 40), whole=False) == {"A": (20, 40), "7": (30, 40)}
    assert looked(Window(55, 90), whole=False) == {"A": (55, 60)}
    assert looked(Window(0, 90), whole=True)["A"] == (0, 90)


def test_an_instrument_is_not_looked_for_by_its_id_beyond_its_known_life():
    assert looked(Window(0, 90), whole=True, ids=[("D", "7", 25, 55)])["7"] == (25, 55)
    assert looked(Window(0, 90), whole=True)["7"] == (30, 50)


def test_what_the_vendor_said_is_what_a_unit_was_bought_with_and_not_what_was_heard_until_its_commit():
    books = ledger(("complete", DAY, DAY + DAY_NS)).with_columns(
        committed_at=pl.lit(300, pl.Int64), conditions=pl.lit(
            '[{"day": "2024-01-09", "condition": "degraded", "last_modified": null}]'),
    )  # fmt: skip
    heard = pl.DataFrame(
        [("D", DAY, "degraded", None, 100), ("D", DAY, "available", DAY, 200)], schema=CONDITIONS, orient="row"
    )
    empty = pl.DataFrame(
        {"unit": [0, 8], "at": [DAY, DAY], "committed_at": [300, 300]},
        schema={"unit": pl.Int32, "at": pl.Int64, "committed_at": pl.Int64},
    )
    found = conditions(empty, heard, books, "D").sort("unit")
    assert found["condition"].to_list() == ["degraded", "available"]
    assert found["condition_now"].to_list() == ["available", "available"]


def test_stretches_have_the_declared_types():
    assert dict(stretches(SESSIONS, ANY, EVER).schema) == STRETCHES

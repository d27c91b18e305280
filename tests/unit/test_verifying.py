"""What a verification makes of what it measures: passes, failures, what was not measured, weights and the file."""

import datetime as dt
import json
from types import SimpleNamespace

import polars as pl
import pytest

from hdi.api.measuring import lacked
from hdi.errors import RequestError, UnknownSymbol
from hdi.frames import LEDGER
from hdi.model import DAY_NS, date_ns
from hdi.verifying import ROOTS, WEIGHTS, World, month_of, sound, stable, verify
from hdi.verifying.results import document, last, write

LAST = date_ns(dt.date(2024, 6, 28))
TESTS = tuple(WEIGHTS)


def days(count):
    return [LAST - n * DAY_NS for n in reversed(range(count))]


def ledger(*rows):
    blank = dict.fromkeys(LEDGER)
    return pl.DataFrame([blank | row for row in rows], schema=LEDGER)


def unit(name, fetched, quarantined, status="complete", stored=None):
    stored = fetched - quarantined if stored is None else stored
    return {"unit_id": name, "status": status, "fetched": fetched, "stored": stored, "quarantined": quarantined}


def world(**other):
    """A store that keeps every promise, but for what is said."""
    good = {
        "ledger": lambda: ledger(unit("a", 1000, 1)),
        "runs": lambda: [SimpleNamespace(status="done")],
        "bars": lambda symbol: days(370) if symbol.endswith(".c.0") else [],
        "held": lambda *_: True,
        "lacking": lambda *_: (0, ""),
        "command": lambda *_: (0, 0.5, ""),
    }
    return World(**(good | other))


def states(found):
    return {test.name: test.state for test in found}


def result(found):
    return document(found, {"ended": "now", "store": "lake:x", "synthetic": False})


def never(*_):
    raise UnknownSymbol("never stored")


def test_a_store_that_keeps_every_promise_passes_with_all_of_the_weight():
    found = verify(world())
    assert set(states(found).values()) == {"pass"}
    summary = result(found)["executive_summary"]
    assert (summary["overall"], summary["score"], summary["passed"]) == ("pass", 100.0, True)


def test_an_empty_store_is_not_measured_and_scores_nothing():
    found = verify(world(ledger=ledger, runs=list, bars=never, held=never))
    assert set(states(found).values()) == {"not measured"}
    summary = result(found)["executive_summary"]
    assert (summary["overall"], summary["score"], summary["passed"]) == ("not measured", 0, False)
    assert len(summary["not_measured"]) == summary["checks"]["not measured"] == 34


def test_what_is_not_measured_is_no_pass_beside_tests_that_pass():
    found = verify(world(runs=list))
    assert states(found)["operational_stability"] == "not measured"
    summary = result(found)["executive_summary"]
    assert (summary["overall"], summary["score"]) == ("not measured", 90.0)


@pytest.mark.parametrize(
    ("other", "test"),
    [
        ({"bars": lambda _: days(200)}, "data_availability"),
        ({"lacking": lambda symbol, *_: (int(symbol == "NG.c.0"), "never requested: 1")}, "data_availability"),
        ({"command": lambda *_: (0, 5.0, "")}, "performance_benchmark"),
        ({"command": lambda *_: (5, 0.1, "error: the store is gone")}, "performance_benchmark"),
        ({"ledger": lambda: ledger(unit("a", 1000, 10))}, "data_integrity"),
        ({"ledger": lambda: ledger(unit("a", 1000, 1, stored=998))}, "data_integrity"),
        ({"runs": lambda: [SimpleNamespace(status=s) for s in ["done"] * 18 + ["died"]]}, "operational_stability"),
    ],
)
def test_a_promise_that_is_broken_fails_its_test_and_is_recommended_to_mend(other, test):
    found = verify(world(**other))
    assert [name for name, state in states(found).items() if state == "fail"] == [test]
    told = result(found)
    assert not told["executive_summary"]["passed"]
    assert {each["test"] for each in told["recommendations"]} == {test}
    assert all(each["do"] for each in told["recommendations"])
    assert told["nfr_compliance"][test]["state"] == "fail"


def test_a_symbol_that_is_stored_under_its_parent_is_found():
    def bars(symbol):
        return days(370) if symbol.endswith(".FUT") else never()

    found = verify(world(bars=bars, held=lambda symbol, _: symbol.endswith(".FUT") or never()))
    assert states(found)["data_availability"] == "pass"


def test_the_name_under_which_a_year_is_stored_is_judged_and_not_one_with_a_month():
    def bars(symbol):
        return {"ES.c.0": days(20), "ES.FUT": days(370)}.get(symbol) or never()

    (found,) = verify(world(bars=bars), ["data_availability"])
    (check,) = [check for check in found.checks if check.name == "a year of daily bars: ES"]
    assert (check.state, check.said[:6]) == ("pass", "ES.FUT")


def test_a_calendar_year_is_a_year_though_days_before_and_after_it_were_never_asked_for():
    year = [date_ns(dt.date(2023, 1, 2)) + n * DAY_NS for n in range(362)]  # to 29 December
    asked = dt.date(2023, 1, 1), dt.date(2023, 12, 31)

    def lacking(_, first, last):
        outside = (asked[0] - first).days + (last - asked[1]).days
        return max(outside, 0), "never requested: 1"

    for stored in (year, [*year, date_ns(dt.date(2024, 1, 2))]):
        (found,) = verify(world(bars=lambda _, stored=stored: stored, lacking=lacking), ["data_availability"])
        assert found.state == "pass", [check.said for check in found.checks][:1]


def test_bars_that_nobody_asked_for_by_that_name_are_no_year():
    two = [LAST - 364 * DAY_NS, LAST]
    (found,) = verify(world(bars=lambda _: two, lacking=lambda *_: None), ["data_availability"])
    states = {check.state for check in found.checks if check.name.startswith("a year")}
    assert states == {"not measured"}


def test_a_day_lacks_a_bar_where_none_of_the_instruments_has_one_and_the_market_is_open():
    friday = date_ns(dt.date(2024, 3, 15))
    rows = [
        ("unknown", friday, friday + DAY_NS),  # a thin contract; another one has a bar
        ("our failure", friday, friday + 4 * DAY_NS),  # over the weekend
        ("quarantined", friday + 3 * DAY_NS, friday + 4 * DAY_NS),
        ("weekend", friday + DAY_NS, friday + 2 * DAY_NS),
        ("degraded", friday + 9 * DAY_NS, friday + 10 * DAY_NS),  # the vendor's
    ]
    gaps = pl.DataFrame(rows, schema={"cause": pl.String, "start": pl.Int64, "end": pl.Int64}, orient="row")
    days, why = lacked(gaps, [friday, friday + 2 * DAY_NS])
    assert (days, why) == (1, "our failure: 1, quarantined: 1")


def test_the_speed_is_that_of_ten_runs_of_a_whole_month():
    asked = []
    (found,) = verify(world(command=lambda *a: asked.append(a) or (0, len(asked) / 10, "")), ["performance_benchmark"])
    assert asked == [("CL.c.0", dt.date(2024, 5, 1), dt.date(2024, 5, 31))] * 10
    assert found.details["seconds"] == [n / 10 for n in range(1, 11)]


def test_a_month_is_the_last_whole_one_or_the_only_one():
    assert month_of(days(100)) == (dt.date(2024, 5, 1), dt.date(2024, 5, 31))
    assert month_of(days(3)) == (dt.date(2024, 6, 1), dt.date(2024, 6, 30))


def test_rejects_are_counted_once_for_each_unit_by_its_last_attempt():
    checks, details = sound(ledger(unit("a", 100, 90, "failed", 0), unit("a", 100, 0), unit("b", 0, 0, "ordered")))
    assert (details["fetched"], details["quarantined"]) == (100, 0)
    assert {check.state for check in checks} == {"pass"}


def test_runs_that_somebody_broke_off_and_those_elsewhere_say_nothing_of_stability():
    quiet = [SimpleNamespace(status=s) for s in ("interrupted", "elsewhere", "running", "earlier")]
    (check,), _ = stable(quiet)
    assert check.state == "not measured"
    (check,), details = stable([*quiet, SimpleNamespace(status="ordered"), SimpleNamespace(status="resumed")])
    assert (check.measured, details["ended_badly"]) == (50.0, 1)


def test_one_test_alone_decides_and_an_unknown_one_is_refused():
    found = verify(world(bars=never, held=never), ["data_integrity", "data_integrity"])
    summary = result(found)["executive_summary"]
    assert (summary["overall"], summary["score"], summary["score_possible"]) == ("pass", 25.0, 25.0)
    with pytest.raises(RequestError, match="unknown test 'speed'"):
        verify(world(), ["speed"])


def test_the_last_result_is_read_again_and_anything_else_is_refused(tmp_path):
    with pytest.raises(RequestError, match="no result"):
        last(tmp_path)
    for hour in (1, 2):
        told = result(verify(world())) | {"hour": hour}
        path = write(tmp_path / "logs", told, dt.datetime(2026, 1, 1, hour, tzinfo=dt.UTC))
    assert path.stat().st_mode & 0o777 == 0o600
    found, read = last(tmp_path / "logs")
    assert (found, read["hour"]) == (path, 2)
    assert read == json.loads(json.dumps(told, default=str))
    assert read.keys() >= {
        "individual_test_results", "executive_summary", "comprehensive_analysis", "nfr_compliance", "recommendations",
        "execution_metadata",
    }  # fmt: skip
    path.write_text("{}")
    with pytest.raises(RequestError, match="no result of hdi verify"):
        last(tmp_path / "logs")


def test_the_weights_are_those_of_the_promise_and_the_symbols_too():
    assert list(WEIGHTS.values()) == [0.35, 0.30, 0.25, 0.10]
    assert set(ROOTS) == {"CL", "ES", "NG", "HO", "RB"}

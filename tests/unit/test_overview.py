"""What status measures of books: how far a store is behind the calendar, and what share of units fails."""

import datetime as dt

import polars as pl
import pytest

from hdi.calendars import Calendars
from hdi.frames import COVERAGE, LEDGER, NO_RECORD, REJECTS
from hdi.health import Status, _quarantine
from hdi.model import DAY_NS, date_ns
from hdi.overview import failures, held


def ns(day, hour=0):
    return date_ns(dt.date.fromisoformat(day)) + hour * 3600 * 10**9


def ledger(*rows):
    blank = dict.fromkeys(LEDGER)
    return pl.DataFrame([blank | row for row in rows], schema=LEDGER)


def unit(name, status="complete", *, stored=1, at=0, dataset="GLBX.MDP3", schema="ohlcv-1d"):
    return {
        "unit_id": name, "status": status, "stored": stored, "committed_at": at, "dataset": dataset, "schema": schema,
    }  # fmt: skip


def coverage(*spans):
    rows = [
        {"unit": 1, "dataset": d, "schema": "ohlcv-1d", "symbol": s, "stype": "continuous", "start": a, "end": b}
        for d, s, a, b in spans
    ]
    return pl.DataFrame(rows, schema=COVERAGE)


@pytest.fixture(scope="module")
def calendars():
    return Calendars.load(None)


FRIDAY = ns("2024-03-15")
SPANS = [("GLBX.MDP3", "ES.c.0", ns("2024-03-01"), FRIDAY), ("GLBX.MDP3", "CL.c.0", ns("2024-02-01"), ns("2024-03-02"))]


def held_at(now, calendars, spans=SPANS):
    units = [unit("a", stored=5), unit("b", stored=2), unit("c", "failed", stored=0)]
    return held(ledger(*units), coverage(*spans), calendars, now)["GLBX.MDP3 ohlcv-1d"]


def test_what_is_held_is_counted_from_the_books(calendars):
    assert held_at(FRIDAY, calendars) == {
        "units": 2, "rows": 7, "symbols": 2, "fragments": 0, "first": "2024-02-01T00:00:00Z",
        "through": "2024-03-15T00:00:00Z", "sessions_behind": 0,
    }  # fmt: skip


def test_rows_that_units_share_and_rows_that_went_are_held_once(calendars):
    shared = ledger(
        unit("ES.c.0", stored=106) | {"unchanged": 0, "superseded": 0},
        unit("ES.FUT", stored=946) | {"unchanged": 106, "superseded": 0},
        unit("ES.c.0", stored=106) | {"unchanged": 104, "superseded": 3},  # two were changed, one went
    )
    line = held(shared, coverage(), calendars, FRIDAY)["GLBX.MDP3 ohlcv-1d"]
    assert (line["units"], line["rows"]) == (2, 945)


@pytest.mark.parametrize(
    ("now", "behind"),
    [
        (ns("2024-03-15", 12), 0),  # the session of Friday is open
        (ns("2024-03-15", 22), 1),  # it has ended
        (ns("2024-03-17", 12), 1),  # a weekend adds none
        (ns("2024-03-18", 22), 2),
    ],
)
def test_a_lag_is_counted_in_sessions_that_have_ended(calendars, now, behind):
    assert held_at(now, calendars)["sessions_behind"] == behind


def test_a_lag_without_a_calendar_is_not_measured(calendars):
    line = held(ledger(unit("a", dataset="X")), coverage(("X", "A", 0, DAY_NS)), calendars, FRIDAY)["X ohlcv-1d"]
    assert line["sessions_behind"] is None


def test_a_fragment_claims_nothing_and_is_counted(calendars):
    line = held(ledger(unit("a", "fragment")), coverage(), calendars, FRIDAY)["GLBX.MDP3 ohlcv-1d"]
    assert (line["fragments"], line["through"], line["sessions_behind"]) == (1, None, None)


def test_a_unit_counts_as_failed_when_its_last_attempt_did():
    now = 40 * DAY_NS
    rows = ledger(
        unit("mended", "failed", at=now - 3), unit("mended", at=now - 2), unit("broken", at=now - 3),
        unit("broken", "failed", at=now - 1), unit("good", at=now - 1), unit("waits", "ordered", at=now),
        unit("old", "failed", at=9 * DAY_NS),
    )  # fmt: skip
    found = failures(rows, now)
    assert found == {
        "days": 30, "attempts": 5, "failed_attempts": 2, "units": 3, "failed_units": 1,
        "failed_percent": pytest.approx(100 / 3),
    }  # fmt: skip


def test_without_a_unit_no_share_is_made_up():
    assert failures(ledger(), 0)["failed_percent"] is None


def test_rejects_that_were_purged_are_counted_apart():
    blank = dict.fromkeys(REJECTS)
    rows = [("{}", False), ("{}", False), ("{}", True), (NO_RECORD, False)]
    rejects = [blank | {"record": record, "failed": failed, "rules": ["R"]} for record, failed in rows]
    status = Status()
    _quarantine(status, pl.DataFrame(rejects, schema=REJECTS))
    assert status.quarantine == {"rows": 2, "rows_of_failed_units": 1, "purged": 1, "rules": {"R": 3}}

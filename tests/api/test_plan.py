"""`hdi plan`: what an order brings and costs, what is left out and why; and days on which nothing is traded."""

import json
from dataclasses import replace

import pytest

from api.desk import XNAS, Ask
from api.truth import alike
from hdi.calendars import Calendars
from hdi.cli import run
from hdi.model import DAY_NS, date_ns, ns_date

DAY = Ask("ES.c.0", "2024-03-14", "2024-03-14", "trades")
#: Over a weekend.
LONG = replace(DAY, start="2024-03-14", end="2024-03-19")
GET_RANGE = "timeseries.get_range"


@pytest.fixture
def cli(desk, capfd, monkeypatch):
    """``hdi`` on the desk's folders: exit code, what it printed, and what it said."""
    desk.folder.mkdir()
    monkeypatch.chdir(desk.folder)
    monkeypatch.setenv("HDI_STORE", str(desk.folder / "lake"))

    def call(*words):
        capfd.readouterr()
        code = run([str(w) for w in words])
        return code, *capfd.readouterr()

    return call


def words(ask, *more):
    return ("--dataset", ask.dataset, "--schema", ask.schema, "-s", ask.symbols, "--start-date", ask.start,
            "--end-date", ask.end, *more)  # fmt: skip


@pytest.fixture
def planned(cli):
    """``hdi --json plan``."""

    def call(ask, *more):
        code, out, err = cli("--json", "plan", *words(ask, *more))
        assert code == 0, err
        return json.loads(out)

    return call


def test_a_plan_is_a_dry_run_and_costs_what_the_download_costs(cli, planned, desk, vendor):
    found = planned(LONG)
    _, dry, _ = cli("--json", "ingest", "--api", "databento", "--dry-run", *words(LONG))
    assert json.loads(dry) == found
    assert vendor.books.entries == ()
    assert not (desk.folder / "lake").exists()
    desk.stored(LONG)
    assert (found["records"], found["bytes"]) == (
        sum(e.records for e in vendor.books.entries), vendor.books.billed_bytes,
    )  # fmt: skip
    assert (found["units"], found["days"], found["units_stored"]) == (6, 5, 0)
    assert found["raw_bytes"] > 0
    assert found["minutes"] is None
    assert found["raw_bytes_from"] == "usual ratio"


def test_a_plan_says_what_is_stored_and_what_is_left_out_and_why(cli, planned, desk):
    desk.stored(LONG)
    longer = replace(LONG, symbols="ES.c.0,ESH4", end="2024-03-26")
    found = planned(longer)
    assert (found["units_stored"], found["days_stored"]) == (6, 0)  # there is something to do on all days for ESH4
    assert planned(replace(longer, symbols="ES.c.0"))["days_stored"] == 6
    why = {(s["why"], tuple(s["symbols"]), s["days"]) for s in found["skipped"]}
    assert ("closed by the calendar (weekend 2)", ("ES.c.0", "ESH4"), 2) in why
    assert ("expired: stands for nothing from 2024-03-16 on", ("ESH4",), 11) in why
    assert found["minutes"] >= 0
    code, out, _ = cli("plan", *words(LONG))
    assert code == 0
    assert "nothing to do" in out
    assert "confirmed empty" in out


def test_a_plan_names_days_that_the_vendor_calls_degraded(planned, vendor):
    vendor.fault("degraded", day="2024-03-15")
    assert planned(LONG)["conditions"] == [{"day": "2024-03-15", "condition": "degraded"}]


def test_a_plan_says_that_it_would_be_refused(planned):
    assert "budget" in planned(DAY, "--budget", "0.0001")["refused"]
    assert planned(DAY, "--budget", "5")["refused"] is None


def test_bars_can_be_had_for_nothing_where_their_trades_are_stored(planned, desk):
    desk.stored(DAY)
    found = planned(replace(DAY, schema="ohlcv-1m"))
    assert [c["way"] for c in found["cheaper"]] == ["--derive"]
    assert planned(replace(DAY, schema="ohlcv-1m"), "--derive")["dollars"] == "0"


@pytest.mark.parametrize("given", [["--api", "dbn"], ["--api", "nobody"], ["--budget", "much"], ["--job", "none"]])
def test_a_plan_of_something_wrong_is_refused(cli, vendor, given):
    code, out, err = cli("plan", *words(DAY, *given))
    assert (code, out) == (2, "")
    assert given[1] in err
    assert vendor.books.entries == ()


# Days on which nothing is traded.


def asked_days(vendor):
    """The UTC days of all streams."""
    return {
        ns_date(day * DAY_NS).isoformat()
        for e in vendor.books.entries for day in range(e.start // DAY_NS, -(-e.end // DAY_NS))
    }  # fmt: skip


def test_closed_days_are_not_asked_for_and_are_confirmed_empty(desk, vendor, truth):
    desk.stored(LONG)
    assert asked_days(vendor) == {f"2024-03-{d}" for d in (14, 15, 17, 18, 19)}
    assert vendor.books.billed_bytes == truth.size(LONG)
    alike(desk.rows("trades"), truth.rows(LONG))
    calls = vendor.books.calls
    assert desk.ingest(replace(LONG, start="2024-03-16", end="2024-03-16")) == []
    assert vendor.books.calls == calls


def test_a_holiday_of_shares_is_not_asked_for(desk, vendor, truth):
    easter = Ask("SPY", "2024-03-28", "2024-04-01", "trades", XNAS)
    desk.stored(easter)
    assert asked_days(vendor) == {"2024-03-28", "2024-04-01"}
    alike(desk.rows("trades"), truth.rows(easter))


class Mistaken(Calendars):
    """Says that the exchange was closed on a Thursday."""

    def closed(self, dataset, window, symbols=()):
        day = date_ns(ns_date(window.start)) // DAY_NS * DAY_NS
        wrong = [w for w in window.cells("day") if ns_date(w.start).isoformat() == "2024-03-14"]
        assert day <= window.start
        return sorted([*super().closed(dataset, window, symbols), *wrong])


@pytest.mark.parametrize("ask", [DAY, LONG], ids=["that day", "around it"])
def test_a_calendar_that_is_wrong_loses_no_row(desk, vendor, truth, monkeypatch, ask):
    monkeypatch.setattr("hdi.api.HistoricalData.calendars", Mistaken.load(None))
    outcomes = desk.ingest(ask)
    assert [o.error for o in outcomes] == [None] * len(outcomes)
    assert any("closed by the calendar, and the vendor counts more" in o.note for o in outcomes)
    alike(desk.rows("trades"), truth.rows(ask))
    assert vendor.books.billed_bytes == truth.size(ask)
    assert desk.ingest(ask) == []


def test_closed_days_are_asked_for_where_an_open_one_could_not_be_had(desk, vendor, truth):
    desk.settings |= {"ingest.download_records": 1, "databento.tries": 1}
    vendor.fault("503", method=GET_RANGE, day="2024-03-15", times=1)
    outcomes = desk.ingest(LONG)
    assert sorted(o.status for o in outcomes) == ["failed", *["stored"] * 5]
    assert "2024-03-16" not in asked_days(vendor)  # its count, which is free, was asked for
    desk.stored(LONG)
    alike(desk.rows("trades"), truth.rows(LONG))
    assert vendor.books.billed_bytes == truth.size(LONG)

"""`hdi plan`: what an order brings and costs, what is left out and why; and days on which nothing is traded."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from api.desk import XNAS, Ask
from api.truth import alike
from hdi.buying.meant import near_roots
from hdi.buying.outlook import Way
from hdi.calendars import Calendars
from hdi.cli import run
from hdi.cli.plan import outlook_lines
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
    assert ("closed by the calendar (weekend 1)", ("ES.c.0",), 1) in why  # the other one is stored, ESH4 was over
    assert ("expired: stands for nothing from 2024-03-16 on", ("ESH4",), 11) in why
    assert found["minutes"] >= 0
    code, out, _ = cli("plan", *words(LONG))
    assert code == 0
    assert "nothing to do" in out
    assert "stored: 6 days of 6 whole, 1 of them confirmed empty" in out
    assert "left out" not in out


def test_days_of_units_that_are_longer_are_fetched_or_between_and_never_left_out(planned):
    found = planned(Ask("ESH4", "2024-03-01", "2024-03-31", "ohlcv-1m"))
    assert (found["days"], found["days_closed"]) == (13, 2)  # it was over after the 15th
    assert [(s["why"], s["days"]) for s in found["skipped"]] == [("expired: stands for nothing from 2024-03-16 on", 16)]


def test_what_is_kept_by_month_is_counted_as_it_is_stored(planned, desk):
    desk.stored(Ask("ES.c.0", "2024-02-12", "2024-02-13"))
    found = planned(Ask("ES.c.0", "2024-02-01", "2024-02-29"))
    assert (found["units_total"], found["units"], found["units_stored"], found["days_stored"]) == (3, 2, 1, 2)


def test_stored_under_other_names_is_not_called_empty_and_costs_nothing(cli, desk):
    parent = replace(DAY, symbols="ES.FUT")
    desk.stored(parent)
    code, out, _ = cli("plan", *words(DAY))
    assert (code, "to buy: nothing, $0.00" in out) == (0, True)
    desk.stored(DAY)
    code, out, _ = cli("plan", *words(DAY))
    assert (code, "stored: 1 day of 1 whole, 1 of them under other names" in out, "empty" in out) == (0, True, False)


def test_short_bytes_of_an_earlier_run_are_told_of_and_what_orders_them_again(cli, desk, vendor):
    parent = replace(DAY, symbols="ES.FUT")
    vendor.fault("empty")
    desk.errors(parent)
    vendor.clear()
    _, out, _ = cli("plan", *words(parent))
    assert "bought by an earlier run, and short: ES.FUT" in out
    assert "0 of" in out
    assert "--refetch orders it again (it cost $" in out
    assert "to be refined" not in out
    *_, claim = desk.errors(DAY)
    assert "--refetch" in claim.hint
    assert sum(r.stored for r in desk.stored(DAY, refetch=True)) > 0


def test_a_closed_day_on_which_the_vendor_counts_records_is_not_left_out(cli, planned, monkeypatch):
    monkeypatch.setattr("hdi.api.HistoricalData.calendars", Mistaken.load(None))
    found = planned(LONG)
    (asked,) = found["asked_after_all"]
    assert (asked["day"], asked["records"] > 0, found["days"]) == ("2024-03-14", True, 5)
    assert sum(s["days"] for s in found["skipped"]) == 1
    _, out, _ = cli("plan", *words(DAY))
    assert "closed by the calendar, and asked for after all: 2024-03-14: the vendor counts" in out


@pytest.mark.parametrize(("typed", "named"), [("EZ.c.0", "ES.c.0"), ("EQ.FUT", "ES.FUT"), ("ESXX", "ESM4")])
def test_an_unknown_symbol_is_answered_with_the_closest_of_what_the_configs_name(cli, vendor, typed, named):
    (Path.cwd() / "configs").mkdir()
    Path("configs/symbol_groups.yaml").write_text("INDEX: [ES.c.0, NQ.FUT, ESZ4-ESH5]\n", encoding="utf-8")
    code, _, err = cli("plan", *words(replace(DAY, symbols=typed)))
    assert code == 2
    assert named in err.partition("Did you mean ")[2].partition("?")[0]
    assert "-" not in err.partition("Did you mean ")[2].partition("?")[0]
    assert vendor.books.entries == ()


def test_roots_are_near_by_their_letters_and_spreads_have_none():
    assert near_roots("EZ", ["ESZ4-ESH5", "ESH4", "CL.c.0", "ES.FUT"]) == ["ES"]
    assert near_roots("ESXX", ["ES.c.0", "E", "NQH4"]) == ["ES"]
    assert near_roots("ES", ["ES.c.0"]) == []


def test_another_way_for_the_same_price_is_not_called_cheaper():
    offer = SimpleNamespace(purchases=(), quote=SimpleNamespace(records=0))
    shown = SimpleNamespace(
        offer=offer, estimate=None, held_days=0, after_all={}, skipped=(), cheaper=(), refused="",
        others=(Way("ingest.batch_above_bytes", "for the same price"),),
    )  # fmt: skip
    assert outlook_lines(shown) == ["  other way: ingest.batch_above_bytes: for the same price"]


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

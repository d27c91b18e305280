"""hdi sync: jobs from what is stored up to what the vendor has."""

import datetime as dt
import json
from decimal import Decimal
from types import SimpleNamespace

import pytest

from api.desk import Ask
from api.planned import DAILY, Office
from api.truth import alike
from hdi.buying import offer, paid
from hdi.cli import run
from hdi.errors import AccountRefused, ConfigError, RequestError, UnknownSymbol
from hdi.model import MONEY, date_ns

FREE = {"metadata.get_dataset_range", "metadata.get_dataset_condition", "symbology.resolve"}
GET_RANGE = "timeseries.get_range"
MARCH = {"until": "2024-03-09"}
pytestmark = pytest.mark.parametrize("market", [MARCH], indirect=True)


@pytest.fixture
def office(tmp_path, vendor):
    return Office(tmp_path / "office", vendor)


@pytest.fixture
def hdi(office, capfd, monkeypatch):
    """Runs a command at the office: exit code, stdout, stderr."""
    for name, value in office.variables().items():
        monkeypatch.setenv(name, value)

    def call(*words):
        code = run(office.command(*words))
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return call


def until(truth, vendor, ask, day):
    """What the vendor has of a request up to a day."""
    truth._vendor.advance(dt.date.fromisoformat(day))
    vendor.advance(dt.date.fromisoformat(day))
    truth.rows.cache_clear()
    last = dt.date.fromisoformat(day) - dt.timedelta(days=1)
    return truth.rows(Ask(ask["symbols"], ask["start_date"], str(last), ask["schema"], ask["dataset"]))


def test_a_job_goes_from_its_start_to_the_available_end_and_then_only_what_is_new_is_bought(office, vendor, truth):
    office.plan(daily=DAILY | {"sync": True})
    first = until(truth, vendor, DAILY, "2024-03-09")
    result = office.sync()["daily"]
    assert (result.status, result.stored, result.errors) == ("synced", len(first), [])
    alike(office.rows(), first)
    vendor.books.reset()
    assert office.sync()["daily"].status == "current"
    assert vendor.books.calls == {"metadata.get_dataset_range": 1}

    more = until(truth, vendor, DAILY, "2024-03-13")
    assert office.sync()["daily"].stored == len(more) - len(first)
    alike(office.rows(), more)
    assert vendor.books.billed_bytes == 56 * (len(more) - len(first))


def test_a_server_is_kept_up_to_date_as_a_lake_is(office, vendor, truth, fresh_database):
    office.address = fresh_database()
    office.plan(daily=DAILY | {"sync": True})
    until(truth, vendor, DAILY, "2024-03-09")
    assert office.sync(check_revisions=True)["daily"].status == "synced"
    more = until(truth, vendor, DAILY, "2024-03-13")
    assert office.sync()["daily"].status == "synced"
    alike(office.rows(), more)
    vendor.books.reset()
    assert office.sync()["daily"].status == "current"
    assert vendor.books.calls == {"metadata.get_dataset_range": 1}


def test_the_end_date_of_a_job_does_not_count(office, vendor, truth):
    office.plan(daily=DAILY | {"end_date": "2024-02-27"}, other=DAILY | {"sync": True})
    assert set(office.sync("daily")) == {"daily"}
    alike(office.rows(), until(truth, vendor, DAILY, "2024-03-09"))


def test_holes_in_what_is_stored_are_filled_the_oldest_first(office, vendor, truth):
    hourly = DAILY | {"schema": "ohlcv-1h", "symbols": "ES.c.0,CL.c.0", "sync": True}
    office.plan(hourly=hourly)
    office.ingest(Ask("ES.c.0", "2024-02-26", "2024-02-28", "ohlcv-1h"))
    office.ingest(Ask("CL.c.0", "2024-03-01", "2024-03-04", "ohlcv-1h"))
    vendor.books.reset()
    with office.open(**{"ingest.download_records": 1, "ingest.workers": 1}) as data:
        work = data.sync()
        work.plan()
        [result] = work.run()
    assert result.errors == []
    starts = [entry.start for entry in vendor.books.entries]
    assert starts == sorted(starts)
    assert len(starts) == 3  # CL before and after what is there, ES after it
    alike(office.rows("ohlcv-1h"), until(truth, vendor, hourly, "2024-03-09"))
    assert office.sync()["hourly"].status == "current"


def test_the_price_of_all_jobs_is_known_and_refused_before_anything_is_bought(office, vendor):
    office.plan(a=DAILY | {"sync": True}, b=DAILY | {"sync": True, "symbols": "CL.c.0"}, c=DAILY | {"sync": True})
    with office.open() as data:
        work = data.sync()
        steps = {step.job.name: step for step in work.plan()}
    assert steps["a"].quote == steps["c"].quote
    assert work.quote == steps["a"].quote + steps["b"].quote  # what two jobs lack is bought once
    most = max(steps["a"].quote.dollars, steps["b"].quote.dollars)
    for settings in ({"ingest.budget_usd": most}, {"ingest.max_usd_per_day": most}):
        with pytest.raises(RequestError, match="this costs"):
            office.sync(settings=settings)
    assert vendor.books.entries == ()
    assert vendor.books.calls[GET_RANGE] == 0
    results = office.sync(settings={"ingest.budget_usd": work.quote.dollars})
    assert vendor.books.dollars == work.quote.dollars
    assert abs(sum(result.dollars for result in results.values()) - work.quote.dollars) <= 2 * MONEY
    assert {name: result.status for name, result in results.items()} == {"a": "synced", "b": "synced", "c": "current"}


def test_a_job_that_fails_stops_no_other_and_the_highest_code_counts(office, hdi):
    office.plan(
        a=DAILY | {"sync": True, "symbols": "XX.c.0"}, b=DAILY | {"sync": True},
        c=DAILY | {"sync": True, "schema": "ohlcv-2d"}, d=DAILY | {"sync": True, "dataset": "NO.SUCH"},
    )  # fmt: skip
    results = office.sync()
    assert {name: result.status for name, result in results.items()} == {
        "a": "failed", "b": "synced", "c": "failed", "d": "failed",
    }  # fmt: skip
    assert isinstance(results["a"].errors[0], UnknownSymbol)
    code, out, err = hdi("--json", "sync")
    assert code == 2
    told = [json.loads(line) for line in out.splitlines()]
    assert [(each["job"], each["status"], each["exit_code"]) for each in told] == [
        ("a", "failed", 2), ("b", "current", 0), ("c", "failed", 2), ("d", "failed", 2),
    ]  # fmt: skip
    assert "has no XX.c.0" in told[0]["errors"][0]["message"]
    assert err.count("has no XX.c.0") == 2  # in the plan, and with what to do


@pytest.mark.parametrize("fault", ["402", "402:method=timeseries.get_range"])
def test_after_an_error_of_the_account_nothing_more_is_asked_of_the_vendor(office, vendor, fault):
    office.plan(**{name: DAILY | {"sync": True, "symbols": f"{name}.c.0"} for name in ("ES", "CL", "NG")})
    vendor.fault(fault)
    results = office.sync()
    assert [type(result.errors[0]) for result in results.values()] == [AccountRefused] * 3
    assert "not asked for: " in results["NG"].errors[0].message
    assert vendor.books.calls[GET_RANGE] == (1 if "get_range" in fault else 0)
    assert vendor.books.entries == ()


def test_a_job_whose_first_day_is_not_there_yet_waits_for_it(office, vendor, hdi):
    office.plan(later=DAILY | {"sync": True, "start_date": "2024-03-09"})
    assert office.sync()["later"].status == "current"
    code, out, err = hdi("sync")
    assert (code, out) == (0, "current later  GLBX.MDP3 ohlcv-1d ES.c.0\n")
    assert "nothing yet: the vendor has no data from 2024-03-09 on" in err
    vendor.advance(dt.date(2024, 3, 12))
    assert office.sync()["later"].stored == 2  # Sunday evening, and Monday


def test_a_dry_run_tells_units_and_dollars_and_buys_nothing(office, vendor, hdi):
    office.plan(daily=DAILY | {"cron": "15 6 * * *"}, other=DAILY | {"end_date": "2024-03-01"})
    code, out, _ = hdi("sync", "--dry-run")
    assert code == 0
    assert "daily  GLBX.MDP3 ohlcv-1d ES.c.0  up to 2024-03-09T00:00:00Z: 1 unit, 11 records, $0.000" in out
    assert "to buy: 1 unit, 11 records, 616 B, SYNTHETIC $0.000" in out
    code, out, _ = hdi("--json", "sync", "--dry-run")
    told = json.loads(out)
    assert (told["job"], told["status"], told["records"], told["through"]) == ("daily", "planned", 11,
                                                                              "2024-03-09T00:00:00Z")  # fmt: skip
    assert Decimal(told["dollars"]) > 0
    assert vendor.books.entries == ()
    assert not (office.folder / "lake").exists()


def test_more_than_needs_a_yes_is_refused_off_a_terminal_and_bought_with_force(office, vendor, hdi):
    office.plan(daily=DAILY | {"sync": True})
    (office.configs / "system_config.yaml").write_text("ingest: {confirm_above_usd: 0}\n")
    code, out, err = hdi("sync")
    assert (code, out) == (2, "")
    assert "(ingest.confirm_above_usd) needs a yes" in err
    assert vendor.books.entries == ()
    code, out, err = hdi("sync", "--force")
    assert code == 0
    assert out.startswith(
        "synced  daily  GLBX.MDP3 ohlcv-1d ES.c.0  11 fetched, 11 stored, 0 quarantined  1 unit  $0.0"
    )
    code, out, err = hdi("sync")
    assert (code, out) == (0, "current daily  GLBX.MDP3 ohlcv-1d ES.c.0  up to 2024-03-09T00:00:00Z\n")
    assert "nothing to do: all is stored that the vendor has; 0 units, 0 bytes, $0.00" in err


def test_names_that_are_no_jobs_and_plans_without_any_say_what_to_write(office, hdi):
    office.plan(daily=DAILY | {"end_date": "2024-03-01"}, off=DAILY | {"cron": "0 0 * * *", "sync": False})
    code, _, err = hdi("sync")
    assert code == 2
    assert "no job says that it is to be kept up to date\nWrite sync: true (or a cron line) below a job" in err
    code, _, err = hdi("sync", "dayly")
    assert (code, "Did you mean daily?" in err) == (2, True)


@pytest.mark.parametrize(
    ("keys", "line", "told"),
    [
        ({"cron": "every day"}, 8, "jobs.daily.cron: 'every day' is not a cron line. A cron line has five fields"),
        ({"cron": "0 6 * * *", "timezone": "Chicago"}, 9, "unknown time zone 'Chicago'. Did you mean America/Chicago?"),
        ({"sync": "yes", "end_date": "2024-03-01"}, 7, "jobs.daily.sync: 'yes': true or false is needed"),
        (
            {"sync": True, "timezone": "UTC"},
            8,
            "jobs.daily.timezone: a time zone is for a cron line, and there is none",
        ),
        ({"sync": False}, 2, "the key end_date is missing"),
        ({"sync": False, "end_date": ""}, 8, "an end date is needed; only a job with sync: true or a cron line may"),
    ],
)
def test_a_bad_key_is_told_with_its_place_before_anything_is_asked(office, vendor, keys, line, told):
    sync = {"sync": True} if "cron" in keys else {}
    office.plan(daily=DAILY | sync | keys)
    with pytest.raises(ConfigError) as caught, office.open() as data:
        data.jobs()
    where, _, message = caught.value.message.partition(f"databento_config.yaml:{line}:")
    assert message, where
    assert told in message
    assert not vendor.books.calls


def test_a_job_without_an_end_needs_one_for_ingest(office, hdi):
    office.plan(daily=DAILY | {"sync": True})
    code, _, err = hdi("ingest", "--api", "databento", "--job", "daily")
    assert (code, "--end-date is missing" in err) == (2, True)
    assert hdi("ingest", "--api", "databento", "--job", "daily", "--end-date", "2024-02-27")[0] == 0
    assert "2024-02-26 to open" in hdi("list-jobs")[1]


def test_the_list_of_jobs_says_whether_and_when_they_are_synced(office, hdi):
    office.plan(a=DAILY | {"cron": "15 6 * * 2-6", "timezone": "America/Chicago"}, b=DAILY | {"end_date": "2024-02-27"})
    first, second = hdi("list-jobs")[1].splitlines()[2:]
    assert "yes   15 6 * * 2-6 America/Chicago" in first
    assert second.split()[-2:] == ["no", "-"]


def test_what_was_found_of_changed_days_is_told_by_symbol_and_what_is_bought_again_counts(
    office, vendor, hdi, monkeypatch
):
    office.plan(daily=DAILY | {"sync": True})
    vendor.fault("restated:day=2024-02-29,rows=1,schema=ohlcv-1d")
    clock = SimpleNamespace(time_ns=lambda: date_ns(dt.date(2024, 3, 9)) + 10**9)
    with monkeypatch.context() as patch:
        for module in (paid, offer):
            patch.setattr(module, "time", clock)
        office.sync()
    vendor.fault("restated:day=2024-02-28,rows=1,schema=ohlcv-1d")
    looked = json.loads(hdi("--json", "sync", "--check-revisions", "--dry-run")[1].splitlines()[-1])
    assert [(each["symbols"], each["days"]) for each in looked["unsettled"]] == [(["ES.c.0"], 2)]
    assert [each["symbols"] for each in looked["changed"]] == [["ES.c.0"]]
    code, out, err = hdi("sync", "--check-revisions")
    assert (code, "unsettled: 2 days" in out) == (0, True)
    assert "changed by the vendor: GLBX.MDP3 ohlcv-1d ES.c.0  2024-02-28" in err
    assert "unsettled: 2 days: GLBX.MDP3 ohlcv-1d ES.c.0, 2024-02-29 to 2024-03-08: bought on the day" in err
    assert "SYNTHETIC data: 1 row, " in err
    assert "0 B" not in err


def test_bars_that_are_older_than_what_they_were_made_of_are_not_called_current(office, vendor, hdi):
    hours, minutes = (Ask("ES.c.0", "2024-02-26", "2024-03-08", name) for name in ("ohlcv-1h", "ohlcv-1m"))
    office.plan(hourly=DAILY | {"schema": "ohlcv-1h", "sync": True})
    office.stored(minutes)
    office.stored(hours, derive=True)
    vendor.fault("restated:day=2024-02-28,rows=20,symbol=ES.c.0,schema=ohlcv-1m")
    office.stored(Ask("ES.c.0", "2024-02-28", "2024-02-28", "ohlcv-1m"), refetch=True)
    vendor.clear()  # of which the vendor says nothing
    code, out, err = hdi("sync", "--check-revisions")
    assert code == 0
    assert out.startswith("stale   revisions\ncurrent hourly")
    (told,) = [line for line in err.splitlines() if line.startswith("to be derived again: ")]
    command = told.rpartition(": hdi ")[2].split()
    assert command[0] == "ingest"
    vendor.books.reset()
    assert hdi(*command)[0] == 0
    assert hdi("sync", "--check-revisions")[1].startswith("current revisions\n")
    assert vendor.books.entries == ()


def test_days_that_the_vendor_changed_are_bought_again_and_only_those(office, vendor):
    office.plan(daily=DAILY | {"sync": True})
    office.sync()
    vendor.books.reset()
    vendor.fault("restated:day=2024-02-28,rows=1,schema=ohlcv-1d")
    assert set(office.sync()) == {"daily"}
    assert vendor.books.entries == ()
    results = office.sync(check_revisions=True)
    assert {name: result.status for name, result in results.items()} == {"revisions": "synced", "daily": "current"}
    assert [(entry.records, entry.end - entry.start) for entry in vendor.books.entries] == [(1, 86_400 * 10**9)]
    vendor.books.reset()
    again = office.sync(check_revisions=True)
    assert {result.status for result in again.values()} == {"current"}
    assert vendor.books.entries == ()
    assert set(vendor.books.calls) <= FREE


def test_a_pending_day_ends_what_is_up_to_date_and_is_bought_again_when_it_is_whole(office, vendor, hdi, truth):
    job = DAILY | {"schema": "ohlcv-1h", "start_date": "2024-03-06", "sync": True}
    office.plan(hourly=job, later=job | {"symbols": "CL.c.0", "start_date": "2024-03-08"})
    vendor.fault("pending:day=2024-03-07,hours=10-24")
    _, out, err = hdi("sync")
    first, second = out.splitlines()
    assert first.startswith("synced  hourly ")
    assert first.endswith("up to 2024-03-07T00:00:00Z  pending: 2024-03-07")
    assert second.endswith("up to 2024-03-09T00:00:00Z")
    assert "pending, by the vendor when asked for: 2024-03-07" in err
    vendor.books.reset()
    _, out, err = hdi("sync")
    assert out.splitlines()[0].endswith("up to 2024-03-07T00:00:00Z  pending: 2024-03-07")
    assert "; what is pending is looked at again by the next sync" in err
    assert vendor.books.calls == {"metadata.get_dataset_range": 1, "metadata.get_dataset_condition": 1}

    vendor.clear()
    told = json.loads(hdi("--json", "sync", "--dry-run", "hourly")[1].splitlines()[0])
    assert told["conditions"] == [{"day": "2024-03-07", "condition": "pending"}]
    with pytest.raises(RequestError, match="this costs"):
        office.sync(settings={"ingest.budget_usd": Decimal(0)})
    assert vendor.books.entries == ()
    _, out, err = hdi("sync")
    assert "2024-03-07 is available, was pending when it was bought" in err
    again, first, second = out.splitlines()
    assert again.startswith("synced  revisions ")
    assert [line.endswith("up to 2024-03-09T00:00:00Z") for line in (first, second)] == [True, True]
    day = date_ns(dt.date(2024, 3, 7))
    assert [(entry.symbols, entry.start, entry.end) for entry in vendor.books.entries] == [
        (("ES.c.0",), day, day + 86_400 * 10**9)
    ]
    whole = until(truth, vendor, job, "2024-03-09")
    ids = {row["instrument_id"] for row in whole}
    alike([row for row in office.rows("ohlcv-1h") if row["instrument_id"] in ids], whole)
    vendor.books.reset()
    assert {result.status for result in office.sync().values()} == {"current"}
    assert vendor.books.calls == {"metadata.get_dataset_range": 1}

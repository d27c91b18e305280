"""What may be spent in a day and a month, what `hdi spend` says of it, and that a whole dataset needs a yes."""

import json
import threading
import time
from decimal import Decimal

import polars as pl
import pytest

from api.desk import Ask
from hdi.buying import buying
from hdi.cli import run
from hdi.errors import RequestError
from hdi.model import DAY_NS

DAY = Ask("ES.c.0", "2024-03-14", "2024-03-14", "ohlcv-1h")
NEXT = Ask("ES.c.0", "2024-03-18", "2024-03-18", "trades")
GET_RANGE = "timeseries.get_range"


@pytest.fixture
def cli(desk, capfd, monkeypatch):
    """``hdi`` on the desk's folders: exit code, what it printed, and what it said."""
    desk.folder.mkdir(exist_ok=True)
    monkeypatch.chdir(desk.folder)
    monkeypatch.setenv("HDI_STORE", str(desk.folder / "lake"))

    def call(*words):
        capfd.readouterr()
        code = run([str(w) for w in words])
        return code, *capfd.readouterr()

    return call


@pytest.fixture
def killed(monkeypatch):
    """Ingests, and ends between the download and the commit."""

    def call(desk, ask):
        def stop(*_, **__):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(buying, "commit_units", stop)
            with pytest.raises(KeyboardInterrupt):
                desk.ingest(ask)

    return call


@pytest.fixture
def configured(tmp_path):
    """``--config-dir`` of a folder with these settings, and these jobs."""

    def call(settings="", jobs=""):
        folder = tmp_path / "configs"
        (folder / "api_specific").mkdir(parents=True, exist_ok=True)
        (folder / "system_config.yaml").write_text(settings)
        (folder / "api_specific" / "databento_config.yaml").write_text(jobs)
        return "--config-dir", folder

    return call


def order(ask, *more):
    return ("ingest", "--api", "databento", "--dataset", ask.dataset, "--schema", ask.schema, "-s", ask.symbols,
            "--start-date", ask.start, "--end-date", ask.end, *more)  # fmt: skip


@pytest.mark.parametrize("name", ["day", "month"])
def test_a_limit_refuses_before_anything_is_billed_with_what_was_spent_and_is_left(cli, desk, vendor, configured, name):
    desk.stored(DAY)
    spent, price = vendor.books.dollars, desk.offer(NEXT).quote.dollars
    most = spent + price - Decimal("0.000001")
    entries = vendor.books.entries
    code, out, err = cli(*configured(f"ingest: {{max_usd_per_{name}: {most}}}\n"), *order(NEXT))
    assert (code, out) == (2, "")
    assert f"max_usd_per_{name}" in err
    assert f"${spent.quantize(Decimal('0.0001'))} was spent" in err
    assert "hdi spend" in err
    assert vendor.books.entries == entries
    assert cli(*configured(f"ingest: {{max_usd_per_{name}: {spent + price}}}\n"), *order(NEXT))[0] == 0
    # What is stored costs nothing, whatever was spent.
    assert cli(*configured(f"ingest: {{max_usd_per_{name}: 0}}\n"), *order(NEXT))[0] == 0


def test_what_is_paid_and_not_in_the_ledger_counts_and_shows(cli, desk, vendor, killed):
    killed(desk, DAY)
    paid = vendor.books.dollars
    found = json.loads(cli("--json", "spend")[1])
    assert Decimal(found["dollars"]) == Decimal(found["not_in_ledger"]) == pytest.approx(paid, abs=Decimal("1e-8"))
    assert "not in the ledger yet" in cli("spend")[1]
    desk.settings["ingest.max_usd_per_day"] = paid
    with pytest.raises(RequestError, match="by downloads that are not in it yet"):
        desk.ingest(NEXT)
    desk.stored(DAY)  # which was paid before
    assert vendor.books.calls[GET_RANGE] == 1
    found = json.loads(cli("--json", "spend")[1])
    assert Decimal(found["not_in_ledger"]) == 0
    assert Decimal(found["dollars"]) == pytest.approx(paid, abs=Decimal("1e-8"))


def test_of_two_runs_that_would_both_just_fit_one_is_refused(desk, vendor):
    prices = [desk.offer(ask).quote.dollars for ask in (DAY, NEXT)]
    desk.settings["ingest.max_usd_per_month"] = max(prices)
    ready, ends = threading.Barrier(2), []

    def work(ask):
        with desk.open() as data:
            buying = desk.buying(data, ask)
            offer = buying.offer()
            ready.wait()
            try:
                ends.append([o.status for o in buying.run(offer)[1]])
            except RequestError as error:
                ends.append(error.message)

    desk.stored(Ask("ES.c.0", "2024-03-16", "2024-03-16", "ohlcv-1d"))  # which makes the store
    threads = [threading.Thread(target=work, args=(ask,)) for ask in (DAY, NEXT)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(type, ends), key=str) == [list, str]
    assert "max_usd_per_month" in next(e for e in ends if isinstance(e, str))
    assert len({e.schema for e in vendor.books.entries}) == 1
    assert vendor.books.dollars <= max(prices)


def test_spending_adds_up_to_the_vendors_books_by_whatever_it_is_shown(cli, desk, vendor, configured):
    jobs = configured(jobs=f"jobs:\n  front:\n    dataset: {DAY.dataset}\n    schema: {DAY.schema}\n"
                           f"    symbols: ES.c.0\n    start_date: {DAY.start}\n    end_date: {DAY.end}\n")  # fmt: skip
    assert cli(*jobs, "ingest", "--api", "databento", "--job", "front")[0] == 0
    desk.stored(NEXT)
    assert set(desk.store().ledger()["job"]) == {"front", None}
    today = time.strftime("%Y-%m-%d", time.gmtime())
    keys = {"day": {today}, "month": {today[:7]}, "dataset": {"GLBX.MDP3"}, "schema": {"ohlcv-1h", "trades"},
            "job": {"front", None}, "symbol": {"ES.c.0"}}  # fmt: skip
    for by, expected in keys.items():
        code, out, _ = cli("--json", "spend", "--by", by)
        found = json.loads(out)
        assert code == 0
        assert {row[by] for row in found["rows"]} == expected
        assert sum(Decimal(row["dollars"]) for row in found["rows"]) == Decimal(found["dollars"])
        assert Decimal(found["dollars"]) == pytest.approx(vendor.books.dollars, abs=Decimal("1e-8"))
    assert "SYNTHETIC" in cli("spend")[1]
    assert json.loads(cli("--json", "spend", "--end-date", "2024-01-01")[1])["rows"] == []


@pytest.mark.parametrize("words", [["--by", "hour"], ["--start-date", "soon"], ["--start-date", "2024-02-02",
                                   "--end-date", "2024-02-01"]])  # fmt: skip
def test_spending_of_something_wrong_is_refused(cli, words):
    code, out, err = cli("spend", *words)
    assert (code, out) == (2, "")
    assert words[1] in err


@pytest.mark.parametrize("value", ["much", "'-1'", "yes", ".nan"])
def test_a_limit_that_is_no_number_is_refused_with_its_place(cli, configured, vendor, value):
    code, out, err = cli(*configured(f"ingest:\n  max_usd_per_day: {value}\n"), *order(DAY))
    assert (code, out) == (2, "")
    assert "system_config.yaml:2:3" in err
    assert "max_usd_per_day" in err
    assert not vendor.books.calls


# A whole dataset.

EVERYTHING = Ask("ALL_SYMBOLS", "2024-03-14", "2024-03-14", "ohlcv-1d")


def test_a_whole_dataset_is_not_bought_without_a_yes(cli, vendor):
    code, out, err = cli(*order(EVERYTHING))
    assert (code, out) == (2, "")
    assert "to buy: 1 unit" in err
    assert "--force" in err
    assert vendor.books.entries == ()
    assert cli(*order(EVERYTHING, "--force"))[0] == 0
    assert len(vendor.books.entries) == 1
    assert cli(*order(EVERYTHING))[0] == 0  # what is stored needs no yes


def test_a_job_of_a_whole_dataset_says_that_it_means_it(cli, configured, vendor):
    body = ("jobs:\n  all:\n    dataset: GLBX.MDP3\n    schema: ohlcv-1d\n    symbols: [all_symbols]\n"
            "    start_date: 2024-03-14\n    end_date: 2024-03-14\n")  # fmt: skip
    words = ("ingest", "--api", "databento", "--job", "all", "--force")
    for more in ("", "    all_symbols: false\n"):
        code, _, err = cli(*configured(jobs=body + more), *words)
        assert code == 2
        assert "databento_config.yaml:5:" in err
        assert "all_symbols: true" in err
    assert vendor.books.entries == ()
    assert cli(*configured(jobs=body + "    all_symbols: true\n"), *words)[0] == 0
    assert len(vendor.books.entries) == 1


# What the vendor said of the days.


def test_every_commit_keeps_what_the_vendor_said_of_all_days_of_the_window(desk, vendor, killed):
    vendor.fault("degraded", day="2024-03-14")
    before = time.time_ns()
    killed(desk, Ask("ES.c.0", "2024-03-13", "2024-03-15", "trades"))
    between = time.time_ns()
    desk.stored(Ask("ES.c.0", "2024-03-13", "2024-03-15", "trades"))  # from the slip: it was heard before
    desk.stored(Ask("ES.c.0", "2024-03-16", "2024-03-17", "trades"))  # the first of them has no session
    kept = desk.store().conditions().with_columns(number=pl.col("day") // DAY_NS - 19_782).sort("day")
    assert kept.select("number", "condition").rows() == [
        (13, "available"), (14, "degraded"), (15, "available"), (17, "available"),
    ]  # fmt: skip
    heard = kept["seen_at"].to_list()
    assert all(before < at < between for at in heard[:3])
    assert heard[3] > between
    assert set(kept["dataset"]) == {"GLBX.MDP3"}

"""The vendor changes data after it was bought: exactly those days are bought again, and what changed is shown."""

import contextlib
import datetime as dt
import json
from collections import Counter
from decimal import Decimal
from types import SimpleNamespace

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from api.cradles import KILLED, Cradle
from api.desk import Ask, Desk, served, trusting
from api.truth import Truth, alike
from hdi.buying import buying, offer, paid
from hdi.cli.app import run
from hdi.errors import RequestError
from hdi.model import DAY_NS, Window, date_ns
from hdi.testing.material import schemas
from servers import make_layout

MARKET = {"until": "2024-07-01", "scale": 0.01, "limits": 0.0}
GET_RANGE = "timeseries.get_range"
YEAR = ("2023-07-03", "2024-06-28")
BARS, HOURS = Ask("ES.FUT", *YEAR), Ask("ES.c.0", *YEAR, "ohlcv-1h")
WEEK = ("2024-03-04", "2024-03-08")
DAY = "2024-03-05"
HOUR_NS = 3_600 * 10**9


class Seat(Desk):
    """A desk at which restatements are looked for."""

    def due(self, **options):
        with self.open() as data:
            return data.revisions_due(**options)

    def again(self, **options):
        """What a poll found, and what became of buying it."""
        with self.open() as data:
            due = data.revisions_due(**options)
            offer = due.offer()
            if not offer:
                due.remember()
                return due, []
            return due, list(due.buy(offer))

    def revisions(self, **options):
        """What changed, as plain rows."""
        with self.open() as data:
            return [row for frame in data.revisions(**options) for row in frame.iter_rows(named=True)]


@pytest.fixture(scope="module")
def shared_vendor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trust")
    with served(folder, **MARKET) as made:
        made.variables = trusting(made, folder)
        yield made


@pytest.fixture
def vendor(shared_vendor, monkeypatch):
    for name, value in shared_vendor.variables.items():
        monkeypatch.setenv(name, value)
    shared_vendor.clear()
    shared_vendor.books.reset()
    return shared_vendor


@pytest.fixture
def desk(tmp_path, vendor):
    return Seat(tmp_path / "desk", vendor)


@pytest.fixture(params=["lake", "server"])
def either(request, desk):
    """A desk with a lake, and one with a database."""
    if request.param == "server":
        fresh = request.getfixturevalue("fresh_database")
        desk.address = fresh(template="layout", prepare=make_layout)
    return desk


def ns(day):
    return date_ns(dt.date.fromisoformat(day))


def billed(vendor):
    """The orders in the vendor's books, as (schema, symbols, first day, end) with their records; then none."""
    found = {
        (e.schema, e.symbols, e.start // DAY_NS - ns(DAY) // DAY_NS, (e.end - e.start) / DAY_NS): e.records
        for e in vendor.books.entries
    }
    assert len(found) == len(vendor.books.entries)
    vendor.books.reset()
    return found


def stored(outcomes):
    assert [(o.status, o.error) for o in outcomes] == [("stored", None)] * len(outcomes)


def changes(found):
    """Rows that changed by (symbol, columns)."""
    return sorted((r["symbol"], tuple(c["column"] for c in r["changes"])) for r in found)


def test_three_rows_of_one_day_of_250_are_found_bought_again_and_shown(either, vendor):
    for ask in (BARS, HOURS):
        either.stored(ask)
    assert len({row["ts_event"] for row in either.rows()}) >= 250
    before = {(r["ts_event"], r["instrument_id"]): r for r in either.rows()}
    vendor.books.reset()
    due, outcomes = either.again()
    assert (due.changed, due.waiting, due.unmeasured, outcomes) == ((), (), (), [])
    assert not vendor.books.entries
    vendor.fault("restated", day=DAY, rows=3, symbol="ES.FUT", schema="ohlcv-1d")
    due, outcomes = either.again()
    assert [(c.schema, c.symbols, c.days) for c in due.changed] == [
        ("ohlcv-1d", ("ES.FUT",), 1), ("ohlcv-1h", ("ES.c.0",), 1)
    ]  # fmt: skip
    assert due.changed[0].why == (f"{DAY} is available, last changed 2024-07-01, 2024-03-06 when it was bought",)
    stored(outcomes)
    bars, hours = (len(either.rows(name, start=DAY, end=DAY)) for name in ("ohlcv-1d", "ohlcv-1h"))
    assert billed(vendor) == {
        ("ohlcv-1d", ("ES.FUT",), 0, 1): bars, ("ohlcv-1h", ("ES.c.0",), 0, 1): hours
    }  # fmt: skip
    after = {(r["ts_event"], r["instrument_id"]): r for r in either.rows()}
    differing = {key for key in before if before[key] != after[key]}
    assert after.keys() == before.keys()
    assert (len(differing), {at for at, _ in differing}) == (3, {ns(DAY)})
    found = either.revisions()
    assert {(r["what"], r["schema"], r["replaced_run"], r["written_run"]) for r in found} == {
        ("changed", "ohlcv-1d", outcomes[0].receipts[0].run, either.store().ledger()["run"][0])
    }  # fmt: skip
    shown = {(ns(str(r["index_time"].date())), r["instrument_id"]): r["changes"] for r in found}
    assert shown.keys() == differing
    for key, columns in shown.items():
        said = {c["column"]: (Decimal(c["before"]), Decimal(c["after"])) for c in columns}
        assert said == {c: (v, after[key][c]) for c, v in before[key].items() if v != after[key][c]}
    calls = vendor.books.calls
    due, outcomes = either.again()
    assert (due.changed, outcomes) == ((), [])
    assert not vendor.books.entries
    assert set(vendor.books.calls - calls) == {"metadata.get_dataset_range", "metadata.get_dataset_condition"}
    assert either.revisions() == found


def test_several_days_far_apart_are_bought_each_and_neighbours_together(desk, vendor):
    desk.stored(BARS)
    vendor.books.reset()
    for day in ("2023-08-15", DAY, "2024-03-06", "2024-05-30"):
        vendor.fault("restated", day=day, rows=1, symbol="ES.FUT")
    due, outcomes = desk.again()
    stored(outcomes)
    assert [c.days for c in due.changed] == [1, 2, 1]
    assert [(at, days) for _, _, at, days in billed(vendor)] == [(-203, 1), (0, 2), (86, 1)]
    assert Counter(str(r["index_time"].date()) for r in desk.revisions()) == {
        "2023-08-15": 1, DAY: 1, "2024-03-06": 1, "2024-05-30": 1
    }  # fmt: skip
    assert not desk.due().changed


def test_rows_that_came_or_went_are_shown_and_a_later_change_is_told_from_an_earlier_one(either, vendor, monkeypatch):
    ask = Ask("ES.c.0", *WEEK, "ohlcv-1h")
    either.stored(ask)
    for fault in ("drop=1,add=1", "rows=1"):
        vendor.fault(f"restated:day={DAY},symbol=ES.c.0,schema=ohlcv-1h,{fault}")
        stored(either.again()[1])
    found = either.revisions()
    assert Counter(r["what"] for r in found) == {"changed": 1, "appeared": 1, "disappeared": 1}
    runs = either.store().ledger()["run"].unique(maintain_order=True).to_list()
    assert {r["what"]: (r["written_run"], r["replaced_run"]) for r in found} == {
        "appeared": (None, runs[1]), "disappeared": (runs[0], runs[1]), "changed": (runs[0], runs[2]),
    }  # fmt: skip
    assert [r["what"] for r in either.revisions(since=runs[2])] == ["changed"]
    assert either.revisions(since=runs[0]) == found
    monkeypatch.setattr("hdi.keeping.revisions._PIECE_ROWS", 1)
    assert either.revisions() == found
    assert either.revisions(since="2100-01-01") == []
    assert either.revisions(symbols="ES.c.0", start=DAY, end=DAY, schema="ohlcv-1h") == found
    assert either.revisions(end="2024-03-04") == []
    store = either.store()
    schema, _ = schemas().find("ohlcv-1h")
    every, at = store.replaced(schema), pl.col("ts_event").to_physical() * 1000
    first = every.select(at.min()).item()
    hour, here = Window(first, first + HOUR_NS), every.filter(at == first)
    assert 0 < here.height < every.height
    assert_frame_equal(store.replaced(schema, hour), here)
    assert_frame_equal(store.replaced(schema, dataset="GLBX.MDP3"), every)
    assert store.replaced(schema, hour, "XNAS.ITCH").is_empty()
    appeared = next(r for r in found if r["what"] == "appeared")
    assert {c["before"] for c in appeared["changes"]} == {None}
    assert "close_price" in {c["column"] for c in appeared["changes"]}


def test_trades_that_share_an_instant_are_told_apart(desk, vendor):
    ask = Ask("ES.FUT", DAY, DAY, "trades")
    desk.stored(ask)
    vendor.fault("restated", day=DAY, rows=3, drop=2, add=2, symbol="ES.FUT", schema="trades")
    stored(desk.again()[1])
    assert Counter(r["what"] for r in desk.revisions()) == {"changed": 3, "disappeared": 2, "appeared": 2}
    alike(desk.rows("trades"), Truth(vendor).rows(ask))


def test_a_degraded_day_that_becomes_available_is_bought_again(desk, vendor):
    vendor.fault("degraded", day=DAY)
    desk.stored(Ask("ES.FUT", *WEEK))
    assert not desk.due().changed
    vendor.books.reset()
    vendor.clear()
    due, outcomes = desk.again()
    assert due.changed[0].why == (f"{DAY} is available, was degraded when it was bought",)
    assert list(billed(vendor)) == [("ohlcv-1d", ("ES.FUT",), 0, 1)]
    assert sum(r.superseded for o in outcomes for r in o.receipts) == 0
    assert desk.revisions() == []
    assert not desk.due().changed


def test_a_changed_day_that_is_not_for_sale_yet_waits(desk, vendor):
    desk.stored(Ask("ES.FUT", *WEEK))
    vendor.books.reset()
    vendor.fault("restated", day=DAY, rows=1, symbol="ES.FUT")
    vendor.fault("pending", day=DAY)
    due, outcomes = desk.again()
    assert (due.changed, [c.symbols for c in due.waiting], outcomes) == ((), [("ES.FUT",)], [])
    assert not vendor.books.entries


def test_what_several_requests_hold_of_a_day_is_bought_once(desk, vendor):
    desk.stored(Ask("ES.c.0", *WEEK))
    desk.stored(Ask("ES.FUT,CL.c.0", *WEEK))
    desk.stored(Ask("CL.c.0", *WEEK), refetch=True)
    held = Counter(r["instrument_id"] for r in desk.rows(start=DAY, end=DAY))
    vendor.books.reset()
    vendor.fault("restated", day=DAY)
    _, outcomes = desk.again()
    stored(outcomes)
    assert sum(billed(vendor).values()) == sum(held.values())
    assert not desk.due().changed


def test_a_day_that_could_not_be_bought_again_stays_due(desk, vendor):
    desk.stored(Ask("ES.FUT", *WEEK))
    before = desk.rows()
    vendor.fault("restated", day=DAY, rows=1, symbol="ES.FUT")
    vendor.fault("422", method=GET_RANGE)
    _, (failed,) = desk.again()
    assert failed.status == "failed"
    assert desk.rows() == before
    vendor.clear()
    vendor.fault("restated", day=DAY, rows=1, symbol="ES.FUT")
    stored(desk.again()[1])
    assert len(desk.revisions()) == 1


def test_a_symbol_that_the_vendor_knows_no_more_does_not_keep_the_others_from_being_bought(desk, vendor):
    desk.stored(Ask("ES.FUT", *WEEK))
    desk.stored(Ask("CL.c.0", *WEEK))
    vendor.books.reset()
    vendor.fault("restated", day=DAY)
    vendor.fault("422:method=symbology.resolve,symbol=CL.c.0,case=symbology_invalid_request")
    _, outcomes = desk.again()
    assert {o.symbols: o.status for o in outcomes} == {("ES.FUT",): "stored", ("CL.c.0",): "failed"}
    assert list(billed(vendor)) == [("ohlcv-1d", ("ES.FUT",), 0, 1)]
    assert [c.symbols for c in desk.due().changed] == [("CL.c.0",)]


def test_bytes_of_a_changed_day_that_had_arrived_before_a_kill_are_not_bought_again(desk, vendor):
    with contextlib.closing(Cradle()) as cradle:
        desk.stored(Ask("ES.FUT", *WEEK))
        vendor.books.reset()
        vendor.fault("restated", day=DAY, rows=2, symbol="ES.FUT")
        again = Ask("ES.FUT", DAY, DAY)
        assert cradle.run(desk, again, at="hdi.buying.buying.commit_units", refetch=True) == KILLED
        assert list(billed(vendor)) == [("ohlcv-1d", ("ES.FUT",), 0, 1)]
        due, outcomes = desk.again()
        assert len(due.changed) == 1
        stored(outcomes)
        assert not vendor.books.entries
        assert len(desk.revisions()) == 2
        assert not desk.due().changed


def test_data_of_which_nothing_was_kept_is_known_from_now_on(desk, either, vendor):
    desk.beside("bought").stored(Ask("ES.FUT", *WEEK))
    files = list(desk.beside("bought").bytes_kept().values())
    other = either
    with other.open() as data:
        assert [o.status for o in data.ingest_files(files, origin="synthetic")] == ["stored"]
    vendor.books.reset()
    due, outcomes = other.again()
    assert (due.changed, outcomes) == ((), [])
    assert [(u.schema, u.days, str(u.first), str(u.last)) for u in due.unmeasured] == [("ohlcv-1d", 5, *WEEK)]
    ledger = other.store().ledger()
    assert not other.due().unmeasured
    assert other.store().ledger().equals(ledger)
    vendor.fault("restated", day=DAY, rows=1, symbol="ES.FUT")
    stored(other.again()[1])
    assert list(billed(vendor)) == [("ohlcv-1d", ("ES.FUT",), 0, 1)]
    assert len(other.revisions()) == 1


def test_only_what_was_named_is_looked_at(desk, vendor):
    desk.stored(Ask("ES.FUT", *WEEK))
    desk.stored(Ask("ES.c.0", *WEEK, "ohlcv-1h"))
    vendor.fault("restated", day=DAY)
    assert [c.schema for c in desk.due(only=[("GLBX.MDP3", "ohlcv-1h")]).changed] == ["ohlcv-1h"]
    assert not desk.due(only=[("XNAS.ITCH", "ohlcv-1h")]).changed


def test_a_budget_that_is_too_small_for_all_changed_days_refuses_before_anything_is_billed(desk, vendor):
    desk.stored(Ask("ES.FUT", *WEEK))
    vendor.books.reset()
    vendor.fault("restated", day=DAY)
    desk.settings["ingest.budget_usd"] = "0.000000001"
    with pytest.raises(RequestError, match="the budget is"):
        desk.again()
    assert not vendor.books.entries


@pytest.fixture
def stopped(monkeypatch):
    """Buys, and ends between the download and the commit."""

    def call(work):
        def stop(*_, **__):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(buying, "commit_units", stop)
            with pytest.raises(KeyboardInterrupt):
                work()

    return call


def test_the_same_bytes_that_were_bought_twice_are_paid_twice_and_the_ledger_learns_it(desk, vendor, stopped):
    def spent():
        with desk.open() as data:
            found = data.spent()
        return found.dollars, found.unbooked

    desk.stored(Ask("ESH4", DAY, DAY, "ohlcv-1h"))
    vendor.fault("restated", day=DAY, rows=2, schema="trades")
    stopped(desk.again)
    once, again = (entry.dollars for entry in vendor.books.entries)
    assert len({slip["raw"][0] for slip in desk.slips()}) == 1
    assert spent() == (pytest.approx(once + again, abs=Decimal("1e-8")), pytest.approx(again, abs=Decimal("1e-8")))
    due, outcomes = desk.again()
    assert [c.symbols for c in due.changed] == [("ESH4",)]
    stored(outcomes)
    assert len(vendor.books.entries) == 2
    assert spent() == (pytest.approx(once + again, abs=Decimal("1e-8")), 0)
    assert desk.store().ledger()["dollars"].sum() == pytest.approx(once + again, abs=Decimal("1e-8"))
    assert not desk.due().changed
    assert desk.revisions() == []


def test_changed_days_that_together_are_over_a_limit_are_refused_before_anything_is_billed(desk, vendor):
    for schema in ("ohlcv-1d", "ohlcv-1h"):
        desk.stored(Ask("ESH4", DAY, DAY, schema))
    vendor.fault("restated", day=DAY)
    entries, dollars = len(vendor.books.entries), vendor.books.dollars
    with desk.open() as data:
        prices = [offer.quote.dollars for offer in data.revisions_due().offer().offers]
    assert len(prices) == 2
    desk.settings["ingest.max_usd_per_day"] = dollars + sum(prices) - min(prices) / 2
    with pytest.raises(RequestError, match="max_usd_per_day"):
        desk.again()
    assert len(vendor.books.entries) == entries


@pytest.fixture
def on_the_day(desk, monkeypatch):
    """Buys on the day that the vendor calls that of its last change, when something is restated."""

    def call(ask):
        clock = SimpleNamespace(time_ns=lambda: ns("2024-07-01") + 10 * HOUR_NS)
        with monkeypatch.context() as patch:
            for module in (paid, offer):
                patch.setattr(module, "time", clock)
            desk.stored(ask)

    return call


def test_a_day_that_changed_on_the_day_of_its_purchase_is_unsettled_until_the_vendor_counts_otherwise(
    desk, vendor, on_the_day
):
    vendor.fault("restated", day=DAY, rows=1, schema="ohlcv-1h")
    on_the_day(Ask("ESH4", *WEEK, "ohlcv-1h"))
    vendor.books.reset()
    for times in (1, 0):  # the count is asked for once, and kept
        calls = vendor.books.calls["metadata.get_record_count"]
        due, outcomes = desk.again()
        assert (due.changed, outcomes) == ((), [])
        assert [(u.symbols, u.days, str(u.first), u.counted) for u in due.unsettled] == [(("ESH4",), 1, DAY, True)]
        assert vendor.books.calls["metadata.get_record_count"] == calls + times


def test_a_day_that_changed_on_the_day_of_its_purchase_is_due_where_rows_came_or_went(desk, vendor, on_the_day):
    vendor.fault("restated", day=DAY, rows=1, schema="ohlcv-1h")
    on_the_day(Ask("ESH4", *WEEK, "ohlcv-1h"))
    vendor.clear()
    vendor.fault("restated", day=DAY, drop=1, schema="ohlcv-1h", symbol="ESH4")
    due, outcomes = desk.again()
    assert [c.days for c in due.changed] == [1]
    assert "another number of records" in due.changed[0].why[0]
    stored(outcomes)
    assert Counter(r["what"] for r in desk.revisions())["disappeared"] == 1
    due = desk.due()
    assert (due.changed, due.unsettled) == ((), ())


@pytest.fixture(scope="module")
def bought(shared_vendor, tmp_path_factory):
    desk = Seat(tmp_path_factory.mktemp("command") / "desk", shared_vendor)
    shared_vendor.clear()
    desk.stored(Ask("ES.FUT", *WEEK))
    shared_vendor.fault("restated", day=DAY, rows=2, drop=1, symbol="ES.FUT")
    stored(desk.again()[1])
    return desk


def hdi(desk, *words):
    return run(["--store", desk.place.url, *words])


def test_the_table_shows_each_column_before_and_after(bought, capfd):
    assert hdi(bought, "revisions", "--schema", "ohlcv-1d") == 0
    out, err = capfd.readouterr()
    assert err == "ohlcv-1d: 2 rows changed, 1 row disappeared\n"
    heading, names, _, *lines = out.splitlines()
    first, second = bought.store().ledger()["run"].unique(maintain_order=True)
    assert heading.startswith(f"GLBX.MDP3 ohlcv-1d: changed by {second}, 20")
    assert heading.endswith(f"; written before by {first}")
    assert names.split() == ["what", "time", "instrument", "symbol", "column", "before", "after"]
    cells = [line.split() for line in lines]
    assert Counter(c[0] for c in cells) == {"changed": 4, "disappeared": 5}
    assert Counter(c[4] for c in cells) == {
        "close_price": 3, "volume": 3, "open_price": 1, "high_price": 1, "low_price": 1
    }  # fmt: skip
    assert all((c[6] == "-") == (c[0] == "disappeared") for c in cells)


def test_json_is_one_object_for_each_row(bought, capfd):
    assert hdi(bought, "--json", "revisions") == 0
    found = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert Counter(f["what"] for f in found) == {"changed": 2, "disappeared": 1}
    assert all(f["index_time"] == f"{DAY}T00:00:00.000000000Z" for f in found)


def test_nothing_that_changed_is_said(bought, capfd):
    assert hdi(bought, "revisions", "--end-date", WEEK[0]) == 0
    assert capfd.readouterr() == ("", "no stored row was changed after the fact\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--since", "yesterday"], "neither a run of this store nor a date"),
        (["--since", "2026"], "begin with"),
        (["--schema", "ohlcv-1x"], "unknown schema"),
        (["--symbols", "ESZ9"], "unknown symbol"),
        (["--start-date", "2024-13-01"], "is not a date"),
    ],
)
def test_what_nobody_knows_is_refused(bought, capfd, words, said):
    assert hdi(bought, "revisions", *words) == 2
    assert said in capfd.readouterr().err

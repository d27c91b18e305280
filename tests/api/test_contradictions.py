"""A vendor that contradicts itself, and paid bytes of different age: nothing is believed empty, nothing old wins."""

from dataclasses import replace
from decimal import Decimal

import pytest

from api.desk import Ask
from hdi.buying import buying
from hdi.errors import BrokenDelivery, UnitFailed
from hdi.sources.databento import Databento

DAY = Ask("ES.c.0", "2024-03-14", "2024-03-14", "ohlcv-1h")
WEEK = replace(DAY, start="2024-03-11", end="2024-03-15")
GET_RANGE = "timeseries.get_range"


@pytest.fixture
def killed(monkeypatch):
    """Ingests, and ends between the download and the commit."""

    def call(desk, ask, **options):
        def stop(*_, **__):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(buying, "commit_units", stop)
            with pytest.raises(KeyboardInterrupt):
                desk.ingest(ask, **options)

    return call


def closes(desk, ask=DAY):
    return [(r["ts_event"], r["close_price"]) for r in desk.rows("ohlcv-1h", "ESH4", ask.start, ask.end)]


def test_no_record_is_not_believed_where_bytes_are_billed(desk, vendor):
    ask = replace(DAY, schema="ohlcv-1d")
    vendor.fault("wrong-count:by=-1")
    with pytest.raises(UnitFailed, match="counts no record"):
        desk.offer(ask)
    assert vendor.books.entries == ()
    vendor.clear()
    assert [r.stored for r in desk.stored(ask)] == [1]
    vendor.fault("wrong-count:by=-1")
    with pytest.raises(UnitFailed, match="counts no record"):
        desk.ingest(ask, refetch=True)
    assert len(desk.rows()) == 1


@pytest.mark.parametrize("method", ["get_record_count", "get_billable_size", "get_cost"])
def test_a_refusal_to_resolve_what_was_resolved_is_no_empty_day(desk, vendor, method):
    vendor.fault(f"422:case=symbology_invalid_request,method={method},times=1")
    with pytest.raises(UnitFailed, match="resolves none of them"):
        desk.offer(DAY)
    assert vendor.books.entries == ()
    assert sum(r.stored for r in desk.stored(DAY)) > 0


def test_an_old_download_never_replaces_what_was_ordered_later(desk, vendor, killed):
    killed(desk, WEEK)
    vendor.fault("restated", day=DAY.start)
    desk.stored(DAY, refetch=True)
    fresh = closes(desk)
    vendor.books.reset()
    desk.stored(WEEK)
    assert closes(desk) == fresh
    assert len({ns // 86_400_000_000_000 for ns, _ in closes(desk, WEEK)}) == 5


def test_an_old_download_of_a_parent_never_replaces_a_contract_that_was_ordered_later(desk, vendor, killed):
    parent = replace(DAY, symbols="ES.FUT")
    killed(desk, parent)
    vendor.fault("restated", day=DAY.start)
    desk.stored(replace(DAY, symbols="ESH4"), refetch=True)
    fresh = closes(desk)
    desk.stored(parent)
    assert closes(desk) == fresh
    assert desk.ingest(parent) == []


def test_a_fresh_lake_holds_what_was_ordered_last(desk, vendor):
    desk.stored(WEEK)
    vendor.fault("restated", day=DAY.start)
    desk.stored(DAY, refetch=True)
    paid = vendor.books.entries
    other = desk.beside("fresh", shared=True)
    other.stored(WEEK)
    assert closes(other, WEEK) == closes(desk, WEEK)
    assert vendor.books.entries == paid


def test_an_order_of_what_is_stored_that_was_killed_is_finished_without_paying_again(desk, vendor, killed):
    desk.stored(DAY)
    before = closes(desk)
    vendor.fault("restated", day=DAY.start)
    killed(desk, DAY, refetch=True)
    assert closes(desk) == before
    paid = vendor.books.entries
    desk.stored(DAY)
    assert closes(desk) != before
    assert vendor.books.entries == paid
    assert desk.ingest(DAY) == []


def test_bytes_that_lack_records_stand_back_where_there_are_better_ones(desk, vendor):
    desk.stored(DAY)
    vendor.fault("empty")
    assert isinstance(desk.errors(DAY, refetch=True)[0], BrokenDelivery)
    vendor.clear()
    paid = vendor.books.entries
    other = desk.beside("fresh", shared=True)
    other.stored(DAY)
    assert closes(other) == closes(desk)
    assert vendor.books.entries == paid


def test_whole_bytes_of_a_dead_process_are_kept_though_the_count_differed(desk, vendor, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    vendor.fault("wrong-count:by=1")
    with monkeypatch.context() as patch:
        patch.setattr("hdi.buying.paid.check", die)
        with pytest.raises(KeyboardInterrupt):
            desk.ingest(DAY)
    vendor.clear()
    paid = vendor.books.entries
    assert len(paid) == 1
    receipts = desk.stored(DAY)
    assert vendor.books.entries == paid
    assert sum(r.dollars for r in receipts) == pytest.approx(vendor.books.dollars, rel=Decimal("1e-2"))
    assert desk.leftovers() == []


def test_a_broken_stream_is_not_tried_again_beyond_the_budget(desk, vendor):
    trades = replace(DAY, schema="trades")
    vendor.fault("cut:after=20000")
    price = desk.offer(trades).quote.dollars
    desk.settings["ingest.budget_usd"] = price
    (error,) = desk.errors(trades)
    assert "budget" in error.message
    assert vendor.books.calls[GET_RANGE] == 1
    assert 0 < vendor.books.dollars <= price


@pytest.mark.parametrize(("other", "what"), [
    ({"symbols": ("CL.c.0",)}, "CL.c.0"),
    ({"stype": "raw_symbol", "symbols": ("ESH4",)}, "by raw_symbol"),
])  # fmt: skip
def test_bytes_of_something_else_are_kept_and_not_stored(desk, monkeypatch, other, what):
    right = Databento.download
    monkeypatch.setattr(
        Databento, "download", lambda self, order, path, *rest: right(self, replace(order, **other), path, *rest)
    )
    (error,) = desk.errors(DAY)
    assert isinstance(error, BrokenDelivery)
    assert what in error.message
    assert desk.rows("ohlcv-1h") == []
    (kept,) = desk.bytes_kept()
    assert kept.rpartition("/")[2] in error.hint


def test_a_dataset_is_taken_as_it_was_meant(desk, vendor):
    desk.stored(replace(DAY, dataset=" glbx.mdp3 "))
    assert {e.dataset for e in vendor.books.entries} == {"GLBX.MDP3"}

"""Days without data, symbols that come and go, and the end of what there is."""

import datetime as dt
from dataclasses import replace

import pytest

from api.desk import GLBX, XNAS, Ask
from api.truth import Truth, alike
from hdi.errors import RequestError, UnknownSymbol
from hdi.model import date_ns, iso_ns
from hdi.rehearsal.faults import Call

GET_RANGE = "timeseries.get_range"


def covered_until(desk):
    return iso_ns(desk.store().coverage()["end"].max())[:10]


@pytest.mark.parametrize("schema", ["ohlcv-1d", "trades", "statistics", "definition"])
def test_a_day_without_a_session_is_confirmed_empty_and_never_asked_for_again(desk, vendor, schema):
    saturday = Ask("ES.c.0,CL.FUT", "2024-03-16", "2024-03-16", schema)
    receipts = desk.stored(saturday)
    assert [(r.status, r.fetched, r.dollars) for r in receipts] == [("complete", 0, 0)] * 2
    assert vendor.books.entries == ()
    assert vendor.books.calls[GET_RANGE] == 0
    calls = vendor.books.calls
    assert desk.ingest(saturday) == []
    assert vendor.books.calls == calls
    with desk.open() as data:
        found = data.query("ES.c.0", "2024-03-16", "2024-03-16", schema=schema)
        assert found.collect().height == 0
        assert any("confirmed empty" in line for line in found.explain())


def test_a_holiday_of_shares_is_confirmed_empty_in_its_week(desk, vendor, truth):
    week = Ask("SPY", "2024-03-28", "2024-04-01", "ohlcv-1d", XNAS)
    desk.stored(week)
    alike(desk.rows(), truth.rows(week))
    vendor.books.reset()
    assert desk.ingest(Ask("SPY", "2024-03-29", "2024-03-29", "ohlcv-1d", XNAS)) == []
    assert not vendor.books.calls


@pytest.mark.parametrize("window", [
    ("2024-03-04", "2024-03-15"), ("2024-06-20", "2024-06-30"), ("2010-06-07", "2010-06-08"),
], ids=["middle", "end", "beginning"])  # fmt: skip
@pytest.mark.parametrize("symbol", ["ESZ1", "XX.c.0", "ESH4X", "ZZ.FUT", "999999"])
def test_a_symbol_that_stands_for_nothing_is_refused_before_anything_is_billed(desk, vendor, symbol, window):
    with pytest.raises(UnknownSymbol) as caught:
        desk.ingest(Ask(f"ES.c.0,{symbol}", *window))
    assert caught.value.exit_code == 2
    assert symbol in caught.value.message
    assert vendor.books.entries == ()
    assert vendor.books.calls[GET_RANGE] == 0
    assert desk.store().ledger().height == 0


def test_an_unknown_contract_is_answered_with_the_closest_ones(desk):
    with pytest.raises(UnknownSymbol) as caught:
        desk.ingest(Ask("ESH5,ESX4", "2024-03-04", "2024-03-15"))
    assert "ESX4" in caught.value.message
    assert "ESH5" not in caught.value.message
    assert "ESZ4" in caught.value.hint or "ESU4" in caught.value.hint


def test_a_contract_that_has_expired_is_not_what_it_may_have_meant_itself(desk, vendor):
    desk.stored(Ask("ESH4,ESM4", "2024-03-11", "2024-03-15"))
    paid = vendor.books.entries
    with pytest.raises(UnknownSymbol, match="ESH4") as caught:
        desk.ingest(Ask("ESH4", "2024-04-15", "2024-04-19"))
    assert "ESM4" in caught.value.hint
    assert "ESH4" not in caught.value.hint
    assert vendor.books.entries == paid


@pytest.mark.parametrize("schema", ["ohlcv-1d", "definition"])
def test_a_contract_that_expires_in_the_window_is_empty_after_it(desk, vendor, truth, schema):
    ask = Ask("ESH4", "2024-03-11", "2024-03-28", schema)
    desk.stored(ask)
    alike(desk.rows(schema), truth.rows(ask))
    vendor.books.reset()
    assert desk.ingest(Ask("ESH4", "2024-03-20", "2024-03-25", schema)) == []
    assert not vendor.books.calls


@pytest.mark.parametrize("schema", ["ohlcv-1d", "definition"])
def test_a_contract_that_is_listed_in_the_window_is_empty_before_it(desk, vendor, truth, schema):
    children = truth.client.symbology.resolve(
        "GLBX.MDP3", ["ES.FUT"], "parent", "instrument_id", "2024-01-02", "2024-06-30"
    )
    listed, first = min((raw, i[0]["d0"]) for raw, i in children["result"].items() if i[0]["d0"] > "2024-03-01")
    ask = Ask(listed, "2024-02-15", "2024-04-05", schema)
    desk.stored(ask)
    assert "2024-03-01" < first < "2024-04-05"
    alike(desk.rows(schema), truth.rows(ask))
    parent = Ask("ES.FUT", "2024-02-15", "2024-04-05", schema)
    desk.stored(parent)
    alike(desk.rows(schema), truth.rows(parent))
    assert vendor.books.billed_bytes == truth.size(ask, parent)


def test_a_window_is_cut_at_the_available_end_and_the_rest_is_bought_when_it_is_there(
    desk, rehearse, vendor, truth, trusted, market
):
    ask = Ask("ES.c.0,CL.FUT", "2024-06-20", "2024-07-31")
    assert any("available up to 2024-07-01" in note for note in desk.offer(ask).notes)
    desk.stored(ask)
    june = Ask(ask.symbols, "2024-06-20", "2024-06-30")
    assert covered_until(desk) == "2024-07-01"
    assert vendor.books.billed_bytes == truth.size(june)
    alike(desk.rows(), truth.rows(june))
    later = trusted(rehearse(**market | {"until": "2024-07-10"}))
    desk.vendor = later
    desk.stored(ask)
    rest = Ask(ask.symbols, "2024-07-01", "2024-07-09")
    told = Truth(later)
    alike(desk.rows(), told.union(june, rest))
    assert covered_until(desk) == "2024-07-10"
    ordered = [slip["start"] for slip in desk.slips()]
    assert min(ordered) == date_ns(dt.date(2024, 6, 20))
    assert {s for s in ordered if s != min(ordered)} == {date_ns(dt.date(2024, 7, 1))}


@pytest.mark.parametrize(("start", "end", "words"), [
    ("2030-01-01", "2030-01-31", "not happened yet"), ("2024-07-01", "2024-07-02", "not happened yet"),
    ("2001-01-01", "2001-12-31", "before"), ("2024-03-15", "2024-03-14", "not before"),
])  # fmt: skip
def test_a_window_outside_of_what_there_is_is_refused(desk, vendor, start, end, words):
    with pytest.raises(RequestError, match=words) as caught:
        desk.ingest(Ask("ES.c.0", start, end))
    assert caught.value.exit_code == 2
    assert caught.value.hint
    assert vendor.books.entries == ()


def test_a_window_that_begins_before_the_data_starts_where_they_do(desk, vendor, truth):
    ask = Ask("ES.c.0", "2010-05-01", "2010-06-15")
    assert any("begins at 2010-06-06" in note for note in desk.offer(ask).notes)
    desk.stored(ask)
    inside = Ask("ES.c.0", "2010-06-06", "2010-06-15")
    alike(desk.rows(), truth.rows(inside))
    assert vendor.books.billed_bytes == truth.size(inside)
    vendor.books.reset()
    desk.ingest(ask)
    assert vendor.books.entries == ()


class Moving:
    """Moves a vendor's available end while it serves."""

    def __init__(self, vendor):
        self._service = vendor._service

    def back(self, *, told):
        """To four days before; ``told`` False: what the vendor says of its range stays as it was."""
        if not told:
            before = self._service.answer(Call("metadata.get_dataset_range", {"dataset": GLBX}))
            self._service._answers["metadata.get_dataset_range"] = lambda _: before
        self._service._until = dt.date(2024, 6, 27)


@pytest.mark.parametrize("schema", ["ohlcv-1d", "statistics"])
def test_an_end_that_is_earlier_than_the_vendor_says_is_taken_from_its_refusal(desk, vendor, truth, schema):
    ask = Ask("ES.c.0,CL.c.0", "2024-06-20", "2024-06-30", schema)
    Moving(vendor).back(told=False)
    offer = desk.offer(ask)
    assert any("available up to 2024-06-27" in note for note in offer.notes)
    desk.stored(ask)
    shorter = replace(ask, end="2024-06-26")
    alike(desk.rows(schema), truth.rows(shorter))
    assert vendor.books.billed_bytes == truth.size(shorter)
    assert covered_until(desk) == "2024-06-27"
    with pytest.raises(UnknownSymbol, match=r"ESZ1 \(raw_symbol\)"):
        desk.offer(replace(ask, symbols="ES.c.0,ESZ1"))


@pytest.mark.parametrize("lots", [1, 2])
def test_an_end_that_moves_back_after_the_offer_shortens_the_order(desk, vendor, truth, lots):
    ask = Ask("ES.c.0,CL.c.0", "2024-05-28", "2024-06-30", "statistics")
    if lots == 2:
        desk.settings["ingest.download_records"] = 1
    with desk.open() as data:
        buying = desk.buying(data, ask)
        offer = buying.offer()
        Moving(vendor).back(told=True)
        assert [o.error for o in buying.run(offer)[1]] == [None] * lots
    shorter = replace(ask, end="2024-06-26")
    alike(desk.rows("statistics"), truth.rows(shorter))
    assert vendor.books.billed_bytes == truth.size(shorter)
    assert covered_until(desk) == "2024-06-27"
    vendor._service._until = dt.date(2024, 7, 1)
    vendor.books.reset()
    desk.stored(ask)
    assert vendor.books.billed_bytes == truth.size(ask) - truth.size(shorter)
    alike(desk.rows("statistics"), truth.rows(ask))

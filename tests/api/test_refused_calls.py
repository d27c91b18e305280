"""What the vendor refuses or cannot answer: how often it is asked, what fails, and what a rerun buys."""

import re

import pytest

from api.desk import Ask
from api.truth import alike
from hdi.errors import AccountRefused, RequestError, UnitFailed, VendorRefused, VendorUnavailable

GET_RANGE = "timeseries.get_range"
TRIES = 5
#: Two months of statistics are two downloads.
ASK = Ask("ES.c.0", "2024-03-25", "2024-04-05", "statistics")
MARCH, APRIL = (
    Ask("ES.c.0", "2024-03-25", "2024-03-31", "statistics"),
    Ask("ES.c.0", "2024-04-01", "2024-04-05", "statistics"),
)
PASSING = ["429:retry_after=0", "500", "503", "504", "timeout:seconds=0", "reset"]


@pytest.fixture
def desk(desk):
    desk.settings |= {"ingest.download_records": 1, "ingest.workers": 1}
    return desk


def ended_clean(desk, truth):
    alike(desk.rows("statistics"), truth.rows(ASK))
    assert not desk.store().quarantine().height
    assert desk.api_errors() == []
    assert desk.leftovers() == []


@pytest.mark.fault("vendor", "429, 500, 503, 504, hung up, reset: for a while", "lake")
@pytest.mark.parametrize("fault", PASSING)
def test_what_may_pass_is_tried_again_and_billed_once(desk, vendor, truth, fault):
    vendor.fault(fault, method=GET_RANGE, times=TRIES - 1)
    desk.stored(ASK)
    assert vendor.books.calls[GET_RANGE] == TRIES - 1 + 2
    assert vendor.books.billed_bytes == truth.size(ASK)
    ended_clean(desk, truth)


@pytest.mark.fault("vendor", "429, 500, 503, 504, hung up, reset: until the next run", "lake")
@pytest.mark.parametrize("fault", PASSING)
def test_what_does_not_pass_fails_its_unit_alone_and_a_rerun_buys_exactly_that(desk, vendor, truth, fault):
    vendor.fault(fault, method=GET_RANGE, day="2024-03-27")
    failed, done = desk.ingest(ASK)
    assert vendor.books.calls[GET_RANGE] == TRIES + 1
    assert (failed.status, done.status) == ("failed", "stored")
    assert isinstance(failed.error, VendorUnavailable)
    assert failed.error.exit_code == 1
    (receipt,) = failed.receipts
    assert (receipt.status, receipt.stored, receipt.exit_code) == ("failed", 0, 1)
    assert desk.store().ledger()["status"].to_list().count("failed") == 1
    (entry,) = desk.api_errors()
    assert (entry["error_type"], entry["symbol"], entry["schema"]) == ("ApiError", "ES.c.0", "statistics")
    assert "tries" in entry["error_message"]
    assert vendor.books.billed_bytes == truth.size(APRIL)
    alike(desk.rows("statistics"), truth.rows(APRIL))
    vendor.clear()
    vendor.books.reset()
    desk.stored(ASK)
    assert vendor.books.billed_bytes == truth.size(MARCH)
    ended_clean(desk, truth)


@pytest.mark.fault("vendor", "401, 402, 403", "lake")
@pytest.mark.parametrize(("fault", "kind", "code"), [
    ("401", AccountRefused, 3), ("402", AccountRefused, 3), ("403", AccountRefused, 3),
    ("403:case=license_not_found_unauthorized", AccountRefused, 3),
])  # fmt: skip
def test_a_refusal_of_the_account_is_heard_once_and_nothing_more_is_ordered(desk, vendor, truth, fault, kind, code):
    vendor.fault(fault, method=GET_RANGE)
    outcomes = desk.ingest(ASK)
    assert vendor.books.calls[GET_RANGE] == 1
    assert vendor.books.entries == ()
    assert isinstance(outcomes[0].error, kind)
    assert [o.status for o in outcomes] == ["failed", "failed"]
    assert max(o.error.exit_code for o in outcomes) == code
    assert desk.rows("statistics") == []
    assert len(desk.api_errors()) == 2
    vendor.clear()
    desk.stored(ASK)
    assert vendor.books.billed_bytes == truth.size(ASK)
    ended_clean(desk, truth)


@pytest.mark.parametrize("fault", ["401", "402", "403", "422:case=schema_not_supported"])
def test_a_refusal_before_any_order_is_heard_once_and_stops_it(desk, vendor, fault):
    vendor.fault(fault)
    with pytest.raises((VendorRefused, RequestError)) as caught:
        desk.offer(ASK)
    assert caught.value.exit_code == (2 if fault.startswith("422") else 3)
    assert vendor.books.calls["metadata.get_dataset_range"] == 1
    assert vendor.books.calls[GET_RANGE] == 0
    assert vendor.key not in str(caught.value)


@pytest.mark.fault("vendor", "422", "lake")
@pytest.mark.parametrize("case", [
    "dataset_unavailable_range", "schema_not_supported", "data_start_before_available_start",
    "symbology_invalid_request",
])  # fmt: skip
def test_an_order_that_is_refused_is_made_once_and_the_others_go_on(desk, vendor, truth, case):
    vendor.fault("422", case=case, method=GET_RANGE, day="2024-03-27")
    failed, done = desk.ingest(ASK)
    assert (failed.status, done.status) == ("failed", "stored")
    assert failed.error.exit_code == 2
    assert vendor.books.calls[GET_RANGE] == 2
    assert vendor.books.billed_bytes == truth.size(APRIL)
    assert len(desk.api_errors()) == 1
    vendor.clear()
    desk.stored(ASK)
    assert vendor.books.billed_bytes == truth.size(ASK)
    ended_clean(desk, truth)


def test_a_failed_order_of_some_symbols_leaves_those_of_another_type_alone(desk, vendor, truth):
    ask = Ask("ES.c.0,ES.FUT,CL.c.0,CLK4", "2024-04-01", "2024-04-05")
    vendor.fault("500", method=GET_RANGE, symbol="ES.FUT")
    errors = desk.errors(ask)
    # ES.c.0 was to come with its parent: it is not claimed without it.
    assert all(isinstance(e, UnitFailed) for e in errors)
    others = Ask("CL.c.0,CLK4", "2024-04-01", "2024-04-05")
    alike(desk.rows(), truth.rows(others))
    assert vendor.books.billed_bytes == truth.size(others)
    vendor.clear()
    desk.stored(ask)
    assert vendor.books.billed_bytes == truth.size(ask)
    alike(desk.rows(), truth.rows(ask))
    assert desk.ingest(ask) == []


def test_a_count_that_cannot_be_had_fails_the_unit_before_it_is_billed(desk, vendor, truth):
    offer_only = vendor.books.calls
    assert not offer_only
    with desk.open() as data:
        buying = desk.buying(data, ASK)
        offer = buying.offer()
        vendor.fault("500", method="metadata.get_record_count", day="2024-03-27")
        failed, done = buying.run(offer)[1]
    assert (failed.status, done.status) == ("failed", "stored")
    assert vendor.books.billed_bytes == truth.size(APRIL)
    vendor.clear()
    desk.stored(ASK)
    ended_clean(desk, truth)


def test_the_wait_that_the_vendor_asks_for_is_told(desk, vendor):
    vendor.fault("429:retry_after=1", method=GET_RANGE, times=1)
    waits = []
    with desk.open() as data:
        buying = desk.buying(data, ASK, on_wait=lambda why, seconds: waits.append((why, seconds)))
        assert [o.status for o in buying.run(buying.offer())[1]] == ["stored", "stored"]
    assert any(re.search("429", why) and 1 <= seconds < 2 for why, seconds in waits)

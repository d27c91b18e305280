"""Streams that are not what was ordered: nothing of them is stored, the bytes are kept, and a rerun knows."""

from decimal import Decimal

import pytest

from api.desk import Ask
from api.truth import alike

GET_RANGE = "timeseries.get_range"
ASK = Ask("ES.c.0", "2024-03-14", "2024-03-15", "trades")
BAD, GOOD = (Ask("ES.c.0", day, day, "trades") for day in ("2024-03-14", "2024-03-15"))
#: Damage that is found in the bytes themselves; the last ones only by counting.
NOT_WHOLE = {"short": "short:after=3000", "corrupt": "corrupt"}
MISCOUNTED = {"boundary": "boundary", "empty": "empty"}
ON_BAD_DAY = {"day": "2024-03-14", "times": 1}


@pytest.fixture
def desk(desk):
    desk.settings |= {"ingest.download_records": 1, "ingest.workers": 1}
    return desk


def ended_clean(desk, truth):
    alike(desk.rows("trades"), truth.rows(ASK))
    assert not desk.store().quarantine().height
    assert desk.api_errors() == []
    assert desk.leftovers() == []


def found_and_kept(desk, outcomes, truth):
    """The bad day failed with its bytes kept beside their slip; the other day is stored."""
    failed, done = outcomes
    assert (failed.status, done.status) == ("failed", "stored")
    assert failed.error.exit_code == 1
    assert [r.status for r in failed.receipts] == ["failed"]
    alike(desk.rows("trades"), truth.rows(GOOD))
    assert len(desk.api_errors()) == 1
    (bad,) = [name for name in desk.bytes_kept() if "/2024-03-14/" in name]
    assert f"{bad}.json" in desk.raw()
    assert bad.rpartition("/")[2] in str(failed.error)


@pytest.mark.fault("vendor", "a body that ends early, or is corrupt", "lake")
@pytest.mark.parametrize("fault", NOT_WHOLE.values(), ids=NOT_WHOLE)
def test_bytes_that_are_not_whole_are_kept_and_ordered_again_by_the_next_run(desk, vendor, truth, fault):
    vendor.fault(fault, **ON_BAD_DAY)
    found_and_kept(desk, desk.ingest(ASK), truth)
    vendor.books.reset()
    desk.stored(ASK)
    assert vendor.books.billed_bytes == truth.size(BAD)
    ended_clean(desk, truth)


@pytest.mark.fault("vendor", "a body that lacks records, or is empty", "lake")
@pytest.mark.parametrize("fault", MISCOUNTED.values(), ids=MISCOUNTED)
def test_bytes_that_lack_records_are_kept_and_bought_again_only_when_told(desk, vendor, truth, fault):
    vendor.fault(fault, **ON_BAD_DAY)
    found_and_kept(desk, desk.ingest(ASK), truth)
    vendor.books.reset()
    (error,) = desk.errors(ASK)
    assert "records arrived" in error.message
    assert vendor.books.entries == ()
    assert vendor.books.calls["metadata.get_record_count"] >= 1
    alike(desk.rows("trades"), truth.rows(GOOD))
    desk.stored(BAD, refetch=True)
    assert vendor.books.billed_bytes == truth.size(BAD)
    ended_clean(desk, truth)
    assert desk.ingest(ASK) == []


@pytest.mark.fault("vendor", "a count of records that is wrong", "lake")
def test_a_wrong_count_keeps_the_bytes_and_a_right_one_later_refines_them(desk, vendor, truth):
    vendor.fault("wrong-count", day="2024-03-14")
    outcomes = desk.ingest(ASK)
    found_and_kept(desk, outcomes, truth)
    assert vendor.books.billed_bytes == truth.size(ASK)
    assert vendor.books.calls[GET_RANGE] == 2
    vendor.clear()
    desk.stored(ASK)
    assert vendor.books.calls[GET_RANGE] == 2
    ended_clean(desk, truth)


def test_a_count_that_is_wrong_for_once_is_asked_for_again(desk, vendor, truth):
    vendor.fault("wrong-count", day="2024-03-14", times=2)  # the quote's, and the lot's
    desk.stored(ASK)
    assert vendor.books.billed_bytes == truth.size(ASK)
    ended_clean(desk, truth)


@pytest.mark.fault("network", "a stream of the vendor is cut", "lake")
def test_a_stream_that_is_cut_is_ordered_again_and_its_cost_is_in_the_ledger(desk, vendor, truth):
    vendor.fault("cut:after=6000", day="2024-03-14", times=2)
    receipts = desk.stored(ASK)
    assert vendor.books.calls[GET_RANGE] == 4
    assert sum(e.finished for e in vendor.books.entries) == 2
    ended_clean(desk, truth)
    paid = sum(r.dollars for r in receipts)
    clean = Decimal(sum(str_decimal(truth.quote(day)[2]) for day in (BAD, GOOD)))
    assert clean < paid <= vendor.books.dollars + Decimal("1e-8")
    assert [s["wasted"] > 0 for s in desk.slips()] == [True, False]


def str_decimal(number):
    return Decimal(str(number))


@pytest.mark.fault("network", "a stream of the vendor is cut at every try", "lake")
def test_a_stream_that_is_cut_five_times_fails_its_unit_and_a_rerun_buys_it(desk, vendor, truth):
    vendor.fault("cut:after=6000", day="2024-03-14")
    failed, done = desk.ingest(ASK)
    assert (failed.status, done.status, failed.error.exit_code) == ("failed", "stored", 1)
    assert vendor.books.calls[GET_RANGE] == 6
    assert 0 < failed.dollars <= vendor.books.dollars
    assert [name for name in desk.bytes_kept() if "/2024-03-14/" in name] == []
    vendor.clear()
    vendor.books.reset()
    desk.stored(ASK)
    assert vendor.books.billed_bytes == truth.size(BAD)
    ended_clean(desk, truth)

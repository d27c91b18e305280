"""What was spent: by the ledger and by slips, on the day on which it was bought; and what may still be."""

import datetime as dt
from dataclasses import replace
from decimal import Decimal

import polars as pl
import pytest

from hdi.buying.estimate import USUAL, estimate, rate
from hdi.buying.paid import Slip
from hdi.buying.spending import Limits, grouped, spent, summed, total
from hdi.errors import RequestError
from hdi.frames import LEDGER, NAMED, RESOLVED
from hdi.journal import Entry, took
from hdi.model import DAY_NS, Order, RawFile, Window, date_ns
from hdi.testing.material import schemas

MARCH = date_ns(dt.date(2024, 3, 1))
HOUR = 3_600 * 10**9
NOW = MARCH + 9 * DAY_NS + HOUR


def ledger(*rows):
    """Receipts: dollars, and what else they say."""
    base = {"unit": 1, "unit_id": "u", "run": "r", "status": "complete", "origin": "synthetic", "dataset": "D",
            "schema": "trades", "symbol": "A", "committed_at": NOW}  # fmt: skip
    made = [base | {"dollars": Decimal(d)} | more for d, more in rows]
    return pl.DataFrame(made, schema=LEDGER)


def slip(dollars, digest="d1", *, at=NOW, records=10, arrived=10, **more):
    window = Window(MARCH, MARCH + DAY_NS)
    return Slip(
        "synthetic", Order("D", "trades", "raw_symbol", ("A",), window), ("A",), (window,), records, Decimal(dollars),
        pl.DataFrame(schema=RESOLVED), pl.DataFrame(schema=NAMED), arrived=arrived, bought_at=at,
        raw=RawFile("p", digest, 1) if digest else None, **more,
    )  # fmt: skip


def unbooked(rows):
    return total(rows.filter(~pl.col("booked")))


def test_a_ledger_row_counts_on_the_day_on_which_its_bytes_were_bought():
    rows = spent(ledger(("2", {"raw_digest": "d1"}), ("3", {})), [slip("2", at=MARCH - HOUR)])
    assert grouped(rows, "day").rows() == [
        ("2024-02-29", Decimal(2), Decimal(0)), ("2024-03-10", Decimal(3), Decimal(0)),
    ]  # fmt: skip
    assert grouped(rows, "month")["month"].to_list() == ["2024-02", "2024-03"]


def test_a_slip_that_no_receipt_has_is_spent_and_said_not_to_be_in_the_ledger():
    rows = spent(ledger(("1.5", {})), [slip("0.25")])
    assert (total(rows), unbooked(rows)) == (Decimal("1.75"), Decimal("0.25"))


@pytest.mark.parametrize(("booked", "left"), [("0.250000000", "0"), ("0.2499999", "0"), ("0.1", "0.15"), ("0", "0.25")])
def test_of_a_slip_that_was_stored_in_part_the_rest_is_not_in_the_ledger(booked, left):
    rows = spent(ledger((booked, {"raw_digest": "d1"})), [slip("0.25")])
    assert unbooked(rows) == Decimal(left)


def test_a_broken_delivery_costs_what_the_ledger_says_and_without_a_receipt_what_was_ordered():
    broken = slip("0.25", arrived=-1)
    assert total(spent(ledger(("0.1", {"raw_digest": "d1"})), [broken])) == Decimal("0.1")
    assert total(spent(ledger(), [broken])) == Decimal("0.25")


def test_bytes_that_were_bought_twice_are_paid_twice_each_at_its_time():
    first, again = slip("2", at=MARCH), replace(slip("2", at=NOW), raw=RawFile("raw/p2", "d1", 1))
    old = {"raw_digest": "d1", "raw_file": "raw/p", "committed_at": MARCH + 1}
    rows = spent(ledger(("2", old)), [first, again])
    assert (total(rows), unbooked(rows)) == (4, 2)
    rows = spent(ledger(("2", old), ("2", old | {"raw_file": "raw/p2", "committed_at": NOW + 1})), [first, again])
    assert (rows["at"].to_list(), unbooked(rows)) == ([MARCH, NOW], 0)


def test_what_was_committed_before_a_purchase_was_not_paid_by_it():
    rows = spent(ledger(("2", {"raw_digest": "d1", "raw_file": "raw/p", "committed_at": MARCH})), [slip("2", at=NOW)])
    assert rows.select("at", "booked").rows() == [(MARCH, True), (NOW, False)]


def test_a_batch_job_is_paid_once_with_the_job_and_not_with_its_files():
    file, job = slip("5", "d1", batch="J"), slip("5", "", batch="J", arrived=-1)
    assert total(spent(ledger(), [file, job])) == 5
    assert total(spent(ledger(("5", {"batch": "J", "status": "ordered"})), [file])) == 5


def test_amounts_add_up_exactly_in_any_number():
    rows = spent(ledger(*(("0.000000001", {"symbol": f"S{i % 7}"}) for i in range(10_000))), [])
    assert total(rows) == Decimal("0.00001")
    assert sum(grouped(rows, "symbol")["dollars"]) == Decimal("0.00001")
    assert grouped(rows, "job").rows() == [(None, Decimal("0.00001"), Decimal(0))]


def test_what_spending_cannot_be_shown_by_is_answered_with_the_closest():
    with pytest.raises(RequestError, match="'dy'") as refused:
        summed(spent(ledger(), []), "dy", Window(0, NOW), "synthetic")
    assert "day" in refused.value.hint


@pytest.mark.parametrize(("limits", "cost", "left"), [
    (Limits(Decimal(10)), "4", None), (Limits(Decimal(10)), "4.000000001", "$4.00"),
    (Limits(None, Decimal(20)), "9", None), (Limits(None, Decimal(20)), "9.01", "$9.00"),
    (Limits(Decimal(10), Decimal(11)), "1", "$0.00"), (Limits(Decimal(5)), "0", None),
])  # fmt: skip
def test_a_limit_is_of_the_utc_day_and_of_the_utc_month(limits, cost, left):
    today, month = date_ns(dt.date(2024, 3, 10)), MARCH
    rows = spent(ledger(
        ("100", {"committed_at": month - 1}), ("5", {"committed_at": today - 1}), ("6", {"committed_at": today}),
    ), [])  # fmt: skip
    if left is None:
        limits.check(Decimal(cost), rows, NOW)
        return
    with pytest.raises(RequestError) as refused:
        limits.check(Decimal(cost), rows, NOW)
    assert f"{left} is left" in refused.value.message
    assert "Nothing of it was bought" in refused.value.hint


def test_without_a_limit_there_is_none():
    assert not Limits()
    assert Limits().left(spent(ledger(), []), NOW) is None
    assert Limits(Decimal(0)).left(spent(ledger(), []), NOW) == 0


# Estimates.


def entry(run, took, **of):
    """A journal of a run that took so many seconds and bought something."""
    return Entry(**{
        "run": run, "status": "done", "started": 10**9, "ended": round((1 + took) * 10**9), "pid": 1, "host": "",
        "store": {}, "request": {"derive": False}, "offer": {"units": 1, "records": 5, "dollars": "1"}, **of,
    })  # fmt: skip


def test_the_pace_is_that_of_whole_runs_with_their_downloads():
    rows = ledger(*(
        ("0", {"run": run, "fetched": 1_000, "seconds": 0.1, "committed_at": at * 10**9})
        for run, at in (("a", 21), ("a", 22), ("b", 201), ("without a journal", 300))
    ), ("0", {"run": "a", "fetched": 0, "seconds": 100.0}))  # fmt: skip
    seconds = took([entry("a", 21.9), entry("b", 8.1), entry("of another kind", 1_000)])
    assert rate(rows, seconds) == pytest.approx(3_000 / 30)
    assert rate(rows, {}) is None
    assert rate(ledger(), seconds) is None


@pytest.mark.parametrize("of", [
    {"status": "died"}, {"status": "failed"}, {"status": "running"}, {"offer": None}, {"request": {"derive": True}},
    {"offer": {"units": 1, "records": 0, "dollars": "0"}},
])  # fmt: skip
def test_runs_that_died_or_bought_nothing_say_nothing_of_the_pace(of):
    assert took([entry("a", 2, **of)]) == {}


def test_sizes_come_from_what_is_stored_and_from_usual_ratios_without():
    schema, _ = schemas().find("trades")
    few = estimate(1_000_000, ledger(), {"type": "lake", "tables": {}}, schema, "trades", {})
    assert (few.raw_bytes, few.raw_from) == (USUAL["trades"][0] * 1_000_000, "usual ratio")
    assert (few.store_bytes, few.store_from, few.minutes) == (USUAL["trades"][1] * 1_000_000, "usual ratio", None)
    stored = ledger(*(
        ("0", {"fetched": 10_000, "raw_digest": d, "raw_bytes": 50_000, "unit_id": d, "seconds": 1.0}) for d in "ab"
    ))  # fmt: skip
    tables = {schema.table: {"rows": 20_000, "bytes": 60_000}}
    known = estimate(1_000, stored, {"type": "timescaledb", "tables": tables}, schema, "trades", {})
    assert (known.raw_bytes, known.raw_from) == (5_000, "stored data")
    assert (known.store_bytes, known.store_from) == (3_000, "stored data")


def test_every_stored_kind_has_a_usual_ratio():
    assert set(USUAL) == {n for s in schemas() for n, name in s.names.items() if name.made_from is None}

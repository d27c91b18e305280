"""A clock that jumps while something is bought: nothing is paid twice, and nothing old wins."""

from decimal import Decimal

import pytest

from api.desk import Ask, Desk
from api.truth import alike
from faults.clocks import YEAR
from faults.conftest import clockwork, new  # noqa: F401  (fixtures)
from faults.marks import on_both
from hdi.buying import paid
from hdi.buying.spending import spent, total

WEEK = Ask("ES.c.0", "2024-03-11", "2024-03-15", "ohlcv-1h")


@pytest.fixture
def desk(new, vendor):  # noqa: F811
    place = new("desk")
    return Desk(place.folder, vendor, address=place.address)


def booked(desk, vendor):
    """Everything that the vendor's books say is in the ledger."""
    rows = spent(desk.store().ledger(), paid.receipts(desk.data_dir, "synthetic"))
    assert total(rows) == pytest.approx(vendor.books.dollars, abs=Decimal("1e-8"))
    assert rows["booked"].all()


def bought_once(desk, vendor, rows):
    """Neither this store nor a fresh one on the same bytes buys again, and both hold the rows."""
    entries = vendor.books.entries
    fresh = desk.beside("fresh", shared=True)
    for each in (desk, fresh):
        assert {o.error for o in each.ingest(WEEK)} <= {None}
        alike(each.rows("ohlcv-1h"), rows)
        assert each.ingest(WEEK) == []
    assert vendor.books.entries == entries
    booked(desk, vendor)


@on_both("clock", "jumps between a purchase and its commit")
def test_what_was_bought_by_a_clock_that_jumped_is_booked_and_not_bought_again(desk, vendor, truth, clockwork):  # noqa: F811
    assert clockwork.buy(desk, WEEK, jumps=[2 * YEAR, -2 * YEAR]) == 0
    bought_once(desk, vendor, truth.rows(WEEK))


@on_both("clock", "put right after a purchase")
def test_bytes_of_a_clock_that_was_ahead_do_not_come_back_over_newer_ones(desk, vendor, truth, clockwork):  # noqa: F811
    assert clockwork.buy(desk, WEEK, jumps=[YEAR, -YEAR]) == 0
    for each in (vendor, truth._vendor):
        each.fault("restated", day="2024-03-13")
    desk.stored(WEEK, refetch=True)
    bought_once(desk, vendor, truth.rows(WEEK))

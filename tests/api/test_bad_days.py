"""A vendor that goes wrong in another way each day: what comes of it in the end is what it has, in each store, once."""

from dataclasses import replace

import pytest

from api.desk import Ask, Desk
from api.truth import alike
from faults.conftest import new  # noqa: F401  (a fixture)
from faults.marks import on_both

WEEK = Ask("ES.c.0", "2024-03-11", "2024-03-15", "trades")
FAULTS = {
    "2024-03-11": "cut:after=3000,times=2",
    "2024-03-12": "503:times=2,method=timeseries.get_range",
    "2024-03-13": "short:after=3000,times=1",
    "2024-03-14": "corrupt:times=1",
    "2024-03-15": "empty:times=1",
}


@pytest.fixture
def desk(new, vendor):  # noqa: F811
    place = new("desk")
    settings = {"ingest.download_records": 1, "ingest.workers": 1}
    return Desk(place.folder, vendor, settings, address=place.address)


@on_both("vendor", "another fault each day: cut, 503, early end, corrupt, empty")
def test_each_day_is_stored_once_whatever_went_wrong_on_it(desk, vendor, truth):
    for day, fault in FAULTS.items():
        vendor.fault(fault, day=day)
    assert [o.status for o in desk.ingest(WEEK)] == ["stored", "stored", "failed", "failed", "failed"]
    assert {o.status for o in desk.ingest(WEEK)} == {"stored", "failed"}  # what is empty is not bought by itself
    last = replace(WEEK, start=max(FAULTS))
    alike(desk.rows("trades"), truth.rows(replace(WEEK, end="2024-03-14")))
    desk.stored(last, refetch=True)
    alike(desk.rows("trades"), truth.rows(WEEK))
    orders = len(vendor.books.entries)
    assert desk.ingest(WEEK) == []
    assert len(vendor.books.entries) == orders
    assert desk.api_errors() == []

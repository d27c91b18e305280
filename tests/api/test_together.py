"""Two processes at once that want the same: it is billed once, and both end well."""

import time
from dataclasses import replace

import pytest

from api.cradles import Cradle, kill
from api.desk import Ask
from api.truth import alike

START, END = "2024-03-14", "2024-03-15"
FRONT, PARENT = Ask("ES.c.0", START, END, "trades"), Ask("ES.FUT", START, END, "trades")
PAIRS = {
    "the same": (FRONT, FRONT),
    "one inside the other": (PARENT, FRONT),
    "overlapping in time": (FRONT, Ask("ES.c.0", "2024-03-15", "2024-03-18", "trades")),
    "overlapping in symbols": (Ask("ES.c.0,CL.c.0", START, END, "trades"), Ask("CL.c.0,NG.c.0", START, END, "trades")),
}


@pytest.fixture(scope="module")
def cradles():
    pair = Cradle(), Cradle()
    yield pair
    for cradle in pair:
        cradle.close()


@pytest.fixture
def both(cradles, vendor):
    """Runs two requests at once; how they ended."""

    def call(one, other):
        vendor.fault("slow:rate=20000")
        for cradle, (desk, ask) in zip(cradles, (one, other), strict=True):
            cradle.start(desk, ask)
        ended = [cradle.end() for cradle in cradles]
        vendor.clear()
        # Neither was done when the other one began.
        assert vendor.books.calls["metadata.get_dataset_range"] == 2
        return ended

    return call


def until(true):
    """Wait for what another process does."""
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_on_one_lake_what_both_want_is_billed_once(both, desk, vendor, truth, pair):
    assert both((desk, pair[0]), (desk, pair[1])) == [0, 0]
    assert vendor.books.billed_bytes == truth.size(*pair)
    alike(desk.rows("trades"), truth.union(*pair))
    assert desk.leftovers() == []
    for ask in pair:
        assert desk.ingest(ask) == []


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_on_two_lakes_with_one_data_folder_what_both_want_is_billed_once(both, desk, vendor, truth, pair):
    other = desk.beside("other", shared=True)
    assert both((desk, pair[0]), (other, pair[1])) == [0, 0]
    assert vendor.books.billed_bytes == truth.size(*pair)
    for place, ask in ((desk, pair[0]), (other, pair[1])):
        alike(place.rows("trades", ask.symbols, ask.start, ask.end), truth.rows(ask))
        assert place.leftovers() == []
        assert place.ingest(ask) == []


def test_on_one_lake_with_two_data_folders_what_both_want_is_billed_once(both, desk, vendor, truth):
    other = replace(desk, shared=desk.folder / "elsewhere")
    assert both((desk, FRONT), (other, PARENT)) == [0, 0]
    assert vendor.books.billed_bytes == truth.size(FRONT, PARENT)
    alike(desk.rows("trades"), truth.union(FRONT, PARENT))


def test_a_process_that_waited_for_one_that_was_killed_buys_what_that_one_lacked(cradles, desk, vendor, truth):
    vendor.fault("slow:rate=2000")
    first, second = cradles
    pid = first.start(desk, FRONT)
    until(lambda: vendor.books.calls["timeseries.get_range"])
    second.start(desk, FRONT)
    until(lambda: vendor.books.calls["metadata.get_cost"] == 2)
    kill(pid)
    first.end()
    vendor.clear()
    assert second.end() == 0
    assert sum(e.finished for e in vendor.books.entries) == 1
    alike(desk.rows("trades"), truth.rows(FRONT))
    assert desk.leftovers() == []

"""Kill -9 at any moment of a purchase: the next run goes on, ends clean, and pays for nothing that had arrived."""

import random
import threading
import time
from collections import Counter
from decimal import Decimal

import pytest

from api.cradles import KILLED, Cradle, kill
from api.desk import Ask
from api.truth import alike
from lakes import lines

GET_RANGE = "timeseries.get_range"
#: Four downloads, each of some days' trades of a symbol type.
ASK = Ask("ES.c.0,CL.FUT", "2024-03-14", "2024-03-15", "trades")
WORKERS = 2
RANDOM_KILLS = 10
#: Where a child dies, in the order in which a download comes by.
PLACES = {
    "when the bytes have arrived": "hdi.buying.paid.check",
    "before the slip is written": "hdi.raw.put_note",
    "between the slip and its bytes": "hdi.raw.put",
    "before the commit": "hdi.buying.buying.commit_units",
}


@pytest.fixture(scope="module")
def cradle():
    cradle = Cradle()
    yield cradle
    cradle.close()


@pytest.fixture
def desk(desk):
    desk.settings |= {"ingest.download_records": 1, "ingest.workers": WORKERS}
    return desk


def orders(entries):
    """How often each order was answered."""
    return Counter((e.stype, e.symbols, e.start, e.end) for e in entries)


def kept(desk):
    """The orders whose bytes lie whole in their place."""
    return {(s["stype"], tuple(s["symbols"]), s["start"], s["end"]) for s in desk.slips()}


def settled(vendor):
    """The books, when the vendor has noticed that nobody listens any more."""
    deadline = time.monotonic() + 10
    while vendor.books.calls[GET_RANGE] > len(vendor.books.entries) and time.monotonic() < deadline:
        time.sleep(0.01)
    return vendor.books.entries


def goes_on(desk, vendor, truth, expected_again=None):
    """The run after a kill: clean, and only what had not arrived is billed again."""
    before, there = settled(vendor), kept(desk)
    vendor.books.reset()
    desk.stored(ASK)
    alike(desk.rows("trades"), truth.rows(ASK))
    assert desk.leftovers() == []
    assert not desk.store().quarantine().height
    after = orders(vendor.books.entries)
    assert not there & set(after)
    assert max(after.values(), default=1) == 1
    again = orders(before) & after
    assert sum(again.values()) <= WORKERS
    if expected_again is not None:
        assert sum(again.values()) == expected_again
    assert set(orders(before)) | set(after) == kept(desk)
    calls = vendor.books.calls
    assert desk.ingest(ASK) == []
    assert vendor.books.calls == calls
    # The receipts tell what was paid, but for what broke off with the process.
    told = sum(Decimal(slip["dollars"]) for slip in desk.slips())
    assert abs(sum(desk.store().ledger()["dollars"]) - told) < Decimal("1e-7")


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_bytes_that_had_arrived_when_the_process_died_are_not_bought_again(cradle, desk, vendor, truth, place):
    assert cradle.run(desk, ASK, at=place) == KILLED
    assert len(settled(vendor)) >= 1
    goes_on(desk, vendor, truth)


def test_a_single_download_that_had_arrived_is_never_bought_again(cradle, desk, vendor, truth):
    desk.settings |= {"ingest.download_records": 500_000, "ingest.workers": 1}
    for place in PLACES.values():
        other = desk.beside(place)
        vendor.books.reset()
        ask = Ask("ES.c.0", "2024-03-14", "2024-03-15", "trades")
        assert cradle.run(other, ask, at=place) == KILLED
        other.stored(ask)
        assert [e.finished for e in vendor.books.entries] == [True]
        assert vendor.books.billed_bytes == truth.size(ask)
        alike(other.rows("trades"), truth.rows(ask))
        assert other.leftovers() == []


def test_a_process_killed_while_a_stream_is_sent_pays_for_that_stream_alone_again(cradle, desk, vendor, truth):
    desk.settings["ingest.workers"] = 1
    vendor.fault("slow:rate=4000", day="2024-03-15")
    pid = cradle.start(desk, ASK)
    deadline = time.monotonic() + 30
    # The third of the orders, the first of the later day, is under way: some of it has come.
    while vendor.books.calls[GET_RANGE] < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    kill(pid)
    assert cradle.end() == KILLED
    vendor.clear()
    assert [e.finished for e in settled(vendor)] == [True, True, False]
    goes_on(desk, vendor, truth, expected_again=1)


def test_a_process_killed_at_any_step_of_a_commit_is_followed_by_one_that_buys_nothing_again(
    cradle, desk, vendor, truth
):
    desk.settings["ingest.workers"] = 1
    ask = Ask("ES.c.0", "2024-03-14", "2024-03-14", "trades")
    step, ended = 0, KILLED
    while ended == KILLED:
        step += 1
        other = desk.beside(f"step-{step}")
        vendor.books.reset()
        ended = cradle.run(other, ask, step=step)
        other.stored(ask)
        alike(other.rows("trades"), truth.rows(ask))
        assert other.leftovers() == []
        assert vendor.books.billed_bytes == truth.size(ask)
        assert len(other.bytes_kept()) == 1
    assert ended == 0
    assert step > 4


def test_a_process_killed_at_random_moments_is_followed_by_one_that_ends_clean(cradle, desk, vendor, truth):
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    killed, tries, seconds = 0, 0, 0.5
    while killed < RANDOM_KILLS:
        tries += 1
        other = desk.beside(str(tries))
        vendor.books.reset()
        pid = cradle.start(other, ASK)
        # Until the first order nothing happens that could go wrong.
        while not vendor.books.calls[GET_RANGE]:
            time.sleep(0.002)
        began, after = time.perf_counter(), moments.random() * seconds
        timer = threading.Timer(after, kill, (pid,))
        timer.start()
        code = cradle.end()
        timer.cancel()
        timer.join()
        assert code in (0, KILLED), (seed, tries, after)
        if code == KILLED:
            killed += 1
            goes_on(other, vendor, truth)
        else:  # it was done before: how long a run takes is learned on the way
            seconds = min(seconds, time.perf_counter() - began)
        assert tries < 4 * RANDOM_KILLS


def test_a_process_killed_again_and_again_gets_there(cradle, desk, vendor, truth):
    for k in range(6):
        assert cradle.run(desk, ASK, after=0.15 + 0.1 * k) in (0, KILLED)
    settled(vendor)
    vendor.books.reset()
    desk.ingest(ASK)
    alike(desk.rows("trades"), truth.rows(ASK))
    assert desk.leftovers() == []
    assert desk.ingest(ASK) == []


@pytest.mark.parametrize("market", [{"hostile": 40, "scale": 0.2}], indirect=True)
def test_a_process_killed_after_its_last_commit_leaves_nothing_to_buy_and_a_rerun_that_mends(cradle, desk, vendor):
    ask = Ask("ES.c.0", "2024-03-14", "2024-03-14", "trades")
    assert cradle.run(desk, ask, at="hdi.buying.buying.export_rejects") == KILLED
    assert lines(desk.place) == []
    vendor.fault("503")
    calls = vendor.books.calls
    assert desk.ingest(ask) == []
    assert vendor.books.calls == calls
    exported = [e for array in ("validation_failures", "transformation_errors") for e in lines(desk.place, array)]
    assert len(exported) == vendor.books.entries[0].planted > 0
    assert desk.leftovers() == []

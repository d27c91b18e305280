"""Kill -9 at any moment of a purchase: the next run goes on, ends clean, and pays for nothing that had arrived."""

import time
from collections import Counter
from contextlib import closing
from decimal import Decimal

import pytest

from api.cradles import KILLED, Cradle, kill
from api.desk import Ask
from api.truth import alike
from lakes import lines
from server_faults.counter import Counter as Counting
from servers import make_layout
from torture.shown import shown

GET_RANGE = "timeseries.get_range"
#: Four downloads, each of some days' trades of a symbol type.
ASK = Ask("ES.c.0,CL.FUT", "2024-03-14", "2024-03-15", "trades")
WORKERS = 2
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


@pytest.fixture
def bought(desk, truth):
    """What a store shows of the orders, bought by a process that nothing interrupted."""
    other = desk.beside("bought")
    other.stored(ASK)
    alike(other.rows("trades"), truth.rows(ASK))
    return books(other)


def books(desk):
    """Rows, rejects, and what is held; which order got which number, and when, is a matter of who was first."""
    tables = shown(desk.place, ("trades",))
    of_units = {"coverage": ["unit"], "mappings": [], "conditions": ["seen_at"]}
    for name, numbers in of_units.items():
        table = tables[name].drop(numbers)
        tables[name] = table.unique().sort(table.columns)
    return {name: tables[name] for name in ("trades", "superseded trades_data", "rejects", *of_units)}


@pytest.mark.kill("buy", "lake")
def test_a_process_killed_at_a_random_moment_is_followed_by_one_that_ends_clean(cradle, desk, vendor, bought, torture):
    torn(torture, cradle, vendor, bought, lambda number: desk.beside(str(number)))


@pytest.mark.kill("buy", "server")
def test_a_process_killed_while_it_buys_into_a_server_is_followed_by_one_that_ends_clean(
    cradle, desk, vendor, bought, databases, torture
):
    with databases.kept() as fresh:

        def new(number):
            settings, address = desk.settings, fresh(template="layout", prepare=make_layout)
            return Counting(desk.folder.parent / str(number), vendor, settings, address=address)

        torn(torture, cradle, vendor, bought, new)


def torn(torture, cradle, vendor, bought, new):
    """Kill purchases; each is made again, and costs no more than it had to."""
    for attempt in torture:
        desk = new(attempt.number)
        vendor.books.reset()
        cradle.start(desk, ASK)
        if attempt.hit(cradle.follow(attempt.moment)):
            before, there = orders(settled(vendor)), kept(desk)
            vendor.books.reset()
            desk.stored(ASK)
            after = orders(settled(vendor))
            again = before & after
            twice = sum(after[order] for order in there) + sum((after - Counter(set(after))).values())
            attempt.paid(twice=twice, cut=again.total())
            attempt.none(again.total() > WORKERS, "more orders were cut than were under way")
            assert set(before) | set(after) == kept(desk), attempt.said
        attempt.same(bought, books(desk))
        attempt.none(desk.leftovers(), "files")
        calls = vendor.books.calls
        assert desk.ingest(ASK) == [], attempt.said
        assert vendor.books.calls == calls, attempt.said
        # The receipts tell what was paid, but for what broke off with the process.
        told = sum(Decimal(slip["dollars"]) for slip in desk.slips())
        with closing(desk.store()) as store:
            assert abs(sum(store.ledger()["dollars"]) - told) < Decimal("1e-7"), attempt.said


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

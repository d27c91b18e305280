"""What broke off costs what the vendor sent of it: in the ledger, or in a slip where nobody was left to say so."""

import os
from dataclasses import replace
from decimal import Decimal

import polars as pl
import pytest

from api.desk import Ask
from dbnfiles import records, write
from hdi.buying import paid
from hdi.buying.paid import Delivery, Slip
from hdi.buying.spending import spent, total
from hdi.errors import CorruptFile, EndUnavailable, StoreError, VendorUnavailable
from hdi.frames import LEDGER, NAMED, RESOLVED
from hdi.model import DAY_NS, Order, Window
from hdi.sources import databento
from hdi.sources.databento import Databento
from hdi.sources.dbn import record_bytes

DAY = Ask("ES.c.0", "2024-03-14", "2024-03-14", "trades")
DAYS = replace(DAY, end="2024-03-15")
CUT = "cut:after=6000"


def spending(desk):
    """All that was spent, by the store and the data folder."""
    return spent(desk.store().ledger(), paid.receipts(desk.data_dir, "synthetic"))


def booked(desk, vendor):
    """The ledger says what the vendor's books say, and nothing is spent beside it."""
    rows = spending(desk)
    assert total(rows) == pytest.approx(vendor.books.dollars, abs=Decimal("1e-8"))
    assert rows["booked"].all()
    return vendor.books.dollars


# What is billed and fails goes to the ledger.


def test_a_body_that_ends_early_costs_what_was_sent(desk, vendor):
    vendor.fault("short:after=6000")
    (error,) = desk.errors(DAY)
    assert error.dollars == booked(desk, vendor).quantize(Decimal("1e-9")) > 0


@pytest.mark.parametrize("by", [3, -3])
def test_all_that_was_quoted_is_paid_however_many_records_are_counted(desk, vendor, by):
    vendor.fault(f"wrong-count:by={by}")
    (error,) = desk.errors(DAY)
    assert "records arrived" in error.message
    booked(desk, vendor)


@pytest.mark.parametrize("refusal", ["402", "422:case=schema_not_supported", "403"])
def test_a_stream_that_broke_is_paid_when_the_next_try_is_refused(desk, vendor, monkeypatch, refusal):
    def receive(*args):
        try:
            return real(*args)
        finally:
            vendor.fault(f"{refusal}{',' if ':' in refusal else ':'}method=get_range")

    real = databento.receive
    monkeypatch.setattr(databento, "receive", receive)
    vendor.fault(f"{CUT},times=1")
    (outcome,) = desk.ingest(DAY)
    assert "The stream broke once" in outcome.error.hint
    # The vendor bills what it sent, of which the client drops the last piece.
    assert 0 < outcome.dollars <= vendor.books.dollars + Decimal("1e-9")
    assert total(spending(desk)) == outcome.dollars


def test_a_stream_that_broke_before_the_window_was_shortened_is_part_of_the_price(desk, vendor, monkeypatch):
    def download(_, order, *__):
        monkeypatch.setattr(Databento, "download", real)
        until = EndUnavailable("there is less", "", Window(0, order.window.end - DAY_NS // 4))
        until.wasted = 4_800
        raise until

    offer, real = desk.offer(DAY), Databento.download
    monkeypatch.setattr(Databento, "download", download)
    desk.ingest(DAY)
    more = 4_800 * offer.quote.dollars / offer.quote.size
    assert total(spending(desk)) == pytest.approx(vendor.books.dollars + more, abs=Decimal("1e-8"))
    assert spending(desk)["booked"].all()


def test_downloads_that_failed_when_their_run_ended_are_noted(desk, monkeypatch):
    def download(*_):
        raise VendorUnavailable("no answer", "", 4_800)

    desk.settings |= {"ingest.download_records": 1, "ingest.workers": 2}
    monkeypatch.setattr(Databento, "download", download)
    with desk.open() as data:
        buying = desk.buying(data, DAYS)
        offer = buying.offer()
        outcomes = buying.run(offer)[1]
        first = next(outcomes).dollars
        outcomes.close()
    assert first == (4_800 * offer.quote.dollars / offer.quote.size).quantize(Decimal("1e-9"))
    rows = spending(desk)
    assert rows.sort("booked").select("dollars", "booked").rows() == [(first, False), (first, True)]


# What a process that ends leaves is noted by the next one.

PRICE = Decimal("0.001")


@pytest.fixture
def order(tmp_path):
    """A data folder, a slip, the bytes of what was ordered, cut off, and their price."""
    path = tmp_path / "cut.dbn.zst"
    write(path, "trades", records("trades", 20_000))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    window = Window(0, DAY_NS)
    slip = Slip(
        "synthetic", Order("D", "trades", "raw_symbol", ("A",), window), ("A",), (window,), 9, Decimal(99),
        pl.DataFrame(schema=RESOLVED), pl.DataFrame(schema=NAMED), byte_price=PRICE,
    )  # fmt: skip
    price = record_bytes(path) * PRICE
    assert 0 < price < 20_000 * 48 * PRICE
    return tmp_path / "data", slip, path.read_bytes(), price


def dies(delivery):
    """As if the process had died: only its lock is gone."""
    os.close(delivery._fd)


def left(folder):
    return list((folder / "raw" / ".part").iterdir())


@pytest.mark.parametrize("wasted", [0, 250])
def test_a_stream_that_ended_with_its_process_costs_what_had_come_and_what_broke_before(order, wasted):
    folder, slip, data, price = order
    delivery = Delivery(folder, slip).__enter__()
    if wasted:
        delivery.broke(wasted)
    delivery.path.write_bytes(data)
    dies(delivery)
    (kept,) = paid.recover(folder)
    assert (kept.arrived, kept.dollars) == (-1, price + wasted * PRICE)
    assert left(folder) == paid.recover(folder) == paid.slips(folder, "synthetic", "D", "trades") == []
    assert [s.dollars for s in paid.receipts(folder, "synthetic")] == [kept.dollars]
    rows = spent(pl.DataFrame(schema=LEDGER), paid.receipts(folder, "synthetic"))
    assert rows.select("dollars", "booked").rows() == [(kept.dollars, False)]


def test_a_try_that_broke_before_its_process_ended_between_two_is_counted(order):
    folder, slip, _, _ = order
    delivery = Delivery(folder, slip).__enter__()
    delivery.broke(100)
    delivery.broke(250)
    os.write(delivery._fd, b'{"format":')  # it died while it wrote
    dies(delivery)
    assert [(s.wasted, s.dollars) for s in paid.recover(folder)] == [(250, 250 * PRICE)]


@pytest.mark.fault("disk", "the machine goes down while the note of an order is written", "lake")
def test_a_note_that_was_torn_before_its_order_went_out_is_cleared(order):
    folder, slip, _, _ = order
    delivery = Delivery(folder, slip).__enter__()
    whole = delivery._note.read_bytes()
    delivery._note.write_bytes(whole[: len(whole) // 2])
    dies(delivery)
    assert paid.recover(folder) == list(paid.receipts(folder, "synthetic")) == left(folder) == []


@pytest.mark.fault("disk", "the note of an order is damaged", "lake")
def test_bytes_whose_note_is_damaged_are_named_and_left(order):
    folder, slip, data, _ = order
    delivery = Delivery(folder, slip).__enter__()
    delivery.path.write_bytes(data)
    whole = delivery._note.read_bytes()
    delivery._note.write_bytes(b"\x00\xff" + whole[2:])
    dies(delivery)
    with pytest.raises(CorruptFile, match=delivery._note.name) as refused:
        paid.recover(folder)
    assert refused.value.hint
    assert {delivery.path, delivery._note} <= {*left(folder)}


def test_an_order_that_brought_nothing_costs_nothing(order):
    folder, slip, _, _ = order
    dies(Delivery(folder, slip).__enter__())
    assert paid.recover(folder) == list(paid.receipts(folder, "synthetic")) == left(folder) == []


def test_two_streams_that_broke_off_alike_are_paid_twice(order):
    folder, slip, data, price = order
    for _ in range(2):
        delivery = Delivery(folder, slip).__enter__()
        delivery.path.write_bytes(data)
        dies(delivery)
        paid.recover(folder)
    assert [s.dollars for s in paid.receipts(folder, "synthetic")] == [price, price]


@pytest.mark.parametrize(
    ("error", "noted"), [(StoreError("full"), 1), (KeyboardInterrupt(), 1), (VendorUnavailable("no"), 0)]
)
def test_what_ends_a_run_in_the_middle_of_a_stream_notes_what_had_come(order, error, noted):
    def receive():
        with Delivery(folder, slip) as delivery:
            delivery.path.write_bytes(data)
            raise error

    folder, slip, data, price = order
    with pytest.raises(type(error)):
        receive()
    assert [s.dollars for s in paid.receipts(folder, "synthetic")] == [price] * noted
    assert left(folder) == []


def test_the_next_run_says_what_a_dead_process_was_billed(desk, order):
    _, slip, data, price = order
    delivery = Delivery(desk.data_dir, slip).__enter__()
    delivery.path.write_bytes(data)
    dies(delivery)
    note = next(n for n in desk.offer(DAY).notes if "billed at least" in n)
    assert f"${price.quantize(Decimal('0.01'))}" in note

"""Books, quotes, sessions and auctions, bought from the vendor's API into both stores: once, and as its bytes say."""

import bisect
import contextlib
import functools

import polars as pl
import pytest

from api.desk import GLBX, XNAS, Ask, Desk, served
from api.truth import Truth
from api.truth import alike as equal
from hdi.rehearsal.body import record_size
from same.twins import Twins, alike, answer, plain

#: Few trades, none of them bad.
MARKET = {"until": "2024-07-01", "scale": 0.01, "limits": 0.0}
DAYS, DBEQ = ("2024-03-14", "2024-03-15"), "DBEQ.BASIC"
ORDERS = (
    *(Ask("ES.c.0", *DAYS, schema, GLBX) for schema in ("mbo", "mbp-1", "mbp-10", "bbo-1s", "bbo-1m", "ohlcv-eod")),
    Ask("ES.FUT", *DAYS, "status"),
    *(Ask("SPY", *DAYS, schema, XNAS) for schema in ("mbo", "imbalance", "status")),
    *(Ask("SPY", *DAYS, schema, DBEQ) for schema in ("cmbp-1", "cbbo-1s", "cbbo-1m", "tcbbo", "trades", "definition")),
)  # fmt: skip


@pytest.fixture(scope="module")
def vendor(tmp_path_factory):
    with served(tmp_path_factory.mktemp("trust"), **MARKET) as made:
        yield made


@pytest.fixture(scope="module")
def seats(vendor, address, tmp_path_factory):
    """A desk with a lake and one with a database, and a pair that looks at what they hold."""
    folder = tmp_path_factory.mktemp("seats")
    desks = Desk(folder / "lake", vendor), Desk(folder / "server", vendor, address=address)
    with contextlib.closing(Twins(folder, address)) as pair:
        yield (*desks, pair)


@pytest.mark.parametrize("order", ORDERS, ids=lambda o: f"{o.dataset}-{o.schema}")
def test_an_order_is_paid_once_and_both_stores_hold_what_the_vendors_client_decodes(order, seats, vendor):
    *desks, pair = seats
    truth, billed = Truth(vendor), vendor.books.billed_bytes
    count, size, _ = truth.quote(order)
    told = [[plain(o, pair.mask(k)) for o in desk.ingest(order)] for k, desk in enumerate(desks)]
    assert told[0] == told[1]
    assert [o.status for o in told[0]] == ["stored"]
    assert sum(r.stored for o in told[0] for r in o.receipts) == count > 0
    assert vendor.books.billed_bytes - billed == 2 * size == 2 * count * record_size(order.schema)
    calls = vendor.books.calls["timeseries.get_range"]
    for desk in desks:
        assert desk.offer(order).units == 0
        assert desk.ingest(order) == []
    assert vendor.books.calls["timeseries.get_range"] == calls
    answers = []
    for k, desk in enumerate(desks):
        with desk.open() as data:
            asked = functools.partial(
                data.query, order.symbols, order.start, order.end, schema=order.schema, dataset=order.dataset
            )
            answers.append(answer(asked, pair.mask(k)))
    alike(*answers)
    assert answers[0].rows.height == count
    rows = answers[0].rows
    rows = rows.with_columns(pl.col([c for c, kind in rows.schema.items() if kind.is_temporal()]).to_physical())
    equal(rows.rows(named=True), truth.rows(order))


# --- trades with their quotes -------------------------------------------------------------------

COMMON = ["ts_recv", "instrument_id", "publisher_id", "price", "size", "side"]
BOOK = [f"{side}_{what}_00" for what in ("px", "sz") for side in ("bid", "ask")]
ES, SPY = ("ES.c.0", GLBX, ("tbbo", "mbp-1", "bbo-1s")), ("SPY", DBEQ, ("tcbbo", "cmbp-1", "cbbo-1s"))


@pytest.mark.parametrize(("symbol", "dataset", "schemas"), [ES, SPY], ids=["one-venue", "consolidated"])
def test_trades_joined_with_the_book_are_what_the_vendor_sends_as_both_in_one(symbol, dataset, schemas, seats):
    """A trade does not change the book: its message in mbp-1 carries what tbbo calls the quote before it."""
    *desks, _ = seats
    sent, book, seconds = schemas
    for desk in desks:
        for schema in ("trades", *schemas):
            desk.ingest(Ask(symbol, *DAYS, schema, dataset))
        with desk.open() as db:
            asked = functools.partial(db.asof, symbol, *DAYS, dataset=dataset)
            both = db.query(symbol, *DAYS, schema=sent, dataset=dataset).polars()
            for quotes in (book, sent):
                joined = asked(quotes=quotes)
                rows = joined.polars()
                assert joined.notes == []
                assert rows["quote_age_ns"].unique().to_list() == [0]
                assert rows.select(COMMON + BOOK).equals(both.select(COMMON + BOOK))
            held = db.query(symbol, *DAYS, schema=seconds, dataset=dataset).polars()
            rows = asked(quotes=seconds).polars()
        assert rows.select(COMMON).equals(both.select(COMMON))
        assert rows.select(BOOK).rows() == standing(rows, held)
        assert rows["quote_age_ns"].drop_nulls().min() > 0


def standing(trades, quotes):
    """The book of each trade at the end of the last interval before it, in plain Python."""
    by: dict[int, list[tuple[int, tuple]]] = {}
    for at, who, *book in quotes.select(pl.col("ts_recv").to_physical(), "instrument_id", *BOOK).iter_rows():
        by.setdefault(who, []).append((at, tuple(book)))
    found = []
    for at, who in trades.select(pl.col("ts_recv").to_physical(), "instrument_id").iter_rows():
        before = bisect.bisect_left(by[who], at, key=lambda quote: quote[0])
        found.append(by[who][before - 1][1] if before else (None,) * len(BOOK))
    return found

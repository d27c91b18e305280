"""The same orders to a vendor's API, into a lake and into a database: the same receipts, prices and answers."""

import contextlib
import functools

import pytest

from api.desk import GLBX, XNAS, Ask, Desk, served
from hdi import UnknownSymbol
from hdi.model import iso_ns
from same.twins import Twins, alike, answer, plain

#: Few trades, some of them bad on purpose.
MARKET = {"until": "2024-07-01", "scale": 0.01, "limits": 0.0, "hostile": 4}
#: Around the roll of ES by calendar, volume and open interest, and a weekend.
ROLL = ("2024-03-11", "2024-03-20")
DAY = ("2024-03-14", "2024-03-14")
ORDERS = (
    Ask("ES.c.0,ES.n.0,ES.v.0,CL.c.0,NG.c.1", *ROLL),
    Ask("ES.FUT", "2024-03-13", "2024-03-15", "ohlcv-1h"),
    Ask("ES.c.0,CL.c.0", *DAY, "ohlcv-1m"),
    Ask("ES.c.0", *DAY, "ohlcv-1s"),
    Ask("ES.FUT", "2024-03-14", "2024-03-15", "trades"),
    Ask("ES.c.0", "2024-03-14", "2024-03-15", "trades"),
    Ask("ESM4,NG.n.0", *DAY, "tbbo"),
    Ask("ES.v.0,ESM4", "2024-03-14", "2024-03-16", "statistics"),
    Ask("ES.FUT,CL.FUT", *DAY, "definition"),
    Ask("SPY", *DAY, "trades", XNAS),
)


@pytest.fixture(scope="module")
def vendor(tmp_path_factory):
    with served(tmp_path_factory.mktemp("trust"), **MARKET) as made:
        yield made


@pytest.fixture(scope="module")
def seats(vendor, address, tmp_path_factory):
    """A desk with a lake and one with a database, and a pair that looks at what they hold."""
    folder = tmp_path_factory.mktemp("seats")
    lake, server = Desk(folder / "lake", vendor), Desk(folder / "server", vendor)
    server.address = address
    with contextlib.closing(Twins(folder, address)) as pair:
        yield lake, server, pair


@pytest.fixture(scope="module")
def bought(seats):
    """Both desks, after they have ordered the same."""
    lake, server, pair = seats
    for order in ORDERS:
        mine, theirs = ([plain(o, pair.mask(k)) for o in desk.ingest(order)] for k, desk in enumerate((lake, server)))
        assert theirs == mine
        assert {o.status for o in mine} == {"stored"}, order
    return lake, server, pair


@pytest.fixture(scope="module")
def both(bought):
    """Asks both by way of the facade, and returns the answer that they have in common."""
    *desks, pair = bought
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(desk.open()) for desk in desks]

        def ask(*terms, **more):
            mine, theirs = (
                answer(functools.partial(data.query, *terms, **more), pair.mask(k)) for k, data in enumerate(opened)
            )
            alike(mine, theirs)
            return mine

        yield ask


def test_everything_that_was_bought_is_the_same(bought):
    *desks, pair = bought
    _, books, letters = pair.same()
    assert books["quarantine"].height
    assert letters
    assert books["ledger"]["dollars"].sum() > 0
    mine, theirs = ([(n, p.read_bytes()) for n, p in desk.bytes_kept().items()] for desk in desks)
    assert theirs == mine


@pytest.mark.parametrize("symbol", ["ES.c.0", "ES.n.0", "es.V.0", "CL.c.0", "NG.c.1", "ES.c.0,ES.v.0"])
@pytest.mark.parametrize("window", [ROLL, ("2024-03-15", "2024-03-18"), ("2024-03-15", "2024-03-15T12:00:00Z")])
def test_fronts_over_their_rolls_are_the_same(both, symbol, window):
    both(symbol, *window)


@pytest.mark.parametrize("order", ORDERS, ids=lambda o: f"{o.schema}-{o.symbols}")
def test_every_order_reads_back_the_same(both, order):
    found = both(order.symbols, order.start, order.end, schema=order.schema, dataset=order.dataset)
    assert found.rows.height
    some = found.rows.columns[3:9]
    both(order.symbols, order.start, order.end, schema=order.schema, columns=some, limit=11)


@pytest.mark.parametrize("schema", ["ohlcv-5m", "ohlcv-15m"])
@pytest.mark.parametrize("symbol", ["ES.c.0", "CL.c.0", "ALL_SYMBOLS"])
def test_bars_made_of_what_was_bought_are_the_same(both, schema, symbol):
    assert both(symbol, *DAY, schema=schema).rows.height


def test_instants_of_trades_are_the_same_to_the_nanosecond(both):
    at = both("ES.FUT", "2024-03-14", "2024-03-15", schema="trades").rows["ts_recv"].to_physical().to_list()
    for k in (0, len(at) // 2, len(at) - 2):
        for first, last in ((at[k], at[k] + 1), (at[k] + 1, at[k + 1] + 1), (at[k], at[k + 1])):
            if first < last:
                found = both("ES.FUT", iso_ns(first), iso_ns(last), schema="trades")
                assert found.rows.height == sum(first <= t < last for t in at)


def test_what_was_not_bought_is_told_the_same(both):
    for symbols, start, end, schema in (
        ("ES.c.0", "2024-03-17", "2024-03-17", "trades"), ("ES.c.0", "2024-02-01", "2024-02-02", "ohlcv-1d"),
        ("SPY", *DAY, "definition"), ("NG.n.0", "2024-03-15", "2024-03-15", "tbbo"),
    ):  # fmt: skip
        assert not both(symbols, start, end, schema=schema).rows.height
    assert both("ES.c.3", *DAY).refused[0] is UnknownSymbol
    assert both("SPY", *DAY, schema="trades", dataset=GLBX).refused[0] is UnknownSymbol


def test_an_order_that_is_held_costs_nothing_in_both(bought, vendor):
    lake, server, pair = bought
    before = vendor.books.dollars
    for order in ORDERS[:3]:
        offers = [desk.offer(order) for desk in (lake, server)]
        assert [(o.purchases, o.claims) for o in offers] == [((), ())] * 2
    assert vendor.books.dollars == before
    pair.same_books()

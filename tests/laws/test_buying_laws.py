"""The law of buying: whatever is asked for in whatever order, each instant of each instrument is billed once."""

import contextlib
import datetime as dt
import os
from decimal import Decimal
from functools import cache, partial
from itertools import count

import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hdi import HistoricalData
from hdi.buying.ordering import parse_request
from hdi.cli.buy import offer_lines
from hdi.errors import UnknownSymbol
from hdi.frames import NAMED
from hdi.model import DAY_NS, Window, date_ns, dollars_text, iso_ns
from hdi.rehearsal import Rehearsal, prices
from hdi.rehearsal.body import record_size
from hdi.testing.material import schemas
from lakes import MAPPING
from laws.till import SCALE, UNTIL, Ledgers, Till, buy, days

GLBX, XNAS = "GLBX.MDP3", "XNAS.ITCH"
#: Around the roll of ES, CL and NQ; March has a listing and an expiry of each.
FIRST, SPAN = date_ns(dt.date(2024, 2, 20)), 45
HOUR = 3_600 * 10**9
TILL = Till()
MARKET = TILL.service.market


def _ids(symbol):
    found = MARKET.resolve(GLBX, [symbol], "parent", "instrument_id", dt.date(2024, 3, 1), dt.date(2024, 3, 30))
    return [str(i) for i, _, _ in found.asked[symbol]]


SYMBOLS = {
    GLBX: [
        "ES.FUT", "CL.FUT", "ES.c.0", "ES.c.1", "ES.v.0", "CL.c.0", "CL.n.1", "ESH4", "ESM4", "ESM5", "ESH4-ESM4",
        "CLJ4", *_ids("ES.FUT")[:4], *_ids("CL.FUT")[:2], "ALL_SYMBOLS",
    ],
    XNAS: ["SPY", "ALL_SYMBOLS"],
}  # fmt: skip
KINDS = {GLBX: ["ohlcv-1d", "ohlcv-1h", "trades", "statistics", "definition"], XNAS: ["ohlcv-1d", "trades"]}


@st.composite
def windows(draw):
    """Days mostly, sometimes with edges inside a day, down to the nanosecond; some reach past what there is."""
    start = FIRST + draw(st.integers(0, SPAN - 1)) * DAY_NS
    end = start + draw(st.sampled_from([1, 1, 2, 5, 12, 30, 130])) * DAY_NS
    edge = st.sampled_from([0, 0, 0, 0, 0, 5 * HOUR, 15 * HOUR + 1])
    return Window(start + draw(edge), end - draw(edge))


@st.composite
def asks(draw, dataset, kinds):
    everything = draw(st.integers(0, 11)) == 0
    symbols = ["ALL_SYMBOLS"] if everything else draw(
        st.lists(st.sampled_from(SYMBOLS[dataset][:-1]), min_size=1, max_size=3, unique=True)
    )  # fmt: skip
    window = draw(windows().filter(lambda w: w.start < w.end))
    request = parse_request(
        schemas(), dataset=dataset, schema=draw(st.sampled_from(kinds)), symbols=symbols, window=window
    )
    return request, draw(st.integers(0, 7)) == 0


@st.composite
def histories(draw, kinds_of=KINDS, most=4):
    """Requests of one dataset and one or two schemas, so that they meet."""
    dataset = draw(st.sampled_from([GLBX, GLBX, GLBX, XNAS]))
    kinds = draw(st.lists(st.sampled_from(kinds_of[dataset]), min_size=1, max_size=2, unique=True))
    return draw(st.lists(asks(dataset, kinds), min_size=1, max_size=most))


@cache
def stands_for(dataset, stype, symbol, window):
    """(instrument, start, end) of a symbol in a window, by the market itself."""
    found = MARKET.resolve(dataset, [symbol], stype, "instrument_id", *days(window)).asked.get(symbol, [])
    return [
        (i, max(window.start, date_ns(a)), min(window.end, date_ns(b)))
        for i, a, b in found if date_ns(a) < window.end and date_ns(b) > window.start
    ]  # fmt: skip


def wanted(request):
    """Everything that a request means, before the vendor's end."""
    end = date_ns(TILL.service._until)
    window = Window(request.window.start, min(request.window.end, end))
    return [
        span for stype, symbols in request.symbols.items() for symbol in symbols
        for span in stands_for(request.dataset, stype, symbol, window)
    ]  # fmt: skip


def joined(spans):
    """Spans of instruments, each instant once."""
    out = []
    for instrument, start, end in sorted(spans):
        if out and out[-1][0] == instrument and start <= out[-1][2]:
            out[-1] = (instrument, out[-1][1], max(end, out[-1][2]))
        else:
            out.append((instrument, start, end))
    return tuple(out)


@cache
def measure(dataset, schema, spans):
    """Bytes of the records in disjoint spans of instruments, by the market's own count."""
    if not spans:
        return 0
    window = min(s for _, s, _ in spans), max(e for _, _, e in spans)
    return MARKET.count(dataset, schema, spans, *window) * record_size(schema)


def billed_as_wanted(history, books, buy):
    """Buy a history; what is billed for each schema is the union of what was asked, and what was asked again."""
    books.reset()
    asked, again, bought = {}, {}, []
    for request, refetch in history:
        key = request.dataset, request.name.name
        try:
            buy(request, refetch=refetch)
        except UnknownSymbol:
            continue
        bought.append(request)
        spans = wanted(request)
        held = asked.setdefault(key, [])
        if refetch:
            before = measure(*key, joined(held))
            added = measure(*key, joined([*held, *spans])) - before
            again[key] = again.get(key, 0) + measure(*key, joined(spans)) - added
        held += spans
    billed = {}
    for entry in books.entries:
        key = entry.dataset, entry.schema
        billed[key] = billed.get(key, 0) + entry.size
    for key, spans in asked.items():
        assert billed.get(key, 0) == measure(*key, joined(spans)) + again.get(key, 0), key
    assert billed.keys() <= asked.keys()
    if bought:  # once more costs nothing
        assert not buy(bought[0])
        assert sum(entry.size for entry in books.entries) == sum(billed.values())


LAW = settings(
    max_examples=1_000, deadline=None, phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


@LAW
@given(histories())
def test_a_thousand_histories_are_billed_as_the_union_of_what_was_asked(history):
    store = Ledgers()
    billed_as_wanted(history, TILL.books, lambda request, **how: buy(TILL, store, request, **how).units)


# The same through the vendor's own client, bytes and all.

BEGIN = "-----BEGIN CERTIFICATE-----"
#: What takes no time to make: `make laws` asks for many more histories.
CHEAP = {GLBX: ["ohlcv-1d", "ohlcv-1h", "statistics"], XNAS: ["ohlcv-1d"]}
MANY = int(os.environ.get("HDI_TEST_LAWS", "5"))


@pytest.fixture(scope="module")
def vendor(tmp_path_factory):
    """The same market behind HTTPS."""
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(Rehearsal(until=UNTIL, scale=SCALE, limits=0.0))
        env = stack.enter_context(pytest.MonkeyPatch.context())
        for name in list(os.environ):
            if name.startswith(("HDI_CONFIG", "HDI_DATA", "HDI_STORE", "TIMESCALEDB_", "DATABENTO_")):
                env.delenv(name)
        path = tmp_path_factory.mktemp("trust") / "ca.pem"
        # To read everybody's authorities takes most of a call's time.
        path.write_text(BEGIN + made.ca_file.read_text().rpartition(BEGIN)[2])
        for name, value in (made.environment() | {"REQUESTS_CA_BUNDLE": str(path)}).items():
            env.setenv(name, value)
        yield made


@pytest.fixture(scope="module", params=["lake", "timescaledb"])
def shops(request, vendor, tmp_path_factory):
    """Buyers with a store of their own each: what :func:`billed_as_wanted` takes."""
    folders = tmp_path_factory.mktemp("shops")
    numbers = count()
    with contextlib.ExitStack() as stack:
        fresh = None
        if request.param == "timescaledb":
            databases = request.getfixturevalue("databases")
            fresh = stack.enter_context(databases.kept())

        def shop():
            folder = folders / str(next(numbers))
            store = f"lake:{folder / 'lake'}" if fresh is None else fresh()
            flags = {
                "data_dir": str(folder / "data"), "dlq_dir": str(folder / "dlq"), "log.dir": str(folder / "logs"),
                "databento.key": vendor.key, "databento.gateway": vendor.gateway, "ingest.min_split_usd": 0,
            }  # fmt: skip
            data = HistoricalData.open(store, **flags)
            vars(data).update(schemas=schemas(), _mapping=MAPPING)

            def call(asked, *, refetch=False):
                symbols = [s for group in asked.symbols.values() for s in group]
                buying = data.buying(
                    dataset=asked.dataset, schema=asked.name.name, symbols=symbols, start=iso_ns(asked.window.start),
                    end=iso_ns(asked.window.end), refetch=refetch,
                )  # fmt: skip
                offer = buying.offer()
                for outcome in buying.run(offer)[1]:
                    assert outcome.error is None
                return offer.units

            return call, data.close

        yield shop


@settings(LAW, max_examples=MANY, phases=(Phase.generate,))
@given(history=histories(CHEAP, most=3))
def test_histories_bought_for_real_are_billed_as_the_union_of_what_was_asked(shops, vendor, history):
    buy, close = shops()
    try:
        billed_as_wanted(history, vendor.books, buy)
    finally:
        close()


# What is bought again because splitting saves too little.


@settings(LAW, max_examples=60)
@given(histories(), st.sampled_from([Decimal("0.00002"), Decimal("0.0005"), Decimal("0.01")]))
def test_what_is_bought_again_to_save_a_split_is_told_and_costs_less_than_the_least(history, least):
    TILL.books.reset()
    store, asked, told = Ledgers(), {}, Decimal(0)
    for request, _ in history:
        with contextlib.suppress(UnknownSymbol):
            offer = buy(TILL, store, request, min_split=least)
            again = sum(more.dollars for more in offer.again)
            assert 0 <= again < least
            told += again
            asked.setdefault((request.dataset, request.name.name), []).extend(wanted(request))
    due = sum(
        prices.cost(*key, measure(*key, joined(spans))) for key, spans in asked.items()
    )  # fmt: skip
    assert due <= TILL.books.dollars + Decimal("1e-9")
    assert TILL.books.dollars <= due + told + Decimal("1e-9")


GLBX_DAY = {"dataset": GLBX, "schema": "ohlcv-1d", "window": Window(FIRST, FIRST + 20 * DAY_NS)}


def test_a_rest_that_is_cheap_is_bought_whole_unless_nothing_is_too_little():
    front, parent = (parse_request(schemas(), symbols=[s], **GLBX_DAY) for s in ("ES.c.0", "ES.FUT"))
    for least, again in ((Decimal(0), 0), (Decimal("0.01"), 1)):
        store = Ledgers()
        buy(TILL, store, front)
        offer = buy(TILL, store, parent, min_split=least)
        assert len(offer.again) == again
        assert [p.stype for p in offer.purchases] == ["parent" if again else "instrument_id"]
    (more,) = offer.again
    assert (more.symbol, more.instruments) == ("ES.FUT", tuple({i for i, _, _ in wanted(front)}))
    assert not buy(TILL, store, parent, min_split=least).units


def by_the_books(call):
    """What is billed meanwhile, in dollars."""
    TILL.books.reset()
    call()
    return TILL.books.dollars


@pytest.mark.parametrize("least", ["0.001", "0.00002"])
def test_what_a_request_buys_again_is_bounded_over_all_its_stretches_and_said_exactly(least):
    whole = Window(FIRST, FIRST + 20 * DAY_NS)
    bars = {"dataset": GLBX, "schema": "ohlcv-1m"}
    store, least = Ledgers(), Decimal(least)
    owned = Decimal(0)
    for day in range(0, 20, 2):
        window = Window(FIRST + day * DAY_NS, FIRST + (day + 1) * DAY_NS)
        front = parse_request(schemas(), symbols=["ES.c.0"], window=window, **bars)
        with contextlib.suppress(UnknownSymbol):
            owned += by_the_books(partial(buy, TILL, store, front))
    parent = parse_request(schemas(), symbols=["ES.FUT"], window=whole, **bars)
    offers = []
    billed = by_the_books(lambda: offers.append(buy(TILL, store, parent, min_split=least)))
    again = sum(more.dollars for more in offers[0].again)
    assert 0 <= again < least < owned
    assert billed + owned - again == pytest.approx(prices.cost(GLBX, "ohlcv-1m", measure(GLBX, "ohlcv-1m", joined(
        wanted(parent)))), abs=Decimal("1e-8"))  # fmt: skip
    assert not buy(TILL, store, parent, min_split=least).units


def test_stretches_that_touch_are_one_order_though_some_of_one_is_bought_again():
    store = Ledgers()
    day = Window(FIRST + 4 * DAY_NS, FIRST + 5 * DAY_NS)
    buy(TILL, store, parse_request(schemas(), symbols=["ES.c.0"], **GLBX_DAY | {"window": day}))
    offer = buy(TILL, store, parse_request(schemas(), symbols=["ES.FUT"], **GLBX_DAY), min_split=Decimal(1))
    assert [(p.symbols, p.window) for p in offer.purchases] == [(("ES.FUT",), GLBX_DAY["window"])]
    (more,) = offer.again
    front = prices.cost(GLBX, "ohlcv-1d", measure(GLBX, "ohlcv-1d", joined(wanted(
        parse_request(schemas(), symbols=["ES.c.0"], **GLBX_DAY | {"window": day})))))  # fmt: skip
    assert more.dollars == pytest.approx(front, abs=Decimal("1e-9"))
    (line,) = [line for line in offer_lines(offer) if "again" in line]
    assert line == (
        f"  bought again: 1 instrument of ES.FUT, {more.window}: at most {dollars_text(more.dollars)} more than "
        "without, which is below ingest.min_split_usd"
    )


# All symbols of a dataset.


def test_all_symbols_after_a_parent_cost_only_what_is_left():
    parent, everything = (parse_request(schemas(), symbols=[s], **GLBX_DAY) for s in ("ES.FUT", "ALL_SYMBOLS"))
    history = [(parent, False), (everything, False), (parent, False)]
    store = Ledgers()
    billed_as_wanted(history, TILL.books, lambda request, **how: buy(TILL, store, request, **how).units)


def test_all_symbols_that_a_vendor_cannot_resolve_are_bought_whole_and_it_is_told(monkeypatch):
    monkeypatch.setattr(TILL, "everything", lambda *_: pl.DataFrame(schema=NAMED))
    parent, everything = (parse_request(schemas(), symbols=[s], **GLBX_DAY) for s in ("ES.FUT", "ALL_SYMBOLS"))
    store = Ledgers()
    TILL.books.reset()
    assert not any("bought again" in note for note in buy(TILL, store, parent).notes)
    offer = buy(TILL, store, everything)
    assert any("bought again" in note for note in offer.notes)
    assert [p.symbols for p in offer.purchases] == [("ALL_SYMBOLS",)]
    sizes = [measure(GLBX, "ohlcv-1d", joined(wanted(r))) for r in (parent, everything)]
    assert TILL.books.billed_bytes == sum(sizes)
    assert not buy(TILL, store, everything).units

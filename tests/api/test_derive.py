"""Bars made from trades and finer bars that are owned: the rows that the vendor sells, and nothing is billed."""

import contextlib
from decimal import Decimal

import pytest

from api.desk import Ask, Desk, served
from api.truth import Truth, alike
from hdi import RequestError
from hdi.testing.material import schemas
from servers import make_layout

MARKET = {"until": "2024-07-01", "scale": 0.01, "limits": 0.0}
#: Around an expiry and a weekend: outrights, the spreads of a parent, and two front months.
SYMBOLS, FIRST, LAST = "NG.FUT,ES.c.0,CL.v.0", "2024-03-14", "2024-03-18"
NAMES = ("ohlcv-1d", "ohlcv-1h", "ohlcv-1m", "ohlcv-1s")
HOUR, DAY = 3_600 * 10**9, 86_400 * 10**9
HALF = ("2024-03-14T10:17:30Z", "2024-03-15T12:40:00Z")


@pytest.fixture(scope="module")
def vendor(tmp_path_factory):
    with served(tmp_path_factory.mktemp("trust"), **MARKET) as made:
        yield made


@pytest.fixture(scope="module")
def truth(vendor):
    return Truth(vendor)


@pytest.fixture(scope="module")
def lake(vendor, tmp_path_factory):
    """A lake that owns the trades of some days."""
    seat = Desk(tmp_path_factory.mktemp("lake"), vendor)
    seat.stored(Ask(SYMBOLS, FIRST, LAST, "trades"))
    return seat


@pytest.fixture(scope="module")
def server(vendor, databases, tmp_path_factory):
    """A database that owns the same."""
    with databases.kept() as fresh:
        seat = Desk(tmp_path_factory.mktemp("server"), vendor)
        seat.address = fresh(template="layout", prepare=make_layout)
        seat.stored(Ask(SYMBOLS, FIRST, LAST, "trades"))
        yield seat


@pytest.fixture
def seat(tmp_path, vendor):
    return Desk(tmp_path / "seat", vendor)


@pytest.fixture
def billed(vendor):
    """The bytes that were billed while something was done."""

    def call(work):
        before = vendor.books.billed_bytes
        work()
        return vendor.books.billed_bytes - before

    return call


def made_from(rows):
    """What the rows say of their source, once each; they say it no more."""
    return {row.pop("data_source") for row in rows}


def same(found, expected):
    """The rows are those that the vendor sells, but for where they came from."""
    for row in (*found, *expected):
        row.pop("data_source", None)
    alike(found, expected)


def sold(truth, ask):
    return [dict(row) for row in truth.rows(ask)]


@pytest.mark.parametrize(("store", "name"), [*(("lake", name) for name in NAMES), ("server", "ohlcv-1m")])
def test_bars_made_from_trades_are_the_rows_that_the_vendor_sells(request, store, name, truth, billed):
    seat = request.getfixturevalue(store)
    ask = Ask(SYMBOLS, FIRST, LAST, name)
    receipts = []
    assert billed(lambda: receipts.extend(seat.stored(ask, derive=True))) == 0
    assert {r.dollars for r in receipts} == {Decimal(0)}
    assert {r.raw for r in receipts} == {None}
    assert all(r.fetched == r.stored + r.quarantined for r in receipts)
    found = seat.rows(name)
    assert made_from(found) == {"derived:trades:synthetic"}
    same(found, sold(truth, ask))
    assert min(row["low_price"] for row in found) < 0  # the spreads
    assert any(row["open_price"] != row["close_price"] for row in found)
    # All of it is held now, by the symbols that were asked for as well.
    assert seat.ingest(ask, derive=True) == []
    assert seat.ingest(ask) == []


def test_finer_bars_are_read_instead_of_trades_and_give_the_same(seat, truth, billed):
    seat.stored(Ask("ES.c.0", FIRST, LAST, "ohlcv-1m"))
    for name, source in (("ohlcv-1h", "ohlcv-1m"), ("ohlcv-1d", "ohlcv-1h")):
        ask = Ask("ES.c.0", FIRST, LAST, name)
        assert billed(lambda ask=ask: seat.stored(ask, derive=True)) == 0
        found = seat.rows(name)
        assert made_from(found) == {f"derived:{source}:synthetic"}
        same(found, sold(truth, ask))


def test_only_what_is_owned_whole_is_made_and_the_rest_is_bought(seat, truth, billed):
    seat.stored(Ask("ES.FUT", *HALF, "trades"))
    ask = Ask("ES.FUT", "2024-03-14", "2024-03-15", "ohlcv-1h")
    offer = seat.offer(ask, derive=True)
    assert [d.source for d in offer.derived] == ["trades"]
    assert offer.derived_units == offer.derived[0].units > 0
    expected = sold(truth, ask)
    size = billed(lambda: seat.stored(ask, derive=True))
    found = seat.rows("ohlcv-1h")
    made = [row for row in found if row["data_source"].startswith("derived:")]
    # The first whole hour of the trades is that of 11:00, the last one ends at 12:00 of the next day.
    assert made[0]["ts_event"] % DAY >= 11 * HOUR
    assert max(row["ts_event"] for row in made) == made[0]["ts_event"] // DAY * DAY + DAY + 11 * HOUR
    assert size == 56 * (len(expected) - len(made)) == offer.quote.size
    same(found, expected)


def test_a_window_off_the_grid_holds_the_bars_that_start_in_it(seat, billed):
    plain = seat.beside("plain")
    seat.stored(Ask("ES.c.0", FIRST, LAST, "trades"))
    for name in ("ohlcv-1d", "ohlcv-1h"):
        ask = Ask("ES.c.0", *HALF, name)
        assert billed(lambda ask=ask: seat.stored(ask, derive=True)) == 0
        plain.stored(ask)
        expected = plain.rows(name)
        assert expected
        same(seat.rows(name), expected)


def test_buying_the_real_bars_replaces_those_that_were_made_and_keeps_them_in_history(seat, billed):
    ask = Ask("ES.c.0", "2024-03-14", "2024-03-14", "ohlcv-1h")
    seat.stored(Ask("ES.c.0", "2024-03-14", "2024-03-14", "trades"))
    seat.stored(ask, derive=True)
    made = seat.rows("ohlcv-1h")
    receipts = []
    assert billed(lambda: receipts.extend(seat.stored(ask, refetch=True))) == 56 * len(made)
    assert sum(r.superseded for r in receipts) == len(made)
    bought = seat.rows("ohlcv-1h")
    assert made_from(bought) == {"synthetic"}
    with contextlib.closing(seat.store()) as store:
        old = store.replaced(schemas().find("ohlcv-1h")[0])
    assert set(old["data_source"]) == {"derived:trades:synthetic"}
    same(made, bought)


def test_a_query_says_how_many_of_its_rows_were_made(seat):
    seat.stored(Ask("ES.c.0", "2024-03-14", "2024-03-14", "trades"))
    seat.stored(Ask("ES.c.0", "2024-03-14", "2024-03-14", "ohlcv-1m"))
    seat.stored(Ask("ES.c.0", "2024-03-14", "2024-03-15", "ohlcv-1h"), derive=True)
    with seat.open() as data:
        for columns in ((), ("close_price",)):
            found = data.query("ES.c.0", "2024-03-14", "2024-03-15", schema="ohlcv-1h", columns=columns)
            rows = found.collect()
            assert list(rows.columns) == list(columns or found.columns)
            day = data.query("ES.c.0", "2024-03-14", "2024-03-14", schema="ohlcv-1h").collect().height
            assert f"{day} rows derived from ohlcv-1m" in found.notes
        finer = data.query("ES.c.0", "2024-03-14", "2024-03-14", schema="ohlcv-1m")
        assert finer.collect().height
        assert finer.notes == []


def test_bars_whose_trades_are_in_quarantine_are_bought_and_all_rows_are_right(tmp_path, trusted, rehearse):
    hostile = trusted(rehearse(**MARKET | {"scale": 0.02}, hostile=20))
    seat, plain = Desk(tmp_path / "derived", hostile), Desk(tmp_path / "bought", hostile)
    seat.settings |= {"ingest.min_rejects": 10_000}
    plain.settings |= {"ingest.min_rejects": 10_000}
    seat.stored(Ask("ES.c.0,CL.c.0", FIRST, "2024-03-15", "trades"))
    with contextlib.closing(seat.store()) as store:
        assert store.quarantine().height
    ask = Ask("ES.c.0,CL.c.0", FIRST, "2024-03-15", "ohlcv-1h")
    seat.stored(ask, derive=True)
    plain.stored(ask)
    found, expected = seat.rows("ohlcv-1h"), plain.rows("ohlcv-1h")
    assert len(found) >= len(expected)
    same(found, expected)


def test_what_cannot_be_made_or_is_to_be_bought_again_is_refused(seat):
    with pytest.raises(RequestError, match="trades is not made from anything"):
        seat.offer(Ask("ES.c.0", FIRST, LAST, "trades"), derive=True)
    with pytest.raises(RequestError, match="contradict"):
        seat.offer(Ask("ES.c.0", FIRST, LAST, "ohlcv-1m"), derive=True, refetch=True)
    assert seat.offer(Ask("ES.c.0", FIRST, LAST, "ohlcv-1m"), derive=True).derived == ()


DAYS = ("2024-06-25", "2024-06-27")
CHANGED = "2024-06-26"
TRADES, HOURS = (Ask("ESU4", *DAYS, name) for name in ("trades", "ohlcv-1h"))


@pytest.fixture
def faulty(vendor):
    """The vendor, of which a test changes what it has and says."""
    yield vendor
    vendor.clear()


def traded(seat):
    """How much was traded on each day, by the trades and by the bars."""
    return [
        {d: sum(r[column] for r in rows if r["ts_event"] // DAY == d) for d in {r["ts_event"] // DAY for r in rows}}
        for column, rows in (("size", seat.rows("trades")), ("volume", seat.rows("ohlcv-1h")))
    ]


def polled(seat):
    with seat.open() as data:
        return data.revisions_due()


def test_no_bars_are_made_of_trades_that_the_vendor_changed_since_they_were_bought(seat, faulty, billed):
    seat.stored(TRADES)
    faulty.fault("restated", day=CHANGED, rows=5)
    offer = seat.offer(HOURS, derive=True)
    assert offer.notes == (
        f"{CHANGED}: changed by the vendor since its trades rows were bought: no bars are made of them",
    )
    assert billed(lambda: seat.stored(HOURS, derive=True)) == offer.quote.size > 0
    sources = {(r["ts_event"] // DAY, r["data_source"].partition(":")[0]) for r in seat.rows("ohlcv-1h")}
    first = min(day for day, _ in sources)
    assert sources == {(first, "derived"), (first + 1, "synthetic"), (first + 2, "derived")}
    due = polled(seat)
    assert [(c.schema, c.days) for c in due.changed] == [("trades", 1)]
    # A day that changes after they were made is due for the bars as well.
    faulty.fault("restated", day=DAYS[1], rows=1)
    assert {c.schema for c in polled(seat).changed} == {"ohlcv-1h", "trades"}


def test_bars_are_made_again_for_nothing_after_their_trades_were_changed_in_the_store(seat, faulty, billed):
    seat.stored(TRADES)
    seat.stored(HOURS, derive=True)
    faulty.fault("restated", day=CHANGED, rows=20, schema="trades")
    seat.stored(Ask("ESU4", CHANGED, CHANGED, "trades"), refetch=True)
    trades, bars = traded(seat)
    assert trades != bars
    assert [c.schema for c in polled(seat).changed] == ["ohlcv-1h"]
    receipts = []
    assert billed(lambda: receipts.extend(seat.stored(HOURS, derive=True))) == 0
    assert sum(r.superseded for r in receipts) > 0
    trades, bars = traded(seat)
    assert trades == bars
    due = polled(seat)
    assert (due.changed, due.outdated()) == ((), ())
    assert seat.ingest(HOURS, derive=True) == []


def test_a_day_that_was_degraded_is_so_in_the_receipts_of_its_bars_and_in_coverage(seat, faulty):
    faulty.fault("degraded", day=CHANGED)
    seat.stored(TRADES)
    receipts = seat.stored(HOURS, derive=True)
    said = {str(c.day): c.condition for r in receipts for c in r.conditions if r.fetched}
    assert said == {CHANGED: "degraded"}
    faulty.clear()
    with seat.open() as data:
        data.revisions_due().remember()
    with seat.open() as data:
        lines = data.coverage().lines
    assert {(line.schema, line.symbol): line.total("degraded") for line in lines} == {
        ("trades", "ESU4"): 1, ("ohlcv-1h", "ESU4"): 1
    }  # fmt: skip


def test_coverage_shows_what_was_made_under_the_symbols_that_were_asked_for(seat):
    parent = [Ask("ES.FUT", DAYS[0], DAYS[0], name) for name in ("trades", "ohlcv-1h")]
    seat.stored(parent[0])
    assert len(seat.stored(parent[1], derive=True)) > 2
    with seat.open() as data:
        lines = data.coverage().lines
        assert [line.symbol for line in data.coverage(["ES.FUT"]).lines] == ["ES.FUT", "ES.FUT"]
    assert [(line.schema, line.symbol, line.total("held")) for line in lines] == [
        ("ohlcv-1h", "ES.FUT", 1), ("trades", "ES.FUT", 1)
    ]  # fmt: skip


def test_an_offer_says_why_nothing_is_made_and_a_plan_how_many_days_can_be(seat):
    everything = Ask("ALL_SYMBOLS", DAYS[0], DAYS[0], "ohlcv-1h")
    assert seat.offer(everything, derive=True).notes == (
        "ALL_SYMBOLS is never derived: what it stands for only an order says",
    )
    assert seat.offer(HOURS, derive=True).notes == ("nothing stored can make these bars: all are bought",)
    seat.stored(Ask("ESU4", "2024-06-25", "2024-06-27T12:00:00Z", "trades"))
    with seat.open() as data:
        buying = seat.buying(data, Ask("ESU4,NQU4", "2024-06-25", "2024-06-28", "ohlcv-1h"))
        (cheaper,) = buying.outlook(buying.offer()).cheaper
    share = "2 of 8 days of 2 instruments, and part of 1 more,"
    assert cheaper.gives == f"{share} can be made from stored trades, for nothing; the rest is bought"

"""Whatever is asked for in whatever order: each instrument-day is billed once, by the vendor's own books."""

import datetime as dt
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from api.desk import XNAS, Ask, Desk
from api.truth import alike

START, END = "2024-03-01", "2024-04-15"
FRONT, PARENT = Ask("ES.c.0", START, END), Ask("ES.FUT", START, END)


def ids(truth, symbol, stype, day):
    """The ids that a symbol stands for on a day, by the vendor."""
    answer = truth.client.symbology.resolve("GLBX.MDP3", [symbol], stype, "instrument_id", day)["result"]
    return sorted({each["s"] for intervals in answer.values() for each in intervals})


CASES = {
    "the same again": [FRONT, FRONT],
    "later days": [Ask("ES.c.0", START, "2024-03-20"), FRONT],
    "earlier days": [Ask("ES.c.0", "2024-03-20", END), FRONT],
    "days around": [Ask("ES.c.0", "2024-03-12", "2024-03-18"), FRONT],
    "two stretches, then all": [Ask("ES.c.0", START, "2024-03-05"), Ask("ES.c.0", "2024-04-01", "2024-04-05"), FRONT],
    "part of it": [FRONT, Ask("ES.c.0", "2024-03-10", "2024-03-20")],
    "continuous inside parent": [PARENT, FRONT],
    "parent after continuous": [FRONT, PARENT],
    "parent after a part of continuous": [Ask("ES.c.0", "2024-03-12", "2024-03-18"), PARENT],
    "another root": [FRONT, Ask("ES.c.0,NQ.c.0", START, END)],
    "raw symbol inside continuous": [FRONT, Ask("ESH4", START, "2024-03-14")],
    "continuous after raw symbols": [Ask("ESH4,ESM4", START, END), FRONT],
    "second rank after first": [FRONT, Ask("ES.c.1", START, END)],
    "by volume after by calendar": [FRONT, Ask("ES.v.0", START, END)],
    "both rules at once": [Ask("ES.v.0,ES.c.0,ES.n.0", START, END)],
    "mixed types": [Ask("ES.c.0,ESH4,ES.FUT,CL.c.0,CLK4", START, END)],
    "mixed types after one of them": [Ask("ESM4,CLJ4", "2024-03-10", END), Ask("ES.FUT,CL.c.0", START, END)],
    "everything, then a parent": [Ask("ALL_SYMBOLS", "2024-03-14", "2024-03-15"),
                                  Ask("ES.FUT", "2024-03-14", "2024-03-15")],
    "other spelling": [FRONT, Ask("es.C.00", START, END)],
}  # fmt: skip


@pytest.mark.parametrize("asks", CASES.values(), ids=CASES)
def test_requests_that_overlap_are_billed_once_and_store_what_one_would(desk, vendor, truth, asks):
    for ask in asks:
        desk.stored(ask)
    known = [ask for ask in asks if ask.symbols != "es.C.00"]
    assert vendor.books.billed_bytes == truth.size(*known)
    alike(desk.rows(), truth.union(*known))


@pytest.mark.parametrize("case", ["parent after continuous", "raw symbol inside continuous", "later days"])
def test_a_lake_that_grew_reads_as_one_that_got_all_at_once(desk, case):
    asks = CASES[case]
    clean = desk.beside("clean")
    for ask in asks:
        desk.stored(ask)
    clean.stored(Ask(",".join(dict.fromkeys(ask.symbols for ask in asks)), START, END))
    for ask in asks:
        window = {"symbols": ask.symbols, "start": ask.start, "end": ask.end}
        assert desk.rows(**window) == clean.rows(**window)
    assert desk.rows() == clean.rows()


@pytest.mark.parametrize("schema", ["trades", "tbbo", "statistics", "definition", "ohlcv-1m"])
def test_every_kind_of_data_is_billed_once_when_a_parent_follows_its_front_contract(desk, vendor, truth, schema):
    front, parent = (Ask(s, "2024-03-14", "2024-03-15", schema) for s in ("ES.c.0", "ES.FUT"))
    for ask in (front, parent, front, parent):
        desk.stored(ask)
    assert vendor.books.billed_bytes == truth.size(front, parent)
    alike(desk.rows(schema), truth.union(front, parent))


def test_ids_inside_a_parent_cost_nothing_and_a_parent_after_ids_the_rest(desk, vendor, truth):
    front, *others = ids(truth, "ES.FUT", "parent", "2024-03-04")
    first = Ask(front, START, "2024-03-10")
    for ask in (first, PARENT, Ask(",".join(others), START, "2024-03-10"), Ask(front, START, "2024-03-14")):
        desk.stored(ask)
    assert vendor.books.billed_bytes == truth.size(PARENT)
    alike(desk.rows(), truth.rows(PARENT))


def test_hours_of_a_day_are_not_bought_again_with_the_day(desk, vendor, truth):
    hours = ("2024-03-14T14:00:00Z", "2024-03-14T16:00:00Z"), ("2024-03-14T15:00:00Z", "2024-03-14T18:30:00.000000001Z")
    day = Ask("ES.FUT", "2024-03-14", "2024-03-14", "trades")
    for start, end in hours:
        desk.stored(replace(day, symbols="ES.c.0", start=start, end=end))
    two = 1_710_424_800 * 10**9
    within = range(two, two + 16_200 * 10**9 + 1)  # from 14:00 to the first nanosecond after 18:30
    front = truth.rows(replace(day, symbols="ES.c.0"))
    alike(desk.rows("trades"), [row for row in front if row["ts_recv"] in within])
    desk.stored(day)
    assert vendor.books.billed_bytes == truth.size(day)
    alike(desk.rows("trades"), truth.rows(day))


def test_another_schema_and_another_dataset_are_bought_beside(desk, vendor, truth):
    asks = [Ask("ES.c.0", "2024-03-14", "2024-03-15", schema) for schema in ("ohlcv-1d", "ohlcv-1h", "trades")]
    asks.append(Ask("SPY", "2024-03-14", "2024-03-15", "ohlcv-1d", XNAS))
    for ask in [*asks, *asks]:
        desk.stored(ask)
    assert vendor.books.billed_bytes == sum(truth.size(ask) for ask in asks)


def test_five_and_fifteen_minute_bars_are_the_bars_of_one_minute_bought_once(desk, vendor, truth):
    for schema in ("ohlcv-15m", "ohlcv-5m", "ohlcv-1m"):
        desk.stored(Ask("ES.c.0", "2024-03-14", "2024-03-14", schema))
    assert vendor.books.billed_bytes == truth.size(Ask("ES.c.0", "2024-03-14", "2024-03-14", "ohlcv-1m"))
    assert vendor.books.calls["timeseries.get_range"] == 1


def test_a_request_that_is_held_asks_the_vendor_nothing_even_when_it_is_down(desk, vendor):
    asks = [Ask("ES.FUT,CL.c.0,ESH4", START, END), Ask("ES.c.0", "2024-03-02", "2024-03-02")]
    for ask in asks:
        desk.stored(ask)
    calls = vendor.books.calls
    vendor.fault("503")
    for ask in [*asks, Ask("CL.c.0", "2024-03-05", "2024-03-06"), Ask("ESH4,ES.FUT", START, "2024-03-01")]:
        assert desk.ingest(ask) == []
    assert vendor.books.calls == calls


def test_downloads_of_few_records_buy_the_same_as_one(desk, vendor, truth):
    ask = Ask("ES.FUT,CL.c.0", START, END, "statistics")
    desk.settings["ingest.download_records"] = 1
    desk.stored(ask)
    assert vendor.books.calls["timeseries.get_range"] == 4  # two symbol types in two months
    assert vendor.books.billed_bytes == truth.size(ask)
    alike(desk.rows("statistics"), truth.rows(ask))


# A refetch.


def test_a_refetch_buys_again_and_writes_nothing_where_all_is_equal(desk, vendor, truth):
    desk.stored(FRONT)
    files = desk.place.data_files()
    receipts = desk.stored(FRONT, refetch=True)
    assert vendor.books.billed_bytes == 2 * truth.size(FRONT)
    assert [(r.stored, r.superseded) for r in receipts] == [(r.unchanged, 0) for r in receipts]
    assert desk.place.data_files() == files
    assert desk.ingest(FRONT) == []


@pytest.mark.fault("vendor", "a day that was restated", "lake")
def test_a_refetch_of_a_restated_day_replaces_its_rows_and_keeps_the_superseded(desk, vendor, truth):
    ask = Ask("ES.FUT", "2024-03-12", "2024-03-15")
    desk.stored(ask)
    before = desk.rows()
    vendor.fault("restated", day="2024-03-13")
    truth._vendor.fault("restated", day="2024-03-13")
    desk.stored(ask, refetch=True)
    after = desk.rows()
    alike(after, truth.rows(ask))
    changed = [row for row in before if row not in after]
    assert changed
    assert {row["ts_event"] // (86_400 * 10**9) for row in changed} == {
        (dt.date(2024, 3, 13) - dt.date(1970, 1, 1)).days
    }
    store = desk.store()
    schema = next(s for s in desk.open().schemas if s.kind == "ohlcv")
    old = store.replaced(schema)
    assert sorted(old["close_price"]) == sorted(row["close_price"] for row in changed)
    assert old["_replaced_run"].n_unique() == 1
    modified = [c for slip in desk.slips() for c in slip["conditions"] if c[0] == "2024-03-13"]
    assert modified[0] != modified[-1]


def test_a_refetch_of_a_part_leaves_the_rest_alone(desk, vendor, truth):
    desk.stored(PARENT)
    part = Ask("ES.c.0", "2024-03-12", "2024-03-15")
    desk.stored(part, refetch=True)
    assert vendor.books.billed_bytes == truth.size(PARENT) + truth.size(part)
    alike(desk.rows(), truth.rows(PARENT))


# Random requests.

#: a sequence of three requests says what is wrong; to find a shorter one takes minutes.
NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)

DAYS = [dt.date(2024, 3, 5) + dt.timedelta(days=n) for n in range(30)]
SYMBOLS = ("ES.c.0", "ES.c.1", "ES.v.0", "ES.FUT", "ESH4", "ESM4", "ESH4-ESM4", "CL.c.0", "CL.n.0", "CLK4", "GC.FUT")


@st.composite
def asks(draw):
    symbols = draw(st.lists(st.sampled_from(SYMBOLS), min_size=1, max_size=3, unique=True))
    first, last = sorted(draw(st.tuples(st.sampled_from(DAYS), st.sampled_from(DAYS))))
    return Ask(",".join(symbols), first.isoformat(), last.isoformat())


@pytest.fixture
def fresh(desk):
    """Desks of their own, on the one vendor."""
    numbers = iter(range(10_000))
    return lambda: desk.beside(f"example-{next(numbers)}")


@settings(
    max_examples=8, deadline=None, phases=NO_SHRINKING, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(requests=st.lists(asks(), min_size=1, max_size=3))
def test_any_sequence_of_requests_is_billed_as_its_union_and_stores_it(fresh, vendor, truth, requests):
    desk: Desk = fresh()
    vendor.books.reset()
    alive = [ask for ask in requests if truth.stands(ask)]
    for ask in alive:
        desk.stored(ask)
    if alive:
        assert vendor.books.billed_bytes == truth.size(*alive)
        alike(desk.rows(), truth.union(*alive))
    calls = vendor.books.calls
    for ask in alive:
        assert desk.ingest(ask) == []
    assert vendor.books.calls == calls

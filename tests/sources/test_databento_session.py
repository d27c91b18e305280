"""A whole session with the rehearsal vendor, whose books say what was asked and billed."""

import datetime as dt
import threading

import pytest
from polars import col

from hdi.errors import AccountRefused, CorruptFile, EndUnavailable, NothingResolved, RangeUnavailable, VendorUnavailable
from hdi.model import DAY_NS, Order, Window, date_ns, parse_instant
from hdi.sources import open_source as open_by_name
from hdi.sources.databento import Loss, RequestRefused
from hdi.sources.dbn import Reader

RANGE = "timeseries.get_range"
COUNT = "metadata.get_record_count"
DATASET = "GLBX.MDP3"
SCHEMAS = ("ohlcv-1d", "ohlcv-1h", "ohlcv-1m", "ohlcv-1s", "trades", "tbbo", "statistics", "definition")
DAY = Window.parse("2024-01-03", "2024-01-03")
MONTH = Window.parse("2024-01-01", "2024-01-31")
BARS = Order(DATASET, "ohlcv-1d", "continuous", ("ES.c.0", "CL.c.0"), MONTH)
#: A few megabytes: daily bars of all contracts of two products.
MANY = Order(DATASET, "ohlcv-1d", "parent", ("ES.FUT", "CL.FUT"), Window.parse("2015-01-01", "2024-06-29"))


def read(path):
    """(header, number of records) of a file that is whole."""
    with Reader(path) as reader:
        return reader.header, sum(len(rows) for rows in reader.arrays(100_000))


def test_it_is_opened_by_its_name_with_the_settings_of_its_group(vendor):
    source = open_by_name(
        "databento", key=vendor.key, gateway=vendor.gateway, tries=2, backoff_seconds=0.0, timeout=5.0
    )
    assert source.origin == "synthetic"
    assert source.check()["datasets"] == 3


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_quote_is_what_the_download_brings_and_the_vendor_bills(vendor, shop, tmp_path, schema):
    order = Order(DATASET, schema, "continuous", ("ES.c.0",), DAY)
    quote = shop.quote(order)
    assert quote.records > 0
    assert shop.count(order) == quote.records
    assert vendor.books.entries == ()
    took = shop.download(order, tmp_path / "part")
    header, records = read(tmp_path / "part")
    assert records == quote.records
    assert (header.dataset, header.schema, header.symbols, header.window) == (DATASET, schema, ("ES.c.0",), DAY)
    (entry,) = vendor.books.entries
    assert (entry.size, entry.records, entry.finished) == (quote.size, quote.records, True)
    assert float(entry.dollars) == float(quote.dollars)
    assert (took.tries, took.lost) == (1, Loss())


def test_free_calls_cost_nothing(vendor, shop):
    shop.check()
    shop.available(DATASET)
    shop.resolve(DATASET, ["ES.FUT"], "parent", MONTH)
    shop.raw_symbols(DATASET, [1, 2], MONTH)
    shop.conditions(DATASET, MONTH)
    shop.quote(BARS)
    assert vendor.books.calls[RANGE] == 0
    assert vendor.books.dollars == 0


def test_what_can_be_ordered_ends_where_the_vendor_says(shop):
    windows = shop.available(DATASET)
    assert set(SCHEMAS) <= set(windows)
    assert windows["trades"] == Window(parse_instant("2010-06-06")[0], parse_instant("2024-06-30")[0])


def test_a_window_past_the_end_can_be_had_up_to_the_end_in_the_error(shop, tmp_path):
    late = Order(DATASET, "ohlcv-1d", "continuous", ("ES.c.0",), Window.parse("2024-06-24", "2024-07-05"))
    with pytest.raises(EndUnavailable) as refused:
        shop.download(late, tmp_path / "part")
    assert not (tmp_path / "part").exists()
    order = Order(
        *(DATASET, "ohlcv-1d", "continuous", ("ES.c.0",)), Window(late.window.start, refused.value.available_end)
    )
    shop.download(order, tmp_path / "part")
    assert read(tmp_path / "part")[1] == shop.count(order) > 0


def test_a_window_that_lies_outside_altogether_cannot(shop):
    for start, end in (("2030-01-01", "2030-02-01"), ("2001-01-01", "2001-02-01")):
        with pytest.raises(RangeUnavailable) as refused:
            shop.count(Order(DATASET, "ohlcv-1d", "continuous", ("ES.c.0",), Window.parse(start, end)))
        assert not isinstance(refused.value, EndUnavailable)
        assert refused.value.available.end == parse_instant("2024-06-30")[0]


def test_a_continuous_symbol_is_one_contract_after_the_other(shop):
    year = Window.parse("2023-01-01", "2023-12-31")
    found = shop.resolve(DATASET, ["ES.c.0"], "continuous", year)
    assert found["start"][0] == year.start
    assert found["end"].to_list()[:-1] == found["start"].to_list()[1:]
    assert found["end"][-1] == year.end
    names = shop.raw_symbols(DATASET, found["instrument_id"].to_list(), year)
    overlapping = (col("start") < col("end_right")) & (col("end") > col("start_right"))
    used = found.join(names, on="instrument_id").filter(overlapping).sort("start")
    assert used["symbol"].to_list() == ["ESH3", "ESM3", "ESU3", "ESZ3", "ESH4"]


def test_parents_are_asked_one_at_a_time_and_hold_their_continuous_symbols(vendor, shop):
    parents = ["ES.FUT", "cl.fut", "NG.FUT"]
    found = shop.resolve(DATASET, parents, "parent", MONTH)
    assert vendor.books.calls["symbology.resolve"] == 3
    assert set(found["asked"]) == set(parents)
    front = shop.resolve(DATASET, ["CL.c.0"], "continuous", MONTH)
    children = found.filter(col("asked") == "cl.fut")["instrument_id"].to_list()
    assert set(front["instrument_id"]) < set(children)
    other = found.filter(col("asked") == "ES.FUT")["instrument_id"].to_list()
    assert not set(other) & set(children)


def test_an_instrument_id_that_comes_back_means_something_else_by_date(shop):
    ever = Window.parse("2010-06-06", "2024-06-29")
    ids = shop.resolve(DATASET, ["ES.FUT", "CL.FUT"], "parent", ever)["instrument_id"].unique().to_list()
    names = shop.raw_symbols(DATASET, ids, ever)
    reused = names.group_by("instrument_id").agg(col("symbol").n_unique()).filter(col("symbol") > 1)
    assert len(reused) > 0
    number = reused["instrument_id"].min()
    for _, start, end, symbol in names.filter(col("instrument_id") == number).iter_rows():
        day = Window(start, min(end, start + DAY_NS))
        assert shop.raw_symbols(DATASET, [number], day)["symbol"].to_list() == [symbol]
        assert shop.resolve(DATASET, [symbol.lower()], "raw_symbol", day).rows() == [
            (symbol.lower(), number, day.start, day.end)
        ]


def test_symbols_that_stand_for_nothing_have_no_row_and_cannot_be_ordered(shop, tmp_path):
    found = shop.resolve(DATASET, ["ESH4", "NOPE"], "raw_symbol", MONTH)
    assert set(found["asked"]) == {"ESH4"}
    assert shop.resolve(DATASET, ["NOPE.FUT"], "parent", MONTH).is_empty()
    with pytest.raises(NothingResolved):
        shop.download(Order(DATASET, "trades", "raw_symbol", ("NOPE",), DAY), tmp_path / "part")


def test_symbols_that_are_found_in_part_are_served_and_told_in_the_header(shop, tmp_path):
    shop.download(Order(DATASET, "ohlcv-1d", "raw_symbol", ("ESH4", "NOPE"), MONTH), tmp_path / "part")
    header, records = read(tmp_path / "part")
    assert header.not_found == ("NOPE",)
    assert records > 15


def test_days_have_the_vendors_condition(vendor, shop):
    vendor.fault("degraded:day=2024-01-10")
    found = {c.day: c for c in shop.conditions(DATASET, MONTH)}
    assert found[dt.date(2024, 1, 10)].condition == "degraded"
    assert found[dt.date(2024, 1, 9)].condition == "available"
    assert found[dt.date(2024, 1, 9)].last_modified is not None
    assert dt.date(2024, 1, 6) not in found  # a Saturday
    assert all(MONTH.start <= date_ns(day) < MONTH.end for day in found)


def test_unknown_names_are_answered_with_the_closest(shop):
    with pytest.raises(RequestRefused, match="no dataset") as refused:
        shop.available("GLBX.MPD3")
    assert "Did you mean GLBX.MDP3?" in refused.value.hint
    with pytest.raises(RequestRefused, match="no schema 'imbalance'"):
        shop.quote(Order(DATASET, "imbalance", "continuous", ("ES.c.0",), DAY))


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("401", AccountRefused),
        ("402", AccountRefused),
        ("403:case=auth_account_locked", AccountRefused),
        ("403:case=license_not_found_unauthorized", AccountRefused),
        ("422:case=symbology_invalid_request", NothingResolved),
        ("422:case=schema_not_supported", RequestRefused),
        ("422:case=data_start_before_available_start", RangeUnavailable),
        ("422:case=dataset_unavailable_range", RangeUnavailable),
    ],
)
def test_a_refusal_is_asked_for_once_and_costs_nothing(vendor, shop, tmp_path, waits, fault, kind):
    vendor.fault(fault, method=RANGE)
    with pytest.raises(kind):
        shop.download(BARS, tmp_path / "part")
    assert vendor.books.calls[RANGE] == 1
    assert vendor.books.dollars == 0
    assert not waits
    assert not list(tmp_path.glob("part*"))


@pytest.mark.parametrize("fault", ["429:retry_after=0", "500", "503", "503:retry_after=0", "504", "reset"])
@pytest.mark.parametrize("times", [2, 5])
def test_a_failure_that_passes_is_tried_five_times_in_all(vendor, shop, tmp_path, fault, times):
    vendor.fault(fault, method=RANGE, times=times)
    if times == 5:
        with pytest.raises(VendorUnavailable, match="in 5 tries"):
            shop.download(BARS, tmp_path / "part")
        assert vendor.books.dollars == 0
    else:
        took = shop.download(BARS, tmp_path / "part")
        assert (took.tries, took.lost) == (3, Loss())
        assert len(vendor.books.entries) == 1
    assert vendor.books.calls[RANGE] == min(times + 1, 5)
    assert (tmp_path / "part").exists() == (times == 2)


def test_a_vendor_that_does_not_answer_is_tried_again_after_the_timeout(vendor, open_source, tmp_path):
    vendor.fault("timeout:seconds=20", method=RANGE, times=1)
    source = open_source(vendor.gateway, key=vendor.key, timeout=0.5)
    assert source.download(BARS, tmp_path / "part").tries == 2
    assert read(tmp_path / "part")[1] == source.count(BARS)


def test_a_cut_stream_is_brought_again_and_both_are_billed(vendor, shop, tmp_path):
    quote = shop.quote(MANY)
    vendor.fault("cut:after=200000", times=1)
    took = shop.download(MANY, tmp_path / "part")
    assert read(tmp_path / "part")[1] == quote.records
    cut, whole = vendor.books.entries
    assert (cut.finished, whole.finished, whole.size) == (False, True, quote.size)
    assert (took.tries, took.lost.tries) == (2, 1)
    assert 0 < took.lost.received <= 200_000
    assert 0 < took.lost.billed <= cut.size
    assert vendor.books.billed_bytes == cut.size + whole.size


@pytest.mark.parametrize("fault", ["short:after=100000", "corrupt:after=100000"])
def test_bytes_that_came_to_a_clean_end_are_never_bought_again_here(vendor, shop, tmp_path, fault):
    vendor.fault(fault)
    assert shop.download(MANY, tmp_path / "part").tries == 1
    assert vendor.books.calls[RANGE] == 1
    with pytest.raises(CorruptFile):
        read(tmp_path / "part")


@pytest.mark.parametrize("fault", ["boundary:records=100", "empty"])
def test_fewer_records_than_were_counted_are_left_to_the_caller_to_see(vendor, shop, tmp_path, fault):
    vendor.fault(fault)
    shop.download(MANY, tmp_path / "part")
    assert read(tmp_path / "part")[1] < shop.count(MANY)
    assert vendor.books.calls[RANGE] == 1


@pytest.mark.parametrize("vendor", [{"limits": 1.0}], indirect=True)
def test_threads_that_ask_much_never_meet_the_vendors_limit(vendor, open_source, waits):
    sources = [open_source(vendor.gateway, key=vendor.key) for _ in range(3)]
    workers = [threading.Thread(target=lambda s=s: [s.count(BARS) for _ in range(15)]) for s in sources]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert vendor.books.calls[COUNT] == 45
    assert not [why for why, _ in waits if "429" in why]


def test_downloads_of_several_threads_do_not_disturb_each_other(shop, tmp_path):
    orders = [Order(DATASET, "ohlcv-1d", "continuous", (f"{root}.c.0",), MONTH) for root in ("ES", "CL", "NG", "RB")]
    workers = [threading.Thread(target=shop.download, args=(order, tmp_path / order.symbols[0])) for order in orders]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for order in orders:
        header, records = read(tmp_path / order.symbols[0])
        assert header.symbols == order.symbols
        assert records == shop.count(order) > 15

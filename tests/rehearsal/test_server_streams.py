"""Streams: what is counted, sized and priced is what arrives, with the header that the vendor sends."""

import datetime as dt
import threading
import time
from decimal import Decimal

import databento
import databento_dbn as dbn
import numpy as np
import pytest
import requests

DAY_NS = 86_400 * 10**9
START = int(dt.datetime(2024, 1, 8, tzinfo=dt.UTC).timestamp()) * 10**9
#: The client leaves the files that it has written open.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file .*dbn.zst:ResourceWarning")
FUTURES, STOCKS = "GLBX.MDP3", "XNAS.ITCH"
DAYS = {"start": "2024-01-08", "end": "2024-01-11"}
HOUR = {"start": "2024-01-09T15:00:00", "end": "2024-01-09T16:00:00"}
WIDTHS = {
    "definition": 520, "statistics": 80, "trades": 48, "tbbo": 80,
    "ohlcv-1s": 56, "ohlcv-1m": 56, "ohlcv-1h": 56, "ohlcv-1d": 56,
}  # fmt: skip
RTYPES = {
    "definition": 19, "statistics": 24, "trades": 0, "tbbo": 1,
    "ohlcv-1s": 32, "ohlcv-1m": 33, "ohlcv-1h": 34, "ohlcv-1d": 35,
}  # fmt: skip


def index(rows):
    return rows["ts_recv" if "ts_recv" in rows.dtype.names else "ts_event"]


class TestRecords:
    @pytest.mark.parametrize("schema", WIDTHS)
    @pytest.mark.parametrize(("symbols", "stype"), [("ESH4,CLG4", "raw_symbol"), ("NG.c.0", "continuous"),
                                                    ("HO.FUT", "parent")])  # fmt: skip
    def test_counts_sizes_and_costs_are_those_of_what_arrives(self, vendor, client, schema, symbols, stype):
        window = HOUR if schema in {"trades", "tbbo", "ohlcv-1s"} else DAYS
        asked = {"dataset": FUTURES, "schema": schema, "symbols": symbols, "stype_in": stype, **window}
        count, size = client.metadata.get_record_count(**asked), client.metadata.get_billable_size(**asked)
        cost = client.metadata.get_cost(**asked)
        assert vendor.books.entries == ()
        rows = client.timeseries.get_range(**asked).to_ndarray()
        assert len(rows) == count > 0
        assert rows.nbytes == size == count * WIDTHS[schema]
        assert set(rows["rtype"].tolist()) == {RTYPES[schema]}
        assert (np.diff(index(rows).astype(np.int64)) >= 0).all()
        (entry,) = vendor.books.entries
        assert (entry.records, entry.size, entry.finished) == (count, size, True)
        price = client.metadata.list_unit_prices(FUTURES)[0]["unit_prices"][schema]
        assert cost == pytest.approx(price * size / 2**30, rel=1e-9, abs=1e-12)
        assert float(entry.dollars) == cost

    def test_instrument_ids_select_as_their_symbols_do(self, client, week):
        by_symbol = client.timeseries.get_range(**week | {"symbols": "ESH4", "stype_in": "raw_symbol"}).to_ndarray()
        number = int(by_symbol["instrument_id"][0])
        by_id = client.timeseries.get_range(**week | {"symbols": number, "stype_in": "instrument_id"})
        assert by_id.to_ndarray().tobytes() == by_symbol.tobytes()
        assert str(number) in by_id.metadata.mappings

    def test_a_stock_has_trades_bars_and_a_publisher_of_its_own(self, client):
        for schema in ("trades", "ohlcv-1d"):
            rows = client.timeseries.get_range(STOCKS, schema=schema, symbols="SPY", **DAYS).to_ndarray()
            assert set(rows["publisher_id"].tolist()) == {2}
            assert len(rows) >= 3

    def test_all_symbols_are_all_instruments(self, client):
        rows = client.timeseries.get_range(FUTURES, schema="ohlcv-1d", **DAYS).to_ndarray()
        parents = [f"{root}.FUT" for root in ("ES", "NQ", "CL", "NG", "HO", "RB", "GC")]
        families = client.timeseries.get_range(
            FUTURES, schema="ohlcv-1d", symbols=parents, stype_in="parent", **DAYS
        ).to_ndarray()
        assert np.sort(rows).tobytes() == np.sort(families).tobytes()

    def test_a_symbol_asked_for_twice_or_in_two_ways_comes_once(self, client, week):
        once = client.timeseries.get_range(**week).to_ndarray()
        twice = client.timeseries.get_range(**week | {"symbols": "ES.c.0,ES.n.0,ES.c.0"}).to_ndarray()
        assert once.tobytes() == twice.tobytes()

    def test_a_limit_cuts_the_count_the_cost_and_the_stream(self, vendor, client, week):
        asked = week | {"schema": "ohlcv-1m", "limit": 100}
        rows = client.timeseries.get_range(**asked)
        assert rows.metadata.limit == 100
        assert len(rows.to_ndarray()) == client.metadata.get_record_count(**asked) == 100
        assert client.metadata.get_billable_size(**asked) == vendor.books.billed_bytes == 5600
        whole = client.timeseries.get_range(**asked | {"limit": None}).to_ndarray()
        assert whole[:100].tobytes() == rows.to_ndarray().tobytes()

    def test_a_window_without_trades_is_a_header_alone(self, client):
        quiet = {"start": "2024-01-06", "end": "2024-01-07"}  # a Saturday, on which contracts are still listed
        asked = {"dataset": FUTURES, "schema": "trades", "symbols": "ESH4", **quiet}
        assert client.metadata.get_record_count(**asked) == 0
        store = client.timeseries.get_range(**asked)
        assert len(list(store)) == 0
        assert store.metadata.symbols == ["ESH4"]

    def test_hostile_rows_are_among_those_that_are_counted(self, rehearse, connect, week):
        asked = week | {"schema": "trades", "symbols": "ES.FUT", "stype_in": "parent"}
        clean = connect(rehearse()).timeseries.get_range(**asked).to_ndarray()
        client = connect(rehearse(hostile=5))
        rows = client.timeseries.get_range(**asked).to_ndarray()
        assert len(rows) == client.metadata.get_record_count(**asked) > len(clean)

    def test_a_large_stream_arrives_whole_and_in_order(self, vendor, client, tmp_path):
        asked = {"dataset": FUTURES, "schema": "trades", "symbols": "ES.FUT,CL.FUT", "stype_in": "parent", **DAYS}
        store = client.timeseries.get_range(**asked, path=tmp_path / "big.dbn.zst")
        rows = store.to_ndarray()
        assert len(rows) == client.metadata.get_record_count(**asked) > 60_000
        assert (np.diff(rows["ts_recv"].astype(np.int64)) >= 0).all()
        assert vendor.books.billed_bytes == rows.nbytes


class TestHeader:
    def test_it_repeats_the_request(self, client, week):
        meta = client.timeseries.get_range(**week).metadata
        assert (meta.version, meta.dataset, str(meta.schema)) == (3, FUTURES, "ohlcv-1d")
        assert (str(meta.stype_in), str(meta.stype_out)) == ("continuous", "instrument_id")
        assert (meta.start, meta.end, meta.limit) == (START, START + 5 * DAY_NS, None)
        assert (meta.symbols, meta.partial, meta.not_found) == (["ES.c.0"], [], [])

    @pytest.mark.parametrize(("symbols", "stype"), [("ES.c.0,CL.n.1", "continuous"), ("NQ.FUT", "parent"),
                                                    ("ESH4", "raw_symbol")])  # fmt: skip
    def test_its_mappings_are_those_that_symbology_resolves(self, client, week, symbols, stype):
        meta = client.timeseries.get_range(**week | {"symbols": symbols, "stype_in": stype}).metadata
        found = client.symbology.resolve(FUTURES, symbols, stype, "instrument_id", "2024-01-08", "2024-01-13")
        told = {
            key: [{"d0": str(i["start_date"]), "d1": str(i["end_date"]), "s": i["symbol"]} for i in intervals]
            for key, intervals in meta.mappings.items()
        }
        assert told == found["result"]

    def test_every_record_is_mapped_on_its_day(self, client, week):
        store = client.timeseries.get_range(**week | {"symbols": "ES.FUT", "stype_in": "parent"})
        known = {
            (int(each["symbol"]), str(each["start_date"]), str(each["end_date"]))
            for intervals in store.metadata.mappings.values()
            for each in intervals
        }
        for row in store.to_ndarray():
            day = str(dt.date(1970, 1, 1) + dt.timedelta(days=int(row["ts_event"]) // DAY_NS))
            assert any(number == row["instrument_id"] and a <= day < b for number, a, b in known)

    def test_symbols_that_are_not_found_are_206_and_named(self, vendor, client, week):
        asked = week | {"symbols": "ESH4,NOSUCH", "stype_in": "raw_symbol"}
        assert client.timeseries.get_range(**asked).metadata.not_found == ["NOSUCH"]
        reply = requests.post(f"{vendor.gateway}/v0/timeseries.get_range", asked, auth=(vendor.key, ""), timeout=9)
        assert reply.status_code == 206

    def test_symbols_that_are_listed_for_a_part_of_the_days_are_206_and_partial(self, client, week):
        asked = week | {"symbols": "ESH4", "stype_in": "raw_symbol", "start": "2024-03-11", "end": "2024-03-20"}
        meta = client.timeseries.get_range(**asked).metadata
        assert (meta.partial, meta.not_found) == (["ESH4"], [])


class TestTimes:
    @pytest.mark.parametrize(
        ("start", "end", "hours"),
        [
            ("2024-01-09", "2024-01-10", (0, 24)),
            ("2024-01-09", None, (0, 24)),
            ("2024-01-09T14", None, (14, 15)),
            ("2024-01-09T14:00", "2024-01-09T16:00:00.000000001", (14, 17)),
            ("2024-01-09T09:00:00-05:00", "2024-01-09T17:00:00+01:00", (14, 16)),
            (dt.date(2024, 1, 9), dt.datetime(2024, 1, 9, 12, tzinfo=dt.UTC), (0, 12)),
            (START + DAY_NS, START + 2 * DAY_NS, (0, 24)),
            (START + DAY_NS + 1, START + 2 * DAY_NS, (1, 24)),
        ],
    )
    def test_windows_are_what_the_client_writes_them_as(self, client, start, end, hours):
        asked = {"dataset": FUTURES, "schema": "ohlcv-1h", "symbols": "ESH4", "start": start, "end": end}
        rows = client.timeseries.get_range(**asked).to_ndarray()
        expected = [hour for hour in range(*hours) if hour != 22]  # the daily break
        assert ((rows["ts_event"].astype(np.int64) - START - DAY_NS) // (3600 * 10**9)).tolist() == expected
        assert client.metadata.get_record_count(**asked) == len(expected)

    def test_trades_are_cut_to_the_nanosecond(self, client):
        asked = {"dataset": FUTURES, "schema": "trades", "symbols": "ESH4", **HOUR}
        rows = client.timeseries.get_range(**asked).to_ndarray()
        at = int(rows["ts_recv"][len(rows) // 2])
        before = client.timeseries.get_range(**asked | {"end": at}).to_ndarray()
        after = client.timeseries.get_range(**asked | {"start": at}).to_ndarray()
        assert int(before["ts_recv"].max()) < at == int(after["ts_recv"].min())
        assert np.concatenate([before, after]).tobytes() == rows.tobytes()

    def test_an_end_that_is_left_out_stops_at_the_available_end(self, client):
        asked = {"dataset": FUTURES, "schema": "ohlcv-1d", "symbols": "ES.c.0", "stype_in": "continuous"}
        rows = client.timeseries.get_range(**asked, start="2024-06").to_ndarray()
        assert int(rows["ts_event"].max()) < START + 174 * DAY_NS  # 2024-06-30
        assert len(rows) == 24


def test_clients_at_once_each_get_their_own(vendor, connect, week):
    asked = [week | {"schema": "ohlcv-1m", "symbols": f"{root}.c.0"} for root in ("ES", "CL", "NG", "GC")] * 2
    found = {}

    def work(number):
        found[number] = connect(vendor).timeseries.get_range(**asked[number]).to_ndarray()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    client = connect(vendor)
    for number, fields in enumerate(asked):
        assert found[number].tobytes() == client.timeseries.get_range(**fields).to_ndarray().tobytes()
    assert vendor.books.billed_bytes == 2 * sum(rows.nbytes for rows in found.values())


class TestBooks:
    def test_an_entry_tells_what_was_asked_for(self, vendor, client, week):
        client.timeseries.get_range(**week | {"symbols": ["ES.c.0", "CL.c.0"]})
        (entry,) = vendor.books.entries
        assert (entry.dataset, entry.schema, entry.stype) == (FUTURES, "ohlcv-1d", "continuous")
        assert (entry.symbols, entry.start, entry.end) == (("ES.c.0", "CL.c.0"), START, START + 5 * DAY_NS)

    def test_only_streams_are_billed_each_time_and_the_sum_is_exact(self, vendor, client, week):
        client.metadata.get_cost(**week)
        client.symbology.resolve(FUTURES, "ESH4", "raw_symbol", "instrument_id", "2024-01-08")
        assert (vendor.books.billed_bytes, vendor.books.dollars) == (0, 0)
        for _ in range(3):
            client.timeseries.get_range(**week)
        assert vendor.books.billed_bytes == 3 * 5 * 56
        assert vendor.books.dollars == sum(entry.dollars for entry in vendor.books.entries)
        assert isinstance(vendor.books.dollars, Decimal)
        vendor.books.reset()
        assert (vendor.books.entries, vendor.books.calls) == ((), {})

    def test_what_is_refused_is_counted_but_not_billed(self, vendor, client, week):
        with pytest.raises(databento.BentoClientError):
            client.timeseries.get_range(**week | {"symbols": "NO.c.0"})
        assert vendor.books.entries == ()
        assert vendor.books.calls == {"timeseries.get_range": 1}

    def test_a_client_that_goes_away_is_billed_for_what_was_sent(self, vendor, week):
        asked = week | {"schema": "tbbo", "symbols": "ES.FUT", "stype_in": "parent"}
        vendor.fault("slow:rate=20000")
        with requests.post(
            f"{vendor.gateway}/v0/timeseries.get_range", asked, auth=(vendor.key, ""), stream=True, timeout=9
        ) as reply:
            next(reply.iter_content(4096))
        deadline = time.monotonic() + 20
        while not vendor.books.entries and time.monotonic() < deadline:
            time.sleep(0.02)
        (entry,) = vendor.books.entries
        assert not entry.finished
        assert entry.size < 5 * 20_000 * dbn.MBP1Msg.size_hint

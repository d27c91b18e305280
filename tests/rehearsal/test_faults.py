"""Faults: how they are written, when they apply, and what the client then sees."""

import email.utils
import select
import socket
import ssl
import struct
import time

import databento
import pytest
import requests
import zstandard

from hdi.errors import RequestError
from hdi.rehearsal.faults import CASES, KINDS, parse

STREAM = "timeseries.get_range"
DATASETS = "metadata.list_datasets"
#: Some megabytes of daily bars.
YEARS = {"symbols": "CL.FUT", "stype_in": "parent", "start": "2015-01-01", "end": "2024-01-01"}

#: The client leaves the files that it has written open.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file .*dbn.zst:ResourceWarning")


def received(path):
    """The record bytes in a file that may end anywhere, and whether its zstd frame is whole."""
    unpacker = zstandard.ZstdDecompressor().decompressobj()
    plain = unpacker.decompress(path.read_bytes())
    if len(plain) < 8:
        return b"", unpacker.eof
    return plain[8 + struct.unpack("<I", plain[4:8])[0] :], unpacker.eof


class TestSpecifications:
    @pytest.mark.parametrize(
        "text",
        ["503", "429:times=2,retry_after=1", "cut:method=timeseries.get_range,after=100000", "422:schema=trades",
         "500:symbol=ES.c.0,day=2024-01-03", "degraded:day=2024-01-03"],
    )  # fmt: skip
    def test_a_fault_reads_as_it_is_written(self, text):
        assert set(str(parse(text)).split(",")) == set(text.split(",")) or str(parse(text)).split(":")[0] in text
        assert str(parse(str(parse(text)))) == str(parse(text))

    def test_keywords_add_to_the_text(self):
        assert str(parse("503:times=1", times=2, method="get_cost")) == "503:method=metadata.get_cost,times=2"

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("418", "Known faults:.*401.*boundary.*slow"),
            ("", "Known faults"),
            ("cut:before=3", "cut takes after=, method=, schema=, symbol=, day=, times="),
            ("503:after=3", "503 takes"),
            ("cut:after=soon", "after=soon"),
            ("cut:after=-1", "after=-1"),
            ("cut:after", "KEY=VALUE"),
            ("503:times=x", "times=x"),
            ("503:day=monday", "day=monday"),
            ("503:method=get_moon", "Methods: metadata.list_publishers"),
            ("cut:method=get_cost", "Methods: timeseries.get_range"),
            ("422:case=bad_luck", "Cases of 422: .*data_end_after_available_end"),
            ("restated", "takes day="),
            ("pending:day=2024-01-03,times=2", "takes day="),
        ],
    )
    def test_one_that_is_not_understood_names_what_is(self, text, told):
        with pytest.raises(RequestError, match=f"(?s){told}"):
            parse(text)


class TestWhen:
    def test_it_happens_so_many_times(self, vendor, client, refused):
        vendor.fault("503", times=2)
        for _ in range(2):
            assert refused(DATASETS).http_status == 503
        assert client.metadata.list_datasets()
        assert vendor.books.calls == {DATASETS: 3}

    def test_it_happens_always_until_it_is_cleared(self, vendor, client, refused):
        vendor.fault("503")
        assert [refused(DATASETS).http_status for _ in range(3)] == [503] * 3
        vendor.clear()
        assert client.metadata.list_datasets()

    def test_the_first_that_fits_comes_first(self, vendor, client, refused):
        vendor.fault("503:times=1")
        vendor.fault("500:times=1")
        assert [refused(DATASETS).http_status for _ in range(2)] == [503, 500]
        assert client.metadata.list_datasets()

    @pytest.mark.parametrize(
        ("matcher", "misses"),
        [
            ({"method": "get_range"}, {}),
            ({"schema": "ohlcv-1d"}, {"schema": "ohlcv-1h"}),
            ({"symbol": "ES.c.0"}, {"symbols": "ES.c.1,CL.c.0"}),
            ({"day": "2024-01-12"}, {"end": "2024-01-12"}),
            ({"day": "2024-01-08"}, {"start": "2024-01-09"}),
        ],
    )
    def test_it_happens_to_the_calls_that_it_names(self, vendor, client, refused, week, matcher, misses):
        vendor.fault("500", **matcher)
        if misses:
            client.timeseries.get_range(**week | misses)
        else:
            client.metadata.get_record_count(**week)
        assert refused(STREAM, **week).http_status == 500

    def test_one_of_a_day_applies_to_conditions_and_symbology_too(self, vendor, client, refused):
        vendor.fault("500", day="2024-01-10")
        days = {"dataset": "GLBX.MDP3", "start_date": "2024-01-08", "end_date": "2024-01-12"}
        assert refused("metadata.get_dataset_condition", **days).http_status == 500
        names = {"symbols": "ESH4", "stype_in": "raw_symbol", "stype_out": "instrument_id"}
        assert refused("symbology.resolve", **days, **names).http_status == 500
        assert client.metadata.get_dataset_condition("GLBX.MDP3", "2024-01-11", "2024-01-12")

    def test_every_kind_can_be_given_at_the_start(self, rehearse):
        given = [f"{name}:day=2024-01-10" if kind.needs_day else name for name, kind in KINDS.items()]
        vendor = rehearse(faults=given)
        shown = requests.get(f"{vendor.gateway}/rehearsal/faults", timeout=9).json()["faults"]
        assert [row["fault"].partition(":")[0] for row in shown] == list(KINDS)

    def test_it_is_set_shown_and_cleared_at_run_time(self, vendor, client, refused):
        address = f"{vendor.gateway}/rehearsal/faults"
        reply = requests.post(address, json={"fault": "503:times=1"}, timeout=9)
        assert reply.json() == {"faults": [{"fault": "503:times=1", "left": 1, "taken": 0}]}
        assert refused(DATASETS).http_status == 503
        assert requests.get(address, timeout=9).json()["faults"][0]["taken"] == 1
        assert requests.post(address, json={"fault": "418"}, timeout=9).status_code == 400
        assert requests.post(address, data=b"\x00", timeout=9).status_code == 400
        assert requests.delete(address, timeout=9).json() == {"faults": []}
        assert client.metadata.list_datasets()


class TestAnswers:
    @pytest.mark.parametrize("status", [401, 402, 403, 422, 429, 500, 503, 504])
    def test_a_status_is_answered_to_any_method_and_billed_nowhere(self, vendor, refused, week, status):
        vendor.fault(str(status))
        assert refused(STREAM, **week).http_status == status
        assert refused("metadata.get_cost", **week).http_status == status
        assert refused("metadata.list_publishers").http_status == status
        assert vendor.books.entries == ()

    @pytest.mark.parametrize(("status", "case"), [(s, case) for s, cases in CASES.items() for case in cases])
    def test_a_case_can_be_chosen(self, vendor, refused, week, status, case):
        vendor.fault(f"{status}:case={case}")
        error = refused(STREAM, **week)
        assert (error.http_status, error.json_body["detail"]["case"]) == (status, case)
        if case.startswith("data_") and "range_start" not in case:
            payload = error.json_body["detail"]["payload"]
            assert payload["available_end"] == "2024-06-30T00:00:00.000000000Z"
            assert payload["start"] == "2024-01-08T00:00:00.000000000Z"

    def test_429_says_when_to_come_back_in_seconds_or_as_a_date(self, vendor, refused):
        vendor.fault("429:times=1")
        vendor.fault("429:times=1,retry_after=0")
        vendor.fault("503:times=1,retry_after=7")
        vendor.fault("429:times=1,retry_after=90,date=1")
        assert [refused(DATASETS).headers["Retry-After"] for _ in range(3)] == ["1", "0", "7"]
        told = email.utils.parsedate_to_datetime(refused(DATASETS).headers["Retry-After"])
        assert 85 < told.timestamp() - time.time() < 95

    def test_a_case_about_a_window_is_answered_for_an_unknown_dataset_too(self, vendor, refused, week):
        vendor.fault("422")
        error = refused(STREAM, **week | {"dataset": "NO.SUCH"})
        assert error.json_body["detail"]["case"] == "dataset_unavailable_range"

    def test_503_without_more_has_no_retry_after(self, vendor, refused):
        vendor.fault("503")
        error = refused(DATASETS)
        assert "Retry-After" not in error.headers
        assert "SYNTHETIC" in error.json_body["detail"]

    def test_504_is_a_page_of_a_gateway(self, vendor, refused):
        vendor.fault("504")
        error = refused(DATASETS)
        assert (error.json_body, error.message) == (None, "The remote gateway timed out.")

    def test_a_timeout_answers_nothing(self, vendor, client, monkeypatch):
        vendor.fault("timeout", times=1)
        monkeypatch.setattr(client.metadata, "TIMEOUT", 0.2)
        with pytest.raises(requests.exceptions.ReadTimeout):
            client.metadata.list_datasets()
        vendor.fault("timeout:seconds=0.1,times=1")
        with pytest.raises(requests.exceptions.ConnectionError):
            client.metadata.list_datasets()
        assert client.metadata.list_datasets()

    def test_a_reset_is_one_of_tcp_before_any_byte(self, vendor):
        vendor.fault("reset")
        context = ssl.create_default_context(cafile=vendor.ca_file)
        address = ("127.0.0.1", int(vendor.gateway.rsplit(":", 1)[1]))
        with context.wrap_socket(socket.create_connection(address), server_hostname="localhost") as connection:
            connection.sendall(b"GET /v0/metadata.list_datasets HTTP/1.1\r\n\r\n")
            deadline = time.monotonic() + 9
            error = 0
            while not error and time.monotonic() < deadline:
                select.select([connection], [], [], 0.05)
                error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        assert error == 104  # ECONNRESET

    def test_a_reset_reaches_the_client_as_a_lost_connection(self, vendor, client):
        vendor.fault("reset:times=1")
        with pytest.raises(requests.exceptions.ConnectionError):
            client.metadata.list_datasets()
        assert client.metadata.list_datasets()


class TestBodies:
    @pytest.fixture
    def download(self, client, week, tmp_path):
        """The file of a stream, whatever became of it, and whether the client saw an error."""

        def call(**change):
            path = tmp_path / f"{len(list(tmp_path.iterdir()))}.dbn.zst"
            try:
                client.timeseries.get_range(**week | YEARS | change, path=path)
            except databento.BentoError:
                return path, True
            return path, False

        return call

    @pytest.fixture
    def whole(self, download):
        records, eof = received(download()[0])
        assert eof
        assert len(records) > 2**21
        return records

    @pytest.mark.parametrize("after", [0, 1, 50, 10_000, 700_000, 10**9])
    def test_a_cut_is_an_error_and_bills_what_was_sent(self, vendor, download, whole, after):
        vendor.books.reset()
        vendor.fault("cut", after=after)
        path, failed = download()
        assert failed
        records, eof = received(path)
        assert not eof
        assert whole.startswith(records)
        assert (len(records) > 0) == (after >= 700_000)
        assert path.stat().st_size == after or after == 10**9
        (entry,) = vendor.books.entries
        assert (entry.size, entry.records, entry.finished) == (len(records), len(records) // 56, False)
        assert vendor.books.dollars == entry.dollars

    @pytest.mark.parametrize("after", [10_000, 700_000, 10**9])
    def test_a_short_body_is_taken_for_success_by_the_client(self, vendor, download, whole, after):
        vendor.books.reset()
        vendor.fault("short", after=after)
        path, failed = download()
        assert not failed
        records, eof = received(path)
        assert not eof
        assert whole.startswith(records)
        (entry,) = vendor.books.entries
        assert (entry.size, entry.finished) == (len(records), False)

    @pytest.mark.parametrize("records", [None, 0, 7])
    def test_a_body_that_ends_on_a_record_looks_whole(self, vendor, client, week, download, whole, records):
        vendor.books.reset()
        vendor.fault("boundary" if records is None else f"boundary:records={records}")
        path, failed = download()
        assert not failed
        got, eof = received(path)
        expected = len(whole) // 56 // 2 if records is None else records
        assert eof
        assert got == whole[: 56 * expected]
        assert len(databento.DBNStore.from_file(path).to_ndarray()) == expected
        assert client.metadata.get_record_count(**week | YEARS) == len(whole) // 56
        (entry,) = vendor.books.entries
        assert (entry.records, entry.finished) == (expected, False)

    @pytest.mark.parametrize("after", [None, 10**9])
    def test_a_corrupt_body_has_the_right_length_and_cannot_be_unpacked(self, vendor, download, after):
        good = download()[0].read_bytes()
        vendor.fault("corrupt" if after is None else f"corrupt:after={after}")
        path, failed = download()
        assert not failed
        bad = path.read_bytes()
        assert len(bad) == len(good)
        assert sum(a != b for a, b in zip(good, bad, strict=True)) == 1
        with pytest.raises(zstandard.ZstdError):
            received(path)

    def test_an_empty_body_has_a_header_and_the_count_says_otherwise(self, vendor, client, week, download):
        vendor.fault("empty", times=1)
        path, _ = download()
        assert received(path) == (b"", True)
        assert databento.DBNStore.from_file(path).metadata.symbols == ["CL.FUT"]
        assert client.metadata.get_record_count(**week | YEARS) > 0
        assert received(download()[0])[0] != b""

    def test_a_slow_body_comes_at_its_pace_and_whole(self, vendor, download, whole):
        size = download()[0].stat().st_size
        vendor.fault("slow", rate=size * 4)
        began = time.monotonic()
        path, _ = download()
        assert 0.2 < time.monotonic() - began < 5
        assert received(path) == (whole, True)

    def test_a_slow_body_may_be_cut_too(self, vendor, download):
        vendor.fault("slow:rate=1000000")
        vendor.fault("cut:after=3000")
        path, failed = download()
        assert failed
        assert path.stat().st_size == 3000


class TestData:
    @pytest.mark.parametrize("by", [1, -3, 1000])
    def test_a_wrong_count_is_off_by_so_many(self, vendor, client, week, by):
        right = client.metadata.get_record_count(**week | YEARS)
        vendor.fault("wrong-count", by=by, times=1)
        assert client.metadata.get_record_count(**week | YEARS) == right + by
        assert client.metadata.get_record_count(**week | YEARS) == right

    @pytest.mark.parametrize("kind", ["degraded", "pending"])
    def test_the_condition_of_a_day_can_be_chosen(self, vendor, client, kind):
        vendor.fault(kind, day="2024-01-10")
        found = client.metadata.get_dataset_condition("GLBX.MDP3", "2024-01-09", "2024-01-11")
        assert [row["condition"] for row in found] == ["available", kind, "available"]

    @pytest.mark.parametrize("day", ["2024-01-10", "2024-06-27"])
    def test_a_restated_day_has_other_data_and_another_date_of_change(self, vendor, client, week, day):
        asked = week | {"start": "2024-01-08", "end": "2024-06-29"}

        def days():
            rows = client.metadata.get_dataset_condition("GLBX.MDP3", "2024-01-08", "2024-06-29")
            return {row["date"]: row["last_modified_date"] for row in rows}

        before, dates = client.timeseries.get_range(**asked).to_ndarray(), days()
        vendor.fault("restated", day=day)
        after, changed = client.timeseries.get_range(**asked).to_ndarray(), days()
        assert {d for d in dates if dates[d] != changed[d]} == {day}
        assert changed[day] > dates[day]
        assert len(before) == len(after) == client.metadata.get_record_count(**asked)
        differ = before != after
        assert differ.sum() == 1
        at = before["ts_event"][differ].astype("datetime64[ns]").astype("datetime64[D]")
        assert [str(each) for each in at] == [day]
        vendor.clear()
        assert client.timeseries.get_range(**asked).to_ndarray().tobytes() == before.tobytes()

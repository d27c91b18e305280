"""Batch jobs of the rehearsal vendor, by the vendor's own client: states, files, bills, and what may go wrong."""

import datetime as dt
import hashlib
import json
import time
import zipfile
from decimal import Decimal

import databento
import numpy as np
import pytest
import requests

from hdi.model import DAY_NS, Window
from hdi.rehearsal.batch import KEPT_NS, Desk
from hdi.rehearsal.batch_files import periods
from hdi.rehearsal.books import Books
from hdi.rehearsal.faults import Call, Faults, parse
from hdi.rehearsal.limits import Limits
from hdi.rehearsal.service import Service

FIELDS = {
    "dataset": "GLBX.MDP3", "schema": "ohlcv-1h", "symbols": "ES.c.0", "stype_in": "continuous",
    "start": "2024-01-05", "end": "2024-01-09",
}  # fmt: skip
KEY = "db-RehearsalSyntheticNotARealKey"
SIDE = ["condition.json", "manifest.json", "metadata.json", "symbology.json"]


def listed(client, job):
    return {each["filename"]: each for each in client.batch.list_files(job)}


@pytest.fixture
def job(client):
    """A job of a Friday, a Saturday without data, a Sunday and a Monday."""
    return client.batch.submit_job(**FIELDS)["id"]


class TestFiles:
    def test_each_day_with_data_has_one_and_json_says_the_rest(self, client, job):
        days = [f"glbx-mdp3-202401{day}.ohlcv-1h.dbn.zst" for day in ("05", "07", "08")]
        assert list(listed(client, job)) == sorted([*SIDE, *days])

    @pytest.mark.parametrize(
        ("split", "first"),
        [("week", ["20240105-20240106", "20240107-20240108"]), ("month", ["20240105-20240108"]),
         ("year", ["20240105-20240108"]), ("none", ["20240105-20240108"])],
    )  # fmt: skip
    def test_longer_ones_say_their_first_and_last_day(self, client, split, first):
        job = client.batch.submit_job(**FIELDS, split_duration=split)["id"]
        assert [n for n in listed(client, job) if "dbn" in n] == [f"glbx-mdp3-{d}.ohlcv-1h.dbn.zst" for d in first]

    def test_by_symbol_each_contract_has_its_own(self, client):
        fields = FIELDS | {"symbols": "ES.FUT", "stype_in": "parent", "end": "2024-01-06"}
        job = client.batch.submit_job(**fields, split_symbols=True)["id"]
        names = [n for n in listed(client, job) if "dbn" in n]
        assert "glbx-mdp3-20240105.ohlcv-1h.ESH4.dbn.zst" in names
        assert len(names) > 2

    def test_together_they_are_the_stream(self, client, job, tmp_path):
        paths = [p for p in client.batch.download(job, tmp_path) if p.name.endswith(".dbn.zst")]
        parts = [databento.DBNStore.from_bytes(p.read_bytes()) for p in sorted(paths)]
        stream = client.timeseries.get_range(**FIELDS)
        assert np.array_equal(np.concatenate([p.to_ndarray() for p in parts]), stream.to_ndarray())
        assert {p.metadata.start for p in parts} == {stream.metadata.start}  # each names all of the job
        assert parts[0].metadata.mappings == stream.metadata.mappings

    def test_their_sizes_and_digests_are_as_listed_alone_and_in_the_zip(self, client, job, tmp_path):
        found = listed(client, job)
        [archive] = client.batch.download(job, tmp_path / "zip", keep_zip=True)
        with zipfile.ZipFile(archive) as packed:
            assert sorted(packed.namelist()) == sorted(found)
            for name, each in found.items():
                [path] = client.batch.download(job, tmp_path / "one", name)
                data = path.read_bytes()
                assert (len(data), f"sha256:{hashlib.sha256(data).hexdigest()}") == (each["size"], each["hash"])
                assert packed.read(name) == data
        manifest = json.loads((tmp_path / "one" / job / "manifest.json").read_text())
        assert manifest["job_id"] == job
        assert [f["filename"] for f in manifest["files"]] == [n for n in found if n != "manifest.json"]
        query = json.loads((tmp_path / "one" / job / "metadata.json").read_text())["query"]
        assert (query["symbols"], query["end"] - query["start"]) == (["ES.c.0"], 4 * DAY_NS)

    def test_a_part_of_a_file_can_be_asked_for(self, vendor, client, job):
        each = listed(client, job)["glbx-mdp3-20240105.ohlcv-1h.dbn.zst"]
        url, size = each["urls"]["https"], each["size"]

        def get(span):
            return requests.get(url, auth=(vendor.key, ""), headers={"Range": span}, timeout=9)

        whole = requests.get(url, auth=(vendor.key, ""), timeout=9).content
        rest = get(f"bytes=100-{size - 1}")
        assert (rest.status_code, rest.content) == (206, whole[100:])
        assert rest.headers["Content-Range"] == f"bytes 100-{size - 1}/{size}"
        assert get(f"bytes={size}-").status_code == 416
        assert requests.get(url, timeout=9).status_code == 401

    @pytest.mark.parametrize(
        ("window", "split", "lengths"),
        [
            (("2024-02-27", "2024-03-05"), "week", [5, 3]),
            (("2024-02-25", "2024-03-02"), "week", [7]),
            (("2024-01-31", "2024-03-01"), "month", [1, 29, 1]),
            (("2023-12-31", "2024-01-01"), "year", [1, 1]),
            (("2024-01-01", "2024-01-03"), "none", [3]),
        ],
    )
    def test_weeks_begin_on_sunday_and_all_periods_tile_the_window(self, window, split, lengths):
        whole = Window.parse(*window)
        cuts = list(periods(whole.start, whole.end, split))
        assert [(b - a) // DAY_NS for a, b in cuts] == lengths
        assert [cuts[0][0], *(b for _, b in cuts)] == [*(a for a, _ in cuts), whole.end]


class TestBills:
    def test_a_job_is_billed_once_when_it_is_submitted_and_its_downloads_are_free(self, vendor, client, job, tmp_path):
        [entry] = vendor.books.entries
        assert (entry.job, entry.finished, entry.symbols) == (job, True, ("ES.c.0",))
        assert entry.records == client.metadata.get_record_count(**FIELDS)
        assert entry.size == client.metadata.get_billable_size(**FIELDS)
        assert float(entry.dollars) == client.metadata.get_cost(**FIELDS)
        client.batch.download(job, tmp_path)
        client.batch.download(job, tmp_path, next(n for n in listed(client, job) if "dbn" in n))
        assert vendor.books.entries == (entry,)
        assert client.batch.get_job_details(job)["cost_usd"] == float(entry.dollars)

    def test_a_job_of_nothing_that_resolves_is_refused_and_not_billed(self, vendor, client):
        with pytest.raises(databento.BentoClientError):
            client.batch.submit_job(**FIELDS | {"symbols": "NOPE", "stype_in": "raw_symbol"})
        assert vendor.books.entries == ()


class TestRefusals:
    @pytest.mark.parametrize(
        ("fields", "told"),
        [
            ({"split_symbols": True, "symbols": "ALL_SYMBOLS", "stype_in": "raw_symbol"}, "split_symbols"),
            ({"split_size": 10**6}, "split_size"), ({"encoding": "csv"}, "encoding=dbn"),
            ({"compression": "none"}, "compression=zstd"),
        ],
    )  # fmt: skip
    def test_what_the_vendor_does_not_do_is_422(self, client, fields, told):
        with pytest.raises(databento.BentoClientError, match=told) as caught:
            client.batch.submit_job(**FIELDS | fields)
        assert caught.value.http_status == 422

    def test_a_job_of_somebody_else_is_unknown(self, vendor, connect, job):
        other = connect(vendor, "db-" + "x" * 29)
        with pytest.raises(databento.BentoClientError) as caught:
            other.batch.get_job_details(job)
        assert caught.value.http_status == 404
        assert other.batch.list_jobs() == []

    def test_files_of_a_job_that_is_not_done_are_409(self, vendor, client, job):
        vendor.fault("stuck-job")
        assert client.batch.get_job_details(job)["state"] == "processing"
        with pytest.raises(databento.BentoClientError) as caught:
            client.batch.list_files(job)
        assert caught.value.http_status == 409
        vendor.clear()
        assert client.batch.list_files(job)

    def test_submissions_are_limited_by_the_minute_and_lists_by_the_second(self):
        limits = Limits()
        assert [limits.wait("a", "batch.submit_job") > 0 for _ in range(21)] == [False] * 20 + [True]
        assert 59 < limits.wait("a", "batch.submit_job") <= 60
        assert [limits.wait("a", "batch.list_jobs") > 0 for _ in range(21)] == [False] * 20 + [True]
        assert limits.wait("a", "batch.list_jobs") <= 1
        assert not any(limits.wait("a", "batch.get_job_details") for _ in range(100))


class TestStates:
    """With a clock that is turned by hand."""

    @pytest.fixture
    def clock(self):
        return [time.time_ns()]

    @pytest.fixture
    def faults(self):
        return Faults()

    @pytest.fixture
    def desk(self, clock, faults):
        """A desk whose jobs take 100 seconds, with one job on it."""
        service = Service(0, 1.0, 0, dt.date(2024, 7, 1), faults=faults, books=Books())
        made = Desk(faults, service.books, 100.0, lambda: clock[0])
        call = Call("batch.submit_job", FIELDS, KEY)
        made.job = made.submit(call, service.request(call), 7, 0)["id"]
        yield made
        made.close()

    def state(self, desk):
        found = desk.details(Call("", {"job_id": desk.job}, KEY))
        return found["state"], found["progress"]

    def test_they_follow_one_another_until_the_job_expires(self, desk, clock):
        begun, seen = clock[0], []
        for seconds in (0, 15, 50, 99, 100):
            clock[0] = begun + seconds * 10**9
            seen.append(self.state(desk))
        assert seen == [("received", 0), ("queued", 15), ("processing", 50), ("processing", 99), ("done", 100)]
        details = desk.details(Call("", {"job_id": desk.job}, KEY))
        assert (details["record_count"], details["billed_size"], Decimal(str(details["cost_usd"])) > 0) == (
            7,
            392,
            True,
        )
        clock[0] = begun + 100 * 10**9 + KEPT_NS - 1
        assert self.state(desk)[0] == "done"
        clock[0] += 1
        assert self.state(desk)[0] == "expired"

    def test_lists_are_of_some_states_and_since(self, desk, clock):
        def found(**fields):
            return [each["id"] for each in desk.listed(Call("", fields, KEY))]

        assert found() == []  # received is not among the usual ones
        assert found(states="received,done") == [desk.job]
        assert found(states="received", since=str(clock[0] + 1)) == []
        [short] = desk.listed(Call("", {"states": "received", "short": "True"}, KEY))
        assert set(short) == {"id", "state", "ts_received"}

    @pytest.mark.parametrize(("kind", "state"), [("expired-job", "expired"), ("failed-job", "failed")])
    def test_a_fault_ends_a_job_for_good(self, desk, faults, kind, state):
        faults.add(parse(f"{kind}:schema=trades"))
        assert self.state(desk)[0] == "received"
        faults.add(parse(f"{kind}:times=1"))
        assert self.state(desk)[0] == state
        faults.clear()
        assert self.state(desk)[0] == state


class TestFaults:
    NAME = "glbx-mdp3-20240105.ohlcv-1h.dbn.zst"

    def get(self, vendor, client, job, **headers):
        url = listed(client, job)[self.NAME]["urls"]["https"]
        return requests.get(url, auth=(vendor.key, ""), headers=headers, timeout=9)

    def test_a_file_has_one_wrong_byte_so_many_times(self, vendor, client, job):
        vendor.fault("bad-file", times=1)
        bad, good = (self.get(vendor, client, job).content for _ in range(2))
        assert sum(a != b for a, b in zip(bad, good, strict=True)) == 1
        assert f"sha256:{hashlib.sha256(good).hexdigest()}" == listed(client, job)[self.NAME]["hash"]

    def test_the_day_of_a_file_can_be_named(self, vendor, client, job):
        vendor.fault("no-range", day="2024-01-08")
        assert self.get(vendor, client, job, Range="bytes=9-99").status_code == 206
        vendor.fault("no-range", day="2024-01-05")
        assert self.get(vendor, client, job, Range="bytes=9-99").status_code == 200

    def test_a_download_that_is_cut_is_resumed_by_the_vendors_client(self, vendor, client, job, tmp_path):
        vendor.fault("cut-file:after=200", times=1)
        [path] = client.batch.download(job, tmp_path, self.NAME)
        assert f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" == listed(client, job)[self.NAME]["hash"]
        assert vendor.books.calls["batch.download"] == 2

    def test_an_answer_is_lost_after_the_job_was_taken(self, vendor, client):
        vendor.fault("lost-answer", times=1)
        with pytest.raises(requests.ConnectionError):
            client.batch.submit_job(**FIELDS)
        [job] = client.batch.list_jobs()
        assert [entry.job for entry in vendor.books.entries] == [job["id"]]

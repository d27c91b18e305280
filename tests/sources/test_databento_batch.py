"""Batch jobs through the vendor's client, and their files by downloads of our own: whole, resumed, within bounds."""

import hashlib
import json
import threading
from decimal import Decimal

import pytest

from hdi.buying.batches import alike
from hdi.errors import AccountRefused, DataError, RequestError, UnitFailed, VendorUnavailable
from hdi.model import DAY_NS, Order, Window
from hdi.sources import BatchFile, Unanswered
from hdi.sources.databento_batch import trusted
from hdi.sources.databento_calls import CONNECTIONS, PER_MINUTE
from hdi.sources.databento_gateway import Gateway
from hdi.sources.limits import Limiter, slots
from sources.wire import Reply, Wire, detail

ORDER = Order("GLBX.MDP3", "trades", "continuous", ("ES.c.0",), Window.parse("2024-01-02", "2024-01-03"))
SUBMIT, LIST, FILES = "batch.submit_job", "batch.list_jobs", "batch.list_files"
NAME = "glbx-mdp3-20240102.trades.dbn.zst"
AT = f"batch/download/USER/GLBX-1/{NAME}"
BODY = bytes(range(256)) * 400
JOB = {
    "id": "GLBX-1", "user_id": "USER", "cost_usd": None, "dataset": "GLBX.MDP3", "symbols": "ES.c.0",
    "stype_in": "continuous", "stype_out": "instrument_id", "schema": "trades", "limit": None, "encoding": "dbn",
    "start": "2024-01-02T00:00:00.000000000Z", "end": "2024-01-04T00:00:00.000000000Z", "compression": "zstd",
    "split_symbols": False, "split_duration": "day", "split_size": None, "record_count": None, "state": "received",
    "progress": None, "ts_received": "2024-06-01T10:00:00.000000000Z",
}  # fmt: skip


def _told_sizes(sizes, unlink):
    """``unlink`` that keeps how large files were."""

    def told(path, *given, **more):
        if path.name == "part" and path.exists():
            sizes.append(path.stat().st_size)
        return unlink(path, *given, **more)

    return told


def said(document, status=200, **headers):
    return Reply(status, json.dumps(document).encode(), headers)


@pytest.fixture
def file(wire):
    digest = hashlib.sha256(BODY).hexdigest()
    return BatchFile("GLBX-1", NAME, len(BODY), digest, f"{wire.gateway}/v0/{AT}")


@pytest.fixture
def fetched(source, file, tmp_path):
    """The bytes that a fetch leaves."""

    def call(path=tmp_path / "part"):
        source.fetch(file, path, "GLBX.MDP3")
        return path.read_bytes()

    return call


def part(first, cut=None):
    """The rest of the file, as an answer to Range."""
    rest = BODY[first:]
    return Reply(206, rest, {"Content-Range": f"bytes {first}-{len(BODY) - 1}/{len(BODY)}"}, cut=cut)


def ranges(wire):
    return [head.get("Range") for head in wire.heads]


class TestSubmitting:
    def test_an_order_becomes_a_job_with_exactly_its_terms(self, wire, source):
        wire.says(SUBMIT, said(JOB))
        job = source.submit(ORDER, "week")
        assert (job.id, job.state, job.order, job.coming, job.done) == ("GLBX-1", "received", ORDER, True, False)
        [(_, _, sent)] = wire.asked
        assert (sent["split_duration"], sent["encoding"], sent["compression"]) == ("week", "dbn", "zstd")
        assert (sent["start"], sent["end"]) == (str(ORDER.window.start), str(ORDER.window.end))

    @pytest.mark.parametrize("answer", [detail(503, "busy"), detail(500, "oops"), Reply(body=b"{}", cut=0)])
    def test_without_an_answer_nobody_knows_and_it_is_not_sent_again(self, wire, source, answer):
        wire.says(SUBMIT, answer)
        with pytest.raises(Unanswered):
            source.submit(ORDER, "day")
        assert wire.calls[SUBMIT] == 1

    def test_too_many_submissions_are_sent_again_after_the_wait(self, wire, source):
        wire.says(SUBMIT, detail(429, "too many", Retry_After="0"), said(JOB))
        assert source.submit(ORDER, "day").id == "GLBX-1"
        assert wire.calls[SUBMIT] == 2

    def test_a_job_of_another_form_than_ours_is_not_listed(self, wire, source):
        wire.says(LIST, said([JOB | {"encoding": "csv", "id": "GLBX-2"}, JOB | {"symbols": ["ES.c.0", "ESH4"]}, JOB]))
        found = source.batch_jobs(0)
        assert [job.order.symbols for job in found] == [("ES.c.0", "ESH4"), ("ES.c.0",)]
        assert wire.asked[0][2]["states"] == "received,queued,processing,done,expired,failed"

    def test_where_failed_is_no_state_that_the_vendor_lists_the_others_are_asked_for(self, wire, source):
        wire.says(LIST, detail(422, "Invalid `states`"), said([JOB]))
        assert [job.id for job in source.batch_jobs(0)] == ["GLBX-1"]
        assert [job.id for job in source.batch_jobs(0)] == ["GLBX-1"]
        states = "received,queued,processing,done,expired"
        assert [sent["states"] for _, _, sent in wire.asked] == [f"{states},failed", states, states]

    def test_a_job_is_looked_for_a_month_back_whatever_the_clock_here_says(self, wire, source):
        wire.says(LIST, said([JOB]))
        now = 1_720_000_000 * 10**9
        assert [job.id for job in alike(source, ORDER, "day", now)] == ["GLBX-1"]
        assert int(wire.asked[0][2]["since"]) <= now - 31 * DAY_NS

    def test_what_is_done_says_what_it_cost(self, wire, source):
        wire.says("batch.get_job_details", said(JOB | {"state": "done", "cost_usd": 1.25, "record_count": 7}))
        job = source.batch_job("GLBX-1", "GLBX.MDP3")
        assert (job.done, job.dollars, job.records) == (True, Decimal("1.25"), 7)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"id": "../x"}, {"id": "x" * 200}, {"ts_received": "then"}, {"start": None}, {"cost_usd": -1},
            {"cost_usd": "NaN"}, {"record_count": -1},
        ],
    )  # fmt: skip
    def test_an_answer_of_another_form_is_an_error(self, wire, source, wrong):
        wire.says("batch.get_job_details", said(JOB | wrong))
        with pytest.raises(DataError, match="form"):
            source.batch_job("GLBX-1", "GLBX.MDP3")

    @pytest.mark.parametrize(
        "wrong",
        [
            *(
                {"filename": name}
                for name in (
                    "../../x.dbn.zst",
                    "/x.dbn.zst",
                    "a\0.dbn.zst",
                    "a\n.dbn.zst",
                    "a\\b.dbn.zst",
                    "é.dbn.zst",
                    "..",
                    "x" * 300 + ".dbn.zst",
                    "\u202ex.dbn.zst",
                )
            ),
            {"hash": "md5:00"},
            {"size": "many"},
            {"size": -1},
            {"urls": {}},
            {"urls": {"https": "http://x/y"}},
            {"urls": {"https": "file:///etc/passwd"}},
            {"urls": {"https": "https:///x"}},
        ],
    )
    def test_a_list_of_files_of_another_form_is_an_error(self, wire, source, wrong):
        good = {"filename": NAME, "size": 3, "hash": "sha256:" + "0" * 64, "urls": {"https": "https://x/y"}}
        wire.says(FILES, said([good | wrong]))
        with pytest.raises(DataError, match="form"):
            source.batch_files("GLBX-1", "GLBX.MDP3")


class TestFetching:
    def test_a_file_comes_whole_in_one_request(self, wire, fetched):
        wire.says(AT, Reply(body=BODY))
        assert fetched() == BODY
        assert ranges(wire) == [None]

    def test_what_came_before_a_cut_is_gone_on_with(self, wire, fetched):
        wire.says(AT, Reply(body=BODY, cut=40_000), part(40_000, cut=50_000), part(90_000))
        assert fetched() == BODY
        end = len(BODY) - 1
        assert ranges(wire) == [None, f"bytes=40000-{end}", f"bytes=90000-{end}"]

    def test_what_another_process_has_brought_is_gone_on_with(self, wire, fetched, tmp_path):
        (tmp_path / "part").write_bytes(BODY[:70_000])
        wire.says(AT, part(70_000))
        assert fetched() == BODY
        assert len(wire.heads) == 1

    def test_a_whole_file_is_not_asked_for_again(self, wire, fetched, tmp_path):
        (tmp_path / "part").write_bytes(BODY)
        assert fetched() == BODY
        assert wire.heads == []

    @pytest.mark.parametrize(
        "answer", [Reply(body=BODY), Reply(206, BODY, {"Content-Range": f"bytes 0-{len(BODY) - 1}/{len(BODY)}"})]
    )
    def test_where_range_is_ignored_the_file_is_brought_from_its_start(self, wire, fetched, tmp_path, answer):
        (tmp_path / "part").write_bytes(BODY[:70_000])
        wire.says(AT, answer)
        assert fetched() == BODY

    def test_a_part_that_is_longer_than_the_file_is_thrown_away(self, wire, fetched, tmp_path):
        (tmp_path / "part").write_bytes(BODY + b"x")
        wire.says(AT, Reply(body=BODY))
        assert fetched() == BODY
        assert ranges(wire) == [None]

    def test_bytes_with_another_digest_are_brought_once_more_from_their_start(self, wire, fetched, tmp_path):
        (tmp_path / "part").write_bytes(b"\0" * 70_000)
        wire.says(AT, part(70_000), Reply(body=BODY))
        assert fetched() == BODY
        assert ranges(wire)[1] is None

    def test_bytes_with_another_digest_twice_are_an_error_and_nothing_is_left(self, wire, source, file, tmp_path):
        wire.says(AT, Reply(body=BODY[::-1]))
        with pytest.raises(UnitFailed, match="another SHA-256") as caught:
            source.fetch(file, tmp_path / "part", "GLBX.MDP3")
        assert caught.value.exit_code == 1
        assert wire.calls[AT] == 2
        assert not (tmp_path / "part").exists()

    def test_of_more_bytes_than_are_listed_no_more_than_a_piece_is_kept(
        self, wire, source, file, tmp_path, monkeypatch
    ):
        wire.says(AT, Reply(body=BODY * 50))
        sizes = []
        monkeypatch.setattr(type(tmp_path / "part"), "unlink", _told_sizes(sizes, type(tmp_path).unlink))
        with pytest.raises(VendorUnavailable, match=f"of {len(BODY)} bytes of {NAME} came"):
            source.fetch(file, tmp_path / "part", "GLBX.MDP3")
        assert sizes
        assert max(sizes) <= len(BODY) + (1 << 18)
        assert not (tmp_path / "part").exists()

    def test_tries_end_where_none_gets_further_and_what_came_is_left(self, wire, source, file, tmp_path):
        wire.says(AT, Reply(body=BODY, cut=90_000), part(90_000, cut=0))
        with pytest.raises(VendorUnavailable):
            source.fetch(file, tmp_path / "part", "GLBX.MDP3")
        assert (tmp_path / "part").read_bytes() == BODY[:90_000]
        assert wire.calls[AT] == 10  # a round of tries that got somewhere, and one that did not

    def test_too_many_requests_are_waited_for_within_bounds(self, wire, fetched, waits):
        wire.says(AT, detail(429, "too many", Retry_After="0"), detail(503, "busy"), Reply(body=BODY))
        assert fetched() == BODY
        assert len(waits) == 2

    @pytest.mark.parametrize(("status", "kind"), [(403, AccountRefused), (404, RequestError)])
    def test_a_refusal_is_an_error_at_once(self, wire, source, file, tmp_path, status, kind):
        wire.says(AT, detail(status, "no"))
        with pytest.raises(kind):
            source.fetch(file, tmp_path / "part", "GLBX.MDP3")
        assert wire.calls[AT] == 1

    def test_the_connection_is_used_again(self, wire, source, file, tmp_path):
        wire.says(AT, Reply(body=BODY))
        for name in ("one", "two"):
            source.fetch(file, tmp_path / name, "GLBX.MDP3")
        assert source._batch._open() is source._batch._open()


class TestTheKey:
    def test_it_is_shown_to_the_gateway(self, wire, fetched):
        wire.says(AT, Reply(body=BODY))
        fetched()
        assert wire.heads[0]["Authorization"].startswith("Basic ")

    def test_it_is_shown_to_nobody_else(self, source, file, tmp_path, monkeypatch):
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login me password secret\n")
        monkeypatch.setenv("NETRC", str(netrc))
        with Wire() as other:
            other.says(AT, Reply(body=BODY))
            elsewhere = BatchFile(file.job, file.name, file.size, file.digest, f"{other.gateway}/v0/{AT}")
            source.fetch(elsewhere, tmp_path / "part", "GLBX.MDP3")
            assert "Authorization" not in other.heads[0]

    @pytest.mark.parametrize("status", [302, 307, 308])
    def test_it_does_not_go_along_when_the_gateway_sends_a_request_elsewhere(
        self, wire, source, file, tmp_path, status
    ):
        with Wire() as other:
            for method, body in ((AT, BODY), ("metadata.list_datasets", b"[]")):
                other.says(method, Reply(body=body))
                wire.says(method, Reply(status, b"", {"Location": f"{other.gateway}/v0/{method}"}))
            source.fetch(file, tmp_path / "part", "GLBX.MDP3")
            assert source.datasets() == []
            assert len(other.heads) == 2
            for heads in other.heads:
                assert "Authorization" not in heads
            assert all("Authorization" in heads for heads in wire.heads)

    @pytest.mark.parametrize(
        ("gateway", "url", "shown"),
        [
            ("", "https://hist.databento.com/v0/batch/download/u/j/f", True),
            ("", "https://api.databento.com/v0/batch/download/u/j/f", True),
            ("", "http://hist.databento.com/f", False),
            ("", "https://databento.com.evil.example/f", False),
            ("", "https://evildatabento.com/f", False),
            ("", "https://hist.databento.com:8443/f", False),
            ("", "https://u:p@hist.databento.com/f", False),
            ("https://127.0.0.1:8787", "https://127.0.0.1:8787/f", True),
            ("https://127.0.0.1:8787", "https://127.0.0.1:8788/f", False),
            ("https://127.0.0.1:8787", "https://hist.databento.com/f", False),
        ],
    )
    def test_it_belongs_to_one_host(self, gateway, url, shown):
        assert trusted(url, Gateway.parse(gateway)) is shown


class TestLimits:
    def test_submissions_are_counted_by_the_minute(self):
        limiter = Limiter({}, per_minute=PER_MINUTE)
        waits = [limiter.take(SUBMIT) for _ in range(21)]
        assert waits[:20] == [0] * 20
        assert 59 < waits[20] <= 61

    def test_no_more_calls_than_connections_are_under_way_at_once(self, wire, source):
        held = slots(wire.gateway, CONNECTIONS)
        for _ in range(CONNECTIONS):
            held.acquire()
        wire.says(LIST, said([]))
        done = threading.Event()
        caller = threading.Thread(target=lambda: (source.batch_jobs(0), done.set()))
        caller.start()
        assert not done.wait(0.1)
        for _ in range(CONNECTIONS):
            held.release()
        caller.join()
        assert done.is_set()

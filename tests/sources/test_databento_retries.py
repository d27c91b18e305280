"""What may pass is tried again, after the waits that were asked for, and within the vendor's limits."""

import datetime as dt
import email.utils
import json
import threading
import time

import pytest

from hdi import logs, settings
from hdi.errors import AccountRefused, VendorUnavailable
from hdi.model import Order, Window
from hdi.sources.databento_calls import PER_SECOND
from hdi.sources.limits import Limiter, shared
from hdi.sources.retries import LONGEST_WAIT, Retries, Transient, retry_after
from sources.conftest import KEY
from sources.wire import Reply, detail

COUNT = "metadata.get_record_count"
ORDER = Order("GLBX.MDP3", "trades", "continuous", ("ES.c.0",), Window.parse("2024-01-02", "2024-01-03"))
GOOD = Reply(body=b"42")


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(wire, source, waits, status):
    wire.says(COUNT, detail(status, "busy"), Reply(status, b"<html>busy</html>"), GOOD)
    assert source.count(ORDER) == 42
    assert wire.calls[COUNT] == 3
    assert [f"HTTP {status}" in why for why, _ in waits] == [True, True]
    assert "try 2 of 5" in waits[0][0]


def test_a_connection_that_is_cut_in_an_answer_is_tried_again(wire, source):
    wire.says(COUNT, Reply(body=b"4200000", cut=2), GOOD)
    assert source.count(ORDER) == 42
    assert wire.calls[COUNT] == 2


@pytest.mark.parametrize("tries", [1, 2, 5])
def test_after_all_tries_the_last_failure_is_told(wire, open_source, waits, tries):
    wire.says(COUNT, detail(503, "down for repair"))
    with pytest.raises(VendorUnavailable, match="down for repair") as failed:
        open_source(wire.gateway, tries=tries).count(ORDER)
    assert wire.calls[COUNT] == tries
    assert len(waits) == tries - 1
    assert failed.value.exit_code == 1
    assert wire.gateway in failed.value.message


def test_a_refusal_after_a_failure_that_passed_ends_the_tries(wire, source):
    wire.says(COUNT, detail(503, "busy"), detail(402, "no money"))
    with pytest.raises(AccountRefused):
        source.count(ORDER)
    assert wire.calls[COUNT] == 2


def test_the_vendors_wait_is_kept_by_every_thread(wire, source):
    wire.says(COUNT, detail(429, "too many", Retry_After="1"), GOOD)
    wire.says("metadata.get_dataset_range", Reply(body=b'{"schema": {}}'))
    began = time.monotonic()
    caller = threading.Thread(target=source.count, args=(ORDER,))
    caller.start()
    while not wire.calls[COUNT]:
        time.sleep(0.005)
    time.sleep(0.2)
    assert source.available("GLBX.MDP3") == {}
    caller.join()
    times = [at - began for at, *_ in wire.asked]
    assert len(times) == 3
    assert min(times[1:]) - times[0] >= 0.95
    assert max(times) < 3


def test_other_families_of_calls_go_on_while_one_is_held(wire, source):
    shared(wire.gateway, PER_SECOND).hold("timeseries", 5)
    wire.says(COUNT, GOOD)
    began = time.monotonic()
    assert source.count(ORDER) == 42
    assert time.monotonic() - began < 2


def test_a_call_that_is_held_up_says_so(wire, source, waits):
    shared(wire.gateway, PER_SECOND).hold("metadata", 1.2)
    wire.says(COUNT, GOOD)
    source.count(ORDER)
    ((why, seconds),) = waits
    assert "limit" in why
    assert 1 < seconds <= 1.2


def test_a_wait_may_be_given_as_a_date(wire, source, waits):
    soon = email.utils.format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=2), usegmt=True)
    wire.says(COUNT, detail(503, "busy", Retry_After=soon), GOOD)
    source.count(ORDER)
    ((_, seconds),) = waits
    assert 0.5 < seconds <= 2.02


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("7", 7), (" 1.5 ", 1.5), ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("soon", None), ("", None), ("-3", None),
     ("nan", None), (None, None), ("99 bottles", None)],
)  # fmt: skip
def test_a_wait_is_read_as_http_writes_it(text, seconds):
    assert retry_after(text) == seconds


def test_a_date_that_leaves_its_zone_open_is_utc():
    later = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=5)
    assert 295 < retry_after(later.strftime("%a, %d %b %Y %H:%M:%S -0000")) <= 300


def test_waits_double_are_jittered_and_stay_in_bounds():
    retries = Retries(tries=20, backoff=0.5)
    for failed in range(1, 20):
        waits = [retries.seconds(failed, None) for _ in range(50)]
        least = min(0.5 * 2 ** (failed - 1), 30)
        assert least <= min(waits)
        assert max(waits) <= least + 0.5
        assert len(set(waits)) > 40
    assert retries.seconds(1, 7) >= 7
    assert retries.seconds(1, 10**6) <= LONGEST_WAIT + 0.5


def test_a_wait_that_is_too_long_is_cut_and_said(configure, monkeypatch):
    told = []
    monkeypatch.setattr("hdi.sources.retries.LONGEST_WAIT", 0.05)
    answers = iter([Transient("busy", wait=3600.0)])

    def work():
        for trouble in answers:
            raise trouble
        return "done"

    folder = configure()
    assert Retries(backoff=0.0, on_wait=lambda *said: told.append(said)).run("a call", work) == "done"
    ((why, seconds),) = told
    assert "asked to wait 3600 s" in why
    assert seconds == 0.05
    assert "a longer wait was asked for than is kept" in [line["message"] for line in lines(folder)]


def test_the_error_at_the_end_says_how_long_the_vendor_asked_to_be_left_alone(wire, open_source):
    wire.says(COUNT, detail(429, "busy", Retry_After="3600"))
    with pytest.raises(VendorUnavailable) as failed:
        open_source(wire.gateway, tries=1).count(ORDER)
    assert "3600 s" in failed.value.hint


@pytest.fixture
def configure(tmp_path):
    def call(level="DEBUG"):
        logs.configure(settings.load(env={}, flags={"log.level": level}, cwd=tmp_path))
        return tmp_path / "logs"

    return call


def lines(folder):
    return [json.loads(line) for line in (folder / "databento_adapter.log").read_text(encoding="utf-8").splitlines()]


def test_every_retry_is_logged_with_its_reason_and_never_with_the_key(wire, source, configure):
    folder = configure()
    wire.says(COUNT, detail(503, f"busy {KEY}"), detail(500, "broken"), GOOD)
    source.count(ORDER)
    retries = [line for line in lines(folder) if line["level"] == "WARNING"]
    assert [line["component"] for line in retries] == ["DatabentoAdapter"] * 2
    assert "HTTP 503" in retries[0]["context"]["caused_by"]
    assert "ES.c.0" in retries[0]["context"]["what"]
    assert all(KEY not in path.read_text(encoding="utf-8") for path in folder.iterdir())


def test_the_limiter_logs_what_is_left_and_when_it_slows_down(configure):
    folder = configure("INFO")
    limiter = Limiter({"metadata": 2}, span=30.0)
    assert [limiter.take("metadata") for _ in range(2)] == [0, 0]
    assert 29 < limiter.take("metadata") <= 30
    context = [line["context"] for line in lines(folder)]
    assert [line["message"] for line in lines(folder)] == ["rate_limit"] * 3
    assert [line["level"] for line in lines(folder)] == ["INFO"] * 3
    assert [c["remaining_calls"] for c in context] == [1, 0, 0]
    assert [c["throttle_applied"] for c in context] == [False, False, True]
    now = dt.datetime.now(dt.UTC)
    resets = [dt.datetime.fromisoformat(c["reset_time"]) - now for c in context]
    assert [round(r.total_seconds(), -1) for r in resets] == [30, 30, 60]


def test_a_family_without_a_limit_is_not_slowed_down():
    limiter = Limiter({"metadata": 1})
    assert [limiter.take("batch") for _ in range(100)] == [0] * 100


def test_threads_share_the_limit(wire, open_source):
    wire.says(COUNT, GOOD)
    sources = [open_source(wire.gateway) for _ in range(4)]
    workers = [threading.Thread(target=lambda s=source: [s.count(ORDER) for _ in range(12)]) for source in sources]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    times = sorted(at for at, *_ in wire.asked)
    assert len(times) == 48
    busiest = max(sum(at <= t < at + 1 for t in times) for at in times)
    assert busiest <= PER_SECOND["metadata"]
    assert times[-1] - times[0] < 4

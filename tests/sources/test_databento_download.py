"""A download is the body as it was sent, or no file; what broken tries cost is counted and said."""

import os
import resource
import signal
import threading
import time

import pytest
import structlog
import zstandard

import dbnfiles
from hdi.errors import AccountRefused, CorruptFile, NotDbn, RequestError, StoreError, VendorUnavailable
from hdi.model import Order
from hdi.sources.databento import Download, DownloadBroken, Loss
from hdi.sources.dbn import Reader
from sources.wire import Reply, detail

RANGE = "timeseries.get_range"
#: The client reads so many bytes at once, and drops what is left of a broken stream.
PIECE = 4_096
CUT = 30 * PIECE
ORDER = Order("GLBX.MDP3", "trades", "raw_symbol", ("ESH4",), dbnfiles.window("2024-01-02", "2024-01-03"))


@pytest.fixture(scope="module")
def body(tmp_path_factory):
    """20,000 trades as the vendor sends them."""
    rows = dbnfiles.records("trades", 20_000)
    return dbnfiles.write(tmp_path_factory.mktemp("body") / "x.dbn.zst", "trades", rows).read_bytes()


@pytest.fixture
def warned():
    """What was logged as a warning."""
    with structlog.testing.capture_logs() as logged:
        yield logged


def records_in(part):
    """Bytes of records that a beginning of the body holds, read by another library."""
    plain = zstandard.ZstdDecompressor().decompressobj().decompress(part)
    return len(plain) - 8 - int.from_bytes(plain[4:8], "little")


def test_a_download_is_the_body_as_it_was_sent(wire, source, body, tmp_path, waits):
    wire.says(RANGE, Reply(body=body))
    path = tmp_path / "part"
    took = source.download(ORDER, path)
    assert path.read_bytes() == body
    assert took == Download(len(body), 1, took.seconds, Loss())
    with Reader(path) as reader:
        assert sum(len(rows) for rows in reader.arrays(5_000)) == 20_000
    assert not waits


def test_a_quote_asks_with_exactly_the_parameters_of_the_download(wire, source, body, tmp_path):
    for method, answer in (("record_count", b"20000"), ("billable_size", b"960000"), ("cost", b"0.1234567890123")):
        wire.says(f"metadata.get_{method}", Reply(body=answer))
    wire.says(RANGE, Reply(body=body))
    quote = source.quote(ORDER)
    assert (quote.records, quote.size, str(quote.dollars)) == (20_000, 960_000, "0.1234567890123")
    source.download(ORDER, tmp_path / "part")
    common = {
        "dataset": "GLBX.MDP3", "schema": "trades", "stype_in": "raw_symbol", "symbols": "ESH4",
        "start": str(ORDER.window.start), "end": str(ORDER.window.end),
    }  # fmt: skip
    assert [fields | common for _, _, fields in wire.asked] == [fields for _, _, fields in wire.asked]
    assert len(wire.asked) == 4
    assert not any("limit" in fields for _, _, fields in wire.asked)


def test_a_stream_that_breaks_is_brought_again_and_its_cost_is_said(wire, source, body, tmp_path, warned):
    cuts = [CUT, 45 * PIECE]
    wire.says(RANGE, *(Reply(body=body, cut=cut) for cut in cuts), Reply(body=body))
    took = source.download(ORDER, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == body
    assert (took.tries, took.lost.tries, took.lost.received) == (3, 2, sum(cuts))
    assert took.lost.billed == sum(records_in(body[:cut]) for cut in cuts) > 0
    losses = [line for line in warned if "billed_bytes" in line]
    assert [line["received_bytes"] for line in losses] == cuts
    assert {(line["component"], line["log_level"]) for line in losses} == {("DatabentoAdapter", "warning")}


def test_when_every_try_breaks_the_error_carries_what_they_brought(wire, source, body, tmp_path):
    wire.says(RANGE, Reply(body=body, cut=CUT))
    with pytest.raises(DownloadBroken, match="broke off") as failed:
        source.download(ORDER, tmp_path / "part")
    assert wire.calls[RANGE] == 5
    assert isinstance(failed.value, VendorUnavailable)
    assert failed.value.download.tries == 5
    assert failed.value.download.lost == Loss(5, 5 * CUT, 5 * records_in(body[:CUT]))
    assert f"broke 5 times ({5 * CUT} bytes came, with at least {5 * records_in(body[:CUT])} bytes" in failed.value.hint
    assert not list(tmp_path.glob("part*"))


def test_a_refusal_after_a_broken_stream_still_says_what_that_cost(wire, source, body, tmp_path):
    wire.says(RANGE, Reply(body=body, cut=CUT), detail(402, "no money"))
    with pytest.raises(AccountRefused) as refused:
        source.download(ORDER, tmp_path / "part")
    assert refused.value.hint.startswith("The stream broke once (")
    assert wire.calls[RANGE] == 2
    assert not (tmp_path / "part").exists()


def test_a_stream_that_breaks_before_its_first_byte_costs_nothing(wire, source, body, tmp_path):
    wire.says(RANGE, Reply(body=body, cut=0), Reply(body=body))
    took = source.download(ORDER, tmp_path / "part")
    assert (took.tries, took.lost) == (2, Loss())


def test_an_answer_without_a_body_is_no_answer(wire, source, body, tmp_path):
    wire.says(RANGE, Reply(body=b""), Reply(body=body))
    took = source.download(ORDER, tmp_path / "part")
    assert (took.tries, took.lost) == (2, Loss())
    wire.says(RANGE, Reply(body=b""))
    with pytest.raises(DownloadBroken, match="no body"):
        source.download(ORDER, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_failure_before_the_stream_leaves_no_file(wire, source, body, tmp_path):
    wire.says(RANGE, detail(503, "busy"), detail(429, "busy", Retry_After="0"), Reply(body=body))
    took = source.download(ORDER, tmp_path / "part")
    assert (took.tries, took.lost) == (3, Loss())
    assert (tmp_path / "part").read_bytes() == body


@pytest.mark.parametrize("spoil", [lambda _: b"<html>not data</html>", lambda b: b[:20] + b"\xff" * 30 + b[50:]])
def test_a_whole_body_that_cannot_be_read_is_kept_for_its_reader_to_judge(
    wire, source, body, tmp_path, warned, spoil
):  # fmt: skip
    wire.says(RANGE, Reply(body=spoil(body)))
    took = source.download(ORDER, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == spoil(body)
    assert (took.tries, took.lost) == (1, Loss())
    assert any("cannot read" in line["event"] for line in warned)
    with pytest.raises((CorruptFile, NotDbn)), Reader(tmp_path / "part") as reader:
        list(reader.arrays(5_000))


def test_a_body_that_ends_early_but_cleanly_is_kept_for_its_reader_to_judge(wire, source, body, tmp_path):
    wire.says(RANGE, Reply(body=body[: len(body) // 2]))
    source.download(ORDER, tmp_path / "part")
    with pytest.raises(CorruptFile), Reader(tmp_path / "part") as reader:
        list(reader.arrays(5_000))


def test_a_file_that_is_there_is_never_overwritten(wire, source, tmp_path):
    (tmp_path / "part").write_text("mine")
    with pytest.raises(RequestError, match="exists already"):
        source.download(ORDER, tmp_path / "part")
    assert (tmp_path / "part").read_text() == "mine"
    assert not wire.calls


@pytest.fixture
def small_files():
    """No file may grow beyond 8 KiB: what a full disk is to a writer."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 10, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_is_not_paid_for_again(wire, source, body, tmp_path, waits):
    wire.says(RANGE, Reply(body=body))
    with pytest.raises(StoreError, match="File too large") as refused:
        source.download(ORDER, tmp_path / "part")
    assert refused.value.exit_code == 5
    assert "the vendor bills" in refused.value.hint
    assert wire.calls[RANGE] == 1
    assert not waits
    assert not (tmp_path / "part").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_bought(wire, source, tmp_path):
    with pytest.raises(StoreError):
        source.download(ORDER, tmp_path / "missing" / "part")
    assert not wire.calls


def test_an_interrupted_download_leaves_no_file_and_says_what_it_cost(wire, source, body, tmp_path, warned):
    wire.says(RANGE, Reply(body=body, cut=8_192, stall=10))

    def interrupt():
        # Once the file exists the stream has begun.
        until = time.monotonic() + 5
        while not (tmp_path / "part").exists() and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        source.download(ORDER, tmp_path / "part")
    assert not (tmp_path / "part").exists()
    assert wire.calls[RANGE] == 1
    assert [line["received_bytes"] for line in warned if "received_bytes" in line] == [8_192]

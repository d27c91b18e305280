"""Files that are no DBN, damaged, hostile or not files at all: each one clear error, and nothing of it stays."""

import gzip
import hashlib
import itertools
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import databento_dbn as dbn
import numpy as np
import polars as pl
import pytest
import zstandard

from dbnfiles import DATASET, PX, fragment, ns, records, write
from files import real
from files.lab import Lab, by_status, mapping, schemas
from hdi.errors import CorruptFile, NotDbn, RequestError
from hdi.model import DAY_NS
from hdi.pipeline import ingest_files
from hdi.schema import Schemas

ROWS = 40
SIZE = 48  # of a trade


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A plain, complete file of trades, as bytes."""
    path = write(tmp_path_factory.mktemp("good") / "good.dbn", "trades", records("trades", ROWS), pack=False)
    return path.read_bytes()


def head(data):
    """The length of the metadata."""
    return 8 + int.from_bytes(data[4:8], "little")


def packed(data, *cuts):
    """As zstd with checksums, one frame for each piece between cuts."""
    pack = zstandard.ZstdCompressor(level=3, write_checksum=True).compress
    bounds = [0, *cuts, len(data)]
    return b"".join(pack(data[a:b]) for a, b in itertools.pairwise(bounds))


def put(folder, data, name="bad.dbn.zst"):
    path = folder / name
    path.write_bytes(data)
    return path


def header(schema="trades", dataset=DATASET, **changes):
    """The metadata of a file, as bytes."""
    values = {
        "start": ns("2024-01-02"), "end": ns("2024-01-03"), "limit": None, "stype_in": dbn.SType.RAW_SYMBOL,
        "stype_out": dbn.SType.INSTRUMENT_ID, "symbols": ["ESH4"], "partial": [], "not_found": [], "mappings": [],
    }  # fmt: skip
    kind = None if schema is None else dbn.Schema.from_str(schema)
    return dbn.Metadata(dataset=dataset, schema=kind, **(values | changes)).encode()


class TestTruncated:
    def test_inside_the_header(self, data, lab):
        for cut in range(1, head(data), 9):
            error = lab.error(put(lab.root, data[:cut], "bad.dbn"))
            assert isinstance(error, CorruptFile if cut >= 8 else NotDbn), (cut, error)
            assert "bad.dbn" in error.message
        assert lab.is_untouched()

    @pytest.mark.parametrize("left", [1, 7, 24, 47])
    def test_inside_a_record_of_a_plain_file(self, data, lab, left):
        error = lab.error(put(lab.root, data[: len(data) - SIZE + left], "bad.dbn"))
        assert isinstance(error, CorruptFile)
        assert f"truncated: {left} bytes of record {ROWS - 1}, of 48" in error.message
        assert lab.is_untouched()

    def test_between_the_records_of_a_plain_file_cannot_be_told_from_a_shorter_file(self, data, lab):
        lab.good(put(lab.root, data[:-SIZE], "short.dbn"))
        assert lab.rows("trades").height == ROWS - 1

    def test_anywhere_in_a_zstd_frame(self, data, lab):
        whole = packed(data)
        for cut in range(1, len(whole), 11):
            error = lab.error(put(lab.root, whole[:cut]))
            assert isinstance(error, CorruptFile if cut >= 4 else NotDbn), (cut, error)
        assert lab.is_untouched()

    def test_by_the_last_byte_of_the_checksum(self, data, lab):
        error = lab.error(put(lab.root, packed(data)[:-1]))
        assert "the zstd frame does not end" in error.message
        assert lab.is_untouched()

    def test_between_zstd_frames_inside_a_record(self, data, lab):
        cut = head(data) + 20 * SIZE + 5
        error = lab.error(put(lab.root, packed(data[:cut])))
        assert "truncated: 5 bytes of record 20, of 48" in error.message
        assert lab.is_untouched()

    def test_between_zstd_frames_and_records_cannot_be_told_from_a_shorter_file(self, data, lab):
        cut = head(data) + 20 * SIZE
        several = packed(data, cut)
        assert several.startswith(packed(data[:cut]))
        lab.good(put(lab.root, packed(data[:cut]), "short.dbn.zst"))
        assert lab.rows("trades").height == 20

    def test_between_the_header_and_the_records_is_an_empty_file(self, data, lab):
        (outcome,) = lab.good(put(lab.root, data[: head(data)], "none.dbn"))
        assert [(r.fetched, r.status) for r in outcome.receipts] == [(0, "complete")]
        assert lab.store.coverage().height == 2

    def test_a_large_file_that_ends_early_leaves_none_of_the_rows_read_before(self, lab, tmp_path):
        rows = records("trades", 5_000, ts_event=ns("2024-01-02") + np.arange(5_000))
        path = write(tmp_path / "large.dbn", "trades", rows, pack=False)
        path.write_bytes(path.read_bytes()[:-3])
        assert isinstance(lab.error(path, batch_size=100), CorruptFile)
        assert lab.is_untouched()


class TestDamaged:
    def test_a_flipped_bit_of_a_zstd_file_is_an_error_or_changes_nothing(self, data, lab):
        good = put(lab.root, packed(data), "good.dbn.zst")
        lab.good(good)
        rows, held = lab.rows("trades"), lab.store.coverage()
        whole = packed(data)
        survived = 0
        for bit in np.random.default_rng(7).choice(len(whole) * 8, 150, replace=False).tolist():
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            (outcome,) = lab.ingest(put(lab.root, damaged), refetch=True)
            if outcome.status == "failed":
                assert outcome.error.exit_code == (2 if bit < 32 else 4), (bit, outcome.error)
            else:
                survived += 1
                assert lab.rows("trades").equals(rows)
        assert survived < 10
        assert lab.rows("trades").equals(rows)
        assert lab.store.coverage().equals(held) or survived

    @pytest.mark.parametrize("tail", [b"\0", b"\0" * 64, b"more", packed(b"x" * 7)[:-1]])
    def test_bytes_after_the_last_frame(self, data, lab, tail):
        assert isinstance(lab.error(put(lab.root, packed(data) + tail)), CorruptFile)
        assert lab.is_untouched()

    @pytest.mark.parametrize(
        ("name", "value"), [("length", 0), ("length", 11), ("length", 255), ("rtype", 1), ("rtype", 35), ("rtype", 255)]
    )
    def test_a_record_of_another_length_or_type(self, lab, tmp_path, name, value):
        rows = records("trades", 9)
        rows[name][6] = value
        error = lab.error(write(tmp_path / "bad.dbn.zst", "trades", rows))
        assert isinstance(error, CorruptFile)
        assert "record 6 is not a trades record" in error.message
        assert lab.is_untouched()

    def test_records_of_another_version_than_the_header_says(self, lab, tmp_path):
        rows = records("statistics", 6, version=3)
        error = lab.error(write(tmp_path / "bad.dbn", "statistics", rows, version=1, pack=False))
        assert isinstance(error, CorruptFile)
        assert "of 80 bytes, not type 24 of 64" in error.message

    def test_a_file_that_changes_between_its_header_and_its_records(self, lab, tmp_path):
        path = write(tmp_path / "file.dbn.zst", "trades", records("trades", 9))
        other = write(tmp_path / "other.dbn.zst", "trades", records("trades", 5), window=("2024-01-02", "2024-01-04"))
        found = []
        waiting = Lab(tmp_path)
        with lab.store.claim([f"{DATASET}-trades-{ns('2024-01-02') // DAY_NS % 64}"]):
            thread = threading.Thread(target=lambda: found.append(waiting.error(path)))
            thread.start()
            thread.join(0.5)
            assert thread.is_alive()
            other.replace(path)
        thread.join(20)
        assert isinstance(found[0], CorruptFile)
        assert "changed while it was read" in found[0].message
        assert lab.is_untouched()

    def test_a_fragment_that_changes_after_it_was_hashed(self, lab, tmp_path):
        path = fragment(tmp_path / "part.dbn.zst", "trades", records("trades", 9))
        other = fragment(tmp_path / "other.dbn.zst", "trades", records("trades", 9, price=PX))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        found = []
        waiting = Lab(tmp_path)
        with lab.store.claim([digest]):
            thread = threading.Thread(target=lambda: found.append(waiting.error(path)))
            thread.start()
            thread.join(0.5)
            assert thread.is_alive()
            other.replace(path)
        thread.join(20)
        assert "changed while it was read" in found[0].message
        assert lab.is_untouched()


KINDS = {
    "empty": b"", "newline": b"\n", "one letter": b"D", "three letters": b"DBN", "four bytes": b"DBN\x03",
    "lower case": b"dbn\x03" + bytes(200), "another name": b"DBZ\x01" + bytes(200),
    "png": b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + bytes(13) + bytes(4),
    "csv": b"ts_event,price\n1,2\n" * 50, "json": json.dumps({"DBN": 1}).encode(),
    "gzip": gzip.compress(b"DBN\x03" + bytes(200), mtime=0), "parquet": b"PAR1" + bytes(100) + b"PAR1",
    "zip": b"PK\x03\x04" + bytes(100), "zeros": bytes(4096), "ones": b"\xff" * 4096,
    "nothing, packed": packed(b""), "two letters, packed": packed(b"DB"), "text, packed": packed(b"text\n" * 90),
}  # fmt: skip


class TestNoDbn:
    @pytest.mark.parametrize("kind", KINDS)
    def test_content_of_another_kind(self, kind, lab):
        error = lab.error(put(lab.root, KINDS[kind], "file.dbn.zst"))
        assert isinstance(error, NotDbn)
        assert str(lab.root / "file.dbn.zst") in error.message
        assert lab.is_untouched()

    def test_an_empty_file_is_told_from_one_without_records(self, lab):
        error = lab.error(put(lab.root, b""))
        assert "the file is empty" in error.message
        assert "still has a header" in error.hint

    def test_a_schema_without_a_table(self, lab):
        fewer = Schemas(s for s in schemas() if s.kind != "mbo")
        file = put(lab.root, header("mbo"), "file.dbn")
        (outcome,) = ingest_files(lab.store, fewer, mapping(), [file], lab.options)
        error = outcome.error
        assert isinstance(error, NotDbn)
        assert "file.dbn: holds mbo records" in error.message
        assert "ohlcv-1d" in error.hint
        assert lab.is_untouched()

    def test_a_live_recording_of_mixed_kinds(self, lab):
        for find in (
            lambda: put(lab.root, header(None), "live.dbn"),
            lambda: real.file("databento/LIVE/test_data.live.dbn.zst"),
        ):
            error = lab.error(find())
            assert isinstance(error, NotDbn)
            assert "several kinds of records (a live recording)" in error.message
        assert lab.is_untouched()

    def test_records_with_a_send_time(self, lab):
        error = lab.error(put(lab.root, header(ts_out=True), "live.dbn"))
        assert isinstance(error, NotDbn)
        assert "ts_out" in error.message

    def test_a_fragment_without_metadata(self, lab):
        error = lab.error(put(lab.root, records("trades", 4).tobytes(), "file.dbn.frag"))
        assert isinstance(error, NotDbn)
        assert ".dbn.frag" in error.hint

    @pytest.mark.parametrize("version", [0, 4, 255])
    def test_an_unknown_version(self, data, lab, version):
        error = lab.error(put(lab.root, data[:3] + bytes([version]) + data[4:], "file.dbn"))
        assert isinstance(error, NotDbn)
        assert f"DBN version {version} is not known here" in error.message


class TestNoFile:
    def test_a_missing_one(self, lab):
        error = lab.error(lab.root / "none.dbn.zst")
        assert type(error) is RequestError
        assert "none.dbn.zst: no such file" in error.message

    def test_a_folder(self, lab):
        (lab.root / "folder.dbn").mkdir()
        error = lab.error(lab.root / "folder.dbn")
        assert error.exit_code == 2
        assert "is a folder" in error.message
        assert "*.dbn.zst" in error.hint

    def test_a_file_used_as_a_folder(self, data, lab):
        put(lab.root, data, "file.dbn")
        assert lab.error(lab.root / "file.dbn" / "more.dbn").exit_code == 2

    def test_a_loop_of_links(self, lab):
        for name, to in (("a.dbn", "b.dbn"), ("b.dbn", "a.dbn"), ("dir", "dir")):
            (lab.root / name).symlink_to(to)
        assert "cannot be opened" in lab.error(lab.root / "a.dbn").message
        assert lab.error(lab.root / "dir" / "x.dbn").exit_code == 2

    def test_a_link_to_a_file_is_the_file(self, data, lab):
        put(lab.root, data, "file.dbn")
        (lab.root / "link.dbn").symlink_to("file.dbn")
        lab.good(lab.root / "link.dbn")
        assert not lab.raw()[0].is_symlink()

    def test_a_pipe_does_not_hang(self, lab):
        os.mkfifo(lab.root / "pipe.dbn")
        assert "is not a regular file" in lab.error(lab.root / "pipe.dbn").message

    def test_a_manifest_that_is_a_pipe_does_not_hang(self, data, lab):
        os.mkfifo(lab.root / "manifest.json")
        lab.good(put(lab.root, data, "file.dbn"))

    def test_a_socket_and_a_device(self, lab, monkeypatch):
        monkeypatch.chdir(lab.root)  # the path of a socket is short
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("s.dbn")
            assert "is not a regular file" in lab.error("s.dbn").message
        assert "is not a regular file" in lab.error("/dev/zero").message

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_one_that_may_not_be_read(self, data, lab):
        put(lab.root, data, "file.dbn").chmod(0)
        error = lab.error(lab.root / "file.dbn")
        assert error.exit_code == 2
        assert "Permission denied" in error.message

    @pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that opens and cannot be read")
    def test_one_that_opens_and_cannot_be_read(self, lab):
        error = lab.error("/proc/self/mem")
        assert error.exit_code == 2
        assert "cannot be read: Input/output error" in error.message

    @pytest.mark.parametrize("name", ["a\0b", "x" * 300, "\udcff.dbn", ""])
    def test_a_name_that_no_file_can_have(self, name, lab):
        assert lab.error(lab.root / name).exit_code == 2


class TestHostileHeaders:
    @pytest.mark.parametrize("length", [2**32 - 1, 2**31, 100 << 20])
    def test_a_length_that_cannot_be_is_not_believed(self, data, lab, length):
        error = lab.error(put(lab.root, data[:4] + length.to_bytes(4, "little") + data[8:], "bad.dbn"))
        assert isinstance(error, CorruptFile)
        assert f"its header claims {length} bytes" in error.message

    @pytest.mark.parametrize("length", [0, 1, 50, 100, 150])
    def test_a_length_that_cuts_the_header(self, data, lab, length, capfd):
        error = lab.error(put(lab.root, data[:4] + length.to_bytes(4, "little") + data[8:], "bad.dbn"))
        assert error.exit_code in (2, 4)
        assert lab.is_untouched()
        capfd.readouterr()  # the vendor's decoder says something too

    def test_random_bytes_in_the_header_never_crash(self, data, lab, capfd):
        rng = np.random.default_rng(3)
        codes = set()
        for turn in range(150):
            bad = bytearray(data)
            # Three at once nearly always hit a name; one may lie in what is reserved.
            for at in rng.integers(4, head(data), 1 + turn % 3).tolist():
                bad[at] = int(rng.integers(256))
            (outcome,) = lab.ingest(put(lab.root, bad, "bad.dbn"), dry_run=True)
            codes.add(outcome.error.exit_code if outcome.error else 0)
        assert {0, 4} <= codes <= {0, 2, 4}
        capfd.readouterr()

    @pytest.mark.parametrize("dataset", ["../../etc", "..", "/etc/passwd", "", "A/B.C", "a.b", "GLBX.MDP3/..", "X.\n"])
    def test_a_dataset_that_is_a_path(self, dataset, lab):
        error = lab.error(put(lab.root, header(dataset=dataset), "bad.dbn"))
        assert isinstance(error, CorruptFile)
        assert "is not the name of a dataset" in error.message
        assert lab.is_untouched()

    def test_an_instrument_that_is_no_number(self, lab, tmp_path):
        path = write(tmp_path / "bad.dbn", "trades", records("trades", 2), pack=False,
                     mappings={"ESH4": [("2024-01-02", "2024-01-03", "../x")]})  # fmt: skip
        error = lab.error(path)
        assert isinstance(error, CorruptFile)
        assert "maps ESH4 to '../x', which is no instrument_id" in error.message

    def test_a_window_of_three_centuries_for_many_symbols_is_refused_before_it_is_planned(self, lab):
        symbols = [f"S{i}" for i in range(2_000)]
        error = lab.error(put(lab.root, header(start=0, end=2**63 - 2, symbols=symbols), "bad.dbn"))
        assert error.exit_code == 2
        assert "too many units" in error.message
        assert lab.is_untouched()

    def test_a_window_of_three_centuries_is_stored_with_few_locks(self, lab, tmp_path):
        path = write(tmp_path / "long.dbn", "ohlcv-1m", records("ohlcv-1m", 3), window=(0, "2262-01-01"), mappings={})
        (outcome,) = lab.good(path)
        assert len(outcome.receipts) == 292 * 12
        assert sum(r.stored for r in outcome.receipts) == 3

    def test_an_origin_that_is_a_path(self, lab, data):
        with pytest.raises(RequestError, match="not the name of an origin"):
            lab.ingest(put(lab.root, data, "file.dbn"), origin="../../x")
        assert lab.is_untouched()


BOMB = """
import sys
from pathlib import Path
from files.lab import Lab, peak
lab = Lab(Path(sys.argv[1]))
before = peak()
error = lab.error(sys.argv[2])
assert error.exit_code == 4, error
assert lab.is_untouched()
print(peak() - before)
"""


@pytest.mark.parametrize("what", ["records", "header"])
def test_a_zstd_bomb_takes_little_memory(what, tmp_path):
    compressor = zstandard.ZstdCompressor(level=1).compressobj()
    path = tmp_path / "bomb.dbn.zst"
    start = header() if what == "records" else b"DBN\x03" + (63 << 20).to_bytes(4, "little")
    with path.open("wb") as file:
        file.write(compressor.compress(start))
        for _ in range(64):
            file.write(compressor.compress(bytes(16 << 20)))
        file.write(compressor.flush())
    assert path.stat().st_size < 200_000  # of a gigabyte
    path_of_tests = str(Path(__file__).resolve().parents[1])
    env = os.environ | {"PYTHONPATH": os.pathsep.join([path_of_tests, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-c", BOMB, tmp_path, path], capture_output=True, text=True, env=env, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < (100 << 10 if what == "records" else 400 << 10)


def test_one_bad_file_does_not_keep_the_others(data, lab, tmp_path):
    os.mkfifo(tmp_path / "pipe.dbn")
    days = [f"2024-01-{day:02}" for day in (3, 4, 5)]
    good = [
        write(tmp_path / f"good-{k}.dbn.zst", "trades", records("trades", 5, ts_event=ns(day)), window=(day, end))
        for k, (day, end) in enumerate(zip(days, [*days[1:], "2024-01-06"], strict=True))
    ]
    files = [
        tmp_path / "none.dbn", good[0], put(tmp_path, packed(data)[:-9], "cut.dbn.zst"), tmp_path / "pipe.dbn", good[1],
        put(tmp_path, header(None), "live.dbn"), put(tmp_path, b"", "empty.dbn"), good[2], tmp_path,
    ]  # fmt: skip
    outcomes = lab.ingest(*files)
    assert [o.path for o in outcomes] == [str(f) for f in files]
    stored = {f"good-{k}.dbn.zst": "stored" for k in range(3)}
    assert by_status(outcomes) == {f.name: "failed" for f in files} | stored
    assert [o.error.exit_code for o in outcomes if o.error] == [2, 4, 2, 2, 2, 2]
    assert lab.tables() == {"trades_data": 15}
    assert len(lab.raw()) == 3
    assert lab.store.ledger()["status"].to_list() == ["complete"] * 3


def test_a_failed_file_leaves_what_was_stored_before(data, lab, tmp_path):
    lab.good(put(tmp_path, data, "good.dbn"))
    before = lab.rows("trades"), lab.store.ledger(), lab.store.coverage(), lab.raw()
    assert lab.error(put(tmp_path, data[:-1]), refetch=True).exit_code == 4
    after = lab.rows("trades"), lab.store.ledger(), lab.store.coverage(), lab.raw()
    assert all(a.equals(b) if isinstance(a, pl.DataFrame) else a == b for a, b in zip(before, after, strict=True))

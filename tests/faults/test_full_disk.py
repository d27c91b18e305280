"""A full disk is a clean refusal: nothing is half stored, and with space the same command succeeds."""

import os
import resource
import shutil
import subprocess
import sys

import pytest

import dbnfiles
from children import TESTS
from hdi.errors import StoreError
from hdi.testing.material import refusal
from lakes import Place, lines

KIB = 1024


@pytest.fixture
def altered(tmp_path, paths):
    """Other rows for the first file's request: storing them rewrites what is there."""
    from hdi.sources.dbn import Reader

    with Reader(paths[0]) as reader:
        rows = next(iter(reader.arrays(1 << 20))).copy()
    rows["size"][::5] += 1
    names = {f"ES{k}": [("2024-01-02", "2024-01-04", k)] for k in (1, 2, 3)}
    return dbnfiles.write(
        tmp_path / "altered.dbn.zst", "trades", rows, symbols=("ES.FUT",), stype_in="parent",
        window=("2024-01-02", "2024-01-04"), mappings=names,
    )  # fmt: skip


@pytest.mark.fault("disk", "full during a first load", "lake")
def test_a_first_load_on_a_disk_that_fills_up_is_whole_or_not_at_all(tmp_path, small_disk, paths):
    expected = Place(tmp_path / "expected")
    expected.stored(paths[0])
    wanted, refused = expected.state(("trades",)), 0
    for left in range(0, 260, 20):
        place = Place(small_disk.path / str(left))
        place.folder.mkdir()
        refused += refused_with(left, place, small_disk, paths[0])
        rows = place.content().height
        assert rows in (0, 3_990)
        assert [o.status for o in place.ingest(paths[0])] == ["skipped" if rows else "stored"]
        assert place.state(("trades",)) == wanted, left
        assert place.leftovers() == [], left
        shutil.rmtree(place.folder)
    assert 5 < refused < 13


@pytest.mark.fault("disk", "full during a replacement", "lake")
def test_a_replacement_on_a_disk_that_fills_up_is_whole_or_not_at_all(tmp_path, small_disk, paths, altered):
    expected = Place(tmp_path / "expected", {"refetch": True})
    changed = sum(r.superseded for r in expected.stored(paths[0], altered))
    assert changed == 790
    refused = 0
    for left in range(0, 390, 30):
        place = Place(small_disk.path / str(left), {"refetch": True})
        place.stored(paths[0])
        before = place.digest()
        refused += refused_with(left, place, small_disk, altered)
        stored = place.digest() != before
        assert place.open().ledger().height == (4 if stored else 2)
        [outcome] = place.ingest(altered)
        assert sum(r.superseded for r in outcome.receipts) == (0 if stored else changed), left
        assert place.digest() == expected.digest()
        assert len(lines(place)) == place.open().quarantine().height == 10
        assert place.leftovers() == [], left
        shutil.rmtree(place.folder)
    assert 5 < refused < 13


def refused_with(left, place, disk, path):
    """1 when ingesting was refused for want of space, 0 when it went well."""
    with disk.filled(left * KIB):
        error = refusal(place.ingest, path)
    assert error is None or (isinstance(error, StoreError) and "space" in str(error)), error
    return int(error is not None)


def hdi(folder, *args, limit=None):
    """The program as somebody runs it in a folder; ``limit`` is the largest file that it may write."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("HDI_")}
    env["PYTHONPATH"] = os.pathsep.join([str(TESTS.parent / "src"), os.environ.get("PYTHONPATH", "")])
    limits = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) if limit else None
    return subprocess.run(
        [sys.executable, "-m", "hdi", *args], cwd=folder, env=env, preexec_fn=limits,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_program_says_that_the_disk_is_full_and_ends_with_5(small_disk, paths):
    command = ("--store", "lake:lake", "ingest", "--api", "dbn", str(paths[0]))
    for left in (30, 100):
        with small_disk.filled(left * KIB):
            done = hdi(small_disk.path, *command)
        assert done.returncode == 5, done.stderr
        assert "space" in done.stderr
        assert "Traceback" not in done.stderr
    done = hdi(small_disk.path, *command)
    assert (done.returncode, "3990 stored" in done.stdout.replace(",", "")) == (0, True), done.stderr
    assert "skipped" in hdi(small_disk.path, *command).stdout


@pytest.mark.fault("disk", "a limit of file sizes", "lake")
@pytest.mark.parametrize("limit", [500, 2_000, 8_000])
def test_a_limit_of_file_sizes_is_refused_as_a_full_disk_is(tmp_path, paths, limit):
    command = ("--store", "lake:lake", "ingest", "--api", "dbn", "--no-copy", str(paths[0]))
    done = hdi(tmp_path, *command, limit=limit)
    assert done.returncode == 5, done.stderr
    assert "Traceback" not in done.stderr
    # Where only the export of the rejects was refused, the rows are stored already.
    done = hdi(tmp_path, *command)
    assert (done.returncode, done.stdout.split()[0] in {"stored", "skipped"}) == (0, True), done.stderr
    assert Place(tmp_path).content().height == 3_990
    assert len(lines(Place(tmp_path))) == 10

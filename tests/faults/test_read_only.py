"""A disk that may only be read refuses what writes, gives what is stored, and takes the same command afterwards."""

import contextlib
import subprocess

import pytest

from faults.test_full_disk import hdi
from hdi.errors import StoreError
from lakes import Place

STORE = ("--store", "lake:lake")
WINDOW = ("--start-date", "2024-01-02", "--end-date", "2024-01-03")
QUERY = (*STORE, "query", "-s", "ES.FUT", "--schema", "trades", *WINDOW, "--output-format", "csv")


@contextlib.contextmanager
def read_only(disk):
    """A disk on which nothing can be written meanwhile, by nobody."""
    for mode in ("ro", "rw"):
        subprocess.run(["mount", "-o", f"remount,{mode}", disk.path], check=True)
        if mode == "ro":
            yield


@pytest.mark.fault("disk", "read-only", "lake")
def test_a_disk_that_may_only_be_read_keeps_what_is_stored_and_takes_the_rest_later(tmp_path, small_disk, paths):
    expected, place = Place(tmp_path / "expected"), Place(small_disk.path)
    expected.stored(*paths[:2])
    place.stored(paths[0])
    before = place.digest()
    with read_only(small_disk):
        with pytest.raises(StoreError, match="Read-only file system"):
            place.ingest(paths[1])
        done = hdi(small_disk.path, *STORE, "ingest", "--api", "dbn", str(paths[1]))
        assert (done.returncode, "Read-only file system" in done.stderr) == (5, True), done.stderr
        assert "unexpected" not in done.stderr
        done = hdi(small_disk.path, *QUERY)
        assert (done.returncode, done.stdout.count("\n")) == (0, 3_991), done.stderr
        assert place.digest() == before
    place.stored(paths[1])
    assert place.state(("trades",)) == expected.state(("trades",))
    assert place.leftovers() == []

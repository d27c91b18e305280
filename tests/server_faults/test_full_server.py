"""A server whose disk is full refuses cleanly: what was stored stays, and with space the same command succeeds."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import servers
from faults.conftest import Disk
from hdi.cli import run
from hdi.errors import StoreError
from hdi.model import DAY_NS, Window
from hdi.testing import Load, prices, trades
from hdi.testing.material import START, refusal
from server_faults.clusters import Cluster
from server_faults.places import NAMES, ServerPlace

KIB = 1024


@pytest.fixture
def small_disk(cluster):
    """Makes small disks that the server can write to, and nothing else is on."""
    made = []

    def make(name, megabytes):
        mount = cluster.server.home / name
        mount.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", mount],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"a disk cannot be mounted here: {done.stderr.strip()}")
        made.append(mount)
        owner = cluster.server.data.stat()
        os.chown(mount, owner.st_uid, owner.st_gid)
        mount.chmod(0o700)
        return Disk(mount)

    yield make
    for mount in made:
        subprocess.run(["umount", "--lazy", mount], check=True)
        mount.rmdir()


@pytest.fixture
def cramped(cluster, small_disk, tmp_path):
    """A place whose tables lie on a small disk, and that disk; the log of the server lies elsewhere."""
    disk = small_disk("tables", 40)
    cluster.do("CREATE TABLESPACE cramped LOCATION {}", disk.path)
    place = ServerPlace(tmp_path / "cramped", {}, cluster.fresh(rest="TABLESPACE cramped"))
    cluster.do("CHECKPOINT")
    yield place, disk
    cluster.do("DROP DATABASE {} WITH (FORCE)", place.address.rpartition("/")[2])
    cluster.do("CHECKPOINT")
    cluster.do("DROP TABLESPACE cramped")


@pytest.mark.fault("disk", "full during a load and a replacement", "server")
def test_a_disk_that_fills_up_stores_a_file_whole_or_not_at_all(cramped, pair, expected):
    place, disk = cramped
    refused = 0
    for path in pair:
        before, done = place.state(NAMES)[:2], False
        for left in (64, 256, 1024, 4096):
            with disk.filled(left * KIB):
                error = refusal(place.ingest, path)
            if error is None:
                done = True
                break
            refused += 1
            assert isinstance(error, StoreError), error
            assert error.exit_code == 5
            assert "no space left" in error.message
            assert "run the same command again" in error.hint
            assert place.state(NAMES)[:2] == before, left
            assert place.left_on_server() == []
        if not done:
            place.stored(path)
    assert refused > 1
    assert place.state(NAMES) == expected
    assert place.leftovers() == []


def test_the_program_says_that_the_server_is_full_and_ends_with_5(cramped, paths, capfd):
    place, disk = cramped
    command = ["--store", place.address, "ingest", "--api", "dbn", str(paths[0])]
    with disk.filled(64 * KIB):
        assert run(command) == 5
    said = capfd.readouterr().err
    assert "no space left" in said
    assert "Free some space on the server's disk" in said
    assert "Traceback" not in said
    assert run(command) == 0
    assert "3990 stored" in capfd.readouterr().out.replace(",", "")
    assert run(command) == 0
    assert "skipped" in capfd.readouterr().out


@pytest.mark.fault("disk", "read-only where the server keeps its tables", "server")
def test_a_disk_that_the_server_may_only_read_loses_nothing_and_takes_the_rest_later(cramped, cluster, pair, expected):
    place, disk = cramped
    place.stored(pair[0])
    before = place.state(NAMES)[:2]
    remounted(cluster, disk, "ro")
    try:
        error = refusal(place.ingest, pair[1])
        assert isinstance(error, StoreError), error
        assert error.exit_code == 5
        assert "Read-only file system" in error.message
        assert error.hint
    finally:
        cluster.crash()
        remounted(cluster, disk, "rw")
    assert place.state(NAMES)[:2] == before
    place.stored(pair[1])
    assert place.state(NAMES) == expected
    assert place.leftovers() == []


def remounted(cluster, disk, mode):
    """The disk may only be read, or be written again, from a start of the server on."""
    cluster.server.stop()
    subprocess.run(["mount", "-o", f"remount,{mode}", disk.path], check=True)
    cluster.start()


@pytest.fixture
def logged_apart(small_disk):
    """A server whose write-ahead log has a small disk for itself, and that disk."""
    disk = small_disk("log", 64)
    with servers.private() as make:
        other = Cluster(make())
        other.server.stop()
        log = other.server.data / "pg_wal"
        shutil.copytree(log, disk.path, dirs_exist_ok=True, copy_function=_copy)
        shutil.rmtree(log)
        log.symlink_to(disk.path)
        other.start()
        yield other, disk


@pytest.mark.fault("disk", "full where the server keeps its log", "server")
@pytest.mark.usefixtures("impatient")
def test_a_server_that_ends_for_want_of_room_for_its_log_loses_nothing_that_was_committed(logged_apart, tmp_path):
    other, disk = logged_apart
    place, n = ServerPlace(tmp_path / "place", {}, other.fresh()), 60_000

    def load(day):
        window = Window(START + day * DAY_NS, START + (day + 1) * DAY_NS)
        return Load(trades([window.start + k for k in range(n)], prices=day), window=window, batch=20_000)

    with place.handle() as store:
        days = 0
        with disk.filled(0):
            while (error := refusal(load(days).commit, store)) is None:
                days += 1
                assert days < 20
        assert (error.exit_code, "run the same command again" in error.hint) == (5, True), error
        other.crash()  # it is on its way down, or tries in vain to come back
        other.start()
        assert set(prices(store)) == set(range(days))
        assert load(days).commit(store).stored == n
        assert prices(store) == [day for day in range(days + 1) for _ in range(n)]
    assert place.left_on_server() == []


def _copy(source, target):
    shutil.copy2(source, target)
    about = Path(source).stat()
    os.chown(target, about.st_uid, about.st_gid)

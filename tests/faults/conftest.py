import os
import subprocess

import numpy as np
import pytest

import dbnfiles
import servers
from children import Nursery
from dbnfiles import PX
from faults.clocks import Clockwork, NoClock
from hdi.model import NS
from lakes import Place
from server_faults.places import ServerPlace

DAYS = ("2024-01-02", "2024-01-04")


@pytest.fixture(scope="package")
def nursery():
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture(scope="package")
def paths(tmp_path_factory):
    """Files that meet: two days of a parent, a continuous symbol with other rows, quotes, bars, a fragment."""
    folder = tmp_path_factory.mktemp("files")
    n = 4_000
    at = dbnfiles.ns(DAYS[0]) + np.arange(n) * 43 * NS
    rows = dbnfiles.records("trades", n, instrument_id=1 + np.arange(n) % 3, ts_event=at)
    rows["side"][::400] = b"X"
    quotes = dbnfiles.records("tbbo", n, instrument_id=1, ts_event=at)
    quotes["side"][::500] = b"X"
    own = rows[rows["instrument_id"] == 1]
    own["price"][::7] += PX
    bars = dbnfiles.records("ohlcv-1d", 2, ts_event=[dbnfiles.ns(d) for d in ("2024-01-02", "2024-01-03")])
    late = dbnfiles.records("trades", 200, ts_event=dbnfiles.ns("2024-01-08") + np.arange(200) * NS)
    front = {"symbols": ("ES.c.0",), "stype_in": "continuous", "window": DAYS, "mappings": {"ES.c.0": [(*DAYS, 1)]}}
    names = {f"ES{k}": [(*DAYS, k)] for k in (1, 2, 3)}
    parent = {"symbols": ("ES.FUT",), "stype_in": "parent", "window": DAYS, "mappings": names}
    return [
        dbnfiles.write(folder / "parent.dbn.zst", "trades", rows, **parent),
        dbnfiles.write(folder / "front.dbn.zst", "trades", own, **front),
        dbnfiles.write(folder / "quotes.dbn.zst", "tbbo", quotes, **front),
        dbnfiles.write(folder / "bars.dbn.zst", "ohlcv-1d", bars, **front),
        dbnfiles.fragment(folder / "late.dbn.zst", "trades", late),
    ]


@pytest.fixture(scope="package")
def undisturbed(tmp_path_factory, paths):
    """The state after a run that nothing interrupted."""
    place = Place(tmp_path_factory.mktemp("undisturbed"))
    place.stored(*paths)
    assert place.leftovers() == []
    return place.state()


@pytest.fixture
def small_disk(tmp_path):
    """A disk of four megabytes that nothing else is on."""
    mount = tmp_path / "disk"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", mount], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a disk cannot be mounted here: {done.stderr.strip()}")
    yield Disk(mount)
    subprocess.run(["umount", "--lazy", mount], check=True)


class Disk:
    """A disk that is filled up to some free bytes while a ``with`` block runs."""

    def __init__(self, path):
        self.path = path

    def filled(self, left):
        self._left = left
        return self

    def __enter__(self):
        about = os.statvfs(self.path)
        with (self.path / "ballast").open("wb", buffering=0) as file:
            file.write(bytes(about.f_bavail * about.f_bsize - self._left))

    def __exit__(self, *_):
        (self.path / "ballast").unlink()


@pytest.fixture
def new(request, tmp_path):
    """Makes places on one of the stores: ``new("name")`` has a folder of its own, and a database on the server."""
    if request.param == "lake":
        return lambda name, **options: Place(tmp_path / name, options)
    fresh = request.getfixturevalue("fresh_database")
    layout = {"template": "layout", "prepare": servers.make_layout}
    return lambda name, **options: ServerPlace(tmp_path / name, options, fresh(**layout))


@pytest.fixture(scope="module")
def clockwork(tmp_path_factory):
    try:
        children = Clockwork(tmp_path_factory.mktemp("clock"))
    except NoClock as error:
        pytest.skip(str(error))
    yield children
    children.close()

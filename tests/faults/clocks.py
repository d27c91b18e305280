"""A clock that jumps (``clock.c``), and children that live by it: forked from a process that has imported everything.

Each child is told ``act`` (files or buy), where, of what, and ``jumps``: by how many seconds its clock is off from the
start on and then, in turn, from each step of a commit on.
"""

import itertools
import os
import shutil
import struct
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

from children import Children, serve

HOUR, YEAR = 3_600, 31_557_600
SOURCE = Path(__file__).with_name("clock.c")
FILE = "HDI_TEST_CLOCK"


class NoClock(Exception):
    """This machine cannot make a clock that jumps."""


class Clockwork(Children):
    """Forks children whose clock jumps. NoClock where none can be made."""

    def __init__(self, folder):
        self._library, self._off = folder / "clock.so", folder / "off"
        compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
        if compiler is None or sys.platform != "linux":
            raise NoClock("a clock that jumps is made by a C compiler on Linux")
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", self._library, SOURCE], check=True)
        put(self._off, 0)
        super().__init__("-W", "ignore", __file__, LD_PRELOAD=str(self._library), **{FILE: str(self._off)})

    def run(self, place, paths=(), *, jumps, zone="UTC", **job):
        """How a child ended that ingests files into a place, or buys what ``ask`` says."""
        put(self._off, jumps[0])
        about = {"act": "files", "folder": str(place.folder), "address": place.address, "paths": [*map(str, paths)]}
        return self.watch(self.fork(about | {"jumps": jumps, "zone": zone} | job))

    def buy(self, desk, ask, *, jumps, **options):
        """How a child ended that buys."""
        names = ("REQUESTS_CA_BUNDLE", "NO_PROXY")
        return self.run(
            desk, jumps=jumps, act="buy", key=desk.vendor.key, gateway=desk.vendor.gateway, settings=desk.settings,
            ask=asdict(ask), options=options, environment={n: os.environ[n] for n in names},
        )  # fmt: skip


def put(path, seconds):
    """Set a clock."""
    with path.open("r+b" if path.exists() else "xb") as file:
        file.write(struct.pack("<q", int(seconds * 10**9)))


def work(job):
    """Do it; how many files or orders failed."""
    os.environ.update(job.get("environment", {}), TZ=job["zone"])
    time.tzset()
    jumps = itertools.cycle(job["jumps"][1:] or job["jumps"])
    off = Path(os.environ[FILE])
    return {"files": files, "buy": buy}[job["act"]](job, lambda _: put(off, next(jumps)))


def files(job, on_step):
    place = Place(Path(job["folder"]), address=job["address"])
    return sum(o.status == "failed" for o in place.ingest(*map(Path, job["paths"]), on_step=on_step, **job["options"]))


def buy(job, on_step):
    from api.desk import Ask, Desk

    vendor = SimpleNamespace(key=job["key"], gateway=job["gateway"])
    desk = Desk(Path(job["folder"]), vendor, job["settings"], address=job["address"])
    with desk.open() as data:
        data._store, data._writable = desk.place.open(on_step=on_step), True
        buying = desk.buying(data, Ask(**job["ask"]), **job["options"])
        _, outcomes = buying.run(buying.offer())
        return sum(o.status == "failed" for o in outcomes)


if __name__ == "__main__":
    import databento  # noqa: F401
    import pandera.polars  # noqa: F401  (the slowest of the imports, else made by each child)

    import hdi.buying.buying
    import hdi.stores.lake
    import hdi.stores.timescaledb  # noqa: F401
    from lakes import Place

    serve(work)

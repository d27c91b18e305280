"""Starting and killing the children of :mod:`ward`."""

import contextlib
import fcntl
from pathlib import Path

from children import Children
from server_faults.places import until


class Ward(Children):
    """Forks children that work on a place, one at a time."""

    def __init__(self):
        super().__init__("-W", "ignore", Path(__file__).with_name("ward.py"))

    def start(self, place, act="files", paths=(), *, step=0, gate="", **more):
        """The pid of a child that works."""
        job = {"act": act, "folder": str(place.folder), "address": place.address, "options": place.options}
        return self.fork(job | {"paths": [str(p) for p in paths], "step": step, "gate": str(gate)} | more)

    def run(self, place, act="files", paths=(), *, after=None, **more):
        """How a child ended: its exit code, or minus the signal. It is killed ``after`` so many seconds."""
        return self.watch(self.start(place, act, paths, **more), after)


@contextlib.contextmanager
def gate(folder, children):
    """A file that holds so many children back until all of them are there."""
    path = folder / "gate"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield path
        until(lambda: len(list(folder.glob("gate.*"))) == children, "their start")
    for left in folder.glob("gate*"):
        left.unlink()

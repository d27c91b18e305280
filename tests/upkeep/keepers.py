"""Children that tend, save or restore a store and may be killed: forked from a process that has imported everything.

Each is told ``url``, ``act`` (maintain, backup or restore), ``folder``, and ``step``, the number of the step at which
it kills itself (0: never).
"""

import os
from pathlib import Path

from children import Children, killing, serve
from hdi.backups import back_up
from hdi.backups.restoring import restore
from hdi.settings import load
from hdi.stores.upkeep import Care
from hdi.testing import opened

#: Everything that can be done, and no file is kept for a reader.
CARE = Care(keep_hours=0)


class Keepers(Children):
    """Forks children that keep a store."""

    def __init__(self):
        super().__init__(Path(__file__))

    def start(self, url, act, folder="", *, step=0):
        """The pid of a child that keeps a store."""
        programs = os.environ.get("TIMESCALEDB_PROGRAMS", "")
        return self.fork({"url": url, "act": act, "folder": str(folder), "step": step, "programs": programs})

    def run(self, url, act, folder="", *, step=0):
        """How a child ended: its exit code, or minus the signal."""
        return self.watch(self.start(url, act, folder, step=step))


def do(url, act, folder="", on_step=None):
    """Tend, save or restore a store."""
    store = opened(url, on_step) if act == "maintain" else reading(url, on_step)
    try:
        if act == "maintain":
            return list(store.maintain(CARE))
        settings = load(None, flags={"store": url})
        return back_up(store, settings, Path(folder)) if act == "backup" else restore(store, settings, Path(folder))
    finally:
        store.close()


def reading(url, on_step=None):
    """A handle that makes nothing."""
    from hdi.stores import ServerOptions, open_store
    from hdi.testing.material import schemas

    programs = os.environ.get("TIMESCALEDB_PROGRAMS")
    options = None if url.startswith("lake:") else ServerOptions(programs=Path(programs) if programs else None)
    return open_store(url, schemas(), on_step=on_step, options=options)


def work(job):
    """Do it."""
    os.environ["TIMESCALEDB_PROGRAMS"] = job["programs"]
    do(job["url"], job["act"], job["folder"], killing(job["step"]))
    return 0


if __name__ == "__main__":
    import hdi.stores.lake
    import hdi.stores.timescaledb  # noqa: F401

    serve(work)

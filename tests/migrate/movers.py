"""Children that migrate a store and may be killed: forked from a process that has imported everything.

Each is told ``source`` and ``destination``, and ``step``, the number of the step at which it kills itself (0: never).
"""

from pathlib import Path

import hdi.stores.lake
import hdi.stores.timescaledb  # noqa: F401
from children import Children, killing, serve
from hdi.migrating import Migration
from hdi.testing.material import opened, schemas


class Movers(Children):
    """Forks children that migrate."""

    def __init__(self):
        super().__init__(Path(__file__))

    def start(self, source, destination, *, step=0):
        """The pid of a child that migrates."""
        return self.fork({"source": source, "destination": destination, "step": step})


def work(job):
    """Migrate."""
    destination = opened(job["destination"], killing(job["step"]))
    with Migration(opened(job["source"]), destination, schemas()) as migration:
        for _ in migration.run("copy"):
            pass
    return 0


if __name__ == "__main__":
    serve(work)

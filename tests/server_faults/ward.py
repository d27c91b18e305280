"""Children that work on a server's store and may be killed: forked from a process that has imported everything.

Reads one JSON object per line: ``act`` (a function of this module), what it needs, ``step`` (the number of the step
of a commit at which the child kills itself; 0: never) and ``gate``, a file that is locked until the child may begin.
Answers with the child's pid, then with how it ended.
"""

import fcntl
import os
import warnings
from pathlib import Path
from types import SimpleNamespace

import pandera.polars  # noqa: F401  (the slowest of the imports, else made by each child)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import databento  # noqa: F401  (its import sets warning filters)

import hdi.buying.buying
import hdi.stores.timescaledb  # noqa: F401
from children import killing, serve
from server_faults.places import ServerPlace


def work(job):
    """Do it; how many files or orders failed."""
    os.environ.update(job.get("environment", {}))
    place = ServerPlace(Path(job["folder"]), job.get("options", {}), job["address"])
    if job["gate"]:
        wait(Path(job["gate"]))
    return {"files": files, "begin": begin, "buy": buy}[job["act"]](place, job)


def wait(gate):
    with gate.open() as file:
        gate.with_name(f"{gate.name}.{os.getpid()}").touch()
        fcntl.flock(file, fcntl.LOCK_SH)


def files(place, job):
    """Ingest files."""
    outcomes = place.ingest(*map(Path, job["paths"]), on_step=killing(job["step"]))
    return sum(o.status == "failed" for o in outcomes)


def begin(place, _):
    """Open the store for the first time."""
    with place.handle():
        return 0


def buy(place, job):
    """Buy from the rehearsal vendor."""
    from api.desk import Ask
    from server_faults.counter import Counter

    vendor = SimpleNamespace(key=job["key"], gateway=job["gateway"])
    outcomes = Counter(place.folder, vendor, address=place.address).ingest(Ask(**job["ask"]))
    return sum(o.status == "failed" for o in outcomes)


if __name__ == "__main__":
    serve(work)

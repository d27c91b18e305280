"""Children that work on a server's store and may be killed: forked from a process that has imported everything.

Reads one JSON object per line: ``act`` (a function of this module), what it needs, ``step`` (the number of the step
of a commit at which the child kills itself; 0: never) and ``gate``, a file that is locked until the child may begin.
Answers with the child's pid, then with how it ended.
"""

import fcntl
import json
import os
import sys
import traceback
import warnings
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pandera.polars  # noqa: F401  (the slowest of the imports, else made by each child)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import databento  # noqa: F401  (its import sets warning filters)

import hdi.buying.buying
import hdi.stores.timescaledb  # noqa: F401
from api.cradle import die
from nursery import answer
from server_faults.places import ServerPlace


def main():
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if not pid:
            work(job)
        answer(pid)
        _, status = os.waitpid(pid, 0)
        answer(os.waitstatus_to_exitcode(status))


def work(job):
    """Do it; never returns. The exit code is how many files or orders failed, 99 for anything else."""
    code = 99
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the answers are the parent's
        os.environ.update(job.get("environment", {}))
        place = ServerPlace(Path(job["folder"]), job.get("options", {}), job["address"])
        if job["gate"]:
            wait(Path(job["gate"]))
        code = {"files": files, "begin": begin, "buy": buy}[job["act"]](place, job)
    except Exception:
        traceback.print_exc()
        raise
    finally:
        os._exit(code)


def wait(gate):
    with gate.open() as file:
        gate.with_name(f"{gate.name}.{os.getpid()}").touch()
        fcntl.flock(file, fcntl.LOCK_SH)


def stepper(job):
    steps = count(1)

    def on_step(_):
        if next(steps) == job["step"]:
            die()

    return on_step


def files(place, job):
    """Ingest files."""
    outcomes = place.ingest(*map(Path, job["paths"]), on_step=stepper(job))
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
    main()

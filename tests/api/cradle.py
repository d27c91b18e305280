"""Children that buy and may be killed: forked from a process that has imported everything and computed nothing.

Reads one JSON object per line: the desk, the request, ``at`` (a function of ours at whose call the child kills
itself), ``step`` (the step of a commit at which it does) and ``options`` of the purchase. Answers with the child's
pid, then with how it ended.
"""

import json
import os
import signal
import sys
import traceback
from importlib import import_module
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pandera.polars  # noqa: F401  (the slowest of the imports, else made by each child)


def main():
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if not pid:
            work(job)
        answer(pid)
        _, status = os.waitpid(pid, 0)
        answer(os.waitstatus_to_exitcode(status))


def answer(number):
    os.write(1, f"{number}\n".encode())


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def work(job):
    """Buy; never returns. The exit code is how many orders failed, 99 for anything else."""
    code = 99
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the answers are the parent's
        os.environ.update(job["environment"])
        if job["at"]:
            module, _, name = job["at"].rpartition(".")
            setattr(import_module(module), name, die)
        code = buy(job)
    except Exception:
        traceback.print_exc()
        raise
    finally:
        os._exit(code)


def buy(job):
    from api.desk import Ask, Desk

    steps = count(1)

    def on_step(_):
        if next(steps) == job["step"]:
            die()

    vendor = SimpleNamespace(key=job["key"], gateway=job["gateway"])
    shared = Path(job["shared"]) if job["shared"] else None
    desk = Desk(Path(job["folder"]), vendor, job["settings"], shared)
    with desk.open() as data:
        data._store, data._writable = desk.place.open(on_step=on_step), True
        buying = desk.buying(data, Ask(**job["ask"]), **job["options"])
        offer = buying.offer()
        _, outcomes = buying.run(offer)
        return sum(o.status == "failed" for o in outcomes)


if __name__ == "__main__":
    import databento  # noqa: F401

    import hdi.buying.buying
    import hdi.stores.lake  # noqa: F401

    main()

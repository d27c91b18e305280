"""Children that buy and may be killed: forked from a process that has imported everything and computed nothing.

Reads one JSON object per line: the desk, the request, ``at`` (a function of ours at whose call the child kills
itself), ``step`` (the step of a commit at which it does) and ``options`` of the purchase. Answers with the child's
pid, then with how it ended.
"""

import os
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pandera.polars  # noqa: F401  (the slowest of the imports, else made by each child)

from children import kill, killing, serve


def die(*_, **__):
    kill(os.getpid())


def work(job):
    """Buy; how many orders failed."""
    os.environ.update(job["environment"])
    if job["at"]:
        module, _, name = job["at"].rpartition(".")
        setattr(import_module(module), name, die)
    return buy(job)


def buy(job):
    from api.desk import Ask, Desk

    vendor = SimpleNamespace(key=job["key"], gateway=job["gateway"])
    shared = Path(job["shared"]) if job["shared"] else None
    desk = Desk(Path(job["folder"]), vendor, job["settings"], shared)
    with desk.open() as data:
        data._store, data._writable = desk.place.open(on_step=killing(job["step"])), True
        buying = desk.buying(data, Ask(**job["ask"]), **job["options"])
        offer = buying.offer()
        _, outcomes = buying.run(offer)
        return sum(o.status == "failed" for o in outcomes)


if __name__ == "__main__":
    import databento  # noqa: F401

    import hdi.buying.buying
    import hdi.stores.lake  # noqa: F401

    serve(work)

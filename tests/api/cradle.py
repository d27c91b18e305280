"""Children that buy and may be killed: forked from a process that has imported everything and computed nothing.

Reads one JSON object per line: the desk, the request, ``at`` (a function of ours at whose call the child kills
itself), ``step`` (the step of a commit at which it does) and ``options`` of the purchase. Answers with the child's
pid, then with how it ended.
"""

import os
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pandera.polars  # noqa: F401  (the slowest of the imports, else made by each child)

from children import kill, killing, serve, told

#: Steps that a child tells beside those of its commits: an order goes out, its bytes are there, and are kept.
STEPS = {
    "order": "hdi.sources.databento.receive",
    "arrived": "hdi.buying.paid.check",
    "slip": "hdi.raw.put_note",
    "keep": "hdi.raw.put",
}


def die(*_, **__):
    kill(os.getpid())


def work(job):
    """Buy; how many orders failed."""
    os.environ.update(job["environment"])
    for step, place in STEPS.items():
        change(place, partial(telling, step))
    if job["at"]:
        change(job["at"], lambda _: die)
    return buy(job)


def change(place, make):
    """Put another function in the place of one of ours."""
    module, _, name = place.rpartition(".")
    there = import_module(module)
    setattr(there, name, make(getattr(there, name)))


def telling(step, function):
    """The function, which tells when it begins."""

    def call(*args, **options):
        told(step)
        return function(*args, **options)

    return call


def buy(job):
    from api.desk import Ask, Desk
    from server_faults.counter import Counter

    vendor = SimpleNamespace(key=job["key"], gateway=job["gateway"])
    shared = Path(job["shared"]) if job["shared"] else None
    kind = Counter if job["address"] else Desk
    desk = kind(Path(job["folder"]), vendor, job["settings"], shared, job["address"])
    with desk.open() as data:
        data._store, data._writable = desk.place.open(on_step=killing(job["step"])), True
        buying = desk.buying(data, Ask(**job["ask"]), **job["options"])
        offer = buying.offer()
        _, outcomes = buying.run(offer)
        return sum(o.status == "failed" for o in outcomes)


if __name__ == "__main__":
    import databento  # noqa: F401

    import hdi.buying.buying
    import hdi.stores.lake
    import hdi.stores.timescaledb  # noqa: F401

    serve(work)

"""What ``hdi config test-api`` asks a vendor: whether the key is taken, what it opens, how fast, what may be asked."""

from __future__ import annotations

import time
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from hdi.configuring import MASK
from hdi.errors import HdiError, RequestError
from hdi.jobs import Job
from hdi.model import iso_ns
from hdi.settings import Settings
from hdi.sources import Diagnosed, Source

#: The vendor's client, which speaks for its version of the API.
_CLIENT = "databento"


def tried(
    settings: Settings, api: str, source: Source, jobs: Iterable[Job], *, verbose: bool = False
) -> dict[str, Any]:  # fmt: skip
    """What the vendor answered; ``verbose`` also asks for what is available of the datasets of jobs.

    ``key`` and ``client`` are None for the source of another package: they are its own affair.
    Raises what the vendor refuses with, and RequestError for a source that cannot be tried.
    """
    if not isinstance(source, Diagnosed):
        raise RequestError("this source cannot be tried out", "Plan an order with it: hdi plan --api NAME ...")
    ours = api == _CLIENT
    source.check_key()
    reached = source.reach()
    source.datasets()  # the first call also loads the vendor's client, which is no latency
    began = time.monotonic()
    datasets = source.datasets()
    found: dict[str, Any] = {
        "valid": True, "api": api, "gateway": reached.url, "origin": source.origin,
        "key": _key(settings) if ours else None,
        "seconds": {"without_key": round(reached.seconds, 3), "list_datasets": round(time.monotonic() - began, 3)},
        "clock_ahead_seconds": None if reached.ahead is None else round(reached.ahead, 1),
        "datasets": datasets, "client": f"{_CLIENT} {version(_CLIENT)}" if ours else None,
    }  # fmt: skip
    if verbose:
        found["available"] = {name: _available(source, name) for name in sorted({job.dataset for job in jobs})}
    found["limits"] = [
        {"family": each.family, "left": each.left, "of": each.most, "seconds": each.seconds}
        for each in source.allowances()
    ]
    return found


def _key(settings: Settings) -> dict[str, Any]:
    return {"shown": MASK, "from": settings.origins.get("databento.key", "the program")}


def _available(source: Diagnosed, dataset: str) -> dict[str, Any]:
    """What can be ordered of a dataset, by schema, or why not; and how long the answer took."""
    began = time.monotonic()
    try:
        windows = source.available(dataset)
    except HdiError as exc:
        return {"error": exc.message, "hint": exc.hint}
    return {
        "seconds": round(time.monotonic() - began, 3),
        "schemas": {name: [iso_ns(w.start), iso_ns(w.end)] for name, w in sorted(windows.items())},
    }  # fmt: skip


__all__ = ["tried"]

"""What is looked at in the store and the data folder: layout, runs that died, what they left, calendars of jobs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path

from hdi import raw
from hdi.calendars import Calendars
from hdi.configuring import Checked
from hdi.errors import HdiError, masked
from hdi.journal import entries
from hdi.model import Finding, ns_date, some
from hdi.runs import records
from hdi.settings import Settings
from hdi.stores import Inspected, Store
from hdi.symbol_groups import expand


def store(settings: Settings, opened: Callable[[], Store]) -> Iterator[Finding]:
    """Whether the store opens, what it says of itself, and runs of it that died."""
    try:
        found = opened()
        ledger = found.ledger()
        inspected = found.inspect() if isinstance(found, Inspected) else []
        identity = found.identity()
    except HdiError as exc:
        yield Finding("store", "fail", exc.message, exc.hint)
        yield Finding("runs", "not measured", "the store cannot be read")
        return
    place = masked(settings.store_url)
    origin = f", {ledger['origin'][0]} data" if ledger.height else ""
    yield Finding("store", "pass", f"{place} opens; receipts: {ledger.height}{origin}")
    yield from inspected
    bad: list[str] = []
    known = records(list(entries(settings.data_dir, bad.append)), ledger, identity, masked(found.url))
    undone = [record.run for record in known if record.status == "died"]
    if undone:
        yield Finding(
            "runs", "warn", f"{len(undone)} died and nobody went on with: {some(undone)}",
            f"hdi ingest --resume {undone[-1]} goes on with one; hdi runs shows them.",
        )  # fmt: skip
    elif not bad:
        yield Finding("runs", "pass", f"{len(known)} known; none of them died and was left so")
    if bad:
        mend = "Move what is no journal out of that folder, or let this user read it."
        yield Finding("journals", "warn", "; ".join(bad), mend)


def leftovers(data_dir: Path) -> Finding:
    """Part files of processes that are gone."""
    left = raw.left_behind(data_dir)
    if not left:
        return Finding("downloads", "pass", "no process that died left a part of a file")
    size = sum(path.stat().st_size for path in left if path.exists())
    return Finding(
        "downloads", "warn", f"{len(left)} parts of files, {size} bytes, of processes that are gone: {left[0].parent}",
        "The next hdi ingest clears them away.",
    )  # fmt: skip


def calendars(checked: Checked) -> Finding:
    """Whether the calendars cover the datasets and the days of the jobs."""
    name = "calendars"
    try:
        known = Calendars.load(checked.folder)
    except HdiError as exc:
        return Finding(name, "fail", exc.message, exc.hint)
    today = dt.datetime.now(dt.UTC).date()
    lacking: dict[str, None] = {}
    for job in checked.jobs.values():
        try:
            symbols = expand(job.symbols, checked.folder)
        except HdiError:  # told with the settings
            continue
        span = known.known(job.dataset, symbols)
        first = ns_date(job.window.start) if job.end_date else dt.date.fromisoformat(job.start_date[:10])
        last = today if job.synced or not job.end_date else ns_date(job.window.end - 1)
        if span is None:
            lacking[f"none is known for {job.dataset}"] = None
        elif first < span[0] or last > span[1]:
            lacking[f"that of {job.dataset} knows {span[0]} to {span[1]}, job {job.name} wants {first} to {last}"] = (
                None
            )
    if lacking:
        return Finding(
            name, "warn", "; ".join(lacking),
            "No day without one counts as closed: what is missing there may be no gap. calendars.yaml can name one.",
        )  # fmt: skip
    datasets = sorted({job.dataset for job in checked.jobs.values()})
    return Finding(name, "pass", f"known for the days of all jobs ({', '.join(datasets)})" if datasets else "no job")


__all__ = ["calendars", "leftovers", "store"]

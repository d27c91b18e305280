"""Prometheus metrics: the ledger, the store and the folders, measured when they are asked for.

Nothing comes from the memory of a process, so that any process gives the same answer. Books that have not changed are
not added up again, and a store is not counted again for :data:`COUNTED` seconds unless they have.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl
import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from hdi.errors import HdiError
from hdi.health import existing
from hdi.lagging import standing
from hdi.metrics import families
from hdi.model import NS
from hdi.overview import overview

if TYPE_CHECKING:
    from prometheus_client import Metric

    from hdi.calendars import Calendars
    from hdi.jobs import Job
    from hdi.schema import Schemas
    from hdi.settings import Settings
    from hdi.stores import Store

#: Seconds for which an answer is given again without a look; for which it is where the books are the same; and for
#: which a store is not counted again.
AGAIN, SAME, COUNTED = 2.0, 30.0, 600.0
log = structlog.get_logger(component="Metrics")


@dataclass(frozen=True)
class World:
    """What is measured. ``reopen`` gives the store back, so that the next look opens it anew."""

    settings: Settings
    schemas: Schemas
    opened: Callable[[], Store]
    calendars: Callable[[], Calendars]
    jobs: Callable[[], Iterable[Job]]
    symbols_of: Callable[[Sequence[str]], Sequence[str]]
    reopen: Callable[[], None]
    version: str


@dataclass
class _Kept:
    """What was measured, when by the process's clock, and of which books."""

    found: list[Metric] = field(default_factory=list)
    at: float = float("-inf")
    books: object = None


class Metrics(Collector):
    """Collects when it is asked; threads may ask at once, and one measures."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._lock = threading.Lock()
        self._all, self._store = _Kept(), _Kept()
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering is not asking."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Every family that could be measured; ``hdi_store_up`` is 0 where the store could not."""
        with self._lock:
            if time.monotonic() - self._all.at > AGAIN:
                self._look()
            return list(self._all.found)

    def text(self) -> bytes:
        """The text format, as it is served."""
        return generate_latest(self.registry)

    def _look(self) -> None:
        began, now = time.monotonic(), time.time_ns()
        world = self._world
        try:
            store = world.opened()
            ledger, coverage = _books(store)
            books = (store.url, ledger.height, ledger["committed_at"].max(), coverage.height)
            if books == self._all.books and began - self._all.at < SAME:
                return
            found = self._of_store(store, ledger, coverage, books, now)
            up = 1.0
        except HdiError as error:
            log.error("the store could not be measured", error=error.message)  # noqa: TRY400  (its words say it all)
            world.reopen()
            found, books, up = [], None, 0.0
        found += [
            families.gauge("hdi_store_up", "1 where the store could be measured", (), [((), up)]),
            *self._of_machine(),
            families.gauge("hdi_measured_timestamp_seconds", "When this was measured", (), [((), now / NS)]),
            families.gauge("hdi_measure_duration_seconds", "How long that took", (),
                           [((), time.monotonic() - began)]),
        ]  # fmt: skip
        self._all = _Kept(found, time.monotonic(), books)

    def _of_store(
        self, store: Store, ledger: pl.DataFrame, coverage: pl.DataFrame, books: object, now: int
    ) -> list[Metric]:
        world = self._world
        severities = {rule.name: rule.severity for schema in world.schemas for rule in schema.rules}
        parts = overview(world.settings, store, world.calendars, world.jobs, now)
        if self._store.books != books or time.monotonic() - self._store.at > COUNTED:
            self._store = _Kept(families.of_health(store.health()), time.monotonic(), books)
        found = [*families.of_ledger(ledger, severities), *self._store.found]
        if "error" not in parts["schemas"]:
            found += families.of_held(parts["schemas"], now)
        found += families.of_spending(parts["spending"])
        found += self._of_parts(parts)
        found += families.of_quarantine(store.quarantine())
        found += families.of_discrepancies(store.discrepancies())
        found += families.of_conditions(store.conditions())
        try:
            stands = standing(
                world.jobs(), ledger, coverage, world.calendars(), world.schemas, world.symbols_of, now
            )  # fmt: skip
            found += families.of_jobs(stands)
        except HdiError as error:  # jobs or calendars that are wrong: all else is measured
            log.warning("jobs could not be measured", error=error.message)
        origin = str(ledger["origin"][0]) if ledger.height else "none"
        labels = {"version": world.version, "store": world.settings.store_type, "origin": origin}
        return [*found, families.gauge("hdi_info", "What is measured", labels, [(tuple(labels.values()), 1.0)])]

    @staticmethod
    def _of_parts(parts: dict[str, Any]) -> list[Metric]:
        """Runs and raw files, as far as they could be read."""
        for name, part in parts.items():
            if "error" in part:
                log.warning("a part could not be measured", part=name, error=part["error"])
        runs, raw, failed = parts["runs"], parts["raw"], parts["failures"]
        found = []
        if "error" not in runs:
            unread = [((), float(len(runs["unreadable"])))]
            says = "Journals of runs, or their folder, that cannot be read: who died may be among them"
            found.append(families.gauge("hdi_journals_unreadable", says, (), unread))
            by_status = [((status,), float(number)) for status, number in sorted(runs["by_status"].items())]
            died = [((), float(runs["died_count"]))]
            found += [
                families.gauge("hdi_runs", "Runs that are known, by how they stand", ("status",), by_status),
                families.gauge("hdi_runs_died", "Runs that died, and that no later run went on with", (), died),
            ]
        if "error" not in raw:
            found += [
                families.gauge("hdi_raw_files", "Raw files that are kept", (), [((), float(raw["files"]))]),
                families.gauge(
                    "hdi_raw_files_bytes", "Size of the raw files that are kept", (), [((), float(raw["bytes"]))]
                ),
            ]
        if "error" not in failed:
            found.append(families.gauge(
                "hdi_failed_units", f"Units of the last {failed['days']} days whose last attempt failed", (),
                [((), float(failed["failed_units"]))],
            ))  # fmt: skip
        return found

    def _of_machine(self) -> list[Metric]:
        free = shutil.disk_usage(existing(self._world.settings.data_dir)).free
        return [families.gauge("hdi_disk_free_bytes", "Free space of the data folder", (), [((), float(free))])]


def _books(store: Store) -> tuple[pl.DataFrame, pl.DataFrame]:
    from hdi.stores import Together

    if isinstance(store, Together):
        books = store.books()
        return books.ledger, books.coverage
    return store.ledger(), store.coverage()


def serve(metrics: Metrics, host: str, port: int) -> tuple[str, Callable[[], None]]:
    """Serve the metrics over HTTP in threads of their own: the address, and what ends it. OSError where it cannot."""
    from prometheus_client import start_http_server

    server, thread = start_http_server(port, host, metrics.registry)

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    named = f"[{host}]" if ":" in host else host
    return f"http://{named}:{server.server_port}/metrics", end


__all__ = ["Metrics", "World", "serve"]

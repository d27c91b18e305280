"""Upkeep of everything that hdi keeps: the store, by its own steps, and beside it parts, logs, raw files, rejects.

What is removed by age is removed only where a setting says so.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import structlog

from hdi import raw
from hdi.errors import RequestError
from hdi.frames import BROUGHT
from hdi.model import DAY_NS
from hdi.stores.upkeep import Care, Maintained, Tended

if TYPE_CHECKING:
    from hdi.settings import Settings
    from hdi.stores import Store

#: What is done beside the store.
STEPS = {
    "parts": "downloads and copies of processes that died",
    "logs": "rotated log files that are older than maintain.log_days",
    "raw": "raw files whose rows are stored for longer than maintain.raw_days",
    "quarantine": "rejects that are older than quarantine.retention_days",
}
_ROTATED = re.compile(r"\.log\.\d+$")
_DAY = 86_400
log = structlog.get_logger(component="Maintenance")


def steps_of(store: Store) -> dict[str, str]:
    """The steps for a store, in their order, with what each does."""
    return {**(store.steps() if isinstance(store, Maintained) else {}), **STEPS}


class Maintenance:
    """The upkeep of a store and of its folders; :meth:`run` does it."""

    def __init__(self, store: Store, settings: Settings, care: Care) -> None:
        known = steps_of(store)
        if strange := [step for step in care.steps if step not in known]:
            raise RequestError(f"no step {strange[0]}", f"Known for this store: {', '.join(known)}.")
        self._store, self._settings = store, settings
        self.care = care

    def run(self) -> Iterator[Tended]:
        """Do it, and say of each thing what was done. Raises StoreError."""
        for tended in self._steps():
            log.info(
                "maintained", step=tended.step, what=tended.what, done=tended.done, dry_run=self.care.dry_run,
                bytes_before=tended.bytes_before, bytes_after=tended.bytes_after,
            )  # fmt: skip
            yield tended

    def _steps(self) -> Iterator[Tended]:
        care, mine = self.care, [step for step in self.care.steps if step not in STEPS]
        if not isinstance(self._store, Maintained):
            yield Tended("store", self._store.url, "this kind of store tends itself, or cannot be tended")
        elif mine or not care.steps:
            yield from self._store.maintain(replace(care, steps=tuple(mine)))
        acts = {"parts": self._parts, "logs": self._logs, "raw": self._raw, "quarantine": self._quarantine}
        for step, act in acts.items():
            if care.wants(step):
                yield from act()

    def _parts(self) -> Iterator[Tended]:
        began, folder = time.monotonic(), self._settings.data_dir
        before = len(list((folder / "raw" / ".part").glob("*.part")))
        gone = 0 if self.care.dry_run else raw.sweep(folder)
        if before:
            done = f"{before} there; removed {gone} whose process is gone"
            yield Tended("parts", str(folder / "raw" / ".part"), done, before, before - gone,
                         seconds=time.monotonic() - began)  # fmt: skip

    def _logs(self) -> Iterator[Tended]:
        days = self._settings.maintain.log_days
        if days is None:
            yield from self._off("logs", "maintain.log_days")
            return
        folder = self._settings.log.dir
        files = [p for p in folder.glob("*.log.*") if _ROTATED.search(p.name) and not p.is_symlink()]
        yield self._remove("logs", str(folder), files, [p for p in files if _older(p, days)])

    def _raw(self) -> Iterator[Tended]:
        days = self._settings.maintain.raw_days
        if days is None:
            yield from self._off("raw", "maintain.raw_days")
            return
        root = self._settings.data_dir / "raw"
        ledger, rejected = self._store.ledger(), self._store.quarantine()["unit"]
        files = stored_whole(ledger, rejected, time.time_ns() - days * DAY_NS)
        mine = [p for p in map(Path, files) if p.is_file() and p.is_relative_to(root)]
        there = [p for p in root.rglob("*.dbn*") if p.is_file() and p.suffix != ".json"]
        tended = self._remove("raw", str(root), there, mine)
        warning = "; hdi why, quarantine replay and a store that is lost cannot go back to their bytes"
        yield replace(tended, done=tended.done + (warning if mine else ""))

    def _quarantine(self) -> Iterator[Tended]:
        days = self._settings.quarantine.retention_days
        if days is None:
            yield from self._off("quarantine", "quarantine.retention_days")
            return
        began, aged = time.monotonic(), f"rejects that are older than {days} days"
        if self.care.dry_run:
            yield Tended("quarantine", self._store.url, f"would purge {aged}")
            return
        from hdi.rejects.purging import retention

        purged = retention(self._store, days, self._settings.dlq_dir)
        rows = 0 if purged is None else int(purged["rows"].sum())
        done = f"purged {rows} {aged}"
        yield Tended("quarantine", self._store.url, done, seconds=time.monotonic() - began)

    def _off(self, step: str, setting: str) -> Iterator[Tended]:
        """What is asked for by name and not set is said."""
        if step in self.care.steps:
            yield Tended(step, setting, "nothing: the setting is null, so everything is kept")

    def _remove(self, step: str, where: str, files: Iterable[Path], old: Iterable[Path]) -> Tended:
        began = time.monotonic()
        sizes = {p: p.stat().st_size for p in files}
        gone = [p for p in old if p in sizes]
        if not self.care.dry_run:
            for path in gone:
                path.unlink(missing_ok=True)
        done = f"{'would remove' if self.care.dry_run else 'removed'} {len(gone)} files"
        total, freed = sum(sizes.values()), sum(sizes[p] for p in gone)
        return Tended(
            step, where, done, len(sizes), len(sizes) - len(gone), total, total - freed, time.monotonic() - began
        )


def stored_whole(ledger: pl.DataFrame, rejected: pl.Series, before: int) -> list[str]:
    """The raw files (paths) all of whose receipts were stored before an instant, and that no reject came from."""
    held = pl.col("status").is_in(BROUGHT) & (pl.col("committed_at") < before)
    held &= ~pl.col("unit").is_in(rejected.unique().implode())
    files = ledger.drop_nulls("raw_file").group_by("raw_file").agg(held.all().alias("held"))
    return files.filter("held")["raw_file"].sort().to_list()


def _older(path: Path, days: int) -> bool:
    return time.time() - path.stat().st_mtime > days * _DAY


__all__ = ["STEPS", "Maintenance", "steps_of", "stored_whole"]

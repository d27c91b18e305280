"""Upkeep of a lake: remains swept, small files made few, logs read faster, files removed that nobody can reach.

The log of a table is never shortened: ledger, coverage and all the rest are replayed from it. Answers as of an instant
look at rows and history alone, never at older versions of a table, so vacuum takes nothing from them.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import polars as pl
from deltalake import DeltaTable

from hdi.errors import StoreError
from hdi.stores.lake import noted
from hdi.stores.lake.compact import compact
from hdi.stores.lake.derive import instead
from hdi.stores.lake.entries import commits, latest
from hdi.stores.lake.files import locked, try_lock
from hdi.stores.upkeep import Care, Tended

if TYPE_CHECKING:
    from hdi.stores.lake import Lake

STEPS = {
    "sweep": "remains of processes that died: staged files, half-written log entries, locks that nobody holds",
    "settle": "ledger, coverage, symbology, quarantine and history written down as far as commits have come",
    "compact": "small files of a partition made one, in their order",
    "checkpoint": "the state of each table's log written down, so that opening it reads little",
    "vacuum": "files removed that no table names any more",
}
#: A table whose log has grown by so many entries since its last checkpoint gets another.
_BEHIND = 10
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint")


def maintain(lake: Lake, care: Care) -> Iterator[Tended]:
    """See :meth:`hdi.stores.upkeep.Maintained.maintain`."""
    if not lake.root.is_dir() or not lake.ledger().height:
        return
    with alone(lake):
        for step, act in (("sweep", _sweep), ("settle", _settle), ("compact", compact), ("checkpoint", _checkpoint),
                          ("vacuum", _vacuum)):  # fmt: skip
            if care.wants(step):
                yield from act(lake, care)


@contextlib.contextmanager
def alone(lake: Lake) -> Iterator[None]:
    """The lock of upkeep: one process at a time tends a lake or saves it. StoreError where another is at it."""
    fd = try_lock(lake.lock_path("upkeep"))
    if fd is None:
        raise StoreError(
            f"the lake {lake.root} is being maintained or saved by another process",
            "Run the same command again when that has ended.",
        )
    try:
        yield
    finally:
        os.close(fd)


def _sweep(lake: Lake, care: Care) -> Iterator[Tended]:
    """What the dead left in the staging folder, and locks of claims that nobody holds."""
    began = time.monotonic()
    staging, locks = lake.root / "_hdi" / "staging", lake.root / "_hdi" / "locks"
    dead = _held_by_nobody(staging.iterdir())
    before = list(_files(dead))
    if not care.dry_run:
        lake.step("sweep")
        lake.sweep()
    yield _told(care, "sweep", "staging", before, list(_files(dead)), began)
    began = time.monotonic()
    before = [path for path in locks.glob("claim-*.lock") if _free(path, remove=False)]
    if not care.dry_run:
        for path in before:
            _free(path, remove=True)
    gone = [] if care.dry_run else [path for path in before if path.exists()]
    yield _told(care, "sweep", "locks", before, gone, began)


def _held_by_nobody(folders: Iterable[Path]) -> list[Path]:
    found = []
    for folder in folders:
        if (fd := try_lock(folder / "lock")) is not None:
            found.append(folder)
            os.close(fd)
    return found


def _free(path: Path, *, remove: bool) -> bool:
    """True for a lock that nobody holds; it is removed while it is held here, so that nobody else gets it."""
    fd = try_lock(path)
    if fd is None:
        return False
    if remove:
        path.unlink(missing_ok=True)
    os.close(fd)
    return True


def _settle(lake: Lake, care: Care) -> Iterator[Tended]:
    began = time.monotonic()
    if not care.dry_run:
        lake.step("settle")
        lake.settle()
        yield Tended("settle", "books", "written down", seconds=time.monotonic() - began)


def _checkpoint(lake: Lake, care: Care) -> Iterator[Tended]:
    """Delta makes one by itself every hundred commits."""
    for table in delta_tables(lake):
        began = time.monotonic()
        newest, at = latest(lake.root, table), checkpointed(lake.root, table)
        if newest - at < _BEHIND:
            continue
        if not care.dry_run:
            lake.step("checkpoint")
            with locked(lake.lock_path(_lock_of(lake, table))):
                DeltaTable(str(lake.root / table)).create_checkpoint()
        done = f"{'would be ' if care.dry_run else ''}written down at version {newest}; it was at {max(at, 0)}"
        yield Tended("checkpoint", table, done, seconds=time.monotonic() - began)


def checkpointed(root: Path, table: str) -> int:
    """The version of the newest checkpoint of a table, -1 where there is none."""
    names = os.listdir(root / table / "_delta_log")  # noqa: PTH208  (a log of many versions, names alone)
    return max((int(found[1]) for name in names if (found := _CHECKPOINT.match(name))), default=-1)


def delta_tables(lake: Lake) -> list[str]:
    """The Delta tables of a lake: what others are made of, rows, comes last."""
    rows = {schema.table for schema in lake.schemas()}
    found = [path.parent.name for path in lake.root.glob("*/_delta_log")]
    return sorted(found, key=lambda table: (table in rows, table))


def _lock_of(lake: Lake, table: str) -> str:
    """The lock that whoever commits to a table holds."""
    own = {s.table for s in lake.schemas()} | {noted.TABLE}
    return table if table in own else "derived"


def _vacuum(lake: Lake, care: Care) -> Iterator[Tended]:
    """Files that the newest version of no table names, and that none has named for a while."""
    cutoff = time.time() - care.keep_hours * 3600
    for table in delta_tables(lake):
        began = time.monotonic()
        # Whoever has put files in place and not committed them yet holds the lock.
        with locked(lake.lock_path(_lock_of(lake, table))):
            files = [p for p in (lake.root / table).rglob("*.parquet") if "_delta_log" not in p.parts]
            needed = live_names(lake.root, table) | _removed_since(lake.root, table, cutoff)
            gone = [p for p in files if p.name not in needed and p.stat().st_mtime < cutoff]
            sizes = {p: p.stat().st_size for p in files}
            if not care.dry_run:
                lake.step("vacuum")
                for path in gone:
                    path.unlink()
        if gone:
            yield _removed(care, table, sizes, gone, began)
    began = time.monotonic()
    sizes, gone = _side_files(lake, cutoff)
    if not care.dry_run:
        for path in gone:
            path.unlink(missing_ok=True)
    if gone:
        yield _removed(care, "side files", sizes, gone, began)


def live_names(root: Path, table: str, version: int | None = None) -> set[str]:
    """The names of the files of a version of a table: each name was given once."""
    actions = pl.DataFrame(DeltaTable(str(root / table), version=version).get_add_actions(flatten=True))
    return {unquote(path).rpartition("/")[2] for path in actions["path"]} if actions.height else set()


def _removed_since(root: Path, table: str, cutoff: float) -> set[str]:
    """The names of files that were removed from a table since then: a reader may be at them still."""
    found = set()
    for path in (root / table / "_delta_log").glob("*.json"):
        if path.stat().st_mtime < cutoff:
            continue
        for line in path.read_text(encoding="utf-8").splitlines():
            if (removed := json.loads(line).get("remove")) is not None:
                found.add(unquote(removed["path"]).rpartition("/")[2])
    return found


def _side_files(lake: Lake, cutoff: float) -> tuple[dict[Path, int], list[Path]]:
    """All side files with their sizes, and those that no commit names.

    They are looked at first, then attempts that are under way, and the commits last: what an attempt had put in place
    before is then either its own still or named.
    """
    files = {p: p.stat() for p in (lake.root / "_hdi" / "sidecars").iterdir()}
    under_way = {p.name for p in (lake.root / "_hdi" / "staging").iterdir()}
    named = {
        file.rpartition("/")[2] for schema in lake.schemas() if latest(lake.root, schema.table) >= 0
        for file in side_files(lake.root, schema.table, latest(lake.root, schema.table))
    }  # fmt: skip
    gone = [
        p for p, stat in files.items()
        if p.name not in named and p.name.partition("-")[0] not in under_way and stat.st_mtime < cutoff
    ]  # fmt: skip
    return {p: stat.st_size for p, stat in files.items()}, gone


def side_files(root: Path, table: str, version: int) -> list[str]:
    """The side files, below the root, that the commits of a table name up to a version."""
    told = instead([commit for commit in commits(root, table, -1) if commit.version <= version])
    return [
        file["path"]
        for commit in told
        # What a purge put in the place of others is named by the commits that it did so for.
        for name, part in commit.payload.items() if name != "purged" and isinstance(part, Mapping)
        for file in part.get("files", ())
    ]  # fmt: skip


def _removed(care: Care, what: str, sizes: Mapping[Path, int], gone: list[Path], began: float) -> Tended:
    total, freed = sum(sizes.values()), sum(sizes[p] for p in gone)
    done = f"{'would remove' if care.dry_run else 'removed'} {len(gone)} files that no table names"
    return Tended(
        "vacuum", what, done, len(sizes), len(sizes) - len(gone), total, total - freed, time.monotonic() - began
    )


def _files(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        yield from (p for p in folder.rglob("*") if p.is_file())


def _told(care: Care, step: str, what: str, before: list[Path], after: list[Path], began: float) -> Tended:
    gone = len(before) if care.dry_run else len(before) - len(after)
    done = f"{'would remove' if care.dry_run else 'removed'} {gone} files that the dead have left"
    return Tended(step, what, done, len(before), len(before) - gone, seconds=time.monotonic() - began)


__all__ = ["STEPS", "alone", "checkpointed", "delta_tables", "live_names", "maintain", "side_files"]

"""The logs of the Delta tables of a lake, entry by entry: what hdi has written into them, and what is torn."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from hdi.errors import StoreError
from hdi.raw import sync
from hdi.stores.lake.files import restoring

#: The length of the name of an entry.
_NAME = 25


@dataclass(frozen=True)
class Commit:
    """One commit of a data table: its version and what hdi wrote into it."""

    table: str
    version: int
    payload: Mapping[str, Any]

    @property
    def time(self) -> int:
        """When it was made, nanoseconds UTC. Receipts that were adopted are older than their commit, which says it."""
        if (told := self.payload.get("adopted") or self.payload.get("purged")) is not None:
            return int(told["at"])
        return max((unit["committed_at"] for unit in self.payload["units"]), default=0)


def latest(root: Path, table: str) -> int:
    """The newest version of a table, -1 when it does not exist."""
    try:
        # Asked for often, of logs of many versions, and of tables that are not there: names alone, and no Path.
        names = os.listdir(f"{root}/{table}/_delta_log")  # noqa: PTH208
    except FileNotFoundError:
        return -1
    return max((int(n[:20]) for n in names if len(n) == _NAME and n.endswith(".json")), default=-1)


def clear_log(root: Path, table: str) -> None:
    """Remove half-written log entries of writers that died. The lock that commits to the table take must be held."""
    for path in (root / table / "_delta_log").glob("*.json#*"):
        path.unlink(missing_ok=True)


def clear_torn(root: Path, table: str, version: int) -> None:
    """Set an entry aside that is torn and the newest: its writer went down with the machine before it was on the disk.

    The lock that commits to the table take must be held.
    """
    if latest(root, table) != version:
        return
    try:
        entry(root, table, version, "")
    except StoreError:
        path = root / table / "_delta_log" / f"{version:020d}.json"
        path.rename(path.with_suffix(".torn"))
        sync(path.parent)


def opened(root: Path, table: str, hint: str = "") -> DeltaTable:
    """A table at its newest version. StoreError that names the entry of its log that is torn, with what to do."""
    folder = root / table / "_delta_log"
    with os.scandir(folder) as found:  # Delta takes an empty one for a commit of nothing
        torn = any(e.name.endswith(".json") and not e.stat().st_size for e in found)
    try:
        if not torn:
            return DeltaTable(str(root / table))
    except DeltaError:
        _tell_torn(root, table, hint)
        raise
    _tell_torn(root, table, hint)
    return DeltaTable(str(root / table))  # somebody has set it aside meanwhile


def _tell_torn(root: Path, table: str, hint: str) -> None:
    """Raise the StoreError of the first entry that is torn."""
    for name in sorted(os.listdir(root / table / "_delta_log")):  # noqa: PTH208  (as in latest)
        if len(name) == _NAME and name.endswith(".json"):
            entry(root, table, int(name[:20]), hint or _mending(root, table, int(name[:20])))


def sync_log(root: Path, table: str, after: int) -> None:
    """Flush the log entries newer than version ``after`` to the disk: Delta itself does not."""
    folder = root / table / "_delta_log"
    for version in range(after + 1, latest(root, table) + 1):
        sync(folder / f"{version:020d}.json")
    sync(folder)


def commits(root: Path, table: str, after: int) -> Iterator[Commit]:
    """The commits newer than version ``after``, oldest first, without those that carry no receipts."""
    for version in range(after + 1, latest(root, table) + 1):
        try:
            found = entry(root, table, version, _mending(root, table, version))
        except FileNotFoundError as exc:
            raise StoreError(
                f"{exc.filename} is gone: the log of {table} was cleaned before its receipts were read",
                "Restore the file from a backup; the rows themselves are not affected.",
            ) from exc
        for info in (action.get("commitInfo") for action in found):
            if info and "hdi" in info:
                yield Commit(table, version, info["hdi"])


def entry(root: Path, table: str, version: int, hint: str) -> list[dict[str, Any]]:
    """The actions of an entry of a log. StoreError, with the hint, for one that is torn or empty."""
    path = root / table / "_delta_log" / f"{version:020d}.json"
    try:
        found = [dict(json.loads(line)) for line in path.read_bytes().splitlines()]
        told = int((found[0].get("commitInfo") or {}).get("hdi", {}).get("actions", 0)) if found else 0
    except (ValueError, TypeError, AttributeError) as exc:
        raise StoreError(f"{path} is damaged: {exc}", hint) from exc
    if not found:
        raise StoreError(f"{path} is damaged: it is empty", hint)
    if len(found) <= told:
        raise StoreError(f"{path} is damaged: it ends after {len(found) - 1} of {told} actions", hint)
    return found


def _mending(root: Path, table: str, version: int) -> str:
    """What to do about a torn entry of the log of a data table."""
    hint = restoring(root / table)
    if version == latest(root, table):
        return f"Where the machine went down in the middle of a commit, the next hdi ingest clears it. Else: {hint}"
    return hint


__all__ = ["Commit", "clear_log", "clear_torn", "commits", "entry", "latest", "opened", "sync_log"]

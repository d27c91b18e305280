"""Purging: what is kept of rejected rows, and for how long.

A reject that no longer stands is forgotten. Of one that stands the record is emptied, and its place stays: whether a
bar is certain, and why a row is missing, is answered as before, and a replay still finds it in its raw file. The
ledger's counts stay; beside them it is kept how many went, with a digest of what they were.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from hdi.errors import RequestError
from hdi.frames import NO_RECORD
from hdi.pipeline import export_rejects
from hdi.rejects.kept import days_ns
from hdi.stores import Purging

if TYPE_CHECKING:
    from hdi.stores import Store


@dataclass(frozen=True)
class Purge:
    """What would be purged, by numbers of units: rejects that were ``replaced``, and ``old`` ones that stand."""

    store: Store = field(repr=False)
    dlq: Path
    replaced: tuple[int, ...]
    old: tuple[int, ...]
    rows_replaced: int
    rows_old: int
    reason: str

    @classmethod
    def of(cls, store: Store, older_than_days: int | None, dlq: Path, *, retention: bool = False) -> Purge:
        """By age, and what no longer stands; ``retention``: only what is older, also of what no longer stands.

        Raises RequestError for a number of days that is none, and for a store that cannot purge.
        """
        before = -1 if older_than_days is None else time.time_ns() - days_ns(older_than_days)
        if not isinstance(store, Purging):
            raise RequestError(f"{store.url} cannot purge rejects", "A lake and a database can.")
        aged = store.ledger().filter(pl.col("committed_at") < before)["unit"]
        rejects = store.rejected()
        mine = pl.col("unit").is_in(aged.implode())
        gone = rejects.filter(pl.col("replaced_unit").is_not_null())
        gone = gone.filter(mine) if retention else gone
        old = rejects.filter(pl.col("replaced_unit").is_null(), mine, pl.col("record") != NO_RECORD)
        what = [] if older_than_days is None else [f"older than {older_than_days} days"]
        reason = " or ".join(what if retention else ["replaced", *what])
        return cls(
            store, dlq, tuple(sorted(gone["unit"].unique())), tuple(sorted(old["unit"].unique())), gone.height,
            old.height, reason,
        )  # fmt: skip

    def __bool__(self) -> bool:
        return bool(self.replaced or self.old)

    def run(self) -> pl.DataFrame:
        """Do it; what was purged, as the store keeps it (:data:`hdi.frames.PURGED`)."""
        if not isinstance(self.store, Purging):  # as when it was made
            raise RequestError(f"{self.store.url} cannot purge rejects", "A lake and a database can.")
        done = self.store.purge(self.old, self.replaced, self.reason)
        self.export()
        return done

    def export(self) -> None:
        """Bring the exported rejects in line with the store; a purge that died may have left that undone."""
        export_rejects(self.store, self.dlq)


def retention(store: Store, days: int | None, dlq: Path) -> pl.DataFrame | None:
    """Purge what is older than the setting ``quarantine.retention_days``; None where it is off, or nothing is older."""
    if days is None:
        return None
    purge = Purge.of(store, days, dlq, retention=True)
    return purge.run() if purge else None


__all__ = ["Purge", "retention"]

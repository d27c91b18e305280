"""The ledger of discrepancies: a Delta table of its own, replaced whole in one commit.

It says what a reconciliation saw, so no commit of rows tells it, and nothing else is made from it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import polars as pl
from deltalake import CommitProperties, DeltaTable, Schema
from deltalake.transaction import AddAction, RemoveAction

from hdi.frames import DISCREPANCIES
from hdi.raw import sync
from hdi.stores.lake.derive import CONFIGURATION
from hdi.stores.lake.entries import clear_log, latest, opened, sync_log
from hdi.stores.lake.files import PARQUET, private

TABLE = "discrepancies"


def stored(root: Path) -> pl.DataFrame:
    """The discrepancies of the newest version, by number."""
    return _read(root, _files(opened(root, TABLE)) if latest(root, TABLE) >= 0 else [])


def amend(root: Path, change: Callable[[pl.DataFrame], pl.DataFrame]) -> pl.DataFrame:
    """See :meth:`hdi.stores.Store.amend`. The lock of the table must be held."""
    clear_log(root, TABLE)
    table = opened(root, TABLE) if latest(root, TABLE) >= 0 else None
    files = _files(table) if table else []
    before = _read(root, files)
    after = change(before).select(pl.col(c).cast(t) for c, t in DISCREPANCIES.items()).sort("number")
    if after.equals(before):
        return after
    schema = Schema.from_arrow(after.clear().to_arrow(compat_level=pl.CompatLevel.oldest()).schema)
    table = table or DeltaTable.create(str(private(root / TABLE)), schema, mode="ignore", configuration=CONFIGURATION)
    version = table.version()
    part = f"part-{version + 1:020d}-{uuid4().hex}.parquet"
    after.write_parquet(root / TABLE / part, **PARQUET)
    sync(root / TABLE / part)
    size, rows = (root / TABLE / part).stat().st_size, json.dumps({"numRecords": after.height})
    at_ms = time.time_ns() // 1_000_000
    actions: list[AddAction | RemoveAction] = [AddAction(part, size, {}, 0, data_change=True, stats=rows)]
    actions += [
        RemoveAction(path, data_change=True, deletion_timestamp=at_ms, size=length, partition_values={})
        for path, length in files
    ]
    table.create_write_transaction(actions, "append", schema, commit_properties=CommitProperties())
    sync_log(root, TABLE, version - 1)
    return after


def _files(table: DeltaTable) -> list[tuple[str, int]]:
    """The live files: path and size."""
    actions = pl.DataFrame(table.get_add_actions(flatten=True))
    return actions.select("path", "size_bytes").rows() if actions.height else []


def _read(root: Path, files: list[tuple[str, int]]) -> pl.DataFrame:
    frames = [pl.read_parquet(root / TABLE / path) for path, _ in files]
    whole = pl.concat([pl.DataFrame(schema=DISCREPANCIES), *frames], how="diagonal_relaxed")
    return whole.select(pl.col(c).cast(t) for c, t in DISCREPANCIES.items()).sort("number")


__all__ = ["TABLE", "amend", "stored"]

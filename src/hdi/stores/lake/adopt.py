"""A piece of another store as one commit: its rows instead of those in its cells, and its books as they are there."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import polars as pl

from hdi.errors import StoreError
from hdi.frames import LEDGER, MAPPINGS
from hdi.model import date_ns
from hdi.stores.lake.commit import exclusively, put
from hdi.stores.lake.compare import Attempt, Change, Stored, live_files
from hdi.stores.lake.packed import pack, stage
from hdi.stores.lake.table import newest
from hdi.stores.lake.write import LakeWriter

if TYPE_CHECKING:
    from hdi.stores import Piece
    from hdi.stores.lake import Lake

_REJECT_ROWS = 65_536


def adopt(lake: Lake, piece: Piece, rows: Iterable[pl.DataFrame] | None) -> None:
    """See :meth:`hdi.stores.Store.adopt`."""
    lake.step("begin")
    writer = LakeWriter(lake, piece.work)
    try:
        came = 0
        for frame in rows or ():
            writer.write(frame)
            came += frame.height
        for part in piece.quarantine.iter_slices(_REJECT_ROWS):
            writer.reject(part)
        writer.flush()
        _check_staged(writer, came)
        attempt = Attempt(lake, writer, piece.work)
        exclusively(attempt, piece.origin, lambda: _commit(attempt, piece, anew=rows is not None))
    finally:
        writer.discard()


def _check_staged(writer: LakeWriter, came: int) -> None:
    """StoreError unless the files that will be committed hold as many rows as came."""
    there = sum(pl.read_parquet(run.path, columns=["_unit"]).height for run in writer.runs)
    if there != came:
        raise StoreError(f"{came} rows came, and {there} were written", "Nothing was committed.")


def _commit(attempt: Attempt, piece: Piece, *, anew: bool) -> None:
    lake, writer = attempt.lake, attempt.writer
    lake.step("look")
    table = newest(lake.root, piece.schema)
    ledger = lake.ledger()
    mine = (pl.col("dataset") == piece.dataset) & (pl.col("schema") == piece.name.name)
    piece.check(ledger.filter(mine).height, lake.url)
    change = Change(writer.runs)
    if anew:
        change.removed = [f for f in live_files(table, piece.schema.index_time) if _inside(f, piece)]
    lake.step("pack")
    put(attempt, table, change, _payload(attempt, piece))


def _inside(file: Stored, piece: Piece) -> bool:
    """True for a file of the cells of the piece: whole cells are replaced, and a file lies in one."""
    fixed = {"dataset": piece.dataset, **piece.name.constants}
    if any(file.partition[column] != value for column, value in fixed.items()):
        return False
    cell = date_ns(dt.date.fromisoformat(file.partition["_date"]))
    return piece.window.start <= cell < piece.window.end


def _payload(attempt: Attempt, piece: Piece) -> dict[str, Any]:
    lake, writer = attempt.lake, attempt.writer
    stands = lake.quarantine().filter(pl.col("unit").is_in(list(piece.units)))
    payload: dict[str, Any] = {
        "format": 1, "attempt": writer.attempt,
        # Replayed as this, and not as a commit of these units: see derive.py.
        "adopted": {"at": time.time_ns(), "units": stands["unit"].unique().sort().to_list()},
        "units": piece.ledger.select(*LEDGER).with_columns(pl.col("dollars").cast(pl.String)).rows(named=True),
        "coverage": pack(lake.root, piece.coverage, "coverage", writer.attempt),
        "mappings": pack(lake.root, piece.mappings.select(*MAPPINGS), "mappings", writer.attempt),
        "learned": pack(lake.root, piece.mappings.select(since="learned"), "learned", writer.attempt),
    }  # fmt: skip
    if piece.conditions.height:
        payload["conditions"] = pack(lake.root, piece.conditions, "conditions", writer.attempt)
    if writer.rejects:
        payload["rejects"] = {"files": writer.rejects}
    if piece.history.height:
        payload["history"] = stage(lake.root, piece.history, "history", writer.attempt)
    return payload

"""The commit of one attempt: look, compare, rewrite, put in place, and one Delta commit for all of it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction

from hdi.errors import StoreError
from hdi.frames import BROUGHT
from hdi.model import Receipt, iso_ns
from hdi.raw import sync
from hdi.stores.lake.compare import Attempt, Change, compared, live_files, tally
from hdi.stores.lake.entries import sync_log
from hdi.stores.lake.files import locked, write_text
from hdi.stores.lake.packed import pack
from hdi.stores.lake.table import delta_schema, newest
from hdi.stores.lake.write import LakeWriter, Run
from hdi.stores.receipts import committed_elsewhere, judged, ledger_row, moment, new_conditions, new_mappings

if TYPE_CHECKING:
    from hdi.stores import Work
    from hdi.stores.lake import Lake

_TRIES = 20
T = TypeVar("T")


def commit(lake: Lake, writer: LakeWriter, work: Work, receipts: Sequence[Receipt]) -> list[Receipt]:
    """Commit under the table's lock; look again when somebody else's commit came between."""
    attempt = Attempt(lake, writer, work)
    return exclusively(attempt, work.origin, lambda: _commit(attempt, receipts))


def exclusively(attempt: Attempt, origin: str, once: Callable[[], T]) -> T:
    """What ``once`` gives under the table's lock; it is done again when somebody else's commit came between."""
    lake = attempt.lake
    lake.step("lock")
    with locked(lake.lock_path(attempt.work.schema.table)), lake.committing(origin, attempt.writer.folder):
        for _ in range(_TRIES):
            try:
                return once()
            except CommitFailedError:
                continue
    raise StoreError(
        f"the lake {lake.root} is too busy: {_TRIES} other commits came between", "Run the same command again."
    )


def _commit(attempt: Attempt, receipts: Sequence[Receipt]) -> list[Receipt]:
    lake, writer, work = attempt.lake, attempt.writer, attempt.work
    lake.step("look")
    table = newest(lake.root, work.schema)
    _refuse_known(lake, work)
    change = compared(attempt, live_files(table, work.schema.index_time))
    stored = _counts([r.path for r in change.runs], "_unit")
    rejected = _counts([writer.folder / f["staged"] for f in writer.rejects], "unit")
    at = _moment(attempt)
    done = [_judged(r, change, stored, rejected, at) for r in receipts]
    lake.step("pack")
    put(attempt, table, change, _payload(attempt, done, change))
    return done


def record(lake: Lake, writer: LakeWriter, work: Work, receipts: Sequence[Receipt]) -> None:
    """A commit of receipts without rows: units that failed, with a sample of their rejects, or were only ordered."""
    attempt = Attempt(lake, writer, work)

    def once() -> None:
        change = Change([])
        at = _moment(attempt)
        done = [_judged(r, change, {}, {}, at) for r in receipts]
        put(attempt, newest(lake.root, work.schema), change, _payload(attempt, done, change))

    exclusively(attempt, work.origin, once)


def _refuse_known(lake: Lake, work: Work) -> None:
    """Numbers are used once. The ledger knows them all; to ask Delta for a mark takes as long as there are marks."""
    ids = [unit.id for unit in work.units.values()]
    used = lake.ledger().filter(pl.col("unit_id").is_in(ids)).group_by("unit_id").agg(pl.col("unit").max())
    known = dict(used.iter_rows())
    for number, unit in work.units.items():
        if known.get(unit.id, -1) >= number:
            raise committed_elsewhere(number, unit)


def _counts(paths: Sequence[Path], column: str) -> dict[int, int]:
    """Rows by unit number, read back from the files that will be committed."""
    counts: dict[int, int] = {}
    for path in paths:
        tally(counts, pl.read_parquet(path, columns=[column])[column].to_numpy())
    return counts


def _moment(attempt: Attempt) -> int:
    work = attempt.work
    mine = attempt.lake.ledger().filter(pl.col("dataset") == work.dataset, pl.col("schema") == work.name.name)
    latest = mine["committed_at"].max()
    return moment(None if latest is None else int(latest), work.since)  # type: ignore[arg-type]  # Polars' maxima


def _judged(
    receipt: Receipt, change: Change, stored: Mapping[int, int], rejected: Mapping[int, int], at: int
) -> Receipt:  # fmt: skip
    number = receipt.number
    unchanged, superseded = change.unchanged.get(number, 0), change.superseded.get(number, 0)
    return judged(receipt, stored.get(number, 0), unchanged, superseded, rejected.get(number, 0), at)


def _payload(attempt: Attempt, receipts: Sequence[Receipt], change: Change) -> dict[str, Any]:
    lake, writer, work = attempt.lake, attempt.writer, attempt.work
    payload: dict[str, Any] = {
        "format": 1, "attempt": writer.attempt, "run": work.run,
        "units": [ledger_row(r, work.schema.table) for r in receipts],
    }  # fmt: skip
    if any(r.status in BROUGHT for r in receipts):
        payload["coverage"] = pack(lake.root, work.coverage, "coverage", writer.attempt)
        payload["mappings"] = pack(lake.root, new_mappings(work.mappings, lake.mappings()), "mappings", writer.attempt)
    if work.conditions.height and (news := new_conditions(work.conditions, lake.conditions())).height:
        payload["conditions"] = pack(lake.root, news, "conditions", writer.attempt)
    if writer.rejects:
        payload["rejects"] = {"files": writer.rejects}
    if change.history:
        payload["history"] = {"files": change.history}
    if change.doubtful:
        payload["doubtful"] = change.doubtful
    return payload


def put(attempt: Attempt, table: DeltaTable, change: Change, payload: dict[str, Any]) -> None:
    """Move files in place and commit; whatever fails before the commit is undone."""
    lake, writer, work, root = attempt.lake, attempt.writer, attempt.work, attempt.root
    moves, adds = _moves(work, [*change.runs, *change.kept], root, writer.attempt, news=not change.moved)
    for packed in payload.values():
        if isinstance(packed, dict):
            moves += [(writer.folder / f["staged"], lake.root / f["path"]) for f in packed.get("files", [])]
    guard = f"scope:{work.dataset}/{work.name.name}"
    marks = [Transaction(guard, (table.transaction_version(guard) or 0) + 1)]
    # One mark as evidence: Delta replays all of them whenever it is asked for one, and the ledger has every unit.
    marks += [Transaction(f"unit:{unit['unit_id']}", unit["unit"]) for unit in payload["units"][:1]]
    now = time.time_ns() // 1_000_000
    removes = [
        RemoveAction(
            f.path,
            data_change=not change.moved,
            deletion_timestamp=now,
            size=f.size,
            partition_values=dict(f.partition),
        )
        for f in change.removed
    ]
    version = table.version()
    payload["actions"] = len(adds) + len(removes) + len(marks)
    lake.step("intent")
    intent = {"table": work.schema.table, "version": version, "attempt": writer.attempt,
              "files": [str(to.relative_to(lake.root)) for _, to in moves]}  # fmt: skip
    told = writer.folder / "intent.json"
    write_text(told, json.dumps(intent), writer.folder / "intent.part")
    try:
        lake.step("move")
        for source, target in moves:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, target)
        for folder in {p for _, target in moves for p in target.relative_to(lake.root).parents}:
            sync(lake.root / folder)
        lake.step("commit")
        table.create_write_transaction(
            [*adds, *removes], "append", delta_schema(work.schema), [*work.schema.partition, "_date"],
            commit_properties=CommitProperties(
                custom_metadata={"hdi": payload}, app_transactions=marks, max_commit_retries=0
            ),
        )  # fmt: skip
    except BaseException as exc:
        # What Delta does after a commit (a checkpoint) may fail too: the commit stands.
        landed = lake.undo(intent)
        told.unlink()
        if not landed or not isinstance(exc, Exception):
            raise
    else:
        told.unlink()
    sync_log(lake.root, work.schema.table, version - 1)
    lake.made(work.schema.table, writer.folder)
    lake.warn_doubtful(change.doubtful)


def _moves(
    work: Work, runs: list[Run], root: Path, attempt: str, *, news: bool
) -> tuple[list[tuple[Path, Path]], list[AddAction]]:
    """(from, to) of each run, and its add action; ``news`` where it holds rows that were not there."""
    values = {"dataset": work.dataset, **work.name.constants}
    index = work.schema.index_time
    moves, adds = [], []
    for k, run in enumerate(runs):
        partition = {**{c: values[c] for c in work.schema.partition}, "_date": run.date}
        path = "/".join([*(f"{c}={v}" for c, v in partition.items()), f"{attempt}-{k:05d}.parquet"])
        stats = {
            "numRecords": run.rows,
            "minValues": {index: _stamp(run.first), "instrument_id": run.low},
            "maxValues": {index: _stamp(run.last), "instrument_id": run.high},
            "nullCount": {index: 0, "instrument_id": 0},
        }
        adds.append(AddAction(path, run.path.stat().st_size, partition, 0, data_change=news, stats=json.dumps(stats)))
        moves.append((run.path, root / path))
    return moves, adds


def _stamp(micro: int) -> str:
    seconds, rest = divmod(micro, 1_000_000)
    return f"{iso_ns(seconds * 1_000_000_000)[:-1]}.{rest:06d}Z"

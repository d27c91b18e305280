"""The commit of one attempt: look, compare, rewrite, put in place, and one Delta commit for all of it.

Rows in the scope that are equal to the new ones stay as they are. Equality is judged by groups of rows
that share index time, publisher and instrument, in their order: inside a group order is the only thing
that tells equal trades apart, across groups the key does.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction

from hdi.errors import FragmentRefused, StoreError
from hdi.frames import LEDGER
from hdi.model import Receipt, iso_ns
from hdi.stores.lake.derive import pack, side_file
from hdi.stores.lake.files import PARQUET, locked, sync, write_text
from hdi.stores.lake.write import LakeWriter, Run, arranged, write_run
from hdi.symbology import Array, Intervals

if TYPE_CHECKING:
    from hdi.stores import Work
    from hdi.stores.lake import Lake

_TRIES = 20
#: Rows compared at once when stored rows are replaced.
_SLAB_ROWS = 1 << 20


@dataclass(frozen=True)
class Stored:
    """A live file of the table: path relative to the table, size, partition values, bounds."""

    path: str
    size: int
    rows: int
    partition: dict[str, str]
    first: int
    last: int
    low: int
    high: int


@dataclass
class Change:
    """What a commit does: files to add and to remove, and what became of rows, by unit number."""

    runs: list[Run]
    removed: list[Stored] = field(default_factory=list)
    kept: list[Run] = field(default_factory=list)
    unchanged: dict[int, int] = field(default_factory=dict)
    superseded: dict[int, int] = field(default_factory=dict)
    doubtful: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


def commit(lake: Lake, writer: LakeWriter, work: Work, receipts: Sequence[Receipt]) -> list[Receipt]:
    """Commit under the table's lock; look again when somebody else's commit came between."""
    lake.step("lock")
    with locked(lake.lock_path(work.schema.table)):
        lake.take_origin(work.origin)
        for _ in range(_TRIES):
            try:
                return _commit(lake, writer, work, receipts)
            except CommitFailedError:
                continue
    raise StoreError(
        f"the lake {lake.root} is too busy: {_TRIES} other commits came between", "Run the same command again."
    )


def _commit(lake: Lake, writer: LakeWriter, work: Work, receipts: Sequence[Receipt]) -> list[Receipt]:
    lake.step("look")
    table = lake.delta(work.schema)
    _refuse_known(table, work)
    change = _change(lake, writer, work, live_files(table, work.schema.index_time))
    done = [_judged(r, change, counted) for counted in [_counts(change.runs)] for r in receipts]
    lake.step("pack")
    payload = _payload(lake, writer, work, done, change)
    return _put(lake, writer, work, table, change, payload, done)


def record(lake: Lake, writer: LakeWriter, work: Work, receipts: Sequence[Receipt]) -> None:
    """A commit of receipts without rows: units that failed, with a sample of their rejects."""
    with locked(lake.lock_path(work.schema.table)):
        lake.take_origin(work.origin)
        for _ in range(_TRIES):
            table = lake.delta(work.schema)
            change = Change([])
            payload = _payload(lake, writer, work, receipts, change)
            try:
                _put(lake, writer, work, table, change, payload, list(receipts))
            except CommitFailedError:
                continue
            return
    raise StoreError(f"the lake {lake.root} is too busy to keep the receipt of a failed unit")


def live_files(table: DeltaTable, index: str) -> list[Stored]:
    """The files of the newest snapshot with the bounds that their add actions carry."""
    actions = pl.DataFrame(table.get_add_actions(flatten=True))
    if not actions.height:
        return []
    partitions = [c for c in actions.columns if c.startswith("partition.")]
    columns = ["path", "size_bytes", "num_records", f"min.{index}", f"max.{index}"]
    ids = ["min.instrument_id", "max.instrument_id"]
    micro = [pl.col(c).to_physical() for c in columns[3:]]
    rows = actions.select(*columns[:3], *micro, *ids, *(pl.col(c).cast(pl.String) for c in partitions)).rows()
    names = [c.removeprefix("partition.") for c in partitions]
    return [Stored(r[0], r[1], r[2], dict(zip(names, r[7:], strict=True)), *r[3:7]) for r in rows]


def _refuse_known(table: DeltaTable, work: Work) -> None:
    for number, unit in work.units.items():
        known = table.transaction_version(f"unit:{unit.id}")
        if known is not None and known >= number:
            raise StoreError(
                f"unit {number} ({unit.symbol or 'unmapped'}, {unit.window}) was committed by another process",
                "Run the same command again: what is stored already is left alone.",
            )


def _change(lake: Lake, writer: LakeWriter, work: Work, files: list[Stored]) -> Change:
    scope = Scope(lake, work)
    if work.fragment:
        _refuse_covered(lake, writer, work)
    old = [f for f in _candidates(lake, writer, work, files, scope)]
    change = Change(runs=[r for r in writer.runs if r.date not in {f.partition["_date"] for f in old}])
    for date in sorted({f.partition["_date"] for f in old}):
        lake.step("compare")
        here = [f for f in old if f.partition["_date"] == date]
        runs = [r for r in writer.runs if r.date == date]
        _compare_date(lake, writer, work, scope, change, here, runs)
    return change


class Scope:
    """Which stored rows a commit may replace."""

    def __init__(self, lake: Lake, work: Work) -> None:
        self.fragment = work.fragment
        frame = work.scope
        self._intervals = Intervals(frame)
        self._units = frame["unit"].to_numpy()
        self.bounds = (
            (frame["start"].min(), frame["end"].max(), frame["instrument_id"].min(), frame["instrument_id"].max())
            if frame.height else None
        )  # fmt: skip
        ids = [u.id for u in work.units.values()]
        self._own = lake.ledger().filter(pl.col("unit_id").is_in(ids))["unit"].to_numpy()
        self._number = next(iter(work.units))

    def owner(self, rows: pl.DataFrame, index: str) -> Array:
        """For each stored row the unit number that may replace it, or -1."""
        if self.fragment:
            return np.where(np.isin(rows["_unit"].to_numpy(), self._own), self._number, -1)
        instants = (rows[index].to_physical() * 1000 + rows[f"{index}_ns"].cast(pl.Int64)).to_numpy()
        at = self._intervals.find(rows["instrument_id"].to_numpy(), instants)
        return np.where(at >= 0, self._units[at] if len(self._units) else -1, -1)


def _candidates(lake: Lake, writer: LakeWriter, work: Work, files: list[Stored], scope: Scope) -> list[Stored]:
    """The live files that hold rows in the scope (for a fragment: rows beside its own)."""
    index = work.schema.index_time
    want = {"dataset": work.dataset, **work.name.constants}
    bounds = scope.bounds
    if work.fragment and writer.runs:
        runs = writer.runs
        bounds = (
            min(r.first for r in runs) * 1000, max(r.last for r in runs) * 1000 + 1000,
            min(r.low for r in runs), max(r.high for r in runs),
        )  # fmt: skip
    if bounds is None:
        return []
    start, end, low, high = bounds
    near = [
        f for f in files
        if all(f.partition[k] == v for k, v in want.items())
        and f.last * 1000 + 999 >= start and f.first * 1000 < end and f.high >= low and f.low <= high
    ]  # fmt: skip
    if work.fragment:
        return near
    columns = ["instrument_id", index, f"{index}_ns"]
    root = lake.root / work.schema.table
    return [
        f for f in near if (scope.owner(pl.read_parquet(root / f.path, columns=columns), index) >= 0).any()
    ]  # fmt: skip


def _refuse_covered(lake: Lake, writer: LakeWriter, work: Work) -> None:
    """A fragment may not add rows where a complete unit has answered already."""
    unit = next(iter(work.units.values()))
    complete = lake.coverage().filter(
        pl.col("dataset") == unit.dataset, pl.col("schema") == unit.schema, pl.col("instrument_id").is_not_null()
    )
    if not complete.height:
        return
    covered = Intervals(complete)
    index = work.schema.index_time
    for run in writer.runs:
        rows = pl.read_parquet(run.path, columns=["instrument_id", index, f"{index}_ns"])
        instants = (rows[index].to_physical() * 1000 + rows[f"{index}_ns"].cast(pl.Int64)).to_numpy()
        at = covered.find(rows["instrument_id"].to_numpy(), instants)
        if (at >= 0).any():
            first = int((at >= 0).argmax())
            raise FragmentRefused(
                f"the file is a fragment, and a complete unit ({complete['symbol'][int(at[first])]}) holds "
                f"instrument {rows['instrument_id'][first]} at {iso_ns(int(instants[first]))} already",
                "Nothing of it was stored; what is stored there is complete.",
            )


def _compare_date(
    lake: Lake, writer: LakeWriter, work: Work, scope: Scope, change: Change, old: list[Stored], runs: list[Run]
) -> None:
    """Compare one partition, slab by slab, and rewrite the files of both sides that change."""
    index = work.schema.index_time
    root = lake.root / work.schema.table
    old_paths, new_paths = [root / f.path for f in old], [r.path for r in runs]
    gone: dict[int, list[Array]] = {}
    same: dict[int, list[Array]] = {}
    for low, high in slabs([*old_paths, *new_paths], index, _SLAB_ROWS):
        stored, fresh = _slab(old_paths, index, low, high), _slab(new_paths, index, low, high)
        owner = scope.owner(stored, index)
        equal_old, equal_new, doubtful = _equal(stored, fresh, owner >= 0, index, whole=work.fragment)
        change.doubtful += doubtful
        replaced = (owner >= 0) & ~equal_old
        _tally(change.superseded, owner[replaced])
        _tally(change.unchanged, fresh["_unit"].to_numpy()[equal_new])
        if replaced.any():
            _keep_history(lake, writer, work, change, old, stored, replaced, owner)
        _positions(gone, stored.filter(pl.Series(replaced)))
        _positions(same, fresh.filter(pl.Series(equal_new)))
    lake.step("rewrite")
    for k, file in enumerate(old):
        if k in gone:
            change.removed.append(file)
            change.kept += _rewrite(writer, old_paths[k], index, file.partition["_date"], gone[k])
    for k, run in enumerate(runs):
        change.runs += [run] if k not in same else _rewrite(writer, run.path, index, run.date, same[k])


def slabs(paths: Sequence[Path], index: str, limit: int) -> list[tuple[int, int]]:
    """Half-open stretches of microseconds that hold at most ``limit`` rows each (more only in one minute)."""
    if not paths:
        return []
    minutes = (
        pl.scan_parquet(list(paths), hive_partitioning=False, missing_columns="insert", extra_columns="ignore")
        .select(minute=pl.col(index).to_physical() // 60_000_000)
        .group_by("minute").len().sort("minute").collect(engine="streaming")
    )  # fmt: skip
    cut, start, held = [], int(minutes["minute"][0]), 0
    for minute, rows in minutes.iter_rows():
        if held and held + rows > limit:
            cut.append((start * 60_000_000, minute * 60_000_000))
            start, held = minute, 0
        held += rows
    cut.append((start * 60_000_000, (int(minutes["minute"][-1]) + 1) * 60_000_000))
    return cut


def _slab(paths: Sequence[Path], index: str, low: int, high: int) -> pl.DataFrame:
    frames = [
        pl.scan_parquet(path, hive_partitioning=False)
        .with_row_index("_at")
        .filter(pl.col(index).to_physical().is_between(low, high, closed="left"))
        .with_columns(_file=pl.lit(k, pl.Int32))
        for k, path in enumerate(paths)
    ]
    if not frames:
        return pl.DataFrame({index: [], f"{index}_ns": [], "instrument_id": [], "_unit": [], "_file": [], "_at": []})
    return pl.concat(frames).collect()


def _equal(
    stored: pl.DataFrame, fresh: pl.DataFrame, mine: Array, index: str, *, whole: bool
) -> tuple[Array, Array, int]:
    """(stored rows that stay, new rows that are there already, rows of groups that differ elsewhere).

    ``mine`` marks the stored rows in the scope; ``whole`` compares with the other rows too (fragments).
    """
    nothing = np.zeros(stored.height, dtype=bool), np.zeros(fresh.height, dtype=bool), 0
    if not stored.height or not fresh.height:
        return nothing
    key = [index, f"{index}_ns", "publisher_id", "instrument_id"]
    content = [c for c in fresh.columns if c not in ("_unit", "_row", "_at", "_file", "symbol")]
    old = _numbered(stored.with_columns(_mine=pl.Series(mine)), key)
    if not whole:
        old = old.filter("_mine")
    new = _numbered(fresh, key)
    matched = new.join(old.select(*content, "_nth"), on=[*content, "_nth"], how="semi", nulls_equal=True)
    sizes = (
        new.group_by(key).len("new")
        .join(old.group_by(key).len("old"), on=key)
        .join(matched.group_by(key).len("both"), on=key, how="left")
    )  # fmt: skip
    equal = sizes.filter((pl.col("new") == pl.col("old")) & (pl.col("old") == pl.col("both"))).select(key)
    stays = np.zeros(stored.height, dtype=bool)
    there = np.zeros(fresh.height, dtype=bool)
    stays[old.join(equal, on=key, how="semi")["_in"].to_numpy()] = True
    there[new.join(equal, on=key, how="semi")["_in"].to_numpy()] = True
    differ = sizes.join(equal, on=key, how="anti").select(key)
    doubtful = old.filter(~pl.col("_mine")).join(differ, on=key, how="semi").height if whole else 0
    return stays, there, doubtful


def _numbered(frame: pl.DataFrame, key: list[str]) -> pl.DataFrame:
    """Rows with their place in the frame and their ordinal inside their group."""
    return (
        frame.with_row_index("_in")
        .sort(*key, "_unit", "_row", maintain_order=True)
        .with_columns(_nth=pl.int_range(pl.len()).over(key))
    )


def _tally(counts: dict[int, int], units: Array) -> None:
    for unit, rows in zip(*np.unique(units, return_counts=True), strict=True):
        counts[int(unit)] = counts.get(int(unit), 0) + int(rows)


def _positions(into: dict[int, list[Array]], rows: pl.DataFrame) -> None:
    for (file,), part in rows.group_by("_file"):
        into.setdefault(int(file), []).append(part["_at"].to_numpy())  # type: ignore[call-overload]


def _rewrite(writer: LakeWriter, path: Path, index: str, date: str, drop: list[Array]) -> list[Run]:
    """The file without those rows, as a new run; nothing when no row is left."""
    frame = pl.read_parquet(path, hive_partitioning=False)
    keep = np.ones(frame.height, dtype=bool)
    keep[np.concatenate(drop)] = False
    frame = frame.filter(pl.Series(keep))
    if not frame.height:
        return []
    target = writer.folder / f"rewritten-{os.urandom(6).hex()}.parquet"
    return [write_run(arranged(frame, index), index, date, target)]


def _keep_history(
    lake: Lake, writer: LakeWriter, work: Work, change: Change, old: list[Stored],
    stored: pl.DataFrame, replaced: Array, owner: Array,
) -> None:  # fmt: skip
    runs = lake.ledger().select("unit", pl.col("run").alias("_written_run")).unique("unit", keep="last")
    values = old[0].partition
    frame = (
        stored.with_columns(_replaced_unit=pl.Series(owner, dtype=pl.Int32))
        .filter(pl.Series(replaced))
        .with_columns(pl.lit(values[c]).alias(c) for c in work.schema.partition)
        .join(runs, left_on="_unit", right_on="unit", how="left")
        .with_columns(_replaced_run=pl.lit(work.run), _replaced_at=pl.lit(time.time_ns()))
        .select(pl.col(c).cast(t) for c, t in lake.history_dtypes(work.schema).items())
    )
    path = writer.folder / f"history-{os.urandom(6).hex()}.parquet"
    frame.write_parquet(path, **PARQUET)
    sync(path)
    change.history.append(side_file(path, f"{writer.attempt}-{path.name}", frame.height))


def _counts(runs: list[Run]) -> dict[int, int]:
    """Rows by unit number, read back from the files that will be committed."""
    counts: dict[int, int] = {}
    for run in runs:
        _tally(counts, pl.read_parquet(run.path, columns=["_unit"])["_unit"].to_numpy())
    return counts


def _judged(receipt: Receipt, change: Change, counted: dict[int, int]) -> Receipt:
    """The receipt as the store has it; StoreError when rows went missing on the way."""
    unchanged = change.unchanged.get(receipt.number, 0)
    stored = counted.get(receipt.number, 0) + unchanged
    if receipt.fetched != stored + receipt.quarantined:
        raise StoreError(
            f"unit {receipt.number}: {receipt.fetched} rows fetched, but {stored} stored and "
            f"{receipt.quarantined} quarantined",
            "Nothing was committed. This is a fault of hdi: please report it with the log.",
        )
    return replace(
        receipt, stored=stored, unchanged=unchanged, superseded=change.superseded.get(receipt.number, 0),
        committed_at=time.time_ns(),
    )  # fmt: skip


def ledger_row(receipt: Receipt, table: str) -> dict[str, Any]:
    """A receipt as a row of the ledger (:data:`hdi.frames.LEDGER`)."""
    unit, raw = receipt.unit, receipt.raw
    row = {
        **{k: v for k, v in asdict(receipt).items() if k in LEDGER},
        "unit": receipt.number, "unit_id": unit.id, "table": table, "start": unit.window.start,
        "end": unit.window.end, "rules": json.dumps(dict(receipt.rules), sort_keys=True),
        "raw_file": raw.path if raw else None, "raw_digest": raw.digest if raw else None,
        "raw_bytes": raw.size if raw else None,
        "dollars": None if receipt.dollars is None else str(receipt.dollars),
        **{k: getattr(unit, k) for k in ("origin", "dataset", "schema", "symbol", "stype")},
    }  # fmt: skip
    return {c: row[c] for c in LEDGER}


def _payload(
    lake: Lake, writer: LakeWriter, work: Work, receipts: Sequence[Receipt], change: Change
) -> dict[str, Any]:
    failed = all(r.status == "failed" for r in receipts)
    payload: dict[str, Any] = {
        "format": 1, "attempt": writer.attempt, "run": work.run,
        "units": [ledger_row(r, work.schema.table) for r in receipts],
    }  # fmt: skip
    if not failed:
        payload["coverage"] = pack(lake.root, work.coverage, "coverage", writer.attempt)
        payload["mappings"] = pack(lake.root, lake.new_mappings(work.mappings), "mappings", writer.attempt)
    if writer.rejects:
        payload["rejects"] = {"files": writer.rejects}
    if change.history:
        payload["history"] = {"files": change.history}
    if change.doubtful:
        payload["doubtful"] = change.doubtful
    return payload


def _put(
    lake: Lake, writer: LakeWriter, work: Work, table: DeltaTable, change: Change,
    payload: dict[str, Any], receipts: list[Receipt],
) -> list[Receipt]:  # fmt: skip
    """Move files in place and commit; whatever fails before the commit is undone."""
    root = lake.root / work.schema.table
    moves, adds = _moves(work, [*change.runs, *change.kept], root, writer.attempt)
    for packed in payload.values():
        if isinstance(packed, dict):
            moves += [(writer.folder / f["staged"], lake.root / f["path"]) for f in packed.get("files", [])]
    guard = f"scope:{work.dataset}/{work.name.name}"
    marks = [Transaction(guard, (table.transaction_version(guard) or 0) + 1)]
    marks += [Transaction(f"unit:{r.unit.id}", r.number) for r in receipts]
    removes = [RemoveAction(f.path, True, time.time_ns() // 1_000_000, f.size, f.partition) for f in change.removed]
    lake.step("intent")
    intent = {"table": work.schema.table, "unit": receipts[0].unit.id, "number": receipts[0].number,
              "files": [str(to.relative_to(lake.root)) for _, to in moves]}  # fmt: skip
    write_text(writer.folder / "intent.json", json.dumps(intent))
    try:
        lake.step("move")
        for source, target in moves:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, target)
        for folder in {target.parent for _, target in moves}:
            sync(folder)
        lake.step("commit")
        table.create_write_transaction(
            [*adds, *removes], "append", lake.delta_schema(work.schema), [*work.schema.partition, "_date"],
            commit_properties=CommitProperties(
                custom_metadata={"hdi": payload}, app_transactions=marks, max_commit_retries=0
            ),
        )  # fmt: skip
    except BaseException:
        lake.undo(intent)
        raise
    sync(root / "_delta_log")
    lake.warn_doubtful(change.doubtful)
    return receipts


def _moves(work: Work, runs: list[Run], root: Path, attempt: str) -> tuple[list[tuple[Path, Path]], list[AddAction]]:
    """(from, to) of each run, and its add action."""
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
        adds.append(AddAction(path, run.path.stat().st_size, partition, 0, True, json.dumps(stats)))
        moves.append((run.path, root / path))
    return moves, adds


def _stamp(micro: int) -> str:
    seconds, rest = divmod(micro, 1_000_000)
    return f"{iso_ns(seconds * 1_000_000_000)[:-1]}.{rest:06d}Z"

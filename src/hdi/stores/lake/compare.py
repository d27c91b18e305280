"""What a commit changes: rows in the scope that are equal to the new ones stay as they are.

Equality is judged by groups of rows that share index time, publisher and instrument, in their order:
inside a group order is the only thing that tells equal trades apart, across groups the key does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import polars as pl

from hdi.errors import FragmentRefused
from hdi.late import Array, np
from hdi.model import iso_ns
from hdi.raw import sync
from hdi.stores.lake.files import PARQUET
from hdi.stores.lake.packed import side_file
from hdi.stores.lake.write import LakeWriter, Run, arranged, write_run
from hdi.symbology import Intervals

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from hdi.schema import Schema
    from hdi.stores import Work
    from hdi.stores.lake import Lake

#: Memory of the rows, of each side, that are compared at once when stored rows are replaced.
_SLAB_BYTES = 48 << 20
_MILLI = 1_000
_WIDTHS = {pl.String: 32, pl.Decimal: 16, pl.Int32: 4, pl.Int16: 2, pl.Boolean: 1}


@dataclass(frozen=True)
class Stored:
    """A live file of the table: path relative to the table, size, partition values, bounds."""

    path: str
    size: int
    rows: int
    first: int
    last: int
    low: int
    high: int
    partition: dict[str, str]


@dataclass
class Change:
    """What a commit does: files to add and to remove, and what became of rows, by unit number.

    ``moved`` where the rows are the same as before in other files.
    """

    runs: list[Run]
    removed: list[Stored] = field(default_factory=list)
    kept: list[Run] = field(default_factory=list)
    unchanged: dict[int, int] = field(default_factory=dict)
    superseded: dict[int, int] = field(default_factory=dict)
    doubtful: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    moved: bool = False


@dataclass(frozen=True)
class Attempt:
    """Who commits what: the lake, what was staged, and what it is about."""

    lake: Lake
    writer: LakeWriter
    work: Work

    @property
    def root(self) -> Path:
        """The folder of the table."""
        return self.lake.root / self.work.schema.table


def live_files(table: DeltaTable, index: str) -> list[Stored]:
    """The files of the newest snapshot with the bounds that their add actions carry.

    Other engines, which may have compacted the table, cut times to milliseconds, or leave bounds out: the last instant
    of a file may be taken for later than it is, and never for earlier.
    """
    actions = pl.DataFrame(table.get_add_actions(flatten=True))
    if not actions.height:
        return []
    partitions = [c for c in actions.columns if c.startswith("partition.")]
    first, last = f"min.{index}", f"max.{index}"
    bounds = [first, last, "min.instrument_id", "max.instrument_id"]
    told = actions.with_columns(
        pl.lit(None, pl.Int64).alias(c) for c in ("num_records", *bounds) if c not in actions.columns
    ).with_columns(pl.col(first).to_physical(), pl.col(last).to_physical())
    whole = pl.when(pl.col(last) % _MILLI == 0).then(pl.col(last) + _MILLI - 1).otherwise(last)
    texts = (pl.col(c).cast(pl.String) for c in partitions)
    rows = told.select("path", "size_bytes", "num_records", first, whole, *bounds[2:], *texts).rows()
    names = [c.removeprefix("partition.") for c in partitions]
    root = Path(unquote(table.table_uri.removeprefix("file://")))
    return [
        Stored(r[0], r[1], *_bounded(root / r[0], index, r[2:7]), partition=dict(zip(names, r[7:], strict=True)))
        for r in rows
    ]


def _bounded(path: Path, index: str, told: tuple[Any, ...]) -> tuple[int, int, int, int, int]:
    """Rows, first and last instant, lowest and highest instrument of a file, looked up where they are not told."""
    if None in told:
        who = pl.col("instrument_id")
        at = pl.col(index).to_physical()
        scan = pl.scan_parquet(path, hive_partitioning=False)
        told = scan.select(n=pl.len(), a=at.min(), b=at.max(), c=who.min(), d=who.max()).collect().row(0)
    rows, first, last, low, high = told
    return rows, first, last, low, high


def compared(attempt: Attempt, files: list[Stored]) -> Change:
    """What the rows of an attempt change in a table that consists of these files."""
    runs = attempt.writer.runs
    scope = Scope(attempt.lake, attempt.work)
    if attempt.work.fragment:
        _refuse_covered(attempt)
    old = _candidates(attempt, files, scope)
    change = Change(runs=[r for r in runs if r.date not in {f.partition["_date"] for f in old}])
    for date in sorted({f.partition["_date"] for f in old}):
        attempt.lake.step("compare")
        here = [f for f in old if f.partition["_date"] == date]
        _compare_date(attempt, scope, change, here, [r for r in runs if r.date == date])
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

    def owns_in(self, path: Path) -> bool:
        """True when a file holds rows of the units themselves."""
        return bool(len(self._own)) and bool(
            np.isin(pl.read_parquet(path, columns=["_unit"])["_unit"], self._own).any()
        )

    def owner(self, rows: pl.DataFrame, index: str) -> Array:
        """For each stored row the unit number that may replace it, or -1."""
        if self.fragment:
            return np.where(np.isin(rows["_unit"].to_numpy(), self._own), self._number, -1)
        instants = _instants(rows, index)
        at = self._intervals.find(rows["instrument_id"].to_numpy(), instants)
        return np.where(at >= 0, self._units[at] if len(self._units) else -1, -1)


def _candidates(attempt: Attempt, files: list[Stored], scope: Scope) -> list[Stored]:
    """The live files that hold rows in the scope (for a fragment: rows beside its own)."""
    work, root, runs = attempt.work, attempt.root, attempt.writer.runs
    index = work.schema.index_time
    want = {"dataset": work.dataset, **work.name.constants}
    here = [f for f in files if all(f.partition[k] == v for k, v in want.items())]
    bounds = scope.bounds
    if work.fragment and runs:
        bounds = (
            min(r.first for r in runs) * 1000, max(r.last for r in runs) * 1000 + 1000,
            min(r.low for r in runs), max(r.high for r in runs),
        )  # fmt: skip
    start, end, low, high = (int(v) for v in bounds or (0, 0, 0, 0))  # type: ignore[arg-type]  # Polars' minima
    near = [
        f for f in here
        if f.last * 1000 + 999 >= start and f.first * 1000 < end and f.high >= low and f.low <= high
    ]  # fmt: skip
    if work.fragment:
        # Other rules may leave other rows of the same bytes: those stored before are looked for everywhere.
        return [f for f in here if f in near or scope.owns_in(root / f.path)]
    columns = ["instrument_id", index, f"{index}_ns"]
    return [
        f for f in near if (scope.owner(pl.read_parquet(root / f.path, columns=columns), index) >= 0).any()
    ]  # fmt: skip


def _refuse_covered(attempt: Attempt) -> None:
    """A fragment may not add rows where a complete unit has answered already."""
    unit = next(iter(attempt.work.units.values()))
    complete = attempt.lake.coverage().filter(
        pl.col("dataset") == unit.dataset, pl.col("schema") == unit.schema, pl.col("instrument_id").is_not_null()
    )
    if not complete.height:
        return
    covered = Intervals(complete)
    index = attempt.work.schema.index_time
    held: list[tuple[int, int, int]] = []
    for run in attempt.writer.runs:
        rows = pl.read_parquet(run.path, columns=["instrument_id", index, f"{index}_ns"])
        ids, instants = rows["instrument_id"].to_numpy(), _instants(rows, index)
        at = covered.find(ids, instants)
        if (at >= 0).any():
            first = np.lexsort((ids, instants, at < 0))[0]
            held.append((int(instants[first]), int(ids[first]), int(at[first])))
    if held:
        instant, instrument, claim = min(held)
        raise FragmentRefused(
            f"the file is a fragment, and a complete unit ({complete['symbol'][claim]}) holds instrument {instrument} "
            f"at {iso_ns(instant)} already",
            "Nothing of it was stored; what is stored there is complete.",
        )


def _compare_date(attempt: Attempt, scope: Scope, change: Change, old: list[Stored], runs: list[Run]) -> None:
    """Compare one partition, slab by slab, and rewrite the files of both sides that change."""
    work, writer = attempt.work, attempt.writer
    index = work.schema.index_time
    old_paths, new_paths = [attempt.root / f.path for f in old], [r.path for r in runs]
    gone: dict[int, list[Array]] = {}
    same: dict[int, list[Array]] = {}
    limit = _SLAB_BYTES // row_bytes(work.schema)
    for piece in _pieces([*old_paths, *new_paths], index, limit):
        stored, fresh = (_slab(paths, work.schema, piece) for paths in (old_paths, new_paths))
        owner = scope.owner(stored, index)
        equal_old, equal_new, doubtful = _equal(stored, fresh, owner >= 0, index, whole=work.fragment)
        change.doubtful += doubtful
        replaced = (owner >= 0) & ~equal_old
        tally(change.superseded, owner[replaced])
        tally(change.unchanged, fresh["_unit"].to_numpy()[equal_new])
        if replaced.any():
            rows = stored.with_columns(_replaced_unit=pl.Series(owner, dtype=pl.Int32)).filter(pl.Series(replaced))
            change.history.append(_history(attempt, rows, old[0].partition))
        _positions(gone, stored.filter(pl.Series(replaced)))
        _positions(same, fresh.filter(pl.Series(equal_new)))
    attempt.lake.step("rewrite")
    for k, file in enumerate(old):
        if k in gone:
            change.removed.append(file)
            change.kept += _rewrite(writer, old_paths[k], index, file.partition["_date"], gone[k])
    for k, run in enumerate(runs):
        change.runs += [run] if k not in same else _rewrite(writer, run.path, index, run.date, same[k])


def _instants(rows: pl.DataFrame, index: str) -> Array:
    """The index times of stored rows, nanoseconds UTC."""
    return (rows[index].to_physical() * 1000 + rows[f"{index}_ns"].cast(pl.Int64)).to_numpy()


def row_bytes(schema: Schema) -> int:
    """About how many bytes of memory a stored row takes."""
    return sum(_WIDTHS.get(kind.base_type(), 8) for kind in schema.stored.values())


def scan_run(path: Path, schema: Schema) -> pl.LazyFrame:
    """A run as its kind is declared today: columns that were added since it was written are null."""
    columns = {name: kind for name, kind in schema.stored.items() if name not in schema.partition}
    return pl.scan_parquet(
        path, hive_partitioning=False, schema=columns, missing_columns="insert", extra_columns="ignore"
    )


def slabs(paths: Sequence[Path], index: str, limit: int) -> list[tuple[int, int, int]]:
    """Half-open stretches of microseconds with their rows, at most ``limit`` each (more only in one minute)."""
    if not paths:
        return []
    minutes = (
        pl.concat(pl.scan_parquet(p, hive_partitioning=False).select(index) for p in paths)
        .select(minute=pl.col(index).to_physical() // 60_000_000)
        .group_by("minute").len().sort("minute").collect(engine="streaming")
    )  # fmt: skip
    cut, start, held = [], int(minutes["minute"][0]), 0
    for minute, rows in minutes.iter_rows():
        if held and held + rows > limit:
            cut.append((start * 60_000_000, minute * 60_000_000, held))
            start, held = minute, 0
        held += rows
    cut.append((start * 60_000_000, (int(minutes["minute"][-1]) + 1) * 60_000_000, held))
    return cut


def _pieces(paths: Sequence[Path], index: str, limit: int) -> Iterator[pl.Expr]:
    """Filters that cut the rows of the files into pieces of about ``limit``; no group of equal key is cut."""
    for low, high, rows in slabs(paths, index, limit):
        within = pl.col(index).to_physical().is_between(low, high, closed="left")
        if rows <= 2 * limit:
            yield within
            continue
        # A snapshot has all its rows in one instant: it is cut by instrument.
        ids = (
            pl.concat(
                pl.scan_parquet(p, hive_partitioning=False).filter(within).select("instrument_id") for p in paths
            )
            .group_by("instrument_id").len().sort("instrument_id").collect(engine="streaming")
        )  # fmt: skip
        for (_,), part in ids.group_by(pl.col("len").cum_sum() // limit, maintain_order=True):
            first, last = part["instrument_id"][0], part["instrument_id"][-1]
            yield within & pl.col("instrument_id").is_between(first, last)


def _slab(paths: Sequence[Path], schema: Schema, piece: pl.Expr) -> pl.DataFrame:
    frames = [
        scan_run(path, schema).with_row_index("_at").filter(piece).with_columns(_file=pl.lit(k, pl.Int32))
        for k, path in enumerate(paths)
    ]
    if not frames:
        columns = {n: t for n, t in schema.stored.items() if n not in schema.partition}
        return pl.DataFrame(schema={**columns, "_file": pl.Int32(), "_at": pl.UInt32()})
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
    if old.height == new.height and old.select(key).equals(new.select(key)):
        return _equal_in_place(old, new, (stored.height, fresh.height), key, content)
    matched = new.join(old.select(*content, "_nth", _symbol="symbol"), on=[*content, "_nth"], nulls_equal=True).filter(
        pl.col("symbol").eq(pl.col("_symbol")).fill_null(value=True)
    )  # a name that was not known is no change
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


def _equal_in_place(
    old: pl.DataFrame, new: pl.DataFrame, heights: tuple[int, int], key: list[str], content: list[str]
) -> tuple[Array, Array, int]:
    """What :func:`_equal` gives where both sides have the same keys in the same places: no join is needed."""
    differs = np.zeros(new.height, dtype=bool)
    for column in content:
        differs |= old[column].ne_missing(new[column]).to_numpy()
    differs |= (old["symbol"] != new["symbol"]).fill_null(value=False).to_numpy()
    group = new.select(pl.struct(key).rle_id()).to_series().to_numpy()
    good = ~np.isin(group, np.unique(group[differs]))
    stays, there = (np.zeros(height, dtype=bool) for height in heights)
    stays[old["_in"].to_numpy()[good]] = True
    there[new["_in"].to_numpy()[good]] = True
    strange = (~old["_mine"]).to_numpy() & ~good
    return stays, there, int(strange.sum())


def _numbered(frame: pl.DataFrame, key: list[str]) -> pl.DataFrame:
    """Rows with their place in the frame and their ordinal inside their group."""
    return (
        frame.with_row_index("_in")
        .sort(*key, "_unit", "_row", maintain_order=True)
        .with_columns(_nth=pl.int_range(pl.len()).over(key))
    )


def tally(counts: dict[int, int], units: Array) -> None:
    """Add how often each unit number occurs."""
    for unit, rows in zip(*np.unique(units, return_counts=True), strict=True):
        counts[int(unit)] = counts.get(int(unit), 0) + int(rows)


def _positions(into: dict[int, list[Array]], rows: pl.DataFrame) -> None:
    for (file,), part in rows.group_by("_file"):
        into.setdefault(int(str(file)), []).append(part["_at"].to_numpy())


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


def _history(attempt: Attempt, rows: pl.DataFrame, partition: Mapping[str, str]) -> dict[str, Any]:
    """Superseded rows as a side file, with the runs that wrote and that replace them."""
    work, writer = attempt.work, attempt.writer
    runs = attempt.lake.ledger().select("unit", pl.col("run").alias("_written_run")).unique("unit", keep="last")
    frame = (
        rows.with_columns(pl.lit(partition[c]).alias(c) for c in work.schema.partition)
        .join(runs, left_on="_unit", right_on="unit", how="left")
        .with_columns(_replaced_run=pl.lit(work.run), _replaced_at=pl.lit(time.time_ns()))
        .select(pl.col(c).cast(t) for c, t in work.schema.history.items())
    )
    path = writer.folder / f"history-{os.urandom(6).hex()}.parquet"
    frame.write_parquet(path, **PARQUET)
    sync(path)
    return side_file(path, f"{writer.attempt}-{path.name}", frame.height)

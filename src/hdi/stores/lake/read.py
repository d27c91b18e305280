"""Reading a lake: rows in order, in frames of bounded size, whatever the size of the answer.

Files are grouped into clusters that overlap in time; a cluster that is too large is read in slabs of
time. Window, instruments and columns are pushed down to files, row groups and pages.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache, partial
from itertools import groupby
from typing import TYPE_CHECKING, TypeVar

import polars as pl

from hdi.schema import PLACE
from hdi.stores.ahead import ahead
from hdi.stores.held import Held, counted, summed
from hdi.stores.lake.compare import Stored, scan_run, slabs
from hdi.stores.lake.files import readable, restoring

Out = TypeVar("Out")
if TYPE_CHECKING:
    from pathlib import Path

    from hdi.late import Array
    from hdi.model import Window
    from hdi.schema import Schema
    from hdi.stores.lake import Lake

#: Rows sorted at once, or counted.
_READ_ROWS = 1 << 20
#: Rows of a slab that is read while another is looked at: a run, or small ones together. What is done to all rows one
#: by one is done to half of what the caches hold no more of at twice as many.
_SLAB_ROWS = 1 << 19
#: Rows of small clusters that an ordered read begins with, and how many values, of all columns, it reads at once later.
_FIRST_ROWS, _VALUES = 1 << 16, 1 << 23
#: So few rows are sorted as soon as looked at.
_FEW = 1 << 13
#: Runs of which it is remembered how they begin and end.
_EDGES = 1 << 14
#: The files of this program, by name: in them rows lie by instrument, index time and place.
_RUN = re.compile(r"(?:^|/)([0-9a-f]{32})-(\d{5,})\.parquet$")


class Scan:
    """One read of one table at one snapshot."""

    def __init__(  # noqa: PLR0913  (what Store.read is given, and what for)
        self, lake: Lake, schema: Schema, name: str, window: Window, instruments: pl.DataFrame | None,
        columns: Sequence[str], *, ordered: bool = True,
    ) -> None:  # fmt: skip
        self._given = (lake, schema, name, window, instruments)
        self._root = lake.root / schema.table
        self._schema = schema
        self._constants = dict(schema.names[name].constants)
        self._columns = list(columns)
        index = schema.index_time
        self._low, self._high = window.start // 1000, -(-window.end // 1000)
        self._held = Held(window, instruments)
        self._ids = self._held.ids
        self._ordered = ordered
        self._needed = ("dataset", "instrument_id", index) if self._held.by_time else (index,)
        shape = schema.shape((*columns, *(schema.order if ordered else self._needed)))
        self._stored = [c for c in shape.stored if c not in schema.partition]
        self._public = dict(zip(shape.names, shape.made, strict=True))
        self._index = index

    @property
    def stored(self) -> tuple[str, ...]:
        """The columns of the files that are read."""
        return tuple(self._stored)

    def files(self, live: Sequence[Stored], dataset: str | None) -> tuple[int, int]:
        """How many files are read, and of how many of the table."""
        return sum(self._near(f, dataset) for f in live), len(live)

    def frames(self, live: Sequence[Stored], dataset: str | None) -> Iterator[pl.DataFrame]:
        """The rows in order."""
        most = min(_SLAB_ROWS, _VALUES // len(self._stored))
        gathered = self._gathered(live, dataset, most, first=_FIRST_ROWS)
        for large, lots in groupby(gathered, key=lambda clusters: _rows(clusters) > most):
            if large:  # one cluster each; what is in memory of it is one slab
                yield from (frame for (files,) in lots for part in self._parts(files) for frame in self._slab(*part))
                continue
            for frames in ahead(self._lot, lots):
                yield from frames

    def _lot(self, clusters: list[list[Stored]]) -> list[pl.DataFrame]:
        """The rows of small clusters that follow each other, in order: one frame, or none."""
        return list(self._slab([f for files in clusters for f in files], self._low, self._high))

    def slabs(self, live: Sequence[Stored], dataset: str | None, each: Callable[[pl.DataFrame], Out]) -> Iterator[Out]:
        """``each`` of the rows of each publisher and instrument in order, slabs of time in order.

        They are sorted only where it is needed, and read, as ``each`` is called, in a few threads.
        """

        def worked(read: Callable[[], Iterator[pl.DataFrame]]) -> list[Out]:
            return [each(rows) for rows in read()]

        # Who looks at them works for as long as reading one takes.
        for found in ahead(worked, self._reads(live, dataset), ready=1):
            yield from found

    def _reads(self, live: Sequence[Stored], dataset: str | None) -> Iterator[Callable[[], Iterator[pl.DataFrame]]]:
        """What gives the slabs, one at the most each."""
        for clusters in self._gathered(live, dataset, _SLAB_ROWS):
            if _rows(clusters) <= _READ_ROWS:
                yield partial(self._together, clusters)
                continue
            whole = Scan(*self._given, self._columns)
            for part in whole._parts(clusters[0]):
                yield partial(whole._slab, *part)

    def _gathered(
        self, live: Sequence[Stored], dataset: str | None, most: int, first: int | None = None
    ) -> Iterator[list[list[Stored]]]:
        """Clusters that follow each other, of ``most`` rows at most together; a larger one by itself.

        ``first``: rows of the first lot; the next has twice as many, and so on, so that who stops early has not read
        much.
        """
        held: list[list[Stored]] = []
        rows, enough = 0, min(first or most, most)
        for cluster in self._clusters(live, dataset):
            size = sum(f.rows for f in cluster)
            if held and rows + size > enough:
                yield held
                held, rows, enough = [], 0, min(2 * enough, most)
            held.append(cluster)
            rows += size
        if held:
            yield held

    def _clusters(self, live: Sequence[Stored], dataset: str | None) -> Iterator[list[Stored]]:
        """The files by time; those that overlap are together."""
        files = [f for f in live if self._near(f, dataset)]
        files.sort(key=lambda f: (f.first, f.last, f.path))
        cluster: list[Stored] = []
        reach = -1
        for file in files:
            if cluster and (file.first > reach or (file.first == reach and self._follows(cluster[-1], file))):
                yield cluster
                cluster, reach = [], -1
            cluster.append(file)
            reach = max(reach, file.last)
        if cluster:
            yield cluster

    def _follows(self, before: Stored, after: Stored) -> bool:
        """True where two runs of one commit meet in a microsecond, and no row of the second precedes the first."""
        one, two = _run_of(before), _run_of(after)
        if one is None or two is None or one[0] != two[0] or one[1] >= two[1] or before.last != after.first:
            return False
        last, first = (
            _edges(self._root / f.path, self._index, f.first, f.last)[k] for f, k in ((before, 1), (after, 0))
        )
        # Instruments of one nanosecond have an order among each other, too.
        return last < first or (last == first and not self._ordered)

    def _together(self, clusters: list[list[Stored]]) -> Iterator[pl.DataFrame]:
        """Clusters that follow each other as one frame."""
        parts = []
        for cluster in clusters:
            if len(cluster) == 1 and _run_of(cluster[0]) is not None:
                parts.append(self._scan(cluster[0], self._low, self._high))
                continue
            # Runs that overlap, and files that somebody else has written, lie in no known order.
            whole = Scan(*self._given, self._columns)
            both = pl.concat([whole._scan(f, self._low, self._high) for f in cluster])
            parts.append(both.sort("publisher_id", "instrument_id", self._index, *PLACE))
        columns = [*dict.fromkeys((*self._columns, *self._needed))]
        with self._readable(file for cluster in clusters for file in cluster):
            rows = pl.concat([part.select(columns) for part in parts]).collect()
        rows = self._held.inside(rows, self._index).select(self._columns)
        if rows.height:
            yield rows

    def content(self, live: Sequence[Stored], dataset: str | None, every: int) -> pl.DataFrame:
        """How many rows there are (:data:`hdi.frames.CONTENT`); needs dataset, instrument and index time as columns."""
        files = [f for f in live if self._near(f, dataset)]
        whole, parts = summed([]), []
        for batch in _batches(files):
            with self._readable(batch):
                rows = pl.concat([self._scan(f, self._low, self._high) for f in batch]).collect()
            parts.append(counted(self._held.inside(rows, self._index), self._index, every))
            # Adding up takes as long as what is there: it is done when as much has come again.
            if sum(part.height for part in parts) > max(whole.height, _READ_ROWS):
                whole, parts = summed([whole, *parts]), []
        return summed([whole, *parts]).sort("dataset", "instrument_id", "at")

    def _near(self, file: Stored, dataset: str | None) -> bool:
        here = file.partition["dataset"]
        if dataset is not None and here != dataset:
            return False
        if any(file.partition[k] != v for k, v in self._constants.items()):
            return False
        if file.last < self._low or file.first >= self._high:
            return False
        if self._ids is None:
            return True
        ids = self._ids.get(here)
        return ids is not None and bool(ids.is_between(file.low, file.high).any())

    def _parts(self, files: list[Stored]) -> Iterator[tuple[list[Stored], int, int]]:
        """The files of each slab of a cluster, and from when until when it is."""
        if sum(f.rows for f in files) <= _READ_ROWS:
            yield files, self._low, self._high
            return
        paths = [self._root / f.path for f in files]
        for low, high, _ in slabs(paths, self._index, _READ_ROWS):
            low, high = max(low, self._low), min(high, self._high)  # noqa: PLW2901
            if low < high:
                yield [f for f in files if f.last >= low and f.first < high], low, high

    def _slab(self, files: list[Stored], low: int, high: int) -> Iterator[pl.DataFrame]:
        with self._readable(files):
            told = {name: value for name, value in files[0].partition.items() if name in self._public}
            if all(f.partition[name] == value for f in files for name, value in told.items()):
                # Made of the rows that were found, not in the query: it would take as long to plan as a few of them.
                near = [self._near_rows(f, low, high) for f in files]
                rows = (pl.concat(near) if len(near) > 1 else near[0]).collect().select(self._made(files[0]))
            else:
                rows = pl.concat([self._scan(f, low, high) for f in files]).collect()
        rows = self._held.inside(rows, self._index)
        if not rows.height:
            return
        yield in_order(rows, self._schema.order, self._columns)

    def _readable(self, files: Iterable[Stored]) -> AbstractContextManager[None]:
        """Names the one of them that cannot be read."""
        return readable((self._root / f.path for f in files), restoring(self._root))

    def _scan(self, file: Stored, low: int, high: int) -> pl.LazyFrame:
        return self._near_rows(file, low, high).select(self._made(file))

    def _made(self, file: Stored) -> list[pl.Expr]:
        """The public columns and places, of those that a file has; its folder says the others."""
        told = file.partition
        return [pl.lit(told[name]).alias(name) if name in told else made for name, made in self._public.items()]

    def _near_rows(self, file: Stored, low: int, high: int) -> pl.LazyFrame:
        scan = scan_run(self._root / file.path, self._schema)
        time = pl.col(self._index)
        if file.first < low or file.last >= high:
            zone = pl.Datetime("us", "UTC")
            scan = scan.filter(time >= pl.lit(low).cast(zone), time < pl.lit(high).cast(zone))
        if self._ids is not None:
            ids = self._ids[file.partition["dataset"]]
            if not (len(ids) == 1 and file.low == file.high):
                near = ids.filter(ids.is_between(file.low, file.high))
                same = (
                    pl.col("instrument_id") == near[0]
                    if len(near) == 1
                    else pl.col("instrument_id").is_in(near.implode())
                )
                scan = scan.filter(same)
        return scan.select(self._stored)


def in_order(rows: pl.DataFrame, order: Sequence[str], columns: Sequence[str]) -> pl.DataFrame:
    """Some columns of rows, which are put in ``order``: the first column of it is a time."""
    times = rows[order[0]].cast(pl.Int64)
    if _rising(times):
        return rows[columns]
    if rows.height > _FEW:
        # They lie in a few runs that are in order each: to merge those takes less than to sort by all that decides.
        at = times.to_numpy().argsort(kind="stable")
        if not _falls(rows, order, times.to_numpy()[at], at):
            return rows.select(columns).rechunk()[at]
    return rows.sort(order, maintain_order=True)[columns]


def _rising(times: pl.Series) -> bool:
    """True when each instant is later than the one before: then rows have one order only."""
    return len(times) < 2 or bool((times.slice(1) > times.slice(0, len(times) - 1)).all())  # noqa: PLR2004  (no two)


def _falls(rows: pl.DataFrame, order: Sequence[str], times: Array, at: Array) -> bool:
    """True where rows of one instant, taken as ``at`` says, do not lie in order."""
    (ties,) = (times[1:] == times[:-1]).nonzero()
    for name in order[1:]:
        if not len(ties):
            return False
        before, after = (rows[name].gather(pl.Series(at[ties + k])) for k in (0, 1))
        if before.null_count() or after.null_count() or (after < before).any():
            return True
        ties = ties[(after == before).to_numpy()]
    return False


@lru_cache(maxsize=_EDGES)
def _edges(path: Path, index: str, first: int, last: int) -> tuple[int, int]:
    """Of a run, the least rest of a nanosecond at its first microsecond, and the greatest at its last.

    A run lies by instrument, so all of its times are read for that: once, as it never changes.
    """
    at, rest = pl.col(index).to_physical(), pl.col(f"{index}_ns")
    run = pl.scan_parquet(path, hive_partitioning=False)
    found = run.select(first=rest.filter(at == first).min(), last=rest.filter(at == last).max()).collect()
    low, high = found.row(0)
    return int(low or 0), int(high or 0)


def _rows(clusters: Sequence[Sequence[Stored]]) -> int:
    return sum(f.rows for files in clusters for f in files)


def _run_of(file: Stored) -> tuple[str, int] | None:
    """The commit that wrote a run, and which of its runs it is; None for a file that this program has not written."""
    match = _RUN.search(file.path)
    return None if match is None else (match[1], int(match[2]))


def _batches(files: list[Stored]) -> Iterator[list[Stored]]:
    """The files in lots of about as many rows as are read at once."""
    batch: list[Stored] = []
    rows = 0
    for file in files:
        if batch and rows + file.rows > _READ_ROWS:
            yield batch
            batch, rows = [], 0
        batch.append(file)
        rows += file.rows
    if batch:
        yield batch

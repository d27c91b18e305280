"""Reading a lake: rows in order, in frames of bounded size, whatever the size of the answer.

Files are grouped into clusters that overlap in time; a cluster that is too large is read in slabs of
time. Window, instruments and columns are pushed down to files, row groups and pages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import polars as pl

from hdi.schema import PLACE
from hdi.stores.held import Held, counted, summed
from hdi.stores.lake.compare import Stored, live_files, scan_run, slabs

if TYPE_CHECKING:
    from hdi.model import Window
    from hdi.schema import Schema
    from hdi.stores.lake import Lake

#: Rows sorted at once, or counted.
_READ_ROWS = 1 << 20


class Scan:
    """One read of one table at one snapshot."""

    def __init__(  # noqa: PLR0913  (what Store.read is given, and what for)
        self, lake: Lake, schema: Schema, name: str, window: Window, instruments: pl.DataFrame | None,
        columns: Sequence[str], *, ordered: bool = True,
    ) -> None:  # fmt: skip
        self._root = lake.root / schema.table
        self._schema = schema
        self._constants = dict(schema.names[name].constants)
        self._columns = list(columns)
        index = schema.index_time
        self._low, self._high = window.start // 1000, -(-window.end // 1000)
        self._held = Held(window, instruments)
        self._ids = self._held.ids
        wanted = {*columns, *(schema.order if ordered else ())}
        public = [f for f in schema.fields if f.name in wanted]
        timed = [f.name for f in public if f.type == "timestamp"]
        self._places = [c for c in PLACE if c in wanted]
        self._stored = [f.name for f in public if f.name not in schema.partition]
        self._stored += [f"{t}_ns" for t in timed] + self._places
        self._public = [e for e in schema.to_public() if e.meta.output_name() in {f.name for f in public}]
        self._index = index

    def frames(self, table: object, dataset: str | None) -> Iterator[pl.DataFrame]:
        """The rows in order."""
        files = [f for f in live_files(table, self._index) if self._near(f, dataset)]  # type: ignore[arg-type]
        files.sort(key=lambda f: f.first)
        cluster: list[Stored] = []
        reach = -1
        for file in files:
            if cluster and file.first > reach:
                yield from self._cluster(cluster)
                cluster, reach = [], -1
            cluster.append(file)
            reach = max(reach, file.last)
        if cluster:
            yield from self._cluster(cluster)

    def content(self, table: object, dataset: str | None, every: int) -> pl.DataFrame:
        """How many rows there are (:data:`hdi.frames.CONTENT`); needs dataset, instrument and index time as columns."""
        files = [f for f in live_files(table, self._index) if self._near(f, dataset)]  # type: ignore[arg-type]
        whole, parts = summed([]), []
        for batch in _batches(files):
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

    def _cluster(self, files: list[Stored]) -> Iterator[pl.DataFrame]:
        if sum(f.rows for f in files) <= _READ_ROWS:
            yield from self._slab(files, self._low, self._high)
            return
        paths = [self._root / f.path for f in files]
        for low, high, _ in slabs(paths, self._index, _READ_ROWS):
            low, high = max(low, self._low), min(high, self._high)  # noqa: PLW2901
            if low < high:
                yield from self._slab([f for f in files if f.last >= low and f.first < high], low, high)

    def _slab(self, files: list[Stored], low: int, high: int) -> Iterator[pl.DataFrame]:
        rows = pl.concat([self._scan(f, low, high) for f in files]).collect()
        rows = self._held.inside(rows, self._index)
        if rows.height:
            yield rows.sort(self._schema.order, maintain_order=True).select(self._columns)

    def _scan(self, file: Stored, low: int, high: int) -> pl.LazyFrame:
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
        constant = [pl.lit(file.partition[c]).alias(c) for c in self._schema.partition]
        return scan.select(self._stored).with_columns(constant).select(*self._public, *self._places)


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

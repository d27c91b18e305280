"""One attempt at a commit: rows become sorted Parquet runs in a staging folder that nobody reads.

An attempt holds a lock on its folder while its process lives; whatever a dead one left is swept at the
next start, with the help of ``intent.json``, which names the files it was about to put in place.
"""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import polars as pl

from hdi.errors import DataError
from hdi.frames import REJECTS
from hdi.late import np
from hdi.model import Receipt, cell_end, cell_start, ns_date
from hdi.raw import sync
from hdi.stores.lake.files import PARQUET, guard, own
from hdi.stores.lake.packed import side_file

if TYPE_CHECKING:
    from hdi.stores import Work
    from hdi.stores.lake import Lake

#: A run ends at this many rows, or bytes in memory. Runs bound the memory of writing, of replacing and of
#: ordered reading: while one is sorted and written, the next one fills.
RUN_ROWS = 1 << 20
RUN_BYTES = 24 << 20
#: Partitions of one commit, each of at least one file: random times of a damaged file would make one for each row.
MOST_PARTITIONS = 10_000
_WRITERS = 2
_REJECT_ROWS = 100_000
_EVERY = {"day": "1d", "month": "1mo", "year": "1y"}


@dataclass(frozen=True)
class Run:
    """A staged Parquet file of one partition, and the bounds that its add action will carry."""

    path: Path
    date: str
    rows: int
    first: int
    last: int
    low: int
    high: int


class LakeWriter:
    """Stages rows and rejects; :meth:`finish` hands them to the commit."""

    def __init__(self, lake: Lake, work: Work) -> None:
        self._lake = lake
        self._work = work
        self._index = work.schema.index_time
        self._partition = work.schema.partition
        self._grid = work.name.grid
        self.runs: list[Run] = []
        self.rejects: list[dict[str, Any]] = []
        self._open: dict[int, list[pl.DataFrame]] = {}
        self._dates: set[int] = set()
        self._open_bytes: dict[int, int] = {}
        self._rejected: list[pl.DataFrame] = []
        self._pool = ThreadPoolExecutor(max_workers=_WRITERS, thread_name_prefix="hdi-write")
        self._pending: deque[Future[Run]] = deque()
        self._lock: int | None = None
        self.attempt = ""
        while self._lock is None:
            self.attempt = uuid4().hex
            self.folder = lake.root / "_hdi" / "staging" / self.attempt
            self.folder.mkdir(parents=True, mode=0o700)
            self._lock = own(self.folder / "lock")

    def write(self, rows: pl.DataFrame) -> None:
        """Stage accepted rows; at most about two runs are held in memory."""
        if not rows.height:
            return
        with guard(self._lake.root):
            stored = self._work.schema.to_stored(rows).drop(self._partition)
            for date, part in self._parts(stored):
                self._dates.add(date)
                if len(self._dates) > MOST_PARTITIONS:
                    raise DataError(
                        f"its rows lie in more than {MOST_PARTITIONS} {self._grid}s",
                        "A file of so many is damaged, or has to be cut by time. Nothing of it was stored.",
                    )
                self._open.setdefault(date, []).append(part)
                self._open_bytes[date] = self._open_bytes.get(date, 0) + int(part.estimated_size())
                if self._open_bytes[date] >= RUN_BYTES or sum(p.height for p in self._open[date]) >= RUN_ROWS:
                    self._flush(date)
            while sum(self._open_bytes.values()) > 2 * RUN_BYTES:
                self._flush(max(self._open_bytes, key=lambda d: self._open_bytes[d]))

    def reject(self, rows: pl.DataFrame) -> None:
        """Stage rejected rows."""
        if not rows.height:
            return
        self._rejected.append(rows.select(pl.col(c).cast(t) for c, t in REJECTS.items()))
        if sum(r.height for r in self._rejected) >= _REJECT_ROWS:
            with guard(self._lake.root):
                self._flush_rejects()

    def finish(self, work: Work, receipts: Sequence[Receipt]) -> list[Receipt]:
        """Commit what was staged; see :meth:`hdi.stores.Writer.finish`."""
        from hdi.stores.lake.commit import commit

        with guard(self._lake.root):
            self.flush()
            return commit(self._lake, self, work, receipts)

    def flush(self) -> None:
        """Write all that is staged to files."""
        self._lake.step("flush")
        for date in list(self._open):
            self._flush(date)
        self._collect()
        self.keep_rejects()

    def keep_rejects(self) -> None:
        """Write the rejects staged so far."""
        if self._rejected:
            self._flush_rejects()

    def discard(self) -> None:
        """Give up the attempt (or clear up after it): its folder goes away.

        An intent that is still there says that files could not be taken back: a sweep will try again.
        """
        self._pool.shutdown(wait=True, cancel_futures=True)
        if not (self.folder / "intent.json").exists():
            shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _parts(self, stored: pl.DataFrame) -> list[tuple[int, pl.DataFrame]]:
        """The rows by grid cell (its start in nanoseconds). A batch mostly lies in one."""
        instants = stored[self._index].to_physical()
        low, high = int(instants.min()) * 1000, int(instants.max()) * 1000  # type: ignore[arg-type]
        if high < cell_end(cell_start(low, self._grid), self._grid):
            return [(cell_start(low, self._grid), stored)]
        cells = stored[self._index].dt.truncate(_EVERY[self._grid]).to_physical().alias("_cell")
        parts = stored.with_columns(cells).partition_by("_cell", as_dict=True, include_key=False, maintain_order=True)
        return [(int(micro) * 1000, part) for (micro,), part in parts.items()]

    def _flush(self, date: int) -> None:
        frame = pl.concat(self._open.pop(date))
        del self._open_bytes[date]
        while len(self._pending) >= _WRITERS:
            self.runs.append(self._pending.popleft().result())
        path = self.folder / f"run-{len(self.runs) + len(self._pending):05d}.parquet"
        self._pending.append(self._pool.submit(self._write, frame, ns_date(date).isoformat(), path))

    def _collect(self) -> None:
        while self._pending:
            self.runs.append(self._pending.popleft().result())

    def _write(self, frame: pl.DataFrame, date: str, path: Path) -> Run:
        frame = arranged(frame, self._index)
        return write_run(frame, self._index, date, path)

    def _flush_rejects(self) -> None:
        frame = pl.concat(self._rejected)
        self._rejected = []
        path = self.folder / f"rejects-{len(self.rejects)}.parquet"
        frame.write_parquet(path, **PARQUET)
        sync(path)
        self.rejects.append(side_file(path, f"{self.attempt}-{path.name}", frame.height))


def arranged(frame: pl.DataFrame, index: str) -> pl.DataFrame:
    """The rows by (instrument, index time, place in the file).

    Rows arrive by index time, so a stable sort by instrument is enough; it costs a sixth of a full one.
    """
    # Gathering from many chunks costs four times as much as from one.
    frame = frame.rechunk()
    instants = frame[index].to_physical()
    if not (instants.is_sorted() and _timely(instants, frame[f"{index}_ns"])):
        return frame.sort("instrument_id", index, f"{index}_ns", "_unit", "_row", maintain_order=True)
    known = frame["instrument_id"].unique().sort().to_numpy()
    if len(known) == 1:
        return frame
    codes = np.searchsorted(known, frame["instrument_id"].to_numpy())
    # NumPy's stable sort of 16-bit keys is a radix sort.
    narrow = codes.astype(np.uint16) if len(known) < 1 << 16 else codes
    return frame[pl.Series(np.argsort(narrow, kind="stable").astype(np.uint32))]


def _timely(instants: pl.Series, rest: pl.Series) -> bool:
    """True when equal microseconds come with ascending remainders."""
    us, ns = instants.to_numpy(), rest.to_numpy()
    return bool(((us[1:] > us[:-1]) | (ns[1:] >= ns[:-1])).all())


def write_run(frame: pl.DataFrame, index: str, date: str, path: Path) -> Run:
    """Write one run durably and take its bounds.

    Arrow's writer takes an encoding per column. Deltas, packed, take two thirds of the processor time and
    of the space that Polars' dictionaries take for times and sequence numbers. Bounds in the
    file are kept for what reads look by: those of text cost more than they ever save.
    """
    import pyarrow.parquet as pq  # 0.2 s, and reading does not need it

    texts = [c for c, kind in frame.schema.items() if kind == pl.String]
    packed = [c for c, kind in frame.schema.items() if kind not in (pl.String, pl.Boolean)]
    pq.write_table(
        frame.to_arrow(compat_level=pl.CompatLevel.oldest()), path, **PARQUET, store_decimal_as_integer=True,
        use_dictionary=texts, column_encoding=dict.fromkeys(packed, "DELTA_BINARY_PACKED"),
        write_statistics=[index, "instrument_id"],
    )  # fmt: skip
    sync(path)
    instants, ids = frame[index].to_physical(), frame["instrument_id"]
    bounds = [int(v) for v in (instants.min(), instants.max(), ids.min(), ids.max())]  # type: ignore[arg-type]
    return Run(path, date, frame.height, *bounds)

"""The pieces of work that are timed, each run in a process of its own: ``python -m benchmarks.work NAME SOURCE OUT``.

A piece is a function that imports what it needs and returns what is then timed, so that imports do not count. What is
timed gives the number of rows, or what counts them afterwards. A source is a file, or JSON: a request to the API, or
what a piece on a database takes.
The process prints one JSON object: seconds, rows, and its peak resident memory in bytes.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Timed = Callable[[], int | Callable[[], int]]

#: Rows to a Parquet file of the bare writer: the same as the runs that the lake writes.
RUN_ROWS = 2_000_000
DECODE_ROWS = 131_072
#: What hdi imports when it is used, so that imports count on neither side.
LATE = ("databento_dbn", "deltalake", "pandera.polars", "pandera.backends.polars.builtin_checks", "pyarrow.parquet")


def hdi_ingest(source: str, out: Path) -> Timed:
    for name in LATE:
        import_module(name)
    from hdi.api import HistoricalData

    def run() -> int:
        with HistoricalData.open(store=f"lake:{out / 'lake'}") as data:
            outcomes = list(data.ingest_files([source], origin="synthetic"))
        errors = [o.error for o in outcomes if o.error is not None]
        if errors:
            raise errors[0]
        return sum(r.stored for o in outcomes for r in o.receipts)

    return run


def to_parquet(source: str, out: Path) -> Timed:
    import databento
    import pyarrow.parquet as pq

    def run() -> int:
        databento.DBNStore.from_file(source).to_parquet(out / "vendor.parquet")
        return int(pq.read_metadata(out / "vendor.parquet").num_rows)

    return run


def to_df(source: str, _: Path) -> Timed:
    import databento

    return lambda: len(databento.DBNStore.from_file(source).to_df())


def decode(source: str, _: Path) -> Timed:
    import databento

    return lambda: sum(len(a) for a in databento.DBNStore.from_file(source).to_ndarray(count=DECODE_ROWS))


def decode_and_write(source: str, out: Path) -> Timed:
    """Decode, make columns of the raw fields, write Parquet (zstd level 1): nothing is checked, mapped or sorted."""
    import databento
    import polars as pl

    def run() -> int:
        rows = files = 0
        frames: list[pl.DataFrame] = []

        def flush() -> None:
            nonlocal files
            frame = pl.concat(frames, rechunk=False)
            frame.write_parquet(out / f"bare-{files}.parquet", compression="zstd", compression_level=1)
            files += 1
            frames.clear()

        for records in databento.DBNStore.from_file(source).to_ndarray(count=DECODE_ROWS):
            frames.append(_raw_columns(records))
            rows += len(records)
            if sum(map(len, frames)) >= RUN_ROWS:
                flush()
        if frames:
            flush()
        return rows

    return run


def _raw_columns(records: Any) -> Any:
    """The fields as they are: integers as integers, a character as its byte, text as bytes."""
    import numpy as np
    import polars as pl
    import pyarrow as pa

    columns: dict[str, Any] = {}
    for name in records.dtype.names:
        if name in ("length", "_reserved"):
            continue
        values = np.ascontiguousarray(records[name])
        if values.dtype.kind == "S":
            width = values.dtype.itemsize
            if width == 1:
                columns[name] = pl.Series(name, values.view(np.uint8))
                continue
            array = pa.Array.from_buffers(pa.binary(width), len(values), [None, pa.py_buffer(values)])
            columns[name] = pl.Series(name, array)
        else:
            columns[name] = pl.Series(name, values)
    return pl.DataFrame(columns)


def api_ingest(source: str, out: Path) -> Timed:
    """From the request to rows that can be queried: look, resolve, price, download, check, refine, commit."""
    for name in (*LATE, "databento", "hdi.buying.buying", "hdi.sources.databento", "hdi.stores.lake"):
        import_module(name)
    from hdi.api import HistoricalData

    request = json.loads(source)

    def run() -> int:
        with HistoricalData.open(store=f"lake:{out / 'lake'}") as data:
            buying = data.buying(**request)
            _, coming = buying.run(buying.offer())
            outcomes = list(coming)
        errors = [o.error for o in outcomes if o.error is not None]
        if errors:
            raise errors[0]
        return sum(r.stored for o in outcomes for r in o.receipts)

    return run


def _get_range(source: str, out: Path) -> Callable[[], Any]:
    """The vendor's own way to a file, in a folder that does not count as what was made."""
    import databento

    asked = json.loads(source)
    stype = asked.pop("stype", "continuous")
    path = out / "raw" / "vendor.dbn.zst"
    path.parent.mkdir()
    client = databento.Historical(os.environ["DATABENTO_API_KEY"], os.environ["DATABENTO_GATEWAY"])
    return lambda: client.timeseries.get_range(**asked, stype_in=stype, path=path)


def api_to_parquet(source: str, out: Path) -> Timed:
    import pyarrow.parquet as pq

    get = _get_range(source, out)

    def run() -> int:
        get().to_parquet(out / "vendor.parquet")
        return int(pq.read_metadata(out / "vendor.parquet").num_rows)

    return run


def api_get_range(source: str, out: Path) -> Timed:
    get = _get_range(source, out)

    def run() -> Callable[[], int]:
        store = get()
        return lambda: sum(len(a) for a in store.to_ndarray(count=DECODE_ROWS))

    return run


def instruments(source: str, _: Path) -> Timed:
    """What the definitions of a store say of instruments, as long as it was true; a source is a store."""
    for name in LATE:
        import_module(name)
    from hdi.api import HistoricalData

    def run() -> int:
        with HistoricalData.open(store=source) as data:
            return sum(frame.height for frame in data.store().instruments())

    return run


JOBS: dict[str, Callable[[str, Path], Timed]] = {
    "hdi_ingest": hdi_ingest,
    "to_parquet": to_parquet,
    "to_df": to_df,
    "decode": decode,
    "decode_and_write": decode_and_write,
    "api_ingest": api_ingest,
    "api_to_parquet": api_to_parquet,
    "api_get_range": api_get_range,
    "instruments": instruments,
}


def peak_bytes() -> int:
    """Peak resident memory of this program: of the image since exec where the kernel says it, else of the process."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main(name: str, source: str, out: str) -> None:
    from benchmarks import asking, known, locks, reconciling, sql_work

    run = (JOBS | sql_work.JOBS | asking.JOBS | known.JOBS | locks.JOBS | reconciling.JOBS)[name](source, Path(out))
    # The vendor's library turns warnings on at import, and pandas then prints one a call.
    warnings.simplefilter("ignore")
    start = time.perf_counter()
    rows = run()
    seconds = time.perf_counter() - start
    if callable(rows):
        rows = rows()
    print(json.dumps({"seconds": seconds, "rows": rows, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main(*sys.argv[1:])

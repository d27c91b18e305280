"""What a data lock costs beside a plain scan of the same columns: ``python -m benchmarks.locks STORE``.

Peers, on as many threads: Polars reads every file whole and hashes each column's buffers with SHA-256, as strong, which
says nothing of order, place or store; DuckDB folds 64 bits that it makes of each row into one number.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import Case, run_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.measure import Measured
    from benchmarks.work import Timed

GROUP = "data lock"
LOCK, VERIFY = "hdi lock", "hdi verify-lock"
PLAIN, WEAK = "scan and SHA-256 of column buffers (Polars)", "scan and 64 bits for each row (DuckDB)"
#: Verifying takes at most so many times as long as a plain scan and hash.
LIMIT = 1.5
_THREADS = 2
#: Rows of files that a thread of the peer has at once.
_EACH = 1 << 21


def _locked(source: str, out: Path) -> Timed:
    from hdi.locking import Asked, make
    from hdi.testing import opened
    from hdi.testing.material import schemas

    store = opened(source)
    path = out / "a.lock"
    return lambda: make(store, schemas(), Asked(schema="trades"), path, rows=False, version="benchmark").rows


def _verified(source: str, out: Path) -> Timed:
    from hdi.locking import files, verify
    from hdi.testing import opened
    from hdi.testing.material import schemas

    _locked(source, out)()
    store = opened(source)

    def work() -> int:
        found = verify(files.read(out / "a.lock"), store, schemas())
        assert found.equal
        return found.second.lock.rows

    return work


def _files(source: str) -> list[str]:
    from deltalake import DeltaTable

    return sorted(DeltaTable(f"{source.removeprefix('lake:')}/trades_data").file_uris())


def _hashed(source: str, _: Path) -> Timed:
    import hashlib
    from concurrent.futures import ThreadPoolExecutor

    import polars as pl
    import pyarrow.parquet as pq

    lots: list[list[str]] = [[]]
    rows = 0
    for file in _files(source):
        lots[-1].append(file)
        rows += pq.read_metadata(file).num_rows
        if rows >= _EACH:
            lots, rows = [*lots, []], 0

    def one(lot: Sequence[str]) -> int:
        frame = pl.concat([pl.read_parquet(file, hive_partitioning=False) for file in lot], rechunk=True)
        for column in frame.iter_columns():
            digest = hashlib.sha256()
            for buffer in column.to_arrow(compat_level=pl.CompatLevel.newest()).buffers():
                if buffer is not None:
                    digest.update(buffer)
            digest.digest()
        return frame.height

    def work() -> int:
        with ThreadPoolExecutor(_THREADS) as pool:
            return sum(pool.map(one, filter(None, lots)))

    return work


def _folded(source: str, _: Path) -> Timed:
    import duckdb
    import pyarrow.parquet as pq

    files = _files(source)
    columns = ", ".join(f'"{name}"' for name in pq.read_schema(files[0]).names)
    query = f"SELECT count(*), bit_xor(hash({columns})) FROM read_parquet(?)"
    connection = duckdb.connect()
    connection.execute(f"SET threads = {_THREADS}")
    return lambda: int((connection.execute(query, [files]).fetchone() or (0,))[0])


JOBS: dict[str, Callable[[str, Path], Timed]] = {
    "lock": _locked, "verify_lock": _verified, "hash_columns": _hashed, "hash_rows": _folded,
}  # fmt: skip


def cases(store: str, rows: int, rounds: int) -> list[Case]:
    """A lock of the trades of a store, and of a lake its peers, taking turns; ``rows`` 0 is not known."""
    jobs = {LOCK: "lock", VERIFY: "verify_lock"}
    if not store.startswith("postgres"):
        jobs |= {PLAIN: "hash_columns", WEAK: "hash_rows"}
    return [Case(GROUP, name, rows, job=job, source=store, rounds=rounds) for name, job in jobs.items()]


def ratio(results: Sequence[Measured]) -> float | None:
    """How many times as long verifying takes as a plain scan and hash, best round against best round."""
    best = {m.case.name: m.best for m in results if m.case.group == GROUP and m.seconds and not m.error}
    return best[VERIFY] / best[PLAIN] if VERIFY in best and PLAIN in best else None


def main(store: str, rounds: str = "1") -> None:
    """Print what each takes, and the ratio."""
    began = time.time()
    with tempfile.TemporaryDirectory() as work:
        results = run_all(cases(store, 0, int(rounds)), Path(work))
    for found in results:
        rate = f"{found.rows / found.best:12,.0f} rows/s" if found.seconds else found.error
        print(f"{found.case.name:45} {rate}  {found.peak_bytes / 2**20:8.0f} MiB")
    print(f"ratio {ratio(results)}, {time.time() - began:.0f} s in all")


if __name__ == "__main__":
    main(*sys.argv[1:])

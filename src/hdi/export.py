"""Rows as files, streamed and exact: Parquet and Arrow, each whole or not there at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from hdi.errors import HdiError, RequestError
from hdi.streams import counted

Frames = Iterable[pl.DataFrame]
Columns = Mapping[str, pl.DataType]
#: Rows of one row group at least, and of one Arrow batch at most.
_GROUP_ROWS = 262_144
BATCH_ROWS = 65_536
#: Rows of a frame whose columns are made one by one: to wake Polars' threads takes longer than they do.
_SHORT = 4_096
#: Endings of files that hold something else than Parquet.
OTHER_ENDINGS = frozenset({
    ".arrow", ".avro", ".csv", ".db", ".dbn", ".duckdb", ".feather", ".gz", ".h5", ".html", ".ipc", ".json", ".jsonl",
    ".ndjson", ".orc", ".pkl", ".txt", ".tsv", ".xls", ".xlsx", ".yaml", ".zip", ".zst",
})  # fmt: skip


def parquet(frames: Frames, columns: Columns, file: BinaryIO) -> int:
    """Write all frames as Parquet, and return how many rows they had; ``columns`` say what an empty one looks like."""
    import pyarrow.parquet as pq

    schema = arrow_schema(columns)
    rows = 0
    with pq.ParquetWriter(_sink(file), schema, compression="zstd", store_decimal_as_integer=True) as writer:
        for group in _groups(frames):
            writer.write_table(to_arrow(group).cast(schema))
            rows += group.height
    return rows


def feather(frames: Frames, columns: Columns, file: BinaryIO) -> int:
    """Write all frames as an Arrow file, and return how many rows they had."""
    import pyarrow as pa

    schema = arrow_schema(columns)
    rows = 0
    with pa.ipc.new_file(_sink(file), schema) as writer:
        for part in slices(frames):
            writer.write_table(to_arrow(part).cast(schema))
            rows += part.height
    return rows


def slices(frames: Frames) -> Iterator[pl.DataFrame]:
    """The frames cut to :data:`BATCH_ROWS` rows."""
    return (part for frame in frames for part in frame.iter_slices(BATCH_ROWS))


def _groups(frames: Frames) -> Iterator[pl.DataFrame]:
    """Frames of :data:`_GROUP_ROWS` rows or a little more, so that a file is not all row groups."""
    held: list[pl.DataFrame] = []
    rows = 0
    for frame in (part for f in frames for part in f.iter_slices(_GROUP_ROWS)):
        held.append(frame)
        rows += frame.height
        if rows >= _GROUP_ROWS:
            yield pl.concat(held)
            held, rows = [], 0
    if held:
        yield pl.concat(held)


def arrow_schema(columns: Columns) -> Any:
    """The Arrow schema of frames with these columns."""
    return _arrow_schema(tuple(columns.items()))


@lru_cache(maxsize=256)
def _arrow_schema(columns: tuple[tuple[str, pl.DataType], ...]) -> Any:
    return to_arrow(pl.DataFrame(schema=dict(columns))).schema


def to_arrow(frame: pl.DataFrame) -> Any:
    """A frame as an Arrow table. The oldest level: every reader of Arrow knows it, the newest one only a few."""
    oldest = pl.CompatLevel.oldest()
    if not 0 < frame.height <= _SHORT:
        return frame.to_arrow(compat_level=oldest)
    import pyarrow as pa

    return pa.table({column.name: column.to_arrow(compat_level=oldest) for column in frame.iter_columns()})


def _sink(file: BinaryIO) -> Any:
    import pyarrow as pa

    return pa.PythonFile(file, mode="w")


@contextlib.contextmanager
def to_file(path: Path | str) -> Iterator[BinaryIO]:
    """A file that is there, whole, after the block, or not there at all; its folder is made.

    Raises RequestError when it cannot be made, HdiError when it cannot be written.
    """
    target = Path(path)
    if target.exists() and not target.is_file() and not target.is_dir():
        # A pipe or a device: nothing to rename.
        with told(target), target.open("wb") as special:
            yield counted(special)
        return
    with told(target):
        target = target.resolve()
        if target.is_dir():
            raise RequestError(f"{path}: is a folder", "Name a file in it.")
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{os.getpid()}-{os.urandom(3).hex()}.part")
        try:
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def told(path: Path | str) -> Iterator[None]:
    """Say which file it was that the system refused: RequestError, or HdiError where writing it failed."""
    try:
        yield
    except (PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError, FileNotFoundError) as exc:
        raise RequestError(f"{path}: cannot be written: {exc.strerror}") from exc
    except OSError as exc:
        raise HdiError(f"{path}: cannot be written: {exc.strerror or exc}", "Nothing of it was kept.") from exc


__all__ = [
    "BATCH_ROWS",
    "OTHER_ENDINGS",
    "arrow_schema",
    "feather",
    "parquet",
    "slices",
    "to_arrow",
    "to_file",
    "told",
]

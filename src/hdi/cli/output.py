"""Query results as bytes: table, CSV, JSON, Parquet and Arrow, each streamed, exact, and whole when empty."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast, get_args

from hdi.cli.render import plain
from hdi.cli.session import guarded, stdout
from hdi.errors import HdiError, RequestError

if TYPE_CHECKING:
    import polars as pl

Format = Literal["table", "csv", "json", "parquet", "arrow"]
FORMATS: tuple[str, ...] = get_args(Format)
BINARY = ("parquet", "arrow")
_ENDINGS = {
    ".txt": "table", "": "table", ".csv": "csv", ".json": "json", ".parquet": "parquet", ".pq": "parquet",
    ".arrow": "arrow", ".ipc": "arrow", ".feather": "arrow",
}  # fmt: skip
_TIME = "%Y-%m-%dT%H:%M:%S%.9fZ"
#: Rows turned into text at once, and rows of one row group at least.
_TEXT_ROWS = 65_536
_GROUP_ROWS = 262_144

Frames = Iterable["pl.DataFrame"]
Columns = Mapping[str, "pl.DataType"]


def format_of(path: str) -> str:
    """The format that a file's ending stands for. Raises RequestError where it stands for none."""
    ending = Path(path).suffix.lower()
    if ending not in _ENDINGS:
        raise RequestError(
            f"{path}: the ending {ending} is no known format", f"Give --output-format {'|'.join(FORMATS)} as well."
        )
    return _ENDINGS[ending]


def write(name: str, frames: Frames, columns: Columns, file: BinaryIO) -> None:
    """Write all frames in one format; ``columns`` say what an empty result looks like."""
    _WRITERS[name](frames, columns, file)


def _table(frames: Frames, columns: Columns, file: BinaryIO) -> None:
    file.writelines(text.encode() for text in plain(frames, columns))


def _csv(frames: Frames, columns: Columns, file: BinaryIO) -> None:
    file.write((",".join(columns) + "\n").encode())
    file.writelines(part.write_csv(include_header=False, datetime_format=_TIME).encode() for part in _slices(frames))


def _json(frames: Frames, columns: Columns, file: BinaryIO) -> None:
    import polars as pl

    del columns
    text = [pl.selectors.decimal().cast(pl.String), pl.selectors.datetime().dt.strftime(_TIME)]
    before = b"[\n"
    for part in _slices(frames):
        # One object a line: a line break inside a value is written as \n, so the others can become commas.
        lines = part.with_columns(*text).write_ndjson().encode().rstrip(b"\n")
        file.write(before + lines.replace(b"\n", b",\n"))
        before = b",\n"
    file.write(b"[]\n" if before == b"[\n" else b"\n]\n")


def _parquet(frames: Frames, columns: Columns, file: BinaryIO) -> None:
    import pyarrow.parquet as pq

    schema = _arrow(_empty(columns)).schema
    with pq.ParquetWriter(_sink(file), schema, compression="zstd", store_decimal_as_integer=True) as writer:
        for group in _groups(frames):
            writer.write_table(_arrow(group).cast(schema))


def _feather(frames: Frames, columns: Columns, file: BinaryIO) -> None:
    import pyarrow as pa

    schema = _arrow(_empty(columns)).schema
    with pa.ipc.new_file(_sink(file), schema) as writer:
        for part in _slices(frames):
            writer.write_table(_arrow(part).cast(schema))


_WRITERS: dict[str, Callable[[Frames, Columns, BinaryIO], None]] = {
    "table": _table, "csv": _csv, "json": _json, "parquet": _parquet, "arrow": _feather,
}  # fmt: skip


def _slices(frames: Frames) -> Iterator[pl.DataFrame]:
    return (part for frame in frames for part in frame.iter_slices(_TEXT_ROWS))


def _groups(frames: Frames) -> Iterator[pl.DataFrame]:
    """Frames of :data:`_GROUP_ROWS` rows or a little more, so that a file is not all row groups."""
    import polars as pl

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


def _empty(columns: Columns) -> pl.DataFrame:
    import polars as pl

    return pl.DataFrame(schema=dict(columns))


def _arrow(frame: pl.DataFrame) -> Any:
    import polars as pl

    # The oldest level: every reader of Arrow knows it, the newest one only a few.
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def _sink(file: BinaryIO) -> Any:
    import pyarrow as pa

    return pa.PythonFile(file, mode="w")


@contextlib.contextmanager
def to_stdout() -> Iterator[BinaryIO]:
    """Standard output; raises OutputClosed when nobody reads on."""
    with _told("standard output"), guarded():
        raw = stdout()
        yield cast("BinaryIO", _Counted(raw))
        raw.flush()


@contextlib.contextmanager
def to_file(path: str) -> Iterator[BinaryIO]:
    """A file that is there, whole, after the block, or not there at all; its folder is made.

    Raises RequestError when it cannot be made, HdiError when it cannot be written.
    """
    target = Path(path)
    if target.exists() and not target.is_file() and not target.is_dir():
        # A pipe or a device: nothing to rename.
        with _told(target), target.open("wb") as special:
            yield cast("BinaryIO", _Counted(special))
        return
    with _told(target):
        target = target.resolve()
        if target.is_dir():
            raise RequestError(f"{path}: is a folder", "Name a file in it.")
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def _told(path: Path | str) -> Iterator[None]:
    try:
        yield
    except (PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError, FileNotFoundError) as exc:
        raise RequestError(f"{path}: cannot be written: {exc.strerror}") from exc
    except OSError as exc:
        raise HdiError(f"{path}: cannot be written: {exc.strerror or exc}", "Nothing of it was kept.") from exc


class _Counted(io.RawIOBase):
    """A stream that cannot seek but knows its position, which writers of Parquet and Arrow ask for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Any) -> int:
        self._file.write(data)
        size = len(memoryview(data).cast("B"))
        self._position += size
        return size


__all__ = ["BINARY", "FORMATS", "format_of", "to_file", "to_stdout", "write"]

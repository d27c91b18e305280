"""Query results as bytes: table, CSV, JSON, Parquet and Arrow, each streamed, exact, and whole when empty."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, get_args

from hdi.cli.render import plain
from hdi.cli.session import guarded, stdout
from hdi.errors import RequestError
from hdi.export import feather, parquet, slices, told

if TYPE_CHECKING:
    import polars as pl

Format = Literal["table", "csv", "json", "parquet", "arrow"]
FORMATS: tuple[str, ...] = get_args(Format)
BINARY = ("parquet", "arrow")
_ENDINGS = {
    ".txt": "table", "": "table", ".csv": "csv", ".json": "json", ".parquet": "parquet", ".pq": "parquet",
    ".arrow": "arrow", ".ipc": "arrow", ".feather": "arrow",
}  # fmt: skip
#: Times have as many digits as they were kept with; nanoseconds go by the first, of which CSV knows one.
_TIME = "%Y-%m-%dT%H:%M:%S%.9fZ"
_DIGITS = {"us": 6, "ms": 3}

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


def fits(name: str, path: str) -> bool:
    """False where the file's ending stands for another format; ``.txt`` is any text, and a strange ending anything."""
    meant = _ENDINGS.get(Path(path).suffix.lower(), name)
    return meant == name or (meant == "table" and name not in BINARY) or not Path(path).suffix


def write(name: str, frames: Frames, columns: Columns, file: BinaryIO) -> None:
    """Write all frames in one format; ``columns`` say what an empty result looks like."""
    _WRITERS[name](frames, columns, file)


def _table(frames: Frames, columns: Columns, file: BinaryIO) -> None:
    file.writelines(text.encode() for text in plain(frames, columns))


def _csv(frames: Frames, columns: Columns, file: BinaryIO) -> None:
    file.write((",".join(columns) + "\n").encode())
    parts = (part.with_columns(_coarse(part)) for part in slices(frames))
    file.writelines(part.write_csv(include_header=False, datetime_format=_TIME).encode() for part in parts)


def _coarse(part: pl.DataFrame) -> list[pl.Expr]:
    """The times that are not of nanoseconds, as text."""
    import polars as pl

    kinds = {n: t for n, t in part.schema.items() if isinstance(t, pl.Datetime) and t.time_unit in _DIGITS}
    return [
        pl.col(n).dt.strftime(f"%Y-%m-%dT%H:%M:%S%.{_DIGITS[t.time_unit]}f{'Z' if t.time_zone else ''}")
        for n, t in kinds.items()
    ]


def _json(frames: Frames, columns: Columns, file: BinaryIO) -> None:
    import polars as pl

    del columns
    text = [pl.selectors.decimal().cast(pl.String), pl.selectors.datetime().dt.strftime(_TIME)]
    before = b"[\n"
    for part in slices(frames):
        # One object a line: a line break inside a value is written as \n, so the others can become commas.
        lines = part.with_columns(_coarse(part)).with_columns(*text).write_ndjson().encode().rstrip(b"\n")
        file.write(before + lines.replace(b"\n", b",\n"))
        before = b",\n"
    file.write(b"[]\n" if before == b"[\n" else b"\n]\n")


_WRITERS: dict[str, Callable[[Frames, Columns, BinaryIO], object]] = {
    "table": _table, "csv": _csv, "json": _json, "parquet": parquet, "arrow": feather,
}  # fmt: skip


@contextlib.contextmanager
def to_stdout() -> Iterator[BinaryIO]:
    """Standard output; raises OutputClosed when nobody reads on."""
    with told("standard output"), guarded():
        yield stdout()
        sys.stdout.flush()


__all__ = ["BINARY", "FORMATS", "fits", "format_of", "to_stdout", "write"]

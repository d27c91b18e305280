"""Locks as files: JSON that says all of the tree, and beside it, where asked for, a Parquet file of the rows' marks."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from hdi.errors import RequestError
from hdi.export import to_file
from hdi.locking.tree import Leaf, Lock, Part, Share, Table, dumps, rectangles
from hdi.model import Window, iso_ns, ns_date, parse_instant
from hdi.raw import file_digest

KIND, FORMAT = "hdi data lock", 1
ROWS_ENDING = ".rows.parquet"
#: The marks of rows, in the order in which they were read: by time for each table, instrument and publisher.
MARKS: dict[str, pl.DataType] = {
    "table": pl.Int32(), "instrument_id": pl.Int64(), "publisher_id": pl.Int64(), "time": pl.Int64(),
    "high": pl.UInt64(), "low": pl.UInt64(),
}  # fmt: skip
_BAD = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, struct.error)
_HINT = "Take it again from where it was kept, or make it anew with `hdi lock`."
_DIGEST_BYTES = 32


@dataclass(frozen=True)
class LockFile:
    """A lock as it was read; ``marks`` is the file of its rows' marks, None where it has none."""

    path: Path
    lock: Lock
    marks: Path | None

    def marks_of(self, table: int, leaf: tuple[int, int], window: Window) -> pl.LazyFrame:
        """The marks of one leaf's rows. RequestError for a lock that has none."""
        if self.marks is None:
            raise RequestError(f"{self.path} has no marks of rows", "A lock that was made with --rows has.")
        time = pl.col("time")
        return pl.scan_parquet(self.marks).filter(
            pl.col("table") == table, pl.col("instrument_id") == leaf[0], pl.col("publisher_id") == leaf[1],
            time >= window.start, time < window.end,
        ).select("time", "high", "low")  # fmt: skip


def rows_path(path: Path) -> Path:
    """Where the marks of a lock's rows lie."""
    return path.with_name(f"{path.name}{ROWS_ENDING}")


@contextlib.contextmanager
def marks_writer(path: Path) -> Iterator[Any]:
    """A Parquet writer of :data:`MARKS`; the file is whole, or not there."""
    import pyarrow.parquet as pq

    with to_file(path) as file, pq.ParquetWriter(file, pl.DataFrame(schema=MARKS).to_arrow().schema) as writer:
        yield writer


def write(path: Path, lock: Lock, marks: Path | None) -> None:
    """Keep a lock; the file is whole, or not there. RequestError where it cannot be made."""
    with to_file(path) as file:
        file.writelines(part.encode() for part in _lines(lock, marks))


def _lines(lock: Lock, marks: Path | None) -> Iterator[str]:
    """JSON with a line for each period, so that two locks can be compared by eye."""
    told = None if marks is None else {"file": marks.name, "sha256": file_digest(marks)}
    head = {"kind": KIND, "format": FORMAT, "root": lock.root, "rows": lock.rows, **lock.about, "row_marks": told}
    yield dumps(head)[:-1] + ',"tables":['
    for k, table in enumerate(lock.tables):
        share = table.share
        text = dumps({
            "dataset": share.dataset, "schema": share.schema, "period": share.period, "columns": share.columns,
            "window": [iso_ns(share.window.start), iso_ns(share.window.end)], "instruments": share.rectangles,
            "rows": table.rows, "digest": table.digest.hex(),
        })  # fmt: skip
        yield ("," if k else "") + "\n" + text[:-1] + ',"parts":['
        for j, part in enumerate(table.parts):
            leaves = part.leaves and [[*f.key, f.rows, f.digest.hex(), f.symbol] for f in part.leaves]
            start = ns_date(part.start).isoformat()
            yield ("," if j else "") + "\n" + dumps([start, part.rows, part.digest.hex(), leaves])
        yield "]}"
    yield "]}\n"


def read(path: Path) -> LockFile:
    """A lock that was kept. RequestError for a file that is none, or that is not what it was."""
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(given, dict) or given.get("kind") != KIND:
            raise RequestError(f"{path} is no data lock", "`hdi lock FILE` makes one.")
        if given["format"] != FORMAT:
            raise RequestError(f"{path} has format {given['format']}; this version knows {FORMAT}", _HINT)
        tables = tuple(_table(table) for table in given["tables"])
        about = {k: v for k, v in given.items() if k not in _OWN}
        lock = Lock(tables, about)
        _check(path, given, lock)
        marks = _marks(path, given["row_marks"])
    except OSError as exc:
        raise RequestError(f"{path} cannot be read: {exc.strerror or exc}", "Name a file of `hdi lock`.") from exc
    except _BAD as exc:
        raise RequestError(f"{path} is no data lock, or damaged: {type(exc).__name__} {exc}", _HINT) from exc
    except RecursionError as exc:
        raise RequestError(f"{path} is no data lock: it is nested too deep", _HINT) from exc
    return LockFile(path, lock, marks)


_OWN = ("kind", "format", "root", "rows", "row_marks", "tables")


def _table(given: Mapping[str, Any]) -> Table:
    period = given["period"]
    if period not in ("day", "month"):
        raise ValueError(f"periods of a {period}")
    first, end = (parse_instant(text)[0] for text in given["window"])
    columns = tuple((str(name), str(kind)) for name, kind in given["columns"])
    dataset, schema = str(given["dataset"]), str(given["schema"])
    share = Share(dataset, schema, period, columns, Window(first, end), rectangles(dataset, given["instruments"]))
    return Table(share, tuple(_part(part) for part in given["parts"]))


def _part(given: list[Any]) -> Part:
    """A period. ValueError where its digest is not that of its leaves."""
    start, rows, digest, leaves = given
    at, _ = parse_instant(start)
    if leaves is None:
        return Part(at, int(rows), _digest(digest), None)
    part = Part.of(at, (Leaf(int(i), int(p), int(n), _digest(d), str(s)) for i, p, n, d, s in leaves))
    if (part.rows, part.digest) != (rows, _digest(digest)):
        raise ValueError(f"{start} is not what its instruments make")
    return part


def _digest(text: str) -> bytes:
    digest = bytes.fromhex(text)
    if len(digest) != _DIGEST_BYTES:
        raise ValueError(f"{text!r} is no SHA-256")
    return digest


def _check(path: Path, given: Mapping[str, Any], lock: Lock) -> None:
    """RequestError when the file does not say what its root is the root of."""
    for table, told in zip(lock.tables, given["tables"], strict=True):
        if (table.digest.hex(), table.rows) != (told["digest"], told["rows"]):
            raise RequestError(f"{path} was changed: {told['dataset']} {told['schema']} is not what it says", _HINT)
    if (lock.root, lock.rows) != (given["root"], given["rows"]):
        raise RequestError(f"{path} was changed: its root is not that of its tables", _HINT)


def _marks(path: Path, told: Mapping[str, str] | None) -> Path | None:
    """The file of marks. RequestError for one that is gone, or another one."""
    if told is None:
        return None
    marks = path.with_name(Path(told["file"]).name)
    if not marks.is_file():
        raise RequestError(f"{marks} is gone: {path} was made with --rows, and names rows by it", _HINT)
    if file_digest(marks) != told["sha256"]:
        raise RequestError(f"{marks} was changed: it is not the file that {path} was made with", _HINT)
    return marks


def shown(part: Part, period: str) -> str:
    """A period as people write it: a day, or a month."""
    day = ns_date(part.start).isoformat()
    return day if period == "day" else day[:7]


__all__ = ["MARKS", "LockFile", "marks_writer", "read", "rows_path", "shown", "write"]

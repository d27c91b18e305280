"""The dead-letter folder: rejects of the store as JSON lines, for people and their tools.

It is an export. The truth is the store's quarantine; the folder is brought into line after each commit
and at start, file by file, wherever what it holds is not what it should.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import polars as pl

from hdi.errors import StoreError
from hdi.frames import NO_RECORD
from hdi.model import ns_date

#: Folder (which is also the name of the array in each line) by error type.
FOLDERS = {
    "TransformationError": "transformation_errors",
    "SchemaValidation": "validation_failures",
    "BusinessLogicValidation": "validation_failures",
    "ApiError": "api_errors",
}
#: Entries in the array of one line: keeps a line short enough for tools that read line by line.
_LINE = 1000
#: What each store has exported here: several stores may share a folder.
_INDEXES = ".index*.json"
#: Day, schema or vendor, unit.
_NAME = re.compile(r"\d{8}_.+_[0-9a-f]{16}")


@contextlib.contextmanager
def held(dlq: Path) -> Iterator[None]:
    """Keep other processes from exporting to the folder (made if need be): what is read inside is the newest."""
    try:
        dlq.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(dlq, os.O_RDONLY)
        fcntl.flock(fd, fcntl.LOCK_EX)
    except OSError as exc:
        raise _refused(dlq, exc) from exc
    try:
        yield
    finally:
        os.close(fd)


def export(dlq: Path, rejects: pl.DataFrame, ledger: pl.DataFrame, store: str = "") -> int:
    """Make the folder show exactly ``rejects`` of ``store`` (its URL); returns how many files were written or removed.

    The folder must be :func:`held` where several processes may export to it.
    ``ledger`` gives the day of each unit's first run, which names its files.
    """
    rejects = rejects.filter(pl.col("record") != NO_RECORD)
    files = _files(rejects, ledger)
    index_path = index_of(dlq, store)
    try:
        index = _read_index(index_path)
        signs = {name: _signature(rows) for name, rows in files.items()}
        others = {n for path in dlq.glob(_INDEXES) if path != index_path for n in _read_index(path)}
        stale = [name for name in _exported(dlq) if name not in signs and name not in others]
        fresh = [name for name, sign in signs.items() if index.get(name) != [sign, *_stamp(dlq / name)]]
        if not stale and not fresh and index.keys() == signs.keys():
            return 0
        for torn in (p for folder in ("", *set(FOLDERS.values())) for p in (dlq / folder).glob(".*.json.*")):
            torn.unlink(missing_ok=True)
        for name in fresh:
            _write(dlq / name, _lines(rejects[files[name]["_at"]], Path(name).parent.name))
        for name in stale:
            (dlq / name).unlink(missing_ok=True)
        index = {name: [sign, *_stamp(dlq / name)] for name, sign in signs.items()}
        _write(index_path, [json.dumps(index, indent=0, sort_keys=True)])
    except OSError as exc:
        raise _refused(dlq, exc) from exc
    return len(stale) + len(fresh)


def index_of(dlq: Path, store: str) -> Path:
    """The file that says what was exported to the folder from a store (its URL)."""
    return dlq / f".index-{hashlib.sha256(store.encode()).hexdigest()[:12]}.json"


def _refused(dlq: Path, exc: OSError) -> StoreError:
    return StoreError(
        f"the dead-letter folder {dlq} cannot be written: {exc.strerror or exc}",
        "The rejects are safe in the store; mend the folder and run any ingest to export them again.",
    )


def _files(rejects: pl.DataFrame, ledger: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """What each file shows: where its rejects stand in the frame (``_at``), in the order of the lines."""
    if not rejects.height:
        return {}
    first = ledger.group_by("unit_id").agg(pl.col("committed_at").min(), pl.col("origin").first())
    days = {unit: ns_date(ns).strftime("%Y%m%d") for unit, ns, _ in first.iter_rows()}
    vendors = {unit: origin for unit, _, origin in first.iter_rows()}
    places = (
        rejects.select("unit", "row", "unit_id", "schema", "run", _folder=pl.col("error_type").replace_strict(FOLDERS))
        .with_row_index("_at")
        .sort("unit_id", "unit", "row")
    )
    return {
        f"{folder}/{days[unit]}_{vendors[unit] if folder == 'api_errors' else schema}_{unit}_{folder}.json": rows
        for (folder, schema, unit), rows in places.group_by("_folder", "schema", "unit_id", maintain_order=True)
    }


def _exported(dlq: Path) -> list[str]:
    """The files in the folder that an export wrote: by their names, so that other files are left alone."""
    return [
        f"{folder}/{path.name}"
        for folder in sorted(set(FOLDERS.values()))
        for path in sorted((dlq / folder).glob(f"*_{folder}.json"))
        if _NAME.fullmatch(path.name.removesuffix(f"_{folder}.json"))
    ]


def _stamp(path: Path) -> tuple[int, int]:
    """What an edit changes: size, and time of the last change in nanoseconds; zeros for no file."""
    try:
        about = path.stat()
    except FileNotFoundError:
        return 0, 0
    return about.st_size, about.st_mtime_ns


def _signature(rows: pl.DataFrame) -> str:
    place = rows.select("unit", "row", pl.col("run").hash(0))
    return hashlib.sha256(place.hash_rows(0).to_numpy().tobytes()).hexdigest()[:16]


def _lines(rejects: pl.DataFrame, array: str) -> Iterator[str]:
    head = pl.struct(
        "schema", "symbol", "instrument_id",
        pl.from_epoch("ts_event", time_unit="ns").dt.strftime("%Y-%m-%dT%H:%M:%S%.9fZ"),
        "error_type", "error_message", "rules", pl.col("unit_id").alias("unit"), "run", "raw_file",
        pl.col("row"), "failed",
    ).struct.json_encode()  # fmt: skip
    # The record is JSON text already: it takes its place in the object as it is.
    entry = head.str.strip_suffix("}") + ',"record":' + pl.col("record") + "}"
    for rows in rejects.iter_slices(_LINE):
        yield f'{{"{array}":[{",".join(rows.select(entry).to_series())}]}}\n'


def _read_index(path: Path) -> dict[str, list[object]]:
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:  # a torn index: everything is written again
        return {}
    return index if isinstance(index, dict) else {}


def _write(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(part, "w", encoding="utf-8", opener=_private) as file:
            file.writelines(lines)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)

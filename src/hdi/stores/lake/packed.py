"""Frames of a commit: small ones in the log itself, large ones as side files that the log names with their digests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from hdi.errors import StoreError
from hdi.frames import empty
from hdi.raw import file_digest, sync
from hdi.stores.lake.files import PARQUET


def pack(root: Path, frame: pl.DataFrame, name: str, attempt: str) -> dict[str, Any]:
    """A small frame as JSON columns, a large one as a side file under ``root`` named with its digest."""
    if frame.height <= 400:  # noqa: PLR2004  (a commit of some ten kilobytes reads faster than two files)
        return {"rows": frame.to_dict(as_series=False)}
    return stage(root, frame, name, attempt)


def stage(root: Path, frame: pl.DataFrame, name: str, attempt: str) -> dict[str, Any]:
    """A frame as a side file under ``root`` named with its digest."""
    path = root / "_hdi" / "staging" / attempt / f"{name}.parquet"
    frame.write_parquet(path, **PARQUET)
    sync(path)
    return {"files": [side_file(path, f"{attempt}-{name}.parquet", frame.height)]}


def side_file(path: Path, name: str, rows: int) -> dict[str, Any]:
    """How a commit names a side file: where it will lie, its rows and its digest."""
    return {"path": f"_hdi/sidecars/{name}", "staged": path.name, "rows": rows, "sha256": file_digest(path)}


def unpack(root: Path, packed: Mapping[str, Any] | None, dtypes: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """The frame that :func:`pack` wrote; StoreError when a side file is gone or not what was committed."""
    if not packed:
        return empty(dtypes)
    if "rows" in packed:
        return pl.DataFrame(packed["rows"], schema=dtypes)
    frames = [pl.read_parquet(path) for path in checked(root, packed)]
    return pl.concat(frames).select(pl.col(c).cast(t) for c, t in dtypes.items())


def checked(root: Path, packed: Mapping[str, Any] | None) -> list[Path]:
    """The side files of a part of a commit; StoreError when one is gone or not what was committed."""
    paths = []
    for file in (packed or {}).get("files", ()):
        path = root / file["path"]
        if not path.exists() or file_digest(path) != file["sha256"]:
            raise StoreError(f"{path} is gone or damaged", "Restore it from a backup.")
        paths.append(path)
    return paths


__all__ = ["checked", "pack", "side_file", "stage", "unpack"]

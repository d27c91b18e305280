"""Folders, locks and durable writes of a lake, with every refusal of the file system as a StoreError."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
from deltalake.exceptions import DeltaError

from hdi.errors import StoreError
from hdi.raw import sync

#: Written with level 1: three quarters of the time of level 3 for files a tenth larger.
PARQUET: dict[str, Any] = {"compression": "zstd", "compression_level": 1, "row_group_size": 131_072}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_LITTLE = 1 << 20
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


@contextlib.contextmanager
def guard(root: Path) -> Iterator[None]:
    """Turn what the file system, Polars or Delta refuse into a StoreError that names the lake."""
    try:
        yield
    except (OSError, pl.exceptions.PolarsError, DeltaError) as exc:
        raise _refusal(root, exc) from exc


def _refusal(root: Path, exc: Exception) -> StoreError:
    number = exc.errno if isinstance(exc, OSError) else None
    if number is None:
        # Polars and Delta say it in words, or, of the last bytes of a file, not at all.
        found = _OS_ERROR.search(str(exc))
        number = int(found[1]) if found else errno.ENOSPC if _free(root) < _LITTLE else None
    if number in _FULL:
        return StoreError(f"no space left for the lake {root}", "Free some space and run the same command again.")
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StoreError(f"the lake {root} may not be written: {exc}", "Check the owner and mode of the folder.")
    what = str(exc).partition(" (set POLARS_VERBOSE")[0]
    return StoreError(
        f"the lake {root} refused: {what}",
        "A unit at hand was not stored. `hdi status --check-db` tries to read every table.",
    )


def _free(root: Path) -> int:
    try:
        return shutil.disk_usage(root).free
    except OSError:
        return _LITTLE


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` (made if absent), waiting for it."""
    # Upkeep removes locks that nobody holds: who got one of those takes a new one.
    while (fd := own(path)) is None:
        path.parent.stat()  # where the folder is gone, that is the error
    try:
        yield
    finally:
        os.close(fd)


def own(path: Path) -> int | None:
    """A descriptor that holds the lock of ``path``; None when a sweep took it, or its folder, before that."""
    try:
        fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return fd
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def try_lock(path: Path) -> int | None:
    """A descriptor that holds the lock of ``path``, or None when somebody else does or its folder is gone."""
    try:
        fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def write_text(path: Path, text: str, part: Path) -> None:
    """Replace a small file whole, durably: a reader sees the old text or the new. ``part`` is written first."""
    part.write_text(text, encoding="utf-8")
    sync(part)
    part.replace(path)
    sync(path.parent)

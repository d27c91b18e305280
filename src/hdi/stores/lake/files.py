"""Folders, locks and durable writes of a lake, with every refusal of the file system as a StoreError."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterable, Iterator
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
#: A line of the stack that Delta adds to its errors where RUST_BACKTRACE is set.
_STACK = re.compile(r"\n\s*\d+: .*", re.DOTALL)
#: What Polars raises for bytes that it cannot decode; of some it panics.
_UNREAD = (pl.exceptions.PolarsError, pl.exceptions.PanicException)


@contextlib.contextmanager
def guard(root: Path) -> Iterator[None]:
    """Turn what the file system, Polars or Delta refuse into a StoreError that names the lake."""
    try:
        yield
    except (OSError, *_UNREAD, DeltaError) as exc:
        raise _refusal(root, exc) from exc


@contextlib.contextmanager
def readable(paths: Iterable[Path], hint: str) -> Iterator[None]:
    """Have the StoreError of Parquet files that cannot be decoded name the one that is damaged, and what to do."""
    try:
        yield
    except _UNREAD as exc:
        for path in paths:
            if why := _undecoded(path):
                raise StoreError(f"{path} is damaged: {why}", hint) from exc
        raise


def restoring(folder: Path) -> str:
    """How a data table that is damaged is mended."""
    return f"Move {folder} away: `hdi restore DIR --tables {folder.name}` then brings it back from a backup."


def _undecoded(path: Path) -> str:
    """Why a Parquet file cannot be decoded; nothing where it can."""
    try:
        pl.read_parquet(path, hive_partitioning=False)
    except _UNREAD as exc:
        return _said(exc)
    return ""


def _said(exc: BaseException) -> str:
    """What an error says, without what is of no use to a reader."""
    return _STACK.sub("", str(exc).partition(" (set POLARS_VERBOSE")[0])


def _refusal(root: Path, exc: BaseException) -> StoreError:
    number = exc.errno if isinstance(exc, OSError) else None
    if number is None:
        # Polars and Delta say it in words, or, of the last bytes of a file, not at all.
        found = _OS_ERROR.search(str(exc))
        number = int(found[1]) if found else errno.ENOSPC if _free(root) < _LITTLE else None
    if number in _FULL:
        return StoreError(f"no space left for the lake {root}", "Free some space and run the same command again.")
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StoreError(f"the lake {root} may not be written: {exc}", "Check the owner and mode of the folder.")
    return StoreError(
        f"the lake {root} refused: {_said(exc)}",
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


def private(folder: Path) -> Path:
    """The folder, made for its owner alone where it is not there: the lake's own may be open to others."""
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def write_text(path: Path, text: str, part: Path) -> None:
    """Replace a small file whole, durably: a reader sees the old text or the new. ``part`` is written first."""
    part.write_text(text, encoding="utf-8")
    part.chmod(0o600)
    sync(part)
    part.replace(path)
    sync(path.parent)

"""Folders for what does not fit into memory: each goes with the statement that made it, or, had it no time, later."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
import weakref
from pathlib import Path

_PREFIX, _LOCK = "hdi-sql-", "lock"
#: Seconds in which a folder may be without the lock of who is just making it.
_NEW = 60


def spill_folder(owner: object) -> str:
    """A new folder that lives as long as ``owner``. Those of processes that were killed are removed first."""
    with contextlib.suppress(OSError):  # what cannot be cleaned is no reason to answer nothing
        _sweep(Path(tempfile.gettempdir()))
    folder = tempfile.mkdtemp(prefix=_PREFIX)
    fd = os.open(Path(folder) / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    weakref.finalize(owner, _removed, folder, fd)
    return folder


def _removed(folder: str, fd: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(fd)


def _sweep(root: Path) -> None:
    for folder in root.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # it is somebody else's, or has gone
            if time.time() - folder.stat().st_mtime > _NEW and _dead(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _dead(folder: Path) -> bool:
    """Whether nobody holds the lock of a folder."""
    try:
        fd = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


__all__ = ["spill_folder"]

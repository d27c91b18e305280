"""The vendor's bytes, kept: ``raw/<origin>/<dataset>/<schema>/<day>/<id>-<digest12>.dbn.zst``.

Bytes are written to a part file while they are read, synced, and renamed when the file was found whole.
What is there is never overwritten. A user's file is copied, not linked: a hard link would share its
mode with the user's file, and would change when that is edited in place.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from uuid import uuid4

from hdi.errors import StoreError
from hdi.model import RawFile


class Part:
    """A file that is being kept; :meth:`keep` or :meth:`discard` ends it."""

    def __init__(self, data_dir: Path) -> None:
        self._root = data_dir / "raw"
        folder = self._root / ".part"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._path = folder / f"{uuid4().hex}.part"
            self._fd = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            # Held while this process lives, so that a sweep knows what is nobody's.
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        except OSError as exc:
            raise _refused(self._root, exc) from exc

    def write(self, data: bytes, /) -> None:
        """Append one chunk."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as exc:
            raise _refused(self._root, exc) from exc

    def keep(self, folders: tuple[str, ...], name: str, digest: str, size: int) -> RawFile:
        """Put the file in its place under ``raw/``; a file of the same name and size there stays."""
        target = self._root.joinpath(*folders, name)
        try:
            os.fsync(self._fd)
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if target.exists() and target.stat().st_size == size:
                self._path.unlink()
            else:
                self._path.rename(target)
                _sync(target.parent)
            os.close(self._fd)
        except OSError as exc:
            raise _refused(self._root, exc) from exc
        self._fd = -1
        return RawFile(str(target), digest, size)

    def discard(self) -> None:
        """Remove the part file; nothing happens after :meth:`keep`."""
        if self._fd >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1


def sweep(data_dir: Path) -> int:
    """Remove part files whose process is gone; returns how many."""
    gone = 0
    folder = data_dir / "raw" / ".part"
    for path in folder.iterdir() if folder.exists() else ():
        fd = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
            gone += 1
        except BlockingIOError:
            continue
        finally:
            os.close(fd)
    return gone


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _refused(root: Path, exc: OSError) -> StoreError:
    return StoreError(
        f"the raw file cannot be kept in {root}: {exc.strerror or exc}",
        "Free some space or name another folder with HDI_DATA_DIR; --no-copy keeps only path and digest.",
    )

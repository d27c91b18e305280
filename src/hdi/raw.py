"""The vendor's bytes, kept: ``raw/<origin>/<dataset>/<schema>/<day>/<id>-<digest12>.dbn.zst``.

Bytes are written to a part file while they are read, synced, and renamed when the file was found whole.
What is there is never overwritten. A user's file is copied, not linked: a hard link would share its
mode with the user's file, and would change when that is edited in place.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import structlog

from hdi.errors import StoreError
from hdi.model import RawFile

#: Folders and name of a kept file: ``raw/<origin>/<dataset>/<schema>/<day>/<name>``.
_PARTS = 6
#: What nobody but the owner may do with a kept file.
_OTHERS = 0o077
#: So many paths are named.
_SHOWN = 3
#: How many folders above a kept file ``raw`` is.
_DEPTH = 4


class Part:
    """A file that is being kept; :meth:`keep` or :meth:`discard` ends it."""

    def __init__(self, data_dir: Path) -> None:
        self._root = data_dir / "raw"
        self._path = parts_folder(data_dir) / f"{uuid4().hex}.part"
        self._fd = hold_new(self._path)

    def write(self, data: bytes, /) -> None:
        """Append one chunk."""
        try:
            _write(self._fd, data)
        except OSError as exc:
            raise _refused(self._root, exc) from exc

    def keep(self, folders: tuple[str, ...], name: str, digest: str, size: int) -> RawFile:
        """Put the file in its place under ``raw/``. The same bytes there stay; others there are set aside."""
        kept = put(self._root.parent, folders, name, self._path, digest, size)
        os.close(self._fd)
        self._fd = -1
        return kept

    def discard(self) -> None:
        """Remove the part file; nothing happens after :meth:`keep`."""
        if self._fd >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1


def put(data_dir: Path, folders: Sequence[str], name: str, path: Path, digest: str, size: int) -> RawFile:
    """Move a file of that digest and size to its place under ``raw/``, synced, for its owner alone.

    The same bytes there stay; others there are set aside.
    """
    root = data_dir / "raw"
    target = root.joinpath(*folders, name)
    try:
        path.chmod(0o600)
        sync(path)
        _private(root, *folders)
        if target.exists() and not _holds(target, digest, size):
            aside = target.with_name(f"{name}.damaged-{time.time_ns()}")
            target.rename(aside)
            log = structlog.get_logger(component="PipelineOrchestrator")
            log.warning("a raw file was damaged: set aside, and written again", file=str(target), aside=str(aside))
        if target.exists():
            path.unlink()
        else:
            path.rename(target)
            sync(target.parent)
    except OSError as exc:
        raise _refused(root, exc) from exc
    return RawFile(str(target.absolute()), digest, size)


def put_note(data_dir: Path, folders: Sequence[str], name: str, text: str) -> None:
    """Write a small text beside the raw files, whole or not at all; an older one of that name gives way."""
    root = data_dir / "raw"
    # Beside the other parts: there a sweep finds it when this process dies.
    part = parts_folder(data_dir) / f"{uuid4().hex}.part"
    fd = hold_new(part)
    try:
        write_all(fd, text.encode(), part)
        _private(root, *folders)
        part.rename(root.joinpath(*folders, name))
        sync(root.joinpath(*folders))
    except OSError as exc:
        raise _refused(root, exc) from exc
    finally:
        part.unlink(missing_ok=True)
        os.close(fd)


def parts_folder(data_dir: Path) -> Path:
    """The folder of what is on its way into ``raw/``, made if need be."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        _private(data_dir, "raw", ".part")
    except OSError as exc:
        raise _refused(data_dir / "raw", exc) from exc
    return data_dir / "raw" / ".part"


def hold_new(path: Path) -> int:
    """A descriptor of a new file that is locked while this process lives."""
    try:
        while (fd := _held(path)) < 0:
            pass
    except OSError as exc:
        raise _refused(path.parent.parent, exc) from exc
    return fd


def hold_note(folder: Path, name: str, text: str) -> int:
    """A descriptor of a new file of that text, on the disk with its name; it is locked while this process lives."""
    part = folder / f"{uuid4().hex}.part"
    fd = hold_new(part)
    try:
        write_all(fd, text.encode(), part)
        part.rename(folder / name)
        sync(folder)
    except BaseException as exc:
        part.unlink(missing_ok=True)
        os.close(fd)
        if isinstance(exc, OSError):
            raise _refused(folder.parent, exc) from exc
        raise
    return fd


def write_all(fd: int, data: bytes, path: Path) -> None:
    """Write and sync all of it."""
    try:
        _write(fd, data)
        os.fsync(fd)
    except OSError as exc:
        raise _refused(path.parent.parent, exc) from exc


@contextlib.contextmanager
def abandoned(path: Path) -> Iterator[str | None]:
    """The text of a file whose process is gone, held meanwhile; None when somebody holds it or it is gone too."""
    with _left(path) as fd:
        if fd is None or not os.fstat(fd).st_nlink:
            yield None
            return
        with open(fd, encoding="utf-8", errors="replace", closefd=False) as file:
            yield file.read()


@contextlib.contextmanager
def locked(data_dir: Path, key: str) -> Iterator[None]:
    """Wait for, and hold, one of the locks of the data folder."""
    root = data_dir / "raw"
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        _private(data_dir, "raw", ".locks")
        fd = os.open(root / ".locks" / f"{key}.lock", os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as exc:
        raise _refused(root, exc) from exc
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def located(path: Path, data_dir: Path) -> Path | None:
    """Where a raw file lies: where the ledger says, or in the data folder of now, if that was moved."""
    if path.is_file():
        return path
    moved = data_dir.joinpath(*path.parts[-_PARTS:])
    return moved if path.parts[-_PARTS : -_PARTS + 1] == ("raw",) and moved.is_file() else None


def origin_of(path: Path) -> str:
    """The origin of a file that was kept: ``raw/<origin>/<dataset>/<schema>/<day>/<name>``; "" for any other."""
    parents = path.absolute().parents
    return parents[3].name if len(parents) > _DEPTH and parents[_DEPTH].name == "raw" else ""


def sweep(data_dir: Path) -> int:
    """Remove part files whose process is gone; returns how many."""
    gone = 0
    for path in (data_dir / "raw" / ".part").glob("*.part"):
        with _left(path) as fd:
            if fd is not None:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
                    gone += 1
    return gone


def left_behind(data_dir: Path) -> list[Path]:
    """The part files whose process is gone, which a sweep would remove."""
    found = []
    for path in sorted((data_dir / "raw" / ".part").glob("*.part")):
        with _left(path) as fd:
            if fd is not None:
                found.append(path)
    return found


@dataclass(frozen=True)
class Kept:
    """What lies under ``raw/``: files, their bytes, and paths that others than their owner can get at."""

    files: int
    size: int
    loose: tuple[Path, ...]
    loose_count: int


def kept(data_dir: Path) -> Kept:
    """Everything under ``raw/``, looked at one by one. OSError where a folder cannot be read."""
    files = size = count = 0
    loose: list[Path] = []
    folders = [data_dir / "raw"] if (data_dir / "raw").is_dir() else []
    if folders and folders[0].stat().st_mode & _OTHERS:
        loose, count = [folders[0]], 1
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # a part that was kept or swept meanwhile
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                else:
                    files, size = files + 1, size + found.st_size
                if found.st_mode & _OTHERS and not entry.is_symlink():
                    count += 1
                    if len(loose) < _SHOWN:
                        loose.append(Path(entry.path))
    return Kept(files, size, tuple(loose), count)


@contextlib.contextmanager
def _left(path: Path) -> Iterator[int | None]:
    """A locked descriptor of a file that no living process holds; None for any other."""
    try:
        fd = os.open(path, os.O_RDWR)
    except OSError:  # kept or discarded since, or somebody else's
        yield None
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield None
        else:
            yield fd
    finally:
        os.close(fd)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _held(path: Path) -> int:
    """A descriptor of the new file, locked while this process lives: a sweep takes what nobody holds.

    Returns -1 when a sweep took it between making and locking.
    """
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return fd
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return -1


def _private(root: Path, *folders: str) -> None:
    """Make each folder below ``root``, for its owner alone; one that is there stays as it is."""
    for folder in folders:
        above, root = root, root / folder
        with contextlib.suppress(FileExistsError):
            root.mkdir(mode=0o700)
            sync(above)


def _holds(path: Path, digest: str, size: int) -> bool:
    if path.stat().st_size != size:
        return False
    return file_digest(path) == digest


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _refused(root: Path, exc: OSError) -> StoreError:
    return StoreError(
        f"the raw file cannot be kept in {root}: {exc.strerror or exc}",
        "Free some space or name another folder with HDI_DATA_DIR; --no-copy keeps only path and digest.",
    )


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Backups: folders that hold a store as it was at one instant, with the digest of every file.

``hdi backup DIR`` makes ``DIR/<time>/``: ``hdi-backup.json`` (the manifest), ``store/`` (what the store saved), and
when asked ``raw/``, ``runs/`` and ``configs/``. It is made under the name ``.unfinished`` and gets its own when all of
it is on the disk, so what has a name is whole. Files that the last backup there has already, byte for byte, are links
to those. What a run that died has left is gone on with.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Self

from hdi.errors import CorruptFile, RequestError, StoreError, masked
from hdi.raw import file_digest, sync
from hdi.stores.upkeep import Saved

if TYPE_CHECKING:
    from hdi.settings import Settings
    from hdi.stores import Store

MANIFEST, STORE = "hdi-backup.json", "store"
#: What else is saved when it is asked for, by the folder that it gets.
BESIDE = ("raw", "runs", "configs")
FORMAT = 1
_UNFINISHED, _LOCK = ".unfinished", ".lock"
_NAME = "%Y%m%dT%H%M%S.%fZ"
_NAMED = re.compile(r"\d{8}T\d{6}\.\d{6}Z")
_CHUNK = 1 << 20
#: Not of what is kept: downloads that are under way, and locks.
_PASSING = {".part", ".locks"}


@dataclass(frozen=True)
class File:
    """A file of a backup: where it lies in it, its size and SHA-256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a backup is of, and what it consists of. ``store`` is what the store said of itself when it was saved."""

    folder: Path
    made: str
    hdi: str
    url: str
    tables: tuple[str, ...]
    store: Mapping[str, Any]
    files: tuple[File, ...]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The manifest of a backup, or of the newest below a folder. RequestError where there is none.

        CorruptFile for one that is damaged.
        """
        if not (folder / MANIFEST).is_file():
            made = finished(folder)
            if not made:
                raise RequestError(
                    f"{folder} holds no backup", "Name a folder that `hdi backup` wrote to, or one of those in it."
                )
            folder = made[-1]
        path = folder / MANIFEST
        try:
            told = json.loads(path.read_bytes())
            if told.pop("sha256") != _digest_of(told):
                raise _damaged(path, "it is not what was written")
            if told["format"] != FORMAT:
                raise RequestError(f"{path} has format {told['format']}; this version knows {FORMAT}")
            at, hdi, url = (str(told[name]) for name in ("made", "hdi", "url"))
            files = tuple(_file(**each) for each in told["files"])
            return cls(folder, at, hdi, url, tuple(map(str, told["tables"])), _store(**told["store"]), files)
        except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as exc:
            raise _damaged(path, f"it cannot be read: {exc}") from exc

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(f.size for f in self.files)

    def check(self) -> None:
        """Read every file. CorruptFile for the first that is gone, cut or changed, and for one that was added."""
        named = {file.path for file in self.files}
        for path in (self.folder / STORE).rglob("*"):
            if not path.is_dir() and str(path.relative_to(self.folder)) not in named:
                raise _damaged(path, "it was not saved")
        for file in self.files:
            path = self.folder / file.path
            if not path.is_file():
                raise _damaged(path, "it is gone")
            if (size := path.stat().st_size) != file.size:
                raise _damaged(path, f"it has {size} bytes, and had {file.size}")
            if file_digest(path) != file.sha256:
                raise _damaged(path, "its bytes are not those that were saved")

    def write(self, folder: Path) -> None:
        """Write it into a folder, synced."""
        told = {
            "format": FORMAT, "made": self.made, "hdi": self.hdi, "url": self.url, "tables": list(self.tables),
            "store": self.store, "files": [asdict(f) for f in self.files],
        }  # fmt: skip
        path = folder / MANIFEST
        path.write_text(json.dumps(told | {"sha256": _digest_of(told)}, indent=1) + "\n", encoding="utf-8")
        path.chmod(0o600)
        sync(path)


@dataclass(frozen=True)
class Made:
    """A backup that was made: its manifest, and how much of it was there already. ``removed`` are older ones."""

    manifest: Manifest
    linked: int
    linked_bytes: int
    seconds: float
    removed: tuple[str, ...] = ()


@dataclass
class Copying:
    """The files of a backup as they come; see :class:`hdi.stores.upkeep.Copies`."""

    folder: Path
    below: str
    earlier: Mapping[str, Path]
    files: dict[str, File] = field(default_factory=dict)
    linked: int = 0
    linked_bytes: int = 0

    def add(self, source: Path, name: str) -> None:
        """Copy a file that does not change any more; link to the same bytes where they are there."""
        path = f"{self.below}/{name}"
        target = self.folder.parent / path
        size, digest = source.stat().st_size, None
        for known in (target, self.earlier.get(path)):
            if known is not None and known.is_file() and known.stat().st_size == size:
                digest = digest or file_digest(source)
                if file_digest(known) != digest:
                    continue
                if known == target or _link(known, target):
                    self.linked, self.linked_bytes = self.linked + 1, self.linked_bytes + size
                    self.files[path] = File(path, size, digest)
                    return
        self.files[path] = File(path, *copy(source, target))

    def write(self, data: bytes, name: str) -> None:
        """Keep these bytes."""
        path = f"{self.below}/{name}"
        target = self.folder.parent / path
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        target.unlink(missing_ok=True)
        target.write_bytes(data)
        target.chmod(0o600)
        sync(target)
        self.files[path] = File(path, len(data), hashlib.sha256(data).hexdigest())

    def took(self, name: str) -> None:
        """Count a file that somebody else has written."""
        path = f"{self.below}/{name}"
        target = self.folder.parent / path
        target.chmod(0o600)
        sync(target)
        self.files[path] = File(path, target.stat().st_size, file_digest(target))


def copy(source: Path, target: Path) -> tuple[int, str]:
    """Copy a file durably under a passing name first; its size and SHA-256."""
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as read, open(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as written:  # noqa: PTH123
        while data := read.read(_CHUNK):
            digest.update(data)
            size += len(data)
            written.write(data)
        written.flush()
        os.fsync(written.fileno())
    part.replace(target)
    return size, digest.hexdigest()


def back_up(
    store: Store, settings: Settings, folder: Path, tables: Sequence[str] = (), *, raw: bool = False,
    keep: int | None = None,
) -> Made:  # fmt: skip
    """Save a store; see :meth:`hdi.api.proving.Proving.back_up`."""
    if not isinstance(store, Saved):
        raise RequestError(f"{masked(store.url)} is of a kind of store that cannot be saved")
    if not store.ledger().height:
        raise RequestError(f"{masked(store.url)} does not exist, or holds nothing", "Name the store with --store.")
    _refuse_inside(store, settings, folder)
    began = time.monotonic()
    with _writing(folder):
        before = finished(folder)
        earlier = {f.path: before[-1] / f.path for f in Manifest.read(before[-1]).files} if before else {}
        work = folder / _UNFINISHED
        work.mkdir(mode=0o700, exist_ok=True)
        copies = Copying(work / STORE, STORE, earlier)
        copies.folder.mkdir(mode=0o700, exist_ok=True)
        about = store.save(copies, tables)
        parts = [copies]
        if raw:
            parts += [_beside(work, name, source, earlier) for name, source in _sources(settings).items()]
        files = {path: file for part in parts for path, file in part.files.items()}
        _clear(work, files)
        now = dt.datetime.now(dt.UTC)
        manifest = Manifest(
            folder / now.strftime(_NAME), now.isoformat().replace("+00:00", "Z"), version("hdi"), masked(store.url),
            tuple(tables), about, tuple(files[path] for path in sorted(files)),
        )  # fmt: skip
        manifest.write(work)
        _sync_folders(work)
        work.rename(manifest.folder)
        sync(folder)
        removed = [] if keep is None else _same(folder, manifest)[: -max(keep, 1)]
        for old in removed:
            shutil.rmtree(old)
    return Made(
        manifest, sum(p.linked for p in parts), sum(p.linked_bytes for p in parts), time.monotonic() - began,
        tuple(p.name for p in removed),
    )  # fmt: skip


def finished(folder: Path) -> list[Path]:
    """The backups below a folder that are whole, oldest first; one that was given another name is asked for by that."""
    return sorted(path.parent for path in folder.glob(f"*/{MANIFEST}") if _NAMED.fullmatch(path.parent.name))


def _same(folder: Path, manifest: Manifest) -> list[Path]:
    """The backups of the same store and the same tables, oldest first: others are never removed in favour of them."""
    found = []
    for path in finished(folder):
        with contextlib.suppress(CorruptFile, RequestError):  # of a damaged one nobody knows what it is of
            one = Manifest.read(path)
            found += [path] if (one.url, set(one.tables)) == (manifest.url, set(manifest.tables)) else []
    return found


def _refuse_inside(store: Store, settings: Settings, folder: Path) -> None:
    """RequestError for a folder inside of what is saved: each backup would hold those before it."""
    root = getattr(store, "root", None)
    saved = [*([root] if isinstance(root, Path) else []), *_sources(settings).values()]
    for place in saved:
        if folder.resolve().is_relative_to(place.resolve()):
            raise RequestError(
                f"{folder} lies in {place}, which is saved", "Name a folder elsewhere, best on another disk."
            )


def _sources(settings: Settings) -> dict[str, Path]:
    """The folders beside the store that are there."""
    found = {"raw": settings.data_dir / "raw", "runs": settings.data_dir / "runs"}
    if settings.config_dir is not None:
        found["configs"] = settings.config_dir
    return {name: path for name, path in found.items() if path.is_dir()}


def _beside(work: Path, name: str, source: Path, earlier: Mapping[str, Path]) -> Copying:
    """A folder beside the store, without what is under way in it."""
    copies = Copying(work / name, name, earlier)
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        if path.is_file() and not path.is_symlink() and not _PASSING.intersection(relative.parts):
            # A file that goes meanwhile was not there; a journal that grows is as long as it was.
            with contextlib.suppress(FileNotFoundError):
                copies.add(path, str(relative))
    return copies


def _clear(work: Path, files: Mapping[str, File]) -> None:
    """Remove what a run that died has left and this one does not need."""
    for path in sorted(work.rglob("*"), reverse=True):
        if path.is_dir():
            with contextlib.suppress(OSError):  # it is not empty
                path.rmdir()
        elif str(path.relative_to(work)) not in files:
            path.unlink()


def _sync_folders(work: Path) -> None:
    for path in (work, *(p for p in work.rglob("*") if p.is_dir())):
        sync(path)


def _link(known: Path, target: Path) -> bool:
    """Link to a file that is there; False where the disk knows no links."""
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    target.unlink(missing_ok=True)
    try:
        os.link(known, target)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """One process at a time writes to a folder. StoreError for what the disk refuses, and where somebody does."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as exc:
        raise _refused(folder, exc) from exc
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(
                f"another process is writing a backup to {folder}", "Run the same command again when it has ended."
            ) from None
        try:
            yield
        except OSError as exc:
            raise _refused(folder, exc) from exc
    finally:
        os.close(fd)


def _refused(folder: Path, exc: OSError) -> StoreError:
    return StoreError(
        f"the backup in {folder} could not be written: {exc}",
        "Free some space, or check the folder; the same command goes on with what is there.",
    )


def _damaged(path: Path, what: str) -> CorruptFile:
    return CorruptFile(f"the backup is damaged: {path}: {what}", "Nothing of it was restored; use another backup.")


def _store(**told: Any) -> Mapping[str, Any]:
    """What a store said of itself. LookupError or TypeError for what none says."""
    if not isinstance(told["type"], str) or not isinstance(told["tables"], dict):
        raise TypeError("it says nothing of the store")
    return told


def _file(path: str, size: int, sha256: str) -> File:
    """A file that a manifest names. ValueError or TypeError for what no backup wrote, such as a way out of it."""
    plain = PurePosixPath(path)
    if plain.is_absolute() or ".." in plain.parts or str(plain) != path or "\0" in path:
        raise ValueError(f"it names {path!r}, which is no file of the backup")
    if isinstance(size, bool) or not isinstance(size, int):
        raise TypeError(f"the size of {path} is no number")
    return File(path, size, str(sha256))


def _digest_of(told: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


__all__ = ["BESIDE", "MANIFEST", "STORE", "Copying", "File", "Made", "Manifest", "back_up", "copy", "finished"]

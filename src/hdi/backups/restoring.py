"""A backup brought back: every file is checked first, and what the store holds then is compared with what it held."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from hdi.backups import BESIDE, STORE, Manifest, copy
from hdi.errors import CorruptFile, RequestError, StoreError, masked
from hdi.raw import file_digest
from hdi.stores.upkeep import Saved, unequal

if TYPE_CHECKING:
    from hdi.settings import Settings
    from hdi.stores import Store

log = structlog.get_logger(component="Maintenance")


@dataclass(frozen=True)
class Restored:
    """What was brought back: the backup, what the store holds of it now, and files beside the store, by their kind."""

    manifest: Manifest
    tables: dict[str, dict[str, object]]
    beside: dict[str, int]
    seconds: float


def restore(
    store: Store, settings: Settings, folder: Path, tables: Sequence[str] = (), *, raw: bool = False
) -> Restored:
    """Bring a backup back; see :meth:`hdi.api.proving.Proving.restore`."""
    began = time.monotonic()
    manifest = Manifest.read(folder)
    if not isinstance(store, Saved):
        raise RequestError(f"{masked(store.url)} is of a kind of store that cannot be restored")
    store.refuse_restore(manifest.store, tables)
    places = _places(settings)
    if raw:
        _refuse_others(manifest, places)
    manifest.check()
    beside = _bring(manifest, places) if raw else {}
    found = dict(store.restore(manifest.folder / STORE, manifest.store, tables))
    if not tables and (error := unequal(masked(store.url), manifest.store["tables"], found)) is not None:
        raise error
    log.info("restored", backup=str(manifest.folder), made=manifest.made, tables=list(tables) or "all", beside=beside)
    return Restored(manifest, found, beside, time.monotonic() - began)


def _places(settings: Settings) -> dict[str, Path]:
    """Where what lies beside the store belongs."""
    configs = settings.config_dir or Path.cwd() / "configs"
    return {"raw": settings.data_dir / "raw", "runs": settings.data_dir / "runs", "configs": configs}


def _refuse_others(manifest: Manifest, places: dict[str, Path]) -> None:
    """RequestError where another file of the same name is there: nothing that is there is ever overwritten."""
    if not any(file.path.partition("/")[0] in BESIDE for file in manifest.files):
        raise RequestError(f"{manifest.folder} holds no raw files", "It was made without --raw.")
    for file in manifest.files:
        kind, _, name = file.path.partition("/")
        if kind in places and (there := places[kind] / name).exists() and file_digest(there) != file.sha256:
            raise RequestError(
                f"{there} is another file than that of the backup", "Move it away, or restore without --raw."
            )


def _bring(manifest: Manifest, places: dict[str, Path]) -> dict[str, int]:
    """Copy the files beside the store that are not there; how many of each kind."""
    brought: dict[str, int] = {}
    for file in manifest.files:
        kind, _, name = file.path.partition("/")
        if kind not in places or (target := places[kind] / name).exists():
            continue
        try:
            size, digest = copy(manifest.folder / file.path, target)
        except OSError as exc:
            raise StoreError(
                f"{target} could not be written: {exc}", "Free some space, and run the same command again."
            ) from exc
        if (size, digest) != (file.size, file.sha256):
            target.unlink()
            raise CorruptFile(f"the backup changed while it was read: {manifest.folder / file.path}")
        brought[kind] = brought.get(kind, 0) + 1
    return brought


__all__ = ["Restored", "restore"]

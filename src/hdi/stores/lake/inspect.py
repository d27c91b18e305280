"""What ``hdi doctor`` says of a lake: its format, its folder, and what attempts left that died."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from hdi.model import Finding
from hdi.stores.lake import about
from hdi.stores.lake.files import try_lock

_MEND = "The next command that writes clears them, such as hdi ingest."


def inspected(root: Path) -> list[Finding]:
    """The findings; a lake that does not exist yet has none but for its place."""
    place = next(path for path in (root, *root.absolute().parents) if os.path.exists(path))  # noqa: PTH110
    if not os.access(place, os.W_OK | os.X_OK):
        found = Finding(
            "store folder", "fail", f"{place} cannot be written", f"Give this user the right to write there: {place}"
        )
    else:
        found = Finding("store folder", "pass", f"{place} can be written")
    return [found, _layout(root), _remains(root)] if root.exists() else [found]


def _layout(root: Path) -> Finding:
    """Opening it has refused another format already."""
    if not about.told(root):
        return Finding("store layout", "pass", "nothing is stored yet")
    return Finding("store layout", "pass", f"lake format {about.FORMAT}, the one that this version knows")


def _remains(root: Path) -> Finding:
    dead = sum(_dead(root))
    if not dead:
        return Finding("dead attempts", "pass", "no attempt that died left anything in the store")
    attempts = "an attempt that died" if dead == 1 else f"{dead} attempts that died"
    return Finding("dead attempts", "warn", f"what {attempts} staged lies in {root / '_hdi' / 'staging'}", _MEND)


def _dead(root: Path) -> Iterator[bool]:
    """Of each attempt that staged something, whether its process is gone."""
    staging = root / "_hdi" / "staging"
    for folder in staging.iterdir() if staging.is_dir() else ():
        lock = try_lock(folder / "lock") if (folder / "lock").exists() else None
        yield lock is not None
        if lock is not None:
            os.close(lock)


__all__ = ["inspected"]

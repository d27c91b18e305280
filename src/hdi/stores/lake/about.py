"""``hdi.json`` of a lake: its format, its origin, and the tables that were made in it: one that is lost is missed."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import structlog

from hdi.errors import StoreError
from hdi.stores.lake.files import write_text

FORMAT = 1
NAME = "hdi.json"


def told(root: Path) -> dict[str, Any]:
    """What the file says, nothing where there is none. StoreError for one that is damaged."""
    try:
        return dict(json.loads((root / NAME).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except ValueError as exc:
        raise StoreError(
            f"{root / NAME} is damaged: {exc}",
            "Put it back from a backup, or from a copy of the lake: it has few lines.",
        ) from exc


def text(origin: str, tables: Collection[str]) -> str:
    """What the file of a lake of this origin with these tables says."""
    return json.dumps({"format": FORMAT, "origin": origin, "tables": sorted(tables)}) + "\n"


def add(root: Path, folder: Path, origin: str, tables: Collection[str] = ()) -> None:
    """Have the file say so, durably; ``folder`` is one of the writer's own on the same disk."""
    write_text(root / NAME, text(origin, made(root) | {*tables}), folder / NAME)


def intended(folder: Path) -> dict[str, Any] | None:
    """What an attempt that died was about to put in place; None where it had not come so far, or that is damaged."""
    try:
        return dict(json.loads((folder / "intent.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except ValueError as exc:
        # What no commit names is no part of a table, and goes with the next upkeep.
        structlog.get_logger(component="Store").warning("an intent is damaged", folder=str(folder), error=str(exc))
        return None


def made(root: Path) -> frozenset[str]:
    """The data tables that were made."""
    return frozenset(told(root).get("tables", ()))


def check(root: Path, ours: Collection[str]) -> None:
    """StoreError for what is no lake of this format: a file, a folder with other things than ``ours``."""
    if root.exists() and not root.is_dir():
        raise StoreError(f"{root} is a file, not a folder for a lake", "Name a folder with --store.")
    made = told(root).get("format", FORMAT)
    if made != FORMAT:
        raise StoreError(f"the lake {root} has format {made}; this version knows {FORMAT}", "Use the hdi that made it.")
    if root.exists() and not (root / NAME).exists():
        strange = [p.name for p in root.iterdir() if p.name not in ours]
        if strange:
            raise StoreError(
                f"{root} holds other things ({', '.join(sorted(strange)[:3])}) and is no lake",
                "Name an empty or new folder with --store.",
            )


__all__ = ["FORMAT", "NAME", "add", "check", "intended", "made", "text", "told"]

"""Text files for their owner alone, each there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4


def write(path: Path, lines: Iterable[str]) -> None:
    """Write a file beside its place, durably, and move it there; what was there before stays until then.

    Raises OSError.
    """
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        with open(part, "x", encoding="utf-8", opener=_opened) as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


__all__ = ["write"]

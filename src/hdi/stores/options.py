"""Options of the kinds of stores that have any; a lake has none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ServerOptions:
    """How a database server is used: how long it is waited for, which chunks are compressed, where its programs are."""

    connect_seconds: int = 10
    compress: bool = False
    compress_after_days: int = 30
    programs: Path | None = None

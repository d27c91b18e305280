"""Stores, sources and schemas of other packages, which name them as entry points."""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any


def extensions(group: str) -> tuple[EntryPoint, ...]:
    """The entry points of a group, as ``hdi.stores``. What is installed is looked at once for each search path."""
    found: tuple[EntryPoint, ...] = tuple(_found(tuple(sys.path)).select(group=group))
    return found


@lru_cache(maxsize=8)
def _found(path: tuple[str, ...]) -> Any:
    # Reading what is installed takes as long as a small query; what it is has another type in later Pythons.
    del path
    return entry_points()


__all__ = ["extensions"]

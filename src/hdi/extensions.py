"""Stores, sources and schemas of other packages, which name them as entry points."""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points


def extensions(group: str) -> tuple[EntryPoint, ...]:
    """The entry points of a group, as ``hdi.stores``. What is installed is looked at once for each search path."""
    return _found(group, tuple(sys.path))


@lru_cache(maxsize=32)
def _found(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    # Reading what is installed takes as long as a small query.
    del path
    return tuple(entry_points(group=group))


__all__ = ["extensions"]

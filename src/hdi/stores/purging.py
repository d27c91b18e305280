"""What a store may offer beside :class:`hdi.stores.Store`: to forget rejects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import polars as pl


@runtime_checkable
class Purging(Protocol):
    """A store that can forget rejects. What it has forgotten it says for ever."""

    def purge(self, stand: Sequence[int], replaced: Sequence[int], reason: str) -> pl.DataFrame:
        """Empty the records of the rejects of some units that stand, and forget those of some that were replaced.

        Both name units by number. A reject that stands keeps all but its record (:data:`hdi.frames.NO_RECORD`) and its
        message. Returns what it keeps of that (:data:`hdi.frames.PURGED`), which is empty where there was nothing.
        """

    def purged(self) -> pl.DataFrame:
        """What was purged (:data:`hdi.frames.PURGED`), oldest first."""

    def keep_purged(self, told: pl.DataFrame) -> None:
        """Say of purges of the store that units came from what that store says; what is said already is left alone."""


__all__ = ["Purging"]

"""What a store may offer beside :class:`hdi.stores.Store`: bars of trades, made by its own engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import polars as pl

    from hdi.folding import Utc
    from hdi.model import Window
    from hdi.schema import Schema


@runtime_checkable
class Folding(Protocol):
    """A store that makes bars by time of trades, so that these need not be brought."""

    def folded(
        self,
        schema: Schema,
        name: str,
        window: Window,
        instruments: pl.DataFrame | None,
        dataset: str | None,
        clock: Utc,
    ) -> Iterator[pl.DataFrame] | None:
        """The bars (:data:`hdi.folding.BAR`) of what was traded, all of them by start, in frames of bounded size.

        ``schema`` is that of trades; the arguments are those of :meth:`hdi.stores.Store.read`. Equal to what a
        :class:`hdi.folding.Folder` makes of the same rows. None where the store does not make such bars, and where
        nothing was traded: its rows say why.
        """


__all__ = ["Folding"]

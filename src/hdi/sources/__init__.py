"""Sources bring the vendor's bytes. A source is one module, found by its name (``--api NAME``).

``dbn`` takes files that the user already has; ``databento`` buys from the vendor's API. Other packages add
theirs with the entry point group ``hdi.sources``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from hdi.errors import RequestError

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

    from hdi.model import Condition, Order, Quote, Window


class Download(Protocol):
    """What a download took."""

    @property
    def wasted(self) -> int:
        """Bytes that were billed beside those of the order, for tries that broke."""


@runtime_checkable
class Source(Protocol):
    """A vendor that data is ordered from. Every method may raise VendorRefused, UnitFailed or RequestError.

    Only :meth:`download` costs money. ``origin`` is part of unit ids and raw paths.
    """

    origin: str

    def available(self, dataset: str) -> dict[str, Window]:
        """The stretch of time that can be ordered, by schema."""

    def resolve(self, dataset: str, symbols: Sequence[str], stype: str, window: Window) -> pl.DataFrame:
        """``asked, instrument_id, start, end``: what each symbol stands for on the window's UTC days.

        A symbol that stands for nothing there has no row.
        """

    def raw_symbols(self, dataset: str, instruments: Sequence[int], window: Window) -> pl.DataFrame:
        """``instrument_id, start, end, symbol``: the raw symbols of instruments on the window's UTC days."""

    def conditions(self, dataset: str, window: Window) -> list[Condition]:
        """What the vendor says of each day of the window that it knows."""

    def quote(self, order: Order) -> Quote:
        """Records, bytes and dollars of an order."""

    def count(self, order: Order) -> int:
        """How many records an order brings."""

    def download(self, order: Order, path: Path, may_waste: Callable[[int], bool] = ...) -> Download:
        """Write the order's DBN bytes to ``path``, which must not exist: the only billed call.

        ``may_waste`` is asked, before another try, with the bytes that broken tries were billed for so far. Raises
        VendorUnavailable, with what that cost, when no try came to its end or no other was allowed.
        """

    def check(self) -> dict[str, Any]:
        """Really ask the vendor: whether the key is valid, and what it opens."""


#: Sources whose data lies in files: there is nothing to order.
FILES = ("dbn",)


def names() -> list[str]:
    """The sources that ``--api`` takes."""
    return sorted({"databento", *FILES, *(e.name for e in entry_points(group="hdi.sources"))})


def open_source(name: str, **settings: Any) -> Source:
    """The source of that name; ``settings`` are those of its own group. Raises RequestError for an unknown one."""
    for entry in entry_points(group="hdi.sources"):
        if entry.name == name:
            found: Source = entry.load().open(**settings)
            return found
    if name not in names() or name in FILES:
        raise RequestError(f"unknown source {name!r}", f"Known: {', '.join(names())}.")
    opened: Source = import_module(f"hdi.sources.{name}").open(**settings)
    return opened

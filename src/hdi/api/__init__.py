"""HistoricalData: everything that hdi does, as one object. Every face (command line, later REST) calls this."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hdi.api.opened import LIBRARIES, versions
from hdi.api.proving import Proving


class HistoricalData(Proving):
    """A store and what can be done with it. Made by :meth:`open`; a context manager.

    Nothing is opened before it is used, and a store that does not exist yet is an empty one.
    """


def open(  # noqa: A001  (the word that databases have for it)
    store: Path | str | None = None, config_dir: Path | str | None = None, **flags: Any
) -> HistoricalData:
    """The data of a store (a path, ``lake:PATH``, ``postgresql://...``), by default the one that the settings name.

    The same as :meth:`HistoricalData.open`.
    """
    return HistoricalData.open(store, config_dir, **flags)


__all__ = ["LIBRARIES", "HistoricalData", "open", "versions"]

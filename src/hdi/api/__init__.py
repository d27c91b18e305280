"""HistoricalData: everything that hdi does, as one object. Every face (command line, later REST) calls this."""

from __future__ import annotations

from hdi.api.keeping import Keeping
from hdi.api.opened import LIBRARIES, versions


class HistoricalData(Keeping):
    """A store and what can be done with it. Made by :meth:`open`; a context manager.

    Nothing is opened before it is used, and a store that does not exist yet is an empty one.
    """


__all__ = ["LIBRARIES", "HistoricalData", "versions"]

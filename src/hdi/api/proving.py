"""What is proved about the rows that are stored, and what keeps the store fit for years."""

from __future__ import annotations

from hdi.api.keeping import Keeping


class Proving(Keeping):
    """The part of :class:`~hdi.api.HistoricalData` that judges, proves, maintains and restores."""

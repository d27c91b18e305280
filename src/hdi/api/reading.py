"""Rows, as they are stored or made of what is stored when somebody asks: each answer is lazy."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hdi.api.opened import Opened, text
from hdi.model import Query, Window

if TYPE_CHECKING:
    from hdi.query import Result


class Reading(Opened):
    """Reads the rows of a store; nothing is asked of a vendor, and nothing is written."""

    def query(  # noqa: PLR0913  (each is an option of the command)
        self,
        symbols: str | Sequence[str],
        start: str | dt.date,
        end: str | dt.date,
        *,
        schema: str = "ohlcv-1d",
        dataset: str | None = None,
        columns: Sequence[str] = (),
        limit: int | None = None,
    ) -> Result:
        """What is stored of these symbols (none or ``ALL_SYMBOLS``: all) in the window.

        A date as ``end`` means through that UTC day, an instant (text or ``datetime``) is exclusive. Raises
        RequestError for an unknown schema or column, UnknownSymbol for a symbol that was never stored.
        """
        from hdi.query import run

        window = Window.parse(text(start), text(end))
        asked = self.symbols_of(symbols)
        query = Query(schema, asked, window, dataset, tuple(columns), limit)
        return run(self.store(), self.schemas, query)

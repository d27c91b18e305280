"""The records of DBN version 3 as NumPy types, and what their headers hold."""

from __future__ import annotations

from typing import Any, TypeAlias

import databento_dbn as dbn
import numpy as np

from hdi.model import DAY_NS, NS
from hdi.rehearsal.sessions import HOUR_NS, MINUTE_NS

Records: TypeAlias = np.ndarray[Any, np.dtype[Any]]
TRADE, TBBO, BAR, STATISTIC, DEFINITION = (
    np.dtype(message._dtypes)  # noqa: SLF001  (the layout has no public name)
    for message in (dbn.TradeMsg, dbn.MBP1Msg, dbn.OHLCVMsg, dbn.StatMsg, dbn.InstrumentDefMsg)
)
#: Layout and record type of each schema, as the vendor numbers them.
LAYOUTS = {
    "definition": (DEFINITION, 19), "ohlcv-1s": (BAR, 32), "ohlcv-1m": (BAR, 33), "ohlcv-1h": (BAR, 34),
    "ohlcv-1d": (BAR, 35), "statistics": (STATISTIC, 24), "tbbo": (TBBO, 1), "trades": (TRADE, 0),
}  # fmt: skip
#: The width of each kind of bar in nanoseconds, widest first.
WIDTHS = {"ohlcv-1d": DAY_NS, "ohlcv-1h": HOUR_NS, "ohlcv-1m": MINUTE_NS, "ohlcv-1s": NS}


def blank(schema: str, size: int, publisher: int) -> Records:
    """Records of a schema with their headers but for instrument and time; everything else is zero."""
    layout, rtype = LAYOUTS[schema]
    out = np.zeros(size, layout)
    out["length"] = layout.itemsize // 4
    out["rtype"] = rtype
    out["publisher_id"] = publisher
    return out

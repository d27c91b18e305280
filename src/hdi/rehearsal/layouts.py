"""The records of DBN version 3 as NumPy types, and what their headers hold."""

from __future__ import annotations

from typing import Any, TypeAlias

import databento_dbn as dbn
import numpy as np

from hdi.model import DAY_NS, NS
from hdi.rehearsal.products import CONSOLIDATED, GLOBEX, NASDAQ
from hdi.rehearsal.sessions import HOUR_NS, MINUTE_NS

Records: TypeAlias = np.ndarray[Any, np.dtype[Any]]
#: The flag of the last record of a message.
LAST = 128
#: The vendor's record class of each schema.
MESSAGES: dict[str, Any] = {
    "definition": dbn.InstrumentDefMsg, "ohlcv-1s": dbn.OHLCVMsg, "ohlcv-1m": dbn.OHLCVMsg,
    "ohlcv-1h": dbn.OHLCVMsg, "ohlcv-1d": dbn.OHLCVMsg, "statistics": dbn.StatMsg, "tbbo": dbn.MBP1Msg,
    "trades": dbn.TradeMsg, "mbo": dbn.MBOMsg, "mbp-1": dbn.MBP1Msg, "mbp-10": dbn.MBP10Msg,
    "bbo-1s": dbn.BBOMsg, "bbo-1m": dbn.BBOMsg, "cmbp-1": dbn.CMBP1Msg, "cbbo-1s": dbn.CBBOMsg,
    "cbbo-1m": dbn.CBBOMsg, "tcbbo": dbn.CMBP1Msg, "ohlcv-eod": dbn.OHLCVMsg, "status": dbn.StatusMsg,
    "imbalance": dbn.ImbalanceMsg,
}  # fmt: skip
_RTYPES = {
    "definition": 19, "ohlcv-1s": 32, "ohlcv-1m": 33, "ohlcv-1h": 34, "ohlcv-1d": 35, "statistics": 24, "tbbo": 1,
    "trades": 0, "mbo": 160, "mbp-1": 1, "mbp-10": 10, "bbo-1s": 195, "bbo-1m": 196, "cmbp-1": 177, "cbbo-1s": 192,
    "cbbo-1m": 193, "tcbbo": 194, "ohlcv-eod": 36, "status": 18, "imbalance": 20,
}  # fmt: skip
#: Layout and record type of each schema, as the vendor numbers them.
LAYOUTS = {
    schema: (np.dtype(message._dtypes), _RTYPES[schema])  # noqa: SLF001  (the layout has no public name)
    for schema, message in MESSAGES.items()
}
TRADE, TBBO, BAR, STATISTIC, DEFINITION = (
    LAYOUTS[schema][0] for schema in ("trades", "tbbo", "ohlcv-1d", "statistics", "definition")
)
_SHARES = ("definition", *(f"ohlcv-1{each}" for each in "smhd"), "tbbo", "trades", "ohlcv-eod", "mbo", "mbp-1",
           "mbp-10", "bbo-1s", "bbo-1m", "status")  # fmt: skip
#: The schemas of each dataset. Shares have no settlement and no open interest, so no statistics.
SCHEMAS = {
    GLOBEX: (*_SHARES, "statistics"),
    NASDAQ: (*_SHARES, "imbalance"),
    CONSOLIDATED: ("definition", "trades", "tcbbo", "cmbp-1", "cbbo-1s", "cbbo-1m", "status"),
}
#: The width of the intervals that quotes are taken at the ends of.
INTERVALS = {"bbo-1s": NS, "bbo-1m": MINUTE_NS, "cbbo-1s": NS, "cbbo-1m": MINUTE_NS}
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

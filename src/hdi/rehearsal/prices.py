"""The price list: US dollars per GB of uncompressed records, where a GB is 2**30 bytes, as the vendor has it."""

from __future__ import annotations

from decimal import Decimal

_GB = 2**30
#: Finer than anything that is shown; the vendor's own answers end there too.
_STEP = Decimal("0.000000000001")
#: Made up, and shaped like the vendor's: what is small costs most by the byte.
_FUTURES = {
    "definition": Decimal(5), "statistics": Decimal(11), "tbbo": Decimal(21), "trades": Decimal(28),
    "ohlcv-1s": Decimal(56), "ohlcv-1m": Decimal(70), "ohlcv-1h": Decimal(280), "ohlcv-1d": Decimal(600),
    "ohlcv-eod": Decimal(600), "mbo": Decimal("1.5"), "mbp-1": Decimal(2), "mbp-10": Decimal("0.4"),
    "bbo-1s": Decimal(4), "bbo-1m": Decimal(8), "cmbp-1": Decimal(2), "cbbo-1s": Decimal(4), "cbbo-1m": Decimal(8),
    "tcbbo": Decimal(21), "status": Decimal(5), "imbalance": Decimal(5),
}  # fmt: skip
_STOCKS = {schema: price / 2 for schema, price in _FUTURES.items()}
_PRICES = {"GLBX.MDP3": _FUTURES, "XNAS.ITCH": _STOCKS, "DBEQ.BASIC": _STOCKS}


def unit_price(dataset: str, schema: str) -> Decimal:
    """US dollars per GB of a schema that the dataset has."""
    return _PRICES[dataset][schema]


def cost(dataset: str, schema: str, size: int) -> Decimal:
    """US dollars of ``size`` bytes of records, to 12 decimals."""
    return (unit_price(dataset, schema) * size / _GB).quantize(_STEP)

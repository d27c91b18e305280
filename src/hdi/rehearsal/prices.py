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
}  # fmt: skip
_STOCKS = {schema: price / 2 for schema, price in _FUTURES.items()}
_PRICES = {"GLBX.MDP3": _FUTURES, "XNAS.ITCH": _STOCKS}


def unit_price(dataset: str, schema: str) -> Decimal:
    """US dollars per GB of a schema that the dataset has."""
    return _PRICES[dataset][schema]


def cost(dataset: str, schema: str, size: int) -> Decimal:
    """US dollars of ``size`` bytes of records, to 12 decimals."""
    return (unit_price(dataset, schema) * size / _GB).quantize(_STEP)

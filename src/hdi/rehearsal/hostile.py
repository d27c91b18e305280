"""Rows that are bad on purpose: changed copies of good ones, at the same index time, at places that are drawn."""

from __future__ import annotations

from collections.abc import Callable

import databento_dbn as dbn
import numpy as np

from hdi.model import NS
from hdi.rehearsal.draws import I64, U64, keyed, text_key, unit
from hdi.rehearsal.layouts import Records

#: How the bad rows of an instrument and day are spread over the schemas.
_SHARES = {
    "trades": 0.3, "tbbo": 0.3, "ohlcv-1s": 0.15, "ohlcv-1m": 0.1, "ohlcv-1h": 0.04, "statistics": 0.05,
    "definition": 0.04, "ohlcv-1d": 0.02, "ohlcv-eod": 0.01, "mbo": 0.02, "mbp-1": 0.02, "mbp-10": 0.01,
    "bbo-1s": 0.02, "bbo-1m": 0.01, "cmbp-1": 0.3, "cbbo-1s": 0.02, "cbbo-1m": 0.01, "tcbbo": 0.3, "imbalance": 0.02,
    "status": 0.0,
}  # fmt: skip
#: Days with fewer trades have no bad rows: most of what they hold would be bad.
_BUSY = 64
_ABSURD = 10**18
#: Each turns good rows, given as views of the output, into ones that break a rule of severity ERROR.
_Fault = Callable[[Records], None]


def _set(name: str, value: int | bytes) -> _Fault:
    def change(rows: Records) -> None:
        rows[name] = value

    return change


def _low_above_high(rows: Records) -> None:
    rows["open"] = rows["close"] = rows["high"]
    rows["low"] = rows["high"] + NS


def _close_above_high(rows: Records) -> None:
    rows["close"] = rows["high"] + NS


def _open_below_low(rows: Records) -> None:
    rows["open"] = rows["low"] - NS


_TICK = _set("size", 0), _set("side", b"X"), _set("price", dbn.UNDEF_PRICE), _set("price", _ABSURD)
#: A book may lack a price or a size, and a quote a trade.
_QUOTE = _set("side", b"X"), _set("price", _ABSURD)
_BAR = _low_above_high, _close_above_high, _open_below_low, _set("open", dbn.UNDEF_PRICE), _set("high", _ABSURD)
_FAULTS: dict[str, tuple[_Fault, ...]] = {
    "trades": _TICK, "tbbo": _TICK, "ohlcv-1s": _BAR, "ohlcv-1m": _BAR, "ohlcv-1h": _BAR, "ohlcv-1d": _BAR,
    "ohlcv-eod": _BAR, "mbo": (*_QUOTE, _set("action", b"X")), "mbp-1": _QUOTE, "mbp-10": _QUOTE, "bbo-1s": _QUOTE,
    "bbo-1m": _QUOTE, "cmbp-1": _QUOTE, "cbbo-1s": _QUOTE, "cbbo-1m": _QUOTE, "tcbbo": _TICK,
    "imbalance": (_set("side", b"X"), _set("ref_price", _ABSURD)), "status": (),
    "statistics": (_set("price", _ABSURD), _set("update_action", 0)),
    "definition": (_set("min_price_increment", _ABSURD), _set("raw_symbol", b"")),
}  # fmt: skip


class Hostility:
    """Where the bad rows of a schema are: ``hostile`` of them for each busy instrument and day, over all schemas."""

    def __init__(self, schema: str, hostile: int) -> None:
        self._share = hostile * _SHARES[schema]
        self._salt = text_key(f"hostile {schema}")
        self._faults = _FAULTS[schema]

    def places(self, key: U64, trades: I64, total: I64) -> tuple[I64, I64, U64]:
        """``(row, place, draw)`` of each bad row, for rows (instrument and day) of ``total`` places: 0 to total - 1.

        Sorted by row and place. Rows with few trades have none.
        """
        salted = keyed(key, self._salt)
        points = np.floor(self._share + unit(salted)).astype(np.int64) * ((trades >= _BUSY) & (total > 0))
        row = np.repeat(np.arange(len(key)), points)
        index = np.arange(len(row)) - np.repeat(np.cumsum(points) - points, points)
        draw = keyed(salted[row], index)
        place = ((index + unit(draw, 0, 24)) * (total[row] / points[row])).astype(np.int64)
        return row, np.minimum(place, total[row] - 1), draw

    def spoil(self, rows: Records, which: I64, draw: U64) -> None:
        """Change records in place, at the positions ``which``, as each draw says."""
        kind = (draw >> np.uint64(32)) % np.uint64(len(self._faults))
        for number, change in enumerate(self._faults):
            chosen = which[kind == number]
            bad = rows[chosen]
            change(bad)
            rows[chosen] = bad


def moved(order: I64, good: int) -> I64:
    """Where the bad copies, which stood behind ``good`` rows, are after sorting by ``order``; in the order they had."""
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return place[good:]

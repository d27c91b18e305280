"""DBN files as the vendor writes them: any schema, any version, complete or a fragment.

Records come from the vendor's own layouts, so what is written is what the vendor's decoder reads. Times
are nanoseconds UTC, prices fixed-point integers of 1e-9 (:data:`PX` is one).
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import databento_dbn as dbn
import numpy as np
import zstandard

from hdi.model import DAY_NS, NS, Window, date_ns, ns_date
from hdi.sources.records import MESSAGES, layout

PX = 10**9
DATASET = "GLBX.MDP3"
MINUTE = 60 * NS
#: Windows and mappings are given as dates or nanoseconds.
Instant = dt.date | str | int


@dataclass(frozen=True)
class Interval:
    """One dated line of a mapping: the days (end exclusive) on which a symbol stood for ``symbol``."""

    start_date: dt.date
    end_date: dt.date
    symbol: str


@dataclass(frozen=True)
class _Mapping:
    raw_symbol: str
    intervals: Sequence[Interval]


def ns(at: Instant) -> int:
    """Nanoseconds of a date, of its text, or of themselves."""
    if isinstance(at, str):
        at = dt.date.fromisoformat(at)
    return date_ns(at) if isinstance(at, dt.date) else at


def records(schema: str, n: int, version: int = 3, **columns: Any) -> np.ndarray:
    """``n`` records of a schema that no rule refuses, with ``columns`` (scalars or arrays) laid over them.

    By default an instrument 1 of publisher 1, one record a minute from 2024-01-02, prices that differ.
    """
    out = np.zeros(n, layout(schema, version))
    at = np.arange(n)
    start = ns("2024-01-02")
    values: dict[str, Any] = {
        "length": out.itemsize // 4, "rtype": int(dbn.RType.from_schema(dbn.Schema(schema)).value),
        "publisher_id": 1, "instrument_id": 1, "ts_event": start + at * MINUTE, "sequence": at + 1,
    }  # fmt: skip
    if "ts_recv" in (out.dtype.names or ()):
        values["ts_recv"] = values["ts_event"] + 1_234
    values |= _OF[MESSAGES[schema]](n) | columns
    if "quantity" in (out.dtype.names or ()):  # undefined is the maximum of its type, which grew in version 3
        values.setdefault("quantity", np.iinfo(out.dtype["quantity"]).max)
    if "ts_event" in columns and "ts_recv" not in columns and "ts_recv" in values:
        values["ts_recv"] = np.asarray(columns["ts_event"], dtype=np.uint64) + np.uint64(1_234)
    for name, value in values.items():
        if name in (out.dtype.names or ()):
            out[name] = value
    return out


def _trades(n: int) -> dict[str, Any]:
    return {"price": (4_700 + np.arange(n) % 97) * PX, "size": 1 + np.arange(n) % 5, "action": b"T", "side": b"B"}


def _tbbo(n: int) -> dict[str, Any]:
    price = _trades(n)["price"]
    book = {"bid_px_00": price - PX // 4, "ask_px_00": price, "bid_sz_00": 3, "ask_sz_00": 4, "bid_ct_00": 1}
    return _trades(n) | book | {"ask_ct_00": 2}


def _ohlcv(n: int) -> dict[str, Any]:
    base = (4_700 + np.arange(n) % 89) * PX
    return {"open": base, "high": base + 3 * PX, "low": base - 2 * PX, "close": base + PX, "volume": 100 + np.arange(n)}


def _statistics(n: int) -> dict[str, Any]:
    return {
        "price": (4_700 + np.arange(n) % 97) * PX, "stat_type": 3, "update_action": 1,
        "ts_ref": ns("2024-01-01"), "channel_id": 1,
    }  # fmt: skip


def _definition(n: int) -> dict[str, Any]:
    return {
        "raw_symbol": b"ESH4", "asset": b"ES", "instrument_class": b"F", "security_update_action": b"A",
        "expiration": ns("2024-03-15"), "activation": ns("2022-12-16"), "min_price_increment": PX // 4,
        "high_limit_price": 5_000 * PX, "low_limit_price": 4_000 * PX, "unit_of_measure_qty": 50 * PX,
        "ts_event": ns("2024-01-01") + np.arange(n) * MINUTE, "ts_recv": ns("2024-01-02") + np.arange(n) * MINUTE,
    }  # fmt: skip


def _ten_levels(n: int) -> dict[str, Any]:
    book = _tbbo(n)
    away = {"bid": -1, "ask": 1}
    prices = {
        f"{side}_px_{k:02d}": book[f"{side}_px_00"] + sign * k * PX // 4
        for side, sign in away.items() for k in range(10)
    }  # fmt: skip
    return (
        book | prices | {f"{side}_{what}_{k:02d}": k + 1 for side in away for what in ("sz", "ct") for k in range(10)}
    )


def _mbo(n: int) -> dict[str, Any]:
    return _trades(n) | {"action": b"A", "order_id": 6_411_746_357_495 + np.arange(n), "channel_id": 3}


def _consolidated(n: int) -> dict[str, Any]:
    return _tbbo(n) | {"bid_pb_00": 30, "ask_pb_00": 37}


def _status(n: int) -> dict[str, Any]:
    return {
        "action": 7 + np.arange(n) % 2, "reason": 1, "is_trading": b"Y", "is_quoting": b"Y",
        "is_short_sell_restricted": b"~",
    }  # fmt: skip


def _imbalance(n: int) -> dict[str, Any]:
    names = ("ref", "cont_book_clr", "auct_interest_clr", "ind_match")
    prices = {f"{name}_price": (522 + np.arange(n) % 7) * PX for name in names}
    rest = {"auction_type": b"O", "side": b"B", "unpaired_side": b"N", "significant_imbalance": b"L"}
    return prices | rest | {"paired_qty": 70_000 + np.arange(n), "total_imbalance_qty": 281, "upper_collar": 600 * PX}


_OF = {
    "TradeMsg": _trades, "MBP1Msg": _tbbo, "OHLCVMsg": _ohlcv, "StatMsg": _statistics, "InstrumentDefMsg": _definition,
    "MBOMsg": _mbo, "MBP10Msg": _ten_levels, "BBOMsg": _tbbo, "CMBP1Msg": _consolidated, "CBBOMsg": _consolidated,
    "StatusMsg": _status, "ImbalanceMsg": _imbalance,
}  # fmt: skip


def mapped(days: Mapping[str, Sequence[tuple[Instant, Instant, int | str]]]) -> list[_Mapping]:
    """Mappings from ``{symbol: [(start, end, what it stands for), ...]}``; ends are exclusive."""
    return [
        _Mapping(symbol, [Interval(ns_date(ns(a)), ns_date(ns(b)), str(to)) for a, b, to in intervals])
        for symbol, intervals in days.items()
    ]


def write(
    path: Path, schema: str, rows: np.ndarray, *, symbols: Sequence[str] = ("ESH4",), stype_in: str = "raw_symbol",
    window: tuple[Instant, Instant] | None = ("2024-01-02", "2024-01-03"), version: int = 3,
    mappings: Mapping[str, Sequence[tuple[Instant, Instant, int | str]]] | None = None, limit: int | None = None,
    dataset: str = DATASET, pack: bool = True,
) -> Path:  # fmt: skip
    """Write one file and return its path. Without ``symbols``, ``window`` (or with ``limit``) it is a fragment.

    Without ``mappings`` the first symbol stands for every instrument of the rows, through the window.
    """
    start, end = (ns(window[0]), ns(window[1])) if window else (0, None)
    if mappings is None:
        days = (ns_date(start), ns_date((end or start + DAY_NS) - 1) + dt.timedelta(days=1))
        ids = np.unique(rows["instrument_id"]).tolist() if symbols else []
        mappings = {symbols[0]: [(*days, i) for i in ids]} if ids else {}
    metadata = dbn.Metadata(
        dataset=dataset, start=start, end=end, limit=limit, stype_in=dbn.SType.from_str(stype_in),
        stype_out=dbn.SType.from_str("instrument_id"), schema=dbn.Schema.from_str(schema), symbols=list(symbols),
        partial=[], not_found=[], mappings=mapped(mappings), version=version,
    )  # fmt: skip
    data = metadata.encode() + rows.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zstandard.ZstdCompressor(level=1, write_checksum=True).compress(data) if pack else data)
    return path


def fragment(path: Path, schema: str, rows: np.ndarray, **rest: Any) -> Path:
    """Write a file that does not say what was asked for."""
    return write(path, schema, rows, **({"symbols": (), "window": None} | rest))


def window(start: Instant, end: Instant) -> Window:
    """The half-open window between two instants."""
    return Window(ns(start), ns(end))

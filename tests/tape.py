"""A small SYNTHETIC tape as DBN files: what tests ingest, and check answers against.

Seven instruments of ES and CL over 2 to 4 January 2024, and daily bars to the end of March. The six
files tell one story: quotes repeat the trades, minute and daily bars add them up, settlements are last
prices. A few rows are hostile on purpose; :class:`Tape` says which.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import databento_dbn as dbn
import numpy as np

from hdi.model import DAY_NS, NS, Window, date_ns, ns_date
from hdi.sources.dbn import pack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from databento_dbn.metadata import MappingInterval

DATASET = "GLBX.MDP3"
PUBLISHER = 1
#: The days with trades, and the end of the daily bars (exclusive).
TICK_DAYS = (dt.date(2024, 1, 2), dt.date(2024, 1, 3), dt.date(2024, 1, 4))
BARS_END = dt.date(2024, 4, 1)
_HOLIDAYS = frozenset({dt.date(2024, 1, 1), dt.date(2024, 1, 15), dt.date(2024, 2, 19), dt.date(2024, 3, 29)})
_SATURDAY = 5
_MINUTE_NS = 60 * NS
#: Trading stops at 22:00 UTC, so that what is published after it can sum up the day.
_SESSION_MINUTES = 22 * 60
_OUT_OF_RANGE = 10**18
_SETTLEMENT = 3
#: How often a trade belongs to the burst of the one before, and how often it is then equal to it in all.
_BURST, _EQUAL = 0.1, 0.5
_TRADEMSG, _MBP1MSG, _OHLCVMSG, _STATMSG, _INSTRUMENTDEFMSG = (
    np.dtype(message._dtypes)
    for message in (dbn.TradeMsg, dbn.MBP1Msg, dbn.OHLCVMsg, dbn.StatMsg, dbn.InstrumentDefMsg)
)
#: The record types of the schemas, as the vendor numbers them.
_TRADE, _TBBO, _OHLCV_1M, _OHLCV_1D, _STATISTICS = 0, 1, 33, 35, 24

Changes = dict[str, Any]
#: Which columns a hostile copy of a good record changes, and the error rules that it then breaks.
Fault = tuple["Callable[[np.void], Changes]", tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Contract:
    """One instrument: prices in 1e-9 units, ``trades`` a day in the tick files (0: none)."""

    symbol: str
    id: int
    asset: str
    expires: dt.datetime
    tick: int
    price: int
    trades: int = 0
    legs: tuple[str, ...] = ()

    @property
    def parent(self) -> str:
        """The parent symbol under which the instrument is found."""
        return f"{self.asset}.FUT"


def _contract(symbol: str, number: int, expires: str, price: float, trades: int = 0) -> Contract:
    asset = symbol[:2]
    tick = 250_000_000 if asset == "ES" else 10_000_000
    return Contract(
        symbol,
        number,
        asset,
        dt.datetime.fromisoformat(expires),
        tick,
        round(price * 1e9),
        trades,
        tuple(symbol.split("-")) if "-" in symbol else (),
    )


CONTRACTS = {
    c.symbol: c
    for c in (
        _contract("ESH4", 9101, "2024-03-15T13:30Z", 4790.0, 4_000),
        _contract("ESM4", 9102, "2024-06-21T13:30Z", 4842.5, 500),
        _contract("ESH4-ESM4", 9103, "2024-03-15T13:30Z", -52.5, 60),
        _contract("CLG4", 9201, "2024-01-22T19:30Z", 71.5, 2_500),
        _contract("CLH4", 9202, "2024-02-20T19:30Z", 71.7),
        _contract("CLJ4", 9203, "2024-03-20T18:30Z", 71.9),
        _contract("CLK4", 9204, "2024-04-22T18:30Z", 72.1),
    )
}
#: The front contracts by calendar: each serves through its last trading day.
FRONT = {"CL.c.0": ("CLG4", "CLH4", "CLJ4", "CLK4"), "ES.c.0": ("ESH4", "ESM4")}


@dataclass(frozen=True)
class Tape:
    """What was written. ``rows`` counts all records of a file, planted ones among them.

    ``planted`` names, by file and position in it (from 0), the error rules that a hostile row breaks:
    exactly these rows must end in quarantine.
    """

    paths: tuple[Path, ...]
    rows: Mapping[Path, int]
    planted: Mapping[Path, Mapping[int, tuple[str, ...]]]

    def hostile(self, path: Path) -> dict[str, int]:
        """How many rows of a file break each rule; one row may break several."""
        return dict(Counter(rule for rules in self.planted[path].values() for rule in rules))


@dataclass(frozen=True)
class _File:
    """One file to write: records in the order of their index time, and what was asked for."""

    schema: str
    stype: str
    symbols: tuple[str, ...]
    window: Window
    mappings: dict[str, list[_Interval]]
    records: np.ndarray
    faults: tuple[Fault, ...] = ()


@dataclass
class _Interval:
    start_date: dt.date
    end_date: dt.date
    symbol: str


@dataclass
class _Mapping:
    raw_symbol: str
    intervals: Sequence[MappingInterval]


def make_tape(folder: Path, *, seed: int = 0) -> Tape:
    """Write the six files into ``folder`` (made if need be); the same seed gives the same bytes."""
    rng = np.random.default_rng(seed)
    trades = {c.symbol: _trades(c, rng) for c in CONTRACTS.values() if c.trades}
    ticks = Window(date_ns(TICK_DAYS[0]), date_ns(TICK_DAYS[-1]) + DAY_NS)
    bars = Window(date_ns(dt.date(2024, 1, 1)), date_ns(BARS_END))
    parents = ("ES.FUT", "CL.FUT")
    es = tuple(s for s in trades if CONTRACTS[s].parent == "ES.FUT")
    quoted, barred = ("ESH4", "CLG4"), ("ESH4", "ESM4", "CLG4")
    quotes = [_quotes(trades[s], CONTRACTS[s], rng) for s in quoted]
    minutes = [_bars(trades[s], _MINUTE_NS, _OHLCV_1M) for s in barred]
    statistics = _statistics({s: trades[s] for s in barred}, rng)
    everything = _raw(tuple(CONTRACTS), ticks)
    files = (
        _File("trades", "parent", ("ES.FUT",), ticks, _raw(es, ticks), _merge([trades[s] for s in es]), _TICK_FAULTS),
        _File("tbbo", "raw_symbol", quoted, ticks, _raw(quoted, ticks), _merge(quotes), _TICK_FAULTS[:4]),
        _File("ohlcv-1m", "raw_symbol", barred, ticks, _raw(barred, ticks), _merge(minutes, "ts_event"), _BAR_FAULTS),
        _File("ohlcv-1d", "continuous", tuple(FRONT), bars, _fronts(), _daily(trades, rng), _BAR_FAULTS[:2]),
        _File("statistics", "raw_symbol", barred, ticks, _raw(barred, ticks), statistics, _STATISTIC_FAULTS),
        _File("definition", "parent", parents, ticks, everything, _definitions(), _DEFINITION_FAULTS),
    )
    folder.mkdir(parents=True, exist_ok=True)
    return _write(folder, files, rng)


def make_files(folder: Path, *, seed: int = 0) -> list[Path]:
    """Write the tape as :func:`make_tape` does and return the files alone."""
    return list(make_tape(folder, seed=seed).paths)


def _trades(contract: Contract, rng: np.random.Generator) -> np.ndarray:
    """The trades of all days: a walk on ticks, in bursts that share time and sequence."""
    days = [_day_of_trades(contract, day, rng) for day in TICK_DAYS]
    out = np.concatenate(days)
    out["price"] = contract.price + contract.tick * np.cumsum(rng.choice((-1, 0, 0, 1), len(out)))
    # A burst is one aggressor who meets several resting orders, so some of its fills are equal in all.
    equal = np.flatnonzero(np.r_[False, out["sequence"][1:] == out["sequence"][:-1]] & (rng.random(len(out)) < _EQUAL))
    out["price"][equal] = out["price"][equal - 1]
    out["size"][equal] = out["size"][equal - 1]
    return out


def _day_of_trades(contract: Contract, day: dt.date, rng: np.random.Generator) -> np.ndarray:
    n = contract.trades
    out = np.zeros(n, _TRADEMSG)
    weights = np.where(np.arange(_SESSION_MINUTES) >= 14 * 60 + 30, 4.0, 1.0)
    minute = rng.choice(_SESSION_MINUTES, n, p=weights / weights.sum())
    # Event and receipt fall into the same minute, so that bars are the same by either time.
    ts = np.sort(date_ns(day) + minute * _MINUTE_NS + rng.integers(0, 59 * NS, n))
    leader = np.maximum.accumulate(np.where(rng.random(n) < _BURST, 0, np.arange(n)))
    latency = rng.integers(40_000, 900_000, n)
    out["ts_event"] = ts[leader]
    out["ts_recv"] = np.maximum.accumulate((ts + latency)[leader])
    out["sequence"] = 1 + leader + contract.id * 10_000
    out["ts_in_delta"] = rng.integers(9_000, 30_000, n)[leader]
    out["size"] = rng.geometric(0.4, n)
    out["side"] = rng.choice(np.array([b"A", b"B", b"N"]), n, p=(0.49, 0.49, 0.02))[leader]
    out["action"] = b"T"
    out["flags"] = np.where(np.r_[leader[1:] != leader[:-1], True], 128, 0)
    _header(out, _TRADE, contract.id)
    return out


def _quotes(trades: np.ndarray, contract: Contract, rng: np.random.Generator) -> np.ndarray:
    """The same trades with the book just before each: some crossed, some with an empty side."""
    n = len(trades)
    out = np.zeros(n, _MBP1MSG)
    for name in trades.dtype.names or ():
        out[name] = trades[name]
    spread = rng.choice((1, 2), n, p=(0.9, 0.1)) * contract.tick
    sold = trades["side"] == b"A"
    out["bid_px_00"] = np.where(sold, trades["price"], trades["price"] - spread)
    out["ask_px_00"] = out["bid_px_00"] + spread
    crossed = rng.choice(n, 5, replace=False)
    out["bid_px_00"][crossed] = out["ask_px_00"][crossed] + contract.tick
    for name in ("bid_sz_00", "ask_sz_00"):
        out[name] = rng.integers(1, 200, n)
    for name in ("bid_ct_00", "ask_ct_00"):
        out[name] = rng.integers(1, 40, n)
    empty = rng.choice(n, 5, replace=False)
    out["bid_px_00"][empty] = dbn.UNDEF_PRICE
    out["bid_sz_00"][empty] = out["bid_ct_00"][empty] = 0
    _header(out, _TBBO, contract.id)
    return out


def _bars(trades: np.ndarray, width: int, rtype: int) -> np.ndarray:
    """The bars that the trades of one instrument add up to."""
    start = trades["ts_event"] // width * width
    first = np.flatnonzero(np.r_[True, start[1:] != start[:-1]])
    last = np.r_[first[1:], len(trades)] - 1
    out = np.zeros(len(first), _OHLCVMSG)
    out["ts_event"] = start[first]
    out["open"] = trades["price"][first]
    out["high"] = np.maximum.reduceat(trades["price"], first)
    out["low"] = np.minimum.reduceat(trades["price"], first)
    out["close"] = trades["price"][last]
    out["volume"] = np.add.reduceat(trades["size"].astype(np.uint64), first)
    _header(out, rtype, int(trades["instrument_id"][0]))
    return out


def _daily(trades: Mapping[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Daily bars of the front contracts: from the trades where there are any, else a walk that goes on."""
    parts = []
    for chain in FRONT.values():
        traded = _bars(trades[chain[0]], DAY_NS, _OHLCV_1D)
        parts.append(traded)
        level, base = int(traded["close"][-1]), CONTRACTS[chain[0]].price
        first = TICK_DAYS[-1] + dt.timedelta(days=1)
        for day in (first + dt.timedelta(days=i) for i in range((BARS_END - first).days)):
            if day.weekday() >= _SATURDAY or day in _HOLIDAYS:
                continue
            contract = next(c for c in map(CONTRACTS.__getitem__, chain) if c.expires.date() >= day)
            bar = np.zeros(1, _OHLCVMSG)
            walk = level + contract.tick * np.cumsum(np.r_[0, rng.integers(-9, 10, 40)])
            level = int(walk[-1])
            walk += contract.price - base
            bar["ts_event"], bar["open"], bar["close"] = date_ns(day), walk[0], walk[-1]
            bar["high"], bar["low"], bar["volume"] = walk.max(), walk.min(), rng.integers(200_000, 2_000_000)
            _header(bar, _OHLCV_1D, contract.id)
            parts.append(bar)
    return _merge(parts, "ts_event")


def _statistics(trades: Mapping[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Open, high, low, settlement (the last price), volume and open interest of each contract and day."""
    kinds = (("open", 1), ("close", _SETTLEMENT), ("low", 4), ("high", 5), ("volume", 6), ("interest", 9))
    parts = []
    for symbol, rows in trades.items():
        days = _bars(rows, DAY_NS, _OHLCV_1D)
        for at, (name, code) in enumerate(kinds):
            out = np.zeros(len(days), _STATMSG)
            out["ts_ref"] = days["ts_event"]
            out["ts_event"] = days["ts_event"] + _SESSION_MINUTES * _MINUTE_NS + at * NS
            out["ts_recv"] = out["ts_event"] + 150_123
            out["price"], out["quantity"] = dbn.UNDEF_PRICE, dbn.UNDEF_STAT_QUANTITY
            if name == "interest":
                out["quantity"] = 100_000 + np.cumsum(rng.integers(-500, 500, len(days)))
            else:
                out["quantity" if name == "volume" else "price"] = days[name]
            out["stat_type"], out["update_action"] = code, 1
            out["sequence"] = 1 + np.arange(len(days)) * len(kinds) + at
            out["stat_flags"] = int(code == _SETTLEMENT)
            _header(out, _STATISTICS, CONTRACTS[symbol].id)
            parts.append(out)
    return _merge(parts)


def _definitions() -> np.ndarray:
    """The midnight snapshot of each day: one record for an outright, one for each leg of a spread."""
    return np.concatenate(
        [
            _definition(contract, day, leg)
            for day in TICK_DAYS
            for contract in CONTRACTS.values()
            for leg in range(max(1, len(contract.legs)))
        ]
    )


def _definition(contract: Contract, day: dt.date, leg: int) -> np.ndarray:
    unit, quantity = ("IPNT", 50) if contract.asset == "ES" else ("BBL", 1_000)
    message = dbn.InstrumentDefMsg(
        # The snapshot repeats what was announced the evening before.
        PUBLISHER, contract.id, ts_event=date_ns(day) - 12 * 3600 * NS + 123_456_789, ts_recv=date_ns(day),
        min_price_increment=contract.tick, display_factor=NS, raw_symbol=contract.symbol, asset=contract.asset,
        security_type="FUT", instrument_class=dbn.InstrumentClass.from_str("S" if contract.legs else "F"),
        security_update_action=dbn.SecurityUpdateAction.from_str("A"), cfi="FXXXSX", group=contract.asset,
        currency="USD", settl_currency="USD", unit_of_measure=unit,
        exchange="XCME" if contract.asset == "ES" else "XNYM",
    )  # fmt: skip
    # The constructor fills what is not given with the vendor's nulls.
    out = np.frombuffer(bytes(message), _INSTRUMENTDEFMSG).copy()
    values: Changes = {
        "raw_instrument_id": contract.id, "expiration": int(contract.expires.timestamp()) * NS,
        "activation": date_ns(dt.date(2022, 12, 16)), "high_limit_price": contract.price + 400 * contract.tick,
        "low_limit_price": contract.price - 400 * contract.tick, "max_price_variation": 20 * contract.tick,
        "unit_of_measure_qty": quantity * NS, "min_price_increment_amount": contract.tick * quantity,
        "min_trade_vol": 1, "max_trade_vol": 10_000, "market_depth": 10, "market_segment_id": 64, "channel_id": 310,
        "maturity_year": contract.expires.year, "maturity_month": contract.expires.month, "match_algorithm": b"F",
    }  # fmt: skip
    if contract.legs:
        part = CONTRACTS[contract.legs[leg]]
        values |= {
            "leg_count": len(contract.legs), "leg_index": leg, "leg_instrument_id": part.id,
            "leg_raw_symbol": part.symbol.encode(), "leg_instrument_class": b"F", "leg_side": (b"B", b"A")[leg],
            "leg_ratio_qty_numerator": 1, "leg_ratio_qty_denominator": 1,
        }  # fmt: skip
    for name, value in values.items():
        out[name] = value
    return out


def _header(rows: np.ndarray, rtype: int, instrument_id: int) -> None:
    rows["length"] = rows.itemsize // 4
    rows["rtype"] = rtype
    rows["publisher_id"] = PUBLISHER
    rows["instrument_id"] = instrument_id


def _merge(parts: Sequence[np.ndarray], key: str = "ts_recv") -> np.ndarray:
    rows = np.concatenate(parts)
    return rows[np.argsort(rows[key], kind="stable")]


def _raw(symbols: Sequence[str], window: Window) -> dict[str, list[_Interval]]:
    first, end = ns_date(window.start), ns_date(window.end)
    return {s: [_Interval(first, end, str(CONTRACTS[s].id))] for s in symbols}


def _fronts() -> dict[str, list[_Interval]]:
    """The dated instrument ids of the continuous symbols over the window of the daily bars."""
    out: dict[str, list[_Interval]] = {}
    for symbol, chain in FRONT.items():
        start, out[symbol] = dt.date(2024, 1, 1), []
        for contract in map(CONTRACTS.__getitem__, chain):
            end = min(contract.expires.date() + dt.timedelta(days=1), BARS_END)
            out[symbol].append(_Interval(start, end, str(contract.id)))
            start = end
    return out


_TICK_FAULTS: tuple[Fault, ...] = (
    (lambda _: {"size": 0}, ("NON_POSITIVE_SIZE",)),
    (lambda _: {"side": b"X"}, ("INVALID_SIDE",)),
    (lambda _: {"price": dbn.UNDEF_PRICE}, ("MISSING_PRICE",)),
    (lambda _: {"price": _OUT_OF_RANGE}, ("price_out_of_range",)),
    (lambda _: {"size": 0, "side": b"X"}, ("NON_POSITIVE_SIZE", "INVALID_SIDE")),
    (lambda _: {"ts_recv": dbn.UNDEF_TIMESTAMP}, ("NO_INDEX_TIME",)),
    (lambda r: {"ts_recv": r["ts_recv"] + 30 * DAY_NS}, ("OUTSIDE_WINDOW",)),
)
_BAR_FAULTS: tuple[Fault, ...] = (
    (
        lambda r: {"low": r["high"] + NS, "open": r["high"], "close": r["high"]},
        ("HIGH_LESS_THAN_LOW", "LOW_GREATER_THAN_OPEN", "LOW_GREATER_THAN_CLOSE"),
    ),
    (lambda r: {"close": r["high"] + NS}, ("HIGH_LESS_THAN_CLOSE",)),
    (lambda _: {"open": dbn.UNDEF_PRICE}, ("MISSING_OPEN_PRICE",)),
    (lambda r: {"ts_event": r["ts_event"] + 30 * DAY_NS}, ("OUTSIDE_WINDOW",)),
)
_STATISTIC_FAULTS: tuple[Fault, ...] = (
    (lambda _: {"price": _OUT_OF_RANGE}, ("price_out_of_range",)),
    (lambda _: {"update_action": 0}, ("INVALID_UPDATE_ACTION",)),
)
_DEFINITION_FAULTS: tuple[Fault, ...] = (
    (lambda _: {"min_price_increment": _OUT_OF_RANGE}, ("price_out_of_range",)),
    (lambda _: {"raw_symbol": b""}, ("EMPTY_RAW_SYMBOL",)),
)


def _plant(
    rows: np.ndarray, faults: Sequence[Fault], rng: np.random.Generator
) -> tuple[np.ndarray, dict[int, tuple[str, ...]]]:
    """The rows with a spoiled copy of a good one for each fault right after it, and where the copies are."""
    places = np.sort(rng.choice(len(rows), len(faults), replace=False))
    bad = rows[places]
    for i, (change, _) in enumerate(faults):
        for name, value in change(rows[places[i]]).items():
            bad[name][i] = value
    return np.insert(rows, places + 1, bad), {int(places[i]) + 1 + i: rules for i, (_, rules) in enumerate(faults)}


def _write(folder: Path, files: Sequence[_File], rng: np.random.Generator) -> Tape:
    rows: dict[Path, int] = {}
    planted: dict[Path, dict[int, tuple[str, ...]]] = {}
    for file in files:
        first, last = ns_date(file.window.start), ns_date(file.window.end - 1)
        path = folder / f"SYNTHETIC-glbx-mdp3-{first:%Y%m%d}-{last:%Y%m%d}.{file.schema}.dbn.zst"
        records, planted[path] = _plant(file.records, file.faults, rng)
        rows[path] = len(records)
        path.write_bytes(_encode(file, records))
    return Tape(tuple(rows), rows, planted)


def _encode(file: _File, records: np.ndarray) -> bytes:
    metadata = dbn.Metadata(
        dataset=DATASET,
        start=file.window.start,
        end=file.window.end,
        limit=None,
        stype_in=dbn.SType.from_str(file.stype),
        stype_out=dbn.SType.from_str("instrument_id"),
        schema=dbn.Schema.from_str(file.schema),
        symbols=list(file.symbols),
        partial=[],
        not_found=[],
        mappings=[_Mapping(symbol, intervals) for symbol, intervals in file.mappings.items()],
        version=dbn.DBN_VERSION,
    )
    return pack(metadata.encode() + records.tobytes())

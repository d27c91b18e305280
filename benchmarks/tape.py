"""SYNTHETIC DBN files of any size, written chunk by chunk, with the vendor's compression (zstd level 3)."""

from __future__ import annotations

import datetime as dt
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import databento_dbn as dbn
import numpy as np
import zstandard
from benchmarks.files import CHANGES, FIRST_DAY, FRONT, OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Part of every file name: a new way of making the data must not meet files made in the old one.
VERSION = 2
NS = 1_000_000_000
DAY_NS = 86_400 * NS
CHUNK = 200_000
SESSION_MINUTES = 23 * 60
#: The most trades in one day, so that larger files hold more days, as a vendor's do.
TRADES_A_DAY = 5_000_000
_ROOTS = {
    "ES": 250_000_000, "NQ": 250_000_000, "YM": NS, "RTY": 100_000_000, "CL": 10_000_000,
    "NG": 1_000_000, "GC": 100_000_000, "SI": 5_000_000, "ZN": 15_625_000, "ZB": 31_250_000,
}  # fmt: skip
SYMBOLS = [f"{root}{month}" for month in ("H4", "M4", "U4", "Z4", "H5") for root in _ROOTS]
_TICKS = np.array([_ROOTS[s[:-2]] for s in SYMBOLS], dtype=np.int64)
_IDS = 10_000 + 37 * np.arange(len(SYMBOLS), dtype=np.uint32)
_START_TICKS = 20_000
#: The schema of a file of minute bars of a continuous symbol: after so many days it stands for the next contract.
CONTINUOUS, ROLL_DAYS, _FIRST_ID = "continuous", 63, 20_000

Records = np.ndarray[Any, np.dtype[Any]]


@dataclass
class _Interval:
    start_date: dt.date
    end_date: dt.date
    symbol: str


@dataclass
class _Mapping:
    raw_symbol: str
    intervals: list[_Interval]


def day_ns(day: dt.date) -> int:
    return (day - dt.date(1970, 1, 1)).days * DAY_NS


def make(schema: str, rows: int, folder: Path, symbol: str = "") -> Path:
    """The file of that schema and number of records, or what it holds of one symbol; made unless it is there."""
    path = folder / f"SYNTHETIC-{schema}-{rows}{symbol and '-'}{symbol}-v{VERSION}.dbn.zst"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n")
    rng = np.random.default_rng(rows)
    days = _days(schema, rows)
    chunks = {
        "trades": _trades,
        "mbp-1": _quotes,
        "ohlcv-1m": _minutes,
        "ohlcv-1d": _daily,
        CONTINUOUS: _continuous,
        "definition": _definitions,
    }[schema]
    part = path.with_suffix(".part")
    with (
        part.open("wb") as file,
        zstandard.ZstdCompressor(level=3, write_checksum=True).stream_writer(file) as out,
    ):
        out.write(_metadata(schema, rows, days, symbol))
        written = 0
        for chunk in chunks(rng, rows, days):
            mine = chunk[chunk["instrument_id"] == _IDS[SYMBOLS.index(symbol)]] if symbol else chunk
            out.write(mine.tobytes())
            written += len(chunk)
    if written != rows:
        raise AssertionError(f"{path.name}: {written} records, not {rows}")
    part.rename(path)
    return path


def _days(schema: str, rows: int) -> list[dt.date]:
    """The days that a file covers: as many as the rows need, weekdays only for what trades."""
    if schema == "definition":
        count = -(-rows // OPTIONS)
        return [FIRST_DAY + dt.timedelta(days=i) for i in range(count)]
    # Quotes are all of the day of the trades that are joined with them.
    per_day = {
        "trades": TRADES_A_DAY,
        "mbp-1": rows,
        "ohlcv-1m": SESSION_MINUTES * len(SYMBOLS),
        CONTINUOUS: SESSION_MINUTES,
        "ohlcv-1d": len(SYMBOLS),
    }[schema]
    days: list[dt.date] = []
    day = FIRST_DAY + dt.timedelta(days=1)
    while len(days) < -(-rows // per_day):
        if day.weekday() < 5:
            days.append(day)
        day += dt.timedelta(days=1)
    return days


def _metadata(schema: str, rows: int, days: list[dt.date], symbol: str = "") -> bytes:
    start, end = days[0], days[-1] + dt.timedelta(days=1)
    mappings = []
    if schema == CONTINUOUS:
        schema, stype, symbols, keys = "ohlcv-1m", "continuous", [FRONT], []
        firsts = [*days[::ROLL_DAYS], end]
        spans = [_Interval(a, b, str(_FIRST_ID + n)) for n, (a, b) in enumerate(pairwise(firsts))]
        mappings = [_Mapping(FRONT, spans)]
    elif schema == "definition":
        stype, symbols = "parent", ["ES.OPT"]
        keys = [(_option(i), 500_000 + i) for i in range(min(rows, OPTIONS))]
    else:
        stype, symbols = "raw_symbol", [symbol] if symbol else SYMBOLS
        keys = [(s, int(i)) for s, i in zip(SYMBOLS, _IDS, strict=True) if symbol in ("", s)]
    metadata = dbn.Metadata(
        dataset="GLBX.MDP3", start=day_ns(start), end=day_ns(end), limit=None, schema=dbn.Schema.from_str(schema),
        stype_in=dbn.SType.from_str(stype), stype_out=dbn.SType.from_str("instrument_id"), symbols=symbols,
        partial=[], not_found=[], version=3,
        mappings=[*mappings, *(_Mapping(key, [_Interval(start, end, str(number))]) for key, number in keys)],
    )  # fmt: skip
    return metadata.encode()


def _blank(message: Any, rows: int, rtype: int) -> Records:
    out = np.zeros(rows, np.dtype(message._dtypes))  # noqa: SLF001  (the layout has no public name)
    out["length"], out["rtype"], out["publisher_id"] = out.itemsize // 4, rtype, 1
    return out


def _trades(rng: np.random.Generator, rows: int, days: list[dt.date]) -> Iterator[Records]:
    weights = 1 / np.arange(1, len(SYMBOLS) + 1)
    cumulated = np.cumsum(weights / weights.sum())
    state = np.full(len(SYMBOLS), _START_TICKS, dtype=np.int64)
    for at, day in enumerate(days):
        left = (rows - at * TRADES_A_DAY) if day == days[-1] else TRADES_A_DAY
        pieces = -(-left // CHUNK)
        span = SESSION_MINUTES * 60 * NS // pieces
        for piece in range(pieces):
            n = min(CHUNK, left - piece * CHUNK)
            start = day_ns(day) + piece * span
            yield _trade_chunk(rng, (n, start, span), piece * CHUNK, cumulated, state)


def _trade_chunk(
    rng: np.random.Generator, shape: tuple[int, int, int], sequence: int, cumulated: Records, state: Records
) -> Records:
    n, start, span = shape
    # One aggressor meets several orders: bursts share instrument, event time, side and sequence.
    new = rng.random(n) < 0.45
    new[0] = True
    leader = np.maximum.accumulate(np.where(new, np.arange(n), 0))
    clock = np.cumsum(rng.lognormal(0, 1.8, n) * new)
    event = start + (clock / clock[-1] * span * 0.999).astype(np.int64)
    out = _blank(dbn.TradeMsg, n, 0)
    which = np.searchsorted(cumulated, rng.random(n))[leader].clip(max=len(SYMBOLS) - 1)
    out["instrument_id"] = _IDS[which]
    out["ts_event"] = event
    received = event + rng.integers(20_000, 120_000, n)[leader] + (np.arange(n) - leader) * 173
    out["ts_recv"] = np.maximum.accumulate(received)
    steps = rng.choice(np.array([-1, 0, 0, 1]), n) * (rng.random(n) < 0.6)
    out["price"] = _walk(state, which, steps) * _TICKS[which]
    out["size"] = rng.geometric(0.35, n)
    out["action"] = b"T"
    out["side"] = np.array([b"A", b"B", b"N"])[np.searchsorted([0.49, 0.98], rng.random(n))[leader]]
    out["flags"] = np.where(np.r_[new[1:], True], 128, 0)
    out["ts_in_delta"] = rng.integers(9_000, 25_000, n)
    out["sequence"] = sequence + leader + 1
    return out


def _quotes(rng: np.random.Generator, rows: int, days: list[dt.date]) -> Iterator[Records]:
    """Changes of the best bid and ask, one in twenty of them a trade."""
    for trades in _trades(rng, rows, days):
        out = _blank(dbn.MBP1Msg, len(trades), 1)
        for name in (
            "instrument_id",
            "ts_event",
            "ts_recv",
            "price",
            "size",
            "side",
            "flags",
            "ts_in_delta",
            "sequence",
        ):
            out[name] = trades[name]
        tick = _TICKS[np.searchsorted(_IDS, trades["instrument_id"])]
        out["action"] = np.where(rng.random(len(trades)) < 0.05, b"T", b"M")
        out["bid_px_00"], out["ask_px_00"] = trades["price"] - tick, trades["price"]
        for name in ("bid_sz_00", "ask_sz_00", "bid_ct_00", "ask_ct_00"):
            out[name] = rng.geometric(0.1, len(trades))
        yield out


def _walk(state: Records, which: Records, steps: Records) -> Records:
    """The price in ticks after each step, each instrument on its own; ``state`` goes on to the next chunk."""
    order = np.argsort(which.astype(np.uint16), kind="stable")
    total = np.cumsum(steps[order])
    counts = np.bincount(which, minlength=len(state))
    ends = np.cumsum(counts)
    before = np.where(ends > counts, total[ends - counts - 1], 0)
    levels = total + np.repeat(state - before, counts)
    some = counts > 0
    state[some] = levels[ends[some] - 1]
    out = np.empty(len(which), dtype=np.int64)
    out[order] = levels
    return out


def _minutes(rng: np.random.Generator, rows: int, days: list[dt.date]) -> Iterator[Records]:
    starts = np.concatenate([day_ns(day) + np.arange(SESSION_MINUTES) * 60 * NS for day in days])
    yield from _bars(rng, rows, starts, 33)


def _daily(rng: np.random.Generator, rows: int, days: list[dt.date]) -> Iterator[Records]:
    yield from _bars(rng, rows, np.array([day_ns(day) for day in days]), 35)


def _bars(rng: np.random.Generator, rows: int, starts: Records, rtype: int) -> Iterator[Records]:
    width = len(SYMBOLS)
    state = np.full(width, _START_TICKS, dtype=np.int64)
    step = CHUNK // width
    left = rows
    for at in range(0, len(starts), step):
        times = starts[at : at + step]
        shape = (len(times), width)
        close = state + np.cumsum(rng.integers(-4, 5, shape), axis=0)
        opened = np.vstack([state, close[:-1]])
        state = close[-1]
        out = _blank(dbn.OHLCVMsg, len(times) * width, rtype)
        out["ts_event"], out["instrument_id"] = np.repeat(times, width), np.tile(_IDS, len(times))
        ticks = np.tile(_TICKS, len(times))
        out["open"], out["close"] = opened.ravel() * ticks, close.ravel() * ticks
        out["high"] = (np.maximum(opened, close) + rng.integers(0, 4, shape)).ravel() * ticks
        out["low"] = (np.minimum(opened, close) - rng.integers(0, 4, shape)).ravel() * ticks
        out["volume"] = rng.geometric(0.01, len(out))
        yield out[:left]
        left -= min(left, len(out))


def _continuous(rng: np.random.Generator, rows: int, days: list[dt.date]) -> Iterator[Records]:
    state, left = _START_TICKS, rows
    for at in range(0, len(days), ROLL_DAYS):
        mine = days[at : at + ROLL_DAYS]
        out = _blank(dbn.OHLCVMsg, len(mine) * SESSION_MINUTES, 33)
        out["ts_event"] = np.concatenate([day_ns(day) + np.arange(SESSION_MINUTES) * 60 * NS for day in mine])
        out["instrument_id"] = _FIRST_ID + at // ROLL_DAYS
        close = state + np.cumsum(rng.integers(-4, 5, len(out)))
        opened = np.append(state, close[:-1])
        state = int(close[-1])
        out["open"], out["close"] = opened * _ROOTS["ES"], close * _ROOTS["ES"]
        out["high"], out["low"] = (edge(opened, close) * _ROOTS["ES"] for edge in (np.maximum, np.minimum))
        out["volume"] = rng.geometric(0.01, len(out))
        yield out[:left]
        left -= min(left, len(out))


def _option(number: int) -> str:
    return f"E{number // 400 + 1:02d}H4 {'CP'[number % 2]}{3000 + 5 * (number % 400)}"


def _definitions(_: np.random.Generator, rows: int, days: list[dt.date]) -> Iterator[Records]:
    message = dbn.InstrumentDefMsg(
        1, 0, ts_event=0, ts_recv=0, min_price_increment=50_000_000, display_factor=NS, raw_symbol="", asset="ES",
        security_type="OOF", instrument_class=dbn.InstrumentClass.from_str("C"), group="EW", exchange="XCME",
        security_update_action=dbn.SecurityUpdateAction.from_str("A"), cfi="OCAFPS", unit_of_measure="IPNT",
        currency="USD", settl_currency="USD", underlying="ESH4", strike_price_currency="USD",
    )  # fmt: skip
    numbers = np.arange(min(rows, OPTIONS))
    day = np.repeat(np.frombuffer(bytes(message), np.dtype(dbn.InstrumentDefMsg._dtypes)), len(numbers))  # noqa: SLF001
    day["instrument_id"] = day["raw_instrument_id"] = 500_000 + numbers
    day["raw_symbol"] = np.array([_option(i) for i in numbers], dtype="S71")
    day["instrument_class"] = np.where(numbers % 2 == 0, b"C", b"P")
    day["strike_price"] = (3000 + 5 * (numbers % 400)) * NS
    day["expiration"] = day_ns(dt.date(2024, 3, 15)) + numbers // 400 * DAY_NS + 21 * 3600 * NS
    day["activation"] = day_ns(dt.date(2023, 12, 1))
    day["unit_of_measure_qty"], day["underlying_id"], day["market_depth"] = 50 * NS, 10_000, 10
    day["min_trade_vol"], day["max_trade_vol"], day["maturity_year"], day["maturity_month"] = 1, 3_000, 2024, 3
    day["high_limit_price"] = 500 * NS
    left = rows
    for at, date in enumerate(days):
        # Most definitions are those of the day before; of one option in twenty the limit has moved.
        day["high_limit_price"][at % CHANGES :: CHANGES] += NS
        day["ts_recv"], day["ts_event"] = day_ns(date), day_ns(date) - 9 * 3600 * NS - numbers.astype(np.uint64) * 1_013
        yield day[:left]
        left -= min(left, len(day))


if __name__ == "__main__":
    print(make(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:]))

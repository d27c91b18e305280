"""What both stores are loaded with: the tape, and files with everything that a query can be about."""

import numpy as np

from dbnfiles import MINUTE, PX, fragment, ns, records, write
from hdi.model import DAY_NS
from hdi.testing.material import schemas
from tape import CONTRACTS, make_tape

NS = 10**9
H4, M4, G4 = (CONTRACTS[s].id for s in ("ESH4", "ESM4", "CLG4"))
#: Instruments that the tape does not know: gas, a share, and what fragments bring.
NG, NG2, SPY, LOOSE, LATE = 9401, 9402, 55, 9501, 9502
XNAS = "XNAS.ITCH"
#: What the tape and the bars below hold rows of; of every other schema there is a day.
TOLD = {"trades", "tbbo", "statistics", "definition", "ohlcv-1s", "ohlcv-1m", "ohlcv-1h", "ohlcv-1d"}
NO_PRICE = 2**63 - 1
TICKS = ("2024-01-02", "2024-01-05")
#: Index times inside one microsecond and just beside it, from this instant on.
EDGE = ns("2024-01-09") + 3_600 * NS
BESIDE = (0, 1, 999, 1_000, 1_999, 2_000)


def fill(pair, folder):
    """Store everything; returns the tape."""
    tape = make_tape(folder / "tape")
    pair.stored(*tape.paths)
    pair.stored(*_bars(folder), *_ticks(folder), *_others(folder), *_elsewhere(folder), *_loose(folder))
    changed = list(_changed(folder))
    pair.stored(changed[0])
    (outcome,) = pair.stored(changed[1], refetch=True)
    assert sum(r.superseded for r in outcome.receipts) == 2
    (outcome,) = pair.ingest(_failing(folder))
    assert outcome.status == "failed"
    return tape


def _bars(folder):
    """Bars of a second across midnight, of hours, and days by volume and open interest, whose fronts differ."""
    across = ("2024-01-02", "2024-01-04")
    at = ns("2024-01-03") + (np.arange(120) - 60) * NS
    yield write(folder / "1s.dbn.zst", "ohlcv-1s", records("ohlcv-1s", 120, instrument_id=H4, ts_event=at),
                window=across, mappings={"ESH4": [(*across, H4)]})  # fmt: skip
    hours = ns("2024-01-02") + np.repeat(np.arange(72), 2) * 3_600 * NS
    hourly = records("ohlcv-1h", 144, instrument_id=[H4, G4] * 72, ts_event=hours)
    yield write(folder / "1h.dbn.zst", "ohlcv-1h", hourly, symbols=("ESH4", "CLG4"), window=TICKS,
                mappings={"ESH4": [(*TICKS, H4)], "CLG4": [(*TICKS, G4)]})  # fmt: skip
    days = ns("2024-02-01") + np.arange(58) * DAY_NS
    for symbol, roll in (("ES.n.0", "2024-03-11"), ("ES.v.0", "2024-03-14")):
        ids = np.where(days < ns(roll), H4, M4)
        window = ("2024-02-01", "2024-03-30")
        rows = records("ohlcv-1d", 58, instrument_id=ids, ts_event=days, open=-5 * PX, high=2 * PX, low=-9 * PX,
                       close=-7 * PX)  # fmt: skip
        yield write(folder / f"{symbol}.dbn.zst", "ohlcv-1d", rows, symbols=(symbol,), stype_in="continuous",
                    window=window, mappings={symbol: [(window[0], roll, H4), (roll, window[1], M4)]})  # fmt: skip
    # Nothing says what these are called, until _ticks does.
    unnamed = records("ohlcv-1m", 30, instrument_id=NG, ts_event=ns("2024-01-02") + np.arange(30) * MINUTE)
    yield write(folder / "unnamed.dbn.zst", "ohlcv-1m", unnamed, symbols=("NG.c.0",), stype_in="continuous",
                mappings={})  # fmt: skip


def _ticks(folder):
    """Trades to the nanosecond, prices around zero, a contract that comes under a new id, and a quiet day."""
    day = ("2024-01-09", "2024-01-10")
    rows = records("trades", 6, instrument_id=NG, ts_recv=EDGE + np.array(BESIDE), ts_event=EDGE - np.array(BESIDE),
                   price=np.array([-40, -1, 0, 1, 2, 3]) * PX // 100, sequence=[2**32 - 1, 0, 1, 2, 3, 4],
                   ts_in_delta=[-(2**31), 2**31 - 1, 0, -1, 1, 5])  # fmt: skip
    yield write(folder / "edge.dbn.zst", "trades", rows, symbols=("NGG4",), window=day,
                mappings={"NGG4": [(*day, NG)]})  # fmt: skip
    span = ("2024-01-10", "2024-01-12")
    rows = records("trades", 8, instrument_id=[NG] * 4 + [NG2] * 4, ts_event=ns("2024-01-11") + (np.arange(8) - 4),
                   ts_recv=ns("2024-01-11") + (np.arange(8) - 4), price=3 * PX)  # fmt: skip
    moved = {"NGG4": [("2024-01-10", "2024-01-11", NG), ("2024-01-11", "2024-01-12", NG2)]}
    yield write(folder / "moved.dbn.zst", "trades", rows, symbols=("NGG4",), window=span, mappings=moved)
    quiet = ("2024-01-06", "2024-01-07")
    yield write(folder / "quiet.dbn.zst", "trades", records("trades", 0), window=quiet, mappings={
        "ESH4": [(*quiet, H4)],
    })  # fmt: skip
    named = ("2024-01-01", "2024-02-01")
    yield write(folder / "named.dbn.zst", "ohlcv-1h", records("ohlcv-1h", 0), symbols=("NGG4",), window=named,
                mappings={"NGG4": [("2024-01-01", "2024-01-11", NG)]})  # fmt: skip
    several = records("trades", 6, instrument_id=[H4, G4] * 3, ts_event=ns("2024-01-15") + np.arange(6) * NS)
    both = ("2024-01-15", "2024-01-16")
    yield write(folder / "parents.dbn.zst", "trades", several, symbols=("ES.FUT", "CL.FUT"), stype_in="parent",
                window=both, mappings={"ESH4": [(*both, H4)], "CLG4": [(*both, G4)]})  # fmt: skip


def _others(folder):
    """A day of two contracts of every other schema, every seventh row without the prices that it may lack."""
    at = ns("2024-01-03") + np.arange(42) // 2 * MINUTE
    for schema in sorted(set(schemas().stored_names) - TOLD):
        rows = records(schema, 42, instrument_id=[H4, G4] * 21, ts_event=at)
        for name in {"bid_px_00", "ask_px_09", "ind_match_price"} & set(rows.dtype.names):
            rows[name][::7] = NO_PRICE
        yield write(folder / f"{schema}.dbn.zst", schema, rows, symbols=("ESH4", "CLG4"), window=TICKS,
                    mappings={"ESH4": [(*TICKS, H4)], "CLG4": [(*TICKS, G4)]})  # fmt: skip


def _elsewhere(folder):
    """Another dataset, with an id and a symbol of the first one, and rows of several publishers."""
    for schema, n in (("trades", 12), ("ohlcv-1m", 20), ("tbbo", 4)):
        rows = records(schema, n, instrument_id=[SPY, H4] * (n // 2), publisher_id=[2, 2, 1, 1] * (n // 4),
                       ts_event=ns("2024-01-03") + np.arange(n) // 4 * MINUTE)  # fmt: skip
        yield write(folder / f"{schema}.xnas.dbn.zst", schema, rows, symbols=("SPY", "ESH4"), window=TICKS,
                    dataset=XNAS, mappings={"SPY": [(*TICKS, SPY)], "ESH4": [(*TICKS, H4)]})  # fmt: skip


def _loose(folder):
    """Fragments: beside complete units, in a dataset of others, and of instruments that nothing names."""
    at = ns("2024-01-05") + np.arange(20) * NS
    yield fragment(folder / "loose.dbn.zst", "trades", records("trades", 20, instrument_id=LOOSE, ts_event=at))
    rows = records("tbbo", 6, instrument_id=G4, ts_event=at[:6], bid_px_00=2**63 - 1, bid_sz_00=0)
    yield write(folder / "limited.dbn.zst", "tbbo", rows, symbols=("CLG4",), window=("2024-01-05", "2024-01-06"),
                limit=6, mappings={"CLG4": [("2024-01-05", "2024-01-06", G4)]})  # fmt: skip
    rows = records("ohlcv-1m", 10, instrument_id=LOOSE, ts_event=ns("2024-01-05") + np.arange(10) * MINUTE)
    yield fragment(folder / "loose-bars.dbn.zst", "ohlcv-1m", rows)


def _changed(folder):
    """A day of trades, and the same day as it is told later: one price differs, one row is gone, one is new."""
    span = ("2024-01-16", "2024-01-17")
    told, again = (range(6), [1, 2, 3, 4, 5, 6]), ([0, 1, 2, 3, 5, 7], [1, 2, 33, 4, 6, 8])
    for name, (times, prices) in (("told", told), ("again", again)):
        at = np.array(times)
        rows = records("trades", 6, instrument_id=LATE, ts_event=ns(span[0]) + at * NS, sequence=at,
                       price=np.array(prices) * PX, size=1)  # fmt: skip
        yield write(folder / f"{name}.dbn.zst", "trades", rows, symbols=("HOG4",), window=span,
                    mappings={"HOG4": [(*span, LATE)]})  # fmt: skip


def _failing(folder):
    """So many bad rows that the unit fails."""
    span = ("2024-01-17", "2024-01-18")
    rows = records("trades", 150, instrument_id=LATE, ts_event=ns(span[0]) + np.arange(150), side=b"X")
    return write(folder / "failing.dbn.zst", "trades", rows, symbols=("HOG4",), window=span,
                 mappings={"HOG4": [(*span, LATE)]})  # fmt: skip

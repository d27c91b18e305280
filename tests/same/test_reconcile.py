"""Planted corruption is found in its place, in both stores alike; what is bought again is resolved."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from polars.testing import assert_frame_equal

from dbnfiles import MINUTE, PX, ns, records, write
from hdi.model import MAX_NS, Window
from hdi.reconciling import Reconciliation, Wanted
from hdi.settings.groups import Reconcile
from hdi.testing.material import content, schemas

A, B = 9101, 9102
DAYS = 7
HOUR = 60 * MINUTE
SPAN = ("2024-01-08", "2024-01-15")
NAMES = {"ESH4": [(*SPAN, A)], "ESM4": [(*SPAN, B)]}
TICK = PX // 4
ALWAYS = Window(0, MAX_NS)
#: Minutes without a trade, after each of which stands one that may be shifted into it.
EMPTY = 4_321


@dataclass
class Market:
    """Trades of two contracts, and the bars that they add up to."""

    trades: np.ndarray
    minutes: np.ndarray
    hours: np.ndarray
    days: np.ndarray


def made():
    """10,080 minutes with three trades each: bars of 5,040 minutes of two contracts, prices around zero for one."""
    rng = np.random.default_rng(7)
    n = 720 * DAYS
    minute = np.delete(np.arange(n), EMPTY)
    at = np.repeat(ns(SPAN[0]) + minute * 2 * MINUTE, 3) + np.tile([1, 2 * 10**9, 59 * 10**9 + 999], len(minute))
    parts = []
    for instrument, level in ((A, 4_700 * PX), (B, 0)):
        walk = level + TICK * np.cumsum(rng.choice((-1, 0, 0, 1), len(at)))
        shift = MINUTE if instrument == B else 0
        parts.append(records("trades", len(at), instrument_id=instrument, ts_event=at + shift - 1, ts_recv=at + shift,
                             price=walk, size=rng.integers(1, 9, len(at)), sequence=np.arange(len(at))))  # fmt: skip
    trades = np.concatenate(parts)
    trades = trades[np.lexsort((trades["instrument_id"], trades["ts_recv"]))]
    return Market(trades, *(bars(trades, name) for name in ("ohlcv-1m", "ohlcv-1h", "ohlcv-1d")))


def bars(trades, name):
    """What trades add up to, bar by bar: slow and plain."""
    width = {"ohlcv-1m": MINUTE, "ohlcv-1h": HOUR, "ohlcv-1d": 24 * HOUR}[name]
    held = {}
    for at, instrument, price, size in zip(*(trades[c].tolist() for c in ("ts_recv", "instrument_id", "price", "size")),
                                           strict=True):  # fmt: skip
        held.setdefault((at // width * width, instrument), []).append((price, size))
    rows = [
        (at, i, each[0][0], max(p for p, _ in each), min(p for p, _ in each), each[-1][0], sum(s for _, s in each))
        for (at, i), each in sorted(held.items())
    ]
    columns = ("ts_event", "instrument_id", "open", "high", "low", "close", "volume")
    return records(name, len(rows), **{c: np.array(v) for c, v in zip(columns, zip(*rows, strict=True), strict=True)})


def stored(pair, folder, name, rows, **options):
    path = folder / f"{name}-{len(list(folder.iterdir()))}.dbn.zst"
    rows = rows[np.argsort(rows["ts_recv" if name == "trades" else "ts_event"], kind="stable")]
    written = write(path, name, rows, symbols=("ESH4", "ESM4"), window=SPAN, mappings=NAMES)
    pair.stored(written, **options)


def planted(minutes):
    """Six corruptions of bars of minutes, and the place and the words that must be found for each."""
    bad = minutes.copy()
    at = {(int(t), int(i)): k for k, (t, i) in enumerate(zip(bad["ts_event"], bad["instrument_id"], strict=True))}
    start = ns(SPAN[0])
    high, lost, twice, early, swapped, off = (
        start + 2 * k * MINUTE for k in (100, 1_000, 2_000, EMPTY + 1, 3_000, 3_500)
    )
    found = set()
    k = at[high, A]
    bad["high"][k] += 40 * TICK
    found.add(("ohlcv-1m", A, high, "high_price"))
    bad["volume"][at[twice, A]] *= 2
    found.add(("ohlcv-1m", A, twice, "volume"))
    bad["ts_event"][at[early, A]] -= 2 * MINUTE
    found |= {("ohlcv-1m", A, early, "bar"), ("ohlcv-1m", A, early - 2 * MINUTE, "bar")}
    bad["instrument_id"][at[swapped, A]] = B
    found |= {("ohlcv-1m", A, swapped, "bar"), ("ohlcv-1m", B, swapped, "bar")}
    mine = off + MINUTE
    bad["close"][at[mine, B]] += 1
    bad["high"][at[mine, B]] = max(bad["high"][at[mine, B]], bad["close"][at[mine, B]])
    found.add(("ohlcv-1m", B, mine, "close_price"))
    if bad["high"][at[mine, B]] != minutes["high"][at[mine, B]]:
        found.add(("ohlcv-1m", B, mine, "high_price"))
    found.add(("ohlcv-1m", A, lost, "bar"))
    return np.delete(bad, at[lost, A]), found


def reconcile(store, **wanted):
    work = Reconciliation(store, schemas(), Wanted(**{"window": ALWAYS, **wanted}), Reconcile())
    for _ in work.steps():
        pass
    return work.result()


def both(pair, **wanted):
    """What both stores find, which must be the same."""
    mine, theirs = (reconcile(store, **wanted) for store in pair.stores)
    for name in ("judged", "unjudged"):
        assert_frame_equal(getattr(theirs, name), getattr(mine, name))
    passing = ["run", "first_seen", "last_run", "last_seen", "resolved_run", "resolved_at"]
    ledgers = [store.discrepancies().drop(passing).sort(pl.exclude("number")).drop("number") for store in pair.stores]
    assert_frame_equal(*ledgers)
    assert (theirs.new, theirs.resolved, theirs.errors) == (mine.new, mine.resolved, mine.errors)
    return mine


def test_every_planted_corruption_of_10000_bars_is_found_in_its_place_and_gone_after_a_refetch(pair, tmp_path):
    market = made()
    folder = tmp_path / "files"
    folder.mkdir()
    assert len(market.minutes) == 10_078
    bad, wanted = planted(market.minutes)
    tick = records("definition", 2, instrument_id=[A, B], raw_symbol=[b"ESH4", b"ESM4"], min_price_increment=TICK,
                   tick_rule=255, ts_recv=ns(SPAN[0]), ts_event=ns(SPAN[0]) - 1)  # fmt: skip
    pair.stored(write(folder / "d.dbn.zst", "definition", tick, symbols=("ESH4", "ESM4"), window=SPAN, mappings=NAMES))
    stored(pair, folder, "trades", market.trades)
    for name, rows in (("ohlcv-1m", bad), ("ohlcv-1h", market.hours), ("ohlcv-1d", market.days)):
        stored(pair, folder, name, rows)
    rows_before = {name: content(pair.lake, name) for name in ("trades", "ohlcv-1m", "ohlcv-1h", "ohlcv-1d")}

    done = both(pair)
    by_trades = done.open.filter(pl.col("check") == "trade_bars")
    assert {(r["schema"], r["instrument_id"], r["start"], r["field"]) for r in by_trades.rows(named=True)} == wanted
    off = done.open.filter(pl.col("check") == "tick_size")
    assert set(off["field"]) <= {"close_price", "high_price"}
    assert set(off["expected"]) == {"a multiple of 0.25"}
    # Hours are right, and say which of them the minutes below do not add up to: not where the sum is the same.
    above = done.open.filter(pl.col("check") == "bars", pl.col("schema") == "ohlcv-1h")
    hours = {(i, at // HOUR * HOUR) for _, i, at, _ in wanted}
    unseen = {(A, (ns(SPAN[0]) + 2 * EMPTY * MINUTE) // HOUR * HOUR), (B, off["start"][0] // HOUR * HOUR)}
    assert set(above.select("instrument_id", "start").rows()) | unseen == hours
    assert set(done.open["check"]) - {"price_spike"} == {"trade_bars", "tick_size", "bars"}
    high = by_trades.filter(pl.col("field") == "high_price", pl.col("instrument_id") == A).row(0, named=True)
    true = max(market.trades["price"][(market.trades["ts_recv"] // MINUTE * MINUTE == high["start"])
                                      & (market.trades["instrument_id"] == A)])  # fmt: skip
    assert (float(high["expected"]), float(high["found"])) == (true / PX, (true + 40 * TICK) / PX)
    assert (high["symbol"], high["severity"], high["state"]) == ("ESH4", "ERROR", "open")
    assert done.errors == done.open.filter(pl.col("severity") == "ERROR").height >= len(wanted)

    again = both(pair)
    assert (again.new, again.resolved) == (0, 0)
    assert again.open.drop("last_run", "last_seen").equals(done.open.drop("last_run", "last_seen"))
    assert set(again.open["last_run"]) == {again.run}
    for name, rows in rows_before.items():
        assert content(pair.lake, name).equals(rows)

    # One check, one contract, one day: nothing else is judged, and nothing else is resolved.
    stored(pair, folder, "ohlcv-1m", market.minutes, refetch=True)
    one = both(pair, checks=("tick_size",), symbols=("ESM4",))
    assert (one.open.height, one.resolved) == (0, off.height)
    assert set(one.judged["check"]) == {"tick_size"}
    rest = both(pair)
    assert (rest.open.height, rest.new, rest.resolved) == (0, 0, done.open.height - off.height)
    ledger = pair.lake.discrepancies()
    assert set(ledger["state"]) == {"resolved"}
    assert ledger["resolved_run"].n_unique() == 2


def test_bars_are_judged_only_where_everything_below_them_is_stored_whole(pair, tmp_path):
    market = made()
    folder = tmp_path / "files"
    folder.mkdir()
    days, half = market.days.copy(), market.minutes[: len(market.minutes) // 2]
    days["volume"][-1] += 1
    stored(pair, folder, "ohlcv-1d", days)
    window = (SPAN[0], "2024-01-11")
    end = ns(window[1])
    names = {"ESH4": [(*window, A)], "ESM4": [(*window, B)]}
    part = half[half["ts_event"] < end].copy()
    part["low"][7] = part["high"][7] + 1  # refused: its day cannot be judged
    pair.stored(
        write(folder / "part.dbn.zst", "ohlcv-1m", part, symbols=("ESH4", "ESM4"), window=window, mappings=names)
    )
    done = both(pair, checks=("bars",))
    assert done.open.is_empty()
    (judged,) = done.judged.filter(pl.col("against") == "ohlcv-1m").rows(named=True)
    assert judged["rows"] == 2 * 3 - 1
    above = done.unjudged.filter(pl.col("against") == "ohlcv-1m")
    assert dict(above.select("reason", "rows").iter_rows()) == {
        "a row of the interval is in quarantine": 1, "ohlcv-1m is not stored whole": 2 * DAYS - 6,
    }  # fmt: skip
    assert done.unjudged.filter(pl.col("against") == "").select("schema", "rows", "reason").rows() == [
        ("ohlcv-1m", len(part) - 1, "nothing finer is stored")
    ]

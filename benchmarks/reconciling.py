"""How fast stored trades are reconciled: their own checks, and bars of three widths that they add up to.

The bars are made of the trades themselves, so nothing is found; ``python -m benchmarks.reconciling STORE ROWS`` fills
an empty store.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.measure import ROOT, Case, environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.work import Timed

GROUP = "reconcile"
#: Trades of each instrument follow one another at this distance.
_APART_NS = 1_000_000
_INSTRUMENTS = 10
_WIDTHS = ("ohlcv-1m", "ohlcv-1h", "ohlcv-1d")


def fill(url: str, rows: int) -> None:
    """Days of trades, a million or so at a time, and the bars that they add up to."""
    import polars as pl

    from hdi.folding import PRICES, Folder, Utc, legs, price
    from hdi.model import DAY_NS, Window
    from hdi.testing import Load, opened
    from hdi.testing.material import START, schemas, trades

    store = opened(url)
    kind, _ = schemas().find("ohlcv-1m")
    a_day = min(rows, 20_000_000)
    for day in range(-(-rows // a_day)):
        window = Window(START + day * DAY_NS, START + (day + 1) * DAY_NS)
        step = DAY_NS // a_day
        one = trades([window.start])
        n = pl.int_range(a_day, eager=True)
        frame = pl.concat([one.clear(), pl.DataFrame({"n": n}).select(
            *(pl.lit(one[c][0], one.schema[c]).alias(c) for c in one.columns if c not in (
                "ts_recv", "ts_event", "instrument_id", "price", "sequence")),
            ts_recv=(window.start + pl.col("n") * step).cast(one.schema["ts_recv"]),
            ts_event=(window.start + pl.col("n") * step - 1).cast(one.schema["ts_event"]),
            instrument_id=1 + pl.col("n") % _INSTRUMENTS, sequence=pl.col("n"),
            price=(100 + pl.col("n") // 1_000 % 50).cast(pl.Decimal(18, 9)),
        ).select(one.columns).cast(dict(one.schema))])  # fmt: skip
        Load(frame, window=window, batch=100_000).commit(store)
        for name in _WIDTHS:
            width = schemas().find(name)[1].width
            passed = frame.select("dataset", "publisher_id", "instrument_id", *legs({
                "at": "ts_recv", "price": "price", "volume": "size"}))  # fmt: skip
            made = pl.concat(list(Folder(Utc(width)).bars(iter([passed]))))
            told = {"symbol": "ESH4", "granularity": name.rpartition("-")[2], "data_source": "synthetic"}
            bars = made.with_columns(
                *(price(m).alias(c) for m, c in PRICES.items()), ts_event=pl.col("start"),
                trade_count=pl.lit(None), vwap=pl.lit(None), **{c: pl.lit(v) for c, v in told.items()},
            ).select(pl.col(c).cast(t) for c, t in kind.dtypes.items())  # fmt: skip
            Load(bars, window=window, schema=name, batch=100_000).commit(store)
    store.settle()
    store.close()


def _reconciles(source: str, _: Path) -> Timed:
    """A piece that reconciles a store, which must agree with itself; how many trades it has."""
    from hdi.model import MAX_NS, Window
    from hdi.reconciling import Reconciliation, Wanted
    from hdi.settings.groups import Reconcile
    from hdi.testing import opened
    from hdi.testing.material import schemas

    def reconcile() -> int:
        work = Reconciliation(opened(source), schemas(), Wanted(Window(0, MAX_NS)), Reconcile())
        for _ in work.steps():
            pass
        done = work.result()
        if done.open.height:
            raise RuntimeError(f"{done.open.height} discrepancies in bars that were made of their trades")
        return int(done.judged.filter(check="duplicate_ticks")["rows"].sum())

    return reconcile


JOBS: dict[str, Callable[[str, Path], Timed]] = {"reconcile": _reconciles}


def cases(store: str, rows: int, rounds: int, work: Path) -> list[Case]:
    """Fills an empty store; the reconciliation of it."""
    command = [sys.executable, "-m", "benchmarks.reconciling", store, str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(work), cwd=ROOT, check=False)
    if done.returncode:
        raise RuntimeError(f"the store was not filled:\n{done.stderr[-2000:]}")
    return [
        Case(
            GROUP, "hdi reconcile, trades and bars of three widths", rows, job="reconcile", source=store, rounds=rounds
        )
    ]


if __name__ == "__main__":
    fill(sys.argv[1], int(sys.argv[2]))

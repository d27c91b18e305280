"""What a truthful vendor sends contradicts nothing: every schema, over rolls, half days and holidays."""

import polars as pl
import pytest

from api.desk import Ask
from hdi.reconciling.checks import CHECKS
from hdi.testing.material import schemas

#: Days over which ES rolls, with its spreads, and a holiday with the half day after it.
DAYS = (("ES.FUT", "2024-03-15", "2024-03-18"), ("CL.c.0", "2023-11-23", "2023-11-24"))
TOLD = ("trades", "tbbo", "ohlcv-1s", "ohlcv-1m", "ohlcv-1h", "ohlcv-1d", "ohlcv-eod", "statistics", "definition")


def reconciled(desk, **wanted):
    with desk.open() as data:
        work = data.reconciling(**wanted)
        steps = list(work.steps())
        return steps, work.result()


@pytest.mark.parametrize("market", [{"scale": 0.02, "hostile": 0}], indirect=True)
def test_a_clean_tape_of_every_schema_raises_nothing_and_every_check_has_judged_some_of_it(desk):
    assert set(TOLD) == {n for s in schemas() if s.volume or s.kind in ("statistics", "definition")
                         for n, name in s.names.items() if not name.made_from} - {"tcbbo"}  # fmt: skip
    for symbols, start, end in DAYS:
        for name in (*TOLD, "bbo-1m"):
            desk.stored(Ask(symbols, start, end, name))
    steps, done = reconciled(desk)
    assert len(steps) >= len(TOLD)
    assert done.open.rows(named=True) == []
    assert (done.new, done.resolved, done.errors) == (0, 0, 0)
    judged = dict(done.judged.group_by("check").agg(pl.col("rows").sum()).iter_rows())
    assert set(judged) == set(CHECKS)
    assert {check for check, rows in judged.items() if not rows} <= {"settlement_preliminary"}
    pairs = {(r["schema"], r["against"]): r["rows"] for r in done.judged.rows(named=True)
             if r["check"] in ("bars", "trade_bars")}  # fmt: skip
    widths = ("ohlcv-1s", "ohlcv-1m", "ohlcv-1h", "ohlcv-1d")
    finer = {(wide, fine) for k, wide in enumerate(widths) for fine in ("trades", *widths[:k])}
    assert pairs.keys() == finer
    assert all(pairs.values())

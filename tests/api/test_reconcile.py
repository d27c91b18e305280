"""What a truthful vendor sends contradicts nothing: every schema, over rolls, half days and holidays."""

import pytest

from api.desk import Ask
from hdi.reconciling.checks import CHECKS
from hdi.testing.material import schemas

#: A week in which ES rolls, with its spreads, and one with a holiday and a half day.
WEEKS = (("2024-03-12", "2024-03-19"), ("2023-11-21", "2023-11-27"))
#: What has books of many rows a day; a day of it is enough.
DEEP = ("mbo", "mbp-10", "mbp-1", "bbo-1s", "bbo-1m", "cbbo-1s", "cbbo-1m", "cmbp-1", "tcbbo", "imbalance", "status")
TOLD = ("trades", "tbbo", "ohlcv-1s", "ohlcv-1m", "ohlcv-1h", "ohlcv-1d", "ohlcv-eod", "statistics", "definition")


def reconciled(desk, **wanted):
    with desk.open() as data:
        work = data.reconciling(**wanted)
        steps = list(work.steps())
        return steps, work.result()


@pytest.mark.parametrize("market", [{"scale": 0.02, "hostile": 0}], indirect=True)
def test_a_clean_tape_of_every_schema_raises_nothing_and_every_check_has_judged_some_of_it(desk):
    assert set(TOLD) | set(DEEP) == set(schemas().stored_names)
    for start, end in WEEKS:
        for name in TOLD:
            desk.stored(Ask("ES.FUT,CL.c.0,NG.c.0,HO.c.0", start, end, name))
    for name in DEEP:
        desk.ingest(Ask("ES.c.0", "2024-03-14", "2024-03-14", name))
    steps, done = reconciled(desk)
    assert len(steps) >= len(TOLD)
    assert done.open.rows(named=True) == []
    assert (done.new, done.resolved, done.errors) == (0, 0, 0)
    judged = dict(done.judged.group_by("check").agg(rows=done.judged["rows"].sum()).rows()) if False else {
        check: done.judged.filter(done.judged["check"] == check)["rows"].sum() for check in done.judged["check"].unique()
    }
    assert set(judged) == set(CHECKS)
    assert {check for check, rows in judged.items() if not rows} <= {"settlement_preliminary"}
    pairs = {(r["schema"], r["against"]): r["rows"] for r in done.judged.rows(named=True)
             if r["check"] in ("bars", "trade_bars")}  # fmt: skip
    widths = ("ohlcv-1s", "ohlcv-1m", "ohlcv-1h", "ohlcv-1d")
    finer = {(wide, fine) for k, wide in enumerate(widths) for fine in ("trades", *widths[:k])}
    assert pairs.keys() == finer
    assert all(pairs.values())

"""A hundred days of a schedule against a vendor that fails on many of them, with nobody looking after it."""

import bisect
import datetime as dt
import random

import polars as pl
import pytest
from deltalake import DeltaTable

from api.desk import XNAS, Ask
from api.planned import DAILY, UTC, Office, World
from api.truth import alike
from hdi.model import date_ns, ns_date

FIRST, DAYS = dt.date(2024, 3, 4), 100
SPY = DAILY | {"dataset": XNAS, "symbols": "SPY"}
#: What goes wrong, and how often it may: a vendor in trouble, a bad line, a process that dies.
TROUBLES = (
    lambda dice: f"503:times={dice.randint(1, 5)}",
    lambda dice: f"500:times={dice.randint(1, 3)}",
    lambda dice: f"504:times={dice.randint(1, 3)}",
    lambda dice: f"429:retry_after=0,times={dice.randint(1, 4)}",
    lambda dice: f"timeout:seconds=0.01,times={dice.randint(1, 3)}",
    lambda dice: f"reset:times={dice.randint(1, 4)}",
    lambda dice: f"cut:after={dice.randint(0, 250)},times={dice.randint(1, 3)}",
    lambda dice: f"short:after={dice.randint(1, 250)},times=1",
    lambda _: "crash at start",
    lambda _: "crash in the middle",
    lambda _: "crash at end",
)


def troubles(seed):
    """What goes wrong on which days: something on two of five, and on two the account is refused all day."""
    dice = random.Random(seed)
    days = [FIRST + dt.timedelta(days=n) for n in range(DAYS)]
    found = {day: [dice.choice(TROUBLES)(dice)] for day in dice.sample(days[:-1], DAYS * 2 // 5)}
    return found | {day: ["402"] for day in dice.sample([d for d in days[:-1] if d.weekday() in (2, 3, 4)], 2)}


@pytest.mark.parametrize("market", [{"until": str(FIRST)}], indirect=True)
def test_ninety_five_of_a_hundred_days_end_complete_and_nothing_is_paid_twice(vendor, truth, tmp_path):
    office = Office(tmp_path / "office", vendor, {"databento.tries": 2, "databento.backoff_seconds": 0.0})
    office.plan(daily=SPY | {"cron": "30 0 * * *"})
    end = FIRST + dt.timedelta(days=DAYS)
    truth._vendor.advance(end)
    expected = truth.rows(Ask("SPY", SPY["start_date"], str(end - dt.timedelta(days=1)), dataset=XNAS))
    times = sorted(row["ts_event"] for row in expected)
    tables, ended = [], {}

    def judge(day):
        # Opened once: to read the whole log again each day takes as long as the log is.
        tables[:] = tables or [DeltaTable(office.folder / "lake" / "ohlcv_data")]
        tables[0].update_incremental()
        stored = sum(pl.DataFrame(tables[0].get_add_actions(flatten=True))["num_records"])
        ended[day] = stored == bisect.bisect_left(times, date_ns(day))

    planned = troubles(seed=4)
    start, stop = (dt.datetime.combine(day, dt.time(), UTC) for day in (FIRST, end))
    world = World(office, start, stop, {day: list(what) for day, what in planned.items()}, judge)
    world.live()

    incomplete = [day for day, complete in ended.items() if not complete]
    assert len(ended) == DAYS
    assert len(incomplete) <= DAYS - 95, incomplete
    assert {what for day in incomplete for what in planned[day]} <= {"402"}
    # What came with the last midnight is the next day's.
    expected = [row for row in expected if row["ts_event"] < date_ns(max(ended))]
    alike(office.rows(), expected)
    # Streams that came to their end brought every row once; the others are what a bad line costs.
    whole = [entry for entry in vendor.books.entries if entry.finished]
    assert sum(entry.records for entry in whole) == len(expected)
    cuts = sum(what.startswith(("cut", "short")) for days in planned.values() for what in days)
    assert cuts > 0
    assert len(vendor.books.entries) - len(whole) <= cuts * 3
    assert len(world.what("failed")) > 5
    assert world.what("paused")
    # Nothing is asked on the days after those without a session, holidays among them.
    traded = {ns_date(row["ts_event"]) for row in expected}
    skipped = {event.slot.date() for event in world.what("skipped")}
    assert not {day - dt.timedelta(days=1) for day in skipped} & traded
    assert {dt.date(2024, 3, 30), dt.date(2024, 3, 31), dt.date(2024, 4, 1), dt.date(2024, 5, 28)} <= skipped
    assert office.leftovers() == []

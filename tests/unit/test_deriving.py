"""Which bars can be made for certain, and their folding, against a slow model."""

import random
from decimal import Decimal
from itertools import pairwise

import polars as pl
import pytest

from hdi.buying.bars import holed, split, timeless
from hdi.frames import LEDGER, REJECTS
from hdi.resample import folded

DAY = 24 * 3_600 * 10**9
SPAN = {"instrument_id": pl.Int64, "start": pl.Int64, "end": pl.Int64}
PRICES = ("open", "high", "low", "close")


def spans(*rows):
    return pl.DataFrame(rows, schema=SPAN, orient="row")


def trades(rows):
    """Rows (at, publisher, instrument, price, size) as a frame."""
    frame = pl.DataFrame(
        rows,
        schema={"at": pl.Int64, "publisher_id": pl.Int32, "instrument_id": pl.Int64, "price": pl.Decimal(18, 9),
                "volume": pl.Int64},
        orient="row",
    )  # fmt: skip
    return frame.with_columns(pl.col("price").alias(p) for p in PRICES).drop("price")


def model(rows, width):
    """The bars of trades, one by one."""
    bars = {}
    for at, publisher, instrument, price, size in rows:
        key = (at // width * width, publisher, instrument)
        o, h, low, _, v = bars.get(key, (price, price, price, price, 0))
        bars[key] = (o, max(h, price), min(low, price), price, v + size)
    return [(*key, *bar) for key, bar in sorted(bars.items())]


@pytest.mark.parametrize("seed", range(20))
def test_bars_are_those_of_their_trades_however_the_trades_are_cut_into_frames(seed):
    draw = random.Random(seed)
    rows = sorted(
        (
            (at, draw.choice((1, 2)), draw.choice((7, 8)), Decimal(draw.randrange(-9, 9)) / 4, draw.randrange(5))
            for at in (draw.randrange(40) for _ in range(draw.randrange(60)))
        ),
        key=lambda row: row[0],
    )  # fmt: skip
    cuts = sorted(draw.randrange(len(rows) + 1) for _ in range(draw.randrange(8)))
    frames = [trades(rows[a:b]) for a, b in zip([0, *cuts], [*cuts, len(rows)], strict=True)]
    width = draw.choice((1, 3, 10, 100))
    found = list(folded(frames, width))
    assert all(frame.height for frame in found)
    columns = ["at", "publisher_id", "instrument_id", *PRICES, "volume"]
    assert [row for f in found for row in f.select(columns).rows()] == model(rows, width)
    edges = [(f["at"].min(), f["at"].max()) for f in found]
    assert all(before[1] < after[0] for before, after in pairwise(edges))


def test_a_bar_is_made_only_of_a_whole_interval_and_the_rest_is_left():
    made, rest = split(spans((1, 0, 50), (2, 0, 50)), spans((1, 20, 40)), 10)
    assert made.rows() == [(1, 20, 40)]
    assert rest.rows() == [(1, 0, 20), (1, 40, 50), (2, 0, 50)]


def test_a_stretch_is_made_with_the_bars_that_start_in_it():
    # From 13 the first bar starts at 20, and the one at 40 reaches past the end.
    assert split(spans((1, 13, 45)), spans((1, 20, 50)), 10)[0].rows() == [(1, 13, 45)]
    made, rest = split(spans((1, 13, 45)), spans((1, 20, 40)), 10)
    assert (made.rows(), rest.rows()) == ([(1, 13, 40)], [(1, 40, 45)])
    # No bar starts between 13 and 17: nothing can be made.
    assert split(spans((1, 13, 17)), spans((1, 0, 50)), 10)[1].rows() == [(1, 13, 17)]


def test_an_interval_with_a_bad_record_is_left_out():
    whole = spans((1, 0, 100), (2, 0, 100))
    assert holed(whole, spans((1, 31, 32)), 10).rows() == [(1, 0, 30), (1, 40, 100), (2, 0, 100)]
    assert holed(whole, spans(), 10).rows() == whole.rows()


def test_a_day_with_many_bad_records_is_left_out_whole():
    width = DAY // 1440
    whole = spans((1, 0, 3 * DAY))
    few = [(1, DAY + k * 10 * width, DAY + k * 10 * width + 1) for k in range(4)]
    assert holed(whole, spans(*few), width).height == 5
    more = [*few, (1, DAY + 900 * width, DAY + 900 * width + 1)]
    assert holed(whole, spans(*more), width).rows() == [(1, 0, DAY), (1, 2 * DAY, 3 * DAY)]


def ledger(*rows):
    """Receipts (unit, status, start, end, stored, unchanged, committed_at)."""
    names = ("unit", "status", "start", "end", "stored", "unchanged", "committed_at")
    given = [dict(zip(names, row, strict=True)) for row in rows]
    return pl.DataFrame(given, schema={name: LEDGER[name] for name in LEDGER if name in names})


def test_a_bad_record_that_says_no_time_spoils_the_window_of_its_unit():
    receipts = ledger((1, "complete", 0, 100, 9, 0, 5), (2, "complete", 100, 200, 9, 0, 5))
    base = {"rules": ["NO_INDEX_TIME"], "failed": False}
    rejects = pl.DataFrame(
        [
            base | {"unit": 1, "instrument_id": 4},
            base | {"unit": 2, "instrument_id": None},
            base | {"unit": 1, "instrument_id": 5, "index_time": 50, "rules": ["OUTSIDE_WINDOW"]},
            base | {"unit": 1, "instrument_id": 6, "index_time": 50, "rules": ["INVALID_SIDE"]},
            base | {"unit": 1, "instrument_id": 7, "failed": True},
        ],
        schema=REJECTS,
    )
    ids = pl.DataFrame({"instrument_id": [4, 8]})
    assert sorted(timeless(rejects, receipts, ids).rows()) == [(4, 0, 100), (4, 100, 200), (5, 0, 100), (8, 100, 200)]

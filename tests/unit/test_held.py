"""Which rows of a window and of rectangles are kept, however many rectangles there are."""

import random

import polars as pl
import pytest

from hdi.lookup import RECTANGLES, Asked, near, union
from hdi.model import Window
from hdi.stores.held import Held

WINDOW = Window(20, 80)
ROWS = pl.DataFrame(
    [(dataset, who, at) for dataset in "AB" for who in range(4) for at in range(0, 100, 3)],
    schema={"dataset": pl.String, "instrument_id": pl.Int64, "at": pl.Datetime("ns", "UTC")},
    orient="row",
)


def rectangles(*rows):
    return pl.DataFrame(list(rows), schema=RECTANGLES, orient="row")


def kept(held):
    """What a slow look at each row keeps of the rows that a store has found by dataset and instrument."""
    wanted = held.select("dataset", "instrument_id").unique()
    found = ROWS.join(wanted, on=wanted.columns, how="semi", maintain_order="left")
    spans = held.rows()

    def inside(dataset, who, at):
        ns = int(at)
        holding = any((d, i) == (dataset, who) and s <= ns < e for d, i, s, e in spans)
        return WINDOW.start <= ns < WINDOW.end and holding

    keep = [inside(*row) for row in found.with_columns(pl.col("at").to_physical()).iter_rows()]
    return found, found.filter(pl.Series(keep, dtype=pl.Boolean))


@pytest.mark.parametrize("count", [1, 2, 8, 9, 40])
@pytest.mark.parametrize("seed", range(3))
def test_rows_inside_any_rectangle_are_kept_however_many_overlap(count, seed):
    draw = random.Random(seed * 100 + count)
    held = rectangles(*(
        (draw.choice("AB"), draw.randrange(4), start := draw.randrange(90), start + draw.randrange(1, 90))
        for _ in range(count)
    ))  # fmt: skip
    found, expected = kept(held)
    assert Held(WINDOW, held).inside(found, "at").equals(expected)
    assert Held(WINDOW, held).inside(found.clear(), "at").is_empty()


def test_the_window_alone_decides_where_every_rectangle_spans_it():
    held = Held(WINDOW, rectangles(("A", 1, 0, 100)))
    assert not held.by_time
    assert Held(WINDOW, None).inside(ROWS, "at").equals(ROWS.filter(pl.col("at").to_physical().is_between(20, 79)))
    assert Held(WINDOW, rectangles(("A", 1, 21, 100))).by_time


@pytest.mark.parametrize(
    "spans",
    [
        [(0, 100)], [(20, 80)], [(30, 40)], [(0, 20), (80, 100)], [(0, 21)], [(0, 30), (30, 90)], [(0, 20), (40, 50)],
        [(79, 99), (0, 10)], [],
    ],
)  # fmt: skip
def test_rectangles_near_a_window_hold_the_same_rows_of_it_as_their_union_in_it(spans):
    asked = [Asked("X", rectangles(*(("A", 1, start, end) for start, end in spans)))]
    rows = ROWS.filter(pl.col("dataset") == "A", pl.col("instrument_id") == 1)
    some, cut = near(asked, WINDOW), union(asked, WINDOW)
    assert some.is_empty() == cut.is_empty()
    if some.height:
        assert Held(WINDOW, some).inside(rows, "at").equals(Held(WINDOW, cut).inside(rows, "at"))
    assert near([*asked, *asked], WINDOW).equals(cut)

"""Rows that are worked on while more of them are read, and rows that are put in order as little as it takes."""

import threading
import time
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdi.stores.ahead import ahead
from hdi.stores.lake import read
from hdi.stores.timescaledb.loosely import arranged, instants

COLUMNS = ("at", "publisher_id", "instrument_id", "at_ns", "_unit", "_row")
ROWS = st.lists(st.tuples(*(st.integers(0, 2) for _ in COLUMNS)), max_size=24)


def frame(rows):
    return pl.DataFrame(rows, schema=dict.fromkeys(COLUMNS, pl.Int64), orient="row")


def test_results_come_in_the_order_of_what_they_are_of():
    def slower_at_first(n):
        time.sleep(0.002 * (5 - n))
        return n

    assert list(ahead(slower_at_first, range(6))) == [0, 1, 2, 3, 4, 5]


def test_the_reader_does_what_there_is_to_do_of_an_only_item_itself():
    assert list(ahead(lambda _: threading.current_thread(), [1])) == [threading.current_thread()]
    assert threading.current_thread() not in list(ahead(lambda _: threading.current_thread(), [1, 2]))
    assert not list(ahead(lambda n: n, []))


def test_an_error_is_raised_where_its_result_would_have_come():
    found = ahead(lambda n: 6 // (3 - n), range(9))
    assert [next(found), next(found), next(found)] == [2, 3, 6]
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_a_reader_that_stops_leaves_no_thread_and_takes_no_more_items():
    taken, before = [], set(threading.enumerate())
    found = ahead(lambda n: n, (taken.append(n) or n for n in range(1000)))
    next(found)
    found.close()
    assert len(taken) < 20
    assert not [t for t in set(threading.enumerate()) - before if t.name.startswith("hdi-read")]


def test_what_gives_the_items_is_closed_where_work_fails_also_while_the_error_is_looked_at():
    closed = []

    def items():
        try:
            yield from range(9)
        finally:
            closed.append(True)

    with pytest.raises(ZeroDivisionError) as caught:
        list(ahead(lambda n: 1 // (2 - n), items()))
    assert caught.value.__traceback__ is not None
    assert closed == [True]


@given(ROWS, st.lists(st.integers(1, 4), min_size=24, max_size=24))
def test_rows_by_time_in_any_batches_come_in_order_and_no_instant_in_two_frames(rows, sizes):
    came = sorted(rows, key=lambda row: row[0])
    batches, at = [], 0
    for size in sizes:
        batches.append(frame(came[at : at + size]))
        at += size
    found = [arranged(part, "at") for part in instants(batches, "at")]
    ends = [(part["at"][0], part["at"][-1]) for part in found]
    assert all(before[1] < after[0] for before, after in pairwise(ends))
    given_ = [row for part in found for row in part.rows()]
    assert sorted(given_) == sorted(rows)
    for whose in {row[1:3] for row in rows}:
        mine = [(row[0], *row[3:]) for row in given_ if row[1:3] == whose]
        assert mine == sorted(mine)


@given(st.lists(ROWS.map(sorted), min_size=1, max_size=3), st.booleans(), st.integers(1, 50))
def test_runs_that_overlap_are_merged_into_the_order_of_all_columns(runs, one_falls, apart):
    if one_falls:
        runs = [runs[0][::-1], *runs[1:]]
    rows = pl.concat([frame([(row[0] * apart + n % apart, *row[1:]) for n, row in enumerate(run)]) for run in runs])
    rows = rows.with_columns(pl.col("at").cast(pl.Datetime("ns", "UTC")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(read, "_FEW", 0)
        found = read.in_order(rows, COLUMNS, ["_row", "at"])
    assert found.equals(rows.sort(COLUMNS, maintain_order=True).select("_row", "at"))

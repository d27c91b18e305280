"""As it was known: whatever was committed after, a lake says of an instant what it showed then."""

import tempfile

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from hdi.testing import opened
from hdi.then import merged
from laws.known import histories, kept, known

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=15, deadline=None, suppress_health_check=SLOW)
@given(histories(), st.booleans())
def test_a_lake_says_what_it_showed_after_each_commit(sequence, settled):
    with tempfile.TemporaryDirectory() as folder:
        lake = opened(folder)
        seen = kept(lake, sequence, lake.settle if settled else lambda: None)
        known(lake, seen)
        known(opened(folder), seen)


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=40), st.integers(1, 5), st.integers(1, 5))
def test_two_ordered_streams_are_merged_in_their_order(rows, first, second):
    ordered = pl.DataFrame(sorted(rows), schema={"key": pl.Int64, "which": pl.Boolean}, orient="row")
    ordered = ordered.with_columns(pl.col("key").cast(pl.Datetime("ns", "UTC")))
    ordered = ordered.with_row_index("nth")
    parts = [
        ordered.filter(pl.col("which") == which).iter_slices(size) for which, size in ((False, first), (True, second))
    ]
    frames = list(merged(iter(parts[0]), iter(parts[1]), ["key", "nth"]))
    assert_frame_equal(pl.concat([ordered.clear(), *frames]), ordered)
    assert max([frame.height for frame in frames], default=0) <= first + second

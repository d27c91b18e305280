"""Whatever is committed after whatever, the database holds what the model holds."""

import contextlib

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hdi.testing import opened
from hdi.testing.model import Model
from laws.commits import committed, history, left, loads, seen
from same.twins import wipe

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]


@settings(max_examples=15, deadline=None, suppress_health_check=SLOW)
@given(sequence=st.lists(loads(), min_size=2, max_size=5))
def test_any_commits_leave_what_the_model_holds(address, sequence):
    wipe(address)
    model = Model()
    with contextlib.closing(opened(address)) as store:
        for load in sequence:
            committed(load, store, model)
        with contextlib.closing(opened(address)) as later:
            assert (seen(later), left(later), history(later)) == (seen(store), left(store), history(store))

"""Whatever is committed after whatever, a store holds what the model holds."""

import tempfile

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hdi.testing import opened
from hdi.testing.model import Model
from laws.commits import committed, history, left, loads, seen

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=40, deadline=None, suppress_health_check=SLOW)
@given(st.lists(loads(), min_size=2, max_size=5), st.booleans())
def test_any_commits_leave_what_the_model_holds(sequence, settled):
    model = Model()
    with tempfile.TemporaryDirectory() as folder:
        lake = opened(folder)
        for load in sequence:
            committed(load, lake, model)
            if settled:
                lake.settle()
        later = opened(folder)
        assert (seen(later), left(later), history(later)) == (seen(lake), left(lake), history(lake))

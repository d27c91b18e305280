"""As it was known: whatever was committed after, a database says of an instant what it showed then."""

import contextlib

from hypothesis import HealthCheck, given, settings

from hdi.testing import opened
from laws.known import histories, kept, known
from same.twins import wipe

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]


@settings(max_examples=6, deadline=None, suppress_health_check=SLOW)
@given(sequence=histories(4))
def test_a_database_says_what_it_showed_after_each_commit(address, sequence):
    wipe(address)
    with contextlib.closing(opened(address)) as store:
        seen = kept(store, sequence)
        known(store, seen)
        with contextlib.closing(opened(address)) as later:
            known(later, seen)

"""What tests of faults share: the mark that says which fault they show."""

import pytest

STORES = ("lake", "server")


def on_both(kind, what):
    """A test of a fault on each store: ``new`` makes places on it."""
    marked = [pytest.param(store, marks=pytest.mark.fault(kind, what, store)) for store in STORES]
    return pytest.mark.parametrize("new", marked, indirect=True)

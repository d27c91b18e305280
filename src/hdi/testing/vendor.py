"""Pytest fixtures: the rehearsal vendor in this process, with the environment of clients pointed at it.

``pytest_plugins = ["hdi.testing.vendor"]`` in a conftest gives :func:`rehearsal_vendor` and :func:`rehearse`. The
vendor's data ends at 2024-06-30, so that every run sees the same; its request limits are lifted, so that a quick
test does not meet 429 by chance. ``@pytest.mark.parametrize("rehearsal_vendor", [{"hostile": 3}], indirect=True)``
changes that: the options are those of :class:`hdi.rehearsal.Options`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from hdi.rehearsal import Rehearsal

UNTIL = "2024-06-30"


@pytest.fixture
def rehearse(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Rehearsal]]:
    """Starts a vendor with the options given, and points the environment at it; all end with the test."""
    with ExitStack() as stack:

        def start(**options: Any) -> Rehearsal:
            vendor = stack.enter_context(Rehearsal(**{"until": UNTIL, "limits": 0.0, **options}))
            for name, value in vendor.environment().items():
                monkeypatch.setenv(name, value)
            return vendor

        yield start


@pytest.fixture
def rehearsal_vendor(request: pytest.FixtureRequest, rehearse: Callable[..., Rehearsal]) -> Rehearsal:
    """A vendor that serves until the test ends."""
    return rehearse(**getattr(request, "param", {}))


__all__ = ["UNTIL", "rehearsal_vendor", "rehearse"]

"""What the parts of the suite share: fixtures, and the hook for what the protocol does not show."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from hdi.stores import Store
from hdi.testing.material import opened


class Suite:
    """Subclasses override :meth:`fresh_url`, and :meth:`footprint` where it helps."""

    @pytest.fixture
    def fresh_url(self) -> Callable[[], str]:
        """Gives, at every call, the URL of an empty store that nothing else uses."""
        raise NotImplementedError("override fresh_url")

    def footprint(self, url: str) -> object:  # noqa: ARG002  (overridden)
        """What lies in the store beside its answers (data files, staged rows), to be equal after a failed commit."""
        return None

    @pytest.fixture
    def url(self, fresh_url: Callable[[], str]) -> str:
        """One empty store."""
        return fresh_url()

    @pytest.fixture
    def store(self, url: str) -> Iterator[Store]:
        """An open handle of it."""
        store = opened(url)
        yield store
        store.close()

"""Conformance suites: what every store has to pass, ours and those that other people write.

A store passes when a subclass of :class:`StoreSuite` does::

    from hdi.testing import StoreSuite

    class TestMine(StoreSuite):
        @pytest.fixture
        def fresh_url(self, tmp_path):
            count = itertools.count()
            return lambda: f"mine:{tmp_path}/{next(count)}"

``fresh_url`` gives, at every call, the URL of an empty store that nothing else uses; every handle of it,
also in other processes, is opened by :func:`hdi.stores.open_store`. Override :meth:`StoreSuite.footprint`
to have the suite see what the store protocol does not show. It needs pytest, and nothing but the package.
:class:`SourceSuite` is the same for sources that are asked over a network.
:mod:`hdi.testing.model` is the same in plain Python, for laws over random commits.
"""

from __future__ import annotations

import pytest

_PARTS = (
    "base",
    "books",
    "days",
    "failing",
    "fragments",
    "instruments",
    "known",
    "noted",
    "once",
    "purges",
    "reading",
    "source",
    "tended",
    "together",
)
pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in _PARTS))

from hdi.testing.books import Books  # noqa: E402  (asserts are rewritten before they are imported)
from hdi.testing.days import Days  # noqa: E402
from hdi.testing.failing import Failing  # noqa: E402
from hdi.testing.fragments import Fragments  # noqa: E402
from hdi.testing.instruments import Instruments  # noqa: E402
from hdi.testing.known import Known  # noqa: E402
from hdi.testing.material import Load, State, content, digest, opened, prices, rejects, trades  # noqa: E402
from hdi.testing.noted import Noted  # noqa: E402
from hdi.testing.once import Once  # noqa: E402
from hdi.testing.purges import Purges  # noqa: E402
from hdi.testing.reading import Reading  # noqa: E402
from hdi.testing.source import SourceSuite  # noqa: E402
from hdi.testing.tended import Tended  # noqa: E402
from hdi.testing.together import Together  # noqa: E402

__all__ = ["Load", "SourceSuite", "State", "StoreSuite", "content", "digest", "opened", "prices", "rejects", "trades"]


class StoreSuite(Once, Books, Days, Fragments, Reading, Instruments, Known, Noted, Purges, Tended, Failing, Together):
    """Every test of the store protocol; subclasses say where a fresh store is."""

"""Work on what is read while more of it is read: in a few threads, in order, with a bounded number of results held."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

import polars as pl

In = TypeVar("In")
Out = TypeVar("Out")
#: More threads than this hold more memory, and wait for the one that looks at what they bring.
_MOST = 4


def ahead(work: Callable[[In], Out], items: Iterable[In], ready: int = 0) -> Iterator[Out]:
    """``work`` of each item, in their order, of as many at once as Polars has threads; ``ready`` more may lie ready.

    Items are taken in the thread of the reader, which does the work of an only one itself. What a reader that stops
    early has not begun is never begun, and what gives the items is closed, also where work failed.
    """
    at_once = max(1, min(pl.thread_pool_size(), _MOST))
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="hdi-read")  # which starts no thread yet
    coming: deque[Future[Out]] = deque()
    try:
        begun = list(islice(taken := iter(items), 2))
        if len(begun) == 1:
            yield work(begun[0])
            return
        for item in chain(begun, taken):
            if len(coming) == at_once + ready:
                yield coming.popleft().result()
            coming.append(pool.submit(work, item))
        while coming:
            yield coming.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        if isinstance(items, Generator):  # else the error that ends this keeps it open, and its connection
            items.close()


__all__ = ["ahead"]

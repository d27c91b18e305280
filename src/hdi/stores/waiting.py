"""Answers that are waited for in such a way that Ctrl-C ends them: a driver that is at work looks at no signal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

_T = TypeVar("_T")
#: How long a wait lasts before signals are looked at.
_TURN = 0.1


def interruptible(ask: Callable[[], Iterator[_T]], stop: Callable[[], None]) -> Iterator[_T]:
    """What ``ask`` gives, asked for in a thread of its own; ``stop`` ends what is asked when this is left early."""
    with ThreadPoolExecutor(1) as thread:
        task: Future[Any] = Future()
        task.set_result(None)
        try:
            task = first = thread.submit(ask)
            answer = _waited(first)
            while True:
                task = following = thread.submit(next, answer, None)
                if (found := _waited(following)) is None:
                    return
                yield found
        except BaseException:
            stop()
            # What had not begun yet when it was told to end, began all the same: it is told again.
            while wait([task], _TURN).not_done:
                stop()
            raise


def _waited(task: Future[_T]) -> _T:
    while True:
        try:
            return task.result(_TURN)
        except TimeoutError:
            if task.done():
                raise


__all__ = ["interruptible"]

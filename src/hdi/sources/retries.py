"""Trying again what may pass: exponential waits with jitter, and the waits that the other side asks for."""

from __future__ import annotations

import datetime as dt
import email.utils
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import stamina
import structlog

T = TypeVar("T")

#: A longer wait is asked for by nobody who expects the call again today.
LONGEST_WAIT = 120.0
_LONGEST_BACKOFF = 30.0
_SECONDS = re.compile(r"\d{1,9}(\.\d+)?")
log = structlog.get_logger(component="DatabentoAdapter")


class Transient(Exception):
    """A failure that may pass. ``reason`` says what failed, ``hint`` what to do when it stays.

    ``wait`` is how many seconds the other side asked to be left alone, None when it did not ask. ``undone``: it said
    that it has not done what it was asked for; otherwise nobody knows.
    """

    def __init__(self, reason: str, hint: str = "", wait: float | None = None, *, undone: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.wait = wait
        self.undone = undone


def retry_after(text: str | None) -> float | None:
    """Seconds from now that a ``Retry-After`` header asks for: a number or an HTTP date; None when it is neither."""
    if text is None:
        return None
    if _SECONDS.fullmatch(text.strip()):
        return float(text)
    try:
        until = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    if until.tzinfo is None:  # "-0000" leaves the zone open; HTTP dates are in GMT
        until = until.replace(tzinfo=dt.UTC)
    return max(0.0, (until - dt.datetime.now(dt.UTC)).total_seconds())


@dataclass(frozen=True)
class Retries:
    """How often and after which waits a call is made again: ``tries`` in all, ``backoff`` seconds doubled each time.

    A wait that the other side asked for is kept, up to LONGEST_WAIT. ``on_wait`` is told why, and for how many seconds.
    """

    tries: int = 5
    backoff: float = 0.5
    on_wait: Callable[[str, float], None] | None = None

    def run(self, what: str, work: Callable[[], T]) -> T:
        """What ``work`` returns. Raises the last Transient when all tries failed, and at once anything else."""
        failed = 0

        def wait(error: Exception) -> bool | float:
            nonlocal failed
            if not isinstance(error, Transient):
                return False
            failed += 1
            if failed >= self.tries:
                return True
            seconds = self.seconds(failed, error.wait)
            self._tell(f"{what}: {error.reason}; try {failed + 1} of {self.tries}", error, seconds)
            return seconds

        # The log line of each retry is stamina's own.
        with structlog.contextvars.bound_contextvars(component="DatabentoAdapter", what=what):
            for attempt in stamina.retry_context(on=wait, attempts=self.tries, timeout=None):
                with attempt:
                    return work()
        raise AssertionError("stamina gives a try or raises")  # pragma: no cover

    def seconds(self, failed: int, asked: float | None) -> float:
        """The wait after so many failures, in seconds; ``asked`` is what the other side asked for."""
        jitter = random.uniform(0, self.backoff)  # noqa: S311 - it spreads load, it keeps no secret
        if asked is not None:
            return self.kept(asked) + jitter
        return min(self.backoff * 2.0 ** (failed - 1), _LONGEST_BACKOFF) + jitter

    @staticmethod
    def kept(asked: float) -> float:
        """The part of a wait that was asked for which is kept, in seconds."""
        return min(asked, LONGEST_WAIT)

    def _tell(self, reason: str, error: Transient, seconds: float) -> None:
        if error.wait is not None and error.wait > LONGEST_WAIT:
            reason = f"{reason} (asked to wait {error.wait:.0f} s, which is cut to {LONGEST_WAIT:.0f} s)"
            log.warning("a longer wait was asked for than is kept", asked=error.wait, kept=LONGEST_WAIT)
        if self.on_wait is not None:
            self.on_wait(reason, seconds)

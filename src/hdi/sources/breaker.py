"""A circuit breaker: after the vendor has refused a key, an account or a licence, nothing more is asked of it.

``closed``: calls go through. ``open``: they are refused here, with what the vendor said. ``half-open``: its pause is
over, and one call may try whether the account is in order again. Who waits for that (a schedule) sets ``pause`` or
calls :meth:`Breaker.close`; without either it stays open as long as the process lives.
"""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import dataclass
from typing import Literal

import structlog

from hdi.errors import AccountRefused

State = Literal["closed", "open", "half-open"]
#: Stands for all that a key may ask, where a dataset names what one licence is about.
ACCOUNT = ""
log = structlog.get_logger(component="DatabentoAdapter")


@dataclass
class _Trip:
    """What the vendor refused, when, and whether a call is trying it again."""

    error: AccountRefused
    at: float
    trying: bool = False


class Breaker:
    """The breaker of one key at one gateway. Threads share it. ``pause`` is seconds until half-open; None is never."""

    def __init__(self, pause: float | None = None) -> None:
        self.pause = pause
        self._lock = threading.Lock()
        self._trips: dict[str, _Trip] = {}

    def state(self, dataset: str = ACCOUNT) -> State:
        """How it stands for a dataset; without one, for the account."""
        with self._lock:
            trips = [self._trips[name] for name in {ACCOUNT, dataset} if name in self._trips]
            if not trips:
                return "closed"
            return "half-open" if all(map(self._rested, trips)) else "open"

    def check(self, what: str, dataset: str = ACCOUNT) -> None:
        """Raise AccountRefused when a call must not leave; when it may try, it is the one that does."""
        with self._lock:
            for name in (ACCOUNT, dataset):
                trip = self._trips.get(name)
                if trip is not None and (trip.trying or not self._rested(trip)):
                    raise AccountRefused(f"{what}: not asked, after {trip.error.message}", trip.error.hint, name)
            for name in (ACCOUNT, dataset):
                if name in self._trips:
                    self._trips[name].trying = True

    def refused(self, error: AccountRefused) -> None:
        """Open it: for everything, or for the dataset whose licence is lacking."""
        dataset = error.dataset
        with self._lock:
            self._trips[dataset] = _Trip(error, time.monotonic())
            if dataset != ACCOUNT:  # the key itself was taken
                self._trips.pop(ACCOUNT, None)
        log.warning(
            "the vendor refuses the account: nothing more is asked", dataset=dataset or None, error=error.message
        )

    def answered(self, dataset: str = ACCOUNT) -> None:
        """A call was answered: what it tried is closed."""
        if self._trips:
            with self._lock:
                for name in {ACCOUNT, dataset}:
                    self._trips.pop(name, None)

    def failed(self, dataset: str = ACCOUNT) -> None:
        """A call failed for another reason: it tells nothing, and another one may try."""
        if self._trips:
            with self._lock:
                for name in {ACCOUNT, dataset} & self._trips.keys():
                    self._trips[name].trying = False

    def close(self) -> None:
        """Let calls through again: somebody has mended what was wrong."""
        with self._lock:
            self._trips.clear()

    def _rested(self, trip: _Trip) -> bool:
        return self.pause is not None and time.monotonic() >= trip.at + self.pause


_lock = threading.Lock()
_shared: dict[tuple[str, bytes], Breaker] = {}


def shared(gateway: str, key: str) -> Breaker:
    """The one breaker of this process for a key at a gateway."""
    with _lock:
        return _shared.setdefault((gateway, hashlib.sha256(key.encode()).digest()), Breaker())


def close_all() -> None:
    """Close every breaker of this process."""
    with _lock:
        for breaker in _shared.values():
            breaker.close()

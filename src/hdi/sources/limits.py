"""How often a vendor may be called: so many calls a second of each family (or a minute), and so many at once.

Both are shared by all threads of the process.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections import deque
from collections.abc import Mapping

import structlog

#: Clocks and networks stretch a second: what leaves in one may arrive in a shorter one.
_SPAN = 1.5
_MINUTE = 60.5
log = structlog.get_logger(component="DatabentoAdapter")


class Limiter:
    """Gives calls their place in time, at most ``per_second[family]`` in any ``span`` seconds.

    ``per_minute`` are families that are counted by the minute. A family without a limit is never held up by number.
    Threads may share it.
    """

    def __init__(
        self, per_second: Mapping[str, int], span: float = _SPAN, per_minute: Mapping[str, int] | None = None
    ) -> None:
        self._limits = {**per_second, **(per_minute or {})}
        self._spans = dict.fromkeys(per_second, span) | dict.fromkeys(per_minute or {}, _MINUTE)
        self._lock = threading.Lock()
        self._places: dict[str, deque[float]] = {family: deque(maxlen=n) for family, n in self._limits.items()}
        self._held: dict[str, float] = {}

    def take(self, family: str) -> float:
        """Seconds to wait before the call may leave; its place is taken."""
        with self._lock:
            now = time.monotonic()
            at = max(now, self._held.get(family, now))
            places = self._places.get(family)
            if places is not None:
                span = self._spans[family]
                if len(places) == places.maxlen:
                    at = max(at, places[0] + span)
                places.append(at)
                used = sum(place > now - span for place in places)
                reset = at + span - now
        if places is not None:
            self._tell(family, used, reset, throttled=at > now)
        return at - now

    def left(self) -> dict[str, tuple[int, int, float]]:
        """Of each family: how many calls may leave now without a wait, of how many, in how many seconds."""
        with self._lock:
            now = time.monotonic()
            return {
                family: (max(0, most - sum(place > now - self._spans[family] for place in self._places[family])),
                         most, self._spans[family])
                for family, most in self._limits.items()
            }  # fmt: skip

    def hold(self, family: str, seconds: float) -> None:
        """Let no further call of the family leave for so long: the vendor asked for it."""
        with self._lock:
            until = time.monotonic() + seconds
            self._held[family] = max(until, self._held.get(family, until))

    def _tell(self, family: str, used: int, reset: float, *, throttled: bool) -> None:
        log.info(
            "rate_limit",
            family=family,
            remaining_calls=max(0, self._limits[family] - used),
            reset_time=(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=reset)).isoformat(timespec="milliseconds"),
            throttle_applied=throttled,
        )


_lock = threading.Lock()
_shared: dict[str, Limiter] = {}
_slots: dict[str, threading.BoundedSemaphore] = {}


def shared(gateway: str, per_second: Mapping[str, int], per_minute: Mapping[str, int] | None = None) -> Limiter:
    """The one limiter of this process for a gateway, made with these numbers at its first use."""
    with _lock:
        return _shared.setdefault(gateway, Limiter(per_second, per_minute=per_minute))


def slots(gateway: str, most: int) -> threading.BoundedSemaphore:
    """What a call to the gateway holds while it lasts: ``most`` (at the first use) can at once."""
    with _lock:
        return _slots.setdefault(gateway, threading.BoundedSemaphore(most))

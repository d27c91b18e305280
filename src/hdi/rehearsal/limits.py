"""The vendor's published request limits, per key: 100 timeseries, 100 symbology and 20 metadata calls a second."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque

PER_SECOND = {"timeseries": 100, "symbology": 100, "metadata": 20}
_SPAN = 1.0


class Limits:
    """Counts calls of the last second by key and family. ``factor`` scales what is allowed; 0 lifts every limit.

    Threads may share it. Calls that were refused do not count.
    """

    def __init__(self, factor: float = 1.0) -> None:
        self._allowed = {family: max(1, round(n * factor)) for family, n in PER_SECOND.items()} if factor else {}
        self._lock = threading.Lock()
        self._calls: defaultdict[tuple[str, str], deque[float]] = defaultdict(deque)

    def wait(self, key: str, family: str) -> float:
        """Seconds until this call would be allowed; 0 when it is, and then it is counted."""
        if family not in self._allowed:
            return 0.0
        with self._lock:
            now, calls = time.monotonic(), self._calls[key, family]
            while calls and calls[0] <= now - _SPAN:
                calls.popleft()
            if len(calls) >= self._allowed[family]:
                return calls[0] + _SPAN - now
            calls.append(now)
            return 0.0

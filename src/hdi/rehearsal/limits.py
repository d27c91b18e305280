"""The vendor's published request limits, per key: so many calls a second, of some so many a minute."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque

PER_SECOND = {"timeseries": 100, "symbology": 100, "metadata": 20, "batch.list_jobs": 20}
PER_MINUTE = {"batch.submit_job": 20}
#: Connections at once.
CONNECTIONS = 100
_SECOND, _MINUTE = 1.0, 60.0


class Limits:
    """Counts the last calls by key and family. ``factor`` scales what is allowed; 0 lifts every limit.

    A family is the first word of a method, or a method that has a limit of its own. Threads may share it. Calls that
    were refused do not count.
    """

    def __init__(self, factor: float = 1.0) -> None:
        published = {family: (n, _SECOND) for family, n in PER_SECOND.items()}
        published |= {family: (n, _MINUTE) for family, n in PER_MINUTE.items()}
        self._allowed = {f: (max(1, round(n * factor)), span) for f, (n, span) in published.items()} if factor else {}
        self.connections = max(1, round(CONNECTIONS * factor)) if factor else None
        self._lock = threading.Lock()
        self._calls: defaultdict[tuple[str, str], deque[float]] = defaultdict(deque)

    def wait(self, key: str, method: str) -> float:
        """Seconds until a call of the method or family would be allowed; 0 when it is, and then it is counted."""
        family = method if method in self._allowed else method.partition(".")[0]
        if family not in self._allowed:
            return 0.0
        most, span = self._allowed[family]
        with self._lock:
            now, calls = time.monotonic(), self._calls[key, family]
            while calls and calls[0] <= now - span:
                calls.popleft()
            if len(calls) >= most:
                return calls[0] + span - now
            calls.append(now)
            return 0.0

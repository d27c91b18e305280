"""What the rehearsal vendor itself counts and bills: every call by method, and one entry for each stream or job."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

from hdi.errors import RequestError


@dataclass(frozen=True, slots=True)
class Entry:
    """One answered ``timeseries.get_range``, or one batch job: what was asked for, and what was really sent.

    ``time`` is nanoseconds UTC when the answer ended; ``start`` and ``end`` are nanoseconds. ``size`` counts
    uncompressed record bytes, ``records`` the whole records in them. ``finished`` is true when every record that the
    request selects was sent and the answer ended cleanly. ``planted`` says how many of the records that the request
    selects are bad on purpose.
    """

    time: int
    dataset: str
    schema: str
    stype: str
    symbols: tuple[str, ...]
    start: int
    end: int
    records: int
    size: int
    dollars: Decimal
    finished: bool
    planted: int = 0
    job: str = ""

    def document(self) -> dict[str, Any]:
        """The entry as JSON takes it; dollars as text, exactly."""
        return asdict(self) | {"symbols": list(self.symbols), "dollars": str(self.dollars)}

    @classmethod
    def parse(cls, document: dict[str, Any]) -> Entry:
        """The entry of a :meth:`document`."""
        known = {field.name: document[field.name] for field in fields(cls)}
        return cls(**known | {"symbols": tuple(known["symbols"]), "dollars": Decimal(known["dollars"])})


class Account(Protocol):
    """The face of the books, in this process or of another one. Counters are copies."""

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What was billed, in the order in which the answers ended."""

    @property
    def calls(self) -> Counter[str]:
        """Calls by method (``"metadata.get_cost"``), refused and broken ones among them."""

    @property
    def billed_bytes(self) -> int:
        """Uncompressed record bytes of all entries."""

    @property
    def dollars(self) -> Decimal:
        """US dollars of all entries."""

    def reset(self) -> None:
        """Forget all of it; a file of entries stays as it is."""


class Books:
    """The books, kept in memory, and in ``file`` (JSON lines, appended) where one is given. Threads may share them.

    Raises RequestError when the file cannot be written.
    """

    def __init__(self, file: Path | None = None, *, entries: Iterable[Entry] = (), calls: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._entries = list(entries)
        self._calls = Counter(calls)
        self._file = file
        if file is not None:
            self._append("")

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What was billed, in the order in which the answers ended."""
        with self._lock:
            return tuple(self._entries)

    @property
    def calls(self) -> Counter[str]:
        """Calls by method (``"metadata.get_cost"``), refused and broken ones among them."""
        with self._lock:
            return Counter(self._calls)

    @property
    def billed_bytes(self) -> int:
        """Uncompressed record bytes of all entries."""
        return sum(entry.size for entry in self.entries)

    @property
    def dollars(self) -> Decimal:
        """US dollars of all entries."""
        return sum((entry.dollars for entry in self.entries), Decimal(0))

    def reset(self) -> None:
        """Forget all of it; the file stays as it is."""
        with self._lock:
            self._entries.clear()
            self._calls.clear()

    def count(self, method: str) -> None:
        """Count one call."""
        with self._lock:
            self._calls[method] += 1

    def bill(self, entry: Entry) -> None:
        """Take an entry in, and write it to the file."""
        with self._lock:
            self._entries.append(entry)
            if self._file is not None:
                self._append(json.dumps(entry.document() | {"synthetic": True}) + "\n")

    def document(self) -> dict[str, Any]:
        """All of it as JSON takes it."""
        with self._lock:
            entries, calls = list(self._entries), dict(self._calls)
        return {
            "synthetic": True,
            "calls": calls,
            "billed_bytes": sum(entry.size for entry in entries),
            "dollars": str(sum((entry.dollars for entry in entries), Decimal(0))),
            "entries": [entry.document() for entry in entries],
        }

    @classmethod
    def parse(cls, document: dict[str, Any]) -> Books:
        """The books of a :meth:`document`."""
        return cls(entries=map(Entry.parse, document["entries"]), calls=Counter(document["calls"]).elements())

    def _append(self, line: str) -> None:
        assert self._file is not None  # noqa: S101  (callers look)
        try:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as exc:
            raise RequestError(
                f"{self._file}: cannot be written: {exc.strerror}", "Name another --books FILE."
            ) from exc

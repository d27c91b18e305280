"""Which reconciliations were done: one line for each in ``<data_dir>/reconciled.jsonl``, after its last comparison.

The ledger of discrepancies says what was found. By these lines nothing found is told from nobody having looked.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from hdi.errors import HdiError, StoreError
from hdi.model import Window, iso_ns, parse_instant

_NAME, _FORMAT = "reconciled.jsonl", 1
#: What reading a line may raise that no run wrote.
_BAD = (HdiError, LookupError, TypeError, ValueError, AttributeError, RecursionError)


@dataclass(frozen=True)
class Judged:
    """One reconciliation of the store with this ``identity``, done at ``at``; without ``symbols`` of all of them.

    ``rows`` says how many rows of each (dataset, schema) every check judged; those of which it judged none are 0.
    """

    run: str
    at: int
    identity: str
    window: Window
    symbols: tuple[str, ...]
    rows: Mapping[tuple[str, str], Mapping[str, int]] = field(repr=False)

    def of(self, dataset: str, schema: str) -> dict[str, int]:
        """How many rows of a schema each check judged; checks that judged none are left out."""
        return {check: rows for check, rows in self.rows.get((dataset, schema), {}).items() if rows}

    def about(self, dataset: str, schema: str, symbols: Sequence[str], window: Window) -> bool:
        """Whether it judged some of these symbols (none: all) in some of this window."""
        near = not symbols or not self.symbols or not set(symbols).isdisjoint(self.symbols)
        return near and self.window.cut(window) is not None and bool(self.of(dataset, schema))


def keep(data_dir: Path, done: Judged) -> None:
    """Keep what a run judged. Raises StoreError where it cannot be written."""
    rows = [
        {"dataset": dataset, "schema": schema, "checks": dict(checks)}
        for (dataset, schema), checks in sorted(done.rows.items())
    ]
    line = json.dumps({
        "format": _FORMAT, "run": done.run, "at": iso_ns(done.at), "store": done.identity,
        "window_ns": [done.window.start, done.window.end], "symbols": done.symbols, "judged": rows,
    }, ensure_ascii=False) + "\n"  # fmt: skip
    path = data_dir / _NAME
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            size = os.fstat(fd).st_size
            # What a run that died left of its line stays a line of its own, which no reader takes for one.
            torn = size and os.pread(fd, 1, size - 1) != b"\n"
            view = memoryview(("\n" * bool(torn) + line).encode())
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as exc:
        raise StoreError(
            f"the record of the reconciliation cannot be kept in {path}: {exc.strerror or exc}",
            "What it found is in the store. Free some space or name another folder with HDI_DATA_DIR.",
        ) from exc


def known(data_dir: Path, identity: str) -> list[Judged]:
    """The reconciliations of a store that are on record in a data folder, oldest first."""
    path = data_dir / _NAME
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise StoreError(f"{path} cannot be read: {exc.strerror or exc}", "Make it readable for this user.") from exc
    return [done for done in _read(lines, path) if done.identity == identity]


def _read(lines: Sequence[bytes], path: Path) -> Iterator[Judged]:
    for number, line in enumerate(lines, 1):
        try:
            yield _judged(json.loads(line))
        except _BAD as exc:
            log = structlog.get_logger(component="Reconciliation")
            log.warning("A line that no reconciliation wrote", file=str(path), line=number, error=str(exc))


def _judged(told: Mapping[str, Any]) -> Judged:
    """Raises one of ``_BAD`` for what is no line of this version."""
    if told["format"] != _FORMAT:
        raise ValueError(f"it has format {told['format']}, and this version knows {_FORMAT}")
    start, end = map(int, told["window_ns"])
    rows = {
        (str(each["dataset"]), str(each["schema"])): {str(c): int(n) for c, n in each["checks"].items()}
        for each in told["judged"]
    }
    at, _ = parse_instant(told["at"])
    return Judged(str(told["run"]), at, str(told["store"]), Window(start, end), tuple(map(str, told["symbols"])), rows)


__all__ = ["Judged", "keep", "known"]

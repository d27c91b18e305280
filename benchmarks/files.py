"""The generated files of a run. They are made in processes of their own, so that the one that measures stays small."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.measure import ROOT

if TYPE_CHECKING:
    from pathlib import Path

DAILY_ROWS = 50 * 262
#: Symbols of the generated files, and the first trading day in them.
SYMBOL, OTHER, DAY = "ESH4", "NQH4", "2024-01-02"
#: Minute bars of five years of a continuous symbol.
FRONT, FRONT_ROWS = "ES.c.0", 5 * 252 * 23 * 60
#: The first day of the definitions, how many options they are of, one of these, and of which share a day's news are.
FIRST_DAY, OPTIONS, OPTION, CHANGES = dt.date(2024, 1, 1), 20_000, "E01H4 C3000", 20


def source(schema: str, rows: int, data: Path, symbol: str = "") -> str:
    """The path of a generated file; with ``symbol``, of what it holds of that one."""
    made = subprocess.run(
        [sys.executable, "-m", "benchmarks.tape", schema, str(rows), str(data.resolve()), symbol],
        check=True, capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    return made.stdout.splitlines()[-1]


def versions(days: int) -> int:
    """How many definitions of so many days differ from the one before of the same option."""
    return OPTIONS + sum(len(range(day % CHANGES, OPTIONS, CHANGES)) for day in range(1, days))


def label(schema: str, rows: int) -> str:
    """What a file of so many records is called in a report."""
    return f"{schema} {rows // 1_000_000} M" if rows % 1_000_000 == 0 else f"{schema} {rows:,}"

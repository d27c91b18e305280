"""``python -m benchmarks.known``: what superseded rows cost reads that do not ask for them, and those that do.

Two lakes (with ``--database URL`` two databases) hold the same trades. One never had others; in the other every tenth
row was replaced as often as ``--times`` says. Each read of all rows takes turns with the others, in fresh processes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hdi.model import DAY_NS, Window
from hdi.testing import Load, opened, trades
from hdi.testing.material import START

READ = """
import sys, time
from hdi.testing import opened
from hdi.testing.material import ALWAYS, schemas
from hdi.then import Then
store = opened(sys.argv[1])
schema, name = schemas().find("trades")
began = time.perf_counter()
at = store
if len(sys.argv) > 2:
    at = Then(store, int(sys.argv[2]) or time.time_ns())
rows = sum(f.height for f in at.read(schema, name.name, ALWAYS, None, ["ts_recv", "instrument_id", "price", "size"]))
print(rows, time.perf_counter() - began)
"""


def fill(url: str, rows: int, days: int, times: int) -> int:
    """Days of trades, and ``times`` replacements of every tenth row of each; the time before the first of those."""
    store = opened(url)
    began = 0
    for version in range(times + 1):
        for day in range(days):
            start = START + day * DAY_NS
            window = Window(start, start + DAY_NS)
            each = rows // days
            at = [start + k * (DAY_NS // each) for k in range(each)]
            other = [100 + version % 2 * (k % 10 == 0) for k in range(each)]
            Load(trades(at, 1, other), window=window, batch=100_000, run=f"run-{version}").commit(store)
        store.settle()
        if version == 0:
            began = int(store.ledger()["committed_at"].max())  # type: ignore[arg-type]  # Polars' maxima
    store.close()
    return began


def read(arguments: Sequence[str]) -> tuple[int, float]:
    """Rows and seconds of one read in a process of its own."""
    ran = subprocess.run([sys.executable, "-c", READ, *arguments], check=True, capture_output=True, text=True)
    rows, seconds = ran.stdout.split()[-2:]
    return int(rows), float(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.known", description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--days", type=int, default=8)
    parser.add_argument("--times", type=int, default=6, help="an even number leaves both stores with the same rows")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--database", nargs=2, metavar="URL", help="two empty databases, instead of lakes")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        plain, rich = asked.database or [f"lake:{Path(folder) / name}" for name in ("plain", "rich")]
        fill(plain, asked.rows, asked.days, 0)
        before = fill(rich, asked.rows, asked.days, asked.times)
        cases = {
            "plain read, no history": [plain],
            "plain read, much history": [rich],
            "as of now, no history": [plain, "0"],
            "as of now, much history": [rich, "0"],
            "as of before the history": [rich, str(before)],
        }
        found: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(asked.rounds):
            for name, arguments in cases.items():
                rows, seconds = read(arguments)
                if rows != asked.rows // asked.days * asked.days:
                    raise SystemExit(f"{name}: {rows} rows")
                found[name].append(seconds)
        first = min(found["plain read, no history"])
        for name, seconds in found.items():
            print(f"{name}: {min(seconds):.3f} s, {min(seconds) / first:.2f} times")


if __name__ == "__main__":
    main()

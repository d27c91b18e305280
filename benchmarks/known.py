"""What superseded rows cost reads that do not ask for them, and those that do.

Two stores hold the same trades. One never had others; in the other every tenth row was replaced :data:`TIMES` times.
Both were tended since, as ``hdi maintain`` does it (a server's own workers vacuum within a minute or so anyway).
``python -m benchmarks.known PLAIN RICH ROWS`` fills two empty ones, and prints when the history began.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.measure import ROOT, Case, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from benchmarks.measure import Measured
    from benchmarks.work import Timed

GROUP, SERVER = "as it was known", "TimescaleDB: as it was known"
PLAIN, LATEST = "all trades, without history", "all trades, beside much history"
NOW, BEFORE = "as of now, beside much history", "as of before the history"
#: What is known now takes at most so many times as long where there is a history.
LIMIT = 1.3
DAYS = 4
#: An even number leaves both stores with the same rows.
TIMES = 4
#: Reads that are timed together.
_OFTEN = 3
_COLUMNS = ("ts_recv", "instrument_id", "price", "size")


def fill(url: str, rows: int, times: int) -> int:
    """Days of trades, and ``times`` replacements of every tenth row of each; the time before the first of those."""
    from hdi.model import DAY_NS, Window
    from hdi.stores.upkeep import Care, Maintained
    from hdi.testing import Load, opened, trades
    from hdi.testing.material import START

    store = opened(url)
    assert isinstance(store, Maintained)
    each, began = rows // DAYS, 0
    for version in range(times + 1):
        prices = [100 + version % 2 * (k % 10 == 0) for k in range(each)]
        for day in range(DAYS):
            window = Window(START + day * DAY_NS, START + (day + 1) * DAY_NS)
            at = [window.start + k * (DAY_NS // each) for k in range(each)]
            Load(trades(at, 1, prices), window=window, batch=100_000, run=f"run-{version}").commit(store)
        store.settle()
        if version == 0:
            began = int(store.ledger()["committed_at"].max())  # type: ignore[arg-type]  # Polars' maxima
    for _ in store.maintain(Care()):
        pass
    store.close()
    return began


def _reads(source: str, _: Path) -> Timed:
    """A piece that reads all rows; ``source`` says of which store, and as of which nanosecond (0: now)."""
    import time

    from hdi.stores import Store
    from hdi.testing import opened
    from hdi.testing.material import ALWAYS, schemas
    from hdi.then import Then

    asked = json.loads(source)
    store: Store = opened(asked["store"])
    if "as_of" in asked:
        store = Then(store, asked["as_of"] or time.time_ns())
    schema, name = schemas().find("trades")

    def read() -> int:
        return sum(frame.height for frame in store.read(schema, name.name, ALWAYS, None, _COLUMNS))

    read()
    return lambda: [read() for _ in range(_OFTEN)][-1]


JOBS: dict[str, Callable[[str, Path], Timed]] = {"read_known": _reads}


def cases(plain: str, rich: str, rows: int, rounds: int, work: Path, *, server: bool = False) -> list[Case]:
    """Fills two empty stores; the reads of them, which take turns."""
    command = [sys.executable, "-m", "benchmarks.known", plain, rich, str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(work), cwd=ROOT, check=False)
    if done.returncode:
        raise RuntimeError(f"the stores were not filled:\n{done.stderr[-2000:]}")
    before = int(done.stdout.split()[-1])
    sources = {
        PLAIN: {"store": plain}, LATEST: {"store": rich}, NOW: {"store": rich, "as_of": 0},
        BEFORE: {"store": rich, "as_of": before},
    }  # fmt: skip
    group, whole = SERVER if server else GROUP, rows // DAYS * DAYS
    return [
        Case(group, name, whole, job="read_known", source=json.dumps(source), rounds=rounds)
        for name, source in sources.items()
    ]


def ratios(results: Sequence[Measured]) -> dict[str, float]:
    """How many times as long what is known now takes where there is a history, best round against best round."""
    best = {(m.case.group, m.case.name): m.best for m in results if m.seconds and not m.error}
    return {
        f"{group}: {name}": best[group, name] / best[group, PLAIN]
        for group in (GROUP, SERVER)
        for name in (LATEST, NOW)
        if (group, name) in best and (group, PLAIN) in best
    }


def main(plain: str, rich: str, rows: str) -> None:
    fill(plain, int(rows), 0)
    print(fill(rich, int(rows), TIMES))


if __name__ == "__main__":
    main(*sys.argv[1:])

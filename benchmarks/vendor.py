"""The rehearsal vendor of a run, in processes of its own: the one that measures stays small.

``python -m benchmarks.vendor OPTIONS`` starts it, prints the environment that points clients at it, and answers one
question a line until its input ends.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self

from benchmarks.measure import ROOT

if TYPE_CHECKING:
    from types import TracebackType

#: Where data ends: after the last day of any predefined job.
UNTIL = "2025-01-01"
DATASET = "GLBX.MDP3"
#: A busy day, and the front contract on it.
DAY, SYMBOL = "2024-01-03", "ES.c.0"
Request = dict[str, Any]


class Vendor:
    """A rehearsal vendor; a context manager. ``trades``: as active as it takes for so many on the busy day.

    Without it the vendor is as active as it usually is. It keeps to the limits that the real one publishes.
    """

    environment: dict[str, str]

    def __init__(self, trades: int | None = None) -> None:
        self._trades = trades

    def __enter__(self) -> Self:
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.vendor", json.dumps(self._trades)]
        paths = os.pathsep.join([str(ROOT), str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env=os.environ | {"PYTHONPATH": paths},
        )  # fmt: skip
        self.environment = self._read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._process as process:
            process.communicate()  # closes its input, on which it ends

    def count(self, request: Request) -> int:
        """How many records a request brings, by the vendor's count."""
        return int(self._ask({"count": request}))

    def billed(self) -> Decimal:
        """US dollars that the vendor has billed so far."""
        return Decimal(self._ask({"billed": True}))

    def _ask(self, question: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise RuntimeError("the rehearsal vendor is gone; what it said is on stderr")
        return json.loads(line)


def scale_for(trades: int) -> float:
    """The activity at which the front contract has at least so many trades on the busy day."""
    from hdi.model import DAY_NS, date_ns
    from hdi.rehearsal.market import Market

    day = dt.date.fromisoformat(DAY)
    start, end = date_ns(day), date_ns(day) + DAY_NS

    def count(scale: float) -> int:
        market = Market(scale=scale, today=day + dt.timedelta(days=1))
        found = market.resolve(DATASET, [SYMBOL], "continuous", "instrument_id", day, day + dt.timedelta(days=1))
        return market.count(DATASET, "trades", [(int(found.result[SYMBOL][0][2]), start, end)], start, end)

    scale = trades / count(1.0)
    while count(scale) < trades:
        scale *= 1.01
    return scale


def serve(trades: int | None) -> None:
    import databento

    from hdi.rehearsal import spawn

    with spawn(until=UNTIL, scale=1.0 if trades is None else scale_for(trades)) as vendor:
        os.environ.update(vendor.environment())
        client = databento.Historical(vendor.key, vendor.gateway)
        print(json.dumps(vendor.environment()), flush=True)
        for line in sys.stdin:
            asked = json.loads(line)
            if "count" in asked:
                words = asked["count"]
                stype = words.pop("stype", "continuous")
                answer: Any = client.metadata.get_record_count(**words, stype_in=stype)
            else:
                answer = str(vendor.books.dollars)
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))

"""What a verification asks of a store."""

from __future__ import annotations

import datetime as dt
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hdi.api.opened import versions
from hdi.errors import UnknownSymbol, masked
from hdi.verifying import DAILY, LACKING, World
from hdi.verifying import verify as verified
from hdi.verifying.results import document, write
from hdi.verifying.running import timed

if TYPE_CHECKING:
    from hdi.api.proving import Proving


def verify(data: Proving, tests: Sequence[str], tell: Callable[[str], object]) -> tuple[Path, dict[str, Any]]:
    """Measure, and keep the result beside the logs."""
    began = dt.datetime.now(dt.UTC)

    def bars(symbol: str) -> list[int]:
        found = data.query(symbol, schema=DAILY, columns=["ts_event"]).collect()
        return sorted({int(at) for at in found["ts_event"].to_physical()})

    def held(symbol: str, schema: str) -> bool:
        return bool(data.query(symbol, schema=schema, limit=1).collect().height)

    def lacking(symbol: str, first: dt.date, last: dt.date) -> tuple[int, str]:
        try:
            missing = data.gaps(symbol, first, last, schema=DAILY).missing
        except UnknownSymbol:  # it is held under other names, and nothing of it was ever asked for
            return 0, ""
        causes = {
            cause: int(part["stretches"].sum()) for (cause,), part in missing.group_by("cause") if cause in LACKING
        }
        return sum(causes.values()), ", ".join(f"{cause}: {days}" for cause, days in sorted(causes.items()))

    def command(symbol: str, first: dt.date, last: dt.date) -> tuple[int, float, str]:
        days = ["--start-date", f"{first}", "--end-date", f"{last}"]
        arguments = ["query", "-s", symbol, *days, "--output-format", "csv"]
        settings = data.settings
        environment = {"HDI_STORE": settings.store_url, "HDI_DATA_DIR": str(settings.data_dir)}
        if settings.config_dir is not None:
            environment["HDI_CONFIG_DIR"] = str(settings.config_dir)
        return timed(arguments, environment)

    world = World(lambda: data.store().ledger(), data.runs, bars, held, lacking, command)
    found = verified(world, tests, tell)
    ended = dt.datetime.now(dt.UTC)
    result = document(found, {
        "started": began.isoformat(), "ended": ended.isoformat(), "seconds": round((ended - began).total_seconds(), 3),
        "store": masked(data.settings.store_url), "synthetic": data.synthetic, "host": socket.gethostname(),
        "versions": versions(), "tests": [test.name for test in found],
    })  # fmt: skip
    return write(data.settings.log.dir, result, ended), result


__all__ = ["verify"]

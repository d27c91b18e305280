"""What a verification asks of a store."""

from __future__ import annotations

import datetime as dt
import socket
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from hdi.api.opened import versions
from hdi.errors import UnknownSymbol, masked
from hdi.gaps.causes import CLOSED
from hdi.model import DAY_NS
from hdi.verifying import DAILY, LACKING, World
from hdi.verifying import verify as verified
from hdi.verifying.results import document, write
from hdi.verifying.running import timed

if TYPE_CHECKING:
    from hdi.api.proving import Proving


def lacked(gaps: pl.DataFrame, bars: Iterable[int]) -> tuple[int, str]:
    """On how many days no instrument has a bar, and one may have had one; and how many by cause, in words.

    ``gaps`` are daily ones, with the days on which the market is closed.
    """
    days = gaps.select("cause", at=pl.int_ranges(pl.col("start") // DAY_NS, -(-pl.col("end") // DAY_NS))).explode("at")
    there = pl.Series([at // DAY_NS for at in bars], dtype=pl.Int64)
    shut = days.filter(pl.col("cause").is_in(sorted(CLOSED)))["at"]
    open_ = days.filter(pl.col("cause").is_in(LACKING), ~pl.col("at").is_in(pl.concat([there, shut]).implode()))
    causes = open_.unique().group_by("cause").len().sort("cause").iter_rows()
    return open_["at"].n_unique(), ", ".join(f"{cause}: {count}" for cause, count in causes)


def verify(data: Proving, tests: Sequence[str], tell: Callable[[str], object]) -> tuple[Path, dict[str, Any]]:
    """Measure, and keep the result beside the logs."""
    began = dt.datetime.now(dt.UTC)

    def bars(symbol: str) -> list[int]:
        found = data.query(symbol, schema=DAILY, columns=["ts_event"]).collect()
        return sorted({int(at) for at in found["ts_event"].to_physical()})

    def held(symbol: str, schema: str) -> bool:
        return bool(data.query(symbol, schema=schema, limit=1).collect().height)

    def lacking(symbol: str, first: dt.date, last: dt.date) -> tuple[int, str] | None:
        try:
            gaps = data.gaps(symbol, first, last, schema=DAILY, closed=True).gaps
        except UnknownSymbol:  # it is held under other names, and nothing was ever asked for by this one
            return None
        return lacked(gaps, bars(symbol))

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


__all__ = ["lacked", "verify"]

"""The vendor's API over real HTTPS, against rehearsal vendors: a year of bars, a day of trades, the jobs."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from benchmarks.measure import OUTCOMES, ROOT, Case, Measured, hdi, run_all
from benchmarks.vendor import DATASET, DAY, SYMBOL, Request, Vendor

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable
    from pathlib import Path

FIVE = ["CL.c.0", "ES.c.0", "NG.c.0", "HO.c.0", "RB.c.0"]
CONFIGS = str(ROOT / "configs")
#: Trades of the busy day, where no other number is asked for.
TRADES = 500_000
DAILY = "API: a year of daily bars of five symbols"
SERVER = "rehearsal vendor, get_range to a file"
OFFERED, JOBS, AGAIN = "jobs, the offer", "jobs", "jobs, again"
LIBRARY, PROCESS = "hdi ingest (library)", "hdi ingest (process)"
PEER, BARE = "vendor get_range + to_parquet", "vendor get_range alone"
PEER_PROCESS = "vendor get_range + to_parquet (process)"
QUICK_JOBS = ("ohlcv_1d", "e2e_trades_test", "test_job")
#: Dollars of an offer and of a bill may differ by the rounding of single downloads.
_ROUNDING = Decimal("0.000001")


def day_of(trades: int) -> str:
    """The group of the busy day."""
    return f"API: a day of {trades:,} ES trades"


def request(schema: str, symbols: list[str], start: str, end: str) -> Request:
    """What hdi and the vendor's client both take; ``end`` is exclusive."""
    return {
        "dataset": DATASET, "schema": schema, "symbols": symbols, "start": f"{start}T00:00:00Z",
        "end": f"{end}T00:00:00Z",
    }  # fmt: skip


def side_by_side(group: str, asked: Request, vendor: Vendor, rounds: int) -> list[Case]:
    """hdi and the vendor's client on one request: the calls alone, the bare stream, and whole processes."""
    rows, source = vendor.count(asked), json.dumps(asked)
    rest: dict[str, Any] = {"rounds": rounds, "environment": vendor.environment}
    command = hdi(
        "--json", "--store", "lake:{out}/lake", "ingest", "--api", "databento", "--dataset", asked["dataset"],
        "--schema", asked["schema"], "--symbols", ",".join(asked["symbols"]), "--start-date", asked["start"],
        "--end-date", asked["end"], "--force",
    )  # fmt: skip
    script = (sys.executable, "-W", "ignore", "-m", "benchmarks.work", "api_to_parquet", source, "{out}")
    return [
        Case(group, LIBRARY, rows, "api_ingest", source, **rest),
        Case(group, PEER, rows, "api_to_parquet", source, **rest),
        Case(group, BARE, rows, "api_get_range", source, **rest),
        Case(group, PROCESS, rows, command=command, counts=OUTCOMES, **rest),
        Case(group, PEER_PROCESS, rows, command=script, counts="vendor.parquet", **rest),
    ]


def rates(vendor: Vendor, name: str, asked: Iterable[Request], rounds: int) -> list[Case]:
    """How fast a vendor is that nothing but the client's own file waits for."""
    return [
        Case(
            SERVER, f"{a['schema']}, {','.join(a['symbols'])}, {a['start'][:10]} to {a['end'][:10]}, {name}",
            vendor.count(a), "api_get_range", json.dumps(a), rounds=rounds, environment=vendor.environment,
        )
        for a in asked
    ]  # fmt: skip


def usual(*, small: bool) -> list[Request]:
    if small:
        return [request("ohlcv-1m", ["ES.c.0"], "2024-01-03", "2024-01-04")]
    return [
        request("ohlcv-1m", FIVE, "2023-01-01", "2024-01-01"),
        request("ohlcv-1s", FIVE, "2023-10-01", "2024-01-01"),
        request("trades", FIVE, "2023-12-01", "2024-01-01"),
        request("tbbo", FIVE, "2023-12-01", "2024-01-01"),
    ]


def busy(*, small: bool) -> list[Request]:
    days = (DAY, "2024-01-04" if small else "2024-01-06")
    return [request(schema, [SYMBOL], *days) for schema in ("trades", "tbbo")]


def job_names() -> list[str]:
    """The jobs of the shipped configuration."""
    command = hdi("--config-dir", CONFIGS, "--json", "list-jobs", "--api", "databento")
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [job["name"] for job in json.loads(done.stdout)]


def run_job(name: str, vendor: Vendor, work: Path) -> list[Measured]:
    """A job over its whole window into a lake of its own: the offer alone, the job, and the job once more."""
    kept = work / f"job-{name}"
    words = ("ingest", "--api", "databento", "--job", name, "--force")

    def case(group: str, store: str, *more: str, **rest: Any) -> Case:
        command = hdi("--json", "--store", store, "--config-dir", CONFIGS, *words, *more)
        environment = vendor.environment | rest.pop("environment", {})
        return Case(group, name, command=command, counts=OUTCOMES, rounds=1, environment=environment, **rest)

    before = vendor.billed()
    [offered] = run_all([case(OFFERED, "lake:{out}/lake", "--dry-run")], work)
    free = vendor.billed() - before
    [bought] = run_all([case(JOBS, "lake:{out}/lake", keep=kept)], work)
    billed = vendor.billed() - before
    results = [offered, bought]
    if not bought.error:
        [again] = run_all(
            [case(AGAIN, f"lake:{kept / 'lake'}", environment={"HDI_DATA_DIR": str(kept / "data")})], work
        )
        check(offered, free == 0, f"the offer was billed {free}")
        check(again, (again.rows, again.units) == (0, 0), f"{again.units} units were not there already")
        check(again, vendor.billed() - before == billed, "it was billed once more")
        check(bought, bought.rows > 0, "it brought no rows")
        check(bought, bought.rows == offered.rows, f"{bought.rows} rows were stored, and {offered.rows} offered")
        same = all(abs((m.dollars or 0) - billed) < _ROUNDING for m in (offered, bought))
        check(bought, same, f"{billed} dollars were billed, {offered.dollars} offered and {bought.dollars} noted")
        results.append(again)
        shutil.rmtree(kept)
    return results


def check(measured: Measured, holds: bool, sentence: str) -> None:  # noqa: FBT001  (the check itself)
    """What is measured has to be right as well."""
    if not holds and not measured.error:
        measured.error = sentence


def measure(asked: argparse.Namespace, work: Path, rounds: int) -> list[Measured]:
    """All groups that are asked for; vendors run only for those."""
    small = bool(asked.rows)
    trades = asked.rows or TRADES
    day = request("trades", [SYMBOL], DAY, "2024-01-04")
    year = request("ohlcv-1d", FIVE, "2023-01-01", "2024-01-01")
    results: list[Measured] = []

    def go(cases: Callable[[], list[Case]], group: str) -> None:
        if asked.only in group:
            results.extend(run_all(cases(), work))

    with contextlib.ExitStack() as stack:
        if any(asked.only in group for group in (DAILY, SERVER, JOBS)):
            vendor = stack.enter_context(Vendor())
            go(lambda: side_by_side(DAILY, year, vendor, rounds), DAILY)
            go(lambda: rates(vendor, "usual activity", usual(small=small), rounds), SERVER)
            if asked.only in JOBS:
                names = ["test_job"] if small else QUICK_JOBS if asked.quick else job_names()
                results.extend(m for name in names for m in run_job(name, vendor, work))
    with contextlib.ExitStack() as stack:
        if any(asked.only in group for group in (day_of(trades), SERVER)):
            crowded = stack.enter_context(Vendor(trades))
            go(lambda: side_by_side(day_of(trades), day, crowded, rounds), day_of(trades))
            go(lambda: rates(crowded, "busy", busy(small=small), rounds), SERVER)
    return results

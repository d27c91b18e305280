"""``python -m benchmarks [--quick]``: everything side by side in one run; see README.md beside this file."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import api, asking, known, locks, reconciling, report, timescaledb
from benchmarks.files import (
    DAILY_ROWS,
    DAY,
    FIRST_DAY,
    FRONT_ROWS,
    OPTION,
    OPTIONS,
    SYMBOL,
    label,
    source,
    versions,
)
from benchmarks.measure import Case, Measured, hdi, run_all

HERE = Path(__file__).parent
LIBRARY = "hdi ingest (library)"
#: Trades among which one minute of one symbol is looked up, in a full run.
MANY = 100_000_000
#: Ends with an error when what came before has loaded one of them.
LIGHT = """
import subprocess
import sys
heavy = {"databento", "databento_dbn", "deltalake", "pandas", "pandera", "polars", "pyarrow", "psycopg", "requests"}
sys.exit(", ".join(sorted(heavy & set(sys.modules))) or None)
"""
HELP = """
import contextlib, sys
from hdi.cli import main
sys.argv = ["hdi", "--help"]
with contextlib.suppress(SystemExit):
    main()
"""


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller files and three jobs, two minutes")
    parser.add_argument("--rows", type=int, help="one file of so many trades, one round: to try the harness itself")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="only groups that hold this text")
    parser.add_argument("--data", type=Path, default=HERE / "data", help="where the generated files are kept")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    return parser.parse_args(arguments)


def ingestion(schema: str, rows: int, path: str, rounds: int, keep: Path) -> list[Case]:
    """hdi and its peers on one file. What takes the vendor minutes is asked for once, and not at 20 M rows."""
    group = label(schema, rows)
    command = hdi("--store", "lake:{out}/lake", "ingest", "--api", "dbn", path, "--origin", "synthetic")
    cases = [
        Case(group, LIBRARY, rows, "hdi_ingest", path, rounds=rounds, keep=keep),
        Case(group, "hdi ingest (process)", rows, command=command, rounds=rounds),
        Case(group, "bare decode + Parquet", rows, "decode_and_write", path, rounds=rounds),
        Case(group, "bare decode", rows, "decode", path, rounds=rounds),
    ]
    if rows <= 5_000_000:
        slow = 1 if schema == "definition" else rounds
        cases.append(Case(group, "vendor to_parquet", rows, "to_parquet", path, rounds=slow))
        if schema == "trades":
            cases.append(Case(group, "vendor to_df", rows, "to_df", path, rounds=slow))
    return cases


def lake_of(name: str, paths: list[str], work: Path) -> str:
    """A lake with what these files hold."""
    store = f"lake:{work / name / 'lake'}"
    command = hdi("--store", store, "ingest", "--api", "dbn", *paths, "--origin", "synthetic")
    subprocess.run(command, check=True, capture_output=True, cwd=work)
    return store


def asked_stores(asked: argparse.Namespace, trades: Path, daily: Path, rows: int, work: Path) -> dict[str, str]:
    """The lakes that questions are asked of; the largest is made in a full run only."""
    each = min(rows, 1_000_000)
    joined = [source("trades", each, asked.data), source("mbp-1", 20 * each, asked.data)]
    front = [source("continuous", min(rows, FRONT_ROWS), asked.data)]
    stores = {
        "trades": f"lake:{trades / 'lake'}",
        "daily": f"lake:{daily / 'lake'}",
        "quotes": lake_of("kept-quotes", joined, work),
        "continuous": lake_of("kept-continuous", front, work),
    }
    if not asked.rows and not asked.quick:
        stores["many"] = lake_of("kept-many", [source("trades", MANY, asked.data)], work)
    return stores


def queries(trades: Path, daily: Path, rows: int, rounds: int) -> list[Case]:
    """Reading back: ``trades`` and ``daily`` are folders that an ingestion left behind, with its lake in them."""
    month = ("--start-date", "2024-01-01", "--end-date", "2024-01-31", "--output-format", "csv")
    one = ("query", "-s", SYMBOL, "--schema", "trades", "--start-date", DAY, "--end-date", DAY, "--force")
    every = (
        "query",
        "-s",
        "ALL_SYMBOLS",
        "--schema",
        "trades",
        "--start-date",
        DAY,
        "--end-date",
        "2024-12-31",
        "--force",
    )
    at = ("--store", f"lake:{trades / 'lake'}")
    hour = ("query", "-s", SYMBOL, "--schema", "trades", "--start-date", f"{DAY}T14:00:00Z", "--end-date",
            f"{DAY}T15:00:00Z", "--output-format", "csv", "--force")  # fmt: skip
    size = f"{rows / 1e6:g} M"
    bars = hdi("--store", f"lake:{daily / 'lake'}", "query", "-s", SYMBOL, *month)
    day = hdi(*at, *one, "--output-format", "csv")
    parquet = hdi(*at, *every, "--output-format", "parquet", "--output-file", "{out}/all.parquet")
    text = hdi(*at, *every, "--output-format", "csv", "--output-file", "{out}/all.csv")
    found = {"counts": "stdout", "rounds": rounds}
    group = "queries"
    return [
        Case(group, "hdi query, a month of daily bars", command=bars, **found),
        Case(group, f"hdi query, an hour of one symbol of {size} trades, CSV", command=hdi(*at, *hour), **found),
        Case(group, f"hdi query, a day of one symbol of {size} trades, CSV", command=day, **found),
        Case(group, f"hdi query, {size} trades to Parquet", rows, command=parquet, counts="all.parquet", rounds=1),
        Case(group, f"hdi query, {size} trades to CSV", rows, command=text, counts="all.csv", rounds=1),
    ]


def definitions(kept: Path, rows: int, rounds: int) -> list[Case]:
    """What is asked of definitions in bulk; ``kept`` is the folder that an ingestion of them left behind."""
    group, lake = label("definition", rows), f"lake:{kept / 'lake'}"
    days = -(-rows // OPTIONS)
    last = str(FIRST_DAY + dt.timedelta(days=days - 1))
    one = hdi("--store", lake, "query", "-s", OPTION, "--schema", "definition", "--start-date", str(FIRST_DAY),
              "--end-date", last, "--output-format", "csv")  # fmt: skip
    return [
        Case(
            group, "hdi query, every definition of one option, CSV", days, command=one, counts="stdout", rounds=rounds
        ),
        Case(group, "instruments with their validity (library)", versions(days), "instruments", lake, rounds=1),
    ]


def starts(rounds: int) -> list[Case]:
    return [
        Case("start", "python alone", command=(sys.executable, "-c", "pass"), rounds=rounds),
        Case("start", "import hdi", command=(sys.executable, "-c", "import hdi"), rounds=rounds),
        Case("start", "hdi --help", command=hdi("--help"), rounds=rounds),
        light("import hdi", "import hdi\n"),
        light("hdi --help", HELP),
    ]


def light(name: str, code: str) -> Case:
    command = (sys.executable, "-c", code + LIGHT)
    return Case("start", f"{name} loads no library of a vendor or database", command=command, rounds=1)


def reconciled(asked: argparse.Namespace, rows: int, rounds: int, work: Path) -> list[Case]:
    """The reconciliation of as many trades as the largest file has."""
    if asked.only not in reconciling.GROUP:
        return []
    many = rows or timescaledb.sizes(asked)[0]
    return reconciling.cases(f"lake:{work / 'reconciled'}", many, rounds, work)


def _sizes(asked: argparse.Namespace) -> list[tuple[str, int]]:
    """The files that are ingested: of what, and of how many records."""
    if asked.rows:
        return [("trades", asked.rows)]
    if asked.quick:
        return [("trades", 1_000_000)]
    return [
        ("trades", 1_000_000), ("trades", 5_000_000), ("trades", 20_000_000), ("ohlcv-1m", 5_000_000),
        ("definition", 1_000_000), ("definition", 10_000_000),
    ]  # fmt: skip


def _filled(lakes: dict[Path, str], work: Path) -> None:
    """Fill the lakes that are not there, by folder, with a file each."""
    for kept, path in lakes.items():
        if not kept.exists():
            lake_of(kept.name, [path], work)


def _of_lakes(
    asked: argparse.Namespace, largest: Path, daily: Path, rows: int, rounds: int, work: Path
) -> list[Measured]:
    """What lakes are asked beside other engines, and how fast the largest is locked."""
    if asked.only not in asking.GROUP:
        return []
    stores = asked_stores(asked, largest, daily, rows, work)
    found = asking.measured(stores, rounds, work)
    if asked.only in locks.GROUP:
        many = locks.cases(stores.get("many", stores["trades"]), MANY if "many" in stores else rows, rounds)
        found += run_all([c for c in many if asked.only in c.group], work)
    for name, why in asking.missing().items():
        print(f"  {asking.GROUP}: {name} {why}", file=sys.stderr)
    return found


def measure(asked: argparse.Namespace, work: Path) -> tuple[list[Measured], dict[str, Any]]:
    """What was found, and what is to be known of the database server."""
    rounds = 1 if asked.rows else asked.rounds
    sizes = _sizes(asked)
    results: list[Measured] = []
    largest, rows = work / "kept-trades", 0

    def go(cases: list[Case]) -> None:
        results.extend(run_all([c for c in cases if asked.only in c.group], work))

    go(starts(max(rounds, 3)))
    for schema, size in sizes:
        path = source(schema, size, asked.data)
        keep = largest if schema == "trades" else work / "kept-other"
        go(ingestion(schema, size, path, 1 if size > 5_000_000 else rounds, keep))
        if schema == "definition" and keep.exists():
            go(definitions(keep, size, rounds))
        rows = size if schema == "trades" else rows
    daily = work / "kept-daily"
    path = source("ohlcv-1d", DAILY_ROWS, asked.data)
    go([Case("daily bars, a year of 50", LIBRARY, DAILY_ROWS, "hdi_ingest", path, rounds=rounds, keep=daily)])
    if asked.only in asking.GROUP:
        # What was left out would have made them.
        _filled({largest: source("trades", rows, asked.data), daily: path}, work)
    if largest.exists() and daily.exists():
        go(queries(largest, daily, rows, rounds))
        results += _of_lakes(asked, largest, daily, rows, rounds, work)
    if asked.only in known.GROUP:
        plain, rich = (f"lake:{work / name}" for name in ("known-plain", "known-rich"))
        go(known.cases(plain, rich, timescaledb.sizes(asked)[0], rounds, work))
    go(reconciled(asked, rows, rounds, work))
    of_server, server = timescaledb.measure(asked, work, rounds)
    return [*results, *of_server, *api.measure(asked, work, rounds)], server


def main() -> int:
    asked = options()
    mode = "tiny" if asked.rows else "quick" if asked.quick else "full"
    asked.data.mkdir(parents=True, exist_ok=True)
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="work-", dir=asked.data) as work:
        results, server = measure(asked, Path(work))
    path = report.write(results, asked.results, mode, (before, os.getloadavg()[0]), server)
    print(path.read_text())
    print(path, file=sys.stderr)
    failed = [m for m in results if m.error]
    for m in failed:
        print(f"{m.case.group}: {m.case.name} failed:\n{m.error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Into TimescaleDB and out again: hdi, a bare binary COPY of the same rows, and the usual ways of Python programs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from benchmarks import asking, known
from benchmarks.files import DAILY_ROWS, DAY, FRONT_ROWS, OTHER, SYMBOL, label, source
from benchmarks.measure import OUTCOMES, ROOT, Case, Measured, environment, hdi, run_all
from benchmarks.server import Databases, Missing, databases

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from pathlib import Path

LIBRARY, PROCESS = "hdi ingest (library)", "hdi ingest (process)"
COPY, DECODE_COPY = "bare binary COPY", "bare decode + bare binary COPY"
AGAIN, BESIDE, QUERIES = "TimescaleDB: the same once more", "TimescaleDB: beside what is stored", "TimescaleDB: queries"
#: The most trades for those who go row by row.
FEW = 50_000
#: The most trades that peers are asked for: they hold them in memory.
_BESIDE_PEERS = 5_000_000
MONTH = ("--start-date", "2024-01-01", "--end-date", "2024-01-31")
IN_SERVER, IN_LAKE = "TimescaleDB", "lake"
MONTH_QUERY = f"hdi query, {IN_SERVER}, a month of daily bars"


def group_of(schema: str, rows: int) -> str:
    """The group of an ingestion."""
    return f"TimescaleDB: {label(schema, rows)}"


def row_by_row(rows: int) -> str:
    """The group of those who insert."""
    return f"TimescaleDB: row by row, {rows:,} trades"


def sizes(asked: argparse.Namespace) -> list[int]:
    """How many trades the files have."""
    if asked.rows:
        return [asked.rows]
    return [1_000_000] if asked.quick else [1_000_000, 5_000_000, 20_000_000]


class Plan:
    """What is measured, group by group: what a group needs is made when its turn comes."""

    def __init__(self, asked: argparse.Namespace, work: Path, rounds: int, made: Databases | None) -> None:
        self._asked, self._work, self._rounds, self._made = asked, work, rounds, made
        every = sizes(asked)
        #: The file of queries, of corrections and of symbols alone; the one of 20 M is there for memory only.
        self._middle = max((n for n in every if n <= _BESIDE_PEERS), default=every[0])
        self.groups: dict[str, Callable[[str], list[Case]]] = {}
        for rows in every:
            self.groups[group_of("trades", rows)] = lambda group, rows=rows: self._ingestion(group, rows)  # type: ignore[misc]
        few = min(FEW, every[0])
        self.groups[row_by_row(few)] = lambda group: self._few(group, few)
        self.groups |= {AGAIN: self._again, BESIDE: self._beside, QUERIES: self._queries, asking.SERVER: self._asking}
        self.groups[known.SERVER] = self._known

    def _ingest(self, group: str, name: str, rows: int, rounds: int, **asked: Any) -> Case:
        asked = {"store": "{database}", **asked}
        database = self._made if asked["store"] == "{database}" else None
        return Case(group, name, rows, "store_ingest", json.dumps(asked), rounds=rounds, database=database)

    def _bare(self, group: str, name: str, rows: int, job: str, *, rounds: int = 0, **asked: Any) -> Case:
        words = json.dumps({"database": "{database}", "rows": str(self._rows(rows)), **asked})
        return Case(group, name, rows, job, words, rounds=rounds or self._rounds, database=self._made)

    def _ingestion(self, group: str, rows: int) -> list[Case]:
        path = source("trades", rows, self._asked.data)
        if rows > _BESIDE_PEERS:
            return [self._ingest(group, LIBRARY, rows, 1, file=path)]
        command = hdi("--json", "--store", "{database}", "ingest", "--api", "dbn", path, "--origin", "synthetic")
        rest: dict[str, Any] = {"counts": OUTCOMES, "rounds": self._rounds, "database": self._made}
        return [
            self._ingest(group, LIBRARY, rows, self._rounds, file=path),
            self._bare(group, COPY, rows, "bare_copy"),
            self._bare(group, DECODE_COPY, rows, "bare_copy", decode=path),
            Case(group, PROCESS, rows, command=command, **rest),
        ]

    def _few(self, group: str, rows: int) -> list[Case]:
        path = source("trades", rows, self._asked.data)
        return [
            self._ingest(group, LIBRARY, rows, self._rounds, file=path),
            self._bare(group, COPY, rows, "bare_copy"),
            self._bare(group, "psycopg executemany", rows, "executemany"),
            self._bare(group, "pandas to_sql", rows, "to_sql"),
            self._bare(group, "pandas to_sql, method multi", rows, "to_sql", rounds=1, multi=True),
        ]

    def _again(self, group: str) -> list[Case]:
        rows = sizes(self._asked)[0]
        path = source("trades", rows, self._asked.data)
        return [
            self._ingest(group, f"hdi ingest --refetch, {where}, {label('trades', rows)}, all equal", rows,
                         self._rounds, file=path, before=path, again=True, store=store)
            for where, store in ((IN_SERVER, "{database}"), (IN_LAKE, "lake:{out}/lake"))
        ]  # fmt: skip

    def _beside(self, group: str) -> list[Case]:
        first, second = (source("trades", self._middle, self._asked.data, s) for s in (SYMBOL, OTHER))
        return [
            self._ingest(group, f"hdi ingest, {where}, {OTHER} of {label('trades', self._middle)} beside {SYMBOL}", 0,
                         self._rounds, file=second, before=first, store=store)
            for where, store in ((IN_SERVER, "{database}"), (IN_LAKE, "lake:{out}/lake"))
        ]  # fmt: skip

    def _queries(self, group: str) -> list[Case]:
        assert self._made is not None
        stores = {IN_SERVER: self._made.kept(), IN_LAKE: f"lake:{self._lake(self._middle)}"}
        trades = source("trades", self._middle, self._asked.data)
        daily = source("ohlcv-1d", DAILY_ROWS, self._asked.data)
        self._fill(stores[IN_SERVER], trades)
        for store in stores.values():
            self._fill(store, daily)
        cases = []
        for where, store in stores.items():
            bars = hdi("--store", store, "query", "-s", SYMBOL, *MONTH, "--output-format", "csv")
            name = MONTH_QUERY.replace(IN_SERVER, where)
            cases.append(Case(group, name, command=bars, counts="stdout", rounds=self._rounds))
        for where, store in stores.items():
            day = hdi("--store", store, "query", "-s", SYMBOL, "--schema", "trades", "--start-date", DAY, "--end-date",
                      DAY, "--force", "--output-file", "{out}/day.parquet")  # fmt: skip
            name = f"hdi query, {where}, a day of one symbol of {label('trades', self._middle)} to Parquet"
            cases.append(Case(group, name, command=day, counts="day.parquet", rounds=self._rounds))
        return cases

    def _asking(self, _: str) -> list[Case]:
        """Beside plain SQL, of a store of as many trades as the largest file has."""
        assert self._made is not None
        store = self._made.kept()
        for path in (
            source("trades", max(sizes(self._asked)), self._asked.data),
            source("ohlcv-1d", DAILY_ROWS, self._asked.data),
            source("continuous", min(self._middle, FRONT_ROWS), self._asked.data),
        ):
            self._fill(store, path)  # what is there already stays as it is
        return asking.cases(dict.fromkeys(("trades", "daily", "continuous"), store), self._rounds, server=True)

    def _known(self, _: str) -> list[Case]:
        assert self._made is not None
        plain, rich = self._made.kept(), self._made.kept()
        return known.cases(plain, rich, sizes(self._asked)[0], self._rounds, self._work, server=True)

    def _lake(self, rows: int) -> Path:
        """A lake that holds the file of so many trades."""
        lake = self._work / f"lake-{rows}"
        if not lake.exists():
            self._fill(f"lake:{lake}", source("trades", rows, self._asked.data))
        return lake

    def _rows(self, rows: int) -> Path:
        """A file of so many trades as hdi sends them to its hypertable."""
        file = self._work / f"rows-{rows}.arrow"
        if not file.exists():
            command = [sys.executable, "-m", "benchmarks.sql_work", str(self._lake(rows)), "trades", str(file)]
            self._run(command)
        return file

    def _fill(self, store: str, path: str) -> None:
        self._run(list(hdi("--store", store, "ingest", "--api", "dbn", path, "--origin", "synthetic", "--no-copy")))

    def _run(self, command: list[str]) -> None:
        out = self._work / "filling"
        out.mkdir(exist_ok=True)
        done = subprocess.run(command, capture_output=True, text=True, env=environment(out), cwd=ROOT, check=False)
        if done.returncode:
            raise RuntimeError(f"{command[0]} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        shutil.rmtree(out)


def alike(results: list[Measured]) -> None:
    """Lake and server have to answer with as many rows."""
    by: dict[str, list[Measured]] = {}
    for measured in results:
        question = measured.case.name.replace(f", {IN_SERVER},", "").replace(f", {IN_LAKE},", "")
        by.setdefault(question, []).append(measured)
    for group in by.values():
        counts = sorted({m.rows for m in group if not m.error})
        if len(counts) > 1:
            for measured in group:
                measured.error = f"lake and server disagree: {counts} rows"


def measure(asked: argparse.Namespace, work: Path, rounds: int) -> tuple[list[Measured], dict[str, Any]]:
    """All groups that are asked for, and what is to be known of the server; without one there are no results."""
    if not any(asked.only in group for group in Plan(asked, work, rounds, None).groups):
        return [], {"missing": "not asked for"}
    results: list[Measured] = []
    try:
        with databases() as made:
            for group, cases in Plan(asked, work, rounds, made).groups.items():
                if asked.only in group:
                    found = run_all(cases(group), work)
                    if group in (AGAIN, BESIDE, QUERIES):
                        alike(found)
                    results += found
            return results, made.about
    except Missing as missing:
        return [], {"missing": str(missing)}

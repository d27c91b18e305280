"""The targets, judged on what was measured, and the report as JSON and Markdown."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import subprocess
from dataclasses import dataclass, replace
from decimal import Decimal
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks import api, asking, known, locks, timescaledb

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.measure import Measured

LIBRARIES = (
    "hdi", "polars", "pyarrow", "deltalake", "numpy", "databento", "databento-dbn", "zstandard", "psycopg", "pgpq",
    "adbc-driver-postgresql", "pandas", "sqlalchemy",
)  # fmt: skip
#: The size at which the speed of ingestion is judged.
JUDGED = "trades 5 M"
JOB_GROUPS = (api.OFFERED, api.JOBS, api.AGAIN)


@dataclass(frozen=True)
class Target:
    """``value`` is what was found (None: not measured, for ``why``); it must be at least, or at most, ``limit``."""

    text: str
    limit: float
    unit: str
    value: float | None
    at_least: bool = True
    why: str = ""

    @property
    def verdict(self) -> str:
        if self.value is None:
            return f"not measured: {self.why}" if self.why else "not measured"
        reached = self.value >= self.limit if self.at_least else self.value <= self.limit
        return "reached" if reached else "not reached"

    def as_dict(self) -> dict[str, Any]:
        value = None if self.value is None else round(self.value, 3)
        sense = "at least" if self.at_least else "at most"
        return {"target": self.text, sense: self.limit, "unit": self.unit, "found": value, "verdict": self.verdict}


class Found:
    """Measurements by group and name; a question about what is not there gives None."""

    def __init__(self, results: Sequence[Measured]) -> None:
        self._by = {(m.case.group, m.case.name): m for m in results if not m.error and m.seconds}

    def get(self, group: str, name: str, what: Callable[[Measured], float]) -> float | None:
        measured = self._by.get((group, name))
        return None if measured is None else what(measured)

    def best(self, group: str, name: str) -> float | None:
        return self.get(group, name, lambda m: m.best)

    def middle(self, group: str, name: str) -> float | None:
        return self.get(group, name, lambda m: median(m.seconds))

    def peak(self, group: str, name: str) -> float | None:
        return self.get(group, name, lambda m: m.peak_bytes / 2**20)

    def peaks(self) -> list[float]:
        """Peak memory of every ingestion and query of hdi."""
        return [
            m.peak_bytes / 2**20
            for (group, name), m in self._by.items()
            if group in JOB_GROUPS or name.startswith(("hdi ingest", "hdi query"))
        ]


def targets(results: Sequence[Measured], server: Mapping[str, Any] | None = None) -> list[Target]:
    """``server``: what is known of the database server, or under "missing" why there was none."""
    why = str((server or {}).get("missing", ""))
    of_server = (replace(t, why=why) for t in _of_timescaledb(results))
    of_lakes = [*_of_asking(results), *_of_known(results), _of_locks(results)]
    return [*_of_files(results), *of_server, *_of_the_api(results), *of_lakes]


def _of_asking(results: Sequence[Measured]) -> list[Target]:
    return [
        Target(f"{name}: times as long (best of each)", asking.limit(name), "x", ratio, at_least=False)
        for name, ratio in asking.ratios(results).items()
    ]


def _of_known(results: Sequence[Measured]) -> list[Target]:
    return [
        Target(f"{name}: times as long as without (best of each)", known.LIMIT, "x", ratio, at_least=False)
        for name, ratio in known.ratios(results).items()
    ]


def _of_locks(results: Sequence[Measured]) -> Target:
    text = "data lock: verifying, times as long as a plain scan and SHA-256 of the columns (best of each)"
    return Target(text, locks.LIMIT, "x", locks.ratio(results), at_least=False)


def _of_files(results: Sequence[Measured]) -> list[Target]:
    found = Found(results)
    library, process = "hdi ingest (library)", "hdi ingest (process)"
    hdi, rows = found.best(JUDGED, library), found.get(JUDGED, library, lambda m: m.rows)
    large, small = found.peak("trades 20 M", library), found.peak("trades 1 M", library)
    return [
        Target(f"{JUDGED}: times as fast as to_parquet (best of each)", 5, "x",
               _ratio(found.best(JUDGED, "vendor to_parquet"), hdi)),
        Target(f"{JUDGED}: the same, whole process against the call alone", 5, "x",
               _ratio(found.best(JUDGED, "vendor to_parquet"), found.best(JUDGED, process))),
        Target(f"{JUDGED}: share of the rate of bare decode and bare Parquet (best of each)", 0.5, "x",
               _ratio(found.best(JUDGED, "bare decode + Parquet"), hdi)),
        Target(f"{JUDGED}: rows a second (the aim)", 4_000_000, "rows/s", _ratio(rows, hdi)),
        Target("peak memory, every ingestion and query", 1024, "MiB", max(found.peaks(), default=None), at_least=False),
        Target("peak memory, 20 M trades against 1 M", 1.5, "x", _ratio(large, small), at_least=False),
        Target("one month of daily bars, one symbol, whole process", 0.7, "s",
               found.best("queries", "hdi query, a month of daily bars"), at_least=False),
        Target("hdi --help", 0.3, "s", found.best("start", "hdi --help"), at_least=False),
        Target("import hdi", 0.3, "s", found.best("start", "import hdi"), at_least=False),
    ]  # fmt: skip


def _of_timescaledb(results: Sequence[Measured]) -> list[Target]:
    found = Found(results)
    judged, large = (timescaledb.group_of("trades", rows) for rows in (5_000_000, 20_000_000))
    library, process, bare = timescaledb.LIBRARY, timescaledb.PROCESS, timescaledb.COPY
    rows, hdi, copy = (
        found.get(judged, library, lambda m: m.rows),
        found.best(judged, library),
        found.best(judged, bare),
    )
    beside = "" if copy is None or not rows else f"; the bare COPY of this run: {rows / copy:,.0f}"
    peaks = [found.peak(group, name) for group in (judged, large) for name in (library, process)]
    bars = found.best(timescaledb.QUERIES, timescaledb.MONTH_QUERY)
    return [
        Target(f"{judged}: share of the rate of a bare binary COPY (best of each)", 0.8, "x", _ratio(copy, hdi)),
        Target(f"{judged}: rows a second (the aim{beside})", 900_000, "rows/s", _ratio(rows, hdi)),
        Target("TimescaleDB: peak memory of ingestion", 1024, "MiB",
               max(filter(None, peaks), default=None), at_least=False),
        Target("TimescaleDB: peak memory, 20 M trades against 5 M", 1.25, "x",
               _ratio(found.peak(large, library), found.peak(judged, library)), at_least=False),
        Target("TimescaleDB: one month of daily bars, one symbol, whole process", 0.7, "s", bars, at_least=False),
    ]  # fmt: skip


def _of_the_api(results: Sequence[Measured]) -> list[Target]:
    found = Found(results)
    library, process = api.LIBRARY, api.PROCESS
    day, peer = api.day_of(api.TRADES), found.best(api.day_of(api.TRADES), api.PEER)
    sent = [
        m.rows / m.best for m in results
        if m.case.job == "api_get_range" and '"trades"' in m.case.source and m.rows >= api.TRADES and not m.error
    ]  # fmt: skip
    jobs = {m.case.name: True for m in results if m.case.group in JOB_GROUPS}
    jobs |= {m.case.name: False for m in results if m.case.group in JOB_GROUPS and m.error}
    return [
        Target("one year of daily bars, five symbols, through HTTP, whole process", 10, "s",
               found.best(api.DAILY, process), at_least=False),
        Target(f"{day}: time against get_range + to_parquet (best of each)", 1, "x",
               _ratio(found.best(day, library), peer), at_least=False),
        Target(f"{day}: the same, whole process against whole process", 1, "x",
               _ratio(found.best(day, process), found.best(day, api.PEER_PROCESS)), at_least=False),
        Target(f"{day}: peak memory", 1024, "MiB",
               max(filter(None, (found.peak(day, library), found.peak(day, process))), default=None), at_least=False),
        Target(f"{day}: share of hdi's time that the rehearsal vendor takes to send it", 0.5, "x",
               _ratio(found.best(day, api.BARE), found.best(day, library)), at_least=False),
        Target(f"rehearsal vendor: trades a second, slowest of all windows of {api.TRADES:,} or more", 2_000_000,
               "rows/s", min(sent, default=None)),
        Target("predefined jobs: whole, billed once as offered, nothing to do the second time", 100, "%",
               100 * sum(jobs.values()) / len(jobs) if jobs else None),
    ]  # fmt: skip


def _ratio(over: float | None, under: float | None) -> float | None:
    return None if over is None or not under else over / under


def machine() -> dict[str, Any]:
    """What the figures were taken on; nothing that names the machine or its owner."""
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "commit": commit(),
        "libraries": {name: _version(name) for name in LIBRARIES},
    }


def commit() -> str:
    """The commit that was measured, marked where files differ from it; "unknown" outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def write(
    results: Sequence[Measured], folder: Path, mode: str, load: tuple[float, float], server: Mapping[str, Any]
) -> Path:
    """The report as ``TIME-MODE.json`` and ``.md``; gives the path of the Markdown."""
    now = dt.datetime.now(dt.UTC)
    document = {
        "date": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "mode": mode,
        "load_average": {"before": round(load[0], 2), "after": round(load[1], 2)},
        "machine": machine(),
        "server": dict(server),
        "targets": [t.as_dict() for t in targets(results, server)],
        "results": [m.as_dict() for m in results],
    }
    folder.mkdir(parents=True, exist_ok=True)
    base = folder / f"{now:%Y%m%dT%H%M%SZ}-{mode}"
    base.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    base.with_suffix(".md").write_text(markdown(document))
    return base.with_suffix(".md")


def markdown(document: dict[str, Any]) -> str:
    host, load = document["machine"], document["load_average"]
    lines = [
        f"# Benchmarks, {document['date']} ({document['mode']})",
        "",
        f"{host['system']}, {host['cpu']}, {host['cores']} cores, {host['memory_gib']} GiB, Python {host['python']}; "
        + ", ".join(f"{name} {number}" for name, number in host["libraries"].items())
        + f". Commit {host['commit']}. Load average before {load['before']}, after {load['after']}."
        + " All data is synthetic.",
        "",
        *_server(document.get("server", {})),
        "| Target | Wanted | Found | |",
        "| --- | --- | --- | --- |",
    ]
    for t in document["targets"]:
        sense = "at least" if "at least" in t else "at most"
        shown = "" if t["found"] is None else f"{t['found']:,.6g} {t['unit']}"
        lines.append(f"| {t['target']} | {sense} {t[sense]:,} {t['unit']} | {shown} | {t['verdict']} |")
    groups = dict.fromkeys(r["group"] for r in document["results"])
    for group in groups:
        if group not in JOB_GROUPS:
            lines += ["", f"## {group}", "", *_table([r for r in document["results"] if r["group"] == group])]
    if api.OFFERED in groups:
        lines += ["", f"## {api.JOBS}", "", *_jobs([r for r in document["results"] if r["group"] in JOB_GROUPS])]
    return "\n".join(lines) + "\n"


def _server(server: Mapping[str, Any]) -> list[str]:
    """Which database server was measured, in a sentence."""
    if "settings" not in server:
        return [f"TimescaleDB: not measured, {server['missing']}.", ""] if "missing" in server else []
    settings = ", ".join(f"{name} {value}" for name, value in server["settings"].items())
    versions = f"TimescaleDB {server['timescaledb']}, PostgreSQL {server['postgresql']}"
    return [f"{versions}: {server['server']}; {settings}.", ""]


def _table(results: list[dict[str, Any]]) -> list[str]:
    own = next((r for r in results if r["name"] == "hdi ingest (library)" and "error" not in r), None)
    lines = [
        "| | Best s | Median s | Rows/s (best) | Peak MiB | Disk MiB | Time against hdi (library) |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for r in results:
        if "error" in r:
            lines.append(f"| {r['name']} | failed: {r['error']} | | | | | |")
            continue
        against = f"{r['seconds_best'] / own['seconds_best']:.2f} x" if own else ""
        rate = f"{r['rows_per_second']:,}" if "rows_per_second" in r else ""
        cells = (r["name"], f"{r['seconds_best']:.3f}", f"{r['seconds_median']:.3f}", rate)
        lines.append("| " + " | ".join((*cells, f"{r['peak_mib']:,}", str(r.get("disk_mib", "")), against)) + " |")
    return lines


def _jobs(results: list[dict[str, Any]]) -> list[str]:
    """One line a job: what the offer says, what the job took, and what it took to do it once more."""
    lines = [
        "| Job | Rows | Units | Dollars | Offer s | Job s | Rows/s | Peak MiB | Disk MiB | Again s | Units again |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    by = {(r["group"], r["name"]): r for r in results}
    done: list[list[dict[str, Any]]] = []
    for name in dict.fromkeys(r["name"] for r in results):
        stages = [by[group, name] for group in JOB_GROUPS if (group, name) in by]
        if failed := [f"{r['group']}: {r['error']}" for r in stages if "error" in r]:
            lines.append(f"| {name} | failed: {'; '.join(failed)} | | | | | | | | | |")
            continue
        done.append(stages)
        offered, bought, again = stages
        lines.append(
            f"| {name} | {bought['rows']:,} | {bought['units']} | {Decimal(offered['dollars']):.4f} "
            f"| {offered['seconds_best']:.2f} | {bought['seconds_best']:.2f} | {bought['rows_per_second']:,} "
            f"| {bought['peak_mib']:,} | {bought['disk_mib']} | {again['seconds_best']:.2f} | {again['units']} |"
        )
    rows = sum(bought["rows"] for _, bought, _ in done)
    dollars = sum((Decimal(offered["dollars"]) for offered, _, _ in done), Decimal(0))
    seconds = [sum(stage["seconds_best"] for stage in column) for column in zip(*done, strict=True)] or [0.0] * 3
    lines.append(
        f"| all | {rows:,} | {sum(bought['units'] for _, bought, _ in done)} | {dollars:.4f} | {seconds[0]:.2f} "
        f"| {seconds[1]:.2f} | {rows / (seconds[1] or 1):,.0f} | | | {seconds[2]:.2f} | |"
    )
    return lines

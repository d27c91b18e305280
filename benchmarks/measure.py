"""Run one piece of work in a fresh process, and keep its wall time, peak memory and what it left on disk."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks.server import Databases

ROOT = Path(__file__).resolve().parents[1]
#: What ``hdi --json ingest`` prints: one JSON object for each outcome, or for an offer.
OUTCOMES = "stdout.jsonl"


@dataclass(frozen=True)
class Case:
    """One thing to measure. ``job`` is a piece of :mod:`benchmarks.work` (its own clock counts); else ``command``.

    ``{out}`` in an argument, or in ``source``, is the case's own fresh folder, and ``counts`` the file there that holds
    a command's rows: CSV, Parquet, or :data:`OUTCOMES`. ``{database}`` is the URL of an empty database that the round
    has to itself, where ``database`` makes them. ``environment`` is in addition to this one. ``keep`` leaves the folder
    of the last round behind.
    """

    group: str
    name: str
    rows: int = 0
    job: str = ""
    source: str = ""
    command: tuple[str, ...] = ()
    counts: str = ""
    rounds: int = 3
    environment: Mapping[str, str] = field(default_factory=dict)
    keep: Path | None = None
    database: Databases | None = None


@dataclass
class Measured:
    """What was found: seconds of every round, the highest peak memory in bytes, bytes on disk of the last round.

    ``units`` and ``dollars`` are those of a command that prints outcomes, else None.
    """

    case: Case
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    disk_bytes: int = 0
    rows: int = 0
    units: int | None = None
    dollars: Decimal | None = None
    error: str = ""

    @property
    def best(self) -> float:
        return min(self.seconds)

    def as_dict(self) -> dict[str, Any]:
        out: dict[str, Any] = {"group": self.case.group, "name": self.case.name, "rows": self.rows}
        if self.error:
            return out | {"error": self.error.replace(str(ROOT), ".").strip().splitlines()[-1]}
        out |= {"seconds_best": round(self.best, 4), "seconds_median": round(median(self.seconds), 4)}
        out |= {"seconds": [round(s, 4) for s in self.seconds], "peak_mib": round(self.peak_bytes / 2**20, 1)}
        if self.rows:
            out["rows_per_second"] = round(self.rows / self.best)
        if self.disk_bytes:
            out["disk_mib"] = round(self.disk_bytes / 2**20, 2)
        if self.units is not None and self.dollars is not None:
            out |= {"units": self.units, "dollars": str(self.dollars)}
        return out


def hdi(*args: str) -> tuple[str, ...]:
    """The command line of the installed program, or of the module where no script is installed."""
    script = Path(sys.executable).with_name("hdi")
    program = (str(script),) if script.exists() else (sys.executable, "-m", "hdi")
    return (*program, *args)


def run_all(cases: Sequence[Case], work: Path) -> list[Measured]:
    """Every case, round by round, so that peers take turns and a noisy minute hits them all."""
    found = {id(c): Measured(c) for c in cases}
    for at in range(max((c.rounds for c in cases), default=0)):
        for case in cases:
            result = found[id(case)]
            if at < case.rounds and not result.error:
                _round(case, result, work, last=at == case.rounds - 1)
                _tell(result, at)
    return list(found.values())


def _tell(result: Measured, at: int) -> None:
    said = result.error.splitlines()[-1] if result.error else f"{result.seconds[-1]:.3f} s"
    print(
        f"  {result.case.group}: {result.case.name} [{at + 1}/{result.case.rounds}] {said}", file=sys.stderr, flush=True
    )


def _round(case: Case, result: Measured, work: Path, *, last: bool) -> None:
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(case.database.fresh()) if case.database else ""
        _run(case, result, work, url, last=last)


def _run(case: Case, result: Measured, work: Path, url: str, *, last: bool) -> None:
    out = Path(tempfile.mkdtemp(prefix="round-", dir=work))
    arguments = list(case.command)
    if case.job:
        arguments = [sys.executable, "-W", "ignore", "-m", "benchmarks.work", case.job, case.source, "{out}"]
    arguments = [a.replace("{out}", str(out)).replace("{database}", url) for a in arguments]
    given = environment(out) | case.environment
    stdout_file = out / (OUTCOMES if case.counts == OUTCOMES else "stdout")
    empty = case.database.bytes_of(url) if case.database else 0
    # What earlier rounds left for the disk must not be written on this one's time.
    os.sync()
    try:
        with stdout_file.open("wb") as stdout, (out / "stderr").open("wb") as stderr:
            start = time.perf_counter()
            process = subprocess.Popen(arguments, stdout=stdout, stderr=stderr, env=given, cwd=out)
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            result.error = (out / "stderr").read_text(errors="replace")[-2000:] or f"exit {process.returncode}"
            return
        peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        _take(case, result, out, (seconds, peak))
        if case.database:
            result.disk_bytes += case.database.bytes_of(url) - empty
    finally:
        if last and case.keep is not None and not result.error:
            shutil.rmtree(case.keep, ignore_errors=True)
            out.rename(case.keep)
        else:
            shutil.rmtree(out, ignore_errors=True)


def _take(case: Case, result: Measured, out: Path, taken: tuple[float, int]) -> None:
    """Add what a round took (seconds, peak bytes) and brought to the result; an error when its rows are wrong."""
    seconds, peak = taken
    rows = case.rows
    if case.job:
        told = json.loads((out / "stdout").read_text().splitlines()[-1])
        seconds, peak, rows = told["seconds"], told["peak_bytes"], told["rows"]
    elif case.counts == OUTCOMES:
        rows, result.units, result.dollars = _outcomes(out / OUTCOMES)
    elif case.counts:
        rows = _rows(out / case.counts)
    if rows != case.rows if case.rows else case.counts not in {"", OUTCOMES} and not rows:
        result.error = f"{rows} rows, not {case.rows or 'some'}"
        return
    result.seconds.append(seconds)
    result.peak_bytes = max(result.peak_bytes, peak)
    result.rows = rows
    result.disk_bytes = size_of(out.iterdir())


def _outcomes(path: Path) -> tuple[int, int, Decimal]:
    """Rows, units and dollars of the outcomes (rows that were stored), or of the offer, that hdi printed."""
    told = [json.loads(line) for line in path.read_text().splitlines()]
    rows = sum(t["records"] if t["status"] in ("planned", "skipped") else t["stored"] for t in told)
    return rows, sum(t["units"] for t in told), sum((Decimal(t["dollars"] or 0) for t in told), Decimal(0))


def _rows(path: Path) -> int:
    """Rows of a CSV file with a header, or of a Parquet file (read elsewhere, so that this process stays small)."""
    if path.suffix == ".parquet":
        code = "import sys, pyarrow.parquet as pq; print(pq.read_metadata(sys.argv[1]).num_rows)"
        done = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
        return int(done.stdout)
    with path.open("rb") as file:
        return max(sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b"")) - 1, 0)


def environment(out: Path) -> dict[str, str]:
    """This one without any HDI setting: the folder of the round takes everything that is written."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HDI_", "TIMESCALEDB_", "DATABENTO_"))}
    paths = [str(ROOT), str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return kept | {"PYTHONPATH": os.pathsep.join(paths), "HDI_DATA_DIR": str(out / "data"), "NO_COLOR": "1"}


def size_of(paths: Iterable[Path]) -> int:
    """Bytes of what was made, without the kept raw file and what was printed."""
    total = 0
    for path in paths:
        if path.is_dir():
            total += 0 if path.name == "raw" else size_of(path.iterdir())
        elif path.name not in ("stdout", "stderr", OUTCOMES):
            total += path.stat().st_size
    return total

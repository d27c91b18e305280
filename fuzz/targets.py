"""What is fuzzed: each target takes any bytes. It returns, or raises what is a defect: anything but an HdiError.

A scratch folder of this process's own holds a small lake and whatever a target writes.
"""

import contextlib
import functools
import io
import json
import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import polars as pl

from fuzz import seeds
from fuzz.commands import Bytes, words
from hdi import HistoricalData
from hdi import settings as hdi_settings
from hdi.calendars import Calendars
from hdi.cli import run
from hdi.errors import HdiError
from hdi.jobs import load_jobs
from hdi.mapping import load_mapping
from hdi.pipeline import Options, ingest_files
from hdi.refine import broken, rule_checks
from hdi.rolls.rules import load_rules
from hdi.schema import Rule
from hdi.schema_files import load_schemas
from hdi.stores import open_store
from hdi.symbol_groups import load_groups

#: An answer, and a frame of a rule's check, need no more rows than these.
ROWS = 1_000
#: Files that are written at every input lie in memory, where there is such a place.
MEMORY = "/dev/shm"  # noqa: S108
#: Nobody listens there.
NOWHERE = "http://127.0.0.1:9"


class Defect(Exception):
    """A command that ends as none may."""


@functools.cache
def scratch() -> Path:
    """The folder of this process; fuzzers that are killed leave theirs to the next boot."""
    root = Path(tempfile.mkdtemp(prefix="hdi-fuzz-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
    # Deep, so that the ../ of a hostile name stays inside.
    folder = root / "a" / "b" / "c"
    folder.mkdir(parents=True)
    (folder / "scratch").mkdir()
    return folder


def remove() -> None:
    """Remove the scratch folder."""
    if scratch.cache_info().currsize:
        shutil.rmtree(scratch().parents[2], ignore_errors=True)
        for made in (scratch, _lake, _rows, _open, _settings):
            made.cache_clear()


@functools.cache
def _schemas():
    return load_schemas()


@functools.cache
def _lake() -> Path:
    """A lake with the rows of the seeds of :func:`dbn`."""
    root = scratch() / "lake"
    paths = []
    for k, data in enumerate(seeds.dbn()):
        paths.append(scratch() / f"{k}.dbn.zst")
        paths[-1].write_bytes(data)
    with HistoricalData.open(f"lake:{root}", **_flags()) as empty:
        for outcome in empty.ingest_files(paths, origin="synthetic"):
            if outcome.status != "stored":
                raise outcome.error or Defect(f"{outcome.path}: {outcome.status}")
    return root


@functools.cache
def _settings() -> Path:
    """The settings of command lines."""
    folder = scratch() / "settings"
    folder.mkdir()
    flags = {"log": {"dir": str(scratch() / "logs")}, "databento": {"tries": 1}}
    (folder / "system_config.yaml").write_text(json.dumps(flags | {k: v for k, v in _flags().items() if "." not in k}))
    return folder


@functools.cache
def _open() -> HistoricalData:
    return HistoricalData.open(f"lake:{_lake()}", **_flags())


def _flags() -> dict[str, str]:
    return {
        "data_dir": str(scratch() / "data"), "dlq_dir": str(scratch() / "dlq"), "log.dir": str(scratch() / "logs"),
    }  # fmt: skip


@functools.cache
def _rows() -> pl.DataFrame:
    """A few stored trades, as rules see them."""
    return _open().query("ALL_SYMBOLS", "2024-01-02", "2024-01-02", schema="trades").collect().head(ROWS)


def dbn(data: bytes) -> None:
    """A file that somebody brings: read, planned and refined, as ``hdi ingest --api dbn --dry-run`` does."""
    path = scratch() / "file.dbn"
    path.write_bytes(data)
    options = Options(data_dir=scratch() / "data", dlq_dir=scratch() / "dlq", dry_run=True)
    with contextlib.closing(open_store(f"lake:{_lake()}", _schemas(), write=False)) as store:
        for outcome in ingest_files(store, _schemas(), load_mapping("databento"), [path], options):
            if outcome.error is not None and not isinstance(outcome.error, HdiError):
                raise outcome.error


def yaml(data: bytes) -> None:
    """A file of the settings' folder; the first byte says which."""
    names = list(FILES)
    name = names[data[0] % len(names)] if data else names[0]
    folder = scratch() / "configs"
    shutil.rmtree(folder, ignore_errors=True)
    path = folder / name
    path.parent.mkdir(parents=True)
    path.write_bytes(data[1:])
    with contextlib.suppress(HdiError):
        FILES[name](folder, path)


#: The files of a settings' folder, and who reads them.
FILES = {
    "system_config.yaml": lambda folder, _: hdi_settings.load(folder, env={}, cwd=scratch()),
    "api_specific/databento_config.yaml": lambda folder, _: load_jobs(folder),
    "rules/mine.yaml": lambda _, path: [rule_checks(s) for s in load_schemas(rules=[path])],
    "schemas/mine.yaml": lambda _, path: load_schemas(extra=[path]),
    "symbol_groups.yaml": lambda folder, _: load_groups(folder),
    "calendars.yaml": lambda folder, _: Calendars.load(folder),
    "roll_rules.yaml": lambda folder, _: load_rules(folder),
    "mappings/mine.yaml": lambda _, path: load_mapping("databento", extra=[path]),
}  # fmt: skip


def rule(data: bytes) -> None:
    """The check of a rule, compiled and held against rows."""
    check = Rule("MINE", data.decode("utf-8", "replace"), "ERROR", "It holds.", where="rules/mine.yaml:1:1")
    with contextlib.suppress(HdiError):
        schema = replace(_schemas().find("trades")[0], rules=(check,))
        broken(_rows(), rule_checks(schema))


def statement(data: bytes) -> None:
    """A statement of ``hdi sql`` on a lake."""
    with contextlib.suppress(HdiError):
        for _ in _open().sql(data.decode("utf-8", "replace")).limited_to(ROWS).frames():
            pass


def arguments(data: bytes) -> None:
    """A command line: the words are made of the bytes by what the commands declare."""
    command(words(Bytes(data)))


def command(line: list[str]) -> tuple[int, str, str]:
    """Run a command line on a lake and away from the network; raises Defect where it ends as none may."""
    _lake()
    environment = {
        "PATH": os.environ.get("PATH", ""), "HDI_STORE": f"lake:{_lake()}", "HDI_CONFIG_DIR": str(_settings()),
        "DATABENTO_API_KEY": "db-" + "f" * 29, "DATABENTO_GATEWAY": NOWHERE,
    }  # fmt: skip
    before, kept, streams = Path.cwd(), dict(os.environ), (sys.stdin, sys.stdout, sys.stderr)
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    try:
        os.chdir(scratch() / "scratch")
        os.environ.clear()
        os.environ.update(environment)
        sys.stdin, sys.stdout, sys.stderr = io.StringIO(""), out, err
        code = run(line)
    finally:
        sys.stdin, sys.stdout, sys.stderr = streams
        os.environ.clear()
        os.environ.update(kept)
        os.chdir(before)
    told, said = (s.buffer.getvalue().decode("utf-8", "replace") for s in (out, err))
    if code not in (0, 1, 2, 3, 4, 5, 130) or "Traceback" in said or "error: unexpected" in said:
        raise Defect(f"hdi {line}: exit code {code}\n{said}")
    if code and not said.strip() and not told.strip():
        raise Defect(f"hdi {line}: exit code {code}, and not a word")
    return code, told, said


TARGETS = {each.__name__: each for each in (dbn, yaml, rule, statement, arguments)}

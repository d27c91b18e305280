"""What is fuzzed: each target takes any bytes, and says whether they were taken (True) or refused by an HdiError.

It raises what is a defect: anything else.

A scratch folder of this process's own holds a small lake and whatever a target writes.
"""

import contextlib
import functools
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl

from fuzz import kept, seeds, servers
from fuzz.commands import LASTING, Bytes, words
from hdi import HistoricalData
from hdi import settings as hdi_settings
from hdi.calendars import Calendars
from hdi.cli import run
from hdi.configuring import check
from hdi.errors import HdiError
from hdi.jobs import load_jobs
from hdi.mapping import load_mapping
from hdi.pipeline import Options, ingest_files
from hdi.refine import broken, rule_checks
from hdi.rolls.rules import load_rules
from hdi.schema import Rule
from hdi.schema_files import load_schemas
from hdi.sources.dbn import Reader, record_bytes
from hdi.sources.records import columns, to_frame
from hdi.stores import open_store
from hdi.symbol_groups import load_groups

#: An answer, and a frame of a rule's check, need no more rows than these.
ROWS = 20_000
#: Seconds in which a command that goes on until it is stopped has something to say, and goes on after that, and that
#: it then may take to end.
SAYS, RUNS, ENDS = 60, 1, 30
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
        for made in (scratch, _lake, _rows, _open, _settings, kinds):
            made.cache_clear()


@functools.cache
def schemas():
    """The packaged ones."""
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
    """A few stored trades, as rules see them, again and again: what grows with each row shows."""
    rows = _open().query("ALL_SYMBOLS", "2024-01-02", "2024-01-02", schema="trades").collect()
    return pl.concat([rows] * (ROWS // rows.height))


def _taken(work: Callable[[], object]) -> bool:
    try:
        work()
    except HdiError:
        return False
    return True


def decode(data: bytes) -> bool:
    """The bytes of a DBN file, decoded to frames: the quick half of :func:`dbn`."""
    path = scratch() / "decoded.dbn"
    path.write_bytes(data)

    def read() -> None:
        record_bytes(path)
        with Reader(path) as reader:
            for records in reader.arrays(ROWS):
                to_frame(records, reader.header.schema, [])

    return _taken(read)


def dbn(data: bytes) -> bool:
    """A file that somebody brings: read, planned and refined, as ``hdi ingest --api dbn --dry-run`` does."""
    path = scratch() / "file.dbn"
    path.write_bytes(data)
    folders = {"data_dir": scratch() / "data", "dlq_dir": scratch() / "dlq"}
    options, found = Options(**folders, dry_run=True, origin="synthetic", refetch=True), []
    with contextlib.closing(open_store(f"lake:{_lake()}", schemas(), write=False)) as store:
        for outcome in ingest_files(store, schemas(), load_mapping("databento"), [path], options):
            if outcome.error is not None and not isinstance(outcome.error, HdiError):
                raise outcome.error
            found.append(outcome.error is None)
    return all(found)


def yaml(data: bytes) -> bool:
    """A file of the settings' folder; the first byte says which."""
    names = list(FILES)
    name = names[data[0] % len(names)] if data else names[0]
    folder = scratch() / "configs"
    shutil.rmtree(folder, ignore_errors=True)
    path = folder / name
    path.parent.mkdir(parents=True)
    path.write_bytes(data[1:])
    check(folder, variables={}, cwd=scratch(), vendor_columns=columns)
    return _taken(lambda: FILES[name](folder, path))


#: The files of a settings' folder, and who reads them.
FILES = {
    "system_config.yaml": lambda folder, _: hdi_settings.load(folder, env={}, cwd=scratch()),
    "api_specific/databento_config.yaml": lambda folder, _: load_jobs(folder),
    "rules/mine.yaml": lambda _, path: [rule_checks(s) for s in load_schemas(rules=[path])],
    "schemas/mine.yaml": lambda _, path: load_schemas(extra=[path]),
    "symbol_groups.yaml": lambda folder, _: load_groups(folder),
    "calendars.yaml": lambda folder, _: Calendars.load(folder),
    "roll_rules.yaml": lambda folder, _: load_rules(folder),
    "mappings/databento.yaml": lambda _, path: load_mapping("databento", extra=[path]),
}  # fmt: skip


def rule(data: bytes) -> bool:
    """The check of a rule, compiled and held against rows."""
    mine = Rule("MINE", data.decode("utf-8", "replace"), "ERROR", "It holds.", where="rules/mine.yaml:1:1")
    schema = replace(schemas().find("trades")[0], rules=(mine,))
    return _taken(lambda: broken(_rows(), rule_checks(schema)))


def statement(data: bytes) -> bool:
    """A statement of ``hdi sql`` on a lake."""
    text = data.decode("utf-8", "replace")
    return _taken(lambda: [None for _ in _open().sql(text).limited_to(ROWS).frames()])


@functools.cache
def served() -> servers.Guarded:
    """The database that statements of :func:`server` go to."""
    return servers.Guarded(servers.database(os.environ[servers.NAMED]), schemas())


def server(data: bytes) -> bool:
    """A statement of ``hdi sql`` on the server that HDI_TEST_TIMESCALEDB names, made of fragments of its dialect."""
    text = servers.statement(Bytes(data))
    taken = _taken(lambda: served().ask(text))
    served().check(text)
    return taken


@functools.cache
def kinds() -> list[kept.Kind]:
    """The files that hdi keeps."""
    return kept.kinds(_open(), scratch())


def disk(data: bytes) -> bool:
    """A file that hdi keeps, with other bytes in it; the first one says which."""
    kind = kinds()[data[0] % len(kinds()) if data else 0]
    return _taken(lambda: kept.read(kind, scratch() / "kept", data[1:]))


def arguments(data: bytes) -> bool:
    """A command line: the words are made of the bytes by what the commands declare."""
    return command(words(Bytes(data)))[0] == 0


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
        lasts = not LASTING.isdisjoint(line)
        code = _child(line, out.buffer, err.buffer) if lasts else run(line)
    finally:
        sys.stdin, sys.stdout, sys.stderr = streams
        os.environ.clear()
        os.environ.update(kept)
        os.chdir(before)
    told, said = (s.buffer.getvalue().decode("utf-8", "replace") for s in (out, err))
    if (
        code not in (0, 1, 2, 3, 4, 5, 130, *((143, -signal.SIGTERM) if lasts else ()))
        or "Traceback" in said
        or "error: unexpected" in said
    ):
        raise Defect(f"hdi {line}: exit code {code}\n{said}")
    if code and not said.strip() and not told.strip():
        raise Defect(f"hdi {line}: exit code {code}, and not a word")
    return code, told, said


def _child(line: list[str], out: io.BufferedIOBase, err: io.BufferedIOBase) -> int:
    """The exit code of a command in a process of its own, which is told to end after a while."""
    with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as said:
        # No command is told of a zero, or of what comes after it.
        given = [word.partition("\0")[0] for word in line]
        with subprocess.Popen([sys.executable, "-m", "hdi", *given], stdin=subprocess.DEVNULL, stdout=told, stderr=said,
                              env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}) as process:  # fmt: skip
            until = time.monotonic() + SAYS
            while process.poll() is None and time.monotonic() < until:
                heard = os.fstat(told.fileno()).st_size + os.fstat(said.fileno()).st_size
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(RUNS if heard else 0.1)
                if heard:
                    break
            process.terminate()
            try:
                process.wait(ENDS)
            except subprocess.TimeoutExpired as exc:
                process.kill()
                raise Defect(f"hdi {line}: it did not end within {ENDS} s of SIGTERM") from exc
        for kept_in, stream in ((told, out), (said, err)):
            kept_in.seek(0)
            stream.write(kept_in.read())
    return process.returncode


#: What needs a server is left out where there is none.
TARGETS = {
    each.__name__: each for each in (decode, dbn, yaml, rule, statement, disk, arguments)
} | ({"server": server} if servers.there() else {})  # fmt: skip

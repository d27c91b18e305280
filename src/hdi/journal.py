"""The journal of runs: one file for each, ``<data_dir>/runs/<run>.jsonl``, written while the run goes on.

Its first line is on the disk before anything is ordered or read, so a run that was killed shows. The process holds a
lock on the file while it lives: a journal without a last line that nobody holds is that of a run that died.

Lines, by ``event``: ``start`` (who, when, the request in words that can be repeated, the store), ``offer`` (what
is to be done and what it costs), ``outcome`` (one file or order), ``end``. A half-written last line is left out.
What is no journal at all hides no other: it is told of, and the rest is read.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import difflib
import fcntl
import json
import os
import socket
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, get_args

import structlog

from hdi.errors import HdiError, RequestError, StoreError
from hdi.frames import BROUGHT
from hdi.model import NS, Outcome, iso_ns, parse_instant, some
from hdi.raw import sync

#: ``resumed``: it did not end well, and a later run went on with it; ``earlier``: of a store that is no longer there.
RunStatus = Literal[
    "running", "done", "ordered", "failed", "died", "interrupted", "resumed", "earlier", "elsewhere"
]  # fmt: skip
#: How a run ends that is to be gone on with.
UNDONE: tuple[RunStatus, ...] = ("failed", "died", "interrupted")
COUNTS = ("fetched", "stored", "quarantined", "superseded")
_FOLDER, _ENDING = "runs", ".jsonl"
_FORMAT = 1
#: Runs that begin with more characters than this, those of a decade, may be meant.
_ALIKE = 3
#: What reading a file may raise that no journal of this version is in.
_BAD = (OSError, HdiError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError)
log = structlog.get_logger(component="PipelineOrchestrator")


class Journal:
    """A run's journal while it is written. ``words`` is the request, as :func:`find` gives it back."""

    def __init__(self, data_dir: Path, run: str, words: Mapping[str, Any], store: Mapping[str, str]) -> None:
        self._path = data_dir / _FOLDER / f"{run}{_ENDING}"
        self._told = False
        # A clock that jumps meanwhile makes a run neither longer nor shorter.
        self._ahead = time.time_ns() - time.monotonic_ns()
        self._resumes = tuple(words.get("resumes", ()))
        try:
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                self._path.parent.mkdir(mode=0o700)
            self._fd = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)
        except OSError as exc:
            raise self._refused(exc) from exc
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            self._write(
                "start", sync=True, format=_FORMAT, run=run, pid=os.getpid(), host=socket.gethostname(),
                store=dict(store), request=dict(words),
            )  # fmt: skip
            sync(self._path.parent)
        except BaseException:
            os.close(self._fd)
            raise
        _OPEN.add(self)

    def offer(self, units: int, records: int, dollars: Decimal) -> None:
        """Keep what is to be done and what it costs."""
        self._write("offer", units=units, records=records, dollars=dollars)

    def add(self, outcome: Outcome) -> None:
        """Keep what became of one file or order, its error in full."""
        self._told = self._told or outcome.status != "skipped"
        window, error = outcome.window, outcome.error
        self._write(
            "outcome", status=outcome.status, path=outcome.path, dataset=outcome.dataset, schema=outcome.schema,
            symbols=outcome.symbols, window=[iso_ns(window.start), iso_ns(window.end)] if window else None,
            units=sum(r.status in BROUGHT for r in outcome.receipts),
            **{name: sum(getattr(r, name) for r in outcome.receipts) for name in COUNTS},
            dollars=outcome.dollars, seconds=round(outcome.seconds, 3), note=outcome.note,
            error=None if error is None else {
                "type": type(error).__name__, "message": error.message, "hint": error.hint,
                "exit_code": error.exit_code,
            },
        )  # fmt: skip

    def end(self, status: RunStatus, error: BaseException | None = None) -> None:
        """Keep how the run ended.

        A run that found nothing to do leaves no journal, but for one that says so of a run that did not end well.
        """
        try:
            _OPEN.remove(self)
        except KeyError:  # the process is being broken off, which was kept
            return
        try:
            if status == "done" and not self._told and not self._completes():
                self._path.unlink(missing_ok=True)
                return
            message = getattr(error, "message", None) or (str(error) if error else "")
            self._write("end", sync=True, status=status, error=message)
        finally:
            os.close(self._fd)

    def break_off(self) -> None:
        """Keep that the run was interrupted; nothing is closed, for others may be writing."""
        with contextlib.suppress(KeyError, StoreError):
            _OPEN.remove(self)
            self._write("end", sync=True, status="interrupted", error="")

    def _completes(self) -> bool:
        """Whether the run that it goes on with did not end well."""
        for run in self._resumes[-1:]:
            try:
                before = _read(self._path.with_name(f"{run}{_ENDING}"))
            except _BAD:
                return True
            return before is not None and before.status in UNDONE
        return False

    def _write(self, event: str, *, sync: bool = False, **values: Any) -> None:
        at = iso_ns(self._ahead + time.monotonic_ns())
        line = json.dumps({"event": event, "at": at, **values}, ensure_ascii=False, default=str)
        view = memoryview(line.encode("utf-8", "backslashreplace") + b"\n")
        try:
            while view:
                view = view[os.write(self._fd, view) :]
            if sync:
                os.fsync(self._fd)
        except OSError as exc:
            raise self._refused(exc) from exc

    def _refused(self, exc: OSError) -> StoreError:
        return StoreError(
            f"the journal of the run cannot be kept in {self._path.parent}: {exc.strerror or exc}",
            "Free some space or name another folder with HDI_DATA_DIR.",
        )


#: The journals of this process that have no last line yet.
_OPEN: set[Journal] = set()


def break_off() -> None:
    """Keep, of all runs of this process, that they were interrupted: it is about to end without asking them."""
    for journal in list(_OPEN):
        journal.break_off()


@dataclass(frozen=True)
class Entry:
    """One run as its journal has it. Times are nanoseconds UTC, ``ended`` that of the last line.

    ``request`` are the words to repeat it by; ``store`` holds ``url`` and ``identity``; ``offer`` and ``outcomes``
    are lines of the journal.
    """

    run: str
    status: RunStatus
    started: int
    ended: int
    pid: int
    host: str
    store: Mapping[str, str]
    request: Mapping[str, Any]
    offer: Mapping[str, Any] | None = None
    outcomes: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    error: str = ""

    @property
    def what(self) -> str:
        """The request in a few words."""
        request = self.request
        more = "".join(f" --{name}" for name in ("refetch", "derive") if request.get(name))
        if "files" in request:
            names = [str(path).rpartition("/")[2] for path in request["files"]]
            return f"{request['api']} {some(names)}{more}"
        job = f"{request['job']}: " if request.get("job") else ""
        days = f"{request['start']} to {request['end']}"
        return f"{job}{request['dataset']} {request['schema']} {some(request['symbols'], ',')} {days}{more}"

    @property
    def errors(self) -> list[Mapping[str, Any]]:
        """The errors of files and orders, in full."""
        return [o for o in self.outcomes if o["error"]]

    def total(self, name: str) -> int:
        """What the outcomes add up to."""
        return sum(int(o[name]) for o in self.outcomes)

    @property
    def dollars(self) -> Decimal:
        """What the outcomes cost."""
        return sum((Decimal(o["dollars"]) for o in self.outcomes if o["dollars"] is not None), Decimal(0))


def took(journals: Iterable[Entry]) -> dict[str, float]:
    """Seconds of each run that ended well and bought what it stored, from its first line to its last, by its name."""
    return {
        entry.run: (entry.ended - entry.started) / NS
        for entry in journals
        if entry.status == "done" and not entry.request.get("derive") and entry.offer and entry.offer["records"]
    }


def about(outcome: Mapping[str, Any]) -> str:
    """The file or the order of an ``outcome`` line in a few words."""
    if outcome["path"] and outcome["dollars"] is None:
        return str(outcome["path"])
    window = " to ".join(outcome["window"]) if outcome["window"] else ""
    return " ".join(filter(None, (outcome["dataset"], outcome["schema"], some(outcome["symbols"], ","), window)))


def warned(text: str) -> None:
    """Log a warning."""
    log.warning(text)


def entries(
    data_dir: Path, on_bad: Callable[[str], None] = warned, *, newest_first: bool = False
) -> Iterator[Entry]:  # fmt: skip
    """The runs of a data folder, oldest first; ``on_bad`` is told of each file that cannot be read, and why.

    Each is read when it is asked for. Left out is what holds no first line: such a run died before it did anything.
    """
    folder = data_dir / _FOLDER
    try:
        paths = sorted((path for path in folder.iterdir() if path.name.endswith(_ENDING)), reverse=newest_first)
    except FileNotFoundError:
        return
    except OSError as exc:
        on_bad(f"{folder} cannot be read: {_why(exc)}")
        return
    for path in paths:
        try:
            entry = _read(path)
        except _BAD as exc:
            on_bad(f"{path} cannot be read: {_why(exc)}")
            continue
        if entry:
            yield entry


def started(data_dir: Path, run: str) -> int:
    """When a run began, by its journal; without one to the second, by its name. Nanoseconds UTC."""
    with contextlib.suppress(*_BAD):
        if entry := _read(data_dir / _FOLDER / f"{run}{_ENDING}"):
            return entry.started
    return began(run)


def began(run: str) -> int:
    """When a run began, to the second, by its name; nanoseconds UTC."""
    return int(dt.datetime.strptime(f"{run[:15]}Z", "%Y%m%dT%H%M%S%z").timestamp()) * NS


def find(names: list[str], text: str) -> str:
    """The run that a name or the beginning of one means. RequestError, with the closest, for none or several."""
    if text in names:
        return text
    found = [name for name in names if text and name.startswith(text)]
    if len(found) == 1:
        return found[0]
    if found:
        raise RequestError(f"{text!r} begins {len(found)} runs: {', '.join(found[:5])}", "Write more of its name.")
    if not names:
        raise RequestError(f"there is no run {text!r}: none is known yet", "hdi ingest makes one.")
    beginnings = (text[:size] for size in range(len(text), _ALIKE, -1))
    alike = next((found for begun in beginnings if (found := [n for n in names if n.startswith(begun)])), [])
    near = alike[-3:] or difflib.get_close_matches(text, names, n=3, cutoff=0.5)
    meant = f"Did you mean {', '.join(near)}? " if near else ""
    raise RequestError(f"there is no run {text!r}", f"{meant}hdi runs lists them.")


def _read(path: Path) -> Entry | None:
    """One journal; None for one without a first line, and for one that was taken away meanwhile.

    Raises one of ``_BAD`` for what is none.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError("it is not a file")
        with path.open("rb") as file:
            # Asked for before the lines are read: a run that ends in between has its last line.
            held = _held(file.fileno())
            whole = [line for line in file if line.endswith(b"\n")]
    except FileNotFoundError:
        if path.is_symlink():
            raise
        return None
    lines = [each for line in whole if (each := _line(line)) is not None]
    if not whole:
        return None
    if not lines or lines[0]["event"] != "start":
        raise ValueError("it does not begin as the journal of a run does")
    return _entry(path.name.removesuffix(_ENDING), lines, held=held)


def _entry(name: str, lines: list[dict[str, Any]], *, held: bool) -> Entry:
    """The run of these lines; all that is asked of it later is looked at now."""
    start = lines[0]
    if start.get("format") != _FORMAT:
        raise ValueError(f"it has format {start.get('format')}, and this version knows {_FORMAT}: a newer one wrote it")
    if start["run"] != name:
        raise ValueError(f"it is the journal of {start['run']}")
    by_event: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        by_event.setdefault(line["event"], []).append(line)
    end = by_event.get("end", [None])[-1]
    status: RunStatus = end["status"] if end else "running" if held else "died"
    found = Entry(
        start["run"], status, _ns(start["at"]), _ns(lines[-1]["at"]), start["pid"], start["host"], start["store"],
        start["request"], by_event.get("offer", [None])[-1], tuple(by_event.get("outcome", ())),
        str(end["error"]) if end else "",
    )  # fmt: skip
    _check(found)
    return found


def _check(entry: Entry) -> None:
    """Raise one of ``_BAD`` where something is not there, or is of another type than what is written."""
    if entry.status not in get_args(RunStatus):
        raise ValueError(f"it ends as {entry.status!r}")
    texts = [entry.host, *(entry.store[key] for key in ("url", "identity")), entry.request["api"]]
    symbols = entry.request["files"] if "files" in entry.request else entry.request["symbols"]
    if not all(isinstance(text, str) for text in (*texts, entry.what, *symbols, *entry.request["resumes"])):
        raise TypeError("a value that should be text is none")
    offer = entry.offer or {"units": 0, "records": 0, "dollars": 0}
    for amount in (entry.dollars, Decimal(offer["dollars"]), Decimal(entry.request.get("budget") or 0)):
        amount.as_integer_ratio()  # what is not a finite number raises
    for number in (offer["units"], offer["records"], *(entry.total(name) for name in ("units", *COUNTS))):
        if not isinstance(number, int):
            raise TypeError("a count that should be a number is none")
    for outcome in entry.outcomes:
        about(outcome)
    for outcome in entry.errors:
        if not {"message", "hint", "exit_code"} <= {**outcome["error"]}.keys():
            raise ValueError("an error of it does not say what it is")


def _why(exc: BaseException) -> str:
    if isinstance(exc, OSError):
        return exc.strerror or str(exc)
    if isinstance(exc, KeyError):
        return f"a line of it has no {exc.args[0]!r}"
    return exc.message if isinstance(exc, HdiError) else str(exc) or type(exc).__name__


def _line(text: bytes) -> dict[str, Any] | None:
    """A line as it was written; None for one that a dead process left unfinished."""
    if not text.endswith(b"\n"):
        return None
    try:
        found = json.loads(text)
    except ValueError:  # a power cut may leave a block of zeros
        return None
    return found if isinstance(found, dict) and "event" in found and "at" in found else None


def _held(fd: int) -> bool:
    """Whether the process that writes the journal lives."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def _ns(text: str) -> int:
    return parse_instant(text)[0]


__all__ = [
    "COUNTS", "UNDONE", "Entry", "Journal", "RunStatus", "about", "began", "break_off", "entries", "find", "started",
    "took", "warned",
]  # fmt: skip

"""Structured logs: JSON lines in bounded, rotated files that several processes may write at once.

One line is one object: ``timestamp`` (UTC, ISO 8601 to the microsecond), ``level`` (upper case),
``component``, ``message``, ``context`` (everything else that was given). ``app.log`` holds all lines,
under the name ``hist_data_ingestor.log`` too; some components have a file of their own beside it.
Nothing is created before the first line. Nothing goes to the terminal, except at level DEBUG.

Modules below this one in the layers take their logger from structlog itself, lazily bound:
``log = structlog.get_logger(component="PipelineOrchestrator")``.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import logging
import math
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from hdi.errors import PASSWORDS

if TYPE_CHECKING:
    from hdi.settings import Settings

APP = "app.log"
ALIAS = "hist_data_ingestor.log"
COMPONENTS = {
    "PipelineOrchestrator": "pipeline_orchestrator.log",
    "QueryBuilder": "query_builder.log",
    "DatabentoAdapter": "databento_adapter.log",
}
MASK = "***"

_LEVELS = {"warn": "WARNING", "exception": "ERROR", "err": "ERROR", "fatal": "CRITICAL", "msg": "INFO"}
_SECRET_KEY = re.compile(
    r"(^|[_-])(password|passwd|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credentials?"
    r"|authorization|cookie)s?$",
    re.IGNORECASE,
)
_SECRET_TEXT = (
    *PASSWORDS,
    # The password of a URL; a path segment with an @ is not one.
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s/]*(?=@)", re.IGNORECASE), rf"\1{MASK}"),
    # password=..., api_key: ..., "token": "...", as in connection strings, query strings and headers.
    (
        re.compile(
            r"(\b\w*(?:password|passwd|secret|token|api[_-]?key|authorization)[\"']?\s*[=:]\s*(?:bearer\s+|basic\s+)?)"
            r"(\"[^\"]*\"|'[^']*'|[^\s&,;\"']+)",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
    # The form of a Databento key, wherever it turns up.
    (re.compile(r"\bdb-[A-Za-z0-9]{29}\b"), MASK),
)
_SHORT = 4  # A secret shorter than this is masked only where it stands alone, or it would hide half of a text.


def configure(settings: Settings) -> None:
    """Send every structlog logger of this process to the files of ``settings.log``; the last call counts.

    A folder that cannot be written stops nothing: one warning on stderr, and the program goes on.
    """
    log = settings.log
    _LOGGER.use(_Files(log.dir, log.max_bytes, log.backups), echo=log.level == "DEBUG")
    _configure(log.level, settings.secrets)


def get_logger(component: str) -> FilteringBoundLogger:
    """A logger whose lines carry ``component``.

    It takes the configuration of the moment of each call. Before :func:`configure`, warnings and
    errors go to stderr, anything lower nowhere.
    """
    if not structlog.is_configured():
        _LOGGER.use(None, echo=True)
        _configure("WARNING", ())
    return cast("FilteringBoundLogger", structlog.get_logger(component=component))


def _configure(level: str, secrets: tuple[str, ...]) -> None:
    processors: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        _shape,
        Redacted(secrets),
        _render,
    ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level)),
        logger_factory=lambda *_: _LOGGER,
        cache_logger_on_first_use=False,
    )


def _shape(_: WrappedLogger, method: str, event: EventDict) -> EventDict:
    message = event.pop("event", "")
    component = event.pop("component", "hdi")
    return {
        "timestamp": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "level": _LEVELS.get(method, method.upper()),
        "component": str(component),
        "message": str(message),
        "context": dict(event),
    }


def _render(_: WrappedLogger, __: str, event: EventDict) -> tuple[tuple[str, bytes], dict[str, Any]]:
    line = json.dumps(event, ensure_ascii=False, allow_nan=False) + "\n"
    # A lone surrogate (an odd file name) becomes \udcXX: the escape of Python is that of JSON.
    return (event["component"], line.encode("utf-8", "backslashreplace")), {}


class Redacted:
    """Turns values into plain JSON ones, masking secrets at any depth."""

    def __init__(self, secrets: tuple[str, ...]) -> None:
        self._alone = frozenset(secrets)
        known = tuple(secret for secret in secrets if len(secret) >= _SHORT)
        logins = (base64.b64encode(f"{secret}:".encode()).decode().rstrip("=") for secret in known)
        self._inside = (*known, *logins)  # as a header has them

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        """The line of a log without secrets."""
        return {
            **event,
            "message": self.text(event["message"]),
            "context": self.plain(event["context"]),
        }

    def plain(self, value: object) -> Any:  # noqa: PLR0911 - one return for each kind of value
        """The value as JSON has it, without secrets."""
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {
                self.text(str(k)): MASK if v is not None and _SECRET_KEY.search(str(k)) else self.plain(v)
                for k, v in value.items()
            }
        if isinstance(value, list | tuple | set | frozenset):
            return [self.plain(item) for item in value]
        if isinstance(value, date):
            return value.isoformat()
        if isinstance(value, timedelta):
            return value.total_seconds()
        return self.text(str(value))

    def text(self, text: str) -> str:
        """The text without secrets."""
        if text in self._alone:
            return MASK
        for secret in self._inside:
            text = text.replace(secret, MASK)
        for pattern, masked in _SECRET_TEXT:
            text = pattern.sub(masked, text)
        return text


class _Logger:
    """What structlog hands finished lines to: files, stderr, or both."""

    def __init__(self) -> None:
        self._files: _Files | None = None
        self._echo = True

    def use(self, files: _Files | None, *, echo: bool) -> None:
        """Go on with other files, or none; those of before are closed."""
        before, self._files, self._echo = self._files, files, echo
        if before:
            before.close()

    def _write(self, component: str, line: bytes) -> None:
        if self._files:
            self._files.write(component, line)
        if self._echo:
            _tell(line.decode("utf-8"))

    debug = info = warning = warn = error = critical = fatal = exception = msg = _write


_LOGGER = _Logger()


def note(text: str) -> None:
    """Log a warning, and say it on stderr."""
    get_logger("hdi").warning(text)
    _tell(f"hdi: warning: {text}\n")


def _tell(text: str) -> None:
    """Write to stderr, which may be closed."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text)


class _Files:
    """The files of one folder; made when the first line comes."""

    def __init__(self, folder: Path, max_bytes: int, backups: int) -> None:
        self._folder = folder
        names = [APP, *COMPONENTS.values()]
        self._files = {name: _RotatedFile(folder / name, max_bytes, backups) for name in names}
        self._ready = False
        self._failed = False

    def write(self, component: str, line: bytes) -> None:
        """Append a line to all files that it belongs to."""
        try:
            if not self._ready:
                self._prepare()
                self._ready = True
            self._files[APP].append(line)
            if component in COMPONENTS:
                self._files[COMPONENTS[component]].append(line)
        except OSError as exc:
            if not self._failed:
                self._failed = True
                _tell(f"hdi: warning: no log is kept: {exc.filename or self._folder}: {exc.strerror or exc}\n")

    def close(self) -> None:
        """Close the files; another line opens them again."""
        for file in self._files.values():
            file.close()

    def _prepare(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file in self._files.values():
            file.append(b"")
        alias = self._folder / ALIAS
        with contextlib.suppress(OSError), _locked(self._folder / f".{ALIAS}.lock"):
            # A regular file of that name is somebody's older log: it is left alone.
            if alias.is_symlink() and alias.readlink() != Path(APP):
                alias.unlink()
            if not alias.is_symlink() and not alias.exists():
                alias.symlink_to(APP)


class _RotatedFile:
    """A log file of bounded size, safe for many processes and threads.

    A line is one ``write`` to a descriptor opened with O_APPEND, which the kernel keeps whole. Renaming is
    done under a lock file by whoever finds the file full; the others notice that the name stands for
    another file and open that. (The handlers of the standard library lose lines here, and
    concurrent-log-handler locks for every line.)
    """

    def __init__(self, path: Path, max_bytes: int, backups: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._backups = backups
        self._fd = -1
        self._mutex = threading.Lock()

    def append(self, line: bytes) -> None:
        """Write one line; raises OSError."""
        with self._mutex:
            if self._fd < 0 or self._moved():
                self._open()
            size = os.fstat(self._fd).st_size
            if size and size + len(line) > self._max_bytes:
                self._rotate(len(line))
            while line:
                line = line[os.write(self._fd, line) :]

    def close(self) -> None:
        """Give the descriptor back."""
        with self._mutex:
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = -1

    def _moved(self) -> bool:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return True
        here = os.fstat(self._fd)
        return (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino)

    def _open(self) -> None:
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd

    def _rotate(self, coming: int) -> None:
        with _locked(self._path.with_name(f".{self._path.name}.lock")):
            if not self._moved() and os.fstat(self._fd).st_size + coming > self._max_bytes:
                for n in range(self._backups, 0, -1):
                    older = self._path.with_name(f"{self._path.name}.{n - 1}") if n > 1 else self._path
                    with contextlib.suppress(FileNotFoundError):
                        older.replace(self._path.with_name(f"{self._path.name}.{n}"))
            self._open()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock file; also keeps threads apart, since each opens it anew."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)

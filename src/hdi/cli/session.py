"""What the commands of one process share: the global options, the facade, and the two streams."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import typer

from hdi.streams import counted

if TYPE_CHECKING:
    from hdi.alerting import Watch
    from hdi.api import HistoricalData


#: The exit code of a command that was told no, as of one that was interrupted.
DECLINED = 130


class Interrupted(KeyboardInterrupt):
    """A signal that ends a command as Ctrl-C does. ``code`` is its exit code, as a shell has it."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.code = 128 + number


class OutputClosed(Exception):
    """Whoever read our output has seen enough (``| head``)."""


@dataclass
class Session:
    """The global options, as they were given."""

    store: str | None = None
    config_dir: str | None = None
    log_level: str | None = None
    json: bool = False
    log_dir: str = ""
    debug: bool = False
    secrets: tuple[str, ...] = ()

    @contextlib.contextmanager
    def data(self, **flags: Any) -> Iterator[HistoricalData]:
        """The facade with these options; ``flags`` are the settings that the command's own options give."""
        _import_structlog()
        from hdi.api import HistoricalData

        given = {"log.level": self.log_level, **flags}
        with HistoricalData.open(self.store, self.config_dir, **given) as data:
            self.log_dir = str(data.settings.log.dir)
            self.secrets = data.settings.secrets
            self.debug = data.settings.log.level == "DEBUG"
            yield data

    @contextlib.contextmanager
    def watched(
        self, data: HistoricalData, command: str, job: str | None = None, *, dry_run: bool = False
    ) -> Iterator[Watch]:
        """What goes wrong in the block is told of, by the settings ``alerts``.

        A request that is wrong is not where somebody sits before it, nor is an end that was asked for.
        """
        from hdi.errors import RequestError

        quiet: tuple[type[BaseException], ...] = (typer.Exit, typer.Abort, OutputClosed, BrokenPipeError)
        if terminal(sys.stderr):
            quiet += (RequestError,)
        with data.watching(command, job, said=say, dry_run=dry_run, quiet=quiet) as watch:
            yield watch


def _import_structlog() -> None:
    """Without what colours tracebacks on a terminal, a tenth of a small query's time: logs are JSON lines in files."""
    absent = None if "rich" in sys.modules else "rich"
    if absent:
        sys.modules[absent] = None  # type: ignore[assignment]  # so the import system knows what is not to be found
    try:
        import structlog  # noqa: F401
    finally:
        if absent:
            del sys.modules[absent]


def started() -> None:
    """All that a command needs is imported: collect garbage again, but not in what stays anyway."""
    gc.freeze()
    gc.enable()


def session(context: typer.Context) -> Session:
    """The session of a command."""
    found: Session = context.obj
    return found


def say(text: str) -> None:
    """One message on stderr; nobody may be listening."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def tell_absent(symbols: Sequence[str]) -> None:
    """A note on stderr of the symbols of groups that nothing is stored of."""
    if symbols:
        say(f"note: nothing is stored of {', '.join(symbols)}, which a group names")


def put(text: str) -> None:
    """One line of the result on stdout. Raises OutputClosed when nobody reads on."""
    with guarded():
        stdout().write(text.encode("utf-8", "backslashreplace") + b"\n")
        sys.stdout.flush()


def stdout() -> BinaryIO:
    """Standard output as bytes, which takes all or raises; what was written as text goes before."""
    sys.stdout.flush()
    return counted(sys.stdout.buffer)


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Writing to stdout inside: a closed pipe becomes OutputClosed, and the interpreter's last flush stays quiet."""
    try:
        yield
    except BrokenPipeError as exc:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutputClosed from exc


def terminal(stream: Any) -> bool:
    """True when the stream is a terminal."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


__all__ = [
    "DECLINED", "Interrupted", "OutputClosed", "Session", "guarded", "put", "say", "session", "started", "stdout",
    "tell_absent", "terminal",
]  # fmt: skip

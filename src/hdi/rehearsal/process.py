"""A rehearsal vendor as a process of its own: started, asked over HTTPS, and stopped."""

from __future__ import annotations

import datetime as dt
import json
import os
import select
import signal
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hdi.errors import RequestError, UnitFailed
from hdi.rehearsal.books import Books, Entry
from hdi.rehearsal.vendor import Options, environment

#: How long a process may take to start, to answer about itself, and to stop.
_PATIENCE = 60.0


def spawn(port: int = 0, **options: Any) -> Spawned:
    """A rehearsal vendor in a process of its own: the options and the face of :class:`Rehearsal`.

    Enter it to start; it ends when left, and when this process dies.
    """
    return Spawned(Options.of(port=port, **options))


class Spawned:
    """The handle of such a process. UnitFailed when it does not start or does not answer."""

    gateway: str
    ca_file: Path
    key: str

    def __init__(self, options: Options) -> None:
        self._options = options

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "hdi.rehearsal", document(self._options)]
        # The child serves until its stdin ends, which it does whatever becomes of us.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603
        try:
            told = json.loads(self._line())
        except BaseException:
            self._stop()
            raise
        self.gateway, self.key, self.ca_file = told["gateway"], told["key"], Path(told["ca_file"])
        secure = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=self.ca_file))
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), secure)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def books(self) -> _Remote:
        """What the vendor counted and billed; every look asks it anew."""
        return _Remote(self)

    def fault(self, spec: str, **more: Any) -> None:
        """Put a fault in force. RequestError for an unknown one."""
        extra = ",".join(f"{name}={value}" for name, value in more.items())
        text = spec + ((":" if ":" not in spec else ",") + extra if extra else "")
        self.ask("POST", "/rehearsal/faults", {"fault": text})

    def clear(self) -> None:
        """Take all faults back."""
        self.ask("DELETE", "/rehearsal/faults")

    def advance(self, until: dt.date) -> None:
        """Have data up to midnight UTC of a later day, as time goes by. RequestError for an earlier one."""
        self.ask("POST", "/rehearsal/until", {"until": str(until)})

    def environment(self) -> dict[str, str]:
        """The variables that point clients at it; what bypasses proxies already is kept."""
        return environment(self)

    def ask(self, verb: str, path: str, document: Any = None) -> dict[str, Any]:
        """The answer of one of the rehearsal's own addresses. RequestError for what it refuses."""
        data = None if document is None else json.dumps(document).encode()
        request = urllib.request.Request(self.gateway + path, data=data, method=verb)  # noqa: S310  (our own address)
        try:
            with self._opener.open(request, timeout=_PATIENCE) as reply:
                found: dict[str, Any] = json.load(reply)
                return found
        except urllib.error.HTTPError as exc:
            with exc:
                raise RequestError(str(json.load(exc)["detail"])) from exc
        except OSError as exc:
            raise UnitFailed(f"the rehearsal vendor at {self.gateway} does not answer: {exc}") from exc

    def _line(self) -> bytes:
        assert self._process.stdout is not None  # noqa: S101  (it is a pipe)
        if not select.select([self._process.stdout], [], [], _PATIENCE)[0]:
            raise UnitFailed(f"the rehearsal vendor did not start in {_PATIENCE:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise UnitFailed("the rehearsal vendor did not start", "What it said is on stderr.")
        return line

    def _stop(self) -> None:
        with self._process as process:
            try:
                process.communicate(timeout=_PATIENCE)  # closes its stdin, on which it ends
            except subprocess.TimeoutExpired:
                process.kill()


class _Remote:
    """The books of another process."""

    def __init__(self, vendor: Spawned) -> None:
        self._vendor = vendor

    def _books(self) -> Books:
        return Books.parse(self._vendor.ask("GET", "/rehearsal/books"))

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What was billed, in the order in which the answers ended."""
        return self._books().entries

    @property
    def calls(self) -> Counter[str]:
        """Calls by method, refused and broken ones among them."""
        return self._books().calls

    @property
    def billed_bytes(self) -> int:
        """Uncompressed record bytes of all entries."""
        return self._books().billed_bytes

    @property
    def dollars(self) -> Decimal:
        """US dollars of all entries."""
        return self._books().dollars

    def reset(self) -> None:
        """Forget all of it; a file of entries stays as it is."""
        self._vendor.ask("DELETE", "/rehearsal/books")


def document(options: Options) -> str:
    """The options as JSON, for the command line of the child."""
    names = Options.__dataclass_fields__
    plain = {name: getattr(options, name) for name in names}
    return json.dumps({name: value for name, value in plain.items() if value is not None}, default=str)


@contextmanager
def told_to_stop(*, at_end_of_stdin: bool = False) -> Iterator[Callable[[], object]]:
    """What waits for SIGINT or SIGTERM (or for the end of stdin); for the main thread.

    Inside, neither signal interrupts anything; afterwards both do again what they did before.
    """
    done = threading.Event()
    before = {number: signal.signal(number, lambda *_: done.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    if at_end_of_stdin:
        threading.Thread(target=_drained, args=(done,), daemon=True).start()
    try:
        yield done.wait
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _drained(done: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    done.set()

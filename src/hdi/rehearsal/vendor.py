"""A rehearsal vendor in this process, and what it has in common with one in a process of its own."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import tempfile
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from hdi.errors import RequestError
from hdi.rehearsal.books import Account, Books
from hdi.rehearsal.certificates import HOST, write_bundle
from hdi.rehearsal.faults import Faults, parse
from hdi.rehearsal.limits import Limits
from hdi.rehearsal.server import Server
from hdi.rehearsal.service import Service

#: A key that works. Any other of its form does too.
KEY = "db-RehearsalSyntheticNotARealKey"
_BUNDLE = "ca-bundle.pem"
_LOOPBACK = (HOST, "localhost")


class Vendor(Protocol):
    """The face of a rehearsal vendor, wherever it runs."""

    gateway: str
    ca_file: Path
    key: str

    @property
    def books(self) -> Account:
        """What the vendor counted and billed."""

    def fault(self, spec: str, **more: Any) -> None:
        """Put a fault in force."""

    def clear(self) -> None:
        """Take all faults back."""

    def advance(self, until: dt.date) -> None:
        """Have data up to midnight UTC of a later day."""

    def environment(self) -> dict[str, str]:
        """The variables that point clients at it."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a rehearsal vendor is to be. ``until``: data ends at midnight UTC of that day; None is today's.

    ``port`` 0 takes any. ``limits`` scales the published request limits; 0 lifts them. ``folder`` is where the CA
    file goes (None: a temporary one, removed at the end). ``books``: a file that entries are appended to.
    ``preparation``: seconds that a batch job takes.
    """

    port: int = 0
    seed: int = 0
    scale: float = 1.0
    hostile: int = 0
    until: dt.date | None = None
    faults: tuple[str, ...] = ()
    limits: float = 1.0
    folder: Path | None = None
    books: Path | None = None
    preparation: float = 0.0

    @classmethod
    def of(cls, **given: Any) -> Options:
        """Options from plain values: dates and paths as text, limits as a flag. RequestError for a wrong one."""
        until = given.get("until")
        try:
            day = dt.date.fromisoformat(until) if isinstance(until, str) else until
        except ValueError as exc:
            raise RequestError(f"until {until!r} is not a date", "Write YYYY-MM-DD.") from exc
        paths = {name: Path(given[name]).absolute() for name in ("folder", "books") if given.get(name) is not None}
        options = cls(**given | {"until": day, "faults": tuple(given.get("faults", ()))} | paths)
        if options.scale <= 0 or min(options.hostile, options.limits, options.seed, options.preparation) < 0:
            raise RequestError("scale must be positive; seed, hostile, limits and preparation at least 0")
        return options


class Rehearsal:
    """A rehearsal vendor in threads of this process; a context manager, SYNTHETIC in all it serves.

    Takes what :class:`Options` has, by name. ``gateway``, ``ca_file`` and ``key`` are what a client needs.
    Raises RequestError for an option that is wrong, a fault that is not known, or a port that is taken.
    """

    gateway: str
    ca_file: Path
    key = KEY

    def __init__(self, port: int = 0, **options: Any) -> None:
        self.options = Options.of(port=port, **options)
        today = dt.datetime.now(dt.UTC).date()
        self._faults = Faults(map(parse, self.options.faults))
        self.books = Books(self.options.books)
        self._service = Service(
            self.options.seed, self.options.scale, self.options.hostile, self.options.until or today,
            faults=self._faults, books=self.books, preparation=self.options.preparation,
        )  # fmt: skip

    def __enter__(self) -> Self:
        self._server = Server(self._service, Limits(float(self.options.limits)), self.options.port)
        self.gateway = self._server.gateway
        folder = self.options.folder
        try:
            self._folder = folder or Path(tempfile.mkdtemp(prefix="hdi-rehearsal-"))
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.ca_file = self._folder / _BUNDLE
            write_bundle(self.ca_file)
        except OSError as exc:
            self._server.server_close()
            raise RequestError(f"{folder}: cannot be written: {exc.strerror}", "Name another folder.") from exc
        self._thread = threading.Thread(target=self._server.run, name="rehearsal", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()
        self._thread.join()
        self._service.desk.close()
        if self.options.folder is None:
            shutil.rmtree(self._folder)

    def fault(self, spec: str, **more: Any) -> None:
        """Put a fault in force, ``("503", times=2)`` or ``("503:times=2")``. RequestError for an unknown one."""
        self._faults.add(parse(spec, **more))

    def clear(self) -> None:
        """Take all faults back."""
        self._faults.clear()

    def advance(self, until: dt.date) -> None:
        """Have data up to midnight UTC of a later day, as time goes by. RequestError for an earlier one."""
        self._service.advance(until)

    def environment(self) -> dict[str, str]:
        """The variables that point clients at it; what bypasses proxies already is kept."""
        return environment(self)


def environment(vendor: Vendor, present: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables that point clients at a vendor, in addition to those ``present`` (default: this process's).

    A client that uses aiohttp needs ``SSL_CERT_FILE`` too, set to the same file before it is imported.
    """
    present = os.environ if present is None else present
    found = {
        "DATABENTO_GATEWAY": vendor.gateway,
        "DATABENTO_API_KEY": vendor.key,
        "REQUESTS_CA_BUNDLE": str(vendor.ca_file),
    }
    # Where the variable is there in small letters, clients look at that one alone.
    for name in ("NO_PROXY", *(["no_proxy"] if "no_proxy" in present else [])):
        found[name] = ",".join(dict.fromkeys([*_names(present.get(name, "")), *_LOOPBACK]))
    return found


def _names(text: str) -> Iterable[str]:
    return filter(None, (name.strip() for name in text.split(",")))

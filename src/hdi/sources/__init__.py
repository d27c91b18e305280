"""Sources bring the vendor's bytes. A source is one module, found by its name (``--api NAME``).

``dbn`` takes files that the user already has; ``databento`` buys from the vendor's API. Others are entry points of
the group ``hdi.sources``, and opened with ``on_wait`` alone: their keys are their own affair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from hdi.errors import RequestError, VendorUnavailable
from hdi.extensions import extensions
from hdi.model import Order

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

    from hdi.model import Condition, Quote, Window


class Download(Protocol):
    """What a download took."""

    @property
    def wasted(self) -> int:
        """Bytes that were billed beside those of the order, for tries that broke."""


@runtime_checkable
class Source(Protocol):
    """A vendor that data is ordered from. Every method may raise VendorRefused, UnitFailed or RequestError.

    Only :meth:`download` costs money. ``origin`` is part of unit ids and raw paths.
    """

    origin: str

    def available(self, dataset: str) -> dict[str, Window]:
        """The stretch of time that can be ordered, by schema."""

    def resolve(self, dataset: str, symbols: Sequence[str], stype: str, window: Window) -> pl.DataFrame:
        """``asked, instrument_id, start, end``: what each symbol stands for on the window's UTC days.

        A symbol that stands for nothing there has no row.
        """

    def raw_symbols(self, dataset: str, instruments: Sequence[int], window: Window) -> pl.DataFrame:
        """``instrument_id, start, end, symbol``: the raw symbols of instruments on the window's UTC days."""

    def everything(self, dataset: str, window: Window) -> pl.DataFrame:
        """The same of every instrument of the window's UTC days; no row where the vendor cannot say."""

    def conditions(self, dataset: str, window: Window) -> list[Condition]:
        """What the vendor says of each day of the window that it knows."""

    def quote(self, order: Order) -> Quote:
        """Records, bytes and dollars of an order."""

    def count(self, order: Order) -> int:
        """How many records an order brings."""

    def download(self, order: Order, path: Path, may_waste: Callable[[int], bool] = ...) -> Download:
        """Write the order's DBN bytes to ``path``, which must not exist: the only billed call.

        ``may_waste`` is asked, before another try, with the bytes that broken tries were billed for so far. Raises
        VendorUnavailable when no try came to its end or no other was allowed. Every error says in ``wasted`` how many
        bytes were billed before it.
        """

    def check(self) -> dict[str, Any]:
        """Really ask the vendor: whether the key is valid, and what it opens."""


@dataclass(frozen=True, slots=True)
class Reached:
    """A vendor that answered, whatever it said: seconds it took, and how many our clock is ahead of the vendor's.

    ``ahead`` is None where it does not tell the time; ``within`` is how far off it may be.
    """

    url: str
    seconds: float
    ahead: float | None = None
    within: float = 0.0


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many calls of a family this process may still make at once, of how many in so many seconds."""

    family: str
    left: int
    most: int
    seconds: float


@runtime_checkable
class Diagnosed(Source, Protocol):
    """A source whose way to the vendor can be looked at. Nothing here is billed."""

    gateway: str

    def local(self) -> bool:
        """True where the gateway is on this machine."""

    def official(self) -> bool:
        """True for the vendor's own gateway."""

    def check_key(self) -> None:
        """RequestError where there is no key, or none of the right form; it is not shown, and nothing is asked."""

    def reach(self) -> Reached:
        """Ask the gateway without a key, in one try: who answers is there, and its certificate is trusted.

        Raises VendorRefused for a certificate that is not trusted, ConfigError where the file of those that are is
        missing, VendorUnavailable when nobody answers.
        """

    def datasets(self) -> list[str]:
        """The datasets that the key opens, by name, really asked in one try."""

    def allowances(self) -> list[Allowance]:
        """What is left of the vendor's limits of calls, by this process's own count."""


class Unanswered(VendorUnavailable):
    """The vendor gave no answer, and may have done what it was asked for all the same."""


@dataclass(frozen=True, slots=True)
class BatchJob:
    """A job that the vendor prepares files for. ``order`` and ``split`` are what it was submitted with.

    ``state`` is the vendor's word, ``progress`` per cent, ``received`` nanoseconds UTC; what it does not say is None.
    """

    id: str
    state: str
    order: Order
    split: str
    received: int
    progress: int | None = None
    records: int | None = None
    dollars: Decimal | None = None

    @property
    def done(self) -> bool:
        """True when its files can be had."""
        return self.state == "done"

    @property
    def coming(self) -> bool:
        """True while it is being prepared."""
        return self.state in ("received", "queued", "processing")


@dataclass(frozen=True, slots=True)
class BatchFile:
    """A file of a job: its name, size in bytes, SHA-256 in hexadecimal, and where it is."""

    job: str
    name: str
    size: int
    digest: str
    url: str


@runtime_checkable
class BatchSource(Source, Protocol):
    """A source that also takes batch jobs. Only :meth:`submit` costs money beside :meth:`Source.download`."""

    def account(self) -> str:
        """Whose jobs they are: the same text for the same key and address, and not the key."""

    def submit(self, order: Order, split: str) -> BatchJob:
        """Have the order prepared as DBN files of one ``split`` (day, week, month, year) each.

        Raises Unanswered where the job may have been taken all the same.
        """

    def batch_jobs(self, since: int) -> list[BatchJob]:
        """The jobs of the account that were submitted since (nanoseconds UTC), in any state, oldest first."""

    def batch_job(self, job: str, dataset: str) -> BatchJob:
        """One job."""

    def batch_files(self, job: str, dataset: str) -> list[BatchFile]:
        """The data files of a job that is done."""

    def fetch(self, file: BatchFile, path: Path, dataset: str) -> None:
        """Bring a file to ``path``, from where an earlier try of any process has left it: its SHA-256 is right.

        Raises UnitFailed, and leaves no file, when the bytes are wrong a second time; VendorUnavailable when no try
        got further, with what has come left where it is.
        """


#: Sources whose data lies in files: there is nothing to order.
FILES = ("dbn",)


def names() -> list[str]:
    """The sources that ``--api`` takes."""
    return sorted({"databento", *FILES, *(e.name for e in extensions("hdi.sources"))})


def open_source(name: str, **settings: Any) -> Source:
    """The source of that name; ``settings`` are those of its own group. Raises RequestError for an unknown one."""
    for entry in extensions("hdi.sources"):
        if entry.name == name:
            found: Source = entry.load().open(**settings)
            return found
    vendors = [known for known in names() if known not in FILES]
    if name not in vendors:
        what = f"{name} reads files: there is no vendor to ask" if name in FILES else f"unknown source {name!r}"
        raise RequestError(what, f"Vendors: {', '.join(vendors)}.")
    opened: Source = import_module(f"hdi.sources.{name}").open(**settings)
    return opened

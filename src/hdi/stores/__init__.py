"""Stores keep what was refined: the protocol every backend follows, and how one is opened by URL.

A backend is one module found by its name (entry point group ``hdi.stores`` for other packages) with a
function ``open(url, schemas, *, write, on_step) -> Store``; a kind of store with options of its own
(:mod:`hdi.stores.options`) takes them as ``options``. :mod:`hdi.testing` holds the conformance suite that it has to
pass.

Frames that cross this seam:

``coverage``   unit, dataset, schema, symbol, stype, instrument_id (null: the whole request), start, end
``mappings``   dataset, stype, symbol, instrument_id, start, end   (dates as nanoseconds, half-open)
``rejects``    :data:`REJECTS`
``ledger``     :data:`LEDGER`, one row for each unit of each commit, oldest first
``conditions`` :data:`CONDITIONS`, what the vendor said of days, oldest first
``content``    :data:`CONTENT`, how many rows there are of what, and when
``discrepancies`` :data:`DISCREPANCIES`, what was found to contradict something else that is stored, by number
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol, TypeVar, runtime_checkable

import polars as pl

from hdi.answer import Answer
from hdi.errors import OriginMismatch, RequestError, StoreError
from hdi.extensions import extensions
from hdi.frames import CONDITIONS, CONTENT, COVERAGE, DISCREPANCIES, LEDGER, MAPPINGS, REJECTS, empty
from hdi.model import Finding, RawFile, Receipt, Unit, Window
from hdi.schema import Schema, SchemaName, Schemas
from hdi.stores.options import ServerOptions
from hdi.stores.purging import Purging

__all__ = [
    "CONDITIONS", "CONTENT", "COVERAGE", "DISCREPANCIES", "LEDGER", "MAPPINGS", "REJECTS", "Books", "Piece", "Purging",
    "ServerOptions", "Store", "Together", "Work", "Working", "Writer", "check_origin", "names", "open_store",
]  # fmt: skip

Out = TypeVar("Out")
#: The packaged stores, by module, each with the schemes of its URLs.
_PACKAGED = {"lake": ("lake",), "timescaledb": ("postgresql", "postgres")}


@dataclass(frozen=True)
class Work:
    """What one commit is about: its units by ledger number, their scope, and where the bytes are.

    ``coverage`` and ``mappings`` are what the commit adds to those frames; of ``conditions`` (all that the vendor said
    when it was asked) it keeps what is news. ``run`` names the run. ``since`` is when its bytes were bought, in
    nanoseconds: by no clock is it committed before; 0 where they were not.
    """

    run: str
    dataset: str
    schema: Schema
    name: SchemaName
    units: Mapping[int, Unit]
    coverage: pl.DataFrame
    mappings: pl.DataFrame
    raw: RawFile | None = None
    conditions: pl.DataFrame = field(default_factory=lambda: empty(CONDITIONS))
    since: int = 0

    @property
    def scope(self) -> pl.DataFrame:
        """The rectangles (unit, instrument_id, start, end) whose rows are replaced, whatever brought them.

        Empty for a fragment, which replaces only what the same bytes stored before.
        """
        return self.coverage.drop_nulls("instrument_id").select("unit", "instrument_id", "start", "end")

    @property
    def origin(self) -> str:
        """The origin of the units, which all share it."""
        return next(iter(self.units.values())).origin

    @property
    def fragment(self) -> bool:
        """True when the units are fragments."""
        return not next(iter(self.units.values())).complete


@dataclass(frozen=True)
class Piece:
    """Part of another store, to be taken over in one commit: whole grid cells of one dataset and schema.

    ``units`` are the numbers that belong to it; no row of theirs lies in another piece. ``ledger``, ``coverage``,
    ``mappings`` (:data:`hdi.frames.LEARNED`, in the order in which they were learned), ``history`` and ``conditions``
    (in the order in which they were heard) are what the store lacks, ``quarantine`` is all that stands. ``held`` is how
    many receipts of the dataset and schema the store has before.
    """

    origin: str
    dataset: str
    schema: Schema
    name: SchemaName
    window: Window
    units: Sequence[int]
    held: int
    ledger: pl.DataFrame
    coverage: pl.DataFrame
    mappings: pl.DataFrame
    quarantine: pl.DataFrame
    history: pl.DataFrame
    conditions: pl.DataFrame = field(default_factory=lambda: empty(CONDITIONS))

    @property
    def work(self) -> Work:
        """The same as a commit is told what it is about: nothing is claimed, so that nothing is compared."""
        return Work("", self.dataset, self.schema, self.name, {}, self.coverage.clear(), self.mappings.clear())

    def check(self, held: int, url: str) -> None:
        """StoreError when the store has other receipts of the dataset and schema than it had."""
        if held != self.held:
            raise StoreError(
                f"{url}: another process has committed {self.dataset} {self.name.name} meanwhile",
                "Run the same command again.",
            )


@runtime_checkable
class Writer(Protocol):
    """One attempt at a commit. Leaving the ``with`` block without ``finish`` leaves nothing behind."""

    def write(self, rows: pl.DataFrame) -> None:
        """Stage accepted rows: the schema's public columns, then ``_unit`` and ``_row``."""

    def reject(self, rows: pl.DataFrame) -> None:
        """Stage rejected rows (:data:`REJECTS`). A null ``raw_file`` stands for that of the unit's receipt."""

    def finish(self, work: Work, receipts: Sequence[Receipt]) -> list[Receipt]:
        """Commit rows, rejects and receipts in one act, and return the receipts as the store has them.

        ``work`` may have grown since the start (scope and coverage of instruments that arrived unmapped,
        the raw file). Receipts of failed units among them are kept as they are, with the rejects that
        are marked ``failed``. Raises StoreError when what is read back is not what the receipts say.
        """


@dataclass(frozen=True)
class Touched:
    """What a read touches: so many of so many files or chunks (``unit``), and the stored columns."""

    unit: str
    read: int
    of: int
    columns: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.read} of {self.of} {self.unit}s, {len(self.columns)} stored columns: {', '.join(self.columns)}"


@runtime_checkable
class Touching(Protocol):
    """A store that says beforehand what a read touches. The arguments are those of :meth:`Store.read`."""

    def touches(
        self,
        schema: Schema,
        name: str,
        window: Window,
        instruments: pl.DataFrame | None,
        columns: Sequence[str],
        dataset: str | None = None,
    ) -> Touched:
        """As its own engine plans it: no estimate, and no row is read."""


@runtime_checkable
class Working(Protocol):
    """A store that works on rows in the threads that read them. The arguments are those of :meth:`Store.read`."""

    def read_each(  # noqa: PLR0913, PLR0917  (a read, and what is done)
        self,
        schema: Schema,
        name: str,
        window: Window,
        instruments: pl.DataFrame | None,
        columns: Sequence[str],
        dataset: str | None,
        each: Callable[[pl.DataFrame], Out],
    ) -> Iterator[Out]:
        """``each`` of the frames of a read without ``ordered``, in their order; several are worked on at once."""


@dataclass(frozen=True)
class Books:
    """What symbols are looked up by: see the methods of :class:`Store` of these names."""

    ledger: pl.DataFrame
    coverage: pl.DataFrame
    mappings: pl.DataFrame


@runtime_checkable
class Together(Protocol):
    """A store that reads these books at less cost together than one by one."""

    def books(self) -> Books:
        """As they stand; a book that has not changed since the last time is the same object."""


@runtime_checkable
class Inspected(Protocol):
    """A store that looks at itself: its version, what it needs of where it lies, what dead attempts left behind."""

    def inspect(self) -> list[Finding]:
        """What ``hdi doctor`` shows of it."""


@runtime_checkable
class Store(Protocol):
    """Where rows, rejects and receipts are kept. Every method may raise StoreError."""

    url: str

    def reserve(self, unit_ids: Sequence[str]) -> list[int]:
        """The number that the next receipt of each unit will carry; the same until it is committed."""

    def claim(self, keys: Sequence[str]) -> AbstractContextManager[None]:
        """Wait for, and hold, the right to work on each of ``keys``: two processes do it once."""

    def replace(self, work: Work) -> AbstractContextManager[Writer]:
        """Begin to replace the rows in the scope of ``work``."""

    def record(self, work: Work, receipts: Sequence[Receipt], rejects: pl.DataFrame) -> None:
        """Keep the receipts of units that failed, with a sample of their rejects, or were only ordered.

        Rows and coverage stay as they were, and with an ordered unit the rejects that stand. ``work.conditions`` are
        kept as in any commit.
        """

    def ledger(self) -> pl.DataFrame:
        """Every receipt (:data:`LEDGER`)."""

    def coverage(self) -> pl.DataFrame:
        """What is stored or confirmed empty (:data:`COVERAGE`)."""

    def mappings(self) -> pl.DataFrame:
        """Dated symbology (:data:`MAPPINGS`)."""

    def learned(self) -> pl.DataFrame:
        """The same with when each was learned (:data:`hdi.frames.LEARNED`), in that order."""

    def quarantine(self) -> pl.DataFrame:
        """The rejects that stand today (:data:`REJECTS`)."""

    def rejected(self) -> pl.DataFrame:
        """The same with those that stood once (:data:`hdi.frames.REJECTED`).

        Not all of them: what a database replaced before its layout 3, and what was replaced before the store was
        copied from another one, is gone.
        """

    def conditions(self) -> pl.DataFrame:
        """What the vendor said of days whenever it changed (:data:`CONDITIONS`), in the order in which it was heard."""

    def discrepancies(self) -> pl.DataFrame:
        """What was found to contradict something else that is stored (:data:`DISCREPANCIES`), by number."""

    def amend(self, change: Callable[[pl.DataFrame], pl.DataFrame]) -> pl.DataFrame:
        """Make the discrepancies what ``change`` makes of them, in one act, with no other change in between.

        A row keeps its ``number``, and no number is given twice. Returns them as they are then; what is equal is not
        written again.
        """

    def content(
        self,
        schema: Schema,
        name: str,
        window: Window,
        instruments: pl.DataFrame | None,
        every: int,
        dataset: str | None = None,
    ) -> pl.DataFrame:
        """How many rows there are (:data:`CONTENT`), sorted, by instrument and stretch of ``every`` nanoseconds.

        The stretches count from 1970; those without rows have none. The rest is as for :meth:`read`.
        """

    def read(  # noqa: PLR0913  (a table, its rows, its columns, and their order)
        self,
        schema: Schema,
        name: str,
        window: Window,
        instruments: pl.DataFrame | None,
        columns: Sequence[str],
        dataset: str | None = None,
        *,
        ordered: bool = True,
    ) -> Iterator[pl.DataFrame]:
        """Rows in the order of ``schema.order`` as frames of bounded size.

        ``instruments`` (dataset, instrument_id, start, end) limits the rows to those rectangles; None
        is every instrument. ``columns`` are public columns and :data:`hdi.schema.PLACE` in the order wanted.
        Without ``ordered`` the rows of one publisher and instrument still come in that order, within a frame and from
        frame to frame, and no row of a frame is earlier than one of a frame before it; how the rows of several
        instruments are mixed within a frame is the store's affair.
        """

    def superseded(  # noqa: PLR0913  (as a read)
        self,
        schema: Schema,
        name: str,
        window: Window,
        instruments: pl.DataFrame | None,
        columns: Sequence[str],
        dataset: str | None = None,
        *,
        by: Sequence[int],
        apart: Sequence[int] = (),
    ) -> Iterator[pl.DataFrame]:
        """The rows that these units superseded, as :meth:`read` gives rows, in its order.

        Without those that the units ``apart`` had brought.
        """

    def instruments(
        self,
        dataset: str | None = None,
        window: Window | None = None,
        instruments: pl.DataFrame | None = None,
        *,
        as_of: int | None = None,
    ) -> Iterator[pl.DataFrame]:
        """What instruments are, and from when until when, in frames of bounded size, in no order.

        With ``as_of`` by what the store held at that instant.

        One row for each run of equal definitions (:mod:`hdi.stores.instruments` says what that is, and gives the
        columns), of those that are known in the window; ``instruments`` are rectangles as in :meth:`read`.
        """

    def replaced(self, schema: Schema, window: Window | None = None, dataset: str | None = None) -> pl.DataFrame:
        """Superseded rows: stored columns, then ``_written_run``, ``_replaced_run``, ``_replaced_unit``.

        Those of a window and a dataset alone are read without the others.
        """

    def sql(self, statement: str, as_of: int | None = None) -> Answer:
        """The answer to one SQL statement that reads, in the store's own dialect, over the tables of docs/sql.md.

        Columns are known before rows are read; rows stream, in the order that the statement gives them. ``as_of``
        (nanoseconds UTC) asks the store as it was known then. Raises RequestError for a statement that is wrong, with
        the place, and for one that does more than read.
        """

    def identity(self) -> str:
        """The same text for every handle of this store, whatever it was opened by, and for no other store."""

    def numbers(self) -> pl.DataFrame:
        """The numbers that :meth:`reserve` gave (unit, unit_id), in their order."""

    def keep_numbers(self, numbers: pl.DataFrame) -> None:
        """Have given the same numbers as another store. RequestError for one that another unit has."""

    def adopt(self, piece: Piece, rows: Iterable[pl.DataFrame] | None) -> None:
        """Make what is stored in the cells of the piece, and what the books say of them, what the piece says.

        ``rows`` are the public columns and :data:`hdi.schema.PLACE`, in the order of reads; None leaves the rows as
        they are. Raises StoreError when what is read back is not as much, or somebody else has committed meanwhile.
        """

    def settle(self) -> None:
        """Persist what is derived from commits, and clear what dead attempts left behind."""

    def health(self) -> dict[str, Any]:
        """Type, version, location, and sizes, as ``status`` shows them."""

    def close(self) -> None:
        """Give back locks and connections."""


def check_origin(store: Store, origin: str) -> None:
    """OriginMismatch when the store holds data of another origin; it has that of its first commit."""
    ledger = store.ledger()
    if ledger.height and (known := ledger["origin"][0]) != origin:
        raise OriginMismatch(
            f"{store.url} holds {known} data; this is {origin}",
            "Rows of two origins never share a store: name another one.",
        )


def names() -> list[str]:
    """The store types that can be opened."""
    return sorted({*_PACKAGED, *(e.name for e in extensions("hdi.stores"))})


def open_store(
    url: str,
    schemas: Schemas,
    *,
    write: bool = False,
    on_step: Callable[[str], None] | None = None,
    options: ServerOptions | None = None,
) -> Store:
    """Open the store that a URL names: ``lake:PATH``, a plain path, ``postgresql://...``, or another package's scheme.

    ``on_step`` is called with the name of every step of a commit, before it is taken: for logs, and
    for tests that break it there. ``options`` are for a kind of store that has some; None is the defaults.
    Raises RequestError for an unknown type, StoreError when it refuses.
    """
    kind = _kind(url)
    given: dict[str, Any] = {"write": write, "on_step": on_step}
    if options is not None:
        given["options"] = options
    for entry in extensions("hdi.stores"):
        if entry.name == kind:
            store: Store = entry.load().open(url, schemas, **given)
            return store
    if kind not in _PACKAGED:
        raise RequestError(
            f"no store of type {kind!r} in this version: {url}",
            f"Known: {', '.join(names())}; give a folder with --store lake:PATH or HDI_STORE.",
        )
    if url == "timescaledb" or url.startswith("timescaledb:"):
        raise RequestError(
            "timescaledb is a word of the settings, not the URL of a server",
            "Give postgresql://user@host:port/dbname, or the store_url of the settings.",
        )
    opened: Store = import_module(f"hdi.stores.{kind}").open(url, schemas, **given)
    return opened


def _kind(url: str) -> str:
    """The type of the store that a URL names."""
    if url in names():
        return url
    scheme, colon, _ = url.partition(":")
    # One letter before the colon is a drive, a slash makes it a path.
    if not colon or len(scheme) == 1 or "/" in scheme:
        return "lake"
    return next((kind for kind, schemes in _PACKAGED.items() if scheme in schemes), scheme)

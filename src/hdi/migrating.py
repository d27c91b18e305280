"""A store into another one: piece by piece, each proven equal before the next, and nothing copied twice.

A piece is some whole grid cells of one dataset and schema, cut so that no unit lies in two; it is one commit of the
destination. What is there already is known by the books, so that the same call goes on where another one ended.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Self

import polars as pl
import structlog

from hdi.errors import HdiError, RequestError, StoreError
from hdi.fingerprint import Fingerprint
from hdi.frames import BROUGHT, PURGED
from hdi.model import Window, iso_ns
from hdi.parting import Books, Cut, lacking, lacking_mappings
from hdi.pipeline import claim_keys
from hdi.schema import PLACE, Schema, SchemaName, Schemas
from hdi.stores import Piece, Purging, Store, check_origin

Mode = Literal["copy", "verify", "plan"]
_AGAIN = "Run the same command again: what is there already is left alone."
log = structlog.get_logger(component="Migration")


@dataclass(frozen=True)
class Moved:
    """What became of one dataset and schema. ``digest`` and ``rows`` are the source's; None where nothing was read.

    ``copied`` counts the pieces and receipts that the destination lacked (of a plan: lacks). ``differences`` are
    sentences, none where both stores hold the same.
    """

    dataset: str
    schema: str
    pieces: int
    units: int
    copied_pieces: int
    copied_units: int
    rows: int | None = None
    digest: str | None = None
    differences: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass
class Progress:
    """How far it has come: rows that were read of about ``total``, which counts those of both stores."""

    total: int = 0
    rows: int = 0
    doing: str = ""


@dataclass(frozen=True)
class Share:
    """One dataset and schema of the source; ``last`` of its dataset, of which symbology and days are told with it."""

    dataset: str
    schema: Schema
    name: SchemaName
    last: bool

    def __str__(self) -> str:
        return f"{self.dataset} {self.name.name}"

    def of(self, ledger: pl.DataFrame) -> pl.DataFrame:
        """Its receipts."""
        return ledger.filter(pl.col("dataset") == self.dataset, pl.col("schema") == self.name.name)

    def rows(self, store: Store, window: Window) -> Iterator[pl.DataFrame]:
        """Everything that a store has of it in a window, in order."""
        return store.read(
            self.schema, self.name.name, window, None, [*self.schema.dtypes, *PLACE], self.dataset
        )  # fmt: skip


@dataclass
class Prints:
    """Fingerprints of what was read of both stores."""

    source: Fingerprint = field(default_factory=Fingerprint)
    destination: Fingerprint = field(default_factory=Fingerprint)

    def copy(self) -> Prints:
        """Two that go on by themselves."""
        return Prints(self.source.copy(), self.destination.copy())

    @property
    def equal(self) -> bool:
        """True when both have had the same rows."""
        return self.source == self.destination


class Migration:
    """A move of all that a store holds into another one. A context manager, which closes both stores."""

    def __init__(self, source: Store, destination: Store, schemas: Schemas) -> None:
        self.source = source
        self.destination = destination
        self.progress = Progress()
        self.origin = ""
        self._schemas = schemas

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.source.close()
        self.destination.close()

    def run(self, mode: Mode = "copy") -> Generator[Moved]:
        """Copy, or only compare (``verify``), or only say what the destination lacks (``plan``).

        Yields one outcome for each dataset and schema as it is done. Raises RequestError when the destination may not
        take over the source, StoreError for a piece that is not equal after it was copied, HdiError when the source
        has changed meanwhile.
        """
        ledger = self.source.ledger()
        shares = self._checked(ledger)
        standing = ledger.filter(pl.col("status").is_in(BROUGHT)).select(
            (pl.col("stored") - pl.col("unchanged") - pl.col("superseded")).sum()
        )
        self.progress.total = 2 * max(int(standing.item()), 0)
        if mode == "copy":
            given = ledger.select("unit", "unit_id")
            self.destination.keep_numbers(pl.concat([given, self.source.numbers()]).unique("unit").sort("unit"))
        try:
            for share in shares:
                yield _Moving(self, share, mode).moved()
        finally:
            if mode == "copy":
                self.destination.settle()
        now = self.source.ledger()
        if not now.equals(ledger):
            raise HdiError(
                f"{self.source.url} has changed meanwhile: it has {now.height} receipts now, and had {ledger.height}",
                _AGAIN,
            )
        self._refuse_strangers(ledger)

    def _checked(self, ledger: pl.DataFrame) -> list[Share]:
        """The shares of the source. Raises RequestError for what cannot be moved."""
        check_source(self.source)
        if self.source.identity() == self.destination.identity():
            raise RequestError(
                f"{self.source.url} and {self.destination.url} are the same store", "Name another one with --to."
            )
        self.origin = ledger["origin"][0]
        check_origin(self.destination, self.origin)
        self._refuse_strangers(ledger)
        named = ledger.select("dataset", "schema").unique().sort("dataset", "schema")
        named = named.with_columns(last=pl.col("schema") == pl.col("schema").last().over("dataset"))
        return [Share(dataset, *self._schemas.find(name), last) for dataset, name, last in named.iter_rows()]

    def _refuse_strangers(self, ledger: pl.DataFrame) -> None:
        """RequestError when the destination holds a unit that the source does not have."""
        own = self.destination.ledger().join(ledger, on=["unit", "unit_id", "run"], how="anti")
        if own.is_empty():
            return
        first = own.row(0, named=True)
        raise RequestError(
            f"{self.destination.url} holds {own.height} units of its own; the first of them: number {first['unit']}, "
            f"{first['symbol'] or 'unmapped'} {first['dataset']} {first['schema']} from {iso_ns(first['start'])}, "
            f"of the run {first['run']}",
            "A store takes over another one when it is empty, or holds nothing but what came from there: name such a "
            "one with --to.",
        )


def check_source(source: Store) -> None:
    """RequestError for a store that is not there."""
    if source.ledger().is_empty():
        raise RequestError(f"{source.url} does not exist, or holds nothing", "Name the store to copy from with --from.")


class _Moving:
    """One dataset and schema on its way."""

    def __init__(self, migration: Migration, share: Share, mode: Mode) -> None:
        self._migration = migration
        self._source, self._destination = migration.source, migration.destination
        self._progress = migration.progress
        self._share = share
        self._mode = mode
        self._books = Books.of(self._source, share.dataset, share.schema, share.name)
        self._cut = Cut.of(self._books.ledger, share.name, self._extents)
        self._prints = Prints()
        self._held = 0

    def moved(self) -> Moved:
        """What became of it."""
        began = time.monotonic()
        if self._mode != "copy":
            done = self._compare() if self._mode == "verify" else self._plan()
        else:
            keys = {
                key for span in self._cut.spans
                for key in claim_keys(self._share.dataset, self._share.name, span)
            }  # fmt: skip
            self._tell("taking the locks of")
            with self._destination.claim(sorted(keys)):
                done = self._copy()
        pieces, units, differences = done
        read = self._mode != "plan"
        moved = Moved(
            dataset=self._share.dataset, schema=self._share.name.name, pieces=len(self._cut.spans),
            units=self._books.ledger.height, copied_pieces=pieces, copied_units=units,
            rows=self._prints.source.rows if read else None, digest=self._prints.source.digest if read else None,
            differences=tuple(differences), seconds=time.monotonic() - began,
        )  # fmt: skip
        log.info("moved", mode=self._mode, dataset=moved.dataset, schema=moved.schema, units=moved.units,
                 rows=moved.rows, digest=moved.digest, differences=list(moved.differences))  # fmt: skip
        return moved

    def _copy(self) -> tuple[int, int, list[str]]:
        """Bring over what the destination lacks, and prove all of it. (pieces, receipts, no difference)."""
        before = self._books_of_destination()
        self._held = before.ledger.height
        theirs, ours = self._books.parts(self._cut), before.parts(self._cut)
        told = (
            lacking_mappings(self._books.mappings, before.mappings),
            lacking(self._books.conditions, before.conditions, "conditions"),
        )
        todo = [k for k, (there, here) in enumerate(zip(theirs, ours, strict=True)) if there.unlike(here)]
        if any(frame.height for frame in told) and not todo:
            todo = [len(theirs) - 1]
        units = 0
        for k, (there, here) in enumerate(zip(theirs, ours, strict=True)):
            if k in todo:
                piece = self._piece(k, there, here, *(told if k == todo[0] else (frame.clear() for frame in told)))
                self._adopt(k, piece, fresh=here.ledger.is_empty())
                units += piece.ledger.height
            else:
                self._tell("comparing", k)
                self._read_both(k, self._prints)
            if not self._prints.equal:
                self._still()
                raise self._unequal(f"the rows from {self._named(k)} differ")
        self._carry()
        differences = self._books.differences(self._books_of_destination(), self._cut, whole=True)
        if differences:
            raise self._unequal(differences[0])
        return len(todo), units, []

    def _mine(self) -> pl.Expr:
        return (pl.col("dataset") == self._share.dataset) & (pl.col("schema") == self._share.name.name)

    def _carry(self) -> None:
        """Have the ledger of discrepancies say of these rows what that of the source says."""
        mine = self._mine()
        told = self._source.discrepancies().filter(mine)
        if not told.equals(self._destination.discrepancies().filter(mine)):
            self._destination.amend(lambda there: pl.concat([there.filter(~mine), told]).sort("number"))
        if isinstance(self._destination, Purging) and (lacking := self._purges()).height:
            self._destination.keep_purged(lacking)

    def _purges(self) -> pl.DataFrame:
        """What the source says of purged rejects and the destination does not."""
        source, destination = self._source, self._destination
        if not isinstance(source, Purging) or not isinstance(destination, Purging):
            return pl.DataFrame(schema=PURGED)
        mine = self._mine()
        return source.purged().filter(mine).join(destination.purged(), on=list(PURGED), how="anti")

    def _piece(
        self, k: int, there: Books, here: Books, mappings: pl.DataFrame, conditions: pl.DataFrame
    ) -> Piece:  # fmt: skip
        share = self._share
        return Piece(
            origin=self._books.ledger["origin"][0], dataset=share.dataset, schema=share.schema, name=share.name,
            window=self._cut.windows[k], units=self._cut.units_of(k), held=self._held,
            ledger=lacking(there.ledger, here.ledger, "ledger"),
            coverage=lacking(there.coverage, here.coverage, "coverage"), mappings=mappings,
            quarantine=there.quarantine, history=lacking(there.history, here.history, "history"),
            conditions=conditions,
        )  # fmt: skip

    def _adopt(self, k: int, piece: Piece, *, fresh: bool) -> None:
        """Have the destination take over a piece, and read back what it has of it then."""
        if not fresh:
            # Receipts that brought nothing new are no reason to write all rows again.
            self._tell("comparing", k)
            trial = self._prints.copy()
            self._read_both(k, trial)
            if trial.equal:
                self._still()
                self._destination.adopt(piece, None)
                self._held += piece.ledger.height
                self._prints = trial
                return
        self._tell("copying", k)
        rows = self._told(self._share.rows(self._source, piece.window), self._prints.source)
        self._destination.adopt(piece, self._unchanged(rows))
        self._held += piece.ledger.height
        self._tell("reading back", k)
        self._drain(self._destination, k, self._prints.destination)

    def _unchanged(self, rows: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        """The rows; at their end the source must be what it was before the first, or nothing is committed."""
        yield from rows
        self._still()

    def _still(self) -> None:
        """HdiError when the source has other receipts of the dataset and schema than the books that were read."""
        if not self._share.of(self._source.ledger()).equals(self._books.ledger):
            raise HdiError(f"{self._source.url} has changed in {self._share} while it was read", _AGAIN)

    def _compare(self) -> tuple[int, int, list[str]]:
        """What differs, piece by piece. (pieces and receipts that the destination lacks, differences)."""
        pieces, units, differences = self._plan()
        for k in range(len(self._cut.spans)):
            self._tell("comparing", k)
            self._read_both(k, self._prints)
            if not self._prints.equal:
                differences.append(f"{self._share}: the rows from {self._named(k)} differ")
                self._prints.destination = self._prints.source.copy()
        found = self._books.differences(self._books_of_destination(), self._cut, whole=self._share.last)
        mine = self._mine()
        if not self._source.discrepancies().filter(mine).equals(self._destination.discrepancies().filter(mine)):
            found = [*found, "what is known of discrepancies differs; hdi migrate copies it"]
        if self._purges().height:
            found = [*found, "what was purged of rejects is not known there; hdi migrate copies it"]
        return pieces, units, [*differences, *(f"{self._share}: {what}" for what in found)]

    def _plan(self) -> tuple[int, int, list[str]]:
        before = self._books_of_destination()
        pairs = list(zip(self._books.parts(self._cut), before.parts(self._cut), strict=True))
        pieces = sum(there.unlike(here) for there, here in pairs)
        return pieces, sum(lacking(t.ledger, h.ledger, "ledger").height for t, h in pairs), []

    def _books_of_destination(self) -> Books:
        return Books.of(self._destination, self._share.dataset, self._share.schema, self._share.name)

    def _read_both(self, k: int, prints: Prints) -> None:
        self._drain(self._source, k, prints.source)
        self._drain(self._destination, k, prints.destination)

    def _drain(self, store: Store, k: int, fingerprint: Fingerprint) -> None:
        for _ in self._told(self._share.rows(store, self._cut.windows[k]), fingerprint):
            pass

    def _told(self, rows: Iterable[pl.DataFrame], fingerprint: Fingerprint) -> Iterator[pl.DataFrame]:
        """The rows, counted and added to a fingerprint."""
        for frame in rows:
            fingerprint.add(frame)
            self._progress.rows += frame.height
            yield frame

    def _extents(self, units: pl.DataFrame) -> pl.DataFrame:
        """First and last row (unit, first, last) of units whose windows say nothing of where their rows lie."""
        index = self._share.schema.index_time
        window = Window(int(units["start"].min()), int(units["end"].max()))  # type: ignore[arg-type]  # Polars' extrema
        found = [
            frame.filter(pl.col("_unit").is_in(units["unit"].implode()))
            .group_by("_unit").agg(first=pl.col(index).to_physical().min(), last=pl.col(index).to_physical().max())
            for frame in self._source.read(
                self._share.schema, self._share.name.name, window, None, [index, "_unit"], self._share.dataset
            )
        ]  # fmt: skip
        kinds = {"_unit": pl.Int32(), "first": pl.Int64(), "last": pl.Int64()}
        both = pl.concat([pl.DataFrame(schema=kinds), *found])
        return both.group_by(unit="_unit").agg(pl.col("first").min(), pl.col("last").max())

    def _tell(self, doing: str, k: int | None = None) -> None:
        where = "" if k is None else f", {k + 1} of {len(self._cut.spans)}"
        self._progress.doing = f"{doing} {self._share}{where}"

    def _named(self, k: int) -> str:
        return str(self._cut.spans[k])

    def _unequal(self, what: str) -> StoreError:
        return StoreError(
            f"{self._destination.url} is not what {self._source.url} is in {self._share}: {what}",
            "The source is as it was. Copy it to an empty store, and keep this one for whoever looks for the cause.",
        )


__all__ = ["Migration", "Mode", "Moved", "Progress", "check_source"]

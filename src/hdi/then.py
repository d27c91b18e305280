"""A store as it was known at an instant: the rows, coverage, names and receipts that it held then.

A row carries the number of the receipt that brought it, and a superseded one also of the receipt that replaced it. So a
row was there then when the first was committed by then and the second was not; both by the clock of the ledger, so that
a commit comes whole.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

import polars as pl

from hdi.errors import RequestError
from hdi.frames import BROUGHT, MAPPINGS, REJECTED, REJECTS
from hdi.model import DAY_NS, Window, iso_ns, parse_instant
from hdi.stores import Touching
from hdi.stores.held import counted, summed
from hdi.stores.receipts import stood

if TYPE_CHECKING:
    from hdi.answer import Answer
    from hdi.model import Receipt
    from hdi.schema import Schema
    from hdi.stores import Piece, Store, Touched, Work, Writer


class Then:
    """The reading half of a :class:`hdi.stores.Store` as of an instant; the other half raises RequestError."""

    def __init__(self, store: Store, ns: int) -> None:
        self.url = store.url
        #: Nanoseconds UTC: what was committed by then is seen.
        self.ns = ns
        self._store = store

    @classmethod
    def at(cls, store: Store, as_of: str | dt.date) -> Then:
        """The store as of an instant (RFC 3339), or of the end of a UTC day.

        Raises RequestError for what is neither, for a time that has not come (what will be known then may still
        change), and for one before the first commit.
        """
        return cls(store, _instant(store, as_of, time.time_ns()))

    # --- the books ----------------------------------------------------------------------------

    def ledger(self) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.ledger`."""
        return self._all.filter(pl.col("committed_at") <= self.ns)

    def coverage(self) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.coverage`."""
        return self._known(self._store.coverage())

    def mappings(self) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.mappings`: those that were learned by then, or say not when."""
        return self.learned().select(*MAPPINGS)

    def learned(self) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.learned`."""
        return self._store.learned().filter((pl.col("learned") <= self.ns).fill_null(value=True))

    def quarantine(self) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.quarantine`: the rejects that stood then, as far as they are kept."""
        return self.rejected().filter(pl.col("replaced_unit").is_null()).select(*REJECTS)

    def rejected(self) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.rejected`."""
        return self._rejected

    @property
    def notes(self) -> list[str]:
        """What is not known of then any more, as sentences: rejects that may have stood, and are gone."""
        kept = self._rejected.group_by("unit").len("kept")
        had = self.ledger().filter(pl.col("status").is_in(BROUGHT), pl.col("quarantined") > 0)
        short = had.join(kept, on="unit", how="left").with_columns(
            gone=pl.col("quarantined") - pl.col("kept").fill_null(0).cast(pl.Int64)
        )  # fmt: skip
        later = self._all.filter(pl.col("committed_at") > self.ns, pl.col("status").is_in(BROUGHT))
        met = short.filter(pl.col("gone") > 0).join(later, on=["dataset", "schema"], suffix="_later")
        met = met.filter(
            (pl.col("start_later") < pl.col("end")) & (pl.col("end_later") > pl.col("start"))
        ).unique("unit")  # fmt: skip
        if met.is_empty():
            return []
        said = f"{met['gone'].sum()} rejected rows of {met.height} units are kept no longer: whether they stood in "
        return [f"{said}quarantine at {iso_ns(self.ns)} is not known"]

    def conditions(self) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.conditions`."""
        return self._store.conditions().filter(pl.col("seen_at") <= self.ns)

    def numbers(self) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.numbers`: those of the receipts of then."""
        return self.ledger().select("unit", "unit_id").unique("unit").sort("unit")

    # --- rows ---------------------------------------------------------------------------------

    def read(  # noqa: PLR0913  (as the protocol has it)
        self, schema: Schema, name: str, window: Window, instruments: pl.DataFrame | None,
        columns: Sequence[str], dataset: str | None = None, *, ordered: bool = True,
    ) -> Iterator[pl.DataFrame]:  # fmt: skip
        """See :meth:`hdi.stores.Store.read`."""
        came, went = self._changes(name, window, instruments, dataset)
        if not came and not went:
            yield from self._store.read(schema, name, window, instruments, columns, dataset, ordered=ordered)
            return
        every = self._every(schema, columns, went)
        live = self._store.read(schema, name, window, instruments, every, dataset, ordered=ordered or bool(went))
        then = _without(live, came)
        if went:
            past = self._store.superseded(schema, name, window, instruments, every, dataset, by=went)
            then = merged(then, _without(past, self._later.to_list()), schema.order)
        for frame in then:
            yield frame.select(columns)

    def touches(
        self, schema: Schema, name: str, window: Window, instruments: pl.DataFrame | None,
        columns: Sequence[str], dataset: str | None = None,
    ) -> Touched:  # fmt: skip
        """See :meth:`hdi.stores.Touching.touches`: of the rows that stand, without those that were superseded since."""
        if not isinstance(self._store, Touching):
            raise RequestError(f"{self.url} does not say what a read touches", "Ask a lake or a database of hdi's.")
        came, went = self._changes(name, window, instruments, dataset)
        every = self._every(schema, columns, went) if came or went else list(columns)
        return self._store.touches(schema, name, window, instruments, every, dataset)

    @staticmethod
    def _every(schema: Schema, columns: Sequence[str], went: Sequence[int]) -> list[str]:
        """The columns that are read: those that are wanted, and what tells which rows, in which order."""
        return list(dict.fromkeys((*columns, *(schema.order if went else ()), "_unit")))

    def content(
        self, schema: Schema, name: str, window: Window, instruments: pl.DataFrame | None,
        every: int, dataset: str | None = None,
    ) -> pl.DataFrame:  # fmt: skip
        """See :meth:`hdi.stores.Store.content`."""
        if not any(self._changes(name, window, instruments, dataset)):
            return self._store.content(schema, name, window, instruments, every, dataset)
        columns = ["dataset", "instrument_id", schema.index_time]
        whole = summed([])
        for frame in self.read(schema, name, window, instruments, columns, dataset, ordered=False):
            whole = summed([whole, counted(frame, schema.index_time, every)])
        return whole.sort("dataset", "instrument_id", "at")

    def instruments(
        self, dataset: str | None = None, window: Window | None = None, instruments: pl.DataFrame | None = None,
        *, as_of: int | None = None,
    ) -> Iterator[pl.DataFrame]:  # fmt: skip
        """See :meth:`hdi.stores.Store.instruments`."""
        if self._later.len():
            as_of = self.ns if as_of is None else min(self.ns, as_of)
        return self._store.instruments(dataset, window, instruments, as_of=as_of)

    def superseded(  # noqa: PLR0913  (as the protocol has it)
        self, schema: Schema, name: str, window: Window, instruments: pl.DataFrame | None,
        columns: Sequence[str], dataset: str | None = None, *, by: Sequence[int],
    ) -> Iterator[pl.DataFrame]:  # fmt: skip
        """See :meth:`hdi.stores.Store.superseded`: nothing had been, by a unit that was not there."""
        then = [unit for unit in by if unit not in set(self._later)]
        return self._store.superseded(schema, name, window, instruments, columns, dataset, by=then)

    def replaced(self, schema: Schema, window: Window | None = None, dataset: str | None = None) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.replaced`: what had been superseded by then."""
        return self._store.replaced(schema, window, dataset).filter(
            ~pl.col("_replaced_unit").is_in(self._later.implode())
        )

    def sql(self, statement: str, as_of: int | None = None) -> Answer:
        """See :meth:`hdi.stores.Store.sql`."""
        return self._store.sql(statement, self.ns if as_of is None else min(self.ns, as_of))

    def identity(self) -> str:
        """See :meth:`hdi.stores.Store.identity`."""
        return self._store.identity()

    def health(self) -> dict[str, Any]:
        """See :meth:`hdi.stores.Store.health`: of the store as it is."""
        return self._store.health()

    def close(self) -> None:
        """The store that it was made of stays open."""

    # --- what only the present can do ---------------------------------------------------------

    def reserve(self, unit_ids: Sequence[str]) -> list[int]:
        """Raises RequestError, as everything that writes."""
        self._refuse(unit_ids)

    def claim(self, keys: Sequence[str]) -> AbstractContextManager[None]:
        """Raises RequestError, as everything that writes."""
        self._refuse(keys)

    def replace(self, work: Work) -> AbstractContextManager[Writer]:
        """Raises RequestError, as everything that writes."""
        self._refuse(work)

    def record(self, work: Work, receipts: Sequence[Receipt], rejects: pl.DataFrame) -> None:
        """Raises RequestError, as everything that writes."""
        self._refuse(work, receipts, rejects)

    def keep_numbers(self, numbers: pl.DataFrame) -> None:
        """Raises RequestError, as everything that writes."""
        self._refuse(numbers)

    def adopt(self, piece: Piece, rows: Iterable[pl.DataFrame] | None) -> None:
        """Raises RequestError, as everything that writes."""
        self._refuse(piece, rows)

    def settle(self) -> None:
        """Raises RequestError, as everything that writes."""
        self._refuse()

    def _refuse(self, *_: object) -> NoReturn:
        raise RequestError(
            f"{self.url} as it was known at {iso_ns(self.ns)} can only be read", "Leave the instant out to write."
        )

    # --- inside -------------------------------------------------------------------------------

    @cached_property
    def _all(self) -> pl.DataFrame:
        """The ledger as it is, read once."""
        return self._store.ledger()

    @cached_property
    def _later(self) -> pl.Series:
        """The numbers of the receipts that were not there yet."""
        return self._all.filter(pl.col("committed_at") > self.ns)["unit"]

    @cached_property
    def _rejected(self) -> pl.DataFrame:
        """Read from the store only where receipts of then had rejects."""
        some = self.ledger().filter((pl.col("quarantined") > 0) | (pl.col("status") == "failed")).height
        return stood(self._store.rejected(), self._later) if some else pl.DataFrame(schema=REJECTED)

    def _known(self, book: pl.DataFrame) -> pl.DataFrame:
        return book.filter(~pl.col("unit").is_in(self._later.implode()))

    def _changes(
        self, name: str, window: Window, instruments: pl.DataFrame | None, dataset: str | None
    ) -> tuple[list[int], list[int]]:
        """The later receipts that may have brought rows of a window, and those that may have superseded some."""
        near = pl.col("status") == "fragment"
        near |= (pl.col("start") < window.end) & (pl.col("end") > window.start)
        mine = self._all.filter(
            pl.col("committed_at") > self.ns, pl.col("status").is_in(BROUGHT), pl.col("schema") == name, near
        )
        if dataset is not None:
            mine = mine.filter(pl.col("dataset") == dataset)
        if instruments is not None and mine.height:
            # What a complete unit brings and replaces lies in its scope.
            held = self._store.coverage().join(instruments, on=["dataset", "instrument_id"], how="semi")
            mine = mine.filter(
                (pl.col("status") == "fragment") | pl.col("unit").is_in(held["unit"].unique().implode())
            )  # fmt: skip
        came = mine.filter(pl.col("stored") > pl.col("unchanged"))["unit"].to_list()
        return came, mine.filter(pl.col("superseded") > 0)["unit"].to_list()


def merged(
    first: Iterator[pl.DataFrame], second: Iterator[pl.DataFrame], order: Sequence[str]
) -> Iterator[pl.DataFrame]:
    """The rows of two ordered streams of the same columns in one order; two frames are held at a time."""
    streams = (first, second)
    held: list[pl.DataFrame | None] = [next(first, None), next(second, None)]
    while held[0] is not None and held[1] is not None:
        pair = (held[0], held[1])
        told, rest, over = _step(pair, order)
        yield told
        held[1 - over] = rest
        held[over] = next(streams[over], None)
    for k, left in enumerate(held):
        if left is not None:
            yield left
            yield from streams[k]


def _step(pair: tuple[pl.DataFrame, pl.DataFrame], order: Sequence[str]) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """(all rows up to the end of the frame that ends first, the rest of the other, which of them ends first).

    What follows in the stream of the one that ends comes after its last row. Only rows up to its time are sorted.
    """
    times = [frame[order[0]].to_physical() for frame in pair]
    until = min(int(each[-1]) for each in times)
    cut = [int(each.search_sorted(until, side="right")) for each in times]
    both = pl.concat(pair[k].head(cut[k]).with_columns(_of=pl.lit(k, pl.Int8)) for k in (0, 1))
    both = both.sort(order, maintain_order=True)
    of = both["_of"]
    whole = [k for k in (0, 1) if cut[k] == pair[k].height]
    ends = {k: both.height - 1 - int((of.reverse() == k).arg_max() or 0) for k in whole}
    over = min(whole, key=lambda k: ends[k])
    other = 1 - over
    rest = pl.concat([both.slice(ends[over] + 1).drop("_of"), pair[other].slice(cut[other])])
    return both.head(ends[over] + 1).drop("_of"), rest, over


def _without(frames: Iterator[pl.DataFrame], units: Sequence[int]) -> Iterator[pl.DataFrame]:
    """The rows that none of the units has brought."""
    later = pl.Series(units, dtype=pl.Int32).implode()
    for frame in frames:
        kept = frame.filter(~pl.col("_unit").is_in(later)) if units else frame
        if kept.height:
            yield kept


def _instant(store: Store, as_of: str | dt.date, now: int) -> int:
    """The last nanosecond whose commits are seen."""
    if isinstance(as_of, dt.datetime):
        as_of = as_of.astimezone(dt.UTC) if as_of.tzinfo else as_of
    told = as_of if isinstance(as_of, str) else as_of.isoformat()
    ns, day = parse_instant(told)
    ns += DAY_NS - 1 if day else 0
    if ns > now:
        raise RequestError(
            f"{told} {'has not ended' if day else 'has not come'}: what will be known then may still change",
            "Give a time that is over, or leave it out to read what is known now.",
        )
    ledger = store.ledger()
    if ledger.height and (begun := int(ledger["committed_at"].min())) > ns:  # type: ignore[arg-type]  # Polars' minima
        raise RequestError(
            f"nothing was stored yet at {iso_ns(ns)}: the first commit came at {iso_ns(begun)}",
            "Give a later time, or leave it out to read what is known now.",
        )
    return ns


__all__ = ["Then", "merged"]

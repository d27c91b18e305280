"""A store as it was known at an instant: the rows, coverage, names and receipts that it held then.

A row carries the number of the receipt that brought it, and a superseded one also of the receipt that replaced it. So a
row was there then when the first was committed by then and the second was not; both by the clock of the ledger, so that
a commit comes whole.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NoReturn

import polars as pl

from hdi.errors import RequestError
from hdi.frames import BROUGHT, MAPPINGS, REJECTED, REJECTS
from hdi.model import DAY_NS, Window, iso_ns, parse_instant
from hdi.stores import Purging, Touching
from hdi.stores.held import counted, summed
from hdi.stores.receipts import open_then, stood

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
        return self._then

    def coverage(self) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.coverage`."""
        return self._store.coverage().filter(self._known("unit"))

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
        later = self._store.ledger().filter(~self._known("unit"), pl.col("status").is_in(BROUGHT))
        met = short.filter(pl.col("gone") > 0).join(later, on=["dataset", "schema"], suffix="_later")
        met = met.filter(
            (pl.col("start_later") < pl.col("end")) & (pl.col("end_later") > pl.col("start"))
        ).unique("unit")  # fmt: skip
        if met.is_empty():
            return []
        forgotten = self._store.purged()["unit"] if isinstance(self._store, Purging) else met["unit"].clear()
        purged = " (they were purged)" if met["unit"].is_in(forgotten.implode()).any() else ""
        said = f"{met['gone'].sum()} rejected rows of {met.height} units are kept no longer{purged}"
        return [f"{said}: whether they stood in quarantine at {iso_ns(self.ns)} is not known"]

    def conditions(self) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.conditions`."""
        return self._store.conditions().filter(pl.col("seen_at") <= self.ns)

    def discrepancies(self) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.discrepancies`: those that had been found by then."""
        return open_then(self._store.discrepancies(), self.ns)

    def numbers(self) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.numbers`: those of the receipts of then."""
        return self.ledger().select("unit", "unit_id").unique("unit").sort("unit")

    # --- rows ---------------------------------------------------------------------------------

    def read(  # noqa: PLR0913  (as the protocol has it)
        self, schema: Schema, name: str, window: Window, instruments: pl.DataFrame | None,
        columns: Sequence[str], dataset: str | None = None, *, ordered: bool = True,
    ) -> Iterator[pl.DataFrame]:  # fmt: skip
        """See :meth:`hdi.stores.Store.read`."""
        asked = _Asked(schema, name, window, instruments, dataset)
        for part, _ in self._parts(asked, 1):
            yield from self._began(partial(self._rows, columns=columns, ordered=ordered), replace(asked, window=part))

    def touches(
        self, schema: Schema, name: str, window: Window, instruments: pl.DataFrame | None,
        columns: Sequence[str], dataset: str | None = None,
    ) -> Touched:  # fmt: skip
        """See :meth:`hdi.stores.Touching.touches`: of the rows that stand, without those that were superseded since."""
        if not isinstance(self._store, Touching):
            raise RequestError(f"{self.url} does not say what a read touches", "Ask a lake or a database of hdi's.")
        asked = _Asked(schema, name, window, instruments, dataset)
        _, came, went = self._changes(asked, self._store.ledger())
        every = self._every(asked, columns, went) if came or went else list(columns)
        return self._store.touches(schema, name, window, instruments, every, dataset)

    def _every(self, asked: _Asked, columns: Sequence[str], went: Sequence[int]) -> list[str]:
        """The columns that are read: those that are wanted, and what tells which rows, in which order."""
        return list(dict.fromkeys((*columns, *(self._order(asked) if went else ()), "_unit")))

    def _order(self, asked: _Asked) -> list[str]:
        """What rows are ordered by; a dataset that is the only one need not be read."""
        ledger = self._store.ledger().filter(pl.col("schema") == asked.name)
        one = asked.dataset is not None or ledger["dataset"].n_unique() == 1
        return [c for c in asked.schema.order if not (one and c == "dataset")]

    def content(
        self, schema: Schema, name: str, window: Window, instruments: pl.DataFrame | None,
        every: int, dataset: str | None = None,
    ) -> pl.DataFrame:  # fmt: skip
        """See :meth:`hdi.stores.Store.content`."""
        asked = _Asked(schema, name, window, instruments, dataset)
        whole = summed([])
        for part, changed in self._parts(asked, every):
            count = self._counted if changed else self._counts
            for found in self._began(partial(count, every=every), replace(asked, window=part)):
                whole = summed([whole, found])
        return whole.sort("dataset", "instrument_id", "at")

    def instruments(
        self, dataset: str | None = None, window: Window | None = None, instruments: pl.DataFrame | None = None,
        *, as_of: int | None = None,
    ) -> Iterator[pl.DataFrame]:  # fmt: skip
        """See :meth:`hdi.stores.Store.instruments`."""
        if self._store.ledger().height > self._then.height:
            as_of = self.ns if as_of is None else min(self.ns, as_of)
        return self._store.instruments(dataset, window, instruments, as_of=as_of)

    def superseded(  # noqa: PLR0913  (as the protocol has it)
        self, schema: Schema, name: str, window: Window, instruments: pl.DataFrame | None,
        columns: Sequence[str], dataset: str | None = None, *, by: Sequence[int], apart: Sequence[int] = (),
    ) -> Iterator[pl.DataFrame]:  # fmt: skip
        """See :meth:`hdi.stores.Store.superseded`: nothing had been, by a unit that was not there."""
        known = set(self._units)
        then = [unit for unit in by if unit in known]
        return self._store.superseded(schema, name, window, instruments, columns, dataset, by=then, apart=apart)

    def replaced(self, schema: Schema, window: Window | None = None, dataset: str | None = None) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.replaced`: what had been superseded by then."""
        return self._store.replaced(schema, window, dataset).filter(self._known("_replaced_unit"))

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

    def amend(self, change: Callable[[pl.DataFrame], pl.DataFrame]) -> pl.DataFrame:
        """Raises RequestError, as everything that writes."""
        self._refuse(change)

    def settle(self) -> None:
        """Raises RequestError, as everything that writes."""
        self._refuse()

    def _refuse(self, *_: object) -> NoReturn:
        raise RequestError(
            f"{self.url} as it was known at {iso_ns(self.ns)} can only be read", "Leave the instant out to write."
        )

    # --- inside -------------------------------------------------------------------------------

    @cached_property
    def _then(self) -> pl.DataFrame:
        """The ledger of then. It is kept, and never changes; what has come since is looked up at every reading."""
        return self._store.ledger().filter(pl.col("committed_at") <= self.ns)

    @cached_property
    def _units(self) -> pl.Series:
        return self._then["unit"].unique()

    def _known(self, column: str) -> pl.Expr:
        """True where a receipt of then has the number."""
        return pl.col(column).is_in(self._units.implode())

    @cached_property
    def _rejected(self) -> pl.DataFrame:
        """Read from the store only where receipts of then had rejects."""
        some = self.ledger().filter((pl.col("quarantined") > 0) | (pl.col("status") == "failed")).height
        return stood(self._store.rejected(), self._units) if some else pl.DataFrame(schema=REJECTED)

    def _parts(self, asked: _Asked, every: int) -> list[tuple[Window, bool]]:
        """The window in at most three parts, cut at multiples of ``every``, and whether rows may have changed since."""
        window = asked.window
        changed, *_ = self._changes(asked, self._store.ledger())
        if changed is None:
            return [(window, False)]
        low = max(window.start, changed.start // every * every)
        high = min(window.end, -(-changed.end // every) * every)
        parts = [(window.start, low, False), (low, high, True), (high, window.end, False)]
        return [(Window(start, end), new) for start, end, new in parts if start < end]

    def _began(
        self, make: Callable[[_Asked, list[int], list[int]], Iterator[pl.DataFrame]], asked: _Asked
    ) -> Iterator[pl.DataFrame]:
        """Frames of a reading that has begun while nothing was committed, as it must know all that is in the way."""
        while True:
            ledger = self._store.ledger()
            _, came, went = self._changes(asked, ledger)
            frames = make(asked, came, went)
            first = next(frames, None)
            if self._store.ledger().height == ledger.height:
                break
        if first is not None:
            yield first
            yield from frames

    def _rows(
        self, asked: _Asked, came: list[int], went: list[int], *, columns: Sequence[str], ordered: bool
    ) -> Iterator[pl.DataFrame]:  # fmt: skip
        """The rows of then, without those that ``came`` since, with those that the units ``went`` have superseded."""
        at = (asked.schema, asked.name, asked.window, asked.instruments)
        if not came and not went:
            yield from self._store.read(*at, columns, asked.dataset, ordered=ordered)
            return
        every = self._every(asked, columns, went)
        then = _without(self._store.read(*at, every, asked.dataset, ordered=ordered or bool(went)), came)
        if went:
            past = self._store.superseded(*at, every, asked.dataset, by=went, apart=came)
            then = merged(then, past, [c for c in asked.schema.order if c in every])
        for frame in then:
            yield frame.select(columns)

    def _counted(self, asked: _Asked, came: list[int], went: list[int], *, every: int) -> Iterator[pl.DataFrame]:
        """The same, counted here."""
        index = asked.schema.index_time
        for frame in self._rows(asked, came, went, columns=["dataset", "instrument_id", index], ordered=False):
            yield counted(frame, index, every)

    def _counts(self, asked: _Asked, came: list[int], went: list[int], *, every: int) -> Iterator[pl.DataFrame]:
        """The same, counted by the store where nothing has changed."""
        if came or went:
            yield from self._counted(asked, came, went, every=every)
            return
        yield self._store.content(asked.schema, asked.name, asked.window, asked.instruments, every, asked.dataset)

    def _changes(self, asked: _Asked, ledger: pl.DataFrame) -> tuple[Window | None, list[int], list[int]]:
        """The receipts of a ledger that came later, and may have brought or superseded rows of what is asked for.

        The window that their rows lie in, the numbers of those that brought some, and of those that superseded some.
        """
        window = asked.window
        near = pl.col("status") == "fragment"
        near |= (pl.col("start") < window.end) & (pl.col("end") > window.start)
        mine = ledger.filter(
            ~self._known("unit"), pl.col("status").is_in(BROUGHT), pl.col("schema") == asked.name, near
        )
        if asked.dataset is not None:
            mine = mine.filter(pl.col("dataset") == asked.dataset)
        if asked.instruments is not None and mine.height:
            # What a complete unit brings and replaces lies in its scope.
            held = self._store.coverage().join(asked.instruments, on=["dataset", "instrument_id"], how="semi")
            mine = mine.filter(
                (pl.col("status") == "fragment") | pl.col("unit").is_in(held["unit"].unique().implode())
            )  # fmt: skip
        came, went = mine.filter(pl.col("stored") > pl.col("unchanged")), mine.filter(pl.col("superseded") > 0)
        both = pl.concat([came, went])
        if both.is_empty():
            return None, [], []
        # A fragment says nothing of what it does not hold: its rows are looked for in the whole window.
        whole = (both["status"] == "fragment").any()
        low, high = both.select(pl.col("start").min(), pl.col("end").max()).row(0)
        lies = window if whole else Window(max(low, window.start), min(high, window.end))
        return lies, came["unit"].to_list(), went["unit"].to_list()


@dataclass(frozen=True)
class _Asked:
    """What a read asks for: rows of a schema name, whatever the columns."""

    schema: Schema
    name: str
    window: Window
    instruments: pl.DataFrame | None
    dataset: str | None


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

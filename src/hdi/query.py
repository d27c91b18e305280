"""Reading: symbols by dated mappings, columns, limits, bars made on the way, and why nothing was found."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

import polars as pl
import structlog

from hdi import tracing
from hdi.answer import Answer, Rows, at_most
from hdi.chosen import chosen
from hdi.errors import RequestError
from hdi.explain import NOTHING, Records, Story, shown
from hdi.lookup import ALL_SYMBOLS, Asked, Lookup, among, near, split, union
from hdi.model import Query, Window, some
from hdi.resample import DERIVED, NEEDED, Certain, Resampler, aligned, covered, spoiled
from hdi.resolved import Resolved, looked_up, member, nothing_to_roll, resolved, rolled, seen
from hdi.rolls import Rolls
from hdi.schema import Schema, SchemaName, Schemas, closest

if TYPE_CHECKING:
    from hdi.stores import Store, Touched

_SOURCE = "data_source"
Out = TypeVar("Out")
log = structlog.get_logger(component="QueryBuilder")


class Adjusting(Protocol):
    """Changes the prices of rows, by what contract they are of when."""

    @property
    def rolls(self) -> Rows:
        """The rolls that it is for."""

    def applied(self, frame: pl.DataFrame, index: str) -> pl.DataFrame:
        """The frame, which has dataset, instrument_id and the index time, with other prices."""


@dataclass(repr=False)
class Result(Answer):
    """What a query finds, read while it is looked at.

    After the last frame ``rows``, ``seconds``, ``limited`` (True when the limit left rows out) and ``notes`` are
    complete.
    """

    query: Query
    schema: Schema
    name: SchemaName
    columns: dict[str, pl.DataType]
    notes: list[str] = field(default_factory=list)
    rows: int = 0
    seconds: float = 0.0
    limited: bool = False
    _reading: _Reading = field(kw_only=True, repr=False)

    def frames(self) -> Iterator[pl.DataFrame]:
        """The rows in the order of the schema, as frames of bounded size, none of them empty."""
        began = time.perf_counter()
        # Of this reading: several may be under way at once, and the last that ends is what the result tells of.
        rows, limited, notes = 0, False, list(self._reading.told)
        made: dict[str, int] = {}
        columns = list(self.columns)
        frames = self._reading.frames(notes)
        try:
            for frame in frames:
                left = frame.height if self.query.limit is None else self.query.limit - rows
                limited = frame.height > left
                rows += min(left, frame.height)
                if left and frame.height:
                    kept = frame.head(left) if limited else frame
                    if self._reading.derived:
                        _made(kept, made)
                    yield kept if kept.columns == columns else kept[columns]
                if limited:
                    break
        finally:
            frames.close()
            notes += [f"{n} {'row' if n == 1 else 'rows'} derived from {source}" for source, n in made.items()]
            self.rows, self.limited, self.notes, self.seconds = rows, limited, notes, time.perf_counter() - began
            self._log()

    def slabs(self) -> Iterator[pl.DataFrame]:
        """The rows in the order that :meth:`hdi.stores.Store.read` has without ``ordered``, whatever the limit."""
        self.notes = list(self._reading.told)
        for frame in replace(self._reading, ordered=False).frames(self.notes):
            yield frame.select(list(self.columns))

    def worked(self, each: Callable[[pl.DataFrame], Out]) -> Iterator[Out] | None:
        """``each`` of the frames of :meth:`slabs`, done in the threads that read them, several at once.

        None for rows that have to be looked at one frame after another, and for a store that does not read in threads.
        """
        self.notes = list(self._reading.told)
        return self._reading.worked(each)

    @property
    def asked(self) -> list[Asked] | None:
        """The symbols with their rectangles over all time (by a computed roll rule: in the window); None is all."""
        return self._reading.asked

    @property
    def lookup(self) -> Lookup:
        """What the store knows of symbols."""
        return self._reading.lookup

    @property
    def source(self) -> str:
        """The schema name under which the rows are stored."""
        return self._reading.source

    def adjusted_by(self, adjusting: Adjusting) -> Result:
        """The same rows with their prices changed."""
        reading = replace(self._reading, adjusting=adjusting)
        return Result(self.query, self.schema, self.name, self.columns, list(reading.told), _reading=reading)

    @property
    def rolls(self) -> Rows | None:
        """The rolls of an adjusted series, with prices and factors (:data:`hdi.series.continuous.ROLLED`)."""
        return None if self._reading.adjusting is None else self._reading.adjusting.rolls

    @property
    def contracts(self) -> pl.DataFrame | None:
        """What a roll rule says of the rectangles' contracts: the rectangles, and ``contract``; None without one."""
        return self._reading.contracts

    def narrowed(self, columns: Sequence[str]) -> Result:
        """See :meth:`hdi.answer.Answer.narrowed`: the store reads no other column than these and those it needs."""
        return self._as(replace(self.query, columns=tuple(columns)))

    def limited_to(self, rows: int) -> Result:
        """See :meth:`hdi.answer.Answer.limited_to`: reading stops there."""
        limit = at_most(rows) if self.query.limit is None else min(at_most(rows), self.query.limit)
        return self._as(replace(self.query, limit=limit))

    def between(self, first: int | None, end: int | None) -> Answer:
        """See :meth:`hdi.answer.Answer.between`: a narrower window. The first rows of all are not those of a part."""
        window = self.query.window
        low, high = max(window.start, first or 0), window.end if end is None else min(window.end, end)
        if self.query.limit is not None:
            return self
        if low >= high:
            return Rows(pl.DataFrame(schema=self.columns), self._reading.told)
        return self._as(replace(self.query, window=Window(low, high)))

    @property
    def timed_by(self) -> str | None:  # type: ignore[override]  # what it is of is known when it is made
        """See :attr:`hdi.answer.Answer.timed_by`."""
        return self.schema.index_time

    def __repr__(self) -> str:
        query = self.query
        rest = [query.dataset or "", f"limit {query.limit}" if query.limit is not None else ""]
        rest += [f"{column} in {', '.join(map(str, values))}" for column, values in query.where]
        rest.append("adjusted" if self._reading.adjusting is not None else "")
        told = [f"{self.name.name} of {some(query.symbols)}", shown(query.window), *filter(None, rest)]
        return f"<{', '.join(told)}>"

    def _as(self, query: Query) -> Result:
        columns = _columns(self.schema, query.columns)
        reading = replace(self._reading, query=query, columns=list(columns))
        return Result(query, self.schema, self.name, columns, list(reading.told), _reading=reading)

    @property
    def rectangles(self) -> pl.DataFrame | None:
        """Which instruments when (:data:`hdi.lookup.RECTANGLES`), cut to the window; None is every instrument."""
        return None if self._reading.asked is None else union(self._reading.asked, self.query.window)

    @property
    def store(self) -> Store:
        """The store that the rows are read from."""
        return self._reading.store

    def beside(self, schema: Schema, name: SchemaName) -> Result:
        """The same instruments and window in another schema: all of its columns and rows."""
        query = replace(self.query, schema=name.name, columns=(), limit=None, where=())
        columns = _columns(schema, ())
        reading = replace(self._reading, query=query, schema=schema, name=name, columns=list(columns), adjusting=None)
        return Result(query, schema, name, columns, _reading=reading)

    def touches(self) -> Touched:
        """What of the store reading touches, as its own engine plans it: ``3 of 120 files``, and which columns.

        No row is read. Raises RequestError for a store that does not say.
        """
        return self._reading.touches()

    def explain(self) -> list[str]:
        """Why there is no row: the lines to show."""
        if self.query.where and any(f.height for f in self._as(replace(self.query, where=(), limit=1)).frames()):
            wanted = (f"{column}={value}" for column, values in self.query.where for value in values)
            return [NOTHING, f"there are rows of {some(self.query.symbols)}, and none with {', '.join(wanted)}"]
        return [NOTHING, *self._reading.explain(), *self._reading.unknown_then]

    def gaps(self) -> list[str]:
        """What the window lacks though rows were found, symbol by symbol: never ingested, or quarantined."""
        return [*self._reading.gaps(), *self._reading.unknown_then]

    def _log(self) -> None:
        window = self.query.window
        for note in self.notes[len(self._reading.told) :]:
            log.warning("Query note", note=note)
        tracing.done("query", self.seconds, schema=self.name.name, symbols=len(self.query.symbols), rows=self.rows)
        if not log.is_enabled_for(logging.INFO):
            return
        log.info(
            "Query executed",
            symbol=",".join(self.query.symbols),
            date_range=str(window),
            execution_time=round(self.seconds, 6),
            record_count=self.rows,
        )
        log.info(
            "Query pattern",
            schema=self.name.name,
            symbols_count=len(self.query.symbols),
            date_range_days=window.days,
        )


def run(store: Store, schemas: Schemas, query: Query, rolls: Rolls | None = None) -> Result:
    """Resolve a query; its rows are read when the result is.

    A symbol is looked up as it stands. A bare root (``ES``) that is no stored raw symbol means its front contract,
    ``ES.c.0``, or the symbol that the roll rule of ``rolls`` decides; the notes say so. Symbols that were never stored
    are left out beside others that were, with a note that names the closest.

    Raises RequestError for an unknown schema, dataset or column and for a value that a column cannot have,
    UnknownSymbol where none of the symbols was ever stored, each with the closest known names.
    """
    schema, name = schemas.find(query.schema)
    columns = _columns(schema, query.columns)
    if query.limit is not None and query.limit < 1:
        raise RequestError(f"a limit of {query.limit} rows", "Give a number of at least 1, or no limit.")
    if query.dataset is not None and "\0" in query.dataset:
        raise RequestError(f"{query.dataset!r} is not the name of a dataset", "Name a stored one, or none.")
    symbols = split(query.symbols)
    everything = not symbols or ALL_SYMBOLS in (s.upper() for s in symbols)
    symbols = (ALL_SYMBOLS,) if everything else symbols
    query = replace(query, symbols=symbols, where=chosen(schema, query.where))
    lookup = looked_up(store, schemas, query.dataset)
    if everything and rolls is not None and not rolls.stored:
        raise nothing_to_roll(rolls, symbols)
    found = Resolved(None) if everything else resolved(store, schemas, query, lookup, rolls)
    derived = bool(name.width) and lookup.made(name.made_from or name.name)
    reading = _Reading(
        store, query, schema, name, list(columns), lookup, found.asked, derived, tuple(found.notes), found.contracts
    )
    return Result(query, schema, name, columns, list(found.notes), _reading=reading)


def _made(frame: pl.DataFrame, made: dict[str, int]) -> None:
    """Count the rows that were derived, by what from."""
    for source, rows in frame[_SOURCE].value_counts().iter_rows():
        if source.startswith(DERIVED):
            name = source.split(":")[1]
            made[name] = made.get(name, 0) + rows


def _columns(schema: Schema, names: Sequence[str]) -> dict[str, pl.DataType]:
    for name in names:
        if name not in schema.dtypes:
            raise RequestError(f"unknown column {name!r} of {schema.kind}", closest(name, schema.dtypes))
    return {name: schema.dtypes[name] for name in names or schema.dtypes}


@dataclass(frozen=True)
class _Reading:
    """One resolved query. ``asked`` None is every instrument; ``derived``: some bars may be made, not bought."""

    store: Store
    query: Query
    schema: Schema
    name: SchemaName
    columns: list[str]
    lookup: Lookup
    asked: list[Asked] | None
    derived: bool
    told: tuple[str, ...] = ()
    contracts: pl.DataFrame | None = None
    ordered: bool = True
    adjusting: Adjusting | None = None

    @property
    def source(self) -> str:
        """The schema name under which the rows are stored."""
        return self.name.made_from or self.name.name

    @property
    def window(self) -> Window | None:
        """The window to read: for bars that are made, the buckets that start in the query's, whole."""
        return aligned(self.query.window, self.name.width) if self.name.made_from else self.query.window

    def frames(self, notes: list[str]) -> Generator[pl.DataFrame]:
        """The rows, all output columns among theirs; adds to ``notes`` at the end."""
        for frame in self._frames(notes):
            chosen = [pl.col(c).is_in(values) for c, values in self.query.where]
            kept = frame.filter(*chosen) if chosen else frame
            yield kept if self.adjusting is None else self.adjusting.applied(kept, self.schema.index_time)

    @property
    def unknown_then(self) -> list[str]:
        """What a store as it was at another time (:class:`hdi.then.Then`) does not know any more of its quarantine."""
        told: list[str] = getattr(self.store, "notes", [])
        return list(told)

    @property
    def wanted(self) -> list[str]:
        """The output columns, those that rows are chosen by, and those that adjusting goes by."""
        keys = [] if self.adjusting is None else ["dataset", "instrument_id", self.schema.index_time]
        return list(dict.fromkeys([*self.columns, *(c for c, _ in self.query.where), *keys]))

    def _frames(self, notes: list[str]) -> Generator[pl.DataFrame]:
        window = self.window
        if window is None:
            return
        rectangles = None if self.asked is None else near(self.asked, window)
        if rectangles is not None and rectangles.is_empty():
            return
        if self.name.made_from is None:
            yield from self._read(window, rectangles, self._taken)
            return
        resampler = Resampler(self._certain(window, rectangles), self.schema.dtypes, self.name.constants)
        try:
            yield from resampler.bars(self._read(window, rectangles, self._taken))
        finally:
            notes += [*resampler.notes(self.name.name), *self.unknown_then]

    def worked(self, each: Callable[[pl.DataFrame], Out]) -> Iterator[Out] | None:
        """See :meth:`Result.worked`."""
        from hdi.stores import Working

        simple = self.name.made_from is None and self.adjusting is None and not self.query.where
        if not simple or self.window is None or "symbol" in self.columns or not isinstance(self.store, Working):
            return None
        rectangles = None if self.asked is None else near(self.asked, self.window)
        if rectangles is not None and rectangles.is_empty():
            return iter(())
        return self.store.read_each(
            self.schema, self.source, self.window, rectangles, self.columns, self.query.dataset, each
        )

    @property
    def _taken(self) -> list[str]:
        """The columns that are read of the store."""
        if self.name.made_from is not None:
            columns = list(NEEDED)
        else:
            told = self.derived and _SOURCE not in self.wanted
            columns = [*self.wanted, *([_SOURCE] if told else [])]
        # A mapping learned after the rows were stored is found by what they are and when.
        extra = ("dataset", "instrument_id", self.schema.index_time) if "symbol" in columns else ()
        return [*columns, *(c for c in extra if c not in columns)]

    def touches(self) -> Touched:
        """What of the store reading touches."""
        from hdi.stores import Touched, Touching

        window = self.window
        if window is None:
            return Touched("", 0, 0, ())
        if not isinstance(self.store, Touching):
            raise RequestError(f"{self.store.url} does not say what a read touches", "A lake and a database do.")
        held = None if self.asked is None else union(self.asked, window)
        return self.store.touches(self.schema, self.source, window, held, self._taken, self.query.dataset)

    def _read(self, window: Window, rectangles: pl.DataFrame | None, columns: list[str]) -> Iterator[pl.DataFrame]:
        index = self.schema.index_time
        if "symbol" not in columns:
            yield from self._stored(window, rectangles, columns)
            return
        names = None
        for frame in self._stored(window, rectangles, columns):
            if frame["symbol"].null_count():
                names = names or self.lookup.names(rectangles)
                yield names.fill(frame, index)
            else:
                yield frame

    def _stored(self, window: Window, rectangles: pl.DataFrame | None, columns: list[str]) -> Iterator[pl.DataFrame]:
        # Bars are made of what comes in order.
        ordered = self.ordered or self.name.made_from is not None
        return self.store.read(
            self.schema, self.source, window, rectangles, columns, self.query.dataset, ordered=ordered
        )

    def _certain(self, window: Window, rectangles: pl.DataFrame | None) -> Certain:
        bad = spoiled(self.store.quarantine(), self.source, window, self.name.width)
        if self.query.dataset is not None:
            bad = bad.filter(pl.col("dataset") == self.query.dataset)
        if rectangles is not None:
            at = pl.col("ts_event")
            bad = (
                bad.join(rectangles, on=["dataset", "instrument_id"])
                .filter(at >= pl.col("start"), at < pl.col("end"))
                .select(bad.columns)
            )
        return Certain(covered(self.store.coverage(), self.store.mappings(), self.source), bad, self.name.width)

    def explain(self) -> list[str]:
        """What became of the window, symbol by symbol and dataset by dataset."""
        if self.window is None:
            return [f"no {self.name.name} bar starts within {shown(self.query.window)}"]
        return [line for story, records in self._stories() for line in story.lines(records)]

    def gaps(self) -> list[str]:
        """What the window lacks though rows were found: parts without complete units, rows in quarantine."""
        told = [(story.gap(records), story.rejected(records)) for story, records in self._stories()]
        return [line for pair in told for line in pair if line]

    def _stories(self) -> Iterator[tuple[Story, Records]]:
        records = Records(self.store.coverage(), self.store.ledger(), self.store.quarantine())
        window = self.window or self.query.window
        for asked in [None] if self.asked is None else self.asked:
            for dataset in self._datasets(asked, records):
                yield Story(asked, self.source, window, dataset), records

    def _datasets(self, asked: Asked | None, records: Records) -> list[str]:
        """Where a symbol is known, or the dataset that was named; "" is anywhere."""
        if self.query.dataset is not None:
            return [self.query.dataset]
        if asked is None:
            return [""]
        known = set(asked.rectangles["dataset"])
        for frame in (records.coverage, records.ledger):
            known.update(frame.filter(among(asked.symbol))["dataset"])
        return sorted(known) or [""]


__all__ = ["NOTHING", "Result", "member", "rolled", "run", "seen"]

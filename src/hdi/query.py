"""Reading: symbols by dated mappings, columns, limits, bars made on the way, and why nothing was found."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import polars as pl
import structlog

from hdi.answer import Answer
from hdi.errors import RequestError
from hdi.explain import NOTHING, Records, Story, shown
from hdi.lookup import ALL_SYMBOLS, RECTANGLES, Asked, Lookup, among, split, union
from hdi.model import MAX_NS, Query, Window
from hdi.resample import DERIVED, NEEDED, Certain, Resampler, aligned, covered, spoiled
from hdi.schema import Schema, SchemaName, Schemas, closest
from hdi.symbology import infer_stype

if TYPE_CHECKING:
    from hdi.stores import Store

#: The classes of instruments of a parent, by the end of its symbol: spreads belong to their family.
_CLASSES = {"FUT": ["F", "S"], "OPT": ["C", "P", "T", "M"], "SPOT": ["X", "Y"]}
_SOURCE = "data_source"
log = structlog.get_logger(component="QueryBuilder")


@dataclass
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
        self.rows, self.seconds, self.limited, self.notes = 0, 0.0, False, []
        made: dict[str, int] = {}
        frames = self._reading.frames(self.notes)
        try:
            for frame in frames:
                left = frame.height if self.query.limit is None else self.query.limit - self.rows
                self.limited = frame.height > left
                self.rows += min(left, frame.height)
                if left and frame.height:
                    if self._reading.derived:
                        _made(frame.head(left), made)
                    yield frame.head(left).select(list(self.columns))
                if self.limited:
                    break
        finally:
            frames.close()
            self.notes += [f"{n} {'row' if n == 1 else 'rows'} derived from {source}" for source, n in made.items()]
            self.seconds = time.perf_counter() - began
            self._log()

    def narrowed(self, columns: Sequence[str]) -> Result:
        """See :meth:`hdi.answer.Answer.narrowed`: the store reads no other column than these and those it needs."""
        return self._as(replace(self.query, columns=tuple(columns)))

    def limited_to(self, rows: int) -> Result:
        """See :meth:`hdi.answer.Answer.limited_to`: reading stops there."""
        limit = rows if self.query.limit is None else min(rows, self.query.limit)
        return self._as(replace(self.query, limit=limit))

    def _as(self, query: Query) -> Result:
        columns = _columns(self.schema, query.columns)
        reading = replace(self._reading, query=query, columns=list(columns))
        return Result(query, self.schema, self.name, columns, _reading=reading)

    @property
    def rectangles(self) -> pl.DataFrame | None:
        """Which instruments when (:data:`hdi.lookup.RECTANGLES`), cut to the window; None is every instrument."""
        return None if self._reading.asked is None else union(self._reading.asked, self.query.window)

    def explain(self) -> list[str]:
        """Why there is no row: the lines to show."""
        return [NOTHING, *self._reading.explain()]

    def gaps(self) -> list[str]:
        """What the window lacks though rows were found, symbol by symbol: never ingested, or quarantined."""
        return self._reading.gaps()

    def _log(self) -> None:
        window = self.query.window
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


def run(store: Store, schemas: Schemas, query: Query) -> Result:
    """Resolve a query; its rows are read when the result is.

    Raises RequestError for an unknown schema, dataset or column, UnknownSymbol for a symbol that was
    never stored, each with the closest known names.
    """
    schema, name = schemas.find(query.schema)
    columns = _columns(schema, query.columns)
    _columns(schema, [c for c, _ in query.where])
    if query.limit is not None and query.limit < 1:
        raise RequestError(f"a limit of {query.limit} rows", "Give a number of at least 1, or no limit.")
    if query.dataset is not None and "\0" in query.dataset:
        raise RequestError(f"{query.dataset!r} is not the name of a dataset", "Name a stored one, or none.")
    symbols = split(query.symbols)
    everything = not symbols or ALL_SYMBOLS in (s.upper() for s in symbols)
    query = replace(query, symbols=(ALL_SYMBOLS,) if everything else symbols)
    ledger = store.ledger()
    lookup = Lookup(
        store.mappings(), store.coverage(), ledger, query.dataset, lambda i: seen(store, schemas, ledger, i)
    )
    asked = None if everything else [member(store, schemas, a) for a in lookup.find(query.symbols)]
    made = ledger.filter(
        pl.col("schema") == (name.made_from or name.name), pl.col("raw_digest").is_null(), pl.col("fetched") > 0
    )
    derived = bool(name.width) and bool(made.height)
    reading = _Reading(store, query, schema, name, list(columns), lookup, asked, derived)
    return Result(query, schema, name, columns, _reading=reading)


def seen(store: Store, schemas: Schemas, ledger: pl.DataFrame, instrument: int) -> set[str]:
    """The datasets of which fragments brought rows of an instrument."""
    found = set()
    fragments = ledger.filter(pl.col("status") == "fragment").select("dataset", "schema").unique()
    for dataset, name in fragments.sort("dataset", "schema").iter_rows():
        schema, _ = schemas.find(name)
        one = pl.DataFrame([(dataset, instrument, 0, MAX_NS)], schema=RECTANGLES, orient="row")
        if any(f.height for f in store.read(schema, name, Window(0, MAX_NS), one, ["dataset"], dataset)):
            found.add(dataset)
    return found


def member(store: Store, schemas: Schemas, asked: Asked) -> Asked:
    """A parent that was asked for together with others, by what the definitions say of their instruments.

    Files of several parents map contracts, and say not which parent a contract belongs to.
    """
    root, _, group = asked.symbol.rpartition(".")
    if infer_stype(asked.symbol) != "parent":
        return asked
    together = (
        store.coverage()
        .filter(pl.col("instrument_id").is_not_null(), among(asked.symbol), pl.col("symbol") != asked.symbol)
        .select(pl.col(c).cast(t) for c, t in RECTANGLES.items())
    )
    if together.is_empty():
        return asked
    schema, name = schemas.find("definition")
    span = Window(int(together["start"].min()), int(together["end"].max()))  # type: ignore[arg-type]
    columns = ["dataset", "instrument_id", "asset", "instrument_class"]
    mine = pl.concat(
        frame.filter(pl.col("asset") == root, pl.col("instrument_class").is_in(_CLASSES[group])).select(columns[:2])
        for frame in (pl.DataFrame(schema={c: schema.dtypes[c] for c in columns}), *store.read(
            schema, name.name, span, together, columns
        ))
    ).unique()  # fmt: skip
    return Asked(asked.symbol, union([asked, Asked("", together.join(mine, on=columns[:2], how="semi"))]))


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
            yield frame.filter(*(pl.col(c).is_in(values) for c, values in self.query.where))

    @property
    def wanted(self) -> list[str]:
        """The output columns, and those that rows are chosen by."""
        return [*self.columns, *(c for c, _ in self.query.where if c not in self.columns)]

    def _frames(self, notes: list[str]) -> Generator[pl.DataFrame]:
        window = self.window
        if window is None:
            return
        rectangles = None if self.asked is None else union(self.asked, window)
        if rectangles is not None and rectangles.is_empty():
            return
        if self.name.made_from is None:
            told = self.derived and _SOURCE not in self.wanted
            yield from self._read(window, rectangles, [*self.wanted, *([_SOURCE] if told else [])])
            return
        resampler = Resampler(self._certain(window, rectangles), self.schema.dtypes, self.name.constants)
        try:
            yield from resampler.bars(self._read(window, rectangles, list(NEEDED)))
        finally:
            notes += resampler.notes(self.name.name)

    def _read(self, window: Window, rectangles: pl.DataFrame | None, columns: list[str]) -> Iterator[pl.DataFrame]:
        index = self.schema.index_time
        if "symbol" not in columns:
            yield from self.store.read(self.schema, self.source, window, rectangles, columns, self.query.dataset)
            return
        # A mapping learned after the rows were stored is found by what they are and when.
        extra = [c for c in ("dataset", "instrument_id", index) if c not in columns]
        names = None
        for frame in self.store.read(
            self.schema, self.source, window, rectangles, [*columns, *extra], self.query.dataset
        ):
            if frame["symbol"].null_count():
                names = names or self.lookup.names(rectangles)
                yield names.fill(frame, index)
            else:
                yield frame

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


__all__ = ["NOTHING", "Result", "member", "run", "seen"]

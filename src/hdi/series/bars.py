"""Bars made when somebody asks for them, of stored trades or finer bars: by time, or by what was traded.

A bar holds the trades of one contract, as one publisher has them, by the index time of trades. Bars by time are buckets
that start in the window, each whole; those of activity (``tick``, ``volume``, ``dollar``) are counted anew from the
start of each UTC day or session, close with the trade that fills them, and belong to the window with their first trade.
So no bar depends on where a window begins. A bar is given only where everything that it is made of is stored whole, and
nothing of it was quarantined; the notes count those that are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING

import polars as pl

from hdi.answer import Answer, Rows, at_most, picked
from hdi.errors import RequestError
from hdi.explain import NOTHING, shown
from hdi.folding import KEY, PRICES, Clock, Folder, Utc, legs, price, vwap
from hdi.lookup import ALL_SYMBOLS, RECTANGLES
from hdi.model import DAY_NS, MAX_NS, Query, Window, some
from hdi.query import Adjusting, Result, run
from hdi.resample import DERIVED
from hdi.schema import Schema, Schemas, closest
from hdi.series.bars_asked import MEASURES, Every
from hdi.series.bars_certain import Certain, known, quarantined
from hdi.series.bars_sources import BARS, TRADES, Source, best, claims, named, possible, span

if TYPE_CHECKING:
    from hdi.calendars import Calendars
    from hdi.rolls import Rolls
    from hdi.stores import Store

_TIME = pl.Datetime("ns", "UTC")
#: What bars of activity have beside the columns of bars: the time of the last trade, and False for a bar that the end
#: of its day or session cut short.
ACTIVITY: dict[str, pl.DataType] = {"ts_end": _TIME, "complete": pl.Boolean()}
#: The records of ``trades`` that are trades: the vendor makes its bars of these.
_TRADED = "T"


@dataclass(frozen=True)
class Wanted:
    """What bars somebody asks for; ``start`` and ``end`` None: from the first, to the last thing stored."""

    symbols: tuple[str, ...]
    start: int | None
    end: int | None
    every: str | int | Decimal = "1m"
    kind: str = "time"
    source: str | None = None
    align: str = "utc"
    fill: bool = False
    dataset: str | None = None
    columns: tuple[str, ...] = ()
    limit: int | None = None


@dataclass(repr=False)
class Bars(Answer):
    """Bars, made while they are looked at: ``source`` is the schema that they are made of, ``window`` where they start.

    ``every`` says what was asked for; ``rows`` is how many were given, complete after the last frame, as the notes are.
    """

    columns: dict[str, pl.DataType]
    notes: list[str]
    every: Every
    source: str
    window: Window
    _making: _Making = field(repr=False)
    limit: int | None = None
    rows: int = 0
    adjusting: Adjusting | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        of = some(self._making.wanted.symbols) or ALL_SYMBOLS
        kind = "" if self.every.kind == "time" else f"{self.every.kind} "
        moved = ", adjusted" if self.adjusting is not None else ""
        return f"<{self.every.text} {kind}bars of {of}, {shown(self.window)}, made of {self.source}{moved}>"

    def frames(self) -> Iterator[pl.DataFrame]:
        """See :meth:`hdi.answer.Answer.frames`: by start; bars of activity in the order in which they close."""
        self.rows = 0
        self.notes = list(self._making.notes)
        left = self.limit
        made = self._making.frames(self.notes)
        try:
            for frame in made:
                found = frame if left is None else frame.head(left)
                self.rows += found.height
                left = None if left is None else left - found.height
                if found.height:
                    moved = found if self.adjusting is None else self.adjusting.applied(found, "ts_event")
                    yield moved.select(list(self.columns))
                if left == 0:
                    break
        finally:
            made.close()  # type: ignore[attr-defined]  # a generator

    def narrowed(self, columns: Sequence[str]) -> Bars:
        """See :meth:`hdi.answer.Answer.narrowed`."""
        return replace(self, columns=picked(self.columns, columns), notes=list(self._making.notes))

    def limited_to(self, rows: int) -> Bars:
        """See :meth:`hdi.answer.Answer.limited_to`: reading stops there."""
        return replace(self, limit=at_most(rows) if self.limit is None else min(at_most(rows), self.limit),
                       notes=list(self._making.notes))  # fmt: skip

    @property
    def series(self) -> Result:
        """The rows that the bars are made of, as a query."""
        return self._making.result

    @property
    def rolls(self) -> Rows | None:
        """The rolls of adjusted bars, with prices and factors (:data:`hdi.series.continuous.ROLLED`)."""
        return None if self.adjusting is None else self.adjusting.rolls

    @property
    def rectangles(self) -> pl.DataFrame | None:
        """Which instruments when (:data:`hdi.lookup.RECTANGLES`); None is every instrument."""
        return self._making.result.rectangles

    def explain(self) -> list[str]:
        """Why there is no bar: the lines to show."""
        return self._making.explain()

    def gaps(self) -> list[str]:
        """What the window lacks though bars were found, symbol by symbol."""
        return self._making.result.gaps()


def make(
    store: Store, schemas: Schemas, calendars: Callable[[], Calendars], wanted: Wanted, rolls: Rolls | None = None
) -> Bars:
    """Resolve what is asked for; the bars are made when the answer is looked at.

    Raises RequestError for what cannot be made, with what can; UnknownSymbol where none of the symbols was ever stored.
    """
    every = Every.parse(wanted.every, wanted.kind, wanted.align)
    kind, _ = schemas.find(BARS)
    columns = dict(kind.dtypes) | (ACTIVITY if every.kind != "time" else {})
    for name in wanted.columns:
        if name not in columns:
            raise RequestError(f"unknown column {name!r} of bars", closest(name, columns))
    if wanted.limit is not None and wanted.limit < 1:
        raise RequestError(f"a limit of {wanted.limit} rows", "Give a number of at least 1, or no limit.")
    if wanted.fill and every.kind != "time":
        raise RequestError(
            f"{every.kind} bars cannot be filled", "Only bars by time have buckets in which nothing was traded."
        )
    choice = possible(schemas, every) if wanted.source is None else [named(schemas, every, wanted.source)]
    window = _window(store, choice, wanted)
    query = Query(choice[-1].name.name, wanted.symbols, window, wanted.dataset)
    found = run(store, schemas, query, rolls)
    source, whole = _chosen(store, choice, found, window, wanted.dataset)
    clock = _clock(every, found, calendars, window)
    making = _Making(store, schemas, every, source, window, clock, wanted, rolls, calendars, kind)
    making.notes = [*found.notes, making.made_of(whole=whole)]
    output = {c: columns[c] for c in wanted.columns or columns}
    return Bars(output, list(making.notes), every, source.name.name, window, making, wanted.limit)


def adjusted_bars(  # noqa: PLR0913, PLR0917  (what bars are asked for with)
    store: Store, schemas: Schemas, calendars: Callable[[], Calendars], wanted: Wanted, rolls: Rolls | None = None,
    adjust: str | None = None, by: str = "difference", at: str = "both",
) -> Bars:  # fmt: skip
    """As :func:`make`, the prices of contracts adjusted to each other: see :mod:`hdi.series.continuous`."""
    made = make(store, schemas, calendars, wanted, rolls)
    if adjust is None and by == "difference" and at == "both":
        return made
    from hdi.series.continuous import factors

    return replace(made, adjusting=factors(made.series, how=adjust, by=by, at=at))


def _window(store: Store, choice: Sequence[Source], wanted: Wanted) -> Window:
    if wanted.start is not None and wanted.end is not None:
        return Window(wanted.start, wanted.end)
    held = span(store.ledger(), choice, wanted.dataset) or Window(0, DAY_NS)
    start = held.start if wanted.start is None else wanted.start
    end = held.end if wanted.end is None else wanted.end
    return Window(start, end) if start < end else Window(start, min(start + DAY_NS, MAX_NS))


def _chosen(
    store: Store, choice: Sequence[Source], found: Result, window: Window, dataset: str | None
) -> tuple[Source, bool]:
    """The source, and whether it holds everything that is wanted."""
    coverage, mappings = store.coverage(), store.mappings()
    held = [claims(coverage, mappings, s.name.name, dataset) for s in choice]
    wanted = found.rectangles
    if wanted is None:
        cut = (
            pl.concat(held)
            .drop_nulls("instrument_id")
            .with_columns(pl.col("start").clip(lower_bound=window.start), pl.col("end").clip(upper_bound=window.end))
        )
        wanted = cut.filter(pl.col("start") < pl.col("end")).select(*RECTANGLES).unique()
    return best(choice, wanted, held, store.ledger())


def _clock(every: Every, found: Result, calendars: Callable[[], Calendars], window: Window) -> Clock:
    if every.align == "session":
        from hdi.rolls import named as of_contracts
        from hdi.series.bars_sessions import Sessions

        held = found.rectangles
        told = None if held is None else of_contracts(found.lookup, held).select("dataset", "contract").unique()
        contracts = None if told is None else [(d, c or "") for d, c in told.iter_rows()]
        return Sessions(calendars(), found.lookup.names(held), window, every, contracts)
    if every.kind == "time":
        return Utc(every.width, every.origin)
    return Utc(DAY_NS)


@dataclass
class _Making:
    """One resolved request."""

    store: Store
    schemas: Schemas
    every: Every
    source: Source
    window: Window
    clock: Clock
    wanted: Wanted
    rolls: Rolls | None
    calendars: Callable[[], Calendars]
    kind: Schema

    def __post_init__(self) -> None:
        self.notes: list[str] = []
        self.missing = 0
        self.spoiled = 0
        self.seen = False
        self.result = run(
            self.store, self.schemas,
            Query(self.source.name.name, self.wanted.symbols, self._read, self.wanted.dataset, self._columns),
            self.rolls,
        )  # fmt: skip

    @property
    def _read(self) -> Window:
        """What has to be read: every bucket, day or session that touches the window, whole."""
        if self.source.same:
            return self.window
        start, end = self.clock.reach(self.window.start, self.window.end)
        return Window(max(start, 0), min(end, MAX_NS))

    @property
    def _columns(self) -> tuple[str, ...]:
        if self.source.same:
            return ()
        if self.source.name.name == TRADES:
            return (*self._who, "ts_recv", "price", "size", "action")
        return (*self._who, "ts_event", *PRICES.values(), "volume", "trade_count")

    @property
    def _who(self) -> tuple[str, ...]:
        """The columns that say whose a row is; a dataset that is the only one need not be read."""
        return KEY if self._dataset is None else KEY[1:]

    @cached_property
    def _dataset(self) -> str | None:
        """The one dataset that rows can be of, None where there are several."""
        ledger = self.store.ledger().filter(pl.col("schema") == self.source.name.name, pl.col("stored") > 0)
        known = [self.wanted.dataset] if self.wanted.dataset else ledger["dataset"].unique().to_list()
        return known[0] if len(known) == 1 else None

    def made_of(self, *, whole: bool) -> str:
        """Which source it is, for the notes."""
        name = self.source.name.name
        told = f"{self.every.text} bars as stored in {name}" if self.source.same else (
            f"{self.every.text} bars made of {name}"
        )  # fmt: skip
        return told if whole or self.wanted.source else f"{told}, which is not stored for all of the window"

    def frames(self, notes: list[str]) -> Iterator[pl.DataFrame]:
        """The bars, all columns among theirs; adds to the notes at the end."""
        self.missing = self.spoiled = 0
        try:
            made = self._stored() if self.source.same else self._made()
            if self.wanted.fill:
                from hdi.series.bars_filling import Filling

                names, rectangles = self.result.lookup.names(self.result.rectangles), self.result.rectangles
                filling = Filling(self.every, self.calendars(), names, self._certain, rectangles, self.window)
                made = filling.bars(made)
            yield from made
        finally:
            notes += [*self._left_out(), *self._unknown_then]

    def _stored(self) -> Iterator[pl.DataFrame]:
        for frame in self.result.frames():
            yield frame.with_columns(granularity=pl.lit(self.every.text))

    def _made(self) -> Iterator[pl.DataFrame]:
        measure = MEASURES.get(self.every.kind)
        folder = Folder(self.clock, measure, self.every.size, single=self._dataset is not None)
        certain = self._certain
        names = self.result.lookup.names(self.result.rectangles)
        origin = next(iter(self.store.ledger()["origin"]), "")
        constants = [
            pl.lit(self.every.text).alias("granularity"),
            pl.lit(f"{DERIVED}{self.source.name.name}:{origin}").alias("data_source"),
        ]
        for bars in self._folded(folder):
            sure = self._sure(bars, certain)
            if sure.is_empty():
                continue
            at = sure.with_columns(pl.lit(None, pl.String).alias("symbol"), pl.col("first").cast(_TIME).alias("at"))
            named_ = names.fill(at, "at")
            start = "first" if measure else "start"
            yield named_.select(
                "dataset", "instrument_id", "symbol", "publisher_id", pl.col(start).cast(_TIME).alias("ts_event"),
                *(price(m).alias(c) for m, c in PRICES.items()), "volume",
                pl.col("trades").alias("trade_count"), self._vwap(), *constants,
                pl.col("last").cast(_TIME).alias("ts_end"), pl.col("done").alias("complete"),
            )  # fmt: skip
            if measure is None and int(bars["start"][-1]) >= self.window.end:
                return

    def _vwap(self) -> pl.Expr:
        found = vwap().cast(pl.Decimal(38, 9)) / 10**9
        return found.cast(pl.Decimal(18, 9)).alias("vwap")

    def _folded(self, folder: Folder) -> Iterator[pl.DataFrame]:
        """The bars of all rows; by time, those of several frames are made at once."""
        counted = self.every.kind != "time"
        if (made := self._by_store()) is not None:
            self.seen = True
            return made
        worked = None if counted else self.result.worked(lambda frame: folder.part(self._legs(frame)))
        if worked is None:
            return folder.bars(map(self._legs, self.result.slabs()))
        return folder.together(worked)

    def _by_store(self) -> Iterator[pl.DataFrame] | None:
        """The bars as the store's own engine makes them, None where it does not."""
        from hdi.stores.folding import Folding

        read, clock = self.result, self.clock
        if self.source.name.name != TRADES or self.every.kind != "time" or not isinstance(self.store, Folding):
            return None
        if not isinstance(clock, Utc):  # by sessions
            return None
        return self.store.folded(read.schema, read.source, self._read, read.rectangles, self.wanted.dataset, clock)

    def _legs(self, frame: pl.DataFrame) -> pl.DataFrame:
        """What bars are made of, as :class:`hdi.folding.Folder` takes it."""
        self.seen = self.seen or frame.height > 0
        who = [*KEY] if self._dataset is None else [pl.lit(self._dataset).alias("dataset"), *KEY[1:]]
        if self.source.name.name != TRADES:
            columns = {"at": "ts_event", **PRICES, "volume": "volume", "trades": "trade_count"}
            return frame.select(*who, *legs(columns))
        traded = ((frame["action"] == _TRADED) & (frame["size"] > 0)).fill_null(value=False)
        rows = frame if traded.all() else frame.filter(traded)
        return rows.select(*who, *legs({"at": "ts_recv", "price": "price", "volume": "size"}))

    def explain(self) -> list[str]:
        """Why there is no bar: of no rows, or of some that make up none which starts in the window and is certain."""
        if not self.seen:
            return self.result.explain()
        none = f"{self.source.name.name} are stored, but no {self.every.text} bar that starts within "
        return [NOTHING, f"{none}{shown(self.window)} is whole and certain", *self.result.gaps()]

    @property
    def _unknown_then(self) -> list[str]:
        """What a store as it was known at another time has forgotten of the rejects that bars are judged by."""
        judged = self.wanted.fill or not self.source.same
        return list(getattr(self.store, "notes", ())) if judged else []

    @property
    def _certain(self) -> Certain:
        name = self.source.name.name
        coverage = self.store.coverage()
        held = claims(coverage, self.store.mappings(), name, self.wanted.dataset)
        bad = quarantined(self.store.quarantine(), self.store.ledger(), name, self._read)
        return Certain(known(held, self.result.asked, coverage), bad)

    def _sure(self, bars: pl.DataFrame, certain: Certain) -> pl.DataFrame:
        """The bars of the window that are certain; the others are counted."""
        first = "start" if self.every.kind == "time" else "first"
        bars = bars.filter(pl.col(first) >= self.window.start, pl.col(first) < self.window.end)
        if bars.is_empty():
            return bars
        until = pl.when("done").then(pl.col("last") + 1).otherwise("end")
        stretch = bars.select("dataset", "instrument_id", since="start", until=until)
        missing, spoiled = certain.missing(stretch), certain.spoiled(stretch)
        self.missing += int(missing.sum())
        self.spoiled += int((spoiled & ~missing).sum())
        good = ~(missing | spoiled)
        return bars if good.all() else bars.filter(pl.Series(good))

    def _left_out(self) -> list[str]:
        one = "row" if self.source.name.name == TRADES else "bar"
        reasons = (
            (self.spoiled, f"with a quarantined {one} of {self.source.name.name}"),
            (self.missing, f"of which not all {self.source.name.name} are stored"),
            (getattr(self.clock, "outside", 0), "outside of the sessions"),
        )
        said = [f"left out: {n} {'bar' if n == 1 else 'bars'} {why}" for n, why in reasons[:2] if n]
        return said + [f"left out: {n} {self.source.name.name} {why}" for n, why in reasons[2:] if n]


__all__ = ["ACTIVITY", "Bars", "Wanted", "adjusted_bars", "make"]

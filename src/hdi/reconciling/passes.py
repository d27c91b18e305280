"""One reading of one stored schema, and all that looks at its rows on the way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import polars as pl

from hdi.folding import PRICES
from hdi.frames import BROUGHT
from hdi.model import DAY_NS, MAX_NS, Window, cell_end, cell_start, subtract
from hdi.reconciling.bars import NOT_WHOLE, Comparer, Count, Pair, Target, chains, compared
from hdi.reconciling.checks import Check
from hdi.reconciling.findings import Collector, Scope
from hdi.reconciling.held import Asked, Books, spans
from hdi.reconciling.prices import Grid, Spikes, Ticks, prices_of
from hdi.reconciling.rows import Copies, Finder, Order, StaleBars, StaleQuotes, Twice
from hdi.reconciling.settlements import COLUMNS, HIGH, LOW, SETTLEMENT, Settlements
from hdi.schema import Schema, SchemaName, Schemas
from hdi.settings.groups import Reconcile
from hdi.stores import Store

TRADES, MINUTE_NS = "trades", 60 * 10**9
_SAME = ("ts_event", "sequence", "price", "size", "side", "action")
#: Statistics of a trading date are published after it, and corrected.
_LATER_NS = 4 * DAY_NS
Key = tuple[str, str, str]


@dataclass
class Done:
    """What one pass has found, and how much it looked at: by (check, schema, against)."""

    dataset: str
    schema: str
    found: pl.DataFrame = field(repr=False)
    counts: dict[Key, Count]
    scopes: dict[Key, Scope] = field(repr=False)
    rows: int = 0


@dataclass(frozen=True)
class Reading:
    """What passes have in common: the store, its books, the checks, and what was asked for."""

    store: Store
    schemas: Schemas
    books: Books
    checks: dict[str, Check]
    reconcile: Reconcile
    dataset: str
    asked: Asked
    #: The discrepancies of the dataset that are open.
    standing: pl.DataFrame = field(repr=False)

    def stored(self) -> list[str]:
        """The schemas of which the dataset holds something."""
        here = (pl.col("dataset") == self.dataset) & pl.col("status").is_in(BROUGHT)
        names = self.books.ledger.filter(here)["schema"].unique().to_list()
        return sorted(n for n in names if n in self.schemas.names)

    def cells(self, schema: Schema, name: SchemaName) -> Iterator[Window]:
        """The grid cells in which something was brought, cut to the window that is asked for."""
        here = (pl.col("dataset") == self.dataset) & (pl.col("schema") == name.name) & pl.col("status").is_in(BROUGHT)
        units = self.books.ledger.filter(here)
        starts: set[int] = set()
        if (units["status"] == "fragment").any():
            # The window of a fragment says nothing of where its rows lie.
            held = self.store.content(
                schema, name.name, Window(0, MAX_NS), self.asked.rectangles, DAY_NS, self.dataset
            )["at"].unique()
            starts = {cell_start(at, name.grid) for at in held}
        for start, end in units.select("start", "end").unique().iter_rows():
            starts |= {cell_start(w.start, name.grid) for w in Window(start, end).cells(name.grid)}
        for start in sorted(starts):
            cell = Window(start, cell_end(start, name.grid)).cut(self.asked.window)
            if cell is not None:
                yield cell

    def rows(self, name: str, window: Window, columns: Iterable[str]) -> Iterator[pl.DataFrame]:
        """The rows of a window as checks take them; ``columns`` by their names there."""
        schema, found = self.schemas.find(name)
        bars = PRICES if set(PRICES.values()) <= set(schema.dtypes) else {}
        wanted = {"publisher_id": "publisher_id", "instrument_id": "instrument_id", "at": schema.index_time}
        wanted |= {c: bars.get(c, c) for c in columns}
        stored = list(dict.fromkeys(wanted.values()))
        told = [_plain(schema, source).alias(told) for told, source in wanted.items()]
        for frame in self.store.read(
            schema, found.name, window, self.asked.rectangles, stored, self.dataset, ordered=False
        ):
            if frame.height:
                yield frame.select(told)

    def counted(self, schema: Schema, name: SchemaName, window: Window) -> int:
        """How many rows are stored of what was asked for."""
        found = self.store.content(schema, name.name, window, self.asked.rectangles, DAY_NS, self.dataset)
        return int(found["rows"].sum())

    def scope(self, ticks: Ticks | None = None, width: int = 1) -> Scope:
        """Judged again is what lies in what was asked for (and, with ``ticks``, has one in force)."""

        def judged(rows: pl.DataFrame) -> pl.Series:
            inside = pl.Series(self.asked.inside(spans(rows, self.dataset)))
            if ticks is None:
                return inside
            return inside & ticks.at(rows.with_columns(at="start"), width).is_not_null()

        return judged


def _plain(schema: Schema, name: str) -> pl.Expr:
    """A column as checks take it: prices and times as whole numbers."""
    declared = schema.field(name)
    if declared is not None and declared.type in ("price", "timestamp"):
        return pl.col(name).to_physical().cast(pl.Int64)
    return pl.col(name)


class _Minutes:
    """Bars that are made on the way and shown to a finder."""

    def __init__(self, finder: Spikes | None) -> None:
        self._finder = finder

    def push(self, bars: pl.DataFrame) -> None:
        """Show bars."""
        if self._finder is not None:
            self._finder.feed(bars.with_columns(at="start"))

    def finish(self) -> None:
        """A cell ends; the finder goes on in the next."""


class Pass:
    """A reading of one schema: its own rows are checked, and folded into the bars that are stored beside it."""

    def __init__(self, reading: Reading, name: str, only: Sequence[str]) -> None:
        """``only`` are the schemas that are judged; empty is every one."""
        self._reading = reading
        self._schema, self._name = reading.schemas.find(name)
        self._collector = Collector()
        self._counts: dict[Key, Count] = {}
        self._scopes: dict[Key, Scope] = {}
        self._judged = not only or name in only
        self._minutes: Spikes | None = None
        self._seen = 0
        self.finders = list(self._finders()) if self._judged else []
        self.pairs = list(self._pairs(only))

    def done(self) -> Done:
        """Read it all; what was found, and how much was looked at."""
        rows = 0
        if self.finders or self.pairs or self._minutes:
            for cell in self._reading.cells(self._schema, self._name):
                rows += self._read(cell)
            self._beyond()
        for finder in (*self.finders, *([self._minutes] if self._minutes else [])):
            finder.done()
        if self._judged:
            self._settlements()
            self._alone()
        return Done(
            self._reading.dataset, self._name.name, self._collector.found(), self._counts, self._scopes, rows
        )  # fmt: skip

    def _beyond(self) -> None:
        """Count the bars at the times of which nothing is stored that they could be compared with."""
        reading = self._reading
        held = [(cell.start, cell.end) for cell in reading.cells(self._schema, self._name)] if self.pairs else []
        for pair in self.pairs:
            schema, name = reading.schemas.find(pair.schema)
            left = [w for cell in reading.cells(schema, name) for w in subtract(cell, held)]
            rows = sum(reading.counted(schema, name, window) for window in left)
            self._counts[pair.check, pair.schema, pair.against].unjudged[NOT_WHOLE.format(pair.against)] += rows

    def _alone(self) -> None:
        """Count the bars beside which nothing finer is stored at all."""
        reading, name = self._reading, self._name
        if not name.width or not {"bars", "trade_bars"} & set(reading.checks):
            return
        others = [reading.schemas.find(n)[1] for n in reading.stored() if n != name.name]
        if any(o.name == TRADES or (0 < o.width < name.width and name.width % o.width == 0) for o in others):
            return
        count = self._counts["bars", name.name, ""] = Count()
        cells = reading.cells(self._schema, name)
        count.unjudged["nothing finer is stored"] += sum(reading.counted(self._schema, name, cell) for cell in cells)

    def _read(self, cell: Window) -> int:
        columns = dict.fromkeys(c for f in self.finders for c in f.columns)
        folds = bool(self.pairs or self._minutes)
        if folds:
            columns |= dict.fromkeys(self._folded)
        passed = self._passed(cell, list(columns))
        if not folds:
            return sum(frame.height for frame in passed)
        widths = [p.width for p in self.pairs] + ([MINUTE_NS] if self._minutes else [])
        for k, chain in enumerate(chains(widths)):
            rows = passed if k == 0 else self._reading.rows(self._name.name, cell, self._folded)
            for _ in compared(_legs(rows), self._reading.dataset, [(w, self._target(w, cell)) for w in chain]):
                pass
        return self._seen

    def _passed(self, cell: Window, columns: list[str]) -> Iterator[pl.DataFrame]:
        self._seen = 0
        for frame in self._reading.rows(self._name.name, cell, columns):
            self._seen += frame.height
            for finder in self.finders:
                finder.feed(frame)
            yield frame

    @property
    def _folded(self) -> tuple[str, ...]:
        """The columns that bars are folded of."""
        return ("price", "size") if self._name.name == TRADES else (*PRICES, "volume")

    def _target(self, width: int, cell: Window) -> Target:
        pair = next((p for p in self.pairs if p.width == width), None)
        if pair is None:
            return _Minutes(self._minutes)
        stored = (frame.rename({"at": "start"}) for frame in self._reading.rows(pair.schema, cell, (*PRICES, "volume")))
        return Comparer(pair, stored, self._collector, self._counts[pair.check, pair.schema, pair.against])

    def _pairs(self, only: Sequence[str]) -> Iterator[Pair]:
        """The stored bars that these rows add up to."""
        reading, mine = self._reading, self._name
        check = "trade_bars" if mine.name == TRADES else "bars"
        if check not in reading.checks or not (mine.width or mine.name == TRADES):
            return
        for name in reading.stored():
            _, bars = reading.schemas.find(name)
            fits = bars.width > mine.width and (not mine.width or bars.width % mine.width == 0)
            if not fits or not bars.width or bars.made_from or (only and name not in only):
                continue
            finer, own = (reading.books.certain(reading.dataset, n) for n in (mine.name, name))
            pair = Pair(check, reading.dataset, name, bars.width, mine.name, finer, own, reading.asked)
            self._counts[check, name, mine.name] = Count()
            self._scopes[check, name, mine.name] = pair.judged
            yield pair

    def _finders(self) -> Iterator[Finder]:
        """What looks at the rows themselves."""
        reading, schema, name, own = self._reading, self._schema, self._name, self._collector
        reconcile, there, bars = reading.reconcile, set(self._schema.dtypes), "open_price" in self._schema.dtypes
        found: list[tuple[Finder, str, Scope]] = []
        scope, window, standing = reading.scope(), reading.asked.window, reading.standing
        if prices := (prices_of(there) if "tick_size" in reading.checks and schema.volume else {}):
            ticks = Ticks.of(reading.store, reading.dataset, window, reading.asked.rectangles)
            width = max(name.width, 1)
            found.append((Grid(name.name, own, ticks, prices, width), "definition", reading.scope(ticks, width)))
        if bars:
            found += [(f, "", scope) for f in (
                Twice(name.name, own, name.width), StaleBars(name.name, own, name.width, reconcile.stale_bars),
            )]  # fmt: skip
            if name.width:
                found.append((Spikes(name.name, own, name.width, reconcile.spike_moves, standing), "", scope))
        elif schema.volume:
            same = tuple(c for c in _SAME if c in there)
            copies = Copies(name.name, own, window, same, reconcile.copies_percent, reconcile.copies_least)
            found.append((copies, "", scope))
            if {"sequence", "ts_event"} <= there and schema.index_time != "ts_event":
                found.append((Order(name.name, own, standing, flags="flags" in there), "", scope))
            if set(StaleQuotes.columns) <= there:
                found.append((StaleQuotes(name.name, own, window, reconcile.stale_quotes), "", scope))
            if name.name == TRADES and "price_spike" in reading.checks and "ohlcv-1m" not in reading.stored():
                self._minutes = Spikes(name.name, own, MINUTE_NS, reconcile.spike_moves, standing)
                key = (self._minutes.check, name.name, "")
                self._counts[key], self._scopes[key] = self._minutes.count, _certain(scope, self._minutes)
        for finder, against, judged in found:
            if finder.check in reading.checks:
                key = (finder.check, name.name, against)
                self._counts[key], self._scopes[key] = finder.count, _certain(judged, finder)
                yield finder

    def _settlements(self) -> None:
        """Statistics are few: they are looked at month by month, together with the daily bars of the time."""
        reading = self._reading
        wanted = frozenset(n for n in reading.checks if n.startswith("settlement"))
        if self._name.name != "statistics" or not wanted or not set(COLUMNS) <= set(self._schema.dtypes):
            return
        bars = "ohlcv-1d" in reading.stored()
        looked = wanted if bars else wanted - {"settlement_bar"}
        reconcile = reading.reconcile
        judge = Settlements(self._collector, looked, reconcile.settlement_ranges, reconcile.settlement_volume)
        since = reading.asked.window.start
        for cell in reading.cells(self._schema, self._name):
            # What is published in a month that follows none is of dates before it, too.
            self._month(judge, cell, since, bars=bars)
            since = cell.end
        for name, count in judge.counts.items():
            against = "ohlcv-1d" if name == "settlement_bar" else "statistics"
            self._counts[name, self._name.name, against] = count
            self._scopes[name, self._name.name, against] = reading.scope()

    def _month(self, judge: Settlements, cell: Window, since: int, *, bars: bool) -> None:
        """The trading dates of a month, with what is published of them after it."""
        after = Window(cell.start, min(cell.end + _LATER_NS, MAX_NS))
        kinds = pl.col("stat_type").is_in([SETTLEMENT, LOW, HIGH])
        dated = pl.col("ts_ref").is_null() | ((pl.col("ts_ref") >= since) & (pl.col("ts_ref") < cell.end))
        frames = [f.filter(kinds, dated) for f in self._reading.rows(self._name.name, after, COLUMNS)]
        rows = pl.concat(f for f in frames if f.height) if any(f.height for f in frames) else None
        if rows is None:
            return
        days = None
        if bars:
            eve = Window(max((max(since, cell.start - 31 * DAY_NS) // DAY_NS - 1) * DAY_NS, 0), cell.end)
            read = list(self._reading.rows("ohlcv-1d", eve, ("high", "low", "volume")))
            days = pl.concat(read) if read else None
        judge.look(rows.sort("at", maintain_order=True), days)


def _certain(scope: Scope, finder: Finder) -> Scope:
    """Of a scope what the finder could judge, or did not see: a row that is gone contradicts nothing any more."""
    return lambda rows: scope(rows) & ~finder.doubtful(rows)


def _legs(rows: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Rows as they are folded into bars."""
    for frame in rows:
        who = ("publisher_id", "instrument_id", "at")
        if "price" in frame.columns:
            yield frame.select(*who, "price", volume="size")
        else:
            yield frame.select(*who, *PRICES, "volume", trades=pl.lit(None, pl.Int64))


__all__ = ["Done", "Pass", "Reading"]

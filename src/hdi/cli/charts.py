"""Rows as a picture: what of them is drawn, panel by panel, before it is known how.

A bar is a candle, a trade a dot by its side, a quote two steps, a statistic a step. Each asked symbol has a panel; of a
parent, or of ALL_SYMBOLS, each contract has one. Positions are approximate, as ink is; every number that is written is
exact.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import polars as pl

from hdi.cli.answers import HERE
from hdi.cli.charts_axis import Clock
from hdi.cli.charts_thin import CANDLES, POINTS, Candles, Points, changes, width_text
from hdi.cli.plots import kind_of
from hdi.errors import RequestError
from hdi.model import ns_date
from hdi.resample import FILLED

if TYPE_CHECKING:
    from hdi.answer import Answer

Unit = Literal["price", "quantity"]
_BARS = ("open_price", "high_price", "low_price", "close_price", "volume")
_QUOTES = ("bid_px_00", "ask_px_00")
_TRADES = ("price", "size", "side")
_STATISTICS = ("stat_type", "stat_name", "price", "quantity")
_KEY = ("dataset", "publisher_id")
#: Where bars that were filled in say so.
_SOURCE = "data_source"
#: What is read of an answer, as far as it has it.
_NEEDED = {
    *_KEY, "instrument_id", "symbol", "ts_event", "ts_recv", "action", "update_action", _SOURCE, *_BARS, *_QUOTES,
    *_TRADES, *_STATISTICS,
}  # fmt: skip
#: The words for sides, and the names of the series.
SIDES = {"B": "trades, buyer", "A": "trades, seller", "N": "trades, no side"}
BID, ASK = "bid", "ask"
_TRADED = "T"
#: Rows that become marks at a time.
_AT_ONCE = 131_072
_DELETED = 2


@dataclass(frozen=True)
class Room:
    """What a kind of picture has room for: candles beside each other, stretches of time, and panels."""

    candles: int
    stretches: int
    panels: int


_ROOM = {"html": Room(2_000, 2_000, 12), "png": Room(480, 1_600, 8)}


@dataclass(frozen=True)
class Panel:
    """One chart of its own axes. It has candles (:data:`charts_thin.CANDLES`), or points (:data:`charts_thin.POINTS`).

    ``rolls`` are ``(row of candles or points, at, contract before, contract after)``. ``stepped`` names the series that
    are lines; the others are dots.
    """

    title: str
    unit: Unit
    candles: pl.DataFrame | None = None
    points: pl.DataFrame | None = None
    rolls: list[tuple[int, int, str, str]] = field(default_factory=list)
    stepped: frozenset[str] = frozenset()

    @property
    def clock(self) -> Clock:
        """Where its points stand: halts of trading take no room, while a statistic is in force at any time."""
        ats = pl.Series(dtype=pl.Int64) if self.points is None else self.points["at"]
        return Clock.of(ats, cut=BID in self.series or not self.stepped.issuperset(self.series))

    @property
    def series(self) -> list[str]:
        """The names of the series, quotes first, in a steady order."""
        if self.points is None:
            return []
        order = [BID, ASK, *SIDES.values()]
        found = set(self.points["series"].unique())
        return [*(s for s in order if s in found), *sorted(found - set(order))]


@dataclass
class Picture:
    """What is drawn. ``notes`` are what the marks do not tell; ``rows`` is how many rows they stand for.

    ``empty`` are the symbols that no row was found of.
    """

    title: str
    synthetic: bool
    panels: list[Panel] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    rows: int = 0
    seconds: float = 0.0
    empty: list[str] = field(default_factory=list)


def draw(
    plot: str, parts: Sequence[tuple[str, Answer]], *, title: str, limit: int | None = None, synthetic: bool = False,
    color: bool = False,
) -> Picture:  # fmt: skip
    """Draw answers, each of one asked symbol, into a file, or (``-``) in text on standard output.

    Raises RequestError for rows that there is no picture of, and more panels than there is room for. Nothing is drawn
    where there is no row.
    """
    began = time.perf_counter()
    if plot == HERE:
        from hdi.cli import charts_text

        room = Room(charts_text.room(), 8 * charts_text.room(), 4)
    else:
        room = _ROOM[kind_of(plot)]
    picture = sketched(parts, room, title=title, limit=limit, synthetic=synthetic)
    if picture.panels:
        _rendered(picture, plot, color=color)
    picture.seconds = time.perf_counter() - began
    return picture


def _rendered(picture: Picture, plot: str, *, color: bool) -> None:
    if plot == HERE:
        from hdi.cli.charts_text import put_text

        put_text(picture, color=color)
        return
    from hdi.cli.plots import save

    if kind_of(plot) == "html":
        from hdi.cli.charts_html import figure
    else:
        from hdi.cli.charts_png import figure
    save(figure(picture), plot)


def sketched(
    parts: Sequence[tuple[str, Answer]], room: Room, *, title: str, limit: int | None = None, synthetic: bool = False
) -> Picture:
    """The picture of answers: every row is read, and what is kept of them is bounded by the room."""
    picture = Picture(title, synthetic)
    sketches: list[_Sketch] = []
    for symbol, answer in parts:
        sketch = _sketch(symbol, answer, room, title)
        left = limit
        reading = answer.narrowed([c for c in answer.columns if c in _NEEDED])
        reading = reading if limit is None else reading.limited_to(limit + 1)
        for frame in reading.frames():
            taken = frame if left is None else frame.head(left)
            left = None if left is None else left - frame.height
            for part in taken.iter_slices(_AT_ONCE):
                sketch.add(part)
            if left is not None and left < 0:
                picture.notes.append(f"{symbol}: there are more rows; --limit {limit} cut them off")
                break
        picture.notes += reading.notes
        picture.panels += sketch.panels(picture.notes)
        picture.rows += sketch.rows - sketch.left
        picture.empty += [] if sketch.rows else [symbol]
        sketches.append(sketch)
        if len(picture.panels) > room.panels:
            raise _too_many(room)
    picture.notes = list(dict.fromkeys(picture.notes))
    picture.title += _when([at for sketch in sketches for at in sketch.span])
    return picture


def _when(ats: Sequence[int]) -> str:
    """The days of the rows; a candle may begin before its first one, and ends after it."""
    if not ats:
        return ""
    first, last = ns_date(min(ats)), ns_date(max(ats))
    return f", {first}" if first == last else f", {first} to {last}"


def _too_many(room: Room) -> RequestError:
    return RequestError(
        f"these are more than the {room.panels} panels that a picture has room for",
        "Name fewer symbols, or contracts instead of a parent; an .html has room for the most.",
    )


def _sketch(symbol: str, answer: Answer, room: Room, title: str) -> _Sketch:
    """How rows of these columns are drawn. Raises RequestError where they are not."""
    has = set(answer.columns)
    if has.issuperset(_BARS):
        return _Bars(symbol, answer, room)
    if has.issuperset(_STATISTICS):
        return _Statistics(symbol, answer, room)
    if has.issuperset(_QUOTES) or has.issuperset(_TRADES):
        return _Ticks(symbol, answer, room)
    raise RequestError(
        f"there is no picture of {title}",
        "Drawn are bars (ohlcv-*), trades, quotes (tbbo, mbp-*, bbo-*, ...) and statistics.",
    )


class _Sketch(ABC):
    """Rows of one asked symbol, panel by panel, as they stream by."""

    def __init__(self, symbol: str, answer: Answer, room: Room) -> None:
        from hdi.lookup import ALL_SYMBOLS
        from hdi.symbology import infer_stype

        self._symbol = symbol
        self._room = room
        self._columns = answer.columns
        self._index = "ts_recv" if "ts_recv" in answer.columns else "ts_event"
        several = symbol.upper() == ALL_SYMBOLS or infer_stype(symbol) == "parent"
        self._by = [*(c for c in _KEY if c in answer.columns), *(["symbol"] if several else [])]
        self._marks: dict[tuple[object, ...], Candles | Points] = {}
        #: Rows that came, and those of them that are not drawn; the first time and the last.
        self.rows, self.left = 0, 0
        self.span: tuple[int, ...] = ()

    def add(self, frame: pl.DataFrame) -> None:
        """Take more rows."""
        told = pl.col("symbol").fill_null(pl.col("instrument_id").cast(pl.String)) if "symbol" in frame.columns else ""
        named = frame.with_columns(told, pl.col(self._index).to_physical().alias("at"))
        if not named.height:
            return
        self.rows += named.height
        ats = [int(named["at"].min()), int(named["at"].max())]  # type: ignore[arg-type]  # the time of a row is never null
        self.span = (min(*self.span, *ats), max(*self.span, *ats))
        parts = named.partition_by(self._by, maintain_order=True, as_dict=True) if self._by else {(): named}
        for key, part in parts.items():
            for more, marks in self._marked(part):
                self._of((*key, *more)).add(marks)

    def _of(self, key: tuple[object, ...]) -> Candles | Points:
        if key not in self._marks:
            if len(self._marks) >= self._room.panels:
                raise _too_many(self._room)
            self._marks[key] = self._new()
        return self._marks[key]

    def _new(self) -> Candles | Points:
        return Points(self._room.stretches)

    @abstractmethod
    def _marked(self, part: pl.DataFrame) -> Iterator[tuple[tuple[object, ...], pl.DataFrame]]:
        """What is drawn of one panel's rows, with what else its key has."""

    def _title(self, key: tuple[object, ...]) -> str:
        """The symbol, and what tells the panel from the symbol's others."""
        said = dict(zip(self._by, key, strict=False))
        name = str(said.pop("symbol", self._symbol))
        shared = [c for c in said if len({k[self._by.index(c)] for k in self._marks}) > 1]
        more = [f"publisher {said[c]}" if c == "publisher_id" else str(said[c]) for c in shared]
        return " ".join([name, *more])

    def _tell_left(self, notes: list[str], why: tuple[str, str]) -> None:
        if self.left:
            rows = f"{self.left:,} row" + "s" * (self.left > 1)
            notes.append(f"{self._symbol}: not drawn: {rows}, which {why[self.left > 1]}")

    @abstractmethod
    def panels(self, notes: list[str]) -> list[Panel]:
        """The panels, and what was thinned of them among the notes."""


class _Bars(_Sketch):
    def _new(self) -> Candles | Points:
        return Candles(self._room.candles)

    def _marked(self, part: pl.DataFrame) -> Iterator[tuple[tuple[object, ...], pl.DataFrame]]:
        opened, high, low = (pl.col(f"{c}_price") for c in ("open", "high", "low"))
        flat = (pl.col("volume") == 0) & (opened == high) & (low == high)
        yield (), part.select(
            "at", "symbol", *(pl.col(f"{c}_price").alias(c) for c in ("open", "high", "low", "close")), "volume",
            filled=pl.col(_SOURCE) == FILLED if _SOURCE in part.columns else flat,
            bars=pl.lit(1, pl.Int64),
        ).cast(CANDLES)  # type: ignore[arg-type]  # fmt: skip

    def panels(self, notes: list[str]) -> list[Panel]:
        found = []
        for key, marks in self._marks.items():
            candles = marks.made()
            if marks.width:
                notes.append(
                    f"{self._title(key)}: {candles['bars'].sum():,} bars are drawn as {candles.height:,} candles of up "
                    f"to {width_text(marks.width)} each, with their first, highest, lowest and last prices"
                )
            found.append(Panel(self._title(key), "price", candles=candles, rolls=changes(candles)))
        return found


class _Ticks(_Sketch):
    def _marked(self, part: pl.DataFrame) -> Iterator[tuple[tuple[object, ...], pl.DataFrame]]:
        has = set(part.columns)
        series = []
        if has.issuperset(_QUOTES):
            series += [
                part.select("at", "symbol", series=pl.lit(name), value=column, size=pl.lit(None, pl.Int64))
                for name, column in zip((BID, ASK), _QUOTES, strict=True)
            ]
        # What lies between snapshots is in them as a last trade, at a time of its own.
        if has.issuperset(_TRADES) and ("action" in has or not has.issuperset(_QUOTES)):
            trades = part.filter(pl.col("action") == _TRADED) if "action" in has else part
            self.left += 0 if has.issuperset(_QUOTES) else part.height - trades.height
            side = pl.col("side").replace_strict(SIDES, default=SIDES["N"])
            series.append(trades.select("at", "symbol", series=side, value="price", size="size"))
        yield (), pl.concat([s.cast(POINTS) for s in series]).sort("at", maintain_order=True)  # type: ignore[arg-type]

    def panels(self, notes: list[str]) -> list[Panel]:
        self._tell_left(notes, ("is no trade and has no quote", "are no trades and have no quotes"))
        return [
            _stepped(self._title(key), "price", points, frozenset({BID, ASK}))
            for key, points in _thinned(self._marks, self._title, notes)
        ]


class _Statistics(_Sketch):
    def _marked(self, part: pl.DataFrame) -> Iterator[tuple[tuple[object, ...], pl.DataFrame]]:
        name = pl.col("stat_name").fill_null(pl.col("stat_type").cast(pl.String))
        known = pl.col("price").is_not_null() | pl.col("quantity").is_not_null()
        kept = part.filter(known, pl.col("update_action") != _DELETED if "update_action" in part.columns else True)
        self.left += part.height - kept.height
        for unit in ("price", "quantity"):
            said = kept.filter(pl.col(unit).is_not_null())
            if said.height:
                yield (unit,), said.select(
                    "at", "symbol", series=name, value=pl.col(unit).cast(POINTS["value"]), size=pl.lit(None, pl.Int64)
                ).cast(POINTS)  # type: ignore[arg-type]  # fmt: skip

    def panels(self, notes: list[str]) -> list[Panel]:
        self._tell_left(notes, ("deletes a statistic, or has no value", "delete a statistic, or have no value"))
        found = []
        for key, points in _thinned(self._marks, self._title, notes):
            unit: Unit = "price" if key[-1] == "price" else "quantity"
            words = "prices" if unit == "price" else "quantities"
            stepped = frozenset(points["series"].unique())
            found.append(_stepped(f"{self._title(key)}: {words}", unit, points, stepped))
        return found


def _stepped(title: str, unit: Unit, points: pl.DataFrame, stepped: frozenset[str]) -> Panel:
    """A panel of points, in which no line goes on from one contract to the next."""
    rolls = changes(points)
    lines = stepped.intersection(points["series"].unique())
    ends = [{"at": at, "symbol": after, "series": name} for _, at, _, after in rolls for name in sorted(lines)]
    cut = pl.DataFrame(ends, schema={c: POINTS[c] for c in ("at", "symbol", "series")})
    broken = pl.concat([cut.match_to_schema(POINTS, missing_columns="insert"), points]).sort("at", maintain_order=True)
    return Panel(title, unit, points=broken, rolls=rolls, stepped=stepped)


def _thinned(
    marks: dict[tuple[object, ...], Candles | Points], title: Callable[[tuple[object, ...]], str], notes: list[str]
) -> Iterator[tuple[tuple[object, ...], pl.DataFrame]]:
    for key, each in marks.items():
        points = each.made()
        if each.width and isinstance(each, Points):
            notes.append(
                f"{title(key)}: {points.height:,} points of {each.taken:,} are drawn: the first, last, highest "
                f"and lowest of each {width_text(each.width)}"
            )
        if points.height:
            yield key, points


__all__ = ["ASK", "BID", "SIDES", "Panel", "Picture", "Room", "Unit", "draw", "sketched"]

"""Trades with the quote that was in force just before each of them, joined as both stream by.

A quote belongs to the trades of its dataset, publisher and instrument; one that is consolidated of several venues to
those of its dataset and instrument. In force is

* the quote that the trade's own message carries, where the quotes hold it (``action`` T, the same index time, sequence,
  price and size; where quotes have no sequence, the same event time; of several the first belongs to the first trade).
  A trade does not change the book, so this is the book just before the trade took effect. Its age is 0;
* else the last quote with an earlier index time. One with the same index time may be what the trade left behind, and
  does not count.

A quote that is older than the tolerance counts for nothing, so that an answer does not depend on where its window
starts: quotes from before it are looked for as far back as the tolerance reaches, and no further. Nor does one count
after which something may lack: a stretch whose quotes are not stored whole (never ingested, or a fragment), or a quote
in quarantine. What was in force then is not known.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl

from hdi.answer import Answer, Rows, picked
from hdi.errors import RequestError
from hdi.frames import BROUGHT
from hdi.model import DAY_NS, UNITS, Window, iso_ns
from hdi.resample import covered, spoiled
from hdi.schema import Schema, SchemaName, Schemas, closest
from hdi.series.in_force import AT, KEY, QUOTE_AT, Known, Merge, Reads, Terms

if TYPE_CHECKING:
    from hdi.query import Result

#: Schemas with quotes, the finest first: every change of the top, every trade, every second, every minute.
FINEST = ("mbp-1", "cmbp-1", "mbp-10", "tbbo", "tcbbo", "bbo-1s", "cbbo-1s", "bbo-1m", "cbbo-1m")
#: The greatest age of a quote, unless another is given.
TOLERANCE = DAY_NS
_TOLD = ("bid_px_00", "ask_px_00")
_QUOTED = re.compile(r"(bid|ask)_(px|sz|ct|pb)_\d\d")
_FIRST_LEVEL = "_00"
_OF_TRADES = {"ts_event", "price", "size", "sequence"}
_CONSOLIDATED = "bid_pb_00"
_WIDTH = re.compile(r"(\d+) ?(ns|us|ms|s|m|h|d)")
#: Added to the columns of the trade and of the quote: when the quote came, and how long before the trade.
QUOTE_TIME, QUOTE_AGE = "quote_ts_recv", "quote_age_ns"
_TIME = pl.Datetime("ns", "UTC")


def join(
    trades: Result, schemas: Schemas, *, quotes: str | None = None, tolerance: str | dt.timedelta | None = None,
    columns: Sequence[str] = (),
) -> Joined:  # fmt: skip
    """The trades of a query's result, each with its quote; quotes and rows are read when the answer is.

    Raises RequestError for a schema that has no quotes, an unknown column, and where no quotes are stored.
    """
    if set(_TOLD) & set(trades.schema.dtypes) or _OF_TRADES - set(trades.schema.dtypes):
        why = "has its own quotes" if _TOLD[0] in trades.schema.dtypes else "has no trades"
        raise RequestError(f"{trades.name.name} {why}", 'Join trades: trades="trades".')
    reach = TOLERANCE if tolerance is None else width_ns(tolerance)
    schema, name = _finest(trades, schemas) if quotes is None else schemas.find(quotes)
    if not set(_TOLD) <= set(schema.dtypes):
        known = [n for s in schemas for n in s.names if set(_TOLD) <= set(s.dtypes)]
        raise RequestError(f"{name.name} has no quotes", closest(name.name, sorted(known)))
    possible = {**trades.schema.dtypes, **_quoted(schema), QUOTE_TIME: _TIME, QUOTE_AGE: pl.Int64()}
    for column in columns:
        if column not in possible:
            raise RequestError(
                f"unknown column {column!r} of {trades.name.name} with {name.name}", closest(column, possible)
            )
    shown = columns or [c for c in possible if not _QUOTED.fullmatch(c) or c.endswith(_FIRST_LEVEL)]
    quoted = _Quotes(schema, name, reach, finest=quotes is None)
    return Joined(trades, quoted, {c: possible[c] for c in shown})


def width_ns(width: str | dt.timedelta) -> int:
    """Nanoseconds of ``"10s"``, ``"5m"``, ``"1h"`` or a ``timedelta``. RequestError for what is none."""
    if isinstance(width, dt.timedelta):
        ns = (width // dt.timedelta(microseconds=1)) * 1_000
    else:
        found = _WIDTH.fullmatch(str(width).strip())
        ns = int(found[1]) * UNITS[found[2]] if found else 0
    if not 0 < ns <= 366 * DAY_NS:
        raise RequestError(
            f"{width!r} is not a tolerance", "Write a number and ns, us, ms, s, m, h or d, such as 10s; up to a year."
        )
    return ns


def _quoted(schema: Schema) -> dict[str, pl.DataType]:
    return {c: t for c, t in schema.dtypes.items() if _QUOTED.fullmatch(c)}


def _finest(trades: Result, schemas: Schemas) -> tuple[Schema, SchemaName]:
    """The finest quotes of which something is held of these instruments in the window."""
    window, held = trades.query.window, trades.rectangles
    store = trades.store
    here = (pl.col("start") < window.end) & (pl.col("end") > window.start)
    if trades.query.dataset is not None:
        here &= pl.col("dataset") == trades.query.dataset
    coverage = store.coverage().filter(here).drop_nulls("instrument_id")
    if held is not None:
        coverage = coverage.join(held, on=list(KEY), suffix="_asked").filter(
            pl.col("start") < pl.col("end_asked"), pl.col("end") > pl.col("start_asked")
        )
    ledger = store.ledger().filter(here, pl.col("status").is_in(BROUGHT), pl.col("stored") > 0)
    whole = ledger.filter(pl.col("status") == "complete")["schema"].unique()
    found = {*coverage["schema"].unique()} & {*whole}
    found |= {*ledger.filter(pl.col("status") == "fragment")["schema"].unique()}
    for name in (n for n in FINEST if n in found and n in schemas.names):
        return schemas.find(name)
    others = sorted({*ledger["schema"].unique()} & {*FINEST})
    raise RequestError(
        f"no quotes are stored of {', '.join(trades.query.symbols)} from {iso_ns(window.start)} to "
        f"{iso_ns(window.end)}",
        f"Of others there: {', '.join(others)}."
        if others
        else "Ingest some first: hdi ingest --schema mbp-1, or tbbo.",
    )


@dataclass(frozen=True)
class _Quotes:
    """The quotes to join: what they are stored as, and how old they may be."""

    schema: Schema
    name: SchemaName
    reach: int
    finest: bool

    def terms(self, columns: Sequence[str] = ()) -> Terms:
        """On which terms trades get these columns of them."""
        own: tuple[str, ...] = ()
        if "action" in self.schema.dtypes:
            own = ("sequence" if "sequence" in self.schema.dtypes else "ts_event", "price", "size")
        key = KEY if _CONSOLIDATED in self.schema.dtypes else (*KEY, "publisher_id")
        return Terms(key, own, tuple(columns), self.reach)


@dataclass(repr=False)
class Joined(Answer):
    """Trades with their quotes: columns of the trade, of the quote, and ``quote_ts_recv`` and ``quote_age_ns``.

    Where no quote was in force those of the quote are null. ``trades`` is the query of the trades alone.
    """

    trades: Result
    quotes: _Quotes
    columns: dict[str, pl.DataType]
    notes: list[str] = field(default_factory=list)

    def frames(self) -> Iterator[pl.DataFrame]:
        """See :meth:`hdi.answer.Answer.frames`; rows are in the order of the trades."""
        self.notes = []
        quotes, terms = self.quotes, self.quotes.terms(self._of_quotes())
        trades = self.trades.narrowed(self._of_trades())
        if quotes.finest:
            self.notes.append(f"quotes are those of {quotes.name.name}, the finest that is stored")
        rows = without = broken = 0
        shown = self._shown()
        known = self._known()
        merge = Merge(terms, trades.query.window, trades.rectangles)
        kinds = {c: quotes.schema.dtypes[c] for c in terms.read}
        with contextlib.closing(merge.frames(_timed(trades), trades.columns, self._reads(terms), kinds)) as frames:
            for found in frames:
                frame = known.kept(found, terms.columns)
                rows += frame.height
                without += found[QUOTE_AT].null_count()
                broken += frame[QUOTE_AT].null_count() - found[QUOTE_AT].null_count()
                yield frame.select(shown)
        self.notes += trades.notes
        if without:
            self.notes.append(f"{without} of {rows} trades had no quote in force")
        if broken:
            self.notes.append(f"{broken} of {rows} trades come after quotes that are not stored, and got none")
        self.notes += [f"quotes: {line}" for line in self.trades.beside(quotes.schema, quotes.name).gaps()]

    def _known(self) -> Known:
        store, name, window = self.trades.store, self.quotes.name.name, self.trades.query.window
        reached = Window(max(window.start - self.quotes.reach, 0), window.end)
        held = covered(store.coverage(), store.mappings(), name)
        return Known(held, spoiled(store.quarantine(), name, reached, width=1))

    def _reads(self, terms: Terms) -> Reads:
        schema, name, trades = self.quotes.schema, self.quotes.name.name, self.trades
        columns = list(dict.fromkeys([schema.index_time, *terms.read]))
        at = pl.col(schema.index_time).to_physical().alias(AT)

        # Without an order the quotes of several publishers would not come in that of time.
        ordered = "publisher_id" not in terms.key

        def read(window: Window, held: pl.DataFrame | None) -> Iterator[pl.DataFrame]:
            dataset = trades.query.dataset
            for frame in trades.store.read(schema, name, window, held, columns, dataset, ordered=ordered):
                yield frame.select(at, *terms.read)

        return read

    def narrowed(self, columns: Sequence[str]) -> Joined:
        """See :meth:`hdi.answer.Answer.narrowed`: neither trades nor quotes are read with more than it takes."""
        return Joined(self.trades, self.quotes, picked(self.columns, columns))

    def limited_to(self, rows: int) -> Joined:
        """See :meth:`hdi.answer.Answer.limited_to`: reading of both stops there."""
        return Joined(self.trades.limited_to(rows), self.quotes, self.columns)

    @property
    def timed_by(self) -> str | None:  # type: ignore[override]  # what the trades are by
        """See :attr:`hdi.answer.Answer.timed_by`."""
        return self.trades.timed_by

    def between(self, first: int | None, end: int | None) -> Answer:
        """See :meth:`hdi.answer.Answer.between`: quotes are looked for from before it all the same."""
        trades = self.trades.between(first, end)
        if isinstance(trades, type(self.trades)):
            return Joined(trades, self.quotes, self.columns)
        return Rows(pl.DataFrame(schema=self.columns), trades.notes)

    def explain(self) -> list[str]:
        """Why there is no trade: the lines to show."""
        return self.trades.explain()

    def __repr__(self) -> str:
        return f"<trades with quotes of {self.quotes.name.name}: {self.trades!r}>"

    def _of_trades(self) -> list[str]:
        known, terms = self.trades.schema.dtypes, self.quotes.terms()
        needed = [*self.columns, self.trades.schema.index_time, *terms.key, *terms.own]
        return [c for c in dict.fromkeys(needed) if c in known]

    def _of_quotes(self) -> list[str]:
        return [c for c in self.columns if c in _quoted(self.quotes.schema)]

    def _shown(self) -> list[pl.Expr]:
        made = {
            QUOTE_TIME: pl.col(QUOTE_AT).cast(_TIME).alias(QUOTE_TIME),
            QUOTE_AGE: (pl.col(AT) - pl.col(QUOTE_AT)).alias(QUOTE_AGE),
        }
        return [made.get(c, pl.col(c)) for c in self.columns]


def _timed(trades: Result) -> Generator[pl.DataFrame]:
    at = pl.col(trades.schema.index_time).to_physical().alias(AT)
    for frame in trades.frames():
        yield frame.select(at, *trades.columns)


__all__ = ["Joined", "join"]

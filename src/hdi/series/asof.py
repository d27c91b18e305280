"""Trades with the quote that was in force just before each of them, joined as both stream by.

A quote belongs to the trades of its dataset, publisher and instrument; one that is consolidated of several venues to
those of its dataset and instrument. In force is

* the quote that the trade's own message carries, where the quotes hold it (``action`` T, the same index time and
  sequence; where quotes have no sequence, the same event time, price and size; of several the first belongs to the
  first trade): the book just before the trade took effect. Its age is 0;
* else the last quote with an earlier index time. One with the same index time may be what the trade left behind, and
  does not count.

A quote that is older than the tolerance counts for nothing, so that an answer does not depend on where its window
starts: quotes from before it are looked for as far back as the tolerance reaches, and no further.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import polars as pl

from hdi.answer import Answer
from hdi.errors import RequestError
from hdi.frames import BROUGHT
from hdi.lookup import RECTANGLES, Asked, union
from hdi.model import DAY_NS, MAX_NS, Window, iso_ns
from hdi.schema import Schema, SchemaName, Schemas, closest

if TYPE_CHECKING:
    from hdi.query import Result

#: Schemas with quotes, the finest first: every change of the top, every trade, every second, every minute.
FINEST = ("mbp-1", "cmbp-1", "mbp-10", "tbbo", "tcbbo", "bbo-1s", "cbbo-1s", "bbo-1m", "cbbo-1m")
#: The greatest age of a quote, unless another is given.
TOLERANCE = DAY_NS
#: Rows that are joined at once, about: frames that are smaller wait for the next.
_AT_ONCE = 1 << 19
_TOLD = ("bid_px_00", "ask_px_00")
_QUOTED = re.compile(r"(bid|ask)_(px|sz|ct|pb)_\d\d")
_FIRST_LEVEL = "_00"
_CONSOLIDATED = "bid_pb_00"
_WIDTH = re.compile(r"(\d+) ?(ns|us|ms|s|m|h|d)")
_NS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3_600 * 10**9, "d": DAY_NS}
#: Added to the columns of the trade and of the quote: when the quote came, and how long before the trade.
QUOTE_TIME, QUOTE_AGE = "quote_ts_recv", "quote_age_ns"
_KEY = ("dataset", "instrument_id")
_AT, _QUOTE_AT, _OWN_AT, _NTH = "_at", "_quote_at", "_own_at", "_nth"
_NTH_ROW = pl.int_range(pl.len()).alias(_NTH)
_TIME = pl.Datetime("ns", "UTC")
_RECTANGLES = pl.Schema(RECTANGLES)
_LOOKED: dict[str, pl.DataType] = {c: RECTANGLES[c] for c in (*_KEY, "start")}


def join(
    trades: Result, schemas: Schemas, *, quotes: str | None = None, tolerance: str | dt.timedelta | None = None,
    columns: Sequence[str] = (),
) -> Joined:  # fmt: skip
    """The trades of a query's result, each with its quote; quotes and rows are read when the answer is.

    Raises RequestError for a schema that has no quotes, an unknown column, and where no quotes are stored.
    """
    if set(_TOLD) & set(trades.schema.dtypes) or not {"price", "size"} <= set(trades.schema.dtypes):
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
        ns = int(found[1]) * _NS[found[2]] if found else 0
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
        coverage = coverage.join(held, on=list(_KEY), suffix="_asked").filter(
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

    @property
    def key(self) -> list[str]:
        """What a quote shares with its trades."""
        return [*_KEY, *([] if _CONSOLIDATED in self.schema.dtypes else ["publisher_id"])]

    @property
    def told(self) -> list[str]:
        """What, beside the key and the index time, a trade and its own message share; none where there are none."""
        if "action" not in self.schema.dtypes:
            return []
        return ["sequence"] if "sequence" in self.schema.dtypes else ["ts_event", "price", "size"]


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
        quotes, trades = self.quotes, self.trades.narrowed(self._of_trades())
        if quotes.finest:
            self.notes.append(f"quotes are those of {quotes.name.name}, the finest that is stored")
        rows = without = 0
        shown = self._shown()
        with contextlib.closing(_Merge(trades, quotes, self._of_quotes()).frames()) as frames:
            for frame in frames:
                rows += frame.height
                without += frame[_QUOTE_AT].null_count()
                yield frame.select(shown)
        self.notes += trades.notes
        if without:
            self.notes.append(f"{without} of {rows} trades had no quote in force")
        self.notes += [f"quotes: {line}" for line in self.trades.beside(quotes.schema, quotes.name).gaps()]

    def narrowed(self, columns: Sequence[str]) -> Joined:
        """See :meth:`hdi.answer.Answer.narrowed`: neither trades nor quotes are read with more than it takes."""
        return Joined(self.trades, self.quotes, {c: self.columns[c] for c in columns})

    def limited_to(self, rows: int) -> Joined:
        """See :meth:`hdi.answer.Answer.limited_to`: reading of both stops there."""
        return Joined(self.trades.limited_to(rows), self.quotes, self.columns)

    def explain(self) -> list[str]:
        """Why there is no trade: the lines to show."""
        return self.trades.explain()

    def __repr__(self) -> str:
        return f"<trades with quotes of {self.quotes.name.name}: {self.trades!r}>"

    def _of_trades(self) -> list[str]:
        own = self.trades.schema.dtypes
        needed = [*self.quotes.key, self.trades.schema.index_time, *self.quotes.told]
        return list(dict.fromkeys([*(c for c in self.columns if c in own), *(c for c in needed if c in own)]))

    def _of_quotes(self) -> list[str]:
        return [c for c in self.columns if c in _quoted(self.quotes.schema)]

    def _shown(self) -> list[pl.Expr]:
        made = {
            QUOTE_TIME: pl.col(_QUOTE_AT).cast(_TIME).alias(QUOTE_TIME),
            QUOTE_AGE: (pl.col(_AT) - pl.col(_QUOTE_AT)).alias(QUOTE_AGE),
        }
        return [made.get(c, pl.col(c)) for c in self.columns]


class _Merge:
    """One reading of two streams in the order of time, each held no longer than the other has not passed it."""

    def __init__(self, trades: Result, quotes: _Quotes, columns: Sequence[str]) -> None:
        self._trades, self._quotes = trades, quotes
        self._window, self._dataset = trades.query.window, trades.query.dataset
        self._key, self._columns = quotes.key, list(columns)
        self._own = [*self._key, _AT, *quotes.told] if set(quotes.told) <= set(trades.columns) and quotes.told else []
        self._read = list(dict.fromkeys([
            *self._key, quotes.schema.index_time, *columns, *(["action", *quotes.told] if self._own else []),
        ]))  # fmt: skip
        self._held = trades.rectangles
        self._looked = pl.DataFrame(schema=_LOOKED)
        self._last: pl.DataFrame | None = None

    def frames(self) -> Generator[pl.DataFrame]:
        """Trades with ``_at``, the quote's columns and ``_quote_at``, null where there is none."""
        kinds, index = self._quotes.schema.dtypes, self._quotes.schema.index_time
        with (
            _Stream(self._of_trades(), self._trades.columns) as trades,
            _Stream(self._of_quotes(), {c: kinds[c] for c in self._read if c != index}) as quotes,
        ):
            while not trades.done:
                # What comes later is not earlier than the last that came: before that, both are whole.
                bound = min(trades.reached, quotes.reached)
                now, before = trades.taken(bound), quotes.taken(bound)
                if now.height:
                    yield self._joined(now, before)
                self._keep(before)
                trades.pass_(bound)
                quotes.pass_(bound)

    def _of_trades(self) -> Iterator[pl.DataFrame]:
        at = pl.col(self._trades.schema.index_time).to_physical().alias(_AT)
        for frame in self._trades.frames():
            yield frame.select(at, *self._trades.columns)

    def _of_quotes(self) -> Iterator[pl.DataFrame]:
        return self._quotes_of(self._window, self._stretches)

    def _quotes_of(self, window: Window, held: pl.DataFrame | None) -> Iterator[pl.DataFrame]:
        if held is not None and held.is_empty():
            return
        schema, name = self._quotes.schema, self._quotes.name.name
        at = pl.col(schema.index_time).to_physical().alias(_AT)
        shown = [at, *(c for c in self._read if c != schema.index_time)]
        for frame in self._trades.store.read(schema, name, window, held, self._read, self._dataset, ordered=False):
            yield frame.select(shown)

    @cached_property
    def _stretches(self) -> pl.DataFrame | None:
        """When the quotes of which instruments are read; one that is away for less than the tolerance stays."""
        if self._held is None:
            return None
        end = pl.min_horizontal(pl.col("end") + self._quotes.reach, pl.lit(self._window.end))
        return union([Asked("", self._held.with_columns(end))], self._window)

    def _joined(self, trades: pl.DataFrame, quotes: pl.DataFrame) -> pl.DataFrame:
        found = self._before(trades, self._with_last(quotes))
        lacking = found.filter(pl.col(_QUOTE_AT).is_null())
        if lacking.height and (earlier := self._looked_back(lacking)):
            # Those of one key come in the order of time still: a stretch's are later than what was before it.
            self._last = self._with_last(pl.concat(earlier)).sort(_AT, maintain_order=True)
            found = self._before(trades, self._with_last(quotes).sort(_AT, maintain_order=True))
        return self._with_own(found, quotes) if self._own else found

    def _with_last(self, quotes: pl.DataFrame) -> pl.DataFrame:
        return quotes if self._last is None else pl.concat([self._last, quotes])

    def _before(self, trades: pl.DataFrame, quotes: pl.DataFrame) -> pl.DataFrame:
        """Trades with the last quote before each."""
        by = self._telling(trades, quotes)
        right = quotes.select(*by, *self._columns, pl.col(_AT).alias(_QUOTE_AT))
        return trades.join_asof(
            right, left_on=_AT, right_on=_QUOTE_AT, by=by or None, strategy="backward", tolerance=self._quotes.reach,
            allow_exact_matches=False, coalesce=False, check_sortedness=False,
        )  # fmt: skip

    def _with_own(self, trades: pl.DataFrame, quotes: pl.DataFrame) -> pl.DataFrame:
        """Trades with the quotes of their own messages instead, where those are there."""
        names = {c: f"{c}_own" for c in self._columns}
        own = quotes.filter(pl.col("action") == "T")
        if own.is_empty():
            return trades
        on = [*self._telling(trades, own), _AT, *self._quotes.told]
        own = own.select(*on, *(pl.col(c).alias(name) for c, name in names.items()), pl.col(_AT).alias(_OWN_AT))
        if _repeats(own, on):
            nth = pl.int_range(pl.len()).over(on).alias(_NTH)
            trades, own, on = trades.with_columns(nth), own.with_columns(nth), [*on, _NTH]
        elif _repeats(trades, on):
            trades, own, on = (
                trades.with_columns(pl.int_range(pl.len()).over(on).alias(_NTH)),
                own.with_columns(pl.lit(0, pl.Int64).alias(_NTH)),
                [*on, _NTH],
            )
        both = trades.join(own, on=on, how="left", maintain_order="left")
        here = pl.col(_OWN_AT).is_not_null()
        chosen = [pl.when(here).then(name).otherwise(c).alias(c) for c, name in names.items()]
        return both.with_columns(*chosen, pl.coalesce(_OWN_AT, _QUOTE_AT).alias(_QUOTE_AT))

    def _telling(self, trades: pl.DataFrame, quotes: pl.DataFrame) -> list[str]:
        """What of the key tells these rows apart."""
        return [c for c in self._key if not _alike(trades[c], quotes[c])]

    def _keep(self, quotes: pl.DataFrame) -> None:
        """Remember the last quote of each instrument."""
        if quotes.height:
            self._last = self._lasting(self._with_last(quotes))

    def _lasting(self, quotes: pl.DataFrame) -> pl.DataFrame:
        by = self._telling(quotes, quotes)
        if not by:
            return quotes.tail(1)
        last = quotes.select(*by, _NTH_ROW).group_by(by).agg(pl.col(_NTH).max())
        return quotes[last[_NTH].sort()]

    def _looked_back(self, trades: pl.DataFrame) -> list[pl.DataFrame]:
        """The last quotes from before the stretches that these trades lie in, each looked for once."""
        wanted = self._begun(trades).join(self._looked, on=list(_LOOKED), how="anti")
        self._looked = pl.concat([self._looked, wanted])
        found = []
        for (start,), part in wanted.group_by("start", maintain_order=True):
            window = Window(max(int(str(start)) - self._quotes.reach, 0), int(str(start)))
            spans = part.select("dataset", "instrument_id", start=pl.lit(window.start), end=pl.lit(window.end))
            last: pl.DataFrame | None = None
            for frame in self._quotes_of(window, spans.cast(_RECTANGLES)) if window.start < window.end else ():
                last = self._lasting(frame if last is None else pl.concat([last, frame]))
            found += [] if last is None else [last]
        return found

    def _begun(self, trades: pl.DataFrame) -> pl.DataFrame:
        """Of trades without a quote: instruments, and the start of their stretch where it is within the tolerance."""
        if self._stretches is None:
            placed = trades.with_columns(start=pl.lit(self._window.start))
        else:
            stretches = self._stretches.select("dataset", "instrument_id", "start").sort("start")
            placed = trades.join_asof(
                stretches, left_on=_AT, right_on="start", by=list(_KEY), coalesce=False, check_sortedness=False
            )
        near = placed.filter(pl.col(_AT) - pl.col("start") <= self._quotes.reach)
        return near.select(pl.col(c).cast(t) for c, t in _LOOKED.items()).unique(maintain_order=True)


class _Stream:
    """Frames in the order of time (``_at``), and what of them is not taken yet. A context manager."""

    def __init__(self, frames: Iterator[pl.DataFrame], columns: Mapping[str, pl.DataType]) -> None:
        self._frames = frames
        self._held = pl.DataFrame(schema={_AT: pl.Int64(), **columns})
        self.reached = -1
        self._more()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        close: Any = getattr(self._frames, "close", None)
        if close is not None:
            close()

    @property
    def done(self) -> bool:
        """True when all is taken."""
        return self.reached == MAX_NS and self._held.is_empty()

    def taken(self, bound: int) -> pl.DataFrame:
        """What is held and earlier than ``bound``."""
        early = pl.col(_AT) < bound
        now, self._held = self._held.filter(early), self._held.filter(~early)
        return now

    def pass_(self, bound: int) -> None:
        """Read on where nothing later than ``bound`` has come yet."""
        if self.reached <= bound < MAX_NS:
            self._more()

    def _more(self) -> None:
        came = [self._held]
        rows = 0
        while rows < _AT_ONCE:
            frame = next(self._frames, None)
            if frame is None:
                self.reached = MAX_NS
                break
            self.reached = int(frame[_AT].max())  # type: ignore[arg-type]  # not empty
            came.append(frame)
            rows += frame.height
        self._held = pl.concat(came)


def _repeats(frame: pl.DataFrame, columns: Sequence[str]) -> bool:
    return bool(frame.select(pl.struct(columns).is_duplicated().any()).item())


def _alike(left: pl.Series, right: pl.Series) -> bool:
    """True where both have the same one value: nothing is told apart by it."""
    first = left[0]
    return bool(right.len()) and bool((left == first).all()) and bool((right == first).all())


__all__ = ["FINEST", "QUOTE_AGE", "QUOTE_TIME", "TOLERANCE", "Joined", "join", "width_ns"]

"""Trades and quotes, two streams in the order of time, and the quote in force before each trade; no store is known.

Frames have ``_at``, the index time in nanoseconds. Those of quotes are in the order of time by key only; no frame holds
a row that is earlier than one of a frame before it. What is held is what the other stream has not passed yet.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import or_
from typing import Any, Self

import numpy as np
import polars as pl

from hdi.late import Array
from hdi.lookup import RECTANGLES, Asked, union
from hdi.model import MAX_NS, Window
from hdi.symbology import Intervals, merge

#: The index time of a row; and beside a trade that of its quote, null where none was in force.
AT, QUOTE_AT = "_at", "_quote_at"
_OWN_AT, _NTH, _BAD_AT = "_own_at", "_nth", "_bad_at"
#: What every key has.
KEY = ("dataset", "instrument_id")
_RECTANGLES = pl.Schema(RECTANGLES)
_LOOKED: dict[str, pl.DataType] = {c: RECTANGLES[c] for c in (*KEY, "start")}
_PLACE = pl.int_range(pl.len()).alias(_NTH)
#: Rows that are joined at once, about: frames that are smaller wait for the next.
_AT_ONCE = 1 << 19


@dataclass(frozen=True)
class Terms:
    """What is joined: ``key`` is what a quote and its trades share, ``columns`` are those of quotes that are wanted.

    ``own`` is what a trade shares beside the key and the time with the quote of its own message; empty where quotes
    have no such messages. ``reach`` is the greatest age of a quote, in nanoseconds.
    """

    key: tuple[str, ...]
    own: tuple[str, ...]
    columns: tuple[str, ...]
    reach: int

    @property
    def read(self) -> list[str]:
        """The columns of quotes that it takes, beside the index time."""
        return list(dict.fromkeys([*self.key, *self.columns, *(["action", *self.own] if self.own else [])]))


#: Reads the quotes of a window, of instruments (:data:`hdi.lookup.RECTANGLES`; None: all): ``_at`` and ``Terms.read``.
Reads = Callable[[Window, pl.DataFrame | None], Iterator[pl.DataFrame]]
Columns = Mapping[str, pl.DataType]


class Merge:
    """One reading of both, of the instruments that are ``held`` when (None: of all) in the window."""

    def __init__(self, terms: Terms, window: Window, held: pl.DataFrame | None) -> None:
        self._terms, self._window, self._held = terms, window, held
        self._looked = pl.DataFrame(schema=_LOOKED)
        self._last: pl.DataFrame | None = None

    def frames(
        self, trades: Iterator[pl.DataFrame], traded: Columns, read: Reads, quoted: Columns
    ) -> Generator[pl.DataFrame]:
        """The trades with the quotes' columns and ``_quote_at``; ``traded``, ``quoted``: the columns of the frames."""
        self._read = read
        with _Stream(trades, traded) as left, _Stream(self._quotes(), quoted) as right:
            while not left.done:
                # What comes later is not earlier than the last that came: before that, both are whole.
                bound = min(left.reached, right.reached)
                now, before = left.taken(bound), right.taken(bound)
                if now.height:
                    yield self._joined(now, before)
                self._keep(before)
                left.pass_(bound)
                right.pass_(bound)

    def _quotes(self) -> Iterator[pl.DataFrame]:
        if self._stretches is None or self._stretches.height:
            yield from self._read(self._window, self._stretches)

    @cached_property
    def _stretches(self) -> pl.DataFrame | None:
        """When the quotes of which instruments are read; one that is away for less than the tolerance stays."""
        if self._held is None:
            return None
        end = pl.min_horizontal(pl.col("end") + self._terms.reach, pl.lit(self._window.end))
        return union([Asked("", self._held.with_columns(end))], self._window)

    def _joined(self, trades: pl.DataFrame, quotes: pl.DataFrame) -> pl.DataFrame:
        found = self._before(trades, self._with_last(quotes))
        lacking = found.filter(pl.col(QUOTE_AT).is_null())
        if lacking.height and (earlier := self._looked_back(lacking)):
            # Those of one key come in the order of time still: a stretch's are later than what was before it.
            self._last = self._with_last(pl.concat(earlier)).sort(AT, maintain_order=True)
            found = self._before(trades, self._with_last(quotes).sort(AT, maintain_order=True))
        return self._with_own(found, quotes) if self._terms.own else found

    def _with_last(self, quotes: pl.DataFrame) -> pl.DataFrame:
        return quotes if self._last is None else pl.concat([self._last, quotes])

    def _before(self, trades: pl.DataFrame, quotes: pl.DataFrame) -> pl.DataFrame:
        """Trades with the last quote before each."""
        by = self._telling(trades, quotes)
        right = quotes.select(*by, *self._terms.columns, pl.col(AT).alias(QUOTE_AT))
        return trades.join_asof(
            right, left_on=AT, right_on=QUOTE_AT, by=by or None, strategy="backward", tolerance=self._terms.reach,
            allow_exact_matches=False, coalesce=False, check_sortedness=False,
        )  # fmt: skip

    def _with_own(self, trades: pl.DataFrame, quotes: pl.DataFrame) -> pl.DataFrame:
        """Trades with the quotes of their own messages instead, where those are there."""
        names = {c: f"{c}_own" for c in self._terms.columns}
        own = quotes.filter(pl.col("action") == "T")
        if own.is_empty():
            return trades
        on = [*self._telling(trades, own), AT, *self._terms.own]
        own = own.select(*on, *(pl.col(c).alias(name) for c, name in names.items()), pl.col(AT).alias(_OWN_AT))
        again = _repeated(own, on)
        if again.any() or _repeated(trades, on).any():
            trades, own, on = _numbered(trades, on), _numbered(own, on, again), [*on, _NTH]
        both = trades.join(own, on=on, how="left", maintain_order="left")
        here = pl.col(_OWN_AT).is_not_null()
        chosen = [pl.when(here).then(name).otherwise(c).alias(c) for c, name in names.items()]
        return both.with_columns(*chosen, pl.coalesce(_OWN_AT, QUOTE_AT).alias(QUOTE_AT))

    def _telling(self, trades: pl.DataFrame, quotes: pl.DataFrame) -> list[str]:
        """What of the key tells these rows apart."""
        return [c for c in self._terms.key if not _alike(trades[c], quotes[c])]

    def _keep(self, quotes: pl.DataFrame) -> None:
        """Remember the last quote of each instrument."""
        if quotes.height:
            self._last = self._lasting(self._with_last(quotes))

    def _lasting(self, quotes: pl.DataFrame) -> pl.DataFrame:
        by = self._telling(quotes, quotes)
        if not by:
            return quotes.tail(1)
        # Of rows that lie by key few are the last of a run of theirs.
        runs = quotes.select(*by, _PLACE).filter(_ends(quotes, by))
        last = runs.group_by(by).agg(pl.col(_NTH).max())
        return quotes[last[_NTH].sort()]

    def _looked_back(self, trades: pl.DataFrame) -> list[pl.DataFrame]:
        """The last quotes from before the stretches that these trades lie in, each looked for once."""
        wanted = self._begun(trades).join(self._looked, on=list(_LOOKED), how="anti")
        self._looked = pl.concat([self._looked, wanted])
        found = []
        for (start,), part in wanted.group_by("start", maintain_order=True):
            window = Window(max(int(str(start)) - self._terms.reach, 0), int(str(start)))
            spans = part.select("dataset", "instrument_id", start=pl.lit(window.start), end=pl.lit(window.end))
            last: pl.DataFrame | None = None
            for frame in self._read(window, spans.cast(_RECTANGLES)) if window.start < window.end else ():
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
                stretches, left_on=AT, right_on="start", by=list(KEY), coalesce=False, check_sortedness=False
            )
        near = placed.filter(pl.col(AT) - pl.col("start") <= self._terms.reach)
        return near.select(pl.col(c).cast(t) for c, t in _LOOKED.items()).unique(maintain_order=True)


class Known:
    """Where it is known which quotes there were.

    ``held`` is stored whole (:data:`hdi.lookup.RECTANGLES`; a null instrument_id: every one), ``bad`` is in quarantine
    (dataset, instrument_id, ts_event; null: any one).
    """

    def __init__(self, held: pl.DataFrame, bad: pl.DataFrame) -> None:
        every = held.filter(pl.col("instrument_id").is_null()).drop("instrument_id")
        own = held.drop_nulls("instrument_id").select(*_RECTANGLES)
        among = own.select(KEY).unique().join(every, on="dataset").select(*_RECTANGLES)
        self._own, self._every = _by_dataset(pl.concat([own, among])), _by_dataset(every.with_columns(instrument_id=0))
        self._bad = bad.rename({"ts_event": _BAD_AT}).sort(_BAD_AT)

    def kept(self, found: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
        """Trades with their quotes (``_quote_at``, ``columns``), but for those after which something may lack."""
        older = (found[QUOTE_AT] < found[AT]).fill_null(value=False)
        rows = found.filter(older).select(*KEY, AT, QUOTE_AT)
        broken = ~self._whole(rows) | self._met(rows)
        if not broken.any():
            return found
        lost = np.zeros(found.height, dtype=np.bool_)
        lost[older.to_numpy()] = broken
        kept = dict.fromkeys([*columns, QUOTE_AT])
        return found.with_columns(pl.when(~pl.Series(lost)).then(pl.col(c)).alias(c) for c in kept)

    def _whole(self, rows: pl.DataFrame) -> Array:
        """True where quotes are stored from the quote to the trade."""
        whole = np.zeros(rows.height, dtype=np.bool_)
        ids, since, until = (rows[c].to_numpy() for c in ("instrument_id", QUOTE_AT, AT))
        for held, looked in ((self._own, ids), (self._every, np.zeros_like(ids))):
            for dataset, intervals in held.items():
                at = intervals.find(looked, since)
                inside = (at >= 0) & (at == intervals.find(looked, until - 1))
                whole |= inside & (rows["dataset"] == dataset).to_numpy()
        return whole

    def _met(self, rows: pl.DataFrame) -> Array:
        """True where a quote was quarantined since the quote."""
        met = np.zeros(rows.height, dtype=np.bool_)
        named = pl.col("instrument_id").is_not_null()
        for on, bad in ((KEY, self._bad.filter(named)), (KEY[:1], self._bad.filter(~named))):
            if bad.height:
                last = rows.join_asof(
                    bad.select(*on, _BAD_AT), left_on=AT, right_on=_BAD_AT, by=on, allow_exact_matches=False,
                    coalesce=False, check_sortedness=False,
                )  # fmt: skip
                met |= (last[_BAD_AT] >= last[QUOTE_AT]).fill_null(value=False).to_numpy()
        return met


def _by_dataset(held: pl.DataFrame) -> dict[str, Intervals]:
    return {str(dataset): Intervals(merge(part)) for (dataset,), part in held.group_by("dataset")}


class _Stream:
    """Frames in the order of time (``_at``), and what of them is not taken yet. A context manager."""

    def __init__(self, frames: Iterator[pl.DataFrame], columns: Mapping[str, pl.DataType]) -> None:
        self._frames = frames
        self._held = pl.DataFrame(schema={AT: pl.Int64(), **columns})
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
        early = pl.col(AT) < bound
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
            self.reached = int(frame[AT].max())  # type: ignore[arg-type]  # not empty
            came.append(frame)
            rows += frame.height
        self._held = pl.concat(came)


def _ends(rows: pl.DataFrame, columns: Sequence[str]) -> pl.Series:
    """True for the rows that differ from the next in one of these columns, and for the last."""
    differs = reduce(or_, (rows[c].ne_missing(rows[c].shift(-1)) for c in columns))
    return differs.scatter(rows.height - 1, values=True)


def _repeated(frame: pl.DataFrame, columns: Sequence[str]) -> pl.Series:
    """True for the rows that are alike in these columns with others."""
    return frame.select(pl.struct(columns).is_duplicated()).to_series()


def _numbered(frame: pl.DataFrame, columns: Sequence[str], again: pl.Series | None = None) -> pl.DataFrame:
    """The frame with the number of each row among those that are alike in these columns.

    To group all rows by so many columns takes longer than the whole join: most are alone.
    """
    rows = (_repeated(frame, columns) if again is None else again).arg_true()
    numbers = frame[rows].select(pl.int_range(pl.len()).over(columns)).to_series()
    return frame.with_columns(pl.zeros(frame.height, pl.Int64, eager=True).scatter(rows, numbers).alias(_NTH))


def _alike(left: pl.Series, right: pl.Series) -> bool:
    """True where both have the same one value: nothing is told apart by it."""
    first = left[0]
    return bool(right.len()) and bool((left == first).all()) and bool((right == first).all())


__all__ = ["AT", "KEY", "QUOTE_AT", "Known", "Merge", "Terms"]

"""A synthetic market, made top-down from a seed: what the rehearsal vendor serves.

Everything is a function of the seed and what is asked for, so any window can be made alone and is the same as cut
from a longer one. Finer levels are never made where a coarser one has the answer.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Collection, Iterator, Sequence

from hdi.errors import RequestError
from hdi.model import DAY_NS, date_ns
from hdi.rehearsal.contracts import Instruments, instruments
from hdi.rehearsal.daily import Days
from hdi.rehearsal.definitions import Definitions
from hdi.rehearsal.depth import Depth
from hdi.rehearsal.endofday import EndOfDay
from hdi.rehearsal.feeds import Bars, Feed, Trades
from hdi.rehearsal.imbalance import Imbalance
from hdi.rehearsal.intervals import Intervals
from hdi.rehearsal.layouts import INTERVALS, SCHEMAS, WIDTHS, Records
from hdi.rehearsal.orders import BOOKS
from hdi.rehearsal.products import DATASETS
from hdi.rehearsal.revised import Revised, Revision
from hdi.rehearsal.sessions import LAST, ZERO
from hdi.rehearsal.statistics import Statistics
from hdi.rehearsal.status import Status
from hdi.rehearsal.symbols import Resolution, Symbology
from hdi.rehearsal.tape import Rectangle, Rows, Tape, selected
from hdi.symbology import infer_stype

__all__ = ["Market", "Resolution"]

#: Contracts are listed ahead of the last day by at most so much.
_AHEAD = dt.timedelta(days=730)


class Market:
    """Symbols, records and counts of the synthetic market before midnight UTC of ``today``.

    ``scale`` multiplies activity, ``hostile`` is about how many bad rows each busy instrument and day has over all
    schemas, and the prices of ``restated`` days differ from what they are without; what was ``revised`` are some of the
    rows. On ``untraded`` days nothing is traded of a raw symbol, or ("") of anything. Raises RequestError for a day
    beyond the calendars.
    """

    def __init__(  # noqa: PLR0913  (what makes a market another one)
        self, seed: int = 0, *, scale: float = 1.0, hostile: int = 0, restated: Collection[dt.date] = (),
        today: dt.date | None = None, untraded: Collection[tuple[str, dt.date]] = (),
        revised: Sequence[Revision] = (),
    ) -> None:  # fmt: skip
        self._today = today or dt.datetime.now(dt.UTC).date()
        if self._today > LAST - _AHEAD:
            raise RequestError(
                f"the synthetic market ends on {LAST - _AHEAD}, before {self._today}", "Take an earlier day."
            )
        self.datasets = tuple(DATASETS)
        self._books = {name: instruments(name) for name in self.datasets}
        self._symbology: dict[str, Symbology] = {}
        self._feeds: dict[tuple[str, str], Feed] = {}
        for name, book in self._books.items():
            days = Days(book, seed, scale, untraded)
            self._symbology[name] = Symbology(book, days)
            tape = Tape(book, days, restated)
            for schema in self.schemas(name):
                feed = _feed(schema, book, tape, days, hostile)
                if revised:
                    feed = Revised(schema, book, tape, days, feed, revised, functools.partial(self._ids, name))
                self._feeds[name, schema] = feed

    def schemas(self, dataset: str) -> tuple[str, ...]:
        """The schemas of a dataset."""
        return SCHEMAS[dataset]

    def begins(self, dataset: str) -> dt.date:
        """The first day of a dataset."""
        return self._books[dataset].begins

    def condition(self, dataset: str, day: dt.date) -> str | None:
        """``available`` for a UTC day that a session touches, None for any other day."""
        book = self._books[dataset]
        if not book.begins <= day < self._today:
            return None
        at = (date_ns(day) // DAY_NS - ZERO) * 24
        return "available" if book.sessions.total[at + 24] > book.sessions.total[at] else None

    def resolve(
        self, dataset: str, symbols: Sequence[str], stype_in: str, stype_out: str, start: dt.date, end: dt.date
    ) -> Resolution:
        """What symbols stand for on the days ``[start, end)``. RequestError for types that do not go together."""
        return self._symbology[dataset].resolve(symbols, stype_in, stype_out, start, end)

    def _ids(self, dataset: str, symbol: str, day: dt.date) -> list[int]:
        """The instruments that a symbol of any type stands for on a day."""
        found = self.resolve(dataset, [symbol], infer_stype(symbol), "instrument_id", day, day + dt.timedelta(days=1))
        return [i for i, _, _ in found.asked.get(symbol, [])]

    def count(self, dataset: str, schema: str, selection: Sequence[Rectangle], start_ns: int, end_ns: int) -> int:
        """How many records :meth:`records` would bring, without making them."""
        return self._feeds[dataset, schema].count(self._rows(dataset, selection, start_ns, end_ns))[0]

    def planted(self, dataset: str, schema: str, selection: Sequence[Rectangle], start_ns: int, end_ns: int) -> int:
        """How many of the records are bad on purpose."""
        return self._feeds[dataset, schema].count(self._rows(dataset, selection, start_ns, end_ns))[1]

    def records(
        self, dataset: str, schema: str, selection: Sequence[Rectangle], start_ns: int, end_ns: int
    ) -> Iterator[Records]:
        """The records of the rectangles (instrument id, start, end) in a window, by index time, in batches.

        DBN version 3. A batch has about 131,072 records, or an hour of trades or a day of bars where these are more.
        """
        return self._feeds[dataset, schema].records(self._rows(dataset, selection, start_ns, end_ns))

    def _rows(self, dataset: str, selection: Sequence[Rectangle], start_ns: int, end_ns: int) -> Rows:
        return selected(self._books[dataset], selection, start_ns, min(end_ns, date_ns(self._today)))


def _feed(schema: str, book: Instruments, tape: Tape, days: Days, hostile: int) -> Feed:  # noqa: PLR0911
    if schema == "definition":
        return Definitions(book, tape, days, hostile)
    if schema == "statistics":
        return Statistics(book, tape, days, hostile)
    if schema == "ohlcv-eod":
        return EndOfDay(book, tape, days, hostile)
    if schema == "status":
        return Status(book, tape)
    if schema == "imbalance":
        return Imbalance(book, tape, hostile)
    if schema in BOOKS:
        return Depth(schema, book, tape, days, hostile)
    kind = Bars if schema in WIDTHS else Intervals if schema in INTERVALS else Trades
    return kind(schema, book, tape, hostile)

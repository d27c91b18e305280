"""Rows that the rehearsal vendor changes after the fact: so many of a day are altered, dropped or added, no others.

The rows are chosen from the day alone, so that every request sees the same ones; other levels stay as they were.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import databento_dbn as dbn
import numpy as np

from hdi.model import DAY_NS, date_ns
from hdi.rehearsal.contracts import Instruments
from hdi.rehearsal.daily import Days
from hdi.rehearsal.draws import I64, Bool
from hdi.rehearsal.feeds import Feed
from hdi.rehearsal.layouts import LAYOUTS, WIDTHS, Records, blank
from hdi.rehearsal.tape import Rows, Tape

#: Bars of any kind: what is known of them by the time they begin.
BARS = (*WIDTHS, "ohlcv-eod")
#: The schemas of which rows can be added.
ADDED = (*WIDTHS, "trades", "tbbo")
#: Rows are taken from so many instruments at least, where there are as many.
_SPREAD = 4
#: What is added to the sequence number of a trade, for one that comes beside it: beyond those of its day.
_BESIDE = 250_000_000
#: The ids of the instruments that a symbol stands for on a day.
Resolve = Callable[[str, dt.date], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Revision:
    """So many rows of a UTC day, of each schema or of one, are altered, dropped and added (as many as can be).

    ``symbol`` is of any type; "" is every instrument, the busiest first.
    """

    day: dt.date
    rows: int = 0
    drop: int = 0
    add: int = 0
    schema: str = ""
    symbol: str = ""


@dataclass(frozen=True, slots=True)
class Edits:
    """What becomes of records, by their bytes (b"": dropped), and what is added: instrument number and record."""

    changed: dict[bytes, bytes]
    added: list[tuple[int, Records]]


class Revised:
    """One schema of one dataset as it is after revisions; see Feed."""

    def __init__(  # noqa: PLR0913, PLR0917  (what a feed is made of, and what is changed in it)
        self, schema: str, book: Instruments, tape: Tape, days: Days, feed: Feed, revisions: Sequence[Revision],
        resolve: Resolve,
    ) -> None:  # fmt: skip
        self._schema = schema
        self._book = book
        self._tape = tape
        self._days = days
        self._feed = feed
        self._revisions = [r for r in revisions if r.schema in ("", schema)]
        self._resolve = resolve
        self._index = "ts_event" if schema in BARS else "ts_recv"
        self._edits: dict[dt.date, Edits] = {}

    def count(self, rows: Rows) -> tuple[int, int]:
        """See Feed."""
        found, planted = self._feed.count(rows)
        for edits in self._touching(rows):
            found += sum(self._wanted(rows, number, record) for number, record in edits.added)
            gone = [np.frombuffer(old, LAYOUTS[self._schema][0]) for old, new in edits.changed.items() if not new]
            found -= sum(self._wanted(rows, self._number(record), record) for record in gone)
        return found, planted

    def records(self, rows: Rows) -> Iterator[Records]:
        """See Feed."""
        edits = list(self._touching(rows))
        if not edits:
            yield from self._feed.records(rows)
            return
        changed = {old: new for each in edits for old, new in each.changed.items()}
        added = [record for each in edits for number, record in each.added if self._wanted(rows, number, record)]
        added.sort(key=lambda record: int(record[self._index][0]))
        for batch in self._feed.records(rows):
            last = batch[self._index][-1] if len(batch) else -1
            ready = [record for record in added if record[self._index][0] <= last]
            added = added[len(ready) :]
            made = self._applied(batch, changed, ready)
            if len(made):
                yield made
        if added:
            yield np.concatenate(added)

    def _applied(self, batch: Records, changed: dict[bytes, bytes], added: list[Records]) -> Records:
        """A batch with what was changed in it, and the added records at their time."""
        kept, out = np.ones(len(batch), np.bool_), batch
        keys = np.frombuffer(b"".join(changed), batch.dtype)
        near = np.isin(batch[self._index], keys[self._index]) & np.isin(batch["instrument_id"], keys["instrument_id"])
        for at in np.flatnonzero(near):
            new = changed.get(batch[at].tobytes())
            if new == b"":
                kept[at] = False
            elif new is not None:
                out = batch.copy() if out is batch else out
                out[at] = np.frombuffer(new, batch.dtype)[0]
        out = out[kept]
        if added:
            places = np.searchsorted(out[self._index], [int(r[self._index][0]) for r in added], side="right")
            out = np.insert(out, places, np.concatenate(added))
        return out

    def _touching(self, rows: Rows) -> Iterator[Edits]:
        """The edits of the days among the rows."""
        for day in sorted({r.day for r in self._revisions}):
            if (rows.day == date_ns(day) // DAY_NS).any():
                yield self._of(day)

    def _wanted(self, rows: Rows, number: int, record: Records) -> bool:
        """Whether the index time of a record of an instrument lies in the wanted part of the rows."""
        at = record[self._index][0]
        return bool(((rows.which == number) & (rows.low <= at) & (at < rows.high)).any())

    def _number(self, record: Records) -> int:
        """The number of the instrument that a record is about."""
        day = int(record[self._index][0]) // DAY_NS
        here = self._book.by_id[int(record["instrument_id"][0])]
        return next(i.number for i in here if i.first <= day <= i.last)

    def _of(self, day: dt.date) -> Edits:
        if day not in self._edits:
            edits = Edits({}, [])
            for revision in self._revisions:
                if revision.day == day:
                    self._revise(revision, edits)
            self._edits[day] = edits
        return self._edits[day]

    def _revise(self, revision: Revision, edits: Edits) -> None:
        day = date_ns(revision.day) // DAY_NS
        which = self._ranked(revision, day)
        there = self._sample(which, day, revision.rows + revision.drop, edits)
        for at, record in enumerate(there):
            old = record.tobytes()
            edits.changed[old] = b"" if at < revision.drop else self._altered(record).tobytes()
        if revision.add and self._schema in ADDED:
            edits.added.extend(self._additions(which, day, revision.add))

    def _ranked(self, revision: Revision, day: int) -> list[int]:
        """The instruments that are meant, the busiest of the day first."""
        listed = [i for i in self._book.all if i.first <= day <= i.last]
        if revision.symbol:
            ids = set(self._resolve(revision.symbol, revision.day))
            listed = [i for i in listed if i.id in ids]
        which = np.asarray([i.number for i in listed], np.int64)
        trades = self._tape.activity(_whole(which, day)) if len(which) else which
        return [int(n) for n in which[np.argsort(-trades, kind="stable")]]

    def _sample(self, which: Sequence[int], day: int, wanted: int, edits: Edits) -> list[Records]:
        """So many records of the day, far from each other, that nothing was done to before; none of them bad."""
        found: list[Records] = []
        for seen, number in enumerate(which if wanted else ()):
            if seen >= _SPREAD and len(found) >= wanted:
                break
            records = self._day(number, day)
            found += [records[k : k + 1] for k in range(len(records)) if records[k].tobytes() not in edits.changed]
        count = min(wanted, len(found))
        return [found[(2 * k + 1) * len(found) // (2 * count)] for k in range(count)]

    def _day(self, number: int, day: int) -> Records:
        """The good records of an instrument and UTC day: a bad one is a copy, and comes after the good one."""
        made = list(self._feed.records(_whole(np.asarray([number], np.int64), day)))
        if not made:
            return blank(self._schema, 0, 0)
        records = np.concatenate(made)
        key = [self._index] + [name for name in ("sequence", "leg_index") if name in (records.dtype.names or ())]
        first = np.unique(records[key], return_index=True)[1]
        return records[np.sort(first)]

    def _altered(self, record: Records) -> Records:
        """The record with other values, which break no rule."""
        out = record.copy()
        tick = int(self._tape.tick[self._number(record)])
        if self._schema in BARS:
            out["close"] = np.where(out["close"] == out["low"], out["high"], out["low"])
            out["volume"] += 1
        elif self._schema == "definition":
            out["market_depth"] += 1
        elif self._schema == "status":
            out["reason"] += 1
        elif self._schema == "imbalance":
            out["ref_price"] += tick
        elif self._schema == "statistics":
            priced = out["price"] != dbn.UNDEF_PRICE
            out["price"] += np.where(priced, tick, 0)
            out["quantity"] += np.where(priced, 0, 1).astype(out["quantity"].dtype)
        else:
            out["price"] += np.where(out["price"] != dbn.UNDEF_PRICE, tick, 0)
            out["size"] += 1
        return out

    def _additions(self, which: Sequence[int], day: int, wanted: int) -> list[tuple[int, Records]]:
        """So many records that were not there before, of the busiest instruments that have room for them."""
        found: list[tuple[int, Records]] = []
        for number in which:
            records = self._day(number, day)
            if self._schema == "ohlcv-1d":
                made = [] if len(records) else [self._bar(number, day)]
            elif self._schema in WIDTHS:
                made = self._between(records)
            else:
                made = [_beside(records[k : k + 1]) for k in range(0, len(records), 2)]
            found += [(number, record) for record in made[: wanted - len(found)]]
            if len(found) == wanted:
                break
        return found

    def _bar(self, number: int, day: int) -> Records:
        """A daily bar of one contract at the price that the instrument ends the day with."""
        out = blank(self._schema, 1, self._book.publisher)
        which, at = np.asarray([number], np.int64), np.asarray([day], np.int64)
        out["instrument_id"], out["ts_event"] = self._book.ids[number], day * DAY_NS
        for name in ("open", "high", "low", "close"):
            out[name] = self._days.fair(which, at) * self._tape.tick[number]
        out["volume"] = 1
        return out

    def _between(self, records: Records) -> list[Records]:
        """Bars of one contract where there was none, each right after one that is there."""
        width = WIDTHS[self._schema]
        free: Bool = np.diff(records["ts_event"]) > width
        out = records[:-1][free].copy()
        out["ts_event"] += width
        for name in ("open", "high", "low"):
            out[name] = out["close"]
        out["volume"] = 1
        return [out[k : k + 1] for k in range(len(out))]


def _whole(which: I64, day: int) -> Rows:
    days = np.full(len(which), day, np.int64)
    return Rows(which, days, days * DAY_NS, (days + 1) * DAY_NS)


def _beside(record: Records) -> Records:
    """Another trade of one contract at the same time."""
    out = record.copy()
    out["sequence"] += _BESIDE
    out["size"] = 1
    return out


__all__ = ["ADDED", "Revised", "Revision"]

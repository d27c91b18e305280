"""Bars and trades as the vendor's records: one feed for each schema, which counts and makes those of some rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from hdi.model import DAY_NS, NS
from hdi.rehearsal.contracts import Instruments
from hdi.rehearsal.daily import Facts
from hdi.rehearsal.draws import I64, U64
from hdi.rehearsal.hostile import Hostility, moved
from hdi.rehearsal.layouts import INTERVALS, WIDTHS, Records, blank
from hdi.rehearsal.levels import Cells, priced, take
from hdi.rehearsal.products import CONSOLIDATED
from hdi.rehearsal.quotes import quotes, shapes
from hdi.rehearsal.sessions import HOUR_NS, MINUTE_NS
from hdi.rehearsal.sides import Sides, best, fill_sides
from hdi.rehearsal.tape import SPLIT, Rows, Tape, bad_trades, blocks, places_of
from hdi.rehearsal.ticks import Ticks, fill, ticks, times

#: How many daily rows are made at a time.
_DAILY_ROWS = 1 << 17
#: An hour may have any number of trades.
_ALL = 2**62


class Feed(Protocol):
    """One schema of one dataset."""

    def count(self, rows: Rows) -> tuple[int, int]:
        """How many records there are for the rows, and how many of these are bad on purpose."""

    def records(self, rows: Rows) -> Iterator[Records]:
        """The records, by index time and instrument, in batches."""


class Bars:
    """Bars of one width."""

    def __init__(self, schema: str, book: Instruments, tape: Tape, hostile: int) -> None:
        self._schema = schema
        self._width = (WIDTHS | INTERVALS)[schema]
        self._book = book
        self._tape = tape
        self._hostility = Hostility(schema, hostile)

    def count(self, rows: Rows) -> tuple[int, int]:
        """See Feed."""
        found = planted = 0
        for block, cells, _ in self._cells(rows, prices=False):
            bad = len(self._bad(block, cells)[0])
            found, planted = found + cells.size + bad, planted + bad
        return found, planted

    def records(self, rows: Rows) -> Iterator[Records]:
        """See Feed."""
        for block, cells, facts in self._cells(rows, prices=True):
            bad, draw = self._bad(block, cells)
            source = np.concatenate((np.arange(cells.size), bad))
            # Within a block rows stand by day and instrument.
            order = np.argsort(cells.start[source], kind="stable")
            source = source[order]
            out = blank(self._schema, len(source), self._book.publisher)
            which = block.which[cells.row[source]]
            tick = self._tape.tick[which]
            out["instrument_id"] = self._book.ids[which]
            out["ts_event"] = cells.start[source]
            out["open"], out["high"] = facts.open[source] * tick, facts.high[source] * tick
            out["low"], out["close"] = facts.low[source] * tick, facts.close[source] * tick
            out["volume"] = facts.volume[source]
            self._hostility.spoil(out, moved(order, cells.size), draw)
            if len(out):
                yield out

    def _bad(self, rows: Rows, cells: Cells) -> tuple[I64, U64]:
        """Which cells have a bad copy, each once, and its draw."""
        trades = self._tape.activity(rows)
        row, place, draw = self._hostility.places(self._tape.keys(rows), trades, trades)
        at, inside = places_of(cells, row, place)
        cell, first = np.unique(at[inside], return_index=True)
        return cell, draw[inside][first]

    def _cells(self, rows: Rows, *, prices: bool) -> Iterator[tuple[Rows, Cells, Facts]]:
        """The bars that start in the wanted parts, in batches; facts without prices are those of other cells."""
        if self._width == DAY_NS:
            for block in blocks(rows, _DAILY_ROWS):
                facts = self._tape.daily(block)
                cells = self._tape.roots(block, facts.trades)
                yield _starting(block, cells, take(facts, cells.row))
            return
        for block, hours, whole in self._tape.pieces(rows, HOUR_NS // self._width):
            cells, facts = hours, whole
            for width, split in ((MINUTE_NS, self._tape.minute_cells), (NS, self._tape.second_cells)):
                if self._width <= width:
                    parts = split(block, cells)
                    facts = priced(cells, facts, parts, SPLIT) if prices or self._width < width else _unpriced(parts)
                    touching = block.touching(parts.start, width, parts.row)
                    cells = parts
                    if not touching.all():
                        cells, facts = parts.take(touching), take(facts, touching)
            yield _starting(block, cells, facts)


def _starting(rows: Rows, cells: Cells, facts: Facts) -> tuple[Rows, Cells, Facts]:
    chosen = rows.starting(cells.start, cells.row)
    return (rows, cells, facts) if chosen.all() else (rows, cells.take(chosen), take(facts, chosen))


def _unpriced(cells: Cells) -> Facts:
    return Facts(*(cells.trades for _ in range(6)))


class Trades:
    """Trades, with the best bid and ask before each for tbbo and tcbbo."""

    def __init__(self, schema: str, book: Instruments, tape: Tape, hostile: int) -> None:
        self._schema = schema
        self._quoted = schema in ("tbbo", "tcbbo")
        self._book = book
        self._tape = tape
        self._hostility = Hostility(schema, hostile)

    def count(self, rows: Rows) -> tuple[int, int]:
        """See Feed."""
        found = planted = 0
        for block in blocks(rows, _DAILY_ROWS):
            total, wanted = self._tape.trades(block)
            row, place, _ = self._hostility.places(self._tape.keys(block), total, total)
            cut = ~block.whole[row]
            bad = len(row) - int(cut.sum())
            if cut.any():
                bad += self._cut_copies(block, total, row[cut], place[cut])
            found, planted = found + int(wanted.sum()) + bad, planted + bad
        return found, planted

    def _cut_copies(self, rows: Rows, total: I64, row: I64, place: I64) -> int:
        """How many of the bad copies lie in the wanted part of rows that are cut."""
        chosen, row = np.unique(row, return_inverse=True)
        part = rows.take(chosen)
        cells = self._tape.roots(part, total[chosen])
        for split in (self._tape.hour_cells, self._tape.minute_cells, self._tape.second_cells):
            cells = split(part, cells)
            at, inside = places_of(cells, row, place)
            cells = cells.take(np.unique(at[inside]))
        at, inside = places_of(cells, row, place)
        found = times(cells)
        starts = np.cumsum(cells.trades) - cells.trades
        received = found.ts_recv[starts[at] + place - cells.first[at]]
        return int((part.starting(received, row) & inside).sum())

    def records(self, rows: Rows) -> Iterator[Records]:
        """See Feed."""
        for block, hours, whole in self._tape.pieces(rows, _ALL):
            cells, facts, hour = hours, whole, np.arange(hours.size)
            for width, split in ((MINUTE_NS, self._tape.minute_cells), (NS, self._tape.second_cells)):
                parts = split(block, cells)
                facts = priced(cells, facts, parts, SPLIT)
                cells, hour = parts, hour[parts.parent]
                touching = block.touching(cells.start, width, cells.row)
                if not touching.all():
                    cells, facts, hour = cells.take(touching), take(facts, touching), hour[touching]
            made = ticks(cells, facts)
            around = None
            if self._quoted:
                around = best(quotes(made, shapes(hours), np.repeat(hour, cells.trades)))
            out = self._made(block, cells, made, around)
            if len(out):
                yield out

    def _made(self, rows: Rows, cells: Cells, trades: Ticks, around: Sides | None) -> Records:
        bad, draw = bad_trades(self._tape, self._hostility, rows, cells)
        source = np.concatenate((np.arange(len(trades.row)), bad))
        wanted = rows.starting(trades.ts_recv[source], trades.row[source])
        if not wanted.all():
            draw = draw[wanted[len(trades.row) :]]
            source = source[wanted]
        good = len(source) - len(draw)
        order = np.argsort(trades.ts_recv[source], kind="stable")
        source = source[order]
        out = blank(self._schema, len(source), self._book.publisher)
        which = rows.which
        out["instrument_id"] = self._book.ids[which][trades.row[source]]
        fill(out, trades, source, self._tape.tick[which], rows.day)
        if self._book.dataset == CONSOLIDATED:
            out["publisher_id"] = trades.venue[source]
        if around is not None:
            fill_sides(out, around.take(source), self._tape.tick[which][trades.row[source]])
        self._hostility.spoil(out, moved(order, good), draw)
        return out

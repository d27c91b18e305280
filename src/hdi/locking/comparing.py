"""Two trees compared from the top: tables, periods, instruments, and the very rows where both sides can name them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import polars as pl

from hdi.locking.files import LockFile, shown
from hdi.locking.making import Reading, table
from hdi.locking.marks import marks
from hdi.locking.rows import Rows, changes, unlike
from hdi.locking.tree import Leaf, Lock, Part, Share, Table
from hdi.lookup import RECTANGLES
from hdi.model import MAX_NS, Window, iso_ns
from hdi.schema import Schemas
from hdi.stores import Store

Kind = Literal["missing", "extra", "changed", "columns", "disordered"]
Key = tuple[int, int]


@dataclass(frozen=True)
class Difference:
    """What differs, as closely as it can be said: a table, a period of it, an instrument in that, or a row.

    ``missing`` is what only the first side has, ``extra`` what only the second has. ``rows`` are those of each side.
    ``before`` and ``after`` are the values of a row as text, None where they are not known.
    """

    kind: Kind
    dataset: str
    schema: str
    period: str = ""
    instrument: int | None = None
    publisher: int | None = None
    symbol: str = ""
    rows: tuple[int, int] | None = None
    time: int | None = None
    before: dict[str, str | None] | None = None
    after: dict[str, str | None] | None = None
    note: str = ""

    @property
    def level(self) -> str:
        """``table``, ``period``, ``instrument`` or ``row``."""
        if self.time is not None:
            return "row"
        return "instrument" if self.instrument is not None else "period" if self.period else "table"

    @property
    def changes(self) -> dict[str, tuple[str | None, str | None]]:
        """The columns of a row that differ."""
        return changes(self.before, self.after) if self.before and self.after else {}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as --json gives them."""
        return {
            "what": self.kind, "level": self.level, "dataset": self.dataset, "schema": self.schema,
            "period": self.period or None, "instrument_id": self.instrument, "publisher_id": self.publisher,
            "symbol": self.symbol or None, "rows": None if self.rows is None else list(self.rows),
            "time": None if self.time is None else iso_ns(self.time), "before": self.before, "after": self.after,
            "note": self.note or None,
        }  # fmt: skip


class Side(Protocol):
    """What can be compared: a lock that was kept, or a store."""

    @property
    def lock(self) -> Lock:
        """Its tables."""

    def leaves(self, at: int, part: Part) -> Sequence[Leaf] | None:
        """The leaves of a period of the table ``at`` this place; None where nobody knows them."""

    def rows(self, at: int, leaf: Key, period: Window) -> Rows | None:
        """The rows of a leaf; None where nobody knows them."""


@dataclass(frozen=True)
class Kept:
    """A lock that was read from a file."""

    file: LockFile

    @property
    def lock(self) -> Lock:
        """The lock."""
        return self.file.lock

    def leaves(self, at: int, part: Part) -> Sequence[Leaf] | None:
        """See :class:`Side`."""
        del at
        return part.leaves

    def rows(self, at: int, leaf: Key, period: Window) -> Rows | None:
        """See :class:`Side`: the marks, where the lock was made with them."""
        return None if self.file.marks is None else _Marks(self.file, at, leaf, period)


@dataclass(frozen=True)
class _Marks:
    file: LockFile
    table: int
    leaf: Key
    period: Window

    def marked(self) -> Iterator[pl.DataFrame]:
        """See :class:`hdi.locking.rows.Rows`."""
        yield from self.file.marks_of(self.table, self.leaf, self.period).collect_batches()


class Live:
    """Tables of a store, read now."""

    def __init__(
        self, store: Store, schemas: Schemas, shares: Sequence[Share], tell: Callable[[int], None] = lambda _: None
    ) -> None:
        self._readings = [Reading(store, schemas, share) for share in shares]
        self.lock = Lock(tuple(table(reading, tell=tell) for reading in self._readings), {})

    def leaves(self, at: int, part: Part) -> Sequence[Leaf] | None:
        """See :class:`Side`; of a table with too many they are made again."""
        if part.leaves is not None:
            return part.leaves
        reading = self._readings[at]
        cell = reading.share.cell(part.start).cut(reading.share.window)
        again = [] if cell is None else reading.parts(cell)
        return next((found.leaves for found in again if found.start == part.start), ())

    def rows(self, at: int, leaf: Key, period: Window) -> Rows | None:
        """See :class:`Side`."""
        return _Stored(self._readings[at], leaf, period)


@dataclass(frozen=True)
class _Stored:
    reading: Reading
    leaf: Key
    period: Window

    def marked(self) -> Iterator[pl.DataFrame]:
        """See :class:`hdi.locking.rows.Rows`."""
        share = self.reading.share
        window = self.period.cut(share.window)
        if window is None:
            return
        instrument, publisher = self.leaf
        if share.instruments is None:
            whole = pl.DataFrame([(share.dataset, instrument, 0, MAX_NS)], schema=RECTANGLES, orient="row")
        else:
            whole = share.instruments.filter(pl.col("instrument_id") == instrument)
        index = self.reading.schema.index_time
        for frame in self.reading.frames(window, whole, ordered=True):
            mine = frame.filter(pl.col("publisher_id") == publisher)
            if mine.height:
                found = marks(self.reading.encoding.rows(mine))
                yield mine.with_columns(
                    time=mine[index].to_physical(), high=pl.Series(found[:, 0]), low=pl.Series(found[:, 1])
                )


class Comparison:
    """Two sides. ``equal`` is true where every digest is the same; :meth:`differences` says what is not."""

    def __init__(self, first: Side, second: Side) -> None:
        self.first, self.second = first, second
        self.equal = first.lock.root == second.lock.root

    def differences(self) -> Iterator[Difference]:
        """What differs, from tables down to rows, by dataset, schema, time, instrument and publisher."""
        mine = {(t.share.dataset, t.share.schema): k for k, t in enumerate(self.first.lock.tables)}
        theirs = {(t.share.dataset, t.share.schema): k for k, t in enumerate(self.second.lock.tables)}
        for name in sorted(mine.keys() | theirs.keys()):
            yield from self._tables(name, mine.get(name), theirs.get(name))

    def _tables(self, name: tuple[str, str], one: int | None, two: int | None) -> Iterator[Difference]:
        first = None if one is None else self.first.lock.tables[one]
        second = None if two is None else self.second.lock.tables[two]
        rows = (first.rows if first else 0, second.rows if second else 0)
        if first is None or second is None or not all(rows):
            if any(rows):
                yield Difference("missing" if rows[0] else "extra", *name, rows=rows)
            return
        if first.head != second.head:
            yield Difference("columns", *name, rows=rows, note=_columns(first.share, second.share))
            return
        if first.digest != second.digest and one is not None and two is not None:
            yield from self._parts(first, second, (one, two))

    def _parts(self, first: Table, second: Table, at: tuple[int, int]) -> Iterator[Difference]:
        name = first.share.dataset, first.share.schema
        mine, theirs = ({part.start: part for part in t.parts} for t in (first, second))
        for start in sorted(mine.keys() | theirs.keys()):
            one, two = mine.get(start), theirs.get(start)
            if one is None or two is None:
                there = one or two
                if there is not None:
                    rows = (one.rows if one else 0, two.rows if two else 0)
                    period = shown(there, first.share.period)
                    yield Difference("missing" if one else "extra", *name, period, rows=rows)
            elif (one.rows, one.digest) != (two.rows, two.digest):
                yield from self._leaves(first.share, one, two, at)

    def _leaves(self, share: Share, one: Part, two: Part, at: tuple[int, int]) -> Iterator[Difference]:
        name = share.dataset, share.schema, shown(one, share.period)
        leaves = self.first.leaves(at[0], one), self.second.leaves(at[1], two)
        if leaves[0] is None or leaves[1] is None:
            yield Difference("changed", *name, rows=(one.rows, two.rows), note="the lock keeps no instruments of it")
            return
        mine, theirs = ({leaf.key: leaf for leaf in found} for found in leaves if found is not None)
        for key in sorted(mine.keys() | theirs.keys()):
            a, b = mine.get(key), theirs.get(key)
            if a == b or (a and b and (a.rows, a.digest) == (b.rows, b.digest)):
                continue
            rows = (a.rows if a else 0, b.rows if b else 0)
            symbol = (a and a.symbol) or (b and b.symbol) or ""
            kind: Kind = "changed" if a and b else "missing" if a else "extra"
            if b and b.disordered and a and a.rows == b.rows:
                kind = "disordered"
            yield Difference(kind, *name, *key, symbol, rows)
            yield from self._rows(share, share.cell(one.start), key, symbol, rows, at)

    def _rows(
        self, share: Share, period: Window, key: Key, symbol: str, rows: tuple[int, int], at: tuple[int, int]
    ) -> Iterator[Difference]:  # fmt: skip
        first, second = self.first.rows(at[0], key, period), self.second.rows(at[1], key, period)
        if first is None or second is None or not all(rows):
            return
        name = share.dataset, share.schema
        text = shown(Part(period.start, 0, b"", None), share.period)
        for found in unlike(first, second, max(rows)):
            before, after = found["before"], found["after"]
            kind: Kind = "extra" if before is None else "missing" if after is None else "changed"
            yield Difference(
                kind, *name, text, *key, symbol, time=found["time"], before=before or None, after=after or None
            )


def _columns(first: Share, second: Share) -> str:
    """How the columns of two shares differ, as a sentence."""
    one, two = dict(first.columns), dict(second.columns)
    told = [
        f"{c} is {two.get(c, 'not there')}, and was {one.get(c, 'not there')}"
        for c in {**one, **two}
        if one.get(c) != two.get(c)
    ]
    return "; ".join(told) or "their columns come in another order"


__all__ = ["Comparison", "Difference", "Kept", "Live", "Side"]

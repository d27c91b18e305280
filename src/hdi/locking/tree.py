"""What a lock says: a tree of digests over rows, the same however the rows were loaded, and wherever they lie.

A leaf is what one publisher says of one instrument in one period (a UTC day, or a month): the SHA-256 of its rows
(:mod:`hdi.fingerprint` has their bytes) by index time, and at one instant by their marks (:mod:`hdi.locking.marks`).
A part is a period: the SHA-256 of its leaves by instrument and publisher, each as these two, its rows (eight bytes
each) and its digest. A table is one dataset and schema: the SHA-256 of what :attr:`Table.head` says, and of its parts
by time, each as its start in nanoseconds and its rows (eight bytes each) and its digest. The root is the SHA-256 of
the tables' digests by dataset and schema, behind "hdi lock 1".
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import polars as pl

from hdi.lookup import RECTANGLES
from hdi.model import Window, cell_end, cell_start

Period = Literal["day", "month"]
_ROOT = b"hdi lock 1"


@dataclass(frozen=True, slots=True)
class Leaf:
    """What one publisher says of one instrument in one period. ``symbol`` names it to people, and is in no digest.

    ``disordered`` tells that the store gave its rows in another order than their times have.
    """

    instrument: int
    publisher: int
    rows: int
    digest: bytes
    symbol: str = ""
    disordered: bool = False

    @property
    def key(self) -> tuple[int, int]:
        """Instrument and publisher."""
        return self.instrument, self.publisher


@dataclass(frozen=True, slots=True)
class Part:
    """One period; ``leaves`` is None where there are too many to keep. ``disordered`` names leaves that are."""

    start: int
    rows: int
    digest: bytes
    leaves: tuple[Leaf, ...] | None
    disordered: tuple[Leaf, ...] = ()

    @classmethod
    def of(cls, start: int, leaves: Iterable[Leaf]) -> Part:
        """The period with these leaves, in any order."""
        mine = tuple(sorted(leaves, key=lambda leaf: leaf.key))
        digest = hashlib.sha256()
        for leaf in mine:
            digest.update(struct.pack("<qqq", *leaf.key, leaf.rows) + leaf.digest)
        return cls(start, sum(f.rows for f in mine), digest.digest(), mine, tuple(f for f in mine if f.disordered))


@dataclass(frozen=True)
class Share:
    """What of a store a table is about: a dataset and schema, a window, all instruments or rectangles of some.

    ``columns`` are the public columns with their declared types that make up a row: all but those that the names of
    dataset and schema imply.
    """

    dataset: str
    schema: str
    period: Period
    columns: tuple[tuple[str, str], ...]
    window: Window
    instruments: pl.DataFrame | None = field(compare=False)

    @property
    def rectangles(self) -> list[tuple[int, int, int]] | None:
        """The rectangles as instrument, start and end; None is every instrument."""
        if self.instruments is None:
            return None
        return sorted(self.instruments.select("instrument_id", "start", "end").rows())

    def cell(self, ns: int) -> Window:
        """The period that holds an instant."""
        return Window(cell_start(ns, self.period), cell_end(ns, self.period))


@dataclass(frozen=True)
class Table:
    """One dataset and schema."""

    share: Share
    parts: Sequence[Part]

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return sum(part.rows for part in self.parts)

    @property
    def head(self) -> str:
        """Which dataset and schema, which columns, which periods; as JSON."""
        share = self.share
        return dumps([share.dataset, share.schema, [list(c) for c in share.columns], share.period])

    @property
    def digest(self) -> bytes:
        """Of the head and all parts."""
        digest = hashlib.sha256(self.head.encode())
        for part in self.parts:
            digest.update(struct.pack("<qq", part.start, part.rows) + part.digest)
        return digest.digest()


@dataclass(frozen=True)
class Lock:
    """Tables by dataset and schema, and what is said of them: ``about`` is in no digest."""

    tables: Sequence[Table]
    about: dict[str, Any]

    @property
    def root(self) -> str:
        """Sixty-four hexadecimal digits. Tables without a row are no part of it."""
        digest = hashlib.sha256(_ROOT)
        for table in self.tables:
            if table.parts:
                digest.update(table.digest)
        return digest.hexdigest()

    @property
    def rows(self) -> int:
        """How many rows it is about."""
        return sum(table.rows for table in self.tables)


def rectangles(dataset: str, rows: Sequence[Sequence[int]] | None) -> pl.DataFrame | None:
    """Rectangles as a store takes them."""
    if rows is None:
        return None
    frame = pl.DataFrame([(dataset, *row) for row in rows], schema=RECTANGLES, orient="row")
    return frame.sort("instrument_id", "start")


def dumps(value: Any) -> str:
    """JSON without spaces."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


__all__ = ["Leaf", "Lock", "Part", "Period", "Share", "Table", "dumps", "rectangles"]

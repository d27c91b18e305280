"""A SHA-256 of rows in their order: the same for the same rows, whatever store they lie in and however they are read.

For each column there are two streams over all rows: a byte for each row, 1 where it has a value, and the values,
little-endian, zero where there is none. Times are nanoseconds since 1970 in eight bytes, decimals units of 10**-9 in
sixteen, booleans a byte, texts their length in four bytes; the UTF-8 of the texts is a third stream. The fingerprint is
the SHA-256 of the number of rows in eight bytes, and for each column, by name: the name, a zero byte, and the SHA-256
of each stream, of which columns that are no text leave the third empty.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from hashlib import _Hash

_WIDTHS = {pl.Int16: 2, pl.Int32: 4, pl.Int64: 8, pl.UInt8: 1, pl.UInt32: 4, pl.Decimal: 16, pl.Datetime: 8}


class Fingerprint:
    """The fingerprint of the rows that were added so far. All frames have the same columns and types."""

    def __init__(self) -> None:
        self.rows = 0
        self._streams: dict[str, tuple[_Hash, ...]] = {}

    def add(self, frame: pl.DataFrame) -> None:
        """Add rows behind those that were added before."""
        self.rows += frame.height
        for column in frame.iter_columns():
            streams = self._streams.get(column.name)
            if streams is None:
                streams = self._streams[column.name] = tuple(hashlib.sha256() for _ in range(3))
            for stream, data in zip(streams, _data(column), strict=False):
                stream.update(data)

    def copy(self) -> Fingerprint:
        """One that goes on from here by itself."""
        twin = Fingerprint()
        twin.rows = self.rows
        twin._streams = {name: tuple(s.copy() for s in streams) for name, streams in self._streams.items()}
        return twin

    @property
    def digest(self) -> str:
        """Sixty-four hexadecimal digits."""
        whole = hashlib.sha256(self.rows.to_bytes(8, "little"))
        # Without rows no frame has said which columns there are.
        for name, streams in sorted(self._streams.items()) if self.rows else ():
            whole.update(name.encode() + b"\0" + b"".join(s.digest() for s in streams))
        return whole.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fingerprint) and self.digest == other.digest

    __hash__ = None  # type: ignore[assignment]  # it changes with every row


def _data(column: pl.Series) -> Iterable[Any]:
    """Which rows have a value, and the values."""
    yield _buffer(column.is_not_null().cast(pl.UInt8))
    if isinstance(column.dtype, pl.String):
        text = column.fill_null("")
        yield _buffer(text.str.len_bytes())
        yield _text(text)
    elif isinstance(column.dtype, pl.Boolean):
        yield _buffer(column.fill_null(value=False).cast(pl.UInt8))
    elif isinstance(column.dtype, pl.Datetime):
        yield _buffer(column.to_physical().fill_null(0))
    else:
        yield _buffer(column.fill_null(0))


def _buffer(column: pl.Series) -> memoryview:
    """The values of a column without nulls, as they lie in memory."""
    array = column.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    width = _WIDTHS[column.dtype.base_type()]
    return memoryview(array.buffers()[1])[array.offset * width : (array.offset + len(array)) * width]


def _text(column: pl.Series) -> memoryview:
    array = column.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    offsets = memoryview(array.buffers()[1]).cast("B").cast("q")
    data = array.buffers()[2]
    first, last = offsets[array.offset], offsets[array.offset + len(array)]
    return memoryview(data if data is not None else b"")[first:last]


__all__ = ["Fingerprint"]

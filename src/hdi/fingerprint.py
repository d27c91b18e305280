"""Rows as bytes, the same wherever they lie, and what is made of those: a SHA-256 of rows in their order.

A row is its columns one behind the other, each of a fixed width, little-endian: integers, times (nanoseconds since
1970) and decimals (units of 10**-9, in eight bytes) in two's complement, a boolean as one byte. A text takes sixteen:
its length in bytes (four) and the UTF-8, padded with zeros; one of more than twelve bytes is the first sixteen of its
SHA-256, with the highest bit of the fourth set. Then comes a bit for each column, lowest first, 1 where it has no
value, of which the bytes above are zero; and zeros up to a multiple of eight bytes.

The fingerprint is the SHA-256 of: for each column, by name, its name and its letters here, each with a zero byte; all
rows; their number in eight bytes. Without rows it is that of the number alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from hashlib import _Hash

    from numpy.typing import NDArray

_LETTERS: dict[Any, str] = {
    pl.Boolean: "u1", pl.UInt8: "u1", pl.Int16: "<i2", pl.Int32: "<i4", pl.UInt32: "<u4", pl.Int64: "<i8",
    pl.Decimal: "<i8", pl.Datetime: "<i8", pl.String: "V16",
}  # fmt: skip
#: Texts of more bytes than this stand as their digest.
_INLINE, _TEXT, _WORD = 12, 16, 8
_DIGEST_BIT = 0x80
_EACH = 1 << 17


class Encoding:
    """How rows of these columns become bytes."""

    def __init__(self, columns: Sequence[tuple[str, pl.DataType]]) -> None:
        self.columns = tuple(name for name, _ in columns)
        self.letters = tuple(_LETTERS[dtype.base_type()] for _, dtype in columns)
        fields = [(name, np.dtype(letters)) for name, letters in zip(self.columns, self.letters, strict=True)]
        flags = -(-len(fields) // 8)
        used = sum(dtype.itemsize for _, dtype in fields) + flags
        #: Bytes of a row.
        self.width = -(-used // _WORD) * _WORD
        self._flags = slice(used - flags, used)
        self._dtype = np.dtype([*fields, ("", np.dtype(f"V{self.width - used + flags}"))])

    def rows(self, frame: pl.DataFrame) -> NDArray[np.uint8]:
        """The rows of a frame that has these columns, one line of bytes each."""
        out = np.zeros((frame.height, self.width), np.uint8)
        if not frame.height:
            return out
        fields = out.view(self._dtype)[:, 0]
        for k, name in enumerate(self.columns):
            column = frame[name]
            missing = column.is_null().to_numpy() if column.null_count() else None
            fields[name] = _texts(column) if isinstance(column.dtype, pl.String) else _numbers(column)
            if missing is not None:
                fields[name][missing] = np.zeros((), fields[name].dtype)
                out[missing, self._flags.start + k // 8] |= np.uint8(1 << k % 8)
        return out


def _numbers(column: pl.Series) -> NDArray[Any]:
    if isinstance(column.dtype, pl.Boolean):
        column = column.cast(pl.UInt8)
    elif isinstance(column.dtype, pl.Decimal):
        column = column.to_physical().cast(pl.Int64)
    elif isinstance(column.dtype, pl.Datetime):
        column = column.to_physical()
    return column.fill_null(0).to_numpy()


def _texts(column: pl.Series) -> NDArray[Any]:
    """Sixteen bytes for each text: what Arrow's views of short ones are."""
    views = column.rechunk().to_arrow(compat_level=pl.CompatLevel.newest())
    first = views.offset * _TEXT
    found = np.frombuffer(views.buffers()[1], np.uint8)[first : first + len(views) * _TEXT].reshape(-1, _TEXT)
    long = found.view("<u4")[:, 0] > _INLINE
    if views.null_count:
        long &= column.is_not_null().to_numpy()
    if long.any():
        found = found.copy()
        found[long] = _digests(column.filter(pl.Series(long)))
    return np.ascontiguousarray(found).view("V16")[:, 0]


def _digests(texts: pl.Series) -> NDArray[np.uint8]:
    """The digests of long texts; each different one is digested once."""
    different = texts.unique()
    table = np.frombuffer(
        b"".join(hashlib.sha256(text.encode()).digest()[:_TEXT] for text in different.to_list()), np.uint8
    ).reshape(-1, _TEXT).copy()  # fmt: skip
    table[:, 3] |= _DIGEST_BIT
    if len(different) == 1:
        return table.repeat(len(texts), axis=0)
    numbered = pl.DataFrame({"text": different, "number": pl.int_range(len(different), eager=True)})
    numbers = texts.to_frame("text").join(numbered, on="text", how="left", maintain_order="left")["number"]
    found: NDArray[np.uint8] = table[numbers.to_numpy()]
    return found


class Fingerprint:
    """The fingerprint of the rows that were added so far. All frames have the same columns and types."""

    def __init__(self) -> None:
        self.rows = 0
        self._encoding: Encoding | None = None
        self._hash: _Hash = hashlib.sha256()

    def add(self, frame: pl.DataFrame) -> None:
        """Add rows behind those that were added before."""
        if not frame.height:
            return
        if self._encoding is None:
            encoding = self._encoding = Encoding(sorted(frame.schema.items()))
            for pair in zip(encoding.columns, encoding.letters, strict=True):
                self._hash.update("".join(f"{text}\0" for text in pair).encode())
        for part in frame.iter_slices(_EACH):
            self._hash.update(self._encoding.rows(part).data)
        self.rows += frame.height

    def copy(self) -> Fingerprint:
        """One that goes on from here by itself."""
        twin = Fingerprint()
        twin.rows, twin._encoding, twin._hash = self.rows, self._encoding, self._hash.copy()
        return twin

    @property
    def digest(self) -> str:
        """Sixty-four hexadecimal digits."""
        whole = self._hash.copy()
        whole.update(self.rows.to_bytes(8, "little"))
        return whole.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fingerprint) and self.digest == other.digest

    __hash__ = None  # type: ignore[assignment]  # it changes with every row


__all__ = ["Encoding", "Fingerprint"]

"""Marks of rows: 128 bits for each, made of its bytes with NumPy alone, so that they never change with a library.

They name rows and put those of one instant in order; what is proven is proven by SHA-256. Two rows that differ in one
of their words of eight bytes never have the same mark.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Start and odd multiplier of each half, and by how much it is shifted.
_HALVES = (
    (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(29)),
    (np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x94D049BB133111EB), np.uint64(32)),
)
#: Rows whose words stay in the processor's cache.
_EACH = 4_096


def marks(rows: NDArray[np.uint8], halves: int = 2) -> NDArray[np.uint64]:
    """The marks of rows of bytes, one line of ``halves`` words each."""
    words = rows.view("<u8")
    out = np.empty((len(words), halves), np.uint64)
    for at in range(0, len(words), _EACH):
        columns = np.ascontiguousarray(words[at : at + _EACH].T)
        for half in range(halves):
            out[at : at + _EACH, half] = _mixed(columns, half)
    return out


def _mixed(columns: NDArray[np.uint64], half: int) -> NDArray[np.uint64]:
    start, multiplier, shift = _HALVES[half]
    mixed = np.full(columns.shape[1], start, np.uint64)
    turned = np.empty_like(mixed)
    for column in columns:
        mixed ^= column
        mixed *= multiplier
        np.right_shift(mixed, shift, out=turned)
        mixed ^= turned
    mixed *= multiplier
    np.right_shift(mixed, shift, out=turned)
    mixed ^= turned
    return mixed


__all__ = ["marks"]

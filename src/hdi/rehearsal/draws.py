"""Random numbers without a state: each is a hash of what it is for, so that any part of the tape can be made alone."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

I64: TypeAlias = NDArray[np.int64]
U64: TypeAlias = NDArray[np.uint64]
F64: TypeAlias = NDArray[np.float64]
Bool: TypeAlias = NDArray[np.bool_]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)
_SIGNIFICANT = 53


def keyed(key: U64 | int, number: I64 | U64 | int) -> U64:
    """A 64-bit number for each (key, number): independent of all others, the same for ever. At least one of 1-d.

    The finalizer of SplitMix64 over a Weyl sequence that starts at the key.
    """
    # Single numbers would warn that they overflow, arrays wrap around as they should.
    out: U64 = np.atleast_1d(np.asarray(number)).astype(np.uint64) * _GOLDEN
    out = out + np.asarray(key).astype(np.uint64)
    out ^= out >> _SHIFTS[0]
    out *= _FIRST
    out ^= out >> _SHIFTS[1]
    out *= _SECOND
    out ^= out >> _SHIFTS[2]
    return out


def text_key(text: str) -> int:
    """A number below 2**63 for a name, the same in every process."""
    out = 0xCBF29CE484222325
    for byte in text.encode():
        out = (out ^ byte) * 0x100000001B3 % 2**64
    return out >> 1


def bits(draw: U64, low: int, count: int) -> I64:
    """The number that ``count`` bits of a draw spell, from bit ``low``; below 2**``count``."""
    out: I64 = ((draw >> np.uint64(low)) & np.uint64((1 << count) - 1)).view(np.int64)
    return out


def unit(draw: U64, low: int = 0, count: int = _SIGNIFICANT) -> F64:
    """A fraction in [0, 1) of ``count`` bits of a draw, at most 53."""
    return np.multiply(bits(draw, low, count), 1.0 / (1 << count), dtype=np.float64)


def bell(draw: U64) -> F64:
    """A nearly normal number with mean 0 and variance 1, within 3.5: the sum of four 16-bit fractions."""
    total = bits(draw, 0, 16) + bits(draw, 16, 16) + bits(draw, 32, 16) + bits(draw, 48, 16)
    out: F64 = (total * (1.0 / (1 << 16)) - 2.0) * 3.0**0.5
    return out


def below(key: U64, points: I64, share: F64) -> I64:
    """How many of ``points`` points lie in the first ``share`` of a stretch: none of them at 0, all of them at 1.

    Point i lies at random in the i-th of ``points`` equal parts, so the answer needs one draw, whatever their number.
    """
    at = points * share
    whole = np.floor(at)
    out: I64 = whole.astype(np.int64)
    out += unit(keyed(key, out)) < at - whole
    return out

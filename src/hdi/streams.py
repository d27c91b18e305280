"""Streams of bytes that take all that is written, or raise."""

from __future__ import annotations

import errno
import io
from typing import Any, BinaryIO, cast


def counted(file: BinaryIO) -> BinaryIO:
    """A stream that cannot seek but knows its position, which writers of Parquet and Arrow ask for.

    It takes all that is written, or raises: a file that Python does not buffer may take a part and say how much.
    """
    return cast("BinaryIO", _Counted(file))


class _Counted(io.RawIOBase):
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        while left:
            taken = self._file.write(left)
            if taken is None:
                raise BlockingIOError(errno.EAGAIN, "it takes no more for now")
            left = left[taken:]
        self._position += size
        return size


__all__ = ["counted"]

"""The body of a stream: DBN header and records in one zstd frame, in pieces whose record bytes are known."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import databento_dbn as dbn
import numpy as np

from hdi.rehearsal.layouts import MESSAGES

if TYPE_CHECKING:
    from databento_dbn.metadata import MappingInterval
try:
    from compression import zstd  # type: ignore[import-not-found, unused-ignore]
except ImportError:  # Python before 3.14
    from backports import zstd

Array = np.ndarray[Any, np.dtype[Any]]
_OPTIONS = {zstd.CompressionParameter.compression_level: 1, zstd.CompressionParameter.checksum_flag: 1}
#: A piece is flushed when it holds so many record bytes: enough to compress well, little enough to stay in the cache.
_PIECE = 1 << 20


def record_size(schema: str) -> int:
    """Bytes of one record of DBN version 3."""
    size: int = MESSAGES[schema].size_hint
    return size


@dataclass
class _Interval:
    start_date: dt.date
    end_date: dt.date
    symbol: str


@dataclass
class _Mapping:
    raw_symbol: str
    intervals: Sequence[MappingInterval]


def header(fields: Mapping[str, Any], mappings: Mapping[str, Sequence[tuple[dt.date, dt.date, str]]]) -> bytes:
    """The metadata of a DBN version 3 stream.

    ``fields`` are those of the vendor's ``Metadata`` (schema and stypes as text); ``mappings`` give for each key its
    date intervals, end exclusive, with the symbol in force.
    """
    texts: dict[str, Any] = {"stype_in": dbn.SType, "stype_out": dbn.SType, "schema": dbn.Schema}
    given = {name: texts[name].from_str(value) if name in texts else value for name, value in fields.items()}
    listed = [_Mapping(key, [_Interval(*each) for each in intervals]) for key, intervals in mappings.items()]
    return bytes(dbn.Metadata(**given, mappings=listed, version=dbn.DBN_VERSION).encode())


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes to send, and how many record bytes they are when unpacked."""

    wire: bytes
    size: int


def packed(head: bytes, batches: Iterable[Array]) -> Iterator[Piece]:
    """The zstd frame of header and records, in pieces; each can be unpacked when it has arrived."""
    packer = zstd.ZstdCompressor(options=_OPTIONS)
    yield Piece(packer.compress(head, packer.FLUSH_BLOCK), 0)
    parts, size = [], 0
    for batch in batches:
        raw = np.ascontiguousarray(batch).view(np.uint8)
        for at in range(0, len(raw), _PIECE):
            slab = raw[at : at + _PIECE]
            parts.append(packer.compress(slab))
            size += len(slab)
            if size >= _PIECE:
                parts.append(packer.flush(packer.FLUSH_BLOCK))
                yield Piece(b"".join(parts), size)
                parts, size = [], 0
    parts.append(packer.flush(packer.FLUSH_FRAME))
    yield Piece(b"".join(parts), size)


def first(batches: Iterable[Array], records: int | None) -> Iterator[Array]:
    """The first so many records; all of them for None."""
    left = records
    for batch in batches:
        if left is None:
            yield batch
            continue
        if left == 0:
            return
        kept = batch[:left]
        left -= len(kept)
        yield kept


def truncated(pieces: Iterable[Piece], head: int, after: int) -> Iterator[Piece]:
    """The first ``after`` bytes of a frame, and never its last one; ``head`` is the size of the unpacked header.

    The sizes are those of what the truncated frame can be unpacked to.
    """
    unpacker = zstd.ZstdDecompressor()
    unpacked, left, told = 0, after, 0
    held: Piece | None = None
    for piece in _with_end(pieces):
        if held is not None:
            most = len(held.wire) - 1 if piece is None else len(held.wire)
            wire = held.wire[: min(left, most)]
            left -= len(wire)
            unpacked += len(unpacker.decompress(wire))
            size = max(0, unpacked - head)
            yield Piece(wire, size - told)
            told = size
            if not left:
                return
        held = piece


def _with_end(pieces: Iterable[Piece]) -> Iterator[Piece | None]:
    yield from pieces
    yield None


def flipped(pieces: Iterable[Piece], after: int | None) -> Iterator[Piece]:
    """The frame with all bits of one byte turned: byte ``after``, or one amid the first records.

    A frame that is shorter has its last byte turned, which is part of the checksum.
    """
    sent, done = 0, False
    held: Piece | None = None
    for piece in _with_end(pieces):
        if held is not None and not done:
            at = after - sent if after is not None else len(held.wire) // 2 if held.size else len(held.wire)
            at = min(at, len(held.wire) - 1) if piece is None else at
            if at < len(held.wire):
                held, done = Piece(_turned(held.wire, at), held.size), True
        if held is not None:
            sent += len(held.wire)
            yield held
        held = piece


def _turned(wire: bytes, at: int) -> bytes:
    return wire[:at] + bytes([wire[at] ^ 0xFF]) + wire[at + 1 :]

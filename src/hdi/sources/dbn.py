"""DBN files to frames, with the checks that the format itself does not make.

A file is read once, front to back: the same bytes are hashed, kept (``keep``), decompressed and decoded,
so what is stored is what was kept. A frame that does not end, a record of another kind or length, and
bytes after the last whole record are errors; the vendor's own reader takes the first for a clean end.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import databento_dbn as dbn
import numpy as np
import polars as pl

from hdi.errors import CorruptFile, HdiError, NotDbn, RequestError, TruncatedFile
from hdi.model import MAX_NS, Header, date_ns
from hdi.sources.records import MESSAGES, Array, layout, to_frame

if TYPE_CHECKING:
    from types import TracebackType
try:
    from compression import zstd  # type: ignore[import-not-found, unused-ignore]
except ImportError:  # Python before 3.14
    from backports import zstd

_ZSTD = b"\x28\xb5\x2f\xfd"
_CHUNK = 1 << 20
#: Larger pieces come from fresh pages each time, and cost twice as much.
_OUT = 1 << 20
#: So much is given to the decompressor at once: it copies what lies behind the end of a frame.
_SLICE = 1 << 15
#: Wide records come in smaller batches, whatever was asked for: they fit the cache, and bound the memory.
_BATCH_BYTES = 8 << 20
#: "DBN", the version, and the length of the rest of the header.
_LEAD = 8
#: No real header comes near; a hostile length must not be believed.
_MAX_HEADER = 64 << 20
_DATASET = re.compile(r"[A-Z0-9][A-Z0-9_-]*(\.[A-Z0-9][A-Z0-9_-]*)+")
_UNDEF_TIME = 2**64 - 1


class Sink(Protocol):
    """Anything that takes the bytes as they are read."""

    def write(self, data: bytes, /) -> Any:
        """Take one chunk."""


class Reader:
    """One pass over one DBN file. ``header`` is read at once; then :meth:`frames`.

    After the last frame ``digest`` (SHA-256 of the file as it lies), ``size`` (bytes) and ``records`` are known.
    Raises NotDbn or RequestError for a file that is none, CorruptFile for one that is broken.
    """

    def __init__(self, path: Path, keep: Sink | None = None) -> None:
        self.path = path
        self.size = 0
        self.records = 0
        self._hash = hashlib.sha256()
        self._keep = keep
        self._file = _open(path)
        try:
            self._bytes = _Unpacker(self._chunk, path)
            self.header = _header(self._bytes, path)
            #: Where the first record begins in the plain bytes.
            self.records_at = self._bytes.taken
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def packed(self) -> bool:
        """True for a zstd file."""
        return self._bytes.packed

    @property
    def digest(self) -> str:
        """SHA-256 of what was read so far, in hexadecimal."""
        return self._hash.hexdigest()

    def _chunk(self) -> bytes:
        try:
            data: bytes = self._file.read(_CHUNK)
        except OSError as exc:
            raise RequestError(f"{self.path}: cannot be read: {exc.strerror}") from exc
        self._hash.update(data)
        self.size += len(data)
        if self._keep is not None and data:
            self._keep.write(data)
        return data

    def frames(
        self, batch: int, undefined: Mapping[str, list[str]] | None = None, kind: str = ""
    ) -> Iterator[pl.DataFrame]:
        """Frames of at most ``batch`` records, in file order, as :func:`hdi.sources.records.columns`.

        Ends only when the file is whole to its last byte; raises CorruptFile otherwise.
        """
        names = (undefined or {}).get(kind, [])
        for records in self.arrays(batch):
            yield to_frame(records, self.header.schema, names)

    def arrays(self, batch: int) -> Iterator[Array]:
        """The records as structured arrays, each checked for length and record type."""
        head = self.header
        shape = layout(head.schema, head.version)
        rtype = int(dbn.RType.from_schema(dbn.Schema(head.schema)).value)
        pieces = self._bytes.take
        want = min(batch, max(_BATCH_BYTES // shape.itemsize, 1)) * shape.itemsize
        while data := pieces(want):
            whole, rest = divmod(len(data), shape.itemsize)
            records = np.frombuffer(data, dtype=shape, count=whole)
            bad = (records["length"] != shape.itemsize // 4) | (records["rtype"] != rtype)
            if bad.any():
                self._wrong_record(records[int(bad.argmax())], int(bad.argmax()), shape.itemsize // 4, rtype)
            if rest:
                raise TruncatedFile(
                    f"{self.path}: truncated: {rest} bytes of record {self.records + whole}, of {shape.itemsize}",
                    "Get the file again; nothing of it was stored.",
                )
            self.records += whole
            yield records

    def _wrong_record(self, record: Any, at: int, length: int, rtype: int) -> None:
        raise CorruptFile(
            f"{self.path}: record {self.records + at} is not a {self.header.schema} record: "
            f"type {int(record['rtype'])} of {int(record['length']) * 4} bytes, not type {rtype} of {length * 4}",
            "The file is damaged, or mixes kinds of records (a live recording does). Nothing of it was stored.",
        )


def record_bytes(path: Path) -> int:
    """Bytes of records in a zstd DBN file, as far as it can be read: it may end anywhere."""
    total, lead = 0, b""
    unpack = zstd.ZstdDecompressor()
    with path.open("rb") as file, contextlib.suppress(zstd.ZstdError):
        while True:
            # What it was given is unpacked first: a little may be a lot.
            hungry = unpack.eof or unpack.needs_input
            piece = unpack.unused_data or (file.read(_SLICE) if hungry else b"")
            if hungry and not piece:
                break
            if unpack.eof:
                unpack = zstd.ZstdDecompressor()
            out = unpack.decompress(piece, max_length=_OUT)
            lead = lead if len(lead) >= _LEAD else lead + out[:_LEAD]
            total += len(out)
    header = _LEAD + int.from_bytes(lead[4:_LEAD], "little")
    return max(0, total - header)


def pack(data: bytes) -> bytes:
    """A zstd frame with a content checksum, as the vendor sends its files."""
    level, checksum = zstd.CompressionParameter.compression_level, zstd.CompressionParameter.checksum_flag
    packed: bytes = zstd.compress(data, options={level: 3, checksum: 1})
    return packed


def _open(path: Path) -> Any:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise RequestError(f"{path}: is a folder", f"Name the files in it: {path}/*.dbn.zst")
        if not stat.S_ISREG(mode):
            raise RequestError(f"{path}: is not a regular file")
        return path.open("rb", buffering=0)
    except FileNotFoundError as exc:
        raise RequestError(
            f"{path}: no such file", "Check the path; a relative one starts at the working folder."
        ) from exc
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise RequestError(f"{path}: cannot be opened: {reason}") from exc


class _Unpacker:
    """Plain bytes out of plain or zstd bytes in, at most ``_OUT`` more than asked for in memory."""

    def __init__(self, read: Callable[[], bytes], path: Path) -> None:
        self._read = read
        self._path = path
        self._held = memoryview(b"")
        self.taken = 0
        first = b""
        while len(first) < len(_ZSTD) and (more := read()):
            first += more
        if not first:
            raise NotDbn(f"{path}: the file is empty", "A DBN file without records still has a header.")
        self.packed = first[:4] == _ZSTD
        self._input, self._at = memoryview(first), 0
        self._frame: Any = zstd.ZstdDecompressor() if self.packed else None
        self._ended = False

    def take(self, want: int) -> memoryview:
        """The next ``want`` bytes; fewer only at the end, and none after it."""
        pieces, held = [self._held], len(self._held)
        while held < want and not self._ended:
            if piece := self._plain():
                pieces.append(memoryview(piece))
                held += len(piece)
        whole = pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))
        self._held = whole[want:]
        self.taken += min(want, len(whole))
        return whole[:want]

    def _plain(self) -> bytes | memoryview:
        if not self.packed:
            data = self._fed(_CHUNK)
            self._ended = not data
            return data
        try:
            return self._unpack()
        except zstd.ZstdError as exc:
            raise CorruptFile(f"{self._path}: damaged: {exc}", "Get the file again; nothing of it was stored.") from exc

    def _fed(self, most: int) -> memoryview:
        """The next bytes of the file, at most so many; none at its end."""
        if self._at == len(self._input):
            self._input, self._at = memoryview(self._read()), 0
        data = self._input[self._at : self._at + most]
        self._at += len(data)
        return data

    def _unpack(self) -> bytes:
        data = memoryview(b"")
        if self._frame.eof or self._frame.needs_input:
            data = self._fed(_SLICE)
        if self._frame.eof:
            if not data:
                self._ended = True
                return b""
            self._frame = zstd.ZstdDecompressor()
        elif self._frame.needs_input and not data:
            raise TruncatedFile(
                f"{self._path}: truncated: the zstd frame does not end",
                "Get the file again; nothing of it was stored.",
            )
        out: bytes = self._frame.decompress(data, max_length=_OUT)
        if self._frame.eof:
            # What lies behind the end of a frame is the next one's.
            self._at -= len(self._frame.unused_data)
        return out


def _header(source: _Unpacker, path: Path) -> Header:
    lead = bytes(source.take(_LEAD))
    if len(lead) < _LEAD or lead[:3] != b"DBN":
        hint = "Files named .dbn.frag hold records without their header; join them to one, or get the whole file."
        raise NotDbn(f"{path}: not a DBN file: it has no DBN header", hint)
    version, length = lead[3], int.from_bytes(lead[4:8], "little")
    if version not in (1, 2, 3):
        raise NotDbn(f"{path}: DBN version {version} is not known here (1 to 3 are)")
    if length > _MAX_HEADER:
        raise CorruptFile(f"{path}: its header claims {length} bytes", "The file is damaged.")
    body = bytes(source.take(length))
    if len(body) < length:
        raise TruncatedFile(f"{path}: truncated: {len(body)} of {length} bytes of the header")
    try:
        meta = dbn.Metadata.decode(lead + body, dbn.VersionUpgradePolicy.AS_IS)  # type: ignore[arg-type]  # stub
        return _describe(meta, version, path)
    except HdiError:
        raise
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as exc:  # the vendor's decoder panics on hostile headers, outside Exception
        raise CorruptFile(f"{path}: its header cannot be decoded: {exc}", "The file is damaged.") from exc


def _describe(meta: Any, version: int, path: Path) -> Header:
    if meta.schema is None:
        raise NotDbn(f"{path}: holds several kinds of records (a live recording)", "Historical files hold one.")
    schema = str(meta.schema)
    if schema not in MESSAGES:
        raise NotDbn(f"{path}: unknown DBN schema {schema!r}")
    if meta.ts_out:
        raise NotDbn(f"{path}: its records carry a send time (ts_out), as live recordings do")
    if not _DATASET.fullmatch(meta.dataset):
        raise CorruptFile(f"{path}: {meta.dataset!r} is not the name of a dataset")
    mappings = tuple(sorted(_intervals(meta.mappings)))
    names = (*meta.symbols, *meta.not_found, *meta.partial, *(name for key, *_, to in mappings for name in (key, to)))
    if damaged := next((name for name in names if "\0" in name), None):
        raise CorruptFile(f"{path}: {damaged!r} is not the name of a symbol", "The file is damaged.")
    return Header(
        path=path, version=version, dataset=meta.dataset, schema=schema,
        stype_in=str(meta.stype_in or ""), stype_out=str(meta.stype_out or ""),
        symbols=tuple(meta.symbols), start=_bound(meta.start), end=_bound(meta.end), limit=meta.limit or None,
        mappings=mappings, not_found=tuple(meta.not_found),
        partial=tuple(meta.partial),
    )  # fmt: skip


def _bound(ns: int | None) -> int | None:
    return None if ns is None or ns == _UNDEF_TIME or ns >= MAX_NS else ns


def _intervals(mappings: Mapping[str, Any]) -> Iterator[tuple[str, int, int, str]]:
    # They come in another order each time: the vendor's decoder keeps them in a hash map.
    for key, intervals in mappings.items():
        for each in intervals:
            start, end = _day(each["start_date"]), _day(each["end_date"])
            if each["symbol"] and start < end:
                yield key, start, end, each["symbol"]


def _day(day: dt.date) -> int:
    return min(max(date_ns(day), 0), MAX_NS)

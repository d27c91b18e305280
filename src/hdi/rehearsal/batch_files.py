"""The files of a batch job: what the vendor packs, by its names, written to disk when they are first asked for."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hdi.model import DAY_NS, cell_end, date_ns, ns_date
from hdi.rehearsal import body, stream
from hdi.rehearsal.body import Array
from hdi.rehearsal.market import Resolution
from hdi.rehearsal.stream import Request

Rectangle = tuple[int, int, int]
#: How the records of a job are cut in time; a week begins on Sunday, UTC.
DURATIONS = ("day", "week", "month", "year", "none")
_SUFFIX = "dbn.zst"
_WEEK = 7
#: 1970-01-01 was a Thursday: so many days before it a week began.
_SUNDAY = 4


@dataclass(frozen=True, slots=True)
class File:
    """A file of a job as it lies on disk; ``start`` and ``end`` (nanoseconds) bound its records, 0 for JSON."""

    name: str
    path: Path
    size: int
    digest: str
    start: int = 0
    end: int = 0

    @property
    def hash(self) -> str:
        """The digest as the vendor writes it."""
        return f"sha256:{self.digest}"


class Records(Protocol):
    """What a market knows of records."""

    def count(self, dataset: str, schema: str, selection: Sequence[Rectangle], start_ns: int, end_ns: int) -> int:
        """How many there are."""

    def records(
        self, dataset: str, schema: str, selection: Sequence[Rectangle], start_ns: int, end_ns: int
    ) -> Iterator[Array]:
        """All of them, in batches."""

    def resolve(
        self, dataset: str, symbols: Sequence[str], stype_in: str, stype_out: str, start: dt.date, end: dt.date
    ) -> Resolution:
        """What symbols stand for."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """How a job is cut into files: in time, by raw symbol, and by bytes of records (None: not)."""

    duration: str
    symbols: bool
    size: int | None


def periods(start: int, end: int, duration: str) -> Iterator[tuple[int, int]]:
    """The window cut at every boundary of the duration, in nanoseconds."""
    at = start
    while at < end:
        stop = end
        if duration == "week":
            stop = ((at // DAY_NS + _SUNDAY) // _WEEK * _WEEK + _WEEK - _SUNDAY) * DAY_NS
        elif duration in ("day", "month", "year"):
            stop = cell_end(at, duration)  # type: ignore[arg-type]  # the grids have the vendor's names
        yield at, min(stop, end)
        at = stop


def make(folder: Path, request: Request, cuts: Cuts, market: Records, texts: Mapping[str, Any]) -> list[File]:
    """Write the data files of a job, and its JSON files (``texts`` by name); days without data have no file."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = [_json(folder, name, document) for name, document in texts.items()]
    left = request.limit
    for start, end in periods(request.start, request.end, cuts.duration):
        for symbol, selection in _selections(request, cuts, market):
            counted = market.count(request.dataset, request.schema, selection, start, end)
            counted = counted if left is None else min(left, counted)
            if not counted:
                continue
            left = None if left is None else left - counted
            what = (request.dataset, request.schema, selection, start, end)
            records = body.first(market.records(*what), counted)
            for number, part in enumerate(_sized(records, request.schema, cuts.size, counted)):
                middle = "".join(f"{each}." for each in (symbol, "" if cuts.size is None else f"{number:04d}") if each)
                name = f"{_stem(request.dataset, start, end, cuts.duration)}.{request.schema}.{middle}{_SUFFIX}"
                files.append(_data(folder, name, request, part, (start, end)))
    return sorted(files, key=lambda file: file.name)


def manifest(folder: Path, job: str, files: Sequence[File], url: Callable[[str], str]) -> File:
    """``manifest.json``, which lists the others."""
    return _json(folder, "manifest.json", {"job_id": job, "files": [listed(file, url) for file in files]})


def listed(file: File, url: Callable[[str], str]) -> dict[str, Any]:
    """A file as the vendor lists it."""
    return {
        "filename": file.name, "size": file.size, "hash": file.hash,
        "urls": {"https": url(file.name), "ftp": url(file.name).replace("https", "ftp", 1)},
    }  # fmt: skip


def zipped(folder: Path, job: str, files: Sequence[File]) -> File:
    """All files in one ZIP, which is stored and not compressed once more."""
    path = folder / f"{job}.zip"
    if not path.exists():
        part = path.with_suffix(".part")
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
            for file in files:
                archive.write(file.path, file.name)
        part.rename(path)
    return File(path.name, path, path.stat().st_size, "")


def _stem(dataset: str, start: int, end: int, duration: str) -> str:
    """The first part of a name: the dataset, and the day or the first and last one."""
    first, last = ns_date(start), ns_date(end - 1)
    days = f"{first:%Y%m%d}" if duration == "day" else f"{first:%Y%m%d}-{last:%Y%m%d}"
    return f"{dataset.lower().replace('.', '-')}-{days}"


def _selections(request: Request, cuts: Cuts, market: Records) -> Iterator[tuple[str, Sequence[Rectangle]]]:
    """(raw symbol, rectangles), each of which gets files of its own; "" where they are not cut by symbol."""
    if not cuts.symbols:
        yield "", request.selection
        return
    first, last = ns_date(request.start), ns_date(request.end - 1) + dt.timedelta(days=1)
    ids = sorted({str(instrument) for instrument, *_ in request.selection}, key=int)
    named = market.resolve(request.dataset, ids, "instrument_id", "raw_symbol", first, last)
    by_symbol: dict[str, list[Rectangle]] = {}
    for instrument, start, end in request.selection:
        for d0, d1, symbol in named.result.get(str(instrument), ()):
            low, high = max(start, date_ns(d0)), min(end, date_ns(d1))
            if low < high:
                by_symbol.setdefault(symbol, []).append((instrument, low, high))
    yield from sorted(by_symbol.items())


def _sized(records: Iterable[Array], schema: str, size: int | None, counted: int) -> Iterator[Iterator[Array]]:
    """The records in parts of so many bytes at most; each part has to be used up before the next one."""
    most = counted if size is None else max(1, size // body.record_size(schema))
    waiting = iter(records)
    held: list[Array] = []

    def part() -> Iterator[Array]:
        left = most
        while left and (batch := held.pop() if held else next(waiting, None)) is not None:
            if len(batch) > left:
                held.append(batch[left:])
            yield batch[:left]
            left -= min(left, len(batch))

    for _ in range(-(-counted // most)):
        yield part()


def _data(folder: Path, name: str, request: Request, records: Iterable[Array], span: tuple[int, int]) -> File:
    return _written(folder, name, (piece.wire for piece in body.packed(stream.head(request), records)), span)


def _json(folder: Path, name: str, document: Any) -> File:
    return _written(folder, name, [json.dumps(document, indent=4).encode() + b"\n"])


def _written(folder: Path, name: str, pieces: Iterable[bytes], span: tuple[int, int] = (0, 0)) -> File:
    path, digest, size = folder / name, hashlib.sha256(), 0
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)
            digest.update(piece)
            size += len(piece)
    return File(name, path, size, digest.hexdigest(), *span)

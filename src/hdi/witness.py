"""The record that a stored row came from, looked up in the vendor's bytes and refined again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from hdi.errors import HdiError
from hdi.mapping import VendorMapping
from hdi.raw import file_digest
from hdi.refine import Refinery
from hdi.schema import PLACE, Schema, SchemaName
from hdi.sources.dbn import Reader
from hdi.sources.records import columns, layout, to_frame

_BATCH = 131_072


@dataclass(frozen=True)
class Seen:
    """What became of looking. ``file`` is where the bytes lie, None where they are not kept.

    ``offset`` is the place of the record in the plain bytes of the file, ``size`` its length. ``whole``: the digest of
    the file is that of the ledger. ``equal``: the record, refined by today's mapping and rules, is the stored row;
    ``differs`` are columns with the values of the record and of the row. ``note`` says why something is not known.
    """

    file: Path | None
    record: int
    offset: int | None = None
    size: int | None = None
    whole: bool | None = None
    equal: bool | None = None
    differs: Mapping[str, tuple[str | None, str | None]] = field(default_factory=dict)
    values: Mapping[str, str | None] = field(default_factory=dict)
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "kept": self.file is not None, "file": None if self.file is None else str(self.file),
            "record": self.record, "offset": self.offset, "record_bytes": self.size, "digest_equal": self.whole,
            "row_equal": self.equal, "differs": {c: list(v) for c, v in self.differs.items()},
            "vendor_record": dict(self.values) or None, "note": self.note or None,
        }  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One stored row (a frame of one row: its public columns and :data:`hdi.schema.PLACE`), and its unit's window."""

    frame: pl.DataFrame
    schema: Schema
    name: SchemaName
    window: tuple[int, int]


def seen(row: Row, mapping: VendorMapping, file: Path | None, digest: str) -> Seen:
    """Look a row up in its raw file, and compare."""
    at = int(row.frame["_row"][0])
    if file is None:
        return Seen(None, at, note="the file is not kept (--no-copy, moved, or removed)")
    try:
        whole = file_digest(file) == digest
        return _found(row, mapping, file, whole=whole)
    except (OSError, HdiError) as exc:
        return Seen(file, at, note=f"it cannot be read: {exc}")


def _found(row: Row, mapping: VendorMapping, file: Path, *, whole: bool) -> Seen:
    at = int(row.frame["_row"][0])
    with Reader(file) as reader:
        head = reader.header
        size = layout(head.schema, head.version).itemsize
        offset = reader.records_at + at * size
        before = 0
        for records in reader.arrays(_BATCH):
            if at < before + len(records):
                one = records[at - before : at - before + 1]
                vendor = to_frame(one, head.schema, mapping.undefined.get(row.schema.kind, []))
                return _compared(row, mapping, vendor, Seen(file, at, offset, size, whole))
            before += len(records)
    return Seen(file, at, whole=whole, note=f"the file has {before} records, and none of number {at}")


def _compared(row: Row, mapping: VendorMapping, vendor: pl.DataFrame, found: Seen) -> Seen:
    frame, (start, end) = row.frame, row.window
    raw = vendor.with_columns(
        frame["symbol"], frame["dataset"], frame["data_source"], *(frame[c] for c in PLACE),
        _window_start=pl.lit(start, pl.Int64), _window_end=pl.lit(end, pl.Int64),
    )  # fmt: skip
    found = replace(found, values=texts(vendor))
    refinery = Refinery(row.schema, row.name, mapping, columns(row.name.name), frame["dataset"][0])
    verdict = refinery.refine(raw)
    if verdict.accepted.is_empty():
        rules = ", ".join(verdict.rejected["rules"][0])
        return replace(found, equal=False, note=f"today's rules reject the record: {rules}")
    public = list(row.schema.dtypes)
    mine, theirs = texts(verdict.accepted.select(public)), texts(frame.select(public))
    differs = {c: (mine[c], theirs[c]) for c in public if mine[c] != theirs[c]}
    return replace(found, equal=not differs, differs=differs)


def texts(frame: pl.DataFrame) -> dict[str, str | None]:
    """The one row of a frame as exact text by column."""
    times = pl.selectors.datetime().dt.strftime("%Y-%m-%dT%H:%M:%S%.9fZ")
    found: dict[str, str | None] = frame.with_columns(times).with_columns(pl.all().cast(pl.String)).row(0, named=True)
    return found


__all__ = ["Row", "Seen", "seen", "texts"]

"""Bytes that were bought: kept under ``raw/`` with a slip beside them that says what was ordered and answered.

A slip is written before the bytes take their place, so whatever lies there whole is never bought again: a run that
was killed after the download finds it, checks it and refines it. It also holds the symbology of the order, so that
refining stays pure.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import os
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

import polars as pl
import structlog

from hdi import raw
from hdi.errors import CorruptFile, HdiError, StoreError
from hdi.frames import NAMED, RESOLVED
from hdi.model import MONEY, Condition, Header, Order, RawFile, Unit, Window, ns_date
from hdi.sources.dbn import Reader, record_bytes

if TYPE_CHECKING:
    from types import TracebackType

#: Records that are looked at together when a file is checked.
_BATCH = 131_072
#: The digest of no bytes.
_NOTHING = hashlib.sha256().hexdigest()
_SLIP = ".json"
_FORMAT = 1
log = structlog.get_logger(component="PipelineOrchestrator")


@dataclass(frozen=True)
class Slip:
    """What was ordered, and what the vendor said of it.

    ``asked`` are all symbols that the order answers for; those of them that the order leaves out stood for nothing
    in its window, which ``cells`` tile. ``resolved`` and ``names`` are their symbology
    (:data:`hdi.frames.RESOLVED`, ``NAMED``). ``records`` is the vendor's count, ``dollars`` its price, ``arrived``
    how many records the bytes hold: -1 when they are not whole. ``wasted`` are bytes that were billed for tries that
    broke, at ``wasted_dollars``, which are in ``dollars``. ``lost`` are symbols that were ordered and that the answer
    does not resolve. ``conditions`` are what the vendor said of days when it was asked at ``seen_at``.
    ``batch`` is the batch job whose file the bytes are, "" for a stream: the job was paid for, they are its share.
    ``counted_at`` is when the vendor was last asked again, and still counted as many records for the order.
    ``byte_price`` is US dollars per billed byte of a stream.
    """

    origin: str
    order: Order
    asked: tuple[str, ...]
    cells: tuple[Window, ...]
    records: int
    dollars: Decimal
    resolved: pl.DataFrame = field(repr=False)
    names: pl.DataFrame = field(repr=False)
    conditions: tuple[Condition, ...] = ()
    arrived: int = -1
    wasted: int = 0
    wasted_dollars: Decimal = Decimal(0)
    bought_at: int = 0
    lost: tuple[str, ...] = ()
    raw: RawFile | None = None
    seen_at: int = 0
    batch: str = ""
    counted_at: int = 0
    byte_price: Decimal = Decimal(0)

    @property
    def unit_id(self) -> str:
        """The name of the whole order, as units are named."""
        order = self.order
        symbols = ",".join(sorted(self.asked))
        return Unit(self.origin, order.dataset, order.schema, symbols, order.stype, order.window).id

    @property
    def name(self) -> str:
        """The name of the bytes' file: no two purchases have one, also where they brought the same bytes."""
        return Path(self.raw.path).name if self.raw else ""

    def validate(self, name: str) -> None:
        """Raise ValueError when the slip does not belong to a file of that name, or contradicts itself."""
        whole = replace(self, asked=tuple(sorted((*self.asked, *self.lost))))
        digest = self.raw.digest[:12] if self.raw else ""
        if name not in (_name(whole.unit_id, digest), _name(whole.unit_id, digest, self.bought_at)):
            raise ValueError("it is not about the bytes beside it")
        window = self.order.window
        tiled = [window.start, *(c.end for c in self.cells)]
        if tiled[-1] != window.end or [c.start for c in self.cells] != tiled[:-1]:
            raise ValueError("its cells do not make up its window")

    def to_json(self) -> str:
        """The slip as it lies beside the bytes."""
        order = self.order
        return json.dumps({
            "format": _FORMAT, "origin": self.origin, "dataset": order.dataset, "schema": order.schema,
            "stype": order.stype, "symbols": order.symbols, "start": order.window.start, "end": order.window.end,
            "asked": self.asked, "cells": [(c.start, c.end) for c in self.cells], "records": self.records,
            "dollars": str(self.dollars), "arrived": self.arrived, "wasted": self.wasted,
            "wasted_dollars": str(self.wasted_dollars),
            "bought_at": self.bought_at, "seen_at": self.seen_at, "batch": self.batch,
            "counted_at": self.counted_at, "byte_price": str(self.byte_price),
            "lost": self.lost, "raw": [self.raw.digest, self.raw.size] if self.raw else None,
            "conditions": [
                (c.day.isoformat(), c.condition, c.last_modified.isoformat() if c.last_modified else None)
                for c in self.conditions
            ],
            "resolved": self.resolved.select(*RESOLVED).rows(), "names": self.names.select(*NAMED).rows(),
        })  # fmt: skip

    @classmethod
    def from_json(cls, text: str, path: Path | None = None) -> Slip:
        """The slip of that text; ``path`` is where its bytes lie."""
        given = json.loads(text)
        if given["format"] != _FORMAT:
            raise ValueError(f"a slip of format {given['format']}")
        window = Window(given["start"], given["end"])
        return cls(
            given["origin"],
            Order(given["dataset"], given["schema"], given["stype"], tuple(given["symbols"]), window),
            tuple(given["asked"]), tuple(Window(*c) for c in given["cells"]), given["records"],
            Decimal(given["dollars"]),
            pl.DataFrame(given["resolved"], schema=RESOLVED, orient="row"),
            pl.DataFrame(given["names"], schema=NAMED, orient="row"),
            tuple(_condition(*c) for c in given["conditions"]), given["arrived"], given["wasted"],
            Decimal(given["wasted_dollars"]),
            given["bought_at"], tuple(given["lost"]),
            RawFile(str(path), *given["raw"]) if path and given["raw"] else None,
            given.get("seen_at", given["bought_at"]),  # slips of before say only when they were bought
            given.get("batch", ""), given.get("counted_at", 0), Decimal(given.get("byte_price", 0)),
        )  # fmt: skip


def _condition(day: str, condition: str, modified: str | None) -> Condition:
    return Condition(dt.date.fromisoformat(day), condition, dt.date.fromisoformat(modified) if modified else None)


class Delivery:
    """One download on its way into ``raw/``: ``path`` is where the bytes go. A context manager.

    The process holds a lock on it while it lives; what a dead one left behind is :func:`recover`'s.
    """

    def __init__(self, data_dir: Path, slip: Slip) -> None:
        self._data_dir = data_dir
        self.slip = slip
        self._name = uuid4().hex
        self._fd = -1
        self._arrived = False

    def __enter__(self) -> Self:
        folder = raw.parts_folder(self._data_dir)
        self.path = folder / f"{self._name}{_BYTES}"
        self._note = folder / f"{self._name}{_ORDERED}"
        # Said before anything is billed: whoever finds the bytes knows which purchase they are.
        self.slip = replace(self.slip, bought_at=self.slip.bought_at or time.time_ns())
        self._fd = raw.hold_new(self._note)
        self._say()
        return self

    def _say(self) -> None:
        """Add the slip as it is now to the note: its last whole line counts."""
        raw.write_all(self._fd, f"{self.slip.to_json()}\n".encode(), self._note)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Bytes that have arrived are paid: what could not be put in its place is left for a later run.
        try:
            if error is None or not self._arrived:
                # What an order's own error cost is for the ledger, by whoever is told of it; others end the run.
                if error is not None and (isinstance(error, StoreError) or not isinstance(error, HdiError)):
                    _broken(self._data_dir, self.path, self.slip)
                self.path.unlink(missing_ok=True)
                self._note.unlink(missing_ok=True)
        finally:
            os.close(self._fd)

    def received(self) -> int:
        """Bytes that have arrived so far."""
        with contextlib.suppress(FileNotFoundError):
            return self.path.stat().st_size
        return 0

    def broke(self, size: int) -> None:
        """Broken tries were billed so many bytes in all: part of the price, whatever becomes of this process."""
        self.slip = wasted(self.slip, size)
        self._say()

    def arrived(self, size: int) -> None:
        """All bytes have come; broken tries were billed so many more."""
        self._arrived = True
        self.slip = wasted(self.slip, size)

    def lost(self, symbols: Sequence[str]) -> None:
        """Symbols that the answer itself does not resolve: it does not answer for them."""
        gone = tuple(s for s in self.slip.asked if s in symbols)
        asked = tuple(s for s in self.slip.asked if s not in gone)
        self.slip = replace(self.slip, asked=asked, lost=gone)

    def keep(self, arrived: int) -> Slip:
        """Put the bytes and their slip in their place; returns the slip with where they are."""
        kept = _place(self._data_dir, self.path, replace(self.slip, arrived=arrived))
        self._arrived = False
        return kept


class Fetched(Delivery):
    """A file that was brought to ``path`` and is to be kept; left where it is, it is there for a later run."""

    def __init__(self, data_dir: Path, slip: Slip, path: Path) -> None:
        super().__init__(data_dir, slip)
        self.path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing: what was kept is gone from there."""


_BYTES, _ORDERED = ".dbn.zst", ".order"


@dataclass(frozen=True)
class Found:
    """What a DBN file is: its header, the records that can be read, and why the rest cannot."""

    header: Header | None
    records: int
    problem: HdiError | None = None


def check(path: Path) -> Found:
    """Read a DBN file to its end, or as far as it goes."""
    reader = None
    try:
        with Reader(path) as reader:
            for _ in reader.arrays(_BATCH):
                pass
            return Found(reader.header, reader.records)
    except HdiError as error:
        return Found(None, reader.records if reader else 0, error)


def wasted(slip: Slip, size: int) -> Slip:
    """The slip with so many bytes in all that were billed for broken tries in its price."""
    dollars = (size * slip.byte_price).quantize(MONEY)
    price = slip.dollars - slip.wasted_dollars + dollars
    return replace(slip, wasted=size, wasted_dollars=dollars, dollars=price)


def came(slip: Slip, path: Path) -> Decimal:
    """The price of the records in a file, as far as it can be read, and of what broken tries brought before it."""
    return (record_bytes(path) * slip.byte_price).quantize(MONEY) + slip.wasted_dollars


def described(slip: Slip, header: Header) -> Header:
    """The header of bytes that are all symbols, as a plan takes it: only the answer itself says what they are."""
    window = slip.order.window
    return replace(header, symbols=slip.asked, start=window.start, end=window.end, limit=None, joined=True)


def _place(data_dir: Path, path: Path, slip: Slip) -> Slip:
    digest, size = raw.file_digest(path), path.stat().st_size
    order = slip.order
    folders = (slip.origin, order.dataset, order.schema, ns_date(order.window.start).isoformat())
    whole = replace(slip, asked=tuple(sorted((*slip.asked, *slip.lost))))
    slip = replace(slip, bought_at=slip.bought_at or time.time_ns(), raw=RawFile("", digest, size))
    name = _name(whole.unit_id, digest)
    if _taken(data_dir.joinpath("raw", *folders, f"{name}{_SLIP}"), slip.bought_at):
        name = _name(whole.unit_id, digest, slip.bought_at)
    raw.put_note(data_dir, folders, f"{name}{_SLIP}", slip.to_json())
    kept = raw.put(data_dir, folders, name, path, digest, size)
    return replace(slip, raw=kept)


def _broken(data_dir: Path, path: Path, slip: Slip) -> Slip | None:
    """Keep the slip of an order that did not come to its end, without its bytes; None where it cost nothing.

    The vendor has billed at least what can be read of them.
    """
    there = path.exists()
    if not (dollars := came(slip, path) if there else slip.wasted_dollars):
        return None
    file = RawFile("", raw.file_digest(path), path.stat().st_size) if there else RawFile("", _NOTHING, 0)
    return keep_note(data_dir, replace(slip, arrived=-1, dollars=dollars, raw=file))


def keep_note(data_dir: Path, slip: Slip) -> Slip:
    """Keep a slip of what was billed and is not there; it says so until the end of time."""
    order = slip.order
    folders = (slip.origin, order.dataset, order.schema, ns_date(order.window.start).isoformat())
    slip = replace(slip, bought_at=slip.bought_at or time.time_ns(), raw=slip.raw or RawFile("", _NOTHING, 0))
    name = _name(slip.unit_id, slip.raw.digest if slip.raw else _NOTHING, slip.bought_at)
    raw.put_note(data_dir, folders, f"{name}{_SLIP}", slip.to_json())
    return slip


def _name(unit_id: str, digest: str, bought_at: int | None = None) -> str:
    """The name of bytes; with the instant of their purchase where the same ones were bought before."""
    return f"{unit_id}-{'' if bought_at is None else f'{bought_at}-'}{digest[:12]}{_BYTES}"


def _taken(note: Path, bought_at: int) -> bool:
    """Whether a slip of that name is of another purchase."""
    try:
        return bool(json.loads(note.read_text(encoding="utf-8"))["bought_at"] != bought_at)
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError):  # whose it is cannot be said: it is left alone
        return True


def recover(data_dir: Path) -> list[Slip]:
    """Finish what processes that died left in the part folder: whole bytes are kept, broken ones removed.

    Returns the slips of what was kept, and of what was paid for in vain (``arrived`` -1).
    """
    found: list[Slip] = []
    for note in (data_dir / "raw" / ".part").glob(f"*{_ORDERED}"):
        with raw.abandoned(note) as text:
            if text is None:
                continue
            path = note.with_name(note.name.removesuffix(_ORDERED) + _BYTES)
            # A note without a whole line is older than the order: nothing was billed.
            if (line := text[: text.rfind("\n") + 1].rstrip("\n").rpartition("\n")[2]) and (
                slip := _left(data_dir, path, _parsed(line, note))
            ):
                found.append(slip)
            path.unlink(missing_ok=True)
            note.unlink(missing_ok=True)
    return found


def _left(data_dir: Path, path: Path, slip: Slip) -> Slip | None:
    """The slip of what a dead process had ordered: kept with its bytes where they are whole, else without them."""
    found = check(path) if path.exists() else None
    if found and found.problem is None:
        # As many as the vendor counted or not: whoever refines it asks for the count once more.
        return _place(data_dir, path, replace(slip, arrived=found.records))
    broken = _broken(data_dir, path, slip)
    if found and found.problem:
        log.warning(
            "a download that was cut by the end of its process is removed; the vendor bills what it had sent",
            order=str(slip.order), bytes=path.stat().st_size, reason=found.problem.message,
            dollars=str(broken.dollars if broken else 0),
        )  # fmt: skip
    return broken


def slips(data_dir: Path, origin: str, dataset: str, schema: str, digests: Collection[str] | None = None) -> list[Slip]:
    """What was bought of a dataset and schema and arrived whole, the newest first; of some bytes alone if given."""
    only = None if digests is None else {f"-{digest[:12]}{_BYTES}{_SLIP}" for digest in digests}
    notes = (data_dir / "raw" / origin / dataset / schema).glob(f"*/*{_BYTES}{_SLIP}")
    # Bytes are not there when their process died between the two, or when somebody removed them.
    wanted = (note for note in notes if only is None or note.name[note.name.rindex("-") :] in only)
    found = [_slip(note) for note in wanted if note.with_name(note.name.removesuffix(_SLIP)).exists()]
    return sorted((slip for slip in found if slip.arrived >= 0), key=lambda slip: -slip.bought_at)


def receipts(data_dir: Path, origin: str, since: int = 0) -> Iterator[Slip]:
    """Every slip of an origin, of broken deliveries and removed bytes too: what was paid.

    Those that were written before ``since`` (nanoseconds) are left out.
    """
    for note in sorted((data_dir / "raw" / origin).glob(f"*/*/*/*{_BYTES}{_SLIP}")):
        if note.stat().st_mtime_ns >= since:
            yield _slip(note)


def purchased(ledger: pl.DataFrame, known: Sequence[Slip]) -> pl.DataFrame:
    """A ledger with the place ``at`` of the slip that brought a row's bytes, and ``bought_at``; null where none did.

    The same bytes may have been bought again: the name of the file tells, or else the newest slip before the commit.
    """
    books = pl.DataFrame(
        [(at, s.name, s.raw.digest, s.bought_at, bool(s.batch)) for at, s in enumerate(known) if s.raw],
        schema={"at": pl.Int64, "name": pl.String, "raw_digest": pl.String, "bought_at": pl.Int64, "_job": pl.Boolean},
        orient="row",
    )
    own = ledger.with_row_index("_row")
    rows = own.select("_row", "raw_digest", "committed_at", file=file_name()).join(books, on="raw_digest")
    # Instants of batch jobs are by the vendor's clock.
    rows = rows.filter(pl.col("_job") | (pl.col("bought_at") <= pl.col("committed_at")))
    rows = rows.sort(pl.col("file") == pl.col("name"), "bought_at", maintain_order=True)
    found = rows.unique("_row", keep="last", maintain_order=True).select("_row", "at", "bought_at")
    return own.join(found, on="_row", how="left", maintain_order="left").drop("_row")


def file_name() -> pl.Expr:
    """The name of the file that a ledger's row says its bytes are in."""
    return pl.col("raw_file").str.split("/").list.last()


def of(slip: Slip) -> pl.Expr:
    """True for the rows of a ledger that are of this purchase."""
    mine = file_name() == slip.name
    return mine if slip.batch else mine & (pl.col("committed_at") >= slip.bought_at)


def now(newest: int) -> int:
    """When something is bought now, in nanoseconds: after ``newest``, whatever the clock says."""
    return max(time.time_ns(), newest + 1)


def since(slip: Slip) -> int:
    """When a stream was bought, by the clock that commits it; 0 for the file of a batch job, dated by the vendor's."""
    return 0 if slip.batch else slip.bought_at


def kept_since(kept: RawFile) -> int:
    """The same of bytes that were kept."""
    return since(_slip(Path(f"{kept.path}{_SLIP}")))


def counted(data_dir: Path, slip: Slip, at: int) -> None:
    """Note that the vendor counts as many records for an order as arrived, now that its bytes lie there for long."""
    if slip.raw is not None:
        path = Path(slip.raw.path)
        folders = path.parent.relative_to(data_dir / "raw").parts
        raw.put_note(data_dir, folders, f"{path.name}{_SLIP}", replace(slip, counted_at=at).to_json())


def _slip(note: Path) -> Slip:
    """The slip of a file, checked. CorruptFile when it cannot be read."""
    path = note.with_name(note.name.removesuffix(_SLIP))
    try:
        slip = _parsed(note.read_text(encoding="utf-8"), note, path)
        slip.validate(path.name)
    except (ValueError, OSError) as exc:
        raise _unread(note, exc) from exc
    return slip


def _parsed(text: str, note: Path, path: Path | None = None) -> Slip:
    """The slip of a text that was found in ``note``. CorruptFile when it is none."""
    try:
        return Slip.from_json(text, path)
    except (ValueError, KeyError, TypeError, ArithmeticError, pl.exceptions.PolarsError) as exc:
        raise _unread(note, exc) from exc


def _unread(note: Path, exc: Exception) -> CorruptFile:
    return CorruptFile(
        f"{note}: cannot be read: {exc}",
        "It says what the bytes beside it are. Mend it, or remove it and ingest them with --api dbn.",
    )


@contextlib.contextmanager
def claim(data_dir: Path, keys: Sequence[str]) -> Iterator[None]:
    """Hold the right to buy for ``keys``: of two processes that share the data folder one buys, the other waits."""
    with contextlib.ExitStack() as stack:
        for key in sorted(set(keys)):
            stack.enter_context(raw.locked(data_dir, key))
        yield


__all__: list[Any] = [
    "Delivery", "Fetched", "Slip", "came", "check", "claim", "counted", "described", "file_name", "keep_note",
    "kept_since", "now", "of", "purchased", "receipts", "recover", "since", "slips", "wasted",
]  # fmt: skip

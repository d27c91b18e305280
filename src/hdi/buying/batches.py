"""Batch jobs that were ordered from a vendor: noted on the disk before they are submitted, and found by any later run.

A note is a file in the part folder: its first line says what is about to be ordered, its second one which job that
became. A note without a job is that of a process that died in between: the vendor's list of jobs says whether there is
one. The ledger of the store knows the jobs too, so that another data folder finds them.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import polars as pl
import structlog

from hdi import raw
from hdi.buying.ordering import Purchase, Request
from hdi.buying.paid import Slip, slips
from hdi.errors import CorruptFile, RequestError
from hdi.frames import NAMED, RESOLVED
from hdi.model import DAY_NS, Condition, Order, Window, date_ns, iso_ns, some
from hdi.sources import BatchJob, BatchSource, Source
from hdi.symbology import ALL_SYMBOLS

_NOTE, _PART = ".batch", ".batch-part"
_FORMAT = 1
#: A job's files are kept by the vendor for 30 days after it was done; its own clock decides, ours only looks.
_KEPT_NS = 45 * DAY_NS
#: How far back the vendor's list of jobs is asked for: as long as files are kept, and more, for clocks differ.
_BACK_NS = 35 * DAY_NS
#: Pauses in seconds before each look for a job whose submission nobody answered for: it may still be on its way.
SETTLE = (0.0, 1.0, 3.0)
Part = tuple[str, Window]
log = structlog.get_logger(component="PipelineOrchestrator")


@dataclass(frozen=True)
class Note:
    """A job that was, or was about to be, submitted. ``slip`` is about all of it; its ``batch`` is "" without a job.

    ``known`` are jobs for the same that were there before, ``account`` whose job it is.
    """

    slip: Slip
    split: str
    known: tuple[str, ...]
    account: str
    path: Path

    def concerns(self, request: Request, origin: str) -> bool:
        """Whether it is about the request's dataset, schema and window."""
        order = self.slip.order
        about = (self.slip.origin, order.dataset, order.schema) == (origin, request.dataset, request.name.name)
        return about and order.window.cut(request.window) is not None


@dataclass(frozen=True)
class Coming:
    """A job of which not everything is stored: neither held nor missing. ``parts`` are its (symbol, cell) to come.

    ``booked``: the ledger has it. ``note`` is None where only the ledger knows it.
    """

    job: BatchJob
    slip: Slip
    split: str
    parts: frozenset[Part] = field(repr=False)
    booked: bool
    note: Path | None

    @property
    def id(self) -> str:
        """The vendor's name of the job."""
        return self.job.id

    @property
    def units(self) -> int:
        """How many units are to come."""
        return len(self.parts)

    @property
    def window(self) -> Window:
        """From the first of what is to come to the last."""
        return Window(min(cell.start for _, cell in self.parts), max(cell.end for _, cell in self.parts))

    @property
    def stretches(self) -> Iterator[Part]:
        """The parts, neighbours joined."""
        by_symbol: dict[str, list[Window]] = {}
        for symbol, cell in sorted(self.parts):
            spans = by_symbol.setdefault(symbol, [])
            if spans and spans[-1].end == cell.start:
                spans[-1] = Window(spans[-1].start, cell.end)
            else:
                spans.append(cell)
        return ((symbol, span) for symbol, spans in by_symbol.items() for span in spans)

    @property
    def sentence(self) -> str:
        """How far it is."""
        progress = f", {self.job.progress} %" if self.job.progress is not None and not self.job.done else ""
        return f"batch job {self.id} ({self.job.state}{progress})"


@dataclass(frozen=True)
class Ended:
    """A job that was over before all of it was taken: ``parts`` are the (symbol, cell) that it does not bring.

    ``why`` says what became of it; ``booked`` and ``note`` are as those of :class:`Coming`.
    """

    slip: Slip
    parts: frozenset[Part] = field(repr=False)
    why: str
    booked: bool
    note: Path | None

    @property
    def sentence(self) -> str:
        """What that means."""
        return f"{self.why} before all of it was taken: what is left is ordered again"

    def within(self, purchase: Purchase) -> bool:
        """Whether a purchase replaces some of it."""
        lost = {symbol for symbol, cell in self.parts if cell.cut(purchase.window) is not None}
        if not lost or ALL_SYMBOLS in (*lost, *purchase.symbols):
            return bool(lost)
        named = purchase.stype == self.slip.order.stype and not lost.isdisjoint(purchase.symbols)
        own = self.slip.resolved.filter(pl.col("asked").is_in(lost))["instrument_id"]
        return named or not set(own).isdisjoint(purchase.rectangles["instrument_id"])


class Intent:
    """A note while its job is submitted: written, then :meth:`became`. A context manager; it is held meanwhile."""

    def __init__(self, data_dir: Path, slip: Slip, split: str, known: Sequence[str], account: str) -> None:
        self._data_dir = data_dir
        self.note = Note(slip, split, tuple(known), account, raw.parts_folder(data_dir) / f"{uuid4().hex}{_NOTE}")
        self._fd = -1

    def __enter__(self) -> Self:
        note = self.note
        about = {
            "format": _FORMAT, "split": note.split, "known": note.known, "account": note.account,
            "slip": json.loads(note.slip.to_json()),
        }  # fmt: skip
        self._fd = raw.hold_note(note.path.parent, note.path.name, json.dumps(about) + "\n")
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def became(self, job: BatchJob) -> Note:
        """Keep which job it became; returns the note as it stands."""
        raw.write_all(self._fd, (json.dumps({"job": job.id, "received": job.received}) + "\n").encode(), self.note.path)
        self.note = replace(self.note, slip=replace(self.note.slip, batch=job.id, bought_at=job.received))
        return self.note

    def nothing(self) -> None:
        """Forget it: the vendor has refused it."""
        self.note.path.unlink(missing_ok=True)


def notes(data_dir: Path, source: BatchSource | None = None) -> Iterator[Note]:
    """The notes of a data folder that have a job; that of a process that died is looked for where a source is given.

    One without a job is removed when the vendor has none for it.
    """
    found: dict[str, Note] = {}
    lost = []
    for path in sorted((data_dir / "raw" / ".part").glob(f"*{_NOTE}")):
        note = _read(path)
        if note is not None and note.slip.batch:
            if note.slip.batch in found:
                path.unlink(missing_ok=True)  # its process died before it could
            found.setdefault(note.slip.batch, note)
        else:
            lost.append(path)
    for path in lost if source is not None else ():
        with raw.abandoned(path) as text:
            if text is None:  # its process lives, and is about to tell
                continue
            note = _parsed(text, path)
            if note and source and note.account != source.account():
                continue  # who can say has another key
            job = submitted(source, note, found) if note and source else None
            if note and job:
                with Intent(data_dir, note.slip, note.split, note.known, note.account) as intent:
                    found[job.id] = intent.became(job)
            path.unlink(missing_ok=True)
    yield from found.values()


def submitted(source: BatchSource, note: Note, others: Iterable[str]) -> BatchJob | None:
    """The job that a note became, by the vendor's list; None when there is none."""
    known = {*note.known, *others}
    for pause in SETTLE:
        time.sleep(pause)
        for job in alike(source, note.slip.order, note.split, note.slip.bought_at):
            if job.id not in known:
                return job
    return None


def alike(source: BatchSource, order: Order, split: str, since: int) -> list[BatchJob]:
    """The account's jobs for the same order that were submitted around an instant or later, the newest first."""
    wanted = _key(order, split)
    return [job for job in reversed(source.batch_jobs(since - _BACK_NS)) if _key(job.order, job.split) == wanted]


def coming(
    source: Source, data_dir: Path, ledger: pl.DataFrame, request: Request, instruments: Collection[int],
    *, refetch: bool = False,
) -> tuple[list[Coming], list[Ended]]:  # fmt: skip
    """The jobs of which something of the request is to come, and those that ended before that.

    ``instruments`` is what the request's symbols stand for.

    The vendor is asked only where there are such jobs. RequestError for a job that it does not know, and that it
    should know: to order it again (``refetch``) is for a person to decide.
    """
    if not isinstance(source, BatchSource):
        return [], []
    _check_lost(source, data_dir, request, refetch=refetch)
    found, ended = [], []
    for slip, split, note, booked in _known(source, data_dir, ledger, request):
        parts = left(slip, ledger) - _taken(data_dir, slip)
        if not parts or slip.order.window.cut(request.window) is None:
            continue
        whole = slip if note else _resolved(source, slip)
        if not _concerns(whole, request, instruments):
            continue
        try:
            job = source.batch_job(slip.batch, request.dataset)
        except RequestError as error:
            if not refetch and time.time_ns() - slip.bought_at < _KEPT_NS:
                raise RequestError(
                    f"{what(slip)} was ordered, and the vendor does not know it: {error.message}",
                    "Is it the account and the gateway that it was ordered from? --refetch orders it again.",
                ) from error
            ended.append(Ended(whole, parts, f"{what(slip)} is not known to the vendor any more", booked, note))
            continue
        if not (job.done or job.coming):
            ended.append(Ended(whole, parts, f"{what(slip)} {ending(job)}", booked, note))
            continue
        whole = whole if note else _rebuilt(source, whole, job)
        found.append(Coming(job, whole, split or job.split, parts, booked, note))
    return found, ended


def _check_lost(source: BatchSource, data_dir: Path, request: Request, *, refetch: bool) -> None:
    """RequestError for a job of another key of which nobody knows whether it was submitted; forgotten on refetch."""
    for path in (data_dir / "raw" / ".part").glob(f"*{_NOTE}"):
        note = _read(path)
        if note is None or note.slip.batch or note.account == source.account():
            continue
        if not note.concerns(request, source.origin):
            continue
        if refetch:
            with raw.abandoned(path) as text:
                if text is not None:
                    path.unlink(missing_ok=True)
            continue
        raise RequestError(
            f"a batch job for {some(note.slip.order.symbols)} in {note.slip.order.window} may have been submitted with "
            "another key or to another gateway, by a run that died",
            "With that key the same command finds it. --refetch orders it again, whatever became of it.",
        )


def _known(
    source: BatchSource, data_dir: Path, ledger: pl.DataFrame, request: Request
) -> Iterator[tuple[Slip, str, Path | None, bool]]:
    """(slip, split, note, whether the ledger has it) of each job for the request's dataset and schema."""
    here = (pl.col("dataset") == request.dataset) & (pl.col("schema") == request.name.name)
    booked = ledger.filter(here, pl.col("status") == "ordered", pl.col("batch").is_not_null())
    ids = set(booked["batch"])
    seen = set()
    for note in notes(data_dir, source):
        order = note.slip.order
        if (order.dataset, order.schema, note.slip.origin) == (request.dataset, request.name.name, source.origin):
            seen.add(note.slip.batch)
            yield note.slip, note.split, note.path, note.slip.batch in ids
    for (name,), rows in booked.group_by("batch", maintain_order=True):
        if str(name) not in seen:
            yield _of_ledger(str(name), rows), "", None, True


def _of_ledger(name: str, rows: pl.DataFrame) -> Slip:
    """What the ledger knows of a job; what its symbols stand for is not among it."""
    cells = sorted({Window(s, e) for s, e in rows.select("start", "end").iter_rows()})
    asked = tuple(sorted(set(rows["symbol"])))
    first = rows.row(0, named=True)
    order = Order(first["dataset"], first["schema"], first["stype"], asked, Window(cells[0].start, cells[-1].end))
    dollars: Decimal = sum(rows["dollars"].drop_nulls(), Decimal(0))
    return Slip(
        first["origin"], order, asked, tuple(cells), 0, dollars, pl.DataFrame(schema=RESOLVED),
        pl.DataFrame(schema=NAMED), bought_at=min(rows["committed_at"]), batch=name,
    )  # fmt: skip


def _resolved(source: BatchSource, slip: Slip) -> Slip:
    """The slip of a job with its symbology, asked for once more."""
    order, window = slip.order, slip.order.window
    resolved, named = slip.resolved, slip.names
    if slip.asked != (ALL_SYMBOLS,):
        if order.stype == "instrument_id":
            named = source.raw_symbols(order.dataset, [int(s) for s in slip.asked], window).select(*NAMED)
            resolved = named.with_columns(asked=pl.col("instrument_id").cast(pl.String)).select(*RESOLVED)
        else:
            resolved = source.resolve(order.dataset, slip.asked, order.stype, window).select(*RESOLVED)
            ids = sorted(set(resolved["instrument_id"]))
            named = source.raw_symbols(order.dataset, ids, window).select(*NAMED) if ids else named
    return replace(slip, resolved=resolved, names=named)


def _rebuilt(source: BatchSource, slip: Slip, job: BatchJob) -> Slip:
    """The slip of a job with its order, records and conditions, asked for once more."""
    order = slip.order
    said = source.conditions(order.dataset, order.window)
    return replace(
        slip, order=replace(job.order, stype=order.stype), seen_at=time.time_ns(), conditions=unchanged(said, job),
        records=job.records or source.count(order),
    )  # fmt: skip


def unchanged(conditions: Iterable[Condition], job: BatchJob) -> tuple[Condition, ...]:
    """What is said of days now, as far as it was so when the job was submitted."""
    return tuple(c for c in conditions if c.last_modified is None or date_ns(c.last_modified) + DAY_NS <= job.received)


def left(slip: Slip, ledger: pl.DataFrame) -> frozenset[Part]:
    """The (symbol, cell) of a job that no receipt of it has brought yet, and none of another purchase since."""
    ledger = ledger.with_row_index("_row")
    mine, complete = pl.col("batch") == slip.batch, pl.col("status") == "complete"
    ordered = ledger.filter(mine, pl.col("status") == "ordered").group_by("unit_id").agg(since=pl.col("_row").max())
    since = ledger.filter(complete).join(ordered, on="unit_id").filter(pl.col("_row") > pl.col("since"))
    brought = pl.concat([f.select("symbol", "start", "end") for f in (ledger.filter(mine, complete), since)])
    done = {(s, Window(a, b)) for s, a, b in brought.iter_rows()}
    return frozenset((symbol, cell) for symbol in slip.asked for cell in slip.cells) - done


def _taken(data_dir: Path, slip: Slip) -> frozenset[Part]:
    """The (symbol, cell) of a job whose bytes lie under ``raw/``, stored or to be refined."""
    order = slip.order
    here = [s for s in slips(data_dir, slip.origin, order.dataset, order.schema) if s.batch == slip.batch]
    return frozenset((symbol, cell) for s in here for symbol in s.asked for cell in s.cells)


def tidy(data_dir: Path, ledger: Callable[[], pl.DataFrame]) -> None:
    """Forget the jobs of which everything is stored; the ledger is looked at where there are some."""
    noted = list(notes(data_dir))
    now = ledger() if noted else None
    for note in noted:
        if now is not None and not left(note.slip, now):
            forget(data_dir, note.path, note.slip.batch)


def unbooked(data_dir: Path, ledger: pl.DataFrame) -> list[Slip]:
    """The jobs that were paid for and that the ledger does not have yet."""
    booked = set(ledger["batch"].drop_nulls())
    return [note.slip for note in notes(data_dir) if note.slip.batch not in booked]


def lost(data_dir: Path, origin: str) -> list[Slip]:
    """The jobs of which nobody knows whether they were submitted: what the notes without a job were about."""
    found = [_read(path) for path in sorted((data_dir / "raw" / ".part").glob(f"*{_NOTE}"))]
    return [note.slip for note in found if note and not note.slip.batch and note.slip.origin == origin]


def adds_up(source: Source, data_dir: Path, slip: Slip) -> bool:
    """Whether the files of a slip's job that lie under ``raw/`` are as many records as the vendor says that it has."""
    order = slip.order
    if not (slip.batch and isinstance(source, BatchSource)):
        return False
    try:
        records = source.batch_job(slip.batch, order.dataset).records
    except RequestError:  # it does not know the job any more
        return False
    here = {s.raw.digest: s.arrived for s in slips(data_dir, slip.origin, order.dataset, order.schema)
            if s.batch == slip.batch and s.raw}  # fmt: skip
    return records is not None and sum(here.values()) == records


def part_file(data_dir: Path, job: str, name: str, digest: str) -> Path:
    """Where a file of a job is brought to: the same path in every run."""
    return raw.parts_folder(data_dir) / f"{job}-{digest[:16]}-{name}{_PART}"


def forget(data_dir: Path, note: Path | None, job: str) -> None:
    """Remove the note of a job that is over, and what came of files that are not wanted any more."""
    for path in (data_dir / "raw" / ".part").glob(f"{job}-*{_PART}"):
        path.unlink(missing_ok=True)
    if note is not None:
        note.unlink(missing_ok=True)


def what(slip: Slip) -> str:
    """A job in a few words."""
    order = slip.order
    symbols = some(order.symbols)
    return f"batch job {slip.batch} ({order.dataset} {order.schema} {symbols}, of {iso_ns(slip.bought_at)[:10]})"


def ending(job: BatchJob) -> str:
    """How a job ended, in the vendor's words."""
    return "has expired" if job.state == "expired" else f"is {job.state} at the vendor"


def _concerns(slip: Slip, request: Request, instruments: Collection[int]) -> bool:
    """Whether a job brings anything of the request's symbols, by name or by what they stand for."""
    if slip.asked == (ALL_SYMBOLS,) or request.everything:
        return True
    named = set(slip.asked) & set(request.symbols.get(slip.order.stype, ()))
    return bool(named) or not set(instruments).isdisjoint(slip.resolved["instrument_id"])


def _key(order: Order, split: str) -> tuple[Any, ...]:
    symbols = frozenset(s.upper() for s in order.symbols)
    return order.dataset, order.schema, order.stype, symbols, order.window, split


def _read(path: Path) -> Note | None:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    return _parsed(text, path)


def _check_format(given: object) -> None:
    if given != _FORMAT:
        raise ValueError(f"a note of format {given}")


def _parsed(text: str, path: Path) -> Note | None:
    """The note of a text; None for one whose first line was not written to its end. CorruptFile for another form."""
    first, whole, rest = text.partition("\n")
    if not whole:
        return None
    try:
        about = json.loads(first)
        _check_format(about["format"])
        slip = Slip.from_json(json.dumps(about["slip"]))
        line, ended, _ = rest.partition("\n")
        if ended:
            became = json.loads(line)
            slip = replace(slip, batch=str(became["job"]), bought_at=int(became["received"]))
        return Note(slip, str(about["split"]), tuple(about["known"]), str(about["account"]), path)
    except (ValueError, KeyError, TypeError, ArithmeticError, pl.exceptions.PolarsError) as exc:
        raise CorruptFile(
            f"{path}: cannot be read: {exc}",
            "It says which batch job was ordered. Mend it; or look at the vendor's list of jobs, and remove it.",
        ) from exc


__all__ = [
    "Coming", "Ended", "Intent", "Note", "adds_up", "alike", "coming", "ending", "forget", "left", "lost", "notes",
    "part_file", "submitted", "tidy", "unbooked", "unchanged", "what",
]  # fmt: skip

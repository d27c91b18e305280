"""Large orders as batch jobs: submitted once, waited for, and their files brought one by one, as lots like any other.

An order is noted on the disk before it is submitted, and in the store's ledger right after. Whatever dies, the next run
finds the job, waits for it or takes its files, and submits nothing a second time.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import structlog

from hdi import raw
from hdi.attempt import Options, heard, noted
from hdi.buying import batches
from hdi.buying.batches import Coming, Ended, Intent, Note, alike, part_file
from hdi.buying.downloads import Lot, Terms, checked, what
from hdi.buying.offer import Offer, quoted
from hdi.buying.ordering import Purchase, Request, cut
from hdi.buying.paid import Fetched, Found, Slip, check, slips
from hdi.errors import DataError, HdiError, RequestError, StoreError, UnitFailed, VendorRefused
from hdi.frames import COVERAGE, MAPPINGS, REJECTS
from hdi.model import MONEY, Order, Outcome, Quote, Receipt, Unit, Window, date_ns
from hdi.schema import Schema
from hdi.sources import BatchFile, BatchJob, BatchSource, Source, Unanswered
from hdi.stores import Store, Work

if TYPE_CHECKING:
    from hdi.schema import SchemaName

#: What a job's files may hold each, for each grid of units: whole cells, the shortest first.
SPLITS = {"day": ("day", "week", "month"), "month": ("month", "year"), "year": ("year",)}
_DAYS = {"day": 1, "week": 7, "month": 30, "year": 365}
#: Units of one job: receipts are held in memory.
_MOST_UNITS = 10_000
#: Pauses between two looks at a job, in seconds: they grow up to the longest.
_FIRST_PAUSE, _LONGEST_PAUSE, _GROWTH = 0.5, 60.0, 2.0
#: A pause that is worth telling a person about, and after how many seconds it is told again.
_NOTEWORTHY, _AGAIN = 1.0, 60.0
_TRIES = 3
_DAY = re.compile(r"-(\d{4})(\d\d)(\d\d)(?:-\d{8})?\.")
log = structlog.get_logger(component="PipelineOrchestrator")


@dataclass(frozen=True)
class _Draft:
    """A job to submit: the purchase that it is part of, and its cells. ``order`` is None where nothing is to be had.

    ``quote`` is None where it is not known yet.
    """

    purchase: Purchase
    cells: tuple[Window, ...]
    order: Order | None
    quote: Quote | None

    @property
    def lot(self) -> Lot:
        """The same as what is not to be had: a lot that is empty, or failed."""
        return Lot(self.purchase, self.cells, self.order, 0, Decimal(0), Decimal(0))


def batched(source: Source, terms: Terms, offer: Offer) -> frozenset[int]:
    """Which of an offer's purchases become batch jobs."""
    most = terms.batch_above_bytes
    if most is None or not isinstance(source, BatchSource):
        return frozenset()
    return frozenset(i for i, quote in enumerate(offer.quotes) if quote.size > most)


class Batching:
    """The batch jobs of one run: :meth:`ordered`, then :meth:`ready`, lot after lot.

    ``failed`` makes an outcome, with its receipts, of a lot that could not be had.
    """

    def __init__(  # noqa: PLR0913, PLR0917  (whom to ask, where to note it, and what for)
        self, source: Source, store: Store, options: Options, terms: Terms, offer: Offer, schema: Schema,
        name: SchemaName, run: str, failed: Callable[[Order, Lot, HdiError, str], Outcome],
    ) -> None:  # fmt: skip
        self._source = source
        self._store = store
        self._options = options
        self._terms = terms
        self._offer = offer
        self._schema = schema
        self._name = name
        self._run = run
        self._failed = failed
        self._coming: list[Coming] = list(offer.coming)
        self._nothing: list[Lot] = []
        self._taken: set[str] = set()
        self._found: dict[str, Found] = {}
        #: Jobs that were not waited for.
        self.waiting: list[Coming] = []

    @property
    def purchases(self) -> frozenset[int]:
        """Which of the offer's purchases become batch jobs."""
        return batched(self._source, self._terms, self._offer)

    def ordered(self) -> Iterator[Outcome]:
        """Submit what is to be ordered, and keep in the ledger what was; one outcome for each job."""
        self._coming = [job if job.booked else self._booked(job)[0] for job in self._coming]
        for ended in self._offer.ended:
            self._over(ended)
        for at in sorted(self.purchases):
            for draft in self._drafts(at):
                if draft.order is None:
                    self._nothing.append(draft.lot)
                    continue
                try:
                    quote = draft.quote or self._quoted(draft.order)
                    if not quote.records:
                        self._nothing.append(draft.lot)
                        continue
                    job, said = self._submitted(draft, draft.order, quote)
                    job, receipts = self._booked(job)
                except StoreError:
                    raise
                except HdiError as error:
                    yield self._failed(draft.order, draft.lot, error, self._run)
                    continue
                self._coming.append(job)
                yield self._outcome(job, receipts, job.slip.dollars, f"{job.sentence} {said}")

    def ready(self) -> Iterator[Sequence[Lot]]:
        """The lots of each job when it is done, which is waited for; first what is empty."""
        if self._nothing:
            yield self._nothing
        before = {job.id for job in self._offer.coming} | self._taken
        for job in self._coming:
            if job.id not in before and not self._terms.wait and (job.job.done or job.job.coming):
                self.waiting.append(job)
                continue
            try:
                done = self._done(job)
                lots = self._lots(replace(job, job=done)) if done else []
            except StoreError:
                raise
            except HdiError as error:
                yield [self._broken(job, error)]
                continue
            if done is None:
                self.waiting.append(job)
                continue
            yield lots
        batches.tidy(self._options.data_dir, self._store.ledger)

    def left(self) -> Iterator[Outcome]:
        """What there is to say of the jobs that were not waited for and that this run did not submit."""
        before = {job.id for job in self._offer.coming}
        for job in self.waiting:
            if job.id in before:
                yield self._outcome(job, (), Decimal(0), f"{job.sentence} is not done yet")

    def _drafts(self, at: int) -> Iterator[_Draft]:
        """The jobs of a purchase: all of it in one, unless that is too many units."""
        purchase, quote, request = self._offer.purchases[at], self._offer.quotes[at], self._offer.request
        cells = tuple(purchase.window.cells(self._name.grid))
        most = max(1, _MOST_UNITS // len(purchase.symbols))
        for first in range(0, len(cells), most):
            chunk = cells[first : first + most]
            window = Window(chunk[0].start, chunk[-1].end)
            order = purchase.order(request.dataset, self._name.name, window)
            yield _Draft(purchase, chunk, order, quote if chunk == cells else None)

    def _quoted(self, order: Order) -> Quote:
        return quoted(self._source, order, self._offer.known.conditions if self._offer.known else ())

    def _submitted(self, draft: _Draft, order: Order, quote: Quote) -> tuple[Coming, str]:
        """Order a job, noted before, and after; or take one that is there for the same. And which of the two."""
        source, known = self._source, self._offer.known
        assert isinstance(source, BatchSource)  # noqa: S101  (else there are no drafts)
        if known is None:
            raise UnitFailed(f"{what(order)}: nothing is known of its symbols", "Run the same command again.")
        rectangles = cut(draft.purchase.rectangles, order.window)
        names = cut(known.names, order.window).join(rectangles, on="instrument_id", how="semi")
        now = time.time_ns()
        slip = Slip(
            source.origin, order, draft.purchase.symbols, draft.cells, quote.records, quote.dollars,
            rectangles, names, known.conditions, bought_at=now, seen_at=known.seen_at,
        )  # fmt: skip
        split = split_of(self._name.grid, quote.records, order.window, self._terms.download_records)
        there = alike(source, order, split, now)
        taken = None if self._options.refetch else self._unclaimed(there)
        if taken is not None:
            dollars = quote.dollars if taken.dollars is None else taken.dollars.quantize(MONEY)
            slip = replace(slip, dollars=dollars, conditions=batches.unchanged(slip.conditions, taken))
        with Intent(self._options.data_dir, slip, split, [job.id for job in there], source.account()) as intent:
            try:
                job = taken or self._submit(source, intent.note)
            except (RequestError, VendorRefused):
                intent.nothing()
                raise  # after all else nobody knows: the note says where to look
            note = intent.became(job)
        parts = frozenset((symbol, cell) for symbol in slip.asked for cell in slip.cells)
        found = Coming(job, note.slip, split, parts, booked=False, note=note.path)
        if taken is not None:
            self._taken.add(job.id)
            log.info("batch job taken that was there", job=job.id, order=what(order), split=split)
            return found, "was ordered before, and no ledger row had it: it is taken, and nothing is ordered again"
        log.info("batch job submitted", job=job.id, order=what(order), split=split, dollars=str(slip.dollars))
        return found, "was ordered"

    def _unclaimed(self, there: Sequence[BatchJob]) -> BatchJob | None:
        """The newest of jobs that can be had and that nobody here knows: whoever ordered it could not book it."""
        known = set(self._store.ledger()["batch"].drop_nulls())
        known |= {note.slip.batch for note in batches.notes(self._options.data_dir)}
        return next((job for job in there if (job.done or job.coming) and job.id not in known), None)

    def _submit(self, source: BatchSource, note: Note) -> BatchJob:
        """Submit a job once: where nobody answered, it is looked for before it is submitted again."""
        for last in (*[False] * (_TRIES - 1), True):
            try:
                return source.submit(note.slip.order, note.split)
            except (Unanswered, DataError) as error:
                log.warning("no usable answer to a batch job: looking whether it was taken", error=error.message)
                if (job := batches.submitted(source, note, ())) is not None:
                    return job
                if last or isinstance(error, DataError):  # what was answered was done, whatever the list says yet
                    raise
        raise AssertionError("the last try returns or raises")  # pragma: no cover

    def _booked(self, job: Coming) -> tuple[Coming, list[Receipt]]:
        """Have the ledger know the job."""
        receipts = book(self._store, self._schema, self._name, job.slip, self._run, self._options.job)
        return replace(job, booked=True), receipts

    def _over(self, ended: Ended) -> None:
        """Have the ledger know that a job has ended, and what it cost."""
        slip, order = ended.slip, ended.slip.order
        if not ended.booked:
            book(self._store, self._schema, self._name, slip, self._run, self._options.job)
        ledger = self._store.ledger().filter(pl.col("batch") == slip.batch).unique("unit_id", keep="last")
        failed = set(ledger.filter(pl.col("status") == "failed")["unit_id"])
        units = [u for u in _units(slip) if (u.symbol, u.window) in ended.parts and u.id not in failed]
        if units:
            numbers = self._store.reserve([u.id for u in units])
            receipts = [
                Receipt(u, n, self._run, "failed", 0, 0, 0, error=ended.why, exit_code=UnitFailed.exit_code,
                        job=self._options.job, batch=slip.batch)
                for u, n in zip(units, numbers, strict=True)
            ]  # fmt: skip
            work = Work(
                self._run, order.dataset, self._schema, self._name, dict(zip(numbers, units, strict=True)),
                pl.DataFrame(schema=COVERAGE), pl.DataFrame(schema=MAPPINGS),
            )  # fmt: skip
            self._store.record(work, receipts, pl.DataFrame(schema=REJECTS))
        batches.forget(self._options.data_dir, ended.note, slip.batch)

    def _done(self, job: Coming) -> BatchJob | None:
        """The job when it is done; None when it is not, and is not to be waited for. UnitFailed when it never will."""
        source = self._source
        assert isinstance(source, BatchSource)  # noqa: S101
        pause, told, silent, found = _FIRST_PAUSE, "", _AGAIN, job.job
        while not found.done:
            if found.coming:
                found = source.batch_job(job.id, job.slip.order.dataset)
            if found.done:
                break
            if not found.coming:
                raise UnitFailed(
                    f"{batches.what(job.slip)} {batches.ending(found)}",
                    "Run the same command again: it says what an order of the rest costs, and asks before it makes "
                    "one.",
                )
            if not self._terms.wait:
                return None
            sentence = replace(job, job=found).sentence
            if self._terms.on_wait is not None and (sentence != told or (pause >= _NOTEWORTHY and silent >= _AGAIN)):
                self._terms.on_wait(f"{sentence}; interrupted, it goes on, and the same command finds it", pause)
                told, silent = sentence, 0.0 if pause >= _NOTEWORTHY else _AGAIN
            time.sleep(pause)
            silent += pause
            pause = min(pause * _GROWTH, _LONGEST_PAUSE)
        return found

    def _lots(self, job: Coming) -> list[Lot]:
        """A lot for each file of which something is to come."""
        source, slip = self._source, job.slip
        assert isinstance(source, BatchSource)  # noqa: S101
        files = source.batch_files(job.id, slip.order.dataset)
        lots = []
        for file, cells in stretches(slip, files):
            window = Window(cells[0].start, cells[-1].end)
            to_come = any((symbol, cell) in job.parts for symbol in slip.asked for cell in cells)
            if not to_come or window.cut(self._offer.request.window) is None:
                continue
            purchase = Purchase(slip.order.stype, slip.asked, window, cut(slip.resolved, window))
            order = replace(slip.order, window=window)
            bring = partial(self._bring, job, files, file, purchase, cells)
            lots.append(Lot(purchase, cells, order, None, Decimal(0), Decimal(0), batch=job.id, bring=bring))
        return lots

    def _broken(self, job: Coming, error: HdiError) -> Lot:
        """A lot that fails: what is to come of a job that cannot be had."""
        slip = job.slip
        cells = tuple(sorted({cell for _, cell in job.parts}))
        purchase = Purchase(slip.order.stype, slip.asked, slip.order.window, slip.resolved)

        def bring() -> tuple[Slip, str]:
            raise error

        return Lot(purchase, cells, slip.order, None, Decimal(0), Decimal(0), batch=job.id, bring=bring)

    def _bring(
        self, job: Coming, files: Sequence[BatchFile], file: BatchFile, purchase: Purchase, cells: tuple[Window, ...]
    ) -> tuple[Slip, str]:
        """Bring a file, check it as a stream is, and keep it; with what there is to note. Runs in a thread.

        A vendor that has changed a day since counts otherwise than when it made the file: where all files together
        are as many records as the job says, it is right.
        """
        source, data_dir, whole = self._source, self._options.data_dir, job.slip
        order = purchase.order(whole.order.dataset, whole.order.schema) or replace(whole.order, window=purchase.window)
        found, records, note = self._looked(job, file), source.count(order), ""
        if found.header is not None and found.records != records and self._adds_up(job, files):
            note = f"as the job was made it is {found.records} records; the vendor counts {records} now"
            records = found.records
        with self._held(file):
            path = self._fetched(job, file)
            share = whole.dollars * records / whole.records if whole.records else Decimal(0)
            names = cut(whole.names, order.window).join(purchase.rectangles, on="instrument_id", how="semi")
            slip = Slip(
                whole.origin, order, whole.asked, cells, records, share.quantize(Decimal("1e-9")), purchase.rectangles,
                names, whole.conditions, bought_at=whole.bought_at, seen_at=whole.seen_at, batch=job.id,
            )  # fmt: skip
            with Fetched(data_dir, slip, path) as delivery:
                return checked(source, delivery, whole.order, found), note

    def _held(self, file: BatchFile) -> AbstractContextManager[None]:
        """The right to bring a file."""
        return raw.locked(self._options.data_dir, f"batch-{hashlib.sha256(file.digest.encode()).hexdigest()[:16]}")

    def _fetched(self, job: Coming, file: BatchFile) -> Path:
        """Where a file is, whole and with the right SHA-256; it is brought where it is not there."""
        source = self._source
        assert isinstance(source, BatchSource)  # noqa: S101
        path = part_file(self._options.data_dir, job.id, file.name, file.digest)
        if file.digest not in self._found or not path.exists() or path.stat().st_size != file.size:
            source.fetch(file, path, job.slip.order.dataset)
        return path

    def _looked(self, job: Coming, file: BatchFile) -> Found:
        """What a file is: read once."""
        with self._held(file):
            if file.digest not in self._found:
                self._found[file.digest] = check(self._fetched(job, file))
            return self._found[file.digest]

    def _adds_up(self, job: Coming, files: Sequence[BatchFile]) -> bool:
        """Whether all files of a job are as many records as it has; those that are not here yet are brought."""
        order = job.slip.order
        known = slips(self._options.data_dir, job.slip.origin, order.dataset, order.schema, [f.digest for f in files])
        kept = {slip.raw.digest: slip.arrived for slip in known if slip.raw}
        came = sum(kept[f.digest] if f.digest in kept else self._looked(job, f).records for f in files)
        return came == (job.job.records if job.job.records is not None else job.slip.records)

    def _outcome(self, job: Coming, receipts: Sequence[Receipt], dollars: Decimal, note: str) -> Outcome:
        return _ordered(job.slip, receipts, len(job.parts), dollars, note)


def _units(slip: Slip) -> list[Unit]:
    """The units of a job."""
    order = slip.order
    return [
        Unit(slip.origin, order.dataset, order.schema, symbol, order.stype, cell)
        for cell in slip.cells
        for symbol in slip.asked
    ]


def book(
    store: Store, schema: Schema, name: SchemaName, slip: Slip, run: str, job: str | None
) -> list[Receipt]:  # fmt: skip
    """Have the ledger know a batch job that was ordered: one receipt for each unit, the price on the first."""
    order, units = slip.order, _units(slip)
    numbers = store.reserve([u.id for u in units])
    receipts = [
        Receipt(
            u, n, run, "ordered", 0, 0, 0, dollars=slip.dollars if i == 0 else None,
            conditions=noted(slip.conditions, u), job=job, batch=slip.batch,
        )
        for i, (u, n) in enumerate(zip(units, numbers, strict=True))
    ]  # fmt: skip
    work = Work(
        run, order.dataset, schema, name, dict(zip(numbers, units, strict=True)),
        pl.DataFrame(schema=COVERAGE), pl.DataFrame(schema=MAPPINGS),
        conditions=heard(order.dataset, slip.conditions, slip.seen_at),
    )  # fmt: skip
    store.record(work, receipts, pl.DataFrame(schema=REJECTS))
    return receipts


def unbooked(
    source: Source, store: Store, options: Options, request: Request, schema: Schema, run: str
) -> Iterator[Outcome]:  # fmt: skip
    """Have the ledger know the batch jobs of a request that it has not, where nothing is to be brought."""
    booked = set(store.ledger()["batch"].drop_nulls())
    for note in list(batches.notes(options.data_dir, source if isinstance(source, BatchSource) else None)):
        slip = note.slip
        if note.concerns(request, source.origin) and slip.batch not in booked:
            receipts = book(store, schema, request.name, slip, run, options.job)
            yield _ordered(slip, receipts, len(receipts), slip.dollars, f"{batches.what(slip)} is in the ledger now")


def _ordered(slip: Slip, receipts: Sequence[Receipt], units: int, dollars: Decimal, note: str) -> Outcome:
    order = slip.order
    return Outcome(
        "", "ordered", order.dataset, order.schema, order.symbols, order.window, tuple(receipts), units=units,
        note=note, dollars=dollars,
    )  # fmt: skip


def split_of(grid: str, records: int, window: Window, most: int) -> str:
    """How long a stretch one file should hold: the longest that has no more than ``most`` records on average."""
    each = records / max(window.days, 1)
    fitting = [split for split in SPLITS[grid] if each * _DAYS[split] <= most]
    return fitting[-1] if fitting else SPLITS[grid][0]


def stretches(slip: Slip, files: Sequence[BatchFile]) -> list[tuple[BatchFile, tuple[Window, ...]]]:
    """Each file with the cells of the job that it answers for: from its own day up to that of the next file.

    Days without data have no file. UnitFailed when there is none at all, or their names say no days that begin cells.
    """
    days = sorted(((_day(file), file) for file in files), key=lambda each: each[0])
    first = [_cell(slip, day) for day, _ in days]
    if not files or None in first or any(a >= b for a, b in pairwise(first)):  # type: ignore[operator]
        names = ", ".join(file.name for file in files) or "none"
        raise UnitFailed(
            f"{batches.what(slip)}: its files are not cut as was ordered: {names}",
            "Take them from the vendor's portal, and ingest them together with --api dbn.",
        )
    bounds = [0, *first[1:], len(slip.cells)]
    return [(file, slip.cells[bounds[i] : bounds[i + 1]]) for i, (_, file) in enumerate(days)]


def _day(file: BatchFile) -> int:
    """The first day that a file's name gives, in nanoseconds; -1 where it gives none."""
    match = _DAY.search(file.name)
    try:
        return date_ns(dt.date(*map(int, match.groups()))) if match else -1
    except ValueError:
        return -1


def _cell(slip: Slip, day: int) -> int | None:
    """The cell of a job that holds a day, or the job's part of it."""
    if day < 0:
        return None
    at = max(day, slip.cells[0].start)
    return next((i for i, cell in enumerate(slip.cells) if cell.start <= at < cell.end), None)


__all__ = ["SPLITS", "Batching", "book", "split_of", "stretches", "unbooked"]

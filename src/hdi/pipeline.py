"""The pipeline: the only place where source, refining and store meet.

One file is one attempt and one commit. Everything about it is checked before the commit: that the bytes
are whole, how many rows were rejected, and that every row fetched is stored or quarantined.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import resource
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import polars as pl
import structlog

from hdi import quarantine, raw
from hdi.errors import CorruptFile, DataError, HdiError, NotDbn, RequestError, StoreError, TooManyRejects
from hdi.frames import COVERAGE, REJECTS
from hdi.mapping import VendorMapping
from hdi.model import DAY_NS, MAX_NS, FileOutcome, Header, RawFile, Receipt, Unit, cell_start, iso_ns, ns_date
from hdi.plan import Plan, learned, plan_file, uncovered, unmapped
from hdi.refine import Refinery, rule_checks
from hdi.schema import Schema, Schemas
from hdi.sources import jobs
from hdi.sources.dbn import Reader
from hdi.sources.records import MESSAGES, columns
from hdi.stores import Store, Work, check_origin
from hdi.symbology import ALL_SYMBOLS

#: Claims of one dataset and schema.
_KEYS = 64
_ORIGIN = re.compile(r"[a-z0-9][a-z0-9._-]*")
#: Positions in a raw file are stored as INTEGER.
MAX_ROWS = 2**31 - 1
#: Rows of each rule that are kept of a unit that failed as a whole.
SAMPLE = 1000


@dataclass(frozen=True)
class Options:
    """How files are ingested. ``origin`` defaults to the vendor; ``keep`` copies them under ``raw/``."""

    data_dir: Path
    dlq_dir: Path
    origin: str = "databento"
    batch_size: int = 131_072
    max_reject_percent: float = 1.0
    min_rejects: int = 100
    refetch: bool = False
    dry_run: bool = False
    keep: bool = True


@dataclass
class _Tally:
    """What one attempt has seen so far, by unit index or number."""

    fetched: np.ndarray[Any, Any]
    rejected: dict[int, int] = field(default_factory=dict)
    rules: dict[int, dict[str, int]] = field(default_factory=dict)
    days: list[pl.DataFrame] = field(default_factory=list)
    names: list[pl.DataFrame] = field(default_factory=list)
    samples: list[pl.DataFrame] = field(default_factory=list)
    sampled: dict[tuple[int, str], int] = field(default_factory=dict)


def ingest_files(
    store: Store, schemas: Schemas, mapping: VendorMapping, paths: Iterable[Path], options: Options
) -> Iterator[FileOutcome]:
    """Ingest DBN files one by one; a file that fails is reported, and the others go on.

    Yields one outcome for each file as it is done. Raises StoreError when the store itself is gone,
    RequestError for an origin that is no name.
    """
    if not _ORIGIN.fullmatch(options.origin):
        raise RequestError(
            f"{options.origin!r} is not the name of an origin",
            "It names folders: write lower-case letters, digits and dashes, such as databento or synthetic.",
        )
    check_refining(schemas, mapping)
    log = structlog.get_logger().bind(component="PipelineOrchestrator")
    started, began = time.monotonic(), iso_ns(time.time_ns())
    run = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid4().hex[:6]}"
    records = errors = chunks = 0
    counts = dict.fromkeys(("fetched", "stored", "quarantined"), 0)
    if not options.dry_run:
        raw.sweep(options.data_dir)
        _export(store, options.dlq_dir)
    try:
        for path, header in jobs.parts(paths):
            outcome = _File(store, schemas, mapping, path, options, run, header).ingest()
            chunks += len(outcome.receipts)
            errors += outcome.status == "failed"
            for receipt in outcome.receipts:
                for name in counts:
                    counts[name] += getattr(receipt, name)
            records = counts["stored"] + counts["quarantined"]
            _log_outcome(log, outcome)
            yield outcome
    finally:
        if not options.dry_run:
            store.settle()
        seconds = time.monotonic() - started
        log.info(
            "Pipeline completed", run=run, records_processed=records, execution_time=round(seconds, 3),
            processing_rate=round(records / seconds, 1) if seconds else 0.0,
            memory_peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            chunks_processed=chunks, errors_encountered=errors, duration_seconds=round(seconds, 3),
            start_time=began, end_time=iso_ns(time.time_ns()),
            transformed=counts["fetched"], validated=counts["fetched"], **counts,
        )  # fmt: skip


def check_refining(schemas: Schemas, mapping: VendorMapping) -> None:
    """Bind every mapping and rule now, whatever is ingested: a ConfigError must not wait for the file it is about."""
    for schema in schemas:
        rule_checks(schema)
        for name in schema.names.values():
            if name.made_from is None and name.name in MESSAGES:
                Refinery(schema, name, mapping, columns(name.name), "")


def _log_outcome(log: Any, outcome: FileOutcome) -> None:
    level = log.error if outcome.status == "failed" else log.info
    level(
        f"file {outcome.status}", file=outcome.path, schema=outcome.schema, dataset=outcome.dataset,
        fetched=sum(r.fetched for r in outcome.receipts), stored=sum(r.stored for r in outcome.receipts),
        quarantined=sum(r.quarantined for r in outcome.receipts), seconds=round(outcome.seconds, 3),
        error=outcome.error.message if outcome.error else None,
    )  # fmt: skip


class _File:
    """One file on its way into the store."""

    def __init__(  # noqa: PLR0913, PLR0917  (what ingest_files was given, for one of its files)
        self, store: Store, schemas: Schemas, mapping: VendorMapping, path: Path, options: Options, run: str,
        job: jobs.Part | None,
    ) -> None:  # fmt: skip
        self.store = store
        self.schemas = schemas
        self.mapping = mapping
        self.path = path
        self.options = options
        self.run = run
        self.job = job
        self.started = time.monotonic()
        self.header: Header | None = None
        self.about: dict[str, Any] = {}

    def ingest(self) -> FileOutcome:
        """Do it, and turn whatever goes wrong with this file into its outcome."""
        try:
            return self._ingest()
        except StoreError:
            raise
        except HdiError as error:
            return self._outcome("failed", error=error)

    def _outcome(self, status: Any, **rest: Any) -> FileOutcome:
        seconds = time.monotonic() - self.started
        return FileOutcome(path=str(self.path), status=status, seconds=seconds, **self.about, **rest)

    def _ingest(self) -> FileOutcome:
        header = self._header()
        if header.schema not in self.schemas.names:
            raise NotDbn(
                f"{self.path}: holds {header.schema} records, which have no table here",
                f"Schemas that are stored: {', '.join(self.schemas.stored_names)}.",
            )
        schema, name = self.schemas.find(header.schema)
        digest = ""
        plan = plan_file(header, name, self.options.origin, "")
        if plan.fragment:
            digest = file_digest(self.path)
            plan = plan_file(header, name, self.options.origin, digest)
        self.about |= {"dataset": header.dataset, "schema": header.schema, "symbols": header.symbols,
                       "window": header.window, "units": len(plan.units)}  # fmt: skip
        if self.options.dry_run:
            left = self._left(plan)
            return self._outcome("planned", note=_plan_note(plan, left, refetch=self.options.refetch))
        with self.store.claim([digest] if digest else _keys(plan)):
            left = plan.units if self.options.refetch else [*self._left(plan), *self._doubted(plan)]
            if not left:
                return self._outcome("skipped", note=self._skip_note(plan, digest))
            refinery = Refinery(schema, name, self.mapping, columns(header.schema), header.dataset)
            return self._attempts(schema, plan, refinery, left)

    def _header(self) -> Header:
        with Reader(self.path) as reader:
            self.header = reader.header
            return self.job.describe(reader.header) if self.job else reader.header

    def _left(self, plan: Plan) -> list[Unit]:
        """The units that are not stored yet. Raises OriginMismatch when what is stored is of another origin."""
        check_origin(self.store, self.options.origin)
        if plan.fragment:
            done = self.store.ledger().filter(pl.col("status") != "failed")["unit_id"]
            return [u for u in plan.units if u.id not in set(done.to_list())]
        return uncovered(plan, self.store.coverage())

    def _doubted(self, plan: Plan) -> list[Unit]:
        """Units that were confirmed empty by other bytes than these: a file costs nothing to look at again."""
        if plan.fragment:
            return []
        unit = plan.units[0]
        ledger = self.store.ledger().filter(
            pl.col("status") == "complete", pl.col("dataset") == unit.dataset, pl.col("schema") == unit.schema
        )
        full = ledger.filter(pl.col("fetched") > 0).select("symbol", "start", "end")
        held: dict[str, list[tuple[int, int]]] = {}
        for symbols, start, end in full.iter_rows():
            for symbol in symbols.split(","):
                held.setdefault(symbol, []).append((start, end))

        def found(unit: Unit) -> bool:
            stretches = (w for symbol in (*unit.symbol.split(","), ALL_SYMBOLS) for w in held.get(symbol, ()))
            return any(start < unit.window.end and end > unit.window.start for start, end in stretches)

        empty = [unit for unit in plan.units if unit.symbol and not found(unit)]
        if not empty or ledger.filter(pl.col("raw_digest") == file_digest(self.path)).height:
            return []
        return empty

    def _skip_note(self, plan: Plan, digest: str) -> str:
        if plan.fragment:
            return "the same bytes are stored already"
        known = self.store.ledger().filter(pl.col("raw_digest") == (digest or file_digest(self.path)))
        if known.height:
            return "the same file is stored already"
        return "its whole window is stored already, from another file; --refetch reads this one and replaces"

    def _attempts(self, schema: Schema, plan: Plan, refinery: Refinery, left: Iterable[Unit]) -> FileOutcome:
        """One attempt at the units that are left, and where some have too many rejects another one without them."""
        numbers = self.store.reserve([u.id for u in plan.units])
        place = {unit: i for i, unit in enumerate(plan.units)}
        wanted = plan.together(place[unit] for unit in left)
        attempt = _Attempt(self, schema, plan, refinery, numbers, wanted)
        receipts = attempt.run()
        failed = [r for r in receipts if r.status == "failed"]
        self._export()
        if not failed:
            return self._outcome("stored", receipts=tuple(receipts), note=plan.fragment)
        worst = max(failed, key=lambda r: r.quarantined / max(r.fetched, 1))
        error = TooManyRejects(
            f"{self.path}: {worst.quarantined} of {worst.fetched} rows of {worst.unit.symbol or 'unmapped'} "
            f"({worst.unit.window}) were rejected: {_by_rule(worst.rules)}",
            f"A unit fails above both {self.options.max_reject_percent} % and {self.options.min_rejects} rows; what "
            "was stored before stays. Look at the quarantine, then mend the file or the rules, or raise --max-rejects.",
        )
        return self._outcome("failed", receipts=tuple(receipts), error=error)

    def _export(self) -> None:
        _export(self.store, self.options.dlq_dir)


class _Attempt:
    """One pass over a file into one commit."""

    def __init__(
        self, file: _File, schema: Schema, plan: Plan, refinery: Refinery, numbers: list[int], wanted: set[int]
    ) -> None:
        self.file = file
        self.stored_before = frozenset(n for i, n in enumerate(numbers) if i not in wanted)
        self.schema = schema
        self.plan = plan
        self.refinery = refinery
        self.numbers = np.array(numbers, dtype=np.int32)
        self.starts = np.array([u.window.start for u in plan.units], dtype=np.int64)
        self.ends = np.array([u.window.end for u in plan.units], dtype=np.int64)
        self.began = time.monotonic()

    def run(self, failed: Sequence[Receipt] = (), samples: pl.DataFrame | None = None) -> list[Receipt]:
        """Commit every unit; of those in ``failed`` only their receipts, and ``samples`` of their rejects."""
        self.without = without = self.stored_before | {r.number for r in failed}
        self.tally = _Tally(np.zeros(len(self.plan.units), dtype=np.int64))
        options = self.file.options
        part = raw.Part(options.data_dir) if options.keep else None
        kept = [int(n) not in without for n in self.numbers]
        work = self._work(pl.DataFrame(schema=COVERAGE), None)
        with contextlib.ExitStack() as stack:
            if part is not None:
                stack.callback(part.discard)
            reader = stack.enter_context(Reader(self.file.path, part))
            writer = stack.enter_context(self.file.store.replace(work))
            undefined = self.file.mapping.undefined
            row = 0
            decoded = reader.frames(options.batch_size, undefined, self.schema.kind)
            for frame in stack.enter_context(contextlib.closing(_ahead(decoded))):
                if row + frame.height > MAX_ROWS:
                    raise DataError(f"{self.file.path}: holds more than {MAX_ROWS} records", "Split it.")
                self._batch(frame, row, writer)
                row += frame.height
            self._same(reader)
            rawfile = self._keep(reader, part)
            over = self._over()
            if not over - without:
                coverage = pl.concat([self.plan.coverage(self.numbers.tolist(), kept), self._unmapped()])
                work = self._work(pl.concat([coverage, self._unmapped_before(coverage)]), rawfile)
                receipts = [self._receipt(i, rawfile) for i, keep in enumerate(kept) if keep and self._counts(i)]
                if samples is not None:
                    writer.reject(samples)
                return writer.finish(work, [*failed, *receipts])
        return self._again(over, rawfile)

    def _same(self, reader: Reader) -> None:
        """CorruptFile when the file is not the one that was planned."""
        digest = self.plan.units[0].digest
        if self.file.job is not None and not self.file.job.matches(reader.size, reader.digest):
            raise CorruptFile(
                f"{self.file.path}: its size or SHA-256 is not what manifest.json says",
                "Get the file again; nothing of it was stored.",
            )
        if reader.header != self.file.header or (digest and reader.digest != digest):
            raise CorruptFile(f"{self.file.path}: changed while it was read", "Nothing of it was stored; try again.")

    def _counts(self, i: int) -> bool:
        """False for the unit of what arrived unmapped, when nothing did."""
        return bool(self.plan.units[i].symbol or self.tally.fetched[i] or self.plan.fragment)

    def _again(self, over: set[int], rawfile: RawFile) -> list[Receipt]:
        """Commit the units that are not over the limit, with the receipts of those that are.

        Units that share an instrument with one over the limit fail with it: their scope is its scope.
        """
        over = {int(self.numbers[i]) for i in self.plan.together(i for i, n in enumerate(self.numbers) if n in over)}
        failed = [
            replace(self._receipt(i, rawfile), status="failed", stored=0, exit_code=TooManyRejects.exit_code,
                    error="too many rejects")
            for i, n in enumerate(self.numbers) if int(n) in over and self._counts(i)
        ]  # fmt: skip
        samples = pl.concat([pl.DataFrame(schema=REJECTS), *self.tally.samples]).filter(
            pl.col("unit").is_in(list(over))
        )
        samples = samples.with_columns(failed=pl.lit(value=True), raw_file=pl.lit(rawfile.path))
        rest = over | self.stored_before
        if any(self._counts(i) for i, n in enumerate(self.numbers) if int(n) not in rest):
            return self.run(failed, samples)
        self.file.store.record(self._work(pl.DataFrame(schema=COVERAGE), rawfile), failed, samples)
        return failed

    def _batch(self, frame: pl.DataFrame, row: int, writer: Any) -> None:
        index = self.schema.index_time
        times = frame[index].to_physical()
        # Rows without an index time are rejected; until then they count with the first unit.
        instants = (times.fill_null(self.starts[0]) if times.null_count() else times).to_numpy()
        instruments = frame["instrument_id"].cast(pl.Int64).to_numpy()
        units, symbols, missing = self.plan.router.route(instruments, instants)
        if self.plan.fragment:
            units = np.zeros(frame.height, dtype=np.int64)
        frame = frame.with_columns(
            symbols, *self._context(units), _row=pl.int_range(row, row + frame.height, dtype=pl.Int32)
        )
        self.tally.fetched += np.bincount(units, minlength=len(self.plan.units))
        if missing.any() and not self.plan.fragment:
            # A row that says no time, or one outside its window, is no answer about its instrument's day.
            inside = missing & (instants >= self.starts[units]) & (instants < self.ends[units])
            inside &= times.is_not_null().to_numpy()
            self._note_unmapped(units[inside], instruments[inside], instants[inside])
        verdict = self.refinery.refine(frame)
        accepted, rejected = verdict.accepted, verdict.rejected
        self._count(verdict)
        if self.without:
            dropped = list(self.without)
            accepted = accepted.filter(~pl.col("_unit").is_in(dropped))
            rejected = rejected.filter(~pl.col("unit").is_in(dropped))
        if "raw_symbol" in accepted.columns:
            self._note_names(accepted, symbols, row)
        writer.write(accepted)
        if rejected.height:
            writer.reject(self._identified(rejected))

    def _context(self, units: np.ndarray[Any, Any]) -> list[pl.Series | pl.Expr]:
        """Columns that refining needs beside the vendor's; constants where all rows share a unit."""
        unit = self.plan.units[0]
        context: list[pl.Series | pl.Expr] = [
            pl.lit(unit.dataset).alias("dataset"), pl.lit(unit.origin).alias("data_source"),
        ]  # fmt: skip
        first = units[0]
        place: dict[str, np.ndarray[Any, Any]] = {
            "_unit": self.numbers, "_window_start": self.starts, "_window_end": self.ends,
        }  # fmt: skip
        if (units == first).all():
            return context + [pl.lit(v[first], dtype=_POLARS[v.dtype.name]).alias(c) for c, v in place.items()]
        return context + [pl.Series(c, v[units]) for c, v in place.items()]

    def _count(self, verdict: Any) -> None:
        for unit, rule, rows in verdict.counts.select("_unit", "rule", "rows").iter_rows():
            rules = self.tally.rules.setdefault(unit, {})
            rules[rule] = rules.get(rule, 0) + rows
        if not verdict.rejected.height:
            return
        for unit, rows in verdict.rejected.group_by("unit").len().iter_rows():
            self.tally.rejected[unit] = self.tally.rejected.get(unit, 0) + rows
        self._sample(verdict.rejected)

    def _sample(self, rejected: pl.DataFrame) -> None:
        """Keep the first rows of each rule, in case the unit fails as a whole."""
        sampled = self.tally.sampled
        for (unit, rule), rows in rejected.with_columns(_rule=pl.col("rules").list.first()).group_by("unit", "_rule"):
            key = (int(str(unit)), str(rule))
            room = SAMPLE - sampled.get(key, 0)
            if room > 0:
                sampled[key] = sampled.get(key, 0) + min(room, rows.height)
                self.tally.samples.append(self._identified(rows.head(room).drop("_rule")))

    def _identified(self, rejected: pl.DataFrame) -> pl.DataFrame:
        # Where the raw file will lie is known when it was read to its end: the receipt says it.
        return rejected.with_columns(
            unit_id=pl.col("unit").replace_strict(self._ids, return_dtype=pl.String), run=pl.lit(self.file.run),
            raw_file=pl.lit(None, pl.String), failed=pl.lit(value=False),
        ).select(pl.col(c).cast(t) for c, t in REJECTS.items())  # fmt: skip

    @cached_property
    def _ids(self) -> dict[int, str]:
        return {int(n): u.id for n, u in zip(self.numbers, self.plan.units, strict=True)}

    def _note_unmapped(self, units: Any, instruments: Any, instants: Any) -> None:
        rows = pl.DataFrame({
            "unit": self.numbers[units], "instrument_id": instruments, "day": instants // DAY_NS * DAY_NS,
        })  # fmt: skip
        self.tally.days.append(rows.unique())

    def _note_names(self, accepted: pl.DataFrame, symbols: pl.Series, row: int) -> None:
        """Definitions say which raw symbol an instrument has on their day, where the file's mappings do not."""
        if not symbols.null_count():
            return
        unnamed = symbols.is_null().gather(accepted["_row"] - row)
        day = pl.col(self.schema.index_time).to_physical() // DAY_NS * DAY_NS
        pairs = accepted.filter(unnamed).select("instrument_id", day.alias("day"), symbol="raw_symbol").unique()
        self.tally.names.append(pairs)
        if len(self.tally.names) > 64:  # noqa: PLR2004
            self.tally.names = [pl.concat(self.tally.names).unique()]

    def _unmapped(self) -> pl.DataFrame:
        if not self.tally.days:
            return pl.DataFrame(schema=COVERAGE)
        unit = self.plan.units[0]
        by_number = dict(zip(self.numbers.tolist(), self.plan.units, strict=True))
        days = pl.concat(self.tally.days).unique().filter(~pl.col("unit").is_in(list(self.without)))
        claimed = unmapped(unit.dataset, unit.schema, days, by_number).filter(pl.col("start") < pl.col("end"))
        return claimed.select(pl.col(c).cast(t) for c, t in COVERAGE.items())

    def _unmapped_before(self, coverage: pl.DataFrame) -> pl.DataFrame:
        """What the same units claimed before of instruments that nothing maps, and that this file may lack."""
        store = self.file.store
        ids = {u.id: int(n) for n, u in zip(self.numbers, self.plan.units, strict=True) if int(n) not in self.without}
        before = store.ledger().filter(pl.col("unit_id").is_in(list(ids)), pl.col("status") == "complete")
        if before.is_empty():
            return coverage.clear()
        numbers = before.select("unit", now=pl.col("unit_id").replace_strict(ids, return_dtype=pl.Int32))
        claimed = store.coverage().drop_nulls("instrument_id").join(numbers, on="unit")
        mapped = pl.concat([self.plan.intervals["instrument_id"], store.mappings()["instrument_id"]]).unique()
        return (
            claimed.filter(~pl.col("instrument_id").is_in(mapped.implode()))
            .with_columns(unit="now")
            .select(coverage.columns)
            .join(coverage, on=coverage.columns, how="anti", nulls_equal=True)
            .unique(maintain_order=True)
        )

    def _work(self, coverage: pl.DataFrame, rawfile: RawFile | None) -> Work:
        unit = self.plan.units[0]
        mappings = self.plan.mappings
        if self.tally.names:
            named = learned(unit.dataset, pl.concat(self.tally.names))
            mappings = pl.concat([mappings, named])
        units = dict(zip(self.numbers.tolist(), self.plan.units, strict=True))
        kept = {n: u for n, u in units.items() if n not in self.without}
        return Work(
            run=self.file.run, dataset=unit.dataset, schema=self.schema, name=self.plan.name,
            units=kept, coverage=coverage, mappings=mappings, raw=rawfile,
        )  # fmt: skip

    def _keep(self, reader: Reader, part: raw.Part | None) -> RawFile:
        if part is None:
            return RawFile(str(self.file.path.absolute()), reader.digest, reader.size)
        unit = self.plan.units[0]
        day = "undated" if unit.window.end == MAX_NS else ns_date(unit.window.start).isoformat()
        suffix = ".dbn.zst" if reader.packed else ".dbn"
        name = f"{unit.id}-{reader.digest[:12]}{suffix}"
        return part.keep((unit.origin, unit.dataset, unit.schema, day), name, reader.digest, reader.size)

    def _over(self) -> set[int]:
        """The numbers of the units whose rejects exceed both limits."""
        options, over = self.file.options, set()
        for i, number in enumerate(self.numbers.tolist()):
            rejected = self.tally.rejected.get(number, 0)
            share = 100 * rejected / max(int(self.tally.fetched[i]), 1)
            if number in self.stored_before:
                continue
            if rejected > options.min_rejects and share > options.max_reject_percent:
                over.add(number)
        return over

    def _receipt(self, i: int, rawfile: RawFile) -> Receipt:
        number = int(self.numbers[i])
        rejected = self.tally.rejected.get(number, 0)
        fetched = int(self.tally.fetched[i])
        return Receipt(
            unit=self.plan.units[i], number=number, run=self.file.run,
            status="fragment" if self.plan.fragment else "complete", fetched=fetched,
            stored=fetched - rejected, quarantined=rejected, rules=self.tally.rules.get(number, {}),
            raw=rawfile, seconds=round(time.monotonic() - self.began, 3), committed_at=time.time_ns(),
        )  # fmt: skip


_POLARS: Mapping[str, Any] = {"int32": pl.Int32(), "int64": pl.Int64()}


def _ahead(frames: Iterator[pl.DataFrame]) -> Generator[pl.DataFrame]:
    """The same frames, each made by a thread while the one before is used."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="hdi-decode") as pool:
        coming = pool.submit(next, frames, None)
        while (frame := coming.result()) is not None:
            coming = pool.submit(next, frames, None)
            yield frame


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _export(store: Store, dlq: Path) -> None:
    """Bring the dead-letter folder in line with the store, one process after the other."""
    if dlq.exists() or store.quarantine().height:
        with quarantine.held(dlq):
            quarantine.export(dlq, store.quarantine(), store.ledger(), store.url)


def _keys(plan: Plan) -> list[str]:
    """What to claim for a complete file: its grid cells, folded so that a long window needs few locks.

    Files that share a cell share a key; keys that collide only make one wait for the other.
    """
    unit, grid = plan.units[0], plan.name.grid
    cells = {cell_start(c.start, grid) // DAY_NS % _KEYS for c in plan.cells}
    return [f"{unit.dataset}-{unit.schema}-{cell}" for cell in sorted(cells)]


def _plan_note(plan: Plan, left: list[Unit], *, refetch: bool) -> str:
    what = f"{len(left)} of {len(plan.units)} units to store" if left else "all of it is stored already"
    if refetch and len(left) < len(plan.units):
        what += "; it would be read again, and what differs replaced"
    first, last = iso_ns(plan.window.start), iso_ns(plan.window.end)
    span = "" if plan.fragment and plan.window.end == MAX_NS else f", {first} to {last}"
    return f"{what}{span}" + (f"; a fragment: {plan.fragment}" if plan.fragment else "")


def _by_rule(rules: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {rows}" for name, rows in sorted(rules.items(), key=lambda r: -r[1]))

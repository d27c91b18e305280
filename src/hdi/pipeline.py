"""The pipeline: the only place where source, refining and store meet.

One file is one attempt and one commit. Everything about it is checked before the commit: that the bytes
are whole, how many rows were rejected, and that every row fetched is stored or quarantined.
"""

from __future__ import annotations

import contextlib
import re
import resource
import threading
import time
from collections.abc import Generator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4
from weakref import WeakKeyDictionary

import polars as pl
import structlog

from hdi import quarantine, raw, tracing
from hdi.attempt import Options, Task, commit_units
from hdi.errors import CorruptFile, HdiError, NotDbn, OriginMismatch, RequestError, StoreError, masked
from hdi.frames import BROUGHT
from hdi.journal import Journal, RunStatus
from hdi.mapping import VendorMapping
from hdi.model import DAY_NS, MAX_NS, Header, Outcome, Quote, Unit, Window, cell_start, iso_ns
from hdi.plan import Plan, plan_file, uncovered
from hdi.raw import file_digest
from hdi.refine import Refinery, rule_checks
from hdi.schema import Schema, SchemaName, Schemas
from hdi.sources import split
from hdi.sources.dbn import Reader
from hdi.sources.records import MESSAGES, columns
from hdi.stores import Store, check_origin
from hdi.symbology import ALL_SYMBOLS

if TYPE_CHECKING:
    from types import TracebackType

#: Claims of one dataset and schema.
_KEYS = 64
#: Whose files are, of which nothing says otherwise.
_VENDOR = "databento"
_ORIGIN = re.compile(r"[a-z0-9][a-z0-9._-]*")
log = structlog.get_logger(component="PipelineOrchestrator")
rule_log = structlog.get_logger(component="RuleEngine")


def ingest_files(
    store: Store, schemas: Schemas, mapping: VendorMapping, paths: Iterable[Path], options: Options
) -> Generator[Outcome]:
    """Ingest DBN files one by one; a file that fails is reported, and the others go on.

    Yields one outcome for each file as it is done. Raises StoreError when the store itself is gone,
    RequestError for an origin that is no name.
    """
    if options.origin and not _ORIGIN.fullmatch(options.origin):
        raise RequestError(
            f"{options.origin!r} is not the name of an origin",
            "It names folders: write lower-case letters, digits and dashes, such as databento or synthetic.",
        )
    check_refining(schemas, mapping)
    with Run(store, options) as run:
        for path, part in split.parts(paths):
            outcome = _File(store, schemas, mapping, path, options, run.id, part).ingest()
            run.add(outcome)
            yield outcome


class Run:
    """One run of the pipeline: its name, its journal, and what its outcomes add up to, for the log. A context manager.

    The journal is on the disk when the block begins; a request without words, and a dry run, have none.
    """

    def __init__(self, store: Store, options: Options) -> None:
        self.id = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid4().hex[:6]}"
        self._store = store
        self._options = options
        self._started, self._began = time.monotonic(), iso_ns(time.time_ns())
        self._errors = self._chunks = 0
        self._counts = dict.fromkeys(("fetched", "stored", "quarantined"), 0)
        self._journal: Journal | None = None
        self._trace = contextlib.ExitStack()

    def __enter__(self) -> Self:
        if not self._options.dry_run:
            warm()
            raw.sweep(self._options.data_dir)
            export_rejects(self._store, self._options.dlq_dir)
            if self._options.words:
                store = {"url": masked(self._store.url), "identity": self._store.identity()}
                self._journal = Journal(self._options.data_dir, self.id, self._options.words, store)
        self._traced = self._trace.enter_context(tracing.span("run", run=self.id, job=self._options.job or ""))
        return self

    def offered(self, units: int, quote: Quote) -> None:
        """Keep what is to be done and what it costs."""
        if self._journal is not None:
            self._journal.offer(units, quote.records, quote.dollars)

    def add(self, outcome: Outcome) -> None:
        """Count, keep and log what became of one file or order."""
        self._chunks += len(outcome.receipts)
        self._errors += outcome.status == "failed"
        for receipt in outcome.receipts:
            for name in self._counts:
                self._counts[name] += getattr(receipt, name)
        _log_outcome(outcome)
        if self._journal is not None:
            self._journal.add(outcome)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._settled(error)
        finally:
            self._traced(errors=self._errors, chunks=self._chunks, **self._counts)
            self._trace.__exit__(kind, error, trace)

    def _settled(self, error: BaseException | None) -> None:
        """End the run: what is left to do, its journal's last line, the log's."""
        try:
            if not self._options.dry_run:
                self._store.settle()
        except BaseException as settling:
            self._end(error or settling)
            raise
        self._end(error)
        seconds = time.monotonic() - self._started
        records = self._counts["stored"] + self._counts["quarantined"]
        log.info(
            "Pipeline completed", run=self.id, records_processed=records, execution_time=round(seconds, 3),
            processing_rate=round(records / seconds, 1) if seconds else 0.0,
            memory_peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            chunks_processed=self._chunks, errors_encountered=self._errors, duration_seconds=round(seconds, 3),
            start_time=self._began, end_time=iso_ns(time.time_ns()),
            transformed=self._counts["fetched"], validated=self._counts["fetched"], **self._counts,
        )  # fmt: skip

    def _end(self, error: BaseException | None) -> None:
        """Keep how the run ended."""
        if self._journal is None:
            return
        stopped = isinstance(error, GeneratorExit | KeyboardInterrupt)
        status: RunStatus = "interrupted" if stopped else "failed" if error or self._errors else "done"
        try:
            self._journal.end(status, None if stopped else error)
        except StoreError as exc:
            if error is None:
                raise
            log.warning("the journal has no last line", run=self.id, error=exc.message)  # the first error counts


#: With which mapping the schemas were found to be in order: a process ingests more than once, and neither changes.
_CHECKED: WeakKeyDictionary[Schemas, VendorMapping] = WeakKeyDictionary()


def check_refining(schemas: Schemas, mapping: VendorMapping) -> None:
    """Bind every mapping and rule now, whatever is ingested: a ConfigError must not wait for the file it is about."""
    if _CHECKED.get(schemas) is mapping:
        return
    for schema in schemas:
        # Names of one record type differ in nothing that is bound.
        by_message = {MESSAGES[n.name]: n for n in schema.names.values() if n.made_from is None and n.name in MESSAGES}
        for name in by_message.values():
            Refinery(schema, name, mapping, columns(name.name), "")
        if not by_message:
            rule_checks(schema)
    _CHECKED[schemas] = mapping


def warm() -> None:
    """Import what the first batch needs beside what is done meanwhile: the contract's library takes half a second."""
    threading.Thread(target=_import, name="hdi-import").start()


def _import() -> None:
    import pandera.polars  # noqa: F401
    import pyarrow.parquet  # noqa: F401


def _log_outcome(outcome: Outcome) -> None:
    level = log.error if outcome.status == "failed" else log.info
    level(
        f"file {outcome.status}", file=outcome.path, schema=outcome.schema, dataset=outcome.dataset,
        fetched=sum(r.fetched for r in outcome.receipts), stored=sum(r.stored for r in outcome.receipts),
        quarantined=sum(r.quarantined for r in outcome.receipts), seconds=round(outcome.seconds, 3),
        error=outcome.error.message if outcome.error else None, memory_usage=_memory(),
    )  # fmt: skip
    if outcome.receipts and outcome.status != "ordered":
        _log_validation(outcome)


def _log_validation(outcome: Outcome) -> None:
    """What the rules said of the rows of one file or order."""
    rejected = sum(r.quarantined for r in outcome.receipts)
    rules: dict[str, int] = {}
    for receipt in outcome.receipts:
        for rule, rows in receipt.rules.items():
            rules[rule] = rules.get(rule, 0) + rows
    level = rule_log.warning if rejected else rule_log.info
    level(
        "validation completed", schema=outcome.schema, dataset=outcome.dataset, quarantined=rejected, rules=rules,
        validated=sum(r.fetched for r in outcome.receipts),
    )  # fmt: skip


def _memory() -> int:
    """Bytes of memory that the process has in use; its peak where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class _File:
    """One file on its way into the store."""

    def __init__(  # noqa: PLR0913, PLR0917  (what ingest_files was given, for one of its files)
        self, store: Store, schemas: Schemas, mapping: VendorMapping, path: Path, options: Options, run: str,
        job: split.Part | None,
    ) -> None:  # fmt: skip
        self.store = store
        self.schemas = schemas
        self.mapping = mapping
        self.path = path
        known = raw.origin_of(path)
        self.options = replace(options, origin=options.origin or known or _VENDOR)
        self._relabelled = known if known not in ("", self.options.origin) else ""
        self.run = run
        self.job = job
        self.started = time.monotonic()
        self.header: Header | None = None
        self.about: dict[str, Any] = {}

    def ingest(self) -> Outcome:
        """Do it, and turn whatever goes wrong with this file into its outcome."""
        try:
            return self._ingest()
        except StoreError:
            raise
        except HdiError as error:
            return self._outcome("failed", error=error)

    def _outcome(self, status: Any, **rest: Any) -> Outcome:
        seconds = time.monotonic() - self.started
        return Outcome(path=str(self.path), status=status, seconds=seconds, **self.about, **rest)

    def _ingest(self) -> Outcome:
        if self._relabelled:
            raise OriginMismatch(
                f"{self.path} was kept as {self._relabelled} data, and is not {self.options.origin} data",
                "Leave --origin out.",
            )
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
        keys = [digest] if digest else claim_keys(header.dataset, name, plan.window)
        with self.store.claim(keys):
            left = list(plan.units) if self.options.refetch else [*self._left(plan), *self._doubted(plan)]
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
            done = self.store.ledger().filter(pl.col("status").is_in(BROUGHT))["unit_id"]
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

    def _attempts(self, schema: Schema, plan: Plan, refinery: Refinery, left: Iterable[Unit]) -> Outcome:
        """One attempt at the units that are left, and where some have too many rejects another one without them."""
        if self.header is None:  # _ingest reads it first
            raise CorruptFile(f"{self.path}: has no header")
        task = Task(self.store, self.mapping, self.path, self.options, self.run, self.header, self.job)
        receipts, error = commit_units(task, schema, plan, refinery, left)
        self._export()
        self.about["units"] = len(receipts)
        if error is None:
            return self._outcome("stored", receipts=tuple(receipts), note=plan.fragment)
        return self._outcome("failed", receipts=tuple(receipts), error=error)

    def _export(self) -> None:
        export_rejects(self.store, self.options.dlq_dir)


def export_rejects(store: Store, dlq: Path) -> None:
    """Bring the dead-letter folder in line with the store, one process after the other."""
    if dlq.exists() or store.quarantine().height:
        with quarantine.held(dlq):
            quarantine.export(dlq, store.quarantine(), store.ledger(), store.url)


def claim_keys(dataset: str, name: SchemaName, window: Window) -> list[str]:
    """What to claim for work on a window: its grid cells, folded so that a long window needs few locks.

    Work that shares a cell shares a key; keys that collide only make one wait for the other.
    """
    cells = {cell_start(c.start, name.grid) // DAY_NS % _KEYS for c in window.cells(name.grid)}
    return [f"{dataset}-{name.name}-{cell}" for cell in sorted(cells)]


def _plan_note(plan: Plan, left: list[Unit], *, refetch: bool) -> str:
    what = f"{len(left)} of {len(plan.units)} units to store" if left else "all of it is stored already"
    if refetch and len(left) < len(plan.units):
        what += "; it would be read again, and what differs replaced"
    first, last = iso_ns(plan.window.start), iso_ns(plan.window.end)
    span = "" if plan.fragment and plan.window.end == MAX_NS else f", {first} to {last}"
    return f"{what}{span}" + (f"; a fragment: {plan.fragment}" if plan.fragment else "")


__all__ = ["Options", "Run", "check_refining", "claim_keys", "export_rejects", "ingest_files", "warm"]

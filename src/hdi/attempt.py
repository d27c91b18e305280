"""One pass over one file into one commit: routed, refined, counted, and kept only when all of it holds."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import structlog

from hdi import raw, tracing
from hdi.errors import CorruptFile, DataError, StoreLost, TooManyRejects
from hdi.frames import CONDITIONS, COVERAGE, REJECTS
from hdi.late import Array
from hdi.mapping import VendorMapping
from hdi.model import DAY_NS, MAX_NS, MONEY, Condition, Header, RawFile, Receipt, Unit, date_ns, ns_date
from hdi.plan import Plan, learned, unmapped
from hdi.refine import Refinery
from hdi.schema import Schema
from hdi.sources import split
from hdi.sources.dbn import Reader
from hdi.stores import Store, Work

#: Positions in a raw file are stored as INTEGER.
MAX_ROWS = 2**31 - 1
#: Rows of each rule that are kept of a unit that failed as a whole.
SAMPLE = 1000
log = structlog.get_logger(component="PipelineOrchestrator")
_POLARS: Mapping[str, Any] = {"int32": pl.Int32(), "int64": pl.Int64()}


@dataclass(frozen=True)
class Options:
    """How files are ingested. ``keep`` copies them under ``raw/``.

    ``origin`` "" is that under which a file was kept before, else the vendor's; ``job`` the predefined job asked for.
    ``derive`` makes bars of what is stored where it can; ``resumes`` names the runs that this one goes on with: what
    they fetched again is not fetched once more. ``words`` is the request in words that can be repeated, which the
    run's journal keeps; without them it has none.
    """

    data_dir: Path
    dlq_dir: Path
    origin: str = ""
    batch_size: int = 131_072
    max_reject_percent: float = 1.0
    min_rejects: int = 100
    refetch: bool = False
    dry_run: bool = False
    keep: bool = True
    job: str | None = None
    derive: bool = False
    resumes: tuple[str, ...] = ()
    words: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """A file with what an attempt at it needs; ``header`` is what was planned, ``job`` its part of a split job.

    ``price`` is US dollars per record where the bytes were bought for this attempt, ``conditions`` what the vendor
    said of days when it was asked at ``seen_at``, ``digest`` what the bytes must have where they are known,
    ``batch`` the batch job that brought them, ``since`` when they were bought as a stream.
    """

    store: Store
    mapping: VendorMapping
    path: Path
    options: Options
    run: str
    header: Header
    job: split.Part | None = None
    price: Decimal | None = None
    conditions: tuple[Condition, ...] = ()
    seen_at: int = 0
    digest: str = ""
    batch: str = ""
    since: int = 0


@dataclass
class Tally:
    """What one attempt has seen so far, by unit index or number."""

    fetched: np.ndarray[Any, Any]
    rejected: dict[int, int] = field(default_factory=dict)
    rules: dict[int, dict[str, int]] = field(default_factory=dict)
    days: list[pl.DataFrame] = field(default_factory=list)
    names: list[pl.DataFrame] = field(default_factory=list)
    samples: list[pl.DataFrame] = field(default_factory=list)
    sampled: dict[tuple[int, str], int] = field(default_factory=dict)


class Attempt:
    """One pass over a file into one commit."""

    def __init__(
        self, task: Task, schema: Schema, plan: Plan, refinery: Refinery, numbers: list[int], wanted: set[int]
    ) -> None:
        self.task = task
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
        self.tally = Tally(np.zeros(len(self.plan.units), dtype=np.int64))
        options = self.task.options
        part = raw.Part(options.data_dir) if options.keep else None
        kept = [int(n) not in without for n in self.numbers]
        work = self._work(self.plan.coverage(self.numbers.tolist(), kept), None)
        with contextlib.ExitStack() as stack:
            if part is not None:
                stack.callback(part.discard)
            reader = stack.enter_context(Reader(self.task.path, part))
            writer = stack.enter_context(self.task.store.replace(work))
            unit = self.plan.units[0]
            with tracing.span("refine", dataset=unit.dataset, schema=unit.schema, units=len(self.plan.units)) as tell:
                self._read(reader, writer)
                tell(rows=int(self.tally.fetched.sum()), rejected=sum(self.tally.rejected.values()))
            rawfile = self._keep(reader, part)
            over = self._over()
            if not over - without:
                coverage = pl.concat([self.plan.coverage(self.numbers.tolist(), kept), self._unmapped()])
                work = self._work(pl.concat([coverage, self._unmapped_before(coverage)]), rawfile)
                receipts = [self._receipt(i, rawfile) for i, keep in enumerate(kept) if keep and self._counts(i)]
                if samples is not None:
                    writer.reject(samples)
                with tracing.span("commit", dataset=unit.dataset, schema=unit.schema, units=len(receipts)):
                    return writer.finish(work, [*failed, *receipts])
        return self._again(over, rawfile)

    def _read(self, reader: Reader, writer: Any) -> None:
        """Refine the whole file into a writer."""
        row = 0
        decoded = reader.frames(self.task.options.batch_size, self.task.mapping.undefined, self.schema.kind)
        with contextlib.closing(_ahead(decoded)) as frames:
            for frame in frames:
                if row + frame.height > MAX_ROWS:
                    raise DataError(f"{self.task.path}: holds more than {MAX_ROWS} records", "Split it.")
                self._batch(frame, row, writer)
                row += frame.height
        self._same(reader)

    def _same(self, reader: Reader) -> None:
        """CorruptFile when the file is not the one that was planned."""
        digest = self.plan.units[0].digest or self.task.digest
        if self.task.job is not None and not self.task.job.matches(reader.size, reader.digest):
            raise CorruptFile(
                f"{self.task.path}: its size or SHA-256 is not what manifest.json says",
                "Get the file again; nothing of it was stored.",
            )
        if reader.header != self.task.header or (digest and reader.digest != digest):
            raise CorruptFile(f"{self.task.path}: changed while it was read", "Nothing of it was stored; try again.")

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
        self.task.store.record(self._work(pl.DataFrame(schema=COVERAGE), rawfile), failed, samples)
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
        mine = self._mine(units, instruments, instants, times)
        if mine is not None:
            frame, times, units = frame.filter(pl.Series(mine)), times.filter(pl.Series(mine)), units[mine]
            instruments, instants, missing = instruments[mine], instants[mine], missing[mine]
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

    def _mine(
        self, units: Array, instruments: Array, instants: Array, times: pl.Series
    ) -> Array | None:  # fmt: skip
        """Which rows of a batch are this attempt's to bring; None is all of them."""
        del units, instruments, instants, times
        return None

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
        for (unit, rule), rows in rejected.with_columns(_rule=pl.col("rules").list.first()).group_by(
            "unit", "_rule", maintain_order=True
        ):
            key = (int(str(unit)), str(rule))
            room = SAMPLE - sampled.get(key, 0)
            if room > 0:
                sampled[key] = sampled.get(key, 0) + min(room, rows.height)
                self.tally.samples.append(self._identified(rows.head(room).drop("_rule")))

    def _identified(self, rejected: pl.DataFrame) -> pl.DataFrame:
        # Where the raw file will lie is known when it was read to its end: the receipt says it.
        return rejected.with_columns(
            unit_id=pl.col("unit").replace_strict(self._ids, return_dtype=pl.String), run=pl.lit(self.task.run),
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
        store = self.task.store
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
            run=self.task.run, dataset=unit.dataset, schema=self.schema, name=self.plan.name,
            units=kept, coverage=coverage, mappings=mappings, raw=rawfile,
            conditions=heard(unit.dataset, self.task.conditions, self.task.seen_at), since=self.task.since,
        )  # fmt: skip

    def _keep(self, reader: Reader, part: raw.Part | None) -> RawFile:
        if part is None:
            return RawFile(str(self.task.path.absolute()), reader.digest, reader.size)
        unit = self.plan.units[0]
        day = "undated" if unit.window.end == MAX_NS else ns_date(unit.window.start).isoformat()
        suffix = ".dbn.zst" if reader.packed else ".dbn"
        name = f"{unit.id}-{reader.digest[:12]}{suffix}"
        return part.keep((unit.origin, unit.dataset, unit.schema, day), name, reader.digest, reader.size)

    def _over(self) -> set[int]:
        """The numbers of the units whose rejects exceed both limits."""
        options, over = self.task.options, set()
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
            unit=self.plan.units[i], number=number, run=self.task.run,
            status="fragment" if self.plan.fragment else "complete", fetched=fetched,
            stored=fetched - rejected, quarantined=rejected, rules=self.tally.rules.get(number, {}),
            raw=rawfile, seconds=round(time.monotonic() - self.began, 3), committed_at=time.time_ns(),
            dollars=None if self.task.price is None else (self.task.price * fetched).quantize(MONEY),
            conditions=noted(self.task.conditions, self.plan.units[i]), job=self.task.options.job,
            batch=self.task.batch or None,
        )  # fmt: skip


def noted(conditions: Sequence[Condition], unit: Unit) -> tuple[Condition, ...]:
    """The days of the unit that the vendor does not call available."""
    window = unit.window
    return tuple(
        c for c in conditions
        if c.condition != "available" and date_ns(c.day) < window.end and date_ns(c.day) + DAY_NS > window.start
    )  # fmt: skip


def heard(dataset: str, conditions: Sequence[Condition], seen_at: int) -> pl.DataFrame:
    """:data:`hdi.frames.CONDITIONS`: what a vendor said of days when it was asked at ``seen_at``."""
    return pl.DataFrame(
        [
            (dataset, date_ns(c.day), c.condition, date_ns(c.last_modified) if c.last_modified else None, seen_at)
            for c in conditions
        ],
        schema=CONDITIONS, orient="row",
    )  # fmt: skip


def commit_units(
    task: Task, schema: Schema, plan: Plan, refinery: Refinery, left: Iterable[Unit]
) -> tuple[list[Receipt], TooManyRejects | None]:
    """Commit the units that are left of a plan; where some have too many rejects, the others.

    Returns all receipts, and the error about the unit with the largest share of rejects.
    """
    numbers = task.store.reserve([u.id for u in plan.units])
    place = {unit: i for i, unit in enumerate(plan.units)}
    wanted = plan.together(place[unit] for unit in left)
    return settled(task, lambda: Attempt(task, schema, plan, refinery, numbers, wanted).run())


def settled(task: Task, run: Callable[[], list[Receipt]]) -> tuple[list[Receipt], TooManyRejects | None]:
    """What an attempt came to: all receipts, and the error about the unit with the largest share of rejects."""
    receipts = _once_more(run)
    failed = [r for r in receipts if r.status == "failed"]
    if not failed:
        return receipts, None
    worst = max(failed, key=lambda r: r.quarantined / max(r.fetched, 1))
    rules = ", ".join(f"{name} {rows}" for name, rows in sorted(worst.rules.items(), key=lambda r: -r[1]))
    options = task.options
    return receipts, TooManyRejects(
        f"{task.path}: {worst.quarantined} of {worst.fetched} rows of {worst.unit.symbol or 'unmapped'} "
        f"({worst.unit.window}) were rejected: {rules}",
        f"A unit fails above both {options.max_reject_percent} % and {options.min_rejects} rows; what "
        "was stored before stays. Look at the quarantine, then mend the file or the rules, or raise --max-rejects.",
    )


def _once_more(run: Callable[[], list[Receipt]]) -> list[Receipt]:
    """The receipts of an attempt; where the store went away meanwhile, of another one when it is back."""
    try:
        return run()
    except StoreLost as lost:
        log.warning("the store went away; the file is read once more", error=lost.message)
    return run()


def _ahead(frames: Iterator[pl.DataFrame]) -> Generator[pl.DataFrame]:
    """The same frames, each made by a thread while the one before is used."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="hdi-decode") as pool:
        coming = pool.submit(next, frames, None)
        while (frame := coming.result()) is not None:
            coming = pool.submit(next, frames, None)
            yield frame

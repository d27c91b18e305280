"""The lake: a folder of Delta tables, partitioned by dataset and date, that any engine can read.

<table>/             rows of one kind; every commit carries its receipts in the Delta log
<table>_history/     superseded rows
ingest_units/ coverage/ symbol_mappings/ quarantine/ day_conditions/     replayed from those commits
discrepancies/       what contradicts something else that is stored: a table of its own
_hdi/                locks, staging, side files, numbers of units; hdi.json names format, origin and tables
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
import structlog

from hdi.answer import Answer
from hdi.errors import RequestError
from hdi.frames import CONTENT, MAPPINGS
from hdi.model import MAX_NS, Finding, Receipt, Window
from hdi.schema import Schema, Schemas
from hdi.stores import Books, Piece, ServerOptions, Touched, Work, check_origin
from hdi.stores.held import within
from hdi.stores.instruments import DEFINITION, known_by
from hdi.stores.lake import about, adopt, noted
from hdi.stores.lake import purge as forget
from hdi.stores.lake.commit import record
from hdi.stores.lake.compare import Stored, live_files
from hdi.stores.lake.derive import TABLES, Derived
from hdi.stores.lake.entries import clear_log, clear_torn, commits, latest, opened
from hdi.stores.lake.files import guard, locked, private, try_lock
from hdi.stores.lake.inspect import inspected
from hdi.stores.lake.instruments import Instruments
from hdi.stores.lake.numbers import Numbers
from hdi.stores.lake.past import Past
from hdi.stores.lake.read import Scan
from hdi.stores.lake.upkeep import Upkeep
from hdi.stores.lake.write import LakeWriter
from hdi.stores.shaped import Shaped

FORMAT = about.FORMAT
Out = TypeVar("Out")


def open(  # noqa: A001  (the name that every store module gives its entry)
    url: str, schemas: Schemas, *, write: bool = False, on_step: Callable[[str], None] | None = None,
    options: ServerOptions | None = None,
) -> Lake:  # fmt: skip
    """Open the lake at ``lake:PATH`` or ``PATH``; a folder that is not there yet is an empty lake.

    A lake has no options.
    """
    if options is not None:
        raise RequestError("a lake has no options", "Leave them out.")
    return Lake(Path(url.removeprefix("lake:")), schemas, write=write, on_step=on_step)


class Lake(Upkeep):
    """A :class:`hdi.stores.Store` on a folder."""

    def __init__(
        self,
        root: Path,
        schemas: Iterable[Schema],
        *,
        write: bool = False,
        on_step: Callable[[str], None] | None = None,
    ) -> None:
        self.root = root
        self.url = f"lake:{root}"
        self._schemas = {s.table: s for s in schemas}
        self._on_step = on_step
        self._log = structlog.get_logger().bind(component="Store")
        self._numbers = Numbers(root / "_hdi" / "units.jsonl")
        history = {f"{s.table}_history": s.history for s in self._schemas.values()}
        self._derived = Derived(root, list(self._schemas), history)
        self._shaped = Shaped()
        self._live: dict[str, tuple[tuple[int, int, int], tuple[Stored, ...]]] = {}
        with guard(root):
            about.check(root, {"_hdi", *TABLES, noted.TABLE, *self._schemas, *history})
            self._derived.made = about.made(root)
            if write:
                root.mkdir(parents=True, exist_ok=True, mode=0o700)
                for folder in ("", "locks", "staging", "sidecars"):
                    private(root / "_hdi" / folder)
                self.sweep()

    def step(self, name: str) -> None:
        """Tell whoever listens which step of a commit comes next."""
        if self._on_step is not None:
            self._on_step(name)

    def lock_path(self, table: str) -> Path:
        """The lock of a table."""
        return self.root / "_hdi" / "locks" / f"{table}.lock"

    # --- the Store protocol -------------------------------------------------------------------

    def reserve(self, unit_ids: Sequence[str]) -> list[int]:
        """See :meth:`hdi.stores.Store.reserve`; numbers are kept in ``_hdi/units.jsonl``."""
        with guard(self.root), locked(self.lock_path("units")):
            return self._numbers.reserve(unit_ids, {0, *self.ledger()["unit"]})

    @contextlib.contextmanager
    def claim(self, keys: Sequence[str]) -> Iterator[None]:
        """See :meth:`hdi.stores.Store.claim`; locks are taken in one order, so that no two wait for each other."""
        with contextlib.ExitStack() as stack:
            with guard(self.root):
                for key in sorted(set(keys)):
                    stack.enter_context(locked(self.lock_path(f"claim-{key}")))
            yield

    @contextlib.contextmanager
    def replace(self, work: Work) -> Iterator[LakeWriter]:
        """See :meth:`hdi.stores.Store.replace`."""
        with guard(self.root):
            self.step("begin")
            check_origin(self, work.origin)
            writer = LakeWriter(self, work)
        try:
            yield writer
        finally:
            writer.discard()

    def record(self, work: Work, receipts: Sequence[Receipt], rejects: pl.DataFrame) -> None:
        """See :meth:`hdi.stores.Store.record`."""
        with guard(self.root):
            writer = LakeWriter(self, work)
            try:
                writer.reject(rejects)
                writer.keep_rejects()
                record(self, writer, work, receipts)
            finally:
                writer.discard()

    def ledger(self) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.ledger`."""
        return self._in_order(self._frame("ingest_units"))

    def coverage(self) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.coverage`."""
        return self._frame("coverage")

    def mappings(self) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.mappings`."""
        return self._bare(self._frame("symbol_mappings"))

    def learned(self) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.learned`."""
        # What came from another store and does not say when it was learned there bears the time of no receipt.
        own = pl.col("learned").is_in(self.ledger()["committed_at"].implode())
        return self._symbols().select(
            *MAPPINGS, learned=pl.coalesce("since", pl.when(own).then("learned"))
        )  # fmt: skip

    def quarantine(self) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.quarantine`."""
        return self._frame("quarantine")

    def rejected(self) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.rejected`: replayed from the commits."""
        with guard(self.root):
            return self._derived.rejected()

    def purge(self, stand: Sequence[int], replaced: Sequence[int], reason: str) -> pl.DataFrame:
        """See :meth:`hdi.stores.Purging.purge`; a commit of each dataset and kind of rows."""
        with guard(self.root):
            return forget.purge(self, stand, replaced, reason)

    def purged(self) -> pl.DataFrame:
        """See :meth:`hdi.stores.Purging.purged`."""
        with guard(self.root):
            return self._derived.purged()

    def keep_purged(self, told: pl.DataFrame) -> None:
        """See :meth:`hdi.stores.Purging.keep_purged`; a commit of each dataset and kind of rows."""
        with guard(self.root):
            forget.keep(self, told)

    def books(self) -> Books:
        """See :meth:`hdi.stores.Together.books`."""
        with guard(self.root):
            units, covered, symbols = self._derived.frames("ingest_units", "coverage", "symbol_mappings")
        return Books(self._in_order(units), covered, self._bare(symbols))

    def conditions(self) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.conditions`."""
        return self._frame("day_conditions").sort("seen_at", maintain_order=True)

    def discrepancies(self) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.discrepancies`."""
        with guard(self.root):
            return noted.stored(self.root)

    def amend(self, change: Callable[[pl.DataFrame], pl.DataFrame]) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.amend`; one commit of a table of its own."""
        with guard(self.root), locked(self.lock_path(noted.TABLE)):
            return noted.amend(self.root, change)

    def replaced(self, schema: Schema, window: Window | None = None, dataset: str | None = None) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.replaced`."""
        if window is None and dataset is None:
            return self._frame(f"{schema.table}_history")
        with guard(self.root):
            return self._derived.part(f"{schema.table}_history", within(schema.index_time, window, dataset))

    def read(  # noqa: PLR0913  (as the protocol has it)
        self, schema: Schema, name: str, window: Window, instruments: pl.DataFrame | None,
        columns: Sequence[str], dataset: str | None = None, *, ordered: bool = True,
    ) -> Iterator[pl.DataFrame]:  # fmt: skip
        """See :meth:`hdi.stores.Store.read`."""
        if not ordered:
            yield from self.read_each(schema, name, window, instruments, columns, dataset, lambda rows: rows)
            return
        with guard(self.root):
            if latest(self.root, schema.table) >= 0:
                live = self.live(schema)
                yield from Scan(self, schema, name, window, instruments, columns).frames(live, dataset)

    def read_each(  # noqa: PLR0913, PLR0917  (as the protocol has it)
        self, schema: Schema, name: str, window: Window, instruments: pl.DataFrame | None,
        columns: Sequence[str], dataset: str | None, each: Callable[[pl.DataFrame], Out],
    ) -> Iterator[Out]:  # fmt: skip
        """See :meth:`hdi.stores.Working.read_each`."""
        with guard(self.root):
            if latest(self.root, schema.table) >= 0:
                scan = Scan(self, schema, name, window, instruments, columns, ordered=False)
                yield from scan.slabs(self.live(schema), dataset, each)

    def touches(
        self, schema: Schema, name: str, window: Window, instruments: pl.DataFrame | None,
        columns: Sequence[str], dataset: str | None = None,
    ) -> Touched:  # fmt: skip
        """See :meth:`hdi.stores.Touching.touches`."""
        with guard(self.root):
            scan = Scan(self, schema, name, window, instruments, columns)
            if latest(self.root, schema.table) < 0:
                return Touched("file", 0, 0, scan.stored)
            return Touched("file", *scan.files(self.live(schema), dataset), scan.stored)

    def superseded(  # noqa: PLR0913  (as the protocol has it)
        self, schema: Schema, name: str, window: Window, instruments: pl.DataFrame | None,
        columns: Sequence[str], dataset: str | None = None, *, by: Sequence[int], apart: Sequence[int] = (),
    ) -> Iterator[pl.DataFrame]:  # fmt: skip
        """See :meth:`hdi.stores.Store.superseded`."""
        with guard(self.root):
            files = self._derived.history_files(f"{schema.table}_history")
            yield from Past(files, schema, name, window, instruments, dataset, by, apart).frames(columns)

    def content(
        self, schema: Schema, name: str, window: Window, instruments: pl.DataFrame | None,
        every: int, dataset: str | None = None,
    ) -> pl.DataFrame:  # fmt: skip
        """See :meth:`hdi.stores.Store.content`."""
        with guard(self.root):
            if latest(self.root, schema.table) < 0:
                return pl.DataFrame(schema=CONTENT)
            live = self.live(schema)
            columns = ["dataset", "instrument_id", schema.index_time]
            return Scan(self, schema, name, window, instruments, columns, ordered=False).content(live, dataset, every)

    def instruments(
        self, dataset: str | None = None, window: Window | None = None, instruments: pl.DataFrame | None = None,
        *, as_of: int | None = None,
    ) -> Iterator[pl.DataFrame]:  # fmt: skip
        """See :meth:`hdi.stores.Store.instruments`."""
        schema = next((s for s in self._schemas.values() if DEFINITION in s.names), None)
        with guard(self.root):
            if schema is not None and latest(self.root, schema.table) >= 0:
                table = opened(self.root, schema.table)
                files, later = [], pl.Series(dtype=pl.Int32)
                if as_of is not None:
                    files = self._derived.history_files(f"{schema.table}_history")
                    later = self.ledger().filter(pl.col("committed_at") > as_of)["unit"]
                names = known_by(self.learned(), as_of)
                found = Instruments(self, schema, window or Window(0, MAX_NS), instruments, names, later, files)
                yield from found.frames(table, dataset)

    def sql(self, statement: str, as_of: int | None = None) -> Answer:
        """See :meth:`hdi.stores.Store.sql`; DuckDB in memory over the files."""
        from hdi.stores.lake.sql import answer  # DuckDB is loaded where it is wanted

        return answer(self, statement, as_of)

    def schemas(self) -> list[Schema]:
        """The kinds of rows that the lake may hold."""
        return list(self._schemas.values())

    def identity(self) -> str:
        """See :meth:`hdi.stores.Store.identity`."""
        with guard(self.root):
            if not self.root.exists():
                return f"lake:{self.root.resolve()}"
            there = self.root.stat()
            return f"lake:{there.st_dev}:{there.st_ino}"

    def numbers(self) -> pl.DataFrame:
        """See :meth:`hdi.stores.Store.numbers`."""
        with guard(self.root):
            return self._numbers.all()

    def keep_numbers(self, numbers: pl.DataFrame) -> None:
        """See :meth:`hdi.stores.Store.keep_numbers`."""
        with guard(self.root), locked(self.lock_path("units")):
            self._numbers.keep(numbers, self.url)

    def adopt(self, piece: Piece, rows: Iterable[pl.DataFrame] | None) -> None:
        """See :meth:`hdi.stores.Store.adopt`."""
        with guard(self.root):
            adopt.adopt(self, piece, rows)

    def settle(self) -> None:
        """See :meth:`hdi.stores.Store.settle`."""
        with guard(self.root):
            self._derived.persist()
            self.sweep()

    def health(self) -> dict[str, Any]:
        """See :meth:`hdi.stores.Store.health`."""
        tables = {}
        with guard(self.root):
            for table, schema in self._schemas.items():
                if latest(self.root, table) >= 0:
                    files = live_files(opened(self.root, table), schema.index_time)
                    tables[table] = {
                        "rows": sum(f.rows for f in files), "files": len(files), "bytes": sum(f.size for f in files),
                    }  # fmt: skip
            place = next(p for p in (self.root, *self.root.absolute().parents) if p.exists())
            free = shutil.disk_usage(place).free
        return {
            "type": "lake", "version": str(FORMAT), "exists": self.root.exists(), "location": str(self.root),
            "origin": next(iter(self.ledger()["origin"]), None), "tables": tables, "free_bytes": free,
        }  # fmt: skip

    def inspect(self) -> list[Finding]:
        """See :meth:`hdi.stores.Inspected.inspect`."""
        with guard(self.root):
            return inspected(self.root)

    def close(self) -> None:
        """Nothing is held between calls."""

    # --- what commits and reads share ---------------------------------------------------------

    def rebuilt(self, name: str) -> pl.DataFrame:
        """A derived table made again from the commits alone."""
        with guard(self.root):
            return self._derived.rebuilt(name)

    def live(self, schema: Schema) -> Sequence[Stored]:
        """The files of a table that is there, at its newest version. A log is read again only when it has grown."""
        newest = latest(self.root, schema.table)
        entry = (self.root / schema.table / "_delta_log" / f"{newest:020}.json").stat()
        at = (newest, entry.st_ino, entry.st_mtime_ns)
        known = self._live.get(schema.table)
        if known is None or known[0] != at:
            table = opened(self.root, schema.table)
            known = (at, tuple(live_files(table, schema.index_time)))
            if table.version() == newest:  # else somebody has just committed: it is looked at again next time
                self._live[schema.table] = known
        return known[1]

    @contextlib.contextmanager
    def committing(self, origin: str, folder: Path) -> Iterator[None]:
        """Check the origin and keep it. Until a first commit has set it, commits go one by one over all tables."""
        with contextlib.ExitStack() as stack:
            if not self.ledger().height:
                stack.enter_context(locked(self.lock_path("origin")))
            check_origin(self, origin)
            if about.told(self.root).get("origin") != origin:
                with locked(self.lock_path("about")):
                    about.add(self.root, folder, origin)
            yield

    def made(self, table: str, folder: Path) -> None:
        """Keep that a table was made, so that it is missed when it is lost."""
        if table not in self._derived.made:
            with locked(self.lock_path("about")):
                about.add(self.root, folder, about.told(self.root)["origin"], [table])
            self._derived.made |= {table}

    def undo(self, intent: Mapping[str, Any]) -> bool:
        """Take back the files of a commit that did not land; True, and nothing done, for one that did."""
        newer = commits(self.root, intent["table"], intent["version"])
        if any(c.payload["attempt"] == intent["attempt"] for c in newer):
            return True
        for path in intent["files"]:
            (self.root / path).unlink(missing_ok=True)
        return False

    def _take_back(self, intent: Mapping[str, Any]) -> None:
        """The same for an attempt whose process is gone; its machine may have gone down too."""
        with locked(self.lock_path(intent["table"])):
            clear_torn(self.root, intent["table"], intent["version"] + 1)
            self.undo(intent)

    def warn_doubtful(self, rows: int) -> None:
        """Say that a fragment stands beside other rows of the same instants."""
        if rows:
            self._log.warning("fragment beside other rows of the same instrument and time", rows=rows)

    def _symbols(self) -> pl.DataFrame:
        """The symbology in the order in which it was learned."""
        return _learned(self._frame("symbol_mappings"))

    def _in_order(self, units: pl.DataFrame) -> pl.DataFrame:
        """The ledger in the order of its commits."""
        return self._shaped.of("ledger", units, lambda f: f.sort("committed_at", "unit", maintain_order=True))

    def _bare(self, symbols: pl.DataFrame) -> pl.DataFrame:
        """The mappings, without when they were learned."""
        return self._shaped.of("mappings", symbols, lambda f: _learned(f).select(*MAPPINGS))

    def _frame(self, name: str) -> pl.DataFrame:
        with guard(self.root):
            return self._derived.frame(name)

    def sweep(self) -> None:
        """Clear what attempts left that died: their staged files, and moved ones that no commit names."""
        for folder in sorted((self.root / "_hdi" / "staging").iterdir()):
            lock = try_lock(folder / "lock")
            if lock is None:
                continue
            try:
                if (intent := about.intended(folder)) is not None:
                    self._take_back(intent)
                for table in self._schemas:
                    with locked(self.lock_path(table)):
                        clear_log(self.root, table)
                        clear_torn(self.root, table, 0)
                # Its owner may be clearing it away too.
                shutil.rmtree(folder, ignore_errors=True)
                self._log.info("swept the remains of an attempt that died", attempt=folder.name)
            finally:
                os.close(lock)


def _learned(symbols: pl.DataFrame) -> pl.DataFrame:
    """The symbology in the order in which it was learned."""
    return symbols.sort("learned", maintain_order=True)

"""HistoricalData: everything that hdi does, as one object. Every face (command line, later REST) calls this."""

from __future__ import annotations

import contextlib
import datetime as dt
import platform
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hdi import logs
from hdi.errors import ConfigError, RequestError, masked
from hdi.model import DAY_NS, MAX_NS, SYNTHETIC, Outcome, Query, Window, ns_date, parse_instant
from hdi.settings import Settings, load
from hdi.settings.addresses import TIMESCALEDB

if TYPE_CHECKING:
    from types import TracebackType

    import polars as pl

    from hdi.attempt import Options
    from hdi.buying import Buying
    from hdi.calendars import Calendars
    from hdi.catalog import Catalog
    from hdi.covered import Coverage
    from hdi.gaps import Report
    from hdi.gaps.filling import Filling
    from hdi.health import Status
    from hdi.jobs import Job
    from hdi.mapping import VendorMapping
    from hdi.migrating import Migration
    from hdi.query import Result
    from hdi.revising import Due
    from hdi.runs import RunDetail, RunRecord
    from hdi.scheduling import Event, Pace, Scheduler
    from hdi.schema import Schemas
    from hdi.sources import Source
    from hdi.spending import Spent
    from hdi.stores import ServerOptions, Store
    from hdi.syncing import Result as Synced
    from hdi.syncing import Sync

#: No later day can be asked for.
_LAST_DAY = "2262-04-09"
#: The libraries that decide what data looks like.
LIBRARIES = (
    "polars", "pyarrow", "deltalake", "databento-dbn", "numpy", "pandera", "psycopg", "pgpq", "adbc-driver-postgresql",
    "pydantic", "structlog", "typer",
)  # fmt: skip


@dataclass
class HistoricalData:
    """A store and what can be done with it. Made by :meth:`open`; a context manager.

    Nothing is opened before it is used, and a store that does not exist yet is an empty one.
    """

    settings: Settings
    _store: Store | None = None
    _writable: bool = False

    @classmethod
    def open(cls, store: str | None = None, config_dir: Path | str | None = None, **flags: Any) -> HistoricalData:
        """The data of a store (a path, ``lake:PATH``, ``postgresql://...``), by default the one that the settings name.

        ``flags`` are further settings by their dotted keys. Raises ConfigError.
        """
        folder = Path(config_dir) if config_dir is not None else None
        settings = load(folder, flags={"store": store, **flags})
        logs.configure(settings)
        return cls(settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back what the store holds."""
        if self._store is not None:
            self._store.close()
            self._store = None

    @cached_property
    def schemas(self) -> Schemas:
        """The kinds of data: packaged, installed, and the user's own."""
        from hdi.schema import load_schemas

        return load_schemas(self.settings.overlays("schemas"), self.settings.overlays("rules"))

    def store(self, *, write: bool = False) -> Store:
        """The open store. Raises RequestError for one of an unknown type, StoreError when it refuses."""
        if self._store is None or (write and not self._writable):
            from hdi.stores import open_store

            self.close()
            options = self._server_options(self.settings) if self.settings.store_type == TIMESCALEDB else None
            self._store = open_store(self.settings.store_url, self.schemas, write=write, options=options)
            self._writable = write
        return self._store

    def migrate(self, source: str, destination: str, *, write: bool = True) -> Migration:
        """A move of one store into another, both named as for :meth:`open`; ``run()`` does it. A context manager.

        Without ``write`` it can only compare and plan. Raises ConfigError for a name of the wrong form,
        RequestError for a source without data.
        """
        from hdi.migrating import Migration, check_source

        opened = self._other(source, "--from", write=False)
        try:
            check_source(opened)  # opening the other one for writing makes it
            return Migration(opened, self._other(destination, "--to", write=write), self.schemas)
        except BaseException:
            opened.close()
            raise

    def _other(self, store: str, option: str, *, write: bool) -> Store:
        """A store beside the one of these settings, which say how a server is reached."""
        from hdi.stores import open_store

        try:
            settings = load(self.settings.config_dir, flags={"store": store})
        except ConfigError as exc:
            raise ConfigError(exc.message.replace("--store", option), exc.hint.replace("--store", option)) from exc
        options = self._server_options(settings) if settings.store_type == TIMESCALEDB else None
        return open_store(settings.store_url, self.schemas, write=write, options=options)

    @staticmethod
    def _server_options(settings: Settings) -> ServerOptions:
        from hdi.stores.options import ServerOptions

        timescaledb = settings.timescaledb
        return ServerOptions(timescaledb.connect_seconds, timescaledb.compress, timescaledb.compress_after_days)

    @staticmethod
    def sources() -> list[str]:
        """The sources that data can be ingested from."""
        from hdi.sources import names

        return names()

    def ingest_files(  # noqa: PLR0913  (each is an option of the command)
        self,
        paths: Iterable[Path | str],
        *,
        origin: str = "",
        refetch: bool = False,
        dry_run: bool = False,
        keep: bool = True,
        batch_size: int | None = None,
        max_reject_percent: float | None = None,
        resumes: Sequence[str] = (),
    ) -> Iterator[Outcome]:
        """Ingest DBN files; one outcome for each as it is done.

        ``origin`` says who made the data: by default what a file was kept as, or the vendor. ``refetch`` stores again
        what is stored already, ``dry_run`` only says what would be done, ``keep``
        False remembers path and digest of a file instead of a copy; ``resumes`` names the runs that this one goes on
        with. Raises StoreError when the store is gone.
        """
        from hdi.pipeline import ingest_files
        from hdi.sources import FILES

        options = self._options(refetch=refetch, dry_run=dry_run)
        files = [Path(p) for p in paths]
        limit = options.max_reject_percent if max_reject_percent is None else max_reject_percent
        words = {
            "api": FILES[0], "files": [str(p.absolute()) for p in files], "origin": origin, "keep": keep,
            "refetch": refetch, "max_reject_percent": limit, "resumes": list(resumes),
        }  # fmt: skip
        options = replace(
            options,
            origin=origin,
            keep=keep,
            batch_size=options.batch_size if batch_size is None else batch_size,
            max_reject_percent=limit,
            words=words,
        )
        store = self.store(write=not dry_run)
        yield from ingest_files(store, self.schemas, self._mapping, files, options)

    def buying(  # noqa: PLR0913  (each is an option of the command)
        self,
        *,
        dataset: str,
        schema: str,
        symbols: str | Sequence[str],
        start: str | dt.date,
        end: str | dt.date,
        stype: str | None = None,
        api: str = "databento",
        refetch: bool = False,
        dry_run: bool = False,
        on_wait: Callable[[str, float], None] | None = None,
        job: str | None = None,
        derive: bool = False,
        max_reject_percent: float | None = None,
        resumes: Sequence[str] = (),
        wait: bool = True,
        source: Source | None = None,
    ) -> Buying:
        """A request to a vendor's API: its ``offer()`` says what is missing and what it costs, ``run()`` buys it.

        Symbols without ``stype`` are sorted by their notation. A date as ``end`` means through that UTC day. Raises
        RequestError for what is wrong with the request; nothing is asked of the vendor yet. ``on_wait`` is told why a
        call has to wait, and for how many seconds. ``job`` is the predefined job that it comes from; ``derive`` makes
        bars from owned trades or finer bars where it can; ``resumes`` names the runs that this one goes on with.
        Without ``wait`` it ends when batch jobs are ordered; a later run of the same request takes their files.
        """
        from hdi.buying import Buying
        from hdi.downloads import Terms
        from hdi.ordering import parse_request
        from hdi.sources.records import MESSAGES
        from hdi.spending import Limits

        if schema not in self.schemas.names and schema in MESSAGES:
            raise RequestError(
                f"{api} has {schema}, but this version has no table for it",
                f"Stored kinds: {', '.join(self.schemas.stored_names)}. docs/add-a-schema.md adds one.",
            )
        asked = self.symbols_of(symbols)
        window = Window.parse(_text(start), _text(end))
        request = parse_request(self.schemas, dataset=dataset, schema=schema, symbols=asked, window=window, stype=stype)
        ingest = self.settings.ingest
        limits = Limits(ingest.max_usd_per_day, ingest.max_usd_per_month)
        terms = Terms(
            ingest.workers, ingest.download_records, ingest.budget_usd, limits=limits, min_split=ingest.min_split_usd,
            batch_above_bytes=ingest.batch_above_bytes, wait=wait, on_wait=on_wait,
        )  # fmt: skip
        source = source or self.source(api, on_wait)
        store = self.store(write=not dry_run)
        options = self._options(refetch=refetch, dry_run=dry_run)
        limit = options.max_reject_percent if max_reject_percent is None else max_reject_percent
        words = {
            "api": api, "job": job, "dataset": request.dataset, "schema": schema, "symbols": list(asked),
            "stype": stype, "start": _text(start), "end": _text(end), "refetch": refetch, "derive": derive,
            "origin": source.origin, "max_reject_percent": limit, "resumes": list(resumes),
        }  # fmt: skip
        if derive and not request.name.width:
            raise RequestError(f"{schema} is not made from anything", "--derive makes bars: leave it out.")
        if derive and refetch:
            raise RequestError(
                "--derive and --refetch contradict each other", "The one makes what the other buys: leave one out."
            )
        options = replace(
            options, job=job, max_reject_percent=limit, derive=derive, resumes=tuple(resumes), words=words
        )  # fmt: skip
        return Buying(store, self.schemas, self._mapping, source, request, options, terms, self.calendars)

    def sync(
        self,
        jobs: Sequence[str] = (),
        *,
        api: str = "databento",
        check_revisions: bool = False,
        dry_run: bool = False,
        on_wait: Callable[[str, float], None] | None = None,
    ) -> Sync:
        """Jobs on their way up to the vendor's available end: ``plan()`` says what is missing, ``run()`` buys it.

        Without names: every job that is to be kept up to date. ``check_revisions`` also finds the days that the vendor
        changed since they were bought. Raises RequestError for an unknown job, and when there is none.
        """
        from hdi.syncing import chosen

        found = chosen(self.jobs(), jobs)
        return self._sync(found, api=api, check_revisions=check_revisions, dry_run=dry_run, on_wait=on_wait)

    def _sync(
        self, jobs: Sequence[Job], *, api: str, check_revisions: bool, dry_run: bool = False,
        on_wait: Callable[[str, float], None] | None = None, source: Source | None = None,
    ) -> Sync:  # fmt: skip
        from hdi.syncing import Step, Sync, schemas_of

        source = source or self.source(api, on_wait)

        def buy(job: Job, end: str) -> Buying:
            return self.buying(
                dataset=job.dataset, schema=job.schema, symbols=job.symbols, start=job.start_date, end=end,
                stype=job.stype_in, api=api, job=job.name, dry_run=dry_run, on_wait=on_wait, source=source,
            )  # fmt: skip

        def revise(steps: Sequence[Step]) -> Due:
            return self.revisions_due(api=api, only=schemas_of(steps), dry_run=dry_run, on_wait=on_wait)

        return Sync(
            jobs, source, buy, revise=revise if check_revisions else None,
            budget=self.settings.ingest.budget_usd,
        )  # fmt: skip

    @contextlib.contextmanager
    def schedule(  # noqa: PLR0913  (each is an option of the command, or the world that it runs in)
        self,
        jobs: Sequence[str] = (),
        *,
        wait: Callable[[float], object],
        stopped: Callable[[], bool],
        tell: Callable[[Event], None] = lambda _: None,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
        api: str = "databento",
        check_revisions: bool = False,
        force: bool = False,
        pace: Pace | None = None,
        on_wait: Callable[[str, float], None] | None = None,
    ) -> Iterator[Scheduler]:
        """The schedule of jobs by their cron lines, without names of all that have one; ``loop()``, ``once()`` run it.

        ``wait`` sleeps so many seconds or less, and ``stopped`` says when to end. What costs more than
        ``ingest.confirm_above_usd`` is bought only with ``force``. Raises RequestError for a job without a cron line,
        and when another process runs the schedule of the data folder.
        """
        from hdi.calendars import Calendars
        from hdi.scheduling import Scheduler, State, held, untraded
        from hdi.syncing import chosen

        planned = chosen(self.jobs(), jobs, scheduled=True)
        calendars = Calendars.load(self.settings.config_dir)
        source = self.source(api, on_wait)

        def run(job: Job) -> Synced:
            from hdi.sources.breaker import close_all

            close_all()  # when to ask again after a refusal is the schedule's to say
            try:
                work = self._sync([job], api=api, check_revisions=check_revisions, on_wait=on_wait, source=source)
                work.plan()
                if not force:
                    work.refuse_above(self.settings.ingest.confirm_above_usd)
                *others, result = work.run(stopped=stopped)
                for other in others:
                    result.merge(other)
                return result
            finally:
                self.close()  # days may go by: nothing is held meanwhile

        def closed(job: Job, window: Window) -> bool:
            return untraded(calendars, job.dataset, self.symbols_of(job.symbols), window)

        with held(self.settings.data_dir):
            yield Scheduler(
                planned, run, State(self.settings.data_dir), identity=masked(self.settings.store_url), closed=closed,
                tell=tell, clock=clock, wait=wait, stopped=stopped, pace=pace,
            )  # fmt: skip

    def revisions_due(
        self,
        *,
        api: str = "databento",
        only: Collection[tuple[str, str]] = (),
        dry_run: bool = False,
        on_wait: Callable[[str, float], None] | None = None,
    ) -> Due:
        """The days that the vendor changed since they were bought, by its own word; free. They can be bought again.

        ``only`` are pairs of a dataset and the name of a stored schema; none is everything that is held. Raises what
        the vendor refuses with.
        """
        from functools import partial

        from hdi.revising import due

        order = partial(self.buying, api=api, refetch=True, dry_run=dry_run, on_wait=on_wait)
        settings, store = self.settings, self.store(write=not dry_run)
        source = self.source(api, on_wait)
        return due(store, self.schemas, source, settings.data_dir, only, order, settings.ingest.budget_usd)

    def revisions(
        self,
        *,
        schema: str | None = None,
        symbols: str | Sequence[str] = (),
        dataset: str | None = None,
        start: str | dt.date | None = None,
        end: str | dt.date | None = None,
        since: str | None = None,
    ) -> Iterator[pl.DataFrame]:
        """Which stored rows were changed after the fact: frames of :data:`hdi.revisions.REVISIONS`, before and after.

        ``since`` is a run (the beginning of its name is enough) or a date: what was replaced then or later. Raises
        RequestError and UnknownSymbol for what nobody knows.
        """
        from hdi.revisions import Asked, Revisions

        window = Window.parse(_text(start or "1970-01-01"), _text(end or _LAST_DAY))
        asked = Asked(schema, self.symbols_of(symbols) if symbols else (), window, dataset, since)
        return Revisions(self.store(), self.schemas, asked).frames()

    def spent(self, by: str = "day", start: str | dt.date | None = None, end: str | dt.date | None = None) -> Spent:
        """What was paid for the data of this store and data folder, by day, month, dataset, schema, job or symbol.

        Without dates of all times; a date as ``end`` means through that UTC day. Raises RequestError for what it
        cannot be shown by, and for what is not a date.
        """
        from hdi.spending import spending, summed

        first = "1970-01-01" if start is None else _text(start)
        window = Window.parse(first, ns_date(MAX_NS - 2 * DAY_NS).isoformat() if end is None else _text(end))
        ledger = self.store().ledger()
        origin = ledger["origin"][0] if ledger.height else self.source().origin
        return summed(spending(ledger, self.settings.data_dir, origin), by, window, origin)

    def source(self, api: str = "databento", on_wait: Callable[[str, float], None] | None = None) -> Source:
        """The vendor's API, with the key and the gateway of the settings."""
        from hdi.sources import open_source

        databento = self.settings.databento
        return open_source(
            api,
            key=databento.key,
            gateway=databento.gateway,
            tries=databento.tries,
            backoff_seconds=databento.backoff_seconds,
            on_wait=on_wait,
        )

    def symbols_of(self, symbols: str | Sequence[str]) -> tuple[str, ...]:
        """The symbols that are meant: joined by commas or one by one, groups (``@ENERGY``) as what they stand for.

        Raises RequestError for an unknown group.
        """
        from hdi.symbol_groups import expand

        return expand((symbols,) if isinstance(symbols, str) else symbols, self.settings.config_dir)

    @cached_property
    def calendars(self) -> Calendars:
        """When is traded, by dataset and product: the packaged table and the user's own. Raises ConfigError."""
        from hdi.calendars import Calendars

        return Calendars.load(self.settings.config_dir)

    def jobs(self) -> dict[str, Job]:
        """The predefined jobs, by name."""
        from hdi.jobs import load_jobs

        return load_jobs(self.settings.config_dir)

    def runs(self) -> list[RunRecord]:
        """The runs of this store, oldest first: by the journals of the data folder, and by the ledger."""
        from hdi.journal import entries
        from hdi.runs import records

        store = self.store()
        return records(entries(self.settings.data_dir), store.ledger(), store.identity(), masked(store.url))

    def run(self, name: str) -> RunDetail:
        """One run with its receipts; the beginning of its name is enough. RequestError, with the closest, for none."""
        from hdi.runs import detail

        return detail(self.runs(), name, self.store().ledger())

    def resumable(self, name: str) -> dict[str, Any]:
        """The words that repeat a run: what :meth:`buying` or :meth:`ingest_files` takes, and ``api``.

        RequestError for a run that lives, that ran elsewhere, or that asked another vendor than the settings name.
        """
        from hdi.runs import words
        from hdi.sources import FILES

        found = words(self.run(name).record)
        if found["api"] not in FILES and (now := self.source(found["api"]).origin) != found["origin"]:
            raise RequestError(
                f"{found['resumes'][-1]} asked for {found['origin']} data; the settings name a vendor of {now} data",
                "Set DATABENTO_GATEWAY to the one it asked.",
            )
        return found

    def _options(self, *, refetch: bool, dry_run: bool) -> Options:
        from hdi.attempt import Options

        settings = self.settings
        return Options(
            data_dir=settings.data_dir,
            dlq_dir=settings.dlq_dir,
            batch_size=settings.ingest.batch_size,
            max_reject_percent=settings.ingest.max_reject_percent,
            min_rejects=settings.ingest.min_rejects,
            refetch=refetch,
            dry_run=dry_run,
        )

    @cached_property
    def _mapping(self) -> VendorMapping:
        from hdi.mapping import load_mapping

        return load_mapping("databento", self.settings.overlays("mappings"), [s.kind for s in self.schemas])

    def query(  # noqa: PLR0913  (each is an option of the command)
        self,
        symbols: str | Sequence[str],
        start: str | dt.date,
        end: str | dt.date,
        *,
        schema: str = "ohlcv-1d",
        dataset: str | None = None,
        columns: Sequence[str] = (),
        limit: int | None = None,
    ) -> Result:
        """What is stored of these symbols (none or ``ALL_SYMBOLS``: all) in the window.

        A date as ``end`` means through that UTC day, an instant (text or ``datetime``) is exclusive. Raises
        RequestError for an unknown schema or column, UnknownSymbol for a symbol that was never stored.
        """
        from hdi.query import run

        window = Window.parse(_text(start), _text(end))
        asked = self.symbols_of(symbols)
        query = Query(schema, asked, window, dataset, tuple(columns), limit)
        return run(self.store(), self.schemas, query)

    def coverage(
        self,
        symbols: str | Sequence[str] = (),
        start: str | dt.date | None = None,
        end: str | dt.date | None = None,
        *,
        schema: str | None = None,
        dataset: str | None = None,
    ) -> Coverage:
        """What is held of these symbols (none or ``ALL_SYMBOLS``: of all that was asked for), month by month.

        A date as ``end`` means through that UTC day; without dates, from the first month with anything to the last.
        Raises RequestError for an unknown schema or dataset, UnknownSymbol for a symbol that was never stored.
        """
        from hdi.covered import measure

        first, last = (None if when is None else _text(when) for when in (start, end))
        window = Window.parse(first or "1970-01-01", last or "2262-04-10")
        return measure(
            self.store(), self.schemas, self.calendars, self.symbols_of(symbols), schema=schema, dataset=dataset,
            start=window.start if first else None, end=window.end if last else None, now=time.time_ns(),
        )  # fmt: skip

    def gaps(
        self,
        symbols: str | Sequence[str] = (),
        start: str | dt.date | None = None,
        end: str | dt.date | None = None,
        *,
        schema: str | Sequence[str] = (),
        dataset: str | None = None,
        closed: bool = False,
    ) -> Report:
        """Every stretch of what was asked for that has no row, with its cause; nothing is asked of a vendor.

        Without dates each symbol is looked at from the first to the last instant that was asked for; a date as ``end``
        means through that UTC day. ``closed`` adds the times at which the market is closed. Raises RequestError,
        UnknownSymbol for what was never asked for.
        """
        from hdi.gaps import Wanted, find

        schemas = (schema,) if isinstance(schema, str) else tuple(schema)
        window = None
        if start is not None or end is not None:
            last = _text(end) if end is not None else dt.datetime.now(dt.UTC).date().isoformat()
            window = Window.parse(_text(start) if start is not None else "1970-01-01", last)
        wanted = Wanted(schemas, self.symbols_of(symbols), dataset, window, closed)
        return find(self.store(), self.schemas, self.calendars, wanted, time.time_ns())

    def filling(
        self,
        report: Report,
        *,
        api: str = "databento",
        dry_run: bool = False,
        on_wait: Callable[[str, float], None] | None = None,
    ) -> Filling:
        """What would fill the gaps of a report that can be filled, and what it costs; :meth:`fill` does it.

        Nothing is billed. Raises as the offers of :meth:`buying` do.
        """
        from functools import partial

        from hdi.gaps.filling import Filler

        order = partial(self.buying, api=api, dry_run=dry_run, on_wait=on_wait)
        settings, store = self.settings, self.store(write=not dry_run)
        filler = Filler(
            store, self.schemas, self.source(api, on_wait), settings.data_dir, order, settings.ingest.budget_usd
        )
        return filler.plan(report.missing)

    def fill(self, filling: Filling) -> Iterator[Outcome]:
        """Fill gaps; an outcome for each download and file. Raises RequestError for what is over the budget."""
        from functools import partial

        yield from filling.run(partial(self.ingest_files, refetch=True))

    def catalog(self, on: str | dt.date | None = None, dataset: str | None = None) -> Catalog:
        """What is stored by symbol, of all times or of one UTC day. Raises RequestError for what is not a date."""
        from hdi.catalog import Catalog, told

        store = self.store()
        day = None if on is None else parse_instant(_text(on))[0] // DAY_NS * DAY_NS
        schema, name = self.schemas.find("definition")
        columns = ["dataset", "instrument_id", "raw_symbol", "asset", "instrument_class", "exchange"]
        said = told(store.read(schema, name.name, Window(0, MAX_NS), None, columns, dataset))
        return Catalog(store.mappings(), store.coverage(), store.ledger(), said, day, dataset)

    def version(self) -> dict[str, str]:
        """Versions by name, and under ``store`` the type of the store."""
        return {**versions(), "store": self.settings.store_type}

    @property
    def synthetic(self) -> bool:
        """True when the store holds what a rehearsal made."""
        ledger = self.store().ledger()
        return bool(ledger.height) and ledger["origin"][0] == SYNTHETIC

    @property
    def has_key(self) -> bool:
        """True when the settings hold a key for the vendor's API."""
        return self.settings.databento.key is not None

    def status(self, *, deep: bool = False, ask_api: bool = False) -> Status:
        """Health, as ``hdi status`` shows it; ``deep`` also reads from every table of the store.

        ``ask_api`` really asks the vendor.
        """
        from hdi.health import measure

        def api() -> dict[str, Any]:
            source = self.source()
            return {"origin": source.origin, **source.check()}

        return measure(self.settings, self.schemas, self.store, deep=deep, api=api if ask_api else None)


def versions() -> dict[str, str]:
    """Versions of hdi, Python and the libraries that decide what data looks like, by name."""
    found = {"hdi": _version("hdi"), "python": platform.python_version()}
    return found | {name: _version(name) for name in LIBRARIES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _text(when: str | dt.date) -> str:
    return when if isinstance(when, str) else when.isoformat()

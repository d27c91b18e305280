"""HistoricalData: everything that hdi does, as one object. Every face (command line, later REST) calls this."""

from __future__ import annotations

import datetime as dt
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hdi import logs
from hdi.errors import ConfigError, RequestError
from hdi.model import SYNTHETIC, Outcome, Query, Window
from hdi.settings import Settings, load
from hdi.settings.addresses import TIMESCALEDB

if TYPE_CHECKING:
    from types import TracebackType

    from hdi.attempt import Options
    from hdi.buying import Buying
    from hdi.health import Status
    from hdi.jobs import Job
    from hdi.mapping import VendorMapping
    from hdi.migrating import Migration
    from hdi.query import Result
    from hdi.schema import Schemas
    from hdi.sources import Source
    from hdi.stores import ServerOptions, Store

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
    ) -> Iterator[Outcome]:
        """Ingest DBN files; one outcome for each as it is done.

        ``origin`` says who made the data: by default what a file was kept as, or the vendor. ``refetch`` stores again
        what is stored already, ``dry_run`` only says what would be done, ``keep``
        False remembers path and digest of a file instead of a copy. Raises StoreError when the store is gone.
        """
        from hdi.pipeline import ingest_files

        options = self._options(refetch=refetch, dry_run=dry_run)
        options = replace(
            options,
            origin=origin,
            keep=keep,
            batch_size=options.batch_size if batch_size is None else batch_size,
            max_reject_percent=options.max_reject_percent if max_reject_percent is None else max_reject_percent,
        )
        store = self.store(write=not dry_run)
        yield from ingest_files(store, self.schemas, self._mapping, [Path(p) for p in paths], options)

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
    ) -> Buying:
        """A request to a vendor's API: its ``offer()`` says what is missing and what it costs, ``run()`` buys it.

        Symbols without ``stype`` are sorted by their notation. A date as ``end`` means through that UTC day. Raises
        RequestError for what is wrong with the request; nothing is asked of the vendor yet. ``on_wait`` is told why a
        call has to wait, and for how many seconds.
        """
        from hdi.buying import Buying
        from hdi.downloads import Terms
        from hdi.ordering import parse_request
        from hdi.sources.records import MESSAGES

        if schema not in self.schemas.names and schema in MESSAGES:
            raise RequestError(
                f"{api} has {schema}, but this version has no table for it",
                f"Stored kinds: {', '.join(self.schemas.stored_names)}. docs/add-a-schema.md adds one.",
            )
        asked = (symbols,) if isinstance(symbols, str) else tuple(symbols)
        window = Window.parse(_text(start), _text(end))
        request = parse_request(self.schemas, dataset=dataset, schema=schema, symbols=asked, window=window, stype=stype)
        ingest = self.settings.ingest
        terms = Terms(ingest.workers, ingest.download_records, ingest.budget_usd)
        source = self.source(api, on_wait)
        store = self.store(write=not dry_run)
        options = self._options(refetch=refetch, dry_run=dry_run)
        return Buying(store, self.schemas, self._mapping, source, request, options, terms)

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

    def jobs(self) -> dict[str, Job]:
        """The predefined jobs, by name."""
        from hdi.jobs import load_jobs

        return load_jobs(self.settings.config_dir)

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
        asked = (symbols,) if isinstance(symbols, str) else tuple(symbols)
        query = Query(schema, asked, window, dataset, tuple(columns), limit)
        return run(self.store(), self.schemas, query)

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

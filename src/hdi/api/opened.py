"""What every part of :class:`hdi.api.HistoricalData` works with: settings, the store, declarations, the vendor."""

from __future__ import annotations

import datetime as dt
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hdi import logs, tracing
from hdi.errors import RequestError, masked
from hdi.model import SYNTHETIC, Window
from hdi.settings import Settings, load
from hdi.settings.addresses import TIMESCALEDB

if TYPE_CHECKING:
    from types import TracebackType

    from hdi.attempt import Options
    from hdi.calendars import Calendars
    from hdi.health import Status
    from hdi.jobs import Job
    from hdi.mapping import VendorMapping
    from hdi.schema import Schemas
    from hdi.sources import Source
    from hdi.stores import ServerOptions, Store

#: The libraries that decide what data looks like.
LIBRARIES = (
    "polars", "pyarrow", "deltalake", "databento-dbn", "numpy", "pandera", "psycopg", "pgpq", "adbc-driver-postgresql",
    "pydantic", "structlog", "typer",
)  # fmt: skip
#: No day before or after can be asked for.
_FIRST_DAY, _LAST_DAY = "1970-01-01", "2262-04-09"


@dataclass
class Opened:
    """A store by its settings. Nothing is opened before it is used, and one that does not exist yet is empty."""

    settings: Settings
    _store: Store | None = None
    _writable: bool = False

    @classmethod
    def open(cls, store: Path | str | None = None, config_dir: Path | str | None = None, **flags: Any) -> Self:
        """The data of a store (a path, ``lake:PATH``, ``postgresql://...``), by default the one that the settings name.

        ``flags`` are further settings by their dotted keys. Raises ConfigError.
        """
        folder = Path(config_dir) if config_dir is not None else None
        settings = load(folder, flags={"store": None if store is None else str(store), **flags})
        logs.configure(settings)
        if tracing.wanted():
            tracing.configure(_version("hdi"), logs.note)
        return cls(settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {masked(self.settings.store_url)}>"

    def close(self) -> None:
        """Give back what the store holds."""
        if self._store is not None:
            self._store.close()
            self._store = None

    @cached_property
    def schemas(self) -> Schemas:
        """The kinds of data: packaged, installed, and the user's own."""
        from hdi.schema_files import load_schemas

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

    def at(self, as_of: str | dt.date | None) -> Store:
        """The store to read from: as it is, or as it was known at an instant (a date: when that UTC day ended)."""
        if as_of is None:
            return self.store()
        from hdi.then import Then

        return Then.at(self.store(), as_of)

    @staticmethod
    def _server_options(settings: Settings) -> ServerOptions:
        from hdi.stores.options import ServerOptions

        timescaledb = settings.timescaledb
        return ServerOptions(
            timescaledb.connect_seconds, timescaledb.compress, timescaledb.compress_after_days, timescaledb.programs
        )

    @cached_property
    def calendars(self) -> Calendars:
        """When is traded, by dataset and product: the packaged table and the user's own. Raises ConfigError."""
        from hdi.calendars import Calendars

        return Calendars.load(self.settings.config_dir)

    def symbols_of(self, symbols: str | int | Sequence[str | int]) -> tuple[str, ...]:
        """The symbols that are meant: joined by commas or one by one, groups (``@ENERGY``) as what they stand for.

        Raises RequestError for an unknown group, and for what is neither text nor an instrument id.
        """
        from hdi.symbol_groups import expand

        given = tuple(symbols) if isinstance(symbols, Iterable) and not isinstance(symbols, str) else (symbols,)
        for symbol in given:
            if isinstance(symbol, bool) or not isinstance(symbol, str | int):
                raise RequestError(
                    f"{symbol!r} is not a symbol", 'Give text, an instrument id, or "ALL_SYMBOLS" for all.'
                )
        return expand(tuple(map(str, given)), self.settings.config_dir)

    def jobs(self) -> dict[str, Job]:
        """The predefined jobs, by name."""
        from hdi.jobs import load_jobs

        return load_jobs(self.settings.config_dir)

    @staticmethod
    def sources() -> list[str]:
        """The sources that data can be ingested from."""
        from hdi.sources import names

        return names()

    def source(self, api: str = "databento", on_wait: Callable[[str, float], None] | None = None) -> Source:
        """A vendor, ready to be asked: Databento with the key and gateway of the settings; others know their own."""
        from hdi.sources import open_source

        own: dict[str, Any] = {}
        if api == "databento":
            databento = self.settings.databento
            own = {
                "key": databento.key, "gateway": databento.gateway, "tries": databento.tries,
                "backoff_seconds": databento.backoff_seconds,
            }  # fmt: skip
        return open_source(api, **own, on_wait=on_wait)

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

    def status(self, *, deep: bool = False, ask_api: bool = False, comprehensive: bool = False) -> Status:
        """Health, as ``hdi status`` shows it; ``deep`` also reads from every table of the store.

        ``ask_api`` really asks the vendor; ``comprehensive`` adds the parts of :mod:`hdi.overview`.
        """
        from hdi.health import measure

        def api() -> dict[str, Any]:
            source = self.source()
            return {"origin": source.origin, **source.check()}

        def more(store: Store) -> dict[str, Any]:
            from hdi.overview import overview

            return overview(self.settings, store, lambda: self.calendars, lambda: self.jobs().values())

        return measure(
            self.settings, self.schemas, self.store, deep=deep, api=api if ask_api else None,
            more=more if comprehensive else None,
        )  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of hdi, Python and the libraries that decide what data looks like, by name."""
    found = {"hdi": _version("hdi"), "python": platform.python_version()}
    return found | {name: _version(name) for name in LIBRARIES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def text(when: str | dt.date) -> str:
    """A day or an instant as it is written. RequestError for what is neither, nor a text."""
    if isinstance(when, str):
        return when
    if not isinstance(when, dt.date):
        raise RequestError(f"{when!r} is not a date or a time", "Give a date, a datetime, or its text: 2024-01-15.")
    return when.isoformat()


def between(start: str | dt.date | None, end: str | dt.date | None) -> Window:
    """The window between two dates; a side without one is as far away as can be asked for."""
    return Window.parse(_FIRST_DAY if start is None else text(start), _LAST_DAY if end is None else text(end))

"""What brings data into a store: files, orders to a vendor, another store."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hdi.api.asking import Asking
from hdi.api.opened import text
from hdi.errors import ConfigError, RequestError
from hdi.model import Outcome, Window
from hdi.settings import load
from hdi.settings.addresses import TIMESCALEDB

if TYPE_CHECKING:
    from hdi.buying.buying import Buying
    from hdi.migrating import Migration
    from hdi.sources import Source
    from hdi.stores import Store


class Bringing(Asking):
    """Writes to a store what it is asked to."""

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
    ) -> Generator[Outcome]:
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
        budget: Decimal | None = None,
        source: Source | None = None,
    ) -> Buying:
        """A request to a vendor's API: its ``offer()`` says what is missing and what it costs, ``run()`` buys it.

        Symbols without ``stype`` are sorted by their notation. A date as ``end`` means through that UTC day. Raises
        RequestError for what is wrong with the request; nothing is asked of the vendor yet. ``on_wait`` is told why a
        call has to wait, and for how many seconds. ``job`` is the predefined job that it comes from; ``derive`` makes
        bars from owned trades or finer bars where it can; ``resumes`` names the runs that this one goes on with.
        Without ``wait`` it ends when batch jobs are ordered; a later run of the same request takes their files.
        ``budget`` refuses what costs more; that of the settings holds beside it.
        """
        from hdi.buying.buying import Buying
        from hdi.buying.downloads import Terms
        from hdi.buying.ordering import parse_request
        from hdi.buying.spending import Limits
        from hdi.sources.records import MESSAGES

        if schema not in self.schemas.names and schema in MESSAGES:
            raise RequestError(
                f"{api} has {schema}, but this version has no table for it",
                f"Stored kinds: {', '.join(self.schemas.stored_names)}. docs/add-a-schema.md adds one.",
            )
        asked = self.symbols_of(symbols)
        window = Window.parse(text(start), text(end))
        request = parse_request(self.schemas, dataset=dataset, schema=schema, symbols=asked, window=window, stype=stype)
        ingest = self.settings.ingest
        limits = Limits(ingest.max_usd_per_day, ingest.max_usd_per_month)
        budget = min((b for b in (budget, ingest.budget_usd) if b is not None), default=None)
        terms = Terms(
            ingest.workers, ingest.download_records, budget, limits=limits, min_split=ingest.min_split_usd,
            batch_above_bytes=ingest.batch_above_bytes, wait=wait, on_wait=on_wait,
        )  # fmt: skip
        source = source or self.source(api, on_wait)
        store = self.store(write=not dry_run)
        options = self._options(refetch=refetch, dry_run=dry_run)
        limit = options.max_reject_percent if max_reject_percent is None else max_reject_percent
        words = {
            "api": api, "job": job, "dataset": request.dataset, "schema": schema, "symbols": list(asked),
            "stype": stype, "start": text(start), "end": text(end), "refetch": refetch, "derive": derive,
            "origin": source.origin, "max_reject_percent": limit, "resumes": list(resumes), "budget": budget,
            "wait": wait,
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
        return Buying(
            store, self.schemas, self._mapping, source, request, options, terms, self.calendars,
            lambda: self._named(request.dataset),
        )  # fmt: skip

    def _named(self, dataset: str) -> list[str]:
        """The symbols of jobs of a dataset and of groups: what a mistyped one may have meant."""
        from hdi.symbol_groups import load_groups

        found: list[str] = []
        with contextlib.suppress(ConfigError):  # a file that is wrong is told of where it is asked for
            found += [s for job in self.jobs().values() if job.dataset == dataset for s in job.symbols]
        with contextlib.suppress(ConfigError):
            found += [s for group in load_groups(self.settings.config_dir).values() for s in group]
        return found

    def resumable(self, name: str, on_bad: Callable[[str], None] | None = None) -> dict[str, Any]:
        """The words that repeat a run: what :meth:`buying` or :meth:`ingest_files` takes, and ``api``.

        How it was worked on, with how many threads and rows at once, is not among them; its budget is.
        RequestError for a run that lives, that ran elsewhere, or that asked another vendor than the settings name.
        """
        from hdi.runs import words
        from hdi.sources import FILES

        found = words(self.run(name, on_bad).record)
        if found.get("budget") is not None:
            found["budget"] = Decimal(found["budget"])
        if found["api"] not in FILES and (now := self.source(found["api"]).origin) != found["origin"]:
            raise RequestError(
                f"{found['resumes'][-1]} asked for {found['origin']} data; the settings name a vendor of {now} data",
                "Set DATABENTO_GATEWAY to the one it asked.",
            )
        return found

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

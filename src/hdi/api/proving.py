"""What is proved about the rows that are stored, and what keeps the store fit for years."""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import TYPE_CHECKING, Any

from hdi.api.looking import Looking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    import polars as pl

    from hdi.alerting import Alert, Watch
    from hdi.alerting.sending import Sender
    from hdi.answer import Answer
    from hdi.backups import Made
    from hdi.backups.restoring import Restored
    from hdi.judging import Judged
    from hdi.locking import Comparison, Lock
    from hdi.maintaining import Maintenance
    from hdi.metrics import Metrics
    from hdi.model import Window
    from hdi.reconciling import Reconciliation
    from hdi.rejects.asked import Summary
    from hdi.rejects.purging import Purge
    from hdi.rejects.replaying import Replay
    from hdi.reporting import Section
    from hdi.stores import Store
    from hdi.why import Because

When = str | dt.date | None


class Proving(Looking):
    """The part of :class:`~hdi.api.HistoricalData` that judges, proves, maintains and restores."""

    def maintenance(self, steps: Sequence[str] = (), *, dry_run: bool = False) -> Maintenance:
        """The upkeep of the store and of its folders: ``run()`` does it and says of each step what it did.

        No answer changes by it, and others may read and write meanwhile. Without ``steps`` all but those that are done
        on request only. Raises RequestError for an unknown step, StoreError while another process is at it.
        """
        from hdi.maintaining import Maintenance
        from hdi.stores.upkeep import Care

        settings = self.settings
        compress = settings.timescaledb.compress_after_days if settings.timescaledb.compress else None
        care = Care(tuple(steps), dry_run, settings.maintain.keep_removed_hours, compress)
        return Maintenance(self.store(write=not dry_run), settings, care)

    def back_up(
        self, folder: Path | str, tables: Sequence[str] = (), *, raw: bool = False, keep: int | None = None
    ) -> Made:
        """Save the store (or some of its tables) into a new folder below ``folder``; others may write meanwhile.

        ``raw`` adds raw files, journals and settings; of older backups there the newest ``keep - 1`` stay, None: all.
        Raises StoreError, RequestError for an unknown table.
        """
        from pathlib import Path

        from hdi.backups import back_up

        return back_up(self.store(), self.settings, Path(folder), tables, raw=raw, keep=keep)

    def restore(self, folder: Path | str, tables: Sequence[str] = (), *, raw: bool = False) -> Restored:
        """Bring a backup back into this store, which must be empty; with ``tables`` those, which must not be there.

        Everything is checked against its digests before and after. Raises RequestError for a store that is not empty,
        CorruptFile for a backup that is damaged or cut, StoreError.
        """
        from pathlib import Path

        from hdi.backups.restoring import restore

        try:
            return restore(self.store(), self.settings, Path(folder), tables, raw=raw)
        finally:
            self.close()  # what this handle knew of the store is not so any more

    def quarantine(
        self, *, rule: str | None = None, schema: str | None = None, symbols: str | Sequence[str] = (),
        unit: str | None = None, days: int | None = None, columns: Sequence[str] = (),
    ) -> Answer:  # fmt: skip
        """The rejects that stand (:data:`hdi.rejects.asked.LISTED`), those rejected first before.

        ``rule`` is one that a row broke, ``unit`` a unit's number or how its id begins, ``days`` how many days ago they
        were rejected at most. Raises RequestError for what nobody knows.
        """
        import time

        from hdi.answer import Rows
        from hdi.rejects.asked import Which, chosen, listed

        which = Which(rule, schema, self.symbols_of(symbols) if symbols else (), unit, days)
        found = listed(chosen(self.store(), self.schemas, which, time.time_ns()))
        return Rows(found.select(*columns) if columns else found)

    def quarantine_summary(
        self, *, rule: str | None = None, schema: str | None = None, symbols: str | Sequence[str] = (),
        unit: str | None = None, days: int | None = None,
    ) -> Summary:  # fmt: skip
        """The same rejects counted, and their share of what was fetched."""
        import time

        from hdi.rejects.asked import Which, chosen, summary

        which = Which(rule, schema, self.symbols_of(symbols) if symbols else (), unit, days)
        now, store = time.time_ns(), self.store()
        return summary(store, chosen(store, self.schemas, which, now), which, now)

    def reject(self, name: str) -> dict[str, Any]:
        """All that is known of one reject, by its name: number of its unit, colon, its row in the raw file."""
        from hdi.rejects.asked import one

        return one(self.store(), self.schemas, name, self.settings.data_dir)

    def replay(
        self, *, rule: str | None = None, unit: str | None = None, schema: str | None = None, dry_run: bool = False,
        max_reject_percent: float | None = None,
    ) -> Replay:  # fmt: skip
        """Rejects refined again from their kept bytes, by today's rules: ``plan()`` says what moves, ``run()`` does it.

        Rows that today's rules reject leave their table. Nothing is bought.
        """
        from dataclasses import replace

        from hdi.rejects.replaying import Asked, Replay

        options = self._options(refetch=False, dry_run=dry_run)
        if max_reject_percent is not None:
            options = replace(options, max_reject_percent=max_reject_percent)
        store = self.store(write=not dry_run)
        return Replay(store, self.schemas, self._mapping, options, Asked(rule, unit, schema))

    def purging(self, older_than_days: int | None = None) -> Purge:
        """Rejects that no longer stand, and with days those older that do: ``rows`` says how many, ``run()`` purges."""
        from hdi.rejects.purging import Purge

        return Purge.of(self.store(write=True), older_than_days, self.settings.dlq_dir)

    def validate(  # noqa: PLR0913  (each narrows what is looked at)
        self, schema: str = "ohlcv-1d", symbols: str | Sequence[str] = (), start: Any = None, end: Any = None, *,
        dataset: str | None = None, sample: int | None = None, seed: int = 0,
        tell: Callable[[int], object] = lambda _: None,
    ) -> tuple[Judged, list[str]]:  # fmt: skip
        """Stored rows by the rules of today, and why there are none where there are none.

        With ``sample`` so many of them, the same for the same ``seed``; without, all. Raises as :meth:`query` does, and
        DataError for stored rows that are not of the declared types.
        """
        from hdi.judging import judge

        result = self.query(symbols or "ALL_SYMBOLS", start, end, schema=schema, dataset=dataset)
        judged = judge(result, sample, seed, tell)
        return judged, [] if judged.of else result.explain()

    def reconciling(
        self,
        symbols: str | int | Sequence[str | int] = (),
        start: str | dt.date | None = None,
        end: str | dt.date | None = None,
        *,
        schema: Sequence[str] = (),
        dataset: str | None = None,
        checks: Sequence[str] = (),
    ) -> Reconciliation:
        """What is stored, compared with itself: ``steps()`` does it, ``result()`` says what was found, and not judged.

        Bars are compared with finer bars and trades, prices with tick sizes, settlements with bars, rows with their
        neighbours (:data:`hdi.reconciling.checks.CHECKS`). Discrepancies are kept in the store (``store().
        discrepancies()``); no row is changed. Raises RequestError, UnknownSymbol.
        """
        from hdi.api.opened import between
        from hdi.reconciling import Reconciliation, Wanted

        wanted = Wanted(
            between(start or None, end or None), self.symbols_of(symbols) if symbols else (), tuple(schema), dataset,
            tuple(checks),
        )  # fmt: skip
        settings = self.settings
        return Reconciliation(self.store(write=True), self.schemas, wanted, settings.reconcile, settings.data_dir)

    def lock(  # noqa: PLR0913  (each is an option of the command)
        self,
        path: Path | str,
        *,
        schema: str | None = None,
        symbols: str | int | Sequence[str | int] = (),
        dataset: str | None = None,
        start: When = None,
        end: When = None,
        as_of: When = None,
        rows: bool = False,
        tell: Callable[[int], None] = lambda _: None,
    ) -> Lock:
        """Keep in a file what is stored as one digest and a tree of more below it: :mod:`hdi.locking.tree`.

        ``rows`` adds a file beside it that names every row. ``tell`` is called with numbers of rows as they are read.
        Raises RequestError for what is not stored, DataError for rows that lie in no order.
        """
        from pathlib import Path

        from hdi import locking
        from hdi.api.opened import between, versions

        window = between(start or None, end or None) if start or end else None
        asked = locking.Asked(schema, self.symbols_of(symbols) if symbols else (), dataset, window)
        version = versions()["hdi"]
        return locking.make(self.at(as_of), self.schemas, asked, Path(path), rows=rows, version=version, tell=tell)

    def verify_lock(
        self, path: Path | str, *, as_of: When = None, tell: Callable[[int], None] = lambda _: None
    ) -> Comparison:
        """A lock that was kept, and what this store holds of the same; ``differences()`` says where they differ.

        Raises RequestError for a file that is no lock, or is damaged.
        """
        from pathlib import Path

        from hdi.locking import files, verify

        return verify(files.read(Path(path)), self.at(as_of), self.schemas, tell)

    @contextlib.contextmanager
    def difference(  # noqa: PLR0913  (each is an option of the command)
        self,
        first: str,
        second: str,
        *,
        schema: str | None = None,
        symbols: str | int | Sequence[str | int] = (),
        dataset: str | None = None,
        start: When = None,
        end: When = None,
        tell: Callable[[int], None] = lambda _: None,
    ) -> Iterator[Comparison]:
        """Two locks, two stores (named as for :meth:`open`), or one of each, compared.

        What is asked for narrows what is read of two stores; a lock says itself what it is about.
        """
        from hdi import locking
        from hdi.api.opened import between

        window = between(start or None, end or None) if start or end else None
        asked = locking.Asked(schema, self.symbols_of(symbols) if symbols else (), dataset, window)
        with contextlib.ExitStack() as stack:

            def opened(name: str) -> Store:
                store = self._other(name, "hdi diff", write=False)
                stack.callback(store.close)
                return store

            yield locking.difference(first, second, opened, self.schemas, asked, tell)

    def why(  # noqa: PLR0913  (each is an option of the command)
        self,
        symbol: str | int,
        when: str | dt.date,
        *,
        at: str | None = None,
        schema: str = "ohlcv-1d",
        dataset: str | None = None,
        as_of: When = None,
        roll: str | None = None,
    ) -> Because:
        """Where the rows of a symbol on a day (at a time of it) come from, or why there is none.

        ``roll`` names the rule by which a continuous symbol was read (without: the vendor's mapping). Nothing is asked
        of a vendor. Raises as :meth:`query` does, and RequestError for too many rows to tell at once.
        """
        from hdi.api.opened import text
        from hdi.keeping import revisions
        from hdi.model import iso_ns
        from hdi.why import Around, Asked, why

        store = self.at(as_of)

        def gaps(of: str, name: str, window: Window, where: str | None) -> pl.DataFrame:
            first, end = iso_ns(window.start), iso_ns(window.end)
            return self.gaps(of, first, end, schema=name, dataset=where, closed=True, as_of=as_of).gaps

        def revised(name: str, instrument: int, window: Window, where: str) -> Iterator[pl.DataFrame]:
            wanted = revisions.Asked(name, (str(instrument),), window, where)
            return revisions.Revisions(store, self.schemas, wanted).frames()

        around = Around(
            self.schemas, self._mapping, self.settings.data_dir, self.runs, gaps, self._rolls(roll), revised
        )
        (one,) = self.symbols_of(str(symbol)) or ("",)
        return why(store, around, Asked.parse(one, text(when), at, schema, dataset))

    def report(self, jobs: Sequence[str] = ()) -> list[Section]:
        """What is known of the quality of what is stored: a section for each job, and for what no job asked for.

        With names those jobs only. Nothing is asked of a vendor, and nothing is written. Raises RequestError for an
        unknown job.
        """
        import time
        from dataclasses import replace

        from hdi.reporting import Reporter, subjects

        store = self.store()
        about = subjects(self.jobs(), jobs, store.ledger(), self.schemas)
        about = [replace(one, symbols=self.symbols_of(one.symbols) if one.symbols else ()) for one in about]
        return Reporter(store, self.schemas, self.calendars, time.time_ns(), self.settings.data_dir).sections(about)

    def metrics(self) -> Metrics:
        """What Prometheus asks for: ``text()`` measures it, ``registry`` is for a server of yours.

        A store that cannot be reached is a measurement (``hdi_store_up`` is 0), and is opened again at the next look.
        """
        from hdi.api.opened import versions
        from hdi.metrics import Metrics, World

        return Metrics(World(
            self.settings, self.schemas, self.store, lambda: self.calendars, lambda: self.jobs().values(),
            self.symbols_of, self.close, versions()["hdi"],
        ))  # fmt: skip

    @contextlib.contextmanager
    def watching(
        self, command: str, job: str | None = None, *, said: Callable[[str], None] = lambda _: None,
        dry_run: bool = False, quiet: tuple[type[BaseException], ...] = (),
    ) -> Iterator[Watch]:  # fmt: skip
        """Tell of what goes wrong in the block: what the watch is shown, and what ends it early, but for ``quiet``.

        The settings ``alerts`` say who is told. What goes wrong with telling is said, logged, and never raised.
        """
        from hdi.alerting import watching

        if dry_run or not self.alerts_configured:
            with watching(command, lambda _: None, quiet) as watch:
                yield watch
            return
        from hdi.alerting.looking import after

        sender = self._sender(said)

        def tell(alerts: Iterable[Alert]) -> None:
            held = self._store is not None
            try:
                after(sender, alerts, self.settings, lambda: self.store().ledger())
            finally:
                if not held:  # a schedule holds nothing while it waits
                    self.close()

        with watching(f"{command} {job}" if job else command, tell, quiet) as watch:
            yield watch

    @property
    def alerts_configured(self) -> bool:
        """Whether the settings say who is told of what goes wrong."""
        alerts = self.settings.alerts
        return alerts.webhook is not None or bool(alerts.command)

    def _sender(self, said: Callable[[str], None] = lambda _: None) -> Sender:
        from hdi.alerting.sending import Sender
        from hdi.api.opened import versions

        return Sender(self.settings, versions()["hdi"], said)

    def alert(self, *, said: Callable[[str], None] = lambda _: None, dry_run: bool = False) -> tuple[list[Alert], int]:
        """Look for what no run tells of, and send alerts of it: what was found, and how many could not be sent."""
        import time

        from hdi.alerting.looking import found

        store, now = self.store(), time.time_ns()
        alerts = found(
            self.settings, store, self.runs(), lambda: self.calendars, self.jobs().values(), self.schemas,
            self.symbols_of, now,
        )  # fmt: skip
        wanted = [alert for alert in alerts if alert.event in self.settings.alerts.events]
        return wanted, 0 if dry_run else self._sender(said).send(wanted)

    def try_alerts(self) -> list[str]:
        """Send a trial alert to everybody that the settings name; whom. Raises RequestError for nobody, UnitFailed."""
        from hdi.alerting import Alert
        from hdi.errors import RequestError

        if not self.alerts_configured:
            raise RequestError("nobody is told of anything", "Set HDI_ALERT_WEBHOOK, or alerts.command.")
        return self._sender().try_out(Alert("failure", "trial", "this is a trial: nothing is wrong"))

    def verify(
        self, tests: Sequence[str] = (), *, tell: Callable[[str], object] = lambda _: None
    ) -> tuple[Path, dict[str, Any]]:
        """Measure the promises (:mod:`hdi.verifying`), and keep the result beside the logs: its file and itself.

        ``tell`` hears which test is at work. Raises RequestError for an unknown one.
        """
        from hdi.api.measuring import verify

        return verify(self, tests, tell)

    def last_verification(self) -> tuple[Path, dict[str, Any]]:
        """The last result that was kept. RequestError where there is none."""
        from hdi.verifying.results import last

        return last(self.settings.log.dir)

"""What keeps a store up to date: jobs that go on, days that were changed, gaps that can be filled."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from typing import TYPE_CHECKING

from hdi.api.bringing import Bringing
from hdi.errors import masked
from hdi.model import Outcome, Window

if TYPE_CHECKING:
    from hdi.buying.buying import Buying
    from hdi.gaps import Report
    from hdi.gaps.filling import Filling
    from hdi.jobs import Job
    from hdi.keeping.revising import Due
    from hdi.keeping.scheduling import Event, Pace, Scheduler
    from hdi.keeping.syncing import Result as Synced
    from hdi.keeping.syncing import Step, Sync
    from hdi.sources import Source


class Keeping(Bringing):
    """Finds out what to bring by itself, from what is stored."""

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
        from hdi.keeping.syncing import chosen

        found = chosen(self.jobs(), jobs)
        return self._sync(found, api=api, check_revisions=check_revisions, dry_run=dry_run, on_wait=on_wait)

    def _sync(  # noqa: PLR0913  (what the two commands differ in)
        self, jobs: Sequence[Job], *, api: str, check_revisions: bool, dry_run: bool = False,
        on_wait: Callable[[str, float], None] | None = None, source: Source | None = None, wait: bool = True,
    ) -> Sync:  # fmt: skip
        from functools import partial

        from hdi.keeping.settling import settle as settled
        from hdi.keeping.syncing import Sync, schemas_of

        source = source or self.source(api, on_wait)

        def buy(job: Job, end: str) -> Buying:
            return self.buying(
                dataset=job.dataset, schema=job.schema, symbols=job.symbols, start=job.start_date, end=end,
                stype=job.stype_in, api=api, job=job.name, dry_run=dry_run, on_wait=on_wait, source=source,
                wait=wait,
            )  # fmt: skip

        def revise(steps: Sequence[Step]) -> Due:
            return self.revisions_due(api=api, only=schemas_of(steps), dry_run=dry_run, on_wait=on_wait, wait=wait)

        def settle(steps: Sequence[Step]) -> Due:
            order = partial(
                self.buying, api=api, refetch=True, dry_run=dry_run, on_wait=on_wait, source=source, wait=wait
            )
            requests = [step.buying.request for step in steps if step.buying is not None]
            return settled(
                self.store(write=not dry_run), self.schemas, source, requests, order, self.settings.ingest.budget_usd
            )

        return Sync(
            jobs, source, buy, settle=settle, revise=revise if check_revisions else None,
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
        ``ingest.confirm_above_usd`` is bought only with ``force``; what replaces a batch job that failed never is.
        Raises RequestError for a job without a cron line, and when another process runs the schedule of the data
        folder.
        """
        from hdi.keeping.scheduling import Scheduler, State, held, untraded
        from hdi.keeping.syncing import chosen

        planned = chosen(self.jobs(), jobs, scheduled=True)
        source = self.source(api, on_wait)

        def run(job: Job) -> Synced:
            from hdi.sources.breaker import close_all

            close_all()  # when to ask again after a refusal is the schedule's to say
            try:
                work = self._sync([job], api=api, check_revisions=check_revisions, on_wait=on_wait, source=source,
                                  wait=False)  # fmt: skip
                work.plan()
                work.refuse_replacing()
                if not force:
                    work.refuse_above(self.settings.ingest.confirm_above_usd)
                *others, result = work.run(stopped=stopped)
                for other in others:
                    result.merge(other)
                return result
            finally:
                self.close()  # days may go by: nothing is held meanwhile

        def closed(job: Job, window: Window) -> bool:
            return untraded(self.calendars, job.dataset, self.symbols_of(job.symbols), window)

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
        wait: bool = True,
    ) -> Due:
        """The days that the vendor changed since they were bought, by its own word; free. They can be bought again.

        ``only`` are pairs of a dataset and the name of a stored schema; none is everything that is held. Raises what
        the vendor refuses with.
        """
        from functools import partial

        from hdi.keeping.revising import due

        order = partial(self.buying, api=api, refetch=True, dry_run=dry_run, on_wait=on_wait, wait=wait)
        settings, store = self.settings, self.store(write=not dry_run)
        source = self.source(api, on_wait)
        return due(store, self.schemas, source, settings.data_dir, only, order, settings.ingest.budget_usd)

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

    def fill(self, filling: Filling) -> Generator[Outcome]:
        """Fill gaps; an outcome for each download and file. Raises RequestError for what is over the budget."""
        from functools import partial

        yield from filling.run(partial(self.ingest_files, refetch=True))

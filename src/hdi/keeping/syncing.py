"""Sync: jobs are brought from what is stored up to what the vendor has, the oldest missing days first.

The window of a job begins at its start_date and ends where the vendor's data ends now; its end_date does not count.
All prices are known before anything is bought. A job that fails stops no other, but for errors of the account.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

import structlog

from hdi.buying.buying import Buying
from hdi.buying.downloads import Progress
from hdi.buying.offer import NOTHING, Offer, floor_end, unasked
from hdi.buying.spending import Limits, spending
from hdi.errors import AccountRefused, HdiError, OverBudget, RequestError, StoreError
from hdi.frames import BROUGHT
from hdi.jobs import WHERE, Job, find_job
from hdi.keeping.settling import not_whole, pending
from hdi.model import (
    DAY_NS,
    MONEY,
    Condition,
    Outcome,
    Quote,
    Window,
    date_ns,
    dollars_text,
    iso_ns,
    parse_instant,
    some,
)  # fmt: skip
from hdi.schema import closest
from hdi.sources import Source

if TYPE_CHECKING:
    from hdi.keeping.revising import Changed, Due, DueOffer

#: The name of what is bought again because the vendor changed it.
REVISIONS = "revisions"
log = structlog.get_logger(component="PipelineOrchestrator")


def chosen(jobs: Mapping[str, Job], names: Sequence[str], *, scheduled: bool = False) -> list[Job]:
    """The jobs of these names, each once; without names all that are kept up to date, ``scheduled``: by a cron line.

    Raises RequestError for an unknown name, one without a cron line that is to be scheduled, and when there is none.
    """
    if not names:
        found = [job for job in jobs.values() if (job.cron is not None if scheduled else job.synced)]
        if found:
            return found
        keys = "cron: '15 6 * * 2-6'" if scheduled else "sync: true (or a cron line)"
        raise RequestError(
            f"no job says that it is to be {'run on a schedule' if scheduled else 'kept up to date'}",
            f"Write {keys} below a job{'' if scheduled else ', or name jobs'}. {WHERE}",
        )
    found = [find_job(jobs, name) for name in dict.fromkeys(names)]
    silent = [job.name for job in found if scheduled and job.cron is None]
    if silent:
        raise RequestError(
            f"{', '.join(silent)}: without a cron line it is not known when",
            f"Write one below the job, such as cron: '15 6 * * 2-6' for 06:15 UTC from Tuesday to Saturday. {WHERE}",
        )
    return found


@dataclass(frozen=True)
class Step:
    """What one job lacks: ``offer``, or ``error`` says why that is not known.

    ``through`` is the instant up to which the vendor has whole days for it, 0 when it has none yet, None when not
    known: it ends before the first day that is pending. ``odd`` are the days that the vendor does not call available,
    of what is to be bought; of what is held those that were pending or degraded when they were bought.
    """

    job: Job
    buying: Buying | None = field(default=None, repr=False)
    offer: Offer | None = field(default=None, repr=False)
    error: HdiError | None = None
    through: int | None = None
    odd: tuple[Condition, ...] = ()

    @property
    def units(self) -> int:
        """How many units are to be committed."""
        return self.offer.units if self.offer else 0

    @property
    def quote(self) -> Quote:
        """What it costs."""
        return self.offer.quote if self.offer else NOTHING


@dataclass
class Result:
    """What became of one job: ``current`` when nothing was missing, ``stopped`` when it was told to end before.

    ``stale`` when all is stored, and bars that were made of it are to be made again, for what was changed since.
    ``ordered`` when the vendor prepares some of it: ``awaited`` has a sentence for each batch job.
    """

    name: str
    status: str = "current"
    step: Step | None = None
    units: int = 0
    fetched: int = 0
    stored: int = 0
    quarantined: int = 0
    dollars: Decimal = Decimal(0)
    errors: list[HdiError] = field(default_factory=list)
    awaited: dict[str | None, str] = field(default_factory=dict)
    #: Days that the vendor last changed on the day on which they were bought.
    unsettled: int = 0

    @property
    def exit_code(self) -> int:
        """The highest of its errors' codes."""
        return max((error.exit_code for error in self.errors), default=0)

    @property
    def through(self) -> int | None:
        """The instant up to which all is stored that the vendor has; None when something is missing."""
        done = self.status in ("current", "synced", "stale") and self.step is not None
        return self.step.through if done and self.step else None

    def merge(self, other: Result) -> None:
        """Count what another result brought, as part of this one."""
        for name in ("units", "fetched", "stored", "quarantined", "dollars"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.errors += other.errors
        self.awaited |= other.awaited
        if other.status in ("failed", "ordered") or (self.status == "current" and other.status != "current"):
            self.status = other.status

    def add(self, outcome: Outcome) -> None:
        """Count an outcome."""
        kept = [r for r in outcome.receipts if r.status in BROUGHT]
        if outcome.status == "ordered":
            self.awaited[outcome.receipts[0].batch if outcome.receipts else outcome.note] = outcome.note
        for receipt in kept:
            self.awaited.pop(receipt.batch, None)
        if self.status in ("current", "synced", "ordered"):
            self.status = "ordered" if self.awaited else "synced"
        self.units += len(kept)
        self.fetched += sum(r.fetched for r in kept)
        self.stored += sum(r.stored for r in kept)
        self.quarantined += sum(r.quarantined for r in kept)
        self.dollars += outcome.dollars or 0
        if outcome.error is not None:
            self.fail(outcome.error)

    def fail(self, error: HdiError) -> None:
        """Note what went wrong."""
        self.status = "failed"
        self.errors.append(error)


class Sync:
    """Some jobs on their way up to date: :meth:`plan`, then :meth:`run`.

    ``buy`` gives the request of a job up to an instant. ``revise`` looks for days that the vendor changed; None: not
    looked for, but for those that were not whole when they were bought, by ``settle``. ``budget`` is for all of it.
    """

    def __init__(
        self, jobs: Sequence[Job], source: Source, buy: Callable[[Job, str], Buying], *,
        settle: Callable[[Sequence[Step]], Due], revise: Callable[[Sequence[Step]], Due] | None = None,
        budget: Decimal | None = None,
    ) -> None:  # fmt: skip
        self.jobs = tuple(jobs)
        self.origin = source.origin
        self.steps: tuple[Step, ...] = ()
        self.due: Due | None = None
        self.again: DueOffer | None = None
        self.due_error: HdiError | None = None
        self.outdated: tuple[Changed, ...] = ()
        self.progress: Progress | None = None
        self._begun: list[Progress] = []
        self.spent = Decimal(0)
        self.rows = 0
        self._amounts = 0
        self._brought: set[tuple[str, str]] = set()
        self._source = source
        self._buy = buy
        self._revise = revise
        self._settle = settle
        self._budget = budget
        self._ends: dict[str, Mapping[str, Window]] = {}
        #: By dataset; "" stands for the account.
        self._refused: dict[str, AccountRefused] = {}

    def plan(self) -> tuple[Step, ...]:
        """What each job lacks and what it costs: the vendor is asked only what is free."""
        self.steps = tuple(self._step(job) for job in self.jobs)
        asked = [step for step in self.steps if step.buying is not None]
        if "" not in self._refused and (self._revise is not None or any(step.odd for step in asked)):
            try:
                due = (self._revise or self._settle)(asked)
                if self._revise is not None or due.changed:
                    self.due = due
                    self.again = due.offer()
                    self.outdated = due.outdated()
            except StoreError:
                raise
            except HdiError as error:
                self._noted(error)
                self.due_error = error
        return self.steps

    @property
    def quote(self) -> Quote:
        """What all of it costs at most: what several jobs lack is bought once, and counted once where it is equal."""
        found = {
            (step.offer.request.dataset, step.offer.request.name.name, purchase): quote
            for step in self.steps if step.offer
            for purchase, quote in zip(step.offer.purchases, step.offer.quotes, strict=True)
        }  # fmt: skip
        return sum(found.values(), self.again.quote if self.again else NOTHING)

    @property
    def units(self) -> int:
        """How many units are to be committed, those that are bought again among them."""
        return sum(step.units for step in self.steps) + (self.again.units if self.again else 0)

    @property
    def size(self) -> int:
        """Bytes that have arrived so far, of all of it."""
        return sum(progress.size for progress in self._begun)

    @property
    def replaced(self) -> tuple[str, ...]:
        """What became of the batch jobs of which something is ordered again."""
        offers = [step.offer for step in self.steps if step.offer] + list(self.again.offers if self.again else ())
        return tuple(dict.fromkeys(each for offer in offers for each in offer.replaced))

    def refuse_replacing(self) -> None:
        """RequestError when what a batch job was paid for is ordered again, and nobody is there to say yes."""
        if replaced := self.replaced:
            raise unasked(replaced)

    def refuse_above(self, limit: Decimal) -> None:
        """OverBudget when it costs more than what needs a yes, and nobody is there to say it."""
        cost = self.quote.dollars
        if cost > limit:
            raise OverBudget(
                f"this costs {dollars_text(cost)}; more than {dollars_text(limit)} (ingest.confirm_above_usd) needs "
                "a yes",
                "Give --force, or sync fewer jobs. Nothing was bought.",
            )

    def refuse_over_budget(self) -> None:
        """OverBudget when all of it together costs more than the budget, or than may still be spent."""
        cost = self.quote.dollars
        if self._budget is not None and cost > self._budget:
            raise OverBudget(
                f"this costs {dollars_text(cost)}, and the budget is {dollars_text(self._budget)}",
                "Sync fewer jobs, or raise --budget. Nothing was bought.",
            )
        buying = next((step.buying for step in self.steps if step.buying is not None), None)
        if buying is not None and buying.terms.limits:
            rows = spending(buying.store.ledger(), buying.options.data_dir, self.origin, Limits.since())
            buying.terms.limits.check(cost, rows)

    def run(
        self, on_outcome: Callable[[str, Outcome], None] = lambda *_: None, stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[Result]:
        """Do it: one result for each job as it is done, first for what is bought again.

        ``on_outcome`` is told the job's name and each outcome. After an outcome for which ``stopped`` is true nothing
        more is ordered. Raises RequestError, before anything is billed, for more than the budget; StoreError.
        """
        self.refuse_over_budget()
        if self._revise is not None or self.due is not None or self.due_error is not None:
            yield self._looked(self._done(Result(REVISIONS), self._bought_again, self.due_error, on_outcome, stopped))
        for step in self.steps:
            result = Result(step.job.name, step=step)
            yield self._done(result, partial(self._bought, step), step.error, on_outcome, stopped)

    def _looked(self, result: Result) -> Result:
        """The result of looking for what was changed, with the bars that are to be made again since."""
        self.outdated = self.due.outdated() if self.due is not None else ()
        result.unsettled = sum(u.days for u in self.due.unsettled) if self.due is not None else 0
        if self.outdated and result.status == "current":
            result.status = "stale"
        return result

    def _done(
        self, result: Result, buy: Callable[[], Iterable[Outcome]], error: HdiError | None,
        on_outcome: Callable[[str, Outcome], None], stopped: Callable[[], bool],
    ) -> Result:  # fmt: skip
        if error is not None:
            result.fail(error)
        elif result.step is not None and result.step.units and (refused := self._refusal(result.step.job)):
            result.fail(_untried(result.name, refused))
        elif stopped():
            result.status = "stopped"
        else:
            try:
                self._taken(result, buy(), on_outcome, stopped)
            except StoreError:
                raise
            except HdiError as failure:
                self._noted(failure)
                result.fail(failure)
        if (step := result.step) is not None and step.buying is not None and (step.odd or result.units):
            result.step = _standing(step, step.buying.request.window.end)
        log.info(
            "sync", status=result.status, job=result.name, units=result.units, stored=result.stored,
            quarantined=result.quarantined, dollars=str(result.dollars), errors=[e.message for e in result.errors],
        )  # fmt: skip
        return result

    def _taken(
        self, result: Result, outcomes: Iterable[Outcome], on_outcome: Callable[[str, Outcome], None],
        stopped: Callable[[], bool],
    ) -> None:  # fmt: skip
        with contextlib.ExitStack() as stack:
            if close := getattr(outcomes, "close", None):
                stack.callback(close)
            for outcome in outcomes:
                result.add(outcome)
                self.spent += outcome.dollars or 0
                self._amounts += 1
                self.rows += sum(r.fetched for r in outcome.receipts)
                if outcome.error is not None:
                    self._noted(outcome.error)
                on_outcome(result.name, outcome)
                if stopped():
                    result.status = "stopped" if result.status != "failed" else "failed"
                    return

    def _bought(self, step: Step) -> Iterable[Outcome]:
        if step.buying is None or step.offer is None:
            return ()
        if self._budget is not None:
            # What the jobs before it spent, broken tries among it, is no longer there; each amount of it is rounded.
            left = self._budget - self.spent + self._amounts * MONEY
            step.buying.terms = replace(step.buying.terms, budget=max(left, Decimal(0)))
        request = step.buying.request
        # A job before it may have brought some of the same: what is missing is looked for again.
        offer = step.buying.offer() if (request.dataset, request.name.name) in self._brought else step.offer
        if offer.units:
            self._brought.add((request.dataset, request.name.name))
        progress, outcomes = step.buying.run(offer)
        self._began(progress)
        return outcomes

    def _bought_again(self) -> Iterable[Outcome]:
        self.progress = None
        if self.due is None or self.again is None:
            return ()
        if not self.again:
            self.due.remember()
            return ()
        return self.due.buy(self.again, self._began)

    def _began(self, progress: Progress) -> None:
        self.progress = progress
        self._begun.append(progress)

    def _step(self, job: Job) -> Step:
        """What a job lacks."""
        if refused := self._refusal(job):
            return Step(job, error=_untried(job.name, refused))
        try:
            return self._asked(job)
        except StoreError:
            raise
        except HdiError as error:
            self._noted(error)
            return Step(job, error=error)

    def _asked(self, job: Job) -> Step:
        start = parse_instant(job.start_date)[0]
        # A window for its words alone: whatever is wrong with them is told before the vendor is asked.
        buying = self._buy(job, iso_ns(start + 1))
        dataset, name = buying.request.dataset, buying.request.name.name
        if dataset not in self._ends:
            self._ends[dataset] = self._source.available(dataset)
        limit = self._ends[dataset].get(name)
        if limit is None:
            raise RequestError(f"{dataset} has no {name}", closest(name, self._ends[dataset]))
        end = floor_end(limit.end, buying.request)
        if end <= start:
            return Step(job, through=0)
        buying = self._buy(job, iso_ns(end))
        offer = buying.offer()
        return _standing(Step(job, buying, offer, through=end), end, _bought_odd(offer))

    def _noted(self, error: HdiError) -> None:
        """Remember an error after which nothing more is to be ordered, or nothing more of a dataset."""
        if isinstance(error, AccountRefused):
            self._refused.setdefault(error.dataset, error)

    def _refusal(self, job: Job) -> AccountRefused | None:
        return self._refused.get("") or self._refused.get(job.dataset)


def _standing(step: Step, end: int, more: Iterable[Condition] = ()) -> Step:
    """A step with the days of it that are not whole, as the store is now, and ``more``; ``end`` is all there is."""
    if step.buying is None:
        return step
    held = not_whole(step.buying.store, step.buying.request)
    odd = tuple(sorted({(c.day, c.condition) for c in (*held, *more)}))
    first = pending(days := tuple(Condition(day, word, None) for day, word in odd))
    return replace(step, through=end if first is None else min(end, date_ns(first)), odd=days)


def _bought_odd(offer: Offer) -> Iterator[Condition]:
    """The days of what is to be bought that the vendor does not call available."""
    for each in offer.known.conditions if offer.known else ():
        day = Window(date_ns(each.day), date_ns(each.day) + DAY_NS)
        if each.condition != "available" and any(day.cut(purchase.window) for purchase in offer.purchases):
            yield each


def _untried(name: str, why: AccountRefused) -> AccountRefused:
    return AccountRefused(f"{name}: not asked for: {why.message}", why.hint, why.dataset)


def schemas_of(steps: Iterable[Step]) -> tuple[tuple[str, str], ...]:
    """(dataset, stored kind of data) of jobs, each once."""
    requests = [step.buying.request for step in steps if step.buying is not None]
    return tuple(dict.fromkeys((request.dataset, request.name.name) for request in requests))


def described(step: Step) -> str:
    """A job's request in a few words."""
    job = step.job
    return f"{job.dataset} {job.schema} {some(job.symbols, ',')}"


__all__ = ["REVISIONS", "Result", "Step", "Sync", "chosen", "described", "schemas_of"]

"""Buying: what a request lacks is ordered, kept, refined and committed, and nothing is bought twice.

Before the first billed call the store's claim and the data folder's locks on the window are taken, and coverage is
looked at again inside them. Downloads run ahead of refining in a few threads; each of them becomes one commit.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from decimal import Decimal
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from hdi import raw
from hdi.attempt import Options, Task, commit_units, heard, noted
from hdi.buying import batches, paid
from hdi.buying.batching import Batching, batched, unbooked
from hdi.buying.deriving import Deriver
from hdi.buying.downloads import Downloads, Lot, Progress, Terms, miscounted, what
from hdi.buying.offer import Offer, Shopper
from hdi.buying.ordering import Claim, Held, Request, cut
from hdi.buying.outlook import Outlook, outlook
from hdi.buying.paid import Slip
from hdi.buying.spending import CLAIM, Limits, spending
from hdi.errors import BrokenDelivery, CorruptFile, HdiError, OverBudget, RequestError, StoreError, UnitFailed
from hdi.frames import COVERAGE, MAPPINGS, REJECTS
from hdi.journal import entries, took
from hdi.mapping import VendorMapping
from hdi.model import MONEY, Order, Outcome, Receipt, Unit, Window, dollars_text, iso_ns
from hdi.pipeline import Run, check_refining, claim_keys, export_rejects, warm
from hdi.plan import Plan, plan_claims, plan_file, plan_order
from hdi.refine import Refinery
from hdi.schema import Schemas
from hdi.sources import Source
from hdi.sources.dbn import Reader
from hdi.sources.records import columns
from hdi.stores import Store, Work, check_origin
from hdi.symbology import ALL_SYMBOLS

if TYPE_CHECKING:
    from hdi.calendars import Calendars


class Buying:
    """One request on its way into the store: :meth:`offer`, then :meth:`run`."""

    def __init__(  # noqa: PLR0913, PLR0917  (where from, where to, and how)
        self, store: Store, schemas: Schemas, mapping: VendorMapping, source: Source, request: Request,
        options: Options, terms: Terms, calendars: Calendars | None = None,
        names: Callable[[], Iterable[str]] = tuple,
    ) -> None:  # fmt: skip
        self.store = store
        self.source = source
        self.request = request
        self.terms = terms
        self.options = replace(options, origin=source.origin, keep=False)
        self.schema, self.name = schemas.find(request.name.name)
        self._schemas = schemas
        self._mapping = mapping
        self._calendars = calendars
        self._deriver = self._derives() if options.derive else None
        self._shopper = Shopper(
            store, source, options.data_dir, request, refetch=options.refetch, min_split=terms.min_split,
            calendars=calendars, deriver=self._deriver, resumes=options.resumes, names=names,
        )  # fmt: skip

    def offer(self, after: Sequence[Offer] = ()) -> Offer:
        """What is missing and what it costs, ``after`` others were bought; nothing is billed.

        Raises as :meth:`Shopper.offer` does.
        """
        check_origin(self.store, self.source.origin)
        lost: tuple[str, ...] = ()
        if not self.options.dry_run:
            warm()
            lost = tuple(_lost(s) for s in paid.recover(self.options.data_dir) if s.arrived < 0)
        offer = self._shopper.offer(after=after)
        return replace(offer, notes=(*lost, *offer.notes)) if lost else offer

    def run(self, offer: Offer) -> tuple[Progress, Generator[Outcome]]:
        """Do it. The outcomes come as each download is committed; the progress is live.

        Raises RequestError, before anything is billed, for an offer over the budget or over what may be spent.
        """
        self._affordable(offer)
        check_refining(self._schemas, self._mapping)
        progress = Progress(offer)
        return progress, self._run(offer, progress)

    def outlook(self, offer: Offer) -> Outlook:
        """What the offer means: days, what is left out and why, disk and minutes, other ways.

        Of closed days on which the vendor says that it has data its count is asked for, which is free.
        """
        deriver = self._deriver or self._derives()
        batches = batched(self.source, self.terms, offer)
        return outlook(
            offer, self.store, self.schema, held=self._shopper.held(offer.request), calendars=self._calendars,
            deriver=deriver, batches=batches, count=self.source.count,
            seconds=took(entries(self.options.data_dir)), refused=self._refused(offer),
        )  # fmt: skip

    def _derives(self) -> Deriver:
        return Deriver(
            self.store, self._schemas, self._mapping, self.request.dataset, self.name.name, self.options.data_dir
        )

    def _refused(self, offer: Offer) -> str:
        """Why the offer could not be bought as things stand; "" when it could."""
        try:
            self._affordable(offer)
        except RequestError as error:
            return error.message
        return ""

    def _affordable(self, offer: Offer) -> None:
        budget = self.terms.budget
        if budget is not None and offer.quote.dollars > budget:
            raise OverBudget(
                f"this costs {dollars_text(offer.quote.dollars)}, and the budget is {dollars_text(budget)}",
                "Ask for less, or raise --budget. Nothing of it was bought.",
            )
        self.refuse_over_limits(offer.quote.dollars)

    def refuse_over_limits(self, dollars: Decimal) -> None:
        """RequestError when so much more is over what may be spent in a day or a month."""
        if limits := self.terms.limits:
            limits.check(dollars, self._spent())

    def _spent(self) -> pl.DataFrame:
        """What was spent of late."""
        return spending(self.store.ledger(), self.options.data_dir, self.source.origin, Limits.since())

    def _most(self) -> Terms:
        """The terms with what is left to spend as the budget, where that is less."""
        left = self.terms.limits.left(self._spent()) if self.terms.limits else None
        budgets = [b for b in (left, self.terms.budget) if b is not None]
        return replace(self.terms, budget=min(budgets, default=None))

    def _run(self, offer: Offer, progress: Progress) -> Generator[Outcome]:
        if not offer.units:
            with Run(self.store, self.options) as run:  # which mends what a process that died left behind
                jobs = unbooked(self.source, self.store, self.options, self.request, self.schema, run.id)
                for outcome in jobs:
                    run.add(outcome)
                    yield outcome
                batches.tidy(self.options.data_dir, self.store.ledger)
                return
        keys = self._keys(offer)
        if self.terms.limits and offer.quote.dollars:
            keys.append(CLAIM)
        if self._deriver is not None:
            keys += self._deriver.keys(offer.request.window)
        with (
            self.store.claim(keys),
            paid.claim(self.options.data_dir, keys),
            Run(self.store, self.options) as run,
        ):
            progress.waiting = False
            paid.recover(self.options.data_dir)
            now = self._shopper.offer(offer)
            self._affordable(now)
            if now.quote.dollars > offer.quote.dollars:
                raise RequestError(
                    f"what is missing has changed meanwhile, and costs {dollars_text(now.quote.dollars)} now",
                    "Run the same command again. Nothing of it was bought.",
                )
            if not set(self._keys(now)) <= {*keys}:
                raise RequestError(
                    "a batch job was ordered meanwhile that brings more than this window",
                    "Run the same command again: it takes its files. Nothing of it was bought.",
                )
            progress.offer = now
            progress.jobs += [job.id for job in now.coming]
            run.offered(now.units, now.quote)
            for outcome in self._outcomes(now, progress, run.id):
                progress.add(outcome)
                run.add(outcome)
                yield outcome
            export_rejects(self.store, self.options.dlq_dir)

    def _keys(self, offer: Offer) -> list[str]:
        """What to claim: the window, and what the files of batch jobs bring beside it."""
        spans = (offer.request.window, *(job.window for job in offer.coming))
        return list(dict.fromkeys(k for s in spans for k in claim_keys(offer.request.dataset, self.name, s)))

    def _outcomes(self, offer: Offer, progress: Progress, run: str) -> Iterator[Outcome]:
        if self._deriver is not None and (known := offer.known) is not None:
            yield from self._deriver.run(
                offer.derived, run, self.options, known.names, known.conditions, known.seen_at
            )  # fmt: skip
        for rest in offer.paid:
            yield self._guarded(lambda rest=rest: self._refined(rest.slip, run, rest.parts), rest.slip.order)
        terms = self._most()
        batching = Batching(
            self.source, self.store, self.options, terms, offer, self.schema, self.name, run, self._failed
        )
        yield from batching.ordered()
        downloads = Downloads(self.source, self.options.data_dir, terms, offer, progress, batching.purchases)
        with contextlib.closing(downloads.run(batching.ready())) as deliveries:
            for lot, future in deliveries:
                yield self._settled(offer, lot, future, run)
        yield from batching.left()
        if offer.claims:
            yield from self._claimed(offer, run, waiting=bool(batching.waiting))

    def _settled(self, offer: Offer, lot: Lot, future: Future[tuple[Lot, Slip | None]], run: str) -> Outcome:
        """What became of a lot."""
        began, planned = time.monotonic(), lot.window
        try:
            lot, slip = future.result()
        except StoreError:
            raise
        except HdiError as error:
            return self._failed(self._order(lot), lot, error, run)
        if slip is None:
            outcome = self._guarded(lambda: self._empty(offer, lot, self._order(lot), run), self._order(lot))
        else:
            outcome = self._guarded(lambda: self._refined(slip, run), slip.order)
            outcome = replace(outcome, dollars=Decimal(0) if slip.batch else slip.dollars)
        if lot.window != planned:
            cut_off = f"available up to {iso_ns(lot.window.end)}: the rest stays open"
            outcome = replace(outcome, note="; ".join(filter(None, (outcome.note, cut_off))))
        if lot.note and slip is not None:
            outcome = replace(outcome, note="; ".join(filter(None, (outcome.note, lot.note))))
        return replace(outcome, seconds=time.monotonic() - began)

    def _order(self, lot: Lot) -> Order:
        """What a lot asks for; its symbols stand for nothing in its window when there is nothing to order."""
        return lot.order or Order(
            self.request.dataset, self.name.name, lot.purchase.stype, lot.purchase.symbols, lot.window
        )

    def _guarded(self, work: Any, order: Order) -> Outcome:
        """Do it, and turn whatever goes wrong with this order into its outcome."""
        try:
            outcome: Outcome = work()
        except StoreError:
            raise
        except HdiError as error:
            return self._outcome("failed", order, error=error)
        return outcome

    def _outcome(self, status: Any, order: Order, **rest: Any) -> Outcome:
        return Outcome(
            path=rest.pop("path", ""), status=status, dataset=order.dataset, schema=order.schema,
            symbols=order.symbols, window=order.window, **rest,
        )  # fmt: skip

    @cached_property
    def _refinery(self) -> Refinery:
        return Refinery(self.schema, self.name, self._mapping, columns(self.name.name), self.request.dataset)

    def _refined(self, slip: Slip, run: str, parts: frozenset[tuple[str, Window]] | None = None) -> Outcome:
        """Refine and commit what was bought: all of it now, or ``parts`` of what an earlier run did not commit."""
        bought = parts is None
        if slip.raw is None:
            raise UnitFailed(f"{what(slip.order)}: its bytes are gone", "Run the same command again.")
        if slip.arrived != slip.records and not bought and not self._counts(slip):
            raise miscounted(slip)
        began, path = time.monotonic(), Path(slip.raw.path)
        if not bought and raw.file_digest(path) != slip.raw.digest:
            raise CorruptFile(
                f"{path}: its bytes are not those that were bought",
                "Put them back from a copy, or remove the file to have it ordered again. Nothing of it was stored.",
            )
        with Reader(path) as reader:
            header = reader.header
        lost = slip.lost
        plan = self._plan(slip, header)
        left = [u for u in plan.units if parts is None or not u.symbol or (u.symbol, u.window) in parts]
        paid_for = self.store.ledger().filter(paid.of(slip), pl.col("dollars") > 0).height
        price = slip.dollars / slip.arrived if slip.arrived and (bought or not paid_for) else None
        if slip.batch and self._ordered(slip.batch):
            price = None
        task = Task(
            self.store, self._mapping, path, self.options, run, header, price=price, conditions=slip.conditions,
            seen_at=slip.seen_at, digest=slip.raw.digest, batch=slip.batch, since=paid.since(slip),
        )  # fmt: skip
        error: HdiError | None
        receipts, error = commit_units(task, self.schema, plan, self._refinery, left)
        if error is None and lost:
            error = UnitFailed(
                f"the vendor did not resolve {', '.join(lost)} in {slip.order.window}",
                "What it did resolve is stored. Run the same command again for the rest.",
            )
        notes = [] if bought else ["bought by an earlier run"]
        if slip.wasted:
            notes.append(f"the stream broke, and {slip.wasted} bytes were billed in vain")
        if header.partial:
            notes.append(f"resolved on some of the days only: {', '.join(header.partial)}")
        return self._outcome(
            "failed" if error else "stored", slip.order, path=str(path), receipts=tuple(receipts), error=error,
            units=len(receipts), size=slip.raw.size, note="; ".join(notes), seconds=time.monotonic() - began,
            dollars=None if bought else Decimal(0),
        )  # fmt: skip

    def _counts(self, slip: Slip) -> bool:
        """Whether the vendor counts as many records as arrived, or says so of all files of the batch job together."""
        whole = batches.adds_up(self.source, self.options.data_dir, slip)
        return whole or self.source.count(slip.order) == slip.arrived

    def _ordered(self, batch: str) -> bool:
        """Whether the ledger has the order of a batch job, and what it cost."""
        return bool(self.store.ledger().filter(pl.col("batch") == batch, pl.col("status") == "ordered").height)

    def _plan(self, slip: Slip, header: Any) -> Plan:
        if slip.asked == (ALL_SYMBOLS,):
            return plan_file(paid.described(slip, header), self.name, self.source.origin, "")
        if not slip.asked:
            raise UnitFailed(f"the vendor resolved none of {', '.join(slip.lost)}", "Run the same command again.")
        resolved = slip.resolved.filter(pl.col("asked").is_in(slip.asked))
        return plan_order(self.source.origin, slip.order, slip.asked, self.name, resolved, slip.names, slip.cells)

    def _empty(self, offer: Offer, lot: Lot, order: Order, run: str) -> Outcome:
        """Commit that the vendor has nothing for a lot."""
        known = offer.known
        if known is None:
            raise UnitFailed(f"{what(order)}: nothing is known of its symbols", "Run the same command again.")
        rectangles = cut(lot.purchase.rectangles, lot.window)
        names = cut(known.names, lot.window).join(rectangles, on="instrument_id", how="semi")
        plan = plan_order(self.source.origin, order, lot.purchase.symbols, self.name, rectangles, names, lot.cells)
        receipts = self._commit_bare(plan, run, noting=offer)
        return self._outcome(
            "stored", order, receipts=tuple(receipts), units=len(receipts), dollars=Decimal(0),
            note="confirmed empty: the vendor has no record for it",
        )  # fmt: skip

    def _claimed(self, offer: Offer, run: str, *, waiting: bool = False) -> Iterator[Outcome]:
        """Commit what was held as something else, or stands for nothing; one commit for each symbol type.

        ``waiting``: what a claim lacks may come with a batch job, and a later run makes it.
        """
        held = Held(self.store.coverage(), offer.request.dataset, self.name.name)
        names = offer.known.names if offer.known else None
        for stype, group in groupby(offer.claims, key=lambda c: c.stype):
            claims = list(group)
            true = [c for c in claims if not any(
                held.instrument_lacks(i, Window(s, e))
                for i, s, e in c.rectangles.select("instrument_id", "start", "end").iter_rows()
            )]  # fmt: skip
            plan = plan_claims(
                self.source.origin, offer.request.dataset, self.name, stype,
                [(c.symbol, c.window) for c in true], [c.rectangles for c in true], names,
            )  # fmt: skip
            symbols = tuple(dict.fromkeys(c.symbol for c in claims))
            order = Order(offer.request.dataset, self.name.name, stype, symbols, offer.request.window)
            receipts = self._commit_bare(plan, run, noting=offer) if plan else []
            broken = sorted({c.symbol for c in claims if c not in true})
            error = UnitFailed(
                f"{', '.join(broken)} lacks what could not be ordered",
                "What an earlier run bought is short: --refetch orders it again." if any(r.short for r in offer.paid)
                else "Run the same command again.",
            ) if broken and not waiting else None  # fmt: skip
            yield self._outcome(
                "failed" if error else "stored", order, receipts=tuple(receipts), units=len(receipts), error=error,
                dollars=Decimal(0), note=_why(claims),
            )  # fmt: skip

    def _commit_bare(self, plan: Plan, run: str, *, noting: Offer) -> list[Receipt]:
        """Commit units without bytes."""
        units = [u for u in plan.units if u.symbol]
        numbers = self.store.reserve([u.id for u in units])
        by_unit = dict(zip(units, numbers, strict=True))
        everything = [by_unit.get(u, 0) for u in plan.units]
        coverage = plan.coverage(everything, [u in by_unit for u in plan.units])
        known = noting.known
        conditions = known.conditions if known else ()
        work = replace(
            self._work(run, dict(zip(numbers, units, strict=True)), coverage, plan.mappings),
            conditions=heard(self.request.dataset, conditions, known.seen_at if known else 0),
        )
        receipts = [
            Receipt(
                u,
                n,
                run,
                "complete",
                0,
                0,
                0,
                dollars=Decimal(0),
                conditions=noted(conditions, u),
                job=self.options.job,
            )
            for u, n in by_unit.items()
        ]
        with self.store.replace(work) as writer:
            return writer.finish(work, receipts)

    def _failed(self, order: Order, lot: Lot, error: HdiError, run: str) -> Outcome:
        """Keep the receipts of a lot that could not be had, and the error beside the rejects."""
        units = [
            Unit(self.source.origin, order.dataset, order.schema, symbol, order.stype, cell)
            for cell in lot.cells
            for symbol in lot.purchase.symbols
        ]
        numbers = self.store.reserve([u.id for u in units])
        receipts = [
            Receipt(
                u, n, run, "failed", 0, 0, 0, error=error.message, exit_code=error.exit_code, job=self.options.job,
                batch=lot.batch or None,
            )
            for u, n in zip(units, numbers, strict=True)
        ]  # fmt: skip
        cost, kept = (error.wasted * lot.byte_price).quantize(MONEY), None
        if isinstance(error, BrokenDelivery):
            cost, kept = error.dollars, error.raw
            receipts = [replace(r, raw=kept) for r in receipts]
        if cost:  # what it cost is somebody's: the first unit's
            receipts[0] = replace(receipts[0], dollars=cost)
        record = json.dumps({"symbols": order.symbols, "stype": order.stype, "start": order.window.start,
                             "end": order.window.end})  # fmt: skip
        rejects = pl.DataFrame(
            [
                {"unit": n, "unit_id": u.id, "row": 0, "run": run, "dataset": u.dataset, "schema": u.schema,
                 "symbol": u.symbol, "error_type": "ApiError", "error_message": str(error), "rules": [],
                 "record": record, "failed": True, "raw_file": kept.path if kept else None}
                for u, n in zip(units, numbers, strict=True)
            ],
            schema=REJECTS,
        )  # fmt: skip
        empty = pl.DataFrame(schema=COVERAGE)
        work = self._work(run, dict(zip(numbers, units, strict=True)), empty, pl.DataFrame(schema=MAPPINGS))
        work = replace(work, since=paid.kept_since(kept) if kept else 0)
        self.store.record(work, receipts, rejects)
        export_rejects(self.store, self.options.dlq_dir)
        return self._outcome(
            "failed",
            order,
            receipts=tuple(receipts),
            error=error,
            units=len(units),
            dollars=cost,
            path=kept.path if kept else "",
            size=kept.size if kept else 0,
        )

    def _work(self, run: str, units: dict[int, Unit], coverage: pl.DataFrame, mappings: pl.DataFrame) -> Work:
        return Work(
            run=run, dataset=self.request.dataset, schema=self.schema, name=self.name, units=units,
            coverage=coverage, mappings=mappings,
        )  # fmt: skip


def _lost(slip: Slip) -> str:
    """What a dead process paid for in vain."""
    return (
        f"a process that ended broke off {what(slip.order)}: the vendor billed at least {dollars_text(slip.dollars)} "
        "for what it had sent"
    )


def _why(claims: Sequence[Claim]) -> str:
    """Why nothing was ordered for symbols."""
    empty = [c for c in claims if c.rectangles.is_empty()]
    if len(empty) == len(claims):
        return "confirmed empty: standing for nothing there"
    some = ", some of it standing for nothing there" if empty else ""
    return f"no order of its own: its contracts are stored under other names{some}"


__all__ = ["Buying"]

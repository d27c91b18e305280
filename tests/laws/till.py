"""Buying without bytes: the rehearsal vendor asked in this process, and a store that keeps nothing but books.

What is asked goes through the vendor's own reading of requests and into its own books; what is ordered, what it covers
and its receipts are made by the code that buys for real. Only the records are not made: the vendor counts them.
"""

import contextlib
import datetime as dt
from decimal import Decimal
from functools import cache
from pathlib import Path

import polars as pl

from hdi.attempt import Options
from hdi.buying.buying import Buying
from hdi.buying.downloads import Downloads, Progress, Terms
from hdi.errors import NothingResolved
from hdi.frames import COVERAGE, MAPPINGS, NAMED, RESOLVED
from hdi.model import Condition, Header, Quote, Window, date_ns, ns_date
from hdi.plan import plan_file
from hdi.rehearsal.body import record_size
from hdi.rehearsal.books import Books
from hdi.rehearsal.faults import Call, Faults
from hdi.rehearsal.refusals import Refusal
from hdi.rehearsal.service import Service
from hdi.stores.receipts import judged, ledger_frame, ledger_row, moment
from hdi.symbology import ALL_SYMBOLS
from hdi.testing.material import schemas
from lakes import MAPPING

NOWHERE = Path("/nowhere")
UNTIL = dt.date(2024, 7, 1)
SCALE = 0.02


def days(window):
    """First day and the day after the last, as the vendor's symbology takes them."""
    return ns_date(window.start), ns_date(window.end - 1) + dt.timedelta(days=1)


class Till:
    """A source over the vendor's service, without HTTP, client and records."""

    origin = "synthetic"

    def __init__(self):
        self.books = Books()
        self.service = Service(0, SCALE, 0, UNTIL, faults=Faults(), books=self.books)
        # The answers of one market never change.
        self._answer = cache(self._answers)
        counted = cache(self.service.market.count)
        self.service.count = lambda r: counted(r.dataset, r.schema, r.selection, r.start, r.end)

    def _answers(self, method, fields):
        try:
            return self.service.answer(Call(method, dict(fields))).document
        except Refusal as refusal:
            if refusal.case == "symbology_invalid_request":
                raise NothingResolved(str(refusal)) from refusal
            raise

    def ask(self, method, **fields):
        """What the vendor answers."""
        return self._answer(method, tuple(fields.items()))

    def available(self, dataset):
        bounds = self.ask("metadata.get_dataset_range", dataset=dataset)["schema"]
        end = date_ns(UNTIL)
        return {name: Window(date_ns(dt.date.fromisoformat(span["start"][:10])), end) for name, span in bounds.items()}

    def _resolve(self, dataset, symbols, stype_in, stype_out, window):
        first, last = days(window)
        answer = self.ask(
            "symbology.resolve", dataset=dataset, symbols=",".join(symbols), stype_in=stype_in, stype_out=stype_out,
            start_date=str(first), end_date=str(last),
        )  # fmt: skip
        for key, intervals in answer["result"].items():
            for i in intervals:
                d0, d1 = (date_ns(dt.date.fromisoformat(i[n])) for n in ("d0", "d1"))
                yield key, i["s"], d0, d1

    def resolve(self, dataset, symbols, stype, window):
        rows = []
        for asked in [[s] for s in symbols] if stype == "parent" else [list(symbols)]:
            for key, value, start, end in self._resolve(dataset, asked, stype, "instrument_id", window):
                rows.append((asked[0] if stype == "parent" else key, int(value), start, end))
        return pl.DataFrame(rows, schema=RESOLVED, orient="row").unique().sort("asked", "start", "instrument_id", "end")

    def raw_symbols(self, dataset, instruments, window):
        found = self._resolve(dataset, list(map(str, instruments)), "instrument_id", "raw_symbol", window)
        rows = [(int(key), start, end, value) for key, value, start, end in found]
        return pl.DataFrame(rows, schema=NAMED, orient="row")

    def everything(self, dataset, window):
        found = self._resolve(dataset, [ALL_SYMBOLS], "raw_symbol", "instrument_id", window)
        return pl.DataFrame([(int(v), s, e, k) for k, v, s, e in found], schema=NAMED, orient="row")

    def conditions(self, dataset, window):
        first, last = days(window)
        last -= dt.timedelta(days=1)
        answer = self.ask("metadata.get_dataset_condition", dataset=dataset, start_date=str(first), end_date=str(last))
        return [
            Condition(dt.date.fromisoformat(c["date"]), c["condition"], dt.date.fromisoformat(c["last_modified_date"]))
            for c in answer
        ]

    @staticmethod
    def fields(order):
        return {
            "dataset": order.dataset, "schema": order.schema, "stype_in": order.stype,
            "symbols": ",".join(order.symbols), "start": str(order.window.start), "end": str(order.window.end),
        }  # fmt: skip

    def quote(self, order):
        fields = self.fields(order)
        records, size, dollars = (
            self.ask(f"metadata.{name}", **fields) for name in ("get_record_count", "get_billable_size", "get_cost")
        )
        return Quote(records, size, Decimal(str(dollars)))

    def count(self, order):
        return self.ask("metadata.get_record_count", **self.fields(order))

    def sell(self, order):
        """Bill an order as its stream would be, sent to its end; the header that the stream would have."""
        stream = self.service.answer(Call("timeseries.get_range", self.fields(order)))
        request = stream.request
        self.books.bill(stream._entry(self.service.count(request) * record_size(order.schema), finished=True))
        mappings = tuple(
            (key, date_ns(first), date_ns(last), text)
            for key, intervals in request.resolution.result.items() for first, last, text in intervals
        )  # fmt: skip
        return Header(
            NOWHERE, 3, order.dataset, order.schema, order.stype, "instrument_id", order.symbols, request.start,
            request.end, None, mappings, tuple(request.resolution.not_found), tuple(request.resolution.partial),
            joined=True,
        )  # fmt: skip


class Ledgers:
    """A store of books: receipts, coverage and mappings, made and kept as every store makes them."""

    url = "books"

    def __init__(self):
        self._numbers = {}
        self._rows, self._coverage, self._mappings = (
            [],
            [pl.DataFrame(schema=COVERAGE)],
            [pl.DataFrame(schema=MAPPINGS)],
        )
        self.conditions_kept = []

    def reserve(self, unit_ids):
        return [self._numbers.setdefault(unit, len(self._numbers) + 1) for unit in unit_ids]

    @contextlib.contextmanager
    def replace(self, work):
        del work
        yield self

    def finish(self, work, receipts):
        kept = [judged(r, 0, 0, 0, 0, moment(None, work.since)) for r in receipts]
        self._rows += [ledger_row(r, work.schema.table) for r in kept]
        self._coverage.append(work.coverage)
        self._mappings.append(work.mappings)
        self.conditions_kept.append(work.conditions)
        return kept

    def ledger(self):
        return ledger_frame(self._rows)

    def coverage(self):
        self._coverage = [pl.concat(self._coverage)]
        return self._coverage[0]

    def mappings(self):
        self._mappings = [pl.concat(self._mappings)]
        return self._mappings[0]


def buy(till, store, request, *, refetch=False, min_split=Decimal(0), calendars=None):
    """Offer, order, cover and claim what a request lacks; the offer."""
    options = Options(data_dir=NOWHERE, dlq_dir=NOWHERE, refetch=refetch)
    terms = Terms(download_records=10**9, min_split=min_split)
    buying = Buying(store, schemas(), MAPPING, till, request, options, terms, calendars)
    offer = buying._shopper.offer()
    downloads = Downloads(till, NOWHERE, terms, offer, Progress(offer))
    for lot in downloads.lots():
        if lot.order is None or not lot.records:
            buying._empty(offer, lot, buying._order(lot), "run")
        elif lot.order.symbols == (ALL_SYMBOLS,):
            plan = plan_file(till.sell(lot.order), buying.name, till.origin, "")
            buying._commit_bare(plan, "run", noting=offer)
        else:
            till.sell(lot.order)
            buying._empty(offer, lot, lot.order, "run")
    list(buying._claimed(offer, "run"))
    return offer

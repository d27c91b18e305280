"""What can be asked of a store beside rows: what is held, missing, was changed, was paid, and what ran."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from hdi.api.opened import between, text
from hdi.api.reading import Reading
from hdi.errors import masked
from hdi.model import DAY_NS, MAX_NS, Window, parse_instant

if TYPE_CHECKING:
    import polars as pl

    from hdi.answer import Answer
    from hdi.buying.spending import Spent
    from hdi.catalog import Catalog
    from hdi.covered.lines import Coverage
    from hdi.gaps import Report
    from hdi.runs import RunDetail, RunRecord
    from hdi.stores import Store


class Asking(Reading):
    """Reads the books of a store; nothing is asked of a vendor, and nothing is written."""

    def _then(self, as_of: str | dt.date | None) -> tuple[Store, int, list[str]]:
        """The store to read from, what time it is there, and what is not known of it any more."""
        from hdi.then import Then

        store = self.at(as_of)
        return (store, store.ns, store.notes) if isinstance(store, Then) else (store, time.time_ns(), [])

    def catalog(
        self, on: str | dt.date | None = None, dataset: str | None = None, *, as_of: str | dt.date | None = None
    ) -> Catalog:
        """What is stored by symbol, of all times or of one UTC day; ``as_of``: as it was known then.

        Raises RequestError for what is not a date.
        """
        from hdi.catalog import Catalog, loose, told

        store = self.at(as_of)
        day = None if on is None else parse_instant(text(on))[0] // DAY_NS * DAY_NS
        schema, name = self.schemas.find("definition")
        columns = ["dataset", "instrument_id", "raw_symbol", "asset", "instrument_class", "exchange"]
        said = told(store.read(schema, name.name, Window(0, MAX_NS), None, columns, dataset))
        brought = loose(store, self.schemas, dataset)
        return Catalog(store.mappings(), store.coverage(), store.ledger(), said, day, dataset, brought)

    def symbols(
        self,
        pattern: str = "",
        *,
        on: str | dt.date | None = None,
        dataset: str | None = None,
        as_of: str | dt.date | None = None,
    ) -> Answer:
        """What is stored, by symbol: :data:`hdi.catalog.LISTED`, of all times or of one UTC day (``on``).

        A pattern is a symbol, a root (``ES``), a parent (its children), a group (``@ENERGY``), or has ``*``, ``?`` or
        ``[``. Raises UnknownSymbol, with the closest names, where nothing is stored of it.
        """
        from hdi.answer import Rows
        from hdi.model import some
        from hdi.symbol_groups import MARK

        catalog = self.catalog(on, dataset, as_of=as_of)
        if not pattern.startswith(MARK):
            return Rows(catalog.listed(pattern))
        found, absent = catalog.members(self.symbols_of(pattern))
        return Rows(found, [f"nothing is stored of {some(absent)}"] if absent else ())

    def coverage(
        self,
        symbols: str | Sequence[str] = (),
        start: str | dt.date | None = None,
        end: str | dt.date | None = None,
        *,
        schema: str | None = None,
        dataset: str | None = None,
        as_of: str | dt.date | None = None,
    ) -> Coverage:
        """What is held of these symbols (none or ``ALL_SYMBOLS``: of all that was asked for), month by month.

        A date as ``end`` means through that UTC day; without dates, from the first month with anything to the last.
        ``as_of``: as it was known then. As an answer its rows are months of symbols (:data:`hdi.covered.lines.HELD`).
        Raises RequestError for an unknown schema or dataset, UnknownSymbol for a symbol that was never stored and is
        asked for by itself: of a group it is ``absent``.
        """
        from hdi.covered import measure
        from hdi.symbol_groups import named

        start, end = start or None, end or None
        window = between(start, end)
        asked = self.symbols_of(symbols)
        members = set(asked) - named((symbols,) if isinstance(symbols, str) else symbols)
        store, now, _ = self._then(as_of)
        return measure(
            store, self.schemas, self.calendars, asked, members=members, schema=schema, dataset=dataset,
            start=None if start is None else window.start, end=None if end is None else window.end, now=now,
        )  # fmt: skip

    def gaps(  # noqa: PLR0913  (each narrows what is looked at)
        self,
        symbols: str | Sequence[str] = (),
        start: str | dt.date | None = None,
        end: str | dt.date | None = None,
        *,
        schema: str | Sequence[str] = (),
        dataset: str | None = None,
        closed: bool = False,
        as_of: str | dt.date | None = None,
    ) -> Report:
        """Every stretch of what was asked for that has no row, with its cause; nothing is asked of a vendor.

        Both dates say what should be there; without, or with one of them, each symbol is looked at no further than from
        the first to the last instant that was asked for. A date as ``end`` means through that UTC day. ``closed`` adds
        the times at which the market is closed. ``as_of``: what was missing by then, as it was known then. Raises
        RequestError, UnknownSymbol for what was never asked for.
        """
        from dataclasses import replace

        from hdi.gaps import Wanted, find

        schemas = (schema,) if isinstance(schema, str) else tuple(schema)
        window = between(start, end)
        first, last = None if start is None else window.start, None if end is None else window.end
        wanted = Wanted(schemas, self.symbols_of(symbols), dataset, first, last, closed)
        store, now, notes = self._then(as_of)
        report = find(store, self.schemas, self.calendars, wanted, now, self.settings.data_dir)
        return replace(report, doubts=(*report.doubts, *notes)) if notes else report

    def revisions(  # noqa: PLR0913  (each narrows what is looked at)
        self,
        *,
        schema: str | None = None,
        symbols: str | Sequence[str] = (),
        dataset: str | None = None,
        start: str | dt.date | None = None,
        end: str | dt.date | None = None,
        since: str | None = None,
        as_of: str | dt.date | None = None,
    ) -> Iterator[pl.DataFrame]:
        """Which stored rows were changed after the fact, before and after: :data:`hdi.keeping.revisions.REVISIONS`.

        ``since`` is a run (the beginning of its name is enough) or a date: what was replaced then or later.
        ``as_of`` leaves out what was replaced after. Raises RequestError and UnknownSymbol for what nobody knows.
        """
        from hdi.keeping.revisions import Asked, Revisions

        window = between(start or None, end or None)
        asked = Asked(schema, self.symbols_of(symbols) if symbols else (), window, dataset, since)
        return Revisions(self.at(as_of), self.schemas, asked).frames()

    def spent(self, by: str = "day", start: str | dt.date | None = None, end: str | dt.date | None = None) -> Spent:
        """What was paid for the data of this store and data folder, by day, month, dataset, schema, job or symbol.

        Without dates of all times; a date as ``end`` means through that UTC day. Raises RequestError for what it
        cannot be shown by, and for what is not a date.
        """
        from dataclasses import replace

        from hdi.buying import paid
        from hdi.buying.batches import lost
        from hdi.buying.spending import spending, summed

        window = between(start, end)
        paid.recover(self.settings.data_dir)  # what a process that died was billed
        ledger = self.store().ledger()
        origin = ledger["origin"][0] if ledger.height else self.source().origin
        found = summed(spending(ledger, self.settings.data_dir, origin), by, window, origin)
        return replace(found, lost=tuple(lost(self.settings.data_dir, origin)))

    def runs(self, on_bad: Callable[[str], None] | None = None) -> list[RunRecord]:
        """The runs of this store, oldest first: by the journals of the data folder, and by the ledger.

        ``on_bad`` is told of each journal that cannot be read; without it the log is.
        """
        from hdi.journal import entries, warned
        from hdi.runs import records

        store = self.store()
        journals = list(entries(self.settings.data_dir, on_bad or warned))
        return records(journals, store.ledger(), store.identity(), masked(store.url))

    def run(self, name: str, on_bad: Callable[[str], None] | None = None) -> RunDetail:
        """One run with its receipts; the beginning of its name is enough. RequestError, with the closest, for none."""
        from hdi.runs import detail

        return detail(self.runs(on_bad), name, self.store().ledger())

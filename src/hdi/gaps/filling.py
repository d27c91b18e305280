"""Filling gaps: those that can be filled as orders, each for exactly its symbols and stretch of time.

What nobody ever asked for, or what failed, is bought; what was stored and is gone is refined again from the bytes that
are kept, and bought again only where there are none; what the vendor did not have is bought again once it has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from hdi.buying.offer import Offer
from hdi.buying.ordering import WIDTH, parse_request
from hdi.buying.paid import Slip, slips
from hdi.buying.reuse import Rest
from hdi.buying.spending import Limits, spending
from hdi.errors import RequestError
from hdi.gaps.causes import AGAIN, BUY, CHANGED, REFINE
from hdi.model import Condition, Outcome, Quote, Window, date_ns, dollars_text, iso_ns, ns_date
from hdi.symbology import ALL_SYMBOLS

if TYPE_CHECKING:
    from hdi.buying.buying import Buying
    from hdi.schema import Schemas
    from hdi.sources import Source
    from hdi.stores import Store

#: Makes the order of some symbols: what ``HistoricalData.buying`` does.
Order = Callable[..., "Buying"]
_NOTHING = Quote(0, 0, Decimal(0))
_KEY = ("dataset", "schema", "stype", "start", "end")


@dataclass(frozen=True)
class Filling:
    """What would fill gaps. ``orders`` belong to ``offers``; ``files`` are read again as they lie there.

    ``gaps`` are those that are filled (:data:`hdi.gaps.causes.GAPS`).
    """

    gaps: pl.DataFrame = field(repr=False)
    orders: tuple[Buying, ...] = ()
    offers: tuple[Offer, ...] = ()
    files: tuple[Path, ...] = ()
    budget: Decimal | None = None

    @property
    def quote(self) -> Quote:
        """Records, bytes and dollars of all of it."""
        return sum((offer.quote for offer in self.offers), _NOTHING)

    def __bool__(self) -> bool:
        return bool(self.files) or any(offer.units for offer in self.offers)

    def run(self, ingest: Callable[[Sequence[Path]], Iterator[Outcome]]) -> Generator[Outcome]:
        """Do it; an outcome for each download and file. ``ingest`` reads files again.

        Raises RequestError, before anything is billed, for what is over the budget, or over what may be spent.
        """
        if self.budget is not None and self.quote.dollars > self.budget:
            raise RequestError(
                f"filling the gaps costs {dollars_text(self.quote.dollars)}, and the budget is "
                f"{dollars_text(self.budget)}",
                "Name fewer with --symbols, --schema and dates, or raise --budget. Nothing was bought.",
            )
        self._refuse_over_limits()
        yield from ingest(self.files) if self.files else ()
        for order, offer in zip(self.orders, self.offers, strict=True):
            yield from order.run(offer)[1]

    def _refuse_over_limits(self) -> None:
        """RequestError when all of it together costs more than may still be spent today, or this month."""
        first = next(iter(self.orders), None)
        if first is None or not (limits := first.terms.limits):
            return
        rows = spending(first.store.ledger(), first.options.data_dir, first.source.origin, Limits.since())
        limits.check(self.quote.dollars, rows)


class Filler:
    """Makes a :class:`Filling` of gaps."""

    def __init__(
        self, store: Store, schemas: Schemas, source: Source, data_dir: Path, order: Order, budget: Decimal | None
    ) -> None:
        self._store, self._schemas, self._source = store, schemas, source
        self._data_dir, self._order, self._budget = data_dir, order, budget

    def plan(self, gaps: pl.DataFrame) -> Filling:
        """What fills the gaps that can be filled, and what it costs; nothing is billed. Raises as an offer does."""
        kept = gaps.filter(pl.col("fill") == REFINE)
        stale = self._overtaken(kept)
        changed = self._changed(gaps.filter(pl.col("fill") == CHANGED))
        again = pl.concat([gaps.filter(pl.col("fill") == AGAIN), changed])
        rests, files, without = self._refined(kept.join(stale, on="unit", how="anti"))
        again = pl.concat([again, without, kept.join(stale, on="unit", how="semi")])
        orders, offers = list(rests), [offer for _, offer in rests]
        made = [order for order, _ in orders]
        for part, refetch in ((gaps.filter(pl.col("fill") == BUY), False), (again, True)):
            for order in self._orders(part, refetch=refetch):
                offer = order.offer(after=offers)
                if offer.units:
                    made.append(order)
                    offers.append(offer)
        filled = pl.concat([gaps.filter(pl.col("fill") == BUY), again, kept]).unique(maintain_order=True)
        return Filling(filled, tuple(made), tuple(offers), tuple(files), self._budget)

    def _orders(self, gaps: pl.DataFrame, *, refetch: bool) -> Iterator[Buying]:
        """Symbols of a type that lack the same stretch are ordered together, those that stand for more first."""
        for key, part in gaps.sort(_width(), maintain_order=True).group_by(*_KEY, maintain_order=True):
            dataset, schema, stype, start, end = key
            yield self._order(
                dataset=dataset, schema=schema, stype=stype, symbols=sorted(set(part["symbol"])),
                start=iso_ns(start), end=iso_ns(end), refetch=refetch,
            )  # fmt: skip

    def _changed(self, gaps: pl.DataFrame) -> pl.DataFrame:
        """Gaps of days of which the vendor says something else now; it is asked for free."""
        if gaps.is_empty():
            return gaps
        known = self._store.conditions().sort("seen_at").unique(["dataset", "day"], keep="last")
        frames = [gaps.clear()]
        for (dataset,), part in gaps.group_by("dataset"):
            span = Window(int(part["start"].min()), int(part["end"].max()))  # type: ignore[arg-type]
            before = {ns_date(day): (said, at) for day, said, at in known.filter(pl.col("dataset") == dataset).select(
                "day", "condition", "last_modified").iter_rows()}  # fmt: skip
            days = [c.day for c in self._source.conditions(str(dataset), span) if _better(c, before.get(c.day))]
            day = pl.col("start").cast(pl.Datetime("ns", "UTC")).dt.date()
            last = (pl.col("end") - 1).cast(pl.Datetime("ns", "UTC")).dt.date()
            mine = [part.filter(day <= each, last >= each) for each in days]
            frames += [frame.select(gaps.columns) for frame in mine]
        return pl.concat(frames).unique(maintain_order=True)

    def _overtaken(self, kept: pl.DataFrame) -> pl.DataFrame:
        """Units of which a later commit has replaced something: their bytes would bring back what is old."""
        coverage = self._store.coverage().drop_nulls("instrument_id").with_row_index("at")
        mine = coverage.join(kept.select("unit").unique(), on="unit", how="semi")
        later = mine.join(coverage, on=["dataset", "schema", "instrument_id"], suffix="_later").filter(
            pl.col("at_later") > pl.col("at"), pl.col("unit_later") != pl.col("unit"),
            pl.col("start_later") < pl.col("end"), pl.col("end_later") > pl.col("start"),
        )  # fmt: skip
        return later.select("unit").unique()

    def _refined(self, kept: pl.DataFrame) -> tuple[list[tuple[Buying, Offer]], list[Path], pl.DataFrame]:
        """Offers of bytes that were bought, files that were ingested, and the gaps of bytes that are gone."""
        books = self._store.ledger().filter(pl.col("status") == "complete").unique("unit", keep="last")
        units = books.join(kept.select("unit").unique(), on="unit", how="semi")
        rests, files, lost = [], [], []
        for (digest, file), part in units.group_by("raw_digest", "raw_file", maintain_order=True):
            first = part.row(0, named=True)
            slip = next((
                s for s in slips(self._data_dir, first["origin"], first["dataset"], first["schema"])
                if s.raw is not None and s.raw.digest == digest
            ), None)  # fmt: skip
            if slip is not None:
                rests.append(self._rest(slip, part))
            elif Path(str(file)).exists():
                files.append(Path(str(file)))
            else:
                lost += part["unit"].to_list()
        return rests, files, kept.filter(pl.col("unit").is_in(lost))

    def _rest(self, slip: Slip, units: pl.DataFrame) -> tuple[Buying, Offer]:
        wanted = units.filter(pl.col("symbol") != "").select("symbol", "start", "end").iter_rows()
        parts = frozenset((symbol, Window(start, end)) for symbol, start, end in wanted)
        order, window = slip.order, slip.order.window
        request = parse_request(
            self._schemas, dataset=order.dataset, schema=order.schema, symbols=slip.asked, window=window,
            stype=order.stype,
        )  # fmt: skip
        buying = self._order(
            dataset=order.dataset, schema=order.schema, stype=order.stype, symbols=slip.asked,
            start=iso_ns(window.start), end=iso_ns(window.end),
        )  # fmt: skip
        return buying, Offer(request, paid=(Rest(slip, parts, slip.resolved),), origin=slip.origin)


def _width() -> pl.Expr:
    """What all symbols or a parent bring need not be ordered again for a contract."""
    everything = pl.col("symbol") == ALL_SYMBOLS
    places = {stype: at for at, stype in enumerate(WIDTH, 1)}
    return pl.when(everything).then(0).otherwise(pl.col("stype").replace_strict(places, default=len(WIDTH) + 1))


def _better(now: Condition, before: tuple[str, int | None] | None) -> bool:
    """True for a day that the vendor has, and of which it says something else than before."""
    if now.condition in ("missing", "pending"):
        return False
    if before is None or before[0] != now.condition:
        return True
    return now.last_modified is not None and (before[1] is None or date_ns(now.last_modified) > before[1])


__all__ = ["Filler", "Filling"]

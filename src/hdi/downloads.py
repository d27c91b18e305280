"""Downloads: purchases cut into lots, brought in by a few threads ahead of whoever refines them, and kept."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import islice
from pathlib import Path

from hdi import paid
from hdi.errors import (
    AccountRefused,
    BrokenDelivery,
    EndUnavailable,
    HdiError,
    NothingResolved,
    TruncatedFile,
    UnitFailed,
)
from hdi.model import MONEY, Header, Order, Outcome, Quote, Window, some
from hdi.offer import Offer, floor_end, quoted
from hdi.ordering import Purchase, cut
from hdi.paid import Delivery, Slip
from hdi.sources import Source

#: A unit of more records than this is made finer, hour by hour.
MOST_RECORDS = 50_000_000
_HOUR_NS = 3_600 * 10**9
#: Units of one commit: receipts are held in memory.
_MOST_UNITS = 10_000


@dataclass(frozen=True)
class Terms:
    """How orders are made: threads that download ahead, and how many records one download should hold."""

    workers: int = 2
    download_records: int = 500_000
    budget: Decimal | None = None


@dataclass(frozen=True)
class Lot:
    """One download: the purchase that it is part of, its cells, and the records expected (None: not counted yet).

    ``price`` is US dollars per record, ``byte_price`` per billed byte.
    """

    purchase: Purchase
    cells: tuple[Window, ...]
    order: Order | None
    records: int | None
    price: Decimal
    byte_price: Decimal

    @property
    def window(self) -> Window:
        """From the first cell's start to the last one's end."""
        return Window(self.cells[0].start, self.cells[-1].end)


@dataclass
class Progress:
    """How far a run has come; read it from another thread while the outcomes are taken.

    ``waiting`` is true until no other process works on the same window.
    """

    offer: Offer
    waiting: bool = True
    units: int = 0
    rows: int = 0
    dollars: Decimal = Decimal(0)
    _size: int = 0
    _active: dict[int, Delivery] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes that have arrived, of what is under way too."""
        return self._size + sum(d.received() for d in list(self._active.values()))

    @contextlib.contextmanager
    def receiving(self, delivery: Delivery) -> Iterator[None]:
        """Count the bytes of a delivery while it arrives."""
        self._active[id(delivery)] = delivery
        try:
            yield
        finally:
            self._size += delivery.received()
            del self._active[id(delivery)]

    def add(self, outcome: Outcome) -> None:
        """Count an outcome."""
        self.units += sum(r.status != "failed" for r in outcome.receipts)
        self.rows += sum(r.fetched for r in outcome.receipts)
        self.dollars += outcome.dollars or 0


class Downloads:
    """What an offer has to bring in. Threads that run ahead end with :meth:`run`'s generator."""

    def __init__(self, source: Source, data_dir: Path, terms: Terms, offer: Offer, progress: Progress) -> None:
        self._source = source
        self._data_dir = data_dir
        self._terms = terms
        self._offer = offer
        self._name = offer.request.name
        self._progress = progress
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._wasted = Decimal(0)
        self._stopped_by: HdiError | None = None

    def run(self) -> Generator[tuple[Lot, Future[tuple[Lot, Slip | None]]]]:
        """Each lot with its finished download, in order; the next ones are on their way meanwhile.

        The download says which part of the lot it is about: less of it, where the vendor has less.
        """
        offer = self._offer
        lots = [lot for p, q in zip(offer.purchases, offer.quotes, strict=True) for lot in self._lots(p, q)]
        coming: deque[tuple[Lot, Future[tuple[Lot, Slip | None]]]] = deque()
        workers = self._terms.workers
        with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="hdi-download") as pool:
            try:
                rest = iter(lots)
                coming += [(lot, pool.submit(self._deliver, lot)) for lot in islice(rest, workers)]
                while coming:
                    lot, future = coming.popleft()
                    future.exception()  # wait for it
                    coming += [(following, pool.submit(self._deliver, following)) for following in islice(rest, 1)]
                    yield lot, future
            finally:
                self._stop.set()
                pool.shutdown(cancel_futures=True)

    def _lots(self, purchase: Purchase, quote: Quote) -> Iterator[Lot]:
        """The downloads of a purchase: as many cells each as make a download of the usual size."""
        request = self._offer.request
        cells = list(purchase.window.cells(self._name.grid))
        each = quote.records / len(cells)
        if each > MOST_RECORDS:
            cells = [fine for cell in cells for fine in _finer(cell, each)]
            each = quote.records / len(cells)
        most = _MOST_UNITS // len(purchase.symbols)
        group = max(1, min(int(self._terms.download_records // max(each, 1)), most, len(cells)))
        price = quote.dollars / quote.records if quote.records else Decimal(0)
        byte_price = quote.dollars / quote.size if quote.size else Decimal(0)
        for at in range(0, len(cells), group):
            chunk = tuple(cells[at : at + group])
            window = Window(chunk[0].start, chunk[-1].end)
            order = purchase.order(request.dataset, self._name.name, window)
            counted = quote.records if window == purchase.window else None
            yield Lot(purchase, chunk, order, counted, price, byte_price)

    def _deliver(self, lot: Lot) -> tuple[Lot, Slip | None]:
        """Download one lot and keep it; no slip when the vendor has no record for it. Runs in a thread."""
        if self._stopped_by is not None or self._stop.is_set():
            why = self._stopped_by.message if self._stopped_by else "the run ended"
            raise UnitFailed(f"{what(lot.order)}: not asked for: {why}", "Mend that, and run the same command again.")
        try:
            try:
                return lot, self._download(lot)
            except EndUnavailable as error:
                lot = self._shortened(lot, error)
                return lot, self._download(lot)
        except AccountRefused as error:
            self._stopped_by = error
            raise

    def _shortened(self, lot: Lot, error: EndUnavailable) -> Lot:
        """The lot up to the end that the vendor's refusal names."""
        end = floor_end(error.available_end, self._offer.request)
        cells = tuple(c for cell in lot.cells if (c := cell.cut(Window(0, max(end, 1)))))
        if not cells or lot.order is None or end >= lot.window.end:
            raise error
        window = Window(cells[0].start, cells[-1].end)
        order = lot.purchase.order(lot.order.dataset, lot.order.schema, window)
        return replace(lot, cells=cells, order=order, records=None)

    def _download(self, lot: Lot) -> Slip | None:
        order = lot.order
        if order is None or self._offer.known is None:
            return None
        records = self._counted(order) if lot.records is None else lot.records
        if not records:
            return None
        rectangles = cut(lot.purchase.rectangles, order.window)
        names = cut(self._offer.known.names, order.window)
        dollars = (lot.price * records).quantize(MONEY)
        slip = Slip(
            self._source.origin, order, lot.purchase.symbols, lot.cells, records, dollars, rectangles,
            names.join(rectangles, on="instrument_id", how="semi"), self._offer.known.conditions,
        )  # fmt: skip
        with Delivery(self._data_dir, slip) as delivery:
            with self._progress.receiving(delivery):
                done = self._source.download(order, delivery.path, self._may_waste(lot))
            delivery.arrived(done.wasted, (done.wasted * lot.byte_price).quantize(MONEY))
            return self._checked(delivery)

    def _may_waste(self, lot: Lot) -> Callable[[int], bool]:
        """Says, of the bytes that broken tries of a lot were billed for, whether one more is within the budget."""
        told = 0

        def within(size: int) -> bool:
            nonlocal told
            with self._lock:
                self._wasted += (size - told) * lot.byte_price
                told = size
                budget = self._terms.budget
                # The offer's price counts this try once: whatever becomes of it, no more than that is spent.
                return budget is None or self._offer.quote.dollars + self._wasted <= budget

        return within

    def _counted(self, order: Order) -> int:
        """How many records an order brings; none is believed only where nothing is billed for it either."""
        with contextlib.suppress(NothingResolved):
            if records := self._source.count(order):
                return records
        return quoted(self._source, order, self._offer.known.conditions if self._offer.known else ()).records

    def _checked(self, delivery: Delivery) -> Slip:
        """Keep what arrived, whatever it is; UnitFailed when it is not what was ordered."""
        order, expected = delivery.slip.order, delivery.slip.records
        found = paid.check(delivery.path)
        header = found.header
        if header is None:
            kept = delivery.keep(-1)
            why = found.problem.message.removeprefix(f"{delivery.path}: ") if found.problem else "it is not whole"
            # A stream that was cut is billed for what was sent; of one that was damaged on its way all was sent.
            cut_short = isinstance(found.problem, TruncatedFile)
            raise BrokenDelivery(
                f"{what(order)}: what arrived is not whole: {why}",
                f"The bytes are kept in {where(kept)}. Run the same command again to order it once more.",
                _cost(kept, found.records if cut_short else expected), kept.raw,
            )  # fmt: skip
        if other := _other(header, order):
            kept = delivery.keep(-1)
            raise BrokenDelivery(
                f"{what(order)}: {other} arrived instead", f"The bytes are kept in {where(kept)}.",
                _cost(kept, found.records), kept.raw,
            )  # fmt: skip
        delivery.lost(header.not_found)
        kept = delivery.keep(found.records)
        if found.records != expected and found.records != self._source.count(order):
            raise miscounted(kept)
        return kept


def _other(header: Header, order: Order) -> str:
    """What bytes say that they are, where that is not what was ordered; "" where it is."""
    if (header.dataset, header.schema) != (order.dataset, order.schema):
        return f"{header.dataset} {header.schema}"
    if header.window is not None and header.window != order.window:
        return f"{header.schema} of {header.window}"
    if header.stype_in and header.stype_in != order.stype:
        return f"{header.schema} by {header.stype_in}"
    if header.symbols and {s.upper() for s in header.symbols} != {s.upper() for s in order.symbols}:
        return f"{header.schema} of {some(header.symbols)}"
    return ""


def _cost(slip: Slip, records: int) -> Decimal:
    """The price of so many records of an order, and of what broken tries brought before."""
    if not slip.records:
        return Decimal(0)
    return ((slip.dollars - slip.wasted_dollars) / slip.records * records + slip.wasted_dollars).quantize(MONEY)


def miscounted(slip: Slip) -> BrokenDelivery:
    """The error about bytes that are not as many records as the vendor counts."""
    return BrokenDelivery(
        f"{what(slip.order)}: {slip.arrived} records arrived, and the vendor counts {slip.records}",
        f"The bytes are kept in {where(slip)} and are not bought again by themselves: a later run asks for the "
        "count once more, and --refetch orders them again.",
        _cost(slip, slip.arrived),
        slip.raw,
    )


def _finer(cell: Window, records: float) -> Iterable[Window]:
    """A cell cut at whole hours, so that each piece holds no more than the most records on average."""
    hours = -(-(cell.end - cell.start) // _HOUR_NS)
    step = max(1, int(hours // -(-records // MOST_RECORDS))) * _HOUR_NS
    return (Window(at, min(at + step, cell.end)) for at in range(cell.start, cell.end, step))


def what(order: Order | None) -> str:
    """An order in a few words."""
    if order is None:
        return "an order of nothing"
    return f"{order.dataset} {order.schema} {some(order.symbols)}, {order.window}"


def where(slip: Slip) -> str:
    """The path of the bytes."""
    return slip.raw.path if slip.raw else "nowhere"


__all__ = ["MOST_RECORDS", "Downloads", "Lot", "Progress", "Terms", "miscounted", "what", "where"]

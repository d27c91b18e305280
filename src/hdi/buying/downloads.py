"""Downloads: purchases cut into lots, brought in by a few threads ahead of whoever refines them, and kept."""

from __future__ import annotations

import contextlib
import math
import threading
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import islice
from pathlib import Path

from hdi import tracing
from hdi.buying import paid
from hdi.buying.offer import Offer, floor_end, quoted
from hdi.buying.ordering import Purchase, cut
from hdi.buying.paid import Delivery, Found, Slip
from hdi.buying.spending import Limits
from hdi.errors import (
    AccountRefused,
    BrokenDelivery,
    EndUnavailable,
    HdiError,
    NothingResolved,
    StoreError,
    TruncatedFile,
    UnitFailed,
)
from hdi.frames import BROUGHT
from hdi.model import DAY_NS, MONEY, Header, Order, Outcome, Window, some
from hdi.sources import Source

#: A unit of more records than this is made finer, hour by hour.
MOST_RECORDS = 50_000_000
#: Seconds of waiting at a time.
_SLICE = 0.5
_HOUR_NS = 3_600 * 10**9
#: Units of one commit: receipts are held in memory.
_MOST_UNITS = 10_000


@dataclass(frozen=True)
class Terms:
    """How orders are made: threads that download ahead, and how many records one download should hold.

    ``budget`` and ``limits`` are what may be spent; less than ``min_split`` may go to what is held.
    Orders of more than ``batch_above_bytes`` become batch jobs (None: never), which are waited for if ``wait``;
    ``on_wait`` is told why, and for how many seconds.
    """

    workers: int = 2
    download_records: int = 500_000
    budget: Decimal | None = None
    limits: Limits = field(default_factory=Limits)
    min_split: Decimal = Decimal(0)
    batch_above_bytes: int | None = None
    wait: bool = True
    on_wait: Callable[[str, float], None] | None = None


@dataclass(frozen=True)
class Lot:
    """One download: the purchase that it is part of, its cells, and the records expected (None: not counted yet).

    ``price`` is US dollars per record, ``byte_price`` per billed byte. ``note`` says why it is asked for after all,
    where its market is closed, ``purchase_at`` which of the offer's purchases it is part of.
    ``batch`` names the batch job that it is a file of; ``bring`` then does what a download does, and says what
    is to be noted.
    """

    purchase: Purchase
    cells: tuple[Window, ...]
    order: Order | None
    records: int | None
    price: Decimal
    byte_price: Decimal
    purchase_at: int = 0
    note: str = ""
    batch: str = ""
    bring: Callable[[], tuple[Slip, str]] | None = field(default=None, compare=False, repr=False)

    @property
    def window(self) -> Window:
        """From the first cell's start to the last one's end."""
        return Window(self.cells[0].start, self.cells[-1].end)


@dataclass
class Progress:
    """How far a run has come; read it from another thread while the outcomes are taken.

    ``waiting`` is true until no other process works on the same window. ``jobs`` are batch jobs that are waited for.
    """

    offer: Offer
    waiting: bool = True
    units: int = 0
    rows: int = 0
    dollars: Decimal = Decimal(0)
    jobs: list[str] = field(default_factory=list)
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

    def came(self, slip: Slip) -> None:
        """Count the bytes of what came in another way."""
        self._size += slip.raw.size if slip.raw else 0

    def add(self, outcome: Outcome) -> None:
        """Count an outcome."""
        self.units += sum(r.status in BROUGHT for r in outcome.receipts)
        if outcome.status == "ordered":
            self.jobs += [job for r in outcome.receipts[:1] if (job := r.batch) and job not in self.jobs]
        self.rows += sum(r.fetched for r in outcome.receipts)
        self.dollars += outcome.dollars or 0


class Downloads:
    """What an offer has to bring in. Threads that run ahead end with :meth:`run`'s generator."""

    def __init__(
        self, source: Source, data_dir: Path, terms: Terms, offer: Offer, progress: Progress,
        elsewhere: Collection[int] = (),
    ) -> None:  # fmt: skip
        """``elsewhere`` are purchases that come in another way."""
        self._source = source
        self._at = [at for at in range(len(offer.purchases)) if at not in elsewhere]
        self._data_dir = data_dir
        self._terms = terms
        self._offer = offer
        self._name = offer.request.name
        self._progress = progress
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._wasted = Decimal(0)
        self._stopped_by: HdiError | None = None
        self._trace = tracing.here()

    def run(self, more: Iterable[Sequence[Lot]] = ()) -> Generator[tuple[Lot, Future[tuple[Lot, Slip | None]]]]:
        """Each lot with its finished download, in order; the next ones are on their way meanwhile; then ``more``.

        The download says which part of the lot it is about: less of it, where the vendor has less. Closed days come
        last: they are empty, without being asked for, where the open ones are all that the vendor counts.
        """
        came: dict[int, float] = {}
        try:
            for lot, future in self._brought(sorted(self.lots(), key=lambda lot: lot.window.start)):  # the oldest first
                came[lot.purchase_at] = came.get(lot.purchase_at, 0) + _records(lot, future)
                yield lot, future
            yield from self._brought([lot for at in self._at for lot in self._shut(at, came.get(at, 0))])
            for lots in more:
                yield from self._brought(lots)
        finally:
            self._stop.set()

    def lots(self) -> Iterator[Lot]:
        """The downloads of the offer, but for those of closed days."""
        for at in self._at:
            yield from self._lots(at)

    def _shut(self, at: int, came: float) -> Iterator[Lot]:
        """The lots of a purchase's closed days: one that is empty, or those to ask for, where ``came`` is not all."""
        offer = self._offer
        if not (at < len(offer.closed) and offer.closed[at]):
            return
        purchase, quote, days = offer.purchases[at], offer.quotes[at], offer.closed[at]
        if came == quote.records:
            for some in _groups(days, _MOST_UNITS // len(purchase.symbols)):
                yield Lot(purchase, some, None, 0, Decimal(0), Decimal(0), at)
            return
        shut = {day.start for day in days}
        for lot in self._cut(at, [c for c in self._cells(at) if _day(c) in shut]):
            yield replace(
                lot, note="its market is closed by the calendar, and the vendor counts more than the open days have"
            )

    def _brought(self, lots: Sequence[Lot]) -> Generator[tuple[Lot, Future[tuple[Lot, Slip | None]]]]:
        """Each lot with its finished download, in order."""
        coming: deque[tuple[Lot, Future[tuple[Lot, Slip | None]]]] = deque()
        workers = self._terms.workers
        with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="hdi-download") as pool:
            try:
                rest = iter(lots)
                coming += [(lot, pool.submit(self._deliver, lot)) for lot in islice(rest, workers)]
                while coming:
                    lot, future = coming.popleft()
                    while not wait([future], _SLICE).done:  # in slices, between which a signal is heard
                        pass
                    coming += [(following, pool.submit(self._deliver, following)) for following in islice(rest, 1)]
                    yield lot, future
            finally:
                pool.shutdown(cancel_futures=True)
                for lot, future in coming:
                    self._untold(lot, future)

    def _untold(self, lot: Lot, future: Future[tuple[Lot, Slip | None]]) -> None:
        """Note what a download was billed that failed, and that nobody is told of: the run ends before."""
        if future.cancelled() or not isinstance(error := future.exception(), HdiError) or lot.order is None:
            return
        if not isinstance(error, StoreError):  # with that one it is noted
            self._noted(lot, lot.order, error.wasted)

    def _noted(self, lot: Lot, order: Order, size: int) -> None:
        """Keep that an order was billed so many bytes for nothing, where no receipt will say so."""
        slip = paid.wasted(self._slip(lot, order, 0), size)
        if slip.dollars:
            paid.keep_note(self._data_dir, slip)

    def _lots(self, at: int) -> Iterator[Lot]:
        """The downloads of a purchase but for its closed days."""
        closed = self._offer.closed[at] if at < len(self._offer.closed) else ()
        shut = {day.start for day in closed}
        yield from self._cut(at, [c for c in self._cells(at) if _day(c) not in shut])

    def _cells(self, at: int) -> list[Window]:
        """The cells of a purchase, finer than the grid where they hold very much."""
        purchase, quote = self._offer.purchases[at], self._offer.quotes[at]
        cells = list(purchase.window.cells(self._name.grid))
        each = quote.records / len(cells)
        return [fine for cell in cells for fine in _finer(cell, each)] if each > MOST_RECORDS else cells

    def _cut(self, at: int, cells: Sequence[Window]) -> Iterator[Lot]:
        """Lots of cells: neighbours, as many each as make a download of the usual size."""
        request, purchase, quote = self._offer.request, self._offer.purchases[at], self._offer.quotes[at]
        each = quote.records / max(len(cells), 1)
        most = min(int(self._terms.download_records // max(each, 1)), _MOST_UNITS // len(purchase.symbols))
        price = quote.dollars / quote.records if quote.records else Decimal(0)
        byte_price = quote.dollars / quote.size if quote.size else Decimal(0)
        for run in _runs(cells):
            for chunk in _groups(run, most):
                window = Window(chunk[0].start, chunk[-1].end)
                order = purchase.order(request.dataset, self._name.name, window)
                counted = quote.records if window == purchase.window or not quote.records else None
                yield Lot(purchase, chunk, order, counted, price, byte_price, at)

    def _deliver(self, lot: Lot) -> tuple[Lot, Slip | None]:
        """Download one lot and keep it; no slip when the vendor has no record for it. Runs in a thread."""
        if self._stopped_by is not None or self._stop.is_set():
            why = self._stopped_by.message if self._stopped_by else "the run ended"
            raise UnitFailed(f"{what(lot.order)}: not asked for: {why}", "Mend that, and run the same command again.")
        purchase, request = lot.purchase, self._offer.request
        try:
            with tracing.span(
                "download", self._trace, dataset=request.dataset, schema=self._name.name, symbols=len(purchase.symbols)
            ) as tell:
                lot, slip = self._got(lot)
                tell(records=slip.records if slip else 0, bytes=slip.raw.size if slip and slip.raw else 0)
                return lot, slip
        except AccountRefused as error:
            self._stopped_by = error
            raise

    def _got(self, lot: Lot) -> tuple[Lot, Slip | None]:
        """The lot as it could be had, and its slip."""
        if lot.bring is not None:
            slip, note = lot.bring()
            self._progress.came(slip)
            return replace(lot, note=note), slip
        try:
            return lot, self._download(lot)
        except EndUnavailable as error:
            lot = self._shortened(lot, error)
            return lot, self._download(lot, error.wasted)

    def _shortened(self, lot: Lot, error: EndUnavailable) -> Lot:
        """The lot up to the end that the vendor's refusal names."""
        end = floor_end(error.available_end, self._offer.request)
        cells = tuple(c for cell in lot.cells if (c := cell.cut(Window(0, max(end, 1)))))
        if not cells or lot.order is None or end >= lot.window.end:
            raise error
        window = Window(cells[0].start, cells[-1].end)
        order = lot.purchase.order(lot.order.dataset, lot.order.schema, window)
        return replace(lot, cells=cells, order=order, records=None)

    def _download(self, lot: Lot, before: int = 0) -> Slip | None:
        """The slip of what arrived; ``before`` are bytes that were billed for nothing until now."""
        order = lot.order
        if order is None or self._offer.known is None:
            return None
        try:
            records = self._counted(order) if lot.records is None else lot.records
            if not records:
                self._noted(lot, order, before)
                return None
            with Delivery(self._data_dir, paid.wasted(self._slip(lot, order, records), before)) as delivery:
                with self._progress.receiving(delivery):
                    done = self._source.download(order, delivery.path, self._may_waste(lot, delivery, before))
                delivery.arrived(before + done.wasted)
                before = 0  # it is part of the slip's price
                return checked(self._source, delivery)
        except HdiError as error:
            error.wasted += before
            raise

    def _slip(self, lot: Lot, order: Order, records: int) -> Slip:
        """The slip of an order that is about to be made."""
        known = self._offer.known
        if known is None:
            raise UnitFailed(f"{what(order)}: nothing is known of its symbols", "Run the same command again.")
        rectangles = cut(lot.purchase.rectangles, order.window)
        names = cut(known.names, order.window).join(rectangles, on="instrument_id", how="semi")
        return Slip(
            self._source.origin, order, lot.purchase.symbols, lot.cells, records, (lot.price * records).quantize(MONEY),
            rectangles, names, known.conditions, bought_at=paid.now(self._offer.newest),
            seen_at=known.seen_at, byte_price=lot.byte_price,
        )  # fmt: skip

    def _may_waste(self, lot: Lot, delivery: Delivery, before: int) -> Callable[[int], bool]:
        """Says, of the bytes that broken tries of a lot were billed for, whether one more is within the budget."""
        told = 0

        def within(size: int) -> bool:
            nonlocal told
            delivery.broke(before + size)
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


def checked(source: Source, delivery: Delivery, said: Order | None = None, found: Found | None = None) -> Slip:
    """Keep what arrived, whatever it is; UnitFailed when it is not what was ordered.

    ``said`` is what its header says that was ordered, where that is more: a file of a batch job names all of it.
    ``found`` is what it is, where it was read already.
    """
    slip = delivery.slip
    order, expected = slip.order, slip.records
    found = found or paid.check(delivery.path)
    header = found.header
    if header is None:
        kept = delivery.keep(-1)
        why = found.problem.message.removeprefix(f"{delivery.path}: ") if found.problem else "it is not whole"
        # A stream that was cut is billed for what was sent; of one that was damaged on its way all was sent.
        by_bytes = slip.batch or isinstance(found.problem, TruncatedFile)
        raise BrokenDelivery(
            f"{what(order)}: what arrived is not whole: {why}",
            f"The bytes are kept in {where(kept)}. Run the same command again to order it once more.",
            _cost(kept) if by_bytes else kept.dollars, kept.raw,
        )  # fmt: skip
    if other := _other(header, said or order):
        kept = delivery.keep(-1)
        raise BrokenDelivery(
            f"{what(order)}: {other} arrived instead", f"The bytes are kept in {where(kept)}.",
            _cost(kept), kept.raw,
        )  # fmt: skip
    delivery.lost(header.not_found)
    kept = delivery.keep(found.records)
    if found.records != expected and found.records != source.count(order):
        raise miscounted(kept)
    return kept


def _records(lot: Lot, future: Future[tuple[Lot, Slip | None]]) -> float:
    """How many records a finished download brought; not a number, which makes no sum right, where nobody knows."""
    if future.exception() is not None:
        return math.nan
    done, slip = future.result()
    return math.nan if done.window != lot.window else slip.records if slip else 0


def _day(cell: Window) -> int:
    return cell.start // DAY_NS * DAY_NS


def _runs(cells: Sequence[Window]) -> Iterator[Sequence[Window]]:
    """Cells cut where one does not follow upon the other."""
    at = 0
    for i in range(1, len(cells) + 1):
        if i == len(cells) or cells[i].start != cells[i - 1].end:
            yield cells[at:i]
            at = i


def _groups(cells: Sequence[Window], most: int) -> Iterator[tuple[Window, ...]]:
    """So many cells at a time."""
    most = max(most, 1)
    return (tuple(cells[at : at + most]) for at in range(0, len(cells), most))


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


def _cost(slip: Slip) -> Decimal:
    """The price of the records that came, however many the vendor counts, and of what broken tries brought before."""
    if slip.batch or slip.raw is None:  # the job was paid for, whatever becomes of its files
        return Decimal(0)
    return paid.came(slip, Path(slip.raw.path))


def miscounted(slip: Slip) -> BrokenDelivery:
    """The error about bytes that are not as many records as the vendor counts."""
    return BrokenDelivery(
        f"{what(slip.order)}: {slip.arrived} records arrived, and the vendor counts {slip.records}",
        f"The bytes are kept in {where(slip)} and are not bought again by themselves: a later run asks for the "
        "count once more, and --refetch orders them again.",
        _cost(slip),
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


__all__ = ["MOST_RECORDS", "Downloads", "Lot", "Progress", "Terms", "checked", "miscounted", "what", "where"]

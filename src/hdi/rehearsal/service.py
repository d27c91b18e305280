"""The vendor's answers: what each call of its API returns for a synthetic market. Knows nothing of HTTP."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hdi.errors import RequestError
from hdi.model import Window, date_ns, ns_date
from hdi.rehearsal import asks, batch, body, prices, refusals
from hdi.rehearsal.asks import Symbols
from hdi.rehearsal.batch import Desk, Download, Job
from hdi.rehearsal.books import Books
from hdi.rehearsal.faults import DOWNLOAD, GET_RANGE, SUBMIT, Call, Fault, Faults
from hdi.rehearsal.holes import LOSING, hole, left
from hdi.rehearsal.layouts import MESSAGES
from hdi.rehearsal.market import Market, Resolution
from hdi.rehearsal.refusals import Refusal
from hdi.rehearsal.revised import Revision
from hdi.rehearsal.stream import Request, Stream
from hdi.rehearsal.tape import Rectangle
from hdi.symbology import infer_stype

_UNPROCESSABLE = 422
#: The vendor's status of a resolution, and what it says of it.
_OK, _PARTIAL, _NOT_FOUND = range(3)
_MESSAGES = ("OK", "Partially resolved", "Not found")
_NOTE = "SYNTHETIC, made by the rehearsal vendor of hdi"
_PUBLISHERS = (
    (1, "GLBX.MDP3", "GLBX", "CME Globex MDP 3.0"),
    (2, "XNAS.ITCH", "XNAS", "Nasdaq TotalView-ITCH"),
    (39, "DBEQ.BASIC", "XCHI", "DBEQ Basic - NYSE Texas"),
    (40, "DBEQ.BASIC", "XCIS", "DBEQ Basic - NYSE National"),
    (41, "DBEQ.BASIC", "IEXG", "DBEQ Basic - IEX"),
    (42, "DBEQ.BASIC", "EPRL", "DBEQ Basic - MIAX Pearl"),
    (59, "DBEQ.BASIC", "DBEQ", "Databento US Equities Basic - Consolidated"),
)
#: The feed modes that history comes in; both cost the same.
_MODES = ("historical", "historical-streaming")
_C_TYPES = {"u": "uint{}_t", "i": "int{}_t"}
_CHAR = "S1"


@functools.lru_cache(maxsize=4)
def _market(  # noqa: PLR0913, PLR0917  (what makes a market another one)
    seed: int, scale: float, hostile: int, restated: frozenset[dt.date], today: dt.date,
    untraded: frozenset[tuple[str, dt.date]], revised: tuple[Revision, ...],
) -> Market:  # fmt: skip
    """One market for all vendors of this process with the same parameters: it remembers what it has computed."""
    return Market(
        seed, scale=scale, hostile=hostile, restated=restated, today=today, untraded=untraded, revised=revised
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """A JSON answer; 206 when some symbols were not resolved for all of the days. ``lost``: it does not arrive."""

    status: int
    document: Any
    lost: bool = False


class Service:
    """Answers calls about one synthetic market, up to midnight UTC of ``until`` (exclusive), and keeps the books."""

    def __init__(  # noqa: PLR0913  (what a market is, and what is kept of it)
        self, seed: int, scale: float, hostile: int, until: dt.date, *, faults: Faults, books: Books,
        preparation: float = 0.0,
    ) -> None:  # fmt: skip
        self._parameters = (seed, scale, hostile)
        self._until = until
        self._changed: dict[int, tuple[Fault, dt.date]] = {}
        self.faults = faults
        self.books = books
        self.desk = Desk(faults, books, preparation)
        #: The address that the files of batch jobs are found at.
        self.root = ""
        if not self._begun():
            first = min(self.market.datasets, key=self.market.begins)
            raise RequestError(f"until {until} is before {first} begins", "Take a later day.")
        self._answers: Mapping[str, Callable[[Call], Answer]] = {
            "metadata.list_publishers": self._publishers,
            "metadata.list_datasets": self._datasets,
            "metadata.list_schemas": self._schemas,
            "metadata.list_fields": self._fields,
            "metadata.list_unit_prices": self._unit_prices,
            "metadata.get_dataset_condition": self._conditions,
            "metadata.get_dataset_range": self._range,
            "metadata.get_record_count": self._record_count,
            "metadata.get_billable_size": self._billable_size,
            "metadata.get_cost": self._cost,
            "symbology.resolve": self._resolve,
            SUBMIT: self._submit,
            "batch.get_job_details": lambda call: Answer(200, self.desk.details(call)),
            "batch.list_jobs": lambda call: Answer(200, self.desk.listed(call)),
            "batch.list_files": lambda call: Answer(200, self.desk.files(call, self.market, self._texts, self.root)),
        }

    @property
    def market(self) -> Market:
        """The market, with the days restated, and those untraded, that faults name."""
        untraded = frozenset((f.symbol, f.day) for f in self.faults.of_days("untraded") if f.day)
        restated = [f for f in self.faults.of_days("restated") if f.day]
        whole = frozenset(f.day for f in restated if f.day and not f.options)
        revised = tuple(
            Revision(f.day, schema=f.schema, symbol=f.symbol, **f.options) for f in restated if f.day and f.options
        )
        return _market(*self._parameters, whole, self._until, untraded, revised)

    @property
    def until(self) -> dt.date:
        """The day at whose midnight UTC data ends."""
        return self._until

    def advance(self, until: dt.date) -> None:
        """Have data up to midnight UTC of a later day. RequestError for an earlier one: no vendor takes data back."""
        if until < self._until:
            raise RequestError(f"until {until} is before {self._until}, up to which there is data", "Take a later day.")
        before, self._until = self._until, until
        try:
            _ = self.market  # which has an end of its own
        except RequestError:
            self._until = before
            raise

    def answer(self, call: Call) -> Answer | Stream | Download:
        """What the vendor answers. Raises Refusal where it refuses."""
        if call.method == GET_RANGE:
            return self._stream(call)
        if call.method == DOWNLOAD:
            return self.desk.download(call, self.market, self._texts, self.root)
        return self._answers[call.method](call)

    def _stream(self, call: Call) -> Stream:
        for name, only in (("encoding", "dbn"), ("compression", "zstd")):
            if call.fields.get(name, only) != only:
                raise refusals.invalid(f"The rehearsal vendor has only `{name}={only}`.")
        request = self.request(call)
        what = (request.dataset, request.schema, request.selection, request.start, request.end)
        stream = Stream(request, self.market.records(*what), self.books.bill, lambda: self.market.planted(*what))
        fault, pace = (self.faults.take(stage, call) for stage in ("body", "pace"))
        stream.spoil(fault, pace, self.count(request) if fault else 0)
        return stream

    def _submit(self, call: Call) -> Answer:
        request = self.request(call)
        what = (request.dataset, request.schema, request.selection, request.start, request.end)
        document = self.desk.submit(call, request, self.count(request), self.market.planted(*what))
        return Answer(200, document, lost=self.faults.take("submit", call) is not None)

    def _texts(self, job: Job) -> dict[str, Any]:
        """The JSON files that come with a job's data."""
        first, last = batch.conditions_window(job)
        symbols, dataset = job.request.symbols, job.request.dataset
        fields = {
            "dataset": dataset, "symbols": ",".join(symbols.names), "stype_in": symbols.stype_in,
            "stype_out": symbols.stype_out, "start_date": str(first), "end_date": str(last + dt.timedelta(days=1)),
        }  # fmt: skip
        days = {"dataset": dataset, "start_date": str(first), "end_date": str(last)}
        return {
            "metadata.json": batch.metadata(job) | {"note": _NOTE},
            "condition.json": self._conditions(Call("metadata.get_dataset_condition", days)).document,
            "symbology.json": self._resolve(Call("symbology.resolve", fields)).document,
        }

    def refusal(self, fault: Fault, call: Call) -> Refusal:
        """The refusal that a fault asks for; a case about the window says what the call's window really was."""
        status, case = int(fault.kind), fault.options.get("case", "")
        if status in refusals.ACCOUNT:
            return refusals.account(status, case)
        if status != _UNPROCESSABLE:
            return refusals.plain(status, fault.options.get("retry_after"), as_date=bool(fault.options.get("date")))
        if case == "symbology_invalid_request":
            return refusals.unresolved()
        asked, known = call.fields.get("dataset", ""), self._begun()
        dataset = asked if asked in known else known[0]
        if case == "schema_not_supported":
            return refusals.unknown_schema(dataset, call.fields.get("schema", ""), self.market.schemas(dataset))
        start, end = asks.window(call.fields)[:2] if call.fields.get("start") else self.available(dataset)
        if case == "data_time_range_start_on_or_after_end":
            return refusals.reversed_window(end, start)
        usual = "dataset_unavailable_range"
        return refusals.outside(
            case or usual, dataset, (start, end), self.available(dataset), call.fields.get("schema", "")
        )

    def available(self, dataset: str) -> tuple[int, int]:
        """Start and exclusive end of what there is, in nanoseconds."""
        return date_ns(self.market.begins(dataset)), date_ns(self._until)

    def request(self, call: Call) -> Request:
        """The data request of a call. Raises Refusal for what the vendor would refuse."""
        fields = call.fields
        dataset = self._dataset(fields)
        schema = self._schema(fields, dataset)
        symbols = Symbols.parse(fields)
        start, end, filled = asks.window(fields)
        available = self.available(dataset)
        if filled and start < available[1]:
            end = min(end, available[1])
        _check_window(dataset, (start, end), available)
        days = ns_date(start), ns_date(end - 1) + dt.timedelta(days=1)
        resolution = self.market.resolve(dataset, symbols.names, symbols.stype_in, symbols.stype_out, *days)
        selection = tuple(_selection(resolution, start, end))
        if not selection:
            raise refusals.unresolved()
        selection = self._there(dataset, schema, selection)
        return Request(dataset, schema, symbols, start, end, asks.limit(fields), resolution, selection)

    def _there(self, dataset: str, schema: str, selection: tuple[Rectangle, ...]) -> tuple[Rectangle, ...]:
        """The selection without the stretches that faults say are not there."""
        holes = [hole(fault) for fault in self.faults.of_days(*LOSING)]

        def resolve(symbol: str, window: Window) -> list[Rectangle]:
            days = ns_date(window.start), ns_date(window.end - 1) + dt.timedelta(days=1)
            found = self.market.resolve(dataset, [symbol], infer_stype(symbol), "instrument_id", *days)
            return [(i, date_ns(first), date_ns(last)) for i, first, last in found.asked.get(symbol, [])]

        return left(selection, [each for each in holes if each], schema, resolve)

    def _begun(self) -> tuple[str, ...]:
        """The datasets of which there is anything yet."""
        return tuple(name for name in self.market.datasets if self.market.begins(name) < self._until)

    def count(self, request: Request) -> int:
        """How many records the request brings."""
        found = self.market.count(request.dataset, request.schema, request.selection, request.start, request.end)
        return found if request.limit is None else min(found, request.limit)

    def _dataset(self, fields: Mapping[str, str]) -> str:
        name, known = asks.field(fields, "dataset"), self._begun()
        if name not in known:
            raise refusals.unknown_dataset(name, known)
        return name

    def _schema(self, fields: Mapping[str, str], dataset: str) -> str:
        name, known = fields.get("schema") or "trades", self.market.schemas(dataset)
        if name not in known:
            raise refusals.unknown_schema(dataset, name, known)
        return name

    def _publishers(self, call: Call) -> Answer:
        del call
        names = ("publisher_id", "dataset", "venue", "description")
        rows = [dict(zip(names, row, strict=True)) for row in _PUBLISHERS]
        return Answer(200, [row | {"description": f"{row['description']} ({_NOTE})"} for row in rows])

    def _datasets(self, call: Call) -> Answer:
        first = asks.day(call.fields.get("start_date") or "1970", "start_date")
        last = asks.day(call.fields.get("end_date") or str(self._until), "end_date")
        return Answer(200, [n for n in self._begun() if first < self._until and self.market.begins(n) <= last])

    def _schemas(self, call: Call) -> Answer:
        return Answer(200, list(self.market.schemas(self._dataset(call.fields))))

    def _fields(self, call: Call) -> Answer:
        encoding, name = asks.field(call.fields, "encoding"), asks.field(call.fields, "schema")
        if encoding not in ("dbn", "csv", "json"):
            raise refusals.invalid(f"Invalid `encoding` {encoding!r}, must be one of dbn, csv, json.")
        if name not in MESSAGES:
            raise refusals.unknown_schema(call.fields.get("dataset") or "any", name, tuple(MESSAGES))
        message = MESSAGES[name]
        hidden = () if encoding == "dbn" else message._hidden_fields  # noqa: SLF001  (the vendor's own table)
        rows = [{"name": n, "type": _c_type(code)} for n, code in message._dtypes if n not in hidden]  # noqa: SLF001
        return Answer(200, rows)

    def _unit_prices(self, call: Call) -> Answer:
        dataset = self._dataset(call.fields)
        listed = {name: float(prices.unit_price(dataset, name)) for name in self.market.schemas(dataset)}
        return Answer(200, [{"mode": mode, "unit_prices": listed} for mode in _MODES])

    def _range(self, call: Call) -> Answer:
        dataset = self._dataset(call.fields)
        start, end = map(refusals.stamp, self.available(dataset))
        bounds = {"start": start, "end": end}
        return Answer(200, bounds | {"schema": {name: dict(bounds) for name in self.market.schemas(dataset)}})

    def _conditions(self, call: Call) -> Answer:
        dataset, fields = self._dataset(call.fields), call.fields
        begins, last = self.market.begins(dataset), self._until - dt.timedelta(days=1)
        start = asks.day(fields["start_date"], "start_date") if fields.get("start_date") else begins
        end = asks.day(fields["end_date"], "end_date") if fields.get("end_date") else last
        if end < start:
            raise refusals.reversed_window(date_ns(start), date_ns(end))
        start, end = max(start, begins), min(end, last)
        days = (start + dt.timedelta(days=i) for i in range((end - start).days + 1))
        return Answer(200, [row for day in days if (row := self._condition(dataset, day))])

    def _condition(self, dataset: str, day: dt.date) -> dict[str, str] | None:
        condition = self.market.condition(dataset, day)
        if condition is None:
            return None
        for kind in ("pending", "degraded", "missing"):
            if day in self.faults.days(kind):
                condition = kind
        modified = self._modified(day)
        return {"date": str(day), "condition": condition, "last_modified_date": str(modified)}

    def _modified(self, day: dt.date) -> dt.date:
        """The day after, unless it was changed since: then the newest day that there was, and later than before."""
        modified = day + dt.timedelta(days=1)
        for fault in self.faults.of_days("restated"):
            if fault.day == day:
                later = max(modified + dt.timedelta(days=1), self._until)
                modified = self._changed.setdefault(id(fault), (fault, later))[1]
        return modified

    def _record_count(self, call: Call) -> Answer:
        request = self.request(call)
        fault = self.faults.take("count", call)
        off = fault.options.get("by", 1) if fault else 0
        return Answer(request.status, max(0, self.count(request) + off))

    def _billable_size(self, call: Call) -> Answer:
        request = self.request(call)
        return Answer(request.status, self.count(request) * body.record_size(request.schema))

    def _cost(self, call: Call) -> Answer:
        request = self.request(call)
        size = self.count(request) * body.record_size(request.schema)
        return Answer(request.status, float(prices.cost(request.dataset, request.schema, size)))

    def _resolve(self, call: Call) -> Answer:
        dataset, symbols = self._dataset(call.fields), Symbols.parse(call.fields)
        start = asks.day(asks.field(call.fields, "start_date"), "start_date")
        end = start + dt.timedelta(days=1)
        if call.fields.get("end_date"):
            end = asks.day(call.fields["end_date"], "end_date")
        window = date_ns(start), date_ns(end)
        _check_window(dataset, window, self.available(dataset))
        found = self.market.resolve(dataset, symbols.names, symbols.stype_in, symbols.stype_out, start, end)
        status = _PARTIAL if found.partial or found.not_found else _OK
        if len(found.not_found) == len(symbols.names):
            status = _NOT_FOUND
        document = {
            "result": {
                key: [{"d0": str(first), "d1": str(last), "s": text} for first, last, text in intervals]
                for key, intervals in found.result.items()
            },
            "symbols": list(symbols.names), "stype_in": symbols.stype_in, "stype_out": symbols.stype_out,
            "start_date": str(start), "end_date": str(end), "partial": found.partial, "not_found": found.not_found,
            "message": _MESSAGES[status], "status": status,
        }  # fmt: skip
        return Answer(206 if status == _PARTIAL else 200, document)


def _c_type(code: str) -> str:
    if code.startswith("S"):
        return "char" if code == _CHAR else f"char[{code[1:]}]"
    return _C_TYPES[code[0]].format(int(code[1:]) * 8)


def _check_window(dataset: str, window: tuple[int, int], available: tuple[int, int]) -> None:
    (start, end), (first, last) = window, available
    case = ""
    if start >= end:
        raise refusals.reversed_window(start, end)
    if start < first:
        case = "data_start_before_available_start"
    elif start >= last:
        case = "data_start_after_available_end"
    elif end > last:
        case = "data_end_after_available_end"
    if case:
        raise refusals.outside(case, dataset, window, available)


def _selection(resolution: Resolution, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The rectangles that a resolution selects inside the window, each once."""
    found = {rectangle for each in resolution.asked.values() for rectangle in each}
    for instrument, first, last in sorted(found):
        low, high = max(start, date_ns(first)), min(end, date_ns(last))
        if low < high:
            yield instrument, low, high

"""Batch jobs: submitted, prepared, done, expired, as the vendor has them. Their files are made when first asked for.

A job is billed when it is submitted: the vendor's client says that this call costs, and it cannot be taken back. What
its files are downloaded is free.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from hdi.model import DAY_NS, NS, ns_date
from hdi.rehearsal import asks, batch_files, body, prices, refusals
from hdi.rehearsal.asks import ALL_SYMBOLS
from hdi.rehearsal.batch_files import DURATIONS, Cuts, File, Records
from hdi.rehearsal.books import Books, Entry
from hdi.rehearsal.faults import DOWNLOAD, SUBMIT, Call, Fault, Faults
from hdi.rehearsal.refusals import Refusal, stamp
from hdi.rehearsal.stream import Request

#: A job's files can be downloaded for so long after it is done.
KEPT_NS = 30 * DAY_NS
#: The states in their order, and the share of the preparation after which they begin.
_STATES = (("received", 0.0), ("queued", 0.1), ("processing", 0.2), ("done", 1.0))
_LISTED = ("queued", "processing", "done")
_LEAST_SIZE, _MOST_SIZE = 10**9, 10**10
_FLAGS = ("pretty_px", "pretty_ts", "map_symbols", "split_symbols")
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_END = {"expired": "expired-job", "failed": "failed-job"}


@dataclass
class Job:
    """A job; ``ended`` is the state that a fault has brought it to. Times are nanoseconds UTC."""

    id: str
    key: str
    call: Call
    request: Request
    cuts: Cuts
    records: int
    dollars: Decimal
    received: int
    folder: Path
    ended: str = ""
    files: list[File] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def size(self) -> int:
        """Bytes that are billed."""
        return self.records * body.record_size(self.request.schema)

    @property
    def user(self) -> str:
        """A name of the account, from its key."""
        return _name(self.key, 8)


@dataclass(frozen=True, slots=True)
class Download:
    """A file, or all of a job in one, to be sent; ``fault`` is what goes wrong with it."""

    file: File
    fault: Fault | None = None


class Desk:
    """The jobs of a vendor. ``preparation`` is how many seconds one takes from its submission until it is done.

    ``clock`` tells the time in nanoseconds. Threads may share it. Files lie in a temporary folder until :meth:`close`.
    """

    def __init__(
        self, faults: Faults, books: Books, preparation: float = 0.0, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._faults = faults
        self._books = books
        self._preparation = int(preparation * NS)
        self._clock = clock
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._folder: Path | None = None

    def close(self) -> None:
        """Remove all files."""
        with self._lock:
            folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def submit(self, call: Call, request: Request, records: int, planted: int) -> dict[str, Any]:
        """Take a job in, and bill it."""
        cuts = _cuts(call.fields, request)
        now = self._clock()
        size = records * body.record_size(request.schema)
        dollars = prices.cost(request.dataset, request.schema, size)
        with self._lock:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="hdi-rehearsal-batch-"))
            code = request.dataset.partition(".")[0]
            name = f"{code}-{ns_date(now):%Y%m%d}-{_name(f'{call.key}{now}{len(self._jobs)}', 10)}"
            job = Job(name, call.key, call, request, cuts, records, dollars, now, self._folder / name)
            self._jobs[name] = job
        self._books.bill(Entry(
            time=time.time_ns(), dataset=request.dataset, schema=request.schema, stype=request.symbols.stype_in,
            symbols=request.symbols.names, start=request.start, end=request.end, records=records, size=size,
            dollars=dollars, finished=True, planted=planted, job=name,
        ))  # fmt: skip
        return self._document(job)

    def details(self, call: Call) -> dict[str, Any]:
        """One job."""
        return self._document(self._job(call))

    def listed(self, call: Call) -> list[dict[str, Any]]:
        """The key's jobs in some states, submitted since, oldest first."""
        states = [s.strip() for s in (call.fields.get("states") or ",".join(_LISTED)).split(",")]
        if unknown := [s for s in states if s not in (*(name for name, _ in _STATES), *_END)]:
            raise refusals.invalid(f"Invalid `states` {unknown[0]!r}.")
        since = asks.moments(call.fields["since"], "since")[0] if call.fields.get("since") else 0
        with self._lock:
            mine = [job for job in self._jobs.values() if job.key == call.key and job.received >= since]
        found = [d for job in sorted(mine, key=lambda j: j.received) if (d := self._document(job))["state"] in states]
        if _true(call.fields.get("short", "")):
            return [{name: d[name] for name in ("id", "state", "ts_received")} for d in found]
        return found

    def files(self, call: Call, market: Records, texts: Texts, root: str) -> list[dict[str, Any]]:
        """The files of a job that is done."""
        job = self._job(call)
        return [batch_files.listed(file, _url(job, root)) for file in self._made(job, market, texts, root)]

    def download(self, call: Call, market: Records, texts: Texts, root: str) -> Download:
        """One file of a job, or without a name all of them in a ZIP."""
        job = self._job(call)
        files = self._made(job, market, texts, root)
        name = call.fields.get("filename", "")
        if not name:
            with job.lock:
                return Download(batch_files.zipped(job.folder, job.id, files))
        file = next((f for f in files if f.name == name), None)
        if file is None:
            raise Refusal(404, f"The job {job.id} has no file {name}.")
        if not file.end:
            return Download(file)
        own = Call(DOWNLOAD, {**job.call.fields, "start": str(file.start), "end": str(file.end)}, call.key)
        return Download(file, self._faults.take("file", own))

    def _job(self, call: Call) -> Job:
        name = asks.field(call.fields, "job_id")
        with self._lock:
            job = self._jobs.get(name)
        if job is None or job.key != call.key:
            raise Refusal(404, f"There is no job {name}.")
        return job

    def _made(self, job: Job, market: Records, texts: Texts, root: str) -> list[File]:
        state, _, _ = self._state(job)
        if state != "done":
            raise Refusal(404 if state in _END else 409, f"The job {job.id} is {state}: it has no files.")
        with job.lock:
            if job.files is None:
                found = batch_files.make(job.folder, job.request, job.cuts, market, texts(job))
                listing = batch_files.manifest(job.folder, job.id, found, _url(job, root))
                job.files = sorted([*found, listing], key=lambda file: file.name)
            return job.files

    def _state(self, job: Job) -> tuple[str, int, dict[str, int]]:
        """(state, per cent done, when each state began)."""
        own = Call(SUBMIT, job.call.fields, job.key)
        fault = self._faults.take("job", own) if not job.ended else None
        for state, kind in _END.items():
            if fault is not None and fault.kind == kind:
                job.ended = state
        now = self._clock()
        if fault is not None and fault.kind == "stuck-job":
            now = min(now, job.received + self._preparation - 1)
        done = job.received + self._preparation
        began = {name: job.received + int(self._preparation * share) for name, share in _STATES}
        if job.ended or now >= done + KEPT_NS:
            return job.ended or "expired", 100, began
        share = (now - job.received) / max(1, self._preparation)
        progress = 100 if now >= done else max(0, int(100 * share))
        if fault is not None and fault.kind == "stuck-job":
            return "processing", min(progress, 99), {n: t for n, t in began.items() if n != "done"}
        reached = {name: at for name, at in began.items() if now >= at}
        return list(reached)[-1], progress, reached

    def _document(self, job: Job) -> dict[str, Any]:
        state, progress, began = self._state(job)
        request, fields, done = job.request, job.call.fields, state in ("done", "expired")
        when = {name: stamp(began[name]) if name in began else None for name, _ in _STATES}
        made = job.files or []
        size = sum(file.size for file in made if file.end) if made else None
        return {
            "id": job.id, "user_id": job.user, "cost_usd": float(job.dollars) if done else None,
            "dataset": request.dataset, "symbols": ",".join(request.symbols.names),
            "stype_in": request.symbols.stype_in, "stype_out": request.symbols.stype_out, "schema": request.schema,
            "start": stamp(request.start), "end": stamp(request.end), "limit": request.limit,
            "encoding": "dbn", "compression": "zstd", **{name: _true(fields.get(name, "")) for name in _FLAGS},
            "split_duration": job.cuts.duration, "split_size": job.cuts.size, "delivery": "download",
            "record_count": job.records if done else None, "billed_size": job.size if done else None,
            "actual_size": size, "package_size": sum(f.size for f in made) if made else None,
            "state": state, "progress": progress, "ts_received": when["received"], "ts_queued": when["queued"],
            "ts_process_start": when["processing"], "ts_process_done": when["done"] if done else None,
            "ts_expiration": stamp(began["done"] + KEPT_NS) if done else None,
        }  # fmt: skip


#: The JSON files of a job, by name, but for the manifest.
Texts = Callable[[Job], Mapping[str, Any]]


def metadata(job: Job) -> dict[str, Any]:
    """``metadata.json``: what was asked for."""
    request, fields = job.request, job.call.fields
    return {
        "version": 1, "job_id": job.id,
        "query": {
            "dataset": request.dataset, "schema": request.schema, "symbols": list(request.symbols.names),
            "stype_in": request.symbols.stype_in, "stype_out": request.symbols.stype_out, "start": request.start,
            "end": request.end, "limit": request.limit, "encoding": "dbn", "compression": "zstd",
            "split_symbols": job.cuts.symbols, "split_duration": job.cuts.duration, "split_size": job.cuts.size,
            "delivery": "download",
        },
        "customizations": {name: _true(fields.get(name, "")) for name in ("pretty_px", "pretty_ts", "map_symbols")},
    }  # fmt: skip


def _cuts(fields: Mapping[str, str], request: Request) -> Cuts:
    """How the files are to be cut. Raises Refusal for what the vendor does not do."""
    only = {"encoding": "dbn", "compression": "zstd", "delivery": "download"}
    for name, value in only.items():
        if fields.get(name, value) != value:
            raise refusals.invalid(f"The rehearsal vendor has only `{name}={value}`.")
    duration = fields.get("split_duration") or "day"
    if duration not in DURATIONS:
        raise refusals.invalid(f"Invalid `split_duration` {duration!r}, must be one of {', '.join(DURATIONS)}.")
    by_symbol = _true(fields.get("split_symbols", ""))
    if by_symbol and request.symbols.names == (ALL_SYMBOLS,):
        raise refusals.invalid(f"`split_symbols` cannot be used with {ALL_SYMBOLS}.")
    text = fields.get("split_size", "")
    if text and not (text.isdigit() and _LEAST_SIZE <= int(text) <= _MOST_SIZE):
        raise refusals.invalid(f"`split_size` must be {_LEAST_SIZE} to {_MOST_SIZE} bytes.")
    return Cuts(duration, by_symbol, int(text) if text else None)


def conditions_window(job: Job) -> tuple[dt.date, dt.date]:
    """First and last UTC day that a job touches."""
    return ns_date(job.request.start), ns_date(job.request.end - 1)


def _url(job: Job, root: str) -> Callable[[str], str]:
    return lambda name: f"{root}/v0/batch/download/{job.user}/{job.id}/{name}"


def _true(text: str) -> bool:
    return text.strip().lower() in ("true", "1")


def _name(text: str, length: int) -> str:
    """Letters and digits that a text always gives."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")
    return "".join(_ALPHABET[number >> (5 * i) & 31] for i in range(length))

"""Databento's Historical API through the vendor's own client, or any gateway that speaks it.

Free calls say what there is and what it costs; only :meth:`Databento.download` is billed. ``databento`` itself is
imported by the first call.
"""

from __future__ import annotations

import datetime as dt
import difflib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl
import structlog
from pydantic import SecretStr

from hdi.errors import HdiError, NothingResolved, RequestError, VendorUnavailable
from hdi.frames import NAMED, RESOLVED
from hdi.model import MOST_SYMBOLS, Condition, Order, Quote, Window, date_ns, ns_date, parse_instant
from hdi.sources import Allowance, BatchFile, BatchJob, Reached
from hdi.sources.breaker import Breaker
from hdi.sources.databento_batch import Batch, amount, counted, declared
from hdi.sources.databento_calls import Calls
from hdi.sources.databento_gateway import OFFICIAL, Gateway
from hdi.sources.databento_receive import Loss, receive
from hdi.sources.databento_refusals import Ask, RequestRefused
from hdi.sources.retries import Retries
from hdi.symbology import ALL_SYMBOLS

if TYPE_CHECKING:
    from databento import Historical

T = TypeVar("T")

log = structlog.get_logger(component="DatabentoAdapter")


@dataclass(frozen=True, slots=True)
class Download:
    """What a download took: bytes of the file, tries in all, seconds, and what broken tries brought and billed."""

    size: int
    tries: int
    seconds: float
    lost: Loss

    @property
    def wasted(self) -> int:
        """Bytes that were billed for broken tries, at least."""
        return self.lost.billed


class DownloadBroken(VendorUnavailable):
    """Every try of a download failed. ``download`` says what they brought before they broke: it is billed."""

    def __init__(self, message: str, hint: str, download: Download) -> None:
        super().__init__(message, hint, download.lost.billed)
        self.download = download


class Databento:
    """The vendor's service for one key. Threads may share it; nothing is asked before the first call.

    ``gateway`` empty means the vendor's own host. ``tries`` are tries in all for what may pass (429, 5xx, no answer),
    ``backoff_seconds`` the first wait between them, ``timeout`` seconds for a connection and for each wait for bytes
    (a stream that drips never times out). ``on_wait`` is told why there is a wait, and for how many seconds.

    Every call may raise AccountRefused (key, account or licence: all later calls would fail too), RequestError for
    what the vendor cannot serve, VendorUnavailable when no try was answered, VendorRefused for a certificate that is
    not trusted, and RequestError before anything is asked when there is no key of the right form.
    """

    def __init__(
        self,
        key: str | SecretStr | None,
        gateway: str = "",
        *,
        tries: int = 5,
        backoff_seconds: float = 0.5,
        timeout: float = 100.0,
        on_wait: Callable[[str, float], None] | None = None,
    ) -> None:
        address = Gateway.parse(gateway)
        self.origin = address.origin
        self.gateway = address.url
        secret = key.get_secret_value() if isinstance(key, SecretStr) else key
        self._calls = Calls(secret, address, Retries(tries, backoff_seconds, on_wait), timeout)
        self._batch = Batch(self._calls, secret, timeout)

    @property
    def breaker(self) -> Breaker:
        """What keeps calls from leaving after the account was refused; all of the process with this key share it."""
        return self._calls.breaker

    def available(self, dataset: str) -> dict[str, Window]:
        """The stretch of time that this account can order, by schema; schemas without any are left out."""
        found = self._ask(
            Ask("metadata.get_dataset_range", dataset), lambda client: client.metadata.get_dataset_range(dataset)
        )
        with declared("metadata.get_dataset_range"):
            windows = {
                str(schema): (parse_instant(span["start"])[0], parse_instant(span["end"])[0])
                for schema, span in found["schema"].items()  # type: ignore[attr-defined]  # typed as text by the client
            }
        return {schema: Window(start, end) for schema, (start, end) in windows.items() if start < end}

    def resolve(self, dataset: str, symbols: Sequence[str], stype: str, window: Window) -> pl.DataFrame:
        """:data:`hdi.frames.RESOLVED`: what each symbol, as it was spelt, stands for on the window's UTC days.

        A symbol that stands for nothing has no row. ALL_SYMBOLS has none either: what it stands for cannot be asked,
        the downloaded bytes say it.
        """
        asked: dict[str, list[str]] = {}
        for symbol in dict.fromkeys(symbols):
            if symbol.upper() != ALL_SYMBOLS:
                asked.setdefault(_as_sent(symbol, stype), []).append(symbol)
        # The answer for a parent is keyed by its children: only alone is it clear whose they are.
        most = 1 if stype == "parent" else MOST_SYMBOLS
        rows: list[tuple[str, int, int, int]] = []
        for sent in _chunks(list(asked), most):
            for key, start, end, value in self._intervals(dataset, sent, stype, "instrument_id", window):
                parent = sent[0] if stype == "parent" else key
                rows += [(name, int(value), start, end) for name in asked.get(parent, ())]
        return pl.DataFrame(rows, schema=RESOLVED, orient="row").unique().sort("asked", "start", "instrument_id", "end")

    def raw_symbols(self, dataset: str, instruments: Sequence[int], window: Window) -> pl.DataFrame:
        """:data:`hdi.frames.NAMED`: the raw symbols of instruments on the window's UTC days."""
        rows: list[tuple[int, int, int, str]] = []
        for sent in _chunks([str(i) for i in dict.fromkeys(instruments)], MOST_SYMBOLS):
            for key, start, end, value in self._intervals(dataset, sent, "instrument_id", "raw_symbol", window):
                rows.append((int(key), start, end, value))
        return pl.DataFrame(rows, schema=NAMED, orient="row").unique().sort("instrument_id", "start", "end")

    def _intervals(
        self, dataset: str, symbols: list[str], stype_in: str, stype_out: str, window: Window
    ) -> Iterator[tuple[str, int, int, str]]:
        """(key, start, end, value) of one answer, cut to the window's days. Nothing when no symbol is known there."""
        first, last = ns_date(window.start), ns_date(window.end - 1) + dt.timedelta(days=1)
        days = Window(date_ns(first), date_ns(last))
        ask = Ask("symbology.resolve", dataset, Order(dataset, "", stype_in, tuple(symbols), window))
        try:
            answer = self._ask(
                ask, lambda client: client.symbology.resolve(dataset, symbols, stype_in, stype_out, first, last)
            )
        except NothingResolved:
            return
        with declared(ask.method):
            found = [
                (
                    str(key),
                    date_ns(dt.date.fromisoformat(i["d0"])),
                    date_ns(dt.date.fromisoformat(i["d1"])),
                    str(i["s"]),
                )
                for key, intervals in answer["result"].items()
                for i in intervals
                if i["s"]
            ]
            if stype_out == "instrument_id":
                [int(value) for *_, value in found]
        for key, start, end, value in found:
            if (span := Window(start, end).cut(days)) is not None:
                yield key, span.start, span.end, value

    def everything(self, dataset: str, window: Window) -> pl.DataFrame:
        """:data:`hdi.frames.NAMED`: every instrument of the window's UTC days; no row where the vendor cannot say.

        The vendor resolves all symbols of some datasets only.
        """
        try:
            rows = [
                (int(value), start, end, key)
                for key, start, end, value in self._intervals(
                    dataset, [ALL_SYMBOLS], "raw_symbol", "instrument_id", window
                )
            ]
        except RequestRefused as error:
            log.info("all symbols cannot be resolved", dataset=dataset, error=error.message)
            rows = []
        return pl.DataFrame(rows, schema=NAMED, orient="row").unique().sort("instrument_id", "start", "end")

    def conditions(self, dataset: str, window: Window) -> list[Condition]:
        """What the vendor says of each day of the window that it knows, by day."""
        first, last = ns_date(window.start), ns_date(window.end - 1)
        answer = self._ask(
            Ask("metadata.get_dataset_condition", dataset),
            lambda client: client.metadata.get_dataset_condition(dataset, first, last),
        )
        with declared("metadata.get_dataset_condition"):
            found = [_condition(day) for day in answer]
        return sorted((c for c in found if first <= c.day <= last), key=lambda c: c.day)

    def quote(self, order: Order) -> Quote:
        """Records, billed bytes and dollars of exactly what :meth:`download` would order; free."""
        terms = _terms(order)
        # At once: over a real network each call is mostly waiting.
        with ThreadPoolExecutor(max_workers=3, thread_name_prefix="hdi-quote") as pool:
            records = pool.submit(self.count, order)
            size = pool.submit(
                self._order, "metadata.get_billable_size", order, lambda c: c.metadata.get_billable_size(**terms)
            )
            cost = pool.submit(self._order, "metadata.get_cost", order, lambda c: c.metadata.get_cost(**terms))
        found, billed, dollars = records.result(), size.result(), cost.result()
        with declared("metadata.get_cost"):
            return Quote(found, counted(billed), amount(dollars))

    def count(self, order: Order) -> int:
        """How many records the order brings; free."""
        terms = _terms(order)
        found = self._order("metadata.get_record_count", order, lambda c: c.metadata.get_record_count(**terms))
        with declared("metadata.get_record_count"):
            return counted(found)

    def download(self, order: Order, path: Path, may_waste: Callable[[int], bool] = lambda _: True) -> Download:
        """Bring the order's zstd DBN bytes to ``path``, which must not exist. The only call that is billed.

        What arrives is not judged here: the service may end a stream early and cleanly, so its reader has to compare
        the count. A try that breaks leaves no file, and is billed for what it brought: each is logged, counted in
        ``lost``, and followed by the next try. Raises DownloadBroken when all of them broke; whatever is raised says
        in ``wasted`` what was billed.
        """
        if path.exists():
            raise RequestError(f"{path} exists already", "A download never overwrites: name another file.")
        terms = _terms(order)
        began, tries, lost = time.monotonic(), 0, Loss()

        def lose(loss: Loss) -> None:
            nonlocal lost
            lost += loss
            if not may_waste(lost.billed):
                raise VendorUnavailable("the stream broke off, and another try might cost more than the budget")

        def attempt(client: Historical) -> None:
            nonlocal tries
            tries += 1
            receive(client, terms, path, lose)

        try:
            self._order("timeseries.get_range", order, attempt)
        except VendorUnavailable as error:
            took = Download(0, tries, time.monotonic() - began, lost)
            raise DownloadBroken(error.message, f"{lost.sentence}{error.hint}", took) from error
        except HdiError as error:
            error.hint = f"{lost.sentence}{error.hint}"
            error.wasted = lost.billed
            raise
        done = Download(path.stat().st_size, tries, time.monotonic() - began, lost)
        log.info(
            "downloaded", dataset=order.dataset, schema=order.schema, symbols=len(order.symbols),
            window=str(order.window), bytes=done.size, tries=tries, seconds=round(done.seconds, 3),
        )  # fmt: skip
        return done

    def account(self) -> str:
        """Whose batch jobs they are: the key and the gateway, not to be read back."""
        return self._calls.account

    def submit(self, order: Order, split: str) -> BatchJob:
        """Have the order prepared as files: billed as a download is, once. Unanswered where nobody knows."""
        return self._batch.submit(order, _terms(order), split)

    def batch_jobs(self, since: int) -> list[BatchJob]:
        """The account's jobs that were submitted since (nanoseconds UTC), oldest first."""
        return self._batch.jobs(since)

    def batch_job(self, job: str, dataset: str) -> BatchJob:
        """One job."""
        return self._batch.job(job, dataset)

    def batch_files(self, job: str, dataset: str) -> list[BatchFile]:
        """The data files of a job that is done, by name."""
        return self._batch.files(job, dataset)

    def fetch(self, file: BatchFile, path: Path, dataset: str) -> None:
        """Bring a file to ``path``, from where an earlier try has left it; its SHA-256 is what is listed. Free."""
        self._batch.fetch(file, path, dataset)

    def local(self) -> bool:
        """True where the gateway is on this machine."""
        return self._calls.gateway.local

    def official(self) -> bool:
        """True for the vendor's own gateway."""
        return self._calls.gateway.host == OFFICIAL

    def check_key(self) -> None:
        """RequestError where there is no key, or none of the right form."""
        self._calls.check_key()

    def reach(self) -> Reached:
        """Ask the gateway without a key, in one try, and compare clocks; see :meth:`hdi.sources.Diagnosed.reach`."""
        return self._calls.reach()

    def datasets(self) -> list[str]:
        """The datasets that the key opens, really asked in one try."""
        ask = Ask("metadata.list_datasets")
        found = self._calls.make(ask, lambda client: client.metadata.list_datasets(), once=True)
        return sorted(map(str, found))

    def allowances(self) -> list[Allowance]:
        """What is left of the vendor's limits of calls, by this process's own count."""
        return self._calls.allowances()

    def check(self) -> dict[str, Any]:
        """``valid``, ``gateway``, ``origin``, ``datasets`` (how many) and ``seconds``, really asked, in one try."""
        began = time.monotonic()
        datasets = self.datasets()
        seconds = round(time.monotonic() - began, 3)
        return {
            "valid": True, "gateway": self.gateway, "origin": self.origin, "datasets": len(datasets),
            "seconds": seconds,
        }  # fmt: skip

    def _order(self, method: str, order: Order, work: Callable[[Historical], T]) -> T:
        return self._ask(Ask(method, order.dataset, order), work)

    def _ask(self, ask: Ask, work: Callable[[Historical], T]) -> T:
        """What the call answers; where the vendor knows no such dataset or schema, an error with the closest names."""
        try:
            return self._calls.make(ask, work)
        except RequestRefused as error:
            raise self._closest(ask) or error from error

    def _closest(self, ask: Ask) -> RequestError | None:
        """The error that names what is close to an unknown dataset or schema; None when the vendor knows both."""
        lists: tuple[tuple[str, str, str, Callable[[Historical], list[str]]], ...] = (
            ("dataset", ask.dataset, "metadata.list_datasets", lambda c: c.metadata.list_datasets()),
            ("schema", ask.order.schema if ask.order else "", "metadata.list_schemas",
             lambda c: c.metadata.list_schemas(ask.dataset)),
        )  # fmt: skip
        for kind, name, method, work in lists:
            if not name:
                continue
            try:
                known = self._calls.make(Ask(method, ask.dataset), work, once=True)
            except HdiError as error:
                log.debug("the names that the vendor knows could not be asked for", method=method, error=error.message)
                return None
            if name not in known:
                where = f" in {ask.dataset}" if kind == "schema" else ""
                return RequestRefused(f"there is no {kind} {name!r}{where}", _known(name, known))
        return None


def _terms(order: Order) -> dict[str, Any]:
    """The parameters of an order, the same for its quote: times as nanoseconds, which is exact."""
    return {
        "dataset": order.dataset, "schema": order.schema, "stype_in": order.stype,
        "symbols": [_single(symbol) for symbol in order.symbols], "start": order.window.start, "end": order.window.end,
    }  # fmt: skip


def _as_sent(symbol: str, stype: str) -> str:
    """The symbol as the client sends it, and the service repeats it."""
    tokens = _single(symbol).upper().split(".")
    if stype == "continuous" and len(tokens) == 3:  # noqa: PLR2004 - root, rule, rank
        tokens[1] = tokens[1].lower()
    return ".".join(tokens)


def _single(symbol: str) -> str:
    """The symbol, when it is one: the client would split it at commas, and send an empty one."""
    if not symbol.strip() or "," in symbol:
        raise RequestError(f"{symbol!r} is not one symbol", "Name each symbol by itself.")
    return symbol.strip()


def _condition(day: Mapping[str, str | None]) -> Condition:
    modified = day["last_modified_date"]
    return Condition(
        dt.date.fromisoformat(str(day["date"])),
        str(day["condition"]),
        dt.date.fromisoformat(modified) if modified else None,
    )


def _known(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name.lower(), [k.lower() for k in known], 3, 0.5)
    names = [k for c in close for k in known if k.lower() == c]
    return (f"Did you mean {' or '.join(names)}? " if names else "") + f"Known: {', '.join(sorted(known))}."


def _chunks(items: list[str], most: int) -> Iterator[list[str]]:
    for at in range(0, len(items), most):
        yield items[at : at + most]


#: What ``hdi.sources.open_source`` calls, with the settings of the group.
open = Databento  # noqa: A001

__all__ = ["Databento", "Download", "DownloadBroken", "Loss", "RequestRefused", "open"]

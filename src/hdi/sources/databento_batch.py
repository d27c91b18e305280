"""The vendor's batch jobs: submitted once, looked at, and their files brought by our own downloads.

The vendor's client never gives up on a file that does not come, and only warns of one whose SHA-256 is wrong.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import structlog

from hdi import raw
from hdi.errors import DataError, RequestError, UnitFailed, VendorUnavailable
from hdi.model import Order, Window, parse_instant
from hdi.sources import BatchFile, BatchJob
from hdi.sources.databento_calls import Calls
from hdi.sources.databento_gateway import OFFICIAL, Gateway, check_key
from hdi.sources.databento_refusals import Ask
from hdi.sources.retries import Transient

if TYPE_CHECKING:
    from requests import Response, Session

T = TypeVar("T")

_STATES = "received,queued,processing,done,expired"
#: Not among the states of the vendor's client; one that failed was submitted all the same.
_FAILED = f"{_STATES},failed"
_SHA256 = re.compile(r"sha256:([0-9a-f]{64})")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
#: A plain file name: nothing that leads to another folder.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ @+-]{0,149}")
_DATA = ".dbn.zst"
_PIECE = 1 << 18
#: What one round of tries has to bring of a file for another round to be worth it.
_WORTH = 1 << 16
_PARTIAL = 206
log = structlog.get_logger(component="DatabentoAdapter")


class Batch:
    """The jobs of one account. Threads may share it; nothing is asked before the first call."""

    def __init__(self, calls: Calls, key: str | None, timeout: float) -> None:
        self._calls = calls
        self._key = key
        self._timeout = timeout
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._states = _FAILED

    def submit(self, order: Order, terms: Mapping[str, Any], split: str) -> BatchJob:
        """Submit a job: the only billed call. Unanswered where it may have been taken all the same."""
        ask = Ask("batch.submit_job", order.dataset, order)
        found = self._calls.make(
            ask,
            lambda c: c.batch.submit_job(
                **terms, encoding="dbn", compression="zstd", split_duration=split, delivery="download"
            ),
            sure=True,
        )
        with declared(ask.method):
            return _job(found)

    def jobs(self, since: int) -> list[BatchJob]:
        """The account's jobs since, in any state; those of other forms than ours are left out."""
        ask = Ask("batch.list_jobs")
        try:
            found = self._calls.make(ask, lambda c: c.batch.list_jobs(states=self._states, since=since))
        except RequestError:
            if self._states == _STATES:
                raise
            self._states = _STATES
            found = self._calls.make(ask, lambda c: c.batch.list_jobs(states=self._states, since=since))
        with declared(ask.method):
            return sorted((_job(each) for each in found if _ours(each)), key=lambda job: job.received)

    def job(self, name: str, dataset: str) -> BatchJob:
        """One job."""
        ask = Ask("batch.get_job_details", dataset)
        found = self._calls.make(ask, lambda c: c.batch.get_job_details(name))
        with declared(ask.method):
            return _job(found)

    def files(self, name: str, dataset: str) -> list[BatchFile]:
        """The data files of a job, by name."""
        ask = Ask("batch.list_files", dataset)
        listed = self._calls.make(ask, lambda c: c.batch.list_files(name))
        with declared(ask.method):
            files = [_file(name, each) for each in listed]
        return sorted((f for f in files if f.name.endswith(_DATA)), key=lambda file: file.name)

    def fetch(self, file: BatchFile, path: Path, dataset: str) -> None:
        """Bring a file, whole and with the SHA-256 that is listed; a wrong one is brought once more from its start."""
        for last in (False, True):
            self._bring(file, path, dataset)
            if raw.file_digest(path) == file.digest:
                return
            path.unlink()
            log.warning("a file of a batch job has another SHA-256 than is listed", file=file.name, again=not last)
        raise UnitFailed(
            f"{file.name} of batch job {file.job}: its bytes have another SHA-256 than the vendor lists, twice",
            "Nothing of it was used. Run the same command again: to download it is free as long as the job lives.",
        )

    def _bring(self, file: BatchFile, path: Path, dataset: str) -> None:
        """Bring what is missing of a file, in as many rounds of tries as each bring it further."""
        ask = Ask("batch.download", dataset)
        while True:
            before = _size(path)
            try:
                self._calls.make(ask, lambda _: self._receive(file, path))
            except VendorUnavailable:
                if _size(path) < before + _WORTH:
                    raise
            else:
                return

    def _receive(self, file: BatchFile, path: Path) -> None:
        """One try: append what comes. Transient when it ends before all has come."""
        have = _size(path)
        if have > file.size:  # not what this file is about
            path.unlink()
            have = 0
        if have == file.size:
            return
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-{file.size - 1}"} if have else {})
        with self._get(file.url, headers) as response:
            resumed = have > 0 and response.status_code == _PARTIAL and _starts(response, have)
            if have and not resumed:
                log.info("the vendor ignores Range: the file is brought from its start", file=file.name)
            with path.open("ab" if resumed else "wb") as out:
                for piece in _pieces(response):
                    out.write(piece)
                    if out.tell() > file.size:
                        break
        if (size := _size(path)) != file.size:
            if size > file.size:
                path.unlink()
            raise Transient(f"{size} of {file.size} bytes of {file.name} came", "Run it again: what came is kept.")

    def _get(self, url: str, headers: Mapping[str, str]) -> Response:
        """The answer; only the gateway is shown the key. Raises as the vendor's client does."""
        from databento.common.http import check_http_error

        key = check_key(self._key)
        auth = (key, "") if trusted(url, self._calls.gateway) else _nobody
        waits = (self._timeout, self._timeout)
        response = self._open().get(url, headers=dict(headers), auth=auth, stream=True, timeout=waits)
        try:
            check_http_error(response)
        except BaseException:
            response.close()
            raise
        return response

    def _open(self) -> Session:
        """One session for all files, so that connections are used again."""
        from requests import Session
        from requests.adapters import HTTPAdapter

        with self._lock:
            if self._session is None:
                self._session = Session()
                self._session.mount("https://", HTTPAdapter(pool_maxsize=16))
            return self._session


def trusted(url: str, gateway: Gateway) -> bool:
    """Whether an address may be shown the key: the gateway's own, and where that is the vendor's, other hosts of it."""
    there, here = urlsplit(url), urlsplit(gateway.url)
    if there.scheme != "https" or there.username is not None:
        return False
    if (there.hostname, there.port or 443) == (here.hostname, here.port or 443):
        return True
    domain = OFFICIAL.partition(".")[2]
    return gateway.host == OFFICIAL and there.port in (None, 443) and str(there.hostname).endswith(f".{domain}")


def _nobody(request: Any) -> Any:
    """Authentication of nobody: without it a .netrc would be looked at."""
    return request


def _pieces(response: Response) -> Iterator[bytes]:
    """The body as it arrives: what has come before it breaks off is given too."""
    from urllib3.exceptions import HTTPError

    try:
        while piece := response.raw.read1(_PIECE, decode_content=False):
            yield piece
    except HTTPError as error:
        hint = "Run it again: what came is kept."
        raise Transient(f"the file broke off ({type(error).__name__})", hint) from error


def _starts(response: Response, at: int) -> bool:
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return match is not None and int(match[1]) == at


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _ours(found: Mapping[str, Any]) -> bool:
    """Whether a job is of the form that is submitted here."""
    form = {"encoding": "dbn", "compression": "zstd", "limit": None, "split_symbols": False, "split_size": None}
    return all(found.get(name, value) in (value, str(value)) for name, value in form.items())


def _job(found: Mapping[str, Any]) -> BatchJob:
    symbols = found["symbols"]
    names = tuple(symbols.split(",") if isinstance(symbols, str) else map(str, symbols))
    window = Window(_instant(found["start"]), _instant(found["end"]))
    order = Order(str(found["dataset"]), str(found["schema"]), str(found["stype_in"]), names, window)
    cost, count, progress = (found.get(name) for name in ("cost_usd", "record_count", "progress"))
    return BatchJob(
        _plain(str(found["id"])), str(found["state"]), order, str(found.get("split_duration") or "none"),
        _instant(found["ts_received"]), None if progress is None else int(progress),
        None if count is None else counted(count), None if cost is None else amount(cost),
    )  # fmt: skip


def _file(job: str, found: Mapping[str, Any]) -> BatchFile:
    match = _SHA256.fullmatch(str(found["hash"]).lower())
    if match is None:
        raise ValueError(f"{found['hash']!r} is no SHA-256")
    url = str(found["urls"]["https"])
    if urlsplit(url).scheme != "https" or not urlsplit(url).hostname:
        raise ValueError(f"{url!r} is not an address by https")
    return BatchFile(job, _plain(str(found["filename"])), counted(found["size"]), match[1], url)


def _plain(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no plain name")
    return name


def counted(value: Any) -> int:
    """A number of things. ValueError for what is none."""
    if (number := int(value)) < 0:
        raise ValueError(f"{value!r} is no number of things")
    return number


def amount(value: Any) -> Decimal:
    """US dollars. ValueError for what is no price."""
    dollars = Decimal(str(value))
    if not dollars.is_finite() or dollars < 0:
        raise ValueError(f"{value!r} is no price")
    return dollars


def _instant(value: object) -> int:
    return value if isinstance(value, int) else parse_instant(str(value))[0]


@contextmanager
def declared(method: str) -> Iterator[None]:
    """Make an answer of another form than the vendor declares a DataError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RequestError) as error:
        raise DataError(
            f"the answer of {method} is not of the form that the vendor declares: {error!r}",
            "Is it the gateway that you mean? (DATABENTO_GATEWAY) A newer version of hdi may know the form.",
        ) from error


__all__ = ["Batch", "amount", "counted", "declared", "trusted"]

"""HTTPS on loopback: turns requests into calls, answers into bytes, and breaks them where a fault says so.

Beside the vendor's API it has addresses of its own, without a key: ``/rehearsal/books`` (GET, DELETE),
``/rehearsal/faults`` (GET; POST ``{"fault": "503:times=2"}``; DELETE) and ``/rehearsal/until`` (GET; POST
``{"until": "2024-07-02"}``: data ends at midnight UTC of that day from now on, which is no earlier one).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import datetime as dt
import json
import math
import re
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from hdi.errors import RequestError
from hdi.rehearsal import refusals
from hdi.rehearsal.batch import Download
from hdi.rehearsal.certificates import HOST, server_context
from hdi.rehearsal.faults import DOWNLOAD, METHODS, Call, Fault, parse
from hdi.rehearsal.limits import Limits
from hdi.rehearsal.refusals import Refusal
from hdi.rehearsal.service import Answer, Service
from hdi.rehearsal.stream import Stream

MARK = ("x-rehearsal", "synthetic")
_KEY = re.compile(r"db-[A-Za-z0-9]{29}")
_ROOT = "/v0/"
_POSTED = frozenset(
    {"metadata.get_record_count", "metadata.get_billable_size", "metadata.get_cost", "symbology.resolve",
     "timeseries.get_range", "batch.submit_job"}
)  # fmt: skip
#: The address of one file of a batch job.
_FILE = re.compile(r"/v0/batch/download/[^/]+/(?P<job_id>[^/]+)/(?P<filename>[^/]+)")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_PIECE = 1 << 18
#: Where the connection ends of a file that is cut, unless it is said.
_AFTER = 1_000
#: 2,000 symbols come nowhere near.
_MAX_BODY = 1 << 20
_MAX_DRAINED = 64 << 20
#: An idle connection is closed after so many seconds, and so is a handshake that does not come.
_IDLE = 60.0
#: How often the server looks whether it is to stop, and a paced stream sends.
_TICK = 0.02
#: How long a stop waits for answers that are under way.
_PATIENCE = 5.0
_GATEWAY_PAGE = b"<html><head><title>504 Gateway Time-out</title></head><body>SYNTHETIC</body></html>"
_BROKEN = (ConnectionError, TimeoutError, ssl.SSLError)
#: Makes the close of a socket a reset.
_NO_LINGER = struct.pack("ii", 1, 0)


class Server(ThreadingHTTPServer):
    """Serves one :class:`Service` on a loopback port (0: any). Raises RequestError when the port is taken."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, service: Service, limits: Limits, port: int = 0) -> None:
        self.service = service
        self.limits = limits
        self._secure = server_context()
        self.stopping = threading.Event()
        self.numbers = count(1)
        self._live: dict[threading.Thread, ssl.SSLSocket] = {}
        self._lock = threading.Lock()
        try:
            super().__init__((HOST, port), _Handler)
            service.root = self.gateway
        except (OSError, OverflowError) as exc:
            raise RequestError(f"port {port} of {HOST} cannot be used: {exc}", "--port 0 takes any free one.") from exc

    @property
    def gateway(self) -> str:
        """The address for clients."""
        return f"https://{HOST}:{self.server_address[1]}"

    @property
    def crowded(self) -> bool:
        """True when there are more connections than are allowed at once."""
        most = self.limits.connections
        return most is not None and len(self._live) > most

    def run(self) -> None:
        """Serve until :meth:`stop`."""
        self.serve_forever(_TICK)

    def stop(self) -> None:
        """Stop serving, break off what is under way, and wait until all of it has ended."""
        self.stopping.set()
        self.shutdown()
        self.server_close()
        with self._lock:
            live = dict(self._live)
        for connection in live.values():
            with contextlib.suppress(OSError):
                # The method of the plain socket: the one of TLS takes its state away from a thread that still reads.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        for worker in live:
            worker.join(_PATIENCE)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give each connection a thread, which is also where its handshake happens."""
        request.settimeout(_IDLE)
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        secure = self._secure.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        worker = threading.Thread(target=self._work, args=(secure, client_address), daemon=True)
        with self._lock:
            self._live[worker] = secure
        worker.start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print the traceback of anything but a client that went away."""
        if not isinstance(sys.exc_info()[1], _BROKEN):
            super().handle_error(request, client_address)

    def _work(self, secure: ssl.SSLSocket, client_address: Any) -> None:
        try:
            with secure, contextlib.suppress(*_BROKEN):
                secure.do_handshake()
                self.process_request_thread(secure, client_address)
        finally:
            with self._lock:
                del self._live[threading.current_thread()]


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "hdi-rehearsal"
    sys_version = ""
    timeout = _IDLE
    #: Whether an answer to this request has begun.
    _begun = False

    def do_GET(self) -> None:
        """Answer a GET."""
        self._serve()

    def do_POST(self) -> None:
        """Answer a POST."""
        self._serve()

    def do_DELETE(self) -> None:
        """Answer a DELETE, which only the rehearsal's own addresses take."""
        self._serve()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the name is the parent's)
        """Nothing: the books tell what was asked."""

    def _serve(self) -> None:
        address = urlsplit(self.path)
        self._begun = False
        try:
            sent = self._sent()
            if address.path.startswith("/rehearsal/"):
                self._own(address.path, sent)
                return
            call = self._call(address.path, address.query, sent)
            answer = self._answer(call)
            if answer is not None:
                self._put(answer)
        except Refusal as refusal:
            self._refuse(refusal)
        except _BROKEN:
            self.close_connection = True
        except Exception:
            # What was sent must not be taken for a whole answer; stderr has the traceback.
            if self._begun:
                self._hang_up(reset=True)
            else:
                self._refuse(refusals.plain(500))
            raise

    def _sent(self) -> str:
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > _MAX_BODY:
            self.close_connection = True
            self._drain(int(length) if length.isdigit() else 0)
            raise Refusal(413, "The request is too large.")
        return self.rfile.read(int(length)).decode("utf-8", "replace")

    def _drain(self, left: int) -> None:
        """Read what will not be used: a client that is still sending would not see the answer."""
        left = min(left, _MAX_DRAINED)
        while left > 0 and (data := self.rfile.read(min(left, 1 << 16))):
            left -= len(data)

    def _call(self, path: str, query: str, sent: str) -> Call:
        if self.command == "GET" and (file := _FILE.fullmatch(path)):
            self.server.service.books.count(DOWNLOAD)
            return Call(DOWNLOAD, file.groupdict(), self._key())
        method = path.removeprefix(_ROOT)
        if not path.startswith(_ROOT) or method not in METHODS:
            raise Refusal(404, f"Not Found: {path} is not rehearsed.")
        if (self.command == "POST") != (method in _POSTED):
            raise Refusal(405, "Method Not Allowed.")
        self.server.service.books.count(method)
        return Call(method, dict(parse_qsl(f"{query}&{sent}")), self._key())

    def _key(self) -> str:
        """The key that was given, "" for none."""
        kind, _, value = self.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "basic":
            return ""
        try:
            return base64.b64decode(value, validate=True).decode("ascii").partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            return ""

    def _answer(self, call: Call) -> Answer | Stream | Download | None:
        """The answer; None when a fault has already seen to it."""
        service = self.server.service
        fault = service.faults.take("answer", call)
        if fault is not None and self._broken(fault):
            return None
        if fault is not None:
            raise service.refusal(fault, call)
        if not _KEY.fullmatch(call.key):
            raise refusals.account(401)
        wait = 1.0 if self.server.crowded else self.server.limits.wait(call.key, call.method)
        if wait:
            raise refusals.plain(429, wait)
        return service.answer(call)

    def _broken(self, fault: Fault) -> bool:
        """Do what a fault below HTTP does; False for one that is an answer."""
        if fault.kind == "timeout":
            self.server.stopping.wait(fault.options.get("seconds"))
            self._hang_up()
        elif fault.kind == "reset":
            self._hang_up(reset=True)
        elif fault.kind == "504":
            self._head(504, {"Content-Type": "text/html", "Content-Length": str(len(_GATEWAY_PAGE))})
            self.wfile.write(_GATEWAY_PAGE)
        return fault.kind in ("timeout", "reset", "504")

    def _put(self, answer: Answer | Stream | Download) -> None:
        if isinstance(answer, Answer):
            if answer.lost:
                self._hang_up(reset=True)
            else:
                self._json(answer.status, answer.document)
            return
        if isinstance(answer, Download):
            self._file(answer)
            return
        self._head(answer.request.status, {"Content-Type": "application/octet-stream", "Transfer-Encoding": "chunked"})
        answer.send(_Chunks(self, answer.rate))

    def _file(self, download: Download) -> None:
        """Send a file or the part of it that is asked for; with a fault, something else."""
        file, kind = download.file, download.fault.kind if download.fault else ""
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        first, last = 0, file.size - 1
        fields = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        whole = asked is None or kind == "no-range" or file.name.endswith(".zip")
        if asked and not whole:
            first, last = int(asked[1]), min(int(asked[2] or last), last)
            if first > last:
                self._head(416, {"Content-Range": f"bytes */{file.size}", "Content-Length": "0"})
                return
            fields["Content-Range"] = f"bytes {first}-{last}/{file.size}"
        self._head(200 if whole else 206, fields | {"Content-Length": str(last - first + 1)})
        left = last - first + 1
        if download.fault is not None and kind == "cut-file":
            left = min(left - 1, download.fault.options.get("after", _AFTER))
        with file.path.open("rb") as source:
            source.seek(first)
            while left > 0 and (data := source.read(min(left, _PIECE))):
                if kind == "bad-file":  # the middle of what is sent, once
                    at = len(data) // 2
                    data, kind = data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :], ""
                self.wfile.write(data)
                left -= len(data)
        if kind == "cut-file":
            self._hang_up()

    def _refuse(self, refusal: Refusal) -> None:
        extra = {"Retry-After": refusal.retry_after} if refusal.retry_after else {}
        with contextlib.suppress(*_BROKEN):
            self._json(refusal.status, refusal.document(), extra)

    def _json(self, status: int, document: Any, extra: Mapping[str, str] | None = None) -> None:
        data = json.dumps(document).encode()
        self._head(status, {"Content-Type": "application/json", "Content-Length": str(len(data)), **(extra or {})})
        self.wfile.write(data)

    def _head(self, status: int, fields: Mapping[str, str]) -> None:
        self._begun = True
        self.send_response(status)
        own = {MARK[0]: MARK[1], "request-id": f"rehearsal-{next(self.server.numbers):08d}"}
        for name, value in {**own, **fields}.items():
            self.send_header(name, value)
        self.end_headers()

    def _hang_up(self, *, reset: bool = False) -> None:
        """Close the TCP connection without a word of TLS; ``reset`` throws away what is not sent yet."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            if reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            bare = socket.socket(fileno=self.connection.detach())
            bare.close()

    def _own(self, path: str, sent: str) -> None:
        service = self.server.service
        try:
            if path == "/rehearsal/books":
                if self.command == "DELETE":
                    service.books.reset()
                self._json(200, service.books.document())
            elif path == "/rehearsal/faults":
                if self.command == "DELETE":
                    service.faults.clear()
                elif self.command == "POST":
                    service.faults.add(parse(_spec(sent)))
                self._json(200, {"faults": service.faults.document()})
            elif path == "/rehearsal/until":
                if self.command == "POST":
                    service.advance(_day(sent))
                self._json(200, {"until": str(service.until)})
            else:
                raise Refusal(404, f"Not Found: {path}.")
        except RequestError as exc:
            raise Refusal(400, str(exc)) from exc


class _Chunks:
    """The chunked body of one answer."""

    def __init__(self, handler: _Handler, rate: int | None) -> None:
        self._handler = handler
        self._rate = rate

    def send(self, data: bytes) -> None:
        """Send one chunk, or several at the pace that is set."""
        for part in self._paced(data):
            self._handler.wfile.write(b"%X\r\n%b\r\n" % (len(part), part))

    def end(self) -> None:
        """Send the chunk that ends the body."""
        self._handler.wfile.write(b"0\r\n\r\n")

    def hang_up(self) -> None:
        """Close the connection between two chunks, so that all that was sent arrives."""
        self._handler._hang_up()  # noqa: SLF001  (one thing in two classes)

    def _paced(self, data: bytes) -> Iterator[bytes]:
        if self._rate is None:
            if data:  # an empty chunk would end the body
                yield data
            return
        step = max(1, math.ceil(self._rate * _TICK))
        for at in range(0, len(data), step):
            yield data[at : at + step]
            if self._handler.server.stopping.wait(step / max(1, self._rate)):
                raise ConnectionAbortedError("the server stops")


def _spec(sent: str) -> str:
    try:
        found = json.loads(sent)["fault"]
    except (ValueError, KeyError, TypeError) as exc:
        raise RequestError('POST {"fault": "kind:key=value,..."}') from exc
    return str(found)


def _day(sent: str) -> dt.date:
    try:
        return dt.date.fromisoformat(json.loads(sent)["until"])
    except (ValueError, KeyError, TypeError) as exc:
        raise RequestError('POST {"until": "YYYY-MM-DD"}') from exc

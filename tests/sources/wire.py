"""An HTTPS server on loopback that answers with the bytes a test wrote down: what no service should say."""

import functools
import json
import ssl
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import trustme


@functools.cache
def authority():
    return trustme.CA()


@functools.cache
def context():
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("127.0.0.1", "localhost").configure_cert(made)
    return made


@dataclass
class Reply:
    """One answer. ``cut``: the connection ends after so many bytes of the body, ``stall`` seconds later."""

    status: int = 200
    body: bytes = b"[]"
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    stall: float = 0.0


def detail(status, detail, **headers):
    """An error with that ``detail``."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, json.dumps({"detail": detail}).encode(), names)


class Wire(ThreadingHTTPServer):
    """Answers each method with its replies in order; the last one stays. ``plain``: without TLS."""

    daemon_threads = True

    def __init__(self, *, plain=False):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.replies = {}
        self.calls = Counter()
        self.asked = []
        #: The headers of each request, in their order.
        self.heads = []
        self.plain = plain
        self.stopping = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.shutdown()
        self.server_close()

    @property
    def gateway(self):
        return f"https://127.0.0.1:{self.server_address[1]}"

    def says(self, method, *replies):
        self.replies[method] = list(replies)

    def next(self, method, fields):
        with self._lock:
            self.calls[method] += 1
            self.asked.append((time.monotonic(), method, fields))
            replies = self.replies[method]
            return replies.pop(0) if len(replies) > 1 else replies[0]

    def get_request(self):
        connection, address = super().get_request()
        connection.settimeout(10)
        return connection, address

    def finish_request(self, request, client_address):
        if self.plain:
            super().finish_request(request, client_address)
            return
        try:
            secure = context().wrap_socket(request, server_side=True)
        except (ssl.SSLError, OSError):
            return  # a client that does not trust us
        with secure:
            super().finish_request(secure, client_address)


class _Handler(BaseHTTPRequestHandler):
    def _serve(self):
        address = urlsplit(self.path)
        length = int(self.headers.get("Content-Length", 0))
        self.server.heads.append(dict(self.headers))
        fields = dict(parse_qsl(address.query + "&" + self.rfile.read(length).decode()))
        reply = self.server.next(address.path.removeprefix("/v0/"), fields)
        self.send_response(reply.status)
        for name, value in ({"Content-Length": str(len(reply.body))} | reply.headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body if reply.cut is None else reply.body[: reply.cut])
        self.server.stopping.wait(reply.stall)

    do_GET = do_POST = _serve  # noqa: N815 - the names that the parent looks for

    def log_message(self, *_):
        pass

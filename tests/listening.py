"""A web server on this machine that keeps what is posted to it."""

import contextlib
import http.server
import json
import threading


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posts.append((self.path, self.headers["Content-Type"], body))
        self.send_response(self.server.status)
        if self.server.status == 302:
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Listener(http.server.ThreadingHTTPServer):
    """``posts`` holds the path, the type and the bytes of each; ``status`` is what they are answered."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.posts, self.status = [], 200
        self.address = f"http://127.0.0.1:{self.server_port}"

    @property
    def told(self):
        """The JSON of each post."""
        return [json.loads(body) for *_, body in self.posts]


@contextlib.contextmanager
def listening():
    """A listener, until the end of the block."""
    with Listener() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()

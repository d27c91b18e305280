"""A TCP proxy on loopback before a server, which cuts connections at moments that a test chooses."""

import contextlib
import socket
import threading

#: The message that ends a transaction, as psycopg sends it.
COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"


class Proxy:
    """Forwards to ``port``. ``lose`` what comes next: "request" or "answer" of a commit; ``closed`` takes nobody."""

    def __init__(self, port):
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.lose, self.lost, self.closed = "", threading.Event(), False
        self._pairs = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.closed:
                near.close()
                continue
            far = socket.create_connection(self._target)
            self._pairs += [near, far]
            # Whether the answer that comes next is one to lose is known to the pair alone.
            muted = threading.Event()
            for pump in ((near, far, muted, True), (far, near, muted, False)):
                thread = threading.Thread(target=self._pump, args=pump)
                self._threads.append(thread)
                thread.start()

    def _pump(self, source, target, muted, requests):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if requests and self.lose and data.endswith(COMMIT):
                    if self.lose == "request":
                        self._forget()
                        break
                    muted.set()
                elif not requests and muted.is_set():
                    self._forget()
                    break
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _forget(self):
        self.lose = ""
        self.lost.set()

    def cut(self):
        """Every connection that there is breaks."""
        for end in self._pairs:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.cut()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)
        for end in self._pairs:
            end.close()

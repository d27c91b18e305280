"""A TCP proxy on loopback before a server, which cuts connections, slows them down or swallows all that comes."""

import contextlib
import ctypes
import socket
import struct
import threading
import time

#: The message that ends a transaction, as psycopg sends it.
COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"
#: A filter of packets that takes none, and the options of Linux to set it and to take it away.
NOTHING = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
ATTACH, DETACH = 26, 27
#: Bytes that are sent on at a time by one that is slow.
PIECE = 1 << 12


class Proxy:
    """Forwards to ``port``. ``lose`` what comes next: "request" or "answer" of a commit; ``closed`` takes nobody,
    and lets go of everybody with what is lost: a server that is away.

    ``rate`` is how many bytes a second go each way. When ``came``, the bytes that came back, reaches ``swallow_after``,
    it is a black hole: nothing is answered any more, not even that a packet has come.
    """

    def __init__(self, port):
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.lose, self.lost, self.closed = "", threading.Event(), False
        self.rate, self.swallow_after = None, None
        self._hole, self.came = threading.Event(), 0
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
                if not requests:
                    self.came += len(data)
                    if self.swallow_after is not None and self.came >= self.swallow_after:
                        self.swallow()
                if self._hole.is_set():
                    return  # what comes is never asked for
                self._send(target, data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _send(self, target, data):
        if self.rate is None:
            target.sendall(data)
            return
        for at in range(0, len(data), PIECE):
            target.sendall(data[at : at + PIECE])
            time.sleep(min(PIECE, len(data) - at) / self.rate)

    def swallow(self):
        """Be a black hole: for those who are connected, and for who comes."""
        self._hole.set()
        program = struct.pack("HL", 1, ctypes.addressof(NOTHING))
        for end in (self._listener, *self._pairs[::2]):
            end.setsockopt(socket.SOL_SOCKET, ATTACH, program)

    def heal(self):
        """Forward again what comes; who was swallowed is not heard of any more."""
        self.swallow_after = None
        self.cut()
        self._listener.setsockopt(socket.SOL_SOCKET, DETACH, 0)
        self._hole.clear()

    def _forget(self):
        self.lose = ""
        if self.closed:
            self.cut()
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

"""Ending on a signal: what is under way has some seconds to come to its end, then it is broken off.

A thread hears of the signal, whatever the main one is doing: libraries make signals restart what they interrupt, and a
thread that waits for a vendor's bytes cannot be told. What arrived whole is kept, and a store takes whole commits only.
What is broken off is kept as interrupted in the journals of the runs.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

from hdi.cli.session import Interrupted, say

#: Seconds that what is under way has to come to its end.
_GRACE = 10.0
_BILLED = "the vendor bills what it had sent of a download (hdi spend)"
#: No signal has that number: it ends the watch.
_DONE = 0


class Stop:
    """Whether the program was told to end by one of its signals: ``number``.

    ``code`` gives the exit code of what is broken off.
    """

    def __init__(self, signals: Sequence[int], code: Callable[[int], int], words: str) -> None:
        from hdi.journal import break_off

        self._last = break_off
        self._signals = signals
        self._code = code
        self._words = words
        self.number = 0
        self._heard, self.wakeup = os.pipe()  # the interpreter writes the number of each signal
        self._waiting, self._tell = os.pipe()
        os.set_blocking(self.wakeup, False)

    def close(self) -> None:
        """Give back what it holds."""
        for end in (self._heard, self.wakeup, self._waiting, self._tell):
            os.close(end)

    def told(self) -> bool:
        """Whether it is to end."""
        return self.number != 0

    @property
    def code(self) -> int:
        """The exit code of what ends because it was told to."""
        return self._code(self.number)

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until it is told; whether it was."""
        select.select([self._waiting], [], [], max(seconds, 0))
        return self.told()

    def watch(self) -> None:
        """Pass on that it is to end; break off what has not ended some time later, or when it is told again."""
        while (heard := os.read(self._heard, 1)[0]) not in self._signals:
            if heard == _DONE:
                return
        self.number = heard
        os.write(self._tell, b"x")
        if select.select([self._heard], [], [], _GRACE)[0] and os.read(self._heard, 1)[0] == _DONE:
            return
        say(self._words)
        self._last()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(self._code(heard))


@contextlib.contextmanager
def _watched(stop: Stop, signals: Sequence[int], handler: Callable[..., Any]) -> Iterator[Stop]:
    before = {number: signal.signal(number, handler) for number in signals}
    wakeup = signal.set_wakeup_fd(stop.wakeup, warn_on_full_buffer=False)
    watch = threading.Thread(target=stop.watch, name="hdi-watch", daemon=True)
    watch.start()
    try:
        yield stop
    finally:
        signal.set_wakeup_fd(wakeup)
        os.write(stop.wakeup, bytes([_DONE]))
        watch.join()
        stop.close()
        for number, old in before.items():
            signal.signal(number, old)


@contextlib.contextmanager
def told_to_stop(*, success: bool) -> Iterator[Stop]:
    """What SIGTERM and SIGINT end, for the main thread: soon, or at once when they come twice.

    ``success``: to end then is what was meant; else the exit code is the signal's.
    """
    signals = (signal.SIGINT, signal.SIGTERM)
    words = f"what was under way is broken off; the next run goes on with what was kept; {_BILLED}"
    stop = Stop(signals, lambda number: 0 if success else Interrupted(number).code, words)
    with _watched(stop, signals, lambda *_: None):
        yield stop


@contextlib.contextmanager
def interruptible(*, buying: bool = False) -> Iterator[None]:
    """What Ctrl-C, SIGTERM and SIGHUP interrupt, for the main thread: soon, or at once when they come twice.

    ``buying``: what is broken off may have been billed, and it is said.

    A SIGHUP that is ignored stays so: ``nohup`` was asked for.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    words = "interrupted; what was under way is broken off: run the same command to go on with what was kept"
    words = f"{words}; {_BILLED}" if buying else words
    signals = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    with _watched(Stop(signals, lambda number: Interrupted(number).code, words), signals, _interrupt):
        yield


def _interrupt(number: int, _: FrameType | None) -> NoReturn:
    raise Interrupted(number)


__all__ = ["Stop", "interruptible", "told_to_stop"]

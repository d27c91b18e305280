"""One try at a billed stream: the whole body in a file, or no file and what the broken try cost."""

from __future__ import annotations

import contextlib
import ssl
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from hdi.sources.dbn import record_bytes
from hdi.sources.retries import Transient

if TYPE_CHECKING:
    from databento import Historical
log = structlog.get_logger(component="DatabentoAdapter")


@dataclass(frozen=True, slots=True)
class Loss:
    """What broken tries brought: how many, bytes as they came (compressed), and bytes of records, which are billed.

    The vendor bills what it sent, which is more: the client drops the last piece, and half a zstd block tells nothing.
    """

    tries: int = 0
    received: int = 0
    billed: int = 0

    def __add__(self, other: Loss) -> Loss:
        return Loss(self.tries + other.tries, self.received + other.received, self.billed + other.billed)

    @property
    def sentence(self) -> str:
        """What a person should know of it, with a blank at the end; "" when nothing was lost."""
        if not self.tries:
            return ""
        times = "once" if self.tries == 1 else f"{self.tries} times"
        came = f"{self.received} bytes came, with at least {self.billed} bytes of records"
        return f"The stream broke {times} ({came}): the vendor bills what it had sent. "


def receive(client: Historical, terms: Mapping[str, Any], path: Path, lose: Callable[[Loss], None]) -> None:
    """Bring what ``terms`` order to ``path``; a body that came to its end is kept, whatever is in it.

    When it breaks the file is removed and ``lose`` told what it held. Raises Transient for a broken stream, OSError
    for a file that cannot be written, and what the client raises before the stream begins.
    """
    try:
        store = client.timeseries.get_range(**terms, path=path)
    except BaseException as error:
        _close_open_files(error)
        if _arrived(error, path):
            log.warning("the client cannot read what arrived; it is kept", error=repr(error), path=path.name)
            return
        empty = path.exists() and not path.stat().st_size
        _discard(path, lose)
        if isinstance(error, ValueError) and empty:
            raise Transient("the answer has no body") from error
        if (cause := _interrupted(error)) is not None:
            raise cause from error
        raise
    # The client reads the header and leaves the file open.
    store.reader.close()


def _arrived(error: BaseException, path: Path) -> bool:
    """True when the body came whole, and only the client's look at its header failed."""
    if not isinstance(error, Exception) or isinstance(error, OSError) or _interrupted(error) is not None:
        return False
    return path.exists() and path.stat().st_size > 0


def _interrupted(error: BaseException) -> Exception | None:
    """Why the stream did not come to its end; None when it did, or never began.

    The client says BentoError for all that happens in the middle, and hides what it was.
    """
    from databento import BentoError
    from requests import RequestException

    behind = error.__context__
    if type(error) is not BentoError or behind is None:
        return None
    network = (RequestException, ConnectionError, TimeoutError, ssl.SSLError)
    if isinstance(behind, OSError) and not isinstance(behind, network):
        return behind  # the disk, not the line
    return Transient(f"the stream broke off ({type(behind).__name__})", "Run it again: what is stored stays.")


def _discard(path: Path, lose: Callable[[Loss], None]) -> None:
    """Remove what a broken try left, and tell what it held."""
    if not path.exists():
        return
    loss = Loss(1, path.stat().st_size, record_bytes(path))
    path.unlink()
    if loss.received:
        log.warning(
            "a download broke off; the vendor bills what it sent, and bills it again with the next try",
            received_bytes=loss.received, billed_bytes=loss.billed,
        )  # fmt: skip
        lose(loss)


def _close_open_files(error: BaseException) -> None:
    """Close what the client left open when it failed: only then are all bytes in the file."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if not str(frame.f_globals.get("__name__", "")).startswith("databento."):
            continue
        for value in frame.f_locals.values():
            close = getattr(value, "close", None)
            if callable(close):
                # A full disk, which is the error at hand, may fail once more.
                with contextlib.suppress(OSError):
                    close()

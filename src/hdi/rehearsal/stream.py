"""One answered ``timeseries.get_range``: sends the body and bills what was sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from hdi.rehearsal import body, prices
from hdi.rehearsal.asks import Symbols
from hdi.rehearsal.body import Array, Piece
from hdi.rehearsal.books import Entry
from hdi.rehearsal.faults import Fault
from hdi.rehearsal.market import Resolution

#: What the faults do that are given without a number: bytes of the body, and bytes a second.
_AFTER, _RATE = 1_000, 100_000


@dataclass(frozen=True, slots=True)
class Request:
    """A data request, checked and resolved: what a count, a cost and a stream have in common."""

    dataset: str
    schema: str
    symbols: Symbols
    start: int
    end: int
    limit: int | None
    resolution: Resolution
    selection: tuple[tuple[int, int, int], ...]

    @property
    def status(self) -> int:
        """200, or 206 when some symbols were not resolved for all of the days."""
        return 206 if self.resolution.partial or self.resolution.not_found else 200


class Reply(Protocol):
    """Where a stream is sent to. Each call may raise OSError: the other side is gone."""

    def send(self, data: bytes) -> None:
        """Send some bytes of the body."""

    def end(self) -> None:
        """End the body as HTTP wants it."""

    def hang_up(self) -> None:
        """Break the connection off."""


class Stream:
    """Sends the records of a request once, and gives ``bill`` the entry of it, however it ends.

    ``planted`` counts the request's records that are bad on purpose.
    """

    def __init__(
        self, request: Request, batches: Iterable[Array], bill: Callable[[Entry], None], planted: Callable[[], int]
    ) -> None:
        self.request = request
        self._planted = planted
        self._batches = batches
        self._bill = bill
        self._fault: Fault | None = None
        self._count = 0
        #: Bytes a second, or None.
        self.rate: int | None = None

    def spoil(self, fault: Fault | None, pace: Fault | None, count: int) -> None:
        """Take faults of the body and of its speed; ``count`` is how many records there should be."""
        self._fault, self._count = fault, count
        if pace is not None:
            self.rate = pace.options.get("rate", _RATE)

    def send(self, reply: Reply) -> None:
        """Send the whole body, or as much of it as a fault lets through. OSError when the other side is gone."""
        kind = self._fault.kind if self._fault else ""
        sent = 0
        try:
            for piece in self._pieces(kind):
                reply.send(piece.wire)
                sent += piece.size
        except BaseException:
            self._bill(self._entry(sent, finished=False))
            raise
        # Before the end: whoever has seen that finds it in the books.
        self._bill(self._entry(sent, finished=kind in ("", "corrupt")))
        if kind == "cut":
            reply.hang_up()
        else:
            reply.end()

    def _pieces(self, kind: str) -> Iterator[Piece]:
        options = self._fault.options if self._fault else {}
        records = self.request.limit
        if kind == "empty":
            records = 0
        elif kind == "boundary":
            records = min(options.get("records", self._count // 2), self._count)
        packed_head = head(self.request)
        pieces = body.packed(packed_head, body.first(self._batches, records))
        if kind in ("cut", "short"):
            return body.truncated(pieces, len(packed_head), options.get("after", _AFTER))
        return body.flipped(pieces, options.get("after")) if kind == "corrupt" else pieces

    def _entry(self, sent: int, *, finished: bool) -> Entry:
        request = self.request
        return Entry(
            time=time.time_ns(), dataset=request.dataset, schema=request.schema, stype=request.symbols.stype_in,
            symbols=request.symbols.names, start=request.start, end=request.end,
            records=sent // body.record_size(request.schema), size=sent,
            dollars=prices.cost(request.dataset, request.schema, sent), finished=finished,
            planted=self._planted(),
        )  # fmt: skip


def head(request: Request) -> bytes:
    """The metadata of what answers a request, whichever part of it follows."""
    resolution = request.resolution
    fields = {
        "dataset": request.dataset, "schema": request.schema, "start": request.start, "end": request.end,
        "limit": request.limit, "stype_in": request.symbols.stype_in, "stype_out": request.symbols.stype_out,
        "symbols": list(request.symbols.names), "partial": resolution.partial, "not_found": resolution.not_found,
    }  # fmt: skip
    return body.header(fields, resolution.result)

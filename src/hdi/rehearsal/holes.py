"""Stretches that the rehearsal vendor has no data for: what it serves, counts and bills lacks them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from hdi.model import DAY_NS, NS, Window, date_ns, subtract
from hdi.rehearsal.faults import Fault
from hdi.rehearsal.tape import Rectangle

#: The kinds of fault by which something is lost.
LOSING = ("missing", "lost", "degraded", "pending")
_HOUR_NS = 3600 * NS
#: The instruments that a symbol stands for in a window, as rectangles.
Resolve = Callable[[str, Window], Iterable[Rectangle]]


@dataclass(frozen=True, slots=True)
class Hole:
    """Nothing of ``window`` is there: of all schemas and instruments, or of one schema, of one symbol."""

    window: Window
    schema: str = ""
    symbol: str = ""


def hole(fault: Fault) -> Hole | None:
    """What a fault of a day loses; None where it is only about the day's condition."""
    if fault.day is None or (fault.kind in ("degraded", "pending") and "hours" not in fault.options):
        return None
    start = date_ns(fault.day)
    first, last = fault.options.get("hours", (0, DAY_NS // _HOUR_NS))
    return Hole(Window(start + first * _HOUR_NS, start + last * _HOUR_NS), fault.schema, fault.symbol)


def left(selection: Sequence[Rectangle], holes: Iterable[Hole], schema: str, resolve: Resolve) -> tuple[Rectangle, ...]:
    """What of a selection of one schema is there."""
    for hole in holes:
        touched = any(start < hole.window.end and end > hole.window.start for _, start, end in selection)
        if touched and hole.schema in ("", schema):
            lost = tuple(resolve(hole.symbol, hole.window)) if hole.symbol else None
            selection = tuple(part for each in selection for part in _without(each, hole.window, lost))
    return tuple(selection)


def _without(rectangle: Rectangle, window: Window, lost: Sequence[Rectangle] | None) -> Iterator[Rectangle]:
    instrument, start, end = rectangle
    if start >= window.end or end <= window.start:
        yield rectangle
        return
    gone = [(window.start, window.end)]
    if lost is not None:
        own = (window.cut(Window(low, high)) for number, low, high in lost if number == instrument)
        gone = [(part.start, part.end) for part in own if part]
    for part in subtract(Window(start, end), gone):
        yield instrument, part.start, part.end


__all__ = ["LOSING", "Hole", "hole", "left"]

"""Axes: which times and prices are written, and where moments stand when times without a row take no room. Pure."""

from __future__ import annotations

import datetime as dt
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

import polars as pl

from hdi.cli.charts_thin import pauses
from hdi.model import NS

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
#: A stop in trading of so long takes no room.
PAUSE = 3_600 * NS
_STEPS = (Decimal(1), Decimal(2), Decimal("2.5"), Decimal(5))
_CLOCK = "%m-%d %H:%M"


def moment(ns: int) -> dt.datetime:
    """The instant, to the microsecond."""
    return _EPOCH + dt.timedelta(microseconds=ns // 1_000)


def _every(seconds: int) -> Callable[[dt.datetime], object]:
    return lambda t: int(t.timestamp()) // seconds


#: From fine to coarse: when a new stretch begins, and how its beginning is written.
_Unit = tuple[Callable[[dt.datetime], object], str]
_UNITS: tuple[_Unit, ...] = (
    *((_every(s), "%H:%M:%S") for s in (1, 5, 15, 30)),
    *((_every(60 * m), _CLOCK) for m in (1, 5, 15, 30, 60, 240, 720)),
    (lambda t: t.date(), "%Y-%m-%d"),
    (lambda t: t.date().toordinal() // 2, "%Y-%m-%d"),
    (lambda t: t.isocalendar()[:2], "%Y-%m-%d"),
    (lambda t: (t.year, t.month), "%Y-%m"),
    (lambda t: (t.year, (t.month - 1) // 3), "%Y-%m"),
    (lambda t: t.year, "%Y"),
    (lambda t: t.year // 5, "%Y"),
)


def times(ats: Sequence[int], most: int) -> list[tuple[int, str]]:
    """Which of these rising instants are written, and how: where the finest stretches begin that fit."""
    if not ats:
        return []
    told = [moment(at) for at in ats]
    unit, begins = _unit(told, most)
    form = unit[1] if begins else "%Y-%m-%d" if told[0].time() == dt.time() else _CLOCK
    begins = begins if begins and begins[0] * most * 2 < len(ats) else [0, *begins]
    return [(i, told[i].strftime(form)) for i in begins]


def _unit(told: Sequence[dt.datetime], most: int) -> tuple[_Unit, list[int]]:
    """The finest unit of which no more than ``most`` stretches begin, and where: of equally fine ones the coarsest."""
    found: tuple[_Unit, list[int]] | None = None
    for unit in _UNITS:
        keys = [unit[0](t) for t in told]
        begins = [i for i in range(1, len(keys)) if keys[i] != keys[i - 1]]
        if found is not None and begins != found[1]:
            break
        if len(begins) <= most:
            found = unit, begins
    return found or (_UNITS[-1], [])


def prices(low: Decimal, high: Decimal, most: int) -> list[Decimal]:
    """Round values from low to high, at most so many, rising."""
    if low == high:
        return [low]
    span = high - low
    scale = Decimal(10) ** (span.adjusted() - len(str(most)) - 1)
    step = next(s for s in (scale * k * Decimal(10) ** p for p in range(12) for k in _STEPS) if span / s <= most - 1)
    first = (low / step).to_integral_value("ROUND_CEILING")
    found = []
    while first * step <= high:
        found.append(first * step)
        first += 1
    return found


def text(values: Iterable[Decimal]) -> list[str]:
    """Numbers as text, exact, all with the places that one of them needs."""
    values = [v or Decimal(0) for v in values]  # no -0
    places = max((max(0, -int(v.normalize().as_tuple().exponent)) for v in values), default=0)
    return [f"{v:,.{places}f}" for v in values]


@dataclass(frozen=True)
class Clock:
    """Where a moment stands when long times without a row take no room."""

    start: int
    end: int
    cuts: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, ats: pl.Series, *, cut: bool = True) -> Clock:
        """The clock of what happened at these times; without ``cut`` it runs through."""
        return cls(int(ats.min()), int(ats.max()), tuple(pauses(ats, PAUSE)) if cut else ())  # type: ignore[arg-type]

    @property
    def room(self) -> int:
        """How long it runs, in nanoseconds."""
        return self.end - self.start - sum(to - at for at, to in self.cuts)

    def at(self, ns: int) -> int:
        """How long after the start a moment is."""
        return ns - self.start - sum(min(max(ns - at, 0), to - at) for at, to in self.cuts)

    def when(self, position: int) -> int:
        """The moment so long after the start: the reverse."""
        starts = [at - self.start - sum(t - f for f, t in self.cuts[:i]) for i, (at, _) in enumerate(self.cuts)]
        passed = bisect_right(starts, position - 1)
        return self.start + position + sum(to - at for at, to in self.cuts[:passed])

    def times(self, most: int) -> list[tuple[int, str]]:
        """Which moments are written: how long after the start each is, and how; whole stretches of time."""
        samples = 40 * most
        spots = sorted({self.room * i // samples for i in range(samples + 1)})
        told = [moment(self.when(spot)) for spot in spots]
        unit, begins = _unit(told, most)
        if not begins:
            return [(0, told[0].strftime(_CLOCK))]
        found = []
        for i in begins:
            before, after = spots[i - 1], spots[i]
            was = unit[0](told[i - 1])
            while after - before > 1:
                middle = (before + after) // 2
                before, after = (middle, after) if unit[0](moment(self.when(middle))) == was else (before, middle)
            found.append((after, moment(self.when(after)).strftime(unit[1])))
        return found

    def series(self, ats: pl.Series) -> pl.Series:
        """:meth:`at` of many."""
        found = ats - self.start
        for at, to in self.cuts:
            found -= (ats - at).clip(0, to - at)
        return found


def apart(found: Iterable[tuple[int, str]], least: float) -> list[tuple[int, str]]:
    """What is written at places that are at least so far from each other: where a halt takes no room some are not."""
    kept: list[tuple[int, str]] = []
    for spot, words in found:
        if not kept or spot - kept[-1][0] >= least:
            kept.append((spot, words))
    return kept


__all__ = ["PAUSE", "Clock", "apart", "moment", "prices", "text", "times"]

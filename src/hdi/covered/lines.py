"""What is held, as an answer: the months of each symbol, and what they hold."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import polars as pl

from hdi.answer import Answer
from hdi.explain import shown
from hdi.model import Window, ns_date, some

State = Literal["none", "part", "most", "full", "empty", "degraded"]
#: What each state of a month means.
STATES: dict[State, str] = {
    "full": "every day held",
    "most": "half of the days or more",
    "part": "less",
    "empty": "held, and the vendor has nothing",
    "degraded": "held, with days not available by the vendor, now or when they were bought",
    "none": "nothing",
}
#: Rows of a frame.
_MONTHS = 100_000


@dataclass(frozen=True, slots=True)
class Month:
    """One month of a line. ``days`` have a session; of them ``held`` are claimed whole, ``partly`` in part.

    ``degraded`` of the held ones the vendor did not call available when it was last asked, or when they were bought.
    """

    month: dt.date
    days: int
    held: int
    partly: int
    degraded: int
    rows: int

    @property
    def state(self) -> State:
        """How the month looks."""
        if not (self.held or self.partly or self.rows):
            return "none"
        if self.degraded:
            return "degraded"
        if self.held < self.days or not self.held:
            return "most" if 2 * self.held >= self.days and self.held else "part"
        return "full" if self.rows else "empty"


@dataclass(frozen=True)
class Line:
    """One symbol of a dataset in one schema; "" stands for rows that no symbol is known of.

    ``first`` and ``last`` are index times of its rows, None without; ``units`` is how many were asked for by it.
    """

    dataset: str
    schema: str
    symbol: str
    calendar: str
    months: tuple[Month, ...] = field(repr=False)
    rows: int
    units: int
    first: int | None
    last: int | None

    @property
    def first_day(self) -> dt.date | None:
        """The UTC day of the first row."""
        return None if self.first is None else ns_date(self.first)

    @property
    def last_day(self) -> dt.date | None:
        """The UTC day of the last row."""
        return None if self.last is None else ns_date(self.last)

    def total(self, what: Literal["days", "held", "partly", "degraded"]) -> int:
        """Of all months together."""
        return sum(getattr(month, what) for month in self.months)

    @property
    def anything(self) -> bool:
        """True where any of it is held, or was asked for."""
        return bool(self.units) or any(month.state != "none" for month in self.months)


#: One month of one symbol, as :class:`Month` and :class:`Line` have it: the rows of a coverage as an answer.
HELD: dict[str, pl.DataType] = {
    "dataset": pl.String(),
    "schema": pl.String(),
    "symbol": pl.String(),
    "calendar": pl.String(),
    "month": pl.Date(),
    "state": pl.String(),
    "days": pl.Int64(),
    "held": pl.Int64(),
    "partly": pl.Int64(),
    "degraded": pl.Int64(),
    "rows": pl.Int64(),
}


@dataclass(frozen=True, repr=False)
class Coverage(Answer):
    """The lines of what was asked about, by dataset, schema and symbol. ``window`` is whole days, None for none.

    ``absent`` are members of groups that nothing is stored of: lines without anything, where there are others. As rows
    (:data:`HELD`) it is a month of a line each.
    """

    lines: tuple[Line, ...]
    window: Window | None
    absent: tuple[str, ...] = ()

    @property
    def columns(self) -> dict[str, pl.DataType]:  # type: ignore[override]  # always the same
        """See :attr:`hdi.answer.Answer.columns`."""
        return dict(HELD)

    @property
    def notes(self) -> list[str]:  # type: ignore[override]  # known when it is made
        """See :attr:`hdi.answer.Answer.notes`."""
        return [f"nothing is stored of {some(self.absent)}"] if self.absent else []

    def frames(self) -> Iterator[pl.DataFrame]:
        """See :meth:`hdi.answer.Answer.frames`."""
        months = [(line, month) for line in self.lines for month in line.months]
        for at in range(0, len(months), _MONTHS):
            rows = [
                (line.dataset, line.schema, line.symbol, line.calendar, m.month, m.state, m.days, m.held, m.partly,
                 m.degraded, m.rows)
                for line, m in months[at : at + _MONTHS]
            ]  # fmt: skip
            yield pl.DataFrame(rows, schema=HELD, orient="row")

    def __reduce__(self) -> str | tuple[Any, ...]:
        return Coverage, (self.lines, self.window, self.absent)

    def __repr__(self) -> str:
        symbols = some(list(dict.fromkeys(line.symbol for line in self.lines)))
        return f"<coverage of {symbols or 'nothing'}{f', {shown(self.window)}' if self.window else ''}>"


__all__ = ["HELD", "STATES", "Coverage", "Line", "Month", "State"]

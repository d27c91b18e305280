"""Bars that are counted from the open of each session of the product's calendar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from hdi.calendars import product_of
from hdi.errors import RequestError
from hdi.model import DAY_NS, MAX_NS, Window

if TYPE_CHECKING:
    from hdi.calendars import Calendars
    from hdi.late import Array
    from hdi.lookup import Names
    from hdi.series.bars_asked import Every

_TIME = pl.Datetime("ns", "UTC")


@dataclass(frozen=True)
class Table:
    """Stretches from the open of a session to its close, sorted and apart: ``opens`` and ``closes`` of each.

    ``starts`` and ``ends`` are those of the whole that a stretch belongs to: of several sessions, for bars that long.
    """

    opens: Array
    closes: Array
    starts: Array
    ends: Array

    def find(self, instants: Array) -> Array:
        """The number of the stretch that holds each instant, -1 where none does."""
        if not len(self.opens):
            return np.full(len(instants), -1)
        at = np.searchsorted(self.opens, instants, side="right") - 1
        return np.where((at >= 0) & (instants < self.closes[np.maximum(at, 0)]), at, -1)


class Sessions:
    """A :class:`hdi.folding.Clock` of sessions: a session with a break is one, from its first open to its last close.

    Bars within a session are cut off at its close. ``outside`` counts the rows that are of no session, and so of no
    bar, in the window. ``contracts`` are all (dataset, raw symbol) that rows are of; None: any. Raises RequestError
    where no calendar is known of a dataset.
    """

    def __init__(
        self, calendars: Calendars, names: Names, window: Window, every: Every,
        contracts: Sequence[tuple[str, str]] | None = None,
    ) -> None:  # fmt: skip
        self._contracts = contracts
        self._counting = Lock()
        self._calendars = calendars
        self._names = names
        self._width = 0 if every.days or every.kind != "time" else every.width
        self._days = every.days or (1 if every.kind != "time" else 0)
        self._origin = every.origin // DAY_NS
        margin = (2 * max(self._days, 1) + 8) * DAY_NS
        self._asked = window
        self._window = Window(max(window.start - margin, 0), min(window.end + margin, MAX_NS))
        self._tables: dict[tuple[str, str], Table] = {}
        self.outside = 0

    @property
    def longest(self) -> int:
        """See :class:`hdi.folding.Clock`."""
        return self._width or (self._days + 1) * DAY_NS

    def reach(self, start: int, end: int) -> tuple[int, int]:
        """See :class:`hdi.folding.Clock`."""
        low, high = start - self.longest, end + self.longest
        if self._contracts is None:
            return low, high
        # No further than the sessions go: what comes after the last may be another contract's.
        opens, closes = [start], [end]
        for table in {key: self.table(*key) for key in self._contracts}.values():
            met = (table.ends > start) & (table.starts < end)
            opens += table.starts[met].tolist()
            closes += table.ends[met].tolist()
        return max(low, min(opens)), min(high, max(closes))

    def table(self, dataset: str, symbol: str) -> Table:
        """The sessions of a symbol's product."""
        key = (dataset, product_of(symbol))
        if key not in self._tables:
            self._tables[key] = self._made(dataset, symbol)
        return self._tables[key]

    def placed(self, rows: pl.DataFrame) -> pl.DataFrame:
        """See :class:`hdi.folding.Clock`."""
        at = rows["at"].to_numpy()
        starts, ends = np.zeros_like(at), np.zeros_like(at)
        kept = np.zeros(len(at), dtype=np.bool_)
        for table, mine in self._by_table(rows):
            here = at[mine]
            found = table.find(here)
            inside = found >= 0
            where = np.maximum(found, 0)
            if self._width and len(table.opens):
                opened = table.opens[where]
                starts[mine] = opened + (here - opened) // self._width * self._width
                ends[mine] = np.minimum(starts[mine] + self._width, table.closes[where])
            elif len(table.opens):
                starts[mine], ends[mine] = table.starts[where], table.ends[where]
            kept[mine] = inside
        out = rows.with_columns(start=pl.Series(starts), end=pl.Series(ends))
        if kept.all():
            return out
        within = (at >= self._asked.start) & (at < self._asked.end)
        with self._counting:  # frames may be placed at once
            self.outside += int((~kept & within).sum())
        return out.filter(pl.Series(kept))

    def _by_table(self, rows: pl.DataFrame) -> list[tuple[Table, Any]]:
        """The rows of each product, by their numbers. What an instrument is, is known by day."""
        key = ["dataset", "instrument_id", "_day"]
        keyed = rows.select("dataset", "instrument_id", "at", _day=pl.col("at") // DAY_NS)
        heads = keyed.group_by(key, maintain_order=True).agg(pl.col("at").first())
        if not heads.height:
            return []
        named = self._names.fill(
            heads.with_columns(symbol=pl.lit(None, pl.String), time=pl.col("at").cast(_TIME)), "time"
        )
        tables: dict[int, Table] = {}
        numbers = []
        for dataset, symbol in named.select("dataset", "symbol").iter_rows():
            table = self.table(dataset, symbol or "")
            tables[id(table)] = table
            numbers.append(id(table))
        if len(tables) == 1:
            return [(next(iter(tables.values())), slice(None))]
        joined = keyed.join(
            heads.with_columns(_table=pl.Series(numbers, dtype=pl.Int64)).drop("at"), on=key, maintain_order="left"
        )["_table"].to_numpy()
        return [(table, joined == number) for number, table in tables.items()]

    def _made(self, dataset: str, symbol: str) -> Table:
        if not self._calendars.name(dataset, symbol):
            raise RequestError(
                f"no calendar is known of {dataset}, so its sessions are not known",
                "Name one in calendars.yaml of the config folder, or leave out what asks for sessions.",
            )
        parts = self._calendars.sessions(dataset, self._window, symbol)
        whole = parts.group_by("session").agg(pl.col("open").min(), pl.col("close").max()).sort("open")
        if not self._days:
            opens, closes = whole["open"].to_numpy(), whole["close"].to_numpy()
            return Table(opens, closes, opens, closes)
        number = (pl.col("session").to_physical().cast(pl.Int64) - self._origin) // self._days
        grouped = whole.with_columns(first=pl.col("open").min().over(number), last=pl.col("close").max().over(number))
        return Table(*(grouped[c].to_numpy() for c in ("open", "close", "first", "last")))


__all__ = ["Sessions", "Table"]

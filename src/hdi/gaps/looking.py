"""What of a store is looked at for gaps: its frames, the symbols that are wanted, and what was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from hdi.calendars import Calendars
from hdi.errors import RequestError, UnknownSymbol
from hdi.gaps.asking import Target, targets
from hdi.lookup import Asked, Lookup, union
from hdi.model import Window, iso_ns
from hdi.schema import Schemas
from hdi.stores import Store


@dataclass(frozen=True)
class Wanted:
    """What is looked at: some schemas (none: all), symbols (none: all that was asked for), a dataset, a window.

    With both a start and an end that is the window; without, or with one of them, each symbol is looked at no further
    than from the first to the last instant that was asked for. ``closed`` adds the times at which the market is closed.
    """

    schemas: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()
    dataset: str | None = None
    start: int | None = None
    end: int | None = None
    closed: bool = False


class Look:
    """The frames of a store, and what is wanted of it."""

    def __init__(
        self, store: Store, schemas: Schemas, calendars: Calendars, wanted: Wanted, now: int, data_dir: Path | None
    ) -> None:
        self.store, self.schemas, self.calendars, self.wanted = store, schemas, calendars, wanted
        self.data_dir = data_dir
        self.coverage, self.ledger, self.mappings = store.coverage(), store.ledger(), store.mappings()
        self.heard, self.rejects = store.conditions(), store.quarantine()
        self.window = None
        if wanted.start is not None or wanted.end is not None:
            start, end = wanted.start or 0, now if wanted.end is None else min(wanted.end, now)
            if start >= end:
                text = f"{Window(start, wanted.end)}" if wanted.end is not None else f"what begins at {iso_ns(start)}"
                raise RequestError(f"{text} has not happened yet", "Give an earlier --start-date.")
            self.window = Window(start, end)
        #: With an open side the window only limits what is looked at.
        self.whole = wanted.start is not None and wanted.end is not None
        self.lookup = Lookup(self.mappings, self.coverage, self.ledger, wanted.dataset)
        self.now = now
        self._known: dict[tuple[str, str], Asked] = {}

    def parts(self) -> Iterator[tuple[str, str, list[Target]]]:
        """What was asked for, by dataset and schema."""
        only = self._only() if self.wanted.symbols else None
        found = targets(
            self.coverage, self.ledger, only, schemas=self._names, dataset=self.wanted.dataset, window=self.window,
            until=self.now, whole=self.whole, lives=self._ids,
        )  # fmt: skip
        by_part: dict[tuple[str, str], list[Target]] = {}
        for target in found:
            if target.schema in self.schemas.names:
                by_part.setdefault((target.dataset, target.schema), []).append(target)
        for (dataset, name), each in sorted(by_part.items()):
            yield dataset, name, each

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(self.schemas.find(s)[1].made_from or self.schemas.find(s)[1].name for s in self.wanted.schemas)

    @property
    def _ids(self) -> pl.DataFrame:
        """From when until when instruments are known: dataset, symbol (the id as text), start, end."""
        named = self.mappings.filter(pl.col("stype") == "raw_symbol")
        return named.group_by("dataset", symbol=pl.col("instrument_id").cast(pl.String)).agg(
            pl.col("start").min(), pl.col("end").max()
        )

    def fragments(self) -> int:
        """Rows that fragments brought of what is looked at."""
        mine = self.ledger.filter(pl.col("status") == "fragment").unique("unit_id", keep="last")
        if self.wanted.dataset is not None:
            mine = mine.filter(pl.col("dataset") == self.wanted.dataset)
        if self._names:
            mine = mine.filter(pl.col("schema").is_in(list(self._names)))
        if self.window is not None:
            mine = mine.filter(pl.col("start") < self.window.end, pl.col("end") > self.window.start)
        return int(mine["stored"].sum())

    def _only(self) -> list[Asked]:
        """The symbols that are wanted; of those that were asked for and never came nothing else is known."""
        tried = {s.casefold(): s for text in self.ledger["symbol"].unique() for s in text.split(",")}
        known = {s.casefold() for s in self.lookup.symbols}
        never = [s for s in self.wanted.symbols if s.casefold() in tried.keys() - known]
        found = self.lookup.find([s for s in self.wanted.symbols if s not in never])
        return [*found, *(Asked(tried[s.casefold()], union([])) for s in never)]

    def asked(self, symbol: str, dataset: str) -> Asked:
        """The rectangles of a symbol in a dataset, over all time; none where nothing is known of it."""
        if (symbol, dataset) not in self._known:
            self._known[symbol, dataset] = self._found(symbol, dataset)
        return self._known[symbol, dataset]

    def _found(self, symbol: str, dataset: str) -> Asked:
        here = Lookup(self.mappings, self.coverage, self.ledger, dataset)
        try:
            found = here.find([symbol])[0]
        except UnknownSymbol:  # asked for, and nothing of it ever came
            return Asked(symbol, union([]))
        return Asked(found.symbol, found.rectangles.filter(pl.col("dataset") == dataset))


__all__ = ["Look", "Wanted"]

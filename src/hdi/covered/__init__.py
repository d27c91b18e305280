"""What is held, month by month: of each symbol the share of its days of trading, and the rows that are stored.

A day is held where a complete unit claims it, with rows or without: for the symbol itself, or for every instrument that
it stood for. Days without any session (:mod:`hdi.calendars`) do not count.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from hdi.buying.aging import marked
from hdi.calendars import Calendars, product_of
from hdi.covered.lines import Coverage, Line, Month
from hdi.frames import CONTENT
from hdi.lookup import ALL_SYMBOLS, RECTANGLES, Asked, Lookup, union
from hdi.model import DAY_NS, MAX_NS, Window, joined, ns_date, subtract
from hdi.query import member, seen
from hdi.symbology import merge

if TYPE_CHECKING:
    from hdi.schema import Schema, SchemaName, Schemas
    from hdi.stores import Store

Mask = np.ndarray[Any, np.dtype[np.bool_]]
_AVAILABLE = "available"
#: Rows that are counted at once, by instrument and day; a month with more is counted day by day.
_MANY_ROWS = 4_000_000
_PENDING = ("failed", "ordered")
_SPANS = {"line": pl.Int64(), **RECTANGLES}
_COUNTED = {"line": pl.Int64(), "month": pl.Int64(), **{c: CONTENT[c] for c in ("rows", "first", "last")}}


@dataclass
class _Draft:
    """A line in the making: the claims of its symbol as a whole, and what the symbol stood for."""

    dataset: str
    schema: str
    symbol: str
    claims: list[tuple[int, int]]
    meant: pl.DataFrame
    units: int


def measure(  # noqa: PLR0913  (each is an option of the command)
    store: Store,
    schemas: Schemas,
    calendars: Calendars,
    symbols: Sequence[str] = (),
    *,
    members: Container[str] = (),
    start: int | None = None,
    end: int | None = None,
    schema: str | None = None,
    dataset: str | None = None,
    now: int,
) -> Coverage:
    """What is held of these symbols (none, or ``ALL_SYMBOLS``: of all that was ever asked for).

    Of ``members`` among them nothing needs to be stored: they come from groups.

    Between ``start`` and ``end``, where they are given, else from the first month with anything to the last; never
    beyond the day of ``now``. Raises RequestError for an unknown schema or dataset, UnknownSymbol for a symbol that
    was never stored.
    """
    ledger = store.ledger()
    lookup = Lookup(store.mappings(), store.coverage(), ledger, dataset, lambda i: seen(store, schemas, ledger, i))
    names = _stored(schemas, schema, ledger)
    ledger = ledger.filter(~pl.col("status").is_in(_PENDING), pl.col("schema").is_in(names))
    coverage = store.coverage().filter(pl.col("schema").is_in(names))
    if dataset is not None:
        ledger, coverage = ledger.filter(pl.col("dataset") == dataset), coverage.filter(pl.col("dataset") == dataset)
    every = not symbols or ALL_SYMBOLS in (symbol.upper() for symbol in symbols)
    absent = () if every else tuple(name for name in symbols if name in members and not lookup.knows(name))
    known = [name for name in symbols if name not in absent]
    asked = None if every else [member(store, schemas, a) for a in lookup.find(known)]
    axis = _axis(ledger, start, end, now)
    if axis is None:
        return Coverage((), None, absent)
    drafts = _drafts(store, schemas, lookup, asked, _apart(ledger, coverage, axis))
    frames = _Frames(coverage, ledger, store.conditions())
    lines: list[Line] = []
    for name in sorted({draft.schema for draft in drafts}):
        kind = schemas.find(name)
        these = [draft for draft in drafts if draft.schema == name]
        counted = _counted(store, kind, these, frames, axis, dataset, every=every)
        lines += [_line(draft, number, counted, calendars, frames, axis) for number, draft in enumerate(these)]
    kept = [line for line in lines if schema is not None or line.anything]
    kept += [
        _line(_Draft(*place, name, [], pl.DataFrame(schema=RECTANGLES), 0), 0, pl.DataFrame(schema=_COUNTED),
              calendars, frames, axis)
        for place in dict.fromkeys((line.dataset, line.schema) for line in kept)
        for name in absent
    ]  # fmt: skip
    kept.sort(key=lambda line: (line.dataset, line.schema, line.symbol))
    return replace(_trimmed(kept, axis, start, end), absent=absent)


def _stored(schemas: Schemas, schema: str | None, ledger: pl.DataFrame) -> list[str]:
    """The schema names that rows are stored under: the one that was named, or all in the store."""
    if schema is None:
        return sorted(name for name in ledger["schema"].unique() if name in schemas.stored_names)
    _, name = schemas.find(schema)
    return [name.made_from or name.name]


def _apart(ledger: pl.DataFrame, coverage: pl.DataFrame, axis: Window) -> pl.DataFrame:
    """Units and claims of each symbol within the axis: symbols that were asked for together are joined by commas."""
    columns = ("unit", "dataset", "schema", "symbol", "start", "end")
    asked = pl.concat([
        ledger.select(*columns, claimed=pl.lit(value=False)),
        coverage.filter(pl.col("instrument_id").is_null()).select(*columns, claimed=pl.lit(value=True)),
    ]).filter(pl.col("start") < axis.end, pl.col("end") > axis.start)  # fmt: skip
    return asked.with_columns(pl.col("symbol").str.split(",")).explode("symbol")


def _drafts(
    store: Store, schemas: Schemas, lookup: Lookup, asked: list[Asked] | None, apart: pl.DataFrame
) -> list[_Draft]:
    """A draft for each symbol, dataset and schema: those that were asked for, or what is known of the named ones."""
    groups = {(str(d), str(s), str(x)): part for (d, s, x), part in apart.group_by("dataset", "schema", "symbol")}
    if asked is None:
        wanted = sorted({symbol for _, _, symbol in groups} - {""})
        meant = {a.symbol: member(store, schemas, a).rectangles for a in lookup.find(wanted)}
        keys: Iterable[tuple[str, str, str]] = (key for key in groups if key[2])
    else:
        meant = {a.symbol: a.rectangles for a in asked}
        keys = _known(groups, meant, apart)
    out = []
    for dataset, schema, symbol in sorted(keys):
        part = groups.get((dataset, schema, symbol), apart.clear())
        claims = part.filter(pl.col("claimed")).select("start", "end").unique().rows()
        out.append(
            _Draft(dataset, schema, symbol, claims, meant[symbol].filter(pl.col("dataset") == dataset),
                   part["unit"].n_unique())
        )  # fmt: skip
    return _apart_from_others(out) if asked is None else out


def _apart_from_others(drafts: Sequence[_Draft]) -> list[_Draft]:
    """The drafts without instruments by id that another symbol stood for wherever they were asked for: they are its."""
    numbers = {draft.symbol for draft in drafts if draft.symbol.isascii() and draft.symbol.isdigit()}
    ids = pl.Series(sorted(map(int, numbers)), dtype=pl.Int64)
    meant: dict[tuple[str, str, str], list[tuple[int, int]]] = {}
    for draft in (d for d in drafts if numbers and d.symbol not in numbers):
        mine = draft.meant.filter(pl.col("instrument_id").is_in(ids.implode()))
        for instrument, start, end in mine.select("instrument_id", "start", "end").iter_rows():
            meant.setdefault((draft.dataset, draft.schema, str(instrument)), []).append((start, end))

    def others(draft: _Draft) -> bool:
        spans = meant.get((draft.dataset, draft.schema, draft.symbol), [])
        return bool(draft.claims) and not any(subtract(Window(*claim), spans) for claim in draft.claims)

    return [draft for draft in drafts if draft.symbol not in numbers or not others(draft)]


def _known(
    groups: dict[tuple[str, str, str], pl.DataFrame], meant: dict[str, pl.DataFrame], apart: pl.DataFrame
) -> set[tuple[str, str, str]]:  # fmt: skip
    """Where something of each symbol may be: what it was asked for in, and what its datasets hold."""
    schemas = {(str(d), str(s)) for d, s in apart.select("dataset", "schema").unique().iter_rows()}
    found = {key for key in groups if key[2] in meant}
    return found | {
        (dataset, schema, symbol)
        for symbol, rectangles in meant.items()
        for dataset, schema in schemas
        if dataset in set(rectangles["dataset"])
    }


def _axis(ledger: pl.DataFrame, start: int | None, end: int | None, now: int) -> Window | None:
    """The days to look at: whole months where no window was given; None where there is nothing."""
    if ledger.is_empty() and (start is None or end is None):
        return None
    first = start if start is not None else _month(ns_date(int(ledger["start"].min())))  # type: ignore[arg-type]
    last = end if end is not None else _month(ns_date(int(ledger["end"].max()) - 1), 1)  # type: ignore[arg-type]
    last = min(last, (now // DAY_NS + 1) * DAY_NS)
    first, last = first // DAY_NS * DAY_NS, -(-last // DAY_NS) * DAY_NS
    return Window(first, last) if first < last else None


def _trimmed(lines: Sequence[Line], axis: Window, start: int | None, end: int | None) -> Coverage:
    """The lines without the months before and after anything, at the ends that nobody asked for."""
    cells = list(axis.cells("month"))
    busy = [i for line in lines for i, month in enumerate(line.months) if month.state != "none"]
    first = min(busy) if busy and start is None else 0
    last = max(busy) if busy and end is None else len(cells) - 1
    window = Window(cells[first].start, cells[last].end)
    return Coverage(tuple(replace(line, months=line.months[first : last + 1]) for line in lines), window)


def _month(day: dt.date, more: int = 0) -> int:
    """The midnight on which the month of the day begins, or one some months later."""
    months = day.year * 12 + day.month - 1 + more
    return (dt.date(months // 12, months % 12 + 1, 1) - dt.date(1970, 1, 1)).days * DAY_NS


class _Frames:
    """The books of a store, looked at by dataset and schema."""

    def __init__(self, coverage: pl.DataFrame, ledger: pl.DataFrame, conditions: pl.DataFrame) -> None:
        self.coverage = coverage
        self.ledger = ledger
        self._bad: dict[tuple[str, str], pl.DataFrame] = {}
        latest = conditions.unique(["dataset", "day"], keep="last", maintain_order=True)
        self._marked = latest.filter(pl.col("condition") != _AVAILABLE)

    def degraded(self, draft: _Draft, first: int, last: int) -> Mask:
        """True for each of the days that the vendor does not call available, or did not when they were bought."""
        said = self._marked.filter(pl.col("dataset") == draft.dataset)["day"]
        own = self._bought(draft.dataset, draft.schema).join(draft.meant, on="instrument_id").filter(
            pl.col("day") < pl.col("end"), pl.col("day") + DAY_NS > pl.col("start")
        )  # fmt: skip
        days = pl.concat([said, own["day"]]).to_numpy() // DAY_NS
        out = np.zeros(last - first, dtype=np.bool_)
        out[days[(days >= first) & (days < last)] - first] = True
        return out

    def _bought(self, dataset: str, schema: str) -> pl.DataFrame:
        """Instruments and days that were not available when they were bought."""
        if (dataset, schema) not in self._bad:
            here = (pl.col("dataset") == dataset) & (pl.col("schema") == schema)
            self._bad[dataset, schema] = marked(self.coverage.filter(here), self.ledger.filter(here))
        return self._bad[dataset, schema]

    def instruments(self, dataset: str, schema: str, ids: pl.Series) -> pl.DataFrame:
        """What is held of these instruments, whatever it was asked for as: instrument_id, start, end."""
        here = (pl.col("dataset") == dataset) & (pl.col("schema") == schema)
        return merge(self.coverage.filter(here, pl.col("instrument_id").is_in(ids.implode())))

    def stretches(self, schema: str, axis: Window) -> Iterator[Window]:
        """The parts of the axis with rows of a schema: as many months as have not too many, or days of one that has."""
        units = self.ledger.filter(pl.col("schema") == schema, pl.col("stored") > 0)
        run, rows = axis.start, 0
        for month in axis.cells("month"):
            here = units.filter(pl.col("start") < month.end, pl.col("end") > month.start)
            more = int(here["stored"].sum())
            if rows and rows + more > _MANY_ROWS:
                yield Window(run, month.start)
                run, rows = month.start, 0
            rows += more
            if more > _MANY_ROWS:
                yield from (day for day in month.cells("day") if _any(here, day))
                run, rows = month.end, 0
        if rows:
            yield Window(run, axis.end)


def _any(units: pl.DataFrame, window: Window) -> bool:
    """True where a unit lies in the window."""
    return not units.filter(pl.col("start") < window.end, pl.col("end") > window.start).is_empty()


def _counted(  # noqa: PLR0913  (what to count, and where)
    store: Store, kind: tuple[Schema, SchemaName], drafts: list[_Draft], frames: _Frames, axis: Window,
    dataset: str | None, *, every: bool,
) -> pl.DataFrame:  # fmt: skip
    """Rows of each draft by month: line, month, rows, first, last.

    The rows of a symbol are those of the instruments that it stood for, on the days on which it did. Where all is
    asked about, rows that are nobody's make drafts of their own.
    """
    schema, name = kind
    parts = [d.meant.select(pl.lit(n, pl.Int64()).alias("line"), *RECTANGLES) for n, d in enumerate(drafts)]
    spans = pl.concat([pl.DataFrame(schema=_SPANS), *parts])
    only = None if every else union(Asked("", d.meant) for d in drafts)
    found = []
    nameless: dict[str, int] = {}
    for stretch in frames.stretches(name.name, axis):
        if only is not None and only.is_empty():
            break
        content = store.content(schema, name.name, stretch, only, DAY_NS, dataset)
        mine = content.join(spans, on=["dataset", "instrument_id"]).filter(
            pl.col("at") < pl.col("end"), pl.col("at") + DAY_NS > pl.col("start")
        )
        if every:
            rest = content.join(mine.select("dataset", "instrument_id", "at"), on=["dataset", "instrument_id", "at"],
                                how="anti")  # fmt: skip
            for (where,), part in rest.group_by("dataset"):
                if str(where) not in nameless:
                    nameless[str(where)] = len(drafts)
                    drafts.append(_Draft(str(where), name.name, "", [], pl.DataFrame(schema=RECTANGLES), 0))
                found.append(_summed(part.with_columns(line=pl.lit(nameless[str(where)], pl.Int64()))))
        found.append(_summed(mine))
    return pl.concat([pl.DataFrame(schema=_COUNTED), *found])


def _summed(content: pl.DataFrame) -> pl.DataFrame:
    month = pl.from_epoch("at", "ns").dt.truncate("1mo").dt.epoch("ns")
    return (
        content.group_by("line", month.alias("month"))
        .agg(pl.col("rows").sum(), pl.col("first").min(), pl.col("last").max())
        .select("line", "month", "rows", "first", "last")
    )


def _line(
    draft: _Draft, number: int, counted: pl.DataFrame, calendars: Calendars, frames: _Frames, axis: Window
) -> Line:  # fmt: skip
    first, last = axis.start // DAY_NS, axis.end // DAY_NS
    counted = counted.filter(pl.col("line") == number)
    rows = dict(counted.group_by("month").agg(pl.col("rows").sum()).iter_rows())
    traded = np.ones(last - first, dtype=np.bool_)
    for run in calendars.closed(draft.dataset, axis, [draft.symbol] if product_of(draft.symbol) else ()):
        traded[run.start // DAY_NS - first : run.end // DAY_NS - first] = False
    held, partly = _days(_held(draft, frames), first, last)
    held, partly = held & traded, partly & traded
    degraded = held & frames.degraded(draft, first, last)
    months = []
    for cell in axis.cells("month"):
        here = slice(cell.start // DAY_NS - first, cell.end // DAY_NS - first)
        month = _month(ns_date(cell.start))
        days, whole, part, worse = (int(mask[here].sum()) for mask in (traded, held, partly, degraded))
        months.append(Month(ns_date(month), days, whole, part, worse, int(rows.get(month, 0))))
    low, high = counted["first"].min(), counted["last"].max()
    return Line(
        draft.dataset, draft.schema, draft.symbol, calendars.name(draft.dataset, draft.symbol), tuple(months),
        sum(rows.values()), draft.units,
        None if low is None else int(low), None if high is None else int(high),  # type: ignore[arg-type]
    )  # fmt: skip


def _held(draft: _Draft, frames: _Frames) -> list[tuple[int, int]]:
    """When the symbol is held, sorted and apart: claimed as a whole, or all that it stood for is."""
    meant = joined(draft.meant.select("start", "end").unique().iter_rows())
    open_ = [part for start, end in meant for part in subtract(Window(start, end), draft.claims)]
    if not open_:
        return joined(draft.claims)
    have: dict[int, list[tuple[int, int]]] = {}
    ids = draft.meant["instrument_id"].unique()
    for instrument, start, end in frames.instruments(draft.dataset, draft.schema, ids).iter_rows():
        have.setdefault(instrument, []).append((start, end))
    lacking = [
        (part.start, part.end)
        for instrument, start, end in draft.meant.select("instrument_id", "start", "end").iter_rows()
        for part in subtract(Window(start, end), have.get(instrument, []))
    ]
    whole = [(part.start, part.end) for start, end in meant for part in subtract(Window(start, end), joined(lacking))]
    return joined([*draft.claims, *whole])


def _days(spans: Iterable[tuple[int, int]], first: int, last: int) -> tuple[Mask, Mask]:
    """Which of the days the intervals hold whole, and which they only touch."""
    whole, touched = (np.zeros(last - first, dtype=np.bool_) for _ in range(2))
    for start, end in spans:
        low, high = (np.clip(at, first, last) - first for at in (start // DAY_NS, -(-min(end, MAX_NS) // DAY_NS)))
        touched[low:high] = True
        low, high = (np.clip(at, first, last) - first for at in (-(-start // DAY_NS), end // DAY_NS))
        whole[low:high] = True
    return whole, touched & ~whole


__all__ = ["measure"]

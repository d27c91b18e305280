"""What of a request has to be ordered: the part that the store does not hold, as few orders as will do.

Pure: it works on dated symbology (``asked, instrument_id, start, end``) and on the coverage of a store. A symbol is
held where it was ingested itself, and where every instrument that it stands for was ingested as something else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from itertools import pairwise
from typing import Any

import polars as pl

from hdi.errors import RequestError
from hdi.frames import RESOLVED
from hdi.lookup import split
from hdi.model import MOST_SYMBOLS, NATIVE, STYPES, Order, Window, subtract
from hdi.schema import SchemaName, Schemas
from hdi.symbology import ALL_SYMBOLS, infer_stype, merge, root_of

#: Wider groups of instruments first: what they bring need not be ordered again for the narrower ones.
WIDTH = ("parent", "continuous", "raw_symbol", "instrument_id")
_EXAMPLES = {"continuous": "ES.c.0", "parent": "ES.FUT", "instrument_id": "1234", "raw_symbol": "ESH4"}
_Spans = list[tuple[int, int]]
_SPAN = ("instrument_id", "start", "end")


@dataclass(frozen=True)
class Request:
    """What somebody wants to have. ``symbols`` are grouped by symbol type, in their usual spelling.

    ``name`` is the kind of data that is stored (bars that are made on reading ask for those they are made from).
    """

    dataset: str
    name: SchemaName
    symbols: Mapping[str, tuple[str, ...]]
    window: Window

    @property
    def everything(self) -> bool:
        """True when all symbols of the dataset are wanted."""
        return self.symbols == {"raw_symbol": (ALL_SYMBOLS,)}


def parse_request(
    schemas: Schemas, *, dataset: str, schema: str, symbols: Iterable[str], window: Window, stype: str | None = None
) -> Request:
    """The request that these words mean. Symbols without a type are sorted by their notation.

    Raises RequestError for an unknown schema, no symbol, or a symbol that does not fit ``stype``.
    """
    dataset = dataset.strip().upper()
    _, name = schemas.find(schema)
    if name.made_from is not None:
        _, name = schemas.find(name.made_from)
    if stype == NATIVE:
        stype = "raw_symbol"
    if stype is not None and stype not in STYPES:
        raise RequestError(
            f"unknown symbol type {stype!r}", f"Known: {', '.join(STYPES)}, and {NATIVE} for raw_symbol."
        )
    asked = split(symbols)
    if not asked:
        raise RequestError("no symbol was named", "Name some with --symbols, such as ES.c.0 or ES.FUT, or ALL_SYMBOLS.")
    if ALL_SYMBOLS in (s.upper() for s in asked):
        if len(asked) > 1:
            raise RequestError(f"{ALL_SYMBOLS} stands among other symbols", "It means all of them: name it alone.")
        return Request(dataset, name, {"raw_symbol": (ALL_SYMBOLS,)}, window)
    groups: dict[str, list[str]] = {}
    for symbol in asked:
        kind = _fitting(symbol, stype)
        usual = usual_spelling(symbol, kind)
        if usual not in groups.setdefault(kind, []):
            groups[kind].append(usual)
    return Request(dataset, name, {k: tuple(groups[k]) for k in WIDTH if k in groups}, window)


def _fitting(symbol: str, stype: str | None) -> str:
    """The symbol type: as given, or by the notation. RequestError when the two do not fit, with what would."""
    meant = infer_stype(symbol)
    if stype is None or stype == meant or (stype == "raw_symbol" and meant == "instrument_id"):
        return stype or meant
    hint = f"{symbol} is written as {_article(meant)}: leave --stype-in out, or give --stype-in {meant}."
    if stype in ("continuous", "parent"):
        ending = ".c.0" if stype == "continuous" else ".FUT"
        hint = f"Did you mean {root_of(symbol)}{ending}? {hint}"
    raise RequestError(f"{symbol} is not {_article(stype)}, which is written like {_EXAMPLES[stype]}", hint)


def _article(stype: str) -> str:
    return f"{'an' if stype[0] in 'aeiou' else 'a'} {stype} symbol" if stype != "raw_symbol" else "a raw_symbol"


def usual_spelling(symbol: str, stype: str) -> str:
    """The symbol as the vendor writes it: ``es.C.0`` is ``ES.c.0``, everything else is in capitals."""
    if stype != "continuous":
        return symbol.upper()
    root, rule, rank = symbol.split(".")
    return f"{root.upper()}.{rule.lower()}.{int(rank)}"


@dataclass(frozen=True)
class Purchase:
    """Symbols of one type that lack the same stretch of time. ``rectangles`` is what they stand for in it."""

    stype: str
    symbols: tuple[str, ...]
    window: Window
    rectangles: pl.DataFrame = field(repr=False, compare=False)

    def order(self, dataset: str, schema: str, window: Window | None = None) -> Order | None:
        """The order of what the symbols have in the window; None when none of them stands for anything there."""
        window = window or self.window
        found = self.symbols
        if self.symbols != (ALL_SYMBOLS,):
            alive = self.rectangles.filter(pl.col("start") < window.end, pl.col("end") > window.start)
            known = set(alive["asked"])
            found = tuple(s for s in self.symbols if s in known)
        return Order(dataset, schema, self.stype, found, window) if found else None


@dataclass(frozen=True)
class Claim:
    """A symbol's stretch of time for which nothing need be ordered as the symbol itself.

    Every instrument that it stands for there (``rectangles``; none: it stands for nothing) is held as something
    else, or is ordered by its id.
    """

    stype: str
    symbol: str
    window: Window
    rectangles: pl.DataFrame = field(repr=False, compare=False)


@dataclass(frozen=True)
class Again:
    """A symbol's stretch that is ordered whole although these of its instruments are held: splitting saves little.

    ``dollars`` is at most what they cost, which the rest alone would not.
    """

    stype: str
    symbol: str
    window: Window
    instruments: tuple[int, ...]
    dollars: Decimal


@dataclass(frozen=True)
class Need:
    """What is missing: orders to make, claims to keep beside them, and what the orders bring once more."""

    purchases: tuple[Purchase, ...]
    claims: tuple[Claim, ...]
    again: tuple[Again, ...] = ()


#: What of a symbol's stretch is bought again (the price of the third), where that is little enough; None: only the rest
#: of it (the second, by instrument ids as the third) is to be ordered.
Split = Callable[[Purchase, Sequence[Purchase], Sequence[Purchase]], Decimal | None]


_NAMED = pl.col("instrument_id").is_not_null()


class Held:
    """What a store holds of one dataset and schema, by symbol and by instrument."""

    def __init__(self, coverage: pl.DataFrame, dataset: str, schema: str) -> None:
        self._coverage = coverage
        self._here = (pl.col("dataset") == dataset) & (pl.col("schema") == schema)

    @cached_property
    def _instruments(self) -> dict[int, _Spans]:
        found: dict[int, _Spans] = {}
        for instrument, start, end in merge(self._coverage.filter(self._here, _NAMED)).iter_rows():
            found.setdefault(instrument, []).append((start, end))
        return found

    @cached_property
    def _symbols(self) -> dict[tuple[str, str], _Spans]:
        found: dict[tuple[str, str], _Spans] = {}
        whole = self._coverage.filter(self._here, ~_NAMED)
        for stype, symbol, start, end in whole.select("stype", "symbol", "start", "end").iter_rows():
            found.setdefault((stype, symbol), []).append((start, end))
        return found

    def add(self, instrument: int, window: Window) -> None:
        """Count a stretch of an instrument, which is about to be ordered and not held, as held."""
        self._instruments.setdefault(instrument, []).append((window.start, window.end))

    def add_symbol(self, stype: str, symbol: str, window: Window) -> None:
        """Count a stretch of a symbol as held."""
        self._symbols.setdefault((stype, symbol), []).append((window.start, window.end))

    def lacks(self, stype: str, symbol: str, window: Window) -> list[Window]:
        """The parts of the window for which the symbol itself was never ingested.

        What ALL_SYMBOLS brought is held by instrument: of a parent or continuous symbol it does not say what it means.
        """
        return subtract(window, self._symbols.get((stype, symbol), []))

    def instrument_lacks(self, instrument: int, window: Window) -> list[Window]:
        """The parts of the window for which nothing brought the instrument."""
        return subtract(window, self._instruments.get(instrument, []))

    def any(self, window: Window) -> bool:
        """True where something of the window was brought as an instrument."""
        return any(s < window.end and e > window.start for spans in self._instruments.values() for s, e in spans)

    def of(self, instrument: int, window: Window) -> list[Window]:
        """The parts of the window for which something brought the instrument, each once."""
        lacking = self.instrument_lacks(instrument, window)
        return subtract(window, [(w.start, w.end) for w in lacking])


def needed(
    request: Request,
    resolved: pl.DataFrame,
    held: Held,
    split: Split = lambda whole, rest, had: None,  # noqa: ARG005
) -> Need:
    """What has to be ordered so that the store holds the request; ``held`` then counts the orders too.

    ``resolved`` (:data:`hdi.frames.RESOLVED`, with ``stype``) is the symbology of the whole request. Of a symbol that
    is held in part, the rest is ordered by ids, or all of it where ``split`` says so.
    """
    purchases: list[Purchase] = []
    claims: list[Claim] = []
    again: list[Again] = []
    for stype, symbols in request.symbols.items():
        mine = resolved.filter(pl.col("stype") == stype)
        by_symbol = {str(asked): part for (asked,), part in mine.group_by("asked")}
        alone: dict[Window, list[str]] = {}
        by_id: dict[Window, list[int]] = {}
        for symbol in symbols:
            own = by_symbol.get(symbol, mine.clear())
            for lacking in held.lacks(stype, symbol, request.window):
                rectangles = cut(own, lacking)
                # What all symbols stand for is not known unless it was asked.
                unknown = symbol == ALL_SYMBOLS and own.is_empty()
                bought, mixed = _parts(rectangles, lacking, held, whole=unknown)
                for window, pieces in mixed:
                    whole = Purchase(stype, (symbol,), window, cut(rectangles, window))
                    had = _held_of(whole.rectangles, held)
                    more = split(whole, _by_ids(pieces), _by_ids(had)) if pieces else None
                    if more is not None:
                        bought.append(window)
                        again.append(Again(stype, symbol, window, tuple(sorted({i for i, _ in had})), more))
                        continue
                    for instrument, left in pieces:
                        by_id.setdefault(left, []).append(instrument)
                        held.add(instrument, left)
                bought = _joined(bought)
                for window in bought:
                    alone.setdefault(window, []).append(symbol)
                    for instrument, start, end in cut(rectangles, window).select(_SPAN).iter_rows():
                        held.add(instrument, Window(start, end))
                claims += [
                    Claim(stype, symbol, rest, cut(rectangles, rest))
                    for rest in subtract(lacking, [(w.start, w.end) for w in bought])
                ]
        purchases += _grouped(stype, alone, mine)
        purchases += _by_ids([(i, window) for window, ids in by_id.items() for i in ids])
    return Need(tuple(purchases), tuple(claims), tuple(again))


def _by_ids(pieces: Iterable[tuple[int, Window]]) -> list[Purchase]:
    """Orders of single instruments: those that lack the same stretch together."""
    by_window: dict[Window, list[int]] = {}
    for instrument, window in pieces:
        by_window.setdefault(window, []).append(instrument)
    return [
        Purchase("instrument_id", tuple(map(str, chunk)), window, _themselves(chunk, window))
        for window, ids in by_window.items()
        for chunk in _chunks(sorted(ids))
    ]


def _held_of(rectangles: pl.DataFrame, held: Held) -> list[tuple[int, Window]]:
    """What is held of instruments in their rectangles."""
    return [(i, span) for i, s, e in merge(rectangles).iter_rows() for span in held.of(i, Window(s, e))]


def _joined(windows: Iterable[Window]) -> list[Window]:
    """Windows in their order; those that touch are one."""
    found: list[Window] = []
    for window in sorted(windows, key=lambda w: w.start):
        if found and found[-1].end == window.start:
            found[-1] = Window(found[-1].start, window.end)
        else:
            found.append(window)
    return found


def _grouped(stype: str, windows: Mapping[Window, list[str]], resolved: pl.DataFrame) -> list[Purchase]:
    """Symbols that lack the same stretch are ordered together; what all symbols are, their bytes will say."""
    resolved = resolved.filter(pl.col("asked") != ALL_SYMBOLS)
    return [
        Purchase(stype, tuple(chunk), window, cut(resolved.filter(pl.col("asked").is_in(chunk)), window))
        for window, symbols in windows.items()
        for chunk in _chunks(symbols)
    ]


def cut(rectangles: pl.DataFrame, window: Window) -> pl.DataFrame:
    """The rectangles as far as they lie in the window."""
    start, end = rectangles["start"], rectangles["end"]
    if (start >= window.start).all() and (end <= window.end).all() and (start < end).all():
        return rectangles  # as is usual
    return rectangles.with_columns(
        pl.col("start").clip(lower_bound=window.start), pl.col("end").clip(upper_bound=window.end)
    ).filter(pl.col("start") < pl.col("end"))


def _themselves(instruments: Sequence[int], window: Window) -> pl.DataFrame:
    rows = [(str(i), i, window.start, window.end) for i in instruments]
    return pl.DataFrame(rows, schema=RESOLVED, orient="row").with_columns(stype=pl.lit("instrument_id"))


def _chunks(items: Sequence[Any]) -> list[Sequence[Any]]:
    return [items[i : i + MOST_SYMBOLS] for i in range(0, len(items), MOST_SYMBOLS)]


def _parts(
    rectangles: pl.DataFrame, window: Window, held: Held, *, whole: bool
) -> tuple[list[Window], list[tuple[Window, list[tuple[int, Window]]]]]:
    """(windows to order the symbol in, windows in which some of it is held, each with the instruments that lack).

    Where no instrument of the symbol is held the symbol is ordered; where all are, nothing.
    """
    if whole:
        return [window], []
    rows = list(merge(rectangles).iter_rows())
    if not rows:
        return [], []
    covered = [(i, span) for i, s, e in rows for span in held.of(i, Window(s, e))]
    if not covered:
        return [window], []
    kinds = _kinds([(s, e) for _, s, e in rows], [(span.start, span.end) for _, span in covered], window)
    mixed = [
        (some, [
            (instrument, left)
            for instrument, s, e in rows
            if (part := Window(s, e).cut(some))
            for left in held.instrument_lacks(instrument, part)
        ])
        for some in (w for w, kind in kinds if kind == "some")
    ]  # fmt: skip
    return [w for w, kind in kinds if kind == "none"], mixed


def _kinds(wanted: _Spans, covered: _Spans, window: Window) -> list[tuple[Window, str]]:
    """The window cut by how much of what is wanted is held: none, some or all of it. Neighbours of a kind are joined.

    Where nothing is wanted there is nothing to decide: such a stretch goes with the one before it, or the first
    with the one after.
    """
    steps: dict[int, list[int]] = {window.start: [0, 0], window.end: [0, 0]}
    for at, spans in enumerate((wanted, covered)):
        for start, end in spans:
            steps.setdefault(start, [0, 0])[at] += 1
            steps.setdefault(end, [0, 0])[at] -= 1
    wants = holds = 0
    found: list[tuple[Window, str]] = []
    for start, end in pairwise(sorted(steps)):
        wants, holds = wants + steps[start][0], holds + steps[start][1]
        kind = "" if not wants else "none" if not holds else "all" if holds == wants else "some"
        before = found[-1] if found else None
        if before and (not kind or before[1] in ("", kind)):
            found[-1] = (Window(before[0].start, end), kind or before[1])
        else:
            found.append((Window(start, end), kind))
    return found


__all__ = [
    "WIDTH",
    "Again",
    "Claim",
    "Held",
    "Need",
    "Purchase",
    "Request",
    "Split",
    "cut",
    "needed",
    "parse_request",
]

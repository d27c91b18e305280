"""From the symbols that somebody asks for to the rectangles that hold their rows, by dated mappings.

Pure: it works on the frames ``mappings``, ``coverage`` and ``ledger`` of a store, and reads no rows. Where
two mappings claim the same instrument (for a continuous symbol: the same symbol) on the same day, the
later row of the frame wins.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import polars as pl

from hdi.errors import RequestError, UnknownSymbol
from hdi.frames import BROUGHT
from hdi.model import MAX_NS, Window, ns_date, subtract
from hdi.symbology import ALL_SYMBOLS, Intervals, disjoint, infer_stype, merge, root_of

#: The rows of one query: ``read`` of a store takes it as ``instruments``.
RECTANGLES: dict[str, pl.DataType] = {
    "dataset": pl.String(),
    "instrument_id": pl.Int64(),
    "start": pl.Int64(),
    "end": pl.Int64(),
}
_SAMPLE, _FEW = 8, 3
#: Symbols of which is kept what they are.
_MOST = 10_000
#: So few rectangles are looked through one by one.
_SOME = 8
_WHOLE = Window(0, MAX_NS)


@dataclass(frozen=True)
class Asked:
    """One symbol as the store knows it: its spelling there, and its rectangles over all time.

    No rectangle, though it is known: it was confirmed empty, or nothing says which instruments it meant.
    """

    symbol: str
    rectangles: pl.DataFrame = field(repr=False)

    @cached_property
    def spans(self) -> list[tuple[int, int]] | None:
        """Start and end of each rectangle where they are few, else None."""
        if self.rectangles.height > _SOME:
            return None
        return list(zip(self.rectangles["start"].to_list(), self.rectangles["end"].to_list(), strict=True))


#: Not looked for yet.
_UNKNOWN = Asked("", pl.DataFrame(schema=RECTANGLES))


class Lookup:
    """What a store knows of symbols, within one dataset where ``dataset`` is given.

    ``seen`` gives the datasets with rows of an instrument_id that no frame names: fragments may hold some.
    """

    def __init__(
        self,
        mappings: pl.DataFrame,
        coverage: pl.DataFrame,
        ledger: pl.DataFrame,
        dataset: str | None = None,
        seen: Callable[[int], Iterable[str]] = lambda _: (),
    ) -> None:
        receipts = ledger
        self._pending = ledger.filter(~pl.col("status").is_in(BROUGHT))
        ledger = ledger.filter(pl.col("status").is_in(BROUGHT))
        self._everything = (mappings, coverage, ledger)
        if dataset is not None:
            known = _datasets(mappings, coverage, ledger)
            if known and dataset not in known:
                raise RequestError(
                    f"unknown dataset {dataset!r}", f"{_meant(dataset, known)}Stored: {', '.join(known)}."
                )
            mappings, coverage, ledger = (f.filter(pl.col("dataset") == dataset) for f in self._everything)
        self._mappings, self._coverage, self._ledger = mappings, coverage, ledger
        self._dataset = dataset
        self._seen = seen
        self._known: dict[str, Asked | None] = {}
        self._receipts = receipts
        self._made: dict[str, bool] = {}
        #: What was found by the frames alone.
        self._told: dict[str, Asked | None] = {}

    def seeing(self, seen: Callable[[int], Iterable[str]]) -> Lookup:
        """The same, for another question to the store: what needs no row of it is not looked up again."""
        other: Lookup = copy.copy(self)
        other._seen, other._known = seen, {}
        return other

    @property
    def empty(self) -> bool:
        """True where nothing was ever stored."""
        return self._mappings.is_empty() and self._coverage.is_empty() and self._ledger.is_empty()

    def made(self, schema: str) -> bool:
        """True when rows of a schema were made of others, whatever the dataset: they have no bytes of a vendor."""
        if (found := self._made.get(schema)) is None:
            mine = (pl.col("schema") == schema) & pl.col("raw_digest").is_null() & (pl.col("fetched") > 0)
            found = self._made[schema] = bool(self._receipts.select(mine.any()).item())
        return found

    @cached_property
    def symbols(self) -> list[str]:
        """Every symbol that rows can be asked for by, and those that were asked for, sorted; no ids."""
        found = set(self._mappings["symbol"].unique())
        # Several symbols of one file that says not whose a row is are joined by commas.
        for asked in (*self._coverage["symbol"].unique(), *self._ledger["symbol"].unique()):
            found.update(asked.split(","))
        return sorted(s for s in found - {"", ALL_SYMBOLS} if not s.isdigit())

    def knows(self, symbol: str) -> bool:
        """Whether :meth:`find` finds it."""
        return self._find(symbol) is not None

    def find(self, symbols: Iterable[str]) -> list[Asked]:
        """Each symbol by its rectangles; UnknownSymbol, naming all of them, for those never stored."""
        found, unknown = [], []
        for text in symbols:
            asked = self._find(text)
            if asked is None:
                unknown.append(text)
            else:
                found.append(asked)
        if unknown:
            raise self._unknown(unknown)
        return found

    def partly(self, symbols: Iterable[str]) -> tuple[list[Asked], list[str]]:
        """The symbols that are stored, and what to say of the others; UnknownSymbol where none is stored."""
        asked = list(symbols)
        found = [(text, self._find(text)) for text in asked]
        unknown = [text for text, one in found if one is None]
        if len(unknown) == len(asked):
            raise self._unknown(unknown)
        return [one for _, one in found if one is not None], [self.left_out(text) for text in unknown]

    def left_out(self, text: str) -> str:
        """What to say of an unknown symbol that is left out beside known ones."""
        return self._unknown([text]).left_out

    def _find(self, text: str) -> Asked | None:
        """The symbol, looked for once: what no frame names is looked for among the rows."""
        # Of digits the rows may have to say.
        known = self._known if text.isdigit() else self._told
        if (found := known.get(text, _UNKNOWN)) is _UNKNOWN:
            if len(known) >= _MOST:
                known.clear()
            found = known[text] = self._look(text)
        return found

    def _look(self, text: str) -> Asked | None:
        symbol = self._spelled(text)
        digits = text.isascii() and text.isdigit()
        # Digits are an instrument_id; where none is stored they may be a venue's own symbol.
        if symbol is not None and not (digits and self._holding(int(text))):
            return Asked(symbol, self._of_symbol(symbol))
        if digits:
            datasets = self._holding(int(text)) or sorted(self._seen(int(text)))
            asked = self._coverage.filter(pl.col("symbol") == text).height + self._ledger.filter(among(text)).height
            if datasets or asked:
                return Asked(text, _rows([(d, int(text), 0, MAX_NS) for d in datasets]))
        return None

    def _spelled(self, text: str) -> str | None:
        """The symbol as it is stored: exactly as given, or else in another case."""
        if (self._mappings["symbol"] == text).any():
            return text
        if text.isdigit():
            return None
        if any(frame.select(among(text).any()).item() for frame in (self._coverage, self._ledger)):
            return text
        folded = text.casefold()
        return next((s for s in self.symbols if s.casefold() == folded), None)

    def _of_symbol(self, symbol: str) -> pl.DataFrame:
        rows = self._mappings.filter(pl.col("symbol") == symbol)
        parts = [_rows([])]
        for (dataset, stype), part in rows.group_by("dataset", "stype", maintain_order=True):
            if stype == "raw_symbol":
                kept = self._raw(str(dataset), part["instrument_id"].unique()).filter(pl.col("symbol") == symbol)
            elif stype == "continuous":
                kept = _latest(part)
            else:
                kept = part
            parts.append(_merged(str(dataset), kept))
        # A file of one symbol without mappings: all that came in it is that symbol's, while no mapping says more.
        claimed = self._coverage.filter(pl.col("symbol") == symbol, pl.col("instrument_id").is_not_null())
        parts += [
            _merged(str(d), _outside(part, rows.filter(pl.col("dataset") == d)))
            for (d,), part in claimed.group_by("dataset", maintain_order=True)
        ]
        return union([Asked(symbol, pl.concat(parts))])

    def _raw(self, dataset: str, instruments: pl.Series | None) -> pl.DataFrame:
        """Raw symbols by instrument and disjoint intervals: instrument_id, start, end, symbol."""
        rows = self._mappings.filter(pl.col("dataset") == dataset, pl.col("stype") == "raw_symbol")
        if instruments is not None:
            rows = rows.filter(pl.col("instrument_id").is_in(instruments.implode()))
        flat = disjoint(rows.select("instrument_id", "start", "end"))
        return flat.with_columns(symbol=rows["symbol"].gather(flat["row"])).drop("row")

    def _holding(self, instrument: int) -> list[str]:
        here = pl.col("instrument_id") == instrument
        return _datasets(self._mappings.filter(here), self._coverage.filter(here))

    def _asking(self, text: str) -> str:
        """How to find out what a continuous or parent symbol stood for, where something of its root is stored.

        A bare root means its front contract.
        """
        alike = [name for name in self.symbols if root_of(name) == root_of(text)]
        if infer_stype(text) == "raw_symbol" and text.upper() == root_of(text):
            text = f"{text.upper()}.c.0"
        if infer_stype(text) not in ("continuous", "parent") or not alike or text in alike:
            return ""
        some = ", ".join(sorted(alike, key=lambda name: ("." not in name, name))[:_FEW])
        return (
            f" Of {root_of(text)}, {some} is stored: hdi ingest --api databento --symbols {text} ... asks the vendor "
            f"what {text} stood for, and what is stored is not bought again."
        )

    def _unknown(self, unknown: Sequence[str]) -> UnknownSymbol:
        what = f"unknown symbol{'s' * (len(unknown) > 1)}: {', '.join(unknown)}"
        pending = self._pending.filter(pl.any_horizontal(*(among(text) for text in unknown)))
        pending = pending.unique("unit_id", keep="last")
        ordered = pending.filter(pl.col("status") == "ordered")
        if number := ordered.height:
            batch, at = ordered.select("batch", "committed_at").row(-1)
            return UnknownSymbol(
                f"{what}: ordered as batch job {batch} on {ns_date(at)}, and not here yet: "
                f"{number} unit{'s' * (number > 1)}; whether it is still prepared is not known here",
                "Run the same ingest again: it brings what is ready, and is not paid twice.",
            )
        if failed := pending.height:
            return UnknownSymbol(
                f"{what}: asked for, and failed in {failed} unit{'s' * (failed > 1)}",
                "dlq/api_errors and dlq/validation_failures say why; run the same ingest again.",
            )
        if Lookup(*self._everything).empty:
            return UnknownSymbol(
                f"{what}: the store is empty",
                "Ingest something first: hdi ingest --api databento --job NAME, or --api dbn FILE...",
            )
        if self._dataset is not None:
            elsewhere = Lookup(*self._everything)
            for text in unknown:
                if other := elsewhere._find(text):
                    where = other.rectangles["dataset"].unique().sort().to_list() or ["another dataset"]
                    return UnknownSymbol(
                        f"{text} is not stored in {self._dataset}, but in {', '.join(where)}",
                        "Leave --dataset out, or name that one.",
                    )
        known = self.symbols
        meant = "".join(_meant(text, known) for text in unknown)
        ids = self._coverage["instrument_id"].drop_nulls().unique().sort().head(_SAMPLE).cast(pl.String).to_list()
        sample = known[:: max(1, len(known) // _SAMPLE)][:_SAMPLE] or ids
        more = f" ({len(known)} in all)" if len(known) > len(sample) else ""
        stored = f"Stored, for example: {', '.join(sample)}{more}." if sample else "No symbol is stored."
        return UnknownSymbol(what, meant + stored + "".join(map(self._asking, unknown)))

    def names(self, rectangles: pl.DataFrame | None) -> Names:
        """The raw symbols in force, for the instruments of these rectangles or for all."""
        known = {}
        for dataset in self._mappings["dataset"].unique():
            only = None
            if rectangles is not None:
                only = rectangles.filter(pl.col("dataset") == dataset)["instrument_id"].unique()
            flat = self._raw(dataset, only)
            if flat.height:
                known[dataset] = (Intervals(flat), flat["symbol"])
        return Names(known)


class Names:
    """Raw symbols of whole columns of instruments and instants."""

    def __init__(self, known: Mapping[str, tuple[Intervals, pl.Series]]) -> None:
        self._known = known

    def fill(self, frame: pl.DataFrame, index_time: str) -> pl.DataFrame:
        """The frame with ``symbol``, where it is null, as the mappings have it at the index time."""
        if not self._known:
            return frame
        instants = frame[index_time].to_physical().to_numpy()
        instruments = frame["instrument_id"].to_numpy()
        symbols = frame["symbol"]
        for dataset, (intervals, names) in self._known.items():
            at = pl.Series(intervals.find(instruments, instants))
            found = names.gather(pl.select(pl.when(at >= 0).then(at)).to_series())
            here = symbols.is_null() & (frame["dataset"] == dataset)
            symbols = pl.select(pl.when(here).then(found).otherwise(symbols)).to_series()
        return frame.with_columns(symbols.alias("symbol"))


def union(asked: Iterable[Asked], window: Window = _WHOLE) -> pl.DataFrame:
    """The rectangles of several symbols within the window, none twice."""
    parts = [a.rectangles for a in asked]
    both = parts[0] if len(parts) == 1 else pl.concat([_rows([]), *parts])
    cut = both.with_columns(
        pl.col("start").clip(lower_bound=window.start), pl.col("end").clip(upper_bound=window.end)
    ).filter(pl.col("start") < pl.col("end"))
    if cut.height <= 1:  # as for most symbols in most windows
        return cut
    return pl.concat([_rows([]), *(_merged(str(d), part) for (d,), part in sorted(cut.group_by("dataset")))])


def near(asked: Sequence[Asked], window: Window) -> pl.DataFrame:
    """The rectangles of several symbols that reach into the window, for who looks at nothing outside of it.

    Of one symbol that stands for one instrument it is what is known already; else it is :func:`union`.
    """
    if len(asked) == 1 and (spans := asked[0].spans) is not None:
        here = [k for k, (start, end) in enumerate(spans) if start < window.end and end > window.start]
        if len(here) == 1:
            return asked[0].rectangles[here[0] : here[0] + 1]
    return union(asked, window)


def split(texts: Iterable[str]) -> tuple[str, ...]:
    """The symbols of several comma lists, in order, none twice."""
    names = (name.strip() for text in texts for name in text.split(","))
    return tuple(dict.fromkeys(name for name in names if name))


def _outside(claims: pl.DataFrame, mapped: pl.DataFrame) -> pl.DataFrame:
    """The claims (instrument_id, start, end) at the times for which the symbol has no mapping."""
    held = list(mapped.select("start", "end").unique().iter_rows())
    left = [
        (instrument, window.start, window.end)
        for instrument, start, end in claims.select("instrument_id", "start", "end").unique().iter_rows()
        for window in subtract(Window(start, end), held)
    ]
    return pl.DataFrame(left, schema={c: RECTANGLES[c] for c in ("instrument_id", "start", "end")}, orient="row")


def among(symbol: str) -> pl.Expr:
    """True where ``symbol`` is the one, or one of several joined by commas."""
    return pl.col("symbol").str.split(",").list.contains(symbol)


def _meant(text: str, known: Sequence[str]) -> str:
    by_fold = {k.casefold(): k for k in known}
    if front := by_fold.get(f"{text}.c.0".casefold()):
        return f"Did you mean {front}, its front contract? "
    close = [by_fold[k] for k in difflib.get_close_matches(text.casefold(), list(by_fold), n=3, cutoff=0.5)]
    return f"Did you mean {', '.join(close)}? " if close else ""


def _datasets(*frames: pl.DataFrame) -> list[str]:
    return sorted({d for f in frames for d in f["dataset"].unique()})


def _rows(rows: Sequence[tuple[str, int, int, int]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=RECTANGLES, orient="row")


def _merged(dataset: str, rows: pl.DataFrame) -> pl.DataFrame:
    return merge(rows).select(pl.lit(dataset).alias("dataset"), "instrument_id", "start", "end")


def _latest(rows: pl.DataFrame) -> pl.DataFrame:
    """The mappings of one continuous symbol, which stands for one instrument at a time."""
    flat = disjoint(rows.with_columns(instrument_id=pl.lit(0, pl.Int64)).select("instrument_id", "start", "end"))
    return flat.with_columns(rows["instrument_id"].gather(flat["row"]))


__all__ = ["ALL_SYMBOLS", "RECTANGLES", "Asked", "Lookup", "Names", "among", "near", "split", "union"]

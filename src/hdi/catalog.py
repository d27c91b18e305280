"""What a store holds, by symbol: from when until when, of which class and exchange, and what it stood for by date.

Pure: it works on the frames ``mappings`` and ``coverage`` of a store, and on what its definitions say of instruments.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import polars as pl

from hdi.errors import UnknownSymbol
from hdi.lookup import Lookup
from hdi.model import DAY_NS, Window
from hdi.symbology import ALL_SYMBOLS, CONTRACT, disjoint, infer_stype, root_of

if TYPE_CHECKING:
    from hdi.schema import Schemas
    from hdi.stores import Store

#: What definitions say of an instrument: the last that is stored of it under a raw symbol.
TOLD: dict[str, pl.DataType] = {
    "dataset": pl.String(),
    "instrument_id": pl.Int64(),
    "symbol": pl.String(),
    "asset": pl.String(),
    "instrument_class": pl.String(),
    "exchange": pl.String(),
}
#: One symbol of a type. ``instrument_id`` is null where it stands for several; ``first_day`` and ``last_day`` are the
#: first and the last UTC day of what is held of it; ``schemas`` are those in which something is.
LISTED: dict[str, pl.DataType] = {
    "dataset": pl.String(),
    "symbol": pl.String(),
    "stype": pl.String(),
    "root": pl.String(),
    "instrument_id": pl.Int64(),
    "instrument_class": pl.String(),
    "exchange": pl.String(),
    "first_day": pl.Date(),
    "last_day": pl.Date(),
    "schemas": pl.List(pl.String()),
}
#: What is there of an instrument in a schema, from its first to its last row.
LOOSE: dict[str, pl.DataType] = {
    "dataset": pl.String(),
    "instrument_id": pl.Int64(),
    "start": pl.Int64(),
    "end": pl.Int64(),
    "schema": pl.String(),
}
_PIECES = ("dataset", "symbol", "stype", "instrument_id", "start", "end", "schema")
_WILD = frozenset("*?[")
_ORDER = ("parent", "continuous", "raw_symbol", "instrument_id")


@dataclass(frozen=True)
class Catalog:
    """The symbols of a store, or of one ``dataset`` of it. ``on`` (a midnight) asks for what they were that UTC day.

    ``loose`` is what rows are there of that no coverage tells of (:data:`LOOSE`): those of fragments.
    """

    mappings: pl.DataFrame = field(repr=False)
    coverage: pl.DataFrame = field(repr=False)
    ledger: pl.DataFrame = field(repr=False)
    told: pl.DataFrame = field(repr=False)
    on: int | None = None
    dataset: str | None = None
    loose: pl.DataFrame | None = field(default=None, repr=False)

    def listed(self, pattern: str = "") -> pl.DataFrame:
        """The symbols (:data:`LISTED`) that a pattern means, by dataset, root and symbol; all without one.

        A pattern is a symbol, a root, a parent (its children), or has ``*``, ``?`` or ``[``. UnknownSymbol, with the
        closest names, where nothing is stored of it.
        """
        pieces = self._pieces
        if pattern and not _WILD & set(pattern):
            pieces = self._meant(pattern)
        found = self._summed(pieces)
        if _WILD & set(pattern):
            fits = [name for name in found["symbol"].unique() if fnmatch.fnmatchcase(name.upper(), pattern.upper())]
            if not fits:
                self._find(pattern)
            found = found.filter(pl.col("symbol").is_in(fits))
        return found

    def members(self, symbols: Sequence[str]) -> tuple[pl.DataFrame, tuple[str, ...]]:
        """What :meth:`listed` has of these symbols of a group, and those that nothing is stored of.

        Each of those has a line too, the last ones, without dataset and days.
        """
        if ALL_SYMBOLS in (symbol.upper() for symbol in symbols):
            return self.listed(), ()
        _ = self._lookup  # raises for a dataset that is not stored
        of = {symbol: self._of(symbol) for symbol in symbols}
        absent = tuple(symbol for symbol, pieces in of.items() if pieces.is_empty())
        found = self._summed(pl.concat([self._pieces.clear(), *of.values()]).unique())
        lines = [{"symbol": name, "stype": infer_stype(name), "root": _root(name), "schemas": []} for name in absent]
        return pl.concat([found, pl.DataFrame(lines, schema=LISTED)]), absent

    def rolls(self, symbol: str) -> pl.DataFrame | None:
        """Which contract a continuous symbol stood for, by days; None for any other symbol.

        Its columns are those of :data:`hdi.rolls.ROLLS`, without the rule.
        """
        if infer_stype(symbol) != "continuous":
            return None
        [asked] = self._lookup.find([symbol])
        held = asked.rectangles
        if self.on is not None:
            held = held.filter(pl.col("start") <= self.on, pl.col("end") > self.on)
        return (
            held.join(self._names(held), on=["dataset", "instrument_id", "start"], how="left")
            .sort("dataset", "start")
            .select(
                "dataset",
                pl.lit(asked.symbol).alias("symbol"),
                _day("start").alias("first_day"),
                _day("end", -1).alias("last_day"),
                pl.col("name").alias("contract"),
                "instrument_id",
            )
        )

    def _names(self, held: pl.DataFrame) -> pl.DataFrame:
        """The raw symbol of each stretch of an instrument, which it keeps while a continuous symbol stands for it.

        Names may be known for some days of a stretch only; of several the one of the most days counts.
        """
        return (
            held.join(self._raw, on=["dataset", "instrument_id"], suffix="_named")
            .with_columns(
                shared=pl.min_horizontal("end", "end_named") - pl.max_horizontal("start", "start_named"), name="symbol"
            )
            .filter(pl.col("shared") > 0)
            .group_by("dataset", "instrument_id", "start", "name")
            .agg(pl.col("shared").sum())
            .sort("shared", "name")
            .unique(["dataset", "instrument_id", "start"], keep="last", maintain_order=True)
            .drop("shared")
        )

    @cached_property
    def _lookup(self) -> Lookup:
        return Lookup(self.mappings, self.coverage, self.ledger, self.dataset)

    def _find(self, symbol: str) -> None:
        """Raise UnknownSymbol as a query would; where the symbol is known but nothing is held of it, say that."""
        self._lookup.find([symbol])
        raise UnknownSymbol(f"nothing is held of {symbol}", "hdi gaps and hdi runs say what became of it.")

    @cached_property
    def _raw(self) -> pl.DataFrame:
        """Raw symbols by dataset, instrument and disjoint intervals."""
        parts = [pl.DataFrame(schema={k: self.mappings.schema[k] for k in ("dataset", "instrument_id", "start", "end",
                                                                          "symbol")})]  # fmt: skip
        rows = self.mappings.filter(pl.col("stype") == "raw_symbol")
        for (dataset,), part in rows.group_by("dataset", maintain_order=True):
            flat = disjoint(part.select("instrument_id", "start", "end"))
            parts.append(
                flat.select(pl.lit(dataset).alias("dataset"), "instrument_id", "start", "end",
                            symbol=part["symbol"].gather(flat["row"]))
            )  # fmt: skip
        return pl.concat(parts)

    @cached_property
    def _held(self) -> pl.DataFrame:
        """What is held of each instrument: dataset, instrument_id, start, end, schema."""
        held = self.coverage.drop_nulls("instrument_id").select(*LOOSE)
        if self.loose is not None:
            held = pl.concat([held, self.loose.select(*LOOSE)])
        return self._here(held.unique())

    def _here(self, frame: pl.DataFrame) -> pl.DataFrame:
        """What of the frame is of the dataset that is asked for."""
        return frame if self.dataset is None else frame.filter(pl.col("dataset") == self.dataset)

    @cached_property
    def _pieces(self) -> pl.DataFrame:
        """What is held, by every symbol that it can be asked for by."""
        cut = (pl.max_horizontal("start", "start_named"), pl.min_horizontal("end", "end_named"))
        named = (
            self._held.join(self._raw, on=["dataset", "instrument_id"], suffix="_named")
            .with_columns(start=cut[0], end=cut[1])
            .filter(pl.col("start") < pl.col("end"))
        )
        unnamed = self._held.join(named.select("dataset", "instrument_id").unique(), on=["dataset", "instrument_id"],
                                  how="anti")  # fmt: skip
        whole = self._here(self.coverage).filter(
            pl.col("instrument_id").is_null(), pl.col("stype").is_in(["continuous", "parent"])
        )
        return pl.concat([
            named.with_columns(stype=pl.lit("raw_symbol")).select(_PIECES),
            unnamed.with_columns(symbol=pl.col("instrument_id").cast(pl.String), stype=pl.lit("instrument_id"))
            .select(_PIECES),
            whole.select(_PIECES),
        ])  # fmt: skip

    def _meant(self, pattern: str) -> pl.DataFrame:
        """The pieces of one symbol, of the children of a parent, or of all symbols of a root. UnknownSymbol."""
        found = self._of(pattern)
        if found.is_empty() and not (infer_stype(pattern) == "parent" and self._lookup.knows(pattern)):
            self._find(pattern)
        return found

    def _of(self, pattern: str) -> pl.DataFrame:
        """The pieces that :meth:`_meant` tells of, if any."""
        kind, pieces = infer_stype(pattern), self._pieces
        own = pieces.filter(pl.col("symbol").str.to_uppercase() == pattern.upper())
        if kind == "parent" and self._lookup.knows(pattern):
            [asked] = self._lookup.find([pattern])
            children = _overlapping(pieces.filter(pl.col("stype") == "raw_symbol"), asked.rectangles)
            return pl.concat([own, children])
        if kind == "instrument_id":
            own = pl.concat([own, pieces.filter(pl.col("instrument_id") == int(pattern))]).unique()
        if kind == "raw_symbol":
            roots = [name for name in pieces["symbol"].unique() if _root(name) == pattern.upper()]
            own = pl.concat([own, pieces.filter(pl.col("symbol").is_in(roots))]).unique()
        return own

    @property
    def _today(self) -> pl.Expr:
        """True for a piece of the day that is asked for."""
        if self.on is None:
            return pl.lit(value=True)
        return (pl.col("start") < self.on + DAY_NS) & (pl.col("end") > self.on)

    def _summed(self, pieces: pl.DataFrame) -> pl.DataFrame:
        """:data:`LISTED` of pieces; a raw symbol that came back is a line for each instrument that had it."""
        own = pl.when(pl.col("stype").is_in(["raw_symbol", "instrument_id"])).then("instrument_id")
        found = (
            pieces.with_columns(instrument_id=own)
            .group_by("dataset", "symbol", "stype", "instrument_id")
            .agg(
                first_day=_day("start").min(),
                last_day=_day("end", -1).max(),
                schemas=pl.col("schema").unique().sort(),
                today=self._today.any(),
            )
            .filter("today")
            .join(self.told, on=["dataset", "instrument_id", "symbol"], how="left")
        )
        roots = {name: _root(name) for name in found["symbol"].unique()}
        root = pl.coalesce("asset", pl.col("symbol").replace_strict(roots, return_dtype=pl.String))
        order = pl.col("stype").replace_strict({name: i for i, name in enumerate(_ORDER)}, return_dtype=pl.Int8)
        return (
            found.with_columns(root=root)
            .sort("dataset", "root", order, "first_day", "symbol", "instrument_id")
            .select(pl.col(c).cast(t) for c, t in LISTED.items())
        )


def loose(store: Store, schemas: Schemas, dataset: str | None = None) -> pl.DataFrame:
    """What fragments brought (:data:`LOOSE`): they claim no coverage, so their rows have to say whose they are."""
    ledger = store.ledger().filter(pl.col("status") == "fragment", pl.col("stored") > 0)
    found = [pl.DataFrame(schema=LOOSE)]
    for kept, told, start, end in (
        ledger.filter(pl.lit(dataset is None) | (pl.col("dataset") == (dataset or "")))
        .group_by("dataset", "schema").agg(pl.col("start").min(), pl.col("end").max())
        .sort("dataset", "schema").iter_rows()
    ):  # fmt: skip
        schema, name = schemas.find(told)
        counted = store.content(schema, name.name, Window(start, end), None, DAY_NS, kept)
        found.append(
            counted.group_by("dataset", "instrument_id")
            .agg(start=pl.col("first").min(), end=pl.col("last").max() + 1)
            .with_columns(schema=pl.lit(told))
        )
    return pl.concat(found)


def told(frames: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """What definitions say of instruments (:data:`TOLD`); frames in the order of reads, of which the last counts.

    Frames have dataset, instrument_id, raw_symbol, asset, instrument_class and exchange. Memory grows with the
    instruments, not with the definitions.
    """
    known = pl.DataFrame(schema=TOLD)
    key = ["dataset", "instrument_id", "symbol"]
    for frame in frames:
        new = frame.rename({"raw_symbol": "symbol"}).select(pl.col(c).cast(t) for c, t in TOLD.items())
        known = pl.concat([known, new.unique(key, keep="last")]).unique(key, keep="last")
    return known


def _root(symbol: str) -> str:
    """The root of a symbol; of a spread, which joins contracts by a dash, that of its first leg."""
    leg, dash, _ = symbol.upper().partition("-")
    return root_of(leg) if dash and CONTRACT.fullmatch(leg) else root_of(symbol)


def _day(column: str, shift: int = 0) -> pl.Expr:
    """The UTC day of an instant; of an exclusive end, with ``shift`` -1, the last day before it."""
    return ((pl.col(column) + shift) // DAY_NS).cast(pl.Int32).cast(pl.Date)


def _overlapping(pieces: pl.DataFrame, rectangles: pl.DataFrame) -> pl.DataFrame:
    """The pieces whose instrument is one of the rectangles at the time."""
    return (
        pieces.join(rectangles, on=["dataset", "instrument_id"], suffix="_asked")
        .filter(pl.col("start") < pl.col("end_asked"), pl.col("end") > pl.col("start_asked"))
        .select(_PIECES)
        .unique()
    )


__all__ = ["LISTED", "LOOSE", "TOLD", "Catalog", "loose", "told"]

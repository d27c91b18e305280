"""What a store knows of the contracts of a root, as the rules want it: definitions, daily volumes, open interest."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import polars as pl

from hdi.lookup import ALL_SYMBOLS, RECTANGLES, Lookup, among, union
from hdi.model import DAY_NS, MAX_NS, Window, joined, ns_date
from hdi.rolls.ranking import CONTRACTS, MEASURES

if TYPE_CHECKING:
    from hdi.schema import Schemas
    from hdi.stores import Store

_MONTHS = "FGHJKMNQUVXZ"
_OPEN_INTEREST, _NEW = 9, 1
_FUTURE = "F"
#: Contracts expire at most so many months after the month that they are named by.
_AFTER = 1
_WHOLE = Window(0, MAX_NS)
_DEFINED = ("dataset", "instrument_id", "raw_symbol", "asset", "instrument_class", "expiration", "maturity_year",
            "maturity_month", "ts_recv")  # fmt: skip
_STAMP = "%Y-%m-%dT%H:%M:%S%.9fZ"
_SAID = ["instrument_id", "raw_symbol", "instrument_class", "expiration", "maturity_year", "maturity_month"]


def delivery(root: str, symbol: str, day: dt.date) -> int | None:
    """The month (counted since year 0) that a contract of the root is named by, seen from a day on which it lives.

    None for what is no outright contract of the root. One or two digits of a year are those of the first such year
    in which the contract has not been delivered.
    """
    match = re.fullmatch(rf"{re.escape(root.upper())}([{_MONTHS}])(\d{{1,2}}|\d{{4}})", symbol.upper())
    if match is None:
        return None
    month, digits = _MONTHS.index(match[1]), match[2]
    span: int = 10 ** len(digits)
    earliest = day.year * 12 + day.month - 1 - _AFTER
    # The year whose last digits these are, and which is not over.
    year = day.year // span * span + int(digits) - span
    while year * 12 + month < earliest:
        year += span
    return year * 12 + month


@dataclass(frozen=True)
class Facts:
    """What one dataset of a store holds of a root."""

    store: Store
    schemas: Schemas
    lookup: Lookup
    dataset: str
    root: str

    @cached_property
    def candidates(self) -> pl.DataFrame:
        """The rectangles of instruments that may be contracts: by their names, else all of the parent."""
        mappings = self.store.mappings().filter(pl.col("dataset") == self.dataset, pl.col("stype") == "raw_symbol")
        names = [s for s in mappings["symbol"].unique() if delivery(self.root, s, dt.date(2000, 1, 1)) is not None]
        named = mappings.filter(pl.col("symbol").is_in(names)).select(pl.col(c).cast(t) for c, t in RECTANGLES.items())
        parent = f"{self.root}.FUT"
        if named.is_empty() and self.lookup.knows(parent):
            [asked] = self.lookup.find([parent])
            named = asked.rectangles.filter(pl.col("dataset") == self.dataset)
        return named

    @cached_property
    def contracts(self) -> pl.DataFrame:
        """What definitions say of the contracts (:data:`CONTRACTS`), whenever that changed, in the order of time."""
        schema, name = self.schemas.find("definition")
        rectangles = self._open(self.candidates)
        if rectangles.is_empty():
            return pl.DataFrame(schema=CONTRACTS)
        parts = [
            _changes(f.filter(pl.col("asset") == self.root, pl.col("instrument_class") == _FUTURE))
            for f in self.store.read(schema, name.name, _WHOLE, rectangles, _DEFINED, self.dataset)
        ]
        if not parts:
            return pl.DataFrame(schema=CONTRACTS)
        rows = _changes(pl.concat(parts))
        deliveries = [
            self._delivery(symbol, ns_date(at), year, month)
            for symbol, at, year, month in rows.select(
                "raw_symbol", pl.col("ts_recv").to_physical(), "maturity_year", "maturity_month"
            ).iter_rows()
        ]
        return rows.select(
            "instrument_id",
            contract="raw_symbol",
            delivery=pl.Series(deliveries, dtype=pl.Int64),
            expires=pl.col("expiration").to_physical(),
            known=pl.col("ts_recv").to_physical(),
        ).drop_nulls("delivery")

    def _delivery(self, symbol: str, day: dt.date, year: int | None, month: int | None) -> int | None:
        named = delivery(self.root, symbol, day)
        if named is None and year is not None and month is not None:
            return year * 12 + month - 1
        return named

    @cached_property
    def volumes(self) -> pl.DataFrame:
        """The volume of each contract and UTC day (:data:`MEASURES`), known when the day is over."""
        schema, name = self.schemas.find("ohlcv-1d")
        columns = ["dataset", "instrument_id", "symbol", "ts_event", "volume"]
        day = pl.col("ts_event").to_physical()
        parts = [
            f.group_by("instrument_id", "symbol", day=day // DAY_NS * DAY_NS).agg(pl.col("volume").sum())
            for f in self._rows(schema.index_time, self.store.read(
                schema, name.name, _WHOLE, self.candidates, columns, self.dataset))
        ]  # fmt: skip
        rows = pl.concat(parts) if parts else pl.DataFrame(schema={
            "instrument_id": pl.Int64(), "symbol": pl.String(), "day": pl.Int64(), "volume": pl.Int64()})  # fmt: skip
        summed = rows.group_by("instrument_id", "symbol", "day").agg(value=pl.col("volume").sum())
        return self._measures(summed.with_columns(known=pl.col("day") + DAY_NS))

    @cached_property
    def interest(self) -> pl.DataFrame:
        """The open interest of each contract and trading date (:data:`MEASURES`), known when it was received.

        The trading date is the one that the venue names, else the UTC day of the message.
        """
        schema, name = self.schemas.find("statistics")
        columns = ["dataset", "instrument_id", "symbol", "ts_recv", "ts_ref", "stat_type", "quantity", "update_action"]
        at = pl.col("ts_recv").to_physical()
        parts = [
            f.filter(pl.col("stat_type") == _OPEN_INTEREST).select(
                "instrument_id", "symbol", day=pl.coalesce(pl.col("ts_ref").to_physical(), at) // DAY_NS * DAY_NS,
                value=pl.when(pl.col("update_action") == _NEW).then("quantity"), known=at,
            )
            for f in self._rows(schema.index_time, self.store.read(
                schema, name.name, _WHOLE, self.candidates, columns, self.dataset))
        ]  # fmt: skip
        empty = pl.DataFrame(schema={c: t for c, t in MEASURES.items() if c not in ("contract", "delivery")} | {
            "symbol": pl.String()})  # fmt: skip
        return self._measures(pl.concat(parts) if parts else empty)

    def doubtful(self, schema: str) -> dict[int, int]:
        """The trading dates of which a row of a contract was rejected, each with when that became known.

        Of statistics those of open interest alone. A row that says no time may be of any day of its unit.
        """
        units = self.store.ledger().select("unit", since="start", until="end").unique("unit", keep="last")
        mine = pl.col("instrument_id").is_null() | pl.col("instrument_id").is_in(
            self.candidates["instrument_id"].unique().implode()
        )
        outside = pl.col("rules").list.contains("OUTSIDE_WINDOW") & pl.col("index_time").is_not_null()
        rows = self.store.quarantine().filter(
            pl.col("dataset") == self.dataset, pl.col("schema") == schema, ~pl.col("failed"), ~outside, mine
        ).join(units, on="unit", how="left")  # fmt: skip
        at, known = pl.col("index_time"), pl.col("index_time") // DAY_NS * DAY_NS + DAY_NS
        if schema == "statistics":
            told = pl.col("record").str.json_path_match("$.stat_type")
            rows = rows.filter(told.is_null() | (told == str(_OPEN_INTEREST)))
            of = pl.col("record").str.json_path_match("$.ts_ref").str.to_datetime(_STAMP, time_unit="ns", strict=False)
            at, known = pl.coalesce(of.cast(pl.Int64), at), at
        spans = rows.select(
            pl.coalesce(at, "since"), until=pl.coalesce(at + 1, "until"), known=pl.coalesce(known, "until")
        ).drop_nulls()  # fmt: skip
        found: dict[int, int] = {}
        for first, until, heard in spans.iter_rows():
            for day in range(first // DAY_NS * DAY_NS, until, DAY_NS):
                found[day] = min(found.get(day, heard), heard)
        return found

    def complete(self, schema: str, least: int = 2) -> list[tuple[int, int]]:
        """When the rows of a schema were asked for as a whole: by the parent or all symbols, or of several contracts.

        What was asked for by a continuous symbol says nothing of the contracts beside it.
        """
        here = self.store.coverage().filter(pl.col("dataset") == self.dataset, pl.col("schema") == schema)
        parent = among(f"{self.root}.FUT") | (pl.col("symbol") == ALL_SYMBOLS)
        whole = here.filter(pl.col("instrument_id").is_null(), parent)
        own = here.filter(pl.col("stype") != "continuous").join(self._open(self.candidates).select("instrument_id"),
                                                               on="instrument_id", how="semi")  # fmt: skip
        return joined([*whole.select("start", "end").rows(), *_shared(own, least)])

    def _rows(self, index: str, frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        names = self.lookup.names(self._open(self.candidates))
        return (names.fill(f, index) if f["symbol"].null_count() else f for f in frames)

    def _measures(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows of contracts, each with the month that it is named by."""
        told = dict(self.contracts.select("contract", "delivery").iter_rows())
        keys = rows.select("symbol", year=pl.col("day").cast(pl.Datetime("ns", "UTC")).dt.truncate("1mo")).unique()
        months = [
            (symbol, first, named if (named := delivery(self.root, symbol or "", first.date())) is not None
             else told.get(symbol))
            for symbol, first in keys.iter_rows()
        ]  # fmt: skip
        known = pl.DataFrame(months, schema={**keys.schema, "delivery": pl.Int64()}, orient="row")
        return (
            rows.with_columns(year=pl.col("day").cast(pl.Datetime("ns", "UTC")).dt.truncate("1mo"))
            .join(known, on=["symbol", "year"], how="left", maintain_order="left")
            .drop_nulls("delivery")
            .rename({"symbol": "contract"})
            .select(pl.col(c).cast(t) for c, t in MEASURES.items())
        )

    def _open(self, rectangles: pl.DataFrame) -> pl.DataFrame:
        """The instruments at all times: what is known of one may be said before a mapping names it."""
        return union([]) if rectangles.is_empty() else rectangles.select(
            "dataset", "instrument_id", start=pl.lit(0, pl.Int64), end=pl.lit(MAX_NS, pl.Int64)
        ).unique(maintain_order=True)  # fmt: skip


def _changes(rows: pl.DataFrame) -> pl.DataFrame:
    """The definitions that differ from the one before of the same instrument."""
    before = pl.struct(_SAID[1:]).shift(1).over("instrument_id")
    changed = before.is_null() | (pl.struct(_SAID[1:]) != before)
    first = pl.int_range(pl.len()).over("instrument_id") == 0
    return rows.sort("ts_recv", maintain_order=True).filter(first | changed)


def _shared(rows: pl.DataFrame, least: int) -> list[tuple[int, int]]:
    """When so many instruments are covered at once."""
    flat = pl.concat(
        pl.DataFrame(joined(part.select("start", "end").rows()), schema={"a": pl.Int64, "b": pl.Int64}, orient="row")
        for _, part in rows.group_by("instrument_id")
    ) if rows.height else pl.DataFrame(schema={"a": pl.Int64, "b": pl.Int64})  # fmt: skip
    steps = sorted([(a, 1) for a in flat["a"]] + [(b, -1) for b in flat["b"]], key=lambda s: (s[0], -s[1]))
    found, held, began = [], 0, 0
    for at, step in steps:
        if held < least <= held + step:
            began = at
        elif held >= least > held + step:
            found.append((began, at))
        held += step
    return found


__all__ = ["Facts", "delivery"]

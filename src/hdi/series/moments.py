"""Prices at a roll: the last moment before it at which both contracts have one, or the last and the first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING

import polars as pl

from hdi.errors import RequestError
from hdi.explain import to_ingest
from hdi.model import DAY_NS, NS, Window, ns_date

if TYPE_CHECKING:
    from hdi.lookup import Lookup
    from hdi.schema import Schema
    from hdi.stores import Store

#: How far before a roll (or, for a gap, after it) prices are looked for.
LOOKBACK_DAYS = 7
_HOUR = 3600 * NS
#: The steps in which it is looked, so that ticks of days are not read for the last of them.
_STEPS = (0, _HOUR, 6 * _HOUR, *(day * DAY_NS for day in range(1, LOOKBACK_DAYS + 1)))
#: Of bars there are fewer; a weekend is one step.
_BAR_STEPS = (0, DAY_NS, 4 * DAY_NS, LOOKBACK_DAYS * DAY_NS)
_AT = "_at"


@dataclass(frozen=True)
class Roll:
    """One series goes from one contract to another, at midnight UTC or where the vendor says."""

    dataset: str
    symbol: str
    at: int
    old_contract: str | None
    new_contract: str | None
    old: int
    new: int

    @property
    def head(self) -> tuple[str, str, int, str | None, str | None, int, int]:
        """As the frame of rolls begins."""
        return self.dataset, self.symbol, self.at, self.old_contract, self.new_contract, self.old, self.new

    @property
    def told(self) -> str:
        """Which roll it is, for messages."""
        old, new = self.old_contract or self.old, self.new_contract or self.new
        return f"{self.symbol} rolls from {old} to {new} on {ns_date(self.at)}"


@dataclass(frozen=True)
class Prices:
    """Both prices of a roll, and the index times of the rows that they are from."""

    old: Decimal
    new: Decimal
    old_at: int
    new_at: int


@dataclass(frozen=True)
class Moments:
    """Finds prices of instruments in one schema of a store: closes of bars, trades, middles of quotes."""

    store: Store
    lookup: Lookup
    schema: Schema
    source: str

    @property
    def bars(self) -> bool:
        """True where rows are bars: two contracts have a price at one moment when they have a bar of one start."""
        return "close_price" in self.schema.dtypes

    def rows(self, roll: Roll, window: Window, ids: tuple[int, ...], *, first: bool) -> pl.DataFrame:
        """The prices (instrument_id, _at, price) in the window, in the order of time; ``first``: as it opens."""
        index = self.schema.index_time
        rectangles = pl.DataFrame(
            [(roll.dataset, i, window.start, window.end) for i in sorted(set(ids))],
            schema={"dataset": pl.String, "instrument_id": pl.Int64, "start": pl.Int64, "end": pl.Int64}, orient="row",
        )  # fmt: skip
        price, needed, kept = self._price(first)
        columns = list(dict.fromkeys(["dataset", "instrument_id", "symbol", index, *needed]))
        names = None
        parts = []
        for frame in self.store.read(self.schema, self.source, window, rectangles, columns, roll.dataset):
            rows = frame
            if frame["symbol"].null_count():
                names = names or self.lookup.names(rectangles)
                rows = names.fill(frame, index)
            parts.append(
                rows.filter(kept, self._same(roll)).select(
                    "instrument_id", pl.col(index).to_physical().alias(_AT), price.alias("price")
                ).drop_nulls("price").unique(["instrument_id", _AT] if self.bars else ["instrument_id"],
                                             keep="first" if first else "last", maintain_order=True)
            )  # fmt: skip
        empty = pl.DataFrame(schema={"instrument_id": pl.Int64, _AT: pl.Int64, "price": pl.Decimal(38, 9)})
        return pl.concat([empty, *(p.cast({"price": pl.Decimal(38, 9)}) for p in parts)])

    def _price(self, first: bool) -> tuple[pl.Expr, list[str], pl.Expr]:  # noqa: FBT001
        """The price of a row, the columns that it needs, and which rows have one."""
        names, every = self.schema.dtypes, pl.lit(value=True)
        if self.bars:
            column = "open_price" if first else "close_price"
            return pl.col(column), [column], every
        if "bid_px_00" in names and self.schema.kind not in ("tbbo", "tcbbo"):
            return _middle(pl.col("bid_px_00"), pl.col("ask_px_00")), ["bid_px_00", "ask_px_00"], every
        traded = pl.col("action") == "T" if "action" in names else every
        return pl.col("price"), ["price", *(["action"] if "action" in names else [])], traded

    def _same(self, roll: Roll) -> pl.Expr:
        """True for rows of the two contracts: an id may have been another instrument's shortly before."""
        kept = pl.lit(value=True)
        for instrument, contract in ((roll.old, roll.old_contract), (roll.new, roll.new_contract)):
            if contract is not None:
                other = (pl.col("instrument_id") == instrument) & (pl.col("symbol") != contract)
                kept &= ~other.fill_null(value=False)
        return kept


def _middle(bid: pl.Expr, ask: pl.Expr) -> pl.Expr:
    """Half-way between both, half-even to 9 places."""
    total = bid.to_physical().cast(pl.Int128) + ask.to_physical().cast(pl.Int128)
    two = pl.lit(2, pl.Int128)
    half = total // two
    odd = total - half * two
    return (half + odd * (half - half // two * two)).cast(pl.Decimal(38, 0)) * pl.lit(
        Decimal("0.000000001"), dtype=pl.Decimal(18, 9)
    )


def priced(moments: Moments, roll: Roll, *, gap: bool) -> Prices:
    """Both prices at a roll. RequestError, with what to ingest, where the store lacks one."""
    if gap:
        old = _nearest(moments, roll, roll.old, before=True)
        new = _nearest(moments, roll, roll.new, before=False)
        return Prices(old[1], new[1], old[0], new[0])
    held = moments.rows(roll, Window(roll.at, roll.at), (), first=False)
    for window in _before(moments, roll.at):
        held = pl.concat([moments.rows(roll, window, (roll.old, roll.new), first=False), held])
        if found := _together(held, roll, bars=moments.bars):
            once = found if moments.bars else _once(moments, roll, found)
            if once is not None:
                return once
            break
    raise _missing(moments, roll, held)


def _together(held: pl.DataFrame, roll: Roll, *, bars: bool) -> Prices | None:
    old, new = (held.filter(pl.col("instrument_id") == i) for i in (roll.old, roll.new))
    if bars:
        both = old.join(new, on=_AT, suffix="_new").sort(_AT)
        if both.is_empty():
            return None
        at, first, second = both.select(_AT, "price", "price_new").row(-1)
        return Prices(first, second, at, at)
    if old.is_empty() or new.is_empty():
        return None
    (old_at, first), (new_at, second) = (f.sort(_AT, maintain_order=True).row(-1)[1:] for f in (old, new))
    return Prices(first, second, old_at, new_at)


def _once(moments: Moments, roll: Roll, last: Prices) -> Prices | None:
    """The prices of ticks at the moment at which the first of both contracts ends: of the other its last one then."""
    if last.old_at == last.new_at:
        return last
    late = roll.new if last.old_at < last.new_at else roll.old
    found = _last(moments, roll, late, min(last.old_at, last.new_at) + 1)
    if found is None:
        return None
    at, price = found
    return replace(last, new=price, new_at=at) if late == roll.new else replace(last, old=price, old_at=at)


def _last(moments: Moments, roll: Roll, instrument: int, before: int) -> tuple[int, Decimal] | None:
    """The last price of an instrument before an instant, in the days before the roll."""
    for back in _before(moments, before):
        window = back.cut(Window(max(roll.at - LOOKBACK_DAYS * DAY_NS, 0), before))
        if window is None:
            break
        rows = moments.rows(roll, window, (instrument,), first=False).sort(_AT, maintain_order=True)
        if rows.height:
            at, price = rows.row(-1)[1:]
            return at, price
    return None


def _nearest(moments: Moments, roll: Roll, instrument: int, *, before: bool) -> tuple[int, Decimal]:
    """The last price of an instrument before the roll, or the first one from it on."""
    if before and (found := _last(moments, roll, instrument, roll.at)):
        return found
    for window in () if before else _after(moments, roll.at):
        rows = moments.rows(roll, window, (instrument,), first=True).sort(_AT, maintain_order=True)
        if rows.height:
            at, price = rows.row(0)[1:]
            return at, price
    contract = (roll.old_contract if before else roll.new_contract) or instrument
    side = "before" if before else "after"
    raise RequestError(
        f"{roll.told}: no price of {contract} in {moments.source} within {LOOKBACK_DAYS} days {side} it",
        _ingest(moments, roll, contract, Window(roll.at - LOOKBACK_DAYS * DAY_NS, roll.at) if before
                else Window(roll.at, roll.at + LOOKBACK_DAYS * DAY_NS)),
    )  # fmt: skip


def _before(moments: Moments, at: int) -> Iterator[Window]:
    for near, far in pairwise(_BAR_STEPS if moments.bars else _STEPS):
        if at - near > 0:
            yield Window(max(at - far, 0), at - near)


def _after(moments: Moments, at: int) -> Iterator[Window]:
    return (Window(at + near, at + far) for near, far in pairwise(_BAR_STEPS if moments.bars else _STEPS))


def _missing(moments: Moments, roll: Roll, held: pl.DataFrame) -> RequestError:
    there = set(held["instrument_id"])
    lacking = [
        contract or number
        for number, contract in ((roll.old, roll.old_contract), (roll.new, roll.new_contract))
        if number not in there
    ]
    what = (
        f"no price of {' and '.join(map(str, lacking))} is stored there" if lacking else "they never have one at once"
    )
    window = Window(max(roll.at - LOOKBACK_DAYS * DAY_NS, 0), roll.at)
    get = f"{_ingest(moments, roll, ','.join(map(str, lacking)), window)}\n" if lacking else ""
    return RequestError(
        f"{roll.told}: both contracts need a price in {moments.source} at one moment within {LOOKBACK_DAYS} days "
        f"before it: {what}",
        f"{get}Or adjust across the gap (--at gap, at='gap'): the last price of the one, the first of the other.",
    )


def _ingest(moments: Moments, roll: Roll, symbols: object, window: Window) -> str:
    return f"To get it: {to_ingest(roll.dataset, moments.source, str(symbols), window)}"


__all__ = ["Moments", "Prices", "Roll", "priced"]

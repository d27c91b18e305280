"""Adjusted continuous series: prices of several contracts made one series, computed when asked; stored rows stay.

Backward adjustment leaves the last contract of the window as it was traded and moves those before it, forward the
first one and those after it. A roll later than the window is not known to it: asked again with a later end, backward
adjustment gives other prices for the same days. Whoever tests a strategy on them must know that.

By difference each roll adds the exact difference of two prices. By ratio the product of the exact ratios of all rolls
in between is rounded once, half-even to :data:`PLACES` places, and each price times that half-even to 9.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

import polars as pl

from hdi.answer import Rows
from hdi.errors import RequestError
from hdi.lookup import RECTANGLES, Asked, union
from hdi.model import iso_ns
from hdi.rolls import named
from hdi.schema import closest
from hdi.series.moments import Moments, Prices, Roll, priced
from hdi.symbology import Intervals, infer_stype

if TYPE_CHECKING:
    from hdi.query import Result
    from hdi.schema import Schema

HOW = ("none", "backward", "forward")
BY = ("difference", "ratio")
AT = ("both", "gap")
#: Decimal places of a ratio.
PLACES = 15
_PRICE_PLACES = 9
_SCALE, _UNIT = 10**PLACES, 10**_PRICE_PLACES
#: A price has 18 digits; a price times a factor must fit 128 bits.
_MOST_FACTOR = 10**20
_LIMIT = 10**18
#: The columns that are levels of price, and so move with a roll; volumes and differences of prices do not.
_LEVEL = re.compile(r"(open|high|low|close)_price|vwap|price|(bid|ask)_px_\d\d")
_FACTOR = pl.Decimal(38, PLACES)
_PRICE = pl.Decimal(18, _PRICE_PLACES)
_TIME = pl.Datetime("ns", "UTC")
#: One roll of a series inside the window. ``factor`` is what this roll adds, or multiplies by; ``cumulative`` what is
#: applied to the rows just before it (backward) or from it on (forward). Prices are from the moments beside them.
ROLLED: dict[str, pl.DataType] = {
    "dataset": pl.String(),
    "symbol": pl.String(),
    "at": _TIME,
    "old_contract": pl.String(),
    "new_contract": pl.String(),
    "old_instrument_id": pl.Int64(),
    "new_instrument_id": pl.Int64(),
    "old_price": _PRICE,
    "new_price": _PRICE,
    "old_time": _TIME,
    "new_time": _TIME,
    "factor": _FACTOR,
    "cumulative": _FACTOR,
}


@dataclass(frozen=True)
class Factors:
    """What is done to the prices of each instrument, when; ``rolls`` says why."""

    ratio: bool
    rolls: Rows
    _spans: dict[str, tuple[Intervals, pl.Series]] = field(repr=False)

    def applied(self, frame: pl.DataFrame, index: str) -> pl.DataFrame:
        """The frame with its prices adjusted. RequestError for a price that does not fit any more."""
        levels = [c for c in frame.columns if _LEVEL.fullmatch(c) and frame.schema[c].is_decimal()]
        if not levels or not self._spans:
            return frame
        factors = self._of(frame, index)
        made = frame.with_columns((_times if self.ratio else _plus)(pl.col(c), factors).alias(c) for c in levels)
        for column in levels:
            too_far = made[column].abs() >= Decimal(_LIMIT // _UNIT)
            if too_far.any():
                at = too_far.arg_max() or 0
                raise RequestError(
                    f"{column} at {iso_ns(int(frame[index].to_physical()[at]))} is {made[column][at]} after adjusting: "
                    "that does not fit DECIMAL(18,9)",
                    "Adjust a shorter window, or by difference.",
                )
        return made.with_columns(pl.col(c).cast(_PRICE) for c in levels)

    def _of(self, frame: pl.DataFrame, index: str) -> pl.Expr:
        """The factor of each row, as whole units; one literal where all rows have the same."""
        instants = frame[index].to_physical().to_numpy()
        instruments = frame["instrument_id"].to_numpy()
        found = pl.repeat(_SCALE if self.ratio else 0, frame.height, dtype=pl.Int128, eager=True)
        for dataset, (intervals, factors) in self._spans.items():
            at = pl.Series(intervals.find(instruments, instants))
            here = (at >= 0) & (frame["dataset"] == dataset)
            mine = factors.gather(pl.select(pl.when(at >= 0).then(at).otherwise(0)).to_series())
            found = pl.select(pl.when(here).then(mine).otherwise(found)).to_series()
        first = found[0]
        return pl.lit(first, pl.Int128) if (found == pl.Series([first], dtype=pl.Int128)).all() else pl.lit(found)


def _plus(price: pl.Expr, factor: pl.Expr) -> pl.Expr:
    return _decimal(price.to_physical().cast(pl.Int128) + factor)


def _times(price: pl.Expr, factor: pl.Expr) -> pl.Expr:
    """A price times a factor, rounded half-even."""
    scale, two = pl.lit(_SCALE, pl.Int128), pl.lit(2, pl.Int128)
    product = price.to_physical().cast(pl.Int128) * factor
    whole = product // scale
    double = (product - whole * scale) * two
    odd = whole - whole // two * two
    up = (double > scale) | ((double == scale) & (odd == pl.lit(1, pl.Int128)))
    return _decimal(whole + up.cast(pl.Int128))


def _decimal(units: pl.Expr) -> pl.Expr:
    """Whole units of 1e-9 as a decimal number."""
    return units.cast(pl.Decimal(38, 0)) * pl.lit(Decimal("0.000000001"), dtype=_PRICE)


def adjusted_query(result: Result, *, how: str | None, by: str = "difference", at: str = "both") -> Result:
    """A query with its prices adjusted; ``rolls`` of it are :data:`ROLLED`. RequestError as :func:`factors`."""
    found = factors(result, how=how, by=by, at=at)
    return result if found is None else result.adjusted_by(found)


def factors(series: Result, *, how: str | None, by: str = "difference", at: str = "both") -> Factors | None:
    """What adjusting does to the rows of a query; None where nothing is to be done.

    Each row belongs to one series: RequestError for a symbol that is not continuous, for symbols that stand for the
    same contract at the same time, and for a schema without prices of its own. RequestError too for a roll without
    prices (with what to ingest), and for one by ratio with a price that is not positive.
    """
    how, by, at = (_word(v, key, words) for v, key, words in ((how or "none", "adjust", HOW), (by, "by", BY),
                                                              (at, "at", AT)))  # fmt: skip
    if how == "none":
        if (by, at) != (BY[0], AT[0]):
            raise RequestError(
                "by and at say how prices are adjusted, and nothing is",
                "Adjust backward or forward, or leave both out.",
            )
        return None
    _check(series)
    moments = Moments(series.store, series.lookup, series.schema, series.source)
    return composed(_stretches(series), lambda roll: priced(moments, roll, gap=at == "gap"), how=how, by=by)


def composed(stretches: pl.DataFrame, price: Callable[[Roll], Prices], *, how: str, by: str) -> Factors:
    """The factors of series by their stretches (rectangles with ``symbol`` and ``contract``) and the prices at rolls.

    RequestError for a ratio of prices that are not positive.
    """
    ratio = by == "ratio"
    rows, spans = [], []
    ordered = stretches.sort("symbol", "dataset", "start")
    for (dataset, symbol), part in ordered.group_by("dataset", "symbol", maintain_order=True):
        rolls = [_roll(str(dataset), str(symbol), a, b) for a, b in _turns(part)]
        prices = [price(roll) for roll in rolls]
        own, cumulative = _factors(rolls, prices, how=how, ratio=ratio)
        for roll, at, factor, total in zip(rolls, prices, own, _beside(cumulative, how), strict=True):
            rows.append((*roll.head, at.old, at.new, at.old_at, at.new_at, _shown(factor), _shown(total)))
        spans += _applied(part, [r.at for r in rolls], cumulative, ratio=ratio)
    frame = pl.DataFrame(rows, schema=_RAW, orient="row").with_columns(pl.col(c).cast(_TIME) for c in _TIMES)
    held = _reaching(pl.DataFrame(spans, schema={**RECTANGLES, "factor": pl.Int128()}, orient="row"))
    by_dataset = {
        str(d): (Intervals(part), part["factor"]) for (d,), part in held.group_by("dataset", maintain_order=True)
    }
    return Factors(ratio, Rows(frame.select(list(ROLLED))), by_dataset)


def _reaching(held: pl.DataFrame) -> pl.DataFrame:
    """Each stretch from where the one before of its instrument ends: a bar may start before its contract's turn."""
    ordered = held.sort("dataset", "instrument_id", "start")
    return ordered.with_columns(start=pl.col("end").shift(1).over("dataset", "instrument_id").fill_null(0))


_TIMES = ("at", "old_time", "new_time")
_RAW = {c: pl.Int64() if c in _TIMES else t for c, t in ROLLED.items()}


def _word(value: str, key: str, words: Sequence[str]) -> str:
    word = value.strip().lower()
    if word not in words:
        raise RequestError(f"{value!r} is no way to adjust ({key})", closest(value, words))
    return word


def _check(series: Result) -> None:
    """RequestError for what belongs to no series, and for a schema whose prices are none of a series."""
    if series.asked is None:
        raise RequestError("every symbol is asked for: only continuous symbols are adjusted", "Name some: ES.c.0.")
    for asked in series.asked:
        if infer_stype(asked.symbol) != "continuous":
            raise RequestError(
                f"{asked.symbol} is no continuous symbol: it does not roll, and there is nothing to adjust",
                "Ask for it without adjusting, or for a continuous symbol such as ES.c.0.",
            )
    if not tradable(series.schema):
        raise RequestError(
            f"{series.name.name} has no prices that could be adjusted",
            "Adjusted are bars, trades and quotes: ohlcv-*, trades, tbbo, bbo-*, mbp-* and their like.",
        )


def tradable(schema: Schema) -> bool:
    """True for bars, trades, quotes and orders; the prices of statistics and definitions are of many kinds."""
    names = schema.dtypes
    return "close_price" in names or "bid_px_00" in names or {"price", "size", "side"} <= set(names)


def _stretches(series: Result) -> pl.DataFrame:
    """The contracts of each series in the window: the rectangles, ``symbol`` and ``contract``, by time.

    RequestError where two of the series are of the same contract at the same time.
    """
    window = series.query.window
    parts = []
    for asked in _once(series.asked or []):
        held = union([asked], window)
        parts.append(named(series.lookup, held).with_columns(symbol=pl.lit(asked.symbol)))
    empty = pl.DataFrame(schema={**RECTANGLES, "contract": pl.String(), "symbol": pl.String()})
    both = pl.concat([empty, *parts])
    if series.contracts is not None:
        told = series.contracts.select("dataset", "instrument_id", told="contract").unique(RECTANGLES_KEY)
        both = both.join(told, on=list(RECTANGLES_KEY), how="left", maintain_order="left").with_columns(
            contract=pl.coalesce("contract", "told")
        ).drop("told")  # fmt: skip
    ordered = both.sort("dataset", "instrument_id", "start")
    before = ordered.select(pl.all().shift(1).name.prefix("_"))
    clash = pl.concat([ordered, before], how="horizontal").filter(
        pl.col("dataset") == pl.col("_dataset"), pl.col("instrument_id") == pl.col("_instrument_id"),
        pl.col("start") < pl.col("_end"),
    )  # fmt: skip
    if clash.height:
        row = clash.row(0, named=True)
        raise RequestError(
            f"{row['_symbol']} and {row['symbol']} are both {row['contract'] or row['instrument_id']} at "
            f"{iso_ns(row['start'])}: a row cannot be adjusted for two series",
            "Ask for them one by one.",
        )
    return both


RECTANGLES_KEY = ("dataset", "instrument_id")


def _once(asked: Sequence[Asked]) -> list[Asked]:
    return list({a.symbol: a for a in asked}.values())


def _turns(part: pl.DataFrame) -> Iterator[tuple[dict[str, object], dict[str, object]]]:
    """Each stretch of another instrument than the one before, with that."""
    rows = part.rows(named=True)
    for before, after in pairwise(rows):
        if before["instrument_id"] != after["instrument_id"]:
            yield before, after


def _roll(dataset: str, symbol: str, old: dict[str, object], new: dict[str, object]) -> Roll:
    return Roll(
        dataset, symbol, int(str(new["start"])), _text(old["contract"]), _text(new["contract"]),
        int(str(old["instrument_id"])), int(str(new["instrument_id"])),
    )  # fmt: skip


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _factors(
    rolls: Sequence[Roll], prices: Sequence[Prices], *, how: str, ratio: bool
) -> tuple[list[Fraction], list[Fraction]]:
    """What each roll does, and what is applied to each stretch between them, exactly."""
    neutral = Fraction(1 if ratio else 0)
    own = []
    for roll, price in zip(rolls, prices, strict=True):
        old, new = Fraction(price.old), Fraction(price.new)
        if ratio and (old <= 0 or new <= 0):
            raise RequestError(
                f"{roll.told}: the prices are {price.old} and {price.new}; "
                "a ratio of prices that are not positive says nothing",
                "Adjust by difference.",
            )
        step = (new / old if ratio else new - old) if how == "backward" else (old / new if ratio else old - new)
        own.append(step)
    cumulative = [neutral]
    for step in reversed(own) if how == "backward" else own:
        cumulative.append(cumulative[-1] * step if ratio else cumulative[-1] + step)
    return own, cumulative[::-1] if how == "backward" else cumulative


def _beside(cumulative: Sequence[Fraction], how: str) -> Sequence[Fraction]:
    """For each roll the factor of the rows that it moves: those before it, or those from it on."""
    return cumulative[:-1] if how == "backward" else cumulative[1:]


def _applied(
    part: pl.DataFrame, turns: Sequence[int], cumulative: Sequence[Fraction], *, ratio: bool
) -> list[tuple[str, int, int, int, int]]:
    """The stretches of a series, each with its factor in whole units."""
    found = []
    for dataset, instrument, start, end in part.select(list(RECTANGLES)).iter_rows():
        factor = cumulative[sum(turn <= start for turn in turns)]
        units = round(factor * (_SCALE if ratio else _UNIT))  # round() of a Fraction is half-even
        if abs(units) >= _MOST_FACTOR:
            raise RequestError(f"the factor {float(factor):.6g} of {instrument} is too large", "Adjust by difference.")
        found.append((dataset, instrument, start, end, units))
    return found


def _shown(factor: Fraction) -> Decimal:
    return Decimal(round(factor * _SCALE)).scaleb(-PLACES)


__all__ = [
    "AT",
    "BY",
    "HOW",
    "PLACES",
    "ROLLED",
    "Factors",
    "adjusted_query",
    "composed",
    "factors",
]

"""Plans: a request becomes units on a grid, with their scope, what they cover, and what is known of symbols.

The plan of a DBN file comes from its own metadata, that of an order from the symbology that came with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from hdi.errors import CorruptFile, HdiError, RequestError
from hdi.frames import COVERAGE, MAPPINGS
from hdi.model import DAY_NS, MAX_NS, Header, Order, Unit, Window, subtract
from hdi.schema import SchemaName
from hdi.symbology import ALL_SYMBOLS, Intervals, merge

Array = np.ndarray[Any, np.dtype[Any]]
_INTERVALS = {
    "instrument_id": pl.Int64(), "start": pl.Int64(), "end": pl.Int64(), "symbol": pl.String(), "asked": pl.String(),
}  # fmt: skip
_NO_NAMES = pl.DataFrame(schema={c: _INTERVALS[c] for c in ("instrument_id", "start", "end", "symbol")})
#: Instrument ids are unsigned, of 32 bits.
_LAST_ID = 2**32 - 1
#: Units of one file, which are committed at once and held in memory.
MOST_UNITS = 100_000
#: The days in a vendor's file name, of a job that was split: glbx-mdp3-20260107.ohlcv-1s.dbn.zst
_SPLIT_NAME = re.compile(r"-(\d{4})(\d\d)(\d\d)(?:-(\d{4})(\d\d)(\d\d))?\.")


@dataclass(frozen=True)
class Plan:
    """The units of one file. ``fragment`` says why it is one; "" means that it is complete.

    ``intervals`` holds instrument_id, start, end, symbol (raw, null when the file does not say) and
    ``asked`` (the requested symbol that owns it). ``units`` are ordered by cell, then by ``asked``.
    """

    name: SchemaName
    units: tuple[Unit, ...]
    asked: tuple[str, ...]
    cells: tuple[Window, ...]
    intervals: pl.DataFrame
    mappings: pl.DataFrame
    fragment: str = ""

    @property
    def window(self) -> Window:
        """From the first cell's start to the last one's end."""
        return Window(self.cells[0].start, self.cells[-1].end)

    def coverage(self, numbers: Sequence[int], keep: Sequence[bool] | None = None) -> pl.DataFrame:
        """What committing the units claims: each whole request, and each instrument's intervals in it."""
        if self.fragment:
            return pl.DataFrame(schema=COVERAGE)
        kept = np.array(keep, dtype=bool) if keep is not None else np.ones(len(self.units), dtype=bool)
        units = pl.DataFrame(
            [(n, u.symbol, u.window.start, u.window.end) for n, u in zip(numbers, self.units, strict=True)],
            schema={"unit": pl.Int32, "symbol": pl.String, "from": pl.Int64, "to": pl.Int64}, orient="row",
        )  # fmt: skip
        asked = [(i, s) for i, u in enumerate(self.units) if kept[i] for s in u.symbol.split(",") if s]
        whole = pl.DataFrame(asked, schema={"_i": pl.Int64, "_asked": pl.String}, orient="row")
        at, owner = self._cut()
        own = pl.DataFrame({"_i": owner, "_at": at}, schema={"_i": pl.Int64, "_at": pl.Int64}).filter(
            pl.Series(kept[owner], dtype=pl.Boolean)
        )
        unit = self.units[0]
        constant = {"dataset": unit.dataset, "schema": unit.schema, "stype": unit.stype}
        claims = [
            units[whole["_i"]].with_columns(
                symbol=whole["_asked"], instrument_id=pl.lit(None, pl.Int64), start="from", end="to"
            ),
            pl.concat([units[own["_i"]], self.intervals[own["_at"]].drop("symbol")], how="horizontal").with_columns(
                start=pl.max_horizontal("start", "from"), end=pl.min_horizontal("end", "to")
            ),
        ]
        return pl.concat(
            c.with_columns(pl.lit(v).alias(k) for k, v in constant.items()).select(
                pl.col(name).cast(dtype) for name, dtype in COVERAGE.items()
            )
            for c in claims
        ).sort("unit", maintain_order=True)

    def _cut(self) -> tuple[Array, Array]:
        """(interval, unit index) of every interval in every cell that it touches."""
        starts = np.array([c.start for c in self.cells], dtype=np.int64)
        ends = np.array([c.end for c in self.cells], dtype=np.int64)
        first = np.searchsorted(ends, self.intervals["start"].to_numpy(), side="right")
        touched = np.maximum(np.searchsorted(starts, self.intervals["end"].to_numpy(), side="left") - first, 0)
        at = np.repeat(np.arange(len(touched)), touched)
        cell = np.arange(len(at)) - np.repeat(np.cumsum(touched) - touched, touched) + first[at]
        place = {asked: i for i, asked in enumerate(self.asked)}
        owners = np.array([place[a] for a in self.intervals["asked"]], dtype=np.int64)
        return at, cell * len(self.asked) + owners[at]

    @cached_property
    def _sharing(self) -> list[list[int]]:
        """For each of ``asked`` the places of those that share an instrument with it at some time, itself too.

        A row has one owner, but every symbol that maps its instrument claims its place: what becomes of one of
        them becomes of all.
        """
        groups = [[i] for i in range(len(self.asked))]
        if len(self.asked) == 1 or self.intervals.is_empty():
            return groups
        place = {asked: i for i, asked in enumerate(self.asked)}
        own = self.intervals.select("instrument_id", "start", "end", at=pl.col("asked").replace_strict(place))
        pairs = (
            own.join(own, on="instrument_id", suffix="_other")
            .filter(
                pl.col("at") < pl.col("at_other"),
                pl.col("start") < pl.col("end_other"),
                pl.col("start_other") < pl.col("end"),
            )
            .select("at", "at_other")
            .unique()
        )
        for one, other in pairs.iter_rows():
            if groups[one] is not groups[other]:
                groups[one] += groups[other]
                for member in groups[one]:
                    groups[member] = groups[one]
        return groups

    def together(self, units: Iterable[int]) -> set[int]:
        """The units (by index) with all that share an instrument with one of them in the same cell."""
        width = len(self.asked)
        return {i // width * width + other for i in units for other in self._sharing[i % width]}

    @cached_property
    def router(self) -> Router:
        """Looks up the unit and the raw symbol of rows."""
        return Router(self)


class Router:
    """Which unit each row belongs to, and its raw symbol, by instrument and index time."""

    def __init__(self, plan: Plan) -> None:
        self._intervals = Intervals(plan.intervals)
        self._symbols = plan.intervals["symbol"]
        lookup = {asked: i for i, asked in enumerate(plan.asked)}
        self._asked = np.array([lookup[a] for a in plan.intervals["asked"]], dtype=np.int64)
        self._bounds = np.array([c.start for c in plan.cells[1:]], dtype=np.int64)
        self._width = len(plan.asked)
        # Rows that no interval holds go to the unit of what was not mapped, or to the only one.
        self._rest = lookup.get("", 0)

    def route(self, instruments: Array, instants: Array) -> tuple[Array, pl.Series, Array]:
        """``(unit index, raw symbol, not mapped)`` for each row; int64 inputs."""
        at = self._intervals.find(instruments, instants)
        missing = at < 0
        if len(self._asked):
            asked = np.where(missing, self._rest, self._asked[at])
            first = at[0] if len(at) else -1
            if first >= 0 and (at == first).all():
                symbol = self._symbols[int(first) : int(first) + 1].new_from_index(0, len(at))
            else:
                symbol = self._symbols.gather(pl.Series(np.where(missing, 0, at)))
                if missing.any():
                    symbol = symbol.set(pl.Series(missing), None)
        else:
            asked = np.full(len(at), self._rest, dtype=np.int64)
            symbol = pl.Series("symbol", [None], dtype=pl.String).new_from_index(0, len(at))
        cell = np.searchsorted(self._bounds, instants, side="right") if len(self._bounds) else 0
        return cell * self._width + asked, symbol.alias("symbol"), missing


def plan_file(header: Header, name: SchemaName, origin: str, digest: str) -> Plan:
    """The units of a file; ``digest`` (of its bytes) is what names it when it is a fragment."""
    why = header.incomplete or _split(header)
    if not why and not set(header.symbols) - set(header.not_found):
        why = "the vendor could resolve none of its symbols"
    intervals = _intervals(header)
    common = {"origin": origin, "dataset": header.dataset, "schema": header.schema, "stype": header.stype_in}
    mappings = _mappings(header)
    if why:
        span = header.window or Window(0, MAX_NS)
        unit = Unit(symbol=",".join(sorted(header.symbols)), window=span, digest=digest, **common)
        only = intervals.with_columns(asked=pl.lit(unit.symbol))
        return Plan(name, (unit,), (unit.symbol,), (span,), only, mappings, why)
    window = header.window
    if window is None:  # incomplete says why before this can happen
        raise CorruptFile(f"{header.path}: no window")
    asked = _asked(header)
    cells = tuple(window.cells(name.grid))
    if len(cells) * len(asked) > MOST_UNITS:
        raise RequestError(
            f"{header.path}: {len(asked)} symbols in {len(cells)} {name.grid}s of {window} are too many units for "
            f"one commit ({MOST_UNITS} are not)",
            "Split it by time.",
        )
    units = tuple(Unit(symbol=a, window=c, **common) for c in cells for a in asked)
    return Plan(name, units, asked, cells, intervals, mappings)


def plan_order(  # noqa: PLR0913, PLR0917  (what was asked for, and what is known of it)
    origin: str, order: Order, asked: Sequence[str], name: SchemaName, resolved: pl.DataFrame, named: pl.DataFrame,
    cells: Sequence[Window],
) -> Plan:  # fmt: skip
    """The units of an order: each of ``asked`` in each cell, those that the order leaves out among them.

    ``resolved`` (asked, instrument_id, start, end) and ``named`` (instrument_id, start, end, symbol) are the
    symbology in the order's window.
    """
    common = {"origin": origin, "dataset": order.dataset, "schema": order.schema, "stype": order.stype}
    # What arrives unmapped belongs to the only symbol, or to nobody's unit.
    owners = tuple(sorted(asked)) if len(asked) == 1 else (*sorted(asked), "")
    units = tuple(Unit(symbol=a, window=c, **common) for c in cells for a in owners)
    intervals = _named(resolved, named)
    return Plan(
        name, units, owners, tuple(cells), intervals, _order_mappings(order.dataset, order.stype, resolved, named)
    )


def plan_claims(  # noqa: PLR0913, PLR0917  (what is claimed, and what is known of it)
    origin: str, dataset: str, name: SchemaName, stype: str, stretches: Sequence[tuple[str, Window]],
    rectangles: Sequence[pl.DataFrame], named: pl.DataFrame | None,
) -> Plan | None:  # fmt: skip
    """Units without rows: symbols whose instruments are held as something else, or that stand for nothing.

    They cover what was asked, and no instrument: nothing is replaced. None when there is no stretch.
    """
    if not stretches:
        return None
    units = tuple(
        Unit(origin, dataset, name.name, symbol, stype, cell)
        for symbol, window in stretches
        for cell in window.cells(name.grid)
    )
    resolved = pl.concat(rectangles)
    names = _NO_NAMES if named is None else named.join(resolved, on="instrument_id", how="semi")
    asked = tuple(dict.fromkeys(symbol for symbol, _ in stretches))
    mappings = _order_mappings(dataset, stype, resolved, names)
    return Plan(name, units, asked, tuple(u.window for u in units), pl.DataFrame(schema=_INTERVALS), mappings)


def _named(resolved: pl.DataFrame, named: pl.DataFrame) -> pl.DataFrame:
    """The intervals with their raw symbols; null where no raw symbol is known."""
    both = (
        resolved.join(named, on="instrument_id", suffix="_named")
        .with_columns(
            start=pl.max_horizontal("start", "start_named"), end=pl.min_horizontal("end", "end_named"),
        )
        .filter(pl.col("start") < pl.col("end"))
        .select(pl.col(c).cast(t) for c, t in _INTERVALS.items())
    )  # fmt: skip
    known: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for instrument, start, end, _, asked in both.iter_rows():
        known.setdefault((asked, instrument), []).append((start, end))
    rest = [
        (instrument, left.start, left.end, None, asked)
        for asked, instrument, start, end in resolved.select("asked", "instrument_id", "start", "end").iter_rows()
        for left in subtract(Window(start, end), known.get((asked, instrument), []))
    ]
    return pl.concat([pl.DataFrame(rest, schema=_INTERVALS, orient="row"), both])


def _order_mappings(dataset: str, stype: str, resolved: pl.DataFrame, named: pl.DataFrame) -> pl.DataFrame:
    """What the symbology teaches: raw symbols, and what a continuous or parent symbol stands for."""
    frames = [named.select("instrument_id", "start", "end", "symbol", stype=pl.lit("raw_symbol"))]
    if stype in ("continuous", "parent"):
        frames.append(resolved.select("instrument_id", "start", "end", symbol="asked", stype=pl.lit(stype)))
    return (
        pl.concat(frames)
        .with_columns(dataset=pl.lit(dataset))
        .select(pl.col(c).cast(t) for c, t in MAPPINGS.items())
        .unique(maintain_order=True)
    )


def _split(header: Header) -> str:
    """Why the file is one part of a split job, from the days in its name; "" when it is not."""
    if header.joined:
        return ""
    match, window = _SPLIT_NAME.search(header.path.name), header.window
    if match is None or window is None:
        return ""
    first = "-".join(match.groups()[:3])
    last = "-".join(match.groups()[3:]) if match[4] else first
    try:
        named = Window.parse(first, last)
    except HdiError:
        return ""
    if named.start <= window.start and window.end <= named.end:
        return ""
    return f"its name says that it holds {first} to {last} of a job for {window}: a part of a split job"


def _asked(header: Header) -> tuple[str, ...]:
    """The requested symbols that rows can be told apart by, and "" for rows that arrive unmapped."""
    # A symbol that the vendor could not resolve is no confirmed-empty one.
    symbols = tuple(sorted(set(header.symbols) - set(header.not_found)))
    if len(symbols) == 1:
        return symbols
    if header.stype_in == "parent":
        # The metadata maps contracts, not parents: which parent a contract belongs to is not said.
        return (",".join(symbols),)
    return (*symbols, "")


def _intervals(header: Header) -> pl.DataFrame:
    asked_for = _asked(header)
    # One requested symbol, or parents together, own whatever the metadata maps.
    joint = len(asked_for) == 1
    known = set(asked_for)
    rows = []
    for key, start, end, value in header.mappings:
        instrument, symbol = _instrument(header, key, value)
        if instrument is None:
            continue
        asked = asked_for[0] if joint else key if key in known else ""
        rows.append((instrument, start, end, symbol, asked))
    return pl.DataFrame(rows, schema=_INTERVALS, orient="row")


def _instrument(header: Header, key: str, value: str) -> tuple[int | None, str | None]:
    """(instrument_id, raw symbol) of one mapping; either None when the mapping does not name it."""
    if header.stype_out == "instrument_id":
        number = _number(value)
        if number is None:
            raise CorruptFile(f"{header.path}: maps {key} to {value!r}, which is no instrument_id")
        return number, key if header.stype_in in ("raw_symbol", "parent") else None
    if header.stype_in == "instrument_id":
        number = _number(key)
        return number, None if number is None else value
    return None, None


def _number(text: str) -> int | None:
    """An instrument_id as text; None for text that is none."""
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(_LAST_ID))):
        return None
    return number if (number := int(text)) <= _LAST_ID else None


def _mappings(header: Header) -> pl.DataFrame:
    """Dated symbology that the metadata gives: raw symbols, and the continuous or parent one asked for."""
    rows = []
    for key, start, end, value in header.mappings:
        instrument, raw = _instrument(header, key, value)
        if instrument is None:
            continue
        if raw is not None:
            rows.append((header.dataset, "raw_symbol", raw, instrument, start, end))
        if header.stype_in == "continuous":
            rows.append((header.dataset, "continuous", key, instrument, start, end))
        elif header.stype_in == "parent" and len(set(header.symbols)) == 1:
            rows.append((header.dataset, "parent", header.symbols[0], instrument, start, end))
    return pl.DataFrame(rows, schema=MAPPINGS, orient="row").unique(maintain_order=True)


def uncovered(plan: Plan, coverage: pl.DataFrame) -> list[Unit]:
    """The units whose request is not inside what complete units have claimed already."""
    if plan.fragment:
        return list(plan.units)
    first = plan.units[0]
    claims = coverage.filter(
        pl.col("dataset") == first.dataset, pl.col("schema") == first.schema,
        pl.col("stype") == first.stype, pl.col("instrument_id").is_null(),
    )  # fmt: skip
    asked = sorted({s for a in plan.asked for s in a.split(",") if s})
    codes = pl.DataFrame({"symbol": asked, "instrument_id": range(len(asked))}, schema_overrides={"symbol": pl.String})
    claims = claims.drop("instrument_id")
    everything = claims.filter(pl.col("symbol") == ALL_SYMBOLS).drop("symbol").join(codes, how="cross")
    columns = ["instrument_id", "start", "end"]
    own = claims.join(codes, on="symbol")
    claimed: dict[str, list[Window]] = {}
    for code, start, end in merge(pl.concat([own.select(columns), everything.select(columns)])).iter_rows():
        claimed.setdefault(asked[code], []).append(Window(start, end))

    def owned(symbol: str, window: Window) -> bool:
        return any(c.start <= window.start and window.end <= c.end for c in claimed.get(symbol, ()))

    def done(unit: Unit) -> bool:
        symbols = [s for s in unit.symbol.split(",") if s] or asked
        return all(owned(symbol, unit.window) for symbol in symbols)

    return [unit for unit in plan.units if not done(unit)]


def unmapped(dataset: str, schema: str, days: pl.DataFrame, units: Mapping[int, Unit]) -> pl.DataFrame:
    """Coverage of instruments that arrived without a mapping: (instrument, that day) cut to its unit.

    ``days`` has unit (number), instrument_id and day (nanoseconds of its midnight).
    """
    bounds = pl.DataFrame(
        [(n, u.window.start, u.window.end, u.symbol, u.stype) for n, u in units.items()],
        schema={"unit": pl.Int32, "from": pl.Int64, "to": pl.Int64, "symbol": pl.String, "stype": pl.String},
        orient="row",
    )
    return days.join(bounds, on="unit").select(
        pl.col("unit"), pl.lit(dataset).alias("dataset"), pl.lit(schema).alias("schema"), "symbol", "stype",
        "instrument_id", pl.max_horizontal("day", "from").alias("start"),
        pl.min_horizontal(pl.col("day") + DAY_NS, "to").alias("end"),
    )  # fmt: skip


def learned(dataset: str, pairs: pl.DataFrame) -> pl.DataFrame:
    """Mappings from rows that name themselves: (instrument_id, day, symbol), consecutive days joined."""
    runs = (
        pairs.unique()
        .sort("symbol", "instrument_id", "day")
        .with_columns(
            run=(pl.col("day").diff().over("symbol", "instrument_id").fill_null(0) != DAY_NS)
            .cum_sum()
            .over("symbol", "instrument_id")
        )
        .group_by("symbol", "instrument_id", "run")
        .agg(start=pl.col("day").min(), end=pl.col("day").max() + DAY_NS)
    )
    return runs.select(
        pl.lit(dataset).alias("dataset"), pl.lit("raw_symbol").alias("stype"), "symbol", "instrument_id", "start", "end"
    ).sort("symbol", "instrument_id", "start")

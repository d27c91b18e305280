"""Bars made of trades or finer bars that are stored, and committed like bought ones: the same rows, for nothing.

The vendor's rule: a bar holds every record of ``trades`` by its ``ts_recv`` in the UTC interval, whatever its side,
by publisher and instrument; open and close are the first and the last of them, and no trade makes no bar. Since
``ts_recv`` is the index time of trades, a bar can be made where their coverage holds its whole interval.

Left to be bought are the bars that are not certain: with a quarantined record, in the unit of a record whose time is
unknown, and in a unit with records that are no trades.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

import polars as pl

from hdi.attempt import Options, noted
from hdi.errors import HdiError, StoreError, TooManyRejects
from hdi.frames import COVERAGE, MAPPINGS, REJECTS
from hdi.mapping import VendorMapping
from hdi.model import DAY_NS, Condition, Outcome, Receipt, Unit, Window, cell_start, subtract
from hdi.ordering import Held, Request, cut
from hdi.pipeline import claim_keys, export_rejects
from hdi.refine import Refinery, Verdict
from hdi.resample import DERIVED, folded, spoiled
from hdi.schema import Schemas
from hdi.sources.records import columns
from hdi.stores import Store, Work
from hdi.symbology import ALL_SYMBOLS, Intervals, merge

if TYPE_CHECKING:
    from hdi.schema import Schema, SchemaName

_TRADES = "trades"
_SPAN = {"instrument_id": pl.Int64(), "start": pl.Int64(), "end": pl.Int64()}
_NOT_A_TRADE = "ACTION_NOT_TRADE"
#: Each hole in a stretch is an order of its own: of a day with more holes than this, all is bought.
_HOLES = 4
_MOST_UNITS, _MOST_ROWS = 10_000, 2**31 - 1
_MONTH_NS, _YEAR_NS = 31 * DAY_NS, 366 * DAY_NS


@dataclass(frozen=True)
class Derived:
    """Bars to be made from one finer schema. ``stretches`` (instrument_id, start, end) lie in one grid cell each."""

    source: str
    stretches: pl.DataFrame = field(repr=False)

    @property
    def units(self) -> int:
        """How many units would be committed."""
        return self.stretches.height


class Deriver:
    """Makes bars of one name out of what a store holds of a dataset."""

    def __init__(self, store: Store, schemas: Schemas, mapping: VendorMapping, dataset: str, name: str) -> None:
        self._store = store
        self._schemas = schemas
        self._mapping = mapping
        self._dataset = dataset
        self._schema, self._name = schemas.find(name)

    @property
    def sources(self) -> tuple[str, ...]:
        """What the bars can be made from, the coarsest first, which is the least to read; none for what is no bar."""
        width = self._name.width
        finer = [
            n for n in self._schema.names.values()
            if n.made_from is None and 0 < n.width < width and width % n.width == 0
        ]  # fmt: skip
        names = [n.name for n in sorted(finer, key=lambda n: -n.width)]
        return (*names, *([_TRADES] if width and _TRADES in self._schemas.names else []))

    def keys(self, window: Window) -> list[str]:
        """What to claim beside the bars of a window, so that what they are made from stays as it is."""
        width = self._name.width
        whole = Window(window.start, -(-window.end // width) * width) if width else window
        return [
            key for source in self.sources for key in claim_keys(self._dataset, self._schemas.find(source)[1], whole)
        ]

    def derivable(self, request: Request, resolved: pl.DataFrame, held: Held) -> tuple[Derived, ...]:
        """What of a request's lack can be made, from the books alone; ``held`` counts it then.

        ``resolved`` is what its symbols stand for. All symbols of a dataset are always ordered.
        """
        found = []
        rest = lacking(request, resolved, held)
        for source in self.sources:
            if rest.is_empty():
                break
            made, rest = split(rest, self._good(source, rest), self._name.width)
            if made.height:
                found.append(Derived(source, self._cells(made)))
        for each in found:
            for instrument, start, end in each.stretches.iter_rows():
                held.add(instrument, Window(start, end))
        return tuple(found)

    def run(
        self, derived: Iterable[Derived], run: str, options: Options, names: pl.DataFrame,
        conditions: Sequence[Condition] = (),
    ) -> Iterator[Outcome]:  # fmt: skip
        """Make and commit it, one commit for each grid cell; ``names`` (:data:`hdi.ordering.NAMED`) are raw symbols.

        What goes wrong with a cell is its outcome's; StoreError is raised.
        """
        for each in derived:
            for part in self._commits(each.stretches):
                yield _Making(self, each.source, part, run, options, names, conditions).outcome()

    def _cells(self, stretches: pl.DataFrame) -> pl.DataFrame:
        """The stretches cut at the grid."""
        rows = [
            (instrument, cell.start, cell.end)
            for instrument, start, end in stretches.iter_rows()
            for cell in Window(start, end).cells(self._name.grid)
        ]
        return pl.DataFrame(rows, schema=_SPAN, orient="row")

    def _commits(self, stretches: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """The stretches of one commit each: a grid cell, of so many instruments that it can be counted and held."""
        longest = {"day": DAY_NS, "month": _MONTH_NS, "year": _YEAR_NS}[self._name.grid]
        most = min(_MOST_UNITS, _MOST_ROWS // (longest // self._name.width + 1))
        grid = self._name.grid
        starts = {start: cell_start(start, grid) for start in stretches["start"].unique()}
        celled = stretches.with_columns(cell=pl.col("start").replace_strict(starts, return_dtype=pl.Int64))
        for _, part in sorted(celled.group_by("cell"), key=lambda group: group[0]):
            yield from part.drop("cell").sort("instrument_id", "start").iter_slices(most)

    def _good(self, source: str, wanted: pl.DataFrame) -> pl.DataFrame:
        """Whole intervals (instrument_id, start, end) of the wanted instruments of which every bar is certain."""
        width = self._name.width
        ids = wanted.select("instrument_id").unique()
        here = (pl.col("dataset") == self._dataset) & (pl.col("schema") == source)
        coverage, ledger = self._store.coverage().filter(here), self._store.ledger().filter(here)
        own = coverage.drop_nulls("instrument_id").join(ids, on="instrument_id", how="semi")
        everything = coverage.filter(pl.col("instrument_id").is_null(), pl.col("symbol") == ALL_SYMBOLS)
        claims = pl.concat([own, everything.drop("instrument_id").join(ids, how="cross").select(own.columns)])
        whole = merge(claims).with_columns(
            start=-(-pl.col("start") // width) * width, end=pl.col("end") // width * width
        ).filter(pl.col("start") < pl.col("end"))  # fmt: skip
        rejects = self._store.quarantine().filter(here)
        bad = [buckets(rejects, source, width), timeless(rejects, ledger, ids)]
        if source == _TRADES:
            odd = ledger.filter(pl.col("rules").str.contains(_NOT_A_TRADE, literal=True))["unit"]
            bad.append(claims.filter(pl.col("unit").is_in(odd.implode())).select(*_SPAN))
        return holed(whole, pl.concat(bad), width)


class _Making:
    """Some bars of one grid cell on their way from one table into another."""

    def __init__(  # noqa: PLR0913, PLR0917  (what Deriver.run was given, for one commit)
        self, deriver: Deriver, source: str, stretches: pl.DataFrame, run: str, options: Options, names: pl.DataFrame,
        conditions: Sequence[Condition],
    ) -> None:  # fmt: skip
        self._deriver = deriver
        self._store: Store = deriver._store  # noqa: SLF001  (its other half)
        self._dataset: str = deriver._dataset  # noqa: SLF001
        self._schema: Schema = deriver._schema  # noqa: SLF001
        self._name: SchemaName = deriver._name  # noqa: SLF001
        self._finer, self._from = deriver._schemas.find(source)  # noqa: SLF001
        self._stretches = stretches
        self._run = run
        self._options = options
        self._names = names.join(stretches, on="instrument_id", how="semi")
        self._place, self._named = Intervals(stretches), Intervals(self._names)
        self._conditions = conditions
        self._began = time.monotonic()
        self._fetched: dict[int, int] = {}
        self._rejected: dict[int, int] = {}
        self._rules: dict[int, dict[str, int]] = {}

    def outcome(self) -> Outcome:
        """Do it."""
        window = Window(int(self._stretches["start"].min()), int(self._stretches["end"].max()))  # type: ignore[arg-type]
        self._window = window
        units = [
            Unit(self._options.origin, self._dataset, self._name.name, str(i), "instrument_id", Window(s, e))
            for i, s, e in self._stretches.iter_rows()
        ]
        self._numbers = self._store.reserve([u.id for u in units])
        self._units = dict(zip(self._numbers, units, strict=True))
        error = None
        try:
            receipts = self._committed()
        except StoreError:
            raise
        except HdiError as exc:
            error, receipts = exc, self._failed(exc)
        export_rejects(self._store, self._options.dlq_dir)
        symbols = tuple(sorted(set(self._names["symbol"]))) or tuple(dict.fromkeys(u.symbol for u in units))
        return Outcome(
            path="", status="failed" if error else "stored", dataset=self._dataset, schema=self._name.name,
            symbols=symbols, window=window, receipts=tuple(receipts), units=len(units), error=error,
            seconds=time.monotonic() - self._began, note=f"derived from {self._from.name}", dollars=Decimal(0),
        )  # fmt: skip

    def _committed(self) -> list[Receipt]:
        width = self._name.width
        up = -(-pl.col("start", "end") // width) * width
        rectangles = self._stretches.select(dataset=pl.lit(self._dataset), instrument_id="instrument_id").hstack(
            self._stretches.select(up)
        )
        window = Window(int(rectangles["start"].min()), int(rectangles["end"].max()))  # type: ignore[arg-type]
        work = self._work()
        refinery = Refinery(
            self._schema, self._name, self._deriver._mapping, columns(self._name.name), self._dataset  # noqa: SLF001
        )  # fmt: skip
        with self._store.replace(work) as writer, closing(self._read(window, rectangles)) as frames:
            row = 0
            for bars in folded(frames, width):
                verdict = refinery.refine(self._routed(bars, row))
                row += bars.height
                self._count(verdict)
                writer.write(verdict.accepted)
                if verdict.rejected.height:
                    writer.reject(self._identified(verdict.rejected))
            self._limit()
            return writer.finish(work, [self._receipt(n, u) for n, u in self._units.items()])

    def _read(self, window: Window, rectangles: pl.DataFrame) -> Generator[pl.DataFrame]:
        """What bars are made of, as :func:`hdi.resample.folded` takes it."""
        index = self._finer.index_time
        ours = (
            ("price",) * 4 if self._finer.kind == _TRADES else ("open_price", "high_price", "low_price", "close_price")
        )
        volume = "size" if self._finer.kind == _TRADES else "volume"
        wanted = list(dict.fromkeys([index, "publisher_id", "instrument_id", *ours, volume]))
        for frame in self._store.read(self._finer, self._from.name, window, rectangles, wanted, self._dataset):
            yield frame.select(
                "publisher_id", "instrument_id", pl.col(index).to_physical().alias("at"),
                *(pl.col(c).alias(n) for c, n in zip(ours, ("open", "high", "low", "close"), strict=True)),
                pl.col(volume).alias("volume"),
            )  # fmt: skip

    def _routed(self, bars: pl.DataFrame, row: int) -> pl.DataFrame:
        """The bars as the vendor's records, each with its unit and its raw symbol."""
        ids, at = bars["instrument_id"].to_numpy(), bars["at"].to_numpy()
        place = self._stretches.with_columns(unit=pl.Series(self._numbers, dtype=pl.Int32))[self._place.find(ids, at)]
        named = self._named.find(ids, at)
        symbols = pl.Series("symbol", [None], dtype=pl.String).new_from_index(0, bars.height)
        if self._names.height:
            known = pl.Series(named).replace(-1, None).cast(pl.UInt32)
            symbols = self._names["symbol"].gather(known).alias("symbol")
        source = f"{DERIVED}{self._from.name}:{self._options.origin}"
        vendor = columns(self._name.name)
        records = bars.with_columns(ts_event=pl.col("at").cast(pl.Datetime("ns", "UTC"))).select(
            (pl.col(c) if c in bars.columns or c == "ts_event" else pl.lit(None)).cast(t).alias(c)
            for c, t in vendor.items()
        )
        return records.with_columns(
            symbols, dataset=pl.lit(self._dataset), data_source=pl.lit(source), _unit=place["unit"],
            _row=pl.int_range(row, row + bars.height, dtype=pl.Int32), _window_start=place["start"],
            _window_end=place["end"],
        )  # fmt: skip

    def _count(self, verdict: Verdict) -> None:
        for frame, column, counts in (
            (verdict.accepted, "_unit", (self._fetched,)),
            (verdict.rejected, "unit", (self._fetched, self._rejected)),
        ):
            for number, rows in frame.group_by(column).len().iter_rows():
                for count in counts:
                    count[number] = count.get(number, 0) + rows
        for number, rule, rows in verdict.counts.select("_unit", "rule", "rows").iter_rows():
            rules = self._rules.setdefault(number, {})
            rules[rule] = rules.get(rule, 0) + rows

    def _limit(self) -> None:
        """TooManyRejects for a unit over both limits."""
        options = self._options
        for number, rejected in self._rejected.items():
            share = 100 * rejected / self._fetched[number]
            if rejected > options.min_rejects and share > options.max_reject_percent:
                raise TooManyRejects(
                    f"{rejected} of {self._fetched[number]} bars of {self._units[number].symbol} made from "
                    f"{self._from.name} were rejected by the rules of {self._schema.kind}",
                    "Nothing of them was stored. Mend the rules, or buy the bars: leave --derive out.",
                )

    def _identified(self, rejected: pl.DataFrame) -> pl.DataFrame:
        ids = {number: unit.id for number, unit in self._units.items()}
        return rejected.with_columns(
            unit_id=pl.col("unit").replace_strict(ids, return_dtype=pl.String), run=pl.lit(self._run),
            raw_file=pl.lit(None, pl.String), failed=pl.lit(value=False),
        ).select(pl.col(c).cast(t) for c, t in REJECTS.items())  # fmt: skip

    def _receipt(self, number: int, unit: Unit) -> Receipt:
        fetched, rejected = self._fetched.get(number, 0), self._rejected.get(number, 0)
        return Receipt(
            unit, number, self._run, "complete", fetched, fetched - rejected, rejected,
            rules=self._rules.get(number, {}), seconds=round(time.monotonic() - self._began, 3), dollars=Decimal(0),
            conditions=noted(self._conditions, unit), job=self._options.job,
        )  # fmt: skip

    def _failed(self, error: HdiError) -> list[Receipt]:
        receipts = [
            Receipt(u, n, self._run, "failed", 0, 0, 0, error=error.message, exit_code=error.exit_code,
                    job=self._options.job)
            for n, u in self._units.items()
        ]  # fmt: skip
        nothing = Work(
            self._run, self._dataset, self._schema, self._name, self._units, pl.DataFrame(schema=COVERAGE),
            pl.DataFrame(schema=MAPPINGS),
        )  # fmt: skip
        self._store.record(nothing, receipts, pl.DataFrame(schema=REJECTS))
        return receipts

    def _work(self) -> Work:
        """What the commit claims: each instrument, and the same as a request for it by its id."""
        rows = self._stretches.with_columns(
            unit=pl.Series(self._numbers, dtype=pl.Int32), dataset=pl.lit(self._dataset),
            schema=pl.lit(self._name.name), symbol=pl.col("instrument_id").cast(pl.String),
            stype=pl.lit("instrument_id"),
        )  # fmt: skip
        coverage = pl.concat([rows.with_columns(instrument_id=pl.lit(None, pl.Int64)), rows]).select(
            pl.col(c).cast(t) for c, t in COVERAGE.items()
        )
        mappings = cut(self._names, self._window).with_columns(
            dataset=pl.lit(self._dataset), stype=pl.lit("raw_symbol")
        )
        return Work(
            self._run, self._dataset, self._schema, self._name, self._units, coverage,
            mappings.select(pl.col(c).cast(t) for c, t in MAPPINGS.items()).unique(maintain_order=True),
        )  # fmt: skip


def lacking(request: Request, resolved: pl.DataFrame, held: Held) -> pl.DataFrame:
    """What nothing brought of the instruments that a request stands for (instrument_id, start, end)."""
    rows = [
        (instrument, left.start, left.end)
        for stype, symbols in request.symbols.items()
        for symbol in symbols
        for window in held.lacks(stype, symbol, request.window)
        for instrument, start, end in cut(
            resolved.filter(pl.col("stype") == stype, pl.col("asked") == symbol), window
        ).select(*_SPAN).iter_rows()
        for left in held.instrument_lacks(instrument, Window(start, end))
    ]  # fmt: skip
    return merge(pl.DataFrame(rows, schema=_SPAN, orient="row"))


def split(wanted: pl.DataFrame, good: pl.DataFrame, width: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """``(what can be made, what is left)`` of wanted stretches; ``good`` are runs of whole intervals.

    A stretch holds the bars that start in it, so the last of them may reach past its end.
    """
    runs: dict[int, list[tuple[int, int]]] = {}
    for instrument, start, end in good.iter_rows():
        runs.setdefault(instrument, []).append((start, end))
    made, rest = [], []
    for instrument, start, end in wanted.iter_rows():
        first = -(-start // width) * width
        mine = [
            (start if low <= first else low, min(end, high))
            for low, high in runs.get(instrument, ())
            if max(low, first) < min(end, high)
        ]
        made += [(instrument, *span) for span in mine]
        rest += [(instrument, left.start, left.end) for left in subtract(Window(start, end), mine)]
    return pl.DataFrame(made, schema=_SPAN, orient="row"), pl.DataFrame(rest, schema=_SPAN, orient="row")


def buckets(rejects: pl.DataFrame, source: str, width: int) -> pl.DataFrame:
    """The intervals that hold a quarantined record of a source."""
    everywhere = Window(0, 2**63 - 1)
    return spoiled(rejects, source, everywhere, width).select(
        "instrument_id", start="ts_event", end=pl.col("ts_event") + width
    )


def timeless(rejects: pl.DataFrame, ledger: pl.DataFrame, ids: pl.DataFrame) -> pl.DataFrame:
    """The windows of units that have a quarantined record without a time, or one outside of them.

    One that names no instrument spoils all of ``ids``.
    """
    unsaid = pl.col("index_time").is_null() | pl.col("rules").list.contains("OUTSIDE_WINDOW")
    rows = rejects.filter(~pl.col("failed"), unsaid).select("unit", "instrument_id").unique()
    spans = rows.join(ledger.select("unit", "start", "end").unique("unit", keep="last"), on="unit")
    anybody = spans.filter(pl.col("instrument_id").is_null()).drop("instrument_id").join(ids, how="cross")
    return pl.concat([spans.drop_nulls("instrument_id").select(*_SPAN), anybody.select(*_SPAN)])


def holed(whole: pl.DataFrame, bad: pl.DataFrame, width: int) -> pl.DataFrame:
    """The runs of whole intervals without those that a bad stretch touches; many of them in a day take the day."""
    if bad.is_empty():
        return whole
    per = max(width, DAY_NS)
    grown = bad.with_columns(start=pl.col("start") // width * width, end=-(-pl.col("end") // width) * width).unique()
    day = pl.col("start") // per * per
    many = pl.len().over("instrument_id", day) > _HOLES
    grown = grown.with_columns(
        start=pl.when(many).then(day).otherwise("start"),
        end=pl.when(many).then(pl.max_horizontal("end", day + per)).otherwise("end"),
    )
    holes: dict[int, list[tuple[int, int]]] = {}
    for instrument, start, end in merge(grown).iter_rows():
        holes.setdefault(instrument, []).append((start, end))
    rows = [
        (instrument, left.start, left.end)
        for instrument, start, end in whole.iter_rows()
        for left in subtract(Window(start, end), holes.get(instrument, ()))
    ]
    return pl.DataFrame(rows, schema=_SPAN, orient="row")


__all__ = ["Derived", "Deriver", "buckets", "holed", "lacking", "split", "timeless"]

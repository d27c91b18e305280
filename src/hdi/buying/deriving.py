"""Bars made of trades or finer bars that are stored, and committed like bought ones: the same rows, for nothing.

The vendor's rule: a bar holds every record of ``trades`` by its ``ts_recv`` in the UTC interval, whatever its side,
by publisher and instrument; open and close are the first and the last of them, and no trade makes no bar. Since
``ts_recv`` is the index time of trades, a bar can be made where their coverage holds its whole interval.

Left to be bought are the bars that are not certain: with a quarantined record, in the unit of a record whose time is
unknown, in a unit with records that are no trades, and on a day that the vendor changed since its records were bought.
So what is made is as fresh as what it is made of, and the vendor's word on that is the word on the bars.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

import polars as pl

from hdi.attempt import Options, heard, noted
from hdi.buying.aging import Book, bought, sources_of
from hdi.buying.bars import SPAN, TRADES, buckets, finer, holed, lacking, split, timeless
from hdi.buying.ordering import Held, Request, cut
from hdi.buying.restating import outdated, without
from hdi.errors import HdiError, StoreError, TooManyRejects
from hdi.folding import PRICES
from hdi.frames import COVERAGE, MAPPINGS, REJECTS
from hdi.mapping import VendorMapping
from hdi.model import DAY_NS, Condition, Outcome, Receipt, Unit, Window, cell_start, ns_date, some
from hdi.pipeline import claim_keys, export_rejects
from hdi.refine import Refinery, Verdict
from hdi.resample import DERIVED, folded
from hdi.schema import Schemas
from hdi.sources.records import columns
from hdi.stores import Store, Work
from hdi.symbology import ALL_SYMBOLS, Intervals, merge

if TYPE_CHECKING:
    from pathlib import Path

    from hdi.schema import Schema, SchemaName

_WORDS = {"instrument_id": pl.Int64(), "day": pl.Int64(), "was": pl.String(), "was_modified": pl.Int64()}
_NOT_A_TRADE = "ACTION_NOT_TRADE"
_MOST_UNITS, _MOST_ROWS = 10_000, 2**31 - 1
_MONTH_NS, _YEAR_NS = 31 * DAY_NS, 366 * DAY_NS


@dataclass(frozen=True)
class Derived:
    """Bars to be made from one finer schema. ``stretches`` (instrument_id, start, end) lie in one grid cell each.

    ``words`` (instrument_id, day, was, was_modified) are what the vendor said of days when the source was bought, where
    that is not what it says now.
    """

    source: str
    stretches: pl.DataFrame = field(repr=False)
    words: pl.DataFrame = field(repr=False)

    @property
    def units(self) -> int:
        """How many units would be committed."""
        return self.stretches.height


class Deriver:
    """Makes bars of one name out of what a store holds of a dataset."""

    def __init__(
        self, store: Store, schemas: Schemas, mapping: VendorMapping, dataset: str, name: str,
        data_dir: Path | None = None,
    ) -> None:  # fmt: skip
        """``data_dir`` has the notes of orders, which say when bytes were bought."""
        self._data_dir = data_dir
        #: Days (by source) of which nothing is made, since the vendor changed them after they were bought.
        self.changed: dict[str, set[int]] = {}
        self._store = store
        self._schemas = schemas
        self._mapping = mapping
        self._dataset = dataset
        self._schema, self._name = schemas.find(name)

    @property
    def sources(self) -> tuple[str, ...]:
        """What the bars can be made from, the coarsest first, which is the least to read; none for what is no bar."""
        return finer(self._schemas, self._name.name)

    def standing(self, coverage: pl.DataFrame) -> pl.DataFrame:
        """Coverage of the bars without those that were made of rows that were changed since."""
        here = (pl.col("dataset") == self._dataset) & (pl.col("schema") == self._name.name)
        spans = self._outdated(coverage, self._store.ledger(), self._name.name)
        if spans.is_empty():
            return coverage
        mappings = self._store.mappings().filter(pl.col("dataset") == self._dataset)
        return pl.concat([coverage.filter(~here), without(coverage.filter(here), spans, mappings)])

    def _outdated(self, coverage: pl.DataFrame, ledger: pl.DataFrame, name: str) -> pl.DataFrame:
        width = self._schemas.find(name)[1].width
        return outdated(coverage, ledger, self._dataset, name, finer(self._schemas, name), width)

    def keys(self, window: Window) -> list[str]:
        """What to claim beside the bars of a window, so that what they are made from stays as it is."""
        width = self._name.width
        whole = Window(window.start, -(-window.end // width) * width) if width else window
        return [
            key for source in self.sources for key in claim_keys(self._dataset, self._schemas.find(source)[1], whole)
        ]

    def derivable(
        self, request: Request, resolved: pl.DataFrame, held: Held, conditions: Sequence[Condition] = ()
    ) -> tuple[Derived, ...]:
        """What of a request's lack can be made, from the books alone; ``held`` counts it then.

        ``resolved`` is what its symbols stand for, ``conditions`` what the vendor says of its days now. All symbols of
        a dataset are always ordered.
        """
        found = []
        self.changed = {}
        rest = lacking(request, resolved, held)
        for source in self.sources:
            if rest.is_empty():
                break
            good, words = self._good(source, rest, conditions)
            made, rest = split(rest, good, self._name.width)
            if made.height:
                found.append(Derived(source, self._cells(made), words))
        for each in found:
            for instrument, start, end in each.stretches.iter_rows():
                held.add(instrument, Window(start, end))
        return tuple(found)

    def why_bought(self, request: Request, derived: Sequence[Derived]) -> Iterator[str]:
        """Why bars of a request are to be bought, after :meth:`derivable` has looked at it."""
        if request.everything:
            yield f"{ALL_SYMBOLS} is never derived: what it stands for only an order says"
            return
        for source, days in self.changed.items():
            told = some([f"{ns_date(day * DAY_NS)}" for day in sorted(days)])
            yield f"{told}: changed by the vendor since its {source} rows were bought: no bars are made of them"
        if not derived and not self.changed:
            yield "nothing stored can make these bars: all are bought"

    def run(
        self, derived: Iterable[Derived], run: str, options: Options, names: pl.DataFrame,
        conditions: Sequence[Condition] = (), seen_at: int = 0,
    ) -> Iterator[Outcome]:  # fmt: skip
        """Make and commit it, one commit for each grid cell; ``names`` (:data:`hdi.frames.NAMED`) are raw symbols.

        ``conditions`` are what the vendor said of the days when it was asked, at ``seen_at``. What goes wrong with a
        cell is its outcome's; StoreError is raised.
        """
        for each in derived:
            for part in self._commits(each.stretches):
                yield _Making(self, each, part, run, options, names, conditions, seen_at).outcome()

    def _cells(self, stretches: pl.DataFrame) -> pl.DataFrame:
        """The stretches cut at the grid."""
        rows = [
            (instrument, cell.start, cell.end)
            for instrument, start, end in stretches.iter_rows()
            for cell in Window(start, end).cells(self._name.grid)
        ]
        return pl.DataFrame(rows, schema=SPAN, orient="row")

    def _commits(self, stretches: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """The stretches of one commit each: a grid cell, of so many instruments that it can be counted and held."""
        longest = {"day": DAY_NS, "month": _MONTH_NS, "year": _YEAR_NS}[self._name.grid]
        most = min(_MOST_UNITS, _MOST_ROWS // (longest // self._name.width + 1))
        grid = self._name.grid
        starts = {start: cell_start(start, grid) for start in stretches["start"].unique()}
        celled = stretches.with_columns(cell=pl.col("start").replace_strict(starts, return_dtype=pl.Int64))
        for _, part in sorted(celled.group_by("cell"), key=lambda group: group[0]):
            yield from part.drop("cell").sort("instrument_id", "start").iter_slices(most)

    def _good(
        self, source: str, wanted: pl.DataFrame, conditions: Sequence[Condition]
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """(Whole intervals of the wanted instruments of which every bar is certain, the ``words`` on their days)."""
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
        changed, words = self._aged(source, claims, ledger, wanted, conditions)
        bad = [buckets(rejects, source, width), timeless(rejects, ledger, ids), changed]
        bad.append(self._outdated(self._store.coverage(), self._store.ledger(), source))
        if source == TRADES:
            odd = ledger.filter(pl.col("rules").str.contains(_NOT_A_TRADE, literal=True))["unit"]
            bad.append(claims.filter(pl.col("unit").is_in(odd.implode())).select(*SPAN))
        return holed(whole, pl.concat(bad), width), words

    def _aged(
        self, source: str, claims: pl.DataFrame, ledger: pl.DataFrame, wanted: pl.DataFrame,
        conditions: Sequence[Condition],
    ) -> tuple[pl.DataFrame, pl.DataFrame]:  # fmt: skip
        """What of the claims was changed by the vendor since it was bought, and what it said then of other days."""
        changed, words = [pl.DataFrame(schema=SPAN)], [pl.DataFrame(schema=_WORDS)]
        units = bought(ledger, claims)
        if conditions and self._data_dir is not None and units.height:
            said = self._store.conditions().filter(pl.col("dataset") == self._dataset)
            now = heard(self._dataset, conditions, 0)
            names = finer(self._schemas, source)
            below = sources_of(self._store.coverage(), self._store.ledger(), self._dataset, names)
            for pieces in Book(claims, ledger, said, self._data_dir, units, now, below).pieces():
                changed.append(pieces.filter(pl.col("verdict").is_in(["due", "waiting"])).select(*SPAN))
                words.append(pieces.filter(pl.col("verdict") == "fresh").select(*_WORDS))
        spans = pl.concat(changed)
        low, high = pl.col("start") < pl.col("end_wanted"), pl.col("end") > pl.col("start_wanted")
        met = spans.join(wanted, on="instrument_id", suffix="_wanted").filter(low, high)
        if met.height:
            self.changed[source] = set(met["start"] // DAY_NS)
        # The least that was said of what a day is made of: the oldest word, and of equal ones the worse.
        least = pl.concat(words).sort("was_modified", pl.col("was") == "available", nulls_last=False)
        return spans, least.unique(["instrument_id", "day"], keep="first", maintain_order=True)


class _Making:
    """Some bars of one grid cell on their way from one table into another."""

    def __init__(  # noqa: PLR0913, PLR0917  (what Deriver.run was given, for one commit)
        self, deriver: Deriver, derived: Derived, stretches: pl.DataFrame, run: str, options: Options,
        names: pl.DataFrame, conditions: Sequence[Condition], seen_at: int,
    ) -> None:  # fmt: skip
        self._deriver = deriver
        self._store: Store = deriver._store  # noqa: SLF001  (its other half)
        self._dataset: str = deriver._dataset  # noqa: SLF001
        self._schema: Schema = deriver._schema  # noqa: SLF001
        self._name: SchemaName = deriver._name  # noqa: SLF001
        self._finer, self._from = deriver._schemas.find(derived.source)  # noqa: SLF001
        self._stretches = stretches
        self._run = run
        self._options = options
        self._names = names.join(stretches, on="instrument_id", how="semi")
        self._place, self._named = Intervals(stretches), Intervals(self._names)
        self._conditions, self._seen_at = conditions, seen_at
        self._words: dict[int, dict[int, Condition]] = {}
        for instrument, day, was, modified in derived.words.iter_rows():
            word = Condition(ns_date(day), was, None if modified is None else ns_date(modified))
            self._words.setdefault(instrument, {})[day] = word
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
        ours = ("price",) * 4 if self._finer.kind == TRADES else tuple(PRICES.values())
        volume = "size" if self._finer.kind == TRADES else "volume"
        wanted = list(dict.fromkeys([index, "publisher_id", "instrument_id", *ours, volume]))
        for frame in self._store.read(self._finer, self._from.name, window, rectangles, wanted, self._dataset):
            yield frame.select(
                "publisher_id", "instrument_id", pl.col(index).to_physical().alias("at"),
                *(pl.col(c).alias(n) for c, n in zip(ours, PRICES, strict=True)),
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
            conditions=self._said(unit), job=self._options.job,
        )  # fmt: skip

    def _said(self, unit: Unit) -> tuple[Condition, ...]:
        """The vendor's word on the days of what a unit was made of, where it is not "available", or is another now."""
        window = unit.window
        own = {
            c.day: c
            for day, c in self._words.get(int(unit.symbol), {}).items()
            if day < window.end and day + DAY_NS > window.start
        }
        both = {c.day: c for c in noted(self._conditions, unit)} | own
        return tuple(both[day] for day in sorted(both))

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
            conditions=heard(self._dataset, self._conditions, self._seen_at),
        )  # fmt: skip


__all__ = ["Derived", "Deriver"]

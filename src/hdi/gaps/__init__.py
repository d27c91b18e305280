"""Gaps: every stretch of what should be there that has no row, by session and content, with its cause and the evidence.

What should be there are the sessions of the calendar, times the life of each instrument by dated symbology, within
what was asked for; what is there is counted in the store. Stretches are hours for ticks and bars of up to an hour, and
days for what comes by the day: less than an hour without a row is no gap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import polars as pl

from hdi.buying.restating import made_here
from hdi.calendars import Calendars, product_of
from hdi.frames import BROUGHT
from hdi.gaps.asking import Target, stated, unasked
from hdi.gaps.books import Losses, losses
from hdi.gaps.causes import AGAIN, CAUSES, CERTAIN, CLOSED, GAPS, judged, lost, thinned, told
from hdi.gaps.evidence import KEY, Place, lives, quarantined, trading
from hdi.gaps.grid import expected, grain, lacking, runs, stretches, whole_time
from hdi.gaps.looking import Look, Wanted
from hdi.gaps.said import conditions
from hdi.gaps.shut import closed
from hdi.late import Array
from hdi.lookup import Asked, union
from hdi.model import DAY_NS, MAX_NS, Window, cell_end, cell_start, some, subtract
from hdi.schema import Schemas
from hdi.stores import Store
from hdi.symbology import Intervals, disjoint, merge

_LIFE = {
    "instrument_id": pl.Int64(), "life_start": pl.Int64(), "life_end": pl.Int64(), "symbol": pl.String(),
}  # fmt: skip


@dataclass(frozen=True)
class Report:
    """The gaps (:data:`hdi.gaps.causes.GAPS`), by dataset, schema and time; ``looked`` says how much was looked at.

    ``fragments`` are the rows that came in fragments: they claim nothing, so that no gap among them can be told.
    ``doubts`` are sentences about units of which rows were lost, and nothing tells whether they are there again.
    """

    gaps: pl.DataFrame = field(repr=False)
    looked: int = 0
    fragments: int = 0
    doubts: tuple[str, ...] = ()

    @property
    def missing(self) -> pl.DataFrame:
        """The gaps without the times at which the market is closed."""
        return self.gaps.filter(~pl.col("cause").is_in(sorted(CLOSED)))

    @property
    def summary(self) -> pl.DataFrame:
        """Gaps and stretches by cause and certainty."""
        order = pl.col("cause").replace_strict({c: i for i, c in enumerate(CAUSES)}, return_dtype=pl.Int64)
        counts = self.gaps.group_by("cause", "certainty").agg(gaps=pl.len(), stretches=pl.col("stretches").sum())
        return counts.sort(order, "certainty")

    @property
    def unknown(self) -> tuple[int, int]:
        """``(gaps without a known cause, all gaps)``, closed times left out."""
        missing = self.missing
        return missing.filter(pl.col("cause") == "unknown").height, missing.height


def find(
    store: Store, schemas: Schemas, calendars: Calendars, wanted: Wanted, now: int, data_dir: Path | None = None
) -> Report:
    """Look for gaps up to ``now``; slips under ``data_dir`` say what was known of days when they were bought.

    Raises RequestError, UnknownSymbol for what was never asked for.
    """
    for name in wanted.schemas:
        schemas.find(name)
    look = Look(store, schemas, calendars, wanted, now, data_dir)
    frames = [pl.DataFrame(schema=GAPS)]
    looked = 0
    doubts: list[str] = []
    for dataset, name, each in look.parts():
        part = _Part(look, dataset, name, each)
        frames += part.gaps()
        looked += part.looked
        doubts += part.doubts()
    gaps = pl.concat(frames).sort("dataset", "schema", "start", "symbol", "end", maintain_order=True)
    return Report(gaps, looked, look.fragments(), tuple(doubts))


class _Part:
    """One schema of a dataset."""

    def __init__(self, look: Look, dataset: str, name: str, each: list[Target]) -> None:
        self.look, self.dataset, self.targets = look, dataset, each
        schema, self.name = look.schemas.find(name)
        mine = pl.col("dataset") == dataset
        self.coverage = look.coverage.filter(mine)
        self.ledger = look.ledger.filter(mine, pl.col("schema") == name)
        self.grain = grain(self.name)
        # A number is that of the last commit that used it.
        brought = look.ledger.filter(mine, pl.col("status").is_in(BROUGHT)).unique("unit", keep="last")
        made = frozenset(brought.filter(made_here())["unit"])
        self.place = Place(look.store, look.schemas, dataset, schema, self.name, self.grain, self.coverage, made)
        self.books = brought.filter(pl.col("schema") == name)
        self.claims = self.coverage.filter(pl.col("schema") == name).drop_nulls("instrument_id")
        self.looked = 0
        self._blamed: dict[int, int] = {}

    def gaps(self) -> Iterator[pl.DataFrame]:
        """All gaps, in frames (:data:`GAPS`)."""
        for target in self.targets:
            asked = self._asked(target)
            found = unasked(target, asked.rectangles, self.coverage, self.ledger)
            open_times = self._stretches(product_of(target.symbol), target.window)
            yield stated(found, target, open_times)
            if self.look.wanted.closed:
                known = self._sessions(product_of(target.symbol), target.window)
                yield closed(target, known, self.look.calendars, daily=self.grain.daily)
        for product, pieces in self._pieces() if self.grain.rhythm != "never" else ():
            span = Window(int(pieces["start"].min()), int(pieces["end"].max()))  # type: ignore[arg-type]
            yield from self._empties(pieces, product, span)
        yield self._thinned()
        yield self._vanished()

    def _asked(self, target: Target) -> Asked:
        if target.everything:
            return Asked(target.symbol, union([]))
        return self.look.asked(target.symbol, self.dataset)

    def _sessions(self, product: str, window: Window) -> pl.DataFrame:
        around = Window(max(window.start - DAY_NS, 0), window.end + DAY_NS)
        return self.look.calendars.sessions(self.dataset, around, product)

    def _stretches(self, product: str, window: Window) -> pl.DataFrame:
        known = self.look.calendars.knows(self.dataset)
        sessions = self._sessions(product, window) if known else whole_time(window)
        return stretches(sessions, self.grain, window)

    @cached_property
    def _held(self) -> pl.DataFrame:
        """What is held by instrument (instrument_id, start, end), cut to what is looked at."""
        held = merge(self.claims)
        if self.look.wanted.symbols:
            rectangles = union([self._asked(t) for t in self.targets])
            everything = any(t.everything for t in self.targets)
            held = held if everything else _overlap(held, merge(rectangles)).select("instrument_id", "start", "end")
        if (window := self.look.window) is not None:
            held = held.with_columns(
                pl.col("start").clip(lower_bound=window.start), pl.col("end").clip(upper_bound=window.end)
            ).filter(pl.col("start") < pl.col("end"))
        return held

    def _pieces(self) -> Iterator[tuple[str, pl.DataFrame]]:
        """What is held, by instrument and life, cut to what is looked at; for each group with the same sessions.

        Each with a product of the group.
        """
        held = self._held
        if held.is_empty():
            return
        pieces = self._named(held)
        span = Window(int(pieces["start"].min()), int(pieces["end"].max()))  # type: ignore[arg-type]
        alike: dict[str, str] = {}
        first: dict[tuple[bytes, bytes], str] = {}
        for product in sorted({"", *map(product_of, pieces["symbol"].drop_nulls().unique())}):
            sessions = self._sessions(product, span)
            key = (sessions["open"].to_numpy().tobytes(), sessions["close"].to_numpy().tobytes())
            alike[product] = first.setdefault(key, product)
        of = {s: alike[product_of(s)] for s in pieces["symbol"].drop_nulls().unique()}
        kinds = pl.col("symbol").replace_strict(of, default=alike[""], return_dtype=pl.String)
        for (product,), part in sorted(pieces.with_columns(product=kinds).group_by("product")):
            yield str(product), part.drop("product")

    @cached_property
    def _lives(self) -> pl.DataFrame:
        """The lives of instruments by their raw symbols: disjoint, those that touch joined."""
        rows = self.look.mappings.filter(pl.col("dataset") == self.dataset, pl.col("stype") == "raw_symbol")
        flat = disjoint(rows.select("instrument_id", "start", "end"))
        named = flat.with_columns(symbol=rows["symbol"].gather(flat["row"])).sort("instrument_id", "start")
        before = [pl.col(c).shift(1) for c in ("instrument_id", "symbol", "end")]
        fresh = pl.any_horizontal(
            pl.col(c).ne_missing(b) for c, b in zip(("instrument_id", "symbol", "start"), before, strict=True)
        )
        joined = named.with_columns(life=fresh.fill_null(value=True).cum_sum()).group_by("life", maintain_order=True)
        return joined.agg(
            pl.col("instrument_id").first(), life_start=pl.col("start").min(), life_end=pl.col("end").max(),
            symbol=pl.col("symbol").first(),
        ).select(pl.col(c).cast(t) for c, t in _LIFE.items())  # fmt: skip

    def _named(self, held: pl.DataFrame) -> pl.DataFrame:
        """Pieces of one life each; those without a name as they are."""
        spans = self._lives.rename({"life_start": "start", "life_end": "end"})
        named = _overlap(held, spans)
        nameless = _outside(held, named).with_columns(symbol=pl.lit(None, pl.String))
        return pl.concat([named, nameless]).sort("instrument_id", "start")

    def _empties(self, pieces: pl.DataFrame, product: str, span: Window) -> Iterator[pl.DataFrame]:
        known = self._stretches(product, span)
        sessions = self._sessions(product, span)
        for wanted in expected(pieces, known, self.grain):
            self.looked += wanted.height
            spans = merge(wanted.select("instrument_id", start="at", end=pl.col("at") + self.grain.every))
            content = self.place.counts(self.name.name, _cut(spans, span), self.grain.every)
            empty = lacking(wanted, content)
            if empty.is_empty():
                continue
            sizes = wanted.group_by("instrument_id").agg(expected=pl.len().cast(pl.Int64))
            lack = empty.group_by("instrument_id").agg(lacking=pl.len().cast(pl.Int64))
            empty = empty.join(sizes, on="instrument_id").join(lack, on="instrument_id")
            found = judged(self._weighed(empty, sessions))
            blamed = found.filter(pl.col("cause") == "our failure", ~lost())
            for unit, count in blamed.group_by("unit").len().iter_rows():
                self._blamed[unit] = self._blamed.get(unit, 0) + count
            yield told(found, self.dataset, self.name.name)

    def _weighed(self, empty: pl.DataFrame, sessions: pl.DataFrame) -> pl.DataFrame:
        """The empty stretches with all that the store can say of them."""
        look = self.look
        empty = self._edges(self._units(empty))
        empty = conditions(empty, look.heard, self.ledger, self.dataset, look.data_dir)
        empty = self._counted(empty, sessions)
        empty = empty.join(self._rejects, on=KEY, how="left").with_columns(
            pl.col("rejected").fill_null(0), pl.col("rules").fill_null("")
        )
        gone = self._losses
        empty = empty.join(gone.units.select("unit", "gone", "unread"), on="unit", how="left").join(
            gone.kept, on=KEY, how="left"
        )
        empty = empty.with_columns(pl.col("kept").fill_null(0))
        defined = lives(self.place, empty)
        empty = empty.join(defined, on=["instrument_id", "life_start"], how="left", nulls_equal=True)
        empty = trading(self.place, empty, sessions)
        return empty.with_columns(alone=self._alone(empty))

    def _units(self, empty: pl.DataFrame) -> pl.DataFrame:
        """The life and the unit that each stretch belongs to, and what the ledger says of the unit."""
        at = [empty[c].to_numpy() for c in ("instrument_id", "low")]
        life, claim = Intervals(self._life_spans).find(*at), Intervals(self.claims).find(*at)
        empty = empty.with_columns(
            *(_taken(self._lives[c], life) for c in ("symbol", "life_start", "life_end")),
            _taken(self.claims["unit"], claim), _taken(self.claims["symbol"], claim).alias("u_symbol"),
        )  # fmt: skip
        books = self.books.select("unit", "fetched", "committed_at", made=made_here(), u_start="start", u_end="end")
        return empty.join(books, on="unit", how="left").with_columns(pl.col("made").fill_null(value=False))

    def _counted(self, empty: pl.DataFrame, sessions: pl.DataFrame) -> pl.DataFrame:
        """``counted``: the vendor was asked for a whole session around the stretch, or a whole cell of the grid.

        An order that was cut to a gap says nothing new of it.
        """
        units = empty.select("u_start", "u_end").drop_nulls().unique()
        grid = self.name.grid
        whole = [
            (start, end, cell_start(start, grid) == start and cell_end(start, grid) <= end)
            for start, end in units.iter_rows()
        ]
        kinds = {"u_start": pl.Int64, "u_end": pl.Int64, "counted": pl.Boolean}
        empty = empty.join(pl.DataFrame(whole, schema=kinds, orient="row"), on=["u_start", "u_end"], how="left")
        if self.look.calendars.knows(self.dataset):
            windows = empty.select("low", "high", "u_start", "u_end").drop_nulls().unique()
            touching = windows.join_where(
                sessions.select("open", "close"), pl.col("open") < pl.col("high"), pl.col("close") > pl.col("low")
            ).filter(pl.col("u_start") <= pl.col("open"), pl.col("close") <= pl.col("u_end"))
            key = ["low", "high", "u_start", "u_end"]
            inside = touching.select(key).unique().with_columns(session=pl.lit(value=True))
            empty = empty.join(inside, on=key, how="left").with_columns(
                counted=pl.col("counted") | pl.col("session").fill_null(value=False)
            ).drop("session")  # fmt: skip
        return empty.with_columns(counted=pl.col("counted").fill_null(value=False) & ~pl.col("made"))

    @cached_property
    def _life_spans(self) -> pl.DataFrame:
        return self._lives.select("instrument_id", start="life_start", end="life_end")

    def _edges(self, empty: pl.DataFrame) -> pl.DataFrame:
        """Which stretches are on the last day of a life, behind its last row; or on the first, before its first.

        The symbol was asked for beyond that day, so that the symbology would say if the life went on.
        """
        whole = self.coverage.filter(pl.col("instrument_id").is_null(), pl.col("schema") == self.name.name)
        whole = whole.select("symbol", "start", "end")
        codes = whole.select("symbol").unique().with_row_index("instrument_id")
        asked = merge(whole.join(codes, on="symbol").select(pl.col("instrument_id").cast(pl.Int64), "start", "end"))
        asked = asked.join(codes.cast({"instrument_id": pl.Int64}), on="instrument_id").select(
            "start", "end", u_symbol="symbol"
        )
        inside = {}
        for edge in ("life_start", "life_end"):
            pairs = empty.select("u_symbol", edge).unique().join(asked, on="u_symbol")
            inside[edge] = pairs.filter(pl.col("start") < pl.col(edge), pl.col(edge) < pl.col("end")).select(
                "u_symbol", edge, pl.lit(value=True).alias(f"in_{edge}")
            ).unique()  # fmt: skip
            empty = empty.join(inside[edge], on=["u_symbol", edge], how="left", nulls_equal=True)
        day = pl.col("at") // DAY_NS * DAY_NS
        ordered = runs(empty)
        return ordered.with_columns(
            ending=pl.col("last").any().over("run") & (day == pl.col("life_end") - DAY_NS)
            & pl.col("in_life_end").fill_null(value=False),
            beginning=pl.col("first").any().over("run") & (day == pl.col("life_start"))
            & pl.col("in_life_start").fill_null(value=False),
        ).drop("run", "in_life_start", "in_life_end")  # fmt: skip

    @cached_property
    def _rejects(self) -> pl.DataFrame:
        return quarantined(self.look.rejects, self.place)

    @cached_property
    def _losses(self) -> Losses:
        return losses(self.place, self.books, self.claims, self._held)

    def _thinned(self) -> pl.DataFrame:
        """The stretches that have rows, and less than were brought, by the bytes that are kept."""
        if self._held.is_empty():
            return pl.DataFrame(schema=GAPS)
        gone = self._losses
        both = gone.kept.join(gone.there, on=KEY).join(self._rejects, on=KEY, how="left")
        lacking = both.with_columns(pl.col("rejected").fill_null(0)).filter(
            pl.col("kept") > pl.col("there") + pl.col("rejected")
        )
        looked = Intervals(self._held)
        instruments, low = (lacking[c].to_numpy() for c in KEY)
        inside = pl.Series(looked.find(instruments, low) >= 0, dtype=pl.Boolean)
        lacking = lacking.filter(inside)
        at = [lacking[c].to_numpy() for c in KEY]
        life, claim = Intervals(self._life_spans).find(*at), Intervals(self.claims).find(*at)
        named = lacking.with_columns(_taken(self._lives["symbol"], life), _taken(self.claims["unit"], claim))
        return thinned(named, self.dataset, self.name.name, self.grain.every)

    def _vanished(self) -> pl.DataFrame:
        """Units that lack more rows than their empty stretches can have had, and of which nothing says where."""
        if self._held.is_empty():
            return pl.DataFrame(schema=GAPS)
        width = self.name.width
        most = self.grain.every // width if 0 < width <= self.grain.every else MAX_NS
        lacking = self._losses.units.filter(pl.col("gone") > 0).drop_nulls("unread")
        units = lacking.join(self.books, on="unit")
        rows = []
        for each in units.sort("unit").iter_rows(named=True):
            if each["gone"] <= self._blamed.get(each["unit"], 0) * most or not each["symbol"]:
                continue
            window = Window(each["start"], each["end"]).cut(self.look.window or Window(0, MAX_NS))
            if window is None:
                continue
            count = self._stretches(product_of(each["symbol"]), window).height
            numbers = ", ".join(map(str, each["shared"]))
            words = (
                f"{each['gone']} of the {each['of']} rows of unit {numbers} that were stored are gone; which ones is "
                f"not known, because its bytes cannot be looked at: {each['unread']}"
            )
            rows.append((
                self.dataset, self.name.name, each["symbol"], each["stype"], None, window.start, window.end, count,
                "our failure", CERTAIN, AGAIN, each["unit"], [words],
            ))  # fmt: skip
        return pl.DataFrame(rows, schema=GAPS, orient="row")

    def doubts(self) -> Iterator[str]:
        """Units that later commits have overtaken in part, whose receipts add up to more rows than are there."""
        if self._held.is_empty():
            return
        lost = self._losses.units.filter(pl.col("gone").is_null(), pl.col("excess") > 0).drop_nulls("unread")
        for (part,), units in lost.sort("unit").group_by("part", maintain_order=True):
            del part
            numbers = some([str(unit) for unit in units["unit"]])
            yield (
                f"{self.dataset} {self.name.name}: of unit {numbers}, which later ones have overtaken in part, "
                f"{units['excess'][0]} rows were lost once; whether they are there again is not known, because the "
                f"bytes cannot be looked at: {units['unread'][0]}"
            )

    def _alone(self, empty: pl.DataFrame) -> pl.Series:
        """True on days that the vendor called missing and of which nothing at all is stored."""
        days = empty.filter(pl.col("condition") == "missing")["day"].unique().sort()
        if not len(days):
            return pl.Series("alone", [False] * empty.height, dtype=pl.Boolean)
        held = merge(self.claims)
        spans = held.join(pl.DataFrame({"day": days}), how="cross").select(
            "instrument_id", start=pl.max_horizontal("start", "day"),
            end=pl.min_horizontal("end", pl.col("day") + DAY_NS),
        ).filter(pl.col("start") < pl.col("end"))  # fmt: skip
        there = self.place.counts(self.name.name, spans, DAY_NS)["at"].unique()
        return empty.select(alone=~pl.col("day").is_in(there.implode()))["alone"]


def _taken(values: pl.Series, at: Array) -> pl.Series:
    """Values by position, null where the position is negative."""
    place = pl.Series(at)
    return values.gather(pl.select(pl.when(place >= 0).then(place)).to_series()).alias(values.name)


def _overlap(one: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
    """What intervals of two frames (instrument_id, start, end) have in common, with the other columns of the second."""
    both = one.select("instrument_id", "start", "end").join(other, on="instrument_id", suffix="_other")
    return (
        both.with_columns(start=pl.max_horizontal("start", "start_other"), end=pl.min_horizontal("end", "end_other"))
        .filter(pl.col("start") < pl.col("end"))
        .drop("start_other", "end_other")
    )


def _outside(held: pl.DataFrame, named: pl.DataFrame) -> pl.DataFrame:
    """The parts of disjoint intervals that others, which lie within them, leave."""
    sizes = named.group_by("instrument_id").agg(named=(pl.col("end") - pl.col("start")).sum())
    total = (pl.col("end") - pl.col("start")).sum().over("instrument_id")
    partly = held.join(sizes, on="instrument_id", how="left").filter(pl.col("named").fill_null(0) < total)
    known: dict[int, list[tuple[int, int]]] = {}
    mine = named.join(partly.select("instrument_id").unique(), on="instrument_id", how="semi")
    for instrument, start, end in mine.select("instrument_id", "start", "end").iter_rows():
        known.setdefault(instrument, []).append((start, end))
    rows = [
        (i, w.start, w.end)
        for i, s, e in partly.select("instrument_id", "start", "end").iter_rows()
        for w in subtract(Window(s, e), known.get(i, []))
    ]
    return pl.DataFrame(rows, schema=held.schema, orient="row")


def _cut(spans: pl.DataFrame, window: Window) -> pl.DataFrame:
    return spans.with_columns(
        pl.col("start").clip(lower_bound=window.start), pl.col("end").clip(upper_bound=window.end)
    ).filter(pl.col("start") < pl.col("end"))


__all__ = ["Report", "Wanted", "find"]

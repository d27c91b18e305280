"""What a store can say about stretches that lack rows: quarantine, definitions, other schemas.

Each part gives a frame to join to the empty stretches (``instrument_id``, ``at``, ``low``, ``high``, and what the part
names). Rows are read as aggregates, by stretch. Bars that were made here of other rows say nothing that those do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import polars as pl

from hdi.frames import CONTENT
from hdi.gaps.grid import HOUR_NS, Grain, runs
from hdi.lookup import RECTANGLES
from hdi.model import DAY_NS, Window
from hdi.schema import Schema, SchemaName, Schemas
from hdi.stores import Store
from hdi.symbology import Intervals, disjoint, merge

_CLEARED_VOLUME, _NEW = 6, 1
#: The volume of a session is published within so many days.
_PUBLISHED = 6 * DAY_NS
KEY = ["instrument_id", "at"]


@dataclass(frozen=True)
class Place:
    """One schema of a dataset in a store, and how it is looked at.

    ``coverage`` is that of the dataset; ``made`` are the units of it whose bars were made here.
    """

    store: Store
    schemas: Schemas
    dataset: str
    schema: Schema
    name: SchemaName
    grain: Grain
    coverage: pl.DataFrame
    made: frozenset[int] = frozenset()

    def covered(self, name: str) -> pl.DataFrame:
        """What of a schema came from the vendor, by instrument: disjoint intervals."""
        held = self.coverage.filter(pl.col("schema") == name).drop_nulls("instrument_id")
        own = held["unit"].is_in(list(self.made))
        if not own.any():
            return merge(held)
        stands = disjoint(held)
        return merge(stands.filter(~own.gather(stands["row"])))

    def counts(self, name: str, spans: pl.DataFrame, every: int) -> pl.DataFrame:
        """How many rows a schema has in spans (instrument_id, start, end): instrument_id, at, rows."""
        if spans.is_empty():
            return pl.DataFrame(schema={c: CONTENT[c] for c in (*KEY, "rows", "first")})
        schema, found = self.schemas.find(name)
        window = Window(int(spans["start"].min()), int(spans["end"].max()))  # type: ignore[arg-type]
        content = self.store.content(schema, found.name, window, self.rectangles(spans), every, self.dataset)
        return content.select(*KEY, "rows", "first")

    def rectangles(self, spans: pl.DataFrame) -> pl.DataFrame:
        """Spans as a store takes them."""
        return merge(spans).with_columns(dataset=pl.lit(self.dataset)).select(*RECTANGLES)

    def summed(self, name: str, spans: pl.DataFrame) -> pl.DataFrame:
        """How much was traded in each hour of some spans, by a schema: instrument_id, at, volume."""
        schema, found = self.schemas.find(name)
        column = schema.volume
        out = pl.DataFrame(schema={"instrument_id": pl.Int64, "at": pl.Int64, "volume": pl.Int64})
        if spans.is_empty() or column is None:
            return out
        window = Window(int(spans["start"].min()), int(spans["end"].max()))  # type: ignore[arg-type]
        columns = ["instrument_id", schema.index_time, column]
        hour = pl.col(schema.index_time).to_physical() // HOUR_NS * HOUR_NS
        for rows in self.store.read(schema, found.name, window, self.rectangles(spans), columns, self.dataset):
            part = rows.group_by("instrument_id", at=hour).agg(volume=pl.col(column).cast(pl.Int64).sum())
            out = pl.concat([out, part.select(out.columns)]).group_by(KEY).agg(pl.col("volume").sum())
        return out


def within(frame: pl.DataFrame, held: pl.DataFrame) -> pl.Series:
    """For each stretch (instrument_id, low, high) whether disjoint intervals hold all of it."""
    if frame.is_empty() or held.is_empty():
        return pl.Series("held", [False] * frame.height, dtype=pl.Boolean)
    at = Intervals(held).find(frame["instrument_id"].to_numpy(), frame["low"].to_numpy())
    reach = held["end"].to_numpy()[at]
    return pl.Series("held", (at >= 0) & (reach >= frame["high"].to_numpy()))


def quarantined(rejects: pl.DataFrame, place: Place) -> pl.DataFrame:
    """Rows in quarantine by stretch: instrument_id, at, rejected, rules."""
    at = pl.coalesce("index_time", "ts_event") // place.grain.every * place.grain.every
    mine = rejects.filter(
        pl.col("dataset") == place.dataset, pl.col("schema") == place.name.name, ~pl.col("failed"),
        pl.coalesce("index_time", "ts_event").is_not_null(), pl.col("instrument_id").is_not_null(),
    )  # fmt: skip
    return mine.group_by("instrument_id", at=at).agg(
        rejected=pl.len().cast(pl.Int64), rules=pl.col("rules").explode().drop_nulls().unique().sort().str.join(", ")
    )


def lives(place: Place, empty: pl.DataFrame) -> pl.DataFrame:
    """Listing and expiry by the definitions that are held of the lives (instrument_id, life_start, life_end) given.

    Columns: instrument_id, life_start, activation, expiration.
    """
    out = {"instrument_id": pl.Int64(), "life_start": pl.Int64(), "activation": pl.Int64(), "expiration": pl.Int64()}
    spans = empty.select("instrument_id", "life_start", "life_end").drop_nulls().unique()
    if spans.is_empty() or not (place.coverage["schema"] == "definition").any():
        return pl.DataFrame(schema=out)
    schema, name = place.schemas.find("definition")
    window = Window(int(spans["life_start"].min()), int(spans["life_end"].max()))  # type: ignore[arg-type]
    rectangles = place.rectangles(spans.select("instrument_id", start="life_start", end="life_end"))
    found = pl.DataFrame(schema=out | {"known": pl.Int64()})
    columns = ["instrument_id", schema.index_time, "activation", "expiration"]
    times = [pl.col(c).to_physical() for c in columns[1:]]
    for rows in place.store.read(schema, name.name, window, rectangles, columns, place.dataset):
        part = (
            rows.with_columns(times)
            .join(spans, on="instrument_id")
            .filter(pl.col(columns[1]) >= pl.col("life_start"), pl.col(columns[1]) < pl.col("life_end"))
            .select("instrument_id", "life_start", "activation", "expiration", known=pl.col(columns[1]))
        )
        found = pl.concat([found, part]).sort("known").unique(["instrument_id", "life_start"], keep="last")
    return found.select(*out)


def trading(place: Place, empty: pl.DataFrame, sessions: pl.DataFrame) -> pl.DataFrame:
    """The stretches with what other schemas say of trading in them.

    ``agree``: schemas that hold the stretch and have no row either. ``elsewhere``: rows that others have in it,
    ``where`` their schemas. ``day_volume`` is the daily bar's, ``day_held`` what the rows of this schema add up to;
    ``cleared`` the cleared volume of the ``sessions`` that it touches, ``cleared_held`` what the rows of a schema
    without a row in the stretch add up to. ``proven``: the cleared volume is accounted for, so nothing is left for
    the stretch; ``summed``: the daily bar is, which the vendor makes of the same trades. ``lacks``: a sum of sessions
    lacks volume. ``short``: a sum lacks volume, and the stretch is in the only gap that it can have come in.
    """
    # What is known to be lost, or rejected, is a gap of its own: volume may be missing there.
    apart = empty.with_columns(bad=(pl.col("rejected") > 0) | (pl.col("kept") > 0))
    empty = runs(apart, "condition", "bad").drop("bad").rename({"run": "gap"}).with_columns(
        agree=pl.lit(""), where=pl.lit(""), elsewhere=pl.lit(0, pl.Int64), proven=pl.lit(value=False),
        summed=pl.lit(value=False), short=pl.lit(value=False), day_volume=pl.lit(None, pl.Int64),
        day_held=pl.lit(None, pl.Int64), lacks=pl.lit(value=False), cleared=pl.lit(None, pl.Int64),
        cleared_held=pl.lit(None, pl.Int64), touched=pl.lit(None, pl.Int64),
    )  # fmt: skip
    if place.schema.volume is None or empty.is_empty():
        return empty
    others = [
        n for n in sorted(place.coverage["schema"].unique())
        if n != place.name.name and n in place.schemas.names and place.schemas.find(n)[0].volume is not None
    ]  # fmt: skip
    finer = [n for n in others if place.schemas.find(n)[1].settled < DAY_NS]
    days = _spans(empty, DAY_NS, 0)
    silent: dict[str, pl.Series] = {}
    for name in finer:
        empty, silent[name] = _beside(place, empty, days, name)
    volumes = {}
    if not place.grain.daily:
        volumes[place.name.name] = place.summed(place.name.name, _spans(empty, DAY_NS, DAY_NS))
        if "ohlcv-1d" in others:
            empty = _by_day(place, empty, days, volumes[place.name.name])
    return _by_session(place, empty, sessions, volumes, silent)


def _spans(empty: pl.DataFrame, every: int, margin: int) -> pl.DataFrame:
    """The stretches of ``every`` nanoseconds around the empty ones, by instrument."""
    start = pl.col("at") // every * every
    return merge(empty.select("instrument_id", start=start - margin, end=start + every + margin).unique())


def _beside(place: Place, empty: pl.DataFrame, days: pl.DataFrame, name: str) -> tuple[pl.DataFrame, pl.Series]:
    """What a finer schema, or one as fine, has in the stretches; and where it holds them and has nothing."""
    held = within(empty, place.covered(name))
    rows = place.counts(name, days, place.grain.every).select(*KEY, there="rows")
    empty = empty.with_columns(held.alias("held")).join(rows, on=KEY, how="left", maintain_order="left")
    there = pl.col("there").fill_null(0)
    none = empty.select(none=pl.col("held") & (there == 0))["none"]
    empty = empty.with_columns(
        agree=pl.when(pl.col("held") & (there == 0)).then(_added("agree", name)).otherwise("agree"),
        where=pl.when(there > 0).then(_added("where", name)).otherwise("where"),
        elsewhere=pl.col("elsewhere") + there,
    )
    return empty.drop("held", "there"), none


def _added(column: str, name: str) -> pl.Expr:
    return pl.when(pl.col(column) == "").then(pl.lit(name)).otherwise(pl.col(column) + f", {name}")


def _by_day(place: Place, empty: pl.DataFrame, days: pl.DataFrame, hours: pl.DataFrame) -> pl.DataFrame:
    """Daily bars: volume of the day against what the rows of this schema add up to."""
    name = "ohlcv-1d"
    bars = place.summed(name, days).select("instrument_id", day="at", bar="volume")
    sums = hours.group_by("instrument_id", day=pl.col("at") // DAY_NS * DAY_NS).agg(sum=pl.col("volume").sum())
    point = empty.select("instrument_id", low=pl.col("at") // DAY_NS * DAY_NS).with_columns(high=pl.col("low") + 1)
    held = within(point, place.covered(name))
    key = ["instrument_id", "day"]
    alone = pl.col("gap").n_unique().over(key) == 1
    empty = empty.with_columns(held.alias("held"), day=pl.col("at") // DAY_NS * DAY_NS)
    empty = empty.join(bars, on=key, how="left", maintain_order="left")
    empty = empty.join(sums, on=key, how="left", maintain_order="left").with_columns(pl.col("sum").fill_null(0))
    # A bar that was made here can tell of rows that were there then, and never that there are no more.
    tells = pl.col("bar").is_not_null() & (pl.col("held") | (pl.col("bar") > pl.col("sum")))
    return empty.with_columns(
        agree=pl.when(pl.col("held") & pl.col("bar").is_null()).then(_added("agree", name)).otherwise("agree"),
        day_volume=pl.when(tells).then("bar"), day_held=pl.when(tells).then("sum"),
        summed=pl.col("held") & (pl.col("bar") == pl.col("sum")).fill_null(value=False),
        short=pl.col("short") | ((pl.col("bar") > pl.col("sum")) & alone).fill_null(value=False),
    ).drop("held", "bar", "sum")  # fmt: skip


def _by_session(
    place: Place, empty: pl.DataFrame, sessions: pl.DataFrame, volumes: Mapping[str, pl.DataFrame],
    silent: Mapping[str, pl.Series],
) -> pl.DataFrame:  # fmt: skip
    """Cleared volume of the sessions against what the rows of a schema without a row in the stretch add up to."""
    if sessions.is_empty() or not (place.coverage["schema"] == "statistics").any():
        return empty
    cleared = _cleared(place, empty)
    if cleared.is_empty():
        return empty
    empty = empty.with_row_index("_row")
    spans = sessions.select("session", "open", "close").with_columns(_at=pl.col("session").cast(pl.Int64) * DAY_NS)
    touched = _touching(empty, spans).join(cleared, on=["instrument_id", "_at"], how="left", maintain_order="left")
    tries: list[str | None] = [*volumes] or [None, *silent]
    for name in tries:
        hours = volumes.get(name or "")
        if hours is None:
            margin = _spans(empty, DAY_NS, DAY_NS)
            hours = place.summed(name, margin) if name else pl.DataFrame(
                schema={"instrument_id": pl.Int64, "at": pl.Int64, "volume": pl.Int64}
            )  # fmt: skip
        told = _told(touched, hours, spans)
        empty = empty.join(told, on="_row", how="left", maintain_order="left")
        may = pl.lit(value=True) if name is None or name in volumes else silent[name].alias("may")
        whole = pl.col("_whole").fill_null(value=False)
        empty = empty.with_columns(
            # An equation of nothing with nothing needs no schema; one with volume needs one that has none of it here.
            proven=pl.col("proven") | (whole & (may if name else pl.col("_cleared") == 0)),
            lacks=pl.col("lacks") | (pl.col("_lacks").fill_null(value=False) & pl.lit(value=name in volumes)),
            short=pl.col("short") | (pl.col("_short").fill_null(value=False) & pl.lit(value=name in volumes)),
            cleared=pl.coalesce("cleared", "_cleared"), touched=pl.coalesce("touched", "_sessions"),
            cleared_held=pl.when(whole & (may if name else pl.col("_cleared") == 0)).then("_held").otherwise(
                pl.coalesce("cleared_held", pl.col("_held") if name else pl.lit(None, pl.Int64))
            ),
        ).drop("_whole", "_lacks", "_short", "_cleared", "_held", "_sessions")  # fmt: skip
    return empty.drop("_row")


def _touching(empty: pl.DataFrame, spans: pl.DataFrame) -> pl.DataFrame:
    """The sessions of each stretch: _row, instrument_id, session bounds."""
    windows = empty.select("low", "high").unique()
    pairs = windows.join_where(spans, pl.col("open") < pl.col("high"), pl.col("close") > pl.col("low"))
    own = empty.select("_row", "instrument_id", "low", "high", "gap").join(pairs, on=["low", "high"])
    return own.unique(["_row", "_at"]).select("_row", "instrument_id", "_at", "gap")


def _cleared(place: Place, empty: pl.DataFrame) -> pl.DataFrame:
    """The cleared volume that statistics give: instrument_id, _at (the trading date's midnight), volume."""
    schema, name = place.schemas.find("statistics")
    spans = _spans(empty, DAY_NS, DAY_NS).with_columns(end=pl.col("end") + _PUBLISHED)
    window = Window(int(spans["start"].min()), int(spans["end"].max()))  # type: ignore[arg-type]
    columns = ["instrument_id", "ts_recv", "ts_ref", "stat_type", "quantity", "update_action"]
    known = {"instrument_id": pl.Int64(), "_at": pl.Int64(), "volume": pl.Int64(), "known": pl.Int64()}
    out = pl.DataFrame(schema=known)
    for rows in place.store.read(schema, name.name, window, place.rectangles(spans), columns, place.dataset):
        part = rows.filter(
            pl.col("stat_type") == _CLEARED_VOLUME, pl.col("update_action") == _NEW,
            pl.col("quantity").is_not_null(), pl.col("ts_ref").is_not_null(),
        ).select(
            "instrument_id", _at=pl.col("ts_ref").to_physical() // DAY_NS * DAY_NS, volume="quantity",
            known=pl.col("ts_recv").to_physical(),
        )  # fmt: skip
        out = pl.concat([out, part]).sort("known").unique(["instrument_id", "_at"], keep="last")
    return out.drop("known")


def _told(touched: pl.DataFrame, hours: pl.DataFrame, spans: pl.DataFrame) -> pl.DataFrame:
    """For each stretch whether the volume of all its sessions is accounted for, and by how much."""
    ordered = spans.sort("open")
    placed = hours.with_columns(last=pl.col("at") + (HOUR_NS - 1)).sort("last")
    owned = placed.join_asof(ordered.select("open", "_at"), left_on="last", right_on="open", strategy="backward")
    sums = owned.group_by("instrument_id", "_at").agg(sum=pl.col("volume").sum())
    key = ["instrument_id", "_at"]
    both = touched.join(sums, on=key, how="left").with_columns(pl.col("sum").fill_null(0))
    both = both.with_columns(alone=pl.col("gap").n_unique().over(key) == 1)
    equal = (pl.col("volume") == pl.col("sum")).fill_null(value=False)
    more = (pl.col("volume") > pl.col("sum")).fill_null(value=False)
    return both.group_by("_row").agg(
        _whole=equal.all(), _lacks=more.any(), _short=(more & pl.col("alone")).any(),
        _cleared=pl.when(pl.col("volume").is_not_null().all()).then(pl.col("volume").sum()),
        _held=pl.col("sum").sum(), _sessions=pl.len().cast(pl.Int64),
    )  # fmt: skip


def joined(frames: Sequence[pl.DataFrame], on: Sequence[str]) -> pl.DataFrame:
    """The first frame with the columns of the others, where they have some."""
    return reduce(lambda left, right: left.join(right, on=list(on), how="left", maintain_order="left"), frames)


__all__ = [
    "KEY", "Place", "joined", "lives", "quarantined", "trading", "within",
]  # fmt: skip

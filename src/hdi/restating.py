"""The arithmetic of days that were changed after they were bought. Pure: it works on frames, and asks nobody."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from hdi.model import DAY_NS, STYPES, Window
from hdi.symbology import disjoint

#: Whether there is data, by the vendor's word: a day that goes up has more than before.
_RANK = {"missing": 0, "pending": 0, "degraded": 1, "available": 2}
#: What was said of a day when a unit was bought.
TOLD: dict[str, pl.DataType] = {
    "unit": pl.Int32(), "day": pl.Int64(), "was": pl.String(), "was_modified": pl.Int64(),
}  # fmt: skip
#: Units and when their bytes were bought, in the order of their commits.
BOUGHT: dict[str, pl.DataType] = {
    "unit": pl.Int32(), "dataset": pl.String(), "schema": pl.String(), "symbol": pl.String(), "stype": pl.String(),
    "start": pl.Int64(), "end": pl.Int64(), "bought_at": pl.Int64(),
}  # fmt: skip
#: What became of a day that a unit holds (``due``, ``waiting``, ``fresh``, ``unmeasured``), what was known, what is.
FOUND: dict[str, pl.DataType] = {
    "unit": pl.Int32(), "day": pl.Int64(), "verdict": pl.String(), "was": pl.String(), "was_modified": pl.Int64(),
    "condition": pl.String(), "last_modified": pl.Int64(),
}  # fmt: skip
#: What would have to be asked for again, and the verdict on its day.
WANTED: dict[str, pl.DataType] = {
    "verdict": pl.String(), "stype": pl.String(), "symbol": pl.String(), "start": pl.Int64(), "end": pl.Int64(),
}  # fmt: skip
#: Pieces (instrument and day) that are looked at together.
_MOST_PIECES = 2_000_000


def odd(said: pl.DataFrame, told: pl.DataFrame, now: pl.DataFrame) -> pl.DataFrame:
    """The days of a dataset (day, condition, last_modified) of which not all that is known is what is said ``now``."""
    today = now.select("day", "condition", "last_modified")
    known = pl.concat([
        said.select("day", was="condition", was_modified="last_modified"), told.select("day", "was", "was_modified"),
    ]).join(today, on="day")  # fmt: skip
    differs = pl.col("was").ne_missing(pl.col("condition"))
    differs |= pl.col("was_modified").ne_missing(pl.col("last_modified"))
    heard = today.join(said, on="day", how="semi")
    return pl.concat([
        today.join(heard, on="day", how="anti"), heard.join(known.filter(differs), on="day", how="semi"),
    ]).sort("day")  # fmt: skip


def judged(days: pl.DataFrame, said: pl.DataFrame, told: pl.DataFrame) -> pl.DataFrame:
    """What became of days that units hold, since they were bought: :data:`FOUND`, in the order of ``days``.

    ``days`` has unit, day, bought_at, and what is said now: condition, last_modified. ``said`` is
    :data:`hdi.frames.CONDITIONS`; ``told`` (:data:`TOLD`) is what is known of a unit itself, the surest first.
    """
    heard = said.select("day", "seen_at", heard="condition", heard_modified="last_modified").sort("seen_at")
    first = heard.unique("day", keep="first", maintain_order=True)
    first = first.select("day", first="heard", first_modified="heard_modified")
    both = (
        days.join(told.unique(["unit", "day"], keep="first", maintain_order=True), on=["unit", "day"], how="left")
        .sort("bought_at", maintain_order=True)
        .join_asof(heard, left_on="bought_at", right_on="seen_at", by="day", check_sortedness=False)
        .join(first, on="day", how="left", maintain_order="left")
    )
    # Nothing that was kept before: what was heard first, later, is what is known.
    modified = (
        pl.when(pl.col("was").is_not_null()).then("was_modified")
        .when(pl.col("heard").is_not_null()).then("heard_modified")
        .otherwise("first_modified")
    )  # fmt: skip
    early = pl.coalesce("was", "heard").is_null() & (pl.col("last_modified") > pl.col("bought_at"))
    known = both.with_columns(
        was=pl.coalesce("was", "heard", "first"), was_modified=modified, early=early.fill_null(value=False)
    )
    newer = pl.col("last_modified").is_not_null() & pl.col("was_modified").is_null()
    newer |= (pl.col("last_modified") > pl.col("was_modified")).fill_null(value=False)
    better = _rank("condition") > _rank("was")
    verdict = (
        pl.when(~pl.col("early") & pl.col("was").is_null()).then(pl.lit("unmeasured"))
        .when(~(pl.col("early") | newer | better)).then(pl.lit("fresh"))
        .when(_rank("condition") == 0).then(pl.lit("waiting"))
        .otherwise(pl.lit("due"))
    )  # fmt: skip
    return known.with_columns(verdict=verdict).select(pl.col(c).cast(t) for c, t in FOUND.items())


def _rank(column: str) -> pl.Expr:
    return pl.col(column).replace_strict(_RANK, default=1, return_dtype=pl.Int8)


def wanted(changed: pl.DataFrame, bought: pl.DataFrame) -> pl.DataFrame:
    """What would have to be asked for again (:data:`WANTED`) of pieces (see :func:`standing`) with their verdict.

    What a unit holds of a day is asked for as it was then; where other units hold some of it, by instrument.
    """
    mine = changed.join(bought.select("unit", "symbol", "stype", low="start", high="end"), on="unit")
    whole = pl.col("whole") & (pl.col("symbol") != "") & pl.col("stype").is_in(list(STYPES))
    as_asked = mine.filter(whole).select(
        "verdict", "stype", pl.col("symbol").str.split(","), pl.max_horizontal("low", "day").alias("start"),
        pl.min_horizontal("high", pl.col("day") + DAY_NS).alias("end"),
    ).unique()  # fmt: skip
    by_id = mine.filter(~whole).select(
        "verdict", pl.lit("instrument_id").alias("stype"), pl.col("instrument_id").cast(pl.String).alias("symbol"),
        "start", "end",
    )  # fmt: skip
    both = pl.concat([as_asked.explode("symbol"), by_id])
    return both.filter(pl.col("symbol") != "").select(pl.col(c).cast(t) for c, t in WANTED.items())


def standing(coverage: pl.DataFrame, bought: pl.DataFrame, days: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Pieces of instruments on some days, of the newest unit that holds each.

    Columns: unit, instrument_id, start, end, day, and ``whole``: all that the unit holds of that day stands.
    """
    if days.is_empty():
        return
    order = bought.select("unit", low="start", high="end").with_row_index("order")
    rectangles = coverage.drop_nulls("instrument_id").select("unit", "instrument_id", "start", "end").join(
        order, on="unit"
    )  # fmt: skip
    sizes = rectangles.group_by("unit", "low", "high").len("pieces")
    spans = days.select("day", until=pl.col("day") + DAY_NS)
    within = (pl.col("low") < pl.col("until")) & (pl.col("high") > pl.col("day"))
    held = sizes.join_where(spans, within)
    per_day = held.group_by("day").agg(pl.col("pieces").sum()).sort("day")
    for _, some in per_day.group_by(pl.col("pieces").cum_sum() // _MOST_PIECES, maintain_order=True):
        pairs = held.join(some, on="day", how="semi").select("unit", "day", "until")
        here = (
            rectangles.drop("low", "high").join(pairs, on="unit")
            .filter(pl.col("start") < pl.col("until"), pl.col("end") > pl.col("day"))
            .with_columns(start=pl.max_horizontal("start", "day"), end=pl.min_horizontal("end", "until"))
            .sort("order", maintain_order=True)
        )  # fmt: skip
        cut = disjoint(here)
        stands = here[cut["row"]].with_columns(start=cut["start"], end=cut["end"])
        length = (pl.col("end") - pl.col("start")).sum()
        there, left = (f.group_by("unit", "day").agg(length.alias(n)) for f, n in ((here, "there"), (stands, "left")))
        both = there.join(left, on=["unit", "day"]).select("unit", "day", whole=pl.col("there") == pl.col("left"))
        yield stands.join(both, on=["unit", "day"]).drop("order", "until")


def together(spans: Sequence[tuple[int, int, int]]) -> Iterator[tuple[Window, frozenset[int]]]:
    """From (key, start, end), those of a key apart from each other: windows, and the keys that have each of them."""
    steps: dict[int, list[tuple[int, bool]]] = {}
    for key, start, end in spans:
        steps.setdefault(start, []).append((key, True))
        steps.setdefault(end, []).append((key, False))
    active: frozenset[int] = frozenset()
    began = 0
    for at in sorted(steps):
        now = (active - {k for k, starts in steps[at] if not starts}) | {k for k, starts in steps[at] if starts}
        if now != active:
            if active:
                yield Window(began, at), active
            active, began = now, at


__all__ = ["BOUGHT", "FOUND", "TOLD", "WANTED", "judged", "odd", "standing", "together", "wanted"]

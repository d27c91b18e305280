"""The arithmetic of days that were changed after they were bought. Pure: it works on frames, and asks nobody."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from hdi.model import DAY_NS, STYPES, Window, subtract
from hdi.symbology import disjoint, merge

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
#: What became of a day that a unit holds (``due``, ``waiting``, ``fresh``, ``unmeasured``, or
#: ``unsettled``: changed on the day on which it was bought, before or after), what was known, what is.
FOUND: dict[str, pl.DataType] = {
    "unit": pl.Int32(), "day": pl.Int64(), "verdict": pl.String(), "was": pl.String(), "was_modified": pl.Int64(),
    "condition": pl.String(), "last_modified": pl.Int64(),
}  # fmt: skip
#: What would have to be asked for again, and the verdict on its day.
WANTED: dict[str, pl.DataType] = {
    "verdict": pl.String(), "stype": pl.String(), "symbol": pl.String(), "start": pl.Int64(), "end": pl.Int64(),
}  # fmt: skip
_SPAN = {"instrument_id": pl.Int64(), "start": pl.Int64(), "end": pl.Int64()}
#: Pieces (instrument and day) that are looked at together.
_MOST_PIECES = 2_000_000


def odd(said: pl.DataFrame, told: pl.DataFrame, now: pl.DataFrame, bought: pl.DataFrame | None = None) -> pl.DataFrame:
    """The days of a dataset (day, condition, last_modified) that raise a question.

    Not all that is known of them is what is said ``now``; or that is of the day on which it was heard, or on which
    some of ``bought`` (:data:`BOUGHT`) was.
    """
    today = now.select("day", "condition", "last_modified")
    known = pl.concat([
        said.select("day", was="condition", was_modified="last_modified"), told.select("day", "was", "was_modified"),
    ]).join(today, on="day")  # fmt: skip
    differs = pl.col("was").ne_missing(pl.col("condition"))
    differs |= pl.col("was_modified").ne_missing(pl.col("last_modified"))
    heard = today.join(said, on="day", how="semi")
    same = today.join(said.select("day", "seen_at"), on="day").filter(_of_that_day("seen_at"))
    odd = [known.filter(differs).select("day"), same.select("day")]
    if bought is not None and bought.height:
        spans = bought.group_by("start", "end").agg(pl.col("bought_at").min())
        within = (pl.col("start") < pl.col("day") + DAY_NS) & (pl.col("end") > pl.col("day"))
        odd.append(today.join_where(spans, within).filter(_of_that_day("bought_at")).select("day"))
    return pl.concat([
        today.join(heard, on="day", how="anti"), heard.join(pl.concat(odd), on="day", how="semi"),
    ]).sort("day")  # fmt: skip


def _of_that_day(column: str) -> pl.Expr:
    """Whether the last change may be later than an instant: the vendor gives its day alone."""
    return (pl.col("last_modified") >= pl.col(column) // DAY_NS * DAY_NS).fill_null(value=False)


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
        late=pl.coalesce("was", "heard").is_null(), was=pl.coalesce("was", "heard", "first"), was_modified=modified,
        early=early.fill_null(value=False),
    )  # fmt: skip
    newer = pl.col("last_modified").is_not_null() & pl.col("was_modified").is_null()
    newer |= (pl.col("last_modified") > pl.col("was_modified")).fill_null(value=False)
    better = _rank("condition") > _rank("was")
    verdict = (
        pl.when(~pl.col("early") & pl.col("was").is_null()).then(pl.lit("unmeasured"))
        .when(~(pl.col("early") | newer | better)).then(
            pl.when(~_of_that_day("bought_at")).then(pl.lit("fresh"))
            .when("late").then(pl.lit("unmeasured"))
            .otherwise(pl.lit("unsettled"))
        )
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


def made_here() -> pl.Expr:
    """True for units of the ledger that may be bars that were made: they stand for an instrument, and have no bytes."""
    return (pl.col("status") == "complete") & pl.col("raw_digest").is_null() & (pl.col("stype") == "instrument_id")


def outdated(
    coverage: pl.DataFrame, ledger: pl.DataFrame, dataset: str, name: str, sources: Sequence[str], width: int
) -> pl.DataFrame:
    """Where bars that were made are older than rows that they were made of: instrument_id, start, end.

    A later commit changed some of what was held in a source when they were made. ``sources`` are all that they can
    be made of, and what that is made of: a change further below counts. ``ledger`` is in the order of commits.
    """
    units = (
        ledger.with_row_index("order").filter(pl.col("dataset") == dataset, pl.col("status") == "complete")
        .select("unit", "order", "schema", made=made_here() & (pl.col("schema") == name),
                changed=(pl.col("superseded") > 0) | (pl.col("stored") > pl.col("unchanged")))
    )  # fmt: skip
    bars = units.filter(pl.col("schema") == name)
    finer = units.filter(pl.col("schema").is_in(list(sources)))
    first = bars.filter("made")["order"].min()
    later = finer.filter("changed", pl.col("order") > (0 if first is None else first))
    if first is None or later.is_empty():
        return pl.DataFrame(schema=_SPAN)
    spans = coverage.drop_nulls("instrument_id").select("unit", *_SPAN)
    news = spans.join(later, on="unit")
    own = spans.join(bars, on="unit").join(news, on="instrument_id", how="semi").sort("order", maintain_order=True)
    cut = disjoint(own)
    stands = own[cut["row"]].with_columns(start=cut["start"], end=cut["end"]).filter("made")
    # A bar is its whole interval's, also beyond the end of the stretch in which it starts.
    reach = stands.select(
        "instrument_id", "order", low="start", high="end", start=-(-pl.col("start") // width) * width,
        end=-(-pl.col("end") // width) * width,
    )  # fmt: skip
    before = spans.join(finer, on="unit").join(news, on="instrument_id", how="semi")
    over = _meet(reach, news.select("instrument_id", "start", "end", "schema", other="order"))
    over = over.filter(pl.col("other") > pl.col("order"))
    old = _meet(over.drop("other"), before.select("instrument_id", "start", "end", was="schema", other="order"))
    old = old.filter(pl.col("other") < pl.col("order"), pl.col("was") == pl.col("schema"))
    return merge(
        old.with_columns(
            start=pl.max_horizontal(pl.col("start") // width * width, "low"),
            end=pl.min_horizontal(-(-pl.col("end") // width) * width, "high"),
        ).filter(pl.col("start") < pl.col("end"))
    )  # fmt: skip


def _meet(some: pl.DataFrame, others: pl.DataFrame) -> pl.DataFrame:
    """Where stretches of an instrument overlap others of it."""
    both = some.join(others, on="instrument_id", suffix="_other").with_columns(
        start=pl.max_horizontal("start", "start_other"), end=pl.min_horizontal("end", "end_other")
    )
    return both.filter(pl.col("start") < pl.col("end")).drop("start_other", "end_other").unique()


def without(coverage: pl.DataFrame, spans: pl.DataFrame, mappings: pl.DataFrame) -> pl.DataFrame:
    """Coverage of one dataset and schema without stretches of instruments (instrument_id, start, end).

    Symbols that stood for one of them then (``mappings``) are not held then either.
    """
    holes: dict[int, list[tuple[int, int]]] = {}
    named: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for instrument, start, end in spans.iter_rows():
        holes.setdefault(instrument, []).append((start, end))
        named.setdefault(("instrument_id", str(instrument)), []).append((start, end))
    stood = _meet(spans.select(*_SPAN), mappings.select(*_SPAN, "stype", "symbol"))
    for stype, symbol, start, end in stood.select("stype", "symbol", "start", "end").iter_rows():
        named.setdefault((stype, symbol), []).append((start, end))
    names = pl.DataFrame(list(named), schema={"stype": pl.String, "symbol": pl.String}, orient="row")
    rows = coverage.with_row_index("row")
    touched = pl.concat([
        rows.join(spans.select("instrument_id").unique(), on="instrument_id", how="semi"),
        rows.filter(pl.col("instrument_id").is_null()).join(names, on=["stype", "symbol"], how="semi"),
    ])  # fmt: skip
    left = [
        row | {"start": part.start, "end": part.end}
        for row in touched.drop("row").iter_rows(named=True)
        for part in subtract(
            Window(row["start"], row["end"]),
            named[row["stype"], row["symbol"]] if row["instrument_id"] is None else holes[row["instrument_id"]],
        )
    ]
    kept = rows.join(touched, on="row", how="anti").drop("row")
    return pl.concat([kept, pl.DataFrame(left, schema=coverage.schema, orient="row")])


__all__ = [
    "BOUGHT", "FOUND", "TOLD", "WANTED", "judged", "made_here", "odd", "outdated", "standing", "together", "wanted",
    "without",
]  # fmt: skip

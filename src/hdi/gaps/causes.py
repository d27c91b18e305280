"""Why stretches lack rows: the cause of each, how certain it is, and the evidence in words.

Pure: it judges a frame of empty stretches with what :mod:`hdi.gaps.evidence` found of them. A cause is certain only
where a fact rules out the others; what merely makes it probable is "likely"; the rest is unknown.
"""

from __future__ import annotations

import polars as pl

from hdi.gaps.grid import runs
from hdi.model import DAY_NS

CERTAIN, LIKELY = "certain", "likely"
#: The causes, in the order in which a summary names them.
CAUSES = (
    "weekend", "holiday", "early close", "break", "not listed", "expired", "no trade", "degraded", "missing",
    "pending", "quarantined", "never requested", "our failure", "ordered", "unknown",
)  # fmt: skip
#: Those that are shown only on request: nothing is missing.
CLOSED = frozenset(CAUSES[:4])
#: How a gap can be filled: by buying it, by refining bytes that are kept, by buying it again, or again if the vendor
#: has changed it since.
BUY, REFINE, AGAIN, CHANGED = "buy", "refine", "again", "changed"
#: A stretch without rows. ``stype`` is that of ``symbol``; ``instrument_id`` is null where only the symbol is known.
GAPS: dict[str, pl.DataType] = {
    "dataset": pl.String(), "schema": pl.String(), "symbol": pl.String(), "stype": pl.String(),
    "instrument_id": pl.Int64(), "start": pl.Int64(), "end": pl.Int64(), "stretches": pl.Int64(),
    "cause": pl.String(), "certainty": pl.String(), "fill": pl.String(), "unit": pl.Int32(),
    "evidence": pl.List(pl.String()),
}  # fmt: skip
#: So many other gaps of an instrument as long, in so many of a hundred of its stretches, make one of them likely.
_OTHERS, _SHARE = 3, 2
_CONDITIONS = ("missing", "degraded", "pending")


def judged(empty: pl.DataFrame) -> pl.DataFrame:
    """The empty stretches with ``cause``, ``certainty`` ("" where unknown) and ``fill``."""
    available = pl.col("condition").eq_missing("available") & pl.col("condition_now").eq_missing("available")
    proven = pl.col("proven")
    traded = (pl.col("elsewhere") > 0) | pl.col("short")
    # Bars that were made of one schema lack what it lacks: they and it are one witness.
    agree = (pl.col("agree") != "") & (~pl.col("made") | pl.col("agree").str.contains(", ", literal=True))
    nothing = agree | (pl.col("counted") & (pl.col("fetched") == 0)) | proven | pl.col("summed")
    said = pl.col("condition").is_in(_CONDITIONS)
    # Where the vendor's bytes were looked at, they say whether it was us.
    unread = pl.col("unread").is_not_null()
    ours = (pl.col("gone") > 0).fill_null(value=False) & unread
    steps: list[tuple[pl.Expr, str | pl.Expr, str | pl.Expr]] = [
        (lost(), "our failure", CERTAIN),
        ((pl.col("rejected") > 0) & ~ours, "quarantined", ~unread),
        (_over() <= pl.col("low"), "expired", CERTAIN),
        (pl.col("activation") >= pl.col("high"), "not listed", CERTAIN),
        (proven & available & ~traded & ~pl.col("lacks"), "no trade", CERTAIN),
        (ours, "our failure", LIKELY),
        (
            said & (~proven | (pl.col("condition") == "missing")),
            pl.col("condition"),
            ~unread & pl.when(pl.col("condition") == "missing").then("alone").otherwise(pl.col("elsewhere") > 0),
        ),
        (pl.col("ending"), "expired", LIKELY),
        (pl.col("beginning"), "not listed", LIKELY),
        (nothing & ~traded, "no trade", LIKELY),
    ]
    cause = pl.lit("unknown")
    certainty = pl.lit("")
    for when, what, how in reversed(steps):
        holds = when.fill_null(value=False)
        sure = pl.lit(how) if isinstance(how, str) else pl.when(how).then(pl.lit(CERTAIN)).otherwise(pl.lit(LIKELY))
        cause = pl.when(holds).then(pl.lit(what) if isinstance(what, str) else what).otherwise(cause)
        certainty = pl.when(holds).then(sure).otherwise(certainty)
    found = empty.with_columns(cause=cause, certainty=certainty, traded=traded)
    return _fillable(_thin(found))


def lost() -> pl.Expr:
    """True where the bytes that are kept hold more records than were rejected, and are in the store."""
    return pl.col("kept") > pl.col("rejected")


def _over() -> pl.Expr:
    """When an instrument is over: a definition that says midnight means the day."""
    midnight = pl.col("expiration") % DAY_NS == 0
    return pl.when(midnight).then(pl.col("expiration") + DAY_NS).otherwise("expiration")


def _thin(found: pl.DataFrame) -> pl.DataFrame:
    """What nothing explains is likely no trade where the instrument often lacks stretches for as long.

    Adds ``others``, how many other gaps of the instrument are at least as long.
    """
    natural = pl.col("cause").is_in(["unknown", "no trade"])
    ordered = runs(found.with_columns(natural=natural), "natural")
    lengths = ordered.filter("natural").group_by("instrument_id", "run").agg(length=pl.len())
    longer = lengths.with_columns(
        others=(pl.len() - pl.col("length").rank("min").cast(pl.Int64)).over("instrument_id").cast(pl.Int64)
    )
    found = ordered.join(longer.drop("length"), on=["instrument_id", "run"], how="left", maintain_order="left")
    often = (pl.col("others") >= _OTHERS) & (pl.col("lacking") * 100 >= pl.col("expected") * _SHARE)
    thin = (pl.col("cause") == "unknown") & ~pl.col("traded") & often.fill_null(value=False)
    return found.with_columns(
        cause=pl.when(thin).then(pl.lit("no trade")).otherwise("cause"),
        certainty=pl.when(thin).then(pl.lit(LIKELY)).otherwise("certainty"),
    ).drop("run", "natural")  # fmt: skip


def _fillable(found: pl.DataFrame) -> pl.DataFrame:
    changed = (
        pl.col("condition").ne_missing(pl.col("condition_now"))
        | (pl.col("modified_now") > pl.col("modified")).fill_null(value=False)
    )  # fmt: skip
    ours = pl.when(lost()).then(pl.lit(REFINE)).otherwise(pl.lit(AGAIN))
    said = pl.when(changed).then(pl.lit(AGAIN)).otherwise(pl.lit(CHANGED))
    fill = (
        pl.when(pl.col("cause") == "our failure").then(ours)
        .when(pl.col("cause").is_in(_CONDITIONS)).then(said)
        .otherwise(pl.lit(""))
    )  # fmt: skip
    return found.with_columns(fill=fill)


def told(found: pl.DataFrame, dataset: str, schema: str) -> pl.DataFrame:
    """The judged stretches as gaps (:data:`GAPS`): neighbours of one cause are one, with what was found in words."""
    ordered = runs(found, "symbol", "cause", "certainty", "fill", "condition", "traded")
    fresh = pl.col("day") != pl.col("day").shift(1).over("run")
    ordered = ordered.with_columns(fresh=fresh.fill_null(value=True))
    gaps = ordered.group_by("run", maintain_order=True).agg(
        pl.col(
            "instrument_id", "symbol", "cause", "certainty", "fill", "condition", "modified", "condition_now",
            "modified_now", "expiration", "activation", "unit", "unread", "u_symbol", "fetched", "others", "lacking",
            "expected", "traded", "proven", "ending", "beginning", "life_start", "life_end", "counted", "made",
            "u_start", "u_end",
        ).first(),
        pl.col("rejected", "kept", "elsewhere").sum(),
        pl.col("gone").max(),
        *(pl.col(c).filter(pl.col(c) != "").unique().sort().str.join("; ") for c in ("rules", "agree", "where")),
        pl.col("day_volume", "day_held").filter("fresh").sum(),
        pl.col("cleared", "cleared_held").filter("fresh").last(),
        start=pl.col("low").min(), end=pl.col("high").max(), stretches=pl.len().cast(pl.Int64),
        days=pl.col("day").n_unique(), first_day=pl.col("day").min(), last_day=pl.col("day").max(),
        sizes=pl.col("day_volume").is_not_null().any(),
    )  # fmt: skip
    return gaps.with_columns(
        dataset=pl.lit(dataset), schema=pl.lit(schema), stype=pl.lit("raw_symbol"),
        symbol=pl.coalesce("symbol", pl.col("instrument_id").cast(pl.String)), evidence=_evidence(),
    ).with_columns(
        stype=pl.when(pl.col("symbol").str.contains(r"^\d+$")).then(pl.lit("instrument_id")).otherwise("stype")
    ).select(pl.col(c).cast(t) for c, t in GAPS.items())  # fmt: skip


def _evidence() -> pl.Expr:
    """What speaks for the cause, as a list of sentences."""
    c = pl.col
    during = pl.when(c("days") == 1).then(_day("first_day")).otherwise(
        pl.format("each of the {} days {} to {}", "days", _day("first_day"), _day("last_day"))
    )  # fmt: skip
    rows = pl.when(c("elsewhere") == 1).then(pl.lit("row")).otherwise(pl.lit("rows"))
    facts = [
        pl.when(c("rejected") > 0).then(
            pl.format("{} rows of it are in quarantine ({}), and none is stored", "rejected", c("rules").fill_null("")),
        ),
        pl.when(c("cause") == "expired", c("certainty") == CERTAIN).then(
            pl.format("its definition says that it expired at {}", _at("expiration"))
        ),
        pl.when(c("cause") == "not listed", c("certainty") == CERTAIN).then(
            pl.format("its definition says that it is traded from {} on", _at("activation"))
        ),
        pl.when(c("cause") == "expired", c("ending")).then(
            pl.format("{} is its last day by the vendor's symbology, and no row follows", _day("last_day"))
        ),
        pl.when(c("cause") == "not listed", c("beginning")).then(
            pl.format("{} is its first day by the vendor's symbology, and no row comes before", _day("first_day"))
        ),
        pl.when(lost()).then(
            pl.format("the vendor's bytes, which are kept, hold {} records of it; the store holds none", "kept")
        ),
        pl.when(c("cause") == "our failure", c("unread").is_not_null()).then(
            pl.format("{} rows of unit {} that were stored are gone; its bytes cannot be looked at: {}",
                      "gone", "unit", "unread")
        ),
        pl.when(c("condition").is_in(_CONDITIONS)).then(pl.format(
            "the vendor called {} {} when it was ingested", during, "condition"
        )),
        pl.when(c("condition").is_in(_CONDITIONS), c("condition_now").ne_missing(c("condition"))).then(
            pl.format("it calls it {} since", "condition_now")
        ),
        pl.when(c("condition").is_in(_CONDITIONS), c("modified_now") > c("modified")).then(
            pl.format("it changed it on {}", _day("modified_now"))
        ),
        pl.when(c("cause").is_in(["no trade", "unknown"]), c("condition").is_null()).then(
            pl.lit("what the vendor said of the day is not known")
        ),
        pl.when(c("cause").is_in(["no trade", "unknown"]), c("condition") == "available").then(
            pl.format("the vendor calls {} available", during)
        ),
        pl.when(c("elsewhere") > 0).then(pl.format("{} has {} {} in it", "where", "elsewhere", rows)),
        pl.when(c("agree") != "").then(pl.format("held too, without a row in it: {}", "agree")),
        pl.when(c("cause").is_in(["no trade", "unknown", *_CONDITIONS]), c("sizes")).then(
            pl.format("ohlcv-1d counts {} contracts on these days, and the rows that are held add up to {}",
                      "day_volume", "day_held")
        ),
        pl.when(c("cause").is_in(["no trade", "unknown", *_CONDITIONS]), c("cleared").is_not_null()).then(
            pl.when(c("cleared_held").is_null()).then(pl.format("the cleared volume of its sessions is {}", "cleared"))
            .otherwise(pl.format("the cleared volume of its sessions is {}, and the rows that are held add up to {}",
                                 "cleared", "cleared_held"))
        ),
        pl.when(c("cause").is_in(["no trade", "unknown"]), c("fetched") == 0, c("counted")).then(
            pl.format("the vendor counted no record for {} in the whole of unit {}", "u_symbol", "unit")
        ),
        pl.when(c("cause").is_in(["no trade", "unknown"]), c("fetched") == 0, ~c("counted"), ~c("made")).then(
            pl.format("it was asked for alone, from {} to {}, and no record came", _at("u_start"), _at("u_end"))
        ),
        pl.when(c("cause").is_in(["no trade", "unknown"]), c("made")).then(
            pl.lit("the bars of its unit were made here, of rows that are stored")
        ),
        pl.when(c("cause").is_in(["no trade", "unknown"])).then(
            pl.format("of its {} stretches {} have no row; other gaps of it as long: {}",
                      "expected", "lacking", c("others").fill_null(0))
        ),
    ]  # fmt: skip
    return pl.concat_list(fact.cast(pl.String) for fact in facts).list.drop_nulls()


def _day(column: str) -> pl.Expr:
    return (pl.col(column) // DAY_NS).cast(pl.Int32).cast(pl.Date).cast(pl.String)


def _at(column: str) -> pl.Expr:
    return pl.col(column).cast(pl.Datetime("ns", "UTC")).dt.strftime("%Y-%m-%dT%H:%M:%SZ")


def thinned(found: pl.DataFrame, dataset: str, schema: str, every: int) -> pl.DataFrame:
    """Stretches that lack rows and have some (instrument_id, symbol, unit, at, there, kept, rejected), as gaps."""
    placed = found.with_columns(ord=pl.col("at") // every)
    gaps = runs(placed, "symbol", "unit").group_by("run", maintain_order=True).agg(
        pl.col("instrument_id", "symbol", "unit").first(), pl.col("there", "kept", "rejected").sum(),
        start=pl.col("at").min(), end=pl.col("at").max() + every, stretches=pl.len().cast(pl.Int64),
    )  # fmt: skip
    words = pl.format(
        "the vendor's bytes, which are kept, hold {} records of it; the store holds {}, and {} are in quarantine",
        "kept", "there", "rejected",
    )  # fmt: skip
    return gaps.with_columns(
        dataset=pl.lit(dataset), schema=pl.lit(schema), cause=pl.lit("our failure"), certainty=pl.lit(CERTAIN),
        fill=pl.lit(REFINE), evidence=pl.concat_list(words),
        stype=pl.when(pl.col("symbol").is_null()).then(pl.lit("instrument_id")).otherwise(pl.lit("raw_symbol")),
        symbol=pl.coalesce("symbol", pl.col("instrument_id").cast(pl.String)),
    ).select(pl.col(c).cast(t) for c, t in GAPS.items())  # fmt: skip


__all__ = [
    "AGAIN", "BUY", "CAUSES", "CERTAIN", "CHANGED", "CLOSED", "GAPS", "LIKELY", "REFINE", "judged", "lost", "thinned",
    "told",
]  # fmt: skip

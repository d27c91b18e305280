"""What checks find, and how it becomes the ledger of discrepancies: nothing twice, and what is gone is resolved.

A discrepancy is the same as long as it is in the same place and says the same; one that says something else is a new
one, and the old one is resolved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import polars as pl

from hdi.frames import DISCREPANCIES
from hdi.model import DAY_NS
from hdi.reconciling.checks import CHECKS

OPEN, RESOLVED = "open", "resolved"
PLACE = ("check", "schema", "against", "publisher_id", "instrument_id", "start", "end", "field")
#: A finding: where, and what. ``rows`` is 1, or as many as are told together.
FINDING: dict[str, pl.DataType] = {
    c: DISCREPANCIES[c] for c in (*PLACE, "expected", "found", "evidence", "rows")
}  # fmt: skip
_SAME = ("dataset", *PLACE, "expected", "found")
#: More findings than this of one check, instrument and UTC day are told as one.
MANY = 1_000
#: So many findings may be held before they are looked through for such days.
_HELD = 50_000
#: Says, of open discrepancies, which of them were judged again.
Scope = Callable[[pl.DataFrame], pl.Series]


def price_text(mantissa: str) -> pl.Expr:
    """A whole number of 1e-9 as an exact decimal without trailing zeros."""
    whole = pl.col(mantissa).cast(pl.Int128)
    size = whole.abs()
    sign = pl.when(whole < 0).then(pl.lit("-")).otherwise(pl.lit(""))
    places = (size % 10**9).cast(pl.String).str.zfill(9).str.strip_chars_end("0")
    dot = pl.when(places == "").then(pl.lit("")).otherwise(pl.lit("."))
    return pl.concat_str(sign, (size // 10**9).cast(pl.String), dot, places)


def finding(rows: pl.DataFrame, check: str, schema: str, against: str = "", **given: pl.Expr | str) -> pl.DataFrame:
    """Rows as findings: they have publisher_id, instrument_id, start, end, and what ``given`` does not give."""
    told = {"check": check, "schema": schema, "against": against, "evidence": "", **given}
    texts = {name: pl.lit(value) if isinstance(value, str) else value for name, value in told.items()}
    if "rows" not in rows.columns and "rows" not in texts:
        texts["rows"] = pl.lit(1)
    return rows.with_columns(**texts).select(pl.col(c).cast(t) for c, t in FINDING.items())


class Collector:
    """Findings as they come, of one dataset; memory is bounded by what is told as one."""

    def __init__(self) -> None:
        self._frames: list[pl.DataFrame] = []
        self._held = 0

    def add(self, found: pl.DataFrame | None) -> None:
        """Keep findings."""
        if found is not None and found.height:
            self._frames.append(found)
            self._held += found.height
            if self._held > _HELD:
                self._frames = [self.found()]
                self._held = self._frames[0].height // 2

    def found(self) -> pl.DataFrame:
        """All of them, none twice."""
        return together(pl.concat([pl.DataFrame(schema=FINDING), *self._frames]))


def together(found: pl.DataFrame) -> pl.DataFrame:
    """The findings, of which those of one place are one, and too many of one day are one."""
    by = ("check", "schema", "against", "publisher_id", "instrument_id")
    day = pl.col("start") // DAY_NS * DAY_NS
    whole = (pl.col("field") == "rows") & (pl.col("rows") > MANY) & (pl.col("end") - pl.col("start") == DAY_NS)
    many = (pl.col("rows").sum().over(*by, day) > MANY) & ((pl.col("end") - pl.col("start") < DAY_NS) | whole)
    few = found.filter(~many).group_by(*PLACE, "expected", "found", maintain_order=True).agg(
        pl.col("evidence").first(), pl.col("rows").sum()
    ).select(*FINDING)  # fmt: skip
    first = pl.concat_str(
        pl.lit("for example "), "field", pl.lit(" "), "found", pl.lit(" instead of "), "expected"
    ).first()  # fmt: skip
    first = pl.when(pl.col("field").first() == "rows").then(pl.col("evidence").first()).otherwise(first)
    more = found.filter(many).group_by(*by, day.alias("start"), maintain_order=True).agg(
        evidence=first, rows=pl.col("rows").sum(),
    ).with_columns(
        field=pl.lit("rows"), end=pl.col("start") + DAY_NS, expected=pl.lit("none of them"),
        found=pl.format("{} that differ", "rows"),
    ).select(pl.col(c).cast(t) for c, t in FINDING.items())  # fmt: skip
    return pl.concat([few, more])


def settled(
    known: pl.DataFrame, found: pl.DataFrame, dataset: str, scopes: Iterable[tuple[tuple[str, str, str], Scope]],
    run: str, at: int,
) -> pl.DataFrame:  # fmt: skip
    """The ledger after a run: ``found`` (with ``symbol``) is in it once, and what was judged and not found is resolved.

    ``scopes`` say, by (check, schema, against), which open discrepancies were judged.
    """
    new = found.with_columns(dataset=pl.lit(dataset))
    standing = known.filter(pl.col("state") == OPEN, pl.col("dataset") == dataset)
    again = standing.join(new, on=_SAME, how="semi", nulls_equal=True)["number"]
    judged = [pl.Series("number", [], dtype=pl.Int64)]
    for (check, schema, against), scope in scopes:
        mine = standing.filter(
            pl.col("check") == check, pl.col("schema") == schema, pl.col("against") == against,
            ~pl.col("number").is_in(again.implode()),
        )  # fmt: skip
        if mine.height:
            judged.append(mine.filter(scope(mine))["number"])
    left = standing.filter(~pl.col("number").is_in(pl.concat([again, *judged]).implode()))
    part = _parts(new, left)
    again = pl.concat([again, part["number"]])
    seen, gone = pl.col("number").is_in(again.implode()), pl.col("number").is_in(pl.concat(judged).implode())
    kept = known.with_columns(
        last_run=pl.when(seen).then(pl.lit(run)).otherwise("last_run"),
        last_seen=pl.when(seen).then(pl.lit(at)).otherwise("last_seen"),
        state=pl.when(gone).then(pl.lit(RESOLVED)).otherwise("state"),
        resolved_run=pl.when(gone).then(pl.lit(run)).otherwise("resolved_run"),
        resolved_at=pl.when(gone).then(pl.lit(at)).otherwise("resolved_at"),
    )
    fresh = (
        new.join(standing, on=_SAME, how="anti", nulls_equal=True)
        .join(part, on=_SAME, how="anti", nulls_equal=True)
        .sort("start", "instrument_id", *PLACE[:3])
    )
    following = int(known["number"].max() or 0) + 1  # type: ignore[arg-type]  # Polars' maxima
    fresh = fresh.with_columns(
        number=pl.int_range(following, following + fresh.height, dtype=pl.Int64),
        severity=pl.col("check").replace_strict({n: c.severity for n, c in CHECKS.items()}, return_dtype=pl.String),
        state=pl.lit(OPEN), run=pl.lit(run), last_run=pl.lit(run), first_seen=pl.lit(at), last_seen=pl.lit(at),
        resolved_run=pl.lit(None, pl.String), resolved_at=pl.lit(None, pl.Int64),
    )  # fmt: skip
    parts = [kept, fresh]
    return pl.concat(part.select(pl.col(c).cast(t) for c, t in DISCREPANCIES.items()) for part in parts)


def _parts(new: pl.DataFrame, standing: pl.DataFrame) -> pl.DataFrame:
    """Findings that are what a window has of longer ones, which it cannot judge; each with the number of its own."""
    own = [c for c in _SAME if c not in ("start", "end", "expected", "found")]
    longer = standing.select(*own, "number", "evidence", since="start", until="end")
    both = new.join(longer, on=[*own, "evidence"], nulls_equal=True)
    return both.filter(
        pl.col("since") <= pl.col("start"), pl.col("until") >= pl.col("end"),
        pl.col("until") - pl.col("since") > pl.col("end") - pl.col("start"),
    ).select(*_SAME, "number")  # fmt: skip


def bars_text(columns: Sequence[tuple[str, str]], volume: str) -> pl.Expr:
    """A bar in words, of columns by what they are."""
    parts: list[pl.Expr] = []
    for name, column in columns:
        parts += [pl.lit(f"{name} "), price_text(column), pl.lit(" ")]
    return pl.concat_str(*parts, pl.lit("volume "), pl.col(volume).cast(pl.String))


__all__ = [
    "FINDING", "MANY", "OPEN", "RESOLVED", "Collector", "Scope", "bars_text", "finding", "price_text", "settled",
    "together",
]  # fmt: skip

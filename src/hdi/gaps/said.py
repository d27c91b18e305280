"""What the vendor said of days: when a unit was bought, and the latest that was heard."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from hdi.buying.aging import told
from hdi.buying.paid import purchased, slips
from hdi.frames import CONDITIONS
from hdi.model import DAY_NS, date_ns

#: What was said of a day when a unit was bought.
_SAID = {"unit": pl.Int32(), "day": pl.Int64(), "said": pl.String(), "said_modified": pl.Int64()}


def conditions(
    empty: pl.DataFrame, heard: pl.DataFrame, ledger: pl.DataFrame, dataset: str, data_dir: Path | None = None
) -> pl.DataFrame:
    """The stretches with what the vendor said of their day: ``condition`` and ``modified`` when it was bought.

    A unit's slip under ``data_dir`` says it, or else its receipt, or what was heard last before its commit.
    ``condition_now`` and ``modified_now`` are the latest that was heard. Null where nothing was.
    """
    receipts = told(ledger).select("unit", "day", said="was", said_modified="was_modified")
    noted = receipts.join(ledger.select("unit", "committed_at").unique("unit", keep="last"), on="unit").select(
        pl.lit(dataset).alias("dataset"), "day", condition="said", last_modified="said_modified",
        seen_at=pl.col("committed_at") - 1,
    )  # fmt: skip
    mine = heard.filter(pl.col("dataset") == dataset)
    # What receipts say is only what was not available, so it counts where nothing else is known of the day.
    of_receipts = noted.join(mine, on="day", how="anti").select(pl.col(c).cast(t) for c, t in CONDITIONS.items())
    both = pl.concat([mine.select(*CONDITIONS), of_receipts]).sort("seen_at")
    latest = both.group_by("day", maintain_order=True).agg(
        condition_now=pl.col("condition").last(), modified_now=pl.col("last_modified").last()
    )
    known = both.select("day", condition="condition", seen="seen_at", modified="last_modified")
    asked = empty.with_columns(day=pl.col("at") // DAY_NS * DAY_NS).sort("committed_at")
    joined = asked.join_asof(
        known.sort("seen"), left_on="committed_at", right_on="seen", by="day", strategy="backward",
        check_sortedness=False,
    )  # fmt: skip
    changed = both.unique(["day", "condition", "last_modified"]).filter(pl.len().over("day") > 1)["day"].unique()
    asked_of = empty["unit"].drop_nulls().unique()
    own = [pl.DataFrame(schema=_SAID)]
    if data_dir is not None and len(changed):
        own.append(_of_slips(data_dir, ledger.filter(pl.col("unit").is_in(asked_of.implode())), changed))
    own.append(receipts.filter(pl.col("unit").is_in(asked_of.implode())))
    first = pl.concat(own).unique(["unit", "day"], keep="first", maintain_order=True)
    joined = joined.join(first, on=["unit", "day"], how="left").with_columns(
        condition=pl.coalesce("said", "condition"),
        modified=pl.when(pl.col("said").is_not_null()).then("said_modified").otherwise("modified"),
    )
    return joined.join(latest, on="day", how="left").drop("seen", "said", "said_modified")


def _of_slips(data_dir: Path, units: pl.DataFrame, days: pl.Series) -> pl.DataFrame:
    """What the slips of units say of some days (:data:`_SAID`)."""
    rows = []
    for (origin, dataset, schema), part in units.drop_nulls("raw_digest").group_by("origin", "dataset", "schema"):
        known = slips(data_dir, str(origin), str(dataset), str(schema), set(part["raw_digest"]))
        books = purchased(part, known).drop_nulls("at").unique("unit", keep="last", maintain_order=True)
        wanted = set(days)
        for unit, at in books.select("unit", "at").iter_rows():
            rows += [
                (unit, date_ns(c.day), c.condition, date_ns(c.last_modified) if c.last_modified else None)
                for c in known[at].conditions
                if date_ns(c.day) in wanted
            ]
    return pl.DataFrame(rows, schema=_SAID, orient="row")


__all__ = ["conditions"]

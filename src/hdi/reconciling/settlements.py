"""Settlement prices of a trading date: with each other, with the session's range, and with daily bars.

A venue publishes a settlement several times: preliminary and final, rounded to the tick and not. So prices are compared
only between messages of the same flags, and after the last deletion. A settlement need not have been traded: of bars it
contradicts only those from which it lies far, of all that was traded on the UTC days which its session touches.
"""

from __future__ import annotations

import polars as pl

from hdi.model import DAY_NS
from hdi.reconciling.bars import Count
from hdi.reconciling.findings import Collector, finding, price_text
from hdi.reconciling.rows import WHO

SETTLEMENT, LOW, HIGH = 3, 4, 5
_FINAL = 1
_DELETED = 2
#: What is read of statistics, and of daily bars.
COLUMNS = ("stat_type", "price", "ts_ref", "update_action", "stat_flags")
_KEY = (*WHO, "ts_ref")
_UNDATED = "the statistic names no trading date"


class Settlements:
    """Looks at the settlements of some trading dates; ``ranges`` and ``volume`` are settings of the same names."""

    def __init__(self, collector: Collector, checks: frozenset[str], ranges: int, volume: int) -> None:
        self._collector = collector
        self._checks = checks
        self._ranges = ranges
        self._volume = volume
        self.counts = {name: Count() for name in sorted(checks)}

    def look(self, rows: pl.DataFrame, bars: pl.DataFrame | None) -> None:
        """Look at statistics in their order; ``bars`` (at, high, low, volume) are daily, None where there are none."""
        undated = rows.filter(pl.col("ts_ref").is_null(), pl.col("stat_type") == SETTLEMENT).height
        standing = _standing(rows.drop_nulls("ts_ref"))
        settled = standing.filter(pl.col("stat_type") == SETTLEMENT)
        finals = settled.filter((pl.col("stat_flags") & _FINAL) != 0)
        for count in self.counts.values():
            count.unjudged[_UNDATED] += undated
        if "settlement_final" in self._checks:
            self._several(finals)
        if "settlement_preliminary" in self._checks:
            self._moved(settled, finals, standing)
        if "settlement_bar" in self._checks and bars is not None:
            self._far(finals, bars)

    def _several(self, finals: pl.DataFrame) -> None:
        each = finals.group_by(*_KEY, "stat_flags").agg(
            first=pl.col("price").first(), last=pl.col("price").last(), n=pl.col("price").n_unique()
        )
        self.counts["settlement_final"].judged += each.height
        bad = each.filter(pl.col("n") > 1)
        self._keep(bad, "settlement_final", expected=price_text("first"), found=price_text("last"),
                   evidence=pl.format("{} prices with the flags {}", "n", "stat_flags"))  # fmt: skip

    def _moved(self, settled: pl.DataFrame, finals: pl.DataFrame, standing: pl.DataFrame) -> None:
        early = settled.filter((pl.col("stat_flags") & _FINAL) == 0).group_by(_KEY).agg(early=pl.col("price").last())
        final = finals.group_by(_KEY).agg(nearest=pl.col("price")).join(early, on=_KEY)
        extremes = [
            standing.filter(pl.col("stat_type") == kind).group_by(_KEY).agg(pl.col("price").last().alias(name))
            for kind, name in ((LOW, "low"), (HIGH, "high"))
        ]
        both = final.join(extremes[0], on=_KEY, how="left").join(extremes[1], on=_KEY, how="left")
        count, known = self.counts["settlement_preliminary"], both.drop_nulls(["low", "high"])
        count.judged += known.height
        count.unjudged["the session's high and low are not stored"] += both.height - known.height
        far = known.explode("nearest", empty_as_null=True, keep_nulls=True).with_columns(
            off=(pl.col("nearest") - pl.col("early")).abs()
        )
        # Of several finals (rounded, not rounded) the nearest one counts.
        far = far.sort("off").group_by(_KEY).first()
        bad = far.filter(
            pl.col("high") > pl.col("low"), pl.col("off") > self._ranges * (pl.col("high") - pl.col("low"))
        )
        self._keep(
            bad, "settlement_preliminary", expected=pl.concat_str(pl.lit("near "), price_text("early")),
            found=price_text("nearest"),
            evidence=pl.concat_str(
                pl.lit("the session traded from "), price_text("low"), pl.lit(" to "), price_text("high")
            ),
        )  # fmt: skip

    def _far(self, finals: pl.DataFrame, bars: pl.DataFrame) -> None:
        last = finals.group_by(_KEY).agg(price=pl.col("price").last())
        own = bars.select(*WHO, "high", "low", "volume", ts_ref=pl.col("at"))
        eve = bars.select(*WHO, eve_high="high", eve_low="low", ts_ref=pl.col("at") + DAY_NS)
        day = pl.col("ts_ref") // DAY_NS * DAY_NS
        both = (
            last.with_columns(date="ts_ref", ts_ref=day).join(own, on=_KEY, how="left").join(eve, on=_KEY, how="left")
        )
        known = both.filter(pl.col("volume") >= self._volume).with_columns(
            high=pl.max_horizontal("high", "eve_high"), low=pl.min_horizontal("low", "eve_low")
        )
        count = self.counts["settlement_bar"]
        count.judged += known.height
        count.unjudged["no daily bar of enough volume is stored"] += both.height - known.height
        room = (pl.col("high") - pl.col("low")) * self._ranges
        bad = known.filter(pl.col("high") > pl.col("low")).filter(
            (pl.col("price") > pl.col("high") + room) | (pl.col("price") < pl.col("low") - room)
        ).with_columns(ts_ref="date")  # fmt: skip
        self._keep(
            bad, "settlement_bar", against="ohlcv-1d", found=price_text("price"),
            expected=pl.concat_str(pl.lit("near "), price_text("low"), pl.lit(" to "), price_text("high")),
            evidence=pl.format("{} were traded on that UTC day", "volume"),
        )  # fmt: skip

    def _keep(self, bad: pl.DataFrame, check: str, against: str = "statistics", **told: pl.Expr) -> None:
        if bad.height:
            placed = bad.with_columns(start="ts_ref", end=pl.col("ts_ref") + DAY_NS)
            self._collector.add(finding(placed, check, "statistics", against, field="settlement_price", **told))


def _standing(rows: pl.DataFrame) -> pl.DataFrame:
    """The statistics that no later message deletes, with a price."""
    key = (*_KEY, "stat_type")
    deleted = (pl.col("update_action") == _DELETED).cum_sum(reverse=True).over(key)
    return rows.filter(deleted == 0).drop_nulls("price")


__all__ = ["COLUMNS", "HIGH", "LOW", "SETTLEMENT", "Settlements"]

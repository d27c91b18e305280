"""What was bought and is not in the store, as far as nothing newer is there: it is refined instead of bought again.

Pure: it works on slips and on the frames ``coverage`` and ``ledger`` of a store.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl

from hdi.buying.paid import Slip, of, purchased
from hdi.frames import RESOLVED
from hdi.model import Window


@dataclass(frozen=True)
class Rest:
    """A slip, and those of its (symbol, cell) that are to be refined. ``scope`` is what its symbols stand for."""

    slip: Slip
    parts: frozenset[tuple[str, Window]]
    scope: pl.DataFrame

    @property
    def units(self) -> int:
        """How many units that is."""
        return len(self.parts)

    @property
    def short(self) -> bool:
        """True where its bytes are not as many records as the vendor counted."""
        return self.slip.arrived != self.slip.records


def rests(slips: Iterable[tuple[Slip, pl.DataFrame]], coverage: pl.DataFrame, ledger: pl.DataFrame) -> list[Rest]:
    """What is left of slips (each with its scope, :data:`hdi.frames.RESOLVED`), the oldest first.

    A part is left where all that the store holds of its symbol and instruments is older. Refined in this order, what
    was bought later replaces what was bought before. A slip whose records are not as many as the vendor counted
    stands back where another has the same part.
    """
    known = sorted(slips, key=lambda each: each[0].bought_at)
    aged = _aged(coverage, ledger, [slip for slip, _ in known])
    found = [Rest(slip, _parts(slip, scope, aged), scope) for slip, scope in known]
    good = {(r.slip.order.stype, *part) for r in found if r.slip.arrived == r.slip.records for part in r.parts}
    kept = [
        r if r.slip.arrived == r.slip.records
        else Rest(r.slip, frozenset(p for p in r.parts if (r.slip.order.stype, *p) not in good), r.scope)
        for r in found
    ]  # fmt: skip
    return [r for r in kept if r.parts]


def done(slip: Slip, ledger: pl.DataFrame) -> bool:
    """True when every unit of the slip was committed from its bytes, by a purchase that is this one."""
    if slip.raw is None:
        return False
    mine = ledger.filter(of(slip), pl.col("status") == "complete", pl.col("symbol") != "")
    return mine["unit_id"].n_unique() >= len(slip.asked) * len(slip.cells)


def _aged(coverage: pl.DataFrame, ledger: pl.DataFrame, known: Sequence[Slip]) -> pl.DataFrame:
    """The coverage with the age of what is there: when its bytes were bought, or else when they were committed."""
    ages = purchased(ledger, known).select("unit", age=pl.coalesce("bought_at", "committed_at"))
    return coverage.join(ages, on="unit", how="left")


def _parts(slip: Slip, scope: pl.DataFrame, aged: pl.DataFrame) -> frozenset[tuple[str, Window]]:
    """The (symbol, cell) for which nothing as new as the slip is there."""
    cells = pl.DataFrame(
        [(i, c.start, c.end) for i, c in enumerate(slip.cells)],
        schema={"cell": pl.Int64, "from": pl.Int64, "to": pl.Int64}, orient="row",
    )  # fmt: skip
    within = (pl.col("start") < pl.col("to")) & (pl.col("end") > pl.col("from"))
    own = scope.select(*RESOLVED).join(cells, how="cross").filter(within)
    overlap = (
        (pl.min_horizontal("end", "end_held", "to") > pl.max_horizontal("start", "start_held", "from"))
        & (pl.col("age") >= slip.bought_at)
    )  # fmt: skip
    held = aged.select("instrument_id", start_held="start", end_held="end", age="age").drop_nulls("instrument_id")
    newer = own.join(held, on="instrument_id").filter(overlap).select("asked", "cell")
    whole = aged.filter(
        pl.col("instrument_id").is_null(), pl.col("stype") == slip.order.stype, pl.col("symbol").is_in(slip.asked),
        pl.col("age") >= slip.bought_at,
    )  # fmt: skip
    claimed = whole.join(cells, how="cross").filter(within).select("cell", asked="symbol").select("asked", "cell")
    taken = set(pl.concat([newer, claimed]).unique().iter_rows())
    return frozenset(
        (symbol, cell) for symbol in slip.asked for i, cell in enumerate(slip.cells) if (symbol, i) not in taken
    )


__all__ = ["Rest", "done", "rests"]

"""What is reconciled: each check by name, with what it compares and how grave it is when they differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from hdi.errors import RequestError
from hdi.schema import closest

ERROR: Final = "ERROR"
WARNING: Final = "WARNING"


@dataclass(frozen=True)
class Check:
    """One comparison. ``says`` is what a discrepancy of it means; ERROR is a contradiction, WARNING a doubt."""

    name: str
    compares: str
    severity: Literal["ERROR", "WARNING"]
    says: str


CHECKS = {
    check.name: check
    for check in (
        Check("bars", "bars with finer bars", ERROR, "The bar is not what the finer bars of its interval add up to."),
        Check("trade_bars", "bars with trades", ERROR, "The bar is not what the trades of its interval add up to."),
        Check("settlement_bar", "final settlements with daily bars", WARNING,
              "The settlement price lies far outside of what was traded in the days of its session."),
        Check("settlement_final", "final settlements with each other", WARNING,
              "The venue published several final settlement prices of one trading date, and deleted none."),
        Check("settlement_preliminary", "final settlements with preliminary ones", WARNING,
              "The final settlement price is farther from the preliminary one than the session's prices from each "
              "other."),
        Check("tick_size", "prices with the tick size of the definition in force", ERROR,
              "The price is no multiple of the instrument's minimum price increment on that day."),
        Check("duplicate_bars", "bars with each other", ERROR, "There are several bars of one interval."),
        Check("duplicate_ticks", "ticks with each other", WARNING,
              "So many rows of the hour are copies of others that the stretch looks repeated."),
        Check("out_of_order", "sequence numbers with times", WARNING,
              "The row was numbered and timed by its venue before the one that precedes it."),
        Check("stale_bars", "bars with those before them", WARNING,
              "The same bar, with a range and a volume, comes many times in a row."),
        Check("stale_quotes", "quotes with those before them", WARNING,
              "The quote did not change through a whole UTC day of trades."),
        Check("price_spike", "bars with their neighbours", WARNING,
              "The price leaves the range of both neighbours by far more than the instrument's usual moves."),
    )
}  # fmt: skip


def chosen(names: Sequence[str]) -> dict[str, Check]:
    """The checks of these names, all without any. RequestError, with the closest names, for an unknown one."""
    wanted = [name.strip().lower().replace("-", "_") for text in names for name in text.split(",") if name.strip()]
    for name in wanted:
        if name not in CHECKS:
            raise RequestError(f"unknown check {name!r}", closest(name, CHECKS))
    return {name: check for name, check in CHECKS.items() if not wanted or name in wanted}


__all__ = ["CHECKS", "ERROR", "WARNING", "Check", "chosen"]

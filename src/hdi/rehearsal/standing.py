"""What stands behind the best prices of a book, by hour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hdi.rehearsal import orders
from hdi.rehearsal.daily import Facts
from hdi.rehearsal.draws import I64, U64
from hdi.rehearsal.orders import Hours
from hdi.rehearsal.quotes import DEPTH, behind


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """By hour: orders beyond ``low`` and ``high`` (ticks), their sizes by side and number, and the hour of the day."""

    low: I64
    high: I64
    sizes: I64
    hour: I64


def stands(hours: Hours, facts: Facts, level: I64, keys: U64) -> tuple[Standing, Standing]:
    """What stands behind the best prices in each hour, and what stood there when it began.

    ``facts`` are those of the hours; ``level`` and ``keys`` by row: where the day before ended, and of its draws.
    """
    cells = hours.cells
    now = Standing(facts.low, facts.high, sizes_of(cells.key), orders.hour_of_day(cells))
    opens, before, row = hours.opens, hours.before, cells.row
    low, high = (np.where(opens, level[row], each[before]) for each in (facts.low, facts.high))
    key = np.where(opens, keys[row], cells.key[before])
    return now, Standing(low, high, sizes_of(key), np.where(opens, -1, now.hour[before]))


def sizes_of(key: U64) -> I64:
    """The sizes of the orders behind the best, by side and number, for each of some keys."""
    number = np.arange(DEPTH)
    return np.stack([behind(key[:, None], side, number) for side in range(2)], axis=1)

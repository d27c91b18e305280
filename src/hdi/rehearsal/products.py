"""What is traded in the synthetic market: contract terms as the exchanges have them, activity and price levels alike.

The prices of the past are only near the real ones: a walk that touches a yearly table.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Literal

NS = 1_000_000_000
Expiry = Literal["third friday", "before the 25th", "third last", "last of month", "third last of delivery", "never"]
#: Delivery months by their letters, January first.
MONTHS = "FGHJKMNQUVXZ"
#: The year of the first entry of ``Product.yearly``, which is the price at its start.
FIRST_YEAR = 2010


@dataclass(frozen=True, slots=True)
class Product:
    """One product. Prices are in quoted units; ``tick`` in 1e-9 of them.

    ``months`` are the delivery months by letter, ``listed`` how many contracts there are at a time, ``expiry`` the
    rule for the last day and ``expires_after`` the minutes from the session's open to the last trade on it.
    ``roll`` is how many days before it the activity moves on, ``trades`` how many there are on a full day in the
    front contract, ``lot`` the mean size of one, ``interest`` the open interest of the front contract.
    ``volatility`` is relative and daily, ``carry`` the relative slope of the curve in a year, ``season`` what delivery
    months cost beside it, January first. ``turns`` are price levels on days beside those of the yearly table.
    """

    root: str
    dataset: str
    exchange: str
    tick: int
    months: str
    listed: int
    expiry: Expiry
    expires_after: int
    roll: int
    trades: int
    lot: float
    interest: int
    volatility: float
    carry: float
    unit: str
    unit_quantity: float
    channel: int
    yearly: tuple[float, ...]
    season: tuple[float, ...] = (1.0,) * 12
    turns: tuple[tuple[dt.date, float], ...] = ()

    @property
    def spacing(self) -> float:
        """Days from one delivery to the next, on average."""
        return 365.25 / max(1, len(self.months))


GLOBEX, NASDAQ, CONSOLIDATED = "GLBX.MDP3", "XNAS.ITCH", "DBEQ.BASIC"
#: Publisher, name of the trading calendar and first day of each dataset.
DATASETS = {
    GLOBEX: (1, "CMES", dt.date(2010, 6, 6)),
    NASDAQ: (2, "XNYS", dt.date(2018, 5, 1)),
    CONSOLIDATED: (59, "XNYS", dt.date(2023, 3, 28)),
}
#: The publishers of the venues that the consolidated dataset is made of; its own is that of all together.
VENUES = (39, 40, 41, 42)
_EIGHT_THIRTY, _HALF_PAST_TWELVE, _HALF_PAST_ONE = 15 * 60 + 30, 19 * 60 + 30, 20 * 60 + 30

PRODUCTS = (
    Product(
        "CL", GLOBEX, "XNYM", 10_000_000, MONTHS, 12, "before the 25th", _HALF_PAST_ONE, 4, 12_000, 2.2, 320_000,
        0.016, -0.03, "BBL", 1_000, 382,
        (79.4, 91.4, 98.8, 91.8, 98.4, 53.3, 37.0, 53.7, 60.4, 45.4, 61.1, 48.5, 75.2, 80.3, 71.7, 71.7, 57.4, 61.0),
        turns=((dt.date(2020, 2, 20), 53.9), (dt.date(2020, 4, 17), 21.0), (dt.date(2020, 4, 22), 14.0),
               (dt.date(2020, 7, 1), 39.5), (dt.date(2022, 3, 8), 119.0), (dt.date(2022, 7, 1), 106.0)),
    ),
    Product(
        "ES", GLOBEX, "XCME", 250_000_000, "HMUZ", 5, "third friday", _EIGHT_THIRTY, 8, 20_000, 3.4, 2_100_000,
        0.009, 0.03, "IPNT", 50, 310,
        (1_115, 1_255, 1_255, 1_420, 1_840, 2_050, 2_035, 2_240, 2_675, 2_500, 3_230, 3_750, 4_765, 3_860, 4_810,
         5_930, 6_880, 7_150),
        turns=((dt.date(2020, 2, 19), 3_385.0), (dt.date(2020, 3, 23), 2_230.0)),
    ),
    Product(
        "NG", GLOBEX, "XNYM", 1_000_000, MONTHS, 12, "third last", _HALF_PAST_ONE, 4, 8_000, 1.9, 260_000,
        0.028, 0.02, "MMBTU", 10_000, 382,
        (5.57, 4.41, 2.99, 3.35, 4.23, 2.89, 2.34, 3.72, 2.95, 2.94, 2.19, 2.54, 3.73, 4.48, 2.51, 3.63, 3.69, 3.85),
        season=(1.12, 1.09, 1.02, 0.95, 0.94, 0.95, 0.97, 0.97, 0.96, 0.98, 1.02, 1.08),
        turns=((dt.date(2022, 8, 22), 9.4),),
    ),
    Product(
        "HO", GLOBEX, "XNYM", 100_000, MONTHS, 9, "last of month", _HALF_PAST_ONE, 5, 4_000, 1.7, 95_000,
        0.015, -0.03, "GAL", 42_000, 382,
        (2.12, 2.54, 2.93, 3.04, 3.07, 1.85, 1.12, 1.73, 2.06, 1.68, 2.03, 1.48, 2.33, 3.30, 2.53, 2.31, 2.12, 2.25),
        season=(1.02, 1.02, 1.01, 0.99, 0.99, 0.98, 0.98, 0.99, 1.0, 1.0, 1.01, 1.01),
    ),
    Product(
        "RB", GLOBEX, "XNYM", 100_000, MONTHS, 9, "last of month", _HALF_PAST_ONE, 5, 4_000, 1.7, 105_000,
        0.017, -0.03, "GAL", 42_000, 382,
        (2.05, 2.43, 2.66, 2.81, 2.79, 1.44, 1.27, 1.67, 1.80, 1.31, 1.70, 1.41, 2.23, 2.48, 2.11, 2.01, 1.72, 1.85),
        season=(0.97, 0.97, 1.0, 1.06, 1.06, 1.05, 1.04, 1.03, 0.99, 0.95, 0.94, 0.94),
        turns=((dt.date(2020, 2, 20), 1.66), (dt.date(2020, 3, 23), 0.65)),
    ),
    Product(
        "NQ", GLOBEX, "XCME", 250_000_000, "HMUZ", 5, "third friday", _EIGHT_THIRTY, 8, 14_000, 1.8, 260_000,
        0.011, 0.03, "IPNT", 20, 318,
        (1_860, 2_215, 2_275, 2_660, 3_585, 4_230, 4_585, 4_865, 6_400, 6_330, 8_740, 12_880, 16_320, 10_990, 16_950,
         21_200, 25_300, 26_500),
    ),
    Product(
        "GC", GLOBEX, "XCEC", 100_000_000, "GJMQVZ", 7, "third last of delivery", _HALF_PAST_TWELVE, 27, 9_000, 1.8,
        380_000, 0.009, 0.03, "TRYOZ", 100, 360,
        (1_097, 1_421, 1_567, 1_676, 1_202, 1_184, 1_060, 1_152, 1_309, 1_281, 1_520, 1_895, 1_829, 1_826, 2_072,
         2_641, 4_330, 4_400),
    ),
    Product(
        "SPY", NASDAQ, "XNAS", 10_000_000, "", 1, "never", 0, 0, 10_000, 85.0, 0, 0.009, 0.0, "SHARES", 1, 0,
        (111.5, 125.8, 125.5, 142.4, 184.7, 205.5, 203.9, 223.5, 266.9, 249.9, 321.9, 373.9, 475.0, 382.4, 475.3,
         586.0, 682.0, 708.0),
    ),
    Product(
        "SPY", CONSOLIDATED, "DBEQ", 10_000_000, "", 1, "never", 0, 0, 6_000, 60.0, 0, 0.009, 0.0, "SHARES", 1, 0,
        (111.5, 125.8, 125.5, 142.4, 184.7, 205.5, 203.9, 223.5, 266.9, 249.9, 321.9, 373.9, 475.0, 382.4, 475.3,
         586.0, 682.0, 708.0),
    ),
)  # fmt: skip

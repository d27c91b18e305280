"""What adjusting does to prices: against exact fractions, row by row."""

from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from itertools import accumulate, pairwise
from operator import mul

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdi import RequestError
from hdi.lookup import RECTANGLES
from hdi.model import DAY_NS
from hdi.series.continuous import PLACES, composed
from hdi.series.moments import Prices

PRICE, TIME = pl.Decimal(18, 9), pl.Datetime("ns", "UTC")
EXACT = Context(prec=80, rounding=ROUND_HALF_EVEN)
START = 20_000 * DAY_NS


def made(closes, turns, how="backward", by="difference", days=30):
    """The factors of a series that stands for instrument k from the k-th of the turns on.

    ``closes`` are the prices of each instrument, day by day; at a roll those of the day before.
    """
    edges = [0, *turns, days]
    spans = [
        ("D", k, START + a * DAY_NS, START + b * DAY_NS, f"X{k}", "X.c.0") for k, (a, b) in enumerate(pairwise(edges))
    ]
    stretches = pl.DataFrame(
        spans, schema={**RECTANGLES, "contract": pl.String, "symbol": pl.String}, orient="row"
    )  # fmt: skip

    def price(roll):
        day = (roll.at - START) // DAY_NS - 1
        return Prices(closes[roll.old][day], closes[roll.new][day], *(START + day * DAY_NS,) * 2)

    return composed(stretches, price, how=how, by=by)


def rows(turns, prices, days=30):
    """One row a day, with a price, of the instrument that the series stands for on it."""
    ids = [sum(t <= n for t in turns) for n in range(days)]
    return pl.DataFrame(
        {"dataset": ["D"] * days, "instrument_id": ids, "ts_event": [START + n * DAY_NS for n in range(days)],
         "close_price": prices, "volume": list(range(days))},
        schema={"dataset": pl.String, "instrument_id": pl.Int64, "ts_event": pl.Int64, "close_price": PRICE,
                "volume": pl.Int64},
    ).with_columns(pl.col("ts_event").cast(TIME))  # fmt: skip


def nine(value):
    """A fraction to nine places, half-even."""
    return Decimal(round(value * 10**9)).scaleb(-9, EXACT)


units = st.integers(1, 10**13).map(lambda n: Decimal(n).scaleb(-9, EXACT))
signed = st.integers(-(10**13), 10**13).map(lambda n: Decimal(n).scaleb(-9, EXACT))


@st.composite
def stories(draw):
    """Turns of a series, the closes of its contracts on the day before each, and a price a day."""
    turns = sorted(draw(st.sets(st.integers(1, 29), max_size=4)))
    by = draw(st.sampled_from(["difference", "ratio"]))
    closes = {k: [draw(units if by == "ratio" else signed) for _ in range(30)] for k in range(len(turns) + 1)}
    return turns, closes, by, draw(st.lists(st.one_of(st.none(), signed), min_size=30, max_size=30))


def oracle(turns, closes, by, how, prices):
    """The same with fractions, row by row and roll by roll."""
    out = []
    for n, price in enumerate(prices):
        factor = Fraction(1 if by == "ratio" else 0)
        for k, turn in enumerate(turns):
            old, new = Fraction(closes[k][turn - 1]), Fraction(closes[k + 1][turn - 1])
            if how == "backward" and n < turn:
                factor = factor * new / old if by == "ratio" else factor + new - old
            if how == "forward" and n >= turn:
                factor = factor * old / new if by == "ratio" else factor + old - new
        if price is None:
            out.append(None)
        elif by == "ratio":
            out.append(nine(Fraction(price) * Fraction(round(factor * 10**PLACES), 10**PLACES)))
        else:
            out.append(nine(Fraction(price) + factor))
    return out


def beyond(closes, turns, how):
    """Whether a product of ratios is more than 128 bits hold together with a price."""
    steps = [Fraction(closes[k + 1][t - 1]) / Fraction(closes[k][t - 1]) for k, t in enumerate(turns)]
    steps = steps[::-1] if how == "backward" else [1 / s for s in steps]
    return any(product >= 10**5 for product in accumulate(steps, mul))


@settings(deadline=None)
@given(stories(), st.sampled_from(["backward", "forward"]))
def test_adjusted_prices_are_those_of_exact_fractions_row_by_row(story, how):
    turns, closes, by, prices = story
    wanted = oracle(turns, closes, by, how, prices)
    given_rows = rows(turns, prices)
    if by == "ratio" and beyond(closes, turns, how):
        with pytest.raises(RequestError, match=r"the factor .* is too large"):
            made(closes, turns, how, by)
        return
    found = made(closes, turns, how, by)
    if any(price is not None and abs(price) >= 10**9 for price in wanted):
        with pytest.raises(RequestError, match="does not fit"):
            found.applied(given_rows, "ts_event")
        return
    adjusted = found.applied(given_rows, "ts_event")
    assert adjusted["close_price"].to_list() == wanted
    assert adjusted.schema == given_rows.schema
    assert adjusted.drop("close_price").equals(given_rows.drop("close_price"))


def test_the_rolls_beside_the_series_say_prices_moments_and_factors():
    closes = {0: [Decimal(10)] * 30, 1: [Decimal(12)] * 30, 2: [Decimal(9)] * 30}
    for how, own, sums in (("backward", [2, -3], [-1, -3]), ("forward", [-2, 3], [-2, 1])):
        rolls = made(closes, [5, 20], how).rolls.polars()
        assert rolls["factor"].to_list() == own
        assert rolls["cumulative"].to_list() == sums
    assert rolls.select("old_contract", "new_contract", "old_price", "new_price").rows() == [
        ("X0", "X1", 10, 12), ("X1", "X2", 12, 9),
    ]  # fmt: skip
    at = rolls.select(pl.col("at", "old_time", "new_time").to_physical()).rows()
    assert at == [(START + n * DAY_NS, *(START + (n - 1) * DAY_NS,) * 2) for n in (5, 20)]


@pytest.mark.parametrize("old", [Decimal(0), Decimal("-37.63")])
def test_a_ratio_of_prices_that_are_not_positive_is_refused_at_the_roll(old):
    closes = {0: [old] * 30, 1: [Decimal(20)] * 30}
    with pytest.raises(RequestError, match=r"rolls from X0 to X1 on .* not positive") as caught:
        made(closes, [12], by="ratio")
    assert "by difference" in caught.value.hint
    assert made(closes, [12]).rolls.polars()["factor"].to_list() == [20 - old]


def test_a_price_that_does_not_fit_after_adjusting_is_an_error_that_says_which():
    found = made({0: [Decimal(1)] * 30, 1: [Decimal(3)] * 30}, [12], by="ratio")
    big = rows([12], [Decimal(5), Decimal(500_000_000), *[Decimal(1)] * 28])
    with pytest.raises(RequestError, match="close_price at 2024-10-05T00:00:00Z is 1500000000"):
        found.applied(big, "ts_event")


@pytest.mark.parametrize(("how", "moved"), [("backward", [7, 9, 7]), ("forward", [5, 7, 5])])
def test_a_bar_that_starts_before_its_contracts_turn_is_moved_as_the_contract_is(how, moved):
    found = made({0: [Decimal(1)] * 30, 1: [Decimal(3)] * 30}, [12], how=how)
    week = rows([12], [Decimal(7)] * 30).filter(pl.col("instrument_id") == 1)[:1]
    early = week.with_columns(ts_event=pl.lit(START + 8 * DAY_NS).cast(TIME))
    given_rows = pl.concat([week, early.with_columns(instrument_id=pl.lit(0, pl.Int64)), early])
    assert found.applied(given_rows, "ts_event")["close_price"].to_list() == moved

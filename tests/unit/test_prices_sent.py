"""Prices that a server sends as whole numbers are the prices that it holds."""

from decimal import Decimal

import polars as pl
import pyarrow as pa

from hdi.stores.timescaledb.prices import received, sent

SENT = pa.RecordBatch.from_arrays(
    [pa.array([1, -2_500_000_000, None, 10**18 - 1, 1 - 10**18]), pa.array([7, None, 8, 9, 10])],
    names=["price", "size"],
)
PRICES = [
    Decimal("0.000000001"),
    Decimal("-2.5"),
    None,
    Decimal("999999999.999999999"),
    Decimal("-999999999.999999999"),
]


def test_a_whole_number_is_the_price_to_the_last_digit_and_what_is_no_price_stays():
    frame = received(SENT, {"price"})
    assert frame.schema == {"price": pl.Decimal(18, 9), "size": pl.Int64}
    assert frame["price"].to_list() == PRICES
    assert frame["size"].to_list() == [7, None, 8, 9, 10]


def test_part_of_a_batch_has_the_prices_of_its_rows():
    assert received(SENT.slice(1, 3), {"price"})["price"].to_list() == PRICES[1:4]


def test_only_prices_are_asked_for_as_whole_numbers():
    asked = sent(["price", "size"], {"price"}).as_string()
    assert asked == '("price" * 1000000000)::bigint AS "price", "size"'

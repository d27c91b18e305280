"""Bars that the server makes of trades, beside those that are made of the same rows when they are brought."""

import random

import polars as pl
import psycopg
import pytest
from polars.testing import assert_frame_equal

from hdi.errors import StoreError
from hdi.folding import BAR, Folder, Utc, legs
from hdi.lookup import RECTANGLES
from hdi.model import DAY_NS, Window
from hdi.stores.folding import Folding
from hdi.stores.timescaledb.copying import copy_frame
from hdi.testing import opened, trades
from hdi.testing.material import START, schemas
from servers import make_layout

SECOND = 10**9
SCHEMA = schemas().find("trades")[0]
#: Positions in one block and in several, and the last one that there can be.
ROWS = (0, 1, 2, (1 << 21) - 1, 1 << 21, 1 << 27, 2**31 - 1)
EVERYTHING = Window(START, START + 9 * DAY_NS)
CLOCKS = [Utc(SECOND), Utc(1_500_000_000), Utc(60 * SECOND), Utc(3_600 * SECOND), Utc(5_400 * SECOND), Utc(DAY_NS),
          Utc(7 * DAY_NS, 4 * DAY_NS)]  # fmt: skip


def rows(count, sizes=(0, 1, 7, 2**31)):
    """Trades of few instants, instruments and publishers, as they are stored: most things happen at once."""
    draw = random.Random(count)
    instants = [
        START + d * DAY_NS // 4 + s * SECOND + n for d in (0, 1, 5) for s in (0, 1, 61, 3_601) for n in (0, 1, 1_001)
    ]
    found = trades(
        [draw.choice(instants) for _ in range(count)], [draw.randint(1, 2) for _ in range(count)],
        publishers=[draw.randint(1, 2) for _ in range(count)],
    )  # fmt: skip
    price = pl.Series([draw.choice((-1, 0, 1, 10**18 - 1, 1 - 10**18)) + draw.randint(-5, 5) % 2 for _ in range(count)])
    places = draw.sample([(u, r) for u in (1, 2, 3) for r in ROWS] * count, count)
    kept = found.with_columns(
        price=(price.clip(1 - 10**18, 10**18 - 1).cast(pl.Decimal(38, 9)) / 10**9).cast(pl.Decimal(18, 9)),
        size=pl.Series([draw.choice(sizes) for _ in range(count)]),
        action=pl.Series([draw.choice("TTTA") for _ in range(count)]),
        _unit=pl.Series([u for u, _ in places], dtype=pl.Int32), _row=pl.Series([r for _, r in places], dtype=pl.Int32),
    )  # fmt: skip
    key = ["instrument_id", "publisher_id", "ts_recv", "_unit", "_row"]
    return SCHEMA.to_stored(kept.unique(key, maintain_order=True))


@pytest.fixture
def holding(fresh_database):
    """A store that holds these rows."""

    def made(stored):
        url = fresh_database(template="layout", prepare=make_layout)
        store = opened(url)
        with store.database.session() as connection:
            copy_frame(connection, SCHEMA.table, stored)
        return store

    return made


def brought(store, window, held, clock):
    """The bars of the rows that the store gives."""
    columns = ["dataset", "publisher_id", "instrument_id", "ts_recv", "price", "size", "action"]
    frames = [
        frame.filter(pl.col("action") == "T", pl.col("size") > 0).select(
            *columns[:3], *legs({"at": "ts_recv", "price": "price", "volume": "size"})
        )
        for frame in store.read(SCHEMA, "trades", window, held, columns)
    ]
    return pl.concat([pl.DataFrame(schema=BAR), *Folder(clock).bars(f for f in frames if f.height)])


def made(store, window, held, clock):
    """The bars that the server makes."""
    frames = list(store.folded(SCHEMA, "trades", window, held, None, clock))
    starts = [set(frame["start"]) for frame in frames]
    assert sum(map(len, starts)) == len(set().union(*starts))  # no bar is in two
    return pl.concat(frames)


@pytest.mark.parametrize("clock", CLOCKS, ids=str)
def test_the_bars_of_the_server_are_those_of_the_rows_that_it_sends(holding, clock):
    store = holding(rows(2_000))
    assert isinstance(store, Folding)
    found = made(store, EVERYTHING, None, clock)
    assert found.height >= 4
    # A price is brought to the last digit, and so is the sum of price times size.
    assert found["high"].max() == 10**18 - 1
    assert_frame_equal(found, brought(store, EVERYTHING, None, clock), check_exact=True)


def test_only_rows_of_the_window_and_of_the_rectangles_make_bars(holding):
    store = holding(rows(1_500))
    window = Window(START + 1, START + 2 * DAY_NS)
    one = [("GLBX.MDP3", 1, START + 1, START + SECOND + 1), ("GLBX.MDP3", 2, START, START + 3 * DAY_NS)]
    dataset = rows(1)["dataset"][0]
    held = pl.DataFrame([(dataset, *row[1:]) for row in one], schema=RECTANGLES, orient="row")
    found = made(store, window, held, Utc(60 * SECOND))
    assert set(found["instrument_id"]) == {1, 2}
    assert_frame_equal(found, brought(store, window, held, Utc(60 * SECOND)), check_exact=True)


def test_a_volume_that_no_column_holds_is_an_error(holding):
    store = holding(rows(400, sizes=(2**62,)))
    with pytest.raises(StoreError, match="volume of a bar is more than a BIGINT holds"):
        made(store, EVERYTHING, None, Utc(DAY_NS))


@pytest.mark.parametrize("clock", [Utc(SECOND // 100), Utc(3_600 * SECOND + 10**6)], ids=str)
def test_bars_of_no_whole_step_are_left_to_who_reads_the_rows(holding, clock):
    assert holding(rows(20)).folded(SCHEMA, "trades", EVERYTHING, None, None, clock) is None


def test_a_server_of_another_version_leaves_bars_to_who_reads_the_rows(holding):
    store = holding(rows(20))
    with psycopg.connect(store.database.conninfo, autocommit=True) as connection:
        connection.execute(
            "ALTER FUNCTION _timescaledb_functions.to_unix_microseconds(timestamptz) RENAME TO elsewhere"
        )
    assert store.folded(SCHEMA, "trades", EVERYTHING, None, None, Utc(60 * SECOND)) is None


def test_of_nothing_that_was_traded_there_is_no_answer(holding):
    none = rows(40).with_columns(action=pl.lit("A"))
    assert holding(none).folded(SCHEMA, "trades", EVERYTHING, None, None, Utc(60 * SECOND)) is None

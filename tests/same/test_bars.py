"""Bars made when asked, of what a lake and a database hold: the vendor's own bars, and the same from both."""

import contextlib

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from api.desk import Ask, Desk, served
from hdi import HistoricalData
from hdi.errors import RequestError

MARKET = {"until": "2024-07-01", "scale": 0.02, "limits": 0.0}
#: Around an expiry: outrights, the spreads of a parent, and a front month.
SYMBOLS, FIRST, LAST = "NG.FUT,ES.c.0", "2024-03-14", "2024-03-15"
NAMES = ("trades", "ohlcv-1s", "ohlcv-1m", "ohlcv-1h", "ohlcv-1d")
NOON = ("2024-03-14T12:34:56Z", "2024-03-15T12:00:01.5Z")
NS, HOUR = 10**9, 3_600 * 10**9
#: What the vendor's bars say too.
SAID = ["dataset", "instrument_id", "symbol", "publisher_id", "ts_event", "granularity", "open_price", "high_price",
        "low_price", "close_price", "volume"]  # fmt: skip


@pytest.fixture(scope="module")
def stores(address, tmp_path_factory):
    """A lake and a database that hold the same trades and bars."""
    folder = tmp_path_factory.mktemp("bars")
    with served(folder, **MARKET) as vendor, contextlib.ExitStack() as stack:
        opened = []
        for name, url in (("lake", ""), ("server", address)):
            desk = Desk(folder / name, vendor, shared=folder / "data", address=url)
            for schema in NAMES:
                desk.stored(Ask(SYMBOLS, FIRST, LAST, schema))
            opened.append(stack.enter_context(HistoricalData.open(store=desk.place.url, **desk.flags())))
        yield opened


@pytest.fixture
def alike(stores):
    """The answer and the notes that both give."""

    def ask(*args, **options):
        mine, theirs = (db.bars(*args, **options) for db in stores)
        found, other = mine.polars(), theirs.polars()
        assert_frame_equal(other, found, check_exact=True)
        assert theirs.notes == mine.notes
        return found, mine.notes

    return ask


@pytest.mark.parametrize(
    ("width", "source"),
    [*((w, "trades") for w in ("1s", "1m", "1h", "1d")), ("1m", "ohlcv-1s"), ("1h", "ohlcv-1s"), ("1d", "ohlcv-1h")],
)
def test_bars_are_those_that_the_vendor_sells(stores, alike, width, source):
    made, notes = alike(SYMBOLS, FIRST, LAST, every=width, source=source)
    sold = stores[0].query(SYMBOLS, FIRST, LAST, schema=f"ohlcv-{width}").polars()
    assert made.height > 1
    assert_frame_equal(made.select(SAID), sold.select(SAID), check_exact=True)
    assert notes == [f"{width} bars made of {source}"]
    assert made["trade_count"].null_count() == (0 if source == "trades" else made.height)


def test_stored_bars_of_the_width_are_given_as_they_are(stores, alike):
    made, notes = alike(SYMBOLS, FIRST, LAST, every="60m")
    sold = stores[0].query(SYMBOLS, FIRST, LAST, schema="ohlcv-1h").polars()
    assert_frame_equal(made, sold.with_columns(granularity=pl.lit("60m")), check_exact=True)
    assert notes == ["60m bars as stored in ohlcv-1h"]


def test_bars_of_trades_and_of_finer_bars_are_the_same_in_any_window(alike):
    of_trades, _ = alike(SYMBOLS, *NOON, every="7m", source="trades")
    of_bars, notes = alike(SYMBOLS, *NOON, every="7m")
    assert notes == ["7m bars made of ohlcv-1m"]
    assert_frame_equal(of_trades.select(SAID), of_bars.select(SAID), check_exact=True)
    whole, _ = alike(SYMBOLS, FIRST, LAST, every="7m", source="trades")
    starts = pl.col("ts_event").is_between(*(pl.lit(t).str.to_datetime(time_unit="ns", time_zone="UTC") for t in NOON))
    assert_frame_equal(whole.filter(starts), of_trades, check_exact=True)


@pytest.mark.parametrize(("kind", "every"), [("tick", 8), ("volume", "9"), ("dollar", "30000.5")])
@pytest.mark.parametrize("align", ["utc", "session"])
def test_bars_of_activity_hold_every_trade_once_and_do_not_depend_on_the_window(stores, alike, kind, every, align):
    whole, _ = alike("ES.c.0", FIRST, LAST, kind=kind, every=every, align=align, source="trades")
    part, _ = alike("ES.c.0", *NOON, kind=kind, every=every, align=align)
    starts = pl.col("ts_event").is_between(*(pl.lit(t).str.to_datetime(time_unit="ns", time_zone="UTC") for t in NOON))
    assert part.height > 1
    assert_frame_equal(whole.filter(starts), part, check_exact=True)
    if align == "utc":
        trades = stores[0].trades("ES.c.0", FIRST, LAST).polars()
        assert (whole["trade_count"].sum(), whole["volume"].sum()) == (trades.height, trades["size"].sum())
        assert whole.filter(~pl.col("complete"))["ts_event"].dt.date().is_unique().all()  # the last of a day
    counts = {"tick": "trade_count", "volume": "volume"}
    if kind in counts:
        assert (whole.filter("complete")[counts[kind]] >= int(every)).all()


def test_a_bar_of_a_session_begins_with_it_and_ends_with_it(stores, alike):
    found, _ = alike("ES.c.0", FIRST, LAST, every="1d", align="session", source="trades")
    [bar] = found.rows(named=True)  # of the session that opens on the 15th not everything is stored, nor of the 13th's
    trades = stores[0].trades("ES.c.0", "2024-03-14T22:00:00Z", "2024-03-15T21:00:00Z").polars()
    assert str(bar["ts_event"]) == "2024-03-14 22:00:00+00:00"
    assert (bar["volume"], bar["close_price"]) == (trades["size"].sum(), trades["price"][-1])
    hours, _ = alike("ES.c.0", "2024-03-14T22:00:00Z", "2024-03-15T21:00:00Z", every="5h", align="session")
    opened = int(bar["ts_event"].timestamp()) * NS
    after = {(t - opened) // (5 * HOUR) for t in trades["ts_recv"].to_physical()}
    assert [t.hour for t in hours["ts_event"]] == [(22, 3, 8, 13, 18)[k] for k in sorted(after)]
    assert hours["volume"].sum() == bar["volume"]


def test_filled_bars_repeat_the_last_close_where_nothing_was_traded(alike):
    plain, _ = alike("NGK4", FIRST, LAST, every="1m", source="trades")
    filled, _ = alike("NGK4", FIRST, LAST, every="1m", source="trades", fill=True)
    added = filled.filter(pl.col("data_source") == "filled")
    assert added.height > 100
    assert_frame_equal(filled.filter(pl.col("data_source") != "filled"), plain, check_exact=True)
    assert added.select("volume", "trade_count", "vwap").unique().rows() == [(0, 0, None)]
    before = filled.select(pl.col("close_price").shift(1), new=pl.col("data_source") == "filled").filter("new")
    assert added["open_price"].equals(before["close_price"])
    minutes = filled["ts_event"].dt.hour()
    assert 21 not in minutes  # the daily break
    assert filled["ts_event"].is_unique().all()


def test_a_limit_and_columns_stop_the_reading_early(alike):
    found, _ = alike("ES.c.0", FIRST, LAST, every="5m", source="trades", columns=["vwap", "symbol"], limit=3)
    whole, _ = alike("ES.c.0", FIRST, LAST, every="5m", source="trades")
    assert_frame_equal(found, whole.select("vwap", "symbol").head(3), check_exact=True)


def test_what_was_never_stored_makes_no_bar_and_is_said(stores, alike):
    found, notes = alike("ES.c.0", "2024-03-15", "2024-03-20", every="1w", source="ohlcv-1d")
    assert (found.height, notes) == (0, ["1w bars made of ohlcv-1d"])
    assert any("never ingested" in line for line in stores[0].bars("ES.c.0", "2024-03-20", "2024-03-21").explain())
    week = stores[0].bars("ES.c.0", "2024-03-11", "2024-03-14", every="1w", source="trades")
    assert week.polars().is_empty()
    assert week.explain()[1].startswith("trades are stored, but no 1w bar that starts within 2024-03-11 to 2024-03-14")
    assert not any("empty" in line or "without a good row" in line for line in week.explain())
    for db in stores:
        with pytest.raises(RequestError, match="unknown column 'price' of bars"):
            db.bars("ES.c.0", columns=["price"])

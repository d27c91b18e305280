"""Bars made from trades that came in files: what counts, what keeps its order, and what is not certain enough."""

import contextlib
from decimal import Decimal

import numpy as np
import polars as pl
import pytest

from dbnfiles import PX, fragment, ns, records, write
from hdi.attempt import Options
from hdi.buying.deriving import Deriver
from hdi.buying.ordering import Held, parse_request
from hdi.frames import NAMED, RESOLVED
from hdi.model import DAY_NS, NS, Window
from hdi.testing.material import schemas
from lakes import MAPPING, Place

DAYS = ("2024-01-02", "2024-01-04")
HOUR = 3_600 * NS
DATASET = "GLBX.MDP3"
IDS = {"ESH4": 1, "ESM4": 2}


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def trades(folder, name="trades.dbn.zst", days=DAYS, **columns):
    """A whole file of both contracts: a trade each half hour, the contracts in turn, with columns laid over them."""
    n = 2 * 24 * (ns(days[1]) - ns(days[0])) // DAY_NS
    at = ns(days[0]) + np.arange(n) * HOUR // 2
    given = {"ts_event": at - 5, "ts_recv": at, "instrument_id": 1 + np.arange(n) % 2} | columns
    mappings = {symbol: [(*days, i)] for symbol, i in IDS.items()}
    return write(
        folder / name, "trades", records("trades", n, **given), window=days, symbols=tuple(IDS), mappings=mappings
    )


def make(place, name="ohlcv-1h"):
    """The bars that can be made, as (start hour, publisher, instrument, open, high, low, close, volume)."""
    window = Window(ns(DAYS[0]), ns(DAYS[1]))
    request = parse_request(schemas(), dataset=DATASET, schema=name, symbols=list(IDS), window=window)
    resolved = pl.DataFrame([(s, i, window.start, window.end) for s, i in IDS.items()], schema=RESOLVED, orient="row")
    named = pl.DataFrame([(i, window.start, window.end, s) for s, i in IDS.items()], schema=NAMED, orient="row")
    with contextlib.closing(place.open()) as store:
        deriver = Deriver(store, schemas(), MAPPING, DATASET, name)
        derived = deriver.derivable(
            request, resolved.with_columns(stype=pl.lit("raw_symbol")), Held(store.coverage(), DATASET, name)
        )
        options = Options(place.folder / "data", place.folder / "dlq", origin="databento")
        outcomes = list(deriver.run(derived, "20240105T000000-abcdef", options, named))
        assert [o.error for o in outcomes] == [None] * len(outcomes)
    rows = place.content(name)
    assert set(rows["data_source"]) <= {"derived:trades:databento"}
    prices = ("open_price", "high_price", "low_price", "close_price")
    at = ((pl.col("ts_event").to_physical() - window.start) // HOUR).alias("hour")
    return rows.select(at, "publisher_id", "symbol", *prices, "volume").rows()


def test_every_trade_counts_whatever_its_side_by_when_it_was_received(place, tmp_path):
    at = ns(DAYS[0]) + np.array([0, 1, 2, HOUR - 1, HOUR]) * 1
    columns = {
        "ts_recv": at, "ts_event": at - HOUR, "instrument_id": 1, "side": np.array([b"A", b"N", b"B", b"N", b"A"]),
        "price": np.array([-2, 5, -7, 3, 1]) * PX, "size": np.array([1, 2, 3, 4, 5]),
    }  # fmt: skip
    mappings = {symbol: [(*DAYS, i)] for symbol, i in IDS.items()}
    path = write(tmp_path / "t.dbn.zst", "trades", records("trades", 5, **columns), window=DAYS, symbols=tuple(IDS),
                 mappings=mappings)  # fmt: skip
    place.stored(path)
    assert make(place) == [
        (0, 1, "ESH4", Decimal(-2), Decimal(5), Decimal(-7), Decimal(3), 10),
        (1, 1, "ESH4", Decimal(1), Decimal(1), Decimal(1), Decimal(1), 5),
    ]


def test_publishers_are_kept_apart_and_trades_of_one_instant_keep_their_order(place, tmp_path):
    n = 8
    columns = {
        "ts_recv": ns(DAYS[0]), "ts_event": ns(DAYS[0]), "instrument_id": 1, "sequence": 7, "size": 1,
        "publisher_id": np.array([2, 1] * 4), "price": np.array([4, 9, 1, 8, 3, 6, 2, 7]) * PX,
    }  # fmt: skip
    mappings = {symbol: [(*DAYS, i)] for symbol, i in IDS.items()}
    path = write(tmp_path / "t.dbn.zst", "trades", records("trades", n, **columns), window=DAYS, symbols=tuple(IDS),
                 mappings=mappings)  # fmt: skip
    place.stored(path)
    assert make(place) == [
        (0, 1, "ESH4", Decimal(9), Decimal(9), Decimal(6), Decimal(7), 4),
        (0, 2, "ESH4", Decimal(4), Decimal(4), Decimal(1), Decimal(2), 4),
    ]


def test_a_bar_with_a_quarantined_trade_is_left(place, tmp_path):
    size = np.ones(96, dtype=np.int64)
    size[[4, 5, 40]] = 0  # two of the hour 2, one of each contract, and one of the hour 20
    place.stored(trades(tmp_path, size=size), max_reject_percent=50)
    found = make(place)
    lacking = {(h, s) for h in range(48) for s in IDS} - {(row[0], row[2]) for row in found}
    assert lacking == {(2, "ESH4"), (2, "ESM4"), (20, "ESH4")}


def test_a_unit_with_records_that_are_no_trades_is_left(place, tmp_path):
    action = np.full(96, b"T")
    action[50] = b"C"  # on the second day, of the first contract
    place.stored(trades(tmp_path, action=action))
    assert {(row[0] // 24, row[2]) for row in make(place)} == {(0, "ESH4"), (0, "ESM4"), (1, "ESM4")}


def test_fragments_alone_make_no_bar(place, tmp_path):
    at = ns(DAYS[0]) + np.array([7, 8])
    place.stored(fragment(tmp_path / "part.dbn.zst", "trades", records("trades", 2, ts_recv=at, ts_event=at)))
    assert make(place) == []

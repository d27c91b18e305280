"""The demo's tape: what it claims about itself is what the vendor's own decoder finds in it."""

import datetime as dt
import hashlib
import warnings

import numpy as np
import pytest

from tape import make_files, make_tape

DAY = 86_400 * 10**9


@pytest.fixture(scope="module")
def tape(tmp_path_factory):
    return make_tape(tmp_path_factory.mktemp("tape"))


@pytest.fixture(scope="module")
def stores(tape):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import databento

    warnings.simplefilter("error")
    return {p.name.split(".")[1]: databento.DBNStore.from_bytes(p.read_bytes()) for p in tape.paths}


@pytest.fixture(scope="module")
def arrays(stores):
    return {schema: store.to_ndarray() for schema, store in stores.items()}


def good(tape, arrays, schema):
    return np.delete(arrays[schema], list(tape.planted[path_of(tape, schema)]))


def path_of(tape, schema):
    return next(p for p in tape.paths if p.name.split(".")[1] == schema)


def digests(paths):
    return [hashlib.sha256(p.read_bytes()).hexdigest() for p in paths]


def test_the_five_families_are_there_and_every_name_says_synthetic(tape, stores):
    assert set(stores) == {"trades", "tbbo", "statistics", "definition", "ohlcv-1d", "ohlcv-1m"}
    assert all("SYNTHETIC" in p.name for p in tape.paths)
    assert 30_000 < sum(tape.rows.values()) < 100_000


def test_the_vendor_decodes_as_many_rows_as_are_claimed(tape, arrays):
    for path, count in tape.rows.items():
        assert len(arrays[path.name.split(".")[1]]) == count


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tape, tmp_path):
    same = make_files(tmp_path / "same")
    other = make_files(tmp_path / "other", seed=1)
    assert digests(same) == digests(tape.paths)
    assert digests(other)[0] != digests(same)[0]


def test_metadata_is_complete_and_of_this_version(stores):
    for schema, store in stores.items():
        meta = store.metadata
        assert (meta.version, meta.dataset, str(meta.schema), meta.limit) == (3, "GLBX.MDP3", schema, None)
        assert meta.symbols
        assert meta.start < meta.end
        assert meta.mappings


def test_the_parent_file_names_contracts_and_the_continuous_file_a_roll(stores):
    trades, daily = stores["trades"].metadata, stores["ohlcv-1d"].metadata
    assert trades.symbols == ["ES.FUT"]
    assert set(trades.mappings) == {"ESH4", "ESM4", "ESH4-ESM4"}
    assert set(daily.mappings) == {"ES.c.0", "CL.c.0"}
    assert [(i["start_date"], i["end_date"], i["symbol"]) for i in daily.mappings["ES.c.0"]] == [
        (dt.date(2024, 1, 1), dt.date(2024, 3, 16), "9101"),
        (dt.date(2024, 3, 16), dt.date(2024, 4, 1), "9102"),
    ]


def test_rows_break_the_named_rules_as_often_as_is_claimed(tape, arrays):
    undefined, window = 2**63 - 1, (DAY * 19724, DAY * 19727)
    for schema in ("trades", "tbbo"):
        rows, hostile = arrays[schema], tape.hostile(path_of(tape, schema))
        ts = rows["ts_recv"]
        known = ts != 2**64 - 1
        found = {
            "NON_POSITIVE_SIZE": rows["size"] == 0,
            "INVALID_SIDE": ~np.isin(rows["side"], [b"A", b"B", b"N"]),
            "MISSING_PRICE": rows["price"] == undefined,
            "price_out_of_range": (rows["price"] >= 10**18) & (rows["price"] != undefined),
            "NO_INDEX_TIME": ~known,
            "OUTSIDE_WINDOW": known & ((ts < window[0]) | (ts >= window[1])),
        }
        assert {rule: int(bad.sum()) for rule, bad in found.items() if bad.any()} == hostile
        assert np.flatnonzero(np.logical_or.reduce(list(found.values()))).tolist() == list(
            tape.planted[path_of(tape, schema)]
        )
    bars, hostile = arrays["ohlcv-1m"], tape.hostile(path_of(tape, "ohlcv-1m"))
    priced = bars[bars["open"] != undefined]
    found = {
        "HIGH_LESS_THAN_LOW": priced["high"] < priced["low"],
        "HIGH_LESS_THAN_OPEN": priced["high"] < priced["open"],
        "HIGH_LESS_THAN_CLOSE": priced["high"] < priced["close"],
        "LOW_GREATER_THAN_OPEN": priced["low"] > priced["open"],
        "LOW_GREATER_THAN_CLOSE": priced["low"] > priced["close"],
        "OUTSIDE_WINDOW": priced["ts_event"] >= window[1],
    }
    counted = {rule: int(bad.sum()) for rule, bad in found.items() if bad.any()}
    assert counted | {"MISSING_OPEN_PRICE": len(bars) - len(priced)} == hostile


def test_minute_bars_add_up_the_good_trades(tape, arrays):
    trades, bars = good(tape, arrays, "trades"), good(tape, arrays, "ohlcv-1m")
    for instrument in (9101, 9102):
        mine = trades[trades["instrument_id"] == instrument]
        for bar in bars[bars["instrument_id"] == instrument][:200]:
            inside = mine[mine["ts_event"] // (60 * 10**9) * (60 * 10**9) == bar["ts_event"]]
            price = inside["price"]
            assert (price[0], price.max(), price.min(), price[-1], inside["size"].sum()) == (
                bar["open"],
                bar["high"],
                bar["low"],
                bar["close"],
                bar["volume"],
            )
        assert mine["size"].sum() == bars[bars["instrument_id"] == instrument]["volume"].sum()


def test_settlements_and_daily_closes_are_last_prices(tape, arrays):
    trades, daily = good(tape, arrays, "trades"), good(tape, arrays, "ohlcv-1d")
    stats = good(tape, arrays, "statistics")
    for day in range(19724, 19727):
        last = trades[(trades["instrument_id"] == 9101) & (trades["ts_recv"] // DAY == day)]["price"][-1]
        settled = stats[(stats["instrument_id"] == 9101) & (stats["stat_type"] == 3) & (stats["ts_ref"] == day * DAY)]
        bar = daily[(daily["instrument_id"] == 9101) & (daily["ts_event"] == day * DAY)]
        assert settled["price"].tolist() == bar["close"].tolist() == [last]


def test_quotes_repeat_the_trades(tape, arrays):
    trades, quotes = good(tape, arrays, "trades"), good(tape, arrays, "tbbo")
    for column in ("ts_recv", "ts_event", "price", "size", "side", "sequence"):
        left = trades[trades["instrument_id"] == 9101][column]
        assert np.array_equal(left, quotes[quotes["instrument_id"] == 9101][column])


def test_some_good_trades_are_equal_in_every_column(tape, arrays):
    trades = good(tape, arrays, "trades")
    assert len(np.unique(trades)) < len(trades)


def test_the_tape_holds_negative_prices_and_crossed_and_empty_quotes(tape, arrays):
    trades, quotes = good(tape, arrays, "trades"), good(tape, arrays, "tbbo")
    assert (trades["price"] < 0).sum() == 180
    empty = quotes["bid_px_00"] == 2**63 - 1
    assert empty.any()
    assert (quotes["bid_px_00"] > quotes["ask_px_00"])[~empty].any()


def test_a_spread_has_one_definition_for_each_leg(tape, arrays):
    rows = good(tape, arrays, "definition")
    spread = rows[(rows["raw_symbol"] == b"ESH4-ESM4") & (rows["ts_recv"] == 19724 * DAY)]
    assert [(r["leg_index"], r["leg_raw_symbol"], r["leg_side"]) for r in spread] == [
        (0, b"ESH4", b"B"),
        (1, b"ESM4", b"A"),
    ]


def test_exactly_the_planted_rows_end_in_quarantine(tape, tmp_path, monkeypatch):
    from hdi.api import HistoricalData

    monkeypatch.chdir(tmp_path)
    with HistoricalData.open(store=f"lake:{tmp_path / 'lake'}") as data:
        outcomes = list(data.ingest_files(tape.paths, origin="synthetic"))
        rejects = data.store().quarantine()
    assert [o.status for o in outcomes] == ["stored"] * len(tape.paths)
    for path, outcome in zip(tape.paths, outcomes, strict=True):
        mine = rejects.filter(rejects["schema"] == outcome.schema)
        found = dict(zip(mine["row"], mine["rules"], strict=True))
        assert {row: set(rules) for row, rules in found.items()} == {
            row: set(rules) for row, rules in tape.planted[path].items()
        }
        assert sum(r.fetched for r in outcome.receipts) == tape.rows[path]
        assert sum(r.stored for r in outcome.receipts) == tape.rows[path] - len(tape.planted[path])

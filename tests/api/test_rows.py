"""What is stored is what the vendor's own client decodes, under the raw symbol that was in force that day."""

import pytest

from api.desk import GLBX, XNAS, Ask
from api.truth import Truth, after, alike

SCHEMAS = ("ohlcv-1s", "ohlcv-1m", "ohlcv-1h", "ohlcv-1d", "trades", "tbbo", "statistics", "definition")


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_column_of_every_row_is_what_the_vendors_client_decodes(desk, vendor, truth, schema):
    ask = Ask("ES.c.0,CL.c.0", "2024-03-14", "2024-03-15", schema)
    receipts = desk.stored(ask)
    expected = truth.rows(ask)
    alike(desk.rows(schema), expected)
    assert len(expected) == sum(r.stored for r in receipts) > 0
    assert vendor.books.billed_bytes == len(expected) * Truth.width(schema)


@pytest.mark.parametrize("schema", ["ohlcv-1h", "trades", "tbbo", "definition"])
def test_shares_are_stored_as_the_vendors_client_decodes_them(desk, truth, schema):
    ask = Ask("SPY", "2024-03-14", "2024-03-14", schema, XNAS)
    desk.stored(ask)
    alike(desk.rows(schema), truth.rows(ask))


def test_of_several_symbols_in_one_request_each_row_has_its_own_instrument_across_rolls(desk, vendor, truth):
    ask = Ask("ES.c.0,CL.c.0,NG.c.1,GC.v.0,NQ.n.0", "2023-11-01", "2024-06-30")
    desk.stored(ask)
    alike(desk.rows(), truth.rows(ask))
    assert vendor.books.calls["timeseries.get_range"] == 1
    by_root = {}
    for row in desk.rows():
        by_root.setdefault(row["symbol"][:2], set()).add(row["symbol"])
    assert by_root["ES"] == {"ESZ3", "ESH4", "ESM4", "ESU4"}
    assert {"CLZ3", "CLF4", "CLG4", "CLH4", "CLJ4", "CLK4", "CLM4", "CLN4"} <= by_root["CL"]


def test_a_continuous_symbol_reads_back_as_the_front_contract_of_each_day(desk, truth):
    desk.stored(Ask("ES.FUT,CL.FUT", "2024-02-01", "2024-03-31"))
    for symbol in ("ES.c.0", "ES.c.1", "CL.c.0"):
        desk.stored(Ask(symbol, "2024-02-01", "2024-03-31"))
        alike(desk.rows(symbols=symbol), truth.rows(Ask(symbol, "2024-02-01", "2024-03-31")))


def reused(truth, root, start, end):
    """Ids that stand for more than one raw symbol of a root, by the vendor's symbology."""
    symbology = truth.client.symbology
    children = symbology.resolve(GLBX, [f"{root}.FUT"], "parent", "instrument_id", start, end)["result"]
    meanings = {}
    for raw, intervals in children.items():
        for each in intervals:
            meanings.setdefault(each["s"], []).append((each["d0"], each["d1"], raw))
    return {i: sorted(m) for i, m in meanings.items() if len({raw for *_, raw in m}) > 1}


@pytest.mark.parametrize("schema", ["ohlcv-1d", "definition"])
def test_an_id_that_another_contract_had_before_names_each_row_by_its_day(desk, truth, schema):
    found = reused(truth, "ES", "2010-06-07", "2024-06-30")
    instrument, meanings = next((i, m) for i, m in found.items() if all("-" not in raw for *_, raw in m))
    asks = [Ask(instrument, after(first, 20), after(first, 27), schema) for first, _, _ in meanings]
    for ask in asks:
        desk.stored(ask)
    rows = desk.rows(schema)
    alike(rows, truth.union(*asks))
    assert {row["symbol"] for row in rows} == {raw for *_, raw in meanings}
    assert {row["instrument_id"] for row in rows} == {int(instrument)}


def test_an_id_over_all_its_years_is_several_contracts_in_one_request(desk, vendor, truth):
    found = reused(truth, "ES", "2010-06-07", "2024-06-30")
    instrument, meanings = next(iter(found.items()))
    ask = Ask(instrument, "2010-06-07", "2024-06-30")
    desk.stored(ask)
    alike(desk.rows(), truth.rows(ask))
    assert {row["symbol"] for row in desk.rows()} == {raw for *_, raw in meanings}
    assert vendor.books.billed_bytes == truth.size(ask)


def test_a_raw_symbol_that_came_back_after_ten_years_is_two_instruments(desk, truth):
    ask = Ask("ESH4", "2013-12-01", "2024-03-31")
    desk.stored(ask)
    rows = desk.rows()
    alike(rows, truth.rows(ask))
    assert len({row["instrument_id"] for row in rows}) == 2
    assert {row["symbol"] for row in rows} == {"ESH4"}
    alike(desk.rows(symbols="ESH4", start="2014-01-01", end="2014-12-31"),
          truth.rows(Ask("ESH4", "2014-01-01", "2014-12-31")))  # fmt: skip


def test_all_symbols_of_a_day_have_their_names(desk, vendor, truth):
    ask = Ask("ALL_SYMBOLS", "2024-03-14", "2024-03-14")
    desk.stored(ask)
    alike(desk.rows(), truth.rows(ask))
    assert vendor.books.billed_bytes == truth.size(ask)


@pytest.mark.parametrize("market", [{"hostile": 6, "scale": 0.2}], indirect=True)
@pytest.mark.parametrize("schema", ["trades", "ohlcv-1m"])
def test_rows_that_are_bad_on_purpose_are_quarantined_and_all_others_stored(desk, vendor, truth, schema):
    ask = Ask("ES.c.0", "2024-03-14", "2024-03-14", schema)
    (receipt,) = desk.stored(ask)
    [entry] = vendor.books.entries
    assert (receipt.quarantined, receipt.fetched) == (entry.planted, entry.records)
    assert entry.planted > 0
    assert receipt.stored + receipt.quarantined == receipt.fetched == len(truth.rows(ask))
    assert len(desk.rows(schema)) == receipt.stored

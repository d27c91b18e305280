"""What a store holds by symbol, from its books alone."""

import datetime as dt
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from dbnfiles import fragment, records
from hdi.api import HistoricalData
from hdi.catalog import LOOSE, TOLD, Catalog, told
from hdi.errors import UnknownSymbol
from hdi.frames import COVERAGE, LEDGER, MAPPINGS
from hdi.model import date_ns

GLBX = "GLBX.MDP3"


def ns(day):
    return date_ns(dt.date.fromisoformat(day))


def mapping(stype, symbol, instrument, start, end):
    return (GLBX, stype, symbol, instrument, ns(start), ns(end))


def covered(symbol, stype, instrument, start, end, schema="ohlcv-1d"):
    return (1, GLBX, schema, symbol, stype, instrument, ns(start), ns(end))


#: ESH4 of 2014 and of 2024; an id that was a spread before it was NQM0; the front of ES across a roll.
MAPPED = [
    mapping("raw_symbol", "ESH4", 7, "2013-12-20", "2014-03-22"),
    mapping("raw_symbol", "ESH4", 8, "2023-12-16", "2024-03-16"),
    mapping("raw_symbol", "ESM4", 9, "2023-12-16", "2024-06-22"),
    mapping("raw_symbol", "NQU8-NQM9", 16908, "2018-01-01", "2018-09-22"),
    mapping("raw_symbol", "NQM0", 16908, "2020-01-01", "2020-06-20"),
    mapping("continuous", "ES.c.0", 8, "2024-01-01", "2024-03-16"),
    mapping("continuous", "ES.c.0", 9, "2024-03-16", "2024-05-01"),
    mapping("parent", "ES.FUT", 8, "2024-01-01", "2024-03-16"),
    mapping("parent", "ES.FUT", 9, "2024-01-01", "2024-05-01"),
]
HELD = [
    covered("ESH4", "raw_symbol", 7, "2014-01-01", "2014-02-01"),
    covered("ESH4", "raw_symbol", 8, "2024-01-01", "2024-02-01", "trades"),
    covered("ES.c.0", "continuous", None, "2024-01-01", "2024-05-01"),
    covered("ES.c.0", "continuous", 8, "2024-01-01", "2024-03-16"),
    covered("ES.c.0", "continuous", 9, "2024-03-16", "2024-05-01"),
    covered("NQ.FUT", "parent", None, "2018-01-01", "2021-01-01"),
    covered("NQ.FUT", "parent", 16908, "2018-01-01", "2018-09-22"),
    covered("NQ.FUT", "parent", 16908, "2020-01-01", "2020-06-20"),
    covered("", "raw_symbol", 55, "2024-01-01", "2024-01-02"),
]
SAID = pl.DataFrame(
    [(GLBX, 8, "ESH4", "ES", "F", "XCME"), (GLBX, 16908, "NQU8-NQM9", "NQ", "S", "XCME")], schema=TOLD, orient="row"
)


def catalog(on=None):
    return Catalog(
        pl.DataFrame(MAPPED, schema=MAPPINGS, orient="row"), pl.DataFrame(HELD, schema=COVERAGE, orient="row"),
        pl.DataFrame(schema=LEDGER), SAID, None if on is None else ns(on),
    )  # fmt: skip


def days(frame, *columns):
    return [
        (*row, str(first), str(last)) for *row, first, last in frame.select(*columns, "first_day", "last_day").rows()
    ]


def test_a_raw_symbol_that_came_back_has_a_line_for_each_instrument():
    assert days(catalog().listed("ESH4"), "symbol", "instrument_id") == [
        ("ESH4", 7, "2014-01-01", "2014-01-31"), ("ESH4", 8, "2024-01-01", "2024-03-15"),
    ]  # fmt: skip


def test_an_id_that_was_used_again_is_listed_by_what_it_was_called_on_its_days():
    assert days(catalog().listed("16908"), "symbol") == [
        ("NQU8-NQM9", "2018-01-01", "2018-09-21"), ("NQM0", "2020-01-01", "2020-06-19"),
    ]  # fmt: skip


def test_what_a_definition_says_goes_to_the_contract_it_is_about_and_no_other():
    found = catalog().listed().filter(pl.col("instrument_class").is_not_null())
    assert found.select("symbol", "instrument_id", "instrument_class", "exchange").rows() == [
        ("ESH4", 8, "F", "XCME"), ("NQU8-NQM9", 16908, "S", "XCME"),
    ]  # fmt: skip


def test_the_root_of_a_spread_is_that_of_its_first_leg():
    assert set(catalog().listed("NQ")["symbol"]) == {"NQ.FUT", "NQU8-NQM9", "NQM0"}


def test_a_parent_is_listed_with_the_children_that_are_held():
    # NQ.FUT has no mapping of its own: what came when it was asked for is its.
    assert set(catalog().listed("NQ.FUT")["symbol"]) == {"NQ.FUT", "NQU8-NQM9", "NQM0"}


def test_an_instrument_that_nothing_names_is_listed_by_its_id():
    assert days(catalog().listed("55"), "symbol", "stype") == [("55", "instrument_id", "2024-01-01", "2024-01-01")]


def test_schemas_are_those_in_which_something_is_held():
    found = dict(catalog().listed("ES").select("symbol", "schemas").filter(pl.col("symbol") != "ESH4").rows())
    assert found == {"ES.c.0": ["ohlcv-1d"], "ESM4": ["ohlcv-1d"]}
    assert catalog().listed("ESH4")["schemas"].to_list() == [["ohlcv-1d"], ["ohlcv-1d", "trades"]]


def test_of_a_day_only_what_is_held_on_it_is_listed_with_all_its_days():
    assert days(catalog("2014-01-15").listed(), "symbol") == [("ESH4", "2014-01-01", "2014-01-31")]
    assert catalog("2016-01-01").listed().is_empty()


def test_a_pattern_is_matched_without_regard_to_case():
    assert set(catalog().listed("es?4")["symbol"]) == {"ESH4", "ESM4"}
    assert set(catalog().listed("*.c.?")["symbol"]) == {"ES.c.0"}


def test_the_roll_calendar_of_a_continuous_symbol_says_its_contract_day_by_day():
    assert days(catalog().rolls("es.C.0"), "symbol", "contract", "instrument_id") == [
        ("ES.c.0", "ESH4", 8, "2024-01-01", "2024-03-15"), ("ES.c.0", "ESM4", 9, "2024-03-16", "2024-04-30"),
    ]  # fmt: skip
    assert catalog("2024-03-16").rolls("ES.c.0")["contract"].to_list() == ["ESM4"]
    assert catalog().rolls("ESH4") is None


@pytest.mark.parametrize("pattern", ["XX", "XX*", "XX.FUT", "99"])
def test_what_was_never_stored_is_told_with_what_is(pattern):
    with pytest.raises(UnknownSymbol) as error:
        catalog().listed(pattern)
    assert "ESH4" in error.value.hint


def test_a_continuous_symbol_that_was_never_stored_is_told_with_the_closest():
    with pytest.raises(UnknownSymbol, match=r"ES\.c\.1") as error:
        catalog().rolls("ES.c.1")
    assert "ES.c.0" in error.value.hint


def test_of_several_definitions_the_last_counts():
    columns = {**{c: t for c, t in TOLD.items() if c != "symbol"}, "raw_symbol": pl.String()}
    frames = [
        pl.DataFrame([(GLBX, 1, "ES", "F", exchange, "ESH4")], schema=columns, orient="row")
        for exchange in ("XCME", "XCBT")
    ]
    assert told(frames)["exchange"].to_list() == ["XCBT"]


def test_what_only_fragments_brought_is_listed_from_its_first_to_its_last_row():
    rows = [
        (GLBX, 8, ns("2024-02-01"), ns("2024-02-03"), "tbbo"),
        (GLBX, 77, ns("2024-02-01"), ns("2024-02-02"), "tbbo"),
    ]
    found = replace(catalog(), loose=pl.DataFrame(rows, schema=LOOSE, orient="row"))
    assert days(found.listed("77"), "symbol", "stype") == [("77", "instrument_id", "2024-02-01", "2024-02-01")]
    assert "tbbo" in found.listed("ESH4").filter(pl.col("instrument_id") == 8)["schemas"][0]


def test_the_symbols_of_a_store_of_fragments_only_are_those_of_its_rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where it writes its log
    at = ns("2024-01-05") + np.arange(20) * 1_000_000_000
    file = fragment(tmp_path / "loose.dbn.zst", "trades", records("trades", 20, instrument_id=9501, ts_event=at))
    with HistoricalData.open(store=f"lake:{tmp_path / 'lake'}") as data:
        assert [r.status for o in data.ingest_files([file], origin="synthetic") for r in o.receipts] == ["fragment"]
        assert days(data.symbols().polars(), "symbol", "schemas") == [("9501", ["trades"], "2024-01-05", "2024-01-05")]

"""Reading through the facade: symbols by date, bars that are made, limits, columns, and why nothing was found."""

import datetime as dt
import json
from decimal import Decimal

import polars as pl
import pytest

from hdi import HistoricalData, RequestError, UnknownSymbol

JANUARY = ("2024-01-01", "2024-02-01")
MAPPED = {"CLG4": [(*JANUARY, 7)]}
BAR = (10.5, 11.25, -10, 10.75)


def day(number, instrument, **more):
    return {"at": f"2024-01-{number:02}", "id": instrument, "ohlc": BAR, **more}


def minute(text, ohlc, **more):
    return {"at": f"2024-01-02T{text}", "id": 7, "ohlc": ohlc, **more}


@pytest.fixture
def ask(data):
    def call(symbols, start="2024-01-01", end="2024-01-31", **more):
        return data.query(symbols, start, end, **more)

    return call


@pytest.fixture
def rolled(put):
    """ES.c.0 is instrument 101 to the 9th, and 102 from the 10th; nothing says what the two are called."""
    rows = [day(n, 101 if n < 10 else 102) for n in (8, 9, 10, 11)]
    spans = [("2024-01-01", "2024-01-10", 101), ("2024-01-10", "2024-02-01", 102)]
    put("ohlcv-1d", rows, ["ES.c.0"], JANUARY, {"ES.c.0": spans}, stype="continuous")


def found(result):
    return result.collect().select(pl.col("ts_event").dt.day(), "instrument_id", "symbol").rows()


class TestSymbols:
    @pytest.mark.usefixtures("rolled")
    def test_a_continuous_symbol_finds_another_instrument_after_its_roll(self, ask):
        assert found(ask("ES.c.0")) == [(8, 101, None), (9, 101, None), (10, 102, None), (11, 102, None)]
        assert found(ask("ES.c.0", "2024-01-10", "2024-01-10")) == [(10, 102, None)]

    @pytest.mark.usefixtures("rolled")
    def test_an_instrument_id_is_a_symbol(self, ask):
        assert found(ask("102")) == [(10, 102, None), (11, 102, None)]

    @pytest.mark.usefixtures("rolled")
    def test_a_mapping_learned_later_names_rows_stored_before(self, put, ask):
        put("ohlcv-1h", [], ["ESH4"], JANUARY, {"ESH4": [("2024-01-01", "2024-01-09", 101)]})
        assert found(ask("ES.c.0"))[:2] == [(8, 101, "ESH4"), (9, 101, None)]
        assert found(ask("ESH4")) == [(8, 101, "ESH4")]

    @pytest.mark.usefixtures("rolled")
    def test_a_row_that_two_symbols_mean_comes_once(self, put, ask):
        put("ohlcv-1h", [], ["ESH4"], JANUARY, {"ESH4": [("2024-01-01", "2024-01-10", 101)]})
        assert [d for d, *_ in found(ask(["ES.c.0", "ESH4", "101", " esh4 ,ES.c.0"]))] == [8, 9, 10, 11]

    def test_an_id_that_is_used_again_does_not_mix_two_contracts(self, put, ask):
        spans = {"NQM8": [("2024-01-01", "2024-01-10", 5)], "NQM0": [("2024-01-20", "2024-02-01", 5)]}
        put("ohlcv-1d", [day(2, 5), day(25, 5)], ["NQM8", "NQM0"], JANUARY, spans)
        assert found(ask("NQM8")) == [(2, 5, "NQM8")]
        assert found(ask("NQM0")) == [(25, 5, "NQM0")]
        assert found(ask("5")) == [(2, 5, "NQM8"), (25, 5, "NQM0")]

    def test_a_parent_means_every_contract_and_spread_of_the_file(self, put, ask):
        spans = {s: [(*JANUARY, i)] for s, i in (("ESH4", 1), ("ESM4", 2), ("ESH4-ESM4", 3))}
        put("ohlcv-1d", [day(2, 1), day(2, 2), day(2, 3)], ["ES.FUT"], JANUARY, spans, stype="parent")
        assert [s for *_, s in found(ask("ES.FUT"))] == ["ESH4", "ESM4", "ESH4-ESM4"]

    def test_the_same_symbol_in_two_datasets_gives_both_unless_one_is_named(self, put, ask):
        for dataset in ("XNAS.ITCH", "EQUS.MINI"):
            put("ohlcv-1d", [day(2, 9)], ["SPY"], JANUARY, {"SPY": [(*JANUARY, 9)]}, dataset=dataset)
        assert ask("SPY").collect()["dataset"].to_list() == ["EQUS.MINI", "XNAS.ITCH"]
        assert ask("SPY", dataset="XNAS.ITCH").collect()["dataset"].to_list() == ["XNAS.ITCH"]

    def test_a_symbol_of_another_dataset_is_told_so(self, put, ask):
        for dataset, symbol in (("XNAS.ITCH", "SPY"), ("EQUS.MINI", "QQQ")):
            put("ohlcv-1d", [day(2, 9)], [symbol], JANUARY, {symbol: [(*JANUARY, 9)]}, dataset=dataset)
        with pytest.raises(UnknownSymbol, match=r"SPY is not stored in EQUS\.MINI, but in XNAS\.ITCH"):
            ask("SPY", dataset="EQUS.MINI")
        with pytest.raises(RequestError, match=r"unknown dataset 'EQUS\.MIN'") as caught:
            ask("SPY", dataset="EQUS.MIN")
        assert "Did you mean EQUS.MINI?" in caught.value.hint

    def test_a_file_without_mappings_is_found_by_its_one_symbol(self, put, ask):
        put("ohlcv-1d", [day(2, 44)], ["CL.c.0"], JANUARY, stype="continuous")
        assert found(ask("CL.c.0")) == [(2, 44, None)]

    def test_a_fragment_without_mappings_is_found_by_its_ids(self, put, ask):
        put("ohlcv-1d", [day(2, 44)], ["CL.c.0"], JANUARY, stype="continuous", limit=1)
        assert found(ask("44")) == [(2, 44, None)]
        with pytest.raises(UnknownSymbol):
            ask("45")

    @pytest.mark.usefixtures("rolled")
    def test_a_symbol_never_stored_is_refused_with_names_that_are(self, ask):
        with pytest.raises(UnknownSymbol, match=r"unknown symbols: ES\.c\.1, NQ") as caught:
            ask("ES.c.1, NQ")
        assert "Did you mean ES.c.0?" in caught.value.hint
        assert "Stored, for example: ES.c.0" in caught.value.hint
        assert caught.value.exit_code == 2

    def test_an_empty_store_says_that_it_is_empty(self, ask):
        with pytest.raises(UnknownSymbol, match="the store is empty") as caught:
            ask("ESH4")
        assert "hdi ingest" in caught.value.hint

    @pytest.mark.usefixtures("rolled")
    def test_all_symbols_are_every_instrument(self, ask):
        assert len(found(ask("ALL_SYMBOLS"))) == len(found(ask(["all_symbols", "ES.c.0"]))) == 4

    @pytest.mark.usefixtures("rolled")
    @pytest.mark.parametrize("none", [(), [], "", " , ", [""]])
    def test_no_symbol_at_all_is_refused_and_does_not_mean_everything(self, ask, none):
        with pytest.raises(RequestError, match="no symbols were named") as caught:
            ask(none)
        assert "ALL_SYMBOLS" in caught.value.hint


class TestResult:
    @pytest.mark.parametrize(("limit", "rows", "limited"), [(1, 1, True), (3, 3, True), (4, 4, False), (9, 4, False)])
    @pytest.mark.usefixtures("rolled")
    def test_a_limit_is_exact_and_says_whether_it_cut(self, ask, limit, rows, limited):
        result = ask("ES.c.0", limit=limit)
        assert result.collect().height == rows
        assert (result.rows, result.limited) == (rows, limited)

    @pytest.mark.usefixtures("rolled")
    def test_a_limit_below_one_is_refused(self, ask):
        with pytest.raises(RequestError, match="limit of 0"):
            ask("ES.c.0", limit=0)

    @pytest.mark.usefixtures("rolled")
    def test_columns_come_in_the_order_asked_for(self, put, ask):
        put("ohlcv-1h", [], ["ESH4"], JANUARY, {"ESH4": [("2024-01-01", "2024-02-01", 101)]})
        frame = ask("ES.c.0", columns=["volume", "symbol"]).collect()
        assert frame.columns == ["volume", "symbol"]
        assert frame["symbol"].to_list() == ["ESH4", "ESH4", None, None]

    @pytest.mark.usefixtures("rolled")
    def test_an_unknown_column_or_schema_is_refused_with_the_closest(self, ask):
        with pytest.raises(RequestError, match="unknown column 'close_prise'") as caught:
            ask("ES.c.0", columns=["close_prise"])
        assert "close_price" in caught.value.hint
        with pytest.raises(RequestError, match="unknown schema 'ohlcv-2d'") as caught:
            ask("ES.c.0", schema="ohlcv-2d")
        assert "ohlcv-1d" in caught.value.hint

    @pytest.mark.usefixtures("rolled")
    def test_values_are_exact_and_typed_even_when_empty(self, ask):
        row = ask("ES.c.0", limit=1).collect().row(0, named=True)
        assert (row["open_price"], row["low_price"]) == (Decimal("10.500000000"), Decimal("-10.000000000"))
        assert row["ts_event"] == dt.datetime(2024, 1, 8, tzinfo=dt.UTC)
        empty = ask("ES.c.0", "2024-01-20", "2024-01-20").collect()
        assert empty.height == 0
        assert empty.schema == ask("ES.c.0").collect().schema

    @pytest.mark.usefixtures("rolled")
    def test_dates_take_in_their_last_day_and_instants_do_not(self, data):
        assert data.query("ES.c.0", dt.date(2024, 1, 8), dt.date(2024, 1, 9)).collect().height == 2
        end = dt.datetime(2024, 1, 9, tzinfo=dt.UTC)
        assert data.query("ES.c.0", dt.date(2024, 1, 8), end).collect().height == 1

    @pytest.mark.usefixtures("rolled")
    def test_a_result_can_be_read_twice(self, ask):
        result = ask("ES.c.0")
        assert result.collect().equals(result.collect())
        assert result.rows == 4

    @pytest.mark.usefixtures("rolled")
    def test_each_query_is_logged_as_operations_reads_it(self, ask, tmp_path):
        ask("ES.c.0").collect()
        lines = [json.loads(line) for line in (tmp_path / "logs" / "query_builder.log").read_text().splitlines()]
        executed, pattern = lines[-2:]
        assert (executed["component"], executed["message"]) == ("QueryBuilder", "Query executed")
        assert executed["context"]["symbol"] == "ES.c.0"
        assert executed["context"]["record_count"] == 4
        assert executed["context"]["date_range"] == "2024-01-01T00:00:00Z to 2024-02-01T00:00:00Z"
        assert 0 < executed["context"]["execution_time"] < 60
        assert pattern["message"] == "Query pattern"
        assert pattern["context"] == {"schema": "ohlcv-1d", "symbols_count": 1, "date_range_days": 31}


class TestMadeBars:
    @pytest.fixture
    def minutes(self, put):
        def call(*rows, **more):
            return put("ohlcv-1m", rows, ["CLG4"], JANUARY, MAPPED, **more)

        return call

    @staticmethod
    def prices(result):
        columns = ["ts_event", "open_price", "high_price", "low_price", "close_price", "volume"]
        return [(f"{t:%H:%M}", *map(float, ohlc), v) for t, *ohlc, v in result.collect().select(columns).rows()]

    def test_a_bar_is_first_open_highest_lowest_last_close_and_all_volume(self, minutes, ask):
        minutes(
            minute("14:59", (9, 9, 9, 9)),
            minute("15:00", (5, 7, 4, 6), volume=10),
            minute("15:03", (6, 6.5, -37.63, -1), volume=2**40),
            minute("15:04", (1, 8, 1, 2.5), volume=3),
            minute("15:05", (3, 3, 3, 3), volume=4),
        )
        result = ask("CLG4", schema="ohlcv-5m")
        assert self.prices(result) == [
            ("14:55", 9, 9, 9, 9, 1),
            ("15:00", 5, 8, -37.63, 2.5, 2**40 + 13),
            ("15:05", 3, 3, 3, 3, 4),
        ]
        row = result.collect().row(1, named=True)
        assert row["low_price"] == Decimal("-37.630000000")
        assert (row["granularity"], row["symbol"], row["trade_count"], row["vwap"]) == ("5m", "CLG4", None, None)
        assert result.collect().columns == ask("CLG4", schema="ohlcv-1m").collect().columns
        assert self.prices(ask("CLG4", schema="ohlcv-15m"))[1] == ("15:00", 5, 8, -37.63, 3, 2**40 + 17)

    def test_publishers_are_kept_apart(self, minutes, ask):
        minutes(minute("15:00", (5, 7, 4, 6), publisher=22), minute("15:01", (1, 2, 1, 2), publisher=20))
        frame = ask("CLG4", schema="ohlcv-5m").collect()
        assert frame.select("publisher_id", "open_price").rows() == [(20, Decimal(1)), (22, Decimal(5))]

    def test_a_window_that_cuts_a_bar_has_it_whole_where_its_start_is_within(self, minutes, ask):
        minutes(minute("15:00", (5, 5, 5, 5)), minute("15:07", (6, 6, 6, 6)), minute("15:09", (7, 7, 7, 7)))
        cut = ask("CLG4", "2024-01-02T15:03:00Z", "2024-01-02T15:08:00Z", schema="ohlcv-5m")
        assert self.prices(cut) == [("15:05", 6, 7, 6, 7, 2)]
        none = ask("CLG4", "2024-01-02T15:03:00Z", "2024-01-02T15:04:00Z", schema="ohlcv-5m")
        assert none.collect().height == 0
        assert any("no ohlcv-5m bar starts within" in line for line in none.explain())

    def test_a_bar_with_a_quarantined_minute_is_left_out_and_counted(self, minutes, ask):
        bad = (5, 4, 6, 5)
        minutes(
            minute("15:00", (5, 5, 5, 5)), minute("15:01", bad), minute("15:20", bad), minute("15:05", (6, 6, 6, 6))
        )
        result = ask("CLG4", schema="ohlcv-5m")
        assert self.prices(result) == [("15:05", 6, 6, 6, 6, 1)]
        assert result.notes == ["left out: 2 ohlcv-5m bars with a quarantined minute"]

    def test_a_bar_with_a_minute_that_was_not_ingested_is_left_out_and_counted(self, put, ask):
        window = ("2024-01-02T15:00", "2024-01-02T15:08")
        put("ohlcv-1m", [minute("15:04", (5, 5, 5, 5)), minute("15:05", (6, 6, 6, 6))], ["CLG4"], window, MAPPED)
        result = ask("CLG4", schema="ohlcv-5m")
        assert self.prices(result) == [("15:00", 5, 5, 5, 5, 1)]
        assert result.notes == ["left out: 1 ohlcv-5m bar with a minute that was never ingested whole"]

    def test_a_fragment_makes_no_bar(self, minutes, ask):
        minutes(minute("15:00", (5, 5, 5, 5)), limit=1)
        result = ask("CLG4", schema="ohlcv-5m")
        assert result.collect().height == 0
        assert "never ingested whole" in result.notes[0]

    def test_a_limit_counts_bars_and_not_minutes(self, minutes, ask):
        minutes(*(minute(f"15:{m:02}", (m, m, m, m)) for m in range(20)))
        result = ask("CLG4", schema="ohlcv-5m", limit=2)
        assert [p[0] for p in self.prices(result)] == ["15:00", "15:05"]
        assert result.limited


class TestNothingFound:
    @pytest.mark.usefixtures("rolled")
    def test_what_was_never_ingested_is_named_with_the_command(self, ask):
        lines = ask("ES.c.0", "2024-01-30", "2024-02-10").explain()
        assert lines[0] == "No data found for the specified criteria"
        assert "ES.c.0: never ingested: GLBX.MDP3 ohlcv-1d, 2024-02-01 to 2024-02-10" in lines
        assert "ES.c.0: confirmed empty: GLBX.MDP3 ohlcv-1d, 2024-01-30 to 2024-01-31" in lines
        command = "hdi ingest --api databento --dataset GLBX.MDP3 --schema ohlcv-1d --symbols ES.c.0"
        assert any(f"{command} --start-date 2024-02-01 --end-date 2024-02-10" in line for line in lines)

    @pytest.mark.usefixtures("rolled")
    def test_another_schema_is_said_to_be_there(self, ask):
        lines = ask("ES.c.0", schema="trades").explain()
        assert "ES.c.0: never ingested: GLBX.MDP3 trades, 2024-01-01 to 2024-01-31" in lines
        assert "ES.c.0: ingested so far: ohlcv-1d 2024-01-01 to 2024-01-31" in lines

    def test_a_symbol_without_a_row_is_known_and_confirmed_empty(self, put, ask):
        put("ohlcv-1d", [], ["ESZ9"], JANUARY)
        result = ask("ESZ9")
        assert result.collect().height == 0
        assert "ESZ9: confirmed empty: GLBX.MDP3 ohlcv-1d, 2024-01-01 to 2024-01-31" in result.explain()

    def test_quarantined_rows_are_counted_by_rule(self, put, ask):
        bad = {"at": "2024-01-02", "id": 7, "ohlc": (5, 4, 6, 5)}
        put("ohlcv-1d", [bad], ["CLG4"], JANUARY, MAPPED)
        result = ask("CLG4")
        assert result.collect().height == 0
        line = next(line for line in result.explain() if "quarantined" in line)
        assert line.startswith("CLG4: quarantined: 1 row of GLBX.MDP3 ohlcv-1d (")
        assert "HIGH_LESS_THAN_LOW 1" in line
        assert not any("confirmed empty" in text for text in result.explain())

    def test_rows_that_may_be_of_another_symbol_are_not_called_confirmed_empty(self, put, ask):
        put("ohlcv-1d", [day(2, 1)], ["ES.c.0", "CL.c.0"], JANUARY, stype="continuous")
        result = ask("ES.c.0")
        assert result.collect().height == 0
        assert any("do not say which rows are whose" in line for line in result.explain())
        assert not any("confirmed empty" in line for line in result.explain())

    @pytest.mark.usefixtures("rolled")
    def test_gaps_are_known_where_other_rows_were_found(self, ask):
        assert ask("ES.c.0").gaps() == []
        assert ask("ES.c.0", "2023-12-30", "2024-01-31").gaps() == [
            "ES.c.0: never ingested: GLBX.MDP3 ohlcv-1d, 2023-12-30 to 2023-12-31"
        ]


def test_parents_of_one_file_are_told_apart_by_its_definitions(demo_home):
    with HistoricalData.open(f"lake:{demo_home / 'lake'}") as facade:
        window = ("2024-01-02", "2024-01-04")
        both = facade.query("CL.FUT,ES.FUT", *window, schema="definition").collect()
        oil = facade.query("CL.FUT", *window, schema="definition").collect()
    assert both.height == 24
    assert set(oil["raw_symbol"]) == {"CLG4", "CLH4", "CLJ4", "CLK4"}
    assert oil.height == 12

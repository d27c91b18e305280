"""Continuous symbols on a lake: bare roots, symbols left out, adjusted prices, and what is refused."""

import json
from decimal import Decimal

import polars as pl
import pytest

from hdi import RequestError, UnknownSymbol

SPAN = ("2024-03-01", "2024-04-01")
H4, M4 = 101, 102
ROLL = {"ES.c.0": [("2024-03-01", "2024-03-16", H4), ("2024-03-16", "2024-04-01", M4)]}
NAMES = {"ESH4": [(*SPAN, H4)], "ESM4": [(*SPAN, M4)]}


def bar(number, instrument, close):
    return {"at": f"2024-03-{number:02}", "id": instrument, "ohlc": (close, close + 1, close - 1, close)}


@pytest.fixture
def front(put):
    """ES.c.0 alone: the March contract to the 15th, then the June one, which was never traded before."""
    rows = [bar(14, H4, 5100), bar(15, H4, 5110), bar(18, M4, 5170), bar(19, M4, 5180)]
    put("ohlcv-1d", rows, ["ES.c.0"], SPAN, ROLL, stype="continuous")
    put("ohlcv-1h", [], ["ESH4", "ESM4"], SPAN, NAMES)


@pytest.fixture
def both(put):
    """The same, and the June contract on the days before."""
    put("ohlcv-1d", [bar(13, M4, 5150), bar(14, M4, 5155.25), bar(18, M4, 5170), bar(19, M4, 5180)], ["ESM4"], SPAN,
        {"ESM4": NAMES["ESM4"]})  # fmt: skip


def closes(result):
    return [float(c) for c in result.polars()["close_price"]]


@pytest.mark.usefixtures("front")
class TestSymbols:
    def test_a_bare_root_is_its_front_contract_and_the_notes_say_so(self, data):
        result = data.query("es")
        assert result.notes == ["es is ES.c.0 here"]
        assert result.polars().equals(data.query("ES.c.0").polars())
        assert result.notes == ["es is ES.c.0 here"]

    def test_a_stored_raw_symbol_goes_before_the_root_that_it_could_be(self, data, put):
        put("ohlcv-1d", [bar(18, 7, 30)], ["ES"], SPAN, {"ES": [(*SPAN, 7)]}, dataset="XNAS.ITCH")
        assert data.query("ES").polars()["instrument_id"].to_list() == [7]

    def test_a_root_whose_mapping_is_not_stored_is_unknown_and_told_how_to_get_it(self, data, put):
        put("ohlcv-1d", [bar(18, 9, 70)], ["CLK4"], SPAN, {"CLK4": [(*SPAN, 9)]})
        with pytest.raises(UnknownSymbol, match="unknown symbol: CL") as caught:
            data.query("CL")
        assert "CLK4 is stored: hdi ingest --api databento --symbols CL.c.0" in caught.value.hint

    def test_unknown_symbols_beside_known_ones_are_left_out_with_the_closest_names(self, data):
        result = data.query("ES.c.0,ESH5,NQM4")
        assert closes(result) == [5100, 5110, 5170, 5180]
        assert [note.partition(". ")[0] for note in result.notes] == [
            "unknown symbol: ESH5; left out", "unknown symbol: NQM4; left out",
        ]  # fmt: skip
        assert "Did you mean ESH4" in result.notes[0]

    def test_where_a_bare_root_is_no_symbol_its_front_contract_is_named(self, data):
        for ask in (data.coverage, data.gaps):
            with pytest.raises(UnknownSymbol, match="unknown symbol: ES") as caught:
                ask("ES")
            assert "Did you mean ES.c.0, its front contract?" in caught.value.hint

    def test_symbols_none_of_which_is_known_are_refused(self, data):
        with pytest.raises(UnknownSymbol, match="unknown symbols: ESH5, NQM4"):
            data.query("ESH5,NQM4")

    def test_the_command_says_what_it_left_out(self, cli, store):
        ran = cli("--store", store, "query", "-s", "ES,NQM4", "--start-date", "2024-03-01", "--end-date", "2024-03-31")
        assert ran.code == 0
        assert "NQM4; left out" in ran.err
        assert "ES is ES.c.0 here" in ran.err

    def test_a_value_that_a_column_cannot_have_is_refused(self, data):
        for where, message in (
            ({"volme": 1}, "unknown column 'volme' of ohlcv"),
            ({"volume": "many"}, "'many' is no value of volume"),
            ({"volume": 2**63}, "is no value of volume"),
            ({"close_price": 5110}, "rows are not chosen by close_price, which is a price"),
        ):
            with pytest.raises(RequestError, match=message):
                data.query("ES.c.0", where=where)

    def test_rows_are_chosen_by_whole_numbers_and_text_whatever_the_number_is_written_as(self, data):
        for chosen in (M4, str(M4), [M4, 5]):
            assert closes(data.query("ES.c.0", where={"instrument_id": chosen, "symbol": "ESM4"})) == [5170, 5180]


@pytest.mark.usefixtures("front", "both")
class TestAdjusted:
    def test_backward_moves_what_was_before_the_roll_and_forward_what_comes_after(self, data):
        # Both traded on the 14th for the last time: at 5100 and 5155.25.
        assert closes(data.query("ES.c.0", adjust="backward")) == [5155.25, 5165.25, 5170, 5180]
        assert closes(data.query("ES.c.0", adjust="forward")) == [5100, 5110, 5114.75, 5124.75]
        assert closes(data.query("ES.c.0", adjust="none")) == closes(data.query("ES.c.0")) == [5100, 5110, 5170, 5180]

    def test_by_ratio_prices_keep_their_relative_moves(self, data):
        found = data.query("ES.c.0", adjust="backward", by="ratio").polars()["close_price"].to_list()
        assert found[:2] == [Decimal("5155.25"), Decimal("5165.358333333")]

    def test_the_rolls_are_beside_the_series(self, data):
        result = data.query("ES.c.0", adjust="backward", columns=["close_price"], limit=1)
        assert result.polars().rows() == [(Decimal("5155.25"),)]
        (roll,) = result.rolls.polars().rows(named=True)
        assert (roll["old_contract"], roll["new_contract"], roll["factor"]) == ("ESH4", "ESM4", Decimal("55.25"))
        assert str(roll["at"]).startswith("2024-03-16")
        assert str(roll["old_time"]).startswith("2024-03-14")

    def test_volumes_and_all_that_is_no_level_of_price_stay(self, data):
        plain, moved = data.query("ES.c.0").polars(), data.query("ES.c.0", adjust="backward").polars()
        prices = ["open_price", "high_price", "low_price", "close_price"]
        assert moved.drop(prices).equals(plain.drop(prices))
        assert (moved["high_price"] - moved["low_price"]).equals(plain["high_price"] - plain["low_price"])

    def test_bars_are_adjusted_whole_and_the_command_shows_them_with_their_rolls(self, data, cli, store):
        # The week of the roll has a bar of each contract, and both start before the turn of the second.
        week = data.bars("ES.c.0", every="1w", adjust="forward")
        plain = data.bars("ES.c.0", every="1w")
        assert [a - b for a, b in zip(closes(week), closes(plain), strict=True)] == [0, -55.25]
        assert week.rolls.polars()["factor"].to_list() == [Decimal("-55.25")]
        assert repr(week).endswith("made of ohlcv-1d, adjusted>")
        ran = cli("--store", store, "bars", "-s", "ES.c.0", "--every", "1w", "--adjust", "forward", "--at", "gap")
        assert (ran.code, ran.err.count("2024-03-16T00:00:00Z")) == (0, 1)
        assert "adjusted forward by difference at 1 roll" in ran.err

    def test_a_window_that_ends_before_a_roll_knows_nothing_of_it(self, data):
        assert closes(data.query("ES.c.0", end="2024-03-15", adjust="backward")) == [5100, 5110]

    def test_what_cannot_be_adjusted_is_refused(self, data):
        for symbols, more, message in (
            ("ESH4", {}, "ESH4 is no continuous symbol"),
            ("ALL_SYMBOLS", {}, "every symbol is asked for"),
            ("ES.c.0", {"schema": "statistics"}, "statistics has no prices that could be adjusted"),
            ("ES.c.0", {"by": "ratios"}, "'ratios' is no way to adjust"),
            ("ES.c.0", {"adjust": "back"}, "'back' is no way to adjust"),
            ("ES.c.0", {"at": "roll"}, "'roll' is no way to adjust"),
        ):
            with pytest.raises(RequestError, match=message):
                data.query(symbols, **({"adjust": "backward"} | more))

    def test_two_series_of_one_contract_at_a_time_are_refused(self, data, put):
        spans = {"ES.v.0": [("2024-03-01", "2024-03-13", H4), ("2024-03-13", "2024-04-01", M4)]}
        put("ohlcv-1h", [], ["ES.v.0"], SPAN, spans, stype="continuous")
        with pytest.raises(RequestError, match=r"ES\.c\.0 and ES\.v\.0 are both ESH4 at 2024-03-01"):
            data.query("ES.c.0,ES.v.0", adjust="backward")


@pytest.mark.usefixtures("front")
def test_a_roll_whose_new_contract_was_not_bought_before_is_refused_with_the_command_that_buys_it(data):
    with pytest.raises(RequestError, match=r"ES\.c\.0 rolls from ESH4 to ESM4 on 2024-03-16") as caught:
        data.query("ES.c.0", adjust="backward")
    assert "--schema ohlcv-1d --symbols ESM4 --start-date 2024-03-09 --end-date 2024-03-15" in caught.value.hint
    gap = data.query("ES.c.0", adjust="backward", at="gap")
    assert gap.rolls.polars().select("old_price", "new_price", "factor").rows() == [(5110, 5170, 60)]


def test_prices_that_are_not_positive_have_no_ratio(data, put):
    spans = {"CL.c.0": [("2024-03-01", "2024-03-16", 1), ("2024-03-16", "2024-04-01", 2)]}
    rows = [bar(15, 1, -37.63), bar(18, 2, 20.43)]
    put("ohlcv-1d", rows, ["CL.c.0"], SPAN, spans, stype="continuous")
    put("ohlcv-1d", [bar(15, 2, 21)], ["2"], SPAN, {}, stype="instrument_id")
    with pytest.raises(RequestError, match=r"the prices are -37\.63.* not positive"):
        data.query("CL.c.0", adjust="backward", by="ratio")
    assert closes(data.query("CL.c.0", adjust="backward")) == [21, 20.43]


@pytest.mark.usefixtures("front")
class TestRules:
    def test_the_vendors_rolls_are_the_stored_mapping(self, data):
        found = data.rolls("ES").polars()
        assert found.select("symbol", "contract", "rule").rows() == [
            ("ES.c.0", "ESH4", "vendor"), ("ES.c.0", "ESM4", "vendor"),
        ]  # fmt: skip
        assert [str(d) for d in found["last_day"]] == ["2024-03-15", "2024-03-31"]

    def test_a_rule_that_lacks_its_data_says_what_to_ingest_and_guesses_nothing(self, data):
        for rule, schema in (("calendar", "definition"), ("volume", "ohlcv-1d"), ("open-interest", "statistics")):
            with pytest.raises(RequestError, match="stands for nothing on 2024-03-01 to 2024-03-31") as caught:
                data.query("ES", "2024-03-01", "2024-03-31", roll=rule)
            assert f"--schema {schema} --symbols ES.FUT" in caught.value.hint

    def test_a_rule_that_decides_none_of_the_symbols_is_refused(self, data):
        for symbols in ("ESH4,ESM4", "ALL_SYMBOLS"):
            with pytest.raises(RequestError, match="the roll rule 'volume' says nothing of") as caught:
                data.query(symbols, roll="volume")
            assert "such as ES.v.0" in caught.value.hint

    def test_no_contract_of_a_root_is_an_unknown_symbol(self, data):
        with pytest.raises(UnknownSymbol, match="no contract of NQ is stored"):
            data.query("NQ", roll="volume")

    def test_by_volume_of_several_contracts_that_were_bought_by_their_names(self, data, put):
        rows = [bar(n, i, 5000) | {"volume": v} for n, *two in ((11, 9, 1), (12, 9, 2), (13, 1, 8), (14, 9, 8))
                for i, v in zip((H4, M4), two, strict=True)]  # fmt: skip
        put("ohlcv-1d", rows, ["ESH4", "ESM4"], ("2024-03-11", "2024-03-15"), NAMES)
        answer = data.rolls("ES", "2024-03-12", "2024-03-15", roll="volume")
        assert [(str(a), c) for a, c in answer.polars().select("first_day", "contract").rows()] == [
            ("2024-03-12", "ESH4"), ("2024-03-14", "ESM4"),
        ]  # fmt: skip
        assert "those of ES.FUT were never asked for as a whole" in " ".join(answer.notes)
        result = data.query("ES", "2024-03-12", "2024-03-14", roll="volume")
        assert result.polars().select(pl.col("ts_event").dt.day(), "symbol").rows() == [
            (12, "ESH4"), (13, "ESH4"), (14, "ESM4"),
        ]  # fmt: skip

    def test_a_day_after_a_rejected_bar_has_no_contract_and_the_rule_does_not_roll(self, data, put):
        rows = [bar(n, i, 5000) | {"volume": v} for n, *two in ((11, 9, 1), (12, 9, 2), (13, 9, 1))
                for i, v in zip((H4, M4), two, strict=True)]  # fmt: skip
        rows[2]["ohlc"] = (5000, 4000, 6000, 5000)
        put("ohlcv-1d", rows, ["ESH4", "ESM4"], ("2024-03-11", "2024-03-15"), NAMES)
        answer = data.rolls("ES", "2024-03-12", "2024-03-14", roll="volume")
        assert [(str(a), c) for a, c in answer.polars().select("first_day", "contract").rows()] == [
            ("2024-03-12", "ESH4"), ("2024-03-14", "ESH4"),
        ]  # fmt: skip
        assert "stands for nothing on 2024-03-13: a ohlcv-1d row of the session before was rejected" in answer.notes[0]

    def test_a_rank_that_no_contract_has_is_refused(self, data, put):
        put("ohlcv-1d", [bar(12, H4, 5000), bar(12, M4, 5000)], ["ESH4", "ESM4"], ("2024-03-11", "2024-03-14"), NAMES)
        with pytest.raises(RequestError, match="2024-03-13: fewer contracts are known then than its rank asks for"):
            data.rolls("ES.v.7", "2024-03-13", "2024-03-13", roll="volume")

    def test_unknown_symbols_have_no_rolls_beside_known_ones_and_are_told(self, data):
        answer = data.rolls("ES.c.0,XX")
        assert answer.polars()["contract"].to_list() == ["ESH4", "ESM4"]
        assert "unknown symbol: XX; left out" in answer.notes[0]
        for symbols in ("XX", "XX,YY"):
            with pytest.raises(UnknownSymbol, match="unknown symbol: XX"):
                data.rolls(symbols)
        with pytest.raises(RequestError, match="ESH4 is no continuous symbol"):
            data.rolls("ES.c.0,ESH4")

    def test_a_root_without_contracts_is_left_out_beside_one_with_some(self, data, put):
        put(
            "ohlcv-1d",
            [bar(12, H4, 5000), bar(12, M4, 5000), bar(13, H4, 5001)],
            ["ESH4", "ESM4"],
            ("2024-03-11", "2024-03-15"),
            NAMES,
        )
        result = data.query("ES,NQ", "2024-03-13", "2024-03-14", roll="volume")
        assert "no contract of NQ is stored; left out" in " ".join(result.notes)
        assert set(result.polars()["symbol"]) == {"ESH4"}

    def test_the_command_shows_the_rolls_by_a_rule(self, cli, store):
        ran = cli("--store", store, "--json", "symbols", "ES", "--roll", "vendor")
        assert [row["contract"] for row in json.loads(ran.out)] == ["ESH4", "ESM4"]
        ran = cli("--store", store, "symbols", "ES.c.0", "--roll", "volume")
        assert ran.code == 2
        assert "Write ES.v.0" in ran.err

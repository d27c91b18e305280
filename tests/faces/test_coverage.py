"""``hdi coverage``: shares of days by the exchange's calendar, rows as they were written, and pictures of both."""

import datetime as dt
import json
import re
import struct

import pytest

import hdi
from faces.conftest import write_dbn
from hdi import covered
from hdi.cli.plots import blank
from hdi.covered.lines import Month
from hdi.errors import RequestError

OHLC = (10, 12, 9, 11)
YEAR = ("2024-01-01", "2025-01-01")


def bars(instrument, *days):
    return [{"at": day, "id": instrument, "ohlc": OHLC} for day in days]


def months(line):
    """month: (days, held, partly, rows, state) of one line of the JSON document."""
    return {
        m["month"]: (m["days"], m["held_days"], m["partly_held_days"], m["rows"], m["state"]) for m in line["months"]
    }


@pytest.fixture
def ask(cli, store):
    """Runs ``hdi coverage`` on the lake of the test, or another, which must work."""

    def call(*arguments, of=store, before=()):
        ran = cli("--store", of, *before, "coverage", *arguments)
        assert ran.code == 0, ran.err
        return ran

    return call


@pytest.fixture
def lines(ask):
    """The lines of the JSON document, by schema and symbol."""

    def call(*arguments, **of):
        document = json.loads(ask(*arguments, before=["--json"], **of).out)
        return {(line["schema"], line["symbol"]): line for line in document["lines"]}

    return call


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """ESH4: daily bars, bought from 2024-01-01 through 2024-02-10, of two days of January; minute bars of one day.

    Nobody writes there.
    """
    home = tmp_path_factory.mktemp("one")
    long, short = ("2024-01-01", "2024-02-11"), ("2024-01-02", "2024-01-03")
    days, minutes = bars(1, "2024-01-03", "2024-01-30"), bars(1, "2024-01-02T10:00", "2024-01-02T10:01")
    flags = {"data_dir": str(home), "dlq_dir": str(home / "dlq"), "log.dir": str(home / "logs")}
    with hdi.HistoricalData.open(f"lake:{home / 'lake'}", **flags) as data:
        for schema, rows, window in (("ohlcv-1d", days, long), ("ohlcv-1m", minutes, short)):
            path = write_dbn(home / f"{schema}.dbn.zst", schema, rows, ["ESH4"], window, {"ESH4": [(*window, 1)]})
            assert [o.status for o in data.ingest_files([path])] == ["stored"]
    return f"lake:{home / 'lake'}"


def test_a_month_counts_the_days_with_a_session_and_those_that_are_held(one, lines):
    line = lines(of=one)["ohlcv-1d", "ESH4"]
    # January 2024 has four Saturdays and begins on a Monday that Globex opens in the evening of; Sundays open then too.
    # Of February's 29 days four are Saturdays; ten are held, two of them Saturdays.
    assert months(line) == {"2024-01": (27, 27, 0, 2, "full"), "2024-02": (25, 8, 0, 0, "part")}
    assert (line["first_day"], line["last_day"], line["rows"], line["calendar"]) == (
        "2024-01-03", "2024-01-30", 2, "CMES",
    )  # fmt: skip
    assert (line["days"], line["held_days"], line["partly_held_days"], line["degraded_days"]) == (52, 35, 0, 0)


def test_a_month_that_is_held_and_has_no_row_is_confirmed_empty(put, lines):
    window = ("2024-01-01", "2024-04-01")
    put("ohlcv-1d", bars(1, "2024-01-03", "2024-03-05"), ["ESH4"], window, {"ESH4": [(*window, 1)]})
    assert {month: told[-1] for month, told in months(lines()["ohlcv-1d", "ESH4"]).items()} == {
        "2024-01": "full", "2024-02": "empty", "2024-03": "full"
    }  # fmt: skip


def test_the_text_has_a_strip_for_each_symbol_with_its_numbers(one, ask):
    head, years, letters, strip, *rest = ask("--schema", "ohlcv-1d", of=one).out.splitlines()
    assert head == "GLBX.MDP3 ohlcv-1d: 1 symbol, calendar CMES"
    assert years.split() == ["24"]
    assert letters.split() == ["symbol", "JF", "first", "day", "last", "day", "rows", "units", "days", "held"]
    assert strip.split() == ["ESH4", "#-", "2024-01-03", "2024-01-30", "2", "1", "35", "of", "52"]
    assert "# every day held" in rest
    assert rest[-1] == "1 strip in all"
    assert all(text.isascii() for text in (head, years, letters, strip, *rest))


def test_a_window_that_is_named_is_shown_whole_and_no_day_beyond_it(one, lines):
    line = lines("--start-date", "2023-12-15", "--end-date", "2024-01-10", of=one)["ohlcv-1d", "ESH4"]
    # December: 15th to 31st without the Saturdays, and without the Sundays before Christmas and New Year on Mondays.
    assert months(line) == {"2023-12": (12, 0, 0, 0, "none"), "2024-01": (9, 9, 0, 1, "full")}
    assert line["last_day"] == "2024-01-03"


def test_without_dates_the_strip_begins_and_ends_where_there_is_something(put, lines):
    january, june = ("2024-01-01", "2024-02-01"), ("2024-06-01", "2024-07-01")
    put("ohlcv-1d", bars(1, "2024-01-03"), ["ESH4"], january, {"ESH4": [(*january, 1)]})
    put("ohlcv-1d", bars(2, "2024-06-04"), ["ESU4"], june, {"ESU4": [(*june, 2)]})
    assert list(months(lines()["ohlcv-1d", "ESH4"])) == [f"2024-0{i}" for i in range(1, 7)]
    assert list(months(lines("-s", "ESU4")["ohlcv-1d", "ESU4"])) == ["2024-06"]


def test_a_day_that_is_held_in_part_is_told_apart(put, lines):
    window = ("2024-01-02", "2024-01-03T12:00")
    put("ohlcv-1h", bars(1, "2024-01-02T03:00"), ["ESH4"], window, {"ESH4": [("2024-01-02", "2024-01-04", 1)]})
    assert months(lines()["ohlcv-1h", "ESH4"]) == {"2024-01": (27, 1, 1, 1, "part")}


def test_a_continuous_symbol_has_the_rows_of_each_contract_while_it_stood_for_it(put, lines):
    rolled = {"ES.c.0": [("2024-01-01", "2024-03-16", 1), ("2024-03-16", YEAR[1], 2)]}
    days = ("2024-03-14", "2024-03-15", "2024-03-18", "2024-03-19")
    mine = bars(1, *days[:2]) + bars(2, *days[2:])
    put("ohlcv-1d", mine, ["ES.c.0"], YEAR, rolled, stype="continuous")
    # The next contract before the roll, bought by its own name: no row of the continuous symbol.
    early = ("2024-03-01", "2024-03-16")
    put("ohlcv-1d", bars(2, "2024-03-14"), ["ESM4"], early, {"ESM4": [(*early, 2)]})
    found = lines()
    assert found["ohlcv-1d", "ES.c.0"]["rows"] == 4
    # 2024 has 366 days; 52 Saturdays, and Good Friday, have no session.
    assert found["ohlcv-1d", "ES.c.0"]["held_days"] == found["ohlcv-1d", "ES.c.0"]["days"] == 366 - 52 - 1
    assert found["ohlcv-1d", "ESM4"]["rows"] == 1


def test_a_contract_is_held_where_its_family_is(put, lines):
    window = ("2024-01-01", "2024-03-01")
    contracts = {"ES.FUT": [(*window, 1), (*window, 2)]}
    rows = bars(1, "2024-01-03", "2024-02-05") + bars(2, "2024-02-06")
    put("ohlcv-1d", rows, ["ES.FUT"], window, contracts, stype="parent")
    assert lines("-s", "1")["ohlcv-1d", "1"]["rows"] == 2
    held = lines("-s", "2")["ohlcv-1d", "2"]
    assert months(held)["2024-01"] == (27, 27, 0, 0, "empty")
    assert months(held)["2024-02"] == (25, 25, 0, 1, "full")
    assert held["units"] == 0


def test_kinds_of_data_are_told_apart_and_can_be_named(one, lines):
    assert {key: line["rows"] for key, line in lines(of=one).items()} == {
        ("ohlcv-1d", "ESH4"): 2, ("ohlcv-1m", "ESH4"): 2
    }  # fmt: skip
    # Bars of five minutes are made from those of one.
    assert list(lines("--schema", "ohlcv-5m", of=one)) == [("ohlcv-1m", "ESH4")]
    assert lines("--schema", "trades", of=one) == {}


def test_rows_that_no_symbol_is_known_of_are_counted_too(put, ask, lines):
    window = ("2024-01-01", "2024-02-01")
    rows = bars(77, "2024-01-05") + bars(1, "2024-01-08")
    put("ohlcv-1d", rows, ["A", "B"], window, {"A": [(*window, 1)]})
    found = lines()
    assert {symbol: line["rows"] for (_, symbol), line in found.items()} == {"A": 1, "B": 0, None: 1}
    assert found["ohlcv-1d", None]["units"] == 0
    assert "(no symbol)" in ask().out


def test_a_member_of_a_group_that_was_never_stored_has_a_line_with_nothing_and_a_note(one, ask, lines, tmp_path, cli):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "symbol_groups.yaml").write_text("INDEX: [ESH4, NQH4]\nOTHERS: [NQH4, RTYH4]\n")
    found = lines("-s", "@INDEX", "--schema", "ohlcv-1d", of=one)
    held, lost = found["ohlcv-1d", "ESH4"], found["ohlcv-1d", "NQH4"]
    assert {m["state"] for m in lost["months"]} == {"none"}
    assert (lost["rows"], lost["units"], lost["held_days"]) == (0, 0, 0)
    assert (lost["days"], lost["calendar"]) == (held["days"], held["calendar"])
    ran = ask("-s", "@INDEX", of=one)
    assert ran.err == "note: nothing is stored of NQH4, which a group names\n"
    assert ran.out.count("NQH4") == 2  # daily and minute bars
    ran = ask("-s", "@OTHERS", of=one)
    assert ran.out.startswith("Nothing is held of it.")
    assert "NQH4, RTYH4" in ran.err
    # What is named by itself too is an error.
    ran = cli("--store", one, "coverage", "-s", "@INDEX,NQH4")
    assert (ran.code, ran.out) == (2, "")
    assert "unknown symbol: NQH4" in ran.err


def test_nothing_held_is_said_and_is_no_error(ask):
    assert ask().out == "Nothing is held of it.\n"
    assert json.loads(ask(before=["--json"]).out)["lines"] == []


def test_long_strips_go_on_below_and_leave_no_year_out(put, ask):
    years = [(f"{year}-01-01", f"{year + 1}-01-01") for year in range(2018, 2024)]
    span = (years[0][0], years[-1][1])
    put("ohlcv-1d", bars(1, *(f"{year[0][:4]}-06-01" for year in years)), ["ES"], span, {"ES": [(*span, 1)]})
    out = ask().out
    strips = [text for text in out.splitlines() if text.startswith("ES ")]
    assert sum(len(cells) for text in strips for cells in re.findall(r"[#o]{12}", text)) == 12 * len(years)
    assert len(strips) > 1
    assert all(len(text) <= 120 for text in out.splitlines())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("-s", "ESH5"), "unknown symbol: ESH5\nDid you mean ESH4?"),
        (("-s", "ESH4,NOPE"), "unknown symbol: NOPE"),
        (("--schema", "ohlcv-2d"), "unknown schema 'ohlcv-2d'\nDid you mean"),
        (("--dataset", "GLBX"), "unknown dataset 'GLBX'\nDid you mean GLBX.MDP3?"),
        (("--start-date", "2024-02-01", "--end-date", "2024-01-01"), "is not before the end date"),
        (("--start-date", "yesterday"), "'yesterday' is not a date"),
        (("--plot", "strip.pdf"), "strip.pdf: a plot is written as .html or .png"),
        (("--plot", "strip"), "strip: a plot is written as .html or .png"),
    ],
)
def test_what_is_wrong_is_refused_with_what_was_meant(one, cli, arguments, told):
    ran = cli("--store", one, "coverage", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err


def test_a_picture_in_html_needs_no_network_and_carries_the_numbers(one, ask, tmp_path):
    ran = ask("--schema", "ohlcv-1d", "--plot", tmp_path / "new" / "strips.html", of=one)
    assert "1 strip drawn in" in ran.err
    text = (tmp_path / "new" / "strips.html").read_text()
    assert not re.findall(r"<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)\s*=", text)
    assert "Plotly.newPlot" in text
    called = text[text.rindex("Plotly.newPlot") :]
    assert "all days: 27 of 27 days" in called
    assert "2 rows" in called
    assert "ESH4" in called


def test_a_picture_in_png_is_one(one, ask, tmp_path):
    ask("--plot", tmp_path / "strips.png", of=one)
    head = (tmp_path / "strips.png").read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", head[16:24])
    assert width >= 900
    assert height >= 100


def test_nothing_is_drawn_of_nothing(cli, store, tmp_path):
    ran = cli("--store", store, "coverage", "--plot", tmp_path / "a.png")
    assert ran.code == 2
    assert "nothing to draw" in ran.err
    assert not (tmp_path / "a.png").exists()


def test_a_png_that_would_be_too_high_is_refused():
    with pytest.raises(RequestError, match="more than can be made"):
        blank(8, 501)


def test_rows_are_the_same_when_there_are_too_many_to_be_counted_at_once(one, lines, monkeypatch):
    whole = lines(of=one)
    monkeypatch.setattr(covered, "_MANY_ROWS", 1)
    assert lines(of=one) == whole


@pytest.mark.parametrize(
    ("numbers", "state"),
    [
        ((20, 20, 0, 0, 5), "full"),
        ((20, 20, 0, 0, 0), "empty"),
        ((20, 20, 0, 1, 5), "degraded"),
        ((20, 19, 1, 0, 5), "most"),
        ((20, 10, 0, 0, 0), "most"),
        ((20, 9, 0, 0, 5), "part"),
        ((20, 0, 1, 0, 0), "part"),
        ((20, 0, 0, 0, 5), "part"),
        ((20, 0, 0, 0, 0), "none"),
        ((0, 0, 0, 0, 0), "none"),
    ],
)
def test_a_month_looks_as_its_numbers_say(numbers, state):
    assert Month(dt.date(2024, 1, 1), *numbers).state == state


def test_a_terminal_is_given_blocks_and_no_line_wider_than_it_where_a_year_fits(one, ask, monkeypatch):
    monkeypatch.setattr("hdi.cli.coverage.terminal", lambda _: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    out = ask("--schema", "ohlcv-1d", "--start-date", "2022-01-01", "--end-date", "2024-02-29", of=one).out
    strips = [text.split() for text in out.splitlines() if text.startswith("ESH4 ")]
    assert [cells[1] for cells in strips] == ["·" * 12, "·" * 12, "█░"]
    assert all(len(text) <= 80 for text in out.splitlines())


def test_colours_are_for_terminals_that_want_them(one, ask, monkeypatch):
    monkeypatch.setattr("hdi.cli.coverage.terminal", lambda _: True)
    assert "\033[32m█\033[0m" in ask(of=one).out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033" not in ask(of=one).out

"""When is traded, against what the exchanges announced; and every mistake in a table told with its place."""

import datetime as dt
import random
import re
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from hdi.calendars import Calendars, product_of
from hdi.calendars.tables import PACKAGED, tables
from hdi.errors import ConfigError
from hdi.model import DAY_NS, Window, date_ns, ns_date

GLOBEX, NASDAQ, OPTIONS, LONDON, NEW_YORK = "GLBX.MDP3", "XNAS.ITCH", "OPRA.PILLAR", "IFEU.IMPACT", "IFUS.IMPACT"
CHICAGO = ZoneInfo("America/Chicago")
HOUR_NS = 3_600 * 10**9

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def calendars():
    return Calendars.load(None)


@pytest.fixture
def own(tmp_path):
    """The calendars with a ``calendars.yaml`` of that text."""

    def own(text):
        (tmp_path / "calendars.yaml").write_text(text, encoding="utf-8")
        return Calendars.load(tmp_path)

    return own


def sessions(calendars, dataset, first, last, symbol=""):
    """(session, open, close, early) with times as UTC text."""
    frame = calendars.sessions(dataset, Window.parse(first, last), symbol)
    times = [pl.from_epoch(c, "ns").dt.strftime("%m-%d %H:%M").alias(c) for c in ("open", "close")]
    return [(str(day), *rest) for day, *rest in frame.with_columns(times).iter_rows()]


def closed(calendars, dataset, first, last, *symbols):
    """The closed UTC days, as text."""
    runs = calendars.closed(dataset, Window.parse(first, last), symbols)
    return [str(ns_date(at)) for run in runs for at in range(run.start, run.end, DAY_NS)]


def test_a_globex_session_opens_at_five_in_the_evening_before_and_ends_at_four(calendars):
    assert sessions(calendars, GLOBEX, "2024-01-08", "2024-01-08", "ES.c.0") == [
        ("2024-01-08", "01-07 23:00", "01-08 22:00", False),
        ("2024-01-09", "01-08 23:00", "01-09 22:00", False),
    ]


def test_the_hour_between_two_globex_sessions_belongs_to_none(calendars):
    frame = calendars.sessions(GLOBEX, Window.parse("2024-01-08", "2024-01-11"))
    breaks = (frame["open"] - frame["close"].shift(1)).drop_nulls().to_list()
    assert set(breaks) == {HOUR_NS}


def test_sunday_is_no_closed_day_of_globex_and_saturday_is(calendars):
    assert closed(calendars, GLOBEX, "2024-01-05", "2024-01-09", "ES.c.0") == ["2024-01-06"]


@pytest.mark.parametrize(
    ("day", "closes"),
    [
        ("2023-11-23", "18:00"),  # Thanksgiving
        ("2024-01-15", "18:00"),  # Martin Luther King's Day
        ("2024-05-27", "17:00"),  # Memorial Day, in summer time
        ("2024-06-19", "17:00"),  # Juneteenth
        ("2024-07-04", "17:00"),
        ("2024-11-28", "18:00"),
        ("2024-12-24", "18:00"),
    ],
)
def test_globex_closes_at_noon_in_chicago_on_us_holidays(calendars, day, closes):
    found = {s[0]: s for s in sessions(calendars, GLOBEX, day, day, "ES.FUT")}
    assert found[day][2:] == (f"{day[5:]} {closes}", True)
    assert closed(calendars, GLOBEX, day, day, "ES.FUT") == []


def test_good_friday_2024_is_closed_for_all_of_globex(calendars):
    for symbol in ("ES.c.0", "CLK4", "ZC.FUT", "6EM4", "ZNM4"):
        assert closed(calendars, GLOBEX, "2024-03-28", "2024-04-01", symbol) == ["2024-03-29", "2024-03-30"]
        assert calendars.why(GLOBEX, dt.date(2024, 3, 29), symbol) == "holiday"


@pytest.mark.parametrize(
    ("symbol", "close"),
    [("ESM3", "04-07 13:15"), ("NQ.c.0", "04-07 13:15"), ("ZNM3", "04-07 15:15"), ("6E.FUT", "04-07 15:15")],
)
def test_good_friday_2023_was_a_short_session_of_what_a_jobs_report_moves(calendars, symbol, close):
    assert ("2023-04-07", "04-06 22:00", close, True) in sessions(calendars, GLOBEX, "2023-04-07", "2023-04-07", symbol)
    assert calendars.why(GLOBEX, dt.date(2023, 4, 7), symbol) == ""


@pytest.mark.parametrize("symbol", ["CLK3", "GC.c.0", "NG.FUT", "HEM3"])
def test_good_friday_2023_was_closed_for_energy_metals_and_livestock(calendars, symbol):
    assert closed(calendars, GLOBEX, "2023-04-07", "2023-04-07", symbol) == ["2023-04-07"]
    assert calendars.why(GLOBEX, dt.date(2023, 4, 7), symbol) == "Good Friday"


def test_christmas_on_a_monday_leaves_the_sunday_before_closed_and_opens_again_in_the_evening(calendars):
    assert closed(calendars, GLOBEX, "2023-12-22", "2023-12-26", "CL.c.0") == ["2023-12-23", "2023-12-24"]
    assert [s[:2] for s in sessions(calendars, GLOBEX, "2023-12-23", "2023-12-25", "CL.c.0")] == [
        ("2023-12-26", "12-25 23:00")
    ]
    assert closed(calendars, GLOBEX, "2023-12-30", "2024-01-01") == ["2023-12-30", "2023-12-31"]


def test_globex_traded_on_the_stock_exchanges_day_of_mourning(calendars):
    assert ("2025-01-09", "01-08 23:00", "01-09 14:30", True) in sessions(
        calendars, GLOBEX, "2025-01-09", "2025-01-09", "ESH5"
    )
    assert ("2025-01-09", "01-08 23:00", "01-09 22:00", False) in sessions(
        calendars, GLOBEX, "2025-01-09", "2025-01-09", "CLG5"
    )
    assert closed(calendars, NASDAQ, "2025-01-09", "2025-01-09") == []  # the evening of the 8th ends on the 9th, UTC
    assert "2025-01-09" not in {s[0] for s in sessions(calendars, NASDAQ, "2025-01-09", "2025-01-09")}


def test_the_leap_day_is_a_day_of_trading(calendars):
    assert "2024-02-29" in {s[0] for s in sessions(calendars, GLOBEX, "2024-02-29", "2024-02-29")}
    assert closed(calendars, GLOBEX, "2024-02-28", "2024-03-04") == ["2024-03-02"]


def test_sessions_keep_the_local_clock_across_both_changes_of_it(calendars):
    # Clocks went forward on 2024-03-10 and back on 2024-11-03, both Sundays before the open.
    spring = sessions(calendars, GLOBEX, "2024-03-07", "2024-03-11", "ES.c.0")
    assert [s[1:3] for s in spring if s[0] in {"2024-03-08", "2024-03-11"}] == [
        ("03-07 23:00", "03-08 22:00"),
        ("03-10 22:00", "03-11 21:00"),
    ]
    autumn = sessions(calendars, GLOBEX, "2024-10-31", "2024-11-04", "ES.c.0")
    assert [s[1:3] for s in autumn if s[0] in {"2024-11-01", "2024-11-04"}] == [
        ("10-31 22:00", "11-01 21:00"),
        ("11-03 23:00", "11-04 22:00"),
    ]


def test_in_summer_the_evening_before_globex_opens_is_sunday_by_utc_too(calendars):
    assert closed(calendars, GLOBEX, "2024-07-05", "2024-07-08", "CL.FUT") == ["2024-07-06"]


def test_stocks_trade_into_saturday_utc_in_winter_and_not_in_summer(calendars):
    assert closed(calendars, NASDAQ, "2024-01-05", "2024-01-08", "SPY") == ["2024-01-07"]
    assert closed(calendars, NASDAQ, "2024-07-12", "2024-07-15", "SPY") == ["2024-07-13", "2024-07-14"]


def test_stocks_are_closed_on_their_holidays_and_open_half_a_day_after_thanksgiving(calendars):
    days = {s[0]: s for s in sessions(calendars, NASDAQ, "2024-11-26", "2024-11-30", "AAPL")}
    assert "2024-11-28" not in days
    assert days["2024-11-29"] == ("2024-11-29", "11-29 09:00", "11-29 22:00", True)
    assert calendars.why(NASDAQ, dt.date(2024, 6, 20), "AAPL") == ""
    assert closed(calendars, NASDAQ, "2024-07-04", "2024-07-04", "AAPL") == ["2024-07-04"]
    assert calendars.why(NASDAQ, dt.date(2024, 7, 4)) == "holiday"


def test_index_options_trade_on_holidays_of_the_stock_exchanges(calendars):
    assert closed(calendars, OPTIONS, "2024-01-15", "2024-01-15", "SPY   240119C00470000") == ["2024-01-15"]
    assert closed(calendars, OPTIONS, "2024-01-15", "2024-01-15", "SPXW  240119C04700000") == []
    assert closed(calendars, OPTIONS, "2024-01-15", "2024-01-15", "SPY.OPT", "SPX.OPT") == []


def test_london_trades_on_a_friday_that_new_york_keeps_for_christmas(calendars):
    assert closed(calendars, LONDON, "2021-12-24", "2021-12-26") == ["2021-12-25"]
    assert closed(calendars, LONDON, "2024-03-29", "2024-03-29") == ["2024-03-29"]
    assert closed(calendars, NEW_YORK, "2024-03-29", "2024-03-30") == ["2024-03-30"]
    # Sunday evening: contracts of ICE open at 18:00 in New York.
    assert closed(calendars, NEW_YORK, "2024-01-07", "2024-01-07") == []


def test_what_the_library_calls_closed_is_closed_for_no_symbol_that_names_no_product(calendars):
    for symbols in ((), ("12345",), ("ALL_SYMBOLS",), ("CLK3", "12345"), ("CLK3", "ESM3")):
        assert closed(calendars, GLOBEX, "2023-04-07", "2023-04-08", *symbols) == ["2023-04-08"]


def test_crypto_trades_on_weekends_from_2026_on(calendars):
    assert closed(calendars, GLOBEX, "2025-12-20", "2025-12-20", "BTC.FUT") == ["2025-12-20"]
    assert closed(calendars, GLOBEX, "2026-06-06", "2026-06-06", "BTCM6") == []
    assert closed(calendars, GLOBEX, "2026-06-06", "2026-06-06") == []
    assert closed(calendars, GLOBEX, "2026-06-06", "2026-06-06", "ESM6") == ["2026-06-06"]


def test_of_a_dataset_without_a_calendar_no_day_is_closed(calendars):
    assert not calendars.knows("XEUR.EOBI")
    assert calendars.name("XEUR.EOBI") == ""
    assert closed(calendars, "XEUR.EOBI", "2024-01-06", "2024-01-07") == []
    assert calendars.sessions("XEUR.EOBI", Window.parse("2024-01-02", "2024-01-03")).is_empty()
    assert calendars.why("XEUR.EOBI", dt.date(2024, 1, 6)) == ""


def test_outside_of_what_is_known_no_day_is_closed(calendars):
    assert calendars.knows(GLOBEX)
    assert closed(calendars, GLOBEX, "1999-12-25", "2000-01-02") == ["2000-01-01"]
    assert closed(calendars, GLOBEX, "2099-01-03", "2099-01-04") == []
    assert calendars.why(GLOBEX, dt.date(1999, 12, 25)) == ""


def test_only_whole_days_inside_the_window_are_closed(calendars):
    saturday = date_ns(dt.date(2024, 1, 6))
    assert calendars.closed(GLOBEX, Window(saturday + 1, saturday + DAY_NS)) == []
    assert calendars.closed(GLOBEX, Window(saturday, saturday + DAY_NS - 1)) == []
    assert calendars.closed(GLOBEX, Window(saturday - 1, saturday + DAY_NS + 1)) == [
        Window(saturday, saturday + DAY_NS)
    ]


def test_weekends_and_holidays_are_told_apart(calendars):
    assert calendars.why(GLOBEX, dt.date(2024, 1, 6), "ES.c.0") == "weekend"
    assert calendars.why(GLOBEX, dt.date(2024, 1, 7), "ES.c.0") == ""
    assert calendars.why(NASDAQ, dt.date(2024, 7, 14), "SPY") == "weekend"


@pytest.mark.parametrize("dataset", [GLOBEX, NASDAQ, OPTIONS, LONDON])
def test_closed_days_are_those_that_no_session_overlaps(calendars, dataset):
    """Against a slow look at each day, and at each instant of a few."""
    rng = random.Random(dataset)
    window = Window.parse("2020-01-01", "2026-12-31")
    found = {at for run in calendars.closed(dataset, window, ["ES"]) for at in range(run.start, run.end, DAY_NS)}
    hours = list(calendars.sessions(dataset, window, "ES").select("open", "close").iter_rows())
    for day in rng.sample(range(window.start, window.end, DAY_NS), 150):
        touched = any(opens < day + DAY_NS and closes > day for opens, closes in hours)
        assert (day not in found) == touched, ns_date(day)


def test_every_packaged_calendar_is_one_of_the_librarys():
    import exchange_calendars

    known = set(exchange_calendars.get_calendar_names())
    assert {layer.calendar for layers in tables(None).values() for layer in layers} - {""} <= known
    assert PACKAGED.is_file()


@pytest.mark.parametrize(
    ("symbol", "root"),
    [
        ("ES.c.0", "ES"), ("ES.FUT", "ES"), ("ESH4", "ES"), ("ESH4-ESM4", "ES"), ("CL:BF H4-J4-K4", "CL"),
        ("6EM4", "6E"), ("SPY   240119C00470000", "SPY"), ("BRK.B", "BRK"), ("12345", ""), ("ALL_SYMBOLS", ""),
        ("", ""), ("es.c.0", "ES"),
    ],
)  # fmt: skip
def test_a_product_is_known_by_the_root_of_its_symbols(symbol, root):
    assert product_of(symbol) == root


def test_the_example_in_configs_changes_nothing(calendars):
    assert (CONFIGS / "calendars.yaml").exists()
    assert Calendars.load(CONFIGS) == calendars


def test_days_of_ones_own_are_added_to_the_packaged_ones(own):
    calendars = own(
        """
datasets:
  GLBX.MDP3:
    closed:
      2024-01-05: the desk is away
    early:
      2024-01-10: {closes: "09:30", reason: a halt}
    open:
      2024-11-29: {reason: a whole day for once}
    products:
      crude:
        roots: ["C?"]
        open:
          2024-03-29: {opens: "18:00", closes: "11:00", reason: a test session}
"""
    )
    assert closed(calendars, GLOBEX, "2024-01-05", "2024-01-05", "ES.c.0") == ["2024-01-05"]
    assert calendars.why(GLOBEX, dt.date(2024, 1, 5), "ES.c.0") == "the desk is away"
    assert ("2024-01-10", "01-09 23:00", "01-10 15:30", True) in sessions(calendars, GLOBEX, "2024-01-10", "2024-01-10")
    assert ("2024-11-29", "11-28 23:00", "11-29 22:00", False) in sessions(
        calendars, GLOBEX, "2024-11-29", "2024-11-29"
    )
    assert ("2024-03-29", "03-28 23:00", "03-29 16:00", True) in sessions(
        calendars, GLOBEX, "2024-03-29", "2024-03-29", "CLK4"
    )
    assert closed(calendars, GLOBEX, "2024-03-29", "2024-03-29", "ES.c.0") == ["2024-03-29"]
    # What is packaged for the product still stands.
    assert closed(calendars, GLOBEX, "2023-04-07", "2023-04-07", "CLK3") == ["2023-04-07"]


def test_a_calendar_of_ones_own_starts_anew(own):
    calendars = own(
        """
datasets:
  XEUR.EOBI:
    calendar: XEUR
  XNAS.ITCH:
    calendar: XNAS
    products:
      tokyo:
        roots: [NKD]
        calendar: XTKS
"""
    )
    assert calendars.name("XEUR.EOBI") == "XEUR"
    assert sessions(calendars, "XEUR.EOBI", "2024-05-02", "2024-05-02") == [
        ("2024-05-02", "05-02 06:00", "05-02 20:00", False)
    ]
    assert closed(calendars, "XEUR.EOBI", "2024-05-01", "2024-05-01") == ["2024-05-01"]
    assert sessions(calendars, NASDAQ, "2024-07-05", "2024-07-05") == [
        ("2024-07-05", "07-05 13:30", "07-05 20:00", False)
    ]
    assert calendars.name(NASDAQ, "NKDU4") == "XTKS"
    # The pause at noon belongs to no session.
    assert sessions(calendars, NASDAQ, "2024-07-05", "2024-07-05", "NKDU4") == [
        ("2024-07-05", "07-05 00:00", "07-05 02:30", False),
        ("2024-07-05", "07-05 03:30", "07-05 06:00", False),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("datasets:\n  A.B:\n    calendar: CMSE\n", "3:5: datasets.A.B.calendar: no calendar 'CMSE'"),
        ("datasets:\n  A.B:\n    hours: {closes: '16:00'}\n", "2:3: datasets.A.B: the key calendar is missing"),
        ("datasets:\n  GLBX.MDP3:\n    calender: CMES\n", "3:5: datasets.GLBX.MDP3.calender: unknown key calender"),
        ("dataset:\n  A.B: {}\n", "1:1: dataset: unknown key dataset"),
        ("datasets: [A]\n", "1:1: datasets: ['A']: keys are needed here"),
        (
            "datasets:\n  GLBX.MDP3:\n    closed:\n      2024-02-30: x\n",
            "4:7: datasets.GLBX.MDP3.closed.2024-02-30: '2024-02-30' is not a date",
        ),
        (
            "datasets:\n  GLBX.MDP3:\n    closed:\n      2024-02-20:\n",
            "4:7: datasets.GLBX.MDP3.closed.2024-02-20: None: a reason is needed",
        ),
        (
            "datasets:\n  GLBX.MDP3:\n    early:\n      2024-02-20: {reason: x}\n",
            "4:7: datasets.GLBX.MDP3.early.2024-02-20: the key closes is missing",
        ),
        (
            "datasets:\n  GLBX.MDP3:\n    open:\n      2024-02-20: {closes: 1600, reason: x}\n",
            "datasets.GLBX.MDP3.open.2024-02-20.closes: 1600 is not a time of day",
        ),
        (
            "datasets:\n  GLBX.MDP3:\n    hours: {opens: '25:00'}\n",
            "datasets.GLBX.MDP3.hours.opens: '25:00' is not a time of day",
        ),
        (
            "datasets:\n  GLBX.MDP3:\n    closed: {2024-02-20: x}\n    open: {2024-02-20: {reason: y}}\n",
            "the day stands under open too",
        ),
        (
            "datasets:\n  GLBX.MDP3:\n    products:\n      p: {roots: ES}\n",
            "datasets.GLBX.MDP3.products.p.roots: 'ES': a list of roots is needed",
        ),
        (
            "datasets:\n  GLBX.MDP3:\n    products:\n      p: {roots: [ES], since: 2024-01-01}\n",
            "datasets.GLBX.MDP3.products.p.since: since says from when on",
        ),
        ("datasets:\n  A.B:\n    calendar: [CMES]\n", "3:5: datasets.A.B.calendar: ['CMES'] is none: the name of"),
        ("datasets:\n  A.B:\n    calendar: {a: b}\n", "3:5: datasets.A.B.calendar: {'a': 'b'} is none: the name of"),
        ("datasets:\n  GLBX.MDP3:\n    calendar:\n", "3:5: datasets.GLBX.MDP3.calendar: the key is empty"),
    ],
)
def test_a_mistake_is_told_with_its_file_line_and_key(own, text, told):
    with pytest.raises(ConfigError) as caught:
        own(text)
    assert told in str(caught.value)
    assert "calendars.yaml:" in str(caught.value)


def test_a_calendar_that_does_not_exist_names_the_closest(own):
    with pytest.raises(ConfigError) as caught:
        own("datasets:\n  A.B:\n    calendar: XNYSE\n  C.D:\n    calendar: nothing like it\n")
    assert "Did you mean XNYS" in caught.value.hint
    assert caught.value.message.count("no calendar") == 2


def told(own, text):
    """What is wrong with the datasets, line by line, without the file's name."""
    with pytest.raises(ConfigError) as caught:
        own(f"datasets:\n{text}")
    return [line.partition("calendars.yaml:")[2] for line in caught.value.message.splitlines()]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '  GLBX.MDP3: {calendar: XNYS, hours: {opens: "17:00", closes: "16:00"}}\n',
            r"2:31: datasets.GLBX.MDP3.hours: the session of (\S+) would open at \1 17:00 EST and close .* 16:00 EST",
        ),
        (
            "  XNAS.ITCH:\n    hours: {early_closes: 03:00}\n",
            r"3:5: datasets.XNAS.ITCH.hours: the session of .* 04:00 EST and close at .* 03:00 EST",
        ),
        (
            "  XNAS.ITCH:\n    early:\n      2024-03-04: {closes: 03:00, reason: x}\n",
            r"4:7: datasets.XNAS.ITCH.early.2024-03-04: the session of 2024-03-04 would open at .* 04:00 EST .*",
        ),
        (
            "  A:\n    calendar: XNYS\n    products: {p: {roots: [Z], open: {2024-03-02: {closes: 09:00, reason: x}}}}",
            r"4:39: datasets.A.products.p.open.2024-03-02: the session of 2024-03-02 would open at .*",
        ),
    ],
)
def test_hours_that_leave_a_session_without_any_time_are_told_with_their_place(own, text, said):
    [line] = told(own, text)
    assert re.fullmatch(said, line)


def test_exceptional_days_that_change_nothing_are_told_with_the_reason(own):
    idle = """\
  GLBX.MDP3:
    early:
      2024-03-03: {closes: 12:00, reason: its evening is of Monday}
    closed:
      2024-03-02: a Saturday
      1850-01-01: before there were futures
      2024-12-25: closed anyway
      2024-12-26: this one counts
    open:
      2024-03-05: {reason: open anyway}
    products:
      metals:
        roots: [GC]
        closed:
          2023-04-07: closed by the packaged table
"""
    at, last = "datasets.GLBX.MDP3", dt.datetime.now(dt.UTC).year + 2
    assert told(own, idle) == [
        f"11:7: {at}.open.2024-03-05: it changes nothing: the session of this date has these times without it",
        f"6:7: {at}.closed.2024-03-02: it changes nothing: no session is of this date, a Saturday",
        f"7:7: {at}.closed.1850-01-01: it changes nothing: sessions are known from 2000-01-01 to {last}-12-31",
        f"8:7: {at}.closed.2024-12-25: it changes nothing: no session is of this date, a Wednesday",
        f"4:7: {at}.early.2024-03-03: it changes nothing: no session is of this date, a Sunday",
        f"16:11: {at}.products.metals.closed.2023-04-07: it changes nothing: no session is of this date, a Friday",
    ]


def test_a_day_that_counts_for_one_product_only_is_taken(own):
    # Globex as a whole has a session on that Friday, energy has none; crypto has one on every Saturday from 2026 on.
    calendars = own(
        "datasets:\n  GLBX.MDP3:\n    closed: {2023-04-07: x}\n"
        "    products: {p: {roots: [MBT], closed: {2026-06-06: x}}}\n"
    )
    assert closed(calendars, GLOBEX, "2023-04-07", "2023-04-07", "ZNM3") == ["2023-04-07"]
    assert closed(calendars, GLOBEX, "2026-06-06", "2026-06-06", "MBTM6") == ["2026-06-06"]


def test_a_session_with_a_pause_that_ends_before_it_has_no_afternoon(own):
    calendars = own("datasets:\n  A.B:\n    calendar: XTKS\n    early: {2024-07-05: {closes: 11:00, reason: a halt}}\n")
    assert sessions(calendars, "A.B", "2024-07-05", "2024-07-05") == [
        ("2024-07-05", "07-05 00:00", "07-05 02:00", True)
    ]


def test_what_the_example_in_configs_says_holds_when_it_is_uncommented(own):
    text = (CONFIGS / "calendars.yaml").read_text(encoding="utf-8")
    head, example = text.split("datasets:")
    assert set(head.splitlines()) - {line for line in head.splitlines() if line.startswith("#")} == set()
    calendars = own("datasets:" + example.replace("\n#", "\n"))
    assert closed(calendars, GLOBEX, "2025-11-28", "2025-11-28") == ["2025-11-28"]
    assert calendars.knows("XEUR.EOBI")
    # In mid-week the next session opens on the evening of the day.
    calendars = own("datasets: {GLBX.MDP3: {closed: {2025-12-03: a halt}}}")
    assert closed(calendars, GLOBEX, "2025-12-03", "2025-12-03") == []
    assert [s[0] for s in sessions(calendars, GLOBEX, "2025-12-03", "2025-12-03")] == ["2025-12-04"]


@pytest.mark.parametrize("kind", ["dangling link", "folder"])
def test_a_table_that_cannot_be_read_is_an_error(tmp_path, kind):
    path = tmp_path / "calendars.yaml"
    path.mkdir() if kind == "folder" else path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"calendars\.yaml: cannot be read"):
        Calendars.load(tmp_path)

"""Pictures: what is drawn, that thinning never lies, and that a page of them needs nothing but itself."""

import json
import re
import shutil
import subprocess
from decimal import Decimal
from html.parser import HTMLParser
from itertools import pairwise

import polars as pl
import pytest

from hdi.answer import Rows
from hdi.cli.charts import Room, sketched
from hdi.cli.charts_axis import Clock, apart, prices, text, times
from hdi.cli.charts_text import lines
from hdi.cli.charts_thin import CANDLES, POINTS, WIDTHS, Candles, Points, extremes, merged, pauses
from hdi.errors import RequestError

S = 10**9
DAY = 86_400 * S
ROOM = Room(100, 100, 4)
DAILY = ("-s", "ES.c.0", "--start-date", "2024-03-11", "--end-date", "2024-03-20")
QUOTES = ("-s", "ESH4", "--start-date", "2024-01-02", "--end-date", "2024-01-02", "--schema", "tbbo")
STATISTICS = ("-s", "ESH4", "--start-date", "2024-01-02", "--end-date", "2024-01-04", "--schema", "statistics")
BROWSER = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))), None)


def candles(*bars, symbol="ESH4"):
    """Bars as (second, open, high, low, close, volume)."""
    rows = [(at * S, symbol, *map(Decimal, prices), volume, not volume, 1) for at, *prices, volume in bars]
    return pl.DataFrame(rows, schema=CANDLES, orient="row")


def points(*values, series="bid"):
    """Points as (nanosecond, value)."""
    rows = [{"at": at, "symbol": "X", "series": series, "value": v, "size": None} for at, v in values]
    return pl.DataFrame(rows, schema=POINTS, orient="row")


def zigzag(count, step):
    return points(*((i * step, Decimal((i * 7919) % 1000)) for i in range(count)))


def answer(bars, symbols=None):
    """Daily bars (open, high, low, close, volume) as an answer."""
    frame = pl.DataFrame(
        {
            "dataset": "D", "publisher_id": 1, "instrument_id": 7, "symbol": symbols or ["ESH4"] * len(bars),
            "ts_event": pl.Series([i * DAY for i in range(len(bars))]).cast(pl.Datetime("ns", "UTC")),
            **{
                f"{name}_price": pl.Series([Decimal(str(bar[i])) for bar in bars]).cast(pl.Decimal(18, 9))
                for i, name in enumerate(("open", "high", "low", "close"))
            },
            "volume": [bar[4] for bar in bars],
        }
    )  # fmt: skip
    return Rows(frame, ["from a test"])


class TestThinning:
    def test_wider_candles_keep_first_highest_lowest_last_and_every_contract_traded(self):
        made = merged(candles((0, 5, 6, 4, 5, 1), (1, 5, 9, 5, 8, 2), (2, 8, 8, 1, 2, 3), (5, 2, 3, 2, 3, 4)), 5 * S)
        assert made.select("at", "open", "high", "low", "close", "volume", "bars").rows() == [
            (0, 5, 9, 1, 2, 6, 3), (5 * S, 2, 3, 2, 3, 4, 1),
        ]  # fmt: skip

    def test_a_candle_is_never_of_two_contracts(self):
        both = pl.concat([candles((0, 5, 6, 4, 5, 1)), candles((1, 9, 9, 9, 9, 1), symbol="ESM4")])
        assert merged(both, DAY)["symbol"].to_list() == ["ESH4", "ESM4"]

    def test_filled_bars_move_no_price_of_those_that_traded(self):
        made = merged(candles((0, 100, 100, 100, 100, 0), (1, 5, 6, 4, 5, 1), (2, 1, 1, 1, 1, 0)), 5 * S)
        assert made.select("open", "high", "low", "close", "filled").row(0) == (5, 6, 4, 5, False)
        assert merged(candles((0, 3, 3, 3, 3, 0)), 5 * S)["filled"].item()

    def test_as_many_candles_as_there_is_room_for_and_no_volume_lost(self):
        kept = Candles(50)
        for start in range(0, 400_000, 100_000):
            kept.add(candles(*((start + i, 5, 6 + (i == 777), 4, 5, 1) for i in range(0, 100_000, 10))))
        made = kept.made()
        assert 5 < made.height <= 50
        assert kept.width in WIDTHS
        assert (made["volume"].sum(), made["high"].max(), made["bars"].sum()) == (40_000, 6, 40_000)

    def test_each_stretch_keeps_its_first_last_highest_and_lowest_point(self):
        kept = extremes(points((0, 5), (1, 9), (2, 6), (3, 1), (4, 4), (5, 5), (10, 7)), 10)
        assert kept.select("at", "value").rows() == [(0, 5), (1, 9), (3, 1), (5, 5), (10, 7)]

    def test_a_null_that_ends_a_line_is_kept(self):
        kept = extremes(points((0, 5), (1, 6), (2, None)), 10)
        assert kept["value"].to_list() == [5, 6, None]

    @pytest.mark.parametrize(("fine", "coarse"), [(0, 3), (6, 8), (11, 12)])
    def test_thinning_twice_is_thinning_once(self, fine, coarse):
        every = zigzag(2_000, WIDTHS[fine] // 3)
        once = extremes(every, WIDTHS[coarse])
        assert extremes(extremes(every, WIDTHS[fine]), WIDTHS[coarse]).equals(once)

    def test_widths_nest(self):
        assert all(wide % narrow == 0 and wide > narrow for narrow, wide in pairwise(WIDTHS))

    def test_points_that_fit_are_all_drawn(self):
        few = Points(100)
        few.add(zigzag(400, S))
        assert (few.made().height, few.width) == (400, 0)
        many = Points(100)
        many.add(zigzag(401, S))
        assert many.made().height <= 400
        assert many.width == 5 * S


class TestAxes:
    def test_halts_take_no_room_and_every_moment_has_its_place(self):
        clock = Clock.of(pl.Series([0, 3_600 * S, 50 * 3_600 * S, 51 * 3_600 * S]))
        assert clock.cuts == ((3_600 * S, 50 * 3_600 * S),)
        assert clock.room == 2 * 3_600 * S
        assert [clock.when(clock.at(at)) for at in (0, 1_800 * S, 50.5 * 3_600 * S)] == [0, 1_800 * S, 50.5 * 3_600 * S]
        assert clock.series(pl.Series([0, 51 * 3_600 * S])).to_list() == [0, clock.room]

    def test_a_short_pause_is_none(self):
        assert pauses(pl.Series([0, 1, 2, 1_800 * S]), 3_600 * S) == []

    @pytest.mark.parametrize(
        ("low", "high", "found"),
        [
            ("4688.25", "4882", [4700, 4750, 4800, 4850]),
            ("59.32", "59.39", [Decimal(v) for v in ("59.32", "59.34", "59.36", "59.38")]),
            ("-37.63", "10", [-30, -20, -10, 0, 10]),
            ("5", "5", [5]),
        ],
    )
    def test_prices_that_are_written_are_round_and_inside(self, low, high, found):
        assert prices(Decimal(low), Decimal(high), 6) == found

    def test_times_that_are_written_are_where_days_months_or_years_begin(self):
        assert times([i * DAY for i in range(4)], 9) == [
            (0, "1970-01-01"), (1, "1970-01-02"), (2, "1970-01-03"), (3, "1970-01-04"),
        ]  # fmt: skip
        assert [words for _, words in times([i * DAY for i in range(100)], 4)] == [
            "1970-01",
            "1970-02",
            "1970-03",
            "1970-04",
        ]
        assert Clock(0, 10 * 3_600 * S, ()).times(3) == [(4 * 3_600 * S, "01-01 04:00"), (8 * 3_600 * S, "01-01 08:00")]

    def test_times_are_not_written_over_each_other_where_a_halt_takes_no_room(self):
        assert apart([(0, "Fri"), (50, "Sun"), (52, "Mon"), (90, "Tue")], 10) == [(0, "Fri"), (50, "Sun"), (90, "Tue")]

    def test_zero_has_no_sign(self):
        assert text([Decimal("-0E-9"), Decimal("0.25")]) == ["0.00", "0.25"]


def quotes(*rows):
    """Quotes as (second, symbol, bid, ask)."""
    return Rows(
        pl.DataFrame(
            [(at * S, symbol, Decimal(bid), Decimal(ask)) for at, symbol, bid, ask in rows],
            schema={"ts_recv": pl.Int64, "symbol": pl.String, "bid_px_00": pl.Decimal(18, 9),
                    "ask_px_00": pl.Decimal(18, 9)}, orient="row",
        ).with_columns(pl.col("ts_recv").cast(pl.Datetime("ns", "UTC")), instrument_id=1)
    )  # fmt: skip


class TestRolls:
    def test_no_line_goes_on_from_one_contract_to_the_next(self):
        rows = quotes((0, "H", 5, 6), (1, "H", 5, 6), (7, "M", 8, 9), (8, "M", 8, 9))
        panel = sketched([("ES.c.0", rows)], ROOM, title="x").panels[0]
        assert [words for _, _, *words in panel.rolls] == [["H", "M"]]
        bid = panel.points.filter(series="bid").select("at", "value")
        assert bid.rows() == [(0, 5), (S, 5), (7 * S, None), (7 * S, 8), (8 * S, 8)]

    def test_a_roll_at_the_edge_is_named_inside_the_picture(self):
        rows = [(at, "ESH4-ESM4" if at < 98 else "ESM4-ESU4", 5, 6) for at in range(100)]
        drawn = list(lines(sketched([("ES.c.0", quotes(*rows))], ROOM, title="x"), 66))
        assert "ESH4-ESM4 → ESM4-ESU4" in drawn[4]
        assert max(map(len, drawn)) <= 80


class TestText:
    def test_candles_volume_and_axes_stand_on_their_lines(self):
        picture = sketched([("ES.c.0", answer([(10, 13, 9, 12, 8), (12, 12, 10, 11, 2)]))], ROOM, title="ohlcv-1d")
        drawn = list(lines(picture, 66))
        assert drawn[:4] == ["ohlcv-1d, 1970-01-01 to 1970-01-02", "times are UTC", "", "ES.c.0"]
        column = [line[13:14] for line in drawn[4:22]]
        falling = [line[17:18] for line in drawn[4:22]]
        assert (column[0], column[-1]) == ("│", "│")
        assert set(column[5:13]) == {"┃"}
        assert set("".join(falling).strip()) <= set("█▀▄│╷╵")
        assert drawn[22].startswith("          8 ┤█")
        assert drawn[-1].split() == ["1970-01-01", "1970-01-02"] or drawn[-1].split() == ["1970-01-01"]
        assert max(map(len, drawn)) <= 80
        assert not any("\x1b" in line for line in drawn)
        assert any("\x1b[36m" in line for line in lines(picture, 66, color=True))

    def test_a_roll_stands_between_two_contracts(self):
        picture = sketched([("ES.c.0", answer([(1, 2, 1, 2, 8)] * 4, ["H", "H", "M", "M"]))], ROOM, title="x")
        assert "H → M" in list(lines(picture, 66))[4]

    def test_no_digit_of_a_long_number_is_cut_off_and_no_volume_is_none(self):
        def volume(number):
            picture = sketched([("X", answer([(1, 2, 1, 2, number)]))], ROOM, title="x")
            return list(lines(picture, 66))[22].split()[0]

        assert [volume(v) for v in (0, 12_345_678_901, 1_234_567_890_123)] == ["0", "12345678901", "~1.235E+12"]

    def test_the_title_names_the_days_of_the_rows_not_of_wider_candles(self):
        bars = answer([(1, 1, 1, 1, 1)] * 40)
        assert sketched([("X", bars)], Room(10, 10, 4), title="x").title == "x, 1970-01-01 to 1970-02-09"

    def test_one_flat_bar_can_be_drawn(self):
        assert len(list(lines(sketched([("X", answer([(1, 1, 1, 1, 0)]))], ROOM, title="x"), 66))) > 20

    def test_off_a_terminal_it_is_text_of_80_columns_and_the_rest_goes_to_stderr(self, ask):
        ran = ask(*QUOTES, "--plot", "-")
        assert ran.code == 0, ran.err
        assert "SYNTHETIC DATA" in ran.out
        assert "─ bid   ─ ask   ▴ trades, buyer" in ran.out
        assert max(map(len, ran.out.splitlines())) <= 80
        assert "\x1b" not in ran.out
        assert re.search(
            r"points of [\d,]+ are drawn: the first, last, highest and lowest of each \d+ minutes", ran.err
        )
        assert re.search(r"\n4000 rows drawn, [\d.]+ s\n", ran.err)

    def test_statistics_have_a_panel_of_prices_and_one_of_quantities(self, ask):
        ran = ask(*STATISTICS, "--plot", "-")
        assert ran.code == 0, ran.err
        assert "ESH4: prices" in ran.out
        assert "ESH4: quantities" in ran.out
        assert "settlement_price" in ran.out


def test_more_panels_than_there_is_room_for_are_refused_before_all_is_read(ask, tmp_path):
    ran = ask("-s", "ALL_SYMBOLS", "--schema", "definition", "--plot", "-")
    assert ran.code == 2
    five = sketched
    parts = [(f"S{i}", answer([(1, 1, 1, 1, 1)])) for i in range(5)]
    with pytest.raises(RequestError, match="more than the 4 panels"):
        five(parts, ROOM, title="x")
    assert list(tmp_path.glob("*.html")) == []


def test_nothing_found_draws_nothing_and_says_why(ask, tmp_path):
    ran = ask("-s", "ESH4", "--start-date", "2023-05-01", "--end-date", "2023-05-02", "--plot", tmp_path / "x.html")
    assert (ran.code, ran.out) == (0, "")
    assert "No data found for the specified criteria\nESH4: never ingested" in ran.err
    assert not (tmp_path / "x.html").exists()


def test_rows_that_have_no_mark_are_not_counted_as_drawn_nor_called_missing():
    orders = Rows(
        pl.DataFrame(
            {"ts_recv": [0], "symbol": "X", "instrument_id": 1, "action": "A", "price": Decimal(1), "size": 1,
             "side": "B"}
        ).cast({"ts_recv": pl.Datetime("ns", "UTC")})
    )  # fmt: skip
    picture = sketched([("X", orders)], ROOM, title="mbo")
    assert (picture.panels, picture.rows, picture.empty) == ([], 0, [])
    assert picture.notes == ["X: not drawn: 1 row, which is no trade and has no quote"]


def test_rows_and_their_picture_can_both_be_had(ask, tmp_path):
    ran = ask(*DAILY, "--output-format", "csv", "--plot", tmp_path / "x.png")
    assert ran.code == 0, ran.err
    assert ran.out.startswith("dataset,")
    assert (tmp_path / "x.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert ran.err.count("SYNTHETIC") == 1


class Page(HTMLParser):
    """What a page would load or lead to."""

    def __init__(self):
        super().__init__()
        self.outside, self.scripts = [], 0

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script"
        self.outside += [
            (tag, name, value) for name, value in attrs if name in {"src", "href", "action", "data", "srcset"}
        ]


@pytest.fixture(scope="module")
def pages(demo_home, tmp_path_factory):
    """Pages of bars, quotes and statistics, drawn by the program."""
    from hdi.cli import run

    folder = tmp_path_factory.mktemp("pages")
    for name, arguments in (("bars", DAILY), ("quotes", QUOTES), ("statistics", STATISTICS)):
        path = str(folder / f"{name}.html")
        assert run(["--store", f"lake:{demo_home / 'lake'}", "query", *arguments, "--plot", path]) == 0
    return folder


def drawn_in(page):
    """The data and the layout that a page gives to the library in it."""
    text = page.read_text()
    start = text.rindex("Plotly.newPlot(")
    decoder = json.JSONDecoder()
    start = text.index("[", text.index(",", start))
    data, end = decoder.raw_decode(text, start)
    layout, end = decoder.raw_decode(text, text.index("{", end))
    config, _ = decoder.raw_decode(text, text.index("{", end))
    return data, layout, config


@pytest.mark.parametrize("name", ["bars", "quotes", "statistics"])
def test_a_page_loads_nothing_from_anywhere_and_its_figure_is_valid(pages, name):
    from plotly import graph_objects as go

    page = Page()
    page.feed((pages / f"{name}.html").read_text())
    assert page.outside == []
    assert page.scripts >= 2
    data, layout, config = drawn_in(pages / f"{name}.html")
    go.Figure(data, {**layout, "template": None})
    assert (config["displaylogo"], config["showSendToCloud"]) == (False, False)
    assert any("SYNTHETIC DATA" in note["text"] for note in layout["annotations"])
    assert "times are UTC" in layout["title"]["text"]


def test_a_page_of_bars_tells_exact_prices_marks_the_roll_and_stretches_no_weekend(pages):
    data, layout, _ = drawn_in(pages / "bars.html")
    bars, volume = data
    assert (bars["type"], volume["type"]) == ("candlestick", "bar")
    assert bars["x"][3:6] == ["2024-03-14", "2024-03-15", "2024-03-18"]
    assert layout["xaxis"]["type"] == "category"
    assert "<br>open 4841.75<br>high 4842.75<br>low 4826.25<br>close 4828.00<br>" in bars["hovertext"][1]
    assert any(note["text"] == "9101 → 9102" and note["x"] == 4.5 for note in layout["annotations"])


def test_a_page_of_quotes_has_steps_for_both_sides_and_dots_for_trades(pages):
    data, _, _ = drawn_in(pages / "quotes.html")
    assert [(t["name"], t["mode"], (t.get("line") or {}).get("shape")) for t in data[:3]] == [
        ("bid", "lines", "hv"), ("ask", "lines", "hv"), ("trades, buyer", "markers", None),
    ]  # fmt: skip
    assert re.search(r"trades, buyer<br>2024-01-02T\d\d:\d\d:\d\d\.\d{9}Z<br>[\d.]+ x \d+$", data[2]["hovertext"][0])


def test_filled_bars_look_different_in_every_form():
    from hdi.cli import charts_html, charts_png

    picture = sketched([("X", answer([(5, 6, 4, 5, 9), (5, 5, 5, 5, 0), (5, 6, 4, 4, 9)]))], ROOM, title="bars of 1d")
    traded, filled, _ = charts_html.figure(picture).data
    assert (list(traded.x), list(filled.x)) == (["1970-01-01", "1970-01-03"], ["1970-01-02"])
    assert filled.name == "filled: nothing traded"
    assert filled.increasing.line.color not in {traded.increasing.line.color, traded.decreasing.line.color}
    assert len(set(charts_png.colors(picture.panels[0].candles))) == 3
    assert any(line[17:18] == "·" for line in lines(picture, 66))
    assert "grey where nothing was traded" in charts_html.figure(picture).layout.title.text


@pytest.mark.skipif(BROWSER is None, reason="no browser here: apt-get install chromium-headless-shell")
def test_a_browser_without_a_network_draws_the_page(pages, tmp_path):
    shot = tmp_path / "shot.png"
    ran = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND",
         "--virtual-time-budget=10000", "--window-size=1200,800", "--enable-logging=stderr", f"--screenshot={shot}",
         f"--user-data-dir={tmp_path / 'profile'}", f"file://{pages / 'bars.html'}"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "CONSOLE" not in ran.stderr, ran.stderr
    from matplotlib.image import imread

    seen = (imread(shot)[:, :, :3] * 255).round().astype(int)
    for color in ((0xC2, 0x54, 0x2D), (154, 190, 203)):  # falling candles, and the volume of rising ones
        assert (abs(seen - color).max(axis=2) <= 6).sum() > 200

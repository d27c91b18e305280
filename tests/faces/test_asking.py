"""The commands that ask for rows, beyond symbols and dates: what chooses them, where they go, and bad requests."""

import datetime as dt
import json
import os
import subprocess
import sys

import polars as pl
import pytest

DAILY = ("-s", "ES.c.0", "--start-date", "2024-01-01", "--end-date", "2024-01-12")
MARCH = ("-s", "ES.c.0", "--start-date", "2024-03-13", "--end-date", "2024-03-19")
DAY = ("-s", "ESH4", "--start-date", "2024-01-02", "--end-date", "2024-01-02")
CRUDE = ("-s", "CLG4", *DAY[2:])
TRADES = (*DAY, "--schema", "trades")
GAP = ("--adjust", "backward", "--at", "gap")


@pytest.fixture
def hdi(cli, demo_home):
    """Runs any command on the demo's lake."""

    def call(*arguments, before=()):
        return cli("--store", f"lake:{demo_home / 'lake'}", *before, *arguments)

    return call


def rows(ran):
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


class TestQuery:
    def test_where_keeps_the_rows_of_one_value_or_of_several(self, hdi):
        every = rows(hdi("query", *TRADES, before=["--json"]))
        buys = rows(hdi("query", *TRADES, "--where", "side=B", before=["--json"]))
        both = rows(hdi("query", *TRADES, "--where", "side=B", "--where", "side = A", before=["--json"]))
        assert buys == [row for row in every if row["side"] == "B"] != []
        assert both == [row for row in every if row["side"] in "AB"]
        one = ("--where", f"sequence={every[0]['sequence']}", "--where", f"side={every[0]['side']}")
        assert every[0] in rows(hdi("query", *TRADES, *one, before=["--json"]))

    def test_rows_of_which_none_is_chosen_are_not_called_absent(self, hdi):
        ran = hdi("query", *TRADES, "--where", "side=Z")
        assert (ran.code, "empty" in ran.err, "ingested" in ran.err) == (0, False, False)
        assert "there are rows of ESH4, and none with side=Z" in ran.err
        assert (
            "never ingested"
            in hdi(
                "query", *DAILY[:2], "--start-date", "2022-01-03", "--end-date", "2022-01-03", "--where", "volume=1"
            ).err
        )

    def test_without_dates_everything_stored_is_meant(self, hdi):
        dated = hdi(
            "query", "-s", "ES.c.0", "--start-date", "2024-01-01", "--end-date", "2024-03-31", before=["--json"]
        )
        assert rows(hdi("query", "-s", "ES.c.0", before=["--json"])) == rows(dated)

    def test_an_adjusted_series_has_its_rolls_on_stderr_or_in_a_file(self, hdi, tmp_path):
        plain = rows(hdi("query", *MARCH, before=["--json"]))
        ran = hdi("query", *MARCH, *GAP, before=["--json"])
        moved = [row["close_price"] for row in rows(ran)]
        assert moved[-1] == plain[-1]["close_price"]
        assert moved[0] != plain[0]["close_price"]
        assert "2024-03-16T00:00:00Z" in ran.err
        assert "prices are adjusted backward by difference at 1 roll" in ran.err
        ran = hdi("query", *MARCH, *GAP, "--rolls-file", tmp_path / "rolls.csv", before=["--json"])
        assert "1 roll written to" in ran.err
        assert pl.read_csv(tmp_path / "rolls.csv").height == 1

    def test_as_of_reads_what_was_stored_then(self, hdi):
        before = hdi("query", *DAILY, "--as-of", "2001-01-01")
        assert (before.code, "2024-01-0" in before.out) == (2, False)
        now = dt.datetime.now(tz=dt.UTC).isoformat()
        known = rows(hdi("query", *DAILY, "--as-of", now, before=["--json"]))
        assert known == rows(hdi("query", *DAILY, before=["--json"])) != []


class TestBars:
    def test_they_come_in_every_format_with_their_notes(self, hdi, tmp_path):
        hourly = ("bars", *CRUDE, "--every", "1h", "--source", "ohlcv-1m")
        ran = hdi(*hourly)
        assert ran.code == 0, ran.err
        assert ran.out.startswith("ts_event ")
        assert "made of ohlcv-1m" in ran.err
        found = rows(hdi(*hourly, before=["--json"]))
        assert len(found) == ran.out.count("\n") - 2 > 10
        assert hdi(*hourly, "--output-file", tmp_path / "bars.parquet").out == ""
        assert pl.read_parquet(tmp_path / "bars.parquet")["volume"].to_list() == [row["volume"] for row in found]

    def test_a_limit_that_leaves_bars_out_says_so_and_one_that_does_not_is_silent(self, hdi):
        hourly = ("bars", *CRUDE, "--every", "1h", "--source", "ohlcv-1m")
        every = rows(hdi(*hourly, before=["--json"]))
        ran = hdi(*hourly, "--limit", 3, before=["--json"])
        assert rows(ran) == every[:3]
        assert "there are more rows; --limit 3 cut them off" in ran.err
        assert "cut them off" not in hdi(*hourly, "--limit", len(every)).err

    def test_the_join_of_trades_and_quotes_is_a_table(self, hdi):
        ran = hdi("asof", *DAY, "--limit", "5")
        assert ran.code == 0, ran.err
        assert "bid_px_00" in ran.out.splitlines()[0]
        assert ran.out.count("\n") == 7
        assert "the finest that is stored" in ran.err


REVERSED = ("-s", "ES.c.0", "--start-date", "2024-02-01", "--end-date", "2024-01-01")
BAD = [
    (("query", *REVERSED), ("2024-02-01", "2024-01-01", "Exchange")),
    (("bars", *REVERSED), ("2024-02-01", "2024-01-01", "Exchange")),
    (("asof", *REVERSED), ("2024-02-01", "2024-01-01", "Exchange")),
    (("query", *DAILY, "--columns", "vollume"), ("unknown column 'vollume'", "volume")),
    (("bars", *DAILY, "--columns", "vollume"), ("unknown column 'vollume'", "volume")),
    (("query", *DAILY, "--columns", " , "), ("no column was named",)),
    (("bars", *DAILY, "--every", "5 parsecs"), ("'5 parsecs' is not the width of a bar", "5m")),
    (("bars", *DAILY, "--every", "0m"), ("no width",)),
    (("bars", *DAILY, "--every", "-5m"), ("'-5m' is not the width of a bar",)),
    (("bars", *DAILY, "--kind", "renko"), ("'renko' is not a kind of bars", "dollar")),
    (("bars", *DAILY, "--kind", "tick"), ("'1m' is not the size of a tick bar",)),
    (("bars", *DAILY, "--align", "moon"), ("moon", "session")),
    (("query", *DAILY, "--output-format", "csv", "--output-file", "x.parquet"), ("parquet", "csv", "x.parquet")),
    (("bars", *DAILY, "--output-format", "json", "--output-file", "x.arrow"), ("arrow", "json", "x.arrow")),
    (("query", *DAILY, "--output-format", "parquet", "--output-file", "x.txt"), ("table", "parquet")),
    (("query", *DAILY, "--plot", "x.jpeg"), ("x.jpeg", ".html or .png")),
    (("bars", *DAILY, "--plot", "x"), ("x: a plot", ".html or .png")),
    (("query", *DAILY, "--plot", "-", "--output-format", "csv"), ("--plot -", "csv", "standard output")),
    (("query", *DAILY, "--plot", "-", "--output-file", "-"), ("--plot -", "--output-file -")),
    (("query", *DAILY, "--limit", "0"), ("--limit",)),
    (("bars", *DAILY, "--limit", "0"), ("--limit",)),
    (("query", *DAY, "--adjust", "backward"), ("ESH4 is no continuous symbol",)),
    (("query", *DAILY, "--adjust", "sideways"), ("'sideways'", "backward")),
    (("query", *DAILY, "--adjust", "backward", "--by", "ration"), ("'ration'", "Did you mean ratio?")),
    (("query", *DAILY, "--adjust", "backward", "--at", "noon"), ("'noon'", "gap")),
    (("query", *DAILY, "--rolls-file", "x.csv"), ("nothing is adjusted", "--adjust")),
    (("query", *DAILY, "--by", "ratio"), ("--by says how prices are adjusted, and nothing is", "--adjust")),
    (("bars", *DAILY, "--adjust", "none", "--at", "gap"), ("--at says how", "--adjust")),
    (("query", *MARCH, *GAP, "--rolls-file", "x.doc"), ("x.doc", ".doc is no known format")),
    (("query", *DAILY, "--roll", "volum"), ("unknown roll rule 'volum'", "Did you mean volume?")),
    (("query", *TRADES, "--where", "side"), ("'side' is not COLUMN=VALUE", "side=B")),
    (("query", *TRADES, "--where", "size>=5"), ("is not COLUMN=VALUE", "hdi sql")),
    (("query", *TRADES, "--where", "sid=B"), ("unknown column 'sid'", "side")),
    (("query", *TRADES, "--where", "size=big"), ("'big' is no value of size", "a whole number")),
    (("query", *TRADES, "--where", "size=1_0"), ("'1_0' is no value of size", "a whole number")),
    (("query", *DAILY, "--output-file", ""), ("--output-file names no file",)),
    (("query", *DAILY, "--plot", " "), ("--plot names no file",)),
    (("query", *TRADES, "--where", "size=99999999999999999999"), ("is no value of size", "64 bits")),
    (("query", *TRADES, "--where", "price=high"), ("not chosen by price, which is a price", "SQL")),
    (
        ("query", *TRADES, "--where", "ts_recv=2024-01-02"),
        ("not chosen by ts_recv, which is a timestamp", "start and end"),
    ),
    (("query", *DAILY, "--as-of", "yesterday"), ("'yesterday' is not a date",)),
    (("query", "-s", "ES.FUT", "--schema", "definition", "--plot", "x.html"), ("no picture of definition", "trades")),
    (("asof", *DAY, "--quotes", "trades"), ("trades has no quotes",)),
    (("asof", *DAY, "--tolerance", "soon"), ("'soon' is not a tolerance", "10s")),
    (("bars", *DAILY[2:]), ("Missing option", "--symbols")),
    (("query", "-s", "NOPE,NADA", *DAILY[2:], "--plot", "x.html"), ("unknown symbol", "NOPE")),
]


@pytest.mark.parametrize(("arguments", "words"), BAD, ids=[" ".join(a)[:60] for a, _ in BAD])
def test_a_bad_request_says_what_is_wrong_and_writes_nothing(hdi, tmp_path, arguments, words):
    ran = hdi(*arguments)
    assert (ran.code, ran.out) == (2, ""), ran.err
    assert ran.err.startswith("error: ")
    for word in words:
        assert word in ran.err
    assert "Traceback" not in ran.err
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("x")] == []


def test_a_file_whose_ending_says_nothing_takes_any_format(hdi, tmp_path):
    for name, form in (
        ("x.txt", "csv"),
        ("x", "parquet"),
        ("x.data", "arrow"),
        ("x.pq", "parquet"),
        ("x.json", "json"),
    ):
        assert hdi("query", *DAILY, "--output-file", tmp_path / name, "--output-format", form).code == 0


@pytest.mark.parametrize("command", ["query", "bars"])
def test_a_command_without_a_picture_loads_none_of_what_draws(demo_home, command):
    hdi = [sys.executable, "-X", "importtime", "-m", "hdi", "--store", f"lake:{demo_home / 'lake'}"]
    env = {k: v for k, v in os.environ.items() if not k.startswith("HDI_")}
    more = ["--every", "1h", "--source", "ohlcv-1m"] if command == "bars" else ["--where", "volume=1"]
    ran = subprocess.run([*hdi, command, *DAY, *more], capture_output=True, text=True, check=True, env=env)
    loaded = {line.rpartition("|")[2].strip() for line in ran.stderr.splitlines() if line.startswith("import time:")}
    heavy = {"plotly", "matplotlib", "duckdb", "pandas", "pandera", "databento", "prompt_toolkit"}
    assert not heavy & {name.split(".")[0] for name in loaded}
    assert not {name for name in loaded if name.startswith("hdi.cli.charts")}
    if command == "query":
        assert not {name for name in loaded if name.startswith(("hdi.series", "hdi.then"))}

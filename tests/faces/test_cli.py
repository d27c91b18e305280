"""The command line as people and scripts meet it: formats, exit codes, streams, messages."""

import io
import json
import re
from decimal import Decimal

import polars as pl
import pytest

from hdi import HistoricalData
from hdi.cli.app import run
from hdi.cli.demo import _MARK

TBBO = ("-s", "ESH4", "--start-date", "2024-01-02", "--end-date", "2024-01-03", "--schema", "tbbo")
DAILY = ("-s", "ES.c.0", "--start-date", "2024-01-01", "--end-date", "2024-01-12")
EMPTY = ("-s", "ESH4", "--start-date", "2023-05-01", "--end-date", "2023-05-02", "--schema", "tbbo")


@pytest.fixture
def stored(demo_home):
    """The rows as they are stored, by way of the facade."""

    def call(symbols, start, end, schema):
        with HistoricalData.open(f"lake:{demo_home / 'lake'}") as data:
            return data.query(symbols, start, end, schema=schema).collect()

    return call


class TestFormats:
    def test_csv_has_one_header_exact_prices_and_nanoseconds(self, ask, stored):
        ran = ask(*TBBO, "--output-format", "csv")
        frame = stored("ESH4", "2024-01-02", "2024-01-03", "tbbo")
        header, *lines = ran.out.splitlines()
        assert ran.code == 0
        assert header == ",".join(frame.columns)
        assert len(lines) == frame.height == 8000
        first = dict(zip(frame.columns, lines[0].split(","), strict=True))
        assert first["price"] == str(frame["price"][0])
        assert re.fullmatch(r"2024-01-02T\d\d:\d\d:\d\d\.\d{9}Z", first["ts_recv"])
        assert int(first["ts_recv"][-10:-1]) == frame["ts_recv"].to_physical()[0] % 10**9
        assert "" in [line.split(",")[frame.columns.index("bid_px_00")] for line in lines]  # an empty side is null
        again = pl.read_csv(io.BytesIO(ran.raw), schema_overrides={"price": pl.String, "bid_px_00": pl.String})
        assert again["price"].cast(pl.Decimal(18, 9)).equals(frame["price"])
        assert again["bid_px_00"].cast(pl.Decimal(18, 9)).equals(frame["bid_px_00"])

    def test_json_is_one_document_with_prices_as_text(self, ask, stored):
        ran = ask(*TBBO, "--output-format", "json")
        frame = stored("ESH4", "2024-01-02", "2024-01-03", "tbbo")
        rows = json.loads(ran.out)
        assert len(rows) == frame.height
        assert [Decimal(r["price"]) for r in rows] == frame["price"].to_list()
        assert {type(r["price"]) for r in rows} == {str}
        assert [r["bid_px_00"] for r in rows].count(None) == frame["bid_px_00"].null_count() > 0
        assert rows[0]["ts_event"].endswith("Z")
        assert isinstance(rows[0]["sequence"], int)

    @pytest.mark.parametrize(("name", "read"), [("parquet", pl.read_parquet), ("arrow", pl.read_ipc)])
    def test_binary_formats_read_back_equal_to_what_is_stored(self, ask, stored, name, read):
        ran = ask(*TBBO, "--output-format", name)
        frame = stored("ESH4", "2024-01-02", "2024-01-03", "tbbo")
        again = read(io.BytesIO(ran.raw))
        assert again.schema == frame.schema
        assert again.schema["price"] == pl.Decimal(18, 9)
        assert again.schema["ts_recv"] == pl.Datetime("ns", "UTC")
        assert again.equals(frame)

    def test_a_table_off_a_terminal_is_plain_text_with_whole_values(self, ask):
        ran = ask(*DAILY, "--limit", "2")
        assert ran.out.splitlines() == [
            "ts_event              symbol  open_price  high_price  low_price  close_price  volume",
            "--------------------  ------  ----------  ----------  ---------  -----------  ------",
            *ran.out.splitlines()[2:],
        ]
        assert len(ran.out.splitlines()) == 4
        assert ran.out.splitlines()[2].startswith("2024-01-02T00:00:00Z  ESH4    ")
        assert "\x1b" not in ran.out + ran.err
        assert re.search(r"^2 rows in \d+\.\d+ s$", ran.err, re.MULTILINE)
        assert "there are more rows; --limit 2 cut them off" in ran.err

    @pytest.mark.parametrize(
        ("name", "check"),
        [
            ("table", lambda raw: len(raw.splitlines()) == 2),
            ("csv", lambda raw: raw.startswith(b"dataset,") and raw.count(b"\n") == 1),
            ("json", lambda raw: json.loads(raw) == []),
            ("parquet", lambda raw: pl.read_parquet(io.BytesIO(raw)).schema["price"] == pl.Decimal(18, 9)),
            ("arrow", lambda raw: pl.read_ipc(io.BytesIO(raw)).schema["ts_recv"] == pl.Datetime("ns", "UTC")),
        ],
    )
    def test_an_empty_result_keeps_its_format_and_says_why(self, ask, name, check):
        ran = ask(*EMPTY, "--output-format", name)
        assert ran.code == 0
        assert check(ran.raw)
        assert ran.err.startswith("No data found for the specified criteria\n")
        assert "ESH4: never ingested: GLBX.MDP3 tbbo, 2023-05-01 to 2023-05-02" in ran.err
        assert (
            "hdi ingest --api databento --dataset GLBX.MDP3 --schema tbbo --symbols ESH4 --start-date 2023-05-01 "
            "--end-date 2023-05-02"
        ) in ran.err

    def test_the_global_json_option_makes_the_result_json_unless_a_format_is_named(self, ask):
        assert len(json.loads(ask(*DAILY, before=["--json"]).out)) == 9
        assert ask(*DAILY, "--output-format", "csv", before=["--json"]).out.startswith("dataset,")

    def test_columns_are_those_named_in_their_order(self, ask):
        ran = ask(*DAILY, "--columns", "close_price, ts_event", "--output-format", "csv", "--limit", "1")
        assert re.fullmatch(r"close_price,ts_event\n[\d.]+,2024-01-02T00:00:00.000000000Z\n", ran.out)

    def test_symbols_repeated_or_by_commas_are_the_same(self, ask):
        window = (
            "--start-date",
            "2024-01-02",
            "--end-date",
            "2024-01-02",
            "--schema",
            "ohlcv-1m",
            "--output-format",
            "csv",
        )
        one = ask("-s", "ESH4,CLG4", *window).out
        assert one == ask("--symbols", "ESH4, CLG4", *window).out == ask("-s", "CLG4", "-s", "ESH4", *window).out
        assert one.count("\n") > 1000


class TestOutputFile:
    @pytest.mark.parametrize(
        ("ending", "read"),
        [("csv", pl.read_csv), ("json", pl.read_json), ("parquet", pl.read_parquet), ("arrow", pl.read_ipc)],
    )
    def test_its_ending_gives_the_format_and_folders_are_made(self, ask, tmp_path, ending, read):
        path = tmp_path / "a" / "b" / f"result.{ending}"
        ran = ask(*DAILY, "--output-file", path)
        assert (ran.code, ran.out) == (0, "")
        assert "9 rows in" in ran.err
        assert f"written to {path}" in ran.err
        assert read(path).height == 9
        assert [p.name for p in path.parent.iterdir()] == [path.name]

    def test_a_named_format_wins_and_a_strange_ending_needs_one(self, ask, tmp_path):
        assert ask(*DAILY, "--output-file", tmp_path / "x.data", "--output-format", "csv").code == 0
        ran = ask(*DAILY, "--output-file", tmp_path / "x.csv.gz")
        assert (ran.code, ran.out) == (2, "")
        assert "--output-format" in ran.err

    def test_what_cannot_be_written_is_an_error_and_leaves_nothing(self, ask, tmp_path):
        (tmp_path / "file").write_text("kept")
        ran = ask(*DAILY, "--output-file", tmp_path / "file" / "x.csv")
        assert ran.code == 2
        assert "cannot be written" in ran.err
        assert ask(*DAILY, "--output-file", tmp_path, "--output-format", "csv").code == 2
        assert (tmp_path / "file").read_text() == "kept"

    def test_a_query_that_fails_midway_keeps_the_older_file(self, cli, own_demo, tmp_path):
        path = tmp_path / "result.csv"
        path.write_text("older")
        victim = next(own_demo.glob("tbbo_data/**/*2024-01-03*/*.parquet"))
        victim.write_bytes(b"PAR1" + bytes(1000) + b"PAR1")
        ran = cli("--store", own_demo, "query", *TBBO, "--output-file", path)
        assert ran.code != 0
        assert "Traceback" not in ran.err
        assert path.read_text() == "older"
        assert list(tmp_path.glob(".result*")) == []

    def test_a_device_is_written_to_as_it_is(self, ask):
        assert ask(*DAILY, "--output-file", "/dev/null", "--output-format", "parquet").code == 0
        full = ask(*TBBO, "--output-file", "/dev/full", "--output-format", "csv")
        assert full.code == 1
        assert "No space left" in full.err


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "code", "words"),
        [
            (
                ("query", "-s", "ES", "--start-date", "2024-02-01", "--end-date", "2024-01-01"),
                2,
                ("2024-02-01", "2024-01-01"),
            ),
            (
                ("query", "-s", "ES", "--start-date", "01/02/2024", "--end-date", "2024-01-01"),
                2,
                ("not a date", "YYYY-MM-DD"),
            ),
            (("query", "-s", "ESX4", *DAILY[2:]), 2, ("unknown symbol: ESX4", "Did you mean", "Stored, for example")),
            (("query", *DAILY, "--schema", "ohlvc"), 2, ("unknown schema", "ohlcv")),
            (("query", *DAILY, "--columns", "vollume"), 2, ("unknown column", "volume")),
            (("query", *DAILY, "--output-format", "cvs"), 2, ("unknown output format", "csv")),
            (("query", *DAILY, "--limit", "0"), 2, ("--limit",)),
            (("query", *DAILY[2:]), 2, ("Missing option", "--symbols", "Try: hdi query --help")),
            (("query", "-s", " , ", *DAILY[2:]), 2, ("no symbol was named", "ALL_SYMBOLS")),
            (("query", "-s", "9" * 30, *DAILY[2:]), 2, ("unknown symbol",)),
            (("qurey",), 2, ("No such command", "query")),
            (("query", "--jsn"), 2, ("No such option", "Try: hdi query --help")),
            (("query", "--json", *DAILY), 2, ("--json is for every command and stands before it",)),
            (("ingest", "--api", "bloomberg", "x"), 2, ("unknown source 'bloomberg'", "Known: databento, dbn")),
            (("ingest", "--api", "dbn"), 2, ("no file was named",)),
            (("demo",), 2, ("--folder",)),
        ],
    )
    def test_they_say_what_is_wrong_and_what_to_do(self, cli, demo_home, arguments, code, words):
        ran = cli("--store", f"lake:{demo_home / 'lake'}", *arguments)
        assert (ran.code, ran.out) == (code, "")
        assert ran.err.startswith("error: ")
        for word in words:
            assert word in ran.err
        assert "Traceback" not in ran.err

    @pytest.mark.parametrize("url", ["s3://bucket/lake", "mystore:place"])
    def test_a_kind_of_store_that_this_version_lacks_is_refused(self, cli, tmp_path, url):
        ran = cli("--store", url, "query", *DAILY)
        assert ran.code == 2
        assert "no store of type" in ran.err
        assert "Known: lake" in ran.err
        assert not (tmp_path / url).exists()

    def test_a_setting_that_is_wrong_is_named(self, cli):
        ran = cli("--log-level", "LOUD", "status")
        assert ran.code == 2
        assert "--log-level" in ran.err

    def test_a_traceback_comes_with_debug_only(self, cli, demo_home):
        lake = f"lake:{demo_home / 'lake'}"
        asked = ("query", "-s", "NOPE", *DAILY[2:])
        assert "Traceback" not in cli("--store", lake, *asked).err
        ran = cli("--store", lake, "--log-level", "DEBUG", *asked)
        assert "Traceback" in ran.err
        assert ran.code == 2

    def test_nothing_asked_for_is_help(self, cli):
        ran = cli()
        assert "Usage: hdi" in ran.out + ran.err
        assert cli("--help").code == 0
        assert "query" in cli("--help").out


class TestIngest:
    def test_a_file_is_one_line_and_again_is_skipped(self, cli, store, demo_home):
        path = next((demo_home / "files").glob("*.statistics.*"))
        first = cli("--store", store, "ingest", "--api", "dbn", "--origin", "synthetic", path)
        assert first.code == 0
        assert first.out.startswith(f"stored  {path}  GLBX.MDP3 statistics  56 fetched, 54 stored, 2 quarantined")
        again = cli("--store", store, "ingest", "--api", "dbn", "--origin", "synthetic", path, "--force")
        assert (again.code, again.out[:8]) == (0, "skipped ")

    def test_json_is_one_object_a_line(self, cli, store, demo_home):
        paths = sorted((demo_home / "files").glob("*ohlcv*"))
        ran = cli("--store", store, "--json", "ingest", "--api", "dbn", "--origin", "synthetic", *paths)
        objects = [json.loads(line) for line in ran.out.splitlines()]
        assert {o["schema"] for o in objects} == {"ohlcv-1d", "ohlcv-1m"}
        for each in objects:
            assert each["fetched"] == each["stored"] + each["quarantined"] > 0
            assert each["fetched"] == sum(r["fetched"] for r in each["receipts"])
            assert each["error"] is None
        assert "2 files: 2 stored" in ran.err

    def test_a_dry_run_stores_nothing(self, cli, store, demo_home, tmp_path):
        path = next((demo_home / "files").glob("*.statistics.*"))
        ran = cli("--store", store, "ingest", "--api", "dbn", "--origin", "synthetic", path, "--dry-run")
        assert (ran.code, ran.out[:8]) == (0, "planned ")
        assert not (tmp_path / "lake").exists()
        assert not (tmp_path / "data").exists()

    def test_the_exit_code_is_the_worst_of_all_files_and_the_good_ones_are_stored(
        self, cli, store, demo_home, tmp_path
    ):
        good = next((demo_home / "files").glob("*.statistics.*"))
        torn = tmp_path / "torn.dbn.zst"
        torn.write_bytes(good.read_bytes()[:-20])
        strange = tmp_path / "strange.dbn"
        strange.write_text("not DBN")
        ran = cli(
            "--store", store, "ingest", "--api", "dbn", "--origin", "synthetic", torn, good, strange, tmp_path / "none"
        )  # fmt: skip
        assert ran.code == 4
        assert [line.split()[0] for line in ran.out.splitlines()] == ["failed", "stored", "failed", "failed"]
        assert ran.err.count("error: ") == 3
        assert "Traceback" not in ran.err

    def test_too_many_rejects_is_exit_4_and_a_higher_limit_takes_them(self, cli, store, put_file):
        path = put_file([(5, 4, 6, 5)] * 101)
        ran = cli("--store", store, "ingest", "--api", "dbn", path)
        assert ran.code == 4
        assert "--max-rejects" in ran.err
        assert cli("--store", store, "ingest", "--api", "dbn", path, "--max-rejects", "100").code == 0

    def test_synthetic_data_does_not_mix_with_real(self, cli, store, put_file, demo_home):
        assert cli("--store", store, "ingest", "--api", "dbn", put_file([(5, 5, 5, 5)])).code == 0
        path = next((demo_home / "files").glob("*.statistics.*"))
        ran = cli("--store", store, "ingest", "--api", "dbn", "--origin", "synthetic", path)
        assert ran.code == 2
        assert "synthetic" in ran.err


class TestStatus:
    def test_nothing_stored_yet_is_healthy_and_not_measured(self, cli, store):
        ran = cli("--store", store, "status")
        assert ran.code == 0
        assert ran.out.startswith("System Status: Healthy\nDatabase: Connected (lake ")
        assert ran.out.count("not measured") == 4
        assert "Quarantine: " in ran.out
        assert "(empty)" in ran.out

    def test_what_was_done_is_measured(self, cli, own_demo):
        store = ("--store", own_demo)
        assert cli(*store, "query", *DAILY).code == 0
        ran = cli(*store, "status", "--comprehensive")
        assert ran.code == 0
        assert re.search(r"Average Query Time: [\d.e-]+ seconds over 1 query", ran.out)
        assert re.search(r"Last Ingestion: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \(Success\)", ran.out)
        assert "Data Integrity: 99.9% validation success rate" in ran.out
        assert "  tbbo_data: 19500 rows" in ran.out
        assert "  read from trades: " in ran.out
        found = json.loads(cli(*store, "--json", "status").out)
        assert found["status"] == "healthy"
        assert found["queries"] == 1
        assert found["last_ingestion"]["result"] == "success"
        assert found["quarantine"]["rows"] > 0
        assert found["api"] is None
        assert found["store"]["tables"]["trades_data"]["rows"] == 13680

    def test_parts_can_be_asked_for(self, cli, own_demo):
        database = cli("--store", own_demo, "status", "--check-db").out
        assert "Database: Connected" in database
        assert "read from tbbo" in database
        assert "Storage" not in database
        assert cli("--store", own_demo, "status").out.splitlines()[2] == "API: not measured"
        asked = cli("--store", own_demo, "status", "--check-api")
        assert asked.code == 1
        assert asked.out.splitlines() == [
            "System Status: Unhealthy: there is no Databento API key",
            "API: Databento connection failed: there is no Databento API key",
        ]  # fmt: skip

    def test_a_store_that_cannot_be_opened_is_exit_1(self, cli, tmp_path):
        (tmp_path / "file").write_text("no lake")
        ran = cli("--store", tmp_path / "file", "status")
        assert ran.code == 1
        file = tmp_path / "file"
        why = f"{file} is a file, not a folder for a lake"
        assert ran.out.startswith(f"System Status: Unhealthy: {why}\nDatabase: Not connected")
        assert "error: " in ran.err
        assert json.loads(cli("--store", tmp_path / "file", "--json", "status").out)["status"] == "unhealthy"

    def test_version_names_program_python_libraries_and_store(self, cli, store):
        ran = cli("--store", store, "version")
        assert [line.split()[0] for line in ran.out.splitlines()][:3] == ["hdi", "python", "polars"]
        found = json.loads(cli("--store", store, "--json", "version").out)
        assert found["store"] == "lake"
        assert found["polars"] == pl.__version__
        assert cli("--version").out.startswith("hdi ")


class TestDemo:
    def test_all_its_claims_hold_as_json_too_and_it_says_that_the_data_is_synthetic(self, cli, tmp_path):
        """As text: tests/docs/test_docs.py. What an earlier demo left is gone."""
        home = tmp_path / "data" / "demo"
        home.mkdir(parents=True)
        for name in (_MARK, "earlier"):
            (home / name).touch()
        ran = cli("--json", "demo")
        assert ran.code == 0, ran.out + ran.err
        told = json.loads(ran.out)
        assert len(told["claims"]) >= 10
        assert all(told["claims"].values())
        assert told["synthetic"] is True
        assert (home / "lake").is_dir()
        assert not (home / "earlier").exists()

    def test_it_never_takes_a_folder_with_other_things(self, cli, tmp_path):
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").write_text("years of work")
        ran = cli("demo", "--folder", tmp_path / "mine")
        assert ran.code == 2
        assert (tmp_path / "mine" / "thesis.txt").exists()


def test_the_shell_is_given_completions(monkeypatch, capfd):
    monkeypatch.setenv("_HDI_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "hdi que")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert run([]) == 0
    assert "query" in capfd.readouterr().out

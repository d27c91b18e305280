"""Jobs: read from their file with the place of every mistake, found by name, listed."""

import datetime as dt
import json
import os
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from hdi.cli import run
from hdi.errors import ConfigError, RequestError
from hdi.jobs import Job, find_job, load_jobs
from hdi.model import Window, iso_ns
from hdi.schema_files import load_schemas
from hdi.symbology import infer_stype

ROOT = Path(__file__).resolve().parents[2]
FUTURES = ("CL.c.0", "ES.c.0", "NG.c.0", "HO.c.0", "RB.c.0")
GOOD = {
    "dataset": "GLBX.MDP3",
    "schema": "ohlcv-1d",
    "symbols": "[ES.c.0]",
    "start_date": "2024-01-02",
    "end_date": "2024-01-03",
}


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """Every test in a folder of its own, without variables of the one who runs it."""
    for name in list(os.environ):
        if name.startswith(("HDI_", "TIMESCALEDB_", "DATABENTO_")) or name in {"LOG_LEVEL", "NO_COLOR"}:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def write(tmp_path):
    def write(text, name="databento_config.yaml"):
        path = tmp_path / "configs" / "api_specific" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def job(write):
    """Writes one job ``a`` with other values, reads it back; a value of "" leaves the key out."""

    def job(**values):
        lines = [f"    {key}: {value}\n" for key, value in (GOOD | values).items() if value]
        path = write("jobs:\n  a:\n" + "".join(lines))
        return load_jobs(path.parents[1])["a"]

    return job


def refused(read, *given, **values):
    with pytest.raises(ConfigError) as caught:
        read(*given, **values)
    return caught.value


# Reading


def test_jobs_come_in_the_order_of_their_file_with_all_they_say(write):
    path = write(
        "databento: {tries: 3}\n"
        "jobs:\n"
        "  z: {dataset: GLBX.MDP3, schema: trades, symbols: 'ES.c.0, CL.c.0,ES.c.0', stype_in: continuous,\n"
        "      start_date: 2024-01-02, end_date: '2024-01-02T12:00:00Z', description: Half a day.}\n"
        "  a: {dataset: XNAS.ITCH, schema: ohlcv-1d, symbols: [SPY, 5002], start_date: 2023-01-01,\n"
        "      end_date: 2023-12-31, stype_in: , description: }\n"
    )
    jobs = load_jobs(path.parents[1])
    assert list(jobs) == ["z", "a"]
    assert jobs["z"] == Job(
        name="z",
        dataset="GLBX.MDP3",
        schema="trades",
        symbols=("ES.c.0", "CL.c.0"),
        stype_in="continuous",
        start_date="2024-01-02",
        end_date="2024-01-02T12:00:00Z",
        description="Half a day.",
    )
    assert jobs["a"].symbols == ("SPY", "5002")
    assert (jobs["a"].stype_in, jobs["a"].description) == (None, "")
    assert jobs["a"].where == f"{path}:5:3: jobs.a"


def test_the_other_name_of_the_file_holds_jobs_too_and_both_are_refused(write):
    folder = write(f"jobs: {{a: {{{', '.join(f'{k}: {v}' for k, v in GOOD.items())}}}}}", "databento.yaml").parents[1]
    assert list(load_jobs(folder)) == ["a"]
    write("jobs:")
    assert "the same settings are also in databento.yaml" in refused(load_jobs, folder).message


@pytest.mark.parametrize("text", ["", "databento: {tries: 3}", "jobs:", "jobs: {}"])
def test_a_file_without_jobs_holds_none(write, text):
    assert load_jobs(write(text).parents[1]) == {}


def test_a_folder_without_the_file_and_no_folder_hold_none(tmp_path):
    assert load_jobs(tmp_path) == {}
    assert load_jobs(None) == {}


def test_a_date_as_the_end_means_through_that_day_and_an_instant_is_exclusive(job):
    window = job(end_date="2024-01-03").window
    assert (iso_ns(window.start), iso_ns(window.end)) == ("2024-01-02T00:00:00Z", "2024-01-04T00:00:00Z")
    window = job(end_date="2024-01-03T00:00:00Z").window
    assert iso_ns(window.end) == "2024-01-03T00:00:00Z"


def test_a_symbol_is_what_is_written_and_no_number_of_another_notation(job):
    assert job(symbols="[0123, 5:37, 0x4F5D, 20317]").symbols == ("0123", "5:37", "0x4F5D", "20317")


def test_jobs_may_share_values_by_anchors(write):
    path = write(
        "jobs:\n"
        "  a: &a {dataset: X, schema: trades, symbols: [ES.c.0], start_date: 2024-01-02, end_date: 2024-01-02}\n"
        "  b: {<<: *a, schema: tbbo}\n"
        "  c: {<<: *a, end_date: 2024-01-01}\n"
    )
    assert refused(load_jobs, path.parents[1]).message.startswith(f"{path}:4:15: jobs.c.end_date: the start date")
    path.write_text("\n".join(path.read_text(encoding="utf-8").splitlines()[:3]), encoding="utf-8")
    a, b = load_jobs(path.parents[1]).values()
    assert replace(a, name="b", schema="tbbo") == b


# Mistakes


@pytest.mark.parametrize(
    ("values", "where", "told"),
    [
        (
            {"start_date": "2024-13-02"},
            ":6:5: jobs.a.start_date: ",
            "'2024-13-02' is not a date: month must be in 1..12",
        ),
        (
            {"start_date": "20240102"},
            ":6:5: jobs.a.start_date: ",
            "'20240102' is not a date or a time. Write YYYY-MM-DD",
        ),
        ({"end_date": "yesterday"}, ":7:5: jobs.a.end_date: ", "'yesterday' is not a date or a time. Write YYYY-MM-DD"),
        ({"end_date": "1969-12-31"}, ":7:5: jobs.a.end_date: ", "is outside 1970-01-01 to 2262-04-10"),
        (
            {"end_date": "2024-01-01"},
            ":7:5: jobs.a.end_date: ",
            "the start date 2024-01-02 is not before the end date 2024-01-01",
        ),
        ({"symbols": "[]"}, ":5:5: jobs.a.symbols: ", "[]: a symbol is needed, such as ES.c.0"),
        ({"symbols": "' , '"}, ":5:5: jobs.a.symbols: ", "' , ': a symbol is needed, such as ES.c.0"),
        ({"symbols": "null"}, ":5:5: jobs.a.symbols: ", "None is not a symbol"),
        ({"symbols": "[ES.c.0, true]"}, ":5:5: jobs.a.symbols: ", "True is not a symbol"),
        ({"symbols": "[ES.c.0, 1.5]"}, ":5:5: jobs.a.symbols: ", "1.5 is not a symbol"),
        ({"symbols": "{ES.c.0: 1}"}, ":5:5: jobs.a.symbols: ", "is not a symbol"),
        ({"dataset": "' '"}, ":3:5: jobs.a.dataset: ", "' ': a name is needed"),
        ({"schema": "7"}, ":4:5: jobs.a.schema: ", "7: should be a valid string"),
        (
            {"stype_in": "parents"},
            ":8:5: jobs.a.stype_in: ",
            "'parents'. Did you mean parent? Known: raw_symbol, instrument_id, continuous, parent, native.",
        ),
        ({"description": "[x]"}, ":8:5: jobs.a.description: ", "['x']: should be a valid string"),
        ({"dataset": ""}, ":2:3: jobs.a: ", "the key dataset is missing"),
    ],
)
def test_a_bad_value_names_file_line_column_key_and_what_is_allowed(job, tmp_path, values, where, told):
    error = refused(job, **values)
    assert error.message.startswith(f"{tmp_path}/configs/api_specific/databento_config.yaml{where}")
    assert told in error.message


def test_an_unknown_key_names_the_closest_and_all(job):
    error = refused(job, start="2024-01-01")
    assert error.message.endswith(":8:5: jobs.a.start: unknown key start")
    assert error.hint == (
        "Did you mean start_date? Known: dataset, schema, symbols, start_date, end_date, stype_in, description, "
        "all_symbols, sync, cron, timezone."
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("jobs: all\n", ":1:1: jobs: 'all': a job is a name with keys below it"),
        ("jobs: [a, b]\n", ":1:1: jobs: ['a', 'b']: a job is a name with keys below it"),
        ("jobs:\n  a:\n", ":2:3: jobs.a: None: keys are needed here: dataset, schema, "),
        ("jobs:\n  a: [x]\n", ":2:3: jobs.a: ['x']: keys are needed here: dataset, schema, "),
        ("jobs:\n  my job: {}\n", ":2:3: jobs.my job: 'my job': a job's name is made of letters"),
        ("jobs:\n  --all: {}\n", ":2:3: jobs.--all: '--all': a job's name is made of letters"),
        ("jobs: {a: {}, a: {}}\n", ":1:15: jobs.a: the key is given twice"),
    ],
)
def test_what_is_no_job_is_refused_where_it_stands(write, text, told):
    path = write(text)
    assert refused(load_jobs, path.parents[1]).message.startswith(f"{path}{told}")


def test_all_mistakes_of_all_jobs_are_told_at_once(write):
    path = write(
        "jobs:\n"
        "  a: {dataset: '', schema: trades, symbols: [], start_date: x, end_date: 2024-01-01}\n"
        "  b: {dataset: GLBX.MDP3}\n"
        "  c: {shema: trades}\n"
    )
    error = refused(load_jobs, path.parents[1])
    places = [line.removeprefix(f"{path}:").split(": ")[0:2] for line in error.message.splitlines()]
    assert places == [
        ["2:7", "jobs.a.dataset"],
        ["2:36", "jobs.a.symbols"],
        ["2:49", "jobs.a.start_date"],
        *[["3:3", "jobs.b"]] * 4,
        ["4:7", "jobs.c.shema"],
        *[["4:3", "jobs.c"]] * 5,
    ]
    assert error.hint.startswith("Did you mean schema? ")


# The value


def test_a_job_cannot_be_changed_and_a_changed_copy_is_checked(job):
    made = job()
    with pytest.raises(FrozenInstanceError):
        made.schema = "trades"
    day = dt.date(2024, 1, 5)
    assert replace(made, end_date=day).window == Window.parse("2024-01-02", "2024-01-05")
    with pytest.raises(ValidationError, match="is not before the end date 2024-01-01"):
        replace(made, end_date="2024-01-01")


def test_a_job_is_found_by_its_name(job):
    made = job()
    assert find_job({"a": made}, "a") is made


def test_an_unknown_job_names_the_closest_and_all():
    jobs = load_jobs(ROOT / "configs")
    with pytest.raises(RequestError) as caught:
        find_job(jobs, "OHLCV-1d")
    assert caught.value.message == "unknown job 'OHLCV-1d'"
    assert caught.value.hint.startswith("Did you mean ohlcv_1d, ")
    assert caught.value.hint.endswith(f"Known: {', '.join(jobs)}.")


def test_with_no_job_at_all_the_file_that_would_hold_them_is_named():
    with pytest.raises(RequestError) as caught:
        find_job({}, "ohlcv_1d")
    assert caught.value.message == "unknown job 'ohlcv_1d': no job is defined"
    assert "api_specific/databento_config.yaml" in caught.value.hint


# What ships

YEAR, DECEMBER = ("2023-01-01", "2023-12-31"), ("2023-12-01", "2023-12-31")
ONE_DAY = ("2024-12-02", "2024-12-02")
SHIPPED = {
    "ohlcv_1s": ("GLBX.MDP3", "ohlcv-1s", FUTURES, YEAR),
    "ohlcv_1m": ("GLBX.MDP3", "ohlcv-1m", FUTURES, YEAR),
    "ohlcv_5m": ("GLBX.MDP3", "ohlcv-5m", FUTURES, YEAR),
    "ohlcv_15m": ("GLBX.MDP3", "ohlcv-15m", FUTURES, YEAR),
    "ohlcv_1h": ("GLBX.MDP3", "ohlcv-1h", FUTURES, YEAR),
    "ohlcv_1d": ("GLBX.MDP3", "ohlcv-1d", FUTURES, YEAR),
    "statistics": ("GLBX.MDP3", "statistics", FUTURES, YEAR),
    "trades": ("GLBX.MDP3", "trades", FUTURES, DECEMBER),
    "tbbo": ("GLBX.MDP3", "tbbo", FUTURES, DECEMBER),
    "definitions_es": ("GLBX.MDP3", "definition", ("ES.FUT",), ONE_DAY),
    "definitions_cl": ("GLBX.MDP3", "definition", ("CL.FUT",), ONE_DAY),
    "definitions_ng": ("GLBX.MDP3", "definition", ("NG.FUT",), ONE_DAY),
    "spy_ohlcv_1d": ("XNAS.ITCH", "ohlcv-1d", ("SPY",), YEAR),
    "e2e_ohlcv_test": ("GLBX.MDP3", "ohlcv-1d", ("ES.c.0",), None),
    "e2e_trades_test": ("GLBX.MDP3", "trades", ("ES.c.0",), None),
    "e2e_tbbo_test": ("GLBX.MDP3", "tbbo", ("ES.c.0",), None),
    "e2e_statistics_test": ("GLBX.MDP3", "statistics", ("ES.c.0",), None),
    "test_job": ("GLBX.MDP3", "ohlcv-1d", ("ES.c.0",), None),
}


def test_eighteen_jobs_ship_as_they_are_specified():
    jobs = load_jobs(ROOT / "configs")
    assert len(jobs) == len(SHIPPED) == 18
    shipped = {
        name: (j.dataset, j.schema, j.symbols, (j.start_date, j.end_date) if SHIPPED[name][3] else None)
        for name, j in jobs.items()
    }
    assert shipped == SHIPPED


def test_the_shipped_tests_lie_in_january_2024_and_those_of_ticks_are_short():
    jobs = load_jobs(ROOT / "configs")
    january = Window.parse("2024-01-01", "2024-01-31")
    for name in ("e2e_ohlcv_test", "e2e_trades_test", "e2e_tbbo_test", "e2e_statistics_test", "test_job"):
        assert jobs[name].window.cut(january) == jobs[name].window, name
    assert [jobs[f"e2e_{kind}_test"].window.days for kind in ("trades", "tbbo")] == [1, 1]
    assert jobs["test_job"].window.days == 1


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_job_has_a_known_schema_and_symbols_of_one_type(name):
    job = load_jobs(ROOT / "configs")[name]
    _, schema = load_schemas().find(job.schema)
    assert schema.name == job.schema
    stypes = {"GLBX.MDP3": "parent" if name.startswith("definitions") else "continuous", "XNAS.ITCH": "raw_symbol"}
    assert {infer_stype(symbol) for symbol in job.symbols} == {stypes[job.dataset]}
    assert job.stype_in is None
    assert job.description.endswith(".")
    assert "\n" not in job.description


# hdi list-jobs


@pytest.fixture
def hdi(capsys):
    def hdi(*arguments):
        code = run(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return hdi


SHIPPED_CONFIGS = ("--config-dir", str(ROOT / "configs"))


def test_list_jobs_shows_every_job_as_a_plain_table(hdi):
    code, out, err = hdi(*SHIPPED_CONFIGS, "list-jobs", "--api", "databento")
    assert (code, err) == (0, "")
    heading, rule, *rows = out.splitlines()
    assert heading.split() == [
        "name", "dataset", "schema", "symbols", "window", "sync", "cron", "description"
    ]  # fmt: skip
    assert set(rule) == {"-", " "}
    assert [row.split()[0] for row in rows] == list(SHIPPED)
    assert rows[3].split("  ")[0] == "ohlcv_15m"
    assert (
        "CL.c.0, ES.c.0, NG.c.0, HO.c.0, RB.c.0  2023-01-01 to 2023-12-31  no    -     Bars of fifteen minutes"
        in rows[3]
    )
    assert out.isascii()


def test_list_jobs_as_json_is_one_document(hdi):
    code, out, err = hdi(*SHIPPED_CONFIGS, "--json", "list-jobs", "--api", "databento")
    assert (code, err) == (0, "")
    listed = json.loads(out)
    assert len(listed) == 18
    assert listed[-1] == {
        "name": "test_job",
        "dataset": "GLBX.MDP3",
        "schema": "ohlcv-1d",
        "symbols": ["ES.c.0"],
        "stype_in": None,
        "start_date": "2024-01-02",
        "end_date": "2024-01-02",
        "description": "One daily bar of ES, which checks the API key end to end.",
        "sync": False,
        "cron": None,
        "timezone": None,
    }


def test_list_jobs_of_an_unknown_source_names_the_known_ones(hdi):
    code, out, err = hdi("list-jobs", "--api", "databnto")
    assert (code, out) == (2, "")
    assert err.startswith("error: unknown source 'databnto'\nKnown: databento, dbn")


def test_list_jobs_of_a_source_of_files_says_that_it_has_none(hdi):
    code, out, err = hdi("list-jobs", "--api", "dbn")
    assert (code, out) == (2, "")
    assert err.startswith("error: the source dbn has no jobs\n")


def test_list_jobs_without_any_is_an_empty_result_and_names_the_file(hdi):
    code, out, err = hdi("list-jobs", "--api", "databento")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["name", "----"]
    assert err.startswith("no job is defined. ")
    assert "api_specific/databento_config.yaml" in err
    assert hdi("--json", "list-jobs")[1] == "[]\n"


def test_list_jobs_tells_a_bad_job_with_its_place(hdi, write):
    path = write("jobs:\n  a: {dataset: X}\n")
    code, out, err = hdi("list-jobs")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {path}:2:3: jobs.a: the key schema is missing\n")


def test_other_commands_do_not_mind_a_bad_job(hdi, write):
    write("jobs:\n  a: {dataset: X}\n")
    assert hdi("version")[0] == 0


def test_the_command_loads_nothing_heavy_before_it_runs():
    heavy = {"polars", "pyarrow", "pydantic", "rich", "yaml", "databento"}
    code = f"import sys, hdi.cli.jobs; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_reading_jobs_loads_neither_data_nor_terminal_libraries():
    heavy = {"polars", "pyarrow", "rich", "typer"}
    code = f"import sys, hdi.jobs; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""

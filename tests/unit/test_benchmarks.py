"""The benchmark harness runs on small data, checks what it measures, and judges only what it measured."""

import json
import os
import subprocess
import sys
from decimal import Decimal
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = 20_000


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--rows", str(ROWS), "--data", folder / "data", "--results",
         folder / "out"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [path] = (folder / "out").glob("*.json")
    return json.loads(path.read_text()), path.with_suffix(".md").read_text(), folder


@pytest.fixture
def part(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: import_module(f"benchmarks.{name}")


def found(run):
    return {(r["group"], r["name"]): r for r in run[0]["results"]}


def verdicts(run):
    return {t["target"]: t["verdict"] for t in run[0]["targets"]}


def test_every_piece_of_work_is_measured(run):
    assert not [r for r in run[0]["results"] if "error" in r]
    for name in ("hdi ingest (library)", "hdi ingest (process)", "vendor to_parquet", "bare decode + Parquet"):
        result = found(run)["trades 20,000", name]
        assert result["rows"] == ROWS
        assert result["seconds_best"] > 0
        assert result["peak_mib"] > 10
        assert result["disk_mib"] > 0


def test_hdi_and_the_vendors_client_bring_the_same_rows_through_the_api(run):
    pieces = (
        "hdi ingest (library)", "hdi ingest (process)", "vendor get_range + to_parquet",
        "vendor get_range + to_parquet (process)", "vendor get_range alone",
    )  # fmt: skip
    day, year = ("API: a day of 20,000 ES trades", "API: a year of daily bars of five symbols")
    for group, least, most in ((day, ROWS, ROWS * 1.02), (year, 5 * 250, 5 * 366)):
        results = [found(run)[group, name] for name in pieces]
        [rows] = {r["rows"] for r in results}
        assert least <= rows <= most
        assert all(r["seconds_best"] > 0 and r["peak_mib"] > 10 for r in results)


def test_the_rehearsal_vendors_own_rate_is_measured(run):
    rates = [r for group, r in ((key[0], r) for key, r in found(run).items()) if group.startswith("rehearsal")]
    assert {r["name"].split(",")[0] for r in rates} == {"ohlcv-1m", "trades", "tbbo"}
    assert all(r["rows_per_second"] > 0 for r in rates)


def test_a_job_is_offered_done_and_found_done(run):
    offered, bought, again = (found(run)[group, "test_job"] for group in ("jobs, the offer", "jobs", "jobs, again"))
    assert offered["rows"] == bought["rows"] == bought["units"] == 1
    assert round(Decimal(offered["dollars"]), 9) == Decimal(bought["dollars"]) > 0
    assert (again["rows"], again["units"], Decimal(again["dollars"])) == (0, 0, 0)
    assert "| test_job | 1 | 1 |" in run[1]


def test_speed_is_judged_at_the_size_that_the_target_names_only(run):
    large = {v for t, v in verdicts(run).items() if t.startswith(("trades 5 M", "API: a day of 500,000"))}
    assert large == {"not measured"}
    assert verdicts(run)["import hdi"] in {"reached", "not reached"}
    assert "not measured" in run[1]


def test_what_was_measured_of_the_api_is_judged(run):
    [year] = [v for t, v in verdicts(run).items() if t.startswith("one year of daily bars")]
    [jobs] = [v for t, v in verdicts(run).items() if t.startswith("predefined jobs")]
    assert year in {"reached", "not reached"}
    assert jobs == "reached"


def test_a_result_names_no_place_on_this_machine(run):
    document, text, folder = run
    for place in (str(folder), str(ROOT), str(Path.home())):
        assert place not in json.dumps(document) + text


def test_nothing_but_the_generated_files_is_left_behind(run):
    assert {p.suffix for p in (run[2] / "data").iterdir() if p.name != ".gitignore"} == {".zst"}


def test_a_start_that_loads_a_library_of_the_vendor_is_an_error(part, tmp_path):
    heavy = part("__main__").light("import hdi", "import hdi, databento_dbn\n")
    [measured] = part("measure").run_all([heavy], tmp_path)
    assert "databento_dbn" in measured.error


def test_outcomes_with_other_rows_than_expected_are_an_error(part, tmp_path):
    measure = part("measure")
    outcome = {"status": "stored", "stored": 41, "units": 1, "dollars": "0.5"}
    code = f"print('''{json.dumps(outcome)}''')"

    def case(rows):
        return measure.Case("g", "n", rows, command=(sys.executable, "-c", code), counts=measure.OUTCOMES, rounds=1)

    right, wrong = measure.run_all([case(41), case(42)], tmp_path)
    assert (right.rows, right.units, right.dollars, right.error) == (41, 1, Decimal("0.5"), "")
    assert wrong.error == "41 rows, not 42"


def test_a_job_that_failed_is_shown_and_counted(part):
    measure, report = part("measure"), part("report")
    groups = ("jobs, the offer", "jobs", "jobs, again")

    def job(name, error=""):
        return [
            measure.Measured(measure.Case(g, name), [2.0], 1 << 20, 1 << 20, 10, 1, Decimal(1), error) for g in groups
        ]

    results = [*job("right"), *job("wrong", "9 rows were stored, and 10 offered")]
    [target] = [t for t in report.targets(results) if t.text.startswith("predefined jobs")]
    assert (target.value, target.verdict) == (50, "not reached")
    document = {
        "date": "", "mode": "", "targets": [], "load_average": {"before": 0, "after": 0},
        "machine": report.machine(), "results": [m.as_dict() for m in results],
    }  # fmt: skip
    text = report.markdown(document)
    assert "| wrong | failed: jobs, the offer: 9 rows were stored, and 10 offered;" in text
    assert "| all | 10 | 1 | 1.0000 | 2.00 | 2.00 | 5 | | | 2.00 | |" in text

"""The benchmark harness runs on small data, checks what it measures, and judges only what it measured."""

import json
import os
import subprocess
import sys
from decimal import Decimal
from importlib import import_module
from pathlib import Path

import psycopg
import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS, FEW_ROWS = 20_000, 2_000
#: Nobody listens there.
NO_SERVER = "postgresql://postgres@127.0.0.1:1/postgres"


def python(*words, server=NO_SERVER):
    """A program of the benchmarks, run on a database server, with processes as :mod:`forking` has them."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", Path(__file__).with_name("forking.py"), *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": paths, "HDI_TEST_TIMESCALEDB": server},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def benchmarks(folder, rows, *words, server=NO_SERVER):
    """Results as JSON and Markdown, and the folder of a run."""
    places = ("--data", folder / "data", "--results", folder / "out")
    python("benchmarks", "--rows", rows, "--rounds", 1, *places, *words, server=server)
    [path] = (folder / "out").glob("*.json")
    return json.loads(path.read_text()), path.with_suffix(".md").read_text(), folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run without a database server."""
    return benchmarks(tmp_path_factory.mktemp("bench"), ROWS)


@pytest.fixture(scope="module")
def run_on_server(tmp_path_factory, timescaledb):
    """A run of what needs a database server."""
    return benchmarks(tmp_path_factory.mktemp("bench"), FEW_ROWS, "--only", "TimescaleDB", server=timescaledb)


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


def test_without_a_database_server_the_rest_is_measured_and_the_reason_told(run):
    assert not [r for r in run[0]["results"] if r["group"].startswith("TimescaleDB")]
    judged = {v for t, v in verdicts(run).items() if t.startswith("TimescaleDB")}
    assert judged == {f"not measured: {run[0]['server']['missing']}"}
    assert "cannot be reached" in run[0]["server"]["missing"]
    assert f"TimescaleDB: not measured, {run[0]['server']['missing']}." in run[1]


def test_hdi_and_its_peers_load_the_same_number_of_rows_into_the_server(run_on_server):
    assert not [r for r in run_on_server[0]["results"] if "error" in r]
    many = ("hdi ingest (library)", "hdi ingest (process)", "bare binary COPY", "bare decode + bare binary COPY")
    few = ("hdi ingest (library)", "bare binary COPY", "psycopg executemany", "pandas to_sql",
           "pandas to_sql, method multi")  # fmt: skip
    for group, names in ((f"trades {FEW_ROWS:,}", many), (f"row by row, {FEW_ROWS:,} trades", few)):
        for name in names:
            result = found(run_on_server)[f"TimescaleDB: {group}", name]
            assert result["rows"] == FEW_ROWS
            assert result["seconds_best"] > 0
            assert result["disk_mib"] > 0


def test_lake_and_server_are_measured_side_by_side(run_on_server):
    by_group = {}
    for (group, _), result in found(run_on_server).items():
        by_group.setdefault(group, []).append(result["rows"])
    for group, questions in (("the same once more", 1), ("beside what is stored", 1), ("queries", 2)):
        rows = by_group[f"TimescaleDB: {group}"]
        assert len(rows) == 2 * questions
        assert len(set(rows)) == questions
        assert min(rows) > 0


def test_a_result_says_which_server_was_measured(run_on_server, timescaledb):
    document, text, _ = run_on_server
    with psycopg.connect(timescaledb) as connection:
        assert (document["server"]["settings"]["fsync"],) == connection.execute("SHOW fsync").fetchone()
    assert f"TimescaleDB {document['server']['timescaledb']}" in text
    assert {v for t, v in verdicts(run_on_server).items() if t.startswith("TimescaleDB: trades 5 M")} == {
        "not measured"
    }


def test_a_bare_copy_stores_the_very_rows_that_hdi_stores(part, fresh_database, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    work, path = part("work"), part("tape").make("trades", 2_000, tmp_path)
    urls = [fresh_database(), fresh_database()]
    words = {"store": f"lake:{tmp_path / 'lake'}", "file": str(path)}
    work.main("store_ingest", json.dumps(words), tmp_path)
    work.main("store_ingest", json.dumps(words | {"store": urls[0]}), tmp_path)
    part("sql_work").save_rows(tmp_path / "lake", "trades", tmp_path / "rows.arrow")
    words = {"rows": str(tmp_path / "rows.arrow"), "database": urls[1]}
    work.main("bare_copy", json.dumps(words), tmp_path)
    tables = []
    for url in urls:
        with psycopg.connect(url) as connection:
            tables.append(connection.execute("SELECT * FROM trades_data ORDER BY _row").fetchall())
    assert len(tables[0]) == 2_000
    assert tables[0] == tables[1]


def test_a_database_of_a_round_is_empty_and_gone_after_it(part, timescaledb):
    made = part("server").Databases(timescaledb, "of the tests")
    with made.fresh() as url:
        with psycopg.connect(url) as connection:
            [name, extensions, tables] = connection.execute(
                "SELECT current_database(), (SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'), "
                "(SELECT count(*) FROM pg_tables WHERE schemaname = 'public')"
            ).fetchone()
        assert (extensions, tables) == (1, 0)
    made.close()
    with psycopg.connect(timescaledb) as connection:
        assert not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone()


def test_a_lake_and_a_server_that_disagree_are_an_error(part):
    measure, timescaledb = part("measure"), part("timescaledb")

    def answer(where, rows):
        return measure.Measured(measure.Case("g", f"hdi query, {where}, a day"), [1.0], rows=rows)

    results = [answer("TimescaleDB", 41), answer("lake", 42)]
    timescaledb.alike(results)
    assert {m.error for m in results} == {"lake and server disagree: [41, 42] rows"}


def test_the_share_of_a_bare_copy_is_that_of_the_best_rounds(part):
    measure, report = part("measure"), part("report")

    def piece(name, seconds):
        return measure.Measured(measure.Case("TimescaleDB: trades 5 M", name), seconds, 1 << 20, rows=5_000_000)

    results = [piece("hdi ingest (library)", [9.0, 8.0]), piece("bare binary COPY", [6.0, 7.0])]
    share, rate = (t for t in report.targets(results) if t.text.startswith("TimescaleDB: trades 5 M"))
    assert (share.value, share.verdict) == (0.75, "not reached")
    assert (rate.value, rate.verdict) == (625_000, "not reached")
    assert "833,333" in rate.text


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

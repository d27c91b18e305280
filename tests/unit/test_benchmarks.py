"""The benchmark harness runs on a small file, and judges only what it measured."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--rows", "20000", "--data", folder / "data", "--results", folder / "out"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [path] = (folder / "out").glob("*.json")
    return json.loads(path.read_text()), path.with_suffix(".md").read_text(), folder


def test_every_piece_of_work_is_measured(run):
    document, _, _ = run
    found = {(r["group"], r["name"]): r for r in document["results"]}
    assert not [r for r in document["results"] if "error" in r]
    for name in ("hdi ingest (library)", "hdi ingest (process)", "vendor to_parquet", "bare decode + Parquet"):
        result = found["trades 20,000", name]
        assert result["rows"] == 20_000
        assert result["seconds_best"] > 0
        assert result["peak_mib"] > 10
        assert result["disk_mib"] > 0


def test_speed_is_judged_at_five_million_rows_only(run):
    document, text, _ = run
    verdicts = {t["target"]: t["verdict"] for t in document["targets"]}
    assert {v for t, v in verdicts.items() if t.startswith("trades 5 M")} == {"not measured"}
    assert verdicts["import hdi"] in {"reached", "not reached"}
    assert "not measured" in text


def test_a_result_names_no_place_on_this_machine(run):
    document, text, folder = run
    for place in (str(folder), str(ROOT), str(Path.home())):
        assert place not in json.dumps(document) + text


def test_nothing_but_the_generated_files_is_left_behind(run):
    assert {p.suffix for p in (run[2] / "data").iterdir() if p.name != ".gitignore"} == {".zst"}

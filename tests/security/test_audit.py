"""``make audit`` passes only where each package was looked up: what could not be found out is never a pass."""

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "audit.py"


@pytest.fixture
def audit():
    spec = importlib.util.spec_from_file_location("audit", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GOOD = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1", "3"]}]}
UNKNOWN = {"name": "c", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("packages", "code", "words"),
    [
        ([GOOD], 0, "1 of 1 packages audited, 0 vulnerable"),
        ([GOOD, BAD], 1, "b 2: PYSEC-1, mended in 2.1, 3"),
        ([GOOD, UNKNOWN], 3, "the service knows nothing of c"),
        ([BAD, UNKNOWN], 1, "1 of 2 packages audited, 1 vulnerable"),
        ([UNKNOWN] * 9, 3, "and 4 more"),
        ([], 3, "no package"),
    ],
)
def test_a_report_is_judged_by_what_was_looked_up(audit, packages, code, words):
    found, lines = audit.judged({"dependencies": packages})
    assert found == code
    assert words in "\n".join(lines)


@pytest.mark.parametrize("said", ["", "[]", json.dumps({"error": 1}), "Traceback"])
def test_a_program_that_gives_no_report_is_no_pass(audit, tmp_path, monkeypatch, said):
    lock = tmp_path / "lock"
    lock.write_text("a==1")
    ended = subprocess.CompletedProcess([], 0, said, "no network\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    code, (line,) = audit.audited(lock)
    assert code == 3
    assert "no network" in line


def test_a_lock_that_is_not_there_is_no_pass(audit, tmp_path):
    assert audit.audited(tmp_path / "none")[0] == 3

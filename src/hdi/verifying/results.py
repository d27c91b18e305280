"""Results of a verification as a document: made, written into the folder of the logs, and read again."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hdi import private
from hdi.errors import RequestError, StoreError
from hdi.verifying import LEAST_STABLE, MOST_REJECTED, MOST_SECONDS, WEIGHTS, YEAR, Tested, problems

PREFIX = "mvp_verification_results_"
#: What each test requires, in words.
_REQUIREMENTS = {
    "data_availability": f"{YEAR} days of daily bars of CL, ES, NG, HO and RB, and rows of each in every schema",
    "performance_benchmark": f"a month query in less than {MOST_SECONDS:g} s",
    "data_integrity": f"less than {MOST_REJECTED:g} % of rows rejected, none unaccounted for",
    "operational_stability": f"at least {LEAST_STABLE:g} % of runs ended well",
}


def document(found: Sequence[Tested], about: Mapping[str, Any]) -> dict[str, Any]:
    """The result as plain values; ``about`` says when, where and by what it was measured."""
    score = sum(WEIGHTS[test.name] * test.score for test in found if test.state != "not measured")
    most = 100 * sum(WEIGHTS[test.name] for test in found)
    states = [test.state for test in found]
    overall = "fail" if "fail" in states else "not measured" if "not measured" in states else "pass"
    counted = {
        state: sum(c.state == state for t in found for c in t.checks) for state in ("pass", "fail", "not measured")
    }
    return {
        "execution_metadata": dict(about),
        "executive_summary": {
            "overall": overall, "passed": overall == "pass", "score": round(score, 2), "score_possible": round(most, 2),
            "tests": {test.name: test.state for test in found}, "checks": counted,
            "not_measured": [f"{name}: {check.name}" for name, check in problems(found) if check.state != "fail"],
        },
        "individual_test_results": {
            test.name: {
                "state": test.state, "score": round(test.score, 2), "weight": WEIGHTS[test.name],
                "seconds": round(test.seconds, 3), "checks": [asdict(check) for check in test.checks],
            }
            for test in found
        },
        "comprehensive_analysis": {test.name: dict(test.details) for test in found},
        "nfr_compliance": {
            test.name: {"requirement": _REQUIREMENTS[test.name], "state": test.state,
                        "measured": [check.said for check in test.checks]}
            for test in found
        },
        "recommendations": [
            {"test": name, "check": check.name, "state": check.state, "found": check.said, "do": check.mend}
            for name, check in problems(found)
        ],
    }  # fmt: skip


def write(folder: Path, result: Mapping[str, Any], at: dt.datetime) -> Path:
    """Keep a result beside the logs, whole or not at all. Raises StoreError when that cannot be."""
    path = folder / f"{PREFIX}{at:%Y%m%dT%H%M%S%f}Z.json"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        private.write(path, [json.dumps(result, ensure_ascii=False, indent=1, default=str), "\n"])
    except OSError as exc:
        raise StoreError(f"{path}: cannot be written: {exc.strerror or exc}", "log.dir names the folder.") from exc
    return path


def last(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The last result that was kept. RequestError where there is none, or it is none."""
    paths = sorted(folder.glob(f"{PREFIX}*.json"))
    if not paths:
        raise RequestError(f"no result is kept in {folder}", "hdi verify measures, and keeps one.")
    try:
        found = json.loads(paths[-1].read_text(encoding="utf-8"))
        _ = found["executive_summary"]["passed"], found["individual_test_results"], found["execution_metadata"]
    except (OSError, ValueError, LookupError, TypeError) as exc:
        raise RequestError(f"{paths[-1]} is no result of hdi verify", "Remove it, or run hdi verify.") from exc
    return paths[-1], found


__all__ = ["PREFIX", "document", "last", "write"]

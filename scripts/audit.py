"""Known vulnerabilities of what requirements.lock names: ``python scripts/audit.py [LOCK]`` (``make audit``).

Exit code 0: each package was looked up, and nothing is known against it. 1: something is. 3: that could not be found
out for all of them, because pip-audit failed or its service did not know them; never taken for a pass.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CLEAN, VULNERABLE, UNKNOWN = 0, 1, 3
#: Nothing is resolved or installed: the lock holds all versions with their digests.
_FLAGS = ("--require-hashes", "--disable-pip", "--progress-spinner", "off", "--format", "json")
_SECONDS = 900
_SHOWN = 5


def judged(found: Mapping[str, Any]) -> tuple[int, list[str]]:
    """The exit code, and what to say of pip-audit's own report."""
    packages = found["dependencies"]
    bad = [p for p in packages if p.get("vulns")]
    unknown = [p["name"] for p in packages if "skip_reason" in p]
    lines = [
        f"{p['name']} {p['version']}: {v['id']}, mended in {', '.join(v.get('fix_versions', [])) or 'no version yet'}"
        for p in bad
        for v in p["vulns"]
    ]
    lines.append(f"{len(packages) - len(unknown)} of {len(packages)} packages audited, {len(bad)} vulnerable")
    if unknown:
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        lines.append(f"not audited: the service knows nothing of {', '.join(unknown[:_SHOWN])}{more}")
    if not packages:
        lines.append("not audited: there is no package in the report")
    return (VULNERABLE if bad else UNKNOWN if unknown or not packages else CLEAN), lines


def audited(lock: Path) -> tuple[int, list[str]]:
    """The exit code, and what to say of a lock."""
    if not lock.is_file():
        return UNKNOWN, [f"not audited: {lock} is no file"]
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(lock), *_FLAGS]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        return UNKNOWN, [f"not audited: pip-audit did not end in {_SECONDS} s"]
    try:
        return judged(json.loads(done.stdout))
    except (ValueError, KeyError, TypeError):
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return UNKNOWN, [f"not audited: pip-audit gave no report (exit code {done.returncode}): {said}"]


def main() -> int:
    """Audit, and tell."""
    code, lines = audited(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "requirements.lock")
    for line in lines:
        print(f"audit: {line}", file=sys.stderr if code else sys.stdout)
    return code


if __name__ == "__main__":
    sys.exit(main())

"""The folder of real vendor files: beside the project, or where ``HDI_REAL_DATA`` points."""

import os
import re
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("HDI_REAL_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
_FAMILY = re.compile(r"trades|tbbo|statistics|definition|ohlcv-1[smhd](?![a-z0-9])")

#: Every DBN file, and those of the five kinds that have tables.
ALL = sorted(p for p in ROOT.rglob("*") if ".dbn" in p.name and p.is_file())
OURS = [p for p in ALL if _FAMILY.search(p.name) and ".frag" not in p.name]


def need():
    """Skip the test where the real files are not at hand; fail in CI."""
    if not ALL:
        reason = f"no real vendor files in {ROOT}; HDI_REAL_DATA names their folder"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


def each(paths):
    """Parametrize over files, with a single case that skips (or fails) where there are none."""
    return pytest.mark.parametrize("path", paths or [None], ids=lambda p: str(p.relative_to(ROOT)) if p else "none")


def file(name: str) -> Path:
    """One real file by its path in the folder."""
    need()
    return ROOT / name

"""The folder of real vendor files: beside the project, or where ``HDI_REAL_DATA`` points."""

import os
import re
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("HDI_REAL_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
#: The vendor's schemas, as its files are named for them; a longer name before what it begins with.
SCHEMAS = (
    "mbo", "mbp-10", "mbp-1", "bbo-1s", "bbo-1m", "cmbp-1", "cbbo-1s", "cbbo-1m", "trades", "tbbo", "tcbbo",
    "ohlcv-1s", "ohlcv-1m", "ohlcv-1h", "ohlcv-1d", "ohlcv-eod", "statistics", "definition", "status", "imbalance",
)  # fmt: skip
_FAMILY = re.compile("|".join(SCHEMAS))

#: Every DBN file, and those that hold one of the vendor's schemas with its header.
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

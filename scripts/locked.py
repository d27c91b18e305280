"""The part of requirements.lock that some use of the package needs, with its digests: for images without our tools.

    python3 scripts/locked.py > runtime.lock            # what the package imports
    python3 scripts/locked.py build > build.lock        # what builds it

Nothing can be missed unseen: pip's ``--require-hashes`` refuses a requirement that is not pinned in its file.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

LOCK = Path(__file__).resolve().parent.parent / "requirements.lock"
OURS = "hdi (pyproject.toml{})"


def part(lock: str, group: str = "") -> str:
    """The entries that the package itself (or one of its dependency groups) needs, and what those need in turn."""
    entries = list(_entries(lock))
    wanted = {OURS.format(f":{group}" if group else "")}
    while more := {name for name, needed_by, _ in entries if needed_by & wanted} - wanted:
        wanted |= more
    return "".join(text for name, _, text in entries if name in wanted)


def _entries(lock: str) -> Iterator[tuple[str, set[str], str]]:
    """Name, what needs it, and text of each entry; a name stands twice where versions differ by Python."""
    for match in re.finditer(r"^([\w.-]+)==.*\n(?:[ ].*\n)+", lock, re.MULTILINE):
        text = match[0]
        yield match[1], set(re.findall(r"^ +#(?: via|  ) +(\S.*)$", text, re.MULTILINE)), text


if __name__ == "__main__":
    sys.stdout.write(part(LOCK.read_text(encoding="utf-8"), *sys.argv[1:2]))

"""The parts of a split batch job, joined by the ``manifest.json`` that lies beside them.

One part says of itself what the whole job asked for, so alone it is a fragment. With all parts of a job
in one call each answers for its own stretch of time, and together they are complete. Days without data
have no file: a part answers up to the day on which the next begins.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hdi.errors import HdiError
from hdi.model import Header, Window

_DAY = re.compile(r"-(\d{4})(\d\d)(\d\d)(?:-\d{8})?\.")

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Part:
    """One file of a job. ``start`` and ``end`` bound what it answers for; ``why`` says why it cannot.

    ``size`` and ``digest`` (SHA-256) are the manifest's, where it gives them.
    """

    start: int
    end: int
    why: str = ""
    size: int | None = None
    digest: str = ""

    def matches(self, size: int, digest: str) -> bool:
        """True when the bytes are those that the manifest names."""
        return self.size in (None, size) and self.digest in ("", digest)

    def describe(self, header: Header) -> Header:
        """The header with the part's own window in place of the job's."""
        if self.why or header.window is None:
            return replace(header, part_of=self.why or "its metadata has no window")
        own = header.window.cut(Window(self.start, self.end))
        if own is None:
            return replace(header, part_of="its window lies outside its job's")
        return replace(header, start=own.start, end=own.end, joined=True)


def parts(paths: Iterable[Path]) -> Iterator[tuple[Path, Part | None]]:
    """Each path with its part of a job, None for a file that belongs to none."""
    wanted = list(paths)
    given: dict[Path, set[str]] = {}
    for path in wanted:
        given.setdefault(_folder(path), set()).add(path.name)
    jobs = {folder: _job(folder, names) for folder, names in given.items()}
    for path in wanted:
        yield path, jobs[_folder(path)].get(path.name)


def _folder(path: Path) -> Path:
    """Where the file lies, however its path is spelt."""
    return Path(os.path.realpath(path.parent))


def _job(folder: Path, given: set[str]) -> dict[str, Part]:
    """The parts of the job whose manifest lies in the folder; empty when there is none or it was not split."""
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"files": []}
        files = {f["filename"]: _bytes(f) for f in manifest["files"] if ".dbn" in f["filename"]}
        names = sorted(files)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    if len(names) < 2:  # noqa: PLR2004
        return {}
    missing = [n for n in names if n not in given]
    if missing:
        why = f"a part of a split job, of which {len(missing)} of {len(names)} parts were not given ({missing[0]})"
        return {n: Part(0, 0, why, *files[n]) for n in names}
    starts = [_start(n) for n in names]
    if None in starts or len(set(starts)) != len(starts):
        why = "a part of a job that was not split by time: what it answers for is not known"
        return {n: Part(0, 0, why, *files[n]) for n in names}
    days = sorted((start, name) for start, name in zip(starts, names, strict=True) if start is not None)
    bounds = [0, *(start for start, _ in days[1:]), 2**63 - 1]
    return {name: Part(bounds[k], bounds[k + 1], "", *files[name]) for k, (_, name) in enumerate(days)}


def _bytes(file: Mapping[str, Any]) -> tuple[int | None, str]:
    """(size, SHA-256) of a file as the manifest has them."""
    size, digest = file.get("size"), str(file.get("hash") or "").lower().removeprefix("sha256:")
    return size if isinstance(size, int) else None, digest if _SHA256.fullmatch(digest) else ""


def _start(name: str) -> int | None:
    match = _DAY.search(name)
    if match is None:
        return None
    day = "-".join(match.groups())
    try:
        return Window.parse(day, day).start
    except HdiError:
        return None

"""What is looked at on this machine: settings, folders, disk, Python and libraries."""

from __future__ import annotations

import os
import platform
import re
import shutil
import stat
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

from hdi import raw
from hdi.configuring import ENV, Checked
from hdi.health import LITTLE, existing
from hdi.model import Finding, FindingState
from hdi.settings import Settings

#: Below so many free bytes a download may not fit.
_TIGHT = 2 << 30
_KIB = 1024
_MODE = 0o077
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*(?P<range>[^;]*)(?:;(?P<marker>.*))?")
_BOUND = re.compile(r"(>=|<=|==|!=|~=|>|<)\s*([0-9][0-9.]*)")


def settings(checked: Checked) -> Iterator[Finding]:
    """Settings, ``.env``, variables and all YAML files of the config folder."""
    where = f"{checked.folder}" if checked.folder else "no config folder: packaged defaults"
    if checked.problems:
        yield Finding("settings", "fail", "\n".join(checked.messages), "\n".join(checked.hints))
    else:
        yield Finding("settings", "pass", f"{where}, {len(checked.files)} files read")
    if checked.notes:
        yield Finding("config folder", "warn", "\n".join(checked.notes), "Rename or remove them.")


def env(cwd: Path, found: Settings | None) -> Iterator[Finding]:
    """The file of secrets; whether others can read it."""
    path = cwd / ENV
    if not path.is_file():
        yield Finding(ENV, "pass", f"there is none in {cwd}: the environment alone counts")
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    secret = found is not None and any(
        place.startswith(str(path)) and key.rpartition(".")[2] in ("key", "password")
        for key, place in found.origins.items()
    )
    if mode & _MODE and secret:
        yield Finding(ENV, "warn", f"{path} holds a secret, and others can read it ({mode:o})", f"chmod 600 {path}")
    else:
        yield Finding(ENV, "pass", f"{path} ({mode:o})")


def python() -> Finding:
    """The version of Python that runs, and the one that is needed."""
    needed, now = metadata("hdi")["Requires-Python"] or "", platform.python_version()
    if _within(now, needed):
        return Finding("python", "pass", f"{now} (needed: {needed})")
    return Finding("python", "fail", f"{now}; needed is {needed}", "Install hdi with a newer Python.")


def libraries() -> Finding:
    """Installed libraries against the versions that hdi needs."""
    wrong, count = [], 0
    for text in requires("hdi") or ():
        match = _REQUIREMENT.match(text)
        if match is None or "extra ==" in (match["marker"] or ""):
            continue
        try:
            have = version(match["name"])
        except PackageNotFoundError:
            if not match["marker"]:
                wrong.append(f"{match['name']} is not installed (needed: {match['range'].strip()})")
            continue
        count += 1
        if not _within(have, match["range"]):
            wrong.append(f"{match['name']} {have} (needed: {match['range'].strip()})")
    if wrong:
        return Finding("libraries", "fail", "; ".join(wrong), "pip install -r requirements.lock, or reinstall hdi.")
    return Finding("libraries", "pass", f"{count} in the versions that hdi needs")


def _within(version: str, bounds: str) -> bool:
    """Whether a release fits bounds such as ``>=2.1,<3``."""
    have = _numbers(version)
    for operator, text in _BOUND.findall(bounds):
        want = _numbers(text)
        size = max(len(have), len(want))
        a, b = (n + (0,) * (size - len(n)) for n in (have, want))
        fits = {
            ">=": a >= b, "<=": a <= b, ">": a > b, "<": a < b, "==": a == b, "!=": a != b,
            "~=": a >= b and a[: len(want) - 1] == b[: len(want) - 1],
        }[operator]  # fmt: skip
        if not fits:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def folders(found: Settings) -> Iterator[Finding]:
    """The folders that hdi writes to, and who else can look into them."""
    for name, folder in (
        ("data folder", found.data_dir),
        ("logs", found.log.dir),
        ("quarantine folder", found.dlq_dir),
    ):
        yield _writable(name, folder)
    yield _private(found.data_dir)


def _writable(name: str, folder: Path) -> Finding:
    place = existing(folder)
    said = str(folder) if place == folder else f"{folder} will be made"
    if not place.is_dir():
        return Finding(name, "fail", f"{place} is not a folder", "Move that file away, or name another folder.")
    if not os.access(place, os.W_OK | os.X_OK):
        return Finding(name, "fail", f"{place} cannot be written", f"Give this user the right to write in {place}.")
    return Finding(name, "pass", said)


def _private(data_dir: Path) -> Finding:
    name = "raw files"
    try:
        kept = raw.kept(data_dir)
    except OSError as exc:
        place = exc.filename or data_dir / "raw"
        return Finding(name, "fail", f"{place} cannot be read: {exc.strerror or exc}", "Are you the user that ingests?")
    if not kept.loose_count:
        return Finding(name, "pass", f"{kept.files} files, {_size(kept.size)}, for their owner alone")
    some = ", ".join(map(str, kept.loose)) + (", ..." if kept.loose_count > len(kept.loose) else "")
    return Finding(
        name, "warn", f"others than their owner can get at {kept.loose_count} files or folders: {some}",
        f"chmod -R go-rwx {data_dir / 'raw'}",
    )  # fmt: skip


def disk(found: Settings) -> Finding:
    """The free space of every disk that is written to."""
    kinds = [found.data_dir, found.dlq_dir, found.log.dir]
    if found.store_type == "lake":
        kinds.append(Path(found.store.removeprefix("lake:")))
    places = {place.stat().st_dev: place for place in map(existing, reversed(kinds))}
    free = {place: shutil.disk_usage(place).free for place in places.values()}
    said = ", ".join(f"{_size(size)} free at {place}" for place, size in free.items())
    least = min(free.values())
    state: FindingState = "fail" if least < LITTLE else "warn" if least < _TIGHT else "pass"
    mend = "" if state == "pass" else "Free some space, or name another disk with HDI_DATA_DIR and HDI_STORE."
    return Finding("disk", state, said, mend)


def jobs(checked: Checked) -> Finding:
    """The predefined jobs; what is wrong with them stands among the problems of the settings."""
    if not checked.jobs:
        return Finding("jobs", "pass", "none is defined")
    wrong = [text for text in checked.messages if ": jobs." in text]
    if wrong:
        return Finding("jobs", "fail", "\n".join(wrong), "hdi config validate shows what was meant.")
    kept = sum(job.synced for job in checked.jobs.values())
    timed = sum(job.cron is not None for job in checked.jobs.values())
    return Finding("jobs", "pass", f"{len(checked.jobs)} can be ordered; {kept} synced, {timed} by a cron line")


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < _KIB:
            return f"{size:.0f} {unit}"
        size /= _KIB
    return f"{size:.1f} GiB"


__all__ = ["disk", "env", "folders", "jobs", "libraries", "python", "settings"]

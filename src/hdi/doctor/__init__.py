"""What ``hdi doctor`` looks at: each thing passes, warns, fails or could not be measured, with how it is mended.

Nothing is billed, and nothing is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from hdi.configuring import Checked
from hdi.doctor import here, stored, vendor
from hdi.model import Finding
from hdi.sources import Source
from hdi.stores import Store

_UNREAD = "the settings cannot be read"


def diagnose(
    checked: Checked, cwd: Path, opened: Callable[[], Store], source: Callable[[], Source], *, offline: bool = False
) -> Iterator[Finding]:
    """Every finding as it is made. ``opened`` and ``source`` are called only where the settings can be read.

    ``offline`` asks no vendor.
    """
    yield from here.settings(checked)
    yield from here.env(cwd, checked.settings)
    yield here.python()
    yield here.libraries()
    settings = checked.settings
    if settings is None:
        for name in ("folders", "disk", "store", "key", "gateway", "clock", "account"):
            yield Finding(name, "not measured", _UNREAD, "Mend the settings first.")
        return
    yield from _told("folders", lambda: here.folders(settings))
    yield from _told("disk", lambda: [here.disk(settings)])
    yield from _told("store", lambda: stored.store(settings, opened))
    yield from _told("downloads", lambda: [stored.leftovers(settings.data_dir)])
    yield from _told("calendars", lambda: [stored.calendars(checked)])
    yield here.jobs(checked)
    yield from vendor.asked(settings, source, offline=offline)


def _told(name: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings; what the system does not let us look at is one."""
    try:
        yield from look()
    except OSError as exc:
        place = f"{exc.filename}: " if exc.filename else ""
        yield Finding(name, "fail", f"{place}{exc.strerror or exc}", "Are you the user that hdi runs as?")


__all__ = ["Finding", "diagnose"]

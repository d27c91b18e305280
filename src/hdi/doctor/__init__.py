"""What ``hdi doctor`` looks at: each thing passes, warns, fails or could not be measured, with how it is mended.

Nothing is billed, and nothing is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    yield from here.folders(settings)
    yield here.disk(settings)
    yield from stored.store(settings, opened)
    yield stored.leftovers(settings.data_dir)
    yield stored.calendars(checked)
    yield here.jobs(checked)
    yield from vendor.asked(settings, source, offline=offline)


__all__ = ["Finding", "diagnose"]

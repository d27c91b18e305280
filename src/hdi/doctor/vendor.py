"""What is looked at on the way to the vendor: the key, the gateway and its certificate, the clock, the account."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hdi.configuring import MASK
from hdi.errors import HdiError, VendorUnavailable
from hdi.model import Finding, FindingState
from hdi.settings import Settings
from hdi.sources import Diagnosed, Reached, Source

#: Seconds between our clock and the vendor's.
_DOUBTFUL, _WRONG = 2.0, 60.0
_OFFLINE = "--offline: the vendor was not asked"


def asked(settings: Settings, source: Callable[[], Source], *, offline: bool) -> Iterator[Finding]:
    """The findings; what needs a network is not measured without one."""
    try:
        vendor = source()
    except HdiError as exc:  # no address
        yield Finding("gateway", "fail", exc.message, exc.hint)
        return
    if not isinstance(vendor, Diagnosed):
        yield Finding("gateway", "not measured", "this source cannot be looked at")
        return
    key = _key(settings, vendor)
    yield key
    reached: Reached | None = None
    if offline:
        yield Finding("gateway", "not measured", _OFFLINE)
    else:
        finding, reached = _gateway(vendor)
        yield finding
    yield _clock(reached)
    yield _account(vendor, can=reached is not None and key.state == "pass", reason=_reason(key, offline=offline))


def _key(settings: Settings, vendor: Diagnosed) -> Finding:
    given = settings.databento.key
    try:
        vendor.check_key()
    except HdiError as exc:
        if given is None:
            return Finding("key", "warn", "there is none: nothing can be bought", f"{exc.hint} hdi demo needs none.")
        return Finding("key", "fail", exc.message, exc.hint)
    where = settings.origins.get("databento.key", "")
    size = len(given.get_secret_value().strip()) if given is not None else 0
    return Finding("key", "pass", f"{MASK}, {size} characters, from {where or 'the program'}")


def _gateway(vendor: Diagnosed) -> tuple[Finding, Reached | None]:
    try:
        reached = vendor.reach()
    except VendorUnavailable as exc:
        # Away from every network the vendor's own address is right all the same.
        state: FindingState = "not measured" if vendor.official() else "fail"
        local = " Is hdi rehearse running?" if vendor.local() else ""
        return Finding("gateway", state, exc.message, f"{exc.hint}{local}"), None
    except HdiError as exc:
        return Finding("gateway", "fail", exc.message, exc.hint), None
    whose = "" if vendor.official() else ", SYNTHETIC data"
    said = f"{reached.url} answers in {reached.seconds:.2f} s, its certificate is trusted{whose}"
    return Finding("gateway", "pass", said), reached


def _clock(reached: Reached | None) -> Finding:
    if reached is None or reached.ahead is None:
        why = "the vendor was not reached" if reached is None else "the vendor does not tell the time"
        return Finding("clock", "not measured", why)
    off = abs(reached.ahead)
    way = "ahead of" if reached.ahead > 0 else "behind"
    said = f"{off:.1f} s {way} the vendor's, within {reached.within:.1f} s"
    if off - reached.within > _WRONG:
        return Finding("clock", "fail", said, "Set the clock (timedatectl set-ntp true): what is due is decided by it.")
    if off - reached.within > _DOUBTFUL:
        return Finding("clock", "warn", said, "Keep the clock by NTP (timedatectl set-ntp true).")
    return Finding("clock", "pass", said)


def _account(vendor: Diagnosed, *, can: bool, reason: str) -> Finding:
    if not can:
        return Finding("account", "not measured", reason)
    try:
        datasets = vendor.datasets()
    except VendorUnavailable as exc:
        return Finding("account", "not measured", exc.message, exc.hint)
    except HdiError as exc:
        return Finding("account", "fail", exc.message, exc.hint)
    return Finding("account", "pass", f"the key is accepted and opens {len(datasets)} datasets")


def _reason(key: Finding, *, offline: bool) -> str:
    if offline:
        return _OFFLINE
    return "there is no key that could be asked with" if key.state != "pass" else "the vendor was not reached"


__all__ = ["asked"]

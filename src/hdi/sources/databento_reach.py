"""Whether the gateway can be reached: asked without a key, so that only network, TLS and clocks are judged."""

from __future__ import annotations

import email.utils
import time

from hdi.errors import ConfigError, VendorUnavailable
from hdi.sources import Reached
from hdi.sources.databento_gateway import Gateway, missing_bundle
from hdi.sources.databento_refusals import unanswered
from hdi.sources.retries import Transient

_PATH = "/v0/metadata.list_datasets"
#: Who looks whether all is well does not want to wait long for somebody who is not there.
_LONGEST = 15.0
#: A Date header names a second; the instant lies in the middle of it, give or take a half.
_HALF = 0.5


def reach(gateway: Gateway, timeout: float) -> Reached:
    """What :meth:`hdi.sources.Diagnosed.reach` promises."""
    import requests

    if bundle := missing_bundle():
        raise ConfigError(
            f"there is no file of trusted certificates at {bundle}", "Correct or unset that environment variable."
        )
    gateway.bypass_proxy()
    began, sent = time.monotonic(), time.time()
    try:
        answer = requests.get(gateway.url + _PATH, timeout=min(timeout, _LONGEST), allow_redirects=False, stream=True)
        answer.close()
    except requests.RequestException as error:
        trouble = unanswered(error, gateway)
        if isinstance(trouble, Transient):
            raise VendorUnavailable(f"{gateway.url} does not answer: {trouble.reason}", trouble.hint) from error
        raise trouble from error
    seconds = time.monotonic() - began
    ahead = _ahead(answer.headers.get("Date"), sent + seconds / 2)
    return Reached(gateway.url, seconds, ahead, _HALF + seconds / 2)


def _ahead(date: str | None, now: float) -> float | None:
    """Seconds that our clock is ahead of the one that wrote the header; None where that is no time."""
    if not date:
        return None
    try:
        return now - email.utils.parsedate_to_datetime(date).timestamp() - _HALF
    except ValueError:
        return None


__all__ = ["reach"]

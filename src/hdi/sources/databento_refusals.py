"""What the vendor's client raises, as errors of ours: what is wrong, what to do, and whether it may pass.

The vendor's ``case`` and payload decide, its status where there is no case; texts are shown, never read.
"""

from __future__ import annotations

import base64
import json
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hdi.errors import (
    AccountRefused,
    ConfigError,
    DataError,
    EndUnavailable,
    HdiError,
    NothingResolved,
    RangeUnavailable,
    RequestError,
    StoreError,
    VendorRefused,
)
from hdi.model import Order, Window, iso_ns, parse_instant, some
from hdi.sources.databento_gateway import OFFICIAL, Gateway, missing_bundle
from hdi.sources.retries import Transient, retry_after
from hdi.symbology import infer_stype

if TYPE_CHECKING:
    from databento import BentoHttpError
    from requests import RequestException

_PORTAL = "https://databento.com/portal"
_BUSY, _SERVER = 429, 500
#: Requests that came too slowly or too early may be sent again.
_PASSING = (408, 425)
_UNAUTHORIZED, _PAYMENT, _FORBIDDEN = 401, 402, 403
_NO_LICENCE = "license_not_found_unauthorized"
_LONGEST_TEXT = 500
#: Calls that are limited by themselves; all others by the first word of their name.
_LIMITED = ("batch.list_jobs", "batch.submit_job")


class RequestRefused(RequestError):
    """The vendor cannot do anything with the request, and its case is no other class of ours."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One call, in words that an error can use; ``order`` where it is about one."""

    method: str
    dataset: str = ""
    order: Order | None = None

    @property
    def family(self) -> str:
        """The group of calls whose number in a while is limited together."""
        return self.method if self.method in _LIMITED else self.method.partition(".")[0]

    def __str__(self) -> str:
        if self.order is None:
            return f"{self.method}({self.dataset})"
        order = self.order
        what = " ".join(part for part in (order.dataset, order.schema, some(order.symbols, ",")) if part)
        return f"{self.method}({what}, {order.window})"


def judge(error: Exception, ask: Ask, gateway: Gateway, key: str) -> HdiError | Transient:
    """What an error of the client means: Transient when it may pass."""
    from databento import BentoHttpError
    from requests import RequestException

    if isinstance(error, BentoHttpError):
        return _answered(error, ask, gateway, key)
    if isinstance(error, RequestException):
        return unanswered(error, gateway)
    if isinstance(error, OSError):
        return _local(error, ask)
    if isinstance(error, ValueError):
        return RequestRefused(f"{ask}: the vendor's client does not take it: {_shown(str(error), key)}")
    return DataError(
        f"{ask}: {gateway.url} gave an answer that cannot be read ({type(error).__name__})",
        "Is it the gateway that you mean? (DATABENTO_GATEWAY)",
    )


def _local(error: OSError, ask: Ask) -> HdiError:
    """What this machine itself refused: certificates that are not there, or the disk."""
    if bundle := missing_bundle():
        return ConfigError(
            f"there is no file of trusted certificates at {bundle}", "Correct or unset that environment variable."
        )
    return StoreError(f"{ask}: {error}", "Look for space and permissions in the data folder (HDI_DATA_DIR).")


def _answered(error: BentoHttpError, ask: Ask, gateway: Gateway, key: str) -> HdiError | Transient:
    """What an answer with an error status means."""
    status = int(error.http_status)
    case, text, payload = _detail(error, key)
    said = f"HTTP {status}" + (f" {case}" if case else "") + (f": {text}" if text else "")
    if status == _BUSY:
        hint = "Does another program use the same account? Run it again in a while."
        return Transient(said, hint, retry_after(error.headers.get("Retry-After")), undone=True)
    if status >= _SERVER or status in _PASSING:
        hint = f"{gateway.url} is in trouble. Run it again later: what is stored stays."
        return Transient(said, hint, retry_after(error.headers.get("Retry-After")))
    if status in (_UNAUTHORIZED, _PAYMENT, _FORBIDDEN):
        licence = ask.dataset if case == _NO_LICENCE else ""
        return AccountRefused(f"{ask}: the vendor refused: {said}", _account_hint(status, case, gateway), licence)
    if case == "symbology_invalid_request":
        return NothingResolved(f"{ask}: no symbol stands for an instrument: {said}", _symbols_hint(ask.order))
    if (found := _range(case, payload)) is not None:
        return _outside(f"{ask}: {said}", ask, found)
    return RequestRefused(f"{ask}: the vendor refused: {said}")


def _detail(error: BentoHttpError, key: str) -> tuple[str, str, dict[str, Any]]:
    """(case, text, payload) of an error's body, whichever of its forms it has."""
    body: Any = error.json_body
    detail: Any = body.get("detail") if isinstance(body, dict) else body
    if isinstance(detail, dict):
        payload = detail.get("payload")
        text = detail.get("message")
        return (
            str(detail.get("case") or ""),
            _shown(text if isinstance(text, str) else "", key),
            payload if isinstance(payload, dict) else {},
        )
    return "", _shown(detail if isinstance(detail, str) else json.dumps(detail) if detail else "", key), {}


def _shown(text: str, key: str) -> str:
    """A text of the vendor on one line, cut where it is endless, and without the key."""
    login = base64.b64encode(f"{key}:".encode()).decode()
    line = " ".join(text.replace(key, "***").replace(login.rstrip("="), "***").split())
    return line if len(line) <= _LONGEST_TEXT else f"{line[:_LONGEST_TEXT]} ..."


def _account_hint(status: int, case: str, gateway: Gateway) -> str:
    if status == _PAYMENT:
        return (
            f"The account cannot pay for it: look at balance, payment method and spending limit at {_PORTAL}/billing."
        )
    if status == _UNAUTHORIZED:
        here = "" if gateway.host == OFFICIAL else f" {gateway.url} was asked, not the vendor's own host."
        return f"Check DATABENTO_API_KEY (environment or .env) against {_PORTAL}/keys.{here}"
    if case == "auth_account_locked":
        return f"The account is locked: see {_PORTAL}, or write to support@databento.com."
    if case == _NO_LICENCE:
        return f"The account has no licence for this data: see the dataset at {_PORTAL}/licenses."
    if case == "auth_user_does_not_match_api_key":
        return f"DATABENTO_API_KEY belongs to another user: take one of your own from {_PORTAL}/keys."
    return f"The account may not do this: see its licences and its state at {_PORTAL}."


def _symbols_hint(order: Order | None) -> str:
    """Which symbols are not written as their type, or what else may be the reason."""
    if order is not None and order.stype:
        for symbol in order.symbols:
            meant = infer_stype(symbol)
            if meant != order.stype and not (order.stype == "raw_symbol" and meant == "instrument_id"):
                return f"{symbol} is written as {meant}, and was asked for as {order.stype}: leave --stype-in out."
    return "Check the spelling, and whether it was traded on these days: a holiday has no instruments."


_RANGE_CASES = frozenset({
    "data_end_after_available_end", "data_start_before_available_start", "data_start_after_available_end",
    "data_schema_not_fully_available", "data_time_range_start_on_or_after_end", "dataset_unavailable_range",
})  # fmt: skip


def _range(case: str, payload: dict[str, Any]) -> tuple[str, int | None, int | None] | None:
    """(case, available start, available end) of a refusal that is about the window; None for another."""
    start, end = (_instant(payload.get(name)) for name in ("available_start", "available_end"))
    return (case, start, end) if case in _RANGE_CASES or end is not None else None


def _instant(value: object) -> int | None:
    if not isinstance(value, str):
        return None
    try:
        return parse_instant(value)[0]
    except RequestError:  # a form that the vendor does not declare says as much as none
        return None


def _outside(message: str, ask: Ask, found: tuple[str, int | None, int | None]) -> RangeUnavailable:
    case, start, end = found
    start = 0 if start is None else start
    available = Window(start, end) if end is not None and start < end else None
    if available is None:
        return RangeUnavailable(message, "Ask for a shorter window.", None)
    hint = f"What can be ordered reaches from {iso_ns(available.start)} to {iso_ns(available.end)}."
    if case == "dataset_unavailable_range":
        hint += f" Newer data needs a live licence: see {_PORTAL}/licenses."
    wanted = ask.order.window if ask.order else None
    if wanted is not None and available.start <= wanted.start < available.end < wanted.end:
        return EndUnavailable(message, hint, available)
    return RangeUnavailable(message, hint, available)


def unanswered(error: RequestException, gateway: Gateway) -> HdiError | Transient:
    """What a failure below HTTP means."""
    import requests

    causes = list(_causes(error))
    if isinstance(error, requests.exceptions.SSLError):
        return _untrusted(causes, gateway) or Transient(
            "the connection was cut during the TLS handshake", _hint(gateway)
        )
    if isinstance(error, ValueError) and not isinstance(error, requests.exceptions.JSONDecodeError):
        return RequestError(f"{gateway.url} cannot be asked ({type(error).__name__})", "Check DATABENTO_GATEWAY.")
    return Transient(_reason(error, causes, gateway), _hint(gateway))


_UNKNOWN = (
    "is not trusted",
    (
        "Set REQUESTS_CA_BUNDLE to a file with the certificate authority that signed it (the rehearsal vendor prints "
        "its own). If the address is not the one you mean, correct DATABENTO_GATEWAY."
    ),
)
_NAMED = (
    "is for another name",
    "Correct DATABENTO_GATEWAY to the name that it is for, or give the gateway a certificate for this one.",
)
#: What OpenSSL found wrong with a certificate, by its number, and what to do.
_CERTIFICATES = {
    9: ("is not valid yet", "Is the clock of this machine right? If it is, the gateway has a wrong certificate."),
    10: ("has expired", "Is the clock of this machine right? If it is, who runs the gateway has to renew it."),
    62: _NAMED,
    64: _NAMED,
}


def _untrusted(causes: list[BaseException], gateway: Gateway) -> VendorRefused | None:
    """The refusal when TLS itself failed; None when the connection was only lost during it."""
    refused = next((c for c in causes if isinstance(c, ssl.SSLCertVerificationError)), None)
    if refused is not None:
        what, hint = _CERTIFICATES.get(refused.verify_code, _UNKNOWN)
        return VendorRefused(f"the certificate of {gateway.url} {what}", hint)
    if any(isinstance(c, ssl.SSLEOFError | ssl.SSLZeroReturnError | ConnectionResetError) for c in causes):
        return None
    reasons = [str(c.reason) for c in causes if isinstance(c, ssl.SSLError) and c.reason]
    return VendorRefused(
        f"{gateway.url} cannot be reached by TLS" + (f" ({reasons[0]})" if reasons else ""),
        "Is it an HTTPS server, and is REQUESTS_CA_BUNDLE a file of certificates? Check DATABENTO_GATEWAY too.",
    )


def _reason(error: RequestException, causes: list[BaseException], gateway: Gateway) -> str:
    """Why there was no answer, in words."""
    import requests

    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy (HTTPS_PROXY) does not lead there"
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return "no connection in time"
    if isinstance(error, requests.exceptions.Timeout):
        return "no answer in time"
    kinds: tuple[tuple[type[BaseException], str], ...] = (
        (socket.gaierror, f"the name {gateway.host} is not known to the network"),
        (ConnectionRefusedError, "nothing listens there"),
        (ConnectionError, "the connection was cut"),
        (TimeoutError, "no answer in time"),
    )
    for kind, text in kinds:
        if any(isinstance(c, kind) for c in causes):
            return text
    return f"the connection failed ({type(error).__name__})"


def _hint(gateway: Gateway) -> str:
    where = f"that {gateway.url} is the right gateway (DATABENTO_GATEWAY)"
    return f"Check the network, {where}, and proxies (HTTPS_PROXY, NO_PROXY)."


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and all that lies behind it, each once."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        behind = (one.__cause__, one.__context__, getattr(one, "reason", None), *one.args)
        waiting += [b for b in behind if isinstance(b, BaseException)]

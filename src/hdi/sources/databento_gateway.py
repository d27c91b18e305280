"""Which host answers for Databento, and the key for it: checked before anything is asked."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from hdi.errors import RequestError

#: The vendor's own host: what comes from anywhere else is synthetic.
OFFICIAL = "hist.databento.com"
_KEY_LENGTH = 32
_KEY = re.compile(r"db-[!-~]{29}")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_GATEWAY_HINT = (
    "Set DATABENTO_GATEWAY to an address such as https://127.0.0.1:8787, or leave it out for the vendor's own."
)
_KEY_HINT = (
    "Set DATABENTO_API_KEY in the environment or in .env. A key has 32 characters and starts with db-; "
    "yours are at https://databento.com/portal/keys."
)


@dataclass(frozen=True, slots=True)
class Gateway:
    """An address in the one form that the vendor's client takes as it is meant: ``https://host[:port][/path]``."""

    url: str
    host: str

    @classmethod
    def parse(cls, text: str) -> Gateway:
        """The gateway that a text means; the vendor's own for an empty one. Raises RequestError for nonsense."""
        text = text.strip() or OFFICIAL
        scheme = _SCHEME.match(text)
        if scheme and scheme[1].lower() not in ("http", "https"):
            raise RequestError(f"a gateway is reached by https, not by {scheme[1]}", _GATEWAY_HINT)
        # Without a scheme the client would read localhost:8787 as scheme "localhost".
        try:
            parts = urlsplit("https://" + text[scheme.end() if scheme else 0 :])
            host, port = parts.hostname or "", parts.port
        except ValueError as exc:
            raise RequestError(f"the gateway is not an address: {exc}", _GATEWAY_HINT) from exc
        if parts.username is not None or parts.query or parts.fragment:
            raise RequestError("a gateway's address has no user, query or fragment", _GATEWAY_HINT)
        if not host or re.search(r"[\s,]", text):
            raise RequestError(f"the gateway {text!r} is not an address", _GATEWAY_HINT)
        name = f"[{host}]" if ":" in host else host
        return cls(f"https://{name}{f':{port}' if port else ''}{parts.path.rstrip('/')}", host)

    @property
    def origin(self) -> str:
        """``databento`` for the vendor's own host, ``synthetic`` for any other."""
        return "databento" if self.host == OFFICIAL else "synthetic"

    @property
    def local(self) -> bool:
        """True for this machine itself."""
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def bypass_proxy(self) -> None:
        """Have this process reach a local gateway directly: proxies are for the world outside."""
        if not self.local:
            return
        # The name in small letters, where it is set, hides the other.
        for name in ("NO_PROXY", *(["no_proxy"] if "no_proxy" in os.environ else [])):
            known = [part.strip() for part in os.environ.get(name, "").split(",") if part.strip()]
            if self.host not in known:
                os.environ[name] = ",".join([*known, self.host])


def check_key(key: str | None) -> str:
    """The key, when it has the form of one. Raises RequestError that says where to set it, and does not show it."""
    if key is None or not key.strip():
        raise RequestError("there is no Databento API key", _KEY_HINT)
    key = key.strip()
    if not _KEY.fullmatch(key):
        found = f"it has {len(key)} characters" if len(key) != _KEY_LENGTH else "it has characters that no key has"
        if not key.startswith("db-"):
            found = "it does not start with db-"
        raise RequestError(f"the Databento API key is not one: {found}", _KEY_HINT)
    return key


def missing_bundle() -> str:
    """The file of trusted certificates that the environment names and that is not there; "" when all is well."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if path := os.environ.get(name):
            return "" if os.path.exists(path) else f"{name}={path}"  # noqa: PTH110 - as the client looks for it
    return ""

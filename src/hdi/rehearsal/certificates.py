"""TLS for loopback: an authority that lives as long as the process, and the files that clients need to trust it."""

from __future__ import annotations

import functools
import ssl
from pathlib import Path

import certifi
import trustme

HOST = "127.0.0.1"
_NAMES = (HOST, "localhost")


@functools.cache
def _authority() -> trustme.CA:
    return trustme.CA(organization_name="hdi rehearsal vendor (SYNTHETIC)")


@functools.cache
def server_context() -> ssl.SSLContext:
    """The server's side: a certificate for 127.0.0.1 and localhost, TLS 1.2 and later."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _authority().issue_cert(*_NAMES).configure_cert(context)
    return context


def write_bundle(path: Path) -> None:
    """Write the authorities that everybody trusts and our own, as ``REQUESTS_CA_BUNDLE`` wants them."""
    path.write_bytes(Path(certifi.where()).read_bytes() + b"\n" + _authority().cert_pem.bytes())

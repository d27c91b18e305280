"""Where Databento is asked, with which key, and what is said when nobody answers there."""

import datetime as dt
import os
import socket
import ssl
import subprocess
import sys
import threading

import pytest
import trustme

from hdi.errors import ConfigError, RequestError, VendorRefused, VendorUnavailable
from hdi.sources import Source
from hdi.sources.databento import Databento
from listening import listening
from sources.conftest import KEY
from sources.wire import Wire


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("", "https://hist.databento.com"),
        ("https://hist.databento.com/", "https://hist.databento.com"),
        ("localhost:8787", "https://localhost:8787"),
        ("127.0.0.1:8787", "https://127.0.0.1:8787"),
        ("http://127.0.0.1:8787", "https://127.0.0.1:8787"),
        (" HTTPS://Example.ORG:8443/some/path/ ", "https://example.org:8443/some/path"),
        ("[::1]:8787", "https://[::1]:8787"),
    ],
)
def test_a_gateway_is_written_as_the_client_takes_it(text, url):
    assert Databento(KEY, text).gateway == url


@pytest.mark.parametrize(
    "text", ["ftp://127.0.0.1", "https://", "two words", "host:notaport", "host:99999", "https://a.b/?q=1", "a,b"]
)
def test_a_gateway_that_is_no_address_is_refused(text):
    with pytest.raises(RequestError, match="gateway") as refused:
        Databento(KEY, text)
    assert "DATABENTO_GATEWAY" in refused.value.hint


def test_the_password_in_a_gateway_is_not_shown():
    with pytest.raises(RequestError) as refused:
        Databento(KEY, "https://somebody:hunter2@host")
    assert "hunter2" not in str(refused.value)


def test_only_the_vendors_own_host_is_no_synthetic_origin():
    assert [Databento(KEY, g).origin for g in ("", "hist.databento.com", "HTTPS://HIST.DATABENTO.COM:443/x")] == [
        "databento"
    ] * 3
    others = ("localhost:1", "hist.databento.com.example.org", "nothist.databento.com")
    assert [Databento(KEY, g).origin for g in others] == ["synthetic"] * 3


def test_it_is_a_source():
    assert isinstance(Databento(KEY), Source)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (None, "there is no Databento API key"),
        ("  ", "there is no Databento API key"),
        ("db-short", "8 characters"),
        ("xx-ThisIsNoKeyOfAnyRealAccount01", "does not start with db-"),
        ("db-ThisIsNoKeyOfAnyRealAcc unt01", "characters that no key has"),
    ],
)
def test_without_a_key_of_the_right_form_nothing_is_asked(wire, open_source, key, says):
    wire.says("metadata.list_datasets")
    with pytest.raises(RequestError, match=says) as refused:
        open_source(wire.gateway, key=key).check()
    assert "DATABENTO_API_KEY" in refused.value.hint
    assert not wire.calls
    assert not (key or "").strip() or key not in str(refused.value)


def test_a_local_gateway_is_reached_past_any_proxy_and_other_exceptions_stay(wire, open_source, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "example.com")
    wire.says("metadata.list_datasets", _json(b'["GLBX.MDP3"]'))
    assert open_source(wire.gateway).check()["datasets"] == 1
    assert os.environ["NO_PROXY"] == "example.org,127.0.0.1"
    assert os.environ["no_proxy"] == "example.com,127.0.0.1"
    open_source(wire.gateway).check()
    assert os.environ["NO_PROXY"] == "example.org,127.0.0.1"


def test_a_proxy_that_does_not_answer_is_named(open_source, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{_closed_port()}")
    with pytest.raises(VendorUnavailable, match="the proxy") as failed:
        open_source("vendor.invalid", tries=1).check()
    assert "NO_PROXY" in failed.value.hint


def test_a_port_where_nothing_listens_is_tried_again_and_then_said(open_source, waits):
    gateway = f"https://127.0.0.1:{_closed_port()}"
    with pytest.raises(VendorUnavailable, match="nothing listens there") as failed:
        open_source(gateway, tries=3).available("GLBX.MDP3")
    assert gateway in failed.value.message
    assert "in 3 tries" in failed.value.message
    assert "DATABENTO_GATEWAY" in failed.value.hint
    assert failed.value.exit_code == 1
    assert len(waits) == 2


def test_a_name_that_nobody_knows_is_said(open_source):
    with pytest.raises(VendorUnavailable, match=r"the name vendor\.invalid is not known"):
        open_source("vendor.invalid", tries=1).check()


def test_a_server_that_never_answers_is_left_after_the_timeout(open_source):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        source = open_source(f"127.0.0.1:{silent.getsockname()[1]}", tries=2, timeout=0.2)
        with pytest.raises(VendorUnavailable, match="in time"):
            source.available("GLBX.MDP3")


def test_a_connection_that_is_lost_in_the_handshake_is_tried_again(open_source, waits):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up():
            for _ in range(2):
                connection, _ = listener.accept()
                connection.recv(65_536)
                connection.close()

        server = threading.Thread(target=hang_up, daemon=True)
        server.start()
        with pytest.raises(VendorUnavailable, match="in 2 tries: the connection was cut"):
            open_source(f"127.0.0.1:{listener.getsockname()[1]}", tries=2).available("GLBX.MDP3")
        server.join()
    assert len(waits) == 1


def test_a_certificate_that_is_not_trusted_is_refused_at_once(wire, open_source, waits, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    with pytest.raises(VendorRefused, match="is not trusted") as refused:
        open_source(wire.gateway).available("GLBX.MDP3")
    assert refused.value.exit_code == 3
    assert "REQUESTS_CA_BUNDLE" in refused.value.hint
    assert not waits
    assert not wire.calls


@pytest.mark.parametrize(
    ("name", "begins", "ends", "says", "hint"),
    [
        ("127.0.0.1", -30, -1, "has expired", "clock"),
        ("127.0.0.1", 1, 30, "is not valid yet", "clock"),
        ("vendor.example", -1, 30, "is for another name", "DATABENTO_GATEWAY"),
    ],
)
def test_what_is_wrong_with_a_certificate_is_told(open_source, trusted, name, begins, ends, says, hint):  # noqa: PLR0917
    today = dt.datetime.now(dt.UTC)
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    days = {"not_before": today + dt.timedelta(begins), "not_after": today + dt.timedelta(ends)}
    authority.issue_cert(name, **days).configure_cert(context)
    authority.cert_pem.write_to_path(str(trusted))
    with listening() as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        source = open_source(f"127.0.0.1:{server.server_port}")
        with pytest.raises(VendorRefused, match=says) as refused:
            source.reach()
    assert hint in refused.value.hint


def test_a_server_without_tls_is_refused_at_once(open_source, waits):
    with Wire(plain=True) as plain, pytest.raises(VendorRefused, match="cannot be reached by TLS") as refused:
        open_source(plain.gateway).check()
    assert plain.gateway in refused.value.message
    assert not waits


def test_a_bundle_of_certificates_that_is_not_there_is_named(source, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    with pytest.raises(ConfigError, match=r"REQUESTS_CA_BUNDLE=/nowhere/ca\.pem"):
        source.check()


def test_a_bundle_that_holds_no_certificates_is_refused(source, trusted, waits):
    trusted.write_text("nothing of the kind")
    with pytest.raises((VendorRefused, RequestError)) as refused:
        source.available("GLBX.MDP3")
    assert "REQUESTS_CA_BUNDLE" in refused.value.hint
    assert not waits


def test_the_vendors_client_is_imported_by_the_first_call_and_leaves_the_warning_filters_alone():
    code = """
import sys, warnings
from hdi.errors import HdiError
from hdi.sources.databento import Databento
source = Databento("db-ThisIsNoKeyOfAnyRealAccount01", "127.0.0.1:1", tries=1)
assert "databento" not in sys.modules and "pandas" not in sys.modules and "requests" not in sys.modules
warnings.simplefilter("ignore", DeprecationWarning)
before = list(warnings.filters)
try:
    source.check()
except HdiError as error:
    assert error.exit_code == 1, error
assert "databento" in sys.modules
assert warnings.filters == before
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def _closed_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def _json(body):
    from sources.wire import Reply

    return Reply(200, body)

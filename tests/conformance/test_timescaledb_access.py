"""Passwords and TLS with a real server that insists on them: sslmode is honoured, and no password is ever shown."""

import os
import traceback
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
import trustme
from psycopg import sql

from hdi.api import HistoricalData
from hdi.errors import StoreError
from hdi.stores import open_store
from hdi.testing import Load, content, opened, trades
from hdi.testing.material import START, schemas

PASSWORD = "p@ss:w/rd?#% ü'\\"


@pytest.fixture(scope="module")
def guarded(request, tmp_path_factory):
    """(server, folder): one that takes TCP only with TLS and a password, its CA's certificate in the folder."""
    import servers
    from conftest import CI, available

    folder = tmp_path_factory.mktemp("tls")
    with available(request.config, needed=CI), servers.private() as make:
        server = make()
        server.start()
        with psycopg.connect(server.dsn("postgres"), autocommit=True) as admin:
            admin.execute(sql.SQL("CREATE ROLE quant LOGIN SUPERUSER PASSWORD {}").format(sql.Literal(PASSWORD)))
            admin.execute("CREATE DATABASE hist_data OWNER quant")
        server.stop()
        certificates(folder, server.home)
        (server.home / "hba.conf").write_text("hostssl all all 127.0.0.1/32 scram-sha-256\nlocal all all trust\n")
        (server.home / "hba.conf").chmod(0o644)
        server.start(
            ssl="on",
            ssl_cert_file=str(server.home / "server.pem"),
            ssl_key_file=str(server.home / "server.key"),
            hba_file=str(server.home / "hba.conf"),
        )
        yield server, folder


def certificates(folder, home):
    authority, other = trustme.CA(), trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    other.cert_pem.write_to_path(str(folder / "other.pem"))
    issued.private_key_pem.write_to_path(str(home / "server.key"))
    issued.cert_chain_pems[0].write_to_path(str(home / "server.pem"))
    (home / "server.key").chmod(0o600)
    from timescaledb_server import account  # tests/servers.py puts scripts/ on the path

    if (uid := account()) is not None:
        for name in ("server.key", "server.pem"):
            os.chown(home / name, uid, -1)


def url(server, password=PASSWORD, **parameters):
    rest = "&".join(f"{k}={quote(str(v), safe='')}" for k, v in parameters.items())
    return f"postgresql://quant:{quote(password, safe='')}@127.0.0.1:{server.port}/hist_data?{rest}"


class TestTls:
    def test_a_server_is_written_and_read_over_verified_tls(self, guarded):
        server, folder = guarded
        store = opened(url(server, sslmode="verify-full", sslrootcert=folder / "ca.pem"))
        Load(trades([START])).commit(store)
        assert content(store).height == 1
        with psycopg.connect(url(server, sslmode="require")) as seen:
            used = seen.execute(
                "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'quant'"
            ).fetchone()
        assert used == (True,)

    @pytest.mark.parametrize(
        ("parameters", "said"),
        [
            ({"sslmode": "verify-full", "sslrootcert": "other.pem"}, "certificate"),
            ({"sslmode": "disable"}, "no encryption"),
        ],
        ids=["another authority", "without tls"],
    )
    def test_a_server_that_cannot_be_trusted_is_refused(self, guarded, parameters, said):
        server, folder = guarded
        if "sslrootcert" in parameters:
            parameters = {**parameters, "sslrootcert": folder / parameters["sslrootcert"]}
        with pytest.raises(StoreError, match=said) as refused:
            open_store(url(server, **parameters), schemas())
        assert "sslmode" in refused.value.hint
        assert PASSWORD not in everything(refused.value)

    def test_tls_that_is_asked_of_a_server_without_it_is_refused(self, fresh_database):
        with pytest.raises(StoreError, match="SSL") as refused:
            open_store(f"{fresh_database()}?sslmode=require", schemas())
        assert "sslmode" in refused.value.hint

    def test_the_settings_say_how(self, guarded, monkeypatch, tmp_path):
        server, folder = guarded
        monkeypatch.chdir(tmp_path)
        named = {
            "HOST": "127.0.0.1", "PORT": server.port, "USER": "quant", "PASSWORD": PASSWORD,
            "SSLMODE": "verify-full", "SSLROOTCERT": folder / "ca.pem",
        }  # fmt: skip
        for name, value in named.items():
            monkeypatch.setenv(f"TIMESCALEDB_{name}", str(value))
        with HistoricalData.open() as data:
            found = data.status(deep=True)
        assert found.healthy, found.problems
        assert found.store["server_version"]
        assert PASSWORD not in repr(found.to_dict())


class TestPasswords:
    def test_a_wrong_password_is_told_and_never_shown(self, guarded):
        server, _ = guarded
        wrong = "wr@ng:w/rd?#%"
        with pytest.raises(StoreError, match="password authentication failed") as refused:
            open_store(url(server, wrong, sslmode="require"), schemas())
        assert "TIMESCALEDB_PASSWORD" in refused.value.hint
        shown = everything(refused.value)
        assert wrong not in shown
        assert quote(wrong, safe="") not in shown

    def test_a_password_is_in_no_process_title(self, guarded):
        server, _ = guarded
        store = opened(url(server, sslmode="require"))
        with store.claim(["a"]):
            titles = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if readable(p)]
        assert any(b"hist_data" in title or b"postgres" in title for title in titles)
        assert not any(PASSWORD.encode() in t or quote(PASSWORD, safe="").encode() in t for t in titles)


def everything(error):
    """All that can be shown of an error, its causes and where it came from included."""
    return f"{error}{error!r}{error.hint}{''.join(traceback.format_exception(error))}"


def readable(path):
    try:
        path.read_bytes()
    except OSError:
        return False
    return True

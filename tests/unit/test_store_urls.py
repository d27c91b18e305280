"""Addresses of a server: what is taken, what libpq makes of it, and that no password in them is ever shown."""

import json
import subprocess
import sys

import pytest
import structlog
from hypothesis import given
from hypothesis import settings as law
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from hdi import logs, settings
from hdi.api import HistoricalData
from hdi.errors import ConfigError, RequestError, StoreError, masked
from hdi.schema_files import load_schemas
from hdi.settings import addresses
from hdi.settings.groups import TimescaleDB
from hdi.stores import ServerOptions, names, open_store

ODD = "p@ss:w/rd?#%"
ENCODED = "p%40ss%3Aw%2Frd%3F%23%25"
# What a password may hold: everything but what no variable and no server takes.
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=30)
LAW = law(deadline=None)
NAME = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)


def load(tmp_path, env=None, **flags):
    return settings.load(env=env or {}, cwd=tmp_path, flags=flags)


def refused(tmp_path, env=None, **flags):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, env, **flags)
    return str(caught.value)


@pytest.fixture
def write(tmp_path):
    """Writes system_config.yaml."""

    def write(text):
        path = tmp_path / "configs" / "system_config.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


# The settings of the server


def test_nothing_given_is_no_server_and_the_usual_port_and_database(tmp_path):
    server = load(tmp_path).timescaledb
    assert (server.host, server.port, server.user, server.password, server.dbname) == (
        None,
        5432,
        None,
        None,
        "hist_data",
    )
    assert (server.sslmode, server.sslrootcert, server.connect_seconds) == ("prefer", None, 10)
    assert (server.compress, server.compress_after_days) == (False, 30)


def test_the_server_comes_from_variables_which_win_over_the_file(tmp_path, write):
    write("store: timescaledb\ntimescaledb: {host: a, port: 1, compress: true}")
    server = load(tmp_path).timescaledb
    assert (server.host, server.port, server.user, server.compress) == ("a", 1, None, True)
    names = ("HOST", "PORT", "USER", "PASSWORD", "DBNAME", "SSLMODE", "SSLROOTCERT")
    values = ("b", "2", "me", "pw", "db", "verify-ca", "certs/root.crt")
    env = {f"TIMESCALEDB_{name}": value for name, value in zip(names, values, strict=True)}
    server = load(tmp_path, env).timescaledb
    assert (server.host, server.port, server.user, server.dbname, server.sslmode) == ("b", 2, "me", "db", "verify-ca")
    assert server.password.get_secret_value() == "pw"
    assert server.sslrootcert == f"{tmp_path}/certs/root.crt"
    assert load(tmp_path, env | {"TIMESCALEDB_SSLROOTCERT": "system"}).timescaledb.sslrootcert == "system"


def test_timescaledb_without_a_host_names_the_variable_and_where_the_store_was_named(tmp_path):
    message = refused(tmp_path, store="timescaledb")
    assert message.startswith("--store: timescaledb: its host is not known\nSet TIMESCALEDB_HOST (and ")
    (tmp_path / ".env").write_text("HDI_STORE=timescaledb\n", encoding="utf-8")
    assert f"{tmp_path}/.env:1: HDI_STORE: timescaledb: its host is not known" in refused(tmp_path)
    assert load(tmp_path, {"TIMESCALEDB_HOST": "db"}).store == "timescaledb"


def test_a_password_in_a_file_is_refused_with_the_reason_and_not_shown(tmp_path, write):
    path = write("timescaledb:\n  password: very-secret\n")
    message = refused(tmp_path)
    assert message.startswith(f"{path}:2:3: timescaledb.password: password is not read from a file: ")
    assert "a password is a secret\nTake it out, and give it as TIMESCALEDB_PASSWORD in the environment" in message
    write("store: PostgreSQL://me:very-secret@db/hist\n")
    in_a_url = refused(tmp_path)
    assert in_a_url.startswith(f"{path}:1:1: store: a password is not read from a file: ")
    assert "very-secret" not in message + in_a_url
    write("store: postgresql://me@db/hist\n")
    assert load(tmp_path).store == "postgresql://me@db/hist"


@pytest.mark.parametrize(
    ("text", "where", "allowed"),
    [
        ("timescaledb:\n  port: 0\n", ":2:3: timescaledb.port: 0: ", "greater than or equal to 1"),
        ("timescaledb:\n  port: 65536\n", ":2:3: timescaledb.port: 65536: ", "less than or equal to 65535"),
        ("timescaledb:\n  host: ' '\n", ":2:3: timescaledb.host: ' ': ", "a name is needed"),
        ("timescaledb:\n  dbname:\n", ":2:3: timescaledb.dbname: None: ", "string"),
        (
            "timescaledb:\n  sslmode: strict\n",
            ":2:3: timescaledb.sslmode: 'strict': ",
            "'require', 'verify-ca' or 'verify-full'",
        ),
        ("timescaledb:\n  connect_seconds: 0\n", ":2:3: timescaledb.connect_seconds: 0: ", "than or equal to 1"),
        ("timescaledb:\n  connect_seconds: 601\n", ":2:3: timescaledb.connect_seconds: 601: ", "than or equal to 600"),
        ("timescaledb:\n  compress: 7\n", ":2:3: timescaledb.compress: 7: ", "boolean"),
        (
            "timescaledb:\n  compress_after_days: 0\n",
            ":2:3: timescaledb.compress_after_days: 0: ",
            "than or equal to 1",
        ),
    ],
)
def test_a_bad_value_names_its_place_and_what_is_allowed(tmp_path, write, text, where, allowed):
    path = write(text)
    message = refused(tmp_path)
    assert message.startswith(f"{path}{where}")
    assert allowed in message


# The URL that the settings make


def test_the_settings_make_the_url_of_the_server(tmp_path):
    env = {"TIMESCALEDB_HOST": "db"}
    assert load(tmp_path, env).store_url == "postgresql://db:5432/hist_data"
    env |= {"TIMESCALEDB_USER": "me", "TIMESCALEDB_PASSWORD": ODD, "TIMESCALEDB_PORT": "6000"}
    env |= {
        "TIMESCALEDB_DBNAME": "a b",
        "TIMESCALEDB_SSLMODE": "verify-full",
        "TIMESCALEDB_SSLROOTCERT": "/etc/c a.crt",
    }
    loaded = load(tmp_path, env)
    assert loaded.store == "timescaledb"
    assert loaded.store_type == "timescaledb"
    assert loaded.store_url == (
        f"postgresql://me:{ENCODED}@db:6000/a%20b?sslmode=verify-full&sslrootcert=/etc/c%20a.crt"
    )


@LAW
@given(password=TEXT, user=NAME, dbname=NAME)
def test_libpq_reads_from_the_url_what_the_settings_say(password, user, dbname):
    server = TimescaleDB(host="h", user=user, password=password, dbname=dbname)
    url = addresses.server_url(server)
    assert conninfo_to_dict(url) == {
        "host": "h", "port": "5432", "user": user, "password": password, "dbname": dbname,
    }  # fmt: skip
    assert addresses.checked(url) == url
    assert password in addresses.passwords(url)


@pytest.mark.parametrize("host", ["db.example.org", "127.0.0.1", "::1", "/var/run/postgresql", "one,two"])
def test_every_kind_of_host_reaches_libpq_as_it_was_given(host):
    url = addresses.server_url(TimescaleDB(host=host))
    assert conninfo_to_dict(url)["host"] == host
    assert addresses.checked(url) == url


def test_what_is_not_given_is_left_to_libpq():
    given = conninfo_to_dict(addresses.server_url(TimescaleDB(host="h")))
    assert not given.keys() & {"user", "password", "sslmode", "sslrootcert"}
    assert conninfo_to_dict(addresses.server_url(TimescaleDB(host="h", sslmode="require")))["sslmode"] == "require"


def test_another_store_is_its_own_url(tmp_path):
    for store, kind in ((f"lake:{tmp_path}/x", "lake"), ("s3://b/l", "s3"), ("postgresql://h/db", "timescaledb")):
        loaded = load(tmp_path, store=store)
        assert (loaded.store_url, loaded.store_type) == (store, kind)


# URLs that are given


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://",
        "postgresql:///db",
        "postgres://h",
        "postgresql://me@h/db",
        "postgresql://me:pw@h:5432/db",
        f"postgresql://me:{ENCODED}@h:5432/db?sslmode=verify-full&sslrootcert=/etc/root.crt",
        "postgresql://me:a:b@h/db",
        "postgresql://[::1]:5432/db",
        "postgresql://h1:1,h2:2/db?target_session_attrs=read-write",
        "postgresql://%2Fvar%2Frun/db",
        "postgresql:///db?host=/var/run&port=5433",
    ],
)
def test_a_good_url_is_kept_as_it_is_and_libpq_takes_it(tmp_path, url):
    assert load(tmp_path, store=url).store == url
    conninfo_to_dict(url)


def test_the_scheme_may_be_written_in_capitals(tmp_path):
    assert load(tmp_path, store=" PostgreSQL://Me@H/Db ").store == "postgresql://Me@H/Db"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("postgresql:h/db", "the form is postgresql://"),
        ("postgres:", "the form is postgresql://"),
        ("postgresql+psycopg://me:secret@h/db", "the form is postgresql://"),
        ("jdbc:postgresql://h/db?password=secret", "the form is postgresql://"),
        ("timescaledb://me:secret@h/db", "the form is postgresql://"),
        ("postgresql://me:se@cret@h/db", "write @ as %40"),
        ("postgresql://me:se/cret@h/db", "/ as %2F"),
        ("postgresql://me:secret?@h/db", "? as %3F"),
        ("postgresql://me:se#cret@h/db", "# as %23"),
        ("postgresql://me:secret%@h/db", "% as %25"),
        ("postgresql://me:secret%00@h/db", "% as %25"),
        ("postgresql://me:sec ret@h/db", "the form is"),
        ("postgresql://me:secret@h:port/db", "the form is"),
        ("postgresql://me:secret@h:0/db", "the port 0 is not one of 1 to 65535"),
        ("postgresql://me:secret@h:1,h:65536/db", "the port 65536 is not"),
        ("postgresql://me:secret@h/db?sslmode=on", "the sslmode is one of disable, allow, prefer, require, verify-ca"),
        ("postgresql://me:secret@h/db?sslmode", "the form is"),
        ("postgresql://me:secret@h/db#x", "the form is"),
        ("host=h password=secret dbname=db", "a URL is needed, postgresql://"),
        ("password = secret", "a URL is needed"),
    ],
)
def test_a_bad_url_is_refused_at_load_by_its_place_and_not_shown(tmp_path, url, why):
    message = refused(tmp_path, {"HDI_STORE": url})
    assert message.startswith("environment variable HDI_STORE: ")
    assert why in message
    assert "secret" not in message
    assert "cret" not in message.removeprefix("environment variable HDI_STORE: ")
    assert list(tmp_path.iterdir()) == []


# Masking


@LAW
@given(password=TEXT)
def test_a_masked_url_is_the_same_whatever_its_password(password):
    url = addresses.server_url(TimescaleDB(host="h", user="me", password=password))
    assert masked(url) == "postgresql://me:***@h:5432/hist_data"
    query = f"postgresql://h/db?password={addresses.forms(password)[1]}&sslmode=require"
    assert masked(query) == "postgresql://h/db?password=***&sslmode=require"
    assert masked(f"a message: '{url}' is gone") == "a message: 'postgresql://me:***@h:5432/hist_data' is gone"


@LAW
@given(password=TEXT)
def test_a_masked_list_of_keywords_is_the_same_whatever_its_password(password):
    quoted = password.replace("\\", "\\\\").replace("'", "\\'")
    text = f"host=h password='{quoted}' user=me"
    assert conninfo_to_dict(text)["password"] == password
    assert masked(text) == "host=h password=*** user=me"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"postgresql://me:{ODD}@h/db", "postgresql://me:***@h/db"),
        ("postgresql+psycopg://me:a@b/c@h/db", "postgresql+psycopg://me:***@h/db"),
        ("POSTGRES://:pw@h", "POSTGRES://:***@h"),
        ("password=p,w&x host=h", "password=*** host=h"),
        (r"password = it\ is host=h", "password = *** host=h"),
        (r"'host=h password=\'p w\' user=me'", "'host=h password=*** user=me'"),
        ("postgresql://h/db?sslpassword=pw&x=1", "postgresql://h/db?sslpassword=***&x=1"),
        ("PGPASSWORD=pw psql", "PGPASSWORD=*** psql"),
        ("https://me:pw@host/path", "https://me:***@host/path"),
        ('password authentication failed for user "me"', 'password authentication failed for user "me"'),
        ("postgresql://me@h:5432/db is gone", "postgresql://me@h:5432/db is gone"),
    ],
)  # fmt: skip
def test_passwords_are_masked_in_every_form_and_nothing_else_is(text, shown):
    assert masked(text) == shown
    assert str(StoreError(text, text)) == f"{shown}\n{shown}"


def test_settings_hold_the_password_of_a_url_and_never_show_it(tmp_path):
    url = f"postgresql://me:{ENCODED}@h/db?sslpassword=hunter%2B2"
    loaded = load(tmp_path, {"HDI_STORE": url})
    assert loaded.store == loaded.store_url == url
    assert set(loaded.secrets) == {ODD, ENCODED, "hunter+2", "hunter%2B2"}
    shown = f"{loaded!r} {loaded} {loaded.model_dump()} {loaded.model_dump_json()}"
    assert "postgresql://me:***@h/db?sslpassword=***" in shown
    assert not any(secret in shown for secret in loaded.secrets)


def test_the_password_of_the_server_is_a_secret_in_both_forms(tmp_path):
    loaded = load(tmp_path, {"TIMESCALEDB_HOST": "h", "TIMESCALEDB_PASSWORD": ODD, "PGPASSWORD": "hunter2"})
    assert set(loaded.secrets) == {ODD, ENCODED, "hunter2"}
    assert ODD not in f"{loaded!r} {loaded.timescaledb} {loaded.model_dump()} {loaded.model_dump_json()}"


def test_logs_mask_the_password_of_a_url_wherever_it_turns_up(tmp_path):
    url = f"postgresql://me:{ENCODED}@h:5432/db"
    try:
        with HistoricalData.open(url, **{"log.dir": str(tmp_path / "logs")}):
            log = logs.get_logger("Store")
            log.info(f"opening {url}", url=url, dsn=f"host=h password='{ODD}'", decoded=f"<{ODD}>", encoded=[ENCODED])
            log.info("badly written", url=f"postgresql://me:{ODD}@h/db", query=f"x?password={ENCODED}&y=1")
    finally:
        structlog.reset_defaults()
    text = (tmp_path / "logs" / "app.log").read_text(encoding="utf-8")
    assert ODD not in text
    assert ENCODED not in text
    first, second = (json.loads(line) for line in text.splitlines())
    assert first["message"] == "opening postgresql://me:***@h:5432/db"
    assert first["context"] == {
        "url": "postgresql://me:***@h:5432/db", "dsn": "host=h password=***", "decoded": "<***>", "encoded": ["***"],
    }  # fmt: skip
    assert second["context"] == {"url": "postgresql://me:***@h/db", "query": "x?password=***&y=1"}


# Opening


def test_a_lake_and_timescaledb_can_be_opened():
    assert names() == ["lake", "timescaledb"]


@pytest.mark.parametrize("url", ["timescaledb", "timescaledb://h/db"])
def test_the_word_of_the_settings_is_not_a_url(url):
    with pytest.raises(RequestError, match="timescaledb is a word of the settings") as caught:
        open_store(url, load_schemas())
    assert "postgresql://user@host:port/dbname" in caught.value.hint


def test_an_unknown_type_is_refused_with_those_that_are_known():
    with pytest.raises(RequestError, match="no store of type 's3'") as caught:
        open_store("s3://key:secret@bucket/lake", load_schemas())
    assert "Known: lake, timescaledb;" in caught.value.hint
    assert "secret" not in str(caught.value)


def test_options_of_a_server_are_those_of_the_settings(tmp_path):
    assert ServerOptions() == HistoricalData._server_options(load(tmp_path))
    given = {"connect_seconds": 3, "compress": True, "compress_after_days": 7}
    loaded = load(tmp_path, **{f"timescaledb.{name}": value for name, value in given.items()})
    assert HistoricalData._server_options(loaded) == ServerOptions(**given)


def test_the_version_names_the_type_of_the_store_and_not_its_address(tmp_path):
    for store in ("postgresql://me:pw@h/db", "postgres://h"):
        assert HistoricalData(load(tmp_path, store=store)).version()["store"] == "timescaledb"


def test_what_is_open_shows_its_store_and_no_password(tmp_path):
    opened = HistoricalData(load(tmp_path, store="postgresql://me:pw@h/db"))
    assert repr(opened) == "<HistoricalData of postgresql://me:***@h/db>"


def test_no_driver_is_loaded_before_a_server_is_opened(tmp_path):
    code = (
        "import sys; from hdi.api import HistoricalData; data = HistoricalData.open(sys.argv[1])\n"
        "data.schemas; data.version(); import hdi.stores, hdi.stores.lake\n"
        "print(*{'psycopg', 'pgpq', 'adbc_driver_postgresql'} & set(sys.modules))"
    )
    ask = [sys.executable, "-c", code, "postgresql://h/db"]
    done = subprocess.run(ask, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == ""

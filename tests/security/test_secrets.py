"""Secret keys, passwords and addresses are planted, and looked for in all that is said and all that is kept."""

import base64
import contextlib
import json
import os
from urllib.parse import quote

import polars as pl
import psycopg
import pytest
from psycopg import sql

import dbnfiles
from api.desk import served
from hdi.sources.dbn import zstd
from servers import make_layout

#: What nobody says by chance. The key has the form of a key, and another one has not.
KEY = "db-Pl4ntedKeyThatNobodyMaySeeAAAAA"[:32]
PASSWORD, HOOK, OTHER = "pl4nted pass/w@rd", "pl4nted-hook-b7c1", "pl4nted-0ther-9d2e"
SECRETS = {KEY, PASSWORD, HOOK, OTHER}
DAYS = ("--start-date", "2024-03-04", "--end-date", "2024-03-05")
ORDER = ("--dataset", "GLBX.MDP3", "--schema", "ohlcv-1d", "--symbols", "ES.c.0", *DAYS)
KEPT = ("ca.pem", ".env")


def forms(secret):
    """A secret as it may turn up: plain, in a URL, in JSON, and in the header of a login."""
    login = base64.b64encode(f"{secret}:".encode()).rstrip(b"=")[:-1]
    return {secret.encode(), quote(secret, safe="").encode(), json.dumps(secret)[1:-1].encode(), login}


WANTED = {form: secret for secret in SECRETS for form in forms(secret)}


def seen(data):
    """The secrets that are in these bytes."""
    return {WANTED[form] for form in WANTED if form in data}


def contents(path):
    """The bytes of a file, and what is packed in them."""
    data = path.read_bytes()
    yield data
    if data[:4] == b"\x28\xb5\x2f\xfd":
        yield zstd.ZstdDecompressor().decompress(data)  # one of them is cut off
    if data[:4] == b"PAR1":
        yield "\n".join(repr(row) for row in pl.read_parquet(path).rows()).encode()


def leaks(folder):
    """Where a file, or its name, tells a secret."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.name not in KEPT:
            told = set().union(*map(seen, contents(path)), seen(str(path.relative_to(folder)).encode()))
            found += [(str(path.relative_to(folder)), told)] * bool(told)
    return found


def stored(url):
    """Every row of every table of a database, as text."""
    with psycopg.connect(url) as connection:
        names = connection.execute("SELECT schemaname, tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for schema, name in names:
            for row in connection.execute(sql.SQL("SELECT t::text FROM {} AS t").format(sql.Identifier(schema, name))):
                yield row[0].encode()


def commands(folder, url):
    """Command lines that work, and such that fail, in every way that has to do with a secret."""
    files = folder / "files"
    tape = dbnfiles.write(files / "a.dbn.zst", "trades", dbnfiles.records("trades", 50))
    bad = dbnfiles.write(files / "b.dbn.zst", "trades", dbnfiles.records("trades", 400, side=b"X", instrument_id=2))
    (files / "no.dbn").write_bytes(b"no")
    (files / "cut.dbn.zst").write_bytes(tape.read_bytes()[:-5])
    for path in (tape, bad, files / "no.dbn", files / "cut.dbn.zst"):
        yield "ingest", "--api", "dbn", path, "--origin", "synthetic"
    yield "plan", *ORDER
    yield "ingest", *ORDER, "--force"
    yield "ingest", *ORDER, "--force", "--job", KEY
    yield "sync", KEY
    yield "status", "--comprehensive"
    yield "--json", "status"
    yield "status", "--check-api"
    for words in (
        ("config", "show"),
        ("config", "validate"),
        ("config", "test-api", "databento", "--verbose"),
        ("doctor",),
    ):
        yield words
        yield "--json", *words
    yield ("runs",)
    yield "quarantine", "list"
    yield "metrics", "--once"
    yield "alerts", "--test"
    yield "report", "--html", folder / "report.html"
    yield ("reconcile",)
    yield ("spend",)
    yield "verify", "--test", "data_availability"
    yield ("maintain",)
    yield "lock", folder / "rows.lock", "--rows"
    yield "verify-lock", folder / "rows.lock"
    yield "backup", folder / "backups", "--raw"
    yield "migrate", "--from", url, "--to", f"lake:{folder / 'copy'}"
    yield "query", "--symbols", "NOPE", "--schema", "trades"
    yield "sql", "SELECT nothing FROM nowhere"
    yield "--config-dir", folder / "wrong", "status"
    yield "--store", f"postgresql://someone:{quote(OTHER)}@127.0.0.1:1/nowhere?connect_timeout=2", "status"
    yield "--store", f"postgresql://someone:{quote(OTHER)}@127.0.0.1:1:2/nowhere", "status"
    yield "migrate", "--from", url, "--to", f"postgresql://someone:{quote(OTHER)}@127.0.0.1:1/nowhere"


@contextlib.contextmanager
def planted(monkeypatch, folder, url):
    """The secrets in the places where they belong, but for one: a file of settings is the wrong place."""
    given = {
        "HDI_STORE": url, "HDI_DATA_DIR": str(folder / "data"), "DATABENTO_API_KEY": KEY, "LOG_LEVEL": "DEBUG",
        "HDI_ALERT_WEBHOOK": f"https://127.0.0.1:1/{HOOK}", "TIMESCALEDB_PASSWORD": PASSWORD, "PGPASSWORD": PASSWORD,
        "GRAFANA_DB_PASSWORD": OTHER,
    }  # fmt: skip
    wrong = folder / "wrong"
    wrong.mkdir()
    # The file itself holds it; that is the user's doing, and hdi may not say it again.
    (wrong / "system_config.yaml").write_text(f"databento: {{key: {KEY}}}\nstore: 'postgresql://a:{OTHER}@b/c'\n")
    with served(folder, until="2024-07-01", scale=0.02) as vendor:
        for name, value in (given | {"DATABENTO_GATEWAY": vendor.gateway}).items():
            monkeypatch.setenv(name, value)
        yield
    (wrong / "system_config.yaml").unlink()


def place(kind, folder, request, stack):
    """The URL of a store, with the password in it where it is a server's."""
    if kind == "lake":
        return f"lake:{folder / 'lake'}"
    databases = request.getfixturevalue("databases")
    os.environ["TIMESCALEDB_PROGRAMS"] = str(databases.programs())
    url = stack.enter_context(databases.kept())(template="layout", prepare=make_layout)
    user, _, rest = url.partition("://")[2].rpartition("@")
    return f"postgresql://{user or 'postgres'}:{quote(PASSWORD, safe='')}@{rest}"


@pytest.mark.parametrize("kind", ["lake", "timescaledb"])
def test_no_secret_is_in_any_output_log_or_file_at_debug(kind, tmp_path, monkeypatch, call, request):
    monkeypatch.setenv("TIMESCALEDB_PROGRAMS", "")
    told, codes = [], {}
    with contextlib.ExitStack() as stack:
        url = place(kind, tmp_path, request, stack)
        stack.enter_context(planted(monkeypatch, tmp_path, url))
        for words in commands(tmp_path, url):
            ran = call("--log-level", "DEBUG", *words)
            codes.setdefault(ran.code, []).append(words)
            asked = seen(" ".join(map(str, words)).encode())  # what somebody types is answered with it
            if secrets := seen((ran.out + ran.err).encode()) - (asked & {KEY}):
                told.append((words, secrets))
        rows = [row for row in stored(url) if seen(row)] if kind != "lake" else []
    assert told == []
    assert rows == []
    assert leaks(tmp_path) == []
    # It is no proof where nothing is done: some succeed, and there are failures of the request, of data and of stores.
    assert {0, 1, 2, 4, 5} <= codes.keys(), codes
    assert "unexpected" not in (tmp_path / "logs" / "app.log").read_text()
    for made in ("logs/app.log", "rows.lock", "report.html"):
        assert (tmp_path / made).stat().st_size, made
    assert any((tmp_path / "backups").rglob("*.json"))
    assert any((tmp_path / "data" / "raw").rglob("*.dbn.zst"))


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_what_nobody_foresaw_is_told_without_the_secrets_that_a_library_says(tmp_path, monkeypatch, call, level):
    url = f"postgresql://someone:{quote(OTHER)}@127.0.0.1:1/nowhere"
    for name, value in (("DATABENTO_API_KEY", KEY), ("HDI_ALERT_WEBHOOK", f"https://127.0.0.1:1/{HOOK}"),
                        ("HDI_STORE", f"lake:{tmp_path}/lake")):  # fmt: skip
        monkeypatch.setenv(name, value)

    def fails(*_, **__):
        try:
            raise OSError(f"Authorization: Basic {base64.b64encode(f'{KEY}:'.encode()).decode()} of {url}")
        except OSError as exc:
            raise RuntimeError(f"{KEY} was not taken by https://127.0.0.1:1/{HOOK}") from exc

    monkeypatch.setattr("hdi.api.HistoricalData.runs", fails)
    ran = call("--log-level", level, "runs")
    assert (ran.code, "unexpected RuntimeError" in ran.err) == (1, True)
    assert ("Traceback" in ran.err) == (level == "DEBUG")
    assert seen((ran.out + ran.err).encode()) == set()
    assert (tmp_path / "logs" / "app.log").stat().st_size
    assert leaks(tmp_path) == []


@pytest.mark.parametrize("form", ["plain", "packed", "parquet"])
def test_the_search_finds_what_is_planted(form, tmp_path):
    data = f"Authorization: Basic {base64.b64encode(f'{KEY}:'.encode()).decode()}".encode()
    if form == "parquet":
        pl.DataFrame({"x": [f"https://a/{HOOK}"] * 9}).write_parquet(tmp_path / "x")
    else:
        (tmp_path / "x").write_bytes(zstd.compress(data) if form == "packed" else data)
    assert leaks(tmp_path) == [("x", {HOOK if form == "parquet" else KEY})]

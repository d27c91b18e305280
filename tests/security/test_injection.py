"""No argument becomes SQL: hostile text in each is a value that nothing is called, on both stores alike."""

import json

import pytest

import dbnfiles
from servers import make_layout

HOSTILE = (
    "x'; DROP TABLE trades_data; --", "x' OR '1'='1", 'x" OR ""="', "x'); DELETE FROM trades_data; --", "x\\'; --",
    "'||pg_sleep(60)||'", "$$;DROP TABLE trades_data;$$", "x%' OR 1=1 --", "{x}", "%s %(a)s :a ?", "a\0b", "/* x */",
    "'; COPY trades_data TO PROGRAM 'touch x'; --", "\udc80'--",
)  # fmt: skip
DAY = ("--start-date", "2024-01-02", "--end-date", "2024-01-02")
#: Each argument that reaches a store: NAME is the hostile text.
COMMANDS = (
    ("query", "--schema", "trades", "--symbols", "NAME", *DAY),
    ("query", "--schema", "NAME", "--symbols", "ESH4", *DAY),
    ("query", "--schema", "trades", "--symbols", "ESH4", "--dataset", "NAME", *DAY),
    ("query", "--schema", "trades", "--symbols", "ESH4", "--columns", "NAME", *DAY),
    ("query", "--schema", "trades", "--symbols", "ESH4", "--where", "NAME", *DAY),
    ("query", "--schema", "trades", "--symbols", "ESH4", "--start-date", "NAME"),
    ("query", "--schema", "trades", "--symbols", "ESH4", "--as-of", "NAME"),
    ("bars", "--every", "NAME", "--symbols", "ESH4", *DAY), ("bars", "--every", "1h", "--symbols", "NAME", *DAY),
    ("asof", "--symbols", "NAME", *DAY), ("symbols", "NAME"),
    ("coverage", "--symbols", "NAME"),
    ("gaps", "--schema", "trades", "--symbols", "NAME"), ("revisions", "--symbols", "NAME"), ("runs", "NAME"),
    ("quarantine", "list", "--symbols", "NAME"), ("quarantine", "list", "--rule", "NAME"),
    ("quarantine", "list", "--unit", "NAME"), ("quarantine", "show", "NAME"),
    ("revisions", "--since", "NAME"), ("validate", "--schema", "trades", "--dataset", "NAME"),
    ("why", "NAME", "2024-01-02", "--schema", "trades"), ("why", "ESH4", "NAME", "--schema", "trades"),
    ("reconcile", "--symbols", "NAME"), ("spend", "--by", "NAME"),
    ("ingest", "--api", "dbn", "FILE", "--origin", "NAME"),
)  # fmt: skip


@pytest.fixture(params=["lake", "timescaledb"])
def url(request, tmp_path):
    if request.param == "lake":
        yield f"lake:{tmp_path / 'lake'}"
        return
    with request.getfixturevalue("databases").kept() as fresh:
        yield fresh(template="layout", prepare=make_layout)


def test_hostile_text_in_every_argument_changes_nothing_and_finds_nothing(url, tmp_path, call, monkeypatch):
    monkeypatch.setenv("HDI_STORE", url)
    monkeypatch.setenv("HDI_DATA_DIR", str(tmp_path / "data"))
    file = dbnfiles.write(tmp_path / "a.dbn.zst", "trades", dbnfiles.records("trades", 20))
    assert call("ingest", "--api", "dbn", file).code == 0

    def held():
        names = ("trades_data", "ingest_units", "quarantine", "coverage")
        counts = [call("--json", "sql", f"SELECT count(*) AS n FROM {name}").out for name in names]
        return [json.loads(each)[0]["n"] for each in counts]

    before = held()
    assert before[0] == 20
    for k, words in enumerate(COMMANDS):
        # Every text goes to every fourth command, and every command gets several.
        for name in HOSTILE[k % 4 :: 4]:
            given = [str(file) if w == "FILE" else name if w == "NAME" else w for w in words]
            ran = call("--json", *given)
            assert ran.code in (0, 1, 2, 4), (given, ran)
            for word in ("error: unexpected", "Traceback", "syntax error", "psycopg", "SQLSTATE"):
                assert word not in ran.err, (given, ran.err)
            if ran.code == 0 and ran.out.startswith("["):
                assert all("ESH4" not in str(row) for row in json.loads(ran.out)), (given, ran.out)
    assert held() == before
    assert call("verify-lock", "no.lock").code == 2
    assert not (tmp_path / "x").exists()


def test_names_with_quotes_are_stored_and_found_as_they_are(url, tmp_path, call, monkeypatch):
    monkeypatch.setenv("HDI_STORE", url)
    monkeypatch.setenv("HDI_DATA_DIR", str(tmp_path / "data"))
    for k, name in enumerate(("x'; DROP TABLE a; --", 'y"z', "w\\v", "$1 %s")):
        rows = dbnfiles.records("trades", 3, instrument_id=70 + k)
        file = dbnfiles.write(tmp_path / f"{k}.dbn.zst", "trades", rows, symbols=(name,))
        assert call("ingest", "--api", "dbn", file).code == 0
        found = call("--json", "query", "--schema", "trades", "--symbols", name, *DAY)
        assert found.code == 0, (name, found.err)
        assert {row["symbol"] for row in json.loads(found.out)} == {name}

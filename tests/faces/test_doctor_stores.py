"""``hdi doctor`` on both kinds of store: what it says of each, and that it changes nothing."""

import contextlib
import json
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from hdi.testing import opened
from servers import make_layout


def doctor(cli, store, code=0):
    ran = cli("--store", store, "--json", "doctor", "--offline")
    assert ran.code == code, ran.out
    return {f["name"]: (f["state"], f["said"], f["mend"]) for f in json.loads(ran.out)["findings"]}


def test_a_lake_passes_with_its_format(cli, own_demo):
    found = doctor(cli, own_demo)
    assert found["store layout"][0] == "pass"
    assert found["dead attempts"][0] == "pass"
    assert found["store"][1].endswith("synthetic data")
    assert {state for state, _, _ in found.values()} <= {"pass", "warn", "not measured"}


def test_what_an_attempt_left_that_died_is_found_and_left_where_it_is(cli, own_demo):
    folder = own_demo / "_hdi" / "staging" / "died"
    folder.mkdir(parents=True)
    (folder / "lock").touch()
    state, said, mend = doctor(cli, own_demo)["dead attempts"]
    assert (state, "an attempt that died" in said, bool(mend)) == ("warn", True, True)
    assert folder.exists()


def test_a_run_that_died_is_told_with_the_command_that_goes_on(cli, own_demo, tmp_path):
    with contextlib.closing(opened(f"lake:{own_demo}")) as store:
        about = {"url": store.url, "identity": store.identity()}
    run = "20240102T030405-abcdef"
    start = {
        "event": "start", "at": "2024-01-02T03:04:05Z", "format": 1, "run": run, "pid": 1, "host": "here",
        "store": about, "request": {"api": "dbn", "files": ["a.dbn"], "resumes": []},
    }  # fmt: skip
    (tmp_path / "data" / "runs").mkdir(parents=True)
    (tmp_path / "data" / "runs" / f"{run}.jsonl").write_text(f"{json.dumps(start)}\n")
    state, said, mend = doctor(cli, own_demo)["runs"]
    assert (state, run in said) == ("warn", True)
    assert f"hdi ingest --resume {run}" in mend


def test_a_folder_that_is_no_lake_fails_with_exit_1(cli, tmp_path):
    (tmp_path / "file").write_text("")
    state, said, mend = doctor(cli, tmp_path / "file", code=1)["store"]
    assert (state, "is a file" in said, bool(mend)) == ("fail", True, True)


def test_an_empty_database_is_looked_at_and_left_empty(cli, fresh_database):
    url = fresh_database()
    found = doctor(cli, url)
    assert found["store layout"][:2] == ("pass", "no tables yet")
    assert found["extension"][0] in ("pass", "warn")
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)


def test_a_database_says_its_version_its_locks_and_its_time_zone(cli, fresh_database):
    url = fresh_database(template="layout", prepare=make_layout)
    name = urlsplit(url).path[1:]
    for zone, state in (("Asia/Tokyo", "warn"), ("UTC", "pass")):
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(sql.SQL("ALTER DATABASE {} SET timezone = {}").format(sql.Identifier(name), zone))
        found = doctor(cli, url)
        assert found["time zone"][0] == state
        assert (name in (found["time zone"][2] or "")) == (state == "warn")
    assert found["store layout"][0] == "pass"
    assert found["extension"][1].startswith("TimescaleDB ")
    assert found["max_locks_per_transaction"][0] == "pass"

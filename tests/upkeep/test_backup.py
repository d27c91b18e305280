"""A backup is whole or has no name, comes back equal in everything, and is refused where a bit of it is not."""

import contextlib
import hashlib
import json
import shutil
from pathlib import Path

import polars as pl
import psycopg
import pytest

from hdi.backups import Copying, Manifest, _digest_of, finished
from hdi.cli import run
from hdi.errors import CorruptFile, RequestError, StoreError
from hdi.stores.timescaledb.programs import environment, program
from hdi.stores.timescaledb.saving import _name
from hdi.testing import Load, opened, trades
from hdi.testing.noted import _told as told_of
from migrate.stock import LATER, commit, day, everything
from upkeep.keepers import do
from upkeep.test_maintain import instants

pytestmark = pytest.mark.usefixtures("programs")


def numbers(url):
    with contextlib.closing(opened(url)) as store:
        return store.numbers().rows(), store.reserve(["next"])


def test_one_state_is_saved_while_others_commit_and_comes_back_equal_now_and_as_of_a_commit(
    tmp_path, stock, empty, kind
):
    url, back = stock(kind), empty(kind)
    with contextlib.closing(opened(url)) as store:
        told = store.amend(lambda known: pl.concat([known, told_of(1), told_of(2)]))
        store.amend(lambda known: known.head(1))
        told = store.amend(lambda known: pl.concat([known, told.tail(1)]))
    do(url, "maintain")
    times, came = (None, instants(url)[3]), []
    before = [everything(url, as_of=at) for at in times]

    def on_step(step):
        if not came and step in ("dump", "copy"):
            came.append(step)
            with contextlib.closing(opened(url)) as store:
                commit(store, LATER)

    do(url, "backup", tmp_path / "backups", on_step)
    assert came
    assert everything(url) != before[0]
    restored = do(back, "restore", tmp_path / "backups")
    assert restored.manifest.store["type"] == kind
    assert [everything(back, as_of=at) for at in times] == before
    with contextlib.closing(opened(back)) as store:
        assert store.discrepancies().equals(told)
        commit(store, LATER)
    # It goes on as the other one does, with the same numbers.
    assert everything(back)["trades"] == everything(url)["trades"]
    assert numbers(back) == numbers(url)


def test_a_second_backup_copies_only_what_is_new(tmp_path, stock):
    url = stock()
    first = do(url, "backup", tmp_path / "backups")
    assert first.linked == 0
    with contextlib.closing(opened(url)) as store:
        Load(trades([day(9).start + 1], 4), window=day(9), run="run-8").commit(store)
    second = do(url, "backup", tmp_path / "backups")
    fresh = len(second.manifest.files) - second.linked
    assert 0 < fresh < 30
    assert second.linked > 2 * fresh
    assert [p.name for p in finished(tmp_path / "backups")] == [m.manifest.folder.name for m in (first, second)]
    first.manifest.check()
    second.manifest.check()


def test_older_backups_go_when_as_many_are_kept(stock, capsys):
    url = stock()
    for _ in range(3):
        assert run(["--store", url, "backup", "backups", "--keep", "2"]) == 0
    assert len(finished(Path("backups"))) == 2
    assert "removed: " in capsys.readouterr().err


def test_backups_of_other_stores_tables_and_names_stay_and_none_lies_in_what_it_saves(stock):
    url, other = stock(), stock()
    for words in ([url], [other], [url, "--tables", "ohlcv_data"]):
        assert run(["--store", words[0], "backup", "backups", *words[1:]]) == 0
    first, *_ = made = finished(Path("backups"))
    first.rename("backups/good")
    assert run(["--store", url, "backup", "backups", "--keep", "1"]) == 0
    assert run(["--store", url, "backup", "backups", "--keep", "1"]) == 0
    left = finished(Path("backups"))
    assert left[:2] == made[1:]
    assert len(left) == 3
    assert Manifest.read(Path("backups/good")).folder == Path("backups/good")
    assert run(["--store", url, "backup", f"{url.removeprefix('lake:')}/backups"]) == 2


@pytest.mark.fault("disk", "a backup is damaged", "lake")
@pytest.mark.parametrize("harm", ["flip", "cut", "remove", "add", "manifest"])
def test_a_damaged_backup_is_refused_with_the_file_named_and_nothing_is_restored(tmp_path, stock, empty, capsys, harm):
    url, back = stock(), empty()
    manifest = do(url, "backup", tmp_path / "backups").manifest
    victim = next(manifest.folder / f.path for f in manifest.files if f.path.endswith(".parquet") and f.size > 1_000)
    data = bytearray(victim.read_bytes())
    if harm == "flip":
        data[len(data) // 2] ^= 1
        victim.write_bytes(data)
    elif harm == "cut":
        victim.write_bytes(data[:-1])
    elif harm == "remove":
        victim.unlink()
    elif harm == "add":
        victim = victim.with_name("more.parquet")
        victim.write_bytes(data)
    else:
        victim = manifest.folder / "hdi-backup.json"
        victim.write_text(victim.read_text().replace('"rows": 20', '"rows": 21', 1).replace('"hdi": "', '"hdi": "9', 1))
    assert run(["backup", "--verify", "backups"]) == 4
    assert run(["--store", back, "restore", "backups"]) == 4
    said = capsys.readouterr().err
    assert str(victim.relative_to(tmp_path)) in said
    assert not Path(back.removeprefix("lake:")).exists()


def test_a_backup_of_another_kind_of_store_is_refused(tmp_path, stock, empty):
    do(stock(), "backup", tmp_path / "backups")
    with pytest.raises(RequestError, match="lake"):
        do(empty("timescaledb"), "restore", tmp_path / "backups")


@pytest.mark.parametrize("whole", [True, False])
def test_one_table_comes_back_into_the_store_that_lost_it(stock, kind, whole):
    url = stock(kind)
    before = everything(url)
    options = [] if whole else ["--tables", "trades_data"]
    assert run(["--store", url, "backup", "backups", *options]) == 0
    assert run(["--store", url, "restore", "backups", "--tables", "trades_data"]) == 2
    lose(url, "trades_data")
    assert run(["--store", url, "restore", "backups", "--tables", "trades_data"]) == 0
    assert everything(url) == before


def test_a_table_that_is_lost_once_more_is_noticed(stock):
    url = stock()
    assert run(["--store", url, "backup", "backups"]) == 0
    lose(url, "trades_data")
    assert run(["--store", url, "restore", "backups", "--tables", "trades_data"]) == 0
    lose(url, "trades_data")
    with pytest.raises(StoreError, match=r"trades_data.* is gone"):
        everything(url)


def test_a_table_that_is_lost_before_any_book_was_written_down_is_noticed(empty, capsys):
    url = empty()
    with contextlib.closing(opened(url)) as store:
        Load(trades([day(1).start + 1]), window=day(1)).commit(store)
    assert not Path(url.removeprefix("lake:"), "ingest_units").exists()
    assert run(["--store", url, "backup", "backups"]) == 0
    lose(url, "trades_data")
    assert run(["--store", url, "status"]) == 1
    assert "the table trades_data" in capsys.readouterr().out
    assert run(["--store", url, "restore", "backups", "--tables", "trades_data"]) == 0
    assert len(everything(url)["trades"]) == 1


def lose(url, table):
    if url.startswith("lake:"):
        shutil.rmtree(Path(url.removeprefix("lake:"), table))
        return
    with psycopg.connect(url) as connection:
        connection.execute(f"DROP TABLE {table} CASCADE")


def test_a_table_alone_makes_a_store_of_its_own(stock, empty, kind):
    url, back = stock(kind), empty(kind)
    assert run(["--store", url, "backup", "backups", "--tables", "ohlcv_data"]) == 0
    assert run(["--store", back, "restore", "backups"]) == 0
    one, other = everything(back), everything(url)
    assert [one[name] for name in ("ohlcv-1d", "ohlcv-1h", "ohlcv_data")] == [
        other[name] for name in ("ohlcv-1d", "ohlcv-1h", "ohlcv_data")
    ]
    assert one["trades"] == []
    bars = [row for row in other["ledger"] if "ohlcv_data" in row]
    assert one["ledger"] == bars


def test_raw_files_and_settings_come_with_it_when_asked(stock, empty, capsys):
    url, back = stock(), empty()
    for name in (
        "data/raw/o/d/s/x.dbn.zst",
        "data/raw/.part/y.part",
        "data/runs/r.jsonl",
        "configs/system_config.yaml",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("log:\n  level: INFO\n" if name.startswith("configs") else name)
    assert run(["--store", url, "backup", "backups", "--raw"]) == 0
    shutil.rmtree("data")
    assert run(["--store", back, "--json", "restore", "backups", "--raw"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["beside"] == {"raw": 1, "runs": 1}
    assert Path("data/raw/o/d/s/x.dbn.zst").read_text() == "data/raw/o/d/s/x.dbn.zst"
    Path("data/raw/o/d/s/x.dbn.zst").write_text("another")
    assert run(["--store", empty(), "restore", "backups", "--raw"]) == 2
    assert "another file" in capsys.readouterr().err


def test_what_is_no_backup_and_an_unknown_table_are_refused(tmp_path, stock, empty, capsys):
    url = stock()
    assert run(["--store", url, "restore", str(tmp_path)]) == 2
    assert run(["--store", url, "backup", "backups", "--tables", "nothing"]) == 2
    assert run(["--store", empty(), "backup", "backups"]) == 2
    assert finished(Path("backups")) == []
    said = capsys.readouterr().err
    assert "holds no backup" in said
    assert "no table nothing" in said


def test_two_backups_to_one_folder_do_not_meet(tmp_path, stock):
    from hdi.backups import _writing

    with _writing(tmp_path / "backups"), pytest.raises(StoreError, match="another process"):
        do(stock(), "backup", tmp_path / "backups")


def test_a_dump_by_an_older_program_is_refused_before_anything_is_written(tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    (old / "pg_dump").write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6.1'\n")
    (old / "pg_dump").chmod(0o755)
    with pytest.raises(RequestError, match=r"PostgreSQL 17 or newer.*is of 9"):
        program("pg_dump", 17, old)


def test_the_password_goes_by_the_environment_and_no_key_of_ours_does(monkeypatch):
    for name in ("DATABENTO_API_KEY", "HDI_ALERT_WEBHOOK", "TIMESCALEDB_PASSWORD"):
        monkeypatch.setenv(name, "secret")
    told = environment("host=h port=5 user=u password='s e' dbname=d sslmode=require options='-c x=y'")
    assert {k: told[k] for k in ("PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE", "PGSSLMODE")} == {
        "PGHOST": "h", "PGPORT": "5", "PGUSER": "u", "PGPASSWORD": "s e", "PGDATABASE": "d", "PGSSLMODE": "require",
    }  # fmt: skip
    assert "PGOPTIONS" not in told
    assert "secret" not in told.values()


def test_a_manifest_that_was_changed_is_not_believed(tmp_path, stock):
    manifest = do(stock(), "backup", tmp_path / "backups").manifest
    path = manifest.folder / "hdi-backup.json"
    path.write_text(path.read_text().replace(manifest.made, "2020-01-01T00:00:00Z"))
    with pytest.raises(CorruptFile, match="not what was written"):
        Manifest.read(tmp_path / "backups")


@pytest.mark.parametrize(
    "changes",
    [
        *({"files": [{"path": path, "size": 1, "sha256": hashlib.sha256(b"x").hexdigest()}]} for path in (
            "raw//OUT/x", "/OUT/x", "raw/../../../OUT/x", "raw/./x", "raw/a\0b")),
        {"files": [{"path": "raw/x"}]}, {"files": 1}, {"files": [{"path": "raw/x", "size": "1", "sha256": ""}]},
        {"store": None}, {"store": {"type": "lake"}}, {"tables": 3},
    ],
)  # fmt: skip
def test_a_manifest_that_somebody_made_leads_nowhere_else(tmp_path, stock, empty, changes, capsys):
    manifest = do(stock(), "backup", tmp_path / "backups").manifest
    out = tmp_path / "out"
    path = manifest.folder / "hdi-backup.json"
    told = json.loads(path.read_text().replace("OUT", str(out))) | json.loads(
        json.dumps(changes).replace("OUT", str(out).lstrip("/"))
    )
    for name in ("raw", str(out).lstrip("/"), f"raw/{str(out).lstrip('/')}"):
        (manifest.folder / name).mkdir(parents=True, exist_ok=True)
        (manifest.folder / name / "x").write_bytes(b"x")
    del told["sha256"]
    path.write_text(json.dumps(told | {"sha256": _digest_of(told)}))
    assert run(["--store", empty(), "restore", str(tmp_path / "backups"), "--raw"]) == 4
    assert "the backup is damaged" in capsys.readouterr().err
    assert not out.exists()


def asked(url, statement):
    """Have a session of somebody else's do something."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)


def test_a_restore_that_died_before_its_end_is_ended_by_the_next_one(tmp_path, stock, empty):
    url, back = stock("timescaledb"), empty("timescaledb")
    do(url, "backup", tmp_path / "backups")
    do(back, "restore", tmp_path / "backups")
    asked(back, "SELECT timescaledb_pre_restore()")  # as far as one had come that was killed now
    do(back, "restore", tmp_path / "backups")
    assert everything(back) == everything(url)
    with contextlib.closing(opened(back)) as store:
        commit(store, LATER)
    with pytest.raises(RequestError, match="not empty"):
        do(back, "restore", tmp_path / "backups")


def test_two_restores_to_one_database_are_not_done_at_once(tmp_path, stock, empty):
    url, back = stock("timescaledb"), empty("timescaledb")
    do(url, "backup", tmp_path / "backups")
    with psycopg.connect(back, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(hashtextextended('public:hdi:restore', 0))")
        with pytest.raises(StoreError, match="another process restores"):
            do(back, "restore", tmp_path / "backups")
    do(back, "restore", tmp_path / "backups")
    assert everything(back) == everything(url)


def test_programs_that_outlived_a_killed_process_are_ended_by_the_next_one(tmp_path, stock, empty):
    url, back = stock("timescaledb"), empty("timescaledb")
    do(url, "backup", tmp_path / "backups")
    with psycopg.connect(back, application_name="hdi restore") as left:
        left.execute("CREATE TABLE trades_data (i int)")  # not committed: the next one would wait for it for ever
        do(back, "restore", tmp_path / "backups")
        assert gone(left)
    work = tmp_path / "again" / ".unfinished" / "store"
    with psycopg.connect(url, application_name=_name(Copying(work, "store", {}))) as left:
        do(url, "backup", tmp_path / "again")
        assert gone(left)
    assert everything(back) == everything(url)


def gone(connection):
    """True when the server has ended a session."""
    with contextlib.suppress(psycopg.OperationalError):
        connection.execute("SELECT 1")
        return False
    return True

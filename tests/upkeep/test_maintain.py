"""Upkeep changes no answer, whoever reads or writes meanwhile, and leaves less than there was."""

import contextlib
import json
import os
from pathlib import Path

import polars as pl
import psycopg
import pytest

from hdi.cli import run
from hdi.errors import StoreError
from hdi.maintaining import stored_whole
from hdi.stores.lake.compact import groups
from hdi.stores.lake.compare import Stored
from hdi.stores.upkeep import Care
from hdi.testing import Load, opened, trades
from hdi.testing.material import ALWAYS
from migrate.stock import AFTER, AT, LATER, commit, day, everything
from upkeep.keepers import CARE, do


def files_of(url, table="trades_data"):
    found = Path(url.removeprefix("lake:"), table).rglob("*.parquet")
    return sorted(p for p in found if "_delta_log" not in p.parts)


def instants(url):
    with contextlib.closing(opened(url)) as store:
        return store.ledger()["committed_at"].unique().sort().to_list()


def test_no_answer_changes_now_or_as_of_a_commit(stock, kind):
    url = stock(kind)
    times = [None, instants(url)[4]]
    before = [everything(url, as_of=at) for at in times]
    with contextlib.closing(opened(url)) as store:
        told = list(store.maintain(CARE))
        if kind != "lake":
            told += store.maintain(Care(("reindex",)))
    assert all(t.done for t in told)
    assert [everything(url, as_of=at) for at in times] == before


def test_what_comes_afterwards_is_stored_as_if_there_had_been_no_upkeep(stock):
    one, other = stock(), stock()
    do(one, "maintain", "")
    for url in (one, other):
        with contextlib.closing(opened(url)) as store:
            commit(store, (*LATER, *AFTER))
    mine, theirs = everything(one), everything(other)
    assert [mine[name] for name in ("trades", "ohlcv-1d", "ohlcv-1h")] == [
        theirs[n] for n in ("trades", "ohlcv-1d", "ohlcv-1h")
    ]
    assert len(mine["ledger"]) == len(theirs["ledger"])


def test_small_files_become_one_and_those_they_were_go_when_nobody_can_be_at_them(stock):
    url = stock()
    with contextlib.closing(opened(url)) as store:
        for k in range(6):
            load = Load(
                trades([day(1).start + 10 + k], 15 - k), window=day(1), scope=[(15 - k, *span(day(1)))], symbol=f"S{k}"
            )
            load.commit(store)
        rows = everything(url)
        mine = [p for p in files_of(url) if "2024-01-03" in str(p)]
        assert len(mine) == 7
        told = list(store.maintain(Care(keep_hours=24)))
        assert len([p for p in files_of(url) if "2024-01-03" in str(p)]) == 8
        (compacted,) = [t for t in told if t.step == "compact" and "trades" in t.what]
        assert compacted.files_before - compacted.files_after >= 6
        assert everything(url) == rows
        made = max((p for p in files_of(url) if "2024-01-03" in str(p)), key=lambda p: pl.read_parquet(p).height)
        assert pl.read_parquet(made, hive_partitioning=False)["instrument_id"].to_list() == [2, *range(10, 16)]
        # A file that has lain there for long, and was taken out of the table a moment ago, is kept for readers.
        for path in files_of(url):
            os.utime(path, (1, 1))
        list(store.maintain(Care(("vacuum",), keep_hours=24)))
        assert len([p for p in files_of(url) if "2024-01-03" in str(p)]) == 8
        # And one that has just come, which no table names yet.
        young = mine[0].with_name("young.parquet")
        young.write_bytes(b"x")
        for path in Path(url.removeprefix("lake:"), "trades_data", "_delta_log").iterdir():
            os.utime(path, (1, 1))
        list(store.maintain(Care(("vacuum",), keep_hours=24)))
    assert young.exists()
    assert len([p for p in files_of(url) if "2024-01-03" in str(p)]) == 2
    assert everything(url) == rows


def span(window):
    return window.start, window.end


def test_done_again_it_does_nothing(stock):
    url = stock()
    do(url, "maintain", "")
    before = {p: p.stat().st_size for p in Path(url.removeprefix("lake:")).rglob("*") if p.is_file()}
    told = do(url, "maintain", "")
    assert {t.step for t in told} == {"sweep", "settle"}
    assert {p: p.stat().st_size for p in Path(url.removeprefix("lake:")).rglob("*") if p.is_file()} == before


def test_a_dry_run_changes_nothing_and_says_as_much(stock, kind):
    url = stock(kind)
    with contextlib.closing(opened(url)) as store:
        before = everything(url), files_of(url) if kind == "lake" else []
        told = list(store.maintain(Care(dry_run=True, keep_hours=0)))
        assert any("would" in t.done for t in told)
        assert (everything(url), files_of(url) if kind == "lake" else []) == before


def test_the_log_of_every_table_stays_whole(stock):
    url = stock()
    root = Path(url.removeprefix("lake:"))
    with contextlib.closing(opened(url)) as store:
        for k in range(12):
            Load(trades([day(20).start + k], 7), window=day(20), run=f"r{k}").commit(store)
        logs = {p: p.read_bytes() for p in root.glob("*/_delta_log/*.json")}
        list(store.maintain(CARE))
        assert list((root / "trades_data" / "_delta_log").glob("*.checkpoint.parquet"))
        assert {p: p.read_bytes() for p in logs} == logs
        for name in ("ingest_units", "coverage", "quarantine"):
            assert sorted(map(repr, store.rebuilt(name).rows())) == sorted(map(repr, frame(store, name).rows()))


def frame(store, name):
    return {"ingest_units": store.ledger, "coverage": store.coverage, "quarantine": store.quarantine}[name]()


def test_a_commit_that_comes_between_wins(stock):
    url, other = stock(), stock()
    late = Load(trades(AT[:3], 1, 99), symbol="ESH4", stype="raw_symbol", run="late")
    came = []

    def on_step(step):
        if step == "compact" and not came:
            came.append(step)
            with contextlib.closing(opened(url)) as store:
                late.commit(store)

    with contextlib.closing(opened(url)) as store:
        many(store)
    with contextlib.closing(opened(other)) as store:
        many(store)
        late.commit(store)
    do(url, "maintain", "", on_step)
    assert came
    assert everything(url)["trades"] == everything(other)["trades"]
    do(url, "maintain", "")
    assert everything(url)["trades"] == everything(other)["trades"]


def many(store):
    """Small files beside those of the first day."""
    for k in range(4):
        Load(trades([AT[k] + 5], 30 + k), scope=[(30 + k, *span(day(0)))], symbol=f"X{k}").commit(store)


def test_a_reader_that_began_before_reads_to_its_end(stock, monkeypatch):
    monkeypatch.setattr("hdi.stores.lake.read._SLAB_ROWS", 1)  # each file by itself
    url = stock()
    with contextlib.closing(opened(url)) as store:
        many(store)
        schema = next(s for s in store.schemas() if s.table == "trades_data")
        whole = pl.concat(store.read(schema, "trades", ALWAYS, None, list(schema.dtypes)))
        reading = store.read(schema, "trades", ALWAYS, None, list(schema.dtypes))
        first = next(reading)
        assert first.height < whole.height
        do_kept = list(store.maintain(Care(keep_hours=1)))
        assert {"compact"} <= {t.step for t in do_kept}
        assert pl.concat([first, *reading]).equals(whole)


def test_one_process_at_a_time(stock, kind):
    url = stock(kind)
    with contextlib.closing(opened(url)) as one, contextlib.closing(opened(url)) as two:
        running = one.maintain(CARE)
        next(running)
        with pytest.raises(StoreError, match="maintained"):
            list(two.maintain(CARE))
        list(running)
        list(two.maintain(CARE))


def test_locks_and_staged_files_of_the_dead_go(stock):
    url = stock()
    root = Path(url.removeprefix("lake:"))
    with contextlib.closing(opened(url)) as store, store.claim(["held"]):
        (root / "_hdi" / "locks" / "claim-old.lock").touch()
        dead = root / "_hdi" / "staging" / ("0" * 32)
        dead.mkdir()
        (dead / "run.parquet").write_bytes(b"x")
        orphan = root / "_hdi" / "sidecars" / f"{'1' * 32}-rejects.parquet"
        orphan.write_bytes(b"x")
        list(store.maintain(CARE))
        assert {p.name for p in (root / "_hdi" / "locks").glob("claim-*")} == {"claim-held.lock"}
        assert not dead.exists()
        assert not orphan.exists()


def test_rows_of_a_column_that_is_not_declared_here_are_left_alone(stock):
    from deltalake import DeltaTable, Field
    from deltalake.schema import PrimitiveType

    url = stock()
    with contextlib.closing(opened(url)) as store:
        many(store)
        DeltaTable(url.removeprefix("lake:") + "/trades_data").alter.add_columns(
            [Field("strange", PrimitiveType("string"))]
        )
        before = files_of(url)
        told = list(store.maintain(Care(("compact",))))
    assert files_of(url) == before
    assert any("strange" in t.done for t in told)


def stored(path, rows, first, last):
    return Stored(path, rows * 10, rows, first, last, 1, 1, {"dataset": "D", "_date": "2024-01-02"})


def test_neighbours_in_time_are_grouped_and_large_ones_left_alone():
    a, b, c, d = (stored(n, 100, k, k + 1) for k, n in enumerate("abcd"))
    big = stored("big", 10_000, 2, 3)
    assert groups([d, c, b, a], 1_000) == [[a, b, c, d]]
    assert groups([a, b, c, d], 200) == [[a, b], [c, d]]
    assert groups([a], 1_000) == []
    assert groups([a, big], 100_000) == []
    assert [len(g) for g in groups([a, b, big, d], 100_000)] == [2]


def test_what_reaches_into_the_time_of_a_large_file_is_merged_into_it_where_reads_would_do_it_each_time():
    big, replaced, few = (stored(n, rows, 0, 9) for n, rows in (("big", 900), ("replaced", 100), ("few", 20)))
    after = stored("after", 100, 9, 20)
    assert groups([big, replaced], 10_000) == [[big, replaced]]
    assert groups([big, few], 10_000) == []
    assert groups([big, after], 10_000) == []


def test_raw_files_go_only_where_all_their_rows_are_stored_and_old_and_none_was_rejected():
    ledger = pl.DataFrame(
        {
            "unit": [1, 2, 3, 4, 5],
            "status": ["complete", "complete", "failed", "complete", "complete"],
            "committed_at": [1, 1, 1, 9, 1],
            "raw_file": ["good", "shared", "shared", "new", "rejects"],
        },
        schema_overrides={"unit": pl.Int32},
    )
    assert stored_whole(ledger, pl.Series([5], dtype=pl.Int32), 5) == ["good"]


def test_the_command_prints_what_it_did_and_the_settings_rule_what_goes(tmp_path, stock, capsys):
    url = stock()
    logs = tmp_path / "logs"
    logs.mkdir()
    old = logs / "app.log.3"
    old.write_text("x")
    os.utime(old, (1, 1))
    assert run(["--store", url, "--json", "maintain", "--only", "logs,compact"]) == 0
    out = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {t["step"] for t in out} <= {"logs", "compact"}
    assert old.exists()
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "system_config.yaml").write_text("maintain:\n  log_days: 7\n")
    assert run(["--store", url, "--config-dir", str(tmp_path / "configs"), "maintain"]) == 0
    assert "removed 1 files" in capsys.readouterr().out
    assert not old.exists()
    assert run(["--store", url, "maintain", "--only", "polish"]) == 2
    assert "no step polish" in capsys.readouterr().err


def test_the_server_takes_back_the_space_of_dead_rows(stock):
    url = stock("timescaledb")
    with contextlib.closing(opened(url)) as store:
        told = {t.what: t for t in store.maintain(CARE)}
        assert told["trades_data"].bytes_after is not None
        assert "compress" not in {t.step for t in told.values()}
        asked = list(store.maintain(Care(("compress",))))
    assert [("Apache" in t.done or "false" in t.done) for t in asked] == [True]
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_stat_user_tables WHERE last_vacuum IS NOT NULL").fetchone()[
            0
        ]


def test_without_old_raw_files_there_is_nothing_that_the_setting_removes(tmp_path, stock, capsys):
    url = stock()
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "system_config.yaml").write_text("maintain:\n  raw_days: 1\n")
    assert run(["--store", url, "--config-dir", str(tmp_path / "configs"), "maintain", "--only", "raw"]) == 0
    assert "removed 0 files" in capsys.readouterr().out


def test_an_empty_place_needs_nothing(empty, capsys):
    url = empty()
    assert run(["--store", url, "maintain", "--dry-run"]) == 0
    assert not Path(url.removeprefix("lake:")).exists()
    assert "0 steps" in capsys.readouterr().err

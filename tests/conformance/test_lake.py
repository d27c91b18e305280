"""The lake passes the suite that every store has to pass, and keeps what only a lake promises."""

import itertools
import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake

from hdi.errors import StoreError
from hdi.frames import LEDGER
from hdi.model import DAY_NS, Window
from hdi.stores import open_store
from hdi.stores.lake import instruments
from hdi.stores.lake.derive import TABLES
from hdi.testing import Load, State, StoreSuite, content, opened, prices, rejects, trades
from hdi.testing.material import START, definitions, heard, schemas
from hdi.testing.once import bars

AT = [START + k * 1_000 for k in range(20)]


class TestLake(StoreSuite):
    @pytest.fixture
    def fresh_url(self, tmp_path):
        count = itertools.count()
        return lambda: f"lake:{tmp_path}/{next(count)}"

    def footprint(self, url):
        return files(Path(url.removeprefix("lake:")))


@pytest.fixture
def root(tmp_path):
    return tmp_path / "lake"


def files(root):
    """Data and side files, staged ones, and whatever a writer left half done."""
    kept = (p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
    return sorted(p for p in kept if p.endswith((".parquet", ".part")) or "#" in p or "staging" in p)


def day(k):
    return Window(START + k * DAY_NS, START + (k + 1) * DAY_NS)


def busy(root, *, settle=True):
    """A lake with commits of several tables in turn: loads, overlaps, fragments, failures, rejects."""
    lake = opened(str(root))
    loads = [
        Load(
            trades(AT),
            rejected=rejects([START + 5, None]),
            heard=heard((0, "available", None, 1), (1, "degraded", 2, 1)),
        ),
        Load(bars("ohlcv-1d"), schema="ohlcv-1d", heard=heard((1, "available", 3, 2))),
        Load(trades(AT[:9], 1, 7), symbol="ESH4", stype="raw_symbol", rejected=rejects([START + 6]), run="run-2"),
        Load(trades([day(1).start + 1], 2), window=day(1), rejected=rejects([day(1).start + 7] * 500, 2)),
        Load(bars("ohlcv-1h"), schema="ohlcv-1h", scope=[(i, START, START + DAY_NS) for i in range(1, 900)]),
        Load(trades([day(2).start + 1]), symbol="", window=day(2), digest="f1", rejected=rejects([day(2).start + 2])),
        Load(trades([day(2).start + 1], 1, 8), window=day(2), run="run-3"),
        Load(bars("ohlcv-1d").head(2), schema="ohlcv-1d", run="run-4"),
    ]
    for k, load in enumerate(loads):
        load.commit(lake)
        if k == 3:
            Load(trades([]), window=day(3), rejected=rejects([day(3).start])).failing(lake)
        if settle and k % 3 == 0:
            lake.settle()
    if settle:
        lake.settle()
    return lake


class TestCommits:
    def test_every_commit_holds_what_its_receipt_says_in_the_eyes_of_another_reader(self, root):
        busy(root)
        seen = 0
        for table, index in (("trades_data", "ts_recv"), ("ohlcv_data", "ts_event")):
            for version, hdi in commits(root / table):
                [unit] = hdi["units"]
                if unit["status"] == "failed":
                    continue
                assert unit["fetched"] == unit["stored"] + unit["quarantined"]
                parts = [pl.read_parquet(root / f["path"]) for f in hdi.get("rejects", {"files": []})["files"]]
                assert sum(p.height for p in parts) == unit["quarantined"]
                rows = pl.read_delta(str(root / table), version=version)
                rows = rows.with_columns(at=pl.col(index).dt.epoch("us") * 1000 + pl.col(f"{index}_ns"))
                if unit["schema"] != "trades":
                    rows = rows.filter(pl.col("granularity") == unit["schema"].removeprefix("ohlcv-"))
                if unit["status"] == "fragment":
                    held = rows.filter(pl.col("_unit") == unit["unit"])
                else:
                    inside = pl.col("at") >= pl.col("start"), pl.col("at") < pl.col("end")
                    claims = claimed(root, hdi["coverage"])
                    held = rows.join_where(claims, pl.col("instrument_id") == pl.col("id"), *inside)
                assert held.height == unit["stored"], (table, version)
                seen += 1
        assert seen == 8

    def test_instruments_do_not_depend_on_how_much_is_looked_at_at_once(self, root, monkeypatch):
        """Many days, and a snapshot of many instruments in one instant, with two legs each."""
        rows = [
            {"at": START + day * DAY_NS + (0 if day % 5 else i), "instrument_id": i, "leg_count": 2, "leg_index": leg,
             "min_price_increment": "0.25" if (day // 3 + i) % 2 else "0.5"}
            for day in range(12) for i in range(1, 13) for leg in (0, 1)
        ]  # fmt: skip
        window = Window(START, START + 28 * DAY_NS)
        for part in (rows[::2], rows[1::2]):
            told = definitions(sorted(part, key=lambda row: row["at"]))
            scope = [] if part[0]["leg_index"] else None
            Load(told, scope, window=window, schema="definition", symbol=f"X{len(part)}{scope}").commit(
                opened(str(root))
            )

        def found():
            frames = list(opened(str(root)).instruments())
            return len(frames), pl.concat(frames).sort("instrument_id", "known_from")

        frames, whole = found()
        assert (frames, whole.height, set(whole["definitions"])) == (1, 12 * 4, {3})
        monkeypatch.setattr(instruments, "_PIECE_BYTES", 10 * instruments.row_bytes(schemas().find("definition")[0]))
        monkeypatch.setattr(instruments, "_HELD", 9)
        pieces, same = found()
        assert pieces > 10
        assert same.equals(whole)

    def test_stored_rows_keep_their_nanoseconds_in_the_table(self, root):
        Load(trades([START + 1_999])).commit(opened(str(root)))
        [row] = pl.read_delta(str(root / "trades_data")).rows(named=True)
        assert (row["ts_recv"].microsecond, row["ts_recv_ns"], row["ts_event_ns"]) == (1, 999, 998)

    @pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
    def test_a_commit_that_locks_did_not_hold_back_is_seen(self, root, first):
        """Two machines on one network folder: the lock of one does not reach the other."""
        if not first:
            Load(trades([day(1).start + 1]), window=day(1)).commit(opened(str(root)))
        elsewhere = opened(str(root))
        elsewhere.lock_path = lambda name: root / "_hdi" / "locks" / f"elsewhere-{name}.lock"
        foreign = [Load(trades(AT[:10], 1, range(100, 110)), symbol=f"X{k}", stype="raw_symbol") for k in range(3)]

        def on_step(name):
            if name == "commit" and foreign:
                foreign.pop().commit(elsewhere)

        receipt = Load(trades(AT)).commit(opened(str(root), on_step))
        assert (receipt.stored, receipt.unchanged) == (20, 10)
        assert prices(opened(str(root)))[:20] == list(range(100, 120))
        assert not foreign
        live = {p for p in files(root) if p.startswith("trades_data")}
        assert live == {
            f"trades_data/{f}"
            for f in DeltaTable(str(root / "trades_data")).file_uris()
            for f in [f.split("trades_data/")[1]]
        }

    def test_a_commit_beside_another_schema_that_locks_did_not_hold_back_lands(self, root):
        elsewhere = opened(str(root))
        elsewhere.lock_path = lambda name: root / "_hdi" / "locks" / f"elsewhere-{name}.lock"
        Load(bars("ohlcv-1d"), schema="ohlcv-1d", window=day(9)).commit(elsewhere)
        foreign = [Load(bars("ohlcv-1h"), schema="ohlcv-1h")]

        def on_step(name):
            if name == "commit" and foreign:
                foreign.pop().commit(elsewhere)

        lake = opened(str(root), on_step)
        Load(bars("ohlcv-1d"), schema="ohlcv-1d").commit(lake)
        assert [content(lake, n).height for n in ("ohlcv-1d", "ohlcv-1h")] == [3, 3]
        assert lake.ledger().height == 3

    def test_a_store_that_is_always_too_busy_says_so_and_leaves_nothing(self, root):
        elsewhere = opened(str(root))
        elsewhere.lock_path = lambda name: root / "_hdi" / "locks" / f"elsewhere-{name}.lock"
        count = itertools.count()

        def on_step(name):
            if name == "commit":
                Load(trades([START], 1, next(count)), symbol="X", stype="raw_symbol").commit(elsewhere)

        with pytest.raises(StoreError, match="too busy"):
            Load(trades(AT)).commit(opened(str(root), on_step))
        assert elsewhere.ledger()["symbol"].unique().to_list() == ["X"]
        assert content(elsewhere).height == 1
        named = {a for _, hdi in commits(root / "trades_data") for a in [hdi["attempt"]]}
        assert {Path(p).name[:32] for p in files(root) if p.startswith("trades_data")} <= named


class TestDerivedTables:
    def test_what_is_kept_is_what_the_commits_add_up_to(self, root):
        lake, apart = busy(root), busy(root.with_name("apart"), settle=False)
        for name in (*TABLES, "trades_data_history", "ohlcv_data_history"):
            kept = pl.read_delta(str(root / name))
            made = lake.rebuilt(name)
            assert made.height > 0
            assert (
                kept.select(made.columns).sort(pl.all().exclude("rules")).equals(made.sort(pl.all().exclude("rules")))
            )
            assert opened(str(root))._frame(name).equals(made)
            assert apart._frame(name).equals(apart.rebuilt(name))
        assert State.of(lake, ("trades", "ohlcv-1d", "ohlcv-1h")) == State.of(apart, ("trades", "ohlcv-1d", "ohlcv-1h"))

    def test_deleting_them_loses_nothing(self, root):
        lake = busy(root)
        before = State.of(lake)
        for name in (*TABLES, "trades_data_history", "ohlcv_data_history"):
            shutil.rmtree(root / name)
        assert State.of(lake) == before
        later = opened(str(root))
        assert State.of(later) == before
        later.settle()
        assert State.of(opened(str(root))) == before
        assert all((root / name).exists() for name in TABLES)

    def test_many_small_parts_become_one_and_stay_in_order(self, root):
        lake = opened(str(root))
        for k in range(30):
            told = {"rejected": rejects([day(k).start + 2]), "heard": heard((k, "available", None, k))}
            Load(trades([day(k).start + 1]), window=day(k), **told).commit(lake)
            lake.settle()
        later = opened(str(root))
        for name in TABLES:
            assert later._frame(name).equals(lake.rebuilt(name))
            assert len(DeltaTable(str(root / name)).file_uris()) < 30
        assert later.ledger()["start"].is_sorted()

    def test_a_part_that_a_dead_writer_left_is_removed(self, root):
        lake = opened(str(root))
        Load(trades(AT)).commit(lake)
        lake.settle()
        orphan = root / "coverage" / f"part-{2:020d}-dead.parquet"
        shutil.copy(next((root / "coverage").glob("*.parquet")), orphan)
        torn = root / "coverage" / "_delta_log" / f"{2:020d}.json#1"
        torn.write_text("{")
        Load(trades([day(1).start]), window=day(1)).commit(lake)
        lake.settle()
        assert not orphan.exists()
        assert not torn.exists()

    def test_a_cleaned_log_is_told_and_not_taken_for_an_empty_one(self, root):
        busy(root, settle=False)
        (root / "trades_data" / "_delta_log" / f"{1:020d}.json").unlink()
        with pytest.raises(StoreError, match="is gone"):
            opened(str(root)).ledger()

    def test_a_damaged_side_file_is_told(self, root):
        Load(trades(AT), rejected=rejects([START])).commit(opened(str(root)))
        [path] = (root / "_hdi" / "sidecars").iterdir()
        path.write_bytes(path.read_bytes()[:-1] + b"X")
        with pytest.raises(StoreError, match="damaged"):
            opened(str(root)).quarantine()


class TestNumbers:
    @pytest.mark.parametrize("torn", ['{"unit": 9, "id": "abc', '{"unit', "{"])
    def test_a_line_that_a_dead_process_left_half_is_cut_off(self, root, torn):
        first = opened(str(root)).reserve(["a", "b"])
        path = root / "_hdi" / "units.jsonl"
        with path.open("a") as file:
            file.write(torn)
        lake = opened(str(root))
        assert lake.reserve(["b", "c", "a"]) == [first[1], 3, first[0]]
        assert opened(str(root)).reserve(["c", "d"]) == [3, 4]
        assert [json.loads(line)["unit"] for line in path.read_text().splitlines()] == [1, 2, 3, 4]

    def test_numbers_go_on_where_the_ledger_ends_when_their_file_is_lost(self, root):
        number = Load(trades(AT)).commit(opened(str(root))).number
        (root / "_hdi" / "units.jsonl").unlink()
        assert opened(str(root)).reserve(["a"]) == [number + 1]
        assert Load(trades(AT)).commit(opened(str(root))).number == number + 2


class TestSweeping:
    def test_an_attempt_that_lives_is_left_alone(self, root):
        load = Load(trades(AT), rejected=rejects([START]))
        lake = opened(str(root))

        def others():
            opened(str(root)).settle()
            Load(trades([day(1).start]), window=day(1)).commit(opened(str(root)))

        assert load.commit(lake, before_finish=others).stored == 20

    def test_what_a_dead_attempt_moved_is_taken_back_whoever_committed_since(self, root):
        load = Load(trades(AT), rejected=rejects([START]))
        left = abandoned(root, load, "commit")
        assert [p for p in left if p.startswith("trades_data")]
        # The same unit under the same number, by one who came before the sweep.
        load.commit(opened_before_sweep(root))
        opened(str(root)).settle()
        [live] = DeltaTable(str(root / "trades_data")).file_uris()
        assert [Path(p).name for p in files(root) if p.startswith("trades_data")] == [Path(live).name]
        assert not [p for p in files(root) if "staging" in p]
        assert prices(opened(str(root))) == list(range(100, 120))

    def test_what_a_dead_attempt_committed_stays(self, root):
        load = Load(trades(AT), rejected=rejects([START]))
        receipt = load.commit(opened(str(root)))
        staged = abandoned(root, Load(trades(AT), window=day(0), symbol="Y"), "commit")
        folder = next((root / "_hdi" / "staging").iterdir())
        intent = json.loads((folder / "intent.json").read_text())
        [(version, hdi)] = [(v, h) for v, h in commits(root / "trades_data")]
        # As if it had died after its commit: the intent names what the log names.
        landed = [p for p in files(root) if hdi["attempt"] in p]
        (folder / "intent.json").write_text(
            json.dumps(intent | {"attempt": hdi["attempt"], "version": version - 1, "files": landed})
        )
        assert len(staged) > 1
        lake = opened(str(root))
        assert set(landed) <= set(files(root))
        assert (prices(lake), lake.quarantine().height) == (list(range(100, 120)), receipt.quarantined)

    def test_what_could_not_be_taken_back_at_once_is_taken_back_later(self, root):
        lake = opened(str(root))
        Load(trades(AT[:1])).commit(lake)
        before = files(root)
        hindrance = root / "trades_data" / "_delta_log" / f"{2:020d}.json"

        def on_step(name):
            if name == "commit":
                hindrance.write_text("no log entry")

        with pytest.raises(StoreError, match="damaged"):
            Load(trades(AT)).commit(opened(str(root), on_step))
        hindrance.unlink()
        assert [p for p in files(root) if p.startswith("trades_data")] != [p for p in before if p.startswith("trades")]
        assert prices(opened(str(root))) == [100]
        assert files(root) == before


def opened_before_sweep(root):
    """A handle as one has it who opened the lake before the attempt died."""
    lake = opened(str(root.with_name("other")))
    lake.__init__(root, list(lake._schemas.values()))
    return lake


def abandoned(root, load, step):
    """Let an attempt die at a step, as kill -9 leaves it; returns the files that are there then."""
    kept = root.with_name("kept")

    def on_step(name):
        if name == step:
            shutil.copytree(root, kept)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        load.commit(opened(str(root), on_step))
    shutil.rmtree(root)
    kept.rename(root)
    return files(root)


def commits(table):
    """(version, what hdi wrote) of each commit, oldest first, by Delta's own history."""
    history = DeltaTable(str(table)).history()
    return [(h["version"], h["hdi"]) for h in reversed(history) if "hdi" in h]


def claimed(root, packed):
    """The rectangles that a commit claims: id, start, end."""
    frames = [pl.read_parquet(root / f["path"]) for f in packed.get("files", [])]
    rows = pl.DataFrame(packed["rows"]) if "rows" in packed else pl.concat(frames)
    return rows.drop_nulls("instrument_id").select(pl.col("instrument_id").alias("id"), "start", "end")


class TestOlder:
    """A lake that was written before the ledger knew jobs, and before conditions were kept."""

    @pytest.fixture
    def older(self, root):
        """Such a lake: receipts in its log and in its ledger lack the columns, and the table is not there."""
        lake = busy(root)
        lake.settle()
        for path in root.glob("*_data/_delta_log/*.json"):
            path.write_text("".join(_without(line) + "\n" for line in path.read_text().splitlines()))
        ledger = root / "ingest_units"
        marks = [line for line in _entries(ledger)[-1] if "txn" in line]
        frame = lake.ledger().drop("job", "batch")
        for name in ("ingest_units", "day_conditions"):
            shutil.rmtree(root / name, ignore_errors=True)
        write_deltalake(ledger, frame.to_arrow(compat_level=pl.CompatLevel.oldest()))
        log = max((ledger / "_delta_log").glob("*.json"))
        log.write_text("\n".join([*log.read_text().splitlines(), *map(json.dumps, marks)]) + "\n")
        return frame

    def test_it_is_read_as_it_was(self, root, older):
        lake = open_store(f"lake:{root}", schemas())
        assert lake.ledger().schema == LEDGER
        assert lake.ledger().drop("job", "batch").equals(older)
        assert lake.ledger().select("job", "batch").unique().rows() == [(None, None)]
        assert lake.conditions().is_empty()
        assert lake.rebuilt("ingest_units").sort("committed_at", "unit").equals(lake.ledger())

    def test_what_is_committed_to_it_is_kept_whole_and_no_receipt_comes_twice(self, root, older):
        said = heard((0, "degraded", 2, 5))
        for k in (8, 9):
            load = Load(
                trades([day(k).start]), window=day(k), run="later", job="nightly", prepared="GLBX-1", heard=said
            )
            load.commit(opened(str(root)))
            opened(str(root)).settle()
            ledger = opened(str(root)).ledger()
            assert ledger["job"].to_list() == [None] * older.height + ["nightly"] * (k - 7)
            assert ledger["unit"].is_unique().all()
            told = pl.read_delta(str(root / "ingest_units"))
            assert told.height == ledger.height
            assert told.sort("committed_at", "unit").select(*LEDGER).equals(ledger)
        assert opened(str(root)).conditions().equals(said)


def _without(line):
    """An entry of a log as it was before receipts had these keys."""
    entry = json.loads(line)
    payload = entry.get("commitInfo", {}).get("hdi", {})
    payload.pop("conditions", None)
    for unit in payload.get("units", ()):
        del unit["job"], unit["batch"]
    return json.dumps(entry)


def _entries(table):
    """The entries of the log of a table, version by version."""
    return [
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted((table / "_delta_log").glob("*.json"))
    ]

"""A lock is the same for the same rows, wherever they lie and however they came; what differs is named to the row."""

import contextlib
import hashlib
import json
import random
import struct
import time
from dataclasses import replace
from types import SimpleNamespace

import polars as pl
import psycopg
import pytest
from deltalake import DeltaTable

from faults.marks import STORES
from hdi.cli import run
from hdi.errors import DataError, RequestError
from hdi.fingerprint import Encoding
from hdi.locking import Asked, diff_stores, files, make, verify
from hdi.locking.growing import Leaves
from hdi.locking.marks import marks
from hdi.locking.tree import Share
from hdi.migrating import Migration
from hdi.model import DAY_NS, Window
from hdi.testing import Load, trades
from hdi.testing.material import DATASET, START, schemas
from hdi.then import Then
from same.twins import wipe

SCHEMA = schemas().find("trades")[0]
DAYS = 3
#: Instants of which several rows have the same one.
AT = [START + day * DAY_NS + k // 3 * 1_000_007 for day in range(DAYS) for k in range(60)]


def rows(day, seed=0):
    """The trades of a day, of two instruments and two publishers; of one instant in an order of their own."""
    times = [t for t in AT if START + day * DAY_NS <= t < START + (day + 1) * DAY_NS]
    n = len(times)
    frame = trades(times, [1 + k % 2 for k in range(n)], [k % 5 for k in range(n)], [1 + k % 4 // 2 for k in range(n)])
    frame = frame.with_columns(ts_event=pl.when(pl.int_range(n) % 7 == 0).then(None).otherwise("ts_event"))
    # Rows of one instant have no order among each other, and two of them are equal.
    doubled = pl.concat([frame, frame.slice(10, 1)])
    order = list(range(doubled.height))
    random.Random(seed).shuffle(order)
    return doubled[order].sort("ts_recv", maintain_order=True)


def load(day, seed=0, **given):
    return Load(rows(day, seed), window=Window(START + day * DAY_NS, START + (day + 1) * DAY_NS), **given)


def lock(store, path, *, rows=False, **asked):
    make(store, schemas(), Asked(**asked), path, rows=rows, version="test")
    return files.read(path)


def checked(store, file):
    """The differences between a lock and a store, in few words."""
    found = verify(file, store, schemas())
    told = [(d.kind, d.level, d.period, d.instrument, d.publisher, d.rows, d.time) for d in found.differences()]
    assert found.equal == (not told)
    return told


# --- an independent model --------------------------------------------------------------------


def text(value):
    data = value.encode()
    assert len(data) <= 12
    return struct.pack("<I12s", len(data), data)


PACK = {
    "text": (text, ""), "integer": (lambda v: struct.pack("<i", v), 0), "smallint": (lambda v: struct.pack("<h", v), 0),
    "bigint": (lambda v: struct.pack("<q", v), 0), "timestamp": (lambda v: struct.pack("<q", v), 0),
    "price": (lambda v: struct.pack("<q", int(v * 10**9)), 0), "boolean": (lambda v: struct.pack("<?", v), False),
}  # fmt: skip


def packed(row, fields):
    data, missing = b"", 0
    for k, f in enumerate(fields):
        pack, zero = PACK[f.type]
        data += pack(zero if row[f.name] is None else row[f.name])
        missing |= (row[f.name] is None) << k
    data += missing.to_bytes(-(-len(fields) // 8), "little")
    return data + bytes(-len(data) % 8)


def mark(data):
    """The first half of the mark of a row, with Python's integers."""
    mixed, most = 0x9E3779B97F4A7C15, 2**64 - 1
    for word in [*struct.unpack(f"<{len(data) // 8}Q", data), 0]:
        mixed = (mixed ^ word) * 0xBF58476D1CE4E5B9 & most
        mixed ^= mixed >> 29
    return mixed


def root(frame, name="trades"):
    """The root of the rows of one table, by the definition of :mod:`hdi.locking.tree`."""
    fields = [f for f in SCHEMA.fields if f.name != "dataset"]
    head = [DATASET, name, [[f.name, f.type] for f in fields], "day"]
    leaves = {}
    plain = frame.with_columns(pl.selectors.datetime().to_physical())
    for row in plain.iter_rows(named=True):
        day = row["ts_recv"] // DAY_NS * DAY_NS
        data = packed(row, fields)
        leaves.setdefault(day, {}).setdefault((row["instrument_id"], row["publisher_id"]), []).append(
            (row["ts_recv"], mark(data), data)
        )
    table = hashlib.sha256(json.dumps(head, separators=(",", ":")).encode())
    for day, mine in sorted(leaves.items()):
        part = hashlib.sha256()
        for key, found in sorted(mine.items()):
            digest = hashlib.sha256(b"".join(data for *_, data in sorted(found))).digest()
            part.update(struct.pack("<qqq", *key, len(found)) + digest)
        table.update(struct.pack("<qq", day, sum(map(len, mine.values()))) + part.digest())
    return hashlib.sha256(b"hdi lock 1" + table.digest()).hexdigest()


# --- the tree ---------------------------------------------------------------------------------


def test_the_root_is_what_its_definition_says_for_any_order_of_loading_batch_and_store(pair, tmp_path):
    for day in range(DAYS):
        load(day, batch=7).commit(pair.lake)
    for day in reversed(range(DAYS)):
        load(day, seed=day + 1, batch=50).commit(pair.server)
    kept = [lock(store, tmp_path / f"{k}.lock") for k, store in enumerate(pair.stores)]
    assert {file.lock.root for file in kept} == {root(pl.concat([rows(day) for day in range(DAYS)]))}
    assert [checked(store, file) for store, file in zip(pair.stores, reversed(kept), strict=True)] == [[], []]
    assert not list(diff_stores(pair.lake, pair.server, schemas(), Asked()).differences())
    about = kept[0].lock.about
    assert about["origin"] == "synthetic"
    assert about["coverage"][0]["symbol"] == "ES.FUT"


def test_leaves_do_not_depend_on_how_rows_come_in_pieces():
    frame = rows(0)
    fields = [f for f in SCHEMA.fields if f.name != "dataset"]
    share = Share(DATASET, "trades", "day", tuple((f.name, f.type) for f in fields), Window(0, 2**62), None)

    def leaves(*pieces):
        grown = Leaves(share, Encoding([(f.name, f.dtype) for f in fields]), "ts_recv")
        for piece in pieces:
            grown.add(piece)
        [(_, found)] = grown.done()
        return sorted((leaf.key, leaf.digest, leaf.disordered) for leaf in found)

    whole = leaves(frame)
    assert [key for key, *_ in whole] == [(i, p) for i in (1, 2) for p in (1, 2)]
    assert not any(disordered for *_, disordered in whole)
    # By instrument, as a file of the lake has them; and at one instant in any order.
    others = [frame.sort("instrument_id", "publisher_id", "ts_recv"), rows(0, seed=5), rows(0, seed=6)]
    assert all(leaves(*each.iter_slices(n)) == whole for each in others for n in (1, 2, 5, 1_000))
    assert any(disordered for *_, disordered in leaves(frame.tail(5), frame.head(5)))


def test_two_rows_that_differ_in_one_word_have_other_marks():
    fields = [f for f in SCHEMA.fields if f.name != "dataset"]
    encoding = Encoding([(f.name, f.dtype) for f in fields])
    one = encoding.rows(rows(0).head(1))
    for bit in range(one.size * 8):
        other = one.copy()
        other[0, bit // 8] ^= 1 << bit % 8
        assert (marks(one) != marks(other)).all(), bit


# --- what differs -----------------------------------------------------------------------------

PRICE = """
UPDATE trades_data SET price = price + 0.000000001
WHERE ts_recv >= '2024-01-03' AND ts_recv < '2024-01-04' AND (instrument_id, publisher_id, _row) = (
    SELECT instrument_id, publisher_id, min(_row) FROM trades_data
    WHERE ts_recv >= '2024-01-03' AND ts_recv < '2024-01-04' AND instrument_id = 2 AND publisher_id = 1 GROUP BY 1, 2)
"""


def flip(pair, k):
    """One bit of one price of the second day, behind the back of the store."""
    if k == 1:
        with psycopg.connect(pair.address) as connection:
            assert connection.execute(PRICE).rowcount == 1
        return
    folder = pair.places[0].folder
    [table] = folder.rglob("trades_data")
    for file in DeltaTable(str(table)).file_uris():
        frame = pl.read_parquet(file, hive_partitioning=False)
        mine = (pl.col("instrument_id") == 2) & (pl.col("publisher_id") == 1)
        if frame["ts_recv"].min().day == 3:
            at = frame.with_row_index().filter(mine)["index"][0]
            price = pl.col("price") + pl.lit("0.000000001").cast(pl.Decimal(18, 9))
            changed = frame.with_columns(
                pl.when(pl.int_range(pl.len()) == at).then(price).otherwise("price").cast(pl.Decimal(18, 9))
            )
            changed.write_parquet(file)
            return


@pytest.mark.parametrize(
    "k",
    [
        pytest.param(k, marks=pytest.mark.fault("disk", "one bit of a price is another, where there is a lock", store))
        for k, store in enumerate(STORES)
    ],
    ids=STORES,
)
def test_one_flipped_bit_is_located_to_table_period_instrument_and_row(pair, tmp_path, k):
    for store in pair.stores:
        for day in range(DAYS):
            load(day).commit(store)
    plain, named = lock(pair.lake, tmp_path / "plain.lock"), lock(pair.lake, tmp_path / "named.lock", rows=True)
    assert plain.lock.root == named.lock.root
    flip(pair, k)
    with contextlib.closing(pair.places[k].open()) as store:
        part = ("changed", "instrument", "2024-01-03", 2, 1)
        assert [d[:5] for d in checked(store, plain)] == [part]
        changed, row = checked(store, named)
        assert changed[:5] == part
        assert row[:2] == ("changed", "row")
        found = diff_stores(pair.stores[1 - k], store, schemas(), Asked())
        *_, value = found.differences()
        [(column, (before, after))] = value.changes.items()
        assert (column, value.time) == ("price", row[-1])
        assert after.removesuffix("01") == before.removesuffix("00")


def test_what_is_missing_and_what_is_extra_is_named(pair, tmp_path):
    for day in range(DAYS):
        load(day).commit(pair.lake)
    file = lock(pair.lake, tmp_path / "a.lock", rows=True)
    # Another row at an instant that had one, a row less, a day that is not there, an instrument more.
    load(0).commit(pair.server)
    last = rows(1).filter(pl.col("instrument_id") == 1, pl.col("publisher_id") == 1)["ts_recv"].to_physical()[-1]
    gone = (pl.col("ts_recv").to_physical() == last) & (pl.col("instrument_id") == 1) & (pl.col("publisher_id") == 1)
    other = trades([START + DAY_NS + 5], 9)
    replace(load(1), rows=pl.concat([other, rows(1).filter(~gone)])).commit(pair.server)
    told = checked(pair.server, file)
    assert [d[:5] for d in told] == [
        ("changed", "instrument", "2024-01-03", 1, 1), ("missing", "row", "2024-01-03", 1, 1),
        ("extra", "instrument", "2024-01-03", 9, 1), ("missing", "period", "2024-01-04", None, None),
    ]  # fmt: skip
    assert told[1][-1] == last
    assert told[2][5] == (0, 1)


def test_a_copied_store_has_the_same_root_and_a_rewritten_lake_too(pair, tmp_path):
    for day in range(DAYS):
        load(day, seed=day).commit(pair.lake)
    file = lock(pair.lake, tmp_path / "a.lock")
    wipe(pair.address)
    with contextlib.closing(pair.places[0].open()) as source, contextlib.closing(pair.places[1].open()) as destination:
        list(Migration(source, destination, schemas()).run())
        assert checked(destination, file) == []
    [table] = pair.places[0].folder.rglob("trades_data")
    DeltaTable(str(table)).optimize.compact()
    DeltaTable(str(table)).vacuum(0, enforce_retention_duration=False, dry_run=False)
    with contextlib.closing(pair.places[0].open()) as lake:
        assert checked(lake, file) == []


def test_what_comes_later_is_no_difference_and_what_was_replaced_is_none_as_of_before(pair, tmp_path):
    for store, path in zip(pair.stores, ("lake.lock", "server.lock"), strict=True):
        load(0).commit(store)
        file = lock(store, tmp_path / path)
        before = time.time_ns()
        load(1).commit(store)
        assert checked(store, file) == []
        dearer = rows(0).with_columns((pl.col("price") + 1).cast(pl.Decimal(18, 9)))
        replace(load(0), rows=dearer, run="run-2").commit(store)
        assert {d[1] for d in checked(store, file)} == {"instrument"}
        assert checked(Then(store, before), file) == []
        again = lock(Then(store, before), tmp_path / f"again-{path}")
        assert again.lock.root == file.lock.root


def test_a_lock_covers_what_was_asked_for(pair, tmp_path):
    for day in range(DAYS):
        load(day).commit(pair.lake)
    window = Window(START + DAY_NS, START + 2 * DAY_NS)
    file = lock(pair.lake, tmp_path / "one.lock", schema="trades", symbols=("2",), window=window)
    [table] = file.lock.tables
    assert [leaf.key for part in table.parts for leaf in part.leaves] == [(2, 1), (2, 2)]
    assert table.rows == rows(1).filter(pl.col("instrument_id") == 2).height
    for refused in ({"schema": "ohlcv-5m"}, {"schema": "definition"}, {"symbols": ("ESZ9",)}, {"dataset": "XNAS.ITCH"}):
        with pytest.raises(RequestError):
            lock(pair.lake, tmp_path / "none.lock", **refused)
    assert not (tmp_path / "none.lock").exists()


# --- files and the command --------------------------------------------------------------------


@pytest.fixture
def kept(pair, tmp_path):
    load(0).commit(pair.lake)
    file = lock(pair.lake, tmp_path / "a.lock", rows=True)
    return SimpleNamespace(path=file.path, marks=file.marks, text=file.path.read_text(), pair=pair)


def test_a_lock_that_is_not_what_it_was_is_refused(kept):
    whole = json.loads(kept.text)
    digest = whole["tables"][0]["parts"][0][2]
    damaged = [
        "", "{}", "[]", "[" * 100_000, kept.text[:-20], kept.text.replace('"format":1', '"format":2'),
        kept.text.replace(whole["root"], digest), kept.text.replace(digest, "00" + digest[2:]),
        kept.text.replace('"rows":61', '"rows":62'), kept.text.replace('"rows":61', '"rows":Infinity'),
        kept.text.replace(f'"{digest}",[[', f'"{digest}",[[Infinity,1,1,"{digest}","x"],['),
        kept.text.replace(f'"{digest}",[[', f'"{digest}",[[{10**30},1,1,"{digest}","x"],['),
        kept.text.replace("publisher_id", "publisher"),
        kept.text.replace(whole["tables"][0]["parts"][0][3][0][3], digest), kept.text.replace('"day"', '"week"'),
    ]  # fmt: skip
    for text in damaged:
        kept.path.write_text(text)
        with pytest.raises(RequestError):
            files.read(kept.path)
    kept.path.write_text(kept.text)
    with kept.marks.open("ab") as file:
        file.write(b"x")
    with pytest.raises(RequestError, match="was changed"):
        files.read(kept.path)
    kept.marks.unlink()
    with pytest.raises(RequestError, match="is gone"):
        files.read(kept.path)


def test_the_commands_end_with_0_for_equal_4_for_different_and_2_for_a_bad_file(kept, tmp_path, capsys):
    lake, server = kept.pair.places[0].url, kept.pair.address
    path = str(tmp_path / "b.lock")
    assert run(["--store", lake, "lock", path, "--schema", "trades"]) == 0
    assert json.loads(kept.text)["root"] in capsys.readouterr().out
    text = (tmp_path / "b.lock").read_text()
    assert run(["--store", lake, "lock", path, "--schema", "trades", "--rows"]) == 2  # it is evidence
    assert f"{path} is there already" in capsys.readouterr().err
    assert ((tmp_path / "b.lock").read_text(), [p.name for p in tmp_path.glob("b.lock*")]) == (text, ["b.lock"])
    assert run(["--store", lake, "verify-lock", path]) == 0
    assert run(["diff", path, str(kept.path)]) == 0
    assert run(["diff", lake, path]) == 0
    assert run(["diff", path, server]) == 2  # nothing is there
    assert "neither a lock nor a store" in capsys.readouterr().err
    load(0, seed=3).commit(kept.pair.server)
    assert run(["diff", lake, server]) == 0
    replace(load(0), rows=rows(0).with_columns(pl.col("size") + 1)).commit(kept.pair.server)
    capsys.readouterr()
    assert run(["--json", "--store", server, "verify-lock", path]) == 4
    *found, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert {(d["what"], d["level"], d["period"]) for d in found} == {("changed", "instrument", "2024-01-02")}
    assert not last["equal"]
    assert run(["diff", lake, server, "--symbols", "1"]) == 4
    out = capsys.readouterr().out
    assert "size: 1 | 2" in out
    assert "row 2024-01-02T" in run_all(capsys, lake, server)
    (tmp_path / "b.lock").write_text("{}")
    assert run(["--store", lake, "verify-lock", path]) == 2


def run_all(capsys, lake, server):
    assert run(["diff", lake, server]) == 4
    return capsys.readouterr().out


def test_a_store_whose_rows_lie_in_another_order_than_their_times_is_not_locked(pair, tmp_path, monkeypatch):
    load(0).commit(pair.lake)
    read = type(pair.lake).read

    def shuffled(self, *given, **more):
        for frame in read(self, *given, **more):
            yield from (frame.tail(20), frame.head(frame.height - 20))

    monkeypatch.setattr(type(pair.lake), "read", shuffled)
    for by_row in (False, True):
        with pytest.raises(DataError, match="another order"):
            lock(pair.lake, tmp_path / "a.lock", rows=by_row)
        assert list(tmp_path.glob("a.lock*")) == []

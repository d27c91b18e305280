"""Reading a lake without an order of instruments: slabs of time, in which each instrument keeps its order."""

from itertools import pairwise

import polars as pl
import pytest
from deltalake import DeltaTable
from polars.testing import assert_frame_equal

from dbnfiles import fragment, ns, records
from hdi.model import DAY_NS, MAX_NS, Window
from hdi.stores.lake import read
from hdi.testing.material import schemas
from lakes import Place
from tape import make_tape

TRADES, _ = schemas().find("trades")
COLUMNS = [*TRADES.dtypes, "_unit", "_row"]
WHOLE = Window(0, MAX_NS)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A lake with several runs of trades a day, some of which overlap in time."""
    folder = tmp_path_factory.mktemp("slabs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hdi.stores.lake.write.RUN_ROWS", 700)
        made = Place(folder, {"origin": "synthetic", "batch_size": 500})
        made.stored(make_tape(folder / "tape").paths[0])
        at = ns("2024-01-03") + DAY_NS // 4 * (1 + pl.int_range(8, eager=True).to_numpy() // 4)
        made.ingest(fragment(folder / "loose.dbn.zst", "trades", records("trades", 8, instrument_id=9901, ts_event=at)))
    return made


def both(store, *args):
    """The rows in the order of reads, and the slabs."""
    ordered = pl.concat(store.read(TRADES, "trades", *args))
    return ordered, list(store.read(TRADES, "trades", *args, ordered=False))


def same(ordered, slabs):
    """Each instrument has its rows in the same order, and no slab goes back in time."""
    key = ["publisher_id", "instrument_id"]
    assert_frame_equal(
        pl.concat(slabs).sort(key, maintain_order=True), ordered.sort(key, maintain_order=True), check_exact=True
    )
    edges = [(s["ts_recv"].min(), s["ts_recv"].max()) for s in slabs]
    assert all(before[1] <= after[0] for before, after in pairwise(edges))


@pytest.mark.parametrize(("rows", "most"), [(1 << 20, 1 << 20), (900, 1 << 20), (1, 600)])
def test_slabs_hold_each_instrument_in_order_whatever_their_size(place, monkeypatch, rows, most):
    monkeypatch.setattr(read, "_SLAB_ROWS", rows)
    monkeypatch.setattr(read, "_READ_ROWS", most)
    ordered, slabs = both(place.open(write=False), WHOLE, None, COLUMNS)
    same(ordered, slabs)
    assert (len(slabs) > 1) == (rows < ordered.height)


@pytest.mark.parametrize(("first", "rows", "most"), [(1, 900, 1 << 20), (1, 1 << 20, 1 << 20), (1 << 16, 1, 600)])
def test_rows_are_in_order_whatever_is_read_at_once(place, monkeypatch, first, rows, most):
    ordered, _ = both(place.open(write=False), WHOLE, None, COLUMNS)
    for name, value in (("_FIRST_ROWS", first), ("_SLAB_ROWS", rows), ("_READ_ROWS", most)):
        monkeypatch.setattr(read, name, value)
    frames = list(place.open(write=False).read(TRADES, "trades", WHOLE, None, COLUMNS))
    assert frames[0].height < ordered.height / 4  # who stops early has not read much
    assert_frame_equal(pl.concat(frames), ordered.sort(TRADES.order), check_exact=True)


def test_slabs_keep_to_window_and_instruments_without_reading_other_columns(place):
    store = place.open(write=False)
    start = ns("2024-01-03") + 10 * 3_600 * 10**9
    ids = store.coverage()["instrument_id"].drop_nulls().unique().sort()[:2]
    wanted = pl.DataFrame({"dataset": "GLBX.MDP3", "instrument_id": ids, "start": start, "end": start + DAY_NS})
    ordered, slabs = both(store, Window(start, start + 2 * DAY_NS), wanted, ["ts_recv", *COLUMNS[1:4], "price"])
    same(ordered, slabs)
    assert set(ordered["instrument_id"]) == set(ids)
    lean = pl.concat(store.read(TRADES, "trades", WHOLE, wanted, ["price"], ordered=False))
    assert lean.columns == ["price"]
    assert lean.height == ordered.height


def test_files_that_another_tool_has_compacted_are_put_in_order(place):
    before, _ = both(place.open(write=False), WHOLE, None, COLUMNS)
    table = DeltaTable(str(place.root / "trades_data"))
    store = place.open(write=False)
    assert sum(f.height for f in store.read(TRADES, "trades", WHOLE, None, ["price"])) == before.height
    table.optimize.compact()
    # The store that was open sees the new files, too.
    for opened in (store, place.open(write=False)):
        ordered, slabs = both(opened, WHOLE, None, COLUMNS)
        assert_frame_equal(ordered, before, check_exact=True)
        same(ordered, slabs)


def test_rows_that_another_process_commits_are_seen_by_an_open_store(tmp_path):
    place = Place(tmp_path, {"origin": "synthetic"})
    at = ns("2024-01-03") + pl.int_range(4, eager=True).to_numpy()
    place.ingest(fragment(tmp_path / "one.dbn.zst", "trades", records("trades", 4, instrument_id=9, ts_event=at)))
    store = place.open(write=False)
    for height in (4, 8):
        assert sum(f.height for f in store.read(TRADES, "trades", WHOLE, None, ["price"])) == height
        more = records("trades", 4, instrument_id=8, ts_event=at + 1)
        place.ingest(fragment(tmp_path / f"{height}.dbn.zst", "trades", more))

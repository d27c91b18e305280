"""A store that was migrated is the same store: what it shows, and what it does with whatever comes later."""

import contextlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from hdi.migrating import Migration
from hdi.stores import open_store
from hdi.stores.lake.derive import TABLES
from hdi.testing import Load, State, opened, trades
from hdi.testing.material import schemas
from migrate.stock import AFTER, FIRST, KINDS, LATER, NAMES, UNDATED, commit, day, everything, failing, move, stocked

FEW, ONE = FIRST[:3], FIRST[:1]
WAYS = [("lake", "lake"), KINDS, KINDS[::-1]]


@pytest.mark.parametrize(("source", "destination"), WAYS)
def test_a_store_is_copied_with_all_that_it_shows_and_gains_and_goes_on_as_it_would_have(
    stock, fresh, source, destination
):
    one, other = stock(source), fresh(destination)
    copied = move(one, other)
    assert everything(other) == everything(one)
    assert [(m.schema, m.pieces, m.copied_pieces, m.copied_units, m.differences) for m in copied] == [
        ("ohlcv-1d", 1, 1, 2, ()), ("ohlcv-1h", 1, 1, 1, ()), ("trades", 5, 5, 7, ()),
    ]  # fmt: skip
    again = move(one, other)
    assert [(m.copied_pieces, m.copied_units) for m in again] == [(0, 0)] * 3
    assert [(m.rows, m.digest) for m in again] == [(m.rows, m.digest) for m in copied]

    stocked(one, LATER)
    moved = {m.schema: m for m in move(one, other)}
    assert everything(other) == everything(one)
    # The first day in equal bytes, one day that changed, one that is new, one that failed again.
    assert (moved["trades"].pieces, moved["trades"].copied_pieces, moved["trades"].copied_units) == (6, 4, 4)
    assert (moved["ohlcv-1h"].copied_pieces, moved["ohlcv-1d"].copied_pieces) == (0, 1)

    states = []
    for url in (one, other):
        with contextlib.closing(opened(url)) as store:
            commit(store, AFTER)
            # Numbers go on, the one that was given and not used yet among them.
            assert store.reserve(["coming", "new"]) == [len(FIRST) + 1, len((*FIRST, *LATER, *AFTER)) + 2]
            states.append(State.of(store, NAMES))
    assert states[0] == states[1]
    if destination == "lake":
        adds_up(other)


@pytest.mark.parametrize(("source", "destination"), WAYS[1:])
def test_a_copy_knows_what_its_source_knew_at_any_time_but_for_the_rejects_that_were_replaced(
    stock, fresh, source, destination
):
    one, other = stock(source, FEW), fresh(destination)
    move(one, other)
    with contextlib.closing(opened(one)) as store:
        times = store.ledger()["committed_at"].unique().sort().to_list()
    with contextlib.closing(opened(other)) as store:
        commit(store, AFTER[-1:])
    learned = []
    for at in times:
        was, copied = (everything(url, NAMES[:2], at) for url in (one, other))
        left = copied.pop("quarantine")
        assert set(left) <= set(was.pop("quarantine"))
        assert copied == was
        learned.append(len(was["mappings"]))
    assert learned[0] < learned[-1]


def adds_up(url):
    """What a lake has made of its commits one by one is what it makes of all of them."""
    lake = opened(url)
    for name in (*TABLES, "trades_data_history", "ohlcv_data_history"):
        made = lake.rebuilt(name)
        assert made.height
        assert opened(url)._frame(name).equals(made)


def test_a_store_comes_back_by_two_servers_as_it_went_and_with_what_it_gained_meanwhile(stock, fresh):
    one, *others = [stock("lake", FEW), fresh("timescaledb"), fresh("timescaledb"), fresh("lake")]
    digests = [[m.digest for m in move(*pair)] for pair in pairwise([one, *others])]
    assert digests[0] == digests[1] == digests[2]
    assert everything(others[-1]) == everything(one)
    stocked(others[0], AFTER[2:])
    move(others[0], one)
    assert everything(one) == everything(others[0])


def test_rows_are_written_again_only_where_they_differ(stock, fresh, kind):
    """A receipt whose rows were all there already moves books alone."""
    one, other = stock("lake", ONE), fresh(kind)
    move(one, other)
    stocked(one, [Load(FIRST[0].rows, rejected=FIRST[0].rejected, run="run-2")])
    steps = []
    [moved] = move(one, other, on_step=steps.append)
    assert moved.copied_units == 1
    assert everything(other) == everything(one)
    assert "copy" not in steps
    if kind == "lake":
        assert len(list(Path(other.removeprefix("lake:")).rglob("trades_data/dataset*/**/*.parquet"))) == 1


def test_an_undated_fragment_joins_the_days_that_hold_its_rows_and_no_others(stock, fresh, kind):
    loads = (UNDATED, *(Load(trades([day(k).start], 9, 8), scope=[(9, day(k).start, day(k).end)], window=day(k))
                        for k in (4, 5, 6, 7, 8)))  # fmt: skip
    one, other = stock("lake", loads), fresh(kind)
    [moved] = move(one, other)
    assert moved.pieces == 3
    assert everything(other) == everything(one)


def test_a_fragment_of_which_no_row_was_stored_is_copied(fresh):
    one, other = stocked(fresh("lake"), [replace(UNDATED, rows=UNDATED.rows.clear()), failing(1)]), fresh("timescaledb")
    move(one, other)
    assert everything(other) == everything(one)


def test_the_source_is_not_written(stock, fresh):
    one, other = stock(), fresh("lake")
    root = Path(one.removeprefix("lake:"))

    def files():
        return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in root.rglob("*")}

    before = files()
    with Migration(open_store(one, schemas()), opened(other), schemas()) as migration:
        list(migration.run())
    assert files() == before


def test_symbology_that_was_learned_in_another_order_says_the_same_in_the_end(stock, fresh):
    """Of two mappings that contradict, the later counts: what the source says last, the destination says last."""
    one, other = stock("lake", FEW), fresh("lake")
    move(one, other)
    with contextlib.closing(opened(one)) as source:
        known = source.learned()
    turned = known.reverse()
    stocked(one, LATER[2:3])
    source = opened(one)
    grown = turned.vstack(source.learned().tail(1))
    source.learned = lambda: grown
    with Migration(source, opened(other), schemas()) as migration:
        assert not [m for m in migration.run() if m.differences]
        again = list(migration.run())
    assert [m.copied_pieces for m in again] == [0, 0]
    with contextlib.closing(opened(other)) as store:
        assert store.mappings().tail(grown.height).equals(grown.drop("learned"))

"""Replay: after a rule changed exactly the rows whose verdict is another one move, once, and everything adds up."""

import polars as pl
import pytest

import dbnfiles
from dbnfiles import PX
from files.lab import mapping
from hdi.errors import RequestError
from hdi.pipeline import ingest_files
from hdi.then import Then
from rejects.desk import FRONT, PARENT, Desk, ruled, trades

NO_SIDES = ruled(INVALID_SIDE="WARNING")
DEAR = ruled(NON_POSITIVE_PRICE=("ERROR", "price > 1"))


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path, max_reject_percent=5.0)


@pytest.fixture
def parent(desk, tmp_path):
    """A desk with one file of a parent."""
    path = dbnfiles.write(tmp_path / "parent.dbn.zst", "trades", trades(), **PARENT)
    desk.good(path)
    return desk


def test_rows_that_a_relaxed_rule_lets_pass_move_into_their_table_once(parent, tmp_path):
    before, was = parent.store.ledger().height, parent.store.quarantine().height
    at = parent.store.ledger()["committed_at"].max()
    assert parent.moves(NO_SIDES) == (10, 0)
    assert parent.store.quarantine().height == was - 10 == 2
    assert parent.adds_up()
    fresh = Desk(tmp_path / "fresh")
    list(ingest_files(fresh.store, NO_SIDES, mapping(), [tmp_path / "parent.dbn.zst"], fresh.options))
    assert parent.digest() == fresh.digest()
    assert parent.rejected() == fresh.rejected()
    units = parent.store.ledger().height
    assert units > before
    assert parent.moves(NO_SIDES) == (0, 0)
    assert parent.store.ledger().height == units
    assert Then(parent.store, at).quarantine().height == was
    assert len(parent.entries()) == 2


def test_rows_that_a_stricter_rule_rejects_leave_their_table_for_the_history(parent):
    assert parent.moves(ruled(NON_POSITIVE_PRICE=("WARNING", "price > 1"))) == (0, 0)
    held = parent.rows("trades").filter(pl.col("price") <= 1).height
    assert held > 0
    assert parent.moves(DEAR) == (0, held)
    assert not parent.rows("trades").filter(pl.col("price") <= 1).height
    assert parent.adds_up()
    schema, _ = DEAR.find("trades")
    assert parent.store.replaced(schema).filter(pl.col("price") <= 1).height == held
    assert parent.moves(DEAR) == (0, 0)
    before = parent.rejected()
    assert parent.moves() == (held, 0)
    assert parent.adds_up()
    assert len(parent.rejected()) == len(before) - held


def test_with_a_rule_only_rows_that_broke_it_or_break_it_move(parent):
    dear = ("ERROR", "price > 1")
    everything = ruled(INVALID_SIDE="WARNING", NON_POSITIVE_SIZE="WARNING", NON_POSITIVE_PRICE=dear)
    cheap = parent.rows("trades").filter(pl.col("price") <= 1).height
    assert parent.moves(everything, rule="NON_POSITIVE_SIZE") == (2, 0)
    assert parent.adds_up()
    assert {rules for _, _, rules in parent.rejected()} == {"INVALID_SIDE"}
    assert parent.rows("trades").filter(pl.col("price") <= 1).height == cheap
    out, into = parent.moves(everything, rule="NON_POSITIVE_PRICE")
    assert (out, into) == (0, cheap)
    assert parent.adds_up()
    assert parent.moves(everything, rule="NON_POSITIVE_PRICE") == (0, 0)


def test_with_a_unit_only_its_rows_move(parent):
    units = parent.store.quarantine()["unit"].unique().sort()
    assert len(units) == 2
    planned, outcomes = parent.replay(NO_SIDES, unit=str(units[0]))
    assert planned.rows_out > 0
    assert [o.status for o in outcomes] == ["stored"]
    left = parent.store.quarantine().filter(pl.col("rules").list.contains("INVALID_SIDE"))["unit_id"].unique()
    assert len(left) == 1
    assert parent.adds_up()
    assert parent.moves(NO_SIDES)[0] > 0
    assert parent.moves(NO_SIDES) == (0, 0)


def test_a_dry_run_moves_nothing(parent):
    before = parent.digest(), parent.rejected(), parent.store.ledger().height
    planned, _ = parent.replay(NO_SIDES, run=False)
    assert (planned.rows_out, planned.rows_into) == (10, 0)
    assert (parent.digest(), parent.rejected(), parent.store.ledger().height) == before


def test_what_a_later_file_has_replaced_is_not_brought_back(parent, tmp_path):
    rows = trades()
    own = rows[rows["instrument_id"] == 1].copy()
    own["price"] += PX
    front = dbnfiles.write(tmp_path / "front.dbn.zst", "trades", own, **FRONT)
    parent.good(front)
    newer = parent.rows("trades").filter(pl.col("instrument_id") == 1)
    others = parent.store.quarantine().filter(
        pl.col("instrument_id") != 1, pl.col("rules").list.contains("INVALID_SIDE")
    )
    assert others.height
    planned, outcomes = parent.replay(NO_SIDES)
    assert planned.rows_out == 10
    assert [o.error for o in outcomes] == [None, None]
    now = parent.rows("trades").filter(pl.col("instrument_id") == 1)
    came = now.join(newer, on=["sequence", "price"], how="anti")
    assert set(came["side"]) == {"X"}
    assert newer.join(now, on=["sequence", "price"], how="anti").is_empty()
    assert (now["price"] >= 2).all()
    assert parent.moves(NO_SIDES) == (0, 0)


def test_a_file_that_was_not_copied_is_replayed_where_it_lies_and_refused_when_it_changed(desk, tmp_path):
    path = dbnfiles.write(tmp_path / "mine.dbn.zst", "trades", trades(), **PARENT)
    desk.good(path, keep=False)
    copy = path.read_bytes()
    path.write_bytes(copy[:-1] + bytes([copy[-1] ^ 1]))
    planned, outcomes = desk.replay(NO_SIDES)
    assert (planned.steps, outcomes) == ((), [])
    [(found, why)] = planned.left_out
    assert "SHA-256 is another" in why
    path.unlink()
    assert "is gone" in desk.replay(NO_SIDES)[0].left_out[0][1]
    path.write_bytes(copy)
    assert desk.moves(NO_SIDES) == (10, 0)
    assert desk.adds_up()
    assert set(desk.store.ledger()["raw_file"]) == {str(path)}
    assert found.file == str(path)


def test_a_fragment_is_replayed_and_gives_way_to_what_is_complete(desk, tmp_path):
    part = dbnfiles.fragment(tmp_path / "part.dbn.zst", "trades", trades(instruments=1))
    desk.good(part)
    assert desk.moves(NO_SIDES) == (10, 0)
    assert desk.adds_up()
    assert desk.moves(NO_SIDES) == (0, 0)


def test_a_unit_of_which_too_many_rows_would_go_stays_as_it_is(parent):
    strict = ruled(NON_POSITIVE_PRICE=("ERROR", "price > 40"))
    before = parent.digest(), parent.store.ledger().height
    planned, outcomes = parent.replay(strict)
    assert (planned.rows_into, outcomes) == (0, [])
    assert len(planned.refused) == 1
    assert len(planned.refused[0].over) == 2
    assert (parent.digest(), parent.store.ledger().height) == before


def test_purged_rejects_are_replayed_and_those_that_stay_stay_purged(parent):
    units = parent.store.quarantine()["unit"].unique().to_list()
    parent.store.purge(units, [], "old")
    assert parent.moves(NO_SIDES) == (10, 0)
    assert parent.adds_up()
    assert set(parent.store.quarantine()["record"]) == {"null"}
    assert parent.entries() == []


def test_an_unknown_rule_and_an_unknown_unit_are_refused(parent):
    with pytest.raises(RequestError, match="INVALID_SIZE") as caught:
        parent.replay(rule="INVALID_SIZE")
    assert "INVALID_SIDE" in caught.value.hint
    with pytest.raises(RequestError, match="no unit is stored"):
        parent.replay(unit="999")


def test_a_replay_with_nothing_to_move_exports_what_one_that_died_has_not(parent, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("hdi.rejects.replaying.export_rejects", lambda *_: None)  # killed after its last commit
        assert parent.moves(NO_SIDES) == (10, 0)
    assert len(parent.entries()) == 12
    assert parent.moves(NO_SIDES) == (0, 0)
    assert len(parent.entries()) == 2

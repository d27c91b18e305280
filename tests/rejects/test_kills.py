"""A replay that is killed, at whatever moment, ends when it is run again as one that was not."""

import os

import pytest

from rejects.kills import KILLED, Replays, copied, kept, killed_at_random, moves, purged, replayed, state, stocked

#: So many random kills; five hundred of them take minutes.
FEW = 2
KILLS = int(os.environ.get("HDI_TEST_REPLAY_KILLS", FEW))


@pytest.fixture(scope="module")
def children():
    children = Replays()
    yield children
    children.close()


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    return stocked(tmp_path_factory.mktemp("stock"))


@pytest.fixture(scope="module")
def undisturbed(stock, tmp_path_factory):
    """The steps of a replay that nothing interrupted, and the state after it."""
    place = copied(stock, tmp_path_factory.mktemp("undisturbed") / "place")
    steps = []
    assert replayed(place.folder, steps.append) == 0
    assert moves(place.folder) == (0, 0)
    return steps, state(place)


def test_a_replay_killed_at_any_step_ends_as_if_it_had_not_been(tmp_path, children, stock, undisturbed):
    steps, expected = undisturbed
    # Each step of the second file, and the last of the one before; all steps where many kills are asked for.
    after = steps.index("commit")
    few = [after, *(steps.index(name, after + 1) for name in ("look", "move", "commit"))]
    for k in [at + 1 for at in (range(len(steps)) if KILLS > FEW else few)]:
        place = copied(stock, tmp_path / str(k))
        assert children.run(place.folder, step=k) == KILLED, steps[k - 1]
        assert replayed(place.folder) == 0
        assert state(place) == expected, steps[k - 1]
        assert place.leftovers() == [], steps[k - 1]


def test_a_purge_killed_at_any_step_ends_as_if_it_had_not_been(tmp_path, children, stock):
    whole, steps = copied(stock, tmp_path / "whole"), []
    before = kept(whole.folder)[0]
    purged(whole.folder, steps.append)
    expected = kept(whole.folder)
    assert expected[0][:2] == before[:2]
    assert expected[0][2:] != before[2:]
    assert {row[4] for row in expected[0][4]} == {True, False}
    assert {"look", "intent", "move", "commit", "clear"} <= set(steps)
    for k in sorted({steps.index(name) + 1 for name in steps}):
        place = copied(stock, tmp_path / str(k))
        assert children.run(place.folder, "purge", step=k) == KILLED, steps[k - 1]
        # Nothing went, or all of it, and whoever reads finds everything that is named.
        between = kept(place.folder)[0]
        assert between in (before, expected[0]), steps[k - 1]
        purged(place.folder)
        assert kept(place.folder) == expected, steps[k - 1]
        assert place.leftovers() == [], steps[k - 1]


def test_replays_killed_at_random_moments_end_as_if_they_had_not_been(tmp_path, children, stock, undisturbed):
    killed_at_random(children, stock, tmp_path, undisturbed[1], KILLS)

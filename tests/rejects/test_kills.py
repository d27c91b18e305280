"""A replay or a purge that is killed, at whatever moment, ends when it is run again as one that was not."""

import shutil
import uuid

import pytest

from children import KILLED
from rejects.kills import Replays, copied, kept, loaded, moves, purged, replayed, state, stocked
from server_faults.places import ServerPlace
from torture.frame import differing


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
    assert replayed(place, steps.append) == 0
    assert moves(place) == (0, 0)
    return steps, state(place)


def test_a_replay_killed_at_any_step_ends_as_if_it_had_not_been(tmp_path, children, stock, undisturbed):
    steps, expected = undisturbed
    # Steps of the second file, and the last of the one before.
    after = steps.index("commit")
    for k in [at + 1 for at in (after, *(steps.index(name, after + 1) for name in ("look", "move", "commit")))]:
        place = copied(stock, tmp_path / str(k))
        assert children.run(place, step=k) == KILLED, steps[k - 1]
        assert replayed(place) == 0
        assert differing(expected, state(place)) == [], steps[k - 1]
        assert place.leftovers() == [], steps[k - 1]


def test_a_purge_killed_at_any_step_ends_as_if_it_had_not_been(tmp_path, children, stock):
    whole, steps = copied(stock, tmp_path / "whole"), []
    before = kept(whole)
    purged(whole, steps.append)
    expected = kept(whole)
    assert {name for name in before if before[name] != expected[name]} >= {"rejects", "purged"}
    assert expected["trades"] == before["trades"]
    assert expected["ledger"] == before["ledger"]
    assert {row[4] for row in expected["purged"]} == {True, False}
    assert {"look", "intent", "move", "commit", "clear"} <= set(steps)
    for k in sorted({steps.index(name) + 1 for name in steps}):
        place = copied(stock, tmp_path / str(k))
        assert children.run(place, "purge", step=k) == KILLED, steps[k - 1]
        # Nothing went, or all of it, and whoever reads finds everything that is named.
        between, beside = kept(place), {"side files": None, "exported rejects": None}
        assert between | beside in (before | beside, expected | beside), steps[k - 1]
        purged(place)
        assert kept(place) == expected, steps[k - 1]
        assert place.leftovers() == [], steps[k - 1]


@pytest.fixture
def lakes(stock, tmp_path):
    """``lakes(number)``: a copy of the lake."""
    return lambda number: copied(stock, tmp_path / str(number))


@pytest.fixture(scope="module")
def on_server(tmp_path_factory):
    """The name of a database with the same rows, what makes it, and where its folders are."""
    folder = tmp_path_factory.mktemp("server")
    place = ServerPlace(folder / "place", {"max_reject_percent": 5.0})

    def prepare(url):
        place.address = url
        loaded(folder, place)

    return f"rejects_{uuid.uuid4().hex[:8]}", prepare, place


@pytest.fixture
def servers(databases, on_server, tmp_path):
    """``servers(number)``: a copy of the database and its folders."""
    name, prepare, stock = on_server
    with databases.kept() as fresh:

        def new(number):
            url = fresh(name, prepare)
            return copied(stock, tmp_path / str(number), url)

        yield new


@pytest.mark.kill("replay", "lake")
def test_a_replay_killed_at_a_random_moment_ends_as_if_it_had_not_been(children, lakes, torture):
    torn(torture, children, lakes, "replay")


@pytest.mark.kill("replay", "server")
def test_a_replay_on_a_server_killed_at_a_random_moment_ends_as_if_it_had_not_been(children, servers, torture):
    torn(torture, children, servers, "replay")


@pytest.mark.kill("purge", "lake")
def test_a_purge_killed_at_a_random_moment_ends_as_if_it_had_not_been(children, lakes, torture):
    torn(torture, children, lakes, "purge")


@pytest.mark.kill("purge", "server")
def test_a_purge_on_a_server_killed_at_a_random_moment_ends_as_if_it_had_not_been(children, servers, torture):
    torn(torture, children, servers, "purge")


def torn(torture, children, new, act):
    """Kill it; run again, it ends as one that nothing interrupted."""
    again, told = {"replay": (replayed, state), "purge": (purged, kept)}[act]
    whole = new("whole")
    assert again(whole) == 0
    expected = told(whole)
    for attempt in torture:
        place = new(attempt.number)
        children.start(place, act)
        if attempt.hit(children.follow(attempt.moment)):
            assert again(place) == 0, attempt.said
        attempt.same(expected, told(place))
        attempt.none(place.leftovers(), "files, sessions or rows")
        if act == "replay":
            assert moves(place) == (0, 0), attempt.said
        shutil.rmtree(place.folder)

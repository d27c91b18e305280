"""The harness of kills: it counts what is wrong with rows, hits short stages too, and publishes what was done."""

import json
from argparse import Namespace
from types import SimpleNamespace

import polars as pl
import pytest

from children import KILLED, End
from torture import page
from torture.frame import SHARES, STAGES, Torture, differences, share, stage
from torture.plugin import Book

ROWS = [(1, "a"), (2, "b"), (2, "b"), (3, "c")]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (ROWS, {}),
        (ROWS[1:], {"lost": 1}),
        ([*ROWS, ROWS[0]], {"doubled": 1}),
        ([(1, "x"), *ROWS[1:]], {"altered": 1}),
        ([*ROWS, (9, "z")], {"altered": 1}),
        ([(1, "x"), ROWS[1], ROWS[3], ROWS[3]], {"lost": 1, "doubled": 1, "altered": 1}),
    ],
)
def test_rows_that_are_lost_doubled_or_altered_are_counted(found, expected):
    assert differences(ROWS, found) == expected


def rounds(kills=8, seed=1):
    """Rounds of children that take a second, with short steps at their end, and die when they are killed."""
    torture, at = Torture("ingest", "lake", kills, seed, 0), [0.2, 0.9, 0.91, 0.92]
    steps = ["begin", "lock", "move", "commit"]
    for attempt in torture:
        moment, when = attempt.moment, 2.0
        if moment is not None:
            when = (at[moment.step - 1] if moment.step else 0) + moment.seconds
        came = [s for s, t in zip(steps, at, strict=True) if t <= when]
        yield torture, attempt, End(KILLED if when < 1 else 0, min(when, 1), came, at[: len(came)])


def test_the_first_round_is_not_disturbed_and_the_others_hit_short_stages_too():
    hit = {}
    for torture, attempt, end in rounds(kills=200):
        assert attempt.hit(end) == (attempt.moment is not None and end.code == KILLED)
        hit = torture.told["kills"]
    assert sum(hit.values()) == 200
    assert hit["commit"] > 20
    assert hit["ledger"] > 10
    assert torture.told["found"] == {}


def test_a_seed_gives_the_same_moments():
    def moments(seed):
        found = []
        for _, attempt, end in rounds(seed=seed):
            attempt.hit(end)
            found.append(attempt.moment)
        return found

    assert moments(7) == moments(7) != moments(8)


def test_a_row_that_is_not_what_it_was_fails_the_round_and_names_the_seed():
    torture, attempt, end = next(rounds(seed=77))
    attempt.hit(end)
    rows = pl.DataFrame({"a": [1, 2]})
    attempt.same({"rows": rows}, {"rows": rows.clone()})
    with pytest.raises(AssertionError, match=r"rows: .*altered.*--kill-seed 77"):
        attempt.same({"rows": rows}, {"rows": rows + 1})
    with pytest.raises(AssertionError, match="the order"):
        attempt.same({"rows": rows}, {"rows": rows.reverse()})
    with pytest.raises(AssertionError, match="twice"):
        attempt.paid(twice=1, cut=0)
    assert torture.told["found"] == {"altered": 1, "twice": 1}


def test_a_child_that_fails_by_itself_fails_the_round():
    _, attempt, _ = next(rounds())
    with pytest.raises(AssertionError):
        attempt.hit(End(99, 0.1, [], []))


def test_shares_are_those_of_a_thousand():
    assert sum(few > 0 for _, few in SHARES.values()) == len(SHARES)
    assert sum(share(*kind, 1_000) for kind in SHARES) == 1_000
    assert sum(share(*kind, 1_000) for kind in SHARES if kind[0] == "replay") == 500


def test_every_step_belongs_to_a_stage():
    assert {stage("ingest", []), stage("maintain", ["begin"]), stage("buy", ["begin", "commit"])} <= {*STAGES}
    with pytest.raises(KeyError):
        stage("ingest", ["unheard of"])


def told(kills, found=None, activity="replay"):
    parts = {"activity": activity, "store": "lake", "kills": {"commit": kills}, "tries": 3, "found": found or {}}
    return SimpleNamespace(when="call", user_properties=[("torture", parts)], duration=60.0, skipped=False)


def broken(outcome, why=""):
    return SimpleNamespace(
        when="setup" if why else "call", user_properties=[("fault", ["disk", "full", "lake"])], outcome=outcome,
        skipped=bool(why), longrepr=("file", 1, why),
    )  # fmt: skip


def run(folder, reports, status=0, **options):
    """What a run says at its end."""
    flags = {"kill_seed": 5, "torture_page": folder, "torture_anyway": False, "torture_part": False} | options
    book, lines = Book(Namespace(**flags)), []
    for report in reports:
        book.pytest_runtest_logreport(report)
    book.pytest_sessionfinish(status)
    book.pytest_terminal_summary(SimpleNamespace(write_line=lines.append))
    return lines[0]


def test_a_run_that_fails_writes_no_page(tmp_path):
    assert "no page" in run(tmp_path, [told(3)], status=1)
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_added_up_and_rendered(tmp_path):
    reports = [told(3), told(4, {"cut": 2}, "buy"), told(5), broken("passed"), broken("skipped", "no mount")]
    assert "12 kills" in run(tmp_path, reports)
    data = json.loads((tmp_path / page.JSON).read_text())
    assert [(k["activity"], k["kills"], k["cut"], k["seconds"]) for k in data["kills"]] == [
        ("buy", {"commit": 4}, 2, 60), ("replay", {"commit": 8}, 0, 120),
    ]  # fmt: skip
    text = (tmp_path / page.PAGE).read_text()
    assert "| all |  | 12 | 9 | 0 | 0 | 0 | 0 | 2 |" in text
    assert "| disk | full | lake | 1 of 2 (skipped: no mount) |" in text


def test_fewer_kills_do_not_replace_more_unless_that_is_asked(tmp_path):
    run(tmp_path, [told(30), told(4, activity="buy")])
    before = (tmp_path / page.JSON).read_text()
    assert "stays" in run(tmp_path, [told(33)])
    assert (tmp_path / page.JSON).read_text() == before
    assert "33 kills" in run(tmp_path, [told(33)], torture_anyway=True)


def test_a_part_of_the_tests_leaves_what_is_said_of_the_others(tmp_path):
    run(tmp_path, [told(30), told(4, activity="buy"), broken("passed")])
    assert "stays" in run(tmp_path, [told(29)], torture_part=True)
    assert "35 kills" in run(tmp_path, [told(31)], torture_part=True)
    data = json.loads((tmp_path / page.JSON).read_text())
    assert [k["kills"]["commit"] for k in data["kills"]] == [4, 31]
    assert len(data["faults"]) == 1


def test_the_page_is_what_its_figures_render():
    data = json.loads((page.DOCS / page.JSON).read_text())
    assert (page.DOCS / page.PAGE).read_text() == page.render(data)

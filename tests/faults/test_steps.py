"""A run that dies or breaks at a step of a commit, whichever it is, changes nothing, and can be run again."""

import signal

import pytest

from hdi.errors import StoreError
from lakes import Place


def steps_of(folder, paths):
    steps = []
    Place(folder).ingest(*paths, on_step=steps.append)
    assert {"lock", "rewrite", "move", "commit"} <= set(steps)
    return steps


def test_a_run_killed_at_any_step_ends_as_if_it_had_not_been(tmp_path, nursery, paths):
    paths = paths[:2]
    undisturbed = Place(tmp_path / "undisturbed")
    undisturbed.stored(*paths)
    expected = undisturbed.state(("trades",))
    steps = steps_of(tmp_path / "steps", paths)
    for k in range(1, len(steps) + 1):
        place = Place(tmp_path / str(k))
        assert nursery.run(place.folder, paths, step=k) == -signal.SIGKILL, steps[k - 1]
        assert [o.error for o in place.ingest(*paths)] == [None, None]
        assert place.state(("trades",)) == expected, steps[k - 1]
        assert place.leftovers() == [], steps[k - 1]


@pytest.mark.fault("disk", "an error of the file system at each step of a commit", "lake")
def test_a_run_that_the_file_system_breaks_at_any_step_changes_nothing(tmp_path, paths):
    place = Place(tmp_path / "place")
    place.stored(paths[0])
    rows, ledger, files = place.digest(), place.open().ledger(), place.data_files()
    steps = steps_of(tmp_path / "steps", paths[:2])
    for k in range(steps.index("begin", 1), len(steps)):
        left = [k - steps.index("begin", 1)]

        def on_step(step, left=left):
            if left[0] == 0:
                raise OSError(5, f"no such luck at {step}")
            left[0] -= 1

        with pytest.raises(StoreError, match="no such luck"):
            place.ingest(paths[1], on_step=on_step)
        assert (place.digest(), place.data_files()) == (rows, files), steps[k]
        assert place.open().ledger().equals(ledger)
        assert place.leftovers() == []
    place.stored(paths[1])

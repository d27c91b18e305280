"""A process that may have no more memory ends, and nothing is half stored: the next one goes on."""

import resource
import signal
from pathlib import Path

import pytest

from children import KILLED, Children, serve
from faults.marks import on_both
from hdi.cli import app
from hdi.cli.session import Session

MIB = 1 << 20
#: So much more than what it has when it begins.
EXTRA = (16, 96, 224, 640)
#: How long one may hang: Python waits for ever for a thread that had no memory to begin.
PATIENCE = 6
#: Well; by an error; given up by the allocator of Polars; or hanging.
ENDS = (0, 99, -signal.SIGABRT, KILLED)


class Cells(Children):
    """Forks children that ingest with little memory."""

    def __init__(self):
        super().__init__("-W", "ignore", __file__)

    def run(self, place, paths, extra):
        """How a child ended that may have so many more bytes than it has when it begins: as :meth:`watch` has it."""
        return self.watch(self.fork(
            {"folder": str(place.folder), "address": place.address, "paths": [*map(str, paths)], "extra": extra}
        ), PATIENCE)  # fmt: skip


@pytest.fixture(scope="module")
def cells():
    children = Cells()
    yield children
    children.close()


@on_both("memory", "a limit that is met in the middle of an ingest")
def test_a_run_that_meets_its_limit_stores_whole_files_and_the_next_one_the_rest(new, cells, paths):
    expected = new("expected")
    expected.stored(*paths[:2])
    wanted, ends = expected.state(("trades",)), []
    for extra in EXTRA:
        place = new(str(extra))
        ends.append(cells.run(place, paths[:2], extra * MIB))
        assert ends[-1] in ENDS, ends
        assert [o.error for o in place.ingest(*paths[:2])] == [None, None], ends
        assert place.state(("trades",)) == wanted, ends
        assert place.leftovers() == [], ends
    assert ends[0] != 0, ends
    assert ends[-1] == 0, ends


@pytest.mark.parametrize("error", [MemoryError("Unable to allocate 8 GiB"), RuntimeError("can't start new thread")])
def test_the_program_says_that_memory_ran_out_and_what_to_do(error, capfd):
    assert app._end(error, Session()) == 1
    said = capfd.readouterr().err
    assert f"not enough memory: {error}" in said
    assert "run the same command again" in said


def work(job):
    """Ingest; how many files failed."""
    about = Path("/proc/self/status").read_text()
    has = next(int(line.split()[1]) for line in about.splitlines() if line.startswith("VmData:")) << 10
    resource.setrlimit(resource.RLIMIT_DATA, (has + job["extra"], has + job["extra"]))
    place = Place(Path(job["folder"]), address=job["address"])
    return sum(o.status == "failed" for o in place.ingest(*map(Path, job["paths"])))


if __name__ == "__main__":
    import pandera.polars  # noqa: F401  (the slowest of the imports, else made by each child)

    import hdi.stores.lake
    import hdi.stores.timescaledb  # noqa: F401
    from lakes import Place

    serve(work)

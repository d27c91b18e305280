"""Files that are torn, zeroed or emptied: said at reading with their name and what to do, and never taken for good."""

import os
import random
import shutil
from pathlib import Path

import pytest
from deltalake import DeltaTable

from children import KILLED
from hdi.cli import run
from lakes import Place

WINDOW = ("--start-date", "2024-01-02", "--end-date", "2024-01-04")
QUERY = ("--store", "lake:lake", "query", "-s", "ES.FUT", "--schema", "trades", *WINDOW, "--output-format", "csv")
#: Which file, and what is said to do.
SAID = {
    "rows": ("trades_data/dataset=*/**/*.parquet", "hdi restore"),
    "the log of rows": ("trades_data/_delta_log/*1.json", "hdi restore"),
    "books": ("coverage/part-*.parquet", "remove the folder"),
    "the log of books": ("ingest_units/_delta_log/*.json", "remove the folder"),
    "what the lake is": ("hdi.json", "backup"),
}


def cut(data, moment):
    return data[: int(len(data) * moment)]


def zeroed(data, moment):
    """The blocks from one on were never written."""
    at = min(int(len(data) * moment), len(data) - 1) // 512 * 512
    return data[:at] + bytes(len(data) - at)


def emptied(_, __):
    return b""


def holed(data, _):
    """A block in the middle was never written."""
    return bytes(9) + data[9:]


def ended(data, moment):
    """Cut between two lines."""
    lines = data.splitlines(keepends=True)
    return b"".join(lines[: int((len(lines) - 1) * moment) + 1]) if len(lines) > 1 else b""


TORN = (cut, zeroed, emptied)


@pytest.fixture(scope="module")
def stock(tmp_path_factory, paths):
    """A lake whose books were written down."""
    place = Place(tmp_path_factory.mktemp("stock"))
    place.stored(paths[0])
    place.open().settle()
    return place


@pytest.fixture
def place(stock, tmp_path, monkeypatch):
    mine = Place(shutil.copytree(stock.folder, tmp_path / "mine"))
    monkeypatch.chdir(mine.folder)
    for name in list(os.environ):
        if name.startswith("HDI_"):
            monkeypatch.delenv(name)
    return mine


@pytest.mark.fault("disk", "a file of the lake torn, zeroed or emptied", "lake")
@pytest.mark.parametrize(("where", "mended"), SAID.values(), ids=SAID)
def test_a_torn_file_is_named_with_what_to_do_and_nothing_is_changed(place, capfd, where, mended):
    seed = random.randrange(2**32)
    moments, before = random.Random(seed), place.state(("trades",))
    live = {Path(uri).name for uri in DeltaTable(str(place.root / "trades_data")).file_uris()}
    path = max(p for p in place.root.glob(where) if p.name in live or "_data/d" not in str(p))
    data = path.read_bytes()
    for tear in TORN:
        path.write_bytes(tear(data, moments.random()))
        assert run(QUERY) == 5, (seed, tear)
        said = capfd.readouterr()
        assert path.name in said.err
        assert mended in said.err
        assert "unexpected" not in said.err
    path.write_bytes(data)
    assert place.state(("trades",)) == before, seed


@pytest.mark.fault("disk", "the numbers of units torn, zeroed or emptied", "lake")
@pytest.mark.parametrize("tear", [*TORN, holed])
def test_a_torn_list_of_numbers_costs_no_row(place, tmp_path, paths, capfd, tear):
    expected = Place(shutil.copytree(place.folder, tmp_path / "expected"))
    expected.stored(paths[1])
    path = place.root / "_hdi" / "units.jsonl"
    path.write_bytes(tear(path.read_bytes(), random.random()))
    command = ["--store", "lake:lake", "ingest", "--api", "dbn", str(paths[1])]
    if tear is holed:
        assert run(command) == 5
        said = capfd.readouterr().err
        assert f"{path.relative_to(place.folder)} is damaged" in said
        assert "remove it" in said
        path.unlink()
    assert run(command) == 0
    assert place.state(("trades",))[0] == expected.state(("trades",))[0]


@pytest.mark.fault("disk", "the machine goes down while the log of a commit is written", "lake")
@pytest.mark.parametrize(
    ("file", "tear"), [(0, emptied), (1, cut), (1, zeroed), (1, emptied), (1, ended)],
)  # fmt: skip
def test_a_commit_whose_log_was_torn_by_the_end_of_the_machine_is_made_again(tmp_path, nursery, paths, tear, file):
    place, expected, steps = Place(tmp_path / "place"), Place(tmp_path / "expected"), []
    place.stored(*paths[:file])
    expected.stored(*paths[:file])
    expected.ingest(paths[file], on_step=steps.append)
    log = Path("trades_data", "_delta_log")
    entry = max((expected.root / log).glob("*.json"))
    assert nursery.run(place.folder, [paths[file]], step=len(steps) - steps[::-1].index("commit")) == KILLED
    (place.root / log / entry.name).write_bytes(tear(entry.read_bytes(), random.random()))
    place.stored(paths[file])
    assert place.state(("trades",)) == expected.state(("trades",))
    assert place.leftovers() == []

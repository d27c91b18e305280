"""Every real vendor file reads back equal from both stores."""

import functools

import pytest

from files import oracle, real
from same.twins import Ask, twins, wipe

#: Names under which a kind's rows can be asked for, which are made of others.
MADE = ("ohlcv-5m", "ohlcv-15m")


def kind_of(path):
    metadata = oracle.store(path).metadata
    return metadata.dataset, str(metadata.schema)


@functools.cache
def count(path):
    """How many records the vendor's decoder finds."""
    return sum(1 for _ in oracle.store(path))


@functools.cache
def shelves():
    """The files in groups of which none has two of the same dataset and schema: what is read is then of one file."""
    found = []
    for path in real.OURS:
        kind = kind_of(path)
        shelf = next((s for s in found if kind not in s), None)
        if shelf is None:
            shelf = {}
            found.append(shelf)
        shelf[kind] = path
    return found


@pytest.fixture(scope="module", params=range(len(shelves())) or [None])
def shelf(request, address, tmp_path_factory):
    """A pair that holds the files of one shelf, and the files by dataset and schema."""
    real.need()
    files = shelves()[request.param]
    wipe(address)
    with twins(tmp_path_factory.mktemp("shelf"), address) as made:
        made.options["origin"] = ""
        made.stored(*files.values())
        yield made, files


def test_every_row_of_every_real_file_is_equal_and_there(shelf):
    made, files = shelf
    for (dataset, schema), path in files.items():
        rows = made.alike(Ask(schema, dataset=dataset)).rows
        assert rows.height == count(path), path


def test_the_books_of_real_files_are_equal(shelf):
    made, files = shelf
    found = made.same_books()
    assert found["ledger"]["fetched"].sum() == sum(map(count, files.values()))
    made.same_dead_letters()


def test_every_symbol_of_every_real_file_finds_the_same(shelf):
    made, files = shelf
    for (dataset, schema), path in files.items():
        symbols = tuple(oracle.store(path).symbols)[:1]
        if symbols:
            made.alike(Ask(schema, symbols, dataset=dataset))


def test_bars_made_of_real_bars_are_equal(shelf):
    made, _ = shelf
    for name in MADE:
        made.alike(Ask(name))

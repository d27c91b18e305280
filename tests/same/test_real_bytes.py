"""What every real vendor file holds reads back equal from both stores."""

import functools

import pytest

from files import oracle, real
from files.shelves import shelves
from same.twins import Ask, twins, wipe

#: Names under which a kind's rows can be asked for, which are made of others.
MADE = ("ohlcv-5m", "ohlcv-15m")
#: Bytes; larger files have content that no other has.
SMALL = 20_000


@functools.cache
def count(path):
    """How many records the vendor's decoder finds."""
    return sum(1 for _ in oracle.store(path))


def content_of(path):
    """What a store is given of a file; the vendor has put much of it into several versions and packings."""
    if path.stat().st_size > SMALL:
        return path
    header = oracle.store(path).metadata
    told = (header.dataset, header.schema, header.stype_in, header.start, header.end, header.symbols, header.mappings)
    return repr((told, oracle.rows(path)))


SHELVES = shelves(tuple({content_of(path): path for path in reversed(real.OURS)}.values()))


@pytest.fixture(scope="module", params=range(len(SHELVES)) or [None])
def shelf(request, address, tmp_path_factory):
    """A pair that holds the files of one shelf, and the files by dataset and schema."""
    real.need()
    files = SHELVES[request.param]
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

"""Databases of other ages: newer ones are refused, older ones and new columns are made, a changed type is told."""

from dataclasses import replace

import polars as pl
import psycopg
import pytest

from hdi.errors import StoreError
from hdi.schema import load_schemas
from hdi.stores import open_store
from hdi.testing import Load, opened, prices, trades
from hdi.testing.material import START, content
from server_faults.places import ServerPlace

NEWER = "UPDATE hdi_meta SET value = (value::int + 1)::text WHERE key = 'layout'"
OLDER = "UPDATE hdi_meta SET value = '0' WHERE key = 'layout'"
LOAD = Load(trades([START + k for k in range(5)]))


@pytest.fixture
def url(cluster):
    return cluster.fresh()


def do(url, command):
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(command)


@pytest.mark.parametrize("write", [False, True])
def test_a_newer_layout_is_neither_read_nor_written(url, write):
    LOAD.commit(opened(url))
    do(url, NEWER)
    with pytest.raises(StoreError, match="newer hdi") as refused:
        open_store(url, load_schemas(), write=write)
    assert refused.value.exit_code == 5


def test_an_older_layout_is_told_to_who_reads_and_brought_on_by_who_writes(url):
    LOAD.commit(opened(url))
    do(url, OLDER)
    with pytest.raises(StoreError, match="run `hdi ingest"):
        open_store(url, load_schemas()).ledger()
    opened(url).close()
    assert prices(open_store(url, load_schemas())) == [100, 101, 102, 103, 104]


def test_a_handle_does_not_commit_to_a_layout_that_has_become_newer_meanwhile(url):
    store = opened(url)
    LOAD.commit(store)
    do(url, NEWER)
    with pytest.raises(StoreError, match="newer hdi"):
        LOAD.with_run("again").commit(store)


def grown(folder, kind="trades", column="note", sort="bigint", *, display=False):
    """The kinds of data, one of them with a column more than the packaged one has."""
    import hdi.schemas

    from importlib.resources import files

    text = (files(hdi.schemas) / f"{kind}.yaml").read_text()
    more = f"  {column}:\n    type: {sort}\n    null: true\n    doc: What somebody noted.\n\n"
    head, mark, rest = text.partition("\nfields:\n")
    body, mark2, tail = rest.partition("\ndisplay:")
    path = folder / f"{kind}.yaml"
    path.write_text(f"{head}{mark}{body}\n{more}display:{tail}")
    return load_schemas([path])


def test_a_column_that_is_added_to_a_kind_is_added_to_its_tables(url, tmp_path):
    LOAD.commit(opened(url))
    old = opened(url)
    schemas = grown(tmp_path)
    new = open_store(url, schemas, write=True)
    schema, _ = schemas.find("trades")
    [rows] = new.read(schema, "trades", LOAD.window, None, ["price", "note"])
    assert rows["note"].to_list() == [None] * 5
    assert new.replaced(schema).schema["note"] == pl.Int64
    # A handle that does not know the column goes on, and so does one that does.
    later = replace(LOAD, rows=trades([START + k for k in range(5)], prices=7), run="later")
    assert later.commit(old).superseded == 5
    assert content(old)["price"].unique().to_list() == [7]
    assert [r["note"].null_count() for r in new.read(schema, "trades", LOAD.window, None, ["note"])] == [5]
    assert new.replaced(schema)["price"].to_list() == [100, 101, 102, 103, 104]


def test_a_column_whose_type_is_another_is_told(url, tmp_path):
    open_store(url, grown(tmp_path), write=True).close()
    with pytest.raises(StoreError, match="note of trades_data is stored as bigint, and is declared as text") as refused:
        open_store(url, grown(tmp_path, sort="text"), write=True)
    assert refused.value.exit_code == 5
    assert "another name" in refused.value.hint


def test_a_definition_that_is_shown_with_one_more_column_is_stored_so(url, tmp_path):
    opened(url).close()
    schemas = grown(tmp_path, "definition")
    assert open_store(url, schemas, write=True).ledger().is_empty()

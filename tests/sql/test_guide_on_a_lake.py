"""The statements of docs/sql.md that are not about servers run on a lake too."""

import contextlib
import re
from pathlib import Path

import pytest

from hdi.schema_files import load_schemas
from hdi.stores import open_store
from sql import desk

PAGE = (Path(__file__).parents[2] / "docs" / "sql.md").read_text()
#: Sections of the page, and what in them is of the server's dialect alone.
SECTIONS = ("Times, prices and order", "Symbols by date", "The books", "Quality")
SERVER = {"Exact nanoseconds", "Missing days"}


def statements():
    """The statements of the sections, by heading."""
    for section in SECTIONS:
        text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
        for heading, body in re.findall(r"^### (.+?)\n.*?```sql\n(.*?)```", text, re.DOTALL | re.MULTILINE):
            if heading not in SERVER:
                yield pytest.param(body, id=heading)


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """A lake that is filled as :func:`desk.fill` says."""
    folder = tmp_path_factory.mktemp("lake")
    url = f"lake:{folder / 'lake'}"
    desk.fill(url, folder)
    with contextlib.closing(open_store(url, load_schemas())) as store:
        yield store


@pytest.mark.parametrize("statement", list(statements()))
def test_a_statement_of_the_guide_runs_on_a_lake(lake, statement):
    answer = lake.sql(statement)
    assert list(answer.collect().columns) == list(answer.columns)


def test_known_answers_are_those_of_a_server(lake):
    by_heading = {p.id: p.values[0] for p in statements()}
    assert lake.sql(by_heading["One parent of a file of several"]).collect().rows() == [(3,)]
    assert lake.sql(by_heading["Symbol consistency"]).collect().rows() == [("ESZ6", 1, 2, 0)]
    rows = lake.sql(by_heading["Front contract by day"]).collect()
    assert rows["symbol"].to_list() == ["ESH4" if d < desk.ROLL else "ESM4" for d in desk.DAYS]

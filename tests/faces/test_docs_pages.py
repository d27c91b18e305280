"""The generated pages: current, complete, and honest about it when they are not."""

from pathlib import Path

import pytest

from hdi import docs_pages
from hdi.schema_files import load_schemas
from hdi.settings import describe

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def folder(tmp_path):
    docs_pages.write(tmp_path / "docs")
    return tmp_path / "docs"


def test_the_pages_in_the_repository_are_what_the_code_says():
    assert docs_pages.stale(DOCS) == []


def test_every_command_option_setting_schema_and_column_has_its_place(folder):
    cli = (folder / "cli.md").read_text()
    for text in ("hdi ingest", "--max-rejects", "hdi query", "--output-file", "hdi status", "--check-db", "hdi demo"):
        assert text in cli
    settings = (folder / "settings.md").read_text()
    for described in describe():
        assert f"`{described.key}`" in settings
    for schema in load_schemas():
        page = (folder / "data-dictionary" / f"{schema.kind}.md").read_text()
        for name in (*schema.names, *schema.dtypes, *(r.name for r in schema.rules)):
            assert f"`{name}`" in page


def test_a_page_that_is_missing_changed_or_no_longer_made_is_told(folder, capsys):
    assert docs_pages.main(["--check", str(folder)]) == 0
    (folder / "cli.md").write_text("something else")
    (folder / "settings.md").unlink()
    (folder / "data-dictionary" / "gone.md").write_text("")
    assert docs_pages.main(["--check", str(folder)]) == 1
    err = capsys.readouterr().err
    for text in (
        "cli.md is not what the code says",
        "settings.md is missing",
        "gone.md is no longer made",
        "make docs",
    ):
        assert text in err
    assert docs_pages.main([str(folder)]) == 0
    assert docs_pages.main(["--check", str(folder)]) == 0

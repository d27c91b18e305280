"""docs/querying.md and docs/querying.ipynb: what they show is what is printed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from docs.examples import DOCS, NOTEBOOK, PAGE, Typist, alike, examples, executed, typist

TEXT = PAGE.read_text(encoding="utf-8")
README = DOCS.parent / "README.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("querying")


@pytest.fixture(scope="module")
def by(folder: Path) -> Iterator[Typist]:
    """Somebody in a folder where the demo was run."""
    with typist(folder) as made:
        yield made


def test_each_example_of_the_guide_prints_what_stands_below_it(by: Typist) -> None:
    tried = list(examples(TEXT))
    assert len(tried) > 30
    for kind, source, shown in tried:
        printed = by.printed(kind, source)
        assert alike(printed, shown), f"{source}\n{printed}"


def test_the_python_of_the_readme_gives_rows(by: Typist) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for line in filter(None, code.splitlines()):
        name = line.partition(" = ")[0]
        by.printed("pycon", f"{line}\n")
        if name in {"trades", "bars", "settled", "sides"}:
            assert int(by.printed("pycon", f"print(len({name}))\n")) > 0
    assert int(by.printed("pycon", "print(joined)\n")) > 0


def test_the_notebook_runs_and_shows_what_it_did(by: Typist, folder: Path) -> None:
    del by  # has run the demo
    told, shown = executed(folder), nbformat.read(NOTEBOOK, as_version=4)
    for now, then in zip(told.cells, shown.cells, strict=True):
        assert now.source == then.source
        assert now.get("outputs") == then.get("outputs"), now.source


def test_guide_and_notebook_name_no_place_of_a_machine() -> None:
    for text in (TEXT, NOTEBOOK.read_text(encoding="utf-8")):
        assert not re.search(r"/(tmp|work|root|home/(?!me\b))|127\.0\.0\.1|C:\\\\", text)

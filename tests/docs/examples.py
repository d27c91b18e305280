"""Guides that are tried: their commands and their Python are run in their order, and what is printed is compared.

``PYTHONPATH=tests python -m docs.examples`` writes docs/querying.md and docs/querying.ipynb again, with what is printed
now.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

from docs.guides import Reader, Step
from hdi.errors import HdiError

DOCS = Path(__file__).parents[2] / "docs"
PAGE, NOTEBOOK = DOCS / "querying.md", DOCS / "querying.ipynb"
_FENCE = re.compile(r"^```(console|pycon)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SECONDS = re.compile(r"\b\d+\.\d+ s\b")
#: What the demo makes, and what the guide starts from.
FILLING = "hdi demo"
_SAME = doctest.OutputChecker()


class Typist:
    """Somebody who types what a page shows, in a folder of their own."""

    def __init__(self, reader: Reader, folder: Path) -> None:
        self._reader, self._folder = reader, folder
        self._names: dict[str, Any] = {}

    def printed(self, kind: str, source: str) -> str:
        """What a command, or a statement of Python, prints."""
        if kind == "console":
            return self._reader.follow(Step(typed=source))[1]
        told = io.StringIO()
        with contextlib.chdir(self._folder), contextlib.redirect_stdout(told):
            self._run(source)
        return told.getvalue()

    def _run(self, source: str) -> None:
        try:
            exec(compile(source, "<guide>", "single"), self._names)
        except HdiError as error:
            name = f"{type(error).__module__}.{type(error).__qualname__}"
            sys.stdout.write(f"Traceback (most recent call last):\n    ...\n{name}: {error}\n")


def examples(page: str) -> Iterator[tuple[str, str, str]]:
    """What is typed (``console`` or ``pycon``, the text), and what the page shows below it."""
    for kind, body in _FENCE.findall(page):
        yield from _examples(kind, body)


def _examples(kind: str, body: str) -> Iterator[tuple[str, str, str]]:
    if kind == "console":
        for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
            typed = re.match(r"(?:.*\\\n)*.*\n", part)
            assert typed is not None, part
            yield kind, typed[0], part.removeprefix(typed[0])
        return
    for part in re.split(r"^>>> ", body, flags=re.MULTILINE)[1:]:
        lines = part.splitlines(keepends=True)
        more = 1
        while more < len(lines) and lines[more].startswith("..."):
            more += 1
        source = "".join([lines[0], *(line[4:] or "\n" for line in lines[1:more])])
        yield kind, source, "".join(lines[more:])


def alike(printed: str, shown: str) -> bool:
    """True where a page shows what was printed, but for seconds."""
    printed, shown = (_SECONDS.sub("SECONDS", text).rstrip() + "\n" for text in (printed, shown))
    return _SAME.check_output(shown, printed, doctest.ELLIPSIS)


@contextlib.contextmanager
def typist(folder: Path) -> Iterator[Typist]:
    """A typist in a folder where the demo was run."""
    names = {str(folder): "/home/me"}
    with Reader(folder, {"COLUMNS": "120"}, names) as reader:
        code, told = reader.follow(Step(typed=FILLING))
        assert code == 0, told
        yield Typist(reader, folder)


def retold(page: str, by: Typist) -> str:
    """The page with what its examples print now."""

    def told(found: re.Match[str]) -> str:
        kind, out = found[1], ""
        for _, source, _ in _examples(kind, found[2]):
            mark, more = ("$ ", "") if kind == "console" else (">>> ", "... ")
            lines = source.splitlines(keepends=True)
            out += mark + lines[0] + "".join((more + line).rstrip() + "\n" for line in lines[1:])
            out += by.printed(kind, source)
        return f"```{kind}\n{out}```"

    return _FENCE.sub(told, page)


def executed(folder: Path) -> nbformat.NotebookNode:
    """The notebook as it is after all its cells were run, in a folder where the demo was run."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HDI_")}
    client = NotebookClient(
        notebook,
        timeout=60,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        store_widget_state=False,
    )
    client.execute(env=environment)
    for cell in notebook.cells:
        cell.get("metadata", {}).clear()
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return notebook


def main() -> None:
    """Write page and notebook again."""
    with tempfile.TemporaryDirectory() as name, typist(Path(name)) as by:
        PAGE.write_text(retold(PAGE.read_text(encoding="utf-8"), by), encoding="utf-8")
        if "--page" not in sys.argv:
            nbformat.write(executed(Path(name)), NOTEBOOK)


if __name__ == "__main__":
    main()

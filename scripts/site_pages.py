"""What mkdocs lacks for the site: pages of the repository's root, the notebook as a page, links that it can follow.

mkdocs calls these functions (mkdocs.yml, ``hooks``).
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
#: Pages of the root, and what they are in the site.
ROOTED = {"ARCHITECTURE.md": "architecture.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md",
          "SECURITY.md": "security.md"}  # fmt: skip
NOTEBOOK, AS_PAGE = "querying.ipynb", "notebook.md"
_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^(`{3,}).*?^\1 *$", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages of the guide, with those of the root and the notebook."""
    for source, target in ROOTED.items():
        if (ROOT / source).exists():
            files.append(File.generated(config, target, content=(ROOT / source).read_text(encoding="utf-8")))
    told = nbformat.read(ROOT / "docs" / NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    files.append(File.generated(config, AS_PAGE, content=notebook(told)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with links that the site can follow."""
    del config
    rooted = page.file.src_uri in ROOTED.values()
    here = "" if rooted else posixpath.dirname(page.file.src_uri)
    known = {file.src_uri for file in files}
    blocks: list[str] = []

    def kept(found: re.Match[str]) -> str:
        blocks.append(found[0])
        return f"\0{len(blocks) - 1}\0"

    def linked(found: re.Match[str]) -> str:
        target, mark, anchor = found[2].partition("#")
        if "://" in target or not target:
            return found[0]
        # The pages of the root link from there; those of the guide from docs.
        path = posixpath.normpath(posixpath.join("" if rooted else posixpath.join("docs", here), target))
        return _to(found[1], path, f"{mark}{anchor}", here, known)

    text = _LINK.sub(linked, _FENCE.sub(kept, markdown))
    return re.sub(r"\0(\d+)\0", lambda m: blocks[int(m[1])], text)


def _to(text: str, path: str, anchor: str, here: str, known: set[str]) -> str:
    """A link to a file of the repository where the site has it, else its text."""
    path = ROOTED.get(path, path.removeprefix("docs/"))
    if path == NOTEBOOK:
        path = AS_PAGE
    if path not in known and f"{path}/README.md" in known:
        path = f"{path}/README.md"
    if path not in known:
        return text
    return f"[{text}]({posixpath.relpath(path, here or '.')}{anchor})"


def notebook(told: Any) -> str:
    """The notebook as Markdown: its text, its code, and what was printed."""
    parts = []
    for cell in told.cells:
        if cell.cell_type != "code":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            text = output.get("text") or output.get("data", {}).get("text/plain", "")
            if text:
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"

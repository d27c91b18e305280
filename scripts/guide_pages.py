"""Pages of the guide, taken apart: their prose, their fenced blocks, and what somebody types in those."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Fences whose lines somebody types.
SHELLS = {"console", "shell", "sh", "bash", ""}
PROGRAMS = ("hdi", "python main.py", "python run_mvp_verification.py")
#: What stands between backticks in prose.
CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_FENCE = re.compile(r"^( *)(`{3,})([\w-]*)[^\n]*\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- not executed: ([^\n]+?) -->\n+\Z")


@dataclass(frozen=True)
class Block:
    """A fenced block: where its first line stands, its language, its text, and why nobody runs it."""

    line: int
    language: str
    text: str
    unrun: str = ""


@dataclass(frozen=True)
class Typed:
    """A command as somebody types it, continued lines joined, with what the page shows below it."""

    line: int
    text: str
    shown: str = ""
    unrun: str = ""


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path
    text: str

    @property
    def name(self) -> str:
        """The path from the root of the repository."""
        return self.path.relative_to(ROOT).as_posix() if self.path.is_relative_to(ROOT) else str(self.path)

    @property
    def blocks(self) -> list[Block]:
        """The fenced blocks."""
        found = []
        for each in _FENCE.finditer(self.text):
            mark = _MARK.search(self.text, 0, each.start())
            found.append(Block(self.line_of(each.start(4)), each[3], each[4], mark[1] if mark else ""))
        return found

    @property
    def prose(self) -> str:
        """The text with its blocks blank, so that places stay where they are."""
        return _FENCE.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), self.text)

    def line_of(self, place: int) -> int:
        """The number of the line that a place of the text stands in."""
        return self.text.count("\n", 0, place) + 1


def page(path: Path) -> Page:
    """The page of a file."""
    return Page(path.resolve(), path.read_text(encoding="utf-8"))


def typed(block: Block) -> list[Typed]:
    """What is typed in a block: lines after ``$``, or, where no line has one, all of them."""
    lines = block.text.split("\n")
    prompts = any(line.startswith("$ ") for line in lines)
    plain = block.language not in {"console", ""} or any(line.startswith(PROGRAMS) for line in lines)
    if block.language not in SHELLS or not (prompts or plain):
        return []
    found: list[Typed] = []
    at = 0
    while at < len(lines):
        start, line = at, lines[at]
        at += 1
        if prompts and not line.startswith("$ "):
            if found:
                last = found[-1]
                found[-1] = Typed(last.line, last.text, f"{last.shown}{line}\n", block.unrun)
            continue
        text = line.removeprefix("$ ")
        while at < len(lines) and (text.endswith("\\") or _open(text)):
            text += f"\n{lines[at]}"
            at += 1
        if text.strip() and not text.lstrip().startswith("#"):
            found.append(Typed(block.line + start, text, "", block.unrun))
    return found


def _open(text: str) -> bool:
    """True where a quote, or a text that goes into a command (<<'EOF'), does not end in the text."""
    if here := re.search(r"<<-? *'?(\w+)'?", text):
        return re.search(rf"^{here[1]}$", text, re.MULTILINE) is None
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return not text.endswith("\n")
    return False

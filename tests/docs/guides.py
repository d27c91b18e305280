"""Guides that tell a story: their commands are run in their order, and what is printed is compared with the page.

``PYTHONPATH=tests python -m docs.guides`` writes docs/buying-data.md and docs/quickstart.md again, with what is printed
now.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from children import Children
from hdi.rehearsal import spawn
from hdi.rehearsal.process import Spawned

DOCS = Path(__file__).parents[2] / "docs"
PAGE, QUICK = DOCS / "buying-data.md", DOCS / "quickstart.md"
#: What the page starts its vendor with.
UNTIL, FAULT = "2024-03-16", "degraded:day=2024-03-12,hours=14-16"
QUICK_UNTIL = "2025-01-01"
_FENCE = re.compile(r"^```(console|yaml)\n(.*?)^```", re.MULTILINE | re.DOTALL)
#: What no two days or machines have in common, and what stands for it in a comparison.
_VARY = (
    (r"\d{8}T\d{6}-[0-9a-f]{6}", "RUN"),
    (r"[A-Z]{4}-\d{8}-[A-Z0-9]{10}", "JOB"),
    (r"\b20(2[5-9]|[3-9]\d)-\d\d-\d\d(T[\d:.]+Z)?", "NOW"),  # the story is told in 2024
    (r"\b\d+\.\d+ (s|seconds)\b", "SECONDS"),
    (r"^( *Storage| *Logs| *Last Ingestion): .*", r"\1"),
    (r"127\.0\.0\.1:\d+", "GATEWAY"),
    (r"(by earlier runs: ).*", r"\1SOME"),
    (r"^(RUN .*\$\S+) +[\d-]+$", r"\1 RATE"),
    (r" +", " "),
    (r"-{2,}", "--"),
)
_NAMES = re.compile(r"\d{8}T\d{6}-[0-9a-f]{6}")


@dataclass(frozen=True)
class Step:
    """A command as it is typed, with what the page shows below it; or a file that the page has written."""

    typed: str = ""
    shown: str = ""
    path: str = ""
    text: str = ""

    @property
    def command(self) -> str:
        """What is typed, on one line."""
        return re.sub(r" *\\\n *", " ", self.typed).strip()


def steps(page: str) -> list[Step]:
    """What a reader of the page does, in its order. A YAML block is a file where its first line names one."""
    return [step for kind, body in _FENCE.findall(page) for step in _steps(kind, body)]


def _steps(kind: str, body: str) -> Iterator[Step]:
    if kind == "yaml":
        if name := re.match(r"# (configs/\S+)\n", body):
            yield Step(path=name[1], text=body)
        return
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        typed = re.match(r"(?:.*\\\n)*.*\n", part)
        assert typed is not None, part
        yield Step(typed[0], part.removeprefix(typed[0]))


def alike(text: str) -> list[str]:
    """The lines of an output without what varies."""
    for pattern, put in _VARY:
        text = re.sub(pattern, put, text, flags=re.MULTILINE)
    return [line.rstrip() for line in text.strip().splitlines()]


def forking() -> Children:
    """A process that has imported everything, and forks commands of hdi."""
    return Children(Path(__file__).with_name("forked.py"))


def plain(command: str) -> list[str] | None:
    """The arguments of a command of hdi that needs no shell; None of others."""
    match = re.fullmatch(r"(?:hdi|python main\.py) ([^|&;<>()$`*?~#\n]+)(?: #.*)?", command)
    return shlex.split(match[1]) if match else None


class Reader:
    """Somebody who types the commands in a folder of their own. A context manager.

    ``folders`` are paths of this machine, each with what the page has for it. ``children`` of another reader spare
    the imports.
    """

    def __init__(
        self, folder: Path, environment: dict[str, str], folders: dict[str, str], children: Children | None = None
    ) -> None:
        self.folder, self._folders, self._lent = folder, folders, children
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {"PATH": programs, "HOME": str(folder), **environment}
        self._runs: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._children = self._lent or forking()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lent is None:
            self._children.close()

    def follow(self, step: Step) -> tuple[int, str]:
        """The exit code and what was printed, with the folders of the page."""
        if step.path:
            path = self.folder / step.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(step.text, encoding="utf-8")
            return 0, ""
        command = self.here(step.command)
        words = plain(command)
        code, printed = self._shell(command) if words is None else self._hdi(words)
        self._runs.update(zip(_NAMES.findall(step.shown), _NAMES.findall(printed), strict=False))
        for path, name in self._folders.items():
            printed = printed.replace(path, name)
        return code, printed

    def here(self, text: str) -> str:
        """The text with runs named as they are here, not as on the page."""
        return _NAMES.sub(lambda found: self._runs.get(found[0], found[0]), text)

    def retold(self, page: str) -> str:
        """The page with what its commands print now."""
        return _FENCE.sub(lambda found: f"```{found[1]}\n{self._retold(found[1], found[2])}```", page)

    def _retold(self, kind: str, body: str) -> str:
        told = ""
        for step in _steps(kind, body):
            typed = self.here(step.typed)
            told += f"$ {typed}{self.follow(step)[1]}"
        return told if kind == "console" else body

    def _hdi(self, words: list[str]) -> tuple[int, str]:
        output = self.folder / ".printed"
        job = {"words": words, "folder": str(self.folder), "environment": self.environment, "output": str(output)}
        code = self._children.watch(self._children.fork(job))
        return code, output.read_text(encoding="utf-8")

    def _shell(self, command: str) -> tuple[int, str]:
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=self.environment, text=True, timeout=300, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return done.returncode, done.stdout


@contextmanager
def reading(folder: Path, until: str = UNTIL, fault: str = FAULT) -> Iterator[Reader]:
    """A reader of a page, in an empty folder, with the vendor that the page starts."""
    with spawn(until=until) as vendor:
        if fault:
            vendor.fault(fault)
        with reading_from(vendor, folder) as reader:
            yield reader


def reading_from(vendor: Spawned, folder: Path, children: Children | None = None) -> Reader:
    """A reader of a page with that vendor."""
    folders = {
        str(folder): "/home/me/market", str(vendor.ca_file.parent): "/home/me/rehearsal",
        str(Path(sys.executable).with_name("hdi")): "/home/me/hdi/.venv/bin/hdi",
    }  # fmt: skip
    return Reader(folder, vendor.environment(), folders, children)


def main() -> None:
    """Write the pages again, or those that are named."""
    for page, until, fault in ((PAGE, UNTIL, FAULT), (QUICK, QUICK_UNTIL, "")):
        if page.stem not in (sys.argv[1:] or [page.stem]):
            continue
        with tempfile.TemporaryDirectory() as folder, reading(Path(folder), until, fault) as reader:
            told = reader.retold(page.read_text(encoding="utf-8"))
        page.write_text(told, encoding="utf-8")


if __name__ == "__main__":
    main()

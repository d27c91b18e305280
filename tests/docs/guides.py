"""Guides that tell a story: their commands are run in their order, and what is printed is compared with the page."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from children import Children

_FENCE = re.compile(r"^```(console|yaml)\n(.*?)^```", re.MULTILINE | re.DOTALL)
#: What no two days or machines have in common, and what stands for it in a comparison.
_VARY = (
    (r"\d{8}T\d{6}-[0-9a-f]{6}", "RUN"),
    (r"[A-Z]{4}-\d{8}-[A-Z0-9]{10}", "JOB"),
    (r"\b20(2[5-9]|[3-9]\d)-\d\d-\d\d(T[\d:.]+Z)?", "NOW"),  # the story is told in 2024
    (r"\b\d+\.\d\d s\b", "SECONDS"),
    (r"127\.0\.0\.1:\d+", "GATEWAY"),
    (r"(by earlier runs: ).*", r"\1SOME"),
    (r"^(RUN .*\$\S+) +[\d-]+$", r"\1 RATE"),
    (r" +", " "),
    (r"-{2,}", "--"),
)
_NAMES = re.compile(r"\d{8}T\d{6}-[0-9a-f]{6}")


@dataclass(frozen=True)
class Step:
    """A command with what the page shows below it, or a file that it has written."""

    command: str = ""
    shown: str = ""
    path: str = ""
    text: str = ""


def steps(page: str) -> list[Step]:
    """What a reader of the page does, in its order. A YAML block is a file where its first line names one."""
    found = []
    for kind, body in _FENCE.findall(page):
        if kind == "yaml":
            name = re.match(r"# (configs/\S+)\n", body)
            found += [Step(path=name[1], text=body)] if name else []
            continue
        for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
            command, _, shown = re.sub(r" *\\\n *", " ", part).partition("\n")
            found.append(Step(command, shown))
    return found


def alike(text: str, folders: dict[str, str]) -> list[str]:
    """The lines of an output without what varies. ``folders`` are written as the page has them."""
    for path, name in folders.items():
        text = text.replace(path, name)
    for pattern, put in _VARY:
        text = re.sub(pattern, put, text, flags=re.MULTILINE)
    return [line.rstrip() for line in text.strip().splitlines()]


class Reader:
    """Somebody who types the commands in a folder of their own. A context manager."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = {"PATH": programs, "HOME": str(folder), **environment}
        self._runs: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._children = Children(Path(__file__).with_name("forked.py"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._children.close()

    def follow(self, step: Step) -> tuple[int, str]:
        """The exit code and what was printed. Runs are named as they are here."""
        if step.path:
            path = self.folder / step.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(step.text, encoding="utf-8")
            return 0, ""
        command = _NAMES.sub(lambda found: self._runs.get(found[0], found[0]), step.command)
        code, printed = self._hdi(shlex.split(command)[1:]) if command.startswith("hdi ") else self._shell(command)
        self._runs.update(zip(_NAMES.findall(step.shown), _NAMES.findall(printed), strict=False))
        return code, printed

    def _hdi(self, words: list[str]) -> tuple[int, str]:
        output = self.folder / ".printed"
        job = {
            "words": words, "folder": str(self.folder), "environment": self._environment, "output": str(output)
        }  # fmt: skip
        code = self._children.watch(self._children.fork(job))
        return code, output.read_text(encoding="utf-8")

    def _shell(self, command: str) -> tuple[int, str]:
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=self._environment, text=True, timeout=60, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return done.returncode, done.stdout

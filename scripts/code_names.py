"""What pages name of the code: files, names of the package, settings, variables, options, rules, metrics, targets."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from guide_pages import CODE, ROOT, Page

_PATH = re.compile(r"((?:src|tests|scripts|configs|docs|benchmarks|deploy|fuzz|\.ci)/[\w./-]+)(?:::(\w+))?")
_NAME = re.compile(r"hdi(?:\.[A-Za-z_]\w*)+(?:\(\))?")
_VARIABLE = re.compile(r"\b(?:HDI|TIMESCALEDB|DATABENTO)_[A-Z][A-Z_]*[A-Z]\b")
_KEY = re.compile(r"[a-z]+\.[a-z][a-z_]*")
#: Rules, checks and the like; metrics.
_UPPER, _METRIC = re.compile(r"[A-Z][A-Z0-9]*_[A-Z0-9_]*[A-Z0-9]"), re.compile(r"hdi_[a-z_]+[a-z]")
_OPTION = re.compile(r"--[a-z][a-z0-9-]+")
_TARGET = re.compile(r"^(?:\$ )?make ([a-z][\w-]*)", re.MULTILINE)
#: Made while hdi works, so that pages may name them although nobody keeps them in the repository.
_MADE = ("configs/rules/", "configs/schemas/", "configs/mappings/", "configs/root.crt", "benchmarks/data", "tests/data")
#: Variables and options of other programs.
_THEIRS = ("OTEL_", "PG", "--profile")
_SUFFIXES = {".py", ".sh", ".yml", ".yaml", ".sql", ".json"}


def problems(each: Page) -> Iterator[tuple[int, str]]:
    """Line and text of what the page names, and is not there."""
    for found in CODE.finditer(each.prose):
        if wrong := _wrong(found[1]):
            yield each.line_of(found.start()), f"`{found[1]}`{wrong}"
    for found in _VARIABLE.finditer(each.text):
        if found[0] not in _words():
            yield each.line_of(found.start()), f"nothing reads the variable {found[0]}"
    for block in each.blocks:
        for found in _TARGET.finditer(block.text):
            if found[1] not in _targets():
                yield block.line, f"there is no target: make {found[1]}"
        if block.language == "python":
            yield from ((block.line, text) for text in _python(block.text))


def _wrong(text: str) -> str | None:
    """What is wrong with a piece of code in prose; None where nothing is."""
    wrong = None
    if path := _PATH.fullmatch(text):
        wrong = None if text.startswith(_MADE) or _there(*path.groups()) else " is not there"
    elif _NAME.fullmatch(text):
        wrong = None if _importable(text.removesuffix("()")) else " is no name of the package"
    elif text.endswith((".yaml", ".py", ".md", ".json", ".log", ".run")):
        pass
    elif _KEY.fullmatch(text) and text.partition(".")[0] in _groups():
        wrong = None if text in _keys() else " is no setting"
    elif _UPPER.fullmatch(text) or _METRIC.fullmatch(text):
        known = text.startswith(_THEIRS) or {text, text.removesuffix("_total")} & _words()
        wrong = None if known else ": nothing in the code has that name"
    elif text.startswith("make "):
        wrong = None if text.split()[1] in _targets() else ": there is no such target"
    elif text.startswith(("hdi.", "db.")):
        wrong = next((f": {told}" for told in _python(text)), None)
    return wrong or next(_unknown(text), None)


def _unknown(text: str) -> Iterator[str]:
    """The options that nothing takes, but for those of other programs."""
    if re.match(r"(git|pip|docker|curl|jq) ", text):
        return
    for option in (word.strip("[],;").partition("=")[0].rstrip(".") for word in text.split()):
        if _OPTION.fullmatch(option) and option not in _options() and not option.startswith(_THEIRS):
            yield f": there is no option {option}"


def _python(text: str) -> Iterator[str]:
    """What a piece of Python names of the package that is not there; ``db`` is an open store."""
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except SyntaxError:
        return
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "hdi":
            wanted = [f"{node.module}.{name.name}" for name in node.names]
        elif isinstance(node, ast.Attribute) and _opened(node.value):
            wanted = [f"hdi.api.HistoricalData.{node.attr}"]
        else:
            wanted = [dotted] if (dotted := _dotted(node)).startswith("hdi.") else []
        yield from (f"{name} is no name of the package" for name in wanted if not _importable(name))


def _opened(node: ast.AST) -> bool:
    """True for ``db`` and for ``hdi.open(...)``."""
    return (isinstance(node, ast.Name) and node.id == "db") or (
        isinstance(node, ast.Call) and _dotted(node.func) == "hdi.open"
    )


def _dotted(node: ast.AST) -> str:
    """The dotted name of an attribute of an attribute of a name; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{_dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def unset(document: Any) -> Iterator[str]:
    """The keys of a YAML document of settings that are none; nothing of other documents."""
    if isinstance(document, dict) and document.keys() <= _groups():
        for group, given in document.items():
            yield from (f"{group}.{key}" for key in given if f"{group}.{key}" not in _keys())


def _there(path: str, test: str | None) -> bool:
    if test is not None:
        return (ROOT / path).is_file() and f"def {test}(" in (ROOT / path).read_text(encoding="utf-8")
    return (ROOT / path).exists() or any(ROOT.glob(path.rstrip("/") or path))


def _importable(name: str) -> bool:
    parts = name.split(".")
    for at in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:at]))
        except ModuleNotFoundError:
            continue
        for part in parts[at:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@cache
def _keys() -> frozenset[str]:
    """The settings."""
    from hdi.settings import describe

    return frozenset(each.key for each in describe())


@cache
def _groups() -> frozenset[str]:
    """Groups of settings, and settings without one; hdi.open and the like are names of the package."""
    return frozenset(key.partition(".")[0] for key in _keys()) - {"hdi"}


@cache
def _words() -> frozenset[str]:
    """Every word of the code, its tests and its scripts, but for the tests of pages."""
    found: set[str] = set()
    files = [
        path
        for folder in ("src", "tests", "scripts", "benchmarks", "fuzz", "deploy")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in _SUFFIXES and "docs" not in path.parts
    ]
    for path in [*files, ROOT / "docker-compose.yml", ROOT / "Makefile"]:
        found.update(re.findall(r"\w+", path.read_text(encoding="utf-8")))
    return frozenset(found)


@cache
def _targets() -> frozenset[str]:
    """What make can make."""
    return frozenset(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@cache
def _options() -> frozenset[str]:
    """Options of hdi, and of the scripts and benchmarks of the repository."""
    from typer.main import get_command

    from hdi.cli.app import app

    found = {"--help"}
    waiting: list[Any] = [get_command(app)]
    while waiting:
        command = waiting.pop()
        found.update(option for p in command.params for option in (*p.opts, *p.secondary_opts))
        waiting += getattr(command, "commands", {}).values()
    for folder in ("scripts", "benchmarks", "fuzz"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".py", ".sh"}:
                found.update(_OPTION.findall(path.read_text(encoding="utf-8")))
    for path in (ROOT / "tests").rglob("*.py"):  # of pytest, here
        found.update(re.findall(r'addoption\(\s*"(--[\w-]+)"', path.read_text(encoding="utf-8")))
    return frozenset(found)

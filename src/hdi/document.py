"""YAML files with the position of every key, so that an error can say file, key, line and column."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hdi.errors import ConfigError

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """One parsed YAML file: plain data, and where each key stands (1-based line and column)."""

    path: Path
    data: Any
    marks: dict[KeyPath, tuple[int, int]] = field(repr=False)

    def where(self, *keys: str | int) -> str:
        """``file:line:column: key.path`` of a key, or of its nearest parent that exists."""
        shown = ".".join(str(k) for k in keys)
        at = keys
        while at and at not in self.marks:
            at = at[:-1]
        line, column = self.marks.get(at, (1, 1))
        return f"{self.path}:{line}:{column}" + (f": {shown}" if shown else "")

    def error(self, message: str, *keys: str | int, hint: str = "") -> ConfigError:
        """A ConfigError that names this file, the key and its position."""
        return ConfigError(f"{self.where(*keys)}: {message}", hint)


#: A number is one in decimal, as it reads: 0123, 0x1F, 1_000 and 5:37 stay text.
_NUMBERS = {
    "tag:yaml.org,2002:int": re.compile(r"(?:0|-?[1-9][0-9]{0,99})$"),
    "tag:yaml.org,2002:float": re.compile(
        r"(?:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+][0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
}


def _loader(base: Any) -> Any:
    """YAML 1.2-like scalars: ``no``/``on`` stay text and dates stay text; only true/false are Boolean."""
    resolvers = {
        first: [
            (tag, _NUMBERS.get(tag, regexp))
            for tag, regexp in known
            if tag not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:bool")
            or (tag.endswith(":bool") and first in "tTfF")
        ]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return type("Loader", (base,), {"yaml_implicit_resolvers": resolvers})


# The C parser reads the packaged schemas in a tenth of the time, but deep nesting overflows its stack.
_SAFE = _loader(yaml.SafeLoader)
_FAST = _loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader))
_DEEP = 2_000
#: So many values may be those of aliases: aliases of aliases of aliases make of a short file one that fills the memory.
_REPEATED = 100_000


def _may_be_deep(text: str) -> bool:
    """True when collections might nest deeply: a block goes deeper with its column, a flow with its bracket."""
    return text.count("[") + text.count("{") + max(map(len, text.splitlines()), default=0) > _DEEP


def load(path: Path) -> Document:
    """Read one YAML file (UTF-8).

    Raises ConfigError for a file that cannot be read, a syntax error, or a key that is given twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: cannot be read: {exc}") from exc
    return parse(text, path)


def parse(text: str, path: Path) -> Document:
    """Parse YAML text as if it stood in ``path``; errors as in :func:`load`."""
    loader = (_SAFE if _may_be_deep(text) else _FAST)(text)
    try:
        node = loader.get_single_node()
        marks: dict[KeyPath, tuple[int, int]] = {}
        if node is not None:
            sizes: dict[int, int] = {}
            if _collect(node, (), marks, path, sizes) - len(sizes) > _REPEATED:
                raise ConfigError(f"{path}:1:1: its aliases (*name) stand for more than {_REPEATED:,} values")
        data = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        at = f"{mark.line + 1}:{mark.column + 1}" if mark else "1:1"
        raise ConfigError(f"{path}:{at}: not valid YAML: {exc.problem or exc.context}") from exc
    except yaml.YAMLError as exc:
        raise ConfigError(f"{path}:1:1: not valid YAML: {exc}") from exc
    except RecursionError as exc:
        raise ConfigError(f"{path}:1:1: not valid YAML: nested too deeply") from exc
    finally:
        loader.dispose()
    return Document(path, {} if data is None else data, marks)


def _collect(
    node: yaml.Node, at: KeyPath, marks: dict[KeyPath, tuple[int, int]], path: Path, sizes: dict[int, int]
) -> int:
    """Note where each key below a node stands; how many values it is, with those of aliases.

    ``sizes`` says that of nodes met before, of those that are still open 0. What an alias repeats is looked at once,
    where its anchor stands.
    """
    marks.setdefault(at, _mark(node))
    if id(node) in sizes:
        if not sizes[id(node)]:
            line, column = _mark(node)
            raise ConfigError(f"{path}:{line}:{column}: {'.'.join(map(str, at))}: refers to itself")
        return sizes[id(node)]
    sizes[id(node)] = 0
    size = 1
    if isinstance(node, yaml.MappingNode):
        for key_node, value in node.value:
            mark = _mark(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(f"{path}:{mark[0]}:{mark[1]}: a key must be plain text")
            if not key_node.tag.endswith(":merge"):
                key_node.tag = "tag:yaml.org,2002:str"  # every key is text: ``null`` and ``1`` too
            where = (*at, key_node.value)
            if where in marks:
                raise ConfigError(f"{path}:{mark[0]}:{mark[1]}: {'.'.join(map(str, where))}: the key is given twice")
            marks[where] = mark
            size += _collect(value, where, marks, path, sizes)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            size += _collect(value, (*at, i), marks, path, sizes)
    sizes[id(node)] = size
    return size


def _mark(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1

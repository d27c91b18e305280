"""Groups of symbols: ``@ENERGY`` in a list of symbols stands for those that ``symbol_groups.yaml`` names below it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from hdi import document
from hdi.document import Document
from hdi.errors import RequestError

MARK = "@"
FILE = "symbol_groups.yaml"
_NAME = re.compile(r"[A-Z][A-Z0-9_.-]*")
WHERE = f"Groups stand in {FILE} of the config folder (--config-dir, or ./configs)."


def load_groups(config_dir: Path | None) -> dict[str, tuple[str, ...]]:
    """The symbols of each group by its name, which has no @; groups within groups are taken apart.

    Empty without folder or file. Raises ConfigError with file, line, column and key.
    """
    path = config_dir / FILE if config_dir is not None else None
    if path is None or not path.exists():
        return {}
    doc = document.load(path)
    data = {} if doc.data is None else doc.data
    if not isinstance(data, dict):
        raise doc.error("a group is a name with a list of symbols behind it, as ENERGY: [CL.c.0, NG.c.0]")
    listed = {str(name): _listed(doc, str(name), body) for name, body in data.items()}
    return {name: tuple(dict.fromkeys(_flat(doc, listed, (name,)))) for name in listed}


def _listed(doc: Document, name: str, body: object) -> list[str]:
    if not _NAME.fullmatch(name):
        raise doc.error(
            f"{name!r}: a group's name is made of capitals, digits, _ . and -, and starts with a letter", name
        )
    items = body if isinstance(body, list) else [body]
    for item in items:
        if isinstance(item, bool) or not isinstance(item, str | int):
            raise doc.error(f"{item!r} is not a symbol; one that looks like something else stands in quotes", name)
    symbols = [part.strip() for item in items for part in str(item).split(",") if part.strip()]
    if not symbols:
        raise doc.error("a symbol is needed, such as ES.c.0", name)
    return symbols


def _flat(doc: Document, listed: Mapping[str, list[str]], path: tuple[str, ...]) -> Iterator[str]:
    """The symbols of the last group of ``path``, which holds those that led to it."""
    for symbol in listed[path[-1]]:
        if not symbol.startswith(MARK):
            yield symbol
            continue
        inner = symbol[len(MARK) :].upper()
        if inner not in listed:
            raise doc.error(f"unknown group {symbol}", path[-1], hint=_meant(inner, listed))
        if inner in path:
            raise doc.error(f"{' in '.join((inner, *reversed(path)))}: a group cannot hold itself", path[-1])
        yield from _flat(doc, listed, (*path, inner))


def expand(symbols: Iterable[str], config_dir: Path | None) -> tuple[str, ...]:
    """The symbols, given one by one or joined by commas, with each group replaced by what it stands for; none twice.

    The file is read only where a group is named. Raises RequestError for an unknown group.
    """
    asked = [part.strip() for text in symbols for part in text.split(",") if part.strip()]
    if not any(symbol.startswith(MARK) for symbol in asked):
        return tuple(dict.fromkeys(asked))
    groups = load_groups(config_dir)
    found: list[str] = []
    for symbol in asked:
        name = symbol[len(MARK) :].upper()
        if not symbol.startswith(MARK):
            found.append(symbol)
        elif name in groups:
            found += groups[name]
        else:
            raise RequestError(f"unknown group {symbol} of symbols", _meant(name, groups))
    return tuple(dict.fromkeys(found))


def _meant(name: str, groups: Mapping[str, object]) -> str:
    if not groups:
        return f"No group is defined. {WHERE}"
    close = difflib.get_close_matches(name, groups, n=3, cutoff=0.5)
    meant = f"Did you mean {', '.join(f'{MARK}{c}' for c in close)}? " if close else ""
    return f"{meant}Known: {', '.join(f'{MARK}{g}' for g in groups)}. {WHERE}"


__all__ = ["FILE", "expand", "load_groups"]

"""Groups of symbols: ``@ENERGY`` in a list of symbols stands for those that ``symbol_groups.yaml`` names below it."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from hdi import document
from hdi.document import Document
from hdi.errors import ConfigError, RequestError, together

MARK = "@"
FILE = "symbol_groups.yaml"
_NAME = re.compile(r"[A-Z][A-Z0-9_.-]*")
WHERE = f"Groups stand in {FILE} of the config folder (--config-dir, or ./configs)."


def load_groups(config_dir: Path | None) -> dict[str, tuple[str, ...]]:
    """The symbols of each group by its name, which has no @; groups within groups are taken apart.

    Empty without folder or file. Raises ConfigError with file, line, column and key.
    """
    listed = _read(config_dir)
    return {name: _flat(listed, name) for name in listed}


def _read(config_dir: Path | None) -> dict[str, list[str]]:
    """What stands behind each name, of which all are known and none holds itself."""
    path = config_dir / FILE if config_dir is not None else None
    # A link to nothing is there, and cannot be read.
    if path is None or not os.path.lexists(path):
        return {}
    doc = document.load(path)
    data = {} if doc.data is None else doc.data
    if not isinstance(data, dict):
        raise doc.error("a group is a name with a list of symbols behind it, as ENERGY: [CL.c.0, NG.c.0]")
    listed: dict[str, list[str]] = {}
    problems: list[ConfigError] = []
    for name, body in data.items():
        try:
            listed[str(name)] = _listed(doc, str(name), body)
        except ConfigError as exc:
            listed[str(name)] = []
            problems.append(exc)
    done: set[str] = set()
    for name in listed:
        try:
            _check(doc, listed, name, done)
        except ConfigError as exc:
            problems.append(exc)
    if problems:
        raise together(problems)
    return listed


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


def _inner(listed: Mapping[str, list[str]], name: str) -> Iterator[str]:
    return (symbol for symbol in listed[name] if symbol.startswith(MARK))


def _group(symbol: str) -> str:
    return symbol[len(MARK) :].upper()


def _check(doc: Document, listed: Mapping[str, list[str]], name: str, done: set[str]) -> None:
    """Raise for an unknown group in this one, however deep, and for one that holds itself; look at none twice.

    What leads to a mistake is not looked at again either: it is told once, and not from each group on the way to it.
    """
    opened = {} if name in done else {name: _inner(listed, name)}
    while opened:
        outer, left = next(reversed(opened.items()))
        symbol = next(left, None)
        if symbol is None:
            done.add(outer)
            del opened[outer]
            continue
        inner = _group(symbol)
        if inner in listed and inner not in opened:
            if inner not in done:
                opened[inner] = _inner(listed, inner)
            continue
        done.update(opened)
        if inner not in listed:
            raise doc.error(f"unknown group {symbol}", outer, hint=_meant(inner, listed))
        way = list(opened)
        raise doc.error(
            f"{' in '.join((inner, *reversed(way[way.index(inner) :])))}: a group cannot hold itself", outer
        )


def _flat(listed: Mapping[str, list[str]], name: str) -> tuple[str, ...]:
    """The symbols of a group, in order and none twice. A group that comes again adds nothing."""
    found: dict[str, None] = {}
    seen = {name}
    opened = [iter(listed[name])]
    while opened:
        symbol = next(opened[-1], None)
        if symbol is None:
            opened.pop()
        elif not symbol.startswith(MARK):
            found[symbol] = None
        elif (inner := _group(symbol)) not in seen:
            seen.add(inner)
            opened.append(iter(listed[inner]))
    return tuple(found)


def expand(symbols: Iterable[str], config_dir: Path | None) -> tuple[str, ...]:
    """The symbols, given one by one or joined by commas, with each group replaced by what it stands for; none twice.

    The file is read only where a group is named. Raises RequestError for an unknown group.
    """
    asked = _parts(symbols)
    if not any(symbol.startswith(MARK) for symbol in asked):
        return tuple(dict.fromkeys(asked))
    groups = _read(config_dir)
    found: list[str] = []
    for symbol in asked:
        name = _group(symbol)
        if not symbol.startswith(MARK):
            found.append(symbol)
        elif name in groups:
            found += _flat(groups, name)
        else:
            raise RequestError(f"unknown group {symbol} of symbols", _meant(name, groups))
    return tuple(dict.fromkeys(found))


def named(symbols: Iterable[str]) -> frozenset[str]:
    """Those that are asked for by themselves, whatever the groups among them hold."""
    return frozenset(symbol for symbol in _parts(symbols) if not symbol.startswith(MARK))


def _parts(symbols: Iterable[str]) -> list[str]:
    return [part.strip() for text in symbols for part in text.split(",") if part.strip()]


def _meant(name: str, groups: Mapping[str, object]) -> str:
    if not groups:
        return f"No group is defined. {WHERE}"
    close = difflib.get_close_matches(name, groups, n=3, cutoff=0.5)
    meant = f"Did you mean {', '.join(f'{MARK}{c}' for c in close)}? " if close else ""
    return f"{meant}Known: {', '.join(f'{MARK}{g}' for g in groups)}. {WHERE}"


__all__ = ["FILE", "MARK", "expand", "load_groups", "named"]

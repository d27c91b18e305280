"""A vendor's mapping file: how its records become our columns, and which values mean "no value"."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from hdi.document import Document, load
from hdi.errors import ConfigError
from hdi.schema import closest

_PARTS = ("mappings", "undefined")


@dataclass(frozen=True, slots=True)
class Expression:
    """One of our columns as SQL over the vendor's; ``where`` is the file, position and key it was read from."""

    sql: str
    where: str


@dataclass(frozen=True)
class VendorMapping:
    """A vendor's mapping file, with the user's laid over it.

    ``expressions`` holds kind, then column; a column without one takes the vendor's column of its name.
    ``undefined`` holds, by kind, the integer columns whose type's maximum means "no value".
    """

    vendor: str
    expressions: Mapping[str, Mapping[str, Expression]]
    undefined: Mapping[str, list[str]]
    document: Document

    def where(self, kind: str, column: str) -> str:
        """File, position and key where a column is, or would be, mapped."""
        found = self.expressions.get(kind, {}).get(column)
        return found.where if found else self.document.where("mappings", kind, column)


def load_mapping(vendor: str, extra: Iterable[Path] = (), kinds: Collection[str] | None = None) -> VendorMapping:
    """The packaged mapping of a vendor with the files of ``extra`` that bear its name laid over it, later wins.

    An extra file overrides or adds single columns, and replaces whole ``undefined`` lists. With
    ``kinds`` given, any other kind in the files is refused. Raises ConfigError with file, key and position.
    """
    packaged = Path(str(resources.files("hdi"))) / "sources" / f"{vendor}.yaml"
    documents = [_packaged(packaged)] if packaged.is_file() else []
    documents += [load(path) for path in extra if path.stem == vendor]
    if not documents:
        raise ConfigError(f"{packaged}: no such file", f"The vendor {vendor!r} needs a mapping; add it to mappings/.")
    expressions: dict[str, dict[str, Expression]] = {}
    undefined: dict[str, list[str]] = {}
    for doc in documents:
        _check(doc, kinds)
        for kind, columns in doc.data.get("mappings", {}).items():
            for column, sql in columns.items():
                where = doc.where("mappings", kind, column)
                expressions.setdefault(kind, {})[column] = Expression(str(sql).strip(), where)
        undefined |= {kind: list(names) for kind, names in doc.data.get("undefined", {}).items()}
    return VendorMapping(vendor, expressions, undefined, documents[0])


@cache
def _packaged(path: Path) -> Document:
    """A packaged file; read once, however many stores a process opens."""
    return load(path)


def _check(doc: Document, kinds: Collection[str] | None) -> None:
    if not isinstance(doc.data, dict):
        raise doc.error("must be a mapping with mappings, undefined")
    for part, by_kind in doc.data.items():
        if part not in _PARTS:
            raise doc.error(f"unknown key {part!r}", part, hint=closest(part, _PARTS))
        if not isinstance(by_kind, dict):
            raise doc.error("must map kinds of data", part)
        for kind, body in by_kind.items():
            if kinds is not None and kind not in kinds:
                raise doc.error(f"unknown kind {kind!r}", part, kind, hint=closest(kind, kinds))
            _check_kind(doc, part, kind, body)


def _check_kind(doc: Document, part: str, kind: str, body: Any) -> None:
    if part == "undefined":
        if not isinstance(body, list) or not all(isinstance(name, str) for name in body):
            raise doc.error("must be a list of the vendor's columns", part, kind)
        return
    if not isinstance(body, dict):
        raise doc.error("must map columns to SQL expressions", part, kind)
    for column, sql in body.items():
        if not isinstance(sql, str | int | float) or not str(sql).strip():
            raise doc.error("must be a SQL expression", part, kind, column)

"""What a statement does, by the tree that DuckDB's parser makes of it: everything but reading is refused."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import duckdb

from hdi.stores.statements import REFUSED, chars, only_reading, pointed, refused_function, unknown
from hdi.stores.tokens import refuse_other

#: Functions that give rows without looking anywhere.
_ROWS = frozenset({
    "range", "generate_series", "unnest", "generate_subscripts", "repeat", "test_all_types", "json_each", "json_tree",
})  # fmt: skip
_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE", "VALUES_NODE"})
_CATALOGS = frozenset({"information_schema", "pg_catalog"})
_HERE = frozenset({"", "main", "memory"})
#: Where the tree does not say where.
_NOWHERE = 1 << 63


@dataclass(frozen=True)
class Reference:
    """A table that a statement names, and at which character."""

    name: str
    offset: int | None
    catalog: bool = False


def check(connection: duckdb.DuckDBPyConnection, text: str, known: Collection[str]) -> list[Reference]:
    """The tables that a statement reads. RequestError for all that does more, or reads elsewhere."""
    kinds = _kinds(connection, text)
    if len(kinds) != 1:
        raise only_reading(f"these are {len(kinds)} statements")
    if kinds != ["SELECT"]:
        refuse_other(text)
        said = " ".join(text.split()[:1]).upper()
        raise only_reading(f"{said} is no query")
    tree = json.loads(connection.execute("SELECT json_serialize_sql(?)", [text]).fetchone()[0])  # type: ignore[index]
    if tree.get("error"):
        raise only_reading(str(tree.get("error_message")))
    nodes = list(_walk(tree["statements"]))
    names = {key.casefold() for node in nodes for key in _ctes(node)}
    found = []
    for node in nodes:
        _refuse(node)
        if node.get("type") == "BASE_TABLE":
            found.append(_reference(node, names, known, text))
        elif node.get("type") == "SHOW_REF" and node.get("query") is None:
            found.append(_shown(node, known, text))
    return [f for f in found if f is not None]


def _kinds(connection: duckdb.DuckDBPyConnection, text: str) -> list[str]:
    try:
        return [s.type.name for s in connection.extract_statements(text)]
    except duckdb.Error as exc:
        refuse_other(text)
        said = str(exc)
        about = json.loads(said[said.index("{") :]) if "{" in said else {}
        at = chars(text, int(about["position"])) if "position" in about else None
        raise pointed(str(about.get("exception_message", said)), text, at) from exc


def _walk(tree: Any) -> Iterator[dict[str, Any]]:
    """Every node of a tree."""
    stack = [tree]
    while stack:
        here = stack.pop()
        if isinstance(here, dict):
            yield here
            stack.extend(here.values())
        elif isinstance(here, list):
            stack.extend(here)


def _ctes(node: dict[str, Any]) -> Iterator[str]:
    held = node.get("cte_map")
    if isinstance(held, dict):
        yield from (entry["key"] for entry in held.get("map", []))
    if node.get("type") == "RECURSIVE_CTE_NODE":
        yield str(node.get("cte_name", ""))


def _offset(node: dict[str, Any], text: str) -> int | None:
    byte = node.get("query_location")
    return chars(text, byte) if isinstance(byte, int) and byte < _NOWHERE else None


def _refuse(node: dict[str, Any]) -> None:
    kind = str(node.get("type", ""))
    if kind.endswith("_NODE") and kind not in _NODES:
        raise only_reading(f"{kind.partition('_')[0]} is no query")
    if kind == "TABLE_FUNCTION":
        name = _function(node["function"])
        if name not in _ROWS:
            raise only_reading(f"the function {name} is not for rows of this store")
    if node.get("class") == "FUNCTION" and (name := _function(node)) in REFUSED:
        raise refused_function(name)


def _function(node: dict[str, Any]) -> str:
    return str(node.get("function_name") or node.get("qualified_name", {}).get("path", [""])[-1]).casefold()


def _path(node: dict[str, Any]) -> list[str]:
    path = node.get("qualified_name", {}).get("path") or [node.get("table_name", "")]
    return [str(p).strip('"') for p in path]


def _reference(
    node: dict[str, Any], ctes: Collection[str], known: Collection[str], text: str
) -> Reference | None:  # fmt: skip
    *scope, name = _path(node)
    at = _offset(node, text)
    if scope and scope[-1].casefold() in _CATALOGS:
        return Reference(name, at, catalog=True)
    folded = name.casefold()
    here = all(s.casefold() in _HERE for s in scope)
    if here and folded in {k.casefold() for k in known}:
        return Reference(folded, at)
    if not scope and folded in ctes:
        return None
    raise unknown("table", ".".join([*scope, name]), known, text, at)


def _shown(node: dict[str, Any], known: Collection[str], text: str) -> Reference | None:
    name = _path(node)[-1]
    if name.casefold() in {k.casefold() for k in known}:
        return Reference(name.casefold(), _offset(node, text))
    if name.casefold() == "tables":
        return Reference(name, None, catalog=True)
    raise unknown("table", name, known, text, None)


__all__ = ["Reference", "check"]

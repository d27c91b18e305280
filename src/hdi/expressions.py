"""SQL expressions that see only the row: parsed, checked on an empty frame, never evaluated as code.

What is refused: aggregates and window functions, subqueries, wildcards, the clock, functions that are not
known to work row by row, those that make texts much longer, unknown columns, and anything that fails on columns of
these types.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import polars as pl

from hdi.errors import ConfigError
from hdi.schema import closest

#: What Polars raises for an expression, parsed or evaluated; a panic of its engine is one of these.
FAILURES = (pl.exceptions.PolarsError, pl.exceptions.PanicException)

#: Where Polars keeps the parts of a node that are expressions themselves.
_CHILDREN: dict[str, tuple[Any, ...]] = {
    "BinaryExpr": ("left", "right"), "Ternary": ("predicate", "truthy", "falsy"), "Cast": ("expr",), "Alias": (0,),
}  # fmt: skip
_FAMILIES = frozenset({"StringExpr", "TemporalExpr", "Pow", "Trigonometry", "Sql"})
_FUNCTIONS = frozenset({
    "Abs", "Ceil", "Coalesce", "Exp", "Floor", "Log", "Log1p", "MaxHorizontal", "MinHorizontal", "Negate",
    "Round", "RoundSF", "Sign", "Truncate",
    "Boolean.AllHorizontal", "Boolean.AnyHorizontal", "Boolean.IsBetween", "Boolean.IsFinite", "Boolean.IsIn",
    "Boolean.IsInfinite", "Boolean.IsNan", "Boolean.IsNotNan", "Boolean.IsNotNull", "Boolean.IsNull",
    "Boolean.Not",
})  # fmt: skip
_NOT_BY_ROW = frozenset({"StringExpr.ConcatVertical"})
#: Within one another they would make of a short text one that fills the memory.
_LONGER = ("PadStart", "PadEnd", "ZFill")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
#: What stands in the parentheses of an IN, and what of it is a name: Polars takes a name there for a text.
_IN = re.compile(r"\bIN\s*\(([^()]*)\)", re.IGNORECASE)
_WORDS = re.compile(r"\b(NULL|TRUE|FALSE|DATE|TIMESTAMP|WITH|TIME|ZONE|\d+(\.\d*)?(E\d+)?)\b", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z_]")
_CLOCK = re.compile(r"\b(now|today|(current|local)_?(date|timestamp|time))\b", re.IGNORECASE)
#: Polars' parser recurses, and longer ones can exhaust its stack.
_LONGEST = 4000
#: Expressions that a process keeps: to compile those of a kind takes as long as to refine a small batch.
_KEPT = 2048
_HINT = "Write a SQL expression over the columns of one row."


def compile_sql(sql: str, columns: Mapping[str, pl.DataType], where: str) -> tuple[pl.Expr, pl.DataType]:
    """The expression, and the type that it gives over ``columns``.

    ``where`` (file, position, key) begins the message of every ConfigError.
    """
    expr, names = _parsed(sql, where)
    used: dict[str, pl.DataType] = {}  # a frame of all eighty columns of a kind costs ten times as much
    for name in names:
        if name not in columns:
            raise ConfigError(f"{where}: unknown column {name!r}", closest(name, columns))
        used[name] = columns[name]
    return expr, _type_of(sql, where, tuple(used.items()))


@lru_cache(_KEPT)
def _type_of(sql: str, where: str, used: tuple[tuple[str, pl.DataType], ...]) -> pl.DataType:
    """The type that an expression gives over columns of these types."""
    expr, _ = _parsed(sql, where)
    try:
        return pl.DataFrame(schema=dict(used)).select(expr.alias("value")).schema["value"]
    except FAILURES as exc:
        raise ConfigError(f"{where}: cannot be evaluated: {_first_line(exc)}: {sql}", _HINT) from exc


@lru_cache(_KEPT)
def _parsed(sql: str, where: str) -> tuple[pl.Expr, tuple[str, ...]]:
    """The expression of a text, if it looks at nothing but the row, and the columns that it names."""
    if len(sql) > _LONGEST:
        raise ConfigError(f"{where}: the expression is longer than {_LONGEST} characters", _HINT)
    try:
        expr = pl.sql_expr(sql)
        tree = json.loads(expr.meta.serialize(format="json"))
    except RecursionError as exc:
        raise ConfigError(f"{where}: the expression is nested too deeply: {sql[:60]}...", _HINT) from exc
    except FAILURES as exc:
        raise ConfigError(f"{where}: not a SQL expression: {_first_line(exc)}: {sql}", _HINT) from exc
    columns_in = next((m for m in _IN.findall(_QUOTED.sub("''", sql)) if _NAME.search(_WORDS.sub("", m))), None)
    if columns_in is not None:
        raise ConfigError(f"{where}: IN takes constants, not columns: IN ({columns_in}): {sql}", _HINT)
    clock = _CLOCK.search(_QUOTED.sub("''", sql))
    if clock:
        raise ConfigError(f"{where}: {clock[0]} gives another answer each time: {sql}", _HINT)
    for node in _nodes(tree):
        if node:
            raise ConfigError(f"{where}: {node} does not work row by row: {sql}", _HINT)
    if _lengthens(tree):
        raise ConfigError(
            f"{where}: it makes texts longer: {sql}", "REPLACE by a text that is no longer; there is no padding."
        )
    return expr, tuple(expr.meta.root_names())


def pattern(patterns: tuple[str, ...]) -> str:
    """One anchored regular expression of shell patterns (``*``, ``?``, ``[A-C]``, ``[!X]``); one match is enough."""
    return "^(?s:" + "|".join(_pattern(p) for p in patterns) + ")$"


def _pattern(glob: str) -> str:
    out, at = "", 0
    while at < len(glob):
        char = glob[at]
        at += 1
        close = glob.find("]", at + 1 + glob.startswith("!", at)) if char == "[" else -1
        if char == "*":
            out += ".*"
        elif char == "?":
            out += "."
        elif close > 0:
            negated, body = ("^", glob[at + 1 : close]) if glob[at] == "!" else ("", glob[at:close])
            out += f"[{negated}{re.sub(r'([^A-Za-z0-9-])', lambda m: chr(92) + m[0], body)}]"
            at = close + 1
        else:
            out += re.escape(char)
    return out


def _nodes(tree: Any) -> Iterator[str]:
    """For each node of Polars' own syntax tree: "" when it works row by row, its name when it may not."""
    if isinstance(tree, str):  # a node without children: "Len"
        yield tree
        return
    ((kind, body),) = tree.items()
    children: list[Any] = []
    if kind == "Function":
        yield _function(body["function"])
        children = body["input"]
        if "IsIn" in str(body["function"]) and not all(isinstance(c, dict) and "Literal" in c for c in children[1:]):
            # Polars takes a column there for the set of all its values.
            yield "IN or ANY over anything but constants"
    elif kind in _CHILDREN:
        children = [body[part] for part in _CHILDREN[kind]]
    elif kind == "SubPlan":
        yield "a subquery"
    elif kind not in ("Column", "Literal"):
        yield f"{kind} {next(iter(body), '')}".strip() if isinstance(body, dict) else kind
    for child in children:
        yield from _nodes(child)


def _lengthens(tree: Any) -> bool:
    """Whether a function of an expression may give a text that is many times as long as the one that it is given."""
    if isinstance(tree, list):
        return any(map(_lengthens, tree))
    if not isinstance(tree, dict):
        return False
    named = tree["function"] if "function" in tree and "input" in tree else None
    ((_, member),) = named.items() if isinstance(named, dict) else ((None, None),)
    name, how = next(iter(member.items())) if isinstance(member, dict) else (member, None)
    grows = name in _LONGER or (name == "Replace" and not _no_longer(how, *(_literal(x) for x in tree["input"][1:])))
    return grows or any(map(_lengthens, tree.values()))


def _no_longer(how: Any, old: str | None, new: str | None) -> bool:
    """Whether a replacement adds no more than itself, once."""
    if old is None or new is None:
        return False
    if how["literal"]:
        return len(new.encode()) <= len(old.encode())
    return not new or (how["n"] == 1 and "$" not in new)


def _literal(node: Any) -> str | None:
    """The text that a node is; None for any other."""
    scalar = node.get("Literal", {}).get("Scalar", {}) if isinstance(node, dict) else {}
    text = scalar.get("String") if isinstance(scalar, dict) else None
    return text if isinstance(text, str) else None


def _function(named: Any) -> str:
    if isinstance(named, str):
        return "" if named in _FUNCTIONS else named
    ((family, member),) = named.items()
    name = f"{family}.{member if isinstance(member, str) else next(iter(member))}"
    by_row = name in _FUNCTIONS or family in _FUNCTIONS or (family in _FAMILIES and name not in _NOT_BY_ROW)
    return "" if by_row else name


def _first_line(exc: BaseException) -> str:
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0]

"""Which stretch of time a Polars predicate leaves of a column: what a reader need not read at all."""

from __future__ import annotations

import json
from typing import Any

import polars as pl

#: By operator: what it says of the first instant, and of the end, where the column stands on its left.
_BOUNDS = {"Gt": (1, None), "GtEq": (0, None), "Lt": (None, 0), "LtEq": (None, 1), "Eq": (0, 1)}
_TURNED = {"Gt": "Lt", "GtEq": "LtEq", "Lt": "Gt", "LtEq": "GtEq", "Eq": "Eq"}
Stretch = tuple[int | None, int | None]
_ALL: Stretch = (None, None)


def stretch(predicate: pl.Expr, column: str) -> Stretch:
    """Nanoseconds (first, end) outside of which no row fulfils the predicate; None where it says nothing.

    Understood are comparisons of the column with an instant, and ``is_between``, alone and joined by "and". Whatever
    else a predicate holds leaves the stretch wider than need be, never narrower: it is to be applied still.
    """
    try:
        tree = json.loads(predicate.meta.serialize(format="json"))
    except (pl.exceptions.ComputeError, ImportError):  # functions of Python have no text
        return _ALL
    return _of(tree, column)


def _of(node: Any, column: str) -> Stretch:
    match node:
        case {"BinaryExpr": {"left": left, "op": "And", "right": right}}:
            return _both(_of(left, column), _of(right, column))
        case {"BinaryExpr": {"left": {"Column": name}, "op": op, "right": other}} if name == column and op in _BOUNDS:
            return _compared(op, other)
        case {"BinaryExpr": {"left": other, "op": op, "right": {"Column": name}}} if name == column and op in _BOUNDS:
            return _compared(_TURNED[op], other)
        case {"Function": {"input": [{"Column": name}, low, high], "function": {"Boolean": {"IsBetween": _}}}} if (
            name == column
        ):
            return _both(_compared("GtEq", low), _compared("LtEq", high))
    return _ALL


def _compared(op: str, literal: Any) -> Stretch:
    match literal:
        case {"Literal": {"Scalar": {"Datetime": [int(at), "Nanoseconds", _]}}}:
            first, end = _BOUNDS[op]
            return None if first is None else at + first, None if end is None else at + end
    return _ALL


def _both(one: Stretch, other: Stretch) -> Stretch:
    firsts = [at for at in (one[0], other[0]) if at is not None]
    ends = [at for at in (one[1], other[1]) if at is not None]
    return max(firsts, default=None), min(ends, default=None)


__all__ = ["Stretch", "stretch"]

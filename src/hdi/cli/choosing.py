"""``--where COLUMN=VALUE``: which rows are wanted, as values of the columns' types."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from hdi.errors import RequestError
from hdi.schema import closest

_BOOLEANS = {"true": True, "false": False}
_WHOLE = re.compile(r"[+-]?[0-9]{1,40}")
_MORE = "hdi sql takes any condition."


def chosen(kind: str, columns: Mapping[str, pl.DataType], texts: Iterable[str]) -> dict[str, list[Any]]:
    """Each column with the values that are wanted of it; one that is named again has several.

    Raises RequestError for what is no column and value, an unknown column, and a value of another type.
    """
    found: dict[str, list[Any]] = {}
    for text in texts:
        column, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not column or column[-1] in "!<>~" or value.startswith("="):
            raise RequestError(f"--where {text!r} is not COLUMN=VALUE", f"Write side=B, for example; {_MORE}")
        if column not in columns:
            raise RequestError(f"unknown column {column!r} of {kind}", closest(column, columns))
        found.setdefault(column, []).append(_typed(column, columns[column], value))
    return found


def _typed(column: str, dtype: pl.DataType, value: str) -> Any:
    if dtype == pl.String:
        return value
    if dtype == pl.Boolean:
        if value.lower() in _BOOLEANS:
            return _BOOLEANS[value.lower()]
        raise RequestError(f"--where: {column} is true or false, not {value!r}", "")
    if dtype.is_integer():
        return _number(column, dtype, value)
    what = "a price" if isinstance(dtype, pl.Decimal) else "a time"
    raise RequestError(
        f"--where cannot choose by {column}, {what}",
        f"Columns of text, whole numbers, true or false can be chosen by, time by --start-date and --end-date; {_MORE}",
    )


def _number(column: str, dtype: pl.DataType, value: str) -> int:
    if not _WHOLE.fullmatch(value):
        raise RequestError(f"--where: {column} is a whole number, not {value!r}", f"{column}=1, for example.")
    number = int(value)
    try:
        pl.Series([number], dtype=dtype, strict=True)
    except (OverflowError, TypeError, pl.exceptions.PolarsError):
        raise RequestError(f"--where: {column} is never as large as {value}", "") from None
    return number


__all__ = ["chosen"]

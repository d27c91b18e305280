"""Rows by the values of columns: what somebody asks for, checked and made what the columns hold."""

from __future__ import annotations

import re
from typing import NoReturn

from hdi.errors import RequestError
from hdi.schema import Field, Schema, closest

#: Columns, each with the values that it may have.
Chosen = tuple[tuple[str, tuple[str | int, ...]], ...]
_WHOLE = re.compile(r"[+-]?[0-9]{1,40}")
_BITS = {"smallint": 15, "integer": 31, "bigint": 63}
_WANTED = {"text": "text", "boolean": "true or false"}


def chosen(schema: Schema, where: Chosen) -> Chosen:
    """What rows are chosen by, as the columns have it. RequestError for a column or a value that there cannot be."""
    fields = {f.name: f for f in schema.fields}
    for column, _ in where:
        if column not in fields:
            raise RequestError(f"unknown column {column!r} of {schema.kind}", closest(column, fields))
    return tuple((column, tuple(_value(fields[column], v) for v in values)) for column, values in where)


def _value(column: Field, value: str | int) -> str | int:
    if column.type == "text":
        return _refused(column, value) if isinstance(value, bool) else str(value)
    if column.type in _BITS:
        return _number(column, value)
    if column.type == "boolean":
        word = str(value).lower()
        return word == "true" if word in {"true", "false"} else _refused(column, value)
    raise RequestError(
        f"rows are not chosen by {column.name}, which is a {column.type}",
        "Columns of text, of whole numbers and of true or false choose rows, start and end the time; SQL can do more.",
    )


def _number(column: Field, value: str | int) -> int:
    if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        value = int(value)
    limit = 1 << _BITS[column.type]
    if isinstance(value, bool) or not isinstance(value, int) or not -limit <= value < limit:
        _refused(column, value)
    return value


def _refused(column: Field, value: object) -> NoReturn:
    wanted = _WANTED.get(column.type, f"a whole number of {_BITS.get(column.type, 0) + 1} bits")
    raise RequestError(f"{value!r} is no value of {column.name}", f"Give {wanted}.")


__all__ = ["Chosen", "chosen"]

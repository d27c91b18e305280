"""Statistics by name: the codes that a vendor's mapping gives names to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from hdi.errors import RequestError
from hdi.schema import closest

if TYPE_CHECKING:
    from hdi.mapping import VendorMapping

#: Codes are numbers of 16 bits.
_CODES = 1 << 16


def named(mapping: VendorMapping) -> dict[str, int]:
    """Every statistic that has a name, with its code."""
    expression = mapping.expressions["statistics"]["stat_name"].sql
    codes = pl.DataFrame({"stat_type": pl.int_range(_CODES, dtype=pl.Int32, eager=True)})
    found = codes.with_columns(pl.sql_expr(expression).alias("name")).drop_nulls("name")
    return dict(found.select("name", "stat_type").iter_rows())


def codes(given: Sequence[str | int], mapping: VendorMapping) -> tuple[int, ...]:
    """The codes of statistics that are given as codes, by name, or by a beginning that only one name has.

    RequestError, with the closest names, for what is none of these.
    """
    if not given:
        raise RequestError("no statistic was named", "Name one, or give none for all of them.")
    known = named(mapping)
    return tuple(dict.fromkeys(_code(one, known) for one in given))


def _code(one: str | int, known: dict[str, int]) -> int:
    text = str(one).strip()
    if text.isascii() and text.isdigit():
        return int(text)
    name = text.lower().replace(" ", "_").replace("-", "_")
    if name in known:
        return known[name]
    meant = [other for other in known if name and other.startswith(name)]
    if len(meant) > 1:
        raise RequestError(f"{text!r} is several statistics", f"It is the beginning of {', '.join(meant)}.")
    if not meant:
        raise RequestError(f"unknown statistic {text!r}", closest(name, known))
    return known[meant[0]]


__all__ = ["codes", "named"]

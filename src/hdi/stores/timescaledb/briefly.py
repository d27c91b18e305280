"""Short answers: the few rows that come by the connection that is there, made into columns in this thread.

For so few Arrow takes longer to set up, and other threads longer to wake, than the rows take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import polars as pl
from psycopg import sql

from hdi.export import arrow_schema
from hdi.stores.timescaledb.prices import decimals, sent

#: What a server of another version of TimescaleDB may lack: the function, its schema, or the right to it.
LACKS = frozenset({"42883", "3F000", "42501"})
#: Nanoseconds since 1970: a number, which the driver reads sooner than two columns and a time.
_WHOLE = sql.SQL("_timescaledb_functions.to_unix_microseconds({}) * 1000 + {}")


def listed(columns: Mapping[str, pl.DataType]) -> sql.Composed:
    """Public columns of these types, in the form that :func:`frame` takes.

    Times have no name in it, which would hide the column that rows are in order by.
    """
    return sql.SQL(", ").join(
        _WHOLE.format(sql.Identifier(c), sql.Identifier(f"{c}_ns"))
        if dtype.is_temporal()
        else sent([c], [c] if dtype.is_decimal() else [])
        for c, dtype in columns.items()
    )


def frame(
    rows: Sequence[tuple[Any, ...]], columns: Mapping[str, pl.DataType], known: Mapping[str, str | int]
) -> pl.DataFrame:
    """The rows of a statement that asked for :func:`listed`, as public columns; ``known`` are those of one value."""
    import pyarrow as pa

    values = iter(zip(*rows, strict=True) if rows else [()] * (len(columns) - len(known)))
    arrays = []
    for name, kind in zip(columns, _kinds(tuple(columns.values())), strict=True):
        if name in known:
            arrays.append(pa.repeat(pa.scalar(known[name], kind), len(rows)))
        elif pa.types.is_decimal(kind):
            arrays.append(decimals(pa.array(next(values), pa.int64())))
        else:
            arrays.append(pa.array(next(values), kind))
    return pl.DataFrame(pa.RecordBatch.from_arrays(arrays, names=list(columns)))


@cache
def _kinds(dtypes: tuple[pl.DataType, ...]) -> list[Any]:
    """The same types as Arrow has them."""
    return list(arrow_schema({str(n): kind for n, kind in enumerate(dtypes)}).types)


__all__ = ["LACKS", "frame", "listed"]
